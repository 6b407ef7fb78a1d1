//! What each chat request told the model, and how its answer ended.
//!
//! In: a page for each request from the server, and one ending for each page. Out: [`Log::entries`], and `GET /sim/log`.
//! Bounded: the oldest pages go first and are counted. No contents and no keys: ids, names, verdicts and times.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::behaviour::Behaviour;
use crate::mind::{Answer, Decision, Heard, Intent, Verdict};

/// A handle on a server's log; clones share it.
#[derive(Clone, Debug)]
pub struct Log(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pages: Mutex<Pages>,
    /// Bumped by every change, for those who wait.
    changed: watch::Sender<u64>,
    born: Instant,
    most: usize,
}

#[derive(Debug, Default)]
struct Pages {
    entries: VecDeque<Entry>,
    requests: u64,
    cancelled: u64,
}

/// One chat request.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// Counts from 1; also in the answer's `x-request-id`, as `sim-<seq>`.
    pub seq: u64,
    /// Milliseconds since the server began.
    pub arrived_ms: u64,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub protocol: String,
    /// What reached the model; absent when nothing did.
    pub heard: Option<Heard>,
    /// `call`, `finish`, `lose_thread` or `refuse`, and why.
    pub verdict: Value,
    /// How the answer travelled.
    pub behaviour: Behaviour,
    /// How it ended.
    pub outcome: Outcome,
}

/// How an answer ended; times are milliseconds since the server began.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Outcome {
    /// Still being written.
    Speaking,
    /// Every byte was handed over.
    Done {
        /// When.
        at_ms: u64,
    },
    /// The persona broke it off, as its behaviour asked or because it stopped.
    Aborted {
        /// When.
        at_ms: u64,
    },
    /// The client left before the end.
    Cancelled {
        /// When the server noticed.
        at_ms: u64,
    },
}

/// The duty to say how one answer ended. Dropped without a word, it says that the client left.
#[derive(Debug)]
pub(crate) struct Page {
    log: Log,
    seq: u64,
    open: bool,
}

impl Log {
    pub(crate) fn new(most: usize) -> Self {
        Self(Arc::new(Inner {
            pages: Mutex::default(),
            changed: watch::Sender::new(0),
            born: Instant::now(),
            most: most.max(1),
        }))
    }

    /// The entries kept, oldest first.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        self.pages().entries.iter().cloned().collect()
    }

    /// How many chat requests came, those no longer kept included.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.pages().requests
    }

    /// How many clients left before the end of their answer.
    #[must_use]
    pub fn cancelled(&self) -> u64 {
        self.pages().cancelled
    }

    /// Waits until the log is so. Unbounded: wrap it in a timeout. Safe to drop.
    pub async fn until(&self, mut holds: impl FnMut(&Self) -> bool) {
        let mut changes = self.0.changed.subscribe();
        while !holds(self) {
            // Cannot fail: `self` holds the sender.
            let _closed = changes.changed().await;
        }
    }

    /// What `GET /sim/log` answers.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let now_ms = self.now_ms();
        let pages = self.pages();
        json!({
            "now_ms": now_ms,
            "requests": pages.requests,
            "cancelled": pages.cancelled,
            "dropped": pages.requests - pages.entries.len() as u64,
            "entries": pages.entries,
        })
    }

    /// Reserves a number for a request and says when it came.
    pub(crate) fn arrive(&self) -> (u64, u64) {
        let arrived_ms = self.now_ms();
        let mut pages = self.pages();
        pages.requests += 1;
        (pages.requests, arrived_ms)
    }

    /// Opens the page of a request.
    pub(crate) fn open(&self, entry: Entry) -> Page {
        let seq = entry.seq;
        self.change(|pages| {
            pages.entries.push_back(entry);
            while pages.entries.len() > self.0.most {
                pages.entries.pop_front();
            }
        });
        Page {
            log: self.clone(),
            seq,
            open: true,
        }
    }

    fn end(&self, seq: u64, outcome: Outcome) {
        self.change(|pages| {
            pages.cancelled += u64::from(matches!(outcome, Outcome::Cancelled { .. }));
            if let Some(entry) = pages.entries.iter_mut().find(|entry| entry.seq == seq) {
                entry.outcome = outcome;
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut Pages)) {
        change(&mut self.pages());
        self.0.changed.send_modify(|count| *count += 1);
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.0.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// A panic elsewhere leaves the pages whole: every change is one push or one assignment.
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Page {
    pub(crate) fn done(&mut self) {
        self.end(|at_ms| Outcome::Done { at_ms });
    }

    pub(crate) fn aborted(&mut self) {
        self.end(|at_ms| Outcome::Aborted { at_ms });
    }

    fn end(&mut self, outcome: impl FnOnce(u64) -> Outcome) {
        if std::mem::take(&mut self.open) {
            self.log.end(self.seq, outcome(self.log.now_ms()));
        }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.end(|at_ms| Outcome::Cancelled { at_ms });
    }
}

/// A verdict as the log tells it.
pub(crate) fn verdict(verdict: &Verdict) -> Value {
    match &verdict.decision {
        Decision::Refuse(refusal) => {
            json!({"kind": "refuse", "status": refusal.status, "message": refusal.message})
        }
        Decision::Say(answer) => said(answer),
    }
}

fn said(answer: &Answer) -> Value {
    let ids: Vec<&str> = answer.calls.iter().map(|call| call.id.as_str()).collect();
    match &answer.intent {
        Intent::Call => json!({"kind": "call", "ids": ids}),
        Intent::Finish => json!({"kind": "finish"}),
        Intent::LoseThread(lost) => json!({"kind": "lose_thread", "lost": lost}),
    }
}
