//! What follows when a manifest applies.
//!
//! [`EFFECTS`] is the table: whose effect it is, how it is read, what it looks
//! like in the schema. An effect on the wire (`gateway`) is open to every
//! audience; an effect on a harness's configuration belongs to that harness.
//! This module reads effects; [`super::openclaw`] merges those of `OpenClaw`.

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::errors::Problem;
use super::manifest::{Audience, Reading};
use super::plugin::{self, OpenclawPlugin};
use crate::passes::{Kind, Params, Pass};

/// What follows when a manifest applies.
#[derive(Debug, Default)]
pub struct Effects {
    /// Passes over requests and replies.
    pub gateway: Vec<GatewayEffect>,
    /// Keys for the model's `compat` in Hermes' configuration; nothing reads them yet.
    pub hermes_compat: Map<String, Value>,
    /// Keys for the model's `compat` in `OpenClaw`'s configuration.
    pub openclaw_compat: Map<String, Value>,
    /// Plugins for `OpenClaw`.
    pub openclaw_plugins: Vec<OpenclawPlugin>,
    /// Whether `OpenClaw` is told that the model reasons.
    pub openclaw_reasoning: bool,
    /// `OpenClaw`'s tool search, on or off.
    pub openclaw_tool_search: Option<bool>,
}

/// A pass as a manifest configures it.
#[derive(Clone)]
pub struct GatewayEffect {
    /// The id of the manifest.
    pub manifest: Arc<str>,
    /// Which pass.
    pub kind: &'static Kind,
    /// How it is configured.
    pub params: Params,
    /// The pass, ready.
    pub pass: Arc<dyn Pass>,
}

/// A row of [`EFFECTS`].
pub(super) struct EffectKey {
    pub(super) name: &'static str,
    /// The one audience that may have it; `None` for all.
    pub(super) audience: Option<&'static str>,
    pub(super) doc: &'static str,
    pub(super) shape: Shape,
    read: fn(&Value, &mut Effects, &mut Reading<'_>),
}

/// What an effect looks like, for the schema.
pub(super) enum Shape {
    /// An object of keys for `OpenClaw`'s `compat`.
    OpenclawCompat,
    /// An object.
    Object,
    /// Passes with their parameters.
    Passes,
    /// Plugins.
    Plugins,
    /// An object with `toolSearch` alone.
    Tools,
    /// `true`.
    True,
}

/// Every effect there is.
pub(super) static EFFECTS: &[EffectKey] = &[
    EffectKey {
        name: "gateway",
        audience: None,
        doc: "Passes over requests and replies, each with its parameters.",
        shape: Shape::Passes,
        read: read_gateway,
    },
    EffectKey {
        name: "hermesCompat",
        audience: Some("hermes"),
        doc: "Reserved for Hermes' own configuration.",
        shape: Shape::Object,
        read: |value, effects, reading| {
            effects.hermes_compat = object("effects.hermesCompat", value, reading);
        },
    },
    EffectKey {
        name: "openclawCompat",
        audience: Some("openclaw"),
        doc: "Merged into the model's `compat` in OpenClaw's configuration.",
        shape: Shape::OpenclawCompat,
        read: |value, effects, reading| {
            effects.openclaw_compat = object("effects.openclawCompat", value, reading);
        },
    },
    EffectKey {
        name: "openclawPlugins",
        audience: Some("openclaw"),
        doc: "Plugins that OpenClaw is made to load.",
        shape: Shape::Plugins,
        read: read_plugins,
    },
    EffectKey {
        name: "openclawReasoning",
        audience: Some("openclaw"),
        doc: "Tells OpenClaw that the model reasons.",
        shape: Shape::True,
        read: read_reasoning,
    },
    EffectKey {
        name: "openclawTools",
        audience: Some("openclaw"),
        doc: "Switches OpenClaw's tool search.",
        shape: Shape::Tools,
        read: read_tools,
    },
];

/// Which of two uses of a pass in one plan this is.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Slot<'a> {
    pass: &'static str,
    per: Vec<Option<&'a Value>>,
}

impl EffectKey {
    pub(super) fn is_for(&self, audience: &Audience) -> bool {
        self.audience.is_none_or(|name| name == audience.name)
    }
}

impl GatewayEffect {
    /// Of effects in one slot, a plan has one.
    pub(super) fn slot(&self) -> Slot<'_> {
        Slot {
            pass: self.kind.name,
            per: self
                .kind
                .per
                .iter()
                .map(|name| self.params.value(name))
                .collect(),
        }
    }

    /// The values that tell it from other uses of the same pass, for people.
    pub fn per(&self) -> Option<String> {
        let values: Vec<&str> = self
            .kind
            .per
            .iter()
            .filter_map(|name| self.params.text(name))
            .collect();
        (!values.is_empty()).then(|| values.join(" "))
    }
}

/// Reads `effects`. Of an audience that is unknown nothing is.
pub(super) fn read(
    value: Option<&Value>,
    audience: Option<&'static Audience>,
    reading: &mut Reading<'_>,
) -> Effects {
    let mut effects = Effects::default();
    let Some(fields) = value
        .and_then(Value::as_object)
        .filter(|fields| !fields.is_empty())
    else {
        let wanted = "a non-empty object";
        reading
            .problems
            .push(Problem::must_be("field 'effects'", wanted, value));
        return effects;
    };
    let Some(audience) = audience else {
        return effects;
    };
    let mine = || EFFECTS.iter().filter(|key| key.is_for(audience));
    let what = format!("effects for agent '{}'", audience.name);
    reading.refuse_unknown(what, fields, mine().map(|key| key.name));
    for key in mine() {
        if let Some(value) = fields.get(key.name) {
            (key.read)(value, &mut effects, reading);
        }
    }
    effects
}

fn read_gateway(value: &Value, effects: &mut Effects, reading: &mut Reading<'_>) {
    for (at, item) in items("effects.gateway", value, reading) {
        let Some(effect) = read_pass(&at, item, reading) else {
            continue;
        };
        if effects
            .gateway
            .iter()
            .any(|other| other.slot() == effect.slot())
        {
            reading.problems.push(Problem::Repeated {
                at,
                pass: effect.kind.name,
            });
        } else {
            effects.gateway.push(effect);
        }
    }
}

fn read_pass(at: &str, item: &Value, reading: &mut Reading<'_>) -> Option<GatewayEffect> {
    let Some(fields) = item.as_object() else {
        reading
            .problems
            .push(Problem::must_be(at, "an object", Some(item)));
        return None;
    };
    let name = reading.text(&format!("{at}.pass"), fields.get("pass"))?;
    let Some(kind) = reading.passes.iter().find(|kind| kind.name == name) else {
        let known = reading.passes.iter().map(|kind| kind.name);
        reading
            .problems
            .push(Problem::unknown_name(at, "pass", &name, known));
        return None;
    };
    let mut given = fields.clone();
    given.remove("pass");
    let built = Params::check(&given, kind.params).and_then(|params| {
        let pass = (kind.build)(&params).map_err(|sentence| vec![sentence])?;
        Ok((params, pass))
    });
    match built {
        Ok((params, pass)) => Some(GatewayEffect {
            manifest: Arc::clone(&reading.id),
            kind,
            params,
            pass,
        }),
        Err(sentences) => {
            reading
                .problems
                .extend(sentences.into_iter().map(|sentence| Problem::Params {
                    at: at.to_owned(),
                    pass: kind.name,
                    sentence,
                }));
            None
        }
    }
}

fn read_plugins(value: &Value, effects: &mut Effects, reading: &mut Reading<'_>) {
    for (at, item) in items("effects.openclawPlugins", value, reading) {
        effects
            .openclaw_plugins
            .extend(plugin::read(&at, item, reading));
    }
}

fn read_reasoning(value: &Value, effects: &mut Effects, reading: &mut Reading<'_>) {
    effects.openclaw_reasoning = value == &Value::Bool(true);
    if !effects.openclaw_reasoning {
        let at = "effects.openclawReasoning";
        reading
            .problems
            .push(Problem::must_be(at, "true", Some(value)));
    }
}

fn read_tools(value: &Value, effects: &mut Effects, reading: &mut Reading<'_>) {
    let at = "effects.openclawTools";
    let Some(fields) = value.as_object() else {
        reading
            .problems
            .push(Problem::must_be(at, "an object", Some(value)));
        return;
    };
    reading.refuse_unknown(format!("{at} keys"), fields, ["toolSearch"].into_iter());
    let Some(value) = fields.get("toolSearch") else {
        return;
    };
    effects.openclaw_tool_search = value.as_bool();
    if effects.openclaw_tool_search.is_none() {
        let at = format!("{at}.toolSearch");
        reading
            .problems
            .push(Problem::must_be(at, "a boolean override", Some(value)));
    }
}

fn object(at: &str, value: &Value, reading: &mut Reading<'_>) -> Map<String, Value> {
    if !value.is_object() {
        reading
            .problems
            .push(Problem::must_be(at, "an object", Some(value)));
    }
    value.as_object().cloned().unwrap_or_default()
}

/// Each item of a list with its place.
fn items<'v>(at: &str, value: &'v Value, reading: &mut Reading<'_>) -> Vec<(String, &'v Value)> {
    let Some(items) = value.as_array() else {
        reading
            .problems
            .push(Problem::must_be(at, "an array", Some(value)));
        return Vec::new();
    };
    items
        .iter()
        .enumerate()
        .map(|(index, item)| (format!("{at}[{index}]"), item))
        .collect()
}

impl fmt::Debug for GatewayEffect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatewayEffect")
            .field("manifest", &self.manifest)
            .field("pass", &self.pass)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for EffectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}
