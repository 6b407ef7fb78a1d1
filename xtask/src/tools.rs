//! The cargo subcommands that the checks need: used as found, installed under the target directory where absent.
//!
//! An installation builds from source, so it is trimmed: no optional features that the checks do not use, and a profile
//! that spends its time on neither optimisation nor link-time optimisation.

use std::fs;

use crate::failure::Failure;
use crate::steps::say;
use crate::workspace::{self, Workspace};

/// A cargo subcommand that is not part of the toolchain.
struct Tool {
    /// `cargo <subcommand>`.
    subcommand: &'static str,
    package: &'static str,
    /// Installed where none is found; one that is found is taken as it is.
    version: &'static str,
    features: &'static [&'static str],
}

const NEXTEST: Tool = Tool {
    subcommand: "nextest",
    package: "cargo-nextest",
    version: "0.9.143",
    features: &["--no-default-features", "--features", "default-no-update"],
};

const DENY: Tool = Tool {
    subcommand: "deny",
    package: "cargo-deny",
    version: "0.20.2",
    features: &["--no-default-features"],
};

/// Profile settings for a program that runs for a second and is built on every fresh machine.
const LEAN_PROFILE: &[(&str, &str)] = &[
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
    ("CARGO_PROFILE_RELEASE_LTO", "off"),
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"),
];

/// Sees to it that `cargo nextest` runs.
pub(crate) fn nextest(workspace: &Workspace) -> Result<(), Failure> {
    NEXTEST.ensure(workspace)
}

/// Sees to it that `cargo deny` runs.
pub(crate) fn deny(workspace: &Workspace) -> Result<(), Failure> {
    DENY.ensure(workspace)
}

impl Tool {
    fn ensure(&self, workspace: &Workspace) -> Result<(), Failure> {
        if workspace::succeeds(&mut workspace.cargo([self.subcommand, "--version"])) {
            return Ok(());
        }
        say(&format!("installing {} {}", self.package, self.version));
        self.install(workspace)
    }

    fn install(&self, workspace: &Workspace) -> Result<(), Failure> {
        let build = workspace.tools().join("build");
        let mut command = workspace.cargo([
            "install",
            self.package,
            "--version",
            self.version,
            "--locked",
            "--quiet",
        ]);
        command.args(self.features);
        command
            .arg("--root")
            .arg(workspace.tools())
            .arg("--target-dir")
            .arg(&build);
        workspace::run(command.envs(LEAN_PROFILE.iter().copied()))?;
        fs::remove_dir_all(&build).map_err(Failure::file(&build))
    }
}
