//! Control groups for sandboxes, and which limits are in force.
//!
//! Plain files: a directory per sandbox in each hierarchy that this process may write to, of version 1, version 2 or both
//! at once. A limit that cannot be put in force does not stop a sandbox; it is reported as not in force, and why.
//!
//! A group is named for the supervisor that made it. One that died could not remove its groups, so the next one does.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use serde::Serialize;

use crate::policy::Limits;

/// Which limits are in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LimitsInForce {
    /// Memory, in bytes.
    pub memory: Limit,
    /// Processes and threads.
    pub processes: Limit,
    /// Processor time, in hundredths of one processor.
    pub cpu: Limit,
}

/// A limit, and whether it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    /// It holds.
    InForce {
        /// By what.
        by: &'static str,
        /// The most there may be.
        most: u64,
    },
    /// None is wanted.
    None,
    /// It is wanted and does not hold.
    NotInForce {
        /// What was tried, and what the system said.
        reason: String,
    },
}

/// Where this process may have control groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hierarchies {
    memory: Option<PathBuf>,
    processes: Option<PathBuf>,
    cpu: Option<PathBuf>,
    unified: Option<PathBuf>,
}

/// A sandbox's control groups.
#[derive(Debug, Default)]
pub(crate) struct Group {
    directories: Vec<PathBuf>,
    unified: Option<PathBuf>,
}

/// Where the supervisor goes when a group that has members may not have limits of its own.
const SUPERVISOR: &str = "farrier-supervisor";

/// A removal that the kernel is not ready for: how often it is tried, and how long is waited in between. No event tells of
/// it, the last process has been reaped by then.
const REMOVALS: u32 = 50;
const BETWEEN_REMOVALS: Duration = Duration::from_millis(4);

impl Hierarchies {
    /// From `/proc/self/cgroup` and `/proc/self/mountinfo`.
    pub(crate) fn of_this_process() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self::parse(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"))
    }

    fn parse(own: &str, mounts: &str) -> Self {
        let mut found = Self::default();
        for line in own.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
                continue;
            };
            if controllers.is_empty() {
                // A supervisor that has moved itself aside still has its sandboxes beside it.
                let path = path.strip_suffix(SUPERVISOR).unwrap_or(path);
                found.unified = mounted(mounts, "cgroup2", None, path);
            }
            for controller in controllers.split(',') {
                let slot = match controller {
                    "cpu" => &mut found.cpu,
                    "memory" => &mut found.memory,
                    "pids" => &mut found.processes,
                    _ => continue,
                };
                *slot = mounted(mounts, "cgroup", Some(controller), path);
            }
        }
        found
    }

    /// Removes what supervisors that are no more have left. Groups that are in use refuse to go.
    pub(crate) fn sweep(&self) {
        for parent in self.parents() {
            let entries = fs::read_dir(parent).into_iter().flatten().flatten();
            for path in entries.map(|entry| entry.path()) {
                if supervisor_of(&path).is_some_and(|(pid, start)| started(pid) != Some(start)) {
                    drop(fs::remove_dir(path));
                }
            }
        }
    }

    /// Makes a sandbox's groups and puts its limits in force, as far as that is possible.
    pub(crate) fn create(&self, name: &str, limits: &Limits) -> (Group, LimitsInForce) {
        let pid = std::process::id();
        let start = started(pid).unwrap_or_default();
        let name = format!("farrier-{pid}.{start}-{name}");
        let mut group = Group::default();
        let in_force = LimitsInForce {
            memory: limits.memory_bytes.map_or(Limit::None, |most| {
                self.memory(&mut group, &name, most)
                    .map_or_else(Limit::not, |by| Limit::InForce { by, most })
            }),
            processes: limits.processes.map_or(Limit::None, |most| {
                // The launcher sets the process's own limit as well, which holds in the sandbox's user namespace.
                let by = self.processes(&mut group, &name, most);
                let by = by.unwrap_or("RLIMIT_NPROC");
                Limit::InForce { by, most }
            }),
            cpu: limits.cpu_percent.map_or(Limit::None, |percent| {
                let most = u64::from(percent);
                self.cpu(&mut group, &name, most)
                    .map_or_else(Limit::not, |by| Limit::InForce { by, most })
            }),
        };
        if group.unified.is_none() && !group.directories.is_empty() {
            // Without a limit of its own it still serves to kill everything in it.
            let made = self.unified.as_deref().map(|parent| made(parent, &name));
            if let Some(Ok(directory)) = made {
                group.join_unified(directory);
            }
        }
        (group, in_force)
    }

    fn parents(&self) -> impl Iterator<Item = &Path> {
        [&self.memory, &self.processes, &self.cpu, &self.unified]
            .into_iter()
            .flatten()
            .map(PathBuf::as_path)
    }

    fn memory(&self, group: &mut Group, name: &str, most: u64) -> io::Result<&'static str> {
        let most = most.to_string();
        if let Some(parent) = &self.memory {
            let directory = group.join(parent, name)?;
            fs::write(directory.join("memory.limit_in_bytes"), &most)?;
            // Only where swap is accounted for.
            drop(fs::write(
                directory.join("memory.memsw.limit_in_bytes"),
                &most,
            ));
            return Ok("cgroup v1 memory");
        }
        let directory = self.controlled(group, name, "memory")?;
        fs::write(directory.join("memory.max"), &most)?;
        drop(fs::write(directory.join("memory.swap.max"), "0"));
        drop(fs::write(directory.join("memory.oom.group"), "1"));
        Ok("cgroup v2 memory")
    }

    fn processes(&self, group: &mut Group, name: &str, most: u64) -> io::Result<&'static str> {
        let most = most.to_string();
        if let Some(parent) = &self.processes {
            fs::write(group.join(parent, name)?.join("pids.max"), most)?;
            return Ok("cgroup v1 pids");
        }
        let directory = self.controlled(group, name, "pids")?;
        fs::write(directory.join("pids.max"), most)?;
        Ok("cgroup v2 pids")
    }

    fn cpu(&self, group: &mut Group, name: &str, percent: u64) -> io::Result<&'static str> {
        let quota_us = percent.saturating_mul(1000);
        if let Some(parent) = &self.cpu {
            let directory = group.join(parent, name)?;
            fs::write(directory.join("cpu.cfs_period_us"), "100000")?;
            fs::write(directory.join("cpu.cfs_quota_us"), quota_us.to_string())?;
            return Ok("cgroup v1 cpu");
        }
        let directory = self.controlled(group, name, "cpu")?;
        fs::write(directory.join("cpu.max"), format!("{quota_us} 100000"))?;
        Ok("cgroup v2 cpu")
    }

    /// The sandbox's group of version 2, with a controller switched on.
    fn controlled(&self, group: &mut Group, name: &str, controller: &str) -> io::Result<PathBuf> {
        let parent = self.unified.as_deref().ok_or(io::ErrorKind::NotFound)?;
        switch_on(parent, controller)?;
        if group.unified.is_none() {
            group.join_unified(made(parent, name)?);
        }
        group
            .unified
            .clone()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Limit {
    fn not(error: io::Error) -> Self {
        let reason = match error.kind() {
            io::ErrorKind::NotFound => {
                "no control group with this controller is there for Farrier".to_owned()
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                "no control group is delegated to Farrier's user (under systemd: Delegate=yes)"
                    .to_owned()
            }
            _ => format!("the control group could not be set up: {error}"),
        };
        Self::NotInForce { reason }
    }
}

impl Group {
    /// Puts a process, and what it will start, into the sandbox's groups. The kernel may take its time, some milliseconds
    /// per group, so this is for a thread that has it.
    pub(crate) fn add(directories: &[PathBuf], pid: i32) -> io::Result<()> {
        directories
            .iter()
            .try_for_each(|directory| fs::write(directory.join("cgroup.procs"), pid.to_string()))
    }

    /// Where they are.
    pub(crate) fn directories(&self) -> &[PathBuf] {
        &self.directories
    }

    /// Where the kernel tells how much memory is used, if it counts that.
    pub(crate) fn memory_meter(&self) -> Option<PathBuf> {
        let meters = ["memory.current", "memory.usage_in_bytes"];
        let of = |directory: &PathBuf| meters.map(|meter| directory.join(meter));
        self.directories
            .iter()
            .flat_map(of)
            .find(|meter| meter.exists())
    }

    /// Kills everything in it, where the kernel can.
    pub(crate) fn kill(&self) {
        if let Some(directory) = &self.unified {
            // Linux before 5.14 has no such file; the namespace's end kills everything too.
            drop(fs::write(directory.join("cgroup.kill"), "1"));
        }
    }

    /// Removes the groups. Everything in them has ended.
    pub(crate) async fn remove(self) {
        for directory in self.directories {
            let mut removed = fs::remove_dir(&directory);
            for _ in 0..REMOVALS {
                match &removed {
                    Err(error) if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => {}
                    _ => break,
                }
                tokio::time::sleep(BETWEEN_REMOVALS).await;
                removed = fs::remove_dir(&directory);
            }
            if let Err(error) = removed {
                tracing::warn!(%error, directory = %directory.display(), "a control group is left");
            }
        }
    }

    fn join(&mut self, parent: &Path, name: &str) -> io::Result<PathBuf> {
        // Controllers that are mounted together have one directory.
        let directory = parent.join(name);
        if !self.directories.contains(&directory) {
            fs::create_dir(&directory)?;
            self.directories.push(directory.clone());
        }
        Ok(directory)
    }

    fn join_unified(&mut self, directory: PathBuf) {
        self.directories.push(directory.clone());
        self.unified = Some(directory);
    }
}

fn made(parent: &Path, name: &str) -> io::Result<PathBuf> {
    let directory = parent.join(name);
    fs::create_dir(&directory)?;
    Ok(directory)
}

/// Where a hierarchy shows the group at `path`.
fn mounted(mounts: &str, kind: &str, controller: Option<&str>, path: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (place, file_system) = line.split_once(" - ")?;
        let mut file_system = file_system.split(' ');
        if file_system.next()? != kind {
            return None;
        }
        let mut options = file_system.nth(1)?.split(',');
        if !controller.is_none_or(|controller| options.any(|option| option == controller)) {
            return None;
        }
        let mut place = place.split(' ').skip(3);
        let (root, mount_point) = (place.next()?, place.next()?);
        let below = path.strip_prefix(root.trim_end_matches('/'))?;
        Some(Path::new(mount_point).join(below.trim_start_matches('/')))
    })
}

/// Lets groups below `parent` have a controller.
fn switch_on(parent: &Path, controller: &str) -> io::Result<()> {
    let switches = parent.join("cgroup.subtree_control");
    let names = |path: &Path| -> io::Result<bool> {
        let names = fs::read_to_string(path)?;
        Ok(names.split_whitespace().any(|name| name == controller))
    };
    if names(&switches)? {
        return Ok(());
    }
    if !names(&parent.join("cgroup.controllers"))? {
        return Err(io::ErrorKind::NotFound.into());
    }
    let on = format!("+{controller}");
    match fs::write(&switches, &on) {
        Err(error) if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => {
            step_aside(parent)?;
            fs::write(&switches, &on)
        }
        written => written,
    }
}

/// A group with processes in it may have no limits below it. If we are the only one, we move into a group of our own,
/// which is what delegation is for.
fn step_aside(parent: &Path) -> io::Result<()> {
    let own = std::process::id().to_string();
    let members = fs::read_to_string(parent.join("cgroup.procs"))?;
    if members.split_whitespace().any(|pid| pid != own) {
        return Err(Errno::BUSY.into());
    }
    let aside = parent.join(SUPERVISOR);
    match fs::create_dir(&aside) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    fs::write(aside.join("cgroup.procs"), own)
}

/// The process that made a group, from the group's name: its number and when it started. In a container the next
/// supervisor is likely to have the number of the last one.
fn supervisor_of(path: &Path) -> Option<(u32, u64)> {
    let rest = path.file_name()?.to_str()?.strip_prefix("farrier-")?;
    let (pid, start) = rest.split_once('-')?.0.split_once('.')?;
    Some((pid.parse().ok()?, start.parse().ok()?))
}

/// When a process started, in the kernel's ticks since boot: the 22nd field, the second of which is a name in parentheses
/// that may hold anything.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests;
