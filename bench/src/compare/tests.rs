//! Comparisons of gateways that are a relay of bytes, made here.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;

use super::*;
use crate::target::ANY_PORT;

/// Where a listener is that will be the upstream: asked for and given back.
fn free_port() -> SocketAddr {
    let listener = TcpListener::bind(ANY_PORT).expect("loopback can be bound");
    listener.local_addr().expect("it is bound")
}

/// Relays every connection to `upstream`, both ways, for as long as the test lives.
fn relay(upstream: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind(ANY_PORT).expect("loopback can be bound");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(server) = TcpStream::connect(upstream) else {
                continue;
            };
            let quick = [&client, &server].map(|stream| stream.set_nodelay(true));
            assert!(quick.iter().all(Result::is_ok), "a socket takes options");
            let (back, forth) = (server.try_clone(), client.try_clone());
            if let (Ok(back), Ok(forth)) = (back, forth) {
                thread::spawn(move || copy(client, server));
                thread::spawn(move || copy(back, forth));
            }
        }
    });
    address
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if to
            .write_all(buffer.get(..read).unwrap_or_default())
            .is_err()
        {
            break;
        }
    }
    let _closed_already = to.shutdown(Shutdown::Write);
}

/// Refuses every request.
fn refuser() -> SocketAddr {
    let listener = TcpListener::bind(ANY_PORT).expect("loopback can be bound");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let reply = b"HTTP/1.1 500 No\r\ncontent-length: 2\r\n\r\nno";
            let _gone = client
                .read(&mut [0; 4096])
                .and_then(|_| client.write(reply));
        }
    });
    address
}

fn comparison(listen: SocketAddr, gateways: &[(&str, SocketAddr)], only: &[&str]) -> Comparison {
    let gateways = gateways.iter().map(|(name, address)| Gateway {
        name: (*name).to_owned(),
        pid: (*name == "us").then(std::process::id),
        ..Gateway::direct(*address)
    });
    Comparison {
        gateways: gateways.collect(),
        listen,
        models: Vec::new(),
        keys: Vec::new(),
        headers: Vec::new(),
        connections: vec![1, 2],
        per_second: vec![50.0],
        reference: None,
        core: None,
        rounds: 2,
        slice: Duration::from_millis(40),
        warm_up: Duration::ZERO,
        more_tries: 0,
        only: only.iter().map(|&id| id.to_owned()).collect(),
    }
}

#[test]
fn gateways_are_measured_in_both_loops_and_those_with_a_process_by_their_cpu() {
    let listen = free_port();
    let relay = relay(listen);
    let ids = ["chat-2", "stream-1", "chat-half", "chat-at-50"];
    let comparison = comparison(listen, &[("relay", relay), ("us", relay)], &ids);
    let report = run(&comparison, comparison.conditions(), &mut |_| {}).expect("it answers");
    let json = serde_json::to_value(&report).expect("it is JSON");
    let figure = |pointer: &str| json.pointer(pointer).and_then(serde_json::Value::as_f64);
    assert_eq!(report.scenarios.len(), 3);
    assert!(figure("/scenarios/0/entrants/1/figures/added_p50_us/median").is_some());
    assert_eq!(
        figure("/scenarios/0/entrants/1/figures/cpu_us_per_request/median"),
        None
    );
    assert!(figure("/scenarios/0/entrants/2/figures/cpu_us_per_request/median") > Some(0.0));
    // Two requests each 40 ms, one of them at its beginning: neither more nor fewer than were due.
    assert_eq!(figure("/scenarios/1/entrants/1/runs/0/requests"), Some(2.0));
    let half = figure("/halves/0/entrants/0/at_half/requests_per_second/median");
    let limit = figure("/halves/0/entrants/0/limit/median");
    assert!(half < limit, "half of {limit:?} came to {half:?}");
    let text = report.to_string();
    assert!(
        text.contains("chat-half: 1 KB chat, open loop at half"),
        "{text}"
    );
}

#[test]
fn a_gateway_that_refuses_is_told_of_before_anything_is_measured() {
    let comparison = comparison(ANY_PORT, &[("refuser", refuser())], &["chat-1"]);
    let error = run(&comparison, comparison.conditions(), &mut |_| {}).expect_err("it refuses");
    assert!(
        error.to_string().starts_with(
            "expected refuser to answer within 60s: expected status 200, got 500: no;"
        ),
        "{error}"
    );
}

#[test]
fn names_must_be_of_one_gateway_each() {
    let address = free_port();
    let twice = comparison(ANY_PORT, &[("a", address), ("a", address)], &[]);
    assert!(matches!(twice.check(), Err(CompareError::Taken(name)) if name == "a"));
    let direct = comparison(ANY_PORT, &[(DIRECT, address)], &[]);
    assert!(matches!(direct.check(), Err(CompareError::Taken(_))));
    let mut strange = comparison(ANY_PORT, &[("a", address)], &[]);
    strange.reference = Some("b".into());
    assert!(matches!(strange.check(), Err(CompareError::Unknown(name)) if name == "b"));
}

#[test]
fn a_key_is_in_the_request_of_its_gateway_and_shows_nowhere_else() {
    let address = free_port();
    let mut comparison = comparison(ANY_PORT, &[("a", address), ("b", address)], &[]);
    comparison.keys = vec![Named {
        name: Some("a".into()),
        value: Key::read("sk-canary\n").expect("it is one line"),
    }];
    let [a, b] = &comparison.gateways[..] else {
        panic!("two went in");
    };
    let request = |gateway| String::from_utf8(comparison.request(gateway, &SHAPES[0]));
    let has =
        |gateway| request(gateway).is_ok_and(|request| request.contains("Bearer sk-canary\r\n"));
    assert!(has(a) && !has(b));
    assert!(!format!("{comparison:?}").contains("canary"));
    assert!(Key::read("\n").is_none() && Key::read("a\r\nhost: b").is_none());
}
