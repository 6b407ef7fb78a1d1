//! An agent: it remembers its conversation as a careless client does, and replays it with every request.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use farrier_testkit::{RawClient, RawResponse};
use serde_json::{Value, json};

/// The name of the model that the gateway leads to the persona.
pub(crate) const MODEL: &str = "moonshotai/kimi-k2.6";

/// One conversation, without any reasoning in it.
#[derive(Debug)]
pub(crate) struct Agent {
    messages: Vec<Value>,
    form: Form,
}

/// How an agent wants its answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Stream,
    Whole,
}

/// What became of one request.
#[derive(Debug)]
#[must_use = "a turn that was cut off is not in the conversation"]
pub(crate) enum Turn {
    /// No answer, or not its end.
    CutOff,
    /// To its end; what the model said is in the conversation now.
    Ended,
    /// An answer, and not a model's.
    Refused(RawResponse),
}

impl Agent {
    /// A conversation that begins with these words; they tell it from others in the persona's log.
    pub(crate) fn asking(words: &str, form: Form) -> Self {
        Self {
            messages: vec![json!({"role": "user", "content": words})],
            form,
        }
    }

    /// How many turns of the model it has seen the end of.
    pub(crate) fn turns(&self) -> usize {
        let is_turn = |message: &&Value| message["role"] == "assistant";
        self.messages.iter().filter(is_turn).count()
    }

    /// The body of its next request.
    pub(crate) fn request(&self) -> String {
        let parameters = json!({"type": "object", "properties": {"command": {"type": "string"}}});
        let function = json!({"name": "exec", "parameters": parameters});
        json!({
            "model": MODEL,
            "stream": self.form == Form::Stream,
            "messages": self.messages,
            "tools": [{"type": "function", "function": function}],
        })
        .to_string()
    }

    /// Sends the conversation over a connection of its own and takes the answer in.
    pub(crate) async fn turn(&mut self, gateway: SocketAddr) -> Turn {
        let Some(mut client) = RawClient::try_connect(gateway).await else {
            return Turn::CutOff;
        };
        self.turn_over(&mut client).await
    }

    /// The same over a connection that is there.
    pub(crate) async fn turn_over(&mut self, client: &mut RawClient) -> Turn {
        // Whether it was taken is what the answer says.
        let _taken = client
            .try_post("/v1/chat/completions", self.request())
            .await;
        match client.try_response().await {
            None => Turn::CutOff,
            Some(response) if response.status != 200 => Turn::Refused(response),
            Some(response) => self.take(&response),
        }
    }

    /// So many turns, each of which must end.
    pub(crate) async fn turns_that_end(&mut self, count: usize, gateway: SocketAddr) {
        for _ in 0..count {
            match self.turn(gateway).await {
                Turn::Ended => {}
                Turn::CutOff => panic!("turn {} was cut off", self.turns()),
                Turn::Refused(response) => {
                    panic!(
                        "turn {}: {} {}",
                        self.turns(),
                        response.status,
                        response.text()
                    )
                }
            }
        }
    }

    fn take(&mut self, response: &RawResponse) -> Turn {
        let calls = match self.form {
            Form::Whole if response.whole => whole_calls(&response.body),
            Form::Stream => streamed_calls(&response.text()),
            Form::Whole => None,
        };
        let Some(calls) = calls else {
            return Turn::CutOff;
        };
        assert!(!calls.is_empty(), "a call in {}", response.text());
        let results = calls
            .iter()
            .map(|call| json!({"role": "tool", "tool_call_id": call["id"], "content": "done"}))
            .collect::<Vec<Value>>();
        self.messages
            .push(json!({"role": "assistant", "content": null, "tool_calls": calls}));
        self.messages.extend(results);
        Turn::Ended
    }
}

fn whole_calls(body: &[u8]) -> Option<Vec<Value>> {
    let body: Value = serde_json::from_slice(body).ok()?;
    body["choices"][0]["message"]["tool_calls"]
        .as_array()
        .cloned()
}

/// The calls of a stream whose end has come; `None` without it.
fn streamed_calls(text: &str) -> Option<Vec<Value>> {
    let mut calls: BTreeMap<u64, Value> = BTreeMap::new();
    for data in text.lines().filter_map(|line| line.strip_prefix("data: ")) {
        if data == "[DONE]" {
            return Some(calls.into_values().collect());
        }
        let event: Value = serde_json::from_str(data).ok()?;
        if event.get("error").is_some() {
            return None;
        }
        let deltas = event["choices"][0]["delta"]["tool_calls"].as_array();
        for delta in deltas.into_iter().flatten() {
            let index = delta["index"].as_u64()?;
            let call = calls.entry(index).or_insert_with(
                || json!({"type": "function", "function": {"name": "", "arguments": ""}}),
            );
            add(call, delta);
        }
    }
    None
}

fn add(call: &mut Value, delta: &Value) {
    if let Some(id) = delta["id"].as_str() {
        call["id"] = id.into();
    }
    for part in ["name", "arguments"] {
        let more = delta["function"][part].as_str().unwrap_or_default();
        let text = call["function"][part].as_str().unwrap_or_default();
        call["function"][part] = format!("{text}{more}").into();
    }
}
