//! What is asked and what is answered: the same bytes for every target, but for the model's name, which is as long.
//!
//! A request says in a header of its own which answer it wants, so that the upstream reads no body; a gateway that drops
//! the header is answered with what the run says is asked just now. Every length here is exact, and the run checks what
//! the upstream received against it: a target that did less, or other, than it should have is not measured.

use std::time::Duration;

use serde_json::{Value, json};

/// A model that no manifest speaks of.
pub(crate) const PLAIN_MODEL: &str = "moonshotai/none-k2.6";
/// The model whose plan is measured; the provider calls it [`KIMI_UPSTREAM_MODEL`].
pub(crate) const KIMI_MODEL: &str = "moonshotai/kimi-k2.6";
pub(crate) const KIMI_UPSTREAM_MODEL: &str = "kimi-k2.6";

/// What a client says that has no key.
pub(crate) const NO_KEY: &str = "authorization: Bearer unused\r\n";

/// The header that names the [`Script`].
pub(crate) const SCRIPT_HEADER: &str = "x-bench-reply";

pub(crate) const CHAT_BYTES: usize = 1_000;
/// The long history: 200 messages in 500,000 bytes.
pub(crate) const HISTORY: Length = Length { messages: 200 };
/// The very long one: 800 messages in 2,000,000 bytes.
pub(crate) const LONG_HISTORY: Length = Length { messages: 800 };
/// Events of a stream, `[DONE]` not counted.
pub(crate) const CHUNKS: usize = 100;
/// The pace of a paced stream: a model that writes a thousand tokens a second.
pub(crate) const PACE: Duration = Duration::from_millis(1);

/// What stands before the time in each chunk of a paced stream.
pub(crate) const STAMP_MARK: &[u8] = b"sent@";
/// Decimal digits of that time, in nanoseconds since the run's start.
pub(crate) const STAMP_DIGITS: usize = 18;

/// How long a conversation is: so many messages, of [`Length::BYTES_PER_MESSAGE`] on average.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Length {
    /// The system prompt, the question, and two for each tool-call turn: an even number.
    pub(crate) messages: usize,
}

/// A tool-call turn of a history, as the client sends it back.
#[derive(Clone, Debug)]
pub(crate) struct Replayed {
    pub(crate) id: String,
    /// With its reasoning, and the tool's name on its result: as the model said it and wants it.
    pub(crate) whole: bool,
}

/// Where a request goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct To<'t> {
    pub(crate) host: &'t str,
    /// Of the base URL.
    pub(crate) path: &'t str,
    /// Header lines of the caller's own, each with its end.
    pub(crate) lines: &'t str,
}

/// Which answer a request gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Script {
    /// A short JSON answer, once the run lets go of it.
    Held,
    /// A JSON answer of about 1 KB.
    Json,
    /// The beginning of a stream, and its rest once the run lets go of it.
    Open,
    /// A WebSocket, on which nobody says anything.
    Talk,
    /// [`CHUNKS`] events, one each [`PACE`], each with the time it was sent.
    Paced,
    /// [`CHUNKS`] events, each written by itself, as fast as they are taken.
    Stream,
    /// The same events in one write.
    StreamAtOnce,
    /// [`CHUNKS`] events that end in a tool call, each written by itself.
    ToolStream,
    /// The same in one write.
    ToolStreamAtOnce,
    /// JSON: the tool-call turn of this number in the long history.
    Turn(usize),
}

/// The answers, ready to be written.
#[derive(Debug)]
pub(crate) struct Answers {
    pub(crate) json: Vec<u8>,
    /// Each event with its blank line.
    pub(crate) stream: Vec<Vec<u8>>,
    pub(crate) tool_stream: Vec<Vec<u8>>,
    pub(crate) paced: Vec<Vec<u8>>,
}

// === impl Length ===

impl Length {
    const BYTES_PER_MESSAGE: usize = 2_500;

    pub(crate) const fn bytes(self) -> usize {
        self.messages * Self::BYTES_PER_MESSAGE
    }

    /// Tool-call turns among the messages.
    pub(crate) const fn turns(self) -> usize {
        self.messages.saturating_sub(2) / 2
    }
}

// === impl Script ===

impl Script {
    pub(crate) fn header(self) -> String {
        match self {
            Self::Held => "held".into(),
            Self::Json => "json".into(),
            Self::Open => "open".into(),
            Self::Paced => "paced".into(),
            Self::Stream => "stream".into(),
            Self::StreamAtOnce => "stream-at-once".into(),
            Self::Talk => "talk".into(),
            Self::ToolStream => "tools".into(),
            Self::ToolStreamAtOnce => "tools-at-once".into(),
            Self::Turn(number) => format!("turn-{number}"),
        }
    }

    pub(crate) fn of_header(text: &str) -> Option<Self> {
        Some(match text {
            "held" => Self::Held,
            "json" => Self::Json,
            "open" => Self::Open,
            "paced" => Self::Paced,
            "stream" => Self::Stream,
            "stream-at-once" => Self::StreamAtOnce,
            "talk" => Self::Talk,
            "tools" => Self::ToolStream,
            "tools-at-once" => Self::ToolStreamAtOnce,
            _ => Self::Turn(text.strip_prefix("turn-")?.parse().ok()?),
        })
    }

    fn is_stream(self) -> bool {
        !matches!(self, Self::Held | Self::Json | Self::Talk | Self::Turn(_))
    }
}

// === requests ===

/// A whole request, head and body, as an SDK in a harness sends it.
pub(crate) fn request(to: &To<'_>, script: Script, body: &str) -> Vec<u8> {
    let To { host, path, lines } = to;
    format!(
        "POST {path}/chat/completions HTTP/1.1\r\n\
         host: {host}\r\n\
         accept: application/json\r\n\
         content-type: application/json\r\n\
         user-agent: OpenAI/JS 6.10.0\r\n\
         x-farrier-agent: openclaw\r\n\
         x-session-id: bench\r\n\
         {lines}\
         {SCRIPT_HEADER}: {}\r\n\
         content-length: {}\r\n\r\n{body}",
        script.header(),
        body.len()
    )
    .into_bytes()
}

/// The same, to a gateway of ours or to the upstream itself.
pub(crate) fn plain_request(script: Script, body: &str) -> Vec<u8> {
    let to = To {
        host: "127.0.0.1",
        path: "/v1",
        lines: NO_KEY,
    };
    request(&to, script, body)
}

/// A first question, [`CHAT_BYTES`] long.
pub(crate) fn chat(model: &str, script: Script) -> String {
    padded(CHAT_BYTES, |filler| {
        body(
            model,
            script,
            &[
                json!({"role": "system", "content": "You are a careful assistant. Use the tools."}),
                json!({"role": "user", "content": format!("What does this host do?{filler}")}),
            ],
        )
    })
}

/// A conversation of this length, whose turns are sent back like this.
pub(crate) fn history(model: &str, script: Script, length: Length, turns: &[Replayed]) -> String {
    padded(length.bytes(), |filler| {
        let mut messages = vec![
            json!({"role": "system", "content": "You are a careful assistant. Use the tools."}),
            json!({"role": "user", "content": format!("Find the fault in this tree.{filler}")}),
        ];
        for (number, turn) in turns.iter().enumerate() {
            messages.extend(turn.messages(number));
        }
        body(model, script, &messages)
    })
}

/// Turns whose ids look as if a gateway had minted them, and none has; their reasoning is gone.
pub(crate) fn unknown_turns(length: Length) -> Vec<Replayed> {
    let turn = |number| Replayed {
        id: format!("unkn{number:05}"),
        whole: false,
    };
    (0..length.turns()).map(turn).collect()
}

/// Turns that a client kept as the model said them.
pub(crate) fn native_turns(length: Length) -> Vec<Replayed> {
    let turn = |number| Replayed {
        id: native_id(number),
        whole: true,
    };
    (0..length.turns()).map(turn).collect()
}

impl Replayed {
    /// The call, and its result.
    fn messages(&self, number: usize) -> [Value; 2] {
        let call = json!({
            "id": self.id, "type": "function",
            "function": {"name": "read", "arguments": arguments(number)},
        });
        let mut said = json!({"role": "assistant", "tool_calls": [call]});
        let mut result =
            json!({"role": "tool", "tool_call_id": self.id, "content": file_text(number)});
        if self.whole {
            said["reasoning_content"] = json!(reasoning(number));
            result["name"] = json!("read");
        } else {
            said["content"] = Value::Null;
        }
        [said, result]
    }
}

fn body(model: &str, script: Script, messages: &[Value]) -> String {
    let parameters = json!({
        "type": "object", "required": ["path"],
        "properties": {"path": {"type": "string"}, "limit": {"type": "integer"}},
    });
    let tool = json!({"type": "function", "function": {
        "name": "read", "description": "Read a file of the tree.", "parameters": parameters,
    }});
    json!({
        "model": model, "messages": messages, "tools": [tool],
        "stream": script.is_stream(), "max_tokens": 4096,
    })
    .to_string()
}

/// What `make` gives for a filler that makes it `bytes` long.
fn padded(bytes: usize, make: impl Fn(&str) -> String) -> String {
    let missing = bytes.saturating_sub(make("").len());
    let words = " and every word counts".chars().cycle();
    make(&words.take(missing).collect::<String>())
}

fn arguments(number: usize) -> String {
    json!({"path": format!("src/module_{number:04}.rs"), "limit": 100}).to_string()
}

/// About 4.4 KB of source code, with the quotes and line ends that JSON has to escape.
fn file_text(number: usize) -> String {
    (0..50)
        .map(|line| {
            format!("    let value_{line:02} = table.get(\"key_{number:04}_{line:02}\").ok_or_else(|| absent({line:02}))?;\n")
        })
        .collect()
}

/// What the model thought in the turn of this number.
fn reasoning(number: usize) -> String {
    format!("Module {number:04} is next.{}", prose(2))
}

fn native_id(number: usize) -> String {
    format!("functions.read:{number}")
}

/// The opening of a WebSocket; key and answer are the example of RFC 6455 §1.3.
pub(crate) fn talk(host: &str) -> Vec<u8> {
    format!(
        "GET /v1/talk HTTP/1.1\r\n\
         host: {host}\r\n\
         connection: Upgrade\r\n\
         upgrade: websocket\r\n\
         sec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         {SCRIPT_HEADER}: {}\r\n\r\n",
        Script::Talk.header()
    )
    .into_bytes()
}

// === answers ===

/// How a WebSocket is agreed to.
pub(crate) const TALK_HEAD: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\n\
    upgrade: websocket\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

impl Answers {
    pub(crate) fn new() -> Self {
        let text: Vec<Value> = (0..CHUNKS - 2).map(delta).collect();
        let stamped: Vec<Value> = (0..CHUNKS - 2).map(|_| stamped_delta()).collect();
        let mut tools: Vec<Value> = (0..CHUNKS - 6).map(delta).collect();
        tools.extend(call_deltas());
        Self {
            json: answer(
                &json!({
                    "role": "assistant", "content": prose(5), "reasoning_content": prose(5),
                }),
                "stop",
            ),
            stream: events(&text, "stop"),
            tool_stream: events(&tools, "tool_calls"),
            paced: events(&stamped, "stop"),
        }
    }
}

/// The turn that stands at this number in a [`history`], as the model said it.
pub(crate) fn turn(number: usize) -> Vec<u8> {
    let call = json!({
        "id": native_id(number), "type": "function",
        "function": {"name": "read", "arguments": arguments(number)},
    });
    answer(
        &json!({
            "role": "assistant", "content": "", "tool_calls": [call],
            "reasoning_content": reasoning(number),
        }),
        "tool_calls",
    )
}

fn answer(message: &Value, finish: &str) -> Vec<u8> {
    json!({
        "id": "chatcmpl-0123456789abcdef", "object": "chat.completion", "created": 1_790_000_000,
        "model": KIMI_UPSTREAM_MODEL,
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": 300, "completion_tokens": 200, "total_tokens": 500},
    })
    .to_string()
    .into_bytes()
}

/// About 80 bytes a sentence.
fn prose(sentences: usize) -> String {
    " The host answers to its name, and the clock it keeps agrees with the one upstream."
        .repeat(sentences)
}

/// First chunk, `deltas`, last chunk, `[DONE]`.
fn events(deltas: &[Value], finish: &str) -> Vec<Vec<u8>> {
    let first = chunk(&json!({"role": "assistant", "content": ""}), &Value::Null);
    let last = chunk(&json!({}), &json!(finish));
    let middle = deltas.iter().map(|delta| chunk(delta, &Value::Null));
    std::iter::once(first)
        .chain(middle)
        .chain([last, "[DONE]".to_owned()])
        .map(|data| format!("data: {data}\n\n").into_bytes())
        .collect()
}

fn chunk(delta: &Value, finish: &Value) -> String {
    json!({
        "id": "chatcmpl-0123456789abcdef", "object": "chat.completion.chunk", "created": 1_790_000_000,
        "model": KIMI_UPSTREAM_MODEL,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    })
    .to_string()
}

/// A model thinks first and speaks then.
fn delta(number: usize) -> Value {
    let field = if number < CHUNKS / 3 {
        "reasoning_content"
    } else {
        "content"
    };
    json!({field: format!(" word {number:02}")})
}

fn stamped_delta() -> Value {
    let mark = String::from_utf8_lossy(STAMP_MARK);
    json!({"content": format!("{mark}{}", "0".repeat(STAMP_DIGITS))})
}

/// One call in four pieces.
fn call_deltas() -> [Value; 4] {
    let opened = json!({
        "index": 0, "id": "functions.read:0", "type": "function",
        "function": {"name": "read", "arguments": ""},
    });
    let more = |text: &str| json!({"index": 0, "function": {"arguments": text}});
    [
        opened,
        more("{\"path\":"),
        more("\"src/module_00.rs\""),
        more(",\"limit\":100}"),
    ]
    .map(|call| json!({"tool_calls": [call]}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_as_long_as_they_say_whatever_the_model() {
        for model in [PLAIN_MODEL, KIMI_MODEL] {
            assert_eq!(chat(model, Script::Json).len(), CHAT_BYTES);
        }
        for messages in [10, 100, 200, 800, 5_000] {
            let length = Length { messages };
            for turns in [unknown_turns(length), native_turns(length)] {
                let history = history(KIMI_MODEL, Script::Json, length, &turns);
                assert_eq!(history.len(), length.bytes());
                let history: Value = serde_json::from_str(&history).expect("it is JSON");
                let said = history.get("messages").and_then(Value::as_array);
                assert_eq!(said.map(Vec::len), Some(messages));
            }
        }
    }

    #[test]
    fn streams_have_as_many_chunks_as_they_say() {
        let answers = Answers::new();
        for stream in [&answers.stream, &answers.tool_stream, &answers.paced] {
            assert_eq!(stream.len(), CHUNKS + 1);
        }
    }

    #[test]
    fn every_script_is_found_again_by_its_header() {
        use Script::*;
        let streams = [
            Open,
            Paced,
            Stream,
            StreamAtOnce,
            ToolStream,
            ToolStreamAtOnce,
        ];
        for script in streams.into_iter().chain([Held, Json, Talk, Turn(98)]) {
            assert_eq!(Script::of_header(&script.header()), Some(script));
        }
        assert_eq!(Script::of_header("turn-x"), None);
        assert_eq!(Script::of_header(""), None);
    }
}
