//! The split over a stream: one call is held while it is suspected, its fragments
//! judged as they come.
//!
//! ```text
//!            name is another tool, or the text cannot match
//!  Undecided ────────────────────────────────────────────────▶ Forwarded   (released as it came)
//!      │      complete, combined, and: next call · finish · [DONE] · end
//!      └─────────────────────────────────────────────────────▶ Gone        (its pieces were told)
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::{Encoding, MAX_HELD_BYTES, Rule, Verdict, arguments_of, distinct, split_whole};
use crate::fault::Fault;
use crate::passes::event::{End, Event, From, Out, StreamPass};
use crate::passes::{At, What};
use crate::wire::calls::Calls;
use crate::wire::chat::{self, Choice, Chunk, Envelope};
use crate::wire::json::{Object, Value};
use crate::wire::sse;

/// Splits the combined calls of one reply.
pub(super) struct Splitting {
    rule: Arc<Rule>,
    choices: HashMap<u64, Told>,
}

/// What was decided for one choice.
#[derive(Default)]
struct Told {
    choice: u64,
    calls: Calls,
    /// By call number.
    fates: Vec<Fate>,
    /// The numbers of the calls in the chunk at hand.
    placed: Vec<usize>,
    suspect: Option<Suspect>,
    /// Deltas of calls behind the suspect, in order.
    queue: Vec<Delta>,
    held_bytes: usize,
    /// What later indexes move by.
    shift: isize,
    was_split: bool,
    /// Something else than safe calls was said: nothing is a duplicate then.
    mixed: bool,
    /// The safe commands the client has been given.
    commands: Vec<String>,
}

#[derive(Debug, Clone)]
enum Fate {
    /// Goes through; its index moves by this much. A single safe command is still
    /// watched, since an argument may follow that makes it unsafe.
    Forwarded {
        shift: isize,
        watched: Option<String>,
    },
    /// Its pieces were told in its place.
    Gone,
    /// Suspected, or waiting behind a suspect.
    Undecided,
}

/// A call that may be a combined one.
struct Suspect {
    number: usize,
    index: Option<usize>,
    named: bool,
    base: String,
    encoding: Encoding,
    arguments: String,
    held: Vec<Delta>,
}

/// One tool-call delta on its own.
struct Delta {
    number: usize,
    /// The frame it came in when it was alone in it, else one made for it.
    frame: Bytes,
}

/// What a delta says, read from its frame.
struct Saying {
    index: Option<usize>,
    name: Option<String>,
    base: String,
    arguments: Option<(String, Encoding)>,
}

impl Splitting {
    pub(super) fn new(rule: Arc<Rule>) -> Self {
        Self {
            rule,
            choices: HashMap::new(),
        }
    }

    fn settle_all(&mut self, out: &mut Out<'_>) -> Result<(), Fault> {
        self.choices
            .values_mut()
            .try_for_each(|told| told.settle(&self.rule, out))
    }
}

impl StreamPass for Splitting {
    fn event(&mut self, event: Event<'_>, out: &mut Out<'_>) -> Result<(), Fault> {
        let Event::Chunk {
            mut chunk,
            from,
            edited,
        } = event
        else {
            if matches!(event, Event::Done(_)) {
                self.settle_all(out)?;
            }
            return out.emit(event);
        };
        if chunk.choices().any(|choice| choice.is_whole()) {
            let edited = edited | split_whole(&self.rule, &mut chunk, out);
            return out.emit(Event::Chunk {
                chunk,
                from,
                edited,
            });
        }
        let taken = self.take_deltas(&mut chunk, from);
        let finishes = chunk.choices().any(|choice| choice.finish().is_some());
        let mut rest = Some((chunk, edited | !taken.is_empty()));
        if !finishes {
            emit_rest(&mut rest, from, !taken.is_empty(), out)?;
        }
        for (choice, delta) in taken {
            if let Some(told) = self.choices.get_mut(&choice) {
                told.offer(&self.rule, delta, out)?;
            }
        }
        if let Some((chunk, edited)) = &mut rest {
            for mut choice in chunk.choices() {
                *edited |= self.finish(&mut choice, out)?;
            }
        }
        emit_rest(&mut rest, from, false, out)
    }

    fn end(&mut self, end: End, out: &mut Out<'_>) -> Result<(), Fault> {
        match end {
            End::ClientGone => Ok(()),
            End::Clean => self.settle_all(out),
            // A call cut off is not one to take apart.
            End::Failed | End::Truncated => self
                .choices
                .values_mut()
                .try_for_each(|told| told.release_all(&self.rule, out)),
        }
    }
}

impl Splitting {
    /// Takes the call deltas out of `chunk` that cannot simply go by.
    fn take_deltas(&mut self, chunk: &mut Chunk<'_>, from: From<'_>) -> Vec<(u64, Delta)> {
        if !self.must_take(chunk) {
            return Vec::new();
        }
        let whole = match from {
            From::Frame(frame) if is_one_delta(chunk) => Some(frame),
            From::Body(_) | From::Frame(_) | From::Made(_) => None,
        };
        let envelope = chunk.envelope();
        let mut taken = Vec::new();
        for mut choice in chunk.choices() {
            let index = choice.index();
            let told = self.choices.entry(index).or_default();
            let mut numbers = std::mem::take(&mut told.placed).into_iter();
            let Some(part) = choice.part_mut() else {
                continue;
            };
            if let Some(calls) = chat::calls_mut(part) {
                calls.retain(|call| match numbers.next() {
                    None => true,
                    Some(number) => {
                        let made = || sse::event(&envelope.call_chunk(index, &call.to_json()));
                        let frame = whole.cloned().unwrap_or_else(made);
                        taken.push((index, Delta { number, frame }));
                        false
                    }
                });
                part.remove("tool_calls");
            }
        }
        taken
    }

    /// Places the deltas of `chunk`; whether one of them is suspected, or waits.
    fn must_take(&mut self, chunk: &mut Chunk<'_>) -> bool {
        let mut must = false;
        for choice in chunk.choices() {
            let Some(part) = choice.part() else {
                continue;
            };
            let told = self.choices.entry(choice.index()).or_default();
            told.choice = choice.index();
            told.mixed |= !chat::content_text(part).is_empty();
            let calls = chat::calls(part)
                .into_iter()
                .flat_map(|calls| calls.items());
            let placed: Vec<usize> = calls
                .filter_map(Value::object)
                .map(|call| told.place(&self.rule, call))
                .collect();
            must |= !placed.iter().all(|number| told.goes_by(*number));
            told.placed = placed;
        }
        must
    }

    fn finish(&mut self, choice: &mut Choice<'_, '_>, out: &mut Out<'_>) -> Result<bool, Fault> {
        let Some(reason) = choice.finish().map(std::borrow::Cow::into_owned) else {
            return Ok(false);
        };
        let Some(told) = self.choices.get_mut(&choice.index()) else {
            return Ok(false);
        };
        told.settle(&self.rule, out)?;
        if told.was_split && reason == "stop" {
            choice.set_finish("tool_calls");
            return Ok(true);
        }
        Ok(false)
    }
}

/// Emits what is left of an event after its deltas were taken, unless nothing is.
fn emit_rest(
    rest: &mut Option<(Chunk<'_>, bool)>,
    from: From<'_>,
    taken: bool,
    out: &mut Out<'_>,
) -> Result<(), Fault> {
    let Some((mut chunk, edited)) = rest.take() else {
        return Ok(());
    };
    if taken && says_nothing(&mut chunk) {
        return Ok(());
    }
    out.emit(Event::Chunk {
        chunk,
        from,
        edited,
    })
}

/// Whether the chunk is one tool-call delta and nothing else that a client could miss.
fn is_one_delta(chunk: &mut Chunk<'_>) -> bool {
    let one = chunk.choices().count() == 1
        && chunk.choices().all(|choice| {
            choice
                .part()
                .and_then(chat::calls)
                .is_some_and(|calls| calls.len() == 1)
                && choice.finish().is_none()
        });
    one && !chunk.has_usage()
        && chunk.choices().all(|choice| {
            choice
                .part()
                .is_some_and(|part| is_silent(part, &["role", "tool_calls"]))
        })
}

/// Whether nothing is left to say: role and call went with the delta.
fn says_nothing(chunk: &mut Chunk<'_>) -> bool {
    !chunk.has_usage()
        && chunk.choices().all(|choice| {
            choice.finish().is_none() && choice.part().is_none_or(|part| is_silent(part, &["role"]))
        })
}

fn is_silent(part: &Object<'_>, but: &[&str]) -> bool {
    part.keys().filter(|key| !but.contains(key)).all(|key| {
        part.get(key)
            .is_none_or(|value| value.is_null() || value.is_empty_text())
    })
}

// === impl Told ===

impl Told {
    /// The number of the call a delta belongs to; decides calls of other tools at once.
    fn place(&mut self, rule: &Rule, call: &Object<'_>) -> usize {
        let number = self.calls.place(call).number;
        if number >= self.fates.len() {
            self.fates.push(Fate::Undecided);
        }
        let other = chat::call_name(call).is_some_and(|name| name != rule.tool.as_str());
        if other
            && self.suspect.is_none()
            && matches!(self.fates.get(number), Some(Fate::Undecided))
        {
            self.mixed = true;
            self.decide(
                number,
                Fate::Forwarded {
                    shift: self.shift,
                    watched: None,
                },
            );
        }
        number
    }

    /// Whether a delta of this call may stay where it is.
    fn goes_by(&self, number: usize) -> bool {
        matches!(
            self.fates.get(number),
            Some(Fate::Forwarded {
                shift: 0,
                watched: None
            })
        )
    }

    fn decide(&mut self, number: usize, fate: Fate) {
        if let Some(slot) = self.fates.get_mut(number) {
            *slot = fate;
        }
    }

    /// Takes the next delta, in order.
    fn offer(&mut self, rule: &Rule, delta: Delta, out: &mut Out<'_>) -> Result<(), Fault> {
        let number = delta.number;
        match self.fates.get(number).cloned().unwrap_or(Fate::Undecided) {
            Fate::Forwarded { shift, watched } => {
                self.watch(number, shift, watched, &delta);
                forward(&delta, shift, out)
            }
            Fate::Gone => late(&delta),
            Fate::Undecided => {
                let waits = match &self.suspect {
                    Some(suspect) if suspect.number != number => {
                        // The next call has begun: a complete one before it is decided.
                        match rule.judge(&suspect.arguments) {
                            Verdict::Combined(_) | Verdict::Other(_) => {
                                self.resolve(rule, out)?;
                                return self.offer(rule, delta, out);
                            }
                            Verdict::Single | Verdict::Undecided => true,
                        }
                    }
                    _ => false,
                };
                self.held_bytes += delta.frame.len();
                if waits {
                    self.queue.push(delta);
                } else {
                    self.suspect(rule, delta, out)?;
                }
                if self.held_bytes > MAX_HELD_BYTES {
                    return self.release_all(rule, out);
                }
                Ok(())
            }
        }
    }

    /// Adds a delta to the suspect and judges it.
    fn suspect(&mut self, rule: &Rule, delta: Delta, out: &mut Out<'_>) -> Result<(), Fault> {
        let saying = Saying::of(&delta.frame, rule);
        let suspect = self.suspect.get_or_insert_with(|| Suspect {
            number: delta.number,
            index: saying.index,
            named: false,
            base: saying.base.clone(),
            encoding: Encoding::Text,
            arguments: String::new(),
            held: Vec::new(),
        });
        suspect.held.push(delta);
        let other = saying.name.as_deref().is_some_and(|name| name != rule.tool);
        suspect.named |= saying.name.is_some();
        if let Some((text, encoding)) = saying.arguments {
            suspect.arguments.push_str(&text);
            suspect.encoding = encoding;
        }
        let verdict = if other {
            Verdict::Other(None)
        } else {
            rule.judge(&suspect.arguments)
        };
        let waits = match verdict {
            Verdict::Combined(_) | Verdict::Undecided => true,
            // A repeated command is left out after a split: wait until it is complete.
            Verdict::Single => self.was_split && !self.mixed,
            Verdict::Other(_) => false,
        };
        if waits {
            Ok(())
        } else {
            self.resolve_as(rule, verdict, out)
        }
    }

    /// Decides the suspect by what it has said so far, and goes on with the queue.
    fn resolve(&mut self, rule: &Rule, out: &mut Out<'_>) -> Result<(), Fault> {
        let verdict = match &self.suspect {
            Some(suspect) if suspect.named => rule.judge(&suspect.arguments),
            _ => Verdict::Other(None),
        };
        self.resolve_as(rule, verdict, out)
    }

    fn resolve_as(
        &mut self,
        rule: &Rule,
        verdict: Verdict,
        out: &mut Out<'_>,
    ) -> Result<(), Fault> {
        let Some(suspect) = self.suspect.take() else {
            return Ok(());
        };
        self.held_bytes = self.queue.iter().map(|delta| delta.frame.len()).sum();
        match verdict {
            Verdict::Combined(pieces) => self.split(rule, &suspect, &pieces, out)?,
            Verdict::Other(Some(command)) if self.is_repeated(&command) => {
                self.decide(suspect.number, Fate::Gone);
                self.shift -= 1;
                out.note(What::Deduplicated, self.at(suspect.number));
            }
            Verdict::Other(Some(command)) => {
                self.commands.push(command);
                self.release(suspect, None, out)?;
            }
            Verdict::Single => {
                let watched = Some(suspect.arguments.clone());
                self.release(suspect, watched, out)?;
            }
            Verdict::Other(None) | Verdict::Undecided => {
                self.mixed = true;
                self.release(suspect, None, out)?;
            }
        }
        for delta in std::mem::take(&mut self.queue) {
            self.held_bytes = self.held_bytes.saturating_sub(delta.frame.len());
            self.offer(rule, delta, out)?;
        }
        Ok(())
    }

    fn is_repeated(&self, command: &String) -> bool {
        self.was_split && !self.mixed && self.commands.contains(command)
    }

    fn at(&self, number: usize) -> At {
        At::call(usize::try_from(self.choice).unwrap_or(usize::MAX), number)
    }

    /// Tells the pieces of a combined call, one complete call after the other.
    fn split(
        &mut self,
        rule: &Rule,
        suspect: &Suspect,
        pieces: &[String],
        out: &mut Out<'_>,
    ) -> Result<(), Fault> {
        self.close_watches(rule);
        let fresh: Vec<(usize, &String)> = distinct(pieces)
            .into_iter()
            .filter(|(_, piece)| self.mixed || !self.commands.contains(piece))
            .collect();
        let what = if fresh.is_empty() {
            What::Deduplicated
        } else {
            What::Split
        };
        out.note(what, self.at(suspect.number));
        let envelope = self.tell_roles(suspect, out)?;
        for (offset, (position, piece)) in fresh.iter().enumerate() {
            let index = suspect
                .index
                .and_then(|index| index.checked_add_signed(self.shift));
            let index = index.map(|index| index + offset);
            let call = rule.call(&suspect.base, *position, piece, (suspect.encoding, index));
            emit_made(&envelope.call_chunk(self.choice, &call), out)?;
        }
        self.shift += isize::try_from(fresh.len()).unwrap_or(isize::MAX) - 1;
        self.commands.extend(pieces.iter().cloned());
        self.was_split = true;
        self.decide(suspect.number, Fate::Gone);
        Ok(())
    }

    /// The role that came with a held delta goes out before its pieces do.
    fn tell_roles(&self, suspect: &Suspect, out: &mut Out<'_>) -> Result<Envelope, Fault> {
        let mut envelope = None;
        for delta in &suspect.held {
            let data = sse::data(&delta.frame).unwrap_or_default();
            let Some(mut chunk) = Chunk::parse(&data) else {
                continue;
            };
            envelope.get_or_insert_with(|| chunk.envelope());
            let mut says_role = false;
            for mut choice in chunk.choices() {
                if let Some(part) = choice.part_mut() {
                    part.remove("tool_calls");
                    says_role |= part.get("role").is_some();
                }
            }
            if says_role {
                out.emit(Event::Chunk {
                    chunk,
                    from: From::Frame(&delta.frame),
                    edited: true,
                })?;
            }
        }
        Ok(envelope.unwrap_or_default())
    }

    fn release(
        &mut self,
        suspect: Suspect,
        watched: Option<String>,
        out: &mut Out<'_>,
    ) -> Result<(), Fault> {
        let shift = self.shift;
        self.decide(suspect.number, Fate::Forwarded { shift, watched });
        suspect
            .held
            .iter()
            .try_for_each(|delta| forward(delta, shift, out))
    }

    /// Decides everything: the choice is over.
    fn settle(&mut self, rule: &Rule, out: &mut Out<'_>) -> Result<(), Fault> {
        while self.suspect.is_some() {
            self.resolve(rule, out)?;
        }
        Ok(())
    }

    /// Lets everything go as it came.
    fn release_all(&mut self, rule: &Rule, out: &mut Out<'_>) -> Result<(), Fault> {
        while self.suspect.is_some() {
            self.resolve_as(rule, Verdict::Other(None), out)?;
        }
        Ok(())
    }

    fn watch(&mut self, number: usize, shift: isize, watched: Option<String>, delta: &Delta) {
        let Some(mut text) = watched else {
            return;
        };
        if let Some((more, _)) = with_call(&delta.frame, arguments_of).flatten() {
            text.push_str(&more);
        }
        let watched = (text.len() <= MAX_HELD_BYTES).then_some(text);
        self.mixed |= watched.is_none();
        self.decide(number, Fate::Forwarded { shift, watched });
    }

    /// Judges the single calls that went out before they were complete.
    fn close_watches(&mut self, rule: &Rule) {
        for fate in &mut self.fates {
            if let Fate::Forwarded { watched, .. } = fate
                && let Some(text) = watched.take()
            {
                match rule.judge(&text) {
                    Verdict::Other(Some(command)) => self.commands.push(command),
                    _ => self.mixed = true,
                }
            }
        }
    }
}

impl Saying {
    fn of(frame: &Bytes, rule: &Rule) -> Self {
        with_call(frame, |call| Self {
            index: chat::index_of(call).and_then(|index| usize::try_from(index).ok()),
            name: chat::call_name(call).map(std::borrow::Cow::into_owned),
            base: rule.base(call),
            arguments: arguments_of(call),
        })
        .unwrap_or(Self {
            index: None,
            name: None,
            base: String::new(),
            arguments: None,
        })
    }
}

/// Reads the one call of a held frame.
fn with_call<T>(frame: &Bytes, read: impl FnOnce(&Object<'_>) -> T) -> Option<T> {
    let data = sse::data(frame)?;
    let mut chunk = Chunk::parse(&data)?;
    let choice = chunk.choices().next()?;
    let call = chat::calls(choice.part()?)?.get(0)?.object()?;
    Some(read(call))
}

fn emit_made(json: &str, out: &mut Out<'_>) -> Result<(), Fault> {
    match Event::made(json) {
        Some(event) => out.emit(event),
        None => Err(Fault::us(
            "made_chunk_malformed",
            "a chunk made by a split is not JSON; please report this",
        )),
    }
}

/// Sends a delta on as it came, or with its index moved.
fn forward(delta: &Delta, shift: isize, out: &mut Out<'_>) -> Result<(), Fault> {
    let data = sse::data(&delta.frame).unwrap_or_default();
    let mut event = Event::of_frame(&delta.frame, &data);
    if shift != 0
        && let Event::Chunk { chunk, edited, .. } = &mut event
    {
        for mut choice in chunk.choices() {
            let calls = choice.part_mut().and_then(chat::calls_mut);
            for call in calls
                .into_iter()
                .flat_map(|calls| calls.items_mut())
                .filter_map(Value::object_mut)
            {
                if let Some(index) = chat::index_of(call)
                    .and_then(|index| usize::try_from(index).ok()?.checked_add_signed(shift))
                {
                    call.set("index", index.to_string());
                    *edited = true;
                }
            }
        }
    }
    out.emit(event)
}

/// A delta for a call whose pieces were told already.
fn late(delta: &Delta) -> Result<(), Fault> {
    let more = with_call(&delta.frame, arguments_of).flatten();
    if more.is_none_or(|(text, _)| text.trim().is_empty()) {
        return Ok(());
    }
    Err(Fault::upstream(
        "arguments_after_end",
        format!(
            "expected no more arguments for tool call {}, got some after they were complete and the next call had begun",
            delta.number
        ),
    ))
}
