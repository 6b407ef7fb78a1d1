use std::net::SocketAddr;

use farrier_sim::mind::HeardReasoning;
use farrier_sim::{Options, Persona, Sim};
use farrier_testkit::{RawClient, RawResponse, ScriptedUpstream};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::home::Home;

/// A persona, and a configuration that leads to it.
async fn persona(home: &Home) -> Sim {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let persona = Persona::named("kimi-k2.6").unwrap();
    let sim = Sim::start(listener, persona, Options::default()).unwrap();
    home.write(
        "farrier.toml",
        &configuration(&format!("http://{}/v1", sim.addr())),
    );
    sim
}

pub(crate) fn configuration(base_url: &str) -> String {
    format!(
        r#"
[gateway]
listen = "127.0.0.1:0"

[[provider]]
name = "persona"
base_url = "{base_url}"
credential = {{ env = "PERSONA_KEY" }}

[[route]]
model = "moonshotai/kimi-k2.6"
provider = "persona"
upstream_model = "kimi-k2.6"
"#
    )
}

pub(crate) fn home() -> Home {
    Home::new().with("PERSONA_KEY", "sk-canary-upstream")
}

/// A request of a client that remembers what it was given and replays no reasoning.
fn request(messages: &[Value]) -> String {
    let parameters = json!({"type": "object", "properties": {"command": {"type": "string"}}});
    let exec = json!({"type": "function", "function": {"name": "exec", "parameters": parameters}});
    json!({"model": "moonshotai/kimi-k2.6", "messages": messages, "tools": [exec]}).to_string()
}

pub(crate) async fn ask(gateway: SocketAddr, messages: &[Value]) -> RawResponse {
    let mut client = RawClient::connect(gateway).await;
    client.post("/v1/chat/completions", request(messages)).await;
    client.response().await
}

/// The calls of a reply, as messages that come next.
pub(crate) fn next(reply: &RawResponse) -> Vec<Value> {
    assert_eq!(reply.status, 200, "{}", reply.text());
    let body: Value = serde_json::from_slice(&reply.body).unwrap();
    let calls = &body["choices"][0]["message"]["tool_calls"];
    let assistant = json!({"role": "assistant", "content": null, "tool_calls": calls});
    let results = calls
        .as_array()
        .unwrap()
        .iter()
        .map(|call| json!({"role": "tool", "tool_call_id": call["id"], "content": "done"}));
    std::iter::once(assistant).chain(results).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_where_it_listens_and_answers_there_until_sigterm() {
    let home = home();
    let sim = persona(&home).await;
    let mut up = home.start(&["up"]);
    let gateway = up.listening();
    assert_eq!(
        up.line("route"),
        format!(
            "  route     moonshotai/kimi-k2.6 -> persona as kimi-k2.6 (http://{}/v1)",
            sim.addr()
        )
    );
    let reply = ask(gateway, &[json!({"role": "user", "content": "hello"})]).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(sim.log().requests(), 1);
    up.signal(Signal::TERM);
    let said = up.ended();
    assert_eq!((said.code, said.stdout.as_str()), (Some(0), ""));
    assert!(said.stderr.contains("status=200"), "{}", said.stderr);
    sim.stop().await;
}

/// Killed between two turns, so that nothing could be written at leisure.
#[tokio::test(flavor = "multi_thread")]
async fn a_turn_is_restored_by_a_gateway_that_was_killed_and_started_again() {
    let home = home();
    let sim = persona(&home).await;
    let mut messages = vec![json!({"role": "user", "content": "how is the machine"})];

    let mut up = home.start(&["up"]);
    let reply = ask(up.listening(), &messages).await;
    up.signal(Signal::KILL);
    assert_eq!(up.ended().code, None);

    messages.extend(next(&reply));
    let mut up = home.start(&["up"]);
    let reply = ask(up.listening(), &messages).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let heard = sim.log().entries().pop().unwrap().heard.unwrap();
    assert_eq!(heard.assistant[0].reasoning, HeardReasoning::Ok);
    assert_eq!(heard.assistant[0].ids, ["functions.exec:0"]);
    up.signal(Signal::TERM);
    assert_eq!(up.ended().code, Some(0));
    sim.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_a_request_in_flight_finish() {
    let home = home();
    let upstream = ScriptedUpstream::bind().await;
    home.write("farrier.toml", &configuration(&upstream.base_url()));
    let mut up = home.start(&["up"]);
    let mut client = RawClient::connect(up.listening()).await;
    client
        .post(
            "/v1/chat/completions",
            request(&[json!({"role": "user", "content": "hello"})]),
        )
        .await;
    let (mut peer, _) = upstream.recv().await;

    up.signal(Signal::TERM);
    up.line("draining");
    let body = r#"{"choices":[{"index":0,"message":{"role":"assistant","content":"late"},"finish_reason":"stop"}]}"#;
    peer.reply("200 OK\r\ncontent-type: application/json", body)
        .await;
    let reply = client.response().await;
    assert_eq!((reply.status, reply.whole), (200, true));
    assert!(reply.text().contains("late"));
    assert_eq!(up.ended().code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_cuts() {
    let home = home();
    let upstream = ScriptedUpstream::bind().await;
    home.write("farrier.toml", &configuration(&upstream.base_url()));
    let mut up = home.start(&["up"]);
    let mut client = RawClient::connect(up.listening()).await;
    client
        .post(
            "/v1/chat/completions",
            request(&[json!({"role": "user", "content": "hello"})]),
        )
        .await;
    let (_peer, _) = upstream.recv().await;
    up.signal(Signal::INT);
    up.line("draining");
    up.signal(Signal::INT);
    let said = up.ended();
    assert_eq!(said.code, Some(1));
    assert!(
        said.stderr.contains("error: cut by a second signal"),
        "{}",
        said.stderr
    );
    client.closed().await;
}

#[test]
fn it_does_not_start_over_mistakes_and_reports_them_all() {
    let home = Home::new();
    home.write("farrier.toml", &configuration("ftp://nowhere"));
    insta::assert_snapshot!(home.run(&["up"]).shown(), @r#"
    --- stderr
    farrier.toml:7: expected an http or https URL for base_url, got "ftp://nowhere"
    farrier.toml:8: expected the environment variable PERSONA_KEY, which is not set
    error: 2 mistakes in farrier.toml
    --- exit 1
    "#);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_in_use_says_so_and_what_to_do() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let home = home();
    home.write("farrier.toml", &configuration("http://127.0.0.1:1/v1"));
    let said = home.run(&["up", "--listen", &address]);
    insta::assert_snapshot!(said.shown().replace(&address, "ADDRESS"), @r#"
    --- stderr
    error: cannot listen on ADDRESS
      caused by: Address already in use (os error 98)
      hint: another program listens there; choose an address with --listen
    --- exit 1
    "#);
}

#[test]
fn a_ledger_that_another_gateway_has_is_refused_with_what_to_do() {
    let home = home();
    home.write("farrier.toml", &configuration("http://127.0.0.1:1/v1"));
    let mut first = home.start(&["up"]);
    first.listening();
    let said = home.run(&["up"]);
    assert_eq!(said.code, Some(1));
    assert!(
        said.stderr
            .contains("give each gateway a ledger of its own"),
        "{}",
        said.stderr
    );
    first.signal(Signal::TERM);
    assert_eq!(first.ended().code, Some(0));
}

/// As `farrier up 2>&1 | head` has it: the log is lost, the requests are not.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_the_log_that_left_is_no_failure() {
    let home = home();
    let sim = persona(&home).await;
    let mut up = home.start(&["up"]);
    let gateway = up.listening();
    up.turn_away();
    // The first line after it is what closes the pipe.
    for _ in 0..3 {
        let reply = ask(gateway, &[json!({"role": "user", "content": "hello"})]).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    up.signal(Signal::TERM);
    assert_eq!(up.ended().code, Some(0));
    sim.stop().await;
}

#[test]
fn a_log_for_programs_is_one_object_a_line() {
    let home = home();
    home.write("farrier.toml", &configuration("http://127.0.0.1:1/v1"));
    let mut up = home.start(&["up", "--log", "json"]);
    up.line("\"message\":\"listening\"");
    up.signal(Signal::TERM);
    let said = up.ended();
    assert_eq!(said.code, Some(0));
    for line in said.stderr.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        assert!(event["fields"]["message"].is_string(), "{line}");
    }
}

#[test]
fn trace_text_without_a_directory_is_a_usage_error() {
    let home = home();
    home.write("farrier.toml", &configuration("http://127.0.0.1:1/v1"));
    insta::assert_snapshot!(home.run(&["up", "--trace-text", "keep"]).shown(), @r#"
    --- stderr
    error: expected --trace-dir with --trace-text, got none
      hint: or name the directory in [trace] of the configuration
    --- exit 2
    "#);
}
