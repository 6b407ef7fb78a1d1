//! Which requests are approved without a person.
//!
//! In the order of the questions: unknown client, malformed scopes, scopes beyond the bound, another role than an
//! operator's. The mode that a client says it has decides nothing: any program may say `cli`.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::request::{Request, Scopes};

/// Which clients may have which scopes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Policy {
    clients: BTreeSet<String>,
    scopes: BTreeSet<String>,
}

/// What a policy makes of a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Decision {
    /// It is one of the harness's own, and wants no more than those may have.
    Allow,
    /// A person may approve it; nobody else does.
    Refuse(Reason),
}

/// Why a request is not approved without a person.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum Reason {
    /// It wants scopes that nobody gets without a person.
    DisallowedScopes {
        /// Those.
        scopes: Vec<String>,
    },
    /// Its roles or scopes are not what the harness itself would write.
    MalformedScopes,
    /// It wants another role than an operator's.
    OtherRole {
        /// The roles.
        roles: Vec<String>,
    },
    /// No client of the harness's own.
    UnknownClient {
        /// What it says it is.
        client: String,
        /// How it says it is used.
        mode: String,
    },
}

/// Why a policy is not used.
#[derive(Debug, Error)]
pub enum PolicyError {
    /// Whoever could change it could approve anything.
    #[error(
        "expected a policy that only another user can write, got {path} with mode {mode:04o}; \
         take it out of reach: chmod 0444, and have it owned by another user if that is not root"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It is no policy.
    #[error("expected a policy as JSON in {path}: {message}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// It would grant what is never granted without a person.
    #[error("expected scopes among {}, got {scope:?} in {path}", SCOPES.join(", "))]
    TooWide {
        /// The file.
        path: PathBuf,
        /// The scope.
        scope: String,
    },
    /// It cannot be read.
    #[error("cannot read the policy {path}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPolicy {
    clients: Option<BTreeSet<String>>,
    scopes: Option<BTreeSet<String>>,
}

/// The programs of the harness's own that ask its gateway for scopes.
const CLIENTS: [&str; 3] = ["cli", "openclaw-cli", "openclaw-control-ui"];
/// All that is ever granted without a person. `operator.admin` is not among them and cannot be added.
pub(crate) const SCOPES: [&str; 3] = ["operator.pairing", "operator.read", "operator.write"];
/// The only role.
const ROLE: &str = "operator";
/// A policy is a few lines.
const MAX_POLICY_BYTES: u64 = 64 * 1024;

impl Default for Policy {
    fn default() -> Self {
        let owned = |names: [&str; 3]| names.map(str::to_owned).into();
        Self {
            clients: owned(CLIENTS),
            scopes: owned(SCOPES),
        }
    }
}

impl Policy {
    /// Reads a policy: `{"clients": […], "scopes": […]}`, where what is absent is as by default. It may name other
    /// clients, and fewer scopes.
    ///
    /// # Errors
    /// The file can be written by its group, by others or by this process's own user, is no policy, or is wider than any
    /// may be. Whoever wrote it is at fault.
    pub fn from_file(path: &Path) -> Result<Self, PolicyError> {
        let text = read_unexposed(path)?;
        let malformed = |error: serde_json::Error| PolicyError::Malformed {
            path: path.to_owned(),
            message: error.to_string(),
        };
        let raw: RawPolicy = serde_json::from_str(&text).map_err(malformed)?;
        let default = Self::default();
        let scopes = raw.scopes.unwrap_or(default.scopes);
        match scopes
            .iter()
            .find(|scope| !SCOPES.contains(&scope.as_str()))
        {
            Some(scope) => Err(PolicyError::TooWide {
                path: path.to_owned(),
                scope: scope.clone(),
            }),
            None => Ok(Self {
                clients: raw.clients.unwrap_or(default.clients),
                scopes,
            }),
        }
    }

    /// What to do with a request. A pure function of what was asked.
    #[must_use]
    pub fn decide(&self, request: &Request) -> Decision {
        let known = request.client_id.as_ref();
        if !known.is_some_and(|client| self.clients.contains(client)) {
            let said = |text: &Option<String>| text.clone().unwrap_or_default();
            return Decision::Refuse(Reason::UnknownClient {
                client: said(&request.client_id),
                mode: said(&request.client_mode),
            });
        }
        let (Scopes::Listed(scopes), Some(roles)) = (&request.scopes, &request.roles) else {
            return Decision::Refuse(Reason::MalformedScopes);
        };
        let beyond: Vec<_> = scopes
            .iter()
            .filter(|scope| !self.scopes.contains(*scope))
            .cloned()
            .collect();
        if !beyond.is_empty() {
            return Decision::Refuse(Reason::DisallowedScopes { scopes: beyond });
        }
        if roles.iter().any(|role| role != ROLE) {
            return Decision::Refuse(Reason::OtherRole {
                roles: roles.clone(),
            });
        }
        Decision::Allow
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DisallowedScopes { scopes } => write!(
                f,
                "expected scopes among {}, got {}",
                SCOPES.join(", "),
                scopes.join(", ")
            ),
            Self::MalformedScopes => {
                f.write_str("expected roles and scopes as lists, got something else")
            }
            Self::OtherRole { roles } => {
                write!(f, "expected the role {ROLE}, got {}", roles.join(", "))
            }
            Self::UnknownClient { client, mode } => write!(
                f,
                "expected a client of the harness's own, got {client:?} (mode {mode:?})"
            ),
        }
    }
}

/// The text of a file that neither this process's user nor its group nor others may write.
fn read_unexposed(path: &Path) -> Result<String, PolicyError> {
    let unreadable = |source: io::Error| PolicyError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file =
        rustix::fs::open(path, flags, Mode::empty()).map_err(|error| unreadable(error.into()))?;
    let stat = rustix::fs::fstat(&file).map_err(|error| unreadable(error.into()))?;
    let own = stat.st_uid == geteuid().as_raw();
    if stat.st_mode & 0o022 != 0 || own && stat.st_mode & 0o200 != 0 {
        return Err(PolicyError::Exposed {
            path: path.to_owned(),
            mode: stat.st_mode & 0o7777,
        });
    }
    let mut text = String::new();
    let read = File::from(file)
        .take(MAX_POLICY_BYTES)
        .read_to_string(&mut text);
    read.map_err(unreadable)?;
    Ok(text)
}
