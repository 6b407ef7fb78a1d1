//! Interventions proven by running what they are for.
//!
//! ```text
//! case ──▶ straight to the model (where the case says how that fails)
//!      ──▶ through Farrier, its manifest switched off: fails, and for the reason the case names
//!      ──▶ through Farrier: every turn as the case says
//! ```
//!
//! Each run has a model, a gateway and a harness of its own, and nothing of them is left afterwards. A case that could
//! not be run did not pass.
//!
//! Against a real provider only the last run is made: a real model need not misbehave on demand. That it is a real one
//! is shown before (`live`), and nothing is run where that fails.

pub(crate) mod case;
pub(crate) mod child;
mod door;
mod judge;
pub(crate) mod live;
mod run;
mod scripted;
mod show;

pub(crate) use child::Budget;
pub(crate) use show::show;

use std::future::Future;

use farrier_secrets::Secret;
use serde::Serialize;

use case::{Case, Mode, SCRIPTED};
use run::{Kit, Run, Way};

use crate::failure::{Failure, Notices};
use crate::harness::{Installed, NotInstalled, Store};

/// What is to be verified, and how.
#[derive(Debug)]
pub(crate) struct Order<'a> {
    pub(crate) cases: Vec<&'a Case>,
    pub(crate) mode: Mode,
    /// Where harnesses are installed.
    pub(crate) store: &'a Store,
    pub(crate) budget: Budget,
    /// Opens the provider of a live run.
    pub(crate) key: Option<Secret>,
    /// The provider of a live run, where it is not the case's.
    pub(crate) base_url: Option<&'a str>,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) mode: Mode,
    /// Whether every case was run and passed.
    pub(crate) passed: bool,
    /// Whether it was stopped before the end.
    pub(crate) cancelled: bool,
    pub(crate) cases: Vec<Verdict>,
}

/// What came of a case.
#[derive(Debug, Serialize)]
pub(crate) struct Verdict {
    pub(crate) case: String,
    pub(crate) manifest: String,
    pub(crate) harness: String,
    pub(crate) outcome: Outcome,
    /// Why it was not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    pub(crate) runs: Vec<Run>,
}

/// How a case ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    Failed,
    NotRun,
    Passed,
}

impl Order<'_> {
    /// Runs the cases one after the other, or until `stopped`.
    ///
    /// # Errors
    /// What the runs need cannot be had.
    pub(crate) async fn verify(
        &self,
        notices: &Notices,
        stopped: impl Future<Output = ()>,
    ) -> Result<Report, Failure> {
        let mut done = Vec::new();
        let all = async {
            for (place, case) in (1..).zip(&self.cases) {
                notices.say(&format!(
                    "[{place}/{}] {} on {}",
                    self.cases.len(),
                    case.name,
                    case.worker()
                ));
                done.push(self.case(case, notices).await?);
            }
            Ok(())
        };
        let cancelled = tokio::select! {
            ended = all => {
                let ended: Result<(), Failure> = ended;
                ended?;
                false
            }
            () = stopped => true,
        };
        let left = self.cases[done.len()..].iter();
        let left: Vec<Verdict> = left.map(|case| Verdict::not_run(case, "stopped")).collect();
        done.extend(left);
        Ok(Report {
            mode: self.mode,
            passed: done
                .iter()
                .all(|verdict| verdict.outcome == Outcome::Passed),
            cancelled,
            cases: done,
        })
    }

    async fn case(&self, case: &Case, notices: &Notices) -> Result<Verdict, Failure> {
        if !case.plays(self.mode) {
            let reason = match self.mode {
                Mode::Hermetic => "this case is for live runs alone",
                Mode::Live => "this case cannot be run against a real provider",
            };
            return Ok(Verdict::not_run(case, reason));
        }
        let installed = match self.installed(case) {
            Ok(installed) => installed,
            Err(absent) => return Ok(Verdict::not_run(case, &absent.to_string())),
        };
        let kit = Kit {
            case,
            installed,
            budget: self.budget,
        };
        let mut verdict = Verdict::of(case);
        for way in self.ways(case) {
            let upstream = match self.mode {
                Mode::Hermetic => None,
                Mode::Live => {
                    let upstream = self.upstream(case)?;
                    Box::pin(live::prove(&upstream)).await?;
                    Some(upstream)
                }
            };
            let run = Box::pin(run::run(&kit, way, upstream)).await?;
            let found = if run.as_expected {
                "as expected"
            } else {
                "NOT as expected"
            };
            let (way, seconds) = (way.name(), run.seconds);
            notices.say(&format!("  {way}: {found} ({seconds:.0} s)"));
            let goes_on = run.as_expected;
            verdict.runs.push(run);
            if !goes_on {
                break;
            }
        }
        if verdict.runs.iter().any(|run| !run.as_expected) {
            verdict.outcome = Outcome::Failed;
        }
        Ok(verdict)
    }

    fn installed(&self, case: &Case) -> Result<Option<Installed>, NotInstalled> {
        let harness = &case.sheet.harness;
        if harness.name == SCRIPTED {
            return Ok(None);
        }
        let version = harness.version.as_deref().unwrap_or_default();
        self.store.find(&harness.name, Some(version)).map(Some)
    }

    fn ways(&self, case: &Case) -> Vec<Way> {
        match self.mode {
            Mode::Live => vec![Way::Live],
            Mode::Hermetic => {
                let sheet = &case.sheet;
                let straight = sheet.straight.as_ref().map(|_| Way::Straight);
                let without = sheet.without.as_ref().map(|_| Way::Without);
                let failing = straight.into_iter().chain(without);
                failing.chain([Way::With]).collect()
            }
        }
    }
}

impl Verdict {
    fn of(case: &Case) -> Self {
        Self {
            case: case.name.clone(),
            manifest: case.manifest().to_owned(),
            harness: case.worker(),
            outcome: Outcome::Passed,
            reason: None,
            runs: Vec::new(),
        }
    }

    fn not_run(case: &Case, reason: &str) -> Self {
        Self {
            outcome: Outcome::NotRun,
            reason: Some(reason.to_owned()),
            ..Self::of(case)
        }
    }
}

impl Report {
    /// How many cases ended so.
    pub(crate) fn count(&self, outcome: Outcome) -> usize {
        let cases = self.cases.iter();
        cases.filter(|verdict| verdict.outcome == outcome).count()
    }
}
