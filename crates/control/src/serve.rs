//! Calls in, answers out.
//!
//! One call a connection: there is no hurry here, and nothing to keep.

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use farrier_secrets::NameError;
use http::header::{ALLOW, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
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

use crate::api::{
    Code, Endpoint, OPENAPI, Providers, Refusal, RefusalError, Reload, Status, Wanted,
};
use crate::socket::Socket;
use crate::store::Change;

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

    /// Every provider it knows of.
    fn providers(&self) -> impl Future<Output = Result<Providers, Unable>> + Send;

    /// Makes a change of the store and reads its configuration again. Where that is refused, the change is taken back. When
    /// this is answered, every request that is written from then on is of the new configuration.
    ///
    /// # Cancellation
    ///
    /// A caller that leaves changes nothing: what was begun is finished.
    fn change(&self, change: Change) -> impl Future<Output = Result<Reload, Unable>> + Send;
}

/// Why it did not even try.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unable {
    /// The change cannot be made.
    #[error("{message}")]
    Change {
        /// For programs.
        code: Code,
        /// For people.
        message: String,
    },
    /// It is about to end.
    #[error("the gateway is draining and takes no other configuration")]
    Draining,
    /// Some file system does not answer.
    #[error(
        "expected the configuration to be read in time, got none yet; the one before it serves until it is"
    )]
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
/// A provider with every key that one could have.
const MAX_BODY_BYTES: usize = 64 * 1024;
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
        async move { Ok::<_, Infallible>(answer(request, &operations).await) }
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

async fn answer(request: Request<Incoming>, operations: &impl Operations) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    let Some((endpoint, name)) = Endpoint::of(path) else {
        let known = Endpoint::ALL.map(Endpoint::path).join(", ");
        let message = format!("expected one of {known}, got {path:?}");
        return refusal(Code::NotFound, message);
    };
    if !endpoint.methods().contains(&head.method) {
        return wrong_method(endpoint, &head);
    }
    match endpoint {
        Endpoint::OpenApi => json(StatusCode::OK, Bytes::from_static(OPENAPI.as_bytes())),
        Endpoint::Reload => reloaded(operations.reload().await),
        Endpoint::Status => value(StatusCode::OK, &operations.status()),
        Endpoint::Providers if head.method == Method::GET => match operations.providers().await {
            Ok(providers) => value(StatusCode::OK, &providers),
            Err(unable) => refusal(unable.code(), unable.to_string()),
        },
        Endpoint::Provider | Endpoint::Providers => match wanted(&head, name, body).await {
            Ok(change) => reloaded(operations.change(change).await),
            Err(message) => refusal(Code::NotUnderstood, message),
        },
    }
}

/// The change that a call asks for.
async fn wanted(head: &Parts, name: &str, body: Incoming) -> Result<Change, String> {
    if head.method == Method::DELETE {
        let name = name.parse().map_err(|error: NameError| error.to_string())?;
        return Ok(Change::Remove(name));
    }
    #[expect(clippy::disallowed_methods, reason = "bounded by Limited")]
    let body = Limited::new(body, MAX_BODY_BYTES).collect().await;
    let body = body
        .map_err(|_cut| format!("expected a body of at most {MAX_BODY_BYTES} bytes, got more"))?;
    // What serde says could repeat what somebody has put in a wrong place.
    let wanted: Wanted = serde_json::from_slice(&body.to_bytes()).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        format!("expected a provider with name, type, base_url and keys, got other JSON (line {line}, column {column})")
    })?;
    let provider = wanted.parsed()?;
    match head.method == Method::PUT {
        true if provider.name.as_str() != name => {
            Err("expected the name of the path in the body, got another".to_owned())
        }
        true => Ok(Change::Replace(provider)),
        false => Ok(Change::Add(provider)),
    }
}

fn reloaded(reload: Result<Reload, Unable>) -> Response<Full<Bytes>> {
    match reload {
        Ok(reload) => value(reload.result.status(), &reload),
        Err(unable) => refusal(unable.code(), unable.to_string()),
    }
}

fn wrong_method(endpoint: Endpoint, head: &Parts) -> Response<Full<Bytes>> {
    let allowed: Vec<&str> = endpoint.methods().iter().map(Method::as_str).collect();
    let path = head.uri.path();
    let message = format!(
        "expected {} {path}, got {}",
        allowed.join(" or "),
        head.method
    );
    let mut refusal = refusal(Code::MethodNotAllowed, message);
    let allow = HeaderValue::from_str(&allowed.join(", "));
    refusal
        .headers_mut()
        .extend(allow.map(|allow| (ALLOW, allow)));
    refusal
}

impl Unable {
    const fn code(&self) -> Code {
        match self {
            Self::Change { code, .. } => *code,
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
