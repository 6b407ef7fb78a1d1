//! A contest: everybody is asked the same in interleaved rounds, and what that took is reported.
//!
//! ```text
//! each scenario    check each contestant ▸ warm each up ▸ rounds
//! each round       each contestant in turn: connect ▸ one answer each ▸ CPU before ▸ ask for a slice of time ▸ CPU after
//! ```
//!
//! Only what happened in the same round is compared. What others do on the machine is watched: a slice during which they
//! had more than [`QUIET`] of a core is tried again, a bounded number of times, and the quietest try counts. A slice counts
//! only if the upstream received as many requests as clients got answers: nothing was answered from a cache or asked twice.
//!
//! A contestant that fails drops out of the scenario, and the report says why; the others go on.

use std::io;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::clock::Clock;
use crate::exchange::Script;
use crate::http::HttpError;
use crate::load::{Clients, Load, Timed, once};
use crate::process::{CpuTime, Machine, Memory, Pids};
use crate::report::{Entrant, HalfEntrant, HalfReport, Run, ScenarioReport};
use crate::upstream::Upstream;
use crate::wire::Way;

/// The contestant that stands between nobody: the upstream itself.
pub(crate) const DIRECT: &str = "direct";
/// For all but tests.
pub(crate) const WARM_UP: Duration = Duration::from_millis(200);
/// What others may have of a core while a slice is measured.
pub(crate) const QUIET: f64 = 0.12;

/// How contests are held.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Contest<'u> {
    pub(crate) upstream: &'u Upstream,
    pub(crate) clock: Clock,
    pub(crate) rounds: usize,
    pub(crate) slice: Duration,
    /// Long enough for every lazily made thing to be made.
    pub(crate) warm_up: Duration,
    /// Tries after the first of a slice that was not quiet.
    pub(crate) more_tries: usize,
}

/// One kind of request at one load.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) id: String,
    pub(crate) what: String,
    pub(crate) load: Load,
    pub(crate) timed: Timed,
    pub(crate) script: Script,
    /// Whom the others are compared with, besides [`DIRECT`].
    pub(crate) reference: Option<String>,
    pub(crate) contestants: Vec<Contestant>,
}

/// Who is asked, and what.
#[derive(Clone, Debug)]
pub(crate) struct Contestant {
    pub(crate) name: String,
    pub(crate) way: Way,
    /// The processes whose use of the machine is its cost; none if nobody knows them.
    pub(crate) pids: Pids,
    pub(crate) request: Vec<u8>,
    /// How long a body the upstream must receive, where that can be known.
    pub(crate) upstream_bytes: Option<RangeInclusive<usize>>,
}

/// Why a contestant dropped out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Dropped {
    #[error("expected the upstream to receive a body of {expected:?} bytes, got {got:?}")]
    Body {
        expected: RangeInclusive<usize>,
        got: RangeInclusive<usize>,
    },
    #[error(
        "expected the upstream to receive {answered} requests, as many as were answered, got {received}"
    )]
    Count { answered: usize, received: usize },
    #[error(transparent)]
    Exchange(#[from] HttpError),
    #[error("cannot read what its processes use: {0}")]
    Processes(#[from] io::Error),
}

impl Contest<'_> {
    /// The same load for everybody.
    pub(crate) fn measure(&self, scenario: &Scenario) -> ScenarioReport {
        let mut entrants = self.entrants(scenario);
        self.rounds(scenario, &mut entrants, Some(scenario.load));
        ScenarioReport::new(scenario, entrants)
    }

    /// Half of what each can do: what it adds to a latency when it is busy, but not at its limit.
    ///
    /// The scenario's load finds each one's limit. Then requests come at half of that rate to it, and to the upstream
    /// itself, one after the other.
    pub(crate) fn measure_half(&self, scenario: &Scenario) -> HalfReport {
        let saturated = self.measure(scenario);
        let (direct, others): (Vec<_>, Vec<_>) = scenario
            .contestants
            .iter()
            .partition(|contestant| contestant.name == DIRECT);
        let pairs = others.into_iter().map(|contestant| {
            let pair = Scenario {
                contestants: direct
                    .iter()
                    .copied()
                    .chain([contestant])
                    .cloned()
                    .collect(),
                ..scenario.clone()
            };
            let mut entrants = self.entrants(&pair);
            let limit = saturated.requests_per_second(&contestant.name);
            let load = limit.map(|limit| Load::Open {
                per_second: limit / 2.0,
            });
            self.rounds(&pair, &mut entrants, load);
            HalfEntrant::new(&contestant.name, &saturated, entrants)
        });
        HalfReport::new(scenario, pairs.collect())
    }

    /// Everybody, checked and warm.
    fn entrants(&self, scenario: &Scenario) -> Vec<Entrant> {
        let enter = |contestant: &Contestant| {
            let mut entrant = Entrant::new(&contestant.name);
            match self.check_and_warm(scenario, contestant) {
                Ok(received) => entrant.upstream_bytes = received,
                Err(why) => entrant.failed = Some(why.to_string()),
            }
            entrant
        };
        scenario.contestants.iter().map(enter).collect()
    }

    /// No rounds without a load.
    fn rounds(&self, scenario: &Scenario, entrants: &mut [Entrant], load: Option<Load>) {
        for _ in 0..self.rounds {
            for (contestant, entrant) in scenario.contestants.iter().zip(&mut *entrants) {
                let Some(load) = load.filter(|_| entrant.failed.is_none()) else {
                    continue;
                };
                match self.quiet_slice(scenario, contestant, load) {
                    Ok(run) => entrant.runs.push(run),
                    Err(why) => entrant.failed = Some(why.to_string()),
                }
            }
        }
        for (contestant, entrant) in scenario.contestants.iter().zip(entrants) {
            // One that ended meanwhile has failed already, or fails next.
            entrant.memory = Memory::of(&contestant.pids).unwrap_or_default();
        }
    }

    /// Whether the upstream receives what it should, and how long that is.
    fn check_and_warm(
        &self,
        scenario: &Scenario,
        contestant: &Contestant,
    ) -> Result<usize, Dropped> {
        self.upstream.expect(scenario.script);
        once(&contestant.way, &contestant.request)?;
        let got = self.upstream.tally().bytes();
        let expected = contestant.upstream_bytes.as_ref().unwrap_or(&got);
        if !(expected.contains(got.start()) && expected.contains(got.end())) {
            let expected = expected.clone();
            return Err(Dropped::Body { expected, got });
        }
        let load = Load::Closed {
            connections: scenario.load.connections(),
        };
        self.slice(scenario, contestant, load, self.warm_up)?;
        // Not every system lets the peak be forgotten; it is then one since the start.
        let _unforgotten = Memory::start_peak(&contestant.pids);
        Ok(*got.end())
    }

    fn quiet_slice(
        &self,
        scenario: &Scenario,
        contestant: &Contestant,
        load: Load,
    ) -> Result<Run, Dropped> {
        let measure = || self.slice(scenario, contestant, load, self.slice);
        let mut best = measure()?;
        for _ in 0..self.more_tries {
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
        load: Load,
        slice: Duration,
    ) -> Result<Run, Dropped> {
        let Contestant {
            way, pids, request, ..
        } = contestant;
        let connections = load.connections();
        let mut clients = Clients::connect(way, connections, request, scenario.timed, self.clock)?;
        self.upstream.expect(scenario.script);
        clients.ask_once()?;
        self.upstream.expect(scenario.script);
        let (machine, cpu, start) = (Machine::now(pids)?, CpuTime::of(pids)?, self.clock.now());
        let seen = clients.ask_for(slice, load)?;
        let elapsed = self.clock.now() - start;
        let used = CpuTime::of(pids)?.since(&cpu);
        let others = Machine::now(pids)?.others_since(machine, elapsed);
        let received = self.upstream.tally().requests;
        if received != seen.requests {
            return Err(Dropped::Count {
                answered: seen.requests,
                received,
            });
        }
        let used = (!pids.is_empty()).then_some(used);
        Ok(Run::new(&seen, elapsed, used, others))
    }
}
