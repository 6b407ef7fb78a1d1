//! Sandboxes, as root starts them and as a plain user does.
//!
//! A supervisor of its own process is told what to do ([`support`]); what is asserted is what commands inside saw, and
//! what is left outside.

#![forbid(unsafe_code)]
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "what does not hold fails its test"
)]

/// Makes one test of each function for each of both users.
macro_rules! for_both {
    ($($name:ident)*) => {
        mod as_root {
            $(#[test] fn $name() { super::$name($crate::support::Who::Root); })*
        }
        mod as_plain_user {
            $(#[test] fn $name() { super::$name($crate::support::Who::PlainUser); })*
        }
    };
}

mod closed;
mod commands;
mod ends;
mod escape;
mod support;
