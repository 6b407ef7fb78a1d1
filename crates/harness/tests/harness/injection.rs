//! No input breaks out of the place it is written to.

use farrier_compat::registry::{LoadOptions, Registry};
use farrier_harness::stage::{FRAGMENT, Sources, stage};
use farrier_harness::{Content, Document};
use proptest::prelude::*;

use crate::support::{Ask, KIMI, flat, manifest, route};

/// Text as hostile as it comes: whatever ends a string, a line, a document or a path.
fn hostile() -> impl Strategy<Value = String> {
    let pieces = prop_oneof![
        Just("\""),
        Just("'"),
        Just("\\"),
        Just("\n"),
        Just("\r"),
        Just("\0"),
        Just("\u{85}"),
        Just("\u{2028}"),
        Just(": "),
        Just("- "),
        Just("#"),
        Just("{"),
        Just("}"),
        Just("["),
        Just("]"),
        Just(","),
        Just("&a"),
        Just("*a"),
        Just("!!python/object"),
        Just("---"),
        Just("..."),
        Just("%YAML"),
        Just("|"),
        Just(">"),
        Just("@"),
        Just("`"),
        Just("on"),
        Just("null"),
        Just("1:30"),
        Just("../"),
        Just("/etc/passwd"),
        Just("$(id)"),
        Just(" "),
        Just("\t"),
        Just("\u{feff}"),
        Just("é🐴"),
        Just("x"),
        Just("evil: 1"),
        Just("</script>"),
        Just("\u{1b}[2J"),
    ];
    proptest::collection::vec(pieces, 0..8).prop_map(|pieces| pieces.concat())
}

/// Every key on the way to every value.
fn paths(document: &Document, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    for (key, value) in document.fields() {
        paths(value, &format!("{at}/{key}"), found);
    }
    for item in document.items() {
        paths(item, &format!("{at}/[]"), found);
    }
}

fn keys(document: &Document) -> Vec<String> {
    let mut found = Vec::new();
    paths(document, "", &mut found);
    found
}

/// What is read back from the text is what was meant, and has the keys it has for plain input.
fn holds(ask: &Ask, plain: &Ask) -> Result<(), TestCaseError> {
    let Ok(configuration) = ask.configuration() else {
        // Refused is fine too.
        return Ok(());
    };
    for (file, like) in configuration.files.iter().zip(&plain.good().files) {
        let text = configuration
            .texts()
            .find(|(name, _)| *name == file.name)
            .unwrap()
            .1;
        match (&file.content, &like.content) {
            (Content::Json(document), Content::Json(plain)) => {
                prop_assert_eq!(&Document::from_json(&text).unwrap(), document);
                let value: serde_json::Value = serde_json::from_str(&text).unwrap();
                prop_assert_eq!(&Document::from(&value).to_json().len(), &text.len());
                prop_assert_eq!(keys(document), keys(plain));
            }
            (
                Content::Yaml { header, document },
                Content::Yaml {
                    document: plain, ..
                },
            ) => {
                prop_assert_eq!(&Document::from_yaml(&text).unwrap(), document);
                prop_assert_eq!(keys(document), keys(plain));
                let comments = text
                    .lines()
                    .take_while(|line| line.starts_with('#'))
                    .count();
                prop_assert_eq!(comments, header.len());
            }
            (Content::Env(lines), Content::Env(plain)) => {
                prop_assert_eq!(text.lines().count(), plain.len());
                prop_assert_eq!(lines.len(), plain.len());
            }
            _ => prop_assert!(false, "another kind of file"),
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_hostile_route_stays_in_its_place(model in hostile(), upstream in hostile(), url in hostile(), key in hostile()) {
        for (harness, version) in [("openclaw", Some("2026.9.6")), ("hermes", None), ("env", None)] {
            for part in 0..4 {
                let mut hostile = route("m");
                match part {
                    0 => hostile.client.model.clone_from(&model),
                    1 => hostile.upstream.model.clone_from(&upstream),
                    2 => hostile.client.base_url = format!("https://inference.local/{url}"),
                    _ => hostile.client.provider_key.clone_from(&key),
                }
                let plain = Ask { version, ..Ask::of(harness) }.route(route("m"));
                // The provider's key is a key: what is accepted of it is checked by its shape.
                if part == 3 {
                    let configuration = plain.clone().route(hostile).configuration();
                    let fits = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
                    prop_assert_eq!(configuration.is_ok(), fits);
                } else {
                    holds(&plain.clone().route(hostile), &plain)?;
                }
            }
        }
    }

    #[test]
    fn a_hostile_setting_stays_in_its_place(text in hostile()) {
        for (name, harness) in [
            ("chat-url", "openclaw"), ("heartbeat", "openclaw"), ("inputs", "openclaw"), ("api-key", "openclaw"),
            ("proxy-host", "openclaw"), ("home", "openclaw"), ("otel-service-name", "openclaw"), ("api-key", "hermes"),
            ("api-key", "env"),
        ] {
            let on = |ask: Ask| if name.starts_with("otel") { ask.with("otel", "1") } else { ask };
            let plain = on(Ask { version: None, ..Ask::of(harness) });
            let asked = plain.clone().with(name, &text);
            // Some settings add a key, or an item to a list, of their own; that is all they may add.
            if let Ok(configuration) = asked.configuration() {
                for (file, text) in configuration.files.iter().zip(configuration.texts()) {
                    if let Content::Json(document) = &file.content {
                        prop_assert_eq!(&Document::from_json(&text.1).unwrap(), document);
                    }
                }
                let added = keys(&asked.document()).len().abs_diff(keys(&plain.document()).len());
                prop_assert!(added <= 3 || name == "inputs", "{} adds {}", name, added);
            }
        }
    }

    #[test]
    fn a_hostile_agent_reaches_no_path_outside_its_home(id in hostile(), place in hostile()) {
        let agents = serde_json::json!([{"id": id, "workspace": place, "tools": {"allow": ["x"]}}]).to_string();
        prop_assert!(Ask::openclaw().with("agents", &agents).configuration().is_err());
        let agents = serde_json::json!([{"id": id, "tools": {"allow": ["x"]}}]).to_string();
        if let Ok(configuration) = Ask::openclaw().with("agents", &agents).configuration() {
            let text = configuration.texts().next().unwrap().1;
            let workspace = format!("\"workspace\": \"/sandbox/.openclaw/workspace-{id}\"");
            prop_assert!(text.contains(&workspace));
            prop_assert!(id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c)));
        }
    }

    #[test]
    fn a_hostile_place_of_plugins_is_one_text_and_leads_to_the_plugins_path(place in hostile()) {
        let kimi = Ask::openclaw().route(route(KIMI)).registry(Registry::shipped().unwrap());
        let plain = kimi.clone().with("plugins", "/opt").document();
        let asked = kimi.with("plugins", &place);
        let Ok(configuration) = asked.configuration() else {
            prop_assert!(!place.trim().starts_with('/'));
            return Ok(());
        };
        let written = configuration.texts().next().unwrap().1;
        let mut document = Document::from_json(&written).unwrap();
        let plugins = |document: &Document| {
            let paths = document.get(&["plugins", "load", "paths"]);
            let paths = paths.map(|paths| paths.items().to_vec()).unwrap_or_default();
            paths.iter().map(flat).collect::<Vec<_>>()
        };
        let paths = plugins(&document);
        // What is empty is not given.
        prop_assert_eq!(paths.len(), usize::from(!place.trim().is_empty()));
        for path in paths {
            let path: String = serde_json::from_str(&path).unwrap();
            prop_assert!(path.starts_with('/') && path.ends_with("/openclaw-plugins/native-replay"), "{path}");
            let load = plain.get(&["plugins", "load"]).unwrap();
            let mut all = document.get(&["plugins"]).unwrap().clone();
            all.set("load", load.clone());
            document.set("plugins", all);
            prop_assert_eq!(&document, &plain);
        }
    }

    #[test]
    fn a_hostile_plugin_is_staged_below_the_place_or_not_at_all(path in hostile(), id in hostile()) {
        let place = tempfile::tempdir().unwrap();
        let (root, out) = (place.path().join("root"), place.path().join("out"));
        std::fs::create_dir_all(root.join("openclaw-plugins/x")).unwrap();
        std::fs::write(place.path().join("secret"), "canary").unwrap();
        let path = format!("openclaw-plugins/{path}");
        let effects = serde_json::json!({"openclawPlugins": [{"id": id, "path": path}]}).to_string();
        let texts = [manifest("hostile", "openclaw", "m", &effects)];
        let options = LoadOptions { exists: &|_| true, ..LoadOptions::default() };
        if let Ok(registry) = Registry::load(&texts, &options) {
            let roots = [root];
            let sources = Sources { agent: "openclaw", registry: &registry, texts: &texts, roots: &roots };
            if stage(&sources, &out).is_ok() {
                let fragment = std::fs::read_to_string(out.join(FRAGMENT)).unwrap();
                for line in fragment.lines().filter(|line| !line.starts_with('#')) {
                    let pair = line.strip_prefix("COPY --chown=0:0 ").expect("a copy");
                    let [from, _to]: [String; 2] = serde_json::from_str(pair).unwrap();
                    let source = out.join(from).canonicalize().unwrap();
                    prop_assert!(source.starts_with(out.canonicalize().unwrap()));
                }
            }
        }
        let mut left: Vec<_> = std::fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.retain(|name| name != "out");
        left.sort();
        prop_assert_eq!(left, ["root", "secret"]);
        prop_assert_eq!(std::fs::read_to_string(place.path().join("secret")).unwrap(), "canary");
    }

    #[test]
    fn a_document_is_what_was_written_whatever_its_text(texts in proptest::collection::vec(hostile(), 1..6)) {
        let fields = texts.iter().enumerate().map(|(at, text)| (format!("{at}{text}"), Document::from(text.as_str())));
        let document = Document::object(fields);
        prop_assert_eq!(&Document::from_json(&document.to_json()).unwrap(), &document);
        prop_assert_eq!(&Document::from_yaml(&document.to_yaml()).unwrap(), &document);
    }
}
