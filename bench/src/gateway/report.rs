//! What the gateway costs, as one report: scenarios, memory, and what was aimed at.

use std::fmt;

use serde::Serialize;

use super::HELD_AT_ONCE;
use super::scenario::{KIMI, KIMI_KNOWN, KIMI_NATIVE, KIMI_UNKNOWN, PLAIN};
use crate::contest::QUIET;
use crate::ground::Weighed;
use crate::process::Memory;
use crate::report::{
    Conditions, Figures, HalfReport, ScenarioReport, Table, count, megabytes, noise, shown,
};

/// Everything there is to tell.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    #[serde(flatten)]
    conditions: Conditions,
    /// Median time of one 4 KiB write and fdatasync where the ledger is.
    sync_us: f64,
    pub(super) scenarios: Vec<ScenarioReport>,
    pub(super) halves: Vec<HalfReport>,
    pub(super) memory: Vec<Held>,
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

/// Scenarios, contestants, and the ratio to nginx that is aimed at.
const CPU_AIMS: &[(&[&str], &[&str], f64)] = &[
    (&["chat-1", "chat-16"], &[PLAIN], 1.3),
    (&["chat-1", "chat-16"], &[KIMI], 2.0),
    (&["stream-1", "stream-16"], &[KIMI], 1.2),
    (
        &["history-1", "history-16", "long-1", "long-16"],
        &[KIMI_UNKNOWN, KIMI_KNOWN, KIMI_NATIVE],
        2.0,
    ),
];
const MOST_BODIES: f64 = 2.0;
const MOST_ADDED_P99_US: f64 = 1_000.0;
const MEMORY_HEAD: &[&str] = &["MB", "idle", "held", "peak", "held/body", "peak/body"];

// === impl Report ===

impl Report {
    pub(super) fn new(conditions: Conditions, sync_us: f64) -> Self {
        Self {
            conditions,
            sync_us,
            scenarios: Vec::new(),
            halves: Vec::new(),
            memory: Vec::new(),
            commit: None,
            aims: Vec::new(),
        }
    }

    /// Draws what follows from the figures, once they are all there.
    pub(super) fn conclude(&mut self) {
        let aims = self
            .cpu_aims()
            .chain(self.half_aims())
            .chain(self.memory_aims());
        self.aims = aims.collect();
        self.commit = self.commit_cost();
    }

    fn cpu_aims(&self) -> impl Iterator<Item = Aim> {
        self.scenarios.iter().flat_map(|scenario| {
            let rows = CPU_AIMS
                .iter()
                .filter(|(ids, ..)| ids.contains(&scenario.id.as_str()));
            rows.flat_map(move |&(_, names, most)| {
                names.iter().filter_map(move |name| {
                    let got = scenario.figures_of(name)?.cpu_of_reference?.median;
                    let what = format!("CPU of {}, {name}", scenario.id);
                    Some(Aim::new(what, got, most, "x nginx"))
                })
            })
        })
    }

    fn half_aims(&self) -> impl Iterator<Item = Aim> {
        self.halves.iter().flat_map(|half| {
            let ours = half
                .entrants
                .iter()
                .filter(|entrant| entrant.name.starts_with("farrier"));
            ours.filter_map(|entrant| {
                let got = entrant.at_half?.added_p99_us?.median;
                let what = format!("added p99 of {}, {}", half.id, entrant.name);
                Some(Aim::new(what, got, MOST_ADDED_P99_US, "us"))
            })
        })
    }

    fn memory_aims(&self) -> impl Iterator<Item = Aim> {
        let ours = self
            .memory
            .iter()
            .filter(|held| held.name.starts_with("farrier"));
        ours.map(|held| {
            let what = format!(
                "memory of {} bytes in flight, {}",
                held.body_bytes, held.name
            );
            Aim::new(what, held.bodies_at_peak, MOST_BODIES, "x its body")
        })
    }

    /// What the plan pays for a turn that it has to remember, over one that it need not.
    fn commit_cost(&self) -> Option<Commit> {
        let figures = |id| -> Option<&Figures> {
            let scenario = self.scenarios.iter().find(|scenario| scenario.id == id)?;
            scenario.figures_of(KIMI)
        };
        let (without, with) = (figures("stream-1")?, figures("tools-1")?);
        let cpu = |figures: &Figures| Some(figures.cpu_us_per_request?.median);
        Some(Commit {
            cpu_us: cpu(with)? - cpu(without)?,
            p50_us: with.p50_us.median - without.p50_us.median,
        })
    }
}

impl Aim {
    fn new(what: String, got: f64, most: f64, unit: &'static str) -> Self {
        Self {
            what,
            got,
            most,
            unit,
            met: got <= most,
        }
    }
}

// === impl Held ===

impl Held {
    pub(super) fn new(name: &'static str, body_bytes: usize, weighed: Weighed) -> Self {
        let Weighed { idle, held } = weighed;
        let bodies = |bytes: u64| {
            let grown = bytes.saturating_sub(idle.resident_bytes);
            megabytes(grown) * 1e6 / count(HELD_AT_ONCE * body_bytes)
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

    fn cells(&self) -> Vec<String> {
        let megabytes = |bytes| shown(Some(megabytes(bytes)), 1);
        vec![
            format!("{}, {} KB", self.name, self.body_bytes / 1_000),
            megabytes(self.idle.resident_bytes),
            megabytes(self.held.resident_bytes),
            megabytes(self.held.peak_bytes),
            shown(Some(self.bodies_held), 2),
            shown(Some(self.bodies_at_peak), 2),
        ]
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.conditions)?;
        let sync_us = self.sync_us;
        writeln!(
            f,
            "write and fdatasync of 4 KiB where the ledger is: {sync_us:.0} us"
        )?;
        for scenario in &self.scenarios {
            write!(f, "\n{scenario}")?;
        }
        for half in &self.halves {
            write!(f, "\n{half}")?;
        }
        if !self.memory.is_empty() {
            writeln!(
                f,
                "\nmemory: {HELD_AT_ONCE} requests in flight, their answer withheld; growth of each in bodies"
            )?;
            let rows = self.memory.iter().map(Held::cells);
            write!(f, "{}", Table::new(MEMORY_HEAD, rows))?;
        }
        let (all, noisy) = noise(self.scenarios.iter(), self.halves.iter());
        writeln!(
            f,
            "\nothers had more than {QUIET} of a core during {noisy} of {all} runs"
        )?;
        if let Some(Commit { cpu_us, p50_us }) = &self.commit {
            writeln!(
                f,
                "a turn that is remembered costs {p50_us:.0} us and {cpu_us:.0} us of CPU more (stream-1 to tools-1, with the plan)"
            )?;
        }
        self.aims.iter().try_for_each(|aim| writeln!(f, "{aim}"))
    }
}

impl fmt::Display for Aim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            what,
            got,
            most,
            unit,
            met,
        } = self;
        let met = if *met { "met" } else { "not met" };
        write!(f, "{what}: {got:.2} {unit}, aim {most}: {met}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_counted_in_bodies_for_each_request() {
        let memory = |resident_bytes, peak_bytes| Memory {
            resident_bytes,
            peak_bytes,
        };
        let weighed = Weighed {
            idle: memory(10_000, 12_000),
            held: memory(42_000, 58_000),
        };
        let held = Held::new(KIMI, 1_000, weighed);
        assert!((held.bodies_held - 2.0).abs() < 1e-9);
        assert!((held.bodies_at_peak - 3.0).abs() < 1e-9);
    }

    #[test]
    fn an_aim_says_what_was_wanted_and_whether_it_was_met() {
        let aim = |got| Aim::new("CPU of chat-1".into(), got, 1.3, "x nginx").to_string();
        assert_eq!(aim(1.3), "CPU of chat-1: 1.30 x nginx, aim 1.3: met");
        assert_eq!(aim(1.31), "CPU of chat-1: 1.31 x nginx, aim 1.3: not met");
    }
}
