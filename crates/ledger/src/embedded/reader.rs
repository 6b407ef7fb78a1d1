//! Lookups: one snapshot, one batch, on a thread with a connection of its own.

use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, params};
use tokio::sync::mpsc;

use super::cache::{self, Cache, Known, Line};
use super::place::Place;
use super::schema::{self, signed};
use super::{Counters, Ordering, Reply};
use crate::seal::{ScopeIndex, Seal};
use crate::{LedgerError, MAX_CANDIDATES, MAX_RECALL_BYTES, Operation};

pub(super) enum Job {
    Close,
    Lookup(Lookup),
}

pub(super) enum Lookup {
    Probe {
        reply: Reply<()>,
    },
    Recall {
        question: Question,
        reply: Reply<Vec<Vec<Bytes>>>,
    },
}

/// What is to be looked up.
pub(super) struct Question {
    pub(super) scope: ScopeIndex,
    pub(super) keys: Vec<[u8; 16]>,
    /// Entries recorded at or before this are expired.
    pub(super) cutoff: i64,
}

/// The queue that the reader threads share: one of them waits in it, the others for the lock.
pub(super) struct Jobs(Mutex<mpsc::Receiver<Job>>);

impl Jobs {
    pub(super) fn shared(jobs: mpsc::Receiver<Job>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(jobs)))
    }

    /// The next lookup; `None` once the queue is closed and empty. It is closed here, under the
    /// lock, because another thread takes the lock to wait as soon as this one lets go of it.
    fn next(&self) -> Option<Lookup> {
        let mut jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match jobs.blocking_recv()? {
                Job::Close => jobs.close(),
                Job::Lookup(lookup) => return Some(lookup),
            }
        }
    }
}

pub(super) struct Reader {
    pub(super) connection: Connection,
    pub(super) seal: Arc<Seal>,
    pub(super) cache: Arc<Cache>,
    pub(super) counters: Arc<Counters>,
}

/// A recall that cannot be answered.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Store(#[from] rusqlite::Error),
}

impl From<Fault> for LedgerError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Ledger(error) => error,
            Fault::Store(source) => Self::backend(Operation::Recall, source),
        }
    }
}

impl Reader {
    /// Answers until the queue is closed. Lets go of the connection before the place.
    pub(super) fn run(self, jobs: &Jobs, place: Arc<Place>) {
        while let Some(lookup) = jobs.next() {
            self.serve(lookup);
        }
        drop(self);
        drop(place);
    }

    // A reply that nobody waits for any more is no failure of ours.
    fn serve(&self, lookup: Lookup) {
        match lookup {
            Lookup::Probe { reply } => {
                let readable = schema::read_totals(&self.connection);
                let readable =
                    readable.map_err(|source| LedgerError::backend(Operation::Probe, source));
                let _nobody_waits = reply.send(readable.map(drop));
            }
            Lookup::Recall { reply, .. } if reply.is_closed() => {}
            Lookup::Recall { question, reply } => {
                let _nobody_waits = reply.send(self.answer(&question).map_err(LedgerError::from));
            }
        }
    }

    fn answer(&self, question: &Question) -> Result<Vec<Vec<Bytes>>, Fault> {
        // Before the snapshot, so that what is committed after it is noticed.
        let since = self.cache.now();
        let lines = self.lines(question)?;
        let answer = lines
            .iter()
            .map(|line| cache::current(line, question.cutoff));
        let answer = answer.collect();
        let places = question.keys.iter().map(|key| (question.scope, *key));
        self.cache.learn(since, places.zip(lines));
        Ok(answer)
    }

    /// For each key, what the file has of it that is not expired.
    fn lines(&self, question: &Question) -> Result<Vec<Line>, Fault> {
        // One snapshot for the whole question. Dropping it ends it; there is nothing to commit.
        let _snapshot = self.connection.unchecked_transaction()?;
        let scope = self
            .connection
            .prepare_cached("SELECT id FROM scopes WHERE digest = ?1")?
            .query_row([&question.scope[..]], |row| row.get(0))
            .optional()?;
        let Some(scope) = scope else {
            return Ok(vec![Vec::new(); question.keys.len()]);
        };
        let found = self.entries(scope, &question.keys)?;
        let values = Values::of(&found, self, question)?;
        let known = |entry: &i64| values.get(*entry).cloned();
        let lines = found
            .iter()
            .map(|entries| entries.iter().filter_map(known).collect());
        Ok(lines.collect())
    }

    /// For each key, its newest entries, expired ones included.
    fn entries(&self, scope: i64, keys: &[[u8; 16]]) -> Result<Vec<Vec<i64>>, rusqlite::Error> {
        let sql = "SELECT entry FROM entry_keys WHERE scope = ?1 AND key = ?2
                   ORDER BY entry DESC LIMIT ?3";
        let mut lookup = self.connection.prepare_cached(sql)?;
        // What is bound stays bound from one key to the next.
        lookup.raw_bind_parameter(1, scope)?;
        lookup.raw_bind_parameter(3, signed(MAX_CANDIDATES as u64))?;
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            lookup.raw_bind_parameter(2, &key[..])?;
            let mut rows = lookup.raw_query();
            let mut entries = Vec::new();
            while let Some(row) = rows.next()? {
                entries.push(row.get(0)?);
            }
            found.push(entries);
        }
        Ok(found)
    }
}

/// The values that one answer needs, each read and opened once, however many keys lead to it; by the
/// numbers of their entries, in order.
struct Values(Vec<Known>);

impl Values {
    /// Reads the values of these entries, without those that are expired. One statement for all of
    /// them: to begin one costs as much as to find an entry.
    fn of(found: &[Vec<i64>], reader: &Reader, question: &Question) -> Result<Self, Fault> {
        let mut entries: Vec<i64> = found.iter().flatten().copied().collect();
        entries.sort_unstable();
        entries.dedup();
        let mut known = Vec::with_capacity(entries.len());
        let entries: Rc<Vec<Value>> = Rc::new(entries.into_iter().map(Value::from).collect());
        // The words CROSS and + keep the planner from going through all that is not expired.
        let sql = "SELECT id, keys, entries.value, recorded FROM rarray(?1) AS wanted
                   CROSS JOIN entries ON id = wanted.value WHERE +recorded > ?2";
        let mut select = reader.connection.prepare_cached(sql)?;
        let mut rows = select.query(params![entries, question.cutoff])?;
        let (mut bytes, mut unreadable) = (0_usize, 0);
        while let Some(row) = rows.next()? {
            let (keys, stored) = (blob(row, 1)?, blob(row, 2)?);
            bytes = bytes.saturating_add(stored.len());
            if bytes > MAX_RECALL_BYTES {
                return Err(LedgerError::RecallTooLarge {
                    max_bytes: MAX_RECALL_BYTES,
                }
                .into());
            }
            match reader.seal.open(&question.scope, keys, stored) {
                Ok(opened) => {
                    let value = opened.map_or_else(|| Bytes::copy_from_slice(stored), Bytes::from);
                    known.push(Known {
                        entry: row.get(0)?,
                        recorded: row.get(3)?,
                        value,
                    });
                }
                Err(_sealed_otherwise) => unreadable += 1,
            }
        }
        if unreadable > 0 {
            let counter = &reader.counters.unreadable;
            counter.fetch_add(unreadable, Ordering::Relaxed);
            return Err(LedgerError::Unreadable {
                entries: unreadable,
            }
            .into());
        }
        // They came in this order, which nobody promises.
        known.sort_unstable_by_key(|known| known.entry);
        Ok(Self(known))
    }

    /// None if the entry is expired, or was evicted.
    fn get(&self, entry: i64) -> Option<&Known> {
        let at = self.0.binary_search_by_key(&entry, |known| known.entry);
        self.0.get(at.ok()?)
    }
}

fn blob<'row>(row: &'row rusqlite::Row<'_>, column: usize) -> Result<&'row [u8], rusqlite::Error> {
    Ok(row.get_ref(column)?.as_blob()?)
}
