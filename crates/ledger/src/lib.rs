//! The turn ledger: scoped, durable, bounded memory of what a model really said.
//!
//! *In:* an [`Entry`], which is one turn as opaque bytes and the keys it can be found by, and the
//! [`Scope`] it belongs to. *Out:* for keys asked within a scope, what was recorded under them,
//! newest first.
//!
//! What a turn is, how a key is made of it, and which of several candidates is the right one are
//! the caller's knowledge. This crate knows no dialect and never looks into a value.
//!
//! Invariants:
//! * **Never another's words.** A value is returned only to the scope it was recorded under.
//! * **Durable when acknowledged.** [`Ledger::record`] says [`Stored::Durable`] after the commit;
//!   killing the process then loses nothing. What is merely queued says so.
//! * **Bounded.** Age, total size and entries per scope have limits; what is evicted is counted, by
//!   reason.
//! * **Never logged.** No value, key or scope name appears in a log line, an error or a `Debug`
//!   output.
//!
//! ```text
//! caller ─▶ Outbox: keeps what the store does not take now ─▶ Embedded: a SQLite file of its own
//!                                                          └▶ Shared: a Redis or Valkey for a fleet
//! ```
//!
//! [`Store`] is either of the two stores by its configuration; [`Store::open`] puts an [`Outbox`]
//! before it.
#![forbid(unsafe_code)]

mod backoff;
mod clock;
mod embedded;
mod error;
mod outbox;
mod seal;
mod shared;
mod store;

use std::fmt;
use std::pin::Pin;

use bytes::Bytes;

pub use clock::{Clock, ManualClock, SystemClock};
pub use embedded::{Bounds, Embedded, EmbeddedConfig, KeyMismatch, OpenError};
pub use error::{KeyKind, LedgerError, Operation};
pub use outbox::{Outbox, OutboxConfig};
pub use seal::{EncryptionKey, KeyFormatError};
pub use shared::{
    Address, Identity, Location, LocationError, Password, Shared, SharedConfig, SharedConfigError,
};
pub use store::{Store, StoreError};

/// The most values that one key gives. Older ones stay until they are evicted, but are not
/// returned.
pub const MAX_CANDIDATES: usize = 16;
/// The most keys that one entry can be found by.
pub const MAX_ENTRY_KEYS: usize = 1024;
/// The most keys that one recall may ask for.
pub const MAX_RECALL_KEYS: usize = 16 * 1024;
/// The most bytes of distinct values that one recall may give.
pub const MAX_RECALL_BYTES: usize = 64 * 1024 * 1024;

/// A future that a [`Ledger`] returns.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Remembers turns.
///
/// All methods must be awaited on a Tokio runtime with its timer enabled, whose clock is not
/// paused: a paused clock jumps to the next deadline while a store's own thread is still at work.
pub trait Ledger: Send + Sync + fmt::Debug + 'static {
    /// What was recorded under each of the keys in this scope. A key that nothing is recorded under
    /// gives an empty list, which is not an error.
    ///
    /// What a key gives is the state of the store at one moment of the call. An entry that is read for
    /// several of the keys shares its bytes between them.
    ///
    /// # Errors
    ///
    /// [`LedgerError`]: too many keys or bytes are the caller's doing, everything else is the
    /// store's. [`LedgerError::is_transient`] says which are worth another try. Safe to drop
    /// mid-await.
    fn recall<'a>(
        &'a self,
        scope: &'a Scope,
        keys: &'a [Key],
    ) -> BoxFuture<'a, Result<Answer, LedgerError>>;

    /// Resolves when the entry is durable, or else says that it is not yet.
    ///
    /// Safe to drop mid-await: the entry may or may not be stored, whole either way.
    ///
    /// # Errors
    ///
    /// [`LedgerError`]. After [`LedgerError::Timeout`] too, the entry may yet be stored.
    fn record<'a>(
        &'a self,
        scope: &'a Scope,
        entry: Entry,
    ) -> BoxFuture<'a, Result<Stored, LedgerError>>;

    /// Whether the store can be read and written now. Cheap enough for a readiness probe; safe to
    /// drop mid-await.
    ///
    /// # Errors
    ///
    /// [`LedgerError`], for the same reasons as the operation that would fail.
    fn ready(&self) -> BoxFuture<'_, Result<(), LedgerError>>;

    /// Takes no more work, finishes what is queued within a bound of its own, and lets go of the
    /// store. Closing twice is no error; dropped mid-await, it can be called again.
    ///
    /// # Errors
    ///
    /// [`LedgerError`], if something was left unfinished.
    fn close(&self) -> BoxFuture<'_, Result<(), LedgerError>>;

    /// What has been counted since the store was opened, and its present size.
    fn stats(&self) -> Stats;
}

/// What a recall found.
#[derive(Clone, Default)]
pub struct Answer {
    /// For each key, in the order asked, the values recorded under it, newest first, at most
    /// [`MAX_CANDIDATES`].
    pub values: Vec<Vec<Bytes>>,
    /// Why the store could not be asked, so that what is here is only what waits to be stored: an
    /// empty list then means that nothing is known, not that nothing was recorded.
    pub unasked: Option<LedgerError>,
}

impl Answer {
    /// All there is.
    pub(crate) fn whole(values: Vec<Vec<Bytes>>) -> Self {
        Self {
            values,
            unasked: None,
        }
    }
}

impl fmt::Debug for Answer {
    /// Shows counts only: the values are what a model said to somebody.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = self.values.iter().filter(|values| !values.is_empty());
        write!(
            f,
            "Answer({} of {} keys found, unasked: {:?})",
            found.count(),
            self.values.len(),
            self.unasked
        )
    }
}

/// What became of a record that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// The store has acknowledged it.
    Durable,
    /// The store does not take it now. It waits in memory, is found by recalls of this process, and
    /// is lost if the process is killed.
    Queued,
}

/// Whose conversation: a sandbox, a client key, a session.
///
/// Only a digest of the name is kept, so that a scope made of a client's key can be stored and
/// printed.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Scope([u8; 32]);

impl Scope {
    /// The scope of this name. Two scopes are the same exactly when their names are.
    pub fn new(name: impl Into<String>) -> Self {
        Self(blake3::derive_key(
            "farrier ledger 2026-11 scope",
            name.into().as_bytes(),
        ))
    }

    pub(crate) fn digest(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Scope {
    /// Four bytes of the digest: enough to follow one scope through a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "Scope({a:02x}{b:02x}{c:02x}{d:02x})")
    }
}

/// What an entry is found by, within a scope. Meant to be a digest: keys are stored as they are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Key(pub [u8; 16]);

/// One turn, findable by any of its keys.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is found by: 1 to [`MAX_ENTRY_KEYS`]. Naming a key twice is the same as naming it
    /// once.
    pub keys: Vec<Key>,
    /// The turn, opaque to the ledger. May be empty.
    pub value: Bytes,
}

impl fmt::Debug for Entry {
    /// Shows sizes only: the value is what a model said to somebody.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Entry({} keys, {} bytes)",
            self.keys.len(),
            self.value.len()
        )
    }
}

/// Counters since the store was opened, except `entries`, `bytes`, `queued` and `queued_bytes`, which
/// are present sizes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Commits that stored at least one entry.
    pub batches: u64,
    /// Batches that could not be committed.
    pub batches_failed: u64,
    /// What the stored entries weigh, in bytes; the measure that [`Bounds::max_bytes`] limits. A store
    /// that is shared does not say.
    pub bytes: Option<u64>,
    /// Queued entries that were given up: pushed out by younger ones, too old, or refused by the store.
    pub dropped: u64,
    /// Entries stored. A store that is shared does not say.
    pub entries: Option<u64>,
    /// Entries evicted because their scope had too many.
    pub evicted_by_scope: u64,
    /// Entries evicted because the store was too large.
    pub evicted_by_size: u64,
    /// Entries evicted because they were too old.
    pub evicted_by_ttl: u64,
    /// Entries that wait for the store to take them.
    pub queued: u64,
    /// What these weigh, in bytes.
    pub queued_bytes: u64,
    /// Keys asked for that memory knew, so that the store was not asked. A store that is shared keeps
    /// none in memory.
    pub recall_cached: u64,
    /// Keys asked for under which something was found.
    pub recall_hits: u64,
    /// Keys asked for under which nothing was found.
    pub recall_misses: u64,
    /// Entries acknowledged as durable.
    pub recorded: u64,
    /// Queued entries that the store took in the end.
    pub retried: u64,
    /// Stored values that could not be decrypted when they were asked for.
    pub unreadable: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_shows_neither_the_scope_name_nor_the_value() {
        let scope = Scope::new("sk-canary-client-key");
        let entry = Entry {
            keys: vec![Key([7; 16])],
            value: Bytes::from_static(b"canary reasoning"),
        };
        let shown = format!("{scope:?} {scope:#?} {entry:?} {entry:#?}");
        assert!(!shown.contains("canary"), "{shown}");
        assert_eq!(format!("{entry:?}"), "Entry(1 keys, 16 bytes)");
    }

    #[test]
    fn scopes_are_the_same_exactly_when_their_names_are() {
        assert_eq!(Scope::new("a"), Scope::new(String::from("a")));
        assert_ne!(Scope::new("a"), Scope::new("a "));
        assert_ne!(Scope::new(""), Scope::new("a"));
    }
}
