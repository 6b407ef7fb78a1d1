//! What happened, as data: `farrier demo --json` prints it, [`show`](mod@super::show) draws it.

use farrier_sim::Entry;
use farrier_sim::mind::{Heard, HeardReasoning};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The demonstration as a whole.
#[derive(Debug, Serialize)]
pub(crate) struct Demonstration {
    pub(crate) persona: String,
    /// What the persona is, in a sentence.
    pub(crate) description: String,
    pub(crate) agent: &'static str,
    pub(crate) task: &'static str,
    pub(crate) straight: Trajectory,
    pub(crate) through: Trajectory,
    /// Whether the first failed as it must and the second finished.
    pub(crate) as_expected: bool,
    /// What was different, if anything was.
    pub(crate) differences: Vec<String>,
}

/// One run of the client.
#[derive(Debug, Serialize)]
pub(crate) struct Trajectory {
    pub(crate) base_url: String,
    /// The name the client asks for.
    pub(crate) model: String,
    pub(crate) exchanges: Vec<Exchange>,
}

/// One request and its answer.
#[derive(Debug, Serialize)]
pub(crate) struct Exchange {
    /// The history as the client sent it.
    pub(crate) sent: History,
    /// The history as it reached the model.
    pub(crate) received: Option<History>,
    /// What passes did in between.
    pub(crate) notes: Vec<Note>,
    /// What the client was given.
    pub(crate) answer: Answer,
}

/// The model's turns so far, and the results of its calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct History {
    pub(crate) turns: Vec<Turn>,
    pub(crate) results: Vec<ToolResult>,
}

/// One assistant message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Turn {
    pub(crate) reasoning: Reasoning,
    pub(crate) ids: Vec<String>,
}

/// What became of a turn's reasoning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reasoning {
    Lost,
    /// There; nobody compared it.
    Present,
    /// There, and another than the model's.
    Wrong,
    /// Word for word the model's.
    Whole,
}

/// One tool message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ToolResult {
    pub(crate) id: String,
    pub(crate) name: Option<String>,
}

/// Something that a pass did, as the gateway's transcript says.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Note {
    pub(crate) manifest: String,
    pub(crate) pass: String,
    pub(crate) what: String,
    pub(crate) at: String,
}

/// What the client was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Answer {
    Calls { calls: Vec<Call> },
    Refused { status: u16, message: String },
    Text { text: String },
}

/// A tool call, as the client was given it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Call {
    pub(crate) id: String,
    pub(crate) name: String,
    /// What it is to run.
    pub(crate) command: String,
    #[serde(skip)]
    pub(super) arguments: String,
}

// === impl Trajectory ===

impl Trajectory {
    /// The last answer.
    pub(crate) fn outcome(&self) -> Option<&Answer> {
        self.exchanges.last().map(|exchange| &exchange.answer)
    }

    /// Adds what the model received.
    pub(super) fn heard(&mut self, entries: &[Entry]) {
        for (exchange, entry) in self.exchanges.iter_mut().zip(entries) {
            exchange.received = entry.heard.as_ref().map(History::of_heard);
        }
    }

    /// Adds what passes did.
    pub(super) fn noted(&mut self, notes: Vec<Vec<Note>>) {
        for (exchange, notes) in self.exchanges.iter_mut().zip(notes) {
            exchange.notes = notes;
        }
    }
}

// === impl History ===

impl History {
    /// As the messages of a request have it.
    pub(super) fn of_messages(messages: &[Value]) -> Self {
        let mut history = Self::default();
        for message in messages {
            match message["role"].as_str() {
                Some("assistant") => history.turns.push(Turn::of_message(message)),
                Some("tool") => history.results.push(ToolResult {
                    id: message["tool_call_id"]
                        .as_str()
                        .unwrap_or_default()
                        .to_owned(),
                    name: message["name"].as_str().map(str::to_owned),
                }),
                _ => {}
            }
        }
        history
    }

    fn of_heard(heard: &Heard) -> Self {
        let turns = heard.assistant.iter().map(|turn| Turn {
            reasoning: match turn.reasoning {
                HeardReasoning::Absent => Reasoning::Lost,
                HeardReasoning::Ok => Reasoning::Whole,
                HeardReasoning::Present => Reasoning::Present,
                HeardReasoning::Wrong => Reasoning::Wrong,
            },
            ids: turn.ids.clone(),
        });
        let results = heard.results.iter().map(|result| ToolResult {
            id: result.id.clone().unwrap_or_default(),
            name: result.name.clone(),
        });
        Self {
            turns: turns.collect(),
            results: results.collect(),
        }
    }
}

impl Turn {
    fn of_message(message: &Value) -> Self {
        let fields = ["reasoning_content", "reasoning"];
        let reasoned = fields.iter().any(|field| message[field].is_string());
        let calls = message["tool_calls"].as_array().into_iter().flatten();
        Self {
            reasoning: if reasoned {
                Reasoning::Present
            } else {
                Reasoning::Lost
            },
            ids: calls
                .filter_map(|call| call["id"].as_str())
                .map(str::to_owned)
                .collect(),
        }
    }
}
