//! Another configuration for a gateway that runs, by each of the ways it can come.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use farrier_testkit::{RawClient, RawResponse, ScriptedUpstream};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::home::{Home, Running};
use crate::up::{configuration, home};

/// What the log says then.
const RELOADED: &str = ": reloaded ";

const KIMI: &str = "moonshotai/kimi-k2.6";

/// A configuration that leads from one model to one upstream.
fn leading(model: &str, upstream: &ScriptedUpstream) -> String {
    configuration(&upstream.base_url()).replace(KIMI, model)
}

/// The same, with the provider's key in a file.
fn with_key_file(upstream: &ScriptedUpstream, file: &str) -> String {
    configuration(&upstream.base_url()).replace(
        "{ env = \"PERSONA_KEY\" }",
        &format!("{{ file = \"{file}\" }}"),
    )
}

/// Without the file watch, so that a test alone says when.
fn unwatched(configuration: &str) -> String {
    configuration.replace("[gateway]", "[gateway]\nwatch = false")
}

fn secret(home: &Home, name: &str, text: &str) {
    let path = home.write(name, text);
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// Replaces a secret as whoever rotates keys does: whole, by a rename.
fn rotate(home: &Home, name: &str, text: &str) {
    let next = format!("{name}.next");
    secret(home, &next, text);
    fs::rename(home.path().join(next), home.path().join(name)).unwrap();
}

async fn post(gateway: SocketAddr, model: &str) -> RawClient {
    let mut client = RawClient::connect(gateway).await;
    let body =
        json!({"model": model, "stream": true, "messages": [{"role": "user", "content": "hello"}]});
    client.post("/v1/chat/completions", body.to_string()).await;
    client
}

/// Whether a model is known now.
async fn knows(gateway: SocketAddr, model: &str) -> bool {
    get(gateway, &format!("/v1/models/{model}")).await.status == 200
}

async fn get(gateway: SocketAddr, path: &str) -> RawResponse {
    let mut client = RawClient::connect(gateway).await;
    client.get(path).await;
    client.response().await
}

/// What a metric shows.
async fn metric(gateway: SocketAddr, name: &str) -> f64 {
    let page = get(gateway, "/metrics").await.text();
    let line = page.lines().find(|line| line.starts_with(name));
    let line = line.unwrap_or_else(|| panic!("no {name} in\n{page}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// What comes of a stream until this is in it.
async fn until(client: &mut RawClient, text: &str) -> String {
    let mut seen = String::new();
    while !seen.contains(text) {
        let chunk = client.chunk().await.filter(|chunk| !chunk.is_empty());
        let chunk = chunk.unwrap_or_else(|| panic!("expected {text:?} in the stream, got {seen}"));
        seen.push_str(&String::from_utf8(chunk).unwrap());
    }
    seen
}

/// What else comes of a stream, which must end whole.
async fn ends_whole(client: &mut RawClient) -> String {
    let mut rest = String::new();
    loop {
        let chunk = client.chunk().await;
        let chunk = chunk.unwrap_or_else(|| panic!("cut off after {rest}"));
        if chunk.is_empty() {
            assert!(rest.ends_with("data: [DONE]\n\n"), "{rest}");
            return rest;
        }
        rest.push_str(&String::from_utf8(chunk).unwrap());
    }
}

/// One piece of a stream.
fn event(text: &str) -> String {
    let delta =
        json!({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}]});
    format!("data: {delta}\n\n")
}

const END: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";

fn status(home: &Home) -> Value {
    let said = home.run(&["status", "--json"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    serde_json::from_str(&said.stdout).unwrap()
}

fn ends_well(up: Running) {
    up.signal(Signal::TERM);
    let said = up.ended();
    assert_eq!(said.code, Some(0), "{}", said.stderr);
}

// === by request ===

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_while_the_next_request_has_the_new_route() {
    let home = home();
    let (before, after) = (
        ScriptedUpstream::bind().await,
        ScriptedUpstream::bind().await,
    );
    home.write("farrier.toml", &unwatched(&leading("old", &before)));
    let mut up = home.start(&["up"]);
    let gateway = up.listening();
    let mut streaming = post(gateway, "old").await;
    let (mut peer, _) = before.recv().await;
    peer.start_stream().await;
    peer.send_chunk(event("first")).await;
    assert_eq!(streaming.head().await.status, 200);
    until(&mut streaming, "first").await;

    home.write("farrier.toml", &unwatched(&leading("new", &after)));
    let said = home.run(&["reload"]);
    assert_eq!(
        said.shown(),
        "--- stdout\nfarrier.toml: serves as generation 2; connections made anew: persona\n--- exit 0"
    );
    assert!(!knows(gateway, "old").await);
    let mut next = post(gateway, "new").await;
    let (mut elsewhere, _) = after.recv().await;
    elsewhere.start_stream().await;
    elsewhere.send_chunk(event("other")).await;
    elsewhere.send_chunk(END).await;
    elsewhere.end_chunks().await;
    let reply = next.response().await;
    assert!(
        reply.whole && reply.text().contains("other"),
        "{}",
        reply.text()
    );

    peer.send_chunk(event("last")).await;
    peer.send_chunk(END).await;
    peer.end_chunks().await;
    assert!(ends_whole(&mut streaming).await.contains("last"));
    ends_well(up);
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_streams_survive_reloads_and_end_complete() {
    const STREAMS: usize = 50;
    let home = home();
    let upstream = ScriptedUpstream::bind().await;
    home.write("farrier.toml", &unwatched(&leading("m", &upstream)));
    let mut up = home.start(&["up"]);
    let gateway = up.listening();
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let mut client = post(gateway, "m").await;
        let (mut peer, _) = upstream.recv().await;
        peer.start_stream().await;
        peer.send_chunk(event("first")).await;
        assert_eq!(client.head().await.status, 200);
        until(&mut client, "first").await;
        streams.push((client, peer));
    }
    for round in 0..5 {
        // Each is another configuration, with connections of its own.
        secret(&home, "key", &format!("sk-{round}"));
        home.write(
            "farrier.toml",
            &unwatched(&with_key_file(&upstream, "key").replace(KIMI, "m")),
        );
        assert_eq!(home.run(&["reload"]).code, Some(0));
        for (client, peer) in &mut streams {
            let text = format!("round {round}");
            peer.send_chunk(event(&text)).await;
            until(client, &text).await;
        }
    }
    for (mut client, mut peer) in streams {
        peer.send_chunk(END).await;
        peer.end_chunks().await;
        ends_whole(&mut client).await;
    }
    assert_eq!(metric(gateway, "farrier_config_generation").await, 6.0);
    ends_well(up);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_configuration_is_answered_as_check_does_and_changes_nothing() {
    let home = home();
    let upstream = ScriptedUpstream::bind().await;
    let good = unwatched(&leading("old", &upstream));
    home.write("farrier.toml", &good);
    let mut up = home.start(&["up"]);
    let gateway = up.listening();
    let bad = good
        .replace("base_url = \"http", "base_url = \"ftp")
        .replace("model = \"old\"", "model = \"new\"\nmodle = 1");
    home.write("farrier.toml", &bad);

    let checked = home.run(&["check"]);
    let said = home.run(&["reload"]);
    insta::assert_snapshot!(said.shown().replace(&upstream.addr().to_string(), "UPSTREAM"), @r#"
    --- stderr
    farrier.toml:8: expected an http or https URL for base_url, got "ftp://UPSTREAM/v1"
    farrier.toml:13: expected a key of [[route]], got "modle"; did you mean "model"
    error: 2 mistakes in farrier.toml
      hint: nothing has changed: generation 1 still serves
    --- exit 1
    "#);
    assert!(
        said.stderr.starts_with(&checked.stderr),
        "{}",
        checked.stderr
    );
    // The log says it in the same words.
    for line in checked
        .stderr
        .lines()
        .filter(|line| line.starts_with("farrier.toml"))
    {
        assert_eq!(up.line("farrier.toml:"), line);
    }
    up.line("not reloaded; the configuration before it serves");

    let told = home.run(&["reload", "--json"]);
    assert_eq!((told.code, told.stderr.as_str()), (Some(1), ""));
    let told: Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(told["result"], "refused");
    assert_eq!(told["mistakes"][0]["line"], 8);
    let config = home.path().canonicalize().unwrap().join("farrier.toml");
    assert_eq!(told["mistakes"][0]["file"], config.to_str().unwrap());

    assert!(knows(gateway, "old").await);
    assert_eq!(
        metric(gateway, "farrier_config_reloads_total{result=\"refused\"}").await,
        2.0
    );
    assert_eq!(
        metric(gateway, "farrier_config_reloads_total{result=\"taken\"}").await,
        0.0
    );
    assert_eq!(metric(gateway, "farrier_config_generation").await, 1.0);
    ends_well(up);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_a_restart_is_named_and_the_rest_takes_effect() {
    let home = home();
    let upstream = ScriptedUpstream::bind().await;
    let text = unwatched(&leading("old", &upstream));
    home.write("farrier.toml", &text);
    let mut up = home.start(&["up"]);
    let gateway = up.listening();
    let other = text
        .replace("127.0.0.1:0", "127.0.0.1:1")
        .replace(
            "[gateway]",
            "[gateway]\nmax_connections = 7\ndeadlines = { drain = \"1s\" }",
        )
        .replace("model = \"old\"", "model = \"new\"");
    home.write(
        "farrier.toml",
        &format!("{other}\n[ledger]\npath = \"elsewhere/turns.db\"\n"),
    );
    insta::assert_snapshot!(home.run(&["reload"]).shown(), @r"
    --- stdout
    farrier.toml: serves as generation 2
    --- stderr
    warning: takes effect after a restart: gateway.listen, ledger, gateway.max_connections, gateway.deadlines.drain
    --- exit 0
    ");
    assert!(knows(gateway, "new").await);
    up.line("reloaded, but for what takes a restart to change");
    // Only looked at: a ledger that is not used is not made.
    assert!(!home.path().join("elsewhere").exists());
    ends_well(up);
}

#[test]
fn status_says_what_runs_and_what_the_last_reload_came_to() {
    let home = home();
    home.write(
        "farrier.toml",
        &unwatched(&configuration("http://127.0.0.1:1/v1")),
    );
    let mut up = home.start(&["up"]);
    let gateway = up.listening();
    let first = status(&home);
    assert_eq!(first["listen"], json!([gateway.to_string()]));
    assert_eq!(
        (&first["generation"], &first["watching"]),
        (&json!(1), &json!(false))
    );
    assert_eq!(first["last_reload"], Value::Null);

    home.write("farrier.toml", "[gateway]\nlisten = 3\n");
    assert_eq!(home.run(&["reload"]).code, Some(1));
    let said = home.run(&["status"]);
    assert_eq!(said.code, Some(0));
    let lines: Vec<&str> = said.stdout.lines().collect();
    assert!(
        lines[0].contains(&format!("process {}", first["pid"])),
        "{}",
        said.stdout
    );
    assert_eq!(lines[1], format!("  listens   {gateway}"));
    assert!(
        lines[3].starts_with("  serves    generation 1, since "),
        "{}",
        said.stdout
    );
    assert!(
        lines[4].starts_with("  reload    refused "),
        "{}",
        said.stdout
    );
    assert!(
        lines[5].contains("farrier.toml:2: expected an address"),
        "{}",
        said.stdout
    );
    ends_well(up);
}

// === by signal ===

#[tokio::test(flavor = "multi_thread")]
async fn sighup_reloads_each_time_it_comes() {
    let home = home();
    let upstream = ScriptedUpstream::bind().await;
    home.write("farrier.toml", &unwatched(&leading("one", &upstream)));
    let mut up = home.start(&["up"]);
    let gateway = up.listening();
    for (model, generation) in [("two", 2), ("three", 3)] {
        home.write("farrier.toml", &unwatched(&leading(model, &upstream)));
        up.signal(Signal::HUP);
        let line = up.line(RELOADED);
        assert!(line.contains(&format!("generation={generation}")), "{line}");
        assert!(line.contains("SIGHUP"), "{line}");
        assert!(knows(gateway, model).await);
    }
    ends_well(up);
}

/// The second may fall into the first, but never goes unheard: what was written before it serves in the end.
#[tokio::test(flavor = "multi_thread")]
async fn two_sighups_in_a_row_end_with_what_was_written_last() {
    let home = home();
    let upstream = ScriptedUpstream::bind().await;
    home.write("farrier.toml", &unwatched(&leading("one", &upstream)));
    let mut up = home.start(&["up"]);
    let gateway = up.listening();
    home.write("farrier.toml", &unwatched(&leading("two", &upstream)));
    up.signal(Signal::HUP);
    home.write("farrier.toml", &unwatched(&leading("three", &upstream)));
    up.signal(Signal::HUP);
    while !knows(gateway, "three").await {
        up.line("reloaded");
    }
    ends_well(up);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_in_the_middle_of_a_drain_changes_nothing() {
    let home = home();
    let upstream = ScriptedUpstream::bind().await;
    home.write("farrier.toml", &unwatched(&leading("old", &upstream)));
    let mut up = home.start(&["up"]);
    let gateway = up.listening();
    let mut streaming = post(gateway, "old").await;
    let (mut peer, _) = upstream.recv().await;
    peer.start_stream().await;
    peer.send_chunk(event("first")).await;
    assert_eq!(streaming.head().await.status, 200);

    up.signal(Signal::TERM);
    up.line("draining");
    up.signal(Signal::HUP);
    let said = home.run(&["reload"]);
    assert_eq!(
        said.shown(),
        "--- stderr\nerror: the gateway is draining and takes no other configuration\n--- exit 1"
    );
    assert_eq!(status(&home)["draining"], true);

    peer.send_chunk(END).await;
    peer.end_chunks().await;
    ends_whole(&mut streaming).await;
    let said = up.ended();
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert!(!said.stderr.contains("reloaded"), "{}", said.stderr);
}

/// A pipe stands for a disk that is gone: whoever reads from it waits for ever.
#[tokio::test(flavor = "multi_thread")]
async fn files_that_do_not_answer_keep_nothing_else_waiting() {
    let home = home();
    let upstream = ScriptedUpstream::bind().await;
    let file = home.write("farrier.toml", &unwatched(&leading("old", &upstream)));
    let mut up = home.start(&["up"]);
    let gateway = up.listening();
    fs::remove_file(&file).unwrap();
    mknodat(CWD, &file, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    up.signal(Signal::HUP);
    // Opens once there is a reader.
    let opened = tokio::task::spawn_blocking(move || fs::File::options().write(true).open(file));
    let _written_never = opened.await.unwrap().unwrap();

    assert!(knows(gateway, "old").await);
    assert_eq!(metric(gateway, "farrier_config_generation").await, 1.0);
    let socket = fs::read_dir(home.path().join(".local/state/farrier/control")).unwrap();
    let socket = socket.map(|entry| entry.unwrap().path()).find(|path| {
        path.extension()
            .is_some_and(|extension| extension == "sock")
    });
    let said = home.run(&[
        "status",
        "--json",
        "--socket",
        socket.unwrap().to_str().unwrap(),
    ]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    ends_well(up);
}

/// The pipe behind a terminal is gone once its other end is: nobody is left to read, or to stop it.
#[test]
fn a_terminal_that_closes_ends_it_as_it_ends_others() {
    let home = home();
    home.write("farrier.toml", &configuration("http://127.0.0.1:1/v1"));
    let mut up = home.start_on_terminal(&["up"]);
    up.until("listens on http://");
    assert_eq!(up.hang_up(), Some(0));
}

// === by a change of a file ===

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_is_saved_takes_effect() {
    let home = home();
    let upstream = ScriptedUpstream::bind().await;
    home.write("farrier.toml", &leading("one", &upstream));
    let mut up = home.start(&["up"]);
    let gateway = up.listening();
    // In place.
    home.write("farrier.toml", &leading("two", &upstream));
    assert!(up.line(RELOADED).contains("a file changed"));
    assert!(knows(gateway, "two").await);
    // As editors do.
    home.write(".farrier.toml.swp", &leading("three", &upstream));
    fs::rename(
        home.path().join(".farrier.toml.swp"),
        home.path().join("farrier.toml"),
    )
    .unwrap();
    up.line(RELOADED);
    assert!(knows(gateway, "three").await);
    ends_well(up);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_rotated_reaches_the_provider_with_the_next_request() {
    let home = home();
    let upstream = ScriptedUpstream::bind().await;
    secret(&home, "keys/rack.key", "sk-one");
    home.write("farrier.toml", &with_key_file(&upstream, "keys/rack.key"));
    let mut up = home.start(&["up"]);
    let gateway = up.listening();
    for (key, generation) in [("sk-two", 2), ("sk-three", 3)] {
        rotate(&home, "keys/rack.key", key);
        let line = up.line(RELOADED);
        assert!(line.contains(&format!("generation={generation}")), "{line}");
        let _waiting = post(gateway, KIMI).await;
        let (_peer, request) = upstream.recv().await;
        let bearer = format!("Bearer {key}");
        assert_eq!(
            request.headers.first("authorization"),
            Some(bearer.as_str())
        );
    }
    // Nothing is under way: one signal is enough, and it may be over before it is said.
    up.signal(Signal::TERM);
    let said = up.ended();
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert!(!said.stderr.contains("sk-"), "{}", said.stderr);
}

/// Names lead by way of a link to a directory with all of them, and the link is replaced at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_mounted_map_that_is_replaced_takes_effect_whole() {
    let home = home();
    let upstream = ScriptedUpstream::bind().await;
    let version = |name: &str, model: &str, key: &str| {
        secret(&home, &format!("map/{name}/rack.key"), key);
        let text = with_key_file(&upstream, "rack.key").replace(KIMI, model);
        home.write(&format!("map/{name}/farrier.toml"), &text);
    };
    let map = home.path().join("map");
    let lead = |to: &str| {
        symlink(to, map.join("..data_tmp")).unwrap();
        fs::rename(map.join("..data_tmp"), map.join("..data")).unwrap();
    };
    version("..v1", "one", "sk-one");
    lead("..v1");
    for name in ["farrier.toml", "rack.key"] {
        symlink(Path::new("..data").join(name), map.join(name)).unwrap();
    }
    let mut up = home.start(&["up", "--config", "map/farrier.toml"]);
    let gateway = up.listening();

    version("..v2", "two", "sk-two");
    lead("..v2");
    fs::remove_dir_all(map.join("..v1")).unwrap();
    up.line(RELOADED);
    let _waiting = post(gateway, "two").await;
    let (_peer, request) = upstream.recv().await;
    assert_eq!(
        request.headers.first("authorization"),
        Some("Bearer sk-two")
    );
    // The same gateway is found by the same name, wherever that leads now.
    let said = home.run(&["status", "--config", "map/farrier.toml"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    up.signal(Signal::TERM);
    up.line("draining");
    up.signal(Signal::TERM);
    assert_eq!(up.ended().code, Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_appears_is_taken_and_one_that_is_wrong_is_refused() {
    let home = home();
    let upstream = ScriptedUpstream::bind().await;
    let text = leading("m", &upstream);
    home.write(
        "farrier.toml",
        &format!("{text}\n[registry]\ndirectories = [\"manifests\"]\n"),
    );
    fs::create_dir(home.path().join("manifests")).unwrap();
    let mut up = home.start(&["up"]);
    let gateway = up.listening();
    home.write("manifests/openclaw/own.json", "{ half");
    up.line("own.json");
    up.line("not reloaded");
    assert_eq!(metric(gateway, "farrier_config_generation").await, 1.0);

    let own = json!({
        "id": "own", "agent": "any", "description": "names results of a model of our own",
        "match": {"modelIds": ["own/model"]},
        "effects": {"gateway": [{"pass": "tool-result-without-name"}]},
        "evidence": {"firstSeen": "2026-05-05", "sources": ["https://example.org/1"], "removeWhen": "never"}
    });
    home.write("manifests/any/own.json", &own.to_string());
    fs::remove_file(home.path().join("manifests/openclaw/own.json")).unwrap();
    up.line(RELOADED);
    assert!(knows(gateway, "m").await);
    ends_well(up);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_waited_for() {
    let home = home();
    let upstream = ScriptedUpstream::bind().await;
    home.write("farrier.toml", &leading("one", &upstream));
    let mut up = home.start(&["up"]);
    let gateway = up.listening();
    // The configuration names a key that is not there yet, in a directory that is not there yet.
    let text = with_key_file(&upstream, "secrets/mounted/rack.key").replace(KIMI, "two");
    home.write("farrier.toml", &text);
    up.line("not reloaded");
    assert!(knows(gateway, "one").await);
    secret(&home, "secrets/mounted/rack.key", "sk-late");
    up.line(RELOADED);
    assert!(knows(gateway, "two").await);

    // It goes away whole, and comes back.
    let aside = home.path().join("aside.toml");
    fs::rename(home.path().join("farrier.toml"), &aside).unwrap();
    up.line("cannot read farrier.toml");
    assert!(knows(gateway, "two").await);
    fs::write(&aside, leading("three", &upstream)).unwrap();
    fs::rename(&aside, home.path().join("farrier.toml")).unwrap();
    up.line(RELOADED);
    assert!(knows(gateway, "three").await);
    ends_well(up);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_watch_is_switched_by_the_configuration_itself() {
    let home = home();
    let upstream = ScriptedUpstream::bind().await;
    home.write("farrier.toml", &leading("one", &upstream));
    let mut up = home.start(&["up"]);
    let gateway = up.listening();
    home.write("farrier.toml", &unwatched(&leading("two", &upstream)));
    up.line(RELOADED);
    assert_eq!(status(&home)["watching"], false);
    home.write("farrier.toml", &leading("three", &upstream));
    assert_eq!(home.run(&["reload"]).code, Some(0));
    let line = up.line(RELOADED);
    assert!(line.contains("asked to"), "{line}");
    assert_eq!(status(&home)["watching"], true);
    home.write("farrier.toml", &leading("four", &upstream));
    up.line(RELOADED);
    assert!(knows(gateway, "four").await);
    ends_well(up);
}

#[test]
fn a_log_for_programs_stays_one_through_reloads() {
    let home = home();
    home.write(
        "farrier.toml",
        &unwatched(&configuration("http://127.0.0.1:1/v1")),
    );
    let mut up = home.start(&["up", "--log", "json"]);
    up.line("\"message\":\"listening\"");
    up.signal(Signal::HUP);
    up.line("\"message\":\"reloaded\"");
    home.write("farrier.toml", "[[provider]]\n");
    up.signal(Signal::HUP);
    let line = up.line("farrier.toml:1: expected name");
    let event: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(event["level"], "ERROR");
    up.line("not reloaded");
    up.signal(Signal::TERM);
    let said = up.ended();
    assert_eq!(said.code, Some(0));
    for line in said.stderr.lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok(), "{line}");
    }
}

// === the control socket ===

#[test]
fn nobody_to_ask_says_so_and_who_else_there_is() {
    let home = home();
    home.write("farrier.toml", &configuration("http://127.0.0.1:1/v1"));
    home.write(
        "other/farrier.toml",
        &configuration("http://127.0.0.1:1/v1"),
    );
    let said = home.run(&["reload"]);
    assert_eq!(said.code, Some(1));
    assert!(
        said.stderr
            .starts_with("error: expected a running gateway at "),
        "{}",
        said.stderr
    );
    assert!(!said.stderr.contains("--socket"), "{}", said.stderr);

    let mut other = home.start(&["up", "--config", "other/farrier.toml"]);
    other.listening();
    let control = other.line("  control");
    let socket = control.split_whitespace().nth(1).unwrap().to_owned();
    let said = home.run(&["status"]);
    assert!(
        said.stderr.contains(&format!(
            "other gateways may be at {socket}; name one with --socket"
        )),
        "{}",
        said.stderr
    );
    assert_eq!(home.run(&["status", "--socket", &socket]).code, Some(0));
    ends_well(other);
    assert!(!Path::new(&socket).exists());
}

#[test]
fn a_gateway_that_was_killed_leaves_its_place_to_the_next_and_one_that_lives_keeps_it() {
    let home = home();
    home.write("farrier.toml", &configuration("http://127.0.0.1:1/v1"));
    let socket = home.path().join("run/gateway.sock");
    let name = socket.to_str().unwrap();
    let mut first = home.start(&["up", "--socket", name]);
    first.listening();
    first.signal(Signal::KILL);
    assert_eq!(first.ended().code, None);
    assert!(socket.exists());

    let mut second = home.start(&["up", "--socket", name]);
    second.listening();
    second.line("  control");
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (mode(&socket), mode(socket.parent().unwrap())),
        (0o600, 0o700)
    );
    home.write(
        "other.toml",
        &format!(
            "{}\n[ledger]\npath = \"other.db\"\n",
            configuration("http://127.0.0.1:1/v1")
        ),
    );
    let third = home.run(&["up", "--config", "other.toml", "--socket", name]);
    assert_eq!(
        third.shown(),
        format!(
            "--- stderr\nerror: a running gateway has the control socket {name}\n  \
             hint: `farrier status` says which; give this one a place of its own with --socket\n--- exit 1"
        )
    );
    let told = home.run(&["status", "--json", "--socket", name]);
    assert_eq!(told.code, Some(0), "{}", told.stderr);
    ends_well(second);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_without_a_place_for_a_socket_has_a_gateway_all_the_same() {
    let home = home();
    let upstream = ScriptedUpstream::bind().await;
    let text = unwatched(&leading("one", &upstream));
    home.write(
        "farrier.toml",
        &format!("{text}\n[ledger]\npath = \"turns.db\"\n"),
    );
    // A file where the directory would be.
    home.write(".local/state/farrier", "");
    let mut up = home.start(&["up"]);
    up.line("no place for a control socket");
    let gateway = up.listening();
    home.write(
        "farrier.toml",
        &format!(
            "{}\n[ledger]\npath = \"turns.db\"\n",
            text.replace("one", "two")
        ),
    );
    up.signal(Signal::HUP);
    up.line(RELOADED);
    assert!(knows(gateway, "two").await);
    ends_well(up);
}
