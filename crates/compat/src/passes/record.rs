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
use crate::wire::canonical;
use crate::wire::chat::{self, Choice};
use crate::wire::json::{List, Object, Value, unquote};
use crate::wire::turn::{Context, Turn, TurnCall, TurnKey, TurnRecord, minted_key};

/// The name it goes by where passes are named.
const NAME: &str = "turn-record";

/// What is kept of one choice at the most. A turn beyond it is not remembered: no
/// model says that much, and a stream that never ends must not fill the memory.
const MAX_HEARD_BYTES: usize = 8 * 1024 * 1024;

/// Reply fields that clients lose, kept as they came.
const KEPT: &[&str] = &["reasoning_content", "reasoning"];

/// What is recorded of a reply, and under what.
#[derive(Debug, Clone)]
pub(crate) struct Recording {
    /// `provider/model` that says it.
    pub(crate) origin: String,
    /// What will be looked up.
    pub(crate) needs: Needs,
    /// What stands before it.
    pub(crate) context: Context,
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
            let inner = part
                .get(field)
                .and_then(Value::raw)
                .and_then(inside)
                .unwrap_or_default();
            if !inner.is_empty() {
                self.kept.entry(field).or_default().push_str(inner);
                self.bytes += inner.len();
                self.fresh = true;
            }
        }
        if needs.texts {
            let inner = part
                .get("content")
                .and_then(Value::raw)
                .and_then(inside)
                .unwrap_or_default();
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
        match inside(raw) {
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
                context = context.after(&call.name, &call.arguments);
                key
            })
            .collect()
    }
}

impl HeardCall {
    fn recorded(&self, out: &Out<'_>) -> TurnCall {
        let text = around(&self.arguments);
        let arguments = unquote(&text).unwrap_or_else(|| self.arguments.as_str().into());
        TurnCall {
            native: out.native_of(&self.given).unwrap_or(&self.given).to_owned(),
            given: self.given.clone(),
            name: self.name.clone(),
            arguments: canonical::arguments(&arguments),
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
