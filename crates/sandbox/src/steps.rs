//! A policy and what the machine offers, as an ordered list of steps.
//!
//! Pure: the same two values give the same list, on any machine. The list is what the launcher carries out, one step after
//! the other, and what is printed when somebody asks what a sandbox would be; there is no third description.
//!
//! The order is forced nearly everywhere, and each place says why.

use std::fmt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::error::{LaunchError, Layer};
use crate::offers::{Offers, ProcEntry, SystemEntry, SystemPath};
use crate::policy::{
    Access, Bind, File, HostUser, ListenAddress, Listener, Policy, PolicyError, Root, Tmpfs,
};

/// The steps to a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Carried out by the launcher, on the host's side.
    pub outside: Vec<Step>,
    /// Carried out by the sandbox's first process.
    pub inside: Vec<Step>,
}

/// A file or directory of the host that was opened, by its place among those that were.
pub(crate) type Tree = usize;

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Open a file or directory of the host and whatever is mounted below it.
    OpenTree {
        /// Its number from now on.
        tree: Tree,
        /// On the host.
        source: PathBuf,
        /// Whether it may be changed.
        access: Access,
        /// Whether it is a device that is to work.
        device: bool,
    },
    /// Become an unprivileged user for good.
    BecomeUser(HostUser),
    /// Make a user namespace with one user in it.
    UserNamespace {
        /// Who the user is inside.
        inside: HostUser,
        /// Who it is on the host.
        outside: HostUser,
    },
    /// Make the other namespaces but that of control groups.
    Namespaces,
    /// Wait until the supervisor has put the sandbox into its control groups.
    JoinGroups,
    /// Make those the only control groups that are seen.
    GroupNamespace,
    /// Be killed when the supervisor ends.
    DieWithSupervisor,
    /// Set the host name.
    HostName(String),
    /// Bring the loopback up.
    Loopback,
    /// Make every address one of the loopback's, so that whatever is asked for arrives at a listener here.
    CaptureRoutes {
        /// Whether for IPv6 as well.
        ipv6: bool,
    },
    /// Bind a socket that the supervisor will serve.
    Listen(Listener),
    /// Let no mount show up on the host, nor one of the host's here.
    PrivateMounts,
    /// Make a process file system for the sandbox's own processes.
    Proc,
    /// Lay the sandbox's changes over a system; both have just been shown.
    Overlay,
    /// Make an empty root in memory.
    EmptyRoot {
        /// How much it holds at most.
        size_bytes: u64,
    },
    /// Make that the root, and let go of the host's.
    EnterRoot,
    /// Show what was opened.
    Attach {
        /// What.
        tree: Tree,
        /// Where.
        target: PathBuf,
    },
    /// Show the process file system.
    AttachProc,
    /// Hide a part of the process file system.
    HideProc {
        /// Its name.
        name: String,
        /// Whether it is a directory.
        directory: bool,
    },
    /// Make a part of the process file system read-only.
    SealProc {
        /// Its name.
        name: String,
    },
    /// Mount a file system in memory.
    Memory(Tmpfs),
    /// Mount terminals of the sandbox's own.
    Terminals,
    /// Make a symbolic link.
    Link {
        /// Where.
        path: PathBuf,
        /// To what.
        target: PathBuf,
    },
    /// Make a directory.
    Directory(PathBuf),
    /// Write a file.
    Write(File),
    /// Let the root itself be changed no more.
    SealRoot,
    /// Let no user namespace be made inside, which is where the kernel's larger half begins.
    NoNestedNamespaces,
    /// Set a limit that a process carries with it.
    ProcessLimit {
        /// Which.
        resource: Resource,
        /// The most there may be, soft and hard.
        most: u64,
    },
    /// Empty every set of capabilities, and verify that.
    DropCapabilities,
    /// Let no program gain privileges by being executed, and verify that.
    NoNewPrivileges,
    /// Let nobody inside look into the first process.
    Undumpable,
    /// Restrict access to files, signals and abstract sockets.
    Landlock {
        /// At which version of the interface.
        abi: u32,
        /// Below which everything but devices may be made and changed.
        writable: Vec<PathBuf>,
    },
    /// Restrict system calls.
    Seccomp,
}

/// What a process may use up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resource {
    /// Bytes of a core dump.
    CoreDump,
    /// Open descriptors.
    OpenFiles,
    /// Processes and threads of the sandbox's user, inside.
    Processes,
}

/// Where a system is shown for the moment in which changes are laid over it.
pub(crate) const LOWER: &str = "/system";

/// Where changes are shown for that moment.
pub(crate) const CHANGES: &str = "/changes";

/// The newest version of Landlock's interface that is understood here.
const NEWEST_LANDLOCK: u32 = 7;

/// The parts of `/proc` that programs read and that tell nothing that could be used: what processors and memory there are,
/// how long and how busily the machine has been up. Everything else is hidden, whatever a later kernel adds.
const PROC_SHOWN: &[&str] = &[
    "cpuinfo",
    "filesystems",
    "loadavg",
    "meminfo",
    "stat",
    "sys",
    "uptime",
    "version",
    "vmstat",
];

/// What `/dev` consists of. Terminals and shared memory are mounted there too.
const DEVICES: &[&str] = &["full", "null", "random", "tty", "urandom", "zero"];

/// Links in `/dev` that programs rely on.
const DEVICE_LINKS: &[(&str, &str)] = &[
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/ptmx", "pts/ptmx"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
];

/// Directories and the files of a policy live in the root itself, which is memory and then sealed.
const ROOT_BYTES: u64 = 16 << 20;

/// The steps to what `policy` wants, on a machine that has `offers`.
///
/// # Errors
/// The policy is not possible, or the machine lacks a layer altogether. That a layer is refused shows only when it is
/// applied.
pub fn plan(policy: &Policy, offers: &Offers) -> Result<Plan, LaunchError> {
    policy.check()?;
    let host_user = host_user(policy, offers)?;
    let landlock = landlock(policy, offers)?;
    let mut planner = Planner::default();
    planner.trees(policy, offers);
    let Planner {
        opened, attached, ..
    } = planner;

    let mut outside = Vec::new();
    let mut inside = vec![Step::DieWithSupervisor, Step::HostName(policy.name.clone())];
    inside.extend(network(policy, offers));
    inside.push(Step::PrivateMounts);
    if offers.mounts {
        // While still root: the new user may not pass through directories such as /root.
        outside.extend(opened);
    } else {
        // Nobody else may clone a mount before there is a namespace to do it in.
        inside.extend(opened);
    }
    if offers.root() {
        outside.push(Step::BecomeUser(host_user));
    }
    let inside_user = HostUser {
        uid: policy.user.uid,
        gid: policy.user.gid,
    };
    outside.push(Step::UserNamespace {
        inside: inside_user,
        outside: host_user,
    });
    outside.push(Step::Namespaces);

    inside.extend(root(policy));
    inside.extend(attached);
    inside.extend(system_links(policy, offers));
    inside.extend(proc(offers));
    inside.extend(devices_and_memory(policy));
    inside.extend(policy.files.iter().cloned().map(Step::Write));
    if policy.root == Root::Host {
        inside.push(Step::SealRoot);
    }
    inside.extend(confinement(policy, landlock));
    Ok(Plan { outside, inside })
}

#[derive(Debug, Default)]
struct Planner {
    next: Tree,
    opened: Vec<Step>,
    attached: Vec<Step>,
}

impl Planner {
    fn trees(&mut self, policy: &Policy, offers: &Offers) {
        match &policy.root {
            // Numbers 0 and 1, which `root` lays over one another.
            Root::Directory { system, changes } => {
                self.open(system, Access::ReadOnly, false);
                self.open(changes, Access::ReadWrite, false);
            }
            Root::Host => {
                let shown = |part: &&SystemPath| part.entry == SystemEntry::Shown;
                for part in offers.system.iter().filter(shown) {
                    self.show(&part.path, &part.path, Access::ReadOnly, false);
                }
            }
        }
        for name in DEVICES {
            let path = Path::new("/dev").join(name);
            self.show(&path, &path, Access::ReadWrite, true);
        }
        for bind in &policy.binds {
            self.show(&bind.source, &bind.target, bind.access, false);
        }
    }

    fn open(&mut self, source: &Path, access: Access, device: bool) -> Tree {
        let tree = self.next;
        self.next += 1;
        self.opened.push(Step::OpenTree {
            tree,
            source: source.to_owned(),
            access,
            device,
        });
        tree
    }

    fn show(&mut self, source: &Path, target: &Path, access: Access, device: bool) {
        let tree = self.open(source, access, device);
        self.attached.push(Step::Attach {
            tree,
            target: target.to_owned(),
        });
    }
}

fn host_user(policy: &Policy, offers: &Offers) -> Result<HostUser, PolicyError> {
    let own = HostUser {
        uid: offers.uid,
        gid: offers.gid,
    };
    match policy.host_user {
        None if offers.root() => Err(PolicyError::NoHostUser),
        None => Ok(own),
        Some(wanted) if offers.root() || wanted == own => Ok(wanted),
        Some(wanted) => Err(PolicyError::OtherHostUser {
            have: offers.uid,
            wanted: wanted.uid,
        }),
    }
}

fn landlock(policy: &Policy, offers: &Offers) -> Result<Step, LaunchError> {
    let writable = writable(policy);
    let abi = offers.landlock_abi.min(NEWEST_LANDLOCK);
    let step = Step::Landlock { abi, writable };
    if abi == 0 {
        return Err(LaunchError::Layer {
            layer: Layer::Landlock,
            step: step.to_string(),
            errno: Errno::OPNOTSUPP,
        });
    }
    Ok(step)
}

fn writable(policy: &Policy) -> Vec<PathBuf> {
    if policy.root != Root::Host {
        return vec![PathBuf::from("/")];
    }
    let memory = policy.tmpfs.iter().map(|tmpfs| &tmpfs.path);
    let writable = |bind: &&Bind| bind.access == Access::ReadWrite;
    let binds = policy
        .binds
        .iter()
        .filter(writable)
        .map(|bind| &bind.target);
    memory.chain(binds).cloned().collect()
}

fn network(policy: &Policy, offers: &Offers) -> impl Iterator<Item = Step> {
    // Binding to a low port takes a capability, and to any address a loopback that is up.
    let capture = Step::CaptureRoutes { ipv6: offers.ipv6 };
    let ipv6 = offers.ipv6;
    let listen = move |listener: &Listener| {
        let mut listener = listener.clone();
        if !ipv6 {
            listener.address = without_ipv6(listener.address);
        }
        Step::Listen(listener)
    };
    [Step::Loopback, capture]
        .into_iter()
        .chain(policy.listeners.iter().map(listen))
}

fn without_ipv6(address: ListenAddress) -> ListenAddress {
    let (ListenAddress::Tcp(at) | ListenAddress::Udp(at)) = address;
    if !at.ip().is_unspecified() {
        return address;
    }
    let any = std::net::SocketAddr::from(([0, 0, 0, 0], at.port()));
    match address {
        ListenAddress::Tcp(_) => ListenAddress::Tcp(any),
        ListenAddress::Udp(_) => ListenAddress::Udp(any),
    }
}

fn root(policy: &Policy) -> Vec<Step> {
    // The kernel gives a user namespace a process file system only while it still sees the host's.
    let mut steps = vec![
        Step::Proc,
        Step::EmptyRoot {
            size_bytes: ROOT_BYTES,
        },
        Step::EnterRoot,
    ];
    if policy.root != Root::Host {
        // What is laid over one another has to be mounted somewhere; by now that is nowhere on the host.
        let attach = |tree, target| Step::Attach {
            tree,
            target: PathBuf::from(target),
        };
        steps.extend([
            attach(0, LOWER),
            attach(1, CHANGES),
            Step::Overlay,
            Step::EnterRoot,
        ]);
    }
    steps
}

fn system_links(policy: &Policy, offers: &Offers) -> impl Iterator<Item = Step> {
    let host = policy.root == Root::Host;
    let link = |part: &SystemPath| match &part.entry {
        SystemEntry::Link(target) => Some(Step::Link {
            path: part.path.clone(),
            target: target.clone(),
        }),
        SystemEntry::Shown => None,
    };
    offers.system.iter().filter(move |_| host).filter_map(link)
}

fn proc(offers: &Offers) -> impl Iterator<Item = Step> {
    let hidden = |entry: &&ProcEntry| !PROC_SHOWN.contains(&entry.name.as_str());
    let hide = |entry: &ProcEntry| Step::HideProc {
        name: entry.name.clone(),
        directory: entry.directory,
    };
    let seal = Step::SealProc {
        name: "sys".to_owned(),
    };
    // After the last write to a sysctl, and before anything can be started.
    [Step::NoNestedNamespaces, Step::AttachProc, seal]
        .into_iter()
        .chain(offers.proc.iter().filter(hidden).map(hide))
}

fn devices_and_memory(policy: &Policy) -> impl Iterator<Item = Step> {
    let links = DEVICE_LINKS.iter().map(|(path, target)| Step::Link {
        path: PathBuf::from(path),
        target: PathBuf::from(target),
    });
    let memory = policy.tmpfs.iter().cloned().map(Step::Memory);
    let home = Step::Directory(policy.user.home.clone());
    [Step::Terminals]
        .into_iter()
        .chain(links)
        .chain(memory)
        .chain([home])
}

/// What takes away, in the order in which each still can: limits, capabilities, and at last the system calls by which the
/// others were applied.
fn confinement(policy: &Policy, landlock: Step) -> impl Iterator<Item = Step> {
    let limit = |resource, most| Step::ProcessLimit { resource, most };
    let processes = policy.limits.processes;
    // The supervisor puts the process into its groups while it is busy with the steps before this: that can take the
    // kernel longer than all of them.
    [
        Step::JoinGroups,
        Step::GroupNamespace,
        limit(Resource::CoreDump, 0),
        limit(Resource::OpenFiles, policy.limits.open_files),
    ]
    .into_iter()
    .chain(processes.map(|most| limit(Resource::Processes, most)))
    .chain([
        Step::DropCapabilities,
        Step::NoNewPrivileges,
        Step::Undumpable,
        landlock,
        Step::Seccomp,
    ])
}

impl Step {
    /// The part of the isolation that the step belongs to.
    #[must_use]
    pub fn layer(&self) -> Layer {
        match self {
            Self::Attach { .. }
            | Self::Directory(_)
            | Self::EmptyRoot { .. }
            | Self::EnterRoot
            | Self::Link { .. }
            | Self::Memory(_)
            | Self::OpenTree { .. }
            | Self::Overlay
            | Self::PrivateMounts
            | Self::SealRoot
            | Self::Terminals
            | Self::Write(_) => Layer::Filesystem,
            Self::AttachProc | Self::HideProc { .. } | Self::Proc | Self::SealProc { .. } => {
                Layer::Proc
            }
            Self::BecomeUser(_) => Layer::Identity,
            Self::CaptureRoutes { .. } | Self::Listen(_) | Self::Loopback => Layer::Network,
            Self::DieWithSupervisor | Self::Undumpable => Layer::Launcher,
            Self::DropCapabilities => Layer::Capabilities,
            Self::GroupNamespace | Self::HostName(_) | Self::Namespaces => Layer::Namespaces,
            Self::Landlock { .. } => Layer::Landlock,
            Self::NoNestedNamespaces | Self::UserNamespace { .. } => Layer::UserNamespace,
            Self::NoNewPrivileges => Layer::NoNewPrivileges,
            Self::JoinGroups | Self::ProcessLimit { .. } => Layer::Limits,
            Self::Seccomp => Layer::Seccomp,
        }
    }
}

impl fmt::Display for Plan {
    /// One step per line, in the order in which they are taken.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.outside {
            writeln!(f, "{step}")?;
        }
        writeln!(f, "start the sandbox's first process")?;
        for step in &self.inside {
            writeln!(f, "{step}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OpenTree {
                tree,
                source,
                access,
                device,
            } => {
                let how = match (device, access) {
                    (true, _) => "device",
                    (false, Access::ReadOnly) => "read-only",
                    (false, Access::ReadWrite) => "read-write",
                };
                write!(f, "open #{tree} {} ({how})", source.display())
            }
            Self::BecomeUser(user) => {
                write!(f, "become host user {}:{} for good", user.uid, user.gid)
            }
            Self::UserNamespace { inside, outside } => write!(
                f,
                "new user namespace: {}:{} inside is {}:{} on the host",
                inside.uid, inside.gid, outside.uid, outside.gid
            ),
            Self::Namespaces => f.write_str("new namespaces: mount, pid, ipc, uts, net"),
            Self::JoinGroups => f.write_str("wait to be in the control groups"),
            Self::GroupNamespace => f.write_str("new namespace: cgroup"),
            Self::DieWithSupervisor => f.write_str("die with the supervisor"),
            Self::HostName(name) => write!(f, "host name {name}"),
            Self::Loopback => f.write_str("bring the loopback up"),
            Self::CaptureRoutes { ipv6 } => {
                let families = if *ipv6 { "IPv4 and IPv6" } else { "IPv4" };
                write!(f, "route every address to the loopback ({families})")
            }
            Self::Listen(Listener { name, address }) => match address {
                ListenAddress::Tcp(address) => write!(f, "listen on tcp {address} as {name:?}"),
                ListenAddress::Udp(address) => write!(f, "listen on udp {address} as {name:?}"),
            },
            Self::PrivateMounts
            | Self::Proc
            | Self::Overlay
            | Self::EmptyRoot { .. }
            | Self::EnterRoot
            | Self::Attach { .. }
            | Self::AttachProc
            | Self::HideProc { .. }
            | Self::SealProc { .. }
            | Self::Memory(_)
            | Self::Terminals
            | Self::Link { .. }
            | Self::Directory(_)
            | Self::Write(_)
            | Self::SealRoot => self.fmt_mount(f),
            Self::NoNestedNamespaces => f.write_str("no user namespaces inside"),
            Self::ProcessLimit { resource, most } => match resource {
                Resource::CoreDump => write!(f, "limit core dumps to {most} bytes"),
                Resource::OpenFiles => write!(f, "limit open files to {most} per process"),
                Resource::Processes => write!(f, "limit processes to {most}"),
            },
            Self::DropCapabilities => f.write_str("drop all capabilities and verify"),
            Self::NoNewPrivileges => f.write_str("no new privileges, verified"),
            Self::Undumpable => f.write_str("hide the first process from the others"),
            Self::Landlock { abi, writable } => {
                write!(f, "Landlock interface {abi}, writable:")?;
                writable
                    .iter()
                    .try_for_each(|path| write!(f, " {}", path.display()))
            }
            Self::Seccomp => f.write_str("seccomp: listed system calls only"),
        }
    }
}

impl Step {
    /// The half of `Display` that is about the root and what is mounted there.
    fn fmt_mount(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PrivateMounts => f.write_str("keep mounts to the sandbox"),
            Self::Proc => f.write_str("new process file system, others' processes invisible"),
            Self::Overlay => write!(f, "new root: changes over the system"),
            Self::EmptyRoot { size_bytes } => write!(f, "new root in memory, {size_bytes} bytes"),
            Self::EnterRoot => f.write_str("enter the new root, let go of the host's"),
            Self::Attach { tree, target } => write!(f, "show #{tree} at {}", target.display()),
            Self::AttachProc => f.write_str("show the process file system at /proc"),
            Self::HideProc { name, .. } => write!(f, "hide /proc/{name}"),
            Self::SealProc { name } => write!(f, "seal /proc/{name}"),
            Self::Memory(Tmpfs {
                path,
                size_bytes,
                mode,
            }) => write!(
                f,
                "memory at {}, {size_bytes} bytes, mode {mode:o}",
                path.display()
            ),
            Self::Terminals => f.write_str("new terminals at /dev/pts"),
            Self::Link { path, target } => {
                write!(f, "link {} to {}", path.display(), target.display())
            }
            Self::Directory(path) => write!(f, "directory {}", path.display()),
            Self::Write(File {
                path,
                mode,
                contents,
            }) => write!(
                f,
                "write {}, {} bytes, mode {mode:o}",
                path.display(),
                contents.len()
            ),
            _ => f.write_str("seal the root"),
        }
    }
}

#[cfg(test)]
mod tests;
