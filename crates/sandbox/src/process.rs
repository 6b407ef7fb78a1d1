//! A command in a sandbox, seen from the supervisor.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustix::fs::OFlags;
use rustix::termios::Winsize;
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

use crate::error::SandboxGone;
use crate::message::{CommandId, Exit, Request};
use crate::supervise::Link;
use crate::sys;

/// What is to be run.
pub struct Exec {
    /// The program and its arguments. A program without a slash is looked up in the command's `PATH`.
    pub argv: Vec<String>,
    /// Added to the policy's environment, whose entries it replaces.
    pub environment: BTreeMap<String, String>,
    /// Where it starts, inside; the user's home unless named.
    pub directory: Option<String>,
    /// What it reads and writes.
    pub io: Io,
}

/// What a command reads and writes.
#[derive(Debug)]
pub enum Io {
    /// These, the caller's own.
    Given {
        /// Read from.
        stdin: OwnedFd,
        /// Written to.
        stdout: OwnedFd,
        /// Written to.
        stderr: OwnedFd,
    },
    /// Nothing, and what it writes is lost.
    Nothing,
    /// Pipes, whose other ends [`Process`] has.
    Pipes,
    /// A terminal of the sandbox's own, of which [`Process`] has the other side.
    Terminal(WindowSize),
}

/// How large a terminal is, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// From top to bottom.
    pub rows: u16,
    /// From left to right.
    pub columns: u16,
}

/// A command that was started. It runs on if this is dropped.
#[derive(Debug)]
pub struct Process {
    /// The writing end of its standard input, if it was given pipes.
    pub stdin: Option<pipe::Sender>,
    /// The reading end of its standard output, if it was given pipes.
    pub stdout: Option<pipe::Receiver>,
    /// The reading end of its standard error, if it was given pipes.
    pub stderr: Option<pipe::Receiver>,
    /// The other side of its terminal, if it was given one.
    pub terminal: Option<Pty>,
    pub(crate) id: CommandId,
    pub(crate) exit: Ending,
    pub(crate) link: Arc<Link>,
}

#[derive(Debug)]
pub(crate) enum Ending {
    Awaited(oneshot::Receiver<Exit>),
    Known(Result<Exit, SandboxGone>),
}

/// The supervisor's side of a terminal. Reading ends when the last process that has the terminal open does.
#[derive(Debug)]
pub struct Pty(AsyncFd<OwnedFd>);

impl Exec {
    /// A command with the policy's environment in the user's home, whose output comes through pipes.
    pub fn new<Word: Into<String>>(argv: impl IntoIterator<Item = Word>) -> Self {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            environment: BTreeMap::new(),
            directory: None,
            io: Io::Pipes,
        }
    }
}

impl fmt::Debug for Exec {
    /// Names what is in the environment and not the values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.environment.keys().collect();
        f.debug_struct("Exec")
            .field("argv", &self.argv)
            .field("environment", &names)
            .field("directory", &self.directory)
            .field("io", &self.io)
            .finish()
    }
}

impl Process {
    /// Waits for the command's end. May be dropped and called again, and called again afterwards.
    ///
    /// # Errors
    /// The sandbox ended, and the command with it.
    pub async fn wait(&mut self) -> Result<Exit, SandboxGone> {
        let known = match &mut self.exit {
            Ending::Awaited(receiver) => receiver.await.map_err(|_| SandboxGone),
            Ending::Known(known) => *known,
        };
        self.exit = Ending::Known(known);
        known
    }

    /// Sends a signal to the command and its process group. One that has ended is not an error.
    ///
    /// # Errors
    /// The sandbox has ended.
    pub async fn signal(&self, signal: i32) -> Result<(), SandboxGone> {
        let request = Request::Signal {
            id: self.id,
            signal,
        };
        self.link.send(&request, &[]).await.map_err(|_| SandboxGone)
    }
}

impl Pty {
    pub(crate) fn new(master: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&master, true)?;
        Self::watched(master)
    }

    fn watched(master: OwnedFd) -> io::Result<Self> {
        sys::watch(master, Interest::READABLE | Interest::WRITABLE).map(Self)
    }

    /// Changes the terminal's size; programs in it are told.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn resize(&self, size: WindowSize) -> io::Result<()> {
        Ok(rustix::termios::tcsetwinsize(&self.0, size.into())?)
    }

    /// Another handle on the same terminal, to read by one and write by the other.
    ///
    /// # Errors
    /// No more descriptors.
    pub fn try_clone(&self) -> io::Result<Self> {
        Self::watched(self.0.get_ref().try_clone()?)
    }
}

impl AsFd for Pty {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsyncRead for Pty {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(context))?;
            let read = ready
                .try_io(|terminal| Ok(rustix::io::read(terminal, into.initialize_unfilled())?));
            match read {
                Ok(Ok(length)) => {
                    into.advance(length);
                    return Poll::Ready(Ok(()));
                }
                // What a terminal says when nobody has it open any more.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => {
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Pty {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_write_ready(context))?;
            let written = ready.try_io(|terminal| Ok(rustix::io::write(terminal, from)?));
            if let Ok(written) = written {
                return Poll::Ready(written);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl From<WindowSize> for Winsize {
    fn from(size: WindowSize) -> Self {
        Self {
            ws_row: size.rows,
            ws_col: size.columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        }
    }
}

/// A command's three streams, and the supervisor's ends of them.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    pub(crate) inside: Vec<OwnedFd>,
    pub(crate) stdin: Option<pipe::Sender>,
    pub(crate) stdout: Option<pipe::Receiver>,
    pub(crate) stderr: Option<pipe::Receiver>,
    pub(crate) terminal: Option<WindowSize>,
}

impl Io {
    pub(crate) fn ends(self) -> io::Result<Ends> {
        match self {
            Self::Given {
                stdin,
                stdout,
                stderr,
            } => Ok(Ends {
                inside: vec![stdin, stdout, stderr],
                ..Ends::default()
            }),
            Self::Nothing => {
                let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, 0.into())?;
                Ok(Ends {
                    inside: vec![null.try_clone()?, null.try_clone()?, null],
                    ..Ends::default()
                })
            }
            Self::Pipes => {
                let (stdin, our_stdin) = io::pipe()?;
                let (our_stdout, stdout) = io::pipe()?;
                let (our_stderr, stderr) = io::pipe()?;
                Ok(Ends {
                    inside: vec![stdin.into(), stdout.into(), stderr.into()],
                    stdin: Some(pipe::Sender::from_owned_fd(our_stdin.into())?),
                    stdout: Some(pipe::Receiver::from_owned_fd(our_stdout.into())?),
                    stderr: Some(pipe::Receiver::from_owned_fd(our_stderr.into())?),
                    terminal: None,
                })
            }
            Self::Terminal(size) => Ok(Ends {
                terminal: Some(size),
                ..Ends::default()
            }),
        }
    }
}
