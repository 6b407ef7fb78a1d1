//! The report as a table, and what went wrong below it.

use super::{Outcome, Report, Verdict};
use crate::failure::Failure;
use crate::output::{Output, Style};

/// Prints the report.
pub(crate) fn show(report: &Report, output: &Output) -> Result<(), Failure> {
    let widest = |text: fn(&Verdict) -> &str| {
        let lengths = report.cases.iter().map(|verdict| text(verdict).len());
        lengths.max().unwrap_or_default()
    };
    let (names, harnesses) = (
        widest(|verdict| &verdict.case),
        widest(|verdict| &verdict.harness),
    );
    for verdict in &report.cases {
        let (word, style) = match verdict.outcome {
            Outcome::Failed => ("failed", Style::Wrong),
            Outcome::NotRun => ("not run", Style::Dim),
            Outcome::Passed => ("passed", Style::Good),
        };
        let runs: Vec<String> = verdict
            .runs
            .iter()
            .map(|run| format!("{} {:.0} s", run.way.name(), run.seconds))
            .collect();
        let rest = verdict.reason.clone().unwrap_or_else(|| runs.join(", "));
        let (case, harness) = (&verdict.case, &verdict.harness);
        let word = output.painted(&format!("{word:7}"), style);
        let line = format!("{word}  {case:names$}  {harness:harnesses$}  {rest}");
        output.line(line.trim_end())?;
        for line in wrong(verdict) {
            output.line(&format!("         {line}"))?;
        }
    }
    output.line(&summary(report))
}

fn wrong(verdict: &Verdict) -> Vec<String> {
    let bad = verdict.runs.iter().filter(|run| !run.as_expected);
    bad.flat_map(|run| {
        let way = run.way.name();
        let faults = run
            .faults
            .iter()
            .map(move |fault| format!("{way}: {}: {}", fault.kind, fault.text));
        let none = run
            .faults
            .is_empty()
            .then(|| format!("{way}: it should have failed and did not"));
        faults.chain(none).collect::<Vec<_>>()
    })
    .collect()
}

/// What did not run is never passed over.
fn summary(report: &Report) -> String {
    let count = |outcome| report.count(outcome);
    let (passed, failed, not_run) = (
        count(Outcome::Passed),
        count(Outcome::Failed),
        count(Outcome::NotRun),
    );
    let stopped = if report.cancelled {
        "; stopped before the end"
    } else {
        ""
    };
    format!("{passed} passed, {failed} failed, {not_run} not run{stopped}")
}
