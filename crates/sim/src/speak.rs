//! From an [`Answer`] to what goes over the wire; pure.
//!
//! In: a decision and a [`Behaviour`]. Out: [`Spoken`], a status, headers, and the [`Step`]s of the body: bytes to write,
//! pauses, and how it ends. The bytes of an answer do not depend on how they are cut: joined, the writes are the same for
//! every `chunk_bytes`.
//!
//! A stream is: a chunk with the role, deltas of reasoning, of text, then each call (a delta with id, name and empty
//! arguments, then argument fragments), a chunk with the finish reason, the usage chunk if asked for, `[DONE]`.

use std::collections::VecDeque;
use std::io::Write as _;
use std::num::NonZeroUsize;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Map, Value, json};

use crate::behaviour::{Behaviour, CallOrder, Fault};
use crate::mind::{Answer, Call, Decision, Form, Refusal, Usage};

/// `created` of every completion: the persona has no clock.
const CREATED: u64 = 1_777_000_000;
/// Seconds in `retry-after`.
const RETRY_AFTER: &str = "7";
const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream; charset=utf-8";

/// A response, ready to be written step by step.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Spoken {
    /// HTTP status.
    pub status: u16,
    /// Header names and values.
    pub headers: Vec<(&'static str, &'static str)>,
    steps: VecDeque<Step>,
    chunk_bytes: Option<NonZeroUsize>,
}

/// One step of a body.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// Break the connection.
    Abort,
    /// Wait.
    Pause(Duration),
    /// Say nothing until released.
    Stall,
    /// Write, and flush.
    Write(Bytes),
}

/// A decision as a response.
#[must_use]
pub fn say(decision: &Decision, behaviour: &Behaviour) -> Spoken {
    match (behaviour.fault, decision) {
        (Some(Fault::Status(status)), _) => status_fault(status),
        (_, Decision::Refuse(refusal)) => refuse(refusal),
        (Some(Fault::ErrorBody), _) => Spoken::whole(200, &overloaded()),
        (Some(Fault::Garbage), _) => garbage(),
        (_, Decision::Say(answer)) => Narration::of(answer, behaviour).spoken(),
    }
}

/// An OpenAI-shaped error response.
#[must_use]
pub fn refuse(refusal: &Refusal) -> Spoken {
    let error = error_value(&refusal.message, refusal.kind);
    Spoken::whole(refusal.status, &error)
}

/// `GET /v1/models`.
pub(crate) fn models(models: &[String], owner: &str) -> Spoken {
    let list: Vec<Value> = models
        .iter()
        .map(|id| json!({"id": id, "object": "model", "created": CREATED, "owned_by": owner}))
        .collect();
    Spoken::whole(200, &json!({"object": "list", "data": list}))
}

fn status_fault(status: u16) -> Spoken {
    let (message, kind) = match status {
        429 => (
            "you are sending requests too fast, slow down",
            "rate_limit_reached_error",
        ),
        _ => ("the engine is not in the mood", "server_error"),
    };
    let mut spoken = Spoken::whole(status, &error_value(message, kind));
    if matches!(status, 429 | 503) {
        spoken.headers.push(("retry-after", RETRY_AFTER));
    }
    spoken
}

fn garbage() -> Spoken {
    let mut spoken = Spoken::whole(200, &Value::Null);
    spoken.steps = [Step::Write(Bytes::from_static(
        b"<html>\xff\xfe it works!\r\n{\"choices\":[",
    ))]
    .into();
    spoken
}

fn overloaded() -> Value {
    error_value(
        "the engine is currently overloaded, please try again later",
        "engine_overloaded_error",
    )
}

fn error_value(message: &str, kind: &str) -> Value {
    json!({"error": {"message": message, "type": kind, "param": null, "code": null}})
}

impl Spoken {
    /// A JSON body, written at once.
    pub(crate) fn whole(status: u16, body: &Value) -> Self {
        Self {
            status,
            headers: vec![("content-type", JSON)],
            steps: [Step::Write(Bytes::from(body.to_string()))].into(),
            chunk_bytes: None,
        }
    }

    /// The next step, its bytes cut to size.
    pub fn next_step(&mut self) -> Option<Step> {
        let longest = self.chunk_bytes.map_or(usize::MAX, NonZeroUsize::get);
        if let Some(Step::Write(bytes)) = self.steps.front_mut()
            && bytes.len() > longest
        {
            return Some(Step::Write(bytes.split_to(longest)));
        }
        self.steps.pop_front()
    }

    /// Whether no step is left.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.steps.is_empty()
    }

    /// The body's length, when it is a single write.
    #[must_use]
    pub fn exact_length(&self) -> Option<u64> {
        let mut steps = self.steps.iter();
        match (steps.next(), steps.next(), self.chunk_bytes) {
            (Some(Step::Write(bytes)), None, None) => Some(bytes.len() as u64),
            _ => None,
        }
    }
}

/// An answer as a list of payloads: the one JSON body, or the `data` of each event.
struct Narration<'a> {
    payloads: Vec<String>,
    form: Form,
    behaviour: &'a Behaviour,
}

impl<'a> Narration<'a> {
    fn of(answer: &Answer, behaviour: &'a Behaviour) -> Self {
        let mut values = match answer.form {
            Form::Whole => vec![completion(answer)],
            Form::Stream { include_usage } => chunks(answer, include_usage, behaviour),
        };
        pad(&mut values[0], behaviour.first_event_bytes);
        let mut payloads: Vec<String> = values.iter().map(Value::to_string).collect();
        if matches!(answer.form, Form::Stream { .. }) && !behaviour.omit_done {
            payloads.push("[DONE]".to_owned());
        }
        Self {
            payloads,
            form: answer.form,
            behaviour,
        }
    }

    fn spoken(self) -> Spoken {
        let mut headers = match self.form {
            Form::Whole => vec![("content-type", JSON)],
            Form::Stream { .. } => vec![("content-type", EVENTS), ("cache-control", "no-cache")],
        };
        let mut steps = self.steps();
        if self.behaviour.gzip {
            headers.push(("content-encoding", "gzip"));
            steps.retain(|step| !matches!(step, Step::Pause(_)));
            steps = joined(steps).into_iter().map(compressed).collect();
        } else if self.behaviour.chunk_bytes.is_some() {
            steps = joined(steps);
        }
        let chunk_bytes = self.behaviour.chunk_bytes;
        Spoken {
            status: 200,
            headers,
            steps: steps.into(),
            chunk_bytes,
        }
    }

    /// One write for each payload, and what the fault does in their midst.
    fn steps(&self) -> Vec<Step> {
        let all = self.payloads.len();
        let place = |events: u32| usize::try_from(events).map_or(all, |events| events.min(all));
        match self.behaviour.fault {
            Some(Fault::CloseAfter(events)) => {
                let mut steps = self.writes(0..place(events));
                steps.push(Step::Abort);
                steps
            }
            Some(Fault::CloseMidEvent(events)) => {
                let at = place(events);
                let mut steps = self.writes(0..at);
                let event = self.payloads.get(at).map(|payload| self.framed(payload));
                steps.extend(event.map(|event| Step::Write(event.slice(..event.len() / 2))));
                steps.push(Step::Abort);
                steps
            }
            Some(Fault::ErrorAfter(events)) => {
                let before = match self.form {
                    Form::Whole => 0,
                    Form::Stream { .. } => place(events),
                };
                let mut steps = self.writes(0..before);
                steps.push(Step::Write(self.framed(&overloaded().to_string())));
                steps
            }
            Some(Fault::StallAfter(events)) => {
                let mut steps = self.writes(0..place(events));
                steps.push(Step::Stall);
                steps.extend(self.writes(place(events)..all));
                steps
            }
            // The others never come here: they replace the answer, or hold it back whole.
            Some(Fault::ErrorBody | Fault::Garbage | Fault::Never | Fault::Status(_)) | None => {
                self.writes(0..all)
            }
        }
    }

    fn writes(&self, range: std::ops::Range<usize>) -> Vec<Step> {
        let pause = Duration::from_millis(self.behaviour.delay_ms);
        let mut steps = Vec::with_capacity(range.len());
        for at in range {
            if at > 0 && !pause.is_zero() {
                steps.push(Step::Pause(pause));
            }
            steps.push(Step::Write(self.framed(&self.payloads[at])));
        }
        steps
    }

    /// A JSON body as it is; an event as `data: …` and a blank line.
    fn framed(&self, payload: &str) -> Bytes {
        if self.form == Form::Whole {
            return Bytes::copy_from_slice(payload.as_bytes());
        }
        let end = self.behaviour.line_end();
        let comment: &[&[u8]] = match self.behaviour.keep_alive {
            true => &[b": keep-alive", end, end],
            false => &[],
        };
        let event: &[&[u8]] = &[b"data: ", payload.as_bytes(), end, end];
        Bytes::from([comment.concat(), event.concat()].concat())
    }
}

/// Adjacent writes as one, so that cuts need not respect event borders.
fn joined(steps: Vec<Step>) -> Vec<Step> {
    let mut joined = Vec::new();
    let mut run: Vec<u8> = Vec::new();
    for step in steps {
        match step {
            Step::Write(bytes) => run.extend_from_slice(&bytes),
            other => {
                if !run.is_empty() {
                    joined.push(Step::Write(std::mem::take(&mut run).into()));
                }
                joined.push(other);
            }
        }
    }
    if !run.is_empty() {
        joined.push(Step::Write(run.into()));
    }
    joined
}

/// A write as a gzip member of its own; members in a row are one gzip stream.
fn compressed(step: Step) -> Step {
    let Step::Write(bytes) = step else {
        return step;
    };
    let mut member = GzEncoder::new(Vec::new(), Compression::fast());
    let done = member.write_all(&bytes).and_then(|()| member.finish());
    Step::Write(done.expect("compressing into memory cannot fail").into())
}

/// Fills an unknown field until the event has so many bytes.
fn pad(value: &mut Value, bytes: usize) {
    let length = value.to_string().len();
    if length < bytes {
        value["padding"] = Value::String("x".repeat(bytes - length));
    }
}

/// The answer as `chat.completion`.
fn completion(answer: &Answer) -> Value {
    let mut message = Map::new();
    message.insert("role".to_owned(), json!("assistant"));
    message.insert("content".to_owned(), json!(answer.text));
    if let Some((field, thought)) = &answer.reasoning {
        message.insert(field.clone(), json!(thought));
    }
    if !answer.calls.is_empty() {
        let calls: Vec<Value> = answer.calls.iter().map(call).collect();
        message.insert("tool_calls".to_owned(), json!(calls));
    }
    json!({
        "id": answer.id,
        "object": "chat.completion",
        "created": CREATED,
        "model": answer.model,
        "choices": [{"index": 0, "message": message, "finish_reason": answer.finish_reason()}],
        "usage": usage(&answer.usage),
    })
}

fn call(call: &Call) -> Value {
    let function = json!({"name": call.name, "arguments": call.arguments});
    json!({"id": call.id, "type": "function", "function": function})
}

fn usage(usage: &Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    })
}

/// The answer as `chat.completion.chunk`s.
fn chunks(answer: &Answer, include_usage: bool, behaviour: &Behaviour) -> Vec<Value> {
    let size = behaviour.fragment_chars.get();
    let mut deltas = vec![json!({"role": "assistant", "content": ""})];
    if let Some((field, thought)) = &answer.reasoning {
        deltas.extend(fragments(thought, size).map(|piece| json!({field: piece})));
    }
    deltas.extend(fragments(&answer.text, size).map(|piece| json!({"content": piece})));
    deltas.extend(call_deltas(&answer.calls, size, behaviour.call_order));

    let mut chunks: Vec<Value> = deltas
        .into_iter()
        .map(|delta| json!([{"index": 0, "delta": delta, "finish_reason": null}]))
        .map(|choices| chunk(answer, choices))
        .collect();
    let finish = json!([{"index": 0, "delta": {}, "finish_reason": answer.finish_reason()}]);
    chunks.push(chunk(answer, finish));
    if include_usage {
        let mut last = chunk(answer, json!([]));
        last["usage"] = usage(&answer.usage);
        chunks.push(last);
    }
    chunks
}

fn chunk(answer: &Answer, choices: Value) -> Value {
    json!({
        "id": answer.id,
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": answer.model,
        "choices": choices,
    })
}

fn call_deltas(calls: &[Call], size: usize, order: CallOrder) -> Vec<Value> {
    let each = calls
        .iter()
        .enumerate()
        .map(|(index, call)| call_fragments(index, call, size));
    match order {
        CallOrder::Sequential => each.flatten().collect(),
        CallOrder::Interleaved => {
            let mut columns: Vec<VecDeque<Value>> = each.map(VecDeque::from).collect();
            let mut deltas = Vec::new();
            while columns.iter().any(|column| !column.is_empty()) {
                deltas.extend(columns.iter_mut().filter_map(VecDeque::pop_front));
            }
            deltas
        }
    }
}

/// One delta with id and name, then the arguments in pieces.
fn call_fragments(index: usize, call: &Call, size: usize) -> Vec<Value> {
    let function = json!({"name": call.name, "arguments": ""});
    let opening = json!({"index": index, "id": call.id, "type": "function", "function": function});
    let arguments = fragments(&call.arguments, size)
        .map(|piece| json!({"index": index, "function": {"arguments": piece}}));
    std::iter::once(opening)
        .chain(arguments)
        .map(|call| json!({"tool_calls": [call]}))
        .collect()
}

/// The text in pieces of so many characters.
fn fragments(text: &str, size: usize) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let end = rest
            .char_indices()
            .nth(size)
            .map_or(rest.len(), |(at, _)| at);
        let piece;
        (piece, rest) = rest.split_at(end);
        (!piece.is_empty()).then_some(piece)
    })
}

#[cfg(test)]
mod tests;
