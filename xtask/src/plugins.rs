//! Runs the tests of the plugins that `OpenClaw` is given.
//!
//! They stand beside the plugins' directories, as `openclaw-plugins/<plugin>.test.mjs`, and need Node alone.

use std::ffi::OsStr;
use std::fs;

use crate::failure::Failure;
use crate::workspace::{self, Workspace};

pub(crate) fn check(workspace: &Workspace) -> Result<(), Failure> {
    let directory = workspace.root().join("openclaw-plugins");
    let mut tests = Vec::new();
    for entry in fs::read_dir(&directory).map_err(Failure::file(&directory))? {
        let path = entry.map_err(Failure::file(&directory))?.path();
        if path.extension() == Some(OsStr::new("mjs")) {
            tests.push(path);
        }
    }
    tests.sort();
    workspace::run(workspace.command("node").arg("--test").args(&tests))
}
