//! What a policy says of one connection, and of one request.
//!
//! Both verdicts and explanations come from [`Endpoint::consider`], so that an explanation is what happens.

use std::fmt;
use std::sync::Arc;

use crate::address::Named;
use crate::target::{Authority, Path};

use super::{Endpoint, Enforcement, Policy, Protocol, Rewrites, Rule, Tls};

/// The method under which what a client says over a WebSocket is judged, as OpenShell has it.
pub const TEXT: &str = "WEBSOCKET_TEXT";

/// A request, as far as it is judged.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// In capitals.
    pub method: &'a str,
    /// Its path.
    pub path: &'a Path,
    /// Its query, as it was written.
    pub query: Option<&'a str>,
}

/// A connection that is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect {
    /// By what.
    pub by: Arc<str>,
    /// Whether what is said over it has to be read.
    pub inspect: Inspect,
}

/// Whether a connection is looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inspect {
    /// If there is a credential to put in.
    IfNeeded,
    /// Requests are judged.
    Must,
    /// Never: the policy says so.
    Never,
}

/// A request that is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// By what.
    pub by: Arc<str>,
    /// What would have refused it, were it enforced.
    pub in_spite_of: Option<Denied>,
    /// What the rules for it ask to be rewritten.
    pub rewrites: Rewrites,
}

/// Something that is not allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Denied {
    /// The rule that says so, or the endpoint that came nearest; none if no endpoint is meant.
    pub by: Option<Arc<str>>,
    /// Why.
    pub reason: Reason,
}

/// Why something is not allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A rule denies it.
    DenyRule(String),
    /// A slash is hidden in a segment, and the endpoint does not allow that.
    EncodedSlash,
    /// No endpoint is meant.
    NoEndpoint(Authority),
    /// The endpoint allows other requests.
    NoRule(String),
    /// What the endpoint speaks cannot be judged here.
    Protocol(&'static str),
}

/// What one endpoint makes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// The endpoint, or its rule that decides.
    pub at: Arc<str>,
    /// What it makes of it.
    pub outcome: Outcome,
}

/// What one endpoint makes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It allows the request.
    Allows,
    /// Its rule denies the request, whatever else allows it.
    Denies,
    /// It is for another path, hiding a slash.
    EncodedSlash,
    /// None of its rules allows the request.
    NoRule,
    /// It stands for other machines.
    OtherHost {
        /// Which.
        expected: String,
    },
    /// It stands for other paths.
    OtherPath {
        /// Which.
        expected: String,
    },
    /// It stands for other ports.
    OtherPort {
        /// Which.
        expected: Vec<u16>,
    },
    /// It allows a connection that is not looked into; requests over one that is are for other endpoints to allow.
    Opaque,
    /// What it speaks cannot be judged here.
    Protocol(&'static str),
}

// === impl Policy ===

impl Policy {
    /// Whether a machine may be connected to.
    ///
    /// # Errors
    ///
    /// [`Denied`] with [`Reason::NoEndpoint`]
    pub fn connect(&self, to: &Authority) -> Result<Connect, Denied> {
        let mut meant = self.meant(to).peekable();
        let Some(first) = meant.peek() else {
            return Err(Denied::no_endpoint(to));
        };
        let by = Arc::clone(&first.at);
        let (mut inspected, mut skipped) = (false, true);
        for endpoint in meant {
            inspected |= endpoint.protocol != Protocol::Opaque;
            skipped &= endpoint.tls == Tls::Skip;
        }
        let inspect = match (inspected, skipped) {
            (true, _) => Inspect::Must,
            (false, true) => Inspect::Never,
            (false, false) => Inspect::IfNeeded,
        };
        Ok(Connect { by, inspect })
    }

    /// Whether something may be asked of a machine.
    ///
    /// # Errors
    ///
    /// [`Denied`]
    pub fn request(&self, to: &Authority, asked: Asked<'_>) -> Result<Allowed, Denied> {
        let reach = self.connect(to)?;
        if reach.inspect != Inspect::Must {
            let rewrites = self.rewrites(to, asked);
            return Ok(Allowed {
                by: reach.by,
                in_spite_of: None,
                rewrites,
            });
        }
        let mut allowed = None;
        let mut denied: Option<(Denied, Enforcement)> = None;
        for endpoint in self.meant(to) {
            let Explained { at, outcome } = endpoint.consider(to, asked);
            let reason = match outcome {
                Outcome::Allows => {
                    let _first = allowed.get_or_insert(at);
                    continue;
                }
                Outcome::Denies => {
                    // Final, whatever else allows it.
                    denied = Some((
                        Denied {
                            by: Some(at),
                            reason: Reason::DenyRule(asked.to_string()),
                        },
                        endpoint.enforcement,
                    ));
                    allowed = None;
                    break;
                }
                Outcome::EncodedSlash => Reason::EncodedSlash,
                Outcome::Protocol(name) => Reason::Protocol(name),
                Outcome::NoRule => Reason::NoRule(asked.to_string()),
                Outcome::Opaque
                | Outcome::OtherHost { .. }
                | Outcome::OtherPath { .. }
                | Outcome::OtherPort { .. } => continue,
            };
            // The strictest enforcement of those that were asked counts.
            let enforcement = match &denied {
                Some((_, Enforcement::Enforce)) => Enforcement::Enforce,
                Some((_, Enforcement::Audit)) | None => endpoint.enforcement,
            };
            denied = Some((
                Denied {
                    by: Some(at),
                    reason,
                },
                enforcement,
            ));
        }
        let rewrites = self.rewrites(to, asked);
        match (allowed, denied) {
            (Some(by), _) => Ok(Allowed {
                by,
                in_spite_of: None,
                rewrites,
            }),
            (None, Some((denied, Enforcement::Audit))) => Ok(Allowed {
                by: denied.by.clone().unwrap_or(reach.by),
                in_spite_of: Some(denied),
                rewrites,
            }),
            (None, Some((denied, Enforcement::Enforce))) => Err(denied),
            (None, None) => Err(Denied {
                by: Some(reach.by),
                reason: Reason::NoRule(asked.to_string()),
            }),
        }
    }

    /// Whether a client may say something over a WebSocket that it was allowed to open. Only an endpoint of protocol
    /// `websocket` has something to say about that.
    #[must_use]
    pub fn may_speak(&self, to: &Authority, path: &Path) -> bool {
        let judged =
            |endpoint: &Endpoint| endpoint.protocol == Protocol::WebSocket && endpoint.has(path);
        let said = Asked {
            method: TEXT,
            path,
            query: None,
        };
        !self.meant(to).any(judged) || self.request(to, said).is_ok()
    }

    /// The special addresses that may be dialled for a machine.
    #[must_use]
    pub fn named(&self, to: &Authority) -> Named {
        let mut named = Named::default();
        for endpoint in self.meant(to) {
            named.in_full |= endpoint.host.is_exact();
            named.networks.extend(&endpoint.allowed_ips);
        }
        if let crate::target::Host::Address(address) = to.host {
            // Whoever writes an address into a policy means that one.
            if named.in_full {
                named.networks.push(address.into());
            }
        }
        named
    }

    /// What each endpoint makes of a request, in the order of their names.
    #[must_use]
    pub fn explain(&self, to: &Authority, asked: Asked<'_>) -> Vec<Explained> {
        self.endpoints
            .iter()
            .map(|endpoint| endpoint.consider(to, asked))
            .collect()
    }

    fn meant<'p>(&'p self, to: &'p Authority) -> impl Iterator<Item = &'p Endpoint> {
        self.endpoints
            .iter()
            .filter(|endpoint| endpoint.is_meant(to))
    }

    fn rewrites(&self, to: &Authority, asked: Asked<'_>) -> Rewrites {
        let mut rewrites = Rewrites::default();
        for endpoint in self.meant(to).filter(|endpoint| endpoint.has(asked.path)) {
            rewrites.body |= endpoint.rewrites.body;
            rewrites.websocket |= endpoint.rewrites.websocket;
        }
        rewrites
    }
}

// === impl Endpoint ===

impl Endpoint {
    fn is_meant(&self, to: &Authority) -> bool {
        self.ports.contains(&to.port) && self.host.matches(&to.host)
    }

    fn has(&self, path: &Path) -> bool {
        self.path
            .as_ref()
            .is_none_or(|pattern| pattern.matches(&path.plain))
    }

    fn consider(&self, to: &Authority, asked: Asked<'_>) -> Explained {
        let own = |outcome| Explained {
            at: Arc::clone(&self.at),
            outcome,
        };
        if !self.host.matches(&to.host) {
            return own(Outcome::OtherHost {
                expected: self.host.to_string(),
            });
        }
        if !self.ports.contains(&to.port) {
            return own(Outcome::OtherPort {
                expected: self.ports.clone(),
            });
        }
        match self.protocol {
            Protocol::Opaque => return own(Outcome::Opaque),
            Protocol::Uninspectable(name) if self.has(asked.path) => {
                return own(Outcome::Protocol(name));
            }
            Protocol::Rest | Protocol::WebSocket | Protocol::Uninspectable(_) => {}
        }
        if let Some(expected) = self.path.as_ref().filter(|_| !self.has(asked.path)) {
            return own(Outcome::OtherPath {
                expected: expected.to_string(),
            });
        }
        let decides = |rules: &[Rule], fits: fn(&Rule, Asked<'_>) -> bool, outcome| {
            let rule = rules.iter().find(|rule| fits(rule, asked))?;
            Some(Explained {
                at: Arc::clone(&rule.at),
                outcome,
            })
        };
        if let Some(denies) = decides(&self.denies, Rule::denies, Outcome::Denies) {
            return denies;
        }
        if asked.path.has_encoded_slash && !self.allows_encoded_slash {
            return own(Outcome::EncodedSlash);
        }
        decides(&self.allows, Rule::allows, Outcome::Allows).unwrap_or_else(|| own(Outcome::NoRule))
    }
}

// === impl Rule ===

impl Rule {
    /// Every value of a key that the rule speaks of must fit.
    fn allows(&self, asked: Asked<'_>) -> bool {
        self.fits(asked)
            && self.query.iter().all(|(key, patterns)| {
                let values = values(asked.query, key);
                !values.is_empty()
                    && values
                        .iter()
                        .all(|value| patterns.iter().any(|pattern| pattern.matches(value)))
            })
    }

    /// One value that fits is enough.
    fn denies(&self, asked: Asked<'_>) -> bool {
        self.fits(asked)
            && self.query.iter().all(|(key, patterns)| {
                let values = values(asked.query, key);
                values
                    .iter()
                    .any(|value| patterns.iter().any(|pattern| pattern.matches(value)))
            })
    }

    fn fits(&self, asked: Asked<'_>) -> bool {
        self.method.covers(asked.method) && self.path.matches(&asked.path.plain)
    }
}

/// The values of a key in a query, decoded.
fn values(query: Option<&str>, key: &str) -> Vec<String> {
    let decoded = |text: &str| {
        let spaced = text.replace('+', " ");
        percent_encoding::percent_decode_str(&spaced)
            .decode_utf8_lossy()
            .into_owned()
    };
    query
        .unwrap_or_default()
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .filter(|(name, _)| decoded(name) == key)
        .map(|(_, value)| decoded(value))
        .collect()
}

// === impl Denied ===

impl Denied {
    fn no_endpoint(to: &Authority) -> Self {
        Self {
            by: None,
            reason: Reason::NoEndpoint(to.clone()),
        }
    }
}

impl Reason {
    /// As audit lines have it.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::DenyRule(_) => "deny_rule",
            Self::EncodedSlash => "encoded_slash",
            Self::NoEndpoint(_) => "no_endpoint",
            Self::NoRule(_) => "no_rule",
            Self::Protocol(_) => "protocol_not_inspected",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DenyRule(asked) => write!(f, "expected a request that no rule of the policy denies, got {asked}"),
            Self::EncodedSlash => f.write_str(
                "expected no %2F in a path, got one; the endpoint must say allow_encoded_slash to have them",
            ),
            Self::NoEndpoint(to) => write!(f, "expected a destination of the policy, got {to}, which no endpoint of it is"),
            Self::NoRule(asked) => write!(f, "expected a request that the policy allows, got {asked}"),
            Self::Protocol(name) => {
                write!(f, "expected an endpoint that is judged by its requests, got one of protocol {name}, which is not inspected")
            }
        }
    }
}

impl fmt::Display for Asked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {}",
            self.method,
            crate::record::template(&self.path.plain)
        )
    }
}
