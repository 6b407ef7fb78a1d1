//! What is found by looking at the state directory instead of asking.

use std::fs;
use std::path::Path;
use std::time::Duration;

use farrier_pairing::{Pace, StateDir, Watching};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::scripted::{Answer, Scene, Scripted, harness, request};

const WRITE: &[&str] = &["operator.write", "operator.read"];

/// A watched harness: what its devices ask for is written down, as the harness does.
struct Watched {
    place: TempDir,
    devices: Scripted,
    scene: Scene,
}

impl Watched {
    fn begin() -> Self {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("devices")).unwrap();
        let devices = Scripted::new();
        devices.has_paired("openclaw-control-ui", "webchat");
        let state = StateDir::at(place.path());
        let scene = Scene::over(&devices, Pace::default(), harness(Some(state)));
        Self {
            place,
            devices,
            scene,
        }
    }

    fn asks(&self, id: &str, client: &str) {
        self.devices.asks(id, client, "cli", WRITE);
        self.write_down();
    }

    fn write_down(&self) {
        let pending: Map<String, Value> = self.devices.now().pending.clone().into_iter().collect();
        write(self.place.path(), &Value::from(pending));
    }

    /// What the system tells comes in real time, and this clock stands still meanwhile.
    async fn until_heard(&self, part: &str) {
        for _ in 0..2000 {
            if self.scene.heard.count(part) > 0 {
                return;
            }
            let moment = tokio::task::spawn_blocking(|| rest(Duration::from_millis(1)));
            moment.await.unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("never heard {part:?} in {:#?}", self.scene.heard.lines());
    }
}

/// Written as the harness does: beside, then renamed.
fn write(state: &Path, pending: &Value) {
    let draft = state.join("devices/.draft.tmp");
    fs::write(&draft, pending.to_string()).unwrap();
    fs::rename(draft, state.join("devices/pending.json")).unwrap();
}

fn rest(moment: Duration) {
    let (_sender, receiver) = std::sync::mpsc::channel::<()>();
    let _never = receiver.recv_timeout(moment);
}

#[tokio::test(start_paused = true)]
async fn a_late_upgrade_is_approved_when_it_is_written_down_and_nothing_is_listed_for_it() {
    let watched = Watched::begin();
    watched.until_heard("watching the state directory").await;
    watched.scene.until(100.0).await;
    assert_eq!(
        watched.scene.heard.pairing().watching,
        Watching::StateDirectory
    );
    let before = watched.devices.lists();
    watched.asks("late", "cli");
    watched.until_heard("approved request=late").await;
    assert_eq!(watched.devices.approved(), ["late"]);
    assert_eq!(watched.devices.lists(), before);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_client_that_is_written_down_is_refused_without_any_call() {
    let watched = Watched::begin();
    watched.scene.until(100.0).await;
    let before = watched.devices.now().calls.len();
    watched.asks("bad", "evil");
    watched.until_heard("refused request=bad").await;
    assert_eq!(watched.devices.now().calls.len(), before);
    // What waits for a person is looked at again and again, and told once.
    watched.scene.until(160.0).await;
    assert_eq!(watched.scene.heard.count("refused"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_the_gateway_means_to_approve_is_left_to_it() {
    let watched = Watched::begin();
    watched.scene.until(100.0).await;
    let before = watched.devices.now().calls.len();
    let mut silent = request("silent", "cli", "cli", WRITE);
    silent["silent"] = json!(true);
    write(watched.place.path(), &json!({"silent": silent}));
    watched.scene.until(105.0).await;
    assert_eq!(watched.devices.now().calls.len(), before);
}

#[tokio::test(start_paused = true)]
async fn while_the_state_directory_tells_lists_are_seldom() {
    let watched = Watched::begin();
    watched.scene.until(100.0).await;
    let before = watched.devices.lists();
    watched.scene.until(3700.0).await;
    assert_eq!(watched.devices.lists() - before, 30);
}

#[tokio::test(start_paused = true)]
async fn requests_that_are_never_written_down_bring_polling_back() {
    let watched = Watched::begin();
    watched.scene.until(100.0).await;
    for (id, at) in [("r1", 250.0), ("r2", 500.0)] {
        watched.devices.asks(id, "cli", "cli", WRITE);
        watched.scene.until(at).await;
        assert!(
            watched.devices.approved().contains(&id.to_owned()),
            "found by a list"
        );
    }
    assert_eq!(
        watched
            .scene
            .heard
            .count("requests were listed that it did not tell of"),
        1
    );
    assert_eq!(watched.scene.heard.pairing().watching, Watching::Polling);
    watched.devices.asks("r3", "cli", "cli", WRITE);
    watched.scene.until(505.0).await;
    assert!(watched.devices.approved().contains(&"r3".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_state_that_cannot_be_read_brings_polling_back() {
    let watched = Watched::begin();
    watched.scene.until(100.0).await;
    fs::write(watched.place.path().join("devices/pending.json"), "{").unwrap();
    watched
        .until_heard("polling, since the state directory does not tell")
        .await;
    assert_eq!(watched.scene.heard.pairing().watching, Watching::Polling);
}

#[tokio::test(start_paused = true)]
async fn a_device_that_asks_without_end_does_not_make_calls_without_end() {
    let watched = Watched::begin();
    watched.scene.until(100.0).await;
    watched.devices.now().approve = Answer::Fails(1, "unknown requestId".to_owned());
    let before = watched.devices.now().calls.len() as u64;
    for number in 0..120 {
        watched.devices.now().pending.clear();
        watched.asks(&format!("r{number}"), "cli");
        rest(Duration::from_millis(2));
        watched.scene.until(100.0 + f64::from(number) / 2.0).await;
    }
    let calls = watched.devices.now().calls.len() as u64 - before;
    assert!(calls <= Pace::default().most_calls_per_minute(), "{calls}");
    assert!((60..=200).contains(&calls), "{calls}");
}
