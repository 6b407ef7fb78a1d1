use std::fs::{self, File};
use std::io::Cursor;
use std::path::PathBuf;

use proptest::prelude::*;
use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::request::Scopes;

/// As 2026.9.6 makes it.
const TABLE: &str = "CREATE TABLE device_pairing_pending (
  request_id TEXT NOT NULL PRIMARY KEY, device_id TEXT NOT NULL, public_key TEXT NOT NULL, display_name TEXT,
  platform TEXT, device_family TEXT, client_id TEXT, client_mode TEXT, browser_origin TEXT, role TEXT,
  roles_json TEXT, scopes_json TEXT, remote_ip TEXT, silent INTEGER, is_repair INTEGER, ts INTEGER NOT NULL,
  refreshed_at_ms INTEGER) STRICT";
const INDEX: &str = "CREATE INDEX by_device ON device_pairing_pending(device_id, ts DESC)";
const INSERT: &str = "INSERT INTO device_pairing_pending VALUES
  (?1, ?2, ?3, NULL, 'linux', NULL, 'cli', 'cli', NULL, 'operator', '[\"operator\"]', ?4, '198.51.100.7', 0, 1, 1795191339800, NULL)";

/// A database as the harness has it, open for as long as this is.
struct Database {
    place: TempDir,
    connection: Connection,
}

impl Database {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let connection = Connection::open(place.path().join("openclaw.sqlite")).unwrap();
        connection
            .pragma_update(None, "journal_mode", "WAL")
            .unwrap();
        connection
            .execute_batch(&format!(
                "{TABLE}; {INDEX}; CREATE TABLE other (id INTEGER, text TEXT)"
            ))
            .unwrap();
        Self { place, connection }
    }

    fn asks(&self, id: &str, scopes: &str) {
        let row = (id, "ab".repeat(32), "k".repeat(43), scopes);
        self.connection.execute(INSERT, row).unwrap();
    }

    fn log(&self) -> PathBuf {
        self.place.path().join("openclaw.sqlite-wal")
    }

    fn seen(&self, log: &mut Log) -> Vec<String> {
        let requests = log.look(&mut File::open(self.log()).unwrap()).unwrap();
        requests
            .iter()
            .map(|request| request.id.to_string())
            .collect()
    }
}

#[test]
fn a_request_is_read_as_the_harness_would_print_it() {
    let database = Database::new();
    database.asks(
        "db8f5ebe-53bb-4267-8863-9ce53b37eae6",
        "[\"operator.read\"]",
    );
    let requests = Log::default()
        .look(&mut File::open(database.log()).unwrap())
        .unwrap();
    let [request] = &requests[..] else {
        panic!("{requests:?}");
    };
    assert_eq!(request.id.as_str(), "db8f5ebe-53bb-4267-8863-9ce53b37eae6");
    assert_eq!(request.device_id.as_deref(), Some("ab".repeat(32).as_str()));
    assert_eq!(request.client_id.as_deref(), Some("cli"));
    assert_eq!(request.client_mode.as_deref(), Some("cli"));
    assert_eq!(request.roles, Some(vec!["operator".to_owned()]));
    assert_eq!(
        request.scopes,
        Scopes::Listed(vec!["operator.read".to_owned()])
    );
    assert_eq!(request.asked_at_ms, Some(1_795_191_339_800));
    assert!(!request.silent);
}

#[test]
fn requests_come_and_go_with_the_table() {
    let database = Database::new();
    let mut log = Log::default();
    assert!(database.seen(&mut log).is_empty());
    // As many as a page holds; one that the table gives back is not written again, and keeps what it held.
    for number in 0..8 {
        database.asks(&format!("r{number}"), "[]");
    }
    assert_eq!(database.seen(&mut log).len(), 8);
    database
        .connection
        .execute(
            "DELETE FROM device_pairing_pending WHERE request_id <> 'r7'",
            (),
        )
        .unwrap();
    assert_eq!(database.seen(&mut log), ["r7"]);
    assert_eq!(
        database.seen(&mut Log::default()),
        ["r7"],
        "however it is read"
    );
}

#[test]
fn a_log_that_begins_anew_is_read_from_its_beginning() {
    let database = Database::new();
    let mut log = Log::default();
    database.asks("before", "[]");
    assert_eq!(database.seen(&mut log), ["before"]);
    let checkpoint = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
    let busy = database
        .connection
        .query_row("PRAGMA wal_checkpoint(RESTART)", (), checkpoint)
        .unwrap();
    assert_eq!(busy, 0);
    database
        .connection
        .execute("DELETE FROM device_pairing_pending", ())
        .unwrap();
    database.asks("after", "[]");
    assert_eq!(database.seen(&mut log), ["after"]);
}

#[test]
fn other_tables_say_nothing_whatever_is_in_them() {
    let database = Database::new();
    let text = format!("r1{}{}", "ab".repeat(32), "k".repeat(43));
    database
        .connection
        .execute("INSERT INTO other VALUES (1, ?1)", (text,))
        .unwrap();
    assert!(database.seen(&mut Log::default()).is_empty());
}

#[test]
fn what_is_no_log_is_unreadable_and_an_empty_one_is_empty() {
    let look = |bytes: &[u8]| Log::default().look(&mut Cursor::new(bytes.to_vec()));
    assert_eq!(look(b""), Ok(Vec::new()));
    assert_eq!(look(&[0; 31]), Ok(Vec::new()));
    assert_eq!(look(&[0; 4096]), Err(LookError::Unreadable));
}

fn sample() -> Vec<u8> {
    let database = Database::new();
    (0..20).for_each(|number| database.asks(&format!("r{number}"), "[\"operator.read\"]"));
    fs::read(database.log()).unwrap()
}

#[test]
fn a_log_that_is_cut_anywhere_is_read_as_far_as_it_goes() {
    let whole = sample();
    let mut grown = Log::default();
    let mut last = Vec::new();
    for end in (0..=whole.len()).step_by(997).chain([whole.len()]) {
        let cut = whole[..end].to_vec();
        last = grown.look(&mut Cursor::new(cut.clone())).unwrap();
        assert_eq!(last, Log::default().look(&mut Cursor::new(cut)).unwrap());
    }
    assert_eq!(last.len(), 20);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_bytes_make_it_fail(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..200)) {
        thread_local! {
            static SAMPLE: Vec<u8> = sample();
        }
        let mut bytes = SAMPLE.with(Clone::clone);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let requests = Log::default().look(&mut Cursor::new(bytes)).unwrap_or_default();
        prop_assert!(requests.len() <= Listing::MOST);
    }
}
