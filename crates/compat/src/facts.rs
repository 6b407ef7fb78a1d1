//! What is known of a request when manifests are matched.

/// Everything a manifest's `match` may ask about.
///
/// Two sides are kept apart because they differ on purpose: the route as the
/// client was told of it, and the provider that really answers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Facts {
    /// The harness that calls, when it is known.
    pub agent: Option<String>,
    /// The route as the client sees it.
    pub client: ClientFacts,
    /// Who answers.
    pub upstream: UpstreamFacts,
}

/// The route as the client sees it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClientFacts {
    /// The model name the client asks for.
    pub model: String,
    /// The key under which the client's configuration lists the provider.
    pub provider_key: String,
    /// `openai-completions`, `openai-responses`, `anthropic-messages`.
    pub inference_api: String,
    /// The base URL in the client's configuration.
    pub base_url: String,
}

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UpstreamFacts {
    /// Farrier's name for the provider.
    pub provider: String,
    /// What the provider calls the model.
    pub model: String,
    /// The provider's base URL.
    pub base_url: String,
    /// The serving software (`vllm`, `ollama`…), when the configuration says.
    pub server: Option<String>,
}

/// The provider key of the managed route.
pub const MANAGED_PROVIDER_KEY: &str = "inference";
/// The base URL of the managed route.
pub const MANAGED_BASE_URL: &str = "https://inference.local/v1";
/// The API name of `POST /v1/chat/completions`.
pub const CHAT_COMPLETIONS: &str = "openai-completions";
