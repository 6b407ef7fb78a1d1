//! Harnesses in Farrier's own store: pinned, proven by a lock file, read by sandboxes and written to by nobody.
//!
//! ```text
//! shelf: lock files in this program ─┐                      origin: npm's and pip's configuration
//!                                    ▼                           │
//! openclaw@2026.5.12 ──▶ install: npm, pypi ──▶ fetch ──(digest)─┴▶ archive, wheel ──▶ tree, sealed ──▶ renamed into place
//!                                                                                                      │
//! Installed { path, programs, runtime } ◀───────────────────────────────────────────────────── store ◀─┘
//! ```
//!
//! No npm, pip or container engine is needed, and nothing that comes in a package is run: neither install scripts nor the
//! harness itself. A harness in JavaScript brings its Node; one in Python runs on the host's, which sandboxes see.
//!
//! # What it does not do
//! It resolves no versions: what a version consists of is what its lock file says. It keeps no running installation alive
//! and knows no sandboxes; who removes one asks them.

mod archive;
mod digest;
pub(crate) mod fetch;
pub(crate) mod install;
mod machine;
mod npm;
pub(crate) mod origin;
mod pypi;
mod python;
pub(crate) mod shelf;
pub(crate) mod store;
mod tree;
mod wheel;

pub(crate) use store::{Installed, NotInstalled, Store};
pub(crate) use tree::Difference;
