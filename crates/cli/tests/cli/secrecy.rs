//! A key is planted where keys belong, and looked for everywhere else.

use farrier_testkit::{RawClient, ScriptedUpstream};
use rustix::process::Signal;
use serde_json::json;

use crate::home::Home;
use crate::up::configuration;

const CANARY: &str = "canary";

#[tokio::test(flavor = "multi_thread")]
async fn keys_reach_the_provider_and_no_log_file_or_answer() {
    let home = Home::new()
        .with("PERSONA_KEY", "sk-canary-upstream")
        .with("CLIENT_KEY", "sk-canary-client")
        .with("FARRIER_LOG", "trace");
    let upstream = ScriptedUpstream::bind().await;
    let client = "[[client]]\nname = \"harness\"\nkey = { env = \"CLIENT_KEY\" }\n";
    home.write(
        "farrier.toml",
        &format!("{}{client}", configuration(&upstream.base_url())),
    );
    let mut up = home.start(&["up", "--trace-dir", "traces", "--trace-text", "keep"]);
    let mut caller = RawClient::connect(up.listening()).await;

    let body = json!({"model": "moonshotai/kimi-k2.6", "messages": [{"role": "user", "content": "hello"}]});
    let headers = [("authorization", "Bearer sk-canary-client")];
    caller
        .request("POST /v1/chat/completions", &headers, body.to_string())
        .await;
    let (mut peer, request) = upstream.recv().await;
    assert_eq!(
        request.headers.first("authorization"),
        Some("Bearer sk-canary-upstream")
    );
    peer.reply(
        "401 Unauthorized\r\ncontent-type: application/json",
        r#"{"error":{"message":"no"}}"#,
    )
    .await;
    let refused = caller.response().await;
    assert_eq!(refused.status, 401);
    caller
        .request(
            "POST /v1/chat/completions",
            &[("x-api-key", "sk-canary-wrong")],
            body.to_string(),
        )
        .await;
    let unknown = caller.response().await;
    assert_eq!(unknown.status, 401);

    up.signal(Signal::TERM);
    let said = up.ended();
    assert_eq!(said.code, Some(0));
    for (what, text) in [
        ("the log", said.shown()),
        ("an answer", refused.text()),
        ("another answer", unknown.text()),
    ] {
        assert!(!text.contains(CANARY), "{what} shows a key:\n{text}");
    }
    let files = home.files();
    assert!(
        files.iter().any(|(path, _)| path.ends_with("case.toml")),
        "{files:#?}"
    );
    assert!(files.iter().any(|(path, _)| path.ends_with("ledger.db")));
    for (path, content) in files {
        let found = content
            .windows(CANARY.len())
            .any(|window| window == CANARY.as_bytes());
        assert!(!found, "{} holds a key", path.display());
    }
}

#[test]
fn a_key_in_the_configuration_is_refused_by_check_and_up_without_being_shown() {
    let home = Home::new();
    let text = configuration("http://127.0.0.1:1/v1")
        .replace("{ env = \"PERSONA_KEY\" }", "\"sk-canary\"");
    home.write("farrier.toml", &text);
    for command in [
        &["check"][..],
        &["check", "--json"],
        &["up"],
        &["up", "--log", "json"],
    ] {
        let said = home.run(command);
        assert_eq!(said.code, Some(1), "{command:?}");
        let shown = said.shown();
        assert!(shown.contains("expected a reference"), "{shown}");
        assert!(!shown.contains(CANARY), "{shown}");
    }
}
