//! A client that loses what a strict model wants back, as real ones do.
//!
//! It does at once what versions of OpenClaw were each seen to do: 2026.4.21 strips ids to letters and digits, 2026.5.12
//! drops the reasoning of earlier turns, 2026.9.6 drops all of it where the model is not declared to reason; and none of
//! them names the tool in a result. The 400 this earns is theirs, word for word (openclaw/openclaw#70392, #62319).

use std::time::Duration;

use bytes::Bytes;
use farrier_serve::read_body;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Map, Value, json};

use super::machine;
use super::trajectory::{Answer, Call, Exchange, History, Trajectory};
use crate::failure::Failure;

/// The harness that the client says it is.
pub(super) const AGENT: &str = "openclaw";

/// What it is to do.
pub(super) const TASK: &str = "Run hostname, date and uptime, then say how this machine is doing.";

/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Largest answer.
const MAX_REPLY_BYTES: usize = 4 << 20;
/// Ids are cut there.
const MAX_ID_CHARS: usize = 40;

/// One conversation.
#[derive(Debug)]
pub(crate) struct Harness {
    http: Client<HttpConnector, Full<Bytes>>,
    base_url: String,
    model: String,
    messages: Vec<Value>,
    parameters: Map<String, Value>,
}

impl Harness {
    /// A client that is told to do the task.
    pub(crate) fn new(base_url: &str, model: &str, task: &str) -> Self {
        Self {
            http: Client::builder(TokioExecutor::new()).build_http(),
            base_url: base_url.to_owned(),
            model: model.to_owned(),
            messages: vec![
                json!({"role": "system", "content": "You are a careful assistant."}),
                json!({"role": "user", "content": task}),
            ],
            parameters: Map::new(),
        }
    }

    /// With fields that every request of its has.
    pub(crate) fn with_parameters(mut self, parameters: Map<String, Value>) -> Self {
        self.parameters = parameters;
        self
    }

    /// Works until the model is done, or refuses; or until it has been asked `most` times.
    pub(crate) async fn work(mut self, most: usize) -> Result<Trajectory, Failure> {
        let mut exchanges = Vec::new();
        while exchanges.len() < most {
            let sent = History::of_messages(&self.messages);
            let answer = self.ask().await?;
            exchanges.push(Exchange {
                sent,
                received: None,
                notes: Vec::new(),
                answer: answer.clone(),
            });
            let Answer::Calls { calls } = answer else {
                break;
            };
            self.call(&calls);
        }
        Ok(Trajectory {
            base_url: self.base_url,
            model: self.model,
            exchanges,
        })
    }

    async fn ask(&self) -> Result<Answer, Failure> {
        let mut body = Map::from_iter([
            ("model".to_owned(), json!(self.model)),
            ("messages".to_owned(), json!(self.messages)),
            ("stream".to_owned(), json!(true)),
            ("tools".to_owned(), json!([exec()])),
        ]);
        body.extend(self.parameters.clone());
        let request = Request::post(format!("{}/chat/completions", self.base_url))
            .header("content-type", "application/json")
            .header("x-farrier-agent", AGENT)
            .body(Full::from(Value::Object(body).to_string()))
            .map_err(|error| Failure::internal("cannot ask", &error))?;
        let cannot = |error: &dyn std::error::Error| {
            Failure::user(format!("no answer from {}", self.base_url)).caused_by(error)
        };
        let response = tokio::time::timeout(PATIENCE, self.http.request(request)).await;
        let response = response
            .map_err(|error| cannot(&error))?
            .map_err(|error| cannot(&error))?;
        let (head, mut body) = Response::into_parts(response);
        let body = read_body(&mut body, MAX_REPLY_BYTES, PATIENCE).await;
        let body = body.map_err(|error| cannot(&error))?;
        Ok(match head.status {
            StatusCode::OK => answer(&String::from_utf8_lossy(&body)),
            status => Answer::Refused {
                status: status.as_u16(),
                message: refusal(&body),
            },
        })
    }

    /// Runs the calls, and remembers of the turn what this client remembers.
    fn call(&mut self, calls: &[Call]) {
        let tool_calls: Vec<Value> = calls
            .iter()
            .map(|call| {
                json!({"id": sanitised(&call.id), "type": "function",
                       "function": {"name": call.name, "arguments": call.arguments}})
            })
            .collect();
        self.messages
            .push(json!({"role": "assistant", "content": null, "tool_calls": tool_calls}));
        for call in calls {
            let content = machine::run(&call.command);
            let id = sanitised(&call.id);
            self.messages
                .push(json!({"role": "tool", "tool_call_id": id, "content": content}));
        }
    }
}

fn exec() -> Value {
    let command = json!({"type": "string", "description": "The command to run"});
    let parameters =
        json!({"type": "object", "properties": {"command": command}, "required": ["command"]});
    let function =
        json!({"name": "exec", "description": "Run a command", "parameters": parameters});
    json!({"type": "function", "function": function})
}

/// What is left of an id.
fn sanitised(id: &str) -> String {
    id.chars()
        .filter(char::is_ascii_alphanumeric)
        .take(MAX_ID_CHARS)
        .collect()
}

/// Puts the deltas of a stream together; reasoning is not among what this client looks at.
fn answer(stream: &str) -> Answer {
    let mut text = String::new();
    let mut calls: Vec<Call> = Vec::new();
    let events = stream.lines().filter_map(|line| line.strip_prefix("data:"));
    for event in events.filter_map(|data| serde_json::from_str::<Value>(data).ok()) {
        if let Some(message) = event["error"]["message"].as_str() {
            return Answer::Refused {
                status: 200,
                message: message.to_owned(),
            };
        }
        let delta = &event["choices"][0]["delta"];
        text.push_str(delta["content"].as_str().unwrap_or_default());
        for part in delta["tool_calls"].as_array().into_iter().flatten() {
            gather(&mut calls, part);
        }
    }
    if calls.is_empty() {
        return Answer::Text { text };
    }
    for call in &mut calls {
        let arguments: Value = serde_json::from_str(&call.arguments).unwrap_or_default();
        call.command = arguments["command"].as_str().unwrap_or_default().to_owned();
    }
    Answer::Calls { calls }
}

fn gather(calls: &mut Vec<Call>, part: &Value) {
    let index = part["index"]
        .as_u64()
        .and_then(|index| usize::try_from(index).ok());
    let index = index.unwrap_or_default().min(calls.len());
    if index == calls.len() {
        let (id, name, command, arguments) = Default::default();
        calls.push(Call {
            id,
            name,
            command,
            arguments,
        });
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let call = &mut calls[index];
    call.id.push_str(&text(&part["id"]));
    call.name.push_str(&text(&part["function"]["name"]));
    call.arguments
        .push_str(&text(&part["function"]["arguments"]));
}

fn refusal(body: &[u8]) -> String {
    let parsed: Value = serde_json::from_slice(body).unwrap_or_default();
    match parsed["error"]["message"].as_str() {
        Some(message) => message.to_owned(),
        None => String::from_utf8_lossy(body).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_stripped_to_forty_letters_and_digits() {
        assert_eq!(sanitised("functions.exec:0"), "functionsexec0");
        assert_eq!(sanitised("a8Kd0s9eK"), "a8Kd0s9eK");
        assert_eq!(sanitised(&"x".repeat(50)).len(), 40);
    }

    #[test]
    fn fragments_become_calls_and_reasoning_is_forgotten() {
        let stream = r#"data: {"choices":[{"delta":{"reasoning_content":"hm"}}]}

data: {"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"exec","arguments":"{\"comm"}}]}}]}

data: {"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"and\":\"date\"}"}}]}}]}

data: [DONE]
"#;
        let Answer::Calls { calls } = answer(stream) else {
            panic!("expected calls")
        };
        let [call] = calls.as_slice() else {
            panic!("expected one call, got {calls:?}")
        };
        assert_eq!(
            (call.id.as_str(), call.name.as_str(), call.command.as_str()),
            ("a", "exec", "date")
        );
    }
}
