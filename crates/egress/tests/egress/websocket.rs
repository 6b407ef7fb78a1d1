//! WebSockets through the proxy.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{Bench, CANARY, HOST, PLACEHOLDER, Setting};

const TALKS: &str = r#"
version: 1
network_policies:
  chat:
    endpoints:
      - { host: api.example.com, port: PORT, protocol: websocket, access: ACCESS, allowed_ips: [127.0.0.0/8],
          websocket_credential_rewrite: true }
"#;
const MASK: [u8; 4] = [9, 8, 7, 6];

fn text(payload: &str) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap();
    let mut frame = vec![0x81, 0x80 | 126];
    frame.extend(length.to_be_bytes());
    frame.extend(MASK);
    frame.extend(
        payload
            .bytes()
            .zip(MASK.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    frame
}

/// Opens a WebSocket, says something, and gives the bytes that came back.
async fn said(policy: &'static str, payload: &str) -> (Bench, Vec<u8>) {
    let bench = Bench::with(Setting {
        policy,
        ..Setting::default()
    })
    .await;
    let mut stream = bench.tls(&bench.own_ca(), HOST, b"http/1.1").await.unwrap();
    let request = format!(
        "GET /v1/link HTTP/1.1\r\nhost: {}\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-extensions: permessage-deflate\r\n\
         authorization: Bearer {PLACEHOLDER}\r\n\r\n",
        bench.authority()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(
        head.starts_with(b"HTTP/1.1 101"),
        "{}",
        String::from_utf8_lossy(&head)
    );
    stream.write_all(&text(payload)).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut back = Vec::new();
    // The end of TLS may come without a goodbye.
    let _end = stream.read_to_end(&mut back).await;
    (bench, back)
}

#[tokio::test]
async fn what_a_client_says_is_sent_with_its_key_and_the_answer_comes_as_it_is() {
    let policy: &'static str = Box::leak(TALKS.replace("ACCESS", "full").into_boxed_str());
    let message = format!(r#"{{"op":2,"d":{{"token":"{PLACEHOLDER}","text":"{PLACEHOLDER}"}}}}"#);
    let (bench, back) = said(policy, &message).await;
    // The destination gives back what it got, mask and all.
    let expected = message.replacen(PLACEHOLDER, CANARY, 1);
    let payload: Vec<u8> = back[back.len() - expected.len()..]
        .iter()
        .zip(MASK.iter().cycle())
        .map(|(byte, mask)| byte ^ mask)
        .collect();
    assert_eq!(String::from_utf8_lossy(&payload), expected);
    let seen = bench.destination.seen();
    assert_eq!(seen[0].headers["authorization"], format!("Bearer {CANARY}"));
    assert!(!seen[0].headers.contains_key("sec-websocket-extensions"));
    let lines = bench.lines(2).await;
    let line = lines.iter().find(|line| line.kind == "websocket").unwrap();
    assert_eq!(line.credentials, ["model/OPENAI_API_KEY"]);
    assert!(!bench.files().contains("canary"));
}

#[tokio::test]
async fn a_client_that_may_only_listen_is_closed_when_it_speaks() {
    let policy: &'static str = Box::leak(TALKS.replace("ACCESS", "read-only").into_boxed_str());
    let (bench, back) = said(policy, "{}").await;
    assert_eq!(back, [0x88, 2, 0x03, 0xf0]);
    let lines = bench.lines(2).await;
    let line = lines.iter().find(|line| line.kind == "websocket").unwrap();
    assert_eq!(line.code.as_deref(), Some("policy_denied"));
}

#[tokio::test]
async fn an_unknown_key_in_a_message_ends_the_websocket() {
    let policy: &'static str = Box::leak(TALKS.replace("ACCESS", "full").into_boxed_str());
    let (bench, back) = said(policy, r#"{"token":"openshell:resolve:env:OTHER"}"#).await;
    assert_eq!(back, [0x88, 2, 0x03, 0xf0]);
    let lines = bench.lines(2).await;
    assert!(
        lines
            .iter()
            .any(|line| line.code.as_deref() == Some("credential_unavailable"))
    );
}
