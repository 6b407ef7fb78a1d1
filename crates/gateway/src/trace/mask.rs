//! Hides what people and models wrote, and keeps its shape.
//!
//! Every letter of a hidden text becomes a letter of the same size in UTF-8 and every digit a `0`; punctuation, spaces
//! and escapes stay. So lengths, JSON, the cuts of a stream and a separator in a command stay, and the words do not:
//!
//! ```text
//! {"role":"user","content":"Is 42 it?\n"}       {"role":"user","content":"xx 00 xx?\n"}
//! {"arguments":"{\"command\": \"rm a; ls\"}"}   {"arguments":"{\"command\": \"xx x; xx\"}"}
//! ```
//!
//! Hidden is every string except under the keys in [`KEPT`]: what is new in a protocol is hidden until it is known to
//! be harmless. In `arguments`, which hold JSON in a string, member names stay; in a stream they come in fragments, so
//! where a fragment stands is remembered for each call.

use std::collections::HashMap;

/// Masks a body. What is not the JSON it should be is masked whole.
pub(super) fn masked(body: &[u8], event_stream: bool) -> Vec<u8> {
    let text = String::from_utf8_lossy(body);
    let mut masker = Masker {
        out: String::with_capacity(text.len()),
        fragments: event_stream.then(HashMap::new),
    };
    if event_stream {
        text.split_inclusive('\n')
            .for_each(|line| masker.line(line));
    } else {
        masker.document(&text);
    }
    masker.out.into_bytes()
}

/// Whether a body is an event stream, by its first line that is not blank.
pub(super) fn is_event_stream(body: &[u8]) -> bool {
    let first = body.trim_ascii_start();
    first.first() == Some(&b':')
        || FIELDS
            .iter()
            .any(|field| first.starts_with(field.as_bytes()))
}

struct Masker {
    out: String,
    /// Where the arguments of each call stand, by choice and call; none in a body that is whole.
    fragments: Option<HashMap<(u64, u64), Arguments>>,
}

/// A place in a JSON text.
struct Scan<'a> {
    text: &'a str,
    at: usize,
}

/// Which call a value belongs to.
#[derive(Clone, Copy, Default)]
struct Place {
    choice: u64,
    call: u64,
    depth: usize,
    /// Inside of arguments that are an object: no key makes a string harmless.
    arguments: bool,
}

/// The text is not JSON from here on.
struct NotJson;

/// What of a JSON text inside a string has gone by.
#[derive(Clone, Debug, Default)]
struct Arguments {
    /// For each open bracket, whether it is an object's.
    objects: Vec<bool>,
    in_string: bool,
    /// The string at hand, or else the next one, is a member's name.
    name: bool,
    escaped: bool,
    /// Digits of a `\u` escape still to come.
    hex: u8,
    /// Letters of the literal at hand.
    literal: String,
}

// === impl Masker ===

impl Masker {
    /// One line of an event stream, line end included.
    fn line(&mut self, line: &str) {
        match line.strip_prefix("data:") {
            Some(data) => {
                self.out.push_str("data:");
                if data.trim() == "[DONE]" {
                    self.out.push_str(data);
                } else {
                    self.document(data);
                }
            }
            None if FIELDS.iter().any(|field| line.starts_with(field)) => self.out.push_str(line),
            None => self.hide(line),
        }
    }

    fn document(&mut self, text: &str) {
        let start = self.out.len();
        let mut scan = Scan { text, at: 0 };
        let whole = self.value(&mut scan, "", Place::default()).and_then(|()| {
            self.space(&mut scan);
            if scan.at == text.len() {
                Ok(())
            } else {
                Err(NotJson)
            }
        });
        if whole.is_err() {
            self.out.truncate(start);
            self.hide(text);
        }
    }

    fn value(&mut self, scan: &mut Scan<'_>, key: &str, place: Place) -> Result<(), NotJson> {
        if place.depth > MAX_DEPTH {
            return Err(NotJson);
        }
        let arguments = place.arguments || ARGUMENTS.contains(&key);
        let place = Place {
            depth: place.depth + 1,
            arguments,
            ..place
        };
        self.space(scan);
        match scan.peek() {
            Some(b'{') => self.object(scan, place),
            Some(b'[') => self.list(scan, key, place),
            Some(b'"') => {
                let raw = scan.string()?;
                self.string(raw, key, place);
                Ok(())
            }
            Some(_) => {
                let rest = &scan.text[scan.at..];
                let end = rest
                    .find(|c: char| !c.is_ascii_alphanumeric() && !"+-.".contains(c))
                    .unwrap_or(rest.len());
                if end == 0 {
                    return Err(NotJson);
                }
                self.out.push_str(&rest[..end]);
                scan.at += end;
                Ok(())
            }
            None => Err(NotJson),
        }
    }

    fn object(&mut self, scan: &mut Scan<'_>, place: Place) -> Result<(), NotJson> {
        let place = place.within(scan);
        self.take(scan, b'{')?;
        self.space(scan);
        if scan.peek() == Some(b'}') {
            return self.take(scan, b'}');
        }
        loop {
            self.space(scan);
            let key = scan.string()?;
            self.out.push_str(key);
            self.space(scan);
            self.take(scan, b':')?;
            self.value(scan, key.trim_matches('"'), place)?;
            self.space(scan);
            if scan.peek() == Some(b'}') {
                return self.take(scan, b'}');
            }
            self.take(scan, b',')?;
        }
    }

    fn list(&mut self, scan: &mut Scan<'_>, key: &str, place: Place) -> Result<(), NotJson> {
        self.take(scan, b'[')?;
        self.space(scan);
        if scan.peek() == Some(b']') {
            return self.take(scan, b']');
        }
        for index in 0.. {
            self.value(scan, key, place.item(key, index))?;
            self.space(scan);
            if scan.peek() == Some(b']') {
                break;
            }
            self.take(scan, b',')?;
        }
        self.take(scan, b']')
    }

    fn string(&mut self, raw: &str, key: &str, place: Place) {
        if KEPT.contains(&key) && !place.arguments {
            self.out.push_str(raw);
            return;
        }
        let inner = &raw[1..raw.len() - 1];
        self.out.push('"');
        if key == "arguments" {
            let mut whole = Arguments::default();
            let arguments = match &mut self.fragments {
                Some(fragments) => fragments.entry((place.choice, place.call)).or_default(),
                None => &mut whole,
            };
            arguments.hide(inner, &mut self.out);
        } else {
            hide_string(inner, &mut self.out);
        }
        self.out.push('"');
    }

    /// Text outside of any JSON.
    fn hide(&mut self, text: &str) {
        self.out.extend(text.chars().map(hidden));
    }

    fn space(&mut self, scan: &mut Scan<'_>) {
        let rest = &scan.text[scan.at..];
        let end = rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
        self.out.push_str(&rest[..end]);
        scan.at += end;
    }

    fn take(&mut self, scan: &mut Scan<'_>, byte: u8) -> Result<(), NotJson> {
        if scan.peek() != Some(byte) {
            return Err(NotJson);
        }
        scan.at += 1;
        self.out.push(char::from(byte));
        Ok(())
    }
}

/// The inside of a JSON string: escapes stay what they are, except that an escaped character is hidden too.
fn hide_string(inner: &str, out: &mut String) {
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(hidden(c));
            continue;
        }
        out.push(c);
        match chars.next() {
            Some('u') => {
                out.push_str("u0078"); // whatever it was, it is now an x
                chars.by_ref().take(4).for_each(drop);
            }
            Some(escaped) => out.push(escaped),
            None => {}
        }
    }
}

/// A character of the same kind, and of the same length in UTF-8.
fn hidden(c: char) -> char {
    match c.len_utf8() {
        1 if c.is_ascii_digit() => '0',
        1 if c.is_ascii_uppercase() => 'X',
        1 if c.is_ascii_lowercase() => 'x',
        2 if c.is_alphanumeric() => 'é',
        3 if c.is_alphanumeric() => '字',
        4 => '𝐱',
        _ => c,
    }
}

// === impl Scan ===

impl<'a> Scan<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The string here, quotes included.
    fn string(&mut self) -> Result<&'a str, NotJson> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        if self.peek() != Some(b'"') {
            return Err(NotJson);
        }
        let mut end = start + 1;
        loop {
            match bytes.get(end) {
                Some(b'"') => break,
                Some(b'\\') => end += 2,
                Some(_) => end += 1,
                None => return Err(NotJson),
            }
        }
        self.at = end + 1;
        Ok(&self.text[start..self.at])
    }
}

// === impl Place ===

impl Place {
    fn item(self, key: &str, index: u64) -> Self {
        match key {
            "choices" => Self {
                choice: index,
                ..self
            },
            "tool_calls" => Self {
                call: index,
                ..self
            },
            _ => self,
        }
    }

    /// The place inside the object that starts here: its `index`, if it has one, says better than its position.
    fn within(self, scan: &Scan<'_>) -> Self {
        // A call's or choice's index stands before anything nested in it, in every stream seen.
        let rest = &scan.text[scan.at + 1..];
        let flat = &rest[..rest.find(['{', '[']).unwrap_or(rest.len())];
        let Some((_, after)) = flat.split_once("\"index\"") else {
            return self;
        };
        let digits = after.trim_start_matches([' ', ':']);
        let end = digits
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(digits.len());
        let Ok(index) = digits[..end].parse() else {
            return self;
        };
        // A choice is the object at depth 3: {"choices":[{…}]}.
        if self.depth <= CHOICE_DEPTH {
            Self {
                choice: index,
                ..self
            }
        } else {
            Self {
                call: index,
                ..self
            }
        }
    }
}

// === impl Arguments ===

impl Arguments {
    /// Hides the next fragment: `inner` is the inside of a JSON string that holds a piece of JSON.
    fn hide(&mut self, inner: &str, out: &mut String) {
        let mut chars = inner.chars();
        while let Some(c) = chars.next() {
            if c != '\\' {
                let shown = self.next(c);
                out.push(shown);
                continue;
            }
            out.push('\\');
            match chars.next() {
                // Only `"` and `\` mean something to the JSON inside.
                Some(c @ ('"' | '\\')) => {
                    self.next(c);
                    out.push(c);
                }
                Some('u') => {
                    let code: String = chars.by_ref().take(4).collect();
                    let decoded = u32::from_str_radix(&code, 16).ok().and_then(char::from_u32);
                    let kept = decoded.is_some_and(|c| !c.is_alphanumeric() && self.next(c) == c);
                    out.push('u');
                    out.push_str(if kept { &code } else { "0078" });
                }
                Some(c) => {
                    self.next(' ');
                    out.push(c);
                }
                None => {}
            }
        }
    }

    /// One character of the JSON inside; returns what to show for it.
    fn next(&mut self, c: char) -> char {
        if !self.in_string {
            return self.outside(c);
        }
        if self.hex > 0 {
            self.hex -= 1;
            return if self.name { c } else { '0' };
        }
        if std::mem::replace(&mut self.escaped, false) {
            self.hex = if c == 'u' { 4 } else { 0 };
            return c;
        }
        match c {
            '\\' => self.escaped = true,
            '"' => self.in_string = false,
            _ if !self.name => return hidden(c),
            _ => {}
        }
        c
    }

    fn outside(&mut self, c: char) -> char {
        let in_object = self.objects.last() == Some(&true);
        match c {
            '{' | '[' => {
                self.objects.push(c == '{');
                self.name = c == '{';
            }
            '}' | ']' => {
                self.objects.pop();
            }
            ',' => self.name = in_object,
            ':' => self.name = false,
            '"' => self.in_string = true,
            _ => {}
        }
        self.literal_letter(c)
    }

    /// `true`, `false`, `null` and exponents stay; letters that are no JSON are hidden.
    fn literal_letter(&mut self, c: char) -> char {
        if c.is_ascii_digit() {
            return '1'; // never a leading zero
        }
        if !c.is_alphabetic() {
            self.literal.clear();
            return c;
        }
        self.literal.push(c);
        let known = LITERALS
            .iter()
            .any(|literal| literal.starts_with(&self.literal));
        if known { c } else { hidden(c) }
    }
}

/// Keys whose strings are names, kinds and ids: what a defect is about.
const KEPT: [&str; 22] = [
    "code",
    "effort",
    "finish_reason",
    "format",
    "id",
    "model",
    "name",
    "native_finish_reason",
    "object",
    "param",
    "provider",
    "reasoning_effort",
    "required",
    "role",
    "service_tier",
    "status",
    "system_fingerprint",
    "tool_call_id",
    "tool_choice",
    "tool_use_id",
    "type",
    "verbosity",
];

/// Keys whose value is what a tool is called with.
const ARGUMENTS: [&str; 2] = ["arguments", "input"];

const FIELDS: [&str; 5] = ["data:", "event:", "id:", "retry:", ":"];
const LITERALS: [&str; 5] = ["true", "false", "null", "e", "E"];
const CHOICE_DEPTH: usize = 3;
const MAX_DEPTH: usize = 128;

#[cfg(test)]
#[path = "mask_tests.rs"]
mod tests;
