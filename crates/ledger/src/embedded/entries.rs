//! What goes into the tables and what goes out of them again, within a transaction of the writer's.
//!
//! An entry, its keys, its scope's count and the totals change together or not at all. The oldest
//! go first: within a scope by the order of recording, in the whole store by the time of it.

use bytes::Bytes;
use rusqlite::{OptionalExtension as _, Params, Row, Transaction, params};

use super::cache::{Changes, Known};
use super::schema::{Totals, signed, unsigned};
use super::writer::Record;
use crate::seal::{ScopeIndex, Seal, SealError};
use crate::{MAX_CANDIDATES, MAX_ENTRY_KEYS};

/// Estimates of what an entry takes in the file beside its value and its keys (a row, two index
/// entries, its share of half-filled pages), and of what each key takes, here and in the index.
const ENTRY_WEIGHT: usize = 128;
const KEY_WEIGHT: usize = 64;
const KEY_BYTES: usize = 16;
/// Rows looked at together. They are small: the values stay where they are.
const VICTIMS_AT_ONCE: u64 = 64;

/// What a transaction has come to so far.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) changes: Changes,
    pub(super) totals: Totals,
    pub(super) evicted_by_scope: u64,
    pub(super) evicted_by_size: u64,
    pub(super) evicted_by_ttl: u64,
}

/// A record that could not be stored, or an entry that could not be evicted.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("cannot seal a value")]
    Seal(#[from] SealError),
    #[error(transparent)]
    Store(#[from] rusqlite::Error),
}

/// The scope that a record went into.
pub(super) struct Landed {
    pub(super) scope: i64,
    /// How many entries it has now.
    pub(super) entries: u64,
}

/// The most that an entry can weigh beyond its value as the caller knows it.
pub(super) fn heaviest_bookkeeping() -> u64 {
    const SEAL_BYTES: usize = 40;
    (ENTRY_WEIGHT + MAX_ENTRY_KEYS * KEY_WEIGHT + SEAL_BYTES) as u64
}

/// Stores a record. One of the same keys and the same value takes the place of the earlier: whoever records again what was
/// stored without their hearing of it must not crowd out what else is found under its keys.
pub(super) fn insert(
    transaction: &Transaction<'_>,
    seal: &Seal,
    record: &Record,
    recorded: i64,
    tally: &mut Tally,
) -> Result<Landed, Fault> {
    let Record { scope, keys, value } = record;
    let sealed = seal.seal(scope, keys, value)?;
    let stored = sealed.as_deref().unwrap_or(value);
    let weight = (ENTRY_WEIGHT + keys.len() / KEY_BYTES * KEY_WEIGHT + stored.len()) as u64;

    let sql = "INSERT INTO scopes (digest, entries) VALUES (?1, 1)
               ON CONFLICT (digest) DO UPDATE SET entries = entries + 1 RETURNING id, entries";
    let mut landed = transaction
        .prepare_cached(sql)?
        .query_row([&scope[..]], |row| {
            Ok(Landed {
                scope: row.get(0)?,
                entries: unsigned(row.get(1)?),
            })
        })?;
    if let Some(earlier) = find_same(transaction, seal, record, landed.scope)? {
        remove(transaction, &earlier, tally)?;
        landed.entries -= 1;
    }
    let sql =
        "INSERT INTO entries (scope, recorded, weight, keys, value) VALUES (?1, ?2, ?3, ?4, ?5)";
    let entry = transaction.prepare_cached(sql)?.insert(params![
        landed.scope,
        recorded,
        signed(weight),
        keys,
        stored
    ])?;
    let known = Known {
        entry,
        recorded,
        // A copy, which keeps no larger buffer alive than it needs.
        value: Bytes::copy_from_slice(value),
    };
    let sql = "SELECT EXISTS (SELECT 1 FROM entry_keys WHERE scope = ?1 AND key = ?2)";
    let mut is_known = transaction.prepare_cached(sql)?;
    let mut insert_key = transaction
        .prepare_cached("INSERT INTO entry_keys (scope, key, entry) VALUES (?1, ?2, ?3)")?;
    let (keys, _none) = keys.as_chunks::<KEY_BYTES>();
    for key in keys {
        let others: bool = is_known.query_row(params![landed.scope, key], |row| row.get(0))?;
        insert_key.execute(params![landed.scope, key, entry])?;
        tally.changes.add(*scope, *key, !others, known.clone());
    }
    tally.totals.entries += 1;
    tally.totals.weight += weight;
    Ok(landed)
}

/// The entry that has the same keys and the same value, among those that a recall of its first key gives.
fn find_same(
    transaction: &Transaction<'_>,
    seal: &Seal,
    record: &Record,
    scope: i64,
) -> Result<Option<Victim>, Fault> {
    let sql = "SELECT id, entries.scope, weight, keys, value FROM entry_keys
               JOIN entries ON id = entry WHERE entry_keys.scope = ?1 AND key = ?2
               ORDER BY entry DESC LIMIT ?3";
    let first = record.keys.get(..KEY_BYTES);
    let mut select = transaction.prepare_cached(sql)?;
    let mut rows = select.query(params![scope, first, signed(MAX_CANDIDATES as u64)])?;
    while let Some(row) = rows.next()? {
        let (keys, stored) = (row.get_ref(3)?.as_blob(), row.get_ref(4)?.as_blob());
        let (Ok(keys), Ok(stored)) = (keys, stored) else {
            continue;
        };
        // What does not open is not what is being recorded.
        let is_same = keys == record.keys
            && match seal.open(&record.scope, keys, stored) {
                Ok(None) => stored == record.value,
                Ok(Some(opened)) => opened == record.value,
                Err(_sealed_otherwise) => false,
            };
        if is_same {
            return Ok(Some(Victim::of(row)?));
        }
    }
    Ok(None)
}

/// Evicts the oldest entries of a scope, at most `surplus`.
pub(super) fn evict_from_scope(
    transaction: &Transaction<'_>,
    scope: i64,
    surplus: u64,
    tally: &mut Tally,
) -> Result<(), Fault> {
    if surplus == 0 {
        return Ok(());
    }
    let sql = "SELECT id, scope, weight, keys FROM entries WHERE scope = ?1 ORDER BY id LIMIT ?2";
    for victim in victims(transaction, sql, params![scope, signed(surplus)])? {
        remove(transaction, &victim, tally)?;
        tally.evicted_by_scope += 1;
    }
    Ok(())
}

/// Evicts what is expired, then the oldest while the store weighs too much; at most `allowed`
/// entries. Says whether it stopped because of that, so that there may be more.
pub(super) fn evict_from_store(
    transaction: &Transaction<'_>,
    max_weight: u64,
    cutoff: i64,
    allowed: u64,
    tally: &mut Tally,
) -> Result<bool, Fault> {
    let sql = "SELECT id, scope, weight, keys FROM entries WHERE recorded <= ?1
               ORDER BY recorded, id LIMIT ?2";
    let mut left = allowed;
    for victim in victims(transaction, sql, params![cutoff, signed(left)])? {
        remove(transaction, &victim, tally)?;
        tally.evicted_by_ttl += 1;
        left -= 1;
    }
    let sql = "SELECT id, scope, weight, keys FROM entries ORDER BY recorded, id LIMIT ?1";
    while left > 0 && tally.totals.weight > max_weight {
        let oldest = victims(transaction, sql, [signed(left.min(VICTIMS_AT_ONCE))])?;
        if oldest.is_empty() {
            break;
        }
        for victim in oldest {
            if tally.totals.weight <= max_weight {
                break;
            }
            remove(transaction, &victim, tally)?;
            tally.evicted_by_size += 1;
            left -= 1;
        }
    }
    Ok(left == 0)
}

/// An entry to be evicted, without its value.
struct Victim {
    id: i64,
    scope: i64,
    weight: u64,
    keys: Vec<u8>,
}

impl Victim {
    fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            scope: row.get(1)?,
            weight: unsigned(row.get(2)?),
            keys: row.get(3)?,
        })
    }
}

fn victims(
    transaction: &Transaction<'_>,
    sql: &str,
    params: impl Params,
) -> rusqlite::Result<Vec<Victim>> {
    transaction
        .prepare_cached(sql)?
        .query_map(params, Victim::of)?
        .collect()
}

fn remove(
    transaction: &Transaction<'_>,
    victim: &Victim,
    tally: &mut Tally,
) -> rusqlite::Result<()> {
    let scope: Option<ScopeIndex> = transaction
        .prepare_cached("SELECT digest FROM scopes WHERE id = ?1")?
        .query_row([victim.scope], |row| row.get(0))
        .optional()?;
    let sql = "DELETE FROM entry_keys WHERE scope = ?1 AND key = ?2 AND entry = ?3";
    let mut delete_key = transaction.prepare_cached(sql)?;
    // What does not make a whole key is nothing of ours.
    let (keys, _tampered) = victim.keys.as_chunks::<KEY_BYTES>();
    for key in keys {
        delete_key.execute(params![victim.scope, key, victim.id])?;
        if let Some(scope) = scope {
            tally.changes.remove(scope, *key);
        }
    }
    transaction
        .prepare_cached("DELETE FROM entries WHERE id = ?1")?
        .execute([victim.id])?;
    let sql = "UPDATE scopes SET entries = entries - 1 WHERE id = ?1";
    transaction.prepare_cached(sql)?.execute([victim.scope])?;
    let sql = "DELETE FROM scopes WHERE id = ?1 AND entries <= 0";
    transaction.prepare_cached(sql)?.execute([victim.scope])?;
    // A file that was tampered with may count less than it holds; a total is never worth a panic.
    let totals = &mut tally.totals;
    totals.entries = totals.entries.saturating_sub(1);
    totals.weight = totals.weight.saturating_sub(victim.weight);
    Ok(())
}
