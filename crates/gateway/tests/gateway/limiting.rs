//! Callers that have what they may have.

use std::num::{NonZeroU32, NonZeroUsize};

use farrier_gateway::config::{CallerLimits, Client};
use farrier_secrets::Secret;
use farrier_testkit::{RawClient, RawResponse, ScriptedUpstream};

use crate::support::{PLAIN, Running, Setup, ask, error};

fn limits(max_concurrent: usize, per_minute: u32) -> CallerLimits {
    CallerLimits {
        max_concurrent: NonZeroUsize::new(max_concurrent),
        requests_per_minute: NonZeroU32::new(per_minute),
    }
}

fn client(name: &str, limits: CallerLimits) -> Client {
    Client {
        limits,
        ..Client::new(name, Secret::new(format!("key-of-{name}")).unwrap())
    }
}

async fn post(gateway: &Running, headers: &[(&str, &str)]) -> RawClient {
    let mut client = gateway.client().await;
    client
        .request("POST /v1/chat/completions", headers, ask(PLAIN))
        .await;
    client
}

fn told(response: &RawResponse) -> (u16, String) {
    assert_eq!(response.headers.first("x-farrier-fault"), Some("client"));
    let (kind, code, _) = error(&response.text());
    assert_eq!(kind, "rate_limit_error");
    (response.status, code)
}

const A: (&str, &str) = ("authorization", "Bearer key-of-a");
const B: (&str, &str) = ("authorization", "Bearer key-of-b");
const OK: &str = "200 OK\r\nconnection: close";

#[tokio::test]
async fn one_more_at_once_than_a_client_may_have_is_refused_and_others_are_not() {
    let upstream = ScriptedUpstream::bind().await;
    let mut setup = Setup::on(&upstream);
    setup.config.clients = vec![client("a", limits(1, 0)), client("b", limits(1, 0))];
    let gateway = setup.run().await;
    let mut first = post(&gateway, &[A]).await;
    let (mut peer, _) = upstream.recv().await;
    let refused = post(&gateway, &[A]).await.response().await;
    assert_eq!(
        told(&refused),
        (429, "concurrency_limit_exceeded".to_owned())
    );
    assert_eq!(refused.headers.first("retry-after"), Some("1"));
    let mut other = post(&gateway, &[B]).await;
    let (mut others, _) = upstream.recv().await;
    others.reply(OK, "{}").await;
    assert_eq!(other.response().await.status, 200);

    // Until the last byte of the reply, not until its head.
    peer.start_stream().await;
    first.head().await;
    assert_eq!(post(&gateway, &[A]).await.response().await.status, 429);
    peer.end_chunks().await;
    assert_eq!(first.chunk().await.unwrap(), b"");
    let mut next = post(&gateway, &[A]).await;
    peer.recv().await;
    peer.reply(OK, "{}").await;
    assert_eq!(next.response().await.status, 200);
    let mut metrics = gateway.client().await;
    metrics.request("GET /metrics", &[A], "").await;
    let page = metrics.response().await.text();
    assert!(
        page.contains("farrier_callers_limited_total{client=\"a\",limit=\"concurrency\"} 2"),
        "{page}"
    );
}

#[tokio::test]
async fn a_client_that_leaves_may_come_again() {
    let upstream = ScriptedUpstream::bind().await;
    let mut setup = Setup::on(&upstream);
    setup.config.clients = vec![client("a", limits(1, 0))];
    let gateway = setup.run().await;
    for _ in 0..3 {
        let gone = post(&gateway, &[A]).await;
        let (mut peer, _) = upstream.recv().await;
        drop(gone);
        assert_eq!(peer.closed().await, b"");
    }
}

#[tokio::test]
async fn one_more_in_a_minute_than_a_client_may_ask_is_refused_with_the_time_to_wait() {
    let upstream = ScriptedUpstream::bind().await;
    let mut setup = Setup::on(&upstream);
    setup.config.clients = vec![
        client("a", limits(0, 2)),
        client("b", CallerLimits::default()),
    ];
    let gateway = setup.run().await;
    for _ in 0..2 {
        let mut first = post(&gateway, &[A]).await;
        let (mut peer, _) = upstream.recv().await;
        peer.reply(OK, "{}").await;
        assert_eq!(first.response().await.status, 200);
    }
    let refused = post(&gateway, &[A]).await.response().await;
    assert_eq!(told(&refused), (429, "rate_limit_exceeded".to_owned()));
    let wait: u64 = refused
        .headers
        .first("retry-after")
        .unwrap()
        .parse()
        .unwrap();
    assert!((29..=30).contains(&wait), "{wait}");
    for _ in 0..4 {
        let mut other = post(&gateway, &[B]).await;
        let (mut peer, _) = upstream.recv().await;
        peer.reply(OK, "{}").await;
        assert_eq!(other.response().await.status, 200);
    }
    let mut models = gateway.client().await;
    models.request("GET /v1/models", &[A], "").await;
    assert_eq!(
        models.response().await.status,
        200,
        "that costs nobody anything"
    );
}

#[tokio::test]
async fn without_keys_each_session_is_a_caller() {
    let upstream = ScriptedUpstream::bind().await;
    let mut setup = Setup::on(&upstream);
    setup.config.per_caller = limits(0, 1);
    let gateway = setup.run().await;
    for session in ["one", "two"] {
        let headers = [("x-session-id", session)];
        let mut first = post(&gateway, &headers).await;
        let (mut peer, _) = upstream.recv().await;
        peer.reply(OK, "{}").await;
        assert_eq!(first.response().await.status, 200);
        let refused = post(&gateway, &headers).await.response().await;
        assert_eq!(told(&refused).0, 429);
    }
    let page = gateway.metrics().await;
    assert!(
        page.contains("farrier_callers_limited_total{client=\"\",limit=\"rate\"} 2"),
        "{page}"
    );
}

#[tokio::test]
async fn a_client_s_own_limit_goes_before_that_of_all_and_a_reload_forgets_nothing() {
    let upstream = ScriptedUpstream::bind().await;
    let configured = |per_minute| {
        let mut setup = Setup::on(&upstream);
        setup.config.per_caller = limits(0, 1);
        setup.config.clients = vec![client("a", limits(0, per_minute))];
        setup
    };
    let gateway = configured(2).run().await;
    for _ in 0..2 {
        let mut first = post(&gateway, &[A]).await;
        let (mut peer, _) = upstream.recv().await;
        peer.reply(OK, "{}").await;
        assert_eq!(first.response().await.status, 200);
    }
    gateway.reloader.reload(configured(1).config).unwrap();
    let refused = post(&gateway, &[A]).await.response().await;
    assert_eq!(told(&refused).0, 429);
}
