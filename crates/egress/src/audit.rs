//! One JSON line for each decision, in a file of bounded size with a bounded number of older ones beside it.
//!
//! ```json
//! {"time":"2026-05-05T12:00:00.000Z","sandbox":"work","kind":"request","to":"https://api.example.com","method":"POST",
//!  "path":"/v1/chat/completions","verdict":"allowed","rule":"network_policies.models.endpoints[0].access","status":200,
//!  "bytes_up":512,"bytes_down":9000,"duration_ms":830,"credentials":["openai/OPENAI_API_KEY"]}
//! ```
//!
//! Lines are written by a thread of their own, each as soon as it can be: a disk that stalls holds up no connection. What
//! waits is bounded. When half of that is used, nothing new is let in, so that what was let in can still be recorded; both
//! what was turned away and what could not be recorded after all is counted, and the next line says so.
//!
//! Secrets, bodies, queries and header values are never in it; of a path its template is, of a credential its name.

mod writer;

use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tracing::warn;

use crate::policy::Refusal;
use crate::target::Authority;

/// A decision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Line {
    /// When it was made, in UTC.
    pub time: String,
    /// By which listener the client came.
    pub sandbox: String,
    /// What was decided on: `request`, `tunnel` or `websocket`.
    pub kind: String,
    /// The destination, as `https://host:port`; for a tunnel `host:port`.
    pub to: String,
    /// What was asked, if that was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The path's template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What came of it.
    pub verdict: Verdict,
    /// The code of a refusal, or how it ended otherwise than well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Why, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The rule of the policy that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The address that was refused, if that was it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<std::net::IpAddr>,
    /// What the client was answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Bytes of bodies, or of the tunnel, from the client.
    pub bytes_up: u64,
    /// And to it.
    pub bytes_down: u64,
    /// From its first byte to its last.
    pub duration_ms: u64,
    /// Names of the credentials that were put in, as `provider/KEY`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub credentials: Vec<String>,
}

/// What came of a decision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It went through.
    Allowed,
    /// It went through, though a rule that is only watched refused it.
    Audited,
    /// It was refused.
    #[default]
    Denied,
    /// It was allowed, and came to nothing.
    Failed,
}

/// Where decisions are written. Dropped, it lets its thread finish what waits.
#[derive(Debug)]
pub struct Audit {
    to_writer: mpsc::Sender<Message>,
    backlog: Arc<Backlog>,
    now: fn() -> SystemTime,
}

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of one file.
    pub max_file_bytes: u64,
    /// Files, with the one that is written.
    pub max_files: u32,
    /// Lines that wait to be written.
    pub max_waiting: usize,
}

/// Decisions that could not be written in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {waiting} decisions to be written within {within:?}, got none or a part of them")]
pub struct Unwritten {
    /// How many, at most.
    pub waiting: usize,
    /// The bound.
    pub within: Duration,
}

/// What the writer is given.
#[derive(Debug)]
enum Message {
    Line(Vec<u8>),
    /// All that was given before is to be written, and then somebody told.
    Flush(oneshot::Sender<()>),
}

/// What waits, and what came of there being too much.
#[derive(Debug)]
struct Backlog {
    waiting: AtomicUsize,
    max_waiting: usize,
    /// Connections and requests that were turned away.
    turned_away: AtomicU64,
    /// Decisions that are not in the file.
    lost: AtomicU64,
}

const NAME: &str = "egress.jsonl";
/// A line that is longer is not one of ours.
const MAX_LINE_BYTES: usize = 64 * 1024;
/// What is said of decisions that are not in the file.
const BEHIND: &str = "audit_behind";

impl Default for Bounds {
    fn default() -> Self {
        Self {
            max_file_bytes: 16 * 1024 * 1024,
            max_files: 8,
            max_waiting: 16 * 1024,
        }
    }
}

// === impl Audit ===

impl Audit {
    /// Writes into a directory, which is made if there is none.
    ///
    /// # Errors
    ///
    /// It cannot be written to.
    pub fn open(directory: &Path, bounds: Bounds, now: fn() -> SystemTime) -> io::Result<Self> {
        let (to_writer, lines) = mpsc::channel();
        let backlog = Arc::new(Backlog {
            waiting: AtomicUsize::new(0),
            max_waiting: bounds.max_waiting,
            turned_away: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        });
        writer::start(directory, bounds, lines, (Arc::clone(&backlog), now))?;
        Ok(Self {
            to_writer,
            backlog,
            now,
        })
    }

    /// Has a line written.
    pub(crate) fn write(&self, line: Line) {
        let Some(bytes) = spelt(line, self.now) else {
            return;
        };
        let free = |waiting| (waiting < self.backlog.max_waiting).then_some(waiting + 1);
        let waiting = &self.backlog.waiting;
        let taken = waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, free);
        if taken.is_err() || self.to_writer.send(Message::Line(bytes)).is_err() {
            self.backlog.lost.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Whether so much waits to be written that nothing new is to be let in. Each that is told so is counted.
    pub(crate) fn turns_away(&self) -> bool {
        let behind = self.backlog.waiting.load(Ordering::Acquire) * 2 >= self.backlog.max_waiting;
        if behind {
            self.backlog.turned_away.fetch_add(1, Ordering::AcqRel);
        }
        behind
    }

    /// Waits until all decisions so far are written.
    ///
    /// # Errors
    ///
    /// [`Unwritten`] when they are not in time.
    pub async fn flush(&self, within: Duration) -> Result<(), Unwritten> {
        let (written, told) = oneshot::channel();
        let asked = self.to_writer.send(Message::Flush(written));
        let told = tokio::time::timeout(within, told).await;
        match (asked, told) {
            (Ok(()), Ok(Ok(()))) => Ok(()),
            _ => Err(Unwritten {
                waiting: self.backlog.waiting.load(Ordering::Acquire),
                within,
            }),
        }
    }
}

/// A line as it stands in the file, with the time of now.
fn spelt(mut line: Line, now: fn() -> SystemTime) -> Option<Vec<u8>> {
    line.time = humantime::format_rfc3339_millis(now()).to_string();
    let spelt = serde_json::to_vec(&line); // strings and numbers always have a spelling
    let mut bytes = spelt
        .inspect_err(|error| warn!(%error, "a decision could not be spelt"))
        .ok()?;
    bytes.push(b'\n');
    Some(bytes)
}

// === impl Backlog ===

impl Backlog {
    /// What is to be said of what is not in the file, once for each.
    fn told(&self) -> Option<Line> {
        let turned_away = self.turned_away.swap(0, Ordering::AcqRel);
        let lost = self.lost.swap(0, Ordering::AcqRel);
        (turned_away + lost > 0).then(|| Line {
            kind: "audit".to_owned(),
            code: Some(BEHIND.to_owned()),
            reason: Some(format!(
                "expected decisions to be written as they are made, got a file that could not be; {turned_away} \
                 connections and requests were turned away, {lost} decisions are not recorded"
            )),
            ..Line::default()
        })
    }
}

/// Reads what is there, the oldest first. Lines that are cut off or not ours are left out.
///
/// # Errors
///
/// A file cannot be read. That there is none is no error.
pub fn read(directory: &Path) -> io::Result<Vec<Line>> {
    let mut lines = Vec::new();
    let mut ages = 0;
    while older(directory, ages).exists() {
        ages += 1;
    }
    for age in (0..ages).rev() {
        let file = match File::open(older(directory, age)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue, // rotated meanwhile
            Err(error) => return Err(error),
        };
        for line in BufReader::new(file).split(b'\n') {
            let line = line?;
            if line.len() <= MAX_LINE_BYTES {
                lines.extend(serde_json::from_slice::<Line>(&line).ok());
            }
        }
    }
    Ok(lines)
}

fn older(directory: &Path, age: u32) -> PathBuf {
    match age {
        0 => directory.join(NAME),
        age => directory.join(format!("{NAME}.{age}")),
    }
}

// === impl Line ===

impl Line {
    /// What was refused, if a rule of the policy would allow it.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        let by_policy = matches!(self.code.as_deref(), Some("policy_denied" | "ssrf_denied"));
        if self.verdict != Verdict::Denied && self.verdict != Verdict::Audited || !by_policy {
            return None;
        }
        let (implied, authority) = match self.to.split_once("://") {
            Some(("http", authority)) => (Some(80), authority),
            Some((_, authority)) => (Some(443), authority),
            None => (None, self.to.as_str()),
        };
        Some(Refusal {
            to: Authority::parse(authority, implied).ok()?,
            request: self.method.clone().zip(self.path.clone()),
            address: self.address,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::io::{Read as _, Write as _};
    use std::process::Command;

    use super::*;

    fn at_noon() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_777_982_400)
    }

    fn line(path: &str) -> Line {
        Line {
            path: Some(path.to_owned()),
            ..Line::default()
        }
    }

    /// Waits until all is in the file.
    fn close(audit: Audit) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime
            .block_on(audit.flush(Duration::from_secs(10)))
            .unwrap();
    }

    #[test]
    fn lines_are_read_back_in_order_over_files_of_bounded_size_and_number() {
        let directory = tempfile::tempdir().unwrap();
        let bounds = Bounds {
            max_file_bytes: 400,
            max_files: 3,
            ..Bounds::default()
        };
        let audit = Audit::open(directory.path(), bounds, at_noon).unwrap();
        for number in 0..20 {
            audit.write(line(&format!("/{number}")));
        }
        close(audit);
        let files = fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(files, 3);
        let lines = read(directory.path()).unwrap();
        let paths: Vec<&str> = lines
            .iter()
            .filter_map(|line| line.path.as_deref())
            .collect();
        let expected: Vec<String> = (20 - paths.len()..20)
            .map(|number| format!("/{number}"))
            .collect();
        assert_eq!(paths, expected);
        assert!(paths.len() >= 3);
        assert_eq!(lines[0].time, "2026-05-05T12:00:00.000Z");
    }

    #[test]
    fn a_file_goes_on_after_a_restart_and_what_is_no_line_is_left_out() {
        let directory = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let audit = Audit::open(directory.path(), Bounds::default(), at_noon).unwrap();
            audit.write(line("/x"));
            close(audit);
            OpenOptions::new()
                .append(true)
                .open(directory.path().join(NAME))
                .unwrap()
                .write_all(b"{\"cut\n")
                .unwrap();
        }
        assert_eq!(read(directory.path()).unwrap().len(), 2);
        assert_eq!(read(&directory.path().join("none")).unwrap(), []);
    }

    #[test]
    fn a_disk_that_stalls_holds_up_nobody_and_what_waits_is_written_when_it_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        // A pipe that nobody reads takes 64 KiB, and then makes its writer wait.
        let pipe = directory.path().join(NAME);
        assert!(
            Command::new("mkfifo")
                .arg(&pipe)
                .status()
                .unwrap()
                .success()
        );
        let mut reader = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&pipe)
            .unwrap();
        let bounds = Bounds {
            max_waiting: 100,
            ..Bounds::default()
        };
        let audit = Audit::open(directory.path(), bounds, at_noon).unwrap();
        let long = "x".repeat(10_000);
        let mut written = 0;
        while !audit.turns_away() {
            audit.write(line(&format!("/{written}/{long}")));
            written += 1;
        }
        assert!(written >= 50, "{written}");
        for _ in 0..200 {
            audit.write(line("/more")); // of what was let in before; not all of it has room
        }
        let lost = audit.backlog.lost.load(Ordering::Acquire);
        assert!((100..=200).contains(&lost), "{lost}");

        let writer = std::thread::spawn(move || close(audit));
        let mut all = Vec::new();
        let mut bytes = vec![0; 64 * 1024];
        let end = format!("{lost} decisions are not recorded");
        while !String::from_utf8_lossy(&all).contains(&end) {
            let length = reader.read(&mut bytes).unwrap();
            all.extend_from_slice(&bytes[..length]);
        }
        writer.join().unwrap();
        let lines: Vec<Line> = all
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect();
        for (number, line) in lines.iter().take(written).enumerate() {
            let path = line.path.as_deref().unwrap();
            assert!(path.starts_with(&format!("/{number}/")), "{number}");
        }
        let lost = usize::try_from(lost).unwrap();
        assert_eq!(lines.len(), written + 200 - lost + 1);
        assert_eq!(lines[lines.len() - 1].code.as_deref(), Some(BEHIND));
    }

    #[test]
    fn what_cannot_be_written_is_written_later_and_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let inside = directory.path().join("audit");
        let bounds = Bounds {
            max_file_bytes: 1, // a file for each line
            ..Bounds::default()
        };
        let audit = Audit::open(&inside, bounds, at_noon).unwrap();
        audit.write(line("/0"));
        let lines = || read(&inside).unwrap().len();
        while lines() < 1 {
            std::thread::yield_now();
        }
        fs::rename(&inside, directory.path().join("away")).unwrap();
        audit.write(line("/1"));
        audit.write(line("/2"));
        fs::rename(directory.path().join("away"), &inside).unwrap();
        close(audit);
        let paths: Vec<_> = read(&inside)
            .unwrap()
            .into_iter()
            .filter_map(|line| line.path)
            .collect();
        assert_eq!(paths, ["/0", "/1", "/2"]);
    }

    #[test]
    fn a_refusal_by_the_policy_is_one_that_a_rule_would_allow() {
        let denied = |to: &str, code: &str| Line {
            to: to.to_owned(),
            code: Some(code.to_owned()),
            ..Line::default()
        };
        let refusal = denied("https://api.example.com", "policy_denied")
            .refusal()
            .unwrap();
        assert_eq!(refusal.to.to_string(), "api.example.com:443");
        assert!(denied("db.test:5432", "ssrf_denied").refusal().is_some());
        assert_eq!(
            denied("https://a.b", "credential_unavailable").refusal(),
            None
        );
        let allowed = Line {
            verdict: Verdict::Allowed,
            ..denied("https://a.b", "policy_denied")
        };
        assert_eq!(allowed.refusal(), None);
    }
}
