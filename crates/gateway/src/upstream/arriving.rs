//! A provider's reply body on its way to us.
//!
//! A model's server writes each event by itself, and a burst of them is often there at once. Each frame passed on costs a
//! chunk, and often a system call, so what is there together is passed on together, as one frame. Only what is there:
//! nothing is ever waited for that a frame could be joined with.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::link::Link;
use super::pool::Pool;
use super::trunk::Berth;
use super::wire::Chunked;

/// A reply body. Dropped before its end, it cancels the request.
#[derive(Debug)]
pub(crate) struct Arriving {
    incoming: Incoming,
    way: Way,
    /// What came after what was passed on last.
    held: Option<Next>,
}

/// What a body arrives over, as long as it does.
#[derive(Debug)]
enum Way {
    /// Nothing any more.
    Over,
    /// Drives the body, and is idle after it.
    Own(Box<Link>, Arc<Pool>),
    /// Driven by a task of its own; only the place is held.
    Shared(#[expect(dead_code, reason = "held, not read")] Berth),
}

/// What a body says when it is polled.
pub(crate) type Next = Option<Result<Frame<Bytes>, Broken>>;

/// The provider did not send its reply to the end.
#[derive(Debug, thiserror::Error)]
#[error("the reply broke off")]
pub(crate) struct Broken;

// === impl Arriving ===

impl Arriving {
    /// A body that arrives over a connection of its own.
    pub(super) fn over(link: Box<Link>, pool: &Arc<Pool>, incoming: Incoming) -> Self {
        let mut body = Self {
            incoming,
            way: Way::Own(link, Arc::clone(pool)),
            held: None,
        };
        body.leave_at_end();
        body
    }

    /// A body that arrives as one stream of a shared connection.
    pub(super) fn shared(berth: Berth, incoming: Incoming) -> Self {
        let mut body = Self {
            incoming,
            way: Way::Shared(berth),
            held: None,
        };
        body.leave_at_end();
        body
    }

    /// The next frame as it came.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        let Self { incoming, way, .. } = self;
        let mut incoming = Pin::new(incoming);
        let next = ready!(match way {
            Way::Over | Way::Shared(_) => incoming.poll_frame(cx),
            Way::Own(link, _) => {
                match ready!(link.poll_chunks(cx)) {
                    Chunked::Broken => return Poll::Ready(Some(Err(Broken))),
                    Chunked::Data(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                    Chunked::Passing => {}
                }
                link.drive(cx, |cx| incoming.as_mut().poll_frame(cx))
            }
        });
        match &next {
            Some(Ok(frame)) if frame.is_data() => self.leave_at_end(),
            _ => self.let_go(), // an end, an error, or trailers, which nothing follows
        }
        Poll::Ready(next.map(|frame| frame.map_err(|_| Broken)))
    }

    /// A body of known length says nothing after its last byte, and is often not polled again.
    fn leave_at_end(&mut self) {
        if self.incoming.is_end_stream() {
            self.let_go();
        }
    }

    fn let_go(&mut self) {
        if let Way::Own(link, pool) = std::mem::replace(&mut self.way, Way::Over) {
            pool.put(link);
        }
    }
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Next> {
        let mut gathered = Gathered::default();
        while self.held.is_none() {
            match self.poll_next(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) if gathered.has_room_for(&data) => gathered.push(data),
                    Ok(data) => self.held = Some(Some(Ok(Frame::data(data)))),
                    Err(trailers) => self.held = Some(Some(Ok(trailers))),
                },
                Poll::Ready(last) => self.held = Some(last),
                Poll::Pending if gathered.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        if gathered.is_empty() {
            let next = self.held.take().flatten();
            if next.is_none() {
                self.held = Some(None); // the end stays the end
            }
            return Poll::Ready(next);
        }
        Poll::Ready(Some(Ok(Frame::data(gathered.into_bytes()))))
    }

    fn is_end_stream(&self) -> bool {
        match &self.held {
            None => self.incoming.is_end_stream(),
            Some(next) => next.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let held = match &self.held {
            Some(Some(Ok(frame))) => frame.data_ref().map_or(0, |data| data.len() as u64),
            _ => 0,
        };
        let ahead = self.incoming.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(ahead.lower() + held);
        if let Some(upper) = ahead.upper() {
            hint.set_upper(upper + held);
        }
        hint
    }
}

// === impl Gathered ===

/// Pieces that were there together.
#[derive(Debug, Default)]
struct Gathered {
    first: Bytes,
    more: Vec<Bytes>,
    bytes: usize,
}

impl Gathered {
    fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    fn has_room_for(&self, piece: &Bytes) -> bool {
        self.is_empty()
            || self.bytes + piece.len() <= MAX_GATHERED_BYTES && self.more.len() < MAX_GATHERED
    }

    fn push(&mut self, piece: Bytes) {
        self.bytes += piece.len();
        if self.first.is_empty() {
            self.first = piece;
        } else {
            self.more.push(piece);
        }
    }

    /// One piece as it is, several joined.
    fn into_bytes(self) -> Bytes {
        if self.more.is_empty() {
            return self.first;
        }
        let mut joined = BytesMut::with_capacity(self.bytes);
        joined.extend_from_slice(&self.first);
        for piece in &self.more {
            joined.extend_from_slice(piece);
        }
        joined.freeze()
    }
}

/// What is joined; a larger piece travels well enough alone.
const MAX_GATHERED_BYTES: usize = 32 * 1024;

/// Pieces that are joined, so that a provider of single bytes does not keep others waiting.
const MAX_GATHERED: usize = 256;
