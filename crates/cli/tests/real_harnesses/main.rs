//! Real, unchanged, pinned harnesses against strict personas: straight, without the manifest that is for them, and with
//! it.
//!
//! The runs are those of `farrier verify`, by the built binary, on the harnesses that `cargo xtask clients` installs: an
//! empty home each, a configuration that Farrier wrote, two turns in one session. What is looked at here is the report,
//! which quotes the harness's own record.

#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what does not hold fails its test"
)]

mod hermes;
mod openclaw;
mod pairing;
mod report;
mod sandbox;
