//! A home directory with nothing in it, and the binary run there.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// How long any single step may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where a test lives.
#[derive(Debug)]
pub(crate) struct Home {
    place: TempDir,
    variables: Vec<(String, String)>,
}

/// What a command said, and how it ended.
#[derive(Debug)]
#[must_use = "look at what it said, or at least how it ended"]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A command that goes on running. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    stderr: Receiver<String>,
    stdout: Option<JoinHandle<String>>,
    seen: String,
}

impl Home {
    pub(crate) fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        Self {
            place,
            variables: Vec::new(),
        }
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn path(&self) -> &Path {
        self.place.path()
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A command in this home, not started yet.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_farrier"));
        command.args(arguments).env_clear();
        self.at_home(&mut command);
        command
    }

    /// Gives `command` this home and the variables that belong to it.
    pub(crate) fn at_home(&self, command: &mut Command) {
        command
            .env("HOME", self.path())
            .env("COLUMNS", "100")
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .current_dir(self.path())
            .stdin(Stdio::null());
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Said {
        Said::of(self.command(arguments).output().unwrap())
    }

    /// Starts a command that ends by a signal.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        Running::start(&mut self.command(arguments))
    }

    /// Everything that lies in files here, names included.
    pub(crate) fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut below = vec![self.path().to_owned()];
        let mut files = Vec::new();
        while let Some(directory) = below.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    below.push(path);
                } else {
                    files.push((path.clone(), std::fs::read(path).unwrap()));
                }
            }
        }
        files
    }
}

impl Said {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The terminal, for snapshots.
    pub(crate) fn shown(&self) -> String {
        let Self {
            code,
            stdout,
            stderr,
        } = self;
        let code = code.map_or_else(|| "signal".to_owned(), |code| code.to_string());
        let part = |name: &str, text: &str| match text.trim_end() {
            "" => String::new(),
            text => format!("--- {name}\n{text}\n"),
        };
        format!(
            "{}{}--- exit {code}",
            part("stdout", stdout),
            part("stderr", stderr)
        )
    }
}

impl Running {
    /// Starts `command`, whose output is read as it comes.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (lines, stderr) = channel();
        let from = BufReader::new(child.stderr.take().unwrap());
        drop(std::thread::spawn(move || {
            // Ends with the stream, or with the test that no longer listens.
            from.lines()
                .map_while(Result::ok)
                .try_for_each(|line| lines.send(line))
        }));
        let mut from = child.stdout.take().unwrap();
        let stdout = std::thread::spawn(move || {
            let mut text = String::new();
            from.read_to_string(&mut text).unwrap();
            text
        });
        Self {
            child,
            stderr,
            stdout: Some(stdout),
            seen: String::new(),
        }
    }

    /// Waits for a line on stderr that holds this.
    pub(crate) fn line(&mut self, holding: &str) -> String {
        loop {
            match self.stderr.recv_timeout(PATIENCE) {
                Ok(line) => {
                    self.see(&line);
                    if line.contains(holding) {
                        return line;
                    }
                }
                Err(error) => panic!("expected a line with {holding:?}, {error}:\n{}", self.seen),
            }
        }
    }

    fn see(&mut self, line: &str) {
        self.seen.push_str(line);
        self.seen.push('\n');
    }

    /// Waits until the gateway says where it listens.
    pub(crate) fn listening(&mut self) -> SocketAddr {
        let line = self.line("listens on http://");
        let address = line
            .split("http://")
            .nth(1)
            .unwrap()
            .split('/')
            .next()
            .unwrap();
        address.parse().unwrap()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end.
    pub(crate) fn ended(mut self) -> Said {
        loop {
            match self.stderr.recv_timeout(PATIENCE) {
                Ok(line) => self.see(&line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it does not end:\n{}", self.seen),
            }
        }
        let status = self.child.wait().unwrap();
        let stdout = self.stdout.take().unwrap().join().unwrap();
        Said {
            code: status.code(),
            stdout,
            stderr: std::mem::take(&mut self.seen),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Already gone, if the test went well.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}
