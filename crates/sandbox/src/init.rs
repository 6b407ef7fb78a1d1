//! The sandbox's first process: starts what the supervisor asks for, reaps whatever ends, and ends with the supervisor.
//!
//! One thread, two descriptors to wait for: the supervisor's socket and the signal that a child has ended. When the socket
//! closes it returns, and with it, as the first process of its namespace, everything in the sandbox ends.
//!
//! It is confined like everything else in the sandbox, so that a command is a fork of it and no more: nothing is left to
//! be taken away between the fork and the program.

use std::collections::HashMap;
use std::convert::Infallible;
use std::ffi::CString;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno as NixErrno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pty::OpenptFlags;

use crate::channel;
use crate::message::{CommandId, Exit, Report, Request};
use crate::process::WindowSize;
use crate::sys::{self, Side};

#[derive(Debug, Default)]
struct Commands {
    running: HashMap<i32, CommandId>,
}

/// Everything that a command needs between the fork and the program, made before the fork.
struct Prepared {
    argv: Vec<CString>,
    environment: Vec<CString>,
    directory: CString,
    /// Where to look for the program, in order.
    candidates: Vec<CString>,
    streams: Streams,
}

/// What a command's standard input, output and error are.
#[derive(Debug)]
enum Streams {
    Given([OwnedFd; 3]),
    Terminal { master: OwnedFd, terminal: OwnedFd },
}

/// Why a command did not start.
#[derive(Debug)]
struct Refusal {
    stage: &'static str,
    errno: Errno,
}

/// The stages at which a command can fail between the fork and the program, as a byte that goes through a pipe.
const STAGES: [&str; 5] = [
    "becoming a session",
    "taking the terminal",
    "attaching its streams",
    "entering its directory",
    "executing the program",
];

/// Serves the supervisor until it is gone.
pub(crate) fn run(control: &OwnedFd) -> io::Result<()> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), None)?;
    let ends = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let mut commands = Commands::default();
    loop {
        let (asked, ended) = wait(control, &ends)?;
        if ended {
            while ends.read_signal()?.is_some() {}
            commands.reap(control)?;
        }
        if asked {
            let Some((request, descriptors)) = channel::receive(control)? else {
                return Ok(());
            };
            commands.serve(control, request, descriptors)?;
        }
    }
}

fn wait(control: &OwnedFd, ends: &SignalFd) -> io::Result<(bool, bool)> {
    let mut ready = [
        PollFd::new(control, PollFlags::IN),
        PollFd::new(ends, PollFlags::IN),
    ];
    match poll(&mut ready, None) {
        Err(Errno::INTR) => return Ok((false, false)),
        ready => ready?,
    };
    let [asked, ended] = ready.map(|one| !one.revents().is_empty());
    Ok((asked, ended))
}

impl Commands {
    fn serve(
        &mut self,
        control: &OwnedFd,
        request: Request,
        descriptors: Vec<OwnedFd>,
    ) -> io::Result<()> {
        match request {
            Request::Exec {
                id,
                argv,
                environment,
                directory,
                terminal,
            } => {
                let streams = Streams::new(terminal, descriptors);
                let prepared = streams
                    .and_then(|streams| Prepared::new(argv, environment, directory, streams));
                let started = prepared.and_then(start);
                self.answer(control, id, started)
            }
            Request::Signal { id, signal } => {
                let running = self.running.iter().find(|(_, running)| **running == id);
                if let Some((pid, _)) = running {
                    // To the group, whose number is its leader's: shells put their pipelines into it.
                    send_signal(-pid, signal);
                }
                Ok(())
            }
            Request::SignalAll { signal } => {
                send_signal(-1, signal);
                Ok(())
            }
        }
    }

    fn answer(
        &mut self,
        control: &OwnedFd,
        id: CommandId,
        started: Result<(Pid, Option<OwnedFd>), Refusal>,
    ) -> io::Result<()> {
        match started {
            Ok((pid, master)) => {
                self.running.insert(pid.as_raw(), id);
                let beside: Vec<_> = master.iter().map(AsFd::as_fd).collect();
                channel::send(control, &Report::Started { id }, &beside)
            }
            Err(Refusal { stage, errno }) => {
                let report = Report::Refused {
                    id,
                    stage: stage.to_owned(),
                    errno: errno.raw_os_error(),
                };
                channel::send(control, &report, &[])
            }
        }
    }

    /// Takes note of every process that has ended: commands, and what they left behind.
    fn reap(&mut self, control: &OwnedFd) -> io::Result<()> {
        loop {
            let (pid, exit) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, Exit::Code(code)),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, Exit::Signal(signal as i32)),
                Ok(WaitStatus::StillAlive) | Err(NixErrno::ECHILD) => return Ok(()),
                Ok(_) | Err(NixErrno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            };
            if let Some(id) = self.running.remove(&pid.as_raw()) {
                channel::send(control, &Report::Exited { id, exit }, &[])?;
            }
        }
    }
}

impl Streams {
    fn new(terminal: Option<WindowSize>, descriptors: Vec<OwnedFd>) -> Result<Self, Refusal> {
        let refuse = |errno| Refusal {
            stage: "opening a terminal",
            errno,
        };
        match terminal {
            Some(size) => open_terminal(size).map_err(refuse),
            None => <[OwnedFd; 3]>::try_from(descriptors)
                .map(Self::Given)
                .map_err(|_| refuse(Errno::BADF)),
        }
    }
}

fn open_terminal(size: WindowSize) -> Result<Streams, Errno> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = rustix::fs::open("/dev/pts/ptmx", flags, Mode::empty())?;
    rustix::pty::unlockpt(&master)?;
    let options = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let terminal = rustix::pty::ioctl_tiocgptpeer(&master, options)?;
    rustix::termios::tcsetwinsize(&master, size.into())?;
    Ok(Streams::Terminal { master, terminal })
}

impl Prepared {
    fn new(
        argv: Vec<String>,
        environment: Vec<String>,
        directory: String,
        streams: Streams,
    ) -> Result<Self, Refusal> {
        let bad = |_| Refusal {
            stage: "reading its arguments",
            errno: Errno::INVAL,
        };
        let strings = |texts: Vec<String>| -> Result<Vec<CString>, Refusal> {
            let texts = texts.into_iter().map(CString::new);
            texts.collect::<Result<_, _>>().map_err(bad)
        };
        let candidates = candidates(argv.first().map_or("", String::as_str), &environment);
        Ok(Self {
            candidates: strings(candidates)?,
            argv: strings(argv)?,
            environment: strings(environment)?,
            directory: CString::new(directory).map_err(bad)?,
            streams,
        })
    }
}

/// Where a program may be: where it says if it has a slash, else in the directories of the command's own `PATH`.
fn candidates(program: &str, environment: &[String]) -> Vec<String> {
    if program.contains('/') {
        return vec![program.to_owned()];
    }
    let path = environment
        .iter()
        .find_map(|entry| entry.strip_prefix("PATH="));
    let directories = path.unwrap_or_default().split(':');
    directories
        .filter(|directory| directory.starts_with('/'))
        .map(|directory| format!("{directory}/{program}"))
        .collect()
}

fn start(prepared: Prepared) -> Result<(Pid, Option<OwnedFd>), Refusal> {
    let refuse = |errno| Refusal {
        stage: "starting a process",
        errno,
    };
    let (mut told, mut tell) = io::pipe().map_err(|_| refuse(Errno::MFILE))?;
    match sys::fork().map_err(refuse)? {
        Side::Child => {
            let Err((stage, errno)) = become_command(&prepared);
            // If this cannot be told, there is nobody to tell.
            let code = errno.raw_os_error().to_ne_bytes();
            drop(tell.write_all(&[&[stage], code.as_slice()].concat()));
            // Without running what the first process would at its end.
            sys::exit_now()
        }
        Side::Parent(pid) => {
            drop(tell);
            let mut refusal = Vec::new();
            told.read_to_end(&mut refusal)
                .map_err(|_| refuse(Errno::IO))?;
            match refused(&refusal) {
                Some(refusal) => Err(refusal),
                None => Ok((pid, prepared.streams.into_master())),
            }
        }
    }
}

fn refused(told: &[u8]) -> Option<Refusal> {
    let (stage, code) = told.split_first()?;
    let code = i32::from_ne_bytes(code.try_into().ok()?);
    Some(Refusal {
        stage: STAGES.get(usize::from(*stage)).copied().unwrap_or_default(),
        errno: Errno::from_raw_os_error(code),
    })
}

impl Streams {
    fn into_master(self) -> Option<OwnedFd> {
        match self {
            Self::Given(_) => None,
            Self::Terminal { master, .. } => Some(master),
        }
    }
}

/// In the copy: becomes the command, or says at which stage that failed.
fn become_command(prepared: &Prepared) -> Result<Infallible, (u8, Errno)> {
    rustix::process::setsid().map_err(|errno| (0, errno))?;
    let [input, output, error] = match &prepared.streams {
        Streams::Given([input, output, error]) => [input, output, error],
        Streams::Terminal { terminal, .. } => {
            rustix::process::ioctl_tiocsctty(terminal).map_err(|errno| (1, errno))?;
            [terminal; 3]
        }
    };
    let attached = rustix::stdio::dup2_stdin(input)
        .and_then(|()| rustix::stdio::dup2_stdout(output))
        .and_then(|()| rustix::stdio::dup2_stderr(error))
        .and_then(|()| sys::close_on_exec_from(3));
    attached.map_err(|errno| (2, errno))?;
    rustix::process::chdir(&*prepared.directory).map_err(|errno| (3, errno))?;
    // A program starts with no signal blocked.
    let unblocked = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
    unblocked.map_err(|error| (4, Errno::from_raw_os_error(error as i32)))?;
    Err((4, execute(prepared)))
}

/// Returns only if no candidate could be executed: the first reason that is not its absence.
fn execute(prepared: &Prepared) -> Errno {
    let mut reason = Errno::NOENT;
    for candidate in &prepared.candidates {
        let Err(error) = nix::unistd::execve(candidate, &prepared.argv, &prepared.environment);
        let error = Errno::from_raw_os_error(error as i32);
        if !matches!(error, Errno::NOENT | Errno::NOTDIR) && reason == Errno::NOENT {
            reason = error;
        }
    }
    reason
}

fn send_signal(pid: i32, signal: i32) {
    if let Ok(signal) = Signal::try_from(signal) {
        let _gone_already = kill(Pid::from_raw(pid), signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_looked_for_in_the_commands_own_path_unless_it_has_a_slash() {
        let environment = ["HOME=/home".to_owned(), "PATH=/a:relative::/b".to_owned()];
        assert_eq!(candidates("sh", &environment), ["/a/sh", "/b/sh"]);
        assert_eq!(candidates("./sh", &environment), ["./sh"]);
        assert_eq!(candidates("sh", &[]), Vec::<String>::new());
    }

    #[test]
    fn what_a_copy_tells_through_the_pipe_is_the_stage_and_the_error() {
        let told = [&[3], libc::EACCES.to_ne_bytes().as_slice()].concat();
        let refusal = refused(&told).expect("a refusal");
        assert_eq!(
            (refusal.stage, refusal.errno),
            ("entering its directory", Errno::ACCESS)
        );
        assert!(
            refused(&[]).is_none(),
            "a program that was executed tells nothing"
        );
    }
}
