//! The ledger in a Redis or Valkey that several gateways share.
//!
//! ```text
//! record ─▶ one script, atomic: the entry, its indices, the scope's order, what is too much
//! recall ─▶ MGET of the indices ─▶ MGET of the entries they lead to ─▶ values
//! ```
//!
//! *Guarantees.* What belongs to a scope is in one slot of a cluster, and what a record changes
//! changes at once. A recall reads all indices at one moment; an entry that is evicted before it is
//! read is left out, as if it had been evicted before. Recording an entry twice, as after a lost
//! answer, is recording it once. Every operation ends within the configured deadline, and at once
//! while the store is known to be gone.
//!
//! *Assumptions.* Redis 6 or newer, or any Valkey. The server keeps what it acknowledges as durably as
//! its `appendfsync` and its replicas make it; a failover loses what was not replicated yet, and such
//! a turn is a miss. Its `maxmemory-policy` is `noeviction` or one of `volatile-*`. Entries age by the
//! server's clock.
//!
//! *Caveats.* How large the store is altogether is bounded by its `maxmemory`, not here.

mod config;
mod fault;
mod layout;
mod link;
mod location;
mod origin;

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use redis::{Cmd, ErrorKind, FromRedisValue, RedisResult, Script, ServerErrorKind};
use tokio::time::{Instant, timeout, timeout_at};

pub use config::{Identity, Password, SharedConfig, SharedConfigError};
pub use location::{Address, Location, LocationError};

use crate::error::check_key_count;
use crate::seal::{ScopeIndex, Seal};
use crate::{
    Answer, BoxFuture, Entry, Key, Ledger, LedgerError, MAX_CANDIDATES, MAX_ENTRY_KEYS,
    MAX_RECALL_BYTES, MAX_RECALL_KEYS, Operation, Scope, Stats, Stored,
};
use fault::Fault;
use layout::{Mark, Names};
use link::{Greeting, Link};
use origin::Connection;

/// Stores an entry; see the file.
const RECORD: &str = include_str!("record.lua");
/// Evictions that one record may cause. More than one, so that a scope whose bound was lowered
/// shrinks.
const EVICTIONS_PER_RECORD: u64 = 4;
/// What one answer of the store may hold, so that neither side keeps more than that for it.
const MAX_FETCH_BYTES: usize = 8 << 20;
/// What a probe writes is gone after this.
const PROBE_MILLIS: u64 = 60_000;
const CLOSE_WAIT: Duration = Duration::from_secs(5);
/// A century: the server refuses times beyond what its clock can count.
const LONGEST_TTL: Duration = Duration::from_secs(3_155_760_000);

/// The ledger in a store that several gateways share.
pub struct Shared {
    location: Location,
    terms: Terms,
    seal: Seal,
    link: Link,
    counters: Counters,
}

/// What holds for each operation.
struct Terms {
    prefix: String,
    deadline: Duration,
    ttl_millis: u64,
    max_entries_per_scope: u64,
    max_value_bytes: usize,
    /// What the store knows the script by.
    script: String,
}

/// An operation under way: all its questions together have one deadline.
struct Call {
    operation: Operation,
    until: Instant,
    /// What it fails with then.
    late: LedgerError,
}

/// [`Stats`] in the making, of this gateway alone.
#[derive(Debug, Default)]
struct Counters {
    batches_failed: AtomicU64,
    evicted_by_scope: AtomicU64,
    evicted_by_ttl: AtomicU64,
    recall_hits: AtomicU64,
    recall_misses: AtomicU64,
    recorded: AtomicU64,
    unreadable: AtomicU64,
}

impl Shared {
    /// Begins to connect, and returns at once: a store that cannot be reached now may be later.
    ///
    /// # Errors
    ///
    /// [`SharedConfigError`], whose message says what to change.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    pub fn open(config: &SharedConfig) -> Result<Self, SharedConfigError> {
        config.check_bounds()?;
        let origin = config.origin()?;
        let seal = Seal::new(config.encryption.as_ref());
        let greeting = Greeting::new(&config.prefix, &seal);
        Ok(Self {
            link: Link::start(origin, greeting, config.greeting_within()),
            location: config.location.clone(),
            terms: Terms {
                prefix: config.prefix.clone(),
                deadline: config.deadline,
                ttl_millis: u64::try_from(config.ttl.min(LONGEST_TTL).as_millis())
                    .unwrap_or(u64::MAX),
                max_entries_per_scope: config.max_entries_per_scope,
                max_value_bytes: config.max_value_bytes,
                script: Script::new(RECORD).get_hash().to_owned(),
            },
            seal,
            counters: Counters::default(),
        })
    }

    /// The beginning of an operation.
    fn begin(&self, operation: Operation) -> Call {
        let waited = self.terms.deadline;
        Call {
            operation,
            until: Instant::now() + waited,
            late: LedgerError::Timeout { operation, waited },
        }
    }

    /// Asks over the connection there is; once more if it breaks, since all that we do may be done
    /// twice.
    async fn ask<T, F>(
        &self,
        call: &Call,
        question: impl Fn(Connection) -> F,
    ) -> Result<T, LedgerError>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let mut again = true;
        loop {
            let live = match timeout_at(call.until, self.link.live()).await {
                Err(_elapsed) => return Err(call.late.clone()),
                Ok(Err(fault)) => return Err(fault.unavailable(call.operation)),
                Ok(Ok(None)) => return Err(LedgerError::Closed),
                Ok(Ok(Some(live))) => live,
            };
            let answer = timeout_at(call.until, question(live.connection.clone())).await;
            match answer.map(|answer| answer.map_err(Fault::from)) {
                Ok(Ok(answer)) => {
                    live.worked();
                    return Ok(answer);
                }
                Ok(Err(fault)) if fault.is_of_the_connection() => {
                    self.link.failed(&live);
                    if !std::mem::take(&mut again) {
                        return Err(fault.unavailable(call.operation));
                    }
                }
                Ok(Err(fault)) => return Err(LedgerError::backend(call.operation, fault)),
                Err(_elapsed) => {
                    self.link.failed(&live);
                    return Err(call.late.clone());
                }
            }
        }
    }

    /// Asks with one command.
    async fn query<T: FromRedisValue>(&self, call: &Call, command: &Cmd) -> Result<T, LedgerError> {
        self.ask(call, |mut connection| async move {
            command.query_async(&mut connection).await
        })
        .await
    }

    async fn recall_keys(
        &self,
        scope: &Scope,
        keys: &[Key],
    ) -> Result<Vec<Vec<Bytes>>, LedgerError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        check_key_count(Operation::Recall, keys, MAX_RECALL_KEYS)?;
        let call = self.begin(Operation::Recall);
        let scope = self.seal.scope(scope);
        let names = Names::of(&self.terms.prefix, &scope);
        let mut question = redis::cmd("MGET");
        for key in keys {
            question.arg(names.index(&self.seal.key(&scope, key)));
        }
        let indices: Vec<Option<Vec<u8>>> = self.query(&call, &question).await?;
        let marks: Vec<Vec<Mark>> = indices
            .iter()
            .map(|index| Mark::read_all(index.as_deref().unwrap_or_default()))
            .map(|marks| marks.take(MAX_CANDIDATES).collect())
            .collect();
        let values = self.fetch(&call, &scope, &names, &marks).await?;
        let value = |mark: &Mark| values.get(mark).cloned();
        let answer: Vec<Vec<Bytes>> = marks
            .iter()
            .map(|marks| marks.iter().filter_map(value).collect())
            .collect();
        let hits = answer.iter().filter(|found| !found.is_empty()).count() as u64;
        add(&self.counters.recall_hits, hits);
        add(&self.counters.recall_misses, answer.len() as u64 - hits);
        Ok(answer)
    }

    /// The values of all entries that are marked, each once, in as few answers as their sizes allow.
    async fn fetch(
        &self,
        call: &Call,
        scope: &ScopeIndex,
        names: &Names,
        marks: &[Vec<Mark>],
    ) -> Result<Values, LedgerError> {
        let mut values = Values::wanted(marks);
        let (mut bytes, mut unreadable) = (0_usize, 0);
        for part in values.parts() {
            let mut question = redis::cmd("MGET");
            for (mark, _) in &values.0[part.clone()] {
                question.arg(names.entry(mark));
            }
            let stored: Vec<Option<Bytes>> = self.query(call, &question).await?;
            for ((_, value), stored) in values.0[part].iter_mut().zip(stored) {
                let Some(stored) = stored else { continue };
                bytes = bytes.saturating_add(stored.len());
                if bytes > MAX_RECALL_BYTES {
                    return Err(LedgerError::RecallTooLarge {
                        max_bytes: MAX_RECALL_BYTES,
                    });
                }
                *value = self.opened(scope, &stored);
                unreadable += u64::from(value.is_none());
            }
        }
        if unreadable > 0 {
            add(&self.counters.unreadable, unreadable);
            return Err(LedgerError::Unreadable {
                entries: unreadable,
            });
        }
        Ok(values)
    }

    fn opened(&self, scope: &ScopeIndex, stored: &Bytes) -> Option<Bytes> {
        let (keys, sealed) = layout::read_entry(stored)?;
        let opened = self.seal.open(scope, keys, &sealed).ok()?;
        Some(opened.map_or(sealed, Bytes::from))
    }

    async fn record_entry(&self, scope: &Scope, entry: Entry) -> Result<(), LedgerError> {
        let Entry { mut keys, value } = entry;
        keys.sort_unstable();
        keys.dedup();
        check_key_count(Operation::Record, &keys, MAX_ENTRY_KEYS)?;
        let max_bytes = self.terms.max_value_bytes;
        if value.len() > max_bytes {
            return Err(LedgerError::ValueTooLarge {
                bytes: value.len(),
                max_bytes,
            });
        }
        let scope = self.seal.scope(scope);
        let keys: Vec<u8> = keys
            .iter()
            .flat_map(|key| self.seal.key(&scope, key))
            .collect();
        let sealed = self.seal.seal(&scope, &keys, &value);
        let sealed = sealed.map_err(|error| LedgerError::backend(Operation::Record, error))?;
        let stored = layout::entry(&keys, sealed.as_deref().unwrap_or(&value));
        let recording = &Recording {
            terms: &self.terms,
            names: Names::of(&self.terms.prefix, &scope),
            keys: &keys,
            mark: Mark::new(self.seal.entry_id(&scope, &keys, &value), &stored),
            stored: &stored,
        };
        let (by_ttl, by_scope) = self
            .ask(&self.begin(Operation::Record), |connection| {
                recording.put(connection)
            })
            .await
            .inspect_err(|_| add(&self.counters.batches_failed, 1))?;
        add(&self.counters.recorded, 1);
        add(&self.counters.evicted_by_ttl, by_ttl);
        add(&self.counters.evicted_by_scope, by_scope);
        Ok(())
    }

    /// Whether it can be written to.
    async fn probe(&self) -> Result<(), LedgerError> {
        let mut question = redis::cmd("SET");
        question.arg(layout::probe(&self.terms.prefix)).arg("1");
        question.arg("PX").arg(PROBE_MILLIS);
        self.query(&self.begin(Operation::Probe), &question).await
    }
}

impl Ledger for Shared {
    fn recall<'a>(
        &'a self,
        scope: &'a Scope,
        keys: &'a [Key],
    ) -> BoxFuture<'a, Result<Answer, LedgerError>> {
        Box::pin(async { Ok(Answer::whole(self.recall_keys(scope, keys).await?)) })
    }

    fn record<'a>(
        &'a self,
        scope: &'a Scope,
        entry: Entry,
    ) -> BoxFuture<'a, Result<Stored, LedgerError>> {
        Box::pin(async {
            self.record_entry(scope, entry).await?;
            Ok(Stored::Durable)
        })
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), LedgerError>> {
        Box::pin(self.probe())
    }

    fn close(&self) -> BoxFuture<'_, Result<(), LedgerError>> {
        Box::pin(async {
            let late = LedgerError::Timeout {
                operation: Operation::Close,
                waited: CLOSE_WAIT,
            };
            timeout(CLOSE_WAIT, self.link.close())
                .await
                .map_err(|_| late)
        })
    }

    fn stats(&self) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        Stats {
            batches: read(&counters.recorded),
            batches_failed: read(&counters.batches_failed),
            evicted_by_scope: read(&counters.evicted_by_scope),
            evicted_by_ttl: read(&counters.evicted_by_ttl),
            recall_hits: read(&counters.recall_hits),
            recall_misses: read(&counters.recall_misses),
            recorded: read(&counters.recorded),
            unreadable: read(&counters.unreadable),
            ..Stats::default()
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("location", &self.location)
            .finish_non_exhaustive()
    }
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

/// An entry on its way into the store.
struct Recording<'a> {
    terms: &'a Terms,
    names: Names,
    /// 16 bytes each.
    keys: &'a [u8],
    mark: Mark,
    stored: &'a [u8],
}

impl Recording<'_> {
    /// Runs the script, which the server knows by its digest since it ran first. Gives how many
    /// entries had expired and how many were evicted.
    async fn put(&self, mut connection: Connection) -> RedisResult<(u64, u64)> {
        let known = self.command("EVALSHA", &self.terms.script);
        match known.query_async(&mut connection).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                let whole = self.command("EVAL", RECORD);
                whole.query_async(&mut connection).await
            }
            outcome => outcome,
        }
    }

    /// With the script's keys and arguments, as it describes them.
    fn command(&self, verb: &str, script: &str) -> Cmd {
        let indices = self.keys.chunks_exact(layout::KEY_BYTES);
        let mut command = redis::cmd(verb);
        command
            .arg(script)
            .arg(indices.len() + 2)
            .arg(self.names.entry(&self.mark))
            .arg(&self.names.order);
        for key in indices {
            command.arg(self.names.index(key));
        }
        command
            .arg(self.mark.as_bytes())
            .arg(self.stored)
            .arg(self.terms.ttl_millis)
            .arg(self.terms.max_entries_per_scope)
            .arg(MAX_CANDIDATES)
            .arg(EVICTIONS_PER_RECORD)
            .arg(&self.names.entries)
            .arg(&self.names.indices);
        command
    }
}

/// The values that one answer needs, each fetched once, however many keys lead to it; by their marks,
/// in order. None is one that was evicted.
struct Values(Vec<(Mark, Option<Bytes>)>);

impl Values {
    fn wanted(marks: &[Vec<Mark>]) -> Self {
        let mut wanted: Vec<Mark> = marks.iter().flatten().copied().collect();
        wanted.sort_unstable();
        wanted.dedup();
        Self(wanted.into_iter().map(|mark| (mark, None)).collect())
    }

    /// What is fetched together.
    fn parts(&self) -> Vec<Range<usize>> {
        let mut parts = Vec::new();
        let (mut start, mut bytes) = (0, 0);
        for (at, (mark, _)) in self.0.iter().enumerate() {
            if bytes + mark.size() > MAX_FETCH_BYTES && at > start {
                parts.push(start..at);
                (start, bytes) = (at, 0);
            }
            bytes += mark.size();
        }
        if start < self.0.len() {
            parts.push(start..self.0.len());
        }
        parts
    }

    fn get(&self, mark: &Mark) -> Option<&Bytes> {
        let at = self.0.binary_search_by_key(mark, |(known, _)| *known);
        self.0[at.ok()?].1.as_ref()
    }
}
