//! The route as a harness is told of it.
//!
//! A harness knows no real endpoint and no key. What it is configured with follows
//! from the upstream provider by a small table, and, where an image is built, is
//! carried there in variables.

use std::net::{IpAddr, Ipv4Addr};

use farrier_compat::facts::{
    CHAT_COMPLETIONS, ClientFacts, Facts, MANAGED_BASE_URL, MANAGED_PROVIDER_KEY, UpstreamFacts,
};
use http::Uri;

use crate::settings::{Mistake, Mistakes};

/// The API name of `POST /v1/messages`.
pub const MESSAGES: &str = "anthropic-messages";
/// The API name of `POST /v1/responses`.
pub const RESPONSES: &str = "openai-responses";
/// The base URL for clients that add `/v1` themselves.
const MANAGED_ROOT: &str = "https://inference.local";

/// How a harness in a sandbox reaches the models of one upstream provider.
#[derive(Debug)]
struct Row {
    /// Names of upstream providers; none for every other.
    upstream: &'static [&'static str],
    provider_key: &'static str,
    /// The API, unless another is preferred.
    api: &'static str,
    /// Other APIs that the provider has too.
    also: &'static [&'static str],
    /// Keys for the model's `compat`.
    compat: &'static [(&'static str, bool)],
}

const TABLE: &[Row] = &[
    Row {
        upstream: &["openai-api"],
        provider_key: "openai",
        api: CHAT_COMPLETIONS,
        also: &[RESPONSES],
        compat: &[],
    },
    Row {
        upstream: &["anthropic-prod", "compatible-anthropic-endpoint"],
        provider_key: "anthropic",
        api: MESSAGES,
        also: &[CHAT_COMPLETIONS],
        compat: &[],
    },
    Row {
        upstream: &["hermes-provider", "compatible-endpoint"],
        provider_key: MANAGED_PROVIDER_KEY,
        api: CHAT_COMPLETIONS,
        also: &[RESPONSES],
        compat: &[("supportsStore", false)],
    },
    Row {
        upstream: &["gemini-api"],
        provider_key: MANAGED_PROVIDER_KEY,
        api: CHAT_COMPLETIONS,
        also: &[],
        compat: &[("supportsStore", false)],
    },
    Row {
        upstream: &["ollama-local"],
        provider_key: MANAGED_PROVIDER_KEY,
        api: CHAT_COMPLETIONS,
        also: &[],
        compat: &[("supportsUsageInStreaming", true)],
    },
    Row {
        upstream: &[],
        provider_key: MANAGED_PROVIDER_KEY,
        api: CHAT_COMPLETIONS,
        also: &[],
        compat: &[],
    },
];

/// A route inside a sandbox.
#[derive(Debug, Clone, PartialEq)]
pub struct SandboxRoute {
    /// What manifests match on and configurations are made from.
    pub facts: Facts,
    /// Keys for the model's `compat`, as JSON text.
    pub compat: String,
}

/// How a sandbox reaches `model` of an upstream provider. An API that the provider
/// does not have is never taken over from a route before: every call would fail.
pub fn sandbox_route(upstream: &str, model: &str, preferred_api: Option<&str>) -> SandboxRoute {
    let found = TABLE
        .iter()
        .find(|row| row.upstream.is_empty() || row.upstream.contains(&upstream));
    let row = found.expect("the last row is for every provider");
    let preferred = preferred_api.filter(|api| *api == row.api || row.also.contains(api));
    let api = preferred.unwrap_or(row.api);
    // The Messages API spoken through completions is an inference route like others.
    let crosses = row.api == MESSAGES && api != MESSAGES;
    let compat: serde_json::Map<String, serde_json::Value> = if crosses {
        [("supportsStore".to_owned(), false.into())]
            .into_iter()
            .collect()
    } else {
        let keys = row.compat.iter();
        keys.map(|(key, value)| ((*key).to_owned(), (*value).into()))
            .collect()
    };
    SandboxRoute {
        facts: Facts {
            agent: None,
            client: ClientFacts {
                model: model.to_owned(),
                provider_key: if crosses {
                    MANAGED_PROVIDER_KEY
                } else {
                    row.provider_key
                }
                .to_owned(),
                inference_api: api.to_owned(),
                base_url: if api == MESSAGES {
                    MANAGED_ROOT
                } else {
                    MANAGED_BASE_URL
                }
                .to_owned(),
            },
            upstream: UpstreamFacts {
                provider: upstream.to_owned(),
                model: model.to_owned(),
                base_url: String::new(),
                server: None,
            },
        },
        compat: serde_json::Value::Object(compat).to_string(),
    }
}

/// The route that the variables of an image describe.
///
/// # Errors
/// One that has to be there is not, or two contradict each other.
pub fn from_variables(lookup: impl Fn(&str) -> Option<String>) -> Result<Facts, Mistakes> {
    let mut mistakes = Vec::new();
    let given = |name: &str| {
        let text = lookup(name)?.trim().to_owned();
        (!text.is_empty()).then_some(text)
    };
    let mut required = |name: &str| {
        let value = given(name);
        if value.is_none() {
            mistakes.push(Mistake {
                from: name.to_owned(),
                message: format!("{name} is required"),
            });
        }
        value.unwrap_or_default()
    };
    let model = required("NEMOCLAW_MODEL");
    let base_url = required("NEMOCLAW_INFERENCE_BASE_URL");
    let provider_key = given("NEMOCLAW_INFERENCE_PROVIDER_ID")
        .or_else(|| given("NEMOCLAW_PROVIDER_KEY"))
        .unwrap_or_else(|| MANAGED_PROVIDER_KEY.to_owned());
    let reference = "NEMOCLAW_PRIMARY_MODEL_REF";
    let expected = format!("{provider_key}/{model}");
    if let Some(primary) = given(reference).filter(|primary| *primary != expected) {
        mistakes.push(Mistake {
            from: reference.to_owned(),
            message: format!("expected {expected}, got {primary}"),
        });
    }
    let facts = Facts {
        agent: None,
        client: ClientFacts {
            inference_api: given("NEMOCLAW_INFERENCE_API")
                .unwrap_or_else(|| CHAT_COMPLETIONS.to_owned()),
            base_url,
            model: model.clone(),
            provider_key: provider_key.clone(),
        },
        upstream: UpstreamFacts {
            provider: given("NEMOCLAW_UPSTREAM_PROVIDER").unwrap_or(provider_key),
            model,
            base_url: String::new(),
            server: None,
        },
    };
    match check(&facts) {
        Err(wrong) if mistakes.is_empty() => Err(wrong),
        _ if !mistakes.is_empty() => Err(Mistakes(mistakes)),
        _ => Ok(facts),
    }
}

/// Whether a harness can be configured with the route.
pub(crate) fn check(route: &Facts) -> Result<(), Mistakes> {
    let ClientFacts {
        model,
        provider_key,
        base_url,
        ..
    } = &route.client;
    let mut wrong = Vec::new();
    let mut say = |from: &str, message: &str| {
        wrong.push(Mistake {
            from: from.to_owned(),
            message: message.to_owned(),
        });
    };
    let uri: Option<Uri> = base_url.parse().ok();
    let plain = uri.is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && !base_url.contains('@')
    });
    if !plain {
        say(
            "the base URL",
            "expected an http or https URL without a user",
        );
    }
    if model.trim().is_empty() || model.chars().any(char::is_control) {
        say("the model", "expected a name without control characters");
    }
    let is_key = |key: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        !key.is_empty() && key.chars().all(plain)
    };
    if !is_key(provider_key) {
        say(
            "the provider key",
            "expected letters, digits, '-', '_' and '.'",
        );
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(Mistakes(wrong))
    }
}

/// Whether the route is the one inside a sandbox.
pub(crate) fn is_managed(base_url: &str) -> bool {
    host_of(base_url).as_deref() == Some("inference.local")
}

/// Whether the host of a URL is of a private network by its name or address. A loopback
/// address is not: a harness that guards against private ones lets it pass.
pub(crate) fn is_private(base_url: &str) -> bool {
    let Some(host) = host_of(base_url) else {
        return false;
    };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => is_private_v4(ip),
        Ok(IpAddr::V6(ip)) => ip.is_unique_local() || ip.is_unicast_link_local(),
        Err(_) => {
            let reserved = [".local", ".internal", ".localhost", ".lan", ".home.arpa"];
            !bare.contains('.') || reserved.iter().any(|suffix| bare.ends_with(suffix))
        }
    }
}

fn is_private_v4(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    // 100.64.0.0/10 is what carriers and overlay networks share among their own.
    ip.is_private() || ip.is_link_local() || (a == 100 && (64..128).contains(&b))
}

fn host_of(url: &str) -> Option<String> {
    let uri: Uri = url.parse().ok()?;
    Some(uri.host()?.to_ascii_lowercase())
}

#[cfg(test)]
#[path = "route_tests.rs"]
mod tests;
