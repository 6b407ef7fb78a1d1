//! Tools on offer, and a command as the arguments of one.
//!
//! Before: a tool's JSON schema and a command such as `date`. After: `{"command":"date"}`, or
//! `{"command":["bash","-lc","date"]}` where the schema wants a list (codex), or minimal values for whatever is required.

use std::io;

use serde::Serialize as _;
use serde_json::ser::{Formatter, Serializer};
use serde_json::{Map, Value, json};

/// A function that the request offers.
#[derive(Debug)]
pub(super) struct Tool<'a> {
    pub(super) name: &'a str,
    parameters: &'a Value,
}

impl<'a> Tool<'a> {
    /// `None` for tools that are no functions, such as a provider's own web search.
    pub(super) fn read(tool: &'a Value) -> Option<Self> {
        let function = &tool["function"];
        Some(Self {
            name: function["name"].as_str()?,
            parameters: &function["parameters"],
        })
    }

    /// The command as this tool's arguments: `command` if it has one, and every required property.
    pub(super) fn arguments(&self, command: &str) -> Value {
        let properties = &self.parameters["properties"];
        let required = self.parameters["required"].as_array().into_iter().flatten();
        let own = properties.get("command").map(|_| "command");
        let mut arguments = Map::new();
        for name in own.into_iter().chain(required.filter_map(Value::as_str)) {
            let value = match (name, kind(&properties[name])) {
                ("command", "array") => json!(["bash", "-lc", command]),
                (_, kind) => minimal(&properties[name], kind, command),
            };
            arguments.insert(name.to_owned(), value);
        }
        Value::Object(arguments)
    }
}

/// The schema's type; the first one that is not null where it lists several, a string where it names none.
fn kind(schema: &Value) -> &str {
    let named = &schema["type"];
    let listed = named.as_array().into_iter().flatten();
    named
        .as_str()
        .or_else(|| {
            listed
                .filter_map(Value::as_str)
                .find(|kind| *kind != "null")
        })
        .unwrap_or("string")
}

/// The least value of a type. A string bears the command: it is the only type that can.
fn minimal(schema: &Value, kind: &str, command: &str) -> Value {
    if let Some(first) = schema["enum"].get(0) {
        return first.clone();
    }
    match kind {
        "array" => json!([]),
        "boolean" => json!(false),
        "integer" | "number" => schema.get("minimum").cloned().unwrap_or_else(|| json!(0)),
        "null" => Value::Null,
        "object" => json!({}),
        _ => json!(command),
    }
}

/// The value with a space after each colon and comma, as the Python servers that host such models write it.
pub(super) fn spaced(value: &Value) -> String {
    let mut text = Vec::new();
    value
        .serialize(&mut Serializer::with_formatter(&mut text, Spaced))
        .expect("a value of JSON, written to memory, cannot fail");
    String::from_utf8(text).expect("JSON is written as UTF-8")
}

struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        to: &mut W,
        first: bool,
    ) -> io::Result<()> {
        to.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        to: &mut W,
        first: bool,
    ) -> io::Result<()> {
        to.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, to: &mut W) -> io::Result<()> {
        to.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fitted(parameters: Value) -> Value {
        let tool = json!({"type": "function", "function": {"name": "t", "parameters": parameters}});
        Tool::read(&tool).unwrap().arguments("date")
    }

    #[test]
    fn a_command_fits_the_shape_the_schema_wants() {
        let cases = [
            (
                json!({"properties": {"command": {"type": "string"}}}),
                json!({"command": "date"}),
            ),
            (
                json!({"properties": {"command": {}}, "required": ["command"]}),
                json!({"command": "date"}),
            ),
            (
                json!({"properties": {"command": {"type": "array", "items": {"type": "string"}}}}),
                json!({"command": ["bash", "-lc", "date"]}),
            ),
            (
                json!({"properties": {"command": {"type": ["null", "array"]}}}),
                json!({"command": ["bash", "-lc", "date"]}),
            ),
            (
                json!({
                    "properties": {
                        "city": {"type": "string"}, "unit": {"enum": ["c", "f"]}, "days": {"type": "integer", "minimum": 1},
                        "wind": {"type": "boolean"}, "tags": {"type": "array"}, "more": {"type": "object"}, "not": {"type": "string"},
                    },
                    "required": ["city", "unit", "days", "wind", "tags", "more"],
                }),
                json!({"city": "date", "unit": "c", "days": 1, "wind": false, "tags": [], "more": {}}),
            ),
            (json!(null), json!({})),
        ];
        for (schema, arguments) in cases {
            assert_eq!(fitted(schema.clone()), arguments, "{schema}");
        }
    }

    #[test]
    fn arguments_are_spaced_as_python_spaces_them() {
        let value = json!({"command": ["a", "b: c"], "n": {}});
        assert_eq!(spaced(&value), r#"{"command": ["a", "b: c"], "n": {}}"#);
    }
}
