//! Requests towards destinations, over connections that were judged when they were made.
//!
//! ```text
//! a request ─▶ a place: a connection of HTTP/1.1 that is free, or one of the streams of HTTP/2 that a destination allows,
//!              on a connection that there is or that is made ─▶ the key of now is put in ─▶ it is sent
//! ```
//!
//! One for each sandbox and set of rules: what one may reach, another's connection does not bring it to. TLS is verified,
//! sessions are resumed, connections are kept. A request of HTTP/1.1 goes on as one, over a connection that it has for
//! itself; those of HTTP/2 share some, if the destination speaks it. A place is had before the request is made: all that
//! takes time is over then, so that a key that has been replaced meanwhile is not sent.

mod dial;
mod kept;
mod trunk;
mod trunks;

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use farrier_secrets::Scheme;
use farrier_serve::{BoxError, Tracker};
use http::{Request, Response, Version};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use crate::policy::Policy;
use crate::resolve::{DialError, Names};
use crate::target::Authority;

use dial::{Dialer, Link};
use kept::Kept;
pub(crate) use trunk::Berth;
use trunk::Trunk;
use trunks::{Found, Trunks};

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
pub(crate) struct Upstream(Arc<Ways>);

#[derive(Debug)]
struct Ways {
    dialer: Dialer,
    ways: Mutex<HashMap<Origin, Arc<Way>>>,
    reply: Duration,
    tasks: Tracker,
}

/// Scheme and machine.
type Origin = (Scheme, Authority);

/// The connections to one destination.
#[derive(Debug, Default)]
pub(crate) struct Way {
    /// Of HTTP/1.1, free.
    kept: Kept,
    trunks: Trunks,
}

/// Where one request may be sent at once.
#[derive(Debug)]
pub(crate) enum Place {
    /// On a connection of its own, which carried others before if it is `kept`.
    Alone {
        sender: http1::SendRequest<Outgoing>,
        way: Weak<Way>,
        kept: bool,
    },
    /// On one stream of several.
    Shared(Berth),
}

/// A request without a reply.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// None of it was sent, since a connection that was kept had ended: it may be sent once more.
    Unsent(Box<Request<Outgoing>>),
    Failed(UpstreamError),
}

/// Why there is no place for a request. Several may be told the same.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Unreached {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
}

/// Why there is no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UpstreamError {
    #[error(
        "expected fewer requests at once to one destination, got more than its connections carry"
    )]
    Busy,
    #[error("expected a reply, got the end of the connection")]
    Closed,
    #[error("expected a reply within {0:?}, got none")]
    Silent(Duration),
    #[error("expected a certificate that proves the destination, got {0}")]
    Tls(String),
}

/// What upstreams are made of, whatever the rules.
#[derive(Clone, Debug)]
pub(crate) struct Means {
    pub(crate) names: Names,
    pub(crate) trust: Trust,
    pub(crate) tasks: Tracker,
}

/// Destinations that there are connections to.
const MAX_WAYS: usize = 1024;
/// A connection that nobody used for between one and two of these is closed.
const IDLE: Duration = Duration::from_secs(45);

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
    pub(crate) fn new(policy: &Arc<Policy>, means: &Means, limits: &crate::Limits) -> Self {
        Self(Arc::new(Ways {
            dialer: Dialer {
                policy: Arc::clone(policy),
                names: means.names.clone(),
                trust: means.trust.clone(),
                connect: limits.connect,
                handshake: limits.handshake,
            },
            ways: Mutex::default(),
            reply: limits.reply,
            tasks: means.tasks.clone(),
        }))
    }

    /// A place for a request that came in this version.
    pub(crate) async fn place(
        &self,
        (scheme, to): (Scheme, &Authority),
        version: Version,
    ) -> Result<Place, Unreached> {
        let way = self.0.way(scheme, to);
        let shares = version == Version::HTTP_2 && scheme == Scheme::Https;
        if shares && !way.trunks.are_refused() {
            let found = self.0.berth(&way, to).await?;
            if let Some(berth) = found {
                return Ok(Place::Shared(berth));
            } // else it speaks HTTP/1.1 alone
        }
        if let Some(sender) = way.kept.take() {
            let way = Arc::downgrade(&way);
            return Ok(Place::Alone {
                sender,
                way,
                kept: true,
            });
        }
        let link = self.0.dialer.dial(scheme, to, Version::HTTP_11).await?;
        let sender = self.0.alone(link).await?;
        Ok(Place::Alone {
            sender,
            way: Arc::downgrade(&way),
            kept: false,
        })
    }

    /// Sends a request, its URI absolute, and waits for the head of its reply. What is returned with that is to be held
    /// as long as the reply.
    pub(crate) async fn send(
        &self,
        place: Place,
        request: Request<Outgoing>,
    ) -> Result<(Response<Incoming>, Option<Berth>), Unanswered> {
        let within = self.0.reply;
        let replied = async {
            match place {
                Place::Alone { sender, way, kept } => {
                    let replied = self.0.ask_alone(sender, way, request).await;
                    replied
                        .map(|reply| (reply, None))
                        .map_err(|error| unanswered(error, kept))
                }
                Place::Shared(berth) => match berth.ask(request).await {
                    Ok(reply) => Ok((reply, Some(berth))),
                    Err(error) => Err(unanswered(error, berth.is_kept())),
                },
            }
        };
        let silent = |_elapsed| Unanswered::Failed(UpstreamError::Silent(within));
        tokio::time::timeout(within, replied)
            .await
            .map_err(silent)?
    }
}

// === impl Ways ===

impl Ways {
    fn way(self: &Arc<Self>, scheme: Scheme, to: &Authority) -> Arc<Way> {
        let mut ways = self.ways.lock().unwrap_or_else(PoisonError::into_inner);
        let origin = (scheme, to.clone());
        if let Some(way) = ways.get(&origin) {
            return Arc::clone(way);
        }
        if ways.is_empty() {
            drop(self.tasks.spawn(sweep(Arc::downgrade(self))));
        }
        if ways.len() >= MAX_WAYS {
            ways.clear(); // what is in use goes on; what is kept is closed
        }
        Arc::clone(ways.entry(origin).or_default())
    }

    /// A stream on a connection of HTTP/2; none if the destination does not speak that.
    async fn berth(
        self: &Arc<Self>,
        way: &Arc<Way>,
        to: &Authority,
    ) -> Result<Option<Berth>, Unreached> {
        let waited = async {
            loop {
                let freed = way.trunks.free().notified_owned(); // rung from now on
                let given = match way.trunks.find() {
                    Found::Berth(berth) => return Ok(Some(berth)),
                    Found::Full => {
                        freed.await;
                        continue;
                    }
                    Found::Make(id, given) => {
                        // Others wait for it too, whatever becomes of us.
                        let making = Arc::clone(self).make((id, Arc::clone(way)), to.clone());
                        drop(self.tasks.spawn(making));
                        given
                    }
                    Found::Wait(given) => given,
                };
                match given.await {
                    Ok(Ok(Some(berth))) => return Ok(Some(berth)),
                    Ok(Ok(None)) if way.trunks.are_refused() => return Ok(None),
                    Ok(Ok(None)) => {}
                    Ok(Err(unreached)) => return Err(unreached),
                    Err(_) => return Err(UpstreamError::Closed.into()),
                }
            }
        };
        let busy = |_elapsed| Unreached::from(UpstreamError::Busy);
        tokio::time::timeout(self.reply, waited)
            .await
            .map_err(busy)?
    }

    async fn make(self: Arc<Self>, (id, way): (u64, Arc<Way>), to: Authority) {
        let made = async {
            let link = self
                .dialer
                .dial(Scheme::Https, &to, Version::HTTP_2)
                .await?;
            if !link.speaks_http2() {
                way.trunks.refuse();
                let sender = self.alone(link).await?;
                way.kept.put(sender);
                return Ok(None);
            }
            let within = self.dialer.handshake;
            let trunk = Trunk::over(link, &self.tasks, way.trunks.free());
            let trunk = tokio::time::timeout(within, trunk).await;
            let silent = |_elapsed| DialError::TimedOut { to, within };
            Ok::<_, Unreached>(Some(trunk.map_err(silent)??))
        };
        let made = made.await;
        way.trunks.give(id, made);
    }

    /// Begins HTTP/1.1 on a fresh connection.
    async fn alone(&self, link: Link) -> Result<http1::SendRequest<Outgoing>, Unreached> {
        let shaken = http1::handshake(TokioIo::new(link)).await;
        let (mut sender, connection) = shaken.map_err(|error| cause_of(&error))?;
        drop(self.tasks.spawn(connection.with_upgrades()));
        sender.ready().await.map_err(|error| cause_of(&error))?;
        Ok(sender)
    }

    async fn ask_alone(
        &self,
        mut sender: http1::SendRequest<Outgoing>,
        way: Weak<Way>,
        mut request: Request<Outgoing>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Outgoing>>> {
        relative(&mut request);
        let reply = sender.try_send_request(request).await?;
        drop(self.tasks.spawn(async move {
            // Once the reply is at its end, the connection is free. An upgraded one never is.
            if sender.ready().await.is_ok()
                && let Some(way) = way.upgrade()
            {
                way.kept.put(sender);
            }
        }));
        Ok(reply)
    }
}

/// A request as it stands on a connection of HTTP/1.1: the machine in a field, and the rest as its target.
fn relative(request: &mut Request<Outgoing>) {
    let authority = request.uri().authority().map(|name| name.as_str());
    let host = authority.and_then(|name| http::HeaderValue::from_str(name).ok());
    if let Some(host) = host {
        request.headers_mut().insert(http::header::HOST, host);
    }
    let target = request.uri().path_and_query().cloned();
    *request.uri_mut() = target.map_or_else(http::Uri::default, http::Uri::from);
}

/// Closes what nobody used for a while, as long as there is something.
async fn sweep(ways: Weak<Ways>) {
    loop {
        tokio::time::sleep(IDLE).await;
        let Some(ways) = ways.upgrade() else { return };
        let mut ways = ways.ways.lock().unwrap_or_else(PoisonError::into_inner);
        ways.retain(|_, way| {
            let left = way.kept.sweep() | way.trunks.sweep();
            left || Arc::strong_count(way) > 1
        });
        if ways.is_empty() {
            return; // who comes next begins another
        }
    }
}

fn unanswered(mut error: TrySendError<Request<Outgoing>>, kept: bool) -> Unanswered {
    match error.take_message() {
        Some(unsent) if kept => Unanswered::Unsent(Box::new(unsent)),
        _ => Unanswered::Failed(cause_of(error.error())),
    }
}

/// What TLS said if that is in the chain, else that the connection ended.
fn cause_of(error: &(dyn Error + 'static)) -> UpstreamError {
    match find::<rustls::Error>(error) {
        Some(error) => UpstreamError::Tls(error.to_string()),
        None => UpstreamError::Closed,
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
            Self::Busy => "upstream_busy",
            Self::Closed => "upstream_closed",
            Self::Silent(_) => "upstream_timeout",
            Self::Tls(_) => "upstream_certificate",
        }
    }
}
