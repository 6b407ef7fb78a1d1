//! Downloads: over HTTP, through a proxy where the environment names one, each proven by its digest.
//!
//! ```text
//! url ──▶ answer (redirects followed) ──▶ <name>.part ──(its digest is the expected one)──▶ <name>
//! ```
//!
//! A connection that breaks, an answer that is cut off and a server in trouble are tried again, a few times; a wrong digest
//! is not: whoever has other bytes has them the next time too. No wait is without an end: connecting, the head of an
//! answer and every piece of it have a limit, so that a slow server is waited for as long as something comes.
//!
//! A password for a registry goes to the host it is for, and to no other that this one sends us to.

use std::error::Error;
use std::fs::{self, File};
use std::future::Future;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, LOCATION, USER_AGENT};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower_service::Service;

use super::digest::Digest;
use super::origin::Origin;

/// Downloads things.
#[derive(Debug)]
pub(crate) struct Fetcher {
    client: Client<HttpsConnector<Dial>, Empty<Bytes>>,
    /// The longest that nothing may come.
    silence: Duration,
    /// Bytes that came, of all downloads.
    came: AtomicU64,
}

/// How the network is reached.
#[derive(Debug, Default)]
pub(crate) struct Way {
    /// Of `HTTPS_PROXY` and `HTTP_PROXY`.
    pub(crate) https_proxy: String,
    pub(crate) http_proxy: String,
    pub(crate) no_proxy: String,
    /// Files with authorities to trust besides the usual ones.
    pub(crate) authorities: Vec<PathBuf>,
    pub(crate) silence: Duration,
}

/// Something to download.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) url: &'a str,
    /// Whose it is.
    pub(crate) origin: &'a Origin,
    pub(crate) digest: &'a Digest,
}

/// A page, and what it says it is.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) kind: String,
    pub(crate) text: String,
    /// Where it really came from.
    pub(crate) url: Uri,
}

/// Why something was not downloaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("expected an answer from {url}, got none: {why}")]
    Transport { url: String, why: String },
    #[error("expected {url} within {} without a pause, got nothing for so long", humantime::format_duration(*.silence))]
    Silent { url: String, silence: Duration },
    #[error("expected {url} to be there, got {status}")]
    Status { url: String, status: StatusCode },
    #[error(
        "expected {url} itself, got sent elsewhere {MAX_REDIRECTS} times, or to no place at all"
    )]
    Astray { url: String },
    #[error(
        "expected {expected} of {url}, got {got}: this is not the archive that the lock file names"
    )]
    OtherBytes {
        url: String,
        expected: Digest,
        got: Digest,
    },
    #[error("expected at most {MAX_ARCHIVE_BYTES} bytes from {url}, got more")]
    Huge { url: String },
    #[error("expected a URL, got {0:?}")]
    NoUrl(String),
    #[error("cannot write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("expected certificates in {}, got none that can be read: {why}", path.display())]
    Authorities { path: PathBuf, why: String },
}

/// Connects: directly, or through a proxy.
#[derive(Clone, Debug)]
struct Dial {
    http: HttpConnector,
    proxies: Arc<Matcher>,
}

type BoxError = Box<dyn Error + Send + Sync>;

/// The largest package there is has 60 MB.
const MAX_ARCHIVE_BYTES: u64 = 512 << 20;
/// An index's page of a package with many releases has some 5 MB.
const MAX_PAGE_BYTES: usize = 64 << 20;
const MAX_REDIRECTS: usize = 5;
const CONNECT: Duration = Duration::from_secs(10);
/// How often at most something is asked for, and how long is waited in between at first.
const ATTEMPTS: u32 = 4;
const PAUSE: Duration = Duration::from_millis(250);

impl Fetcher {
    /// # Errors
    /// A file with authorities to trust cannot be read.
    pub(crate) fn new(way: &Way) -> Result<Self, FetchError> {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_connect_timeout(Some(CONNECT));
        let proxies = Matcher::builder()
            .https(way.https_proxy.clone())
            .http(way.http_proxy.clone())
            .no(way.no_proxy.clone());
        let dial = Dial {
            http,
            proxies: Arc::new(proxies.build()),
        };
        let tls = ClientConfig::builder()
            .with_root_certificates(roots(&way.authorities)?)
            .with_no_client_auth();
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .enable_http2()
            .wrap_connector(dial);
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build(https),
            silence: way.silence,
            came: AtomicU64::new(0),
        })
    }

    /// How many bytes came so far.
    pub(crate) fn came(&self) -> u64 {
        self.came.load(Ordering::Relaxed)
    }

    /// Downloads an archive to the file `into`, which is there only if it is the right one. Safe to drop.
    pub(crate) async fn archive(&self, wanted: Wanted<'_>, into: &Path) -> Result<(), FetchError> {
        let part = into.with_extension("part");
        self.patiently(async || self.archive_once(wanted, &part).await)
            .await?;
        fs::rename(&part, into).map_err(|source| FetchError::Write {
            path: into.to_owned(),
            source,
        })
    }

    async fn archive_once(&self, wanted: Wanted<'_>, part: &Path) -> Result<(), FetchError> {
        let Wanted {
            url,
            origin,
            digest,
        } = wanted;
        let (mut answer, _) = self.ask(url, origin, "*/*").await?;
        let failed = |source| FetchError::Write {
            path: part.to_owned(),
            source,
        };
        let (mut file, mut hasher) = (File::create(part).map_err(failed)?, digest.hasher());
        let mut size: u64 = 0;
        while let Some(piece) = self.in_time(url, answer.body_mut().frame()).await? {
            let piece = piece.map_err(|error| transport(url, &error))?;
            let Ok(bytes) = piece.into_data() else {
                continue; // trailers
            };
            size += bytes.len() as u64;
            if size > MAX_ARCHIVE_BYTES {
                return Err(FetchError::Huge {
                    url: url.to_owned(),
                });
            }
            self.came.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            hasher.update(&bytes);
            file.write_all(&bytes).map_err(failed)?;
        }
        let got = hasher.finish();
        if got != *digest {
            return Err(FetchError::OtherBytes {
                url: url.to_owned(),
                expected: digest.clone(),
                got,
            });
        }
        Ok(())
    }

    /// Reads a page of text. Safe to drop.
    pub(crate) async fn page(
        &self,
        url: &str,
        origin: &Origin,
        accept: &str,
    ) -> Result<Page, FetchError> {
        self.patiently(async || self.page_once(url, origin, accept).await)
            .await
    }

    async fn page_once(
        &self,
        url: &str,
        origin: &Origin,
        accept: &str,
    ) -> Result<Page, FetchError> {
        let (answer, from) = self.ask(url, origin, accept).await?;
        let kind = answer.headers().get(CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.to_owned();
        let mut body = Limited::new(answer.into_body(), MAX_PAGE_BYTES);
        let mut text = Vec::new();
        while let Some(piece) = self.in_time(url, body.frame()).await? {
            let piece = piece.map_err(|error| transport(url, error.as_ref()))?;
            let bytes: Option<Bytes> = piece.into_data().ok(); // none in trailers
            text.extend_from_slice(&bytes.unwrap_or_default());
        }
        Ok(Page {
            kind,
            text: String::from_utf8_lossy(&text).into_owned(),
            url: from,
        })
    }

    /// Asks until somebody answers with what is wanted: that, and who did.
    async fn ask(
        &self,
        url: &str,
        origin: &Origin,
        accept: &str,
    ) -> Result<(Response<Incoming>, Uri), FetchError> {
        let mut at = parsed(url)?;
        for _ in 0..=MAX_REDIRECTS {
            let mut request = Request::get(at.clone())
                .header(USER_AGENT, concat!("farrier/", env!("CARGO_PKG_VERSION")))
                .header(ACCEPT, accept);
            if let Some(key) = origin.key_for(&at) {
                request = request.header(AUTHORIZATION, key.clone());
            }
            let request = request
                .body(Empty::new())
                .map_err(|_| FetchError::NoUrl(url.to_owned()))?;
            let answer = self.in_time(url, self.client.request(request)).await?;
            let answer = answer.map_err(|error| transport(url, &error))?;
            let status = answer.status();
            if status == StatusCode::OK {
                return Ok((answer, at));
            }
            if !status.is_redirection() {
                return Err(FetchError::Status {
                    url: url.to_owned(),
                    status,
                });
            }
            let to = answer.headers().get(LOCATION);
            let to = to.and_then(|to| joined(&at, to.to_str().ok()?));
            at = to.ok_or_else(|| FetchError::Astray {
                url: url.to_owned(),
            })?;
        }
        Err(FetchError::Astray {
            url: url.to_owned(),
        })
    }

    async fn in_time<T>(&self, url: &str, it: impl Future<Output = T>) -> Result<T, FetchError> {
        timeout(self.silence, it)
            .await
            .map_err(|_| FetchError::Silent {
                url: url.to_owned(),
                silence: self.silence,
            })
    }

    /// Tries again what may go well the next time.
    async fn patiently<T>(
        &self,
        attempt: impl AsyncFn() -> Result<T, FetchError>,
    ) -> Result<T, FetchError> {
        let mut pause = PAUSE;
        for _ in 1..ATTEMPTS {
            match attempt().await {
                Err(error) if error.may_pass() => {
                    tokio::time::sleep(pause).await;
                    pause *= 3;
                }
                done => return done,
            }
        }
        attempt().await
    }
}

impl FetchError {
    /// Whether it may go well the next time.
    fn may_pass(&self) -> bool {
        match self {
            Self::Transport { .. } | Self::Silent { .. } => true,
            Self::Status { status, .. } => {
                status.is_server_error()
                    || matches!(
                        *status,
                        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS
                    )
            }
            Self::Astray { .. }
            | Self::Authorities { .. }
            | Self::Huge { .. }
            | Self::NoUrl(_)
            | Self::OtherBytes { .. }
            | Self::Write { .. } => false,
        }
    }
}

/// The authorities of the system, those that are known everywhere, and those of the files.
fn roots(files: &[PathBuf]) -> Result<RootCertStore, FetchError> {
    let mut roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    // What the system has and cannot be read is not missed: the usual ones are there.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for path in files {
        let failed = |why: String| FetchError::Authorities {
            path: path.clone(),
            why,
        };
        let certificates = CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| failed(error.to_string()))?;
        let (added, _) = roots.add_parsable_certificates(certificates);
        if added == 0 {
            return Err(failed("it holds no certificate".to_owned()));
        }
    }
    Ok(roots)
}

fn parsed(url: &str) -> Result<Uri, FetchError> {
    let no_url = || FetchError::NoUrl(url.to_owned());
    let parsed: Uri = url.parse().map_err(|_| no_url())?;
    let is_http = matches!(parsed.scheme_str(), Some("http" | "https"));
    (is_http && parsed.host().is_some())
        .then_some(parsed)
        .ok_or_else(no_url)
}

/// Where a link on a page leads. From `https` it leads to nothing else.
pub(crate) fn joined(page: &Uri, link: &str) -> Option<Uri> {
    let (scheme, authority) = (page.scheme_str()?, page.authority()?.as_str());
    let link = link.split('#').next().unwrap_or_default();
    let text = if link.contains("://") {
        link.to_owned()
    } else if let Some(host) = link.strip_prefix("//") {
        format!("{scheme}://{host}")
    } else if link.starts_with('/') {
        format!("{scheme}://{authority}{link}")
    } else {
        let folder = page
            .path()
            .rsplit_once('/')
            .map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{}", climbed(folder, link))
    };
    let to = parsed(&text).ok()?;
    (scheme != "https" || to.scheme_str() == Some("https")).then_some(to)
}

/// A relative path from a folder.
fn climbed(folder: &str, link: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').collect();
    for part in link.split('/') {
        match part {
            "." => {}
            ".." if parts.len() > 1 => drop(parts.pop()),
            ".." => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// The innermost cause: those above it say only that there is one.
fn transport(url: &str, error: &(dyn Error + 'static)) -> FetchError {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    FetchError::Transport {
        url: url.to_owned(),
        why: innermost.to_string(),
    }
}

impl Service<Uri> for Dial {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.http.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let Some(proxy) = self.proxies.intercept(&to) else {
            let connecting = self.http.call(to);
            return Box::pin(async { Ok(connecting.await?) });
        };
        let mut tunnel = Tunnel::new(proxy.uri().clone(), self.http.clone());
        if let Some(key) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(key.clone());
        }
        let connecting = tunnel.call(to);
        Box::pin(async { Ok(connecting.await?) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_leads_where_a_browser_would_go_and_never_from_https_to_http() {
        let page: Uri = "https://host:1/simple/x/".parse().expect("a URL");
        let to = |link| joined(&page, link).map(|uri| uri.to_string());
        for (link, url) in [
            ("https://other/a#sha256=1", "https://other/a"),
            ("//other/a", "https://other/a"),
            ("/a/b", "https://host:1/a/b"),
            ("../../p/a.whl", "https://host:1/p/a.whl"),
            ("../../../../a", "https://host:1/a"),
            ("a.whl", "https://host:1/simple/x/a.whl"),
        ] {
            assert_eq!(to(link).as_deref(), Some(url), "{link}");
        }
        assert_eq!(to("http://other/a"), None);
        assert_eq!(to("file:///etc/passwd"), None);
    }
}
