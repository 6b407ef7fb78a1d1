//! The keys `OpenClaw` knows in a model's `compat`.
//!
//! `OpenClaw` refuses its whole configuration for one unknown key, and an unknown
//! value of the two keys with a closed set of them. The table is the union of the
//! configuration schemas of 2026.4.21 and 2026.9.6 (`openclaw config schema`).

/// A key and the values it may have.
#[derive(Debug)]
pub(super) struct CompatKey {
    pub(super) name: &'static str,
    /// Closed set of strings; empty when the values are not enumerated.
    pub(super) choices: &'static [&'static str],
}

const fn key(name: &'static str) -> CompatKey {
    CompatKey { name, choices: &[] }
}

const fn choice(name: &'static str, choices: &'static [&'static str]) -> CompatKey {
    CompatKey { name, choices }
}

/// Every key, by name.
pub(super) static COMPAT_KEYS: &[CompatKey] = &[
    key("cacheControlFormat"),
    key("codeMode"),
    choice("maxTokensField", &["max_completion_tokens", "max_tokens"]),
    key("nativeWebSearchTool"),
    key("openRouterRouting"),
    key("reasoningEffortMap"),
    key("requiresAssistantAfterToolResult"),
    key("requiresMistralToolIds"),
    key("requiresOpenAiAnthropicToolPayload"),
    key("requiresReasoningContentOnAssistantMessages"),
    key("requiresStringContent"),
    key("requiresThinkingAsText"),
    key("requiresToolResultName"),
    key("sendSessionAffinityHeaders"),
    key("sendSessionIdHeader"),
    key("strictMessageKeys"),
    key("supportedReasoningEfforts"),
    key("supportsDeveloperRole"),
    key("supportsEagerToolInputStreaming"),
    key("supportsInstructions"),
    key("supportsJsonSchemaResponseFormat"),
    key("supportsLongCacheRetention"),
    key("supportsPromptCacheKey"),
    key("supportsReasoningEffort"),
    key("supportsResponsesContinuation"),
    key("supportsStore"),
    key("supportsStrictMode"),
    key("supportsTemperature"),
    key("supportsTools"),
    key("supportsUsageInStreaming"),
    choice(
        "thinkingFormat",
        &[
            "deepseek",
            "openai",
            "openrouter",
            "qwen",
            "qwen-chat-template",
            "together",
            "zai",
        ],
    ),
    key("toolCallArgumentsEncoding"),
    key("toolSchemaProfile"),
    key("unsupportedToolSchemaKeywords"),
    key("vercelGatewayRouting"),
    key("visibleReasoningDetailTypes"),
    key("zaiToolStream"),
];
