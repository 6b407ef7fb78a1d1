//! The configuration file as typed: every key there is, in one table for each section.
//!
//! A row of a table carries the key's name, its documentation and what reading it does, so that the three cannot drift
//! apart; `docs/configuration.md` is held to the same rows by a test.

mod care;
mod egress;
mod ledger;

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use farrier_gateway::config::{Api, HttpVersion, Need, PassThrough};
use farrier_secrets::SecretRef;
use http::{HeaderName, Uri};
use serde::Serialize;

use super::given::Absent::{Means, Required};
use super::given::{At, Given, Key, Reading};

pub(super) use care::{RawBreaker, RawFallback, RawPerCaller, RawRetry};
pub(super) use egress::RawEgress;
pub(super) use ledger::RawLedger;

/// The whole file.
#[derive(Debug, Default)]
pub(super) struct RawFile {
    pub(super) gateway: RawGateway,
    pub(super) clients: Vec<At<RawClient>>,
    pub(super) providers: Vec<At<RawProvider>>,
    pub(super) routes: Vec<At<RawRoute>>,
    pub(super) egress: Vec<At<RawEgress>>,
    pub(super) ledger: RawLedger,
    pub(super) registry: RawRegistry,
    pub(super) trace: Option<At<RawTrace>>,
}

/// `[gateway]`
#[derive(Debug, Default)]
pub(super) struct RawGateway {
    pub(super) listen: Vec<At<SocketAddr>>,
    pub(super) allowed_hosts: Vec<At<String>>,
    pub(super) default_provider: Option<At<String>>,
    pub(super) public_provider_key: Option<At<String>>,
    pub(super) public_base_url: Option<At<String>>,
    pub(super) watch: Option<At<bool>>,
    pub(super) max_body: Option<At<u64>>,
    pub(super) max_reply: Option<At<u64>>,
    pub(super) max_header: Option<At<u64>>,
    pub(super) max_connections: Option<At<u64>>,
    pub(super) max_streams: Option<At<u64>>,
    pub(super) deadlines: RawDeadlines,
    pub(super) per_caller: RawPerCaller,
}

/// `[gateway.deadlines]`
#[derive(Debug, Default)]
pub(super) struct RawDeadlines {
    pub(super) connect: Option<At<Duration>>,
    pub(super) first_byte: Option<At<Duration>>,
    pub(super) silence: Option<At<Duration>>,
    pub(super) reply: Option<At<Duration>>,
    pub(super) request: Option<At<Duration>>,
    pub(super) header: Option<At<Duration>>,
    pub(super) write: Option<At<Duration>>,
    pub(super) ledger: Option<At<Duration>>,
    pub(super) drain: Option<At<Duration>>,
}

/// `[[client]]`
#[derive(Debug, Default)]
pub(super) struct RawClient {
    pub(super) name: Option<At<String>>,
    pub(super) agent: Option<At<String>>,
    pub(super) key: Option<At<SecretRef>>,
    pub(super) max_concurrent: Option<At<u64>>,
    pub(super) requests_per_minute: Option<At<u64>>,
}

/// `[[provider]]`
#[derive(Debug, Default)]
pub(super) struct RawProvider {
    pub(super) name: Option<At<String>>,
    pub(super) api: Option<At<Api>>,
    pub(super) base_url: Option<At<String>>,
    pub(super) credential: Option<At<SecretRef>>,
    pub(super) header: Option<At<HeaderName>>,
    pub(super) server: Option<At<String>>,
    pub(super) http_version: Option<At<HttpVersion>>,
    pub(super) ca_file: Option<At<PathBuf>>,
    pub(super) pass_through: Option<At<PassThrough>>,
    pub(super) max_concurrent: Option<At<u64>>,
    pub(super) max_queued: Option<At<u64>>,
    pub(super) queue_wait: Option<At<Duration>>,
    pub(super) retry: RawRetry,
    pub(super) breaker: RawBreaker,
}

/// `[[route]]`
#[derive(Debug, Default)]
pub(super) struct RawRoute {
    pub(super) model: Option<At<String>>,
    pub(super) provider: Option<At<String>>,
    pub(super) upstream_model: Option<At<String>>,
    pub(super) fallbacks: Vec<At<RawFallback>>,
    pub(super) fall_back_on: Option<Vec<At<Need>>>,
    pub(super) public_provider_key: Option<At<String>>,
    pub(super) public_base_url: Option<At<String>>,
}

/// `[registry]`
#[derive(Debug, Default)]
pub(super) struct RawRegistry {
    pub(super) directories: Vec<At<PathBuf>>,
    pub(super) disable: Vec<At<String>>,
}

/// `[trace]`
#[derive(Debug, Default)]
pub(super) struct RawTrace {
    pub(super) dir: Option<At<PathBuf>>,
    pub(super) text: Option<At<TraceText>>,
    pub(super) max_cases: Option<At<u64>>,
    pub(super) max_body: Option<At<u64>>,
}

/// What a transcript shows of what people and models wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum TraceText {
    /// Every word
    Keep,
    /// Its length and shape only
    Mask,
}

/// Reads the file.
pub(super) fn read(text: &str) -> (RawFile, Reading) {
    Reading::read(text, FILE)
}

/// Long enough for anyone; a slip of the unit is longer.
const WAIT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_hours(24);
/// None is a queue too.
const QUEUED: RangeInclusive<u64> = 0..=1_000_000;
/// A second to a century, in years of 365.25 days as their writing is understood.
const AGE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3_155_760_000);

fn url(given: &mut Given<'_>) -> Option<At<String>> {
    if given.is_text_with('@') {
        given.wrong(
            "a URL without a user name or password",
            "one with; use credential for these",
        );
        return None;
    }
    given.parsed("an http or https URL", |text| {
        let url: Uri = text.parse().ok()?;
        matches!(url.scheme_str(), Some("http" | "https")).then(|| text.to_owned())
    })
}

fn owned(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

const FILE: &[Key<RawFile>] = &[
    Key {
        name: "gateway",
        also: &["server"],
        takes: "a table",
        absent: Means("the defaults below"),
        doc: "Where the gateway listens and what it bears.",
        read: |raw, given| raw.gateway = given.table(GATEWAY).unwrap_or_default().value,
    },
    Key {
        name: "client",
        also: &["clients"],
        takes: "tables",
        absent: Means("anyone on this machine may call"),
        doc: "Who may call, each known by a key.",
        read: |raw, given| raw.clients = given.tables(CLIENT),
    },
    Key {
        name: "provider",
        also: &["providers", "upstream"],
        takes: "tables",
        absent: Means("those that are stored; without any the gateway does not start"),
        doc: "An upstream account.",
        read: |raw, given| raw.providers = given.tables(PROVIDER),
    },
    Key {
        name: "route",
        also: &["routes", "model"],
        takes: "tables",
        absent: Means("no model is known, other `/v1` requests go to the only provider"),
        doc: "A model name and the provider it leads to.",
        read: |raw, given| raw.routes = given.tables(ROUTE),
    },
    Key {
        name: "egress",
        also: &["sandbox", "sandboxes"],
        takes: "tables",
        absent: Means("no proxy runs"),
        doc: "A proxy through which a sandbox reaches the world, without holding a key.",
        read: |raw, given| raw.egress = given.tables(egress::EGRESS),
    },
    Key {
        name: "ledger",
        also: &[],
        takes: "a table, or its `url` alone",
        absent: Means("the defaults below"),
        doc: "Where turns are remembered, and for how long.",
        read: |raw, given| raw.ledger = ledger::ledger(given),
    },
    Key {
        name: "registry",
        also: &["manifests"],
        takes: "a table",
        absent: Means("the shipped manifests"),
        doc: "Which manifests apply.",
        read: |raw, given| raw.registry = given.table(REGISTRY).unwrap_or_default().value,
    },
    Key {
        name: "trace",
        also: &[],
        takes: "a table",
        absent: Means("no transcripts are kept"),
        doc: "Wire transcripts for bug reports.",
        read: |raw, given| raw.trace = given.table(TRACE),
    },
];

const GATEWAY: &[Key<RawGateway>] = &[
    Key {
        name: "listen",
        also: &["address", "bind", "host", "port"],
        takes: "an address with a port, or a list",
        absent: Means("`\"127.0.0.1:8484\"`"),
        doc: "Where clients connect. Beyond loopback, clients need keys.",
        read: |raw, given| raw.listen = given.addresses(),
    },
    Key {
        name: "allowed_hosts",
        also: &["hosts"],
        takes: "a list of host names",
        absent: Means("loopback names alone"),
        doc: "Further names under which callers without a key may address the gateway.",
        read: |raw, given| raw.allowed_hosts = given.list("a host name", owned),
    },
    Key {
        name: "default_provider",
        also: &[],
        takes: "a provider's name",
        absent: Means("the only provider, if there is one"),
        doc: "Who answers requests that name no model.",
        read: |raw, given| raw.default_provider = given.text(),
    },
    Key {
        name: "public_provider_key",
        also: &["provider_key"],
        takes: "a name",
        absent: Means("`\"inference\"`"),
        doc: "The key under which a harness lists the gateway as a provider; manifests match on it.",
        read: |raw, given| raw.public_provider_key = given.text(),
    },
    Key {
        name: "public_base_url",
        also: &["base_url"],
        takes: "a URL",
        absent: Means("`\"https://inference.local/v1\"`"),
        doc: "The base URL that a harness is configured with; manifests match on it.",
        read: |raw, given| raw.public_base_url = url(given),
    },
    Key {
        name: "watch",
        also: &["reload", "hot_reload"],
        takes: "`true` or `false`",
        absent: Means("`true`"),
        doc: "Whether a change of this file, or of a file it names, takes effect without being asked for.",
        read: |raw, given| raw.watch = given.truth(),
    },
    Key {
        name: "max_body",
        also: &[],
        takes: "a size",
        absent: Means("`\"32MiB\"`"),
        doc: "The largest request body.",
        read: |raw, given| raw.max_body = given.bytes(),
    },
    Key {
        name: "max_reply",
        also: &[],
        takes: "a size",
        absent: Means("`\"32MiB\"`"),
        doc: "The largest reply that is held whole to be rewritten; streams are not held.",
        read: |raw, given| raw.max_reply = given.bytes(),
    },
    Key {
        name: "max_header",
        also: &["max_headers"],
        takes: "a size",
        absent: Means("`\"64KiB\"`"),
        doc: "The largest request head.",
        read: |raw, given| raw.max_header = given.bytes(),
    },
    Key {
        name: "max_connections",
        also: &["concurrency"],
        takes: "a number",
        absent: Means("`4096`"),
        doc: "Connections open at once; one more waits to be accepted.",
        read: |raw, given| raw.max_connections = given.count(),
    },
    Key {
        name: "max_streams",
        also: &[],
        takes: "a number",
        absent: Means("`256`"),
        doc: "Requests at once on one HTTP/2 connection.",
        read: |raw, given| raw.max_streams = given.count(),
    },
    Key {
        name: "deadlines",
        also: &["timeouts"],
        takes: "a table",
        absent: Means("the defaults below"),
        doc: "How long each step may take.",
        read: |raw, given| raw.deadlines = given.table(DEADLINES).unwrap_or_default().value,
    },
    Key {
        name: "per_caller",
        also: &["limits", "rate_limits"],
        takes: "a table",
        absent: Means("no limits"),
        doc: "What each caller may have: a client without limits of its own, or without keys each session.",
        read: |raw, given| {
            raw.per_caller = given.table(care::PER_CALLER).unwrap_or_default().value;
        },
    },
];

const DEADLINES: &[Key<RawDeadlines>] = &[
    Key {
        name: "connect",
        also: &[],
        takes: "a time",
        absent: Means("`\"10s\"`"),
        doc: "Name resolution, connection and TLS handshake with a provider.",
        read: |raw, given| raw.connect = given.duration(WAIT),
    },
    Key {
        name: "first_byte",
        also: &[],
        takes: "a time",
        absent: Means("`\"5m\"`"),
        doc: "From sending a request until the head of the reply.",
        read: |raw, given| raw.first_byte = given.duration(WAIT),
    },
    Key {
        name: "silence",
        also: &["idle"],
        takes: "a time",
        absent: Means("`\"2m\"`"),
        doc: "Between two pieces of a reply.",
        read: |raw, given| raw.silence = given.duration(WAIT),
    },
    Key {
        name: "reply",
        also: &["total"],
        takes: "a time",
        absent: Means("`\"10m\"`"),
        doc: "From a request's head until the head of its reply, over all attempts and fallbacks; a reply that is read whole to be rewritten is read within it too.",
        read: |raw, given| raw.reply = given.duration(WAIT),
    },
    Key {
        name: "request",
        also: &[],
        takes: "a time",
        absent: Means("`\"1m\"`"),
        doc: "For a client's request body, from first byte to last.",
        read: |raw, given| raw.request = given.duration(WAIT),
    },
    Key {
        name: "header",
        also: &[],
        takes: "a time",
        absent: Means("`\"1m\"`"),
        doc: "For a client's request head, idling between two requests included.",
        read: |raw, given| raw.header = given.duration(WAIT),
    },
    Key {
        name: "write",
        also: &[],
        takes: "a time",
        absent: Means("`\"2m\"`"),
        doc: "How long a client may leave written bytes untaken, or grant an HTTP/2 stream no window.",
        read: |raw, given| raw.write = given.duration(WAIT),
    },
    Key {
        name: "ledger",
        also: &[],
        takes: "a time",
        absent: Means("`\"2s\"`"),
        doc: "For one look into the turn ledger, or one write.",
        read: |raw, given| raw.ledger = given.duration(WAIT),
    },
    Key {
        name: "drain",
        also: &["shutdown"],
        takes: "a time",
        absent: Means("`\"30s\"`"),
        doc: "From SIGTERM until requests still in flight are cut.",
        read: |raw, given| raw.drain = given.duration(WAIT),
    },
];

const CLIENT: &[Key<RawClient>] = &[
    Key {
        name: "name",
        also: &["id"],
        takes: "a name",
        absent: Required,
        doc: "The scope of the client's conversations: one client never meets another's turns.",
        read: |raw, given| raw.name = given.text(),
    },
    Key {
        name: "agent",
        also: &["harness"],
        takes: "a harness",
        absent: Means("what `x-farrier-agent` says"),
        doc: "The harness behind it, such as `openclaw`; manifests match on it.",
        read: |raw, given| raw.agent = given.text(),
    },
    Key {
        name: "key",
        also: &["api_key", "token"],
        takes: "a secret",
        absent: Required,
        doc: "What the client presents as a bearer token or in `x-api-key`.",
        read: |raw, given| raw.key = given.secret(),
    },
    Key {
        name: "max_concurrent",
        also: &["concurrency"],
        takes: "a number",
        absent: Means("that of `[gateway.per_caller]`"),
        doc: "Requests that it may have under way; one more is refused with 429.",
        read: |raw, given| raw.max_concurrent = given.count(),
    },
    Key {
        name: "requests_per_minute",
        also: &["rpm", "rate_limit"],
        takes: "a number",
        absent: Means("that of `[gateway.per_caller]`"),
        doc: "Requests that it may make in a minute; one more is refused with 429.",
        read: |raw, given| raw.requests_per_minute = given.count(),
    },
];

const PROVIDER: &[Key<RawProvider>] = &[
    Key {
        name: "name",
        also: &["id"],
        takes: "a name",
        absent: Required,
        doc: "How routes refer to it.",
        read: |raw, given| raw.name = given.text(),
    },
    Key {
        name: "api",
        also: &["type", "kind"],
        takes: "`\"openai-completions\"`",
        absent: Means("`\"openai-completions\"`"),
        doc: "What it speaks.",
        read: |raw, given| {
            let known = Api::OpenAiCompletions;
            raw.api = given.choice(&[(known.as_str(), known)]);
        },
    },
    Key {
        name: "base_url",
        also: &["url", "endpoint"],
        takes: "a URL",
        absent: Required,
        doc: "Up to and with the version segment.",
        read: |raw, given| raw.base_url = url(given),
    },
    Key {
        name: "credential",
        also: &["api_key", "key", "secret", "token"],
        takes: "a secret",
        absent: Means("it is shown none"),
        doc: "What it is shown. The caller's own key never reaches it.",
        read: |raw, given| raw.credential = given.secret(),
    },
    Key {
        name: "header",
        also: &[],
        takes: "a header name",
        absent: Means("`authorization`, after `Bearer `"),
        doc: "The header that carries the credential, alone.",
        read: |raw, given| {
            raw.header = given.parsed("the name of a header", |text| text.parse().ok());
        },
    },
    Key {
        name: "server",
        also: &["engine"],
        takes: "a name",
        absent: Means("unknown"),
        doc: "The serving software, such as `vllm`; manifests match on it.",
        read: |raw, given| raw.server = given.text(),
    },
    Key {
        name: "http_version",
        also: &["http"],
        takes: "`\"auto\"`, `\"1.1\"` or `\"2\"`",
        absent: Means("`\"auto\"`"),
        doc: "`\"auto\"` is what TLS agrees on, else HTTP/1.1; `\"2\"` without TLS is with prior knowledge.",
        read: |raw, given| {
            raw.http_version = given.choice(&[
                ("auto", HttpVersion::Auto),
                ("1.1", HttpVersion::Http1),
                ("2", HttpVersion::Http2),
            ]);
        },
    },
    Key {
        name: "ca_file",
        also: &["ca", "ca_cert"],
        takes: "a path",
        absent: Means("the public authorities alone"),
        doc: "PEM certificates to trust besides the public ones.",
        read: |raw, given| raw.ca_file = given.path(),
    },
    Key {
        name: "pass_through",
        also: &["passthrough"],
        takes: "`\"inference\"` or `\"all\"`",
        absent: Means("`\"inference\"`"),
        doc: "What callers may ask of it besides chat completions: other inference, or all that is below `/v1`.",
        read: |raw, given| {
            raw.pass_through = given.choice(&[
                ("inference", PassThrough::Inference),
                ("all", PassThrough::All),
            ]);
        },
    },
    Key {
        name: "max_concurrent",
        also: &["concurrency"],
        takes: "a number",
        absent: Means("no limit"),
        doc: "Requests that it answers at once. More wait in queues, one for each caller, served in turn.",
        read: |raw, given| raw.max_concurrent = given.count(),
    },
    Key {
        name: "max_queued",
        also: &["queue"],
        takes: "a number",
        absent: Means("`256`"),
        doc: "Requests that may wait, of all callers; one too many costs the caller who has most of them its latest.",
        read: |raw, given| raw.max_queued = given.number(QUEUED),
    },
    Key {
        name: "queue_wait",
        also: &["max_wait"],
        takes: "a time",
        absent: Means("`\"30s\"`"),
        doc: "How long one may wait; after it the answer is 503.",
        read: |raw, given| raw.queue_wait = given.duration(WAIT),
    },
    Key {
        name: "retry",
        also: &["retries"],
        takes: "a table",
        absent: Means("the defaults below"),
        doc: "When a request is sent again.",
        read: |raw, given| raw.retry = given.table(care::RETRY).unwrap_or_default().value,
    },
    Key {
        name: "breaker",
        also: &["circuit_breaker"],
        takes: "a table",
        absent: Means("the defaults below"),
        doc: "When it is left alone for a while.",
        read: |raw, given| raw.breaker = given.table(care::BREAKER).unwrap_or_default().value,
    },
];

const ROUTE: &[Key<RawRoute>] = &[
    Key {
        name: "model",
        also: &["name"],
        takes: "a model name",
        absent: Required,
        doc: "What clients ask for.",
        read: |raw, given| raw.model = given.text(),
    },
    Key {
        name: "provider",
        also: &["upstream"],
        takes: "a provider's name",
        absent: Required,
        doc: "Who answers.",
        read: |raw, given| raw.provider = given.text(),
    },
    Key {
        name: "upstream_model",
        also: &["target_model"],
        takes: "a model name",
        absent: Means("the same as `model`"),
        doc: "What the provider calls it; manifests match on it.",
        read: |raw, given| raw.upstream_model = given.text(),
    },
    Key {
        name: "fallbacks",
        also: &["fallback"],
        takes: "tables",
        absent: Means("nobody else answers"),
        doc: "Who answers in need, in order.",
        read: |raw, given| raw.fallbacks = given.tables(care::FALLBACK),
    },
    Key {
        name: "fall_back_on",
        also: &[],
        takes: "a list of needs",
        absent: Means("all but `not_found` and `unauthorized`"),
        doc: "Which needs send a request on to the next; see below.",
        read: |raw, given| raw.fall_back_on = Some(care::needs(given)),
    },
    Key {
        name: "public_provider_key",
        also: &["provider_key"],
        takes: "a name",
        absent: Means("that of `[gateway]`"),
        doc: "The key under which a harness lists this route's provider.",
        read: |raw, given| raw.public_provider_key = given.text(),
    },
    Key {
        name: "public_base_url",
        also: &["base_url"],
        takes: "a URL",
        absent: Means("that of `[gateway]`"),
        doc: "The base URL that a harness is configured with for this route.",
        read: |raw, given| raw.public_base_url = url(given),
    },
];

const REGISTRY: &[Key<RawRegistry>] = &[
    Key {
        name: "directories",
        also: &["dirs", "paths", "path"],
        takes: "a list of paths",
        absent: Means("none"),
        doc: "Directories whose manifests are added to the shipped ones.",
        read: |raw, given| raw.directories = given.list("a path", |text| Some(text.into())),
    },
    Key {
        name: "disable",
        also: &["off", "exclude"],
        takes: "a list of manifest ids",
        absent: Means("none"),
        doc: "Shipped manifests that are left out.",
        read: |raw, given| raw.disable = given.list("the id of a manifest", owned),
    },
];

const TRACE: &[Key<RawTrace>] = &[
    Key {
        name: "dir",
        also: &["directory", "path"],
        takes: "a path",
        absent: Required,
        doc: "The directory that receives a directory for each request.",
        read: |raw, given| raw.dir = given.path(),
    },
    Key {
        name: "text",
        also: &[],
        takes: "`\"mask\"` or `\"keep\"`",
        absent: Means("`\"mask\"`"),
        doc: "Whether what people and models wrote is kept, or masked to its length and shape.",
        read: |raw, given| {
            let words = [("mask", TraceText::Mask), ("keep", TraceText::Keep)];
            raw.text = given.choice(&words);
        },
    },
    Key {
        name: "max_cases",
        also: &["max"],
        takes: "a number",
        absent: Means("`1000`"),
        doc: "Requests kept in all; after that nothing more is written.",
        read: |raw, given| raw.max_cases = given.count(),
    },
    Key {
        name: "max_body",
        also: &[],
        takes: "a size",
        absent: Means("`\"4MiB\"`"),
        doc: "What is kept of each body.",
        read: |raw, given| raw.max_body = given.bytes(),
    },
];

// === the tables, for the documentation ===

/// A table of the file, and what may stand in it.
#[derive(Debug, Serialize)]
pub(crate) struct Section {
    /// As its head is written.
    pub(crate) table: &'static str,
    pub(crate) keys: Vec<Row>,
}

/// A key.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) key: &'static str,
    pub(crate) takes: &'static str,
    pub(crate) required: bool,
    /// What holds when it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) absent: Option<&'static str>,
    pub(crate) doc: &'static str,
}

/// Every table that has keys of its own, in the order of the file.
pub(crate) fn sections() -> Vec<Section> {
    vec![
        section("[gateway]", GATEWAY),
        section("[gateway.deadlines]", DEADLINES),
        section("[gateway.per_caller]", care::PER_CALLER),
        section("[[client]]", CLIENT),
        section("[[provider]]", PROVIDER),
        section("[provider.retry]", care::RETRY),
        section("[provider.breaker]", care::BREAKER),
        section("[[route]]", ROUTE),
        section("[[route.fallbacks]]", care::FALLBACK),
        section("[[egress]]", egress::EGRESS),
        section("[ledger]", ledger::LEDGER),
        section("[registry]", REGISTRY),
        section("[trace]", TRACE),
    ]
}

fn section<T>(table: &'static str, keys: &'static [Key<T>]) -> Section {
    let keys = keys.iter().map(|key| Row {
        key: key.name,
        takes: key.takes,
        required: key.absent == Required,
        absent: match key.absent {
            Required => None,
            Means(words) => Some(words),
        },
        doc: key.doc,
    });
    Section {
        table,
        keys: keys.collect(),
    }
}

impl fmt::Display for Section {
    /// As `docs/configuration.md` has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "## `{}`\n", self.table)?;
        writeln!(
            f,
            "| key | takes | if absent | meaning |\n|---|---|---|---|"
        )?;
        self.keys.iter().try_for_each(|row| {
            let absent = row.absent.unwrap_or("**required**");
            writeln!(
                f,
                "| `{}` | {} | {absent} | {} |",
                row.key, row.takes, row.doc
            )
        })
    }
}
