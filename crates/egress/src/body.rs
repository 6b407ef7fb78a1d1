//! Bodies on their way: a request's, which is counted, and a reply's, which is looked after until its end.
//!
//! A reply goes on as long as the policy lets it, something comes, and somebody wants it; keys that it says back are
//! masked. What it needs meanwhile, it holds.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use farrier_serve::BoxError;
use http::Response;
use http::header::CONTENT_LENGTH;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;

use crate::ask::Ask;
use crate::mask::{Masking, Masks};
use crate::record::Record;
use crate::sandbox::{Sandbox, Standing};
use crate::tunnel::Moved;
use crate::upstream::Berth;

/// What a reply needs to its end.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) masks: Arc<Masks>,
    /// Where its connection is one of several.
    pub(crate) _berth: Option<Berth>,
}

/// A request's body, counted as it goes.
pub(crate) struct Counted {
    pub(crate) body: Incoming,
    pub(crate) moved: Arc<Moved>,
}

impl Body for Counted {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            self.moved
                .up
                .fetch_add(data.len() as u64, Ordering::Relaxed);
        }
        polled.map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A reply's body.
#[derive(Debug)]
pub(crate) enum ReplyBody {
    /// Of ours.
    Own(Full<Bytes>),
    Relayed(Box<Relayed>),
}

/// A reply that comes from a destination, as long as the policy lets it.
pub(crate) struct Relayed {
    body: Incoming,
    /// What keys that it says back are replaced by.
    masking: Option<Masking>,
    /// What follows the last of what is held.
    trailers: Option<Frame<Bytes>>,
    lapse: Pin<Box<dyn Future<Output = ()> + Send>>,
    silence: Pin<Box<tokio::time::Sleep>>,
    idle: std::time::Duration,
    record: Record,
    ended: bool,
    kept: Kept,
}

/// Why a reply ends before its end.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("expected the rest of the reply, got none for too long")]
    Idle,
    #[error("expected the policy to go on allowing the request, got one that does not")]
    Lapsed,
}

impl Sandbox {
    /// What is left to relay.
    pub(crate) fn relayed(
        self: &Arc<Self>,
        reply: Response<Incoming>,
        (ask, kept): (Ask, Kept),
        record: Record,
    ) -> Response<ReplyBody> {
        let standing = Standing::of_request(self, ask);
        let idle = self.limits.idle;
        let (mut head, body) = reply.into_parts();
        let masking = (!body.is_end_stream())
            .then(|| kept.masks.of_body(&head.headers))
            .flatten();
        if masking.is_some() {
            head.headers.remove(CONTENT_LENGTH); // a placeholder has another
        }
        let relayed = Relayed {
            body,
            masking,
            trailers: None,
            lapse: Box::pin(standing.lapsed()),
            silence: Box::pin(tokio::time::sleep(idle)),
            idle,
            record,
            ended: false,
            kept,
        };
        Response::from_parts(head, ReplyBody::Relayed(Box::new(relayed)))
    }
}

impl Relayed {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.lapse.as_mut().poll(cx).is_ready() {
            return self.end(Some(("policy_changed", Broken::Lapsed.into())));
        }
        if let Some(trailers) = self.trailers.take() {
            self.ended = true;
            return Poll::Ready(Some(Ok(trailers)));
        }
        loop {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let until = tokio::time::Instant::now() + self.idle;
                    self.silence.as_mut().reset(until);
                    if let Some(said) = self.said(frame) {
                        self.ended = !self.holds() && self.body.is_end_stream();
                        return Poll::Ready(Some(Ok(said)));
                    }
                }
                Poll::Ready(None) => match self.masking.as_mut().filter(|held| held.holds()) {
                    Some(held) => return Poll::Ready(Some(Ok(Frame::data(held.end())))),
                    None => return self.end(None),
                },
                Poll::Ready(Some(Err(error))) => {
                    return self.end(Some(("upstream_closed", error.into())));
                }
                Poll::Pending if self.silence.as_mut().poll(cx).is_ready() => {
                    return self.end(Some(("upstream_silent", Broken::Idle.into())));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// What is said on of a frame; none if it has to wait for the next.
    fn said(&mut self, frame: Frame<Bytes>) -> Option<Frame<Bytes>> {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(mut frame) => {
                if let Some(trailers) = frame.trailers_mut() {
                    self.kept.masks.headers(trailers);
                }
                let held = self.masking.as_mut().filter(|held| held.holds());
                let Some(held) = held.map(Masking::end) else {
                    return Some(frame);
                };
                self.trailers = Some(frame);
                return Some(Frame::data(held));
            }
        };
        let down = &self.record.moved.down;
        down.fetch_add(data.len() as u64, Ordering::Relaxed);
        let Some(masking) = &mut self.masking else {
            return Some(Frame::data(data));
        };
        let said = masking.push(data);
        (!said.is_empty()).then(|| Frame::data(said))
    }

    /// Whether there is something to be said after the destination's last word.
    fn holds(&self) -> bool {
        self.trailers.is_some() || self.masking.as_ref().is_some_and(Masking::holds)
    }

    fn end(
        &mut self,
        broken: Option<(&str, BoxError)>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.ended = true;
        let Some((code, error)) = broken else {
            return Poll::Ready(None);
        };
        self.record.broke(code);
        Poll::Ready(Some(Err(error)))
    }
}

impl Drop for Relayed {
    fn drop(&mut self) {
        if !self.ended && (self.holds() || !self.body.is_end_stream()) {
            self.record.broke("client_gone");
        }
    }
}

impl std::fmt::Debug for Relayed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relayed")
            .field("record", &self.record)
            .finish_non_exhaustive()
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut *self {
            Self::Own(body) => Pin::new(body)
                .poll_frame(cx)
                .map_err(|never| match never {}),
            Self::Relayed(relayed) => relayed.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(body) => body.is_end_stream(),
            Self::Relayed(relayed) => {
                relayed.ended || (!relayed.holds() && relayed.body.is_end_stream())
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(body) => body.size_hint(),
            Self::Relayed(relayed) if relayed.masking.is_some() => SizeHint::default(),
            Self::Relayed(relayed) => relayed.body.size_hint(),
        }
    }
}
