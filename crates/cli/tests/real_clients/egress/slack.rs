//! A Slack app in socket mode, on Slack's own SDK.
//!
//! ```text
//! app ─▶ POST /api/apps.connections.open   Bearer xapp-…   ◀─ {"ok":true,"url":"wss://…"}
//!     ─▶ WebSocket                         ◀─ hello, an envelope   ─▶ {"envelope_id":…}
//!     ─▶ POST /api/chat.postMessage        Bearer xoxb-…
//! ```

use std::process::Command;

use serde_json::{Value, json};

use super::destination::{Answer, Destination, HOST, Seen};
use super::sandbox::{Key, Place, Provider, Sandbox};
use crate::client::{current_python, python_program};

const APP_SECRET: &str = "xapp-1-canary-app";
const BOT_SECRET: &str = "xoxb-canary-bot";
/// The SDK looks at how a token begins.
const APP_PLACEHOLDER: &str = "xapp-OPENSHELL-RESOLVE-ENV-SLACK_APP_TOKEN";
const BOT_PLACEHOLDER: &str = "xoxb-OPENSHELL-RESOLVE-ENV-SLACK_BOT_TOKEN";
const ENVELOPE: &str = "dbdd0ef3-1543-4f94-bfb4-133d0e6c1545";

fn slack(port: u16, seen: &Seen) -> Answer {
    let refused = || {
        Answer::json(
            200,
            json!({"ok": false, "error": "invalid_auth"}).to_string(),
        )
    };
    let path = seen.target.split('?').next().unwrap_or_default();
    let token = seen.header("authorization").trim_start_matches("Bearer ");
    match path {
        "/api/apps.connections.open" if token == APP_SECRET => {
            let url = format!("wss://{HOST}:{port}/link/?ticket=1234-5678&app_id=A1");
            Answer::json(200, json!({"ok": true, "url": url}).to_string())
        }
        "/api/chat.postMessage" if token == BOT_SECRET => {
            Answer::json(200, json!({"ok": true, "ts": "1.1"}).to_string())
        }
        "/link/" => Answer::Talk(vec![
            json!({"type": "hello", "num_connections": 1}).to_string(),
            json!({
                "envelope_id": ENVELOPE, "type": "events_api", "accepts_response_payload": false,
                "payload": {"event": {"type": "message", "channel": "C1", "text": "are you there?"}},
            })
            .to_string(),
        ]),
        _ => refused(),
    }
}

fn sandbox() -> Sandbox {
    let destination = Destination::start(|port| move |seen: &Seen| slack(port, seen));
    let provider = Provider {
        name: "slack",
        kind: "slack",
        path: "/api",
        keys: vec![
            Key::of_environment("SLACK_BOT_TOKEN", BOT_SECRET),
            Key::of_environment("SLACK_APP_TOKEN", APP_SECRET),
        ],
    };
    Sandbox::set(destination, &[provider])
}

fn reported(sandbox: &Sandbox, place: Place) -> Value {
    let mut app: Command = current_python();
    app.arg(python_program("slack_socket.py"))
        .arg(sandbox.destination.url("/api/"));
    let app = sandbox
        .send(&mut app, place)
        .env("SLACK_APP_TOKEN", APP_PLACEHOLDER)
        .env("SLACK_BOT_TOKEN", BOT_PLACEHOLDER);
    let output = app.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"))
}

#[test]
fn real_client_slack_takes_and_acknowledges_an_event_in_socket_mode() {
    let sandbox = sandbox();
    assert_eq!(
        reported(&sandbox, Place::Work),
        json!({"ok": true, "text": "are you there?"})
    );
    let heard: Value = serde_json::from_str(&sandbox.destination.heard(1)[0]).unwrap();
    assert_eq!(heard["envelope_id"], ENVELOPE);
    let seen = sandbox.destination.seen();
    let of = |path: &str| seen.iter().find(|seen| seen.target.starts_with(path));
    let opened = of("/api/apps.connections.open").unwrap();
    assert_eq!(
        opened.header("authorization"),
        format!("Bearer {APP_SECRET}")
    );
    // The address carries a ticket, which passes as it is; no key goes with it.
    let link = of("/link/").unwrap();
    assert_eq!(link.target, "/link/?ticket=1234-5678&app_id=A1");
    assert_eq!(link.header("authorization"), "");
    let posted = of("/api/chat.postMessage").unwrap();
    assert_eq!(
        posted.header("authorization"),
        format!("Bearer {BOT_SECRET}")
    );
    let body = String::from_utf8_lossy(&posted.body);
    assert!(body.contains("heard"), "{body}");
    let (_home, _said) = sandbox.end();
}

#[test]
fn real_client_slack_without_the_attachment_is_refused_before_slack_hears_of_it() {
    let sandbox = sandbox();
    let report = reported(&sandbox, Place::Bare);
    assert_eq!(report["ok"], false, "{report}");
    let error = report["error"].as_str().unwrap();
    assert!(error.contains("credential_unavailable"), "{error}");
    assert_eq!(sandbox.destination.seen().len(), 0, "it was forwarded");
    let (_home, _said) = sandbox.end();
}
