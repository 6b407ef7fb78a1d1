//! The supervisor's side: starts sandboxes, talks to them, and sees to it that nothing of them is left.
//!
//! A sandbox's first process is the supervisor's own child and is told when its parent ends, which the kernel takes to be
//! the *thread* that started it. So all are started by one thread, which lives as long as any of them.
//!
//! Each sandbox has one task, which reads what the first process reports and afterwards kills, reaps and removes. Whoever
//! holds a [`Sandbox`] may drop it at any time: that ends it. [`Launcher::closed`] waits until nothing is left.

use std::collections::HashMap;
use std::io::{self, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::cgroup::{Group, Hierarchies, LimitsInForce};
use crate::channel;
use crate::error::{ExecError, LaunchError, SandboxGone};
use crate::filter::{self, Program};
use crate::message::{Begin, CommandId, Exit, Joined, Launch, Report, Request};
use crate::offers::Offers;
use crate::policy::{ListenAddress, Policy, check_environment};
use crate::process::{Ending, Ends, Exec, Process, Pty};
use crate::steps::{Plan, plan};
use crate::sys;

/// How the launcher is started.
#[derive(Clone, Debug)]
pub struct LauncherCommand {
    /// The program that calls [`launcher_main`](crate::launcher_main).
    pub program: PathBuf,
    /// By which it knows that it is to.
    pub arguments: Vec<String>,
}

/// Starts sandboxes.
#[derive(Clone, Debug)]
pub struct Launcher {
    shared: Arc<Shared>,
}

/// A sandbox. Dropping it ends it.
#[derive(Debug)]
pub struct Sandbox {
    policy: Policy,
    landlock_abi: u32,
    limits: LimitsInForce,
    memory_meter: Option<PathBuf>,
    listeners: Mutex<Vec<(String, ListenAddress, OwnedFd)>>,
    link: Arc<Link>,
    commands: Arc<Commands>,
    next: AtomicU64,
    ended: watch::Receiver<bool>,
    /// Ends the sandbox when this does.
    _end: DropGuard,
    ending: CancellationToken,
}

/// How the supervisor and a sandbox's first process talk.
#[derive(Debug)]
pub(crate) struct Link {
    control: AsyncFd<OwnedFd>,
}

#[derive(Debug)]
struct Shared {
    command: LauncherCommand,
    programs: Vec<Program>,
    hierarchies: Hierarchies,
    spawner: SyncSender<Spawn>,
    tasks: TaskTracker,
    launched: AtomicU64,
}

/// What the starting thread is asked.
#[derive(Debug)]
struct Spawn {
    control: OwnedFd,
    started: oneshot::Sender<io::Result<Child>>,
}

/// Who waits for what about which command.
#[derive(Debug, Default)]
struct Commands {
    waiting: Mutex<HashMap<CommandId, Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    started: Option<oneshot::Sender<Result<Option<OwnedFd>, Refused>>>,
    exited: oneshot::Sender<Exit>,
}

#[derive(Debug)]
struct Refused {
    stage: String,
    errno: i32,
}

/// What a sandbox's task looks after.
#[derive(Debug)]
struct Tended {
    /// Keeps the starting thread alive, whose end would kill the sandbox.
    shared: Arc<Shared>,
    link: Arc<Link>,
    commands: Arc<Commands>,
    process: OwnedFd,
    group: Group,
    ending: CancellationToken,
    ended: watch::Sender<bool>,
}

/// A launch that has got as far as a process.
#[derive(Debug)]
struct Launching {
    child: Child,
    link: Link,
    process: Option<OwnedFd>,
    group: Group,
}

/// A machine that is busy beyond reason takes a second; the rest is for one that is worse.
const LAUNCH_SECONDS: u64 = 30;

/// Starting a command is a fork; only a file system that does not answer makes it long.
const EXEC_SECONDS: u64 = 30;

/// A killed process ends at once, unless the kernel is stuck in something for it, such as a network file system.
const END_SECONDS: u64 = 30;

/// How many launches may wait for the starting thread.
const SPAWNS: usize = 64;

impl Default for LauncherCommand {
    /// This program, with the argument `sandbox-launcher`.
    fn default() -> Self {
        Self {
            program: PathBuf::from("/proc/self/exe"),
            arguments: vec!["sandbox-launcher".to_owned()],
        }
    }
}

impl Launcher {
    /// Prepares what all sandboxes share. Called within a tokio runtime with I/O and time, which they will use.
    ///
    /// # Errors
    /// There is no filter for this architecture's system calls, no runtime, or no thread to be had.
    pub fn new(command: LauncherCommand) -> Result<Self, LaunchError> {
        let programs = filter::programs().map_err(|error| LaunchError::Supervisor {
            doing: "compile the table of system calls",
            source: io::Error::other(error),
        })?;
        let hierarchies = Hierarchies::of_this_process();
        hierarchies.sweep();
        let (spawner, spawns) = sync_channel(SPAWNS);
        let runtime = Handle::try_current()
            .map_err(|error| supervisor("find the runtime")(io::Error::other(error)))?;
        let starts = command.clone();
        std::thread::Builder::new()
            .name("farrier-sandbox".to_owned())
            .spawn(move || start_launchers(&spawns, &starts, &runtime))
            .map_err(supervisor("start a thread"))?;
        let shared = Arc::new(Shared {
            command,
            programs,
            hierarchies,
            spawner,
            tasks: TaskTracker::new(),
            launched: AtomicU64::new(0),
        });
        Ok(Self { shared })
    }

    /// Starts a sandbox. If this is dropped, the sandbox is ended.
    ///
    /// # Errors
    /// Nothing has run in it, and nothing is left of it. [`LaunchError::Layer`] says which layer could not be applied.
    pub async fn launch(&self, policy: &Policy) -> Result<Sandbox, LaunchError> {
        let offers = Offers::probe();
        let plan = plan(policy, &offers)?;
        let shared = Arc::clone(&self.shared);
        // In a task of its own, so that it is carried to an end, whatever happens to whoever asked.
        let task = self.shared.tasks.spawn(shared.launch(policy.clone(), plan));
        let gone = |error: tokio::task::JoinError| LaunchError::Supervisor {
            doing: "carry the launch to its end",
            source: io::Error::other(error),
        };
        task.await.map_err(gone)?
    }

    /// Waits until every sandbox has ended and is tidied up. None can be started while this waits.
    pub async fn closed(&self) {
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
        self.shared.tasks.reopen();
    }
}

impl Shared {
    async fn launch(self: Arc<Self>, policy: Policy, plan: Plan) -> Result<Sandbox, LaunchError> {
        let landlock_abi = Offers::probe().landlock_abi;
        let number = self.launched.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{number}", policy.name);
        let (group, limits) = self.hierarchies.create(&name, &policy.limits);
        let mut launching = match self.spawn(group).await {
            Ok(launching) => launching,
            Err((error, group)) => {
                group.remove().await;
                return Err(error);
            }
        };
        let ready = tokio::time::timeout(
            Duration::from_secs(LAUNCH_SECONDS),
            self.carry_out(&mut launching, plan),
        );
        let ready = ready.await.unwrap_or(Err(LaunchError::TimedOut {
            seconds: LAUNCH_SECONDS,
        }));
        let (listeners, process) = match (ready, launching.process.take()) {
            (Ok(listeners), Some(process)) => (listeners, process),
            (ready, process) => {
                launching.process = process;
                let error = ready.err().unwrap_or(LaunchError::TimedOut { seconds: 0 });
                return Err(launching.abandon(error, &self.command).await);
            }
        };
        // It has nothing left to do, and nobody else waits for it.
        drop(launching.child.wait().await);
        let listeners = policy.listeners.iter().zip(listeners);
        let listeners = listeners
            .map(|(wanted, socket)| (wanted.name.clone(), wanted.address, socket))
            .collect();
        let Launching { link, group, .. } = launching;
        let link = Arc::new(link);
        let (ended, watched) = watch::channel(false);
        let tended = Tended {
            shared: Arc::clone(&self),
            link: Arc::clone(&link),
            commands: Arc::default(),
            process,
            group,
            ending: CancellationToken::new(),
            ended,
        };
        let sandbox = Sandbox {
            policy,
            landlock_abi,
            limits,
            memory_meter: tended.group.memory_meter(),
            listeners: Mutex::new(listeners),
            link,
            commands: Arc::clone(&tended.commands),
            next: AtomicU64::new(0),
            ended: watched,
            _end: tended.ending.clone().drop_guard(),
            ending: tended.ending.clone(),
        };
        self.tasks.spawn(tended.tend());
        Ok(sandbox)
    }

    async fn spawn(&self, group: Group) -> Result<Launching, (LaunchError, Group)> {
        let failed = |doing| move |source| LaunchError::Supervisor { doing, source };
        let made = channel::pair().and_then(|(ours, theirs)| Ok((Link::new(ours)?, theirs)));
        let (link, control) = match made {
            Ok(made) => made,
            Err(error) => return Err((failed("make a socket")(error), group)),
        };
        let (started, child) = oneshot::channel();
        let asked = self.spawner.try_send(Spawn { control, started });
        let child = match asked {
            Ok(()) => child
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into())),
            Err(_) => Err(io::ErrorKind::WouldBlock.into()),
        };
        match child {
            Ok(child) => Ok(Launching {
                child,
                link,
                process: None,
                group,
            }),
            Err(source) => {
                let program = self.command.program.clone();
                Err((LaunchError::Spawn { program, source }, group))
            }
        }
    }

    /// Tells the launcher what to do, and waits until it is done. Answers with the listeners.
    async fn carry_out(
        &self,
        launching: &mut Launching,
        plan: Plan,
    ) -> Result<Vec<OwnedFd>, LaunchError> {
        let launch = Launch {
            plan,
            programs: self.programs.clone(),
        };
        let file = in_memory(&launch).map_err(supervisor("make a file in memory"))?;
        let link = &launching.link;
        if link.send(&Begin, &[file.as_fd()]).await.is_err() {
            return Err(self.died(&mut launching.child).await);
        }
        loop {
            let reported = launching.link.receive::<Report>().await;
            let Ok(Some((report, mut beside))) = reported else {
                return Err(self.died(&mut launching.child).await);
            };
            match report {
                Report::Forked { pid } => {
                    launching.process = beside.pop();
                    launching.join_groups(pid).await?;
                }
                Report::Ready => return Ok(beside),
                Report::Failed { layer, step, errno } => {
                    let errno = Errno::from_raw_os_error(errno);
                    return Err(LaunchError::Layer { layer, step, errno });
                }
                Report::Started { .. } | Report::Refused { .. } | Report::Exited { .. } => {}
            }
        }
    }

    async fn died(&self, child: &mut Child) -> LaunchError {
        let status = child.wait().await;
        LaunchError::Died {
            program: self.command.program.clone(),
            status: status.map_or_else(|error| error.to_string(), |status| status.to_string()),
        }
    }
}

impl Launching {
    /// Puts the first process into its groups while it takes its steps, and tells it: it waits for that before the last.
    async fn join_groups(&self, pid: i32) -> Result<(), LaunchError> {
        let directories = self.group.directories().to_vec();
        if !directories.is_empty() {
            let joined = tokio::task::spawn_blocking(move || Group::add(&directories, pid)).await;
            match joined.map_err(io::Error::other).and_then(|joined| joined) {
                // It has failed by now, and will be heard to have said so.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                joined => joined.map_err(supervisor("put the sandbox into its control groups"))?,
            }
        }
        drop(self.link.send(&Joined, &[]).await);
        Ok(())
    }

    /// Ends whatever there is of it by now.
    async fn abandon(mut self, error: LaunchError, command: &LauncherCommand) -> LaunchError {
        self.group.kill();
        if let Some(process) = &self.process {
            end_and_reap(process).await;
        }
        if let Err(error) = self.child.kill().await {
            tracing::warn!(%error, program = %command.program.display(), "a launcher may be left");
        }
        drop(self.link);
        self.group.remove().await;
        error
    }
}

impl Tended {
    async fn tend(self) {
        loop {
            let report = tokio::select! {
                () = self.ending.cancelled() => break,
                report = self.link.receive::<Report>() => report,
            };
            match report {
                Ok(Some((report, beside))) => self.commands.take_note(report, beside),
                // The first process has ended, or speaks in tongues.
                Ok(None) | Err(_) => break,
            }
        }
        self.group.kill();
        end_and_reap(&self.process).await;
        self.commands.lock().clear();
        self.group.remove().await;
        self.ended.send_replace(true);
        drop(self.shared);
    }
}

/// Kills a sandbox's first process, which kills all others, and waits until none is left.
async fn end_and_reap(process: &OwnedFd) {
    // It may have ended by itself.
    let _ended_already = pidfd_send_signal(process, Signal::KILL);
    let watched = process
        .try_clone()
        .and_then(|process| sys::watch(process, Interest::READABLE));
    match watched {
        Ok(watched) => {
            let patience = Duration::from_secs(END_SECONDS);
            if tokio::time::timeout(patience, watched.readable())
                .await
                .is_err()
            {
                tracing::warn!("a sandbox has not ended {END_SECONDS} s after it was killed");
            }
        }
        Err(error) => tracing::warn!(%error, "the end of a sandbox could not be waited for"),
    }
    let ended = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    if let Err(error) = waitid(WaitId::PidFd(process.as_fd()), ended) {
        tracing::warn!(%error, "a sandbox's first process could not be reaped");
    }
}

impl Commands {
    fn lock(&self) -> MutexGuard<'_, HashMap<CommandId, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn expect(&self, id: CommandId) -> (StartedReceiver, oneshot::Receiver<Exit>) {
        let (started, starting) = oneshot::channel();
        let (exited, exiting) = oneshot::channel();
        let waiting = Waiting {
            started: Some(started),
            exited,
        };
        self.lock().insert(id, waiting);
        (starting, exiting)
    }

    /// Tells whoever waits. That nobody does any more is no error.
    fn take_note(&self, report: Report, mut beside: Vec<OwnedFd>) {
        let mut waiting = self.lock();
        match report {
            Report::Started { id } => {
                let started = waiting.get_mut(&id).and_then(|one| one.started.take());
                drop(started.map(|started| started.send(Ok(beside.pop()))));
            }
            Report::Refused { id, stage, errno } => {
                let started = waiting.remove(&id).and_then(|one| one.started);
                drop(started.map(|started| started.send(Err(Refused { stage, errno }))));
            }
            Report::Exited { id, exit } => {
                let _nobody_waits = waiting.remove(&id).map(|one| one.exited.send(exit));
            }
            Report::Forked { .. } | Report::Ready | Report::Failed { .. } => {}
        }
    }
}

type StartedReceiver = oneshot::Receiver<Result<Option<OwnedFd>, Refused>>;

impl Sandbox {
    /// The policy that it was started with.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The sockets that were bound inside, by name, with the addresses that were asked for; non-blocking. Once: they are
    /// the caller's from now on.
    #[must_use]
    pub fn take_listeners(&self) -> Vec<(String, ListenAddress, OwnedFd)> {
        let mut listeners = self
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *listeners)
    }

    /// Which limits are in force, and why others are not.
    #[must_use]
    pub fn limits_in_force(&self) -> &LimitsInForce {
        &self.limits
    }

    /// How much memory all its processes use together, in bytes, if a control group counts that.
    #[must_use]
    pub fn memory_bytes(&self) -> Option<u64> {
        let text = std::fs::read_to_string(self.memory_meter.as_ref()?).ok()?;
        text.trim().parse().ok()
    }

    /// At which version of its interface Landlock restricts the sandbox.
    #[must_use]
    pub fn landlock_abi(&self) -> u32 {
        self.landlock_abi
    }

    /// Runs a command. If this is dropped before it answers, the command may run nonetheless.
    ///
    /// # Errors
    /// The command was not started.
    pub async fn exec(&self, exec: Exec) -> Result<Process, ExecError> {
        let Exec {
            argv,
            environment,
            directory,
            io,
        } = exec;
        check_argv(&argv)?;
        check_environment(&environment).map_err(ExecError::Environment)?;
        let program = argv.first().cloned().unwrap_or_default();
        let doing = "make pipes for a command";
        let ends = io.ends();
        let ends = ends.map_err(|source| ExecError::Supervisor { doing, source })?;
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let request = Request::Exec {
            id,
            argv,
            environment: self.environment(environment),
            directory: directory.unwrap_or_else(|| self.policy.user.home.display().to_string()),
            terminal: ends.terminal,
        };
        let asked = self.ask(id, &request, &ends.inside);
        let answered = tokio::time::timeout(Duration::from_secs(EXEC_SECONDS), asked).await;
        let (started, exit) = answered.unwrap_or_else(|_| {
            Err(ExecError::TimedOut {
                program: program.clone(),
                seconds: EXEC_SECONDS,
            })
        })?;
        let terminal = match started {
            Ok(master) => master.map(Pty::new).transpose(),
            Err(Refused { stage, errno }) => {
                let errno = Errno::from_raw_os_error(errno);
                return Err(ExecError::Refused {
                    program,
                    stage,
                    errno,
                });
            }
        };
        let doing = "watch a command's terminal";
        let terminal = terminal.map_err(|source| ExecError::Supervisor { doing, source })?;
        let Ends {
            stdin,
            stdout,
            stderr,
            ..
        } = ends;
        Ok(Process {
            stdin,
            stdout,
            stderr,
            terminal,
            id,
            exit: Ending::Awaited(exit),
            link: Arc::clone(&self.link),
        })
    }

    /// Sends a signal to everything in the sandbox but its first process.
    ///
    /// # Errors
    /// The sandbox has ended.
    pub async fn signal_all(&self, signal: i32) -> Result<(), SandboxGone> {
        let request = Request::SignalAll { signal };
        self.link.send(&request, &[]).await.map_err(|_| SandboxGone)
    }

    /// Ends the sandbox and waits until nothing is left of it.
    pub async fn kill(&self) {
        self.ending.cancel();
        self.wait().await;
    }

    /// Waits until the sandbox has ended, for whatever reason, and nothing is left of it.
    pub async fn wait(&self) {
        let mut ended = self.ended.clone();
        // The task is gone only after it has said so.
        drop(ended.wait_for(|ended| *ended).await);
    }

    /// Whether it has ended and nothing is left of it.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        *self.ended.borrow() || self.ended.has_changed().is_err()
    }

    async fn ask(
        &self,
        id: CommandId,
        request: &Request,
        beside: &[OwnedFd],
    ) -> Result<(Result<Option<OwnedFd>, Refused>, oneshot::Receiver<Exit>), ExecError> {
        let bytes = channel::encode(request).map_err(|source| ExecError::Supervisor {
            doing: "put a command into a message",
            source,
        })?;
        if bytes.len() > channel::MAX_BYTES {
            return Err(ExecError::TooLong {
                bytes: bytes.len(),
                limit: channel::MAX_BYTES,
            });
        }
        let (started, exit) = self.commands.expect(id);
        if self.ending.is_cancelled() || self.has_ended() {
            self.commands.lock().remove(&id);
            return Err(SandboxGone.into());
        }
        let borrowed: Vec<_> = beside.iter().map(AsFd::as_fd).collect();
        if self.link.send_bytes(&bytes, &borrowed).await.is_err() {
            self.commands.lock().remove(&id);
            return Err(SandboxGone.into());
        }
        let started = started.await.map_err(|_| SandboxGone)?;
        Ok((started, exit))
    }

    fn environment(&self, own: std::collections::BTreeMap<String, String>) -> Vec<String> {
        let mut all = self.policy.environment.clone();
        all.extend(own);
        all.into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.tasks.close();
    }
}

impl Link {
    fn new(control: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&control, true)?;
        let control = sys::watch(control, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self { control })
    }

    pub(crate) async fn send(
        &self,
        message: &impl Serialize,
        beside: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        self.send_bytes(&channel::encode(message)?, beside).await
    }

    async fn send_bytes(&self, bytes: &[u8], beside: &[BorrowedFd<'_>]) -> io::Result<()> {
        let send = |socket: &OwnedFd| channel::send_bytes(socket, bytes, beside);
        self.control.async_io(Interest::WRITABLE, send).await
    }

    async fn receive<Message: DeserializeOwned>(
        &self,
    ) -> io::Result<Option<(Message, Vec<OwnedFd>)>> {
        let receive = |socket: &OwnedFd| channel::receive(socket);
        self.control.async_io(Interest::READABLE, receive).await
    }
}

/// The thread that starts launchers, until there is nobody left who could ask.
fn start_launchers(spawns: &Receiver<Spawn>, command: &LauncherCommand, runtime: &Handle) {
    let _inside = runtime.enter();
    for Spawn { control, started } in spawns {
        let child = Command::new(&command.program)
            .args(&command.arguments)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(control))
            .stdout(Stdio::null())
            .spawn();
        if let Err(Ok(child)) = started.send(child) {
            // Whoever asked is gone; the launcher sees its socket closed and ends, and is reaped as an orphan.
            drop(child);
        }
    }
}

fn check_argv(argv: &[String]) -> Result<(), ExecError> {
    let program = argv.first().is_some_and(|program| !program.is_empty());
    if program && argv.iter().all(|word| !word.contains('\0')) {
        return Ok(());
    }
    Err(ExecError::Argv {
        program: argv.first().cloned().unwrap_or_default(),
        arguments: argv.len().saturating_sub(1),
    })
}

fn in_memory(launch: &Launch) -> io::Result<std::fs::File> {
    let file = rustix::fs::memfd_create("farrier-launch", MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(file);
    file.write_all(&serde_json::to_vec(launch)?)?;
    file.rewind()?;
    Ok(file)
}

fn supervisor(doing: &'static str) -> impl Fn(io::Error) -> LaunchError {
    move |source| LaunchError::Supervisor { doing, source }
}
