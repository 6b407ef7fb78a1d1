//! What is kept of a request once it is over: one log event, a few counters, and a transcript if asked for.
//!
//! A [`Record`] travels with its request and is finished exactly once. Whoever knows how the reply ended says so; if the
//! record is dropped instead, the client left (its connection's future was dropped with all it held), or the drain
//! deadline cut it. No body, key or session name ever enters the log.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use farrier_compat::fault::Blame;
use farrier_compat::passes::Note;
use farrier_compat::run::Outcome;
use farrier_serve::Tracker;
use http::StatusCode;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::care::{Admission, Place};
use crate::identify::Caller;
use crate::metrics::Metrics;
use crate::rescue::Answer;
use crate::select::Route;
use crate::trace::Capture;
use crate::upstream::UpstreamError;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The client left first.
    ClientGone,
    /// The reply ended as it should.
    Complete,
    /// The drain deadline passed first.
    Cut,
    /// The reply ended with an error.
    Failed,
    /// No provider's reply was used: the answer is ours.
    Refused,
    /// The provider's reply broke off.
    Truncated,
}

/// How a ledger was found that could not be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LedgerState {
    /// Only what waits to be stored was looked through.
    Degraded,
    /// Nothing is known of the history.
    Unavailable,
}

/// One request, from its head to its last byte.
#[derive(Debug)]
pub(crate) struct Record {
    metrics: Arc<Metrics>,
    tasks: Tracker,
    started: Instant,
    first_byte: Option<Duration>,
    caller: Option<Caller>,
    route: Option<Arc<Route>>,
    /// Who was asked last, or who answered.
    provider: Option<Arc<str>>,
    /// How often a provider was asked.
    pub(crate) attempts: u32,
    status: u16,
    pub(crate) blame: Option<Blame>,
    pub(crate) bytes_in: usize,
    pub(crate) bytes_out: usize,
    effects: usize,
    capture: Option<Box<Capture>>,
    admission: Option<Admission>,
    place: Option<Place>,
    /// What the client is told of the ledger, if it could not be asked.
    pub(crate) ledger: Option<LedgerState>,
    refused: bool,
    finished: bool,
}

// === impl Record ===

impl Record {
    pub(crate) fn start(metrics: &Arc<Metrics>, tasks: &Tracker) -> Self {
        metrics.in_flight.inc();
        Self {
            metrics: Arc::clone(metrics),
            tasks: tasks.clone(),
            started: Instant::now(),
            first_byte: None,
            caller: None,
            route: None,
            provider: None,
            attempts: 0,
            status: 0,
            blame: None,
            bytes_in: 0,
            bytes_out: 0,
            effects: 0,
            capture: None,
            admission: None,
            place: None,
            ledger: None,
            refused: false,
            finished: false,
        }
    }

    /// Nothing is kept of this request after all: it is a probe.
    pub(crate) fn discard(&mut self) {
        self.finished = true;
        self.metrics.in_flight.dec();
    }

    pub(crate) fn by(&mut self, caller: &Caller) {
        self.caller = Some(caller.clone());
    }

    pub(crate) fn on_route(&mut self, route: &Arc<Route>) {
        self.route = Some(Arc::clone(route));
    }

    /// When the request came.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// The caller may have this request under way; until it ends.
    pub(crate) fn admitted(&mut self, admission: Option<Admission>) {
        self.admission = admission;
    }

    /// A provider is asked.
    pub(crate) fn attempted(&mut self, provider: &Arc<str>) {
        self.attempts += 1;
        self.provider = Some(Arc::clone(provider));
    }

    /// The request takes a place at its provider, until it ends.
    pub(crate) fn occupies(&mut self, place: Option<Place>) {
        self.place = place;
    }

    /// The reply that took a place is not going to be read.
    pub(crate) fn vacates(&mut self) {
        self.place = None;
    }

    /// The head of the reply that the client is given is here, and who it is from.
    pub(crate) fn answered(&mut self, status: StatusCode, provider: &Arc<str>) {
        self.status = status.as_u16();
        self.blame = None;
        if self.provider.as_ref() != Some(provider) {
            self.provider = Some(Arc::clone(provider));
        }
        let waited = self.started.elapsed();
        self.first_byte = Some(waited);
        if let Some(route) = &self.route {
            route.metrics.first_byte.observe(waited.as_secs_f64());
        }
    }

    /// What passes did.
    pub(crate) fn noted(&mut self, notes: Vec<Note>) {
        self.effects += notes.len();
        self.metrics.effects(&notes);
        if let Some(capture) = &mut self.capture {
            capture.noted(notes);
        }
    }

    /// Keeps a transcript of this request from here on.
    pub(crate) fn captured(&mut self, capture: Capture) {
        self.capture = Some(Box::new(capture));
    }

    /// The transcript so far; another may be begun.
    pub(crate) fn take_capture(&mut self) -> Option<Box<Capture>> {
        self.capture.take()
    }

    /// Goes on with a transcript that was taken.
    pub(crate) fn recapture(&mut self, capture: Option<Box<Capture>>) {
        self.capture = capture;
    }

    /// What goes on to the provider.
    pub(crate) fn sent_on<'a>(&mut self, pieces: impl Iterator<Item = &'a Bytes>) {
        if let Some(capture) = &mut self.capture {
            capture.sent_on(pieces);
        }
    }

    /// What the provider sent, decoded.
    pub(crate) fn upstream_sent(&mut self, data: &Bytes) {
        if let Some(capture) = &mut self.capture {
            capture.upstream_sent(data);
        }
    }

    /// What the client is given.
    pub(crate) fn client_given(&mut self, data: &Bytes) {
        self.bytes_out += data.len();
        if let Some(capture) = &mut self.capture {
            capture.client_given(data);
        }
    }

    /// The provider failed us.
    pub(crate) fn upstream_failed(&mut self, error: &UpstreamError) {
        warn!(target: "farrier::upstream", kind = error.fault.kind(), "{error}");
        self.blame = Some(Blame::Upstream);
        self.metrics
            .upstream_error(&error.provider, error.fault.kind());
    }

    /// The answer is ours.
    pub(crate) fn refused(&mut self, answer: &Answer) {
        self.status = answer.status.as_u16();
        self.blame = Some(answer.blame);
        self.refused = true;
    }

    /// The reply is over. Only the first call counts.
    pub(crate) fn finish(&mut self, ending: Ending) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        let ending = if self.refused && ending == Ending::Complete {
            Ending::Refused
        } else {
            ending
        };
        let took = self.started.elapsed();
        self.metrics.in_flight.dec();
        (self.admission, self.place) = (None, None);
        match &self.route {
            Some(route) => {
                route.metrics.duration.observe(took.as_secs_f64());
                self.metrics
                    .request(&route.model, self.status, ending.as_str());
            }
            None => self
                .metrics
                .request(&Arc::clone(&NO_ROUTE), self.status, ending.as_str()),
        }
        self.log(ending, took);
        if let Some(capture) = self.capture.take() {
            capture.finish(self.status, ending, &self.metrics);
        }
    }

    fn log(&self, ending: Ending, took: Duration) {
        info!(
            target: "farrier::request",
            scope = self.caller.as_ref().map(|caller| tracing::field::debug(&caller.scope)),
            agent = self.caller.as_ref().and_then(|caller| caller.agent.as_deref()),
            model = self.route.as_ref().map(|route| &*route.model),
            provider = self.provider.as_deref(),
            attempts = self.attempts,
            status = self.status,
            fault = self.blame.map(Blame::as_str),
            ending = ending.as_str(),
            bytes_in = self.bytes_in,
            bytes_out = self.bytes_out,
            first_byte_ms = self.first_byte.map(millis),
            took_ms = millis(took),
            effects = self.effects,
            "request"
        );
    }
}

impl Drop for Record {
    /// Signals the ending that nobody was left to tell.
    fn drop(&mut self) {
        self.finish(if self.tasks.is_cut() {
            Ending::Cut
        } else {
            Ending::ClientGone
        });
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

// === impl Ending ===

impl Ending {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::ClientGone => "client_gone",
            Self::Complete => "complete",
            Self::Cut => "cut",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Truncated => "truncated",
        }
    }
}

// === impl LedgerState ===

impl LedgerState {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Degraded => "degraded",
            Self::Unavailable => "unavailable",
        }
    }
}

impl From<Outcome> for Ending {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::ClientGone => Self::ClientGone,
            Outcome::Complete => Self::Complete,
            Outcome::Failed => Self::Failed,
            Outcome::Truncated => Self::Truncated,
        }
    }
}

/// The route label of requests that reached no route.
static NO_ROUTE: LazyLock<Arc<str>> = LazyLock::new(|| "".into());
