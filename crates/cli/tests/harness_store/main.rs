//! `farrier harness`, by the built binary, against a registry and an index of our own on loopback.
//!
//! What the registry serves is what a test made: a harness of a few files, with a lock file that proves it. Nothing of the
//! tester's configuration has a part in it.

#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what does not hold fails its test"
)]

mod hostile;
mod interrupted;
mod machine;
mod npm;
mod packages;
mod pip;
mod real;
mod registry;
