//! What may be shown, by where it stands.
//!
//! Only what is listed here is shown. A key that is not known leads to [`Area::Hidden`], and nothing below that is shown
//! but kinds: what is new in a protocol is hidden until it is known to be harmless.

/// What the members of an object mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Area {
    /// What a tool is called with: member names that the tool declares, and no value.
    Arguments,
    Call,
    Choice,
    /// A function as a tool, or a schema, declares it.
    Declared,
    Error,
    /// The function of a call.
    Function,
    Hidden,
    Message,
    /// A request's options that are objects.
    Options,
    /// Around a document.
    Outside,
    Root,
    Schema,
    Tool,
    /// A message that is a tool's result.
    ToolMessage,
    Usage,
}

impl Area {
    /// Where the objects stand that are found under `key`.
    pub(super) fn below(self, key: &str) -> Self {
        match (self, key) {
            (Self::Arguments, _) | (Self::Function, "arguments") => Self::Arguments,
            (Self::Outside, _) => Self::Root,
            (Self::Root, "choices") => Self::Choice,
            (Self::Root, "error") => Self::Error,
            (Self::Root, "messages") | (Self::Choice, "delta" | "message") => Self::Message,
            (Self::Root, "tools" | "tool_choice") => Self::Tool,
            (Self::Root | Self::Choice, "usage") => Self::Usage,
            (Self::Root, "chat_template_kwargs" | "reasoning" | "response_format") => Self::Options,
            (Self::Root, "stream_options" | "thinking") => Self::Options,
            (Self::Message | Self::ToolMessage, "tool_calls") => Self::Call,
            (Self::Message | Self::ToolMessage, "function_call") => Self::Function,
            (Self::Call, "function") => Self::Function,
            (Self::Tool, "function") | (Self::Options, "json_schema") => Self::Declared,
            (Self::Declared, "parameters" | "schema") => Self::Schema,
            (Self::Schema, "const" | "default" | "enum" | "example" | "examples") => Self::Hidden,
            (Self::Schema, _) => Self::Schema,
            (Self::Usage, _) if key.ends_with("_details") => Self::Usage,
            _ => Self::Hidden,
        }
    }

    /// Whether the name of a member is shown; whether it is one that tools declare is asked elsewhere.
    pub(super) fn shows_name(self, name: &str) -> bool {
        match self {
            Self::Arguments => false,
            Self::Hidden => HARMLESS_NAMES.contains(&name),
            _ => is_plain(name),
        }
    }

    /// Whether the string `text` under `key` is shown.
    pub(super) fn shows_text(self, key: &str, text: &str) -> bool {
        let known = match self {
            Self::Hidden => return key == "type" && HARMLESS_KINDS.contains(&text),
            Self::Arguments | Self::Outside | Self::Usage => false,
            Self::Call => matches!(key, "id" | "type"),
            Self::Choice => matches!(key, "finish_reason" | "native_finish_reason"),
            Self::Declared | Self::Function => key == "name",
            Self::Error => matches!(key, "code" | "param" | "status" | "type"),
            Self::Message => matches!(key, "role" | "tool_call_id"),
            Self::ToolMessage => matches!(key, "name" | "role" | "tool_call_id"),
            Self::Options => matches!(key, "effort" | "type"),
            Self::Root => ROOT_TEXTS.contains(&key),
            Self::Schema => matches!(key, "required" | "type"),
            Self::Tool => key == "type",
        };
        known && is_plain(text)
    }

    /// Whether a number under `key` is shown.
    pub(super) fn shows_number(self, key: &str) -> bool {
        match self {
            Self::Call | Self::Choice => key == "index",
            Self::Error => matches!(key, "code" | "status"),
            Self::Options => key.ends_with("_tokens"),
            Self::Root => ROOT_NUMBERS.contains(&key),
            Self::Usage => true,
            _ => false,
        }
    }
}

/// Whether a text is of the kind that names and ids are made of.
pub(super) fn is_plain(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:@[]$+".contains(&byte);
    (1..=MAX_PLAIN_BYTES).contains(&text.len()) && text.bytes().all(plain)
}

/// A sentence without spaces is not longer than a word.
const MAX_PLAIN_BYTES: usize = 128;

const ROOT_TEXTS: [&str; 13] = [
    "code",
    "id",
    "model",
    "object",
    "param",
    "provider",
    "reasoning_effort",
    "service_tier",
    "status",
    "system_fingerprint",
    "tool_choice",
    "type",
    "verbosity",
];

const ROOT_NUMBERS: [&str; 15] = [
    "code",
    "created",
    "frequency_penalty",
    "max_completion_tokens",
    "max_tokens",
    "min_p",
    "n",
    "presence_penalty",
    "repetition_penalty",
    "seed",
    "status",
    "temperature",
    "top_k",
    "top_logprobs",
    "top_p",
];

/// Names of members that protocols have inside of contents and the like.
const HARMLESS_NAMES: [&str; 22] = [
    "cache_control",
    "content",
    "data",
    "detail",
    "file",
    "format",
    "id",
    "image_url",
    "index",
    "input",
    "input_audio",
    "is_error",
    "name",
    "refusal",
    "signature",
    "source",
    "summary",
    "text",
    "thinking",
    "tool_use_id",
    "type",
    "url",
];

/// Kinds that protocols have inside of contents and the like.
const HARMLESS_KINDS: [&str; 15] = [
    "ephemeral",
    "file",
    "image",
    "image_url",
    "input_audio",
    "reasoning.encrypted",
    "reasoning.summary",
    "reasoning.text",
    "redacted_thinking",
    "refusal",
    "text",
    "thinking",
    "tool_result",
    "tool_use",
    "video_url",
];
