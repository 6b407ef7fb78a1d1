//! Requests towards destinations, over connections that were judged when they were made.
//!
//! One for each sandbox and set of rules: what one may reach, another's connection does not bring it to. TLS is verified,
//! sessions are resumed, connections are kept. A request of HTTP/1.1 goes on as one, over a connection that it has for
//! itself; those of HTTP/2 share one, if the destination speaks it. A shared connection has room for only so many streams,
//! and whoever opens many connections means not to wait for one another.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use farrier_serve::{BoxError, Tracker};
use http::{Request, Response, Uri, Version};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::rt::ReadBufCursor;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower_service::Service;

use crate::policy::Policy;
use crate::resolve::{DialError, Names, dial};
use crate::target::{Authority, Host};

/// A body towards a destination.
pub(crate) type Outgoing = UnsyncBoxBody<Bytes, BoxError>;

/// Whom destinations are believed to be, by their certificates.
#[derive(Clone, Debug)]
pub struct Trust {
    any: Arc<ClientConfig>,
    http1: Arc<ClientConfig>,
}

/// A certificate that cannot be trusted.
#[derive(Debug, thiserror::Error)]
#[error("expected certificates in PEM, got {reason}")]
pub struct TrustError {
    reason: String,
}

/// The way to every destination of a sandbox.
#[derive(Clone, Debug)]
pub(crate) struct Upstream {
    any: Client<Dialer, Outgoing>,
    /// For requests of HTTP/1.1, upgrades among them.
    http1: Client<Dialer, Outgoing>,
    reply: Duration,
}

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    #[error("expected a reply, got the end of the connection")]
    Closed,
    #[error("expected a reply within {0:?}, got none")]
    Silent(Duration),
    #[error("expected a certificate that proves the destination, got {0}")]
    Tls(String),
}

#[derive(Clone, Debug)]
struct Dialer {
    policy: Arc<Policy>,
    names: Names,
    tls: Arc<ClientConfig>,
    connect: Duration,
    handshake: Duration,
}

/// What upstreams are made of, whatever the rules.
#[derive(Clone, Debug)]
pub(crate) struct Ways {
    pub(crate) names: Names,
    pub(crate) trust: Trust,
    pub(crate) tasks: Tracker,
}

/// Idle connections to one destination.
const MAX_IDLE: usize = 16;
const IDLE: Duration = Duration::from_secs(60);
const HTTP2_PING: Duration = Duration::from_secs(30);

// === impl Trust ===

impl Trust {
    /// Mozilla's authorities, and those of `extra` in PEM.
    ///
    /// # Errors
    ///
    /// [`TrustError`]
    pub fn with(extra: Option<&[u8]>) -> Result<Self, TrustError> {
        let said = |reason: String| TrustError { reason };
        let mut roots = RootCertStore {
            roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
        };
        let before = roots.len();
        for certificate in extra.into_iter().flat_map(CertificateDer::pem_slice_iter) {
            let certificate = certificate.map_err(|error| said(error.to_string()))?;
            roots
                .add(certificate)
                .map_err(|error| said(error.to_string()))?;
        }
        if extra.is_some() && roots.len() == before {
            return Err(said("a file without any".to_owned()));
        }
        let crypto = Arc::new(rustls::crypto::ring::default_provider());
        let versions = ClientConfig::builder_with_provider(crypto)
            .with_safe_default_protocol_versions()
            .map_err(|error| said(error.to_string()))?;
        let http1 = {
            let mut config = versions.with_root_certificates(roots).with_no_client_auth();
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            config
        };
        let mut any = http1.clone();
        any.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self {
            any: Arc::new(any),
            http1: Arc::new(http1),
        })
    }
}

// === impl Upstream ===

impl Upstream {
    pub(crate) fn new(policy: &Arc<Policy>, ways: &Ways, limits: &crate::Limits) -> Self {
        let client = |tls: &Arc<ClientConfig>| {
            let dialer = Dialer {
                policy: Arc::clone(policy),
                names: ways.names.clone(),
                tls: Arc::clone(tls),
                connect: limits.connect,
                handshake: limits.handshake,
            };
            Client::builder(ways.tasks.clone())
                .pool_timer(TokioTimer::new())
                .timer(TokioTimer::new())
                .pool_idle_timeout(IDLE)
                .pool_max_idle_per_host(MAX_IDLE)
                .http2_keep_alive_interval(HTTP2_PING)
                .http2_keep_alive_timeout(HTTP2_PING)
                .http2_adaptive_window(true)
                .build(dialer)
        };
        Self {
            any: client(&ways.trust.any),
            http1: client(&ways.trust.http1),
            reply: limits.reply,
        }
    }

    /// Sends a request, its URI absolute, that came in this version, and waits for the head of its reply.
    pub(crate) async fn send(
        &self,
        request: Request<Outgoing>,
        version: Version,
    ) -> Result<Response<Incoming>, crate::rescue::Cause> {
        let client = if version == Version::HTTP_2 {
            &self.any
        } else {
            &self.http1
        };
        match tokio::time::timeout(self.reply, client.request(request)).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(error)) => Err(cause_of(&error)),
            Err(_) => Err(UpstreamError::Silent(self.reply).into()),
        }
    }
}

/// Our own error if there is one in the chain, else what TLS said, or that the connection ended.
fn cause_of(error: &(dyn Error + 'static)) -> crate::rescue::Cause {
    if let Some(failed) = find::<Failed>(error) {
        return failed.0.again().into();
    }
    match find::<rustls::Error>(error) {
        Some(error) => UpstreamError::Tls(error.to_string()).into(),
        None => UpstreamError::Closed.into(),
    }
}

fn find<'e, E: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        // What TLS says is within what the stream says.
        let inner = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        if let Some(found) = inner.and_then(|inner| inner.downcast_ref()) {
            return Some(found);
        }
        next = error.source();
    }
    None
}

impl UpstreamError {
    pub(crate) const fn timed_out(&self) -> bool {
        matches!(self, Self::Silent(_))
    }

    pub(crate) const fn as_str(&self) -> &'static str {
        match self {
            Self::Closed => "upstream_closed",
            Self::Silent(_) => "upstream_timeout",
            Self::Tls(_) => "upstream_certificate",
        }
    }
}

// === impl Dialer ===

impl Service<Uri> for Dialer {
    type Response = Link;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Link, BoxError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let dialer = self.clone();
        Box::pin(async move { dialer.connect(to).await })
    }
}

impl Dialer {
    async fn connect(self, to: Uri) -> Result<Link, BoxError> {
        let encrypted = to.scheme_str() == Some("https");
        let implied = if encrypted { 443 } else { 80 };
        let authority = to
            .authority()
            .map(http::uri::Authority::as_str)
            .unwrap_or_default();
        let to = Authority::parse(authority, Some(implied))?;
        let named = self.policy.named(&to);
        let stream = dial(&to, &named, &self.names, self.connect)
            .await
            .map_err(Failed)?;
        if !encrypted {
            return Ok(Link::Plain(TokioIo::new(stream)));
        }
        let name = match &to.host {
            Host::Address(address) => ServerName::IpAddress((*address).into()),
            Host::Name(name) => ServerName::try_from(name.clone())?,
        };
        let connecting = TlsConnector::from(self.tls).connect(name, stream);
        let shaken = tokio::time::timeout(self.handshake, connecting).await;
        let stream = shaken.map_err(|_elapsed| {
            Failed(DialError::TimedOut {
                to,
                within: self.handshake,
            })
        })??;
        Ok(Link::Tls(Box::new(TokioIo::new(stream))))
    }
}

/// Carries an error of ours through those of the HTTP library.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct Failed(DialError);

impl DialError {
    /// The same error once more; the first belongs to the library's.
    fn again(&self) -> Self {
        match self {
            Self::Address(refused) => Self::Address(*refused),
            Self::Connect { to, reason } => Self::Connect {
                to: to.clone(),
                reason: reason.clone(),
            },
            Self::Name { host, reason } => Self::Name {
                host: host.clone(),
                reason: reason.clone(),
            },
            Self::TimedOut { to, within } => Self::TimedOut {
                to: to.clone(),
                within: *within,
            },
        }
    }
}

/// A connection to a destination.
#[derive(Debug)]
enum Link {
    Plain(TokioIo<TcpStream>),
    Tls(Box<TokioIo<TlsStream<TcpStream>>>),
}

impl Connection for Link {
    fn connected(&self) -> Connected {
        match self {
            Self::Plain(_) => Connected::new(),
            Self::Tls(stream) => match stream.inner().get_ref().1.alpn_protocol() {
                Some(b"h2") => Connected::new().negotiated_h2(),
                _ => Connected::new(),
            },
        }
    }
}

impl hyper::rt::Read for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl hyper::rt::Write for Link {
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
