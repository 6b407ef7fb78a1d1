//! What Farrier keeps between commands, and the control API of a running gateway, on a Unix socket: what it is asked with,
//! and what it answers. The [`store`] is a file of its own, which commands and gateways open; this is about the socket.
//!
//! ```text
//! Client ──HTTP/1.1 over a Unix socket──▶ Socket ── who calls? ──▶ route ──▶ Operations (the process's own)
//! ```
//!
//! In: a path, and [`Operations`]. Out: answered calls, as [`OPENAPI`] describes them.
//!
//! Invariants:
//! * Only the gateway's own user and root are answered, whatever the file's permissions say: the kernel tells who calls.
//! * A socket that a dead process left is replaced; that of a live one never is. A lock beside the socket tells which
//!   it is, and the system releases it with the process.
//! * Calls are few and small: their number, their heads, their bodies and their time are bounded.
//!
//! Knows of the gateway what is in [`Status`], [`Reload`] and [`Providers`], and nothing of how either comes about.

#![forbid(unsafe_code)]

mod api;
mod client;
mod sandbox;
mod serve;
mod socket;
pub mod store;
pub mod talk;

pub use api::{
    Cause, Code, Mistake, OPENAPI, Origin, Outcome, Provider, Providers, Reload, Status,
};
pub use client::{CallError, Client};
pub use sandbox::{
    InvalidSandboxName, LimitSpec, MountSpec, NewSandbox, PairingStatus, SandboxChange,
    SandboxName, SandboxSpec, SandboxState, SandboxStatus, Sandboxes, ServiceStatus, SessionStatus,
};
pub use serve::{Conversation, Operations, SandboxAct, Stream, Unable};
pub use socket::{BindError, Socket};
