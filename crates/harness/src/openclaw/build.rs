//! The configuration itself: input, route and effects in, a [`Document`] out.
//!
//! Keys are written in one order, whatever order the input had. What the version
//! does not know is taken out at the end, and named.

use farrier_compat::facts::Facts;
use farrier_compat::registry::OpenclawEffects;
use serde_json::Number;

use super::agents::Agent;
use super::input::{DeviceAuth, Input, Telemetry};
use super::plugins::Loaded;
use super::versions::{AgentsShape, Version};
use crate::document::Document;
use crate::placeholder;
use crate::route::is_private;

/// What the configuration is made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parts<'a> {
    pub(crate) input: &'a Input,
    pub(crate) route: &'a Facts,
    pub(crate) effects: &'a OpenclawEffects,
    /// The model's `compat`, as the version takes it.
    pub(crate) compat: &'a [(String, Document)],
    pub(crate) plugins: &'a [Loaded],
    pub(crate) version: &'a Version,
}

/// The configuration, and the paths that were left out of it for this version.
pub(crate) fn configuration(parts: &Parts<'_>) -> (Document, Vec<String>) {
    let mut fields = vec![
        ("agents", parts.agents()),
        ("models", parts.models()),
        ("channels", parts.channels()),
        ("tools", parts.tools()),
        ("update", Document::object([("checkOnStart", false.into())])),
        ("plugins", parts.plugins()),
        ("gateway", parts.gateway()),
    ];
    if let Some(url) = &parts.input.proxy {
        let proxy = [
            ("enabled", true.into()),
            ("proxyUrl", url.as_str().into()),
            ("loopbackMode", "gateway-only".into()),
        ];
        fields.push(("proxy", Document::object(proxy)));
    }
    if let Some(telemetry) = &parts.input.telemetry {
        fields.push(("diagnostics", diagnostics(telemetry)));
    }
    let mut document = Document::object(fields);
    let left_out = parts.version.traits.fit(&mut document);
    (document, left_out)
}

impl Parts<'_> {
    fn agents(&self) -> Document {
        let input = self.input;
        let mut defaults = vec![
            (
                "model",
                Document::object([("primary", self.primary().into())]),
            ),
            ("timeoutSeconds", input.timeout_seconds.into()),
        ];
        if let Some(every) = &input.heartbeat {
            let every = Document::object([("every", every.as_str().into())]);
            defaults.push(("heartbeat", every));
        }
        defaults.push(("skipBootstrap", true.into()));
        // A harness that is told not to think drops what the model thought (2026.9 does so on
        // arrival); where the model reasons, how much is left to the harness.
        if !self.reasons() {
            defaults.push(("thinkingDefault", "off".into()));
        }
        let subagents = input.extra.subagent_defaults.clone();
        defaults.extend(subagents.map(|subagents| ("subagents", subagents)));
        defaults.extend(
            self.compaction()
                .map(|compaction| ("compaction", compaction)),
        );
        match self.version.traits.agents {
            AgentsShape::Entries => self.agents_by_id(defaults),
            AgentsShape::List => Document::object([
                ("defaults", Document::object(defaults)),
                ("list", self.agent_list()),
            ]),
        }
    }

    /// Where agents are listed by id, it is said whose everything is that is nobody's, unless
    /// there is one agent alone.
    fn agents_by_id(&self, mut defaults: Vec<(&str, Document)>) -> Document {
        let mut fields = Vec::new();
        if !self.input.extra.agents.is_empty() {
            fields.push(("ownership", "explicit".into()));
            let owner = [("agentId", "main".into())];
            defaults.push(("systemAgent", Document::object(owner)));
        }
        fields.push(("defaults", Document::object(defaults)));
        fields.push(("entries", self.agent_entries()));
        Document::object(fields)
    }

    fn agent_list(&self) -> Document {
        let main = [("id", "main".into()), ("default", true.into())];
        let main = owned(main).chain(self.input.extra.main.iter().cloned());
        let extra = self
            .input
            .extra
            .agents
            .iter()
            .map(|Agent { id, fields, .. }| {
                let id = [("id", id.as_str().into())];
                Document::object(owned(id).chain(fields.iter().cloned()))
            });
        Document::List(
            std::iter::once(Document::object(main))
                .chain(extra)
                .collect(),
        )
    }

    fn agent_entries(&self) -> Document {
        let main = Document::object(self.input.extra.main.iter().cloned());
        let extra = self
            .input
            .extra
            .agents
            .iter()
            .map(|Agent { id, fields, .. }| (id.clone(), Document::Object(fields.clone())));
        Document::object(std::iter::once(("main".to_owned(), main)).chain(extra))
    }

    /// A small window of a local model is kept from being filled to the brim.
    fn compaction(&self) -> Option<Document> {
        let Input {
            context_window,
            max_tokens,
            ..
        } = *self.input;
        if self.route.upstream.provider != "ollama-local" || context_window > 28_000 {
            return None;
        }
        let reserve = max_tokens.min(context_window.saturating_sub(8000));
        Some(Document::object([
            ("reserveTokens", reserve.into()),
            ("reserveTokensFloor", reserve.into()),
        ]))
    }

    fn models(&self) -> Document {
        let client = &self.route.client;
        let mut provider = vec![
            ("baseUrl", client.base_url.as_str().into()),
            ("apiKey", self.input.api_key.as_str().into()),
            ("api", client.inference_api.as_str().into()),
        ];
        if self.version.traits.blocks_private_network && is_private(&client.base_url) {
            let request = Document::object([("allowPrivateNetwork", true.into())]);
            provider.push(("request", request));
        }
        provider.push(("models", self.model_entries()));
        let providers = [(client.provider_key.as_str(), Document::object(provider))];
        Document::object([
            ("mode", "merge".into()),
            ("providers", Document::object(providers)),
        ])
    }

    /// The route's model, and each that an extra agent names.
    fn model_entries(&self) -> Document {
        let main = &self.route.client.model;
        let mut entries = vec![self.model_entry(main, self.compat)];
        let mut listed: Vec<&str> = vec![main];
        let named = self.input.extra.agents.iter();
        for id in named.filter_map(|agent| agent.model.as_deref()) {
            if !listed.contains(&id) {
                listed.push(id);
                entries.push(self.model_entry(id, &[]));
            }
        }
        Document::List(entries)
    }

    fn model_entry(&self, id: &str, compat: &[(String, Document)]) -> Document {
        let input = self.input;
        let cost = ["input", "output", "cacheRead", "cacheWrite"].map(|kind| (kind, 0.into()));
        let compat = (!compat.is_empty()).then(|| Document::Object(compat.to_vec()));
        let entry = [
            ("id", id.into()),
            ("name", self.reference(id).into()),
            ("reasoning", self.reasons().into()),
            (
                "input",
                Document::list(input.inputs.iter().map(String::as_str)),
            ),
            ("cost", Document::object(cost)),
            ("contextWindow", input.context_window.into()),
            ("maxTokens", input.max_tokens.into()),
        ];
        Document::object(
            compat
                .map(|compat| ("compat", compat))
                .into_iter()
                .chain(entry),
        )
    }

    fn channels(&self) -> Document {
        let defaults = owned([("defaults", Document::Object(Vec::new()))]);
        let mut channels = Document::object(defaults);
        for (channel, value) in &self.input.channels {
            channels.set(channel, value.clone());
        }
        channels
    }

    fn tools(&self) -> Document {
        let search = self.effects.tool_search.map_or_else(
            || {
                Document::object([
                    ("mode", "tools".into()),
                    ("searchDefaultLimit", 8.into()),
                    ("maxSearchLimit", 20.into()),
                ])
            },
            Document::Bool,
        );
        let fetch = [
            ("enabled", true.into()),
            ("useTrustedEnvProxy", true.into()),
        ];
        let mut web = vec![("fetch", Document::object(fetch))];
        if let Some(service) = self.input.web_search {
            let service = [
                ("enabled", true.into()),
                ("provider", service.provider.into()),
            ];
            web.push(("search", Document::object(service)));
        }
        Document::object([("toolSearch", search), ("web", Document::object(web))])
    }

    fn plugins(&self) -> Document {
        let enabled = |on: bool| Document::object([("enabled", on.into())]);
        let mut entries = vec![("bonjour", enabled(false))];
        if self.input.telemetry.is_some() {
            entries.push(("diagnostics-otel", enabled(true)));
        }
        let ids = self.plugins.iter().map(|plugin| plugin.id.as_str());
        entries.extend(ids.map(|id| (id, enabled(true))));
        if let Some(service) = self.input.web_search {
            let key = placeholder::for_variable(service.key_variable);
            let search = Document::object([("apiKey", key.into())]);
            let config = Document::object([("webSearch", search)]);
            let entry = [("enabled", true.into()), ("config", config)];
            entries.push((service.provider, Document::object(entry)));
        }
        let mut plugins = vec![("entries", Document::object(entries))];
        let mut directories: Vec<&str> = Vec::new();
        for plugin in self.plugins {
            if !directories.contains(&plugin.directory.as_str()) {
                directories.push(&plugin.directory);
            }
        }
        if !directories.is_empty() {
            let load = [("paths", Document::list(directories))];
            plugins.push(("load", Document::object(load)));
        }
        Document::object(plugins)
    }

    fn gateway(&self) -> Document {
        let Input {
            chat_url,
            device_auth,
            port,
            ..
        } = self.input;
        let control_ui = [
            ("allowInsecureAuth", chat_url.is_plain().into()),
            (
                "dangerouslyDisableDeviceAuth",
                (*device_auth == DeviceAuth::Off).into(),
            ),
            (
                "allowedOrigins",
                Document::list(chat_url.allowed_origins(*port)),
            ),
        ];
        let reload = self.version.traits.reload.as_str();
        Document::object([
            ("mode", "local".into()),
            ("port", u64::from(*port).into()),
            ("controlUi", Document::object(control_ui)),
            ("trustedProxies", Document::list(["127.0.0.1", "::1"])),
            // Filled where the gateway starts; what is there by then stays.
            ("auth", Document::object([("token", "".into())])),
            ("reload", Document::object([("mode", reload.into())])),
        ])
    }

    fn reasons(&self) -> bool {
        self.input.reasoning || self.effects.reasoning
    }

    fn primary(&self) -> String {
        self.reference(&self.route.client.model)
    }

    fn reference(&self, model: &str) -> String {
        format!("{}/{model}", self.route.client.provider_key)
    }
}

fn diagnostics(telemetry: &Telemetry) -> Document {
    let Telemetry {
        endpoint,
        service_name,
        sample_rate,
    } = telemetry;
    let rate = Number::from_f64(*sample_rate).map_or(Document::Null, Document::Number);
    let otel = [
        ("enabled", true.into()),
        ("endpoint", endpoint.as_str().into()),
        ("serviceName", service_name.as_str().into()),
        ("traces", true.into()),
        ("sampleRate", rate),
    ];
    Document::object([("enabled", true.into()), ("otel", Document::object(otel))])
}

fn owned<const N: usize>(
    fields: [(&str, Document); N],
) -> impl Iterator<Item = (String, Document)> {
    fields
        .map(|(key, value)| (key.to_owned(), value))
        .into_iter()
}
