//! The ways to a server, and the bytes on them: a socket, or TLS over one, perhaps through a proxy's tunnel.
//!
//! TLS is `rustls` with blocking sockets on both ends of the measurement. No session is resumed: a connection that is made
//! is a full handshake, for everybody alike.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
};

use crate::http::HttpError;

/// How a server is reached.
#[derive(Clone, Debug)]
pub(crate) enum Way {
    Clear(SocketAddr),
    Tls(Secured),
}

/// A server behind TLS.
#[derive(Clone, Debug)]
pub(crate) struct Secured {
    pub(crate) server: SocketAddr,
    /// A proxy that is asked for a tunnel to it.
    pub(crate) proxy: Option<SocketAddr>,
    /// Whom to believe.
    pub(crate) tls: Arc<ClientConfig>,
}

/// Whoever a connection's other end is.
pub(crate) enum Wire {
    Clear(TcpStream),
    OfClient(Box<StreamOwned<ClientConnection, TcpStream>>),
    OfServer(Box<StreamOwned<ServerConnection, TcpStream>>),
}

/// A server's certificate, and the authority to believe.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) server: Arc<ServerConfig>,
    pub(crate) authority_pem: String,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error("expected certificates in PEM: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    #[error("cannot set TLS up: {0}")]
    Tls(#[from] rustls::Error),
}

/// More than any silence in a run.
const PATIENCE: Duration = Duration::from_secs(20);
/// Of a proxy's answer to CONNECT.
const MAX_ANSWER: usize = 4096;

// === impl Way ===

impl From<SocketAddr> for Way {
    fn from(address: SocketAddr) -> Self {
        Self::Clear(address)
    }
}

impl Way {
    /// A new connection, its handshakes done.
    pub(crate) fn connect(&self) -> Result<Wire, HttpError> {
        match self {
            Self::Clear(address) => Ok(Wire::Clear(socket(*address)?)),
            Self::Tls(secured) => secured.connect(),
        }
    }
}

fn socket(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    options(&stream)?;
    Ok(stream)
}

fn options(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(PATIENCE))
}

impl Secured {
    fn connect(&self) -> Result<Wire, HttpError> {
        let mut stream = socket(self.proxy.unwrap_or(self.server))?;
        if self.proxy.is_some() {
            tunnel(&mut stream, self.server)?;
        }
        let name = ServerName::from(self.server.ip());
        let client =
            ClientConnection::new(Arc::clone(&self.tls), name).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(client, stream);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Wire::OfClient(Box::new(stream)))
    }
}

/// Asks for a tunnel. The server says nothing in it before we do, so nothing is read too far.
fn tunnel(stream: &mut TcpStream, to: SocketAddr) -> Result<(), HttpError> {
    // In one write, or it would be several segments.
    let head = format!("CONNECT {to} HTTP/1.1\r\nhost: {to}\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let (mut answer, mut length) = ([0; MAX_ANSWER], 0);
    loop {
        let read = stream.read(answer.get_mut(length..).unwrap_or_default())?;
        length += read;
        let said = answer.get(..length).unwrap_or_default();
        if said.ends_with(b"\r\n\r\n")
            && said.get(8..).is_some_and(|rest| rest.starts_with(b" 200"))
        {
            return Ok(());
        }
        if read == 0 || said.get(8..12).is_some_and(|status| status != b" 200") {
            let body = String::from_utf8_lossy(said).into_owned();
            return Err(HttpError::Tunnel(body));
        }
    }
}

// === impl Identity ===

impl Identity {
    /// Of a server on this machine, known by its address.
    pub(crate) fn make() -> Result<Self, TlsError> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "the upstream of a measurement");
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let names = vec![Ipv4Addr::LOCALHOST.to_string()];
        let leaf = CertificateParams::new(names)?.signed_by(&key, &authority)?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut server = ServerConfig::builder_with_provider(crypto())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key)?;
        server.send_tls13_tickets = 0;
        server.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            server: Arc::new(server),
            authority_pem: authority.pem(),
        })
    }
}

/// A client that believes these authorities, and resumes nothing.
pub(crate) fn believing(authorities: &[&[u8]]) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    for pem in authorities {
        roots.add(CertificateDer::from_pem_slice(pem)?)?;
    }
    let mut client = ClientConfig::builder_with_provider(crypto())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.resumption = Resumption::disabled();
    client.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(client))
}

fn crypto() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

// === impl Wire ===

impl Wire {
    /// A client that came; it may keep its connection idle for as long as it lives.
    pub(crate) fn accepted(
        stream: TcpStream,
        tls: Option<&Arc<ServerConfig>>,
    ) -> Result<Self, HttpError> {
        options(&stream)?;
        let Some(tls) = tls else {
            return Ok(Self::Clear(stream));
        };
        let server = ServerConnection::new(Arc::clone(tls)).map_err(io::Error::other)?;
        Ok(Self::OfServer(Box::new(StreamOwned::new(server, stream))))
    }

    /// Ends it, for the other end to see.
    pub(crate) fn close(&self) {
        // One that is closed already is as it should be.
        let _closed = self.socket().shutdown(Shutdown::Both);
    }

    fn socket(&self) -> &TcpStream {
        match self {
            Self::Clear(stream) => stream,
            Self::OfClient(stream) => &stream.sock,
            Self::OfServer(stream) => &stream.sock,
        }
    }
}

impl Read for Wire {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Clear(stream) => stream.read(bytes),
            Self::OfClient(stream) => stream.read(bytes),
            Self::OfServer(stream) => stream.read(bytes),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Clear(stream) => stream.write(bytes),
            Self::OfClient(stream) => stream.write(bytes),
            Self::OfServer(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Clear(stream) => stream.flush(),
            Self::OfClient(stream) => stream.flush(),
            Self::OfServer(stream) => stream.flush(),
        }
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Wire").field(self.socket()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;
    use crate::clock::Clock;
    use crate::exchange::{PLAIN_MODEL, Script, chat, plain_request, talk};
    use crate::http::{Connection, SWITCHED};
    use crate::load::once;
    use crate::target::ANY_PORT;
    use crate::upstream::Upstream;

    /// What `test` sees of an upstream behind TLS, and of the way to it, through this proxy if there is one.
    fn with_upstream<T>(proxy: Option<SocketAddr>, test: impl FnOnce(&Upstream, &Way) -> T) -> T {
        let identity = Identity::make().expect("a certificate");
        let tls = Some(Arc::clone(&identity.server));
        let upstream = Upstream::start_with(ANY_PORT, Clock::start(), tls).expect("it listens");
        let way = Way::Tls(Secured {
            server: upstream.address(),
            proxy,
            tls: believing(&[identity.authority_pem.as_bytes()]).expect("an authority"),
        });
        let seen = test(&upstream, &way);
        upstream.stop();
        seen
    }

    /// A proxy that says this to whoever comes, once.
    fn proxy(answer: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind(ANY_PORT).expect("loopback can be bound");
        let address = listener.local_addr().expect("it is bound");
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("somebody comes");
            let mut head = [0; 1024];
            let asked = stream.read(&mut head).expect("a head");
            assert!(head[..asked].starts_with(b"CONNECT 127.0.0.1:"));
            stream.write_all(answer).expect("it is taken");
        });
        address
    }

    #[test]
    fn requests_and_websockets_go_over_tls() {
        with_upstream(None, |upstream, way| {
            let request = plain_request(Script::Json, &chat(PLAIN_MODEL, Script::Json));
            let (head, body) = once(way, &request).expect("an answer");
            assert_eq!(head.status, 200);
            assert!(body.starts_with(b"{\"choices\""));
            let mut client = Connection::open(way).expect("it listens");
            let talk = talk(&upstream.address().to_string());
            assert_eq!(client.ask(&talk).expect("a head").status, SWITCHED);
            assert!(upstream.holds(1));
            upstream.release().expect("nobody left");
        });
    }

    #[test]
    fn a_proxy_that_refuses_is_quoted() {
        let proxy = proxy(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n");
        let error = with_upstream(Some(proxy), |_, way| way.connect().expect_err("no tunnel"));
        let said = error.to_string();
        assert!(
            said.starts_with("expected a tunnel, got: HTTP/1.1 403"),
            "{said}"
        );
    }

    #[test]
    fn a_server_with_another_certificate_is_not_spoken_to() {
        let other = Identity::make().expect("a certificate");
        let error = with_upstream(None, |upstream, _| {
            let way = Way::Tls(Secured {
                server: upstream.address(),
                proxy: None,
                tls: believing(&[other.authority_pem.as_bytes()]).expect("an authority"),
            });
            way.connect().expect_err("another authority")
        });
        assert!(error.to_string().contains("certificate"), "{error}");
    }
}
