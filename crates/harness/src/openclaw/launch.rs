//! Starting `OpenClaw`, and asking it things from outside.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::{Devices, Health, Launch, NoVersion, Place, Task};

/// How devices are listed and let in. Without a request id, approving only shows what it
/// would approve, and ends with 1.
pub(crate) const DEVICES: Devices = Devices {
    program: "openclaw",
    list: &["devices", "list", "--json"],
    approve: &["devices", "approve", "--json"],
    reject: &["devices", "reject", "--json"],
};

/// What goes around the proxy: a harness sends loopback through it too unless told otherwise.
const NO_PROXY: &str = "127.0.0.1,localhost,::1";

/// How a task is started.
pub(crate) fn launch(task: &Task<'_>, place: &Place<'_>) -> Launch {
    let arguments: Vec<String> = match task {
        Task::Serve { port } => ["gateway", "run", "--bind", "loopback", "--port"]
            .map(str::to_owned)
            .into_iter()
            .chain([port.to_string()])
            .collect(),
        Task::Turn { session, message } => {
            let session = session.map(|session| ["--session-id", session]);
            ["agent", "--local", "--agent", "main"]
                .into_iter()
                .chain(session.into_iter().flatten())
                .chain(["--message", message, "--json"])
                .map(str::to_owned)
                .collect()
        }
    };
    let shown = |path: &Path| path.display().to_string();
    let mut variables = vec![("HOME", shown(place.home))];
    variables.extend(
        place
            .ca_file
            .map(|path| ("NODE_EXTRA_CA_CERTS", shown(path))),
    );
    if let Some(proxy) = place.proxy {
        variables.push(("HTTPS_PROXY", proxy.to_owned()));
        variables.push(("NO_PROXY", NO_PROXY.to_owned()));
    }
    Launch {
        program: "openclaw",
        arguments,
        variables,
    }
}

/// Whether the gateway lives: every version that is known answers here, and alike at
/// `/healthz`. With device pairing on it wants a token first, and lives all the same.
pub(crate) fn health(port: u16) -> Health {
    Health {
        url: format!("http://127.0.0.1:{port}/health"),
        live: &[200, 401],
    }
}

/// The version of the package in a directory.
pub(crate) fn installed_version(package: &Path) -> Result<String, NoVersion> {
    const NAME: &str = "openclaw";
    let path = package.join("package.json");
    let text = fs::read_to_string(&path).map_err(|source| NoVersion::Io {
        path: path.clone(),
        source,
    })?;
    let other = |got: String| NoVersion::NotThePackage {
        path: path.clone(),
        expected: NAME,
        got,
    };
    let read: Value = serde_json::from_str(&text).map_err(|error| other(error.to_string()))?;
    let text = |key: &str| read.get(key).and_then(Value::as_str);
    match (text("name"), text("version")) {
        (Some(NAME), Some(version)) => Ok(version.to_owned()),
        (Some(NAME), None) => Err(other("one without a version".to_owned())),
        (name, _) => Err(other(name.unwrap_or("no name").to_owned())),
    }
}
