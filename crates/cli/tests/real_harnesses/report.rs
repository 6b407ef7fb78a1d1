//! `farrier verify --json`, run and read.

use std::path::Path;
use std::process::Command;

use serde::Deserialize;

/// What came of one case.
#[derive(Debug, Deserialize)]
pub(crate) struct Verdict {
    outcome: String,
    reason: Option<String>,
    runs: Vec<Run>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Run {
    way: String,
    as_expected: bool,
    pub(crate) faults: Vec<Fault>,
    pub(crate) turns: Vec<Turn>,
    pub(crate) requests: u64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Fault {
    pub(crate) kind: String,
    pub(crate) text: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Turn {
    pub(crate) rounds: Vec<Vec<String>>,
    pub(crate) final_text: String,
    pub(crate) tool_runs: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Report {
    cases: Vec<Verdict>,
}

impl Verdict {
    /// Runs a case, and expects it to pass.
    pub(crate) fn of(case: &str) -> Self {
        let verdict = Self::run(case);
        assert_eq!(verdict.outcome, "passed", "{case}: {verdict:#?}");
        assert!(verdict.runs.iter().all(|run| run.as_expected));
        verdict
    }

    fn run(case: &str) -> Self {
        let program = env!("CARGO_BIN_EXE_farrier");
        // `<target>/<profile>/farrier`
        let target = Path::new(program).ancestors().nth(2).unwrap();
        let output = Command::new(program)
            .args(["verify", case, "--json", "--harness-dir"])
            .arg(target.join("clients"))
            .env_clear()
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let report: Result<Report, _> = serde_json::from_slice(&output.stdout);
        let report = report.unwrap_or_else(|error| panic!("{error}\n{said}"));
        let verdict = report.cases.into_iter().next().unwrap();
        assert_ne!(
            verdict.outcome, "not-run",
            "{:?}; `cargo xtask clients` installs it",
            verdict.reason
        );
        verdict
    }

    /// The run that took this way.
    pub(crate) fn way(&self, way: &str) -> &Run {
        let run = self.runs.iter().find(|run| run.way == way);
        run.unwrap_or_else(|| panic!("no run {way:?} in {self:#?}"))
    }
}

impl Run {
    pub(crate) fn failed_on(&self, kind: &str, saying: &str) -> bool {
        self.faults
            .iter()
            .any(|fault| fault.kind == kind && fault.text.contains(saying))
    }

    /// Both turns came to their ends, and nothing was wrong with them.
    pub(crate) fn expect_two_turns_of(&self, rounds: &[&[&str]]) {
        assert!(self.faults.is_empty(), "{self:#?}");
        assert_eq!(self.turns.len(), 2, "{self:#?}");
        for (number, turn) in (1..).zip(&self.turns) {
            assert_eq!(turn.rounds, rounds);
            let wanted = format!("FINAL answer of turn {number}:");
            assert!(turn.final_text.starts_with(&wanted), "{turn:#?}");
        }
        let asked = 2 * (rounds.len() + 1);
        assert!(self.requests >= asked as u64, "{self:#?}");
    }
}
