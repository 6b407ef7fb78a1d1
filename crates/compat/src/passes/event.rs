//! The contract of passes over a reply.
//!
//! Events flow through the passes of a plan in order; each may let one go by
//! ([`Out::emit`]), edit it, hold it, or make new ones. There is no I/O, no clock
//! and no waiting. A whole JSON reply is one event whose choices carry `message`
//! in place of `delta`.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use bytes::Bytes;

use super::{At, Note, Notes, What};
use crate::fault::Fault;
use crate::wire::chat::Chunk;
use crate::wire::refrain::Words;
use crate::wire::sse;
use crate::wire::turn::TurnRecord;

/// One event of a reply, on its way to the client.
#[derive(Debug)]
pub enum Event<'e> {
    /// A chunk, or a whole reply.
    Chunk {
        /// Its content, opened.
        chunk: Chunk<'e>,
        /// How it came.
        from: From<'e>,
        /// Whether a pass has edited it.
        edited: bool,
    },
    /// `data: [DONE]`.
    Done(&'e Bytes),
    /// Anything else: an event without choices, or one that is not JSON.
    Opaque(&'e Bytes),
}

/// Where the bytes of a chunk come from.
#[derive(Debug, Clone, Copy)]
pub enum From<'e> {
    /// A frame of the upstream's stream.
    Frame(&'e Bytes),
    /// A whole JSON body.
    Body(&'e Bytes),
    /// A pass made it; the text is its JSON.
    Made(&'e str),
}

/// What an event says about the end of the turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tells {
    /// That it is over: `[DONE]`.
    Done,
    /// That the upstream has failed.
    Error,
    /// Why it is over, for each choice that has begun.
    Finish,
    /// That it goes on.
    More,
    /// Nothing about it.
    Nothing,
}

/// How a stream came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    /// The transport ended as it should.
    Clean,
    /// The transport ended too early.
    Truncated,
    /// The transport failed, or a deadline passed.
    Failed,
    /// The client left.
    ClientGone,
}

/// A pass over one reply.
///
/// # Repeats
/// Most chunks are the one before over again, with other words (see `wire::refrain`: what
/// repeats opens no call, names no id and gives no reason to finish). While every pass
/// [lets repeats by](Self::lets_repeats_by), none is given such a chunk: it goes by, and
/// each pass is told its words.
pub trait StreamPass: Send {
    /// One event in, zero or more out. No I/O, no clock, no waiting.
    ///
    /// # Errors
    /// A [`Fault`] ends the stream with an error event.
    fn event(&mut self, event: Event<'_>, out: &mut Out<'_>) -> Result<(), Fault>;

    /// Whether the pass would let by, as it comes, the chunk it saw last over again, with
    /// whatever words. A pass that reads more of such a chunk than [`Words`] tell must not.
    fn lets_repeats_by(&self) -> bool {
        false
    }

    /// The chunk it saw last goes by over again, with these words. Leaves the pass as
    /// [`Self::event`] would.
    fn words(&mut self, words: &Words<'_>) {
        let _ = words;
    }

    /// The stream is over; emits whatever keeps it well-formed. On
    /// [`End::ClientGone`] nothing is written.
    ///
    /// # Errors
    /// A [`Fault`] while letting go of what was held.
    fn end(&mut self, end: End, out: &mut Out<'_>) -> Result<(), Fault> {
        let _ = (end, out);
        Ok(())
    }
}

/// What the driver has to do next, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Send these bytes to the client.
    Forward(Bytes),
    /// Store this, and wait until it is durable, before anything that follows is
    /// sent.
    Commit(TurnRecord),
}

/// A pass at its place in a plan.
pub struct Placed {
    /// Of which manifest.
    pub manifest: std::sync::Arc<str>,
    /// The pass's name.
    pub name: &'static str,
    /// The pass.
    pub pass: Box<dyn StreamPass>,
}

/// What passes hand on to: the passes after them, and in the end the client.
#[derive(Debug)]
pub struct Out<'o> {
    rest: &'o mut [Placed],
    sink: &'o mut Sink,
    /// Whose notes these are: the passes in `rest` write theirs in between.
    manifest: &'o std::sync::Arc<str>,
    name: &'static str,
}

/// The end of the line.
#[derive(Debug, Default)]
pub struct Sink {
    /// What the driver has to do.
    steps: Vec<Step>,
    /// What is being read, and the part of it that goes to the client as it came and is not
    /// among the steps yet: neighbours leave as one slice.
    read: Bytes,
    as_it_came: Range<usize>,
    notes: Notes,
    /// Ids given to the client → the model's own.
    aliases: HashMap<String, String>,
}

impl std::fmt::Debug for Placed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Placed")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl<'e> Event<'e> {
    /// Reads one frame of a stream.
    pub fn of_frame(frame: &'e Bytes, data: &'e [u8]) -> Self {
        if data == b"[DONE]" {
            return Self::Done(frame);
        }
        match Chunk::parse(data) {
            Some(chunk) => Self::Chunk {
                chunk,
                from: From::Frame(frame),
                edited: false,
            },
            None => Self::Opaque(frame),
        }
    }

    /// Reads a whole JSON body.
    pub fn of_body(body: &'e Bytes) -> Self {
        match Chunk::parse(body) {
            Some(chunk) => Self::Chunk {
                chunk,
                from: From::Body(body),
                edited: false,
            },
            None => Self::Opaque(body),
        }
    }

    /// A chunk made by a pass.
    pub fn made(json: &'e str) -> Option<Self> {
        Some(Self::Chunk {
            chunk: Chunk::parse(json.as_bytes())?,
            from: From::Made(json),
            edited: false,
        })
    }

    /// What this says about the end of the turn. `choices` remembers, for each choice that
    /// has begun, whether it has told why it ended.
    pub fn tells(&mut self, data: &[u8], choices: &mut BTreeMap<u64, bool>) -> Tells {
        let chunk = match self {
            Self::Done(_) => return Tells::Done,
            Self::Opaque(_) if is_error(data) => return Tells::Error,
            Self::Opaque(_) => return Tells::Nothing,
            Self::Chunk { chunk, .. } => chunk,
        };
        let mut failed = chunk.has_error();
        for choice in chunk.choices() {
            let reason = choice.finish();
            failed |= reason.as_deref() == Some("error");
            *choices.entry(choice.index()).or_default() |= reason.is_some();
        }
        let told = !choices.is_empty() && choices.values().all(|told| *told);
        match (failed, told) {
            (true, _) => Tells::Error,
            (false, true) => Tells::Finish,
            (false, false) => Tells::More,
        }
    }

    /// The bytes it came in, if the client is to get those.
    fn as_it_came(&self) -> Option<&'e Bytes> {
        match self {
            Self::Done(raw) | Self::Opaque(raw) => Some(raw),
            Self::Chunk {
                from: From::Frame(raw) | From::Body(raw),
                edited: false,
                ..
            } => Some(raw),
            Self::Chunk { .. } => None,
        }
    }

    /// The bytes the client gets.
    fn into_bytes(self) -> Bytes {
        match self {
            Self::Done(raw) | Self::Opaque(raw) => raw.clone(),
            Self::Chunk {
                chunk,
                from,
                edited,
            } => match (from, edited) {
                (From::Frame(raw) | From::Body(raw), false) => raw.clone(),
                (From::Made(json), false) => sse::event(json),
                (From::Frame(raw), true) => sse::with_segments(raw, chunk.into_segments()),
                (From::Body(_), true) => Bytes::from(chunk.into_segments().to_text()),
                (From::Made(_), true) => sse::event(&chunk.into_segments().to_text()),
            },
        }
    }
}

impl Out<'_> {
    /// Hands an event to the next pass, and so on to the client.
    ///
    /// # Errors
    /// The fault of a pass further on.
    pub fn emit(&mut self, event: Event<'_>) -> Result<(), Fault> {
        feed(self.rest, event, self.sink)
    }

    /// Stores a turn before anything emitted after this reaches the client.
    pub fn commit(&mut self, record: TurnRecord) {
        self.sink.commit(record);
    }

    /// Notes what was done.
    pub fn note(&mut self, what: What, at: At) {
        self.sink.notes.of(self.manifest, self.name);
        self.sink.notes.add(what, at);
    }

    /// From now on the client knows the model's `native` as `given`.
    pub fn alias(&mut self, given: String, native: String) {
        self.sink.aliases.insert(given, native);
    }

    /// The model's own id for one the client was given.
    pub fn native_of(&self, given: &str) -> Option<&str> {
        self.sink.aliases.get(given).map(String::as_str)
    }
}

/// Sends an event through `passes` and into `sink`.
///
/// # Errors
/// The fault of a pass.
pub fn feed(passes: &mut [Placed], event: Event<'_>, sink: &mut Sink) -> Result<(), Fault> {
    let Some((first, rest)) = passes.split_first_mut() else {
        match event.as_it_came() {
            Some(raw) => sink.pass(raw, || raw.clone()),
            None => sink.forward(event.into_bytes()),
        }
        return Ok(());
    };
    let Placed {
        manifest,
        name,
        pass,
    } = first;
    pass.event(
        event,
        &mut Out {
            rest,
            sink,
            manifest,
            name,
        },
    )
}

/// Ends `passes`, each after those before it have let go of what they held.
///
/// # Errors
/// The first fault; the passes after it are ended all the same.
pub fn finish(passes: &mut [Placed], end: End, sink: &mut Sink) -> Result<(), Fault> {
    let mut first_fault = Ok(());
    for index in 0..passes.len() {
        let Some((placed, rest)) = passes
            .get_mut(index..)
            .and_then(<[Placed]>::split_first_mut)
        else {
            break;
        };
        let Placed {
            manifest,
            name,
            pass,
        } = placed;
        let ended = pass.end(
            end,
            &mut Out {
                rest,
                sink,
                manifest,
                name,
            },
        );
        first_fault = first_fault.and(ended);
    }
    first_fault
}

impl Sink {
    /// What comes next is read from `read`.
    pub fn begin(&mut self, read: &Bytes) {
        self.settle();
        self.read = read.clone();
    }

    /// Sends bytes to the client.
    pub fn forward(&mut self, bytes: Bytes) {
        self.settle();
        self.steps.push(Step::Forward(bytes));
    }

    /// Sends whole frames to the client as they came: together with their neighbours, if
    /// they are a part of what is being read, else by themselves.
    pub fn pass(&mut self, raw: &[u8], own: impl FnOnce() -> Bytes) {
        match range_in(&self.read, raw) {
            Some(range) if range.start == self.as_it_came.end => self.as_it_came.end = range.end,
            Some(range) => {
                self.settle();
                self.as_it_came = range;
            }
            None => self.forward(own()),
        }
    }

    /// Takes out what the driver has to do.
    pub fn take_steps(&mut self) -> Vec<Step> {
        self.settle();
        std::mem::take(&mut self.steps)
    }

    /// How many steps there are so far.
    pub fn count_steps(&mut self) -> usize {
        self.settle();
        self.steps.len()
    }

    /// Of the steps from number `from` on keeps what is to be stored: nothing is told.
    pub fn keep_commits(&mut self, from: usize) {
        self.settle();
        let mut number = 0;
        self.steps.retain(|step| {
            number += 1;
            number <= from || matches!(step, Step::Commit(_))
        });
    }

    /// Gives events their blank line, but for the very last: one that came without must not
    /// run into what comes after it.
    pub fn close_events(&mut self) {
        self.settle();
        let mut at = 0;
        while at + 1 < self.steps.len() {
            let closed = match self.steps.get(at) {
                Some(Step::Forward(bytes)) => [&b"\n\n"[..], b"\r\r", b"\n\r\n"]
                    .iter()
                    .any(|end| bytes.ends_with(end)),
                Some(Step::Commit(_)) | None => true,
            };
            if !closed {
                let blank = Step::Forward(Bytes::from_static(b"\n\n"));
                self.steps.insert(at + 1, blank);
            }
            at += 1;
        }
    }

    /// Moves what the driver has to do to `out`; what was read is let go.
    pub fn drain_into(&mut self, out: &mut Vec<Step>) {
        self.settle();
        self.read = Bytes::new();
        out.append(&mut self.steps);
    }

    /// The notes so far, taken out.
    pub fn take_notes(&mut self) -> Vec<Note> {
        self.notes.take()
    }

    fn commit(&mut self, record: TurnRecord) {
        self.settle();
        self.steps.push(Step::Commit(record));
    }

    /// Puts what goes to the client as it came among the steps.
    fn settle(&mut self) {
        let range = std::mem::take(&mut self.as_it_came);
        if !range.is_empty() {
            self.steps.push(Step::Forward(self.read.slice(range)));
        }
    }
}

/// Where in `read` the slice `raw` of it stands.
fn range_in(read: &[u8], raw: &[u8]) -> Option<Range<usize>> {
    let start = (raw.as_ptr() as usize).checked_sub(read.as_ptr() as usize)?;
    let end = start + raw.len();
    (end <= read.len()).then_some(start..end)
}

/// `{"error": …}` in a stream; source: OpenRouter, DashScope and others.
fn is_error(data: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Report {
        error: Option<serde::de::IgnoredAny>,
    }
    serde_json::from_slice::<Report>(data).is_ok_and(|report| report.error.is_some())
}
