//! Transcripts.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use farrier_gateway::config::TraceConfig;
use farrier_testkit::ScriptedUpstream;
use farrier_testkit::corpus::Case;

use crate::support::{KIMI, Running, Setup, call, event};

/// One turn through a gateway that keeps transcripts, then its end.
async fn traced(keep_text: bool, rounds: usize, max_cases: usize) -> (tempfile::TempDir, PathBuf) {
    let upstream = ScriptedUpstream::bind().await;
    let mut setup = Setup::on(&upstream);
    let traces = setup.dir.path().join("traces");
    setup.config.trace = Some(TraceConfig {
        keep_text,
        max_cases,
        ..TraceConfig::new(&traces)
    });
    let Setup { config, dir } = setup;
    let gateway = Running::start(config).await;
    for _ in 0..rounds {
        let mut client = gateway.client().await;
        let body = format!(
            r#"{{"model":"{KIMI}","stream":true,"messages":[{{"role":"user","content":"Is it 42?"}}]}}"#
        );
        client
            .request(
                "POST /v1/chat/completions",
                &[("x-farrier-agent", "openclaw")],
                body,
            )
            .await;
        let (mut peer, _) = upstream.recv().await;
        let said = event("{\"reasoning_content\":\"Hm, 42\"}", None)
            + &event(&call("functions.exec:0"), Some("tool_calls"))
            + "data: [DONE]\n\n";
        peer.reply(
            "200 OK\r\ncontent-type: text/event-stream\r\nconnection: close",
            said,
        )
        .await;
        client.response().await;
    }
    gateway.drain().await;
    (dir, traces)
}

fn folders(traces: &Path) -> Vec<PathBuf> {
    let mut folders: Vec<_> = traces
        .read_dir()
        .unwrap()
        .map(|folder| folder.unwrap().path())
        .collect();
    folders.sort();
    folders
}

#[tokio::test]
async fn a_transcript_has_the_corpus_files_with_words_masked() {
    let (_dir, traces) = traced(false, 1, 10).await;
    let [folder] = folders(&traces).try_into().unwrap();
    let read = |name: &str| {
        fs::read_to_string(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    let request = format!(
        r#"{{"model":"{KIMI}","stream":true,"messages":[{{"role":"user","content":"Xx xx 00?"}}]}}"#
    );
    assert_eq!(read("request.json"), request);
    assert_eq!(
        read("upstream-request.json"),
        request.replace(KIMI, "kimi-k2.6")
    );
    let upstream = read("upstream.sse");
    assert!(
        upstream.starts_with(&event("{\"reasoning_content\":\"Xx, 00\"}", None)),
        "{upstream}"
    );
    assert!(
        upstream.contains("functions.exec:0") && upstream.ends_with("data: [DONE]\n\n"),
        "{upstream}"
    );
    assert!(!read("client.sse").contains("functions.exec:0"));
    let case = read("case.toml");
    for line in [
        "status = 200",
        "ending = \"complete\"",
        "agent = \"openclaw\"",
        "model = \"kimi-k2.6\"",
        "pass = \"tool-call-id-mangled\"",
        "what = \"minted\"",
    ] {
        assert!(case.lines().any(|got| got == line), "no {line} in\n{case}");
    }
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (
            mode(&traces),
            mode(&folder),
            mode(&folder.join("request.json"))
        ),
        (0o700, 0o700, 0o600)
    );
}

#[tokio::test]
async fn a_transcript_keeps_words_when_asked_to() {
    let (_dir, traces) = traced(true, 1, 10).await;
    let [folder] = folders(&traces).try_into().unwrap();
    assert!(
        fs::read_to_string(folder.join("request.json"))
            .unwrap()
            .contains("Is it 42?")
    );
}

#[tokio::test]
async fn no_more_transcripts_are_written_than_allowed() {
    let (_dir, traces) = traced(false, 3, 2).await;
    assert_eq!(folders(&traces).len(), 2);
}

#[tokio::test]
async fn a_transcript_is_a_case_of_the_corpus() {
    let (_dir, traces) = traced(false, 1, 10).await;
    let folder = folders(&traces).remove(0);
    let case = Case::load(&folder);
    assert_eq!(case.ending, "complete");
    assert_eq!(case.facts().agent.as_deref(), Some("openclaw"));
    assert_eq!(case.facts().client.model, KIMI);
}
