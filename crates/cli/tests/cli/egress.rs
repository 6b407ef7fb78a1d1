//! The proxies of sandboxes, as they are run and asked about.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use farrier_testkit::ScriptedUpstream;
use insta::assert_snapshot;
use rustix::process::Signal;

use crate::home::Home;
use crate::up::configuration;

const POLICY: &str = r#"
version: 1
network_policies:
  models:
    endpoints:
      - { host: api.example.com, port: 443, protocol: rest, access: read-only }
    binaries: [ { path: /usr/bin/curl } ]
"#;
const EGRESS: &str = r#"
[[egress]]
name = "work"
listen = "127.0.0.1:0"
policy = "work.yaml"
providers = ["nobody"]
"#;

fn home(upstream: &ScriptedUpstream) -> Home {
    let home = Home::new().with("PERSONA_KEY", "canary-key");
    home.write("work.yaml", POLICY);
    home.write(
        "farrier.toml",
        &(configuration(&upstream.base_url()) + EGRESS),
    );
    home
}

/// What the proxy answers a client that wants a tunnel.
fn connect(proxy: &str, authority: &str) -> String {
    let mut stream = TcpStream::connect(proxy).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    write!(
        stream,
        "CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n\r\n"
    )
    .unwrap();
    let mut answer = [0; 4096];
    let length = stream.read(&mut answer).unwrap();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

#[tokio::test]
async fn a_refusal_is_recorded_suggested_and_taken_over_without_a_restart() {
    let upstream = ScriptedUpstream::bind().await;
    let home = home(&upstream);
    let mut running = home.start(&["up"]);
    let told = running.line("egress");
    let proxy = told.rsplit("http://").next().unwrap().trim().to_owned();
    let refused = connect(&proxy, "api.new.example:443");
    assert!(
        refused.starts_with("HTTP/1.1 403") && refused.contains("policy_denied"),
        "{refused}"
    );
    let logs = home.run(&["logs", "--egress", "--denied"]);
    assert!(
        logs.stdout
            .contains("work denied  tunnel api.new.example:443"),
        "{}",
        logs.stdout
    );
    let json = home.run(&["logs", "--egress", "--json", "--sandbox", "work"]);
    let line: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(line["code"], "policy_denied");
    let suggested = home.run(&["policy", "suggest"]);
    assert!(
        suggested.stdout.contains("api.new.example"),
        "{}",
        suggested.stdout
    );
    home.write("work.yaml", &suggested.stdout);
    running.line(": reloaded ");
    // Allowed now, and there is no such name.
    assert!(connect(&proxy, "api.new.example:443").contains("upstream_"));
    assert!(connect(&proxy, "api.example.com:443").contains("policy_denied"));
    running.signal(Signal::TERM);
    assert_eq!(running.ended().code, Some(0));
    for (path, bytes) in home.files() {
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains("canary-key"), "{}", path.display());
    }
}

#[tokio::test]
async fn an_explanation_names_the_rule_and_what_every_endpoint_says() {
    let upstream = ScriptedUpstream::bind().await;
    let home = home(&upstream);
    let said = home.run(&["policy", "explain", "https://api.example.com/v1/models"]);
    assert_snapshot!(said.shown(), @r#"
    --- stdout
    GET https://api.example.com/v1/models: allowed, by network_policies.models.endpoints[0].access
      looked into: always
      network_policies.models.endpoints[0].access  allows it
    --- exit 0
    "#);
    let said = home.run(&[
        "policy",
        "explain",
        "--method",
        "post",
        "https://api.example.com/v1/models",
    ]);
    assert_snapshot!(said.shown(), @r#"
    --- stdout
    POST https://api.example.com/v1/models: refused, by network_policies.models.endpoints[0]
      expected a request that the policy allows, got POST /v1/models
      looked into: always
      network_policies.models.endpoints[0]  has no rule that allows it
    --- exit 1
    "#);
    let said = home.run(&[
        "policy",
        "explain",
        "elsewhere.example:22",
        "--policy",
        "work.yaml",
        "--json",
    ]);
    let explained: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(
        (said.code, &explained["allowed"]),
        (Some(1), &serde_json::json!(false))
    );
}

#[test]
fn a_policy_with_mistakes_is_refused_with_all_of_them() {
    let home = Home::new();
    home.write("bad.yaml", "version: 1\nnetwork_policies:\n  a:\n    endpoints:\n      - { host: \"*.com\", port: 443 }\n");
    home.write("good.yaml", POLICY);
    assert_snapshot!(home.run(&["policy", "check", "bad.yaml", "good.yaml"]).shown(), @r#"
    --- stdout
    good.yaml: no mistakes (1 endpoint)
    --- stderr
    bad.yaml: line 5: network_policies.a.endpoints[0]: expected a wildcard below a domain of its owner's, such as *.example.com, got "*.com"
    warning: good.yaml: network_policies.models: binaries are not judged; the rule holds for every program of the sandbox
    --- exit 1
    "#);
}
