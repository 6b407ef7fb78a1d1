//! What a watcher does in time.

use std::time::Duration;

use farrier_pairing::{Ended, Mode, Pace, Standing};

use crate::scripted::{Answer, Scene, Scripted, seconds};

const READ: &[&str] = &["operator.read"];
const WRITE: &[&str] = &["operator.write", "operator.read"];

fn browser() -> Scripted {
    let devices = Scripted::new();
    devices.has_paired("openclaw-control-ui", "webchat");
    devices
}

#[tokio::test(start_paused = true)]
async fn ap_01_four_quiet_polls_with_a_paired_browser_end_fast_mode_and_not_the_watcher() {
    let scene = Scene::begin(&browser(), Pace::default());
    scene.until(15.0).await;
    assert_eq!(scene.devices.lists(), 4);
    assert_eq!(
        scene
            .heard
            .count("browser pairing converged; switching to slow mode approvals=0"),
        1
    );
    assert_eq!(scene.heard.pairing().mode, Mode::Slow);
    assert_eq!(scene.heard.pairing().standing, Standing::Converged);
    scene.until(3600.0).await;
    assert!(!scene.running.is_finished());
}

#[tokio::test(start_paused = true)]
async fn ap_02_a_late_upgrade_is_approved_once_by_the_next_slow_poll() {
    let scene = Scene::begin(&browser(), Pace::default());
    scene.until(100.0).await;
    scene.devices.asks("late", "cli", "cli", WRITE);
    scene.until(105.0).await;
    assert_eq!(scene.devices.approved(), ["late"]);
    scene.until(400.0).await;
    assert_eq!(scene.devices.approves("late"), 1);
    assert_eq!(
        scene
            .heard
            .count("approved request=late client=cli mode=cli"),
        1
    );
    assert_eq!(scene.heard.pairing().approvals, 1);
}

#[tokio::test(start_paused = true)]
async fn ap_03_an_unknown_client_with_a_known_mode_is_refused_once_and_never_approved() {
    let scene = Scene::begin(&browser(), Pace::default());
    scene.until(100.0).await;
    scene.devices.asks("bad", "evil", "cli", READ);
    scene.until(400.0).await;
    assert_eq!(scene.devices.approves("bad"), 0);
    assert_eq!(
        scene
            .heard
            .count("refused request=bad client=evil mode=cli"),
        1
    );
    let pairing = scene.heard.pairing();
    assert_eq!(pairing.refused.len(), 1);
    assert_eq!(pairing.refused[0].request_id, "bad");
    assert_eq!(
        pairing.standing,
        Standing::Converged,
        "it waits for a person, not for us"
    );
}

#[tokio::test(start_paused = true)]
async fn ap_04_fast_mode_ends_at_its_deadline_if_nothing_pairs() {
    let scene = Scene::begin(&Scripted::new(), Pace::default());
    scene.until(599.0).await;
    assert_eq!(scene.heard.pairing().mode, Mode::Fast);
    assert_eq!(scene.heard.pairing().standing, Standing::NothingPaired);
    scene.until(600.0).await;
    assert_eq!(
        scene
            .heard
            .count("fast-mode deadline reached; switching to slow mode approvals=0"),
        1
    );
    assert_eq!(scene.devices.lists(), 601);
}

#[tokio::test(start_paused = true)]
async fn ap_05_an_unknown_client_that_waits_for_ever_does_not_hold_fast_mode() {
    let devices = Scripted::new();
    devices.asks("bad", "evil", "cli", READ);
    let scene = Scene::begin(&devices, Pace::default());
    scene.until(660.0).await;
    assert_eq!(scene.heard.count("fast-mode deadline reached"), 1);
    assert_eq!(devices.lists(), 601 + 12);
    assert_eq!(devices.approves("bad"), 0);
}

#[tokio::test(start_paused = true)]
async fn ap_06_lists_that_fail_do_not_hold_fast_mode() {
    for answer in [
        Answer::Fails(1, "gateway closed".to_owned()),
        Answer::Prints(String::new()),
        Answer::Prints("not json".to_owned()),
    ] {
        let devices = Scripted::new();
        devices.now().list = answer;
        let scene = Scene::begin(&devices, Pace::default());
        scene.until(660.0).await;
        assert_eq!(scene.heard.count("fast-mode deadline reached"), 1);
        assert_eq!(devices.lists(), 601 + 12);
        assert!(matches!(
            scene.heard.pairing().standing,
            Standing::Unanswered { .. }
        ));
    }
}

#[tokio::test(start_paused = true)]
async fn ap_07_lists_that_hang_are_cut_and_the_watcher_ends_in_time() {
    let devices = Scripted::new();
    devices.now().list = Answer::Hangs;
    let pace = Pace {
        call_timeout: seconds(1),
        deadline: Some(seconds(5)),
        ..Pace::default()
    };
    let scene = Scene::begin(&devices, pace);
    let heard = scene.heard.clone();
    let (ended, took) = scene.ended().await;
    assert_eq!(ended, Ended::Deadline);
    assert!(took < seconds(12), "{took:?}");
    assert_eq!(heard.count("timeout calling devices list"), devices.lists());
    assert_eq!(heard.count("watcher deadline reached approvals=0"), 1);
    assert_eq!(heard.pairing().standing, Standing::DeadlineReached);
}

#[tokio::test(start_paused = true)]
async fn ap_08_an_approval_that_hangs_is_tried_again() {
    let devices = browser();
    devices.asks("r1", "cli", "cli", READ);
    devices.now().approves.push_back(Answer::Hangs);
    let scene = Scene::begin(&devices, Pace::default());
    scene.until(10.5).await;
    assert_eq!(
        scene
            .heard
            .count("timeout calling devices approve request=r1"),
        1
    );
    assert_eq!(scene.heard.pairing().standing, Standing::Waiting);
    assert_eq!(
        scene.heard.pairing().waiting[0].failure.as_deref(),
        Some("timeout")
    );
    scene.until(60.0).await;
    assert_eq!(devices.approved(), ["r1"]);
    assert_eq!(devices.approves("r1"), 2);
    assert_eq!(scene.heard.pairing().standing, Standing::Converged);
}

#[tokio::test(start_paused = true)]
async fn ap_09_an_approval_that_always_fails_is_tried_at_the_cadence_and_arms_early_rounds_once() {
    let devices = browser();
    let scene = Scene::begin(&devices, Pace::default());
    scene.until(100.0).await;
    devices.now().approve = Answer::Fails(1, "scope upgrade pending".to_owned());
    devices.asks("r1", "cli", "cli", READ);
    let before = devices.lists();
    scene.until(200.0).await;
    let tries = devices.calls(&["devices", "approve", "r1"]);
    let gaps: Vec<_> = tries
        .windows(2)
        .map(|pair| (pair[1] - pair[0]).as_secs())
        .collect();
    assert_eq!(gaps[..5], [1, 1, 1, 1, 1]);
    assert!(gaps[5..].iter().all(|gap| *gap == 5), "{gaps:?}");
    assert_eq!(devices.lists() - before, tries.len());
    assert_eq!(
        scene
            .heard
            .count("approve failed request=r1 client=cli mode=cli: scope upgrade pending"),
        tries.len()
    );
    assert_eq!(devices.approved().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn ap_12_requests_that_follow_one_another_are_each_approved_within_a_second() {
    let devices = browser();
    let scene = Scene::begin(&devices, Pace::default());
    scene.until(100.0).await;
    devices.asks("r1", "cli", "cli", &["operator.pairing"]);
    let mut asked = 105.0;
    for (id, next) in [("r1", "r2"), ("r2", "r3"), ("r3", "r4")] {
        scene.until(asked).await;
        assert!(
            devices.approved().iter().any(|approved| approved == id),
            "{id}"
        );
        devices.asks(next, "cli", "cli", WRITE);
        asked += 1.0;
    }
    scene.until(asked).await;
    assert_eq!(devices.approved(), ["r1", "r2", "r3", "r4"]);
    // Each new id has its own early rounds: five after the last one.
    let before = devices.lists();
    scene.until(asked + 4.5).await;
    assert_eq!(devices.lists() - before, 4);
    scene.until(asked + 20.0).await;
    assert_eq!(devices.lists() - before, 4 + 1 + 3);
}

#[tokio::test(start_paused = true)]
async fn ap_13_a_list_that_fails_uses_up_no_early_round() {
    let devices = browser();
    let scene = Scene::begin(&devices, Pace::default());
    scene.until(100.0).await;
    devices.asks("r1", "cli", "cli", READ);
    scene.until(104.0).await;
    let failure = Answer::Fails(1, "gateway closed".to_owned());
    devices
        .now()
        .lists
        .extend([Answer::True, failure.clone(), failure]);
    scene.until(140.0).await;
    let lists = devices.calls(&["devices", "list"]);
    let first = lists
        .iter()
        .position(|at| at.as_secs_f64() > 100.5)
        .unwrap();
    let gaps: Vec<_> = lists[first..]
        .windows(2)
        .map(|pair| (pair[1] - pair[0]).as_secs())
        .collect();
    assert_eq!(gaps[..8], [1, 5, 5, 1, 1, 1, 1, 5], "{gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn ap_14_an_id_that_left_may_come_early_again_and_a_handled_one_is_ignored() {
    let devices = browser();
    devices.now().failing.insert("r1".to_owned());
    let scene = Scene::begin(&devices, Pace::default());
    scene.until(100.0).await;
    let early = |times: &[Duration]| {
        times
            .windows(2)
            .filter(|pair| pair[1] - pair[0] < seconds(2))
            .count()
    };
    devices.asks("r1", "cli", "cli", READ);
    scene.until(130.0).await;
    assert_eq!(early(&devices.calls(&["devices", "approve", "r1"])), 5);
    devices.now().pending.clear();
    scene.until(150.0).await;
    devices.asks("r1", "cli", "cli", READ);
    scene.until(180.0).await;
    assert_eq!(early(&devices.calls(&["devices", "approve", "r1"])), 10);

    devices.now().failing.clear();
    scene.until(200.0).await;
    assert_eq!(devices.approved(), ["r1"]);
    devices.asks("r1", "cli", "cli", READ);
    scene.until(300.0).await;
    assert_eq!(devices.approved(), ["r1"], "it was handled");
}

#[tokio::test(start_paused = true)]
async fn ap_17_approvals_know_nothing_of_another_gateway_and_lists_do() {
    let devices = browser();
    devices.asks("r1", "cli", "cli", READ);
    let scene = Scene::begin(&devices, Pace::default());
    scene.until(1.0).await;
    let inner = devices.now();
    for (_, invocation) in &inner.calls {
        let names: Vec<_> = invocation
            .env
            .iter()
            .map(|(name, _)| name.to_str().unwrap())
            .collect();
        let listed = invocation.argv[2] == "list";
        let wanted: &[&str] = if listed {
            &[
                "HOME",
                "OPENCLAW_GATEWAY_URL",
                "OPENCLAW_GATEWAY_PORT",
                "OPENCLAW_GATEWAY_TOKEN",
            ]
        } else {
            &["HOME"]
        };
        assert_eq!(names, wanted, "{:?}", invocation.argv);
        assert!(!format!("{invocation:?}").contains("canary-token"));
    }
    assert_eq!(inner.approved.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn ap_25_late_upgrades_of_two_sandboxes_are_both_approved_within_a_slow_interval() {
    let (one, two) = (browser(), browser());
    let scenes = [
        Scene::begin(&one, Pace::default()),
        Scene::begin(&two, Pace::default()),
    ];
    scenes[0].until(100.0).await;
    for devices in [&one, &two] {
        devices.asks("late", "cli", "cli", WRITE);
    }
    scenes[0].until(105.0).await;
    assert_eq!(one.approved(), ["late"]);
    assert_eq!(two.approved(), ["late"]);
}

#[tokio::test(start_paused = true)]
async fn what_the_harness_says_of_a_failure_is_passed_on_without_its_secrets() {
    let devices = browser();
    devices.asks("r1", "cli", "cli", READ);
    devices.now().approve =
        Answer::Fails(1, "token canary-token is not known\nat line 7".to_owned());
    let scene = Scene::begin(&devices, Pace::default());
    scene.until(1.0).await;
    assert!(
        scene
            .heard
            .lines()
            .iter()
            .all(|line| !line.contains("canary-token"))
    );
    assert!(scene.heard.count("token *** is not known at line 7") > 0);
    let report = serde_json::to_string(&scene.heard.pairing()).unwrap();
    assert!(!report.contains("canary-token"));
}

#[tokio::test(start_paused = true)]
async fn one_that_always_fails_keeps_no_other_from_its_approval() {
    let devices = browser();
    for number in 0..20 {
        let id = format!("r{number:02}");
        devices.asks(&id, "cli", "cli", READ);
        if number < 10 {
            devices.now().failing.insert(id);
        }
    }
    let scene = Scene::begin(&devices, Pace::default());
    scene.until(10.0).await;
    assert_eq!(devices.approved().len(), 10);
}
