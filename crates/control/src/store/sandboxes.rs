//! Sandboxes: what is wanted of each, and the user of the host that it runs as.

use rusqlite::{OptionalExtension as _, Row, params};

use super::providers::{signed, unsigned};
use super::{Store, StoreError};
use crate::sandbox::{SandboxName, SandboxSpec};

/// A sandbox as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSandbox {
    /// What it is called.
    pub name: SandboxName,
    /// Which of the users it is that sandboxes run as: 0 for the first. No two sandboxes have the same.
    pub slot: u32,
    /// Whether it is to run.
    pub is_wanted: bool,
    /// What it is.
    pub spec: SandboxSpec,
    /// When it was made, in milliseconds since 1970.
    pub created_unix_ms: u64,
}

/// Why a change was not made. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// There is one of that name.
    #[error("expected a new name, got {name}, which is a sandbox already")]
    Exists {
        /// The name.
        name: SandboxName,
    },
    /// Every user that sandboxes run as is taken.
    #[error("expected at most {most} sandboxes, got one more; destroy one that is not needed")]
    Full {
        /// How many there may be.
        most: u32,
    },
    /// The store could not be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is none of that name.
    #[error("expected the name of a sandbox, got {name}; farrier sandbox list shows them")]
    Unknown {
        /// The name.
        name: SandboxName,
    },
}

/// As many as there may be, so that each runs as a user of its own.
pub const MAX_SANDBOXES: u32 = 4096;

impl Store {
    /// Every sandbox, in the order of their names.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn sandboxes(&self) -> Result<Vec<StoredSandbox>, StoreError> {
        let select = "SELECT name, slot, wanted, spec, created FROM sandboxes ORDER BY name";
        let read = || {
            let mut select = self.connection.prepare(select)?;
            let rows = select.query_map([], Raw::read)?;
            rows.collect::<rusqlite::Result<Vec<Raw>>>()
        };
        let rows = read().map_err(|error| self.sqlite(error))?;
        rows.into_iter().map(|raw| raw.parsed(self)).collect()
    }

    /// The sandbox of that name.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn sandbox(&self, name: &SandboxName) -> Result<Option<StoredSandbox>, StoreError> {
        let select = "SELECT name, slot, wanted, spec, created FROM sandboxes WHERE name = ?1";
        let raw = self
            .connection
            .query_row(select, [name.as_str()], Raw::read)
            .optional()
            .map_err(|error| self.sqlite(error))?;
        raw.map(|raw| raw.parsed(self)).transpose()
    }

    /// Adds a sandbox, with the first slot that no other has.
    ///
    /// # Errors
    ///
    /// [`SandboxError`].
    pub fn add_sandbox(
        &mut self,
        name: &SandboxName,
        spec: &SandboxSpec,
        (is_wanted, unix_ms): (bool, u64),
    ) -> Result<StoredSandbox, SandboxError> {
        let text = self.written(spec)?;
        let added = self.change(|change| {
            let exists = "SELECT count(*) FROM sandboxes WHERE name = ?1";
            let exists: i64 = change.query_row(exists, [name.as_str()], |row| row.get(0))?;
            if exists > 0 {
                return Ok(Err(SandboxError::Exists { name: name.clone() }));
            }
            let taken: Vec<u32> = change
                .prepare("SELECT slot FROM sandboxes ORDER BY slot")?
                .query_map([], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            let Some(slot) = first_free(&taken) else {
                return Ok(Err(SandboxError::Full {
                    most: MAX_SANDBOXES,
                }));
            };
            change.execute(
                "INSERT INTO sandboxes VALUES (?1, ?2, ?3, ?4, ?5)",
                params![name.as_str(), slot, is_wanted, text, signed(unix_ms)],
            )?;
            Ok(Ok(slot))
        })?;
        Ok(StoredSandbox {
            name: name.clone(),
            slot: added?,
            is_wanted,
            spec: spec.clone(),
            created_unix_ms: unix_ms,
        })
    }

    /// Has a sandbox be something else.
    ///
    /// # Errors
    ///
    /// [`SandboxError`].
    pub fn change_sandbox(
        &mut self,
        name: &SandboxName,
        spec: &SandboxSpec,
    ) -> Result<(), SandboxError> {
        let text = self.written(spec)?;
        let update = "UPDATE sandboxes SET spec = ?2 WHERE name = ?1";
        let rows = self.change(|change| change.execute(update, params![name.as_str(), text]))?;
        known(rows, name)
    }

    /// Says whether a sandbox is to run.
    ///
    /// # Errors
    ///
    /// [`SandboxError`].
    pub fn want_sandbox(
        &mut self,
        name: &SandboxName,
        is_wanted: bool,
    ) -> Result<(), SandboxError> {
        let update = "UPDATE sandboxes SET wanted = ?2 WHERE name = ?1";
        let rows =
            self.change(|change| change.execute(update, params![name.as_str(), is_wanted]))?;
        known(rows, name)
    }

    /// Removes a sandbox.
    ///
    /// # Errors
    ///
    /// [`SandboxError`].
    pub fn remove_sandbox(&mut self, name: &SandboxName) -> Result<(), SandboxError> {
        let delete = "DELETE FROM sandboxes WHERE name = ?1";
        let rows = self.change(|change| change.execute(delete, [name.as_str()]))?;
        known(rows, name)
    }

    fn written(&self, spec: &SandboxSpec) -> Result<String, StoreError> {
        serde_json::to_string(spec).map_err(|_no_text| StoreError::Unreadable {
            path: self.path.clone(),
            expected: "paths that are text".to_owned(),
        })
    }
}

/// A row.
struct Raw {
    name: String,
    slot: u32,
    wanted: bool,
    spec: String,
    created: i64,
}

impl Raw {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            name: row.get(0)?,
            slot: row.get(1)?,
            wanted: row.get(2)?,
            spec: row.get(3)?,
            created: row.get(4)?,
        })
    }

    /// Held to what a sandbox is.
    fn parsed(self, store: &Store) -> Result<StoredSandbox, StoreError> {
        let unreadable = |expected: &str| StoreError::Unreadable {
            path: store.path.clone(),
            expected: expected.to_owned(),
        };
        Ok(StoredSandbox {
            name: self
                .name
                .parse()
                .map_err(|_invalid| unreadable("the name of a sandbox"))?,
            slot: self.slot,
            is_wanted: self.wanted,
            spec: serde_json::from_str(&self.spec)
                .map_err(|_invalid| unreadable(&format!("what sandbox {} is", self.name)))?,
            created_unix_ms: unsigned(self.created),
        })
    }
}

/// The first number that is not in the list, which is sorted.
fn first_free(taken: &[u32]) -> Option<u32> {
    let gap = (0..).zip(taken).find(|(at, slot)| at != *slot);
    let free = gap.map_or_else(|| u32::try_from(taken.len()).ok(), |(at, _)| Some(at));
    free.filter(|slot| *slot < MAX_SANDBOXES)
}

fn known(rows: usize, name: &SandboxName) -> Result<(), SandboxError> {
    match rows {
        0 => Err(SandboxError::Unknown { name: name.clone() }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::first_free;

    #[test]
    fn a_slot_that_became_free_is_taken_first() {
        assert_eq!(first_free(&[]), Some(0));
        assert_eq!(first_free(&[0, 1, 2]), Some(3));
        assert_eq!(first_free(&[1, 2]), Some(0));
        assert_eq!(first_free(&[0, 2, 3]), Some(1));
        assert_eq!(
            first_free(&(0..super::MAX_SANDBOXES).collect::<Vec<_>>()),
            None
        );
    }
}
