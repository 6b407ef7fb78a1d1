//! Made, listed, shown, stopped, started and destroyed.

use serde_json::json;

use super::{KIMI, Stage, remains};

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_is_made_listed_and_shown() {
    let stage = Stage::set().await;
    stage.make("work", &[]);
    let listed = stage.json(&["sandbox", "list", "--json"]);
    let all = listed["sandboxes"].as_array().unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!(all[0], stage.status("work"));
    let status = &all[0];
    assert_eq!(
        (
            &status["name"],
            &status["state"],
            &status["spec"]["agent"],
            &status["spec"]["route"]
        ),
        (
            &json!("work"),
            &json!("running"),
            &json!("generic"),
            &json!(KIMI)
        )
    );
    let line = stage.done(&["sandbox", "list"]);
    assert_eq!(line, format!("work  running   generic  {KIMI}\n"));
    let shown = stage.done(&["sandbox", "status", "work"]);
    assert!(shown.starts_with("work running, since "), "{shown}");
    assert!(shown.contains("providers none\n"), "{shown}");
    stage.ends_well();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_was_stopped_starts_with_the_home_and_the_workspace_it_had() {
    let stage = Stage::set().await;
    stage.make("work", &[]);
    stage.said("work", "echo kept > ~/kept; echo too > /workspace/too");
    assert_eq!(stage.done(&["sandbox", "stop", "work"]), "work: stopped\n");
    assert_eq!(stage.status("work")["state"], "stopped");
    assert_eq!(super::processes(stage.home.path()), super::NOBODY);
    // What was not asked for stays as it is.
    assert_eq!(stage.done(&["sandbox", "stop", "work"]), "work: stopped\n");
    assert_eq!(stage.done(&["sandbox", "start", "work"]), "work: runs\n");
    assert_eq!(
        stage.said("work", "cat ~/kept /workspace/too"),
        "kept\ntoo\n"
    );
    assert_eq!(stage.done(&["sandbox", "start", "work"]), "work: runs\n");
    stage.ends_well();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_is_destroyed_with_all_that_it_had_once_somebody_says_so() {
    let stage = Stage::set().await;
    stage.make("work", &[]);
    stage.said("work", "mkdir -p ~/a/b; echo text > ~/a/b/c; chmod 0 ~/a/b");
    let said = stage.home.run(&["sandbox", "destroy", "work"]);
    assert_eq!(said.code, Some(2));
    assert!(
        said.stderr
            .contains("expected --yes where nobody can be asked"),
        "{}",
        said.stderr
    );
    assert_eq!(stage.status("work")["state"], "running");

    let destroy = ["sandbox", "destroy", "work", "--yes"];
    assert_eq!(stage.done(&destroy), "work: destroyed\n");
    assert_eq!(remains(&stage.home), [""; 0]);
    assert_eq!(super::processes(stage.home.path()), super::NOBODY);
    let said = stage.home.run(&destroy);
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains("work"), "{}", said.stderr);
    // The name is free, and nothing of its first bearer is there.
    stage.make("work", &[]);
    assert_eq!(
        stage.said(
            "work",
            "ls -A ~ /workspace | grep -v '^\\(/\\|$\\)' | wc -l"
        ),
        "0\n"
    );
    stage.ends_well();
}
