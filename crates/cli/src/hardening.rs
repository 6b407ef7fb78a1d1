//! What a process that holds secrets does to itself: no core dump, and no other process of its user may look into it.
//!
//! A core file would hold every key in plain text, and outlive the process. Nothing of it survives `execve`, so children
//! are not restricted.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

use crate::failure::Failure;

/// Forbids core dumps and being traced, for as long as the process lives.
pub(crate) fn forbid_core_dumps() -> Result<(), Failure> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none)
        .and_then(|()| set_dumpable_behavior(DumpableBehavior::NotDumpable))
        .map_err(|error| Failure::internal("cannot forbid core dumps", &error))
}
