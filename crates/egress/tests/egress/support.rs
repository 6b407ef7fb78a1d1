//! A destination behind TLS, a proxy in front of it, and a client between them.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use bytes::Bytes;
use farrier_egress::audit::{Audit, Bounds, Line};
use farrier_egress::policy::Policy;
use farrier_egress::{
    CertificateAuthority, Config, Inside, Limits, Names, Proxy, Reloader, Rules, Shared, Trust,
};
use farrier_secrets::{Credentials, Profile, ProviderName, ProviderSpec, SecretRef};
use farrier_serve::Tracker;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

pub(crate) const CANARY: &str = "sk-canary-7f3a-secret";
pub(crate) const ROTATED: &str = "sk-canary-9b1c-rotated";
/// The name of the destination; every other name is this machine too.
pub(crate) const HOST: &str = "api.example.com";
pub(crate) const PLACEHOLDER: &str = "openshell:resolve:env:OPENAI_API_KEY";

/// A request as the destination saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) authority: String,
    pub(crate) target: String,
    pub(crate) version: http::Version,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// A destination that remembers what it was asked, and answers `hello`; `/endless` never ends its answer.
pub(crate) struct Destination {
    pub(crate) port: u16,
    pub(crate) ca_pem: String,
    /// Whether connections are answered; those that come meanwhile wait.
    pub(crate) open: watch::Sender<bool>,
    /// Connections that were accepted.
    pub(crate) accepted: Arc<AtomicUsize>,
    seen: Arc<Mutex<Vec<Seen>>>,
    tasks: Tracker,
}

/// Streams that the destination allows on one connection.
pub(crate) const MAX_STREAMS: u32 = 10;

/// One sandbox behind its proxy.
pub(crate) struct Bench {
    pub(crate) destination: Destination,
    pub(crate) proxy: SocketAddr,
    pub(crate) reloader: Reloader,
    pub(crate) credentials: Arc<ArcSwap<Credentials>>,
    pub(crate) directory: TempDir,
    tasks: Tracker,
}

/// What differs between benches.
pub(crate) struct Setting {
    /// The policy, `PORT` in it standing for the destination's.
    pub(crate) policy: &'static str,
    pub(crate) attached: bool,
    pub(crate) limits: Limits,
    /// What leads to the proxy from within, by the destination's port.
    pub(crate) inside: fn(u16) -> Inside,
    pub(crate) audit: Bounds,
}

/// Everything to the destination, unjudged but for its address.
pub(crate) const OPEN: &str = r#"
version: 1
network_policies:
  all:
    endpoints:
      - { host: api.example.com, port: PORT, allowed_ips: [127.0.0.0/8] }
"#;

impl Default for Setting {
    fn default() -> Self {
        Self {
            policy: OPEN,
            attached: true,
            limits: Limits::default(),
            inside: |_| Inside::default(),
            audit: Bounds::default(),
        }
    }
}

impl Destination {
    pub(crate) async fn start() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key).unwrap();
        let issuer = Issuer::new(params, key);
        let leaf_key = KeyPair::generate().unwrap();
        let names = vec![HOST.to_owned(), "other.example.com".to_owned()];
        let leaf = CertificateParams::new(names)
            .unwrap()
            .signed_by(&leaf_key, &issuer)
            .unwrap();
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(leaf_key.serialize_der()));
        let mut tls = ServerConfig::builder_with_provider(crypto())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], der)
            .unwrap();
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let destination = Self {
            port: listener.local_addr().unwrap().port(),
            ca_pem: ca.pem(),
            open: watch::Sender::new(true),
            accepted: Arc::default(),
            seen: Arc::default(),
            tasks: Tracker::new(),
        };
        let (seen, tasks) = (Arc::clone(&destination.seen), destination.tasks.clone());
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let (open, accepted) = (
            destination.open.subscribe(),
            Arc::clone(&destination.accepted),
        );
        drop(destination.tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::Relaxed);
                let mut open = open.clone();
                let served = serve(acceptor.clone(), stream, Arc::clone(&seen), tasks.clone());
                drop(tasks.spawn(async move {
                    open.wait_for(|open| *open).await.unwrap();
                    served.await;
                }));
            }
        }));
        destination
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Destination {
    fn drop(&mut self) {
        self.tasks.cut();
    }
}

/// TLS or not, as the client begins.
async fn serve(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    seen: Arc<Mutex<Vec<Seen>>>,
    tasks: Tracker,
) {
    let mut first = [0];
    if stream
        .peek(&mut first)
        .await
        .is_ok_and(|length| length == 1)
        && first[0] == 0x16
    {
        let Ok(stream) = acceptor.accept(stream).await else {
            return;
        };
        answer(stream, seen, tasks).await;
    } else {
        answer(stream, seen, tasks).await;
    }
}

async fn answer<S>(stream: S, seen: Arc<Mutex<Vec<Seen>>>, tasks: Tracker)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let (seen, tasks) = (Arc::clone(&seen), tasks.clone());
        async move { Ok::<_, Infallible>(remember(request, &seen, &tasks).await) }
    });
    let mut server = auto::Builder::new(Tracker::new());
    server.http2().max_concurrent_streams(MAX_STREAMS);
    let _ended = server
        .serve_connection_with_upgrades(TokioIo::new(stream), service)
        .await;
}

type Body = http_body_util::combinators::BoxBody<Bytes, Infallible>;

async fn remember(
    mut request: Request<Incoming>,
    seen: &Mutex<Vec<Seen>>,
    tasks: &Tracker,
) -> Response<Body> {
    if request.headers().contains_key("upgrade") {
        let upgrade = hyper::upgrade::on(&mut request);
        note(seen, request.into_parts().0, Bytes::new());
        drop(tasks.spawn(async move {
            // All that is said comes back.
            let mut stream = TokioIo::new(upgrade.await.unwrap());
            let mut bytes = [0; 1024];
            while let Ok(length @ 1..) = stream.read(&mut bytes).await {
                if stream.write_all(&bytes[..length]).await.is_err() {
                    break;
                }
            }
        }));
        let response = Response::builder()
            .status(101)
            .header("connection", "upgrade")
            .header("upgrade", "websocket");
        return response.body(Full::default().boxed()).unwrap();
    }
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    #[expect(clippy::disallowed_methods, reason = "bounded by what is around it")]
    let body = Limited::new(body, 1024 * 1024)
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    if path == "/v1/echo" {
        let said = format!("{:?} {}", head.headers, String::from_utf8_lossy(&body));
        let echo = Response::builder()
            .header("content-type", "application/json")
            .header("x-echo", head.headers["authorization"].clone())
            .header("content-length", said.len());
        note(seen, head, body);
        return echo.body(Full::from(said).boxed()).unwrap();
    }
    note(seen, head, body);
    if path == "/v1/last" {
        let last = Response::builder()
            .header("connection", "close")
            .header("content-type", "application/octet-stream");
        let body = Full::new(Bytes::from_static(b"hello"));
        return last.body(body.boxed()).unwrap();
    }
    if path == "/v1/trailers" {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        let body = Full::new(Bytes::from_static(b"hello"));
        return Response::new(body.with_trailers(async { Some(Ok(trailers)) }).boxed());
    }
    if path == "/endless" {
        let first = futures_body(Bytes::from_static(b"first"));
        return Response::new(first);
    }
    // Of a type that is not looked through, so that its length stays as it is.
    let hello = Response::builder().header("content-type", "application/octet-stream");
    let body = Full::new(Bytes::from_static(b"hello"));
    hello.body(body.boxed()).unwrap()
}

/// A body of one frame that does not end.
fn futures_body(first: Bytes) -> Body {
    struct Endless(Option<Bytes>);
    impl http_body::Body for Endless {
        type Data = Bytes;
        type Error = Infallible;
        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            _cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
            match self.0.take() {
                Some(first) => std::task::Poll::Ready(Some(Ok(http_body::Frame::data(first)))),
                None => std::task::Poll::Pending,
            }
        }
    }
    Endless(Some(first)).boxed()
}

fn note(seen: &Mutex<Vec<Seen>>, head: http::request::Parts, body: Bytes) {
    seen.lock().unwrap().push(Seen {
        authority: head
            .uri
            .authority()
            .map(ToString::to_string)
            .unwrap_or_else(|| head.headers["host"].to_str().unwrap().to_owned()),
        method: head.method.to_string(),
        target: head
            .uri
            .path_and_query()
            .map(ToString::to_string)
            .unwrap_or_default(),
        version: head.version,
        headers: head.headers,
        body,
    });
}

impl Bench {
    pub(crate) async fn start() -> Self {
        Self::with(Setting::default()).await
    }

    pub(crate) async fn with(setting: Setting) -> Self {
        let destination = Destination::start().await;
        let directory = tempfile::tempdir().unwrap();
        let authority = CertificateAuthority::load_or_create(&directory.path().join("ca")).unwrap();
        let credentials = Arc::new(ArcSwap::from_pointee(credentials(destination.port, CANARY)));
        let shared = Shared {
            audit: Arc::new(
                Audit::open(&directory.path().join("audit"), setting.audit, || {
                    SystemTime::UNIX_EPOCH
                })
                .unwrap(),
            ),
            authority: Arc::new(authority),
            credentials: Arc::clone(&credentials),
            names: Names::by(|name| async move {
                let inside = |address: &str| Ok(vec![address.parse::<IpAddr>().unwrap()]);
                match name.split('.').next().unwrap_or_default() {
                    "nobody" => Err(io::Error::other("no such name")),
                    "inside" => inside("10.0.0.1"),
                    "metadata" => inside("169.254.169.254"),
                    "nat64" => inside("64:ff9b::7f00:1"),
                    "mapped" => inside("::ffff:127.0.0.1"),
                    "sixtofour" => inside("2002:7f00:1::"),
                    "teredo" => inside("2001:0:4136:e378:8000:63bf:80ff:fffe"),
                    "multicast" => inside("224.0.0.1"),
                    _ => inside("127.0.0.1"),
                }
            }),
            trust: Trust::with(Some(destination.ca_pem.as_bytes())).unwrap(),
        };
        let attached = if setting.attached {
            vec![provider()]
        } else {
            Vec::new()
        };
        let config = Config {
            sandbox: "work".to_owned(),
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
            limits: setting.limits,
            rules: rules(setting.policy, destination.port, attached),
        };
        let inside = (setting.inside)(destination.port);
        let proxy = Proxy::over(inside, config, shared).await.unwrap();
        let (addr, reloader) = (proxy.addrs().next().unwrap(), proxy.reloader());
        let tasks = Tracker::new();
        let ended = tasks.clone();
        drop(tasks.spawn(async move { proxy.run(async move { ended.draining().await }).await }));
        Self {
            destination,
            proxy: addr,
            reloader,
            credentials,
            directory,
            tasks,
        }
    }

    /// `https://api.example.com:PORT`
    pub(crate) fn authority(&self) -> String {
        format!("{HOST}:{}", self.destination.port)
    }

    pub(crate) fn reload(&self, policy: &str) {
        assert!(
            self.reloader
                .replace(rules(policy, self.destination.port, vec![provider()]))
        );
    }

    pub(crate) fn rotate(&self, secret: &'static str) {
        self.credentials
            .store(Arc::new(credentials(self.destination.port, secret)));
    }

    /// The audit lines so far, once there are `count` of them.
    pub(crate) async fn lines(&self, count: usize) -> Vec<Line> {
        let read = || farrier_egress::audit::read(&self.directory.path().join("audit")).unwrap();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        loop {
            let lines = read();
            if lines.len() >= count || tokio::time::Instant::now() > deadline {
                return lines;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Every byte of the audit files and of the authority's certificate.
    pub(crate) fn files(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("audit/egress.jsonl")).unwrap()
    }

    /// Sends bytes to the proxy and reads until it closes, or nothing comes for a while.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.proxy).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        read_out(&mut stream).await
    }

    /// A tunnel through the proxy, or what it said instead.
    pub(crate) async fn tunnel(&self, authority: &str) -> Result<TcpStream, String> {
        let mut stream = TcpStream::connect(self.proxy).await.unwrap();
        let head = format!("CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut reply = Vec::new();
        while !reply.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => reply.push(byte),
                Err(_) => break,
            }
        }
        let text = String::from_utf8(reply).unwrap();
        if text.starts_with("HTTP/1.1 200") {
            return Ok(stream);
        }
        Err(text + &read_out(&mut stream).await)
    }

    /// TLS through a tunnel to the destination, believing `ca`.
    pub(crate) async fn tls(
        &self,
        ca: &str,
        sni: &str,
        alpn: &[u8],
    ) -> io::Result<TlsStream<TcpStream>> {
        let stream = self.tunnel(&self.authority()).await.unwrap();
        tls_over(stream, ca, sni, alpn).await
    }

    /// The proxy's own certificate.
    pub(crate) fn own_ca(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("ca/ca.pem")).unwrap()
    }

    /// One HTTP/1.1 request through TLS that the proxy ends, and its whole answer.
    pub(crate) async fn ask(&self, request: &str) -> String {
        let mut stream = self.tls(&self.own_ca(), HOST, b"http/1.1").await.unwrap();
        let request = request.replace("HOST", &self.authority());
        stream.write_all(request.as_bytes()).await.unwrap();
        read_out(&mut stream).await
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.tasks.cut();
    }
}

/// TLS over a stream, believing `ca`.
pub(crate) async fn tls_over(
    stream: TcpStream,
    ca: &str,
    sni: &str,
    alpn: &[u8],
) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap())
        .unwrap();
    let mut config = ClientConfig::builder_with_provider(crypto())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let name = ServerName::try_from(sni.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

pub(crate) async fn read_out(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut all = Vec::new();
    let mut bytes = [0; 4096];
    // Connections that stay open are quiet after their answer.
    while let Ok(Ok(length @ 1..)) =
        tokio::time::timeout(Duration::from_millis(700), stream.read(&mut bytes)).await
    {
        all.extend_from_slice(&bytes[..length]);
        if complete(&all) {
            break;
        }
    }
    String::from_utf8_lossy(&all).into_owned()
}

/// Whether a whole answer of known length is there.
fn complete(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    length.is_some_and(|length: usize| body.len() >= length)
}

pub(crate) fn provider() -> ProviderName {
    "model".parse().unwrap()
}

pub(crate) fn rules(policy: &str, port: u16, providers: Vec<ProviderName>) -> Rules {
    let policy = policy.replace("PORT", &port.to_string());
    Rules {
        policy: Arc::new(Policy::load(&policy).unwrap()),
        providers,
    }
}

/// One provider at the destination, with one key.
fn credentials(port: u16, secret: &'static str) -> Credentials {
    let spec = ProviderSpec {
        name: provider(),
        profile: Profile::named("generic").unwrap(),
        base_url: Some(format!("https://{HOST}:{port}/v1")),
        keys: [(
            "OPENAI_API_KEY".parse().unwrap(),
            SecretRef::Env {
                name: "X".to_owned(),
            },
        )]
        .into(),
    };
    Credentials::fetch([spec], |source| {
        source.resolve(&|_: &str| Some(secret.to_owned()))
    })
}

fn crypto() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
