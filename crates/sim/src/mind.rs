//! The persona's mind: request bytes in, [`Verdict`] out; no I/O, no clock, no memory.
//!
//! Where a conversation stands is read from the history alone, and not from the last message: one harness appends an
//! internal user message to every request, another inserts assistant texts, a third sends each parallel call as an
//! assistant message of its own. So a turn is over when an assistant text contains the marker of final answers, and a
//! round is over when all its calls are there, in whatever messages.
//!
//! The order of judgement is a provider's:
//!
//! 1. the body is JSON and `messages` a list of objects, else 400;
//! 2. values that the persona refuses (temperature, empty `tool_calls`, empty content, nameless results), else 400;
//! 3. with thinking on, every assistant message with tool calls bears its reasoning, else 400 (kimi-reasoning-content-required);
//! 4. and the right one, else 400; here the persona is stricter than the provider, see [`Options::exact_reasoning`];
//! 5. tool calls come back under the ids the model gave, with the arguments it gave, and results belong to them, else the
//!    model loses the thread: it answers text, `finish_reason: stop`, no calls (kimi-native-tool-id);
//! 6. then the script goes on.
//!
//! It does not judge a history that a harness cut short: ids are counted from the conversation's first call, so such a
//! history loses the thread.

mod ask;
mod replay;
mod script;
mod tools;

#[cfg(test)]
mod tests;

use serde::Serialize;

use crate::options::Options;
use crate::persona::Persona;
use ask::Ask;
use replay::Replay;
use script::Script;

/// What the model makes of one request.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// What reached it; absent when the body was no chat request at all.
    pub heard: Option<Heard>,
    /// What it does.
    pub decision: Decision,
}

/// Answer or refuse.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// The provider refuses; the model never sees the request.
    Refuse(Refusal),
    /// The model speaks.
    Say(Answer),
}

/// Why the model says what it says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Intent {
    /// The script's next tool calls.
    Call,
    /// The script's final text.
    Finish,
    /// It no longer understands its own history.
    LoseThread(Lost),
}

/// One answer, before it is cut and framed.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Why.
    pub intent: Intent,
    /// The completion's id.
    pub id: String,
    /// The model name, as the request asked for it.
    pub model: String,
    /// The thought, when thinking is on: field name and text.
    pub reasoning: Option<(String, String)>,
    /// The text; empty beside tool calls unless the persona has a preamble.
    pub text: String,
    /// The tool calls.
    pub calls: Vec<Call>,
    /// Deterministic, not the provider's arithmetic.
    pub usage: Usage,
    /// How the request wants it.
    pub form: Form,
}

/// One JSON body, or events.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Form {
    /// `stream` absent or false.
    Whole,
    /// `stream: true`.
    Stream {
        /// `stream_options.include_usage`.
        include_usage: bool,
    },
}

/// One tool call.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Call {
    /// Native id.
    pub id: String,
    /// Tool name.
    pub name: String,
    /// JSON text, spaced as Python writes it, so that clients that re-serialise show.
    pub arguments: String,
}

/// Token counts: a quarter of the bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Usage {
    /// From the request body.
    pub prompt: usize,
    /// From everything said.
    pub completion: usize,
    /// The part of `completion` that was thought.
    pub reasoning: usize,
}

/// An OpenAI-shaped error.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// `error.type`.
    pub kind: &'static str,
    /// `error.message`.
    pub message: String,
}

/// Why the model lost the thread.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum Lost {
    /// A call has an id that the model would not have given there.
    NotGiven {
        /// In `messages`.
        index: usize,
        /// What came.
        id: String,
        /// What the model had given; absent when it had made no further call.
        expected: Option<String>,
    },
    /// Two calls have the same id.
    Repeated {
        /// In `messages`.
        index: usize,
        /// The id.
        id: String,
    },
    /// A call has the right id and other arguments.
    OtherArguments {
        /// In `messages`.
        index: usize,
        /// The id.
        id: String,
    },
    /// A round, or a split call, came back in part.
    Incomplete {
        /// The id of the first call that is missing.
        id: String,
    },
    /// A tool result belongs to no call before it, or to one that had its result.
    StrayResult {
        /// In `messages`.
        index: usize,
        /// Its `tool_call_id`, if any.
        id: Option<String>,
    },
}

/// What one request told the model: shapes and names, no contents.
#[derive(Clone, Debug, Serialize)]
pub struct Heard {
    /// The model asked for.
    pub model: Option<String>,
    /// Eight hex digits of the first user message's digest.
    pub conversation: String,
    /// Where the answer belongs: turns count from 1.
    pub turn: u32,
    /// Rounds count from 0.
    pub round: u32,
    /// Whether thinking is on.
    pub thinking: bool,
    /// Whether events are wanted.
    pub stream: bool,
    /// How many messages there were.
    pub messages: usize,
    /// Names of the tools offered.
    pub tools: Vec<String>,
    /// Every assistant message.
    pub assistant: Vec<HeardAssistant>,
    /// Every tool message.
    pub results: Vec<HeardResult>,
}

/// One assistant message as it reached the model.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct HeardAssistant {
    /// In `messages`.
    pub index: usize,
    /// Ids of its tool calls.
    pub ids: Vec<String>,
    /// Its reasoning.
    pub reasoning: HeardReasoning,
}

/// How an assistant message's reasoning came back.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HeardReasoning {
    /// No such field, or empty.
    Absent,
    /// Exactly what the model said there.
    Ok,
    /// There, and nothing to compare it with: a text message, or a call the model never made.
    Present,
    /// There, and not what the model said.
    Wrong,
}

/// One tool message as it reached the model.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct HeardResult {
    /// In `messages`.
    pub index: usize,
    /// Its `tool_call_id`.
    pub id: Option<String>,
    /// Its `name`.
    pub name: Option<String>,
}

/// Judges one request body.
#[must_use]
pub fn answer(persona: &Persona, options: &Options, body: &[u8]) -> Verdict {
    let parsed;
    let ask = match ask::parse(body) {
        Ok(value) => {
            parsed = value;
            Ask::read(&parsed)
        }
        Err(refusal) => Err(refusal),
    };
    let ask = match ask {
        Ok(ask) => ask,
        Err(refusal) => {
            return Verdict {
                heard: None,
                decision: Decision::Refuse(refusal),
            };
        }
    };
    let script = Script::new(persona, options, &ask);
    let replay = Replay::of(&ask, &script);
    let decision = match refusal(persona, options, &ask, &replay) {
        Some(refusal) => Decision::Refuse(refusal),
        None => Decision::Say(script.answer(&ask, &replay, body.len())),
    };
    Verdict {
        heard: Some(replay.into_heard(&ask, &script)),
        decision,
    }
}

/// The first thing that the provider refuses, in its order.
fn refusal(
    persona: &Persona,
    options: &Options,
    ask: &Ask<'_>,
    replay: &Replay<'_>,
) -> Option<Refusal> {
    let rules = &persona.sheet.refusals;
    let text = ask
        .refused_temperature(rules)
        .or_else(|| ask.refused_message(rules))
        .or_else(|| {
            let (template, index) = replay
                .first_reasoning(HeardReasoning::Absent)
                .filter(|_| ask.thinking)
                .and_then(|index| Some((rules.reasoning_missing.as_ref()?, index)))?;
            Some(template.render(&[("index", &index)]))
        })
        .or_else(|| {
            let (template, index) = replay
                .first_reasoning(HeardReasoning::Wrong)
                .filter(|_| ask.thinking && options.exact_reasoning)
                .and_then(|index| Some((rules.reasoning_differs.as_ref()?, index)))?;
            Some(template.render(&[("index", &index)]))
        })?;
    Some(Refusal::invalid(text))
}

impl Answer {
    /// `tool_calls` or `stop`.
    #[must_use]
    pub fn finish_reason(&self) -> &'static str {
        if self.calls.is_empty() {
            "stop"
        } else {
            "tool_calls"
        }
    }
}

impl Refusal {
    /// A 400 `invalid_request_error`.
    pub(crate) fn invalid(message: String) -> Self {
        Self {
            status: 400,
            kind: "invalid_request_error",
            message,
        }
    }
}
