//! Agent harnesses: how each is configured, started, looked after and read.
//!
//! ```text
//! route + manifests + settings ──▶ Harness::config ──▶ Configuration ──▶ files, 0600, with digests
//! task ──────────────────────────▶ Harness::launch ──▶ program, arguments, variables
//! what it wrote about itself ────▶ Harness::transcript ──▶ Transcript, one form for all
//! ```
//!
//! A harness is a folder and a row of [`HARNESSES`]; whoever drives harnesses (the
//! command line, the sandbox, the operator) knows the trait alone.
//!
//! # What it does not do
//! It decides nothing about models: what applies is read off the registry. It starts
//! no process and opens no socket, reads no environment, and holds no secret; where
//! a harness wants one, its configuration holds a placeholder.

#![forbid(unsafe_code)]

mod configuration;
mod document;
mod env_lines;
mod gateway_key;
pub mod generic;
pub mod hermes;
pub mod import;
mod merge;
pub mod openclaw;
mod placeholder;
pub mod route;
pub mod settings;
pub mod stage;
mod target;
pub mod transcript;

use std::fmt::Debug;
use std::path::{Path, PathBuf};

use farrier_compat::facts::Facts;
use farrier_compat::registry::Registry;

pub use configuration::{Change, ConfigFile, Configuration, Content, Plan};
pub use document::{Document, Unreadable};
pub use target::{Edited, HASH_FILE, Owner, Refusal};

use settings::{Look, Mistakes, Setting};
use transcript::{Transcript, TranscriptError};

/// Every harness there is.
pub static HARNESSES: &[&dyn Harness] =
    &[&generic::Environment, &hermes::Hermes, &openclaw::OpenClaw];

/// What Farrier knows of an agent harness.
pub trait Harness: Debug + Send + Sync {
    /// Its name on a command line.
    fn name(&self) -> &'static str;

    /// The `agent` that manifests call it; `None` for clients that are no harness.
    fn agent(&self) -> Option<&'static str>;

    /// In one line, what configuring it means.
    fn about(&self) -> &'static str;

    /// The directory of its configuration in the home of whoever runs it; `None` if it
    /// has none of its own.
    fn config_dir(&self) -> Option<&'static str>;

    /// What can be chosen besides the route.
    fn settings(&self) -> &'static [&'static Setting];

    /// The version of what is installed, by its package directory.
    ///
    /// # Errors
    /// There is no such package, or it is another.
    fn version(&self, package: &Path) -> Result<String, NoVersion>;

    /// Its configuration for a route.
    ///
    /// # Errors
    /// Everything that is wrong with what was given.
    fn config(&self, request: &Request<'_>) -> Result<Configuration, Mistakes>;

    /// How its own program, in the package directory, is asked whether it takes a configuration;
    /// `None` if it cannot be asked.
    fn trial(&self, package: &Path) -> Option<Trial>;

    /// How it is started.
    fn launch(&self, task: &Task<'_>, place: &Place<'_>) -> Option<Launch>;

    /// How to see that it lives, where it listens on `port`.
    fn health(&self, port: u16) -> Option<Health>;

    /// What it recorded of a session, the newest if none is named.
    ///
    /// # Errors
    /// There is no such session below `home`, or its record cannot be read.
    fn transcript(&self, home: &Path, session: Option<&str>)
    -> Result<Transcript, TranscriptError>;

    /// How its devices are listed and let in; `None` if it pairs none.
    fn devices(&self) -> Option<Devices>;
}

/// What a configuration is asked for with.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The route, as the harness is told of it, and who really answers.
    pub route: &'a Facts,
    /// What applies to which model.
    pub registry: &'a Registry,
    /// What was chosen.
    pub look: &'a Look<'a>,
    /// The version of what is installed, if it is known.
    pub version: Option<&'a str>,
}

/// What a harness is started for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task<'a> {
    /// To serve its chat and its API on a loopback port, until it is stopped.
    Serve {
        /// The port.
        port: u16,
    },
    /// To take one turn and end.
    Turn {
        /// The session to go on with; a new one if `None`, or if the harness takes names and
        /// knows none such.
        session: Option<&'a str>,
        /// What the user says.
        message: &'a str,
    },
}

/// Where a harness is started.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The home directory it is given.
    pub home: &'a Path,
    /// A certificate authority to trust besides the usual ones.
    pub ca_file: Option<&'a Path>,
    /// The proxy for everything but loopback.
    pub proxy: Option<&'a str>,
}

/// A program to start, by its name on the search path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// The program.
    pub program: &'static str,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Variables to set; of others it needs the search path alone.
    pub variables: Vec<(&'static str, String)>,
}

/// How a harness's own program is asked whether it takes the configuration in its home.
#[derive(Debug, Clone)]
pub struct Trial {
    /// The program, by its name on the search path.
    pub program: &'static str,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Where programs are that come with the package, to be looked through first.
    pub programs: Vec<PathBuf>,
    /// Reads what it printed: what it objects to; `None` if that is no answer.
    pub verdict: fn(&str) -> Option<Vec<Objection>>,
}

/// What a harness's own program does not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Objection {
    /// Where, in the harness's own notation; empty for the whole of it.
    pub at: String,
    /// What is wrong there.
    pub message: String,
}

/// How to see that a harness lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// What to GET.
    pub url: String,
    /// The statuses of a harness that lives; one that wants a token first lives too.
    pub live: &'static [u16],
}

/// How a harness's devices are listed and let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Devices {
    /// The program.
    pub program: &'static str,
    /// Lists them as JSON.
    pub list: &'static [&'static str],
    /// Lets one in; its request id follows.
    pub approve: &'static [&'static str],
    /// Turns one away; its request id follows.
    pub reject: &'static [&'static str],
}

/// Why the version of what is installed is not known.
#[derive(Debug, thiserror::Error)]
pub enum NoVersion {
    /// There is no package.
    #[error("cannot read {}", path.display())]
    Io {
        /// What was looked for.
        path: PathBuf,
        /// Why it cannot be read.
        #[source]
        source: std::io::Error,
    },
    /// It is another package, or none.
    #[error("expected the package {expected} at {}, got {got}", path.display())]
    NotThePackage {
        /// Where.
        path: PathBuf,
        /// What was looked for.
        expected: &'static str,
        /// What is there.
        got: String,
    },
}

/// The harness with this name.
pub fn named(name: &str) -> Option<&'static dyn Harness> {
    HARNESSES
        .iter()
        .copied()
        .find(|harness| harness.name() == name)
}

impl Debug for Request<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("route", &self.route)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}
