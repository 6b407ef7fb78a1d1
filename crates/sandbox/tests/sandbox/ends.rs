//! What is left of a sandbox when it, or its supervisor, has ended: nothing.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use farrier_sandbox::{Exec, Exit, SandboxGone};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::support::{Bench, Supervisor, Who, whoever_this_is};

for_both! {
    when_the_supervisor_is_killed_nothing_of_its_sandbox_is_left
    a_first_process_that_cannot_look_ends_with_its_supervisor_nonetheless
    a_sandbox_that_is_ended_leaves_nothing
    limits_are_in_force_or_said_not_to_be
}

fn when_the_supervisor_is_killed_nothing_of_its_sandbox_is_left(who: Who) {
    let Some(bench) = Bench::new(who) else { return };
    let mut supervisor = held(&bench, 1);
    let inside = processes_of(&mut supervisor);
    let watched: Vec<OwnedFd> = inside.iter().map(|pid| watch(*pid)).collect();
    // The first process, the shell and its child.
    assert_eq!(watched.len(), 3, "{inside:?}");
    let pid = supervisor.child.id();
    supervisor.child.kill().unwrap();
    supervisor.child.wait().unwrap();
    for process in &watched {
        wait_for_the_end_of(process);
    }
    // Its groups cannot go before the next supervisor comes.
    bench.output(&bench.policy(), &["true"]);
    let left = groups().into_iter().filter(|path| of_supervisor(path, pid));
    assert_eq!(left.collect::<Vec<_>>(), Vec::<PathBuf>::new());
}

/// It would see its socket closed if it ran. That the kernel kills it is the second means, and this is what it is for.
fn a_first_process_that_cannot_look_ends_with_its_supervisor_nonetheless(who: Who) {
    let Some(bench) = Bench::new(who) else { return };
    let mut supervisor = held(&bench, 1);
    let inside = processes_of(&mut supervisor);
    let first = |pid: &&i32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        numbers.unwrap().split_whitespace().last() == Some("1")
    };
    let first = *inside.iter().find(first).expect("a first process");
    let watched = watch(first);
    pidfd_send_signal(&watched, Signal::STOP).unwrap();
    supervisor.child.kill().unwrap();
    supervisor.child.wait().unwrap();
    wait_for_the_end_of(&watched);
}

fn a_sandbox_that_is_ended_leaves_nothing(who: Who) {
    let Some(bench) = Bench::new(who) else { return };
    let mut supervisor = held(&bench, 1);
    let inside = processes_of(&mut supervisor);
    let watched: Vec<OwnedFd> = inside.iter().map(|pid| watch(*pid)).collect();
    let pid = supervisor.child.id();
    supervisor.end();
    for process in &watched {
        wait_for_the_end_of(process);
    }
    let left = groups().into_iter().filter(|path| of_supervisor(path, pid));
    assert_eq!(left.collect::<Vec<_>>(), Vec::<PathBuf>::new());
}

fn limits_are_in_force_or_said_not_to_be(who: Who) {
    let Some(bench) = Bench::new(who) else { return };
    let mut policy = bench.policy();
    policy.limits.memory_bytes = Some(64 << 20);
    policy.limits.processes = Some(20);
    let fill = "b = bytearray(1 << 28); b[::4096] = b[::4096].replace(b'\\0', b'x'); print('full')";
    let bomb = "import os, time\nfor n in range(99):\n    try: os.fork() or (os.close(1), os.close(2), time.sleep(600))\n    except OSError as e: print(e.strerror); break";
    let commands = [
        json!({ "argv": ["/usr/bin/python3", "-c", fill] }),
        json!({ "argv": ["/usr/bin/python3", "-c", bomb] }),
    ];
    let report = bench.run(&policy, &commands);
    let memory = &report.limits["memory"];
    if memory.get("in-force").is_some() {
        assert_eq!(report.outcomes[0].exit, Some(128 + 9), "{report:?}");
        assert!(report.memory_bytes > Some(0));
    } else {
        let reason = memory["not-in-force"]["reason"].as_str().expect("a reason");
        assert!(reason.contains("control group"), "{reason}");
        assert_eq!(report.outcomes[0].stdout, "full\n");
    }
    assert!(report.limits["processes"].get("in-force").is_some());
    assert_eq!(
        report.outcomes[1].stdout,
        "Resource temporarily unavailable\n"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_sandboxes_at_once_are_all_served_and_end() {
    let bench = Bench::new(whoever_this_is()).unwrap();
    let launcher = bench.launcher();
    let mut live = JoinSet::new();
    for number in 0..50 {
        let (launcher, mut policy) = (launcher.clone(), bench.policy());
        policy.name = format!("box-{number}");
        live.spawn(async move {
            let sandbox = launcher.launch(&policy).await.unwrap();
            let mut echo = sandbox.exec(Exec::new(["cat"])).await.unwrap();
            (
                sandbox,
                echo.stdin.take().unwrap(),
                echo.stdout.take().unwrap(),
                echo,
            )
        });
    }
    // All are there before the first is spoken to.
    let mut all = live.join_all().await;
    for (number, (_, stdin, _, _)) in all.iter_mut().enumerate() {
        stdin
            .write_all(format!("{number}").as_bytes())
            .await
            .unwrap();
    }
    for (number, (sandbox, stdin, mut stdout, mut echo)) in all.into_iter().enumerate() {
        drop(stdin);
        let mut said = String::new();
        stdout.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, number.to_string());
        assert_eq!(echo.wait().await, Ok(Exit::Code(0)));
        let mut sleeper = sandbox.exec(Exec::new(["sleep", "600"])).await.unwrap();
        // Dropping it ends it, and with it what still runs.
        drop(sandbox);
        assert_eq!(sleeper.wait().await, Err(SandboxGone));
        assert_eq!(echo.wait().await, Ok(Exit::Code(0)));
    }
    launcher.closed().await;
    let left = groups()
        .into_iter()
        .filter(|path| of_supervisor(path, std::process::id()));
    assert_eq!(left.count(), 0);
}

/// Slow: a thousand sandboxes take some twenty seconds.
#[test]
#[ignore = "slow: a thousand sandboxes, one after the other"]
fn a_thousand_sandboxes_leave_nothing() {
    let bench = Bench::new(whoever_this_is()).unwrap();
    let traces = |times| {
        let mut supervisor = held(&bench, times);
        processes_of(&mut supervisor);
        let pid = supervisor.child.id();
        let count = |path: String| fs::read_dir(path).unwrap().count();
        let traces = (
            count(format!("/proc/{pid}/fd")),
            count(format!("/proc/{pid}/task")),
            children_of(pid).len(),
            mounts(),
            namespaces(),
            groups().len(),
        );
        supervisor.end();
        traces
    };
    let before = (mounts(), namespaces(), groups().len());
    assert_eq!(traces(1000), traces(2));
    assert_eq!((mounts(), namespaces(), groups().len()), before);
}

/// A supervisor that keeps a sandbox in which a shell and its child run.
fn held(bench: &Bench, times: u32) -> Supervisor {
    let mut policy = bench.policy();
    // With control groups, where there can be any.
    policy.limits.memory_bytes = Some(1 << 30);
    policy.limits.processes = Some(64);
    let script = json!({
        "policy": policy,
        "times": times,
        "commands": [
            { "argv": ["sh", "-c", "sleep 600; true"], "leave": true },
            { "argv": ["sh", "-c", "until grep -q sleep /proc/[0-9]*/comm; do :; done; readlink /proc/self/ns/pid"] },
        ],
        "hold": true,
    });
    Supervisor::start(bench.supervisor(), &script)
}

/// Waits until the sandbox runs, and finds everything in it, seen from outside.
fn processes_of(supervisor: &mut Supervisor) -> Vec<i32> {
    let report = supervisor.report();
    assert_eq!(report.error, None);
    let namespace = report.outcomes[1].stdout.trim_end();
    // The first process is the supervisor's child, and hidden: not everybody may ask for its namespaces.
    let children = children_of(supervisor.child.id());
    let inside = |pid: &i32| {
        let link = fs::read_link(format!("/proc/{pid}/ns/pid"));
        children.contains(pid) || link.is_ok_and(|link| link.as_os_str() == namespace)
    };
    all_processes().into_iter().filter(inside).collect()
}

fn children_of(pid: u32) -> Vec<i32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let children =
        threads.map(|thread| fs::read_to_string(thread.path().join("children")).unwrap());
    let numbers = |text: String| {
        text.split_whitespace()
            .map(|pid| pid.parse().unwrap())
            .collect::<Vec<_>>()
    };
    children.flat_map(numbers).collect()
}

fn all_processes() -> Vec<i32> {
    let names = fs::read_dir("/proc").unwrap().flatten();
    names
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

fn watch(pid: i32) -> OwnedFd {
    pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap()
}

fn wait_for_the_end_of(process: &OwnedFd) {
    let patience = Timespec {
        tv_sec: 10,
        tv_nsec: 0,
    };
    let ready = poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&patience)).unwrap();
    assert_eq!(ready, 1, "a process of the sandbox is left");
}

/// Control groups of sandboxes, of any supervisor.
fn groups() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(directory) = open.pop() {
        let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            if entry.file_name().to_string_lossy().starts_with("farrier-") {
                found.push(entry.path());
            }
            open.push(entry.path());
        }
    }
    found
}

fn of_supervisor(group: &std::path::Path, pid: u32) -> bool {
    let name = group.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with(&format!("farrier-{pid}."))
}

fn mounts() -> usize {
    fs::read_to_string("/proc/self/mountinfo")
        .unwrap()
        .lines()
        .count()
}

fn namespaces() -> usize {
    let kinds = ["ipc", "mnt", "net", "pid", "user", "uts"];
    let all = all_processes();
    let links = all.iter().flat_map(|pid| {
        kinds
            .iter()
            .filter_map(move |kind| fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok())
    });
    links.collect::<BTreeSet<_>>().len()
}
