//! A child process: what it says is read as it comes, and it is ended by its own pid.

use std::fmt;
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// How long a process may say nothing while something is awaited of it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A running process. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<Line>,
    said: Said,
}

/// What a process said, and how it ended.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) name: String,
    /// Absent while it runs, and when a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

#[derive(Debug)]
enum Line {
    Stderr(String),
    Stdout(String),
}

// === impl Process ===

impl Process {
    pub(crate) fn start(name: &str, command: &mut Command) -> Self {
        let command = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let (sender, lines) = channel();
        forward(child.stdout.take().unwrap(), Line::Stdout, sender.clone());
        forward(child.stderr.take().unwrap(), Line::Stderr, sender);
        Self {
            stdin: child.stdin.take(),
            child,
            lines,
            said: Said {
                name: name.to_owned(),
                ..Said::default()
            },
        }
    }

    /// Waits until what it has said so far holds the answer.
    pub(crate) fn until<T>(&mut self, answer: impl Fn(&Said) -> Option<T>) -> T {
        loop {
            if let Some(answer) = answer(&self.said) {
                return answer;
            }
            assert!(self.hear(), "it ended too early\n{}", self.said);
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Gives it this on its standard input, and nothing after it.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.stdin.take().unwrap().write_all(bytes).unwrap();
    }

    /// Gives it an empty line on its standard input.
    pub(crate) fn press_return(&mut self) {
        self.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) {
        while self.hear() {}
        self.said.code = self.child.wait().unwrap().code();
    }

    /// Waits for its end, which may be a signal's.
    pub(crate) fn status(mut self) -> ExitStatus {
        while self.hear() {}
        self.child.wait().unwrap()
    }

    /// Waits for its end, and hands out what it said.
    pub(crate) fn ended(mut self) -> Said {
        self.wait();
        std::mem::take(&mut self.said)
    }

    /// Takes in one more line; false when there will be no more.
    fn hear(&mut self) -> bool {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(Line::Stderr(line)) => self.said.stderr += &line,
            Ok(Line::Stdout(line)) => self.said.stdout += &line,
            Err(RecvTimeoutError::Disconnected) => return false,
            Err(RecvTimeoutError::Timeout) => panic!("silent for {PATIENCE:?}\n{}", self.said),
        }
        true
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already gone, if the test went well.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Sends on every line, until the pipe ends or nobody listens any more.
fn forward(pipe: impl Read + Send + 'static, kind: fn(String) -> Line, to: Sender<Line>) {
    let mut pipe = BufReader::new(pipe);
    let mut next = move || -> io::Result<Option<Line>> {
        let mut line = Vec::new();
        let length = pipe.read_until(b'\n', &mut line)?;
        Ok((length > 0).then(|| kind(String::from_utf8_lossy(&line).into_owned())))
    };
    drop(std::thread::spawn(move || {
        while let Ok(Some(line)) = next() {
            if to.send(line).is_err() {
                break;
            }
        }
    }));
}

// === impl Said ===

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            code,
            stdout,
            stderr,
        } = self;
        let code = code.map_or_else(|| "none".to_owned(), |code| code.to_string());
        writeln!(f, "=== {name}, exit code {code}")?;
        for (pipe, text) in [("stdout", stdout), ("stderr", stderr)] {
            if !text.is_empty() {
                writeln!(f, "--- {pipe}\n{}", text.trim_end())?;
            }
        }
        Ok(())
    }
}
