//! Keeps what a store does not take now, and gives it to the store later.
//!
//! ```text
//! record ─▶ store ─┬─ takes it ─────────────────────────▶ Durable
//!                  └─ fails, or is late ─▶ queue ───────▶ Queued
//!                                           │ ▲
//!                       drain, in the background: again, until the store takes it or it is too old
//!
//! recall ─▶ what is queued ∪ what the store finds
//! ```
//!
//! *Guarantees.* A caller is told which of the two happened. What is queued is found by recalls, so
//! that this process restores the turns that it recorded while its store was down. If the store could
//! not be asked, an answer says so in [`Answer::unasked`], and with nothing found in the queue there
//! is no answer but the store's error: a miss is never made up.
//!
//! *Bounds.* The queue, in entries and bytes; the oldest go first. An entry's time in it. A call, by a
//! deadline that is shorter than the caller's patience. What is given up is counted.
//!
//! *Caveats.* What is queued is lost with the process. An entry that the store took without saying so
//! in time is given to it a second time.

mod queue;

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::backoff::Backoff;
use crate::{
    Answer, BoxFuture, Entry, Key, Ledger, LedgerError, MAX_CANDIDATES, Operation, Scope, Stats,
    Stored,
};
use queue::{Queue, Queued};

/// Given to the store together, in their order.
const BATCH: usize = 32;
/// Pauses between attempts that the store does not take.
const RETRY: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
/// Between two attempts, at least.
const LEAST_PAUSE: Duration = Duration::from_millis(100);
/// What a closing store may take beyond the time for what is queued.
const CLOSE_MARGIN: Duration = Duration::from_secs(1);

/// What an [`Outbox`] is bounded by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxConfig {
    /// How many entries may wait.
    pub max_entries: usize,
    /// What these may weigh together, in bytes.
    pub max_bytes: usize,
    /// How long an entry may wait.
    pub max_age: Duration,
    /// How long the store may take over one operation.
    pub deadline: Duration,
    /// How long what waits may take when the ledger is closed.
    pub flush: Duration,
}

impl Default for OutboxConfig {
    fn default() -> Self {
        Self {
            max_entries: 10_000,
            max_bytes: 64 << 20,
            max_age: Duration::from_secs(60 * 60),
            deadline: Duration::from_secs(2),
            flush: Duration::from_secs(5),
        }
    }
}

/// A ledger that keeps for a while what the one behind it does not take.
pub struct Outbox {
    shared: Arc<Waiting>,
    /// The one task that empties the queue.
    drain: tokio::sync::Mutex<JoinSet<()>>,
}

/// What the outbox and its task share.
struct Waiting {
    store: Arc<dyn Ledger>,
    config: OutboxConfig,
    queue: Mutex<Queue>,
    /// Something was queued.
    queued: Notify,
    /// The store has taken something while others waited.
    taken: Notify,
    closing: watch::Sender<bool>,
    dropped: AtomicU64,
    retried: AtomicU64,
}

/// What came of going through the queue once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    /// Nothing is left.
    Emptied,
    /// The store takes none, or not all.
    Stuck,
}

impl Outbox {
    /// Puts an outbox before a store.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    #[must_use]
    pub fn before(store: Arc<dyn Ledger>, config: OutboxConfig) -> Self {
        let shared = Arc::new(Waiting {
            store,
            config,
            queue: Mutex::new(Queue::new(config.max_entries, config.max_bytes)),
            queued: Notify::new(),
            taken: Notify::new(),
            closing: watch::Sender::new(false),
            dropped: AtomicU64::new(0),
            retried: AtomicU64::new(0),
        });
        let mut drain = JoinSet::new();
        drain.spawn(Arc::clone(&shared).drain());
        Self {
            shared,
            drain: tokio::sync::Mutex::new(drain),
        }
    }

    async fn finish(&self) -> Result<(), LedgerError> {
        let shared = &self.shared;
        shared.closing.send_replace(true);
        let mut drain = self.drain.lock().await;
        let flush = shared.config.flush + shared.config.deadline;
        let drained = async { while drain.join_next().await.is_some() {} };
        let _late_is_left_over = timeout(flush + CLOSE_MARGIN, drained).await;
        drain.shutdown().await;
        let left = shared.queue().clear() as u64;
        add(&shared.dropped, left);
        shared.store.close().await?;
        if left > 0 {
            return Err(LedgerError::Undelivered { entries: left });
        }
        Ok(())
    }
}

impl Ledger for Outbox {
    fn recall<'a>(
        &'a self,
        scope: &'a Scope,
        keys: &'a [Key],
    ) -> BoxFuture<'a, Result<Answer, LedgerError>> {
        Box::pin(self.shared.recall(scope, keys))
    }

    fn record<'a>(
        &'a self,
        scope: &'a Scope,
        entry: Entry,
    ) -> BoxFuture<'a, Result<Stored, LedgerError>> {
        Box::pin(self.shared.record(scope, entry))
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), LedgerError>> {
        self.shared.store.ready()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), LedgerError>> {
        Box::pin(self.finish())
    }

    fn stats(&self) -> Stats {
        let (entries, bytes) = self.shared.queue().size();
        Stats {
            dropped: self.shared.dropped.load(Ordering::Relaxed),
            queued: entries as u64,
            queued_bytes: bytes as u64,
            retried: self.shared.retried.load(Ordering::Relaxed),
            ..self.shared.store.stats()
        }
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox")
            .field("store", &self.shared.store)
            .field("config", &self.shared.config)
            .finish_non_exhaustive()
    }
}

impl Waiting {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // What panicked while it held the lock left no entry half queued.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn recall(&self, scope: &Scope, keys: &[Key]) -> Result<Answer, LedgerError> {
        // Before the store is asked: what it takes meanwhile is then found twice, not never.
        let queued = self.queue().find(scope, keys);
        let late = LedgerError::Timeout {
            operation: Operation::Recall,
            waited: self.config.deadline,
        };
        let asked = timeout(self.config.deadline, self.store.recall(scope, keys)).await;
        match (asked.unwrap_or(Err(late)), queued) {
            (asked, None) => asked,
            (Ok(stored), Some(queued)) => Ok(Answer {
                values: merged(queued, stored.values),
                unasked: stored.unasked,
            }),
            (Err(error), Some(queued)) if error.is_transient() => Ok(Answer {
                values: queued,
                unasked: Some(error),
            }),
            (Err(error), Some(_)) => Err(error),
        }
    }

    async fn record(&self, scope: &Scope, entry: Entry) -> Result<Stored, LedgerError> {
        match self.offer(scope, &entry).await {
            Ok(stored) => {
                if !self.queue().is_empty() {
                    self.taken.notify_one();
                }
                Ok(stored)
            }
            Err(error) if error.is_transient() && !*self.closing.borrow() => {
                let dropped = self.queue().push(scope.clone(), entry, Instant::now());
                add(&self.dropped, dropped.entries);
                self.queued.notify_one();
                if dropped.the_last_too {
                    return Err(error);
                }
                tracing::debug!(?scope, %error, "a turn waits for the ledger's store");
                Ok(Stored::Queued)
            }
            Err(error) => Err(error),
        }
    }

    /// Gives an entry to the store, within the deadline.
    async fn offer(&self, scope: &Scope, entry: &Entry) -> Result<Stored, LedgerError> {
        let waited = self.config.deadline;
        let offered = timeout(waited, self.store.record(scope, entry.clone())).await;
        offered.unwrap_or(Err(LedgerError::Timeout {
            operation: Operation::Record,
            waited,
        }))
    }

    /// Empties the queue whenever there is something in it; once more when closing.
    async fn drain(self: Arc<Self>) {
        let mut closing = self.closing.subscribe();
        let mut backoff = RETRY;
        loop {
            tokio::select! {
                () = self.queued.notified() => {}
                _closing = closing.wait_for(|closing| *closing) => break,
            }
            backoff.reset();
            while self.pass().await == Pass::Stuck {
                tokio::select! {
                    () = self.pause(backoff.next()) => {}
                    _closing = closing.wait_for(|closing| *closing) => break,
                }
            }
            if *closing.borrow() {
                break;
            }
        }
        self.flush().await;
    }

    /// Waits so long, or until the store takes something again; not less than a moment, since it may
    /// take some and not others.
    async fn pause(&self, due: Duration) {
        let least = due.min(LEAST_PAUSE);
        sleep(least).await;
        let _taken_or_due = timeout(due - least, self.taken.notified()).await;
    }

    /// Gives the store all that is left, as far as the time for it allows.
    async fn flush(&self) {
        let emptied = async {
            let mut backoff = RETRY;
            while self.pass().await == Pass::Stuck {
                sleep(backoff.next()).await;
            }
        };
        if timeout(self.config.flush, emptied).await.is_err() {
            let entries = self.queue().size().0;
            tracing::warn!(
                entries,
                "turns are lost: the ledger's store did not take them before the end"
            );
        }
    }

    /// Goes through the queue from its oldest entry, as long as the store takes something.
    async fn pass(&self) -> Pass {
        let mut after = None;
        let mut stuck = false;
        loop {
            self.expire();
            let batch = self.queue().batch(after, BATCH);
            let Some(last) = batch.last() else {
                return if stuck { Pass::Stuck } else { Pass::Emptied };
            };
            after = Some(last.number);
            let offers = batch
                .iter()
                .map(|queued| self.offer(&queued.scope, &queued.entry));
            let outcomes = join_all(offers).await;
            let mut taken = false;
            for (queued, outcome) in batch.iter().zip(outcomes) {
                let settled = self.settle(queued, outcome);
                taken |= settled;
                stuck |= !settled;
            }
            if !taken {
                return Pass::Stuck;
            }
        }
    }

    /// Takes an entry out of the queue if it need not be offered again, and says whether it did.
    fn settle(&self, queued: &Queued, outcome: Result<Stored, LedgerError>) -> bool {
        let counter = match outcome {
            Ok(_) => &self.retried,
            Err(error) if error.is_transient() => return false,
            Err(error) => {
                tracing::warn!(scope = ?queued.scope, %error, "a queued turn is refused by the ledger's store");
                &self.dropped
            }
        };
        if self.queue().remove(queued.number) {
            add(counter, 1);
        }
        true
    }

    fn expire(&self) {
        let Some(oldest) = Instant::now().checked_sub(self.config.max_age) else {
            return;
        };
        let expired = self.queue().expire(oldest);
        if expired > 0 {
            add(&self.dropped, expired);
            tracing::warn!(entries = expired, "queued turns are too old, and dropped");
        }
    }
}

/// What is queued before what is stored, without what is both.
fn merged(queued: Vec<Vec<Bytes>>, stored: Vec<Vec<Bytes>>) -> Vec<Vec<Bytes>> {
    let merge = |(queued, stored): (Vec<Bytes>, Vec<Bytes>)| {
        if queued.is_empty() {
            return stored;
        }
        let mut known = HashSet::new();
        let all = queued.into_iter().chain(stored);
        let new = all.filter(|value| known.insert(value.clone()));
        new.take(MAX_CANDIDATES).collect()
    };
    queued.into_iter().zip(stored).map(merge).collect()
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}
