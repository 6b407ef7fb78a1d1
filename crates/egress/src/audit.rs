//! One JSON line for each decision, in a file of bounded size with a bounded number of older ones beside it.
//!
//! ```json
//! {"time":"2026-05-05T12:00:00.000Z","sandbox":"work","kind":"request","to":"https://api.example.com","method":"POST",
//!  "path":"/v1/chat/completions","verdict":"allowed","rule":"network_policies.models.endpoints[0].access","status":200,
//!  "bytes_up":512,"bytes_down":9000,"duration_ms":830,"credentials":["openai/OPENAI_API_KEY"]}
//! ```
//!
//! A line is in the file before the connection that it is about ends. Secrets, bodies, queries and header values are
//! never in it; of a path its template is, of a credential its name.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
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

/// Where decisions are written.
#[derive(Debug)]
pub struct Audit {
    directory: PathBuf,
    bounds: Bounds,
    now: fn() -> SystemTime,
    open: Mutex<Option<Open>>,
}

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of one file.
    pub max_file_bytes: u64,
    /// Files, with the one that is written.
    pub max_files: u32,
}

#[derive(Debug)]
struct Open {
    file: File,
    bytes: u64,
}

const NAME: &str = "egress.jsonl";
/// A line that is longer is not one of ours.
const MAX_LINE_BYTES: usize = 64 * 1024;

impl Default for Bounds {
    fn default() -> Self {
        Self {
            max_file_bytes: 16 * 1024 * 1024,
            max_files: 8,
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
        fs::create_dir_all(directory)?;
        let audit = Self {
            directory: directory.to_owned(),
            bounds,
            now,
            open: Mutex::default(),
        };
        *audit.open.lock().unwrap_or_else(PoisonError::into_inner) = Some(audit.begin()?);
        Ok(audit)
    }

    /// Writes a line. One that cannot be written is told in the log.
    pub(crate) fn write(&self, mut line: Line) {
        line.time = humantime::format_rfc3339_millis((self.now)()).to_string();
        let mut bytes = serde_json::to_vec(&line).unwrap_or_default(); // strings and numbers always have a spelling
        bytes.push(b'\n');
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = self.append(&mut open, &bytes) {
            *open = None; // opened anew at the next line
            warn!(%error, directory = %self.directory.display(), "a decision could not be written");
        }
    }

    fn append(&self, open: &mut Option<Open>, bytes: &[u8]) -> io::Result<()> {
        let full = open.as_ref().is_some_and(|open| {
            open.bytes > 0 && open.bytes + bytes.len() as u64 > self.bounds.max_file_bytes
        });
        if full {
            *open = None;
            self.rotate()?;
        }
        let open = match open {
            Some(open) => open,
            None => open.insert(self.begin()?),
        };
        open.file.write_all(bytes)?;
        open.bytes += bytes.len() as u64;
        Ok(())
    }

    fn begin(&self) -> io::Result<Open> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(older(&self.directory, 0))?;
        let bytes = file.metadata()?.len();
        Ok(Open { file, bytes })
    }

    /// Each file takes the place of the next older one; the oldest goes.
    fn rotate(&self) -> io::Result<()> {
        for age in (1..self.bounds.max_files.max(2)).rev() {
            match fs::rename(older(&self.directory, age - 1), older(&self.directory, age)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
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
    use std::time::Duration;

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

    #[test]
    fn lines_are_read_back_in_order_over_files_of_bounded_size_and_number() {
        let directory = tempfile::tempdir().unwrap();
        let bounds = Bounds {
            max_file_bytes: 400,
            max_files: 3,
        };
        let audit = Audit::open(directory.path(), bounds, at_noon).unwrap();
        for number in 0..20 {
            audit.write(line(&format!("/{number}")));
        }
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
