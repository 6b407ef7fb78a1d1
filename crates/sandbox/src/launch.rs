//! The launcher: this program, started again, with one thread and one socket.
//!
//! It reads what to do, becomes the sandbox's user, makes the namespaces, starts the sandbox's first process as its own
//! sibling, and is gone. That first process takes the remaining steps and, if every one succeeded, says so and becomes
//! `init`. Nothing is read from arguments or environment.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::channel;
use crate::error::Layer;
use crate::init;
use crate::message::{Begin, Joined, Launch, Report};
use crate::steps::Step;
use crate::sys::{self, Ground, Side};

/// Runs the launcher, and then the sandbox's first process. To be called first thing in `main`, before there is a second
/// thread, by a program that was started as a [`LauncherCommand`](crate::LauncherCommand) says.
///
/// Its standard input is the supervisor's socket. Errors go there; the exit status only says that there was one.
#[must_use]
pub fn launcher_main() -> ExitCode {
    match launch() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn launch() -> io::Result<()> {
    sys::close_from(3)?;
    sys::default_signals();
    let control = io::stdin().as_fd().try_clone_to_owned()?;
    detach_standard_streams()?;
    let Launch { plan, programs } = begin(&control)?;
    let mut ground = Ground::new(programs);
    if !take_all(&control, &mut ground, &plan.outside)? {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    // The first process waits until the supervisor can be told of it, so that nothing of it is heard before that.
    let (mut wait, told) = io::pipe()?;
    match sys::start_first_process() {
        Ok(Side::Parent((pid, process))) => {
            channel::send(&control, &Report::Forked { pid }, &[process.as_fd()])?;
            drop(told);
            Ok(())
        }
        Ok(Side::Child) => {
            drop(told);
            wait.read_to_end(&mut Vec::new())?;
            drop(wait);
            first_process(control, ground, plan.inside)
        }
        Err(errno) => {
            report(
                &control,
                Layer::Namespaces,
                "start the first process".to_owned(),
                errno,
            )?;
            Err(errno.into())
        }
    }
}

fn first_process(control: OwnedFd, mut ground: Ground, steps: Vec<Step>) -> io::Result<()> {
    if !take_all(&control, &mut ground, &steps)? {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    drop(steps);
    let listeners = ground.into_listeners();
    let borrowed: Vec<_> = listeners.iter().map(AsFd::as_fd).collect();
    channel::send(&control, &Report::Ready, &borrowed)?;
    drop(listeners);
    init::run(&control)
}

/// Whether every step succeeded; the first that did not has been reported, and none after it was taken.
fn take_all(control: &OwnedFd, ground: &mut Ground, steps: &[Step]) -> io::Result<bool> {
    for step in steps {
        let taken = match step {
            Step::JoinGroups => joined(control),
            step => ground.take(step),
        };
        if let Err(errno) = taken {
            report(control, step.layer(), step.to_string(), errno)?;
            return Ok(false);
        }
    }
    Ok(true)
}

fn joined(control: &OwnedFd) -> Result<(), Errno> {
    match channel::receive::<Joined>(control) {
        Ok(Some(_)) => Ok(()),
        // Then there is nobody who would hear of it either.
        Ok(None) => Err(Errno::CONNRESET),
        Err(error) => Err(Errno::from_io_error(&error).unwrap_or(Errno::PROTO)),
    }
}

fn report(control: &OwnedFd, layer: Layer, step: String, errno: Errno) -> io::Result<()> {
    let errno = errno.raw_os_error();
    channel::send(control, &Report::Failed { layer, step, errno }, &[])
}

fn begin(control: &OwnedFd) -> io::Result<Launch> {
    let begun = channel::receive::<Begin>(control)?;
    let (Begin, mut files) = begun.ok_or(io::ErrorKind::UnexpectedEof)?;
    let file = files.pop().ok_or(io::ErrorKind::InvalidData)?;
    let mut text = Vec::new();
    File::from(file).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

/// Standard input was the socket; the others are the supervisor's and are nobody's business in here.
fn detach_standard_streams() -> io::Result<()> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let null = rustix::fs::open("/dev/null", flags, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}
