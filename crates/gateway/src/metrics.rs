//! What is counted, and the page that shows it.
//!
//! Labels come from the configuration, the manifests and small enums of ours, never from a request, so that their number
//! is bounded.

mod care;
mod reloads;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use farrier_compat::passes::Note;
use farrier_ledger::Stats;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use tokio::runtime::Handle;

pub(crate) use care::{BreakerMetrics, CareMetrics, GateMetrics, Limit, TurnedAway};
use reloads::ReloadMetrics;

/// All metrics of one gateway.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    duration: Family<OfRoute, Histogram>,
    first_byte: Family<OfRoute, Histogram>,
    pub(crate) in_flight: Gauge,
    /// Alive on the runtime; counted when the page is made.
    tasks: Gauge,
    effects: Family<Effect, Counter>,
    recalls: Family<Outcome, Counter>,
    commit_failures: Family<Kind, Counter>,
    upstream_errors: Family<ProviderError, Counter>,
    pub(crate) traces_dropped: Counter,
    pub(crate) care: CareMetrics,
    pub(crate) reloads: ReloadMetrics,
    store: Store,
}

/// The histograms of one route, looked up once.
#[derive(Clone, Debug)]
pub(crate) struct RouteMetrics {
    pub(crate) duration: Histogram,
    pub(crate) first_byte: Histogram,
}

/// What a look into the ledger came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recall {
    Hit,
    Miss,
    Unavailable,
}

/// The turn ledger's own numbers, copied when the page is made.
#[derive(Default)]
struct Store {
    entries: Gauge<u64, AtomicU64>,
    bytes: Gauge<u64, AtomicU64>,
    cached: Gauge<u64, AtomicU64>,
    evicted: Family<Kind, Gauge<u64, AtomicU64>>,
    queued: Gauge<u64, AtomicU64>,
    unqueued: Family<Kind, Gauge<u64, AtomicU64>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    route: Arc<str>,
    status: u16,
    ending: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfRoute {
    route: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Effect {
    pass: &'static str,
    manifest: Arc<str>,
    what: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProviderError {
    provider: Arc<str>,
    kind: &'static str,
}

// === impl Metrics ===

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("farrier"),
            requests: Family::default(),
            duration: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            first_byte: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            in_flight: Gauge::default(),
            tasks: Gauge::default(),
            effects: Family::default(),
            recalls: Family::default(),
            commit_failures: Family::default(),
            upstream_errors: Family::default(),
            traces_dropped: Counter::default(),
            care: CareMetrics::new(),
            reloads: ReloadMetrics::default(),
            store: Store::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let page = &mut self.registry;
        page.register(
            "requests",
            "Requests answered, by how they ended",
            self.requests.clone(),
        );
        let help = "From the head of the request to the last byte of the reply";
        page.register_with_unit(
            "request_duration",
            help,
            Unit::Seconds,
            self.duration.clone(),
        );
        let help = "From the head of the request to the head of the provider's reply";
        page.register_with_unit("first_byte", help, Unit::Seconds, self.first_byte.clone());
        page.register(
            "requests_in_flight",
            "Requests being answered",
            self.in_flight.clone(),
        );
        page.register("tasks", "Tasks of the process", self.tasks.clone());
        page.register(
            "pass_effects",
            "What passes did to requests and replies",
            self.effects.clone(),
        );
        page.register(
            "ledger_recalls",
            "Keys looked up in the turn ledger",
            self.recalls.clone(),
        );
        page.register(
            "ledger_commit_failures",
            "Turns that could not be remembered",
            self.commit_failures.clone(),
        );
        page.register(
            "upstream_errors",
            "Failures towards providers",
            self.upstream_errors.clone(),
        );
        page.register(
            "traces_dropped",
            "Transcripts that were not written",
            self.traces_dropped.clone(),
        );
        self.care.register(page);
        self.reloads.register(page);
        page.register(
            "ledger_entries",
            "Turns in the ledger, 0 if it is shared",
            self.store.entries.clone(),
        );
        page.register_with_unit(
            "ledger_size",
            "Size of the ledger, 0 if it is shared",
            Unit::Bytes,
            self.store.bytes.clone(),
        );
        page.register(
            "ledger_cached",
            "Keys that memory knew since the start, so that the ledger's file was not asked",
            self.store.cached.clone(),
        );
        page.register(
            "ledger_evicted",
            "Turns evicted since the start",
            self.store.evicted.clone(),
        );
        page.register(
            "ledger_queued",
            "Turns that wait for the ledger's store to take them",
            self.store.queued.clone(),
        );
        page.register(
            "ledger_unqueued",
            "Turns that waited, until they were stored or dropped",
            self.store.unqueued.clone(),
        );
    }

    /// The histograms of a route.
    pub(crate) fn of_route(&self, route: &Arc<str>) -> RouteMetrics {
        let label = OfRoute {
            route: Arc::clone(route),
        };
        RouteMetrics {
            duration: self.duration.get_or_create_owned(&label),
            first_byte: self.first_byte.get_or_create_owned(&label),
        }
    }

    pub(crate) fn request(&self, route: &Arc<str>, status: u16, ending: &'static str) {
        self.requests
            .get_or_create(&Request {
                route: Arc::clone(route),
                status,
                ending,
            })
            .inc();
    }

    /// What passes did. A long history has hundreds of notes of a few kinds, each of which is looked up once.
    pub(crate) fn effects(&self, notes: &[Note]) {
        let mut kinds: Vec<(&Note, u64)> = Vec::new();
        for note in notes {
            let alike = |kind: &Note| {
                kind.what == note.what && kind.pass == note.pass && kind.manifest == note.manifest
            };
            match kinds.iter_mut().find(|(kind, _)| alike(kind)) {
                Some((_, count)) => *count += 1,
                None => kinds.push((note, 1)),
            }
        }
        for (kind, count) in kinds {
            let effect = Effect {
                pass: kind.pass,
                manifest: Arc::clone(&kind.manifest),
                what: kind.what.as_str(),
            };
            self.effects.get_or_create(&effect).inc_by(count);
        }
    }

    pub(crate) fn recalled(&self, outcome: Recall, keys: usize) {
        let outcome = match outcome {
            Recall::Hit => "hit",
            Recall::Miss => "miss",
            Recall::Unavailable => "unavailable",
        };
        if keys > 0 {
            self.recalls
                .get_or_create(&Outcome { outcome })
                .inc_by(keys as u64);
        }
    }

    pub(crate) fn commit_failed(&self, kind: &'static str) {
        self.commit_failures.get_or_create(&Kind { kind }).inc();
    }

    pub(crate) fn upstream_error(&self, provider: &Arc<str>, kind: &'static str) {
        self.upstream_errors
            .get_or_create(&ProviderError {
                provider: Arc::clone(provider),
                kind,
            })
            .inc();
    }

    /// The page, in OpenMetrics text. Must be called on the runtime that answers requests.
    pub(crate) fn page(&self, ledger: Stats) -> Result<String, fmt::Error> {
        self.store.show(ledger);
        let alive = Handle::current().metrics().num_alive_tasks();
        self.tasks.set(i64::try_from(alive).unwrap_or(i64::MAX));
        let mut page = String::new();
        text::encode(&mut page, &self.registry)?;
        Ok(page)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

// === impl Store ===

impl Store {
    fn show(&self, stats: Stats) {
        self.entries.set(stats.entries.unwrap_or_default());
        self.bytes.set(stats.bytes.unwrap_or_default());
        self.cached.set(stats.recall_cached);
        self.queued.set(stats.queued);
        let evicted = [
            ("ttl", stats.evicted_by_ttl),
            ("size", stats.evicted_by_size),
            ("scope", stats.evicted_by_scope),
        ];
        for (kind, count) in evicted {
            self.evicted.get_or_create(&Kind { kind }).set(count);
        }
        for (kind, count) in [("stored", stats.retried), ("dropped", stats.dropped)] {
            self.unqueued.get_or_create(&Kind { kind }).set(count);
        }
    }
}

/// The content type of the page.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// From what a proxy adds to what a model thinks.
const SECONDS: [f64; 14] = [
    0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0,
];
