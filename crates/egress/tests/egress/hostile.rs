//! Clients that mean harm.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use farrier_egress::Limits;
use farrier_egress::audit::Bounds;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{Bench, CANARY, HOST, PLACEHOLDER, Setting, read_out};

/// What cases of `tests/hostile` are judged by.
const POLICY: &str = r#"
version: 1
network_policies:
  known:
    endpoints:
      - { host: api.example.com, port: PORT, allowed_ips: [127.0.0.0/8] }
      - { host: other.example.com, port: PORT, allowed_ips: [127.0.0.0/8] }
      - { host: "*.wild.example.com", port: 80 }
"#;

/// One block of a file.
struct Case {
    name: String,
    sent: Vec<u8>,
    expected: String,
}

fn cases(text: &str, port: u16) -> Vec<Case> {
    let blocks = text.split("=== ").filter(|block| !block.trim().is_empty());
    let cases = blocks.map(|block| {
        let (name, rest) = block.split_once('\n').unwrap();
        let (lines, expected) = rest.rsplit_once("\n--- ").unwrap();
        let mut sent = Vec::new();
        for line in lines.split('\n') {
            let line = line
                .replace("PORT", &port.to_string())
                .replace("KEY", PLACEHOLDER_MARK);
            let (line, end) = match line.strip_suffix("@cut") {
                Some(line) => (line.to_owned(), ""),
                None => (line, "\r\n"),
            };
            sent.extend(unescaped(&line.replace(PLACEHOLDER_MARK, PLACEHOLDER)));
            sent.extend(end.bytes());
        }
        Case {
            name: name.to_owned(),
            sent,
            expected: expected.trim().to_owned(),
        }
    });
    cases.collect()
}

/// Stands for `KEY` while the text, which may name keys itself, is looked through.
const PLACEHOLDER_MARK: &str = "\u{1}";

fn unescaped(line: &str) -> Vec<u8> {
    let mut parts = line.split("\\x");
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
        bytes.extend(part[2..].bytes());
    }
    bytes
}

fn files() -> Vec<PathBuf> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/hostile");
    let paths = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|end| end == "txt"))
        .collect();
    files.sort();
    files
}

/// What a client is told, and what the destination has seen since.
async fn told(bench: &Bench, case: &Case, clear: bool) -> (String, usize) {
    let before = bench.destination.seen().len();
    let answer = if clear {
        bench.raw(&case.sent).await
    } else {
        let mut stream = bench.tls(&bench.own_ca(), HOST, b"http/1.1").await.unwrap();
        // A refusal may come before all is sent.
        let _sent = stream.write_all(&case.sent).await;
        read_out(&mut stream).await
    };
    (answer, bench.destination.seen().len() - before)
}

#[tokio::test]
async fn every_case_is_answered_as_its_file_says_and_nothing_gets_through() {
    let bench = Bench::with(Setting {
        policy: POLICY,
        ..Setting::default()
    })
    .await;
    let mut count = 0;
    let mut wrong = Vec::new();
    for file in files() {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&file).unwrap();
        for case in cases(&text, bench.destination.port) {
            count += 1;
            let (answer, seen) = told(&bench, &case, name.starts_with("clear-")).await;
            assert!(!answer.contains(CANARY), "{name}: {}", case.name);
            let fits = match case.expected.as_str() {
                "forwarded" => seen == 1 && answer.starts_with("HTTP/1.1 200"),
                "closed" => seen == 0 && !answer.contains("HTTP/1.1 200"),
                code => seen == 0 && answer.contains(&format!("\"code\":\"{code}\"")),
            };
            if !fits {
                wrong.push(format!(
                    "{name}: {}: expected {}, got {answer:?} ({seen} seen)",
                    case.name, case.expected
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count >= 120, "{count}");
    assert!(!bench.files().contains("canary"));
}

#[tokio::test]
async fn a_request_hidden_behind_another_is_judged_by_itself() {
    let bench = Bench::start().await;
    let hidden = format!(
        "GET /v1/a HTTP/1.1\r\nhost: HOST\r\n\r\nGET /v1/b HTTP/1.1\r\nhost: evil.test\r\nauthorization: {PLACEHOLDER}\r\n\r\n"
    );
    let mut stream = bench.tls(&bench.own_ca(), HOST, b"http/1.1").await.unwrap();
    stream
        .write_all(hidden.replace("HOST", &bench.authority()).as_bytes())
        .await
        .unwrap();
    let mut answers = read_out(&mut stream).await;
    answers += &read_out(&mut stream).await;
    assert!(
        answers.contains("hello") && answers.contains("request_authority_mismatch"),
        "{answers}"
    );
    assert_eq!(bench.destination.seen().len(), 1);
}

#[tokio::test]
async fn a_tunnel_to_one_name_is_not_used_for_another() {
    let bench = Bench::start().await;
    assert!(
        bench
            .tls(&bench.own_ca(), "other.example.com", b"http/1.1")
            .await
            .is_err()
    );
    let lines = bench.lines(2).await;
    assert!(
        lines
            .iter()
            .any(|line| line.code.as_deref() == Some("request_authority_mismatch")),
        "{lines:?}"
    );
}

/// Whether the other side ends a connection that it is waiting on, in time.
async fn is_let_go(mut stream: TcpStream) -> bool {
    let ended = timeout(Duration::from_secs(5), stream.read(&mut [0])).await;
    matches!(ended, Ok(Ok(0) | Err(_)))
}

#[tokio::test]
async fn a_client_that_dawdles_is_let_go() {
    let mut limits = Limits::default();
    limits.listener.header_read = Duration::from_millis(200);
    limits.handshake = Duration::from_millis(200);
    let bench = Bench::with(Setting {
        limits,
        ..Setting::default()
    })
    .await;
    for begun in [
        &b""[..],
        b"GET http://api.exa",
        b"GET / HTTP/1.1\r\nhost: x\r\n",
    ] {
        let mut stream = TcpStream::connect(bench.proxy).await.unwrap();
        stream.write_all(begun).await.unwrap();
        assert!(is_let_go(stream).await, "{begun:?}");
    }
    for begun in [
        &b""[..],
        b"\x16",
        b"\x16\x03\x01\x02\x00\x01",
        b"GET /v1 HTT",
    ] {
        let mut stream = bench.tunnel(&bench.authority()).await.unwrap();
        stream.write_all(begun).await.unwrap();
        assert!(is_let_go(stream).await, "{begun:?}");
    }
    let lines = bench.lines(7).await;
    let slow = lines
        .iter()
        .filter(|line| line.code.as_deref() == Some("head_too_slow"));
    assert_eq!(slow.count(), 3, "{lines:?}");
    assert!(bench.destination.seen().is_empty());
}

#[tokio::test]
async fn a_tunnel_that_nobody_uses_ends() {
    let limits = Limits {
        idle: Duration::from_millis(200),
        ..Limits::default()
    };
    let bench = Bench::with(Setting {
        limits,
        attached: false,
        ..Setting::default()
    })
    .await;
    let stream = bench.tunnel(&bench.authority()).await.unwrap();
    assert!(is_let_go(stream).await);
    assert_eq!(bench.lines(1).await[0].code.as_deref(), Some("tunnel_idle"));
}

#[tokio::test]
async fn nobody_is_let_in_whose_decisions_could_not_be_recorded() {
    let no_room = Bounds {
        max_waiting: 0,
        ..Bounds::default()
    };
    let bench = Bench::with(Setting {
        audit: no_room,
        ..Setting::default()
    })
    .await;
    let get = b"GET http://api.example.com/ HTTP/1.1\r\nhost: api.example.com\r\n\r\n";
    assert_eq!(bench.raw(get).await, "");
    assert!(bench.destination.seen().is_empty());
}

#[tokio::test]
async fn one_connection_more_than_allowed_waits_for_its_turn() {
    let mut limits = Limits::default();
    limits.listener.max_connections = 1;
    let bench = Bench::with(Setting {
        limits,
        attached: false,
        ..Setting::default()
    })
    .await;
    let first = bench.tunnel(&bench.authority()).await.unwrap();
    let authority = bench.authority();
    let mut second = std::pin::pin!(bench.tunnel(&authority));
    let waits = timeout(Duration::from_millis(300), second.as_mut()).await;
    assert!(
        waits.is_err(),
        "a second connection was served beside the first"
    );
    drop(first);
    assert!(
        timeout(Duration::from_secs(5), second)
            .await
            .unwrap()
            .is_ok()
    );
}
