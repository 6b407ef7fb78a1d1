//! Manifests and facts for the tests, and a small table of passes.

use std::sync::Arc;

use farrier_compat::facts::{
    CHAT_COMPLETIONS, ClientFacts, Facts, MANAGED_BASE_URL, MANAGED_PROVIDER_KEY, UpstreamFacts,
};
use farrier_compat::passes::{Kind, Param, ParamKind, Params, Pass};
use farrier_compat::registry::{LoadErrors, LoadOptions, Registry, Source};
use serde_json::{Value, json};

/// A pass that does nothing.
#[derive(Debug)]
struct Inert;

impl Pass for Inert {}

fn build(_: &Params) -> Result<Arc<dyn Pass>, String> {
    Ok(Arc::new(Inert))
}

fn refuse(params: &Params) -> Result<Arc<dyn Pass>, String> {
    match (params.text("low"), params.text("high")) {
        (Some(low), Some(high)) if low > high => {
            Err(format!("expected low before high, got {low} and {high}"))
        }
        _ => build(params),
    }
}

const fn text(name: &'static str, required: bool) -> Param {
    Param {
        name,
        kind: ParamKind::Text,
        required,
        doc: "a text",
    }
}

/// `rename` may be there once, `split` once for each tool.
pub(crate) static PASSES: &[Kind] = &[
    Kind {
        name: "rename",
        summary: "renames",
        params: &[text("to", true)],
        per: &[],
        build,
    },
    Kind {
        name: "split",
        summary: "splits",
        params: &[text("tool", true), text("low", false), text("high", false)],
        per: &["tool"],
        build: refuse,
    },
];

pub(crate) fn options() -> LoadOptions<'static> {
    LoadOptions {
        passes: PASSES,
        exists: &|_| true,
        switched_off: &[],
    }
}

/// A manifest for `agent` on the managed route, without evidence.
pub(crate) fn manifest(id: &str, agent: &str, effects: &Value) -> Value {
    json!({
        "id": id,
        "agent": agent,
        "description": "a manifest",
        "match": {
            "modelIds": ["moonshotai/kimi-k2.6"],
            "providerKey": "inference",
            "inferenceApi": "openai-completions",
            "baseUrl": "https://inference.local/v1",
        },
        "effects": effects,
    })
}

/// The record that OpenClaw's managed route had before there was Farrier.
pub(crate) fn nemoclaw_kimi() -> Value {
    manifest(
        "kimi-k2.6-managed-inference",
        "openclaw",
        &json!({
            "openclawCompat": {
                "supportsStore": false,
                "requiresStringContent": true,
                "maxTokensField": "max_tokens",
                "requiresToolResultName": true,
            },
            "openclawTools": {"toolSearch": false},
            "openclawPlugins": [{
                "id": "nemoclaw-kimi-inference-compat",
                "path": "openclaw-plugins/kimi-inference-compat",
                "loadPath": "/usr/local/share/nemoclaw/openclaw-plugins/kimi-inference-compat",
            }],
        }),
    )
}

pub(crate) fn source(path: &str, value: &Value) -> Source {
    Source {
        path: path.into(),
        text: value.to_string(),
    }
}

pub(crate) fn load(sources: &[Source]) -> Result<Registry, LoadErrors> {
    Registry::load(sources, &options())
}

/// What loading says, line by line.
pub(crate) fn complaints(result: Result<Registry, LoadErrors>) -> Vec<String> {
    let errors = result.map(|_| ()).expect_err("the sources do not load");
    errors.iter().map(ToString::to_string).collect()
}

/// The managed route as OpenClaw sees it, with Kimi K2.6 of Moonshot behind it.
pub(crate) fn managed_kimi() -> Facts {
    Facts {
        agent: Some("openclaw".into()),
        client: ClientFacts {
            model: "moonshotai/kimi-k2.6".into(),
            provider_key: MANAGED_PROVIDER_KEY.into(),
            inference_api: CHAT_COMPLETIONS.into(),
            base_url: MANAGED_BASE_URL.into(),
        },
        upstream: UpstreamFacts {
            provider: "moonshot".into(),
            model: "kimi-k2.6".into(),
            base_url: "https://api.moonshot.ai/v1".into(),
            server: None,
        },
    }
}

/// The same with one thing different.
pub(crate) fn managed_but(change: impl FnOnce(&mut Facts)) -> Facts {
    let mut facts = managed_kimi();
    change(&mut facts);
    facts
}

/// The passes that follow, as `manifest/pass`.
pub(crate) fn passes(registry: &Registry, facts: &Facts) -> Vec<String> {
    let profile = registry.profile(facts);
    let effects = profile.effects().iter();
    effects
        .map(|effect| format!("{}/{}", effect.manifest, effect.kind.name))
        .collect()
}
