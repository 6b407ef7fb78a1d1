//! From a destination to a connection with it: its address judged, its certificate verified.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use farrier_secrets::Scheme;
use http::Version;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::policy::Policy;
use crate::resolve::{DialError, Names, dial};
use crate::target::{Authority, Host};

use super::{Trust, Unreached, UpstreamError, cause_of};

#[derive(Clone, Debug)]
pub(super) struct Dialer {
    pub(super) policy: Arc<Policy>,
    pub(super) names: Names,
    pub(super) trust: Trust,
    pub(super) connect: Duration,
    pub(super) handshake: Duration,
}

/// A connection to a destination.
#[derive(Debug)]
pub(super) enum Link {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

// === impl Dialer ===

impl Dialer {
    /// Connects, for requests of a version: HTTP/2 only if the destination takes it up.
    pub(super) async fn dial(
        &self,
        scheme: Scheme,
        to: &Authority,
        version: Version,
    ) -> Result<Link, Unreached> {
        let named = self.policy.named(to);
        let stream = dial(to, &named, &self.names, self.connect).await?;
        if scheme == Scheme::Http {
            return Ok(Link::Plain(stream));
        }
        let name = match &to.host {
            Host::Address(address) => ServerName::IpAddress((*address).into()),
            Host::Name(name) => ServerName::try_from(name.clone())
                .map_err(|error| UpstreamError::Tls(error.to_string()))?,
        };
        let tls = match version {
            Version::HTTP_2 => &self.trust.any,
            _ => &self.trust.http1,
        };
        let connecting = TlsConnector::from(Arc::clone(tls)).connect(name, stream);
        match tokio::time::timeout(self.handshake, connecting).await {
            Ok(Ok(stream)) => Ok(Link::Tls(Box::new(stream))),
            Ok(Err(error)) => Err(cause_of(&error).into()),
            Err(_) => Err(Unreached::Dial(DialError::TimedOut {
                to: to.clone(),
                within: self.handshake,
            })),
        }
    }
}

// === impl Link ===

impl Link {
    pub(super) fn speaks_http2(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(stream) => stream.get_ref().1.alpn_protocol() == Some(b"h2"),
        }
    }
}

impl AsyncRead for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Link {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
