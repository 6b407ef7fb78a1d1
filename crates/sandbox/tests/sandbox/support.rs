//! Starts the supervisor as root or as a plain user, with a policy and commands, and reads what came of it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use farrier_sandbox::{Access, Bind, HostUser, Launcher, LauncherCommand, Policy};
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Whom the supervisor runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// A user without any right, and without an entry in `/etc/passwd`.
    PlainUser,
    /// Root, whose sandboxes run as yet another user.
    Root,
}

/// The plain user that a supervisor runs as.
pub(crate) const PLAIN_USER: u32 = 1001;

/// The user that root's sandboxes run as.
pub(crate) const HOST_USER: u32 = 100_001;

/// A place that both users can reach, with a copy of the supervisor.
#[derive(Debug)]
pub(crate) struct Bench {
    who: Who,
    /// Owned by the sandbox's user; for homes and whatever is bound.
    pub(crate) directory: TempDir,
}

/// A supervisor that runs.
#[derive(Debug)]
pub(crate) struct Supervisor {
    pub(crate) child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

/// What came of it.
#[derive(Debug, Deserialize)]
pub(crate) struct Report {
    pub(crate) error: Option<String>,
    #[serde(default)]
    pub(crate) outcomes: Vec<Outcome>,
    #[serde(default)]
    pub(crate) limits: Value,
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) landlock_abi: Option<u32>,
}

/// What came of a command.
#[derive(Debug, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) error: Option<String>,
    pub(crate) exit: Option<u8>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Who {
    /// The number of whoever the sandbox's user is on the host.
    pub(crate) fn sandbox_uid(self) -> u32 {
        match self {
            Self::PlainUser => own_uid_or(PLAIN_USER),
            Self::Root => HOST_USER,
        }
    }
}

/// Tests start as root in CI and can become anybody; started as a plain user they stay that one.
pub(crate) fn am_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[expect(
    clippy::print_stderr,
    reason = "whoever runs the tests is to know what was left out"
)]
pub(crate) fn skip(why: &str) {
    eprintln!("SKIPPED: {why}");
}

/// Whom a test that has its sandboxes itself has them as.
pub(crate) fn whoever_this_is() -> Who {
    if am_root() { Who::Root } else { Who::PlainUser }
}

fn own_uid_or(uid: u32) -> u32 {
    if am_root() {
        uid
    } else {
        rustix::process::geteuid().as_raw()
    }
}

impl Bench {
    /// `None`, and a line that says so, if this half of the test needs root and there is none.
    pub(crate) fn new(who: Who) -> Option<Self> {
        if who == Who::Root && !am_root() {
            skip("this half of the test needs root");
            return None;
        }
        let directory = tempfile::Builder::new()
            .prefix("farrier-sandbox-")
            .tempdir_in("/tmp")
            .expect("a directory");
        let program = directory.path().join("supervisor");
        // By another process: as long as this one had it open for writing, so would whatever another test starts just then,
        // and it could not be executed.
        let source = env!("CARGO_BIN_EXE_sandbox-supervisor");
        let copied = Command::new("cp").arg(source).arg(program).status();
        assert!(copied.expect("cp runs").success());
        let bench = Self { who, directory };
        bench.open_to_all(bench.directory.path());
        Some(bench)
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A directory of the sandbox's user.
    pub(crate) fn owned_directory(&self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir(&path).expect("made");
        self.give_away(&path);
        path
    }

    /// Makes something the sandbox's user's.
    pub(crate) fn give_away(&self, path: &Path) {
        if am_root() {
            let uid = self.who.sandbox_uid();
            std::os::unix::fs::chown(path, Some(uid), Some(uid)).expect("given away");
        }
    }

    fn open_to_all(&self, path: &Path) {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(path, mode).expect("opened");
    }

    /// A sandbox over the host's system with a private home.
    pub(crate) fn policy(&self) -> Policy {
        let mut policy = Policy::on_host("box");
        if self.who == Who::Root {
            policy.host_user = Some(HostUser {
                uid: HOST_USER,
                gid: HOST_USER,
            });
        }
        let home = self.path().join("home");
        if !home.exists() {
            self.owned_directory("home");
        }
        policy.binds.push(Bind {
            source: home,
            target: policy.user.home.clone(),
            access: Access::ReadWrite,
        });
        policy
    }

    /// The supervisor's command line, as the user it is to run as.
    pub(crate) fn supervisor(&self) -> Command {
        self.program(&self.path().join("supervisor"))
    }

    /// A program, as the user that the supervisor is to run as.
    pub(crate) fn program(&self, path: &Path) -> Command {
        let mut command = Command::new(path);
        if self.who == Who::PlainUser && am_root() {
            command.uid(PLAIN_USER).gid(PLAIN_USER);
        }
        command
    }

    /// A program of the host's, run as whoever the sandbox's user is there.
    pub(crate) fn as_the_sandboxes_user(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        if am_root() {
            let uid = self.who.sandbox_uid();
            command.uid(uid).gid(uid);
        }
        command
    }

    /// A launcher for sandboxes of this very process.
    pub(crate) fn launcher(&self) -> Launcher {
        Launcher::new(LauncherCommand {
            program: self.path().join("supervisor"),
            arguments: vec!["sandbox-launcher".to_owned()],
        })
        .unwrap()
    }

    /// Starts one sandbox, runs commands in it one after the other, and ends it.
    pub(crate) fn run(&self, policy: &Policy, commands: &[Value]) -> Report {
        self.script(&json!({ "policy": policy, "commands": commands }))
    }

    /// Runs one command, which is to succeed, and gives what it wrote.
    pub(crate) fn output(&self, policy: &Policy, argv: &[&str]) -> String {
        let mut report = self.run(policy, &[json!({ "argv": argv })]);
        assert_eq!(report.error, None);
        let outcome = report.outcomes.remove(0);
        assert_eq!(
            (outcome.error.as_deref(), outcome.exit),
            (None, Some(0)),
            "{outcome:?}"
        );
        outcome.stdout
    }

    /// Lets the supervisor do what a script says, to its end.
    pub(crate) fn script(&self, script: &Value) -> Report {
        let mut supervisor = Supervisor::start(self.supervisor(), script);
        let report = supervisor.report();
        supervisor.end();
        report
    }
}

impl Supervisor {
    pub(crate) fn start(mut command: Command, script: &Value) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the supervisor starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        writeln!(stdin, "{script}").expect("written");
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        Self {
            child,
            stdin: Some(stdin),
            stdout,
        }
    }

    pub(crate) fn report(&mut self) -> Report {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("read");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    /// Lets it end by itself.
    pub(crate) fn end(mut self) {
        drop(self.stdin.take());
        let status = self.child.wait().expect("it ends");
        assert!(status.success(), "the supervisor ended with {status}");
    }
}
