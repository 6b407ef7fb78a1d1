//! One target after another, each with a plan of its own.

use std::time::Duration;

use farrier_gateway::config::{Fallback, Need, Provider, Retry, Route};
use farrier_testkit::{RawRequest, ScriptedPeer, ScriptedUpstream};
use serde_json::Value;
use tracing_subscriber::filter::LevelFilter;

use crate::support::{KIMI, Log, PLAIN, Running, Setup, ask, call, error, event};

/// `PLAIN` leads to `first`, then to `second` under another name, then to `third`; nobody is asked twice.
fn three(upstreams: &[ScriptedUpstream; 3]) -> Setup {
    let names = ["first", "second", "third"];
    let mut setup = Setup::on(&upstreams[0]);
    let providers = names.into_iter().zip(upstreams).map(|(name, upstream)| {
        let mut provider = Provider::new(name, upstream.base_url());
        provider.care.retry = Retry::never();
        provider
    });
    setup.config.providers = providers.collect();
    let fallback = |provider: &str, model: &str| Fallback {
        provider: provider.to_owned(),
        upstream_model: Some(model.to_owned()),
    };
    setup.config.routes = vec![Route {
        fallbacks: vec![fallback("second", "other"), fallback("third", "another")],
        ..Route::new(PLAIN, "first")
    }];
    setup
}

async fn three_upstreams() -> [ScriptedUpstream; 3] {
    [
        ScriptedUpstream::bind().await,
        ScriptedUpstream::bind().await,
        ScriptedUpstream::bind().await,
    ]
}

fn model(request: &RawRequest) -> String {
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    body["model"].as_str().unwrap().to_owned()
}

const OK: &str = "200 OK\r\ncontent-type: application/json\r\nconnection: close";

async fn refused(upstream: &ScriptedUpstream, status: &str) {
    let (mut peer, _) = upstream.recv().await;
    peer.reply(&format!("{status}\r\nconnection: close"), status)
        .await;
}

#[tokio::test]
async fn the_next_answers_in_need_and_everyone_is_told() {
    let log = Log::default();
    let _guard = log.collect(LevelFilter::INFO);
    let upstreams = three_upstreams().await;
    let gateway = three(&upstreams).run().await;
    let mut client = gateway.client().await;
    client.post("/v1/chat/completions", ask(PLAIN)).await;
    refused(&upstreams[0], "500 Internal Server Error").await;
    refused(&upstreams[1], "429 Too Many Requests").await;
    let (mut peer, request) = upstreams[2].recv().await;
    assert_eq!(model(&request), "another");
    peer.reply(OK, "{\"who\":\"third\"}").await;
    let response = client.response().await;
    assert_eq!(
        (response.status, response.text().as_str()),
        (200, "{\"who\":\"third\"}")
    );
    assert_eq!(
        response.headers.first("x-farrier-answered-by"),
        Some("third/another")
    );
    let page = gateway.metrics().await;
    for line in [
        "farrier_fallbacks_total{route=\"plain\",from=\"first/plain\",to=\"second/other\",need=\"server_error\"} 1",
        "farrier_fallbacks_total{route=\"plain\",from=\"second/other\",to=\"third/another\",need=\"rate_limited\"} 1",
        "farrier_answers_total{route=\"plain\",provider=\"third\",model=\"another\"} 1",
        "farrier_answers_total{route=\"plain\",provider=\"first\",model=\"plain\"} 0",
    ] {
        assert!(page.contains(line), "{line} in {page}");
    }
    let record = log.record();
    assert!(
        record.contains("provider=\"third\" attempts=3 status=200"),
        "{record}"
    );
    assert!(!record.contains("fault="), "{record}");
}

#[tokio::test]
async fn a_fallback_that_refuses_the_key_does_not_hide_that_the_first_was_only_busy() {
    let upstreams = three_upstreams().await;
    let gateway = three(&upstreams).run().await;
    let mut client = gateway.client().await;
    client.post("/v1/chat/completions", ask(PLAIN)).await;
    refused(&upstreams[0], "429 Too Many Requests\r\nretry-after: 7").await;
    refused(&upstreams[1], "401 Unauthorized").await;
    refused(&upstreams[2], "404 Not Found").await;
    let response = client.response().await;
    assert_eq!(response.status, 429);
    assert_eq!(response.headers.first("retry-after"), Some("7"));
    assert_eq!(response.headers.first("x-farrier-answered-by"), None);
}

#[tokio::test]
async fn nobody_is_asked_when_the_time_for_the_whole_is_over() {
    let upstreams = three_upstreams().await;
    let mut setup = three(&upstreams);
    setup.config.deadlines.reply = Duration::from_millis(200);
    setup.config.deadlines.first_byte = Duration::from_secs(60);
    let gateway = setup.run().await;
    let mut client = gateway.client().await;
    client.post("/v1/chat/completions", ask(PLAIN)).await;
    let (_silent, _) = upstreams[0].recv().await;
    let response = client.response().await;
    let (_, code, message) = error(&response.text());
    assert_eq!((response.status, code.as_str()), (504, "upstream_timeout"));
    assert!(message.contains("left of the reply deadline"), "{message}");
    let page = gateway.metrics().await;
    assert!(!page.contains("farrier_fallbacks_total{"), "{page}");
}

#[tokio::test]
async fn the_route_s_own_target_answers_without_a_word_of_ours() {
    let upstreams = three_upstreams().await;
    let gateway = three(&upstreams).run().await;
    let mut client = gateway.client().await;
    client.post("/v1/chat/completions", ask(PLAIN)).await;
    let (mut peer, request) = upstreams[0].recv().await;
    assert_eq!(request.text(), ask(PLAIN));
    peer.reply(OK, "{}").await;
    let response = client.response().await;
    assert_eq!(response.headers.first("x-farrier-answered-by"), None);
}

#[tokio::test]
async fn each_need_sends_a_request_on_and_the_client_s_own_fault_does_not() {
    for (status, falls_back) in [
        ("400 Bad Request", false),
        ("401 Unauthorized", false),
        ("404 Not Found", false),
        ("413 Content Too Large", false),
        ("422 Unprocessable Content", false),
        ("429 Too Many Requests", true),
        ("500 Internal Server Error", true),
        ("529 Overloaded", true),
    ] {
        let upstreams = three_upstreams().await;
        let gateway = three(&upstreams).run().await;
        let mut client = gateway.client().await;
        client.post("/v1/chat/completions", ask(PLAIN)).await;
        refused(&upstreams[0], status).await;
        if falls_back {
            let (mut peer, _) = upstreams[1].recv().await;
            peer.reply(OK, "{}").await;
        }
        let response = client.response().await;
        let expected = if falls_back { "200" } else { &status[..3] };
        assert_eq!(response.status.to_string(), expected);
    }
}

#[tokio::test]
async fn what_counts_as_need_is_the_route_s_to_say() {
    let upstreams = three_upstreams().await;
    let mut setup = three(&upstreams);
    setup.config.routes[0].fall_back_on = vec![Need::Unauthorized];
    let gateway = setup.run().await;
    let mut client = gateway.client().await;
    client.post("/v1/chat/completions", ask(PLAIN)).await;
    refused(&upstreams[0], "402 Payment Required").await;
    refused(&upstreams[1], "500 Internal Server Error").await;
    let response = client.response().await;
    assert_eq!(
        (response.status, response.text().as_str()),
        (500, "500 Internal Server Error")
    );
}

#[tokio::test]
async fn one_that_closes_is_late_or_cannot_be_reached_is_in_need_too() {
    let upstreams = three_upstreams().await;
    let closed = ScriptedUpstream::bind().await;
    let mut setup = three(&upstreams);
    setup.config.providers[2].base_url = closed.base_url();
    drop(closed);
    setup.config.deadlines.first_byte = Duration::from_millis(100);
    let gateway = setup.run().await;
    let mut client = gateway.client().await;
    client.post("/v1/chat/completions", ask(PLAIN)).await;
    let (peer, _) = upstreams[0].recv().await;
    drop(peer); // closes
    let (mut silent, _) = upstreams[1].recv().await; // is late
    assert_eq!(silent.closed().await, b"");
    let response = client.response().await; // and the third cannot be reached
    let (_, code, message) = error(&response.text());
    assert_eq!(
        (response.status, code.as_str()),
        (502, "upstream_unreachable"),
        "{message}"
    );
    assert!(message.contains("\"third\""), "{message}");
    let page = gateway.metrics().await;
    for need in ["unreachable", "timeout"] {
        assert!(page.contains(&format!("need=\"{need}\"}} 1")), "{page}");
    }
}

#[tokio::test]
async fn a_provider_s_own_answer_is_given_rather_than_ours() {
    let upstreams = three_upstreams().await;
    let gateway = three(&upstreams).run().await;
    let mut client = gateway.client().await;
    client.post("/v1/chat/completions", ask(PLAIN)).await;
    let (mut peer, _) = upstreams[0].recv().await;
    peer.reply(
        "429 Too Many Requests\r\nretry-after: 7\r\nconnection: close",
        "enough",
    )
    .await;
    for upstream in &upstreams[1..] {
        let (peer, _) = upstream.recv().await;
        drop(peer);
    }
    let response = client.response().await;
    assert_eq!((response.status, response.text().as_str()), (429, "enough"));
    assert_eq!(response.headers.first("retry-after"), Some("7"));
    assert_eq!(response.headers.first("x-farrier-answered-by"), None);
}

/// Streams a call of a tool with what was thought before it.
async fn thinks_and_calls(peer: &mut ScriptedPeer) {
    peer.start_stream().await;
    peer.send_chunk(event("{\"reasoning_content\":\"I thought\"}", None))
        .await;
    peer.send_chunk(event(&call("functions.exec:0"), Some("tool_calls")) + "data: [DONE]\n\n")
        .await;
    peer.end_chunks().await;
}

/// Kimi demands its thoughts back; another model knows no such thing.
#[tokio::test]
async fn a_fallback_to_another_model_is_sent_what_that_model_needs() {
    let upstreams = three_upstreams().await;
    let mut setup = three(&upstreams);
    let fallback = Fallback {
        provider: "second".to_owned(),
        upstream_model: Some(KIMI.to_owned()),
    };
    setup.config.routes = vec![Route {
        fallbacks: vec![fallback],
        ..Route::new("any-model", "first")
    }];
    let gateway = setup.run().await;
    let mut client = gateway.client().await;

    client.post("/v1/chat/completions", ask("any-model")).await;
    refused(&upstreams[0], "503 Service Unavailable").await;
    let (mut kimi, request) = upstreams[1].recv().await;
    assert_eq!(model(&request), KIMI);
    thinks_and_calls(&mut kimi).await;
    let turn = client.response().await.text();
    let id = turn
        .split("\"id\":\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap()
        .to_owned();
    assert_ne!(
        id, "functions.exec:0",
        "the client is given an id that survives it"
    );

    // The client replays the turn without its reasoning.
    let call = format!(
        r#"{{"id":"{id}","type":"function","function":{{"name":"exec","arguments":"{{}}"}}}}"#
    );
    let replayed = format!(
        r#"{{"model":"any-model","messages":[{{"role":"user","content":"hi"}},{{"role":"assistant","content":null,"tool_calls":[{call}]}},{{"role":"tool","tool_call_id":"{id}","content":"ok"}}]}}"#
    );
    client.post("/v1/chat/completions", &replayed).await;
    let (mut first, request) = upstreams[0].recv().await;
    assert_eq!(
        request.text(),
        replayed,
        "no manifest says anything of the first"
    );
    first
        .reply("503 Service Unavailable\r\nconnection: close", "")
        .await;
    let request = kimi.recv().await; // over the connection that was kept
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    let assistant = &body["messages"][1];
    assert_eq!(assistant["reasoning_content"], "I thought");
    assert_eq!(assistant["tool_calls"][0]["id"], "functions.exec:0");
    assert_eq!(body["messages"][2]["tool_call_id"], "functions.exec:0");
    kimi.reply(OK, "{\"choices\":[]}").await;
    assert_eq!(client.response().await.status, 200);
}

#[tokio::test]
async fn a_route_may_be_told_to_clients_otherwise_than_the_rest() {
    use farrier_gateway::config::PublicRoute;
    let upstream = ScriptedUpstream::bind().await;
    let mut setup = Setup::on(&upstream);
    let traces = setup.dir.path().join("traces");
    setup.config.trace = Some(farrier_gateway::config::TraceConfig::new(&traces));
    setup.config.routes[0].public = Some(PublicRoute {
        provider_key: "own".to_owned(),
        base_url: "https://own.example/v1".to_owned(),
    });
    let Setup { config, dir: _dir } = setup;
    let gateway = Running::start(config).await;
    for model in [PLAIN, KIMI] {
        let mut client = gateway.client().await;
        client.post("/v1/chat/completions", ask(model)).await;
        let (mut peer, _) = upstream.recv().await;
        peer.reply(OK, "{}").await;
        client.response().await;
    }
    gateway.drain().await;
    let mut keys: Vec<String> = std::fs::read_dir(&traces)
        .unwrap()
        .map(|case| std::fs::read_to_string(case.unwrap().path().join("case.toml")).unwrap())
        .map(|case| {
            case.lines()
                .find(|line| line.starts_with("provider_key"))
                .unwrap()
                .to_owned()
        })
        .collect();
    keys.sort();
    assert_eq!(
        keys,
        ["provider_key = \"inference\"", "provider_key = \"own\""]
    );
}
