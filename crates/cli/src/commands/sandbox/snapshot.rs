//! `farrier sandbox snapshot`: a sandbox's home and workspace as they were.
//!
//! ```text
//! <sandbox>/snapshots/20261121T043000Z/{home,workspace}     a copy of each; the name is when it was begun, in UTC
//! ```
//!
//! A sandbox is stopped for it: what is copied while it is being written fits together by chance alone. A snapshot gets its
//! name when it is whole, and what is brought back takes the place of what was there at once.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use clap::{Args, Subcommand};
use farrier_control::{SandboxState, SandboxStatus};
use farrier_ledger::{Clock as _, SystemClock};
use serde::Serialize;

use super::copy::copy_tree;
use super::{How, agreed, ask, named};
use crate::commands::Context;
use crate::failure::Failure;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Keep a copy of a stopped sandbox's home and workspace
    Create(OfSandbox),
    /// List the copies of a sandbox, the oldest first
    List(OfSandbox),
    /// Bring a copy back in place of what a stopped sandbox has now
    Restore(OfSnapshot),
    /// Remove a copy
    Remove(OfSnapshot),
}

#[derive(Debug, Args)]
pub(crate) struct OfSandbox {
    /// The sandbox's name
    name: String,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Args)]
pub(crate) struct OfSnapshot {
    /// The sandbox's name
    name: String,
    /// The copy's name, as the list has it
    snapshot: String,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    how: How,
}

/// A copy.
#[derive(Debug, Serialize)]
struct Snapshot {
    name: String,
    files: u64,
    bytes: u64,
}

/// What a copy is of.
const PARTS: [&str; 2] = ["home", "workspace"];

pub(super) fn run(command: &Command, context: &Context<'_>) -> Result<ExitCode, Failure> {
    match command {
        Command::Create(arguments) => create(arguments, context),
        Command::List(arguments) => list(arguments, context),
        Command::Remove(arguments) => remove(arguments, context),
        Command::Restore(arguments) => restore(arguments, context),
    }
}

fn create(arguments: &OfSandbox, context: &Context<'_>) -> Result<ExitCode, Failure> {
    let status = stopped(&arguments.name, &arguments.how, context)?;
    let dir = snapshots(&status)?;
    let name = moment();
    let (next, whole) = (dir.join(format!(".{name}.next")), dir.join(&name));
    let failed =
        |error: io::Error| Failure::internal(format!("cannot keep {}", whole.display()), &error);
    private(&dir)
        .and_then(|()| private(&next))
        .map_err(failed)?;
    let mut kept = Snapshot {
        name,
        files: 0,
        bytes: 0,
    };
    for part in PARTS {
        let (files, bytes) =
            copy_tree(&status.home.with_file_name(part), &next.join(part)).map_err(failed)?;
        kept.files += files;
        kept.bytes += bytes;
    }
    fs::rename(&next, &whole).map_err(failed)?;
    told(&kept, "kept", arguments.how.json, context)
}

fn list(arguments: &OfSandbox, context: &Context<'_>) -> Result<ExitCode, Failure> {
    let status = looked(&arguments.name, &arguments.how, context)?;
    let names = all(&snapshots(&status)?)?;
    if arguments.how.json {
        context.output.json(&names)?;
    } else {
        if names.is_empty() {
            context.notices.say("there is no copy of it");
        }
        for name in &names {
            context.output.line(name)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn restore(arguments: &OfSnapshot, context: &Context<'_>) -> Result<ExitCode, Failure> {
    let status = stopped(&arguments.name, &arguments.how, context)?;
    let from = found(arguments, &status)?;
    let question = format!(
        "bring {} back in place of what {} has now? [y/N]",
        arguments.snapshot, status.name
    );
    if !arguments.yes && !agreed(&question, context)? {
        return Err(Failure::user(format!("{} is as it was", status.name)));
    }
    let failed = |error: io::Error| {
        Failure::internal(format!("cannot bring {} back", from.display()), &error)
    };
    let mut back = Snapshot {
        name: arguments.snapshot.clone(),
        files: 0,
        bytes: 0,
    };
    for part in PARTS {
        let place = status.home.with_file_name(part);
        let next = status.home.with_file_name(format!(".{part}.next"));
        // Of one that was cut off.
        gone(&next).map_err(failed)?;
        let (files, bytes) = copy_tree(&from.join(part), &next).map_err(failed)?;
        back.files += files;
        back.bytes += bytes;
        let before = status.home.with_file_name(format!(".{part}.before"));
        gone(&before).map_err(failed)?;
        fs::rename(&place, &before).map_err(failed)?;
        fs::rename(&next, &place).map_err(failed)?;
        gone(&before).map_err(failed)?;
    }
    told(&back, "brought back", arguments.how.json, context)
}

fn remove(arguments: &OfSnapshot, context: &Context<'_>) -> Result<ExitCode, Failure> {
    let status = looked(&arguments.name, &arguments.how, context)?;
    let place = found(arguments, &status)?;
    let question = format!(
        "remove the copy {} of {}? [y/N]",
        arguments.snapshot, status.name
    );
    if !arguments.yes && !agreed(&question, context)? {
        return Err(Failure::user(format!(
            "{} is still there",
            arguments.snapshot
        )));
    }
    gone(&place)
        .map_err(|error| Failure::internal(format!("cannot remove {}", place.display()), &error))?;
    let removed = Snapshot {
        name: arguments.snapshot.clone(),
        files: 0,
        bytes: 0,
    };
    told(&removed, "removed", arguments.how.json, context)
}

fn told(
    snapshot: &Snapshot,
    word: &str,
    json: bool,
    context: &Context<'_>,
) -> Result<ExitCode, Failure> {
    if json {
        context.output.json(snapshot)?;
    } else {
        let Snapshot { name, files, bytes } = snapshot;
        context.output.line(&match files {
            0 => format!("{name}: {word}"),
            files => format!(
                "{name}: {word}, {files} files, {}",
                bytesize::ByteSize(*bytes)
            ),
        })?;
    }
    Ok(ExitCode::SUCCESS)
}

fn looked(name: &str, how: &How, context: &Context<'_>) -> Result<SandboxStatus, Failure> {
    let name = named(name)?;
    ask(&how.which, context, async |client| {
        client.sandbox(&name).await
    })
}

fn stopped(name: &str, how: &How, context: &Context<'_>) -> Result<SandboxStatus, Failure> {
    let status = looked(name, how, context)?;
    match status.state {
        SandboxState::Stopped => Ok(status),
        _ => Err(Failure::user(format!(
            "expected a stopped sandbox, got {name}, which is not"
        ))
        .hint(format!("farrier sandbox stop {name}"))),
    }
}

fn snapshots(status: &SandboxStatus) -> Result<PathBuf, Failure> {
    let dir = status.home.parent();
    let dir =
        dir.ok_or_else(|| Failure::user("expected a sandbox with a home, got one without"))?;
    Ok(dir.join("snapshots"))
}

/// The copies that are whole.
fn all(dir: &Path) -> Result<Vec<String>, Failure> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            return Err(Failure::internal(
                format!("cannot read {}", dir.display()),
                &error,
            ));
        }
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
    names.sort_unstable();
    Ok(names)
}

fn found(arguments: &OfSnapshot, status: &SandboxStatus) -> Result<PathBuf, Failure> {
    let dir = snapshots(status)?;
    let names = all(&dir)?;
    if names.contains(&arguments.snapshot) {
        return Ok(dir.join(&arguments.snapshot));
    }
    let failure = Failure::user(format!(
        "expected a copy of {}, got {:?}",
        status.name, arguments.snapshot
    ));
    Err(match names.is_empty() {
        true => failure.hint("there is none"),
        false => failure.hint(format!("there are {}", names.join(", "))),
    })
}

/// Now, as the name of a directory.
fn moment() -> String {
    let now = UNIX_EPOCH + Duration::from_millis(SystemClock.unix_millis());
    let text = humantime::format_rfc3339_millis(now).to_string();
    text.replace(['-', ':', '.'], "")
}

/// A directory of this user's alone.
fn private(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(path)
}

fn gone(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
