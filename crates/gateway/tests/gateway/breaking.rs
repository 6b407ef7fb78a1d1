//! Providers that are left alone for a while.

use std::num::NonZeroU32;
use std::time::Duration;

use farrier_gateway::config::{Breaker, Fallback, Provider, Retry, Route};
use farrier_testkit::{RawResponse, ScriptedUpstream};

use crate::support::{KIMI, PLAIN, Running, Setup, ask, error};

/// Both models on a provider that is asked once, and left alone after two failures.
fn wary(upstream: &ScriptedUpstream, cool_down: Duration) -> Setup {
    let mut setup = Setup::on(upstream);
    let care = &mut setup.config.providers[0].care;
    care.retry = Retry::never();
    care.breaker = Some(Breaker {
        failures: NonZeroU32::new(2).unwrap(),
        cool_down,
    });
    setup
}

async fn answered(gateway: &Running, model: &str) -> RawResponse {
    let mut client = gateway.client().await;
    client.post("/v1/chat/completions", ask(model)).await;
    client.response().await
}

/// Asks for `model`; the provider replies with `status`.
async fn exchange(
    gateway: &Running,
    upstream: &ScriptedUpstream,
    model: &str,
    status: &str,
) -> u16 {
    let provider = async {
        let (mut peer, _) = upstream.recv().await;
        peer.reply(&format!("{status}\r\nconnection: close"), "{}")
            .await;
    };
    tokio::join!(answered(gateway, model), provider).0.status
}

const LONG: Duration = Duration::from_secs(60);
const TROUBLE: &str = "503 Service Unavailable";

async fn state(gateway: &Running, model: &str) -> String {
    let page = gateway.metrics().await;
    let mut states = page.lines().filter(|line| {
        line.starts_with(&format!(
            "farrier_breaker_state{{provider=\"scripted\",model=\"{model}\""
        )) && line.ends_with(" 1")
    });
    let found = states
        .next()
        .unwrap_or_else(|| panic!("no state of {model} in {page}"));
    assert_eq!(states.next(), None, "two states at once");
    found
        .split("state=\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap()
        .to_owned()
}

#[tokio::test]
async fn after_failures_in_a_row_nobody_is_sent_there_and_everyone_told_when() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = wary(&upstream, LONG).run().await;
    assert_eq!(state(&gateway, PLAIN).await, "closed");
    assert_eq!(exchange(&gateway, &upstream, PLAIN, TROUBLE).await, 503);
    assert_eq!(exchange(&gateway, &upstream, PLAIN, "200 OK").await, 200);
    assert_eq!(exchange(&gateway, &upstream, PLAIN, TROUBLE).await, 503);
    assert_eq!(exchange(&gateway, &upstream, PLAIN, TROUBLE).await, 503);
    let response = answered(&gateway, PLAIN).await;
    assert_eq!(response.status, 503);
    assert_eq!(response.headers.first("x-farrier-fault"), Some("upstream"));
    let wait: u64 = response
        .headers
        .first("retry-after")
        .unwrap()
        .parse()
        .unwrap();
    assert!((60..=72).contains(&wait), "{wait}");
    let (kind, code, message) = error(&response.text());
    assert_eq!(
        (kind.as_str(), code.as_str()),
        ("upstream_error", "provider_unavailable")
    );
    assert_eq!(
        message,
        format!(
            "expected a provider that answers, got \"scripted\", which failed repeatedly and is left alone; try again in {wait} s"
        )
    );
    assert_eq!(state(&gateway, PLAIN).await, "open");
    assert_eq!(state(&gateway, "kimi-k2.6").await, "closed");
    assert_eq!(
        exchange(&gateway, &upstream, KIMI, "200 OK").await,
        200,
        "another model is another matter"
    );
}

#[tokio::test]
async fn what_may_be_the_request_s_own_doing_does_not_count() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = wary(&upstream, LONG).run().await;
    for status in [
        "500 Internal Server Error",
        "400 Bad Request",
        "429 Too Many Requests",
    ] {
        for _ in 0..3 {
            let got = exchange(&gateway, &upstream, PLAIN, status).await;
            assert_eq!(got.to_string(), status[..3]);
        }
    }
    assert_eq!(state(&gateway, PLAIN).await, "closed");
}

#[tokio::test]
async fn after_the_cool_down_one_request_tries_it_and_the_others_wait_for_that() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = wary(&upstream, Duration::from_millis(50)).run().await;
    for _ in 0..2 {
        exchange(&gateway, &upstream, PLAIN, TROUBLE).await;
    }
    let mut probe = gateway.client().await;
    // The first that is let through.
    let (mut peer, _) = loop {
        probe.post("/v1/chat/completions", ask(PLAIN)).await;
        tokio::select! {
            received = upstream.recv() => break received,
            refused = probe.response() => assert_eq!(refused.status, 503),
        }
    };
    assert_eq!(state(&gateway, PLAIN).await, "half_open");
    let refused = answered(&gateway, PLAIN).await;
    assert_eq!(
        (refused.status, refused.headers.first("retry-after")),
        (503, Some("1"))
    );
    peer.reply("200 OK\r\nconnection: close", "{}").await;
    assert_eq!(probe.response().await.status, 200);
    assert_eq!(state(&gateway, PLAIN).await, "closed");
    assert_eq!(exchange(&gateway, &upstream, PLAIN, "200 OK").await, 200);
}

#[tokio::test]
async fn a_probe_whose_client_leaves_makes_way_for_the_next() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = wary(&upstream, Duration::from_millis(50)).run().await;
    for _ in 0..2 {
        exchange(&gateway, &upstream, PLAIN, TROUBLE).await;
    }
    for _ in 0..2 {
        let mut probe = gateway.client().await;
        let (mut peer, _) = loop {
            probe.post("/v1/chat/completions", ask(PLAIN)).await;
            tokio::select! {
                received = upstream.recv() => break received,
                refused = probe.response() => assert_eq!(refused.status, 503),
            }
        };
        drop(probe);
        assert_eq!(peer.closed().await, b"");
    }
}

#[tokio::test]
async fn with_every_target_left_alone_the_shortest_wait_is_told() {
    let upstream = ScriptedUpstream::bind().await;
    let closed = ScriptedUpstream::bind().await;
    let mut setup = wary(&upstream, LONG);
    let mut second = Provider::new("second", closed.base_url());
    drop(closed);
    second.care = setup.config.providers[0].care.clone();
    second.care.breaker.as_mut().unwrap().cool_down = Duration::from_secs(20);
    setup.config.providers.push(second);
    setup.config.routes = vec![Route {
        fallbacks: vec![Fallback {
            provider: "second".to_owned(),
            upstream_model: None,
        }],
        ..Route::new(PLAIN, "scripted")
    }];
    let gateway = setup.run().await;
    for _ in 0..2 {
        exchange(&gateway, &upstream, PLAIN, TROUBLE).await;
    }
    let response = answered(&gateway, PLAIN).await;
    assert_eq!(response.status, 503);
    let wait: u64 = response
        .headers
        .first("retry-after")
        .unwrap()
        .parse()
        .unwrap();
    assert!((18..=24).contains(&wait), "{wait}");
    let page = gateway.metrics().await;
    assert!(page.contains("need=\"open\"} 1"), "{page}");
}

#[tokio::test]
async fn a_reload_forgets_no_failure() {
    let upstream = ScriptedUpstream::bind().await;
    let setup = wary(&upstream, LONG);
    let gateway = setup.run().await;
    for _ in 0..2 {
        exchange(&gateway, &upstream, PLAIN, TROUBLE).await;
    }
    let again = wary(&upstream, LONG).config;
    gateway.reloader.reload(again).unwrap();
    assert_eq!(answered(&gateway, PLAIN).await.status, 503);
    assert_eq!(state(&gateway, PLAIN).await, "open");
}

#[tokio::test]
async fn what_is_known_of_a_provider_at_one_place_says_nothing_of_another() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = wary(&upstream, LONG).run().await;
    for _ in 0..2 {
        exchange(&gateway, &upstream, PLAIN, TROUBLE).await;
    }
    let elsewhere = ScriptedUpstream::bind().await;
    let moved = wary(&elsewhere, LONG).config;
    gateway.reloader.reload(moved).unwrap();
    let status = exchange(&gateway, &elsewhere, PLAIN, "200 OK").await;
    assert_eq!(status, 200);
    assert_eq!(state(&gateway, PLAIN).await, "closed");
}

#[tokio::test]
async fn a_breaker_that_is_switched_off_is_no_longer_on_the_page() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = wary(&upstream, LONG).run().await;
    for _ in 0..2 {
        exchange(&gateway, &upstream, PLAIN, TROUBLE).await;
    }
    let mut off = wary(&upstream, LONG).config;
    off.providers[0].care.breaker = None;
    gateway.reloader.reload(off).unwrap();
    let status = exchange(&gateway, &upstream, PLAIN, "200 OK").await;
    assert_eq!(status, 200);
    let page = gateway.metrics().await;
    assert!(!page.contains("farrier_breaker_state{"), "{page}");
}
