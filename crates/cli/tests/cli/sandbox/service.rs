//! What is kept running in a sandbox: started again when it ends, and heard.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::{PATIENCE, Stage};
use crate::home::Home;

/// A command whose output is read line by line. Killed when dropped.
struct Followed {
    child: Child,
    lines: Receiver<String>,
}

impl Followed {
    fn start(home: &Home, arguments: &[&str]) -> Self {
        let mut child = home
            .command(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (to, lines) = channel();
        let from = BufReader::new(child.stdout.take().unwrap());
        drop(std::thread::spawn(move || {
            from.lines()
                .map_while(Result::ok)
                .try_for_each(|line| to.send(line))
        }));
        Self { child, lines }
    }

    fn next(&self) -> String {
        let within = Duration::from_secs(PATIENCE.unsigned_abs());
        self.lines.recv_timeout(within).unwrap()
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_is_started_again_later_each_time_and_is_heard() {
    let mut stage = Stage::set().await;
    stage.make(
        "svc",
        &["--", "sh", "-c", "echo hello; echo woe >&2; exit 3"],
    );
    for wait in ["again_in=1s", "again_in=2s"] {
        let told = stage.up.line("what is kept running has ended");
        assert!(
            told.contains("ended with status 3") && told.contains(wait),
            "{told}"
        );
    }
    let service = stage.status("svc")["service"].clone();
    assert_eq!(service["running"], false);
    assert_eq!(service["restarts"], 1);
    assert_eq!(service["last_exit"], "ended with status 3");
    let output = service["last_output"].as_str().unwrap();
    assert!(
        output.contains("hello") && output.contains("woe"),
        "{output}"
    );
    let shown = stage.done(&["sandbox", "status", "svc"]);
    assert!(shown.contains("not running, is started again; started again 1 times; the last ended with status 3; it said: "), "{shown}");
    let logs = stage.done(&["sandbox", "logs", "svc"]);
    assert_eq!(logs.matches("hello\n").count(), 2, "{logs}");
    assert_eq!(
        stage
            .done(&["sandbox", "logs", "svc", "--last", "1"])
            .lines()
            .count(),
        1
    );
    // In a sandbox whose program does not stay, commands run all the same.
    assert_eq!(stage.said("svc", "echo here"), "here\n");
    stage.ends_well();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_from_now_on_is_followed() {
    let stage = Stage::set().await;
    let script =
        "mkfifo say; exec 3<> say; echo first; while read -r word <&3; do echo \"$word\"; done";
    stage.make("svc", &["--", "sh", "-c", script]);
    let mut followed = Followed::start(&stage.home, &["sandbox", "logs", "svc", "--follow"]);
    assert_eq!(followed.next(), "first");
    for word in ["second", "third"] {
        stage.said("svc", &format!("echo {word} > /workspace/say"));
        assert_eq!(followed.next(), word);
    }
    kill_process(Pid::from_child(&followed.child), Signal::INT).unwrap();
    assert!(followed.child.wait().unwrap().code().is_some());
    assert_eq!(stage.status("svc")["service"]["running"], true);
    stage.ends_well();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_is_told_before_its_sandbox_ends() {
    let stage = Stage::set().await;
    let script =
        "trap 'echo goodbye; exit 0' TERM; echo ready; while :; do sleep 1 & wait $!; done";
    stage.make("svc", &["--", "sh", "-c", script]);
    let followed = Followed::start(&stage.home, &["sandbox", "logs", "svc", "--follow"]);
    assert_eq!(followed.next(), "ready");
    stage.done(&["sandbox", "stop", "svc"]);
    // The shell may say besides what became of its children.
    while followed.next() != "goodbye" {}
    drop(followed);
    stage.ends_well();
}
