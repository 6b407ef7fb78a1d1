//! Where a secret comes from, and the only type in which its plaintext lives.
//!
//! *In:* a [`SecretRef`] out of a configuration file, and a function that reads the environment.
//! *Out:* a [`Secret`], which can be compared, put into a sensitive header, or read at one named
//! place, [`Secret::expose`].
//!
//! Invariants:
//! * A plaintext is never printed: [`Secret`] has no `Display`, its `Debug` is `Secret(***)`, and
//!   no error of this crate holds any part of one. What is shown is the reference.
//! * A plaintext is overwritten when it is dropped, and so are the buffers it was read through. A
//!   header value made from it is a copy that is marked sensitive but is not overwritten, because
//!   the HTTP stack owns it.
//! * A [`Secret`] is one line of text: no control character, no white space around it, never empty.
//!
//! This crate does not read the environment by itself, does not cache, does not watch files, and
//! knows nothing of who may use a secret or where it may be sent.
#![forbid(unsafe_code)]

mod reference;
mod secret;

pub use reference::{MAX_FILE_BYTES, Resolved, SecretError, SecretFileMode, SecretRef};
pub use secret::{HeaderError, Secret, TextError};
