//! How often the harness is asked, and for how long.

use std::time::Duration;

/// The durations and bounds of a watcher.
///
/// Between two rounds there is a wait of at least the smallest of these intervals, and a round makes at most one list,
/// then [`most_approvals`](Self::most_approvals) approvals. Rounds that a sighting brings forward keep
/// [`sighting_gap`](Self::sighting_gap) between them. That bounds the calls of any minute, whatever the harness does.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pace {
    /// When fast mode ends, even if nothing has paired.
    pub fast_deadline: Duration,
    /// When the watcher ends; never, if absent.
    pub deadline: Option<Duration>,
    /// Between rounds in fast mode.
    pub fast_interval: Duration,
    /// Between quiet rounds in fast mode once something has paired.
    pub settling_interval: Duration,
    /// Between rounds in slow mode. A client's patience is some ten seconds.
    pub slow_interval: Duration,
    /// How long one call of the harness's command may take.
    pub call_timeout: Duration,
    /// Quiet rounds after which what has paired is all there is.
    pub quiet_rounds: u32,
    /// For as many rounds after a new request, the next comes early: an upgrade often brings another.
    pub reentry_rounds: u32,
    /// How early.
    pub reentry_interval: Duration,
    /// Approvals of one round, the longest untried first.
    pub most_approvals: usize,
    /// Between rounds in fast mode while the state directory tells of requests.
    pub watched_fast_interval: Duration,
    /// The same in slow mode. Less than the time for which a request waits (five minutes), so that one that nobody saw
    /// is found before it is gone.
    pub watched_slow_interval: Duration,
    /// Between the starts of two rounds that sightings bring forward.
    pub sighting_gap: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            fast_deadline: Duration::from_secs(600),
            deadline: Some(Duration::from_secs(8 * 3600)),
            fast_interval: Duration::from_secs(1),
            settling_interval: Duration::from_secs(5),
            slow_interval: Duration::from_secs(5),
            call_timeout: Duration::from_secs(10),
            quiet_rounds: 4,
            reentry_rounds: 5,
            reentry_interval: Duration::from_secs(1),
            most_approvals: 8,
            watched_fast_interval: Duration::from_secs(10),
            watched_slow_interval: Duration::from_secs(120),
            sighting_gap: Duration::from_secs(1),
        }
    }
}

impl Pace {
    /// Most calls of the harness's command in any minute, list and approvals together, however fast they are.
    #[must_use]
    pub fn most_calls_per_minute(&self) -> u64 {
        let least = [
            self.fast_interval,
            self.settling_interval,
            self.slow_interval,
            self.reentry_interval,
            self.watched_fast_interval,
            self.watched_slow_interval,
        ];
        let rounds =
            |gap: Duration| 60_000 / u64::try_from(gap.as_millis()).unwrap_or(u64::MAX).max(1) + 1;
        let timed = least.into_iter().min().map_or(0, rounds);
        let calls = 2 + u64::try_from(self.most_approvals).unwrap_or(u64::MAX - 2);
        (timed + rounds(self.sighting_gap)).saturating_mul(calls)
    }
}

/// A duration as the environment gives it: seconds, fractions allowed. What is blank, no number, or not above zero means
/// the default.
#[must_use]
pub fn seconds_or(text: Option<&str>, default: Duration) -> Duration {
    let seconds = text.and_then(|text| text.trim().parse::<f64>().ok());
    let seconds = seconds.filter(|seconds| *seconds > 0.0);
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|duration| !duration.is_zero())
        .unwrap_or(default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ap_15_what_is_no_number_of_seconds_above_zero_means_the_default() {
        let default = Duration::from_secs(600);
        for text in ["abc", "-1", "0", "", "  ", "NaN", "inf", "1e400", "1e-30"] {
            assert_eq!(seconds_or(Some(text), default), default, "{text:?}");
        }
        assert_eq!(seconds_or(None, default), default);
        assert_eq!(seconds_or(Some("0.5"), default), Duration::from_millis(500));
        assert_eq!(seconds_or(Some(" 30 "), default), Duration::from_secs(30));
    }
}
