//! The watcher against a scripted harness, on a clock that stands still between events.
//!
//! Each scenario carries the id under which the behaviour is described.

#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what does not hold fails its test"
)]

mod decisions;
mod own_device;
mod passes;
mod properties;
mod scenarios;
mod scripted;
mod sighting;
mod soak;
