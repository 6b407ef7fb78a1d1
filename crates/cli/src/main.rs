//! The `farrier` command: runs agent harnesses on models that do not fit them.
//!
//! ```text
//! arguments, environment ──▶ config ──▶ commands/<name>.rs ──▶ output (stdout: data)
//!                                                └───────────▶ failure (stderr: people; exit codes)
//! ```
//!
//! What a subcommand does is in its file; what the pieces do is in the other crates.

#![forbid(unsafe_code)]

mod commands;
mod config;
mod demo;
mod egress;
mod failure;
mod hardening;
mod harness;
mod log;
mod mask;
mod output;
mod pair;
mod reloading;
mod runtime;
mod sandboxes;
mod stage;
mod verify;
mod watch;

use std::process::ExitCode;

use clap::Parser as _;

use commands::{Cli, Context};
use config::Environment;
use failure::Notices;
use output::Output;

/// The first argument of this program when it is started to be a sandbox; see `farrier-sandbox`.
const SANDBOX_LAUNCHER: &str = "sandbox-launcher";

fn main() -> ExitCode {
    // Before there is a second thread.
    if Environment::arguments()
        .nth(1)
        .is_some_and(|first| first == SANDBOX_LAUNCHER)
    {
        return farrier_sandbox::launcher_main();
    }
    let env = Environment::of_process();
    let notices = Notices::of_process(&env);
    let output = Output::of_process(&env);
    if let Err(pasted) = commands::refuse_pasted_keys(Environment::arguments()) {
        return notices.conclude(Err(pasted));
    }
    let cli = match Cli::try_parse_from(Environment::arguments()) {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => return notices.clap(&error),
        Err(help) => return notices.conclude(output.clap(&help).map(|()| ExitCode::SUCCESS)),
    };
    let result = commands::run(
        cli,
        &Context {
            env: &env,
            output: &output,
            notices: &notices,
        },
    );
    notices.conclude(result)
}
