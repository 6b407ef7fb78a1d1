//! What was measured: every run's raw figures and their medians. It serialises as it is; [`shown`] makes tables of it.
//!
//! Ratios and differences are taken within a round, where both sides met the same machine, and then their median.

mod shown;

use std::time::Duration;

use serde::Serialize;

use crate::load::{Seen, Timed};
use crate::process::{CpuUsed, Memory};
use crate::run::{HELD_AT_ONCE, QUIET, Settings};
use crate::scenario::{DIRECT, KIMI, KIMI_KNOWN, KIMI_UNKNOWN, NGINX, Scenario};

/// Everything there is to tell.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    cores: usize,
    pinned: bool,
    rounds: usize,
    slice_ms: u128,
    /// Median time of one 4 KiB write and fdatasync where the ledger is.
    pub(crate) sync_us: f64,
    pub(crate) scenarios: Vec<ScenarioReport>,
    pub(crate) memory: Vec<Held>,
    commit: Option<Commit>,
    aims: Vec<Aim>,
}

/// What was wanted of a figure.
#[derive(Debug, Serialize)]
struct Aim {
    what: String,
    got: f64,
    most: f64,
    unit: &'static str,
    met: bool,
}

/// What a turn costs because it is remembered: stream-1 to tools-1, with the plan.
#[derive(Debug, Serialize)]
struct Commit {
    cpu_us: f64,
    p50_us: f64,
}

#[derive(Debug, Serialize)]
pub(crate) struct ScenarioReport {
    id: &'static str,
    what: &'static str,
    connections: usize,
    /// Whether latencies are those of chunks, not of requests.
    latency_of_chunks: bool,
    entrants: Vec<Entrant>,
}

/// One contestant's runs, in the order of the rounds.
#[derive(Debug, Serialize)]
pub(crate) struct Entrant {
    name: &'static str,
    /// The request body as the upstream received it.
    upstream_bytes: usize,
    /// Of the target's processes after the last round, whatever else they were asked before.
    #[serde(flatten)]
    pub(crate) memory: Memory,
    pub(crate) runs: Vec<Run>,
    medians: Option<Medians>,
}

/// One slice of time.
#[derive(Debug, Serialize)]
pub(crate) struct Run {
    requests: usize,
    seconds: f64,
    /// From schedstat; `None` for the direct call, which has no process between.
    cpu_us_per_request: Option<f64>,
    /// The same from utime and stime, in ticks.
    cpu_us_per_request_by_ticks: Option<f64>,
    p50_us: f64,
    p99_us: f64,
    /// Cores that everybody else had meanwhile.
    pub(crate) others: f64,
}

/// Over the rounds.
#[derive(Clone, Copy, Debug, Serialize)]
struct Medians {
    requests_per_second: f64,
    cpu_us_per_request: Option<f64>,
    cpu_of_nginx: Option<f64>,
    p50_us: f64,
    p99_us: f64,
    added_p50_us: Option<f64>,
    added_p99_us: Option<f64>,
}

/// Memory of requests in flight.
#[derive(Debug, Serialize)]
pub(crate) struct Held {
    name: &'static str,
    body_bytes: usize,
    in_flight: usize,
    idle: Memory,
    held: Memory,
    /// Growth for each request, in bodies: while all wait for their answer, and at the worst moment before.
    bodies_held: f64,
    bodies_at_peak: f64,
}

// === impl Report ===

impl Report {
    pub(crate) fn new(settings: &Settings, cores: usize, pinned: bool) -> Self {
        Self {
            cores,
            pinned,
            rounds: settings.rounds,
            slice_ms: settings.slice.as_millis(),
            sync_us: 0.0,
            scenarios: Vec::new(),
            memory: Vec::new(),
            commit: None,
            aims: Vec::new(),
        }
    }

    /// Draws what follows from the figures, once they are all there.
    pub(crate) fn conclude(&mut self) {
        let chats = self
            .scenarios
            .iter()
            .filter(|scenario| scenario.id.starts_with("chat-"));
        let cpu = chats.filter_map(|scenario| {
            let got = scenario.of(KIMI)?.medians?.cpu_of_nginx?;
            let at_once = scenario.connections;
            let what = format!("CPU of a 1 KB chat with the plan, {at_once} at once");
            Some(Aim::new(what, got, "x nginx"))
        });
        let kimi = |held: &&Held| [KIMI_KNOWN, KIMI_UNKNOWN].contains(&held.name);
        let memory = self.memory.iter().filter(kimi).map(|held| {
            let what = format!("memory of a 500 KB request, {}", held.name);
            Aim::new(what, held.bodies_at_peak, "x its body")
        });
        self.aims = cpu.chain(memory).collect();
        self.commit = self.commit_cost();
    }

    /// What the plan pays for a turn that it has to remember, over one that it need not.
    fn commit_cost(&self) -> Option<Commit> {
        let medians = |id| {
            let scenario = self.scenarios.iter().find(|scenario| scenario.id == id)?;
            scenario.of(KIMI)?.medians
        };
        let (without, with) = (medians("stream-1")?, medians("tools-1")?);
        Some(Commit {
            cpu_us: with.cpu_us_per_request? - without.cpu_us_per_request?,
            p50_us: with.p50_us - without.p50_us,
        })
    }

    /// How many runs there were, and during how many others kept a core busy.
    fn runs(&self) -> (usize, usize) {
        let entrants = self
            .scenarios
            .iter()
            .flat_map(|scenario| &scenario.entrants);
        entrants
            .flat_map(|entrant| &entrant.runs)
            .fold((0, 0), |(all, noisy), run| {
                (all + 1, noisy + usize::from(run.others > QUIET))
            })
    }
}

impl Aim {
    fn new(what: String, got: f64, unit: &'static str) -> Self {
        Self {
            what,
            got,
            most: 3.0,
            unit,
            met: got <= 3.0,
        }
    }
}

// === impl ScenarioReport ===

impl ScenarioReport {
    pub(crate) fn new(scenario: &Scenario, mut entrants: Vec<Entrant>) -> Self {
        let all: Vec<Medians> = entrants
            .iter()
            .map(|entrant| Medians::of(entrant, &entrants))
            .collect();
        for (entrant, medians) in entrants.iter_mut().zip(all) {
            entrant.medians = Some(medians);
        }
        Self {
            id: scenario.id,
            what: scenario.what,
            connections: scenario.connections,
            latency_of_chunks: scenario.timed == Timed::Chunk,
            entrants,
        }
    }

    fn of(&self, name: &str) -> Option<&Entrant> {
        self.entrants.iter().find(|entrant| entrant.name == name)
    }
}

// === impl Entrant ===

impl Entrant {
    pub(crate) fn new(name: &'static str, upstream_bytes: usize) -> Self {
        Self {
            name,
            upstream_bytes,
            memory: Memory::default(),
            runs: Vec::new(),
            medians: None,
        }
    }
}

// === impl Run ===

impl Run {
    pub(crate) fn new(seen: Seen, elapsed: Duration, used: Option<CpuUsed>, others: f64) -> Self {
        let mut latencies = seen.latencies;
        latencies.sort_unstable();
        let per_request = |cpu: Duration| micros(cpu) / count(seen.requests);
        Self {
            requests: seen.requests,
            seconds: elapsed.as_secs_f64(),
            cpu_us_per_request: used.map(|used| per_request(used.exact)),
            cpu_us_per_request_by_ticks: used.map(|used| per_request(used.by_ticks)),
            p50_us: micros(percentile(&latencies, 50)),
            p99_us: micros(percentile(&latencies, 99)),
            others,
        }
    }
}

/// The smallest value that at least `percent` of all do not exceed; zero of nothing.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted
        .get(rank.saturating_sub(1))
        .copied()
        .unwrap_or_default()
}

// === impl Medians ===

impl Medians {
    fn of(entrant: &Entrant, all: &[Entrant]) -> Self {
        let own = |value: fn(&Run) -> Option<f64>| median(entrant.runs.iter().filter_map(value));
        // Against another of the same round.
        let against = |name, value: fn(&Run, &Run) -> Option<f64>| {
            let other = all
                .iter()
                .find(|other| other.name == name && other.name != entrant.name)?;
            median(
                entrant
                    .runs
                    .iter()
                    .zip(&other.runs)
                    .filter_map(|(run, other)| value(run, other)),
            )
        };
        Self {
            requests_per_second: own(|run| Some(count(run.requests) / run.seconds))
                .unwrap_or_default(),
            cpu_us_per_request: own(|run| run.cpu_us_per_request),
            cpu_of_nginx: against(NGINX, |run, nginx| {
                Some(run.cpu_us_per_request? / nginx.cpu_us_per_request?)
            }),
            p50_us: own(|run| Some(run.p50_us)).unwrap_or_default(),
            p99_us: own(|run| Some(run.p99_us)).unwrap_or_default(),
            added_p50_us: against(DIRECT, |run, direct| Some(run.p50_us - direct.p50_us)),
            added_p99_us: against(DIRECT, |run, direct| Some(run.p99_us - direct.p99_us)),
        }
    }
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(*values.get(middle - 1)?, upper))
}

// === impl Held ===

impl Held {
    pub(crate) fn new(name: &'static str, body_bytes: usize, idle: Memory, held: Memory) -> Self {
        let bodies = |bytes: u64| {
            let grown = bytes.saturating_sub(idle.resident_bytes);
            megabytes(grown) / megabytes((HELD_AT_ONCE * body_bytes) as u64)
        };
        Self {
            name,
            body_bytes,
            in_flight: HELD_AT_ONCE,
            idle,
            held,
            bodies_held: bodies(held.resident_bytes),
            bodies_at_peak: bodies(held.peak_bytes),
        }
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts and bytes of a run are far below 2^53"
)]
fn count(number: usize) -> f64 {
    number as f64
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts and bytes of a run are far below 2^53"
)]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(requests: usize, cpu: f64, p50_us: f64) -> Run {
        Run {
            requests,
            seconds: 0.5,
            cpu_us_per_request: Some(cpu),
            cpu_us_per_request_by_ticks: None,
            p50_us,
            p99_us: 2.0 * p50_us,
            others: 0.0,
        }
    }

    fn entrant(name: &'static str, runs: Vec<Run>) -> Entrant {
        Entrant {
            runs,
            ..Entrant::new(name, 0)
        }
    }

    #[test]
    fn ratios_are_taken_within_a_round_before_their_median() {
        let all = [
            entrant(
                DIRECT,
                vec![run(9, 0.0, 10.0), run(9, 0.0, 20.0), run(9, 0.0, 10.0)],
            ),
            entrant(
                NGINX,
                vec![run(5, 10.0, 50.0), run(5, 20.0, 50.0), run(5, 40.0, 50.0)],
            ),
            entrant(
                KIMI,
                vec![run(3, 20.0, 60.0), run(3, 80.0, 90.0), run(3, 120.0, 70.0)],
            ),
        ];
        let medians = Medians::of(&all[2], &all);
        assert_eq!(medians.cpu_us_per_request, Some(80.0));
        assert_eq!(medians.cpu_of_nginx, Some(3.0));
        assert_eq!(medians.added_p50_us, Some(60.0));
        assert_eq!(medians.added_p99_us, Some(120.0));
        assert!((medians.requests_per_second - 6.0).abs() < 1e-9);
        assert_eq!(Medians::of(&all[0], &all).added_p50_us, None);
        assert_eq!(Medians::of(&all[1], &all).cpu_of_nginx, None);
    }

    #[test]
    fn percentiles_are_values_that_occur() {
        let sorted: Vec<Duration> = (1..=200).map(Duration::from_micros).collect();
        assert_eq!(percentile(&sorted, 50), Duration::from_micros(100));
        assert_eq!(percentile(&sorted, 99), Duration::from_micros(198));
        assert_eq!(percentile(&sorted[..1], 99), Duration::from_micros(1));
        assert_eq!(percentile(&[], 50), Duration::ZERO);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(median([4.0, 1.0, 3.0].into_iter()), Some(3.0));
        assert_eq!(median([4.0, 1.0].into_iter()), Some(2.5));
        assert_eq!(median(std::iter::empty()), None);
    }

    #[test]
    fn growth_is_counted_in_bodies_for_each_request() {
        let memory = |resident_bytes, peak_bytes| Memory {
            resident_bytes,
            peak_bytes,
        };
        let held = Held::new(KIMI, 1_000, memory(10_000, 12_000), memory(42_000, 58_000));
        assert!((held.bodies_held - 2.0).abs() < 1e-9);
        assert!((held.bodies_at_peak - 3.0).abs() < 1e-9);
    }
}
