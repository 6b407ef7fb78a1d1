//! A disk with no room left.
//!
//! The gateway's state is on a small file system of its own, in a mount namespace of its own, which ends with it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::agent::Agent;
use super::stage::{
    agents, all_go_on, configuration, ends_well, expect_own_words, home, metric, persona,
};
use crate::home::{Home, Running};

/// Started inside the namespace: fills the disk but for a little, then becomes the gateway.
const SCRIPT: &str = r#"
set -e
mount -t tmpfs -o size=8m,mode=0700 farrier-state "$STATE"
exec "$FARRIER" up
"#;

/// A gateway whose ledger is on a disk of eight mebibytes: room for the write-ahead log of a commit for every turn, which takes
/// some 40 KiB each until SQLite folds it into the file.
fn start(home: &Home) -> Running {
    let state = home.path().join("state");
    fs::create_dir(&state).unwrap();
    let mut command = Command::new("unshare");
    command
        .args(["--map-root-user", "--mount", "sh", "-c", SCRIPT])
        .env("STATE", &state)
        .env("FARRIER", env!("CARGO_BIN_EXE_farrier"));
    home.at_home(&mut command);
    Running::start(&mut command)
}

/// What fills the disk, seen from outside of the namespace.
fn ballast(up: &Running, home: &Home) -> PathBuf {
    let inside = home.path().join("state/ballast");
    let root = PathBuf::from(format!("/proc/{}/root", up.id()));
    root.join(inside.strip_prefix("/").unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn turns_go_on_while_the_disk_is_full_and_are_remembered_when_there_is_room() {
    let persona = persona(farrier_sim::Options::default()).await;
    let home = home();
    let ledger = "[ledger]\npath = \"state/ledger/turns.db\"\n";
    home.write("farrier.toml", &configuration(persona.addr(), ledger));
    let mut up = start(&home);
    let addr = up.listening();
    let agents = all_go_on(agents(4, "disk"), 2, addr).await;
    assert_eq!(metric(addr, FAILED).await, 0.0);

    let ballast = ballast(&up, &home);
    fill(&ballast);
    let agents = all_go_on(agents, 3, addr).await;
    assert!(
        metric(addr, FAILED).await > 0.0,
        "nothing could be written, and nobody counted it"
    );
    fs::remove_file(&ballast).unwrap();
    let agents = all_go_on(agents, 2, addr).await;
    expect_own_words(&persona);
    assert!(agents.iter().map(Agent::turns).all(|turns| turns == 7));
    ends_well(up);
    persona.stop().await;
}

/// Turns that were not durable when their client had their end.
const FAILED: &str = "farrier_ledger_commit_failures_total{kind=\"queued\"}";

/// Writes until there is no room.
fn fill(path: &PathBuf) {
    use std::io::Write as _;
    let mut file = fs::File::create(path).unwrap();
    let block = [0; 4096];
    while file.write_all(&block).is_ok() {}
}
