use std::process::Command;

use crate::machine::{Machine, Said, mode};
use crate::packages::{sha256, wheel};
use crate::registry::Answer;

const FILE: &str = "hermes_agent-1.0.0-py3-none-any.whl";

/// A harness in Python that says what it runs on.
fn hermes(machine: &Machine, listed: &str, kind: &'static str) {
    let archive = wheel(&[
        (
            "hermes_cli.py",
            "import sys\ndef main():\n    print('ran', sys.prefix, sys.flags.isolated, __spec__.cached is not None)\n",
        ),
        (
            "hermes_agent-1.0.0.dist-info/METADATA",
            "Name: hermes-agent\nVersion: 1.0.0\n",
        ),
        (
            "hermes_agent-1.0.0.dist-info/entry_points.txt",
            "[console_scripts]\nhermes = hermes_cli:main\n",
        ),
    ]);
    let digest = sha256(&archive);
    let lock = format!("hermes-agent==1.0.0 \\\n    --hash=sha256:{digest}\n");
    std::fs::write(machine.at("requirements.txt"), lock).unwrap();
    let page = listed.replace("DIGEST", &digest).replace("FILE", FILE);
    machine.registry.put(
        "/simple/hermes-agent/",
        Answer::Content(kind, page.into_bytes()),
    );
    machine
        .registry
        .put(&format!("/files/{FILE}"), Answer::Content("", archive));
}

const JSON: &str =
    r#"{"files":[{"filename":"FILE","url":"../../files/FILE","hashes":{"sha256":"DIGEST"}}]}"#;
const HTML: &str =
    "<!DOCTYPE html><html><body><a href=\"../../files/FILE#sha256=DIGEST\">FILE</a></body></html>";
const INSTALL: &[&str] = &[
    "install",
    "hermes@1.0.0",
    "--lock",
    "requirements.txt",
    "--json",
];

#[test]
fn a_harness_in_python_runs_on_the_hosts_with_nothing_but_its_own_packages() {
    let machine = Machine::new();
    hermes(&machine, JSON, "application/vnd.pypi.simple.v1+json");
    let said = machine.run(INSTALL).good().json();
    let place = machine.store().join("hermes/1.0.0");
    assert_eq!(said["runtime"]["name"], "python");
    assert_eq!(said["program"], place.join("bin/hermes").to_str().unwrap());
    assert_eq!(mode(&place.join("bin/hermes")), 0o555);
    let start = said["program"].as_str().unwrap();
    let mut start = Command::new(start);
    let started = Said::of(start.env_clear().env("PATH", "/usr/bin:/bin")).good();
    assert_eq!(started.stdout, format!("ran {} 0 True\n", place.display()));
    let find = Command::new("find")
        .arg(&place)
        .args(["-name", "hermes_cli.*.pyc"])
        .output();
    let compiled = String::from_utf8(find.unwrap().stdout).unwrap();
    assert_eq!(compiled.lines().count(), 1, "it is compiled: {compiled}");
    machine.run(&["verify", "hermes"]).good();
}

#[test]
fn an_index_that_speaks_html_alone_will_do() {
    let machine = Machine::new();
    hermes(&machine, HTML, "text/html");
    machine.run(INSTALL).good();
}

#[test]
fn a_python_that_will_not_do_is_named_with_the_package_to_install() {
    let machine = Machine::new();
    hermes(&machine, HTML, "text/html");
    let arguments: Vec<&str> = INSTALL
        .iter()
        .copied()
        .chain(["--python", "/bin/false"])
        .collect();
    machine.run(&arguments).failed_saying(&[
        "expected Python 3.11, 3.12 or 3.13 with its standard library, got /bin/false",
        "apt-get install -y python3",
    ]);
    assert!(!machine.store().join("hermes/1.0.0").exists());
}

#[test]
fn a_wheel_that_the_lock_file_does_not_know_is_not_taken() {
    let machine = Machine::new();
    let other = HTML.replace("DIGEST", &"0".repeat(64));
    hermes(&machine, &other, "text/html");
    machine
        .run(INSTALL)
        .failed_saying(&["expected a wheel of hermes-agent 1.0.0", "got none"]);
}

#[test]
fn a_wheel_that_is_not_what_the_index_says_is_not_used() {
    let machine = Machine::new();
    hermes(&machine, JSON, "application/json");
    let other = wheel(&[("x", "y")]);
    machine
        .registry
        .put(&format!("/files/{FILE}"), Answer::Content("", other));
    machine
        .run(INSTALL)
        .failed_saying(&["not the archive that the lock file names", "--index"]);
}
