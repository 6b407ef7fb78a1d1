//! A shared store that is killed under gateways, or slow.

use std::net::SocketAddr;
use std::time::Duration;

use farrier_sim::Options;
use farrier_testkit::{RawClient, StoreServer};
use tokio::time::Instant;

use crate::home::{Home, Running};

use super::agent::{Agent, Form};
use super::stage::{
    agents, all_go_on, configuration, ends_well, exacting_persona, expect_own_words, home, metric,
    persona,
};

/// How long the slow store is slow.
const SLOW: Duration = Duration::from_secs(5);

/// Writes a configuration whose ledger is at `store` into `home`, and starts a gateway with it.
fn start(home: &Home, upstream: SocketAddr, store: &StoreServer) -> (Running, SocketAddr) {
    let ledger = format!("[ledger]\nurl = {:?}\n", store.url());
    home.write("farrier.toml", &configuration(upstream, &ledger));
    let mut up = home.start(&["up"]);
    let addr = up.listening();
    (up, addr)
}

/// What a reply says of the ledger.
async fn ledger_header(agent: &Agent, gateway: SocketAddr) -> Option<String> {
    let mut client = RawClient::connect(gateway).await;
    client.post("/v1/chat/completions", agent.request()).await;
    let response = client.response().await;
    assert_eq!(response.status, 200, "{}", response.text());
    response
        .headers
        .first("x-farrier-ledger")
        .map(str::to_owned)
}

/// What an orchestrator is told, which must be that the gateway stays in rotation.
async fn readiness(gateway: SocketAddr) -> String {
    let mut client = RawClient::connect(gateway).await;
    client.get("/readyz").await;
    let response = client.response().await;
    assert_eq!(response.status, 200, "{}", response.text());
    response.text()
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_store_is_dead_a_gateway_restores_its_own_turns_and_writes_them_when_it_is_back()
{
    let persona = exacting_persona().await;
    let mut store = StoreServer::with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let homes = [home(), home()];
    let (one, addr) = start(&homes[0], persona.addr(), &store);
    let going = all_go_on(agents(6, "dead store"), 2, addr).await;
    store.kill();
    // New conversations: what was said before the store died can only be asked of the store.
    let fresh = all_go_on(agents(6, "while it is dead"), 3, addr).await;
    store.start_again();
    until(addr, QUEUED, |queued| queued == 0.0).await;
    let going = all_go_on(going, 2, addr).await;
    let fresh = all_go_on(fresh, 2, addr).await;
    // Another gateway knows nothing but what is in the store.
    let (two, addr) = start(&homes[1], persona.addr(), &store);
    all_go_on(going, 1, addr).await;
    all_go_on(fresh, 1, addr).await;
    expect_own_words(&persona);
    ends_well(one);
    ends_well(two);
    persona.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_miss_because_the_store_is_dead_is_told_to_the_client_and_counted() {
    // It takes placeholders, as the provider does.
    let persona = persona(Options {
        exact_reasoning: false,
        ..Options::default()
    })
    .await;
    let mut store = StoreServer::start();
    let home = home();
    let (up, addr) = start(&home, persona.addr(), &store);
    let mut going = all_go_on(vec![Agent::asking("told", Form::Whole)], 2, addr).await;
    let agent = going.pop().unwrap();
    assert_eq!(ledger_header(&agent, addr).await, None);
    assert_eq!(readiness(addr).await, "ready\n");
    store.kill();
    assert_eq!(
        ledger_header(&agent, addr).await.as_deref(),
        Some("unavailable")
    );
    // Every gateway of the fleet lost it: none may leave the rotation because of that.
    assert_eq!(
        readiness(addr).await,
        "ready, degraded: the turn ledger cannot be used now\n"
    );
    assert!(
        metric(
            addr,
            "farrier_ledger_recalls_total{outcome=\"unavailable\"}"
        )
        .await
            > 0.0
    );
    store.start_again();
    until(addr, QUEUED, |queued| queued == 0.0).await;
    ends_well(up);
    persona.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_slow_by_five_seconds_holds_no_stream_up_for_as_long() {
    let persona = persona(Options::default()).await;
    let store = StoreServer::start();
    let home = home();
    let (up, addr) = start(&home, persona.addr(), &store);
    let going = all_go_on(agents(4, "slow store"), 2, addr).await;
    store.pause();
    let began = Instant::now();
    let fresh = all_go_on(agents(4, "meanwhile"), 3, addr).await;
    let took = began.elapsed();
    tokio::time::sleep_until(began + SLOW).await;
    store.resume();
    assert!(took < SLOW, "three turns took {took:?}");
    until(addr, QUEUED, |queued| queued == 0.0).await;
    all_go_on(going, 2, addr).await;
    all_go_on(fresh, 2, addr).await;
    expect_own_words(&persona);
    ends_well(up);
    persona.stop().await;
}

/// Turns that wait to be written.
const QUEUED: &str = "farrier_ledger_queued";

/// Waits until a number of the metrics page is so.
async fn until(addr: SocketAddr, series: &str, holds: impl Fn(f64) -> bool) {
    let so = async {
        while !holds(metric(addr, series).await) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), so)
        .await
        .unwrap_or_else(|_| panic!("{series} does not become so"));
}
