//! Providers behind TLS.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use farrier_gateway::config::{HttpVersion, Provider};
use farrier_serve::Tracker;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::support::{PLAIN, Setup, ask, error};

/// A provider that answers with the HTTP version it was asked in.
struct Behind {
    addr: SocketAddr,
    /// The certificate, in PEM.
    certificate: String,
    _tasks: Tracker,
}

async fn behind_tls(alpn: &[&str]) -> Behind {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let crypto = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ServerConfig::builder_with_provider(crypto)
        .with_safe_default_protocol_versions()
        .unwrap();
    let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
    let mut tls = versions
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    tls.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let tasks = Tracker::new();
    drop(tasks.spawn(serve(
        listener,
        TlsAcceptor::from(Arc::new(tls)),
        tasks.clone(),
    )));
    Behind {
        addr,
        certificate: cert.pem(),
        _tasks: tasks,
    }
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, tasks: Tracker) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        // A client that does not trust us hangs up in the handshake.
        let Ok(stream) = tls.accept(stream).await else {
            continue;
        };
        let http = auto::Builder::new(tasks.clone());
        drop(tasks.spawn(async move {
            http.serve_connection(TokioIo::new(stream), service_fn(say_version))
                .await
                .ok()
        }));
    }
}

async fn say_version(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::new(
        format!("{:?}", request.version()).into(),
    )))
}

impl Behind {
    fn provider(&self) -> Provider {
        Provider::new("tls", format!("https://localhost:{}/v1", self.addr.port()))
    }

    fn ca_file(&self, dir: &tempfile::TempDir) -> PathBuf {
        let path = dir.path().join("ca.pem");
        std::fs::write(&path, &self.certificate).unwrap();
        path
    }
}

#[tokio::test]
async fn a_private_authority_is_trusted_when_configured_and_the_version_is_negotiated() {
    let both = ["h2", "http/1.1"];
    let cases = [
        (&both[..], HttpVersion::Auto, "HTTP/2.0"),
        (&both[1..], HttpVersion::Auto, "HTTP/1.1"),
        (&both[..], HttpVersion::Http1, "HTTP/1.1"),
        (&both[..], HttpVersion::Http2, "HTTP/2.0"),
    ];
    for (alpn, version, expected) in cases {
        let upstream = behind_tls(alpn).await;
        let dir = tempfile::tempdir().unwrap();
        let mut provider = upstream.provider();
        provider.ca_file = Some(upstream.ca_file(&dir));
        provider.http = version;
        let gateway = Setup::with(provider).run().await;
        let mut client = gateway.client().await;
        for _ in 0..2 {
            client.post("/v1/chat/completions", ask(PLAIN)).await;
            let response = client.response().await;
            assert_eq!(
                (response.status, response.text().as_str()),
                (200, expected),
                "{alpn:?} {version:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_refused_and_named() {
    let upstream = behind_tls(&["http/1.1"]).await;
    let gateway = Setup::with(upstream.provider()).run().await;
    let mut client = gateway.client().await;
    client.post("/v1/chat/completions", ask(PLAIN)).await;
    let response = client.response().await;
    let (_, code, message) = error(&response.text());
    assert_eq!(
        (response.status, code.as_str()),
        (502, "upstream_untrusted")
    );
    let told = ["invalid peer certificate", "ca_file", "localhost"];
    assert!(told.iter().all(|part| message.contains(part)), "{message}");
    // It would be as unknown the next time.
    let page = gateway.metrics().await;
    assert!(!page.contains("farrier_upstream_retries_total{"), "{page}");
}
