//! Connections to one provider that wait for their next request.
//!
//! HTTP/1.1: a stack, the latest on top, so that a quiet hour shrinks it. An idle connection is polled by nobody; whether
//! the provider closed it is looked at when it is taken, and now and then by a task that lives as long as there are any.
//! HTTP/2: one connection for all, run by a task of its own.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use farrier_serve::Tracker;
use hyper::client::conn::http2::SendRequest;
use tokio::sync::watch;

use super::Segments;
use super::link::Link;

/// The idle connections of one provider.
#[derive(Debug)]
pub(super) struct Pool {
    stack: Mutex<Stack>,
    shared: Mutex<Option<SendRequest<Segments>>>,
    tasks: Tracker,
    /// Closed with the pool, which ends its sweeper.
    alive: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Stack {
    /// Each with the sweep after which it was put here.
    idle: VecDeque<(u64, Box<Link>)>,
    sweeps: u64,
    swept: bool,
}

// === impl Pool ===

impl Pool {
    /// An empty pool, whose sweeper will run in `tasks`.
    pub(super) fn new(tasks: Tracker) -> Arc<Self> {
        Arc::new(Self {
            stack: Mutex::default(),
            shared: Mutex::default(),
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
        let unswept = !std::mem::replace(&mut stack.swept, true);
        drop(stack);
        drop(beyond); // closed without the lock
        if unswept {
            drop(
                self.tasks
                    .spawn(sweep(Arc::downgrade(self), self.alive.subscribe())),
            );
        }
    }

    /// The connection that all requests share, if the provider speaks HTTP/2 and there is one.
    pub(super) fn shared(&self) -> Option<SendRequest<Segments>> {
        let mut shared = lock(&self.shared);
        if shared.as_ref().is_some_and(SendRequest::is_closed) {
            *shared = None;
        }
        shared.clone()
    }

    /// Shares a new HTTP/2 connection, unless another came first: then this one ends with its own request.
    pub(super) fn share(&self, sender: &SendRequest<Segments>) {
        let mut shared = lock(&self.shared);
        if shared.as_ref().is_none_or(SendRequest::is_closed) {
            *shared = Some(sender.clone());
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
        stack.swept = !stack.idle.is_empty();
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

/// A poisoned lock is still a list of connections.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Idle connections kept for one provider.
const MAX_IDLE: usize = 256;

/// Between two looks at idle connections.
const SWEEP: Duration = Duration::from_secs(15);

/// Sweeps that an idle connection survives: 90 seconds. Providers close theirs on their own terms.
const MAX_SWEEPS: u64 = 6;

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
