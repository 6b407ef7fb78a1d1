//! A sandbox's proxy between real clients and real servers.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "what does not hold fails its test")]

mod hostile;
mod inside;
mod journey;
mod support;
mod websocket;
