//! What a model said in one turn, and how it is found again. Knows no dialect.
//!
//! A [`Turn`] keeps what a client may lose or mangle. It is stored under
//! [`TurnKey`]s, inside a caller's scope:
//!
//! * by an id that was minted for the client and occurs once in the world, and
//! * by what stood before it in the conversation, the tool's name and the
//!   arguments, where the model's own ids were kept: `functions.exec:0` recurs in
//!   every conversation and is never a key.
//!
//! A turn found is not yet a hit: [`Turn::matches`] compares id, tool name and
//! arguments as well (invariant I3).

use serde::{Deserialize, Serialize};

use super::canonical::{self, Digest};

/// Under what a turn is stored and looked up, within a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TurnKey(pub [u8; 16]);

/// One assistant turn, as the model wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// Format of the record.
    v: u8,
    /// `provider/model` that said it.
    pub origin: String,
    /// Reply fields a client may lose, as raw JSON: `reasoning_content` → `"\"…\""`.
    pub kept: Vec<(String, String)>,
    /// The tool calls, in order.
    pub calls: Vec<TurnCall>,
}

/// One tool call of a [`Turn`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnCall {
    /// The id on the model's side.
    pub native: String,
    /// The id the client was given.
    pub given: String,
    /// The tool's name.
    pub name: String,
    /// Canonical digest of the arguments the client was given.
    pub arguments: Digest,
}

/// A record to be stored before the client sees the end of the turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnRecord {
    /// Under what it can be found.
    pub keys: Vec<TurnKey>,
    /// The encoded [`Turn`].
    pub value: bytes::Bytes,
}

/// What stood before a turn: a running digest of the conversation, made of what
/// clients do not rewrite: the first user message and the calls since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context(Digest);

/// One call as a request replays it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// The id it has now; empty when it has none.
    pub id: String,
    /// The tool's name.
    pub name: String,
    /// Canonical digest of its arguments.
    pub arguments: Digest,
}

const FORMAT: u8 = 1;

impl Turn {
    /// A turn of `origin` with nothing in it yet.
    pub fn new(origin: impl Into<String>) -> Self {
        Self {
            v: FORMAT,
            origin: origin.into(),
            kept: Vec::new(),
            calls: Vec::new(),
        }
    }

    /// The stored form.
    pub fn encode(&self) -> bytes::Bytes {
        // A struct of strings and numbers always serialises.
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    /// Reads a stored form; `None` when it is not one of ours.
    pub fn decode(value: &[u8]) -> Option<Self> {
        let turn: Self = serde_json::from_slice(value).ok()?;
        (turn.v == FORMAT).then_some(turn)
    }

    /// The raw JSON kept under the first of `fields` that is there.
    pub fn kept(&self, fields: &[String]) -> Option<&str> {
        fields.iter().find_map(|field| {
            let (_, json) = self.kept.iter().find(|(name, _)| name == field)?;
            Some(json.as_str())
        })
    }

    /// For each of `calls` the call of this turn it replays; `None` unless every one
    /// has its own, with the same id, name and arguments.
    pub fn matches(&self, calls: &[Replayed]) -> Option<Vec<usize>> {
        let natives: Vec<String> = self
            .calls
            .iter()
            .map(|said| alphanumeric(&said.native))
            .collect();
        let mut taken = vec![false; self.calls.len()];
        let mut found: Vec<Option<usize>> = vec![None; calls.len()];
        // An id that is whole belongs to its call before one that was cut or extended
        // may take it: `functions.e:1` and `functions.e:10` begin alike.
        for like in [Like::Exact, Like::Mangled] {
            for (call, slot) in calls.iter().zip(&mut found) {
                let given = alphanumeric(&call.id);
                let fits = |index: usize, said: &TurnCall| {
                    taken.get(index) == Some(&false)
                        && said.name == call.name
                        && said.arguments == call.arguments
                        && natives
                            .get(index)
                            .is_some_and(|native| like.holds(&call.id, &given, said, native))
                };
                if slot.is_none()
                    && let Some((index, _)) = self
                        .calls
                        .iter()
                        .enumerate()
                        .find(|(index, said)| fits(*index, said))
                {
                    *slot = Some(index);
                    taken
                        .iter_mut()
                        .skip(index)
                        .take(1)
                        .for_each(|flag| *flag = true);
                }
            }
        }
        found.into_iter().collect()
    }
}

/// How alike an id must be to the one the client was given.
#[derive(Debug, Clone, Copy)]
enum Like {
    /// The same, but for punctuation.
    Exact,
    /// What a client may have made of it.
    ///
    /// Clients strip punctuation (`functions.exec:0` → `functionsexec0`), append an
    /// occurrence or a hash to a repeated id (`functionsexec02`), and cut at nine
    /// characters; source: facts measured from OpenClaw and opencode.
    Mangled,
}

impl Like {
    /// Whether `id`, in letters and digits `plain`, is that of `said`, whose native id is
    /// `native` in letters and digits.
    fn holds(self, id: &str, plain: &str, said: &TurnCall, native: &str) -> bool {
        if id == said.given || id == said.native {
            return true;
        }
        if native.is_empty() || plain.is_empty() {
            return false;
        }
        match self {
            Self::Exact => plain == native,
            Self::Mangled => {
                let suffixed = plain.strip_prefix(native).is_some_and(|suffix| {
                    suffix.len() <= 12 && suffix.bytes().all(|byte| byte.is_ascii_hexdigit())
                });
                suffixed || (plain.len() >= 9 && native.starts_with(plain))
            }
        }
    }
}

fn alphanumeric(id: &str) -> String {
    id.chars().filter(char::is_ascii_alphanumeric).collect()
}

impl Context {
    /// A conversation that begins with this user message.
    pub fn start(first_user_text: &str) -> Self {
        Self(canonical::parts(
            "start",
            &[first_user_text.trim().as_bytes()],
        ))
    }

    /// The same conversation after a call.
    #[must_use]
    pub fn after(self, name: &str, arguments: &Digest) -> Self {
        Self(canonical::parts(
            "after",
            &[&self.0, name.as_bytes(), arguments],
        ))
    }

    /// The key of a call that follows.
    pub fn call_key(&self, name: &str, arguments: &Digest) -> TurnKey {
        TurnKey(canonical::parts(
            "call",
            &[&self.0, name.as_bytes(), arguments],
        ))
    }

    /// The key of a turn without calls that says `text`.
    pub fn text_key(&self, text: &str) -> TurnKey {
        TurnKey(canonical::parts("text", &[&self.0, text.trim().as_bytes()]))
    }
}

/// The key of an id minted for a client.
pub fn minted_key(given: &str) -> TurnKey {
    TurnKey(canonical::parts("minted", &[given.as_bytes()]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(native: &str, given: &str, arguments: &str) -> TurnCall {
        TurnCall {
            native: native.into(),
            given: given.into(),
            name: "exec".into(),
            arguments: canonical::arguments(arguments),
        }
    }

    fn replayed(id: &str, arguments: &str) -> Replayed {
        Replayed {
            id: id.into(),
            name: "exec".into(),
            arguments: canonical::arguments(arguments),
        }
    }

    #[test]
    fn rpl_09_sanitised_id_is_still_its_own() {
        let mut turn = Turn::new("p/m");
        turn.calls
            .push(said("functions.exec:0", "functions.exec:0", "{}"));
        let is_same = |id: &str| turn.matches(&[replayed(id, "{}")]).is_some();
        for id in [
            "functions.exec:0",
            "functionsexec0",
            "functions_exec_0",
            "functionsexec02",
            "functionsexec058675f5d",
            "functions",
        ] {
            assert!(is_same(id), "{id}");
        }
        for id in [
            "",
            "functionsexec1",
            "functionsread0",
            "func",
            "functionsexec0zz",
            "call_1",
        ] {
            assert!(!is_same(id), "{id}");
        }
    }

    #[test]
    fn i3_id_name_and_arguments_must_all_agree() {
        let mut turn = Turn::new("moonshot/kimi-k2.6");
        turn.calls = vec![
            said("functions.exec:0", "aaaaaaaaa", "{\"c\": 1}"),
            said("functions.exec:1", "bbbbbbbbb", "{\"c\":2}"),
        ];
        assert_eq!(
            turn.matches(&[replayed("bbbbbbbbb", "{\"c\":2.0}")]),
            Some(vec![1])
        );
        assert_eq!(
            turn.matches(&[
                replayed("bbbbbbbbb", "{\"c\":2}"),
                replayed("aaaaaaaaa", "{\"c\":1}")
            ]),
            Some(vec![1, 0])
        );
        assert_eq!(turn.matches(&[replayed("aaaaaaaaa", "{\"c\":2}")]), None);
        assert_eq!(
            turn.matches(&[
                replayed("aaaaaaaaa", "{\"c\":1}"),
                replayed("aaaaaaaaa", "{\"c\":1}")
            ]),
            None
        );
        let mut other = replayed("aaaaaaaaa", "{\"c\":1}");
        other.name = "read".into();
        assert_eq!(turn.matches(&[other]), None);
    }

    #[test]
    fn whole_id_is_preferred_to_one_that_only_begins_alike() {
        let mut turn = Turn::new("p/m");
        turn.calls = vec![
            said("functions.e:1", "functions.e:1", "{}"),
            said("functions.e:10", "functions.e:10", "{}"),
        ];
        let both = [
            replayed("functionse10", "{}"),
            replayed("functionse1", "{}"),
        ];
        assert_eq!(turn.matches(&both), Some(vec![1, 0]));
    }

    #[test]
    fn encoded_turn_decodes_to_itself_and_garbage_to_nothing() {
        let mut turn = Turn::new("p/m");
        turn.kept
            .push(("reasoning_content".into(), "\"\\u00e9\"".into()));
        turn.calls.push(said("a", "b", "{}"));
        assert_eq!(Turn::decode(&turn.encode()), Some(turn));
        assert_eq!(Turn::decode(b"{}"), None);
        assert_eq!(
            Turn::decode(br#"{"v":9,"origin":"","kept":[],"calls":[]}"#),
            None
        );
    }

    #[test]
    fn context_tells_conversations_and_positions_apart() {
        let call = replayed("x", "{}");
        let (a, b) = (Context::start("one"), Context::start("two"));
        let keys = [
            a.call_key("exec", &call.arguments),
            b.call_key("exec", &call.arguments),
            a.after(&call.name, &call.arguments)
                .call_key("exec", &call.arguments),
            a.text_key("exec"),
        ];
        for (i, left) in keys.iter().enumerate() {
            assert!(keys.iter().skip(i + 1).all(|right| left != right));
        }
        assert_eq!(Context::start(" one\n"), a);
    }
}
