//! Randomness: asked of the operating system once, spread by a keyed hash.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Gives each request its own unpredictable seed.
pub(crate) struct Seeds {
    key: [u8; 32],
    next: AtomicU64,
}

impl Seeds {
    pub(crate) fn new() -> Result<Self, getrandom::Error> {
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        Ok(Self {
            key,
            next: AtomicU64::new(0),
        })
    }

    /// A seed that no other request has or can guess.
    pub(crate) fn next(&self) -> [u8; 16] {
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        let hash = blake3::keyed_hash(&self.key, &count.to_le_bytes());
        std::array::from_fn(|index| hash.as_bytes()[index])
    }

    /// The key under which client keys are looked up.
    pub(crate) fn digest_key(&self) -> [u8; 32] {
        blake3::derive_key("farrier gateway 2026-11 client digests", &self.key)
    }

    /// Any number, for waits that are not to be alike.
    pub(crate) fn any(&self) -> u64 {
        let seed = self.next();
        u64::from_le_bytes(std::array::from_fn(|index| seed[index]))
    }

    /// Tells one writer of files from another, of this run or any other.
    pub(crate) fn writer(&self) -> [u8; 4] {
        let seed = self.next();
        std::array::from_fn(|index| seed[index])
    }
}

impl fmt::Debug for Seeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seeds(***)")
    }
}
