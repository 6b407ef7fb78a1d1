//! The table about where sandboxes may go.

use std::net::SocketAddr;
use std::path::PathBuf;

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
}

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
];
