//! The servers that tests start. They are not ours to install, and are asked for before anything is built.

use crate::failure::Failure;
use crate::workspace::{self, Workspace};

/// Either will do, as for the tests.
const STORES: &[&str] = &["redis-server", "valkey-server"];

/// Sees to it that there is a store for gateways to share.
pub(crate) fn store(workspace: &Workspace) -> Result<(), Failure> {
    let mut stores = STORES.iter();
    if stores.any(|store| workspace::succeeds(workspace.command(store).arg("--version"))) {
        return Ok(());
    }
    Err(Failure::Missing {
        what: "the Redis or Valkey that a shared ledger is tested with (apt-get install -y redis-server)",
        tried: STORES,
    })
}
