//! Calls in, answers out.
//!
//! One call a connection: there is no hurry here, and nothing to keep.

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::process::geteuid;
use serde::Serialize;
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use crate::api::{Code, Endpoint, OPENAPI, Refusal, RefusalError, Reload, Status};
use crate::socket::Socket;

/// What a process lets itself be asked.
pub trait Operations: Clone + Send + Sync + 'static {
    /// How it is doing. Does not wait.
    fn status(&self) -> Status;

    /// Reads its configuration again, whole, and takes it over if nothing is wrong with it.
    ///
    /// # Cancellation
    ///
    /// A caller that leaves changes nothing: what was begun is finished.
    fn reload(&self) -> impl Future<Output = Result<Reload, Unable>> + Send;
}

/// Why it did not even try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unable {
    /// It is about to end.
    #[error("the gateway is draining and takes no other configuration")]
    Draining,
    /// Some file system does not answer.
    #[error("the configuration could not be read in time; the one before it serves")]
    TimedOut,
}

/// Calls at once; one more waits to be accepted.
const MAX_CALLS: usize = 16;
/// For the head of a request.
const HEAD_WAIT: Duration = Duration::from_secs(5);
/// For a whole call; more than what any operation takes.
const CALL_WAIT: Duration = Duration::from_secs(120);
/// The smallest that the parser works with, and plenty.
const MAX_HEAD_BYTES: usize = 8 * 1024;
/// Between two tries after accept itself failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Socket {
    /// Answers calls, for ever. Dropping the future cuts those that are being answered.
    pub async fn serve(&self, operations: impl Operations) -> Infallible {
        let mut calls = JoinSet::new();
        loop {
            if calls.len() >= MAX_CALLS {
                let _ended = calls.join_next().await;
            }
            tokio::select! {
                // What a call came to is its own affair.
                Some(_ended) = calls.join_next() => {}
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => drop(calls.spawn(call(stream, operations.clone()))),
                    Err(error) => {
                        warn!(%error, "accept failed on the control socket");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }
}

/// One connection, from who is at its other end to the last byte of the answer.
async fn call(stream: UnixStream, operations: impl Operations) {
    let (own, caller) = (
        geteuid().as_raw(),
        stream.peer_cred().map(|peer| peer.uid()),
    );
    match caller {
        Ok(uid) if is_let_in(uid, own) => {}
        Ok(uid) => {
            warn!(
                uid,
                "turned away a caller on the control socket: it is another user's"
            );
            return;
        }
        Err(error) => {
            warn!(%error, "turned away a caller on the control socket: it is nobody's");
            return;
        }
    }
    let answer = service_fn(move |request: Request<Incoming>| {
        let operations = operations.clone();
        async move { Ok::<_, Infallible>(answer(&request, &operations).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT)
        .max_buf_size(MAX_HEAD_BYTES)
        .keep_alive(false);
    match timeout(
        CALL_WAIT,
        http.serve_connection(TokioIo::new(stream), answer),
    )
    .await
    {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "a call on the control socket ended early"),
        Err(_) => debug!("a call on the control socket took too long"),
    }
}

/// Its own user, and root, who could do as it pleases anyway.
const fn is_let_in(caller: u32, own: u32) -> bool {
    caller == own || caller == 0
}

async fn answer(
    request: &Request<Incoming>,
    operations: &impl Operations,
) -> Response<Full<Bytes>> {
    let (method, path) = (request.method(), request.uri().path());
    let Some(endpoint) = Endpoint::of(path) else {
        let known = Endpoint::ALL.map(Endpoint::path).join(", ");
        let message = format!("expected one of {known}, got {path:?}");
        return refusal(Code::NotFound, message);
    };
    let allowed = endpoint.method();
    if *method != allowed {
        let message = format!("expected {allowed} {path}, got {method}");
        let mut refusal = refusal(Code::MethodNotAllowed, message);
        let allow = HeaderValue::from_str(allowed.as_str());
        refusal
            .headers_mut()
            .extend(allow.map(|allow| (ALLOW, allow)));
        return refusal;
    }
    match endpoint {
        Endpoint::OpenApi => json(StatusCode::OK, Bytes::from_static(OPENAPI.as_bytes())),
        Endpoint::Reload => match operations.reload().await {
            Ok(reload) => value(reload.result.status(), &reload),
            Err(unable) => refusal(unable.code(), unable.to_string()),
        },
        Endpoint::Status => value(StatusCode::OK, &operations.status()),
    }
}

impl Unable {
    const fn code(self) -> Code {
        match self {
            Self::Draining => Code::Draining,
            Self::TimedOut => Code::TimedOut,
        }
    }
}

fn refusal(code: Code, message: String) -> Response<Full<Bytes>> {
    let error = RefusalError { code, message };
    value(code.status(), &Refusal { error })
}

fn value(status: StatusCode, value: &impl Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_vec(value) {
        Ok(text) => json(status, text.into()),
        Err(error) => {
            // Texts, numbers and lists: there is nothing that JSON does not have.
            warn!(%error, "an answer on the control socket cannot be written");
            json(StatusCode::INTERNAL_SERVER_ERROR, Bytes::new())
        }
    }
}

fn json(status: StatusCode, text: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

#[cfg(test)]
mod tests {
    use super::is_let_in;

    #[test]
    fn its_own_user_and_root_are_let_in_and_nobody_else() {
        assert!(is_let_in(1000, 1000));
        assert!(is_let_in(0, 1000));
        assert!(!is_let_in(1001, 1000));
        assert!(!is_let_in(1000, 0));
    }
}
