//! With an empty plan everything passes unchanged.

use farrier_gateway::config::{PassThrough, Retry};
use farrier_testkit::ScriptedUpstream;
use http::HeaderValue;

use crate::support::{KIMI, PLAIN, Setup, ask, error, event};

#[tokio::test]
async fn request_body_and_header_fields_reach_the_provider_unchanged() {
    let upstream = ScriptedUpstream::bind().await;
    let mut setup = Setup::on(&upstream);
    setup.config.providers[0].headers = vec![(
        http::HeaderName::from_static("x-team"),
        HeaderValue::from_static("red"),
    )];
    let gateway = setup.run().await;
    let body =
        "{ \"model\":\"plain\", \"n\": 1.0e0, \"messages\":[],\"n\\u0061\":12345678901234567890 }";
    let mut client = gateway.client().await;
    let headers = [
        ("content-type", "application/json"),
        ("user-agent", "harness/1"),
        ("x-stainless-lang", "js"),
        ("accept-encoding", "gzip"),
        ("authorization", "Bearer the-callers"),
        ("x-api-key", "the-callers"),
        ("cookie", "session=the-callers"),
        ("x-farrier-agent", "openclaw"),
        ("connection", "keep-alive, x-hop"),
        ("x-hop", "1"),
        ("te", "trailers"),
        ("keep-alive", "timeout=5"),
    ];
    client
        .request("POST /v1/chat/completions", &headers, body)
        .await;
    let (mut peer, request) = upstream.recv().await;
    assert_eq!(request.line, "POST /v1/chat/completions HTTP/1.1");
    assert_eq!(request.text(), body);
    let mut names: Vec<_> = request
        .headers
        .0
        .iter()
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    names.sort();
    let expected = [
        "accept-encoding: gzip".to_owned(),
        format!("content-length: {}", body.len()),
        "content-type: application/json".to_owned(),
        format!("host: {}", upstream.addr()),
        "user-agent: harness/1".to_owned(),
        "x-stainless-lang: js".to_owned(),
        "x-team: red".to_owned(),
    ];
    assert_eq!(names, expected);
    peer.reply(
        "200 OK\r\ncontent-type: application/json\r\nx-request-id: r1",
        "{ \"odd\" : 1.0 }",
    )
    .await;
    let response = client.response().await;
    assert_eq!(
        (response.status, response.text()),
        (200, "{ \"odd\" : 1.0 }".to_owned())
    );
    assert_eq!(response.headers.first("x-request-id"), Some("r1"));
    assert_eq!(response.headers.first("x-farrier-fault"), None);
}

#[tokio::test]
async fn a_provider_s_refusal_passes_with_its_status_body_and_header_fields() {
    let upstream = ScriptedUpstream::bind().await;
    let mut setup = Setup::on(&upstream);
    setup.config.providers[0].care.retry = Retry::never();
    let gateway = setup.run().await;
    let cases = [
        (
            "429 Too Many Requests\r\nretry-after: 7\r\nx-request-id: r2",
            429,
            "{\"error\":{\"message\":\"slow down\"}}",
        ),
        (
            "400 Bad Request\r\nx-request-id: r3",
            400,
            "thinking is enabled but reasoning_content is missing",
        ),
        ("500 Oops\r\nx-request-id: r4", 500, ""),
        (
            "307 Temporary Redirect\r\nlocation: http://127.0.0.1:1/elsewhere\r\nx-request-id: r5",
            307,
            "moved",
        ),
    ];
    for (model, read) in [(PLAIN, false), (KIMI, true)] {
        for (head, status, body) in cases {
            let mut client = gateway.client().await;
            client.post("/v1/chat/completions", ask(model)).await;
            let (mut peer, request) = upstream.recv().await;
            assert_eq!(
                request.headers.first("accept-encoding"),
                read.then_some("identity")
            );
            peer.reply(&format!("{head}\r\nconnection: close"), body)
                .await;
            let response = client.response().await;
            assert_eq!((response.status, response.text().as_str()), (status, body));
            for line in head.split("\r\n").skip(1) {
                let (name, value) = line.split_once(": ").unwrap();
                assert_eq!(response.headers.first(name), Some(value));
            }
        }
    }
}

#[tokio::test]
async fn stream_bytes_pass_as_they_come_even_if_they_are_no_events() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = Setup::on(&upstream).run().await;
    let mut client = gateway.client().await;
    client.post("/v1/chat/completions", ask(PLAIN)).await;
    let (mut peer, _) = upstream.recv().await;
    peer.start_stream().await;
    assert_eq!(
        client.head().await.headers.first("content-type"),
        Some("text/event-stream")
    );
    for piece in [
        ": ping\n\n",
        "data: {\"a",
        "\":1}\r\n\r\nnonsense",
        "\0\u{feff}",
    ] {
        peer.send_chunk(piece).await;
        assert_eq!(
            client.chunk().await.unwrap(),
            piece.as_bytes(),
            "forwarded before the next is sent"
        );
    }
    peer.end_chunks().await;
    assert_eq!(client.chunk().await.unwrap(), b"");
}

#[tokio::test]
async fn connections_are_kept_on_both_sides() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = Setup::on(&upstream).run().await;
    let mut client = gateway.client().await;
    let mut peer = None;
    for round in 0..3 {
        client.post("/v1/chat/completions", ask(PLAIN)).await;
        let mut kept = match peer.take() {
            None => upstream.accept().await,
            Some(kept) => kept,
        };
        kept.recv().await;
        kept.reply("200 OK", format!("round {round}")).await;
        assert_eq!(client.response().await.text(), format!("round {round}"));
        peer = Some(kept);
    }
}

#[tokio::test]
async fn a_200_that_is_an_error_passes_through_a_plan_too() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = Setup::on(&upstream).run().await;
    let said = "{\"error\": {\"message\": \"quota\", \"code\": 1.0}}";
    for kind in [
        "application/json",
        "application/json; charset=utf-8",
        "text/html",
        "application/problem+json",
    ] {
        let mut client = gateway.client().await;
        client.post("/v1/chat/completions", ask(KIMI)).await;
        let (mut peer, _) = upstream.recv().await;
        peer.reply(
            &format!("200 OK\r\ncontent-type: {kind}\r\nconnection: close"),
            said,
        )
        .await;
        let response = client.response().await;
        assert_eq!((response.status, response.text().as_str()), (200, said));
        assert_eq!(response.headers.first("content-type"), Some(kind));
    }
}

#[tokio::test]
async fn events_leave_a_plan_as_the_bytes_they_came_in_when_no_pass_changes_them() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = Setup::on(&upstream).run().await;
    let mut client = gateway.client().await;
    client.post("/v1/chat/completions", ask(KIMI)).await;
    let (mut peer, request) = upstream.recv().await;
    assert_eq!(
        request.text(),
        ask("kimi-k2.6"),
        "only the model's name differs"
    );
    peer.start_stream().await;
    let first = format!(": keep-alive\n\n{}", event("{\"content\":\"one \"}", None));
    let last = event("{\"content\":\"two\"}", Some("stop")) + "data: [DONE]\n\n";
    peer.send_chunk(&first).await;
    client.head().await;
    let mut got = Vec::new();
    while got.len() < first.len() {
        got.extend(client.chunk().await.unwrap());
    }
    peer.send_chunk(&last).await;
    peer.end_chunks().await;
    loop {
        match client.chunk().await.unwrap() {
            chunk if chunk.is_empty() => break,
            chunk => got.extend(chunk),
        }
    }
    assert_eq!(String::from_utf8(got).unwrap(), first + &last);
}

#[tokio::test]
async fn other_paths_below_v1_go_to_the_provider_that_the_model_names() {
    let upstream = ScriptedUpstream::bind().await;
    let other = ScriptedUpstream::bind().await;
    let mut setup = Setup::on(&upstream);
    let mut provider = farrier_gateway::config::Provider::new("other", other.base_url());
    provider.base_url.push('/');
    setup.config.providers.push(provider);
    let gateway = setup.run().await;

    let mut client = gateway.client().await;
    let body = "{\"input\": [1.0], \"model\" : \"moonshotai/kimi-k2.6\", \"x\":1}";
    client.post("/v1/embeddings?dry=1", body).await;
    let (mut peer, request) = upstream.recv().await;
    assert_eq!(request.line, "POST /v1/embeddings?dry=1 HTTP/1.1");
    assert_eq!(
        request.text(),
        body.replace("moonshotai/kimi-k2.6", "kimi-k2.6")
    );
    peer.reply("200 OK", "vectors").await;
    assert_eq!(client.response().await.text(), "vectors");

    client.post("/v1/embeddings", "{\"input\":[]}").await;
    let response = client.response().await;
    let (kind, code, message) = error(&response.text());
    assert_eq!(
        (response.status, kind.as_str(), code.as_str()),
        (404, "invalid_request_error", "provider_not_found")
    );
    assert!(message.contains("default_provider"), "{message}");
}

#[tokio::test]
async fn a_request_that_names_no_model_goes_to_the_default_provider() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = Setup::on(&upstream).run().await;
    let mut client = gateway.client().await;
    client.post("/v1/moderations", "{\"input\":\"x\"}").await;
    let (mut peer, request) = upstream.recv().await;
    assert_eq!(request.line, "POST /v1/moderations HTTP/1.1");
    peer.reply("200 OK", "fine").await;
    assert_eq!(client.response().await.text(), "fine");
}

#[tokio::test]
async fn no_path_climbs_out_of_v1_with_the_credential() {
    let upstream = ScriptedUpstream::bind().await;
    let mut setup = Setup::on(&upstream);
    setup.config.providers[0].pass_through = PassThrough::All;
    let gateway = setup.run().await;
    let mut client = gateway.client().await;
    for path in [
        "/v1/../admin",
        "/v1/%2e%2E/admin",
        "/v1/files/./x",
        "/v1/..%2f..%2fadmin",
        "/v1/x%2f..%2f..%2fadmin",
        "/v1/..%5c..%5cadmin",
        "/v1/..;/admin",
        "/v1/%252e%252e/admin",
    ] {
        client.get(path).await;
        let response = client.response().await;
        assert_eq!(response.status, 404, "{path}");
        assert_eq!(error(&response.text()).1, "path_not_found", "{path}");
    }
}

#[tokio::test]
async fn a_chat_completion_takes_its_plan_however_its_path_is_written() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = Setup::on(&upstream).run().await;
    for path in ["/v1//chat/completions", "/v1/chat/completions/"] {
        let mut client = gateway.client().await;
        client.post(path, ask(KIMI)).await;
        let (mut peer, request) = upstream.recv().await;
        assert_eq!(request.line, "POST /v1/chat/completions HTTP/1.1");
        // Only a reply that a plan reads is asked for in plain bytes.
        assert_eq!(request.headers.first("accept-encoding"), Some("identity"));
        peer.reply("200 OK\r\nconnection: close", "").await;
        assert_eq!(client.response().await.status, 200);
    }
}

#[tokio::test]
async fn the_provider_s_account_is_open_only_when_its_configuration_says_so() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = Setup::on(&upstream).run().await;
    let mut client = gateway.client().await;
    for line in [
        "DELETE /v1/files/f1",
        "GET /v1/files",
        "POST /v1/fine_tuning/jobs",
        "GET /v1/responses/r1",
        "DELETE /v1/responses",
        "PUT /v1/embeddings",
        "GET /v1/chat/completions/c1",
    ] {
        client.request(line, &[], "").await;
        let response = client.response().await;
        let (kind, code, message) = error(&response.text());
        assert_eq!(
            (response.status, kind.as_str(), code.as_str()),
            (403, "permission_error", "path_not_allowed"),
            "{line}"
        );
        assert!(
            message.contains("pass_through = \"all\" for provider \"scripted\""),
            "{message}"
        );
    }

    let mut setup = Setup::on(&upstream);
    setup.config.providers[0].pass_through = PassThrough::All;
    let gateway = setup.run().await;
    let mut client = gateway.client().await;
    client.request("DELETE /v1//files/f%31/?x=1", &[], "").await;
    let (mut peer, request) = upstream.recv().await;
    assert_eq!(request.line, "DELETE /v1/files/f%31?x=1 HTTP/1.1");
    peer.reply("200 OK", "gone").await;
    assert_eq!(client.response().await.text(), "gone");
}

#[tokio::test]
async fn a_json_body_whose_model_cannot_be_told_goes_nowhere() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = Setup::on(&upstream).run().await;
    let json = ("content-type", "application/json; charset=utf-8");
    let untyped = ("accept", "*/*");
    let cases = [
        (
            json,
            &br#"{"model":"plain","model":"other"}"#[..],
            "body_has_duplicate_key",
        ),
        (
            untyped,
            br#" {"model":"plain","model":"other"}"#,
            "body_has_duplicate_key",
        ),
        (json, br#"{"model":"plain""#, "body_truncated"),
        (json, b"model=plain", "body_not_json"),
        (untyped, b"{'model':'plain'}", "body_not_json"),
        (
            untyped,
            b"\xef\xbb\xbf{\"model\":\"plain\"}",
            "body_not_json",
        ),
        (
            json,
            b"{\"model\":\"plain\",\"x\":\"\xff\"}",
            "body_not_utf8",
        ),
        (json, br#"{"model":["plain"]}"#, "model_missing"),
    ];
    for (header, body, expected) in cases {
        let mut client = gateway.client().await;
        client.request("POST /v1/embeddings", &[header], body).await;
        let response = client.response().await;
        let (_, code, message) = error(&response.text());
        let body = String::from_utf8_lossy(body);
        assert_eq!(
            (response.status, code.as_str()),
            (400, expected),
            "{body}: {message}"
        );
    }
    // Without a body there is no JSON to be wrong.
    let mut client = gateway.client().await;
    client.request("GET /v1/embeddings", &[json], "").await;
    let (mut peer, _) = upstream.recv().await;
    peer.reply("405 Method Not Allowed", "").await;
    assert_eq!(client.response().await.status, 405);
}

#[tokio::test]
async fn a_provider_cannot_speak_in_our_name() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = Setup::on(&upstream).run().await;
    let forged =
        "x-farrier-fault: client\r\nX-Farrier-Other: 1\r\nx-request-id: r1\r\nretry-after: 7";
    for (model, head) in [
        (PLAIN, "500 Oops"),
        (KIMI, "500 Oops"),
        (KIMI, "200 OK\r\ncontent-type: application/json"),
        (KIMI, "200 OK\r\ncontent-type: text/event-stream"),
    ] {
        let mut client = gateway.client().await;
        client.post("/v1/chat/completions", ask(model)).await;
        let (mut peer, _) = upstream.recv().await;
        peer.reply(&format!("{head}\r\n{forged}\r\nconnection: close"), "{}")
            .await;
        let response = client.response().await;
        assert_eq!(response.headers.first("x-farrier-fault"), None, "{head}");
        assert_eq!(response.headers.first("x-farrier-other"), None, "{head}");
        assert_eq!(response.headers.first("x-request-id"), Some("r1"), "{head}");
        assert_eq!(response.headers.first("retry-after"), Some("7"), "{head}");
    }
}

#[tokio::test]
async fn models_lists_the_routes() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = Setup::on(&upstream).run().await;
    let mut client = gateway.client().await;
    client.get("/v1/models").await;
    let list = client.response().await.text();
    let kimi = "{\"id\":\"moonshotai/kimi-k2.6\",\"object\":\"model\",\"created\":0,\"owned_by\":\"scripted\"}";
    let plain = "{\"id\":\"plain\",\"object\":\"model\",\"created\":0,\"owned_by\":\"scripted\"}";
    assert_eq!(
        list,
        format!("{{\"object\":\"list\",\"data\":[{plain},{kimi}]}}")
    );
    for name in ["moonshotai/kimi-k2.6", "moonshotai%2Fkimi-k2.6"] {
        client.get(&format!("/v1/models/{name}")).await;
        assert_eq!(client.response().await.text(), kimi);
    }
    client.get("/v1/models/absent").await;
    assert_eq!(client.response().await.status, 404);
}
