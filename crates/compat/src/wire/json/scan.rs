//! The scan: RFC 8259 in one pass, without recursion where a value is only passed over.
//!
//! What is inside strings is not looked at here: [`Stops`] knows where they end.

use std::borrow::Cow;
use std::collections::HashSet;
use std::num::NonZeroU32;

use super::stops::Stops;
use super::{Field, Frame, Item, List, MAX_DEPTH, Malformed, Object, Place, Shape, Value, unquote};

/// From this many fields on, the search for a duplicate key uses a set.
const SET_FROM: usize = 24;

/// Reads a whole document.
pub(super) fn document<'a>(source: &'a str, shape: &'static Shape) -> Scanned<Value<'a>> {
    if u32::try_from(source.len()).is_err() {
        return Err(Box::new(Malformed::TooLong));
    }
    let mut scanner = Scanner {
        source,
        stops: Stops::of(source.as_bytes()),
        at: 0,
        depth: 0,
        objects: [0; MAX_DEPTH / 64],
    };
    scanner.white_space();
    let mut value = scanner.value(Some(shape))?;
    scanner.white_space();
    if scanner.peek().is_some() {
        return Err(scanner.unexpected("the end of the document"));
    }
    // White space around an object that was opened is part of it, so that nothing of
    // the source is lost.
    if let Value::Object(root) = &mut value {
        root.frame.start = 0;
        root.frame.end = border(source.len());
    }
    Ok(value)
}

/// An error is boxed, so that what is right fits into a register.
type Scanned<T> = Result<T, Box<Malformed>>;

struct Scanner<'a> {
    source: &'a str,
    stops: Stops,
    at: usize,
    depth: usize,
    /// One bit for each level: whether it is an object.
    objects: [u64; MAX_DEPTH / 64],
}

impl<'a> Scanner<'a> {
    fn peek(&self) -> Option<u8> {
        self.source.as_bytes().get(self.at).copied()
    }

    fn since(&self, start: usize) -> &'a str {
        // Both ends stand beside ASCII bytes, so they are character boundaries.
        self.source.get(start..self.at).unwrap_or_default()
    }

    fn white_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    #[cold]
    fn unexpected(&self, expected: &'static str) -> Box<Malformed> {
        let rest = self.source.get(self.at..).unwrap_or_default();
        Box::new(match rest.chars().next() {
            None => Malformed::Ended { expected },
            Some(got) => Malformed::Unexpected {
                expected,
                got,
                at: self.at,
            },
        })
    }

    fn eat(&mut self, byte: u8, expected: &'static str) -> Scanned<()> {
        if self.peek() == Some(byte) {
            self.at += 1;
            return Ok(());
        }
        Err(self.unexpected(expected))
    }

    /// Goes behind an opening bracket.
    fn enter(&mut self, bracket: u8) -> Scanned<()> {
        let Some(word) = self.objects.get_mut(self.depth / 64) else {
            return Err(Box::new(Malformed::TooDeep { at: self.at }));
        };
        let bit = 1 << (self.depth % 64);
        if bracket == b'{' {
            *word |= bit;
        } else {
            *word &= !bit;
        }
        self.depth += 1;
        self.at += 1;
        Ok(())
    }

    /// Whether the innermost level is an object.
    fn in_object(&self) -> bool {
        let level = self.depth.wrapping_sub(1);
        let word = self.objects.get(level / 64);
        word.is_some_and(|word| word >> (level % 64) & 1 == 1)
    }

    /// A value, opened as its shape says.
    #[inline]
    fn value(&mut self, shape: Option<&'static Shape>) -> Scanned<Value<'a>> {
        match (self.peek(), shape) {
            (Some(b'{'), Some(Shape::Object(keys))) => self.object(keys).map(Value::Object),
            (Some(b'['), Some(Shape::List(item))) => self.list(item).map(Value::List),
            _ => {
                let start = self.at;
                self.skip()?;
                Ok(Value::Raw(self.since(start)))
            }
        }
    }

    fn object(&mut self, shapes: &'static [(&'static str, Shape)]) -> Scanned<Box<Object<'a>>> {
        let start = self.at;
        self.enter(b'{')?;
        let mut fields: Vec<Field<'a>> = Vec::new();
        let mut seen = None;
        let mut lead = self.at;
        self.white_space();
        if self.peek() != Some(b'}') {
            // What most objects hold, with room for what a pass may add.
            fields.reserve_exact(4);
            loop {
                self.white_space();
                let raw = self.key()?;
                let key = unquote(raw).unwrap_or(Cow::Borrowed(raw));
                let shape = shapes.iter().find(|(name, _)| *name == key);
                let value_at = self.at;
                // Filled in where it stands: it is too large to be moved about.
                let field = fields.push_mut(Field {
                    key,
                    value: Value::Raw(""),
                    place: None,
                });
                field.value = self.value(shape.map(|(_, shape)| shape))?;
                let tail = self.at;
                let more = self.tail(b'}', "`,` or `}` after a field")?;
                field.place = place([lead, value_at, tail, self.at]);
                if is_repeated(&fields, &mut seen) {
                    let key = fields.pop().map(|field| field.key.into_owned());
                    return Err(Box::new(Malformed::DuplicateKey {
                        key: key.unwrap_or_default(),
                        at: value_at,
                    }));
                }
                lead = self.at;
                if !more {
                    break;
                }
            }
        }
        self.close(b'}')?;
        let frame = self.frame(start, lead);
        Ok(Box::new(Object { fields, frame }))
    }

    fn list(&mut self, shape: &'static Shape) -> Scanned<Box<List<'a>>> {
        let start = self.at;
        self.enter(b'[')?;
        let mut items: Vec<Item<'a>> = Vec::new();
        let mut lead = self.at;
        self.white_space();
        if self.peek() != Some(b']') {
            // Most lists are the calls of a turn, and most turns have one.
            items.reserve_exact(1);
            loop {
                self.white_space();
                let item = items.push_mut(Item {
                    value: Value::Raw(""),
                    place: None,
                });
                let value_at = self.at;
                item.value = self.value(Some(shape))?;
                let tail = self.at;
                let more = self.tail(b']', "`,` or `]` after an item")?;
                item.place = place([lead, value_at, tail, self.at]);
                lead = self.at;
                if !more {
                    break;
                }
            }
        }
        self.close(b']')?;
        let frame = self.frame(start, lead);
        Ok(Box::new(List { items, frame }))
    }

    /// White space and comma after a value; whether another value follows.
    #[inline]
    fn tail(&mut self, end: u8, expected: &'static str) -> Scanned<bool> {
        self.white_space();
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            Some(byte) if byte == end => Ok(false),
            _ => Err(self.unexpected(expected)),
        }
    }

    fn close(&mut self, end: u8) -> Scanned<()> {
        self.eat(end, "a closing bracket")?;
        self.depth -= 1;
        Ok(())
    }

    /// Of an object or list that begins at `start`, whose end begins at `close`.
    fn frame(&self, start: usize, close: usize) -> Frame<'a> {
        Frame {
            document: self.source,
            start: border(start),
            open: border(start + 1),
            close: border(close),
            end: border(self.at),
            edited: false,
        }
    }

    /// A key as written, its colon and the white space up to the value.
    fn key(&mut self) -> Scanned<&'a str> {
        let start = self.at;
        if self.peek() != Some(b'"') {
            return Err(self.unexpected("a key in double quotes"));
        }
        self.string()?;
        let raw = self.since(start);
        self.white_space();
        self.eat(b':', "`:` after a key")?;
        self.white_space();
        Ok(raw)
    }

    /// Passes over one value without recursion.
    fn skip(&mut self) -> Scanned<()> {
        let floor = self.depth;
        loop {
            match self.peek() {
                Some(b'{') => {
                    if self.open(b'{', b'}')? {
                        self.key()?;
                        continue;
                    }
                }
                Some(b'[') => {
                    if self.open(b'[', b']')? {
                        continue;
                    }
                }
                _ => self.scalar()?,
            }
            if !self.after_value(floor)? {
                return Ok(());
            }
        }
    }

    /// Enters a container; whether there is anything in it. One that is empty is left again.
    fn open(&mut self, bracket: u8, closer: u8) -> Scanned<bool> {
        self.enter(bracket)?;
        self.white_space();
        if self.peek() != Some(closer) {
            return Ok(true);
        }
        self.at += 1;
        self.depth -= 1;
        Ok(false)
    }

    /// Closes what ends after a value, down to `floor`; whether another value follows.
    fn after_value(&mut self, floor: usize) -> Scanned<bool> {
        while self.depth > floor {
            self.white_space();
            match (self.peek(), self.in_object()) {
                (Some(b','), in_object) => {
                    self.at += 1;
                    self.white_space();
                    if in_object {
                        self.key()?;
                    }
                    return Ok(true);
                }
                (Some(b'}'), true) | (Some(b']'), false) => {
                    self.at += 1;
                    self.depth -= 1;
                }
                _ => return Err(self.unexpected("`,` or a closing bracket")),
            }
        }
        Ok(false)
    }

    fn scalar(&mut self) -> Scanned<()> {
        match self.peek() {
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.literal("true"),
            Some(b'f') => self.literal("false"),
            Some(b'n') => self.literal("null"),
            _ => Err(self.unexpected("a value")),
        }
    }

    fn literal(&mut self, word: &'static str) -> Scanned<()> {
        for byte in word.bytes() {
            self.eat(byte, word)?;
        }
        Ok(())
    }

    /// RFC 8259 §6.
    fn number(&mut self) -> Scanned<()> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Scanned<()> {
        if !matches!(self.peek(), Some(b'0'..=b'9')) {
            return Err(self.unexpected("a digit"));
        }
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        Ok(())
    }

    /// RFC 8259 §7; leaves `at` behind the closing quote.
    fn string(&mut self) -> Scanned<()> {
        let start = self.at;
        self.at += 1;
        loop {
            self.at = self.stops.next(self.at).min(self.source.len());
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'u') => self.hexadecimal()?,
                _ => return Err(self.bad_string(start)),
            }
        }
    }

    /// The `u` of an escape and its digits.
    fn hexadecimal(&mut self) -> Scanned<()> {
        self.at += 1;
        for _ in 0..4 {
            if !self.peek().is_some_and(|byte| byte.is_ascii_hexdigit()) {
                return Err(self.unexpected("four hexadecimal digits"));
            }
            self.at += 1;
        }
        Ok(())
    }

    /// What is wrong where the string that begins at `start` cannot go on.
    #[cold]
    fn bad_string(&self, start: usize) -> Box<Malformed> {
        let inside = self.since(start + 1).bytes().rev();
        let escaped = inside.take_while(|byte| *byte == b'\\').count() % 2 == 1;
        self.unexpected(match self.peek() {
            _ if escaped => "an escape character",
            Some(_) => "an escaped control character",
            None => "a closing quote",
        })
    }
}

/// A place in a document, which is less than 4 GiB long.
fn border(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

fn place(borders: [usize; 4]) -> Option<Place> {
    let [lead, value, tail, end] = borders.map(|at| NonZeroU32::new(border(at)));
    Some(Place {
        lead: lead?,
        value: value?,
        tail: tail?,
        end: end?,
    })
}

/// Whether the key of the last field is that of another as well; a set takes over where a
/// search would be quadratic.
fn is_repeated(fields: &[Field<'_>], seen: &mut Option<HashSet<String>>) -> bool {
    let Some((last, others)) = fields.split_last() else {
        return false;
    };
    if others.len() < SET_FROM {
        return others.iter().any(|field| field.key == last.key);
    }
    let key = |field: &Field<'_>| field.key.clone().into_owned();
    let seen = seen.get_or_insert_with(|| others.iter().map(key).collect());
    !seen.insert(key(last))
}
