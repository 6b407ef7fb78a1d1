//! The pages that orchestrators read.

use std::time::Duration;

use bytes::Bytes;
use farrier_ledger::{Ledger, Stats};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use tracing::warn;

use crate::metrics::{self, Metrics};
use crate::relay::Source;
use crate::rescue::Cause;

/// What readiness depends on.
pub(crate) struct Readiness<'a> {
    pub(crate) ledger: &'a dyn Ledger,
    pub(crate) draining: bool,
}

/// `/healthz`: the process answers.
pub(crate) fn health() -> Response<Source> {
    page(
        StatusCode::OK,
        "text/plain; charset=utf-8",
        Bytes::from_static(b"ok\n"),
    )
}

/// `/metrics`
pub(crate) fn metrics(metrics: &Metrics, ledger: Stats) -> Result<Response<Source>, Cause> {
    let text = metrics.page(ledger).map_err(|source| Cause::Unexpected {
        what: "the metrics page",
        source,
    })?;
    Ok(page(StatusCode::OK, metrics::CONTENT_TYPE, text.into()))
}

impl Readiness<'_> {
    /// `/readyz`: new work is welcome.
    pub(crate) async fn page(&self) -> Response<Source> {
        let (status, text) = match self.obstacle().await {
            None => (StatusCode::OK, "ready\n"),
            Some(obstacle) => (StatusCode::SERVICE_UNAVAILABLE, obstacle),
        };
        page(
            status,
            "text/plain; charset=utf-8",
            Bytes::from_static(text.as_bytes()),
        )
    }

    async fn obstacle(&self) -> Option<&'static str> {
        if self.draining {
            return Some("not ready: draining\n");
        }
        match tokio::time::timeout(LEDGER_ANSWER, self.ledger.ready()).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => {
                warn!(%error, "the ledger is not ready");
                Some("not ready: the turn ledger cannot be used\n")
            }
            Err(_) => Some("not ready: the turn ledger does not answer\n"),
        }
    }
}

fn page(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Source> {
    let mut response = Response::new(Source::Whole(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Shorter than a probe's own patience, which is a second by Kubernetes' default.
const LEDGER_ANSWER: Duration = Duration::from_millis(800);
