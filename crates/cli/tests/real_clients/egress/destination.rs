//! A server behind TLS, of either version of HTTP, that remembers what it was asked and said.

use std::convert::Infallible;
use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Condvar, Mutex};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, Version};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use sha1_smol::Sha1;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::process::PATIENCE;

/// The only name that every machine resolves to itself.
pub(crate) const HOST: &str = "localhost";

/// A running server. Stopped when dropped.
#[derive(Debug)]
pub(crate) struct Destination {
    pub(crate) port: u16,
    /// The certificate authority to believe.
    pub(crate) authority: String,
    memory: Arc<Memory>,
    _runtime: Runtime,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) version: Version,
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// What a request is answered.
pub(crate) enum Answer {
    /// A WebSocket, on which these texts are said.
    Talk(Vec<String>),
    Whole(Response<Bytes>),
}

#[derive(Debug, Default)]
struct Memory {
    seen: Mutex<Vec<Seen>>,
    /// Texts that clients said over WebSockets.
    heard: Mutex<Vec<String>>,
    changed: Condvar,
}

type Answers = Arc<dyn Fn(&Seen) -> Answer + Send + Sync>;
type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// More than any client here sends.
const MAX_BODY: usize = 4 * 1024 * 1024;
/// RFC 6455 §1.3.
const WEBSOCKET_GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

// === impl Destination ===

impl Destination {
    /// Listens, and answers requests as `answers` has it; it is asked for the port first.
    pub(crate) fn start<A>(answers: impl FnOnce(u16) -> A) -> Self
    where
        A: Fn(&Seen) -> Answer + Send + Sync + 'static,
    {
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let listener = listener.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (tls, authority) = certificates().unwrap();
        let memory = Arc::<Memory>::default();
        let served = Served {
            answers: Arc::new(answers(port)),
            memory: Arc::clone(&memory),
        };
        // Ends with the runtime.
        drop(runtime.spawn(accept(listener, tls, served)));
        Self {
            port,
            authority,
            memory,
            _runtime: runtime,
        }
    }

    /// A path here, as a URL.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://{HOST}:{}{path}", self.port)
    }

    /// The requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.memory.seen.lock().unwrap().clone()
    }

    /// What clients said over WebSockets, once they said so much.
    pub(crate) fn heard(&self, count: usize) -> Vec<String> {
        let heard = self.memory.heard.lock().unwrap();
        let waited = self
            .memory
            .changed
            .wait_timeout_while(heard, PATIENCE, |heard| heard.len() < count);
        waited.unwrap().0.clone()
    }
}

// === impl Seen ===

impl Seen {
    /// A header, or nothing.
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap())
    }
}

impl Answer {
    pub(crate) fn json(status: u16, text: String) -> Self {
        let response = Response::builder()
            .status(status)
            .header("content-type", "application/json");
        Self::Whole(response.body(Bytes::from(text)).unwrap())
    }
}

// === serving ===

#[derive(Clone)]
struct Served {
    answers: Answers,
    memory: Arc<Memory>,
}

fn certificates() -> Result<(TlsAcceptor, String), AnyError> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(DnType::CommonName, "the destination of a test");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let leaf = CertificateParams::new(vec![HOST.to_owned()])?.signed_by(&key, &authority)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let crypto = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(crypto)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((TlsAcceptor::from(Arc::new(config)), authority.pem()))
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, served: Served) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let (tls, served) = (tls.clone(), served.clone());
        connections.spawn(async move {
            // Whoever it was has noticed, and says so in its own words.
            let _broken = served.connection(stream, &tls).await;
        });
    }
}

impl Served {
    async fn connection(self, stream: TcpStream, tls: &TlsAcceptor) -> Result<(), AnyError> {
        let stream = tls.accept(stream).await?;
        let service = service_fn(move |request| {
            let served = self.clone();
            async move { Ok::<_, Infallible>(served.answer(request).await) }
        });
        let server = auto::Builder::new(TokioExecutor::new());
        server
            .serve_connection_with_upgrades(TokioIo::new(stream), service)
            .await
    }

    async fn answer(self, mut request: Request<Incoming>) -> Response<Full<Bytes>> {
        let upgrade = hyper::upgrade::on(&mut request);
        let (head, body) = request.into_parts();
        #[expect(clippy::disallowed_methods, reason = "bounded by what is around it")]
        let body = Limited::new(body, MAX_BODY).collect().await.unwrap();
        let seen = Seen {
            version: head.version,
            method: head.method.to_string(),
            target: head.uri.path_and_query().unwrap().to_string(),
            headers: head.headers,
            body: body.to_bytes(),
        };
        self.memory.seen.lock().unwrap().push(seen.clone());
        let answers = Arc::clone(&self.answers);
        let key = seen.header("sec-websocket-key").to_owned();
        let answer = tokio::task::spawn_blocking(move || answers(&seen)).await;
        match answer.unwrap() {
            Answer::Whole(response) => response.map(Full::new),
            Answer::Talk(texts) => {
                // A client that leaves ends it.
                let talk = async move {
                    let stream = TokioIo::new(upgrade.await?);
                    talk(stream, texts, &self.memory).await?;
                    Ok::<(), AnyError>(())
                };
                drop(tokio::runtime::Handle::current().spawn(talk));
                accepted(&key)
            }
        }
    }
}

fn accepted(key: &str) -> Response<Full<Bytes>> {
    let digest = Sha1::from([key, WEBSOCKET_GUID].concat()).digest().bytes();
    let response = Response::builder()
        .status(101)
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-accept", BASE64_STANDARD.encode(digest));
    response.body(Full::default()).unwrap()
}

// === WebSocket frames, as a server has them (RFC 6455 §5.2) ===

const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

async fn talk(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    texts: Vec<String>,
    memory: &Memory,
) -> io::Result<()> {
    for text in &texts {
        send(&mut stream, TEXT, text.as_bytes()).await?;
    }
    loop {
        let (kind, payload) = receive(&mut stream).await?;
        match kind {
            TEXT => {
                let text = String::from_utf8(payload).map_err(io::Error::other)?;
                memory.heard.lock().unwrap().push(text);
                memory.changed.notify_all();
            }
            PING => send(&mut stream, PONG, &payload).await?,
            CLOSE => return send(&mut stream, CLOSE, &payload).await,
            _ => {}
        }
    }
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), kind: u8, payload: &[u8]) -> io::Result<()> {
    let mut frame = vec![0x80 | kind];
    match u8::try_from(payload.len()) {
        Ok(length @ ..126) => frame.push(length),
        _ => {
            let length = u16::try_from(payload.len()).map_err(io::Error::other)?;
            frame.push(126);
            frame.extend(length.to_be_bytes());
        }
    }
    frame.extend(payload);
    stream.write_all(&frame).await?;
    stream.flush().await
}

/// One frame. Messages of clients are short, and so are in one.
async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(u8, Vec<u8>)> {
    let kind = stream.read_u8().await? & 0x0f;
    let length = match stream.read_u8().await? & 0x7f {
        126 => stream.read_u16().await?,
        127 => return Err(io::Error::other("expected a short frame")),
        length => length.into(),
    };
    let mut mask = [0; 4];
    stream.read_exact(&mut mask).await?;
    let mut payload = vec![0; length.into()];
    stream.read_exact(&mut payload).await?;
    for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
    Ok((kind, payload))
}
