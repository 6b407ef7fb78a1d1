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
    /// Each bound as a number and as the manifest spells it.
    Clamp {
        min: Option<(f64, String)>,
        max: Option<(f64, String)>,
    },
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
    let bound = |name: &str| match params.value(name) {
        None => Ok(None),
        Some(value) => value
            .as_f64()
            .map(|number| Some((number, value.to_string())))
            .ok_or_else(|| {
                format!("expected a number for `{name}` in a rule that clamps, got {value}")
            }),
    };
    let op = match params.text("op") {
        Some("clamp") => {
            let (min, max) = (bound("min")?, bound("max")?);
            let crossed = matches!((&min, &max), (Some(min), Some(max)) if min.0 > max.0);
            if crossed || (min.is_none() && max.is_none()) {
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
                let below = min.as_ref().filter(|(min, _)| number < *min);
                let above = max.as_ref().filter(|(max, _)| number > *max);
                let (_, bound) = below.or(above)?;
                object.set(key, bound.clone());
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::passes::{Mint, Needs, Notes, Recollection, Survey};

    /// What `rule` makes of a request with these fields, and what it noted.
    fn after(rule: Json, fields: &str) -> (String, Vec<&'static str>) {
        let params =
            Params::check(rule.as_object().expect("an object"), KIND.params).expect("fits");
        let pass = (KIND.build)(&params).expect("builds");
        let body = format!("{{\"messages\":[]{fields}}}");
        let mut ask = Ask::parse(body.as_bytes()).expect("a request");
        let survey = Survey::of(&ask, Needs::default());
        let mut notes = Notes::default();
        let mut scene = Scene {
            survey: &survey,
            recollection: &Recollection::default(),
            origin: "p/m",
            mint: Mint::new([0; 16]),
            notes: &mut notes,
        };
        pass.ask(&mut ask, &mut scene).expect("no fault");
        let text = ask.into_segments().to_text();
        let fields = text
            .strip_prefix("{\"messages\":[]")
            .and_then(|rest| rest.strip_suffix('}'));
        let whats = notes.take().iter().map(|note| note.what.as_str()).collect();
        (fields.expect("the rest stays").to_owned(), whats)
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn each_operation_does_what_it_says_and_no_more() {
        let cases = [
            (
                json!({"op": "remove", "path": "temperature"}),
                r#","temperature":0.7,"n":1.0"#,
                r#","n":1.0"#,
                &["removed"][..],
            ),
            (
                json!({"op": "remove", "path": "temperature"}),
                r#","n":1.0"#,
                r#","n":1.0"#,
                &[],
            ),
            (
                json!({"op": "set", "path": "n", "value": 2}),
                r#","n":1.0"#,
                r#","n":2"#,
                &["set"],
            ),
            (
                json!({"op": "set", "path": "n", "value": 2}),
                r#","n":2"#,
                r#","n":2"#,
                &[],
            ),
            (
                json!({"op": "default", "path": "n", "value": 2}),
                r#","n":1.0"#,
                r#","n":1.0"#,
                &[],
            ),
            (
                json!({"op": "default", "path": "n", "value": 2}),
                "",
                r#","n":2"#,
                &["set"],
            ),
            (
                json!({"op": "rename", "path": "max_tokens", "to": "max_completion_tokens"}),
                r#", "max_tokens" : 7"#,
                r#","max_completion_tokens":7"#,
                &["renamed"],
            ),
            (
                json!({"op": "rename", "path": "a", "to": "b"}),
                r#","a":1,"b":2"#,
                r#","b":2"#,
                &["removed"],
            ),
            (
                json!({"op": "clamp", "path": "t", "min": 0.5, "max": 1}),
                r#","t":1e3"#,
                r#","t":1"#,
                &["clamped"],
            ),
            (
                json!({"op": "clamp", "path": "t", "min": 0.5}),
                r#","t":0"#,
                r#","t":0.5"#,
                &["clamped"],
            ),
            (
                json!({"op": "clamp", "path": "t", "max": 1}),
                r#","t":1.000"#,
                r#","t":1.000"#,
                &[],
            ),
            (
                json!({"op": "clamp", "path": "t", "max": 1}),
                r#","t":"x""#,
                r#","t":"x""#,
                &[],
            ),
            (
                json!({"op": "set", "path": "k.thinking", "value": false}),
                r#","k":{"a":1.0}"#,
                r#","k":{"a":1.0,"thinking":false}"#,
                &["set"],
            ),
            (
                json!({"op": "set", "path": "k.thinking", "value": false}),
                "",
                r#","k":{"thinking":false}"#,
                &["set"],
            ),
            (
                json!({"op": "remove", "path": "k.a"}),
                r#","k":{"a":1.0}"#,
                r#","k":{}"#,
                &["removed"],
            ),
            (
                json!({"op": "remove", "path": "k.a"}),
                r#","k":[1]"#,
                r#","k":[1]"#,
                &[],
            ),
        ];
        for (rule, before, want, whats) in cases {
            assert_eq!(
                after(rule.clone(), before),
                (want.to_owned(), whats.to_vec()),
                "{rule} {before}"
            );
        }
    }

    #[test]
    fn a_rule_with_a_condition_waits_for_it() {
        let cases = [
            ("stream", r#","stream":true"#, true),
            ("no-stream", r#","stream":true"#, false),
            ("no-stream", "", true),
            (
                "thinking-disabled",
                r#","thinking":{"type":"disabled"}"#,
                true,
            ),
            (
                "thinking-not-disabled",
                r#","thinking":{"type":"disabled"}"#,
                false,
            ),
            ("tools", r#","tools":[{"type":"function"}]"#, true),
            ("tools", r#","tools":[ ]"#, false),
            ("no-tools", r#","tools":null"#, true),
            ("tool-choice-pinned", r#","tool_choice":"auto""#, false),
            (
                "tool-choice-pinned",
                r#","tool_choice":{"type":"function"}"#,
                true,
            ),
            ("tool-choice-pinned", "", false),
        ];
        for (when, fields, holds) in cases {
            let (_, whats) = after(
                json!({"op": "set", "path": "x", "value": 1, "when": when}),
                fields,
            );
            assert_eq!(!whats.is_empty(), holds, "{when} {fields}");
        }
    }

    #[test]
    fn a_rule_that_cannot_be_meant_is_refused() {
        let cases = [
            (
                json!({"op": "set", "path": "n"}),
                "expected `value` in a rule that sets, got none",
            ),
            (
                json!({"op": "rename", "path": "n"}),
                "expected `to` in a rule that renames, got none",
            ),
            (
                json!({"op": "clamp", "path": "n"}),
                "expected `min` or `max` in a rule that clamps, min not above max",
            ),
            (
                json!({"op": "clamp", "path": "n", "min": 2, "max": 1}),
                "expected `min` or `max` in a rule that clamps, min not above max",
            ),
            (
                json!({"op": "clamp", "path": "n", "min": "1"}),
                "expected a number for `min` in a rule that clamps, got \"1\"",
            ),
            (
                json!({"op": "remove", "path": "a.b.c"}),
                "expected a key, or two joined by a dot, as `path`, got \"a.b.c\"",
            ),
            (
                json!({"op": "remove", "path": "a."}),
                "expected a key, or two joined by a dot, as `path`, got \"a.\"",
            ),
        ];
        for (rule, message) in cases {
            let params =
                Params::check(rule.as_object().expect("an object"), KIND.params).expect("fits");
            assert_eq!((KIND.build)(&params).map(|_| ()), Err(message.to_owned()));
        }
    }
}
