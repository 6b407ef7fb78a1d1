//! Harnesses from outside: what is generated, what is refused, what is read.

#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what does not hold fails its test"
)]

mod environment;
mod hermes;
mod import;
mod injection;
mod launch;
mod openclaw;
mod openclaw_schema;
mod sessions;
mod staging;
mod support;
mod writing;
