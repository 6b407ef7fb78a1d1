//! What another process of the same user sees of a process that holds keys: neither its memory, nor a core dump of it.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::process::Process;

/// Whoever runs the tests as root may look into everything, so that somebody else does this.
const NOBODY: u32 = 65_534;

/// A home that belongs to who looks, and `farrier` where they can start it.
struct Place {
    home: TempDir,
    farrier: PathBuf,
}

impl Place {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let built = PathBuf::from(env!("CARGO_BIN_EXE_farrier"));
        let farrier = if is_root() {
            // What root has built may lie where nobody else can go.
            let copy = home.path().join("farrier");
            fs::copy(&built, &copy).unwrap();
            chown(home.path(), Some(NOBODY), Some(NOBODY)).unwrap();
            copy
        } else {
            built
        };
        let text = "[gateway]\nlisten = \"127.0.0.1:0\"\n\n[[provider]]\nname = \"model\"\n\
                    base_url = \"http://127.0.0.1:1/v1\"\ncredential = { env = \"MODEL_KEY\" }\n";
        fs::write(home.path().join("farrier.toml"), text).unwrap();
        Self { home, farrier }
    }

    /// A shell of theirs, with every limit on core dumps taken away.
    fn shell(&self, script: &str, argument: &str) -> Command {
        let shell = ["sh", "-c", script, argument];
        let mut command = if is_root() {
            let mut command = Command::new("setpriv");
            command.args([
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                "--inh-caps=-all",
                "--bounding-set=-all",
            ]);
            command.args(shell);
            command
        } else {
            let mut command = Command::new(shell[0]);
            command.args(&shell[1..]);
            command
        };
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home.path())
            .env("MODEL_KEY", "sk-canary-unseen")
            .current_dir(self.home.path());
        command
    }

    fn up(&self) -> Process {
        let farrier = self.farrier.to_string_lossy();
        let script = "ulimit -c unlimited; exec \"$0\" up --config farrier.toml";
        let mut up = Process::start("farrier up", &mut self.shell(script, &farrier));
        up.until(|said| said.stderr.contains("listens on http://").then_some(()));
        up
    }

    /// Something that hides nothing.
    fn open_process(&self) -> Process {
        let script = "ulimit -c unlimited; echo ready; exec sleep 600";
        let mut process = Process::start("sleep", &mut self.shell(script, "sh"));
        process.until(|said| said.stdout.contains("ready").then_some(()));
        process
    }

    /// Whether a process of the same user can open this of another.
    fn opens(&self, pid: u32, what: &str) -> bool {
        let mut command = self.shell("exec 3< \"$0\"", &format!("/proc/{pid}/{what}"));
        let status: ExitStatus = command.stderr(Stdio::null()).status().unwrap();
        status.success()
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn real_client_of_the_same_user_cannot_look_into_the_memory_of_the_process_with_the_keys() {
    let place = Place::new();
    let (up, open) = (place.up(), place.open_process());
    for what in ["mem", "environ", "maps"] {
        assert!(place.opens(open.id(), what), "nothing can be told here");
        assert!(!place.opens(up.id(), what), "/proc/PID/{what} is open");
    }
    up.signal(Signal::TERM);
    let said = up.ended();
    assert_eq!(said.code, Some(0), "{said}");
}

#[test]
fn real_client_that_makes_farrier_crash_gets_no_core_dump() {
    let place = Place::new();
    let up = place.up();
    let limits = fs::read_to_string(format!("/proc/{}/limits", up.id())).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let fields: Vec<&str> = core.unwrap().split_whitespace().collect();
    assert_eq!(fields[4..6], ["0", "0"], "{limits}");
    up.signal(Signal::QUIT);
    let status = up.status();
    assert_eq!(status.signal(), Some(Signal::QUIT.as_raw()));
    assert!(!status.core_dumped());
    expect_no_core(place.home.path());
}

fn expect_no_core(directory: &Path) {
    for entry in fs::read_dir(directory).unwrap() {
        let name = entry.unwrap().file_name();
        let name = name.to_string_lossy();
        assert!(!name.starts_with("core"), "a core dump: {name}");
    }
}
