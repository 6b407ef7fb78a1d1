//! What is a manifest, in which order, and what may join what.

use serde_json::json;

use farrier_compat::registry::{LoadOptions, Registry, Source, Verdict, is_manifest_path};

use crate::support::{
    complaints, load, managed_kimi, manifest, nemoclaw_kimi, options, passes, source,
};

fn renames(id: &str, to: &str) -> serde_json::Value {
    manifest(
        id,
        "any",
        &json!({"gateway": [{"pass": "rename", "to": to}]}),
    )
}

fn ids(registry: &Registry) -> Vec<&str> {
    registry.manifests().map(|manifest| &*manifest.id).collect()
}

#[test]
fn reg_24_manifests_are_in_path_order_whatever_order_they_came_in() {
    let at = |path: &str| {
        source(
            path,
            &renames(&path.replace(['/', '_'], "-").to_lowercase(), "x"),
        )
    };
    let one = load(&[at("b.json"), at("a/z.json"), at("B.json"), at("a-1.json")]);
    let other = load(&[at("a-1.json"), at("B.json"), at("a/z.json"), at("b.json")]);
    let paths = |registry: &Registry| -> Vec<String> {
        registry
            .manifests()
            .map(|manifest| manifest.path.clone())
            .collect()
    };
    // "B.json" and "b.json" have one id in lower case.
    assert_eq!(complaints(one), complaints(other));
    let registry = load(&[at("b.json"), at("a/z.json"), at("a-1.json")]).expect("loads");
    assert_eq!(paths(&registry), ["a-1.json", "a/z.json", "b.json"]);
}

#[test]
fn schemas_and_other_files_are_no_manifests() {
    for path in [
        "schema.json",
        "a/schema.json",
        "a/b/schema.json",
        "README.md",
        "x.json.bak",
        "a.json/x",
    ] {
        assert!(!is_manifest_path(path), "{path}");
    }
    for path in ["a.json", "a/my-schema.json", "schema.json/b.json"] {
        assert!(is_manifest_path(path), "{path}");
    }
    let junk = Source {
        path: "any/schema.json".into(),
        text: "not JSON".into(),
    };
    assert_eq!(ids(&load(&[junk]).expect("skipped")), [] as [&str; 0]);
}

#[test]
fn reg_19_no_manifests_are_no_error_and_have_no_effect() {
    let registry = load(&[]).expect("nothing is wrong");
    assert!(registry.profile(&managed_kimi()).is_empty());
    assert!(registry.explain(&managed_kimi()).is_empty());
}

#[test]
fn reg_10_a_malformed_manifest_of_another_agent_fails_all() {
    let sources = [
        source("openclaw/kimi.json", &nemoclaw_kimi()),
        Source {
            path: "hermes/x.json".into(),
            text: "{\"agent\": \"hermes\"".into(),
        },
    ];
    let got = complaints(load(&sources));
    assert!(
        got.len() == 1 && got[0].starts_with("hermes/x.json:1:"),
        "{got:?}"
    );
}

#[test]
fn manifests_from_before_farrier_load_unchanged() {
    let prefixes = json!({
        "$schema": "../schema.json",
        "id": "openai-reasoning-families",
        "agent": "openclaw",
        "description": "o-series and later models take max_completion_tokens",
        "match": {
            "modelIdPrefixes": ["gpt-5", "gpt-6", "o1", "o3", "o4"],
            "providerKey": "inference",
            "inferenceApi": "openai-completions",
            "baseUrl": "https://inference.local/v1",
        },
        "effects": {"openclawCompat": {"maxTokensField": "max_completion_tokens"}},
    });
    let qwen = manifest(
        "qwen3.5-local",
        "openclaw",
        &json!({
            "openclawCompat": {"thinkingFormat": "openrouter"},
            "openclawReasoning": true,
            "openclawTools": {"toolSearch": false},
        }),
    );
    let sources = [
        source("openclaw/kimi.json", &nemoclaw_kimi()),
        source("openclaw/openai.json", &prefixes),
        source("openclaw/qwen.json", &qwen),
    ];
    let registry = load(&sources).expect("loads");
    assert_eq!(
        ids(&registry),
        [
            "kimi-k2.6-managed-inference",
            "openai-reasoning-families",
            "qwen3.5-local"
        ]
    );
}

#[test]
fn an_id_is_never_taken_twice() {
    let first = source("a.json", &renames("same", "x"));
    let second = source("b.json", &renames("same", "y"));
    let refused =
        "b.json: id 'same' is taken by a.json; to replace a shipped manifest, switch it off by id";
    assert_eq!(
        complaints(load(&[first.clone(), second.clone()])),
        [refused]
    );
    let registry = load(&[first]).expect("loads");
    assert_eq!(complaints(registry.with(&[second], &options())), [refused]);
}

#[test]
fn a_manifest_is_replaced_by_switching_it_off_and_adding_another() {
    let off = ["same".to_owned()];
    let off = LoadOptions {
        switched_off: &off,
        ..options()
    };
    let shipped = load(&[source("a.json", &renames("same", "x"))]).expect("loads");
    let registry = shipped
        .with(&[source("b.json", &renames("same", "y"))], &off)
        .expect("loads");
    assert_eq!(passes(&registry, &managed_kimi()), ["same/rename"]);
    let profile = registry.profile(&managed_kimi());
    assert_eq!(profile.effects()[0].params.text("to"), Some("y"));

    let explained = registry.explain(&managed_kimi());
    assert_eq!(explained.len(), 2);
    assert_eq!(
        (explained[1].path.as_str(), &explained[1].verdict),
        ("a.json", &Verdict::SwitchedOff)
    );
    assert_eq!(explained[1].to_string(), "same (any) is switched off");
}

#[test]
fn switching_off_what_is_not_there_is_an_error_with_the_nearest_name() {
    let off = ["kimi-thinking-replay".to_owned()];
    let off = LoadOptions {
        switched_off: &off,
        ..options()
    };
    let sources = [source(
        "a.json",
        &renames("kimi-thinking-reasoning-replay", "x"),
    )];
    assert_eq!(
        complaints(Registry::load(&sources, &off)),
        [
            "unknown manifest to switch off 'kimi-thinking-replay'; did you mean `kimi-thinking-reasoning-replay`?"
        ]
    );
}

#[test]
fn a_refused_addition_leaves_the_registry_as_it_was() {
    let registry = load(&[source("a.json", &renames("a", "x"))]).expect("loads");
    let bad = Source {
        path: "b.json".into(),
        text: "[]".into(),
    };
    complaints(registry.with(&[bad], &options()));
    assert_eq!(ids(&registry), ["a"]);
}
