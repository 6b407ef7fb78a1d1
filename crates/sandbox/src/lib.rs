//! The sandbox that a harness runs in: its own users, mounts, processes and network, and nothing of the host that was not
//! asked for.
//!
//! ```text
//! Policy ─┐
//!         ├─ plan ─▶ Plan (ordered, printable) ─▶ launcher ─▶ init (pid 1) ─▶ commands
//! Offers ─┘                                          │           │
//!                        listeners bound inside ◀────┴───────────┘  over a socket, by descriptor
//! ```
//!
//! In: a [`Policy`], what is wanted, and [`Offers`], what this kernel and user have. Out: a [`Sandbox`], in which commands
//! are run ([`Sandbox::exec`]), and the sockets that were bound inside it ([`Sandbox::take_listeners`]), to be served from
//! outside.
//!
//! Invariants:
//! * a layer that cannot be applied ends the launch: no command has run by then, and the error names the layer;
//! * one path for root and for everybody else: root becomes an unprivileged user before anything else is done, because a
//!   user namespace mapped onto the host's root could write the host's sysctls;
//! * the network namespace has a loopback and no way out; whoever is asked from inside is a socket that was bound there
//!   before the first command and is served outside;
//! * the sandbox ends with its supervisor, however that one ends;
//! * `unsafe` is in `sys` alone.
//!
//! The launcher is this very program, started again: whoever uses the crate calls [`launcher_main`] first thing in `main`
//! when its first argument is the launcher's. What each layer does, and what none of them covers, is told in
//! `docs/sandbox-isolation.md`.

mod cgroup;
mod channel;
mod error;
mod filter;
mod init;
mod launch;
mod message;
mod netlink;
mod offers;
mod policy;
mod process;
mod steps;
mod supervise;
mod sys;

pub use cgroup::{Limit, LimitsInForce};
pub use error::{ExecError, LaunchError, Layer, SandboxGone};
pub use launch::launcher_main;
pub use message::Exit;
pub use offers::{Offers, ProcEntry, SystemEntry, SystemPath};
pub use policy::{
    Access, Bind, File, HostUser, Limits, ListenAddress, Listener, Policy, PolicyError, Root,
    Tmpfs, User,
};
pub use process::{Exec, Io, Process, Pty, WindowSize};
pub use steps::{Plan, Step, plan};
pub use supervise::{Launcher, LauncherCommand, Sandbox};
