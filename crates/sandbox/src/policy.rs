//! What is wanted of a sandbox: plain data, checked before anything is done.
//!
//! A policy says nothing about how: the order of things, and what the kernel can do, are `steps` and `offers`. It names no
//! layer that could be left out: all of them always apply.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

/// What is wanted of a sandbox.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// The sandbox's name, and its host name: letters, digits and inner hyphens, at most 63.
    pub name: String,
    /// Where its system comes from.
    pub root: Root,
    /// Who its commands run as, seen from inside.
    pub user: User,
    /// Who that is on the host: the supervisor itself unless it is root, which has to name an unprivileged user.
    pub host_user: Option<HostUser>,
    /// Files and directories of the host, the private home and workspace among them. A later one may lie below an
    /// earlier one.
    pub binds: Vec<Bind>,
    /// Files that are written into the sandbox's root: `/etc/passwd`, `/etc/hosts`, a bundle of certificates.
    pub files: Vec<File>,
    /// File systems in memory.
    pub tmpfs: Vec<Tmpfs>,
    /// What every command is given for an environment. Nothing is inherited.
    pub environment: BTreeMap<String, String>,
    /// Sockets that are bound inside before the first command and given to the supervisor.
    pub listeners: Vec<Listener>,
    /// What it may use up.
    pub limits: Limits,
}

/// Where a sandbox's system comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", tag = "kind")]
pub enum Root {
    /// A directory that holds a system, an unpacked image for instance, with changes kept apart from it.
    Directory {
        /// The system, never written to. Unpacked as the sandbox's user on the host: what belongs to others can be read and
        /// executed, and not be replaced.
        system: PathBuf,
        /// A directory of the sandbox's user, in which its changes are kept.
        changes: PathBuf,
    },
    /// The host's programs and libraries, read-only, and of `/etc` what programs need and nobody minds.
    Host,
}

/// Who commands run as, seen from inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// The login name.
    pub name: String,
    /// Not 0.
    pub uid: u32,
    /// Not 0.
    pub gid: u32,
    /// Where a command starts that names no directory.
    pub home: PathBuf,
}

/// An unprivileged user of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostUser {
    /// Not 0. A number of its own for each sandbox keeps sandboxes apart from one another.
    pub uid: u32,
    /// Not 0.
    pub gid: u32,
}

/// A file or directory of the host, seen in the sandbox. Devices in it do not work and set-user-id bits count for nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bind {
    /// On the host; canonical. A symbolic link in it is refused when the sandbox starts: whoever may write there could
    /// otherwise choose what is bound.
    pub source: PathBuf,
    /// In the sandbox; created if it is missing, no symbolic link is followed.
    pub target: PathBuf,
    /// Read-only unless asked.
    #[serde(default)]
    pub access: Access,
}

/// Whether something may be changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// It may be read and executed.
    #[default]
    ReadOnly,
    /// It may be changed as well, by whom it belongs to: on the host that has to be the sandbox's user.
    ReadWrite,
}

/// A file that is written when the sandbox starts.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// In the sandbox.
    pub path: PathBuf,
    /// Permission bits.
    pub mode: u32,
    /// What is in it.
    pub contents: String,
}

/// A file system in memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tmpfs {
    /// In the sandbox.
    pub path: PathBuf,
    /// How much it holds at most.
    pub size_bytes: u64,
    /// Permission bits of its root.
    pub mode: u32,
}

/// A socket that is wanted inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// By which the supervisor knows it.
    pub name: String,
    /// Where it listens.
    pub address: ListenAddress,
}

/// Where a socket listens, inside. `[::]` takes IPv4 too, and is `0.0.0.0` on a kernel without IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ListenAddress {
    /// Connections.
    Tcp(SocketAddr),
    /// Datagrams.
    Udp(SocketAddr),
}

/// What a sandbox may use up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Memory of all its processes together, in bytes.
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    pub processes: Option<u64>,
    /// Processor time, in hundredths of one processor.
    pub cpu_percent: Option<u32>,
    /// Open descriptors of one process.
    pub open_files: u64,
}

/// A policy that cannot be carried out on any machine.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A path is not absolute, or has `.` or `..` in it.
    #[error("{what}: expected an absolute path without `.` and `..`, got {}", path.display())]
    Path {
        /// Which field it is in.
        what: &'static str,
        /// As given.
        path: PathBuf,
    },
    /// The name is none.
    #[error(
        "name: expected 1 to 63 letters, digits and inner hyphens, in lower case, got {name:?}"
    )]
    Name {
        /// As given.
        name: String,
    },
    /// Two listeners have one name or one address.
    #[error("listener {name:?}: another has the same name or address, each needs one of its own")]
    Listener {
        /// The later one's.
        name: String,
    },
    /// Root is asked for, inside or on the host.
    #[error("{what}: expected an unprivileged user, got number 0")]
    Root {
        /// Which field it is in.
        what: &'static str,
    },
    /// The supervisor is root and no unprivileged user is named.
    #[error(
        "host_user: expected an unprivileged user to become, since the supervisor is root, got none"
    )]
    NoHostUser,
    /// The supervisor is not root and cannot become another user.
    #[error("host_user: expected {have}, since only root can become another user, got {wanted}")]
    OtherHostUser {
        /// Whom the supervisor runs as.
        have: u32,
        /// Who was named.
        wanted: u32,
    },
    /// An entry of the environment that no program could be given.
    #[error(
        "environment: expected a name without `=` and NUL and a value without NUL, got {name:?}"
    )]
    Environment {
        /// The name; never the value.
        name: String,
    },
}

impl Default for Limits {
    /// No limit but the number of descriptors.
    fn default() -> Self {
        Self {
            memory_bytes: None,
            processes: None,
            cpu_percent: None,
            open_files: 65_536,
        }
    }
}

impl std::fmt::Debug for Policy {
    /// Names what is in the environment and not the values.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.environment.keys().collect();
        f.debug_struct("Policy")
            .field("name", &self.name)
            .field("root", &self.root)
            .field("user", &self.user)
            .field("host_user", &self.host_user)
            .field("binds", &self.binds)
            .field("files", &self.files)
            .field("tmpfs", &self.tmpfs)
            .field("environment", &names)
            .field("listeners", &self.listeners)
            .field("limits", &self.limits)
            .finish()
    }
}

impl std::fmt::Debug for File {
    /// Says how long the contents are and not what they are.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("File")
            .field("path", &self.path)
            .field("mode", &format_args!("{:#o}", self.mode))
            .field("bytes", &self.contents.len())
            .finish()
    }
}

impl Policy {
    /// A sandbox over the host's system with a user of its own, the files and variables by which that user is known,
    /// `/tmp`, `/run`, `/var/tmp` and `/dev/shm` in memory, and neither a home that is kept, binds nor listeners.
    #[must_use]
    pub fn on_host(name: &str) -> Self {
        let user = User {
            name: "agent".to_owned(),
            uid: 1000,
            gid: 1000,
            home: PathBuf::from("/home/agent"),
        };
        let files = identity_files(&user, name);
        let environment = identity_variables(&user);
        Self {
            name: name.to_owned(),
            root: Root::Host,
            user,
            host_user: None,
            binds: Vec::new(),
            files,
            tmpfs: in_memory(),
            environment,
            listeners: Vec::new(),
            limits: Limits::default(),
        }
    }

    /// Adds a file that everybody may read, or replaces the one at this path.
    pub fn write(&mut self, path: impl Into<PathBuf>, contents: impl Into<String>) {
        let file = File {
            path: path.into(),
            mode: 0o644,
            contents: contents.into(),
        };
        self.files.retain(|other| other.path != file.path);
        self.files.push(file);
    }

    /// What can be said without looking at the machine.
    ///
    /// # Errors
    /// A policy that cannot be carried out on any machine; the caller's fault.
    pub fn check(&self) -> Result<(), PolicyError> {
        check_name(&self.name)?;
        check_ids("user", self.user.uid, self.user.gid)?;
        if let Some(user) = self.host_user {
            check_ids("host_user", user.uid, user.gid)?;
        }
        self.check_paths()?;
        self.check_listeners()?;
        check_environment(&self.environment)
    }

    fn check_paths(&self) -> Result<(), PolicyError> {
        check_path("user.home", &self.user.home)?;
        if let Root::Directory { system, changes } = &self.root {
            check_path("root.system", system)?;
            check_path("root.changes", changes)?;
        }
        for bind in &self.binds {
            check_path("binds.source", &bind.source)?;
            check_path("binds.target", &bind.target)?;
        }
        self.files
            .iter()
            .try_for_each(|file| check_path("files.path", &file.path))?;
        self.tmpfs
            .iter()
            .try_for_each(|tmpfs| check_path("tmpfs.path", &tmpfs.path))
    }

    fn check_listeners(&self) -> Result<(), PolicyError> {
        let mut names = BTreeSet::new();
        let mut addresses = BTreeSet::new();
        for Listener { name, address } in &self.listeners {
            let address = match address {
                ListenAddress::Tcp(address) => ("tcp", *address),
                ListenAddress::Udp(address) => ("udp", *address),
            };
            if !names.insert(name) || !addresses.insert(address) {
                return Err(PolicyError::Listener { name: name.clone() });
            }
        }
        Ok(())
    }
}

/// Whether an environment can be given to a program.
pub(crate) fn check_environment(environment: &BTreeMap<String, String>) -> Result<(), PolicyError> {
    let bad = |(name, value): &(&String, &String)| {
        name.is_empty() || name.contains(['=', '\0']) || value.contains('\0')
    };
    match environment.iter().find(bad) {
        Some((name, _)) => Err(PolicyError::Environment { name: name.clone() }),
        None => Ok(()),
    }
}

fn check_name(name: &str) -> Result<(), PolicyError> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let ends = name.starts_with('-') || name.ends_with('-');
    if name.is_empty() || name.len() > 63 || ends || !name.bytes().all(plain) {
        return Err(PolicyError::Name {
            name: name.to_owned(),
        });
    }
    Ok(())
}

fn check_ids(what: &'static str, uid: u32, gid: u32) -> Result<(), PolicyError> {
    if uid == 0 || gid == 0 {
        return Err(PolicyError::Root { what });
    }
    Ok(())
}

fn check_path(what: &'static str, path: &Path) -> Result<(), PolicyError> {
    // `components` swallows inner `.`, which is harmless; what is left must be a root and plain names.
    let plain =
        |component: Component<'_>| matches!(component, Component::RootDir | Component::Normal(_));
    let nul = path.as_os_str().as_encoded_bytes().contains(&0);
    if !path.is_absolute() || nul || !path.components().all(plain) {
        return Err(PolicyError::Path {
            what,
            path: path.to_owned(),
        });
    }
    Ok(())
}

fn in_memory() -> Vec<Tmpfs> {
    let tmpfs = |path: &str, mebibytes: u64, mode| Tmpfs {
        path: PathBuf::from(path),
        size_bytes: mebibytes << 20,
        mode,
    };
    vec![
        tmpfs("/tmp", 1024, 0o1777),
        tmpfs("/var/tmp", 256, 0o1777),
        tmpfs("/run", 64, 0o755),
        tmpfs("/dev/shm", 256, 0o1777),
    ]
}

fn identity_variables(user: &User) -> BTreeMap<String, String> {
    let home = user.home.display().to_string();
    let variables = [
        ("HOME", home.as_str()),
        ("LANG", "C.UTF-8"),
        ("LOGNAME", &user.name),
        ("PATH", "/usr/local/bin:/usr/bin:/bin"),
        ("SHELL", "/bin/sh"),
        ("USER", &user.name),
    ];
    variables
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

fn identity_files(user: &User, hostname: &str) -> Vec<File> {
    let User {
        name,
        uid,
        gid,
        home,
    } = user;
    let home = home.display();
    let file = |path: &str, contents: String| File {
        path: PathBuf::from(path),
        mode: 0o644,
        contents,
    };
    vec![
        file(
            "/etc/passwd",
            format!(
                "root:x:0:0:root:/:/usr/sbin/nologin\n{name}:x:{uid}:{gid}::{home}:/bin/sh\n\
                 nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
            ),
        ),
        file(
            "/etc/group",
            format!("root:x:0:\n{name}:x:{gid}:\nnogroup:x:65534:\n"),
        ),
        file("/etc/hostname", format!("{hostname}\n")),
        file(
            "/etc/hosts",
            format!("127.0.0.1 localhost {hostname}\n::1 localhost {hostname}\n"),
        ),
        file("/etc/resolv.conf", "nameserver 127.0.0.1\n".to_owned()),
        file(
            "/etc/nsswitch.conf",
            "passwd: files\ngroup: files\nhosts: files dns\n".to_owned(),
        ),
    ]
}

#[cfg(test)]
mod tests;
