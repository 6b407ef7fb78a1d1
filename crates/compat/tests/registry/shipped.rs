//! The manifests that are part of the program, and their schema.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use farrier_compat::facts::Facts;
use farrier_compat::registry::lint::lint;
use farrier_compat::registry::schema::{of_manifests, schema};
use farrier_compat::registry::{LoadOptions, Registry, shipped_plugin, shipped_sources};

use crate::support::{
    PASSES, load, managed_but, managed_kimi, manifest, nemoclaw_kimi, options, passes, source,
};

const SPLIT: &str = "kimi-k2.6-managed-inference-exec-split/split-combined-call";

fn shipped() -> Registry {
    Registry::shipped().expect("the shipped manifests load")
}

fn upstream(model: &str, base_url: &str) -> Facts {
    managed_but(|facts| {
        facts.agent = None;
        facts.client.model = "whatever-the-client-calls-it".into();
        facts.upstream.model = model.into();
        facts.upstream.base_url = base_url.into();
    })
}

fn validator(schema: &Value) -> jsonschema::Validator {
    jsonschema::draft202012::new(schema).expect("the schema is one")
}

#[test]
fn reg_23_shipped_manifests_pass_the_lint() {
    let findings: Vec<String> = lint(&shipped()).iter().map(ToString::to_string).collect();
    assert_eq!(findings, [] as [&str; 0]);
}

#[test]
fn reg_23_shipped_manifests_fit_the_schema() {
    let value: Value = serde_json::from_str(&schema()).expect("the schema is JSON");
    let validator = validator(&value);
    assert!(shipped_sources().len() >= 7);
    for source in shipped_sources() {
        let manifest: Value = serde_json::from_str(&source.text).expect("JSON");
        let errors: Vec<String> = validator
            .iter_errors(&manifest)
            .map(|error| error.to_string())
            .collect();
        assert_eq!(errors, [] as [&str; 0], "{}", source.path);
    }
}

#[test]
fn the_schema_on_disk_is_the_one_of_the_tables() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../registry/schema.json");
    let on_disk = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        on_disk == schema(),
        "registry/schema.json is out of date: run `cargo xtask schema`"
    );
}

#[test]
fn reg_23_the_lint_finds_what_the_loader_lets_pass() {
    let mut value = manifest(
        "loose",
        "openclaw",
        &json!({
            "openclawCompat": {
                "suportsStore": true,
                "maxTokensField": "tokens",
                "toolSchemaProfile": {"run": "x", "y": ["$(id)", "a && b", "rm -rf / ; true"]},
            },
            "gateway": [{"pass": "split", "tool": "`id`"}],
        }),
    );
    value["evidence"] = json!({"sources": ["a/b#1"]});
    let registry = load(&[source("openclaw/wrong.json", &value)]).expect("loads");
    let findings: Vec<String> = lint(&registry).iter().map(ToString::to_string).collect();
    let expected = [
        "expected evidence.firstSeen, got nothing",
        "expected evidence.removeWhen, got nothing",
        "expected the file to be openclaw/loose.json",
        "expected 'maxTokensField' to be one of max_completion_tokens, max_tokens, got \"tokens\"",
        "expected a compat key that OpenClaw knows, got 'suportsStore'; did you mean `supportsStore`?",
        "expected data at split.tool, got what a shell could run: \"`id`\"",
        "expected data, got the executable field openclawCompat.toolSchemaProfile.run",
        "expected data at openclawCompat.toolSchemaProfile.y, got what a shell could run: \"$(id)\"",
        "expected data at openclawCompat.toolSchemaProfile.y, got what a shell could run: \"a && b\"",
        "expected data at openclawCompat.toolSchemaProfile.y, got what a shell could run: \"rm -rf / ; true\"",
    ];
    let expected: Vec<String> = expected
        .iter()
        .map(|text| format!("openclaw/wrong.json: {text}"))
        .collect();
    assert_eq!(findings, expected);
}

#[test]
fn the_schema_and_the_loader_agree() {
    let validator = validator(&of_manifests(PASSES));
    let with = |pointer: &str, value: Value| {
        let mut whole = nemoclaw_kimi();
        *whole.pointer_mut(pointer).expect("a value") = value;
        whole
    };
    let good = [
        nemoclaw_kimi(),
        with(
            "/match",
            json!({"upstream": {"hosts": [".moonshot.ai"], "modelIdPrefixes": ["kimi-k2"]}}),
        ),
        with(
            "/effects",
            json!({"gateway": [{"pass": "split", "tool": "exec"}, {"pass": "rename", "to": "x"}]}),
        ),
        manifest("h", "hermes", &json!({"hermesCompat": {"x": 1}})),
    ];
    let bad = [
        json!([]),
        with("/id", json!("A")),
        with("/agent", json!("claude")),
        with("/agent", json!("any")),
        with("/agent", json!("hermes")),
        with("/description", json!(" ")),
        with("/match", json!({})),
        with("/match", json!({"modelIds": []})),
        with("/match", json!({"modelIds": ["a", "a"]})),
        with(
            "/match",
            json!({"modelIds": ["a"], "modelIdPrefixes": ["a"]}),
        ),
        with("/match", json!({"modelIdPrefixes": ["a/b"]})),
        with("/match", json!({"upstream": {}})),
        with("/match", json!({"upstream": {"hosts": ["https://h"]}})),
        with("/match", json!({"model": "m"})),
        with("/effects", json!({})),
        with("/effects", json!({"openclawTools": {"toolSearch": "off"}})),
        with("/effects", json!({"openclawReasoning": false})),
        with(
            "/effects/openclawPlugins/0/path",
            json!("openclaw-plugins/../x"),
        ),
        with("/effects/openclawPlugins/0/path", json!("/abs")),
        with("/effects/openclawPlugins/0/loadPath", json!("/opt/x")),
        with("/effects", json!({"gateway": [{"pass": "unknown"}]})),
        with("/effects", json!({"gateway": [{"to": "x"}]})),
        with("/effects", json!({"gateway": [{"pass": "rename"}]})),
        with(
            "/effects",
            json!({"gateway": [{"pass": "rename", "to": "x", "y": 1}]}),
        ),
    ];
    for (values, fits) in [(good.as_slice(), true), (bad.as_slice(), false)] {
        for value in values {
            assert_eq!(validator.is_valid(value), fits, "the schema on {value}");
            assert_eq!(
                load(&[source("m.json", value)]).is_ok(),
                fits,
                "the loader on {value}"
            );
        }
    }
}

#[test]
fn a_thinking_kimi_is_known_by_its_family_wherever_it_is_served() {
    let registry = shipped();
    for (model, base_url) in [
        ("kimi-k2.6", "https://api.moonshot.ai/v1"),
        (
            "moonshotai/kimi-k2.6",
            "https://integrate.api.nvidia.com/v1",
        ),
        ("moonshotai/Kimi-K2.6", "http://127.0.0.1:8000/v1"),
        ("moonshotai/kimi-k2.6:free", "https://openrouter.ai/api/v1"),
        (
            "accounts/fireworks/models/kimi-k2p6",
            "https://api.fireworks.ai/inference/v1",
        ),
        ("kimi-k2.5:cloud", "https://ollama.com/v1"),
        ("kimi-k2-thinking-turbo", "https://api.moonshot.cn/v1"),
        ("kimi-for-coding", "https://api.kimi.com/coding/v1"),
    ] {
        let got = passes(&registry, &upstream(model, base_url));
        for expected in [
            "kimi-thinking-reasoning-replay/reasoning-lost-on-replay",
            "kimi-k2-native-tool-ids/tool-call-id-mangled",
            "kimi-k2-tool-result-name/tool-result-without-name",
            "kimi-k2-empty-fields/empty-field-on-replay",
        ] {
            assert!(
                got.iter().any(|pass| pass == expected),
                "{model}: {expected} is not in {got:?}"
            );
        }
        assert!(
            !got.iter().any(|pass| pass == SPLIT),
            "{model}: the split is OpenClaw's alone"
        );
    }
}

#[test]
fn a_kimi_that_does_not_think_is_not_given_reasoning() {
    let got = passes(
        &shipped(),
        &upstream(
            "moonshotai/kimi-k2-instruct-0905",
            "http://127.0.0.1:8000/v1",
        ),
    );
    assert!(
        got.iter()
            .any(|pass| pass.starts_with("kimi-k2-native-tool-ids/")),
        "{got:?}"
    );
    assert!(
        !got.iter().any(|pass| pass.contains("reasoning")),
        "{got:?}"
    );
}

#[test]
fn other_models_are_left_alone() {
    let registry = shipped();
    for model in [
        "gpt-5",
        "deepseek-v4",
        "kimi",
        "kimi-latest",
        "my-kimi-k2.6",
        "moonshot-v1-8k",
    ] {
        let got = passes(&registry, &upstream(model, "https://api.moonshot.ai/v1"));
        assert_eq!(got, [] as [&str; 0], "{model}");
    }
}

#[test]
fn fixed_sampling_is_a_matter_of_the_endpoint() {
    let registry = shipped();
    let fixed = |model: &str, base_url: &str| -> Vec<String> {
        let mut got = passes(&registry, &upstream(model, base_url));
        got.retain(|pass| pass.ends_with("/unsupported-parameter"));
        // One effect for each parameter of a manifest.
        got.dedup();
        got
    };
    let sampling = ["kimi-fixed-sampling/unsupported-parameter"];
    let temperature = ["kimi-fixed-temperature/unsupported-parameter"];
    assert_eq!(fixed("kimi-k2.6", "https://api.moonshot.ai/v1"), sampling);
    assert_eq!(fixed("kimi-k2.5", "https://api.moonshot.cn/v1"), sampling);
    assert_eq!(
        fixed("kimi-for-coding", "https://api.kimi.com/coding/v1"),
        temperature
    );
    assert_eq!(
        fixed("kimi-k2.7-code", "https://api.moonshot.ai/v1"),
        temperature
    );
    assert_eq!(
        fixed("kimi-k2-thinking", "https://api.moonshot.ai/v1"),
        [] as [&str; 0]
    );
    assert_eq!(
        fixed("kimi-k2.6", "http://127.0.0.1:8000/v1"),
        [] as [&str; 0]
    );
    assert_eq!(
        fixed("kimi-k2.6", "https://api.kimi.com/coding/v1"),
        [] as [&str; 0]
    );
}

#[test]
fn kimi_15_the_split_needs_the_managed_route_whole() {
    let registry = shipped();
    assert!(
        passes(&registry, &managed_kimi())
            .iter()
            .any(|pass| pass == SPLIT)
    );
    for facts in [
        managed_but(|facts| facts.client.provider_key = "openai".into()),
        managed_but(|facts| facts.client.model = "moonshotai/kimi-k2.5".into()),
        managed_but(|facts| facts.client.model = "openrouter/moonshotai/kimi-k2.6".into()),
        managed_but(|facts| facts.client.model = "kimi-k2.6".into()),
        managed_but(|facts| facts.client.inference_api = "openai-responses".into()),
        managed_but(|facts| facts.client.base_url = "http://inference.local/v1".into()),
        managed_but(|facts| facts.client.base_url = "https://inference.local/v1beta".into()),
        managed_but(|facts| facts.agent = Some("hermes".into())),
        managed_but(|facts| facts.agent = None),
    ] {
        let got = passes(&registry, &facts);
        assert!(!got.iter().any(|pass| pass == SPLIT), "{facts:?}");
    }
}

#[test]
fn kimi_16_letter_case_of_the_model_and_trailing_slashes_are_the_managed_route_still() {
    let facts = managed_but(|facts| {
        facts.client.model = " MOONSHOTAI/KIMI-K2.6".into();
        facts.client.base_url = "https://inference.local/v1///".into();
    });
    assert!(passes(&shipped(), &facts).iter().any(|pass| pass == SPLIT));
}

#[test]
fn kimi_17_the_model_may_be_named_by_its_whole_reference() {
    let facts = managed_but(|facts| facts.client.model = "inference/moonshotai/kimi-k2.6".into());
    assert!(passes(&shipped(), &facts).iter().any(|pass| pass == SPLIT));
}

#[test]
fn shipped_manifests_can_be_switched_off_by_id() {
    let off = ["kimi-k2-native-tool-ids".to_owned()];
    let off = LoadOptions {
        switched_off: &off,
        ..LoadOptions::default()
    };
    let registry = shipped().with(&[], &off).expect("loads");
    let got = passes(&registry, &managed_kimi());
    assert!(
        !got.iter().any(|pass| pass.contains("tool-call-id")),
        "{got:?}"
    );
}

#[test]
fn the_managed_route_gets_the_compat_that_is_documented_for_it() {
    use farrier_compat::registry::{IncomingCompat, ToolDisclosure};
    let incoming = IncomingCompat {
        from: "test",
        text: "{}",
    };
    let effects = shipped()
        .openclaw_effects(&managed_kimi(), incoming, ToolDisclosure::Progressive)
        .expect("merges");
    let expected = json!({
        "supportsStore": false,
        "requiresStringContent": true,
        "maxTokensField": "max_tokens",
        "requiresToolResultName": true,
    });
    assert_eq!(Value::from(effects.compat), expected);
    assert_eq!(effects.tool_search, Some(false));
    assert_eq!(
        effects.plugins.len(),
        1,
        "the gateway does what the plugin for the split did"
    );
}

#[test]
fn reg_23_every_shipped_plugin_is_named_by_a_manifest_and_has_a_manifest_and_an_entry() {
    let registry = shipped();
    let named: BTreeSet<&str> = registry
        .manifests()
        .flat_map(|manifest| &manifest.effects.openclaw_plugins)
        .map(|plugin| plugin.path.as_str())
        .collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../openclaw-plugins");
    let on_disk = std::fs::read_dir(root).expect("the plugins");
    let on_disk = on_disk.map(|entry| entry.expect("an entry"));
    let directories = on_disk.filter(|entry| entry.file_type().expect("a type").is_dir());
    let paths: BTreeSet<String> = directories
        .map(|entry| format!("openclaw-plugins/{}", entry.file_name().display()))
        .collect();
    assert!(paths.iter().map(String::as_str).eq(named.iter().copied()));
    for plugin in registry
        .manifests()
        .flat_map(|manifest| &manifest.effects.openclaw_plugins)
    {
        let file = |wanted: &str| {
            let mut files = shipped_plugin(&plugin.path);
            let found = files.find(|(name, _)| *name == wanted);
            found.expect("a file of the plugin").1
        };
        let json = |name: &str| -> Value { serde_json::from_str(file(name)).expect("JSON") };
        let manifest = json("openclaw.plugin.json");
        assert_eq!(manifest["id"], plugin.id);
        assert_eq!(manifest["configSchema"]["additionalProperties"], false);
        let package = json("package.json");
        assert_eq!(package["openclaw"]["extensions"], json!(["./index.js"]));
        assert!(package.get("scripts").is_none() && package.get("dependencies").is_none());
        let entry = file("index.js");
        assert!(entry.contains(&format!("id: \"{}\"", plugin.id)));
    }
}

#[test]
fn a_registry_of_other_passes_refuses_the_shipped_manifests() {
    let errors = Registry::load(&shipped_sources(), &options()).expect_err("none of these passes");
    assert!(
        errors
            .iter()
            .all(|error| error.to_string().contains("unknown pass")),
        "{errors}"
    );
}
