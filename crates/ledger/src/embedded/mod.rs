//! The ledger in a SQLite file of its own.
//!
//! ```text
//! record ─▶ bounded queue ─▶ writer thread: all that waits ─▶ one COMMIT ─▶ cache ─▶ acknowledgements
//! recall ─▶ cache ─▶ values
//!            └ what it does not know ─▶ bounded queue ─▶ reader threads: one snapshot, one batched lookup ─▶ values
//! ```
//!
//! *Guarantees.* One process owns the file, by an advisory lock on `<file>.lock` that the system
//! releases when the process ends however it ends. `synchronous=FULL` in WAL mode: a commit is on
//! disk before it is acknowledged (<https://www.sqlite.org/pragma.html#pragma_synchronous>).
//! Nothing that belongs to the ledger is open to another user.
//!
//! *Caveats.* Blocks its own threads, never the caller's. A file on a network filesystem is only as
//! safe as that filesystem's locks. Evicted values may linger in unused pages of the file until
//! those are written again.

mod cache;
mod entries;
mod place;
mod reader;
mod schema;
mod writer;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::timeout;

use cache::{Cache, Found};

use crate::error::check_key_count;
use crate::seal::{EncryptionKey, ScopeIndex, Seal};
use crate::{
    Answer, BoxFuture, Clock, Entry, Key, Ledger, LedgerError, MAX_ENTRY_KEYS, MAX_RECALL_BYTES,
    MAX_RECALL_KEYS, Operation, Scope, Stats, Stored, SystemClock,
};

/// Records or recalls that may wait; the callers' own buffers, so the queue adds no memory of note.
const QUEUE_LENGTH: usize = 1024;
/// How long a place in a full queue is waited for.
const QUEUE_WAIT: Duration = Duration::from_secs(5);
/// How long an answer is waited for; generous, since a slow disk is better than a lost turn.
const ANSWER_WAIT: Duration = Duration::from_secs(30);
/// A readiness probe that takes longer than this is an answer too.
const PROBE_WAIT: Duration = Duration::from_secs(2);
/// Lookups take microseconds when the file is in the page cache; more threads help only when it is
/// not.
const READER_THREADS: usize = 2;

/// Some hundred conversations of a hundred turns.
const CACHE_BYTES: usize = 32 << 20;
/// Beyond this, two candidates would not fit into one recall.
const LARGEST_VALUE_BYTES: usize = MAX_RECALL_BYTES / 2;

/// What an [`Embedded`] ledger is opened with.
#[derive(Clone, Debug)]
pub struct EmbeddedConfig {
    /// The file. Its directory is created if need be, for this user alone.
    pub path: PathBuf,
    /// What it may grow to.
    pub bounds: Bounds,
    /// What entries age by.
    pub clock: Arc<dyn Clock>,
    /// What may be kept in memory of the turns that were recorded or asked for last, in bytes, so that
    /// the file need not be asked. They are kept as they are, also when the file is encrypted.
    pub cache_bytes: usize,
    /// Encrypts what is stored. A file is either encrypted with one key from its beginning, or not
    /// at all.
    pub encryption: Option<EncryptionKey>,
}

impl EmbeddedConfig {
    /// The defaults at this path: the default bounds, the machine's clock, no encryption.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            bounds: Bounds::default(),
            clock: Arc::new(SystemClock),
            cache_bytes: CACHE_BYTES,
            encryption: None,
        }
    }
}

/// What a ledger may grow to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Entries older than this are not returned, and soon evicted.
    pub ttl: Duration,
    /// What all entries may weigh together: their values plus an allowance for keys and bookkeeping.
    /// The oldest entries go first, of whichever scope. The file is about a quarter larger than what
    /// it holds; space that eviction frees in it is used again, not given back.
    pub max_bytes: u64,
    /// How many entries one scope may have. Its oldest go first.
    pub max_entries_per_scope: u64,
    /// How large one value may be, in bytes; at most 32 MiB.
    pub max_value_bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(30 * 24 * 60 * 60),
            max_bytes: 1 << 30,
            max_entries_per_scope: 100_000,
            max_value_bytes: 8 << 20,
        }
    }
}

impl Bounds {
    fn check(&self) -> Result<(), OpenError> {
        let refuse = |what| Err(OpenError::Bounds { what });
        if self.ttl < Duration::from_millis(1) {
            return refuse("ttl of at least a millisecond");
        }
        if self.max_entries_per_scope == 0 {
            return refuse("max_entries_per_scope of at least 1");
        }
        if self.max_value_bytes > LARGEST_VALUE_BYTES {
            return refuse("max_value_bytes of at most 32 MiB");
        }
        // Otherwise an acknowledged entry would be evicted by its own weight.
        let largest = u64::try_from(self.max_value_bytes).unwrap_or(u64::MAX);
        if self.max_bytes < largest.saturating_add(entries::heaviest_bookkeeping()) {
            return refuse("max_bytes large enough for one entry of max_value_bytes");
        }
        Ok(())
    }

    /// Entries recorded at or before this moment, in milliseconds, are expired.
    fn cutoff(&self, clock: &dyn Clock) -> i64 {
        let ttl = i64::try_from(self.ttl.as_millis()).unwrap_or(i64::MAX);
        now(clock).saturating_sub(ttl)
    }
}

fn now(clock: &dyn Clock) -> i64 {
    i64::try_from(clock.unix_millis()).unwrap_or(i64::MAX)
}

/// Why a file could not be opened as a ledger. All but [`Io`](Self::Io), [`InUse`](Self::InUse) and
/// [`Store`](Self::Store) need somebody to change something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Bounds that contradict themselves.
    #[error("expected {what} in the ledger's bounds")]
    Bounds {
        /// What they lack.
        what: &'static str,
    },
    /// The file is damaged.
    #[error("the ledger {} is damaged; move it and its -wal and -shm files away to start with an empty one \
             (turns recorded so far become misses)", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What SQLite found.
        source: rusqlite::Error,
    },
    /// The key and the file do not belong together.
    #[error("the ledger {} {mismatch}", path.display())]
    Encryption {
        /// The file.
        path: PathBuf,
        /// How.
        mismatch: KeyMismatch,
    },
    /// The file or its directory belongs to another user.
    #[error("expected {} to belong to user {expected}, got user {owner}; \
             give the ledger a directory of its own, which is then created", path.display())]
    ForeignOwner {
        /// What was looked at.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who asks.
        expected: u32,
    },
    /// Another process has it open, or this one does already.
    #[error("the ledger {} is in use, by the lock {}.lock; give each gateway a ledger of its own",
            path.display(), path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot use {} for the ledger", path.display())]
    Io {
        /// What was touched.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// A newer Farrier wrote it.
    #[error("expected a ledger of schema {supported} or older at {}, got schema {found}; \
             run the newer farrier that wrote it, or move the file away", path.display())]
    NewerSchema {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest schema known here.
        supported: i64,
    },
    /// A symbolic link, directory or device.
    #[error("expected a regular file at {}, got {found}; name the file itself", path.display())]
    NotAFile {
        /// What was looked at.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// A SQLite database of something else.
    #[error("expected a Farrier ledger at {}, got a database of another kind; choose another path", path.display())]
    NotALedger {
        /// The file.
        path: PathBuf,
    },
    /// SQLite refused for another reason than damage.
    #[error("cannot open the ledger {}", path.display())]
    Store {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: rusqlite::Error,
    },
    /// Others may write to the directory, and so replace the file.
    #[error("expected a directory that only its owner can write to, got mode {mode:04o} (chmod 700 {}); \
             or give the ledger a directory of its own, which is then created", path.display())]
    WritableByOthers {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

/// How a key and a file fail to belong together. Displayed after the file's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyMismatch {
    /// The file is encrypted, and no key was given.
    #[error("is encrypted; give its encryption key")]
    KeyMissing,
    /// The file is not encrypted, and a key was given.
    #[error("was begun without encryption; move it away to begin an encrypted one, or give no key")]
    NotEncrypted,
    /// The file is encrypted with another key.
    #[error(
        "is encrypted with another key; give that key, or move the file away to begin a new one"
    )]
    WrongKey,
}

/// The ledger in a SQLite file.
///
/// [`close`](Self::close) it to finish what is queued and to wait for its threads. Dropping it
/// instead lets the threads finish on their own; what was acknowledged is safe either way.
pub struct Embedded {
    path: PathBuf,
    bounds: Bounds,
    clock: Arc<dyn Clock>,
    seal: Arc<Seal>,
    cache: Arc<Cache>,
    counters: Arc<Counters>,
    writes: mpsc::Sender<writer::Job>,
    reads: mpsc::Sender<reader::Job>,
    threads: Mutex<Vec<Thread>>,
}

/// A thread that serves the store, and the news of its end.
struct Thread {
    handle: thread::JoinHandle<()>,
    ended: oneshot::Receiver<()>,
}

/// [`Stats`] in the making.
#[derive(Debug, Default)]
struct Counters {
    batches: AtomicU64,
    batches_failed: AtomicU64,
    bytes: AtomicU64,
    entries: AtomicU64,
    evicted_by_scope: AtomicU64,
    evicted_by_size: AtomicU64,
    evicted_by_ttl: AtomicU64,
    recall_cached: AtomicU64,
    recall_hits: AtomicU64,
    recall_misses: AtomicU64,
    recorded: AtomicU64,
    unreadable: AtomicU64,
}

impl Embedded {
    /// Opens the ledger at the configured path, creating it if need be, and starts its threads.
    ///
    /// Blocks while it reads a few pages; after a crash, while SQLite replays the log.
    ///
    /// # Errors
    ///
    /// [`OpenError`], whose message says what to do.
    pub fn open(config: EmbeddedConfig) -> Result<Self, OpenError> {
        let EmbeddedConfig {
            path,
            bounds,
            clock,
            cache_bytes,
            encryption,
        } = config;
        bounds.check()?;
        let place = Arc::new(place::claim(&path)?);
        let seal = Arc::new(Seal::new(encryption.as_ref()));
        let writable = schema::open_for_writing(place.file(), &seal)?;
        let cache = Arc::new(Cache::new(cache_bytes));
        let counters = Arc::new(Counters::default());
        let mut threads = Vec::new();

        let (reads, jobs) = mpsc::channel(QUEUE_LENGTH);
        let jobs = reader::Jobs::shared(jobs);
        for _ in 0..READER_THREADS {
            let connection = schema::open_for_reading(place.file())?;
            let reader = reader::Reader {
                connection,
                seal: Arc::clone(&seal),
                cache: Arc::clone(&cache),
                counters: Arc::clone(&counters),
            };
            let (jobs, place) = (Arc::clone(&jobs), Arc::clone(&place));
            threads.push(start("ledger-reader", &path, move || {
                reader.run(&jobs, place);
            })?);
        }

        let (writes, jobs) = mpsc::channel(QUEUE_LENGTH);
        let terms = writer::Terms {
            bounds,
            clock: Arc::clone(&clock),
            seal: Arc::clone(&seal),
            cache: Arc::clone(&cache),
        };
        let writer = writer::Writer::new(writable, terms, Arc::clone(&counters), jobs);
        threads.push(start("ledger-writer", &path, move || writer.run(place))?);

        tracing::debug!(path = %path.display(), "ledger opened");
        Ok(Self {
            path,
            bounds,
            clock,
            seal,
            cache,
            counters,
            writes,
            reads,
            threads: Mutex::new(threads),
        })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Evicts everything that is expired or too much now, and says how many entries that were.
    /// Records wait meanwhile.
    ///
    /// The store does this by itself, between records and within a minute of idling; this is for
    /// those who want to wait for it. Safe to drop mid-await: it is done all the same.
    ///
    /// # Errors
    ///
    /// [`LedgerError`].
    pub async fn sweep(&self) -> Result<u64, LedgerError> {
        ask(&self.writes, Operation::Sweep, ANSWER_WAIT, |reply| {
            writer::Job::Sweep { reply }
        })
        .await
    }

    /// Takes no more work, finishes what is queued, and waits for the threads to end and to let go
    /// of the file. Closing twice is no error. Dropped mid-await, it can be called again.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Timeout`] if the queued work is not finished in time; it goes on regardless.
    pub async fn close(&self) -> Result<(), LedgerError> {
        let late = LedgerError::Timeout {
            operation: Operation::Close,
            waited: ANSWER_WAIT,
        };
        timeout(ANSWER_WAIT, self.finish())
            .await
            .unwrap_or(Err(late))
    }

    async fn finish(&self) -> Result<(), LedgerError> {
        self.cache.close();
        let mut threads = self.threads.lock().await;
        // A queue that is closed already has got its message, or has lost the thread that would
        // read it.
        let _closed_already = self.reads.send(reader::Job::Close).await;
        let _closed_already = self.writes.send(writer::Job::Close).await;
        while let Some(thread) = threads.last_mut() {
            // The sender is never used, only dropped, at the thread's very end.
            let _dropped = (&mut thread.ended).await;
            let crashed = threads
                .pop()
                .is_some_and(|thread| thread.handle.join().is_err());
            if crashed {
                return Err(LedgerError::Closed);
            }
        }
        Ok(())
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
        let scope = self.seal.scope(scope);
        let keys: Vec<_> = keys.iter().map(|key| self.seal.key(&scope, key)).collect();
        let cutoff = self.bounds.cutoff(&*self.clock);
        let Found {
            mut values,
            missing,
        } = self.cache.look_up(&scope, &keys, cutoff);
        self.counters
            .recall_cached
            .fetch_add((keys.len() - missing.len()) as u64, Ordering::Relaxed);
        if !missing.is_empty() {
            let asked = missing.iter().map(|at| keys[*at]).collect();
            let read = self.read(scope, asked, cutoff).await?;
            for (at, found) in missing.into_iter().zip(read) {
                values[at] = found;
            }
        }
        if weight(&values) > MAX_RECALL_BYTES {
            // A value that several keys lead to was counted for each: the file's word is exact.
            values = self.read(scope, keys, cutoff).await?;
        }
        self.count(&values);
        Ok(values)
    }

    /// Asks the file.
    async fn read(
        &self,
        scope: ScopeIndex,
        keys: Vec<[u8; 16]>,
        cutoff: i64,
    ) -> Result<Vec<Vec<Bytes>>, LedgerError> {
        let question = reader::Question {
            scope,
            keys,
            cutoff,
        };
        let job = |reply| reader::Job::Lookup(reader::Lookup::Recall { question, reply });
        ask(&self.reads, Operation::Recall, ANSWER_WAIT, job).await
    }

    fn count(&self, values: &[Vec<Bytes>]) {
        let misses = values.iter().filter(|found| found.is_empty()).count() as u64;
        let counters = &self.counters;
        counters.recall_misses.fetch_add(misses, Ordering::Relaxed);
        counters
            .recall_hits
            .fetch_add(values.len() as u64 - misses, Ordering::Relaxed);
    }

    async fn record_entry(&self, scope: &Scope, entry: Entry) -> Result<(), LedgerError> {
        let Entry { mut keys, value } = entry;
        keys.sort_unstable();
        keys.dedup();
        check_key_count(Operation::Record, &keys, MAX_ENTRY_KEYS)?;
        let max_bytes = self.bounds.max_value_bytes;
        if value.len() > max_bytes {
            return Err(LedgerError::ValueTooLarge {
                bytes: value.len(),
                max_bytes,
            });
        }
        let scope = self.seal.scope(scope);
        let keys = keys
            .iter()
            .flat_map(|key| self.seal.key(&scope, key))
            .collect();
        let job = |reply| writer::Job::Record {
            record: writer::Record { scope, keys, value },
            reply,
        };
        ask(&self.writes, Operation::Record, ANSWER_WAIT, job).await
    }

    async fn probe(&self) -> Result<(), LedgerError> {
        let job = |reply| reader::Job::Lookup(reader::Lookup::Probe { reply });
        ask(&self.reads, Operation::Probe, PROBE_WAIT, job).await?;
        ask(&self.writes, Operation::Probe, PROBE_WAIT, |reply| {
            writer::Job::Probe { reply }
        })
        .await
    }
}

impl Ledger for Embedded {
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
        Box::pin(Self::close(self))
    }

    fn stats(&self) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        Stats {
            batches: read(&counters.batches),
            batches_failed: read(&counters.batches_failed),
            bytes: Some(read(&counters.bytes)),
            entries: Some(read(&counters.entries)),
            evicted_by_scope: read(&counters.evicted_by_scope),
            evicted_by_size: read(&counters.evicted_by_size),
            evicted_by_ttl: read(&counters.evicted_by_ttl),
            recall_cached: read(&counters.recall_cached),
            recall_hits: read(&counters.recall_hits),
            recall_misses: read(&counters.recall_misses),
            recorded: read(&counters.recorded),
            unreadable: read(&counters.unreadable),
            ..Stats::default()
        }
    }
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedded")
            .field("path", &self.path)
            .field("bounds", &self.bounds)
            .finish_non_exhaustive()
    }
}

/// What these values come to, in bytes, each counted as often as it is there.
fn weight(values: &[Vec<Bytes>]) -> usize {
    values.iter().flatten().map(Bytes::len).sum()
}

type Reply<T> = oneshot::Sender<Result<T, LedgerError>>;

/// Puts a job into a queue and waits for its answer, each within its bound.
async fn ask<J, T>(
    queue: &mpsc::Sender<J>,
    operation: Operation,
    answer_wait: Duration,
    job: impl FnOnce(Reply<T>) -> J,
) -> Result<T, LedgerError> {
    let (reply, answer) = oneshot::channel();
    let waited = QUEUE_WAIT.min(answer_wait);
    match timeout(waited, queue.reserve()).await {
        Ok(Ok(place)) => place.send(job(reply)),
        Ok(Err(_closed)) => return Err(LedgerError::Closed),
        Err(_elapsed) => return Err(LedgerError::Busy { operation, waited }),
    }
    match timeout(answer_wait, answer).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_thread_ended)) => Err(LedgerError::Closed),
        Err(_elapsed) => Err(LedgerError::Timeout {
            operation,
            waited: answer_wait,
        }),
    }
}

fn start(
    name: &str,
    path: &Path,
    body: impl FnOnce() + Send + 'static,
) -> Result<Thread, OpenError> {
    let (end, ended) = oneshot::channel::<()>();
    let body = move || {
        // Dropped last, also when the body panics.
        let _end = end;
        body();
    };
    let handle = thread::Builder::new().name(name.to_owned()).spawn(body);
    Ok(Thread {
        handle: handle.map_err(|source| OpenError::Io {
            path: path.to_owned(),
            source,
        })?,
        ended,
    })
}
