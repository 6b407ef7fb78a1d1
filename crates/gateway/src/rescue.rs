//! The one map from what went wrong to what the client is told.
//!
//! In: a [`Cause`]. Out: a status, a fault header and an OpenAI-shaped body:
//!
//! ```json
//! {"error":{"message":"…","type":"invalid_request_error","param":"model","code":"model_not_found"}}
//! ```
//!
//! with `x-farrier-fault: client | upstream | farrier`. The header's absence on an error means that the provider
//! itself gave that answer. No message holds a credential or any part of a body.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use farrier_compat::fault::{Blame, Fault};
use farrier_serve::BodyError;
use http::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use serde::Serialize;

use crate::care::{Busy, Exceeded};
use crate::identify::{NoEndpoint, Refused};
use crate::passthrough::NotAllowed;
use crate::select::NoRoute;
use crate::upstream::{UpstreamError, UpstreamFault};

/// Why a request gets an answer of ours instead of a provider's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Cause {
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error("expected a plain request body, got content-encoding {0:?}; send it uncompressed")]
    BodyEncoded(String),
    #[error("expected a free place at provider {provider:?}, got {busy}; try again")]
    Busy { provider: Arc<str>, busy: Busy },
    #[error(transparent)]
    Compat(#[from] Fault),
    #[error(transparent)]
    Exceeded(#[from] Exceeded),
    #[error(
        "expected a provider that answers, got {provider:?}, which failed repeatedly and is left alone; try again in \
         {} s",
        seconds(*left)
    )]
    LeftAlone { provider: Arc<str>, left: Duration },
    #[error(transparent)]
    NoEndpoint(#[from] NoEndpoint),
    #[error(transparent)]
    NoRoute(#[from] NoRoute),
    #[error(transparent)]
    NotAllowed(#[from] NotAllowed),
    #[error("expected a path that is a URL with base_url before it, got another")]
    Path,
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("{what} could not be made; see the gateway's log")]
    Unexpected {
        what: &'static str,
        source: std::fmt::Error,
    },
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
}

/// What the client is told.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) blame: Blame,
    code: &'static str,
    message: String,
    param: Option<String>,
    extra: Option<(HeaderName, HeaderValue)>,
}

#[derive(Serialize)]
struct Body<'a> {
    error: ErrorBody<'a>,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    param: Option<&'a str>,
    code: &'static str,
}

/// Finds the answer to a cause. Every status we give of our own is in this function.
pub(crate) fn rescue(cause: &Cause) -> Answer {
    use Blame::{Client, Upstream, Us};
    let (status, blame, code) = match cause {
        Cause::Body(BodyError::CutOff { .. }) => {
            (StatusCode::BAD_REQUEST, Client, "body_truncated")
        }
        Cause::Body(BodyError::TimedOut { .. }) => {
            (StatusCode::REQUEST_TIMEOUT, Client, "body_timeout")
        }
        Cause::Body(BodyError::TooLarge { .. }) => {
            (StatusCode::PAYLOAD_TOO_LARGE, Client, "body_too_large")
        }
        Cause::BodyEncoded(_) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, Client, "body_encoded"),
        Cause::Busy { busy, .. } => match busy {
            Busy::TurnedAway => (StatusCode::TOO_MANY_REQUESTS, Client, "queue_full"),
            Busy::WaitedTooLong(_) => (StatusCode::SERVICE_UNAVAILABLE, Upstream, "provider_busy"),
        },
        Cause::Compat(fault) => (status_of(fault.blame), fault.blame, fault.code),
        Cause::Exceeded(Exceeded::Concurrency { .. }) => (
            StatusCode::TOO_MANY_REQUESTS,
            Client,
            "concurrency_limit_exceeded",
        ),
        Cause::Exceeded(Exceeded::Rate { .. }) => {
            (StatusCode::TOO_MANY_REQUESTS, Client, "rate_limit_exceeded")
        }
        Cause::LeftAlone { .. } => (
            StatusCode::SERVICE_UNAVAILABLE,
            Upstream,
            "provider_unavailable",
        ),
        Cause::NoEndpoint(NoEndpoint::Method { .. }) => {
            (StatusCode::METHOD_NOT_ALLOWED, Client, "method_not_allowed")
        }
        Cause::NoEndpoint(NoEndpoint::Path) | Cause::Path => {
            (StatusCode::NOT_FOUND, Client, "path_not_found")
        }
        Cause::NoRoute(NoRoute::Another { .. } | NoRoute::Model { .. }) => {
            (StatusCode::NOT_FOUND, Client, "model_not_found")
        }
        Cause::NoRoute(NoRoute::NoDefault) => (StatusCode::NOT_FOUND, Client, "provider_not_found"),
        Cause::NotAllowed(_) => (StatusCode::FORBIDDEN, Client, "path_not_allowed"),
        Cause::Refused(Refused::AgentName) => {
            (StatusCode::BAD_REQUEST, Client, "agent_name_malformed")
        }
        Cause::Refused(Refused::Host) => (StatusCode::FORBIDDEN, Client, "host_not_allowed"),
        Cause::Refused(Refused::KeyMissing) => {
            (StatusCode::UNAUTHORIZED, Client, "client_key_missing")
        }
        Cause::Refused(Refused::KeyUnknown) => {
            (StatusCode::UNAUTHORIZED, Client, "client_key_unknown")
        }
        Cause::Refused(Refused::Origin) => (StatusCode::FORBIDDEN, Client, "origin_not_allowed"),
        Cause::Unexpected { .. } => (StatusCode::INTERNAL_SERVER_ERROR, Us, "unexpected"),
        Cause::Upstream(error) if error.fault.timed_out() => {
            (StatusCode::GATEWAY_TIMEOUT, Upstream, code_of(&error.fault))
        }
        Cause::Upstream(error) => (StatusCode::BAD_GATEWAY, Upstream, code_of(&error.fault)),
    };
    Answer {
        status,
        blame,
        code,
        message: cause.to_string(),
        param: param_of(cause),
        extra: extra_of(cause),
    }
}

fn status_of(blame: Blame) -> StatusCode {
    match blame {
        Blame::Client => StatusCode::BAD_REQUEST,
        Blame::Upstream => StatusCode::BAD_GATEWAY,
        Blame::Us => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The stable code of what happened towards a provider.
pub(crate) fn code_of(fault: &UpstreamFault) -> &'static str {
    match fault {
        UpstreamFault::BodyBroken { .. }
        | UpstreamFault::Closed
        | UpstreamFault::ClosedToo
        | UpstreamFault::ClosedWhileKept => "upstream_closed",
        UpstreamFault::BodyTooLarge { .. } => "upstream_reply_too_large",
        UpstreamFault::EncodingUnknown(_) | UpstreamFault::EncodingWrong => "upstream_encoding",
        UpstreamFault::NotHttp => "upstream_not_http",
        UpstreamFault::ConnectTimedOut { .. } => "upstream_connect_timeout",
        UpstreamFault::HeadTimedOut { .. } | UpstreamFault::OutOfTime { .. } => "upstream_timeout",
        UpstreamFault::Refused => "upstream_refused",
        UpstreamFault::ReplyTimedOut { .. } => "upstream_reply_timeout",
        UpstreamFault::Silent { .. } => "upstream_silent",
        UpstreamFault::Unreachable { .. } => "upstream_unreachable",
        UpstreamFault::Untrusted { .. } => "upstream_untrusted",
    }
}

fn param_of(cause: &Cause) -> Option<String> {
    match cause {
        Cause::Compat(fault) => fault.param.clone(),
        Cause::NoRoute(_) => Some("model".to_owned()),
        _ => None,
    }
}

fn extra_of(cause: &Cause) -> Option<(HeaderName, HeaderValue)> {
    let retry_after = |wait| Some((RETRY_AFTER, HeaderValue::from(seconds(wait))));
    match cause {
        Cause::Busy { .. } | Cause::Exceeded(Exceeded::Concurrency { .. }) => retry_after(SOON),
        Cause::Exceeded(Exceeded::Rate {
            retry_after: wait, ..
        }) => retry_after(*wait),
        Cause::LeftAlone { left, .. } => retry_after(*left),
        Cause::NoEndpoint(NoEndpoint::Method { allowed, .. }) => {
            Some((ALLOW, HeaderValue::from_static(allowed)))
        }
        Cause::Refused(Refused::KeyMissing | Refused::KeyUnknown) => {
            Some((WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")))
        }
        _ => None,
    }
}

/// Whole seconds after which a wait is over, as `retry-after` has them; at least one.
fn seconds(wait: Duration) -> u64 {
    let begun = u64::from(wait.subsec_nanos() > 0);
    (wait.as_secs() + begun).max(1)
}

/// When places are free again nobody knows.
const SOON: Duration = Duration::from_secs(1);

// === impl Answer ===

impl Answer {
    /// The head of the answer, and its body beside it.
    pub(crate) fn into_parts(self) -> (Response<()>, Bytes) {
        let body = self.body();
        let mut response = Response::new(());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(FAULT, HeaderValue::from_static(self.blame.as_str()));
        headers.extend(self.extra);
        (response, body)
    }

    fn body(&self) -> Bytes {
        let error = ErrorBody {
            message: &self.message,
            kind: self.kind(),
            param: self.param.as_deref(),
            code: self.code,
        };
        let body = serde_json::to_vec(&Body { error }).expect("strings are valid JSON");
        body.into()
    }

    /// The `type` that OpenAI's clients know for such an error.
    fn kind(&self) -> &'static str {
        match (self.blame, self.status) {
            (Blame::Client, StatusCode::UNAUTHORIZED) => "authentication_error",
            (Blame::Client, StatusCode::FORBIDDEN) => "permission_error",
            (Blame::Client, StatusCode::TOO_MANY_REQUESTS) => "rate_limit_error",
            (Blame::Client, _) => "invalid_request_error",
            (Blame::Upstream, _) => "upstream_error",
            (Blame::Us, _) => "farrier_error",
        }
    }
}

/// Says whose fault an error of ours is.
pub(crate) const FAULT: HeaderName = HeaderName::from_static("x-farrier-fault");

#[cfg(test)]
#[path = "rescue_tests.rs"]
mod tests;
