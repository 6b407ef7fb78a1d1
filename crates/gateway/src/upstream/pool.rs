//! Connections to one provider that wait for their next request.
//!
//! HTTP/1.1: a stack, the latest on top, so that a quiet hour shrinks it. An idle connection is polled by nobody; whether
//! the provider closed it is looked at when it is taken, and now and then by a task that lives as long as there are any.
//! HTTP/2: few connections that are shared, each run by a task of its own.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use farrier_serve::Tracker;
use tokio::sync::watch;

use super::UpstreamFault;
use super::link::Link;
use super::trunk::Trunk;
use super::trunks::Trunks;

/// The idle connections of one provider.
#[derive(Debug)]
pub(super) struct Pool {
    stack: Mutex<Stack>,
    pub(super) trunks: Trunks,
    tasks: Tracker,
    /// Closed with the pool, which ends its sweeper.
    alive: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Stack {
    /// Each with the sweep after which it was put here.
    idle: VecDeque<(usize, Box<Link>)>,
    sweeps: usize,
    swept: bool,
}

// === impl Pool ===

impl Pool {
    /// An empty pool, whose sweeper will run in `tasks`.
    pub(super) fn new(tasks: Tracker) -> Arc<Self> {
        Arc::new(Self {
            stack: Mutex::default(),
            trunks: Trunks::default(),
            tasks,
            alive: watch::Sender::new(()),
        })
    }

    /// An idle connection that is still open, if there is one.
    pub(super) fn take(&self) -> Option<Box<Link>> {
        loop {
            let (_, mut link) = self.stack().idle.pop_back()?;
            if link.is_idle() {
                return Some(link);
            }
        }
    }

    /// Keeps a connection for the next request, if its reply is over and the provider keeps it open too.
    pub(super) fn put(self: &Arc<Self>, mut link: Box<Link>) {
        if !link.is_idle() {
            return;
        }
        let mut stack = self.stack();
        let sweeps = stack.sweeps;
        stack.idle.push_back((sweeps, link));
        let beyond = (stack.idle.len() > MAX_IDLE).then(|| stack.idle.pop_front());
        drop(stack);
        drop(beyond); // closed without the lock
        self.keep_swept();
    }

    /// Gives what came of making a shared connection to those who wait for it.
    pub(super) fn give(self: &Arc<Self>, id: u64, made: Result<Option<Arc<Trunk>>, UpstreamFault>) {
        let is_made = matches!(made, Ok(Some(_)));
        self.trunks.give(id, made);
        if is_made {
            self.keep_swept();
        }
    }

    /// Starts the sweeper, if it is not running.
    fn keep_swept(self: &Arc<Self>) {
        let unswept = !std::mem::replace(&mut self.stack().swept, true);
        if unswept {
            drop(
                self.tasks
                    .spawn(sweep(Arc::downgrade(self), self.alive.subscribe())),
            );
        }
    }

    /// Closes what was idle for too long or is no longer open; whether anything is left.
    fn sweep(&self) -> bool {
        let mut stack = self.stack();
        stack.sweeps += 1;
        let now = stack.sweeps;
        let mut closed = Vec::new();
        for (since, mut link) in std::mem::take(&mut stack.idle) {
            if now - since <= MAX_SWEEPS && link.is_idle() {
                stack.idle.push_back((since, link));
            } else {
                closed.push(link);
            }
        }
        // Looked at while whoever adds one waits to ask whether it is swept.
        let are_trunks = self.trunks.sweep(MAX_SWEEPS);
        stack.swept = !stack.idle.is_empty() || are_trunks;
        let left = stack.swept;
        drop(stack);
        drop(closed); // without the lock
        left
    }

    fn stack(&self) -> MutexGuard<'_, Stack> {
        lock(&self.stack)
    }
}

/// Sweeps until nothing is idle, or the pool is gone.
async fn sweep(pool: Weak<Pool>, mut alive: watch::Receiver<()>) {
    loop {
        // Nothing is ever sent, so a change is the end.
        let pause = tokio::time::timeout(SWEEP, alive.changed());
        let ended = pause.await.is_ok();
        let left = pool.upgrade().is_some_and(|pool| pool.sweep());
        if ended || !left {
            return;
        }
    }
}

/// A poisoned lock still guards connections.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Idle connections kept for one provider.
const MAX_IDLE: usize = 256;

/// Between two looks at idle connections.
const SWEEP: Duration = Duration::from_secs(15);

/// Sweeps that an idle connection survives: 90 seconds. Providers close theirs on their own terms.
const MAX_SWEEPS: usize = 6;

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
