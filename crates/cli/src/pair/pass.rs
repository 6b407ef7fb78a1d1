//! `farrier pair pass`: before somebody is connected.

use std::process::ExitCode;

use clap::Args;
use farrier_pairing::{HostRunner, Limits, Passed, pass};

use super::place::{Under, Which};
use crate::commands::Context;
use crate::failure::Failure;
use crate::runtime;

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    under: Under,
    /// Take more time and more attempts, since somebody waits for a repair and not for a connection
    #[arg(long)]
    repair: bool,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
}

/// Whatever goes wrong is said, and nothing fails: the connection is to follow.
pub(crate) fn run(arguments: &Arguments, context: &Context<'_>) -> Result<ExitCode, Failure> {
    let passed = passed(arguments, context).unwrap_or_else(|failure| {
        context.notices.conclude(Err(failure));
        Passed::default()
    });
    passed
        .to_string()
        .lines()
        .for_each(|line| context.notices.say(line));
    if arguments.json {
        context.output.json(&passed)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn passed(arguments: &Arguments, context: &Context<'_>) -> Result<Passed, Failure> {
    let policy = arguments.under.policy()?;
    let harness = arguments.which.find(context.env)?;
    let limits = if arguments.repair {
        Limits::repair()
    } else {
        Limits::connect()
    };
    runtime::run(async { Ok(pass(&harness, &HostRunner, &policy, limits).await) })
}
