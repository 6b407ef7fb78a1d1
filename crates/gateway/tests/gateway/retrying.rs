//! What is sent to the same provider again, how often, and what the client is given when that does not help.

use std::num::NonZeroU32;
use std::time::Duration;

use farrier_gateway::config::{Provider, Retry};
use farrier_testkit::ScriptedUpstream;
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::support::{KIMI, PLAIN, Running, Setup, ask, error};

/// Both models on a provider that is asked again after next to no time.
fn hasty(upstream: &ScriptedUpstream, change: impl FnOnce(&mut Retry)) -> Setup {
    let mut setup = Setup::on(upstream);
    let retry = &mut setup.config.providers[0].care.retry;
    retry.backoff = Duration::from_millis(1);
    change(retry);
    setup
}

async fn retries(gateway: &Running, reason: &str) -> String {
    let page = gateway.metrics().await;
    let line =
        format!("farrier_upstream_retries_total{{provider=\"scripted\",reason=\"{reason}\"}} ");
    let found = page.lines().find_map(|found| found.strip_prefix(&line));
    found.unwrap_or("0").to_owned()
}

const OK: &str = "200 OK\r\ncontent-type: application/json";

#[tokio::test]
async fn a_provider_that_asks_for_a_moment_is_given_it() {
    for status in [
        "429 Too Many Requests",
        "503 Service Unavailable",
        "529 Overloaded",
    ] {
        let upstream = ScriptedUpstream::bind().await;
        let gateway = hasty(&upstream, |_| {}).run().await;
        let mut client = gateway.client().await;
        client.post("/v1/chat/completions", ask(PLAIN)).await;
        let (mut peer, first) = upstream.recv().await;
        let began = Instant::now();
        let head = format!("{status}\r\nretry-after-ms: 150\r\nconnection: close");
        peer.reply(&head, "{}").await;
        let (mut peer, second) = upstream.recv().await;
        assert!(
            began.elapsed() >= Duration::from_millis(150),
            "it came too early"
        );
        assert_eq!((first.line, first.body), (second.line, second.body));
        assert_eq!(first.headers, second.headers);
        peer.reply(OK, "{\"id\":1}").await;
        let response = client.response().await;
        assert_eq!(
            (response.status, response.text().as_str()),
            (200, "{\"id\":1}")
        );
        assert_eq!(retries(&gateway, &status[..3]).await, "1");
    }
}

#[tokio::test]
async fn out_of_attempts_the_provider_s_last_answer_is_the_client_s() {
    for model in [PLAIN, KIMI] {
        let upstream = ScriptedUpstream::bind().await;
        let gateway = hasty(&upstream, |_| {}).run().await;
        let mut client = gateway.client().await;
        client.post("/v1/chat/completions", ask(model)).await;
        for attempt in 1..=3 {
            let (mut peer, _) = upstream.recv().await;
            let head = format!(
                "503 Service Unavailable\r\nretry-after: 0\r\nx-attempt: {attempt}\r\nconnection: close"
            );
            peer.reply(&head, format!("try {attempt}, in their own words"))
                .await;
        }
        let response = client.response().await;
        assert_eq!(response.status, 503);
        assert_eq!(response.text(), "try 3, in their own words");
        assert_eq!(response.headers.first("retry-after"), Some("0"));
        assert_eq!(response.headers.first("x-attempt"), Some("3"));
        assert_eq!(response.headers.first("x-farrier-fault"), None);
        assert_eq!(retries(&gateway, "503").await, "2");
    }
}

#[tokio::test]
async fn what_would_not_help_is_passed_on_at_once() {
    let replies = [
        "429 Too Many Requests\r\nretry-after: 3600",
        "429 Too Many Requests\r\nx-should-retry: false",
        "500 Internal Server Error",
        "502 Bad Gateway",
        "400 Bad Request",
        "408 Request Timeout",
    ];
    for reply in replies {
        let upstream = ScriptedUpstream::bind().await;
        let gateway = hasty(&upstream, |_| {}).run().await;
        let mut client = gateway.client().await;
        client.post("/v1/chat/completions", ask(PLAIN)).await;
        let (mut peer, _) = upstream.recv().await;
        peer.reply(reply, "as it is").await;
        let response = client.response().await;
        assert_eq!(format!("{}", response.status), reply[..3]);
        assert_eq!(response.text(), "as it is");
        assert!(
            !gateway
                .metrics()
                .await
                .contains("farrier_upstream_retries_total{")
        );
    }
}

#[tokio::test]
async fn a_provider_that_listens_again_in_time_is_reached() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let mut setup = Setup::with(Provider::new("scripted", format!("http://{addr}/v1")));
    let retry = &mut setup.config.providers[0].care.retry;
    (retry.attempts, retry.per_minute) = (NonZeroU32::new(10).unwrap(), 100);
    retry.backoff = Duration::from_millis(100);
    let gateway = setup.run().await;
    let mut client = gateway.client().await;
    client.post("/v1/chat/completions", ask(PLAIN)).await;
    // The first attempt is over when it is counted.
    while retries(&gateway, "unreachable").await == "0" {
        tokio::task::yield_now().await;
    }
    let upstream = ScriptedUpstream::bind_to(addr).await;
    let (mut peer, _) = upstream.recv().await;
    peer.reply(OK, "{}").await;
    assert_eq!(client.response().await.status, 200);
}

#[tokio::test]
async fn a_kept_connection_that_the_provider_closes_costs_the_client_nothing() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = Setup::on(&upstream).run().await;
    let mut client = gateway.client().await;
    client.post("/v1/chat/completions", ask(PLAIN)).await;
    let (mut peer, _) = upstream.recv().await;
    peer.reply(OK, "{}").await;
    assert_eq!(client.response().await.status, 200);
    client.post("/v1/chat/completions", ask(PLAIN)).await;
    let request = peer.recv().await; // on the same connection
    drop(peer);
    let (mut peer, again) = upstream.recv().await;
    assert_eq!(request, again);
    peer.reply(OK, "{\"second\":true}").await;
    assert_eq!(client.response().await.text(), "{\"second\":true}");
    assert_eq!(retries(&gateway, "closed").await, "1");
}

#[tokio::test]
async fn a_reply_that_has_begun_is_not_asked_for_again() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = Setup::on(&upstream).run().await;
    let mut client = gateway.client().await;
    client.post("/v1/chat/completions", ask(PLAIN)).await;
    let (mut peer, _) = upstream.recv().await;
    peer.reply(OK, "{}").await;
    assert_eq!(client.response().await.status, 200);
    client.post("/v1/chat/completions", ask(PLAIN)).await;
    peer.recv().await;
    peer.send("HTTP/1.1 200 OK\r\ncontent-ty").await;
    drop(peer);
    let response = client.response().await;
    assert_eq!(
        (response.status, error(&response.text()).1.as_str()),
        (502, "upstream_closed")
    );
}

#[tokio::test]
async fn what_passes_through_is_not_repeated_once_it_was_sent() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = Setup::on(&upstream).run().await;
    let mut client = gateway.client().await;
    client.post("/v1/responses", ask(PLAIN)).await;
    let (mut peer, _) = upstream.recv().await;
    peer.reply(OK, "{}").await;
    assert_eq!(client.response().await.status, 200);
    client.post("/v1/responses", ask(PLAIN)).await;
    peer.recv().await;
    drop(peer);
    let response = client.response().await;
    assert_eq!(
        (response.status, error(&response.text()).1.as_str()),
        (502, "upstream_closed")
    );
}

#[tokio::test]
async fn an_outage_is_not_made_worse() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = hasty(&upstream, |retry| {
        (retry.percent, retry.per_minute) = (0, 1);
    })
    .run()
    .await;
    for asked in [2, 1] {
        let mut client = gateway.client().await;
        client.post("/v1/chat/completions", ask(PLAIN)).await;
        for _ in 0..asked {
            let (mut peer, _) = upstream.recv().await;
            peer.reply("503 Service Unavailable\r\nconnection: close", "")
                .await;
        }
        assert_eq!(client.response().await.status, 503);
    }
    let page = gateway.metrics().await;
    let withheld = "farrier_upstream_retries_withheld_total{provider=\"scripted\"} 2";
    assert!(page.contains(withheld), "{page}");
}

#[tokio::test]
async fn nobody_is_kept_waiting_beyond_the_deadline_of_the_whole() {
    let upstream = ScriptedUpstream::bind().await;
    let mut setup = hasty(&upstream, |_| {});
    setup.config.deadlines.reply = Duration::from_millis(300);
    let gateway = setup.run().await;
    let mut client = gateway.client().await;
    client.post("/v1/chat/completions", ask(PLAIN)).await;
    let (mut peer, _) = upstream.recv().await;
    peer.reply(
        "503 Service Unavailable\r\nretry-after: 0\r\nconnection: close",
        "",
    )
    .await;
    let (mut silent, _) = upstream.recv().await;
    // Better their word than our own.
    assert_eq!(client.response().await.status, 503);
    assert_eq!(silent.closed().await, b"");

    client.post("/v1/chat/completions", ask(PLAIN)).await;
    let (mut peer, _) = upstream.recv().await;
    peer.reply(
        "503 Service Unavailable\r\nretry-after: 1\r\nconnection: close",
        "",
    )
    .await;
    assert_eq!(
        client.response().await.status,
        503,
        "that wait would be too long"
    );
}

#[tokio::test]
async fn a_client_that_leaves_between_two_attempts_is_the_last_of_it() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = hasty(&upstream, |retry| retry.backoff = Duration::ZERO)
        .run()
        .await;
    let mut client = gateway.client().await;
    client.post("/v1/chat/completions", ask(PLAIN)).await;
    let (mut peer, _) = upstream.recv().await;
    peer.reply(
        "503 Service Unavailable\r\nretry-after-ms: 200\r\nconnection: close",
        "",
    )
    .await;
    while retries(&gateway, "503").await == "0" {
        tokio::task::yield_now().await;
    }
    drop(client);
    let nobody = tokio::time::timeout(Duration::from_millis(400), upstream.accept()).await;
    assert!(nobody.is_err(), "it was asked again for nobody");
}
