//! Takes the steps of a plan. The only place that changes what this process is and may do; `raw` below it is the only one
//! with `unsafe`.
//!
//! In: a [`Step`], and what earlier steps left in [`Ground`]. Out: the step is taken, or the kernel's error; nothing is
//! tried a second way. Everything here is called by a process with a single thread.

mod confine;
mod identity;
mod mount;
mod network;
#[expect(
    unsafe_code,
    reason = "the calls that no crate wraps; nowhere else in this crate"
)]
mod raw;

use std::os::fd::OwnedFd;

use rustix::io::Errno;

use crate::filter::Program;
use crate::steps::Step;

pub(crate) use raw::{
    Side, close_from, close_on_exec_from, default_signals, exit_now, fork, landlock_abi,
    start_first_process, watch,
};

/// What one step leaves for later ones.
#[derive(Debug, Default)]
pub(crate) struct Ground {
    /// What is to be installed by [`Step::Seccomp`].
    programs: Vec<Program>,
    /// What was opened and is not yet shown, by number.
    trees: Vec<Option<OwnedFd>>,
    /// The process file system, until it is shown.
    proc: Option<OwnedFd>,
    /// The root that is made and not yet entered, afterwards the one that was.
    root: Option<OwnedFd>,
    /// A mounted directory with nothing in it, to hide others behind.
    nothing: Option<OwnedFd>,
    /// Sockets that were bound, in their order.
    listeners: Vec<OwnedFd>,
}

impl Ground {
    pub(crate) fn new(programs: Vec<Program>) -> Self {
        Self {
            programs,
            ..Self::default()
        }
    }

    /// The sockets that were bound, in the plan's order.
    pub(crate) fn into_listeners(self) -> Vec<OwnedFd> {
        self.listeners
    }

    /// Takes a step.
    pub(crate) fn take(&mut self, step: &Step) -> Result<(), Errno> {
        match step {
            Step::BecomeUser(user) => identity::become_user(*user),
            Step::UserNamespace { inside, outside } => identity::user_namespace(*inside, *outside),
            Step::Namespaces => identity::namespaces(),
            Step::GroupNamespace => identity::group_namespace(),
            Step::DieWithSupervisor => identity::die_with_supervisor(),
            Step::HostName(name) => rustix::system::sethostname(name.as_bytes()),
            Step::Loopback => network::loopback(),
            Step::CaptureRoutes { ipv6 } => network::capture_routes(*ipv6),
            Step::Listen(listener) => {
                self.listeners.push(network::listen(listener.address)?);
                Ok(())
            }
            Step::NoNestedNamespaces => mount::no_nested_namespaces(self),
            Step::ProcessLimit { resource, most } => confine::process_limit(*resource, *most),
            Step::DropCapabilities => confine::drop_capabilities(),
            Step::NoNewPrivileges => confine::no_new_privileges(),
            Step::Undumpable => confine::undumpable(),
            Step::Landlock { abi, writable } => confine::landlock(*abi, writable),
            Step::Seccomp => confine::seccomp(&self.programs),
            mount => mount::take(self, mount),
        }
    }
}

/// The number in an error of the standard library's; anything that has none counts as an I/O error.
fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
