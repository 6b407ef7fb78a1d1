//! Remembers what was said: the last in the line of every plan that uses the ledger.
//!
//! Not a repair, and so not in the table: it edits nothing. It sees what the client is
//! given, knows the model's ids for it, and stores the turn before anything tells the
//! client that the turn is over: a finish reason, `[DONE]`, or the end of the body.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::event::{End, Event, Out, Placed, StreamPass};
use super::survey::{Ids, Needs};
use crate::fault::Fault;
use crate::wire::calls::Calls;
use crate::wire::chat::{self, Choice};
use crate::wire::json::{List, Object, Value, unquote};
use crate::wire::refrain::{Field, Words};
use crate::wire::turn::{Arguments, Context, Turn, TurnCall, TurnKey, TurnRecord, minted_key};

/// The name it goes by where passes are named.
const NAME: &str = "turn-record";

/// What is kept of one choice at the most. A turn beyond it is not remembered: no
/// model says that much, and a stream that never ends must not fill the memory.
const MAX_HEARD_BYTES: usize = 8 * 1024 * 1024;

/// What is recorded of a reply, and under what.
#[derive(Debug, Clone)]
pub(crate) struct Recording {
    /// `provider/model` that says it.
    pub(crate) origin: String,
    /// What will be looked up.
    pub(crate) needs: Needs,
    /// What stands before it.
    pub(crate) context: Option<Context>,
}

impl Recording {
    /// The recorder at its place.
    pub(crate) fn placed(self) -> Placed {
        Placed {
            manifest: Arc::from(""),
            name: NAME,
            pass: Box::new(Recorder {
                recording: self,
                choices: BTreeMap::new(),
            }),
        }
    }
}

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
    /// The number of the call that was heard last.
    latest: usize,
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

    fn lets_repeats_by(&self) -> bool {
        true
    }

    fn words(&mut self, words: &Words<'_>) {
        let heard = self.choices.entry(words.choice).or_default();
        heard.words(words, self.recording.needs);
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
        let inner = |field: Field| part.get(field.key()).and_then(Value::raw).and_then(inside);
        for field in Field::REASONING {
            self.reasoning(field, inner(field).unwrap_or_default());
        }
        self.content(inner(Field::Content).unwrap_or_default(), needs);
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

    fn words(&mut self, words: &Words<'_>, needs: Needs) {
        if self.bytes > MAX_HEARD_BYTES {
            return;
        }
        for (field, inner) in words.iter() {
            match field {
                Field::Arguments => self.arguments(self.latest, inner),
                Field::Content => self.content(inner, needs),
                Field::Reasoning | Field::ReasoningContent => self.reasoning(field, inner),
            }
        }
    }

    fn reasoning(&mut self, field: Field, inner: &str) {
        if !inner.is_empty() {
            self.kept.entry(field.key()).or_default().push_str(inner);
            self.hear(inner);
        }
    }

    fn content(&mut self, inner: &str, needs: Needs) {
        if needs.texts && !inner.is_empty() {
            self.text.push_str(inner);
            self.hear(inner);
        }
    }

    fn call(&mut self, number: usize, delta: &Object<'_>) {
        if number >= self.calls.len() {
            self.calls.resize_with(number + 1, HeardCall::default);
        }
        let Some(call) = self.calls.get_mut(number) else {
            return;
        };
        if let Some(id) = delta.text("id").filter(|id| !id.is_empty()) {
            call.given = id.into_owned();
        }
        if let Some(name) = chat::call_name(delta)
            && call.name != name
        {
            call.name.push_str(&name);
        }
        self.latest = number;
        let raw = chat::call_arguments(delta).unwrap_or_default();
        match inside(raw) {
            Some(inner) => self.arguments(number, inner),
            None if raw.starts_with('{') => self.arguments(number, &escaped(raw)),
            None => self.hear(""),
        }
    }

    fn arguments(&mut self, number: usize, inner: &str) {
        if let Some(call) = self.calls.get_mut(number) {
            call.arguments.push_str(inner);
        }
        self.hear(inner);
    }

    fn hear(&mut self, inner: &str) {
        self.bytes += inner.len();
        self.fresh = true;
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
            .map(|(field, inner)| ((*field).to_owned(), around(inner)))
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

    fn keys(&self, turn: &Turn, recording: &Recording) -> Vec<TurnKey> {
        if turn.calls.is_empty() {
            let quoted = around(&self.text);
            let text =
                unquote(&quoted).filter(|text| recording.needs.texts && !text.trim().is_empty());
            return text
                .and_then(|text| Some(recording.context?.text_key(&text)))
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
        let Some(mut context) = recording.context else {
            return Vec::new();
        };
        turn.calls
            .iter()
            .map(|call| {
                let (key, after) = context.call(&call.name, &call.arguments.meaning);
                context = after;
                key
            })
            .collect()
    }
}

impl HeardCall {
    fn recorded(&self, out: &Out<'_>) -> TurnCall {
        TurnCall {
            native: out.native_of(&self.given).unwrap_or(&self.given).to_owned(),
            given: self.given.clone(),
            name: self.name.clone(),
            arguments: Arguments::of(&around(&self.arguments)),
        }
    }
}

/// The inside of a JSON string; none of any other value.
fn inside(raw: &str) -> Option<&str> {
    raw.strip_prefix('"')?.strip_suffix('"')
}

/// A JSON string with this inside.
fn around(inner: &str) -> String {
    format!("\"{inner}\"")
}

/// JSON text as the inside of a JSON string.
fn escaped(json: &str) -> String {
    let quoted = crate::wire::json::quote(json);
    quoted.trim_matches('"').to_owned()
}
