//! `farrier config`.

use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Command;

use insta::assert_snapshot;

use crate::home::Home;

const CONFIG: &str = r#"
[[provider]]
name = "moonshot"
base_url = "https://api.moonshot.ai/v1"

[[route]]
model = "moonshotai/kimi-k2.6"
provider = "moonshot"
upstream_model = "kimi-k2.6"

[[route]]
model = "other"
provider = "moonshot"
"#;

/// A home with a gateway's configuration.
fn home() -> Home {
    let home = Home::new();
    home.write("farrier.toml", CONFIG);
    home
}

const KIMI: &[&str] = &[
    "config",
    "openclaw",
    "--route",
    "moonshotai/kimi-k2.6",
    "--harness-version",
    "2026.9.6",
];

fn kimi<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [KIMI, more].concat()
}

#[test]
fn a_route_is_written_private_and_then_up_to_date() {
    let home = home();
    let said = home.run(KIMI);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let path = home.path().join(".openclaw/openclaw.json");
    assert_eq!(said.stdout, format!("{} written\n", path.display()));
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let written: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let provider = &written["models"]["providers"]["inference"];
    assert_eq!(provider["baseUrl"], "https://inference.local/v1");
    assert_eq!(
        provider["models"][0]["compat"]["requiresToolResultName"],
        true
    );
    let again = home.run(KIMI);
    assert_eq!(again.stdout, format!("{} is up to date\n", path.display()));
}

#[test]
fn a_dry_run_shows_a_switch_and_writes_nothing() {
    let home = home();
    let plain = [
        "config",
        "openclaw",
        "--route",
        "other",
        "--harness-version",
        "2026.9.6",
    ];
    assert_eq!(home.run(&plain).code, Some(0));
    let before = home.files();
    let said = home.run(&kimi(&["--dry-run", "--diff"]));
    assert_eq!(home.files(), before);
    let shown = said
        .shown()
        .replace(&home.path().display().to_string(), "~");
    assert_snapshot!(shown, @r#"
    --- stdout
    --- ~/.openclaw/openclaw.json (before)
    +++ ~/.openclaw/openclaw.json (after)
    @@ -2,7 +2,7 @@
       "agents": {
         "defaults": {
           "model": {
    -        "primary": "inference/other"
    +        "primary": "inference/moonshotai/kimi-k2.6"
           },
           "timeoutSeconds": 600,
           "skipBootstrap": true,
    @@ -24,8 +24,14 @@
             },
             "models": [
               {
    -            "id": "other",
    -            "name": "inference/other",
    +            "compat": {
    +              "maxTokensField": "max_tokens",
    +              "requiresStringContent": true,
    +              "requiresToolResultName": true,
    +              "supportsStore": false
    +            },
    +            "id": "moonshotai/kimi-k2.6",
    +            "name": "inference/moonshotai/kimi-k2.6",
                 "reasoning": false,
                 "input": [
                   "text"
    @@ -47,11 +53,7 @@
         "defaults": {}
       },
       "tools": {
    -    "toolSearch": {
    -      "mode": "tools",
    -      "searchDefaultLimit": 8,
    -      "maxSearchLimit": 20
    -    },
    +    "toolSearch": false,
         "web": {
           "fetch": {
             "enabled": true,
    --- exit 0
    "#);
}

#[test]
fn an_edited_file_is_refused_until_the_edit_is_accepted() {
    let home = home();
    assert_eq!(home.run(KIMI).code, Some(0));
    let path = home.path().join(".openclaw/openclaw.json");
    let edited = std::fs::read_to_string(&path)
        .unwrap()
        .replace("\"timeoutSeconds\": 600", "\"timeoutSeconds\": 1");
    std::fs::write(&path, edited + " ").unwrap();
    let said = home.run(KIMI);
    assert_eq!(said.code, Some(1));
    assert!(
        said.stderr
            .contains("was edited since it was written: expected sha256 "),
        "{}",
        said.stderr
    );
    assert!(
        said.stderr
            .contains("hint: look at the edit; --accept-edits"),
        "{}",
        said.stderr
    );
    assert_eq!(home.run(&kimi(&["--accept-edits"])).code, Some(0));
    assert!(
        std::fs::read_to_string(&path)
            .unwrap()
            .contains("\"timeoutSeconds\": 600")
    );
}

#[test]
fn cfg_16_a_linked_configuration_is_refused_and_what_it_leads_to_left_alone() {
    let home = home();
    let elsewhere = home.write("elsewhere", "{}");
    std::fs::create_dir(home.path().join(".openclaw")).unwrap();
    symlink(&elsewhere, home.path().join(".openclaw/openclaw.json")).unwrap();
    let said = home.run(KIMI);
    assert_eq!(said.code, Some(1));
    assert!(
        said.stderr.contains("openclaw.json, got a link"),
        "{}",
        said.stderr
    );
    assert_eq!(std::fs::read_to_string(elsewhere).unwrap(), "{}");
}

#[test]
fn every_mistake_in_the_settings_is_told() {
    let said = home().run(&kimi(&[
        "--port",
        "80",
        "--timeout",
        "0",
        "--api-key",
        "sk-abc",
        "--context-window=-1",
    ]));
    assert_snapshot!(said.shown(), @r#"
    --- stderr
    --port: expected a port from 1024 to 65535, got "80"
    --api-key: expected a placeholder such as farrier:resolve:env:NAME, got something else; a key does not belong into a file
    --timeout: expected a positive integer, got "0"
    error: openclaw cannot be configured like this
    --- exit 1
    "#);
}

#[test]
fn a_setting_can_be_in_a_file() {
    let home = home();
    home.write(
        "agents.json",
        r#"[{"id": "research", "tools": {"allow": ["web_fetch"]}}]"#,
    );
    let said = home.run(&kimi(&["--agents", "@agents.json", "--json"]));
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let report: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(report["written"], true);
    assert_eq!(report["version"], "2026.9.6");
    assert!(
        report["files"][0]["after"]
            .as_str()
            .unwrap()
            .contains("workspace-research")
    );
    let missing = home.run(&kimi(&["--agents", "@nowhere.json"]));
    assert!(
        missing
            .stderr
            .contains("cannot read nowhere.json for --agents"),
        "{}",
        missing.stderr
    );
}

#[test]
fn the_version_is_that_of_the_program_on_the_search_path() {
    let home = home();
    home.write(
        "lib/node_modules/openclaw/package.json",
        r#"{"name": "openclaw", "version": "2026.4.21"}"#,
    );
    let program = home.write("lib/node_modules/openclaw/openclaw.mjs", "");
    std::fs::create_dir(home.path().join("bin")).unwrap();
    symlink(program, home.path().join("bin/openclaw")).unwrap();
    let path = home.path().join("bin").display().to_string();
    let home = home.with("PATH", &path);
    let ask = [
        "config",
        "openclaw",
        "--route",
        "other",
        "--json",
        "--dry-run",
    ];
    let report: serde_json::Value = serde_json::from_str(&home.run(&ask).stdout).unwrap();
    assert_eq!(report["version"], "2026.4.21");
    assert_eq!(report["written"], false);
    let package = home.run(&[&ask[..], &["--package", "lib/node_modules"]].concat());
    assert_eq!(package.code, Some(1));
    assert!(
        package
            .stderr
            .contains("cannot read lib/node_modules/package.json"),
        "{}",
        package.stderr
    );
}

#[test]
fn a_route_that_is_not_there_gets_those_that_are() {
    let said = home().run(&["config", "hermes", "--route", "kimi"]);
    assert_snapshot!(said.shown(), @r#"
    --- stderr
    error: expected a route for "kimi" in farrier.toml, got none
      hint: routes are moonshotai/kimi-k2.6, other
    --- exit 1
    "#);
}

#[test]
fn hermes_gets_both_its_files() {
    let home = home();
    let said = home.run(&[
        "config",
        "hermes",
        "--route",
        "moonshotai/kimi-k2.6",
        "--out",
        "hermes",
    ]);
    assert_eq!(
        said.stdout,
        "hermes/config.yaml written\nhermes/.env written\n"
    );
    let config = std::fs::read_to_string(home.path().join("hermes/config.yaml")).unwrap();
    assert!(
        config.contains("default: moonshotai/kimi-k2.6") && config.contains("provider: custom"),
        "{config}"
    );
}

#[test]
fn other_clients_get_variables_on_stdout() {
    let home = home();
    let said = home.run(&["config", "env", "--route", "moonshotai/kimi-k2.6"]);
    assert_snapshot!(said.shown(), @r#"
    --- stdout
    OPENAI_BASE_URL=https://inference.local/v1
    OPENAI_API_KEY=unused
    OPENAI_MODEL=moonshotai/kimi-k2.6
    --- exit 0
    "#);
    assert_eq!(home.files().len(), 1);
}

#[test]
fn an_image_is_configured_by_its_variables() {
    let image = |variables: &[(&str, &str)]| {
        let home = Home::new().with("NEMOCLAW_MODEL", "moonshotai/kimi-k2.6");
        let home = home.with("NEMOCLAW_INFERENCE_BASE_URL", "https://inference.local/v1");
        let home = variables
            .iter()
            .fold(home, |home, (name, value)| home.with(name, value));
        let said = home.run(&[
            "config",
            "openclaw",
            "--from-env",
            "--harness-version",
            "2026.5.12",
        ]);
        let written = std::fs::read_to_string(home.path().join(".openclaw/openclaw.json"));
        (said, written.unwrap_or_default())
    };
    // {"supportsTools":true}
    let (said, written) = image(&[
        (
            "NEMOCLAW_INFERENCE_COMPAT_B64",
            "eyJzdXBwb3J0c1Rvb2xzIjp0cnVlfQ==",
        ),
        ("NEMOCLAW_DASHBOARD_PORT", "19000"),
    ]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert!(
        written.contains("\"supportsTools\": true") && written.contains("\"port\": 19000"),
        "{written}"
    );
    assert!(
        written.contains("\"requiresToolResultName\": true"),
        "{written}"
    );
    let (said, written) = image(&[("NEMOCLAW_INFERENCE_COMPAT_B64", "W10=")]);
    assert_eq!((said.code, written.as_str()), (Some(1), ""));
    assert!(
        said.stderr
            .contains("NEMOCLAW_INFERENCE_COMPAT_B64 must be a JSON object or null, got an array"),
        "{}",
        said.stderr
    );
    let (said, _) = image(&[("NEMOCLAW_INFERENCE_COMPAT_B64", "!")]);
    assert!(
        said.stderr
            .contains("NEMOCLAW_INFERENCE_COMPAT_B64: expected base64"),
        "{}",
        said.stderr
    );
}

#[test]
fn reg_18_a_setup_directory_that_is_not_there_is_a_mistake() {
    let home = Home::new()
        .with("NEMOCLAW_MODEL", "m")
        .with("NEMOCLAW_INFERENCE_BASE_URL", "https://inference.local/v1")
        .with("NEMOCLAW_MODEL_SPECIFIC_SETUP_DIR", "/nowhere");
    let said = home.run(&["config", "openclaw", "--from-env"]);
    assert_eq!(said.code, Some(1));
    let message = "NEMOCLAW_MODEL_SPECIFIC_SETUP_DIR must point to an existing directory: /nowhere";
    assert!(said.stderr.contains(message), "{}", said.stderr);
}

#[test]
fn cfg_20_an_image_that_names_no_model_is_told_which_variable() {
    let said = Home::new().run(&["config", "hermes", "--from-env"]);
    assert_eq!(said.code, Some(1));
    assert!(
        said.stderr.contains("NEMOCLAW_MODEL is required\n"),
        "{}",
        said.stderr
    );
}

#[test]
fn a_command_line_without_a_route_is_a_usage_error() {
    let said = home().run(&["config", "openclaw"]);
    assert_eq!(said.code, Some(2));
    assert!(said.stderr.contains("--route <MODEL>"), "{}", said.stderr);
}

#[test]
fn cfg_18_a_route_that_changed_is_followed_by_primary_and_first_model_and_the_digest_verifies() {
    let home = home();
    let ask = |model| {
        [
            "config",
            "openclaw",
            "--route",
            model,
            "--harness-version",
            "2026.5.12",
        ]
    };
    assert_eq!(home.run(&ask("other")).code, Some(0));
    let renamed = CONFIG.replace("model = \"other\"", "model = \"another\"");
    home.write("farrier.toml", &renamed);
    let gone = home.run(&ask("other"));
    assert_eq!(gone.code, Some(1), "{}", gone.stdout);

    assert_eq!(home.run(&ask("another")).code, Some(0));
    let directory = home.path().join(".openclaw");
    let text = std::fs::read_to_string(directory.join("openclaw.json")).unwrap();
    let written: serde_json::Value = serde_json::from_str(&text).unwrap();
    let reference = "inference/another";
    assert_eq!(written["agents"]["defaults"]["model"]["primary"], reference);
    let models = &written["models"]["providers"]["inference"]["models"];
    assert_eq!(models.as_array().unwrap().len(), 1);
    assert_eq!(
        (&models[0]["id"], &models[0]["name"]),
        (&"another".into(), &reference.into())
    );

    let verified = Command::new("sha256sum")
        .args(["--check", "--quiet", ".config-hash"])
        .current_dir(&directory)
        .status()
        .unwrap();
    assert!(verified.success());
    let before = home.files();
    let again = home.run(&ask("another"));
    assert!(
        again.stdout.ends_with(" is up to date\n"),
        "{}",
        again.stdout
    );
    assert_eq!(home.files(), before);
}

/// No gateway is asked which model it serves: its configuration says so. One that hangs holds nothing up.
#[test]
fn cfg_19_a_gateway_that_does_not_answer_is_not_waited_for() {
    let deaf = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("[gateway]\nlisten = \"{}\"\n", deaf.local_addr().unwrap());
    let home = home();
    home.write("farrier.toml", &(listen + CONFIG));
    let said = home.run(KIMI);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    deaf.set_nonblocking(true).unwrap();
    let asked = deaf.accept().unwrap_err();
    assert_eq!(asked.kind(), std::io::ErrorKind::WouldBlock);
}

/// A package whose program is a script, to look at what the harness's own check is given and what becomes of its answer.
fn home_with_package(program: &str) -> Home {
    let path = std::env::var_os("PATH").unwrap();
    let home = home()
        .with("PATH", path.to_str().unwrap())
        .with("FARRIER_CANARY", "canary-1");
    home.write(
        "package/package.json",
        r#"{"name": "openclaw", "version": "2026.9.6"}"#,
    );
    home.write("package/openclaw.mjs", program);
    home
}

const VALIDATE: &[&str] = &[
    "config",
    "openclaw",
    "--route",
    "other",
    "--package",
    "package",
    "--validate",
];

#[test]
fn a_configuration_that_the_installed_harness_refuses_is_not_written_and_the_key_is_named() {
    let home = home_with_package(
        r#"console.error("starting with Bearer sk-canary-0123456789");
           console.log(JSON.stringify({ok: false, valid: false, issues: [
             {path: "models.providers.inference.models.0.compat", message: "Unrecognized key: \"x\" sk-canary-0123456789"},
             {path: "", message: "not whole"}]}));
           process.exitCode = 1;"#,
    );
    let before = home.files();
    let said = home.run(VALIDATE);
    assert_snapshot!(said.shown(), @r#"
    --- stderr
    error: the installed openclaw does not take this:
      models.providers.inference.models.0.compat: Unrecognized key: "x" <REDACTED>
      not whole
      hint: nothing was written; if the key is your own, take it out of the file
    --- exit 1
    "#);
    assert_eq!(home.files(), before);
}

#[test]
fn the_check_sees_what_would_be_written_and_nothing_of_ours() {
    let home = home_with_package(
        r#"import {readFileSync, readdirSync} from "node:fs";
           const config = JSON.parse(readFileSync(process.env.HOME + "/.openclaw/openclaw.json", "utf8"));
           const wrong = [
             [process.argv.slice(2).join(" "), "config validate --json"],
             [Object.keys(process.env).sort().join(), "HOME,HTTPS_PROXY,HTTP_PROXY,LANG,NO_COLOR,PATH,http_proxy,https_proxy"],
             [process.cwd(), process.env.HOME],
             [readdirSync(process.env.HOME).join(), ".openclaw"],
             [config.agents.defaults.model.primary, "inference/other"],
             [config.gateway.auth.token, "<hidden>"],
           ].filter(([got, wanted]) => got !== wanted);
           const issues = wrong.map(([got, wanted]) => ({path: wanted, message: String(got)}));
           console.log(JSON.stringify({valid: issues.length === 0, issues}));"#,
    );
    home.write(
        ".openclaw/openclaw.json",
        r#"{"gateway": {"auth": {"token": "canary-2"}}}"#,
    );
    let said = home.run(VALIDATE);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let written = std::fs::read_to_string(home.path().join(".openclaw/openclaw.json")).unwrap();
    assert!(
        written.contains("canary-2") && written.contains("inference/other"),
        "{written}"
    );
}

#[test]
fn a_harness_that_gives_no_answer_is_told_from_one_that_refuses() {
    let home = home_with_package("console.error(\"Node 24 is required\"); process.exitCode = 1;");
    let said = home.run(VALIDATE);
    assert_snapshot!(said.shown(), @r"
    --- stderr
    error: expected an answer from openclaw on node, got none and exit code 1
      Node 24 is required
      hint: see that the harness starts by itself, or leave --validate out
    --- exit 1
    ");
    assert!(!home.path().join(".openclaw").exists());
    let nobody = home.run(&["config", "hermes", "--route", "other", "--validate"]);
    assert_snapshot!(nobody.shown(), @r"
    --- stderr
    error: expected an installed hermes on the search path, got none
      hint: say with --package where it is
    --- exit 1
    ");
}
