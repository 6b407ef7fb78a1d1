//! The whole story: a key that Farrier holds, a harness from its registry, a sandbox that has neither key nor network, and
//! tasks that are finished on a strict model.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

/// What stands for a key; to be found nowhere but with Farrier.
const CANARY: &str = "sk-canary-5d1c7f3a9be24480";
const MODEL: &str = "moonshotai/kimi-k2.6";

/// A machine with a persona that wants the key, and a gateway that has it.
struct Machine {
    home: TempDir,
    persona: Child,
    gateway: Child,
}

#[test]
fn real_harness_sandbox_openclaw_finishes_its_tasks_without_a_key() {
    let machine = Machine::with("openclaw@2026.5.12");
    for message in ["What is the state of the system?", "And now?"] {
        let turn = machine.farrier([
            "run",
            "openclaw",
            "--route",
            MODEL,
            "--",
            "agent",
            "--local",
            "--agent",
            "main",
            "--session-id",
            "t1",
            "--message",
            message,
            "--json",
        ]);
        let said = said(&turn);
        assert!(turn.status.success(), "{said}");
        assert!(said.contains("FINAL answer of turn"), "{said}");
    }
    machine.expect_no_canary("openclaw");
    machine.end("openclaw");
}

#[test]
fn real_harness_sandbox_hermes_finishes_its_tasks_without_a_key() {
    let machine = Machine::with("hermes@0.19.0");
    let turn = machine.farrier([
        "run",
        "hermes",
        "--route",
        MODEL,
        "--",
        "chat",
        "-Q",
        "--yolo",
        "-q",
        "What is the state of the system?",
    ]);
    let said = said(&turn);
    assert!(turn.status.success(), "{said}");
    assert!(said.contains("FINAL answer of turn"), "{said}");
    machine.expect_no_canary("hermes");
    machine.end("hermes");
}

impl Machine {
    fn with(harness: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        // As root a sandbox is another user, who has to pass.
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let persona = Command::new(env!("CARGO_BIN_EXE_farrier"))
            .args(["sim", "kimi-k2.6", "--bearer", "env:PERSONA_KEY"])
            .env("PERSONA_KEY", CANARY)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut machine = Self {
            gateway: placeholder(),
            persona,
            home,
        };
        let address = first_line(machine.persona.stdout.take().unwrap());
        let file = format!(
            "[gateway]\nlisten = \"127.0.0.1:0\"\n[[provider]]\nname = \"moonshot\"\napi = \"openai-completions\"\n\
             base_url = \"{address}\"\ncredential = {{ env = \"MOON_KEY\" }}\n[[route]]\nmodel = \"{MODEL}\"\n\
             provider = \"moonshot\"\nupstream_model = \"kimi-k2.6\"\n"
        );
        fs::write(machine.home.path().join("farrier.toml"), file).unwrap();
        let installed = machine.farrier(["harness", "install", harness]);
        assert!(installed.status.success(), "{}", said(&installed));
        machine.gateway = machine
            .command(["up"])
            .env("MOON_KEY", CANARY)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        machine.until_it_listens();
        machine
    }

    fn until_it_listens(&mut self) {
        let mut log = BufReader::new(self.gateway.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("control ") {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "the gateway ended");
        }
        // Read to its end, so that it never waits for a reader.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
    }

    fn command<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_farrier"));
        command
            .args(arguments)
            .current_dir(self.home.path())
            .env("HOME", self.home.path())
            .env("XDG_DATA_HOME", self.home.path().join("data"))
            .env_remove("XDG_STATE_HOME")
            .env_remove("XDG_RUNTIME_DIR")
            .env_remove("XDG_CONFIG_HOME")
            .stdin(Stdio::null());
        command
    }

    fn farrier<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Looks through everything that the sandbox has: its files on the host, and from inside what its processes can read.
    fn expect_no_canary(&self, name: &str) {
        let place = self.home.path().join("data/farrier/sandboxes").join(name);
        assert!(files(&place).len() > 3, "a harness leaves files behind");
        for file in files(&place) {
            let bytes = fs::read(&file).unwrap_or_default();
            assert!(!holds(&bytes), "{}", file.display());
        }
        let half = CANARY.len() / 2;
        let look = format!(
            "word={}; word=${{word}}{}; echo \"$word\" > /tmp/control; cat /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\\0' '\\n' | grep -c -F -f /tmp/control; \
             grep -r -l -F -f /tmp/control /home/agent /workspace /tmp /etc/farrier /run 2>/dev/null; true",
            &CANARY[..half],
            &CANARY[half..]
        );
        let looked = self.farrier(["sandbox", "exec", name, "--", "sh", "-c", &look]);
        let found = String::from_utf8_lossy(&looked.stdout).into_owned();
        // The word is put together inside and read from a file, so that it is in nobody's arguments; and it is found where it was put.
        assert_eq!(found, "0\n/tmp/control\n", "{}", said(&looked));
    }

    fn end(self, name: &str) {
        let gone = self.farrier(["sandbox", "destroy", name, "--yes"]);
        assert!(gone.status.success(), "{}", said(&gone));
        let left = fs::read_dir(self.home.path().join("data/farrier/sandboxes")).unwrap();
        let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [OsStr::new(".trust")]);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for child in [&mut self.gateway, &mut self.persona] {
            // It may have ended by itself.
            let _killed = child.kill();
            let _reaped = child.wait();
        }
        // What is installed is read-only.
        for file in files(self.home.path()) {
            if let Some(dir) = file.parent() {
                let _writable = fs::set_permissions(dir, fs::Permissions::from_mode(0o755));
            }
        }
    }
}

/// Stands for the gateway until there is one.
fn placeholder() -> Child {
    Command::new("true").spawn().unwrap()
}

fn first_line(from: impl std::io::Read) -> String {
    let mut line = String::new();
    BufReader::new(from).read_line(&mut line).unwrap();
    line.trim().to_owned()
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

fn holds(bytes: &[u8]) -> bool {
    bytes
        .windows(CANARY.len())
        .any(|window| window == CANARY.as_bytes())
}

/// Every file below a directory; links are not followed.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files(&entry.path())),
            Ok(kind) if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
    found
}
