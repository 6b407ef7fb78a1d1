//! The project's own commands: `cargo xtask test`, `cargo xtask lint`, `cargo xtask arch`, `cargo xtask schema`,
//! `cargo xtask clients`, `cargo xtask bench`.
//!
//! Each subcommand is a module; `test` and `lint` are tables of steps (see [`steps`]). Everything that is installed goes
//! under the target directory, so that a fresh clone needs no preparation and leaves nothing behind elsewhere.

#![forbid(unsafe_code)]

mod arch;
mod bench;
mod clients;
mod failure;
mod lint;
mod plugins;
mod schema;
mod servers;
mod steps;
mod test;
mod tools;
mod workspace;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::failure::Failure;
use crate::steps::{Pace, say};
use crate::workspace::Workspace;

/// Checks, lints and tests of the Farrier workspace.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    arg_required_else_help = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check that crates and modules use one another only as the design allows.
    Arch,
    /// Measure a release build.
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Install the real clients and harnesses that tests drive, and nothing else.
    Clients,
    /// Check format, clippy, documentation and dependencies.
    Lint(PaceArgs),
    /// Write registry/schema.json anew from the tables it describes.
    Schema,
    /// Run all tests, installing under the target directory what they need.
    Test(TestArgs),
}

#[derive(Debug, Args)]
struct TestArgs {
    /// Leave out what needs an installation of its own, and the doctests.
    #[arg(long, conflicts_with = "slow")]
    fast: bool,
    /// Also run the tests marked `#[ignore]` for their length.
    #[arg(long)]
    slow: bool,
    #[command(flatten)]
    pace: PaceArgs,
}

#[derive(Debug, Args)]
struct PaceArgs {
    /// Stop at the first step that fails.
    #[arg(long)]
    fail_fast: bool,
}

impl TestArgs {
    const fn scope(&self) -> test::Scope {
        match (self.fast, self.slow) {
            (true, _) => test::Scope::Fast,
            (false, true) => test::Scope::Slow,
            (false, false) => test::Scope::Usual,
        }
    }
}

impl PaceArgs {
    const fn pace(&self) -> Pace {
        if self.fail_fast {
            Pace::StopAtFirst
        } else {
            Pace::RunAll
        }
    }
}

fn main() -> ExitCode {
    match run(&Cli::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            say(&format!("error: {failure}"));
            ExitCode::FAILURE
        }
    }
}

/// Runs one subcommand; `false` says that a step failed and has been reported.
fn run(command: &Command) -> Result<bool, Failure> {
    let workspace = Workspace::locate()?;
    match command {
        Command::Arch => {
            arch::check(&workspace)?;
            Ok(true)
        }
        Command::Bench(bench) => {
            bench::run(bench, &workspace)?;
            Ok(true)
        }
        Command::Clients => {
            clients::install(&workspace)?;
            Ok(true)
        }
        Command::Lint(args) => Ok(steps::run(lint::STEPS, &workspace, args.pace())),
        Command::Schema => {
            schema::write(&workspace)?;
            Ok(true)
        }
        Command::Test(args) => Ok(steps::run(
            test::steps(args.scope()),
            &workspace,
            args.pace.pace(),
        )),
    }
}
