//! A provider's reply in, what the client is given out.
//!
//! ```text
//! any status but 200, or a plan that reads no reply    passed on, unchanged
//! 200 text/event-stream                                streamed through the plan
//! 200 application/json                                 read whole, then through the plan
//! 200 anything else                                    passed on, unchanged
//! ```
//!
//! A reply body is polled by the client's connection: when the client does not read, nothing is read from the provider;
//! when it leaves, the body is dropped, and the provider's connection with it. There is no task and no queue in between.

mod passing;
mod silence;
mod streaming;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use farrier_compat::plan::Reply;
use farrier_compat::run::{Finished, TurnRecord};
use farrier_ledger::{Entry, Key, Ledger, Scope, Stored};
use farrier_serve::{Lingering, Tracker};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use crate::metrics::Metrics;
use crate::record::{Ending, Record};
use crate::upstream::{Arriving, Coding, Upstream, UpstreamError, UpstreamFault, for_client};
use passing::Passing;
use silence::Silence;
use streaming::Streaming;

/// The body of every answer: where it comes from, and the record that is finished with it.
#[derive(Debug)]
pub(crate) struct ReplyBody {
    source: Source,
    record: Record,
}

/// Where a reply body comes from.
#[derive(Debug)]
pub(crate) enum Source {
    /// Ours, while what is left of the request is thrown away.
    Lingering(Lingering),
    /// A provider's, as it comes.
    Passing(Passing),
    /// A provider's, through a plan.
    Streaming(Box<Streaming>),
    /// Held whole.
    Whole(Bytes),
}

/// Why a reply body ends without its end. The connection is then closed, which is how the client notices.
#[derive(Debug, thiserror::Error)]
#[error("the reply could not be given to its end")]
pub(crate) struct Aborted;

/// What relaying needs besides the reply itself.
#[derive(Clone, Debug)]
pub(crate) struct Relay {
    pub(crate) memory: Memory,
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) silence: Duration,
    /// The deadline of the reply's head, and when that is: what is read whole is read before.
    pub(crate) reply: Duration,
    pub(crate) until: Instant,
    pub(crate) max_reply_bytes: usize,
    /// Writes what has to be remembered of a reply whose client left.
    pub(crate) writes: Tracker,
}

/// Where turns are remembered, for whom, and how long that may take.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) scope: Scope,
    pub(crate) within: Duration,
    pub(crate) metrics: Arc<Metrics>,
}

/// What a reply holds, as far as that decides its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    EventStream,
    Json,
    Other,
}

// === impl Relay ===

impl Relay {
    /// Passes a reply on as it is.
    pub(crate) fn pass(&self, reply: Response<Arriving>) -> Response<Source> {
        let (head, body) = reply.into_parts();
        let body = Passing::new(body, Silence::new(self.silence), Arc::clone(&self.upstream));
        respond(head.status, head.headers, Source::Passing(body))
    }

    /// Gives the client what a plan makes of a reply.
    ///
    /// # Errors
    ///
    /// What was wrong with a reply that has to be read whole, while another answer can still be given.
    pub(crate) async fn through(
        self,
        reply: Response<Arriving>,
        plan: Reply,
        record: &mut Record,
    ) -> Result<Response<Source>, UpstreamError> {
        let kind = Kind::of(&reply);
        if kind == Kind::Other {
            return Ok(self.pass(reply));
        }
        let (mut head, body) = reply.into_parts();
        let coding = Coding::of(&head.headers).map_err(|fault| self.upstream.fault(fault))?;
        head.headers.remove(CONTENT_ENCODING);
        head.headers.remove(CONTENT_LENGTH);
        let source = if kind == Kind::EventStream {
            Source::Streaming(Box::new(Streaming::new(
                body,
                coding.decoder(),
                plan.into_stream(),
                self,
            )))
        } else {
            let within = self.reply;
            let late = Err(UpstreamFault::ReplyTimedOut { within });
            let whole = timeout_at(self.until, self.read(body, coding, record))
                .await
                .unwrap_or(late)
                .map_err(|fault| self.upstream.fault(fault))?;
            Source::Whole(self.rewritten(whole, plan, record).await)
        };
        Ok(respond(head.status, head.headers, source))
    }

    async fn rewritten(&self, whole: Bytes, plan: Reply, record: &mut Record) -> Bytes {
        let Finished {
            commit,
            body,
            notes,
        } = plan.into_json().finish(whole);
        record.noted(notes);
        for turn in commit {
            self.memory.clone().remember(turn).await;
        }
        body
    }

    /// Reads a reply body whole and decoded.
    async fn read(
        &self,
        mut body: Arriving,
        coding: Coding,
        record: &mut Record,
    ) -> Result<Bytes, UpstreamFault> {
        let mut decoder = coding.decoder();
        let mut silence = Silence::new(self.silence);
        let mut first = Bytes::new();
        let mut joined = BytesMut::new();
        loop {
            let received = first.len() + joined.len();
            let data = match std::future::poll_fn(|cx| silence.poll_frame(&mut body, cx)).await? {
                None => break,
                Some(Err(_)) => return Err(UpstreamFault::BodyBroken { received }),
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            };
            let data = decoder.push(data)?;
            record.upstream_sent(&data);
            if received + data.len() > self.max_reply_bytes {
                return Err(UpstreamFault::BodyTooLarge {
                    max_bytes: self.max_reply_bytes,
                });
            }
            if received == 0 {
                first = data;
            } else {
                joined.extend_from_slice(&std::mem::take(&mut first));
                joined.extend_from_slice(&data);
            }
        }
        decoder.end()?;
        Ok(if joined.is_empty() {
            first
        } else {
            joined.freeze()
        })
    }
}

fn respond(status: StatusCode, mut headers: HeaderMap, source: Source) -> Response<Source> {
    for_client(&mut headers);
    let mut response = Response::new(source);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

// === impl Memory ===

impl Memory {
    /// Writes a turn into the ledger, so that it is there before the client has its end. A ledger that is slow or gone
    /// does not hold the client up for long; the loss is counted, and met by the miss policy when the turn comes back.
    async fn remember(self, turn: TurnRecord) {
        let keys = turn.keys.into_iter().map(|key| Key(key.0)).collect();
        let recorded = self.ledger.record(
            &self.scope,
            Entry {
                keys,
                value: turn.value,
            },
        );
        let kind = match tokio::time::timeout(self.within, recorded).await {
            Ok(Ok(Stored::Durable)) => return,
            Ok(Ok(Stored::Queued)) => {
                warn!(scope = ?self.scope, "turn queued until the ledger's store takes it");
                "queued"
            }
            Ok(Err(error)) => {
                warn!(scope = ?self.scope, %error, "turn not remembered");
                "error"
            }
            Err(_) => {
                warn!(scope = ?self.scope, within = ?self.within, "turn not remembered in time");
                "timeout"
            }
        };
        self.metrics.commit_failed(kind);
    }
}

// === impl Kind ===

impl Kind {
    fn of(reply: &Response<Arriving>) -> Self {
        if reply.status() != StatusCode::OK {
            return Self::Other;
        }
        let content_type = reply
            .headers()
            .get(CONTENT_TYPE)
            .map_or(&b""[..], |value| value.as_bytes());
        let essence = content_type
            .split(|&byte| byte == b';')
            .next()
            .unwrap_or_default()
            .trim_ascii();
        if essence.eq_ignore_ascii_case(b"text/event-stream") {
            Self::EventStream
        } else if essence.eq_ignore_ascii_case(b"application/json") {
            Self::Json
        } else {
            Self::Other
        }
    }
}

// === impl Source ===

impl Source {
    /// Nothing will come any more; asked so that a body without a last, empty frame has its end too.
    fn is_over(&self) -> bool {
        match self {
            Self::Lingering(body) => body.is_end_stream(),
            Self::Passing(body) => body.is_over(),
            Self::Streaming(body) => body.is_over(),
            Self::Whole(bytes) => bytes.is_empty(),
        }
    }

    fn ending(&self) -> Ending {
        match self {
            Self::Lingering(_) | Self::Whole(_) => Ending::Complete,
            Self::Passing(body) => body.ending(),
            Self::Streaming(body) => body.ending(),
        }
    }
}

// === impl ReplyBody ===

impl ReplyBody {
    /// A body whose end, whatever it is, finishes `record`.
    pub(crate) fn new(source: Source, mut record: Record) -> Self {
        if source.is_over() {
            record.finish(source.ending());
        }
        Self { source, record }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        let Self { source, record } = &mut *self;
        let polled = ready!(match source {
            Source::Lingering(body) => Pin::new(body)
                .poll_frame(cx)
                .map_err(|never| match never {}),
            Source::Passing(body) => body.poll_next(record, cx),
            Source::Streaming(body) => body.poll_next(record, cx),
            Source::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Source::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
        });
        if let Some(Ok(frame)) = &polled
            && let Some(data) = frame.data_ref()
        {
            record.client_given(data);
        }
        if source.is_over() || !matches!(polled, Some(Ok(_))) {
            record.finish(source.ending());
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.source.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Lingering(_) | Source::Streaming(_) => SizeHint::default(),
            Source::Passing(body) => body.size_hint(),
            Source::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
        }
    }
}
