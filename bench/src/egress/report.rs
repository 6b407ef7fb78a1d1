//! All figures of the run, and what a key costs beside a request that is judged alone.

use std::fmt;

use serde::Serialize;

use super::proxies::{FARRIER, KEYED};
use super::sockets;
use crate::contest::QUIET;
use crate::report::{Conditions, HalfReport, ScenarioReport, noise};

/// Everything there is to tell.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    #[serde(flatten)]
    conditions: Conditions,
    pub(super) scenarios: Vec<ScenarioReport>,
    pub(super) halves: Vec<HalfReport>,
    pub(super) sockets: Option<sockets::Report>,
    steps: Vec<Step>,
}

/// What the next thing that is done to a request costs.
#[derive(Debug, Serialize)]
struct Step {
    id: String,
    from: &'static str,
    to: &'static str,
    cpu_us: f64,
    p50_us: f64,
}

// === impl Report ===

impl Report {
    pub(super) fn new(conditions: Conditions) -> Self {
        Self {
            conditions,
            scenarios: Vec::new(),
            halves: Vec::new(),
            sockets: None,
            steps: Vec::new(),
        }
    }

    /// Draws what follows from the figures, once they are all there.
    pub(super) fn conclude(&mut self) {
        let [(tunnel, _), (judged, _)] = FARRIER;
        let pairs = [(tunnel, judged), (judged, KEYED.0)];
        let steps = self.scenarios.iter().flat_map(|scenario| {
            pairs
                .iter()
                .filter_map(|&(from, to)| Step::between(scenario, from, to))
        });
        self.steps = steps.collect();
    }
}

impl Step {
    fn between(scenario: &ScenarioReport, from: &'static str, to: &'static str) -> Option<Self> {
        let (before, after) = (scenario.figures_of(from)?, scenario.figures_of(to)?);
        let cpu_us = after.cpu_us_per_request?.median - before.cpu_us_per_request?.median;
        Some(Self {
            id: scenario.id.clone(),
            from,
            to,
            cpu_us,
            p50_us: after.p50_us.median - before.p50_us.median,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.conditions)?;
        for scenario in &self.scenarios {
            write!(f, "\n{scenario}")?;
        }
        for half in &self.halves {
            write!(f, "\n{half}")?;
        }
        if let Some(sockets) = &self.sockets {
            write!(f, "\n{sockets}")?;
        }
        let (all, noisy) = noise(self.scenarios.iter(), self.halves.iter());
        writeln!(
            f,
            "\nothers had more than {QUIET} of a core during {noisy} of {all} runs"
        )?;
        self.steps.iter().try_for_each(|step| {
            let Step {
                id,
                from,
                to,
                cpu_us,
                p50_us,
            } = step;
            writeln!(
                f,
                "{id}, {from} to {to}: {cpu_us:+.1} us of CPU, {p50_us:+.1} us at the median"
            )
        })
    }
}
