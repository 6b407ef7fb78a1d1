//! The run: everybody started, every scenario measured in interleaved rounds, everybody stopped.
//!
//! ```text
//! each scenario    check each contestant ▸ warm each up ▸ rounds
//! each round       each contestant in turn: connect ▸ one answer ▸ CPU before ▸ ask for a slice of time ▸ CPU after
//! ```
//!
//! What others do on the machine is watched: a slice during which they had more than [`QUIET`] of a core is tried again,
//! a bounded number of times, and the quietest try counts.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock::Clock;
use crate::exchange::{HISTORY_BYTES, KIMI_MODEL, Script, TURNS, chat, request};
use crate::http::HttpError;
use crate::load::{Clients, Seen, Timed, once};
use crate::process::{Cores, CpuTime, Machine, Memory, core_count};
use crate::report::{Entrant, Held, Report, Run, ScenarioReport};
use crate::scenario::{self, Contestant, Histories, MEMORY, Place, Scenario};
use crate::target::{Launch, Log, Target, TargetError};
use crate::upstream::Upstream;

/// What to run, and how long.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) farrier: PathBuf,
    /// `None` leaves nginx out.
    pub(crate) nginx: Option<PathBuf>,
    pub(crate) rounds: usize,
    pub(crate) slice: Duration,
    /// Tries after the first of a slice that was not quiet.
    pub(crate) more_tries: usize,
    /// Ids of the scenarios to measure; all, if it names none.
    pub(crate) only: Vec<String>,
    /// Where ledgers are kept: the disk whose sync is part of the figures.
    pub(crate) directory: PathBuf,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error("expected {name} to let the upstream receive {expected:?} bytes, got {got}")]
    Body {
        name: &'static str,
        expected: std::ops::RangeInclusive<usize>,
        got: usize,
    },
    #[error("{name}: {source}")]
    Exchange {
        name: &'static str,
        source: HttpError,
    },
    #[error("expected {count} requests at the upstream within its patience, got fewer ({name})")]
    NotHeld { name: &'static str, count: usize },
    #[error("cannot measure: {0}")]
    System(#[from] io::Error),
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error("expected a tool call in the reply to turn {turn}, got none")]
    Turn { turn: usize },
}

/// Everybody, started.
struct Bench<'s> {
    settings: &'s Settings,
    clock: Clock,
    cores: Option<Cores>,
    upstream: Upstream,
    /// Its directory goes with it.
    directory: tempfile::TempDir,
}

/// The targets of all scenarios but that of memory.
struct Targets {
    farrier: Target,
    logging: Target,
    nginx: Option<Target>,
}

/// What others may have of a core while a slice is measured.
pub(crate) const QUIET: f64 = 0.12;
/// Long enough for every lazily made thing to be made.
const WARM_UP: Duration = Duration::from_millis(200);
/// Requests held at once while memory is measured.
pub(crate) const HELD_AT_ONCE: usize = 16;

/// Measures everything; `tell` says what is being done.
pub(crate) fn run(settings: &Settings, tell: &mut dyn FnMut(&str)) -> Result<Report, RunError> {
    let count = core_count();
    let cores = Cores::pick();
    if let Some(cores) = cores {
        Cores::enter(cores.rest)?;
    }
    let clock = Clock::start();
    let bench = Bench {
        settings,
        clock,
        cores,
        upstream: Upstream::start(clock)?,
        directory: tempfile::tempdir_in(&settings.directory)?,
    };
    let mut report = Report::new(settings, count, cores.is_some());
    report.sync_us = sync_cost(bench.directory.path(), clock)?;
    let targets = bench.start()?;
    let histories = Histories::new(learn(&targets.farrier)?);
    let wanted = scenario::all(&histories)
        .into_iter()
        .filter(|scenario| settings.wants(scenario.id));
    for scenario in wanted {
        tell(&format!(
            "{}: {}, {} at once",
            scenario.id, scenario.what, scenario.connections
        ));
        report.scenarios.push(bench.measure(&scenario, &targets)?);
    }
    targets.stop()?;
    let held = histories
        .contestants(Script::Held)
        .into_iter()
        .filter(|_| settings.wants(MEMORY));
    for contestant in held.filter(|contestant| contestant.place != Place::Direct) {
        tell(&format!(
            "{MEMORY}: {HELD_AT_ONCE} requests in flight, {}",
            contestant.name
        ));
        report.memory.extend(bench.hold(&contestant)?);
    }
    bench.upstream.stop();
    report.conclude();
    Ok(report)
}

/// Has the gateway remember the turns of the long history, by asking for each; the ids it gave for them.
fn learn(farrier: &Target) -> Result<Vec<String>, RunError> {
    let learn_one = |turn| {
        let ask = request(Script::Turn(turn), &chat(KIMI_MODEL, Script::Json));
        let (_, body) = once(farrier.address(), &ask).map_err(|source| RunError::Exchange {
            name: "farrier",
            source,
        })?;
        let reply: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let id = reply.pointer("/choices/0/message/tool_calls/0/id");
        id.and_then(|id| id.as_str())
            .map(str::to_owned)
            .ok_or(RunError::Turn { turn })
    };
    (0..TURNS).map(learn_one).collect()
}

// === impl Settings ===

impl Settings {
    fn wants(&self, id: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|wanted| wanted == id)
    }
}

// === impl Bench ===

impl Bench<'_> {
    fn start(&self) -> Result<Targets, RunError> {
        Ok(Targets {
            farrier: self.farrier("farrier", Log::Warnings)?,
            logging: self.farrier("logging", Log::Requests)?,
            nginx: self.nginx("nginx")?,
        })
    }

    /// Starts Farrier with the ledger that is kept under `name`, or a new one.
    fn farrier(&self, name: &str, log: Log) -> Result<Target, RunError> {
        let launch = self.launch(name, &self.settings.farrier)?;
        Ok(launch.farrier(&launch.directory.join("ledger.db"), log)?)
    }

    fn nginx(&self, name: &str) -> Result<Option<Target>, RunError> {
        let Some(program) = &self.settings.nginx else {
            return Ok(None);
        };
        Ok(Some(self.launch(name, program)?.nginx()?))
    }

    fn launch<'l>(&self, name: &str, program: &'l Path) -> Result<Launch<'l>, RunError> {
        let directory = self.directory.path().join(name);
        std::fs::create_dir_all(&directory)?;
        Ok(Launch {
            cores: self.cores,
            directory,
            upstream: self.upstream.address(),
            program,
        })
    }

    fn measure(&self, scenario: &Scenario, targets: &Targets) -> Result<ScenarioReport, RunError> {
        let present: Vec<&Contestant> = scenario
            .contestants
            .iter()
            .filter(|contestant| targets.has(contestant.place))
            .collect();
        let mut entrants = Vec::new();
        for contestant in &present {
            let received = self.check(contestant, targets)?;
            self.slice(scenario, contestant, targets, WARM_UP)?;
            Memory::start_peak(targets.pids(contestant.place))?;
            entrants.push(Entrant::new(contestant.name, received));
        }
        for _ in 0..self.settings.rounds {
            for (contestant, entrant) in present.iter().zip(&mut entrants) {
                entrant
                    .runs
                    .push(self.quiet_slice(scenario, contestant, targets)?);
            }
        }
        for (contestant, entrant) in present.iter().zip(&mut entrants) {
            entrant.memory = Memory::of(targets.pids(contestant.place))?;
        }
        Ok(ScenarioReport::new(scenario, entrants))
    }

    /// Whether the upstream receives what it should.
    fn check(&self, contestant: &Contestant, targets: &Targets) -> Result<usize, RunError> {
        let name = contestant.name;
        let (head, _) = once(self.address(contestant.place, targets), &contestant.request)
            .map_err(|source| RunError::Exchange { name, source })?;
        let got = head.received.unwrap_or_default();
        if contestant.upstream_bytes.contains(&got) {
            return Ok(got);
        }
        Err(RunError::Body {
            name,
            expected: contestant.upstream_bytes.clone(),
            got,
        })
    }

    fn quiet_slice(
        &self,
        scenario: &Scenario,
        contestant: &Contestant,
        targets: &Targets,
    ) -> Result<Run, RunError> {
        let measure = || self.slice(scenario, contestant, targets, self.settings.slice);
        let mut best = measure()?;
        for _ in 0..self.settings.more_tries {
            if best.others <= QUIET {
                break;
            }
            let again = measure()?;
            if again.others < best.others {
                best = again;
            }
        }
        Ok(best)
    }

    fn slice(
        &self,
        scenario: &Scenario,
        contestant: &Contestant,
        targets: &Targets,
        slice: Duration,
    ) -> Result<Run, RunError> {
        let name = contestant.name;
        let exchange = |source| RunError::Exchange { name, source };
        let pids = targets.pids(contestant.place);
        let address = self.address(contestant.place, targets);
        let Scenario {
            connections, timed, ..
        } = *scenario;
        let mut clients =
            Clients::connect(address, connections, &contestant.request, timed, self.clock)
                .map_err(exchange)?;
        clients.ask_for(Duration::ZERO).map_err(exchange)?;
        let (machine, cpu, start) = (Machine::now(pids)?, CpuTime::of(pids)?, self.clock.now());
        let seen: Seen = clients.ask_for(slice).map_err(exchange)?;
        let elapsed = self.clock.now() - start;
        let used = CpuTime::of(pids)?.since(&cpu);
        let others = Machine::now(pids)?.others_since(machine, elapsed);
        let used = (!pids.is_empty()).then_some(used);
        Ok(Run::new(seen, elapsed, used, others))
    }

    /// What requests in flight weigh in a target that was just started; `None` if it is left out.
    fn hold(&self, contestant: &Contestant) -> Result<Option<Held>, RunError> {
        let name = contestant.name;
        let target = match contestant.place {
            Place::Direct => None,
            Place::Nginx => self.nginx("nginx")?,
            Place::Farrier | Place::FarrierLogging => Some(self.farrier("farrier", Log::Warnings)?),
        };
        let Some(target) = target else {
            return Ok(None);
        };
        let exchange = |source| RunError::Exchange { name, source };
        let small = request(Script::Json, &chat(KIMI_MODEL, Script::Json));
        let mut clients = Clients::connect(
            target.address(),
            HELD_AT_ONCE,
            &small,
            Timed::Request,
            self.clock,
        )
        .map_err(exchange)?;
        clients.ask_for(Duration::ZERO).map_err(exchange)?;
        Memory::start_peak(target.pids())?;
        let idle = Memory::of(target.pids())?;
        let mut clients = clients.asking(&contestant.request);
        let held = std::thread::scope(|scope| {
            let asking = scope.spawn(|| clients.ask_for(Duration::ZERO));
            let arrived = self.upstream.holds(HELD_AT_ONCE);
            let held = Memory::of(target.pids());
            self.upstream.release();
            let answered = asking.join().unwrap_or(Err(HttpError::Closed));
            answered.map_err(exchange)?;
            if arrived {
                Ok(held?)
            } else {
                Err(RunError::NotHeld {
                    name,
                    count: HELD_AT_ONCE,
                })
            }
        })?;
        target.stop()?;
        Ok(Some(Held::new(name, HISTORY_BYTES, idle, held)))
    }

    fn address(&self, place: Place, targets: &Targets) -> std::net::SocketAddr {
        targets
            .of(place)
            .map_or_else(|| self.upstream.address(), Target::address)
    }
}

// === impl Targets ===

impl Targets {
    fn of(&self, place: Place) -> Option<&Target> {
        match place {
            Place::Direct => None,
            Place::Farrier => Some(&self.farrier),
            Place::FarrierLogging => Some(&self.logging),
            Place::Nginx => self.nginx.as_ref(),
        }
    }

    fn has(&self, place: Place) -> bool {
        place == Place::Direct || self.of(place).is_some()
    }

    fn pids(&self, place: Place) -> &[u32] {
        self.of(place).map_or(&[], Target::pids)
    }

    fn stop(self) -> Result<(), TargetError> {
        self.farrier.stop()?;
        self.logging.stop()?;
        self.nginx.map_or(Ok(()), Target::stop)
    }
}

/// The median time to make 4 KiB durable where the ledgers are: what a commit cannot be cheaper than.
fn sync_cost(directory: &Path, clock: Clock) -> Result<f64, RunError> {
    let mut file = File::create(directory.join("sync"))?;
    let mut times = Vec::new();
    for _ in 0..51 {
        let start = clock.now();
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        times.push((clock.now() - start).as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    Ok(times.get(times.len() / 2).copied().unwrap_or_default())
}
