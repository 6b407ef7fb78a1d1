//! What a run of ours stands on: the upstream, a directory on a real disk, and targets started as they are needed.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::contest::{Contest, WARM_UP};
use crate::exchange::{KIMI_MODEL, Length, Replayed, Script, chat, plain_request};
use crate::http::HttpError;
use crate::load::{Clients, Timed, once};
use crate::process::{Cores, Memory};
use crate::report::{Conditions, Spread, micros};
use crate::target::{ANY_PORT, Launch, Log, Target, TargetError};
use crate::upstream::Upstream;
use crate::wire::{Identity, TlsError};

/// What is measured, and how long.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) farrier: PathBuf,
    /// `None` leaves nginx out.
    pub(crate) nginx: Option<PathBuf>,
    /// `None` leaves tinyproxy out.
    pub(crate) tinyproxy: Option<PathBuf>,
    pub(crate) rounds: usize,
    pub(crate) slice: Duration,
    /// Tries after the first of a slice that was not quiet.
    pub(crate) more_tries: usize,
    /// Ids of what is to be measured; everything, if it names nothing.
    pub(crate) only: Vec<String>,
    /// Where ledgers are kept: the disk whose sync is part of the figures.
    pub(crate) directory: PathBuf,
}

/// Upstream, directory and cores.
#[derive(Debug)]
pub(crate) struct Ground<'s> {
    pub(crate) settings: &'s Settings,
    pub(crate) clock: Clock,
    pub(crate) conditions: Conditions,
    cores: Option<Cores>,
    pub(crate) upstream: Upstream,
    /// Goes with this.
    directory: tempfile::TempDir,
}

/// A target's memory before requests came, and with all of them in flight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weighed {
    pub(crate) idle: Memory,
    pub(crate) held: Memory,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error("{name} dropped out of {id}: {why}")]
    Dropped {
        id: String,
        name: String,
        why: String,
    },
    #[error("{name}: {source}")]
    Exchange { name: String, source: HttpError },
    #[error(transparent)]
    Ledger(#[from] crate::growth::LedgerRunError),
    #[error("expected {count} requests at the upstream within its patience, got fewer ({name})")]
    NotHeld { name: String, count: usize },
    #[error("cannot measure: {0}")]
    System(#[from] io::Error),
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("expected a tool call in the reply to turn {turn}, got none")]
    Turn { turn: usize },
}

/// Connections of a target, where nothing needs more.
const USUAL_CONNECTIONS: usize = 512;

// === impl Settings ===

impl Settings {
    pub(crate) fn wants(&self, id: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|wanted| wanted == id)
    }
}

// === impl RunError ===

impl RunError {
    /// For `map_err`: who it was.
    pub(crate) fn exchange(name: &str) -> impl Fn(HttpError) -> Self + use<> {
        let name = name.to_owned();
        move |source| Self::Exchange {
            name: name.clone(),
            source,
        }
    }
}

// === impl Ground ===

impl<'s> Ground<'s> {
    pub(crate) fn new(settings: &'s Settings) -> Result<Self, RunError> {
        Self::behind(settings, None)
    }

    /// The same, the upstream being behind TLS.
    pub(crate) fn behind(
        settings: &'s Settings,
        identity: Option<&Identity>,
    ) -> Result<Self, RunError> {
        let cores = Cores::pick();
        let conditions = Conditions::new(cores.is_some(), settings.rounds, settings.slice);
        if let Some(cores) = cores {
            Cores::enter(cores.rest)?;
        }
        let clock = Clock::start();
        Ok(Self {
            settings,
            clock,
            conditions,
            cores,
            upstream: Upstream::start_with(
                ANY_PORT,
                clock,
                identity.map(|identity| Arc::clone(&identity.server)),
            )?,
            directory: tempfile::tempdir_in(&settings.directory)?,
        })
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn contest(&self) -> Contest<'_> {
        Contest {
            upstream: &self.upstream,
            clock: self.clock,
            rounds: self.settings.rounds,
            slice: self.settings.slice,
            warm_up: WARM_UP,
            more_tries: self.settings.more_tries,
        }
    }

    /// Starts Farrier with the ledger that is kept under `name`, or a new one.
    pub(crate) fn farrier(&self, name: &str, log: Log) -> Result<Target, RunError> {
        self.farrier_for(name, log, USUAL_CONNECTIONS)
    }

    /// The same, for so many connections.
    pub(crate) fn farrier_for(
        &self,
        name: &str,
        log: Log,
        connections: usize,
    ) -> Result<Target, RunError> {
        let launch = self.launch(name, &self.settings.farrier, connections)?;
        Ok(launch.farrier(&self.ledger(name), log)?)
    }

    /// Where the ledger of that name is.
    pub(crate) fn ledger(&self, name: &str) -> PathBuf {
        self.directory().join(name).join("ledger.db")
    }

    pub(crate) fn nginx(&self, name: &str) -> Result<Option<Target>, RunError> {
        self.nginx_for(name, USUAL_CONNECTIONS)
    }

    /// `None` if it is left out.
    pub(crate) fn nginx_for(
        &self,
        name: &str,
        connections: usize,
    ) -> Result<Option<Target>, RunError> {
        let Some(program) = &self.settings.nginx else {
            return Ok(None);
        };
        Ok(Some(self.launch(name, program, connections)?.nginx()?))
    }

    /// How a program is started in a directory of its own.
    pub(crate) fn launch(
        &self,
        name: &str,
        program: &Path,
        connections: usize,
    ) -> Result<Launch, RunError> {
        let directory = self.directory().join(name);
        fs::create_dir_all(&directory)?;
        Ok(Launch {
            cores: self.cores,
            directory,
            upstream: self.upstream.address(),
            program: program.to_owned(),
            before: Vec::new(),
            connections,
        })
    }

    /// What `count` of these requests in flight weigh in `target`, which is at rest.
    pub(crate) fn weigh(
        &self,
        name: &str,
        target: &Target,
        request: &[u8],
        count: usize,
    ) -> Result<Weighed, RunError> {
        let exchange = RunError::exchange(name);
        let small = plain_request(Script::Json, &chat(KIMI_MODEL, Script::Json));
        let clients = Clients::connect(&target.way(), count, &small, Timed::Request, self.clock);
        let mut clients = clients.map_err(&exchange)?;
        clients.ask_once().map_err(&exchange)?;
        Memory::start_peak(target.pids())?;
        let idle = Memory::of(target.pids())?;
        let mut clients = clients.asking(request);
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| clients.ask_once());
            let arrived = self.upstream.holds(count);
            let held = Memory::of(target.pids());
            let released = self.upstream.release();
            let answered = asking.join().unwrap_or(Err(HttpError::Closed));
            answered.map_err(&exchange)?;
            released?;
            if !arrived {
                let name = name.to_owned();
                return Err(RunError::NotHeld { name, count });
            }
            Ok(Weighed { idle, held: held? })
        })
    }

    /// The median time to make 4 KiB durable where the ledgers are: what a commit cannot be cheaper than.
    pub(crate) fn sync_us(&self) -> Result<f64, RunError> {
        let mut file = File::create(self.directory().join("sync"))?;
        let mut times = Vec::new();
        for _ in 0..51 {
            let start = self.clock.now();
            file.write_all(&[0; 4096])?;
            file.sync_data()?;
            times.push(micros(self.clock.now() - start));
        }
        let spread = Spread::of(times.into_iter());
        Ok(spread.map_or(0.0, |spread| spread.median))
    }
}

/// Has the gateway remember the turns of a history of this length, by asking for each: the turns as a client sends them
/// back that kept their ids and lost their reasoning.
pub(crate) fn learn(farrier: &Target, length: Length) -> Result<Vec<Replayed>, RunError> {
    let learn_one = |turn| {
        let ask = plain_request(Script::Turn(turn), &chat(KIMI_MODEL, Script::Json));
        let (_, body) = once(&farrier.way(), &ask).map_err(RunError::exchange("farrier"))?;
        let reply: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let id = reply.pointer("/choices/0/message/tool_calls/0/id");
        let id = id
            .and_then(|id| id.as_str())
            .ok_or(RunError::Turn { turn })?;
        Ok(Replayed {
            id: id.to_owned(),
            whole: false,
        })
    };
    (0..length.turns()).map(learn_one).collect()
}
