//! What grows with what: a request with its history, a gateway with its open streams, a ledger with its turns.
//!
//! Growth is shown as a slope: what one more byte, stream or turn costs at each size. A slope that stays is linear growth;
//! of time it is set beside what `memcpy` needs for the same bytes on the same core in the same run.

mod history;
mod ledger;
pub(crate) mod streams;

use std::fmt;

use serde::Serialize;

pub(crate) use ledger::LedgerRunError;

use crate::gateway::scenario::{Histories, Place};
use crate::ground::{Ground, RunError, Settings, learn};
use crate::report::Conditions;
use crate::target::{Log, Target};

/// How far things are let grow.
#[derive(Debug)]
pub(crate) struct Extent {
    /// Open streams at most.
    pub(crate) streams: usize,
    /// Turns in the ledger.
    pub(crate) turns: u32,
}

/// What can be asked for by name.
pub(crate) const IDS: [&str; 3] = [HISTORY, STREAMS, LEDGER];
const HISTORY: &str = "history";
const STREAMS: &str = "streams";
const LEDGER: &str = "ledger";

/// What was found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    #[serde(flatten)]
    conditions: Conditions,
    history: Option<history::Report>,
    streams: Option<streams::Report>,
    ledger: Option<ledger::Report>,
}

/// Measures what is wanted; `tell` says what is being done.
pub(crate) fn run(
    settings: &Settings,
    extent: &Extent,
    tell: &mut dyn FnMut(&str),
) -> Result<Report, RunError> {
    // Before anything is started, so that targets may have as many.
    let files = streams::raise_open_files()?;
    let ground = Ground::new(settings)?;
    let mut report = Report {
        conditions: ground.conditions,
        history: None,
        streams: None,
        ledger: None,
    };
    if settings.wants(HISTORY) {
        report.history = Some(history::run(&ground, tell)?);
    }
    if settings.wants(STREAMS) {
        report.streams = Some(streams::run(&ground, extent.streams, files, tell)?);
    }
    if settings.wants(LEDGER) {
        report.ledger = Some(ledger::run(&ground, extent.turns, tell)?);
    }
    ground.upstream.stop();
    Ok(report)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.conditions)?;
        if let Some(history) = &self.history {
            write!(f, "\n{history}")?;
        }
        if let Some(streams) = &self.streams {
            write!(f, "\n{streams}")?;
        }
        if let Some(ledger) = &self.ledger {
            write!(f, "\n{ledger}")?;
        }
        Ok(())
    }
}
