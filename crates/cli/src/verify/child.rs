//! A harness as a process: started in a group of its own, watched, masked as it speaks, and ended as a group.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use farrier_sim::Log;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep_until, timeout};

use crate::mask::{Masker, Masking};

/// How long a turn may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    /// In all.
    pub(crate) turn: Duration,
    /// Without an output, or a request to the model.
    pub(crate) silence: Duration,
}

/// What is left of a process.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) how: How,
    /// Absent if a signal ended it.
    pub(crate) code: Option<i32>,
    /// Masked; the end of it, if there was much.
    pub(crate) stdout: String,
    /// Masked; the end of it, if there was much.
    pub(crate) stderr: String,
}

/// Why it is over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum How {
    Exited,
    Silent,
    TooLong,
}

/// How much of what a process says is kept, in bytes.
const MAX_SAID: usize = 1 << 20;
/// Between asking a group to end and ending it.
const GRACE: Duration = Duration::from_secs(3);

/// Runs a command to its end, or until its budget is used up; then the whole group ends. The log's requests are signs of
/// life, if there is one.
///
/// # Errors
/// It cannot be started.
pub(crate) async fn run(
    mut command: Command,
    budget: Budget,
    log: Option<&Log>,
    masker: &Masker,
) -> io::Result<Ended> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let mut child = command.spawn()?;
    let group = Group::of(&child);
    let (mut stdout, mut stderr) = (Pipe::of(child.stdout.take()), Pipe::of(child.stderr.take()));
    let (mut out, mut err) = (Said::new(masker), Said::new(masker));

    let deadline = Instant::now() + budget.turn;
    let mut quiet_until = Instant::now() + budget.silence;
    let mut asked = log.map_or(0, Log::requests);
    let how = loop {
        let asks = async {
            match log {
                Some(log) => log.until(|log| log.requests() > asked).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            read = stdout.read(), if stdout.is_open() => out.take(&read),
            read = stderr.read(), if stderr.is_open() => err.take(&read),
            () = asks => asked = log.map_or(0, Log::requests),
            // Its pipes may be held open by what it left behind, which ends with the group.
            _status = child.wait() => break How::Exited,
            () = sleep_until(deadline) => break How::TooLong,
            () = sleep_until(quiet_until) => break How::Silent,
        }
        quiet_until = Instant::now() + budget.silence;
    };
    let status = group.end(&mut child).await?;
    while stdout.is_open() || stderr.is_open() {
        let rest = async {
            tokio::select! {
                read = stdout.read(), if stdout.is_open() => out.take(&read),
                read = stderr.read(), if stderr.is_open() => err.take(&read),
            }
        };
        if timeout(GRACE, rest).await.is_err() {
            break;
        }
    }
    Ok(Ended {
        how,
        code: status.code(),
        stdout: out.finish(),
        stderr: err.finish(),
    })
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

    async fn end(&self, child: &mut Child) -> io::Result<std::process::ExitStatus> {
        self.signal(Signal::TERM);
        if let Ok(status) = timeout(GRACE, child.wait()).await {
            self.signal(Signal::KILL);
            return status;
        }
        self.signal(Signal::KILL);
        child.wait().await
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

/// One of a process's outputs.
#[derive(Debug)]
struct Pipe<R> {
    inner: Option<R>,
    buffer: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Pipe<R> {
    fn of(inner: Option<R>) -> Self {
        Self {
            inner,
            buffer: vec![0; 16 * 1024],
        }
    }

    fn is_open(&self) -> bool {
        self.inner.is_some()
    }

    /// What comes next; nothing at its end. Safe to drop.
    async fn read(&mut self) -> Vec<u8> {
        let Some(inner) = &mut self.inner else {
            return Vec::new();
        };
        match inner.read(&mut self.buffer).await {
            Ok(0) | Err(_) => {
                self.inner = None;
                Vec::new()
            }
            Ok(read) => self.buffer[..read].to_vec(),
        }
    }
}

/// What was said, masked.
#[derive(Debug)]
struct Said<'a> {
    masking: Masking<'a>,
    text: String,
}

impl<'a> Said<'a> {
    fn new(masker: &'a Masker) -> Self {
        Self {
            masking: masker.masking(),
            text: String::new(),
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        let shown = self.masking.take(bytes);
        self.keep(&shown);
    }

    fn finish(mut self) -> String {
        let shown = self.masking.finish();
        self.keep(&shown);
        self.text
    }

    fn keep(&mut self, shown: &str) {
        self.text.push_str(shown);
        if self.text.len() > MAX_SAID {
            let from = self.text.ceil_char_boundary(self.text.len() - MAX_SAID / 2);
            self.text.drain(..from);
        }
    }
}
