//! How often a provider may be asked again, measured by how often it is asked.
//!
//! ```text
//! balance ──┬── a request: + percent of a retry ──┐
//!           ├── time: + per_minute, over a minute ├── never above per_minute
//!           └── a retry: − 1, never below 0
//! ```
//!
//! So over any time there are no more retries than `per_minute`, and as many again for each minute of it, and the given
//! percentage of its requests: an outage is met with little more than what was asked anyway.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Retry;

/// A provider's balance of retries. Requests pay in without a lock, and without a write once it is full.
#[derive(Debug)]
pub(super) struct Budget {
    /// In hundredths of a retry.
    balance: AtomicU64,
    /// Until when time has paid in.
    paid_until: Mutex<Instant>,
}

// === impl Budget ===

impl Budget {
    /// A full one.
    pub(super) fn new(terms: &Retry, now: Instant) -> Self {
        Self {
            balance: AtomicU64::new(full(terms)),
            paid_until: Mutex::new(now),
        }
    }

    /// A request is sent for the first time.
    pub(super) fn asked(&self, terms: &Retry) {
        let full = full(terms);
        if self.balance.load(Ordering::Relaxed) < full {
            self.pay_in(u64::from(terms.percent), full);
        }
    }

    /// Takes a retry, if there is one.
    pub(super) fn take(&self, terms: &Retry, now: Instant) -> bool {
        self.pay_for_time(terms, now);
        let less = |balance: u64| balance.checked_sub(RETRY);
        self.balance
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .is_ok()
    }

    fn pay_for_time(&self, terms: &Retry, now: Instant) {
        let mut paid_until = self
            .paid_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let passed = now.saturating_duration_since(*paid_until);
        if passed >= MINUTE {
            // A minute's worth is as much as there can be.
            *paid_until = now;
            self.pay_in(full(terms), full(terms));
            return;
        }
        let micros = u64::try_from(passed.as_micros()).unwrap_or(u64::MAX);
        let due = full(terms) * micros / MINUTE_MICROS;
        // What is less than a hundredth is paid when it has become one.
        if due > 0 {
            let paid_for = (due * MINUTE_MICROS).div_ceil(full(terms));
            *paid_until += Duration::from_micros(paid_for.min(micros));
            self.pay_in(due, full(terms));
        }
    }

    fn pay_in(&self, amount: u64, full: u64) {
        let more = |balance: u64| (balance < full).then(|| (balance + amount).min(full));
        // Not updated means full.
        let _balance = self
            .balance
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }
}

fn full(terms: &Retry) -> u64 {
    u64::from(terms.per_minute) * RETRY
}

/// A retry, in hundredths of one.
const RETRY: u64 = 100;
const MINUTE: Duration = Duration::from_secs(60);
const MINUTE_MICROS: u64 = 60_000_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn terms(percent: u32, per_minute: u32) -> Retry {
        Retry {
            percent,
            per_minute,
            ..Retry::default()
        }
    }

    #[test]
    fn a_fifth_of_the_requests_may_be_sent_again() {
        let (terms, now) = (terms(20, 1), Instant::now());
        let budget = Budget::new(&terms, now);
        assert!(budget.take(&terms, now), "what is there at the start");
        for _ in 0..4 {
            budget.asked(&terms);
            assert!(!budget.take(&terms, now));
        }
        budget.asked(&terms);
        assert!(budget.take(&terms, now), "the fifth request pays for one");
        assert!(!budget.take(&terms, now));
    }

    #[test]
    fn time_pays_for_some_and_saves_up_no_more_than_a_minute_s() {
        let (terms, start) = (terms(0, 6), Instant::now());
        let budget = Budget::new(&terms, start);
        let taken = |now| {
            std::iter::repeat_with(|| budget.take(&terms, now))
                .take_while(|taken| *taken)
                .count()
        };
        assert_eq!(taken(start), 6);
        assert_eq!(taken(start + Duration::from_secs(9)), 0);
        assert_eq!(taken(start + Duration::from_secs(10)), 1);
        assert_eq!(taken(start + Duration::from_secs(3600)), 6);
    }

    #[test]
    fn time_that_is_asked_for_in_small_pieces_is_paid_in_full() {
        let (terms, start) = (terms(0, 10), Instant::now());
        let budget = Budget::new(&terms, start);
        // Each piece is worth almost two hundredths.
        let taken = (0..=510)
            .filter(|piece| budget.take(&terms, start + Duration::from_millis(119) * *piece));
        assert_eq!(
            taken.count(),
            10 + 10,
            "what there was, and a minute's worth"
        );
    }

    #[test]
    fn none_is_none() {
        let (terms, now) = (terms(100, 0), Instant::now());
        let budget = Budget::new(&terms, now);
        budget.asked(&terms);
        assert!(!budget.take(&terms, now + MINUTE));
    }

    proptest! {
        #[test]
        fn it_is_never_exceeded(
            percent in 0..=100u32,
            per_minute in 0..50u32,
            steps in prop::collection::vec((any::<bool>(), 0..2000u64), 1..400),
        ) {
            let (terms, start) = (terms(percent, per_minute), Instant::now());
            let budget = Budget::new(&terms, start);
            let (mut now, mut asked, mut taken) = (start, 0.0, 0.0);
            for (ask, millis) in steps {
                now += Duration::from_millis(millis);
                if ask {
                    budget.asked(&terms);
                    asked += 1.0;
                } else if budget.take(&terms, now) {
                    taken += 1.0;
                }
                let minutes = (now - start).as_secs_f64() / 60.0;
                let most = f64::from(per_minute) * (1.0 + minutes) + asked * f64::from(percent) / 100.0;
                prop_assert!(taken <= most + 1e-6, "{taken} of {most}");
            }
        }
    }
}
