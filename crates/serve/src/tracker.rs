//! The one place from which tasks are spawned.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::quiet::Quiet;

/// Spawns tasks, knows which still run, and tells them when to wind down.
///
/// Two signals, in order: *draining* (finish what you have, take nothing new) and *cut* (the deadline passed). A task
/// spawned here is dropped at its next await once it is cut. Clones share both signals and the tasks.
#[derive(Clone, Debug, Default)]
pub struct Tracker {
    tasks: TaskTracker,
    draining: CancellationToken,
    cut: CancellationToken,
}

impl Tracker {
    /// A tracker without tasks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Spawns `task`; its handle yields `None` if it was cut.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<Option<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let cut = Quiet::new(Box::pin(self.cut.clone().cancelled_owned()));
        let task = self.tasks.track_future(async move {
            tokio::select! {
                biased;
                done = task => Some(done),
                () = cut => None,
            }
        });
        #[expect(
            clippy::disallowed_methods,
            reason = "the tracked spawn that all others go through"
        )]
        tokio::spawn(task)
    }

    /// Asks everything to finish what it has and take nothing new.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// Whether [`drain`](Self::drain) was called.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Resolves once [`drain`](Self::drain) was called. Safe to drop.
    pub async fn draining(&self) {
        self.draining.cancelled().await;
    }

    /// Drops every task at its next await.
    pub fn cut(&self) {
        self.cut.cancel();
    }

    /// Whether [`cut`](Self::cut) was called: what ends now was ended by us, not by a peer.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.cut.is_cancelled()
    }

    /// Waits until no task runs, at most `within`; returns how many still do.
    pub async fn idle(&self, within: Duration) -> usize {
        self.tasks.close();
        match tokio::time::timeout(within, self.tasks.wait()).await {
            Ok(()) => 0,
            Err(_) => self.tasks.len(),
        }
    }
}

/// Lets hyper spawn its HTTP/2 streams and pooled connections under the same tracker.
impl<F> hyper::rt::Executor<F> for Tracker
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, task: F) {
        drop(self.spawn(task));
    }
}
