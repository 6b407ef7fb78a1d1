//! Which configuration serves, and what attempts at others came to.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct ReloadMetrics {
    generation: Gauge<u64, AtomicU64>,
    since: Gauge<f64, AtomicU64>,
    attempts: Family<Attempt, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Attempt {
    result: &'static str,
}

impl ReloadMetrics {
    pub(super) fn register(&self, page: &mut Registry) {
        page.register(
            "config_generation",
            "Which configuration serves; 1 is the one of the start",
            self.generation.clone(),
        );
        page.register_with_unit(
            "config_taken_timestamp",
            "When the configuration that serves was taken over, since 1970",
            Unit::Seconds,
            self.since.clone(),
        );
        page.register(
            "config_reloads",
            "Attempts at another configuration, by what they came to",
            self.attempts.clone(),
        );
        // There from the start, so that the first refusal is seen as an increase.
        for result in [TAKEN, REFUSED] {
            drop(self.attempts.get_or_create(&Attempt { result }));
        }
    }

    pub(crate) fn serving(&self, generation: u64, since: Duration) {
        self.generation.set(generation);
        self.since.set(since.as_secs_f64());
    }

    pub(crate) fn attempt(&self, taken: bool) {
        let result = if taken { TAKEN } else { REFUSED };
        self.attempts.get_or_create(&Attempt { result }).inc();
    }
}

const TAKEN: &str = "taken";
const REFUSED: &str = "refused";
