//! A request towards one model of one provider: let in, sent, and sent again where that is safe.
//!
//! ```text
//! outcome                                            tried again after
//! ─────────────────────────────────────────────────────────────────────────────────────────────
//! no connection                                      a wait of our own
//! kept connection found closed, nothing of a reply   nothing
//! 429, 503, 529 (configurable)                       the wait it asks for, else one of our own
//! anything else                                      never
//! ```
//!
//! "Kept connection found closed" is what a server that closes idle connections does to a request that crosses its close
//! on the way. Whether it read the request nobody knows, so RFC 9110 §9.2.2 leaves a repetition to those who know that it
//! does no harm. Of a chat completion we do: nothing but an answer comes of it. nginx and Go's client do not know this of
//! a `POST` and give up; so do we, for whatever else passes through.

use std::sync::Arc;
use std::time::Duration;

use farrier_ledger::Scope;
use http::{HeaderMap, Method, Response, StatusCode, Uri};
use tokio::time::{Instant, sleep, timeout_at};

use super::backoff::{asked_for, fraction, full_jitter, is_useless};
use super::breaker::{Breaker, Leave};
use super::budget::Budget;
use super::gate::{Gate, Place};
use super::prefer;
use crate::config::{self, Retry};
use crate::metrics::Metrics;
use crate::record::Record;
use crate::rescue::Cause;
use crate::seed::Seeds;
use crate::upstream::{Arriving, Segments, Upstream, UpstreamError, UpstreamFault};

/// The way to one model of a provider.
#[derive(Debug)]
pub(crate) struct Approach {
    pub(crate) upstream: Arc<Upstream>,
    pub(super) breaker: Option<(Arc<Breaker>, config::Breaker)>,
    pub(super) budget: Arc<Budget>,
    pub(super) gate: Option<Entrance>,
    pub(super) retry: Retry,
    /// Even the first attempt may be cut by the deadline of the whole.
    pub(super) is_hasty: bool,
    /// How long the head of a reply may take if nothing else has taken time before.
    pub(super) patience: Duration,
    pub(super) metrics: Arc<Metrics>,
    pub(super) seeds: Arc<Seeds>,
}

/// A gate, and how long to wait before it.
#[derive(Debug)]
pub(super) struct Entrance {
    pub(super) gate: Arc<Gate>,
    pub(super) max_wait: Duration,
}

/// A request as it goes to a provider, as often as need be.
#[derive(Debug)]
pub(crate) struct Outgoing<'a> {
    pub(crate) method: &'a Method,
    pub(crate) uri: Uri,
    /// The caller's.
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: Segments,
    pub(crate) reply: Reply,
    pub(crate) replay: Replay,
}

/// What is done with the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// It is passed on, however it is coded.
    Passed,
    /// It is read, and must come plain.
    Read,
}

/// Whether a request may be sent again that the provider may have acted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replay {
    Harmless,
    Unknown,
}

/// Whose request it is, and until when it is to be answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Errand<'a> {
    pub(crate) scope: &'a Scope,
    pub(crate) until: Instant,
}

/// Why a request is sent again.
#[derive(Clone, Copy, Debug)]
enum Reason {
    Closed,
    Refused,
    Status(StatusCode),
    Unreachable,
}

type Outcome = Result<Response<Arriving>, Cause>;

// === impl Approach ===

impl Approach {
    /// Sends a request, as often as is safe. Gives the last reply there was, else what came of the last attempt.
    ///
    /// Dropping the future cancels the request, wherever it is: in the queue, waiting to be sent again, or sent.
    pub(crate) async fn send(
        &self,
        outgoing: Outgoing<'_>,
        errand: Errand<'_>,
        record: &mut Record,
    ) -> Outcome {
        self.budget.asked(&self.retry);
        let mut earlier: Option<Outcome> = None;
        for attempt in 1..self.retry.attempts.get() {
            let outcome = self.attempt(&outgoing, errand, record).await;
            let Some((reason, wait)) = self.retriable(&outcome, attempt, outgoing.replay) else {
                return best(earlier, outcome);
            };
            let outcome = best(earlier.take(), outcome);
            if !self.may_retry(wait, errand.until) {
                return outcome;
            }
            let reason = reason.to_string();
            self.metrics.care.retried(&self.upstream.name, reason);
            record.vacates();
            sleep(wait).await;
            earlier = Some(outcome);
        }
        best(earlier, self.attempt(&outgoing, errand, record).await)
    }

    /// Sends a request once, when it is its turn.
    async fn attempt(
        &self,
        outgoing: &Outgoing<'_>,
        errand: Errand<'_>,
        record: &mut Record,
    ) -> Outcome {
        let place = self.enter(errand).await?;
        let may_be_late = self.is_hasty || place.is_some() || record.attempts > 0;
        let left = match may_be_late {
            true => self.time_left(errand)?,
            false => self.patience,
        };
        let leave = self.leave()?;
        record.attempted(&self.upstream.name);
        let sent = outgoing.sent_to(&self.upstream);
        let outcome = if may_be_late {
            let late = |_| Err(self.upstream.fault(UpstreamFault::OutOfTime { left }));
            timeout_at(errand.until, sent).await.unwrap_or_else(late)
        } else {
            sent.await
        };
        self.judge(leave, &outcome);
        match outcome {
            Ok(reply) => {
                record.occupies(place);
                Ok(reply)
            }
            Err(error) => {
                record.upstream_failed(&error);
                Err(error.into())
            }
        }
    }

    /// A place at the provider, if these are limited. Nobody queues for a provider that is left alone.
    async fn enter(&self, errand: Errand<'_>) -> Result<Option<Place>, Cause> {
        let Some(Entrance { gate, max_wait }) = &self.gate else {
            return Ok(None);
        };
        let now = Instant::now();
        if let Some((breaker, _)) = &self.breaker
            && !breaker.is_calm()
            && let Some(left) = breaker.closed_for(now)
        {
            return Err(self.open(left));
        }
        let within = errand.until.saturating_duration_since(now).min(*max_wait);
        let entered = gate.enter(errand.scope, within).await;
        entered.map(Some).map_err(|busy| Cause::Busy {
            provider: Arc::clone(&self.upstream.name),
            busy,
        })
    }

    /// What is left of the deadline of the whole. With nothing left nothing is sent.
    fn time_left(&self, errand: Errand<'_>) -> Result<Duration, Cause> {
        let left = errand.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(self
                .upstream
                .fault(UpstreamFault::OutOfTime { left })
                .into());
        }
        Ok(left)
    }

    /// Leave to send, if somebody watches.
    fn leave(&self) -> Result<Option<Leave<'_>>, Cause> {
        let Some((breaker, _)) = &self.breaker else {
            return Ok(None);
        };
        let leave = breaker.ask(Instant::now);
        leave.map(Some).map_err(|left| self.open(left))
    }

    fn open(&self, left: Duration) -> Cause {
        Cause::LeftAlone {
            provider: Arc::clone(&self.upstream.name),
            left,
        }
    }

    /// Tells the breaker. Only what says that the provider is in trouble counts against it: a 500 may be the request's
    /// own doing, and one agent that repeats it must not shut out the others.
    fn judge(&self, leave: Option<Leave<'_>>, outcome: &Result<Response<Arriving>, UpstreamError>) {
        let (Some(leave), Some((_, terms))) = (leave, &self.breaker) else {
            return;
        };
        let failed = match outcome {
            Ok(reply) => IN_TROUBLE.contains(&reply.status().as_u16()),
            Err(error) => match error.fault {
                UpstreamFault::ClosedToo | UpstreamFault::ClosedWhileKept => return drop(leave),
                // Others had the time: it was not heard out.
                UpstreamFault::OutOfTime { left } if left < self.patience / 2 => {
                    return drop(leave);
                }
                _ => true,
            },
        };
        if failed {
            leave.failed(terms, Instant::now(), self.seeds.any());
        } else {
            leave.succeeded();
        }
    }

    /// Why an outcome may be followed by another attempt, and after how long; none if that is not safe or of no use.
    fn retriable(
        &self,
        outcome: &Outcome,
        attempt: u32,
        replay: Replay,
    ) -> Option<(Reason, Duration)> {
        let own = || full_jitter(&self.retry, attempt, self.seeds.any());
        match outcome {
            Ok(reply) => {
                let status = reply.status();
                if !self.retry.statuses.contains(&status.as_u16()) || is_useless(reply.headers()) {
                    return None;
                }
                let wait = match asked_for(reply.headers()) {
                    None => own(),
                    Some(asked) if asked > self.retry.max_wait => return None,
                    // All who were told the same do not come at the same time.
                    Some(asked) => asked + fraction(self.retry.backoff, self.seeds.any()),
                };
                Some((Reason::Status(status), wait))
            }
            Err(Cause::Upstream(error)) => match error.fault {
                UpstreamFault::ClosedWhileKept if replay == Replay::Harmless => {
                    Some((Reason::Closed, Duration::ZERO))
                }
                UpstreamFault::Refused => Some((Reason::Refused, own())),
                UpstreamFault::ConnectTimedOut { .. } | UpstreamFault::Unreachable { .. } => {
                    Some((Reason::Unreachable, own()))
                }
                _ => None,
            },
            Err(_) => None,
        }
    }

    /// Whether there is time for another attempt, and another is allowed.
    fn may_retry(&self, wait: Duration, until: Instant) -> bool {
        let now = Instant::now();
        if now + wait >= until {
            return false;
        }
        let allowed = self.budget.take(&self.retry, now);
        if !allowed {
            self.metrics.care.retry_withheld(&self.upstream.name);
        }
        allowed
    }
}

/// What stands after another attempt.
fn best(earlier: Option<Outcome>, later: Outcome) -> Outcome {
    match earlier {
        None => later,
        Some(earlier) => prefer(earlier, later),
    }
}

// === impl Outgoing ===

impl Outgoing<'_> {
    /// One attempt: the body is shared, not copied.
    fn sent_to<'u>(
        &self,
        upstream: &'u Upstream,
    ) -> impl Future<Output = Result<Response<Arriving>, UpstreamError>> + use<'u> {
        let mut fields = upstream.fields(self.headers);
        if self.reply == Reply::Read {
            fields.plain_please();
        }
        let (method, uri) = (self.method.clone(), self.uri.clone());
        upstream.send(method, uri, fields, self.body.clone())
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Closed => f.write_str("closed"),
            Self::Refused => f.write_str("refused"),
            Self::Status(status) => f.write_str(status.as_str()),
            Self::Unreachable => f.write_str("unreachable"),
        }
    }
}

/// A gateway that has no server, a server that has no room, a gateway that waits in vain, and Anthropic's word for the
/// second.
const IN_TROUBLE: [u16; 4] = [502, 503, 504, 529];
