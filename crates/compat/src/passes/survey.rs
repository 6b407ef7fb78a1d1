//! One look over a request's history before any pass edits it.
//!
//! Finds the assistant turns, the calls in them and which call each tool result
//! answers; says what to ask the ledger for ([`Survey::lookup`]) and makes of its
//! answers what the passes read ([`Recollection`]). Because all of this is taken
//! from the request as the client sent it, the passes may edit in any order.

use std::collections::{HashMap, HashSet, VecDeque};

use bytes::Bytes;

use crate::wire::canonical;
use crate::wire::chat::{self, Ask};
use crate::wire::json::{Object, Value, unquote};
use crate::wire::turn::{Context, Replayed, Turn, TurnKey, minted_key};

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
    /// Its calls.
    pub calls: Vec<Replayed>,
    /// Where in [`Survey::lookup`] its key is: that of its first call, or of its text.
    key: Option<usize>,
}

/// The history at a glance.
#[derive(Debug)]
pub struct Survey {
    needs: Needs,
    said: Vec<Said>,
    /// Tool message index → (assistant message index, call index).
    answers: HashMap<usize, (usize, usize)>,
    keys: Vec<TurnKey>,
    /// The context a reply to this request has.
    context: Context,
}

/// What the ledger knows of the history.
#[derive(Debug, Default)]
pub struct Recollection {
    hits: HashMap<usize, Hit>,
    /// The ledger could not be asked.
    pub unavailable: bool,
}

/// A turn of the history that the ledger knows.
#[derive(Debug)]
pub struct Hit {
    /// What the model said.
    pub turn: Turn,
    /// For each call of the message, which call of the turn it is.
    pub calls: Vec<usize>,
}

impl Survey {
    /// Looks over `ask`, as far as somebody needs to know.
    pub fn of(ask: &Ask<'_>, needs: Needs) -> Self {
        let mut survey = Self {
            needs,
            said: Vec::new(),
            answers: HashMap::new(),
            keys: Vec::new(),
            context: Context::start(""),
        };
        if needs == Needs::default() {
            return survey;
        }
        let first_user = ask.messages().find(|message| chat::role(message) == "user");
        let opening = first_user.map(chat::content_text).unwrap_or_default();
        survey.context = Context::start(&opening);
        let mut open: HashMap<String, VecDeque<(usize, usize)>> = HashMap::new();
        for (index, message) in ask.messages().enumerate() {
            match chat::role(message).as_ref() {
                "assistant" => survey.assistant(index, message, &mut open),
                "tool" => survey.result(index, message, &mut open),
                _ => {}
            }
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

    /// The call that the tool message at `index` answers: (message, call).
    pub fn answered_by(&self, index: usize) -> Option<(usize, usize)> {
        self.answers.get(&index).copied()
    }

    /// The call at (`message`, `call`).
    pub fn call(&self, message: usize, call: usize) -> Option<&Replayed> {
        let at = self
            .said
            .binary_search_by_key(&message, |said| said.message)
            .ok()?;
        self.said.get(at)?.calls.get(call)
    }

    /// The context of a reply to this request.
    pub fn context(&self) -> Context {
        self.context
    }

    /// Makes hits of what was stored under each key of [`Self::lookup`], in order.
    pub fn recollect(&self, stored: &[Vec<Bytes>]) -> Recollection {
        let mut hits = HashMap::new();
        for said in &self.said {
            if let Some(hit) = said.hit(stored) {
                hits.insert(said.message, hit);
            }
        }
        Recollection {
            hits,
            unavailable: false,
        }
    }

    fn assistant(
        &mut self,
        index: usize,
        message: &Object<'_>,
        open: &mut HashMap<String, VecDeque<(usize, usize)>>,
    ) {
        let calls: Vec<Replayed> = chat::calls(message)
            .into_iter()
            .flat_map(|calls| calls.items().filter_map(Value::object).map(replayed))
            .collect();
        let key = match calls.first() {
            Some(call) if self.needs.calls => Some(self.call_key(call)),
            None if self.needs.texts => Some(self.context.text_key(&chat::content_text(message))),
            Some(_) | None => None,
        };
        let key = key.map(|key| {
            self.keys.push(key);
            self.keys.len() - 1
        });
        let mut fresh: HashSet<&str> = HashSet::new();
        for (n, call) in calls.iter().enumerate() {
            let waiting = open.entry(call.id.clone()).or_default();
            // A repeated id: results that follow belong to the latest turn that has it.
            if fresh.insert(&call.id) {
                waiting.clear();
            }
            waiting.push_back((index, n));
        }
        self.context = calls.iter().fold(self.context, |context, call| {
            context.after(&call.name, &call.arguments)
        });
        self.said.push(Said {
            message: index,
            calls,
            key,
        });
    }

    fn result(
        &mut self,
        index: usize,
        message: &Object<'_>,
        open: &mut HashMap<String, VecDeque<(usize, usize)>>,
    ) {
        let id = message.text("tool_call_id").unwrap_or_default();
        let Some(waiting) = open.get_mut(id.as_ref()) else {
            return;
        };
        // Two calls of one turn with one id are answered in order.
        let call = if waiting.len() > 1 {
            waiting.pop_front()
        } else {
            waiting.front().copied()
        };
        if let Some(call) = call {
            self.answers.insert(index, call);
        }
    }

    fn call_key(&self, call: &Replayed) -> TurnKey {
        if self.needs.ids == Ids::Minted && looks_minted(&call.id) {
            minted_key(&call.id)
        } else {
            self.context.call_key(&call.name, &call.arguments)
        }
    }
}

impl Said {
    /// The one turn that fits; none, or two that differ, is a miss.
    fn hit(&self, stored: &[Vec<Bytes>]) -> Option<Hit> {
        let mut found: Option<Hit> = None;
        for value in stored.get(self.key?)? {
            let Some(turn) = Turn::decode(value) else {
                continue;
            };
            let Some(calls) = turn.matches(&self.calls) else {
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

impl Recollection {
    /// Nothing is known, because the ledger could not be asked.
    pub fn unavailable() -> Self {
        Self {
            hits: HashMap::new(),
            unavailable: true,
        }
    }

    /// What the model said in the assistant message at `index`.
    pub fn of(&self, index: usize) -> Option<&Hit> {
        self.hits.get(&index)
    }
}

/// Nine letters and digits: the form of an id we mint.
pub fn looks_minted(id: &str) -> bool {
    id.len() == 9 && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn replayed(call: &Object<'_>) -> Replayed {
    let arguments = chat::call_arguments(call).unwrap_or_default();
    // A string holds JSON; some clients send the object itself.
    let text = unquote(arguments).unwrap_or_else(|| arguments.into());
    Replayed {
        id: call.text("id").unwrap_or_default().into_owned(),
        name: chat::call_name(call).unwrap_or_default().into_owned(),
        arguments: canonical::arguments(&text),
    }
}
