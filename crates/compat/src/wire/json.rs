//! JSON that can be edited without being rewritten.
//!
//! A document is read in one scan. Only the places a [`Shape`] names are
//! opened into [`Object`]s and [`List`]s; everything else stays the slice of
//! text it was. Written out again, untouched neighbours coalesce into the slices
//! of the original they came from, so unknown fields, key order, white space and
//! the spelling of numbers (`1.0`, `1e3`, twenty-digit integers) survive because
//! they are never decoded (invariant I6).
//!
//! ```text
//! source   {"model":"a","messages":[{"role":"user","content":"hi"}],"top_p":1.0}
//! edit     messages[0].set("name", "\"x\"")
//! result   [kept {"model":…,"content":"hi"] [new ,"name":"x"] [kept }],"top_p":1.0}]
//! ```
//!
//! The grammar is RFC 8259, no more and no less, with two limits of our own: at
//! most [`MAX_DEPTH`] levels of nesting, and no key twice in an object that is
//! opened (two readers of one body must not see two different requests).
//!
//! Why not a JSON crate: those that keep raw slices (`serde_json::RawValue`) do
//! not say where a key or a separator stood, and read nested slices once per
//! level. Decoding of strings and of argument objects *is* left to `serde_json`.

use std::borrow::Cow;
use std::fmt;

use crate::fault::Fault;

mod scan;

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
#[derive(Debug)]
pub enum Value<'a> {
    /// Source text, never decoded.
    Raw(&'a str),
    /// New JSON text, written by a pass. Always one valid JSON value.
    New(String),
    /// An opened object.
    Object(Object<'a>),
    /// An opened list.
    List(List<'a>),
}

/// An opened object: its fields in the order of the source.
#[derive(Debug)]
pub struct Object<'a> {
    open: &'a str,
    fields: Vec<Field<'a>>,
    close: &'a str,
}

/// One field of an [`Object`].
#[derive(Debug)]
struct Field<'a> {
    key: Cow<'a, str>,
    /// White space, key, colon: all that stands before the value.
    lead: Cow<'a, str>,
    value: Value<'a>,
    /// White space and, in the source, the comma.
    tail: &'a str,
}

/// An opened list: its items in the order of the source.
#[derive(Debug)]
pub struct List<'a> {
    open: &'a str,
    items: Vec<Item<'a>>,
    close: &'a str,
}

#[derive(Debug)]
struct Item<'a> {
    lead: &'a str,
    value: Value<'a>,
    tail: &'a str,
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

/// A document as pieces: kept slices of the source and new text between them.
#[derive(Debug)]
pub struct Segments<'a> {
    source: &'a str,
    pieces: Vec<Segment<'a>>,
}

/// One piece of an edited document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment<'a> {
    /// A slice of the source text.
    Kept(&'a str),
    /// Text that was not in the source.
    New(String),
}

/// Reads `source` as one JSON value and opens what `shape` names.
///
/// # Errors
/// [`Malformed`], always the sender's fault; never retryable.
pub fn parse<'a>(source: &'a str, shape: &'static Shape) -> Result<Value<'a>, Malformed> {
    scan::document(source, shape)
}

/// Writes `text` as a JSON string, quotes included.
pub fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Decodes the raw JSON string `raw`; `None` if it is not a string, or holds an
/// escape that is no character (a lone surrogate).
pub fn unquote(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str::<String>(raw).ok().map(Cow::Owned)
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
            Self::Object(_) | Self::List(_) => None,
        }
    }

    /// The JSON text, opened or not.
    pub fn to_json(&self) -> Cow<'_, str> {
        match self.raw() {
            Some(raw) => Cow::Borrowed(raw),
            None => {
                let mut text = String::new();
                self.write_text(&mut text);
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
            Self::List(_) | Self::New(_) | Self::Raw(_) => None,
        }
    }

    /// The object for editing, when opened as one.
    pub fn object_mut(&mut self) -> Option<&mut Object<'a>> {
        match self {
            Self::Object(object) => Some(object),
            Self::List(_) | Self::New(_) | Self::Raw(_) => None,
        }
    }

    /// The list, when opened as one.
    pub fn list(&self) -> Option<&List<'a>> {
        match self {
            Self::List(list) => Some(list),
            Self::New(_) | Self::Object(_) | Self::Raw(_) => None,
        }
    }

    /// The list for editing, when opened as one.
    pub fn list_mut(&mut self) -> Option<&mut List<'a>> {
        match self {
            Self::List(list) => Some(list),
            Self::New(_) | Self::Object(_) | Self::Raw(_) => None,
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
            *self = Self::Object(Object {
                open: "{",
                fields: Vec::new(),
                close: "}",
            });
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
        self.emit(&mut |piece| match piece {
            Piece::Source(text) => out.keep(text),
            Piece::Text(text) => out.add(text),
        });
    }

    fn write_text(&self, out: &mut String) {
        self.emit(&mut |piece| match piece {
            Piece::Source(text) | Piece::Text(text) => out.push_str(text),
        });
    }

    fn emit<F: FnMut(Piece<'a, '_>)>(&self, put: &mut F) {
        match self {
            Self::Raw(raw) => put(Piece::Source(raw)),
            Self::New(text) => put(Piece::Text(text)),
            Self::Object(object) => object.emit(put),
            Self::List(list) => list.emit(put),
        }
    }
}

/// What an emitter hands on: text of the source, or text that was written.
enum Piece<'a, 'n> {
    Source(&'a str),
    Text(&'n str),
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

    /// The fields, in order.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &Value<'a>)> {
        self.fields
            .iter()
            .map(|field| (field.key.as_ref(), &field.value))
    }

    /// Sets `key` to the JSON text `json`: in place where it stands, else last.
    pub fn set(&mut self, key: &str, json: String) {
        if let Some(value) = self.get_mut(key) {
            *value = Value::New(json);
            return;
        }
        self.fields.push(Field {
            key: Cow::Owned(key.to_owned()),
            lead: Cow::Owned(format!("{}:", quote(key))),
            value: Value::New(json),
            tail: "",
        });
    }

    /// Takes `key` out; whether it was there.
    pub fn remove(&mut self, key: &str) -> bool {
        let before = self.fields.len();
        self.fields.retain(|field| field.key != key);
        self.fields.len() != before
    }

    /// Gives `key` the name `to`, in place; whether it was there.
    pub fn rename(&mut self, key: &str, to: &str) -> bool {
        let Some(field) = self.fields.iter_mut().find(|field| field.key == key) else {
            return false;
        };
        field.key = Cow::Owned(to.to_owned());
        field.lead = Cow::Owned(format!("{}:", quote(to)));
        true
    }

    fn emit<F: FnMut(Piece<'a, '_>)>(&self, put: &mut F) {
        put(Piece::Source(self.open));
        let last = self.fields.len().saturating_sub(1);
        for (index, field) in self.fields.iter().enumerate() {
            match &field.lead {
                Cow::Borrowed(lead) => put(Piece::Source(lead)),
                Cow::Owned(lead) => put(Piece::Text(lead)),
            }
            field.value.emit(put);
            emit_tail(field.tail, index == last, put);
        }
        put(Piece::Source(self.close));
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
        self.items.retain(|item| keep(&item.value));
    }

    /// Puts in place of each item what `with` makes of it: itself, or new ones.
    pub fn replace(&mut self, mut with: impl FnMut(Value<'a>) -> Replaced<'a>) {
        let mut items = Vec::with_capacity(self.items.len());
        for Item { lead, value, tail } in std::mem::take(&mut self.items) {
            match with(value) {
                Replaced::By(new) => items.extend(new.into_iter().map(|json| Item {
                    lead: "",
                    value: Value::New(json),
                    tail: "",
                })),
                Replaced::Kept(value) => items.push(Item { lead, value, tail }),
            }
        }
        self.items = items;
    }

    fn emit<F: FnMut(Piece<'a, '_>)>(&self, put: &mut F) {
        put(Piece::Source(self.open));
        let last = self.items.len().saturating_sub(1);
        for (index, item) in self.items.iter().enumerate() {
            put(Piece::Source(item.lead));
            item.value.emit(put);
            emit_tail(item.tail, index == last, put);
        }
        put(Piece::Source(self.close));
    }
}

/// A tail ends in the source's comma unless it was the last; edits move who is last.
fn emit_tail<'a, F: FnMut(Piece<'a, '_>)>(tail: &'a str, last: bool, put: &mut F) {
    match (tail.strip_suffix(','), last) {
        (Some(white_space), true) => put(Piece::Source(white_space)),
        (Some(_), false) | (None, true) => put(Piece::Source(tail)),
        (None, false) => {
            put(Piece::Source(tail));
            put(Piece::Text(","));
        }
    }
}

// === impl Segments ===

impl<'a> Segments<'a> {
    /// No pieces yet; kept slices must be of `source`.
    pub fn new(source: &'a str) -> Self {
        Self {
            source,
            pieces: Vec::new(),
        }
    }

    /// The pieces, in order.
    pub fn into_pieces(self) -> Vec<Segment<'a>> {
        self.pieces
    }

    /// The pieces as one text.
    pub fn to_text(&self) -> String {
        self.pieces.iter().map(Segment::as_str).collect()
    }

    fn keep(&mut self, text: &'a str) {
        if text.is_empty() {
            return;
        }
        if !is_within(self.source, text) {
            return self.add(text);
        }
        if let Some(Segment::Kept(last)) = self.pieces.last_mut()
            && let Some(joined) = join(self.source, last, text)
        {
            *last = joined;
            return;
        }
        self.pieces.push(Segment::Kept(text));
    }

    fn add(&mut self, text: &str) {
        if let Some(Segment::New(last)) = self.pieces.last_mut() {
            last.push_str(text);
        } else if !text.is_empty() {
            self.pieces.push(Segment::New(text.to_owned()));
        }
    }
}

impl Segment<'_> {
    /// The text of this piece.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Kept(text) => text,
            Self::New(text) => text,
        }
    }
}

/// Whether `text` is a slice of `source`; literals that a pass brought are not.
fn is_within(source: &str, text: &str) -> bool {
    let (source, text) = (
        source.as_bytes().as_ptr_range(),
        text.as_bytes().as_ptr_range(),
    );
    source.start <= text.start && text.end <= source.end
}

/// `left` and `right` as one slice of `source`, when they stand side by side in it.
fn join<'a>(source: &'a str, left: &'a str, right: &'a str) -> Option<&'a str> {
    let base = source.as_ptr() as usize;
    let start = (left.as_ptr() as usize).checked_sub(base)?;
    let middle = (right.as_ptr() as usize).checked_sub(base)?;
    if start + left.len() != middle {
        return None;
    }
    source.get(start..middle + right.len())
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
