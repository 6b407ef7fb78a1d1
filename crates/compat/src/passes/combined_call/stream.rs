//! The split over a stream: one call is held while it is suspected, its fragments
//! judged as they come.
//!
//! ```text
//!            name is another tool, or the text cannot match
//!  Undecided ────────────────────────────────────────────────▶ Forwarded   (released as it came)
//!      │      complete, combined, and: next call · finish · [DONE] · end
//!      └─────────────────────────────────────────────────────▶ Gone        (its pieces were told)
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::{Encoding, MAX_HELD_BYTES, Rule, Verdict, arguments_of, distinct, split_whole};
use crate::fault::Fault;
use crate::passes::event::{End, Event, From, Out, StreamPass};
use crate::passes::{At, What};
use crate::wire::calls::Calls;
use crate::wire::chat::{self, Choice, Chunk, Envelope};
use crate::wire::json::{List, Object, Value};
use crate::wire::refrain::{Field, Words};
use crate::wire::sse;

/// Splits the combined calls of one reply.
pub(super) struct Splitting {
    rule: Arc<Rule>,
    choices: BTreeMap<u64, Told>,
    /// Whether the chunk it saw last had nothing to be taken out or judged.
    went_by: bool,
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
    /// How many calls are suspected or wait.
    undecided: usize,
    /// One more than the highest index the client has been given.
    free: usize,
    /// Calls were added or left out: indexes are ours from here on.
    moved: bool,
    was_split: bool,
    /// Something else than safe calls was said: nothing is a duplicate then.
    mixed: bool,
    /// The safe commands the client has been given.
    commands: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Fate {
    /// Goes through, at this index if it is another than the server's. A single safe
    /// command is still watched, since an argument may follow that makes it unsafe.
    Forwarded {
        index: Option<usize>,
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
    /// The frames it came in.
    held: Vec<Bytes>,
}

/// One tool-call delta on its own.
struct Delta {
    number: usize,
    /// The frame it came in when it was alone in it, else one made for it.
    frame: Bytes,
    saying: Saying,
}

/// What a delta says.
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
            choices: BTreeMap::new(),
            went_by: false,
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
        self.went_by = false;
        if chunk.choices().any(|choice| choice.is_whole()) {
            return whole(&self.rule, chunk, from, edited, out);
        }
        let (taken, role_went) = self.take_deltas(&mut chunk, from);
        let finishes = chunk.choices().any(|choice| choice.finish().is_some());
        let mut edited = edited | !taken.is_empty();
        if taken.is_empty() {
            self.went_by = !finishes;
            edited |= self.finish(&mut chunk, out)?;
            return out.emit(Event::Chunk {
                chunk,
                from,
                edited,
            });
        }
        if finishes {
            // What stands beside the calls comes before them, the reason after them.
            emit_head(from, out)?;
            self.offer(taken, out)?;
            for mut choice in chunk.choices() {
                choice.clear();
            }
            self.finish(&mut chunk, out)?;
            return out.emit(Event::Chunk {
                chunk,
                from,
                edited,
            });
        }
        if !says_nothing(&mut chunk, role_went) {
            out.emit(Event::Chunk {
                chunk,
                from,
                edited,
            })?;
        }
        self.offer(taken, out)
    }

    fn lets_repeats_by(&self) -> bool {
        self.went_by
    }

    fn words(&mut self, words: &Words<'_>) {
        // The arguments are of a call that simply goes by, or they would be judged.
        let Some(told) = self
            .choices
            .get_mut(&words.choice)
            .filter(|told| !told.mixed)
        else {
            return;
        };
        told.mixed = words
            .iter()
            .any(|(field, inside)| field == Field::Content && chat::says_something(inside));
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
    /// Takes the call deltas out of `chunk` that cannot simply go by; whether the role
    /// went along, because the delta was all the chunk had to say.
    fn take_deltas(&mut self, chunk: &mut Chunk<'_>, from: From<'_>) -> (Vec<(u64, Delta)>, bool) {
        if !self.must_take(chunk) {
            return (Vec::new(), false);
        }
        let whole = match from {
            From::Frame(frame) if is_one_delta(chunk) => Some(frame),
            From::Body(_) | From::Frame(_) | From::Made(_) => None,
        };
        let Self { rule, choices, .. } = self;
        let envelope = chunk.envelope();
        let mut taken = Vec::new();
        for mut choice in chunk.choices() {
            let index = choice.index();
            let told = choices.entry(index).or_default();
            let mut numbers = std::mem::take(&mut told.placed).into_iter();
            let Some(part) = choice.part_mut() else {
                continue;
            };
            let Some(calls) = chat::calls_mut(part) else {
                continue;
            };
            calls.retain(|call| {
                let object = call.object();
                let Some((object, number)) =
                    object.and_then(|object| Some((object, numbers.next()?)))
                else {
                    return true;
                };
                let saying = Saying::of(object, rule);
                let made = || sse::event(&envelope.call_chunk(index, &call.to_json()));
                let frame = whole.cloned().unwrap_or_else(made);
                taken.push((
                    index,
                    Delta {
                        number,
                        frame,
                        saying,
                    },
                ));
                false
            });
            if calls.is_empty() {
                part.remove("tool_calls");
            }
        }
        (taken, whole.is_some())
    }

    fn offer(&mut self, taken: Vec<(u64, Delta)>, out: &mut Out<'_>) -> Result<(), Fault> {
        for (choice, delta) in taken {
            if let Some(told) = self.choices.get_mut(&choice) {
                told.offer(&self.rule, delta, out)?;
            }
        }
        Ok(())
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

    /// Decides the choices that finish; whether a reason had to change.
    fn finish(&mut self, chunk: &mut Chunk<'_>, out: &mut Out<'_>) -> Result<bool, Fault> {
        let mut changed = false;
        for mut choice in chunk.choices() {
            let stops = match choice.finish() {
                None => continue,
                Some(reason) => reason == "stop",
            };
            if let Some(told) = self.choices.get_mut(&choice.index()) {
                told.settle(&self.rule, out)?;
                if told.was_split && stops {
                    choice.set_finish("tool_calls");
                    changed = true;
                }
            }
        }
        Ok(changed)
    }
}

/// Splits the calls of a whole message.
fn whole(
    rule: &Rule,
    mut chunk: Chunk<'_>,
    from: From<'_>,
    edited: bool,
    out: &mut Out<'_>,
) -> Result<(), Fault> {
    if !split_whole(rule, &mut chunk, out) {
        return out.emit(Event::Chunk {
            chunk,
            from,
            edited,
        });
    }
    // The pieces are text as yet: the passes to come must see them as calls.
    let text = chunk.into_segments().to_text();
    if let From::Frame(frame) = from {
        let frame = sse::with_data(frame, &text);
        let data = sse::data(&frame).unwrap_or_default();
        return out.emit(Event::of_frame(&frame, &data));
    }
    out.emit(Event::of_body(&Bytes::from(text)))
}

/// Emits what a chunk says beside its calls and the reason it finishes, if anything.
fn emit_head(from: From<'_>, out: &mut Out<'_>) -> Result<(), Fault> {
    let From::Frame(frame) = from else {
        return Ok(());
    };
    let data = sse::data(frame).unwrap_or_default();
    let Some(mut chunk) = Chunk::parse(&data) else {
        return Ok(());
    };
    for mut choice in chunk.choices() {
        choice.unfinish();
        if let Some(part) = choice.part_mut() {
            part.remove("tool_calls");
        }
    }
    chunk.remove_usage();
    if says_nothing(&mut chunk, false) {
        return Ok(());
    }
    out.emit(Event::Chunk {
        chunk,
        from,
        edited: true,
    })
}

/// Whether the chunk is one tool-call delta and nothing else that a client could miss.
fn is_one_delta(chunk: &mut Chunk<'_>) -> bool {
    let alone = |choice: &Choice<'_, '_>| {
        choice.finish().is_none()
            && !choice.has_more()
            && choice.part().is_some_and(|part| {
                is_silent(part, &["role", "tool_calls"])
                    && chat::calls(part).is_some_and(|calls| calls.len() == 1)
            })
    };
    !chunk.has_usage()
        && chunk.choices().count() == 1
        && chunk.choices().all(|choice| alone(&choice))
}

/// Whether nothing is left to say once the calls are gone, and the role with them where
/// it `role_went` along.
fn says_nothing(chunk: &mut Chunk<'_>, role_went: bool) -> bool {
    let but: &[&str] = if role_went { &["role"] } else { &[] };
    !chunk.has_usage()
        && chunk.choices().all(|choice| {
            choice.finish().is_none()
                && !choice.has_more()
                && choice.part().is_none_or(|part| is_silent(part, but))
        })
}

fn is_silent(part: &Object<'_>, but: &[&str]) -> bool {
    part.fields()
        .filter(|(key, _)| !but.contains(key))
        .all(|(_, value)| value.is_null() || value.is_empty_text())
}

// === impl Told ===

impl Told {
    /// The number of the call a delta belongs to. A call that opens with something that
    /// cannot be a combined one is decided here, unless it has to wait for another.
    fn place(&mut self, rule: &Rule, call: &Object<'_>) -> usize {
        let number = self.calls.place(call);
        if number < self.fates.len() {
            return number;
        }
        self.fates.push(Fate::Undecided);
        self.undecided += 1;
        let verdict = match chat::call_name(call) {
            None => Verdict::Undecided,
            Some(name) if name != rule.tool.as_str() => Verdict::Other(None),
            Some(_) => arguments_of(call).map_or(Verdict::Undecided, |(text, _)| rule.judge(&text)),
        };
        if verdict == Verdict::Other(None) {
            self.mixed = true;
            if self.undecided == 1 {
                self.go(number, own_index(call), None);
            }
        }
        number
    }

    /// Whether a delta of this call may stay where it is.
    fn goes_by(&self, number: usize) -> bool {
        let by = Some(&Fate::Forwarded {
            index: None,
            watched: None,
        });
        self.fates.get(number) == by
    }

    /// Lets a call go through, at its own index or the next free one.
    fn go(&mut self, number: usize, own: Option<usize>, watched: Option<String>) {
        let index = own.map(|own| (self.take_index(own), own));
        let index = index
            .filter(|(index, own)| index != own)
            .map(|(index, _)| index);
        self.decide(number, Fate::Forwarded { index, watched });
    }

    /// The index a call goes out at: the server's, until calls were added or left out;
    /// from then on the next that is free.
    fn take_index(&mut self, own: usize) -> usize {
        let index = if self.moved { self.free } else { own };
        self.free = self.free.max(index.saturating_add(1));
        index
    }

    fn decide(&mut self, number: usize, fate: Fate) {
        if let Some(slot) = self.fates.get_mut(number) {
            if matches!(slot, Fate::Undecided) {
                self.undecided -= 1;
            }
            *slot = fate;
        }
    }

    /// Takes the next delta, in order.
    fn offer(&mut self, rule: &Rule, delta: Delta, out: &mut Out<'_>) -> Result<(), Fault> {
        let number = delta.number;
        match self.fates.get(number).cloned().unwrap_or(Fate::Undecided) {
            Fate::Forwarded { index, watched } => {
                self.watch(number, index, watched, delta.saying);
                forward(&delta.frame, index, out)
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
        let Delta {
            number,
            frame,
            saying,
        } = delta;
        let suspect = self.suspect.get_or_insert_with(|| Suspect {
            number,
            index: saying.index,
            named: false,
            base: saying.base,
            encoding: Encoding::Text,
            arguments: String::new(),
            held: Vec::new(),
        });
        suspect.held.push(frame);
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
                self.moved = true;
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
        for (position, piece) in &fresh {
            // The first piece keeps the call's place; from the second on they move.
            let index = suspect.index.map(|own| self.take_index(own));
            self.moved = true;
            let call = rule.call(&suspect.base, *position, piece, (suspect.encoding, index));
            emit_made(&envelope.call_chunk(self.choice, &call), out)?;
        }
        self.moved = true;
        self.commands.extend(pieces.iter().cloned());
        self.was_split = true;
        self.decide(suspect.number, Fate::Gone);
        Ok(())
    }

    /// The role that came with a held delta goes out before its pieces do.
    fn tell_roles(&self, suspect: &Suspect, out: &mut Out<'_>) -> Result<Envelope, Fault> {
        let mut envelope = None;
        for frame in &suspect.held {
            let data = sse::data(frame).unwrap_or_default();
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
                    from: From::Frame(frame),
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
        self.go(suspect.number, suspect.index, watched);
        let index = match self.fates.get(suspect.number) {
            Some(Fate::Forwarded { index, .. }) => *index,
            Some(Fate::Gone | Fate::Undecided) | None => None,
        };
        suspect
            .held
            .iter()
            .try_for_each(|frame| forward(frame, index, out))
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

    fn watch(
        &mut self,
        number: usize,
        index: Option<usize>,
        watched: Option<String>,
        saying: Saying,
    ) {
        let Some(mut text) = watched else {
            return;
        };
        if let Some((more, _)) = saying.arguments {
            text.push_str(&more);
        }
        let watched = (text.len() <= MAX_HELD_BYTES).then_some(text);
        self.mixed |= watched.is_none();
        self.decide(number, Fate::Forwarded { index, watched });
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
    fn of(call: &Object<'_>, rule: &Rule) -> Self {
        Self {
            index: own_index(call),
            name: chat::call_name(call).map(std::borrow::Cow::into_owned),
            base: rule.base(call),
            arguments: arguments_of(call),
        }
    }
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

/// Sends a delta on as it came, or at another index.
fn forward(frame: &Bytes, index: Option<usize>, out: &mut Out<'_>) -> Result<(), Fault> {
    let data = sse::data(frame).unwrap_or_default();
    let mut event = Event::of_frame(frame, &data);
    if let (Some(index), Event::Chunk { chunk, edited, .. }) = (index, &mut event) {
        for mut choice in chunk.choices() {
            let calls = choice.part_mut().and_then(chat::calls_mut);
            let calls = calls.into_iter().flat_map(List::items_mut);
            for call in calls.filter_map(Value::object_mut) {
                call.set("index", index.to_string());
                *edited = true;
            }
        }
    }
    out.emit(event)
}

/// The index the server gave a call.
fn own_index(call: &Object<'_>) -> Option<usize> {
    chat::index_of(call).and_then(|index| usize::try_from(index).ok())
}

/// A delta for a call whose pieces were told already.
fn late(delta: &Delta) -> Result<(), Fault> {
    let more = delta.saying.arguments.as_ref();
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
