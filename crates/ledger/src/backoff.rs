//! How long to wait before trying again: twice as long each time up to a bound, and never in step
//! with the other gateways of a fleet.

use std::time::Duration;

/// Waits between attempts that fail.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    /// From `first` to `most`.
    pub(crate) const fn new(first: Duration, most: Duration) -> Self {
        Self {
            first,
            most,
            next: first,
        }
    }

    /// How long to wait now: between half of what is due and all of it.
    pub(crate) fn next(&mut self) -> Duration {
        let due = self.next;
        self.next = due.saturating_mul(2).min(self.most);
        due / 2 + due.mul_f64(f64::from(random()) / f64::from(u16::MAX)) / 2
    }

    /// It worked: the next failure is a first one.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

/// Without randomness from the operating system gateways may meet, which is no more than a pity.
fn random() -> u16 {
    let mut bytes = [0; 2];
    getrandom::fill(&mut bytes).map_or(u16::MAX, |()| u16::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_bound_and_begin_again_after_a_success() {
        let (first, most) = (Duration::from_millis(100), Duration::from_millis(450));
        let mut backoff = Backoff::new(first, most);
        for due in [100, 200, 400, 450, 450].map(Duration::from_millis) {
            let wait = backoff.next();
            assert!(wait >= due / 2 && wait <= due, "{wait:?} of {due:?}");
        }
        backoff.reset();
        assert!(backoff.next() <= first);
    }

    #[test]
    fn two_that_fail_together_do_not_try_again_together() {
        let first = Duration::from_secs(1);
        let mut waits: Vec<Duration> = (0..8).map(|_| Backoff::new(first, first).next()).collect();
        waits.dedup();
        assert!(waits.len() > 1, "{waits:?}");
    }
}
