//! Connections of a sandbox, each from its first byte to its last.
//!
//! ```text
//! accept ─▶ HTTP/1.1 to the proxy ──▶ absolute URL: exchange
//!                └─ CONNECT ─▶ authorize ─▶ nothing to read: dial, splice
//!                                      └──▶ something to read: TLS ended here ─▶ HTTP/2 or HTTP/1.1 ─▶ exchange
//!                                                                       └─ a name of ours: its service
//! ```
//!
//! How connections come that do not know of a proxy is [`capture`]'s.

mod capture;

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use farrier_secrets::Scheme;
use farrier_serve::Stalling;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::debug;

use crate::ask::Via;
use crate::audit::Verdict;
use crate::body::ReplyBody;
use crate::exchange::{Exchanged, Upgraded};
use crate::head::Fault;
use crate::prefixed::Prefixed;
use crate::record::Record;
use crate::rescue::{Cause, rescue};
use crate::resolve::dial;
use crate::sandbox::{Sandbox, Standing};
use crate::screen::{Faults, REFUSED, Screen};
use crate::target::{Authority, Host};
use crate::tunnel::{End, splice};

/// What a connection becomes when it is no longer HTTP to us.
#[derive(Debug)]
enum Next {
    /// A tunnel that is looked into.
    Inspect(Authority),
    Splice(Authority, TcpStream, Record),
    WebSocket(Box<Upgraded>, Record),
}

/// How requests of one connection come, and where its next use is left.
#[derive(Clone, Debug)]
struct Passage {
    via: Via,
    faults: Faults,
    next: Arc<Mutex<Option<Next>>>,
}

/// An open stream and what it is for.
type Freed<S> = (Prefixed<S>, Next);
type Service = Pin<Box<dyn Future<Output = Result<Response<ReplyBody>, Infallible>> + Send>>;

/// For a stream's own last words.
const CLOSING: Duration = Duration::from_secs(1);
/// The first byte of TLS (RFC 8446 §5.1).
const TLS_HANDSHAKE: u8 = 0x16;

impl Sandbox {
    /// One connection, to the proxy or to somebody else's address.
    pub(crate) async fn accepted(self: Arc<Self>, stream: TcpStream, is_captured: bool) {
        if self.shared.audit.turns_away() {
            return; // nothing could be recorded of it
        }
        if is_captured {
            Box::pin(self.captured(stream)).await;
        } else {
            Box::pin(self.connection(stream)).await;
        }
    }

    /// One connection to the proxy.
    async fn connection(self: Arc<Self>, stream: TcpStream) {
        let stream = Stalling::new(stream, self.limits.listener.write_stall);
        let Some((stream, next)) = Box::pin(self.http1(stream, Via::Proxy)).await else {
            return;
        };
        match next {
            Next::Inspect(to) => Box::pin(self.inspect(stream, to, None)).await,
            Next::Splice(to, upstream, record) => self.splice(stream, (to, upstream), record).await,
            Next::WebSocket(upgraded, record) => {
                Box::pin(self.websocket(stream, *upgraded, record)).await;
            }
        }
    }

    /// A tunnel whose requests are judged, or that may hold placeholders, or is for a name of ours. One that is `denied`
    /// already is opened so that its requests are told so.
    async fn inspect<S>(
        self: &Arc<Self>,
        mut stream: Prefixed<S>,
        to: Authority,
        denied: Option<Cause>,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let encrypted = match timeout(self.limits.handshake, stream.peek()).await {
            Ok(Ok([first, ..])) => *first == TLS_HANDSHAKE,
            Ok(Ok([]) | Err(_)) => return,
            Err(_) => {
                return self.ended_early(&to, denied.unwrap_or_else(|| Fault::TooSlow.into()));
            }
        };
        if !encrypted {
            let via = Via::Tunnel {
                scheme: Scheme::Http,
                to,
            };
            let freed = Box::pin(self.http1(stream, via)).await;
            return self.upgraded(freed).await;
        }
        let stream = match self.shake_hands(stream, &to).await {
            Ok(stream) => stream,
            Err(cause) => return self.ended_early(&to, denied.unwrap_or(cause)),
        };
        if let Some(service) = self.local.at(&to) {
            let record = self.record_of_local(&to);
            return service.serve(stream, &record.moved).await;
        }
        let via = Via::Tunnel {
            scheme: Scheme::Https,
            to,
        };
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            return self.http2(stream, via).await;
        }
        let freed = Box::pin(self.http1(stream, via)).await;
        self.upgraded(freed).await;
    }

    async fn upgraded<S>(self: &Arc<Self>, freed: Option<Freed<S>>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        if let Some((stream, Next::WebSocket(upgraded, record))) = freed {
            Box::pin(self.websocket(stream, *upgraded, record)).await;
        }
    }

    /// Ends TLS in the name of the tunnel's destination, for clients that want that one.
    async fn shake_hands<S>(&self, stream: S, to: &Authority) -> Result<TlsStream<S>, Cause>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let shaken = async {
            let start = LazyConfigAcceptor::new(Acceptor::default(), stream)
                .await
                .map_err(|_not_tls| Fault::NotHttp)?;
            let asked = start.client_hello().server_name().map(Host::parse);
            if asked.is_some_and(|asked| asked.as_ref() != Ok(&to.host)) {
                return Err(Cause::Head(Fault::HostMismatch));
            }
            let config = self.shared.authority.server_config(&to.host)?;
            let stream = start.into_stream(config).await;
            stream.map_err(|error| {
                debug!(%error, %to, "a client broke off the handshake; it may not trust our authority");
                Cause::Head(Fault::NotHttp)
            })
        };
        match timeout(self.limits.handshake, shaken).await {
            Ok(shaken) => shaken,
            Err(_) => Err(Fault::TooSlow.into()),
        }
    }

    /// A tunnel that came to nothing before its first request.
    fn ended_early(&self, to: &Authority, cause: Cause) {
        let mut record = self.record("tunnel");
        record.line.to = to.to_string();
        record.refused(&cause, &rescue(&cause));
        record.line.status = None; // nobody was told
    }

    /// Serves HTTP/1.1 until the connection ends, or becomes something else.
    async fn http1<S>(self: &Arc<Self>, stream: S, via: Via) -> Option<Freed<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let screen = Screen::new(stream, self.limits.head);
        let passage = Passage {
            via,
            faults: screen.faults(),
            next: Arc::default(),
        };
        let next = Arc::clone(&passage.next);
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.listener.header_read)
            .max_buf_size(
                self.limits
                    .head
                    .max_bytes
                    .max(farrier_serve::Limits::MIN_HEADER_BYTES),
            )
            .max_headers(self.limits.head.max_fields);
        let mut connection =
            builder.serve_connection(TokioIo::new(screen), service_fn(self.service(passage)));
        let mut draining = pin!(self.tasks.draining());
        let mut drains = false;
        let ended = loop {
            tokio::select! {
                biased;
                ended = std::future::poll_fn(|cx| connection.poll_without_shutdown(cx)) => break ended,
                () = draining.as_mut(), if !drains => {
                    drains = true;
                    Pin::new(&mut connection).graceful_shutdown();
                }
            }
        };
        if let Err(error) = ended {
            debug!(%error, sandbox = self.name, "connection ended early");
            return None;
        }
        let parts = connection.into_parts();
        let (mut stream, held) = parts.io.into_inner().into_parts();
        let next = next.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(next) = next else {
            let _closed = timeout(CLOSING, stream.shutdown()).await;
            return None;
        };
        let mut first = BytesMut::from(&parts.read_buf[..]);
        first.extend_from_slice(&held);
        Some((Prefixed::new(first.freeze(), stream), next))
    }

    async fn http2<S>(self: &Arc<Self>, stream: S, via: Via)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let passage = Passage {
            via,
            faults: Faults::default(),
            next: Arc::default(),
        };
        let limits = &self.limits;
        let mut builder = http2::Builder::new(self.tasks.clone());
        builder
            .timer(TokioTimer::new())
            .max_header_list_size(u32::try_from(limits.head.max_bytes).unwrap_or(u32::MAX))
            .max_concurrent_streams(limits.listener.max_streams)
            .keep_alive_interval(limits.listener.header_read)
            .keep_alive_timeout(limits.listener.header_read)
            .adaptive_window(true);
        let connection =
            builder.serve_connection(TokioIo::new(stream), service_fn(self.service(passage)));
        let mut connection = pin!(connection);
        let mut draining = pin!(self.tasks.draining());
        let mut drains = false;
        loop {
            tokio::select! {
                biased;
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        debug!(%error, sandbox = self.name, "connection ended early");
                    }
                    return;
                }
                () = draining.as_mut(), if !drains => {
                    drains = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }

    fn service(
        self: &Arc<Self>,
        passage: Passage,
    ) -> impl Fn(Request<Incoming>) -> Service + use<> {
        let sandbox = Arc::clone(self);
        move |request| {
            let (sandbox, passage) = (Arc::clone(&sandbox), passage.clone());
            Box::pin(async move { Ok(sandbox.answer(request, &passage).await) })
        }
    }

    /// One request. Whatever fails on the way becomes an answer here.
    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        passage: &Passage,
    ) -> Response<ReplyBody> {
        let connects = request.method() == Method::CONNECT && passage.via == Via::Proxy;
        let mut record = self.record(if connects { "tunnel" } else { "request" });
        let one = request.version() < http::Version::HTTP_2;
        let outcome = if request.method().as_str() == REFUSED {
            Err(passage.faults.take().unwrap_or(Fault::NotHttp).into())
        } else if self.shared.audit.turns_away() {
            Err(Cause::Unrecorded)
        } else if connects {
            self.open(&request, &mut record).await.map(Outcome::Tunnel)
        } else {
            self.exchange(&passage.via, request, &mut record)
                .await
                .map(|exchanged| Outcome::Exchanged(Box::new(exchanged)))
        };
        match outcome {
            Ok(Outcome::Exchanged(exchanged)) => match *exchanged {
                Exchanged::Reply(reply, ask, kept) => self.relayed(reply, (ask, kept), record),
                Exchanged::Upgraded(mut upgraded) => {
                    let mut response = own(StatusCode::SWITCHING_PROTOCOLS);
                    *response.headers_mut() = std::mem::take(&mut upgraded.reply);
                    passage.leave(Next::WebSocket(Box::new(upgraded), record));
                    response
                }
            },
            Ok(Outcome::Tunnel((to, Some(upstream)))) => {
                passage.leave(Next::Splice(to, upstream, record));
                own(StatusCode::OK)
            }
            Ok(Outcome::Tunnel((to, None))) => {
                passage.leave(Next::Inspect(to));
                record.line.code = Some("inspected".to_owned());
                own(StatusCode::OK)
            }
            Err(cause) => {
                let answer = rescue(&cause);
                record.refused(&cause, &answer);
                let response = if one {
                    answer.last_response()
                } else {
                    answer.response()
                };
                response.map(|body| ReplyBody::Own(Full::new(body)))
            }
        }
    }

    /// Opens a tunnel: connected, if nobody looks into it.
    async fn open(
        &self,
        request: &Request<Incoming>,
        record: &mut Record,
    ) -> Result<(Authority, Option<TcpStream>), Cause> {
        let authority = request.uri().authority().map(http::uri::Authority::as_str);
        let to = Authority::parse(authority.unwrap_or_default(), None)?;
        // Some clients look names up before they ask for a tunnel.
        let to = match to.host {
            Host::Address(IpAddr::V4(four)) => self.stand_ins.meant((four, to.port).into()),
            Host::Address(IpAddr::V6(_)) | Host::Name(_) => to,
        };
        let upstream = self.reach(&to, record).await?;
        Ok((to, upstream))
    }

    /// Connects to a destination, unless what is said to it is looked into.
    async fn reach(&self, to: &Authority, record: &mut Record) -> Result<Option<TcpStream>, Cause> {
        record.line.to = to.to_string();
        if self.local.at(to).is_some() {
            record.line.verdict = Verdict::Allowed;
            return Ok(None);
        }
        let ruled = self.ruled();
        let reach = ruled.policy.connect(to)?;
        record.line.rule = Some(reach.by.to_string());
        record.line.verdict = Verdict::Allowed;
        if self.inspects(&ruled, to, reach.inspect) {
            return Ok(None);
        }
        let named = ruled.policy.named(to);
        let upstream = dial(to, &named, &self.shared.names, self.limits.connect).await?;
        Ok(Some(upstream))
    }

    /// A tunnel that nobody looks into.
    async fn splice<S>(
        self: &Arc<Self>,
        stream: S,
        (to, upstream): (Authority, TcpStream),
        mut record: Record,
    ) where
        S: AsyncRead + AsyncWrite,
    {
        let Ok(peer) = upstream.peer_addr() else {
            return record.broke("upstream_closed");
        };
        let standing = Standing::of_tunnel(self, to, peer.ip());
        let moved = Arc::clone(&record.moved);
        tokio::select! {
            end = splice(stream, upstream, &moved, self.limits.idle) => match end {
                End::Complete => {}
                End::Failed => record.broke("tunnel_broken"),
                End::Idle => record.broke("tunnel_idle"),
            },
            () = standing.lapsed() => record.broke("policy_changed"),
        }
    }

    fn record_of_local(&self, to: &Authority) -> Record {
        let mut record = self.record("local");
        record.line.to = to.to_string();
        record.line.verdict = Verdict::Allowed;
        record
    }

    pub(crate) fn record(&self, kind: &str) -> Record {
        Record::start(&self.shared.audit, &self.name, kind)
    }
}

/// What a request of either kind came to.
enum Outcome {
    Exchanged(Box<Exchanged>),
    Tunnel((Authority, Option<TcpStream>)),
}

impl Passage {
    fn leave(&self, next: Next) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(next);
    }
}

/// An answer without a body.
fn own(status: StatusCode) -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody::Own(Full::new(Bytes::new())));
    *response.status_mut() = status;
    response
}
