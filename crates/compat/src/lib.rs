//! The compatibility engine of Farrier: bytes and facts in, bytes out.
//!
//! Pure on purpose: no sockets, no clock, no file system, no environment. What
//! needs those (looking a turn up, storing one) is asked of the caller, as values:
//!
//! ```text
//! request bytes ──▶ Ask::parse ──▶ Plan::lookup ──keys──▶ (the ledger) ──▶ Plan::rewrite ──▶ segments for upstream
//!                                                                              │
//! steps for the client ◀── StreamRun::push / JsonRun::finish ◀── reply bytes ──┘  Forward(bytes) · Commit(turn)
//! ```
//!
//! Modules depend on each other in one direction only:
//! `wire ← passes ← registry ← plan ← run`.
#![forbid(unsafe_code)]

pub mod facts;
pub mod fault;
#[doc(hidden)]
pub mod fuzzing;
pub mod passes;
pub mod plan;
pub mod registry;
pub mod run;
pub mod wire;
