//! Reasoning lost on replay.
//!
//! * **defect**: thinking models are stateless and want their reasoning back with
//!   every assistant message that carries tool calls; clients drop the field, or
//!   keep only its last fragment, and the provider answers 400
//!   `thinking is enabled but reasoning_content is missing in assistant tool call message at index N`.
//! * **first seen**: kimi-k2-thinking on api.moonshot.ai; kimi-k2.6 with OpenClaw 2026.5.12, May 2026.
//! * **source**: anomalyco/opencode#16318, openclaw/openclaw#70392, CherryHQ/cherry-studio#12619;
//!   truncation to the last fragment: `chat.completions.stream()` of openai-node 6 and 7.
//! * **before**: `{"role":"assistant","content":null,"tool_calls":[T]}`
//! * **after**: `{"role":"assistant","content":null,"tool_calls":[T],"reasoning_content":"<what the model said>"}`
//! * **remove when**: no client in use drops the field, or the provider keeps the state itself.
//!
//! What was said is restored when the field is absent *or differs*. A turn the
//! ledger does not know is a miss: the manifest says whether a placeholder stands
//! in, thinking is switched off for this request, or the request is refused. A
//! miss never overwrites reasoning the client does send.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value as Json};

use super::{At, Ids, Kind, Needs, Param, ParamKind, Params, Pass, Scene, What};
use crate::fault::Fault;
use crate::wire::chat::Ask;
use crate::wire::json::{Object, Value, quote, unquote};

/// The row of this pass.
pub(super) const KIND: Kind = Kind {
    name: "reasoning-lost-on-replay",
    summary: "restores the reasoning a client dropped or cut from the turns it replays",
    params: &[
        Param {
            name: "field",
            kind: ParamKind::Text,
            required: true,
            doc: "the field of the replayed message that must hold the reasoning",
        },
        Param {
            name: "from",
            kind: ParamKind::Texts,
            required: false,
            doc: "the fields of the reply it may have come in, best first; default: `field`",
        },
        Param {
            name: "turns",
            kind: ParamKind::Choice(&["tool-calls", "all"]),
            required: false,
            doc: "which assistant turns need it; default: tool-calls",
        },
        Param {
            name: "onMiss",
            kind: ParamKind::Choice(&["placeholder", "disable-thinking", "fail"]),
            required: true,
            doc: "what to do about a turn the ledger does not know",
        },
        Param {
            name: "placeholder",
            kind: ParamKind::Text,
            required: false,
            doc: "the text that stands in, with onMiss placeholder",
        },
        Param {
            name: "disable",
            kind: ParamKind::Object,
            required: false,
            doc: "the fields set on the request, with onMiss disable-thinking",
        },
    ],
    per: &[],
    build,
};

#[derive(Debug)]
struct ReasoningLost {
    field: String,
    from: Vec<String>,
    all_turns: bool,
    on_miss: OnMiss,
}

#[derive(Debug)]
enum OnMiss {
    DisableThinking(Map<String, Json>),
    Fail,
    Placeholder(String),
}

fn build(params: &Params) -> Result<Arc<dyn Pass>, String> {
    let field = params.text("field").unwrap_or_default().to_owned();
    let mut from = params.texts("from");
    if from.is_empty() {
        from.push(field.clone());
    }
    let on_miss = match params.text("onMiss") {
        Some("placeholder") => OnMiss::Placeholder(
            params
                .text("placeholder")
                .map(quote)
                .ok_or("expected parameter `placeholder` with onMiss placeholder, got none")?,
        ),
        Some("disable-thinking") => OnMiss::DisableThinking(
            params
                .value("disable")
                .and_then(Json::as_object)
                .cloned()
                .ok_or("expected parameter `disable` with onMiss disable-thinking, got none")?,
        ),
        _ => OnMiss::Fail,
    };
    Ok(Arc::new(ReasoningLost {
        field,
        from,
        all_turns: params.text("turns") == Some("all"),
        on_miss,
    }))
}

impl Pass for ReasoningLost {
    fn needs(&self) -> Needs {
        Needs {
            answers: false,
            calls: true,
            texts: self.all_turns,
            ids: Ids::Native,
        }
    }

    fn ask(&self, ask: &mut Ask<'_>, scene: &mut Scene<'_>) -> Result<(), Fault> {
        if ask.thinking_disabled() {
            return Ok(());
        }
        let mut missed = None;
        for (index, message) in ask.messages_mut().enumerate() {
            let Some(said) = scene.survey.said_at(index) else {
                continue;
            };
            let demanded = said.has_calls();
            if !demanded && !self.all_turns {
                continue;
            }
            let hit = scene.recollection.of(said);
            match hit.map(|hit| hit.turn.kept(&self.from)) {
                Some(Some(said)) => self.restore(index, message, said, scene),
                // Said without reasoning, and nothing demands it.
                Some(None) if !demanded => {}
                // Not known: the provider may do without, but the miss is seen.
                None if !demanded => scene.notes.add(What::Missed, At::message(index)),
                _ if self.has_own(message) => scene.notes.add(What::Missed, At::message(index)),
                known => {
                    scene.notes.add(What::Missed, At::message(index));
                    let known = known.is_some();
                    missed.get_or_insert((index, known));
                    if let OnMiss::Placeholder(text) = &self.on_miss {
                        message.set(&self.field, text.clone());
                        scene.notes.add(What::Placeholder, At::message(index));
                    }
                }
            }
        }
        match missed {
            Some(missed) => self.after_miss(missed, ask, scene),
            None => Ok(()),
        }
    }
}

impl ReasoningLost {
    fn restore(&self, index: usize, message: &mut Object<'_>, said: Bytes, scene: &mut Scene<'_>) {
        let what = match message.get(&self.field) {
            Some(now) if is_same(now.raw(), &said) => return,
            Some(now) if !now.is_null() && !now.is_empty_text() => What::Corrected,
            _ => What::Restored,
        };
        message.set_shared(&self.field, said);
        scene.notes.add(what, At::message(index));
    }

    fn has_own(&self, message: &Object<'_>) -> bool {
        message
            .get(&self.field)
            .is_some_and(|value| !value.is_null() && !value.is_empty_text())
    }

    fn after_miss(
        &self,
        (index, known): (usize, bool),
        ask: &mut Ask<'_>,
        scene: &mut Scene<'_>,
    ) -> Result<(), Fault> {
        match &self.on_miss {
            OnMiss::Placeholder(_) => Ok(()),
            OnMiss::DisableThinking(fields) => {
                for (key, value) in fields {
                    merge(ask.root_mut(), key, value);
                }
                scene.notes.add(What::ThinkingDisabled, At::root());
                Ok(())
            }
            OnMiss::Fail if scene.recollection.unavailable => Err(Fault::us(
                "ledger_unavailable",
                format!(
                    "the reasoning of the assistant turn at `messages[{index}]` must be restored, and the turn ledger does not answer; \
                     try again, or see `farrier doctor`"
                ),
            )),
            OnMiss::Fail if known => Err(Fault::client(
                "reasoning_never_said",
                format!(
                    "expected `{}` on the assistant turn at `messages[{index}]`, but the model gave none when it said this; \
                     switch thinking off for this conversation, or start it anew",
                    self.field
                ),
            )
            .at(format!("messages[{index}].{}", self.field))),
            OnMiss::Fail => Err(Fault::client(
                "reasoning_not_in_ledger",
                format!(
                    "expected `{}` on the assistant turn at `messages[{index}]`, got none, and this turn was not recorded for this caller; \
                     send the field back as it came, or start the conversation anew through Farrier",
                    self.field
                ),
            )
            .at(format!("messages[{index}].{}", self.field))),
        }
    }
}

/// Sets `key` to `value`; of an object only the fields it names, so that the caller's
/// own stay.
fn merge(root: &mut Object<'_>, key: &str, value: &Json) {
    let inner = root.get_mut(key).and_then(Value::open);
    match (value.as_object(), inner) {
        (Some(fields), Some(object)) => {
            for (key, value) in fields {
                object.set(key, value.to_string());
            }
        }
        _ => root.set(key, value.to_string()),
    }
}

/// The same text, however it is escaped.
fn is_same(now: Option<&str>, said: &[u8]) -> bool {
    let Some(now) = now else {
        return false;
    };
    let text = || std::str::from_utf8(said).ok().and_then(unquote);
    now.as_bytes() == said || unquote(now).is_some_and(|now| Some(now) == text())
}
