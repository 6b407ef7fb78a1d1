//! A home directory with nothing in it, and the binary run there.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
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

/// A command whose stderr is a terminal.
#[derive(Debug)]
pub(crate) struct OnTerminal {
    child: Child,
    /// The end that people look at.
    terminal: File,
    /// Told when the command has ended.
    ended: Receiver<()>,
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
            // Root's own would be the machine's.
            .env("XDG_DATA_HOME", self.path().join("data"))
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

    /// Starts a command that believes that somebody watches.
    pub(crate) fn start_on_terminal(&self, arguments: &[&str]) -> OnTerminal {
        let terminal =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        let name = ptsname(&terminal, Vec::new()).unwrap();
        let theirs = File::options().write(true).open(name.to_str().unwrap());
        let mut command = self.command(arguments);
        command.stdout(Stdio::piped()).stderr(theirs.unwrap());
        let mut child = command.spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let (end, ended) = channel();
        drop(std::thread::spawn(move || {
            stdout.read_to_end(&mut Vec::new()).unwrap();
            end.send(())
        }));
        OnTerminal {
            child,
            terminal: File::from(terminal),
            ended,
        }
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
                } else if path.is_file() {
                    // A socket holds nothing.
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

    /// Reads no more of what it says, and closes the pipe.
    pub(crate) fn turn_away(&mut self) {
        let (_, nothing) = channel();
        self.stderr = nothing;
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

impl OnTerminal {
    /// Looks at the terminal until this is on it.
    pub(crate) fn until(&mut self, shown: &str) {
        let mut seen = String::new();
        while !seen.contains(shown) {
            let mut readable = [PollFd::new(&self.terminal, PollFlags::IN)];
            let within = Timespec::try_from(PATIENCE).unwrap();
            assert_eq!(poll(&mut readable, Some(&within)).unwrap(), 1, "{seen}");
            let mut bytes = [0; 1024];
            let read = self.terminal.read(&mut bytes).unwrap();
            seen.push_str(&String::from_utf8_lossy(&bytes[..read]));
        }
    }

    /// Closes the terminal and tells the command, as the system tells whoever has it for its own; gives its exit code.
    pub(crate) fn hang_up(self) -> Option<i32> {
        let Self {
            mut child,
            terminal,
            ended,
        } = self;
        drop(terminal);
        kill_process(Pid::from_child(&child), Signal::HUP).unwrap();
        let ended = ended.recv_timeout(PATIENCE);
        if ended.is_err() {
            child.kill().unwrap();
        }
        let status = child.wait().unwrap();
        assert!(ended.is_ok(), "it does not end");
        status.code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Already gone, if the test went well.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}
