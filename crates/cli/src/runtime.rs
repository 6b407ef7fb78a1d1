//! The runtime that commands run on, and the signals that end them or have them read their configuration again.

use std::future::Future;
use std::io::{self, IsTerminal as _};
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;

/// For a read from a file system that does not answer, when everything else has ended.
const PATIENCE: Duration = Duration::from_secs(1);

/// Runs `work` to its end.
pub(crate) fn run<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::internal("cannot start threads", &error))?;
    let done = runtime.block_on(work);
    runtime.shutdown_timeout(PATIENCE);
    done
}

/// SIGINT and SIGTERM, from the moment this is made.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

/// SIGHUP, from the moment this is made. It means two things: a terminal sends it when it closes, and everyone else to
/// have the configuration read again.
#[derive(Debug)]
pub(crate) struct Hangups {
    hangup: Signal,
    /// What we say goes to a terminal, so that its end is ours.
    terminal: bool,
}

/// What a SIGHUP means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hangup {
    /// Read the configuration again.
    Reload,
    /// Nobody watches any more.
    TerminalClosed,
}

impl Signals {
    pub(crate) fn watch() -> Result<Self, Failure> {
        Ok(Self {
            interrupt: watched(SignalKind::interrupt())?,
            terminate: watched(SignalKind::terminate())?,
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

impl Hangups {
    pub(crate) fn watch() -> Result<Self, Failure> {
        Ok(Self {
            hangup: watched(SignalKind::hangup())?,
            terminal: io::stderr().is_terminal(),
        })
    }

    /// The next of them; several that come before they are asked for are one. Safe to drop.
    pub(crate) async fn next(&mut self) -> Hangup {
        // As above.
        let _received = self.hangup.recv().await;
        if self.terminal && !io::stderr().is_terminal() {
            Hangup::TerminalClosed
        } else {
            Hangup::Reload
        }
    }
}

fn watched(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::internal("cannot watch for signals", &error))
}
