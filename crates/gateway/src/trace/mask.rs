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
//! What is shown is listed, by where it stands, in [`area`]; everything else is hidden, and so is the whole of a text
//! that is not the JSON it should be. In `arguments`, which hold JSON in a string, only those member names are shown
//! that the request's tools declare. In a stream they come in fragments: these are first put together for each call,
//! judged as a whole, and then shown piece by piece.

mod area;
mod scan;

use std::collections::{HashMap, HashSet, VecDeque};

use serde_json::Value;

use area::{Area, is_plain};
use scan::{NotJson, Scan};

/// Masks a body.
pub(super) fn masked(body: &[u8], event_stream: bool, declared: &Declared) -> Vec<u8> {
    let text = String::from_utf8_lossy(body);
    if !event_stream {
        return masked_document(&text, Area::Outside, declared).into_bytes();
    }
    let mut said = HashMap::new();
    masked_stream(&text, Fragments::Collect(&mut said), declared);
    let judged = |(call, whole): (CallId, String)| {
        let shown = masked_document(&whole, Area::Arguments, declared);
        (call, shown.chars().collect())
    };
    let mut judged = said.into_iter().map(judged).collect();
    masked_stream(&text, Fragments::Judged(&mut judged), declared).into_bytes()
}

/// Whether a body is an event stream, by its first line that is not blank.
pub(super) fn is_event_stream(body: &[u8]) -> bool {
    let first = body.trim_ascii_start();
    FIELDS
        .iter()
        .any(|field| first.starts_with(field.as_bytes()))
}

/// The member names that a request's tools declare for their arguments.
#[derive(Debug, Default)]
pub(super) struct Declared(HashSet<String>);

struct Masker<'m> {
    out: String,
    declared: &'m Declared,
    fragments: Fragments<'m>,
}

/// What becomes of arguments.
enum Fragments<'m> {
    /// They are put together.
    Collect(&'m mut HashMap<CallId, String>),
    /// They are shown as their whole was judged.
    Judged(&'m mut HashMap<CallId, VecDeque<char>>),
    /// They are whole.
    Whole,
}

/// A call of a stream: its choice, and its own index, if it is one of several.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
struct CallId {
    choice: u64,
    call: Option<u64>,
}

/// Where a value stands.
#[derive(Clone, Copy)]
struct Place {
    area: Area,
    call: CallId,
    depth: usize,
}

/// A character of a JSON string: how it is spelled, and what it means.
struct Unit<'a> {
    raw: &'a str,
    means: char,
}

fn masked_stream(text: &str, fragments: Fragments<'_>, declared: &Declared) -> String {
    let mut masker = Masker::new(text, fragments, declared);
    text.split_inclusive('\n')
        .for_each(|line| masker.line(line));
    masker.out
}

fn masked_document(text: &str, area: Area, declared: &Declared) -> String {
    let mut masker = Masker::new(text, Fragments::Whole, declared);
    masker.document(text, area);
    masker.out
}

// === impl Declared ===

impl Declared {
    /// Those of a request body; none if that is not JSON.
    pub(super) fn of(request: &[u8]) -> Self {
        let request: Value = serde_json::from_slice(request).unwrap_or_default();
        let mut names = HashSet::new();
        for tool in request["tools"].as_array().into_iter().flatten() {
            collect_properties(&tool["function"]["parameters"], &mut names);
        }
        Self(names)
    }
}

/// The names under every `properties` of a schema.
fn collect_properties(schema: &Value, names: &mut HashSet<String>) {
    if let Some(properties) = schema["properties"].as_object() {
        let plain = properties.keys().filter(|name| is_plain(name));
        names.extend(plain.cloned());
    }
    match schema {
        Value::Array(items) => items
            .iter()
            .for_each(|item| collect_properties(item, names)),
        Value::Object(members) => members
            .values()
            .for_each(|member| collect_properties(member, names)),
        _ => {}
    }
}

// === impl Masker ===

impl<'m> Masker<'m> {
    fn new(text: &str, fragments: Fragments<'m>, declared: &'m Declared) -> Self {
        Self {
            out: String::with_capacity(text.len()),
            declared,
            fragments,
        }
    }

    /// One line of an event stream, line end included.
    fn line(&mut self, line: &str) {
        let field = FIELDS.iter().find(|field| line.starts_with(**field));
        let (field, value) = line.split_at(field.map_or(0, |field| field.len()));
        self.out.push_str(field);
        match field {
            "data:" if value.trim() != "[DONE]" => self.document(value, Area::Outside),
            "data:" => self.out.push_str(value),
            "event:" if is_plain(value.trim()) => self.out.push_str(value),
            _ => self.hide(value),
        }
    }

    fn document(&mut self, text: &str, area: Area) {
        let start = self.out.len();
        if self.try_document(text, area).is_err() {
            self.out.truncate(start);
            self.hide(text);
        }
    }

    fn try_document(&mut self, text: &str, area: Area) -> Result<(), NotJson> {
        let mut scan = Scan::new(text);
        let place = Place {
            area,
            call: CallId::default(),
            depth: 0,
        };
        self.value(&mut scan, "", place)?;
        self.out.push_str(scan.space());
        scan.is_at_end().then_some(()).ok_or(NotJson)
    }

    /// The value of the member `key` of what stands at `place`.
    fn value(&mut self, scan: &mut Scan<'_>, key: &str, place: Place) -> Result<(), NotJson> {
        if place.depth > MAX_DEPTH {
            return Err(NotJson);
        }
        self.out.push_str(scan.space());
        match scan.peek() {
            Some(b'{') => self.object(scan, place.into(key, scan)),
            Some(b'[') => self.list(scan, key, place),
            Some(b'"') => {
                let inner = scan.string()?;
                self.out.push('"');
                self.string(inner, key, place);
                self.out.push('"');
                Ok(())
            }
            _ => {
                let literal = scan.literal()?;
                if place.area.shows_number(key) {
                    self.out.push_str(literal);
                } else {
                    hide_number(literal, &mut self.out);
                }
                Ok(())
            }
        }
    }

    fn object(&mut self, scan: &mut Scan<'_>, place: Place) -> Result<(), NotJson> {
        self.take(scan, b'{')?;
        if self.closes(scan, b'}') {
            return Ok(());
        }
        loop {
            self.out.push_str(scan.space());
            let name = scan.string()?;
            self.out.push('"');
            if place.area.shows_name(name)
                || place.area == Area::Arguments && self.declared.0.contains(name)
            {
                self.out.push_str(name);
            } else {
                hide_string(name, &mut self.out);
            }
            self.out.push('"');
            self.out.push_str(scan.space());
            self.take(scan, b':')?;
            self.value(scan, name, place)?;
            if self.closes(scan, b'}') {
                return Ok(());
            }
            self.take(scan, b',')?;
        }
    }

    fn list(&mut self, scan: &mut Scan<'_>, key: &str, place: Place) -> Result<(), NotJson> {
        self.take(scan, b'[')?;
        let mut index = 0;
        if self.closes(scan, b']') {
            return Ok(());
        }
        loop {
            self.out.push_str(scan.space());
            self.value(scan, key, place.item(key, index, scan))?;
            if self.closes(scan, b']') {
                return Ok(());
            }
            self.take(scan, b',')?;
            index += 1;
        }
    }

    fn string(&mut self, inner: &str, key: &str, place: Place) {
        if place.area.shows_text(key, inner) {
            self.out.push_str(inner);
        } else if place.area == Area::Function && key == "arguments" {
            self.arguments(inner, place.call);
        } else {
            hide_string(inner, &mut self.out);
        }
    }

    /// The inside of a JSON string that holds JSON, or a piece of it.
    fn arguments(&mut self, inner: &str, call: CallId) {
        let text = || units(inner).map(|unit| unit.means);
        match &mut self.fragments {
            Fragments::Collect(said) => said.entry(call).or_default().extend(text()),
            Fragments::Judged(judged) => {
                let shown = judged.entry(call).or_default();
                for unit in units(inner) {
                    let shown = shown.pop_front().unwrap_or_else(|| hidden(unit.means));
                    unit.shown_as(shown, &mut self.out);
                }
            }
            Fragments::Whole => {
                let text: String = text().collect();
                let shown = masked_document(&text, Area::Arguments, self.declared);
                for (unit, shown) in units(inner).zip(shown.chars()) {
                    unit.shown_as(shown, &mut self.out);
                }
            }
        }
    }

    /// Text outside of any JSON.
    fn hide(&mut self, text: &str) {
        self.out.extend(text.chars().map(hidden));
    }

    /// Takes white space, and the bracket if it is there.
    fn closes(&mut self, scan: &mut Scan<'_>, bracket: u8) -> bool {
        self.out.push_str(scan.space());
        scan.peek() == Some(bracket) && self.take(scan, bracket).is_ok()
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

fn hide_string(inner: &str, out: &mut String) {
    for unit in units(inner) {
        unit.shown_as(hidden(unit.means), out);
    }
}

/// Another number of the same spelling; `true`, `false` and `null` stay.
fn hide_number(literal: &str, out: &mut String) {
    let mut digit = '1'; // never a leading zero
    for c in literal.chars() {
        match c {
            '0'..='9' => out.push(digit),
            'e' | 'E' => {
                digit = '0'; // never too large
                out.push(c);
            }
            _ => out.push(c),
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
        3 if c.is_alphanumeric() || c == HALF => '字',
        4 => '𝐱',
        _ => c,
    }
}

// === impl Place ===

impl Place {
    /// Inside of the object that starts here, as the value of `key`.
    fn into(self, key: &str, scan: &Scan<'_>) -> Self {
        let area = match self.area.below(key) {
            Area::Message if matches!(scan.own("role"), Some("tool" | "function")) => {
                Area::ToolMessage
            }
            area => area,
        };
        Self {
            area,
            depth: self.depth + 1,
            ..self
        }
    }

    /// An item, which starts here, of a list that is the value of `key`. Its `index` says better than its position which
    /// choice or call it is.
    fn item(self, key: &str, position: u64, scan: &Scan<'_>) -> Self {
        let below = self.area.below(key);
        let index = || {
            let own = scan.own("index").and_then(|index| index.parse().ok());
            own.unwrap_or(position)
        };
        let mut item = Self {
            depth: self.depth + 1,
            ..self
        };
        match below {
            Area::Choice => item.call.choice = index(),
            Area::Call => item.call.call = Some(index()),
            // A list of numbers under a key that is not known may spell a text.
            Area::Arguments | Area::Hidden => item.area = below,
            _ => {}
        }
        item
    }
}

// === impl Unit ===

impl Unit<'_> {
    fn shown_as(&self, shown: char, out: &mut String) {
        if shown == self.means && shown != HALF {
            out.push_str(self.raw);
        } else if self.raw.starts_with("\\u") {
            let escape = format!("\\u{:04x}", u32::from(shown));
            out.push_str(&escape);
        } else {
            out.push(shown);
        }
    }
}

/// The characters of the inside of a JSON string.
fn units(inner: &str) -> impl Iterator<Item = Unit<'_>> {
    let mut rest = inner;
    std::iter::from_fn(move || {
        let mut chars = rest.chars();
        let first = chars.next()?;
        let (length, means) = match (first, chars.next()) {
            ('\\', Some('u')) => {
                let code = rest.get(2..6).unwrap_or_default();
                let code = u32::from_str_radix(code, 16).ok();
                (6, code.and_then(char::from_u32).unwrap_or(HALF))
            }
            ('\\', Some('b')) => (2, '\u{8}'),
            ('\\', Some('f')) => (2, '\u{c}'),
            ('\\', Some('n')) => (2, '\n'),
            ('\\', Some('r')) => (2, '\r'),
            ('\\', Some('t')) => (2, '\t'),
            ('\\', Some(escaped)) => (1 + escaped.len_utf8(), escaped),
            _ => (first.len_utf8(), first),
        };
        let (raw, after) = rest.split_at(length.min(rest.len()));
        rest = after;
        Some(Unit { raw, means })
    })
}

/// Stands for half a surrogate pair, which is no character.
const HALF: char = char::REPLACEMENT_CHARACTER;

const FIELDS: [&str; 5] = ["data:", "event:", "id:", "retry:", ":"];
const MAX_DEPTH: usize = 128;

#[cfg(test)]
#[path = "mask/tests.rs"]
mod tests;
