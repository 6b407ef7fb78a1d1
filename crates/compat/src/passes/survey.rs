//! One look over a request's history before any pass edits it.
//!
//! Finds the assistant turns, the calls in them and which call each tool result
//! answers; says what to ask the ledger for ([`Survey::lookup`]) and makes of its
//! answers what the passes read ([`Recollection`]). Because all of this is taken
//! from the request as the client sent it, the passes may edit in any order.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use bytes::Bytes;

use crate::wire::chat::{self, Ask};
use crate::wire::json::{List, Object, Value};
use crate::wire::turn::{Context, Replayed, Stored, TurnKey, minted_key};

/// What a plan wants to know of the history, and from the ledger.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// Which call a tool result answers.
    pub answers: bool,
    /// Turns with tool calls.
    pub calls: bool,
    /// Turns without tool calls.
    pub texts: bool,
    /// Whose ids clients are given.
    pub ids: Ids,
}

/// Whose tool-call ids clients are given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Ids {
    /// Ours.
    Minted,
    /// The model's own.
    #[default]
    Native,
}

/// An assistant message of the history.
#[derive(Debug)]
pub struct Said {
    /// Its index among the messages.
    pub message: usize,
    /// Which of the history's calls are its own.
    calls: Range<usize>,
    /// Its number among the assistant messages.
    number: usize,
    /// Where in [`Survey::lookup`] its key is: that of its first call, or of its text.
    key: Option<usize>,
}

/// The history at a glance. Calls are numbered through it, in their order.
#[derive(Debug)]
pub struct Survey<'a> {
    needs: Needs,
    /// What each message is.
    roles: Vec<Role>,
    said: Vec<Said>,
    calls: Vec<Replayed<'a>>,
    keys: Vec<TurnKey>,
    thread: Thread<'a>,
}

/// What a message is to the others.
#[derive(Debug, Clone, Copy)]
enum Role {
    /// What the model said, by its number among the assistant messages.
    Assistant(usize),
    Other,
    /// A tool's result, and the call it answers.
    Tool(Option<usize>),
}

/// What the ledger knows of the history.
#[derive(Debug, Default)]
pub struct Recollection {
    /// For each assistant message.
    hits: Vec<Option<Hit>>,
    /// The ledger could not be asked.
    pub unavailable: bool,
}

/// A turn of the history that the ledger knows.
#[derive(Debug)]
pub struct Hit {
    /// What the model said.
    pub turn: Stored,
    /// For each call of the message, which call of the turn it is.
    pub calls: Vec<usize>,
}

/// The running digest of the conversation, as far as somebody has asked for it: where every id
/// is one of ours, nobody does.
#[derive(Debug)]
struct Thread<'a> {
    /// The content of the first user message, as the request has it.
    opening: Option<&'a str>,
    context: Option<Context>,
    /// How many of the calls the context has behind it.
    told: usize,
}

impl<'a> Survey<'a> {
    /// Looks over `ask`, as far as somebody needs to know.
    pub fn of(ask: &Ask<'a>, needs: Needs) -> Self {
        let mut survey = Self {
            needs,
            roles: Vec::new(),
            said: Vec::new(),
            calls: Vec::new(),
            keys: Vec::new(),
            thread: Thread {
                opening: None,
                context: None,
                told: 0,
            },
        };
        if needs == Needs::default() {
            return survey;
        }
        let count = ask.messages().count();
        survey.roles.reserve(count);
        let mut open = Open::default();
        if needs.answers {
            open.waiting.reserve(count);
        }
        let first_user = ask.messages().find(|message| chat::role(message) == "user");
        survey.thread.opening = first_user.and_then(|message| message.get("content")?.source());
        for (index, message) in ask.messages().enumerate() {
            let role = match &*chat::role(message) {
                "assistant" => survey.assistant(index, message, &mut open),
                "tool" => {
                    Role::Tool(open.answer(&message.text("tool_call_id").unwrap_or_default()))
                }
                _ => Role::Other,
            };
            survey.roles.push(role);
        }
        survey
    }

    /// The keys to look up, in the order the answers are wanted.
    pub fn lookup(&self) -> &[TurnKey] {
        &self.keys
    }

    /// The assistant messages.
    pub fn said(&self) -> &[Said] {
        &self.said
    }

    /// The assistant message at `index` among the messages.
    pub fn said_at(&self, index: usize) -> Option<&Said> {
        match self.roles.get(index)? {
            Role::Assistant(number) => self.said.get(*number),
            Role::Other | Role::Tool(_) => None,
        }
    }

    /// The call, by number, that the tool message at `index` answers.
    pub fn answered_by(&self, index: usize) -> Option<usize> {
        match self.roles.get(index)? {
            Role::Tool(call) => *call,
            Role::Assistant(_) | Role::Other => None,
        }
    }

    /// The calls of an assistant message, each with its number.
    pub fn calls_of(&self, said: &Said) -> impl Iterator<Item = (usize, &Replayed<'a>)> {
        let calls = self.calls.get(said.calls.clone()).unwrap_or_default();
        said.calls.clone().zip(calls)
    }

    /// How many calls there are in the history.
    pub fn call_count(&self) -> usize {
        self.calls.len()
    }

    /// The call of this number.
    pub fn call(&self, number: usize) -> Option<&Replayed<'a>> {
        self.calls.get(number)
    }

    /// The context of a reply to this request, when such a reply is found by its context.
    pub fn context(&mut self) -> Option<Context> {
        let needed = self.needs.texts || (self.needs.calls && self.needs.ids == Ids::Native);
        needed.then(|| self.thread.at(&self.calls))
    }

    /// Makes hits of what was stored under each key of [`Self::lookup`], in order.
    pub fn recollect(&self, stored: &[Vec<Bytes>]) -> Recollection {
        let hit = |said: &Said| self.hit(said, stored.get(said.key?)?);
        Recollection {
            hits: self.said.iter().map(hit).collect(),
            unavailable: false,
        }
    }

    fn assistant(&mut self, index: usize, message: &Object<'a>, open: &mut Open<'a>) -> Role {
        let first = self.calls.len();
        let calls = chat::calls(message).into_iter().flat_map(List::items);
        for call in calls.filter_map(Value::object).map(replayed) {
            if self.needs.answers {
                open.add(index, call.id.clone());
            }
            self.calls.push(call);
        }
        let key = self.key(first, message).map(|key| {
            self.keys.push(key);
            self.keys.len() - 1
        });
        let number = self.said.len();
        self.said.push(Said {
            message: index,
            calls: first..self.calls.len(),
            number,
            key,
        });
        Role::Assistant(number)
    }

    /// The key of the assistant message whose calls begin with the one numbered `first`.
    fn key(&mut self, first: usize, message: &Object<'a>) -> Option<TurnKey> {
        let (before, calls) = self.calls.split_at_checked(first)?;
        match calls.first() {
            Some(call) if self.needs.calls => {
                Some(if self.needs.ids == Ids::Minted && looks_minted(&call.id) {
                    minted_key(&call.id)
                } else {
                    self.thread.pass(before, call)
                })
            }
            None if self.needs.texts => {
                let context = self.thread.at(before);
                Some(context.text_key(&chat::content_text(message)))
            }
            Some(_) | None => None,
        }
    }

    /// The one turn among `stored` that fits; none, or two that differ, is a miss.
    fn hit(&self, said: &Said, stored: &[Bytes]) -> Option<Hit> {
        let replayed = self.calls.get(said.calls.clone())?;
        let mut found: Option<Hit> = None;
        for value in stored {
            let Some(turn) = Stored::read(value) else {
                continue;
            };
            let Some(calls) = turn.matches(replayed) else {
                continue;
            };
            match &found {
                None => found = Some(Hit { turn, calls }),
                Some(hit) if hit.turn == turn => {}
                Some(_) => return None,
            }
        }
        found
    }
}

impl Thread<'_> {
    /// The context behind `calls`, the first of the history. Asked for in their order.
    fn at(&mut self, calls: &[Replayed<'_>]) -> Context {
        let start = || Context::start(&chat::content_text_of(self.opening.unwrap_or("null")));
        let mut context = self.context.unwrap_or_else(start);
        for call in calls.get(self.told..).unwrap_or_default() {
            (_, context) = context.call(&call.name, call.meaning());
        }
        self.told = calls.len();
        self.context = Some(context);
        context
    }

    /// The key of `call`, which stands behind the calls `before`; goes behind it.
    fn pass(&mut self, before: &[Replayed<'_>], call: &Replayed<'_>) -> TurnKey {
        let (key, context) = self.at(before).call(&call.name, call.meaning());
        self.told += 1;
        self.context = Some(context);
        key
    }
}

impl Recollection {
    /// Nothing is known, because the ledger could not be asked.
    pub fn unavailable() -> Self {
        Self {
            hits: Vec::new(),
            unavailable: true,
        }
    }

    /// What the model said where the request has `said`.
    pub fn of(&self, said: &Said) -> Option<&Hit> {
        self.hits.get(said.number)?.as_ref()
    }
}

impl Said {
    /// Whether it has tool calls.
    pub fn has_calls(&self) -> bool {
        !self.calls.is_empty()
    }
}

/// The calls that a result may still answer, by id.
#[derive(Debug, Default)]
struct Open<'a> {
    waiting: HashMap<Cow<'a, str>, Waiting>,
    /// For each call, the next of the same message with the same id.
    next: Vec<Option<usize>>,
}

/// The calls with one id, of the latest message that has it.
#[derive(Debug)]
struct Waiting {
    message: usize,
    /// The call that is answered next.
    front: usize,
    back: usize,
}

impl<'a> Open<'a> {
    /// A call of the assistant message at `message`; its number is one more than the last's.
    fn add(&mut self, message: usize, id: Cow<'a, str>) {
        let call = self.next.len();
        self.next.push(None);
        let fresh = Waiting {
            message,
            front: call,
            back: call,
        };
        match self.waiting.get_mut(&id) {
            Some(waiting) if waiting.message == message => {
                if let Some(next) = self.next.get_mut(waiting.back) {
                    *next = Some(call);
                }
                waiting.back = call;
            }
            // A repeated id: results that follow belong to the latest turn that has it.
            Some(waiting) => *waiting = fresh,
            None => drop(self.waiting.insert(id, fresh)),
        }
    }

    /// The call that a result with this id answers. Calls of one turn with one id are answered
    /// in order, the last of them any number of times.
    fn answer(&mut self, id: &str) -> Option<usize> {
        let waiting = self.waiting.get_mut(id)?;
        let call = waiting.front;
        waiting.front = self.next.get(call).copied().flatten().unwrap_or(call);
        Some(call)
    }
}

/// Nine letters and digits: the form of an id we mint.
pub fn looks_minted(id: &str) -> bool {
    id.len() == 9 && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn replayed<'a>(call: &Object<'a>) -> Replayed<'a> {
    let function = call.get("function").and_then(Value::object);
    let arguments = function.and_then(|function| function.get("arguments")?.source());
    let name = function.and_then(|function| function.source_text("name"));
    Replayed::new(
        call.source_text("id").unwrap_or_default(),
        name.unwrap_or_default(),
        arguments.unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;

    const ALL: Needs = Needs {
        answers: true,
        calls: true,
        texts: false,
        ids: Ids::Minted,
    };

    fn said(ids: &[&str]) -> Json {
        let call = |id: &&str| json!({"id": id, "function": {"name": "f", "arguments": "{}"}});
        json!({"role": "assistant", "tool_calls": ids.iter().map(call).collect::<Vec<_>>()})
    }

    fn result(id: &str) -> Json {
        json!({"role": "tool", "tool_call_id": id})
    }

    fn body(messages: &[Json]) -> String {
        json!({ "messages": messages }).to_string()
    }

    #[test]
    fn result_answers_the_call_of_the_latest_turn_that_has_its_id() {
        let cases = [
            (
                vec![said(&["a", "b"]), result("b"), result("a")],
                vec![Some(1), Some(0)],
            ),
            // One id for two calls: in order, and the last of them again.
            (
                vec![said(&["a", "a"]), result("a"), result("a"), result("a")],
                vec![Some(0), Some(1), Some(1)],
            ),
            (
                vec![
                    said(&["a"]),
                    result("a"),
                    said(&["a"]),
                    result("a"),
                    result("a"),
                ],
                vec![Some(0), Some(1), Some(1)],
            ),
            // A turn that has the id again takes it over, answered or not.
            (
                vec![said(&["a", "a"]), result("a"), said(&["a"]), result("a")],
                vec![Some(0), Some(2)],
            ),
            (
                vec![result("a"), said(&["a"]), result("x")],
                vec![None, None],
            ),
            (vec![said(&[""]), json!({"role": "tool"})], vec![Some(0)]),
        ];
        for (messages, want) in cases {
            let body = body(&messages);
            let ask = Ask::parse(body.as_bytes()).expect("a request");
            let survey = Survey::of(&ask, ALL);
            let tools = messages
                .iter()
                .enumerate()
                .filter(|(_, message)| message["role"] == "tool");
            let got: Vec<_> = tools.map(|(index, _)| survey.answered_by(index)).collect();
            assert_eq!(got, want, "{body}");
        }
    }

    #[test]
    fn nobody_is_told_the_conversation_where_every_id_is_ours() {
        let minted = body(&[said(&["aaaaaaaaa"]), said(&["bbbbbbbbb", "x"])]);
        let ask = Ask::parse(minted.as_bytes()).expect("a request");
        let mut survey = Survey::of(&ask, ALL);
        assert_eq!(
            survey.lookup(),
            [minted_key("aaaaaaaaa"), minted_key("bbbbbbbbb")]
        );
        assert_eq!((survey.thread.told, survey.context()), (0, None));
    }

    #[test]
    fn keys_are_those_a_recorder_makes_whatever_was_asked_before() {
        let user = json!({"role": "user", "content": " hi"});
        let messages = [
            said(&["aaaaaaaaa", "x"]),
            user,
            said(&["call_1", "y"]),
            said(&["call_2"]),
        ];
        let body = body(&messages);
        let ask = Ask::parse(body.as_bytes()).expect("a request");
        let meaning = crate::wire::canonical::arguments("{}");
        let mut context = Context::start("hi");
        let mut keys = Vec::new();
        for _ in 0..5 {
            let (key, after) = context.call("f", &meaning);
            keys.push(key);
            context = after;
        }
        let minted = Survey::of(&ask, ALL);
        assert_eq!(minted.lookup(), [minted_key("aaaaaaaaa"), keys[2], keys[4]]);
        let mut native = Survey::of(
            &ask,
            Needs {
                ids: Ids::Native,
                ..ALL
            },
        );
        assert_eq!(native.lookup(), [keys[0], keys[2], keys[4]]);
        assert_eq!(native.context(), Some(context));
    }
}
