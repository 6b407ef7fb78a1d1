//! Runs a table of steps: a heading for each, how long it took, and one summary line at the end.
//!
//! A failing step does not hide the next one's result unless that is asked for. The last line printed is the summary, and
//! it counts what really ran.

use std::fmt;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::workspace::{self, Workspace};

/// One row of a command's table.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) run: Run,
}

/// What a step does.
#[derive(Debug)]
pub(crate) enum Run {
    /// `cargo` with these arguments.
    Cargo(&'static [&'static str]),
    /// A function of this crate.
    Here(fn(&Workspace) -> Result<(), Failure>),
}

/// What follows a failed step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    RunAll,
    StopAtFirst,
}

/// How the steps went so far.
#[derive(Debug, Default)]
struct Summary {
    passed: usize,
    failed: Vec<&'static str>,
    not_run: usize,
}

impl Step {
    fn perform(&self, workspace: &Workspace) -> Result<(), Failure> {
        match self.run {
            Run::Cargo(args) => workspace::run(&mut workspace.cargo(args.iter().copied())),
            Run::Here(function) => function(workspace),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "steps: {} passed, {} failed",
            self.passed,
            self.failed.len()
        )?;
        if !self.failed.is_empty() {
            write!(f, " ({})", self.failed.join(", "))?;
        }
        if self.not_run > 0 {
            write!(f, ", {} not run", self.not_run)?;
        }
        Ok(())
    }
}

/// Runs `steps` in their order and says whether all of them passed.
pub(crate) fn run<'a>(
    steps: impl IntoIterator<Item = &'a Step>,
    workspace: &Workspace,
    pace: Pace,
) -> bool {
    let mut summary = Summary::default();
    for step in steps {
        if pace == Pace::StopAtFirst && !summary.failed.is_empty() {
            summary.not_run += 1;
            continue;
        }
        say(&format!("\n==> {}", step.name));
        let (result, took) = timed(|| step.perform(workspace));
        let seconds = took.as_secs_f32();
        match result {
            Ok(()) => {
                summary.passed += 1;
                say(&format!("==> {}: passed in {seconds:.1} s", step.name));
            }
            Err(failure) => {
                summary.failed.push(step.name);
                say(&format!(
                    "error: {failure}\n==> {}: FAILED in {seconds:.1} s",
                    step.name
                ));
            }
        }
    }
    say(&format!("\n{summary}"));
    summary.failed.is_empty()
}

/// One line to standard output. A reader that has gone away is no reason to stop.
pub(crate) fn say(line: &str) {
    writeln!(io::stdout().lock(), "{line}").ok();
}

#[expect(
    clippy::disallowed_methods,
    reason = "the duration is shown to a person; nothing depends on it"
)]
fn timed<T>(action: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let value = action();
    (value, start.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(_: &Workspace) -> Result<(), Failure> {
        Ok(())
    }

    fn fails(_: &Workspace) -> Result<(), Failure> {
        Err(Failure::Design(Vec::new()))
    }

    const STEPS: &[Step] = &[
        Step {
            name: "first",
            run: Run::Here(fails),
        },
        Step {
            name: "second",
            run: Run::Here(passes),
        },
    ];

    #[test]
    fn the_summary_counts_what_ran_and_names_what_failed() {
        let summary = Summary {
            passed: 3,
            failed: vec!["format", "tests"],
            not_run: 1,
        };
        assert_eq!(
            summary.to_string(),
            "steps: 3 passed, 2 failed (format, tests), 1 not run"
        );
        assert_eq!(
            Summary {
                passed: 6,
                ..Summary::default()
            }
            .to_string(),
            "steps: 6 passed, 0 failed"
        );
    }

    #[test]
    fn one_failed_step_fails_the_whole_at_either_pace() {
        let workspace = Workspace::locate().expect("tests run in the workspace");
        assert!(!run(STEPS, &workspace, Pace::RunAll));
        assert!(!run(STEPS, &workspace, Pace::StopAtFirst));
        assert!(run(&STEPS[1..], &workspace, Pace::StopAtFirst));
    }
}
