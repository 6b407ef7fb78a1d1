//! The texts of errors: the essential words are a contract.

use serde_json::{Value, json};

use farrier_compat::registry::{Registry, Release, Source};

use crate::support::{complaints, load, manifest, options, source};

/// A valid manifest with the value at a pointer replaced, or taken out for `null`.
fn with(pointer: &str, value: Value) -> Value {
    let mut whole = manifest("m", "openclaw", &json!({"openclawCompat": {}}));
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
    let parent = whole
        .pointer_mut(parent)
        .and_then(Value::as_object_mut)
        .expect("an object");
    if value.is_null() {
        parent.remove(key);
    } else {
        parent.insert(key.into(), value);
    }
    whole
}

fn effects(effects: Value) -> Value {
    with("/effects", effects)
}

fn plugin(change: Value) -> Value {
    let mut plugin = json!({
        "id": "p",
        "path": "openclaw-plugins/p",
        "loadPath": "/usr/local/share/nemoclaw/openclaw-plugins/p",
    });
    for (key, value) in change.as_object().expect("an object") {
        plugin[key] = value.clone();
    }
    effects(json!({"openclawPlugins": [plugin]}))
}

fn assert_table(table: Vec<(Value, &str)>) {
    for (value, expected) in table {
        let got = complaints(load(&[source("d/m.json", &value)]));
        assert_eq!(got, [format!("d/m.json: {expected}")], "{value}");
    }
}

#[test]
fn mistakes_at_the_top_are_named() {
    assert_table(vec![
        (json!([]), "manifest must be a JSON object, got []"),
        (
            with("/id", Value::Null),
            "field 'id' must be a non-empty string",
        ),
        (
            with("/id", json!(" ")),
            "field 'id' must be a non-empty string, got \" \"",
        ),
        (
            with("/id", json!("a b")),
            "field 'id' must be a non-empty string of a-z, 0-9, '.', '_' and '-' that begins with a letter or digit, got \"a b\"",
        ),
        (
            with("/agent", Value::Null),
            "field 'agent' is required, one of any, hermes, openclaw",
        ),
        (
            with("/agent", json!("opencalw")),
            "unknown agent 'opencalw'; did you mean `openclaw`?",
        ),
        (
            with("/description", json!("")),
            "field 'description' must be a non-empty string, got \"\"",
        ),
        (
            with("/match", Value::Null),
            "field 'match' must be an object",
        ),
        (
            with("/match", json!("x")),
            "field 'match' must be an object, got \"x\"",
        ),
        (
            with("/match", json!({})),
            "field 'match' must be a non-empty object",
        ),
        (
            with("/effects", Value::Null),
            "field 'effects' must be a non-empty object",
        ),
        (
            with("/effects", json!({})),
            "field 'effects' must be a non-empty object, got {}",
        ),
        (
            with("/effcts", json!({})),
            "unknown manifest keys: effcts; did you mean `effects`?",
        ),
    ]);
}

#[test]
fn mistakes_in_the_match_are_named() {
    assert_table(vec![
        (
            with(
                "/match",
                json!({"zone": 1, "modelID": 1, "modelIds": ["m"]}),
            ),
            "unknown match keys: modelID, zone; did you mean `modelIds`?",
        ),
        (
            with("/match/modelIds", json!([])),
            "match.modelIds must be a non-empty string array, got []",
        ),
        (
            with("/match/modelIds", json!("m")),
            "match.modelIds must be a non-empty string array, got \"m\"",
        ),
        (
            with("/match/modelIds", json!(["m", " "])),
            "match.modelIds must be a non-empty string array, got [\"m\",\" \"]",
        ),
        (
            with("/match/modelIds", json!(["m", "m"])),
            "match.modelIds must contain each value once, got \"m\"",
        ),
        (
            with("/match/providerKey", json!("")),
            "match.providerKey must be a non-empty string, got \"\"",
        ),
        (
            with("/match/inferenceApi", json!(1)),
            "match.inferenceApi must be a non-empty string, got 1",
        ),
        (
            with("/match/baseUrl", json!([])),
            "match.baseUrl must be a non-empty string, got []",
        ),
        (
            with("/match/upstream", json!({})),
            "match.upstream must be a non-empty object, got {}",
        ),
        (
            with("/match/upstream", json!({"host": "h"})),
            "unknown match.upstream keys: host; did you mean `hosts`?",
        ),
        (
            with("/match/upstream", json!({"hosts": ["https://h/v1"]})),
            "match.upstream.hosts must contain host names, or a dot and a domain, got \"https://h/v1\"",
        ),
    ]);
}

#[test]
fn reg_22_prefixes_are_bare_and_exclude_ids() {
    assert_table(vec![
        (
            with("/match", json!({"modelIdPrefixes": ["openai/gpt-5"]})),
            "match.modelIdPrefixes must contain bare model ids without namespaces, got \"openai/gpt-5\"",
        ),
        (
            with("/match/modelIdPrefixes", json!(["gpt-5"])),
            "match.modelIds and match.modelIdPrefixes are mutually exclusive",
        ),
        (
            with(
                "/match/upstream",
                json!({"modelIds": ["a"], "modelIdPrefixes": ["a"]}),
            ),
            "match.upstream.modelIds and match.upstream.modelIdPrefixes are mutually exclusive",
        ),
    ]);
}

#[test]
fn reg_15_effects_of_another_agent_are_named() {
    let of = |agent: &str, effects: Value| manifest("m", agent, &effects);
    assert_table(vec![
        (
            of("openclaw", json!({"hermesCompat": {}})),
            "unknown effects for agent 'openclaw': hermesCompat",
        ),
        (
            of(
                "hermes",
                json!({"openclawTools": {}, "openclawPlugins": []}),
            ),
            "unknown effects for agent 'hermes': openclawPlugins, openclawTools",
        ),
        (
            of("any", json!({"hermesCompat": {}})),
            "unknown effects for agent 'any': hermesCompat",
        ),
    ]);
}

#[test]
fn reg_16_tool_overrides_are_booleans() {
    assert_table(vec![
        (
            effects(json!({"openclawTools": []})),
            "effects.openclawTools must be an object, got []",
        ),
        (
            effects(json!({"openclawTools": {"toolSearch": "off"}})),
            "effects.openclawTools.toolSearch must be a boolean override, got \"off\"",
        ),
        (
            effects(json!({"openclawTools": {"x": 1}})),
            "unknown effects.openclawTools keys: x",
        ),
    ]);
}

#[test]
fn effects_of_the_wrong_kind_are_named() {
    assert_table(vec![
        (
            effects(json!({"openclawCompat": []})),
            "effects.openclawCompat must be an object, got []",
        ),
        (
            effects(json!({"openclawReasoning": false})),
            "effects.openclawReasoning must be true, got false",
        ),
        (
            effects(json!({"openclawPlugins": {}})),
            "effects.openclawPlugins must be an array, got {}",
        ),
        (
            effects(json!({"openclawPlugins": ["p"]})),
            "effects.openclawPlugins[0] must be an object, got \"p\"",
        ),
        (
            manifest("m", "hermes", &json!({"hermesCompat": 1})),
            "effects.hermesCompat must be an object, got 1",
        ),
        (
            effects(json!({"gateway": {}})),
            "effects.gateway must be an array, got {}",
        ),
        (
            effects(json!({"gateway": ["rename"]})),
            "effects.gateway[0] must be an object, got \"rename\"",
        ),
    ]);
}

#[test]
fn reg_13_plugin_paths_stay_below_their_root() {
    for path in [
        "/abs",
        "openclaw-plugins/../x",
        "openclaw-plugins\\..\\x",
        "openclaw-plugins/a\\..\\..",
        "plugins/x",
        "openclaw-plugins/",
    ] {
        let got = complaints(load(&[source("m.json", &plugin(json!({"path": path})))]));
        let expected =
            "m.json: effects.openclawPlugins[0].path must be relative to nemoclaw-blueprint";
        assert!(
            got.len() == 1 && got[0].starts_with(expected),
            "{path}: {got:?}"
        );
    }
}

#[test]
fn reg_14_a_load_path_is_where_the_plugin_is_staged() {
    let slash = json!({"loadPath": "/usr/local/share/nemoclaw/openclaw-plugins/p/"});
    load(&[source("m.json", &plugin(slash))]).expect("a trailing slash is accepted");
    assert_table(vec![
        (
            plugin(json!({"loadPath": "/opt/openclaw-plugins/p"})),
            "effects.openclawPlugins[0].loadPath must be '/usr/local/share/nemoclaw/openclaw-plugins/p', got \"/opt/openclaw-plugins/p\"",
        ),
        (
            plugin(json!({"id": ""})),
            "effects.openclawPlugins[0].id must be a non-empty string, got \"\"",
        ),
        (
            plugin(json!({"loadPath": 1})),
            "effects.openclawPlugins[0].loadPath must be '/usr/local/share/nemoclaw/openclaw-plugins/p', got 1",
        ),
        (
            plugin(json!({"run": "x"})),
            "unknown effects.openclawPlugins[0] keys: run",
        ),
    ]);
}

#[test]
fn a_plugin_may_be_loaded_from_where_it_is_staged_and_be_for_some_releases_alone() {
    let some = json!({"openclawPlugins": [
        {"id": "p", "path": "openclaw-plugins/p", "from": "2026.5.12", "before": "2026.5.17"},
    ]});
    let registry = load(&[source("m.json", &effects(some))]).expect("loads");
    let manifest = registry.manifests().next().expect("one");
    let loaded = &manifest.effects.openclaw_plugins[0];
    assert_eq!(loaded.load_path, None);
    let needs = |text: &str| {
        loaded
            .releases
            .include(Release::parse(text).expect("a release"))
    };
    assert!(needs("2026.5.12") && !needs("2026.5.11") && !needs("2026.5.17"));
    assert_table(vec![
        (
            plugin(json!({"before": "2026.5"})),
            "effects.openclawPlugins[0].before must be a release such as 2026.9.6, got \"2026.5\"",
        ),
        (
            plugin(json!({"from": 2026})),
            "effects.openclawPlugins[0].from must be a release such as 2026.9.6, got 2026",
        ),
    ]);
}

#[test]
fn reg_12_a_plugin_that_is_not_there_is_an_error_even_where_nothing_matches() {
    let mut value = plugin(json!({}));
    value["match"] = json!({"modelIds": ["nobody/asks-for-this"]});
    let nowhere = farrier_compat::registry::LoadOptions {
        exists: &|path| path == "openclaw-plugins/other",
        ..options()
    };
    let got = complaints(Registry::load(&[source("m.json", &value)], &nowhere));
    assert_eq!(
        got,
        ["m.json: effects.openclawPlugins[0].path does not exist: openclaw-plugins/p"]
    );
}

#[test]
fn passes_and_their_parameters_are_checked() {
    let gateway = |passes: Value| manifest("m", "any", &json!({"gateway": passes}));
    assert_table(vec![
        (
            gateway(json!([{}])),
            "effects.gateway[0].pass must be a non-empty string",
        ),
        (
            gateway(json!([{"pass": "renam"}])),
            "effects.gateway[0]: unknown pass 'renam'; did you mean `rename`?",
        ),
        (
            gateway(json!([{"pass": "rename", "to": "x", "too": "y"}])),
            "effects.gateway[0] (rename): unknown parameter `too`; did you mean `to`?",
        ),
        (
            gateway(json!([{"pass": "rename"}])),
            "effects.gateway[0] (rename): expected parameter `to`, got none",
        ),
        (
            gateway(json!([{"pass": "split", "tool": "exec", "low": "b", "high": "a"}])),
            "effects.gateway[0] (split): expected low before high, got b and a",
        ),
        (
            gateway(
                json!([{"pass": "split", "tool": "a"}, {"pass": "split", "tool": "b"}, {"pass": "split", "tool": "a"}]),
            ),
            "effects.gateway[2] configures pass 'split' a second time for the same thing",
        ),
    ]);
}

#[test]
fn mistakes_in_evidence_are_named() {
    assert_table(vec![
        (
            with("/evidence", json!([])),
            "field 'evidence' must be an object, got []",
        ),
        (
            with("/evidence", json!({"since": "x"})),
            "unknown evidence keys: since",
        ),
        (
            with("/evidence", json!({"sources": []})),
            "evidence.sources must be a non-empty string array, got []",
        ),
        (
            with("/evidence", json!({"removeWhen": ""})),
            "evidence.removeWhen must be a non-empty string, got \"\"",
        ),
        (
            with("/evidence", json!({"firstSeen": "May 2026"})),
            "evidence.firstSeen must be a day, as in 2026-01-31, got \"May 2026\"",
        ),
        (
            with("/evidence", json!({"firstSeen": "2026-13-01"})),
            "evidence.firstSeen must be a day, as in 2026-01-31, got \"2026-13-01\"",
        ),
    ]);
}

#[test]
fn bad_json_is_named_with_its_line() {
    let bad = |text: &str| {
        let text = text.to_owned();
        complaints(load(&[Source {
            path: "a/b.json".into(),
            text,
        }]))
    };
    assert_eq!(
        bad("{\n\"id\": \"x\",\n}"),
        ["a/b.json:3:1: not JSON: trailing comma"]
    );
    assert_eq!(
        bad(""),
        ["a/b.json:1:0: not JSON: EOF while parsing a value"]
    );
    assert_eq!(
        bad("{\"id\":1,\n\"id\":2}"),
        ["a/b.json:2:7: not JSON: expected each key once, got \"id\" twice"]
    );
    assert_eq!(
        bad(&"[".repeat(100_000)),
        ["a/b.json:1:128: not JSON: recursion limit exceeded"]
    );
}

#[test]
fn every_mistake_of_every_file_is_reported_at_once() {
    let mut many = manifest(
        "M",
        "any",
        &json!({"gateway": [{"pass": "x"}, {"pass": "rename"}]}),
    );
    many["match"] = json!({"modelIds": [], "provider": "p"});
    let sources = [
        source("b.json", &many),
        Source {
            path: "a.json".into(),
            text: "{".into(),
        },
        source("c.json", &manifest("fine", "any", &json!({"gateway": []}))),
    ];
    assert_eq!(
        complaints(load(&sources)),
        [
            "a.json:1:1: not JSON: EOF while parsing an object",
            "b.json: field 'id' must be a non-empty string of a-z, 0-9, '.', '_' and '-' that begins with a letter or digit, got \"M\"",
            "b.json: unknown match keys: provider; did you mean `providerKey`?",
            "b.json: match.modelIds must be a non-empty string array, got []",
            "b.json: effects.gateway[0]: unknown pass 'x'",
            "b.json: effects.gateway[1] (rename): expected parameter `to`, got none",
        ]
    );
}
