//! A response body that plays the steps of a [`Spoken`] answer.
//!
//! Between two writes it yields once, so that hyper sends what it has: each write is a chunk of its own, and most often a
//! segment of its own. It tells its page in the log how it ended; dropped before the end, the page says cancelled.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::watch;
use tokio::time::sleep;

use super::{Gate, Opened, at_gate};
use crate::log::Page;
use crate::speak::{Spoken, Step};

/// The body of every response.
pub(super) struct Speech {
    spoken: Spoken,
    page: Option<Page>,
    gate: watch::Receiver<Gate>,
    patience: Duration,
    /// A pause or a stall in progress.
    waiting: Option<Pin<Box<dyn Future<Output = Opened> + Send>>>,
    /// Whether to yield before the next step, so that what was written leaves.
    unflushed: bool,
}

/// The persona broke the answer off.
#[derive(Debug)]
pub(super) struct BrokenOff;

impl Speech {
    pub(super) fn new(
        spoken: Spoken,
        page: Option<Page>,
        gate: watch::Receiver<Gate>,
        patience: Duration,
    ) -> Self {
        // A long body yields before its first step too: the head leaves even if that step is to break off.
        let unflushed = spoken.exact_length().is_none();
        Self {
            spoken,
            page,
            gate,
            patience,
            waiting: None,
            unflushed,
        }
    }

    fn done(&mut self) {
        if let Some(page) = &mut self.page {
            page.done();
        }
    }

    fn break_off(&mut self) -> BrokenOff {
        if let Some(page) = &mut self.page {
            page.aborted();
        }
        BrokenOff
    }
}

impl Body for Speech {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        loop {
            if std::mem::take(&mut self.unflushed) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if let Some(waiting) = &mut self.waiting {
                let opened = ready!(waiting.as_mut().poll(cx));
                self.waiting = None;
                if opened != Opened::Released {
                    return Poll::Ready(Some(Err(self.break_off())));
                }
            }
            match self.spoken.next_step() {
                Some(Step::Write(bytes)) => {
                    self.unflushed = true;
                    if self.spoken.is_over() {
                        self.done();
                    }
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                Some(Step::Pause(pause)) => {
                    self.waiting = Some(Box::pin(async move {
                        sleep(pause).await;
                        Opened::Released
                    }));
                }
                Some(Step::Stall) => {
                    let stall = at_gate(self.gate.clone(), self.patience);
                    self.waiting = Some(Box::pin(stall));
                }
                Some(Step::Abort) => return Poll::Ready(Some(Err(self.break_off()))),
                None => {
                    self.done();
                    return Poll::Ready(None);
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.spoken.is_over() && self.waiting.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match self.spoken.exact_length() {
            Some(bytes) => SizeHint::with_exact(bytes),
            None => SizeHint::default(),
        }
    }
}

impl fmt::Display for BrokenOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the persona broke the answer off")
    }
}

impl std::error::Error for BrokenOff {}
