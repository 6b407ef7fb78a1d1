//! Unsupported parameter.
//!
//! * **defect**: a client sends a parameter that the provider refuses for this model, under another name,
//!   or out of range (400 `invalid temperature: only 1 is allowed for this model`).
//! * **first seen**: kimi-k2.5 on api.moonshot.ai; `max_tokens` on o-series models.
//! * **source**: MoonshotAI/kimi-code#686, Narcooo/inkos#174, NousResearch/hermes-agent#12566.
//! * **before**: `{"model":"kimi-k2.6","temperature":0.7,"messages":[…]}`
//! * **after**: `{"model":"kimi-k2.6","messages":[…]}`
//! * **remove when**: the provider takes the parameter; each manifest says which.
//!
//! One effect is one declarative rule. A path is a top-level key, or two keys joined
//! by a dot (`chat_template_kwargs.thinking`); rules for different paths, or the same
//! path under different conditions, stand side by side.

use std::sync::Arc;

use serde_json::Value as Json;

use super::{At, Kind, Param, ParamKind, Params, Pass, Scene, What};
use crate::fault::Fault;
use crate::wire::chat::Ask;
use crate::wire::json::{Object, Value};

const WHEN: &[&str] = &[
    "stream",
    "no-stream",
    "thinking-disabled",
    "thinking-not-disabled",
    "tool-choice-pinned",
    "tools",
    "no-tools",
];

/// The row of this pass.
pub(super) const KIND: Kind = Kind {
    name: "unsupported-parameter",
    summary: "sets, defaults, removes, renames or clamps request parameters",
    params: &[
        Param {
            name: "op",
            kind: ParamKind::Choice(&["clamp", "default", "remove", "rename", "set"]),
            required: true,
            doc: "what to do",
        },
        Param {
            name: "path",
            kind: ParamKind::Text,
            required: true,
            doc: "a top-level key, or two keys joined by a dot",
        },
        Param {
            name: "value",
            kind: ParamKind::Value,
            required: false,
            doc: "the value for set and default",
        },
        Param {
            name: "to",
            kind: ParamKind::Text,
            required: false,
            doc: "the new key for rename",
        },
        Param {
            name: "min",
            kind: ParamKind::Value,
            required: false,
            doc: "the least value for clamp",
        },
        Param {
            name: "max",
            kind: ParamKind::Value,
            required: false,
            doc: "the greatest value for clamp",
        },
        Param {
            name: "when",
            kind: ParamKind::Choice(WHEN),
            required: false,
            doc: "a condition on the same request",
        },
    ],
    per: &["path", "when"],
    build,
};

#[derive(Debug)]
struct Rule {
    path: Path,
    op: Op,
    when: Option<String>,
}

#[derive(Debug)]
struct Path {
    parent: Option<String>,
    key: String,
}

#[derive(Debug)]
enum Op {
    Clamp { min: f64, max: f64 },
    Default(Json),
    Remove,
    Rename(String),
    Set(Json),
}

fn build(params: &Params) -> Result<Arc<dyn Pass>, String> {
    let path = Path::parse(params.text("path").unwrap_or_default())?;
    let value = || {
        params
            .value("value")
            .cloned()
            .ok_or_else(|| "expected `value` in a rule that sets, got none".to_owned())
    };
    let bound = |name: &str, open: f64| match params.value(name) {
        None => Ok(open),
        Some(value) => value.as_f64().ok_or_else(|| {
            format!("expected a number for `{name}` in a rule that clamps, got {value}")
        }),
    };
    let op = match params.text("op") {
        Some("clamp") => {
            let (min, max) = (
                bound("min", f64::NEG_INFINITY)?,
                bound("max", f64::INFINITY)?,
            );
            if min > max || (min.is_infinite() && max.is_infinite()) {
                return Err(
                    "expected `min` or `max` in a rule that clamps, min not above max".into(),
                );
            }
            Op::Clamp { min, max }
        }
        Some("default") => Op::Default(value()?),
        Some("set") => Op::Set(value()?),
        Some("rename") => Op::Rename(
            params
                .text("to")
                .ok_or("expected `to` in a rule that renames, got none")?
                .to_owned(),
        ),
        _ => Op::Remove,
    };
    Ok(Arc::new(Rule {
        path,
        op,
        when: params.text("when").map(str::to_owned),
    }))
}

impl Pass for Rule {
    fn ask(&self, ask: &mut Ask<'_>, scene: &mut Scene<'_>) -> Result<(), Fault> {
        if self.when.as_deref().is_none_or(|when| holds(when, ask))
            && let Some(what) = self.apply(ask.root_mut())
        {
            scene.notes.add(what, At::root());
        }
        Ok(())
    }
}

fn holds(when: &str, ask: &Ask<'_>) -> bool {
    let raw = |key: &str| ask.root().get(key).and_then(Value::raw);
    let has_tools = raw("tools").is_some_and(|tools| {
        tools != "null" && !tools.trim_matches(['[', ']', ' ', '\n']).is_empty()
    });
    match when {
        "stream" => ask.stream(),
        "no-stream" => !ask.stream(),
        "thinking-disabled" => ask.thinking_disabled(),
        "thinking-not-disabled" => !ask.thinking_disabled(),
        "tool-choice-pinned" => raw("tool_choice")
            .is_some_and(|choice| !matches!(choice, "null" | "\"auto\"" | "\"none\"")),
        "tools" => has_tools,
        "no-tools" => !has_tools,
        _ => false,
    }
}

impl Rule {
    /// Applies the rule; what it did, if anything.
    fn apply(&self, root: &mut Object<'_>) -> Option<What> {
        let key = self.path.key.as_str();
        let creates = matches!(self.op, Op::Default(_) | Op::Set(_));
        let object = match &self.path.parent {
            None => root,
            Some(parent) => {
                if creates && root.get(parent).is_none_or(Value::is_null) {
                    root.set(parent, "{}".into());
                }
                root.get_mut(parent)?.open()?
            }
        };
        match &self.op {
            Op::Clamp { min, max } => {
                let number: f64 = object.get(key)?.raw()?.parse().ok()?;
                let clamped = number.clamp(*min, *max);
                if clamped == number {
                    return None;
                }
                object.set(key, Json::from(clamped).to_string());
                Some(What::Clamped)
            }
            Op::Default(value) => {
                if object.get(key).is_some() {
                    return None;
                }
                object.set(key, value.to_string());
                Some(What::Set)
            }
            Op::Remove => object.remove(key).then_some(What::Removed),
            Op::Rename(to) => {
                // The name the provider takes is there already: the other must go.
                if object.get(to).is_some() {
                    return object.remove(key).then_some(What::Removed);
                }
                object.rename(key, to).then_some(What::Renamed)
            }
            Op::Set(value) => {
                let json = value.to_string();
                if object.get(key).and_then(Value::raw) == Some(json.as_str()) {
                    return None;
                }
                object.set(key, json);
                Some(What::Set)
            }
        }
    }
}

impl Path {
    fn parse(text: &str) -> Result<Self, String> {
        match text.split('.').collect::<Vec<_>>().as_slice() {
            [key] if !key.is_empty() => Ok(Self {
                parent: None,
                key: (*key).into(),
            }),
            [parent, key] if !parent.is_empty() && !key.is_empty() => Ok(Self {
                parent: Some((*parent).into()),
                key: (*key).into(),
            }),
            _ => Err(format!(
                "expected a key, or two joined by a dot, as `path`, got {text:?}"
            )),
        }
    }
}
