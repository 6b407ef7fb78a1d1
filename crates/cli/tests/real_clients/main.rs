//! Real, unchanged, pinned clients against the strict persona: straight, where they fail, and through Farrier, where they
//! finish.
//!
//! Everything is the built binary and a real process: `farrier sim` plays the model, `farrier up` is the gateway, and the
//! clients of `clients/` run on the packages that `cargo xtask test` installs. The persona wants a credential that the
//! gateway alone has, and thinks thoughts that are unique to a conversation and a turn; its log tells what came back.
//!
//! Behind a sandbox's proxy, other clients hold placeholders for keys: [`egress`].
//!
//! Each test of a model is an act on a [`stage`]; when one fails, everything that anyone said is shown.

#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what does not hold fails its test"
)]

mod client;
mod conversations;
mod egress;
mod heard;
mod matrix;
mod personas;
mod process;
mod stage;
mod wire;
