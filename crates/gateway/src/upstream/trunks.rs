//! The HTTP/2 connections to one provider, and those that are being made.
//!
//! ```text
//! a request ─▶ a place on the first connection that has one
//!          └─▶ a place on one that is being made, if fewer wait for it than it will carry ─▶ that, or its failure
//!          └─▶ one more is made
//! ```
//!
//! So there are as many as are needed to carry what is asked at once, which the provider's gate bounds; those that are
//! not needed any more empty, since the first are filled first, and are swept.

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::oneshot;

use super::UpstreamFault;
use super::pool::lock;
use super::trunk::{Berth, MAX_STREAMS, Trunk};

#[derive(Debug, Default)]
pub(super) struct Trunks {
    state: Mutex<State>,
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
pub(super) type Given = Result<Option<Berth>, UpstreamFault>;

/// Whether somebody who found no place is to make a connection.
#[derive(Debug)]
pub(super) enum Found {
    Berth(Berth),
    /// A connection is to be made and given under this number.
    Make(u64, oneshot::Receiver<Given>),
    Wait(oneshot::Receiver<Given>),
}

// === impl Trunks ===

impl Trunks {
    /// A place, if there is one.
    pub(super) fn berth(&self) -> Option<Berth> {
        self.state().berth()
    }

    /// A place, or the wait for one.
    pub(super) fn find(&self) -> Found {
        let mut state = self.state();
        if let Some(berth) = state.berth() {
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
        state.made += 1;
        let id = state.made;
        let waiting = vec![sender];
        state.making.push(Making { id, waiting });
        Found::Make(id, receiver)
    }

    /// Gives those who waited for a connection what came of it. Again for the same number it does nothing.
    pub(super) fn give(&self, id: u64, made: Result<Option<Arc<Trunk>>, UpstreamFault>) {
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
    }

    /// Closes what has carried nothing for too long or is no longer open; whether anything is left.
    pub(super) fn sweep(&self, max_sweeps: usize) -> bool {
        let mut state = self.state();
        let (kept, closed): (Vec<_>, Vec<_>) = std::mem::take(&mut state.open)
            .into_iter()
            .partition(|trunk| trunk.is_open() && trunk.rests() <= max_sweeps);
        let left = !kept.is_empty();
        state.open = kept;
        drop(state);
        drop(closed); // without the lock
        left
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

// === impl State ===

impl State {
    fn berth(&mut self) -> Option<Berth> {
        self.open.retain(|trunk| trunk.is_open());
        self.open.iter().find_map(Trunk::berth)
    }
}
