//! The real harnesses, from the registries that npm and pip are configured with.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::machine::Said;

/// Where `cargo xtask clients` has npm install.
fn by_npm(version: &str) -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_farrier"));
    let target = program.ancestors().nth(2).unwrap();
    target.join("clients/openclaw").join(version)
}

/// With the tester's own network configuration, and nothing else of theirs.
fn farrier(store: &Path, arguments: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_farrier"));
    command
        .arg("harness")
        .args(arguments)
        .arg("--store")
        .arg(store);
    command.stdin(Stdio::null());
    Said::of(&mut command).good()
}

fn started(store: &Path, harness: &str) -> String {
    let shown = farrier(store, &["show", harness, "--json"]).json();
    let home = tempfile::tempdir().unwrap();
    let mut start = Command::new(shown["program"].as_str().unwrap());
    start
        .arg("--version")
        .env_clear()
        .env("HOME", home.path())
        .env("PATH", shown["search_path"].as_str().unwrap());
    Said::of(&mut start).good().stdout
}

#[test]
#[ignore = "downloads 115 MB"]
fn real_harness_openclaw_is_what_npm_installs_byte_for_byte_and_starts() {
    let store = tempfile::tempdir().unwrap();
    let _said = farrier(store.path(), &["install", "openclaw@2026.5.12"]);
    assert!(started(store.path(), "openclaw").contains("2026.5.12"));
    let own = store.path().join("openclaw/2026.5.12/node_modules");
    let theirs = by_npm("2026.5.12").join("node_modules");
    assert!(
        theirs.is_dir(),
        "{} is there: cargo xtask clients",
        theirs.display()
    );
    let differ = Command::new("diff")
        .args([
            "--recursive",
            "--brief",
            "--no-dereference",
            "--exclude=.package-lock.json",
        ])
        .args([own, theirs])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&differ.stdout), "");
    let _verified = farrier(store.path(), &["verify", "openclaw"]);
    let _removed = farrier(store.path(), &["remove", "openclaw@2026.5.12"]);
}

#[test]
#[ignore = "downloads 37 MB"]
fn real_harness_hermes_starts_on_the_hosts_python() {
    let store = tempfile::tempdir().unwrap();
    let _said = farrier(store.path(), &["install", "hermes@0.19.0"]);
    assert!(started(store.path(), "hermes").contains("0.19.0"));
    let _verified = farrier(store.path(), &["verify", "hermes"]);
    let _removed = farrier(store.path(), &["remove", "hermes@0.19.0"]);
}
