//! A deadline between two pieces of a reply.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::Body;
use tokio::time::{Instant, Sleep};

use crate::upstream::{Arriving, Next, UpstreamFault};

/// Watches that a body does not fall silent. No timer exists until a piece has to be waited for.
#[derive(Debug)]
pub(super) struct Silence {
    within: Duration,
    /// Set while waiting. Not moved with each piece, only looked at when it fires: pieces come far more often.
    timer: Option<Pin<Box<Sleep>>>,
    waiting_since: Option<Instant>,
}

impl Silence {
    pub(super) fn new(within: Duration) -> Self {
        Self {
            within,
            timer: None,
            waiting_since: None,
        }
    }

    /// The next frame, or [`UpstreamFault::Silent`] once it was waited for too long. Time in which nobody polls, since
    /// the client does not read, is not the provider's silence.
    pub(super) fn poll_frame(
        &mut self,
        body: &mut Arriving,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Next, UpstreamFault>> {
        if let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) {
            self.waiting_since = None;
            return Poll::Ready(Ok(frame));
        }
        let deadline = *self.waiting_since.get_or_insert_with(Instant::now) + self.within;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        while timer.as_mut().poll(cx).is_ready() {
            if deadline <= timer.deadline() {
                return Poll::Ready(Err(UpstreamFault::Silent {
                    within: self.within,
                }));
            }
            timer.as_mut().reset(deadline); // it was set for an earlier piece
        }
        Poll::Pending
    }
}
