//! Starts again what should not have ended.

use std::future::Future;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep};

/// How long to wait before something is started again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Backoff {
    /// After the first failure.
    pub first: Duration,
    /// At most; each wait is twice the one before.
    pub most: Duration,
    /// What ran for as long is well, and its next failure a first one.
    pub well_after: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            most: Duration::from_secs(60),
            well_after: Duration::from_secs(300),
        }
    }
}

/// Runs what `start` gives, given how often it was started before, until it ends by itself. If it panics it is started
/// again; `failed` is told why, and in how long.
///
/// Safe to drop: what runs ends with it.
pub async fn supervise<T, F>(
    backoff: Backoff,
    mut start: impl FnMut(u64) -> F,
    mut failed: impl FnMut(&JoinError, Duration),
) -> T
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let mut wait = backoff.first;
    for starts in 0.. {
        let began = Instant::now();
        let mut tasks = JoinSet::new();
        tasks.spawn(start(starts));
        let error = match tasks.join_next().await {
            Some(Ok(done)) => return done,
            Some(Err(error)) => error,
            // There is one task in it, and it is taken out once.
            None => continue,
        };
        if began.elapsed() >= backoff.well_after {
            wait = backoff.first;
        }
        failed(&error, wait);
        sleep(wait).await;
        wait = wait.saturating_mul(2).min(backoff.most);
    }
    // As many starts as there are numbers.
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_panics_is_started_again_ever_later_until_it_ends_by_itself() {
        let backoff = Backoff {
            most: Duration::from_secs(4),
            ..Backoff::default()
        };
        let mut waits = Vec::new();
        let began = Instant::now();
        let start = |starts: u64| async move {
            assert!(starts >= 5, "not yet");
            starts
        };
        let starts = supervise(backoff, start, |_, wait| waits.push(wait.as_secs())).await;
        assert_eq!(starts, 5);
        assert_eq!(waits, [1, 2, 4, 4, 4]);
        assert_eq!(began.elapsed().as_secs(), 15);
    }

    #[tokio::test(start_paused = true)]
    async fn what_ran_well_for_a_while_is_soon_started_again() {
        let mut waits = Vec::new();
        let start = |starts: u64| async move {
            if starts == 2 {
                sleep(Duration::from_secs(400)).await;
            }
            assert!(starts >= 3, "not yet");
        };
        supervise(Backoff::default(), start, |_, wait| {
            waits.push(wait.as_secs());
        })
        .await;
        assert_eq!(waits, [1, 2, 1]);
    }
}
