//! A request over whichever connection there is, or a new one.
//!
//! ```text
//! place on an HTTP/2 connection? ─no─▶ idle HTTP/1.1 connection? ─no─▶ connect ─▶ HTTP/2 by agreement or configuration,
//!       └── closed or turned away ───────▶ └─ closed, nothing sent ─▶ the next one      else HTTP/1.1
//! ```
//!
//! A kept connection may turn out to be closed when it is used. As long as nothing of the request was sent, or the
//! provider says that it has not looked at it, another is tried; after that it is not for us to say whether the provider
//! has begun to answer.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use farrier_serve::Tracker;
use http::header::HOST;
use http::{HeaderValue, Request, Response, Uri, Version};
use tokio::time::Instant;

use super::arriving::Arriving;
use super::connect::{Connector, Stream, is_http2};
use super::link::Link;
use super::pool::Pool;
use super::shown::Shown;
use super::trunk::{Berth, KEPT_CLOSES_WITHIN, Trunk};
use super::trunks::{Found, Given};
use super::{Segments, UpstreamFault};
use crate::config::HttpVersion;

/// The way to one provider.
#[derive(Debug)]
pub(super) struct Transport {
    way: Arc<Way>,
    /// What HTTP/1.1 calls the provider.
    host: HeaderValue,
    shown: Option<Shown>,
    pool: Arc<Pool>,
    tasks: Tracker,
}

/// How connections are made.
#[derive(Debug)]
struct Way {
    connector: Connector,
    version: HttpVersion,
    base: Uri,
    /// The last connection was one of HTTP/2: the next is made once for all who wait.
    is_shared: AtomicBool,
}

/// What there is to send a request over, if nothing was kept.
enum Begun {
    Own(Box<Link>),
    Shared(Berth),
    /// Somebody else has it already: what is kept is to be looked at again.
    Taken,
}

/// Where a request is sent.
enum Over {
    Fresh(Box<Link>),
    Kept(Box<Link>),
    Shared(Berth),
}

/// Gives those who wait for a connection word of its failure, should nobody be left to make it.
struct Maker {
    pool: Arc<Pool>,
    id: u64,
}

/// The head of a reply.
type Asked = Result<Response<Arriving>, Failed>;

/// Why there is none.
struct Failed {
    fault: UpstreamFault,
    /// The request, if the provider has not looked at it and another connection may be tried.
    unsent: Option<Request<Segments>>,
}

// === impl Transport ===

impl Transport {
    /// To `base`, whose host is required, showing what is to be shown. Makes no connection yet; `tasks` runs what connections need.
    pub(super) fn new(
        connector: Connector,
        (version, shown): (HttpVersion, Option<Shown>),
        base: Uri,
        tasks: Tracker,
    ) -> Option<Self> {
        let host = host_of(&base)?;
        let way = Way {
            connector,
            is_shared: AtomicBool::new(version == HttpVersion::Http2),
            version,
            base,
        };
        Some(Self {
            way: Arc::new(way),
            host,
            shown,
            pool: Pool::new(tasks.clone()),
            tasks,
        })
    }

    /// What the provider is shown with each request.
    pub(super) fn shown(&self) -> Option<&Shown> {
        self.shown.as_ref()
    }

    /// Sends a request, its URI absolute, and waits for the head of its reply.
    ///
    /// Dropping the future cancels the request: its connection is closed, or its HTTP/2 stream reset.
    pub(super) async fn ask(
        &self,
        mut request: Request<Segments>,
    ) -> Result<Response<Arriving>, UpstreamFault> {
        let uri = request.uri().clone();
        let mut turned_away = 0;
        loop {
            let over = match self.kept() {
                Some(over) => over,
                None => match Box::pin(self.begin()).await? {
                    Begun::Own(link) => Over::Fresh(link),
                    Begun::Shared(berth) => Over::Shared(berth),
                    Begun::Taken => continue,
                },
            };
            let is_fresh = matches!(over, Over::Fresh(_));
            let is_kept = match &over {
                Over::Fresh(_) => false,
                Over::Kept(_) => true,
                Over::Shared(berth) => berth.is_kept(),
            };
            let asked = match over {
                Over::Fresh(link) | Over::Kept(link) => {
                    self.ask_over(link, is_kept, request, &uri).await
                }
                Over::Shared(berth) => self.ask_shared(berth, request, &uri).await,
            };
            let Failed { fault, unsent } = match asked {
                Ok(reply) => return Ok(reply),
                Err(failed) => failed,
            };
            // A kept connection that is found closed is none any more, so that there is an end to these.
            if fault == UpstreamFault::Refused || !is_kept {
                turned_away += 1;
            }
            match unsent {
                Some(unsent) if !is_fresh && turned_away <= MAX_TURNED_AWAY => request = unsent,
                _ => return Err(fault),
            }
        }
    }

    /// What was kept of earlier requests.
    fn kept(&self) -> Option<Over> {
        let shared = self.pool.trunks.berth().map(Over::Shared);
        shared.or_else(|| self.pool.take().map(Over::Kept))
    }

    /// A new connection. It seldom happens and needs much room, so whoever awaits it does so in a box.
    async fn begin(&self) -> Result<Begun, UpstreamFault> {
        let mut stream = None;
        if !self.way.is_shared.load(Ordering::Acquire) {
            let fresh = self.way.connect().await?;
            if !self.way.speaks_http2(&fresh) {
                return link_over(fresh).await.map(Begun::Own);
            }
            stream = Some(fresh);
        }
        let given = match self.pool.trunks.find() {
            Found::Berth(berth) => return Ok(Begun::Shared(berth)),
            Found::Wait(given) => given,
            Found::Make(id, given) => {
                let maker = Maker {
                    pool: Arc::clone(&self.pool),
                    id,
                };
                // A task, since others wait for it too, whom it must not matter if this client leaves.
                let made = maker.make(Arc::clone(&self.way), stream, self.tasks.clone());
                drop(self.tasks.spawn(made));
                given
            }
        };
        let given: Given = given.await.unwrap_or(Err(UpstreamFault::Closed));
        Ok(given?.map_or(Begun::Taken, Begun::Shared))
    }

    /// Asks over a connection that carries nothing else; it was kept, or is fresh.
    async fn ask_over(
        &self,
        mut link: Box<Link>,
        is_kept: bool,
        mut request: Request<Segments>,
        uri: &Uri,
    ) -> Asked {
        *request.version_mut() = Version::HTTP_11;
        if let Some(path) = uri.path_and_query() {
            *request.uri_mut() = Uri::from(path.clone());
        }
        request.headers_mut().insert(HOST, self.host.clone());
        self.show(&mut request);
        let sent = Instant::now();
        let mut error = match link.ask(request).await {
            Ok(reply) => {
                return Ok(reply.map(|incoming| Arriving::over(link, &self.pool, incoming)));
            }
            Err(error) => error,
        };
        let unsent = error.take_message();
        let mut fault = UpstreamFault::of(&error.into_error());
        // A provider may close a kept connection just as a request is sent on it.
        let may_cross = is_kept && sent.elapsed() < KEPT_CLOSES_WITHIN;
        if fault == UpstreamFault::Closed && may_cross && link.ended_unheard() {
            fault = UpstreamFault::ClosedWhileKept;
        }
        Err(Failed { fault, unsent })
    }

    async fn ask_shared(&self, berth: Berth, mut request: Request<Segments>, uri: &Uri) -> Asked {
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = uri.clone();
        request.headers_mut().remove(HOST);
        let again = request.clone(); // the body is shared, not copied
        self.show(&mut request);
        let sent = Instant::now();
        let mut error = match berth.ask(request).await {
            Ok(reply) => return Ok(reply.map(|incoming| Arriving::shared(berth, incoming))),
            Err(error) => error,
        };
        let is_unsent = error.take_message().is_some();
        let fault = berth.fault(&error.into_error(), sent.elapsed());
        let is_unread = is_unsent || fault == UpstreamFault::Refused;
        let unsent = is_unread.then_some(again);
        Err(Failed { fault, unsent })
    }

    /// Here the credential enters.
    fn show(&self, request: &mut Request<Segments>) {
        if let Some(shown) = &self.shown {
            shown.put_into(request.headers_mut());
        }
    }
}

// === impl Way ===

impl Way {
    async fn connect(&self) -> Result<Stream, UpstreamFault> {
        self.connector.connect(self.base.clone()).await
    }

    /// Whether a fresh connection is one of HTTP/2. The next will be of the same kind.
    fn speaks_http2(&self, stream: &Stream) -> bool {
        let speaks = self.version == HttpVersion::Http2 || is_http2(stream);
        self.is_shared.store(speaks, Ordering::Release);
        speaks
    }
}

async fn link_over(stream: Stream) -> Result<Box<Link>, UpstreamFault> {
    let link = Link::over(stream).await;
    link.map_err(|error| UpstreamFault::of(&error))
}

// === impl Maker ===

impl Maker {
    /// Makes a connection, of a stream if there is one already, and gives it to those who wait.
    async fn make(self, way: Arc<Way>, stream: Option<Stream>, tasks: Tracker) {
        let made = Box::pin(self.trunk(&way, stream, &tasks)).await;
        self.pool.give(self.id, made);
    }

    /// None if the provider has gone back to HTTP/1.1.
    async fn trunk(
        &self,
        way: &Way,
        stream: Option<Stream>,
        tasks: &Tracker,
    ) -> Result<Option<Arc<Trunk>>, UpstreamFault> {
        let stream = match stream {
            Some(stream) => stream,
            None => way.connect().await?,
        };
        if !way.speaks_http2(&stream) {
            self.pool.put(link_over(stream).await?);
            return Ok(None);
        }
        way.connector
            .within(Trunk::over(stream, tasks))
            .await
            .map(Some)
    }
}

impl Drop for Maker {
    /// Of no effect unless the task was cut.
    fn drop(&mut self) {
        self.pool.give(self.id, Err(UpstreamFault::Closed));
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
    pub(super) fn of(error: &hyper::Error) -> Self {
        let detected = cause::<h2::Error>(error).is_some_and(h2::Error::is_library);
        if error.is_parse() || detected || cause::<rustls::Error>(error).is_some() {
            return Self::NotHttp;
        }
        match cause::<io::Error>(error).map(io::Error::kind) {
            Some(io::ErrorKind::InvalidData) => Self::NotHttp,
            _ => Self::Closed,
        }
    }
}

/// The first error of type `E` in the chain that starts at `error`.
pub(super) fn cause<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = match error.downcast_ref::<io::Error>() {
            // It passes over what it holds, and names the source of that as its own.
            Some(error) => error.get_ref().map(|held| held as &(dyn Error + 'static)),
            None => error.source(),
        };
    }
    None
}

/// How often a request that the provider turns away unread is sent again at once. A server that closes a connection after
/// a number of requests turns one away once; one that goes on has no room, and is given time.
const MAX_TURNED_AWAY: usize = 2;
