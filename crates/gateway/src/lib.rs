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
//! * What is tried again, or elsewhere, is tried before the client has a byte of a reply, from the bytes that it sent.
//!
//! Not here: what passes do (that is `farrier-compat`), where configuration comes from, other dialects.

#![forbid(unsafe_code)]

mod accept;
mod care;
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
mod resident;
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
use farrier_ledger::{Answer, Key, Ledger, Scope};
use farrier_serve::{Lingering, Tracker, read_body};
use http::header::CONTENT_ENCODING;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::Instant;
use tracing::{error, info, warn};

pub use accept::{Bound, StartError};
pub use config::Config;
pub use farrier_serve::Drained;
pub use reload::{ReloadError, Reloaded, Reloader};
pub use resident::{Entrance, Resident};

use care::{Allowances, Approach, Errand, Known, Outgoing, Replay, prefer};
use config::Deadlines;
use identify::{Caller, Callers, Endpoint, NoEndpoint};
use metrics::{Metrics, Recall};
use record::{LedgerState, Record};
use relay::{Memory, Relay, ReplyBody, Source};
use rescue::{Cause, rescue};
use resident::Whose;
use seed::Seeds;
use select::{Route, Routes, Target};
use trace::Traces;
use upstream::{Arriving, Segments, Upstream, Upstreams};

/// A gateway as one configuration makes it; [`Gateway::bind`] makes the first, and each reload another.
///
/// A request keeps the one it came to until its end. What must outlast a reload is shared between them.
#[derive(Debug)]
pub struct Gateway {
    allowances: Allowances,
    callers: Callers,
    deadlines: Deadlines,
    known: Arc<Known>,
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

/// A chat completion as it was asked for, whoever is going to answer.
struct Asked<'a> {
    caller: &'a Caller,
    query: Option<&'a str>,
    headers: &'a HeaderMap,
    body: &'a Bytes,
}

/// A request as it goes on: its body, and what is to be done with the reply if that is read at all.
struct Outbound {
    body: Segments,
    reply: Option<Reply>,
}

/// What came of asking a target.
struct Answered<'r> {
    target: &'r Target,
    reply: Response<Arriving>,
    /// What is to be done with it.
    passes: Option<Reply>,
}

impl Gateway {
    /// One request, from its head to the head of its reply. Whatever fails on the way becomes an answer here.
    async fn answer(
        self: Arc<Self>,
        whose: Whose,
        request: Request<Incoming>,
    ) -> Response<ReplyBody> {
        let mut record = Record::start(&self.metrics, &self.requests);
        let (head, mut body) = request.into_parts();
        let answered = self
            .answer_or_fail(&whose, head, &mut body, &mut record)
            .await;
        let reply = answered.unwrap_or_else(|cause| refuse(&cause, body, &mut record));
        let ledger = record.ledger;
        let mut reply = reply.map(|source| ReplyBody::new(source, record));
        if let Some(state) = ledger {
            let state = HeaderValue::from_static(state.as_str());
            reply.headers_mut().insert(LEDGER, state);
        }
        reply
    }

    async fn answer_or_fail(
        &self,
        whose: &Whose,
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
        let caller = self.callers.identify(whose, &head)?;
        record.by(&caller);
        if endpoint.is_work() {
            record.admitted(self.allowances.admit(&caller.scope)?);
        }
        match endpoint {
            Endpoint::ChatCompletions => self.chat(caller, head, body, record).await,
            // It is about everybody.
            Endpoint::Metrics if caller.only.is_some() => Err(NoEndpoint::Path.into()),
            Endpoint::Metrics => {
                record.discard();
                self.known.prune(&self.metrics);
                probes::metrics(&self.metrics, self.ledger.stats())
            }
            Endpoint::Model(model) => Ok(models::one(self.routes.for_caller(&caller, &model)?)),
            Endpoint::PassThrough { plain, written } => {
                let path = (plain.as_str(), written.as_str());
                self.pass_through(path, caller, head, body, record).await
            }
            Endpoint::Health | Endpoint::Models | Endpoint::Ready => {
                Ok(models::all(self.routes.open_to(&caller)))
            }
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
        let route = self.routes.for_caller(&caller, &ask.model()?)?;
        record.on_route(route);
        let asked = Asked {
            caller: &caller,
            query: head.uri.query(),
            headers: &head.headers,
            body: &body,
        };
        let answered = self.ask_in_order(route, ask, &asked, record).await?;
        self.relay_from(answered, &caller.scope, record).await
    }

    /// Asks the route's own target, and in need one fallback after the other. Each has a plan of its own, and is sent what
    /// that makes of the client's bytes.
    async fn ask_in_order<'r>(
        &self,
        route: &'r Route,
        ask: Ask<'_>,
        asked: &Asked<'_>,
        record: &mut Record,
    ) -> Result<Answered<'r>, Cause> {
        let mut target = route.own();
        let mut outcome = self.ask(target, ask, asked, record).await;
        let until = self.errand(&asked.caller.scope, record).until;
        for fallback in route.fallbacks() {
            let answered = outcome.as_ref().map(|answered| answered.reply.status());
            let Some(need) = route.need_after(answered) else {
                break;
            };
            if Instant::now() >= until {
                break;
            }
            let way = (target.origin.as_str(), fallback.origin.as_str());
            self.metrics.care.fell_back(&route.model, way, need);
            info!(
                from = way.0,
                to = way.1,
                need = need.as_str(),
                "falling back"
            );
            record.vacates();
            target = fallback;
            let capture = record.take_capture();
            let later = self
                .ask(target, Ask::parse(asked.body)?, asked, record)
                .await;
            let is_useless = match &later {
                Err(_) => true,
                Ok(later) => care::is_misdirected(later.reply.status()),
            };
            if is_useless && outcome.is_ok() {
                record.recapture(capture);
            } else {
                outcome = prefer(outcome, later);
            }
        }
        outcome
    }

    /// Asks one target.
    async fn ask<'r>(
        &self,
        target: &'r Target,
        ask: Ask<'_>,
        asked: &Asked<'_>,
        record: &mut Record,
    ) -> Result<Answered<'r>, Cause> {
        let Asked { caller, body, .. } = *asked;
        let plan = target.plans.plan_for(caller.agent.as_deref());
        self.begin(caller, target, &plan, body, record);
        let ask = self
            .rewrite(&plan, ask, target, &caller.scope, record)
            .await?;
        let outbound = Outbound::of(body, ask, record);
        let passes = outbound.reply;
        let outgoing = Outgoing {
            method: &Method::POST,
            uri: asked.uri(&target.approach.upstream).ok_or(Cause::Path)?,
            headers: asked.headers,
            body: outbound.body,
            reply: match passes {
                None => care::Reply::Passed,
                Some(_) => care::Reply::Read,
            },
            replay: Replay::Harmless,
        };
        let errand = self.errand(&caller.scope, record);
        let reply = target.approach.send(outgoing, errand, record).await?;
        Ok(Answered {
            target,
            reply,
            passes,
        })
    }

    /// Gives the client a target's reply, through its passes if there are any.
    async fn relay_from(
        &self,
        answered: Answered<'_>,
        scope: &Scope,
        record: &mut Record,
    ) -> Result<Response<Source>, Cause> {
        let Answered {
            target,
            reply,
            passes,
        } = answered;
        let upstream = &target.approach.upstream;
        record.answered(reply.status(), &upstream.name);
        let relay = self.relay(scope.clone(), upstream, record);
        let mut given = match passes {
            None => relay.pass(reply),
            Some(passes) => relay
                .through(reply, passes, record)
                .await
                .inspect_err(|error| record.upstream_failed(error))?,
        };
        target.answers.inc();
        if let Some(name) = &target.stand_in {
            given.headers_mut().insert(ANSWERED_BY, name.clone());
        }
        Ok(given)
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
        let (approach, body) = match passthrough::named_model(&head.headers, &body)? {
            None => (self.routes.default_for(&caller)?, body.into()),
            Some(model) => {
                let route = self.routes.for_caller(&caller, &model)?;
                record.on_route(route);
                let target = route.own();
                let body = passthrough::with_model(body, target.upstream_model.as_deref());
                (&target.approach, body)
            }
        };
        let Approach { upstream, .. } = approach;
        passthrough::check(upstream, &head.method, plain)?;
        let outgoing = Outgoing {
            uri: upstream.below(written).ok_or(Cause::Path)?,
            replay: match head.method.is_safe() {
                true => Replay::Harmless,
                false => Replay::Unknown,
            },
            method: &head.method,
            headers: &head.headers,
            body,
            reply: care::Reply::Passed,
        };
        let errand = self.errand(&caller.scope, record);
        let reply = approach.send(outgoing, errand, record).await?;
        record.answered(reply.status(), &upstream.name);
        Ok(self.relay(caller.scope, upstream, record).pass(reply))
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
        target: &Target,
        plan: &Plan,
        body: &Bytes,
        record: &mut Record,
    ) {
        if let Some(traces) = &self.traces {
            let facts = target.plans.facts(caller.agent.as_deref());
            record.captured(traces.capture(facts, plan, body));
        }
    }

    /// Makes of the client's request what the model must be sent, with what the ledger knows of its history.
    async fn rewrite<'a>(
        &self,
        plan: &Plan,
        ask: Ask<'a>,
        target: &Target,
        scope: &Scope,
        record: &mut Record,
    ) -> Result<Rewritten<'a>, Fault> {
        let recalled = self.recall(scope, plan.lookup(&ask), record).await;
        let with = With {
            upstream_model: target.upstream_model.as_deref().map(str::to_owned),
            seed: self.seeds.next(),
            origin: target.origin.clone(),
        };
        plan.rewrite(ask, recalled, with)
    }

    /// Asks the ledger, if there is anything to ask. One that does not answer in time is one that cannot be asked.
    async fn recall<'a>(
        &self,
        scope: &Scope,
        lookup: Lookup<'a>,
        record: &mut Record,
    ) -> Recalled<'a> {
        let keys: Vec<Key> = lookup.keys().iter().map(|key| Key(key.0)).collect();
        if keys.is_empty() {
            return lookup.answered(&[]);
        }
        let within = self.deadlines.ledger_recall;
        match tokio::time::timeout(within, self.ledger.recall(scope, &keys)).await {
            Ok(Ok(Answer { values, unasked })) => {
                let hits = values.iter().filter(|values| !values.is_empty()).count();
                self.metrics.recalled(Recall::Hit, hits);
                let Some(error) = unasked else {
                    self.metrics.recalled(Recall::Miss, keys.len() - hits);
                    return lookup.answered(&values);
                };
                warn!(?scope, %error, "the ledger cannot be asked, what waits for it can");
                self.metrics
                    .recalled(Recall::Unavailable, keys.len() - hits);
                record.ledger = Some(LedgerState::Degraded);
                return lookup.partly_answered(&values);
            }
            Ok(Err(error)) => warn!(?scope, %error, "the ledger cannot be asked"),
            Err(_) => warn!(?scope, ?within, "the ledger does not answer in time"),
        }
        self.metrics.recalled(Recall::Unavailable, keys.len());
        record.ledger = Some(LedgerState::Unavailable);
        lookup.unanswered()
    }

    fn errand<'a>(&self, scope: &'a Scope, record: &Record) -> Errand<'a> {
        Errand {
            scope,
            until: record.started() + self.deadlines.reply,
        }
    }

    fn relay(&self, scope: Scope, upstream: &Arc<Upstream>, record: &Record) -> Relay {
        Relay {
            memory: Memory {
                ledger: Arc::clone(&self.ledger),
                scope,
                within: self.deadlines.ledger_record,
                metrics: Arc::clone(&self.metrics),
            },
            upstream: Arc::clone(upstream),
            silence: self.deadlines.silence,
            reply: self.deadlines.reply,
            until: record.started() + self.deadlines.reply,
            max_reply_bytes: self.max_reply_bytes,
            writes: self.writes.clone(),
        }
    }
}

// === impl Asked ===

impl Asked<'_> {
    /// Where a provider is asked for it.
    fn uri(&self, upstream: &Upstream) -> Option<Uri> {
        match self.query {
            None => Some(upstream.chat_completions().clone()),
            Some(query) => upstream.below(&format!("/chat/completions?{query}")),
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
                Segment::New(text) => text,
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

/// Answers with what went wrong. What is left of the request is thrown away meanwhile, so that the client can read it.
fn refuse(cause: &Cause, rest: Incoming, record: &mut Record) -> Response<Source> {
    if let Cause::Unexpected { source, .. } = cause {
        error!(%source, "{cause}");
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

/// Says that the ledger could not be asked: the model may have been sent less of its own words than there are.
const LEDGER: HeaderName = HeaderName::from_static("x-farrier-ledger");

/// Says who answered, when it was not the route's own target.
const ANSWERED_BY: HeaderName = HeaderName::from_static("x-farrier-answered-by");
