//! Chunks that are the one before over again, with other words.
//!
//! Nearly all of a stream says one thing a hundred times over, and a word of the answer
//! each time. A [`Refrain`] is learnt from a chunk that was read in full: the frame it
//! came in, with *holes* where only words, or what nobody reads, stood. A frame that has
//! the same bytes around the holes, and in each hole something of the same kind, need not
//! be read again to know what it says.
//!
//! ```text
//! learnt   data: {"id":"c-7","choices":[{"index":0,"delta":{"content":"The"},"finish_reason":null}],"created":17}⏎⏎
//! text     data: {"id":"░","choices":[{"index":0,"delta":{"content":"░"},"finish_reason":null}],"created":░}⏎⏎
//! repeats  data: {"id":"c-7","choices":[{"index":0,"delta":{"content":" clock"},"finish_reason":null}],"created":18}⏎⏎
//! ```
//!
//! # Guarantees
//! * Bytes that repeat are a frame that would have been read: no hole holds a line end, and
//!   the document is JSON to the letter (RFC 8259), because one string for another, or one
//!   number for another, leaves it one.
//! * They say what the learnt one says, but for their [`Words`]: no hole is a key, the index
//!   of a choice or its reason to finish, an error, or anything of a tool call but the
//!   arguments of one that goes on. Any other string or number may differ.
//!
//! Whatever is not recognised exactly is read in full: a miss costs time and nothing else.

use std::ops::Range;

use super::chat::{self, Choice, Chunk};
use super::json::{Object, Value};
use super::sse::MAX_EVENT_BYTES;

/// More than this and the chunk is no refrain, but a document with a life of its own.
const MAX_HOLES: usize = 48;

/// A chunk learnt by heart.
#[derive(Debug, Default)]
pub struct Refrain {
    /// The frame it came in; empty while nothing is learnt.
    frame: String,
    /// In order.
    holes: Vec<Hole>,
    choice: u64,
}

/// A place where chunks that repeat may differ.
#[derive(Debug)]
struct Hole {
    kind: Kind,
    /// Where it is in the frame.
    at: Range<usize>,
    /// Where it is in the frame that is being compared.
    seen: Range<usize>,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// A number nobody reads.
    Number,
    /// The inside of a string nobody reads.
    Text,
    /// The inside of a string that goes on with this field.
    Words(Field),
}

/// What a word is a word of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// The arguments of the tool call that the chunk goes on with.
    Arguments,
    /// What the client shows.
    Content,
    /// Reasoning, as Moonshot and most others name it.
    ReasoningContent,
    /// Reasoning, as `OpenRouter` and vLLM name it.
    Reasoning,
}

/// What a chunk that repeats says anew.
#[derive(Debug, Clone, Copy)]
pub struct Words<'r> {
    /// Of which choice.
    pub choice: u64,
    /// How long the frame is that says them.
    pub length: usize,
    said: [Option<(Field, &'r str)>; Field::COUNT],
}

impl Refrain {
    /// Nothing repeats until something is learnt again.
    pub fn forget(&mut self) {
        self.frame.clear();
        self.holes.clear();
    }

    /// Learns `chunk`, which was read from `frame`, unless it says anything but words of
    /// one choice.
    pub fn learn(&mut self, frame: &[u8], chunk: &mut Chunk<'_>) {
        self.forget();
        let Some(frame) = std::str::from_utf8(frame)
            .ok()
            .filter(|frame| !has_bare_cr(frame))
        else {
            return;
        };
        let mut holes = Holes {
            frame,
            found: std::mem::take(&mut self.holes),
        };
        let choice = holes.of_chunk(chunk);
        self.holes = holes.found;
        match choice.filter(|_| self.holes.len() <= MAX_HOLES) {
            Some(choice) => {
                self.choice = choice;
                self.holes.sort_unstable_by_key(|hole| hole.at.start);
                self.frame.push_str(frame);
            }
            None => self.holes.clear(),
        }
    }

    /// What `bytes` say, if they begin with the learnt frame over again.
    pub fn repeats<'r>(&mut self, bytes: &'r [u8]) -> Option<Words<'r>> {
        if self.frame.is_empty() || bytes.is_empty() {
            return None;
        }
        self.repeats_to_the_word(bytes)
            .or_else(|| self.repeats_more_or_less(bytes))
            .filter(|words| words.length <= MAX_EVENT_BYTES)
    }

    /// The same, where nothing differs but the words: as a rule.
    fn repeats_to_the_word<'r>(&self, bytes: &'r [u8]) -> Option<Words<'r>> {
        let learnt = self.frame.as_bytes();
        let mut words = Words::none(self.choice);
        let (mut from, mut rest) = (0, bytes);
        for hole in &self.holes {
            if let Kind::Words(field) = hole.kind {
                rest = rest.strip_prefix(learnt.get(from..hole.at.start)?)?;
                let (inside, after) = rest.split_at_checked(string_length(rest)?)?;
                words.add(field, std::str::from_utf8(inside).ok()?);
                rest = after;
                from = hole.at.end;
            }
        }
        rest = rest.strip_prefix(learnt.get(from..)?)?;
        words.length = bytes.len() - rest.len();
        Some(words)
    }

    /// The same, where what nobody reads differs too. It is learnt anew, because a time or
    /// a count that has changed will stay for a while.
    fn repeats_more_or_less<'r>(&mut self, bytes: &'r [u8]) -> Option<Words<'r>> {
        let learnt = self.frame.as_bytes();
        let mut words = Words::none(self.choice);
        let (mut from, mut rest) = (0, bytes);
        for hole in &mut self.holes {
            rest = rest.strip_prefix(learnt.get(from..hole.at.start)?)?;
            let length = match hole.kind {
                Kind::Number => number_length(rest)?,
                Kind::Text | Kind::Words(_) => string_length(rest)?,
            };
            let start = bytes.len() - rest.len();
            let (inside, after) = rest.split_at_checked(length)?;
            let inside = std::str::from_utf8(inside).ok()?;
            if let Kind::Words(field) = hole.kind {
                words.add(field, inside);
            }
            hole.seen = start..start + length;
            from = hole.at.end;
            rest = after;
        }
        rest = rest.strip_prefix(learnt.get(from..)?)?;
        words.length = bytes.len() - rest.len();
        let frame = std::str::from_utf8(bytes.get(..words.length)?).ok()?;
        self.frame.clear();
        self.frame.push_str(frame);
        for hole in &mut self.holes {
            hole.at = hole.seen.clone();
        }
        Some(words)
    }
}

impl<'r> Words<'r> {
    /// The words, each as it stands inside of its JSON string.
    pub fn iter(&self) -> impl Iterator<Item = (Field, &'r str)> {
        self.said.iter().map_while(|said| *said)
    }

    fn none(choice: u64) -> Self {
        Self {
            choice,
            length: 0,
            said: [None; Field::COUNT],
        }
    }

    fn add(&mut self, field: Field, inside: &'r str) {
        if let Some(free) = self.said.iter_mut().find(|said| said.is_none()) {
            *free = Some((field, inside));
        }
    }
}

/// Finds the holes of a chunk.
struct Holes<'r> {
    frame: &'r str,
    found: Vec<Hole>,
}

impl Holes<'_> {
    /// Finds them all; the one choice they are of. `None` where there is more to the chunk
    /// than words: a miss must not be a hit, so what is not known to be idle is not.
    fn of_chunk(&mut self, chunk: &mut Chunk<'_>) -> Option<u64> {
        if chunk.has_error() {
            return None;
        }
        let mut choices = chunk.choices();
        let choice = choices.next()?;
        self.of_choice(&choice)?;
        let index = choice.index();
        if choices.next().is_some() {
            return None;
        }
        drop(choices);
        for (key, value) in chunk.fields() {
            if !matches!(key, "choices" | "error") {
                self.unread(value)?;
            }
        }
        Some(index)
    }

    fn of_choice(&mut self, choice: &Choice<'_, '_>) -> Option<()> {
        if choice.is_whole() || choice.finish().is_some() {
            return None;
        }
        for (key, value) in choice.fields() {
            if !matches!(key, "delta" | "finish_reason" | "index") {
                self.unread(value)?;
            }
        }
        let delta = choice.part()?;
        for (key, value) in delta.fields() {
            if let Some(field) = Field::of_delta(key) {
                self.words(field, value)?;
            } else if key == "tool_calls" {
                self.of_calls(value)?;
            } else {
                self.unread(value)?;
            }
        }
        Some(())
    }

    /// The arguments of one call that goes on, in a list of its own.
    fn of_calls(&mut self, calls: &Value<'_>) -> Option<()> {
        if calls.is_null() {
            return Some(());
        }
        let calls = calls.list()?;
        let call = calls.get(0)?.object()?;
        let opens =
            chat::call_name(call).is_some() || call.text("id").is_some_and(|id| !id.is_empty());
        // Without an index, which call this is depends on the arguments before.
        if calls.len() != 1 || opens || chat::index_of(call).is_none() {
            return None;
        }
        let function: &Object<'_> = call.get("function")?.object()?;
        self.words(Field::Arguments, function.get(Field::Arguments.key())?)
    }

    fn words(&mut self, field: Field, value: &Value<'_>) -> Option<()> {
        if value.is_null() {
            return Some(());
        }
        let raw = value.raw()?;
        let inside = raw.strip_prefix('"')?.strip_suffix('"')?;
        self.hole(Kind::Words(field), inside)
    }

    /// Makes a hole of each string and number of `value`, keys excepted.
    fn unread(&mut self, value: &Value<'_>) -> Option<()> {
        let mut rest = value.raw()?;
        while let Some(start) = rest.find(|c: char| matches!(c, '"' | '-' | '0'..='9')) {
            rest = rest.get(start..)?;
            if let Some(behind) = rest.strip_prefix('"') {
                let (inside, after) = behind.split_at_checked(string_length(behind.as_bytes())?)?;
                rest = after.strip_prefix('"')?;
                if !rest.trim_start().starts_with(':') {
                    self.hole(Kind::Text, inside)?;
                }
            } else {
                let (number, after) = rest.split_at_checked(number_length(rest.as_bytes())?)?;
                self.hole(Kind::Number, number)?;
                rest = after;
            }
        }
        Some(())
    }

    /// A hole where `part` stands, which is a slice of the frame if its data stood in one
    /// line.
    fn hole(&mut self, kind: Kind, part: &str) -> Option<()> {
        let start = (part.as_ptr() as usize).checked_sub(self.frame.as_ptr() as usize)?;
        let at = start..start + part.len();
        self.frame.get(at.clone())?;
        let seen = 0..0;
        self.found.push(Hole { kind, at, seen });
        Some(())
    }
}

impl Field {
    /// Those that hold reasoning.
    pub const REASONING: [Self; 2] = [Self::ReasoningContent, Self::Reasoning];

    /// No key stands twice in a delta, so a chunk has at most one word of each.
    const COUNT: usize = 4;

    /// Its key: in the delta, but for that of the arguments.
    pub fn key(self) -> &'static str {
        match self {
            Self::Arguments => "arguments",
            Self::Content => "content",
            Self::Reasoning => "reasoning",
            Self::ReasoningContent => "reasoning_content",
        }
    }

    /// The field of a delta with this key.
    fn of_delta(key: &str) -> Option<Self> {
        [Self::Content, Self::ReasoningContent, Self::Reasoning]
            .into_iter()
            .find(|field| field.key() == key)
    }
}

/// Whether a line ends in CR alone: where that one ends depends on the lines before.
fn has_bare_cr(frame: &str) -> bool {
    let mut after_crs = frame.split('\r').skip(1);
    after_crs.any(|after| !after.starts_with('\n'))
}

/// How long the inside of a JSON string is (RFC 8259 §7), given what stands behind its
/// opening quote; `None` unless it is one and has its closing quote.
fn string_length(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += plain_length(bytes.get(at..)?);
        match bytes.get(at)? {
            b'"' => return Some(at),
            b'\\' => at += escape_length(bytes.get(at..)?)?,
            _ => return None,
        }
    }
}

/// How many bytes come before the first quote, backslash or control character, eight at a
/// time.
fn plain_length(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGH: u64 = u64::from_le_bytes([0x80; 8]);
    // The lowest byte that is zero has its high bit set; bytes above it may be wrong.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    let (words, _) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let quotes = zeros(word ^ (ONES * u64::from(b'"')));
        let escapes = zeros(word ^ (ONES * u64::from(b'\\')));
        let controls = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
        let stops = quotes | escapes | controls;
        if stops != 0 {
            return index * 8 + (stops.trailing_zeros() / 8) as usize;
        }
    }
    let tail = words.len() * 8;
    let stop = |byte: &u8| *byte == b'"' || *byte == b'\\' || *byte < 0x20;
    let rest = bytes.get(tail..).unwrap_or_default();
    tail + rest.iter().position(stop).unwrap_or(rest.len())
}

fn escape_length(bytes: &[u8]) -> Option<usize> {
    match bytes {
        [
            _,
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't',
            ..,
        ] => Some(2),
        [_, b'u', digits @ ..] => {
            let digits = digits.first_chunk::<4>()?;
            digits.iter().all(u8::is_ascii_hexdigit).then_some(6)
        }
        _ => None,
    }
}

/// How long the number is that `bytes` begin with (RFC 8259 §6); `None` if it is none.
fn number_length(bytes: &[u8]) -> Option<usize> {
    let digits = |from: usize| {
        let rest = bytes.get(from..).unwrap_or_default();
        let end = rest.iter().position(|byte| !byte.is_ascii_digit());
        let length = end.unwrap_or(rest.len());
        (length > 0).then_some(from + length)
    };
    let mut at = usize::from(bytes.first() == Some(&b'-'));
    at = match bytes.get(at)? {
        b'0' => at + 1,
        _ => digits(at)?,
    };
    if bytes.get(at) == Some(&b'.') {
        at = digits(at + 1)?;
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        let sign = matches!(bytes.get(at + 1), Some(b'+' | b'-'));
        at = digits(at + 1 + usize::from(sign))?;
    }
    Some(at)
}

#[cfg(test)]
#[path = "refrain/tests.rs"]
mod tests;
