//! What is asked on one connection, and since when nothing is.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::Version;
use tokio::time::Instant;

/// The requests of one connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Streams(Arc<Mutex<State>>);

#[derive(Debug, Default)]
enum State {
    /// HTTP/1.1: its parser watches the time between two requests.
    AskedInTurn,
    /// HTTP/2: how many are open, and since when none is.
    Asked { open: usize, idle: Option<Instant> },
    /// Nothing was asked yet.
    #[default]
    Silent,
}

/// What a connection has been doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doing {
    /// Nothing that anybody must watch here.
    Other,
    /// Streams are open.
    Streaming,
    /// Nothing since it was accepted.
    Waiting,
    /// Nothing any more; it was open that long without a stream.
    Idle(Duration),
}

/// A request on an HTTP/2 connection, until it is answered or given up.
#[derive(Debug)]
pub(crate) struct Open(Streams);

// === impl Streams ===

impl Streams {
    /// Notes a request. It is open until what is returned is dropped, if it may be one of several.
    pub(crate) fn asked(&self, version: Version) -> Option<Open> {
        let mut state = self.state();
        if version != Version::HTTP_2 {
            *state = State::AskedInTurn;
            return None;
        }
        let before = match *state {
            State::Asked { open, .. } => open,
            State::AskedInTurn | State::Silent => 0,
        };
        *state = State::Asked {
            open: before + 1,
            idle: None,
        };
        drop(state);
        Some(Open(self.clone()))
    }

    pub(crate) fn doing(&self) -> Doing {
        match *self.state() {
            State::AskedInTurn => Doing::Other,
            State::Asked { idle: None, .. } => Doing::Streaming,
            State::Asked {
                idle: Some(since), ..
            } => Doing::Idle(since.elapsed()),
            State::Silent => Doing::Waiting,
        }
    }

    /// A poisoned lock still holds a count.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let State::Asked { open, idle } = &mut *self.0.state() {
            *open -= 1;
            *idle = (*open == 0).then(Instant::now);
        }
    }
}
