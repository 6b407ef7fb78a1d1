//! Starting Hermes, and asking it things from outside.

use std::fs;
use std::io;
use std::path::Path;

use crate::{Health, Launch, NoVersion, Place, Task};

/// What goes around the proxy.
const NO_PROXY: &str = "127.0.0.1,localhost,::1";

/// How a task is started. Hermes names its sessions itself; one can only be gone on with.
pub(crate) fn launch(task: &Task<'_>, place: &Place<'_>) -> Launch {
    let arguments: Vec<String> = match task {
        Task::Serve { .. } => ["gateway", "run"].map(str::to_owned).to_vec(),
        Task::Turn { session, message } => {
            let session = session.map(|session| ["--resume", session]);
            ["chat", "-Q", "--yolo"]
                .into_iter()
                .chain(session.into_iter().flatten())
                .chain(["-q", message])
                .map(str::to_owned)
                .collect()
        }
    };
    let shown = |path: &Path| path.display().to_string();
    let mut variables = vec![("HOME", shown(place.home))];
    if let Task::Serve { port } = task {
        variables.push(("API_SERVER_PORT", port.to_string()));
    }
    if let Some(path) = place.ca_file {
        // Its HTTP client reads the first, its look at the models the second.
        variables.push(("SSL_CERT_FILE", shown(path)));
        variables.push(("REQUESTS_CA_BUNDLE", shown(path)));
    }
    if let Some(proxy) = place.proxy {
        variables.push(("HTTPS_PROXY", proxy.to_owned()));
        variables.push(("NO_PROXY", NO_PROXY.to_owned()));
    }
    Launch {
        program: "hermes",
        arguments,
        variables,
    }
}

/// Whether the API server lives.
pub(crate) fn health(port: u16) -> Health {
    Health {
        url: format!("http://127.0.0.1:{port}/health"),
        live: &[200, 401],
    }
}

/// The version of the package, by its `hermes_agent-<version>.dist-info` or the directory
/// of packages that this is in.
pub(crate) fn installed_version(package: &Path) -> Result<String, NoVersion> {
    const NAME: &str = "hermes-agent";
    let failed = |source: io::Error| NoVersion::Io {
        path: package.to_owned(),
        source,
    };
    if let Some(version) = version_in(&package.file_name().unwrap_or_default().to_string_lossy()) {
        return Ok(version);
    }
    for entry in fs::read_dir(package).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if let Some(version) = version_in(&name.to_string_lossy()) {
            return Ok(version);
        }
    }
    Err(NoVersion::NotThePackage {
        path: package.to_owned(),
        expected: NAME,
        got: "a directory without its .dist-info".to_owned(),
    })
}

fn version_in(name: &str) -> Option<String> {
    let version = name
        .strip_prefix("hermes_agent-")?
        .strip_suffix(".dist-info")?;
    Some(version.to_owned())
}
