//! Commands in a sandbox: what goes in, what comes out, and how they end.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use rustix::process::Signal;

use super::{Stage, fed};

const EXEC: [&str; 3] = ["sandbox", "exec", "work"];

#[tokio::test(flavor = "multi_thread")]
async fn a_command_reads_our_input_writes_to_our_outputs_and_has_our_end() {
    let stage = Stage::set().await;
    stage.make("work", &[]);
    let exec = |more: &[&str]| stage.home.command(&[&EXEC[..], more].concat());

    let long: String = (0..200_000).map(|number| format!("{number}\n")).collect();
    let said = fed(exec(&["--", "cat"]), long.as_bytes());
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert!(
        said.stdout == long,
        "{} bytes of {}",
        said.stdout.len(),
        long.len()
    );

    let said = stage.sh("work", "echo out; echo err >&2; exit 7");
    assert_eq!(
        (said.code, said.stdout.as_str(), said.stderr.as_str()),
        (Some(7), "out\n", "err\n")
    );
    for (signal, code) in [("KILL", 137), ("TERM", 143), ("SEGV", 139)] {
        let said = stage.sh("work", &format!("kill -{signal} $$"));
        assert_eq!(said.code, Some(code), "{}", said.shown());
    }
    stage.ends_well();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_has_the_variables_and_the_directory_that_are_asked_for() {
    let stage = Stage::set().await;
    stage.make("work", &[]);
    let exec = |more: &[&str]| stage.home.run(&[&EXEC[..], more].concat());
    let script = "pwd; echo \"$A-$B\"; id -un";
    let asked = [
        "--env", "A=1", "--env", "B=x=y", "--cwd", "/tmp", "--", "sh", "-c", script,
    ];
    let said = exec(&asked);
    assert_eq!(
        said.stdout.lines().take(2).collect::<Vec<_>>(),
        ["/tmp", "1-x=y"],
        "{}",
        said.shown()
    );
    assert_eq!(exec(&["--", "pwd"]).stdout, "/workspace\n");
    assert_eq!(
        stage.said("work", "echo $HOME $FARRIER_SANDBOX"),
        "/home/agent work\n"
    );

    let said = exec(&["--env", "no-value", "--", "true"]);
    assert_eq!(said.code, Some(2), "{}", said.shown());
    for wrong in [
        &["--", "no-such-program"][..],
        &["--cwd", "/nowhere", "--", "true"],
    ] {
        let said = exec(wrong);
        assert_eq!(said.code, Some(126), "{}", said.shown());
        assert!(!said.stderr.is_empty());
    }
    stage.ends_well();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_takes_too_long_is_killed_with_what_it_has_started() {
    let stage = Stage::set().await;
    stage.make("work", &[]);
    let script = "trap '' HUP TERM; sleep 98765 & sleep 98765";
    let limited = ["--timeout", "300ms", "--", "sh", "-c", script];
    let said = stage.home.run(&[&EXEC[..], &limited].concat());
    assert_eq!(said.code, Some(124), "{}", said.shown());
    assert!(
        said.stderr.contains("took longer than it may"),
        "{}",
        said.stderr
    );
    let left = stage.said(
        "work",
        "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c '9876[5]' || true",
    );
    assert_eq!(left, "0\n");
    stage.ends_well();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_to_the_command_reaches_the_program_inside() {
    let stage = Stage::set().await;
    stage.make("work", &[]);
    let script =
        "trap 'echo told >&2; exit 9' TERM; echo ready >&2; while :; do sleep 1 & wait $!; done";
    let mut running = stage
        .home
        .start(&[&EXEC[..], &["--", "sh", "-c", script]].concat());
    running.line("ready");
    running.signal(Signal::TERM);
    running.line("told");
    assert_eq!(running.ended().code, Some(9));

    let mut running = stage.home.start(
        &[
            &EXEC[..],
            &["--", "sh", "-c", "echo ready >&2; exec sleep 60"],
        ]
        .concat(),
    );
    running.line("ready");
    running.signal(Signal::TERM);
    assert_eq!(running.ended().code, Some(143));
    stage.ends_well();
}

/// Whoever goes away leaves nothing running that nobody can end any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_ends_with_its_caller() {
    let stage = Stage::set().await;
    stage.make("work", &[]);
    let before = super::processes(stage.home.path());
    let mut running = stage
        .home
        .start(&[&EXEC[..], &["--", "sh", "-c", "echo ready >&2; sleep 60"]].concat());
    running.line("ready");
    let inside = super::Watched::of(&stage.home, &before);
    running.signal(Signal::KILL);
    inside.end();
    assert_eq!(stage.said("work", "echo still"), "still\n");
    stage.ends_well();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_does_not_wait_behind_input_that_nobody_reads() {
    let stage = Stage::set().await;
    stage.make("work", &[]);
    let script = ["--", "sh", "-c", "echo ready >&2; exec sleep 60"];
    let mut running = stage
        .home
        .command(&[&EXEC[..], &script].concat())
        .stdin(File::open("/dev/zero").unwrap())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut said = BufReader::new(running.stderr.take().unwrap());
    said.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let pid = rustix::process::Pid::from_child(&running);
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(running.wait().unwrap().code(), Some(143));
    stage.ends_well();
}
