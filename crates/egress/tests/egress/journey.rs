//! Requests and tunnels that go through, and some that do not.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use farrier_egress::audit::Verdict;
use farrier_egress::policy::{Policy, suggest};
use http_body_util::{BodyExt as _, Full};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{self, Bench, CANARY, HOST, OPEN, PLACEHOLDER, ROTATED, Setting, read_out};

const JUDGED: &str = r#"
version: 1
network_policies:
  api:
    endpoints:
      - host: api.example.com
        port: PORT
        protocol: rest
        allowed_ips: [127.0.0.0/8]
        rules:
          - allow: { method: GET, path: "/v1/**" }
          - allow: { method: GET, path: /endless }
"#;
const NOTHING: &str = "version: 1";

fn get(path: &str, authorization: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: HOST\r\nauthorization: {authorization}\r\n\r\n")
}

#[tokio::test]
async fn kag_05_a_placeholder_becomes_the_key_on_the_way_to_its_provider() {
    let bench = Bench::start().await;
    let answer = bench
        .ask(&get("/v1/models", &format!("Bearer {PLACEHOLDER}")))
        .await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"),
        "{answer}"
    );
    let seen = bench.destination.seen();
    assert_eq!(seen[0].headers["authorization"], format!("Bearer {CANARY}"));
    assert_eq!(seen[0].authority, bench.authority());
    let lines = bench.lines(2).await;
    let line = lines.iter().find(|line| line.kind == "request").unwrap();
    assert_eq!(line.verdict, Verdict::Allowed);
    assert_eq!(line.credentials, ["model/OPENAI_API_KEY"]);
    assert_eq!((line.status, line.bytes_down), (Some(200), 5));
    assert!(!bench.files().contains("canary"));
}

#[tokio::test]
async fn kag_06_without_the_attachment_the_same_request_is_refused_and_not_forwarded() {
    let bench = Bench::with(Setting {
        attached: false,
        policy: JUDGED,
        ..Setting::default()
    })
    .await;
    let answer = bench
        .ask(&get("/v1/models", &format!("Bearer {PLACEHOLDER}")))
        .await;
    assert!(answer.starts_with("HTTP/1.1 500"), "{answer}");
    assert!(
        answer.contains("\"code\":\"credential_unavailable\""),
        "{answer}"
    );
    assert!(answer.contains("x-should-retry: false"));
    assert!(bench.destination.seen().is_empty());
    let lines = bench.lines(2).await;
    assert_eq!(lines[1].code.as_deref(), Some("credential_unavailable"));
    assert_eq!(lines[1].verdict, Verdict::Denied);
}

#[tokio::test]
async fn a_key_is_not_sent_to_another_path_of_the_same_machine() {
    let bench = Bench::start().await;
    let answer = bench.ask(&get("/other", PLACEHOLDER)).await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    assert!(answer.contains("credential_endpoint_mismatch"), "{answer}");
    assert!(bench.destination.seen().is_empty());
    assert!(!answer.contains("canary"));
}

#[tokio::test]
async fn a_request_that_no_rule_allows_is_refused_and_the_suggestion_allows_it() {
    let bench = Bench::with(Setting {
        policy: JUDGED,
        ..Setting::default()
    })
    .await;
    let answer = bench
        .ask("POST /v1/chat/123456 HTTP/1.1\r\nhost: HOST\r\ncontent-length: 2\r\n\r\n{}")
        .await;
    assert!(
        answer.starts_with("HTTP/1.1 403") && answer.contains("policy_denied"),
        "{answer}"
    );
    assert!(bench.destination.seen().is_empty());
    let lines = bench.lines(2).await;
    let refusals: Vec<_> = lines
        .iter()
        .filter_map(farrier_egress::audit::Line::refusal)
        .collect();
    let text = suggest(&refusals).unwrap();
    assert!(
        text.contains("/v1/chat/*") && text.contains("POST"),
        "{text}"
    );
    assert!(Policy::load(&text).is_ok());
    let unknown = bench.tunnel("elsewhere.example.com:443").await.unwrap_err();
    assert!(unknown.contains("policy_denied"), "{unknown}");
}

#[tokio::test]
async fn a_tunnel_without_anything_to_read_is_untouched() {
    let bench = Bench::with(Setting {
        attached: false,
        ..Setting::default()
    })
    .await;
    // The certificate is the destination's own.
    let mut stream = bench
        .tls(&bench.destination.ca_pem, HOST, b"http/1.1")
        .await
        .unwrap();
    let request =
        format!("GET /any HTTP/1.1\r\nhost: {HOST}\r\nauthorization: {PLACEHOLDER}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    assert!(read_out(&mut stream).await.ends_with("hello"));
    drop(stream);
    assert_eq!(
        bench.destination.seen()[0].headers["authorization"],
        PLACEHOLDER
    );
    let lines = bench.lines(1).await;
    assert_eq!(
        (lines[0].kind.as_str(), lines[0].verdict),
        ("tunnel", Verdict::Allowed)
    );
    assert!(lines[0].bytes_up > 0 && lines[0].bytes_down > 0);
}

#[tokio::test]
async fn requests_follow_one_another_on_a_connection_and_bodies_pass() {
    let bench = Bench::start().await;
    let both = format!(
        "POST /v1/a HTTP/1.1\r\nhost: HOST\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n{}",
        get("/v1/b?x=1", PLACEHOLDER)
    );
    let mut stream = bench.tls(&bench.own_ca(), HOST, b"http/1.1").await.unwrap();
    stream
        .write_all(both.replace("HOST", &bench.authority()).as_bytes())
        .await
        .unwrap();
    let mut answers = read_out(&mut stream).await;
    answers += &read_out(&mut stream).await;
    assert_eq!(answers.matches("hello").count(), 2, "{answers}");
    let seen = bench.destination.seen();
    assert_eq!(
        (seen[0].method.as_str(), &seen[0].body[..]),
        ("POST", &b"abc"[..])
    );
    assert_eq!(seen[1].target, "/v1/b?x=1");
    assert_eq!(seen[1].headers["authorization"], CANARY);
}

#[tokio::test]
async fn http2_is_spoken_on_both_sides_and_trailers_pass() {
    let bench = Bench::start().await;
    let stream = bench.tls(&bench.own_ca(), HOST, b"h2").await.unwrap();
    let tasks = farrier_serve::Tracker::new();
    let io = hyper_util::rt::TokioIo::new(stream);
    let handshake = hyper::client::conn::http2::handshake(tasks.clone(), io).await;
    let (mut sender, connection) = handshake.unwrap();
    drop(tasks.spawn(connection));
    let request = http::Request::builder()
        .method("POST")
        .uri(format!("https://{}/v1/trailers", bench.authority()))
        .header("authorization", format!("Bearer {PLACEHOLDER}"))
        .header("te", "trailers")
        .body(Full::new(Bytes::from_static(b"\0\0\0\0\0")))
        .unwrap();
    let mut reply = sender.send_request(request).await.unwrap();
    assert_eq!(reply.status(), 200);
    let mut trailers = None;
    while let Some(frame) = reply.body_mut().frame().await {
        trailers = frame.unwrap().into_trailers().ok().or(trailers);
    }
    assert_eq!(trailers.unwrap()["grpc-status"], "0");
    let seen = bench.destination.seen();
    assert_eq!(seen[0].version, http::Version::HTTP_2);
    assert_eq!(seen[0].headers["authorization"], format!("Bearer {CANARY}"));
    assert_eq!(seen[0].headers["te"], "trailers");
    assert_eq!(&seen[0].body[..], b"\0\0\0\0\0");
    tasks.cut();
}

/// Streams that run while the key is changed under them, and requests meanwhile.
#[tokio::test]
async fn a_key_that_rotates_under_load_breaks_no_stream_and_is_never_stale() {
    let bench = Bench::start().await;
    let mut streams = Vec::new();
    // In the clear, since shaking hands is not what this is about.
    let endless = format!(
        "GET http://{0}/endless HTTP/1.1\r\nhost: {0}\r\n\r\n",
        bench.authority()
    );
    for _ in 0..200 {
        let mut stream = TcpStream::connect(bench.proxy).await.unwrap();
        stream.write_all(endless.as_bytes()).await.unwrap();
        let mut head = [0; 16];
        stream.read_exact(&mut head).await.unwrap();
        streams.push(stream);
    }
    for turn in 0..10 {
        let key = [CANARY, ROTATED][turn % 2];
        bench.rotate(key);
        bench.ask(&get("/v1/x", PLACEHOLDER)).await;
        let last = bench.destination.seen().pop().unwrap();
        assert_eq!(last.headers["authorization"], key);
    }
    for stream in &mut streams {
        // What is left of the first answer, and then nothing: no end, no error.
        let mut rest = Vec::new();
        let quiet = Duration::from_millis(2);
        let ended = tokio::time::timeout(quiet, stream.read_to_end(&mut rest)).await;
        assert!(ended.is_err(), "a stream ended");
    }
}

#[tokio::test]
async fn a_key_that_its_provider_says_back_is_its_placeholder_again() {
    let bench = Bench::start().await;
    let request = "GET /v1/echo HTTP/1.1\r\nhost: HOST\r\nauthorization: Bearer PLACEHOLDER\r\n\
                   accept-encoding: gzip\r\nconnection: close\r\n\r\n";
    let request = request.replace("PLACEHOLDER", PLACEHOLDER);
    let mut stream = bench.tls(&bench.own_ca(), HOST, b"http/1.1").await.unwrap();
    let sent = request.replace("HOST", &bench.authority());
    stream.write_all(sent.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(!answer.contains("canary"), "{answer}");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let said = format!("Bearer {PLACEHOLDER}");
    assert!(head.contains(&format!("x-echo: {said}")), "{head}");
    assert!(
        body.contains(&said) && body.ends_with("0\r\n\r\n"),
        "{body}"
    );
    let seen = bench.destination.seen();
    assert_eq!(seen[0].headers["authorization"], format!("Bearer {CANARY}"));
    assert_eq!(seen[0].headers["accept-encoding"], "identity");

    let request = request.replace(
        &format!("Bearer {PLACEHOLDER}"),
        "Bearer sk-canary-7f3a-secret",
    );
    let answer = bench.ask(&request).await;
    assert!(
        answer.contains("content-length") && answer.contains(CANARY),
        "it is the client's own"
    );
    assert_eq!(
        bench.destination.seen()[1].headers["accept-encoding"],
        "gzip"
    );

    let mut shared = http2(&bench).await;
    let reply = shared
        .send_request(asked(&bench, "/v1/echo"))
        .await
        .unwrap();
    assert_eq!(reply.headers()["x-echo"], PLACEHOLDER);
    let mut body = reply.into_body();
    let mut said = Vec::new();
    while let Some(frame) = body.frame().await {
        said.extend_from_slice(&frame.unwrap().into_data().unwrap());
    }
    let said = String::from_utf8(said).unwrap();
    assert!(
        said.contains(PLACEHOLDER) && !said.contains("canary"),
        "{said}"
    );
}

#[tokio::test]
async fn a_key_that_was_replaced_while_its_request_waited_for_a_connection_is_not_sent() {
    let bench = Bench::start().await;
    let mut stream = bench.tls(&bench.own_ca(), HOST, b"http/1.1").await.unwrap();
    let mut shared = http2(&bench).await;
    bench.destination.open.send_replace(false);
    let request = get("/v1/models", PLACEHOLDER).replace("HOST", &bench.authority());
    stream.write_all(request.as_bytes()).await.unwrap();
    let other = shared.send_request(asked(&bench, "/v1/other"));
    let tasks = farrier_serve::Tracker::new();
    let other = tasks.spawn(other);
    while bench.destination.accepted.load(Ordering::Relaxed) < 2 {
        tokio::task::yield_now().await;
    }
    bench.rotate(ROTATED);
    bench.destination.open.send_replace(true);
    assert!(read_out(&mut stream).await.ends_with("hello"));
    assert_eq!(other.await.unwrap().unwrap().unwrap().status(), 200);
    let seen = bench.destination.seen();
    assert_eq!(seen.len(), 2);
    for seen in seen {
        let sent = seen.headers["authorization"].to_str().unwrap();
        assert!(sent.ends_with(ROTATED), "{} {sent}", seen.target);
    }
    tasks.cut();
}

#[tokio::test]
async fn requests_of_http2_take_as_many_connections_as_their_destination_wants_and_no_more() {
    let bench = Bench::start().await;
    let mut shared = http2(&bench).await;
    let mut replies = Vec::new();
    for _ in 0..2 * support::MAX_STREAMS + 1 {
        let mut reply = shared
            .send_request(asked(&bench, "/endless"))
            .await
            .unwrap();
        let first = reply.body_mut().frame().await.unwrap().unwrap();
        assert_eq!(&first.into_data().unwrap()[..], b"first");
        replies.push(reply);
    }
    assert_eq!(bench.destination.accepted.load(Ordering::Relaxed), 3);
    replies.clear();
    let reply = shared.send_request(asked(&bench, "/v1/x")).await.unwrap();
    assert_eq!(reply.status(), 200);
    assert_eq!(bench.destination.accepted.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn more_requests_of_http2_than_all_connections_carry_wait_for_a_place() {
    let bench = Bench::start().await;
    let mut all = tokio::task::JoinSet::new();
    // Sixteen connections of ten streams, and eight that wait.
    for _ in 0..2 {
        let mut client = http2(&bench).await;
        for _ in 0..84 {
            all.spawn(client.send_request(asked(&bench, "/endless")));
        }
    }
    let most = 16 * usize::try_from(support::MAX_STREAMS).unwrap();
    let mut open = Vec::new();
    while open.len() < most {
        open.push(all.join_next().await.unwrap().unwrap().unwrap());
    }
    assert_eq!(bench.destination.accepted.load(Ordering::Relaxed), 16);
    assert_eq!(all.len(), 8);
    drop(open);
    while let Some(reply) = all.join_next().await {
        assert_eq!(reply.unwrap().unwrap().status(), 200);
    }
    assert_eq!(bench.destination.accepted.load(Ordering::Relaxed), 16);
}

#[tokio::test]
async fn a_connection_that_its_destination_has_closed_is_replaced_without_a_word() {
    let bench = Bench::start().await;
    let mut stream = bench.tls(&bench.own_ca(), HOST, b"http/1.1").await.unwrap();
    let posted = "POST /v1/last HTTP/1.1\r\nhost: HOST\r\ncontent-length: 3\r\n\r\nabc";
    for _ in 0..3 {
        let request = posted.replace("HOST", &bench.authority());
        stream.write_all(request.as_bytes()).await.unwrap();
        assert!(read_out(&mut stream).await.ends_with("hello"));
    }
    let seen = bench.destination.seen();
    assert!(seen.iter().all(|seen| &seen.body[..] == b"abc"));
    assert_eq!(bench.destination.accepted.load(Ordering::Relaxed), 3);
}

/// A client of HTTP/2 within a tunnel to the destination.
async fn http2(bench: &Bench) -> hyper::client::conn::http2::SendRequest<Full<Bytes>> {
    let stream = bench.tls(&bench.own_ca(), HOST, b"h2").await.unwrap();
    let tasks = farrier_serve::Tracker::new();
    let io = hyper_util::rt::TokioIo::new(stream);
    let handshake = hyper::client::conn::http2::handshake(tasks.clone(), io).await;
    let (sender, connection) = handshake.unwrap();
    drop(tasks.spawn(connection));
    sender
}

fn asked(bench: &Bench, path: &str) -> http::Request<Full<Bytes>> {
    let key = if path.starts_with("/v1/") {
        PLACEHOLDER
    } else {
        "none"
    };
    http::Request::builder()
        .uri(format!("https://{}{path}", bench.authority()))
        .header("authorization", key)
        .body(Full::default())
        .unwrap()
}

#[tokio::test]
async fn an_absolute_url_in_the_clear_is_judged_like_any_other() {
    let bench = Bench::with(Setting {
        policy: JUDGED,
        ..Setting::default()
    })
    .await;
    let ask = |path: &str| {
        format!(
            "GET http://{0}{path} HTTP/1.1\r\nhost: {0}\r\nproxy-connection: keep-alive\r\n\r\n",
            bench.authority()
        )
    };
    let answer = bench.raw(ask("/v1/x").as_bytes()).await;
    assert!(answer.ends_with("hello"), "{answer}");
    let seen = bench.destination.seen();
    assert!(!seen[0].headers.contains_key("proxy-connection"));
    assert_eq!(seen[0].target, "/v1/x");
    assert!(
        bench
            .raw(ask("/other").as_bytes())
            .await
            .contains("policy_denied")
    );
    // The key is bound to https.
    let clear = ask("/v1/x").replace(
        "proxy-connection: keep-alive",
        &format!("authorization: {PLACEHOLDER}"),
    );
    assert!(
        bench
            .raw(clear.as_bytes())
            .await
            .contains("credential_endpoint_mismatch")
    );
}

#[tokio::test]
async fn a_rotated_key_is_used_by_the_next_request_and_a_running_reply_goes_on() {
    let bench = Bench::start().await;
    let mut stream = bench.tls(&bench.own_ca(), HOST, b"http/1.1").await.unwrap();
    let endless = format!(
        "GET /endless HTTP/1.1\r\nhost: {}\r\n\r\n",
        bench.authority()
    );
    stream.write_all(endless.as_bytes()).await.unwrap();
    assert!(read_out(&mut stream).await.contains("first"));
    bench.rotate(ROTATED);
    bench.ask(&get("/v1/x", PLACEHOLDER)).await;
    assert_eq!(
        bench.destination.seen()[1].headers["authorization"],
        ROTATED
    );
    let still = tokio::time::timeout(Duration::from_millis(200), stream.read_u8()).await;
    assert!(still.is_err(), "the reply ended");
}

#[tokio::test]
async fn a_change_of_rules_ends_what_it_no_longer_allows_and_nothing_else() {
    let bench = Bench::with(Setting {
        policy: JUDGED,
        ..Setting::default()
    })
    .await;
    let mut stream = bench.tls(&bench.own_ca(), HOST, b"http/1.1").await.unwrap();
    let endless = format!(
        "GET /endless HTTP/1.1\r\nhost: {}\r\n\r\n",
        bench.authority()
    );
    stream.write_all(endless.as_bytes()).await.unwrap();
    assert!(read_out(&mut stream).await.contains("first"));
    bench.reload(JUDGED);
    let mut byte = [0];
    let still = tokio::time::timeout(Duration::from_millis(200), stream.read(&mut byte)).await;
    assert!(still.is_err(), "a reply that is still allowed ended");
    bench.reload(NOTHING);
    let ended = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut byte))
        .await
        .unwrap();
    assert!(
        !matches!(ended, Ok(1..)),
        "a reply that is not allowed any more went on"
    );
    let lines = bench.lines(2).await;
    assert!(
        lines
            .iter()
            .any(|line| line.code.as_deref() == Some("policy_changed")),
        "{lines:?}"
    );
    assert!(bench.tunnel(&bench.authority()).await.is_err());
}

#[tokio::test]
async fn a_tunnel_ends_when_the_rules_change_to_some_without_it() {
    let bench = Bench::with(Setting {
        attached: false,
        ..Setting::default()
    })
    .await;
    let mut stream = bench.tunnel(&bench.authority()).await.unwrap();
    bench
        .reloader
        .replace(support::rules(OPEN, bench.destination.port, Vec::new()));
    let still = tokio::time::timeout(Duration::from_millis(200), stream.read_u8()).await;
    assert!(still.is_err());
    bench.reload(NOTHING);
    assert!(stream.read_u8().await.is_err());
    assert_eq!(
        bench.lines(1).await[0].code.as_deref(),
        Some("policy_changed")
    );
}

#[tokio::test]
async fn a_name_that_leads_inside_is_refused_and_says_so() {
    let policy = r#"{version: 1, network_policies: {a: {endpoints: [
        {host: "*.example.com", port: 443}, {host: "*.example.com", port: 80}]}}}"#;
    let bench = Bench::with(Setting {
        policy,
        attached: false,
        ..Setting::default()
    })
    .await;
    for authority in ["inside.example.com:443", "local.example.com:443"] {
        let refused = bench.tunnel(authority).await.unwrap_err();
        assert!(
            refused.starts_with("HTTP/1.1 403") && refused.contains("ssrf_denied"),
            "{refused}"
        );
    }
    let answer = bench
        .raw(b"GET http://inside.example.com/ HTTP/1.1\r\nhost: inside.example.com\r\n\r\n")
        .await;
    assert!(answer.contains("ssrf_denied"), "{answer}");
    let unknown = bench.tunnel("nobody.example.com:443").await.unwrap_err();
    assert!(
        unknown.starts_with("HTTP/1.1 502") && unknown.contains("upstream_unknown_name"),
        "{unknown}"
    );
    let lines = bench.lines(4).await;
    assert_eq!(lines[0].address, Some([10, 0, 0, 1].into()));
    assert_eq!(lines[3].verdict, Verdict::Failed);
}

#[tokio::test]
async fn a_destination_that_cannot_prove_itself_is_not_spoken_to() {
    let policy = r#"{version: 1, network_policies: {a: {endpoints: [
        {host: wrong.example.com, port: PORT, protocol: rest, access: full, allowed_ips: [127.0.0.0/8]}]}}}"#;
    let bench = Bench::with(Setting {
        policy,
        ..Setting::default()
    })
    .await;
    let request = format!(
        "GET https://wrong.example.com:{0}/ HTTP/1.1\r\nhost: wrong.example.com:{0}\r\n\r\n",
        bench.destination.port
    );
    let answer = bench.raw(request.as_bytes()).await;
    assert!(
        answer.starts_with("HTTP/1.1 502") && answer.contains("upstream_certificate"),
        "{answer}"
    );
    assert!(bench.destination.seen().is_empty());
}

#[tokio::test]
async fn whom_destinations_are_believed_to_be_changes_with_the_rules_and_for_all_connections() {
    let bench = Bench::start().await;
    let asked = get("/v1/models", PLACEHOLDER);
    assert!(bench.ask(&asked).await.ends_with("hello"));
    let rules = || support::rules(OPEN, bench.destination.port, vec![support::provider()]);
    let nobody = farrier_egress::Trust::with(None).unwrap();
    assert!(bench.reloader.replace_believing(rules(), nobody));
    let answer = bench.ask(&asked).await;
    assert!(answer.contains("upstream_certificate"), "{answer}");
    bench.reloader.replace(rules());
    let answer = bench.ask(&asked).await;
    assert!(answer.contains("upstream_certificate"), "{answer}");
    let again = farrier_egress::Trust::with(Some(bench.destination.ca_pem.as_bytes())).unwrap();
    bench.reloader.replace_believing(rules(), again);
    assert!(bench.ask(&asked).await.ends_with("hello"));
}

#[tokio::test]
async fn curl_reaches_the_provider_unchanged_over_both_versions() {
    let bench = Bench::start().await;
    let ca = bench.directory.path().join("ca/ca.pem");
    for version in ["--http1.1", "--http2"] {
        let output = tokio::process::Command::new("curl")
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HTTPS_PROXY", format!("http://{}", bench.proxy))
            .args([
                "--silent",
                "--show-error",
                "--max-time",
                "10",
                version,
                "--cacert",
            ])
            .arg(&ca)
            .args(["--header", &format!("Authorization: Bearer {PLACEHOLDER}")])
            .arg(format!("https://{}/v1/models", bench.authority()))
            .output()
            .await
            .expect("curl is installed");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "hello",
            "{version} {said}"
        );
    }
    let seen = bench.destination.seen();
    assert!(
        seen.iter()
            .all(|seen| seen.headers["authorization"] == format!("Bearer {CANARY}"))
    );
    assert_eq!(seen.len(), 2);
}

/// What urllib needs is in the standard library; it asks for tunnels as HTTP/1.0 does.
const PYTHON: &str = "
import sys, urllib.request
request = urllib.request.Request(sys.argv[1], headers={'Authorization': sys.argv[2]})
sys.stdout.write(urllib.request.urlopen(request, timeout=10).read().decode())
";

#[tokio::test]
async fn python_reaches_the_provider_unchanged() {
    let bench = Bench::start().await;
    let output = tokio::process::Command::new("python3")
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("https_proxy", format!("http://{}", bench.proxy))
        .env("SSL_CERT_FILE", bench.directory.path().join("ca/ca.pem"))
        .args(["-c", PYTHON])
        .arg(format!("https://{}/v1/models", bench.authority()))
        .arg(format!("Bearer {PLACEHOLDER}"))
        .output()
        .await
        .expect("python3 is installed");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hello", "{said}");
    let seen = bench.destination.seen();
    assert_eq!(seen[0].headers["authorization"], format!("Bearer {CANARY}"));
}
