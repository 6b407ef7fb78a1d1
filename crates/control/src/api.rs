//! What is said over the socket. [`OPENAPI`] says the same; a test holds the two together.

use std::collections::BTreeMap;

use farrier_secrets::SecretRef;
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use crate::store::StoredProvider;

/// The OpenAPI 3.1 document of this API, which it also serves, at `/openapi.json`.
pub const OPENAPI: &str = include_str!("../openapi.json");

/// How a gateway is doing: the answer of `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Of the program.
    pub version: String,
    /// Of the process.
    pub pid: u32,
    /// Since it listens, in whole seconds.
    pub uptime_seconds: u64,
    /// The configuration file, absolute.
    pub config: String,
    /// Which configuration serves: 1 is the one it started with, and each that is taken over counts one up.
    pub generation: u64,
    /// Since when that one serves, in milliseconds since 1970.
    pub serving_since_unix_ms: u64,
    /// Addresses, as bound.
    pub listen: Vec<String>,
    /// Whether a change of a file is taken over without being asked to.
    pub watching: bool,
    /// Whether it finishes what it has and takes nothing new.
    pub draining: bool,
    /// What the last attempt at another configuration came to, if there was one.
    pub last_reload: Option<Reload>,
}

/// What an attempt at another configuration came to: the answer of `POST /v1/reload`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reload {
    /// Whether it serves now.
    pub result: Outcome,
    /// What it was tried for.
    pub cause: Cause,
    /// When, in milliseconds since 1970.
    pub at_unix_ms: u64,
    /// The configuration file, absolute.
    pub config: String,
    /// Which configuration serves after it.
    pub generation: u64,
    /// What is wrong with it; then it was refused, and the one before it serves on.
    pub mistakes: Vec<Mistake>,
    /// What is no mistake but should be known.
    pub warnings: Vec<Mistake>,
    /// Keys of the file that say something else than what runs, and take a restart to change.
    pub needs_restart: Vec<String>,
    /// Providers whose connections are made anew.
    pub reconnected: Vec<String>,
}

/// Whether a configuration was taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The one before it serves on.
    Refused,
    /// It serves.
    Taken,
}

/// What a configuration was read again for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// A file it was read from changed.
    File,
    /// `POST /v1/reload`.
    Request,
    /// SIGHUP.
    Signal,
}

/// One thing to put right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mistake {
    /// The file it is in; absent where the message begins with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The line, counted from 1; absent where something is not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// What was expected, and what was got.
    pub message: String,
}

/// Every provider that a gateway knows of: the answer of `GET /v1/providers`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Providers {
    /// In the order of their names.
    pub providers: Vec<Provider>,
}

/// A provider, without any secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provider {
    /// What routes and attachments call it.
    pub name: String,
    /// Its profile.
    #[serde(rename = "type")]
    pub kind: String,
    /// Where it is.
    pub base_url: Option<String>,
    /// Where its keys come from.
    pub keys: BTreeMap<String, String>,
    /// Keys that are of no use, and why.
    pub broken: BTreeMap<String, String>,
    /// Who says so.
    pub origin: Origin,
    /// The file that declares it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The line of that file, counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
}

/// Who says that there is a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The configuration file; no command changes it.
    Declared,
    /// The state store.
    Stored,
}

/// A provider that is to be stored: the body of `POST /v1/providers` and `PUT /v1/providers/{name}`. References alone: a
/// secret has no place in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) base_url: Option<String>,
    #[serde(default)]
    pub(crate) keys: BTreeMap<String, String>,
}

impl Wanted {
    pub(crate) fn of(provider: &StoredProvider) -> Self {
        let keys = provider.keys.iter();
        Self {
            name: provider.name.to_string(),
            kind: provider.kind.clone(),
            base_url: provider.base_url.clone(),
            keys: keys
                .map(|(key, source)| (key.to_string(), source.to_string()))
                .collect(),
        }
    }

    /// As it is stored, at no time yet. What is wrong is not repeated.
    pub(crate) fn parsed(&self) -> Result<StoredProvider, String> {
        let mut keys = BTreeMap::new();
        for (key, source) in &self.keys {
            let key = key.parse().map_err(|error| format!("{error}"))?;
            let source: SecretRef = source.parse().map_err(|error| format!("{error}"))?;
            keys.extend([(key, source)]);
        }
        Ok(StoredProvider {
            name: self.name.parse().map_err(|error| format!("{error}"))?,
            kind: self.kind.clone(),
            base_url: self.base_url.clone(),
            keys,
            added_unix_ms: 0,
            changed_unix_ms: 0,
        })
    }
}

/// Why there is no such answer, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// More is asked for at once than is done at once.
    Busy,
    /// The configuration file declares the provider; it is changed there.
    Declared,
    /// The gateway finishes what it has; it takes no other configuration any more.
    Draining,
    /// There is one of that name.
    Exists,
    /// It was tried, and did not work.
    Failed,
    /// The path is known, and not with this method.
    MethodNotAllowed,
    /// No such path.
    NotFound,
    /// The sandbox does not run.
    NotRunning,
    /// The body is not what it should be.
    NotUnderstood,
    /// The state store cannot be used.
    Store,
    /// The files could not be read in time.
    TimedOut,
    /// There is nothing of that name.
    Unknown,
    /// A sandbox cannot be as it is wanted: something that it needs is missing.
    Unready,
}

/// The answer when there is no other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refusal {
    pub(crate) error: RefusalError,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RefusalError {
    pub(crate) code: Code,
    pub(crate) message: String,
}

/// What can be asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    OpenApi,
    Provider,
    Providers,
    Reload,
    Sandbox,
    SandboxExec,
    SandboxStart,
    SandboxStop,
    Sandboxes,
    Status,
}

impl Endpoint {
    pub(crate) const ALL: [Self; 10] = [
        Self::OpenApi,
        Self::Providers,
        Self::Provider,
        Self::Reload,
        Self::Sandboxes,
        Self::Sandbox,
        Self::SandboxExec,
        Self::SandboxStart,
        Self::SandboxStop,
        Self::Status,
    ];

    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::OpenApi => "/openapi.json",
            Self::Provider => "/v1/providers/{name}",
            Self::Providers => "/v1/providers",
            Self::Reload => "/v1/reload",
            Self::Sandbox => "/v1/sandboxes/{name}",
            Self::SandboxExec => "/v1/sandboxes/{name}/exec",
            Self::SandboxStart => "/v1/sandboxes/{name}/start",
            Self::SandboxStop => "/v1/sandboxes/{name}/stop",
            Self::Sandboxes => "/v1/sandboxes",
            Self::Status => "/v1/status",
        }
    }

    pub(crate) const fn methods(self) -> &'static [Method] {
        match self {
            Self::OpenApi | Self::Status => &[Method::GET],
            Self::Provider => &[Method::PUT, Method::DELETE],
            Self::Providers | Self::Sandboxes => &[Method::GET, Method::POST],
            Self::Reload | Self::SandboxExec | Self::SandboxStart | Self::SandboxStop => {
                &[Method::POST]
            }
            Self::Sandbox => &[Method::GET, Method::PATCH, Method::DELETE],
        }
    }

    /// The endpoint, and the name within the path if it has one.
    pub(crate) fn of(path: &str) -> Option<(Self, &str)> {
        Self::ALL
            .into_iter()
            .find_map(|endpoint| match endpoint.path().split_once("{name}") {
                None => (endpoint.path() == path).then_some((endpoint, "")),
                Some((before, after)) => {
                    let name = path.strip_prefix(before)?.strip_suffix(after)?;
                    let is_name = !name.is_empty() && !name.contains('/');
                    is_name.then_some((endpoint, name))
                }
            })
    }

    /// Its path, with this name in it.
    pub(crate) fn path_of(self, name: &str) -> String {
        self.path().replace("{name}", name)
    }
}

impl Code {
    pub(crate) const fn status(self) -> StatusCode {
        match self {
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Declared | Self::Draining | Self::Exists | Self::NotRunning => {
                StatusCode::CONFLICT
            }
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotFound | Self::Unknown => StatusCode::NOT_FOUND,
            Self::NotUnderstood => StatusCode::BAD_REQUEST,
            Self::Failed | Self::Store => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unready => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        }
    }
}

impl Outcome {
    pub(crate) const fn status(self) -> StatusCode {
        match self {
            Self::Refused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Taken => StatusCode::OK,
        }
    }
}

#[cfg(test)]
mod tests;
