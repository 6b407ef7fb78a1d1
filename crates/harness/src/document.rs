//! A configuration as a tree whose keys keep their order.
//!
//! Text of either format in, a [`Document`] out, and back. Writing the same tree
//! twice gives the same bytes, and what a person or a harness ordered by hand
//! stays in that order. A key that occurs twice is refused: two readers of one
//! file must not see two different configurations.
//!
//! Strict JSON alone is read. A harness may take more (comments, trailing
//! commas); rewriting such a file would lose what makes it more, so it is refused.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap as _, SerializeSeq as _, Serializer};
use serde_json::{Number, Value};

/// A value of a configuration.
#[derive(Debug, Clone, PartialEq)]
pub enum Document {
    /// `true` or `false`
    Bool(bool),
    /// Items in order.
    List(Vec<Self>),
    /// Nothing.
    Null,
    /// A number; integers stay integers.
    Number(Number),
    /// Fields in order, each key once.
    Object(Vec<(String, Self)>),
    /// A string.
    Text(String),
}

/// Why a text is not a configuration that can be rewritten.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {format}, got {got}")]
pub struct Unreadable {
    format: &'static str,
    got: String,
}

impl Document {
    /// Fields in the order given.
    pub fn object<K: Into<String>>(fields: impl IntoIterator<Item = (K, Self)>) -> Self {
        Self::Object(
            fields
                .into_iter()
                .map(|(key, value)| (key.into(), value))
                .collect(),
        )
    }

    /// Items in the order given.
    pub fn list<T: Into<Self>>(items: impl IntoIterator<Item = T>) -> Self {
        Self::List(items.into_iter().map(Into::into).collect())
    }

    /// Reads JSON.
    ///
    /// # Errors
    /// It is not strict JSON, or a key occurs twice.
    pub fn from_json(text: &str) -> Result<Self, Unreadable> {
        serde_json::from_str(text).map_err(|error| Unreadable {
            format: "JSON without comments or trailing commas",
            got: error.to_string(),
        })
    }

    /// Reads YAML; nothing at all is an empty object.
    ///
    /// # Errors
    /// It is not one YAML document, or a key occurs twice.
    pub fn from_yaml(text: &str) -> Result<Self, Unreadable> {
        let read: Self = serde_saphyr::from_str(text).map_err(|error| Unreadable {
            format: "one YAML document",
            // What follows the first line shows the text, which may hold a secret.
            got: first_line(&error.to_string()),
        })?;
        Ok(match read {
            Self::Null => Self::Object(Vec::new()),
            read => read,
        })
    }

    /// JSON with two spaces for each level, and a line end.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// YAML. Text that a YAML 1.1 reader would take for something else is quoted.
    pub fn to_yaml(&self) -> String {
        let mut text = String::new();
        let options = serde_saphyr::ser_options! {
            prefer_block_scalars: false,
            compact_list_indent: false,
        };
        // The tree has no value that YAML lacks, and a String takes all that is written.
        let _written = serde_saphyr::to_fmt_writer_with_options(&mut text, self, options);
        text
    }

    /// The value at a path of keys, if all of them are there.
    pub fn get(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |at, key| at.field(key))
    }

    /// The value of a field.
    pub fn field(&self, key: &str) -> Option<&Self> {
        self.fields()
            .iter()
            .find_map(|(name, value)| (name == key).then_some(value))
    }

    /// The fields; none if this is no object.
    pub fn fields(&self) -> &[(String, Self)] {
        match self {
            Self::Object(fields) => fields,
            _ => &[],
        }
    }

    /// The items; none if this is no list.
    pub fn items(&self) -> &[Self] {
        match self {
            Self::List(items) => items,
            _ => &[],
        }
    }

    /// The text, if this is one.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Whether this is an object or list with nothing in it.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::List(items) => items.is_empty(),
            Self::Object(fields) => fields.is_empty(),
            _ => false,
        }
    }

    /// Puts a field in, in the place of the one that has its key, if any.
    pub fn set(&mut self, key: &str, value: impl Into<Self>) {
        let Self::Object(fields) = self else {
            *self = Self::object([(key, value.into())]);
            return;
        };
        let value = value.into();
        match fields.iter_mut().find(|(name, _)| name == key) {
            Some((_, there)) => *there = value,
            None => fields.push((key.to_owned(), value)),
        }
    }

    /// Fills in an empty text at a dotted path; says whether there was one.
    pub(crate) fn fill(&mut self, path: &str, text: &str) -> bool {
        let (step, rest) = path.split_once('.').unwrap_or((path, ""));
        let Self::Object(fields) = self else {
            return false;
        };
        let Some((_, value)) = fields.iter_mut().find(|(key, _)| key == step) else {
            return false;
        };
        match value {
            Self::Text(there) if rest.is_empty() && there.is_empty() => {
                text.clone_into(there);
                true
            }
            below => !rest.is_empty() && below.fill(rest, text),
        }
    }

    /// Takes the value at a dotted path out; `*` is any key and `[]` any item.
    /// Objects that are left empty by it go too. Says whether anything was there.
    pub(crate) fn take_out(&mut self, path: &str) -> bool {
        let (step, rest) = path.split_once('.').unwrap_or((path, ""));
        match self {
            Self::List(items) if step == "[]" => {
                let found = items
                    .iter_mut()
                    .filter_map(|item| item.take_out(rest).then_some(()));
                found.count() > 0
            }
            Self::Object(fields) => {
                let mut any = false;
                fields.retain_mut(|(key, value)| {
                    if step != "*" && key != step {
                        return true;
                    }
                    let found = rest.is_empty() || value.take_out(rest);
                    any |= found;
                    !found || !(rest.is_empty() || value.is_empty())
                });
                any
            }
            _ => false,
        }
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

impl From<&str> for Document {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Document {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for Document {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<u64> for Document {
    fn from(value: u64) -> Self {
        Self::Number(value.into())
    }
}

impl From<&Value> for Document {
    fn from(value: &Value) -> Self {
        match value {
            Value::Array(items) => Self::List(items.iter().map(Into::into).collect()),
            Value::Bool(value) => Self::Bool(*value),
            Value::Null => Self::Null,
            Value::Number(number) => Self::Number(number.clone()),
            Value::Object(fields) => {
                Self::object(fields.iter().map(|(key, value)| (key, value.into())))
            }
            Value::String(text) => Self::Text(text.clone()),
        }
    }
}

impl Serialize for Document {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Bool(value) => to.serialize_bool(*value),
            Self::List(items) => {
                let mut list = to.serialize_seq(Some(items.len()))?;
                for item in items {
                    list.serialize_element(item)?;
                }
                list.end()
            }
            Self::Null => to.serialize_unit(),
            Self::Number(number) => number.serialize(to),
            Self::Object(fields) => {
                let mut object = to.serialize_map(Some(fields.len()))?;
                for (key, value) in fields {
                    object.serialize_entry(key, value)?;
                }
                object.end()
            }
            Self::Text(text) => to.serialize_str(text),
        }
    }
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(EveryKeyOnce)
    }
}

struct EveryKeyOnce;

impl<'de> Visitor<'de> for EveryKeyOnce {
    type Value = Document;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Document, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Document, E> {
        Ok(Document::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Document, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Document, E> {
        Number::from_f64(value)
            .map(Document::Number)
            .ok_or_else(|| E::custom("a number that is not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Document, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Document, E> {
        Ok(Document::Null)
    }

    fn visit_none<E>(self) -> Result<Document, E> {
        Ok(Document::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Document, D::Error> {
        from.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Document, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Document::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Document, A::Error> {
        let mut object: Vec<(String, Document)> = Vec::new();
        let mut keys = std::collections::HashSet::new();
        while let Some(key) = fields.next_key::<String>()? {
            if !keys.insert(key.clone()) {
                return Err(A::Error::custom(format!("the key {key:?} twice")));
            }
            object.push((key, fields.next_value()?));
        }
        Ok(Document::Object(object))
    }
}

#[cfg(test)]
#[path = "document_tests.rs"]
mod tests;
