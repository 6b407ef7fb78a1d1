//! Reports as tables, for a terminal and for a page that quotes them.

use std::fmt;

use super::{
    Conditions, Entrant, Figures, HalfEntrant, HalfReport, ScenarioReport, Spread, megabytes,
};

/// Rows under a head: the first column to the left, figures to the right.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

const HALF_HEAD: &[&str] = &[
    "us",
    "limit/s",
    "asked/s",
    "p50",
    "p99",
    "direct p99",
    "added p50",
    "added p99",
    "(spread)",
    "sent late",
];

/// Of a p99 that is to be believed.
const MOST_LATE: f64 = 0.5;

impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            cores,
            pinned,
            rounds,
            slice_ms,
        } = self;
        let pinned = match pinned {
            true => "targets on one, clients and upstream on another",
            false => "nothing pinned",
        };
        write!(
            f,
            "{cores} cores, {pinned}; medians of {rounds} rounds of {slice_ms} ms"
        )
    }
}

impl fmt::Display for ScenarioReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}, ", self.id, self.what)?;
        match self.per_second {
            None => writeln!(f, "{} at once", self.connections)?,
            Some(rate) => writeln!(f, "{rate:.0} a second")?,
        }
        let ratio = match &self.reference {
            Some(reference) => format!("x {reference}"),
            None => "ratio".to_owned(),
        };
        let head = [
            "us",
            "CPU/req",
            &ratio,
            "(spread)",
            "p50",
            "p99",
            "added p50",
            "added p99",
            "req/s",
            "RSS MB",
        ];
        write!(
            f,
            "{}",
            Table::new(&head, self.entrants.iter().map(Entrant::cells))
        )?;
        failures(
            f,
            self.entrants
                .iter()
                .filter_map(|entrant| Some((&entrant.name, entrant.failed.as_ref()?))),
        )
    }
}

impl fmt::Display for HalfReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            id,
            what,
            connections,
            entrants,
        } = self;
        writeln!(
            f,
            "{id}: {what}, open loop at half of what each can do with {connections} connections; direct at the same rate"
        )?;
        write!(
            f,
            "{}",
            Table::new(HALF_HEAD, entrants.iter().map(HalfEntrant::cells))
        )?;
        for entrant in entrants
            .iter()
            .filter(|entrant| entrant.clients_fell_behind())
        {
            writeln!(
                f,
                "  {}: the clients fell behind, and its latencies are theirs as well",
                entrant.name
            )?;
        }
        failures(
            f,
            entrants
                .iter()
                .filter_map(|entrant| Some((&entrant.name, entrant.failed.as_ref()?))),
        )
    }
}

fn failures<'r>(
    f: &mut fmt::Formatter<'_>,
    mut failed: impl Iterator<Item = (&'r String, &'r String)>,
) -> fmt::Result {
    failed.try_for_each(|(name, why)| writeln!(f, "  {name} dropped out: {why}"))
}

impl Entrant {
    fn cells(&self) -> Vec<String> {
        let figures = |of: fn(&Figures) -> Option<Spread>| self.figures.as_ref().and_then(of);
        let median = |of: fn(&Figures) -> Option<Spread>, decimals| {
            shown(figures(of).map(|spread| spread.median), decimals)
        };
        let resident = self.memory.resident_bytes;
        vec![
            self.name.clone(),
            median(|figures| figures.cpu_us_per_request, 1),
            median(|figures| figures.cpu_of_reference, 2),
            range(figures(|figures| figures.cpu_of_reference), 2),
            median(|figures| Some(figures.p50_us), 0),
            median(|figures| Some(figures.p99_us), 0),
            median(|figures| figures.added_p50_us, 0),
            median(|figures| figures.added_p99_us, 0),
            median(|figures| Some(figures.requests_per_second), 0),
            shown((resident > 0).then(|| megabytes(resident)), 1),
        ]
    }
}

impl HalfEntrant {
    /// Whether requests were sent so late that it shows in the latency.
    fn clients_fell_behind(&self) -> bool {
        self.at_half
            .is_some_and(|figures| figures.late_p99_us.median > MOST_LATE * figures.p99_us.median)
    }

    fn cells(&self) -> Vec<String> {
        let at_half = |of: fn(&Figures) -> Option<Spread>| self.at_half.as_ref().and_then(of);
        let median = |spread: Option<Spread>| shown(spread.map(|spread| spread.median), 0);
        vec![
            self.name.clone(),
            median(self.limit),
            median(at_half(|figures| Some(figures.requests_per_second))),
            median(at_half(|figures| Some(figures.p50_us))),
            median(at_half(|figures| Some(figures.p99_us))),
            median(self.direct.map(|direct| direct.p99_us)),
            median(at_half(|figures| figures.added_p50_us)),
            median(at_half(|figures| figures.added_p99_us)),
            range(at_half(|figures| figures.added_p99_us), 0),
            median(at_half(|figures| Some(figures.late_p99_us))),
        ]
    }
}

// === impl Table ===

impl Table {
    pub(crate) fn new(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Self {
        let head = head.iter().map(|&cell| cell.to_owned()).collect();
        Self {
            rows: std::iter::once(head).chain(rows).collect(),
        }
    }

    /// As wide as its widest cell.
    fn width(&self, column: usize, least: usize) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.get(column));
        cells
            .map(|cell| cell.chars().count())
            .fold(least, usize::max)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.rows {
            for (column, cell) in row.iter().enumerate() {
                match column {
                    0 => write!(f, "  {cell:<width$}", width = self.width(0, 24))?,
                    _ => write!(f, "  {cell:>width$}", width = self.width(column, 7))?,
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// `-` for what there is not.
pub(crate) fn shown(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.decimals$}"))
}

fn range(spread: Option<Spread>, decimals: usize) -> String {
    spread.map_or_else(
        || "-".to_owned(),
        |Spread { least, most, .. }| format!("{least:.decimals$}..{most:.decimals$}"),
    )
}
