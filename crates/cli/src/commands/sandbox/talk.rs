//! A process in a sandbox, and this terminal: what is typed goes in, what it writes comes out, and its end is ours.
//!
//! The terminal is raw meanwhile, so that Ctrl-C and everything else is the process's; it is as before when this returns,
//! however it does. Standard input is read over a descriptor of our own that does not block: whoever shares the other one
//! is not disturbed, and nothing keeps this process from ending.

use std::io::{self, IsTerminal as _};
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use farrier_control::SandboxName;
use farrier_control::talk::{
    Ended, ExecRequest, Inward, Outward, Size, read_outward, write_inward,
};
use rustix::fs::{Mode, OFlags};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::unreached;
use crate::commands::Context;
use crate::commands::reload::Which;
use crate::failure::Failure;
use crate::runtime;

/// What is to be talked to.
#[derive(Debug, Default)]
pub(crate) struct Talk {
    pub(crate) command: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) cwd: Option<String>,
    pub(crate) tty: bool,
    pub(crate) timeout: Option<Duration>,
    pub(crate) keep: bool,
    pub(crate) attach: Option<u64>,
}

/// A terminal that is raw until this is dropped.
struct Raw {
    before: Termios,
}

/// How it ended, for whoever waits for this process.
enum Outcome {
    Ended(Ended),
    /// The caller left a session that goes on.
    Left,
    /// The gateway has ended, or broke off.
    Broken,
}

/// Leaves a session: Ctrl-], as in telnet.
const LEAVE: u8 = 0x1d;
/// What a process is told as when a signal ended it, besides the signal.
const BY_SIGNAL: i32 = 128;
/// What `timeout` of the coreutils says.
const TIMED_OUT: u8 = 124;
/// What shells say of what cannot be run.
const UNSTARTED: u8 = 126;

/// Talks to a process until it ends, or is left.
pub(crate) fn talk(
    which: &Which,
    name: &SandboxName,
    asked: Talk,
    context: &Context<'_>,
) -> Result<ExitCode, Failure> {
    let gateway = which.find(context)?;
    let keeps = asked.keep;
    let request = request(asked, context);
    let outcome = runtime::run(async {
        let stream = match gateway.client.exec(name, &request).await {
            Ok(stream) => stream,
            Err(error) => return Ok(Err(error)),
        };
        // Raw only now: what is refused is told on a terminal that is as it was.
        let raw = match request.tty {
            Some(_) => Raw::of_stdin()?,
            None => None,
        };
        let outcome = converse(stream, keeps).await;
        drop(raw);
        outcome.map(Ok)
    })?;
    let outcome = outcome.map_err(|error| unreached(&gateway, error, context))?;
    concluded(outcome, name, context)
}

fn request(asked: Talk, context: &Context<'_>) -> ExecRequest {
    let Talk {
        command,
        mut env,
        cwd,
        tty,
        timeout,
        keep,
        attach,
    } = asked;
    if tty && let Some(term) = context.env.filled("TERM") {
        env.push(("TERM".to_owned(), term));
    }
    ExecRequest {
        command,
        env,
        cwd,
        tty: tty.then(|| size().unwrap_or(Size { rows: 24, cols: 80 })),
        timeout_ms: timeout.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
        keep,
        attach,
    }
}

fn size() -> Option<Size> {
    let size = tcgetwinsize(io::stdin()).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some(Size {
        rows: size.ws_row,
        cols: size.ws_col,
    })
}

fn concluded(
    outcome: Outcome,
    name: &SandboxName,
    context: &Context<'_>,
) -> Result<ExitCode, Failure> {
    let status = match outcome {
        Outcome::Ended(Ended::Exited(code)) => u8::try_from(code & 0xff).unwrap_or(u8::MAX),
        Outcome::Ended(Ended::Killed(signal)) => {
            u8::try_from((BY_SIGNAL + signal) & 0xff).unwrap_or(u8::MAX)
        }
        Outcome::Ended(Ended::TimedOut) => {
            context
                .notices
                .say("it took longer than it may, and was killed");
            TIMED_OUT
        }
        Outcome::Ended(Ended::Unstarted(why)) => {
            context.notices.say(&why);
            UNSTARTED
        }
        Outcome::Ended(Ended::Left(why)) => return Err(Failure::user(why)),
        Outcome::Left => {
            let again = format!("left; farrier sandbox connect {name} comes back to it");
            context.notices.say(&again);
            0
        }
        Outcome::Broken => {
            return Err(Failure::user("the gateway ended the conversation")
                .hint("a sandbox ends with its gateway, and is started again with the next"));
        }
    };
    Ok(ExitCode::from(status))
}

/// Carries both sides until one of them is done.
async fn converse(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin,
    keeps: bool,
) -> Result<Outcome, Failure> {
    let failed = |error: io::Error| Failure::internal("cannot use this terminal", &error);
    let (mut from, mut to) = tokio::io::split(stream);
    let mut resized = signal(SignalKind::window_change()).map_err(failed)?;
    let mut passed = passed().map_err(failed)?;
    let mut stdin = Stdin::open();
    let hearing = async {
        loop {
            match read_outward(&mut from).await {
                Ok(Some(Outward::Output(bytes))) => shown(&mut io::stdout().lock(), &bytes)?,
                Ok(Some(Outward::Errors(bytes))) => shown(&mut io::stderr().lock(), &bytes)?,
                Ok(Some(Outward::Ended(ended))) => return Ok(Outcome::Ended(ended)),
                Ok(None) | Err(_) => return Ok(Outcome::Broken),
            }
        }
    };
    let saying = async {
        let mut open = true;
        loop {
            let frame = tokio::select! {
                read = stdin.read(), if open => match read {
                    Ok(bytes) if keeps && bytes.contains(&LEAVE) => {
                        // What was typed before goes in; that nobody takes it any more is as good.
                        drop(write_inward(&mut to, &before_leaving(&bytes)).await);
                        return Outcome::Left;
                    }
                    Ok(bytes) if !bytes.is_empty() => Inward::Input(bytes),
                    // Nobody can say anything any more; what is heard goes on.
                    Ok(_) | Err(_) => {
                        open = false;
                        Inward::InputEnd
                    }
                },
                _resized = resized.recv() => match size() {
                    Some(size) => Inward::Resize(size),
                    None => continue,
                },
                signal = next_of(&mut passed) => Inward::Signal(signal),
            };
            let written = tokio::select! {
                biased;
                written = write_inward(&mut to, &frame) => written,
                // Nobody takes what is said; whoever wants an end is not to wait for that. It ends with its caller.
                signal = next_of(&mut passed) => return Outcome::Ended(Ended::Killed(i32::from(signal))),
            };
            if written.is_err() {
                // Why is said on the other side.
                return std::future::pending().await;
            }
        }
    };
    tokio::select! {
        biased;
        heard = hearing => heard,
        said = saying => Ok(said),
    }
}

fn before_leaving(typed: &Bytes) -> Inward {
    let end = typed.iter().position(|byte| *byte == LEAVE);
    Inward::Input(typed.slice(..end.unwrap_or(typed.len())))
}

fn shown(to: &mut impl io::Write, bytes: &[u8]) -> Result<(), Failure> {
    let written = to.write_all(bytes).and_then(|()| to.flush());
    written.map_err(Failure::of_output)
}

/// Signals to this process that are the other's. From a raw terminal none of them comes.
fn passed() -> io::Result<Vec<(u8, Signal)>> {
    const INT: (u8, SignalKind) = (2, SignalKind::interrupt());
    const QUIT: (u8, SignalKind) = (3, SignalKind::quit());
    const TERM: (u8, SignalKind) = (15, SignalKind::terminate());
    const HUP: (u8, SignalKind) = (1, SignalKind::hangup());
    [INT, QUIT, TERM, HUP]
        .into_iter()
        .map(|(number, kind)| Ok((number, signal(kind)?)))
        .collect()
}

async fn next_of(signals: &mut [(u8, Signal)]) -> u8 {
    let next = std::future::poll_fn(|cx| {
        for (number, signal) in signals.iter_mut() {
            if signal.poll_recv(cx).is_ready() {
                return std::task::Poll::Ready(*number);
            }
        }
        std::task::Poll::Pending
    });
    next.await
}

/// Standard input, read without blocking if it can be.
enum Stdin {
    Own(AsyncFd<OwnedFd>),
    Shared(tokio::io::Stdin),
}

impl Stdin {
    /// Opens what standard input is once more: its own blocking stays as it is for whoever shares it.
    fn open() -> Self {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let opened = rustix::fs::open("/proc/self/fd/0", flags, Mode::empty());
        #[expect(
            deprecated,
            reason = "its successor is unsafe and asks that nobody closes the descriptor: it is owned, and given to none"
        )]
        let own = opened.ok().and_then(|own| AsyncFd::new(own).ok());
        own.map_or_else(|| Self::Shared(tokio::io::stdin()), Self::Own)
    }

    /// What comes next; nothing at the end. Safe to drop.
    async fn read(&mut self) -> io::Result<Bytes> {
        let mut buffer = vec![0; 16 * 1024];
        let read = match self {
            Self::Shared(stdin) => stdin.read(&mut buffer).await?,
            Self::Own(own) => loop {
                let mut ready = own.readable().await?;
                match ready.try_io(|own| Ok(rustix::io::read(own, &mut buffer)?)) {
                    Ok(read) => break read?,
                    Err(_would_block) => {}
                }
            },
        };
        buffer.truncate(read);
        Ok(buffer.into())
    }
}

impl Raw {
    /// Makes the terminal raw; nothing if standard input is none.
    fn of_stdin() -> Result<Option<Self>, Failure> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let failed = |errno: rustix::io::Errno| {
            Failure::internal("cannot use this terminal", &io::Error::from(errno))
        };
        let before = tcgetattr(&stdin).map_err(failed)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw).map_err(failed)?;
        Ok(Some(Self { before }))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // If it is gone there is nothing to give back.
        let _given_back = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}
