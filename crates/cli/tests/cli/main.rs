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
mod configure;
mod demo;
mod docs;
mod egress;
mod faults;
mod fleet;
mod help;
mod home;
mod pair;
mod provider;
mod registry;
mod reload;
mod sandbox;
mod secrecy;
mod sim;
mod stage;
mod up;
mod verify;
