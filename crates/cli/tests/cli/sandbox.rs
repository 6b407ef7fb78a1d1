//! Sandboxes from their making to their removal, as their user meets them: real namespaces, real programs inside, a scripted
//! provider.
//!
//! Sandboxes of root's run as users of their own, so each test's home can be entered by others.

mod ending;
mod exec;
mod files;
mod inside;
mod life;
mod many;
mod refusals;
mod rules;
mod secrecy;
mod service;
mod terminal;

use std::fs;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use farrier_testkit::ScriptedUpstream;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use serde_json::{Value, json};

use crate::home::{Home, Running, Said};
use crate::up::configuration;

const KIMI: &str = "moonshotai/kimi-k2.6";
/// The provider's key, in the environment of `farrier up` alone.
const CANARY: &str = "sk-canary-upstream";
/// How long any single thing may take, in seconds.
const PATIENCE: i64 = 20;
/// No process.
const NOBODY: [u32; 0] = [];

/// A provider, and a gateway that looks after sandboxes.
struct Stage {
    home: Home,
    provider: ScriptedUpstream,
    up: Running,
}

/// A home that other users may enter, and a configuration that leads to a provider.
async fn home() -> (Home, ScriptedUpstream) {
    let provider = ScriptedUpstream::bind().await;
    let home = Home::new().with("PERSONA_KEY", CANARY);
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
    home.write("farrier.toml", &configuration(&provider.base_url()));
    (home, provider)
}

/// A gateway that serves.
fn serving(home: &Home, arguments: &[&str]) -> Running {
    let mut up = home.start(arguments);
    up.listening();
    up
}

impl Stage {
    async fn set() -> Self {
        let (home, provider) = home().await;
        let up = serving(&home, &["up"]);
        Self { home, provider, up }
    }

    /// Makes a sandbox that keeps nothing running.
    fn make(&self, name: &str, more: &[&str]) {
        make(&self.home, name, more);
    }

    /// Runs a script in a sandbox.
    fn sh(&self, name: &str, script: &str) -> Said {
        sh(&self.home, name, script)
    }

    /// What a script in a sandbox writes; it succeeds.
    fn said(&self, name: &str, script: &str) -> String {
        let said = self.sh(name, script);
        assert_eq!(said.code, Some(0), "{script}: {}", said.shown());
        said.stdout
    }

    fn done(&self, arguments: &[&str]) -> String {
        done(&self.home, arguments)
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.done(arguments)).unwrap()
    }

    fn status(&self, name: &str) -> Value {
        self.json(&["sandbox", "status", name, "--json"])
    }

    /// Ends the gateway as its user does; gives what it wrote.
    fn ends_well(self) -> String {
        self.up.signal(Signal::TERM);
        let said = self.up.ended();
        assert_eq!(said.code, Some(0), "{}", said.stderr);
        assert_eq!(processes(self.home.path()), NOBODY);
        said.stderr
    }
}

fn make(home: &Home, name: &str, more: &[&str]) {
    let made = [
        &[
            "sandbox", "create", name, "--agent", "generic", "--route", KIMI,
        ],
        more,
    ]
    .concat();
    assert_eq!(done(home, &made), format!("{name}: runs\n"));
}

/// Runs a command that succeeds; gives what it wrote.
fn done(home: &Home, arguments: &[&str]) -> String {
    let said = home.run(arguments);
    assert_eq!(said.code, Some(0), "{arguments:?}: {}", said.shown());
    said.stdout
}

fn sh(home: &Home, name: &str, script: &str) -> Said {
    home.run(&["sandbox", "exec", name, "--", "sh", "-c", script])
}

/// Runs a command with this on its standard input.
fn fed(mut command: Command, input: &[u8]) -> Said {
    let piped = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let feeding = std::thread::spawn(move || stdin.write_all(&input));
    let said = Said::of(child.wait_with_output().unwrap());
    feeding.join().unwrap().unwrap();
    said
}

/// Where sandboxes of this home are.
fn ground(home: &Home) -> PathBuf {
    home.path().join("data/farrier/sandboxes")
}

/// The sandboxes that have files.
fn remains(home: &Home) -> Vec<String> {
    let Ok(entries) = fs::read_dir(ground(home)) else {
        return Vec::new();
    };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    // What all sandboxes believe is no sandbox's.
    names.filter(|name| name != ".trust").collect()
}

/// Processes that live with something of this home in their file system: those of its sandboxes.
fn processes(home: &Path) -> Vec<u32> {
    let home = home.to_str().unwrap();
    let all = fs::read_dir("/proc").unwrap();
    let pids = all.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    // One that has ended meanwhile has no mounts to read.
    let inside = pids.filter(|pid: &u32| {
        let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo"));
        mounts.is_ok_and(|mounts| mounts.contains(home))
    });
    inside.collect()
}

/// Processes whose end can be awaited.
struct Watched(Vec<OwnedFd>);

impl Watched {
    /// All that live in sandboxes of this home now, but for these.
    fn of(home: &Home, but_for: &[u32]) -> Self {
        let pids = processes(home.path()).into_iter();
        let pids = pids.filter(|pid| !but_for.contains(pid));
        let pids = pids.map(|pid| Pid::from_raw(i32::try_from(pid).unwrap()).unwrap());
        let open = pids.filter_map(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        let all: Vec<_> = open.collect();
        assert!(!all.is_empty(), "nothing runs");
        Self(all)
    }

    /// Waits until each has ended.
    fn end(&self) {
        for process in &self.0 {
            let mut ended = [PollFd::new(process, PollFlags::IN)];
            let within = Timespec {
                tv_sec: PATIENCE,
                tv_nsec: 0,
            };
            assert_eq!(
                poll(&mut ended, Some(&within)).unwrap(),
                1,
                "it does not end"
            );
        }
    }
}

/// What `curl` is told so that it asks for a completion.
fn completion(model: &str, stream: bool) -> String {
    let body = json!({"model": model, "stream": stream, "messages": [{"role": "user", "content": "hello"}]});
    format!(
        "curl -sS -N -m 20 https://inference.local/v1/chat/completions -H 'content-type: application/json' -d '{body}'"
    )
}

/// A whole reply of the provider's.
fn reply(text: &str) -> String {
    json!({"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "kimi-k2.6",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}})
    .to_string()
}
