//! Installs the gateways of `bench/peers/`, each in a virtual environment of its own under `<target>/peers`.

use std::process::Command;

use super::of_ours;
use crate::clients::python_environment;
use crate::failure::Failure;
use crate::workspace::Workspace;

/// Each is pinned in `bench/peers/<name>.txt`, and given to the measuring program as `--<name>`.
const PEERS: [&str; 2] = ["litellm", "tensorzero"];
const FILES: &str = "bench/peers";

/// The comparison of Farrier with them, once they are there.
pub(super) fn command(workspace: &Workspace) -> Result<Command, Failure> {
    let files = workspace.root().join(FILES);
    let mut command = of_ours("peers", workspace)?;
    for peer in PEERS {
        let home = workspace.peers().join(peer);
        python_environment(workspace, &home, &files.join(format!("{peer}.txt")))?;
        command.arg(format!("--{peer}")).arg(home);
    }
    command.arg("--files").arg(files);
    Ok(command)
}
