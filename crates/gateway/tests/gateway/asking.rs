//! Requests that cannot be served, each with a clear error; nothing of them reaches the provider.

use std::time::Duration;

use farrier_testkit::{RawResponse, ScriptedUpstream};

use crate::support::{PLAIN, Running, Setup, ask, error};

async fn gateway() -> (ScriptedUpstream, Running) {
    let upstream = ScriptedUpstream::bind().await;
    let mut setup = Setup::on(&upstream);
    setup.config.deadlines.request_body = Duration::from_millis(200);
    let gateway = setup.run().await;
    (upstream, gateway)
}

fn told(response: &RawResponse) -> (u16, String, String) {
    assert_eq!(response.headers.first("x-farrier-fault"), Some("client"));
    assert_eq!(
        response.headers.first("content-type"),
        Some("application/json")
    );
    assert!(response.whole);
    let (_, code, message) = error(&response.text());
    (response.status, code, message)
}

#[tokio::test]
async fn a_body_that_is_no_chat_completion_request_is_refused_with_the_place() {
    let (_upstream, gateway) = gateway().await;
    let deep = format!(
        "{{\"model\":\"plain\",\"messages\":[],\"x\":{}{}}}",
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    let cases: [(&[u8], &str, &str); 8] = [
        (b"hello", "body_not_json", "byte 0"),
        (
            b"{\"model\":\"plain\",\"messages\":[",
            "body_truncated",
            "the end",
        ),
        (deep.as_bytes(), "body_too_deep", "256"),
        (
            b"{\"model\":\"plain\",\"messages\":[],\"model\":\"other\"}",
            "body_has_duplicate_key",
            "model",
        ),
        (
            b"{\"model\":\"plain\",\"messages\":[\"\xff\"]}",
            "body_not_utf8",
            "byte 30",
        ),
        (
            b"{\"model\":\"plain\",\"messages\":{}}",
            "messages_malformed",
            "messages",
        ),
        (b"{\"messages\":[]}", "model_missing", "model"),
        (b"[]", "body_not_object", "object"),
    ];
    for (body, code, place) in cases {
        let mut client = gateway.client().await;
        client.post("/v1/chat/completions", body).await;
        let (status, got, message) = told(&client.response().await);
        assert_eq!((status, got.as_str()), (400, code), "{message}");
        assert!(message.contains(place), "{message}");
    }
}

#[tokio::test]
async fn a_hundred_megabytes_are_refused_without_being_read() {
    let (_upstream, gateway) = gateway().await;
    let mut client = gateway.client().await;
    client.send("POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 104857600\r\n\r\n{").await;
    assert_eq!(client.head().await.status, 413);
    let (_, code, message) = error(&String::from_utf8(client.chunk().await.unwrap()).unwrap());
    assert_eq!(code, "body_too_large");
    assert_eq!(
        message,
        "expected a body of at most 33554432 bytes, got a longer one"
    );
}

#[tokio::test]
async fn a_client_that_sends_all_hundred_megabytes_first_reads_the_refusal_too() {
    let (_upstream, gateway) = gateway().await;
    let mut client = gateway.client().await;
    client.send("POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 104857600\r\n\r\n").await;
    let megabyte = vec![b'x'; 1 << 20];
    for _ in 0..100 {
        client.send(&megabyte).await;
    }
    assert_eq!(told(&client.response().await).0, 413);
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_told_apart_from_one_that_breaks_off() {
    let (_upstream, gateway) = gateway().await;
    let head =
        "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 100\r\n\r\n{";
    let mut slow = gateway.client().await;
    slow.send(head).await;
    let (status, code, message) = told(&slow.response().await);
    assert_eq!((status, code.as_str()), (408, "body_timeout"));
    assert_eq!(
        message,
        "expected the whole body within 200ms, got only a part"
    );

    let mut gone = gateway.client().await;
    gone.send(head).await;
    gone.half_close().await;
    let answer = String::from_utf8(gone.closed().await).unwrap();
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 400"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_compressed_body_is_refused() {
    let (_upstream, gateway) = gateway().await;
    let mut client = gateway.client().await;
    client
        .request(
            "POST /v1/chat/completions",
            &[("content-encoding", "gzip")],
            ask(PLAIN),
        )
        .await;
    let (status, code, message) = told(&client.response().await);
    assert_eq!((status, code.as_str()), (415, "body_encoded"));
    assert_eq!(
        message,
        "expected a plain request body, got content-encoding \"gzip\"; send it uncompressed"
    );
}

#[tokio::test]
async fn an_unknown_model_is_told_the_nearest_one() {
    let (_upstream, gateway) = gateway().await;
    let mut client = gateway.client().await;
    client
        .post("/v1/chat/completions", ask("moonshotai/kimi-k2.5"))
        .await;
    let (status, code, message) = told(&client.response().await);
    assert_eq!((status, code.as_str()), (404, "model_not_found"));
    assert_eq!(
        message,
        "expected a model that a route names, got \"moonshotai/kimi-k2.5\" (nearest: \"moonshotai/kimi-k2.6\"); \
         add a route for it to the gateway's configuration"
    );
}

#[tokio::test]
async fn wrong_methods_and_paths_are_told_the_right_ones() {
    let (_upstream, gateway) = gateway().await;
    let mut client = gateway.client().await;
    client.get("/v1/chat/completions").await;
    let response = client.response().await;
    assert_eq!(response.headers.first("allow"), Some("POST"));
    assert_eq!(
        told(&response).2,
        "expected method POST for /v1/chat/completions, got GET"
    );
    client.post("/metrics", "x").await;
    let response = client.response().await;
    assert_eq!(
        (response.status, response.headers.first("allow")),
        (405, Some("GET, HEAD"))
    );
    client.get("/chat/completions").await;
    let (status, code, message) = told(&client.response().await);
    assert_eq!((status, code.as_str()), (404, "path_not_found"));
    assert_eq!(
        message,
        "expected a path below /v1, got another; set the client's base URL to end in /v1"
    );
}

#[tokio::test]
async fn probes_say_whether_the_gateway_lives_and_is_ready() {
    let (_upstream, gateway) = gateway().await;
    let mut client = gateway.client().await;
    for (path, text) in [("/healthz", "ok\n"), ("/readyz", "ready\n")] {
        client
            .request(&format!("GET {path}"), &[("host", "10.0.0.7:8484")], "")
            .await;
        let response = client.response().await;
        assert_eq!((response.status, response.text().as_str()), (200, text));
    }
}

#[tokio::test]
async fn metrics_count_what_happened() {
    let (upstream, gateway) = gateway().await;
    let mut client = gateway.client().await;
    client.post("/v1/chat/completions", ask(PLAIN)).await;
    let (mut peer, _) = upstream.recv().await;
    peer.reply("200 OK\r\ncontent-type: application/json", "{}")
        .await;
    client.response().await;
    client.post("/v1/chat/completions", ask("absent")).await;
    client.response().await;
    client.get("/metrics").await;
    let response = client.response().await;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(response.headers.first("content-type"), Some(kind));
    let page = response.text();
    for line in [
        "farrier_requests_total{route=\"plain\",status=\"200\",ending=\"complete\"} 1",
        "farrier_requests_total{route=\"\",status=\"404\",ending=\"refused\"} 1",
        "farrier_request_duration_seconds_count{route=\"plain\"} 1",
        "farrier_first_byte_seconds_count{route=\"plain\"} 1",
        "farrier_requests_in_flight 0",
        "farrier_ledger_entries 0",
        "# EOF",
    ] {
        assert!(page.lines().any(|got| got == line), "no {line} in\n{page}");
    }
}
