//! What callers may have: requests at once, and requests in a minute.
//!
//! The rate is kept by the generic cell rate algorithm (ITU-T I.371): of a caller nothing is known but the time at which
//! it will have paid for what it asked so far. A minute's worth may be asked at once; it comes back evenly.
//!
//! ```text
//! period = minute ÷ rate          each request: paid_until = max(paid_until, now) + period
//! refused, if paid_until would be more than a minute from now
//! ```

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use farrier_ledger::Scope;
use tokio::time::Instant;

use crate::config::{CallerLimits, Config};
use crate::metrics::{Limit, Metrics};

/// What each caller may have, as one configuration says.
#[derive(Debug)]
pub(crate) struct Allowances {
    /// Of callers with a key.
    by_scope: HashMap<Scope, Allowance>,
    /// Of callers without.
    every: CallerLimits,
    used: Arc<Used>,
    metrics: Arc<Metrics>,
}

/// What callers have, whatever the configuration. Bounded: who has nothing under way and has paid is forgotten.
#[derive(Debug)]
pub(crate) struct Used {
    born: Instant,
    by_scope: Mutex<Callers>,
}

/// A request let in; ends with it.
#[derive(Debug)]
pub(crate) struct Admission(Arc<Usage>);

/// A caller had what it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Exceeded {
    #[error(
        "expected at most {max} requests of one caller at once, got one more; wait for a reply to end"
    )]
    Concurrency { max: usize },
    #[error(
        "expected at most {per_minute} requests of one caller in a minute, got one more; wait {retry_after:?}"
    )]
    Rate {
        per_minute: NonZeroU32,
        retry_after: Duration,
    },
}

#[derive(Debug)]
struct Allowance {
    name: Arc<str>,
    limits: CallerLimits,
    usage: Arc<Usage>,
}

#[derive(Debug)]
struct Callers {
    known: HashMap<Scope, Arc<Usage>>,
    /// Shared by those for whom there is no room.
    others: Arc<Usage>,
    swept: Instant,
}

#[derive(Debug, Default)]
struct Usage {
    under_way: AtomicUsize,
    /// In nanoseconds since [`Used::born`].
    paid_until: AtomicU64,
}

// === impl Allowances ===

impl Allowances {
    pub(crate) fn build(config: &Config, used: &Arc<Used>, metrics: &Arc<Metrics>) -> Self {
        let own = config.clients.iter().filter_map(|client| {
            let limits = CallerLimits {
                max_concurrent: client
                    .limits
                    .max_concurrent
                    .or(config.per_caller.max_concurrent),
                requests_per_minute: client
                    .limits
                    .requests_per_minute
                    .or(config.per_caller.requests_per_minute),
            };
            let scope = client.scope();
            let usage = (!limits.is_none()).then(|| used.of(&scope, Instant::now()))?;
            let name = client.name.as_str().into();
            Some((
                scope,
                Allowance {
                    name,
                    limits,
                    usage,
                },
            ))
        });
        Self {
            by_scope: own.collect(),
            every: config.per_caller.clone(),
            used: Arc::clone(used),
            metrics: Arc::clone(metrics),
        }
    }

    /// Lets a request in, or not. Without limits this is nothing.
    pub(crate) fn admit(&self, scope: &Scope) -> Result<Option<Admission>, Exceeded> {
        if self.every.is_none() && self.by_scope.is_empty() {
            return Ok(None);
        }
        let now = Instant::now();
        let (limits, usage, name) = match self.by_scope.get(scope) {
            Some(own) => (&own.limits, Arc::clone(&own.usage), &*own.name),
            None if self.every.is_none() => return Ok(None),
            None => (&self.every, self.used.of(scope, now), ""),
        };
        let now = self.used.since_born(now);
        let admitted = usage.admit(limits, now);
        admitted.map(Some).inspect_err(|exceeded| {
            let limit = match exceeded {
                Exceeded::Concurrency { .. } => Limit::Concurrency,
                Exceeded::Rate { .. } => Limit::Rate,
            };
            self.metrics.care.limited(name, limit);
        })
    }
}

// === impl Used ===

impl Used {
    pub(crate) fn new(now: Instant) -> Self {
        let callers = Callers {
            known: HashMap::new(),
            others: Arc::default(),
            swept: now,
        };
        Self {
            born: now,
            by_scope: Mutex::new(callers),
        }
    }

    fn of(&self, scope: &Scope, now: Instant) -> Arc<Usage> {
        let mut callers = self.by_scope.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(usage) = callers.known.get(scope) {
            return Arc::clone(usage);
        }
        if callers.known.len() >= MAX_CALLERS {
            self.sweep(&mut callers, now);
        }
        if callers.known.len() >= MAX_CALLERS {
            return Arc::clone(&callers.others);
        }
        Arc::clone(callers.known.entry(scope.clone()).or_default())
    }

    /// Forgets whoever is as good as new; at most once a second, since all are looked at.
    fn sweep(&self, callers: &mut Callers, now: Instant) {
        if now.saturating_duration_since(callers.swept) < SWEEP {
            return;
        }
        callers.swept = now;
        let now = self.since_born(now);
        let busy = |usage: &Arc<Usage>| {
            Arc::strong_count(usage) > 1 || usage.paid_until.load(Ordering::Relaxed) > now
        };
        callers.known.retain(|_, usage| busy(usage));
    }

    fn since_born(&self, now: Instant) -> u64 {
        nanos(now.saturating_duration_since(self.born))
    }
}

// === impl Usage ===

impl Usage {
    fn admit(self: Arc<Self>, limits: &CallerLimits, now: u64) -> Result<Admission, Exceeded> {
        if let Some(max) = limits.max_concurrent {
            let max = max.get();
            let one_more = |under_way| (under_way < max).then_some(under_way + 1);
            let entered =
                self.under_way
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
            entered.map_err(|_| Exceeded::Concurrency { max })?;
        } else {
            self.under_way.fetch_add(1, Ordering::Relaxed);
        }
        let admission = Admission(Arc::clone(&self));
        if let Some(per_minute) = limits.requests_per_minute {
            self.pay(per_minute, now)
                .map_err(|retry_after| Exceeded::Rate {
                    per_minute,
                    retry_after,
                })?;
        }
        Ok(admission)
    }

    /// Pays for a request, or says after how long it could.
    fn pay(&self, per_minute: NonZeroU32, now: u64) -> Result<(), Duration> {
        let mut paid_until = self.paid_until.load(Ordering::Relaxed);
        loop {
            let next = next_paid_until(paid_until, now, per_minute)?;
            let (success, failure) = (Ordering::Relaxed, Ordering::Relaxed);
            match self
                .paid_until
                .compare_exchange_weak(paid_until, next, success, failure)
            {
                Ok(_) => return Ok(()),
                Err(by_another) => paid_until = by_another,
            }
        }
    }
}

/// The algorithm itself, in nanoseconds.
fn next_paid_until(paid_until: u64, now: u64, per_minute: NonZeroU32) -> Result<u64, Duration> {
    let period = MINUTE_NANOS / u64::from(per_minute.get());
    let next = paid_until.max(now) + period;
    match next.checked_sub(now + MINUTE_NANOS) {
        None | Some(0) => Ok(next),
        Some(early) => Err(Duration::from_nanos(early)),
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 2)
}

const MINUTE_NANOS: u64 = 60_000_000_000;

/// Callers that are told apart; those without a key name their sessions as they like.
const MAX_CALLERS: usize = 10_000;
const SWEEP: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limits(max_concurrent: usize, per_minute: u32) -> CallerLimits {
        let max_concurrent = max_concurrent.try_into().ok();
        CallerLimits {
            max_concurrent,
            requests_per_minute: NonZeroU32::new(per_minute),
        }
    }

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_minute_s_worth_may_be_asked_at_once_and_comes_back_evenly() {
        let (usage, limits) = (Arc::<Usage>::default(), limits(0, 6));
        let admit = |now| Arc::clone(&usage).admit(&limits, now).map(drop);
        for _ in 0..6 {
            admit(0).unwrap();
        }
        let Err(Exceeded::Rate { retry_after, .. }) = admit(SECOND) else {
            panic!("a seventh was let in");
        };
        assert_eq!(retry_after, Duration::from_secs(9));
        assert!(admit(10 * SECOND - 1).is_err());
        admit(10 * SECOND).unwrap();
        assert!(admit(10 * SECOND).is_err());
    }

    #[test]
    fn as_many_at_once_as_may_be_and_a_refused_one_takes_no_room() {
        let (usage, limits) = (Arc::<Usage>::default(), limits(2, 0));
        let admit = || Arc::clone(&usage).admit(&limits, 0);
        let first = admit().unwrap();
        let _second = admit().unwrap();
        assert_eq!(admit().unwrap_err(), Exceeded::Concurrency { max: 2 });
        drop(first);
        let _third = admit().unwrap();
        assert!(admit().is_err());
    }

    #[test]
    fn one_refused_for_its_rate_is_not_under_way() {
        let (usage, limits) = (Arc::<Usage>::default(), limits(1, 1));
        drop(Arc::clone(&usage).admit(&limits, 0).unwrap());
        for _ in 0..3 {
            let refused = Arc::clone(&usage).admit(&limits, 0).unwrap_err();
            assert!(matches!(refused, Exceeded::Rate { .. }), "{refused:?}");
        }
    }

    #[test]
    fn callers_are_forgotten_when_there_is_nothing_to_remember() {
        let now = Instant::now();
        let used = Used::new(now);
        let scope = |n: usize| Scope::new(n.to_string());
        let kept = used.of(&scope(0), now);
        for n in 1..MAX_CALLERS {
            used.of(&scope(n), now);
        }
        let crowded = used.of(&scope(MAX_CALLERS), now);
        let next = used.of(&scope(MAX_CALLERS + 1), now);
        assert!(Arc::ptr_eq(&crowded, &next), "no room, and just swept");
        let later = now + SWEEP;
        let found = used.of(&scope(MAX_CALLERS), later);
        assert!(!Arc::ptr_eq(&crowded, &found), "there is room again");
        let again = used.of(&scope(0), later);
        assert!(Arc::ptr_eq(&kept, &again), "one that is in use is kept");
    }

    proptest! {
        /// In no minute more than twice the rate, over any longer time no more than the rate and one minute's worth.
        #[test]
        fn the_rate_is_kept(rate in 1..200u32, gaps in prop::collection::vec(0..5_000u64, 1..500)) {
            let per_minute = NonZeroU32::new(rate).unwrap();
            let (mut now, mut paid_until, mut admitted) = (0, 0, 0u64);
            for gap in gaps {
                now += gap * 1_000_000;
                if let Ok(next) = next_paid_until(paid_until, now, per_minute) {
                    paid_until = next;
                    admitted += 1;
                }
                let period = MINUTE_NANOS / u64::from(rate);
                prop_assert!(admitted <= (now + MINUTE_NANOS) / period);
            }
        }

        /// After the wait that a refusal names, and not before, a request is let in.
        #[test]
        fn a_refusal_names_the_wait_to_the_nanosecond(rate in 1..200u32, now in 0..1u64 << 40) {
            let per_minute = NonZeroU32::new(rate).unwrap();
            let mut paid_until = 0;
            let wait = loop {
                match next_paid_until(paid_until, now, per_minute) {
                    Ok(next) => paid_until = next,
                    Err(wait) => break nanos(wait),
                }
            };
            prop_assert!(next_paid_until(paid_until, now + wait - 1, per_minute).is_err());
            prop_assert!(next_paid_until(paid_until, now + wait, per_minute).is_ok());
        }
    }
}
