//! What takes away: limits, capabilities, access rights, system calls. Each is verified where the kernel can be asked.

use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetStatus, Scope,
};
use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, Resource as Kind, Rlimit, set_dumpable_behavior, setrlimit,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    clear_ambient_capability_set, no_new_privs, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs,
};

use crate::filter::Program;
use crate::steps::Resource;

/// Capabilities are numbered below this; the kernel knows some 41 of them.
const CAPABILITIES: u32 = 64;

/// Rights that nobody has anywhere: devices are those that are there.
const NEVER: BitFlags<AccessFs> = landlock::make_bitflags!(AccessFs::{MakeChar | MakeBlock});

pub(super) fn process_limit(resource: Resource, most: u64) -> Result<(), Errno> {
    let kind = match resource {
        Resource::CoreDump => Kind::Core,
        Resource::OpenFiles => Kind::Nofile,
        Resource::Processes => Kind::Nproc,
    };
    // More than one has oneself cannot be given on.
    let most = rustix::process::getrlimit(kind)
        .maximum
        .map_or(most, |maximum| maximum.min(most));
    setrlimit(
        kind,
        Rlimit {
            current: Some(most),
            maximum: Some(most),
        },
    )
}

pub(super) fn drop_capabilities() -> Result<(), Errno> {
    for number in 0..CAPABILITIES {
        let one = CapabilitySet::from_bits_retain(1 << number);
        match remove_capability_from_bounding_set(one) {
            // The kernel knows none of this number, nor of any higher one.
            Err(Errno::INVAL) => break,
            removed => removed?,
        }
        if capability_is_in_bounding_set(one)? {
            return Err(Errno::PERM);
        }
    }
    clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    set_capabilities(
        None,
        CapabilitySets {
            effective: none,
            permitted: none,
            inheritable: none,
        },
    )?;
    let kept = capabilities(None)?;
    if (kept.effective | kept.permitted | kept.inheritable).is_empty() {
        Ok(())
    } else {
        Err(Errno::PERM)
    }
}

pub(super) fn no_new_privileges() -> Result<(), Errno> {
    set_no_new_privs(true)?;
    if no_new_privs()? {
        Ok(())
    } else {
        Err(Errno::PERM)
    }
}

/// Executing a program undoes this, which is right: it is about the first process, which executes none.
pub(super) fn undumpable() -> Result<(), Errno> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
}

pub(super) fn landlock(abi: u32, writable: &[PathBuf]) -> Result<(), Errno> {
    let ruleset = restrictions(abi, writable).map_err(|error| landlock_errno(&error))?;
    let status = ruleset
        .restrict_self()
        .map_err(|error| landlock_errno(&error))?;
    if status.ruleset == RulesetStatus::FullyEnforced {
        Ok(())
    } else {
        Err(Errno::OPNOTSUPP)
    }
}

fn restrictions(abi: u32, writable: &[PathBuf]) -> Result<RulesetCreated, landlock::RulesetError> {
    let abi = ABI::from(i32::try_from(abi).unwrap_or(i32::MAX));
    let all = AccessFs::from_all(abi);
    let read = AccessFs::from_read(abi);
    let devices = read | (AccessFs::from_file(abi) & all);
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(all)?;
    if abi >= ABI::V6 {
        ruleset = ruleset.scope(Scope::from_all(abi))?;
    }
    let mut ruleset = ruleset.create()?;
    ruleset = allow(ruleset, "/", read)?;
    ruleset = allow(ruleset, "/dev", devices)?;
    // A process may write about itself: its name, its priority for the kernel's memory killer.
    ruleset = allow(ruleset, "/proc", read | AccessFs::WriteFile)?;
    for path in writable {
        ruleset = allow(ruleset, path, all & !NEVER)?;
    }
    Ok(ruleset)
}

fn allow(
    ruleset: RulesetCreated,
    path: impl AsRef<std::path::Path>,
    rights: BitFlags<AccessFs>,
) -> Result<RulesetCreated, landlock::RulesetError> {
    let path = path.as_ref();
    // A file has no rights that are a directory's.
    let rights = if path.is_dir() {
        rights
    } else {
        rights & AccessFs::from_file(ABI::V7)
    };
    let Ok(opened) = PathFd::new(path) else {
        // What is writable and not there cannot be written to.
        return Ok(ruleset);
    };
    ruleset.add_rule(PathBeneath::new(opened, rights))
}

/// What the kernel said, at the bottom of what the crate says.
fn landlock_errno(error: &landlock::RulesetError) -> Errno {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            return super::errno(error);
        }
        cause = error.source();
    }
    Errno::OPNOTSUPP
}

pub(super) fn seccomp(programs: &[Program]) -> Result<(), Errno> {
    if programs.is_empty() {
        return Err(Errno::INVAL);
    }
    for program in programs {
        seccompiler::apply_filter(&program.unpack()).map_err(|error| match error {
            seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error) => {
                super::errno(&error)
            }
            _ => Errno::INVAL,
        })?;
    }
    Ok(())
}
