//! Nothing that is secret is ever shown.

use farrier_gateway::config::{Client, Credential, TraceConfig};
use farrier_secrets::Secret;
use farrier_testkit::{RawClient, ScriptedUpstream};
use tracing_subscriber::filter::LevelFilter;

use crate::support::{KIMI, Log, PLAIN, Running, Setup, event};

const CLIENT_KEY: &str = "sk-client-canary-0d5f";
const CREDENTIAL: &str = "sk-provider-canary-81be";
const CLIENT_KEY_FIELD: [(&str, &str); 1] = [("authorization", "Bearer sk-client-canary-0d5f")];
const CHAT: &str = "POST /v1/chat/completions";
const TEXT: &str = "wordcanary";

fn secret(text: &str) -> Secret {
    Secret::new(text.to_owned()).unwrap()
}

fn ask(model: &str) -> String {
    format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"{TEXT}"}}]}}"#)
}

#[tokio::test]
async fn keys_and_words_are_in_no_log_answer_metric_or_transcript() {
    let log = Log::default();
    let _guard = log.collect(LevelFilter::TRACE);
    let upstream = ScriptedUpstream::bind().await;
    let mut setup = Setup::on(&upstream);
    let traces = setup.dir.path().join("traces");
    setup.config.trace = Some(TraceConfig::new(&traces));
    setup.config.clients = vec![Client::new("a", secret(CLIENT_KEY))];
    setup.config.providers[0].credential = Some(Credential::bearer(secret(CREDENTIAL)));
    assert_hidden("the configuration", &format!("{:?}", setup.config));
    let Setup { config, dir: _dir } = setup;
    let gateway = Running::start(config).await;

    answered(&gateway, &upstream).await;
    let mut shown = refused(&gateway).await;
    shown.push(failed(&gateway, &upstream).await);
    shown.push(
        request(&gateway, "GET /metrics", &CLIENT_KEY_FIELD, String::new())
            .await
            .response()
            .await
            .text(),
    );
    gateway.drain().await;

    shown
        .iter()
        .for_each(|text| assert_hidden("an answer", text));
    assert_hidden("the log", &log.text());
    let folders = traces
        .read_dir()
        .unwrap()
        .map(|folder| folder.unwrap().path());
    let files: Vec<_> = folders
        .flat_map(|folder| folder.read_dir().unwrap())
        .map(|file| file.unwrap().path())
        .collect();
    assert!(
        files.len() > 10,
        "only {} files of transcripts",
        files.len()
    );
    for path in files {
        assert_hidden(
            &path.display().to_string(),
            &std::fs::read_to_string(&path).unwrap(),
        );
    }
}

async fn request(
    gateway: &Running,
    line: &str,
    headers: &[(&str, &str)],
    body: String,
) -> RawClient {
    let mut client = gateway.client().await;
    client.request(line, headers, body).await;
    client
}

/// Requests that a provider answers, with what was asked.
async fn answered(gateway: &Running, upstream: &ScriptedUpstream) {
    let stream = "200 OK\r\ncontent-type: text/event-stream";
    for (model, head) in [(PLAIN, "200 OK"), (KIMI, stream), (KIMI, "500 Oops")] {
        let mut client = request(gateway, CHAT, &CLIENT_KEY_FIELD, ask(model)).await;
        let (mut peer, _) = upstream.recv().await;
        let said = event(
            &format!("{{\"reasoning_content\":\"{TEXT}\",\"content\":\"{TEXT}\"}}"),
            Some("stop"),
        );
        peer.reply(&format!("{head}\r\nconnection: close"), said)
            .await;
        assert!(
            client.response().await.text().contains(TEXT),
            "the client itself gets the words"
        );
    }
}

/// What the gateway says to requests that it refuses.
async fn refused(gateway: &Running) -> Vec<String> {
    let wrong = [("x-api-key", CREDENTIAL)];
    let right = CLIENT_KEY_FIELD;
    let mut answers = Vec::new();
    for (headers, body) in [
        (right, ask("absent")),
        (right, format!("{{\"{TEXT}\"")),
        (right, format!("{{\"messages\":\"{TEXT}\"}}")),
        (wrong, ask(PLAIN)),
    ] {
        let response = request(gateway, CHAT, &headers, body)
            .await
            .response()
            .await;
        assert!(response.status >= 400);
        answers.push(response.text());
    }
    answers
}

/// What the gateway says when the provider hangs up.
async fn failed(gateway: &Running, upstream: &ScriptedUpstream) -> String {
    let mut client = request(gateway, CHAT, &CLIENT_KEY_FIELD, ask(KIMI)).await;
    let (peer, _) = upstream.recv().await;
    drop(peer);
    client.response().await.text()
}

#[track_caller]
fn assert_hidden(place: &str, text: &str) {
    for canary in [CLIENT_KEY, CREDENTIAL, TEXT] {
        let line = text.lines().find(|line| line.contains(canary));
        assert_eq!(line, None, "{canary} in {place}");
    }
}
