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
//! * An event no pass has edited leaves as the bytes it came in; neighbours that do are
//!   one slice of what was read.
//! * A chunk that repeats the one before, but for its words, is not parsed, and goes by as
//!   that one did ([`Refrain`]); this changes nothing but the time it takes.
//!
//! Nothing here assumes a dialect beyond the framing: what an event means is the
//! business of `wire` and the passes.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::json;

use crate::fault::{Blame, Fault};
use crate::passes::event::{Placed, Sink, Tells, feed, finish};
use crate::passes::record::Recording;
use crate::passes::{Event, Note};
use crate::plan::Reply;
use crate::wire::refrain::{Refrain, Words};
use crate::wire::sse::{self, Frame, Framer, Oversized};

pub use crate::passes::event::{End, Step};
pub use crate::wire::turn::TurnRecord;

/// A streamed reply under way.
#[derive(Debug)]
pub struct StreamRun {
    framer: Framer,
    line: Line,
}

/// What frames go through.
#[derive(Debug)]
struct Line {
    placed: Vec<Placed>,
    sink: Sink,
    /// The chunk that went by last, where all of the line would let it by again.
    refrain: Refrain,
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
            line: Line {
                placed: self.placed_in_line(),
                sink: Sink::default(),
                refrain: Refrain::default(),
                state: State::Open,
                choices: BTreeMap::new(),
            },
        }
    }

    /// Reads the reply as one JSON body.
    pub fn into_json(self) -> JsonRun {
        JsonRun {
            placed: self.placed_in_line(),
        }
    }

    fn placed_in_line(self) -> Vec<Placed> {
        let mut placed = self.placed;
        placed.extend(self.record.map(Recording::placed));
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
        if self.line.state == State::Broken {
            return Ok(());
        }
        self.line.sink.begin(&bytes);
        self.framer.push(bytes);
        let done = self.frames();
        if let Err(fault) = &done {
            self.line.break_off(fault);
        }
        self.line.sink.drain_into(out);
        done
    }

    /// Sends what was read through the line.
    fn frames(&mut self) -> Result<(), Fault> {
        loop {
            let repeated = self.line.repeats(self.framer.rest());
            self.framer.skip(repeated);
            match self.framer.next_frame()? {
                Some(frame) => self.line.frame(frame)?,
                None => return Ok(()),
            }
        }
    }

    /// The upstream's body, or the client, has come to an end.
    pub fn end(&mut self, end: End, out: &mut Vec<Step>) {
        self.end_because(end, None, out);
    }

    /// The same, with what the client is told of a turn that was not completed.
    pub fn end_because(&mut self, end: End, why: Option<Fault>, out: &mut Vec<Step>) {
        let line = &mut self.line;
        if matches!(line.state, State::Ended(_)) {
            return;
        }
        let last = if end == End::Clean {
            self.framer.finish()
        } else {
            None
        };
        line.end_because(last, end, why);
        line.sink.drain_into(out);
    }

    /// How the stream has ended; as it stands, while it has not.
    pub fn outcome(&self) -> Outcome {
        match self.line.state {
            State::Ended(outcome) => outcome,
            State::Told(_) => Outcome::Complete,
            State::Broken | State::Reported => Outcome::Failed,
            State::Open => Outcome::Truncated,
        }
    }

    /// What was done so far, taken out.
    pub fn take_notes(&mut self) -> Vec<Note> {
        self.line.sink.take_notes()
    }
}

// === impl Line ===

impl Line {
    /// Lets go by what `rest` begins with of the chunk before over again; how long it is.
    fn repeats(&mut self, rest: &[u8]) -> usize {
        let mut length = 0;
        // What that chunk told of the end of the turn, it tells over again.
        while let Some(words) = self.refrain.repeats(rest.get(length..).unwrap_or_default()) {
            tell(&mut self.placed, &words);
            length += words.length;
        }
        if length > 0 {
            let raw = rest.get(..length).unwrap_or_default();
            self.sink.pass(raw, || Bytes::copy_from_slice(raw));
        }
        length
    }

    fn frame(&mut self, frame: Frame) -> Result<(), Fault> {
        let raw = match frame {
            Frame::Event(raw) => raw,
            Frame::Idle(raw) => {
                self.sink.pass(&raw, || raw.clone());
                return Ok(());
            }
        };
        // One that came in several reads was not offered as a repeat yet.
        let repeat = self.refrain.repeats(&raw);
        if let Some(words) = repeat.filter(|words| words.length == raw.len()) {
            tell(&mut self.placed, &words);
            self.sink.pass(&raw, || raw.clone());
            return Ok(());
        }
        let Some(data) = sse::data(&raw) else {
            self.sink.pass(&raw, || raw.clone());
            return Ok(());
        };
        let mut event = Event::of_frame(&raw, &data);
        self.watch(&mut event, &data);
        match &mut event {
            Event::Chunk { chunk, .. } => self.refrain.learn(&raw, chunk),
            Event::Done(_) | Event::Opaque(_) => self.refrain.forget(),
        }
        feed(&mut self.placed, event, &mut self.sink)?;
        if !self
            .placed
            .iter()
            .all(|placed| placed.pass.lets_repeats_by())
        {
            self.refrain.forget();
        }
        Ok(())
    }

    /// Notes what tells the end of the turn.
    fn watch(&mut self, event: &mut Event<'_>, data: &[u8]) {
        let state = match event.tells(data, &mut self.choices) {
            Tells::Done => State::Told(Told::Done),
            Tells::Error => State::Reported,
            Tells::Finish => State::Told(Told::Finish),
            Tells::More => State::Open,
            Tells::Nothing => return,
        };
        // An error stays one, and nothing opens again what [DONE] has closed.
        if !matches!(self.state, State::Reported | State::Told(Told::Done)) {
            self.state = state;
        }
    }

    /// A fault ends the stream. What was said so far is remembered, however it ended;
    /// nothing more is told.
    fn break_off(&mut self, fault: &Fault) {
        self.state = State::Broken;
        let said = self.sink.count_steps();
        drop(finish(&mut self.placed, End::ClientGone, &mut self.sink));
        self.sink.keep_commits(said);
        self.sink.forward(error_event(fault));
    }

    /// Lets go of what is held, and says what the client must be told of the ending.
    fn end_because(&mut self, last: Option<Frame>, end: End, why: Option<Fault>) {
        let last = last.filter(|frame| self.state != State::Broken && is_whole(frame));
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
                self.sink.forward(error_event(&fault));
            }
        }
        self.sink.close_events();
        if outcome == Outcome::ClientGone {
            self.sink.keep_commits(0);
        }
        self.state = State::Ended(outcome);
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
}

fn tell(placed: &mut [Placed], words: &Words<'_>) {
    for placed in placed {
        placed.pass.words(words);
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

impl From<Oversized> for Fault {
    fn from(_: Oversized) -> Self {
        let limit = sse::MAX_EVENT_BYTES;
        let message =
            format!("expected events of at most {limit} bytes from the provider, got a larger one");
        Self::upstream("event_too_large", message)
    }
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
        for step in sink.take_steps() {
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

#[cfg(test)]
#[path = "run/tests.rs"]
mod tests;
