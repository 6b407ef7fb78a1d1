use super::*;

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use farrier_compat::registry::Registry;

use farrier_gateway::config::{
    CallerLimits, Deadlines, HttpVersion, INFERENCE_PATHS, Limits, Need, PassThrough,
};
use farrier_ledger::SharedConfig;

const DOC: &str = include_str!("../../../../docs/configuration.md");

/// A directory with what the documentation's examples refer to, and an environment to match.
fn surroundings() -> (TempDir, Environment) {
    let place = tempfile::tempdir().unwrap();
    let home = place.path().to_str().unwrap().to_owned();
    fs::create_dir(place.path().join("manifests")).unwrap();
    fs::write(place.path().join("work.yaml"), "version: 1\n").unwrap();
    for name in ["rack.key", "rack.pem", "store.pem"] {
        let path = place.path().join(name);
        fs::write(&path, "canary-in-a-file\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let env = environment(move |name| match name {
        "HOME" => Some(home.clone()),
        "BUILD_AGENT_KEY" | "MOONSHOT_API_KEY" => Some(format!("canary-{name}")),
        "LEDGER_KEY" => Some("0f".repeat(32)),
        "STORE_PASSWORD" => Some("canary-password".to_owned()),
        _ => None,
    });
    (place, env)
}

fn environment(lookup: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Environment {
    Environment {
        lookup: Arc::new(lookup),
    }
}

fn examined_here(text: &str) -> Examined {
    let (place, env) = surroundings();
    let file = place.path().join("farrier.toml");
    examined(file, text, &env, &Overrides::default())
}

fn messages(text: &str) -> Vec<String> {
    let mistakes = examined_here(text).mistakes;
    let shown = mistakes.iter().map(|mistake| mistake.shown(Path::new("f")));
    shown.collect()
}

/// The examples of the documentation, in their order.
fn examples() -> Vec<&'static str> {
    let blocks = DOC.split("```toml\n").skip(1);
    blocks
        .map(|block| block.split("```").next().unwrap())
        .collect()
}

#[test]
fn the_examples_of_the_documentation_have_no_mistakes() {
    let examples = examples();
    assert_eq!(examples.len(), 3);
    for example in examples {
        assert_eq!(messages(example), [""; 0]);
    }
}

#[test]
fn the_documentation_shows_every_key_as_the_tables_have_it() {
    let sections = sections();
    for section in &sections {
        let shown = section.to_string();
        assert!(
            DOC.contains(&shown),
            "docs/configuration.md lacks, or has otherwise:\n{shown}\n(`farrier check --keys` prints it)"
        );
    }
    let whole = examples()[1];
    for row in sections.iter().flat_map(|section| &section.keys) {
        assert!(
            whole.contains(row.key),
            "the whole example lacks {}",
            row.key
        );
    }
}

#[test]
fn the_documentation_lists_every_path_that_passes() {
    for path in INFERENCE_PATHS {
        assert!(
            DOC.contains(&format!("`{path}`")),
            "docs/configuration.md lacks `{path}`"
        );
    }
}

/// The tables say what the code does: what they call a default, written out, changes nothing.
#[test]
fn defaults_are_what_the_documentation_says() {
    let mut lines = Vec::new();
    let tables = ["[gateway]", "[gateway.deadlines]", "[ledger]"];
    for section in sections()
        .iter()
        .filter(|section| tables.contains(&section.table))
    {
        lines.push(section.table.to_owned());
        for row in &section.keys {
            let words = row.absent.unwrap_or_default();
            let literal = words
                .strip_prefix('`')
                .and_then(|words| words.strip_suffix('`'));
            let literal = literal.filter(|literal| !literal.contains('$'));
            lines.extend(literal.map(|literal| format!("{} = {literal}", row.key)));
        }
    }
    let text = lines.join("\n");
    assert!(text.matches(" = ").count() > 15, "{text}");
    let (written, absent) = (examined_here(&text), examined_here(""));
    assert_eq!(written.mistakes, []);
    for (written, absent) in [
        (
            format!("{:?}", written.draft.limits),
            format!("{:?}", absent.draft.limits),
        ),
        (
            format!("{:?}", written.draft.deadlines),
            format!("{:?}", absent.draft.deadlines),
        ),
        (
            format!("{:?}", written.draft.listen),
            format!("{:?}", absent.draft.listen),
        ),
        (
            format!("{:?}", written.draft.public),
            format!("{:?}", absent.draft.public),
        ),
        (
            format!("{:?}", file(&written).bounds),
            format!("{:?}", file(&absent).bounds),
        ),
    ] {
        assert_eq!(written, absent);
    }
    assert_eq!(
        format!("{:?}", absent.draft.limits),
        format!("{:?}", Limits::default())
    );
    assert_eq!(
        format!("{:?}", absent.draft.deadlines),
        format!("{:?}", Deadlines::default())
    );
}

#[test]
fn limits_of_a_sandbox_s_proxy_arrive_and_are_by_default_what_the_documentation_says() {
    let whole = examples()[1];
    let written = examined_here(whole).egress()[0].limits.clone();
    assert_eq!(written, farrier_egress::Limits::default());
    let other = whole
        .replace("max_held_body = \"256KiB\"", "max_held_body = \"1MiB\"")
        .replace(
            "connect = \"10s\"\nhandshake",
            "connect = \"3s\"\nhandshake",
        )
        .replace("max_connections = 1024", "max_connections = 7");
    let other = examined_here(&other).egress()[0].limits.clone();
    assert_eq!(other.max_held_body_bytes, 1024 * 1024);
    assert_eq!(other.connect, Duration::from_secs(3));
    assert_eq!(other.listener.max_connections, 7);
    assert_eq!(other.idle, written.idle);
}

#[test]
fn defaults_of_a_provider_s_care_are_what_the_documentation_says() {
    let provider = "[[provider]]\nname = \"p\"\nbase_url = \"https://h/v1\"\nmax_concurrent = 1\n";
    let mut text = provider.to_owned();
    for section in sections() {
        let keys = match section.table {
            "[[provider]]" => &["max_queued", "queue_wait"][..],
            "[provider.breaker]" => &["enabled", "failures", "cool_down"],
            "[provider.retry]" => &[
                "attempts",
                "backoff",
                "max_wait",
                "statuses",
                "percent",
                "per_minute",
            ],
            _ => continue,
        };
        if section.table != "[[provider]]" {
            text += section.table;
            text += "\n";
        }
        for row in section.keys.iter().filter(|row| keys.contains(&row.key)) {
            let literal = row.absent.unwrap().trim_matches('`');
            text += &[row.key, " = ", literal, "\n"].concat();
        }
    }
    assert_eq!(text.matches(" = ").count(), 3 + 11, "{text}");
    let (written, absent) = (examined_here(&text), examined_here(provider));
    assert_eq!(written.mistakes, []);
    assert_eq!(
        written.draft.providers[0].care,
        absent.draft.providers[0].care
    );
}

#[test]
fn what_is_typed_about_care_arrives() {
    let text = examples()[1]
        .replace("attempts = 3", "attempts = 4")
        .replace("[429, 503, 529]", "503")
        .replace("per_minute = 10", "per_minute = 0")
        .replace("enabled = true", "enabled = false")
        .replace("max_queued = 256", "max_queued = 0")
        .replace(
            "fall_back_on = [\"busy\", ",
            "fall_back_on = [\"not_found\", ",
        );
    let Examined {
        draft, mistakes, ..
    } = examined_here(&text);
    assert_eq!(mistakes, []);
    let care = &draft.providers[1].care;
    let retry = &care.retry;
    assert_eq!((retry.attempts.get(), retry.per_minute), (4, 0));
    assert_eq!(retry.statuses, [503]);
    assert_eq!(care.breaker, None);
    let concurrency = care.concurrency.as_ref().unwrap();
    assert_eq!((concurrency.max.get(), concurrency.max_queued), (32, 0));
    assert_eq!(draft.providers[0].care, Default::default());
    let limits = |limits: &CallerLimits| {
        let requests = limits.requests_per_minute.map(|count| count.get());
        (limits.max_concurrent.map(|count| count.get()), requests)
    };
    assert_eq!(limits(&draft.per_caller), (Some(16), Some(600)));
    assert_eq!(limits(&draft.clients[0].limits), (Some(64), Some(6000)));
    let route = &draft.routes[1];
    assert_eq!(
        route.targets().collect::<Vec<_>>(),
        [("rack", "moonshotai/Kimi-K2.6"), ("moonshot", "kimi-k2.6"),]
    );
    assert_eq!(route.fall_back_on[0], Need::NotFound);
    assert_eq!(route.public, Some(Default::default()));
    assert_eq!(draft.routes[0].public, None);
}

#[test]
fn mistakes_about_care_have_their_lines() {
    let text = "[gateway]\nlisten = \"127.0.0.1:0\"\nper_caller = { max_concurrent = 0, rpm = 3 }\n\
                [[provider]]\nname = \"p\"\nbase_url = \"https://h/v1\"\nmax_queued = 3\n\
                [provider.retry]\nattempts = 11\nstatuses = [200, 503]\npercent = 101\n\
                [provider.breaker]\nenabled = 1\n\
                [[route]]\nmodel = \"m\"\nprovider = \"p\"\nfall_back_on = [\"bored\"]\n\
                [[route.fallbacks]]\nupstream_model = \"x\"\nproviderr = \"p\"\n";
    assert_eq!(
        messages(text),
        [
            "f:3: expected a whole number of at least 1 for max_concurrent, got 0",
            "f:3: expected a key of [gateway.per_caller], got \"rpm\"; did you mean \"requests_per_minute\"",
            "f:13: expected true or false for enabled, got a whole number",
            "f:9: expected a whole number from 1 to 10 for attempts, got 11",
            "f:11: expected a whole number from 0 to 100 for percent, got 101",
            "f:10: expected a whole number from 400 to 599 for statuses, got 200",
            "f:17: expected one of \"busy\", \"not_found\", \"open\", \"rate_limited\", \"server_error\", \"timeout\", \"unauthorized\", \"unreachable\" for fall_back_on, got \"bored\"",
            "f:20: expected a key of [[route.fallbacks]], got \"providerr\"; did you mean \"provider\"",
            "f:18: expected provider in [[route.fallbacks]], got none",
            "f:7: expected max_concurrent with max_queued in [[provider]], got none",
        ]
    );
}

#[test]
fn every_key_of_the_whole_example_arrives() {
    let text = examples()[1]
        .replace("\"10s\"", "\"11s\"")
        .replace("4096", "4097");
    let Examined { draft, .. } = examined_here(&text);
    assert_eq!(draft.listen.len(), 2);
    assert_eq!(draft.deadlines.connect.as_secs(), 11);
    assert_eq!(draft.limits.listener.max_connections, 4097);
    assert_eq!(draft.clients[0].agent.as_deref(), Some("openclaw"));
    let [moonshot, rack] = draft.providers.as_slice() else {
        panic!("expected two providers")
    };
    assert_eq!(moonshot.credential.as_ref().unwrap().prefix, "Bearer ");
    let credential = rack.credential.as_ref().unwrap();
    assert_eq!(
        (credential.header.as_str(), credential.prefix.as_str()),
        ("x-api-key", "")
    );
    assert!(rack.ca_file.as_ref().unwrap().is_absolute());
    assert_eq!(
        (rack.server.as_deref(), rack.http),
        (Some("vllm"), HttpVersion::Http1)
    );
    assert_eq!(
        (moonshot.pass_through, rack.pass_through),
        (PassThrough::Inference, PassThrough::All)
    );
    assert_eq!(
        draft.routes[1].upstream_model.as_deref(),
        Some("moonshotai/Kimi-K2.6")
    );
    assert_eq!(
        draft.registry.manifests().count() + 1,
        Registry::shipped().unwrap().manifests().count()
    );
    let Store::Embedded(ledger) = &draft.ledger else {
        panic!("expected a file, got {}", draft.ledger)
    };
    assert!(ledger.encryption.is_some());
    assert!(ledger.path.ends_with(".local/state/farrier/ledger.db"));
    assert!(!draft.trace.as_ref().unwrap().keep_text);
    assert!(!format!("{draft:?}").contains("canary"));
}

#[test]
fn a_line_that_is_not_toml_hides_only_what_depends_on_it() {
    let text = "[gateway]\nlisten = 3\n[[provider]]\nname = moonshot\n[[route]]\nmodel = \"m\"\nprovider = \"moonshot\"\nx = 1\n";
    let found = messages(text);
    assert_eq!(
        found,
        [
            "f:4: not TOML: string values must be quoted, expected literal string",
            "f:2: expected an address with a port, such as \"127.0.0.1:8484\", for listen, got a whole number",
            "f:8: expected a key of [[route]], got \"x\"; known are model, provider, upstream_model, fallbacks, fall_back_on, public_provider_key, public_base_url",
        ]
    );
}

#[test]
fn a_secret_in_any_wrong_place_is_never_repeated() {
    let text = "[[client]]\nname = \"a\"\nkey = \"sk-canary\"\n[[client]]\nname = \"b\"\nkey = { env = \"sk-canary\" }\n\
                [[provider]]\nname = \"p\"\nbase_url = \"https://u:sk-canary@h/v1\"\ncredential = \"sk-canary\"\n\
                [[provider]]\nname = \"q\"\nbase_url = \"https://h/v1\"\napi_key = \"sk-canary\"\n\
                [[provider]]\nname = \"r\"\nbase_url = \"https://h/v1\"\ncredential = { env = \"A\", key = \"sk-canary\" }\n\
                [ledger]\nencryption_key = \"sk-canary";
    let found = messages(text);
    assert!(found.len() >= 6, "{found:#?}");
    assert!(!found.concat().contains("canary"), "{found:#?}");
}

#[test]
fn the_ledger_is_kept_where_the_state_of_programs_is_kept() {
    let path = |variables: &'static [(&'static str, &'static str)]| {
        let env = environment(move |name| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        });
        let examined = examined("farrier.toml".into(), "", &env, &Overrides::default());
        (file(&examined).path.clone(), examined.mistakes.len())
    };
    assert_eq!(
        path(&[("HOME", "/h")]),
        ("/h/.local/state/farrier/ledger.db".into(), 0)
    );
    assert_eq!(
        path(&[("HOME", "/h"), ("XDG_STATE_HOME", "/s")]),
        ("/s/farrier/ledger.db".into(), 0)
    );
    assert_eq!(
        path(&[("HOME", "/h"), ("XDG_STATE_HOME", "relative")]),
        ("/h/.local/state/farrier/ledger.db".into(), 0)
    );
    assert_eq!(path(&[]), (PathBuf::new(), 1));
}

#[test]
fn the_command_line_wins_over_the_file() {
    let (place, env) = surroundings();
    let overrides = Overrides {
        listen: vec!["127.0.0.1:1".parse().unwrap()],
        trace_dir: Some("/elsewhere".into()),
        trace_text: Some(TraceText::Keep),
    };
    let file = place.path().join("farrier.toml");
    let Examined { draft, .. } = examined(file, examples()[1], &env, &overrides);
    assert_eq!(draft.listen, overrides.listen);
    let trace = draft.trace.unwrap();
    assert_eq!(
        (trace.dir.as_path(), trace.keep_text),
        (Path::new("/elsewhere"), true)
    );
}

/// The ledger that is a file.
fn file(examined: &Examined) -> &EmbeddedConfig {
    match &examined.draft.ledger {
        Store::Embedded(config) => config,
        Store::Shared(_) => panic!("expected a file, got {}", examined.draft.ledger),
    }
}

/// A ledger in a store, with the URL and what is said beside it.
fn shared(text: &str) -> SharedConfig {
    let examined = examined_here(text);
    assert_eq!(examined.mistakes, [], "{text}");
    match examined.draft.ledger {
        Store::Shared(config) => *config,
        Store::Embedded(config) => panic!("expected a store, got {}", config.path.display()),
    }
}

#[test]
fn a_ledger_is_in_a_store_by_its_url_alone_or_with_more() {
    let alone = shared("ledger = \"redis://store\"");
    assert_eq!(alone.location.to_string(), "redis://store:6379/0");
    assert_eq!(
        (alone.password.is_none(), alone.prefix.as_str()),
        (true, "farrier")
    );
    // Before the gateway gives up, so that it is told why.
    assert_eq!(alone.deadline, Duration::from_millis(1600));

    let more = shared(
        "[ledger]\nurl = \"rediss+cluster://a,b:7000\"\nusername = \"gw\"\ncredential = { env = \"BUILD_AGENT_KEY\" }\n\
         prefix = \"staging\"\nttl = \"2h\"\nencryption_key = { env = \"LEDGER_KEY\" }\n\
         [gateway.deadlines]\nledger = \"100ms\"",
    );
    assert_eq!(more.location.to_string(), "rediss+cluster://a:6379,b:7000");
    assert_eq!(
        (more.username.as_deref(), more.prefix.as_str()),
        (Some("gw"), "staging")
    );
    assert!(more.password.is_some() && more.encryption.is_some());
    assert_eq!(more.ttl, Duration::from_secs(7200));
    assert_eq!(more.deadline, Duration::from_millis(80));
    assert!(!format!("{more:?}").contains("canary"));
}

#[test]
fn what_a_file_and_a_store_do_not_share_is_told_apart() {
    let of_a_file = "it is of a file, and a store has its own bounds";
    assert_eq!(
        messages("[ledger]\nurl = \"redis://store\"\npath = \"l.db\"\nmax_size = \"1GiB\""),
        [
            format!("f:3: expected no path with url in [ledger], got one; {of_a_file}"),
            format!("f:4: expected no max_size with url in [ledger], got one; {of_a_file}"),
        ]
    );
    assert_eq!(
        messages("[ledger]\ncredential = { env = \"BUILD_AGENT_KEY\" }"),
        ["f:2: expected url with credential in [ledger], got none"]
    );
    assert_eq!(
        messages("[ledger]\nurl = \"rediss://store\"\nkey_file = \"rack.key\""),
        ["f:3: expected certificate_file with key_file in [ledger], got none"]
    );
    assert_eq!(
        messages("[ledger]\nurl = \"redis://store\"\nca_file = \"rack.pem\""),
        [
            "f:2: expected certificates only for a store that is reached over TLS for the ledger's store"
        ]
    );
}

#[test]
fn a_url_with_a_password_is_refused_and_not_repeated() {
    let text = "[ledger]\nurl = \"redis://:canary@store\"\nusername = \"gw\"";
    let expected = "expected a URL without a user name or password for url, got one with; \
                    use username and credential for these";
    assert_eq!(messages(text), [format!("f:2: {expected}")]);
    let text = "ledger = \"redis://gw:canary@store\"";
    assert_eq!(
        messages(text),
        [format!(
            "f:1: {}",
            expected.replace("for url", "for ledger")
        )]
    );
    let found = messages("ledger = \"http://store\"");
    assert!(
        found[0].starts_with("f:1: expected a URL of redis://"),
        "{found:?}"
    );
}

/// What Kubernetes mounts leads elsewhere after each change, and is the same configuration all the same.
#[test]
fn a_control_socket_is_named_after_the_configuration_wherever_its_link_leads() {
    let place = tempfile::tempdir().unwrap();
    let state = place.path().join("state").display().to_string();
    let env = environment(move |name| match name {
        "XDG_RUNTIME_DIR" => Some("/run/user/1000".to_owned()),
        "XDG_STATE_HOME" => Some(state.clone()),
        _ => None,
    });
    let file = place.path().join("farrier.toml");
    let leads_to = |version: &str| {
        fs::write(place.path().join(version), "").unwrap();
        let _first = fs::remove_file(&file);
        std::os::unix::fs::symlink(version, &file).unwrap();
        control_sockets(&file, &env)
    };
    let places = leads_to("v1");
    assert_eq!(places.len(), 2);
    assert!(places[0].starts_with("/run/user/1000/farrier"));
    assert!(places[1].starts_with(place.path().join("state/farrier/control")));
    assert_eq!(leads_to("v2"), places);
    let other = control_sockets(&place.path().join("other.toml"), &env);
    assert_ne!(other, places);
}
