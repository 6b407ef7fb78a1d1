//! `farrier config --validate`: the installed program is asked whether it takes what would be written.
//!
//! ```text
//! planned files, secrets hidden ──▶ an empty home ──▶ the harness's own check ──▶ what it objects to, masked
//! ```
//!
//! It runs in a process group of its own that ends with it, within a bounded time, with the search path and the home as its
//! whole environment, and with a proxy that nobody answers at, so that whatever it would fetch it does not get.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use farrier_harness::{Change, Harness, Objection, Trial};
use tokio::process::Command;

use crate::failure::Failure;
use crate::mask::Masker;
use crate::runtime;
use crate::verify::Budget;
use crate::verify::child::{self, Ended, How};

/// Ten times what it takes where nothing else runs.
const BUDGET: Duration = Duration::from_secs(60);
/// The port of the discard service, where nobody listens.
const NOWHERE: &str = "http://127.0.0.1:9";
/// Of what it said, if that was no answer.
const LINES_SHOWN: usize = 5;

/// Has the package say whether it takes the files.
///
/// # Errors
/// It does not, and which keys; or it cannot be asked.
pub(super) fn hold(
    harness: &dyn Harness,
    package: &Path,
    changes: &[Change],
    search_path: Option<String>,
) -> Result<(), Failure> {
    // A search path has to be absolute: the program runs elsewhere.
    let package = package.canonicalize().map_err(|error| {
        Failure::user(format!("cannot find {}", package.display())).caused_by(&error)
    })?;
    let name = harness.name();
    let trial = harness.trial(&package).ok_or_else(|| {
        Failure::user(format!(
            "expected a harness that can check a configuration, got {name}"
        ))
        .hint("leave --validate out")
    })?;
    let home = Home::with(harness, changes)?;
    let ended = runtime::run(async {
        let command = home.command(&trial, search_path);
        let budget = Budget {
            turn: BUDGET,
            silence: BUDGET,
        };
        let ended = child::run(command, budget, None, &Masker::default()).await;
        ended.map_err(|error| {
            Failure::user(format!("cannot start {}", trial.program))
                .caused_by(&error)
                .hint("put it on the search path, or leave --validate out")
        })
    })?;
    match (trial.verdict)(&ended.stdout) {
        Some(objections) if objections.is_empty() && ended.code == Some(0) => Ok(()),
        Some(objections) if !objections.is_empty() => Err(refused(name, &objections)),
        _ => Err(no_answer(name, &trial, &ended)),
    }
}

fn refused(name: &str, objections: &[Objection]) -> Failure {
    let listed = objections.iter().map(|Objection { at, message }| {
        if at.is_empty() {
            format!("\n  {message}")
        } else {
            format!("\n  {at}: {message}")
        }
    });
    let listed: String = listed.collect();
    Failure::user(format!("the installed {name} does not take this:{listed}"))
        .hint("nothing was written; if the key is your own, take it out of the file")
}

fn no_answer(name: &str, trial: &Trial, ended: &Ended) -> Failure {
    let got = match (ended.how, ended.code) {
        (How::TooLong | How::Silent, _) => format!("none within {} s", BUDGET.as_secs()),
        (How::Exited, Some(code)) => format!("none and exit code {code}"),
        (How::Exited, None) => "none, and it was ended by a signal".to_owned(),
    };
    let program = trial.program;
    let said: Vec<&str> = ended.stderr.lines().chain(ended.stdout.lines()).collect();
    let last = said.len().saturating_sub(LINES_SHOWN);
    let said: String = said[last..]
        .iter()
        .map(|line| format!("\n  {line}"))
        .collect();
    Failure::user(format!(
        "expected an answer from {name} on {program}, got {got}{said}"
    ))
    .hint("see that the harness starts by itself, or leave --validate out")
}

/// A home with nothing in it but the configuration; gone afterwards.
#[derive(Debug)]
struct Home(tempfile::TempDir);

impl Home {
    fn with(harness: &dyn Harness, changes: &[Change]) -> Result<Self, Failure> {
        let cannot = |error: std::io::Error| {
            Failure::internal("cannot make a home to try the configuration in", &error)
        };
        let home = Self(tempfile::tempdir().map_err(cannot)?);
        let place = home.0.path().join(harness.config_dir().unwrap_or_default());
        std::fs::create_dir_all(&place).map_err(cannot)?;
        for change in changes {
            if let Some(name) = change.path.file_name() {
                std::fs::write(place.join(name), &change.after).map_err(cannot)?;
            }
        }
        Ok(home)
    }

    fn command(&self, trial: &Trial, search_path: Option<String>) -> Command {
        let rest = search_path.unwrap_or_else(|| "/usr/bin:/bin".to_owned());
        let all: Vec<PathBuf> = trial
            .programs
            .iter()
            .cloned()
            .chain(std::env::split_paths(&rest))
            .collect();
        // A name with a colon in it cannot be on a search path, and none of ours has one.
        let path = std::env::join_paths(&all).unwrap_or_else(|_| OsString::from(&rest));
        let mut command = Command::new(program(trial.program, &all));
        command
            .args(&trial.arguments)
            .current_dir(self.0.path())
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.0.path())
            .env("LANG", "C.UTF-8")
            .env("NO_COLOR", "1");
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
            command.env(name, NOWHERE);
        }
        command
    }
}

/// Where the program is: it is looked for on the path of the one that starts it, which is ours.
fn program(name: &str, path: &[PathBuf]) -> PathBuf {
    let mut places = path.iter().map(|dir| dir.join(name));
    places
        .find(|place| place.is_file())
        .unwrap_or_else(|| PathBuf::from(name))
}
