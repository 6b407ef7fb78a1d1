//! What Hermes' configuration is made from: a table of settings, and their values read.

use serde::Deserialize;

use crate::env_lines;
use crate::gateway_key;
use crate::placeholder;
use crate::settings::{Mistakes, Reading, Setting};

/// Everything but the route and the manifests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Input {
    pub(crate) api_key: String,
    pub(crate) context_window: Option<u64>,
    pub(crate) tool_search: bool,
    pub(crate) web_search: bool,
    /// The port of its API server on loopback.
    pub(crate) port: u16,
    pub(crate) messaging: Messaging,
}

/// What messaging channels want.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Messaging {
    /// Placeholders, by variable.
    pub(crate) variables: Vec<(String, String)>,
    /// Channels that are on.
    pub(crate) channels: Vec<String>,
}

/// Every setting, by what it is about.
pub(crate) static SETTINGS: &[&Setting] = &[
    &CONTEXT_WINDOW,
    &gateway_key::API_KEY,
    &TOOL_DISCLOSURE,
    &PORT,
    &MESSAGING,
    &WEB_SEARCH,
    &WEB_SEARCH_PROVIDER,
];

static CONTEXT_WINDOW: Setting = Setting::new(
    "context-window",
    "TOKENS",
    "The model's context window; Hermes asks the provider if not given",
)
.variable("NEMOCLAW_CONTEXT_WINDOW");
static TOOL_DISCLOSURE: Setting = Setting::new(
    "tool-disclosure",
    "HOW",
    "Show the model all tools at once (direct) or through search (progressive, the default)",
)
.variable("NEMOCLAW_TOOL_DISCLOSURE");
static PORT: Setting = Setting::new(
    "port",
    "PORT",
    "Where Hermes' API server listens on loopback [default: 18642]",
);
static MESSAGING: Setting = Setting::new(
    "messaging",
    "JSON",
    "A plan of messaging channels, with placeholders for secrets",
)
.base64_variable("NEMOCLAW_MESSAGING_PLAN_B64");
static WEB_SEARCH: Setting = Setting::switch("web-search", "1", "Let the agent search the web")
    .variable("NEMOCLAW_WEB_SEARCH_ENABLED");
static WEB_SEARCH_PROVIDER: Setting = Setting::new(
    "web-search-provider",
    "NAME",
    "The search service; tavily is the only one",
)
.variable("NEMOCLAW_WEB_SEARCH_PROVIDER");

impl Input {
    /// Reads every setting, and gives what is to be told besides.
    pub(crate) fn read(mut reading: Reading<'_>) -> Result<(Self, Vec<String>), Mistakes> {
        let reading_it = &mut reading;
        let disclosures = [("progressive", true), ("direct", false)];
        let input = Self {
            api_key: gateway_key::read(reading_it),
            context_window: reading_it.lenient(&CONTEXT_WINDOW, "a positive integer", |text| {
                text.parse().ok().filter(|number| *number > 0)
            }),
            tool_search: reading_it
                .choice(&TOOL_DISCLOSURE, &disclosures)
                .unwrap_or(true),
            web_search: web_search(reading_it),
            port: reading_it
                .parsed(&PORT, "a port from 1024 to 65535", |text| {
                    text.parse().ok().filter(|port| *port >= 1024)
                })
                .unwrap_or(18642),
            messaging: messaging(reading_it),
        };
        reading.finish(input)
    }
}

fn web_search(reading: &mut Reading<'_>) -> bool {
    let on = reading.is_on(&WEB_SEARCH);
    let named = reading.choice(&WEB_SEARCH_PROVIDER, &[("tavily", ())]);
    on || named.is_some()
}

/// A plan of messaging channels, as far as it is read here.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Plan {
    agent: String,
    channels: Vec<Channel>,
    disabled_channels: Vec<String>,
    credential_bindings: Vec<Binding>,
    agent_render: Vec<Render>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Channel {
    channel_id: String,
    active: bool,
    disabled: bool,
}

/// A variable of a channel and what stands for its value.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Binding {
    channel_id: String,
    #[serde(alias = "envKey")]
    provider_env_key: String,
    placeholder: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Render {
    kind: String,
}

/// The variables of the plan's channels. A plan for another agent says nothing here, and
/// one that renders lines for `.env` itself is left to do so.
fn messaging(reading: &mut Reading<'_>) -> Messaging {
    let Some(given) = reading.given(&MESSAGING) else {
        return Messaging::default();
    };
    let plan: Option<Plan> = match serde_json::from_str(&given.text) {
        Ok(plan) => plan,
        Err(error) => {
            reading.wrong(&given.from, format!("expected a plan as JSON, got {error}"));
            return Messaging::default();
        }
    };
    let Some(plan) = plan.filter(|plan| plan.agent == "hermes") else {
        return Messaging::default();
    };
    let is_on = |channel: &&Channel| {
        let off = channel.disabled || plan.disabled_channels.contains(&channel.channel_id);
        channel.active && !off
    };
    let on = plan.channels.iter().filter(is_on);
    let channels: Vec<String> = on.map(|channel| channel.channel_id.clone()).collect();
    let mut variables: Vec<(String, String)> = Vec::new();
    let renders_lines = plan
        .agent_render
        .iter()
        .any(|render| render.kind == "env-lines");
    for binding in &plan.credential_bindings {
        let (name, value) = (&binding.provider_env_key, &binding.placeholder);
        let of_channel = channels.contains(&binding.channel_id);
        let is_taken = variables.iter().any(|(taken, _)| taken == name);
        if renders_lines || !of_channel || is_taken || !is_env_key(name) {
            continue;
        }
        if placeholder::is_reference(value) && env_lines::can_hold(value) {
            variables.push((name.clone(), value.clone()));
        } else {
            reading.wrong(&given.from, format!("{name}: expected a placeholder"));
        }
    }
    Messaging {
        variables,
        channels,
    }
}

/// `^[A-Z_][A-Z0-9_]*$`
fn is_env_key(name: &str) -> bool {
    placeholder::is_variable_name(name) && !name.chars().any(|c| c.is_ascii_lowercase())
}
