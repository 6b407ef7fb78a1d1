//! A reply as it comes: frame by frame, trailers included.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::Aborted;
use super::silence::Silence;
use crate::record::{Ending, Record};
use crate::upstream::{Arriving, Upstream, UpstreamFault, for_client};

/// Forwards a body. One that breaks off is broken off towards the client too: nothing of ours is put into it.
#[derive(Debug)]
pub(crate) struct Passing {
    body: Arriving,
    silence: Silence,
    upstream: Arc<Upstream>,
    ending: Ending,
}

impl Passing {
    pub(super) fn new(body: Arriving, silence: Silence, upstream: Arc<Upstream>) -> Self {
        Self {
            body,
            silence,
            upstream,
            ending: Ending::Complete,
        }
    }

    pub(super) fn poll_next(
        &mut self,
        record: &mut Record,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        let fault = match ready!(self.silence.poll_frame(&mut self.body, cx)) {
            Ok(None) => return Poll::Ready(None),
            Ok(Some(Ok(mut frame))) => {
                if let Some(data) = frame.data_ref() {
                    record.upstream_sent(data);
                }
                if let Some(trailers) = frame.trailers_mut() {
                    for_client(trailers);
                }
                return Poll::Ready(Some(Ok(frame)));
            }
            Ok(Some(Err(_))) => UpstreamFault::BodyBroken {
                received: record.bytes_out,
            },
            Err(fault) => fault,
        };
        self.ending = Ending::Truncated;
        record.upstream_failed(&self.upstream.fault(fault));
        Poll::Ready(Some(Err(Aborted)))
    }

    pub(super) fn is_over(&self) -> bool {
        self.body.is_end_stream()
    }

    pub(super) fn ending(&self) -> Ending {
        self.ending
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
