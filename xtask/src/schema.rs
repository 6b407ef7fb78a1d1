//! `cargo xtask schema`: the schema of manifests, written where editors find it.
//!
//! That the file is up to date is a test of the registry, not a step of its own.

use std::fs;

use crate::failure::Failure;
use crate::workspace::Workspace;

/// Writes `registry/schema.json`.
pub(crate) fn write(workspace: &Workspace) -> Result<(), Failure> {
    let path = workspace.root().join("registry/schema.json");
    fs::write(&path, farrier_compat::registry::schema::schema()).map_err(Failure::file(&path))
}
