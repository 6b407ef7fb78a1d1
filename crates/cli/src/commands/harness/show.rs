//! `farrier harness list`, `show` and `verify`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bytesize::ByteSize;
use farrier_harness::{Place, Task};
use serde::Serialize;

use super::installing::sentence;
use super::{List, One, found, of_no_store};
use crate::commands::Context;
use crate::failure::Failure;
use crate::harness::install::Outcome;
use crate::harness::shelf;
use crate::harness::store::Runtime;
use crate::harness::{Difference, Installed};
use crate::output::Style;

/// An installed harness.
#[derive(Serialize)]
struct Shown<'a> {
    harness: &'a str,
    version: &'a str,
    path: &'a Path,
    /// What starts it.
    program: Option<PathBuf>,
    /// The directories of its programs.
    programs: &'a [PathBuf],
    /// Its `PATH`.
    search_path: String,
    /// `null` where it was not Farrier that installed it, as with what follows.
    runtime: Option<&'a Runtime>,
    packages: Option<usize>,
    files: Option<u64>,
    bytes: Option<u64>,
    lock: Option<&'a str>,
    /// Directories of the host that a sandbox has to show besides the system's.
    needs: &'a [PathBuf],
    #[serde(skip_serializing_if = "Option::is_none")]
    was_there: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    downloaded: Option<u64>,
}

#[derive(Serialize)]
struct Everything<'a> {
    store: &'a Path,
    installed: Vec<Shown<'a>>,
    available: Vec<Available>,
}

#[derive(Serialize)]
struct Available {
    harness: &'static str,
    version: &'static str,
    installed: bool,
}

#[derive(Serialize)]
struct Verified<'a> {
    harness: &'a str,
    version: &'a str,
    as_installed: bool,
    differences: &'a [Difference],
}

/// How many differences people are shown.
const DIFFERENCES_SHOWN: usize = 20;

/// What an installation came to.
pub(super) fn installed(
    outcome: &Outcome,
    json: bool,
    context: &Context<'_>,
) -> Result<(), Failure> {
    if json {
        return context.output.json(&Shown {
            was_there: Some(outcome.was_there),
            downloaded: Some(outcome.downloaded),
            ..Shown::of(&outcome.installed)
        });
    }
    context.output.line(&sentence(outcome))?;
    context.output.text(&Shown::of(&outcome.installed).text())
}

pub(super) fn one(arguments: &One, context: &Context<'_>) -> Result<ExitCode, Failure> {
    let (_store, installed) = found(&arguments.harness, &arguments.place, context)?;
    let shown = Shown::of(&installed);
    if arguments.place.json {
        context.output.json(&shown)?;
    } else {
        let (name, version) = (shown.harness, shown.version);
        context.output.line(&format!("{name} {version}"))?;
        context.output.text(&shown.text())?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn list(arguments: &List, context: &Context<'_>) -> Result<ExitCode, Failure> {
    let store = arguments.place.store(context)?;
    let there = store.list();
    let is_there = |harness: &str, version: &str| {
        let mut same = there.iter();
        same.any(|one| one.harness.name() == harness && one.version == version)
    };
    let available = shelf::kinds().flat_map(|kind| {
        let versions = kind.versions().into_iter();
        versions.map(|version| (kind.harness, version))
    });
    let available: Vec<Available> = available
        .map(|(harness, version)| Available {
            harness,
            version,
            installed: is_there(harness, version),
        })
        .collect();
    if arguments.place.json {
        context.output.json(&Everything {
            store: store.dir(),
            installed: there.iter().map(Shown::of).collect(),
            available,
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    for installed in &there {
        let size = installed.record.as_ref().map(|record| record.bytes);
        let size = size.map_or_else(
            || "not by Farrier".to_owned(),
            |bytes| ByteSize(bytes).to_string(),
        );
        let (name, version) = (installed.harness.name(), &installed.version);
        let path = installed.path.display();
        let line = format!("{name:9} {version:12} installed  {size:>12}  {path}");
        context.output.line(&line)?;
    }
    for Available {
        harness, version, ..
    } in available.iter().filter(|one| !one.installed)
    {
        let line = format!("{harness:9} {version:12} available");
        context
            .output
            .line(&context.output.painted(&line, Style::Dim))?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn verify(arguments: &One, context: &Context<'_>) -> Result<ExitCode, Failure> {
    let (store, installed) = found(&arguments.harness, &arguments.place, context)?;
    let (name, version) = (installed.harness.name(), installed.version.as_str());
    if installed.record.is_none() {
        let path = installed.path.display();
        let message = format!("expected an installation that Farrier made at {path}, got another");
        return Err(Failure::user(message)
            .hint("what is in it is written down by its installer, if at all"));
    }
    let differences = store
        .verify(&installed)
        .map_err(|error| of_no_store(&error))?;
    let as_installed = differences.is_empty();
    if arguments.place.json {
        context.output.json(&Verified {
            harness: name,
            version,
            as_installed,
            differences: &differences,
        })?;
        return Ok(if as_installed {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        });
    }
    if as_installed {
        let files = installed.record.as_ref().map_or(0, |record| record.files);
        let line = format!("{name} {version}: {files} files as they were installed");
        context.output.line(&line)?;
        return Ok(ExitCode::SUCCESS);
    }
    for difference in differences.iter().take(DIFFERENCES_SHOWN) {
        let what = format!("{:?}", difference.what).to_lowercase();
        context.notices.say(&format!("{what}: {}", difference.path));
    }
    let message = format!(
        "expected {name} {version} as it was installed, got {} differences",
        differences.len()
    );
    Err(Failure::user(message).hint(format!(
        "`farrier harness remove {name}@{version}`, and install it again"
    )))
}

impl<'a> Shown<'a> {
    fn of(installed: &'a Installed) -> Self {
        let record = installed.record.as_ref();
        Self {
            harness: installed.harness.name(),
            version: &installed.version,
            path: &installed.path,
            program: started_by(installed),
            programs: &installed.programs,
            search_path: installed.search_path().to_string_lossy().into_owned(),
            runtime: record.map(|record| &record.runtime),
            packages: record.map(|record| record.packages),
            files: record.map(|record| record.files),
            bytes: record.map(|record| record.bytes),
            lock: record.map(|record| record.lock.as_str()),
            needs: record.map_or(&[], |record| &record.needs),
            was_there: None,
            downloaded: None,
        }
    }

    fn text(&self) -> String {
        let mut lines = vec![("path", self.path.display().to_string())];
        let program = self.program.as_ref();
        lines.extend(program.map(|program| ("program", program.display().to_string())));
        if let Some(runtime) = self.runtime {
            let Runtime {
                name,
                version,
                program,
            } = runtime;
            lines.push((
                "runtime",
                format!("{name} {version}, {}", program.display()),
            ));
        }
        if let (Some(bytes), Some(files), Some(packages)) = (self.bytes, self.files, self.packages)
        {
            let size = ByteSize(bytes);
            lines.push((
                "size",
                format!("{size}, {files} files of {packages} packages"),
            ));
        }
        for needed in self.needs {
            lines.push(("needs", needed.display().to_string()));
        }
        let lines = lines
            .iter()
            .map(|(name, value)| format!("  {name:8}{value}\n"));
        lines.collect()
    }
}

/// The program that takes a turn.
fn started_by(installed: &Installed) -> Option<PathBuf> {
    let task = Task::Turn {
        session: None,
        message: "",
    };
    let place = Place {
        home: Path::new("/"),
        ca_file: None,
        proxy: None,
    };
    Some(installed.launch(&task, &place)?.program)
}
