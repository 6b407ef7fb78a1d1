//! Commands on this host: bounded in time and output, and gone afterwards with all that they started.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "what does not hold fails its test")]

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::time::Duration;

use farrier_pairing::{HostRunner, Invocation, Output, RunError, Runner as _, TIMED_OUT};
use rustix::process::{Pid, test_kill_process};
use tokio::time::{Instant, sleep, timeout};

fn shell(script: &str, patience: Duration) -> Invocation {
    Invocation {
        argv: ["/bin/sh", "-c", script].map(OsString::from).into(),
        env: vec![("ONLY".into(), "this".into())],
        timeout: patience,
    }
}

async fn run(script: &str) -> Output {
    HostRunner
        .run(shell(script, Duration::from_secs(20)))
        .await
        .unwrap()
}

/// The process whose number a script wrote down, once it has.
async fn written_pid(file: &Path) -> Pid {
    loop {
        let number = fs::read_to_string(file).unwrap_or_default();
        if let Some(pid) = number.trim().parse().ok().and_then(Pid::from_raw) {
            return pid;
        }
        sleep(Duration::from_millis(5)).await;
    }
}

async fn expect_gone(pid: Pid) {
    let gone = async {
        while test_kill_process(pid).is_ok() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(10), gone).await.unwrap();
}

#[tokio::test]
async fn a_command_gets_what_it_was_given_and_its_words_and_status_are_kept() {
    let output = run("env; echo said >&2; exit 7").await;
    let environment = String::from_utf8(output.stdout).unwrap();
    let names: Vec<_> = environment
        .lines()
        .filter_map(|line| line.split('=').next())
        .collect();
    // A shell sets the directory by itself.
    assert!(
        names
            .iter()
            .all(|name| ["ONLY", "PWD", "_", "SHLVL", "OLDPWD"].contains(name)),
        "{names:?}"
    );
    assert!(names.contains(&"ONLY"));
    assert_eq!(output.stderr, b"said\n");
    assert_eq!(output.code, 7);
    assert_eq!(run("kill -9 $$").await.code, 128 + 9);
    assert_eq!(run("cat").await.code, 0, "there is nothing to read");
}

#[tokio::test]
async fn one_that_takes_too_long_is_cut_with_all_that_it_started() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("pid");
    let script = format!(
        "trap '' TERM; sleep 600 & echo $! > {}; echo first; wait; sleep 600",
        file.display()
    );
    let began = Instant::now();
    let output = HostRunner
        .run(shell(&script, Duration::from_millis(500)))
        .await
        .unwrap();
    assert_eq!(output.code, TIMED_OUT);
    assert_eq!(output.stdout, b"first\n");
    assert!(began.elapsed() < Duration::from_secs(5));
    expect_gone(written_pid(&file).await).await;
}

#[tokio::test]
async fn one_that_leaves_others_behind_is_done_when_it_has_exited() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("pid");
    let began = Instant::now();
    let output = run(&format!(
        "sleep 600 & echo $! > {}; echo done",
        file.display()
    ))
    .await;
    assert_eq!((output.code, output.stdout), (0, b"done\n".to_vec()));
    assert!(began.elapsed() < Duration::from_secs(5));
    expect_gone(written_pid(&file).await).await;
}

#[tokio::test]
async fn one_that_nobody_waits_for_any_more_ends() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("pid");
    let script = format!("sleep 600 & echo $! > {}; wait", file.display());
    let pid = {
        let running = HostRunner.run(shell(&script, Duration::from_secs(600)));
        tokio::select! {
            _ended = running => None,
            pid = written_pid(&file) => Some(pid),
        }
    };
    expect_gone(pid.unwrap()).await;
}

#[tokio::test]
async fn what_it_prints_is_bounded_and_does_not_hold_it_up() {
    let output = run("head -c 5000000 /dev/zero; echo end >&2").await;
    assert_eq!(output.stdout.len(), Output::MOST_BYTES);
    assert_eq!((output.code, output.stderr), (0, b"end\n".to_vec()));
}

#[tokio::test]
async fn what_cannot_be_started_is_said() {
    let nothing = Invocation {
        argv: Vec::new(),
        env: Vec::new(),
        timeout: Duration::from_secs(1),
    };
    assert!(matches!(
        HostRunner.run(nothing).await,
        Err(RunError::Empty)
    ));
    let missing = Invocation {
        argv: vec!["/nowhere/openclaw".into()],
        env: Vec::new(),
        timeout: Duration::from_secs(1),
    };
    let error = HostRunner.run(missing).await.unwrap_err();
    assert_eq!(error.to_string(), "cannot run /nowhere/openclaw");
}
