//! A chat request as the mind reads it: bytes in, borrowed views out.
//!
//! Only what a rule needs is looked at; unknown fields are nobody's business here.

use serde_json::Value;

use super::Refusal;
use super::tools::Tool;
use crate::persona::Refusals;

/// One request.
#[derive(Debug)]
pub(super) struct Ask<'a> {
    pub(super) model: Option<&'a str>,
    pub(super) messages: Vec<Message<'a>>,
    /// Functions offered; empty when `tool_choice` is `none`.
    pub(super) tools: Vec<Tool<'a>>,
    /// The function that `tool_choice` names.
    pub(super) forced_tool: Option<&'a str>,
    pub(super) thinking: bool,
    pub(super) stream: bool,
    pub(super) include_usage: bool,
    temperature: Option<f64>,
}

/// One element of `messages`.
#[derive(Debug)]
pub(super) struct Message<'a>(&'a Value);

/// A call that the client replays.
#[derive(Debug)]
pub(super) struct ReplayedCall<'a> {
    pub(super) id: &'a str,
    pub(super) name: &'a str,
    /// Parsed, because nine clients re-serialise them; null when they are not JSON.
    pub(super) arguments: Value,
}

/// The body as JSON. Nesting beyond 128 levels is refused, as it would overflow most readers.
pub(super) fn parse(body: &[u8]) -> Result<Value, Refusal> {
    serde_json::from_slice(body)
        .map_err(|error| Refusal::invalid(format!("the body is not valid JSON: {error}")))
}

impl<'a> Ask<'a> {
    pub(super) fn read(body: &'a Value) -> Result<Self, Refusal> {
        let messages = body["messages"]
            .as_array()
            .ok_or_else(|| Refusal::invalid("messages must be a list".to_owned()))?;
        if let Some(index) = messages.iter().position(|message| !message.is_object()) {
            return Err(Refusal::invalid(format!(
                "messages[{index}] must be an object"
            )));
        }
        let tools = match body["tool_choice"].as_str() {
            Some("none") => Vec::new(),
            _ => body["tools"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Tool::read)
                .collect(),
        };
        Ok(Self {
            model: body["model"].as_str(),
            messages: messages.iter().map(Message).collect(),
            tools,
            forced_tool: body["tool_choice"]["function"]["name"].as_str(),
            thinking: thinks(body),
            stream: body["stream"] == true,
            include_usage: body["stream_options"]["include_usage"] == true,
            temperature: body["temperature"].as_f64(),
        })
    }

    /// The first user message's text: what a conversation is told apart by.
    pub(super) fn opening(&self) -> String {
        self.messages
            .iter()
            .find(|message| message.role() == "user")
            .map(Message::text)
            .unwrap_or_default()
    }

    /// kimi-fixed-sampling: one temperature with thinking, another without, absent always taken.
    pub(super) fn refused_temperature(&self, rules: &Refusals) -> Option<String> {
        let rule = rules.temperature.as_ref()?;
        let allowed = if self.thinking {
            &rule.thinking
        } else {
            &rule.without_thinking
        };
        let refused = self
            .temperature
            .is_some_and(|asked| allowed.as_f64() != Some(asked));
        refused.then(|| rule.text.render(&[("allowed", allowed)]))
    }

    /// The first message of a shape that the persona refuses.
    pub(super) fn refused_message(&self, rules: &Refusals) -> Option<String> {
        self.messages
            .iter()
            .enumerate()
            .find_map(|(index, message)| {
                let rule = message.refused_by(rules)?;
                Some(rule.render(&[("index", &index)]))
            })
    }
}

/// Seed behaviour 4.6 and the chat-template spellings: thinking is on unless the request turns it off.
fn thinks(body: &Value) -> bool {
    let template = &body["chat_template_kwargs"];
    let off = [
        &template["thinking"],
        &template["enable_thinking"],
        &body["enable_thinking"],
    ];
    body["thinking"]["type"] != "disabled" && off.iter().all(|flag| **flag != false)
}

impl<'a> Message<'a> {
    pub(super) fn role(&self) -> &'a str {
        self.0["role"].as_str().unwrap_or_default()
    }

    /// The text of `content`: a string, or the text parts of a list, joined.
    pub(super) fn text(&self) -> String {
        match &self.0["content"] {
            Value::String(text) => text.clone(),
            Value::Array(parts) => parts
                .iter()
                .filter_map(|part| part["text"].as_str())
                .collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => String::new(),
        }
    }

    /// The first of the fields that is there with a text in it.
    pub(super) fn reasoning(&self, fields: &[String]) -> Option<&'a str> {
        fields
            .iter()
            .filter_map(|field| self.0[field.as_str()].as_str())
            .find(|text| !text.is_empty())
    }

    pub(super) fn calls(&self) -> Vec<ReplayedCall<'a>> {
        let calls = self.0["tool_calls"].as_array().into_iter().flatten();
        calls.map(ReplayedCall::read).collect()
    }

    pub(super) fn result_id(&self) -> Option<&'a str> {
        self.0["tool_call_id"].as_str()
    }

    pub(super) fn name(&self) -> Option<&'a str> {
        self.0["name"].as_str()
    }

    fn refused_by<'r>(&self, rules: &'r Refusals) -> Option<&'r crate::template::Template> {
        match self.role() {
            "assistant" => {
                let calls = self.0["tool_calls"].as_array()?;
                let emptied = self.0["content"] == "" && !calls.is_empty();
                let no_calls = rules.empty_tool_calls.as_ref().filter(|_| calls.is_empty());
                no_calls.or_else(|| rules.empty_content.as_ref().filter(|_| emptied))
            }
            "tool" => rules
                .tool_name_missing
                .as_ref()
                .filter(|_| self.name().is_none()),
            _ => None,
        }
    }
}

impl<'a> ReplayedCall<'a> {
    fn read(call: &'a Value) -> Self {
        let function = &call["function"];
        let arguments = match &function["arguments"] {
            Value::String(text) => serde_json::from_str(text).unwrap_or_default(),
            other => other.clone(),
        };
        Self {
            id: call["id"].as_str().unwrap_or_default(),
            name: function["name"].as_str().unwrap_or_default(),
            arguments,
        }
    }
}
