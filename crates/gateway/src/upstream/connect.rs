//! TCP and TLS towards a provider, under one deadline.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use farrier_serve::BoxError;
use http::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tower_service::Service;

use crate::config::{HttpVersion, Mistake, Provider};

/// Resolves, connects and shakes hands, all within one deadline.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    https: HttpsConnector<HttpConnector>,
    within: Duration,
}

/// The deadline passed before there was a connection.
#[derive(Debug, thiserror::Error)]
#[error("expected a connection within {0:?}, got none")]
pub(super) struct ConnectTimedOut(pub(super) Duration);

impl Connector {
    pub(super) fn build(provider: &Provider, within: Duration) -> Result<Self, Mistake> {
        let mut http = HttpConnector::new();
        http.enforce_http(false); // https is the TLS layer's affair
        http.set_nodelay(true);
        http.set_keepalive(Some(TCP_KEEPALIVE));
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls(provider)?)
            .https_or_http();
        let https = match provider.http {
            HttpVersion::Auto => https.enable_all_versions().wrap_connector(http),
            HttpVersion::Http1 => https.enable_http1().wrap_connector(http),
            HttpVersion::Http2 => https.enable_http2().wrap_connector(http),
        };
        Ok(Self { https, within })
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.https.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (connected, within) = (self.https.call(uri), self.within);
        Box::pin(async move {
            match tokio::time::timeout(within, connected).await {
                Ok(connected) => connected,
                Err(_) => Err(ConnectTimedOut(within).into()),
            }
        })
    }
}

fn tls(provider: &Provider) -> Result<ClientConfig, Mistake> {
    let mut roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    if let Some(path) = &provider.ca_file {
        trust(&mut roots, path).map_err(|reason| Mistake::CaFile {
            provider: provider.name.clone(),
            path: path.clone(),
            reason,
        })?;
    }
    let crypto = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(crypto)
        .with_safe_default_protocol_versions()
        .expect("ring supports the protocol versions it is built with");
    Ok(versions.with_root_certificates(roots).with_no_client_auth())
}

fn trust(roots: &mut RootCertStore, path: &Path) -> Result<(), String> {
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())?;
    let mut found = false;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
        found = true;
    }
    if found {
        Ok(())
    } else {
        Err("got a file without any".to_owned())
    }
}

/// Keeps connections of long-thinking models alive across address translators.
const TCP_KEEPALIVE: Duration = Duration::from_secs(60);
