//! What manifests contribute to OpenClaw's configuration.

use serde_json::{Value, json};

use farrier_compat::facts::Facts;
use farrier_compat::registry::{
    IncomingCompat, MergeError, OpenclawEffects, OpenclawPlugin, Registry, Releases, ToolDisclosure,
};

use crate::support::{load, managed_but, managed_kimi, manifest, nemoclaw_kimi, source};

fn nemoclaw() -> Registry {
    load(&[source("openclaw/kimi.json", &nemoclaw_kimi())]).expect("loads")
}

fn merged(registry: &Registry, facts: &Facts, compat: &str) -> Result<OpenclawEffects, MergeError> {
    let incoming = IncomingCompat {
        from: "INFERENCE_COMPAT_B64",
        text: compat,
    };
    registry.openclaw_effects(facts, incoming, ToolDisclosure::Progressive)
}

fn message(result: Result<OpenclawEffects, MergeError>) -> String {
    result.map(|_| ()).expect_err("does not merge").to_string()
}

fn two(a: Value, b: Value) -> Registry {
    let sources = [
        source("a.json", &manifest("a", "openclaw", &a)),
        source("b.json", &manifest("b", "openclaw", &b)),
    ];
    load(&sources).expect("loads")
}

#[test]
fn reg_01_the_managed_route_gets_compat_plugin_load_path_and_no_tool_search() {
    let effects = merged(&nemoclaw(), &managed_kimi(), "{}").expect("merges");
    let path = "/usr/local/share/nemoclaw/openclaw-plugins/kimi-inference-compat";
    assert_eq!(
        effects,
        OpenclawEffects {
            compat: json!({
                "supportsStore": false,
                "requiresStringContent": true,
                "maxTokensField": "max_tokens",
                "requiresToolResultName": true,
            })
            .as_object()
            .expect("an object")
            .clone(),
            tool_search: Some(false),
            plugins: vec![OpenclawPlugin {
                id: "nemoclaw-kimi-inference-compat".into(),
                path: "openclaw-plugins/kimi-inference-compat".into(),
                load_path: Some(path.into()),
                releases: Releases::default(),
            }],
            reasoning: false,
        }
    );
}

#[test]
fn reg_02_a_trailing_slash_and_letter_case_of_the_model_do_not_matter() {
    for facts in [
        managed_but(|facts| facts.client.base_url = "https://inference.local/v1/".into()),
        managed_but(|facts| facts.client.model = " MoonshotAI/Kimi-K2.6 ".into()),
        managed_but(|facts| facts.agent = None),
    ] {
        assert_eq!(
            merged(&nemoclaw(), &facts, "{}")
                .expect("merges")
                .compat
                .len(),
            4,
            "{facts:?}"
        );
    }
}

#[test]
fn reg_03_any_other_route_gets_the_incoming_compat_alone() {
    for facts in [
        managed_but(|facts| facts.client.model = "moonshotai/kimi-k2.5".into()),
        managed_but(|facts| facts.client.provider_key = "openai".into()),
        managed_but(|facts| facts.client.inference_api = "openai-responses".into()),
        managed_but(|facts| facts.client.base_url = "https://integrate.api.nvidia.com/v1".into()),
    ] {
        let effects = merged(&nemoclaw(), &facts, r#"{"supportsStore":true}"#).expect("merges");
        let expected = OpenclawEffects {
            compat: json!({"supportsStore": true})
                .as_object()
                .expect("an object")
                .clone(),
            ..OpenclawEffects::default()
        };
        assert_eq!(effects, expected, "{facts:?}");
    }
}

#[test]
fn reg_04_a_provider_prefix_is_not_stripped_from_the_model() {
    let prefixed =
        managed_but(|facts| facts.client.model = "inference/moonshotai/kimi-k2.6".into());
    assert_eq!(
        merged(&nemoclaw(), &prefixed, "{}").expect("merges"),
        OpenclawEffects::default()
    );
}

#[test]
fn reg_05_an_incoming_null_is_none() {
    let effects = merged(&nemoclaw(), &managed_kimi(), "null").expect("merges");
    assert_eq!(effects.compat.len(), 4);
}

#[test]
fn reg_06_an_incoming_compat_that_is_no_object_is_named_with_its_origin() {
    let refused = |text: &str| message(merged(&nemoclaw(), &managed_kimi(), text));
    assert_eq!(
        refused("[]"),
        "INFERENCE_COMPAT_B64 must be a JSON object or null, got an array"
    );
    assert_eq!(
        refused("\"x\""),
        "INFERENCE_COMPAT_B64 must be a JSON object or null, got a string"
    );
    assert_eq!(
        refused("1"),
        "INFERENCE_COMPAT_B64 must be a JSON object or null, got a scalar"
    );
    assert!(
        refused("{").starts_with("INFERENCE_COMPAT_B64 must be a JSON object or null, got EOF")
    );
}

#[test]
fn reg_07_a_contradiction_of_the_incoming_compat_names_manifest_and_key() {
    assert_eq!(
        message(merged(
            &nemoclaw(),
            &managed_kimi(),
            r#"{"supportsStore":true}"#
        )),
        "model-specific setup 'kimi-k2.6-managed-inference' conflicts with inference compat key 'supportsStore'"
    );
}

#[test]
fn reg_08_an_equal_incoming_value_is_merged() {
    let incoming = r#"{"supportsStore":false,"supportsTools":true}"#;
    let effects = merged(&nemoclaw(), &managed_kimi(), incoming).expect("merges");
    assert_eq!(effects.compat.len(), 5);
}

#[test]
fn reg_09_a_plugin_declared_twice_is_an_error_even_when_alike() {
    let plugin = json!({
        "id": "p",
        "path": "openclaw-plugins/p",
        "loadPath": "/usr/local/share/nemoclaw/openclaw-plugins/p",
    });
    let expected = "model-specific setup 'b' declares duplicate OpenClaw plugin 'p'";
    let across = two(
        json!({"openclawPlugins": [plugin]}),
        json!({"openclawPlugins": [plugin]}),
    );
    assert_eq!(message(merged(&across, &managed_kimi(), "{}")), expected);
    let within = two(
        json!({"openclawPlugins": []}),
        json!({"openclawPlugins": [plugin, plugin]}),
    );
    assert_eq!(message(merged(&within, &managed_kimi(), "{}")), expected);
}

#[test]
fn reg_11_manifests_of_another_harness_do_not_show() {
    let odd = manifest(
        "odd",
        "hermes",
        &json!({"hermesCompat": {"": [null, {"x": 1e9}]}}),
    );
    let with = load(&[
        source("hermes/odd.json", &odd),
        source("openclaw/kimi.json", &nemoclaw_kimi()),
    ]);
    let with = merged(&with.expect("loads"), &managed_kimi(), "{}");
    assert_eq!(with, merged(&nemoclaw(), &managed_kimi(), "{}"));
}

#[test]
fn equal_objects_and_lists_are_no_conflict() {
    let map = || json!({"openclawCompat": {"reasoningEffortMap": {"low": ["a"], "high": ["b"]}}});
    let effects = merged(&two(map(), map()), &managed_kimi(), "{}").expect("structurally equal");
    assert_eq!(effects.compat.len(), 1);
    let other = json!({"openclawCompat": {"reasoningEffortMap": {"low": ["a"], "high": []}}});
    assert_eq!(
        message(merged(&two(map(), other), &managed_kimi(), "{}")),
        "model-specific setup 'b' conflicts with inference compat key 'reasoningEffortMap'"
    );
}

#[test]
fn tool_overrides_that_differ_are_a_conflict() {
    let search = |on: bool| json!({"openclawTools": {"toolSearch": on}});
    assert_eq!(
        message(merged(
            &two(search(true), search(false)),
            &managed_kimi(),
            "{}"
        )),
        "model-specific setup 'b' conflicts with OpenClaw tools key 'toolSearch'"
    );
    let effects =
        merged(&two(search(true), search(true)), &managed_kimi(), "{}").expect("they agree");
    assert_eq!(effects.tool_search, Some(true));
}

#[test]
fn reg_17_direct_disclosure_wins_over_a_manifest() {
    let on = json!({"openclawTools": {"toolSearch": true}, "openclawReasoning": true});
    let registry = load(&[source("a.json", &manifest("a", "openclaw", &on))]).expect("loads");
    let search = |disclosure| {
        let incoming = IncomingCompat {
            from: "test",
            text: "{}",
        };
        let effects = registry
            .openclaw_effects(&managed_kimi(), incoming, disclosure)
            .expect("merges");
        assert!(effects.reasoning);
        effects.tool_search
    };
    assert_eq!(search(ToolDisclosure::Direct), Some(false));
    assert_eq!(search(ToolDisclosure::Progressive), Some(true));
}
