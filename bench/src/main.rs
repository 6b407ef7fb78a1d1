//! What gateways cost, measured from outside: CPU time, latency and memory of processes that are known by their listeners.
//!
//! ```text
//! clients (load) ──▶ gateways (targets) ──▶ upstream       one core: the targets    another: all else
//!         └──────────────── direct ────────────▲
//! ```
//!
//! * `gateway`: `farrier up` as a child process, beside nginx and the direct call.
//! * `compare`: any gateways, given as URLs, beside the direct call.
//! * `peers`: Farrier and nginx beside other gateways, started here.
//! * `egress`: a sandbox's proxy, beside a plain one and TLS without any.
//! * `growth`: what a request costs by its history, a gateway by its open streams, a ledger by its turns.
//! * `guard`: how many instructions the engine and an exchange take, against a recorded baseline.
//!
//! Clients and upstream are blocking threads over raw sockets, so that they cost next to nothing; the CPU time of a target
//! is read from its own processes and holds nothing of theirs. Targets take turns within a round, and are compared only
//! within it. Figures of two runs of this program are not comparable; ratios are, roughly; instruction counts are.
//!
//! `docs/benchmarks.md` explains the method and keeps a table.

#![forbid(unsafe_code)]

mod clock;
mod compare;
mod contest;
mod egress;
mod exchange;
mod gateway;
mod ground;
mod growth;
mod guard;
mod http;
mod load;
mod peers;
mod process;
mod report;
mod target;
mod upstream;
mod wire;

use std::error::Error;
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand};
use serde::Serialize;

use compare::{Comparison, Gateway, Key, Named};
use contest::WARM_UP;
use ground::Settings;
use growth::Extent;

/// Measure what gateways cost.
#[derive(Debug, Parser)]
#[command(name = "farrier-bench", bin_name = "farrier-bench")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Farrier beside nginx and the direct call
    Gateway(GatewayArguments),
    /// Any gateways, given as URLs, beside the direct call
    Compare(CompareArguments),
    /// Farrier and nginx beside other gateways that are installed here
    Peers(peers::Arguments),
    /// A sandbox's proxy beside tinyproxy and TLS without any
    Egress(EgressArguments),
    /// What costs grow with: history, open streams, turns in the ledger
    Growth(GrowthArguments),
    /// Instruction counts against the recorded baseline
    Guard(guard::Arguments),
    /// What the guard runs under callgrind
    #[command(hide = true)]
    Counted(guard::CountedArguments),
}

#[derive(Debug, Args)]
struct GatewayArguments {
    #[command(flatten)]
    ours: OursArguments,
    /// Measure this scenario alone, such as chat-1 or memory; may be repeated
    #[arg(long, value_name = "ID", value_parser = PossibleValuesParser::new(gateway::scenario::ids()))]
    only: Vec<String>,
}

#[derive(Debug, Args)]
struct EgressArguments {
    #[command(flatten)]
    ours: OursArguments,
    /// The tinyproxy to compare with
    #[arg(long, value_name = "FILE", default_value = "tinyproxy")]
    tinyproxy: PathBuf,
    /// Leave tinyproxy out
    #[arg(long, conflicts_with = "tinyproxy")]
    without_tinyproxy: bool,
    /// Measure this scenario alone, such as request-1 or sockets; may be repeated
    #[arg(long, value_name = "ID", value_parser = PossibleValuesParser::new(egress::ids()))]
    only: Vec<String>,
    /// WebSockets to hold open
    #[arg(long, value_name = "COUNT", default_value_t = 1_000, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1_000))]
    sockets: usize,
}

#[derive(Debug, Args)]
struct GrowthArguments {
    #[command(flatten)]
    ours: OursArguments,
    /// Measure this alone; may be repeated
    #[arg(long, value_name = "ID", value_parser = growth::IDS)]
    only: Vec<String>,
    /// Open streams at most; as many as the system allows, if that is less
    #[arg(long, value_name = "COUNT", default_value_t = 10_000)]
    streams: usize,
    /// Turns in the ledger
    #[arg(long, value_name = "COUNT", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(100..))]
    turns: u32,
}

/// What is measured of ours, and where.
#[derive(Debug, Args)]
struct OursArguments {
    /// The release binary to measure
    #[arg(long, value_name = "FILE")]
    farrier: PathBuf,
    /// The nginx to compare with
    #[arg(long, value_name = "FILE", default_value = "nginx")]
    nginx: PathBuf,
    /// Leave nginx out
    #[arg(long, conflicts_with = "nginx")]
    without_nginx: bool,
    /// Where ledgers are kept meanwhile; a real disk, since their syncs are measured [default: beside --farrier]
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    #[command(flatten)]
    pace: Pace,
}

#[derive(Debug, Args)]
struct CompareArguments {
    /// A gateway by its base URL, and the process whose use of the machine is measured, with all that it started
    #[arg(value_name = "NAME=URL[@PID]", required = true)]
    gateways: Vec<Gateway>,
    /// Where the upstream listens, for gateways to be pointed at
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:18080")]
    listen: SocketAddr,
    /// The model to ask for, of all gateways or of one
    #[arg(long = "model", value_name = "[NAME=]MODEL")]
    models: Vec<Named<String>>,
    /// A file with the key to show, to all gateways or to one
    #[arg(long = "key-file", value_name = "[NAME=]FILE")]
    key_files: Vec<Named<String>>,
    /// A header line for all gateways; a key belongs into a file instead
    #[arg(long = "header", value_name = "LINE", value_parser = header_line)]
    headers: Vec<String>,
    /// Connections of closed loops
    #[arg(long, value_name = "COUNT", value_delimiter = ',', default_values_t = [1, 16], value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=4096))]
    connections: Vec<usize>,
    /// Requests a second of an open loop, besides the one at half of each one's limit; may be repeated
    #[arg(long = "rate", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    rates: Vec<u32>,
    /// With whose CPU time that of the others is compared
    #[arg(long, value_name = "NAME")]
    reference: Option<String>,
    /// The core to put clients and upstream on; start the gateways on another (taskset -c)
    #[arg(long, value_name = "NUMBER")]
    core: Option<usize>,
    /// Measure this scenario alone, such as chat-1 or long-half; may be repeated
    #[arg(long, value_name = "ID")]
    only: Vec<String>,
    #[command(flatten)]
    pace: Pace,
}

#[derive(Debug, Args)]
struct Pace {
    /// Shorter slices: figures good enough to see a mistake by
    #[arg(long)]
    quick: bool,
    /// Also write all figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            tell(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode, Box<dyn Error>> {
    match command {
        Command::Gateway(GatewayArguments { ours, only }) => {
            let json = ours.pace.json.clone();
            publish(&gateway::run(&ours.settings(only)?, &mut tell)?, json)
        }
        Command::Compare(arguments) => {
            let json = arguments.pace.json.clone();
            let comparison = arguments.comparison()?;
            let conditions = comparison.conditions();
            publish(&compare::run(&comparison, conditions, &mut tell)?, json)
        }
        Command::Egress(arguments) => {
            let json = arguments.ours.pace.json.clone();
            let settings = Settings {
                tinyproxy: (!arguments.without_tinyproxy).then_some(arguments.tinyproxy),
                ..arguments.ours.settings(arguments.only)?
            };
            let report = egress::run(&settings, arguments.sockets, &mut tell)?;
            publish(&report, json)
        }
        Command::Growth(arguments) => {
            let json = arguments.ours.pace.json.clone();
            let extent = Extent {
                streams: arguments.streams,
                turns: arguments.turns,
            };
            let settings = arguments.ours.settings(arguments.only)?;
            publish(&growth::run(&settings, &extent, &mut tell)?, json)
        }
        Command::Peers(arguments) => {
            let json = arguments.pace.json.clone();
            publish(&peers::run(&arguments, &mut tell)?, json)
        }
        Command::Guard(arguments) => Ok(guard::run(&arguments, &mut tell)?),
        Command::Counted(arguments) => {
            guard::counted(&arguments)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The report as text to standard output, and as JSON into the file.
fn publish(
    report: &(impl fmt::Display + Serialize),
    json: Option<PathBuf>,
) -> Result<ExitCode, Box<dyn Error>> {
    if let Some(path) = json {
        write_json(report, &path)?;
    }
    write!(io::stdout().lock(), "{report}")?;
    Ok(ExitCode::SUCCESS)
}

fn write_json(value: &impl Serialize, path: &Path) -> io::Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    fs::write(path, text).map_err(naming(path))
}

fn naming(path: &Path) -> impl FnOnce(io::Error) -> io::Error {
    let path = path.display().to_string();
    move |error| io::Error::new(error.kind(), format!("{path}: {error}"))
}

/// One line to standard error: what goes on.
fn tell(line: &str) {
    // A reader that has gone away is no reason to stop.
    let _gone = writeln!(io::stderr().lock(), "{line}");
}

/// A line that cannot end the head before its time.
fn header_line(text: &str) -> Result<String, String> {
    let (name, _) = text.split_once(':').unwrap_or_default();
    if name.is_empty() || text.chars().any(char::is_control) {
        return Err("expected one line, such as \"x-team: blue\"".to_owned());
    }
    Ok(text.to_owned())
}

// === impl OursArguments ===

impl OursArguments {
    fn settings(self, only: Vec<String>) -> io::Result<Settings> {
        let farrier = self.farrier.canonicalize().map_err(|error| {
            let message = format!("expected a program at {}: {error}", self.farrier.display());
            io::Error::new(error.kind(), message)
        })?;
        let beside = farrier.parent().map(PathBuf::from).unwrap_or_default();
        Ok(Settings {
            directory: self.directory.unwrap_or(beside),
            farrier,
            nginx: (!self.without_nginx).then_some(self.nginx),
            tinyproxy: None,
            rounds: self.pace.rounds(),
            slice: self.pace.slice(),
            only,
            more_tries: self.pace.more_tries(),
        })
    }
}

// === impl CompareArguments ===

impl CompareArguments {
    fn comparison(self) -> io::Result<Comparison> {
        let read = |file: Named<String>| {
            let path = Path::new(&file.value);
            let key = fs::read_to_string(path).map_err(naming(path))?;
            let value = Key::read(&key).ok_or_else(|| {
                let message = format!("{}: expected a key in one line", path.display());
                io::Error::new(io::ErrorKind::InvalidData, message)
            })?;
            Ok(Named {
                name: file.name,
                value,
            })
        };
        Ok(Comparison {
            rounds: self.pace.rounds(),
            slice: self.pace.slice(),
            warm_up: WARM_UP,
            more_tries: self.pace.more_tries(),
            gateways: self.gateways,
            listen: self.listen,
            models: self.models,
            keys: self
                .key_files
                .into_iter()
                .map(read)
                .collect::<io::Result<_>>()?,
            headers: self.headers,
            connections: self.connections,
            per_second: self.rates.into_iter().map(f64::from).collect(),
            reference: self.reference,
            core: self.core,
            only: self.only,
        })
    }
}

// === impl Pace ===

impl Pace {
    const fn rounds(&self) -> usize {
        if self.quick { 3 } else { 5 }
    }

    const fn slice(&self) -> Duration {
        Duration::from_millis(if self.quick { 200 } else { 800 })
    }

    const fn more_tries(&self) -> usize {
        if self.quick { 0 } else { 1 }
    }
}
