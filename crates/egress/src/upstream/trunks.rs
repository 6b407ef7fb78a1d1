//! The HTTP/2 connections to one destination, and those that are being made.
//!
//! ```text
//! a request ─▶ a place on the first connection that has one
//!          ├─▶ a place on one that is being made, if fewer wait for it than it will carry ─▶ that, or its failure
//!          ├─▶ one more is made
//!          └─▶ there are as many as there may be: it waits until a place is free
//! ```

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

use super::Unreached;
use super::trunk::{Berth, MAX_STREAMS, Trunk};

#[derive(Debug, Default)]
pub(super) struct Trunks {
    state: Mutex<State>,
    /// The destination speaks HTTP/1.1 alone.
    are_refused: AtomicBool,
    freed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    open: Vec<Arc<Trunk>>,
    making: Vec<Making>,
    /// What the latest of them carries, and so the next will; none yet if zero.
    carries: usize,
    made: u64,
}

/// A connection that is being made, and who waits for it.
#[derive(Debug)]
struct Making {
    id: u64,
    waiting: Vec<oneshot::Sender<Given>>,
}

/// What a connection that was made has for one who waited: none if it has no place for him, who may look again.
pub(super) type Given = Result<Option<Berth>, Unreached>;

/// What there is for somebody who looks for a place.
#[derive(Debug)]
pub(super) enum Found {
    Berth(Berth),
    Full,
    /// A connection is to be made and given under this number.
    Make(u64, oneshot::Receiver<Given>),
    Wait(oneshot::Receiver<Given>),
}

/// Connections to one destination at once.
const MAX_TRUNKS: usize = 16;

// === impl Trunks ===

impl Trunks {
    /// A place, or the wait for one.
    pub(super) fn find(&self) -> Found {
        let mut state = self.state();
        state.open.retain(|trunk| trunk.is_open());
        if let Some(berth) = state.open.iter().find_map(Trunk::berth) {
            return Found::Berth(berth);
        }
        let (sender, receiver) = oneshot::channel();
        let carries = match state.carries {
            0 => MAX_STREAMS,
            carries => carries,
        };
        let room = |making: &&mut Making| making.waiting.len() < carries;
        if let Some(making) = state.making.iter_mut().find(room) {
            making.waiting.push(sender);
            return Found::Wait(receiver);
        }
        if state.open.len() + state.making.len() >= MAX_TRUNKS {
            return Found::Full;
        }
        state.made += 1;
        let id = state.made;
        let waiting = vec![sender];
        state.making.push(Making { id, waiting });
        Found::Make(id, receiver)
    }

    /// Gives those who waited for a connection what came of it.
    pub(super) fn give(&self, id: u64, made: Result<Option<Arc<Trunk>>, Unreached>) {
        let mut state = self.state();
        let Some(at) = state.making.iter().position(|making| making.id == id) else {
            return;
        };
        let Making { waiting, .. } = state.making.swap_remove(at);
        if let Ok(Some(trunk)) = &made {
            state.carries = trunk.carries();
            state.open.push(Arc::clone(trunk));
        }
        // Their places are taken before anybody else looks.
        let gifts: Vec<Given> = match &made {
            Ok(Some(trunk)) => waiting.iter().map(|_| Ok(trunk.berth())).collect(),
            Ok(None) => waiting.iter().map(|_| Ok(None)).collect(),
            Err(fault) => waiting.iter().map(|_| Err(fault.clone())).collect(),
        };
        drop(state);
        for (waiting, gift) in waiting.into_iter().zip(gifts) {
            waiting.send(gift).ok(); // who has left leaves his place free
        }
        self.freed.notify_waiters(); // one less is being made
    }

    /// What is rung when there may be a place again.
    pub(super) fn free(&self) -> Arc<Notify> {
        Arc::clone(&self.freed)
    }

    /// Notes that the destination does not speak HTTP/2.
    pub(super) fn refuse(&self) {
        self.are_refused.store(true, Ordering::Release);
    }

    pub(super) fn are_refused(&self) -> bool {
        self.are_refused.load(Ordering::Acquire)
    }

    /// Closes what has carried nothing since the last time or is no longer open; whether anything is left.
    pub(super) fn sweep(&self) -> bool {
        let mut state = self.state();
        let (kept, closed): (Vec<_>, Vec<_>) = std::mem::take(&mut state.open)
            .into_iter()
            .partition(|trunk| trunk.is_open() && trunk.is_needed());
        let left = !kept.is_empty() || !state.making.is_empty();
        state.open = kept;
        drop(state);
        drop(closed); // without the lock
        left
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
