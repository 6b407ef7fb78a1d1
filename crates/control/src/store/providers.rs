//! Providers: what kind, where, and where their keys come from.

use std::collections::BTreeMap;

use farrier_secrets::{KeyName, ProviderName, SecretRef};
use rusqlite::{OptionalExtension as _, Row, Transaction, TransactionBehavior, params};

use super::{Store, StoreError};

/// A provider as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredProvider {
    /// What routes and attachments call it.
    pub name: ProviderName,
    /// The name of its profile. Not looked up here: a later Farrier may know more of them.
    pub kind: String,
    /// Where it is; the profile's own, if absent.
    pub base_url: Option<String>,
    /// Where its keys come from.
    pub keys: BTreeMap<KeyName, SecretRef>,
    /// When it was added, in milliseconds since 1970.
    pub added_unix_ms: u64,
    /// When it was last changed.
    pub changed_unix_ms: u64,
}

/// A change that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A provider that is not there yet.
    Add(StoredProvider),
    /// One that is there, in another form.
    Replace(StoredProvider),
    /// One less.
    Remove(ProviderName),
}

/// Why a change was not made. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// There is one of that name.
    #[error(
        "expected a new name, got {name}, which is a provider already; farrier provider set {name} changes it"
    )]
    Exists {
        /// The name.
        name: ProviderName,
    },
    /// The store could not be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is none of that name.
    #[error("expected the name of a stored provider, got {name}; farrier provider list shows them")]
    Unknown {
        /// The name.
        name: ProviderName,
    },
}

impl Change {
    /// Whose it is.
    #[must_use]
    pub fn name(&self) -> &ProviderName {
        match self {
            Self::Add(provider) | Self::Replace(provider) => &provider.name,
            Self::Remove(name) => name,
        }
    }

    /// The same, made at this time.
    #[must_use]
    pub fn at(mut self, unix_ms: u64) -> Self {
        if let Self::Add(provider) | Self::Replace(provider) = &mut self {
            provider.added_unix_ms = unix_ms;
            provider.changed_unix_ms = unix_ms;
        }
        self
    }
}

impl Store {
    /// Makes a change, and gives the one that takes it back.
    ///
    /// # Errors
    ///
    /// [`ChangeError`].
    pub fn make(&mut self, change: &Change) -> Result<Change, ChangeError> {
        let before = self.provider(change.name())?;
        let unknown = || ChangeError::Unknown {
            name: change.name().clone(),
        };
        match change {
            Change::Add(provider) => {
                self.add(provider)?;
                Ok(Change::Remove(provider.name.clone()))
            }
            Change::Replace(provider) => {
                self.replace(provider)?;
                before.map(Change::Replace).ok_or_else(unknown)
            }
            Change::Remove(name) => {
                self.remove(name)?;
                before.map(Change::Add).ok_or_else(unknown)
            }
        }
    }

    /// Every provider, in the order of their names.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn providers(&self) -> Result<Vec<StoredProvider>, StoreError> {
        let _snapshot = self.snapshot()?;
        let read = || {
            let mut select = self.connection.prepare(
                "SELECT name, type, base_url, added, changed FROM providers ORDER BY name",
            )?;
            let rows = select.query_map([], Raw::read)?;
            rows.collect::<rusqlite::Result<Vec<Raw>>>()
        };
        let rows = read().map_err(|error| self.sqlite(error))?;
        rows.into_iter().map(|raw| self.whole(raw)).collect()
    }

    /// The provider of that name.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn provider(&self, name: &ProviderName) -> Result<Option<StoredProvider>, StoreError> {
        let _snapshot = self.snapshot()?;
        let select = "SELECT name, type, base_url, added, changed FROM providers WHERE name = ?1";
        let raw = self
            .connection
            .query_row(select, [name.as_str()], Raw::read)
            .optional()
            .map_err(|error| self.sqlite(error))?;
        raw.map(|raw| self.whole(raw)).transpose()
    }

    /// Adds a provider.
    ///
    /// # Errors
    ///
    /// [`ChangeError`].
    pub fn add(&mut self, provider: &StoredProvider) -> Result<(), ChangeError> {
        let name = provider.name.clone();
        let added = self.change(|change| {
            let insert = "INSERT INTO providers VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING";
            let rows = change.execute(
                insert,
                params![
                    provider.name.as_str(),
                    provider.kind,
                    provider.base_url,
                    signed(provider.added_unix_ms),
                    signed(provider.changed_unix_ms)
                ],
            )?;
            if rows > 0 {
                insert_keys(change, provider)?;
            }
            Ok(rows > 0)
        })?;
        if added {
            Ok(())
        } else {
            Err(ChangeError::Exists { name })
        }
    }

    /// Puts a provider in the place of the one of its name; but for the time when it was added.
    ///
    /// # Errors
    ///
    /// [`ChangeError`].
    pub fn replace(&mut self, provider: &StoredProvider) -> Result<(), ChangeError> {
        let name = provider.name.clone();
        let replaced = self.change(|change| {
            let update =
                "UPDATE providers SET type = ?2, base_url = ?3, changed = ?4 WHERE name = ?1";
            let rows = change.execute(
                update,
                params![
                    provider.name.as_str(),
                    provider.kind,
                    provider.base_url,
                    signed(provider.changed_unix_ms)
                ],
            )?;
            if rows > 0 {
                change.execute(
                    "DELETE FROM provider_keys WHERE provider = ?1",
                    [name.as_str()],
                )?;
                insert_keys(change, provider)?;
            }
            Ok(rows > 0)
        })?;
        if replaced {
            Ok(())
        } else {
            Err(ChangeError::Unknown { name })
        }
    }

    /// Removes a provider.
    ///
    /// # Errors
    ///
    /// [`ChangeError`].
    pub fn remove(&mut self, name: &ProviderName) -> Result<(), ChangeError> {
        let delete = "DELETE FROM providers WHERE name = ?1";
        let rows = self.change(|change| change.execute(delete, [name.as_str()]))?;
        if rows > 0 {
            Ok(())
        } else {
            Err(ChangeError::Unknown { name: name.clone() })
        }
    }

    /// Providers and keys as of one moment, until it is dropped.
    fn snapshot(&self) -> Result<Transaction<'_>, StoreError> {
        let begun = self.connection.unchecked_transaction();
        begun.map_err(|error| self.sqlite(error))
    }

    pub(super) fn change<T>(
        &mut self,
        make: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let path = self.path.clone();
        let all = || {
            let change = self
                .connection
                .transaction_with_behavior(TransactionBehavior::Immediate)?;
            let made = make(&change)?;
            change.commit()?;
            Ok(made)
        };
        all().map_err(|source| StoreError::Sqlite { path, source })
    }

    /// With its keys, and held to what a provider is.
    fn whole(&self, raw: Raw) -> Result<StoredProvider, StoreError> {
        let unreadable = |expected: String| StoreError::Unreadable {
            path: self.path.clone(),
            expected,
        };
        let name: ProviderName = raw
            .name
            .parse()
            .map_err(|_invalid| unreadable("the name of a provider".to_owned()))?;
        let read = || {
            let select = "SELECT name, source FROM provider_keys WHERE provider = ?1";
            let mut select = self.connection.prepare_cached(select)?;
            let rows = select.query_map([name.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect::<rusqlite::Result<Vec<(String, String)>>>()
        };
        let mut keys = BTreeMap::new();
        for (key, source) in read().map_err(|error| self.sqlite(error))? {
            let key = key.parse().ok();
            let entry = key.zip(source.parse().ok());
            let entry = entry
                .ok_or_else(|| unreadable(format!("keys of provider {name} as references")))?;
            keys.extend([entry]);
        }
        Ok(StoredProvider {
            name,
            kind: raw.kind,
            base_url: raw.base_url,
            keys,
            added_unix_ms: unsigned(raw.added),
            changed_unix_ms: unsigned(raw.changed),
        })
    }
}

/// A row.
struct Raw {
    name: String,
    kind: String,
    base_url: Option<String>,
    added: i64,
    changed: i64,
}

impl Raw {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            name: row.get(0)?,
            kind: row.get(1)?,
            base_url: row.get(2)?,
            added: row.get(3)?,
            changed: row.get(4)?,
        })
    }
}

fn insert_keys(change: &Transaction<'_>, provider: &StoredProvider) -> rusqlite::Result<()> {
    let mut insert = change.prepare("INSERT INTO provider_keys VALUES (?1, ?2, ?3)")?;
    for (key, source) in &provider.keys {
        insert.execute([provider.name.as_str(), key.as_str(), &source.to_string()])?;
    }
    Ok(())
}

/// SQLite counts in signed numbers; ours are never negative.
pub(super) fn unsigned(stored: i64) -> u64 {
    u64::try_from(stored).unwrap_or(0)
}

pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
