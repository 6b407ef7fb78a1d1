//! `farrier stage`: what an image needs of the registry, in a directory.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use farrier_compat::registry::shipped_sources;
use farrier_harness::stage::{self, FRAGMENT, Sources, StageError};
use farrier_harness::{HARNESSES, import};
use serde::Serialize;

use super::Context;
use crate::config::registry::{Directory, load};
use crate::failure::Failure;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The harness the image is for
    #[arg(long, value_parser = agents())]
    agent: String,
    /// Where to put it; must not exist or be empty
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// A directory whose manifests are added to the shipped ones, with plugins beside it; may be repeated
    #[arg(long = "dir", value_name = "DIR")]
    directories: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    directory: String,
    dockerfile: String,
    manifests: &'a [String],
    plugins: &'a [String],
    files: usize,
    bytes: u64,
    notes: &'a [String],
}

fn agents() -> Vec<&'static str> {
    let agents = HARNESSES.iter().filter_map(|harness| harness.agent());
    agents.collect()
}

pub(crate) fn run(arguments: &Arguments, context: &Context<'_>) -> Result<ExitCode, Failure> {
    let directories: Vec<Directory> = arguments
        .directories
        .iter()
        .map(|path| Directory {
            path: path.clone(),
            line: None,
        })
        .collect();
    let registry = load(&directories, &[], None).map_err(|(mistakes, _shipped)| {
        mistakes
            .iter()
            .for_each(|mistake| context.notices.say(&mistake.message));
        Failure::user("the manifests do not load")
    })?;
    let mut texts = shipped_sources();
    for directory in &arguments.directories {
        texts.extend(import::sources(directory).map_err(|error| of_error(&error))?);
    }
    let roots: Vec<PathBuf> = arguments
        .directories
        .iter()
        .map(|directory| above(directory))
        .collect();
    let sources = Sources {
        agent: &arguments.agent,
        registry: &registry,
        texts: &texts,
        roots: &roots,
    };
    let staged = stage::stage(&sources, &arguments.out).map_err(|error| match error {
        StageError::Occupied { .. } => {
            of_error(&error).hint("remove it, or name another with --out")
        }
        StageError::NoPlugin { .. } => {
            of_error(&error).hint("plugins are looked for beside each directory given with --dir")
        }
        _ => of_error(&error),
    })?;
    staged
        .notes
        .iter()
        .for_each(|note| context.notices.warn(note));
    let dockerfile = arguments.out.join(FRAGMENT).display().to_string();
    if arguments.json {
        context.output.json(&Report {
            directory: arguments.out.display().to_string(),
            dockerfile,
            manifests: &staged.manifests,
            plugins: &staged.plugins,
            files: staged.files,
            bytes: staged.bytes,
            notes: &staged.notes,
        })?;
    } else {
        let (manifests, plugins) = (staged.manifests.len(), staged.plugins.len());
        let line = format!("{manifests} manifests and {plugins} plugins staged, see {dockerfile}");
        context.output.line(&line)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The directory above, of a relative path too.
fn above(directory: &Path) -> PathBuf {
    match directory.parent() {
        Some(above) if above.as_os_str().is_empty() => PathBuf::from("."),
        Some(above) => above.to_owned(),
        None => directory.to_owned(),
    }
}

fn of_error(error: &dyn std::error::Error) -> Failure {
    let failure = Failure::user(error.to_string());
    match error.source() {
        Some(cause) => failure.caused_by(cause),
        None => failure,
    }
}
