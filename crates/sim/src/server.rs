//! The persona over HTTP/1.1 and HTTP/2 (prior knowledge), on a listener of the caller's.
//!
//! | request | answer |
//! |---|---|
//! | `POST /v1/chat/completions` | what the mind decides, travelling as the behaviour says |
//! | `GET /v1/models` | the persona's models |
//! | `GET /sim/log` | what the model received, see [`Log::to_json`] |
//! | `POST /sim/release` | lets every stalled answer go on |
//! | anything else | 404, OpenAI-shaped |
//!
//! Guarantees: no conversation is kept; every task ends with [`Sim::stop`] (or with the `Sim`); every wait is bounded by
//! [`crate::Limits`]; a key is never echoed, nor logged. A client that leaves is noticed at once: its answer is dropped and
//! its page in the log says cancelled.
//!
//! Caveats: with a bearer set, `/v1/*` wants it and `/sim/*` does not.

mod speech;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::behaviour::{Behaviour, Fault};
use crate::log::{self, Entry, Log, Outcome, Page};
use crate::mind::{self, Decision, Refusal, Verdict};
use crate::options::Options;
use crate::persona::Persona;
use crate::speak::{self, Spoken};
use speech::Speech;

/// The header in which a request chooses its own behaviour.
const BEHAVIOUR: &str = "x-sim-behaviour";
/// Longest wait for a request's headers.
const HEADERS_WITHIN: Duration = Duration::from_secs(10);
/// Pause after a failed accept, which most often means that descriptors ran out.
const AFTER_FAILED_ACCEPT: Duration = Duration::from_millis(50);

/// A persona at work.
#[derive(Debug)]
pub struct Sim {
    address: SocketAddr,
    log: Log,
    gate: watch::Sender<Gate>,
    accepting: JoinSet<()>,
}

/// What waiting answers look at.
#[derive(Clone, Copy, Debug, Default)]
struct Gate {
    /// How often stalls were released.
    released: u64,
    closing: bool,
}

/// What every request shares.
#[derive(Debug)]
struct Stage {
    persona: Persona,
    options: Options,
    log: Log,
    gate: watch::Sender<Gate>,
}

/// Why a wait at the gate ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Opened {
    Closing,
    Released,
    TooLate,
}

/// Streams of HTTP/2 connections, which hyper runs as tasks; cut when the last holder goes.
#[derive(Clone, Debug, Default)]
struct StreamTasks(Arc<Mutex<JoinSet<()>>>);

impl Sim {
    /// Serves the persona on the listener, in tasks of its own, until stopped or dropped.
    ///
    /// # Errors
    /// The listener's: it does not know its address.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(listener: TcpListener, persona: Persona, options: Options) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let log = Log::new(options.limits.log_entries);
        let gate = watch::Sender::new(Gate::default());
        let stage = Stage {
            persona,
            options,
            log: log.clone(),
            gate: gate.clone(),
        };
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, Arc::new(stage)));
        Ok(Self {
            address,
            log,
            gate,
            accepting,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// What the model received, and how each answer ended.
    #[must_use]
    pub fn log(&self) -> Log {
        self.log.clone()
    }

    /// Lets every answer that stalls, or has not begun, go on.
    pub fn release(&self) {
        release(&self.gate);
    }

    /// Stops accepting, breaks off stalled answers, lets the others finish within the drain limit, then cuts them.
    ///
    /// Safe to drop: then everything is cut at once.
    pub async fn stop(mut self) {
        self.gate.send_modify(|gate| gate.closing = true);
        while self.accepting.join_next().await.is_some() {}
    }
}

async fn accept(listener: TcpListener, stage: Arc<Stage>) {
    let streams = StreamTasks::default();
    let mut connections = JoinSet::new();
    let mut gate = stage.gate.subscribe();
    let most = stage.options.limits.max_connections.max(1);
    loop {
        let full = connections.len() >= most;
        tokio::select! {
            () = closed(&mut gate) => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if !full => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, Arc::clone(&stage), streams.clone()));
                }
                Err(_) => sleep(AFTER_FAILED_ACCEPT).await,
            },
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn connection(stream: TcpStream, stage: Arc<Stage>, streams: StreamTasks) {
    // Small writes are the point of half the behaviours; a failure only delays them.
    let _undelayed = stream.set_nodelay(true);
    let mut builder = auto::Builder::new(streams);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WITHIN);
    builder.http2().timer(TokioTimer::new());

    let mut gate = stage.gate.subscribe();
    let drain = stage.options.limits.drain;
    let service = service_fn(move |request| {
        let stage = Arc::clone(&stage);
        async move { Ok::<_, Infallible>(route(stage, request).await) }
    });
    let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        // How a connection ended is on its requests' pages; there is nobody else to tell.
        _ended = serving.as_mut() => {}
        () = closed(&mut gate) => {
            serving.as_mut().graceful_shutdown();
            let _ended = timeout(drain, serving).await;
        }
    }
}

async fn route(stage: Arc<Stage>, request: Request<Incoming>) -> Response<Speech> {
    let path = request.uri().path();
    let authorized = !path.starts_with("/v1/") || stage.authorizes(request.headers());
    match (request.method(), path) {
        (&Method::POST, "/v1/chat/completions") => chat(&stage, request).await,
        (&Method::GET, "/v1/models") if authorized => {
            let sheet = &stage.persona.sheet;
            stage.plain(speak::models(&sheet.models, &sheet.owned_by))
        }
        (&Method::GET, "/sim/log") => {
            let mut told = stage.log.to_json();
            told["persona"] = json!(stage.persona.name());
            stage.plain(Spoken::whole(200, &told))
        }
        (&Method::POST, "/sim/release") => {
            release(&stage.gate);
            stage.plain(Spoken::whole(200, &json!({"released": true})))
        }
        _ if !authorized => stage.plain(speak::refuse(&unauthorized())),
        (method, path) => {
            let message = format!("unknown request {method} {path}");
            let refusal = Refusal {
                status: 404,
                kind: "resource_not_found_error",
                message,
            };
            stage.plain(speak::refuse(&refusal))
        }
    }
}

/// Logs what the request told the model, and answers it.
async fn chat(stage: &Stage, request: Request<Incoming>) -> Response<Speech> {
    let (seq, arrived_ms) = stage.log.arrive();
    let protocol = format!("{:?}", request.version());
    let judged = stage.judge(request).await;
    let (verdict, behaviour) = judged.unwrap_or_else(|refusal| {
        let decision = Decision::Refuse(refusal);
        (
            Verdict {
                heard: None,
                decision,
            },
            Behaviour::default(),
        )
    });
    let mut page = stage.log.open(Entry {
        seq,
        arrived_ms,
        protocol,
        verdict: log::verdict(&verdict),
        heard: verdict.heard,
        behaviour: behaviour.clone(),
        outcome: Outcome::Speaking,
    });
    if behaviour.fault == Some(Fault::Never) && stage.at_gate().await != Opened::Released {
        page.aborted();
        return stage.plain(speak::refuse(&overslept()));
    }
    let spoken = speak::say(&verdict.decision, &behaviour);
    stage.respond(spoken, Some((seq, page)))
}

impl Stage {
    fn authorizes(&self, headers: &HeaderMap) -> bool {
        let borne = headers
            .get(header::AUTHORIZATION)
            .map(HeaderValue::as_bytes);
        self.options
            .bearer
            .as_ref()
            .is_none_or(|bearer| bearer.is_borne_by(borne))
    }

    async fn judge(&self, request: Request<Incoming>) -> Result<(Verdict, Behaviour), Refusal> {
        if !self.authorizes(request.headers()) {
            return Err(unauthorized());
        }
        let behaviour = self.behaviour(request.headers())?;
        let limits = &self.options.limits;
        let body = timeout(
            limits.max_wait,
            read(request.into_body(), limits.max_body_bytes),
        )
        .await
        .map_err(|_elapsed| Refusal {
            status: 408,
            ..Refusal::invalid("the body took too long".to_owned())
        })??;
        Ok((mind::answer(&self.persona, &self.options, &body), behaviour))
    }

    fn behaviour(&self, headers: &HeaderMap) -> Result<Behaviour, Refusal> {
        let Some(value) = headers.get(BEHAVIOUR) else {
            return Ok(self.options.behaviour.clone());
        };
        let text = value.to_str().unwrap_or_default();
        text.parse().map_err(|error: crate::BadBehaviour| {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            Refusal::invalid(format!("{BEHAVIOUR}: {error}{}", cause.unwrap_or_default()))
        })
    }

    fn at_gate(&self) -> impl Future<Output = Opened> + Send + use<> {
        at_gate(self.gate.subscribe(), self.options.limits.max_wait)
    }

    /// A response that no page tells of.
    fn plain(&self, spoken: Spoken) -> Response<Speech> {
        self.respond(spoken, None)
    }

    fn respond(&self, spoken: Spoken, page: Option<(u64, Page)>) -> Response<Speech> {
        let mut response = Response::new(());
        *response.status_mut() =
            StatusCode::from_u16(spoken.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        for (name, value) in &spoken.headers {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        let (seq, page) = page.unzip();
        if let Some(seq) = seq
            && let Ok(value) = HeaderValue::from_str(&format!("sim-{seq}"))
        {
            headers.insert("x-request-id", value);
        }
        response.map(|()| {
            Speech::new(
                spoken,
                page,
                self.gate.subscribe(),
                self.options.limits.max_wait,
            )
        })
    }
}

async fn read(mut body: Incoming, most: usize) -> Result<Vec<u8>, Refusal> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_gone| Refusal::invalid("the body ended early".to_owned()))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if bytes.len() + data.len() > most {
            let message = format!("the body is larger than {most} bytes");
            return Err(Refusal {
                status: 413,
                ..Refusal::invalid(message)
            });
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

fn unauthorized() -> Refusal {
    Refusal {
        status: 401,
        kind: "invalid_authentication_error",
        message: "expected a valid API key in the authorization header".to_owned(),
    }
}

fn overslept() -> Refusal {
    Refusal {
        status: 503,
        kind: "server_error",
        message: "the persona stopped, or nobody released it in time".to_owned(),
    }
}

fn release(gate: &watch::Sender<Gate>) {
    gate.send_modify(|gate| gate.released += 1);
}

/// Until the server closes.
async fn closed(gate: &mut watch::Receiver<Gate>) {
    // An error means that no one is left who could close it: then it is closed.
    let _closing = gate.wait_for(|gate| gate.closing).await;
}

/// Until stalls are released from now on, the server closes, or patience ends.
async fn at_gate(mut gate: watch::Receiver<Gate>, patience: Duration) -> Opened {
    let before = gate.borrow().released;
    let opened = gate.wait_for(|gate| gate.closing || gate.released > before);
    match timeout(patience, opened).await {
        Ok(Ok(gate)) if !gate.closing => Opened::Released,
        Ok(_) => Opened::Closing,
        Err(_elapsed) => Opened::TooLate,
    }
}

impl<F> Executor<F> for StreamTasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(stream);
    }
}
