//! The one map from what went wrong to what the client is told.
//!
//! In: a [`Cause`]. Out: a status and a body that clients of model providers understand:
//!
//! ```json
//! {"error":{"message":"…","type":"egress_refused","code":"credential_unavailable"}}
//! ```
//!
//! with `x-farrier-fault: client | upstream | farrier`, and `x-should-retry: false` where trying again cannot help. No
//! message holds a secret or any part of a body.

use bytes::Bytes;
use farrier_secrets::Refusal;
use farrier_serve::BodyError;
use http::header::{CONNECTION, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;

use crate::ca::CaError;
use crate::head::Fault;
use crate::inject::InjectError;
use crate::policy::Denied;
use crate::resolve::DialError;
use crate::target::Malformed;
use crate::upstream::{Unreached, UpstreamError};

/// Why a request, or a tunnel, gets an answer of ours.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Cause {
    #[error(transparent)]
    Authority(#[from] CaError),
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error(transparent)]
    Head(#[from] Fault),
    #[error(transparent)]
    Inject(#[from] InjectError),
    #[error("expected a method that does not send requests back, got TRACE")]
    Method,
    #[error("expected an absolute URL, or CONNECT, since this is a proxy; got a path alone")]
    NotProxied,
    #[error(transparent)]
    Target(#[from] Malformed),
    #[error(
        "expected decisions to be recorded, got a file that cannot be written to at present; try again later"
    )]
    Unrecorded,
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
}

/// What the client is told.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    fault: &'static str,
    message: String,
    retry: bool,
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
    code: &'static str,
}

/// Who is to blame for an answer of ours. No destination's has it.
pub(crate) const FAULT: &str = "x-farrier-fault";

impl From<Unreached> for Cause {
    fn from(unreached: Unreached) -> Self {
        match unreached {
            Unreached::Dial(error) => Self::Dial(error),
            Unreached::Upstream(error) => Self::Upstream(error),
        }
    }
}

/// Finds the answer to a cause. Every status we give of our own is in this function.
pub(crate) fn rescue(cause: &Cause) -> Answer {
    const CLIENT: &str = "client";
    const UPSTREAM: &str = "upstream";
    const US: &str = "farrier";
    let (status, fault, code) = match cause {
        Cause::Authority(_) => (StatusCode::INTERNAL_SERVER_ERROR, US, "certificate"),
        Cause::Body(BodyError::CutOff { .. }) => {
            (StatusCode::BAD_REQUEST, CLIENT, "body_truncated")
        }
        Cause::Body(BodyError::TimedOut { .. }) => {
            (StatusCode::REQUEST_TIMEOUT, CLIENT, "body_timeout")
        }
        Cause::Body(BodyError::TooLarge { .. }) => {
            (StatusCode::PAYLOAD_TOO_LARGE, CLIENT, "body_too_large")
        }
        Cause::Denied(_) => (StatusCode::FORBIDDEN, CLIENT, "policy_denied"),
        Cause::Dial(DialError::Address(_)) => (StatusCode::FORBIDDEN, CLIENT, "ssrf_denied"),
        Cause::Dial(DialError::Connect { .. }) => {
            (StatusCode::BAD_GATEWAY, UPSTREAM, "upstream_unreachable")
        }
        Cause::Dial(DialError::Name { .. }) => {
            (StatusCode::BAD_GATEWAY, UPSTREAM, "upstream_unknown_name")
        }
        Cause::Dial(DialError::TimedOut { .. }) => (
            StatusCode::GATEWAY_TIMEOUT,
            UPSTREAM,
            "upstream_connect_timeout",
        ),
        Cause::Head(Fault::HostMismatch) => (
            StatusCode::MISDIRECTED_REQUEST,
            CLIENT,
            "request_authority_mismatch",
        ),
        Cause::Head(Fault::TooLarge) => (
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            CLIENT,
            "head_too_large",
        ),
        Cause::Head(fault) => (StatusCode::BAD_REQUEST, CLIENT, fault.as_str()),
        Cause::Inject(InjectError::Characters { .. }) => {
            (StatusCode::INTERNAL_SERVER_ERROR, US, "credential_unfit")
        }
        Cause::Inject(InjectError::Misplaced { .. }) => {
            (StatusCode::BAD_REQUEST, CLIENT, "credential_misplaced")
        }
        Cause::Inject(InjectError::Refused(Refusal::EndpointMismatch { .. })) => (
            StatusCode::FORBIDDEN,
            CLIENT,
            "credential_endpoint_mismatch",
        ),
        Cause::Inject(InjectError::Refused(Refusal::Unavailable(_))) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            US,
            "credential_unavailable",
        ),
        Cause::Method => (StatusCode::METHOD_NOT_ALLOWED, CLIENT, "method_not_allowed"),
        Cause::NotProxied => (StatusCode::BAD_REQUEST, CLIENT, "not_proxied"),
        Cause::Target(_) => (StatusCode::BAD_REQUEST, CLIENT, "target_malformed"),
        Cause::Unrecorded => (StatusCode::SERVICE_UNAVAILABLE, US, "audit_behind"),
        Cause::Upstream(error) if error.timed_out() => {
            (StatusCode::GATEWAY_TIMEOUT, UPSTREAM, error.as_str())
        }
        Cause::Upstream(error) => (StatusCode::BAD_GATEWAY, UPSTREAM, error.as_str()),
    };
    Answer {
        status,
        code,
        fault,
        message: cause.to_string(),
        retry: fault == UPSTREAM || matches!(cause, Cause::Unrecorded),
    }
}

// === impl Answer ===

impl Answer {
    /// The answer as it is sent. The connection ends with it: what the client meant next is not known.
    pub(crate) fn response(&self) -> Response<Bytes> {
        let body = Body {
            error: ErrorBody {
                message: &self.message,
                kind: "egress_refused",
                code: self.code,
            },
        };
        let body = serde_json::to_vec(&body).unwrap_or_default(); // strings always have a spelling
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(FAULT, HeaderValue::from_static(self.fault));
        if !self.retry {
            headers.insert("x-should-retry", HeaderValue::from_static("false"));
        }
        response
    }

    /// The same for a client of HTTP/1.1 whose next bytes are not to be read.
    pub(crate) fn last_response(&self) -> Response<Bytes> {
        let mut response = self.response();
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
        response
    }
}
