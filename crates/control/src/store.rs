//! What is to be remembered between commands: providers, as references, and sandboxes.
//!
//! ```text
//! farrier provider … ──▶ Store ──▶ state.db (SQLite) ◀── Store ◀── a gateway that reads its configuration
//! ```
//!
//! Guarantees:
//! * **No secret.** What is stored of a key is where it comes from, a [`SecretRef`](farrier_secrets::SecretRef).
//! * **Nobody else's.** The directory is this user's and open to nobody else, the file is 0600, neither is a link.
//! * **Whole.** A change is one transaction, on the disk when the call returns. Processes that change or read it at once wait
//!   for each other, for at most [`PATIENCE`].
//! * **Forward only.** A file of an older version is brought to this one when it is opened; a newer one is refused.
//!
//! Every call blocks for the time of a small read or write. A [`Store`] is a connection: open it where it is used, on a
//! thread that may block, and drop it.

mod place;
mod providers;
mod sandboxes;
mod schema;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;

pub use providers::{Change, ChangeError, StoredProvider};
pub use sandboxes::{MAX_SANDBOXES, SandboxError, StoredSandbox};

/// The state of one user.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    path: PathBuf,
}

/// Why there is no store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another user's.
    #[error("expected a file of user {expected}'s own, got {} of user {owner}", path.display())]
    ForeignOwner {
        /// The file or directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        expected: u32,
    },
    /// The operating system would not.
    #[error("cannot open the state in {}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// A later Farrier has written it.
    #[error(
        "expected state of version {supported} or older in {}, got version {found}; run the Farrier that wrote it, or a \
         newer one",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest that is understood.
        supported: i64,
    },
    /// Another program's database.
    #[error("expected Farrier's state in {}, got another database", path.display())]
    NotState {
        /// The file.
        path: PathBuf,
    },
    /// Others can look into it.
    #[error("expected a directory that only its owner can open, got mode {mode:04o} (chmod 700 {})", path.display())]
    OpenToOthers {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// SQLite would not go on.
    #[error("cannot use the state in {}", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: rusqlite::Error,
    },
    /// A link, which could lead anywhere, or something that is no file.
    #[error("expected {expected}, got something else at {}", path.display())]
    Unexpected {
        /// What the path names.
        path: PathBuf,
        /// What should be there.
        expected: &'static str,
    },
    /// Somebody else has written to it, or a disk has lost something.
    #[error("expected {expected} in {}, got something else; remove the provider and add it again", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What should be there.
        expected: String,
    },
}

/// How long a change or a read waits for another process's change.
pub const PATIENCE: Duration = Duration::from_secs(10);

const FILE: &str = "state.db";

// === impl Store ===

impl Store {
    /// Opens the state in this directory, and makes both if they are not there.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let directory = place::prepare(directory)?;
        let path = directory.join(FILE);
        place::prepare_file(&path)?;
        let connection = schema::open(&path)?;
        Ok(Self { connection, path })
    }

    /// Opens the state in this directory, if there is any, and makes nothing.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn open_existing(directory: &Path) -> Result<Option<Self>, StoreError> {
        match std::fs::symlink_metadata(directory.join(FILE)) {
            Ok(_) => Self::open(directory).map(Some),
            Err(error) if is_nowhere(&error) => Ok(None),
            Err(source) => Err(StoreError::Io {
                path: directory.join(FILE),
                source,
            }),
        }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn sqlite(&self, source: rusqlite::Error) -> StoreError {
        StoreError::Sqlite {
            path: self.path.clone(),
            source,
        }
    }
}

/// There is nothing of that name, nor could there be.
fn is_nowhere(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

#[cfg(test)]
mod tests;
