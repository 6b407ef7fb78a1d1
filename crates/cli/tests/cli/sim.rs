use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use farrier_testkit::RawClient;
use rustix::process::Signal;

use crate::home::Home;

#[test]
fn the_personas_are_listed() {
    let said = Home::new().run(&["sim", "--list", "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(listed[0]["name"], "kimi-k2.6");
}

#[test]
fn an_unknown_persona_gets_the_nearest() {
    let said = Home::new().run(&["sim", "kimi-k26"]);
    insta::assert_snapshot!(said.shown(), @r#"
    --- stderr
    error: expected a persona, got "kimi-k26"
      hint: did you mean "kimi-k2.6"
    --- exit 1
    "#);
}

#[test]
fn a_key_on_the_command_line_is_refused_and_not_repeated() {
    let said = Home::new().run(&["sim", "--bearer", "sk-canary"]);
    assert_eq!(said.code, Some(2));
    assert!(!said.stderr.contains("canary"), "{}", said.stderr);
}

#[tokio::test]
async fn a_persona_says_where_it_listens_answers_and_ends_by_a_signal() {
    let home = Home::new().with("SIM_KEY", "sk-canary");
    let mut command = home.command(&["sim", "--json", "--bearer", "env:SIM_KEY", "--rounds", "1"]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut told = String::new();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    while serde_json::from_str::<serde_json::Value>(&told).is_err() {
        told += &lines.next().unwrap().unwrap();
    }
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    let url = told["base_url"].as_str().unwrap();
    let address = url.trim_start_matches("http://").trim_end_matches("/v1");
    let mut client = RawClient::connect(address.parse().unwrap()).await;
    client.get("/v1/models").await;
    assert_eq!(client.response().await.status, 401);
    client
        .request(
            "GET /v1/models",
            &[("authorization", "Bearer sk-canary")],
            "",
        )
        .await;
    assert_eq!(client.response().await.status, 200);
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
