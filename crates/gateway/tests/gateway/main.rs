//! The gateway over loopback sockets, between a scripted client and a scripted provider.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a step that fails fails its test"
)]

mod asking;
mod breaking;
mod callers;
mod connections;
mod failing;
mod falling_back;
mod leaving;
mod limiting;
mod passing;
mod queueing;
mod reloading;
mod remembering;
mod residents;
mod retrying;
mod secrets;
mod sharing;
mod support;
mod tls;
mod tracing_wire;
mod versions;
