//! What is generated, held against what OpenClaw says of its own configuration.
//!
//! The schemas are those that `openclaw config schema` prints, cut down by `schemas/prune.mjs`.

use jsonschema::Validator;
use serde_json::Value;

use crate::openclaw::everything;
use crate::support::{Ask, OPENCLAWS, route, tests};

fn schema(version: &str) -> Validator {
    let path = tests()
        .join("schemas")
        .join(format!("openclaw-{version}.json"));
    let text = std::fs::read_to_string(path).unwrap();
    jsonschema::validator_for(&serde_json::from_str(&text).unwrap()).unwrap()
}

fn complaints(schema: &Validator, ask: &Ask) -> Vec<String> {
    let document: Value = serde_json::from_str(&ask.document().to_json()).unwrap();
    let errors = schema.iter_errors(&document);
    errors
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect()
}

#[test]
fn every_version_takes_what_is_generated_for_it() {
    for version in OPENCLAWS {
        let schema = schema(version);
        let mut local = route("qwen3.5:9b");
        local.upstream.provider = "ollama-local".to_owned();
        let local = Ask::openclaw().route(local).with("context-window", "16384");
        for ask in [Ask::openclaw(), everything(), local] {
            let complaints = complaints(&schema, &ask.version(version));
            assert!(complaints.is_empty(), "{version}: {complaints:#?}");
        }
    }
}

#[test]
fn a_version_refuses_what_is_generated_for_another() {
    for (version, other) in [
        ("2026.4.21", "2026.5.12"),
        ("2026.9.6", "2026.5.12"),
        ("2026.5.12", "2026.9.6"),
    ] {
        let complaints = complaints(&schema(version), &Ask::openclaw().version(other));
        assert!(
            !complaints.is_empty(),
            "{version} takes what is for {other}"
        );
    }
}
