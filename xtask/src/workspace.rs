//! Where the workspace lies and how a child process is run in it.
//!
//! Children run from the workspace root with no standard input, so that nothing can stop to ask, and find the tools
//! installed under the target directory.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cargo_metadata::MetadataCommand;

use crate::failure::Failure;

/// The directories of this workspace and the `PATH` its tools are found on.
#[derive(Debug)]
pub(crate) struct Workspace {
    root: PathBuf,
    target: PathBuf,
    path: OsString,
}

impl Workspace {
    /// Asks cargo, which knows of a target directory set by configuration or environment.
    pub(crate) fn locate() -> Result<Self, Failure> {
        let metadata = MetadataCommand::new().no_deps().exec()?;
        let target = metadata.target_directory.into_std_path_buf();
        let path = in_front(&target.join("tools/bin"), env::var_os("PATH"));
        Ok(Self {
            root: metadata.workspace_root.into_std_path_buf(),
            target,
            path,
        })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where tools are installed: `bin/` below it is on the `PATH` of every child.
    pub(crate) fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }

    /// Where release builds of our programs lie.
    pub(crate) fn release(&self) -> PathBuf {
        self.target.join("release")
    }

    /// Where the real clients are installed.
    pub(crate) fn clients(&self) -> PathBuf {
        self.target.join("clients")
    }

    /// Where gateways to compare with are installed.
    pub(crate) fn peers(&self) -> PathBuf {
        self.target.join("peers")
    }

    /// `program`, to be run from the workspace root.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(&self.root)
            .env("PATH", &self.path)
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn cargo<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = self.command("cargo");
        command.args(args);
        command
    }
}

fn in_front(first: &Path, path: Option<OsString>) -> OsString {
    let mut joined = first.as_os_str().to_owned();
    if let Some(rest) = path {
        joined.push(":");
        joined.push(rest);
    }
    joined
}

/// Runs `command` to its end, its output going where ours goes.
pub(crate) fn run(command: &mut Command) -> Result<(), Failure> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::Exit {
            command: words(command),
            status,
        }),
        Err(source) => Err(Failure::Start {
            command: words(command),
            source,
        }),
    }
}

/// Whether `command` is there and succeeds; what it prints is of no interest.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn words(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy()];
    words.extend(command.get_args().map(|arg| arg.to_string_lossy()));
    words.join(" ")
}
