//! The turn ledger on the way.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use farrier_ledger::{Answer, BoxFuture, Entry, Key, Ledger, LedgerError, Scope, Stats, Stored};
use farrier_testkit::{RawClient, ScriptedPeer, ScriptedUpstream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::support::{KIMI, Running, Setup, call, event, within_a_second};

/// A ledger whose answers have to be let go.
#[derive(Debug)]
struct Held {
    inner: Arc<dyn Ledger>,
    recalls: Semaphore,
    records: Semaphore,
    /// One for each turn that was to be remembered.
    asked: Semaphore,
    /// One for each turn that is in the ledger.
    recorded: Semaphore,
    /// The turns that are in the ledger, in the order of their arrival.
    turns: Mutex<Vec<Bytes>>,
}

impl Held {
    fn over(setup: &mut Setup, recalls: usize, records: usize) -> Arc<Self> {
        let (recalls, records) = (Semaphore::new(recalls), Semaphore::new(records));
        let inner = Arc::clone(&setup.config.ledger);
        let held = Arc::new(Self {
            inner,
            recalls,
            records,
            asked: Semaphore::new(0),
            recorded: Semaphore::new(0),
            turns: Mutex::default(),
        });
        setup.config.ledger = Arc::clone(&held) as Arc<dyn Ledger>;
        held
    }
}

impl Ledger for Held {
    fn recall<'a>(
        &'a self,
        scope: &'a Scope,
        keys: &'a [Key],
    ) -> BoxFuture<'a, Result<Answer, LedgerError>> {
        Box::pin(async move {
            self.recalls.acquire().await.unwrap().forget();
            self.inner.recall(scope, keys).await
        })
    }

    fn record<'a>(
        &'a self,
        scope: &'a Scope,
        entry: Entry,
    ) -> BoxFuture<'a, Result<Stored, LedgerError>> {
        Box::pin(async move {
            self.asked.add_permits(1);
            self.records.acquire().await.unwrap().forget();
            let turn = entry.value.clone();
            let stored = self.inner.record(scope, entry).await?;
            self.turns.lock().unwrap().push(turn);
            self.recorded.add_permits(1);
            Ok(stored)
        })
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), LedgerError>> {
        self.inner.ready()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), LedgerError>> {
        self.inner.close()
    }

    fn stats(&self) -> Stats {
        self.inner.stats()
    }
}

const THOUGHT: &str = "{\"reasoning_content\":\"a thought of its own\"}";

pub(super) fn first_ask() -> String {
    format!(r#"{{"model":"{KIMI}","stream":true,"messages":[{{"role":"user","content":"go"}}]}}"#)
}

/// What a client replays that keeps no reasoning.
pub(super) fn second_ask(id: &str) -> String {
    let calls = format!(
        r#"[{{"id":"{id}","type":"function","function":{{"name":"exec","arguments":"{{}}"}}}}]"#
    );
    let assistant = format!(r#"{{"role":"assistant","content":null,"tool_calls":{calls}}}"#);
    let result = format!(r#"{{"role":"tool","tool_call_id":"{id}","content":"done"}}"#);
    format!(
        r#"{{"model":"{KIMI}","messages":[{{"role":"user","content":"go"}},{assistant},{result}]}}"#
    )
}

async fn ask(gateway: &Running, body: String, headers: &[(&str, &str)]) -> RawClient {
    let mut client = gateway.client().await;
    client
        .request("POST /v1/chat/completions", headers, body)
        .await;
    client
}

/// Streams a turn that thinks and calls a tool; the connection is not kept.
pub(super) async fn stream_turn(peer: &mut ScriptedPeer) {
    peer.start_stream().await;
    peer.send_chunk(event(THOUGHT, None)).await;
    peer.send_chunk(event(&call("functions.exec:0"), None))
        .await;
    peer.send_chunk(event("{}", Some("tool_calls")) + "data: [DONE]\n\n")
        .await;
    peer.end_chunks().await;
}

/// The id that a streamed reply gave its first call.
pub(super) fn given_id(stream: &str) -> String {
    let data = stream
        .lines()
        .filter_map(|line| line.strip_prefix("data: "));
    let events = data.filter_map(|data| serde_json::from_str::<serde_json::Value>(data).ok());
    let ids = events.filter_map(|event| {
        Some(
            event["choices"][0]["delta"]["tool_calls"][0]["id"]
                .as_str()?
                .to_owned(),
        )
    });
    ids.into_iter()
        .next()
        .unwrap_or_else(|| panic!("no call in {stream}"))
}

#[tokio::test]
async fn the_model_sees_its_own_words_though_the_client_dropped_them() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = Setup::on(&upstream).run().await;
    let mut client = ask(&gateway, first_ask(), &[]).await;
    let (mut peer, _) = upstream.recv().await;
    stream_turn(&mut peer).await;
    let id = given_id(&client.response().await.text());
    assert_eq!(
        (id.len(), id.chars().all(|c| c.is_ascii_alphanumeric())),
        (9, true),
        "{id}"
    );

    client
        .request("POST /v1/chat/completions", &[], second_ask(&id))
        .await;
    let request = peer.recv().await;
    let body: serde_json::Value = serde_json::from_str(&request.text()).unwrap();
    let turn = &body["messages"][1];
    assert_eq!(turn["reasoning_content"], "a thought of its own");
    assert_eq!(turn["tool_calls"][0]["id"], "functions.exec:0");
    assert_eq!(body["messages"][2]["tool_call_id"], "functions.exec:0");
    assert_eq!(body["messages"][2]["name"], "exec");
    assert_eq!(body["model"], "kimi-k2.6");
    let page = gateway.metrics().await;
    assert!(page.contains("what=\"restored\""), "{page}");
    assert!(
        page.contains("farrier_ledger_recalls_total{outcome=\"hit\"}"),
        "{page}"
    );
}

#[tokio::test]
async fn a_json_reply_is_remembered_like_a_stream() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = Setup::on(&upstream).run().await;
    let mut client = ask(&gateway, first_ask(), &[]).await;
    let (mut peer, _) = upstream.recv().await;
    let calls = r#"[{"id":"functions.exec:0","type":"function","function":{"name":"exec","arguments":"{}"}}]"#;
    let message = format!(
        r#"{{"role":"assistant","content":null,"reasoning_content":"mine","tool_calls":{calls}}}"#
    );
    let choice = format!(r#"{{"index":0,"finish_reason":"tool_calls","message":{message}}}"#);
    peer.reply(
        "200 OK\r\ncontent-type: application/json",
        format!(r#"{{"choices":[{choice}]}}"#),
    )
    .await;
    let reply: serde_json::Value = serde_json::from_str(&client.response().await.text()).unwrap();
    let id = reply["choices"][0]["message"]["tool_calls"][0]["id"]
        .as_str()
        .unwrap();
    client
        .request("POST /v1/chat/completions", &[], second_ask(id))
        .await;
    let request: serde_json::Value = serde_json::from_str(&peer.recv().await.text()).unwrap();
    assert_eq!(request["messages"][1]["reasoning_content"], "mine");
}

#[tokio::test]
async fn another_session_s_turn_is_a_miss() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = Setup::on(&upstream).run().await;
    let mut client = ask(&gateway, first_ask(), &[("x-session-id", "one")]).await;
    let (mut peer, _) = upstream.recv().await;
    stream_turn(&mut peer).await;
    let id = given_id(&client.response().await.text());
    for (session, expected) in [
        ("two", "(reasoning not retained)"),
        ("one", "a thought of its own"),
    ] {
        client
            .request(
                "POST /v1/chat/completions",
                &[("x-session-id", session)],
                second_ask(&id),
            )
            .await;
        let request: serde_json::Value = serde_json::from_str(&peer.recv().await.text()).unwrap();
        assert_eq!(
            request["messages"][1]["reasoning_content"], expected,
            "session {session}"
        );
        peer.reply("200 OK\r\ncontent-type: application/json", "{}")
            .await;
        client.response().await;
    }
}

#[tokio::test]
async fn a_turn_s_end_is_given_only_once_it_is_in_the_ledger() {
    let upstream = ScriptedUpstream::bind().await;
    let mut setup = Setup::on(&upstream);
    setup.config.deadlines.ledger_record = Duration::from_secs(10);
    let held = Held::over(&mut setup, 100, 0);
    let gateway = setup.run().await;
    let mut client = ask(&gateway, first_ask(), &[]).await;
    let (mut peer, _) = upstream.recv().await;
    stream_turn(&mut peer).await;
    client.head().await;
    let mut before = String::new();
    while !before.contains("tool_calls\":[") {
        before += &String::from_utf8(client.chunk().await.unwrap()).unwrap();
    }
    let early = timeout(Duration::from_millis(200), client.chunk()).await;
    assert!(
        early.is_err(),
        "the end came before the ledger had the turn: {early:?}"
    );
    assert!(
        !before.contains("\"finish_reason\":\"tool_calls\""),
        "{before}"
    );
    held.records.add_permits(1);
    let mut after = String::new();
    loop {
        match client.chunk().await.unwrap() {
            chunk if chunk.is_empty() => break,
            chunk => after += &String::from_utf8(chunk).unwrap(),
        }
    }
    assert!(
        after.contains("\"finish_reason\":\"tool_calls\"") && after.ends_with("data: [DONE]\n\n"),
        "{after}"
    );
    assert_eq!(held.stats().recorded, 1);
}

#[tokio::test]
async fn a_ledger_that_does_not_answer_holds_nobody_up_for_long_and_is_counted() {
    let upstream = ScriptedUpstream::bind().await;
    let mut setup = Setup::on(&upstream);
    setup.config.deadlines.ledger_record = Duration::from_millis(50);
    setup.config.deadlines.ledger_recall = Duration::from_millis(50);
    let _held = Held::over(&mut setup, 0, 0);
    let gateway = setup.run().await;
    let mut client = ask(&gateway, first_ask(), &[]).await;
    let (mut peer, _) = upstream.recv().await;
    stream_turn(&mut peer).await;
    let stream = client.response().await.text();
    assert!(stream.ends_with("data: [DONE]\n\n"), "{stream}");

    client
        .request(
            "POST /v1/chat/completions",
            &[],
            second_ask(&given_id(&stream)),
        )
        .await;
    let request: serde_json::Value = serde_json::from_str(&peer.recv().await.text()).unwrap();
    assert_eq!(
        request["messages"][1]["reasoning_content"],
        "(reasoning not retained)"
    );
    peer.reply("200 OK", "{}").await;
    let told = client.response().await.headers;
    assert_eq!(told.first("x-farrier-ledger"), Some("unavailable"));
    let page = gateway.metrics().await;
    assert!(
        page.contains("farrier_ledger_commit_failures_total{kind=\"timeout\"} 1"),
        "{page}"
    );
    assert!(
        page.contains("farrier_ledger_recalls_total{outcome=\"unavailable\"}"),
        "{page}"
    );
    assert!(page.contains("what=\"missed\""), "{page}");
}

#[tokio::test]
async fn what_a_client_was_given_before_it_left_is_remembered() {
    let upstream = ScriptedUpstream::bind().await;
    let mut setup = Setup::on(&upstream);
    let held = Held::over(&mut setup, 100, 0);
    let gateway = setup.run().await;
    let mut client = ask(&gateway, first_ask(), &[]).await;
    let (mut peer, _) = upstream.recv().await;
    peer.start_stream().await;
    peer.send_chunk(event(THOUGHT, None)).await;
    peer.send_chunk(event(&call("functions.exec:0"), None))
        .await;
    client.head().await;
    let mut given = String::new();
    while !given.contains("tool_calls\":[") {
        given += &String::from_utf8(client.chunk().await.unwrap()).unwrap();
    }
    drop(client);
    peer.closed().await;
    held.records.add_permits(1);
    within_a_second(held.recorded.acquire())
        .await
        .unwrap()
        .forget();

    let mut client = ask(&gateway, second_ask(&given_id(&given)), &[]).await;
    let (_peer, request) = upstream.recv().await;
    let request: serde_json::Value = serde_json::from_str(&request.text()).unwrap();
    assert_eq!(
        request["messages"][1]["reasoning_content"],
        "a thought of its own"
    );
    client.half_close().await;
}

#[tokio::test]
async fn a_client_that_leaves_while_its_turns_are_written_does_not_lose_them() {
    let upstream = ScriptedUpstream::bind().await;
    let mut setup = Setup::on(&upstream);
    setup.config.deadlines.ledger_record = Duration::from_secs(10);
    let held = Held::over(&mut setup, 100, 0);
    let gateway = setup.run().await;
    let mut client = ask(&gateway, first_ask(), &[]).await;
    let (mut peer, _) = upstream.recv().await;
    peer.start_stream().await;
    client.head().await;
    let choice = |index: u32, delta: &str, finish: &str| {
        format!("{{\"index\":{index},\"delta\":{delta},\"finish_reason\":{finish}}}")
    };
    let all = |choices: [String; 3]| format!("data: {{\"choices\":[{}]}}\n\n", choices.join(","));
    let thought = |index: u32| {
        let call = call(&format!("functions.exec:{index}"));
        let thought = format!("{{\"reasoning_content\":\"thought {index}\",{}", &call[1..]);
        choice(index, &thought, "null")
    };
    let ending = |index: u32| choice(index, "{}", "\"tool_calls\"");
    let said = all([0, 1, 2].map(thought)) + &all([0, 1, 2].map(ending));
    peer.send_chunk(said).await;
    within_a_second(held.asked.acquire())
        .await
        .unwrap()
        .forget();
    drop(client);
    peer.closed().await;
    held.records.add_permits(3);
    within_a_second(held.recorded.acquire_many(3))
        .await
        .unwrap()
        .forget();
    let turns = held.turns.lock().unwrap();
    for (index, turn) in turns.iter().enumerate() {
        let turn = String::from_utf8_lossy(turn);
        assert!(turn.contains(&format!("thought {index}")), "{turn}");
    }
}

#[tokio::test]
async fn what_a_reply_gave_before_the_drain_cut_it_is_remembered() {
    let upstream = ScriptedUpstream::bind().await;
    let mut setup = Setup::on(&upstream);
    setup.config.limits.listener.drain = Duration::from_millis(50);
    let held = Held::over(&mut setup, 100, 100);
    let gateway = setup.run().await;
    let mut client = ask(&gateway, first_ask(), &[]).await;
    let (mut peer, _) = upstream.recv().await;
    peer.start_stream().await;
    peer.send_chunk(event(THOUGHT, None)).await;
    peer.send_chunk(event(&call("functions.exec:0"), None))
        .await;
    client.head().await;
    let mut given = String::new();
    while !given.contains("tool_calls\":[") {
        given += &String::from_utf8(client.chunk().await.unwrap()).unwrap();
    }
    assert_eq!(gateway.drain().await.cut, 1);
    assert_eq!(held.stats().recorded, 1);
}
