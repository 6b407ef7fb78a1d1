//! SIGTERM while streams are open: none is cut before the drain deadline, and after it all are.

use std::time::Duration;

use farrier_sim::{Behaviour, Options};
use farrier_testkit::RawClient;
use rustix::process::Signal;
use tokio::task::JoinSet;

use super::agent::{Agent, Form, Turn};
use super::stage::{agents, configuration, home, persona};

const STREAMS: usize = 60;

/// A model that takes its time over every answer.
fn slow(delay_ms: u64) -> Options {
    Options {
        behaviour: Behaviour {
            delay_ms,
            ..Behaviour::default()
        },
        ..Options::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_are_open_at_sigterm_end_as_they_would_have() {
    let persona = persona(slow(60)).await;
    let home = home();
    home.write("farrier.toml", &configuration(persona.addr(), ""));
    let mut up = home.start(&["up"]);
    let addr = up.listening();
    let mut going: JoinSet<(Agent, Turn)> = JoinSet::new();
    for mut agent in agents(STREAMS, "drained") {
        going.spawn(async move {
            let turn = agent.turn(addr).await;
            (agent, turn)
        });
    }
    let log = persona.log();
    let all_under_way = log.until(|log| log.requests() == STREAMS as u64);
    tokio::time::timeout(Duration::from_secs(20), all_under_way)
        .await
        .unwrap();
    up.signal(Signal::TERM);
    up.line("draining");
    assert!(
        RawClient::try_connect(addr).await.is_none() || !still_open(addr).await,
        "nothing new is taken in"
    );
    for (agent, turn) in going.join_all().await {
        assert!(matches!(turn, Turn::Ended), "{turn:?}");
        assert_eq!(agent.turns(), 1);
    }
    let said = up.ended();
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert!(said.stderr.contains("drained cut=0"), "{}", said.stderr);
    persona.stop().await;
}

/// Whether a new request is still answered.
async fn still_open(addr: std::net::SocketAddr) -> bool {
    let Some(mut client) = RawClient::try_connect(addr).await else {
        return false;
    };
    client
        .try_send("GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await
        && client.try_response().await.is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_outlast_the_drain_deadline_are_cut_then_and_counted() {
    let persona = persona(Options {
        behaviour: r#"{"fault": {"stall_after": 2}}"#.parse().unwrap(),
        ..Options::default()
    })
    .await;
    let home = home();
    let config = configuration(persona.addr(), "");
    let config = config.replace(
        "[[provider]]",
        "[gateway.deadlines]\ndrain = \"700ms\"\n\n[[provider]]",
    );
    home.write("farrier.toml", &config);
    let mut up = home.start(&["up"]);
    let addr = up.listening();
    let mut client = RawClient::connect(addr).await;
    let agent = Agent::asking("stalled", Form::Stream);
    client.post("/v1/chat/completions", agent.request()).await;
    assert_eq!(client.head().await.status, 200);
    let first = client.chunk().await.unwrap();
    assert!(!first.is_empty());
    let before = tokio::time::Instant::now();
    up.signal(Signal::TERM);
    while client.chunk().await.is_some() {}
    assert!(
        before.elapsed() >= Duration::from_millis(700),
        "cut after {:?}",
        before.elapsed()
    );
    let said = up.ended();
    assert!(said.stderr.contains("drained cut=1"), "{}", said.stderr);
    persona.stop().await;
}
