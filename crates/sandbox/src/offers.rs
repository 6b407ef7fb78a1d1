//! What this machine offers a sandbox: who we are, what the kernel can do, which parts of a system are there.
//!
//! Looked at once per launch and handed to the planner as data, so that planning stays pure and can be tested for machines
//! that are not here.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{getegid, geteuid};
use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};

use crate::sys;

/// What this machine offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offers {
    /// The supervisor's effective user.
    pub uid: u32,
    /// The supervisor's effective group.
    pub gid: u32,
    /// Whether the supervisor may mount where it is: root outside of containers, and in some.
    pub mounts: bool,
    /// The version of Landlock's interface; 0 without Landlock.
    pub landlock_abi: u32,
    /// Whether a new network namespace has IPv6.
    pub ipv6: bool,
    /// What lies at the top of `/proc`, processes apart.
    pub proc: Vec<ProcEntry>,
    /// What there is of the host's system.
    pub system: Vec<SystemPath>,
}

/// Something at the top of `/proc`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcEntry {
    /// Its name.
    pub name: String,
    /// Whether it is a directory.
    pub directory: bool,
}

/// A part of the host's system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemPath {
    /// Where it is, here and in the sandbox.
    pub path: PathBuf,
    /// What it is.
    pub entry: SystemEntry,
}

/// What a part of the host's system is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SystemEntry {
    /// A file or directory, to be shown read-only.
    Shown,
    /// A symbolic link to this, to be made again.
    Link(PathBuf),
}

/// The host's system, as far as programs need it. Of `/etc`, only what holds no secret and says nothing about the host's
/// users.
const SYSTEM: &[&str] = &[
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    // Where Nix keeps what its `/bin` and `/usr/bin` lead to.
    "/nix/store",
    // Which of several programs a name in /usr/bin means, on Debian.
    "/etc/alternatives",
    "/etc/bash.bashrc",
    // The host's trust in certificates; never /etc/ssl/private.
    "/etc/ca-certificates",
    "/etc/crypto-policies",
    "/etc/pki/ca-trust",
    "/etc/pki/tls/certs",
    "/etc/pki/tls/cert.pem",
    "/etc/ssl/cert.pem",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/fonts",
    "/etc/gai.conf",
    "/etc/inputrc",
    // The dynamic linker's cache; without it programs search directories.
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ld-musl-aarch64.path",
    "/etc/ld-musl-x86_64.path",
    "/etc/locale.alias",
    "/etc/localtime",
    "/etc/magic",
    "/etc/mime.types",
    "/etc/os-release",
    "/etc/debian_version",
    "/etc/profile",
    "/etc/profile.d",
    "/etc/protocols",
    "/etc/python3",
    "/etc/services",
    "/etc/shells",
    "/etc/skel",
    "/etc/terminfo",
    "/etc/timezone",
    "/etc/vim",
    "/etc/xattr.conf",
];

impl Offers {
    /// Looks at this machine. What cannot be seen is not offered.
    #[must_use]
    pub fn probe() -> Self {
        Self {
            uid: geteuid().as_raw(),
            gid: getegid().as_raw(),
            mounts: rustix::thread::capabilities(None)
                .is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN)),
            landlock_abi: sys::landlock_abi(),
            ipv6: ipv6(),
            proc: proc_entries(),
            system: SYSTEM.iter().filter_map(|path| system_path(path)).collect(),
        }
    }

    /// Whether the supervisor is root and has to become somebody else.
    #[must_use]
    pub fn root(&self) -> bool {
        self.uid == 0
    }
}

/// A namespace starts from the kernel's defaults for IPv6, or from the host's own settings if it is told to.
fn ipv6() -> bool {
    let is_set = |path| fs::read_to_string(path).is_ok_and(|value| value.trim() == "1");
    let inherited = is_set("/proc/sys/net/core/devconf_inherit_init_net")
        && is_set("/proc/sys/net/ipv6/conf/all/disable_ipv6");
    let switched_off = inherited || is_set("/sys/module/ipv6/parameters/disable_ipv6");
    Path::new("/proc/net/if_inet6").exists() && !switched_off
}

fn proc_entries() -> Vec<ProcEntry> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let entry = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let kind = entry.file_type().ok()?;
        let process = name.bytes().all(|byte| byte.is_ascii_digit());
        (!process && !kind.is_symlink()).then_some(ProcEntry {
            name,
            directory: kind.is_dir(),
        })
    };
    let mut entries: Vec<_> = entries.flatten().filter_map(entry).collect();
    entries.sort_by(|one, other| one.name.cmp(&other.name));
    entries
}

fn system_path(path: &str) -> Option<SystemPath> {
    let path = PathBuf::from(path);
    let kind = fs::symlink_metadata(&path).ok()?.file_type();
    let entry = if kind.is_symlink() {
        SystemEntry::Link(fs::read_link(&path).ok()?)
    } else {
        SystemEntry::Shown
    };
    Some(SystemPath { path, entry })
}
