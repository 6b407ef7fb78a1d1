//! `farrier provider`: which services there are, and where their keys come from.
//!
//! ```text
//! add, set, remove ──▶ a gateway that runs, over its socket ──▶ store, reload, answer
//!          └───────────▶ else the store itself
//! list, show       ◀── a gateway that runs, else configuration and store
//! test             ──▶ the provider: the cheapest request it has
//! ```
//!
//! A key is never an argument: other users of the machine can read those. It is named, or comes on standard input.

mod change;
mod probe;
mod show;
mod source;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use farrier_secrets::{ProviderName, looks_like_a_secret};

use super::Context;
use super::reload::Which;
use crate::failure::Failure;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Add a provider
    Add(Add),
    /// Change a provider: another key, another base URL
    Set(Set),
    /// List all providers, declared and stored
    List(List),
    /// Show one
    Show(Show),
    /// Remove a stored provider, and the key that was handed over for it
    Remove(Remove),
    /// Ask the provider whether the key is good
    Test(Test),
    /// List the types there are, with their keys and endpoints
    Types(Types),
}

#[derive(Debug, Args)]
pub(crate) struct Add {
    /// What routes and sandboxes call it
    name: String,
    /// What it is: see `farrier provider types`
    #[arg(long = "type", value_name = "TYPE")]
    kind: String,
    #[command(flatten)]
    what: What,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Args)]
pub(crate) struct Set {
    /// Its name
    name: String,
    #[command(flatten)]
    what: What,
    #[command(flatten)]
    how: How,
}

/// What a provider is made of.
#[derive(Debug, Args)]
pub(crate) struct What {
    /// Where it is, in place of the type's own; its keys may be sent there and nowhere else
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,
    /// Where a key comes from: KEY=env:VARIABLE, KEY=file:PATH, KEY=keyring:ACCOUNT, or KEY=- for standard input; may be
    /// repeated
    #[arg(long = "credential", value_name = "KEY=SOURCE")]
    credentials: Vec<String>,
    /// Where a key from standard input is kept
    #[arg(long, value_name = "PLACE", default_value = "file")]
    keep_in: KeepIn,
}

/// Where a key from standard input is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum KeepIn {
    /// A file that only its owner can read, beside the state
    File,
    /// The keyring of the session
    Keyring,
}

#[derive(Debug, Args)]
pub(crate) struct How {
    #[command(flatten)]
    which: Which,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// Its name
    name: String,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// Its name
    name: String,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Args)]
pub(crate) struct Test {
    /// Its name
    name: String,
    /// How long it may take
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Args)]
pub(crate) struct Types {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(command: &Command, context: &Context<'_>) -> Result<ExitCode, Failure> {
    match command {
        Command::Add(arguments) => change::add(arguments, context),
        Command::List(arguments) => show::list(arguments, context),
        Command::Remove(arguments) => change::remove(arguments, context),
        Command::Set(arguments) => change::set(arguments, context),
        Command::Show(arguments) => show::show(arguments, context),
        Command::Test(arguments) => probe::run(arguments, context),
        Command::Types(arguments) => show::types(arguments, context),
    }
}

/// Refuses an argument that is probably a key, and does not repeat it.
pub(crate) fn refuse_pasted_keys(arguments: impl Iterator<Item = OsString>) -> Result<(), Failure> {
    let mut arguments = arguments;
    if !arguments.any(|argument| looks_like_a_secret(&argument.to_string_lossy())) {
        return Ok(());
    }
    Err(Failure::usage(
        "expected where a key comes from, got what looks like a key; it is not repeated here",
    )
    .hint("arguments can be read by every user of this machine: make a new key, and revoke this one")
    .hint("then hand it over with --credential KEY=- on standard input, or name it: env:VARIABLE, file:PATH, keyring:ACCOUNT"))
}

fn named(name: &str) -> Result<ProviderName, Failure> {
    name.parse()
        .map_err(|error: farrier_secrets::NameError| Failure::usage(error.to_string()))
}
