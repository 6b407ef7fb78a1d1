use super::*;

use std::os::unix::fs::PermissionsExt as _;

use farrier_compat::registry::Registry;

use farrier_gateway::config::{Deadlines, HttpVersion, INFERENCE_PATHS, Limits, PassThrough};

const DOC: &str = include_str!("../../../../docs/configuration.md");

/// A directory with what the documentation's examples refer to, and an environment to match.
fn surroundings() -> (TempDir, Environment) {
    let place = tempfile::tempdir().unwrap();
    let home = place.path().to_str().unwrap().to_owned();
    fs::create_dir(place.path().join("manifests")).unwrap();
    for name in ["rack.key", "rack.pem"] {
        let path = place.path().join(name);
        fs::write(&path, "canary-in-a-file\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let env = environment(move |name| match name {
        "HOME" => Some(home.clone()),
        "BUILD_AGENT_KEY" | "MOONSHOT_API_KEY" => Some(format!("canary-{name}")),
        "LEDGER_KEY" => Some("0f".repeat(32)),
        _ => None,
    });
    (place, env)
}

fn environment(lookup: impl Fn(&str) -> Option<String> + 'static) -> Environment {
    Environment {
        lookup: Box::new(lookup),
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
    assert_eq!(examples.len(), 2);
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
            format!("{:?}", written.draft.ledger.bounds),
            format!("{:?}", absent.draft.ledger.bounds),
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
    assert!(draft.ledger.encryption.is_some());
    assert!(
        draft
            .ledger
            .path
            .ends_with(".local/state/farrier/ledger.db")
    );
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
            "f:8: expected a key of [[route]], got \"x\"; known are model, provider, upstream_model",
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
        let Examined {
            draft, mistakes, ..
        } = examined("farrier.toml".into(), "", &env, &Overrides::default());
        (draft.ledger.path, mistakes.len())
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
