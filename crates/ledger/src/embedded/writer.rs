//! The one thread that writes: it takes all records that wait, commits them together, and then
//! acknowledges each.
//!
//! ```text
//! idle ──job──▶ gather ──▶ insert, evict, COMMIT ──▶ acknowledge ──▶ idle
//!   └──no record for a minute, or more to evict──▶ evict a step, COMMIT ──▶ idle
//! ```
//!
//! A batch succeeds or fails whole: what fails a commit, a full disk for one, is no single record's
//! doing.

use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use bytes::Bytes;
use rusqlite::{Connection, TransactionBehavior, params};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::time::Instant;

use super::cache::Cache;
use super::entries::{self, Fault, Tally};
use super::place::Place;
use super::schema::{Totals, Writable, signed};
use super::{Bounds, Counters, Ordering, Reply, now};
use crate::seal::{ScopeIndex, Seal};
use crate::{Clock, LedgerError, Operation};

/// A commit's cost is one sync, whatever it holds; beyond this many the first would wait for the
/// last in vain.
const MAX_BATCH_RECORDS: usize = 512;
const MAX_BATCH_BYTES: usize = 16 << 20;
/// How long nothing may be recorded before the store looks for entries that have expired.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Evictions in one transaction when nothing else is to be done; few, so that a record never waits
/// long for them.
const EVICTION_STEP: u64 = 256;
/// Evictions that a batch may cause for each of its records. More than one, so that a store whose
/// bounds were lowered shrinks even when it is never idle.
const EVICTIONS_PER_RECORD: u64 = 4;

pub(super) enum Job {
    Close,
    Probe { reply: Reply<()> },
    Record { record: Record, reply: Reply<()> },
    Sweep { reply: Reply<u64> },
}

/// An entry as the file will hold it, except that its value is not sealed yet.
pub(super) struct Record {
    pub(super) scope: ScopeIndex,
    /// 16 bytes for each key.
    pub(super) keys: Vec<u8>,
    pub(super) value: Bytes,
}

/// What the writer was opened with.
pub(super) struct Terms {
    pub(super) bounds: Bounds,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) seal: Arc<Seal>,
    /// Follows what is committed.
    pub(super) cache: Arc<Cache>,
}

pub(super) struct Writer {
    connection: Connection,
    terms: Terms,
    counters: Arc<Counters>,
    /// As of the last commit.
    totals: Totals,
    jobs: mpsc::Receiver<Job>,
    /// A job that was met while a batch was gathered, and is not part of it.
    next: Option<Job>,
    /// There may be more to evict than the last step did.
    eviction_due: bool,
    /// When to look again even if nothing is recorded.
    look_at: Instant,
    /// The last transaction failed, so that only another one can tell whether the store is well
    /// again.
    failing: bool,
}

/// What is to be done next.
enum Next {
    End,
    Evict,
    Serve(Job),
}

/// A committed transaction.
struct Committed {
    tally: Tally,
    /// It evicted all it was allowed to, so there may be more.
    eviction_due: bool,
}

impl Writer {
    pub(super) fn new(
        store: Writable,
        terms: Terms,
        counters: Arc<Counters>,
        jobs: mpsc::Receiver<Job>,
    ) -> Self {
        let Writable { connection, totals } = store;
        let writer = Self {
            connection,
            terms,
            counters,
            totals,
            jobs,
            next: None,
            eviction_due: true,
            look_at: Instant::now(),
            failing: false,
        };
        writer.publish(totals);
        writer
    }

    /// Serves until the queue is closed and empty. Lets go of the connection before the place.
    pub(super) fn run(mut self, place: Arc<Place>) {
        loop {
            match self.next_step() {
                Next::End => break,
                Next::Evict => self.evict_step(),
                Next::Serve(job) => self.serve(job),
            }
        }
        // The last connection to close folds the log into the file.
        drop(self);
        drop(place);
    }

    fn next_step(&mut self) -> Next {
        let waiting = self.next.take().map_or_else(|| self.jobs.try_recv(), Ok);
        match waiting {
            Ok(job) => Next::Serve(job),
            Err(TryRecvError::Disconnected) => Next::End,
            Err(TryRecvError::Empty) if self.eviction_due => Next::Evict,
            Err(TryRecvError::Empty) => self.wait(),
        }
    }

    /// Waits for a job until it is time to look for what has expired. The queue is asynchronous for
    /// those who fill it; here a thread waits, and lets itself be woken.
    fn wait(&mut self) -> Next {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut context = Context::from_waker(&waker);
        loop {
            match self.jobs.poll_recv(&mut context) {
                Poll::Ready(Some(job)) => return Next::Serve(job),
                Poll::Ready(None) => return Next::End,
                Poll::Pending => {}
            }
            let left = self.look_at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Next::Evict;
            }
            thread::park_timeout(left);
        }
    }

    // A reply that nobody waits for any more is no failure of ours.
    fn serve(&mut self, job: Job) {
        match job {
            Job::Close => self.jobs.close(),
            Job::Probe { reply } => {
                let _nobody_waits = reply.send(self.probe());
            }
            Job::Record { record, reply } => self.commit_with_all_that_waits(record, reply),
            Job::Sweep { reply } => {
                let swept = self
                    .sweep()
                    .map_err(|fault| LedgerError::backend(Operation::Sweep, fault));
                let _nobody_waits = reply.send(swept);
            }
        }
    }

    fn commit_with_all_that_waits(&mut self, record: Record, reply: Reply<()>) {
        let mut bytes = record.value.len();
        let (mut records, mut replies) = (vec![record], vec![reply]);
        while records.len() < MAX_BATCH_RECORDS && bytes < MAX_BATCH_BYTES {
            match self.jobs.try_recv() {
                Ok(Job::Record { record, reply }) => {
                    bytes += record.value.len();
                    records.push(record);
                    replies.push(reply);
                }
                Ok(other) => {
                    self.next = Some(other);
                    break;
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        let outcome = self
            .commit(&records)
            .map(drop)
            .map_err(|fault| LedgerError::backend(Operation::Record, fault));
        match &outcome {
            Ok(()) => {
                self.counters.batches.fetch_add(1, Ordering::Relaxed);
                self.counters
                    .recorded
                    .fetch_add(records.len() as u64, Ordering::Relaxed);
            }
            Err(_) => {
                self.counters.batches_failed.fetch_add(1, Ordering::Relaxed);
            }
        }
        for reply in replies {
            let _nobody_waits = reply.send(outcome.clone());
        }
    }

    /// Stores the records, evicts what is due within measure, and commits; on failure nothing has
    /// changed.
    fn commit(&mut self, records: &[Record]) -> Result<Tally, Fault> {
        let outcome = self.transact(records);
        self.look_at = Instant::now() + LOOK_EVERY;
        // A transaction that wrote nothing does not prove that one could.
        self.failing = outcome.is_err() || (self.failing && records.is_empty());
        let cache = &self.terms.cache;
        let Committed {
            mut tally,
            eviction_due,
        } = outcome.inspect_err(|_uncertain| cache.forget())?;
        // Before anybody is told: who hears of a commit finds what it stored.
        cache.follow(mem::take(&mut tally.changes));
        self.totals = tally.totals;
        self.eviction_due = eviction_due;
        self.publish(tally.totals);
        self.counters
            .evicted_by_scope
            .fetch_add(tally.evicted_by_scope, Ordering::Relaxed);
        self.counters
            .evicted_by_size
            .fetch_add(tally.evicted_by_size, Ordering::Relaxed);
        self.counters
            .evicted_by_ttl
            .fetch_add(tally.evicted_by_ttl, Ordering::Relaxed);
        Ok(tally)
    }

    fn transact(&mut self, records: &[Record]) -> Result<Committed, Fault> {
        let Terms {
            bounds,
            clock,
            seal,
            cache: _,
        } = &self.terms;
        let mut tally = Tally {
            totals: self.totals,
            ..Tally::default()
        };
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let recorded = now(&**clock);
        for record in records {
            let landed = entries::insert(&transaction, seal, record, recorded, &mut tally)?;
            let surplus = landed.entries.saturating_sub(bounds.max_entries_per_scope);
            let surplus = surplus.min(EVICTIONS_PER_RECORD);
            entries::evict_from_scope(&transaction, landed.scope, surplus, &mut tally)?;
        }
        let allowed = EVICTION_STEP.max(records.len() as u64 * EVICTIONS_PER_RECORD);
        let cutoff = bounds.cutoff(&**clock);
        let eviction_due =
            entries::evict_from_store(&transaction, bounds.max_bytes, cutoff, allowed, &mut tally)?;
        if tally.totals != self.totals {
            let sql = "UPDATE totals SET entries = ?1, weight = ?2";
            let totals = params![signed(tally.totals.entries), signed(tally.totals.weight)];
            transaction.prepare_cached(sql)?.execute(totals)?;
        }
        transaction.commit()?;
        Ok(Committed {
            tally,
            eviction_due,
        })
    }

    /// A step of eviction by itself. When it fails, nobody is there to be told; the next minute
    /// tries again.
    fn evict_step(&mut self) {
        if let Err(fault) = self.commit(&[]) {
            self.eviction_due = false;
            tracing::warn!(error = %fault, "ledger could not evict; will try again");
        }
    }

    fn sweep(&mut self) -> Result<u64, Fault> {
        let mut evicted = 0;
        loop {
            let tally = self.commit(&[])?;
            evicted += tally.evicted_by_size + tally.evicted_by_ttl;
            if !self.eviction_due {
                return Ok(evicted);
            }
        }
    }

    fn probe(&mut self) -> Result<(), LedgerError> {
        if !self.failing {
            return Ok(());
        }
        let touch = |connection: &mut Connection| {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction.execute("UPDATE totals SET entries = entries", [])?;
            transaction.commit()
        };
        touch(&mut self.connection)
            .map_err(|source| LedgerError::backend(Operation::Probe, source))?;
        self.failing = false;
        Ok(())
    }

    fn publish(&self, totals: Totals) {
        self.counters
            .entries
            .store(totals.entries, Ordering::Relaxed);
        self.counters.bytes.store(totals.weight, Ordering::Relaxed);
    }
}

/// Wakes the thread that waits in [`Writer::wait`].
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
