//! What is said over the socket. [`OPENAPI`] says the same; a test holds the two together.

use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};

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

/// Why there is no such answer, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The gateway finishes what it has; it takes no other configuration any more.
    Draining,
    /// The path is known, and not with this method.
    MethodNotAllowed,
    /// No such path.
    NotFound,
    /// The files could not be read in time.
    TimedOut,
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

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    OpenApi,
    Reload,
    Status,
}

impl Endpoint {
    pub(crate) const ALL: [Self; 3] = [Self::OpenApi, Self::Reload, Self::Status];

    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::OpenApi => "/openapi.json",
            Self::Reload => "/v1/reload",
            Self::Status => "/v1/status",
        }
    }

    pub(crate) const fn method(self) -> Method {
        match self {
            Self::OpenApi | Self::Status => Method::GET,
            Self::Reload => Method::POST,
        }
    }

    pub(crate) fn of(path: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|endpoint| endpoint.path() == path)
    }
}

impl Code {
    pub(crate) const fn status(self) -> StatusCode {
        match self {
            Self::Draining => StatusCode::CONFLICT,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotFound => StatusCode::NOT_FOUND,
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
