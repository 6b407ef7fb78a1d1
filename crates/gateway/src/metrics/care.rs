//! What is counted of the care around providers and callers.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::SECONDS;
use crate::care::State;
use crate::config::Need;

/// All of it.
#[derive(Debug)]
pub(crate) struct CareMetrics {
    answers: Family<Answer, Counter>,
    retries: Family<Retry, Counter>,
    retries_withheld: Family<OfProvider, Counter>,
    fallbacks: Family<Fallback, Counter>,
    breakers: Family<Breaker, Gauge>,
    waiting: Family<OfProvider, Gauge>,
    taken: Family<OfProvider, Gauge>,
    waits: Family<OfProvider, Histogram>,
    turned_away: Family<Turned, Counter>,
    limited: Family<Limited, Counter>,
}

/// Of one provider's places.
#[derive(Debug)]
pub(crate) struct GateMetrics {
    waiting: Gauge,
    taken: Gauge,
    waits: Histogram,
    full: Counter,
    too_long: Counter,
}

/// Of one breaker: for each of its states whether it is in it.
#[derive(Debug)]
pub(crate) struct BreakerMetrics {
    states: [(&'static str, Gauge); 3],
}

/// Why a request got no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TurnedAway {
    Full,
    WaitedTooLong,
}

/// What a caller may have no more of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    Concurrency,
    Rate,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfProvider {
    provider: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answer {
    route: Arc<str>,
    provider: Arc<str>,
    model: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Retry {
    provider: Arc<str>,
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Fallback {
    route: Arc<str>,
    from: String,
    to: String,
    need: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Breaker {
    provider: Arc<str>,
    model: Arc<str>,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Turned {
    provider: Arc<str>,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Limited {
    client: String,
    limit: &'static str,
}

// === impl CareMetrics ===

impl CareMetrics {
    pub(super) fn new() -> Self {
        Self {
            answers: Family::default(),
            retries: Family::default(),
            retries_withheld: Family::default(),
            fallbacks: Family::default(),
            breakers: Family::default(),
            waiting: Family::default(),
            taken: Family::default(),
            waits: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            turned_away: Family::default(),
            limited: Family::default(),
        }
    }

    pub(super) fn register(&self, page: &mut Registry) {
        let help = "Replies given, by who gave them";
        page.register("answers", help, self.answers.clone());
        let help = "Requests sent again, by what came of the attempt before";
        page.register("upstream_retries", help, self.retries.clone());
        let help = "Requests not sent again, since too many were";
        page.register(
            "upstream_retries_withheld",
            help,
            self.retries_withheld.clone(),
        );
        let help = "Requests sent on to a fallback, by the need";
        page.register("fallbacks", help, self.fallbacks.clone());
        let help = "The state each circuit breaker is in";
        page.register("breaker_state", help, self.breakers.clone());
        let help = "Requests waiting for a place at a provider";
        page.register("queue_depth", help, self.waiting.clone());
        let help = "Places taken at a provider with a limited number of them";
        page.register("places_taken", help, self.taken.clone());
        let help = "How long requests waited that got a place after a wait";
        page.register_with_unit("queue_wait", help, Unit::Seconds, self.waits.clone());
        let help = "Requests that got no place";
        page.register("queue_refusals", help, self.turned_away.clone());
        let help = "Requests refused since their caller had what it may have";
        page.register("callers_limited", help, self.limited.clone());
    }

    /// Counts the replies of one target of a route.
    pub(crate) fn answers(
        &self,
        route: &Arc<str>,
        provider: &Arc<str>,
        model: &Arc<str>,
    ) -> Counter {
        self.answers.get_or_create_owned(&Answer {
            route: Arc::clone(route),
            provider: Arc::clone(provider),
            model: Arc::clone(model),
        })
    }

    pub(crate) fn retried(&self, provider: &Arc<str>, reason: String) {
        let provider = Arc::clone(provider);
        let retries = &self.retries;
        retries.get_or_create(&Retry { provider, reason }).inc();
    }

    pub(crate) fn retry_withheld(&self, provider: &Arc<str>) {
        let provider = Arc::clone(provider);
        let withheld = &self.retries_withheld;
        withheld.get_or_create(&OfProvider { provider }).inc();
    }

    pub(crate) fn fell_back(&self, route: &Arc<str>, (from, to): (&str, &str), need: Need) {
        let fallback = Fallback {
            route: Arc::clone(route),
            from: from.to_owned(),
            to: to.to_owned(),
            need: need.as_str(),
        };
        self.fallbacks.get_or_create(&fallback).inc();
    }

    /// `client` is a configured name, or none.
    pub(crate) fn limited(&self, client: &str, limit: Limit) {
        let limited = Limited {
            client: client.to_owned(),
            limit: match limit {
                Limit::Concurrency => "concurrency",
                Limit::Rate => "rate",
            },
        };
        self.limited.get_or_create(&limited).inc();
    }

    pub(crate) fn breaker(&self, provider: &Arc<str>, model: &Arc<str>) -> BreakerMetrics {
        let gauge = |state| {
            let label = Breaker::of(provider, model, state);
            (state, self.breakers.get_or_create_owned(&label))
        };
        BreakerMetrics {
            states: State::NAMES.map(gauge),
        }
    }

    pub(crate) fn forget_breaker(&self, provider: &Arc<str>, model: &Arc<str>) {
        for state in State::NAMES {
            self.breakers.remove(&Breaker::of(provider, model, state));
        }
    }

    pub(crate) fn gate(&self, provider: &Arc<str>) -> GateMetrics {
        let label = OfProvider {
            provider: Arc::clone(provider),
        };
        let turned = |reason| {
            let provider = Arc::clone(provider);
            let turned = Turned { provider, reason };
            self.turned_away.get_or_create_owned(&turned)
        };
        GateMetrics {
            waiting: self.waiting.get_or_create_owned(&label),
            taken: self.taken.get_or_create_owned(&label),
            waits: self.waits.get_or_create_owned(&label),
            full: turned("full"),
            too_long: turned("waited_too_long"),
        }
    }
}

// === impl Breaker ===

impl Breaker {
    fn of(provider: &Arc<str>, model: &Arc<str>, state: &'static str) -> Self {
        Self {
            provider: Arc::clone(provider),
            model: Arc::clone(model),
            state,
        }
    }
}

// === impl GateMetrics ===

impl GateMetrics {
    pub(crate) fn waiting(&self, waiting: usize) {
        self.waiting.set(count(waiting));
    }

    pub(crate) fn taken(&self, taken: usize) {
        self.taken.set(count(taken));
    }

    pub(crate) fn waited(&self, waited: Duration) {
        self.waits.observe(waited.as_secs_f64());
    }

    pub(crate) fn turned_away(&self, why: TurnedAway) {
        match why {
            TurnedAway::Full => &self.full,
            TurnedAway::WaitedTooLong => &self.too_long,
        }
        .inc();
    }
}

fn count(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

// === impl BreakerMetrics ===

impl BreakerMetrics {
    pub(crate) fn show(&self, state: State) {
        for (name, gauge) in &self.states {
            gauge.set(i64::from(*name == state.as_str()));
        }
    }
}
