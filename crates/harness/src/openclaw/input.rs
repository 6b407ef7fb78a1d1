//! What `OpenClaw`'s configuration is made from: a table of settings, and their values read.

use farrier_compat::registry::ToolDisclosure;
use http::Uri;

use super::agents::{self, Bounds, ExtraAgents};
use super::chat_url::{self, ChatUrl, DEFAULT_PORT};
use crate::document::Document;
use crate::gateway_key;
use crate::placeholder;
use crate::settings::{Mistakes, Reading, Setting};

/// Everything but the route and the manifests.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Input {
    pub(crate) api_key: String,
    pub(crate) context_window: u64,
    pub(crate) max_tokens: u64,
    pub(crate) reasoning: bool,
    pub(crate) inputs: Vec<String>,
    pub(crate) timeout_seconds: u64,
    pub(crate) heartbeat: Option<String>,
    pub(crate) disclosure: ToolDisclosure,
    pub(crate) port: u16,
    pub(crate) chat_url: ChatUrl,
    pub(crate) device_auth: DeviceAuth,
    /// The proxy for everything but the gateway.
    pub(crate) proxy: Option<String>,
    /// The model's `compat` as given, and where it is from.
    pub(crate) compat: Option<(String, String)>,
    pub(crate) extra: ExtraAgents,
    /// The directory that plugins were staged to.
    pub(crate) plugins: Option<String>,
    pub(crate) channels: Vec<(String, Document)>,
    pub(crate) web_search: Option<WebSearch>,
    pub(crate) telemetry: Option<Telemetry>,
}

/// Whether a browser has to be paired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeviceAuth {
    Off,
    On,
}

/// A search service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WebSearch {
    pub(crate) provider: &'static str,
    pub(crate) key_variable: &'static str,
}

/// Where traces go.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Telemetry {
    pub(crate) endpoint: String,
    pub(crate) service_name: String,
    pub(crate) sample_rate: f64,
}

/// What the route says that settings are checked against.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RouteBounds<'a> {
    pub(crate) provider_key: &'a str,
    /// The route is the one inside a sandbox, where the only way out is the proxy.
    pub(crate) is_managed: bool,
}

const BRAVE: WebSearch = WebSearch {
    provider: "brave",
    key_variable: "BRAVE_API_KEY",
};
const TAVILY: WebSearch = WebSearch {
    provider: "tavily",
    key_variable: "TAVILY_API_KEY",
};

/// Every setting, by what it is about.
pub(crate) static SETTINGS: &[&Setting] = &[
    &CONTEXT_WINDOW,
    &MAX_TOKENS,
    &REASONING,
    &INPUTS,
    &COMPAT,
    &gateway_key::API_KEY,
    &TOOL_DISCLOSURE,
    &TIMEOUT,
    &HEARTBEAT,
    &AGENTS,
    &HOME,
    &PLUGINS,
    &PORT,
    &CHAT_URL,
    &DISABLE_DEVICE_AUTH,
    &CHANNELS,
    &MANAGED_PROXY,
    &PROXY_HOST,
    &PROXY_PORT,
    &WEB_SEARCH,
    &WEB_SEARCH_PROVIDER,
    &OTEL,
    &OTEL_ENDPOINT,
    &OTEL_SERVICE_NAME,
    &OTEL_SAMPLE_RATE,
];

static CONTEXT_WINDOW: Setting = Setting::new(
    "context-window",
    "TOKENS",
    "The model's context window [default: 131072]",
)
.variable("NEMOCLAW_CONTEXT_WINDOW");
static MAX_TOKENS: Setting = Setting::new(
    "max-tokens",
    "TOKENS",
    "The longest answer to ask for [default: 4096]",
)
.variable("NEMOCLAW_MAX_TOKENS");
static REASONING: Setting =
    Setting::switch("reasoning", "true", "The model reasons").variable("NEMOCLAW_REASONING");
static INPUTS: Setting = Setting::new(
    "inputs",
    "KINDS",
    "What the model takes, such as text,image [default: text]",
)
.variable("NEMOCLAW_INFERENCE_INPUTS");
static COMPAT: Setting = Setting::new(
    "compat",
    "JSON",
    "Keys for the model's compat, before those of manifests",
)
.base64_variable("NEMOCLAW_INFERENCE_COMPAT_B64");
static TOOL_DISCLOSURE: Setting = Setting::new(
    "tool-disclosure",
    "HOW",
    "Show the model all tools at once (direct) or through search (progressive, the default)",
)
.variable("NEMOCLAW_TOOL_DISCLOSURE");
static TIMEOUT: Setting = Setting::new(
    "timeout",
    "SECONDS",
    "How long a turn of the agent may take [default: 600]",
)
.variable("NEMOCLAW_AGENT_TIMEOUT");
static HEARTBEAT: Setting = Setting::new(
    "heartbeat",
    "EVERY",
    "How often the agent wakes by itself, such as 30m",
)
.variable("NEMOCLAW_AGENT_HEARTBEAT_EVERY");
static AGENTS: Setting = Setting::new(
    "agents",
    "JSON",
    "Agents beside the main one: an array, or an object with agents, defaults and main",
)
.base64_variable("NEMOCLAW_EXTRA_AGENTS_JSON_B64");
static HOME: Setting = Setting::new(
    "home",
    "DIR",
    "The home directory of whoever runs OpenClaw [default: /sandbox]",
);
static PLUGINS: Setting = Setting::new(
    "plugins",
    "DIR",
    "Where OpenClaw finds what farrier stage put together [default: where manifests say, if they do]",
);
static PORT: Setting = Setting::new(
    "port",
    "PORT",
    "Where OpenClaw's own gateway listens [default: that of the chat URL, else 18789]",
)
.variable("NEMOCLAW_DASHBOARD_PORT");
static CHAT_URL: Setting = Setting::new(
    "chat-url",
    "URL",
    "Where people open the chat [default: loopback at the port]",
)
.variable("CHAT_UI_URL");
static DISABLE_DEVICE_AUTH: Setting = Setting::switch(
    "disable-device-auth",
    "1",
    "Let browsers in without pairing; so it is where the chat URL is not loopback",
)
.variable("NEMOCLAW_DISABLE_DEVICE_AUTH");
static CHANNELS: Setting = Setting::new(
    "channels",
    "JSON",
    "Messaging channels: an object by channel, with placeholders for secrets",
);
static MANAGED_PROXY: Setting = Setting::new(
    "managed-proxy",
    "YES|NO",
    "Send everything but the gateway through the proxy [default: yes on the managed route]",
)
.variable("NEMOCLAW_OPENCLAW_MANAGED_PROXY");
static PROXY_HOST: Setting = Setting::new(
    "proxy-host",
    "HOST",
    "The proxy's address [default: 10.200.0.1]",
)
.variable("NEMOCLAW_PROXY_HOST");
static PROXY_PORT: Setting = Setting::new("proxy-port", "PORT", "The proxy's port [default: 3128]")
    .variable("NEMOCLAW_PROXY_PORT");
static WEB_SEARCH: Setting = Setting::switch("web-search", "1", "Let the agent search the web")
    .variable("NEMOCLAW_WEB_SEARCH_ENABLED");
static WEB_SEARCH_PROVIDER: Setting = Setting::new(
    "web-search-provider",
    "NAME",
    "The search service, brave or tavily [default: brave]",
)
.variable("NEMOCLAW_WEB_SEARCH_PROVIDER");
static OTEL: Setting =
    Setting::switch("otel", "1", "Send traces to a collector").variable("NEMOCLAW_OPENCLAW_OTEL");
static OTEL_ENDPOINT: Setting = Setting::new(
    "otel-endpoint",
    "URL",
    "The collector [default: http://host.openshell.internal:4318]",
)
.variable("NEMOCLAW_OPENCLAW_OTEL_ENDPOINT");
static OTEL_SERVICE_NAME: Setting = Setting::new(
    "otel-service-name",
    "NAME",
    "What traces are filed under [default: openclaw-gateway]",
)
.variable("NEMOCLAW_OPENCLAW_OTEL_SERVICE_NAME");
static OTEL_SAMPLE_RATE: Setting = Setting::new(
    "otel-sample-rate",
    "RATE",
    "The share of traces that is sent, 0 to 1 [default: 1]",
)
.variable("NEMOCLAW_OPENCLAW_OTEL_SAMPLE_RATE");

impl Input {
    /// Reads every setting, and gives what is to be told besides.
    pub(crate) fn read(
        mut reading: Reading<'_>,
        route: RouteBounds<'_>,
    ) -> Result<(Self, Vec<String>), Mistakes> {
        let reading_it = &mut reading;
        let (port, chat_url) = address(reading_it);
        let disable = reading_it.is_on(&DISABLE_DEVICE_AUTH);
        let input = Self {
            api_key: gateway_key::read(reading_it),
            context_window: tokens(reading_it, &CONTEXT_WINDOW).unwrap_or(131_072),
            max_tokens: tokens(reading_it, &MAX_TOKENS).unwrap_or(4096),
            reasoning: reading_it.is_on(&REASONING),
            inputs: inputs(reading_it),
            timeout_seconds: timeout(reading_it),
            heartbeat: heartbeat(reading_it),
            disclosure: disclosure(reading_it),
            port,
            device_auth: if disable || !chat_url.is_loopback() {
                DeviceAuth::Off
            } else {
                DeviceAuth::On
            },
            chat_url,
            proxy: proxy(reading_it, route),
            compat: reading_it
                .given(&COMPAT)
                .map(|given| (given.from, given.text)),
            extra: extra_agents(reading_it, route),
            plugins: absolute(reading_it, &PLUGINS),
            channels: channels(reading_it),
            web_search: web_search(reading_it),
            telemetry: telemetry(reading_it),
        };
        reading.finish(input)
    }
}

fn positive(text: &str) -> Option<u64> {
    text.parse().ok().filter(|number| *number > 0)
}

fn tokens(reading: &mut Reading<'_>, setting: &'static Setting) -> Option<u64> {
    reading.lenient(setting, "a positive integer", positive)
}

fn inputs(reading: &mut Reading<'_>) -> Vec<String> {
    let text = reading.text(&INPUTS).unwrap_or_default();
    let kinds = text
        .split(',')
        .map(str::trim)
        .filter(|kind| !kind.is_empty());
    let kinds: Vec<String> = kinds.map(str::to_owned).collect();
    if kinds.is_empty() {
        return vec!["text".to_owned()];
    }
    kinds
}

fn timeout(reading: &mut Reading<'_>) -> u64 {
    reading
        .parsed(&TIMEOUT, "a positive integer", positive)
        .unwrap_or(600)
}

fn heartbeat(reading: &mut Reading<'_>) -> Option<String> {
    let wanted = "digits and one of s, m, h";
    reading.lenient(&HEARTBEAT, wanted, |text| {
        let digits = text.strip_suffix(['s', 'm', 'h'])?;
        let fits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        fits.then(|| text.to_owned())
    })
}

fn disclosure(reading: &mut Reading<'_>) -> ToolDisclosure {
    let choices = [
        ("progressive", ToolDisclosure::Progressive),
        ("direct", ToolDisclosure::Direct),
    ];
    reading
        .choice(&TOOL_DISCLOSURE, &choices)
        .unwrap_or(ToolDisclosure::Progressive)
}

/// The port is the given one, else that of the URL; a stock URL follows the port.
fn address(reading: &mut Reading<'_>) -> (u16, ChatUrl) {
    let given = reading.parsed(&PORT, "a port from 1024 to 65535", chat_url::port);
    let url = reading.parsed(&CHAT_URL, "an http or https URL", ChatUrl::parse);
    match (given, url) {
        (Some(port), Some(url)) if !url.is_stock() => (port, url),
        (Some(port), _) => (port, ChatUrl::on_loopback(port)),
        (None, Some(url)) => (url.gateway_port().unwrap_or(DEFAULT_PORT), url),
        (None, None) => (DEFAULT_PORT, ChatUrl::on_loopback(DEFAULT_PORT)),
    }
}

fn proxy(reading: &mut Reading<'_>, route: RouteBounds<'_>) -> Option<String> {
    let wanted = reading.text(&MANAGED_PROXY);
    let host = reading.parsed(&PROXY_HOST, "a host name or address", |text| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
        text.chars().all(plain).then(|| text.to_owned())
    });
    let port: Option<u16> = reading.parsed(&PROXY_PORT, "a port", |text| {
        text.parse().ok().filter(|port| *port > 0)
    });
    let on = match wanted {
        Some(text) => !["0", "false", "no", "off"].contains(&text.to_lowercase().as_str()),
        None => route.is_managed || host.is_some(),
    };
    let host = host.unwrap_or_else(|| "10.200.0.1".to_owned());
    on.then(|| format!("http://{host}:{}", port.unwrap_or(3128)))
}

fn extra_agents(reading: &mut Reading<'_>, route: RouteBounds<'_>) -> ExtraAgents {
    let home = absolute(reading, &HOME);
    let Some(given) = reading.given(&AGENTS) else {
        return ExtraAgents::default();
    };
    let bounds = Bounds {
        home: home.as_deref().unwrap_or("/sandbox"),
        provider_key: route.provider_key,
    };
    agents::read(&given.text, bounds).unwrap_or_else(|wrong| {
        for message in wrong {
            reading.wrong(&given.from, message);
        }
        ExtraAgents::default()
    })
}

fn absolute(reading: &mut Reading<'_>, setting: &'static Setting) -> Option<String> {
    reading.parsed(setting, "an absolute path", |text| {
        let path = text.trim_end_matches('/');
        text.starts_with('/').then(|| path.to_owned())
    })
}

fn channels(reading: &mut Reading<'_>) -> Vec<(String, Document)> {
    let Some(given) = reading.given(&CHANNELS) else {
        return Vec::new();
    };
    let channels = match Document::from_json(&given.text) {
        Ok(Document::Object(channels)) => Document::Object(channels),
        Ok(_) => {
            reading.wrong(&given.from, "expected an object by channel");
            return Vec::new();
        }
        Err(error) => {
            reading.wrong(&given.from, error.to_string());
            return Vec::new();
        }
    };
    for at in placeholder::plain_secrets(&channels) {
        let message = format!("{at}: expected a placeholder such as farrier:resolve:env:NAME");
        reading.wrong(&given.from, message);
    }
    for (channel, value) in channels.fields() {
        if !matches!(value, Document::Object(_)) {
            reading.wrong(&given.from, format!("{channel}: expected an object"));
        }
    }
    channels.fields().to_vec()
}

fn web_search(reading: &mut Reading<'_>) -> Option<WebSearch> {
    let on = reading.is_on(&WEB_SEARCH);
    let choices = [("brave", BRAVE), ("tavily", TAVILY)];
    let provider = reading.choice(&WEB_SEARCH_PROVIDER, &choices);
    on.then(|| provider.unwrap_or(BRAVE))
}

fn telemetry(reading: &mut Reading<'_>) -> Option<Telemetry> {
    let on = reading.is_on(&OTEL);
    let wanted = "an http or https URL without a user";
    let endpoint = reading.parsed(&OTEL_ENDPOINT, wanted, |text| {
        let uri: Uri = text.parse().ok()?;
        let plain = matches!(uri.scheme_str(), Some("http" | "https")) && !text.contains('@');
        plain.then(|| text.to_owned())
    });
    let service_name = reading.text(&OTEL_SERVICE_NAME);
    let sample_rate = reading.parsed(&OTEL_SAMPLE_RATE, "a number from 0 to 1", |text| {
        text.parse().ok().filter(|rate| (0.0..=1.0).contains(rate))
    });
    on.then(|| Telemetry {
        endpoint: endpoint.unwrap_or_else(|| "http://host.openshell.internal:4318".to_owned()),
        service_name: service_name.unwrap_or_else(|| "openclaw-gateway".to_owned()),
        sample_rate: sample_rate.unwrap_or(1.0),
    })
}
