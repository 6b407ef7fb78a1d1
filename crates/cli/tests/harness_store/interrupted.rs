use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::machine::{Machine, NODE, OPENCLAW, SHARED};
use crate::registry::Answer;

const INSTALL: &[&str] = &["install", "openclaw@1.0.0", "--lock", "lock.json"];

fn start(machine: &Machine) -> Child {
    let mut command = machine.command(INSTALL);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Reads until a line says this.
fn wait_for(child: &mut Child, said: &str) {
    let lines = BufReader::new(child.stderr.as_mut().unwrap()).lines();
    let found = lines.map_while(Result::ok).any(|line| line.contains(said));
    assert!(found, "never says {said:?}");
}

/// Waits until all but Node are downloaded.
fn wait_for_downloads(machine: &Machine) {
    let downloads = machine.store().join("openclaw/.1.0.0.downloads");
    let whole = || {
        let files = std::fs::read_dir(&downloads)
            .into_iter()
            .flatten()
            .flatten();
        let names = files.map(|file| file.file_name().into_string().unwrap());
        names.filter(|name| !name.ends_with(".part")).count()
    };
    // The file system tells nobody; a test that waits too long is ended by its runner.
    while whole() < 2 {
        std::thread::park_timeout(std::time::Duration::from_millis(10));
    }
}

#[test]
fn one_that_was_killed_leaves_nothing_to_find_and_is_taken_up_by_the_next() {
    let machine = Machine::new();
    let (_, node) = machine.archives()[1].clone();
    machine.registry.put(NODE, Answer::Halting(node.clone()));
    let mut child = start(&machine);
    machine.registry.expect(NODE);
    wait_for_downloads(&machine);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!machine.place().exists());
    let listed = machine.run(&["list"]).good().stdout;
    assert!(!listed.contains("1.0.0 "), "{listed}");

    machine.registry.put(NODE, Answer::Content("", node));
    machine.install(&[]).good();
    machine.run(&["verify", "openclaw"]).good();
    for path in [OPENCLAW, SHARED] {
        assert_eq!(machine.registry.count(path), 1, "{path} was there already");
    }
    let left = std::fs::read_dir(machine.store().join("openclaw"))
        .unwrap()
        .count();
    assert_eq!(left, 2, "the installation and its lock");
}

#[test]
fn one_that_is_told_to_stop_stops_and_says_how_to_go_on() {
    let machine = Machine::new();
    let (_, node) = machine.archives()[1].clone();
    machine.registry.put(NODE, Answer::Halting(node));
    let child = start(&machine);
    machine.registry.expect(NODE);
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr.contains("openclaw 1.0.0 is not installed: stopped"),
        "{stderr}"
    );
    assert!(stderr.contains("goes on from there"), "{stderr}");
    assert!(!machine.place().exists());
}

#[test]
fn of_two_at_once_one_installs_and_the_other_finds_it_done() {
    let machine = Machine::new();
    let (_, node) = machine.archives()[1].clone();
    machine.registry.put(NODE, Answer::Gated(node));
    let mut first = start(&machine);
    machine.registry.expect(NODE);
    let mut second = start(&machine);
    wait_for(&mut second, "another installation of it goes on");
    machine.registry.open_gate();
    assert!(first.wait().unwrap().success());
    let second = second.wait_with_output().unwrap();
    assert!(second.status.success());
    let said = String::from_utf8(second.stdout).unwrap();
    assert!(
        said.starts_with("openclaw 1.0.0 is installed already\n"),
        "{said}"
    );
    for path in [OPENCLAW, NODE, SHARED] {
        assert_eq!(machine.registry.count(path), 1, "{path}");
    }
}

#[test]
fn one_that_was_killed_keeps_nobody_waiting() {
    let machine = Machine::new();
    let (_, node) = machine.archives()[1].clone();
    machine.registry.put(NODE, Answer::Gated(node));
    let mut first = start(&machine);
    machine.registry.expect(NODE);
    let mut second = start(&machine);
    wait_for(&mut second, "another installation of it goes on");
    first.kill().unwrap();
    first.wait().unwrap();
    machine.registry.open_gate();
    assert!(second.wait().unwrap().success());
    machine.run(&["verify", "openclaw@1.0.0"]).good();
}
