//! Providers that fail, each in its own way.

use std::io::Write;
use std::time::Duration;

use farrier_gateway::config::{Provider, Retry};
use farrier_testkit::{RawResponse, ScriptedUpstream};
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};

use crate::support::{KIMI, PLAIN, Setup, ask, error, event};

fn told(response: &RawResponse) -> (u16, String, String) {
    assert_eq!(response.headers.first("x-farrier-fault"), Some("upstream"));
    let (kind, code, message) = error(&response.text());
    assert_eq!(kind, "upstream_error");
    (response.status, code, message)
}

#[tokio::test]
async fn one_that_cannot_be_reached_is_a_502_that_says_why() {
    let closed = ScriptedUpstream::bind().await;
    let (addr, base_url) = (closed.addr(), closed.base_url());
    drop(closed);
    let gateway = Setup::with(Provider::new("scripted", base_url)).run().await;
    let mut client = gateway.client().await;
    client.post("/v1/chat/completions", ask(PLAIN)).await;
    let (status, code, message) = told(&client.response().await);
    assert_eq!((status, code.as_str()), (502, "upstream_unreachable"));
    assert_eq!(
        message,
        format!(
            "provider \"scripted\" ({addr}): expected a connection, got: Connection refused (os error 111); \
             check base_url and the network"
        )
    );
    let page = gateway.metrics().await;
    assert!(
        page.contains(
            "farrier_upstream_errors_total{provider=\"scripted\",kind=\"unreachable\"} 3"
        ),
        "{page}"
    );
}

#[tokio::test]
async fn one_that_sends_garbage_is_a_502() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = Setup::on(&upstream).run().await;
    let mut client = gateway.client().await;
    client.post("/v1/chat/completions", ask(PLAIN)).await;
    let (mut peer, _) = upstream.recv().await;
    peer.send("SSH-2.0-OpenSSH_9.2\r\n\r\n").await;
    let (status, code, message) = told(&client.response().await);
    assert_eq!(
        (status, code.as_str()),
        (502, "upstream_not_http"),
        "{message}"
    );
}

#[tokio::test]
async fn one_that_speaks_no_tls_is_a_502_that_says_so() {
    let upstream = ScriptedUpstream::bind().await;
    let base_url = upstream.base_url().replace("http:", "https:");
    let mut provider = Provider::new("scripted", base_url);
    provider.care.retry = Retry::never();
    let gateway = Setup::with(provider).run().await;
    let mut client = gateway.client().await;
    client.post("/v1/chat/completions", ask(PLAIN)).await;
    let mut peer = upstream.accept().await;
    peer.send("HTTP/1.1 400 Bad Request\r\n\r\n").await;
    let (status, code, message) = told(&client.response().await);
    assert_eq!((status, code.as_str()), (502, "upstream_unreachable"));
    assert!(message.contains("InvalidContentType"), "{message}");
}

#[tokio::test]
async fn one_that_closes_before_its_head_is_a_502() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = Setup::on(&upstream).run().await;
    let mut client = gateway.client().await;
    client.post("/v1/chat/completions", ask(PLAIN)).await;
    let (peer, _) = upstream.recv().await;
    drop(peer);
    let (status, code, message) = told(&client.response().await);
    assert_eq!((status, code.as_str()), (502, "upstream_closed"));
    assert!(
        message.ends_with("expected a reply, got a closed connection; try again"),
        "{message}"
    );
}

#[tokio::test]
async fn one_that_never_answers_is_a_504_and_its_connection_is_closed() {
    let upstream = ScriptedUpstream::bind().await;
    let mut setup = Setup::on(&upstream);
    setup.config.deadlines.first_byte = Duration::from_millis(100);
    let gateway = setup.run().await;
    let mut client = gateway.client().await;
    client.post("/v1/chat/completions", ask(PLAIN)).await;
    let (mut peer, _) = upstream.recv().await;
    let (status, code, message) = told(&client.response().await);
    assert_eq!((status, code.as_str()), (504, "upstream_timeout"));
    assert!(message.contains("within 100ms"), "{message}");
    assert_eq!(peer.closed().await, b"");
}

#[tokio::test]
async fn one_that_takes_no_connection_is_a_504() {
    // Connected but never answered in the TLS handshake: the deadline covers that too.
    let upstream = ScriptedUpstream::bind().await;
    let base_url = upstream.base_url().replace("http:", "https:");
    let mut setup = Setup::with(Provider::new("scripted", base_url));
    setup.config.deadlines.connect = Duration::from_millis(100);
    let gateway = setup.run().await;
    let mut client = gateway.client().await;
    client.post("/v1/chat/completions", ask(PLAIN)).await;
    let (status, code, _) = told(&client.response().await);
    assert_eq!((status, code.as_str()), (504, "upstream_connect_timeout"));
}

#[tokio::test]
async fn one_that_falls_silent_mid_stream_ends_in_an_error_event_with_a_plan() {
    let upstream = ScriptedUpstream::bind().await;
    let mut setup = Setup::on(&upstream);
    setup.config.deadlines.silence = Duration::from_millis(100);
    let gateway = setup.run().await;
    let mut client = gateway.client().await;
    client.post("/v1/chat/completions", ask(KIMI)).await;
    let (mut peer, _) = upstream.recv().await;
    peer.start_stream().await;
    peer.send_chunk(event("{\"content\":\"one\"}", None)).await;
    let response = client.response().await;
    assert_eq!(
        (response.status, response.whole),
        (200, true),
        "the stream itself ends well"
    );
    let text = response.text();
    let last = text.trim_end().rsplit("data: ").next().unwrap();
    let (kind, code, _) = error(last);
    assert_eq!(
        (kind.as_str(), code.as_str()),
        ("upstream_error", "upstream_silent"),
        "{text}"
    );
    assert!(!text.contains("data: [DONE]"), "{text}");
    assert_eq!(peer.closed().await, b"");
}

#[tokio::test]
async fn one_that_falls_silent_mid_stream_is_cut_off_without_a_plan() {
    let upstream = ScriptedUpstream::bind().await;
    let mut setup = Setup::on(&upstream);
    setup.config.deadlines.silence = Duration::from_millis(100);
    let gateway = setup.run().await;
    let mut client = gateway.client().await;
    client.post("/v1/chat/completions", ask(PLAIN)).await;
    let (mut peer, _) = upstream.recv().await;
    peer.start_stream().await;
    peer.send_chunk("data: 1\n\n").await;
    let response = client.response().await;
    assert_eq!(
        (response.text().as_str(), response.whole),
        ("data: 1\n\n", false)
    );
    assert_eq!(peer.closed().await, b"");
    let page = gateway.metrics().await;
    assert!(page.contains("ending=\"truncated\"} 1"), "{page}");
    assert!(page.contains("kind=\"silent\"} 1"), "{page}");
}

#[tokio::test]
async fn one_that_closes_in_mid_event_ends_in_an_error_event() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = Setup::on(&upstream).run().await;
    let mut client = gateway.client().await;
    client.post("/v1/chat/completions", ask(KIMI)).await;
    let (mut peer, _) = upstream.recv().await;
    peer.start_stream().await;
    let first = event("{\"content\":\"one\"}", None);
    peer.send_chunk(format!("{first}data: {{\"choices\":[{{\"del"))
        .await;
    drop(peer);
    let response = client.response().await;
    assert!(response.whole);
    let text = response.text();
    let rest = text.strip_prefix(&first).unwrap();
    assert_eq!(
        error(rest.trim_end().strip_prefix("data: ").unwrap()).1,
        "stream_truncated"
    );
    assert!(
        gateway
            .metrics()
            .await
            .contains("status=\"200\",ending=\"truncated\"} 1")
    );
}

#[tokio::test]
async fn one_that_ends_its_stream_before_the_turn_ends_in_an_error_event() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = Setup::on(&upstream).run().await;
    let mut client = gateway.client().await;
    client.post("/v1/chat/completions", ask(KIMI)).await;
    let (mut peer, _) = upstream.recv().await;
    peer.start_stream().await;
    peer.send_chunk(event("{\"content\":\"one\"}", None)).await;
    peer.end_chunks().await;
    assert!(client.response().await.text().contains("stream_truncated"));
}

#[tokio::test]
async fn an_event_of_two_megabytes_passes_whole() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = Setup::on(&upstream).run().await;
    let mut client = gateway.client().await;
    client.post("/v1/chat/completions", ask(KIMI)).await;
    let (mut peer, _) = upstream.recv().await;
    let large = event(
        &format!("{{\"content\":\"{}\"}}", "x".repeat(2 << 20)),
        Some("stop"),
    ) + "data: [DONE]\n\n";
    let script = async {
        peer.start_stream().await;
        peer.send_chunk(&large).await;
        peer.end_chunks().await;
    };
    let (response, ()) = tokio::join!(client.response(), script);
    assert!(response.whole);
    assert!(response.text() == large, "the event was changed");
}

/// Puts a text into a content coding.
type Encode = fn(&str) -> Vec<u8>;

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn deflate(text: &str) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn a_compressed_reply_is_decoded_where_it_is_read() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = Setup::on(&upstream).run().await;
    let stream = event("{\"content\":\"one\"}", Some("stop")) + "data: [DONE]\n\n";
    let json =
        "{\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"one\"}}]}";
    let codings: [(&str, Encode); 3] = [("gzip", gzip), ("x-gzip", gzip), ("deflate", deflate)];
    for (coding, encode) in codings {
        for (kind, plain) in [
            ("text/event-stream", stream.as_str()),
            ("application/json", json),
        ] {
            let mut client = gateway.client().await;
            client.post("/v1/chat/completions", ask(KIMI)).await;
            let (mut peer, request) = upstream.recv().await;
            assert_eq!(request.headers.first("accept-encoding"), Some("identity"));
            let head = format!(
                "200 OK\r\ncontent-type: {kind}\r\ncontent-encoding: {coding}\r\nconnection: close"
            );
            peer.reply(&head, encode(plain)).await;
            let response = client.response().await;
            assert_eq!((response.status, response.text().as_str()), (200, plain));
            assert_eq!(response.headers.first("content-encoding"), None);
        }
    }
}

#[tokio::test]
async fn a_compressed_stream_is_live() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = Setup::on(&upstream).run().await;
    let mut client = gateway.client().await;
    client.post("/v1/chat/completions", ask(KIMI)).await;
    let (mut peer, _) = upstream.recv().await;
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip\r\n";
    peer.send(format!("{head}transfer-encoding: chunked\r\n\r\n"))
        .await;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    client.head().await;
    for word in ["one", "two"] {
        let event = event(&format!("{{\"content\":\"{word}\"}}"), None);
        encoder.write_all(event.as_bytes()).unwrap();
        encoder.flush().unwrap();
        peer.send_chunk(std::mem::take(encoder.get_mut())).await;
        assert_eq!(client.chunk().await.unwrap(), event.as_bytes());
    }
}

#[tokio::test]
async fn an_encoding_that_cannot_be_read_is_the_provider_s_fault() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = Setup::on(&upstream).run().await;
    for (coding, body) in [
        ("br", &b"\x0b\x02"[..]),
        ("gzip", b"not gzip"),
        ("gzip, gzip", b""),
    ] {
        let mut client = gateway.client().await;
        client.post("/v1/chat/completions", ask(KIMI)).await;
        let (mut peer, _) = upstream.recv().await;
        let head = format!(
            "200 OK\r\ncontent-type: application/json\r\ncontent-encoding: {coding}\r\nconnection: close"
        );
        peer.reply(&head, body).await;
        let (status, code, message) = told(&client.response().await);
        assert_eq!(
            (status, code.as_str()),
            (502, "upstream_encoding"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn without_a_plan_a_compressed_reply_passes_as_it_is() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = Setup::on(&upstream).run().await;
    let mut client = gateway.client().await;
    client.post("/v1/chat/completions", ask(PLAIN)).await;
    let (mut peer, _) = upstream.recv().await;
    peer.reply(
        "200 OK\r\ncontent-type: application/json\r\ncontent-encoding: br",
        b"\x0b\x02",
    )
    .await;
    let response = client.response().await;
    assert_eq!(
        (
            response.body.as_slice(),
            response.headers.first("content-encoding")
        ),
        (&b"\x0b\x02"[..], Some("br"))
    );
}

#[tokio::test]
async fn a_json_reply_that_breaks_off_or_is_too_long_is_a_502() {
    let upstream = ScriptedUpstream::bind().await;
    let mut setup = Setup::on(&upstream);
    setup.config.limits.max_reply_bytes = 1000;
    let gateway = setup.run().await;
    let json = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2000\r\n\r\n";
    for (body, expected) in [
        ("{".to_owned(), "upstream_closed"),
        ("x".repeat(1500), "upstream_reply_too_large"),
    ] {
        let mut client = gateway.client().await;
        client.post("/v1/chat/completions", ask(KIMI)).await;
        let (mut peer, _) = upstream.recv().await;
        peer.send(format!("{json}{body}")).await;
        drop(peer);
        let (status, code, message) = told(&client.response().await);
        assert_eq!((status, code.as_str()), (502, expected), "{message}");
    }
}
