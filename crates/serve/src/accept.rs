//! Sockets in, answered connections out; then the drain.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{debug, warn};

use crate::quiet::Quiet;
use crate::stall::Stalling;
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
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let places = Arc::new(Semaphore::new(limits.max_connections));
        let Limits {
            drain,
            max_connections,
            ..
        } = limits;
        let acceptor = Acceptor {
            http: http(&limits, tracker),
            limits,
            places: Arc::clone(&places),
            tracker: tracker.clone(),
            service,
        };
        for (addr, socket) in self.sockets {
            drop(tracker.spawn(acceptor.clone().accept_all(addr, socket)));
        }
        drop(acceptor);
        shutdown.await;
        tracker.drain();
        if tracker.idle(drain).await == 0 {
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

/// What each accept loop holds.
#[derive(Clone)]
struct Acceptor<S> {
    http: auto::Builder<Tracker>,
    limits: Limits,
    places: Arc<Semaphore>,
    tracker: Tracker,
    service: S,
}

impl<S, F, B> Acceptor<S>
where
    S: Fn(Peer, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    async fn accept_all(self, listener: SocketAddr, socket: TcpListener) {
        let accepting = async {
            loop {
                // Closed only with the last clone of `places`, one of which is ours.
                let Ok(place) = Arc::clone(&self.places).acquire_owned().await else {
                    return;
                };
                match socket.accept().await {
                    Ok((stream, remote)) => self.admit(stream, Peer { listener, remote }, place),
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
        let connection = self.clone().drive(stream, peer);
        drop(self.tracker.spawn(async move {
            connection.await;
            drop(place);
        }));
    }

    /// One connection, from its first byte to its last.
    async fn drive(self, stream: TcpStream, peer: Peer) {
        let Self {
            http,
            limits,
            tracker,
            service,
            ..
        } = self;
        let asked = Arc::new(AtomicBool::new(false));
        let answer = {
            let asked = Arc::clone(&asked);
            service_fn(move |request| {
                asked.store(true, Ordering::Relaxed);
                // Boxed, since it is moved twice before it runs, and its room would stay with the connection.
                let answered = Box::pin(service(peer, request));
                async move { Ok::<_, Infallible>(answered.await) }
            })
        };
        let io = TokioIo::new(Stalling::new(stream, limits.write_stall));
        let mut connection = std::pin::pin!(http.serve_connection(io, answer));
        // The parser's own timer starts only once the HTTP version is known, that is with the first bytes.
        let mut silent = std::pin::pin!(tokio::time::sleep(limits.header_read));
        let mut drain = std::pin::pin!(Quiet::new(Box::pin(tracker.draining())));
        let mut draining = false;
        loop {
            tokio::select! {
                biased;
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        debug!(remote = %peer.remote, %error, "connection ended early");
                    }
                    return;
                }
                () = drain.as_mut(), if !draining => {
                    draining = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = silent.as_mut(), if !asked.load(Ordering::Relaxed) => {
                    debug!(remote = %peer.remote, "no request in time");
                    return;
                }
            }
        }
    }
}

fn http(limits: &Limits, tracker: &Tracker) -> auto::Builder<Tracker> {
    let mut http = auto::Builder::new(tracker.clone());
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
