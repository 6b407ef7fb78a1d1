//! Programs that ask one thing: they hold a placeholder, the destination sees the key.

use std::process::Command;

use http::Version;
use serde::Deserialize;

use super::destination::{Answer, Destination};
use super::sandbox::{Key, Place, Provider, Sandbox};
use crate::client::{current_node_program, current_python, node_of_its_own, python_program};

const KEY: &str = "OPENAI_API_KEY";
const SECRET: &str = "sk-canary-reached";
const BODY: &str = r#"{"data":[]}"#;

/// What a program says of its request.
#[derive(Debug, Deserialize)]
pub(crate) struct Report {
    pub(crate) status: Option<u16>,
    pub(crate) body: Option<String>,
    pub(crate) error: Option<String>,
}

/// A destination that answers everything, and a provider there.
pub(crate) fn sandbox() -> Sandbox {
    let destination = Destination::start(|_| |_: &_| Answer::json(200, BODY.to_owned()));
    let provider = Provider {
        name: "openai",
        kind: "openai",
        path: "/v1",
        keys: vec![Key::of_environment(KEY, SECRET)],
    };
    Sandbox::set(destination, &[provider])
}

/// Runs a client that ends by itself.
fn reported(sandbox: &Sandbox, mut client: Command, place: Place) -> Report {
    let url = sandbox.destination.url("/v1/models");
    let placeholder = format!("farrier:resolve:env:{KEY}");
    client.arg(url);
    let client = sandbox.send(&mut client, place).env(KEY, placeholder);
    let output = client.output().unwrap();
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}{stderr}"))
}

/// The destination sees the key where there is a provider, and nothing where there is none.
fn reaches(client: impl Fn() -> Command, version: Version) {
    let sandbox = sandbox();
    let through = reported(&sandbox, client(), Place::Work);
    assert_eq!((through.status, &through.error), (Some(200), &None));
    assert_eq!(through.body.as_deref(), Some(BODY));
    let seen = sandbox.destination.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].header("authorization"), format!("Bearer {SECRET}"));
    assert_eq!(
        (seen[0].method.as_str(), seen[0].target.as_str()),
        ("GET", "/v1/models")
    );
    assert_eq!(seen[0].version, version);

    let refused = reported(&sandbox, client(), Place::Bare);
    assert_eq!(refused.status, Some(500), "{refused:?}");
    let body: serde_json::Value = serde_json::from_str(&refused.body.unwrap()).unwrap();
    assert_eq!(body["error"]["code"], "credential_unavailable");
    assert_eq!(body["error"]["type"], "egress_refused");
    assert_eq!(sandbox.destination.seen().len(), 1, "it was forwarded");

    let decisions = sandbox.decisions();
    let of = |place: &str| {
        let of_place =
            |line: &&serde_json::Value| line["sandbox"] == place && line["kind"] == "request";
        decisions.iter().find(of_place).unwrap()
    };
    assert_eq!(of("work")["verdict"], "allowed");
    assert_eq!(of("work")["credentials"][0], "openai/OPENAI_API_KEY");
    assert_eq!(of("bare")["verdict"], "denied");
    assert_eq!(of("bare")["code"], "credential_unavailable");
    let (_home, _said) = sandbox.end();
}

/// curl, which reports as the programs do.
fn curl(version: &'static str) -> impl Fn() -> Command {
    move || {
        let mut curl = Command::new("sh");
        // The key comes from the environment here too.
        curl.args(["-c", CURL, version]);
        curl
    }
}

const CURL: &str = r#"
body=$(curl --silent --show-error --max-time 20 "$0" --header "Authorization: Bearer $OPENAI_API_KEY" \
    --write-out '\n%{http_code}' "$1") || exit
printf '{"status":%s,"body":"%s"}' "${body##*
}" "$(printf %s "${body%
*}" | sed 's/["\\]/\\&/g')"
"#;

fn python(program: &'static str) -> impl Fn() -> Command {
    move || {
        let mut python = current_python();
        python.arg(python_program(program));
        python
    }
}

#[test]
fn real_client_curl_has_its_placeholder_replaced_over_http_1() {
    reaches(curl("--http1.1"), Version::HTTP_11);
}

#[test]
fn real_client_curl_has_its_placeholder_replaced_over_http_2() {
    reaches(curl("--http2"), Version::HTTP_2);
}

#[test]
fn real_client_requests_for_python_has_its_placeholder_replaced() {
    reaches(python("reach_requests.py"), Version::HTTP_11);
}

#[test]
fn real_client_httpx_for_python_has_its_placeholder_replaced() {
    reaches(python("reach_httpx.py"), Version::HTTP_11);
}

#[test]
fn real_client_fetch_of_node_has_its_placeholder_replaced() {
    let node = || {
        let mut node = node_of_its_own();
        node.arg(current_node_program("reach_fetch.mjs"));
        node
    };
    reaches(node, Version::HTTP_11);
}
