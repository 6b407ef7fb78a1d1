//! An answer that is given before the request was read to its end.
//!
//! A server that answers and closes while the client still writes resets the connection, and many clients then report
//! a broken pipe and never see the answer. So the answer is sent, and what still arrives is read and thrown away for a
//! bounded time: what RFC 9112 §9.6 calls a lingering close.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use hyper::body::Incoming;
use tokio::time::Sleep;

/// A reply body that says its piece, then discards the rest of the request until that ends or the time is up.
#[derive(Debug)]
pub struct Lingering {
    answer: Option<Bytes>,
    rest: Incoming,
    until: Pin<Box<Sleep>>,
}

impl Lingering {
    /// Answers with `answer` while discarding `rest` for at most `within`. Keeps nothing of what it discards.
    #[must_use]
    pub fn new(answer: Bytes, rest: Incoming, within: Duration) -> Self {
        Self {
            answer: Some(answer),
            rest,
            until: Box::pin(tokio::time::sleep(within)),
        }
    }
}

impl Body for Lingering {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(answer) = self.answer.take() {
            return Poll::Ready(Some(Ok(Frame::data(answer))));
        }
        loop {
            if self.until.as_mut().poll(cx).is_ready() {
                return Poll::Ready(None);
            }
            match ready!(Pin::new(&mut self.rest).poll_frame(cx)) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(None),
            }
        }
    }
}
