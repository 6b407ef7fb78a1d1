//! `cargo xtask bench`: what gateways cost, measured on release builds, and the guard that counts instructions.
//!
//! What is measured and what measures it are built one after the other, so that what the measuring one needs of a shared
//! dependency does not end up in the measured one. Everything after the kind of measurement goes to `farrier-bench` as it
//! stands, `--help` included. How it is measured is in `docs/benchmarks.md`.

mod peers;

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::Command;

use clap::{Args, Subcommand};

use crate::failure::Failure;
use crate::workspace::{self, Workspace};

/// What can be measured.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Any gateways, given as URLs, beside the direct call.
    #[command(disable_help_flag = true)]
    Compare(Passed),
    /// CPU time, latency and memory of a sandbox's proxy, beside tinyproxy and TLS without any.
    #[command(disable_help_flag = true)]
    Egress(Passed),
    /// CPU time, latency and memory of the gateway, beside nginx and the direct call.
    #[command(disable_help_flag = true)]
    Gateway(Passed),
    /// What costs grow with: history, open streams, turns in the ledger.
    #[command(disable_help_flag = true)]
    Growth(Passed),
    /// Instruction counts of the engine and of an exchange, against bench/baseline.json; --bless records them.
    #[command(disable_help_flag = true)]
    Guard(Passed),
    /// Farrier and nginx beside other gateways, which are installed under the target directory.
    #[command(disable_help_flag = true)]
    Peers(Passed),
}

/// What goes on to the measuring program.
#[derive(Debug, Args)]
pub(crate) struct Passed {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Where the guard's baseline is kept, from the workspace root.
const BASELINE: &str = "bench/baseline.json";

/// Builds what is measured and what measures it, and measures.
pub(crate) fn run(bench: &Bench, workspace: &Workspace) -> Result<(), Failure> {
    let (command, passed) = match bench {
        Bench::Compare(passed) => (measure("compare", workspace)?, passed),
        Bench::Egress(passed) => (of_ours("egress", workspace)?, passed),
        Bench::Gateway(passed) => (of_ours("gateway", workspace)?, passed),
        Bench::Growth(passed) => (of_ours("growth", workspace)?, passed),
        Bench::Guard(passed) => (of_guard(workspace)?, passed),
        Bench::Peers(passed) => (peers::command(workspace)?, passed),
    };
    here(command, &passed.arguments)
}

/// The guard as a step of the tests: fails when something takes more instructions than was recorded.
pub(crate) fn guard(workspace: &Workspace) -> Result<(), Failure> {
    workspace::run(&mut of_guard(workspace)?)
}

fn of_guard(workspace: &Workspace) -> Result<Command, Failure> {
    if !workspace::succeeds(workspace.command("valgrind").arg("--version")) {
        return Err(Failure::Missing {
            what: "valgrind, which counts instructions (apt-get install -y valgrind),",
            tried: &["valgrind"],
        });
    }
    let mut guard = of_ours("guard", workspace)?;
    guard.arg("--baseline").arg(workspace.root().join(BASELINE));
    Ok(guard)
}

/// A measurement of the release binary.
fn of_ours(kind: &str, workspace: &Workspace) -> Result<Command, Failure> {
    build("farrier", workspace)?;
    let mut command = measure(kind, workspace)?;
    command
        .arg("--farrier")
        .arg(workspace.release().join("farrier"));
    Ok(command)
}

fn measure(kind: &str, workspace: &Workspace) -> Result<Command, Failure> {
    build("farrier-bench", workspace)?;
    let mut command = workspace.command(workspace.release().join("farrier-bench"));
    command.arg(kind);
    Ok(command)
}

fn build(package: &str, workspace: &Workspace) -> Result<(), Failure> {
    workspace::run(&mut workspace.cargo(["build", "--release", "--package", package]))
}

/// Runs it where the command was typed, so that a file named on the command line is where it is expected.
fn here(mut command: Command, arguments: &[impl AsRef<OsStr>]) -> Result<(), Failure> {
    let current = env::current_dir().map_err(Failure::file(Path::new(".")))?;
    workspace::run(command.args(arguments).current_dir(current))
}
