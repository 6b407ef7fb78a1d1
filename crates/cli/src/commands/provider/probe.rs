//! `farrier provider test`: the cheapest request that tells whether a key is good.
//!
//! | answer | verdict | what to look at |
//! |---|---|---|
//! | success; of a request that lacks all but the key, also 400 and 422 | works | |
//! | 401, 403, or words about the key | credential | the key |
//! | 404, 405 | endpoint | the base URL |
//! | none, 429, 5xx | transport | the network, or later |
//!
//! The key is sent to the provider's own endpoint alone, redirects are not followed, and what comes back is read for its
//! words and never shown.

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use farrier_secrets::{Credentials, Refusal};
use farrier_secrets::{Destination, Endpoint, Lent, Method, Probe, Sent};
use http::{HeaderName, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use serde::Serialize;
use tokio::time::{Instant, timeout};

use super::{Test, named, show};
use crate::commands::Context;
use crate::config::{self, Known};
use crate::failure::Failure;
use crate::runtime;

/// What a test came to.
#[derive(Debug, Serialize)]
struct Tested {
    provider: String,
    /// Without the key, also where that is a part of it.
    url: String,
    verdict: Verdict,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    elapsed_ms: u128,
    message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Credential,
    Endpoint,
    Transport,
    Unclear,
    Works,
}

/// A request, and what may be said of it.
struct Asked {
    request: Request<Full<Bytes>>,
    url: String,
}

const MAX_ANSWER_BYTES: usize = 1024 * 1024;
/// What providers say of a key with statuses that mean something else, in lower case.
const OF_THE_KEY: [&str; 5] = [
    "api key not valid",
    "invalid api key",
    "incorrect api key",
    "invalid_api_key",
    "invalid_auth",
];

pub(super) fn run(arguments: &Test, context: &Context<'_>) -> Result<ExitCode, Failure> {
    let name = named(&arguments.name)?;
    let (known, _file) = show::known(&arguments.how, context)?;
    let known = known.into_iter().find(|known| known.spec.name == name);
    let known = known.ok_or_else(|| {
        Failure::user(format!("expected the name of a provider, got {name}"))
            .hint("farrier provider list shows them")
    })?;
    let tested = match asked(&known, context) {
        Ok(asked) => runtime::run(answered(&known, asked, arguments.timeout))?,
        Err(refused) => Tested {
            provider: name.to_string(),
            url: known.spec.base_url.clone().unwrap_or_default(),
            verdict: Verdict::Credential,
            status: None,
            elapsed_ms: 0,
            message: refused,
        },
    };
    if arguments.how.json {
        context.output.json(&tested)?;
    } else {
        context.output.line(&tested.shown())?;
    }
    Ok(if tested.verdict == Verdict::Works {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

// === the request ===

/// The request with the key in it, lent as for any other.
fn asked(known: &Known, context: &Context<'_>) -> Result<Asked, String> {
    let spec = &known.spec;
    let profile = spec.profile;
    let probe = profile
        .probe
        .as_ref()
        .ok_or("this type of provider cannot be tested")?;
    let base_url = spec.base_url.as_ref().or(profile.base_url.as_ref());
    let base_url = base_url
        .ok_or("expected a base URL, got none")?
        .trim_end_matches('/');
    let bound: Endpoint = base_url
        .parse()
        .map_err(|error: farrier_secrets::EndpointError| error.to_string())?;
    let first = profile
        .keys
        .iter()
        .find_map(|key| spec.keys.get_key_value(key.name.as_str()))
        .or_else(|| spec.keys.first_key_value());
    let Some((key, _)) = first else {
        return request(probe, (base_url, None), None);
    };
    let credentials = Credentials::fetch([spec.clone()], |source| {
        config::fetched(source, context.env)
    });
    let attached = credentials.attached(std::slice::from_ref(&spec.name));
    let path = format!("{}{}", bound.path(), probe.path);
    let to = Destination {
        scheme: bound.scheme(),
        host: bound.host(),
        port: bound.port(),
        path: &path,
    };
    let lent = attached
        .resolve(key.as_str(), &to)
        .map_err(|refusal: Refusal| refusal.to_string())?;
    let sent = match &known.header {
        Some(name) => Sent::Header {
            name: name.clone(),
            prefix: String::new(),
        },
        None => profile.sent(key.as_str()).clone(),
    };
    request(probe, (base_url, Some(&sent)), Some(lent))
}

fn request(
    probe: &Probe,
    (base_url, sent): (&str, Option<&Sent>),
    lent: Option<Lent<'_>>,
) -> Result<Asked, String> {
    let cannot = |_invalid: http::Error| "expected a request that can be sent, got none".to_owned();
    let method = match probe.method {
        Method::Get => "GET",
        Method::Post => "POST",
    };
    let mut request = Request::builder().method(method);
    for (name, value) in &probe.headers {
        request = request.header(name, value);
    }
    if probe.method == Method::Post {
        request = request.header("content-type", "application/json");
    }
    let path = &probe.path;
    let (mut url, mut shown) = (format!("{base_url}{path}"), format!("{base_url}{path}"));
    match (sent, lent) {
        (Some(Sent::Header { name, prefix }), Some(lent)) => {
            let value = lent
                .secret
                .header_value(prefix)
                .map_err(|error| error.to_string())?;
            let name: HeaderName = name
                .parse()
                .map_err(|_invalid| format!("expected a header field, got {name:?}"))?;
            request = request.header(name, value);
        }
        (Some(Sent::PathSegment { prefix }), Some(lent)) => {
            url = format!("{base_url}/{prefix}{}{path}", lent.secret.expose());
            shown = format!("{base_url}/{prefix}<{}>{path}", lent.key);
        }
        _ => {}
    }
    let body = match probe.method {
        Method::Get => Bytes::new(),
        Method::Post => Bytes::from_static(b"{}"),
    };
    let url: Uri = url
        .parse()
        .map_err(|_invalid| "expected a key that a URL can carry, got another".to_owned())?;
    let request = request.uri(url).body(Full::new(body)).map_err(cannot)?;
    Ok(Asked {
        request,
        url: shown,
    })
}

// === the answer ===

async fn answered(known: &Known, asked: Asked, within: Duration) -> Result<Tested, Failure> {
    let since = Instant::now();
    let ca_file = known.ca_file.as_deref();
    let answer = timeout(within, exchange(asked.request, ca_file)).await;
    let probe = known.spec.profile.probe.as_ref();
    let (verdict, status, message) = match answer {
        Err(_) => (
            Verdict::Transport,
            None,
            format!(
                "expected an answer within {within:?}, got none; check the network, or give it longer with --timeout"
            ),
        ),
        Ok(Err(error)) => (
            Verdict::Transport,
            None,
            format!("expected an answer, got none: {error}; check the base URL and the network"),
        ),
        Ok(Ok((status, body))) => {
            let (verdict, message) = judged(status, &body, probe);
            (verdict, Some(status.as_u16()), message)
        }
    };
    Ok(Tested {
        provider: known.spec.name.to_string(),
        url: asked.url,
        verdict,
        status,
        elapsed_ms: since.elapsed().as_millis(),
        message,
    })
}

async fn exchange(
    request: Request<Full<Bytes>>,
    ca_file: Option<&Path>,
) -> Result<(StatusCode, Bytes), String> {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    let https = HttpsConnectorBuilder::new()
        .with_tls_config(believing(ca_file)?)
        .https_or_http()
        .enable_http1()
        .enable_http2()
        .wrap_connector(http);
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(https);
    let reply = client
        .request(request)
        .await
        .map_err(|error| causes(&error))?;
    let (head, body) = reply.into_parts();
    #[expect(clippy::disallowed_methods, reason = "bounded by Limited")]
    let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
    // The head says most; a body that is too long says no more.
    let body = body
        .map(http_body_util::Collected::to_bytes)
        .unwrap_or_default();
    Ok((head.status, body))
}

/// TLS towards whoever proves himself by a public authority, or one of this file.
fn believing(ca_file: Option<&Path>) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    if let Some(path) = ca_file {
        let shown = path.display();
        let wrong = |what: &dyn std::fmt::Display| {
            format!("expected PEM certificates in {shown}, got {what}")
        };
        let certificates = CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))?;
        for certificate in certificates {
            let certificate = certificate.map_err(|error| wrong(&error))?;
            roots.add(certificate).map_err(|error| wrong(&error))?;
        }
    }
    let crypto = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(crypto)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(versions.with_root_certificates(roots).with_no_client_auth())
}

/// The innermost cause, without the request, whose URL may hold the key: errors below it speak of connections alone.
fn causes(error: &dyn Error) -> String {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string()
}

fn judged(status: StatusCode, body: &[u8], probe: Option<&Probe>) -> (Verdict, String) {
    let words = String::from_utf8_lossy(body).to_lowercase();
    let of_the_key = OF_THE_KEY.iter().any(|said| words.contains(said));
    let post = probe.is_some_and(|probe| probe.method == Method::Post && probe.ok.is_none());
    let says_no = probe
        .and_then(|probe| probe.ok.as_deref())
        .is_some_and(|field| {
            let answer: Option<serde_json::Value> = serde_json::from_slice(body).ok();
            answer.is_none_or(|answer| answer[field] != true)
        });
    let (verdict, message) = match status.as_u16() {
        200..=299 if !says_no => (Verdict::Works, "the key is good"),
        400 | 422 if post && !of_the_key => (Verdict::Works, "the key is let in"),
        401 | 403 => (
            Verdict::Credential,
            "the provider does not take the key: check where it comes from, and that it is not revoked",
        ),
        _ if of_the_key || says_no => (
            Verdict::Credential,
            "the provider does not take the key: check where it comes from, and that it is not revoked",
        ),
        404 | 405 => (
            Verdict::Endpoint,
            "the provider has no such path: check the base URL",
        ),
        300..=399 => (
            Verdict::Endpoint,
            "the provider sends elsewhere, which is not followed with a key: check the base URL",
        ),
        429 => (
            Verdict::Transport,
            "the provider limits its callers: try again later",
        ),
        500..=599 => (
            Verdict::Transport,
            "the provider is in trouble: try again later",
        ),
        _ => (Verdict::Unclear, "the answer says nothing of the key"),
    };
    (verdict, message.to_owned())
}

impl Tested {
    fn shown(&self) -> String {
        let Self {
            provider,
            url,
            verdict,
            elapsed_ms,
            message,
            ..
        } = self;
        let status = self
            .status
            .map(|status| format!(", {status}"))
            .unwrap_or_default();
        let verdict = match verdict {
            Verdict::Credential => "credential",
            Verdict::Endpoint => "endpoint",
            Verdict::Transport => "transport",
            Verdict::Unclear => "unclear",
            Verdict::Works => "works",
        };
        format!("{provider}: {verdict}: {message} ({url}{status}, {elapsed_ms} ms)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use farrier_secrets::Profile;

    fn verdict(kind: &str, status: u16, body: &str) -> Verdict {
        let probe = Profile::named(kind).unwrap().probe.as_ref();
        judged(
            StatusCode::from_u16(status).unwrap(),
            body.as_bytes(),
            probe,
        )
        .0
    }

    #[test]
    fn what_a_provider_says_is_told_apart() {
        let cases = [
            ("openai", 200, "{}", Verdict::Works),
            ("openai", 401, "{}", Verdict::Credential),
            ("openai", 403, "{}", Verdict::Credential),
            ("openai", 404, "{}", Verdict::Endpoint),
            ("openai", 302, "", Verdict::Endpoint),
            ("openai", 429, "{}", Verdict::Transport),
            ("openai", 503, "{}", Verdict::Transport),
            ("openai", 400, "{}", Verdict::Unclear),
            (
                "gemini",
                400,
                r#"[{"error":{"message":"API key not valid. Please pass a valid API key."}}]"#,
                Verdict::Credential,
            ),
            (
                "nvidia",
                400,
                r#"{"detail":"model is required"}"#,
                Verdict::Works,
            ),
            ("nvidia", 422, "{}", Verdict::Works),
            ("nvidia", 401, "{}", Verdict::Credential),
            ("slack", 200, r#"{"ok":true}"#, Verdict::Works),
            (
                "slack",
                200,
                r#"{"ok":false,"error":"invalid_auth"}"#,
                Verdict::Credential,
            ),
            ("telegram", 401, r#"{"ok":false}"#, Verdict::Credential),
        ];
        for (kind, status, body, expected) in cases {
            assert_eq!(
                verdict(kind, status, body),
                expected,
                "{kind} {status} {body}"
            );
        }
    }
}
