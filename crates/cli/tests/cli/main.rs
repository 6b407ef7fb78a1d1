//! The binary as its user meets it: arguments, files and environment in, terminal and wire out.
//!
//! Every test runs it in a home directory of its own, with nothing of the tester's environment.

#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what does not hold fails its test"
)]

mod check;
mod demo;
mod docs;
mod faults;
mod help;
mod home;
mod registry;
mod secrecy;
mod sim;
mod up;
