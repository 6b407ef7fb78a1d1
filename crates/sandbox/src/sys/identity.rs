//! Who the sandbox is: an unprivileged user of the host, alone in namespaces of its own.

use std::fs;

use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Signal, set_dumpable_behavior};
use rustix::thread::{
    Gid, Uid, UnshareFlags, capabilities, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use super::{errno, raw};
use crate::policy::HostUser;

pub(super) fn become_user(user: HostUser) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    // Groups first: afterwards there is no right to. Root's own would open what is readable to groups.
    set_thread_groups(&[])?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    let kept = capabilities(None)?;
    let root = Uid::ROOT;
    if !(kept.effective | kept.permitted).is_empty() || set_thread_res_uid(root, root, root).is_ok()
    {
        return Err(Errno::PERM);
    }
    // A process that has changed its user belongs to root until it says otherwise, and could not write its own maps.
    set_dumpable_behavior(DumpableBehavior::Dumpable)
}

pub(super) fn user_namespace(inside: HostUser, outside: HostUser) -> Result<(), Errno> {
    raw::unshare(UnshareFlags::NEWUSER)?;
    let write = |name: &str, text: String| {
        fs::write(format!("/proc/self/{name}"), text).map_err(|error| errno(&error))
    };
    write("setgroups", "deny".to_owned())?;
    write("uid_map", format!("{} {} 1", inside.uid, outside.uid))?;
    write("gid_map", format!("{} {} 1", inside.gid, outside.gid))
}

pub(super) fn namespaces() -> Result<(), Errno> {
    raw::unshare(
        UnshareFlags::NEWNS
            | UnshareFlags::NEWPID
            | UnshareFlags::NEWIPC
            | UnshareFlags::NEWUTS
            | UnshareFlags::NEWNET,
    )
}

pub(super) fn group_namespace() -> Result<(), Errno> {
    raw::unshare(UnshareFlags::NEWCGROUP)
}

/// The supervisor's launching thread is this process's parent, and ends only when the supervisor does. Set here because
/// becoming another user unsets it. That the supervisor might be gone already shows at the control socket.
pub(super) fn die_with_supervisor() -> Result<(), Errno> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
}
