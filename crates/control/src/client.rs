//! Calls a running gateway.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustix::process::geteuid;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::api::{Code, Endpoint, Providers, Refusal, Reload, Status, Wanted};
use crate::store::Change;

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
        self.call(Method::GET, Endpoint::Status.path(), None).await
    }

    /// Has it read its configuration again. That the configuration was refused is an answer, not an error.
    ///
    /// # Errors
    ///
    /// [`CallError`]; the gateway may have done it all the same, unless it is [`CallError::Refused`] or
    /// [`CallError::NoGateway`].
    pub async fn reload(&self) -> Result<Reload, CallError> {
        self.call(Method::POST, Endpoint::Reload.path(), None).await
    }

    /// Every provider it knows of.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn providers(&self) -> Result<Providers, CallError> {
        self.call(Method::GET, Endpoint::Providers.path(), None)
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
        Endpoint::Provider
            .path()
            .replace("{name}", change.name().as_str())
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Wanted>,
    ) -> Result<T, CallError> {
        let (status, body) = timeout(PATIENCE, self.exchange(method, path, body))
            .await
            .map_err(|_elapsed| CallError::TimedOut {
                path: self.path.clone(),
                within: PATIENCE,
            })??;
        if let Ok(answer) = serde_json::from_slice(&body) {
            return Ok(answer);
        }
        match serde_json::from_slice(&body) {
            Ok(Refusal { error }) => Err(CallError::Refused {
                code: error.code,
                message: error.message,
            }),
            Err(_) => Err(CallError::NotUnderstood {
                path: self.path.clone(),
                status,
            }),
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<&Wanted>,
    ) -> Result<(StatusCode, Bytes), CallError> {
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
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "localhost")
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
            .map_err(|error| self.broken(error))?;
        let mut answer = pin!(async {
            let (head, body) = sender.send_request(request).await?.into_parts();
            #[expect(clippy::disallowed_methods, reason = "bounded by Limited")]
            let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await?;
            Ok((head.status, body.to_bytes()))
        });
        let mut connection = pin!(connection);
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
