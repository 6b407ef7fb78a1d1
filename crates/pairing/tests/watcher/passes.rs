//! One pass before somebody is connected.

use std::time::Duration;

use farrier_pairing::{Invocation, Limits, Output, Passed, Policy, RunError, Runner, pass};
use tokio::time::Instant;

use crate::scripted::{Answer, Scripted, harness, seconds};

const READ: &[&str] = &["operator.read"];

async fn passed(devices: &Scripted, limits: Limits) -> (Passed, Duration) {
    let began = Instant::now();
    drop(devices.now());
    let passed = pass(&harness(None), devices, &Policy::default(), limits).await;
    (passed, began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn ap_18_a_pass_that_fails_or_hangs_ends_in_time_having_tried() {
    let devices = Scripted::new();
    devices.now().list = Answer::Fails(7, "no such command".to_owned());
    let (failed, _) = passed(&devices, Limits::connect()).await;
    assert_eq!(failed.unlisted.as_deref(), Some("no such command"));
    assert_eq!(devices.lists(), 1);

    let devices = Scripted::new();
    devices.now().list = Answer::Hangs;
    let (hung, took) = passed(&devices, Limits::connect()).await;
    assert_eq!(hung.unlisted.as_deref(), Some("timeout"));
    assert_eq!(took, seconds(5));

    let devices = Scripted::new();
    (0..5).for_each(|number| devices.asks(&format!("r{number}"), "cli", "cli", READ));
    devices.now().approve = Answer::Hangs;
    let limits = Limits {
        most_attempts: 5,
        ..Limits::connect()
    };
    let (hung, took) = passed(&devices, limits).await;
    assert!(hung.cut_short);
    assert!(hung.approved.is_empty());
    assert_eq!(took, seconds(20));
}

#[tokio::test(start_paused = true)]
async fn ap_19_a_repair_makes_at_most_eight_attempts_and_counts_what_succeeded() {
    let devices = Scripted::new();
    (0..10).for_each(|number| devices.asks(&format!("r{number}"), "cli", "cli", READ));
    devices.now().failing.insert("r3".to_owned());
    let (done, _) = passed(&devices, Limits::repair()).await;
    assert_eq!(done.attempts, 8);
    assert_eq!(devices.calls(&["devices", "approve"]).len(), 8);
    assert_eq!(done.approved.len(), 7);
    assert_eq!(devices.approved().len(), 7);
    assert!(done.cut_short);
    assert!(
        done.to_string().contains("approval failed: r3: no"),
        "{done}"
    );
}

/// A sandbox whose way in takes no argument with a line break.
struct OneLine(Scripted);

impl Runner for OneLine {
    async fn run(&self, invocation: Invocation) -> Result<Output, RunError> {
        let argv = &invocation.argv;
        assert!(
            argv.iter()
                .all(|argument| !argument.to_str().unwrap().contains('\n'))
        );
        self.0.run(invocation).await
    }
}

#[tokio::test(start_paused = true)]
async fn ap_20_no_call_needs_an_argument_of_several_lines_and_its_status_is_kept() {
    let devices = Scripted::new();
    devices.asks("r1", "cli", "cli", READ);
    let mut sly = crate::scripted::request("r2", "cli", "cli", READ);
    sly["requestId"] = "r2\n--latest".into();
    devices.now().pending.insert("r2".to_owned(), sly);
    let runner = OneLine(devices.clone());
    let done = pass(
        &harness(None),
        &runner,
        &Policy::default(),
        Limits::repair(),
    )
    .await;
    assert_eq!(devices.approved(), ["r1"]);
    assert_eq!(done.attempts, 1);

    devices.now().list = Answer::Fails(7, String::new());
    let failed = pass(
        &harness(None),
        &runner,
        &Policy::default(),
        Limits::repair(),
    )
    .await;
    assert_eq!(
        failed.unlisted.as_deref(),
        Some("exit status 7, and no word")
    );
}

#[tokio::test(start_paused = true)]
async fn an_approval_that_replaced_its_request_is_followed_by_that_of_the_other() {
    let devices = Scripted::new();
    devices.asks("first", "cli", "cli", READ);
    devices.now().failing.insert("first".to_owned());
    let other = devices.clone();
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    let _asking = tokio::spawn(async move {
        while other.approves("first") == 0 {
            tokio::task::yield_now().await;
        }
        other.now().pending.clear();
        other.asks(
            "second",
            "cli",
            "cli",
            &["operator.read", "operator.pairing"],
        );
    });
    // Only now may the other task see the first attempt.
    devices.now().approves.push_back(Answer::Hangs);
    devices.now().failing.clear();
    let runner = Failing(devices.clone());
    let done = pass(
        &harness(None),
        &runner,
        &Policy::default(),
        Limits::connect(),
    )
    .await;
    assert_eq!(done.attempts, 2);
    assert_eq!(devices.approved(), ["second"]);
}

/// Says of a hang that it failed.
struct Failing(Scripted);

impl Runner for Failing {
    async fn run(&self, invocation: Invocation) -> Result<Output, RunError> {
        let mut output = self.0.run(invocation).await?;
        if output.code == 124 {
            output.code = 1;
        }
        Ok(output)
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_ours_is_left_to_a_person_and_said() {
    let devices = Scripted::new();
    devices.asks("r1", "evil", "cli", READ);
    let (done, _) = passed(&devices, Limits::connect()).await;
    assert_eq!(done.attempts, 0);
    assert_eq!(
        done.to_string(),
        r#"left to you: r1: expected a client of the harness's own, got "evil" (mode "cli")"#
    );
}
