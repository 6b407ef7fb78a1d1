//! The address that sandboxes have, on this machine: a proxy that knows one name, and speaks TLS for it.
//!
//! ```text
//! harness ──CONNECT inference.local:443──▶ door ──TLS, a certificate of this run──▶ gateway
//! ```
//!
//! Whatever else is asked for is refused, so a harness on this way reaches the gateway and nothing besides. The
//! certificate authority is made for the run and trusted by the harness alone.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::failure::Failure;

/// The only name it knows.
const NAME: &str = "inference.local";
/// Longest wait for a request to connect, and for a handshake.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest request to connect, in bytes.
const MAX_HEAD: usize = 8 * 1024;
/// Connections at once.
const MAX_CONNECTIONS: usize = 64;

/// The door, open until it is dropped.
#[derive(Debug)]
pub(crate) struct Door {
    address: SocketAddr,
    authority: PathBuf,
    _open: JoinSet<()>,
}

impl Door {
    /// Opens one to the gateway, and writes its certificate authority into `place`.
    pub(crate) async fn open(gateway: SocketAddr, place: &Path) -> Result<Self, Failure> {
        let cannot = |error: &dyn std::error::Error| {
            Failure::internal("cannot open the address that sandboxes have", error)
        };
        let (tls, authority) = certificates().map_err(|error| cannot(&*error))?;
        let path = place.join("authority.pem");
        std::fs::write(&path, authority).map_err(|error| cannot(&error))?;
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.map_err(|error| cannot(&error))?;
        let address = listener.local_addr().map_err(|error| cannot(&error))?;
        let mut open = JoinSet::new();
        open.spawn(accept(listener, tls, gateway));
        Ok(Self {
            address,
            authority: path,
            _open: open,
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The file with the certificate authority to trust.
    pub(crate) fn authority(&self) -> &Path {
        &self.authority
    }
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

fn certificates() -> Result<(TlsAcceptor, String), AnyError> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // A certificate with its issuer's name would be taken for one that signed itself.
    params
        .distinguished_name
        .push(DnType::CommonName, "a run of farrier verify");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let leaf = CertificateParams::new(vec![NAME.to_owned()])?.signed_by(&key, &authority)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let crypto = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(crypto)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((TlsAcceptor::from(Arc::new(config)), authority.pem()))
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, gateway: SocketAddr) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => {
                let Ok((stream, _)) = accepted else { return };
                let tls = tls.clone();
                connections.spawn(async move {
                    // Whoever it was has noticed, and says so in its own words.
                    let _broken = serve(stream, &tls, gateway).await;
                });
            }
        }
    }
}

async fn serve(mut stream: TcpStream, tls: &TlsAcceptor, gateway: SocketAddr) -> io::Result<()> {
    let asked = timeout(PATIENCE, head(&mut stream)).await??;
    if asked
        .split_ascii_whitespace()
        .take(2)
        .ne(["CONNECT", "inference.local:443"])
    {
        return stream
            .write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")
            .await;
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    let mut inside = timeout(PATIENCE, tls.accept(stream)).await??;
    let mut outside = TcpStream::connect(gateway).await?;
    copy_bidirectional(&mut inside, &mut outside).await?;
    Ok(())
}

/// The head of a request, to the blank line that ends it.
async fn head(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > MAX_HEAD {
            return Err(io::ErrorKind::InvalidData.into());
        }
        // A client speaks first only after the answer, so there is nothing to read too far into.
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}
