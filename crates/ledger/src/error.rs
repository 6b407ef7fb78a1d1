//! What can go wrong once a ledger is open.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::Key;

/// What a ledger was doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Finishing what is queued and letting go of the store.
    Close,
    /// Saying whether it is ready.
    Probe,
    /// Looking entries up.
    Recall,
    /// Storing an entry.
    Record,
    /// Evicting everything that is due.
    Sweep,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Close => "close",
            Self::Probe => "probe",
            Self::Recall => "recall",
            Self::Record => "record",
            Self::Sweep => "sweep",
        })
    }
}

/// What a store was begun with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// Another encryption key.
    Another,
    /// No encryption.
    None,
    /// This encryption key.
    This,
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Another => "with another encryption key",
            Self::None => "without encryption",
            Self::This => "with this encryption key",
        })
    }
}

/// Why a ledger operation failed. Never holds a value, a key or a scope's name.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LedgerError {
    /// The store underneath refused.
    #[error("ledger {operation} failed in the store")]
    Backend {
        /// What was being done.
        operation: Operation,
        /// What the store said; shared, because one failed commit fails many records.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// More is being asked than the store keeps up with.
    #[error("expected a place in the ledger's queue for {operation}, got none within {waited:?}")]
    Busy {
        /// What was to be done.
        operation: Operation,
        /// How long a place was waited for.
        waited: Duration,
    },
    /// The ledger was closed, or the thread that served it ended.
    #[error("the ledger is closed")]
    Closed,
    /// What is stored was begun with another encryption key, or with none, or with one.
    #[error(
        "expected the ledger's store to be begun {expected}, it was begun {found}; \
         give the key it was begun with, or another prefix to begin a new one"
    )]
    Encryption {
        /// What this side has.
        expected: KeyKind,
        /// What the store has.
        found: KeyKind,
    },
    /// An entry that nothing could find, or that more keys find than may; or a recall of too many.
    #[error("expected {operation} of 1 to {max} keys, got {keys}")]
    KeyCount {
        /// What was being done.
        operation: Operation,
        /// How many keys there were.
        keys: usize,
        /// How many there may be.
        max: usize,
    },
    /// The values found are together larger than one recall may give.
    #[error("expected at most {max_bytes} bytes of recalled values, got more")]
    RecallTooLarge {
        /// How many bytes there may be.
        max_bytes: usize,
    },
    /// The store did not answer in time. What was asked may yet happen.
    #[error("expected the ledger's answer to {operation} within {waited:?}, got none")]
    Timeout {
        /// What was asked.
        operation: Operation,
        /// How long the answer was waited for.
        waited: Duration,
    },
    /// The store cannot be reached, and is being looked for. Said at once, not after a wait.
    #[error("the ledger's store cannot be reached for {operation}")]
    Unavailable {
        /// What was to be done.
        operation: Operation,
        /// Why; shared, because one lost connection fails many calls.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// Turns that were queued for a store that did not take them before the ledger was closed.
    #[error(
        "expected the ledger's store to take {entries} queued turns before closing, it did not"
    )]
    Undelivered {
        /// How many are lost.
        entries: u64,
    },
    /// Values were found that the encryption key does not open: they were damaged or tampered with.
    /// Nothing is returned then, because what is hidden might have been the better candidate.
    #[error("expected {entries} recalled values to decrypt with the ledger's key, they did not")]
    Unreadable {
        /// How many values.
        entries: u64,
    },
    /// The entry's value is larger than the ledger takes.
    #[error("expected a value of at most {max_bytes} bytes, got {bytes}")]
    ValueTooLarge {
        /// The value's size.
        bytes: usize,
        /// What the ledger takes.
        max_bytes: usize,
    },
}

impl LedgerError {
    /// Whether the same call may succeed later without anyone changing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Backend { .. }
                | Self::Busy { .. }
                | Self::Timeout { .. }
                | Self::Unavailable { .. }
        )
    }

    pub(crate) fn backend(
        operation: Operation,
        source: impl Error + Send + Sync + 'static,
    ) -> Self {
        Self::Backend {
            operation,
            source: Arc::new(source),
        }
    }
}

/// Refuses what has no keys, or more than there may be.
pub(crate) fn check_key_count(
    operation: Operation,
    keys: &[Key],
    max: usize,
) -> Result<(), LedgerError> {
    if keys.is_empty() || keys.len() > max {
        return Err(LedgerError::KeyCount {
            operation,
            keys: keys.len(),
            max,
        });
    }
    Ok(())
}
