//! What the gateway costs, measured from outside: CPU time, latency and memory of `farrier up` as a child process, beside
//! nginx and the direct call.
//!
//! ```text
//! clients (load) ──▶ nginx · farrier (target) ──▶ upstream       one core: the targets    another: all else
//!         └───────────────── direct ─────────────────▲
//! ```
//!
//! Clients and upstream are blocking threads over raw sockets, so that they cost next to nothing; the CPU time of a target
//! is read from its own processes and holds nothing of theirs. Targets take turns within a round, and are compared only
//! within it. Figures of two runs of this program are not comparable; ratios are, roughly.
//!
//! `docs/benchmarks.md` explains the method and keeps a table.

#![forbid(unsafe_code)]

mod clock;
mod exchange;
mod http;
mod load;
mod process;
mod report;
mod run;
mod scenario;
mod target;
mod upstream;

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use report::Report;
use run::{Settings, run};

/// Measure what the gateway costs, beside nginx and the direct call.
#[derive(Debug, Parser)]
#[command(name = "farrier-bench")]
struct Arguments {
    /// The release binary to measure
    #[arg(long, value_name = "FILE")]
    farrier: PathBuf,
    /// The nginx to compare with
    #[arg(long, value_name = "FILE", default_value = "nginx")]
    nginx: PathBuf,
    /// Compare with the direct call alone
    #[arg(long, conflicts_with = "nginx")]
    without_nginx: bool,
    /// Shorter slices: figures good enough to see a mistake by
    #[arg(long)]
    quick: bool,
    /// Measure this scenario alone, such as chat-1 or memory; may be repeated
    #[arg(long, value_name = "ID", value_parser = scenario::IDS)]
    only: Vec<String>,
    /// Also write all figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where ledgers are kept meanwhile; a real disk, since their syncs are measured [default: beside --farrier]
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
}

fn main() -> ExitCode {
    match measure(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let json = arguments.json.clone();
    let report = run(&arguments.settings()?, &mut tell)?;
    if let Some(path) = json {
        write_json(&report, &path)?;
    }
    write!(io::stdout().lock(), "{report}")?;
    Ok(())
}

fn write_json(report: &Report, path: &PathBuf) -> io::Result<()> {
    let mut text = serde_json::to_string_pretty(report)?;
    text.push('\n');
    fs::write(path, text)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

/// One line to standard error: what goes on.
fn tell(line: &str) {
    // A reader that has gone away is no reason to stop.
    let _gone = writeln!(io::stderr().lock(), "{line}");
}

impl Arguments {
    fn settings(self) -> io::Result<Settings> {
        let farrier = self.farrier.canonicalize().map_err(|error| {
            let message = format!("expected a program at {}: {error}", self.farrier.display());
            io::Error::new(error.kind(), message)
        })?;
        let beside = farrier.parent().map(PathBuf::from).unwrap_or_default();
        Ok(Settings {
            directory: self.directory.unwrap_or(beside),
            farrier,
            nginx: (!self.without_nginx).then_some(self.nginx),
            rounds: if self.quick { 3 } else { 5 },
            slice: Duration::from_millis(if self.quick { 200 } else { 800 }),
            only: self.only,
            more_tries: usize::from(!self.quick),
        })
    }
}
