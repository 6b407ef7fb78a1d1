//! Calls a running gateway.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::api::{Code, Endpoint, Refusal, Reload, Status};

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
        self.call(Endpoint::Status).await
    }

    /// Has it read its configuration again. That the configuration was refused is an answer, not an error.
    ///
    /// # Errors
    ///
    /// [`CallError`]; the gateway may have done it all the same, unless it is [`CallError::Refused`] or
    /// [`CallError::NoGateway`].
    pub async fn reload(&self) -> Result<Reload, CallError> {
        self.call(Endpoint::Reload).await
    }

    async fn call<T: DeserializeOwned>(&self, endpoint: Endpoint) -> Result<T, CallError> {
        let (status, body) =
            timeout(PATIENCE, self.exchange(endpoint))
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

    async fn exchange(&self, endpoint: Endpoint) -> Result<(StatusCode, Bytes), CallError> {
        let stream = UnixStream::connect(&self.path)
            .await
            .map_err(|error| self.unconnected(error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.broken(error))?;
        // Nobody reads the authority of a Unix socket, but HTTP/1.1 has one.
        let request = Request::builder()
            .method(endpoint.method())
            .uri(endpoint.path())
            .header(HOST, "localhost")
            .body(Empty::<Bytes>::new())
            .expect("a constant request is valid");
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
