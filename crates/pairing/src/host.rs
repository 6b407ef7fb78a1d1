//! Running the harness's command on this host.
//!
//! The command leads a process group of its own, with the environment that was given and nothing else, and reads from
//! nothing. When it has ended, taken too long, or is not waited for any more, the group ends with it.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout, timeout_at};

use crate::runner::{Invocation, Output, RunError, Runner, TIMED_OUT};

/// Runs commands as children of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostRunner;

/// Between asking a group to end and ending it.
const GRACE: Duration = Duration::from_millis(500);

impl Runner for HostRunner {
    async fn run(&self, invocation: Invocation) -> Result<Output, RunError> {
        let deadline = Instant::now() + invocation.timeout;
        let mut child = started(&invocation)?;
        let group = Group::of(&child);
        let (mut out, mut err) = (Kept::of(child.stdout.take()), Kept::of(child.stderr.take()));
        let ended = async {
            tokio::select! {
                // What it leaves behind may hold its pipes open: they are no sign of life.
                status = child.wait() => Some(status),
                () = both(&mut out, &mut err) => None,
            }
        };
        let mut status = timeout_at(deadline, ended).await;
        if let Ok(None) = status {
            status = timeout_at(deadline, child.wait()).await.map(Some);
        }
        let code = match status {
            Ok(Some(Ok(status))) => code(status),
            Ok(Some(Err(_)) | None) => 1,
            Err(_) => TIMED_OUT,
        };
        group.end(&mut child).await;
        // Its last words are in the pipes; whoever escaped the group may hold them open for longer.
        let _held_open = timeout(GRACE, both(&mut out, &mut err)).await;
        Ok(Output {
            code,
            stdout: out.bytes,
            stderr: err.bytes,
        })
    }
}

fn started(invocation: &Invocation) -> Result<Child, RunError> {
    let (program, arguments) = invocation.argv.split_first().ok_or(RunError::Empty)?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(invocation.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    command.spawn().map_err(|source| RunError::Start {
        program: program.to_string_lossy().into_owned(),
        source,
    })
}

fn code(status: ExitStatus) -> i32 {
    let by_signal = || 128 + status.signal().unwrap_or(0);
    status.code().unwrap_or_else(by_signal)
}

async fn both<R: AsyncRead + Unpin>(out: &mut Kept<R>, err: &mut Kept<impl AsyncRead + Unpin>) {
    tokio::join!(out.drain(), err.drain());
}

/// A process and all that it started.
#[derive(Debug)]
struct Group(Option<Pid>);

impl Group {
    /// Made right after the start, when the leader cannot be gone yet.
    fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self(id.and_then(Pid::from_raw))
    }

    async fn end(&self, child: &mut Child) {
        self.signal(Signal::TERM);
        let _ended = timeout(GRACE, child.wait()).await;
        self.signal(Signal::KILL);
        let _reaped = child.wait().await;
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.0 {
            // Nobody left in it is what is wanted.
            let _nobody_left = kill_process_group(group, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// One of a process's outputs: the first bytes of it, the rest read and let go.
#[derive(Debug)]
struct Kept<R> {
    pipe: Option<R>,
    bytes: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Kept<R> {
    fn of(pipe: Option<R>) -> Self {
        Self {
            pipe,
            bytes: Vec::new(),
        }
    }

    /// Reads until it is closed. Safe to drop, and to begin again.
    async fn drain(&mut self) {
        let mut buffer = vec![0; 16 * 1024];
        while let Some(pipe) = &mut self.pipe {
            match pipe.read(&mut buffer).await {
                Ok(0) => self.pipe = None,
                Ok(read) => {
                    let room = Output::MOST_BYTES - self.bytes.len();
                    self.bytes.extend_from_slice(&buffer[..read.min(room)]);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.pipe = None,
            }
        }
    }
}
