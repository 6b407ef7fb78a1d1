//! What a watcher says of itself to others: a file, and a lock that tells whether it lives.
//!
//! ```text
//! <directory>/<name>.json   replaced as a whole at each change, 0600
//! <directory>/<name>.lock   locked for as long as the watcher runs; the system lets go of it with the process
//! ```
//!
//! The name is made of the state directory's, so that each harness has one watcher and one report.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use tokio::time::sleep;

use crate::decide::Reason;
use crate::machine::Mode;
use crate::request::{Request, Scopes};

/// How pairing is. What `farrier status` and a sandbox's supervisor show.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Pairing {
    /// In one word.
    pub standing: Standing,
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
    /// How often is looked.
    pub mode: Mode,
    /// How requests are found.
    pub watching: Watching,
    /// Requests approved since the watcher began.
    pub approvals: u64,
    /// Devices that may connect.
    pub paired: usize,
    /// Requests that ought to be approved and are not yet.
    pub waiting: Vec<Waiting>,
    /// Requests that wait for a person.
    pub refused: Vec<Waiting>,
    /// What was decided lately, the latest last; at most [`Pairing::MOST_RECORDS`].
    pub recent: Vec<Record>,
}

/// How pairing is, in one word.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Standing {
    /// Something has paired, and nothing waits that ought to be approved.
    Converged,
    /// The watcher's time is over; nobody approves.
    DeadlineReached,
    /// The harness answers, and nothing has asked to pair.
    NothingPaired,
    /// The watcher has begun, and the harness has not answered.
    Starting,
    /// The watcher was ended; nobody approves.
    Stopped,
    /// The harness answers no more, or not yet.
    Unanswered {
        /// What it said.
        why: String,
    },
    /// Something waits that ought to be approved.
    Waiting,
}

/// How requests are found.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Watching {
    /// By asking again and again.
    Polling,
    /// By what is written in the state directory, and by asking now and then.
    StateDirectory,
}

/// A request that waits.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Waiting {
    /// Its id.
    pub request_id: String,
    /// What the client says it is.
    pub client: String,
    /// How it says it is used.
    pub mode: String,
    /// What it asks for.
    pub scopes: Vec<String>,
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
    /// Why it waits for a person, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Reason>,
    /// What came of the last attempt, if that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// A decision.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Record {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// What was decided, or came of it.
    pub happened: Happened,
    /// The request's id.
    pub request_id: String,
    /// The device, if it said which.
    pub device_id: Option<String>,
    /// What the client says it is.
    pub client: String,
    /// How it says it is used.
    pub mode: String,
    /// What it asks for.
    pub scopes: Vec<String>,
    /// Why, in a sentence.
    pub why: String,
}

/// What was decided about a request, or came of it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Happened {
    /// It was approved.
    Approved,
    /// The approval failed, and is tried again.
    Failed,
    /// The approval failed, and was made good.
    Recovered,
    /// It is left to a person.
    Refused,
    /// The approval took too long, and is tried again.
    TimedOut,
}

/// The file.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Report {
    /// The process.
    pub pid: u32,
    /// When it began, in milliseconds since 1970.
    pub started_ms: u64,
    /// When this was written, in milliseconds since 1970.
    pub written_ms: u64,
    /// How often the watcher was started again after a failure of its own.
    pub restarts: u64,
    /// The harness's state directory.
    pub state_dir: PathBuf,
    /// How pairing is.
    pub pairing: Pairing,
}

/// Whether a watcher runs.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Liveness {
    /// It ended without a word.
    Dead,
    /// It ended, and its report says why.
    Ended,
    /// There never was one.
    Never,
    /// It runs.
    Running,
}

/// Where the report about a state directory is.
#[derive(Clone, Debug)]
pub struct ReportFile {
    report: PathBuf,
    lock: PathBuf,
}

/// The report of a watcher that runs. Dropped, it is that of one that does not.
#[derive(Debug)]
pub struct Keeper {
    file: ReportFile,
    _lock: File,
}

/// A report cannot be kept.
#[derive(Debug, Error)]
pub enum OpenReportError {
    /// Another watcher does.
    #[error("expected no watcher for this state directory, got one that runs (lock {lock})")]
    InUse {
        /// What it holds.
        lock: PathBuf,
    },
    /// The place for it cannot be used.
    #[error("cannot keep a report at {path}")]
    Place {
        /// The place.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A report of 256 records and as many requests is some 400 kB.
const MOST_BYTES: u64 = 4 << 20;
/// Whoever looks whether a watcher runs holds its lock for a moment.
const ATTEMPTS: u32 = 20;
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(25);

// === impl Pairing ===

impl Pairing {
    /// As many decisions are kept.
    pub const MOST_RECORDS: usize = 256;
}

impl Record {
    pub(crate) fn of(at_ms: u64, happened: Happened, request: &Request, why: String) -> Self {
        Self {
            at_ms,
            happened,
            request_id: request.id.to_string(),
            device_id: request.device_id.clone(),
            client: request.client_id.clone().unwrap_or_default(),
            mode: request.client_mode.clone().unwrap_or_default(),
            scopes: named(&request.scopes),
            why,
        }
    }
}

impl Waiting {
    /// A request that waits since then.
    #[must_use]
    pub fn of(request: &Request, since_ms: u64, refused: Option<Reason>) -> Self {
        Self {
            request_id: request.id.to_string(),
            client: request.client_id.clone().unwrap_or_default(),
            mode: request.client_mode.clone().unwrap_or_default(),
            scopes: named(&request.scopes),
            since_ms,
            refused,
            failure: None,
        }
    }
}

impl Standing {
    /// Whether nobody approves any more, as planned.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::DeadlineReached | Self::Stopped)
    }
}

// === impl ReportFile ===

impl ReportFile {
    /// The report about `state_dir` among the reports in `directory`.
    #[must_use]
    pub fn about(state_dir: &Path, directory: &Path) -> Self {
        let whole = fs::canonicalize(state_dir)
            .or_else(|_| std::path::absolute(state_dir))
            .unwrap_or_else(|_| state_dir.to_owned());
        let digest = Sha256::digest(whole.as_os_str().as_encoded_bytes());
        let name: String = digest[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Self {
            report: directory.join(format!("{name}.json")),
            lock: directory.join(format!("{name}.lock")),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.report
    }

    /// Becomes the watcher that reports here.
    ///
    /// # Errors
    /// Another watcher is, or the directory cannot be written to.
    pub async fn keep(&self) -> Result<Keeper, OpenReportError> {
        let place = |source: io::Error| OpenReportError::Place {
            path: self.report.clone(),
            source,
        };
        if let Some(directory) = self.lock.parent() {
            let made = DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory);
            made.map_err(place)?;
        }
        let mut options = OpenOptions::new();
        let options = options.create(true).truncate(false).write(true).mode(0o600);
        let lock = options.open(&self.lock).map_err(place)?;
        for _ in 0..ATTEMPTS {
            match lock.try_lock() {
                Ok(()) => {
                    return Ok(Keeper {
                        file: self.clone(),
                        _lock: lock,
                    });
                }
                Err(TryLockError::WouldBlock) => sleep(BETWEEN_ATTEMPTS).await,
                Err(TryLockError::Error(error)) => return Err(place(error)),
            }
        }
        Err(OpenReportError::InUse {
            lock: self.lock.clone(),
        })
    }

    /// The latest report, if there is one, and whether its watcher runs.
    ///
    /// # Errors
    /// It cannot be read, or is no report.
    pub fn read(&self) -> io::Result<(Option<Report>, Liveness)> {
        let running = match File::open(&self.lock) {
            Ok(lock) => matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        let report: Option<Report> = match File::open(&self.report) {
            Ok(file) => {
                let bounded = io::Read::take(file, MOST_BYTES);
                Some(serde_json::from_reader(io::BufReader::new(bounded))?)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let liveness = match &report {
            _ if running => Liveness::Running,
            None => Liveness::Never,
            Some(report) if report.pairing.standing.is_final() => Liveness::Ended,
            Some(_) => Liveness::Dead,
        };
        Ok((report, liveness))
    }
}

impl Keeper {
    /// Replaces the report.
    ///
    /// # Errors
    /// It cannot be written; the one before stands.
    pub fn write(&self, report: &Report) -> io::Result<()> {
        let draft = self.file.report.with_extension("tmp");
        let mut options = OpenOptions::new();
        let options = options.create(true).truncate(true).write(true).mode(0o600);
        let mut file = options.open(&draft)?;
        file.write_all(serde_json::to_string_pretty(report)?.as_bytes())?;
        fs::rename(draft, &self.file.report)
    }
}

fn named(scopes: &Scopes) -> Vec<String> {
    match scopes {
        Scopes::Listed(scopes) => scopes.clone(),
        Scopes::Malformed => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn report(standing: Standing) -> Report {
        Report {
            pid: 1,
            started_ms: 2,
            written_ms: 3,
            restarts: 0,
            state_dir: "/state".into(),
            pairing: Pairing {
                standing,
                since_ms: 3,
                mode: Mode::Fast,
                watching: Watching::Polling,
                approvals: 0,
                paired: 0,
                waiting: Vec::new(),
                refused: Vec::new(),
                recent: Vec::new(),
            },
        }
    }

    #[tokio::test]
    async fn a_report_tells_whether_its_watcher_lives() {
        let place = tempfile::tempdir().unwrap();
        let file = ReportFile::about(Path::new("/state"), &place.path().join("pairing"));
        assert_eq!(file.read().unwrap(), (None, Liveness::Never));

        let keeper = file.keep().await.unwrap();
        let waiting = report(Standing::Waiting);
        keeper.write(&waiting).unwrap();
        assert_eq!(
            file.read().unwrap(),
            (Some(waiting.clone()), Liveness::Running)
        );
        let mode = fs::metadata(file.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        drop(keeper);
        assert_eq!(file.read().unwrap(), (Some(waiting), Liveness::Dead));
        let keeper = file.keep().await.unwrap();
        keeper.write(&report(Standing::DeadlineReached)).unwrap();
        drop(keeper);
        assert_eq!(file.read().unwrap().1, Liveness::Ended);
    }

    #[tokio::test]
    async fn a_state_directory_has_one_watcher() {
        let place = tempfile::tempdir().unwrap();
        let file = ReportFile::about(Path::new("/state"), place.path());
        let _keeper = file.keep().await.unwrap();
        let second = file.keep().await.unwrap_err();
        assert!(second.to_string().contains("got one that runs"), "{second}");
        let other = ReportFile::about(Path::new("/other"), place.path());
        assert!(other.keep().await.is_ok());
    }
}
