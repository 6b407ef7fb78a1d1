//! The tables, how they came to be, and how a connection is set up.
//!
//! A scope is stored once, under a number that is never used again, so that no key of a forgotten
//! scope can lead to a newer scope's entry. An entry carries its own keys, so that evicting it
//! needs no index from entries to keys.

use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::{KeyMismatch, OpenError};
use crate::seal::Seal;

/// "FARL", in SQLite's field for what kind of database a file is.
const APPLICATION_ID: i64 = 0x4641_524c;

/// Measured with turns of 2 KB, two of which do not fit into a page of 4 KiB: the file is then 1.9
/// times its weight and 200 lookups take 0.5 ms; with 8 KiB, 1.25 times and 0.35 ms. With 16 KiB it
/// is 1.08 times, but each key's page makes a commit write more. Changes nothing in a file that
/// exists.
const PAGE_BYTES: i64 = 8192;

/// Each brings a file from the schema of its index to the next. Never edited once released, only
/// added to.
const MIGRATIONS: &[&str] = &["
    CREATE TABLE scopes (
        id      INTEGER PRIMARY KEY AUTOINCREMENT,
        digest  BLOB NOT NULL UNIQUE,
        entries INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE entries (
        id       INTEGER PRIMARY KEY,
        scope    INTEGER NOT NULL,
        recorded INTEGER NOT NULL,  -- milliseconds since 1970
        weight   INTEGER NOT NULL,
        keys     BLOB NOT NULL,     -- 16 bytes each
        value    BLOB NOT NULL
    ) STRICT;
    CREATE INDEX entries_by_time ON entries (recorded);
    CREATE INDEX entries_by_scope ON entries (scope);
    CREATE TABLE entry_keys (
        scope INTEGER NOT NULL,
        key   BLOB NOT NULL,
        entry INTEGER NOT NULL,
        PRIMARY KEY (scope, key, entry)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE totals (
        entries INTEGER NOT NULL,
        weight  INTEGER NOT NULL
    ) STRICT;
    INSERT INTO totals VALUES (0, 0);
    CREATE TABLE encryption (fingerprint BLOB NOT NULL) STRICT;
"];

/// A connection that may write, and what the file holds.
pub(super) struct Writable {
    pub(super) connection: Connection,
    pub(super) totals: Totals,
}

/// What all entries come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) entries: u64,
    pub(super) weight: u64,
}

/// Opens the file, brings it to the present schema, and makes sure that the key is the one it was
/// begun with.
pub(super) fn open_for_writing(path: &Path, seal: &Seal) -> Result<Writable, OpenError> {
    let refused = |source| store_error(path, source);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | safe_flags();
    let mut connection = Connection::open_with_flags(path, flags).map_err(refused)?;
    harden(&connection).map_err(refused)?;
    check_kind(&connection, path)?;
    set_up_writing(&connection).map_err(refused)?;
    migrate(&mut connection, path, seal)?;
    check_key(&connection, path, seal)?;
    let totals = read_totals(&connection).map_err(refused)?;
    Ok(Writable { connection, totals })
}

/// Opens the file, which has been opened for writing before, for lookups alone.
pub(super) fn open_for_reading(path: &Path) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | safe_flags();
    let open = || {
        let connection = Connection::open_with_flags(path, flags)?;
        harden(&connection)?;
        rusqlite::vtab::array::load_module(&connection)?;
        Ok(connection)
    };
    open().map_err(|source| store_error(path, source))
}

pub(super) fn read_totals(connection: &Connection) -> rusqlite::Result<Totals> {
    connection
        .prepare_cached("SELECT entries, weight FROM totals")?
        .query_row([], |row| {
            Ok(Totals {
                entries: unsigned(row.get(0)?),
                weight: unsigned(row.get(1)?),
            })
        })
}

/// SQLite counts in signed numbers; ours are never negative.
pub(super) fn unsigned(stored: i64) -> u64 {
    u64::try_from(stored).unwrap_or(0)
}

/// As [`unsigned`], the other way.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Each connection stays with one thread, so SQLite need not lock it; and the last component must
/// be no link.
fn safe_flags() -> OpenFlags {
    OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW
}

/// What SQLite advises for a file that somebody may have tampered with
/// (<https://www.sqlite.org/security.html>).
fn harden(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    // Otherwise a statement is compiled anew whenever a parameter of it changes that a plan could
    // depend on, the number after LIMIT for one.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "mmap_size", 0)
}

/// An empty file is to become a ledger; another database is to be left alone.
fn check_kind(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let refused = |source| store_error(path, source);
    let kind: i64 = connection
        .pragma_query_value(None, "application_id", |row| row.get(0))
        .map_err(refused)?;
    let tables = "SELECT count(*) FROM sqlite_schema";
    let tables: i64 = connection
        .query_row(tables, [], |row| row.get(0))
        .map_err(refused)?;
    if kind == APPLICATION_ID || (kind == 0 && tables == 0) {
        return Ok(());
    }
    Err(OpenError::NotALedger {
        path: path.to_owned(),
    })
}

fn set_up_writing(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    // The statement answers with the mode that was reached; another one than WAL would have readers
    // block the writer, which the busy timeout then resolves: slower, not wrong.
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_row| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    // The log is cut back to this after a checkpoint, having grown beyond it in a burst.
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    connection.pragma_update(None, "cache_size", -8192)
}

fn migrate(connection: &mut Connection, path: &Path, seal: &Seal) -> Result<(), OpenError> {
    let refused = |source| store_error(path, source);
    let found: i64 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(refused)?;
    let known = usize::try_from(found)
        .ok()
        .filter(|found| *found <= MIGRATIONS.len());
    let Some(done) = known else {
        let supported = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
        return Err(OpenError::NewerSchema {
            path: path.to_owned(),
            found,
            supported,
        });
    };
    let mut apply = || {
        let change = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for (version, migration) in (1_i64..).zip(MIGRATIONS).skip(done) {
            change.execute_batch(migration)?;
            change.pragma_update(None, "user_version", version)?;
        }
        if done == 0 {
            change.pragma_update(None, "application_id", APPLICATION_ID)?;
            change.execute("INSERT INTO encryption VALUES (?1)", [seal.fingerprint()])?;
        }
        change.commit()
    };
    if done == MIGRATIONS.len() {
        return Ok(());
    }
    apply().map_err(refused)
}

fn check_key(connection: &Connection, path: &Path, seal: &Seal) -> Result<(), OpenError> {
    let stored = connection.query_row("SELECT fingerprint FROM encryption", [], |row| row.get(0));
    let stored: Vec<u8> = stored.map_err(|source| store_error(path, source))?;
    let mismatch = match (stored.as_slice(), seal.fingerprint()) {
        (stored, given) if stored == given => return Ok(()),
        ([], _) => KeyMismatch::NotEncrypted,
        (_, []) => KeyMismatch::KeyMissing,
        _ => KeyMismatch::WrongKey,
    };
    Err(OpenError::Encryption {
        path: path.to_owned(),
        mismatch,
    })
}

fn store_error(path: &Path, source: rusqlite::Error) -> OpenError {
    let path = path.to_owned();
    match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            OpenError::Corrupt { path, source }
        }
        // Ours by its mark, yet a table or a row of it is gone.
        Some(ErrorCode::Unknown) | None => OpenError::Corrupt { path, source },
        Some(_) => OpenError::Store { path, source },
    }
}
