//! What a shipped manifest must have beyond loading.
//!
//! Loading is for everyone's manifests and keeps to the format; this is the bar
//! for those that are part of the program, and good advice for others: evidence,
//! keys that the harness knows, and nothing in a value that a shell could run.

use std::fmt;

use serde_json::Value;

use super::compat_keys::COMPAT_KEYS;
use super::{Manifest, Registry};
use crate::passes::params::nearest;

/// Something to put right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The manifest it is in.
    pub path: String,
    /// What is wrong, in one sentence.
    pub message: String,
}

/// Everything to put right, in path order.
pub fn lint(registry: &Registry) -> Vec<Finding> {
    let mut findings = Vec::new();
    for manifest in registry.manifests() {
        let messages = [
            evidence(manifest),
            name(manifest),
            compat(manifest),
            shell(manifest),
        ];
        findings.extend(messages.into_iter().flatten().map(|message| Finding {
            path: manifest.path.clone(),
            message,
        }));
    }
    findings
}

fn evidence(manifest: &Manifest) -> Vec<String> {
    let evidence = &manifest.evidence;
    [
        ("firstSeen", evidence.first_seen.is_none()),
        ("sources", evidence.sources.is_empty()),
        ("removeWhen", evidence.remove_when.is_none()),
    ]
    .into_iter()
    .filter(|(_, missing)| *missing)
    .map(|(field, _)| format!("expected evidence.{field}, got nothing"))
    .collect()
}

/// A manifest is found by its id, and its corpus cases by the same name.
fn name(manifest: &Manifest) -> Vec<String> {
    let expected = format!("{}/{}.json", manifest.audience.name, manifest.id);
    if format!("/{}", manifest.path).ends_with(&format!("/{expected}")) {
        return Vec::new();
    }
    vec![format!("expected the file to be {expected}")]
}

fn compat(manifest: &Manifest) -> Vec<String> {
    let mut found = Vec::new();
    for (key, value) in &manifest.effects.openclaw_compat {
        match COMPAT_KEYS.iter().find(|known| known.name == key) {
            None => {
                let hint = nearest(key, COMPAT_KEYS.iter().map(|known| known.name))
                    .map(|near| format!("; did you mean `{near}`?"));
                let hint = hint.unwrap_or_default();
                found.push(format!(
                    "expected a compat key that OpenClaw knows, got '{key}'{hint}"
                ));
            }
            Some(known) if known.choices.is_empty() => {}
            Some(known) => {
                if !value
                    .as_str()
                    .is_some_and(|text| known.choices.contains(&text))
                {
                    let choices = known.choices.join(", ");
                    found.push(format!(
                        "expected '{key}' to be one of {choices}, got {value}"
                    ));
                }
            }
        }
    }
    found
}

fn shell(manifest: &Manifest) -> Vec<String> {
    let mut found = Vec::new();
    let effects = &manifest.effects;
    for effect in &effects.gateway {
        walk_fields(effect.kind.name, effect.params.as_map(), &mut found);
    }
    walk_fields("openclawCompat", &effects.openclaw_compat, &mut found);
    walk_fields("hermesCompat", &effects.hermes_compat, &mut found);
    for plugin in &effects.openclaw_plugins {
        for text in [&plugin.id, &plugin.path] {
            walk("openclawPlugins", &Value::from(text.as_str()), &mut found);
        }
    }
    for predicate in &manifest.predicates {
        for text in predicate.wanted() {
            walk(predicate.at(), &Value::from(text.as_str()), &mut found);
        }
    }
    found
}

fn walk_fields(at: &str, fields: &serde_json::Map<String, Value>, found: &mut Vec<String>) {
    for (key, value) in fields {
        let at = format!("{at}.{key}");
        if EXECUTABLE.contains(&key.to_lowercase().as_str()) {
            found.push(format!("expected data, got the executable field {at}"));
        }
        walk(&at, value, found);
    }
}

fn walk(at: &str, value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) if looks_like_shell(text) => {
            found.push(format!(
                "expected data at {at}, got what a shell could run: {text:?}"
            ));
        }
        Value::Array(items) => items.iter().for_each(|item| walk(at, item, found)),
        Value::Object(fields) => walk_fields(at, fields, found),
        Value::Bool(_) | Value::Null | Value::Number(_) | Value::String(_) => {}
    }
}

/// Fields whose value some reader could be tempted to run.
const EXECUTABLE: &[&str] = &[
    "cmd", "command", "eval", "exec", "hook", "run", "script", "shell",
];

/// A substitution, or an operator with words around it. An operator alone, such as
/// the separator of a split, is data.
fn looks_like_shell(text: &str) -> bool {
    let substitutes = ["$(", "${", "`", "\n", "\r"]
        .iter()
        .any(|sign| text.contains(sign));
    let operates = text.contains([';', '|', '&', '<', '>']) && text.contains(char::is_alphanumeric);
    substitutes || operates
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}
