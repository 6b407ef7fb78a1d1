//! `farrier verify`: what it refuses, what it reports, and that nothing of a run is left.
//!
//! Where a harness must misbehave as no real one does on demand, a script stands in its place.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;

use crate::home::Home;

const SCRIPTED: &str = "kimi-fixed-sampling";
const HARNESSED: &str = "kimi-thinking-reasoning-replay/case";

fn report(stdout: &str) -> Value {
    serde_json::from_str(stdout).unwrap()
}

/// An installation of OpenClaw in which another program has its name.
fn stand_in(home: &Home, script: &str) -> PathBuf {
    let version = "harnesses/openclaw/2026.5.12/node_modules";
    let package = r#"{"name":"openclaw","version":"2026.5.12"}"#;
    home.write(&format!("{version}/openclaw/package.json"), package);
    let program = format!("#!/bin/sh\n{script}\n");
    let program = home.write(&format!("{version}/.bin/openclaw"), &program);
    fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
    home.path().join("harnesses")
}

fn arguments<'a>(harnesses: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let fixed = ["verify", HARNESSED, "--harness-dir", harnesses];
    fixed.into_iter().chain(more.iter().copied()).collect()
}

#[test]
fn e2e_02_every_shipped_manifest_is_among_the_cases() {
    let home = Home::new();
    let cases = report(&home.run(&["verify", "--list", "--json"]).stdout);
    let manifests = report(&home.run(&["registry", "list", "--json"]).stdout);
    let covered: Vec<&Value> = cases
        .as_array()
        .unwrap()
        .iter()
        .map(|case| &case["manifest"])
        .collect();
    let manifests = manifests["manifests"]
        .as_array()
        .or(manifests.as_array())
        .unwrap();
    assert!(!manifests.is_empty());
    for manifest in manifests {
        assert!(covered.contains(&&manifest["id"]), "{manifest}");
    }
}

#[test]
fn e2e_03_a_live_run_without_a_key_ends_before_anything_begins() {
    let said = Home::new().run(&["verify", SCRIPTED, "--live"]);
    insta::assert_snapshot!(said.shown(), @r"
    --- stderr
    error: expected --key with --live, got none; a live run has to pay for itself
      hint: name where the key is: --key env:NAME or --key file:PATH
    --- exit 2
    ");
}

#[test]
fn e2e_03_a_key_on_the_command_line_is_refused_and_not_repeated() {
    let said = Home::new().run(&["verify", SCRIPTED, "--live", "--key", "sk-canary-1234"]);
    assert_eq!(said.code, Some(2));
    assert!(!said.stderr.contains("canary"), "{}", said.stderr);
}

#[test]
fn e2e_03_a_live_route_that_leads_to_this_machine_is_refused() {
    let home = Home::new().with("KEY", "sk-canary-1234");
    let live = [
        "verify",
        SCRIPTED,
        "--live",
        "--key",
        "env:KEY",
        "--base-url",
    ];
    for (url, got) in [
        ("https://127.0.0.1:1/v1", "127.0.0.1, which is 127.0.0.1"),
        ("http://api.example.com/v1", "expected an https URL"),
    ] {
        let said = home.run(&[&live[..], &[url]].concat());
        assert_eq!(said.code, Some(1));
        assert!(
            said.stderr.contains("this route is not live"),
            "{}",
            said.stderr
        );
        assert!(said.stderr.contains(got), "{}", said.stderr);
        assert!(!said.stderr.contains("canary"), "{}", said.stderr);
    }
}

#[test]
fn e2e_03_a_case_of_a_mode_that_does_not_exist_is_refused() {
    let home = Home::new();
    let shipped = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../e2e/interventions/kimi-fixed-sampling/case.toml"
    );
    let text = fs::read_to_string(shipped).unwrap();
    home.write(
        "cases/x/case.toml",
        &text.replace("\"hermetic\"", "\"magic\""),
    );
    let said = home.run(&["verify", "--cases-dir", "cases"]);
    assert_eq!(said.code, Some(1));
    assert!(
        said.stderr.contains("x: expected a case"),
        "{}",
        said.stderr
    );
    assert!(said.stderr.contains("magic"), "{}", said.stderr);
}

#[test]
fn an_unknown_case_is_told_from_the_known() {
    let said = Home::new().run(&["verify", "kimi-fixed-samplings"]);
    assert_eq!(said.code, Some(1));
    assert!(
        said.stderr
            .contains("expected a case, got \"kimi-fixed-samplings\"")
    );
    assert!(
        said.stderr.contains("cases are kimi-fixed-sampling, "),
        "{}",
        said.stderr
    );
}

#[test]
fn a_case_whose_harness_is_not_installed_has_not_passed() {
    let said = Home::new().run(&["verify", SCRIPTED, HARNESSED, "--json"]);
    assert_eq!(said.code, Some(1));
    let report = report(&said.stdout);
    assert_eq!(report["passed"], false);
    assert_eq!(report["cases"][0]["outcome"], "passed");
    assert_eq!(report["cases"][1]["outcome"], "not-run");
    assert!(said.stderr.contains("docs/verify.md"), "{}", said.stderr);
}

#[test]
fn e2e_12_a_second_run_knows_nothing_of_the_first() {
    let home = Home::new();
    for _ in 0..2 {
        let said = home.run(&["verify", SCRIPTED, "--json"]);
        assert_eq!(said.code, Some(0), "{}", said.stderr);
        let report = report(&said.stdout);
        assert_eq!(report["passed"], true);
        let runs = &report["cases"][0]["runs"];
        assert_eq!(runs[0]["way"], "without");
        assert_eq!(runs[0]["requests"], 1);
        assert_eq!(runs[0]["faults"][0]["kind"], "refused");
        assert_eq!(runs[1]["way"], "with");
        assert_eq!(runs[1]["requests"], 4);
        assert_eq!(runs[1]["faults"], serde_json::json!([]));
    }
    let left = fs::read_dir(home.path()).unwrap().count();
    assert_eq!(left, 0, "something is left in the home of whoever verifies");
}

#[test]
fn e2e_06_what_a_harness_shows_of_secrets_is_masked_though_the_case_fails() {
    let home = Home::new();
    let script = "printf 'the key is sk-cana' >&2; printf 'ry-1234567890\\n' >&2; exit 3";
    let harnesses = stand_in(&home, script);
    let said = home.run(&arguments(harnesses.to_str().unwrap(), &["--json"]));
    assert_eq!(said.code, Some(1));
    let report = report(&said.stdout);
    assert_eq!(report["cases"][0]["outcome"], "failed");
    let text = report["cases"][0]["runs"][0]["faults"][0]["text"]
        .as_str()
        .unwrap();
    assert_eq!(text, "it ended with 3; it said: the key is <REDACTED>");
    assert!(!said.stdout.contains("ry-1234567890"));
}

#[test]
fn e2e_08_nothing_but_what_belongs_there_is_in_the_environment_of_a_harness() {
    let home = Home::new().with("PROVIDER_KEY", "sk-canary-1234567890");
    let harnesses = stand_in(&home, "env | cut -d= -f1 | sort | tr '\\n' ' '; exit 3");
    let said = home.run(&arguments(harnesses.to_str().unwrap(), &["--json"]));
    let report = report(&said.stdout);
    let text = report["cases"][0]["runs"][0]["faults"][0]["text"]
        .as_str()
        .unwrap();
    let (_, names) = text.split_once("it said: ").unwrap();
    // A shell adds its own.
    let names: Vec<&str> = names
        .split(' ')
        .filter(|name| !["PWD", "SHLVL", "_", ""].contains(name))
        .collect();
    assert_eq!(names, ["HOME", "LANG", "PATH", "TERM"]);
}

#[test]
fn e2e_10_a_harness_that_hangs_is_ended_with_all_that_it_started() {
    let home = Home::new();
    let pids = home.path().join("pids");
    let script = format!("sleep 600 & echo $! $$ > {}; wait", pids.display());
    let harnesses = stand_in(&home, &script);
    let said = home.run(&arguments(
        harnesses.to_str().unwrap(),
        &["--json", "--silence", "1"],
    ));
    assert_eq!(said.code, Some(1));
    let report = report(&said.stdout);
    assert_eq!(report["cases"][0]["runs"][0]["faults"][0]["kind"], "silent");
    expect_gone(&pids);
}

#[test]
fn e2e_11_a_run_that_was_stopped_has_not_passed_and_leaves_nothing() {
    let home = Home::new();
    let pids = home.path().join("pids");
    let script = format!(
        "sleep 600 & echo $! $$ > {}.new; mv {0}.new {0}; wait",
        pids.display()
    );
    let harnesses = stand_in(&home, &script);
    let mut command = home.command(&["verify", HARNESSED, SCRIPTED, "--json"]);
    command.arg("--harness-dir").arg(&harnesses);
    let child = command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let pid = Pid::from_child(&child);
    wait_for(&pids);
    kill_process(pid, Signal::TERM).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let report = report(&String::from_utf8(output.stdout).unwrap());
    assert_eq!(report["cancelled"], true);
    assert_eq!(report["passed"], false);
    let stopped = report["cases"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&stopped["outcome"], &stopped["reason"]),
        (&"not-run".into(), &"stopped".into())
    );
    expect_gone(&pids);
}

/// Looks again and again, as the file system tells nobody; a test that waits too long is ended by its runner.
fn wait_for(path: &std::path::Path) {
    while !path.exists() {
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

fn expect_gone(pids: &std::path::Path) {
    let pids = fs::read_to_string(pids).unwrap();
    for pid in pids.split_whitespace() {
        let pid = Pid::from_raw(pid.parse().unwrap()).unwrap();
        // What was ended may not have been buried yet by whoever inherited it.
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
        let is_dead = stat.is_ok_and(|stat| stat.contains(") Z "));
        assert!(
            is_dead || test_kill_process(pid).is_err(),
            "{pid:?} runs on"
        );
    }
}
