//! Several gateways over one store: real ones, over a real Redis or Valkey.

use std::net::SocketAddr;

use farrier_sim::mind::HeardReasoning;
use farrier_sim::{Options, Persona, Sim};
use farrier_testkit::{PATIENCE, RawClient, StoreServer};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::home::{Home, Running};
use crate::up::{ask, configuration, next};

const ROUNDS: u32 = 8;

/// A strict persona, and the configurations of two gateways that lead to it and to one store.
async fn fleet(store: &str) -> (Home, Sim) {
    let home = Home::new()
        .with("PERSONA_KEY", "sk-canary-upstream")
        .with("STORE_PASSWORD", "canary-password");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = Options {
        rounds: Some(ROUNDS),
        // A placeholder is taken, as by providers, and told from what the model said.
        exact_reasoning: false,
        ..Options::default()
    };
    let sim = Sim::start(listener, Persona::named("kimi-k2.6").unwrap(), options).unwrap();
    let text = format!(
        "{store}\n{}",
        configuration(&format!("http://{}/v1", sim.addr()))
    );
    for name in ["one.toml", "two.toml"] {
        home.write(name, &text);
    }
    (home, sim)
}

fn both(home: &Home) -> [Running; 2] {
    ["one.toml", "two.toml"].map(|name| home.start(&["up", "--config", name]))
}

fn beginning() -> Vec<Value> {
    vec![json!({"role": "user", "content": "how is the machine"})]
}

/// How the reasoning of each turn came back to the model with the last request.
fn heard(sim: &Sim) -> Vec<HeardReasoning> {
    let heard = sim.log().entries().pop().unwrap().heard.unwrap();
    heard.assistant.iter().map(|said| said.reasoning).collect()
}

async fn metric(gateway: SocketAddr, name: &str) -> Option<u64> {
    let mut client = RawClient::connect(gateway).await;
    client.get("/metrics").await;
    let page = client.response().await.text();
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map(|value| value.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_that_alternates_between_two_gateways_is_restored_whole_at_every_turn() {
    let server = StoreServer::with(&["--requirepass", "canary-password"]);
    let store = format!(
        "[ledger]\nurl = \"{}\"\ncredential = {{ env = \"STORE_PASSWORD\" }}",
        server.url()
    );
    let (home, sim) = fleet(&store).await;
    let mut gateways = both(&home);
    let addresses = gateways.each_mut().map(Running::listening);
    assert_eq!(
        gateways[0].line("ledger"),
        format!("  ledger    {}?db=0", server.url())
    );

    let mut messages = beginning();
    for round in 0..ROUNDS {
        let turns = usize::try_from(round).unwrap();
        let reply = ask(addresses[turns % 2], &messages).await;
        assert_eq!(
            heard(&sim),
            vec![HeardReasoning::Ok; turns],
            "round {round}"
        );
        messages.extend(next(&reply));
    }
    for gateway in &gateways {
        gateway.signal(Signal::TERM);
    }
    for gateway in gateways {
        let said = gateway.ended();
        assert_eq!(said.code, Some(0), "{}", said.stderr);
        assert!(!said.stderr.contains("canary"), "{}", said.stderr);
    }
    sim.stop().await;
}

/// The store is killed in the middle of a conversation, and comes back with what it had.
#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_goes_on_without_its_store_and_is_whole_again_with_it() {
    let mut server = StoreServer::with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let (home, sim) = fleet(&format!("ledger = \"{}\"", server.url())).await;
    let mut gateways = both(&home);
    let [one, two] = gateways.each_mut().map(Running::listening);
    let mut messages = beginning();
    for gateway in [one, two] {
        messages.extend(next(&ask(gateway, &messages).await));
    }

    server.kill();
    for round in 0..2 {
        messages.extend(next(&ask(one, &messages).await));
        let heard = heard(&sim);
        // What was stored cannot be had, and is not made up; what the gateway has queued can.
        assert!(
            heard[..2]
                .iter()
                .all(|reasoning| *reasoning != HeardReasoning::Ok),
            "{heard:?}"
        );
        assert_eq!(heard[2..], vec![HeardReasoning::Ok; round]);
    }
    assert_eq!(metric(one, "farrier_ledger_queued").await, Some(2));
    let queued = "farrier_ledger_commit_failures_total{kind=\"queued\"}";
    assert_eq!(metric(one, queued).await, Some(2));

    server.start_again();
    let until = tokio::time::Instant::now() + PATIENCE;
    while metric(one, "farrier_ledger_queued").await != Some(0) {
        assert!(
            tokio::time::Instant::now() < until,
            "what is queued is not stored"
        );
    }
    let stored = "farrier_ledger_unqueued{kind=\"stored\"}";
    assert_eq!(metric(one, stored).await, Some(2));
    // The other one's own pause between two attempts may not be over.
    let until = tokio::time::Instant::now() + PATIENCE;
    loop {
        let reply = ask(two, &messages).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        if heard(&sim) == [HeardReasoning::Ok; 4] {
            break;
        }
        assert!(tokio::time::Instant::now() < until, "{:?}", heard(&sim));
    }
    for gateway in gateways {
        gateway.signal(Signal::TERM);
        assert_eq!(gateway.ended().code, Some(0));
    }
    sim.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_ends_without_its_store_says_what_is_lost() {
    let mut server = StoreServer::start();
    let (home, sim) = fleet(&format!("ledger = \"{}\"", server.url())).await;
    let mut up = home.start(&["up", "--config", "one.toml"]);
    let gateway = up.listening();
    server.kill();
    let reply = ask(gateway, &beginning()).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    up.signal(Signal::TERM);
    let said = up.ended();
    assert_eq!(said.code, Some(1));
    let error =
        "error: expected the ledger's store to take 1 queued turns before closing, it did not";
    assert!(said.stderr.contains(error), "{}", said.stderr);
    sim.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn check_tells_a_store_that_is_gone_from_one_that_is_another() {
    let mut server = StoreServer::start();
    let (home, sim) = fleet(&format!("ledger = \"{}\"", server.url())).await;
    let url = server.url();
    let check = |name: &str| {
        let shown = home.run(&["check", "--config", name]).shown();
        shown.replace(&url, "URL")
    };
    insta::assert_snapshot!(check("one.toml"), @r#"
    --- stdout
    one.toml: no mistakes (1 provider, 1 route, 0 clients, 8 manifests)
    --- exit 0
    "#);

    // Once a gateway has used it without encryption, one with a key must not.
    let mut up = home.start(&["up", "--config", "one.toml"]);
    assert_eq!(ask(up.listening(), &beginning()).await.status, 200);
    up.signal(Signal::TERM);
    assert_eq!(up.ended().code, Some(0));
    home.write("key", &"0f".repeat(32));
    let encrypted = format!(
        "[ledger]\nurl = \"{}\"\nencryption_key = {{ file = \"key\" }}\n{}",
        server.url(),
        configuration(&format!("http://{}/v1", sim.addr()))
    );
    std::fs::set_permissions(
        home.path().join("key"),
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    )
    .unwrap();
    home.write("encrypted.toml", &encrypted);
    insta::assert_snapshot!(check("encrypted.toml"), @r#"
    --- stderr
    encrypted.toml:2: expected the ledger's store to be begun with this encryption key, it was begun without encryption; give the key it was begun with, or another prefix to begin a new one
    error: 1 mistake in encrypted.toml
    --- exit 1
    "#);

    server.kill();
    insta::assert_snapshot!(check("one.toml"), @r#"
    --- stdout
    one.toml: no mistakes (1 provider, 1 route, 0 clients, 8 manifests)
    --- stderr
    warning: one.toml:1: the ledger's store cannot be reached for probe: Connection refused (os error 111)
    --- exit 0
    "#);
    sim.stop().await;
}
