//! What a gateway is built from: complete, typed and resolved.
//!
//! In: values; whoever parses a file or reads the environment does it elsewhere. Out: a [`Config`] whose every mistake
//! [`Config::check`] reports at once. Nothing here is global, and nothing is read later.

mod care;
mod mistake;

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use farrier_compat::facts::{MANAGED_BASE_URL, MANAGED_PROVIDER_KEY};
use farrier_compat::registry::Registry;
use farrier_ledger::{Ledger, Scope};
use farrier_secrets::Secret;
use http::{HeaderName, HeaderValue, Uri, header};

pub use care::{Breaker, CallerLimits, Care, Concurrency, Fallback, Need, Retry};
pub use mistake::{Mistake, Mistakes};

use crate::select::nearest;

/// Everything a gateway needs to run.
#[derive(Debug)]
pub struct Config {
    /// Where to listen. More than loopback needs [`clients`](Self::clients).
    pub listen: Vec<SocketAddr>,
    /// Host names, beyond the loopback ones, under which keyless callers may address the gateway.
    pub allowed_hosts: Vec<String>,
    /// Sizes and counts.
    pub limits: Limits,
    /// Waits.
    pub deadlines: Deadlines,
    /// Who may call. Empty: anyone on loopback.
    pub clients: Vec<Client>,
    /// What a caller may have who has no limits of its own; without keys, each session is one.
    pub per_caller: CallerLimits,
    /// Who answers.
    pub providers: Vec<Provider>,
    /// Which model name leads where.
    pub routes: Vec<Route>,
    /// Who answers requests that name no model, if there is more than one provider.
    pub default_provider: Option<String>,
    /// The route as clients were told of it; manifests match on it.
    pub public: PublicRoute,
    /// The manifests.
    pub registry: Arc<Registry>,
    /// The turn ledger.
    pub ledger: Arc<dyn Ledger>,
    /// Where to keep wire transcripts, if anywhere.
    pub trace: Option<TraceConfig>,
}

/// Sizes and counts that a request may reach.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a request body.
    pub max_body_bytes: usize,
    /// Bytes of a reply that must be held whole to be rewritten.
    pub max_reply_bytes: usize,
    /// What the listener grants: connections, heads, streams, drain.
    pub listener: farrier_serve::Limits,
}

/// How long each step may take.
#[derive(Clone, Debug)]
pub struct Deadlines {
    /// Name resolution, connection and TLS handshake with a provider.
    pub connect: Duration,
    /// From sending the request until the head of the reply.
    pub first_byte: Duration,
    /// Between two pieces of a reply.
    pub silence: Duration,
    /// From the head of a request until the head of its reply, over all that is tried for it.
    pub reply: Duration,
    /// For the client's request body, from first byte to last.
    pub request_body: Duration,
    /// For one look into the turn ledger; after it the plan's miss policy decides.
    pub ledger_recall: Duration,
    /// For one write into the turn ledger; after it the reply goes on without.
    pub ledger_record: Duration,
}

/// Someone who may call, known by a key.
#[derive(Debug)]
pub struct Client {
    /// Also the scope of its conversations.
    pub name: String,
    /// The harness behind it, when that is certain.
    pub agent: Option<String>,
    /// What it presents as a bearer token or `x-api-key`.
    pub key: Secret,
    /// What it may have, where that is not what every caller may have.
    pub limits: CallerLimits,
}

/// An upstream account.
#[derive(Debug)]
pub struct Provider {
    /// How routes refer to it.
    pub name: String,
    /// What it speaks.
    pub api: Api,
    /// Up to and with the version segment: `https://api.moonshot.ai/v1`.
    pub base_url: String,
    /// What it is shown.
    pub credential: Option<Credential>,
    /// Sent with every request.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The serving software, when known; manifests match on it.
    pub server: Option<String>,
    /// How to speak HTTP with it.
    pub http: HttpVersion,
    /// PEM certificates to trust besides the public ones.
    pub ca_file: Option<PathBuf>,
    /// Where it is dialled, whatever its name resolves to; where the URL names a port, at that.
    pub address: Option<SocketAddr>,
    /// What may be asked of it besides chat completions.
    pub pass_through: PassThrough,
    /// How it is treated.
    pub care: Care,
}

/// A secret and how a provider wants to see it.
#[derive(Debug)]
pub struct Credential {
    /// The header field.
    pub header: HeaderName,
    /// What stands before the secret in it, space included.
    pub prefix: String,
    /// The secret.
    pub secret: Secret,
}

/// What a provider speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Api {
    /// `POST /v1/chat/completions`.
    #[default]
    OpenAiCompletions,
}

/// How to speak HTTP with a provider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HttpVersion {
    /// Over TLS what the handshake agrees on, else HTTP/1.1.
    #[default]
    Auto,
    /// HTTP/1.1 only.
    Http1,
    /// HTTP/2 only; without TLS with prior knowledge.
    Http2,
}

/// What callers may ask of a provider besides chat completions, with its credential.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PassThrough {
    /// Whatever is below `/v1`, by any method: files, batches, fine-tuning, what the account's owner manages.
    All,
    /// `GET`, `HEAD` and `POST` on [`INFERENCE_PATHS`].
    #[default]
    Inference,
}

/// What a model is asked for besides chat completions, below `/v1/`. None of it lists, changes or deletes what another
/// caller has left with the provider.
///
/// Sources: the API references of OpenAI and Anthropic, and vLLM's list of supported endpoints.
pub const INFERENCE_PATHS: [&str; 18] = [
    "audio/speech",
    "audio/transcriptions",
    "audio/translations",
    "classify",
    "completions",
    "embeddings",
    "images/edits",
    "images/generations",
    "images/variations",
    "messages",
    "messages/count_tokens",
    "moderations",
    "pooling",
    "rerank",
    "responses",
    "responses/compact",
    "responses/input_tokens",
    "score",
];

/// A model name and where it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// What clients ask for.
    pub model: String,
    /// The name of a [`Provider`].
    pub provider: String,
    /// What the provider calls it; the same if absent.
    pub upstream_model: Option<String>,
    /// Who answers in need, in order. Each is sent what its own model must be sent.
    pub fallbacks: Vec<Fallback>,
    /// What need is.
    pub fall_back_on: Vec<Need>,
    /// The route as clients were told of it, where that is not as of all others.
    pub public: Option<PublicRoute>,
}

/// The route as clients were told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicRoute {
    /// The key under which a harness lists the gateway as a provider.
    pub provider_key: String,
    /// The base URL that a harness is configured with.
    pub base_url: String,
}

/// Wire transcripts for bug reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceConfig {
    /// The folder that receives one folder per request.
    pub dir: PathBuf,
    /// Keep what people and models wrote, instead of masking it.
    pub keep_text: bool,
    /// Folders kept in all; when there are as many, nothing more is written.
    pub max_cases: usize,
    /// Bytes kept of each body.
    pub max_body_bytes: usize,
}

// === impl Config ===

impl Config {
    /// A gateway on a free loopback port with no providers yet.
    pub fn new(registry: Arc<Registry>, ledger: Arc<dyn Ledger>) -> Self {
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
            allowed_hosts: Vec::new(),
            limits: Limits::default(),
            deadlines: Deadlines::default(),
            clients: Vec::new(),
            per_caller: CallerLimits::default(),
            providers: Vec::new(),
            routes: Vec::new(),
            default_provider: None,
            public: PublicRoute::default(),
            registry,
            ledger,
            trace: None,
        }
    }

    /// Looks for everything that cannot work, without touching the network.
    ///
    /// # Errors
    ///
    /// All [`Mistakes`] at once.
    pub fn check(&self) -> Result<(), Mistakes> {
        let mut mistakes = Vec::new();
        self.check_listeners(&mut mistakes);
        self.check_clients(&mut mistakes);
        self.check_providers(&mut mistakes);
        self.check_routes(&mut mistakes);
        if mistakes.is_empty() {
            Ok(())
        } else {
            Err(Mistakes(mistakes))
        }
    }

    fn check_listeners(&self, mistakes: &mut Vec<Mistake>) {
        if self.listen.is_empty() {
            mistakes.push(Mistake::NoListener);
        }
        if self.clients.is_empty() {
            let open = self.listen.iter().filter(|addr| !addr.ip().is_loopback());
            mistakes.extend(open.map(|&addr| Mistake::OpenListener { addr }));
        }
    }

    fn check_clients(&self, mistakes: &mut Vec<Mistake>) {
        let mut names = HashSet::new();
        for (index, client) in self.clients.iter().enumerate() {
            if !names.insert(&client.name) {
                mistakes.push(Mistake::ClientNameRepeated {
                    name: client.name.clone(),
                });
            }
            if let Some(first) = self.clients[..index]
                .iter()
                .find(|other| other.key == client.key)
            {
                let (first, second) = (first.name.clone(), client.name.clone());
                mistakes.push(Mistake::ClientKeyRepeated { first, second });
            }
        }
    }

    fn check_providers(&self, mistakes: &mut Vec<Mistake>) {
        if self.providers.is_empty() {
            mistakes.push(Mistake::NoProvider);
        }
        let mut names = HashSet::new();
        for provider in &self.providers {
            let name = &provider.name;
            if !names.insert(name) {
                mistakes.push(Mistake::ProviderRepeated { name: name.clone() });
            }
            if !provider.base_url_works() {
                mistakes.push(Mistake::BaseUrl {
                    provider: name.clone(),
                });
            }
            check_retry(provider, mistakes);
        }
        if let Some(name) = &self.default_provider
            && !names.contains(name)
        {
            let nearest = nearest(name, self.provider_names());
            mistakes.push(Mistake::DefaultProviderUnknown {
                name: name.clone(),
                nearest,
            });
        }
    }

    fn check_routes(&self, mistakes: &mut Vec<Mistake>) {
        let mut models = HashSet::new();
        for route in &self.routes {
            let Route {
                model, provider, ..
            } = route;
            if !models.insert(model) {
                mistakes.push(Mistake::RouteRepeated {
                    model: model.clone(),
                });
            }
            if !self.provider_names().any(|name| name == provider) {
                let nearest = nearest(provider, self.provider_names());
                let (model, provider) = (model.clone(), provider.clone());
                mistakes.push(Mistake::RouteProviderUnknown {
                    model,
                    provider,
                    nearest,
                });
            }
            self.check_fallbacks(route, mistakes);
        }
    }

    fn check_fallbacks(&self, route: &Route, mistakes: &mut Vec<Mistake>) {
        let mut targets = HashSet::from([route.target()]);
        for (index, (provider, upstream_model)) in route.targets().skip(1).enumerate() {
            let model = route.model.clone();
            if !self.provider_names().any(|name| name == provider) {
                mistakes.push(Mistake::FallbackProviderUnknown {
                    model,
                    index,
                    provider: provider.to_owned(),
                    nearest: nearest(provider, self.provider_names()),
                });
            } else if !targets.insert((provider, upstream_model)) {
                let target = format!("{provider}/{upstream_model}");
                mistakes.push(Mistake::FallbackRepeated {
                    model,
                    index,
                    target,
                });
            }
        }
    }

    fn provider_names(&self) -> impl Iterator<Item = &str> {
        self.providers.iter().map(|provider| provider.name.as_str())
    }
}

fn check_retry(provider: &Provider, mistakes: &mut Vec<Mistake>) {
    let name = || provider.name.clone();
    let Retry {
        percent, statuses, ..
    } = &provider.care.retry;
    if *percent > 100 {
        mistakes.push(Mistake::RetryPercent {
            provider: name(),
            percent: *percent,
        });
    }
    let odd = statuses
        .iter()
        .filter(|status| !(400..600).contains(*status));
    mistakes.extend(odd.map(|&status| Mistake::RetryStatus {
        provider: name(),
        status,
    }));
}

// === impl Client ===

impl Client {
    /// A client with this key, as free as any.
    pub fn new(name: impl Into<String>, key: Secret) -> Self {
        Self {
            name: name.into(),
            agent: None,
            key,
            limits: CallerLimits::default(),
        }
    }

    /// Whose conversations it has.
    pub(crate) fn scope(&self) -> Scope {
        Scope::new(format!("client\n{}", self.name))
    }
}

// === impl Route ===

impl Route {
    /// A route to this provider, and to nobody else.
    pub fn new(model: impl Into<String>, provider: impl Into<String>) -> Self {
        Self {
            model: model.into(),
            provider: provider.into(),
            upstream_model: None,
            fallbacks: Vec::new(),
            fall_back_on: Need::USUAL.to_vec(),
            public: None,
        }
    }

    /// Provider and model of the route itself.
    fn target(&self) -> (&str, &str) {
        let model = self.upstream_model.as_ref().unwrap_or(&self.model);
        (&self.provider, model)
    }

    /// Provider and model of whoever may answer, in order.
    pub fn targets(&self) -> impl Iterator<Item = (&str, &str)> {
        let fallbacks = self.fallbacks.iter().map(|fallback| {
            let model = fallback.upstream_model.as_ref().unwrap_or(&self.model);
            (fallback.provider.as_str(), model.as_str())
        });
        std::iter::once(self.target()).chain(fallbacks)
    }
}

// === impl Provider ===

impl Provider {
    /// A provider of chat completions without a credential.
    pub fn new(name: impl Into<String>, base_url: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            api: Api::default(),
            base_url: base_url.into(),
            credential: None,
            headers: Vec::new(),
            server: None,
            http: HttpVersion::default(),
            ca_file: None,
            address: None,
            pass_through: PassThrough::default(),
            care: Care::default(),
        }
    }

    /// Whether what is sent to it can be read on the way.
    pub(crate) fn is_in_the_clear(&self) -> bool {
        let Ok(url) = self.base_url.parse::<Uri>() else {
            return false;
        };
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
        let here = host == "localhost"
            || host
                .parse::<IpAddr>()
                .is_ok_and(|address| address.is_loopback());
        url.scheme_str() == Some("http") && !here
    }

    fn base_url_works(&self) -> bool {
        self.base_url.parse::<Uri>().is_ok_and(|url| {
            let known = matches!(url.scheme_str(), Some("http" | "https"));
            let bare = url
                .authority()
                .is_some_and(|authority| !authority.as_str().contains('@'));
            known && bare && url.query().is_none() && !self.base_url.contains('#')
        })
    }
}

// === impl Credential ===

impl Credential {
    /// `Authorization: Bearer …`.
    #[must_use]
    pub fn bearer(secret: Secret) -> Self {
        Self {
            header: header::AUTHORIZATION,
            prefix: "Bearer ".to_owned(),
            secret,
        }
    }
}

// === impl Api ===

impl Api {
    /// The name in configuration files and manifests.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OpenAiCompletions => farrier_compat::facts::CHAT_COMPLETIONS,
        }
    }

    /// The API of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        (name == Self::OpenAiCompletions.as_str()).then_some(Self::OpenAiCompletions)
    }
}

// === defaults ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_body_bytes: 32 << 20,
            max_reply_bytes: 32 << 20,
            listener: farrier_serve::Limits::default(),
        }
    }
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            first_byte: Duration::from_secs(300),
            silence: Duration::from_secs(120),
            reply: Duration::from_secs(600),
            request_body: Duration::from_secs(60),
            ledger_recall: Duration::from_secs(2),
            ledger_record: Duration::from_secs(2),
        }
    }
}

impl Default for PublicRoute {
    fn default() -> Self {
        Self {
            provider_key: MANAGED_PROVIDER_KEY.to_owned(),
            base_url: MANAGED_BASE_URL.to_owned(),
        }
    }
}

impl TraceConfig {
    /// Masked transcripts of up to a thousand requests.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            keep_text: false,
            max_cases: 1000,
            max_body_bytes: 4 << 20,
        }
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
