//! A clock that is stepped, a day forward and two days back, under a gateway that runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::stage::{
    agents, all_go_on, configuration, ends_well, exacting_persona, expect_own_words, home,
};
use crate::home::Running;

/// Where Debian's `faketime` package puts what stands between a program and its clock.
fn library() -> PathBuf {
    let folder = fs::read_dir("/usr/lib")
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let library = folder
        .map(|path| path.join("faketime/libfaketime.so.1"))
        .find(|path| path.exists());
    library.expect("libfaketime is not installed: apt-get install -y faketime")
}

/// Replaced as a whole, so that no half of it is ever read.
fn step(file: &Path, offset: &str) {
    let next = file.with_extension("next");
    fs::write(&next, offset).unwrap();
    fs::rename(next, file).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_stepped_loses_no_turn() {
    let persona = exacting_persona().await;
    let home = home();
    home.write("farrier.toml", &configuration(persona.addr(), ""));
    let offset = home.write("clock", "+0");
    let mut command = Command::new(env!("CARGO_BIN_EXE_farrier"));
    command
        .arg("up")
        .env("LD_PRELOAD", library())
        .env("FAKETIME_TIMESTAMP_FILE", &offset)
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .env("DONT_FAKE_MONOTONIC", "1");
    home.at_home(&mut command);
    let mut up = Running::start(&mut command);
    let addr = up.listening();
    let mut going = agents(6, "clock");
    for offset_of_clock in ["+0", "+1d", "-1d", "+0"] {
        step(&offset, offset_of_clock);
        going = all_go_on(going, 2, addr).await;
    }
    expect_own_words(&persona);
    let said = ends_well(up);
    let days: std::collections::BTreeSet<&str> = said
        .lines()
        .filter(|line| line.contains("farrier::request"))
        .map(|line| &line[..10])
        .collect();
    assert!(days.len() >= 3, "the gateway's clock was stepped: {days:?}");
    persona.stop().await;
}
