//! Scripted peers over real sockets, real stores, and the cases of the corpus, for tests only.
//!
//! A test is written as what each side does in turn: a [`ScriptedUpstream`] that receives requests and sends bytes
//! exactly as told, and a [`RawClient`] that does the same from the other end. Nothing here parses more of HTTP/1.1
//! than a test needs to read, so that a test can send what no library would. Every wait is bounded by [`PATIENCE`] and
//! fails the test with what was awaited.

#![forbid(unsafe_code)]
#![expect(clippy::panic, reason = "a broken script fails its test")]

mod client;
pub mod corpus;
mod store;
mod upstream;
mod wire;

pub use client::RawClient;
pub use store::StoreServer;
pub use upstream::{ScriptedPeer, ScriptedUpstream};
pub use wire::{Headers, PATIENCE, RawRequest, RawResponse};
