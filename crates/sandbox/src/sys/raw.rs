//! Calls into the kernel that no crate wraps safely.

use std::ffi::{CStr, c_int, c_long};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::ForkResult;
use rustix::io::Errno;
use rustix::thread::UnshareFlags;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Which side of a fork one is on.
#[derive(Debug)]
pub(crate) enum Side<Other> {
    Child,
    Parent(Other),
}

/// A mount's properties that are set, never cleared.
#[derive(Clone, Copy, Debug)]
pub(super) struct MountProperties {
    pub(super) bits: u64,
    /// Whether what is mounted below is meant too.
    pub(super) recursive: bool,
}

/// `LANDLOCK_CREATE_RULESET_VERSION`
const LANDLOCK_VERSION: u32 = 1;

/// The version of Landlock's interface, or 0. (The crate for Landlock knows it and does not tell.)
pub(crate) fn landlock_abi() -> u32 {
    let nothing: *const u8 = std::ptr::null();
    // SAFETY: with this flag the kernel reads no attributes; the null pointer and the size of 0 are what it asks for.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            nothing,
            0_usize,
            LANDLOCK_VERSION,
        )
    };
    u32::try_from(version).unwrap_or(0)
}

/// Sets properties of a mount that is given by descriptor, and makes it a private one.
pub(super) fn set_mount_properties(
    mount: BorrowedFd<'_>,
    properties: MountProperties,
) -> Result<(), Errno> {
    let attributes = libc::mount_attr {
        attr_set: properties.bits,
        attr_clr: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    let recursive = if properties.recursive {
        libc::AT_RECURSIVE
    } else {
        0
    };
    let this: &CStr = c"";
    // SAFETY: `attributes` is the structure the kernel reads, of the size that is stated, and outlives the call; the path
    // is a C string; the descriptor is open for as long as it is borrowed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            this.as_ptr(),
            libc::AT_EMPTY_PATH | recursive,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    done(result)
}

/// Leaves namespaces for new ones.
pub(super) fn unshare(namespaces: UnshareFlags) -> Result<(), Errno> {
    // SAFETY: the descriptor table, whose unsharing could surprise other threads, is never among what is unshared.
    unsafe { rustix::thread::unshare_unsafe(namespaces) }
}

/// Starts the first process of the namespaces that were made. It is this process's sibling: the supervisor's child, so
/// that nobody has to stay behind to wait for it. The parent is given its number and a descriptor for it.
pub(crate) fn start_first_process() -> Result<Side<(i32, OwnedFd)>, Errno> {
    let mut pidfd: RawFd = -1;
    let flags = libc::CLONE_PARENT | libc::CLONE_PIDFD;
    let arguments = libc::clone_args {
        flags: u64::from(flags.cast_unsigned()),
        pidfd: (&raw mut pidfd) as u64,
        child_tid: 0,
        parent_tid: 0,
        // A sibling's end is told as this process's own is.
        exit_signal: 0,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: 0,
    };
    // SAFETY: without CLONE_VM and with no stack given this is a fork; this process has one thread, so no lock is held by
    // another. `arguments` is what the kernel reads, and `pidfd` what it writes to; both outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw const arguments,
            size_of::<libc::clone_args>(),
        )
    };
    match result {
        0 => Ok(Side::Child),
        1.. => {
            // SAFETY: the call succeeded, so this is a new descriptor that nobody else owns.
            let process = unsafe { OwnedFd::from_raw_fd(pidfd) };
            let pid = i32::try_from(result).map_err(|_| Errno::OVERFLOW)?;
            Ok(Side::Parent((pid, process)))
        }
        _ => Err(last()),
    }
}

/// Starts a copy of this process.
pub(crate) fn fork() -> Result<Side<nix::unistd::Pid>, Errno> {
    // SAFETY: this process has one thread, so the copy may do whatever this one may.
    match unsafe { nix::unistd::fork() } {
        Ok(ForkResult::Child) => Ok(Side::Child),
        Ok(ForkResult::Parent { child }) => Ok(Side::Parent(child)),
        Err(error) => Err(Errno::from_raw_os_error(error as i32)),
    }
}

/// Watches a descriptor for what is of interest, in the runtime that this is called in.
pub(crate) fn watch(descriptor: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` names the same open descriptor until it is dropped, and the `AsyncFd` owns it.
    let watched = unsafe { AsyncFd::register_with_interest(descriptor, interest) };
    watched.map_err(io::Error::from)
}

/// Ends this process at once, without running anything that was left for its end.
pub(crate) fn exit_now() -> ! {
    // SAFETY: ends the process; no code of it runs afterwards.
    unsafe { libc::_exit(127) }
}

/// Closes every descriptor from `first` on. Only for a process that owns none of them.
pub(crate) fn close_from(first: RawFd) -> Result<(), Errno> {
    close_range(first, 0)
}

/// Lets no descriptor from `first` on survive the next program.
pub(crate) fn close_on_exec_from(first: RawFd) -> Result<(), Errno> {
    close_range(first, libc::CLOSE_RANGE_CLOEXEC)
}

/// Gives every signal its default effect, whatever this process was started with.
pub(crate) fn default_signals() {
    for number in Signal::iterator() {
        // SAFETY: the default effect runs no code of this process.
        let _refused_by_kill_and_stop = unsafe { signal(number, SigHandler::SigDfl) };
    }
}

fn close_range(first: RawFd, flags: impl Into<i64>) -> Result<(), Errno> {
    // SAFETY: whoever calls owns no descriptor that is closed here, or marks them only.
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first.cast_unsigned(),
            u32::MAX,
            flags.into(),
        )
    };
    done(result)
}

fn done(result: c_long) -> Result<(), Errno> {
    if result < 0 { Err(last()) } else { Ok(()) }
}

fn last() -> Errno {
    let code: Option<c_int> = io::Error::last_os_error().raw_os_error();
    Errno::from_raw_os_error(code.unwrap_or(libc::EIO))
}
