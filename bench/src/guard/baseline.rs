//! What was recorded, and how what is counted now differs from it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::callgrind::{Counts, VALGRIND};
use crate::report::Table;

/// A recorded state.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Baseline {
    environment: Environment,
    cases: BTreeMap<String, Recorded>,
}

/// What counts depend on besides the code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Environment {
    architecture: String,
    /// What `memchr` and `memcpy` pick their instructions by.
    avx2: bool,
    libc: String,
    valgrind: String,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Recorded {
    instructions: u64,
    /// Those that take the most by themselves.
    functions: BTreeMap<String, u64>,
}

/// One state beside another.
#[derive(Debug)]
pub(super) struct Verdict<'b> {
    recorded: &'b Baseline,
    now: &'b Baseline,
}

/// A case may take so many more of a hundred.
const MOST_PERCENT: f64 = 5.0;
/// Functions that are kept of a case, and those shown of one that has grown.
const KEPT: usize = 24;
const SHOWN: usize = 8;

pub(super) const HOW_TO_BLESS: &str = "cargo xtask bench guard --bless";

/// How many more of a hundred `now` is than `before`.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts of instructions are far below 2^53"
)]
pub(super) fn percent(before: u64, now: u64) -> f64 {
    (now as f64 / before.max(1) as f64 - 1.0) * 100.0
}

// === impl Environment ===

impl Environment {
    pub(super) fn here() -> io::Result<Self> {
        let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Ok(Self {
            architecture: std::env::consts::ARCH.to_owned(),
            avx2: flags.split_ascii_whitespace().any(|flag| flag == "avx2"),
            libc: first_line("ldd")?,
            valgrind: first_line(VALGRIND)?,
        })
    }
}

/// Of what a program says of its version.
fn first_line(program: &str) -> io::Result<String> {
    let said = Command::new(program).arg("--version").output();
    let said = said.map_err(|error| {
        let hint = match program {
            VALGRIND => "; install it with `apt-get install -y valgrind`",
            _ => "",
        };
        io::Error::new(
            error.kind(),
            format!("expected {program} on PATH: {error}{hint}"),
        )
    })?;
    let text = String::from_utf8_lossy(&said.stdout);
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

// === impl Baseline ===

impl Baseline {
    pub(super) fn new(
        environment: Environment,
        cases: impl Iterator<Item = (String, Counts)>,
    ) -> Self {
        Self {
            environment,
            cases: cases.map(|(name, counts)| (name, counts.into())).collect(),
        }
    }

    pub(super) fn read(path: &Path) -> io::Result<Self> {
        Ok(serde_json::from_str(&fs::read_to_string(path)?)?)
    }

    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        crate::write_json(self, path)
    }

    pub(super) fn judge<'b>(&'b self, now: &'b Self) -> Verdict<'b> {
        Verdict {
            recorded: self,
            now,
        }
    }
}

impl From<Counts> for Recorded {
    fn from(counts: Counts) -> Self {
        let mut functions = Vec::from_iter(counts.functions);
        functions.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        functions.truncate(KEPT);
        Self {
            instructions: counts.instructions,
            functions: functions.into_iter().collect(),
        }
    }
}

impl fmt::Display for Baseline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self
            .cases
            .iter()
            .map(|(name, case)| vec![name.clone(), case.instructions.to_string()]);
        write!(f, "{}", Table::new(&["case", "instructions"], rows))
    }
}

// === impl Verdict ===

impl Verdict<'_> {
    /// On another architecture there is nothing to compare with.
    fn is_comparable(&self) -> bool {
        self.recorded.environment.architecture == self.now.environment.architecture
    }

    pub(super) fn passes(&self) -> bool {
        !self.is_comparable() || self.grown().next().is_none() && self.unrecorded().next().is_none()
    }

    fn both(&self) -> impl Iterator<Item = (&str, &Recorded, &Recorded)> {
        self.now.cases.iter().filter_map(|(name, now)| {
            let before = self.recorded.cases.get(name)?;
            Some((name.as_str(), before, now))
        })
    }

    fn grown(&self) -> impl Iterator<Item = (&str, &Recorded, &Recorded)> {
        self.both().filter(|(_, before, now)| {
            percent(before.instructions, now.instructions) > MOST_PERCENT
        })
    }

    fn shrunk(&self) -> impl Iterator<Item = &str> {
        let by = |(name, before, now): (_, &Recorded, &Recorded)| {
            (percent(before.instructions, now.instructions) < -MOST_PERCENT).then_some(name)
        };
        self.both().filter_map(by)
    }

    fn unrecorded(&self) -> impl Iterator<Item = &str> {
        let names = self.now.cases.keys().map(String::as_str);
        names.filter(|name| !self.recorded.cases.contains_key(*name))
    }
}

impl Recorded {
    /// The functions that differ most, those that grew first.
    fn differences(&self, now: &Self) -> Vec<Vec<String>> {
        let names: BTreeSet<&String> = self.functions.keys().chain(now.functions.keys()).collect();
        let of = |functions: &BTreeMap<String, u64>, name| {
            functions.get(name).copied().unwrap_or_default()
        };
        let mut differences: Vec<(i128, Vec<String>)> = names
            .into_iter()
            .map(|name| {
                let (before, now) = (of(&self.functions, name), of(&now.functions, name));
                let more = i128::from(now) - i128::from(before);
                let cells = [
                    name.clone(),
                    before.to_string(),
                    now.to_string(),
                    format!("{more:+}"),
                ];
                (more, cells.into())
            })
            .filter(|(more, _)| *more > 0)
            .collect();
        differences.sort_by_key(|(more, _)| std::cmp::Reverse(*more));
        differences
            .into_iter()
            .take(SHOWN)
            .map(|(_, cells)| cells)
            .collect()
    }
}

impl fmt::Display for Verdict<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_comparable() {
            let (before, now) = (&self.recorded.environment, &self.now.environment);
            return writeln!(
                f,
                "not compared: the baseline is of {}, this is {}",
                before.architecture, now.architecture
            );
        }
        let rows = self.both().map(|(name, before, now)| {
            let more = percent(before.instructions, now.instructions);
            vec![
                name.to_owned(),
                before.instructions.to_string(),
                now.instructions.to_string(),
                format!("{more:+.2}%"),
            ]
        });
        write!(
            f,
            "{}",
            Table::new(&["instructions", "recorded", "now", "more"], rows)
        )?;
        for (name, before, now) in self.grown() {
            writeln!(
                f,
                "\n{name} takes more than {MOST_PERCENT}% more; what grew of its functions:"
            )?;
            write!(
                f,
                "{}",
                Table::new(
                    &["function", "recorded", "now", "more"],
                    before.differences(now).into_iter()
                )
            )?;
        }
        let unrecorded: Vec<&str> = self.unrecorded().collect();
        if !unrecorded.is_empty() {
            writeln!(
                f,
                "\nexpected a record of {}, found none",
                unrecorded.join(", ")
            )?;
        }
        if self.recorded.environment != self.now.environment {
            let (before, now) = (&self.recorded.environment, &self.now.environment);
            writeln!(f, "\nrecorded with {before}\ncounted with  {now}")?;
        }
        let shrunk: Vec<&str> = self.shrunk().collect();
        if !shrunk.is_empty() {
            let shrunk = shrunk.join(", ");
            writeln!(
                f,
                "\n{shrunk} takes more than {MOST_PERCENT}% less: `{HOW_TO_BLESS}` keeps it so"
            )?;
        }
        if !self.passes() {
            writeln!(f, "\nif that is worth it, record it: `{HOW_TO_BLESS}`")?;
        }
        Ok(())
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            architecture,
            avx2,
            libc,
            valgrind,
        } = self;
        let avx2 = if *avx2 { "with" } else { "without" };
        write!(f, "{architecture} {avx2} AVX2, {valgrind}, {libc}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment() -> Environment {
        Environment {
            architecture: "x86_64".into(),
            avx2: true,
            libc: "ldd (GNU libc) 2.36".into(),
            valgrind: "valgrind-3.19.0".into(),
        }
    }

    fn baseline(cases: &[(&str, u64)]) -> Baseline {
        let counts = |&(name, count): &(&str, u64)| {
            let counts = Counts {
                instructions: count,
                functions: [("scan".to_owned(), count - 100), ("write".to_owned(), 100)].into(),
            };
            (name.to_owned(), counts)
        };
        Baseline::new(environment(), cases.iter().map(counts))
    }

    #[test]
    fn what_stays_within_the_threshold_passes_and_what_does_not_is_explained() {
        let recorded = baseline(&[("framer", 1_000), ("stream", 10_000)]);
        assert!(
            recorded
                .judge(&baseline(&[("framer", 1_049), ("stream", 9_000)]))
                .passes()
        );
        let now = baseline(&[("framer", 1_060), ("stream", 10_000)]);
        let verdict = recorded.judge(&now);
        assert!(!verdict.passes());
        let text = verdict.to_string();
        assert!(text.contains("framer takes more than 5% more"), "{text}");
        assert!(text.contains("+60"), "{text}");
        assert!(text.contains(HOW_TO_BLESS), "{text}");
    }

    #[test]
    fn a_case_that_nobody_recorded_does_not_pass() {
        let (recorded, now) = (baseline(&[]), baseline(&[("framer", 1_000)]));
        let verdict = recorded.judge(&now);
        assert!(!verdict.passes());
        let text = verdict.to_string();
        assert!(text.contains("expected a record of framer"), "{text}");
    }

    #[test]
    fn another_architecture_is_not_compared_and_another_library_is_named() {
        let recorded = baseline(&[("framer", 1_000)]);
        let mut now = baseline(&[("framer", 2_000)]);
        now.environment.libc = "musl".into();
        let verdict = recorded.judge(&now);
        assert!(!verdict.passes() && verdict.to_string().contains("musl"));
        now.environment.architecture = "aarch64".into();
        let verdict = recorded.judge(&now);
        assert!(verdict.passes());
        assert!(verdict.to_string().starts_with("not compared: "));
    }

    #[test]
    fn a_baseline_is_read_as_it_was_written() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("baseline.json");
        let written = baseline(&[("framer", 1_000)]);
        written.write(&path).expect("the directory is ours");
        assert_eq!(Baseline::read(&path).expect("it is there"), written);
    }
}
