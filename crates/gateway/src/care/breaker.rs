//! When to leave a provider alone.
//!
//! ```text
//!            failures in a row                  cool-down over, and somebody asks
//!  Closed ──────────────────────▶ Open ──────────────────────────────────────────▶ HalfOpen
//!    ▲                             ▲                                               │  │
//!    │                             └──────────────── the probe failed ─────────────┘  │
//!    └───────────────────────────────────────────── the probe succeeded ──────────────┘
//! ```
//!
//! In `HalfOpen` one request at a time is let through, the probe. One that ends without a verdict, since its client left,
//! makes way for another. What is heard of requests that were let through in an earlier state counts for nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::backoff::fraction;
use crate::config;
use crate::metrics::BreakerMetrics;

/// A breaker that many requests share.
#[derive(Debug)]
pub(super) struct Breaker {
    /// Closed, and nothing has failed since the last success: the usual case, without a lock.
    calm: AtomicBool,
    machine: Mutex<Machine>,
    metrics: BreakerMetrics,
}

/// Leave to send one request. Given up without a verdict, it counts for nothing.
#[derive(Debug)]
pub(super) struct Leave<'a> {
    breaker: &'a Breaker,
    pass: Pass,
    told: bool,
}

/// What the diagram shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Closed { failures: u32 },
    HalfOpen { probe: Option<u64> },
    Open { until: Instant },
}

#[derive(Debug)]
struct Machine {
    state: State,
    /// How many probes there were.
    probes: u64,
}

/// As what a request was let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    Normal,
    Probe(u64),
}

// === impl Breaker ===

impl Breaker {
    pub(super) fn new(metrics: BreakerMetrics) -> Self {
        let machine = Machine::new();
        metrics.show(machine.state);
        Self {
            calm: AtomicBool::new(true),
            machine: Mutex::new(machine),
            metrics,
        }
    }

    /// Leave to send a request now, or how long there will be none.
    pub(super) fn ask(&self, now: impl FnOnce() -> Instant) -> Result<Leave<'_>, Duration> {
        let pass = if self.calm.load(Ordering::Relaxed) {
            Pass::Normal
        } else {
            let mut machine = self.locked();
            let pass = machine.ask(now());
            self.show(&machine);
            pass?
        };
        Ok(Leave {
            breaker: self,
            pass,
            told: false,
        })
    }

    /// How long there will be no leave, if so.
    pub(super) fn closed_for(&self, now: Instant) -> Option<Duration> {
        match self.locked().state {
            State::Open { until } => Some(until.saturating_duration_since(now)),
            State::Closed { .. } | State::HalfOpen { .. } => None,
        }
        .filter(|left| !left.is_zero())
    }

    /// Whether anything is known against it.
    pub(super) fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    fn show(&self, machine: &Machine) {
        self.calm.store(machine.is_calm(), Ordering::Relaxed);
        self.metrics.show(machine.state);
    }

    fn locked(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Leave ===

impl Leave<'_> {
    /// The provider answered.
    pub(super) fn succeeded(mut self) {
        self.told = true;
        if self.pass == Pass::Normal && self.breaker.is_calm() {
            return;
        }
        let mut machine = self.breaker.locked();
        machine.succeeded(self.pass);
        self.breaker.show(&machine);
    }

    /// The provider failed. `random` is any number.
    pub(super) fn failed(mut self, terms: &config::Breaker, now: Instant, random: u64) {
        self.told = true;
        let mut machine = self.breaker.locked();
        machine.failed(self.pass, terms, now, random);
        self.breaker.show(&machine);
    }
}

impl Drop for Leave<'_> {
    /// Lets another probe go, if this was one.
    fn drop(&mut self) {
        if let (false, Pass::Probe(number)) = (self.told, self.pass) {
            self.breaker.locked().given_up(number);
        }
    }
}

// === impl Machine ===

impl Machine {
    fn new() -> Self {
        Self {
            state: State::Closed { failures: 0 },
            probes: 0,
        }
    }

    fn is_calm(&self) -> bool {
        self.state == State::Closed { failures: 0 }
    }

    fn ask(&mut self, now: Instant) -> Result<Pass, Duration> {
        match self.state {
            State::Closed { .. } => return Ok(Pass::Normal),
            State::Open { until } if now < until => return Err(until - now),
            State::HalfOpen { probe: Some(_) } => return Err(PROBE_PATIENCE),
            State::Open { .. } | State::HalfOpen { probe: None } => {}
        }
        self.probes += 1;
        self.state = State::HalfOpen {
            probe: Some(self.probes),
        };
        Ok(Pass::Probe(self.probes))
    }

    fn succeeded(&mut self, pass: Pass) {
        match (self.state, pass) {
            (State::Closed { .. }, Pass::Normal) => {}
            (State::HalfOpen { probe }, Pass::Probe(number)) if probe == Some(number) => {}
            _ => return,
        }
        self.state = State::Closed { failures: 0 };
    }

    fn failed(&mut self, pass: Pass, terms: &config::Breaker, now: Instant, random: u64) {
        match (self.state, pass) {
            (State::Closed { failures }, Pass::Normal) if failures + 1 < terms.failures.get() => {
                let failures = failures + 1;
                self.state = State::Closed { failures };
                return;
            }
            (State::Closed { .. }, Pass::Normal) => {}
            (State::HalfOpen { probe }, Pass::Probe(number)) if probe == Some(number) => {}
            _ => return,
        }
        let until = now + terms.cool_down + fraction(terms.cool_down / 5, random);
        self.state = State::Open { until };
    }

    fn given_up(&mut self, number: u64) {
        if self.state
            == (State::HalfOpen {
                probe: Some(number),
            })
        {
            self.state = State::HalfOpen { probe: None };
        }
    }
}

// === impl State ===

impl State {
    /// The names of all, as metrics have them.
    pub(crate) const NAMES: [&'static str; 3] = ["closed", "half_open", "open"];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Closed { .. } => "closed",
            Self::HalfOpen { .. } => "half_open",
            Self::Open { .. } => "open",
        }
    }
}

/// What is said to whoever asks while a probe is under way: nobody knows how long that takes.
const PROBE_PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
#[path = "breaker_tests.rs"]
mod tests;
