//! What a sandbox can reach: its model, and nothing else.

use farrier_testkit::RawRequest;
use serde_json::{Value, json};

use super::{CANARY, KIMI, Stage, completion, home, make, reply, serving, sh};
use crate::up::configuration;

fn asked_with(request: &RawRequest) -> Option<&str> {
    request.headers.first("authorization")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_model_is_that_of_its_route_and_the_provider_is_given_the_key() {
    let (home, provider) = home().await;
    let other = "\n[[route]]\nmodel = \"other/model\"\nprovider = \"persona\"\nupstream_model = \"other\"\n";
    home.write(
        "farrier.toml",
        &(configuration(&provider.base_url()) + other),
    );
    let up = serving(&home, &["up"]);
    make(&home, "work", &[]);
    let listed = sh(&home, "work", "curl -sS https://inference.local/v1/models");
    let listed: Value = serde_json::from_str(&listed.stdout).unwrap();
    let ids: Vec<_> = listed["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| &model["id"])
        .collect();
    assert_eq!(ids, [&json!(KIMI)]);

    let curl = home.start(&[
        "sandbox",
        "exec",
        "work",
        "--",
        "sh",
        "-c",
        &completion(KIMI, false),
    ]);
    let (mut peer, request) = provider.recv().await;
    assert_eq!(asked_with(&request), Some("Bearer sk-canary-upstream"));
    peer.reply("200 OK\r\ncontent-type: application/json", reply("well"))
        .await;
    let said = curl.ended();
    let body: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(
        body["choices"][0]["message"]["content"],
        "well",
        "{}",
        said.shown()
    );
    assert!(!said.shown().contains(CANARY));

    // What the gateway has besides is not this sandbox's to ask for.
    let said = sh(&home, "work", &completion("other/model", false));
    assert!(said.stdout.contains("\"error\""), "{}", said.shown());
    drop(up);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_comes_piece_by_piece_also_to_a_program_that_is_not_curl() {
    let stage = Stage::set().await;
    stage.make("work", &[]);
    let body =
        json!({"model": KIMI, "stream": true, "messages": [{"role": "user", "content": "hello"}]});
    let script = format!(
        "import sys, urllib.request as u\n\
         r = u.Request('https://inference.local/v1/chat/completions', {body:?}.encode(), {{'content-type': 'application/json'}})\n\
         for line in u.urlopen(r, timeout=20):\n    sys.stderr.write(line.decode()); sys.stderr.flush()\n",
        body = body.to_string()
    );
    let mut python = stage.home.start(&[
        "sandbox",
        "exec",
        "work",
        "--",
        "/usr/bin/python3",
        "-c",
        &script,
    ]);
    let (mut peer, request) = stage.provider.recv().await;
    assert_eq!(asked_with(&request), Some("Bearer sk-canary-upstream"));
    peer.start_stream().await;
    for word in ["one", "two"] {
        let delta =
            json!({"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": null}]});
        peer.send_chunk(format!("data: {delta}\n\n")).await;
        // The next is not sent before this has come.
        python.line(word);
    }
    let end = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]});
    peer.send_chunk(format!("data: {end}\n\ndata: [DONE]\n\n"))
        .await;
    peer.end_chunks().await;
    python.line("[DONE]");
    assert_eq!(python.ended().code, Some(0));
    stage.ends_well();
}

#[tokio::test(flavor = "multi_thread")]
async fn other_hosts_are_refused_also_to_programs_that_know_of_no_proxy() {
    let stage = Stage::set().await;
    stage.make("work", &[]);
    let tunnel = stage.said(
        "work",
        "curl -sS -m 10 -o /dev/null -w '%{http_connect}' https://example.com 2>/dev/null || true",
    );
    assert_eq!(tunnel, "403");
    for url in [
        "https://example.com",
        "http://example.com",
        "https://1.1.1.1/",
    ] {
        let answer = stage.said(
            "work",
            &format!("curl -sS -k -m 10 --noproxy '*' -w ' %{{http_code}}' {url}"),
        );
        assert!(
            answer.contains("policy_denied") && answer.ends_with(" 403"),
            "{url}: {answer}"
        );
    }
    let recorded = stage.done(&["logs", "--egress", "--denied", "--sandbox", "work"]);
    assert!(recorded.contains("example.com:443"), "{recorded}");
    stage.ends_well();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_listens_on_the_host_is_out_of_reach() {
    let (home, provider) = home().await;
    let mut up = home.start(&["up"]);
    let gateway = up.listening();
    make(&home, "work", &[]);
    for address in [gateway, provider.addr()] {
        let past = format!("curl -sS -m 10 --noproxy '*' http://{address}/v1/models");
        assert_eq!(sh(&home, "work", &past).code, Some(7), "{address}");
        let through = format!(
            "curl -sS -m 10 --noproxy '' -x http://127.0.0.1:3128 http://{address}/v1/models"
        );
        let said = sh(&home, "work", &through);
        assert!(
            said.stdout.contains("policy_denied"),
            "{address}: {}",
            said.shown()
        );
    }
    // Neither is the control socket.
    let control = home.path().join(".local/state");
    assert_ne!(
        sh(&home, "work", &format!("ls {}", control.display())).code,
        Some(0)
    );
    assert!(control.is_dir());
}
