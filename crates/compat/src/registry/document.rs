//! Text in, JSON value out, every key once.
//!
//! `serde_json` alone lets the last of two equal keys win, which hides a mistake
//! in a file that people edit by hand. Numbers are read as `serde_json` reads
//! them; manifests hold none whose spelling matters.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::errors::Problem;

/// Reads `text`.
///
/// # Errors
/// What is wrong with it as JSON, with line and column.
pub(super) fn parse(text: &str) -> Result<Value, Problem> {
    serde_json::from_str::<Document>(text)
        .map(|document| document.0)
        .map_err(|error| {
            let message = error.to_string();
            let place = format!(" at line {} column {}", error.line(), error.column());
            Problem::Json {
                line: error.line(),
                column: error.column(),
                message: message.strip_suffix(&place).unwrap_or(&message).to_owned(),
            }
        })
}

struct Document(Value);

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(EveryKeyOnce).map(Self)
    }
}

struct EveryKeyOnce;

impl<'de> Visitor<'de> for EveryKeyOnce {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Document(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = fields.next_key::<String>()? {
            let Document(value) = fields.next_value()?;
            if object.contains_key(&key) {
                return Err(A::Error::custom(format!(
                    "expected each key once, got {key:?} twice"
                )));
            }
            object.insert(key, value);
        }
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_read_as_serde_json_reads_it() {
        let text = r#"{"a":[1,-2,1.5,true,null,"x"],"b":{"a":{}}}"#;
        assert_eq!(
            parse(text),
            Ok(serde_json::from_str(text).expect("valid JSON"))
        );
    }

    #[test]
    fn a_repeated_key_is_named_with_its_place() {
        assert_eq!(
            parse("{\"a\": 1,\n \"b\": {\"c\": 1, \"c\": 2}}"),
            Err(Problem::Json {
                line: 2,
                column: 22,
                message: "expected each key once, got \"c\" twice".into(),
            })
        );
    }

    #[test]
    fn bad_json_has_line_and_column() {
        assert_eq!(
            parse("{\n  \"id\": }"),
            Err(Problem::Json {
                line: 2,
                column: 9,
                message: "expected value".into(),
            })
        );
    }
}
