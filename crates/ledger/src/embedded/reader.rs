//! Lookups: one snapshot, one batch, on a thread with a connection of its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rusqlite::{CachedStatement, Connection, OptionalExtension as _, params};
use tokio::sync::mpsc;

use super::place::Place;
use super::schema::{self, signed};
use super::seal::{ScopeIndex, Seal};
use super::{Counters, Ordering, Reply};
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
    connection: Connection,
    seal: Arc<Seal>,
    counters: Arc<Counters>,
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
    pub(super) fn new(connection: Connection, seal: Arc<Seal>, counters: Arc<Counters>) -> Self {
        Self {
            connection,
            seal,
            counters,
        }
    }

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
        // One snapshot for the whole question. Dropping it ends it; there is nothing to commit.
        let _snapshot = self.connection.unchecked_transaction()?;
        let scope = self
            .connection
            .prepare_cached("SELECT id FROM scopes WHERE digest = ?1")?
            .query_row([&question.scope[..]], |row| row.get(0))
            .optional()?;
        let answer = match scope {
            Some(scope) => self.candidates(scope, question)?,
            None => vec![Vec::new(); question.keys.len()],
        };
        let misses = answer.iter().filter(|found| found.is_empty()).count() as u64;
        self.counters
            .recall_misses
            .fetch_add(misses, Ordering::Relaxed);
        self.counters
            .recall_hits
            .fetch_add(answer.len() as u64 - misses, Ordering::Relaxed);
        Ok(answer)
    }

    fn candidates(&self, scope: i64, question: &Question) -> Result<Vec<Vec<Bytes>>, Fault> {
        let sql = "SELECT entry FROM entry_keys WHERE scope = ?1 AND key = ?2
                   ORDER BY entry DESC LIMIT ?3";
        let mut lookup = self.connection.prepare_cached(sql)?;
        let mut values = Values::new(self, question)?;
        let mut answer = Vec::with_capacity(question.keys.len());
        for key in &question.keys {
            let mut rows = lookup.query(params![scope, &key[..], signed(MAX_CANDIDATES as u64)])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                found.extend(values.fetch(row.get(0)?)?);
            }
            answer.push(found);
        }
        values.complain()?;
        Ok(answer)
    }
}

/// The values that one answer needs, each read and opened once, however many keys lead to it.
struct Values<'a> {
    reader: &'a Reader,
    question: &'a Question,
    select: CachedStatement<'a>,
    known: HashMap<i64, Option<Bytes>>,
    bytes: usize,
    unreadable: u64,
}

impl<'a> Values<'a> {
    fn new(reader: &'a Reader, question: &'a Question) -> Result<Self, Fault> {
        let select = reader
            .connection
            .prepare_cached("SELECT keys, value FROM entries WHERE id = ?1 AND recorded > ?2")?;
        Ok(Self {
            reader,
            question,
            select,
            known: HashMap::new(),
            bytes: 0,
            unreadable: 0,
        })
    }

    /// The value of an entry; none if it is expired or does not open.
    fn fetch(&mut self, entry: i64) -> Result<Option<Bytes>, Fault> {
        if let Some(known) = self.known.get(&entry) {
            return Ok(known.clone());
        }
        let mut rows = self.select.query(params![entry, self.question.cutoff])?;
        let value = match rows.next()? {
            None => None,
            Some(row) => {
                let (keys, stored) = (blob(row, 0)?, blob(row, 1)?);
                self.bytes = self.bytes.saturating_add(stored.len());
                if self.bytes > MAX_RECALL_BYTES {
                    return Err(LedgerError::RecallTooLarge {
                        max_bytes: MAX_RECALL_BYTES,
                    }
                    .into());
                }
                let opened = self.reader.seal.open(&self.question.scope, keys, stored);
                self.unreadable += u64::from(opened.is_err());
                opened.ok()
            }
        };
        self.known.insert(entry, value.clone());
        Ok(value)
    }

    /// Fails if any value did not open.
    fn complain(&self) -> Result<(), LedgerError> {
        if self.unreadable == 0 {
            return Ok(());
        }
        self.reader
            .counters
            .unreadable
            .fetch_add(self.unreadable, Ordering::Relaxed);
        Err(LedgerError::Unreadable {
            entries: self.unreadable,
        })
    }
}

fn blob<'row>(row: &'row rusqlite::Row<'_>, column: usize) -> Result<&'row [u8], rusqlite::Error> {
    Ok(row.get_ref(column)?.as_blob()?)
}
