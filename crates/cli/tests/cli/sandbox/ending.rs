//! The end of the gateway is its sandboxes', however it comes; the next has them again.

use std::fs;
use std::path::Path;

use rustix::process::Signal;

use super::{Stage, Watched, done, processes, serving, sh};

/// Groups of processes that a sandbox of this gateway had.
fn cgroups(gateway: u32, below: &Path, found: &mut Vec<String>) {
    // Others make and remove theirs meanwhile.
    for entry in fs::read_dir(below).into_iter().flatten().flatten() {
        let name = entry.file_name().into_string().unwrap_or_default();
        let own = name.strip_prefix(&format!("farrier-{gateway}"));
        if own.is_some_and(|rest| rest.starts_with(['-', '.'])) {
            found.push(name);
        } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            cgroups(gateway, &entry.path(), found);
        }
    }
}

fn groups_of(gateway: u32) -> Vec<String> {
    let mut found = Vec::new();
    cgroups(gateway, Path::new("/sys/fs/cgroup"), &mut found);
    found
}

fn mounts_of(stage: &Stage) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.contains(stage.home.path().to_str().unwrap())
}

const SERVICE: [&str; 4] = ["--", "sh", "-c", "sleep 3600 & sleep 3600"];

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_the_sandboxes_and_leaves_nothing_of_them() {
    let stage = Stage::set().await;
    stage.make("work", &[&["--pids", "64"], &SERVICE[..]].concat());
    stage.make("other", &[]);
    let gateway = stage.up.id();
    let own = groups_of(gateway);
    let limits = stage.status("work")["limits"].to_string();
    assert!(
        limits.contains("not bounded") || !own.is_empty(),
        "{limits}"
    );
    let inside = Watched::of(&stage.home, &[]);
    stage.up.signal(Signal::TERM);
    inside.end();
    assert!(!mounts_of(&stage));
    let Stage { home, up, .. } = stage;
    let said = up.ended();
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert_eq!(processes(home.path()), super::NOBODY);
    assert_eq!(groups_of(gateway), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_killed_takes_its_sandboxes_along_and_the_next_starts_them_again() {
    let stage = Stage::set().await;
    stage.make("work", &SERVICE);
    stage.make("idle", &[]);
    stage.make("off", &[]);
    stage.done(&["sandbox", "stop", "off"]);
    stage.said("work", "echo kept > ~/kept");
    let script = "echo ready >&2; exec sleep 3600";
    let talk = ["sandbox", "exec", "idle", "--", "sh", "-c", script];
    let mut running = stage.home.start(&talk);
    running.line("ready");
    let inside = Watched::of(&stage.home, &[]);
    let Stage { home, provider, up } = stage;
    up.signal(Signal::KILL);
    inside.end();
    assert_eq!(up.ended().code, None);
    // Whoever talked to one is told.
    let said = running.ended();
    assert_eq!(said.code, Some(1), "{}", said.shown());
    assert!(
        said.stderr.contains("is started again with the next"),
        "{}",
        said.stderr
    );
    assert_eq!(processes(home.path()), super::NOBODY);

    let mut up = serving(&home, &["up"]);
    up.line("what is kept running runs");
    let stage = Stage { home, provider, up };
    assert_eq!(
        stage.said("work", "cat ~/kept; pgrep -c sleep || true"),
        "kept\n2\n"
    );
    // Answers when it runs, whoever has started it.
    done(&stage.home, &["sandbox", "start", "idle"]);
    assert_eq!(sh(&stage.home, "idle", "echo here").stdout, "here\n");
    assert_eq!(stage.status("off")["state"], "stopped");
    stage.ends_well();
}
