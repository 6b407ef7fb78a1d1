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
    ///
    /// A ledger that fails for a while is no obstacle: turns wait in memory, and what cannot be recalled is
    /// answered for by each manifest's policy. A store that a fleet shares would otherwise, by failing, take
    /// every gateway of it out of rotation at once.
    pub(crate) async fn page(&self) -> Response<Source> {
        let (status, text) = if self.draining {
            (StatusCode::SERVICE_UNAVAILABLE, "not ready: draining\n")
        } else {
            self.by_the_ledger().await
        };
        page(
            status,
            "text/plain; charset=utf-8",
            Bytes::from_static(text.as_bytes()),
        )
    }

    async fn by_the_ledger(&self) -> (StatusCode, &'static str) {
        match tokio::time::timeout(LEDGER_ANSWER, self.ledger.ready()).await {
            Ok(Ok(())) => (StatusCode::OK, "ready\n"),
            Ok(Err(error)) if error.is_transient() => {
                warn!(%error, "the ledger cannot be used now");
                (
                    StatusCode::OK,
                    "ready, degraded: the turn ledger cannot be used now\n",
                )
            }
            Ok(Err(error)) => {
                warn!(%error, "the ledger is not ready");
                (
                    StatusCode::SERVICE_UNAVAILABLE,
                    "not ready: the turn ledger cannot be used\n",
                )
            }
            Err(_) => (
                StatusCode::OK,
                "ready, degraded: the turn ledger does not answer\n",
            ),
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
