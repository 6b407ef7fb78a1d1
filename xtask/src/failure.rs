//! How a command of this crate fails.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use crate::arch::Finding;

/// Why a step did not pass. `Display` is what the person at the terminal reads.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The tree breaks rules of the design.
    #[error("{} against the design{}", .0.len(), listed(.0))]
    Design(Vec<Finding>),
    /// A child process ended with a failure, which it has described itself.
    #[error("`{command}` ended with {status}")]
    Exit { command: String, status: ExitStatus },
    /// A file or directory could not be read or written.
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    /// `cargo metadata` gave no usable answer.
    #[error("cargo metadata: {0}")]
    Metadata(#[from] cargo_metadata::Error),
    /// No program of this kind is on the machine, and it is not ours to install.
    #[error("expected {what} on PATH, found none (tried {})", tried.join(", "))]
    Missing {
        what: &'static str,
        tried: &'static [&'static str],
    },
    /// A source file is not Rust.
    #[error("{}:{line}: expected Rust source, got a token that is none", path.display())]
    NotRust { path: PathBuf, line: usize },
    /// A child process could not be started.
    #[error("cannot start `{command}`: {source}")]
    Start { command: String, source: io::Error },
}

impl Failure {
    /// For `map_err`: this path, and what the system said about it.
    pub(crate) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}

fn listed(findings: &[Finding]) -> String {
    findings
        .iter()
        .map(|finding| format!("\n  {finding}"))
        .collect()
}
