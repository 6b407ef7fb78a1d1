//! Views of OpenAI chat completions: the request, the reply, the chunk.
//!
//! Shapes as documented for `POST /v1/chat/completions` and as seen from real
//! servers; where servers differ, a view takes what all of them mean:
//!
//! ```text
//! request  {"model", "stream", "messages":[{"role","content","tool_calls":[{"id","function":{"name","arguments"}}]},
//!           {"role":"tool","tool_call_id","name","content"}], …}
//! reply    {"choices":[{"index","message":{…, "tool_calls":[…]},"finish_reason"}], …}
//! chunk    {"choices":[{"index","delta":{…, "tool_calls":[{"index","id","function":{…}}]},"finish_reason"}], …}
//! ```

use std::borrow::Cow;
use std::fmt;

use super::json::{self, List, Object, Segments, Shape, Value};
use crate::fault::Fault;

static CALL: Shape = Shape::Object(&[("function", Shape::Object(&[]))]);
static MESSAGE: Shape = Shape::Object(&[("tool_calls", Shape::List(&CALL))]);
static ASK: Shape = Shape::Object(&[("messages", Shape::List(&MESSAGE))]);
static CHOICE: Shape = Shape::Object(&[
    (
        "delta",
        Shape::Object(&[("tool_calls", Shape::List(&CALL))]),
    ),
    (
        "message",
        Shape::Object(&[("tool_calls", Shape::List(&CALL))]),
    ),
]);
static REPLY: Shape = Shape::Object(&[("choices", Shape::List(&CHOICE))]);

/// A chat-completions request, opened for editing.
#[derive(Debug)]
pub struct Ask<'a> {
    source: &'a str,
    root: Object<'a>,
}

/// A reply or one chunk of it, opened for editing.
#[derive(Debug)]
pub struct Chunk<'e> {
    source: &'e str,
    root: Object<'e>,
}

/// One choice of a [`Chunk`].
#[derive(Debug)]
pub struct Choice<'c, 'e> {
    object: &'c mut Object<'e>,
}

// === impl Ask ===

impl<'a> Ask<'a> {
    /// Reads a request body, in one scan.
    ///
    /// # Errors
    /// The client's [`Fault`]s: not UTF-8, not JSON, cut off, nested too deep, a
    /// key twice, `messages` missing or not a list of objects.
    pub fn parse(body: &'a [u8]) -> Result<Self, Fault> {
        let source = simdutf8::compat::from_utf8(body).map_err(|error| {
            Fault::client(
                "body_not_utf8",
                format!(
                    "expected a request body in UTF-8, got an invalid byte (byte {})",
                    error.valid_up_to()
                ),
            )
        })?;
        let root = match json::parse(source, &ASK)? {
            Value::Object(root) => *root,
            other => {
                return Err(Fault::client(
                    "body_not_object",
                    format!(
                        "expected a JSON object as request body, got {}",
                        other.kind()
                    ),
                ));
            }
        };
        let ask = Self { source, root };
        ask.check_messages()?;
        Ok(ask)
    }

    fn check_messages(&self) -> Result<(), Fault> {
        let list = match self.root.get("messages") {
            Some(Value::List(list)) => list,
            Some(other) => return Err(malformed("messages".into(), "a list", other.kind())),
            None => return Err(malformed("messages".into(), "a list", "nothing")),
        };
        for (index, message) in list.items().enumerate() {
            let at = format_args!("messages[{index}]");
            match message.object() {
                Some(message) => check_calls(message, at)?,
                None => return Err(malformed(at.to_string(), "an object", message.kind())),
            }
        }
        Ok(())
    }

    /// The model the client asks for.
    ///
    /// # Errors
    /// The client's [`Fault`] when `model` is missing, blank or not a string.
    pub fn model(&self) -> Result<Cow<'_, str>, Fault> {
        let got = match self.root.get("model") {
            None => "nothing",
            Some(value) => match value.text() {
                Some(text) if !text.trim().is_empty() => return Ok(text),
                Some(_) => "a blank string",
                None => value.kind(),
            },
        };
        Err(Fault::client(
            "model_missing",
            format!("expected the name of a model at `model`, got {got}"),
        )
        .at("model"))
    }

    /// Whether the client asks for a stream.
    pub fn stream(&self) -> bool {
        self.root.get("stream").and_then(Value::raw) == Some("true")
    }

    /// The top level, for reading.
    pub fn root(&self) -> &Object<'a> {
        &self.root
    }

    /// The top level, for editing.
    pub fn root_mut(&mut self) -> &mut Object<'a> {
        &mut self.root
    }

    /// The messages, in order.
    pub fn messages(&self) -> impl Iterator<Item = &Object<'a>> {
        self.root
            .get("messages")
            .and_then(Value::list)
            .into_iter()
            .flat_map(|list| list.items().filter_map(Value::object))
    }

    /// The messages, for editing.
    pub fn messages_mut(&mut self) -> impl Iterator<Item = &mut Object<'a>> {
        self.root
            .get_mut("messages")
            .and_then(Value::list_mut)
            .into_iter()
            .flat_map(|list| list.items_mut().filter_map(Value::object_mut))
    }

    /// The body as it is now: kept slices and new text.
    pub fn into_segments(self) -> Segments<'a> {
        let mut out = Segments::new(self.source);
        self.root.write(&mut out);
        out
    }

    /// Whether the caller has switched thinking off for this request, in any of the
    /// spellings upstreams take.
    pub fn thinking_disabled(&self) -> bool {
        let nested = |key: &str, inner: &str| -> Option<serde_json::Value> {
            let json = self.root.get(key)?.to_json();
            let mut value: serde_json::Value = serde_json::from_str(&json).ok()?;
            Some(value.get_mut(inner)?.take())
        };
        nested("thinking", "type").is_some_and(|value| value == "disabled")
            || nested("chat_template_kwargs", "thinking").is_some_and(|value| value == false)
            || nested("chat_template_kwargs", "enable_thinking").is_some_and(|value| value == false)
            || self.root.get("enable_thinking").and_then(Value::raw) == Some("false")
    }
}

fn check_calls(message: &Object<'_>, at: fmt::Arguments<'_>) -> Result<(), Fault> {
    match message.get("tool_calls") {
        None => Ok(()),
        Some(Value::List(calls)) => match calls
            .items()
            .enumerate()
            .find(|(_, call)| call.object().is_none())
        {
            None => Ok(()),
            Some((n, call)) => Err(malformed(
                format!("{at}.tool_calls[{n}]"),
                "an object",
                call.kind(),
            )),
        },
        Some(other) if other.is_null() => Ok(()),
        Some(other) => Err(malformed(
            format!("{at}.tool_calls"),
            "a list",
            other.kind(),
        )),
    }
}

fn malformed(at: String, expected: &str, got: &str) -> Fault {
    Fault::client(
        "messages_malformed",
        format!("expected {expected} at `{at}`, got {got}"),
    )
    .at(at)
}

// === Messages and calls ===

/// The role of a message; empty when it has none.
pub fn role<'m>(message: &'m Object<'_>) -> Cow<'m, str> {
    message.text("role").unwrap_or_default()
}

/// The tool calls of a message or delta.
pub fn calls<'m, 'a>(part: &'m Object<'a>) -> Option<&'m List<'a>> {
    part.get("tool_calls")?.list()
}

/// The tool calls of a message or delta, for editing.
pub fn calls_mut<'m, 'a>(part: &'m mut Object<'a>) -> Option<&'m mut List<'a>> {
    part.get_mut("tool_calls")?.list_mut()
}

/// Whether a message carries at least one tool call.
pub fn has_calls(message: &Object<'_>) -> bool {
    calls(message).is_some_and(|calls| !calls.is_empty())
}

/// The name of the function a call is for; `None` while empty, which servers send
/// in continuations.
pub fn call_name<'m>(call: &'m Object<'_>) -> Option<Cow<'m, str>> {
    let name = call.get("function")?.object()?.text("name")?;
    (!name.is_empty()).then_some(name)
}

/// The raw JSON of a call's arguments: usually a string, from some servers an object.
pub fn call_arguments<'m>(call: &'m Object<'_>) -> Option<&'m str> {
    call.get("function")?.object()?.get("arguments")?.raw()
}

/// The text of a message's content: the string, or its text parts run together.
/// Empty when there is none.
pub fn content_text<'m>(part: &'m Object<'_>) -> Cow<'m, str> {
    let content = part.get("content").and_then(Value::raw);
    content.map(content_text_of).unwrap_or_default()
}

/// The text of the content `raw`.
pub fn content_text_of(raw: &str) -> Cow<'_, str> {
    if let Some(text) = json::unquote(raw) {
        return text;
    }
    let parts = serde_json::from_str::<Vec<Part<'_>>>(raw).unwrap_or_default();
    Cow::Owned(parts.into_iter().filter_map(|part| part.text).collect())
}

/// Whether content says anything whose JSON string has this inside.
pub fn says_something(inside: &str) -> bool {
    !content_text_of(&format!("\"{inside}\"")).is_empty()
}

/// A part of a content list; only text is read, so that images are not copied.
#[derive(serde::Deserialize)]
struct Part<'r> {
    #[serde(borrow, default)]
    text: Option<Cow<'r, str>>,
}

// === impl Chunk ===

impl<'e> Chunk<'e> {
    /// Reads the data of an event, or a whole JSON reply; `None` when it is not an
    /// object with a list of choices. What cannot be read is not ours to change.
    pub fn parse(data: &'e [u8]) -> Option<Self> {
        let source = simdutf8::basic::from_utf8(data).ok()?;
        let Value::Object(root) = json::parse(source, &REPLY).ok()? else {
            return None;
        };
        root.get("choices")?.list()?;
        Some(Self {
            source,
            root: *root,
        })
    }

    /// The fields around and with the choices.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &Value<'e>)> {
        self.root.fields()
    }

    /// The choices, for reading and editing.
    pub fn choices(&mut self) -> impl Iterator<Item = Choice<'_, 'e>> {
        self.root
            .get_mut("choices")
            .and_then(Value::list_mut)
            .into_iter()
            .flat_map(|list| list.items_mut().filter_map(Value::object_mut))
            .map(|object| Choice { object })
    }

    /// Whether the chunk reports an error beside its choices, as `OpenRouter` does.
    pub fn has_error(&self) -> bool {
        self.root.get("error").is_some_and(|error| !error.is_null())
    }

    /// Whether the chunk tells the usage, which is not a choice's.
    pub fn has_usage(&self) -> bool {
        self.root.get("usage").is_some_and(|usage| !usage.is_null())
    }

    /// Takes the usage out.
    pub fn remove_usage(&mut self) {
        self.root.remove("usage");
    }

    /// The document as it is now.
    pub fn into_segments(self) -> Segments<'e> {
        let mut out = Segments::new(self.source);
        self.root.write(&mut out);
        out
    }

    /// The chunk's frame around other choices: a copy of every top-level field but
    /// `choices` and `usage`, which belong to what was really said.
    pub fn envelope(&self) -> Envelope {
        let fields = self
            .root
            .fields()
            .filter(|(key, _)| !matches!(*key, "choices" | "usage"))
            .map(|(key, value)| format!("{}:{},", json::quote(key), value.to_json()))
            .collect();
        Envelope { fields }
    }
}

/// The fields around the choices of a stream's chunks.
#[derive(Debug, Clone, Default)]
pub struct Envelope {
    fields: String,
}

impl Envelope {
    /// A chunk with one choice that carries one tool-call delta, given as JSON.
    pub fn call_chunk(&self, choice: u64, call: &str) -> String {
        format!(
            "{{{}\"choices\":[{{\"index\":{choice},\"delta\":{{\"tool_calls\":[{call}]}},\"finish_reason\":null}}]}}",
            self.fields
        )
    }
}

// === impl Choice ===

impl<'e> Choice<'_, 'e> {
    /// Which choice this is; servers that leave the index out mean the first.
    pub fn index(&self) -> u64 {
        index_of(self.object).unwrap_or(0)
    }

    /// Its fields, the delta or message among them.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &Value<'e>)> {
        self.object.fields()
    }

    /// Why the choice ended; `None` while it goes on. An empty string, which some
    /// servers send in every chunk, is not a reason.
    pub fn finish(&self) -> Option<Cow<'_, str>> {
        let reason = self.object.text("finish_reason")?;
        (!reason.is_empty()).then_some(reason)
    }

    /// Takes the reason back.
    pub fn unfinish(&mut self) {
        self.object.set("finish_reason", "null".into());
    }

    /// Takes out what the delta says.
    pub fn clear(&mut self) {
        self.object.set("delta", "{}".into());
    }

    /// Gives another reason.
    pub fn set_finish(&mut self, reason: &str) {
        self.object.set("finish_reason", json::quote(reason));
    }

    /// Whether the choice says something besides its delta: log probabilities, say.
    pub fn has_more(&self) -> bool {
        self.object
            .fields()
            .filter(|(key, _)| !matches!(*key, "delta" | "finish_reason" | "index" | "message"))
            .any(|(_, value)| !value.is_null())
    }

    /// Whether this is a whole message, not a delta.
    pub fn is_whole(&self) -> bool {
        self.object.get("message").is_some()
    }

    /// The delta, or the message.
    pub fn part(&self) -> Option<&Object<'e>> {
        self.object.get(self.part_key())?.object()
    }

    /// The delta, or the message, for editing.
    pub fn part_mut(&mut self) -> Option<&mut Object<'e>> {
        let key = self.part_key();
        self.object.get_mut(key)?.object_mut()
    }

    fn part_key(&self) -> &'static str {
        if self.is_whole() { "message" } else { "delta" }
    }
}

/// The `index` of a choice or a call.
pub fn index_of(object: &Object<'_>) -> Option<u64> {
    object.get("index")?.raw()?.parse().ok()
}

/// Reads one tool-call object, for tests of what is made of it.
#[cfg(test)]
pub(crate) fn parse_call(json: &str) -> Option<Object<'_>> {
    match json::parse(json, &CALL).ok()? {
        Value::Object(call) => Some(*call),
        Value::List(_) | Value::New(_) | Value::Raw(_) | Value::Shared(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(body: &[u8]) -> String {
        let fault = Ask::parse(body).map(|_| ()).expect_err("refused");
        format!("{} {}: {}", fault.blame.as_str(), fault.code, fault.message)
    }

    #[test]
    fn bad_bodies_are_refused_with_the_place() {
        let cases: [(&[u8], &str); 10] = [
            (
                b"hello",
                "client body_not_json: request body is not the JSON we take: expected a value, got 'h' (byte 0)",
            ),
            (
                b"",
                "client body_truncated: request body is not the JSON we take: expected a value, got the end of the text",
            ),
            (
                b"{\"messages\":[{}",
                "client body_truncated: request body is not the JSON we take: expected `,` or `]` after an item, got the end of the text",
            ),
            (
                b"{\"a\":\"\xff\"}",
                "client body_not_utf8: expected a request body in UTF-8, got an invalid byte (byte 6)",
            ),
            (
                b"[]",
                "client body_not_object: expected a JSON object as request body, got a list",
            ),
            (
                b"{}",
                "client messages_malformed: expected a list at `messages`, got nothing",
            ),
            (
                b"{\"messages\":\"x\"}",
                "client messages_malformed: expected a list at `messages`, got a string",
            ),
            (
                b"{\"messages\":[{},3]}",
                "client messages_malformed: expected an object at `messages[1]`, got a number",
            ),
            (
                b"{\"messages\":[{\"tool_calls\":{}}]}",
                "client messages_malformed: expected a list at `messages[0].tool_calls`, got an object",
            ),
            (
                b"{\"messages\":[{\"tool_calls\":[null]}]}",
                "client messages_malformed: expected an object at `messages[0].tool_calls[0]`, got null",
            ),
        ];
        for (body, want) in cases {
            assert_eq!(refused(body), want);
        }
        let twice = b"{\"messages\":[],\"messages\":[]}";
        assert!(refused(twice).contains("each key once, got \"messages\" twice"));
        let deep = format!("{{\"messages\":[],\"x\":{}", "[".repeat(10_000));
        assert!(refused(deep.as_bytes()).starts_with("client body_too_deep"));
    }

    #[test]
    fn model_must_be_named() {
        for (body, got) in [
            (r#"{"messages":[]}"#, "nothing"),
            (r#"{"messages":[],"model":7}"#, "a number"),
            (r#"{"messages":[],"model":" "}"#, "a blank string"),
        ] {
            let ask = Ask::parse(body.as_bytes()).expect("a request");
            let fault = ask.model().expect_err("no model");
            assert_eq!(
                fault.message,
                format!("expected the name of a model at `model`, got {got}")
            );
        }
        let ask =
            Ask::parse(br#"{"messages":[],"model":"a\/b","stream":true}"#).expect("a request");
        assert_eq!(ask.model().expect("named"), "a/b");
        assert!(ask.stream());
    }

    #[test]
    fn rpl_17_each_way_to_switch_thinking_off_is_known() {
        for (field, off) in [
            (r#""thinking":{"type":"disabled"}"#, true),
            (r#""thinking":{"type":"enabled"}"#, false),
            (r#""chat_template_kwargs":{"thinking":false}"#, true),
            (r#""chat_template_kwargs":{"enable_thinking":false}"#, true),
            (r#""enable_thinking":false"#, true),
            (r#""enable_thinking":true"#, false),
            (r#""thinking":"x""#, false),
        ] {
            let body = format!("{{\"messages\":[],{field}}}");
            assert_eq!(
                Ask::parse(body.as_bytes())
                    .expect("a request")
                    .thinking_disabled(),
                off,
                "{field}"
            );
        }
    }

    #[test]
    fn content_is_read_as_string_and_as_parts() {
        let body = br#"{"messages":[{"content":"a"},{"content":[{"type":"text","text":"b"},{"type":"image_url"},{"type":"text","text":"c"}]},{"content":null},{}]}"#;
        let ask = Ask::parse(body).expect("a request");
        let texts: Vec<_> = ask
            .messages()
            .map(|message| content_text(message).into_owned())
            .collect();
        assert_eq!(texts, ["a", "bc", "", ""]);
    }

    #[test]
    fn envelope_keeps_unknown_fields_and_leaves_usage() {
        let data = br#"{"id":"x","created":1.0,"choices":[],"usage":{"n":1},"extra":{"a":[1]}}"#;
        let chunk = Chunk::parse(data).expect("a chunk");
        let made = chunk.envelope().call_chunk(2, "{\"index\":0}");
        assert_eq!(
            made,
            r#"{"id":"x","created":1.0,"extra":{"a":[1]},"choices":[{"index":2,"delta":{"tool_calls":[{"index":0}]},"finish_reason":null}]}"#
        );
    }

    #[test]
    fn what_is_not_a_chunk_is_not_read() {
        for data in [
            "[DONE]",
            "",
            "{",
            "{\"error\":{}}",
            "{\"choices\":null}",
            "\u{feff}{}",
        ] {
            assert!(Chunk::parse(data.as_bytes()).is_none(), "{data}");
        }
    }
}
