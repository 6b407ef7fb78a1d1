//! The report as tables, for a terminal.

use std::fmt;

use super::{Aim, Commit, Entrant, Held, Report, ScenarioReport, megabytes};
use crate::exchange::HISTORY_BYTES;
use crate::run::{HELD_AT_ONCE, QUIET};

/// Rows under a head: the first column to the left, figures to the right.
struct Table {
    rows: Vec<Vec<String>>,
}

const SCENARIO_HEAD: &[&str] = &[
    "us",
    "CPU/req",
    "x nginx",
    "p50",
    "p99",
    "added p50",
    "added p99",
    "req/s",
    "RSS MB",
];
const MEMORY_HEAD: &[&str] = &["MB", "idle", "held", "peak", "held/body", "peak/body"];

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pinned = match self.pinned {
            true => "targets on one, clients and upstream on another",
            false => "nothing pinned",
        };
        let Self {
            cores,
            rounds,
            slice_ms,
            sync_us,
            ..
        } = self;
        writeln!(
            f,
            "{cores} cores, {pinned}; medians of {rounds} rounds of {slice_ms} ms"
        )?;
        writeln!(
            f,
            "write and fdatasync of 4 KiB where the ledger is: {sync_us:.0} us"
        )?;
        for scenario in &self.scenarios {
            write!(f, "\n{scenario}")?;
        }
        if !self.memory.is_empty() {
            writeln!(
                f,
                "\nmemory: {HELD_AT_ONCE} requests of {HISTORY_BYTES} bytes in flight, their answer withheld; growth of each in bodies"
            )?;
            write!(
                f,
                "{}",
                Table::new(MEMORY_HEAD, self.memory.iter().map(Held::cells))
            )?;
        }
        let (all, noisy) = self.runs();
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
        write!(f, "{what}: {got:.2} {unit}, aim {most:.0}: {met}")
    }
}

impl fmt::Display for ScenarioReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: {}, {} at once",
            self.id, self.what, self.connections
        )?;
        write!(
            f,
            "{}",
            Table::new(SCENARIO_HEAD, self.entrants.iter().map(Entrant::cells))
        )
    }
}

impl Entrant {
    fn cells(&self) -> Vec<String> {
        let Some(medians) = self.medians else {
            return vec![self.name.to_owned()];
        };
        let resident = self.memory.resident_bytes;
        vec![
            self.name.to_owned(),
            shown(medians.cpu_us_per_request, 1),
            shown(medians.cpu_of_nginx, 2),
            shown(Some(medians.p50_us), 0),
            shown(Some(medians.p99_us), 0),
            shown(medians.added_p50_us, 0),
            shown(medians.added_p99_us, 0),
            shown(Some(medians.requests_per_second), 0),
            shown((resident > 0).then(|| megabytes(resident)), 1),
        ]
    }
}

impl Held {
    fn cells(&self) -> Vec<String> {
        let megabytes = |bytes| shown(Some(megabytes(bytes)), 1);
        vec![
            self.name.to_owned(),
            megabytes(self.idle.resident_bytes),
            megabytes(self.held.resident_bytes),
            megabytes(self.held.peak_bytes),
            shown(Some(self.bodies_held), 2),
            shown(Some(self.bodies_at_peak), 2),
        ]
    }
}

// === impl Table ===

impl Table {
    fn new(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Self {
        let head = head.iter().map(|&cell| cell.to_owned()).collect();
        Self {
            rows: std::iter::once(head).chain(rows).collect(),
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.rows {
            for (column, cell) in row.iter().enumerate() {
                match column {
                    0 => write!(f, "  {cell:<26}")?,
                    _ => write!(f, " {cell:>9}")?,
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

fn shown(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.decimals$}"))
}
