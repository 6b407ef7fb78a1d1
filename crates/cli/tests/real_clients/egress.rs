//! Real, unchanged clients in a sandbox's place: they hold placeholders, and a destination behind TLS sees the keys.
//!
//! ```text
//! client ──CONNECT──▶ farrier up, egress "work" ──TLS──▶ destination, which remembers what it was asked
//!        └──────────▶ farrier up, egress "bare", which has no provider: the typed refusal, and nothing forwarded
//! ```
//!
//! The clients are told of proxy, certificate and key by the variables that each of them documents, and of nothing else.

mod canaries;
mod destination;
mod git;
mod keyring;
mod reach;
mod sandbox;
mod slack;
mod unseen;
