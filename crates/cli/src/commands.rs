//! The subcommands: one file for each.

mod check;
mod completions;
mod config;
mod demo;
mod harness;
mod logs;
mod policy;
mod provider;
mod registry;
mod reload;
mod run;
mod sandbox;
mod sim;
mod stage;
mod status;
mod up;
mod verify;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::Environment;
use crate::failure::{Failure, Notices};
use crate::output::Output;
use crate::pair;

/// Runs agent harnesses on models that do not fit them.
#[derive(Debug, Parser)]
#[command(name = "farrier", version, max_term_width = 100)]
#[command(after_help = "Start with `farrier demo`: two seconds, no key, no network.")]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the main job: a client that fails on a strict model finishes through Farrier
    Demo(demo::Arguments),
    /// Run the gateway
    Up(up::Arguments),
    /// Have the gateway that runs read its configuration again
    Reload(reload::Arguments),
    /// Say how the gateway that runs is doing
    Status(status::Arguments),
    /// Run a harness in a sandbox of its own, which reaches nothing but the gateway
    Run(run::Arguments),
    /// Look after sandboxes: make, start, stop, enter, copy
    #[command(subcommand)]
    Sandbox(sandbox::Command),
    /// Say which services there are and where their keys come from; no key is ever an argument
    #[command(subcommand)]
    Provider(provider::Command),
    /// Look for mistakes in a configuration, and report all of them
    Check(check::Arguments),
    /// Write a harness's configuration for a route
    #[command(subcommand)]
    Config(config::Command),
    /// Install harnesses with what they run on, pinned and proven, for sandboxes to share
    #[command(subcommand)]
    Harness(harness::Command),
    /// Approve the devices of a harness's own in time, and nobody else's
    #[command(subcommand)]
    Pair(pair::Command),
    /// Put together what an image needs of the manifests: plugins, records, how to copy them
    Stage(stage::Arguments),
    /// Look at the manifests: what there is, what is wrong, what applies to a request
    #[command(subcommand)]
    Registry(registry::Command),
    /// Look at policies: mistakes in them, what they make of a request, what would allow it
    #[command(subcommand)]
    Policy(policy::Command),
    /// Show what proxies of sandboxes decided
    Logs(logs::Arguments),
    /// Run the case of every intervention, with and without it
    Verify(verify::Arguments),
    /// Play a strict thinking model over HTTP
    Sim(sim::Arguments),
    /// Print completions for a shell
    Completions(completions::Arguments),
}

/// Refuses a key among the arguments of a command about providers before anything could repeat it.
pub(crate) fn refuse_pasted_keys(
    mut arguments: impl Iterator<Item = OsString>,
) -> Result<(), Failure> {
    if arguments
        .nth(1)
        .is_some_and(|command| command == "provider")
    {
        return provider::refuse_pasted_keys(arguments);
    }
    Ok(())
}

/// What every command works with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'a> {
    pub(crate) env: &'a Environment,
    pub(crate) output: &'a Output,
    pub(crate) notices: &'a Notices,
}

/// Does what was asked for.
pub(crate) fn run(cli: Cli, context: &Context<'_>) -> Result<ExitCode, Failure> {
    match cli.command {
        Command::Check(arguments) => check::run(&arguments, context),
        Command::Completions(arguments) => completions::run(&arguments, context),
        Command::Config(command) => config::run(&command, context),
        Command::Demo(arguments) => demo::run(&arguments, context),
        Command::Harness(command) => harness::run(&command, context),
        Command::Provider(command) => provider::run(&command, context),
        Command::Logs(arguments) => logs::run(&arguments, context),
        Command::Pair(command) => pair::run(&command, context),
        Command::Policy(command) => policy::run(&command, context),
        Command::Registry(command) => registry::run(&command, context),
        Command::Run(arguments) => run::run(&arguments, context),
        Command::Sandbox(command) => sandbox::run(&command, context),
        Command::Reload(arguments) => reload::run(&arguments, context),
        Command::Sim(arguments) => sim::run(&arguments, context),
        Command::Stage(arguments) => stage::run(&arguments, context),
        Command::Status(arguments) => status::run(&arguments, context),
        Command::Up(arguments) => up::run(&arguments, context),
        Command::Verify(arguments) => verify::run(&arguments, context),
    }
}
