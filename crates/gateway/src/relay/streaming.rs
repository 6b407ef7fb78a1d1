//! An event stream through its plan.
//!
//! ```text
//!            ┌─────────────────────────── bytes ──────────────────────────┐
//!            ▼                                                            │
//!  steps left? ──Forward──▶ client                                        │
//!      │  └────Commit───▶ await the ledger, then on                       │
//!      no ──▶ over? ──yes──▶ end of the reply                             │
//!                └──no───▶ read the provider ──end, break, silence──▶ end of the run
//! ```
//!
//! What follows a commit is not given to the client before the ledger has answered, or its deadline passed.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use farrier_compat::fault::Fault;
use farrier_compat::run::{End, Step, StreamRun};
use http_body::Frame;
use tracing::warn;

use super::silence::Silence;
use super::{Aborted, Relay};
use crate::record::{Ending, Record};
use crate::rescue::code_of;
use crate::upstream::{Arriving, Decoder, Next, UpstreamFault};

/// Drives one run over one reply.
pub(crate) struct Streaming {
    body: Arriving,
    decoder: Decoder,
    silence: Silence,
    run: StreamRun,
    relay: Relay,
    /// What the run wants done, in order.
    steps: VecDeque<Step>,
    /// The write that is waited for.
    commit: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    over: bool,
}

impl Streaming {
    pub(super) fn new(body: Arriving, decoder: Decoder, run: StreamRun, relay: Relay) -> Self {
        Self {
            body,
            decoder,
            silence: Silence::new(relay.silence),
            run,
            relay,
            steps: VecDeque::new(),
            commit: None,
            over: false,
        }
    }

    pub(super) fn poll_next(
        &mut self,
        record: &mut Record,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        loop {
            if let Some(commit) = &mut self.commit {
                ready!(commit.as_mut().poll(cx));
                self.commit = None;
            }
            match self.steps.pop_front() {
                Some(Step::Forward(bytes)) if bytes.is_empty() => continue,
                Some(Step::Forward(bytes)) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Some(Step::Commit(turn)) => {
                    self.commit = Some(Box::pin(self.relay.memory.clone().remember(turn)));
                    continue;
                }
                None if self.over => return Poll::Ready(None),
                None => {}
            }
            let read = ready!(self.silence.poll_frame(&mut self.body, cx));
            self.take(read, record);
            record.noted(self.run.take_notes());
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.over && self.steps.is_empty() && self.commit.is_none()
    }

    pub(super) fn ending(&self) -> Ending {
        self.run.outcome().into()
    }

    /// Gives the run what was read, or tells it that there is no more.
    fn take(&mut self, read: Result<Next, UpstreamFault>, record: &mut Record) {
        let data = match read {
            Ok(Some(Ok(frame))) => frame.into_data().map_err(|_trailers| None),
            Ok(None) => match self.decoder.end() {
                Ok(()) => return self.end(End::Clean),
                Err(fault) => Err(Some(fault)),
            },
            Ok(Some(Err(_))) => Err(Some(UpstreamFault::BodyBroken {
                received: record.bytes_out,
            })),
            Err(fault) => Err(Some(fault)),
        };
        match data.and_then(|coded| self.decoder.push(coded).map_err(Some)) {
            Ok(plain) => self.push(plain, record),
            Err(None) => {}
            Err(Some(fault)) => {
                let broken = matches!(fault, UpstreamFault::BodyBroken { .. });
                let error = self.relay.upstream.fault(fault);
                record.upstream_failed(&error);
                if broken {
                    self.end(End::Truncated);
                } else {
                    let why = Fault::upstream(code_of(&error.fault), error.to_string());
                    self.end_because(End::Failed, Some(why));
                }
            }
        }
    }

    fn push(&mut self, plain: Bytes, record: &mut Record) {
        record.upstream_sent(&plain);
        let mut steps = Vec::new();
        let pushed = self.run.push(plain, &mut steps);
        self.steps.extend(steps);
        if let Err(fault) = pushed {
            warn!(provider = %self.relay.upstream.name, code = fault.code, "reply cannot be read: {fault}");
            record.blame = Some(fault.blame);
            self.end(End::Failed);
        }
    }

    fn end(&mut self, end: End) {
        self.end_because(end, None);
    }

    fn end_because(&mut self, end: End, why: Option<Fault>) {
        let mut steps = Vec::new();
        self.run.end_because(end, why, &mut steps);
        self.steps.extend(steps);
        self.over = true;
    }
}

impl Drop for Streaming {
    /// The client left. What it was given of a turn it may replay, so that is handed over to be remembered: first the
    /// write that is under way, then those that were to follow it.
    fn drop(&mut self) {
        if !self.over {
            self.end(End::ClientGone);
        }
        let under_way = self.commit.take();
        let turns: Vec<_> = std::mem::take(&mut self.steps)
            .into_iter()
            .filter_map(|step| match step {
                Step::Commit(turn) => Some(turn),
                Step::Forward(_) => None,
            })
            .collect();
        if under_way.is_none() && turns.is_empty() {
            return;
        }
        let memory = self.relay.memory.clone();
        drop(self.relay.writes.spawn(async move {
            if let Some(write) = under_way {
                write.await;
            }
            for turn in turns {
                memory.clone().remember(turn).await;
            }
        }));
    }
}

impl fmt::Debug for Streaming {
    /// Shows no steps: they hold what a model wrote.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streaming")
            .field("over", &self.over)
            .finish_non_exhaustive()
    }
}
