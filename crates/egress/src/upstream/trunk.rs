//! One HTTP/2 connection, which carries several requests at once.
//!
//! hyper takes any number of requests for a connection and holds back those that the destination does not allow yet, with
//! the keys that were put in, and without a bound. So they are counted before hyper has them: a request travels on a
//! [`Berth`], and there are no more of these than the destination has announced, nor than [`MAX_STREAMS`].
//!
//! What a destination allows stands in its first frame (RFC 9113 §3.4), and nothing is sent before that is there.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use farrier_serve::Tracker;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http2::{Builder, Connection, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Notify;

use super::dial::Link;
use super::{Outgoing, UpstreamError, cause_of};

/// A connection whose requests each have a stream.
#[derive(Debug)]
pub(crate) struct Trunk {
    sender: SendRequest<Outgoing>,
    /// Asked what the destination allows; driven by a task of its own.
    connection: Arc<Mutex<Driven>>,
    /// Berths that are taken.
    streams: AtomicUsize,
    /// It has carried a request.
    is_used: AtomicBool,
    /// At the last sweep it carried nothing.
    was_swept: AtomicBool,
    /// Rung when a berth becomes free.
    freed: Arc<Notify>,
}

/// A connection until it ends.
type Driven = Option<Connection<TokioIo<Link>, Outgoing, Turns>>;

/// A place on a trunk.
#[derive(Debug)]
pub(crate) struct Berth {
    trunk: Arc<Trunk>,
    /// The trunk has carried others before.
    is_kept: bool,
}

/// Spawns what hyper needs for a connection, and wakes whoever waits after each of its turns.
#[derive(Clone, Debug)]
struct Turns {
    tasks: Tracker,
    waiting: Arc<Mutex<Option<Waker>>>,
}

/// Requests at once on one connection, whatever more the destination allows: what most servers announce, and what RFC 9113
/// §6.5.2 wants them to allow at least.
pub(super) const MAX_STREAMS: usize = 100;
/// Bytes of one reply that may arrive without being read: who does not read holds up nobody but himself.
const STREAM_WINDOW: u32 = 1024 * 1024;
/// The same of all streams together, which they cannot use up.
const CONNECTION_WINDOW: u32 = 128 * STREAM_WINDOW;
/// A dead connection is noticed by a ping, since no request on it would ever fail.
const PING: Duration = Duration::from_secs(30);

// === impl Trunk ===

impl Trunk {
    /// Begins HTTP/2 on a fresh connection, and waits for what the destination allows.
    pub(super) async fn over(
        link: Link,
        tasks: &Tracker,
        freed: Arc<Notify>,
    ) -> Result<Arc<Self>, UpstreamError> {
        let turns = Turns {
            tasks: tasks.clone(),
            waiting: Arc::default(),
        };
        let handshake = Builder::new(turns.clone())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING)
            .initial_max_send_streams(0) // until the destination says otherwise
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(TokioIo::new(link))
            .await;
        let (sender, mut connection) = handshake.map_err(|error| cause_of(&error))?;
        poll_fn(|cx| {
            *lock(&turns.waiting) = Some(cx.waker().clone());
            match Pin::new(&mut connection).poll(cx) {
                Poll::Ready(Ok(())) => Poll::Ready(Err(UpstreamError::Closed)),
                Poll::Ready(Err(error)) => Poll::Ready(Err(cause_of(&error))),
                Poll::Pending if connection.current_max_send_streams() > 0 => Poll::Ready(Ok(())),
                Poll::Pending => Poll::Pending,
            }
        })
        .await?;
        *lock(&turns.waiting) = None;
        let connection = Arc::new(Mutex::new(Some(connection)));
        drop(tasks.spawn(drive(Arc::clone(&connection))));
        Ok(Arc::new(Self {
            sender,
            connection,
            streams: AtomicUsize::new(0),
            is_used: AtomicBool::new(false),
            was_swept: AtomicBool::new(false),
            freed,
        }))
    }

    /// A place for one more request, if there is one.
    pub(super) fn berth(self: &Arc<Self>) -> Option<Berth> {
        let carries = self.carries();
        let free = |taken: usize| (taken < carries).then_some(taken + 1);
        let (success, failure) = (Ordering::AcqRel, Ordering::Acquire);
        self.streams.fetch_update(success, failure, free).ok()?;
        self.was_swept.store(false, Ordering::Release);
        Some(Berth {
            is_kept: self.is_used.swap(true, Ordering::AcqRel),
            trunk: Arc::clone(self),
        })
    }

    /// How many requests it carries at once, as the destination allows now.
    pub(super) fn carries(&self) -> usize {
        let connection = lock(&self.connection);
        let allowed = connection
            .as_ref()
            .map(Connection::current_max_send_streams);
        MAX_STREAMS.min(allowed.unwrap_or(0))
    }

    /// Whether it takes requests.
    pub(super) fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Notes a sweep; whether it carries something, or did since the last one.
    pub(super) fn is_needed(&self) -> bool {
        self.streams.load(Ordering::Acquire) > 0 || !self.was_swept.swap(true, Ordering::AcqRel)
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

/// A poisoned lock still holds what it held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
        request: Request<Outgoing>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Outgoing>>> {
        self.trunk.sender.clone().try_send_request(request).await
    }
}

impl Drop for Berth {
    fn drop(&mut self) {
        self.trunk.streams.fetch_sub(1, Ordering::AcqRel);
        self.trunk.freed.notify_waiters();
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
                let waker = lock(&waiting).clone();
                if let Some(waker) = waker {
                    waker.wake();
                }
                polled
            })
            .await
        }));
    }
}
