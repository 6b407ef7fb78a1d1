//! What was measured: every run's raw figures, and what follows from them over the rounds. It serialises as it is;
//! [`mod@shown`] makes tables of it.
//!
//! Ratios and differences are taken within a round, where both sides met the same machine; of those comes the median, with
//! the least and the greatest beside it.

mod shown;

use std::time::Duration;

use serde::Serialize;

pub(crate) use shown::{Table, shown};

use crate::contest::{DIRECT, QUIET, Scenario};
use crate::load::{Latencies, Load, Seen, Timed};
use crate::process::{CpuUsed, Memory, core_count};

/// The circumstances of a run.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Conditions {
    cores: usize,
    pinned: bool,
    rounds: usize,
    slice_ms: u128,
}

/// One figure over the rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

#[derive(Debug, Serialize)]
pub(crate) struct ScenarioReport {
    pub(crate) id: String,
    pub(crate) what: String,
    /// Of a closed loop, or those that an open loop may use.
    pub(crate) connections: usize,
    /// Of an open loop.
    pub(crate) per_second: Option<f64>,
    /// Whether latencies are those of chunks, not of requests.
    latency_of_chunks: bool,
    reference: Option<String>,
    pub(crate) entrants: Vec<Entrant>,
}

/// One contestant's runs, in the order of the rounds.
#[derive(Debug, Serialize)]
pub(crate) struct Entrant {
    pub(crate) name: String,
    /// The request body as the upstream received it.
    pub(crate) upstream_bytes: usize,
    /// Of the target's processes after the last round, whatever else they were asked before.
    #[serde(flatten)]
    pub(crate) memory: Memory,
    pub(crate) runs: Vec<Run>,
    /// Why there are no more.
    pub(crate) failed: Option<String>,
    pub(crate) figures: Option<Figures>,
}

/// One slice of time.
#[derive(Debug, Serialize)]
pub(crate) struct Run {
    requests: usize,
    seconds: f64,
    /// From schedstat; `None` where no process is known.
    cpu_us_per_request: Option<f64>,
    /// The same from utime and stime, in ticks.
    cpu_us_per_request_by_ticks: Option<f64>,
    p50_us: f64,
    p99_us: f64,
    /// How much later than due requests were sent, in an open loop.
    late_p99_us: f64,
    /// Cores that everybody else had meanwhile.
    pub(crate) others: f64,
}

/// Over the rounds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Figures {
    pub(crate) requests_per_second: Spread,
    pub(crate) cpu_us_per_request: Option<Spread>,
    pub(crate) cpu_of_reference: Option<Spread>,
    pub(crate) p50_us: Spread,
    pub(crate) p99_us: Spread,
    pub(crate) added_p50_us: Option<Spread>,
    pub(crate) added_p99_us: Option<Spread>,
    pub(crate) late_p99_us: Spread,
}

/// A scenario at half of what each can do.
#[derive(Debug, Serialize)]
pub(crate) struct HalfReport {
    pub(crate) id: String,
    pub(crate) what: String,
    /// With which each one's limit was found.
    pub(crate) connections: usize,
    pub(crate) entrants: Vec<HalfEntrant>,
}

/// One contestant at half of its limit, and the direct call at the same rate.
#[derive(Debug, Serialize)]
pub(crate) struct HalfEntrant {
    pub(crate) name: String,
    /// Requests in a second, closed loop.
    pub(crate) limit: Option<Spread>,
    pub(crate) at_half: Option<Figures>,
    pub(crate) direct: Option<Figures>,
    pub(crate) failed: Option<String>,
    /// Of both, in the order of the rounds.
    pair: Vec<Entrant>,
}

// === impl Conditions ===

impl Conditions {
    /// To be noted before this thread is put on a core: then it has just that one.
    pub(crate) fn new(pinned: bool, rounds: usize, slice: Duration) -> Self {
        Self {
            cores: core_count(),
            pinned,
            rounds,
            slice_ms: slice.as_millis(),
        }
    }
}

// === impl Spread ===

impl Spread {
    /// Of nothing there is none.
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let upper = *values.get(middle)?;
        let median = match values.len() % 2 {
            0 => f64::midpoint(*values.get(middle - 1)?, upper),
            _ => upper,
        };
        Some(Self {
            median,
            least: *values.first()?,
            most: *values.last()?,
        })
    }
}

// === impl ScenarioReport ===

impl ScenarioReport {
    pub(crate) fn new(scenario: &Scenario, entrants: Vec<Entrant>) -> Self {
        Self {
            id: scenario.id.clone(),
            what: scenario.what.clone(),
            connections: scenario.load.connections(),
            per_second: match scenario.load {
                Load::Closed { .. } => None,
                Load::Open { per_second } => Some(per_second),
            },
            latency_of_chunks: scenario.timed == Timed::Chunk,
            reference: scenario.reference.clone(),
            entrants: with_figures(entrants, scenario.reference.as_deref()),
        }
    }

    pub(crate) fn of(&self, name: &str) -> Option<&Entrant> {
        self.entrants.iter().find(|entrant| entrant.name == name)
    }

    pub(crate) fn figures_of(&self, name: &str) -> Option<&Figures> {
        self.of(name)?.figures.as_ref()
    }

    pub(crate) fn requests_per_second(&self, name: &str) -> Option<f64> {
        Some(self.figures_of(name)?.requests_per_second.median)
    }
}

// === impl HalfReport ===

impl HalfReport {
    pub(crate) fn new(scenario: &Scenario, entrants: Vec<HalfEntrant>) -> Self {
        Self {
            id: scenario.id.clone(),
            what: scenario.what.clone(),
            connections: scenario.load.connections(),
            entrants,
        }
    }
}

impl HalfEntrant {
    /// `pair` is the direct call and the contestant of this name.
    pub(crate) fn new(name: &str, saturated: &ScenarioReport, pair: Vec<Entrant>) -> Self {
        let pair = with_figures(pair, None);
        let of = |wanted: &str| pair.iter().find(|entrant| entrant.name == wanted);
        let figures = |wanted| of(wanted).and_then(|entrant| entrant.figures);
        let failed = [saturated.of(name), of(name), of(DIRECT)];
        let failed = failed
            .into_iter()
            .find_map(|entrant| entrant.and_then(|entrant| entrant.failed.clone()));
        Self {
            name: name.to_owned(),
            limit: saturated
                .figures_of(name)
                .map(|figures| figures.requests_per_second),
            at_half: figures(name),
            direct: figures(DIRECT),
            failed,
            pair,
        }
    }
}

// === impl Entrant ===

impl Entrant {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            upstream_bytes: 0,
            memory: Memory::default(),
            runs: Vec::new(),
            failed: None,
            figures: None,
        }
    }
}

fn with_figures(mut entrants: Vec<Entrant>, reference: Option<&str>) -> Vec<Entrant> {
    let all: Vec<_> = entrants
        .iter()
        .map(|entrant| Figures::of(entrant, &entrants, reference))
        .collect();
    for (entrant, figures) in entrants.iter_mut().zip(all) {
        entrant.figures = figures;
    }
    entrants
}

/// How many runs there were, and during how many others kept a core busy.
pub(crate) fn noise<'r>(
    scenarios: impl Iterator<Item = &'r ScenarioReport>,
    halves: impl Iterator<Item = &'r HalfReport>,
) -> (usize, usize) {
    let of_scenarios = scenarios.flat_map(|scenario| &scenario.entrants);
    let of_halves = halves.flat_map(|half| &half.entrants);
    let entrants = of_scenarios.chain(of_halves.flat_map(|entrant| &entrant.pair));
    entrants
        .flat_map(|entrant| &entrant.runs)
        .fold((0, 0), |(all, noisy), run| {
            (all + 1, noisy + usize::from(run.others > QUIET))
        })
}

// === impl Run ===

impl Run {
    pub(crate) fn new(seen: &Seen, elapsed: Duration, used: Option<CpuUsed>, others: f64) -> Self {
        let (latencies, late) = (Latencies::of(&seen.latencies), Latencies::of(&seen.late));
        let per_request = |cpu: Duration| micros(cpu) / count(seen.requests);
        Self {
            requests: seen.requests,
            seconds: elapsed.as_secs_f64(),
            cpu_us_per_request: used.map(|used| per_request(used.exact)),
            cpu_us_per_request_by_ticks: used.map(|used| per_request(used.by_ticks)),
            p50_us: latencies.percentile_us(50.0),
            p99_us: latencies.percentile_us(99.0),
            late_p99_us: late.percentile_us(99.0),
            others,
        }
    }
}

// === impl Figures ===

impl Figures {
    /// `None` of no runs.
    fn of(entrant: &Entrant, all: &[Entrant], reference: Option<&str>) -> Option<Self> {
        let own =
            |value: fn(&Run) -> Option<f64>| Spread::of(entrant.runs.iter().filter_map(value));
        // Against another of the same round.
        let against = |name: Option<&str>, value: fn(&Run, &Run) -> Option<f64>| {
            let other = all
                .iter()
                .find(|other| Some(other.name.as_str()) == name && other.name != entrant.name)?;
            let rounds = entrant.runs.iter().zip(&other.runs);
            Spread::of(rounds.filter_map(|(run, other)| value(run, other)))
        };
        Some(Self {
            requests_per_second: own(|run| Some(count(run.requests) / run.seconds))?,
            cpu_us_per_request: own(|run| run.cpu_us_per_request),
            cpu_of_reference: against(reference, |run, other| {
                // Too little to be seen is nothing to compare with.
                let other = other.cpu_us_per_request.filter(|cpu| *cpu > 0.0)?;
                Some(run.cpu_us_per_request? / other)
            }),
            p50_us: own(|run| Some(run.p50_us))?,
            p99_us: own(|run| Some(run.p99_us))?,
            added_p50_us: against(Some(DIRECT), |run, direct| Some(run.p50_us - direct.p50_us)),
            added_p99_us: against(Some(DIRECT), |run, direct| Some(run.p99_us - direct.p99_us)),
            late_p99_us: own(|run| Some(run.late_p99_us))?,
        })
    }
}

pub(crate) fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts and bytes of a run are far below 2^53"
)]
pub(crate) fn count(number: usize) -> f64 {
    number as f64
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts and bytes of a run are far below 2^53"
)]
pub(crate) fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn run(requests: usize, cpu: f64, p50_us: f64) -> Run {
        Run {
            requests,
            seconds: 0.5,
            cpu_us_per_request: Some(cpu),
            cpu_us_per_request_by_ticks: None,
            p50_us,
            p99_us: 2.0 * p50_us,
            late_p99_us: 0.0,
            others: 0.0,
        }
    }

    fn entrant(name: &str, runs: Vec<Run>) -> Entrant {
        Entrant {
            runs,
            ..Entrant::new(name)
        }
    }

    fn spread(median: f64, least: f64, most: f64) -> Option<Spread> {
        Some(Spread {
            median,
            least,
            most,
        })
    }

    #[test]
    fn ratios_are_taken_within_a_round_before_their_median() {
        let all = with_figures(
            vec![
                entrant(
                    DIRECT,
                    vec![run(9, 0.0, 10.0), run(9, 0.0, 20.0), run(9, 0.0, 10.0)],
                ),
                entrant(
                    "peer",
                    vec![run(5, 10.0, 50.0), run(5, 20.0, 50.0), run(5, 40.0, 50.0)],
                ),
                entrant(
                    "ours",
                    vec![run(3, 20.0, 60.0), run(3, 80.0, 90.0), run(3, 120.0, 70.0)],
                ),
            ],
            Some("peer"),
        );
        let [direct, peer, ours] = &all[..] else {
            panic!("three went in");
        };
        let figures = ours.figures.expect("it ran");
        assert_eq!(figures.cpu_us_per_request, spread(80.0, 20.0, 120.0));
        assert_eq!(figures.cpu_of_reference, spread(3.0, 2.0, 4.0));
        assert_eq!(figures.added_p50_us, spread(60.0, 50.0, 70.0));
        assert_eq!(figures.added_p99_us, spread(120.0, 100.0, 140.0));
        assert_eq!(Some(figures.requests_per_second), spread(6.0, 6.0, 6.0));
        assert_eq!(direct.figures.expect("it ran").added_p50_us, None);
        assert_eq!(peer.figures.expect("it ran").cpu_of_reference, None);
    }

    #[test]
    fn a_contestant_that_dropped_out_before_its_first_run_has_no_figures_but_a_reason() {
        let mut gone = entrant("gone", Vec::new());
        gone.failed = Some("expected status 200, got 500: no".into());
        let all = with_figures(vec![gone], None);
        assert!(all.iter().all(|entrant| entrant.figures.is_none()));
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(
            Spread::of([4.0, 1.0, 3.0].into_iter()),
            spread(3.0, 1.0, 4.0)
        );
        assert_eq!(Spread::of([4.0, 1.0].into_iter()), spread(2.5, 1.0, 4.0));
        assert_eq!(Spread::of(std::iter::empty()), None);
    }
}
