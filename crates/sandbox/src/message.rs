//! What supervisor, launcher and init say to one another.
//!
//! One message per packet, as JSON, descriptors beside it. The supervisor's first message carries a [`Launch`] in a memory
//! file, since files of a policy may be longer than a packet. The launcher answers [`Report::Forked`], and the supervisor
//! says [`Joined`] as soon as that is so. The first process answers [`Report::Ready`] with the sockets
//! it bound, in the plan's order, or [`Report::Failed`]; from then on there is one [`Report::Started`] or
//! [`Report::Refused`] per [`Request::Exec`], and one [`Report::Exited`] per started command.

use serde::{Deserialize, Serialize};

use crate::error::Layer;
use crate::filter::Program;
use crate::process::WindowSize;
use crate::steps::Plan;

/// Everything that the launcher needs to know.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Launch {
    pub(crate) plan: Plan,
    pub(crate) programs: Vec<Program>,
}

/// The supervisor's first message; a memory file with a [`Launch`] is beside it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Begin;

/// The supervisor's second message: the first process is in its control groups.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Joined;

/// Which command of a sandbox is meant.
pub(crate) type CommandId = u64;

/// Supervisor to first process. Cannot be printed, since an environment is in it.
#[derive(Serialize, Deserialize)]
pub(crate) enum Request {
    /// Run a command. Beside it its standard input, output and error, unless it is to have a terminal.
    Exec {
        id: CommandId,
        argv: Vec<String>,
        environment: Vec<String>,
        directory: String,
        terminal: Option<WindowSize>,
    },
    /// Send a signal to a command and the processes of its group.
    Signal { id: CommandId, signal: i32 },
    /// Send a signal to every process but the first.
    SignalAll { signal: i32 },
}

/// Launcher or first process to supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// The first process is there, under this number on the host; a descriptor for it is beside this.
    Forked { pid: i32 },
    /// Every step is taken. The listeners are beside it.
    Ready,
    /// A step failed. Nothing has run, nothing will.
    Failed {
        layer: Layer,
        step: String,
        errno: i32,
    },
    /// A command runs. Its terminal is beside this if it has one.
    Started { id: CommandId },
    /// A command could not be started.
    Refused {
        id: CommandId,
        stage: String,
        errno: i32,
    },
    /// A command has ended.
    Exited { id: CommandId, exit: Exit },
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// With this status.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Exit {
    /// As a shell would tell it: the status, or 128 and the signal.
    #[must_use]
    pub fn shell_status(self) -> u8 {
        let status = match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        };
        u8::try_from(status & 0xff).unwrap_or(u8::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_as_a_shell_tells_it() {
        let ends = [
            Exit::Code(0),
            Exit::Code(7),
            Exit::Signal(9),
            Exit::Code(256),
        ];
        assert_eq!(ends.map(Exit::shell_status), [0, 7, 137, 0]);
    }
}
