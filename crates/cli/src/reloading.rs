//! Another configuration for the gateway that runs: when it is read again, and what is told of it.
//!
//! ```text
//! SIGHUP ─────────────┐
//! a file that changed ┼──▶ examine ──▶ take over, or not ──▶ log, metrics, status
//! POST /v1/reload ────┘                     └──────────────▶ the answer, to whoever asked
//! ```
//!
//! One at a time, in the order they come; what comes meanwhile is not lost. Files are read beside the runtime, so that a
//! file system that does not answer keeps nothing waiting but the next reload.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use farrier_control::store::{Change, ChangeError, Store, StoreError};
use farrier_control::talk::ExecRequest;
use farrier_control::{
    self as control, Cause, Code, Conversation, Operations, Outcome, Providers, Reload, SandboxAct,
    SandboxName, SandboxStatus, Status, Unable,
};
use farrier_gateway::{Reloaded, Reloader};
use farrier_ledger::{Clock as _, SystemClock};
use farrier_serve::{Limits, Tracker};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use crate::config::{self, Environment, LedgerSection, Mistake, NoFile, Overrides, Sources};
use crate::egress::Reins;
use crate::failure::Notices;
use crate::log::Log;
use crate::runtime::{Hangup, Hangups};
use crate::sandboxes::Sandboxes;
use crate::watch::Watch;

/// What a gateway was started with, and what reading its configuration again needs.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    /// As it was named, for people.
    pub(crate) file: PathBuf,
    pub(crate) env: Environment,
    pub(crate) overrides: Overrides,
    pub(crate) ledger: LedgerSection,
    pub(crate) listener: Limits,
    /// The proxies that run beside it.
    pub(crate) egress: Reins,
}

/// Reads the configuration again whenever it is to.
#[derive(Debug)]
pub(crate) struct Reloading<'a> {
    origin: Origin,
    reloader: Reloader,
    watch: Watch,
    desk: Desk,
    asked: mpsc::Receiver<Ask>,
    log: Log,
    notices: &'a Notices,
}

/// Where whoever asks over the control socket is answered.
#[derive(Clone, Debug)]
pub(crate) struct Desk {
    gateway: Arc<Running>,
    ask: mpsc::Sender<Ask>,
}

/// What there is to know of the gateway that runs.
#[derive(Debug)]
struct Running {
    sandboxes: Sandboxes,
    /// What its providers are read from.
    origin: Origin,
    config: String,
    listen: Vec<String>,
    since: Instant,
    life: Tracker,
    reloads: Mutex<Reloads>,
}

#[derive(Debug)]
struct Reloads {
    generation: u64,
    serving_since_unix_ms: u64,
    watching: bool,
    last: Option<Reload>,
}

/// What is asked for over the socket, and who waits for the answer.
#[derive(Debug)]
struct Ask {
    /// To be made before the configuration is read.
    change: Option<Change>,
    answer: oneshot::Sender<Result<Reload, Unable>>,
}

/// What an attempt came to.
#[derive(Debug)]
struct Attempt {
    result: Result<Reloaded, Vec<Mistake>>,
    warnings: Vec<Mistake>,
    needs_restart: Vec<String>,
    sources: Sources,
    /// As the configuration wants it, if that can be told.
    watch: Option<bool>,
}

/// Askers that may wait; one more is kept waiting by the socket.
const MAX_ASKS: usize = 16;
/// How long an asker waits for files that are being read.
const PATIENCE: Duration = Duration::from_secs(60);
/// When people are told what they wait for.
const SLOW: Duration = Duration::from_secs(10);

// === impl Reloading ===

impl<'a> Reloading<'a> {
    /// Of a gateway that was just bound at `listen`, from what was read from `sources`. It ends with `life`.
    pub(crate) fn new(
        origin: Origin,
        reloader: Reloader,
        watch: Watch,
        listen: Vec<String>,
        (life, sandboxes): (Tracker, Sandboxes),
        (log, notices): (Log, &'a Notices),
    ) -> Self {
        let (ask, asked) = mpsc::channel(MAX_ASKS);
        let now = SystemClock.unix_millis();
        reloader.show_serving(1, Duration::from_millis(now));
        let running = Running {
            sandboxes,
            origin: origin.clone(),
            config: config::absolute(&origin.file).display().to_string(),
            listen,
            since: Instant::now(),
            life,
            reloads: Mutex::new(Reloads {
                generation: 1,
                serving_since_unix_ms: now,
                watching: watch.is_on(),
                last: None,
            }),
        };
        let gateway = Arc::new(running);
        Self {
            origin,
            reloader,
            watch,
            desk: Desk { gateway, ask },
            asked,
            log,
            notices,
        }
    }

    pub(crate) fn desk(&self) -> Desk {
        self.desk.clone()
    }

    /// Works until the gateway drains. A terminal that closes makes it drain.
    pub(crate) async fn run(mut self, mut hangups: Hangups) {
        let life = self.desk.gateway.life.clone();
        loop {
            let (cause, asker) = tokio::select! {
                () = life.draining() => return,
                hangup = hangups.next() => match hangup {
                    Hangup::Reload => (Cause::Signal, None),
                    Hangup::TerminalClosed => {
                        self.log.tell(self.notices, "the terminal closed; draining");
                        return life.drain();
                    }
                },
                () = self.watch.changed() => (Cause::File, None),
                // We hold a sender ourselves, so there is always a next one to wait for.
                Some(asker) = self.asked.recv() => (Cause::Request, Some(asker)),
            };
            tokio::select! {
                // A swap that is under way by then is harmless.
                () = life.draining() => return,
                () = self.attend(cause, asker) => {}
            }
        }
    }

    async fn attend(&mut self, cause: Cause, asker: Option<Ask>) {
        let Some(Ask { change, answer }) = asker else {
            drop(self.reload(cause).await);
            return;
        };
        let told = match change {
            None => Ok(self.reload(cause).await),
            Some(change) => self.change(change).await,
        };
        // It may have left; then it is not told.
        let _told_or_gone = answer.send(told);
    }

    /// Makes a change of the store and serves what follows from it; takes it back if that cannot be served.
    async fn change(&mut self, change: Change) -> Result<Reload, Unable> {
        let undo = self.make(change).await?;
        let reload = self.reload(Cause::Request).await;
        if reload.result == Outcome::Refused
            && let Err(error) = self.make(undo).await
        {
            warn!(%error, "a change of the state store that was refused cannot be taken back");
        }
        Ok(reload)
    }

    /// Makes a change, on a thread that may block, and gives the one that takes it back.
    async fn make(&self, change: Change) -> Result<Change, Unable> {
        let origin = self.origin.clone();
        let made = spawn_blocking(move || made(&origin, &change)).await;
        made.unwrap_or_else(|died| Err(no_store(died.to_string())))
    }

    async fn reload(&mut self, cause: Cause) -> Reload {
        let attempt = self.attempt().await;
        let watching = attempt.watch.unwrap_or_else(|| self.watch.is_on());
        self.watch = if watching {
            Watch::on(attempt.sources.clone())
        } else {
            Watch::Off
        };
        let at_unix_ms = SystemClock.unix_millis();
        self.reloader.count_attempt(attempt.result.is_ok());
        let generation = {
            let mut reloads = self.desk.gateway.reloads();
            reloads.watching = watching;
            if attempt.result.is_ok() {
                reloads.generation += 1;
                reloads.serving_since_unix_ms = at_unix_ms;
                let since = Duration::from_millis(at_unix_ms);
                self.reloader.show_serving(reloads.generation, since);
            }
            reloads.generation
        };
        self.say(&attempt, cause, generation);
        let reload = self.told(attempt, cause, at_unix_ms, generation);
        self.desk.gateway.reloads().last = Some(reload.clone());
        reload
    }

    /// Reads, examines and takes over, on a thread that may block.
    async fn attempt(&self) -> Attempt {
        let (origin, reloader) = (self.origin.clone(), self.reloader.clone());
        let runtime = Handle::current();
        let mut attempt = spawn_blocking(move || runtime.block_on(attempt(&origin, &reloader)));
        let done = match timeout(SLOW, &mut attempt).await {
            Ok(done) => done,
            Err(_) => {
                warn!("the files of the configuration are still being read after {SLOW:?}");
                attempt.await
            }
        };
        done.unwrap_or_else(|died| Attempt {
            result: Err(vec![Mistake::elsewhere(format!(
                "a mistake of Farrier's own, please report it: {died}"
            ))]),
            warnings: Vec::new(),
            needs_restart: Vec::new(),
            sources: Sources::of_file(&self.origin.file),
            watch: None,
        })
    }

    fn say(&self, attempt: &Attempt, cause: Cause, generation: u64) {
        let file = &self.origin.file;
        let cause = named(cause);
        for warning in &attempt.warnings {
            warn!("{}", warning.shown(file));
        }
        match &attempt.result {
            Ok(_) if attempt.needs_restart.is_empty() => info!(generation, cause, "reloaded"),
            Ok(_) => warn!(
                generation,
                cause,
                needs_restart = attempt.needs_restart.join(", "),
                "reloaded, but for what takes a restart to change"
            ),
            Err(mistakes) => {
                for mistake in mistakes {
                    self.log.complain(self.notices, &mistake.shown(file));
                }
                let mistakes = mistakes.len();
                warn!(
                    generation,
                    cause, mistakes, "not reloaded; the configuration before it serves"
                );
            }
        }
    }

    fn told(&self, attempt: Attempt, cause: Cause, at_unix_ms: u64, generation: u64) -> Reload {
        let config = self.desk.gateway.config.clone();
        let told = |mistakes: &[Mistake]| {
            let told = mistakes.iter().map(|mistake| mistake.told(&config));
            told.collect()
        };
        let warnings = told(&attempt.warnings);
        let (result, mistakes, reconnected) = match attempt.result {
            Ok(reloaded) => (Outcome::Taken, Vec::new(), reloaded.reconnected),
            Err(mistakes) => (Outcome::Refused, told(&mistakes), Vec::new()),
        };
        Reload {
            result,
            cause,
            at_unix_ms,
            generation,
            mistakes,
            warnings,
            needs_restart: attempt.needs_restart,
            reconnected,
            config,
        }
    }
}

async fn attempt(origin: &Origin, reloader: &Reloader) -> Attempt {
    let file_alone = Sources::of_file(&origin.file);
    let examined = config::examine(Some(&origin.file), &origin.env, &origin.overrides);
    let examined = match examined {
        Ok(examined) => examined,
        Err(none) => {
            return Attempt {
                result: Err(vec![missing(none)]),
                warnings: Vec::new(),
                needs_restart: Vec::new(),
                sources: file_alone,
                watch: None,
            };
        }
    };
    let sources = examined.sources.clone();
    let warnings = examined.warnings.clone();
    let watch = examined.mistakes.is_empty().then(|| examined.watches());
    let mut other = restarts(origin, &examined.ledger, examined.listener());
    let egress = origin.egress.prepare(&examined, &origin.env);
    let result = examined.take_over(reloader, &origin.ledger).await;
    if result.is_ok() && origin.egress.take_over(egress) {
        other.push("egress".to_owned());
    }
    let needs_restart = result.as_ref().map_or_else(
        |_refused| Vec::new(),
        |reloaded| {
            let listen = reloaded.needs_restart.contains(&"listen");
            let listen = listen.then(|| "gateway.listen".to_owned());
            listen.into_iter().chain(other).collect()
        },
    );
    Attempt {
        watch: watch.filter(|_| result.is_ok()),
        result,
        warnings,
        needs_restart,
        sources,
    }
}

/// Keys that say something else than what runs, and take a restart to change; but for the addresses.
fn restarts(origin: &Origin, ledger: &LedgerSection, listener: &Limits) -> Vec<String> {
    let runs = &origin.listener;
    let keys = [
        ("ledger", origin.ledger != *ledger),
        (
            "gateway.max_connections",
            runs.max_connections != listener.max_connections,
        ),
        (
            "gateway.max_header",
            runs.max_header_bytes != listener.max_header_bytes,
        ),
        (
            "gateway.max_streams",
            runs.max_streams != listener.max_streams,
        ),
        (
            "gateway.deadlines.header",
            runs.header_read != listener.header_read,
        ),
        (
            "gateway.deadlines.write",
            runs.write_stall != listener.write_stall,
        ),
        ("gateway.deadlines.drain", runs.drain != listener.drain),
    ];
    let differing = keys.into_iter().filter(|(_, differs)| *differs);
    differing.map(|(key, _)| key.to_owned()).collect()
}

/// Changes the store, unless the configuration says otherwise of that provider.
fn made(origin: &Origin, change: &Change) -> Result<Change, Unable> {
    if let Some(message) = config::declared(Some(&origin.file), &origin.env, change.name()) {
        let code = Code::Declared;
        return Err(Unable::Change { code, message });
    }
    let nowhere = || no_store(config::NO_STATE.to_owned());
    let directory = origin.env.store_dir().ok_or_else(nowhere)?;
    let mut store = Store::open(&directory).map_err(|error| store_error(&error))?;
    store.make(change).map_err(|error| {
        let code = match error {
            ChangeError::Exists { .. } => Code::Exists,
            ChangeError::Store(error) => return store_error(&error),
            ChangeError::Unknown { .. } => Code::Unknown,
        };
        let message = error.to_string();
        Unable::Change { code, message }
    })
}

fn store_error(error: &StoreError) -> Unable {
    no_store(config::with_causes(error))
}

fn no_store(message: String) -> Unable {
    let code = Code::Store;
    Unable::Change { code, message }
}

fn missing(none: NoFile) -> Mistake {
    let message = match none {
        NoFile::Nowhere(places) => format!("expected a configuration, got none at {places:?}"),
        NoFile::Unreadable(path, error) => format!("cannot read {}: {error}", path.display()),
    };
    Mistake::elsewhere(message)
}

fn named(cause: Cause) -> &'static str {
    match cause {
        Cause::File => "a file changed",
        Cause::Request => "asked to",
        Cause::Signal => "SIGHUP",
    }
}

// === impl Desk ===

impl Operations for Desk {
    fn status(&self) -> Status {
        let Running {
            config,
            listen,
            since,
            life,
            ..
        } = &*self.gateway;
        let reloads = self.gateway.reloads();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: since.elapsed().as_secs(),
            config: config.clone(),
            generation: reloads.generation,
            serving_since_unix_ms: reloads.serving_since_unix_ms,
            listen: listen.clone(),
            watching: reloads.watching,
            draining: life.is_draining(),
            last_reload: reloads.last.clone(),
        }
    }

    async fn reload(&self) -> Result<Reload, Unable> {
        self.asked(None).await
    }

    async fn providers(&self) -> Result<Providers, Unable> {
        let origin = self.gateway.origin.clone();
        let config = self.gateway.config.clone();
        let read = spawn_blocking(move || {
            let examined = config::examine(Some(&origin.file), &origin.env, &origin.overrides);
            let examined = examined.map_err(|none| no_store(missing(none).message))?;
            let known = examined.known().iter();
            let mut providers: Vec<_> = known
                .map(|known| known.told(Some(&config), &origin.env))
                .collect();
            providers.sort_by(|one, other| one.name.cmp(&other.name));
            Ok(Providers { providers })
        });
        match timeout(PATIENCE, read).await {
            Ok(Ok(providers)) => providers,
            Ok(Err(died)) => Err(no_store(died.to_string())),
            Err(_) => Err(Unable::TimedOut),
        }
    }

    async fn change(&self, change: Change) -> Result<Reload, Unable> {
        self.asked(Some(change.at(SystemClock.unix_millis()))).await
    }

    async fn sandboxes(&self) -> Result<control::Sandboxes, Unable> {
        self.gateway.sandboxes.status()
    }

    async fn sandbox(&self, act: SandboxAct) -> Result<SandboxStatus, Unable> {
        self.gateway.sandboxes.act(act).await
    }

    async fn exec(&self, name: SandboxName, exec: ExecRequest) -> Result<Conversation, Unable> {
        self.gateway.sandboxes.exec(&name, exec).await
    }
}

impl Desk {
    /// Has it done by the one who does everything of the kind, in turn.
    async fn asked(&self, change: Option<Change>) -> Result<Reload, Unable> {
        let (answer, answered) = oneshot::channel();
        let asked = async {
            self.ask.send(Ask { change, answer }).await.ok()?;
            answered.await.ok()
        };
        let life = &self.gateway.life;
        tokio::select! {
            () = life.draining() => Err(Unable::Draining),
            asked = timeout(PATIENCE, asked) => match asked {
                Ok(answer) => answer.unwrap_or(Err(Unable::Draining)),
                Err(_) => Err(Unable::TimedOut),
            }
        }
    }
}

// === impl Running ===

impl Running {
    /// Whoever panicked while holding it left whole values behind.
    fn reloads(&self) -> MutexGuard<'_, Reloads> {
        self.reloads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
