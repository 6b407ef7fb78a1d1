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
//! A turn found is not yet a hit: [`Stored::matches`] compares id, tool name and
//! arguments as well (invariant I3).

use std::borrow::Cow;
use std::cell::OnceCell;

use bytes::{BufMut, Bytes};

use super::canonical::{self, Digest};
use super::json::unquote;

/// Under what a turn is stored and looked up, within a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TurnKey(pub [u8; 16]);

/// One assistant turn, as the model wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// `provider/model` that said it.
    pub origin: String,
    /// Reply fields a client may lose, as raw JSON: `reasoning_content` → `"\"…\""`.
    pub kept: Vec<(String, String)>,
    /// The tool calls, in order.
    pub calls: Vec<TurnCall>,
}

/// One tool call of a [`Turn`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnCall {
    /// The id on the model's side.
    pub native: String,
    /// The id the client was given.
    pub given: String,
    /// The tool's name.
    pub name: String,
    /// The arguments the client was given.
    pub arguments: Arguments,
}

/// Arguments, by their digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arguments {
    /// Of what they mean, however they are spelt.
    pub meaning: Digest,
    /// Of how they were spelt. Most clients send the text back as they got it, and nobody has
    /// to ask what it means.
    spelling: Digest,
}

/// A record to be stored before the client sees the end of the turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnRecord {
    /// Under what it can be found.
    pub keys: Vec<TurnKey>,
    /// The encoded [`Turn`].
    pub value: Bytes,
}

/// A stored turn, read where it lies: its texts are slices of what the ledger gave.
#[derive(Debug, Clone)]
pub struct Stored {
    value: Bytes,
    origin: Span,
    /// Field → raw JSON.
    kept: Vec<(Span, Span)>,
    calls: Vec<StoredCall>,
}

/// One call of a [`Stored`] turn.
#[derive(Debug, Clone)]
struct StoredCall {
    native: Span,
    given: Span,
    name: Span,
    arguments: Arguments,
}

/// From here to there in a stored value; whole characters of UTF-8.
#[derive(Debug, Clone, Copy)]
struct Span {
    start: usize,
    end: usize,
}

/// What stood before a turn: a running digest of the conversation, made of what
/// clients do not rewrite: the first user message and the calls since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context(Digest);

/// One call as a request replays it.
#[derive(Debug, Clone)]
pub struct Replayed<'a> {
    /// The id it has now; empty when it has none.
    pub id: Cow<'a, str>,
    /// The tool's name.
    pub name: Cow<'a, str>,
    /// The arguments, as the JSON value they are in the call.
    arguments: &'a str,
    meaning: OnceCell<Digest>,
}

/// The first byte of a stored value. Values that begin otherwise, such as the JSON of
/// earlier versions, are turns we do not know.
const FORMAT: u8 = 2;

impl Turn {
    /// A turn of `origin` with nothing in it yet.
    pub fn new(origin: impl Into<String>) -> Self {
        Self {
            origin: origin.into(),
            kept: Vec::new(),
            calls: Vec::new(),
        }
    }

    /// The stored form: lengths first, so that a reader need not search, then all texts.
    ///
    /// ```text
    /// 2 · number of kept fields · number of calls · length of the origin
    ///   · each field: lengths of name and JSON
    ///   · each call: lengths of native id, given id and name, digests of the arguments
    ///   · the texts, in this order
    /// ```
    ///
    /// Numbers are 32 bits, little-endian.
    pub fn encode(&self) -> Bytes {
        let mut head = vec![FORMAT];
        let mut texts = Vec::new();
        head.put_u32_le(length(self.kept.len()));
        head.put_u32_le(length(self.calls.len()));
        let mut text = |head: &mut Vec<u8>, text: &str| {
            head.put_u32_le(length(text.len()));
            texts.extend_from_slice(text.as_bytes());
        };
        text(&mut head, &self.origin);
        for (field, json) in &self.kept {
            text(&mut head, field);
            text(&mut head, json);
        }
        for call in &self.calls {
            text(&mut head, &call.native);
            text(&mut head, &call.given);
            text(&mut head, &call.name);
            head.extend_from_slice(&call.arguments.meaning);
            head.extend_from_slice(&call.arguments.spelling);
        }
        head.append(&mut texts);
        head.into()
    }
}

/// A length as it is stored. What is heard of a reply is bounded far below 4 GiB; of a
/// longer text the stored form would be none that [`Stored::read`] takes.
fn length(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

// === impl Stored ===

impl Stored {
    /// Reads a stored form; `None` when it is not one of ours.
    pub fn read(value: &Bytes) -> Option<Self> {
        let (format, head) = value.split_first()?;
        if *format != FORMAT {
            return None;
        }
        let mut head = Head { rest: head, end: 0 };
        let (kept, calls) = (head.number()?, head.number()?);
        let mut stored = Self {
            value: value.clone(),
            origin: head.text()?,
            kept: Vec::new(),
            calls: Vec::new(),
        };
        for _ in 0..kept {
            stored.kept.push((head.text()?, head.text()?));
        }
        for _ in 0..calls {
            stored.calls.push(StoredCall {
                native: head.text()?,
                given: head.text()?,
                name: head.text()?,
                arguments: Arguments {
                    meaning: head.digest()?,
                    spelling: head.digest()?,
                },
            });
        }
        stored.place(&head)?;
        Some(stored)
    }

    /// Moves all spans to where the texts begin, behind `head`; `None` unless the texts are
    /// as long as it says, and text.
    fn place(&mut self, head: &Head<'_>) -> Option<()> {
        let texts = simdutf8::basic::from_utf8(head.rest).ok()?;
        if texts.len() != head.end {
            return None;
        }
        let before = self.value.len() - texts.len();
        let kept = self.kept.iter_mut().flat_map(|(name, json)| [name, json]);
        let calls = self.calls.iter_mut();
        let calls = calls.flat_map(|call| [&mut call.native, &mut call.given, &mut call.name]);
        for span in kept.chain(calls).chain([&mut self.origin]) {
            texts.get(span.start..span.end)?;
            span.start += before;
            span.end += before;
        }
        Some(())
    }

    /// `provider/model` that said it.
    pub fn origin(&self) -> &str {
        self.text(self.origin)
    }

    /// The model's own id of the call at `index`.
    pub fn native_id(&self, index: usize) -> Option<&str> {
        Some(self.text(self.calls.get(index)?.native))
    }

    /// The raw JSON kept under the first of `fields` that is there.
    pub fn kept(&self, fields: &[String]) -> Option<Bytes> {
        let json = fields.iter().find_map(|field| {
            let mut kept = self.kept.iter();
            kept.find(|(name, _)| self.text(*name) == field)
        });
        json.map(|(_, json)| self.value.slice(json.start..json.end))
    }

    /// For each of `calls` the call of this turn it replays; `None` unless every one
    /// has its own, with the same id, name and arguments.
    pub fn matches(&self, calls: &[Replayed<'_>]) -> Option<Vec<usize>> {
        let mut taken = vec![false; self.calls.len()];
        let mut found: Vec<Option<usize>> = vec![None; calls.len()];
        // An id that is whole belongs to its call before one that was cut or extended
        // may take it: `functions.e:1` and `functions.e:10` begin alike.
        for like in [Like::Exact, Like::Mangled] {
            for (n, (call, slot)) in calls.iter().zip(&mut found).enumerate() {
                if slot.is_some() {
                    continue;
                }
                // Most clients keep the order: the search begins where the call stands.
                let order = (n..self.calls.len()).chain(0..n.min(self.calls.len()));
                let mut free = order.filter(|index| taken.get(*index) == Some(&false));
                *slot = free.find(|index| self.is_replayed(*index, call, like));
                if let Some(taken) = slot.and_then(|index| taken.get_mut(index)) {
                    *taken = true;
                }
            }
        }
        found.into_iter().collect()
    }

    /// Whether `call` is the one at `index`. The arguments are looked at last: only a call
    /// that could be meant is worth a digest.
    fn is_replayed(&self, index: usize, call: &Replayed<'_>, like: Like) -> bool {
        self.calls.get(index).is_some_and(|said| {
            let (given, native) = (self.text(said.given), self.text(said.native));
            self.text(said.name) == call.name
                && (call.id == given || call.id == native || like.holds(&call.id, native))
                && said.arguments.are(call)
        })
    }

    fn text(&self, span: Span) -> &str {
        let bytes = self.value.get(span.start..span.end).unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or_default()
    }
}

impl PartialEq for Stored {
    /// Equal turns are stored as equal bytes.
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

/// The lengths and digests of a stored value, read from the front.
struct Head<'v> {
    rest: &'v [u8],
    /// Where the next text begins, counted from the first.
    end: usize,
}

impl Head<'_> {
    fn number(&mut self) -> Option<usize> {
        let (number, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        usize::try_from(u32::from_le_bytes(*number)).ok()
    }

    fn text(&mut self) -> Option<Span> {
        let start = self.end;
        self.end = start.checked_add(self.number()?)?;
        Some(Span {
            start,
            end: self.end,
        })
    }

    fn digest(&mut self) -> Option<Digest> {
        let (digest, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*digest)
    }
}

// === impl Replayed ===

impl<'a> Replayed<'a> {
    /// A call with this id and name, and with the JSON value `arguments`.
    pub fn new(id: Cow<'a, str>, name: Cow<'a, str>, arguments: &'a str) -> Self {
        Self {
            id,
            name,
            arguments,
            meaning: OnceCell::new(),
        }
    }

    /// What its arguments mean, as a digest; made when it is first asked for.
    pub fn meaning(&self) -> &Digest {
        self.meaning.get_or_init(|| meaning_of(self.arguments))
    }
}

// === impl Arguments ===

impl Arguments {
    /// The arguments of a call, as the JSON value they are in it: usually a string that holds
    /// JSON, from some the object itself.
    pub fn of(value: &str) -> Self {
        Self {
            meaning: meaning_of(value),
            spelling: canonical::parts("spelling", &[value.as_bytes()]),
        }
    }

    /// Whether `call` has them.
    fn are(&self, call: &Replayed<'_>) -> bool {
        let known = call.meaning.get();
        let spelt = || canonical::parts("spelling", &[call.arguments.as_bytes()]);
        (known.is_none() && spelt() == self.spelling) || *call.meaning() == self.meaning
    }
}

fn meaning_of(value: &str) -> Digest {
    let text = unquote(value).unwrap_or(Cow::Borrowed(value));
    canonical::arguments(&text)
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
    /// Whether `id` is what a client may have made of `native`.
    fn holds(self, id: &str, native: &str) -> bool {
        let (mut native, mut id) = (alphanumeric(native), alphanumeric(id));
        let mut shared = 0_usize;
        loop {
            return match (native.next(), id.next(), self) {
                (Some(left), Some(right), _) if left == right => {
                    shared += 1;
                    continue;
                }
                (Some(_), Some(_), _) => false,
                (None, None, _) => shared > 0,
                (_, _, Self::Exact) => false,
                // Extended.
                (None, Some(first), Self::Mangled) => {
                    let mut suffix = std::iter::once(first).chain(id);
                    let hexadecimal = suffix
                        .by_ref()
                        .take(12)
                        .all(|byte| byte.is_ascii_hexdigit());
                    shared > 0 && hexadecimal && suffix.next().is_none()
                }
                // Cut.
                (Some(_), None, Self::Mangled) => shared >= 9,
            };
        }
    }
}

/// The letters and digits of an id.
fn alphanumeric(id: &str) -> impl Iterator<Item = u8> {
    id.bytes().filter(u8::is_ascii_alphanumeric)
}

impl Context {
    /// A conversation that begins with this user message.
    pub fn start(first_user_text: &str) -> Self {
        Self(canonical::parts(
            "start",
            &[first_user_text.trim().as_bytes()],
        ))
    }

    /// The key of a call that follows, and the same conversation after it.
    #[must_use]
    pub fn call(self, name: &str, meaning: &Digest) -> (TurnKey, Self) {
        // Both are of the same length always, so that no border can move.
        let mut said = Vec::with_capacity(64);
        said.extend_from_slice(b"call");
        said.extend_from_slice(&self.0);
        said.extend_from_slice(meaning);
        said.extend_from_slice(name.as_bytes());
        let (key, next) = canonical::two(&said);
        (TurnKey(key), Self(next))
    }

    /// The key of a turn without calls that says `text`.
    pub fn text_key(&self, text: &str) -> TurnKey {
        TurnKey(canonical::parts("text", &[&self.0, text.trim().as_bytes()]))
    }
}

/// The key of an id minted for a client: the id itself, which is random, behind a word that
/// tells it from a digest.
pub fn minted_key(given: &str) -> TurnKey {
    let mut key = *b"minted:\0\0\0\0\0\0\0\0\0";
    match key.last_chunk_mut::<9>().zip(given.as_bytes().as_array()) {
        Some((place, id)) => {
            *place = *id;
            TurnKey(key)
        }
        // Not one of ours, for all that.
        None => TurnKey(canonical::parts("minted", &[given.as_bytes()])),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn said(native: &str, given: &str, arguments: &str) -> TurnCall {
        TurnCall {
            native: native.into(),
            given: given.into(),
            name: "exec".into(),
            arguments: Arguments::of(arguments),
        }
    }

    fn replayed<'a>(id: &'a str, arguments: &'a str) -> Replayed<'a> {
        Replayed::new(id.into(), "exec".into(), arguments)
    }

    fn stored(calls: Vec<TurnCall>) -> Stored {
        let turn = Turn {
            calls,
            ..Turn::new("moonshot/kimi-k2.6")
        };
        Stored::read(&turn.encode()).expect("just encoded")
    }

    #[test]
    fn rpl_09_sanitised_id_is_still_its_own() {
        let turn = stored(vec![said("functions.exec:0", "functions.exec:0", "{}")]);
        let is_same = |id: &str| turn.matches(&[replayed(id, "{}")]).is_some();
        for id in [
            "functions.exec:0",
            "functionsexec0",
            "functions_exec_0",
            "functionsexec02",
            "functionsexec058675f5d",
            "functionsexec0123456789abc",
            "functions",
        ] {
            assert!(is_same(id), "{id}");
        }
        for id in [
            "",
            "::",
            "functionsexec1",
            "functionsread0",
            "func",
            "functionsexec0zz",
            "functionsexec00123456789abc",
            "call_1",
        ] {
            assert!(!is_same(id), "{id}");
        }
    }

    #[test]
    fn i3_id_name_and_arguments_must_all_agree() {
        let turn = stored(vec![
            said("functions.exec:0", "aaaaaaaaa", "{\"c\": 1}"),
            said("functions.exec:1", "bbbbbbbbb", "{\"c\":2}"),
        ]);
        assert_eq!(
            turn.matches(&[replayed("bbbbbbbbb", "{\"c\":2.0}")]),
            Some(vec![1])
        );
        assert_eq!(
            turn.matches(&[
                replayed("bbbbbbbbb", "{\"c\":2}"),
                replayed("aaaaaaaaa", r#""{\"c\":1}""#)
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
        let turn = stored(vec![
            said("functions.e:1", "functions.e:1", "{}"),
            said("functions.e:10", "functions.e:10", "{}"),
        ]);
        let both = [
            replayed("functionse10", "{}"),
            replayed("functionse1", "{}"),
        ];
        assert_eq!(turn.matches(&both), Some(vec![1, 0]));
    }

    #[test]
    fn stored_turn_gives_back_what_was_encoded() {
        let turn = Turn {
            kept: vec![
                ("reasoning".into(), "\"\u{4e0d}\"".into()),
                ("reasoning_content".into(), "\"\\u00e9\"".into()),
            ],
            calls: vec![said("a", "b", "{}"), said("", "\u{e9}", "{}")],
            ..Turn::new("p/m")
        };
        let stored = Stored::read(&turn.encode()).expect("just encoded");
        assert_eq!(stored.origin(), "p/m");
        let kept = |field: &str| stored.kept(&["x".into(), field.into()]);
        assert_eq!(
            kept("reasoning").as_deref(),
            Some("\"\u{4e0d}\"".as_bytes())
        );
        assert_eq!(
            kept("reasoning_content").as_deref(),
            Some(&b"\"\\u00e9\""[..])
        );
        assert_eq!(kept("content"), None);
        let natives: Vec<_> = (0..3).map(|index| stored.native_id(index)).collect();
        assert_eq!(natives, [Some("a"), Some(""), None]);
        assert_eq!(
            stored.matches(&[replayed("\u{e9}", "{}"), replayed("b", " {}")]),
            Some(vec![1, 0])
        );
    }

    #[test]
    fn what_is_no_stored_turn_is_a_miss() {
        let turn = Turn {
            kept: vec![("reasoning".into(), "\"\u{4e0d}\"".into())],
            calls: vec![said("a", "b", "{}")],
            ..Turn::new("p/m")
        };
        let value = turn.encode();
        let read = |value: &[u8]| Stored::read(&Bytes::copy_from_slice(value));
        for end in 0..value.len() {
            assert!(read(&value[..end]).is_none(), "cut at {end}");
        }
        assert!(read(&[&value[..], b"x"].concat()).is_none());
        assert!(read(br#"{"v":1,"origin":"p/m","kept":[],"calls":[]}"#).is_none());
        assert!(read(&[2, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0]).is_none());
        // A border in the middle of a character.
        let name = value
            .windows(3)
            .position(|bytes| bytes == "\u{4e0d}".as_bytes());
        let mut broken = value.to_vec();
        broken[name.expect("it is there")] = 0xff;
        assert!(read(&broken).is_none());
        let mut moved = value.to_vec();
        (moved[13], moved[17]) = (moved[13] + 2, moved[17] - 2);
        assert!(read(&moved).is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(value in proptest::collection::vec(any::<u8>(), 0..80), at in 0_usize..80) {
            let mut encoded = Turn { calls: vec![said("a", "b", "{}")], ..Turn::new("p/m") }.encode().to_vec();
            for (to, from) in encoded.iter_mut().skip(at).zip(&value) {
                *to = *from;
            }
            if let Some(stored) = Stored::read(&encoded.into()) {
                stored.matches(&[replayed("b", "{}")]);
                stored.kept(&["reasoning".into()]);
            }
            drop(Stored::read(&value.into()));
        }
    }

    #[test]
    fn context_tells_conversations_and_positions_apart() {
        let arguments = canonical::arguments("{}");
        let (a, b) = (Context::start("one"), Context::start("two"));
        let (key, after) = a.call("exec", &arguments);
        let keys = [
            key,
            b.call("exec", &arguments).0,
            after.call("exec", &arguments).0,
            a.call("exe", &arguments).0,
            a.call("exec", &canonical::arguments("[]")).0,
            a.text_key("exec"),
            minted_key("exec"),
            minted_key("exec00000"),
            minted_key("exec00001"),
        ];
        for (i, left) in keys.iter().enumerate() {
            assert!(keys.iter().skip(i + 1).all(|right| left != right));
        }
        assert_eq!(Context::start(" one\n"), a);
    }
}
