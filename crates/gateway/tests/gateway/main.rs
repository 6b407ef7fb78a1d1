//! The gateway over loopback sockets, between a scripted client and a scripted provider.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a step that fails fails its test"
)]

mod asking;
mod callers;
mod failing;
mod leaving;
mod passing;
mod reloading;
mod remembering;
mod secrets;
mod support;
mod tls;
mod tracing_wire;
mod versions;
