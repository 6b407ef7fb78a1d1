//! The shared store: the suite of every ledger, and what is true of a server that others use too.
//!
//! Every test has servers of its own, real ones, which it may kill.

use std::sync::Arc;
use std::time::Duration;

use crate::suite::{entry, key, recall_one, suite, together};
use bytes::Bytes;
use farrier_ledger::{
    EncryptionKey, Entry, Identity, KeyKind, Ledger, LedgerError, MAX_RECALL_BYTES, Password,
    Scope, Shared, SharedConfig, Store, StoreError, Stored,
};
use farrier_testkit::StoreServer;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio::time::Instant;

fn config(url: &str) -> SharedConfig {
    SharedConfig::new(url.parse().unwrap())
}

fn open(url: &str) -> Shared {
    Shared::open(&config(url)).unwrap()
}

fn scope() -> Scope {
    Scope::new("caller")
}

/// Asks until the store is reached, within the patience of a test.
async fn reached(ledger: &impl Ledger) {
    let until = Instant::now() + farrier_testkit::PATIENCE;
    while let Err(error) = ledger.ready().await {
        assert!(Instant::now() < until, "{error:?}");
        tokio::task::yield_now().await;
    }
}

/// What a command of redis-cli would say.
async fn said<T: redis::FromRedisValue>(server: &StoreServer, words: &[&str]) -> T {
    let client = redis::Client::open(format!("unix://{}", server.socket().display())).unwrap();
    let patient = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    let connection = client.get_multiplexed_async_connection_with_config(&patient);
    let mut connection = connection.await.unwrap();
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    command.query_async(&mut connection).await.unwrap()
}

#[tokio::test]
async fn the_suite_of_every_ledger_holds() {
    let server = StoreServer::start();
    let ledger = open(&server.url());
    suite(&ledger).await;
    ledger.close().await.unwrap();
}

#[tokio::test]
async fn the_suite_of_every_ledger_holds_when_encrypted() {
    let server = StoreServer::start();
    let mut config = config(&server.url());
    config.encryption = Some(EncryptionKey::new([1; 32]));
    let ledger = Shared::open(&config).unwrap();
    suite(&ledger).await;
    ledger.close().await.unwrap();
}

#[tokio::test]
async fn the_suite_of_every_ledger_holds_in_a_cluster() {
    let nodes = StoreServer::cluster();
    let ledger = open(&format!("redis+cluster://127.0.0.1:{}", nodes[0].port()));
    suite(&ledger).await;
    let mut used = 0;
    for node in &nodes {
        used += usize::from(said::<usize>(node, &["DBSIZE"]).await > 0);
    }
    assert!(used > 1, "one server of three has everything");
    ledger.close().await.unwrap();
}

#[tokio::test]
async fn what_one_gateway_records_another_recalls() {
    let server = StoreServer::start();
    let (one, other) = (open(&server.url()), open(&server.url()));
    for number in 0..10 {
        let (writer, reader) = if number % 2 == 0 {
            (&one, &other)
        } else {
            (&other, &one)
        };
        writer
            .record(&scope(), entry(&[7], number.to_string()))
            .await
            .unwrap();
        assert_eq!(recall_one(reader, &scope(), 7).await[0], number.to_string());
    }
    let all = recall_one(&one, &scope(), 7).await;
    assert_eq!(all.len(), 10);
    let others_prefix = Shared::open(&SharedConfig {
        prefix: "staging".to_owned(),
        ..config(&server.url())
    });
    assert!(
        recall_one(&others_prefix.unwrap(), &scope(), 7)
            .await
            .is_empty()
    );
}

#[tokio::test]
async fn recording_an_entry_twice_is_recording_it_once() {
    let server = StoreServer::start();
    let ledger = open(&server.url());
    for text in ["again", "between", "again"] {
        ledger.record(&scope(), entry(&[1, 2], text)).await.unwrap();
    }
    assert_eq!(recall_one(&ledger, &scope(), 1).await, ["again", "between"]);
}

#[tokio::test]
async fn a_scope_with_too_many_entries_loses_its_own_oldest_and_all_that_leads_to_them() {
    let server = StoreServer::start();
    let ledger = Shared::open(&SharedConfig {
        max_entries_per_scope: 5,
        ..config(&server.url())
    })
    .unwrap();
    let (quiet, busy) = (Scope::new("quiet"), Scope::new("busy"));
    ledger.record(&quiet, entry(&[1], "kept")).await.unwrap();
    for number in 0..12 {
        ledger
            .record(&busy, entry(&[number, 99], number.to_string()))
            .await
            .unwrap();
    }
    assert_eq!(ledger.stats().evicted_by_scope, 7);
    assert!(recall_one(&ledger, &busy, 6).await.is_empty());
    assert_eq!(recall_one(&ledger, &busy, 7).await, ["7"]);
    assert_eq!(
        recall_one(&ledger, &busy, 99).await,
        ["11", "10", "9", "8", "7"]
    );
    assert_eq!(recall_one(&ledger, &quiet, 1).await, ["kept"]);
    // Of each scope its order, its entries and their indices; the fingerprint; nothing else.
    let names: usize = said(&server, &["DBSIZE"]).await;
    assert_eq!(names, (1 + 5 + 6) + (1 + 1 + 1) + 1);
}

#[tokio::test]
async fn everything_of_a_scope_expires() {
    let server = StoreServer::start();
    let ledger = Shared::open(&SharedConfig {
        ttl: Duration::from_secs(600),
        ..config(&server.url())
    })
    .unwrap();
    ledger
        .record(&scope(), entry(&[1, 2], "turn"))
        .await
        .unwrap();
    let names: Vec<Vec<u8>> = said(&server, &["KEYS", "farrier:1:{*"]).await;
    assert_eq!(names.len(), 4, "an entry, two indices, the order");
    let client = redis::Client::open(format!("unix://{}", server.socket().display())).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    for name in names {
        let left: i64 = redis::cmd("TTL")
            .arg(&name)
            .query_async(&mut connection)
            .await
            .unwrap();
        assert!((590..=600).contains(&left), "{left} seconds");
        // As time would.
        let () = redis::cmd("PEXPIRE")
            .arg(&name)
            .arg(1)
            .query_async(&mut connection)
            .await
            .unwrap();
    }
    // A record of the same scope meets nothing of what has expired.
    tokio::time::sleep(Duration::from_millis(5)).await;
    ledger.record(&scope(), entry(&[1], "new")).await.unwrap();
    assert_eq!(recall_one(&ledger, &scope(), 1).await, ["new"]);
    assert!(recall_one(&ledger, &scope(), 2).await.is_empty());
}

/// What has expired is out of the scope's count before something that has not is evicted for it.
#[tokio::test]
async fn expired_entries_make_room_within_their_scope() {
    let server = StoreServer::start();
    let ledger = Shared::open(&SharedConfig {
        ttl: Duration::from_millis(1),
        max_entries_per_scope: 1,
        ..config(&server.url())
    })
    .unwrap();
    for number in 0..3 {
        ledger
            .record(&scope(), entry(&[number], number.to_string()))
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let stats = ledger.stats();
    assert_eq!((stats.recorded, stats.evicted_by_scope), (3, 0));
    assert!(recall_one(&ledger, &scope(), 2).await.is_empty());
}

#[tokio::test]
async fn an_entry_that_the_server_evicted_is_a_miss() {
    let server = StoreServer::start();
    let ledger = open(&server.url());
    for text in ["old", "new"] {
        ledger.record(&scope(), entry(&[1], text)).await.unwrap();
    }
    let names: Vec<Vec<u8>> = said(&server, &["KEYS", "farrier:1:{*}:e*"]).await;
    assert_eq!(names.len(), 2);
    let client = redis::Client::open(format!("unix://{}", server.socket().display())).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let () = redis::cmd("DEL")
        .arg(&names[0])
        .query_async(&mut connection)
        .await
        .unwrap();
    assert_eq!(recall_one(&ledger, &scope(), 1).await.len(), 1);
}

#[tokio::test]
async fn a_recall_gives_at_most_so_many_bytes_and_counts_a_shared_value_once() {
    let server = StoreServer::start();
    let ledger = Shared::open(&SharedConfig {
        deadline: farrier_testkit::PATIENCE,
        ..config(&server.url())
    })
    .unwrap();
    let value = |number: u8| Bytes::from(vec![number; 5 << 20]);
    let shared: Vec<_> = (0..20).map(key).collect();
    let keys = shared.clone();
    ledger
        .record(
            &scope(),
            Entry {
                keys,
                value: value(0),
            },
        )
        .await
        .unwrap();
    let found = ledger.recall(&scope(), &shared).await.unwrap();
    assert!(found.values == vec![vec![value(0)]; 20]);

    let alone: Vec<_> = (100..113).map(key).collect();
    for (number, key) in (1..).zip(&alone) {
        let keys = vec![*key];
        ledger
            .record(
                &scope(),
                Entry {
                    keys,
                    value: value(number),
                },
            )
            .await
            .unwrap();
    }
    let error = ledger.recall(&scope(), &alone).await.unwrap_err();
    assert!(
        matches!(
            error,
            LedgerError::RecallTooLarge {
                max_bytes: MAX_RECALL_BYTES
            }
        ),
        "{error}"
    );
}

/// What a long conversation costs the store: two questions, whatever its length.
#[tokio::test]
async fn a_history_of_a_thousand_turns_is_two_questions() {
    let server = StoreServer::start();
    let ledger = open(&server.url());
    together((0..1000).map(async |number| {
        ledger
            .record(&scope(), entry(&[number], "x".repeat(2000)))
            .await
            .unwrap()
    }))
    .await;
    let keys: Vec<_> = (0..1000).map(key).collect();
    let () = said(&server, &["CONFIG", "RESETSTAT"]).await;
    let found = ledger.recall(&scope(), &keys).await.unwrap();
    assert!(found.values.iter().all(|values| values.len() == 1));
    let commands: String = said(&server, &["INFO", "commandstats"]).await;
    assert!(commands.contains("cmdstat_mget:calls=2,"), "{commands}");
}

#[tokio::test]
async fn nothing_of_a_caller_is_readable_in_an_encrypted_store() {
    let server = StoreServer::with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let encrypted = |byte| SharedConfig {
        encryption: Some(EncryptionKey::new([byte; 32])),
        ..config(&server.url())
    };
    let ledger = Shared::open(&encrypted(1)).unwrap();
    let scope = Scope::new("sk-canary-caller");
    ledger
        .record(&scope, entry(&[1], "canary reasoning"))
        .await
        .unwrap();
    let written = written_by(&server);
    assert!(!written.is_empty());
    for needle in ["canary", "sk-"] {
        assert!(
            !written
                .windows(needle.len())
                .any(|part| part == needle.as_bytes()),
            "{needle}"
        );
    }

    let stranger = Shared::open(&encrypted(2)).unwrap();
    let error = stranger.recall(&scope, &[key(1)]).await.unwrap_err();
    assert!(!error.is_transient());
    let (expected, found) = (KeyKind::This, KeyKind::Another);
    assert!(
        matches!(error, LedgerError::Encryption { expected: e, found: f } if (e, f) == (expected, found)),
        "{error}"
    );
    let error = open(&server.url()).ready().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "expected the ledger's store to be begun without encryption, it was begun with another encryption key; \
         give the key it was begun with, or another prefix to begin a new one"
    );
}

/// Everything the server has on disk.
fn written_by(server: &StoreServer) -> Vec<u8> {
    let directory = server.dir().join("appendonlydir");
    let files = std::fs::read_dir(directory).unwrap();
    files
        .flat_map(|file| std::fs::read(file.unwrap().path()).unwrap())
        .collect()
}

#[tokio::test]
async fn a_value_that_was_tampered_with_is_not_returned() {
    let server = StoreServer::start();
    let mut config = config(&server.url());
    config.encryption = Some(EncryptionKey::new([1; 32]));
    let ledger = Shared::open(&config).unwrap();
    ledger.record(&scope(), entry(&[1], "turn")).await.unwrap();
    let names: Vec<Vec<u8>> = said(&server, &["KEYS", "farrier:1:{*}:e*"]).await;
    let client = redis::Client::open(format!("unix://{}", server.socket().display())).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut damage = redis::cmd("SETRANGE");
    let _length: usize = damage
        .arg(&names[0])
        .arg(50)
        .arg("x")
        .query_async(&mut connection)
        .await
        .unwrap();
    let error = ledger.recall(&scope(), &[key(1)]).await.unwrap_err();
    assert!(
        matches!(error, LedgerError::Unreadable { entries: 1 }),
        "{error}"
    );
    assert_eq!(ledger.stats().unreadable, 1);
}

// === a server that is gone, slow or full ===

#[tokio::test]
async fn a_store_that_is_gone_is_found_again_and_what_it_kept_with_it() {
    let mut server = StoreServer::with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let ledger = open(&server.url());
    ledger
        .record(&scope(), entry(&[1], "before"))
        .await
        .unwrap();
    server.kill();
    let error = ledger.recall(&scope(), &[key(1)]).await.unwrap_err();
    assert!(
        matches!(error, LedgerError::Unavailable { .. }),
        "{error:?}"
    );
    assert!(error.is_transient());

    server.start_again();
    reached(&ledger).await;
    assert_eq!(recall_one(&ledger, &scope(), 1).await, ["before"]);
    // The script is not known there any more.
    ledger.record(&scope(), entry(&[1], "after")).await.unwrap();
    assert_eq!(recall_one(&ledger, &scope(), 1).await, ["after", "before"]);
}

#[tokio::test]
async fn a_connection_that_the_server_closed_is_replaced_unnoticed() {
    let server = StoreServer::start();
    let ledger = open(&server.url());
    for number in 0..20 {
        ledger
            .record(&scope(), entry(&[number], "turn"))
            .await
            .unwrap();
        let _closed: usize = said(
            &server,
            &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"],
        )
        .await;
    }
    assert_eq!(recall_one(&ledger, &scope(), 19).await, ["turn"]);
}

#[tokio::test]
async fn a_store_that_is_known_to_be_gone_costs_no_wait() {
    let mut server = StoreServer::start();
    let ledger = Shared::open(&SharedConfig {
        deadline: Duration::from_secs(5),
        ..config(&server.url())
    })
    .unwrap();
    reached(&ledger).await;
    server.kill();
    let start = Instant::now();
    together((0..100).map(async |number| {
        let error = ledger
            .record(&scope(), entry(&[number], "turn"))
            .await
            .unwrap_err();
        assert!(
            matches!(error, LedgerError::Unavailable { .. }),
            "{error:?}"
        );
    }))
    .await;
    for _ in 0..100 {
        assert!(
            ledger
                .recall(&scope(), &[key(1)])
                .await
                .unwrap_err()
                .is_transient()
        );
    }
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn a_store_that_hangs_costs_one_deadline_and_then_nothing() {
    let server = StoreServer::start();
    let deadline = Duration::from_millis(200);
    let ledger = Shared::open(&SharedConfig {
        deadline,
        ..config(&server.url())
    })
    .unwrap();
    ledger
        .record(&scope(), entry(&[1], "before"))
        .await
        .unwrap();
    server.pause();
    let start = Instant::now();
    let error = ledger.recall(&scope(), &[key(1)]).await.unwrap_err();
    assert!(
        matches!(error, LedgerError::Timeout { waited, .. } if waited == deadline),
        "{error:?}"
    );
    assert!(start.elapsed() < deadline * 2, "{:?}", start.elapsed());

    // Once the greeting is not answered either, it is known.
    let until = Instant::now() + farrier_testkit::PATIENCE;
    while !matches!(ledger.ready().await, Err(LedgerError::Unavailable { .. })) {
        assert!(Instant::now() < until);
    }
    let start = Instant::now();
    for _ in 0..20 {
        assert!(ledger.recall(&scope(), &[key(1)]).await.is_err());
    }
    assert!(start.elapsed() < deadline, "{:?}", start.elapsed());

    server.resume();
    reached(&ledger).await;
    assert_eq!(recall_one(&ledger, &scope(), 1).await, ["before"]);
}

#[tokio::test]
async fn a_store_that_comes_later_is_found() {
    let mut server = StoreServer::start();
    server.kill();
    let ledger = open(&server.url());
    assert!(ledger.ready().await.is_err());
    server.start_again();
    reached(&ledger).await;
    ledger.record(&scope(), entry(&[1], "turn")).await.unwrap();
}

#[tokio::test]
async fn a_full_store_refuses_and_says_so_without_what_it_was_given() {
    let server = StoreServer::with(&["--maxmemory-policy", "noeviction"]);
    let ledger = open(&server.url());
    ledger.ready().await.unwrap();
    let () = said(&server, &["CONFIG", "SET", "maxmemory", "1"]).await;
    let error = ledger
        .record(&scope(), entry(&[1], "canary"))
        .await
        .unwrap_err();
    assert!(error.is_transient());
    let shown = format!("{error:?}");
    assert!(
        shown.contains("OOM") && !shown.contains("canary"),
        "{shown}"
    );
    assert!(ledger.ready().await.is_err(), "it cannot be written to");
    assert!(
        recall_one(&ledger, &scope(), 1).await.is_empty(),
        "it can be read"
    );
    assert!(ledger.stats().batches_failed > 0);
}

#[tokio::test]
async fn a_closed_ledger_says_so_and_closes_again() {
    let server = StoreServer::start();
    let ledger = open(&server.url());
    reached(&ledger).await;
    ledger.close().await.unwrap();
    ledger.close().await.unwrap();
    let closed = |error| matches!(error, LedgerError::Closed);
    assert!(closed(
        ledger
            .record(&scope(), entry(&[1], "late"))
            .await
            .unwrap_err()
    ));
    assert!(closed(
        ledger.recall(&scope(), &[key(1)]).await.unwrap_err()
    ));
    assert!(closed(ledger.ready().await.unwrap_err()));
}

#[tokio::test]
async fn sentinels_lead_to_the_server_that_replaces_a_lost_one() {
    let mut primary = StoreServer::on_a_port(&["--repl-diskless-sync-delay", "0"]);
    let port = primary.port().to_string();
    let replica = StoreServer::on_a_port(&["--replicaof", "127.0.0.1", &port]);
    let sentinel = StoreServer::sentinel(primary.port());
    let ledger = open(&format!(
        "redis+sentinel://127.0.0.1:{}/main",
        sentinel.port()
    ));
    reached(&ledger).await;
    ledger
        .record(&scope(), entry(&[1], "before"))
        .await
        .unwrap();
    // Replication is the server's matter; the test waits for it. What is waited for is all up to the
    // last thing that the same client wrote.
    let client = redis::Client::open(format!("redis://127.0.0.1:{}", primary.port())).unwrap();
    let patient = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    let writing = client.get_multiplexed_async_connection_with_config(&patient);
    let mut pipe = redis::pipe();
    pipe.cmd("SET").arg("last").arg("1").ignore();
    pipe.cmd("WAIT").arg(1).arg(10_000);
    let (replicas,): (usize,) = pipe.query_async(&mut writing.await.unwrap()).await.unwrap();
    assert_eq!(replicas, 1);
    // A sentinel learns of a replica from the primary, every ten seconds or when it is told to.
    let until = Instant::now() + 2 * farrier_testkit::PATIENCE;
    let client = redis::Client::open(format!("redis://127.0.0.1:{}", sentinel.port())).unwrap();
    let mut asked = client.get_multiplexed_async_connection().await.unwrap();
    loop {
        let replicas: Vec<redis::Value> = redis::cmd("SENTINEL")
            .arg("REPLICAS")
            .arg("main")
            .query_async(&mut asked)
            .await
            .unwrap();
        if !replicas.is_empty() {
            break;
        }
        assert!(Instant::now() < until, "the sentinel knows of no replica");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    primary.kill();
    let until = Instant::now() + 3 * farrier_testkit::PATIENCE;
    while ledger.ready().await.is_err() {
        assert!(Instant::now() < until, "the replica did not take over");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(recall_one(&ledger, &scope(), 1).await, ["before"]);
    ledger.record(&scope(), entry(&[1], "after")).await.unwrap();
    let role: Vec<redis::Value> = said(&replica, &["ROLE"]).await;
    assert!(matches!(&role[0], redis::Value::BulkString(role) if role == b"master"));
}

// === TLS and passwords ===

/// Certificates of an authority of their own, as files.
struct Certificates {
    dir: tempfile::TempDir,
    authority: String,
    client: String,
    client_key: String,
}

impl Certificates {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "an authority for tests");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let issue = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            let key = KeyPair::generate().unwrap();
            let certificate = CertificateParams::new(names)
                .unwrap()
                .signed_by(&key, &authority);
            (certificate.unwrap().pem(), key.serialize_pem())
        };
        let (server, server_key) = issue(&["localhost", "127.0.0.1"]);
        let (client, client_key) = issue(&["gateway"]);
        let authority = authority.pem();
        for (name, text) in [
            ("ca.pem", &authority),
            ("server.pem", &server),
            ("server.key", &server_key),
        ] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        Self {
            dir,
            authority,
            client,
            client_key,
        }
    }

    fn server(&self, settings: &[&str]) -> StoreServer {
        let file = |name: &str| self.dir.path().join(name).display().to_string();
        let (ca, certificate, key) = (file("ca.pem"), file("server.pem"), file("server.key"));
        let mut all = vec![
            "--port",
            "0",
            "--tls-port",
            "{port}",
            "--tls-ca-cert-file",
            &ca,
        ];
        all.extend(["--tls-cert-file", &certificate, "--tls-key-file", &key]);
        all.extend(settings);
        StoreServer::on_a_port(&all)
    }

    fn config(&self, server: &StoreServer) -> SharedConfig {
        SharedConfig {
            authorities: Some(self.authority.clone().into_bytes()),
            ..config(&format!("rediss://localhost:{}", server.port()))
        }
    }
}

#[tokio::test]
async fn the_suite_of_every_ledger_holds_over_tls_as_a_user_with_a_password() {
    let certificates = Certificates::new();
    // The rights that the documentation names.
    let rights = "+@connection +get +set +setnx +mget +getrange +unlink +del +pexpire +time +zadd +zcard \
                  +zpopmin +zremrangebyscore +eval +evalsha";
    let user = format!("--user farrier on >canary-password ~farrier:* {rights}");
    let mut settings: Vec<&str> = user.split_whitespace().collect();
    settings.extend(["--tls-auth-clients", "no"]);
    let server = certificates.server(&settings);
    let config = SharedConfig {
        username: Some("farrier".to_owned()),
        password: Some(Password::new("canary-password")),
        ..certificates.config(&server)
    };
    let ledger = Shared::open(&config).unwrap();
    suite(&ledger).await;
    assert!(!format!("{config:?} {ledger:?}").contains("canary"));
}

#[tokio::test]
async fn a_wrong_password_is_said_to_be_wrong_and_not_shown() {
    let server = StoreServer::with(&["--requirepass", "right"]);
    for (password, expected) in [
        (Some("canary-wrong"), "authentication failed"),
        (None, "NOAUTH"),
    ] {
        let ledger = Shared::open(&SharedConfig {
            password: password.map(Password::new),
            ..config(&server.url())
        });
        let shown = format!("{:?}", ledger.unwrap().ready().await.unwrap_err());
        assert!(
            shown.contains(expected) && !shown.contains("canary"),
            "{shown}"
        );
    }
}

#[tokio::test]
async fn a_server_that_wants_to_know_who_asks_is_shown() {
    let certificates = Certificates::new();
    let server = certificates.server(&["--tls-auth-clients", "yes"]);
    let nobody = Shared::open(&certificates.config(&server)).unwrap();
    assert!(nobody.ready().await.is_err());
    let ledger = Shared::open(&SharedConfig {
        identity: Some(Identity {
            certificates: certificates.client.clone().into_bytes(),
            key: certificates.client_key.clone().into_bytes().into(),
        }),
        ..certificates.config(&server)
    });
    ledger.unwrap().ready().await.unwrap();
}

#[tokio::test]
async fn a_server_whose_certificate_nobody_vouches_for_is_not_talked_to() {
    let certificates = Certificates::new();
    let server = certificates.server(&["--tls-auth-clients", "no"]);
    let url = format!("rediss://localhost:{}", server.port());
    let ledger = Shared::open(&SharedConfig {
        password: Some(Password::new("canary-password")),
        ..config(&url)
    });
    let error = ledger.unwrap().ready().await.unwrap_err();
    let shown = format!("{error:?}");
    assert!(
        shown.contains("certificate") && !shown.contains("canary"),
        "{shown}"
    );
}

// === configuration ===

#[tokio::test]
async fn settings_that_contradict_themselves_are_refused() {
    let url = "redis://localhost";
    let cases = [
        (
            SharedConfig {
                ttl: Duration::ZERO,
                ..config(url)
            },
            "a ttl of at least a millisecond and a deadline above zero",
        ),
        (
            SharedConfig {
                max_entries_per_scope: 0,
                ..config(url)
            },
            "max_entries_per_scope of at least 1",
        ),
        (
            SharedConfig {
                max_value_bytes: (32 << 20) + 1,
                ..config(url)
            },
            "max_value_bytes of at most 32 MiB",
        ),
        (
            SharedConfig {
                prefix: "a{b".to_owned(),
                ..config(url)
            },
            "a prefix without braces",
        ),
        (
            SharedConfig {
                authorities: Some(Vec::new()),
                ..config(url)
            },
            "certificates only for a store that is reached over TLS",
        ),
    ];
    for (config, what) in cases {
        let error = Shared::open(&config).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("expected {what} for the ledger's store")
        );
    }
}

#[tokio::test]
async fn a_certificate_that_is_none_is_refused_and_not_shown() {
    let config = SharedConfig {
        identity: Some(Identity {
            certificates: b"canary".to_vec(),
            key: b"canary".to_vec().into(),
        }),
        ..config("rediss://localhost")
    };
    let error = Store::Shared(Box::new(config))
        .open(Default::default())
        .unwrap_err();
    assert!(matches!(error, StoreError::Shared(_)));
    let shown = format!("{error} {error:?}");
    assert!(
        shown.contains("rediss://localhost:6379/0") && !shown.contains("canary"),
        "{shown}"
    );
}

#[tokio::test]
async fn a_store_is_opened_behind_an_outbox() {
    let mut server = StoreServer::start();
    let store = Store::Shared(Box::new(config(&server.url())));
    assert_eq!(store.to_string(), format!("{}?db=0", server.url()));
    let ledger: Arc<dyn Ledger> = store.open(Default::default()).unwrap();
    let stored = ledger.record(&scope(), entry(&[1], "turn")).await.unwrap();
    assert_eq!(stored, Stored::Durable);
    server.kill();
    let stored = ledger.record(&scope(), entry(&[1], "late")).await.unwrap();
    assert_eq!(stored, Stored::Queued);
    assert_eq!(ledger.stats().queued, 1);
}
