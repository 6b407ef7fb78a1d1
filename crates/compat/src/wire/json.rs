//! JSON that can be edited without being rewritten.
//!
//! A document is read in one scan, which goes from mark to mark: where strings end was
//! marked before, for all of it at once. Only the places a [`Shape`] names are opened into
//! [`Object`]s and [`List`]s; everything else stays the slice of text it was. Written out
//! again, untouched neighbours coalesce into the slices of the original they came from, so
//! unknown fields, key order and the spelling of numbers (`1.0`, `1e3`, twenty-digit
//! integers) survive because they are never decoded (invariant I6).
//!
//! ```text
//! source   {"model":"a","messages":[{"role":"user","content":"hi"}],"top_p":1.0}
//! edit     messages[0].set("name", "\"x\"")
//! result   [kept {"model":…,"content":"hi"] [new ,"name":"x"] [kept }],"top_p":1.0}]
//! ```
//!
//! The grammar is RFC 8259, no more and no less, with three limits of our own: at
//! most [`MAX_DEPTH`] levels of nesting, less than 4 GiB, and no key twice in an object
//! that is opened (two readers of one body must not see two different requests).
//!
//! Why not a JSON crate: those that keep raw slices (`serde_json::RawValue`) do
//! not say where a key or a separator stood, and read nested slices once per
//! level. Decoding of strings and of argument objects *is* left to `serde_json`.

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU32;

use bytes::Bytes;

use crate::fault::Fault;

mod scan;
mod segments;
mod stops;

pub use segments::{Segment, Segments};

use segments::Out;

/// Levels of nesting a body may have. The deepest real request seen has 31
/// (a recursive tool schema); `serde_json` itself stops at 128.
pub const MAX_DEPTH: usize = 256;

/// Which parts of a document are opened for reading and editing.
///
/// Anything a shape does not name, or whose kind is not the one named, stays raw.
#[derive(Debug)]
pub enum Shape {
    /// An object; the listed keys have shapes of their own.
    Object(&'static [(&'static str, Self)]),
    /// A list whose items all have this shape.
    List(&'static Self),
}

/// A JSON value: raw text of the source, new text, or opened.
///
/// A history is thousands of these, so all that is seldom or large is behind a pointer.
#[derive(Debug)]
pub enum Value<'a> {
    /// Source text, never decoded.
    Raw(&'a str),
    /// New JSON text, written by a pass. Always one valid JSON value.
    New(String),
    /// The same, in a buffer that others hold as well. Always UTF-8.
    Shared(Box<Bytes>),
    /// An opened object.
    Object(Box<Object<'a>>),
    /// An opened list.
    List(Box<List<'a>>),
}

/// An opened object: its fields in the order of the source.
#[derive(Debug)]
pub struct Object<'a> {
    fields: Vec<Field<'a>>,
    frame: Frame<'a>,
}

/// One field of an [`Object`].
#[derive(Debug)]
struct Field<'a> {
    key: Cow<'a, str>,
    value: Value<'a>,
    /// None where the key is new.
    place: Option<Place>,
}

/// An opened list: its items in the order of the source.
#[derive(Debug)]
pub struct List<'a> {
    items: Vec<Item<'a>>,
    frame: Frame<'a>,
}

#[derive(Debug)]
struct Item<'a> {
    value: Value<'a>,
    /// None where the item is new.
    place: Option<Place>,
}

/// Where an object or list stands in its document.
#[derive(Debug)]
struct Frame<'a> {
    document: &'a str,
    /// Of the root also the white space around it.
    start: u32,
    /// Behind the opening bracket.
    open: u32,
    /// Behind the last part: white space and the closing bracket.
    close: u32,
    end: u32,
    /// Whether parts came, went or were renamed. Edits of values show in these.
    edited: bool,
}

/// Where a field or an item stands in its document. No border is 0: a bracket comes first.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// White space, key, colon: all that stands before the value.
    lead: NonZeroU32,
    value: NonZeroU32,
    /// White space and, in the source, the comma.
    tail: NonZeroU32,
    end: NonZeroU32,
}

/// What becomes of an item in [`List::replace`].
#[derive(Debug)]
pub enum Replaced<'a> {
    /// New JSON texts stand in its place; none take it out.
    By(Vec<String>),
    /// It stays.
    Kept(Value<'a>),
}

/// Why a text is not the JSON document we take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Malformed {
    /// A key occurs twice in an object whose fields decide what happens.
    DuplicateKey {
        /// The key.
        key: String,
        /// Byte offset of its second value.
        at: usize,
    },
    /// The text ends in the middle of a value.
    Ended {
        /// What was expected next.
        expected: &'static str,
    },
    /// More than [`MAX_DEPTH`] levels.
    TooDeep {
        /// Byte offset of the first bracket that is too deep.
        at: usize,
    },
    /// 4 GiB or more.
    TooLong,
    /// A character that cannot stand here.
    Unexpected {
        /// What was expected.
        expected: &'static str,
        /// What stands there.
        got: char,
        /// Its byte offset.
        at: usize,
    },
}

/// Reads `source` as one JSON value and opens what `shape` names.
///
/// # Errors
/// [`Malformed`], always the sender's fault; never retryable.
pub fn parse<'a>(source: &'a str, shape: &'static Shape) -> Result<Value<'a>, Malformed> {
    scan::document(source, shape).map_err(|malformed| *malformed)
}

/// Writes `text` as a JSON string, quotes included.
pub fn quote(text: &str) -> String {
    let mut quoted = Vec::with_capacity(text.len() + 2);
    quote_into(text, &mut quoted);
    // JSON text is UTF-8.
    String::from_utf8(quoted).unwrap_or_default()
}

fn quote_into(text: &str, out: &mut Vec<u8>) {
    if text
        .bytes()
        .all(|byte| byte >= 0x20 && !matches!(byte, b'"' | b'\\'))
    {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        // A string always serialises, and a vector takes all of it.
        serde_json::to_writer(out, text).unwrap_or_default();
    }
}

/// Decodes the raw JSON string `raw`; `None` if it is not a string, or holds an
/// escape that is no character (a lone surrogate).
pub fn unquote(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if !has_escape(inner) {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str::<String>(raw).ok().map(Cow::Owned)
}

fn has_escape(inner: &str) -> bool {
    let bytes = inner.as_bytes();
    if bytes.len() < 32 {
        // Most keys, ids and names: shorter than the way to the search.
        return bytes.contains(&b'\\');
    }
    memchr::memchr(b'\\', bytes).is_some()
}

// === impl Value ===

impl<'a> Value<'a> {
    /// The decoded text, when this is a JSON string.
    pub fn text(&self) -> Option<Cow<'_, str>> {
        unquote(self.raw()?)
    }

    /// The JSON text, when this was not opened.
    pub fn raw(&self) -> Option<&str> {
        match self {
            Self::Raw(raw) => Some(raw),
            Self::New(text) => Some(text),
            Self::Shared(text) => std::str::from_utf8(text).ok(),
            Self::Object(_) | Self::List(_) => None,
        }
    }

    /// The JSON text as the source has it, when this was neither opened nor edited.
    pub fn source(&self) -> Option<&'a str> {
        match self {
            Self::Raw(raw) => Some(raw),
            Self::List(_) | Self::New(_) | Self::Object(_) | Self::Shared(_) => None,
        }
    }

    /// The JSON text, opened or not.
    pub fn to_json(&self) -> Cow<'_, str> {
        match self.raw() {
            Some(raw) => Cow::Borrowed(raw),
            None => {
                let mut text = String::new();
                self.emit(&mut text);
                Cow::Owned(text)
            }
        }
    }

    /// Whether this is `null`.
    pub fn is_null(&self) -> bool {
        self.raw() == Some("null")
    }

    /// Whether this is a JSON string with nothing in it.
    pub fn is_empty_text(&self) -> bool {
        self.raw() == Some("\"\"")
    }

    /// The object, when opened as one.
    pub fn object(&self) -> Option<&Object<'a>> {
        match self {
            Self::Object(object) => Some(object),
            Self::List(_) | Self::New(_) | Self::Raw(_) | Self::Shared(_) => None,
        }
    }

    /// The object for editing, when opened as one.
    pub fn object_mut(&mut self) -> Option<&mut Object<'a>> {
        match self {
            Self::Object(object) => Some(object),
            Self::List(_) | Self::New(_) | Self::Raw(_) | Self::Shared(_) => None,
        }
    }

    /// The list, when opened as one.
    pub fn list(&self) -> Option<&List<'a>> {
        match self {
            Self::List(list) => Some(list),
            Self::New(_) | Self::Object(_) | Self::Raw(_) | Self::Shared(_) => None,
        }
    }

    /// The list for editing, when opened as one.
    pub fn list_mut(&mut self) -> Option<&mut List<'a>> {
        match self {
            Self::List(list) => Some(list),
            Self::New(_) | Self::Object(_) | Self::Raw(_) | Self::Shared(_) => None,
        }
    }

    /// Opens a raw object of the source for editing; `None` when it is none, or is
    /// text a pass has written.
    pub fn open(&mut self) -> Option<&mut Object<'a>> {
        static FLAT: Shape = Shape::Object(&[]);
        if let Self::Raw(raw) = *self
            && raw.starts_with('{')
        {
            *self = parse(raw, &FLAT).ok()?;
        } else if matches!(self, Self::New(text) if text == "{}") {
            *self = Self::Object(Box::new(Object {
                fields: Vec::new(),
                frame: Frame::empty(),
            }));
        }
        self.object_mut()
    }

    /// What kind of value this is, in the words of RFC 8259.
    pub fn kind(&self) -> &'static str {
        match self.raw().map(|raw| raw.as_bytes().first().copied()) {
            None => match self {
                Self::List(_) => "a list",
                _ => "an object",
            },
            Some(Some(b'{')) => "an object",
            Some(Some(b'[')) => "a list",
            Some(Some(b'"')) => "a string",
            Some(Some(b't' | b'f')) => "a boolean",
            Some(Some(b'n')) => "null",
            Some(_) => "a number",
        }
    }

    /// Writes the value as pieces of `out`'s source.
    pub fn write(&self, out: &mut Segments<'a>) {
        self.emit(out);
    }

    fn emit(&self, out: &mut impl Out<'a>) {
        match self {
            Self::Raw(raw) => out.source(raw),
            Self::New(text) => out.text(text),
            Self::Shared(text) => out.shared(text),
            Self::Object(object) => object.emit(out),
            Self::List(list) => list.emit(out),
        }
    }

    fn is_edited(&self) -> bool {
        match self {
            Self::Raw(_) => false,
            Self::New(_) | Self::Shared(_) => true,
            Self::Object(object) => object.is_edited(),
            Self::List(list) => list.is_edited(),
        }
    }
}

// === impl Object ===

impl<'a> Object<'a> {
    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value<'a>> {
        self.fields
            .iter()
            .find(|field| field.key == key)
            .map(|field| &field.value)
    }

    /// The value of `key`, for editing.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Value<'a>> {
        self.fields
            .iter_mut()
            .find(|field| field.key == key)
            .map(|field| &mut field.value)
    }

    /// The decoded text of `key`, when it is a string.
    pub fn text(&self, key: &str) -> Option<Cow<'_, str>> {
        self.get(key)?.text()
    }

    /// The decoded text of `key`, when it is a string that no pass has edited.
    pub fn source_text(&self, key: &str) -> Option<Cow<'a, str>> {
        unquote(self.get(key)?.source()?)
    }

    /// The fields, in order.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &Value<'a>)> {
        self.fields
            .iter()
            .map(|field| (field.key.as_ref(), &field.value))
    }

    /// Sets `key` to the JSON text `json`: in place where it stands, else last.
    pub fn set(&mut self, key: &str, json: String) {
        self.put(key, Value::New(json));
    }

    /// The same, with JSON text that is in a buffer already: one value, in UTF-8.
    pub fn set_shared(&mut self, key: &str, json: Bytes) {
        self.put(key, Value::Shared(Box::new(json)));
    }

    fn put(&mut self, key: &str, value: Value<'a>) {
        if let Some(old) = self.get_mut(key) {
            *old = value;
            return;
        }
        self.frame.edited = true;
        self.fields.push(Field {
            key: Cow::Owned(key.to_owned()),
            value,
            place: None,
        });
    }

    /// Takes `key` out; whether it was there.
    pub fn remove(&mut self, key: &str) -> bool {
        let before = self.fields.len();
        self.fields.retain(|field| field.key != key);
        let removed = self.fields.len() != before;
        self.frame.edited |= removed;
        removed
    }

    /// Gives `key` the name `to`, in place; whether it was there. White space around the key
    /// and behind the value goes.
    pub fn rename(&mut self, key: &str, to: &str) -> bool {
        let Some(field) = self.fields.iter_mut().find(|field| field.key == key) else {
            return false;
        };
        field.key = Cow::Owned(to.to_owned());
        field.place = None;
        self.frame.edited = true;
        true
    }

    /// Writes the object as pieces of `out`'s source.
    pub fn write(&self, out: &mut Segments<'a>) {
        self.emit(out);
    }

    fn is_edited(&self) -> bool {
        self.frame.edited || self.fields.iter().any(|field| field.value.is_edited())
    }

    fn emit(&self, out: &mut impl Out<'a>) {
        if self.is_edited() {
            self.frame.emit(&self.fields, out);
        } else {
            out.source(self.frame.text());
        }
    }
}

// === impl List ===

impl<'a> List<'a> {
    /// The items, in order.
    pub fn items(&self) -> impl ExactSizeIterator<Item = &Value<'a>> {
        self.items.iter().map(|item| &item.value)
    }

    /// The items, for editing.
    pub fn items_mut(&mut self) -> impl ExactSizeIterator<Item = &mut Value<'a>> {
        self.items.iter_mut().map(|item| &mut item.value)
    }

    /// The item at `index`.
    pub fn get(&self, index: usize) -> Option<&Value<'a>> {
        self.items.get(index).map(|item| &item.value)
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Keeps the items `keep` says yes to.
    pub fn retain(&mut self, mut keep: impl FnMut(&Value<'a>) -> bool) {
        let before = self.items.len();
        self.items.retain(|item| keep(&item.value));
        self.frame.edited |= self.items.len() != before;
    }

    /// Puts in place of each item what `with` makes of it: itself, or new ones.
    pub fn replace(&mut self, mut with: impl FnMut(Value<'a>) -> Replaced<'a>) {
        let mut items = Vec::with_capacity(self.items.len());
        for Item { value, place } in std::mem::take(&mut self.items) {
            match with(value) {
                Replaced::By(new) => {
                    self.frame.edited = true;
                    items.extend(new.into_iter().map(|json| Item {
                        value: Value::New(json),
                        place: None,
                    }));
                }
                Replaced::Kept(value) => items.push(Item { value, place }),
            }
        }
        self.items = items;
    }

    fn is_edited(&self) -> bool {
        self.frame.edited || self.items.iter().any(|item| item.value.is_edited())
    }

    fn emit(&self, out: &mut impl Out<'a>) {
        if self.is_edited() {
            self.frame.emit(&self.items, out);
        } else {
            out.source(self.frame.text());
        }
    }
}

// === impl Frame ===

/// A field or an item.
trait Part<'a> {
    fn key(&self) -> Option<&str>;
    fn place(&self) -> Option<&Place>;
    fn value(&self) -> &Value<'a>;
}

impl<'a> Part<'a> for Field<'a> {
    fn key(&self) -> Option<&str> {
        Some(&self.key)
    }

    fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }

    fn value(&self) -> &Value<'a> {
        &self.value
    }
}

impl<'a> Part<'a> for Item<'a> {
    fn key(&self) -> Option<&str> {
        None
    }

    fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }

    fn value(&self) -> &Value<'a> {
        &self.value
    }
}

impl<'a> Frame<'a> {
    /// That of an object that a pass begins.
    fn empty() -> Self {
        Self {
            document: "{}",
            start: 0,
            open: 1,
            close: 1,
            end: 2,
            edited: false,
        }
    }

    fn text(&self) -> &'a str {
        self.between(self.start, self.end)
    }

    fn between(&self, start: u32, end: u32) -> &'a str {
        // A `u32` fits wherever 4 GiB do; both stand beside ASCII bytes.
        let range = start as usize..end as usize;
        self.document.get(range).unwrap_or_default()
    }

    /// Writes brackets and parts.
    fn emit<P: Part<'a>>(&self, parts: &[P], out: &mut impl Out<'a>) {
        out.source(self.between(self.start, self.open));
        let last = parts.len().saturating_sub(1);
        for (index, part) in parts.iter().enumerate() {
            match part.place() {
                Some(place) => self.emit_at(place, part.value(), index == last, out),
                None => {
                    if let Some(key) = part.key() {
                        out.key(key);
                    }
                    part.value().emit(out);
                    if index != last {
                        out.text(",");
                    }
                }
            }
        }
        out.source(self.between(self.close, self.end));
    }

    /// Writes a part that has a place. It has a comma in the source unless it was the last
    /// there; edits move who is last.
    fn emit_at(&self, place: &Place, value: &Value<'a>, last: bool, out: &mut impl Out<'a>) {
        let [lead, start, tail, end] = [place.lead, place.value, place.tail, place.end];
        let had_comma = self.between(tail.get(), end.get()).ends_with(',');
        let end = end.get() - u32::from(had_comma && last);
        if value.is_edited() {
            out.source(self.between(lead.get(), start.get()));
            value.emit(out);
            out.source(self.between(tail.get(), end));
        } else {
            out.source(self.between(lead.get(), end));
        }
        if !had_comma && !last {
            out.text(",");
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DuplicateKey { key, at } => {
                write!(f, "expected each key once, got {key:?} twice (byte {at})")
            }
            Self::Ended { expected } => {
                write!(f, "expected {expected}, got the end of the text")
            }
            Self::TooDeep { at } => write!(
                f,
                "expected at most {MAX_DEPTH} levels of nesting, got more (byte {at})"
            ),
            Self::TooLong => f.write_str("expected less than 4 GiB, got more"),
            Self::Unexpected { expected, got, at } => {
                write!(f, "expected {expected}, got {got:?} (byte {at})")
            }
        }
    }
}

impl std::error::Error for Malformed {}

impl From<Malformed> for Fault {
    fn from(malformed: Malformed) -> Self {
        let code = match malformed {
            Malformed::DuplicateKey { .. } => "body_has_duplicate_key",
            Malformed::Ended { .. } => "body_truncated",
            Malformed::TooDeep { .. } => "body_too_deep",
            Malformed::TooLong => "body_too_long",
            Malformed::Unexpected { .. } => "body_not_json",
        };
        Self::client(
            code,
            format!("request body is not the JSON we take: {malformed}"),
        )
    }
}

#[cfg(test)]
#[path = "json/tests.rs"]
mod tests;
