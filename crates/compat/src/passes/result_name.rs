//! Tool result without a name.
//!
//! * **defect**: some models match tool results by the tool's name as well as by id; most
//!   clients never send `name` on `role: tool` messages, and some lose it when a session is resumed.
//! * **first seen**: moonshotai/kimi-k2.6 behind OpenClaw, May 2026.
//! * **source**: NVIDIA/NemoClaw#3046; the compat flag `requiresToolResultName` of pi and OpenClaw.
//! * **before**: `{"role":"tool","tool_call_id":"X","content":"…"}`
//! * **after**: `{"role":"tool","tool_call_id":"X","content":"…","name":"exec"}`
//! * **remove when**: the served chat template no longer renders the name of a tool result.

use std::sync::Arc;

use super::{At, Kind, Needs, Params, Pass, Scene, What};
use crate::fault::Fault;
use crate::wire::chat::Ask;
use crate::wire::json::quote;

/// The row of this pass.
pub(super) const KIND: Kind = Kind {
    name: "tool-result-without-name",
    summary: "gives tool results the name of the tool they answer for",
    params: &[],
    per: &[],
    build,
};

#[derive(Debug)]
struct ResultName;

fn build(_: &Params) -> Result<Arc<dyn Pass>, String> {
    Ok(Arc::new(ResultName))
}

impl Pass for ResultName {
    fn needs(&self) -> Needs {
        Needs {
            answers: true,
            ..Needs::default()
        }
    }

    fn ask(&self, ask: &mut Ask<'_>, scene: &mut Scene<'_>) -> Result<(), Fault> {
        for (index, message) in ask.messages_mut().enumerate() {
            let answered = scene.survey.answered_by(index);
            let Some(call) = answered.and_then(|call| scene.survey.call(call)) else {
                continue;
            };
            let is_named = message.text("name").is_some_and(|name| !name.is_empty());
            if !is_named && !call.name.is_empty() {
                message.set("name", quote(&call.name));
                scene.notes.add(What::Named, At::message(index));
            }
        }
        Ok(())
    }
}
