//! One HTTP/2 connection, which carries several requests at once.
//!
//! hyper takes any number of requests for a connection and holds back those that the provider does not allow yet, without
//! a word and without a bound. So they are counted before hyper has them: a request travels on a [`Berth`], and there are
//! no more of these than the provider has announced, nor than [`MAX_STREAMS`].
//!
//! What a provider allows stands in its first frame (RFC 9113 §3.4), and nothing is sent before that is there.
//!
//! Each stream has a small window and the connection one that all of them together cannot use up, so that a client that
//! does not read holds up nobody but itself.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use atomic_waker::AtomicWaker;
use farrier_serve::Tracker;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http2::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioTimer;

use super::connect::Stream;
use super::pool::lock;
use super::{Segments, UpstreamFault};

/// A connection whose requests each have a stream.
#[derive(Debug)]
pub(super) struct Trunk {
    sender: SendRequest<Segments>,
    /// Asked what the provider allows; driven by a task of its own.
    connection: Arc<Mutex<Driven>>,
    /// Berths that are taken.
    streams: AtomicUsize,
    /// It has carried a request.
    is_used: AtomicBool,
    /// The provider is closing it.
    is_leaving: AtomicBool,
    /// Its end was told to somebody.
    is_mourned: AtomicBool,
    /// Sweeps since it carried anything.
    rested: AtomicUsize,
}

/// A connection until it ends. Then it is dropped at once, and what was still to be sent on it comes back.
type Driven = Option<Connection<Stream, Segments, Turns>>;

/// A place on a trunk.
#[derive(Debug)]
pub(super) struct Berth {
    trunk: Arc<Trunk>,
    /// The trunk has carried others before.
    is_kept: bool,
}

/// Spawns what hyper needs for a connection, and rings after each of its turns if somebody waits.
#[derive(Clone)]
struct Turns {
    tasks: Tracker,
    waiting: Arc<AtomicWaker>,
}

// === impl Trunk ===

impl Trunk {
    /// Begins HTTP/2 on a fresh connection, and waits for what the provider allows.
    pub(super) async fn over(stream: Stream, tasks: &Tracker) -> Result<Arc<Self>, UpstreamFault> {
        let turns = Turns {
            tasks: tasks.clone(),
            waiting: Arc::default(),
        };
        let handshake = Builder::new(turns.clone())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING)
            .initial_max_send_streams(0) // until the provider says otherwise
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(stream)
            .await;
        let (sender, mut connection) = handshake.map_err(|error| UpstreamFault::of(&error))?;
        poll_fn(|cx| {
            turns.waiting.register(cx.waker());
            match Pin::new(&mut connection).poll(cx) {
                Poll::Ready(Ok(())) => Poll::Ready(Err(UpstreamFault::Closed)),
                Poll::Ready(Err(error)) => Poll::Ready(Err(UpstreamFault::of(&error))),
                Poll::Pending if connection.current_max_send_streams() > 0 => Poll::Ready(Ok(())),
                Poll::Pending => Poll::Pending,
            }
        })
        .await?;
        let connection = Arc::new(Mutex::new(Some(connection)));
        drop(tasks.spawn(drive(Arc::clone(&connection))));
        Ok(Arc::new(Self {
            sender,
            connection,
            streams: AtomicUsize::new(0),
            is_used: AtomicBool::new(false),
            is_leaving: AtomicBool::new(false),
            is_mourned: AtomicBool::new(false),
            rested: AtomicUsize::new(0),
        }))
    }

    /// A place for one more request, if there is one.
    pub(super) fn berth(self: &Arc<Self>) -> Option<Berth> {
        let free = |taken: usize| (taken < MAX_STREAMS).then_some(taken + 1);
        let (success, failure) = (Ordering::AcqRel, Ordering::Acquire);
        let taken = self.streams.fetch_update(success, failure, free).ok()?;
        let berth = Berth {
            trunk: Arc::clone(self),
            is_kept: self.is_used.load(Ordering::Acquire),
        };
        if taken >= self.carries() {
            return None;
        }
        self.is_used.store(true, Ordering::Release);
        self.rested.store(0, Ordering::Release);
        Some(berth)
    }

    /// How many requests it carries at once, as the provider allows now.
    pub(super) fn carries(&self) -> usize {
        let connection = lock(&self.connection);
        let allowed = connection
            .as_ref()
            .map(Connection::current_max_send_streams);
        MAX_STREAMS.min(allowed.unwrap_or(0))
    }

    /// Whether it takes requests.
    pub(super) fn is_open(&self) -> bool {
        !self.is_leaving.load(Ordering::Acquire) && !self.sender.is_closed()
    }

    /// Notes a sweep; how many it has had since it carried anything.
    pub(super) fn rests(&self) -> usize {
        if self.streams.load(Ordering::Acquire) > 0 {
            self.rested.store(0, Ordering::Release);
            return 0;
        }
        self.rested.fetch_add(1, Ordering::AcqRel) + 1
    }
}

/// Runs a connection to its end. What it ended with is told to each of its streams.
async fn drive(connection: Arc<Mutex<Driven>>) {
    poll_fn(|cx| {
        let mut driven = lock(&connection);
        let polled = driven.as_mut().map(|driven| Pin::new(driven).poll(cx));
        if polled.is_some_and(|polled| polled.is_pending()) {
            return Poll::Pending;
        }
        let ended = driven.take();
        drop(driven);
        drop(ended); // without the lock
        Poll::Ready(())
    })
    .await;
}

// === impl Berth ===

impl Berth {
    /// Whether the connection has carried others before.
    pub(super) fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// Sends a request and waits for the head of its reply. An error holds the request if none of it was sent.
    pub(super) async fn ask(
        &self,
        request: Request<Segments>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Segments>>> {
        self.trunk.sender.clone().try_send_request(request).await
    }

    /// What a request without a reply failed of, `waited` after it was sent. Whether the provider has seen it is not in
    /// doubt if it says that it has not: by a `GOAWAY` that names an earlier stream as the last, or by refusing the stream
    /// (RFC 9113 §8.7).
    pub(super) fn fault(&self, error: &hyper::Error, waited: Duration) -> UpstreamFault {
        let fault = UpstreamFault::of(error);
        let told = super::cause::<h2::Error>(error);
        if told.is_some_and(|told| told.is_go_away() && told.is_remote()) {
            self.trunk.is_leaving.store(true, Ordering::Release);
            return UpstreamFault::Refused;
        }
        if told.is_some_and(h2::Error::is_reset) {
            return match told.and_then(h2::Error::reason) {
                Some(h2::Reason::REFUSED_STREAM) => UpstreamFault::Refused,
                _ => fault,
            };
        }
        // The connection as a whole is lost, and everything on it.
        self.trunk.is_leaving.store(true, Ordering::Release);
        if fault == UpstreamFault::Closed && self.is_kept && waited < KEPT_CLOSES_WITHIN {
            return UpstreamFault::ClosedWhileKept;
        }
        match self.trunk.is_mourned.swap(true, Ordering::AcqRel) {
            true => UpstreamFault::ClosedToo,
            false => fault,
        }
    }
}

impl Drop for Berth {
    fn drop(&mut self) {
        self.trunk.streams.fetch_sub(1, Ordering::AcqRel);
    }
}

// === impl Turns ===

impl<F> hyper::rt::Executor<F> for Turns
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, task: F) {
        let waiting = Arc::clone(&self.waiting);
        drop(self.tasks.spawn(async move {
            let mut task = pin!(task);
            poll_fn(|cx| {
                let polled = task.as_mut().poll(cx);
                waiting.wake();
                polled
            })
            .await
        }));
    }
}

/// Requests at once on one connection, whatever more the provider allows: what most servers announce, and what RFC 9113
/// §6.5.2 wants them to allow at least. A connection that is lost takes no more than these with it.
pub(super) const MAX_STREAMS: usize = 100;

/// Bytes of one reply that may arrive without being read: a second of 2 Mbit/s, which no model writes. Downloads have
/// that for each round trip.
const STREAM_WINDOW: u32 = 256 * 1024;

/// Bytes that may arrive unread on all streams. What their own windows allow would do; but h2 closes a connection when
/// small frames wait on it whose overhead, up to 255 bytes for each, comes to half of this, and models write small frames.
const CONNECTION_WINDOW: u32 = 8 * 100 * STREAM_WINDOW;

/// A dead connection is noticed by a ping, since no request on it would ever fail.
const PING: Duration = Duration::from_secs(20);

/// How soon a kept connection that the provider was closing is found closed: its close was on the way when the request
/// was sent, so that it takes a round trip at most. What closes later closes on a request that was received, and may have
/// been worked on and paid for since.
pub(super) const KEPT_CLOSES_WITHIN: Duration = Duration::from_secs(2);
