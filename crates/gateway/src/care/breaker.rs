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
//! makes way for another; so does one that has had none for a whole cool-down, since an answer may take minutes and the
//! others need not wait for it. What is heard of requests that were let through in an earlier state, or when it was closed
//! the time before, counts for nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::backoff::fraction;
use crate::config;
use crate::metrics::BreakerMetrics;

/// A breaker that many requests share.
#[derive(Debug)]
pub(super) struct Breaker {
    /// The machine's [`Calm`]: the usual case, without a lock.
    calm: AtomicU64,
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
    /// From when on the present probe is not waited for.
    probed_until: Option<Instant>,
    /// How long it was opened for last.
    cool_down: Duration,
    /// How often it was closed again.
    epoch: u64,
}

/// Twice the epoch, and one more if it is closed and nothing has failed since the last success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Calm(u64);

/// As what a request was let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    /// In this epoch.
    Normal(u64),
    Probe(u64),
}

// === impl Breaker ===

impl Breaker {
    pub(super) fn new(metrics: BreakerMetrics) -> Self {
        let machine = Machine::new();
        metrics.show(machine.state);
        Self {
            calm: AtomicU64::new(machine.calm().0),
            machine: Mutex::new(machine),
            metrics,
        }
    }

    /// Leave to send a request now, or how long there will be none.
    pub(super) fn ask(&self, now: impl FnOnce() -> Instant) -> Result<Leave<'_>, Duration> {
        let calm = self.calm();
        let pass = if calm.is_calm() {
            Pass::Normal(calm.epoch())
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
        self.calm().is_calm()
    }

    fn calm(&self) -> Calm {
        Calm(self.calm.load(Ordering::Relaxed))
    }

    fn show(&self, machine: &Machine) {
        self.calm.store(machine.calm().0, Ordering::Relaxed);
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
        let calm = self.breaker.calm();
        if calm.is_calm() && self.pass == Pass::Normal(calm.epoch()) {
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
            probed_until: None,
            cool_down: Duration::ZERO,
            epoch: 0,
        }
    }

    fn calm(&self) -> Calm {
        let is_calm = self.state == State::Closed { failures: 0 };
        Calm(self.epoch << 1 | u64::from(is_calm))
    }

    fn ask(&mut self, now: Instant) -> Result<Pass, Duration> {
        match self.state {
            State::Closed { .. } => return Ok(Pass::Normal(self.epoch)),
            State::Open { until } if now < until => return Err(until - now),
            State::HalfOpen { probe: Some(_) }
                if self.probed_until.is_none_or(|until| now < until) =>
            {
                return Err(PROBE_PATIENCE);
            }
            State::Open { .. } | State::HalfOpen { .. } => {}
        }
        self.probes += 1;
        self.probed_until = now.checked_add(self.cool_down);
        self.state = State::HalfOpen {
            probe: Some(self.probes),
        };
        Ok(Pass::Probe(self.probes))
    }

    fn succeeded(&mut self, pass: Pass) {
        match (self.state, pass) {
            (State::Closed { .. }, Pass::Normal(epoch)) if epoch == self.epoch => {}
            (State::HalfOpen { probe }, Pass::Probe(number)) if probe == Some(number) => {
                self.epoch += 1;
            }
            _ => return,
        }
        self.state = State::Closed { failures: 0 };
    }

    fn failed(&mut self, pass: Pass, terms: &config::Breaker, now: Instant, random: u64) {
        match (self.state, pass) {
            (State::Closed { failures }, Pass::Normal(epoch)) if epoch == self.epoch => {
                let failures = failures + 1;
                if failures < terms.failures.get() {
                    self.state = State::Closed { failures };
                    return;
                }
            }
            (State::HalfOpen { probe }, Pass::Probe(number)) if probe == Some(number) => {}
            _ => return,
        }
        self.cool_down = terms.cool_down;
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

// === impl Calm ===

impl Calm {
    fn is_calm(self) -> bool {
        self.0 & 1 == 1
    }

    fn epoch(self) -> u64 {
        self.0 >> 1
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
