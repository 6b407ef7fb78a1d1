//! Running the harness's command: where it runs is another's matter.

use std::ffi::OsString;
use std::fmt;
use std::future::Future;
use std::io;
use std::time::Duration;

use thiserror::Error;

/// The exit code of a command that took too long, as of `timeout(1)`.
pub const TIMED_OUT: i32 = 124;

/// Runs commands, on the host or inside a sandbox.
///
/// *Guarantees*: the command has ended when the future is done, and with it all that it started. Nothing of it is left
/// when the future is dropped before. What it prints is bounded.
pub trait Runner: Send + Sync {
    /// Runs a command to its end, or for as long as it may take; then the code is [`TIMED_OUT`].
    ///
    /// Safe to drop: the command then ends, with all that it started.
    fn run(&self, invocation: Invocation) -> impl Future<Output = Result<Output, RunError>> + Send;
}

/// A command.
#[derive(Clone, Eq, PartialEq)]
pub struct Invocation {
    /// The program and its arguments. No shell reads them.
    pub argv: Vec<OsString>,
    /// All of its environment.
    pub env: Vec<(OsString, OsString)>,
    /// How long it may take.
    pub timeout: Duration,
}

/// What is left of a command.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Output {
    /// What it exited with; 128 and the signal's number, if a signal ended it.
    pub code: i32,
    /// What it printed, at most [`Output::MOST_BYTES`].
    pub stdout: Vec<u8>,
    /// What it said, at most [`Output::MOST_BYTES`].
    pub stderr: Vec<u8>,
}

/// A command could not be run.
#[derive(Debug, Error)]
pub enum RunError {
    /// There is nothing to run.
    #[error("expected a command, got none")]
    Empty,
    /// The system, or the sandbox, does not run it.
    #[error("cannot run {program}")]
    Start {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
}

impl Output {
    /// As much of either stream is kept. A list of 256 devices is some 200 kB.
    pub const MOST_BYTES: usize = 1 << 20;

    /// Both streams, as text.
    pub(crate) fn said(&self) -> String {
        let [out, err] = [&self.stdout, &self.stderr].map(|bytes| String::from_utf8_lossy(bytes));
        format!("{err}\n{out}")
    }
}

/// The names of its environment, and no values: a harness's own key may be among them.
impl fmt::Debug for Invocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.env.iter().map(|(name, _)| name).collect();
        f.debug_struct("Invocation")
            .field("argv", &self.argv)
            .field("env", &names)
            .field("timeout", &self.timeout)
            .finish()
    }
}
