//! Histories of ten to five thousand messages: what a request costs for each byte of its body, in time and in memory.

use std::fmt;
use std::hint::black_box;

use serde::Serialize;

use super::{Ground, Histories, Log, Place, RunError, Target, learn};
use crate::contest::{Contestant, DIRECT, Scenario};
use crate::exchange::{Length, Script};
use crate::gateway::scenario::NGINX;
use crate::load::{Load, Timed};
use crate::report::{Spread, Table, count, megabytes, micros, shown};

/// By length of the history, shortest first.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    sizes: Vec<Size>,
}

#[derive(Debug, Serialize)]
struct Size {
    messages: usize,
    bytes: usize,
    /// One copy of the body from memory to memory, on this core in this run.
    memcpy_us: f64,
    rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    name: String,
    cpu_us: Spread,
    /// The process' growth at the worst moment of [`IN_FLIGHT`] such requests, for each, in bodies.
    bodies_at_peak: f64,
}

const LENGTHS: [usize; 4] = [10, 100, 1_000, 5_000];
/// Few, since five thousand messages are 12.5 MB.
const IN_FLIGHT: usize = 4;
const COPIES: usize = 15;

pub(super) fn run(ground: &Ground<'_>, tell: &mut dyn FnMut(&str)) -> Result<Report, RunError> {
    let longest = LENGTHS.map(|messages| Length { messages });
    let farrier = ground.farrier("growth", Log::Warnings)?;
    let nginx = ground.nginx("growth-nginx")?;
    let known = longest.last().map(|length| learn(&farrier, *length));
    let histories = Histories::new(known.transpose()?.unwrap_or_default());
    let mut sizes = Vec::new();
    for length in longest {
        tell(&format!("history: {} messages", length.messages));
        let cpu = cpu(ground, &farrier, nginx.as_ref(), &histories, length)?;
        sizes.push(Size {
            messages: length.messages,
            bytes: length.bytes(),
            memcpy_us: memcpy_us(ground, length.bytes()),
            rows: rows(ground, &histories, length, cpu)?,
        });
    }
    farrier.stop()?;
    nginx.map_or(Ok(()), Target::stop)?;
    Ok(Report { sizes })
}

/// CPU time of each that has a process.
fn cpu(
    ground: &Ground<'_>,
    farrier: &Target,
    nginx: Option<&Target>,
    histories: &Histories,
    length: Length,
) -> Result<Vec<(String, Spread)>, RunError> {
    let mut contestants = Vec::new();
    for entry in histories.entries(length, Script::Json) {
        let target = match entry.place {
            Place::Farrier | Place::FarrierLogging => Some(farrier),
            Place::Nginx => nginx,
            Place::Direct => None,
        };
        let Some(target) = target else { continue };
        contestants.push(Contestant {
            name: entry.name.to_owned(),
            way: target.way(),
            pids: target.pids().to_vec(),
            request: entry.request,
            upstream_bytes: Some(entry.upstream_bytes),
        });
    }
    let measured = ground.contest().measure(&Scenario {
        id: "history".to_owned(),
        what: String::new(),
        load: Load::Closed { connections: 1 },
        timed: Timed::Request,
        script: Script::Json,
        reference: None,
        contestants,
    });
    let entrants = measured.entrants.into_iter();
    let figures = entrants.map(|entrant| match (entrant.failed, entrant.figures) {
        (None, Some(figures)) => Ok((entrant.name, figures.cpu_us_per_request)),
        (why, _) => Err(RunError::Dropped {
            id: format!("a history of {} messages", length.messages),
            name: entrant.name,
            why: why.unwrap_or_default(),
        }),
    });
    let figures: Vec<_> = figures.collect::<Result<_, _>>()?;
    let known = figures.into_iter();
    Ok(known.filter_map(|(name, cpu)| Some((name, cpu?))).collect())
}

/// Each with its memory, in a target that was just started.
fn rows(
    ground: &Ground<'_>,
    histories: &Histories,
    length: Length,
    cpu: Vec<(String, Spread)>,
) -> Result<Vec<Row>, RunError> {
    let entries = histories.entries(length, Script::Held);
    let mut rows = Vec::new();
    for (name, cpu_us) in cpu {
        let entry = entries
            .iter()
            .find(|entry| entry.name == name && name != DIRECT);
        let Some(entry) = entry else { continue };
        let target = match entry.name {
            NGINX => ground.nginx("weighed-nginx")?,
            _ => Some(ground.farrier("weighed", Log::Warnings)?),
        };
        let Some(target) = target else { continue };
        let weighed = ground.weigh(&name, &target, &entry.request, IN_FLIGHT)?;
        target.stop()?;
        let grown = weighed
            .held
            .peak_bytes
            .saturating_sub(weighed.idle.resident_bytes);
        rows.push(Row {
            name,
            cpu_us,
            bodies_at_peak: megabytes(grown) * 1e6 / count(IN_FLIGHT * length.bytes()),
        });
    }
    Ok(rows)
}

/// The median of some copies, after one that brings the pages in.
fn memcpy_us(ground: &Ground<'_>, bytes: usize) -> f64 {
    let from = vec![b'{'; bytes];
    let mut to = vec![0; bytes];
    to.copy_from_slice(&from);
    let once = || {
        let start = ground.clock.now();
        to.copy_from_slice(black_box(&from));
        black_box(&mut to);
        micros(ground.clock.now() - start)
    };
    let spread = Spread::of(std::iter::repeat_with(once).take(COPIES));
    spread.map_or(0.0, |spread| spread.median)
}

impl Report {
    /// What one more byte costs between the two longest histories, in nanoseconds, and what it costs `memcpy`.
    fn slope(&self, name: &str) -> Option<(f64, f64)> {
        let [.., shorter, longer] = &self.sizes[..] else {
            return None;
        };
        let cpu = |size: &Size| {
            let row = size.rows.iter().find(|row| row.name == name)?;
            Some(row.cpu_us.median)
        };
        let bytes = count(longer.bytes - shorter.bytes);
        let slope = (cpu(longer)? - cpu(shorter)?) * 1e3 / bytes;
        let memcpy = longer.memcpy_us * 1e3 / count(longer.bytes);
        Some((slope, memcpy))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "history: CPU time of a request by its length, one at a time; memory of {IN_FLIGHT} in flight"
        )?;
        let head = [
            "messages",
            "MB",
            "memcpy us",
            "CPU us",
            "(spread)",
            "ns/byte",
            "x memcpy",
            "peak/body",
        ];
        let names = self.sizes.first().map_or(&[][..], |size| &size.rows);
        for name in names.iter().map(|row| &row.name) {
            let rows = self.sizes.iter().filter_map(|size| size.cells(name));
            let table = Table::new(&head, rows);
            write!(f, "{name}")?;
            match self.slope(name) {
                Some((slope, memcpy)) => {
                    let times = slope / memcpy;
                    writeln!(
                        f,
                        ", {slope:.2} ns for one more byte at the end: {times:.1} x memcpy ({memcpy:.3} ns)"
                    )?;
                }
                None => writeln!(f)?,
            }
            write!(f, "{table}")?;
        }
        Ok(())
    }
}

impl Size {
    fn cells(&self, name: &str) -> Option<Vec<String>> {
        let row = self.rows.iter().find(|row| row.name == name)?;
        let per_byte = row.cpu_us.median * 1e3 / count(self.bytes);
        Some(vec![
            self.messages.to_string(),
            shown(Some(count(self.bytes) / 1e6), 3),
            shown(Some(self.memcpy_us), 1),
            shown(Some(row.cpu_us.median), 1),
            format!("{:.0}..{:.0}", row.cpu_us.least, row.cpu_us.most),
            shown(Some(per_byte), 2),
            shown(Some(row.cpu_us.median / self.memcpy_us), 1),
            shown(Some(row.bodies_at_peak), 2),
        ])
    }
}
