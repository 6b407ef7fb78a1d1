//! From a policy file to a [`Policy`], or to all that is wrong with it at once.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::pattern::{HostPattern, PathPattern, ValuePattern};
use super::raw::{RawEndpoint, RawMatch, RawPolicy};
use super::{Endpoint, Enforcement, Method, Notice, Policy, Protocol, Rewrites, Rule, TEXT, Tls};

/// Why a policy file is not taken.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It is not in the language.
    #[error("expected a policy file of OpenShell's version 1, got {got}")]
    Unreadable {
        /// What the reader said, with line and column.
        got: String,
    },
    /// It is longer than allowed.
    #[error("expected a policy of at most {MAX_BYTES} bytes, got {bytes}")]
    TooLong {
        /// How long.
        bytes: usize,
    },
    /// Something of it cannot mean anything.
    #[error("{}", lines(.0))]
    Mistaken(Vec<Mistake>),
}

/// One thing that cannot be what its author wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where, as in `network_policies.github.endpoints[0]`.
    pub at: String,
    /// The line of the file where that begins; 0 if none is known.
    pub line: u64,
    /// What was expected, and what was got.
    pub what: String,
}

/// As OpenShell has it.
const MAX_BYTES: usize = 4 * 1024 * 1024;
const VERSION: u32 = 1;
/// For one endpoint, and for one rule.
const MAX_ENTRIES: usize = 1024;

const METHODS_READ: &[&str] = &["GET", "OPTIONS"]; // GET covers HEAD
const METHODS_READ_WRITE: &[&str] = &["GET", "OPTIONS", "POST", "PUT", "PATCH"];

impl Policy {
    /// Reads a policy file.
    ///
    /// # Errors
    ///
    /// [`LoadError`], with every mistake there is.
    pub fn load(text: &str) -> Result<Self, LoadError> {
        if text.len() > MAX_BYTES {
            return Err(LoadError::TooLong { bytes: text.len() });
        }
        let raw: RawPolicy =
            serde_saphyr::from_str(text).map_err(|error| LoadError::Unreadable {
                got: first_line(&error.to_string()),
            })?;
        let mut loading = Loading::default();
        loading.policy(&raw);
        if loading.mistakes.is_empty() {
            Ok(loading.loaded)
        } else {
            Err(LoadError::Mistaken(loading.mistakes))
        }
    }
}

#[derive(Default)]
struct Loading {
    loaded: Policy,
    mistakes: Vec<Mistake>,
    at: String,
    line: u64,
}

// === impl Loading ===

impl Loading {
    fn policy(&mut self, raw: &RawPolicy) {
        if raw.version != VERSION {
            self.at = "version".to_owned();
            self.mistake(format!("expected {VERSION}, got {}", raw.version));
        }
        if raw
            .network_middlewares
            .as_ref()
            .is_some_and(|all| !all.is_empty())
        {
            self.at = "network_middlewares".to_owned();
            self.mistake(
                "expected none, got some: requests cannot be shown to them here; remove them"
                    .to_owned(),
            );
        }
        for (key, rule) in raw.network_policies.iter().flatten() {
            if rule.endpoints.len() > MAX_ENTRIES {
                self.at = format!("network_policies.{key}");
                self.mistake(format!(
                    "expected at most {MAX_ENTRIES} endpoints, got {}",
                    rule.endpoints.len()
                ));
                continue;
            }
            for (index, endpoint) in rule.endpoints.iter().enumerate() {
                self.at = format!("network_policies.{key}.endpoints[{index}]");
                self.line = endpoint.referenced.line();
                self.endpoint(&endpoint.value);
            }
            if !rule.binaries.is_empty() {
                self.at = format!("network_policies.{key}");
                self.notice(
                    "binaries are not judged; the rule holds for every program of the sandbox"
                        .to_owned(),
                );
            }
        }
    }

    fn endpoint(&mut self, raw: &RawEndpoint) {
        let host = self.host(raw);
        let ports = self.ports(raw);
        let protocol = self.protocol(raw);
        let path = raw.path.as_deref().filter(|path| !path.is_empty());
        let path = path.and_then(|path| {
            let parsed = PathPattern::parse(path);
            self.kept(parsed)
        });
        let tls = self.one_of(
            "tls",
            raw.tls.as_deref(),
            &[
                ("auto", Tls::Auto),
                ("skip", Tls::Skip),
                ("terminate", Tls::Auto),
                ("passthrough", Tls::Skip),
            ],
        );
        let enforcement = self.one_of(
            "enforcement",
            raw.enforcement.as_deref(),
            &[
                ("enforce", Enforcement::Enforce),
                ("audit", Enforcement::Audit),
            ],
        );
        if tls == Some(Tls::Skip) && protocol != Protocol::Opaque {
            self.mistake("expected no protocol where tls is skip, got one: what is not read cannot be judged".to_owned());
        }
        self.notices_of(raw, protocol);
        let allows = self.allows(raw, protocol);
        let denies = self.rules("deny_rules", raw.deny_rules.iter());
        let allowed_ips = self.networks(&raw.allowed_ips);
        let Some(host) = host else { return };
        self.loaded.endpoints.push(Endpoint {
            at: self.at.as_str().into(),
            host,
            ports,
            path,
            protocol,
            tls: tls.unwrap_or(Tls::Auto),
            enforcement: enforcement.unwrap_or(Enforcement::Enforce),
            allows,
            denies,
            allowed_ips,
            allows_encoded_slash: raw.allow_encoded_slash,
            rewrites: Rewrites {
                body: raw.request_body_credential_rewrite,
                websocket: raw.websocket_credential_rewrite,
            },
        });
    }

    fn host(&mut self, raw: &RawEndpoint) -> Option<HostPattern> {
        if raw.host.is_empty() {
            if raw.allowed_ips.is_empty() {
                self.mistake(
                    "expected a host, or allowed_ips that stand for any, got neither".to_owned(),
                );
                return None;
            }
            return Some(HostPattern::Any);
        }
        let parsed = HostPattern::parse(&raw.host);
        self.kept(parsed)
    }

    fn ports(&mut self, raw: &RawEndpoint) -> Vec<u16> {
        let ports: Vec<u16> = raw
            .port
            .into_iter()
            .chain(raw.ports.iter().copied())
            .collect();
        if ports.is_empty() || ports.contains(&0) {
            self.mistake(
                "expected a port from 1 to 65535, got none; give port or ports".to_owned(),
            );
        }
        ports
    }

    fn protocol(&mut self, raw: &RawEndpoint) -> Protocol {
        let known = [
            ("", Protocol::Opaque),
            ("tcp", Protocol::Opaque),
            ("rest", Protocol::Rest),
            ("websocket", Protocol::WebSocket),
            ("graphql", Protocol::Uninspectable("graphql")),
            ("json-rpc", Protocol::Uninspectable("json-rpc")),
            ("mcp", Protocol::Uninspectable("mcp")),
            ("sql", Protocol::Uninspectable("sql")),
        ];
        match self.one_of("protocol", raw.protocol.as_deref(), &known) {
            Some(protocol) => protocol,
            None if raw.protocol.is_some() => Protocol::Uninspectable("unknown"),
            None => Protocol::Opaque,
        }
    }

    fn notices_of(&mut self, raw: &RawEndpoint, protocol: Protocol) {
        if let Protocol::Uninspectable(name) = protocol {
            self.notice(format!(
                "{name} is not inspected here; every request to this endpoint is refused"
            ));
        }
        if raw.credential_signing.is_some() {
            self.notice(
                "requests are not signed here; credential_signing has no effect".to_owned(),
            );
        }
        if raw.credential_binding.is_some() {
            self.notice(
                "a key goes to the endpoints of its provider; credential_binding has no effect"
                    .to_owned(),
            );
        }
        let inspects = matches!(protocol, Protocol::Rest | Protocol::WebSocket);
        if !inspects && raw.path.as_deref().is_some_and(|path| !path.is_empty()) {
            self.notice("path has no effect without a protocol that is inspected".to_owned());
        }
    }

    fn allows(&mut self, raw: &RawEndpoint, protocol: Protocol) -> Vec<Rule> {
        let inspects = matches!(protocol, Protocol::Rest | Protocol::WebSocket);
        let preset = raw.access.as_deref().filter(|access| !access.is_empty());
        match (preset, raw.rules.is_empty()) {
            (Some(_), false) => {
                self.mistake("expected access or rules, got both".to_owned());
                Vec::new()
            }
            (Some(_), true) | (None, false) if protocol == Protocol::Opaque => {
                self.mistake(
                    "expected a protocol beside access or rules, such as rest, got none".to_owned(),
                );
                Vec::new()
            }
            (None, true) if inspects => {
                self.mistake("expected access or rules beside a protocol, got neither: nothing would be allowed".to_owned());
                Vec::new()
            }
            (Some(preset), true) => self.preset(preset, protocol),
            (None, _) => self.rules("rules", raw.rules.iter().map(|rule| &rule.allow)),
        }
    }

    fn preset(&mut self, preset: &str, protocol: Protocol) -> Vec<Rule> {
        let methods = match preset {
            "read-only" => METHODS_READ,
            "read-write" => METHODS_READ_WRITE,
            "full" => &["*"],
            other => {
                self.mistake(format!(
                    "expected access read-only, read-write or full, got {other:?}"
                ));
                return Vec::new();
            }
        };
        let speaks = protocol == Protocol::WebSocket && preset == "read-write";
        let text = speaks.then_some(TEXT);
        let at: Arc<str> = format!("{}.access", self.at).into();
        methods
            .iter()
            .copied()
            .chain(text)
            .map(|method| Rule {
                at: Arc::clone(&at),
                method: method_of(method),
                path: PathPattern::All,
                query: Vec::new(),
            })
            .collect()
    }

    fn rules<'r>(&mut self, list: &str, raw: impl Iterator<Item = &'r RawMatch>) -> Vec<Rule> {
        let mut rules = Vec::new();
        for (index, raw) in raw.enumerate().take(MAX_ENTRIES) {
            // Rules of other protocols have no method; theirs refuse all requests anyway.
            let Some(method) = &raw.method else { continue };
            let path = PathPattern::parse(raw.path.as_deref().unwrap_or("**"));
            let Some(path) = self.kept(path) else {
                continue;
            };
            let query = self.query(raw);
            rules.push(Rule {
                at: format!("{}.{list}[{index}]", self.at).into(),
                method: method_of(method),
                path,
                query,
            });
        }
        rules
    }

    fn query(&mut self, raw: &RawMatch) -> Vec<(String, Vec<ValuePattern>)> {
        let mut query = Vec::new();
        for (key, value) in &raw.query {
            let patterns: Vec<_> = value
                .patterns()
                .into_iter()
                .map(ValuePattern::parse)
                .collect();
            if patterns.is_empty() {
                self.mistake(format!(
                    "expected a pattern, or any with some, for query.{key}, got none"
                ));
            }
            let patterns = patterns
                .into_iter()
                .filter_map(|pattern| self.kept(pattern))
                .collect();
            query.push((key.clone(), patterns));
        }
        query
    }

    fn networks(&mut self, texts: &[String]) -> Vec<IpNet> {
        let mut networks = Vec::new();
        for text in texts {
            let single = |text: &str| text.parse::<IpAddr>().ok().map(IpNet::from);
            match text.parse::<IpNet>().ok().or_else(|| single(text)) {
                Some(network) => networks.push(network.trunc()),
                None => self.mistake(format!(
                    "expected a network in allowed_ips, such as 10.0.0.0/8, got {text:?}"
                )),
            }
        }
        networks
    }

    fn one_of<T: Copy>(
        &mut self,
        field: &str,
        got: Option<&str>,
        known: &[(&str, T)],
    ) -> Option<T> {
        let got = got?;
        let found = known.iter().find(|(name, _)| *name == got);
        if found.is_none() {
            let names: Vec<&str> = known
                .iter()
                .map(|(name, _)| *name)
                .filter(|name| !name.is_empty())
                .collect();
            self.mistake(format!(
                "expected {field} to be one of {}, got {got:?}",
                names.join(", ")
            ));
        }
        found.map(|(_, value)| *value)
    }

    fn kept<T, E: fmt::Display>(&mut self, parsed: Result<T, E>) -> Option<T> {
        parsed.map_err(|error| self.mistake(error.to_string())).ok()
    }

    fn mistake(&mut self, what: String) {
        self.mistakes.push(Mistake {
            at: self.at.clone(),
            line: self.line,
            what,
        });
    }

    fn notice(&mut self, what: String) {
        self.loaded.notices.push(Notice {
            at: self.at.as_str().into(),
            what,
        });
    }
}

fn method_of(text: &str) -> Method {
    match text {
        "*" => Method::Any,
        method => Method::One(method.to_ascii_uppercase()),
    }
}

/// What follows shows the text.
fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

fn lines(mistakes: &[Mistake]) -> String {
    let lines: Vec<String> = mistakes.iter().map(Mistake::to_string).collect();
    lines.join("\n")
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        write!(f, "{}: {}", self.at, self.what)
    }
}
