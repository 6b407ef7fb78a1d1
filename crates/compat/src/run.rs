//! Drives the passes of one reply, and knows its four endings.
//!
//! ```text
//! upstream bytes ─▶ Framer ─▶ passes ─▶ Recorder ─▶ Step::Forward · Step::Commit ─▶ client · ledger
//! ```
//!
//! # Guarantees
//! * How the bytes were cut makes no difference (I5).
//! * A [`Step::Commit`] stands before the first byte that tells the client that the
//!   turn is over: its finish reason, `[DONE]`, or the end of the body.
//! * Each ending leaves a well-formed stream (I7): a stream cut off upstream ends
//!   in one error event and without `[DONE]`; the fragment of an event is dropped.
//! * An event no pass has edited leaves as the bytes it came in.
//!
//! Nothing here assumes a dialect beyond the framing: what an event means is the
//! business of `wire` and the passes.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;

use crate::fault::{Blame, Fault};
use crate::passes::event::{Placed, Sink, feed, finish};
use crate::passes::{Event, Ids, Needs, Note, Out, StreamPass};
use crate::plan::{Recording, Reply};
use crate::wire::calls::Calls;
use crate::wire::canonical;
use crate::wire::chat::{self, Choice};
use crate::wire::json::{List, Object, Value, unquote};
use crate::wire::sse::{self, Frame, Framer, Oversized};
use crate::wire::turn::{Replayed, Turn, TurnCall, minted_key};

pub use crate::passes::event::{End, Step};
pub use crate::wire::turn::TurnRecord;

/// The name the recorder goes by where passes are named.
const RECORDER: &str = "turn-record";

/// What is kept of one choice at the most. A turn beyond it is not remembered: no
/// model says that much, and a stream that never ends must not fill the memory.
const MAX_HEARD_BYTES: usize = 8 * 1024 * 1024;

/// Reply fields that clients lose, kept as they came.
const KEPT: &[&str] = &["reasoning_content", "reasoning"];

/// A streamed reply under way.
#[derive(Debug)]
pub struct StreamRun {
    framer: Framer,
    frames: Vec<Frame>,
    placed: Vec<Placed>,
    sink: Sink,
    state: State,
    /// The choices that have begun, and whether each has told why it ended.
    choices: BTreeMap<u64, bool>,
}

/// A whole JSON reply.
#[derive(Debug)]
pub struct JsonRun {
    placed: Vec<Placed>,
}

/// A whole JSON reply, ready for the client.
#[derive(Debug)]
pub struct Finished {
    /// To be stored before the body is sent.
    pub commit: Vec<TurnRecord>,
    /// The body for the client.
    pub body: Bytes,
    /// What was done to it.
    pub notes: Vec<Note>,
}

/// How a stream stands, or has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The client left.
    ClientGone,
    /// The turn was told to its end.
    Complete,
    /// The upstream reported an error, or the transport failed.
    Failed,
    /// The end of the turn never came.
    Truncated,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing has told the end of the turn yet.
    Open,
    /// The end of the turn was told.
    Told(Told),
    /// The upstream reported an error in the stream.
    Reported,
    /// A fault of a pass or the framing has ended the stream.
    Broken,
    Ended(Outcome),
}

/// By what the end of a turn is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// By `[DONE]`.
    Done,
    /// By the finish reason of each choice that has begun.
    Finish,
}

impl Reply {
    /// Reads the reply as a stream of events.
    pub fn into_stream(self) -> StreamRun {
        StreamRun {
            framer: Framer::default(),
            frames: Vec::new(),
            placed: self.line(),
            sink: Sink::default(),
            state: State::Open,
            choices: BTreeMap::new(),
        }
    }

    /// Reads the reply as one JSON body.
    pub fn into_json(self) -> JsonRun {
        JsonRun {
            placed: self.line(),
        }
    }

    fn line(self) -> Vec<Placed> {
        let mut placed = self.placed;
        if let Some(recording) = self.record {
            placed.push(Placed {
                manifest: Arc::from(""),
                name: RECORDER,
                pass: Box::new(Recorder {
                    recording,
                    choices: BTreeMap::new(),
                }),
            });
        }
        placed
    }
}

// === impl StreamRun ===

impl StreamRun {
    /// Takes the next bytes of the upstream's body, in pieces of any size.
    ///
    /// # Errors
    /// The upstream's or our own [`Fault`]. The steps hold an error event already;
    /// nothing more is to be pushed, and [`Self::end`] must still be called.
    pub fn push(&mut self, bytes: Bytes, out: &mut Vec<Step>) -> Result<(), Fault> {
        if self.state == State::Broken {
            return Ok(());
        }
        let mut frames = std::mem::take(&mut self.frames);
        let framed = self.framer.push(bytes, &mut frames);
        let mut done = frames.drain(..).try_for_each(|frame| self.frame(frame));
        self.frames = frames;
        done = done.and_then(|()| framed.map_err(too_large));
        if let Err(fault) = &done {
            self.state = State::Broken;
            // What was said so far is remembered, however it ended; nothing more is told.
            let kept = self.sink.steps.len();
            drop(finish(&mut self.placed, End::ClientGone, &mut self.sink));
            let ended = self.sink.steps.split_off(kept).into_iter();
            let commits = ended.filter(|step| matches!(step, Step::Commit(_)));
            self.sink.steps.extend(commits);
            self.sink.steps.push(Step::Forward(error_event(fault)));
        }
        out.append(&mut self.sink.steps);
        done
    }

    /// The upstream's body, or the client, has come to an end.
    pub fn end(&mut self, end: End, out: &mut Vec<Step>) {
        self.end_because(end, None, out);
    }

    /// The same, with what the client is told of a turn that was not completed.
    pub fn end_because(&mut self, end: End, why: Option<Fault>, out: &mut Vec<Step>) {
        if matches!(self.state, State::Ended(_)) {
            return;
        }
        let last = if end == End::Clean {
            self.framer.finish()
        } else {
            None
        };
        let last = last.filter(|frame| self.state != State::Broken && is_whole(frame));
        let start = self.sink.steps.len();
        let mut fault = last.and_then(|frame| self.frame(frame).err());
        let outcome = self.outcome_of(end);
        // To a pass, a body that ended before the turn did is a truncated one.
        let told = if outcome == Outcome::Truncated {
            End::Truncated
        } else {
            end
        };
        if self.state != State::Broken {
            let finished = finish(&mut self.placed, told, &mut self.sink);
            fault = fault
                .or_else(|| finished.err())
                .or_else(|| cut_off(outcome, end, self.state).map(|plain| why.unwrap_or(plain)));
            if let Some(fault) = fault {
                self.sink.steps.push(Step::Forward(error_event(&fault)));
            }
            close_events(&mut self.sink.steps, start);
        }
        if outcome == Outcome::ClientGone {
            self.sink
                .steps
                .retain(|step| matches!(step, Step::Commit(_)));
        }
        self.state = State::Ended(outcome);
        out.append(&mut self.sink.steps);
    }

    /// How the stream has ended; as it stands, while it has not.
    pub fn outcome(&self) -> Outcome {
        match self.state {
            State::Ended(outcome) => outcome,
            State::Told(_) => Outcome::Complete,
            State::Broken | State::Reported => Outcome::Failed,
            State::Open => Outcome::Truncated,
        }
    }

    /// What was done so far, taken out.
    pub fn take_notes(&mut self) -> Vec<Note> {
        self.sink.take_notes()
    }

    fn outcome_of(&self, end: End) -> Outcome {
        match (end, self.state) {
            (End::ClientGone, _) => Outcome::ClientGone,
            (_, State::Broken | State::Reported) => Outcome::Failed,
            (_, State::Told(_)) => Outcome::Complete,
            (End::Failed, _) => Outcome::Failed,
            (End::Clean | End::Truncated, _) => Outcome::Truncated,
        }
    }

    fn frame(&mut self, frame: Frame) -> Result<(), Fault> {
        let raw = match frame {
            Frame::Event(raw) => raw,
            Frame::Idle(raw) => {
                self.sink.steps.push(Step::Forward(raw));
                return Ok(());
            }
        };
        let Some(data) = sse::data(&raw) else {
            self.sink.steps.push(Step::Forward(raw));
            return Ok(());
        };
        let mut event = Event::of_frame(&raw, &data);
        self.watch(&mut event, &data);
        feed(&mut self.placed, event, &mut self.sink)
    }

    /// Notes what tells the end of the turn.
    fn watch(&mut self, event: &mut Event<'_>, data: &[u8]) {
        let state = match event {
            Event::Done(_) => State::Told(Told::Done),
            Event::Chunk { chunk, .. } => {
                let mut failed = chunk.has_error();
                for choice in chunk.choices() {
                    let reason = choice.finish();
                    failed |= reason.as_deref() == Some("error");
                    *self.choices.entry(choice.index()).or_default() |= reason.is_some();
                }
                let told = !self.choices.is_empty() && self.choices.values().all(|told| *told);
                match (failed, told) {
                    (true, _) => State::Reported,
                    (false, true) => State::Told(Told::Finish),
                    (false, false) => State::Open,
                }
            }
            Event::Opaque(_) if is_error(data) => State::Reported,
            Event::Opaque(_) => return,
        };
        // An error stays one, and nothing opens again what [DONE] has closed.
        if !matches!(self.state, State::Reported | State::Told(Told::Done)) {
            self.state = state;
        }
    }
}

/// Gives events from `start` on their blank line, but for the very last: one that came
/// without must not run into what comes after it.
fn close_events(steps: &mut Vec<Step>, start: usize) {
    let mut at = start;
    while at + 1 < steps.len() {
        let closed = match steps.get(at) {
            Some(Step::Forward(bytes)) => [&b"\n\n"[..], b"\r\r", b"\n\r\n"]
                .iter()
                .any(|end| bytes.ends_with(end)),
            Some(Step::Commit(_)) | None => true,
        };
        if !closed {
            steps.insert(at + 1, Step::Forward(Bytes::from_static(b"\n\n")));
        }
        at += 1;
    }
}

/// Whether a last frame without its blank line is an event for all that, and not the
/// beginning of one that was cut off.
fn is_whole(frame: &Frame) -> bool {
    match frame {
        Frame::Idle(_) => true,
        Frame::Event(raw) => sse::data(raw).is_some_and(|data| {
            &*data == b"[DONE]" || serde_json::from_slice::<serde::de::IgnoredAny>(&data).is_ok()
        }),
    }
}

fn too_large(_: Oversized) -> Fault {
    let limit = sse::MAX_EVENT_BYTES;
    let message =
        format!("expected events of at most {limit} bytes from the provider, got a larger one");
    Fault::upstream("event_too_large", message)
}

/// `{"error": …}` in a stream; source: OpenRouter, DashScope and others.
fn is_error(data: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Report {
        error: Option<serde::de::IgnoredAny>,
    }
    serde_json::from_slice::<Report>(data).is_ok_and(|report| report.error.is_some())
}

/// Why the client must not take this stream for a complete one.
fn cut_off(outcome: Outcome, end: End, state: State) -> Option<Fault> {
    let how = match (outcome, end) {
        (Outcome::Truncated, _) => "closed the stream",
        (Outcome::Failed, End::Failed) if state == State::Open => "broke the stream off",
        _ => return None,
    };
    Some(Fault::upstream(
        "stream_truncated",
        format!(
            "expected a finish reason or [DONE] from the provider, but it {how} before the end of the turn"
        ),
    ))
}

/// The error event a stream ends in; the shape SDKs raise as an API error.
fn error_event(fault: &Fault) -> Bytes {
    sse::event(&error_json(fault).to_string())
}

/// `{"error":{…}}` as OpenAI-speaking clients read it.
pub fn error_json(fault: &Fault) -> serde_json::Value {
    let kind = match fault.blame {
        Blame::Client => "invalid_request_error",
        Blame::Upstream => "upstream_error",
        Blame::Us => "farrier_error",
    };
    json!({"error": {"message": fault.message, "type": kind, "param": fault.param, "code": fault.code}})
}

// === impl JsonRun ===

impl JsonRun {
    /// Reads the whole body. One that is not a chat completion passes unchanged, and
    /// so does one a pass cannot deal with.
    pub fn finish(mut self, body: Bytes) -> Finished {
        let mut sink = Sink::default();
        let fed = feed(&mut self.placed, Event::of_body(&body), &mut sink);
        let ended = finish(&mut self.placed, End::Clean, &mut sink);
        let mut commit = Vec::new();
        let mut bodies = Vec::new();
        for step in std::mem::take(&mut sink.steps) {
            match step {
                Step::Commit(record) => commit.push(record),
                Step::Forward(bytes) => bodies.push(bytes),
            }
        }
        let mut bodies = bodies.into_iter();
        let body = match (fed.and(ended), bodies.next(), bodies.next()) {
            (Ok(()), Some(one), None) => one,
            _ => body,
        };
        Finished {
            commit,
            body,
            notes: sink.take_notes(),
        }
    }
}

// === Recorder ===

/// Last in the line: remembers what was said and what the client was given for it.
struct Recorder {
    recording: Recording,
    choices: BTreeMap<u64, Heard>,
}

/// One choice, as far as it has been heard.
#[derive(Default)]
struct Heard {
    /// Field → the inside of its JSON string, fragments run together. Raw, so that a
    /// surrogate pair cut between two fragments is whole again.
    kept: BTreeMap<&'static str, String>,
    /// The inside of the content's JSON string, when somebody will look for it.
    text: String,
    numbers: Calls,
    bytes: usize,
    calls: Vec<HeardCall>,
    /// Something was heard since the last commit.
    fresh: bool,
    finished: bool,
}

#[derive(Default)]
struct HeardCall {
    given: String,
    name: String,
    arguments: String,
}

impl StreamPass for Recorder {
    fn event(&mut self, mut event: Event<'_>, out: &mut Out<'_>) -> Result<(), Fault> {
        match &mut event {
            Event::Chunk { chunk, .. } => {
                for choice in chunk.choices() {
                    self.hear(&choice, out);
                }
            }
            Event::Done(_) => self.commit_all(out),
            Event::Opaque(_) => {}
        }
        out.emit(event)
    }

    fn end(&mut self, _: End, out: &mut Out<'_>) -> Result<(), Fault> {
        // However it ended: what a client was given, it may replay.
        self.commit_all(out);
        Ok(())
    }
}

impl Recorder {
    fn hear(&mut self, choice: &Choice<'_, '_>, out: &mut Out<'_>) {
        let heard = self.choices.entry(choice.index()).or_default();
        if let Some(part) = choice.part() {
            heard.part(part, choice.is_whole(), self.recording.needs);
        }
        if choice.finish().is_some() && !heard.finished {
            heard.finished = true;
            heard.commit(&self.recording, out);
        }
    }

    fn commit_all(&mut self, out: &mut Out<'_>) {
        for heard in self.choices.values_mut() {
            heard.commit(&self.recording, out);
        }
    }
}

impl Heard {
    fn part(&mut self, part: &Object<'_>, whole: bool, needs: Needs) {
        if self.bytes > MAX_HEARD_BYTES {
            return;
        }
        for field in KEPT {
            let inner = inside(part.get(field));
            if !inner.is_empty() {
                self.kept.entry(field).or_default().push_str(inner);
                self.bytes += inner.len();
                self.fresh = true;
            }
        }
        if needs.texts {
            let inner = inside(part.get("content"));
            self.text.push_str(inner);
            self.bytes += inner.len();
            self.fresh |= !inner.is_empty();
        }
        let calls = chat::calls(part).into_iter().flat_map(List::items);
        for (position, call) in calls.filter_map(Value::object).enumerate() {
            let number = if whole {
                position
            } else {
                self.numbers.place(call)
            };
            self.call(number, call);
        }
    }

    fn call(&mut self, number: usize, delta: &Object<'_>) {
        if number >= self.calls.len() {
            self.calls.resize_with(number + 1, HeardCall::default);
        }
        let Some(call) = self.calls.get_mut(number) else {
            return;
        };
        self.fresh = true;
        if let Some(id) = delta.text("id").filter(|id| !id.is_empty()) {
            call.given = id.into_owned();
        }
        if let Some(name) = chat::call_name(delta)
            && call.name != name
        {
            call.name.push_str(&name);
        }
        let raw = chat::call_arguments(delta).unwrap_or_default();
        self.bytes += raw.len();
        match raw.strip_prefix('"').and_then(|raw| raw.strip_suffix('"')) {
            Some(inner) => call.arguments.push_str(inner),
            None if raw.starts_with('{') => call.arguments.push_str(&escaped(raw)),
            None => {}
        }
    }

    /// Stores the turn as it is now known, once for all that was heard.
    fn commit(&mut self, recording: &Recording, out: &mut Out<'_>) {
        if !std::mem::take(&mut self.fresh) || self.bytes > MAX_HEARD_BYTES {
            return;
        }
        let mut turn = Turn::new(recording.origin.clone());
        turn.kept = self
            .kept
            .iter()
            .map(|(field, inner)| ((*field).to_owned(), format!("\"{inner}\"")))
            .collect();
        turn.calls = self.calls.iter().map(|call| call.recorded(out)).collect();
        let keys = self.keys(&turn, recording);
        if !keys.is_empty() {
            out.commit(TurnRecord {
                keys,
                value: turn.encode(),
            });
        }
    }

    fn keys(&self, turn: &Turn, recording: &Recording) -> Vec<crate::wire::turn::TurnKey> {
        if turn.calls.is_empty() {
            let quoted = format!("\"{}\"", self.text);
            let text =
                unquote(&quoted).filter(|text| recording.needs.texts && !text.trim().is_empty());
            return text
                .map(|text| recording.context.text_key(&text))
                .into_iter()
                .collect();
        }
        if recording.needs.ids == Ids::Minted {
            return turn
                .calls
                .iter()
                .map(|call| minted_key(&call.given))
                .collect();
        }
        // A request that replays these calls has each behind those before it.
        let mut context = recording.context;
        turn.calls
            .iter()
            .map(|call| {
                let key = context.call_key(&call.name, &call.arguments);
                context = context.after(&Replayed {
                    id: String::new(),
                    name: call.name.clone(),
                    arguments: call.arguments,
                });
                key
            })
            .collect()
    }
}

impl HeardCall {
    fn recorded(&self, out: &Out<'_>) -> TurnCall {
        let text = format!("\"{}\"", self.arguments);
        let arguments = unquote(&text).unwrap_or_else(|| self.arguments.as_str().into());
        TurnCall {
            native: out.native_of(&self.given).unwrap_or(&self.given).to_owned(),
            given: self.given.clone(),
            name: self.name.clone(),
            arguments: canonical::arguments(&arguments),
        }
    }
}

/// The inside of a JSON string; nothing for any other value.
fn inside<'v>(value: Option<&'v Value<'_>>) -> &'v str {
    value
        .and_then(Value::raw)
        .and_then(|raw| raw.strip_prefix('"')?.strip_suffix('"'))
        .unwrap_or_default()
}

/// JSON text as the inside of a JSON string.
fn escaped(json: &str) -> String {
    let quoted = crate::wire::json::quote(json);
    quoted.trim_matches('"').to_owned()
}
