use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use insta::assert_snapshot;

use crate::home::Home;

const GOOD: &str = r#"
[gateway]
listen = "127.0.0.1:8484"

[[provider]]
name = "moonshot"
api = "openai-completions"
base_url = "https://api.moonshot.ai/v1"
credential = { env = "MOONSHOT_API_KEY" }

[[route]]
model = "moonshotai/kimi-k2.6"
provider = "moonshot"
upstream_model = "kimi-k2.6"
"#;

#[test]
fn the_smallest_file_has_no_mistakes_and_nothing_is_written() {
    let home = Home::new().with("MOONSHOT_API_KEY", "sk-canary");
    home.write("farrier.toml", GOOD);
    assert_snapshot!(home.run(&["check"]).shown(), @r#"
    --- stdout
    farrier.toml: no mistakes (1 provider, 1 route, 0 clients, 8 manifests)
    --- exit 0
    "#);
    assert_eq!(home.files().len(), 1, "check left something behind");
}

#[test]
fn the_file_in_the_configuration_directory_is_found() {
    let home = Home::new().with("MOONSHOT_API_KEY", "sk-canary");
    home.write(".config/farrier/farrier.toml", GOOD);
    assert_eq!(home.run(&["check"]).code, Some(0));
}

#[test]
fn no_file_at_all_says_where_one_was_looked_for() {
    let home = Home::new();
    let shown = home.run(&["check"]).shown();
    assert_snapshot!(shown.replace(home.path().to_str().unwrap(), "~"), @r#"
    --- stderr
    error: expected a configuration at farrier.toml or ~/.config/farrier/farrier.toml, got none
      hint: name one with --config
      hint: `farrier demo` needs none
    --- exit 1
    "#);
}

/// One of each kind of mistake, and all of them reported.
#[test]
fn every_mistake_is_reported_at_once_with_its_line() {
    let home = Home::new().with("COMMON_KEY", "sk-canary");
    home.write("manifests/any/broken.json", "{\"id\": \"broken\",");
    home.write(
        "manifests/any/odd.json",
        "{\"id\": \"odd\", \"agent\": \"nobody\"}",
    );
    home.write("occupied", "");
    home.write("farrier.toml", include_str!("check/mistakes.toml"));
    assert_snapshot!(home.run(&["check"]).shown(), @r#"
    --- stderr
    farrier.toml:2: expected a key of [gateway], got "lisen"; did you mean "listen"
    farrier.toml:3: expected an address with a port, such as "127.0.0.1:8484", for listen, got "localhost:8484"
    farrier.toml:4: expected a size with its unit, such as "32MiB", for max_body, got "32 parsecs"
    farrier.toml:5: expected a size with its unit, such as "32MiB", for max_reply, got a whole number
    farrier.toml:6: expected a host name for allowed_hosts, got a whole number
    farrier.toml:7: expected the name of a provider as default_provider, got "moonshoot"; did you mean "moonshot"
    farrier.toml:8: expected a key of [gateway.deadlines], got "conect"; did you mean "connect"
    farrier.toml:8: expected a time with its unit, from "1ms" to "1day", for connect, got "10"
    farrier.toml:8: expected a time with its unit, from "1ms" to "1day", for silence, got "0s"
    farrier.toml:12: expected a reference, { env = "NAME" } or { file = "PATH" }, for key, got a literal text; keep secrets out of this file
    farrier.toml:16: expected the name of an environment variable, such as MOONSHOT_API_KEY, for env, got another text; keep secrets out of this file
    farrier.toml:20: expected a reference, { env = "NAME" } or { file = "PATH" }, for key, got both
    farrier.toml:22: expected name in [[client]], got none
    farrier.toml:23: expected the environment variable UNSET_CLIENT_KEY, which is not set
    farrier.toml:27: expected "openai-completions" for api, got "anthropic"
    farrier.toml:29: expected a reference, { env = "NAME" } or { file = "PATH" }, for credential, got a literal text; keep secrets out of this file
    farrier.toml:33: expected a URL without a user name or password for base_url, got one with; use credential for these
    farrier.toml:34: expected a key of [[provider]], got "api_key"; did you mean "credential"
    farrier.toml:38: expected an http or https URL for base_url, got "ftp://host/v1"
    farrier.toml:39: expected the name of a header for header, got "no spaces allowed"
    farrier.toml:40: expected one of "auto", "1.1", "2" for http_version, got "3"
    farrier.toml:41: expected a text for server, got an empty text
    farrier.toml:46: cannot read missing.pem: No such file or directory (os error 2)
    farrier.toml:50: expected the name of a provider for model "a", got "vlm"
    farrier.toml:52: expected one route for each model, got two for "a"
    farrier.toml:57: expected a place for the ledger that can be written to, got occupied/ledger.db
    farrier.toml:58: expected a time with its unit, from "1s" to "100years", for ttl, got "1 fortnight"
    farrier.toml:59: expected a whole number of at least 1 for max_entries_per_scope, got 0
    farrier.toml:60: cannot read nokey: No such file or directory (os error 2)
    farrier.toml:63: expected a directory of manifests at gone: No such file or directory (os error 2)
    farrier.toml:64: unknown manifest to switch off 'kimi-k2-native-tool-idz'; did you mean `kimi-k2-native-tool-ids`?
    farrier.toml:66: expected dir in [trace], got none
    farrier.toml:67: expected one of "mask", "keep" for text, got "loud"
    farrier.toml:69: expected a key of the file, got "foo"; known are gateway, client, provider, route, egress, ledger, registry, trace
    manifests/any/broken.json:1:16: not JSON: EOF while parsing a value
    manifests/any/odd.json: unknown agent 'nobody'
    manifests/any/odd.json: field 'description' must be a non-empty string
    manifests/any/odd.json: field 'match' must be an object
    manifests/any/odd.json: field 'effects' must be a non-empty object
    error: 39 mistakes in farrier.toml
    --- exit 1
    "#);
}

#[test]
fn mistakes_are_data_when_asked_for() {
    let home = Home::new();
    home.write(
        "farrier.toml",
        "[gatway]\n[[provider]]\nname = \"p\"\nbase_url = \"http://127.0.0.1:1/v1\"\n",
    );
    let said = home.run(&["check", "--json"]);
    assert_snapshot!(said.shown(), @r#"
    --- stdout
    {
      "file": "farrier.toml",
      "valid": false,
      "mistakes": [
        {
          "line": 1,
          "message": "expected a key of the file, got \"gatway\"; did you mean \"gateway\""
        }
      ],
      "warnings": [],
      "providers": 1,
      "routes": 0,
      "clients": 0,
      "manifests": 8
    }
    --- exit 1
    "#);
}

#[test]
fn a_ledger_in_use_by_a_gateway_is_no_mistake_and_one_with_another_key_is() {
    let home = Home::new()
        .with("KEY", &"0f".repeat(32))
        .with("OTHER", &"1f".repeat(32));
    let text = |key: &str| {
        format!(
            "[gateway]\nlisten = \"127.0.0.1:0\"\n[[provider]]\nname = \"p\"\nbase_url = \"http://127.0.0.1:1/v1\"\n\
             [ledger]\npath = \"state/ledger.db\"\nencryption_key = {{ env = \"{key}\" }}\n"
        )
    };
    home.write("farrier.toml", &text("KEY"));
    let mut gateway = home.start(&["up"]);
    gateway.listening();
    assert_eq!(home.run(&["check"]).code, Some(0));
    gateway.signal(rustix::process::Signal::TERM);
    assert_eq!(gateway.ended().code, Some(0));

    home.write("farrier.toml", &text("OTHER"));
    let said = home.run(&["check"]);
    assert_eq!(said.code, Some(1));
    assert!(
        said.stderr.contains("farrier.toml:7: the ledger"),
        "{}",
        said.stderr
    );
    assert!(
        said.stderr.contains("is encrypted with another key"),
        "{}",
        said.stderr
    );
}

#[test]
fn a_secret_file_that_others_can_read_is_a_warning_or_a_mistake() {
    let home = Home::new();
    let key = home.write("key", "sk-canary\n");
    home.write(
        "farrier.toml",
        &GOOD.replace("{ env = \"MOONSHOT_API_KEY\" }", "{ file = \"key\" }"),
    );
    let mode = |mode| std::fs::set_permissions(&key, Permissions::from_mode(mode)).unwrap();
    mode(0o640);
    assert_snapshot!(home.run(&["check"]).shown(), @r#"
    --- stdout
    farrier.toml: no mistakes (1 provider, 1 route, 0 clients, 8 manifests)
    --- stderr
    warning: farrier.toml:9: expected a file that only its owner can read, got mode 0640 (chmod 600 key)
    --- exit 0
    "#);
    mode(0o644);
    assert_snapshot!(home.run(&["check"]).shown(), @r#"
    --- stderr
    farrier.toml:9: expected a file that only its owner can read, got mode 0644 (chmod 600 key)
    error: 1 mistake in farrier.toml
    --- exit 1
    "#);
}

#[test]
fn keys_are_listed_for_people_and_programs() {
    let home = Home::new();
    let text = home.run(&["check", "--keys"]).stdout;
    let json: serde_json::Value =
        serde_json::from_str(&home.run(&["check", "--keys", "--json"]).stdout).unwrap();
    for section in json.as_array().unwrap() {
        assert!(text.contains(section["table"].as_str().unwrap()));
        for row in section["keys"].as_array().unwrap() {
            assert!(text.contains(&format!("| `{}` |", row["key"].as_str().unwrap())));
        }
    }
}

#[test]
fn what_only_the_gateway_can_tell_has_its_line_too() {
    let home = Home::new().with("MOONSHOT_API_KEY", "sk-canary");
    home.write("ca.pem", "not a certificate");
    let text = GOOD.replace("api = \"openai-completions\"", "ca_file = \"ca.pem\"");
    home.write("farrier.toml", &text);
    for command in ["check", "up"] {
        let said = home.run(&[command]);
        assert_eq!(said.code, Some(1));
        let expected = "farrier.toml:7: expected PEM certificates in ca.pem";
        assert!(said.stderr.contains(expected), "{}", said.stderr);
    }
}
