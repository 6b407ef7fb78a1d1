//! A thousand clients that leave at once: no request goes on without its client, and nothing of them stays.

use std::fs;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use farrier_sim::Options;
use farrier_testkit::RawClient;
use tokio::task::JoinSet;

use super::agent::{Agent, Form};
use super::stage::{configuration, ends_well, home, metric, persona};
use crate::home::Running;

const CLIENTS: usize = 1_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_clients_that_leave_in_mid_stream_take_their_requests_along() {
    let persona = persona(Options {
        behaviour: r#"{"fault": {"stall_after": 3}}"#.parse().unwrap(),
        ..Options::default()
    })
    .await;
    let home = home();
    home.write("farrier.toml", &configuration(persona.addr(), ""));
    let mut up = home.start(&["up"]);
    let addr = up.listening();
    // Whatever is opened once and kept is open after this.
    metric(addr, "farrier_requests_in_flight").await;
    let process = up.id();
    let descriptors = || descriptors(process);
    let before = descriptors();

    let mut coming: JoinSet<RawClient> = JoinSet::new();
    for number in 0..CLIENTS {
        coming.spawn(async move {
            let agent = Agent::asking(&format!("leaves {number}"), Form::Stream);
            let mut client = RawClient::connect(addr).await;
            client.post("/v1/chat/completions", agent.request()).await;
            assert_eq!(client.head().await.status, 200);
            assert!(!client.chunk().await.unwrap().is_empty());
            client
        });
    }
    let clients = coming.join_all().await;
    assert_eq!(
        metric(addr, "farrier_requests_in_flight").await,
        CLIENTS as f64
    );
    assert!(
        descriptors() >= 2 * CLIENTS,
        "each has a connection on both sides"
    );
    drop(clients);

    let log = persona.log();
    let left = log.until(|log| log.cancelled() == CLIENTS as u64);
    tokio::time::timeout(Duration::from_secs(30), left)
        .await
        .expect("every request is taken back from the provider");
    until_quiet(addr, || descriptors() <= before + 2).await;
    ends_well(up);
    persona.stop().await;
}

/// Asks the gateway until nothing is in flight and `gone` holds.
async fn until_quiet(addr: SocketAddr, gone: impl Fn() -> bool) {
    let quiet = async {
        while metric(addr, "farrier_requests_in_flight").await > 0.0 || !gone() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), quiet)
        .await
        .expect("descriptors are given back");
}

fn descriptors(process: u32) -> usize {
    fs::read_dir(format!("/proc/{process}/fd")).unwrap().count()
}

/// Resident memory of a process, in bytes.
fn resident(process: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    let kibibytes: usize = line.trim().trim_end_matches(" kB").parse().unwrap();
    kibibytes << 10
}

/// How long a client stays.
#[derive(Clone, Copy, Debug)]
enum Stays {
    UntilHalfOfItsRequestIsSent,
    UntilItsRequestIsSent,
    UntilTheHead,
    UntilTheFirstChunk,
    ToTheEnd,
}

impl Stays {
    /// One of them, in no order that anything could adapt to.
    fn drawn(number: u64) -> Self {
        let scattered = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        match scattered % 8 {
            0 => Self::UntilHalfOfItsRequestIsSent,
            1 => Self::UntilItsRequestIsSent,
            2 => Self::UntilTheHead,
            3 => Self::UntilTheFirstChunk,
            _ => Self::ToTheEnd,
        }
    }
}

/// Visits until none is left.
async fn visit_all(addr: SocketAddr, numbers: Arc<Mutex<Range<u64>>>) {
    let next = || numbers.lock().unwrap().next();
    while let Some(number) = next() {
        visit(addr, number).await;
    }
}

/// One request of a client that stays so long.
async fn visit(addr: SocketAddr, number: u64) {
    let form = match number % 2 {
        0 => Form::Stream,
        _ => Form::Whole,
    };
    let request = Agent::asking(&format!("visit {number}"), form).request();
    let stays = Stays::drawn(number);
    let mut client = RawClient::connect(addr).await;
    if let Stays::UntilHalfOfItsRequestIsSent = stays {
        let (half, _) = request.split_at(request.len() / 2);
        let length = request.len();
        let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost";
        client
            .send(format!("{head}\r\ncontent-length: {length}\r\n\r\n{half}"))
            .await;
        return;
    }
    client.post("/v1/chat/completions", request).await;
    match stays {
        Stays::UntilHalfOfItsRequestIsSent | Stays::UntilItsRequestIsSent => {}
        Stays::UntilTheHead => assert_eq!(client.head().await.status, 200),
        Stays::UntilTheFirstChunk if form == Form::Stream => {
            client.head().await;
            client.chunk().await.unwrap();
        }
        Stays::UntilTheFirstChunk | Stays::ToTheEnd => {
            let response = client.response().await;
            assert!(response.status == 200 && response.whole);
        }
    }
}

/// Many requests, half of which their clients leave; then as many again. Whatever the second half has added for good
/// would be a leak: a task, a descriptor, memory.
async fn nothing_stays_of(requests: u64) {
    let persona = persona(Options::default()).await;
    let home = home();
    home.write("farrier.toml", &configuration(persona.addr(), ""));
    let mut command = home.command(&["up"]);
    command.env("FARRIER_LOG", "warn");
    let mut up = Running::start(&mut command);
    let addr = up.listening();
    let process = up.id();
    let mut after = Vec::new();
    for half in [0..requests / 2, requests / 2..requests] {
        let numbers = Arc::new(Mutex::new(half));
        let mut visits: JoinSet<()> = JoinSet::new();
        for _ in 0..64 {
            visits.spawn(visit_all(addr, Arc::clone(&numbers)));
        }
        visits.join_all().await;
        // Connections to the provider are pooled, and idle ones are no leak.
        until_quiet(addr, || descriptors(process) < 400).await;
        let tasks = metric(addr, TASKS).await;
        assert!(tasks > 0.0, "tasks are counted");
        after.push((resident(process), tasks));
    }
    let [(first, tasks_then), (last, tasks_now)] = after[..] else {
        panic!("two halves, {after:?}");
    };
    assert!(
        last <= first + first / 4 + (4 << 20),
        "{first} bytes, then {last}"
    );
    assert!(
        tasks_now <= tasks_then + 300.0,
        "{tasks_then} tasks, then {tasks_now}"
    );
    ends_well(up);
    persona.stop().await;
}

/// Tasks that are alive.
const TASKS: &str = "farrier_tasks";

#[tokio::test(flavor = "multi_thread")]
async fn nothing_stays_of_ten_thousand_requests_half_of_which_are_left() {
    nothing_stays_of(10_000).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes"]
async fn nothing_stays_of_a_hundred_thousand_requests_half_of_which_are_left() {
    nothing_stays_of(100_000).await;
}
