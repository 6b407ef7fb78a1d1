//! A request's head in, what is asked and by whom out.
//!
//! Callers are known by their key. On a loopback listener without keys anyone on the machine may call, and says by
//! headers which harness and session it is; then the address the request was made to, and the web page it may come
//! from, are looked at: a page in the user's browser can reach loopback too, and must not spend the user's credential.
//! What runs in a sandbox is known by its connection, and nothing that it sends changes who it is.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use farrier_ledger::Scope;
use farrier_serve::Peer;
use http::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, ORIGIN};
use http::request::Parts;
use http::{Method, Uri};

use crate::config::Config;
use crate::path;
use crate::resident::Whose;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// `POST /v1/chat/completions`
    ChatCompletions,
    /// `GET /healthz`: the process answers.
    Health,
    /// `GET /metrics`
    Metrics,
    /// `GET /v1/models/NAME`
    Model(String),
    /// `GET /v1/models`
    Models,
    /// Any other `/v1/…`.
    PassThrough {
        /// What it names below `v1/`, as [`path::plain`] has it.
        plain: String,
        /// Path and query below `/v1` as they go on.
        written: String,
    },
    /// `GET /readyz`: new work is welcome.
    Ready,
}

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) agent: Option<Arc<str>>,
    pub(crate) scope: Scope,
    /// The one model that it may ask for; without, it may ask for all.
    pub(crate) only: Option<Arc<String>>,
}

/// Nothing is served there.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoEndpoint {
    #[error("expected method {allowed} for {path}, got {method}")]
    Method {
        path: &'static str,
        allowed: &'static str,
        method: Method,
    },
    #[error("expected a path below /v1, got another; set the client's base URL to end in /v1")]
    Path,
}

/// The caller may not.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error(
        "expected a name of 1 to {MAX_NAME_BYTES} letters, digits or -_./ in x-farrier-agent, got another value"
    )]
    AgentName,
    #[error(
        "expected a host name of this machine, got another in the Host header; use 127.0.0.1, or list the name in \
         allowed_hosts"
    )]
    Host,
    #[error(
        "expected a client key as bearer token or in x-api-key, got none; ask the gateway's owner for one"
    )]
    KeyMissing,
    #[error(
        "expected the key of a configured client, got another; ask the gateway's owner for one"
    )]
    KeyUnknown,
    #[error(
        "expected a caller on this machine, got a web page of another origin; give the page's server a client key"
    )]
    Origin,
}

/// Everyone who may call.
#[derive(Debug)]
pub(crate) struct Callers {
    /// By a digest under a key of this process: looking one up tells nothing about the others by its duration.
    by_digest: HashMap<blake3::Hash, Caller>,
    digest_key: [u8; 32],
    allowed_hosts: Vec<String>,
}

// === impl Endpoint ===

impl Endpoint {
    /// What the request line asks for.
    pub(crate) fn of(method: &Method, uri: &Uri) -> Result<Self, NoEndpoint> {
        if method == Method::POST && uri.path() == CHAT_COMPLETIONS {
            return Ok(Self::ChatCompletions); // what nearly everyone asks for, and as plain as it can be
        }
        let plain = path::plain(uri.path()).ok_or(NoEndpoint::Path)?;
        let only = |allowed: &'static str, path, endpoint| {
            if allowed.split(", ").any(|name| name == method.as_str()) {
                return Ok(endpoint);
            }
            let method = method.clone();
            Err(NoEndpoint::Method {
                path,
                allowed,
                method,
            })
        };
        match plain.as_str() {
            "healthz" => only(READ, "/healthz", Self::Health),
            "metrics" => only(READ, "/metrics", Self::Metrics),
            "readyz" => only(READ, "/readyz", Self::Ready),
            "v1/models" => only(READ, "/v1/models", Self::Models),
            // A server that does not tell upper from lower case must not be asked past the plan.
            chat if chat.eq_ignore_ascii_case("v1/chat/completions") => {
                only("POST", CHAT_COMPLETIONS, Self::ChatCompletions)
            }
            other => {
                let plain = other.strip_prefix("v1/").ok_or(NoEndpoint::Path)?;
                if let Some(model) = plain.strip_prefix("models/") {
                    return only(READ, "/v1/models/…", Self::Model(model.to_owned()));
                }
                let written = path::below(uri, "v1").ok_or(NoEndpoint::Path)?;
                let plain = plain.to_owned();
                Ok(Self::PassThrough { plain, written })
            }
        }
    }

    /// Whether a provider is asked.
    pub(crate) fn is_work(&self) -> bool {
        matches!(self, Self::ChatCompletions | Self::PassThrough { .. })
    }

    /// Whether anyone who reaches the listener may ask: what orchestrators probe.
    pub(crate) fn is_probe(&self) -> bool {
        matches!(self, Self::Health | Self::Ready)
    }
}

// === impl Callers ===

impl Callers {
    pub(crate) fn build(config: &Config, digest_key: [u8; 32]) -> Self {
        let callers = config.clients.iter().map(|client| {
            let digest = blake3::keyed_hash(&digest_key, client.key.expose().as_bytes());
            let agent = client.agent.as_deref().map(Arc::from);
            (
                digest,
                Caller {
                    agent,
                    scope: client.scope(),
                    only: None,
                },
            )
        });
        let allowed_hosts = config
            .allowed_hosts
            .iter()
            .map(|host| host.to_ascii_lowercase());
        Self {
            by_digest: callers.collect(),
            digest_key,
            allowed_hosts: allowed_hosts.collect(),
        }
    }

    /// Who sent this request.
    pub(crate) fn identify(&self, whose: &Whose, head: &Parts) -> Result<Caller, Refused> {
        let peer = match whose {
            Whose::Peer(peer) => *peer,
            Whose::Resident(resident) => return Ok(resident.caller()),
        };
        if !self.by_digest.is_empty() {
            return self.known(&head.headers);
        }
        self.check_keyless(peer, head)?;
        keyless(&head.headers)
    }

    fn known(&self, headers: &HeaderMap) -> Result<Caller, Refused> {
        let key = presented_key(headers).ok_or(Refused::KeyMissing)?;
        let digest = blake3::keyed_hash(&self.digest_key, key);
        let caller = self.by_digest.get(&digest).ok_or(Refused::KeyUnknown)?;
        let mut caller = caller.clone();
        if caller.agent.is_none() {
            caller.agent = agent_named_in(headers)?;
        }
        Ok(caller)
    }

    fn check_keyless(&self, peer: Peer, head: &Parts) -> Result<(), Refused> {
        if !peer.listener.ip().is_loopback() {
            return Err(Refused::KeyMissing); // refused by Config::check already
        }
        let named = head
            .headers
            .get_all(HOST)
            .iter()
            .map(|host| host.to_str().unwrap_or_default());
        let mut hosts = named
            .chain(head.uri.authority().map(|authority| authority.as_str()))
            .peekable();
        if hosts.peek().is_none() || !hosts.all(|host| self.is_ours(host)) {
            return Err(Refused::Host);
        }
        let origins = head
            .headers
            .get_all(ORIGIN)
            .iter()
            .map(|origin| origin.to_str().unwrap_or_default());
        for origin in origins {
            let host = origin.split_once("://").map(|(_, host)| host);
            if !host.is_some_and(|host| self.is_ours(host)) {
                return Err(Refused::Origin);
            }
        }
        // A page's plain GET carries no Origin, but says where it comes from.
        let elsewhere = |site: &str| site == "cross-site" || site == "same-site";
        if !head.headers.contains_key(ORIGIN)
            && text(&head.headers, &FETCH_SITE).is_some_and(elsewhere)
        {
            return Err(Refused::Origin);
        }
        Ok(())
    }

    /// Whether `host`, with or without a port, names this machine.
    fn is_ours(&self, host: &str) -> bool {
        let name = host_name(host).to_ascii_lowercase();
        let address = name.trim_matches(['[', ']']).parse::<IpAddr>();
        address.is_ok_and(|address| address.is_loopback())
            || LOCAL_NAMES.contains(&name.as_str())
            || self.allowed_hosts.contains(&name)
    }
}

/// A caller without a key: whoever it says it is.
fn keyless(headers: &HeaderMap) -> Result<Caller, Refused> {
    let agent = agent_named_in(headers)?;
    let session = SESSION
        .iter()
        .find_map(|name| headers.get(name))
        .map(|value| value.as_bytes());
    let session = session.unwrap_or_default();
    let agent_name = agent.as_deref().unwrap_or_default();
    let mut scope = String::with_capacity("loopback\n\n".len() + agent_name.len() + session.len());
    for part in ["loopback\n", agent_name, "\n"] {
        scope.push_str(part);
    }
    push_escaped(&mut scope, session);
    Ok(Caller {
        agent,
        scope: Scope::new(scope),
        only: None,
    })
}

/// Escaped, so that sessions whose names are no text stay apart. Most names need no escape.
fn push_escaped(scope: &mut String, session: &[u8]) {
    let plain = |byte: &u8| matches!(byte, b' '..=b'~') && !b"\"'\\".contains(byte);
    match str::from_utf8(session) {
        Ok(text) if session.iter().all(plain) => scope.push_str(text),
        _ => scope.extend(session.escape_ascii().map(char::from)),
    }
}

fn agent_named_in(headers: &HeaderMap) -> Result<Option<Arc<str>>, Refused> {
    let Some(value) = headers.get(&AGENT) else {
        return Ok(None);
    };
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_./".contains(byte);
    match value.to_str() {
        Ok(name)
            if (1..=MAX_NAME_BYTES).contains(&name.len()) && name.as_bytes().iter().all(plain) =>
        {
            Ok(Some(name.into()))
        }
        _ => Err(Refused::AgentName),
    }
}

/// The key a caller shows, wherever clients put one.
fn presented_key(headers: &HeaderMap) -> Option<&[u8]> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| {
        let (scheme, key) = value.as_bytes().split_at_checked(BEARER.len())?;
        scheme
            .eq_ignore_ascii_case(BEARER.as_bytes())
            .then(|| key.trim_ascii())
    });
    bearer.or_else(|| headers.get(&API_KEY).map(|value| value.as_bytes()))
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// `host` without its port.
fn host_name(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') =>
        {
            name
        }
        _ => host,
    }
}

const CHAT_COMPLETIONS: &str = "/v1/chat/completions";
const READ: &str = "GET, HEAD";
const BEARER: &str = "Bearer ";
const MAX_NAME_BYTES: usize = 64;
const LOCAL_NAMES: [&str; 2] = ["localhost", "inference.local"];
const AGENT: HeaderName = HeaderName::from_static("x-farrier-agent");
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Where harnesses name their session, in the order of trust.
const SESSION: [HeaderName; 8] = [
    HeaderName::from_static("x-farrier-session"),
    HeaderName::from_static("x-session-id"),
    HeaderName::from_static("x-session-affinity"),
    HeaderName::from_static("session-id"),
    HeaderName::from_static("session_id"),
    HeaderName::from_static("conversation_id"),
    HeaderName::from_static("thread-id"),
    HeaderName::from_static("x-claude-code-session-id"),
];

#[cfg(test)]
#[path = "identify_tests.rs"]
mod tests;
