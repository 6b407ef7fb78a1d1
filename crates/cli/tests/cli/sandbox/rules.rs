//! Where a sandbox may go and whose keys are used for it, changed while it runs.

use farrier_testkit::ScriptedUpstream;
use serde_json::Value;

use super::{Stage, Watched, fed, processes};

const KEY: &str = "sk-canary-attached";

/// What the destination hears from a program in the sandbox that is told of a placeholder.
async fn heard(stage: &Stage, destination: &ScriptedUpstream, curl: &str) -> Option<String> {
    let curl = stage
        .home
        .start(&["sandbox", "exec", "work", "--", "sh", "-c", curl]);
    let (mut peer, request) = destination.recv().await;
    peer.reply("200 OK", "heard").await;
    let said = curl.ended();
    assert_eq!(said.stdout, "heard", "{}", said.shown());
    request.headers.first("authorization").map(str::to_owned)
}

/// Why a request is refused.
fn refusal(stage: &Stage, curl: &str) -> String {
    let body: Value = serde_json::from_str(&stage.said("work", curl)).unwrap();
    body["error"]["code"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_sandbox_goes_by_a_new_policy_and_by_keys_that_come_and_go() {
    let stage = Stage::set().await;
    let destination = ScriptedUpstream::bind().await;
    let add = [
        "provider",
        "add",
        "mine",
        "--type",
        "generic",
        "--base-url",
        &destination.base_url(),
        "--credential",
        "MY_KEY=-",
    ];
    let said = fed(stage.home.command(&add), KEY.as_bytes());
    assert_eq!(said.code, Some(0), "{}", said.shown());
    let policy = format!(
        "version: 1\nnetwork_policies:\n  mine:\n    endpoints:\n      - {{ host: 127.0.0.1, port: {}, protocol: rest, access: full, allowed_ips: [127.0.0.0/8] }}\n",
        destination.addr().port()
    );
    stage.home.write("work.yaml", &policy);
    stage.make("work", &[]);
    let before = processes(stage.home.path());
    let since = stage.status("work")["since_unix_ms"].clone();
    let url = format!("{}/things", destination.base_url());
    let curl = format!(
        "curl -sS -m 15 --noproxy '' -x $HTTPS_PROXY {url} -H 'authorization: Bearer farrier:resolve:env:MY_KEY'"
    );

    assert_eq!(refusal(&stage, &curl), "policy_denied");
    stage.done(&["sandbox", "policy", "work", "work.yaml"]);
    assert_eq!(refusal(&stage, &curl), "credential_unavailable");
    stage.done(&["sandbox", "attach", "work", "mine"]);
    assert_eq!(
        heard(&stage, &destination, &curl).await.unwrap(),
        format!("Bearer {KEY}")
    );
    assert_eq!(
        stage.status("work")["spec"]["providers"],
        serde_json::json!(["mine"])
    );
    stage.done(&["sandbox", "detach", "work", "mine"]);
    assert_eq!(refusal(&stage, &curl), "credential_unavailable");
    stage
        .home
        .write("none.yaml", "version: 1\nnetwork_policies: {}\n");
    stage.done(&["sandbox", "policy", "work", "none.yaml"]);
    assert_eq!(refusal(&stage, &curl), "policy_denied");
    // It is the same that has run all the time.
    assert_eq!(
        (
            processes(stage.home.path()),
            &stage.status("work")["since_unix_ms"]
        ),
        (before, &since)
    );
    stage.ends_well();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attached_key_is_a_placeholder_in_the_environment_and_a_change_that_cannot_be_leaves_all_as_it_was()
 {
    let stage = Stage::set().await;
    let destination = ScriptedUpstream::bind().await;
    let add = [
        "provider",
        "add",
        "mine",
        "--type",
        "generic",
        "--base-url",
        &destination.base_url(),
        "--credential",
        "MY_KEY=-",
    ];
    assert_eq!(fed(stage.home.command(&add), KEY.as_bytes()).code, Some(0));
    let policy = format!(
        "version: 1\nnetwork_policies:\n  mine:\n    endpoints:\n      - {{ host: 127.0.0.1, port: {}, protocol: rest, access: full, allowed_ips: [127.0.0.0/8] }}\n",
        destination.addr().port()
    );
    stage.home.write("work.yaml", &policy);
    stage.make("work", &["--provider", "mine", "--policy", "work.yaml"]);
    assert_eq!(
        stage.said("work", "printenv MY_KEY"),
        "farrier:resolve:env:MY_KEY\n"
    );
    let curl = format!(
        "curl -sS -m 15 --noproxy '' -x $HTTPS_PROXY {}/things -H \"authorization: Bearer $MY_KEY\"",
        destination.base_url()
    );
    assert_eq!(
        heard(&stage, &destination, &curl).await.unwrap(),
        format!("Bearer {KEY}")
    );

    for wrong in [
        &["attach", "work", "nobody"][..],
        &["policy", "work", "bad.yaml"],
    ] {
        stage.home.write(
            "bad.yaml",
            "version: 1\nnetwork_policies: {a: {endpoints: [{host: \"*.com\", port: 443}]}}\n",
        );
        let said = stage.home.run(&[&["sandbox"], wrong].concat());
        assert_eq!(said.code, Some(1), "{}", said.shown());
    }
    assert_eq!(
        stage.status("work")["spec"]["providers"],
        serde_json::json!(["mine"])
    );
    assert_eq!(
        heard(&stage, &destination, &curl).await.unwrap(),
        format!("Bearer {KEY}")
    );
    let inside = Watched::of(&stage.home, &[]);
    stage.ends_well();
    inside.end();
}
