//! `config.yaml` and `.env`: input, route and effects in, what is written out.

use farrier_compat::facts::{CHAT_COMPLETIONS, Facts};

use super::effects::Effects;
use super::input::Input;
use crate::document::Document;
use crate::placeholder;
use crate::route::{MESSAGES, RESPONSES};

/// What the files are made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parts<'a> {
    pub(crate) input: &'a Input,
    pub(crate) route: &'a Facts,
    pub(crate) effects: &'a Effects,
    /// How Hermes speaks to the provider, where it is not the usual way.
    pub(crate) api_mode: Option<&'static str>,
}

/// The version of the file that 0.19.0 writes itself; an older one would be migrated.
const CONFIG_VERSION: u64 = 33;
/// The longest value in a comment.
const LONGEST_REMARK: usize = 128;
/// What its own preset for the API server has: everything that needs nobody at a screen.
const TOOLSETS: &[&str] = &[
    "web",
    "terminal",
    "file",
    "vision",
    "image_gen",
    "skills",
    "browser",
    "todo",
    "memory",
    "session_search",
    "code_execution",
    "delegation",
    "cronjob",
];

/// Hermes' name for an API; none for the usual one.
pub(crate) fn api_mode(api: &str) -> Result<Option<&'static str>, String> {
    match api {
        "" | CHAT_COMPLETIONS => Ok(None),
        MESSAGES => Ok(Some("anthropic_messages")),
        RESPONSES => Ok(Some("codex_responses")),
        other => Err(format!(
            "expected {CHAT_COMPLETIONS}, {MESSAGES} or {RESPONSES}, got {other:?}"
        )),
    }
}

impl Parts<'_> {
    /// Remarks for people who open the file.
    pub(crate) fn header(&self) -> Vec<String> {
        let upstream = &self.route.upstream;
        vec![
            "Written by farrier config hermes; settings of your own stay, comments do not."
                .to_owned(),
            format!("Upstream provider: {}", remark(&upstream.provider)),
            format!("Upstream model: {}", remark(&upstream.model)),
            "base_url is the gateway's: keys and real endpoints are known to it alone.".to_owned(),
        ]
    }

    pub(crate) fn config(&self) -> Document {
        let upstream = &self.route.upstream;
        let named = [
            ("provider", upstream.provider.as_str().into()),
            ("model", upstream.model.as_str().into()),
        ];
        let terminal = [("backend", "local".into()), ("timeout", 180.into())];
        let memory = [
            ("memory_enabled", true.into()),
            ("user_profile_enabled", true.into()),
        ];
        let skills = [("creation_nudge_interval", 15.into())];
        let mut fields = vec![
            ("_config_version", CONFIG_VERSION.into()),
            ("_farrier_upstream", Document::object(named)),
            ("model", self.model()),
            ("providers", self.providers()),
            ("custom_providers", self.custom_providers()),
            ("terminal", Document::object(terminal)),
            ("agent", self.agent()),
            ("tools", self.tools()),
            ("memory", Document::object(memory)),
            ("skills", Document::object(skills)),
            ("platform_toolsets", self.platform_toolsets()),
            ("platforms", self.platforms()),
        ];
        if self.input.web_search {
            fields.push(("web", Document::object([("backend", "tavily".into())])));
        }
        Document::object(fields)
    }

    /// What `.env` sets.
    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        let mut lines = vec![
            ("API_SERVER_PORT".to_owned(), self.input.port.to_string()),
            ("API_SERVER_HOST".to_owned(), "127.0.0.1".to_owned()),
        ];
        lines.extend(self.input.messaging.variables.iter().cloned());
        if self.input.web_search {
            let name = "TAVILY_API_KEY";
            lines.push((name.to_owned(), placeholder::for_variable(name)));
        }
        lines
    }

    fn model(&self) -> Document {
        let client = &self.route.client;
        let mut model = vec![
            ("default", client.model.as_str().into()),
            ("provider", "custom".into()),
            ("base_url", client.base_url.as_str().into()),
            ("api_key", self.input.api_key.as_str().into()),
        ];
        let length = self.effects.context_length.or(self.input.context_window);
        model.extend(length.map(|length| ("context_length", length.into())));
        model.extend(self.api_mode.map(|mode| ("api_mode", mode.into())));
        Document::object(model)
    }

    fn providers(&self) -> Document {
        let client = &self.route.client;
        let name = self.route.upstream.provider.as_str();
        let mut provider = vec![
            ("name", name.into()),
            ("api", client.base_url.as_str().into()),
            ("api_key", self.input.api_key.as_str().into()),
            ("default_model", client.model.as_str().into()),
            ("discover_models", true.into()),
        ];
        provider.extend(self.api_mode.map(|mode| ("transport", mode.into())));
        let body = self.effects.extra_body.clone();
        provider.extend(body.map(|body| ("extra_body", body)));
        Document::object([(name, Document::object(provider))])
    }

    /// Without it the picker lists no models.
    fn custom_providers(&self) -> Document {
        let client = &self.route.client;
        let mut provider = vec![
            ("name", self.route.upstream.provider.as_str().into()),
            ("base_url", client.base_url.as_str().into()),
            ("api_key", self.input.api_key.as_str().into()),
            ("discover_models", true.into()),
        ];
        provider.extend(self.api_mode.map(|mode| ("api_mode", mode.into())));
        Document::List(vec![Document::object(provider)])
    }

    fn agent(&self) -> Document {
        let effort = self.effects.reasoning_effort.unwrap_or("medium");
        Document::object([
            ("max_turns", 60.into()),
            ("reasoning_effort", effort.into()),
        ])
    }

    /// A user who wants to see all tools at once is not overruled by a manifest.
    fn tools(&self) -> Document {
        let on = self.input.tool_search && self.effects.tool_search.unwrap_or(true);
        let search = [
            ("enabled", if on { "on" } else { "off" }.into()),
            ("search_default_limit", 5.into()),
            ("max_search_limit", 20.into()),
        ];
        Document::object([("tool_search", Document::object(search))])
    }

    fn platform_toolsets(&self) -> Document {
        let platforms = std::iter::once("api_server")
            .chain(self.input.messaging.channels.iter().map(String::as_str));
        let toolsets = || Document::list(TOOLSETS.iter().copied());
        Document::object(platforms.map(|platform| (platform, toolsets())))
    }

    fn platforms(&self) -> Document {
        let extra = [
            ("port", u64::from(self.input.port).into()),
            ("host", "127.0.0.1".into()),
        ];
        let server = [("enabled", true.into()), ("extra", Document::object(extra))];
        Document::object([("api_server", Document::object(server))])
    }
}

/// A value for a comment: on one line whatever a reader takes for a line, and short.
fn remark(value: &str) -> String {
    let breaks = |c: &char| !(c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'));
    value.chars().filter(breaks).take(LONGEST_REMARK).collect()
}
