//! `kill -9` while many conversations are under way.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::Signal;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::agent::{Agent, Turn};
use super::stage::{
    agents, all_go_on, configuration, ends_well, exacting_persona, expect_own_words, home,
};

const AGENTS: usize = 24;
/// Turns that have ended, over all agents, when the gateway is killed.
const BEFORE: usize = 200;

#[tokio::test(flavor = "multi_thread")]
async fn every_turn_whose_end_was_delivered_is_restored_by_the_next_gateway() {
    let persona = exacting_persona().await;
    let home = home();
    home.write("farrier.toml", &configuration(persona.addr(), ""));
    let mut first = home.start(&["up"]);
    let addr = first.listening();

    let ended = Arc::new(AtomicUsize::new(0));
    let (enough, mut killed) = watch::channel(());
    let mut going: JoinSet<(Agent, Turn)> = JoinSet::new();
    for agent in agents(AGENTS, "killed under load") {
        going.spawn(until_cut(agent, addr, Arc::clone(&ended), enough.clone()));
    }
    killed.changed().await.unwrap();
    first.signal(Signal::KILL);
    let stopped = going.join_all().await;
    assert_eq!(first.ended().code, None);
    for (agent, last) in &stopped {
        assert!(
            matches!(last, Turn::CutOff),
            "turn {}: {last:?}",
            agent.turns()
        );
    }

    let mut second = home.start(&["up"]);
    let addr = second.listening();
    let agents: Vec<Agent> = stopped.into_iter().map(|(agent, _)| agent).collect();
    let seen: usize = agents.iter().map(Agent::turns).sum();
    assert!(seen > BEFORE, "{seen}");
    all_go_on(agents, 3, addr).await;
    expect_own_words(&persona);
    ends_well(second);
    persona.stop().await;
}

/// Turn after turn, until one is cut off. Says `enough` when all agents together have seen the end of [`BEFORE`].
async fn until_cut(
    mut agent: Agent,
    addr: SocketAddr,
    ended: Arc<AtomicUsize>,
    enough: watch::Sender<()>,
) -> (Agent, Turn) {
    loop {
        let turn = agent.turn(addr).await;
        if !matches!(turn, Turn::Ended) {
            return (agent, turn);
        }
        if ended.fetch_add(1, Ordering::Relaxed) == BEFORE {
            enough.send_replace(());
        }
    }
}
