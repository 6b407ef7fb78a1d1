//! Replies over HTTP/2 that nobody takes.
//!
//! ```text
//! task of a stream:   body ── a frame ──▶ hyper, which waits for window ──▶ socket
//!                       └── asked for the next frame: the last one was taken
//! ```
//!
//! A peer may grant a stream no window and yet answer every ping. The socket is then writable, so [`Stalling`] sees
//! nothing, and hyper does not poll the body again before its last frame is taken: whatever watches time in the body
//! would never run. So the time is watched beside it, in the task that hyper spawns for the stream, which can be dropped
//! with everything it holds. The peer is told by a reset.
//!
//! [`Stalling`]: crate::Stalling

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use tracing::debug;

use crate::Tracker;
use crate::streams::Open;

tokio::task_local! {
    /// When this stream's body gave the frame that it was not asked beyond yet.
    static GIVEN: Cell<Option<Instant>>;
}

/// Spawns the streams of HTTP/2 connections, and drops each whose peer takes nothing for too long.
#[derive(Clone, Debug)]
pub(crate) struct Watching {
    tasks: Tracker,
    stall: Duration,
}

/// A reply body that notes when a frame was given and when the next is asked for.
#[derive(Debug)]
pub(crate) struct Noted<B> {
    body: B,
    /// Of a frame too large to be given at once.
    rest: Bytes,
    /// Its stream, if it is one of several on its connection.
    open: Option<Open>,
}

// === impl Watching ===

impl Watching {
    pub(crate) fn new(tasks: Tracker, stall: Duration) -> Self {
        Self { tasks, stall }
    }
}

impl<F> hyper::rt::Executor<F> for Watching
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, stream: F) {
        let watched = unless_untaken(Box::pin(stream), self.stall);
        drop(self.tasks.spawn(GIVEN.scope(Cell::new(None), watched)));
    }
}

/// Runs a stream until it ends, or what it gave was not taken within `stall`.
async fn unless_untaken<F: Future>(mut stream: Pin<Box<F>>, stall: Duration) {
    // Not moved with each frame, only looked at when it fires: frames come far more often.
    let mut timer: Option<Pin<Box<Sleep>>> = None;
    poll_fn(|cx| {
        if stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let Some(given) = GIVEN.with(Cell::get) else {
            return Poll::Pending;
        };
        let deadline = given + stall;
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        loop {
            ready!(timer.as_mut().poll(cx));
            if deadline <= timer.deadline() {
                debug!(?stall, "stream dropped, its peer takes nothing");
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline); // it was set for an earlier frame
        }
    })
    .await;
}

// === impl Noted ===

impl<B> Noted<B> {
    pub(crate) fn new(body: B, open: Option<Open>) -> Self {
        Self {
            body,
            rest: Bytes::new(),
            open,
        }
    }

    /// What of a frame is given now. hyper buffers a whole frame as soon as one byte of it may be sent, and is done with
    /// the stream's task when that was the last: a small piece keeps the task here until nearly all is taken.
    fn piece(&mut self, mut data: Bytes) -> Bytes {
        if self.open.is_some() && data.len() > MAX_PIECE_BYTES {
            self.rest = data.split_off(MAX_PIECE_BYTES);
        }
        data
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Noted<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let polled = if self.rest.is_empty() {
            Pin::new(&mut self.body).poll_frame(cx)
        } else {
            let rest = std::mem::take(&mut self.rest);
            Poll::Ready(Some(Ok(Frame::data(rest))))
        };
        if self.open.is_none() {
            return polled;
        }
        let given = matches!(polled, Poll::Ready(Some(Ok(_)))).then(Instant::now);
        // Nobody watches in a task that was not spawned for it.
        GIVEN.try_with(|last| last.set(given)).ok();
        polled.map_ok(|frame| match frame.into_data() {
            Ok(data) => Frame::data(self.piece(data)),
            Err(other) => other,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let ahead = self.body.size_hint();
        let rest = self.rest.len() as u64;
        let mut hint = SizeHint::new();
        hint.set_lower(ahead.lower() + rest);
        if let Some(upper) = ahead.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

/// What a peer has to take within the deadline, at most; and what it may leave to the connection's own deadline.
const MAX_PIECE_BYTES: usize = 64 * 1024;
