//! Names that are answered here, without a destination: a sandbox's way to what Farrier itself offers.
//!
//! In: a connection for such a name, its TLS ended in the name, or one request in the clear. Out: the bytes, to whatever
//! answers for that name; it speaks HTTP, and knows from where it was called, not from what is said, whose they are.
//!
//! No rule of a policy is needed for such a name, and none can take it away. It is one at ports 80 and 443 alone: at
//! others it is a name like any other.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use http::header::HOST;
use http::{HeaderValue, Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::ask::{Ask, implied};
use crate::audit::Verdict;
use crate::body::Counted;
use crate::exchange::strip;
use crate::record::Record;
use crate::rescue::Cause;
use crate::sandbox::Sandbox;
use crate::target::{Authority, Host, Malformed};
use crate::tunnel::Moved;
use crate::upstream::UpstreamError;

/// Names that are answered here, and by what.
#[derive(Clone, Debug, Default)]
pub struct LocalServices(HashMap<Host, LocalService>);

/// What answers for one name.
#[derive(Clone)]
pub(crate) struct LocalService(Arc<Serve>);

/// A client's connection to a name that is answered here; its TLS, if there is one, has been ended.
pub struct LocalStream {
    stream: Box<dyn Stream>,
    moved: Arc<Moved>,
}

type Serve = dyn Fn(LocalStream) -> Serving + Send + Sync;
type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Ports at which such a name is one.
const PORTS: [u16; 2] = [80, 443];
/// Between a request in the clear and what answers it.
const PIPE_BYTES: usize = 64 * 1024;

// === impl LocalServices ===

impl LocalServices {
    /// No name.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Has `serve` answer for a name: it is called with each connection, and speaks HTTP/1.1 or HTTP/2 (as the client begins)
    /// to its end. Dropping its future cuts the connection.
    ///
    /// # Errors
    ///
    /// [`Malformed::Host`]
    pub fn with<F, A>(mut self, name: &str, serve: F) -> Result<Self, Malformed>
    where
        F: Fn(LocalStream) -> A + Send + Sync + 'static,
        A: Future<Output = ()> + Send + 'static,
    {
        let serve: Arc<Serve> = Arc::new(move |stream| Box::pin(serve(stream)));
        self.0.insert(Host::parse(name)?, LocalService(serve));
        Ok(self)
    }

    pub(crate) fn at(&self, to: &Authority) -> Option<&LocalService> {
        self.0.get(&to.host).filter(|_| PORTS.contains(&to.port))
    }
}

// === impl LocalService ===

impl LocalService {
    /// One connection, from its first byte to its last.
    pub(crate) fn serve<S>(&self, stream: S, moved: &Arc<Moved>) -> Serving
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        (self.0)(LocalStream {
            stream: Box::new(stream),
            moved: Arc::clone(moved),
        })
    }
}

impl fmt::Debug for LocalService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LocalService")
    }
}

impl Sandbox {
    /// One request in the clear, over a connection of its own: the next on the client's may be for somebody else.
    pub(crate) async fn asked_of(
        &self,
        service: &LocalService,
        request: Request<Incoming>,
        ask: &Ask,
        record: &mut Record,
    ) -> Result<Response<Incoming>, Cause> {
        "local".clone_into(&mut record.line.kind);
        record.line.verdict = Verdict::Allowed;
        let closed = |_ended: hyper::Error| UpstreamError::Closed;
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        drop(self.tasks.spawn(service.serve(theirs, &Arc::default())));
        let shaken = http1::handshake(TokioIo::new(ours)).await;
        let (mut sender, connection) = shaken.map_err(closed)?;
        drop(self.tasks.spawn(connection));
        let moved = Arc::clone(&record.moved);
        let mut request = request.map(|body| Counted { body, moved });
        strip(request.headers_mut());
        let host = ask.to.written(implied(ask.scheme));
        let host = HeaderValue::try_from(host).map_err(|_never| Malformed::Host)?;
        request.headers_mut().insert(HOST, host);
        let target = request.uri().path_and_query().cloned();
        *request.uri_mut() = target.map_or_else(Uri::default, Uri::from);
        *request.version_mut() = http::Version::HTTP_11;
        let within = self.limits.reply;
        match tokio::time::timeout(within, sender.send_request(request)).await {
            Ok(Ok(mut reply)) => {
                record.line.status = Some(reply.status().as_u16());
                strip(reply.headers_mut());
                Ok(reply)
            }
            Ok(Err(ended)) => Err(closed(ended).into()),
            Err(_) => Err(UpstreamError::Silent(within).into()),
        }
    }
}

// === impl LocalStream ===

impl AsyncRead for LocalStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let length = buf.filled().len() - before;
        self.moved.up.fetch_add(length as u64, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for LocalStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, buf))?;
        self.moved.down.fetch_add(written as u64, Ordering::Relaxed);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs))?;
        self.moved.down.fetch_add(written as u64, Ordering::Relaxed);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl fmt::Debug for LocalStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LocalStream")
    }
}
