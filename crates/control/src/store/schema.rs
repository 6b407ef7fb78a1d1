//! The tables, how they came to be, and how a connection is set up.

use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::{PATIENCE, StoreError};

/// "FARS", in SQLite's field for what kind of database a file is.
const APPLICATION_ID: i64 = 0x4641_5253;

/// Each brings a file from the version of its index to the next. Never edited once released, only added to.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE providers (
        name     TEXT PRIMARY KEY,
        type     TEXT NOT NULL,
        base_url TEXT,               -- the profile's own, if there is none
        added    INTEGER NOT NULL,   -- milliseconds since 1970
        changed  INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE provider_keys (
        provider TEXT NOT NULL REFERENCES providers (name) ON DELETE CASCADE,
        name     TEXT NOT NULL,
        source   TEXT NOT NULL,      -- a reference, such as env:OPENAI_API_KEY; never a secret
        PRIMARY KEY (provider, name)
    ) STRICT, WITHOUT ROWID;
",
    "
    CREATE TABLE sandboxes (
        name    TEXT PRIMARY KEY,
        slot    INTEGER NOT NULL UNIQUE,  -- which of the users it is that sandboxes run as
        wanted  INTEGER NOT NULL,         -- whether it is to run
        spec    TEXT NOT NULL,            -- JSON
        created INTEGER NOT NULL          -- milliseconds since 1970
    ) STRICT;
",
];

/// Opens the file and brings it to the present version.
pub(super) fn open(path: &Path) -> Result<Connection, StoreError> {
    let failed = |source| sqlite(path, source);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let mut connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    set_up(&connection).map_err(failed)?;
    migrate(&mut connection, path)?;
    Ok(connection)
}

/// What SQLite advises for a file that somebody may have tampered with (<https://www.sqlite.org/security.html>); changes that
/// are on the disk when they are made.
///
/// The journal is a rollback journal, SQLite's default. A write-ahead log would let readers go on while something is
/// written, which here takes milliseconds; but the change to it fails at once, whatever the time-out, if another process
/// opens the file at the same moment.
fn set_up(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(PATIENCE)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "mmap_size", 0)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    // What was removed is not to be found in free pages.
    connection.pragma_update(None, "secure_delete", true)?;
    connection.pragma_update(None, "foreign_keys", true)
}

fn migrate(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let failed = |source| sqlite(path, source);
    if version(connection).map_err(failed)? == newest() && is_ours(connection, path)? {
        return Ok(());
    }
    // Two processes may open a new file at once: which version it has is looked at when no other can change it.
    let change = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(failed)?;
    is_ours(&change, path)?;
    let found = version(&change).map_err(failed)?;
    let done = usize::try_from(found).ok();
    let Some(done) = done.filter(|done| *done <= MIGRATIONS.len()) else {
        return Err(StoreError::Newer {
            path: path.to_owned(),
            found,
            supported: newest(),
        });
    };
    let apply = || {
        for migration in &MIGRATIONS[done..] {
            change.execute_batch(migration)?;
        }
        change.pragma_update(None, "user_version", newest())?;
        change.pragma_update(None, "application_id", APPLICATION_ID)
    };
    apply().and_then(|()| change.commit()).map_err(failed)
}

fn newest() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// An empty file is to become ours; another database is to be left alone.
fn is_ours(connection: &Connection, path: &Path) -> Result<bool, StoreError> {
    let failed = |source| sqlite(path, source);
    let kind: i64 = connection
        .pragma_query_value(None, "application_id", |row| row.get(0))
        .map_err(failed)?;
    let tables = "SELECT count(*) FROM sqlite_schema";
    let tables: i64 = connection
        .query_row(tables, [], |row| row.get(0))
        .map_err(failed)?;
    if kind == APPLICATION_ID || (kind == 0 && tables == 0) {
        return Ok(kind == APPLICATION_ID);
    }
    Err(StoreError::NotState {
        path: path.to_owned(),
    })
}

fn sqlite(path: &Path, source: rusqlite::Error) -> StoreError {
    StoreError::Sqlite {
        path: path.to_owned(),
        source,
    }
}
