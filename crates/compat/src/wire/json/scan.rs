//! The scan: RFC 8259 in one pass over the bytes, without recursion where a value is
//! only passed over.

use std::borrow::Cow;
use std::collections::HashSet;

use super::{Field, Item, List, MAX_DEPTH, Malformed, Object, Shape, Value, unquote};

/// From this many fields on, the search for a duplicate key uses a set.
const SET_FROM: usize = 24;

/// Reads a whole document.
pub(super) fn document<'a>(source: &'a str, shape: &'static Shape) -> Result<Value<'a>, Malformed> {
    let mut scanner = Scanner {
        source,
        at: 0,
        depth: 0,
    };
    scanner.white_space();
    let mut value = scanner.value(Some(shape))?;
    let end = scanner.at;
    scanner.white_space();
    if scanner.peek().is_some() {
        return Err(scanner.unexpected("the end of the document"));
    }
    // White space around an object that was opened is part of it, so that nothing of
    // the source is lost.
    if let Value::Object(root) = &mut value {
        let open = source.find('{').map_or(0, |at| at + 1);
        root.open = source.get(..open).unwrap_or(root.open);
        root.close = source.get(end - root.close.len()..).unwrap_or(root.close);
    }
    Ok(value)
}

struct Scanner<'a> {
    source: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Scanner<'a> {
    fn bytes(&self) -> &'a [u8] {
        self.source.as_bytes()
    }

    fn peek(&self) -> Option<u8> {
        self.bytes().get(self.at).copied()
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

    fn unexpected(&self, expected: &'static str) -> Malformed {
        match self
            .source
            .get(self.at..)
            .and_then(|rest| rest.chars().next())
        {
            None => Malformed::Ended { expected },
            Some(got) => Malformed::Unexpected {
                expected,
                got,
                at: self.at,
            },
        }
    }

    fn eat(&mut self, byte: u8, expected: &'static str) -> Result<(), Malformed> {
        if self.peek() == Some(byte) {
            self.at += 1;
            return Ok(());
        }
        Err(self.unexpected(expected))
    }

    fn enter(&mut self) -> Result<(), Malformed> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Malformed::TooDeep { at: self.at });
        }
        Ok(())
    }

    fn value(&mut self, shape: Option<&'static Shape>) -> Result<Value<'a>, Malformed> {
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

    fn object(
        &mut self,
        shapes: &'static [(&'static str, Shape)],
    ) -> Result<Object<'a>, Malformed> {
        let start = self.at;
        self.enter()?;
        self.at += 1;
        let open = self.since(start);
        let mut fields: Vec<Field<'a>> = Vec::with_capacity(4);
        let mut seen = HashSet::new();
        let mut lead = self.at;
        self.white_space();
        if self.peek() != Some(b'}') {
            loop {
                self.white_space();
                let raw = self.key()?;
                let key = unquote(raw).unwrap_or(Cow::Borrowed(raw));
                let shape = shapes.iter().find(|(name, _)| *name == key);
                let value_at = self.at;
                let lead_text = self.since(lead);
                let value = self.value(shape.map(|(_, shape)| shape))?;
                if is_repeated(&fields, &mut seen, &key) {
                    return Err(Malformed::DuplicateKey {
                        key: key.into_owned(),
                        at: value_at,
                    });
                }
                let (tail, more) = self.tail(b'}', "`,` or `}` after a field")?;
                fields.push(Field {
                    key,
                    lead: Cow::Borrowed(lead_text),
                    value,
                    tail,
                });
                lead = self.at;
                if !more {
                    break;
                }
            }
        }
        let close = self.close(lead, b'}')?;
        Ok(Object {
            open,
            fields,
            close,
        })
    }

    fn list(&mut self, shape: &'static Shape) -> Result<List<'a>, Malformed> {
        let start = self.at;
        self.enter()?;
        self.at += 1;
        let open = self.since(start);
        let mut items = Vec::new();
        let mut lead = self.at;
        self.white_space();
        if self.peek() != Some(b']') {
            loop {
                self.white_space();
                let lead_text = self.since(lead);
                let value = self.value(Some(shape))?;
                let (tail, more) = self.tail(b']', "`,` or `]` after an item")?;
                items.push(Item {
                    lead: lead_text,
                    value,
                    tail,
                });
                lead = self.at;
                if !more {
                    break;
                }
            }
        }
        let close = self.close(lead, b']')?;
        Ok(List { open, items, close })
    }

    /// White space and comma after a value; whether another value follows.
    fn tail(&mut self, end: u8, expected: &'static str) -> Result<(&'a str, bool), Malformed> {
        let start = self.at;
        self.white_space();
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                Ok((self.since(start), true))
            }
            Some(byte) if byte == end => Ok((self.since(start), false)),
            _ => Err(self.unexpected(expected)),
        }
    }

    fn close(&mut self, lead: usize, end: u8) -> Result<&'a str, Malformed> {
        self.eat(end, "a closing bracket")?;
        self.depth -= 1;
        Ok(self.since(lead))
    }

    /// A key as written, its colon and the white space up to the value.
    fn key(&mut self) -> Result<&'a str, Malformed> {
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
    fn skip(&mut self) -> Result<(), Malformed> {
        let floor = self.depth;
        let mut closers: Vec<u8> = Vec::new();
        loop {
            match self.peek() {
                Some(b'{') if self.open(b'}')? => {
                    closers.push(b'}');
                    self.key()?;
                    continue;
                }
                Some(b'[') if self.open(b']')? => {
                    closers.push(b']');
                    continue;
                }
                // Opened and closed at once.
                Some(b'{' | b'[') => {}
                _ => self.scalar()?,
            }
            if !self.after_value(&mut closers)? {
                self.depth = floor;
                return Ok(());
            }
        }
    }

    /// Enters a container; whether there is anything in it.
    fn open(&mut self, closer: u8) -> Result<bool, Malformed> {
        self.enter()?;
        self.at += 1;
        self.white_space();
        if self.peek() != Some(closer) {
            return Ok(true);
        }
        self.at += 1;
        self.depth -= 1;
        Ok(false)
    }

    /// Closes what ends after a value; whether another value follows.
    fn after_value(&mut self, closers: &mut Vec<u8>) -> Result<bool, Malformed> {
        while let Some(&closer) = closers.last() {
            self.white_space();
            match self.peek() {
                Some(b',') => {
                    self.at += 1;
                    self.white_space();
                    if closer == b'}' {
                        self.key()?;
                    }
                    return Ok(true);
                }
                Some(byte) if byte == closer => {
                    self.at += 1;
                    self.depth -= 1;
                    closers.pop();
                }
                _ => return Err(self.unexpected("`,` or a closing bracket")),
            }
        }
        Ok(false)
    }

    fn scalar(&mut self) -> Result<(), Malformed> {
        match self.peek() {
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.literal("true"),
            Some(b'f') => self.literal("false"),
            Some(b'n') => self.literal("null"),
            _ => Err(self.unexpected("a value")),
        }
    }

    fn literal(&mut self, word: &'static str) -> Result<(), Malformed> {
        for byte in word.bytes() {
            self.eat(byte, word)?;
        }
        Ok(())
    }

    /// RFC 8259 §6.
    fn number(&mut self) -> Result<(), Malformed> {
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

    fn digits(&mut self) -> Result<(), Malformed> {
        if !matches!(self.peek(), Some(b'0'..=b'9')) {
            return Err(self.unexpected("a digit"));
        }
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        Ok(())
    }

    /// RFC 8259 §7; leaves `at` behind the closing quote.
    fn string(&mut self) -> Result<(), Malformed> {
        self.at += 1;
        loop {
            let rest = self.bytes().get(self.at..).unwrap_or_default();
            self.at += plain_length(rest);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    self.at += 1;
                    self.escape()?;
                }
                Some(_) => return Err(self.unexpected("an escaped control character")),
                None => return Err(self.unexpected("a closing quote")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Malformed> {
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 1;
                Ok(())
            }
            Some(b'u') => {
                self.at += 1;
                for _ in 0..4 {
                    if !self.peek().is_some_and(|byte| byte.is_ascii_hexdigit()) {
                        return Err(self.unexpected("four hexadecimal digits"));
                    }
                    self.at += 1;
                }
                Ok(())
            }
            _ => Err(self.unexpected("an escape character")),
        }
    }
}

/// How many bytes come before the first quote, backslash or control character: eight
/// at a time, because a body is mostly the insides of strings, and in source code an
/// escape comes too often for a call per run to pay.
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

/// Whether `key` is among `fields`; a set takes over where a scan would be quadratic.
fn is_repeated(fields: &[Field<'_>], seen: &mut HashSet<String>, key: &str) -> bool {
    if fields.len() < SET_FROM {
        return fields.iter().any(|field| field.key == key);
    }
    if seen.is_empty() {
        seen.extend(fields.iter().map(|field| field.key.clone().into_owned()));
    }
    !seen.insert(key.to_owned())
}
