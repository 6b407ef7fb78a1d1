//! The outbox, before stores that are really gone, slow or full.

use std::sync::Arc;
use std::time::Duration;

use crate::suite::{entry, key, recall_one, suite, together};
use farrier_ledger::{
    Embedded, EmbeddedConfig, Ledger, LedgerError, Outbox, OutboxConfig, Scope, Shared,
    SharedConfig, Stats, Stored,
};
use farrier_testkit::{PATIENCE, StoreServer};
use tokio::time::Instant;

fn scope() -> Scope {
    Scope::new("caller")
}

fn before(server: &StoreServer, config: OutboxConfig) -> Outbox {
    let store = SharedConfig {
        deadline: config.deadline,
        ..SharedConfig::new(server.url().parse().unwrap())
    };
    Outbox::before(Arc::new(Shared::open(&store).unwrap()), config)
}

async fn until(ledger: &Outbox, what: impl Fn(Stats) -> bool) {
    let end = Instant::now() + PATIENCE;
    while !what(ledger.stats()) {
        assert!(Instant::now() < end, "{:?}", ledger.stats());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn the_suite_of_every_ledger_holds_before_either_store() {
    let server = StoreServer::start();
    let ledger = before(&server, OutboxConfig::default());
    suite(&ledger).await;
    ledger.close().await.unwrap();

    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(EmbeddedConfig::new(dir.path().join("ledger.db"))).unwrap();
    let ledger = Outbox::before(Arc::new(store), OutboxConfig::default());
    suite(&ledger).await;
    ledger.close().await.unwrap();
}

#[tokio::test]
async fn what_is_recorded_while_the_store_is_gone_is_stored_when_it_is_back() {
    let mut server = StoreServer::with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let ledger = before(&server, OutboxConfig::default());
    assert_eq!(
        ledger
            .record(&scope(), entry(&[1], "before"))
            .await
            .unwrap(),
        Stored::Durable
    );
    server.kill();
    for number in 2..100 {
        let stored = ledger
            .record(&scope(), entry(&[number], number.to_string()))
            .await;
        assert_eq!(stored.unwrap(), Stored::Queued);
    }
    assert_eq!(ledger.stats().queued, 98);
    server.start_again();
    until(&ledger, |stats| stats.queued == 0).await;
    assert_eq!((ledger.stats().retried, ledger.stats().dropped), (98, 0));
    assert_eq!(ledger.stats().queued_bytes, 0);

    let other = before(&server, OutboxConfig::default());
    assert_eq!(recall_one(&other, &scope(), 1).await, ["before"]);
    assert_eq!(recall_one(&other, &scope(), 99).await, ["99"]);
}

#[tokio::test]
async fn what_is_queued_is_found_and_what_is_not_is_not_called_a_miss() {
    let mut server = StoreServer::start();
    let ledger = before(&server, OutboxConfig::default());
    ledger
        .record(&scope(), entry(&[1], "stored"))
        .await
        .unwrap();
    server.kill();
    for text in ["older", "newer"] {
        ledger.record(&scope(), entry(&[1, 2], text)).await.unwrap();
    }

    let answer = ledger
        .recall(&scope(), &[key(2), key(3), key(1)])
        .await
        .unwrap();
    assert_eq!(
        answer.values,
        [&["newer", "older"][..], &[], &["newer", "older"]]
    );
    assert!(matches!(
        answer.unasked,
        Some(LedgerError::Unavailable { .. })
    ));

    let error = ledger.recall(&scope(), &[key(3)]).await.unwrap_err();
    assert!(
        matches!(error, LedgerError::Unavailable { .. }),
        "{error:?}"
    );
    let error = ledger
        .recall(&Scope::new("another"), &[key(2)])
        .await
        .unwrap_err();
    assert!(error.is_transient(), "another's words are never found");
}

#[tokio::test]
async fn what_is_queued_and_what_is_stored_are_one_answer() {
    let server = StoreServer::with(&["--maxmemory-policy", "noeviction"]);
    let ledger = before(&server, OutboxConfig::default());
    ledger
        .record(&scope(), entry(&[1, 2], "stored"))
        .await
        .unwrap();
    full(&server, true).await;
    assert_eq!(
        ledger
            .record(&scope(), entry(&[1], "queued"))
            .await
            .unwrap(),
        Stored::Queued
    );
    // Stored before, and queued once more.
    assert_eq!(
        ledger
            .record(&scope(), entry(&[1, 2], "stored"))
            .await
            .unwrap(),
        Stored::Queued
    );

    let answer = ledger
        .recall(&scope(), &[key(1), key(2), key(3)])
        .await
        .unwrap();
    assert_eq!(answer.values, [&["stored", "queued"][..], &["stored"], &[]]);
    assert!(answer.unasked.is_none(), "it can be read");

    full(&server, false).await;
    until(&ledger, |stats| stats.queued == 0).await;
    assert_eq!(recall_one(&ledger, &scope(), 1).await, ["stored", "queued"]);
}

/// Makes the store refuse to take more, or take it again.
async fn full(server: &StoreServer, full: bool) {
    let client = redis::Client::open(format!("unix://{}", server.socket().display())).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut limit = redis::cmd("CONFIG");
    limit
        .arg("SET")
        .arg("maxmemory")
        .arg(if full { "1" } else { "0" });
    let () = limit.query_async(&mut connection).await.unwrap();
}

#[tokio::test]
async fn the_queue_is_bounded_and_what_is_pushed_out_is_counted() {
    let mut server = StoreServer::start();
    let config = OutboxConfig {
        max_entries: 10,
        ..OutboxConfig::default()
    };
    let ledger = before(&server, config);
    ledger.ready().await.unwrap();
    server.kill();
    for number in 0..25 {
        let _queued = ledger
            .record(&scope(), entry(&[number], "turn"))
            .await
            .unwrap();
    }
    let stats = ledger.stats();
    assert_eq!((stats.queued, stats.dropped), (10, 15));
    assert!(ledger.recall(&scope(), &[key(14)]).await.is_err());
    assert_eq!(recall_one(&ledger, &scope(), 15).await, ["turn"]);

    let config = OutboxConfig {
        max_bytes: 100,
        ..OutboxConfig::default()
    };
    let ledger = before(&server, config);
    let error = ledger
        .record(&scope(), entry(&[1], "too much by itself"))
        .await
        .unwrap_err();
    assert!(
        matches!(error, LedgerError::Unavailable { .. }),
        "it is not queued: {error:?}"
    );
}

#[tokio::test]
async fn what_waits_too_long_is_dropped() {
    let mut server = StoreServer::start();
    let config = OutboxConfig {
        max_age: Duration::from_millis(50),
        ..OutboxConfig::default()
    };
    let ledger = before(&server, config);
    ledger.ready().await.unwrap();
    server.kill();
    assert_eq!(
        ledger.record(&scope(), entry(&[1], "turn")).await.unwrap(),
        Stored::Queued
    );
    until(&ledger, |stats| stats.queued == 0).await;
    assert_eq!((ledger.stats().dropped, ledger.stats().retried), (1, 0));
}

#[tokio::test]
async fn what_a_store_will_never_take_is_not_queued() {
    let server = StoreServer::start();
    let ledger = before(&server, OutboxConfig::default());
    let error = ledger
        .record(&scope(), entry(&[], "no keys"))
        .await
        .unwrap_err();
    assert!(matches!(error, LedgerError::KeyCount { .. }));
    assert_eq!(ledger.stats().queued, 0);
}

#[tokio::test]
async fn a_store_that_hangs_holds_nobody_up_and_gets_what_it_missed() {
    let server = StoreServer::start();
    let config = OutboxConfig {
        deadline: Duration::from_millis(200),
        ..OutboxConfig::default()
    };
    let ledger = &before(&server, config);
    ledger.ready().await.unwrap();
    server.pause();
    let start = Instant::now();
    let outcomes = together((0..50).map(async |number| {
        ledger
            .record(&scope(), entry(&[number], "turn"))
            .await
            .unwrap()
    }))
    .await;
    assert!(outcomes.iter().all(|stored| *stored == Stored::Queued));
    assert!(
        start.elapsed() < 2 * config.deadline,
        "{:?}",
        start.elapsed()
    );
    server.resume();
    until(ledger, |stats| stats.queued == 0).await;
    let keys: Vec<_> = (0..50).map(key).collect();
    let found = ledger.recall(&scope(), &keys).await.unwrap();
    // What was under way when it hung was taken too; it is there once all the same.
    assert!(found.values.iter().all(|values| values.len() == 1));
}

#[tokio::test]
async fn closing_gives_the_store_what_is_queued() {
    let mut server = StoreServer::with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let ledger = before(&server, OutboxConfig::default());
    ledger.ready().await.unwrap();
    server.kill();
    for number in 0..40 {
        assert_eq!(
            ledger
                .record(&scope(), entry(&[number], "turn"))
                .await
                .unwrap(),
            Stored::Queued
        );
    }
    server.start_again();
    ledger.close().await.unwrap();
    assert_eq!(ledger.stats().retried, 40);
    ledger.close().await.unwrap();
    assert!(
        ledger.record(&scope(), entry(&[1], "late")).await.is_err(),
        "nothing is queued any more"
    );
}

#[tokio::test]
async fn closing_says_what_is_lost_and_does_not_wait_for_ever() {
    let mut server = StoreServer::start();
    let config = OutboxConfig {
        flush: Duration::from_millis(300),
        ..OutboxConfig::default()
    };
    let ledger = before(&server, config);
    ledger.ready().await.unwrap();
    server.kill();
    for number in 0..3 {
        let _queued = ledger
            .record(&scope(), entry(&[number], "turn"))
            .await
            .unwrap();
    }
    let start = Instant::now();
    let error = ledger.close().await.unwrap_err();
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(
        error.to_string(),
        "expected the ledger's store to take 3 queued turns before closing, it did not"
    );
    assert_eq!(ledger.stats().dropped, 3);
}

#[test]
fn debug_output_shows_nothing_that_is_queued() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut server = StoreServer::start();
        let ledger = before(&server, OutboxConfig::default());
        ledger.ready().await.unwrap();
        server.kill();
        let _queued = ledger
            .record(&scope(), entry(&[1], "canary reasoning"))
            .await
            .unwrap();
        let answer = ledger.recall(&scope(), &[key(1)]).await.unwrap();
        let shown = format!("{ledger:?} {answer:?}");
        assert!(!shown.contains("canary"), "{shown}");
        assert!(shown.contains("Answer(1 of 1 keys found"), "{shown}");
    });
}
