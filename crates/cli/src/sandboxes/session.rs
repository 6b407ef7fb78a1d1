//! Commands and terminals in a sandbox, and whoever is connected to them.
//!
//! A command ends with its caller. A session does not: what is on its terminal is kept, up to a bound, and shown to whoever
//! comes back.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use farrier_control::talk::{
    Ended, ExecRequest, Inward, Outward, Size, read_inward, write_outward,
};
use farrier_control::{SessionStatus, Stream};
use farrier_ledger::{Clock as _, SystemClock};
use farrier_sandbox::{Exec, Exit, Io, Process, Sandbox, SandboxGone, WindowSize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use crate::config::with_causes;

/// The sessions of one sandbox.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    next: AtomicU64,
    all: Mutex<BTreeMap<u64, Arc<Session>>>,
}

/// A terminal that is kept.
#[derive(Debug)]
struct Session {
    command: Vec<String>,
    since_unix_ms: u64,
    to_process: Asks,
    screen: Mutex<Screen>,
}

/// What a caller asks of a process. A signal does not wait behind what is not read.
#[derive(Clone, Debug)]
struct Asks {
    said: mpsc::Sender<Inward>,
    urgent: mpsc::Sender<Inward>,
}

/// The other end of it.
struct Asked {
    said: mpsc::Receiver<Inward>,
    urgent: mpsc::Receiver<Inward>,
}

/// What was on the terminal, and who looks at it.
#[derive(Debug, Default)]
struct Screen {
    last: VecDeque<u8>,
    viewer: Option<mpsc::Sender<Outward>>,
}

/// Bytes of a terminal that are shown to whoever comes back.
const KEPT_BYTES: usize = 256 * 1024;
/// Pieces that wait for a viewer, and for a process.
const QUEUE: usize = 16;
/// For what is left in a command's pipes when it has ended: what it has started may hold them for ever.
const REST: Duration = Duration::from_millis(500);
/// For what somebody typed who has left.
const LEAVING: Duration = Duration::from_secs(5);
/// What the shell is, if no command is named.
const SHELL: &[&str] = &[
    "/bin/sh",
    "-c",
    "if [ -x /bin/bash ]; then exec /bin/bash -l; else exec /bin/sh -l; fi",
];
const SIGHUP: i32 = 1;
const SIGKILL: i32 = 9;

/// What is to be run, with these streams.
pub(crate) fn exec(request: &ExecRequest) -> Exec {
    let mut exec = match request.command.as_slice() {
        [] => Exec::new(SHELL.iter().copied()),
        command => Exec::new(command.iter().cloned()),
    };
    exec.environment = request.env.iter().cloned().collect();
    let cwd = request.cwd.as_deref().unwrap_or(super::furnish::WORKSPACE);
    exec.directory = Some(cwd.to_owned());
    exec.io = match request.tty {
        Some(size) => Io::Terminal(window(size)),
        None => Io::Pipes,
    };
    exec
}

const fn window(Size { rows, cols }: Size) -> WindowSize {
    WindowSize {
        rows,
        columns: cols,
    }
}

// === commands that end with their caller ===

/// Runs a command for a caller, to its end, the caller's, or the end of its time.
pub(crate) async fn run(stream: Stream, sandbox: &Sandbox, request: &ExecRequest) {
    let (reading, writing) = tokio::io::split(stream);
    let caller = Caller(Arc::new(tokio::sync::Mutex::new(writing)));
    let mut process = match sandbox.exec(exec(request)).await {
        Ok(process) => process,
        Err(error) => return caller.end(Ended::Unstarted(with_causes(&error))).await,
    };
    let within = request.timeout_ms.map(Duration::from_millis);
    match talk(&mut process, reading, &caller, within).await {
        Some(ended) => caller.end(ended).await,
        // Nobody waits for it any more.
        None => end(&mut process).await,
    }
}

/// Ends a command and what is in its group. That the sandbox has ended already is as good.
async fn end(process: &mut Process) {
    for signal in [SIGHUP, SIGKILL] {
        let _gone_or_told = process.signal(signal).await;
    }
}

/// Where the caller is told things.
#[derive(Clone)]
struct Caller(Arc<tokio::sync::Mutex<WriteHalf<Stream>>>);

impl Caller {
    async fn tell(&self, frame: &Outward) -> bool {
        let mut stream = self.0.lock().await;
        write_outward(&mut *stream, frame).await.is_ok()
    }

    async fn end(&self, ended: Ended) {
        // Whoever left is not told.
        self.tell(&Outward::Ended(ended)).await;
        let mut stream = self.0.lock().await;
        drop(stream.shutdown().await);
    }
}

/// Carries what both sides say until the process ends, and says how, or until the caller leaves.
async fn talk(
    process: &mut Process,
    from: ReadHalf<Stream>,
    caller: &Caller,
    within: Option<Duration>,
) -> Option<Ended> {
    let (asks, asked) = Asks::new();
    let listening = listen(from, asks);
    let (over, ended) = watch::channel(false);
    let end = End { over, within };
    match process.terminal.take() {
        Some(terminal) => {
            let Ok(out) = terminal.try_clone() else {
                return Some(Ended::Unstarted("no more descriptors".to_owned()));
            };
            let showing = show(Some(out), Outward::Output, caller, ended);
            let done = finish(process, Input::Terminal(terminal), asked, showing, end);
            tokio::select! {
                done = done => Some(done),
                () = listening => None,
            }
        }
        None => {
            let (stdout, stderr) = (process.stdout.take(), process.stderr.take());
            let stdin = process.stdin.take();
            let showing = async {
                tokio::join!(
                    show(stdout, Outward::Output, caller, ended.clone()),
                    show(stderr, Outward::Errors, caller, ended)
                );
            };
            let done = finish(process, Input::Pipe(stdin), asked, showing, end);
            tokio::select! {
                done = done => Some(done),
                () = listening => None,
            }
        }
    }
}

fn ending(exit: Result<Exit, SandboxGone>) -> Ended {
    match exit {
        Ok(Exit::Code(code)) => Ended::Exited(code),
        Ok(Exit::Signal(signal)) => Ended::Killed(signal),
        Err(gone) => Ended::Left(gone.to_string()),
    }
}

/// What a process reads.
enum Input {
    Pipe(Option<pipe::Sender>),
    Terminal(farrier_sandbox::Pty),
}

/// How the end of a process comes, and who is told that it has.
struct End {
    over: watch::Sender<bool>,
    /// How long it may take.
    within: Option<Duration>,
}

/// Feeds a process and shows what it writes until it has ended and all that it wrote is shown. What it does not read yet
/// waits: it may not read on before somebody has taken what it writes.
async fn finish(
    process: &mut Process,
    mut input: Input,
    mut asked: Asked,
    showing: impl Future<Output = ()>,
    End { over, within }: End,
) -> Ended {
    let mut showing = std::pin::pin!(showing);
    let mut patience = std::pin::pin!(sleep(within.unwrap_or(Duration::MAX)));
    let (mut shown, mut timed_out) = (false, false);
    let mut unread = Bytes::new();
    loop {
        tokio::select! {
            exit = process.wait() => {
                over.send_replace(true);
                if !shown {
                    showing.await;
                }
                return if timed_out { Ended::TimedOut } else { ending(exit) };
            }
            () = &mut patience, if within.is_some() && !timed_out => {
                timed_out = true;
                end(process).await;
            }
            () = &mut showing, if !shown => shown = true,
            written = input.write(&unread), if !unread.is_empty() => match written {
                Ok(bytes @ 1..) => drop(unread.split_to(bytes)),
                // It reads no more.
                Ok(0) | Err(_) => unread.clear(),
            },
            Some(frame) = asked.urgent.recv() => drop(feed(process, &mut input, frame).await),
            Some(frame) = asked.said.recv(), if unread.is_empty() => {
                unread = feed(process, &mut input, frame).await;
            }
        }
    }
}

/// Does what a caller asks for; what it says to the process is given back, to be written.
async fn feed(process: &Process, input: &mut Input, frame: Inward) -> Bytes {
    const END_OF_INPUT: &[u8] = &[4];
    match (frame, input) {
        (Inward::Signal(signal), _) => {
            let _gone_or_told = process.signal(i32::from(signal)).await;
        }
        (Inward::Input(bytes), _) => return bytes,
        (Inward::InputEnd, Input::Pipe(stdin)) => drop(stdin.take()),
        (Inward::InputEnd, Input::Terminal(_)) => return Bytes::from_static(END_OF_INPUT),
        (Inward::Resize(size), Input::Terminal(terminal)) => drop(terminal.resize(window(size))),
        (Inward::Resize(_), Input::Pipe(_)) => {}
    }
    Bytes::new()
}

impl Input {
    /// Writes some of it. Safe to drop: nothing was written then.
    async fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Pipe(Some(stdin)) => stdin.write(bytes).await,
            Self::Pipe(None) => Ok(0),
            Self::Terminal(terminal) => terminal.write(bytes).await,
        }
    }
}

/// Hands on what the caller says until it leaves.
async fn listen(mut from: ReadHalf<Stream>, to: Asks) {
    while let Ok(Some(frame)) = read_inward(&mut from).await {
        if !to.send(frame).await {
            return;
        }
    }
}

impl Asks {
    fn new() -> (Self, Asked) {
        let (said, to_be_said) = mpsc::channel(QUEUE);
        let (urgent, to_be_done) = mpsc::channel(QUEUE);
        let asked = Asked {
            said: to_be_said,
            urgent: to_be_done,
        };
        (Self { said, urgent }, asked)
    }

    /// Whether anybody takes it.
    async fn send(&self, frame: Inward) -> bool {
        let to = match frame {
            Inward::Input(_) | Inward::InputEnd => &self.said,
            Inward::Resize(_) | Inward::Signal(_) => &self.urgent,
        };
        to.send(frame).await.is_ok()
    }
}

/// Reads what comes next: nothing at the end, or when the process has ended and nothing has come for a moment.
async fn next(
    from: &mut (impl AsyncRead + Unpin),
    buffer: &mut [u8],
    ended: &mut watch::Receiver<bool>,
) -> usize {
    let read = tokio::select! {
        biased;
        read = from.read(buffer) => read,
        // What is waited with is let go before anything else is awaited.
        () = async { drop(ended.wait_for(|ended| *ended).await) } => {
            timeout(REST, from.read(buffer)).await.unwrap_or(Ok(0))
        }
    };
    // One that cannot be read has nothing more.
    read.unwrap_or_default()
}

/// Shows the caller what comes until nothing does.
async fn show(
    from: Option<impl AsyncRead + Unpin>,
    as_frame: fn(Bytes) -> Outward,
    caller: &Caller,
    mut ended: watch::Receiver<bool>,
) {
    let Some(mut from) = from else {
        return;
    };
    let mut buffer = vec![0; 32 * 1024];
    while let read @ 1.. = next(&mut from, &mut buffer, &mut ended).await {
        let piece = Bytes::copy_from_slice(&buffer[..read]);
        if !caller.tell(&as_frame(piece)).await {
            return;
        }
    }
}

// === sessions ===

impl Sessions {
    pub(crate) fn status(&self) -> Vec<SessionStatus> {
        let told = |(id, session): (&u64, &Arc<Session>)| SessionStatus {
            id: *id,
            command: session.command.clone(),
            attached: lock(&session.screen).viewer.is_some(),
            since_unix_ms: session.since_unix_ms,
        };
        lock(&self.all).iter().map(told).collect()
    }

    /// Whether there is a session of that number.
    pub(crate) fn has(&self, id: u64) -> bool {
        lock(&self.all).contains_key(&id)
    }

    /// Starts a session; what carries it on is to be run by whoever looks after the sandbox. Ends with its process.
    pub(crate) async fn start(
        self: &Arc<Self>,
        sandbox: &Sandbox,
        request: &ExecRequest,
    ) -> Result<(u64, impl Future<Output = ()> + Send + use<>), String> {
        let started = sandbox.exec(exec(request)).await;
        let mut process = started.map_err(|error| with_causes(&error))?;
        let Some(terminal) = process.terminal.take() else {
            return Err("expected a terminal to keep, got none".to_owned());
        };
        let out = terminal.try_clone().map_err(|error| error.to_string())?;
        let (to_process, asked) = Asks::new();
        let session = Arc::new(Session {
            command: request.command.clone(),
            since_unix_ms: SystemClock.unix_millis(),
            to_process,
            screen: Mutex::default(),
        });
        let id = 1 + self.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.all).insert(id, Arc::clone(&session));
        let sessions = Arc::clone(self);
        let carried = async move {
            let (over, ended) = watch::channel(false);
            let end = End { over, within: None };
            let watching = session.watch(out, ended);
            let ended = finish(
                &mut process,
                Input::Terminal(terminal),
                asked,
                watching,
                end,
            )
            .await;
            lock(&sessions.all).remove(&id);
            let viewer = lock(&session.screen).viewer.take();
            if let Some(viewer) = viewer {
                drop(viewer.send(Outward::Ended(ended)).await);
            }
        };
        Ok((id, carried))
    }

    /// Shows a session to a caller until it leaves or the session ends. Whoever looked at it until now is told.
    pub(crate) async fn attach(&self, stream: Stream, id: u64, size: Option<Size>) {
        let (from, writing) = tokio::io::split(stream);
        let caller = Caller(Arc::new(tokio::sync::Mutex::new(writing)));
        let session = lock(&self.all).get(&id).cloned();
        let Some(session) = session else {
            let gone = format!("there is no session {id} any more");
            return caller.end(Ended::Left(gone)).await;
        };
        let (viewer, mut shown) = mpsc::channel(QUEUE);
        let (before, last) = session.seen_by(viewer.clone());
        if let Some(before) = before {
            let left = Ended::Left("somebody else is connected to it now".to_owned());
            drop(before.try_send(Outward::Ended(left)));
        }
        if !caller.tell(&Outward::Output(last)).await {
            return session.left_by(&viewer);
        }
        if let Some(size) = size {
            // One that has ended has no size.
            let _taken = session.to_process.send(Inward::Resize(size)).await;
        }
        let showing = async {
            while let Some(frame) = shown.recv().await {
                if let Outward::Ended(ended) = frame {
                    return Some(ended);
                }
                if !caller.tell(&frame).await {
                    return None;
                }
            }
            None
        };
        let mut listening = std::pin::pin!(listen(from, session.to_process.clone()));
        let (ended, heard) = tokio::select! {
            ended = showing => (ended, false),
            () = &mut listening => (None, true),
        };
        session.left_by(&viewer);
        if ended.is_none() && !heard {
            // It may have left while something was being shown: what it typed before goes in.
            drop(timeout(LEAVING, listening).await);
        }
        if let Some(ended) = ended {
            caller.end(ended).await;
        }
    }
}

impl Session {
    /// Keeps what comes, and shows it to whoever looks. A viewer that does not read keeps the terminal from going on, as a
    /// real one would.
    async fn watch(&self, mut from: impl AsyncRead + Unpin, mut ended: watch::Receiver<bool>) {
        let mut buffer = vec![0; 32 * 1024];
        while let read @ 1.. = next(&mut from, &mut buffer, &mut ended).await {
            let piece = &buffer[..read];
            let viewer = {
                let mut screen = lock(&self.screen);
                screen.last.extend(piece);
                let excess = screen.last.len().saturating_sub(KEPT_BYTES);
                screen.last.drain(..excess);
                screen.viewer.clone()
            };
            if let Some(viewer) = viewer {
                // One that has left is no longer looked at by anybody.
                drop(
                    viewer
                        .send(Outward::Output(Bytes::copy_from_slice(piece)))
                        .await,
                );
            }
        }
    }

    /// Has somebody look at it: who did until now, and what is on the terminal.
    fn seen_by(&self, viewer: mpsc::Sender<Outward>) -> (Option<mpsc::Sender<Outward>>, Bytes) {
        let mut screen = lock(&self.screen);
        let last: Vec<u8> = screen.last.iter().copied().collect();
        (screen.viewer.replace(viewer), last.into())
    }

    fn left_by(&self, viewer: &mpsc::Sender<Outward>) {
        let mut screen = lock(&self.screen);
        if screen
            .viewer
            .as_ref()
            .is_some_and(|now| now.same_channel(viewer))
        {
            screen.viewer = None;
        }
    }
}

/// Whoever panicked while holding it left whole values behind.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
