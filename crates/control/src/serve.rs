//! Calls in, answers out.
//!
//! One call a connection: there is no hurry here, and nothing to keep.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use farrier_secrets::NameError;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, UPGRADE};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::process::geteuid;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use crate::api::{
    Code, Endpoint, OPENAPI, Providers, Refusal, RefusalError, Reload, Status, Wanted,
};
use crate::sandbox::{
    InvalidSandboxName, NewSandbox, SandboxChange, SandboxName, SandboxStatus, Sandboxes,
};
use crate::socket::Socket;
use crate::store::Change;
use crate::talk::{ExecRequest, PROTOCOL};

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

    /// Every sandbox, and how it is doing.
    fn sandboxes(&self) -> impl Future<Output = Result<Sandboxes, Unable>> + Send;

    /// Does something about one sandbox, and says how it is doing then.
    ///
    /// # Cancellation
    ///
    /// A caller that leaves changes nothing: what was begun is finished.
    fn sandbox(
        &self,
        act: SandboxAct,
    ) -> impl Future<Output = Result<SandboxStatus, Unable>> + Send;

    /// Starts a process in a sandbox, or finds the session, and gives what is to become of the caller's connection then.
    fn exec(
        &self,
        name: SandboxName,
        exec: ExecRequest,
    ) -> impl Future<Output = Result<Conversation, Unable>> + Send;
}

/// What is to be done about a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SandboxAct {
    /// Have it become something else.
    Change(SandboxName, SandboxChange),
    /// Make it.
    Create(Box<NewSandbox>),
    /// End it, and remove all that there is of it.
    Destroy(SandboxName),
    /// Nothing.
    Look(SandboxName),
    /// Start it.
    Start(SandboxName),
    /// End it, and keep what there is of it.
    Stop(SandboxName),
}

/// What becomes of a connection once it is no call any more: it is handed over, and lasts as long as what it is given to.
pub struct Conversation(Box<dyn FnOnce(Stream) -> Talking + Send>);

/// A connection that was a call.
pub type Stream = TokioIo<Upgraded>;
type Talking = Pin<Box<dyn Future<Output = ()> + Send>>;

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
/// Conversations at once; one more is refused.
const MAX_CONVERSATIONS: usize = 1024;
/// For the head of a request.
const HEAD_WAIT: Duration = Duration::from_secs(5);
/// For a whole call; more than what any operation takes.
const CALL_WAIT: Duration = Duration::from_secs(120);
/// The smallest that the parser works with, and plenty.
const MAX_HEAD_BYTES: usize = 8 * 1024;
/// A provider with every key that one could have; a sandbox with its policy.
const MAX_BODY_BYTES: usize = 1024 * 1024;
/// Between two tries after accept itself failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Socket {
    /// Answers calls, for ever. Dropping the future cuts those that are being answered.
    pub async fn serve(&self, operations: impl Operations) -> Infallible {
        let mut calls = JoinSet::new();
        let mut conversations = JoinSet::new();
        let places = Arc::new(Semaphore::new(MAX_CONVERSATIONS));
        loop {
            tokio::select! {
                Some(ended) = calls.join_next() => {
                    // What a call came to is its own affair, unless it goes on as something else.
                    if let Ok(Some(handed)) = ended {
                        drop(conversations.spawn(converse(handed)));
                    }
                }
                Some(_ended) = conversations.join_next() => {}
                accepted = self.listener.accept(), if calls.len() < MAX_CALLS => match accepted {
                    Ok((stream, _)) => {
                        drop(calls.spawn(call(stream, operations.clone(), Arc::clone(&places))));
                    }
                    Err(error) => {
                        warn!(%error, "accept failed on the control socket");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }
}

/// A connection that is to be handed over as soon as its last answer is written.
struct Handed {
    connection: OnUpgrade,
    conversation: Conversation,
    place: OwnedSemaphorePermit,
}

async fn converse(handed: Handed) {
    let Handed {
        connection,
        conversation: Conversation(talk),
        place,
    } = handed;
    match connection.await {
        Ok(upgraded) => talk(TokioIo::new(upgraded)).await,
        Err(error) => {
            debug!(%error, "a caller on the control socket left before it was handed over");
        }
    }
    drop(place);
}

/// One connection, from who is at its other end to the last byte of the answer.
async fn call(
    stream: UnixStream,
    operations: impl Operations,
    places: Arc<Semaphore>,
) -> Option<Handed> {
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
            return None;
        }
        Err(error) => {
            warn!(%error, "turned away a caller on the control socket: it is nobody's");
            return None;
        }
    }
    let handed = Arc::new(Mutex::new(None));
    let answer = {
        let handed = Arc::clone(&handed);
        service_fn(move |request: Request<Incoming>| {
            let desk = Desk {
                operations: operations.clone(),
                places: Arc::clone(&places),
                handed: Arc::clone(&handed),
            };
            async move { Ok::<_, Infallible>(desk.answer(request).await) }
        })
    };
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT)
        .max_buf_size(MAX_HEAD_BYTES)
        .keep_alive(false);
    match timeout(
        CALL_WAIT,
        http.serve_connection(TokioIo::new(stream), answer)
            .with_upgrades(),
    )
    .await
    {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "a call on the control socket ended early"),
        Err(_) => debug!("a call on the control socket took too long"),
    }
    let mut handed = handed.lock().unwrap_or_else(PoisonError::into_inner);
    handed.take()
}

/// Its own user, and root, who could do as it pleases anyway.
const fn is_let_in(caller: u32, own: u32) -> bool {
    caller == own || caller == 0
}

/// Where one call is answered.
struct Desk<O> {
    operations: O,
    places: Arc<Semaphore>,
    handed: Arc<Mutex<Option<Handed>>>,
}

impl<O: Operations> Desk<O> {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path().to_owned();
        let Some((endpoint, name)) = Endpoint::of(&path) else {
            let known = Endpoint::ALL.map(Endpoint::path).join(", ");
            let message = format!("expected one of {known}, got {path:?}");
            return refusal(Code::NotFound, message);
        };
        if !endpoint.methods().contains(request.method()) {
            return wrong_method(endpoint, &path, request.method());
        }
        match endpoint {
            Endpoint::OpenApi => json(StatusCode::OK, Bytes::from_static(OPENAPI.as_bytes())),
            Endpoint::Reload => reloaded(self.operations.reload().await),
            Endpoint::Status => value(StatusCode::OK, &self.operations.status()),
            Endpoint::Provider | Endpoint::Providers => self.providers(name, request).await,
            Endpoint::SandboxExec => self.exec(name, request).await,
            Endpoint::Sandboxes if request.method() == Method::GET => {
                told(self.operations.sandboxes().await)
            }
            Endpoint::Sandbox
            | Endpoint::SandboxStart
            | Endpoint::SandboxStop
            | Endpoint::Sandboxes => match asked_of_a_sandbox(endpoint, name, request).await {
                Ok(act) => told(self.operations.sandbox(act).await),
                Err(message) => refusal(Code::NotUnderstood, message),
            },
        }
    }

    async fn providers(&self, name: &str, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        if head.method == Method::GET {
            return told(self.operations.providers().await);
        }
        match wanted(&head, name, body).await {
            Ok(change) => reloaded(self.operations.change(change).await),
            Err(message) => refusal(Code::NotUnderstood, message),
        }
    }

    /// Hands the connection over, if all is well.
    async fn exec(&self, name: &str, mut request: Request<Incoming>) -> Response<Full<Bytes>> {
        let upgrade = request.headers().get(UPGRADE);
        if upgrade.is_none_or(|protocol| protocol != PROTOCOL) {
            let message = format!("expected a connection to be switched to {PROTOCOL}, got none");
            return refusal(Code::NotUnderstood, message);
        }
        let connection = hyper::upgrade::on(&mut request);
        let asked = async {
            let name = name
                .parse()
                .map_err(|error: InvalidSandboxName| error.to_string())?;
            let exec = body_of(request.into_body(), "what is to be started").await?;
            Ok::<(SandboxName, ExecRequest), String>((name, exec))
        };
        let (name, exec) = match asked.await {
            Ok(asked) => asked,
            Err(message) => return refusal(Code::NotUnderstood, message),
        };
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            let message = format!(
                "expected at most {MAX_CONVERSATIONS} terminals and commands at once, got one more"
            );
            return refusal(Code::Busy, message);
        };
        match self.operations.exec(name, exec).await {
            Err(unable) => refusal(unable.code(), unable.to_string()),
            Ok(conversation) => {
                let mut handed = self.handed.lock().unwrap_or_else(PoisonError::into_inner);
                *handed = Some(Handed {
                    connection,
                    conversation,
                    place,
                });
                switching()
            }
        }
    }
}

// === impl Conversation ===

impl Conversation {
    /// Of what is done with the connection.
    pub fn new<F>(talk: impl FnOnce(Stream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self(Box::new(|stream| Box::pin(talk(stream))))
    }
}

impl fmt::Debug for Conversation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Conversation").finish()
    }
}

/// What a call about a sandbox asks for.
async fn asked_of_a_sandbox(
    endpoint: Endpoint,
    name: &str,
    request: Request<Incoming>,
) -> Result<SandboxAct, String> {
    let (head, body) = request.into_parts();
    if endpoint == Endpoint::Sandboxes {
        return Ok(SandboxAct::Create(body_of(body, "a sandbox").await?));
    }
    let name = name.parse();
    let name = name.map_err(|error: InvalidSandboxName| error.to_string())?;
    Ok(match (endpoint, head.method) {
        (Endpoint::SandboxStart, _) => SandboxAct::Start(name),
        (Endpoint::SandboxStop, _) => SandboxAct::Stop(name),
        (_, Method::PATCH) => {
            SandboxAct::Change(name, body_of(body, "a change of a sandbox").await?)
        }
        (_, Method::DELETE) => SandboxAct::Destroy(name),
        _ => SandboxAct::Look(name),
    })
}

/// The change that a call asks for.
async fn wanted(head: &Parts, name: &str, body: Incoming) -> Result<Change, String> {
    if head.method == Method::DELETE {
        let name = name.parse().map_err(|error: NameError| error.to_string())?;
        return Ok(Change::Remove(name));
    }
    let wanted: Wanted = body_of(body, "a provider with name, type, base_url and keys").await?;
    let provider = wanted.parsed()?;
    match head.method == Method::PUT {
        true if provider.name.as_str() != name => {
            Err("expected the name of the path in the body, got another".to_owned())
        }
        true => Ok(Change::Replace(provider)),
        false => Ok(Change::Add(provider)),
    }
}

/// A body, whole. What is wrong with it is not repeated: somebody may have put a secret in a wrong place.
async fn body_of<T: DeserializeOwned>(body: Incoming, expected: &str) -> Result<T, String> {
    #[expect(clippy::disallowed_methods, reason = "bounded by Limited")]
    let body = Limited::new(body, MAX_BODY_BYTES).collect().await;
    let body = body
        .map_err(|_cut| format!("expected a body of at most {MAX_BODY_BYTES} bytes, got more"))?;
    serde_json::from_slice(&body.to_bytes()).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        format!("expected {expected}, got other JSON (line {line}, column {column})")
    })
}

fn told(answer: Result<impl Serialize, Unable>) -> Response<Full<Bytes>> {
    match answer {
        Ok(answer) => value(StatusCode::OK, &answer),
        Err(unable) => refusal(unable.code(), unable.to_string()),
    }
}

fn switching() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(PROTOCOL));
    response
}

fn reloaded(reload: Result<Reload, Unable>) -> Response<Full<Bytes>> {
    match reload {
        Ok(reload) => value(reload.result.status(), &reload),
        Err(unable) => refusal(unable.code(), unable.to_string()),
    }
}

fn wrong_method(endpoint: Endpoint, path: &str, got: &Method) -> Response<Full<Bytes>> {
    let allowed: Vec<&str> = endpoint.methods().iter().map(Method::as_str).collect();
    let message = format!("expected {} {path}, got {got}", allowed.join(" or "));
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
