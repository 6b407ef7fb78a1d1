//! What a sandbox may reach.
//!
//! ```text
//! policy.yaml ──load──▶ Policy ──connect──▶ may this machine be spoken to, and must what is said be read?
//!                              ──request──▶ may this be asked of it?
//!                              ──explain──▶ what each rule made of it
//!                              ──suggest──▶ the rule that would allow what was refused
//! ```
//!
//! The language is the `network_policies` of OpenShell's policy files, which load unchanged. What no rule allows is
//! refused, and rules are enforced unless they say `enforcement: audit` themselves. Where this differs from OpenShell:
//!
//! * `enforcement` is `enforce` by default, not `audit`;
//! * `binaries` are read and not judged: who asks is told by the listener it came to, and an interpreter's path says
//!   little about what it runs;
//! * a protocol that is not inspected here (`graphql`, `mcp`, `json-rpc`, `sql`) makes its endpoint refuse every request,
//!   instead of letting all of them pass;
//! * `**` within a path also stands for no segment at all: `/a/**/b` matches `/a/b`.
//!
//! Each such rule of a loaded policy has a [`Notice`]. A policy is immutable, and judging it does not wait for anything.

mod judge;
mod load;
mod pattern;
mod raw;
mod suggest;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use ipnet::IpNet;

pub use judge::{Allowed, Asked, Connect, Denied, Explained, Inspect, Outcome, Reason, TEXT};
pub use load::{LoadError, Mistake};
pub use suggest::{Refusal, suggest};

use pattern::{HostPattern, PathPattern, ValuePattern};

/// A policy as it is judged.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    endpoints: Vec<Endpoint>,
    notices: Vec<Notice>,
}

/// Something of a policy that is read and has no effect, or another one than its author may think.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Where, as in `network_policies.github.endpoints[0]`.
    pub at: Arc<str>,
    /// What of it.
    pub what: String,
}

/// One endpoint of one named rule.
#[derive(Clone, Debug)]
struct Endpoint {
    at: Arc<str>,
    host: HostPattern,
    ports: Vec<u16>,
    path: Option<PathPattern>,
    protocol: Protocol,
    tls: Tls,
    enforcement: Enforcement,
    allows: Vec<Rule>,
    denies: Vec<Rule>,
    allowed_ips: Vec<IpNet>,
    allows_encoded_slash: bool,
    rewrites: Rewrites,
}

/// What a rule of the policy asks to be rewritten beside heads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rewrites {
    /// Bodies of requests.
    pub body: bool,
    /// Text that a client sends over a WebSocket.
    pub websocket: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    /// Not looked into.
    Opaque,
    Rest,
    WebSocket,
    /// Known to the language and not to us.
    Uninspectable(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tls {
    /// Ended here where something has to be read.
    Auto,
    /// Never ended here.
    Skip,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Enforcement {
    /// Refused requests are recorded as such, and pass.
    Audit,
    Enforce,
}

/// A request that is allowed, or denied.
#[derive(Clone, Debug)]
struct Rule {
    at: Arc<str>,
    method: Method,
    path: PathPattern,
    query: Vec<(String, Vec<ValuePattern>)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Method {
    Any,
    One(String),
}

// === impl Policy ===

impl Policy {
    /// What of it has no effect, or an unexpected one.
    #[must_use]
    pub fn notices(&self) -> &[Notice] {
        &self.notices
    }

    /// The ports that it speaks of, each once: where something may be reached.
    #[must_use]
    pub fn ports(&self) -> BTreeSet<u16> {
        let ports = self.endpoints.iter().flat_map(|endpoint| &endpoint.ports);
        ports.copied().collect()
    }

    /// How many endpoints it allows something of.
    #[must_use]
    pub fn endpoint_count(&self) -> usize {
        self.endpoints.len()
    }
}

// === impl Method ===

impl Method {
    /// `HEAD` is `GET` without the body (RFC 9110 §9.3.2).
    fn covers(&self, asked: &str) -> bool {
        match self {
            Self::Any => true,
            Self::One(method) => method == asked || (method == "GET" && asked == "HEAD"),
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "*",
            Self::One(method) => method,
        })
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.what)
    }
}
