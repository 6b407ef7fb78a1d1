//! Sockets in, answered connections out; then the drain.

use std::convert::Infallible;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};
use tracing::{debug, warn};

use crate::quiet::Quiet;
use crate::stall::Stalling;
use crate::streams::{Doing, Streams};
use crate::untaken::{Noted, Watching};
use crate::{BoxError, Limits, Tracker};

/// Bound sockets that do not accept yet: their addresses are known before anything is served.
#[derive(Debug)]
pub struct Listener {
    sockets: Vec<(SocketAddr, TcpListener)>,
}

/// The two ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The address the listener is bound to (the wildcard, if it is bound to that).
    pub listener: SocketAddr,
    /// Which of the listener's sockets that is, in the order of [`Listener::addrs`].
    pub socket: usize,
    /// Who connected.
    pub remote: SocketAddr,
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were still busy at the deadline and were closed on their peers.
    pub cut: usize,
}

/// An address that could not be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {addr}")]
pub struct BindError {
    addr: SocketAddr,
    source: io::Error,
}

// === impl Listener ===

impl Listener {
    /// Binds every address.
    ///
    /// # Errors
    ///
    /// The first address that cannot be bound.
    pub async fn bind(addrs: &[SocketAddr]) -> Result<Self, BindError> {
        let mut sockets = Vec::with_capacity(addrs.len());
        for &addr in addrs {
            let bound = async {
                let socket = TcpListener::bind(addr).await?;
                Ok((socket.local_addr()?, socket))
            };
            sockets.push(bound.await.map_err(|source| BindError { addr, source })?);
        }
        Ok(Self { sockets })
    }

    /// Takes over sockets that somebody else bound, in another network for one. They are made non-blocking.
    ///
    /// # Errors
    ///
    /// The first that cannot be used.
    ///
    /// # Panics
    ///
    /// Outside a runtime, which is what waits for connections.
    pub fn over(sockets: Vec<std::net::TcpListener>) -> io::Result<Self> {
        let adopted = sockets.into_iter().map(|socket| {
            socket.set_nonblocking(true)?;
            let socket = TcpListener::from_std(socket)?;
            Ok((socket.local_addr()?, socket))
        });
        let sockets = adopted.collect::<io::Result<_>>()?;
        Ok(Self { sockets })
    }

    /// Has the sockets of another after its own, as one listener under one set of limits.
    #[must_use]
    pub fn with(mut self, other: Self) -> Self {
        self.sockets.extend(other.sockets);
        self
    }

    /// The addresses as bound: port 0 has become a real one.
    pub fn addrs(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.sockets.iter().map(|(addr, _)| *addr)
    }

    /// Serves until `shutdown` resolves, then drains: no new connection, no new request on an old one, what is in
    /// flight may finish for `limits.drain`, and what is left is cut.
    ///
    /// `tracker` is this listener's own: all that runs in it is ended. Its [`Tracker::is_cut`] says, to a reply body that
    /// is dropped, that the deadline did it and not the client.
    pub async fn serve<S, F, B>(
        self,
        service: S,
        limits: Limits,
        tracker: &Tracker,
        shutdown: impl Future<Output = ()>,
    ) -> Drained
    where
        S: Fn(Peer, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        let answering = Answering::new(service, &limits, tracker);
        let connection = move |peer, stream| answering.clone().drive(stream, peer);
        self.serve_streams(connection, &limits, tracker, shutdown)
            .await
    }

    /// As [`serve`](Self::serve), for connections that are not, or not only, HTTP: `connection` is one of them, from its
    /// first byte to its last. It is to heed [`Tracker::draining`], and bounds its own waits; of `limits` only
    /// `max_connections` and `drain` count.
    pub async fn serve_streams<C, F>(
        self,
        connection: C,
        limits: &Limits,
        tracker: &Tracker,
        shutdown: impl Future<Output = ()>,
    ) -> Drained
    where
        C: Fn(Peer, TcpStream) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let max_connections = limits.max_connections.min(Semaphore::MAX_PERMITS);
        let places = Arc::new(Semaphore::new(max_connections));
        let acceptor = Acceptor {
            connection,
            places: Arc::clone(&places),
            tracker: tracker.clone(),
        };
        drop(tracker.spawn(acceptor.accept_all(self.sockets)));
        shutdown.await;
        tracker.drain();
        if tracker.idle(limits.drain).await == 0 {
            return Drained::default();
        }
        let cut = max_connections - places.available_permits();
        tracker.cut();
        let left = tracker.idle(CUT_GRACE).await;
        debug!(cut, left, "drain deadline passed");
        Drained { cut }
    }
}

// === impl Acceptor ===

/// What the accept loop holds.
struct Acceptor<C> {
    connection: C,
    places: Arc<Semaphore>,
    tracker: Tracker,
}

impl<C, F> Acceptor<C>
where
    C: Fn(Peer, TcpStream) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    /// Accepts from all sockets, in one loop: a place is taken before a connection is, and waits for whichever comes
    /// first. A loop for each socket would keep a place for each, and with few places some would never be served.
    async fn accept_all(self, sockets: Vec<(SocketAddr, TcpListener)>) {
        let mut first = 0;
        let accepting = async {
            loop {
                // Closed only with the last clone of `places`, one of which is ours.
                let Ok(place) = Arc::clone(&self.places).acquire_owned().await else {
                    return;
                };
                let (at, accepted) = poll_fn(|cx| poll_accept_any(&sockets, first, cx)).await;
                let listener = sockets[at].0;
                first = at + 1; // the others have their turn
                match accepted {
                    Ok((stream, remote)) => {
                        let peer = Peer {
                            listener,
                            socket: at,
                            remote,
                        };
                        self.admit(stream, peer, place);
                    }
                    Err(error) => {
                        // Out of descriptors, or a peer that left already: neither is cured by trying at once.
                        warn!(%listener, %error, "accept failed");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        };
        tokio::select! {
            () = accepting => {}
            () = self.tracker.draining() => {}
        }
    }

    fn admit(&self, stream: TcpStream, peer: Peer, place: OwnedSemaphorePermit) {
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "connection refuses TCP_NODELAY");
        }
        let connection = (self.connection)(peer, stream);
        drop(self.tracker.spawn(async move {
            connection.await;
            drop(place);
        }));
    }
}

/// The first connection that waits at any of the sockets, beginning with one of them, and at which.
fn poll_accept_any(
    sockets: &[(SocketAddr, TcpListener)],
    first: usize,
    cx: &mut Context<'_>,
) -> Poll<(usize, io::Result<(TcpStream, SocketAddr)>)> {
    for turn in 0..sockets.len() {
        let at = (first + turn) % sockets.len();
        if let Poll::Ready(accepted) = sockets[at].1.poll_accept(cx) {
            return Poll::Ready((at, accepted));
        }
    }
    Poll::Pending
}

// === impl Answering ===

/// Answers HTTP on connections, whoever accepted them and however they came.
#[derive(Clone)]
pub struct Answering<S> {
    http: auto::Builder<Watching>,
    limits: Limits,
    tracker: Tracker,
    service: S,
}

impl<S> fmt::Debug for Answering<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Answering");
        shown.field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl<S> Answering<S> {
    /// By `service`, which is told with each request what is known of its connection. `tracker` is what the connections
    /// run in: they finish what they have when it drains.
    pub fn new(service: S, limits: &Limits, tracker: &Tracker) -> Self {
        Self {
            http: http(limits, tracker),
            limits: limits.clone(),
            tracker: tracker.clone(),
            service,
        }
    }

    /// One connection, from its first byte to its last. `whose` is handed to the service with each request.
    ///
    /// # Cancellation
    ///
    /// Dropping the future cuts the connection.
    pub async fn drive<W, I, F, B>(self, stream: I, whose: W)
    where
        S: Fn(W, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        W: Clone + fmt::Debug + Send + 'static,
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        let Self {
            http,
            limits,
            tracker,
            service,
        } = self;
        let streams = Streams::default();
        let answer = {
            let (streams, whose) = (streams.clone(), whose.clone());
            service_fn(move |request: Request<Incoming>| {
                let open = streams.asked(request.version());
                // Boxed, since it is moved twice before it runs, and its room would stay with the connection.
                let answered = Box::pin(service(whose.clone(), request));
                async move {
                    let reply = answered.await;
                    Ok::<_, Infallible>(reply.map(|body| Noted::new(body, open)))
                }
            })
        };
        let io = TokioIo::new(Stalling::new(stream, limits.write_stall));
        let mut connection = std::pin::pin!(http.serve_connection(io, answer));
        let mut watch = Watch::new(&limits);
        let mut drain = std::pin::pin!(Quiet::new(Box::pin(tracker.draining())));
        let mut draining = false;
        loop {
            tokio::select! {
                biased;
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        debug!(?whose, %error, "connection ended early");
                    }
                    return;
                }
                () = drain.as_mut(), if !draining => {
                    draining = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = watch.timer.as_mut(), if watch.goes_on => match watch.look(streams.doing()) {
                    Verdict::Stay => {}
                    Verdict::Finish => connection.as_mut().graceful_shutdown(),
                    Verdict::Close => {
                        debug!(?whose, "no request in time");
                        return;
                    }
                }
            }
        }
    }
}

// === impl Watch ===

/// Looks after a connection on which nothing is asked. HTTP/1.1's parser has a timer of its own, which starts only once
/// the version is known, that is with the first bytes; HTTP/2's has none, and its pings keep a connection up for ever.
struct Watch {
    timer: Pin<Box<Sleep>>,
    /// From accept to the first request, and between two.
    idle: Duration,
    /// For a connection that was told to finish.
    finish: Duration,
    finishing: bool,
    goes_on: bool,
}

/// What becomes of a connection.
enum Verdict {
    Close,
    /// It may bring to an end what it has.
    Finish,
    Stay,
}

impl Watch {
    fn new(limits: &Limits) -> Self {
        Self {
            timer: Box::pin(tokio::time::sleep(limits.header_read)),
            idle: limits.header_read,
            finish: limits.write_stall,
            finishing: false,
            goes_on: true,
        }
    }

    fn look(&mut self, doing: Doing) -> Verdict {
        let (verdict, again) = match doing {
            Doing::Other => {
                self.goes_on = false;
                return Verdict::Stay;
            }
            Doing::Waiting => return Verdict::Close,
            Doing::Streaming => (Verdict::Stay, self.idle),
            Doing::Idle(_) if self.finishing => return Verdict::Close,
            Doing::Idle(idle) if idle < self.idle => (Verdict::Stay, self.idle - idle),
            Doing::Idle(_) => {
                self.finishing = true;
                (Verdict::Finish, self.finish)
            }
        };
        self.timer.as_mut().reset(Instant::now() + again);
        verdict
    }
}

fn http(limits: &Limits, tracker: &Tracker) -> auto::Builder<Watching> {
    let watching = Watching::new(tracker.clone(), limits.write_stall);
    let mut http = auto::Builder::new(watching);
    let header_bytes = limits.max_header_bytes.max(Limits::MIN_HEADER_BYTES);
    let mut http1 = http.http1();
    http1
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_read)
        .max_buf_size(header_bytes);
    if limits.max_headers != Limits::STACK_HEADERS {
        http1.max_headers(limits.max_headers);
    }
    http.http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(header_bytes).unwrap_or(u32::MAX))
        .max_concurrent_streams(limits.max_streams)
        .keep_alive_interval(limits.header_read)
        .keep_alive_timeout(limits.header_read);
    http
}

/// Between two tries after accept itself failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// For cut tasks to be dropped by the runtime.
const CUT_GRACE: Duration = Duration::from_secs(1);
