//! How many instructions the engine and a whole exchange take, against a baseline in the repository.
//!
//! ```text
//! farrier-bench guard ─▶ valgrind ─▶ farrier-bench counted CASE      the engine, in one process
//!                    └─▶ valgrind ─▶ farrier up ◀─ asked from here   the gateway's part of an exchange
//! ```
//!
//! Instructions and not time, because a count hardly depends on who else is on the machine. It does depend on what the
//! compiler made, on the C library (allocator, `memcpy`) and on what the processor offers (`memchr` picks AVX2 where it
//! is; callgrind runs what the machine has). The baseline says what it was taken with, and a check under other
//! circumstances says so. Instructions of the kernel are in none of it.
//!
//! Callgrind by itself, and not `gungraun` (once `iai-callgrind`): that keeps its baselines under the target directory,
//! needs a runner of exactly its own version installed beside the crate, and measures functions or programs that end by
//! themselves, where the exchange wants a server that is asked meanwhile.

mod baseline;
mod callgrind;
mod engine;
mod exchanged;

use std::fmt;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use baseline::{Baseline, Environment, Verdict};
use callgrind::{CallgrindError, Counts};
use engine::Work;

use crate::ground::RunError;
use crate::report::{Table, shown};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The release binary to count
    #[arg(long, value_name = "FILE")]
    farrier: PathBuf,
    /// What was recorded
    #[arg(long, value_name = "FILE")]
    baseline: PathBuf,
    /// Record what is counted now
    #[arg(long)]
    bless: bool,
    /// Count so many times, and show how far the counts lie apart
    #[arg(long, value_name = "TIMES", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Count this case alone; may be repeated
    #[arg(long, value_name = "CASE", value_parser = clap::builder::PossibleValuesParser::new(Case::all().map(Case::name)), conflicts_with = "bless")]
    only: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct CountedArguments {
    #[arg(value_parser = |name: &str| Work::named(name).ok_or("expected a case of the engine"))]
    work: Work,
}

/// Something that is counted.
#[derive(Clone, Copy, Debug)]
enum Case {
    Engine(Work),
    Exchange(exchanged::Asked),
}

/// Why nothing was guarded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GuardError {
    #[error("{path}: {source}; record one with --bless")]
    Baseline { path: String, source: io::Error },
    #[error(transparent)]
    Callgrind(#[from] CallgrindError),
    #[error(transparent)]
    Exchange(#[from] RunError),
    #[error("cannot count: {0}")]
    System(#[from] io::Error),
}

/// One case, counted as often as was asked.
struct Counted {
    case: Case,
    /// The first; the others only tell how far they lie from it.
    counts: Counts,
    least: u64,
    most: u64,
}

/// Counts every case, and either records or compares. The exit code says whether something grew too much.
pub(crate) fn run(
    arguments: &Arguments,
    tell: &mut dyn FnMut(&str),
) -> Result<ExitCode, GuardError> {
    let environment = Environment::here()?;
    let directory = tempfile::tempdir()?;
    let mut counted = Vec::new();
    for case in Case::all() {
        let wanted = |id: &String| id == case.name();
        if arguments.only.is_empty() || arguments.only.iter().any(wanted) {
            tell(&format!("counting {}", case.name()));
            counted.push(Counted::new(case, arguments, directory.path())?);
        }
    }
    let mut out = io::stdout().lock();
    if arguments.repeat > 1 {
        write!(out, "{}", spread(&counted))?;
    }
    let cases = counted
        .into_iter()
        .map(|counted| (counted.case.name().to_owned(), counted.counts));
    let now = Baseline::new(environment, cases);
    if arguments.bless {
        now.write(&arguments.baseline)?;
        writeln!(out, "{now}recorded in {}", arguments.baseline.display())?;
        return Ok(ExitCode::SUCCESS);
    }
    let recorded = Baseline::read(&arguments.baseline).map_err(|source| GuardError::Baseline {
        path: arguments.baseline.display().to_string(),
        source,
    })?;
    let verdict: Verdict<'_> = recorded.judge(&now);
    write!(out, "{verdict}")?;
    Ok(if verdict.passes() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Does the work of a case of the engine, the counted part in a function that callgrind knows by name.
pub(crate) fn counted(arguments: &CountedArguments) -> Result<(), engine::EngineError> {
    arguments.work.perform()
}

/// How far repeated counts of the same binaries lie apart.
fn spread(counted: &[Counted]) -> impl fmt::Display {
    let rows = counted.iter().map(|counted| {
        let Counted { least, most, .. } = *counted;
        let apart = baseline::percent(least, most);
        vec![
            counted.case.name().to_owned(),
            least.to_string(),
            most.to_string(),
            format!("{}%", shown(Some(apart), 3)),
        ]
    });
    Table::new(&["instructions", "least", "most", "apart"], rows)
}

// === impl Case ===

impl Case {
    fn all() -> impl Iterator<Item = Self> {
        let engine = Work::ALL.into_iter().map(Self::Engine);
        engine.chain(exchanged::Asked::ALL.into_iter().map(Self::Exchange))
    }

    fn name(self) -> &'static str {
        match self {
            Self::Engine(work) => work.name(),
            Self::Exchange(asked) => asked.name(),
        }
    }
}

// === impl Counted ===

impl Counted {
    fn new(
        case: Case,
        arguments: &Arguments,
        directory: &std::path::Path,
    ) -> Result<Self, GuardError> {
        let count = || match case {
            Case::Engine(work) => Ok(callgrind::count_work(work, directory)?),
            Case::Exchange(asked) => exchanged::count(asked, &arguments.farrier, directory),
        };
        let counts = count()?;
        let (mut least, mut most) = (counts.instructions, counts.instructions);
        for _ in 1..arguments.repeat {
            let again = count()?.instructions;
            (least, most) = (least.min(again), most.max(again));
        }
        Ok(Self {
            case,
            counts,
            least,
            most,
        })
    }
}
