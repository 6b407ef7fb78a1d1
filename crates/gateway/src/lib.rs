//! The gateway: OpenAI-compatible requests in, a provider's replies out, both through the plan of their route.
//!
//! ```text
//! client ─▶ accept ▸ identify ▸ select ▸ plan ▸ rewrite ▸ upstream ─▶ provider
//! client ◀─ relay ◂──────────────── stream passes ◂──────────────────── ┘
//!              └─ rescue (any failure becomes an answer)     record (log, metrics, transcript)
//! ```
//!
//! Invariants:
//! * With an empty plan, request body and every reply byte pass unchanged; only the model's name may be replaced.
//! * A provider's status, body and end-to-end header fields pass unchanged. An answer of ours carries
//!   `x-farrier-fault`; no provider's does, as it may not speak in our name.
//! * A path means the same to us and to the provider, and besides inference nothing passes that is not configured.
//! * The credential enters in `upstream` and nowhere else; what the caller presented to us never leaves.
//! * A turn is in the ledger before its end is given to the client.
//! * Every wait is bounded, nothing is queued without a bound, and a client that leaves cancels its request.
//!
//! Not here: what passes do (that is `farrier-compat`), where configuration comes from, other dialects.

#![forbid(unsafe_code)]

mod accept;
pub mod config;
mod identify;
mod metrics;
mod models;
mod passthrough;
mod path;
mod plans;
mod probes;
mod record;
mod relay;
mod reload;
mod rescue;
mod seed;
mod select;
mod trace;
mod upstream;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use farrier_compat::fault::Fault;
use farrier_compat::plan::{Lookup, Plan, Recalled, Reply, Rewritten, With};
use farrier_compat::wire::chat::Ask;
use farrier_compat::wire::json::Segment;
use farrier_ledger::{Key, Ledger, Scope};
use farrier_serve::{Lingering, Peer, Tracker, read_body};
use http::header::CONTENT_ENCODING;
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;
use tracing::{error, warn};

pub use accept::{Bound, StartError};
pub use config::Config;
pub use farrier_serve::Drained;
pub use reload::{ReloadError, Reloaded, Reloader};

use config::Deadlines;
use identify::{Caller, Callers, Endpoint};
use metrics::{Metrics, Recall};
use record::Record;
use relay::{Memory, Relay, ReplyBody, Source};
use rescue::{Cause, rescue};
use seed::Seeds;
use select::{Route, Routes};
use trace::Traces;
use upstream::{Segments, Upstream, Upstreams, plain_please};

/// A gateway as one configuration makes it; [`Gateway::bind`] makes the first, and each reload another.
///
/// A request keeps the one it came to until its end. What must outlast a reload is shared between them.
#[derive(Debug)]
pub struct Gateway {
    callers: Callers,
    deadlines: Deadlines,
    ledger: Arc<dyn Ledger>,
    max_body_bytes: usize,
    max_reply_bytes: usize,
    metrics: Arc<Metrics>,
    /// The connections of clients, and what runs in them.
    requests: Tracker,
    routes: Routes,
    upstreams: Upstreams,
    seeds: Arc<Seeds>,
    traces: Option<Traces>,
    /// What is still to be remembered of replies whose clients left.
    writes: Tracker,
}

/// A request as it goes on: its body, and what is to be done with the reply if that is read at all.
struct Outbound {
    body: Segments,
    reply: Option<Reply>,
}

impl Gateway {
    /// One request, from its head to the head of its reply. Whatever fails on the way becomes an answer here.
    async fn answer(
        self: Arc<Self>,
        peer: Peer,
        request: Request<Incoming>,
    ) -> Response<ReplyBody> {
        let mut record = Record::start(&self.metrics, &self.requests);
        let (head, mut body) = request.into_parts();
        let answered = self
            .answer_or_fail(peer, head, &mut body, &mut record)
            .await;
        let reply = answered.unwrap_or_else(|cause| refuse(&cause, body, &mut record));
        reply.map(|source| ReplyBody::new(source, record))
    }

    async fn answer_or_fail(
        &self,
        peer: Peer,
        head: Parts,
        body: &mut Incoming,
        record: &mut Record,
    ) -> Result<Response<Source>, Cause> {
        let endpoint = Endpoint::of(&head.method, &head.uri)?;
        if endpoint.is_probe() {
            record.discard();
            let ready = probes::Readiness {
                ledger: &*self.ledger,
                draining: self.requests.is_draining(),
            };
            return Ok(if endpoint == Endpoint::Health {
                probes::health()
            } else {
                ready.page().await
            });
        }
        let caller = self.callers.identify(peer, &head)?;
        record.by(&caller);
        match endpoint {
            Endpoint::ChatCompletions => self.chat(caller, head, body, record).await,
            Endpoint::Metrics => {
                record.discard();
                probes::metrics(&self.metrics, self.ledger.stats())
            }
            Endpoint::Model(model) => Ok(models::one(self.routes.select(&model)?)),
            Endpoint::PassThrough { plain, written } => {
                let path = (plain.as_str(), written.as_str());
                self.pass_through(path, caller, head, body, record).await
            }
            Endpoint::Health | Endpoint::Models | Endpoint::Ready => Ok(models::all(&self.routes)),
        }
    }

    /// The journey of a chat completion.
    async fn chat(
        &self,
        caller: Caller,
        head: Parts,
        body: &mut Incoming,
        record: &mut Record,
    ) -> Result<Response<Source>, Cause> {
        let body = self.read(&head.headers, body, record).await?;
        let ask = Ask::parse(&body)?;
        let route = self.routes.select(&ask.model()?)?;
        let plan = route.plans.plan_for(caller.agent.as_deref());
        self.begin(&caller, route, &plan, &body, record);
        let ask = self.rewrite(&plan, ask, route, &caller.scope).await?;
        let outbound = Outbound::of(&body, ask, record);
        let reply = send(route, head, outbound.body, outbound.reply.is_some()).await?;
        record.answered(reply.status());
        let relay = self.relay(caller.scope, &route.upstream);
        match outbound.reply {
            Some(passes) => Ok(relay.through(reply, passes, record).await?),
            None => Ok(relay.pass(reply)),
        }
    }

    /// Everything else below `/v1`: the provider is chosen by the model the body names, if it names one, and what it
    /// answers is passed on. The path is what it names, and how it is written.
    async fn pass_through(
        &self,
        (plain, written): (&str, &str),
        caller: Caller,
        head: Parts,
        body: &mut Incoming,
        record: &mut Record,
    ) -> Result<Response<Source>, Cause> {
        let body = self.read(&head.headers, body, record).await?;
        let (upstream, body) = match passthrough::named_model(&head.headers, &body)? {
            None => (self.routes.default_upstream()?, body.into()),
            Some(model) => {
                let route = self.routes.select(&model)?;
                record.on_route(route);
                (
                    &route.upstream,
                    passthrough::with_model(body, route.upstream_model.as_deref()),
                )
            }
        };
        record.on_provider(&upstream.name);
        passthrough::check(upstream, &head.method, plain)?;
        let uri = upstream.below(written).ok_or(Cause::Path)?;
        let reply = upstream.send(head.method, uri, head.headers, body).await?;
        record.answered(reply.status());
        Ok(self.relay(caller.scope, upstream).pass(reply))
    }

    /// The request body, whole.
    async fn read(
        &self,
        headers: &HeaderMap,
        body: &mut Incoming,
        record: &mut Record,
    ) -> Result<Bytes, Cause> {
        if let Some(encoding) = headers
            .get(CONTENT_ENCODING)
            .filter(|encoding| *encoding != "identity")
        {
            return Err(Cause::BodyEncoded(
                String::from_utf8_lossy(encoding.as_bytes()).into_owned(),
            ));
        }
        let body = read_body(body, self.max_body_bytes, self.deadlines.request_body).await?;
        record.bytes_in = body.len();
        Ok(body)
    }

    /// Puts what is decided about a request on its record, before anything is done.
    fn begin(
        &self,
        caller: &Caller,
        route: &Arc<Route>,
        plan: &Plan,
        body: &Bytes,
        record: &mut Record,
    ) {
        record.on_route(route);
        if let Some(traces) = &self.traces {
            let facts = route.plans.facts(caller.agent.as_deref());
            record.captured(traces.capture(facts, plan, body));
        }
    }

    /// Makes of the client's request what the model must be sent, with what the ledger knows of its history.
    async fn rewrite<'a>(
        &self,
        plan: &Plan,
        ask: Ask<'a>,
        route: &Route,
        scope: &Scope,
    ) -> Result<Rewritten<'a>, Fault> {
        let recalled = self.recall(scope, plan.lookup(&ask)).await;
        let with = With {
            upstream_model: route.upstream_model.as_deref().map(str::to_owned),
            seed: self.seeds.next(),
            origin: route.origin.clone(),
        };
        plan.rewrite(ask, recalled, with)
    }

    /// Asks the ledger, if there is anything to ask. One that does not answer in time is one that cannot be asked.
    async fn recall(&self, scope: &Scope, lookup: Lookup) -> Recalled {
        let keys: Vec<Key> = lookup.keys().iter().map(|key| Key(key.0)).collect();
        if keys.is_empty() {
            return lookup.answered(&[]);
        }
        let within = self.deadlines.ledger_recall;
        match tokio::time::timeout(within, self.ledger.recall(scope, &keys)).await {
            Ok(Ok(found)) => {
                let hits = found.iter().filter(|values| !values.is_empty()).count();
                self.metrics.recalled(Recall::Hit, hits);
                self.metrics.recalled(Recall::Miss, keys.len() - hits);
                return lookup.answered(&found);
            }
            Ok(Err(error)) => warn!(?scope, %error, "the ledger cannot be asked"),
            Err(_) => warn!(?scope, ?within, "the ledger does not answer in time"),
        }
        self.metrics.recalled(Recall::Unavailable, keys.len());
        lookup.unanswered()
    }

    fn relay(&self, scope: Scope, upstream: &Arc<Upstream>) -> Relay {
        Relay {
            memory: Memory {
                ledger: Arc::clone(&self.ledger),
                scope,
                within: self.deadlines.ledger_record,
                metrics: Arc::clone(&self.metrics),
            },
            upstream: Arc::clone(upstream),
            silence: self.deadlines.silence,
            max_reply_bytes: self.max_reply_bytes,
            writes: self.writes.clone(),
        }
    }
}

// === impl Outbound ===

impl Outbound {
    /// Slices of the client's body where it is kept, new text where it is not; nothing is copied.
    fn of(body: &Bytes, ask: Rewritten<'_>, record: &mut Record) -> Self {
        let mut segments = Segments::default();
        for segment in ask.segments {
            segments.push(match segment {
                Segment::Kept(text) => body.slice_ref(text.as_bytes()),
                Segment::New(text) => text.into(),
            });
        }
        record.noted(ask.notes);
        record.sent_on(segments.pieces());
        Self {
            body: segments,
            reply: (!ask.reply.is_plain()).then_some(ask.reply),
        }
    }
}

/// Sends a chat completion on. Its reply must come plain if it is going to be read.
async fn send(
    route: &Route,
    head: Parts,
    body: Segments,
    read_reply: bool,
) -> Result<Response<Incoming>, Cause> {
    let upstream = &route.upstream;
    let uri = match head.uri.query() {
        None => upstream.chat_completions().clone(),
        Some(query) => upstream
            .below(&format!("/chat/completions?{query}"))
            .ok_or(Cause::Path)?,
    };
    let mut headers = head.headers;
    if read_reply {
        plain_please(&mut headers);
    }
    Ok(upstream.send(Method::POST, uri, headers, body).await?)
}

/// Answers with what went wrong. What is left of the request is thrown away meanwhile, so that the client can read it.
fn refuse(cause: &Cause, rest: Incoming, record: &mut Record) -> Response<Source> {
    match cause {
        Cause::Upstream(error) => record.upstream_failed(error),
        Cause::Unexpected { source, .. } => error!(%source, "{cause}"),
        _ => {}
    }
    let answer = rescue(cause);
    record.refused(&answer);
    let (head, body) = answer.into_parts();
    head.map(|()| match rest.is_end_stream() {
        true => Source::Whole(body),
        false => Source::Lingering(Lingering::new(body, rest, LINGER)),
    })
}

/// For a client to finish sending what is not wanted any more.
const LINGER: Duration = Duration::from_secs(2);
