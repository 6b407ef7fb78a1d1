//! A strict persona, a configuration that leads to it, and what the persona heard.

use std::net::SocketAddr;

use farrier_sim::mind::HeardReasoning;
use farrier_sim::{Options, Persona, Sim};
use farrier_testkit::RawClient;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::agent::{Agent, Form};
use crate::home::{Home, Running};

/// More rounds than any conversation here has: every answer is a tool call.
const ROUNDS: u32 = 10_000;

/// A home for a gateway, with the credential that its configuration names.
pub(crate) fn home() -> Home {
    Home::new().with("PERSONA_KEY", "sk-canary-upstream")
}

/// A persona that has its own words back or refuses.
pub(crate) async fn exacting_persona() -> Sim {
    persona(Options {
        exact_reasoning: true,
        ..Options::default()
    })
    .await
}

pub(crate) async fn persona(mut options: Options) -> Sim {
    options.rounds = Some(ROUNDS);
    options.limits.log_entries = 100_000;
    options.limits.max_connections = 10_000;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    Sim::start(listener, Persona::named("kimi-k2.6").unwrap(), options).unwrap()
}

/// A configuration with one route, whose provider is at `upstream`; `more` is TOML that follows it.
pub(crate) fn configuration(upstream: SocketAddr, more: &str) -> String {
    format!(
        r#"
[gateway]
listen = "127.0.0.1:0"

[[provider]]
name = "persona"
base_url = "http://{upstream}/v1"
credential = {{ env = "PERSONA_KEY" }}

[[route]]
model = "moonshotai/kimi-k2.6"
provider = "persona"
upstream_model = "kimi-k2.6"

{more}
"#
    )
}

/// Agents with a conversation each, told apart by `name`.
pub(crate) fn agents(count: usize, name: &str) -> Vec<Agent> {
    let form = |number: usize| match number % 3 {
        0 => Form::Whole,
        _ => Form::Stream,
    };
    (0..count)
        .map(|number| Agent::asking(&format!("{name} {number}"), form(number)))
        .collect()
}

/// All agents at once, each so many turns, all of which must end.
pub(crate) async fn all_go_on(agents: Vec<Agent>, turns: usize, gateway: SocketAddr) -> Vec<Agent> {
    let mut going: JoinSet<Agent> = JoinSet::new();
    for mut agent in agents {
        going.spawn(async move {
            agent.turns_that_end(turns, gateway).await;
            agent
        });
    }
    going.join_all().await
}

/// Every turn that any request to the persona held was the model's own: its reasoning, its ids.
pub(crate) fn expect_own_words(persona: &Sim) {
    let mut turns = 0;
    for entry in persona.log().entries() {
        let Some(heard) = entry.heard else {
            panic!("request {} told the model nothing", entry.seq);
        };
        for (number, turn) in heard.assistant.iter().enumerate() {
            turns += 1;
            assert_eq!(
                turn.reasoning,
                HeardReasoning::Ok,
                "request {}, turn {number}",
                entry.seq
            );
        }
    }
    assert!(turns > 0, "no turn was ever replayed");
}

/// One number of the gateway's metrics page; zero if it is not there yet.
pub(crate) async fn metric(gateway: SocketAddr, series: &str) -> f64 {
    let mut client = RawClient::connect(gateway).await;
    client.get("/metrics").await;
    let page = client.response().await.text();
    let value = page
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.map_or(0.0, |value| value.parse().unwrap())
}

/// Tells a gateway to end and expects that it does so well.
pub(crate) fn ends_well(gateway: Running) -> String {
    gateway.signal(rustix::process::Signal::TERM);
    let said = gateway.ended();
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    said.stderr
}
