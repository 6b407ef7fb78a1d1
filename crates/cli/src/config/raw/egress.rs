//! The table about where sandboxes may go.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use farrier_secrets::ProviderName;

use super::super::given::Absent::{Means, Required};
use super::super::given::{At, Key};

/// `[[egress]]`
#[derive(Debug, Default)]
pub(in super::super) struct RawEgress {
    pub(in super::super) name: Option<At<String>>,
    pub(in super::super) listen: Vec<At<SocketAddr>>,
    pub(in super::super) policy: Option<At<PathBuf>>,
    pub(in super::super) providers: Vec<At<ProviderName>>,
    pub(in super::super) ca_file: Option<At<PathBuf>>,
    pub(in super::super) max_connections: Option<At<u64>>,
    pub(in super::super) max_held_body: Option<At<u64>>,
    pub(in super::super) max_message: Option<At<u64>>,
    pub(in super::super) connect: Option<At<Duration>>,
    pub(in super::super) handshake: Option<At<Duration>>,
    pub(in super::super) reply: Option<At<Duration>>,
    pub(in super::super) idle: Option<At<Duration>>,
}

/// The shortest and longest that a step may be given.
const STEP: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(24 * 3600);

pub(super) const EGRESS: &[Key<RawEgress>] = &[
    Key {
        name: "name",
        also: &["sandbox"],
        takes: "a name",
        absent: Required,
        doc: "What the sandbox is called in audit lines. Whoever connects to the address below is this sandbox.",
        read: |raw, given| raw.name = given.text(),
    },
    Key {
        name: "listen",
        also: &["address", "bind", "port"],
        takes: "an address with a port, or a list",
        absent: Required,
        doc: "Where its proxy listens: a loopback address of this machine.",
        read: |raw, given| raw.listen = given.addresses(),
    },
    Key {
        name: "policy",
        also: &["policy_file", "policies"],
        takes: "a path",
        absent: Required,
        doc: "The file that says where it may go, in OpenShell's language; see [egress](egress.md).",
        read: |raw, given| raw.policy = given.path(),
    },
    Key {
        name: "providers",
        also: &["provider", "attach", "attached"],
        takes: "a list of providers' names",
        absent: Means("none"),
        doc: "Whose keys its placeholders may stand for.",
        read: |raw, given| {
            raw.providers = given.list("a provider's name", |text| text.parse().ok());
        },
    },
    Key {
        name: "ca_file",
        also: &["ca"],
        takes: "a path",
        absent: Means("well-known authorities alone"),
        doc: "Certificates in PEM that destinations may prove themselves by, too.",
        read: |raw, given| raw.ca_file = given.path(),
    },
    Key {
        name: "max_connections",
        also: &["connections"],
        takes: "a number",
        absent: Means("`1024`"),
        doc: "Connections of the sandbox open at once; one more waits to be accepted.",
        read: |raw, given| raw.max_connections = given.count(),
    },
    Key {
        name: "max_held_body",
        also: &["max_body"],
        takes: "a size",
        absent: Means("`\"256KiB\"`"),
        doc: "The largest body that is held to look for placeholders in it; a larger one passes as it is.",
        read: |raw, given| raw.max_held_body = given.bytes(),
    },
    Key {
        name: "max_message",
        also: &[],
        takes: "a size",
        absent: Means("`\"4MiB\"`"),
        doc: "The largest WebSocket message that is looked into; a larger one ends its WebSocket.",
        read: |raw, given| raw.max_message = given.bytes(),
    },
    Key {
        name: "connect",
        also: &["connect_timeout"],
        takes: "a time",
        absent: Means("`\"10s\"`"),
        doc: "To find a destination's address and connect to it.",
        read: |raw, given| raw.connect = given.duration(STEP),
    },
    Key {
        name: "handshake",
        also: &[],
        takes: "a time",
        absent: Means("`\"10s\"`"),
        doc: "For each TLS handshake, and for the first bytes of a tunnel.",
        read: |raw, given| raw.handshake = given.duration(STEP),
    },
    Key {
        name: "reply",
        also: &["timeout"],
        takes: "a time",
        absent: Means("`\"10m\"`"),
        doc: "From a request to the head of its reply.",
        read: |raw, given| raw.reply = given.duration(STEP),
    },
    Key {
        name: "idle",
        also: &["idle_timeout"],
        takes: "a time",
        absent: Means("`\"10m\"`"),
        doc: "Without a byte in either direction, for whatever is open.",
        read: |raw, given| raw.idle = given.duration(STEP),
    },
];
