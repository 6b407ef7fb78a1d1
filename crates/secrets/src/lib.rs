//! Where a secret comes from, and the only type in which its plaintext lives.
//!
//! ```text
//! SecretRef ──▶ Secret                                            where it comes from
//! ProviderSpec + Profile ──▶ Credentials ──▶ Attached ──▶ Lent    where it may go
//! ```
//!
//! *In:* [`SecretRef`]s out of configuration and state, and a function that reads the environment; providers as they are
//! declared. *Out:* a [`Secret`], which can be compared, put into a sensitive header, or read at one named place,
//! [`Secret::expose`]; of providers' keys only towards a [`Destination`] that the key is bound to.
//!
//! Invariants:
//! * A plaintext is never printed: [`Secret`] has no `Display`, its `Debug` is `Secret(***)`, and
//!   no error of this crate holds any part of one. What is shown is the reference.
//! * A plaintext is overwritten when it is dropped, and so are the buffers it was read through. A
//!   header value made from it is a copy that is marked sensitive but is not overwritten, because
//!   the HTTP stack owns it.
//! * A [`Secret`] is one line of text: no control character, no white space around it, never empty.
//! * A generation of [`Credentials`] never changes; whoever owns it replaces it whole.
//!
//! This crate does not read the environment by itself (the keyring's client finds its bus there), does not cache, does not watch files, knows nothing of HTTP
//! messages, and does not look for placeholders.
#![forbid(unsafe_code)]

mod credentials;
mod endpoint;
mod folder;
mod keyring;
mod looks;
mod name;
mod profile;
mod reference;
mod secret;

pub use credentials::{Attached, BrokenKey, Credentials, Lent, ProviderSpec, Refusal, Unavailable};
pub use endpoint::{Destination, Endpoint, EndpointError, Scheme};
pub use folder::{Folder, KeepError};
pub use keyring::{Account, KeyringError};
pub use looks::looks_like_a_secret;
pub use name::{KeyName, NameError, ProviderName, without_revision};
pub use profile::{Api, Binds, Bound, Key, Method, Places, Probe, Profile, Sent};
pub use reference::{RefError, Resolved, SecretError, SecretFileMode, SecretRef};
pub use secret::{HeaderError, MAX_FILE_BYTES, ReadError, Secret, TextError};
