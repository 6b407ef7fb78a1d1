//! The table about the ledger: a file, or a store that gateways share.

use std::path::PathBuf;
use std::time::Duration;

use farrier_ledger::Location;
use farrier_secrets::SecretRef;

use super::super::given::Absent::Means;
use super::super::given::{At, Given, Key};
use super::AGE;

/// `[ledger]`
#[derive(Debug, Default)]
pub(in super::super) struct RawLedger {
    pub(in super::super) path: Option<At<PathBuf>>,
    pub(in super::super) url: Option<At<Location>>,
    pub(in super::super) username: Option<At<String>>,
    pub(in super::super) credential: Option<At<SecretRef>>,
    pub(in super::super) sentinel_credential: Option<At<SecretRef>>,
    pub(in super::super) ca_file: Option<At<PathBuf>>,
    pub(in super::super) certificate_file: Option<At<PathBuf>>,
    pub(in super::super) key_file: Option<At<PathBuf>>,
    pub(in super::super) prefix: Option<At<String>>,
    pub(in super::super) ttl: Option<At<Duration>>,
    pub(in super::super) max_size: Option<At<u64>>,
    pub(in super::super) cache_size: Option<At<u64>>,
    pub(in super::super) max_entries_per_scope: Option<At<u64>>,
    pub(in super::super) encryption_key: Option<At<SecretRef>>,
    /// A URL was there, and is noted as a mistake: nothing is to be said of the path that is used in its place.
    pub(in super::super) url_refused: bool,
}

/// `[ledger]`, or `ledger = "redis://…"` for its URL alone.
pub(super) fn ledger(given: &mut Given<'_>) -> RawLedger {
    if given.is_text() {
        let mut raw = RawLedger::default();
        raw.read_url(given);
        return raw;
    }
    given.table(LEDGER).unwrap_or_default().value
}

impl RawLedger {
    /// A password pasted into the URL is not repeated.
    fn read_url(&mut self, given: &mut Given<'_>) {
        const URL: &str =
            "a URL of redis://, rediss://, redis+unix://, redis+cluster:// or redis+sentinel://";
        if given.is_text_with('@') {
            given.wrong(
                "a URL without a user name or password",
                "one with; use username and credential for these",
            );
        } else {
            self.url = given.parsed(URL, |text| text.parse().ok());
        }
        self.url_refused = self.url.is_none();
    }
}

pub(super) const LEDGER: &[Key<RawLedger>] = &[
    Key {
        name: "path",
        also: &["file"],
        takes: "a path",
        absent: Means("`$XDG_STATE_HOME/farrier/ledger.db`, or in `~/.local/state`"),
        doc: "The file; it belongs to one gateway at a time.",
        read: |raw, given| raw.path = given.path(),
    },
    Key {
        name: "url",
        also: &["redis", "valkey", "address"],
        takes: "a URL",
        absent: Means("the file at `path`"),
        doc: "A Redis or Valkey in place of a file, which gateways share.",
        read: |raw, given| raw.read_url(given),
    },
    Key {
        name: "username",
        also: &["user"],
        takes: "a name",
        absent: Means("the store's default user"),
        doc: "As whom the store is used.",
        read: |raw, given| raw.username = given.text(),
    },
    Key {
        name: "credential",
        also: &["password"],
        takes: "a secret",
        absent: Means("the store asks for none"),
        doc: "The store's password.",
        read: |raw, given| raw.credential = given.secret(),
    },
    Key {
        name: "sentinel_credential",
        also: &["sentinel_password"],
        takes: "a secret",
        absent: Means("the sentinels ask for none"),
        doc: "The password of the sentinels, which need not be the store's.",
        read: |raw, given| raw.sentinel_credential = given.secret(),
    },
    Key {
        name: "ca_file",
        also: &["ca", "tls_ca"],
        takes: "a path",
        absent: Means("the authorities the system trusts"),
        doc: "PEM certificates of the only authorities that the store's certificate may be from.",
        read: |raw, given| raw.ca_file = given.path(),
    },
    Key {
        name: "certificate_file",
        also: &["cert_file", "certificate"],
        takes: "a path",
        absent: Means("the gateway shows none"),
        doc: "PEM certificates the gateway shows the store over TLS.",
        read: |raw, given| raw.certificate_file = given.path(),
    },
    Key {
        name: "key_file",
        also: &["private_key"],
        takes: "a path",
        absent: Means("the gateway shows none"),
        doc: "The private key of the first of these, in PEM.",
        read: |raw, given| raw.key_file = given.path(),
    },
    Key {
        name: "prefix",
        also: &["namespace"],
        takes: "a text",
        absent: Means("`\"farrier\"`, in a store"),
        doc: "What all names in the store begin with; gateways with the same one share their turns.",
        read: |raw, given| raw.prefix = given.text(),
    },
    Key {
        name: "ttl",
        also: &["max_age"],
        takes: "a time",
        absent: Means("`\"30days\"`"),
        doc: "How long a turn is remembered.",
        read: |raw, given| raw.ttl = given.duration(AGE),
    },
    Key {
        name: "max_size",
        also: &["max_bytes"],
        takes: "a size",
        absent: Means("`\"1GiB\"`"),
        doc: "What all turns may weigh together in a file; the oldest go first.",
        read: |raw, given| raw.max_size = given.bytes(),
    },
    Key {
        name: "cache_size",
        also: &["cache", "cache_bytes"],
        takes: "a size",
        absent: Means("`\"32MiB\"`, of a file"),
        doc: "What of a file's turns may be kept in memory; those that were not asked for longest go first.",
        read: |raw, given| raw.cache_size = given.bytes(),
    },
    Key {
        name: "max_entries_per_scope",
        also: &["max_entries"],
        takes: "a number",
        absent: Means("`100000`"),
        doc: "How many turns one client may have; its oldest go first.",
        read: |raw, given| raw.max_entries_per_scope = given.count(),
    },
    Key {
        name: "encryption_key",
        also: &["key"],
        takes: "a secret",
        absent: Means("turns are not encrypted"),
        doc: "64 hexadecimal digits, as `openssl rand -hex 32` prints them.",
        read: |raw, given| raw.encryption_key = given.secret(),
    },
];
