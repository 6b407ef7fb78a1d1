//! Empty fields on replay.
//!
//! * **defect**: providers reject what harnesses send for "nothing": an empty list of tool calls, or
//!   an empty string as content beside tool calls (400 `text content is empty`).
//! * **first seen**: hermes-agent 0.19.0 (`tool_calls: []`, July 2026); kimi-cli replaying the provider's own message.
//! * **source**: MoonshotAI/kimi-cli#2621; hermes-agent's de-duplication of repeated ids.
//! * **before**: `{"role":"assistant","content":"","tool_calls":[T]}` · `{"role":"assistant","content":"x","tool_calls":[]}`
//! * **after**: `{"role":"assistant","tool_calls":[T]}` · `{"role":"assistant","content":"x"}`
//! * **remove when**: the provider takes both.

use std::sync::Arc;

use super::{At, Kind, Param, ParamKind, Params, Pass, Scene, What};
use crate::fault::Fault;
use crate::wire::chat::{self, Ask};
use crate::wire::json::Object;

/// The row of this pass.
pub(super) const KIND: Kind = Kind {
    name: "empty-field-on-replay",
    summary: "takes empty tool-call lists and empty contents out of replayed turns",
    params: &[
        Param {
            name: "emptyToolCalls",
            kind: ParamKind::Choice(&["remove", "keep"]),
            required: false,
            doc: "what becomes of `tool_calls: []`; default: keep",
        },
        Param {
            name: "emptyContent",
            kind: ParamKind::Choice(&["remove", "null", "keep"]),
            required: false,
            doc: "what becomes of empty content beside tool calls; default: keep",
        },
    ],
    per: &[],
    build,
};

#[derive(Debug)]
struct EmptyField {
    remove_calls: bool,
    content: EmptyContent,
}

#[derive(Debug, Clone, Copy)]
enum EmptyContent {
    Keep,
    Null,
    Remove,
}

fn build(params: &Params) -> Result<Arc<dyn Pass>, String> {
    let content = match params.text("emptyContent") {
        Some("remove") => EmptyContent::Remove,
        Some("null") => EmptyContent::Null,
        _ => EmptyContent::Keep,
    };
    Ok(Arc::new(EmptyField {
        remove_calls: params.text("emptyToolCalls") == Some("remove"),
        content,
    }))
}

impl Pass for EmptyField {
    fn ask(&self, ask: &mut Ask<'_>, scene: &mut Scene<'_>) -> Result<(), Fault> {
        for (index, message) in ask.messages_mut().enumerate() {
            if chat::role(message) != "assistant" {
                continue;
            }
            if self.remove_calls && chat::calls(message).is_some_and(|calls| calls.is_empty()) {
                message.remove("tool_calls");
                scene.notes.add(What::Removed, At::message(index));
            }
            if chat::has_calls(message) && is_empty_content(message) {
                self.empty_content(index, message, scene);
            }
        }
        Ok(())
    }
}

impl EmptyField {
    fn empty_content(&self, index: usize, message: &mut Object<'_>, scene: &mut Scene<'_>) {
        match self.content {
            EmptyContent::Keep => return,
            EmptyContent::Null => message.set("content", "null".into()),
            EmptyContent::Remove => drop(message.remove("content")),
        }
        scene.notes.add(What::Removed, At::message(index));
    }
}

fn is_empty_content(message: &Object<'_>) -> bool {
    message
        .get("content")
        .is_some_and(|content| content.is_empty_text() || content.raw().is_some_and(is_empty_list))
}

fn is_empty_list(raw: &str) -> bool {
    raw.strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .is_some_and(|inner| inner.trim().is_empty())
}
