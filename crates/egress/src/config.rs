//! What one sandbox's proxy is made of.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use farrier_secrets::ProviderName;

use crate::head::HeadLimits;
use crate::policy::Policy;

/// One listener, and what those behind it may do.
#[derive(Clone, Debug)]
pub struct Config {
    /// What the sandbox is called in audit lines. Who connects to the listener is this sandbox; nothing a client says
    /// about itself counts.
    pub sandbox: String,
    /// Where to listen.
    pub listen: Vec<SocketAddr>,
    /// Bounds, which only a restart changes.
    pub limits: Limits,
    /// What a reload may replace.
    pub rules: Rules,
}

/// What a sandbox may do.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Where it may go.
    pub policy: Arc<Policy>,
    /// Whose keys may be used for it.
    pub providers: Vec<ProviderName>,
}

/// Bounds of one sandbox's proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of the listener and of connections to it.
    pub listener: farrier_serve::Limits,
    /// Of a request head.
    pub head: HeadLimits,
    /// Bytes of a body that is held to look for placeholders in it.
    pub max_held_body_bytes: usize,
    /// Bytes of a WebSocket's text message that is held for the same reason.
    pub max_message_bytes: usize,
    /// From a tunnel's start to the client's first bytes, and for each TLS handshake.
    pub handshake: Duration,
    /// To resolve a name and connect to one of its addresses.
    pub connect: Duration,
    /// For a body that is held to arrive.
    pub body: Duration,
    /// From a request to the head of its reply.
    pub reply: Duration,
    /// Without a byte in either direction, for whatever is open.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            listener: farrier_serve::Limits {
                max_connections: 1024,
                header_read: Duration::from_secs(30),
                ..farrier_serve::Limits::default()
            },
            head: HeadLimits {
                max_bytes: 64 * 1024,
                max_fields: crate::head::MAX_FIELDS,
            },
            max_held_body_bytes: 256 * 1024,
            max_message_bytes: 4 * 1024 * 1024,
            handshake: Duration::from_secs(10),
            connect: Duration::from_secs(10),
            body: Duration::from_secs(60),
            reply: Duration::from_secs(600), // a model that thinks, and does not stream
            idle: Duration::from_secs(600),
        }
    }
}
