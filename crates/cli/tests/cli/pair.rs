//! `farrier pair`, beside a program that answers as OpenClaw does.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Pid, Signal, test_kill_process};
use serde_json::{Value, json};

use crate::home::{Home, Said};

/// Keeps what it was called with and its environment, and answers from files beside it.
const PROGRAM: &str = r#"#!/bin/sh
place=$(dirname "$0")
echo "$*" >> "$place/calls"
env | sort > "$place/env.$2"
case "$1 $2" in
"devices list")
  [ -e "$place/hang" ] && { sleep 600 & echo $! > "$place/hanging"; wait; }
  [ -e "$place/fail" ] && { echo "gateway closed"; exit 7; }
  cat "$place/listing.json" ;;
"devices approve"|"devices reject")
  [ "$3" = gone ] && { echo "unknown requestId" >&2; exit 1; }
  echo '{"pending":[],"paired":[]}' > "$place/listing.json"
  echo "{\"requestId\":\"$3\"}" ;;
esac
"#;

struct Place {
    home: Home,
    program: PathBuf,
}

impl Place {
    fn new() -> Self {
        Self::within(Home::new().with("PATH", "/usr/bin:/bin"))
    }

    fn within(home: Home) -> Self {
        let program = home.write("openclaw/openclaw", PROGRAM);
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let place = Self { home, program };
        place.lists(&[]);
        place
    }

    fn lists(&self, pending: &[Value]) {
        let listing =
            json!({"pending": pending, "paired": [{"clientId": "cli", "clientMode": "cli"}]});
        self.home
            .write("openclaw/listing.json", &listing.to_string());
    }

    fn arguments<'a>(&'a self, arguments: &[&'a str]) -> Vec<&'a str> {
        let program = ["--openclaw", self.program.to_str().unwrap()];
        ["pair"]
            .iter()
            .chain(arguments)
            .chain(&program)
            .copied()
            .collect()
    }

    fn run(&self, arguments: &[&str]) -> Said {
        self.home.run(&self.arguments(arguments))
    }

    fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.home.path().join("openclaw/calls")).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }

    /// Names of variables that a call had.
    fn environment(&self, call: &str) -> Vec<String> {
        let env =
            fs::read_to_string(self.home.path().join(format!("openclaw/env.{call}"))).unwrap();
        let names = env.lines().filter_map(|line| line.split('=').next());
        names
            .filter(|name| !["PWD", "_", "SHLVL", "OLDPWD"].contains(name))
            .map(str::to_owned)
            .collect()
    }

    fn list_json(&self) -> Value {
        let said = self.run(&["list", "--no-ask", "--json"]);
        assert_eq!(said.code, Some(0), "{}", said.stderr);
        serde_json::from_str(&said.stdout).unwrap()
    }
}

fn asked(id: &str, client: &str, scopes: &[&str]) -> Value {
    json!({"requestId": id, "clientId": client, "clientMode": "cli", "roles": ["operator"], "scopes": scopes, "ts": 1_795_191_339_800_u64})
}

fn own(id: &str) -> Value {
    asked(id, "cli", &["operator.read"])
}

#[test]
fn ap_17_approvals_are_not_told_of_another_gateway_and_nothing_else_of_ours_is_passed_on() {
    let home = Home::new()
        .with("PATH", "/usr/bin:/bin")
        .with("OPENCLAW_GATEWAY_URL", "ws://127.0.0.1:1")
        .with("OPENCLAW_GATEWAY_PORT", "1")
        .with("OPENCLAW_GATEWAY_TOKEN", "canary-token")
        .with("MOONSHOT_API_KEY", "canary-key");
    let place = Place::within(home);
    place.lists(&[own("r1")]);
    let said = place.run(&["pass"]);
    assert_eq!(
        (said.code, said.stderr.as_str()),
        (Some(0), "approved r1\n")
    );
    assert_eq!(
        place.environment("list"),
        [
            "HOME",
            "OPENCLAW_GATEWAY_PORT",
            "OPENCLAW_GATEWAY_TOKEN",
            "OPENCLAW_GATEWAY_URL",
            "PATH"
        ]
    );
    assert_eq!(place.environment("approve"), ["HOME", "PATH"]);
    assert_eq!(
        place.calls(),
        ["devices list --json", "devices approve r1 --json"]
    );
}

#[test]
fn ap_18_a_pass_exits_with_zero_whatever_becomes_of_it_and_says_so() {
    let place = Place::new();
    place.lists(&[own("r1")]);
    place.home.write("openclaw/fail", "");
    let said = place.run(&["pass"]);
    assert_eq!(said.code, Some(0));
    assert_eq!(said.stderr, "cannot list devices: gateway closed\n");
    assert_eq!(place.calls().len(), 1, "it was tried");

    let without_policy = place.run(&["pass", "--policy", "nowhere.json"]);
    assert_eq!(without_policy.code, Some(0));
    assert!(
        without_policy
            .stderr
            .contains("cannot read the policy nowhere.json"),
        "{}",
        without_policy.stderr
    );
    assert_eq!(place.calls().len(), 1, "without a policy it is not");

    let absent = place.home.run(&["pair", "pass", "--openclaw", "nowhere"]);
    assert_eq!(absent.code, Some(0));
    assert!(
        absent.stderr.contains("expected OpenClaw at"),
        "{}",
        absent.stderr
    );
}

#[test]
fn ap_18_a_pass_over_a_harness_that_hangs_ends_in_time() {
    let place = Place::new();
    place.home.write("openclaw/hang", "");
    let said = place.run(&["pass", "--json"]);
    assert_eq!(said.code, Some(0));
    assert_eq!(said.stderr, "cannot list devices: timeout\n");
    let done: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(done["unlisted"], "timeout");
    expect_gone(&place);
}

#[test]
fn ap_24_a_watcher_that_is_told_to_end_leaves_nothing_behind() {
    let place = Place::new();
    place.home.write("openclaw/hang", "");
    let mut watcher = place.home.start(&place.arguments(&["watch", "--json"]));
    watcher.line("watcher started pid=");
    let hanging = place.home.path().join("openclaw/hanging");
    wait_for("a call", || hanging.exists());
    assert_eq!(place.list_json()["watcher"], "running");
    watcher.signal(Signal::TERM);
    let said = watcher.ended();
    assert_eq!(said.code, Some(0));
    assert!(said.stderr.contains("watcher stopped"), "{}", said.stderr);
    expect_gone(&place);
    let listed = place.list_json();
    assert_eq!(listed["watcher"], "ended");
    assert_eq!(listed["report"]["pairing"]["standing"]["state"], "stopped");
}

#[test]
fn a_watcher_that_was_killed_is_seen_to_be_dead() {
    let place = Place::new();
    assert_eq!(place.list_json()["watcher"], "never");
    let mut watcher = place.home.start(&place.arguments(&["watch"]));
    watcher.line("watcher started pid=");
    wait_for("a report", || {
        place.list_json()["report"]["pairing"]["paired"] == 1
    });
    let second = place.run(&["watch"]);
    assert_eq!(second.code, Some(1));
    assert!(
        second
            .stderr
            .contains("expected no watcher for this state directory"),
        "{}",
        second.stderr
    );
    watcher.signal(Signal::KILL);
    let _killed = watcher.ended();
    assert_eq!(place.list_json()["watcher"], "dead");
    let shown = place.run(&["list", "--no-ask"]);
    assert!(
        shown.stdout.starts_with("watcher  dead: process "),
        "{}",
        shown.stdout
    );
}

#[test]
fn a_watcher_approves_what_is_written_down_and_reports_what_it_refused() {
    let place = Place::new();
    fs::create_dir_all(place.home.path().join(".openclaw/devices")).unwrap();
    let mut watcher = place.home.start(&place.arguments(&["watch"]));
    watcher.line("watching the state directory");
    wait_for("the first list", || {
        place.list_json()["report"]["pairing"]["paired"] == 1
    });
    let pending = json!({"late": own("late"), "bad": asked("bad", "evil", &["operator.admin"])});
    let draft = place
        .home
        .write(".openclaw/devices/.draft", &pending.to_string());
    fs::rename(
        draft,
        place.home.path().join(".openclaw/devices/pending.json"),
    )
    .unwrap();
    watcher.line("approved request=late client=cli mode=cli");
    wait_for("a report of it", || {
        place.list_json()["report"]["pairing"]["approvals"] == 1
    });
    let refused = place.list_json()["refused"][0].clone();
    assert_eq!(refused["request_id"], "bad");
    assert_eq!(refused["refused"]["reason"], "unknown-client");
    assert!(
        !place
            .calls()
            .contains(&"devices approve bad --json".to_owned())
    );
    watcher.signal(Signal::TERM);
    assert_eq!(watcher.ended().code, Some(0));
}

#[test]
fn a_watcher_ends_when_its_time_is_over() {
    let place = Place::new();
    let said = place.run(&["watch", "--for", "1s", "--json"]);
    assert_eq!(said.code, Some(0));
    assert!(
        said.stderr.contains("watcher deadline reached approvals=0"),
        "{}",
        said.stderr
    );
    let lines: Vec<Value> = said
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        lines.last().unwrap()["pairing"]["standing"]["state"],
        "deadline-reached"
    );
}

#[test]
fn who_waits_is_listed_with_the_reason() {
    let place = Place::new();
    place.lists(&[
        own("r1"),
        asked("r2", "evil", &[]),
        asked("r3", "cli", &["operator.admin"]),
    ]);
    let said = place.run(&["list"]);
    assert_eq!(said.code, Some(0));
    let since = "since 2026-11-20T16:15:39Z";
    let wanted = [
        "watcher  none; start one with `farrier pair watch`",
        "paired   1",
        &format!(
            "waiting  r1  cli (cli)  operator.read  {since}: approve it by `farrier pair pass`"
        ),
        &format!(
            "refused  r2  evil (cli)  no scopes  {since}: expected a client of the harness's own, got \"evil\" (mode \"cli\")"
        ),
        &format!(
            "refused  r3  cli (cli)  operator.admin  {since}: expected scopes among operator.pairing, operator.read, operator.write, got operator.admin"
        ),
    ];
    assert_eq!(said.stdout.lines().collect::<Vec<_>>(), wanted);
    place.home.write("openclaw/fail", "");
    let unanswered = place.run(&["list"]);
    assert!(
        unanswered
            .stderr
            .contains("OpenClaw does not say who waits: gateway closed"),
        "{}",
        unanswered.stderr
    );
}

#[test]
fn a_person_decides_by_hand() {
    let place = Place::new();
    let approved = place.run(&["approve", "r2"]);
    assert_eq!(
        (approved.code, approved.stdout.as_str()),
        (Some(0), "approved r2\n")
    );
    let rejected = place.run(&["reject", "r3", "--json"]);
    let done: Value = serde_json::from_str(&rejected.stdout).unwrap();
    assert_eq!(done, json!({"request_id": "r3", "done": "rejected"}));
    assert_eq!(
        place.calls(),
        ["devices approve r2 --json", "devices reject r3 --json"]
    );

    let gone = place.run(&["approve", "gone"]);
    assert_eq!(gone.code, Some(1));
    assert!(
        gone.stderr
            .contains("expected OpenClaw to approve gone, got: unknown requestId"),
        "{}",
        gone.stderr
    );
    assert!(
        gone.stderr
            .contains("hint: a device that asked again has another id"),
        "{}",
        gone.stderr
    );
    for id in ["--latest", "../x", "a b", ""] {
        assert_eq!(place.run(&["approve", "--", id]).code, Some(2), "{id:?}");
    }
}

/// What hung is ended with the group that it was started in.
fn expect_gone(place: &Place) {
    let number = fs::read_to_string(place.home.path().join("openclaw/hanging")).unwrap();
    let pid = Pid::from_raw(number.trim().parse().unwrap()).unwrap();
    wait_for("the end of what hung", || test_kill_process(pid).is_err());
}

fn wait_for(what: &str, holds: impl Fn() -> bool) {
    let (_sender, receiver) = std::sync::mpsc::channel::<()>();
    for _ in 0..400 {
        if holds() {
            return;
        }
        let _never = receiver.recv_timeout(Duration::from_millis(50));
    }
    panic!("waited in vain for {what}");
}
