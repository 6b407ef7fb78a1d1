//! A request over whichever connection there is, or a new one.
//!
//! ```text
//! shared HTTP/2 connection? ─no─▶ idle HTTP/1.1 connection? ─no─▶ connect ─▶ HTTP/2 by agreement or configuration,
//!          └──── closed, nothing sent ────▶ └─ closed, nothing sent ─▶ the next one      else HTTP/1.1
//! ```
//!
//! A kept connection may turn out to be closed when it is used. As long as nothing of the request was sent, another is
//! tried; after that it is not for us to say whether the provider has begun to answer.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use farrier_serve::Tracker;
use http::header::HOST;
use http::{HeaderValue, Request, Response, Uri, Version};
use hyper::client::conn::TrySendError;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::TokioTimer;

use super::arriving::Arriving;
use super::connect::{Connector, Stream, is_http2};
use super::link::Link;
use super::pool::Pool;
use super::{Segments, UpstreamFault};
use crate::config::HttpVersion;

/// The way to one provider.
#[derive(Debug)]
pub(super) struct Transport {
    connector: Connector,
    version: HttpVersion,
    base: Uri,
    /// What HTTP/1.1 calls the provider.
    host: HeaderValue,
    pool: Arc<Pool>,
    tasks: Tracker,
}

/// A new connection.
enum Begun {
    Own(Box<Link>),
    Shared(SendRequest<Segments>),
}

/// The head of a reply.
type Asked = Result<Response<Arriving>, Failed>;

/// Why there is none.
struct Failed {
    fault: UpstreamFault,
    /// The request, if nothing of it was sent.
    unsent: Option<Request<Segments>>,
    /// The connection ended without a byte of the reply.
    unheard: bool,
}

// === impl Transport ===

impl Transport {
    /// To `base`, whose host is required. Makes no connection yet; `tasks` runs what connections need.
    pub(super) fn new(
        connector: Connector,
        version: HttpVersion,
        base: Uri,
        tasks: Tracker,
    ) -> Option<Self> {
        Some(Self {
            connector,
            version,
            host: host_of(&base)?,
            base,
            pool: Pool::new(tasks.clone()),
            tasks,
        })
    }

    /// Sends a request, its URI absolute, and waits for the head of its reply.
    ///
    /// Dropping the future cancels the request: its connection is closed, or its HTTP/2 stream reset.
    pub(super) async fn ask(
        &self,
        mut request: Request<Segments>,
    ) -> Result<Response<Arriving>, UpstreamFault> {
        let uri = request.uri().clone();
        while let Some(sender) = self.pool.shared() {
            match self.ask_shared(sender, request, &uri).await {
                Ok(reply) => return Ok(reply),
                Err(failed) => request = failed.unsent()?,
            }
        }
        while let Some(link) = self.pool.take() {
            match self.ask_over(link, request, &uri).await {
                Ok(reply) => return Ok(reply),
                Err(failed) => request = failed.while_kept().unsent()?,
            }
        }
        let asked = match Box::pin(self.begin()).await? {
            Begun::Shared(sender) => self.ask_shared(sender, request, &uri).await,
            Begun::Own(link) => self.ask_over(link, request, &uri).await,
        };
        asked.map_err(|failed| failed.fault)
    }

    /// A new connection. It seldom happens and needs much room, so whoever awaits it does so in a box.
    async fn begin(&self) -> Result<Begun, UpstreamFault> {
        let stream = self.connector.connect(self.base.clone()).await?;
        if self.version == HttpVersion::Http2 || is_http2(&stream) {
            return self.begin_shared(stream).await.map(Begun::Shared);
        }
        let link = Link::over(stream).await;
        link.map(Begun::Own)
            .map_err(|error| UpstreamFault::of(&error))
    }

    async fn ask_over(
        &self,
        mut link: Box<Link>,
        mut request: Request<Segments>,
        uri: &Uri,
    ) -> Asked {
        *request.version_mut() = Version::HTTP_11;
        if let Some(path) = uri.path_and_query() {
            *request.uri_mut() = Uri::from(path.clone());
        }
        request.headers_mut().insert(HOST, self.host.clone());
        match link.ask(request).await {
            Ok(reply) => Ok(reply.map(|incoming| Arriving::over(link, &self.pool, incoming))),
            Err(error) => Err(Failed {
                unheard: link.ended_unheard(),
                ..Failed::from(error)
            }),
        }
    }

    async fn ask_shared(
        &self,
        mut sender: SendRequest<Segments>,
        mut request: Request<Segments>,
        uri: &Uri,
    ) -> Asked {
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = uri.clone();
        request.headers_mut().remove(HOST);
        let reply = sender.try_send_request(request).await?;
        Ok(reply.map(Arriving::shared))
    }

    /// Makes of a fresh connection one that requests share.
    async fn begin_shared(&self, stream: Stream) -> Result<SendRequest<Segments>, UpstreamFault> {
        let handshake = Builder::new(self.tasks.clone())
            .timer(TokioTimer::new())
            .keep_alive_interval(HTTP2_PING)
            .keep_alive_timeout(HTTP2_PING)
            .handshake(stream)
            .await;
        let (sender, connection) = handshake.map_err(|error| UpstreamFault::of(&error))?;
        drop(self.tasks.spawn(connection));
        self.pool.share(&sender);
        Ok(sender)
    }
}

// === impl Failed ===

impl Failed {
    /// The request, if nothing of it was sent and another connection may be tried.
    fn unsent(self) -> Result<Request<Segments>, UpstreamFault> {
        self.unsent.ok_or(self.fault)
    }

    /// A provider may close a kept connection just as a request is sent on it.
    fn while_kept(mut self) -> Self {
        if self.unheard && self.fault == UpstreamFault::Closed {
            self.fault = UpstreamFault::ClosedWhileKept;
        }
        self
    }
}

impl From<TrySendError<Request<Segments>>> for Failed {
    fn from(mut error: TrySendError<Request<Segments>>) -> Self {
        Self {
            unsent: error.take_message(),
            fault: UpstreamFault::of(&error.into_error()),
            unheard: false,
        }
    }
}

/// Host and port as they stand in a `Host` field, which has no port that the scheme implies.
fn host_of(base: &Uri) -> Option<HeaderValue> {
    let host = base.host()?;
    let implied = if base.scheme_str() == Some("https") {
        443
    } else {
        80
    };
    let host = match base.port_u16() {
        Some(port) if port != implied => format!("{host}:{port}"),
        _ => host.to_owned(),
    };
    HeaderValue::try_from(host).ok()
}

impl UpstreamFault {
    /// What an exchange failed of.
    fn of(error: &hyper::Error) -> Self {
        if error.is_parse() || cause::<rustls::Error>(error).is_some() {
            return Self::NotHttp;
        }
        match cause::<io::Error>(error).map(io::Error::kind) {
            Some(io::ErrorKind::InvalidData) => Self::NotHttp,
            _ => Self::Closed,
        }
    }
}

/// The first error of type `E` in the chain that starts at `error`.
fn cause<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// A dead HTTP/2 connection is noticed by a ping, since no request on it would ever fail.
const HTTP2_PING: Duration = Duration::from_secs(20);
