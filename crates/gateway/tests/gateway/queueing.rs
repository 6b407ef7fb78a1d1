//! More requests than a provider has places for.

use std::num::NonZeroUsize;
use std::time::Duration;

use farrier_gateway::config::Concurrency;
use farrier_testkit::{RawClient, ScriptedUpstream};

use crate::support::{KIMI, PLAIN, Running, Setup, ask, error, event};

/// Both models on a provider with so many places.
fn with_places(
    upstream: &ScriptedUpstream,
    max: usize,
    change: impl FnOnce(&mut Concurrency),
) -> Setup {
    let mut setup = Setup::on(upstream);
    let mut concurrency = Concurrency::of(NonZeroUsize::new(max).unwrap());
    change(&mut concurrency);
    setup.config.providers[0].care.concurrency = Some(concurrency);
    setup
}

/// A request of this session's, for which `waiting` others wait then.
async fn queued(gateway: &Running, session: &str, waiting: usize) -> RawClient {
    let client = posted(gateway, session, PLAIN).await;
    depth(gateway, waiting).await;
    client
}

async fn posted(gateway: &Running, session: &str, model: &str) -> RawClient {
    let mut client = gateway.client().await;
    let headers = [("x-session-id", session)];
    client
        .request("POST /v1/chat/completions", &headers, ask(model))
        .await;
    client
}

/// Waits until so many requests wait.
async fn depth(gateway: &Running, waiting: usize) {
    let line = format!("farrier_queue_depth{{provider=\"scripted\"}} {waiting}\n");
    let reached = async { while !gateway.metrics().await.contains(&line) {} };
    let reached = tokio::time::timeout(Duration::from_secs(5), reached).await;
    assert!(
        reached.is_ok(),
        "{waiting} never waited:\n{}",
        gateway.metrics().await
    );
}

const OK: &str = "200 OK\r\nconnection: close";

#[tokio::test]
async fn one_agent_s_pile_does_not_starve_the_others() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = with_places(&upstream, 1, |_| {}).run().await;
    let mut running = posted(&gateway, "greedy", PLAIN).await;
    let (mut peer, _) = upstream.recv().await;
    let mut clients = Vec::new();
    for (nth, session) in ["greedy", "greedy", "greedy", "modest", "other"]
        .into_iter()
        .enumerate()
    {
        clients.push((session, queued(&gateway, session, nth + 1).await));
    }
    let mut order = Vec::new();
    for _ in 0..clients.len() {
        peer.reply(OK, "{}").await;
        let (next, request) = upstream.recv().await;
        order.push(request.headers.first("x-session-id").unwrap().to_owned());
        peer = next;
    }
    peer.reply(OK, "{}").await;
    assert_eq!(order, ["greedy", "modest", "other", "greedy", "greedy"]);
    assert_eq!(running.response().await.status, 200);
    for (session, client) in &mut clients {
        assert_eq!(client.response().await.status, 200, "{session}");
    }
    let page = gateway.metrics().await;
    assert!(
        page.contains("farrier_queue_wait_seconds_count{provider=\"scripted\"} 5"),
        "{page}"
    );
    assert!(
        page.contains("farrier_places_taken{provider=\"scripted\"} 0"),
        "{page}"
    );
}

#[tokio::test]
async fn a_stream_keeps_its_place_to_its_end() {
    for model in [PLAIN, KIMI] {
        let upstream = ScriptedUpstream::bind().await;
        let gateway = with_places(&upstream, 1, |_| {}).run().await;
        let mut first = posted(&gateway, "a", model).await;
        let (mut peer, _) = upstream.recv().await;
        peer.start_stream().await;
        peer.send_chunk(event("{\"content\":\"one\"}", None)).await;
        first.head().await;
        let mut second = queued(&gateway, "b", 1).await;
        peer.send_chunk(event("{\"content\":\"two\"}", Some("stop")) + "data: [DONE]\n\n")
            .await;
        peer.end_chunks().await;
        // The connection is kept, and the next request comes over it.
        peer.recv().await;
        peer.reply(OK, "{}").await;
        assert_eq!(second.response().await.status, 200);
    }
}

#[tokio::test]
async fn a_client_that_leaves_gives_up_its_place_or_its_turn() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = with_places(&upstream, 1, |_| {}).run().await;
    let first = posted(&gateway, "a", PLAIN).await;
    let (mut peer, _) = upstream.recv().await;
    let second = queued(&gateway, "b", 1).await;
    let mut third = queued(&gateway, "c", 2).await;
    drop(second);
    depth(&gateway, 1).await;
    drop(first);
    assert_eq!(peer.closed().await, b"");
    let (mut peer, request) = upstream.recv().await;
    assert_eq!(request.headers.first("x-session-id"), Some("c"));
    peer.reply(OK, "{}").await;
    assert_eq!(third.response().await.status, 200);
}

#[tokio::test]
async fn a_wait_that_is_too_long_ends_in_a_503() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = with_places(&upstream, 1, |queue| {
        queue.max_wait = Duration::from_millis(100);
    })
    .run()
    .await;
    let mut first = posted(&gateway, "a", PLAIN).await;
    let (mut peer, _) = upstream.recv().await;
    let response = posted(&gateway, "b", PLAIN).await.response().await;
    let (kind, code, message) = error(&response.text());
    assert_eq!(
        (response.status, kind.as_str(), code.as_str()),
        (503, "upstream_error", "provider_busy")
    );
    assert_eq!(
        message,
        "expected a free place at provider \"scripted\", got none within 100ms; try again"
    );
    assert_eq!(response.headers.first("retry-after"), Some("1"));
    assert_eq!(response.headers.first("x-farrier-fault"), Some("upstream"));
    peer.reply(OK, "{}").await;
    assert_eq!(first.response().await.status, 200);
    let page = gateway.metrics().await;
    assert!(
        page.contains(
            "farrier_queue_refusals_total{provider=\"scripted\",reason=\"waited_too_long\"} 1"
        ),
        "{page}"
    );
}

#[tokio::test]
async fn a_full_queue_costs_who_filled_it() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = with_places(&upstream, 1, |queue| queue.max_queued = 2)
        .run()
        .await;
    let _running = posted(&gateway, "greedy", PLAIN).await;
    let (_peer, _) = upstream.recv().await;
    let _first = queued(&gateway, "greedy", 1).await;
    let mut second = queued(&gateway, "greedy", 2).await;
    let mut third = posted(&gateway, "greedy", PLAIN).await;
    let refused = third.response().await;
    let (kind, code, _) = error(&refused.text());
    assert_eq!(
        (refused.status, kind.as_str(), code.as_str()),
        (429, "rate_limit_error", "queue_full")
    );
    assert_eq!(refused.headers.first("x-farrier-fault"), Some("client"));
    // Another caller is let in, at the cost of the latest of the greedy one.
    let _modest = posted(&gateway, "modest", PLAIN).await;
    assert_eq!(second.response().await.status, 429);
    depth(&gateway, 2).await;
}

#[tokio::test]
async fn between_two_attempts_the_place_is_another_s() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = with_places(&upstream, 1, |_| {}).run().await;
    let mut first = posted(&gateway, "a", PLAIN).await;
    let (mut peer, _) = upstream.recv().await;
    let mut second = queued(&gateway, "b", 1).await;
    peer.reply(
        "503 Service Unavailable\r\nretry-after: 0\r\nconnection: close",
        "",
    )
    .await;
    let (mut peer, request) = upstream.recv().await;
    assert_eq!(request.headers.first("x-session-id"), Some("b"));
    peer.reply(OK, "{}").await;
    assert_eq!(second.response().await.status, 200);
    let (mut peer, request) = upstream.recv().await;
    assert_eq!(request.headers.first("x-session-id"), Some("a"));
    peer.reply(OK, "{}").await;
    assert_eq!(first.response().await.status, 200);
}

#[tokio::test]
async fn a_reload_with_more_places_lets_in_who_waits() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = with_places(&upstream, 1, |_| {}).run().await;
    let _first = posted(&gateway, "a", PLAIN).await;
    let (_peer, _) = upstream.recv().await;
    let mut second = queued(&gateway, "b", 1).await;
    let _third = queued(&gateway, "c", 2).await;
    gateway
        .reloader
        .reload(with_places(&upstream, 2, |_| {}).config)
        .unwrap();
    let (mut peer, request) = upstream.recv().await;
    assert_eq!(request.headers.first("x-session-id"), Some("b"));
    depth(&gateway, 1).await;
    peer.reply(OK, "{}").await;
    assert_eq!(second.response().await.status, 200);
}
