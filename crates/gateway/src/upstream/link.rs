//! One HTTP/1.1 connection, driven by whoever waits for its reply.
//!
//! ```text
//! task of the client's connection
//!   └─ reply body ── drive ──▶ Link ─┬─ connection: reads, writes, parses
//!                      ▲             └─ taker: the head, then the frames of the body
//!                      └── again, until neither gets further without the provider
//! ```
//!
//! hyper means its connection to run in a task of its own and to hand each frame over with a wake-up. Here both ends are
//! polled by the same task, so that all that one read of the socket brought is there at once. What the two ends then wake
//! is only themselves; [`Nudge`] keeps that from the task, and passes on what the socket has to say.
//!
//! Nothing is read while nobody polls. Dropping a link closes its connection, which is how a request is cancelled.

use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};

use atomic_waker::AtomicWaker;
use http::header::TRANSFER_ENCODING;
use http::{HeaderValue, Request, Response, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};

use super::Segments;
use super::connect::Stream;
use super::wire::{self, Chunked, Tap, Wire};

/// A connection that carries one request at a time.
pub(super) struct Link {
    sender: SendRequest<Segments>,
    /// Gone once it has ended, and with it whatever it still owed: that becomes an error at the taker's end.
    connection: Option<Connection<Tap<Stream>, Segments>>,
    wire: Arc<Mutex<Wire<Stream>>>,
    nudge: Arc<Nudge>,
    waker: Waker,
}

/// Wakes the task that waits for a link, but not while that task drives it.
#[derive(Debug)]
struct Nudge {
    state: AtomicU8,
    waiting: AtomicWaker,
}

/// Somebody waits for the link, and there was no wake-up since: one goes to the task.
const WAITED_FOR: u8 = 0;
/// It is driven, or nobody waits: a wake-up is only remembered.
const DRIVEN: u8 = 1;
/// There was a wake-up since.
const WOKEN: u8 = 2;

// === impl Link ===

impl Link {
    /// Takes a fresh connection into use. Nothing is sent yet.
    pub(super) async fn over(stream: Stream) -> hyper::Result<Box<Self>> {
        let mut http = Builder::new();
        http.max_buf_size(MAX_READ_BYTES);
        let (wire, tap) = Wire::over(stream);
        let (sender, connection) = http.handshake(tap).await?;
        let nudge = Arc::new(Nudge {
            state: AtomicU8::new(DRIVEN),
            waiting: AtomicWaker::new(),
        });
        Ok(Box::new(Self {
            sender,
            connection: Some(connection),
            wire,
            waker: Waker::from(Arc::clone(&nudge)),
            nudge,
        }))
    }

    /// Sends a request and waits for the head of its reply. An error holds the request if none of it was sent.
    pub(super) async fn ask(
        &mut self,
        request: Request<Segments>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Segments>>> {
        self.wire().expect_head();
        let mut reply = pin!(self.sender.try_send_request(request));
        let reply = poll_fn(|cx| {
            loop {
                let asked = self.drive(cx, |cx| reply.as_mut().poll(cx));
                if asked.is_ready() || !self.wire().release() {
                    return asked;
                }
                self.nudge.state.store(WOKEN, Ordering::Release);
            }
        });
        let reply = reply.await?;
        self.wire().expect_body(is_chunked(&reply));
        Ok(reply)
    }

    /// What is there of a chunked body, as long as it is read here; hyper's frames follow it.
    pub(super) fn poll_chunks(&mut self, cx: &mut Context<'_>) -> Poll<Chunked> {
        self.wire().poll_chunks(cx)
    }

    /// Whether it ended without a byte of the reply that was waited for.
    pub(super) fn ended_unheard(&self) -> bool {
        self.connection.is_none() && !self.wire().heard()
    }

    fn wire(&self) -> MutexGuard<'_, Wire<Stream>> {
        wire::lock(&self.wire)
    }

    /// Lets the connection work and `take` have what it brings, by turns, until there is something or both wait for the
    /// provider.
    pub(super) fn drive<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut take: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.nudge.waiting.register(cx.waker());
        if self.nudge.is_quiet() {
            return Poll::Pending; // the task was woken by something else
        }
        for _ in 0..MAX_TURNS {
            self.nudge.state.store(DRIVEN, Ordering::Release);
            self.turn();
            let taken = take(&mut Context::from_waker(&self.waker));
            // What was taken is passed on before more is asked for, so the link stays `DRIVEN`.
            if taken.is_ready() || self.nudge.rests() {
                return taken;
            }
        }
        // Wakes itself without end; others have their turn first.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// One step of the connection.
    fn turn(&mut self) {
        if let Some(connection) = &mut self.connection {
            let polled = Pin::new(connection).poll(&mut Context::from_waker(&self.waker));
            if polled.is_ready() {
                // What it ended with was told to whoever waited for a reply.
                self.connection = None;
            }
        }
    }

    /// Whether another request may be sent: the reply was read to its end and the provider keeps the connection open.
    ///
    /// Asked of a link that nobody waits for. It lets go of the task that did.
    pub(super) fn is_idle(&mut self) -> bool {
        self.nudge.state.store(DRIVEN, Ordering::Release);
        drop(self.nudge.waiting.take());
        self.turn();
        self.connection.is_some() && self.sender.is_ready()
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("open", &self.connection.is_some())
            .finish_non_exhaustive()
    }
}

/// Whether hyper reads this reply's body as chunks, without a doubt.
fn is_chunked(reply: &Response<Incoming>) -> bool {
    let mut codings = reply.headers().get_all(TRANSFER_ENCODING).iter();
    let coding = codings.next().map(HeaderValue::as_bytes);
    coding.is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked"))
        && codings.next().is_none()
        && reply.version() == Version::HTTP_11
        && !reply.body().is_end_stream()
        && reply.body().size_hint().exact().is_none()
}

// === impl Nudge ===

impl Nudge {
    /// Whether there was no wake-up since the link was left waiting.
    fn is_quiet(&self) -> bool {
        self.state.load(Ordering::Acquire) == WAITED_FOR
    }

    /// From here on a wake-up goes to the task, unless there was one while the link was driven.
    fn rests(&self) -> bool {
        let (success, failure) = (Ordering::AcqRel, Ordering::Acquire);
        self.state
            .compare_exchange(DRIVEN, WAITED_FOR, success, failure)
            .is_ok()
    }
}

impl Wake for Nudge {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.swap(WOKEN, Ordering::AcqRel) == WAITED_FOR {
            self.waiting.wake();
        }
    }
}

/// Bytes of a reply's head, and the most that is read at once.
const MAX_READ_BYTES: usize = 64 * 1024;

/// Two suffice for anything that a connection does; more than a few are a fault.
const MAX_TURNS: usize = 16;
