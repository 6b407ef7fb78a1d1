//! The embedded store: the suite of every ledger, and what is true of a file of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::suite::{entry, held, key, recall_one, suite, together};
use bytes::Bytes;
use farrier_ledger::{
    Bounds, Embedded, EmbeddedConfig, EncryptionKey, Entry, KeyMismatch, Ledger as _, LedgerError,
    MAX_CANDIDATES, MAX_RECALL_BYTES, ManualClock, OpenError, Scope,
};
use proptest::prelude::{Strategy, any, prop_oneof, proptest};
use tempfile::TempDir;
use tokio::runtime::Runtime;

const HOUR: Duration = Duration::from_secs(3600);

/// A ledger in a directory of its own, with a clock that stands still.
struct Fixture {
    dir: TempDir,
    clock: Arc<ManualClock>,
    config: EmbeddedConfig,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(1_700_000_000_000));
        let mut config = EmbeddedConfig::new(dir.path().join("ledger.db"));
        config.clock = clock.clone();
        Self { dir, clock, config }
    }

    fn bounded(bounds: Bounds) -> Self {
        let mut fixture = Self::new();
        fixture.config.bounds = bounds;
        fixture
    }

    fn encrypted(key: u8) -> Self {
        let mut fixture = Self::new();
        fixture.config.encryption = Some(EncryptionKey::new([key; 32]));
        fixture
    }

    fn path(&self) -> &Path {
        &self.config.path
    }

    fn open(&self) -> Embedded {
        Embedded::open(self.config.clone()).unwrap()
    }

    fn refusal(&self) -> OpenError {
        Embedded::open(self.config.clone()).unwrap_err()
    }

    /// Everything the store has on disk.
    fn bytes_on_disk(&self) -> Vec<u8> {
        let files = fs::read_dir(self.dir.path()).unwrap();
        files
            .flat_map(|file| fs::read(file.unwrap().path()).unwrap())
            .collect()
    }
}

fn contains(haystack: &[u8], needle: &str) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle.as_bytes())
}

#[tokio::test]
async fn the_suite_of_every_ledger_holds() {
    let fixture = Fixture::new();
    let ledger = fixture.open();
    suite(&ledger).await;
    ledger.close().await.unwrap();
}

#[tokio::test]
async fn the_suite_of_every_ledger_holds_when_encrypted() {
    let fixture = Fixture::encrypted(1);
    let ledger = fixture.open();
    suite(&ledger).await;
    ledger.close().await.unwrap();
}

#[tokio::test]
async fn the_suite_of_every_ledger_holds_when_nothing_is_kept_in_memory() {
    let mut fixture = Fixture::new();
    fixture.config.cache_bytes = 0;
    let ledger = fixture.open();
    suite(&ledger).await;
    assert_eq!(ledger.stats().recall_cached, 0);
    ledger.close().await.unwrap();
}

#[tokio::test]
async fn a_history_is_read_from_the_file_once_and_then_known_to_memory() {
    let fixture = Fixture::new();
    let scope = Scope::new("caller");
    let keys: Vec<_> = (0..10).map(key).collect();
    let first = fixture.open();
    for number in 0..9 {
        let turn = entry(&[number], number.to_string());
        first.record(&scope, turn).await.unwrap();
    }
    // What was just recorded is known; that nothing was recorded under the last key is not.
    first.recall(&scope, &keys).await.unwrap();
    assert_eq!(first.stats().recall_cached, 9);
    first.close().await.unwrap();

    let second = fixture.open();
    for cached in [0, 10, 20] {
        let found = second.recall(&scope, &keys).await.unwrap().values;
        assert_eq!(found.iter().flatten().count(), 9);
        assert_eq!(second.stats().recall_cached, cached);
    }
    second.close().await.unwrap();
}

#[tokio::test]
async fn what_memory_knows_expires_and_is_evicted_as_in_the_file() {
    let bounds = Bounds {
        ttl: HOUR,
        max_entries_per_scope: 2,
        ..Bounds::default()
    };
    let fixture = Fixture::bounded(bounds);
    let ledger = fixture.open();
    let scope = Scope::new("caller");
    for text in ["first", "second", "third"] {
        ledger.record(&scope, entry(&[1], text)).await.unwrap();
    }
    assert_eq!(recall_one(&ledger, &scope, 1).await, ["third", "second"]);
    fixture.clock.advance(HOUR);
    assert!(recall_one(&ledger, &scope, 1).await.is_empty());
    ledger.close().await.unwrap();
}

#[tokio::test]
async fn reopening_finds_everything_and_the_totals() {
    let fixture = Fixture::new();
    let scope = Scope::new("caller");
    let first = fixture.open();
    for number in 0..50 {
        first
            .record(&scope, entry(&[number], number.to_string()))
            .await
            .unwrap();
    }
    let before = first.stats();
    first.close().await.unwrap();

    let second = fixture.open();
    for number in 0..50 {
        assert_eq!(
            recall_one(&second, &scope, number).await,
            [number.to_string()]
        );
    }
    let after = second.stats();
    assert_eq!(
        (after.entries, after.bytes, after.recorded),
        (before.entries, before.bytes, 0)
    );
    second.close().await.unwrap();
}

#[tokio::test]
async fn records_that_wait_together_are_committed_together() {
    let fixture = Fixture::new();
    let ledger = fixture.open();
    let scope = &Scope::new("caller");
    let outcomes =
        together((0..500).map(|number| ledger.record(scope, entry(&[number], "turn")))).await;
    assert!(outcomes.iter().all(Result::is_ok));
    let stats = ledger.stats();
    assert_eq!(stats.recorded, 500);
    assert!(stats.batches <= 50, "{} batches", stats.batches);
    ledger.close().await.unwrap();
}

#[tokio::test]
async fn a_closed_ledger_says_so_and_closes_again() {
    let fixture = Fixture::new();
    let ledger = fixture.open();
    ledger.close().await.unwrap();
    ledger.close().await.unwrap();
    let scope = Scope::new("caller");
    assert!(matches!(
        ledger.record(&scope, entry(&[1], "late")).await,
        Err(LedgerError::Closed)
    ));
    assert!(matches!(
        ledger.recall(&scope, &[key(1)]).await,
        Err(LedgerError::Closed)
    ));
    assert!(matches!(ledger.ready().await, Err(LedgerError::Closed)));
}

#[tokio::test]
async fn closing_commits_what_is_queued() {
    let fixture = Fixture::new();
    let scope = &Scope::new("caller");
    let ledger = &fixture.open();
    let mut records: Vec<_> = (0..100)
        .map(|number| ledger.record(scope, entry(&[number], "queued")))
        .collect();
    // Polling each once puts it into the queue.
    std::future::poll_fn(|context| {
        for record in &mut records {
            let _pending = record.as_mut().poll(context);
        }
        std::task::Poll::Ready(())
    })
    .await;
    ledger.close().await.unwrap();
    assert_eq!(ledger.stats().recorded, 100);
}

#[tokio::test]
async fn an_expired_entry_is_not_returned_and_is_evicted() {
    let fixture = Fixture::bounded(Bounds {
        ttl: HOUR,
        ..Bounds::default()
    });
    let ledger = fixture.open();
    let scope = Scope::new("caller");
    ledger.record(&scope, entry(&[1], "old")).await.unwrap();
    fixture.clock.advance(HOUR / 2);
    ledger.record(&scope, entry(&[1], "young")).await.unwrap();
    assert_eq!(recall_one(&ledger, &scope, 1).await, ["young", "old"]);

    fixture.clock.advance(HOUR / 2);
    assert_eq!(recall_one(&ledger, &scope, 1).await, ["young"]);
    assert_eq!(ledger.sweep().await.unwrap(), 1);
    let stats = ledger.stats();
    assert_eq!((stats.evicted_by_ttl, stats.entries), (1, Some(1)));

    // Recording evicts too, without a sweep.
    fixture.clock.advance(HOUR);
    ledger.record(&scope, entry(&[2], "new")).await.unwrap();
    let stats = ledger.stats();
    assert_eq!((stats.evicted_by_ttl, stats.entries), (2, Some(1)));
    assert!(recall_one(&ledger, &scope, 1).await.is_empty());
    ledger.close().await.unwrap();
}

#[tokio::test]
async fn a_store_too_large_loses_its_oldest_whichever_scope_they_are_of() {
    let value_bytes = 10_000;
    let bounds = Bounds {
        max_bytes: 200_000,
        max_value_bytes: value_bytes,
        ..Bounds::default()
    };
    let fixture = Fixture::bounded(bounds);
    let ledger = fixture.open();
    let (old, new) = (Scope::new("old"), Scope::new("new"));
    ledger
        .record(&old, entry(&[1], "x".repeat(value_bytes)))
        .await
        .unwrap();
    fixture.clock.advance(HOUR);
    for number in 0..40 {
        ledger
            .record(&new, entry(&[number], "x".repeat(value_bytes)))
            .await
            .unwrap();
    }
    let stats = ledger.stats();
    let (entries, bytes) = held(stats);
    assert!(bytes <= bounds.max_bytes, "{bytes} bytes");
    assert_eq!(entries + stats.evicted_by_size, 41);
    assert_eq!(entries, 19, "as many as fit");
    assert!(recall_one(&ledger, &old, 1).await.is_empty());
    assert!(recall_one(&ledger, &new, 20).await.is_empty());
    assert_eq!(recall_one(&ledger, &new, 21).await.len(), 1);
    ledger.close().await.unwrap();
}

#[tokio::test]
async fn a_scope_with_too_many_entries_loses_its_own_oldest() {
    let fixture = Fixture::bounded(Bounds {
        max_entries_per_scope: 5,
        ..Bounds::default()
    });
    let ledger = fixture.open();
    let (quiet, busy) = (Scope::new("quiet"), Scope::new("busy"));
    ledger.record(&quiet, entry(&[1], "kept")).await.unwrap();
    for number in 0..12 {
        ledger
            .record(&busy, entry(&[number], number.to_string()))
            .await
            .unwrap();
    }
    let stats = ledger.stats();
    assert_eq!((stats.evicted_by_scope, stats.entries), (7, Some(6)));
    assert!(recall_one(&ledger, &busy, 6).await.is_empty());
    assert_eq!(recall_one(&ledger, &busy, 7).await, ["7"]);
    assert_eq!(recall_one(&ledger, &quiet, 1).await, ["kept"]);
    ledger.close().await.unwrap();
}

#[tokio::test]
async fn a_scope_that_was_forgotten_and_comes_back_begins_empty() {
    let fixture = Fixture::bounded(Bounds {
        ttl: HOUR,
        ..Bounds::default()
    });
    let ledger = fixture.open();
    let (first, second) = (Scope::new("first"), Scope::new("second"));
    ledger.record(&first, entry(&[1], "first")).await.unwrap();
    fixture.clock.advance(HOUR);
    ledger.sweep().await.unwrap();
    ledger.record(&second, entry(&[1], "second")).await.unwrap();
    assert!(recall_one(&ledger, &first, 1).await.is_empty());
    assert_eq!(recall_one(&ledger, &second, 1).await, ["second"]);
    ledger.close().await.unwrap();
}

#[tokio::test]
async fn bounds_that_were_lowered_shrink_the_store_in_steps() {
    let mut fixture = Fixture::new();
    let scope = &Scope::new("caller");
    let ledger = fixture.open();
    together((0..1000).map(|number| ledger.record(scope, entry(&[number], "x".repeat(1000)))))
        .await;
    ledger.close().await.unwrap();

    fixture.config.bounds = Bounds {
        max_bytes: 300_000,
        max_value_bytes: 1000,
        ..Bounds::default()
    };
    let ledger = fixture.open();
    ledger.sweep().await.unwrap();
    let stats = ledger.stats();
    let (entries, bytes) = held(stats);
    assert!(bytes <= 300_000, "{bytes} bytes");
    assert_eq!(entries + stats.evicted_by_size, 1000);
    assert_eq!(recall_one(&ledger, scope, 999).await.len(), 1);
    ledger.close().await.unwrap();
}

#[tokio::test]
async fn a_value_too_large_is_refused_and_the_largest_is_taken() {
    let fixture = Fixture::bounded(Bounds {
        max_value_bytes: 1000,
        ..Bounds::default()
    });
    let ledger = fixture.open();
    let scope = Scope::new("caller");
    ledger
        .record(&scope, entry(&[1], "x".repeat(1000)))
        .await
        .unwrap();
    let error = ledger
        .record(&scope, entry(&[1], "x".repeat(1001)))
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "expected a value of at most 1000 bytes, got 1001"
    );
    assert_eq!(ledger.stats().entries, Some(1));
    ledger.close().await.unwrap();
}

#[tokio::test]
async fn a_recall_gives_at_most_so_many_bytes_and_counts_a_shared_value_once() {
    let fixture = Fixture::new();
    let ledger = fixture.open();
    let scope = Scope::new("caller");
    let value = Bytes::from(vec![7; 5 << 20]);
    let (shared, alone): (Vec<_>, Vec<_>) =
        ((0..20).map(key).collect(), (100..113).map(key).collect());
    ledger
        .record(
            &scope,
            Entry {
                keys: shared.clone(),
                value: value.clone(),
            },
        )
        .await
        .unwrap();
    assert_eq!(
        ledger.recall(&scope, &shared).await.unwrap().values,
        vec![vec![value.clone()]; 20]
    );

    for key in &alone {
        ledger
            .record(
                &scope,
                Entry {
                    keys: vec![*key],
                    value: value.clone(),
                },
            )
            .await
            .unwrap();
    }
    let error = ledger.recall(&scope, &alone).await.unwrap_err();
    assert!(
        matches!(
            error,
            LedgerError::RecallTooLarge {
                max_bytes: MAX_RECALL_BYTES
            }
        ),
        "{error}"
    );
    assert!(!error.is_transient());
    ledger.close().await.unwrap();
}

#[test]
fn bounds_that_contradict_themselves_are_refused() {
    let default = Bounds::default();
    let cases = [
        (
            Bounds {
                max_value_bytes: (32 << 20) + 1,
                ..default
            },
            "max_value_bytes of at most 32 MiB",
        ),
        (
            Bounds {
                ttl: Duration::ZERO,
                ..default
            },
            "ttl of at least a millisecond",
        ),
        (
            Bounds {
                max_entries_per_scope: 0,
                ..default
            },
            "max_entries_per_scope of at least 1",
        ),
        (
            Bounds {
                max_bytes: 8 << 20,
                ..default
            },
            "max_bytes large enough for one entry of max_value_bytes",
        ),
    ];
    for (bounds, what) in cases {
        let error = Fixture::bounded(bounds).refusal();
        assert_eq!(
            error.to_string(),
            format!("expected {what} in the ledger's bounds")
        );
    }
}

#[tokio::test]
async fn every_file_is_open_to_its_owner_alone() {
    let mut fixture = Fixture::new();
    fixture.config.path = fixture.dir.path().join("new/nested/ledger.db");
    let ledger = fixture.open();
    ledger
        .record(&Scope::new("caller"), entry(&[1], "turn"))
        .await
        .unwrap();

    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    let directory = fixture.path().parent().unwrap();
    assert_eq!(mode(directory), 0o700);
    assert_eq!(mode(directory.parent().unwrap()), 0o700);
    let modes: BTreeMap<String, u32> = fs::read_dir(directory)
        .unwrap()
        .map(|file| {
            let file = file.unwrap();
            (file.file_name().into_string().unwrap(), mode(&file.path()))
        })
        .collect();
    let names = [
        "ledger.db",
        "ledger.db-shm",
        "ledger.db-wal",
        "ledger.db.lock",
    ];
    assert_eq!(modes, names.map(|name| (name.to_owned(), 0o600)).into());
    ledger.close().await.unwrap();
}

#[tokio::test]
async fn a_file_with_wider_permissions_is_narrowed() {
    let fixture = Fixture::new();
    fixture.open().close().await.unwrap();
    fs::set_permissions(fixture.path(), fs::Permissions::from_mode(0o644)).unwrap();
    fixture.open().close().await.unwrap();
    assert_eq!(
        fs::metadata(fixture.path()).unwrap().permissions().mode() & 0o7777,
        0o600
    );
}

#[test]
fn a_symbolic_link_or_directory_in_place_of_the_file_is_refused() {
    let fixture = Fixture::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let target = elsewhere.path().join("victim");
    fs::write(&target, "").unwrap();
    for name in ["ledger.db.lock", "ledger.db"] {
        let link = fixture.dir.path().join(name);
        symlink(&target, &link).unwrap();
        let expected = format!(
            "expected a regular file at {}, got a symbolic link; name the file itself",
            link.display()
        );
        assert_eq!(fixture.refusal().to_string(), expected);
        fs::remove_file(&link).unwrap();
    }
    assert_eq!(fs::read(&target).unwrap(), b"");

    fs::create_dir(fixture.path()).unwrap();
    assert!(matches!(
        fixture.refusal(),
        OpenError::NotAFile {
            found: "something else",
            ..
        }
    ));
}

#[test]
fn a_directory_that_others_can_write_to_is_refused() {
    let fixture = Fixture::new();
    fs::set_permissions(fixture.dir.path(), fs::Permissions::from_mode(0o770)).unwrap();
    let error = fixture.refusal();
    assert!(
        matches!(error, OpenError::WritableByOthers { mode: 0o770, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("chmod 700"), "{error}");
}

#[test]
fn a_directory_of_another_user_is_refused() {
    // The root directory is another user's unless the tests run as that user; then a file of
    // somebody else is made.
    let mut fixture = Fixture::new();
    if std::os::unix::fs::chown(fixture.dir.path(), Some(65_534), None).is_err() {
        fixture.config.path = PathBuf::from("/farrier-ledger-test.db");
    }
    let error = fixture.refusal();
    assert!(matches!(error, OpenError::ForeignOwner { .. }), "{error}");
    assert!(
        error.to_string().contains("a directory of its own"),
        "{error}"
    );
}

#[tokio::test]
async fn a_second_opening_is_refused_until_the_first_is_closed() {
    let fixture = Fixture::new();
    let first = fixture.open();
    let path = fixture.path().display();
    let expected = format!(
        "the ledger {path} is in use, by the lock {path}.lock; give each gateway a ledger of its own"
    );
    assert_eq!(fixture.refusal().to_string(), expected);
    first.close().await.unwrap();
    fixture.open().close().await.unwrap();
}

#[tokio::test]
async fn a_file_that_is_no_database_or_a_damaged_one_is_refused_with_the_remedy() {
    let fixture = Fixture::new();
    fs::write(fixture.path(), "this is not a database, canary".repeat(300)).unwrap();
    let error = fixture.refusal();
    assert!(matches!(error, OpenError::Corrupt { .. }), "{error:?}");
    let path = fixture.path().display().to_string();
    let shown = error.to_string();
    assert!(
        shown.contains(&path) && shown.contains("move it and its -wal and -shm files away"),
        "{shown}"
    );
    assert!(!format!("{error:?}").contains("canary"));

    fs::remove_file(fixture.path()).unwrap();
    fixture.open().close().await.unwrap();
    let whole = fs::read(fixture.path()).unwrap();
    fs::write(fixture.path(), &whole[..whole.len() / 2]).unwrap();
    assert!(matches!(fixture.refusal(), OpenError::Corrupt { .. }));
}

#[tokio::test]
async fn damage_inside_the_file_gives_an_error_or_an_answer_and_never_a_panic() {
    let fixture = Fixture::new();
    let scope = &Scope::new("caller");
    let ledger = fixture.open();
    together((0..300).map(|number| ledger.record(scope, entry(&[number], "x".repeat(200))))).await;
    ledger.close().await.unwrap();
    let whole = fs::read(fixture.path()).unwrap();
    let pages = whole.len() / 8192;
    for page in 1..pages {
        let mut damaged = whole.clone();
        damaged[page * 8192..(page + 1) * 8192].fill(0xff);
        fs::write(fixture.path(), &damaged).unwrap();
        let Ok(ledger) = Embedded::open(fixture.config.clone()) else {
            continue;
        };
        let keys: Vec<_> = (0..300).map(key).collect();
        if let Err(error) = ledger.recall(scope, &keys).await {
            assert!(matches!(error, LedgerError::Backend { .. }), "{error:?}");
        }
        if let Err(error) = ledger.record(scope, entry(&[1], "after")).await {
            assert!(matches!(error, LedgerError::Backend { .. }), "{error:?}");
            assert_eq!(ledger.stats().batches_failed, 1);
        }
        ledger.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_database_of_something_else_or_of_a_newer_farrier_is_left_alone() {
    let fixture = Fixture::new();
    let other = rusqlite::Connection::open(fixture.path()).unwrap();
    other.execute_batch("CREATE TABLE photos (id)").unwrap();
    other.close().unwrap();
    let before = fs::read(fixture.path()).unwrap();
    assert!(matches!(fixture.refusal(), OpenError::NotALedger { .. }));
    assert_eq!(fs::read(fixture.path()).unwrap(), before);
    fs::remove_file(fixture.path()).unwrap();

    fixture.open().close().await.unwrap();
    let newer = rusqlite::Connection::open(fixture.path()).unwrap();
    newer.pragma_update(None, "user_version", 2).unwrap();
    newer.close().unwrap();
    let expected = format!(
        "expected a ledger of schema 1 or older at {}, got schema 2; \
         run the newer farrier that wrote it, or move the file away",
        fixture.path().display()
    );
    assert_eq!(fixture.refusal().to_string(), expected);
}

#[tokio::test]
async fn nothing_of_an_encrypted_ledger_can_be_read_from_disk() {
    for (fixture, readable) in [(Fixture::new(), true), (Fixture::encrypted(1), false)] {
        let ledger = fixture.open();
        let turn = Entry {
            keys: vec![farrier_ledger::Key(*b"canary-key-bytes")],
            value: "canary-reasoning".into(),
        };
        ledger
            .record(&Scope::new("canary-scope"), turn)
            .await
            .unwrap();
        let open = fixture.bytes_on_disk();
        ledger.close().await.unwrap();
        for disk in [open, fixture.bytes_on_disk()] {
            assert_eq!(contains(&disk, "canary-reasoning"), readable);
            assert_eq!(contains(&disk, "canary-key-bytes"), readable);
            assert!(!contains(&disk, "canary-scope"));
        }
    }
}

#[tokio::test]
async fn a_ledger_opens_only_with_the_key_it_was_begun_with() {
    let key = |byte| Some(EncryptionKey::new([byte; 32]));
    let cases = [
        (key(1), key(2), KeyMismatch::WrongKey),
        (key(1), None, KeyMismatch::KeyMissing),
        (None, key(1), KeyMismatch::NotEncrypted),
    ];
    for (begun_with, opened_with, expected) in cases {
        let mut fixture = Fixture::new();
        fixture.config.encryption = begun_with.clone();
        fixture.open().close().await.unwrap();
        fixture.config.encryption = opened_with;
        let error = fixture.refusal();
        assert!(
            matches!(error, OpenError::Encryption { mismatch, .. } if mismatch == expected),
            "{error}"
        );
        fixture.config.encryption = begun_with;
        fixture.open().close().await.unwrap();
    }
}

#[tokio::test]
async fn a_value_that_does_not_decrypt_is_an_error_and_is_counted() {
    let fixture = Fixture::encrypted(1);
    let scope = Scope::new("caller");
    let ledger = fixture.open();
    ledger.record(&scope, entry(&[1], "whole")).await.unwrap();
    ledger
        .record(&scope, entry(&[1, 2], "damaged"))
        .await
        .unwrap();
    ledger.close().await.unwrap();
    let file = rusqlite::Connection::open(fixture.path()).unwrap();
    file.execute("UPDATE entries SET value = zeroblob(60) WHERE id = 2", [])
        .unwrap();
    file.close().unwrap();

    let ledger = fixture.open();
    let error = ledger.recall(&scope, &[key(1), key(2)]).await.unwrap_err();
    assert!(
        matches!(error, LedgerError::Unreadable { entries: 1 }),
        "{error}"
    );
    assert_eq!(ledger.stats().unreadable, 1);
    ledger.close().await.unwrap();
}

#[tokio::test]
async fn a_store_that_cannot_commit_says_so_until_it_can_again() {
    let fixture = Fixture::new();
    let ledger = fixture.open();
    let scope = Scope::new("caller");
    // Another writer in the way is the failure that a test can begin and end at will.
    let intruder = rusqlite::Connection::open(fixture.path()).unwrap();
    intruder
        .execute_batch("ALTER TABLE totals RENAME TO elsewhere")
        .unwrap();
    let error = ledger
        .record(&scope, entry(&[1], "canary"))
        .await
        .unwrap_err();
    assert!(error.is_transient());
    assert_eq!(error.to_string(), "ledger record failed in the store");
    assert!(!format!("{error:?}").contains("canary"));
    assert!(ledger.ready().await.is_err());
    let stats = ledger.stats();
    assert_eq!(
        (stats.batches_failed, stats.recorded, stats.entries),
        (1, 0, Some(0))
    );

    intruder
        .execute_batch("ALTER TABLE elsewhere RENAME TO totals")
        .unwrap();
    intruder.close().unwrap();
    ledger.ready().await.unwrap();
    ledger.record(&scope, entry(&[1], "again")).await.unwrap();
    assert_eq!(recall_one(&ledger, &scope, 1).await, ["again"]);
    ledger.close().await.unwrap();
}

/// Time stands still here until every task waits, and then leaps to the next deadline.
#[tokio::test(start_paused = true)]
async fn a_stuck_store_turns_callers_away_in_bounded_time_and_still_answers_recalls() {
    let fixture = Fixture::new();
    let ledger = fixture.open();
    let scope = &Scope::new("caller");
    let intruder = rusqlite::Connection::open(fixture.path()).unwrap();
    intruder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let records = (0..3000).map(|number| ledger.record(scope, entry(&[number], "turn")));
    let outcomes = together(records).await;
    let refused = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Err(LedgerError::Busy { .. })));
    let late = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Err(LedgerError::Timeout { .. })));
    let (refused, late) = (refused.count(), late.count());
    assert_eq!(refused + late, 3000);
    assert!(
        refused >= 1000 && late >= 1024,
        "{refused} refused, {late} late"
    );

    tokio::time::resume();
    assert!(recall_one(&ledger, scope, 1).await.is_empty());
    intruder.execute_batch("ROLLBACK").unwrap();
    intruder.close().unwrap();
    // What was given up on may yet be stored, as the trait says; nothing that was refused is.
    ledger.close().await.unwrap();
    assert_eq!(ledger.stats().recorded, late as u64);
}

#[test]
fn debug_output_of_a_configuration_does_not_show_its_key() {
    let fixture = Fixture::encrypted(171);
    let shown = format!("{:?} {:?}", fixture.config, fixture.open());
    assert!(shown.contains("EncryptionKey(***)"), "{shown}");
    assert!(
        !shown.contains("171") && !shown.contains("ab, ab"),
        "{shown}"
    );
}

#[derive(Clone, Debug)]
enum Step {
    Record {
        scope: u8,
        keys: Vec<u64>,
        text: String,
    },
    Recall {
        scope: u8,
        keys: Vec<u64>,
    },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let keys = || proptest::collection::vec(0_u64..6, 1..4);
    prop_oneof![
        20 => (0_u8..3, keys(), any::<String>()).prop_map(|(scope, keys, text)| Step::Record { scope, keys, text }),
        20 => (0_u8..3, keys()).prop_map(|(scope, keys)| Step::Recall { scope, keys }),
        1 => proptest::strategy::Just(Step::Reopen),
    ]
}

/// A ledger as one would write it down: for each scope and key, everything in the order of
/// recording, with all its keys.
type Model = BTreeMap<(u8, u64), Vec<(BTreeSet<u64>, String)>>;

async fn agrees_with_the_model(fixture: &Fixture, steps: Vec<Step>) {
    let mut ledger = fixture.open();
    let mut model = Model::new();
    // Names that end alike, begin alike and contain each other.
    let scope_of = |scope: u8| Scope::new(["a", "aa", ""][usize::from(scope)]);
    for step in steps {
        match step {
            Step::Record { scope, keys, text } => {
                // The value names its scope, so that a stranger's would be seen whatever the key.
                let value = format!("{scope}:{text}");
                ledger
                    .record(&scope_of(scope), entry(&keys, value.clone()))
                    .await
                    .unwrap();
                let turn = (BTreeSet::from_iter(keys), value);
                for key in &turn.0 {
                    let turns = model.entry((scope, *key)).or_default();
                    turns.retain(|earlier| *earlier != turn);
                    turns.push(turn.clone());
                }
            }
            Step::Recall { scope, keys } => {
                let asked: Vec<_> = keys.iter().copied().map(key).collect();
                let found = ledger
                    .recall(&scope_of(scope), &asked)
                    .await
                    .unwrap()
                    .values;
                let expected: Vec<Vec<&String>> = keys
                    .iter()
                    .map(|key| {
                        model
                            .get(&(scope, *key))
                            .into_iter()
                            .flatten()
                            .rev()
                            .map(|(_, value)| value)
                            .take(MAX_CANDIDATES)
                            .collect()
                    })
                    .collect();
                assert_eq!(found, expected);
            }
            Step::Reopen => {
                ledger.close().await.unwrap();
                ledger = fixture.open();
            }
        }
    }
    ledger.close().await.unwrap();
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 48, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_history_is_recalled_as_recorded_and_never_across_scopes(
        steps in proptest::collection::vec(step(), 1..60),
        encrypted in any::<bool>(),
        // Nothing is kept in memory, some of it, or all.
        cache_bytes in proptest::sample::select(vec![0, 1000, 1 << 20]),
    ) {
        let mut fixture = if encrypted { Fixture::encrypted(3) } else { Fixture::new() };
        fixture.config.cache_bytes = cache_bytes;
        Runtime::new().unwrap().block_on(agrees_with_the_model(&fixture, steps));
    }

    #[test]
    fn bounds_hold_after_every_record_and_the_totals_stay_true(
        sizes in proptest::collection::vec((0_u8..4, 0_usize..4000), 1..80),
    ) {
        let bounds = Bounds { max_bytes: 80_000, max_entries_per_scope: 7, max_value_bytes: 4000, ..Bounds::default() };
        let fixture = Fixture::bounded(bounds);
        Runtime::new().unwrap().block_on(async {
            let ledger = fixture.open();
            for (number, (scope, size)) in sizes.iter().enumerate() {
                // No two are the same.
                let value = format!("{number:<size$}");
                ledger.record(&Scope::new(scope.to_string()), entry(&[1, 2], value)).await.unwrap();
                let stats = ledger.stats();
                let (entries, bytes) = held(stats);
                assert!(bytes <= bounds.max_bytes && entries <= 4 * 7);
            }
            let stats = ledger.stats();
            ledger.close().await.unwrap();
            let file = rusqlite::Connection::open(fixture.path()).unwrap();
            let sql = "SELECT count(*), coalesce(sum(weight), 0), (SELECT sum(entries) FROM scopes),
                              (SELECT count(*) FROM entry_keys) FROM entries";
            let found: (i64, i64, i64, i64) = file
                .query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))).unwrap();
            let (entries, bytes) = held(stats);
            let counted = [entries, bytes, entries, 2 * entries];
            assert_eq!(<[i64; 4]>::from(found), counted.map(|count| i64::try_from(count).unwrap()));
            let evicted = stats.evicted_by_scope + stats.evicted_by_size + stats.evicted_by_ttl;
            assert_eq!(entries + evicted, sizes.len() as u64);
        });
    }
}
