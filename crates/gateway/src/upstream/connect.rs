//! TCP and TLS towards a provider, under one deadline.

use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use hyper_util::client::legacy::connect::{Connection as _, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tower_service::Service;

use super::{UpstreamFault, cause};
use crate::config::{HttpVersion, Mistake, Provider};

/// Resolves, connects and shakes hands, all within one deadline.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    https: HttpsConnector<HttpConnector<Names>>,
    within: Duration,
}

/// Where names lead: to the one address that was given, if one was.
#[derive(Clone, Debug)]
struct Names {
    always: Option<SocketAddr>,
    system: GaiResolver,
}

/// A connection to a provider, with or without TLS.
pub(super) type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;

impl Connector {
    pub(super) fn build(provider: &Provider, within: Duration) -> Result<Self, Mistake> {
        let mut http = HttpConnector::new_with_resolver(Names {
            always: provider.address,
            system: GaiResolver::new(),
        });
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

    /// A new connection to where `base` is.
    pub(super) async fn connect(&self, base: Uri) -> Result<Stream, UpstreamFault> {
        let mut https = self.https.clone();
        let host = base.host().unwrap_or_default().to_owned();
        let connected = async {
            poll_fn(|cx| https.poll_ready(cx)).await?;
            https.call(base).await
        };
        let made = self.within(async { Ok(connected.await) }).await?;
        made.map_err(|error| {
            let reason = root(&*error).to_string();
            match cause(&*error) {
                Some(rustls::Error::InvalidCertificate(_)) => {
                    UpstreamFault::Untrusted { host, reason }
                }
                _ => UpstreamFault::Unreachable { reason },
            }
        })
    }

    /// A step of connecting, which has the time that connecting may take.
    pub(super) async fn within<T>(
        &self,
        step: impl Future<Output = Result<T, UpstreamFault>>,
    ) -> Result<T, UpstreamFault> {
        let within = self.within;
        let done = tokio::time::timeout(within, step).await;
        done.unwrap_or(Err(UpstreamFault::ConnectTimedOut { within }))
    }
}

impl Service<Name> for Names {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.system.poll_ready(cx)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        if let Some(address) = self.always {
            return Box::pin(std::future::ready(Ok(vec![address].into_iter())));
        }
        let found = self.system.call(name);
        Box::pin(async move { Ok(found.await?.collect::<Vec<_>>().into_iter()) })
    }
}

/// Whether both sides agreed on HTTP/2 while shaking hands.
pub(super) fn is_http2(stream: &Stream) -> bool {
    stream.connected().is_negotiated_h2()
}

/// The error at the end of the chain: the one that says what really happened.
fn root<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut last = error;
    while let Some(next) = last.source() {
        last = next;
    }
    last
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
