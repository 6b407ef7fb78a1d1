//! Runs programs under callgrind and reads what it counted.
//!
//! The format is that of <https://valgrind.org/docs/manual/cl-format.html>, of which this reads the function names, the cost
//! lines and the totals. Cost lines after `calls=` are those of the called, which stand elsewhere too, and are passed over.

use std::collections::{BTreeMap, HashMap};
use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use super::engine::{COUNTED, Work};

pub(super) const VALGRIND: &str = "valgrind";

/// Instructions, together and by function.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) instructions: u64,
    /// Of each function by itself, without what it calls; those of all variants of a generic one together.
    pub(super) functions: BTreeMap<String, u64>,
}

/// Why nothing was counted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallgrindError {
    #[error("expected callgrind's totals in {path}, found none")]
    Format { path: String },
    #[error("cannot run {path}: {source}")]
    Io { path: String, source: io::Error },
    #[error("expected valgrind on PATH, found none; install it with `apt-get install -y valgrind`")]
    NoValgrind,
    #[error("{work} failed under callgrind: {said}")]
    Work { work: &'static str, said: String },
}

/// What makes valgrind count the program that follows, into `out`. `more` are options of callgrind.
pub(super) fn options(out: &Path, more: &[String]) -> Vec<OsString> {
    let mut file = OsString::from("--callgrind-out-file=");
    file.push(out);
    let mut options: Vec<OsString> = vec!["--tool=callgrind".into(), "--quiet".into(), file];
    options.extend(more.iter().map(OsString::from));
    options
}

/// Performs a piece of the engine's work under callgrind.
pub(super) fn count_work(work: Work, directory: &Path) -> Result<Counts, CallgrindError> {
    let out = directory.join("work.out");
    let this = env::current_exe().map_err(of_path(Path::new("this program")))?;
    let toggle = [format!("--toggle-collect={COUNTED}")];
    let run = Command::new(VALGRIND)
        .args(options(&out, &toggle))
        .arg(&this)
        .args(["counted", work.name()])
        .stdin(Stdio::null())
        .output()
        .map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => CallgrindError::NoValgrind,
            _ => of_path(&this)(source),
        })?;
    if !run.status.success() {
        return Err(CallgrindError::Work {
            work: work.name(),
            said: String::from_utf8_lossy(&run.stderr).into_owned(),
        });
    }
    Counts::read(&out)
}

fn of_path(path: &Path) -> impl FnOnce(io::Error) -> CallgrindError {
    let path = path.display().to_string();
    move |source| CallgrindError::Io { path, source }
}

// === impl Counts ===

impl Counts {
    pub(super) fn read(path: &Path) -> Result<Self, CallgrindError> {
        let text = fs::read_to_string(path).map_err(of_path(path))?;
        Self::parse(&text).ok_or_else(|| CallgrindError::Format {
            path: path.display().to_string(),
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let mut counts = Self::default();
        let mut names: HashMap<&str, &str> = HashMap::new();
        let (mut function, mut of_called) = (String::new(), false);
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("fn=") {
                function = plain(named(&mut names, rest));
            } else if let Some(rest) = line.strip_prefix("cfn=") {
                named(&mut names, rest);
            } else if line.starts_with("calls=") {
                of_called = true;
            } else if line
                .starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first))
            {
                let cost = line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()?;
                if !std::mem::take(&mut of_called) {
                    *counts.functions.entry(function.clone()).or_default() += cost;
                    counts.instructions += cost;
                }
            }
        }
        let totals = text.lines().find_map(|line| line.strip_prefix("totals:"));
        (totals?.trim().parse() == Ok(counts.instructions)).then_some(counts)
    }

    /// What these have more than `fewer`, for each of so many more.
    pub(super) fn per_one(&self, fewer: &Self, more: u64) -> Self {
        let each = |count: u64, before: u64| count.saturating_sub(before) / more.max(1);
        let functions = self.functions.iter().map(|(name, &count)| {
            let before = fewer.functions.get(name).copied().unwrap_or_default();
            (name.clone(), each(count, before))
        });
        Self {
            instructions: each(self.instructions, fewer.instructions),
            functions: functions.filter(|(_, count)| *count > 0).collect(),
        }
    }
}

/// `(7) name` tells what `(7)` stands for from then on.
fn named<'t>(names: &mut HashMap<&'t str, &'t str>, text: &'t str) -> &'t str {
    let Some((id, name)) = text.split_once(' ') else {
        return names.get(text).copied().unwrap_or(text);
    };
    names.insert(id, name);
    name
}

/// Without the hash that makes a symbol unique, and without recursion levels. An address says nothing in another build.
fn plain(name: &str) -> String {
    if name.starts_with("0x") {
        return "(no symbol)".to_owned();
    }
    let name = name.split_once('\'').map_or(name, |(name, _)| name);
    match name.rsplit_once("::h") {
        Some((name, hash))
            if hash.len() == 16 && hash.chars().all(|digit| digit.is_ascii_hexdigit()) =>
        {
            name.to_owned()
        }
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUT: &str = "\
version: 1
events: Ir

ob=(1) /bin/x
fl=(1) ???
fn=(1) engine::read::h0123456789abcdef
0 100
+3 20
cfn=(2) engine::find
calls=2 0
* 700
-1 5

fn=(2)
0 650
* 50

fn=(3) engine::read::hfedcba9876543210
0 1

fn=(4) 0x00000000009b4d40
0 4

totals: 830
";

    #[test]
    fn a_functions_own_costs_are_counted_and_those_of_the_called_are_not() {
        let counts = Counts::parse(OUT).expect("it is callgrind's");
        assert_eq!(counts.instructions, 830);
        assert_eq!(
            Vec::from_iter(counts.functions),
            [
                ("(no symbol)".to_owned(), 4),
                ("engine::find".to_owned(), 700),
                ("engine::read".to_owned(), 126)
            ]
        );
    }

    #[test]
    fn text_whose_totals_do_not_agree_is_refused() {
        assert_eq!(Counts::parse(&OUT.replace("830", "831")), None);
        assert_eq!(Counts::parse(&OUT.replace("totals:", "summary:")), None);
    }

    #[test]
    fn what_is_common_to_two_runs_falls_out_of_their_difference() {
        let counts = |start: u64, requests: u64| Counts {
            instructions: start + 10 * requests,
            functions: [
                ("start".to_owned(), start),
                ("answer".to_owned(), 10 * requests),
            ]
            .into(),
        };
        let one = counts(1_000, 30).per_one(&counts(1_000, 10), 20);
        assert_eq!(one.instructions, 10);
        assert_eq!(Vec::from_iter(one.functions), [("answer".to_owned(), 10)]);
    }
}
