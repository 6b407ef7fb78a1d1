//! Approves the devices of a harness's own parts in time, and nobody else's.
//!
//! OpenClaw's gateway has each of its clients paired, and parks a request for more scopes until somebody approves it. An
//! agent whose request nobody approves falls back to another mode without a word. The [`Watcher`] approves what the
//! [`Policy`] allows, and lists the rest with its reason.
//!
//! ```text
//! state directory ──inotify──▶ seen ──┐
//! timer ──────────────────────────────┼─▶ Machine ──▶ list, approve ──Runner──▶ the harness's command
//! answers ────────────────────────────┘      └──────▶ notes ──▶ Report (a file that `pair list` and `status` read)
//! ```
//!
//! Guarantees:
//! * Approved is only what [`Policy::decide`] allows, by the id that was decided about. The harness keeps under an id
//!   what was asked with it: a device that asks for something else gets another id.
//! * Every call of the harness's command is bounded; one that takes too long leaves its request as it was.
//! * Calls are bounded in number however often state changes: see [`Pace`].
//! * What the harness's state says is read as data of somebody who may lie: bounded, without following links, and never
//!   put on a command line unless it is a [`RequestId`].
//!
//! Assumption: what a client says of itself is self-declared. The allow-list is defence in depth; whoever reaches the
//! gateway with its token is inside.
//!
//! Facts about OpenClaw are from runs of 2026.4.21, 2026.5.12 and 2026.9.6, and from their sources.

#![forbid(unsafe_code)]

mod bootstrap;
mod decide;
mod driver;
mod host;
mod machine;
mod memory;
mod pace;
mod pass;
mod recovery;
mod report;
mod request;
mod runner;
mod state;
mod supervise;
mod version;
mod wakes;
mod wal;

pub use decide::{Decision, Policy, PolicyError, Reason};
pub use driver::{Ended, Happening, Harness, Observer, Watcher};
pub use host::HostRunner;
pub use machine::{Approved, Event, Listed, Machine, Mode, Note, Sighting, Slowed, Step};
pub use pace::{Pace, seconds_or};
pub use pass::{Limits, Passed, pass};
pub use recovery::Recovery;
pub use report::{
    Happened, Keeper, Liveness, OpenReportError, Pairing, Record, Report, ReportFile, Standing,
    Waiting, Watching,
};
pub use request::{BadListing, Listing, Paired, Request, RequestId, Scopes};
pub use runner::{Invocation, Output, RunError, Runner, TIMED_OUT};
pub use state::StateDir;
pub use supervise::{Backoff, supervise};
pub use version::Version;
