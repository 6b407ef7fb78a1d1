//! The runtime that commands run on, and the signals that end them.

use std::future::Future;
use std::io;

use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;

/// Runs `work` to its end.
pub(crate) fn run<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::internal("cannot start threads", &error))?;
    runtime.block_on(work)
}

/// SIGINT and SIGTERM, from the moment this is made.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub(crate) fn watch() -> Result<Self, Failure> {
        let watched = |kind| signal(kind);
        let both = watched(SignalKind::interrupt())
            .and_then(|interrupt| Ok((interrupt, watched(SignalKind::terminate())?)));
        let (interrupt, terminate) =
            both.map_err(|error: io::Error| Failure::internal("cannot watch for signals", &error))?;
        Ok(Self {
            interrupt,
            terminate,
        })
    }

    /// The next of them. Safe to drop.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            // `None` would mean that no further signal can come, which tokio does not do.
            _received = self.interrupt.recv() => {}
            _received = self.terminate.recv() => {}
        }
    }
}
