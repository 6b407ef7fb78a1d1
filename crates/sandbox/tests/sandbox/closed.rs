//! Each layer made impossible in turn, by taking something away from the supervisor before it starts: nothing runs, and
//! the message names the layer and what to do.

use std::path::{Path, PathBuf};

use farrier_sandbox::{Access, Bind, HostUser, LaunchError, Launcher, LauncherCommand, Policy};
use serde_json::json;

use crate::support::{Bench, Supervisor, Who, am_root};

const EPERM: i32 = libc::EPERM;
const ENOSYS: i32 = libc::ENOSYS;

for_both! {
    without_user_namespaces_nothing_runs
    without_a_right_to_user_namespaces_nothing_runs
    without_landlock_nothing_runs
    without_a_right_to_landlock_nothing_runs
    without_seccomp_nothing_runs
    without_new_mounts_nothing_runs
    without_mount_properties_nothing_runs
    without_a_new_root_nothing_runs
    without_dropping_capabilities_nothing_runs
    without_a_bounding_set_to_empty_nothing_runs
    without_a_host_name_nothing_runs
    without_a_first_process_nothing_runs
    without_its_listeners_nothing_runs
    a_directory_that_is_not_there_is_named
    a_device_is_not_bound
}

fn without_user_namespaces_nothing_runs(who: Who) {
    let message = deprived(who, "user-namespaces");
    expect(
        message,
        &[
            "the user namespace layer cannot be applied: new user namespace: 1000:1000 inside is ",
            "No space left on device",
            "raise the sysctl user.max_user_namespaces",
        ],
    );
}

fn without_a_right_to_user_namespaces_nothing_runs(who: Who) {
    let message = deprived(who, &refused(libc::SYS_unshare, EPERM));
    expect(
        message,
        &[
            "the user namespace layer cannot be applied",
            "Operation not permitted",
            "kernel.apparmor_restrict_unprivileged_userns=0",
        ],
    );
}

fn without_landlock_nothing_runs(who: Who) {
    let message = deprived(who, &refused(libc::SYS_landlock_create_ruleset, ENOSYS));
    expect(
        message,
        &[
            "the Landlock layer cannot be applied: Landlock interface 0",
            "Linux 5.13 with `landlock` among the kernel's lsm= modules",
        ],
    );
}

fn without_a_right_to_landlock_nothing_runs(who: Who) {
    let message = deprived(who, &refused(libc::SYS_landlock_restrict_self, EPERM));
    expect(
        message,
        &[
            "the Landlock layer cannot be applied",
            "Operation not permitted",
        ],
    );
}

fn without_seccomp_nothing_runs(who: Who) {
    let message = deprived(who, &refused(libc::SYS_seccomp, EPERM));
    expect(
        message,
        &[
            "the seccomp layer cannot be applied: seccomp: listed system calls only",
            "CONFIG_SECCOMP_FILTER",
        ],
    );
}

fn without_new_mounts_nothing_runs(who: Who) {
    let message = deprived(who, &refused(libc::SYS_fsopen, EPERM));
    expect(
        message,
        &[
            "the /proc layer cannot be applied: new process file system",
            "mounting is refused",
        ],
    );
}

fn without_mount_properties_nothing_runs(who: Who) {
    let message = deprived(who, &refused(libc::SYS_mount_setattr, ENOSYS));
    expect(
        message,
        &[
            "the file system layer cannot be applied: open #0 /usr (read-only)",
            "Linux 5.13 or newer, and no filter around it that hides mount_setattr",
        ],
    );
}

fn without_a_new_root_nothing_runs(who: Who) {
    let message = deprived(who, &refused(libc::SYS_pivot_root, EPERM));
    expect(
        message,
        &[
            "the file system layer cannot be applied: enter the new root",
            "mounting is refused",
        ],
    );
}

fn without_dropping_capabilities_nothing_runs(who: Who) {
    let message = deprived(who, &refused(libc::SYS_capset, EPERM));
    expect(
        message,
        &["the capabilities layer cannot be applied: drop all capabilities and verify"],
    );
}

fn without_a_bounding_set_to_empty_nothing_runs(who: Who) {
    let drop = i64::from(libc::PR_CAPBSET_DROP);
    let message = deprived(who, &format!("{}:{drop}", refused(libc::SYS_prctl, EPERM)));
    expect(message, &["the capabilities layer cannot be applied"]);
}

fn without_a_host_name_nothing_runs(who: Who) {
    let message = deprived(who, &refused(libc::SYS_sethostname, EPERM));
    expect(
        message,
        &["the namespaces layer cannot be applied: host name box"],
    );
}

fn without_a_first_process_nothing_runs(who: Who) {
    let message = deprived(who, &refused(libc::SYS_clone3, ENOSYS));
    expect(
        message,
        &[
            "the namespaces layer cannot be applied: start the first process",
            "clone3",
        ],
    );
}

fn without_its_listeners_nothing_runs(who: Who) {
    let message = deprived(who, &refused(libc::SYS_listen, EPERM));
    expect(
        message,
        &["the network layer cannot be applied: listen on tcp [::]:443 as \"https\""],
    );
}

fn a_directory_that_is_not_there_is_named(who: Who) {
    let Some(bench) = Bench::new(who) else { return };
    let mut policy = bench.policy();
    policy.binds.push(read_only("/no/such/place"));
    expect(
        bench.run(&policy, &[json!({ "argv": ["true"] })]).error,
        &[
            "the file system layer cannot be applied: open #",
            "/no/such/place (read-only)",
            "check that the path is there",
        ],
    );
}

fn a_device_is_not_bound(who: Who) {
    let Some(bench) = Bench::new(who) else { return };
    let mut policy = bench.policy();
    policy.binds.push(read_only("/dev/urandom"));
    expect(
        bench.run(&policy, &[json!({ "argv": ["true"] })]).error,
        &[
            "the file system layer cannot be applied: open #",
            "/dev/urandom (read-only)",
        ],
    );
}

#[test]
fn a_sandbox_of_roots_that_cannot_become_another_user_does_not_run() {
    let message = deprived(Who::Root, &refused(libc::SYS_setresuid, EPERM));
    expect(
        message.filter(|_| am_root()),
        &["the identity layer cannot be applied: become host user 100001:100001 for good"],
    );
}

#[tokio::test]
async fn a_supervisor_that_is_root_has_to_say_whom_to_become() {
    if !am_root() {
        return crate::support::skip("only root has to become somebody else");
    }
    let launcher = Launcher::new(LauncherCommand::default()).unwrap();
    let error = launcher.launch(&Policy::on_host("box")).await.unwrap_err();
    let expected = "the sandbox's policy is not possible: host_user: expected an unprivileged user to become, since the \
                    supervisor is root, got none";
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn a_launcher_that_is_not_there_is_named() {
    let error = launch_by("/no/such/launcher").await;
    assert_eq!(
        error.to_string(),
        "starting the launcher /no/such/launcher failed"
    );
}

#[tokio::test]
async fn a_launcher_that_is_another_program_is_told_by_its_silence() {
    let expected = "expected the launcher to report the sandbox ready, got its end (status exit status: 1); is \
                    /bin/false this program?";
    assert_eq!(launch_by("/bin/false").await.to_string(), expected);
}

async fn launch_by(program: &str) -> LaunchError {
    let launcher = Launcher::new(LauncherCommand {
        program: PathBuf::from(program),
        arguments: Vec::new(),
    })
    .unwrap();
    let mut policy = Policy::on_host("box");
    if am_root() {
        policy.host_user = Some(HostUser {
            uid: 100_001,
            gid: 100_001,
        });
    }
    let error = launcher.launch(&policy).await.unwrap_err();
    launcher.closed().await;
    error
}

fn read_only(path: &str) -> Bind {
    Bind {
        source: path.into(),
        target: "/shown".into(),
        access: Access::ReadOnly,
    }
}

fn refused(number: i64, errno: i32) -> String {
    format!("{number}:{errno}")
}

/// What a supervisor says that lacks something. That its command has not run is asserted here.
fn deprived(who: Who, of_what: &str) -> Option<String> {
    let bench = Bench::new(who)?;
    let script = bench.path().join("deprive.py");
    std::fs::write(&script, include_str!("deprive.py")).unwrap();
    let mut policy = bench.policy();
    policy.listeners = serde_json::from_value(json!([
        { "name": "https", "address": { "tcp": "[::]:443" } },
    ]))
    .unwrap();
    let mut command = bench.program(Path::new("/usr/bin/python3"));
    command
        .arg(script)
        .arg(of_what)
        .arg("--")
        .arg(bench.supervisor().get_program());
    let commands = [json!({ "argv": ["touch", "/home/agent/ran"] })];
    let script = json!({ "policy": policy, "commands": commands });
    let mut supervisor = Supervisor::start(command, &script);
    let report = supervisor.report();
    supervisor.end();
    assert!(
        !bench.path().join("home/ran").exists(),
        "the command has run"
    );
    assert_eq!(report.outcomes.len(), 0);
    Some(report.error.expect("an error"))
}

fn expect(message: Option<String>, parts: &[&str]) {
    // Without root there is no root's half.
    let Some(message) = message else { return };
    for part in parts {
        assert!(message.contains(part), "expected {part:?} in {message:?}");
    }
}
