//! `cargo xtask bench gateway`: what the gateway costs, as released.
//!
//! The two programs are built one after the other, so that what the measuring one needs of a shared dependency does not
//! end up in the measured one. How it is measured is in `docs/benchmarks.md`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::failure::Failure;
use crate::workspace::{self, Workspace};

/// What can be measured.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// CPU time, latency and memory of the gateway, beside nginx and the direct call.
    Gateway(GatewayArgs),
}

#[derive(Debug, Args)]
pub(crate) struct GatewayArgs {
    /// Shorter slices: figures good enough to see a mistake by.
    #[arg(long)]
    quick: bool,
    /// Measure this scenario alone, such as chat-1 or memory; may be repeated.
    #[arg(long, value_name = "ID")]
    only: Vec<String>,
    /// Also write all figures to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Builds what is measured and what measures it, and measures.
pub(crate) fn run(bench: &Bench, workspace: &Workspace) -> Result<(), Failure> {
    let Bench::Gateway(args) = bench;
    for package in ["farrier", "farrier-bench"] {
        workspace::run(&mut workspace.cargo(["build", "--release", "--package", package]))?;
    }
    let release = workspace.release();
    let mut measure = workspace.command(release.join("farrier-bench"));
    measure.arg("--farrier").arg(release.join("farrier"));
    if args.quick {
        measure.arg("--quick");
    }
    args.only.iter().for_each(|id| {
        measure.args(["--only", id]);
    });
    if let Some(json) = &args.json {
        // Relative to where the command was typed; the child runs elsewhere.
        let json = std::path::absolute(json).map_err(Failure::file(json))?;
        measure.arg("--json").arg(json);
    }
    workspace::run(&mut measure)
}
