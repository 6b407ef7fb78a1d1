//! `farrier harness`: puts harnesses into the store, and looks after them there.

mod installing;
mod show;

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use clap::{Args, Subcommand};
use farrier_control::store::Store as StateStore;

use super::Context;
use crate::config::Environment;
use crate::failure::Failure;
use crate::harness::shelf::{self, Kind, NotAvailable};
use crate::harness::store::{NoStore, NotRemoved};
use crate::harness::{Installed, NotInstalled, Store};
use crate::runtime::{self, Signals};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Install a harness with the runtime it needs, from npm's or Python's registry
    Install(Install),
    /// List what is installed and what can be
    List(List),
    /// Show an installed harness: its programs, its runtime, its size
    Show(One),
    /// Look whether an installed harness is as it was installed, file by file
    Verify(One),
    /// Remove an installed harness
    Remove(Remove),
}

/// Where harnesses are.
#[derive(Debug, Args)]
pub(crate) struct Where {
    /// Where harnesses are installed [default: the user's data directory; for root /var/lib/farrier/harnesses]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Install {
    /// Which, such as openclaw or openclaw@2026.5.12; the newest if no version is named
    #[arg(value_name = "NAME[@VERSION]", value_parser = Names, hide_possible_values = true)]
    harness: String,
    /// A lock file of your own: npm's package-lock.json, or pip's requirements.txt with hashes
    #[arg(long, value_name = "FILE")]
    lock: Option<PathBuf>,
    /// The npm registry [default: as npm is configured]
    #[arg(long, value_name = "URL")]
    registry: Option<String>,
    /// The index of Python packages [default: as pip is configured]
    #[arg(long, value_name = "URL")]
    index: Option<String>,
    /// The Python to run on: 3.11, 3.12 or 3.13 [default: the system's]
    #[arg(long, value_name = "PROGRAM")]
    python: Option<PathBuf>,
    /// How long it may take in all
    #[arg(long, value_name = "TIME", default_value = "30m", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// The longest that a download may bring nothing
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    silence: Duration,
    #[command(flatten)]
    place: Where,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    place: Where,
}

#[derive(Debug, Args)]
pub(crate) struct One {
    /// Which, such as openclaw or openclaw@2026.5.12; the newest installed if no version is named
    #[arg(value_name = "NAME[@VERSION]", value_parser = Names, hide_possible_values = true)]
    harness: String,
    #[command(flatten)]
    place: Where,
}

#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// Which, with its version, such as openclaw@2026.5.12
    #[arg(value_name = "NAME@VERSION", value_parser = Names, hide_possible_values = true)]
    harness: String,
    #[command(flatten)]
    place: Where,
}

/// Takes any name, and completes those with a lock file.
#[derive(Clone, Copy, Debug)]
struct Names;

/// How long another command may work on the same version.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn run(command: &Command, context: &Context<'_>) -> Result<ExitCode, Failure> {
    match command {
        Command::Install(arguments) => installing::run(arguments, context),
        Command::List(arguments) => show::list(arguments, context),
        Command::Remove(arguments) => remove(arguments, context),
        Command::Show(arguments) => show::one(arguments, context),
        Command::Verify(arguments) => show::verify(arguments, context),
    }
}

fn remove(arguments: &Remove, context: &Context<'_>) -> Result<ExitCode, Failure> {
    let (store, installed) = found(&arguments.harness, &arguments.place, context)?;
    if !arguments.harness.contains('@') {
        let got = &arguments.harness;
        let message = format!("expected a harness with its version, got {got:?}");
        let name = format!("{}@{}", installed.harness.name(), installed.version);
        return Err(Failure::usage(message).hint(format!("did you mean {name}")));
    }
    let used = |installed: &Installed| in_use(installed, context.env);
    runtime::run(async {
        let mut signals = Signals::watch()?;
        let removing = store.remove(&installed, &used, PATIENCE);
        tokio::select! {
            removed = removing => removed.map_err(|error| of_not_removed(&error)),
            () = signals.next() => Err(Failure::user("stopped before it was removed")),
        }
    })?;
    let (name, version) = (installed.harness.name(), &installed.version);
    if arguments.place.json {
        let removed = serde_json::json!({"harness": name, "version": version, "removed": true});
        context.output.json(&removed)?;
    } else {
        context
            .output
            .line(&format!("{name} {version} is removed"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The sandboxes of this user that run on an installation.
fn in_use(installed: &Installed, env: &Environment) -> Vec<String> {
    let store = env.store_dir().map(|dir| StateStore::open_existing(&dir));
    let Some(Ok(Some(store))) = store else {
        return Vec::new();
    };
    let (name, version) = (installed.harness.name(), installed.version.as_str());
    let sandboxes = store.sandboxes().unwrap_or_default().into_iter();
    let using = sandboxes.filter(|sandbox| {
        sandbox.spec.agent == name && sandbox.spec.version.as_deref() == Some(version)
    });
    using
        .map(|sandbox| format!("sandbox {}", sandbox.name))
        .collect()
}

/// What is meant, where it is installed.
fn found(named: &str, place: &Where, context: &Context<'_>) -> Result<(Store, Installed), Failure> {
    let store = place.store(context)?;
    let (name, version) = apart(named);
    Kind::named(name).map_err(|error| of_not_available(&error))?;
    let installed = store.find(name, version);
    let installed = installed.map_err(|error| of_not_installed(&error, named, &store))?;
    Ok((store, installed))
}

impl Where {
    fn store(&self, context: &Context<'_>) -> Result<Store, Failure> {
        Store::of(self.store.as_deref(), context.env).map_err(|error| of_no_store(&error))
    }
}

/// `openclaw@2026.5.12`, or a name alone.
fn apart(named: &str) -> (&str, Option<&str>) {
    match named.split_once('@') {
        Some((name, version)) => (name, Some(version)),
        None => (named, None),
    }
}

impl TypedValueParser for Names {
    type Value = String;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<String, clap::Error> {
        StringValueParser::new().parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let names = shelf::specifications().into_iter();
        Some(Box::new(names.map(PossibleValue::new)))
    }
}

// === what went wrong ===

fn of_not_available(error: &NotAvailable) -> Failure {
    let failure = Failure::user(error.to_string());
    match error {
        NotAvailable::Version { harness, got, .. } => failure.hint(format!(
            "with a lock file of your own: `farrier harness install {harness}@{got} --lock FILE`"
        )),
        NotAvailable::Harness { .. } | NotAvailable::NoVersion(..) => failure,
    }
}

fn of_not_installed(error: &NotInstalled, named: &str, store: &Store) -> Failure {
    let failure = Failure::user(error.to_string());
    let there = store.list();
    let there: Vec<String> = there
        .iter()
        .map(|installed| format!("{}@{}", installed.harness.name(), installed.version))
        .collect();
    let failure = match &there[..] {
        [] => failure,
        there => failure.hint(format!("installed are {}", there.join(", "))),
    };
    failure.hint(format!("`farrier harness install {named}` installs it"))
}

fn of_no_store(error: &NoStore) -> Failure {
    let failure = Failure::user(error.to_string());
    match std::error::Error::source(error) {
        Some(cause) => failure.caused_by(cause),
        None => failure,
    }
}

fn of_not_removed(error: &NotRemoved) -> Failure {
    match error {
        NotRemoved::InUse { .. } => {
            Failure::user(error.to_string()).hint("destroy them, or have them use another version")
        }
        NotRemoved::NotOurs(_) => {
            Failure::user(error.to_string()).hint("remove it by what installed it")
        }
        NotRemoved::Store(error) => of_no_store(error),
    }
}
