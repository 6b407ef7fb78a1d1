//! Providers from their addition to their removal, and their keys on the way: where they belong, and nowhere else.

use std::io::Write as _;
use std::process::{Command, Stdio};

use farrier_testkit::{RawClient, ScriptedUpstream};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::home::{Home, Said};

const CANARY: &str = "canary";

/// Runs a command with this on its standard input.
fn fed(home: &Home, arguments: &[&str], input: &str) -> Said {
    fed_to(home.command(arguments), input)
}

fn fed_to(mut command: Command, input: &str) -> Said {
    let piped = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    Said::of(child.wait_with_output().unwrap())
}

fn done(said: Said) -> Said {
    assert_eq!(said.code, Some(0), "{}", said.shown());
    assert!(!said.shown().contains(CANARY), "{}", said.shown());
    said
}

fn listed(home: &Home) -> Vec<Value> {
    let said = done(home.run(&["provider", "list", "--json"]));
    let listed: Value = serde_json::from_str(&said.stdout).unwrap();
    listed["providers"].as_array().unwrap().clone()
}

fn add_with_input(home: &Home, base_url: &str, key: &str) {
    let arguments = [
        "provider",
        "add",
        "mine",
        "--type",
        "generic",
        "--base-url",
        base_url,
        "--credential",
        "MY_KEY=-",
    ];
    drop(done(fed(home, &arguments, key)));
}

fn rotate(home: &Home, key: &str) -> Said {
    let set = ["provider", "set", "mine", "--credential", "MY_KEY=-"];
    done(fed(home, &set, key))
}

/// A gateway whose only route leads to a stored provider.
fn routed(home: &Home) {
    home.write(
        "farrier.toml",
        "[gateway]\nlisten = \"127.0.0.1:0\"\n\n[[route]]\nmodel = \"plain\"\nprovider = \"mine\"\n",
    );
}

/// Files that hold a key, but for the one place for keys that were handed over.
fn files_with_a_key(home: &Home) -> Vec<String> {
    let files = home.files().into_iter();
    let holds = |content: &[u8]| {
        content
            .windows(CANARY.len())
            .any(|window| window == CANARY.as_bytes())
    };
    files
        .filter(|(path, content)| !is_kept(path) && holds(content))
        .map(|(path, _)| path.display().to_string())
        .collect()
}

fn is_kept(path: &std::path::Path) -> bool {
    path.parent().unwrap().ends_with("farrier/store/secrets")
}

fn kept(home: &Home) -> Vec<Vec<u8>> {
    let files = home.files().into_iter();
    files
        .filter_map(|(path, content)| is_kept(&path).then_some(content))
        .collect()
}

fn body(stream: bool) -> String {
    json!({"model": "plain", "stream": stream, "messages": [{"role": "user", "content": "hello"}]})
        .to_string()
}

#[test]
fn a_provider_is_added_shown_changed_and_removed_without_a_gateway() {
    let home = Home::new();
    assert_eq!(listed(&home), Vec::<Value>::new());
    add_with_input(&home, "https://llm.corp.test/v1", "sk-canary-1\n");
    assert_eq!(kept(&home), [b"sk-canary-1"]);

    let all = listed(&home);
    assert_eq!(all.len(), 1);
    assert_eq!(all[0]["name"], "mine");
    assert_eq!(all[0]["origin"], "stored");
    assert_eq!(all[0]["broken"], json!({}));
    let source = all[0]["keys"]["MY_KEY"].as_str().unwrap();
    assert!(source.starts_with("file:"), "{source}");

    let again = [
        "provider",
        "add",
        "mine",
        "--type",
        "generic",
        "--base-url",
        "https://x.test",
    ];
    let said = home.run(&again);
    assert_eq!(said.code, Some(1));
    assert!(
        said.stderr.contains("expected a new name, got mine"),
        "{}",
        said.stderr
    );

    drop(rotate(&home, "sk-canary-2"));
    assert_eq!(kept(&home), [b"sk-canary-2"]);
    assert_eq!(files_with_a_key(&home), Vec::<String>::new());

    let said = home.run(&["provider", "remove", "mine"]);
    assert_eq!(said.code, Some(2));
    assert!(said.stderr.contains("expected --yes"), "{}", said.stderr);
    drop(done(home.run(&["provider", "remove", "mine", "--yes"])));
    assert_eq!(listed(&home), Vec::<Value>::new());
    assert_eq!(kept(&home), Vec::<Vec<u8>>::new());
    let said = home.run(&["provider", "show", "mine"]);
    assert_eq!(said.code, Some(1));
}

#[test]
fn a_pasted_key_is_refused_wherever_it_stands_and_not_repeated() {
    let home = Home::new();
    let key = "sk-canary-0123456789abcdef";
    let pairs = [
        format!("OPENAI_API_KEY={key}"),
        format!("OPENAI_API_KEY=env:{key}"),
        format!("--credential=OPENAI_API_KEY={key}"),
    ];
    let attempts: [&[&str]; 5] = [
        &["provider", "add", "openai", "--type", "openai", key],
        &["provider", "add", key, "--type", "openai"],
        &[
            "provider",
            "add",
            "openai",
            "--type",
            "openai",
            "--credential",
            &pairs[0],
        ],
        &["provider", "set", "openai", "--credential", &pairs[1]],
        &["provider", "set", "openai", &pairs[2]],
    ];
    for arguments in attempts {
        let said = home.run(arguments);
        assert_eq!(said.code, Some(2), "{}", said.shown());
        assert!(!said.shown().contains(CANARY), "{}", said.shown());
        assert!(said.stderr.contains("revoke"), "{}", said.stderr);
    }
    // Too short to be recognised, and not repeated all the same.
    let short = [
        "provider",
        "add",
        "o",
        "--type",
        "openai",
        "--credential",
        "OPENAI_API_KEY=canary",
    ];
    let said = home.run(&short);
    assert_eq!(said.code, Some(2));
    assert!(!said.shown().contains(CANARY), "{}", said.shown());
}

#[test]
fn what_the_configuration_declares_is_changed_there() {
    let home = Home::new().with("PERSONA_KEY", "sk-canary-upstream");
    let text = crate::up::configuration("http://127.0.0.1:1/v1");
    let file = home.write("farrier.toml", &text);
    let all = listed(&home);
    assert_eq!(all[0]["origin"], "declared");
    assert_eq!(all[0]["line"], 5);
    let attempts: [&[&str]; 3] = [
        &["provider", "set", "persona", "--base-url", "https://x.test"],
        &["provider", "remove", "persona", "--yes"],
        &[
            "provider",
            "add",
            "persona",
            "--type",
            "generic",
            "--base-url",
            "https://x.test",
        ],
    ];
    for arguments in attempts {
        let said = home.run(arguments);
        assert_eq!(said.code, Some(1), "{}", said.shown());
        let place = format!("declared at {}:5", file.canonicalize().unwrap().display());
        assert!(said.stderr.contains(&place), "{}", said.stderr);
    }
}

#[test]
fn mistakes_of_the_command_line_say_what_is_missing() {
    let home = Home::new();
    let cases: [(&[&str], &str); 5] = [
        (
            &["add", "x", "--type", "opneai"],
            "expected a type of provider",
        ),
        (&["add", "x", "--type", "generic"], "expected --base-url"),
        (
            &["add", "x", "--type", "openai"],
            "expected --credential OPENAI_API_KEY=SOURCE",
        ),
        (
            &[
                "add",
                "x",
                "--type",
                "openai",
                "--credential",
                "OTHER=env:A",
            ],
            "expected a key of openai, OPENAI_API_KEY, got OTHER",
        ),
        (
            &["add", "X", "--type", "openai"],
            "expected a provider's name",
        ),
    ];
    for (arguments, expected) in cases {
        let arguments: Vec<&str> = ["provider"].iter().chain(arguments).copied().collect();
        let said = home.run(&arguments);
        assert_eq!(said.code, Some(2), "{}", said.shown());
        assert!(said.stderr.contains(expected), "{}", said.stderr);
    }
    assert_eq!(listed(&home), Vec::<Value>::new());
}

#[test]
fn every_type_is_listed_with_its_keys() {
    let said = done(Home::new().run(&["provider", "types", "--json"]));
    let types: Value = serde_json::from_str(&said.stdout).unwrap();
    let names: Vec<&str> = types["types"]
        .as_array()
        .unwrap()
        .iter()
        .map(|kind| kind["type"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "anthropic",
            "deepseek",
            "gemini",
            "generic",
            "github",
            "moonshot",
            "nvidia",
            "ollama",
            "openai",
            "openrouter",
            "slack",
            "telegram"
        ]
    );
}

#[test]
fn the_key_of_a_command_that_was_killed_is_taken_away_by_a_later_one() {
    let home = Home::new();
    add_with_input(&home, "https://x.test", "sk-canary-used");
    let files = home.files().into_iter().map(|(path, _)| path);
    let used = files.into_iter().find(|path| is_kept(path)).unwrap();
    // As a command leaves it that is killed after it has kept the key and before it has told of it.
    let orphan = |tag: &str| {
        let path = used.with_file_name(format!("lost.LOST_KEY.{tag}"));
        std::fs::write(&path, "sk-canary-lost").unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        (path, file)
    };
    let (old, file) = orphan("0123456789abcdef");
    let hour_ago =
        used.metadata().unwrap().modified().unwrap() - std::time::Duration::from_secs(3600);
    file.set_modified(hour_ago).unwrap();
    let (young, _file) = orphan("fedcba9876543210");
    let set = ["provider", "set", "mine", "--base-url", "https://y.test"];
    let said = done(home.run(&set));
    assert!(said.stderr.contains("taken away: 1"), "{}", said.shown());
    assert!(!old.exists() && young.exists() && used.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_believes_the_certificates_that_the_configuration_names() {
    let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let der = rustls::pki_types::PrivatePkcs8KeyDer::from(key.signing_key.serialize_der());
    let crypto = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(crypto)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![key.cert.der().clone()], der.into())
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(tls));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut answering = tokio::task::JoinSet::new();
    answering.spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue; // believes somebody else
            };
            let _read = stream.read(&mut [0; 4096]).await;
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
            stream.write_all(answer).await.unwrap();
            stream.shutdown().await.ok();
        }
    });
    let home = Home::new().with("MY_KEY", "sk-canary-tested");
    home.write("ca.pem", &key.cert.pem());
    for (ca_file, verdict) in [("", "transport"), ("ca_file = \"ca.pem\"", "works")] {
        let declared = format!(
            "[[provider]]\nname = \"mine\"\nbase_url = \"https://localhost:{port}/v1\"\n\
             credential = {{ env = \"MY_KEY\" }}\n{ca_file}\n"
        );
        home.write("farrier.toml", &declared);
        let command = home.command(&["provider", "test", "mine", "--json"]);
        let said = tokio::task::spawn_blocking(move || fed_to(command, "")).await;
        let said = said.unwrap();
        let tested: Value = serde_json::from_str(&said.stdout).unwrap();
        assert_eq!(tested["verdict"], verdict, "{}", said.shown());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_tells_a_bad_key_from_a_bad_address_and_shows_no_key() {
    let home = Home::new().with("MY_KEY", "sk-canary-tested");
    let upstream = ScriptedUpstream::bind().await;
    let base_url = upstream.base_url();
    let add = [
        "provider",
        "add",
        "mine",
        "--type",
        "generic",
        "--base-url",
        &base_url,
        "--credential",
        "MY_KEY=env:MY_KEY",
    ];
    drop(done(home.run(&add)));
    for (head, verdict, code) in [
        ("200 OK", "works", 0),
        ("401 Unauthorized", "credential", 1),
        ("404 Not Found", "endpoint", 1),
        ("503 Service Unavailable", "transport", 1),
    ] {
        let command = home.command(&["provider", "test", "mine", "--json"]);
        let tested = tokio::task::spawn_blocking(move || fed_to(command, ""));
        let (mut peer, request) = upstream.recv().await;
        assert_eq!(
            request.headers.first("authorization"),
            Some("Bearer sk-canary-tested")
        );
        peer.reply(head, "{\"error\":\"sk-canary-tested\"}").await;
        let said = tested.await.unwrap();
        assert_eq!(said.code, Some(code), "{}", said.shown());
        assert!(!said.shown().contains(CANARY), "{}", said.shown());
        let tested: Value = serde_json::from_str(&said.stdout).unwrap();
        assert_eq!(tested["verdict"], verdict);
    }
    drop(upstream);
    let said = home.run(&["provider", "test", "mine", "--json"]);
    let tested: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(
        (said.code, &tested["verdict"]),
        (Some(1), &json!("transport"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_streams_outlive_ten_rotations_and_no_request_comes_with_an_old_key() {
    const STREAMS: usize = 200;
    let home = Home::new().with("FARRIER_LOG", "trace");
    let upstream = ScriptedUpstream::bind().await;
    add_with_input(&home, &upstream.base_url(), "sk-canary-0");
    routed(&home);
    let mut up = home.start(&["up", "--trace-dir", "traces", "--trace-text", "keep"]);
    let gateway = up.listening();

    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let mut client = RawClient::connect(gateway).await;
        client.post("/v1/chat/completions", body(true)).await;
        let (mut peer, request) = upstream.recv().await;
        assert_eq!(
            request.headers.first("authorization"),
            Some("Bearer sk-canary-0")
        );
        peer.start_stream().await;
        peer.send_chunk(event("first")).await;
        assert_eq!(client.head().await.status, 200);
        streams.push((client, peer));
    }
    for generation in 1..=10 {
        let key = format!("sk-canary-{generation}");
        let said = rotate(&home, &key);
        let serves = format!("serves as generation {}", generation + 1);
        assert!(said.stdout.contains(&serves), "{}", said.stdout);
        for _ in 0..5 {
            let mut client = RawClient::connect(gateway).await;
            client.post("/v1/chat/completions", body(false)).await;
            let (mut peer, request) = upstream.recv().await;
            let shown = request.headers.first("authorization");
            assert_eq!(shown, Some(format!("Bearer {key}").as_str()));
            let head = "401 Unauthorized\r\ncontent-type: application/json";
            peer.reply(head, r#"{"error":{"message":"no"}}"#).await;
            let refused = client.response().await;
            assert!(!refused.text().contains(CANARY));
        }
    }
    for (client, peer) in &mut streams {
        peer.send_chunk(event("last")).await;
        peer.send_chunk("data: [DONE]\n\n").await;
        peer.end_chunks().await;
        let mut seen = Vec::new();
        loop {
            let chunk = client.chunk().await.unwrap();
            if chunk.is_empty() {
                break;
            }
            seen.extend(chunk);
        }
        let seen = String::from_utf8(seen).unwrap();
        for part in ["first", "last", "[DONE]"] {
            assert!(seen.contains(part), "{seen}");
        }
    }
    // The only copy on the disk is the one that was handed over last.
    assert_eq!(kept(&home), [b"sk-canary-10"]);
    assert_eq!(files_with_a_key(&home), Vec::<String>::new());
    for what in ["cmdline", "environ"] {
        let read = std::fs::read(format!("/proc/{}/{what}", up.id())).unwrap();
        assert!(!String::from_utf8_lossy(&read).contains(CANARY), "{what}");
    }
    up.signal(Signal::TERM);
    let said = up.ended();
    assert!(!said.shown().contains(CANARY), "the log shows a key");
}

fn event(text: &str) -> String {
    let delta = json!({"choices": [{"index": 0, "delta": {"content": text}}]});
    format!("data: {delta}\n\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_cannot_be_served_is_taken_back() {
    let home = Home::new();
    let upstream = ScriptedUpstream::bind().await;
    add_with_input(&home, &upstream.base_url(), "sk-canary-good");
    routed(&home);
    let mut up = home.start(&["up"]);
    let gateway = up.listening();
    let before = listed(&home);

    let set = [
        "provider",
        "set",
        "mine",
        "--credential",
        "MY_KEY=env:NOT_SET_ANYWHERE",
    ];
    let said = home.run(&set);
    assert_eq!(said.code, Some(1), "{}", said.shown());
    assert!(said.stderr.contains("NOT_SET_ANYWHERE"), "{}", said.stderr);
    assert!(said.stderr.contains("taken back"), "{}", said.stderr);
    let said = home.run(&["provider", "remove", "mine", "--yes"]);
    assert_eq!(said.code, Some(1), "{}", said.shown());
    assert_eq!(listed(&home), before);
    assert_eq!(kept(&home), [b"sk-canary-good"]);

    let mut client = RawClient::connect(gateway).await;
    client.post("/v1/chat/completions", body(false)).await;
    let (_peer, request) = upstream.recv().await;
    assert_eq!(
        request.headers.first("authorization"),
        Some("Bearer sk-canary-good")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_provider_that_no_route_names_keeps_nobody_from_working() {
    let home = Home::new().with("PERSONA_KEY", "sk-canary-upstream");
    let upstream = ScriptedUpstream::bind().await;
    let add = [
        "provider",
        "add",
        "broken",
        "--type",
        "openai",
        "--credential",
        "OPENAI_API_KEY=env:NOT_SET_ANYWHERE",
    ];
    let said = done(home.run(&add));
    assert!(
        said.stderr.contains("cannot be fetched here"),
        "{}",
        said.stderr
    );
    home.write(
        "farrier.toml",
        &crate::up::configuration(&upstream.base_url()),
    );
    let mut up = home.start(&["up"]);
    let mut client = RawClient::connect(up.listening()).await;
    let asked = body(false).replace("plain", "moonshotai/kimi-k2.6");
    client.post("/v1/chat/completions", asked).await;
    let (_peer, request) = upstream.recv().await;
    assert_eq!(
        request.headers.first("authorization"),
        Some("Bearer sk-canary-upstream")
    );
    let broken = &listed(&home)[0];
    assert_eq!(broken["name"], "broken");
    assert!(
        broken["broken"]["OPENAI_API_KEY"]
            .as_str()
            .unwrap()
            .contains("not set")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_leaves_no_core_behind() {
    use std::os::unix::process::ExitStatusExt as _;

    let home = Home::new().with("PERSONA_KEY", "sk-canary-upstream");
    home.write(
        "farrier.toml",
        &crate::up::configuration("http://127.0.0.1:1/v1"),
    );
    let mut command = home.command(&["up"]);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
    assert!(lines.any(|line| line.unwrap().contains("listens on")));
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .unwrap();
    assert_eq!(
        core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(),
        ["0", "0"]
    );
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, Signal::QUIT).unwrap();
    let status = child.wait().unwrap();
    assert!(
        status.signal().is_some() && !status.core_dumped(),
        "{status}"
    );
    assert_eq!(files_with_a_key(&home), Vec::<String>::new());
}
