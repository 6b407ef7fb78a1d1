//! What manifests contribute to Hermes' configuration.
//!
//! `hermesCompat` is an object of known keys, each with a place in `config.yaml`. A
//! manifest that asks for another, or two that disagree, are an error; so is a value
//! that Hermes would not take.

use farrier_compat::facts::Facts;
use farrier_compat::registry::Registry;
use serde_json::Value;

use crate::document::Document;
use crate::settings::{Mistake, Mistakes};

/// What belongs into the configuration.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Effects {
    /// How Hermes speaks to the provider.
    pub(crate) api_mode: Option<&'static str>,
    /// The model's context window.
    pub(crate) context_length: Option<u64>,
    /// Fields for every request.
    pub(crate) extra_body: Option<Document>,
    /// How hard the model is to think.
    pub(crate) reasoning_effort: Option<&'static str>,
    /// Whether tools are found through search.
    pub(crate) tool_search: Option<bool>,
}

/// The values of `model.api_mode`.
pub(crate) const API_MODES: &[&str] =
    &["anthropic_messages", "chat_completions", "codex_responses"];
const EFFORTS: &[&str] = &["none", "minimal", "low", "medium", "high", "xhigh"];

/// A key of `hermesCompat`: what it takes, and how it is taken over; `false` if it is not that.
struct Key {
    name: &'static str,
    wanted: &'static str,
    take: fn(&Value, &mut Effects) -> bool,
}

const KEYS: &[Key] = &[
    Key {
        name: "apiMode",
        wanted: "anthropic_messages, chat_completions or codex_responses",
        take: |value, effects| {
            effects.api_mode = one_of(value, API_MODES);
            effects.api_mode.is_some()
        },
    },
    Key {
        name: "contextLength",
        wanted: "a positive integer",
        take: |value, effects| {
            effects.context_length = value.as_u64().filter(|length| *length > 0);
            effects.context_length.is_some()
        },
    },
    Key {
        name: "extraBody",
        wanted: "an object",
        take: |value, effects| {
            effects.extra_body = value.is_object().then(|| value.into());
            effects.extra_body.is_some()
        },
    },
    Key {
        name: "reasoningEffort",
        wanted: "none, minimal, low, medium, high or xhigh",
        take: |value, effects| {
            effects.reasoning_effort = one_of(value, EFFORTS);
            effects.reasoning_effort.is_some()
        },
    },
    Key {
        name: "toolSearch",
        wanted: "true or false",
        take: |value, effects| {
            effects.tool_search = value.as_bool();
            effects.tool_search.is_some()
        },
    },
];

/// What all manifests that apply to the route contribute.
pub(crate) fn merged(registry: &Registry, route: &Facts) -> Result<Effects, Mistakes> {
    let route = Facts {
        agent: Some("hermes".to_owned()),
        ..route.clone()
    };
    let mut merged = Effects::default();
    let mut taken: Vec<(&str, &Value, &str)> = Vec::new();
    let mut wrong = Vec::new();
    for manifest in registry
        .manifests()
        .filter(|manifest| manifest.applies(&route))
    {
        let mut say = |message: String| {
            wrong.push(Mistake {
                from: manifest.path.clone(),
                message,
            });
        };
        for (name, value) in &manifest.effects.hermes_compat {
            let earlier = taken.iter().find(|(there, ..)| there == name);
            if let Some((_, there, id)) = earlier {
                if *there != value {
                    say(format!(
                        "effects.hermesCompat.{name} contradicts manifest '{id}'"
                    ));
                }
                continue;
            }
            taken.push((name, value, &manifest.id));
            match KEYS.iter().find(|key| key.name == name) {
                Some(key) if (key.take)(value, &mut merged) => {}
                Some(key) => {
                    let wanted = key.wanted;
                    say(format!(
                        "effects.hermesCompat.{name} must be {wanted}, got {value}"
                    ));
                }
                None => {
                    let known: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
                    let known = known.join(", ");
                    say(format!(
                        "effects.hermesCompat.{name} is unknown, expected one of {known}"
                    ));
                }
            }
        }
    }
    if wrong.is_empty() {
        Ok(merged)
    } else {
        Err(Mistakes(wrong))
    }
}

fn one_of(value: &Value, words: &[&'static str]) -> Option<&'static str> {
    let text = value.as_str()?;
    words.iter().copied().find(|word| *word == text)
}
