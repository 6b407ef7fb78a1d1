//! Connections of HTTP/1.1 to one destination that nobody uses at the moment.

use std::sync::{Mutex, MutexGuard, PoisonError};

use hyper::client::conn::http1::SendRequest;

use super::Outgoing;

/// The one that was put back last is taken first: it is the one least likely to have been closed by the destination.
#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<Vec<Resting>>);

#[derive(Debug)]
struct Resting {
    sender: SendRequest<Outgoing>,
    /// Since the last sweep nobody took it.
    was_swept: bool,
}

const MAX_KEPT: usize = 16;

// === impl Kept ===

impl Kept {
    pub(super) fn take(&self) -> Option<SendRequest<Outgoing>> {
        let mut kept = self.lock();
        while let Some(Resting { sender, .. }) = kept.pop() {
            if sender.is_ready() {
                return Some(sender);
            }
        }
        None
    }

    pub(super) fn put(&self, sender: SendRequest<Outgoing>) {
        let mut kept = self.lock();
        if kept.len() < MAX_KEPT {
            kept.push(Resting {
                sender,
                was_swept: false,
            });
        }
    }

    /// Closes what was there at the last sweep and has not been used since; whether anything is left.
    pub(super) fn sweep(&self) -> bool {
        let mut kept = self.lock();
        kept.retain_mut(|resting| {
            !std::mem::replace(&mut resting.was_swept, true) && resting.sender.is_ready()
        });
        !kept.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Resting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
