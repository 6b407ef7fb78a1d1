//! The server over real sockets: routes, behaviours, endings, both protocols.
//!
//! HTTP/1.1 is spoken by hand, so that chunk borders and missing terminators are seen as they are on the wire.

#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on stops where it is"
)]

use std::io::Read as _;
use std::time::Duration;

use bytes::Bytes;
use farrier_sim::{Bearer, Behaviour, Entry, Limits, Options, Outcome, Persona, Sim};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Longer than anything here takes, short enough to fail a hanging test.
const PATIENCE: Duration = Duration::from_secs(10);

async fn start(options: Options) -> Sim {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    Sim::start(listener, Persona::named("kimi-k2.6").unwrap(), options).unwrap()
}

fn ask(stream: bool) -> Value {
    let exec = json!({"type": "function", "function": {"name": "exec", "parameters": {
        "type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"],
    }}});
    json!({
        "model": "kimi-k2.6", "stream": stream, "tools": [exec],
        "messages": [{"role": "user", "content": "check the host"}],
    })
}

/// A response as it came.
struct Reply {
    head: String,
    /// Data of each HTTP chunk; one element for a body with a length.
    chunks: Vec<Vec<u8>>,
    /// Whether the body had its end: the last chunk, or its whole length.
    whole: bool,
}

impl Reply {
    fn status(&self) -> u16 {
        self.head[9..12].parse().unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    fn bytes(&self) -> Vec<u8> {
        self.chunks.concat()
    }

    fn text(&self) -> String {
        String::from_utf8(self.bytes()).unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes()).unwrap()
    }
}

async fn send(
    sim: &Sim,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> TcpStream {
    let mut socket = TcpStream::connect(sim.addr()).await.unwrap();
    let headers: String = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: sim\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.write_all(body).await.unwrap();
    socket
}

async fn receive(mut socket: TcpStream) -> Reply {
    let mut bytes = Vec::new();
    // A reset is one of the endings tested: what came before it counts.
    let _reset = timeout(PATIENCE, socket.read_to_end(&mut bytes))
        .await
        .expect("an ending in time");
    let at = bytes
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .expect("a head");
    let head = String::from_utf8(bytes[..at].to_vec()).unwrap();
    let mut reply = Reply {
        head,
        chunks: Vec::new(),
        whole: false,
    };
    let mut rest = &bytes[at + 4..];
    if let Some(length) = reply.header("content-length") {
        reply.whole = rest.len() == length.parse::<usize>().unwrap();
        reply.chunks.push(rest.to_vec());
        return reply;
    }
    while let Some(end) = rest.windows(2).position(|two| two == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            reply.whole = true;
            break;
        }
        let data = &rest[end + 2..];
        reply.chunks.push(data[..size.min(data.len())].to_vec());
        rest = data.get(size + 2..).unwrap_or_default();
    }
    reply
}

async fn chat(sim: &Sim, behaviour: &str, body: &Value) -> Reply {
    let headers = [("x-sim-behaviour", behaviour)];
    let body = body.to_string();
    receive(
        send(
            sim,
            "POST",
            "/v1/chat/completions",
            &headers,
            body.as_bytes(),
        )
        .await,
    )
    .await
}

async fn outcome(sim: &Sim, is: impl Fn(&Outcome) -> bool) -> Entry {
    let log = sim.log();
    let ended = log.until(|log| log.entries().last().is_some_and(|entry| is(&entry.outcome)));
    timeout(Duration::from_secs(1), ended)
        .await
        .expect("the outcome within a second");
    log.entries().pop().unwrap()
}

#[tokio::test]
async fn json_and_streamed_answers_come_with_length_and_in_chunks() {
    let sim = start(Options::default()).await;
    let whole = chat(&sim, "{}", &ask(false)).await;
    assert_eq!((whole.status(), whole.whole), (200, true));
    assert!(whole.header("content-length").is_some());
    assert_eq!(whole.header("x-request-id"), Some("sim-1"));
    assert_eq!(
        whole.json()["choices"][0]["message"]["tool_calls"][0]["id"],
        "functions.exec:0"
    );

    let stream = chat(&sim, "{}", &ask(true)).await;
    assert_eq!(
        stream.header("content-type"),
        Some("text/event-stream; charset=utf-8")
    );
    assert!(stream.whole && stream.text().ends_with("data: [DONE]\n\n"));
    assert!(
        stream
            .chunks
            .iter()
            .all(|chunk| chunk.starts_with(b"data: ") && chunk.ends_with(b"\n\n"))
    );
    outcome(&sim, |outcome| matches!(outcome, Outcome::Done { .. })).await;
    sim.stop().await;
}

#[tokio::test]
async fn any_chunk_size_gives_the_same_bytes_on_the_wire() {
    let sim = start(Options::default()).await;
    let plain = chat(&sim, "{}", &ask(true)).await.bytes();
    for size in [1, 2, 3, 7, 64, 1000, plain.len()] {
        let cut = chat(&sim, &format!(r#"{{"chunk_bytes":{size}}}"#), &ask(true)).await;
        assert!(cut.whole);
        assert_eq!(cut.bytes(), plain);
        assert_eq!(cut.chunks.len(), plain.len().div_ceil(size));
    }
    sim.stop().await;
}

#[tokio::test]
async fn a_server_wide_behaviour_holds_unless_a_request_brings_its_own() {
    let behaviour: Behaviour = r#"{"omit_done":true}"#.parse().unwrap();
    let sim = start(Options {
        behaviour,
        ..Options::default()
    })
    .await;
    let body = ask(true).to_string();
    let open =
        receive(send(&sim, "POST", "/v1/chat/completions", &[], body.as_bytes()).await).await;
    assert!(!open.text().contains("[DONE]"));
    assert!(chat(&sim, "{}", &ask(true)).await.text().contains("[DONE]"));
    sim.stop().await;
}

#[tokio::test]
async fn a_behaviour_that_cannot_be_played_is_refused() {
    let sim = start(Options::default()).await;
    let reply = chat(&sim, r#"{"chunk_byte":1}"#, &ask(true)).await;
    assert_eq!(reply.status(), 400);
    let message = reply.json()["error"]["message"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        message.starts_with(
            "x-sim-behaviour: expected a behaviour as JSON: unknown field `chunk_byte`"
        ),
        "{message}"
    );
    sim.stop().await;
}

#[tokio::test]
async fn a_gzip_answer_unpacks_to_the_plain_one() {
    let sim = start(Options::default()).await;
    for stream in [false, true] {
        let plain = chat(&sim, "{}", &ask(stream)).await.bytes();
        let packed = chat(&sim, r#"{"gzip":true,"chunk_bytes":11}"#, &ask(stream)).await;
        assert_eq!(packed.header("content-encoding"), Some("gzip"));
        let mut unpacked = Vec::new();
        flate2::read::MultiGzDecoder::new(&packed.bytes()[..])
            .read_to_end(&mut unpacked)
            .unwrap();
        assert_eq!(unpacked, plain);
    }
    sim.stop().await;
}

#[tokio::test]
async fn status_faults_bring_their_headers() {
    let sim = start(Options::default()).await;
    let limited = chat(&sim, r#"{"fault":{"status":429}}"#, &ask(true)).await;
    assert_eq!(
        (limited.status(), limited.header("retry-after")),
        (429, Some("7"))
    );
    assert_eq!(limited.header("x-request-id"), Some("sim-1"));
    assert!(limited.json()["error"]["message"].is_string());
    assert_eq!(
        chat(&sim, r#"{"fault":{"status":500}}"#, &ask(false))
            .await
            .status(),
        500
    );
    sim.stop().await;
}

#[tokio::test]
async fn garbage_and_an_error_body_come_with_status_200() {
    let sim = start(Options::default()).await;
    let garbage = chat(&sim, r#"{"fault":"garbage"}"#, &ask(true)).await;
    assert_eq!(garbage.status(), 200);
    assert!(String::from_utf8(garbage.bytes()).is_err());
    let error = chat(&sim, r#"{"fault":"error_body"}"#, &ask(true)).await;
    assert_eq!(
        (error.status(), error.header("content-type")),
        (200, Some("application/json"))
    );
    assert!(error.json()["error"].is_object());
    sim.stop().await;
}

#[tokio::test]
async fn an_error_event_ends_a_stream_that_is_otherwise_well_formed() {
    let sim = start(Options::default()).await;
    let reply = chat(&sim, r#"{"fault":{"error_after":2}}"#, &ask(true)).await;
    assert!(reply.whole);
    assert_eq!(reply.chunks.len(), 3);
    assert!(reply.chunks[2].starts_with(b"data: {\"error\":{"));
    sim.stop().await;
}

#[tokio::test]
async fn a_broken_off_stream_lacks_its_last_chunk() {
    let sim = start(Options::default()).await;
    for (fault, chunks) in [("close_after", 2), ("close_mid_event", 3)] {
        let reply = chat(&sim, &format!(r#"{{"fault":{{"{fault}":2}}}}"#), &ask(true)).await;
        assert_eq!(
            (reply.status(), reply.chunks.len(), reply.whole),
            (200, chunks, false)
        );
        assert_eq!(reply.text().ends_with("\n\n"), fault == "close_after");
        outcome(&sim, |outcome| matches!(outcome, Outcome::Aborted { .. })).await;
    }
    let at_once = chat(&sim, r#"{"fault":{"close_after":0}}"#, &ask(true)).await;
    assert_eq!(
        (at_once.status(), at_once.chunks.len(), at_once.whole),
        (200, 0, false)
    );
    sim.stop().await;
}

#[tokio::test]
async fn a_huge_event_arrives_whole() {
    let sim = start(Options::default()).await;
    let reply = chat(&sim, r#"{"first_event_bytes":2097152}"#, &ask(true)).await;
    assert!(reply.whole && reply.chunks[0].len() > 2_097_152);
    sim.stop().await;
}

#[tokio::test]
async fn a_stall_lasts_until_it_is_released() {
    let sim = start(Options::default()).await;
    let body = ask(true).to_string();
    let headers = [("x-sim-behaviour", r#"{"fault":{"stall_after":1}}"#)];
    let mut socket = send(
        &sim,
        "POST",
        "/v1/chat/completions",
        &headers,
        body.as_bytes(),
    )
    .await;
    let mut seen = Vec::new();
    while !seen.ends_with(b"\n\n\r\n") {
        assert_ne!(socket.read_buf(&mut seen).await.unwrap(), 0);
    }
    let entry = outcome(&sim, |outcome| *outcome == Outcome::Speaking).await;
    assert_eq!(entry.verdict["kind"], "call");

    let released = receive(send(&sim, "POST", "/sim/release", &[], b"").await).await;
    assert_eq!(released.status(), 200);
    timeout(PATIENCE, socket.read_to_end(&mut seen))
        .await
        .unwrap()
        .unwrap();
    assert!(seen.ends_with(b"data: [DONE]\n\n\r\n0\r\n\r\n"));
    outcome(&sim, |outcome| matches!(outcome, Outcome::Done { .. })).await;
    sim.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed_within_a_second() {
    let sim = start(Options::default()).await;
    let behaviours = [
        r#"{"fault":{"stall_after":1}}"#,
        r#"{"fault":"never"}"#,
        r#"{"delay_ms":60000}"#,
    ];
    for (before, behaviour) in behaviours.into_iter().enumerate() {
        let body = ask(true).to_string();
        let headers = [("x-sim-behaviour", behaviour)];
        let socket = send(
            &sim,
            "POST",
            "/v1/chat/completions",
            &headers,
            body.as_bytes(),
        )
        .await;
        let log = sim.log();
        timeout(
            PATIENCE,
            log.until(|log| log.requests() > before as u64 && log.entries().len() > before),
        )
        .await
        .unwrap();
        drop(socket);
        let entry = outcome(&sim, |outcome| matches!(outcome, Outcome::Cancelled { .. })).await;
        assert_eq!(entry.seq, before as u64 + 1);
        assert_eq!(sim.log().cancelled(), before as u64 + 1);
    }
    let told = receive(send(&sim, "GET", "/sim/log", &[], b"").await)
        .await
        .json();
    assert_eq!(told["cancelled"], 3);
    let at_ms = told["entries"][0]["outcome"]["at_ms"].as_u64().unwrap();
    assert!(at_ms <= told["now_ms"].as_u64().unwrap());
    sim.stop().await;
}

#[tokio::test]
async fn an_answer_that_never_comes_comes_when_released() {
    let sim = start(Options::default()).await;
    let body = ask(false).to_string();
    let headers = [("x-sim-behaviour", r#"{"fault":"never"}"#)];
    let socket = send(
        &sim,
        "POST",
        "/v1/chat/completions",
        &headers,
        body.as_bytes(),
    )
    .await;
    outcome(&sim, |outcome| *outcome == Outcome::Speaking).await;
    sim.release();
    assert_eq!(
        receive(socket).await.json()["choices"][0]["finish_reason"],
        "tool_calls"
    );
    sim.stop().await;
}

#[tokio::test]
async fn stopping_breaks_off_what_stalls_and_frees_the_port() {
    let sim = start(Options::default()).await;
    let body = ask(true).to_string();
    let headers = [("x-sim-behaviour", r#"{"fault":{"stall_after":1}}"#)];
    let socket = send(
        &sim,
        "POST",
        "/v1/chat/completions",
        &headers,
        body.as_bytes(),
    )
    .await;
    outcome(&sim, |outcome| *outcome == Outcome::Speaking).await;
    let (log, address) = (sim.log(), sim.addr());
    timeout(PATIENCE, sim.stop()).await.unwrap();
    assert!(!receive(socket).await.whole);
    assert!(matches!(log.entries()[0].outcome, Outcome::Aborted { .. }));
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn patience_ends_a_stall_by_itself() {
    let limits = Limits {
        max_wait: Duration::from_millis(50),
        ..Limits::default()
    };
    let sim = start(Options {
        limits,
        ..Options::default()
    })
    .await;
    let stalled = chat(&sim, r#"{"fault":{"stall_after":1}}"#, &ask(true)).await;
    assert_eq!((stalled.chunks.len(), stalled.whole), (1, false));
    assert_eq!(
        chat(&sim, r#"{"fault":"never"}"#, &ask(true))
            .await
            .status(),
        503
    );
    sim.stop().await;
}

#[tokio::test]
async fn a_wrong_key_is_refused_and_never_echoed() {
    let bearer = Some(Bearer::new("sk-right"));
    let sim = start(Options {
        bearer,
        ..Options::default()
    })
    .await;
    let body = ask(false).to_string();
    for (key, status) in [("Bearer sk-wrong", 401), ("Bearer sk-right", 200)] {
        for (method, path) in [("POST", "/v1/chat/completions"), ("GET", "/v1/models")] {
            let headers = [("authorization", key)];
            let reply = receive(send(&sim, method, path, &headers, body.as_bytes()).await).await;
            assert_eq!(reply.status(), status, "{path}");
            assert!(!reply.text().contains("sk-"));
        }
    }
    assert!(!sim.log().to_json().to_string().contains("sk-"));
    assert_eq!(sim.log().entries()[0].verdict["status"], 401);
    sim.stop().await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let limits = Limits {
        max_body_bytes: 64,
        ..Limits::default()
    };
    let sim = start(Options {
        limits,
        ..Options::default()
    })
    .await;
    let reply = chat(&sim, "{}", &ask(false)).await;
    assert_eq!(reply.status(), 413);
    assert_eq!(
        reply.json()["error"]["message"],
        "the body is larger than 64 bytes"
    );
    sim.stop().await;
}

#[tokio::test]
async fn models_are_listed_and_everything_else_is_404() {
    let sim = start(Options::default()).await;
    let models = receive(send(&sim, "GET", "/v1/models", &[], b"").await)
        .await
        .json();
    assert_eq!(models["data"][0]["id"], "kimi-k2.6");
    for (method, path) in [
        ("GET", "/api/tags"),
        ("HEAD", "/"),
        ("GET", "/v1/chat/completions"),
        ("POST", "/v1/messages"),
    ] {
        let reply = receive(send(&sim, method, path, &[], b"").await).await;
        assert_eq!(reply.status(), 404, "{path}");
        if method != "HEAD" {
            assert_eq!(reply.json()["error"]["type"], "resource_not_found_error");
        }
    }
    sim.stop().await;
}

#[tokio::test]
async fn the_log_is_a_bounded_ring() {
    let limits = Limits {
        log_entries: 2,
        ..Limits::default()
    };
    let sim = start(Options {
        limits,
        ..Options::default()
    })
    .await;
    for _ in 0..5 {
        chat(&sim, "{}", &ask(false)).await;
    }
    let told = receive(send(&sim, "GET", "/sim/log", &[], b"").await)
        .await
        .json();
    assert_eq!(
        (&told["requests"], &told["dropped"]),
        (&json!(5), &json!(3))
    );
    assert_eq!(told["entries"][0]["seq"], 4);
    assert_eq!(told["persona"], "kimi-k2.6");
    sim.stop().await;
}

#[tokio::test]
async fn rpl_16_an_honest_client_finishes_and_a_forgetful_one_gets_the_400() {
    let sim = start(Options::default()).await;
    for forgetful in [false, true] {
        let mut body = ask(false);
        let mut last = Value::Null;
        for _round in 0..4 {
            let reply = chat(&sim, "{}", &body).await;
            last = reply.json();
            let Some(message) = last["choices"][0].get("message") else {
                break;
            };
            let mut message = message.clone();
            if forgetful {
                message.as_object_mut().unwrap().remove("reasoning_content");
            }
            let calls = message["tool_calls"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let messages = body["messages"].as_array_mut().unwrap();
            messages.push(message);
            messages.extend(
                calls.iter().map(
                    |call| json!({"role": "tool", "tool_call_id": call["id"], "content": "x"}),
                ),
            );
        }
        if forgetful {
            assert_eq!(
                last["error"]["message"],
                "thinking is enabled but reasoning_content is missing in assistant tool call message at index 1"
            );
        } else {
            let text = last["choices"][0]["message"]["content"].as_str().unwrap();
            assert!(text.starts_with("FINAL answer of turn 1"), "{text}");
        }
    }
    let entries = serde_json::to_value(sim.log().entries()).unwrap();
    assert_eq!(entries[3]["verdict"]["kind"], "finish");
    assert_eq!(entries[3]["heard"]["assistant"][2]["reasoning"], "ok");
    assert_eq!(entries[5]["verdict"]["status"], 400);
    assert_eq!(entries[5]["heard"]["assistant"][0]["reasoning"], "absent");
    sim.stop().await;
}

#[tokio::test]
async fn http2_streams_break_off_and_notice_leavers_too() {
    let sim = start(Options::default()).await;
    let socket = TcpStream::connect(sim.addr()).await.unwrap();
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket))
            .await
            .unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(connection);
    let request = |behaviour: &str| {
        hyper::Request::post("http://sim/v1/chat/completions")
            .header("x-sim-behaviour", behaviour)
            .body(Full::new(Bytes::from(ask(true).to_string())))
            .unwrap()
    };

    let mut body = client
        .send_request(request("{}"))
        .await
        .unwrap()
        .into_body();
    let mut text = Vec::new();
    while let Some(frame) = body.frame().await {
        text.extend_from_slice(frame.unwrap().data_ref().unwrap());
    }
    assert!(text.ends_with(b"data: [DONE]\n\n"));
    assert_eq!(sim.log().entries()[0].protocol, "HTTP/2.0");

    let broken = client
        .send_request(request(r#"{"fault":{"close_after":1}}"#))
        .await
        .unwrap();
    let mut body = broken.into_body();
    body.frame().await.unwrap().unwrap();
    assert!(body.frame().await.unwrap().is_err());

    let stalled = client
        .send_request(request(r#"{"fault":{"stall_after":1}}"#))
        .await
        .unwrap();
    drop(stalled);
    outcome(&sim, |outcome| matches!(outcome, Outcome::Cancelled { .. })).await;
    sim.stop().await;
}
