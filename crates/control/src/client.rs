//! Calls a running gateway.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, UPGRADE};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use rustix::process::geteuid;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::api::{Code, Endpoint, Providers, Refusal, Reload, Status, Wanted};
use crate::sandbox::{NewSandbox, SandboxChange, SandboxName, SandboxStatus, Sandboxes};
use crate::store::Change;
use crate::talk::{ExecRequest, PROTOCOL};

/// Whoever asks a gateway, by its socket.
#[derive(Clone, Debug)]
pub struct Client {
    path: PathBuf,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The socket is another user's.
    #[error("expected to be let in at {}, got turned away: the gateway answers its own user and root", path.display())]
    Denied {
        /// The socket.
        path: PathBuf,
    },
    /// Whoever listens is somebody else: the directory is not what it was taken for.
    #[error("expected a gateway of user {own} or of root at {}, got one of user {uid}; nothing was asked of it", path.display())]
    Foreign {
        /// The socket.
        path: PathBuf,
        /// Whose it is.
        uid: u32,
        /// Who asked.
        own: u32,
    },
    /// The gateway ended, or what is there is none.
    #[error("expected an answer from the gateway at {}, got a broken connection", path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What broke it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Nobody listens.
    #[error("expected a running gateway at {}, got none", path.display())]
    NoGateway {
        /// The socket.
        path: PathBuf,
    },
    /// Another version, or another program.
    #[error("expected an answer of a Farrier gateway at {}, got another (status {status})", path.display())]
    NotUnderstood {
        /// The socket.
        path: PathBuf,
        /// What it said in short.
        status: StatusCode,
    },
    /// The gateway would not.
    #[error("{message}")]
    Refused {
        /// For programs.
        code: Code,
        /// Its own words.
        message: String,
    },
    /// It takes longer than anything it does.
    #[error("expected an answer from the gateway at {} within {within:?}, got none", path.display())]
    TimedOut {
        /// The socket.
        path: PathBuf,
        /// How long was waited.
        within: Duration,
    },
}

/// Whether the connection is to become something else than HTTP.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Upgrading {
    No,
    Wanted,
}

enum Answer {
    Switched(Upgraded),
    Whole(StatusCode, Bytes),
}

/// A call without a body.
const NOTHING: Option<&()> = None;
/// For a whole call; longer than the gateway gives itself.
const PATIENCE: Duration = Duration::from_secs(130);
/// Far more than a status with every mistake that a file can hold.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

impl Client {
    /// Of the gateway whose socket is at `path`. Nothing is connected to yet.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How it is doing.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn status(&self) -> Result<Status, CallError> {
        self.call(Method::GET, Endpoint::Status.path(), NOTHING)
            .await
    }

    /// Has it read its configuration again. That the configuration was refused is an answer, not an error.
    ///
    /// # Errors
    ///
    /// [`CallError`]; the gateway may have done it all the same, unless it is [`CallError::Refused`] or
    /// [`CallError::NoGateway`].
    pub async fn reload(&self) -> Result<Reload, CallError> {
        self.call(Method::POST, Endpoint::Reload.path(), NOTHING)
            .await
    }

    /// Every provider it knows of.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn providers(&self) -> Result<Providers, CallError> {
        self.call(Method::GET, Endpoint::Providers.path(), NOTHING)
            .await
    }

    /// Has it change its store and serve what follows from it. That this was refused, and the change taken back, is an
    /// answer, not an error.
    ///
    /// # Errors
    ///
    /// [`CallError`]; as [`reload`](Self::reload).
    pub async fn change(&self, change: &Change) -> Result<Reload, CallError> {
        let (method, path, provider) = match change {
            Change::Add(provider) => (
                Method::POST,
                Endpoint::Providers.path().to_owned(),
                Some(provider),
            ),
            Change::Replace(provider) => (Method::PUT, Self::path_of(change), Some(provider)),
            Change::Remove(_) => (Method::DELETE, Self::path_of(change), None),
        };
        let body = provider.map(Wanted::of);
        self.call(method, &path, body.as_ref()).await
    }

    fn path_of(change: &Change) -> String {
        Endpoint::Provider.path_of(change.name().as_str())
    }

    /// Every sandbox, and how it is doing.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn sandboxes(&self) -> Result<Sandboxes, CallError> {
        let path = Endpoint::Sandboxes.path();
        self.call(Method::GET, path, NOTHING).await
    }

    /// One sandbox, and how it is doing.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn sandbox(&self, name: &SandboxName) -> Result<SandboxStatus, CallError> {
        let path = Endpoint::Sandbox.path_of(name.as_str());
        self.call(Method::GET, &path, NOTHING).await
    }

    /// Has it make a sandbox, and start it if that is wanted; answered when it runs.
    ///
    /// # Errors
    ///
    /// [`CallError`]; the gateway may have done it all the same, unless it is [`CallError::Refused`] or
    /// [`CallError::NoGateway`].
    pub async fn create_sandbox(&self, new: &NewSandbox) -> Result<SandboxStatus, CallError> {
        let path = Endpoint::Sandboxes.path();
        self.call(Method::POST, path, Some(new)).await
    }

    /// Has it change a sandbox, also one that runs.
    ///
    /// # Errors
    ///
    /// As [`create_sandbox`](Self::create_sandbox).
    pub async fn change_sandbox(
        &self,
        name: &SandboxName,
        change: &SandboxChange,
    ) -> Result<SandboxStatus, CallError> {
        let path = Endpoint::Sandbox.path_of(name.as_str());
        self.call(Method::PATCH, &path, Some(change)).await
    }

    /// Has it start a sandbox; answered when it runs.
    ///
    /// # Errors
    ///
    /// As [`create_sandbox`](Self::create_sandbox).
    pub async fn start_sandbox(&self, name: &SandboxName) -> Result<SandboxStatus, CallError> {
        let path = Endpoint::SandboxStart.path_of(name.as_str());
        self.call(Method::POST, &path, NOTHING).await
    }

    /// Has it stop a sandbox; answered when nothing of it runs.
    ///
    /// # Errors
    ///
    /// As [`create_sandbox`](Self::create_sandbox).
    pub async fn stop_sandbox(&self, name: &SandboxName) -> Result<SandboxStatus, CallError> {
        let path = Endpoint::SandboxStop.path_of(name.as_str());
        self.call(Method::POST, &path, NOTHING).await
    }

    /// Has it stop a sandbox and remove it, with its home. What it was is told.
    ///
    /// # Errors
    ///
    /// As [`create_sandbox`](Self::create_sandbox).
    pub async fn destroy_sandbox(&self, name: &SandboxName) -> Result<SandboxStatus, CallError> {
        let path = Endpoint::Sandbox.path_of(name.as_str());
        self.call(Method::DELETE, &path, NOTHING).await
    }

    /// Has it start a process in a sandbox, or go on with a session; see [`talk`](crate::talk) for what is said then.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn exec(
        &self,
        name: &SandboxName,
        exec: &ExecRequest,
    ) -> Result<impl AsyncRead + AsyncWrite + Unpin + Send + use<>, CallError> {
        let path = Endpoint::SandboxExec.path_of(name.as_str());
        let asked = self.exchange(Method::POST, &path, Some(exec), Upgrading::Wanted);
        let answer = timeout(PATIENCE, asked).await;
        match answer.map_err(|_elapsed| self.timed_out())?? {
            Answer::Switched(stream) => Ok(TokioIo::new(stream)),
            Answer::Whole(status, body) => Err(self.refused(status, &body)),
        }
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, CallError> {
        let asked = self.exchange(method, path, body, Upgrading::No);
        let answer = timeout(PATIENCE, asked).await;
        let Answer::Whole(status, body) = answer.map_err(|_elapsed| self.timed_out())?? else {
            return Err(self.refused(StatusCode::SWITCHING_PROTOCOLS, b""));
        };
        serde_json::from_slice(&body).map_err(|_other| self.refused(status, &body))
    }

    fn timed_out(&self) -> CallError {
        CallError::TimedOut {
            path: self.path.clone(),
            within: PATIENCE,
        }
    }

    fn refused(&self, status: StatusCode, body: &[u8]) -> CallError {
        match serde_json::from_slice(body) {
            Ok(Refusal { error }) => CallError::Refused {
                code: error.code,
                message: error.message,
            },
            Err(_) => CallError::NotUnderstood {
                path: self.path.clone(),
                status,
            },
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
        upgrading: Upgrading,
    ) -> Result<Answer, CallError> {
        let body = body.map(serde_json::to_vec).transpose();
        let body = body.map_err(|error| self.broken(error))?;
        let stream = UnixStream::connect(&self.path)
            .await
            .map_err(|error| self.unconnected(error))?;
        self.check(&stream)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.broken(error))?;
        // Nobody reads the authority of a Unix socket, but HTTP/1.1 has one.
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "localhost");
        if upgrading == Upgrading::Wanted {
            request = request
                .header(CONNECTION, "upgrade")
                .header(UPGRADE, PROTOCOL);
        }
        let request = request
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
            .map_err(|error| self.broken(error))?;
        let mut answer = pin!(async {
            let answer = sender.send_request(request).await?;
            if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                return Ok(Answer::Switched(hyper::upgrade::on(answer).await?));
            }
            let (head, body) = answer.into_parts();
            #[expect(clippy::disallowed_methods, reason = "bounded by Limited")]
            let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await?;
            Ok(Answer::Whole(head.status, body.to_bytes()))
        });
        let mut connection = pin!(connection.with_upgrades());
        let mut open = true;
        loop {
            tokio::select! {
                answered = &mut answer => {
                    return answered.map_err(|error: Box<dyn std::error::Error + Send + Sync>| self.broken(error));
                }
                // The answer, or why there is none, is handed over before the connection ends.
                _ended = &mut connection, if open => open = false,
            }
        }
    }

    /// Who answers decides what is believed of a gateway.
    fn check(&self, stream: &UnixStream) -> Result<(), CallError> {
        let server = stream.peer_cred().map_err(|error| self.broken(error))?;
        let (uid, own) = (server.uid(), geteuid().as_raw());
        if is_believed(uid, own) {
            return Ok(());
        }
        let path = self.path.clone();
        Err(CallError::Foreign { path, uid, own })
    }

    fn unconnected(&self, error: io::Error) -> CallError {
        let path = self.path.clone();
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                CallError::NoGateway { path }
            }
            io::ErrorKind::PermissionDenied => CallError::Denied { path },
            _ => self.broken(error),
        }
    }

    fn broken(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> CallError {
        CallError::Broken {
            path: self.path.clone(),
            source: source.into(),
        }
    }
}

/// Whether a gateway of user `uid` is one that user `own` means: their own, or the machine's. Root may ask anybody's.
fn is_believed(uid: u32, own: u32) -> bool {
    uid == own || uid == 0 || own == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_of_another_user_is_not_believed_but_by_root() {
        let (root, mine, theirs) = (0, 1000, 1001);
        assert!(is_believed(mine, mine) && is_believed(root, mine) && is_believed(theirs, root));
        assert!(!is_believed(theirs, mine));
    }
}
