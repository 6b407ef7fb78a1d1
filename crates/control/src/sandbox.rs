//! Sandboxes: what is wanted of one, and how it is doing.
//!
//! The same words are stored, sent over the socket and printed with `--json`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use farrier_secrets::ProviderName;
use serde::{Deserialize, Serialize};

/// The name of a sandbox: 1 to 40 lower-case letters, digits and hyphens, with a letter first and no hyphen at the end. So
/// it is a host name, the name of a directory, and of an object in a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SandboxName(String);

/// It is no name of a sandbox. What it is instead is not repeated: somebody may have put a key there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected a name of 1 to 40 lower-case letters, digits and hyphens that begins with a letter and does not end with \
     a hyphen, got another"
)]
pub struct InvalidSandboxName;

/// What is wanted of a sandbox. References alone: a secret has no place in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SandboxSpec {
    /// What runs in it: `openclaw`, `hermes`, or `generic`.
    pub agent: String,
    /// The installed version of the harness.
    #[serde(default)]
    pub version: Option<String>,
    /// The model that it may ask for: the name of a route.
    pub route: String,
    /// Providers whose credentials may be used for it.
    #[serde(default)]
    pub providers: Vec<ProviderName>,
    /// Directories and files of the host that are shown in it.
    #[serde(default)]
    pub mounts: Vec<MountSpec>,
    /// Where it may go, as text in the language of policies; nowhere, without.
    #[serde(default)]
    pub policy: Option<String>,
    /// What is kept running in it, if it is not to be the harness's own gateway: program and arguments.
    #[serde(default)]
    pub command: Vec<String>,
    /// Whether something is kept running in it.
    #[serde(default)]
    pub serve: bool,
    /// Another system than the host's, read-only: a directory with `/usr`, `/etc` and so on.
    #[serde(default)]
    pub rootfs: Option<PathBuf>,
    /// Bounds.
    #[serde(default)]
    pub limits: LimitSpec,
}

/// Something of the host that is shown in a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MountSpec {
    /// Where it is on the host, absolute.
    pub host: PathBuf,
    /// Where it is in the sandbox, absolute.
    pub inside: PathBuf,
    /// Whether the sandbox may change it.
    #[serde(default)]
    pub writable: bool,
}

/// Bounds of a sandbox; what is absent is not bounded by this.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitSpec {
    /// Memory of all its processes, in bytes.
    #[serde(default)]
    pub memory_bytes: Option<u64>,
    /// Processes and threads at once.
    #[serde(default)]
    pub pids: Option<u32>,
    /// Processors' worth of time, in thousandths: 1500 is one and a half.
    #[serde(default)]
    pub milli_cpus: Option<u32>,
}

/// A sandbox that is to be made: the body of `POST /v1/sandboxes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewSandbox {
    /// What it is called.
    pub name: SandboxName,
    /// What it is.
    pub spec: SandboxSpec,
    /// Whether it is to be started at once.
    #[serde(default = "yes")]
    pub start: bool,
}

/// What is to become different: the body of `PATCH /v1/sandboxes/{name}`. It takes effect at once, also in one that runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SandboxChange {
    /// Providers more.
    #[serde(default)]
    pub attach: Vec<ProviderName>,
    /// Providers less.
    #[serde(default)]
    pub detach: Vec<ProviderName>,
    /// Another policy, as text.
    #[serde(default)]
    pub policy: Option<String>,
}

/// Every sandbox: the answer of `GET /v1/sandboxes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandboxes {
    /// In the order of their names.
    pub sandboxes: Vec<SandboxStatus>,
}

/// A sandbox, and how it is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxStatus {
    /// What it is called.
    pub name: SandboxName,
    /// What is wanted of it.
    pub spec: SandboxSpec,
    /// How it is doing.
    pub state: SandboxState,
    /// Since when, in milliseconds since 1970.
    pub since_unix_ms: u64,
    /// Why it is not as it should be, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What is kept running in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceStatus>,
    /// Its first process, as the host numbers it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Its bounds as they are enforced, or why they are not, each a sentence.
    #[serde(default)]
    pub limits: Vec<String>,
    /// Where its home is on the host.
    pub home: PathBuf,
    /// When it was made, in milliseconds since 1970.
    pub created_unix_ms: u64,
    /// Terminals in it that nobody looks at, or that somebody does.
    #[serde(default)]
    pub sessions: Vec<SessionStatus>,
    /// How it is with the harness's own devices, if it pairs any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pairing: Option<PairingStatus>,
}

/// How it is with the devices of a harness's own parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairingStatus {
    /// In one word: `converged`, `waiting`, `nothing-paired`, `starting`, `unanswered`, `deadline-reached` or `stopped`.
    pub state: String,
    /// What the harness said in place of an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since when, in milliseconds since 1970.
    pub since_unix_ms: u64,
    /// Devices that may connect.
    pub paired: u64,
    /// Requests approved since the sandbox runs.
    pub approvals: u64,
    /// Requests that ought to be approved and are not yet, each a line.
    pub waiting: Vec<String>,
    /// Requests that wait for a person, each a line with the reason.
    pub refused: Vec<String>,
}

/// How a sandbox is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SandboxState {
    /// It should run and does not.
    Failed,
    /// It runs.
    Running,
    /// It is being started.
    Starting,
    /// It is not to run.
    Stopped,
}

/// How that is doing which is kept running in a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Whether it runs now; otherwise it waits to be started again.
    pub running: bool,
    /// How often it was started again.
    pub restarts: u64,
    /// How it ended the last time, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_exit: Option<String>,
    /// The last lines that it wrote before that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_output: Option<String>,
}

/// A terminal in a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStatus {
    /// Its number.
    pub id: u64,
    /// What runs in it.
    pub command: Vec<String>,
    /// Whether somebody is connected to it.
    pub attached: bool,
    /// Since when it is there, in milliseconds since 1970.
    pub since_unix_ms: u64,
}

const fn yes() -> bool {
    true
}

// === impl SandboxName ===

impl SandboxName {
    /// Longest one, in bytes.
    pub const MAX_BYTES: usize = 40;

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SandboxName {
    type Err = InvalidSandboxName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = text.as_bytes();
        let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
        let is_name = bytes.len() <= Self::MAX_BYTES
            && bytes.first().is_some_and(u8::is_ascii_lowercase)
            && bytes.last().is_some_and(|last| *last != b'-')
            && bytes.iter().all(plain);
        match is_name {
            true => Ok(Self(text.to_owned())),
            false => Err(InvalidSandboxName),
        }
    }
}

impl TryFrom<String> for SandboxName {
    type Error = InvalidSandboxName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<SandboxName> for String {
    fn from(name: SandboxName) -> Self {
        name.0
    }
}

impl fmt::Display for SandboxName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_host_name_that_begins_with_a_letter() {
        for name in ["a", "work", "kimi-2", &"a".repeat(40)] {
            assert_eq!(name.parse::<SandboxName>().unwrap().as_str(), name);
        }
        let refused = [
            "",
            "-a",
            "a-",
            "2a",
            "A",
            "a_b",
            "a.b",
            "a/b",
            "..",
            "a b",
            "ä",
            "a\n",
            "a\0",
            &"a".repeat(41),
        ];
        for name in refused {
            assert_eq!(
                name.parse::<SandboxName>(),
                Err(InvalidSandboxName),
                "{name:?}"
            );
        }
    }

    #[test]
    fn a_name_that_is_none_is_refused_also_where_it_is_read_from_json() {
        let read = serde_json::from_str::<SandboxName>(r#""../etc""#);
        let told = read.unwrap_err().to_string();
        assert!(told.contains("lower-case letters"), "{told}");
        assert!(!told.contains("etc"), "{told}");
    }
}
