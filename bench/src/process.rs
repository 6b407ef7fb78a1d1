//! What a process has used, from the kernel's own accounting, and on which core it runs.
//!
//! CPU time is the sum of `/proc/PID/task/*/schedstat`, which counts nanoseconds; `utime + stime` of `/proc/PID/stat` is the
//! same time in ticks of 10 ms, too coarse for a slice of a second, and is kept beside it as a check. A thread that ends
//! takes its schedstat with it, so a measurement across which a thread ended falls back on the ticks, which keep
//! counting it. Memory is `VmRSS` and `VmHWM` of `/proc/PID/status`; writing `5` to `clear_refs` starts the latter anew.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;
use std::{fs, process, thread};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::Serialize;

/// The processes of one target.
pub(crate) type Pids = Vec<u32>;

/// CPU time used so far.
#[derive(Debug)]
pub(crate) struct CpuTime {
    by_thread: BTreeMap<(u32, u32), Duration>,
    ticks: u64,
}

/// CPU time used in between.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CpuUsed {
    pub(crate) exact: Duration,
    pub(crate) by_ticks: Duration,
}

/// Memory of all processes of a target together, in bytes.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Memory {
    pub(crate) resident_bytes: u64,
    /// The most there was since [`Memory::start_peak`]; a sum of the processes' own peaks.
    pub(crate) peak_bytes: u64,
}

/// How busy the machine is, in ticks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine {
    busy: u64,
    ours: u64,
}

/// Which core the targets get, and which the clients and the upstream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cores {
    pub(crate) targets: usize,
    pub(crate) rest: usize,
}

/// `root` and every process it has started, and those have, that is still there.
pub(crate) fn tree(root: u32) -> io::Result<Pids> {
    // One that does not exist is a mistake; one that ends meanwhile is none.
    parent(root)?;
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")? {
        if let Some(pid) = last_number(&entry?.path())
            && let Ok(parent) = parent(pid)
        {
            parents.push((pid, parent));
        }
    }
    let mut tree = vec![root];
    let mut next = 0;
    while let Some(&parent) = tree.get(next) {
        let children = parents.iter().filter(|(_, of)| *of == parent);
        tree.extend(children.map(|(pid, _)| *pid));
        next += 1;
    }
    Ok(tree)
}

/// Field 4 of `/proc/PID/stat`.
fn parent(pid: u32) -> io::Result<u32> {
    stat_field(pid, 1).and_then(|parent| u32::try_from(parent).map_err(io::Error::other))
}

// === impl CpuTime ===

impl CpuTime {
    pub(crate) fn of(pids: &[u32]) -> io::Result<Self> {
        let mut by_thread = BTreeMap::new();
        let mut ticks = 0;
        for &pid in pids {
            ticks += process_ticks(pid)?;
            for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
                let path = entry?.path();
                // A thread that ends meanwhile is one that is not there.
                let Ok(text) = fs::read_to_string(path.join("schedstat")) else {
                    continue;
                };
                let thread = last_number(&path).ok_or_else(|| strange(&path))?;
                let nanos = number_at(&text, 0).ok_or_else(|| strange(&path))?;
                by_thread.insert((pid, thread), Duration::from_nanos(nanos));
            }
        }
        Ok(Self { by_thread, ticks })
    }

    /// From `before` until this one.
    pub(crate) fn since(&self, before: &Self) -> CpuUsed {
        let ticks = self.ticks.saturating_sub(before.ticks);
        let by_ticks =
            Duration::from_secs(1) / tick_rate() * u32::try_from(ticks).unwrap_or(u32::MAX);
        let ended = before
            .by_thread
            .keys()
            .any(|thread| !self.by_thread.contains_key(thread));
        let exact = self.by_thread.iter().map(|(thread, used)| {
            used.saturating_sub(before.by_thread.get(thread).copied().unwrap_or_default())
        });
        let exact = if ended { by_ticks } else { exact.sum() };
        CpuUsed { exact, by_ticks }
    }
}

fn tick_rate() -> u32 {
    u32::try_from(rustix::param::clock_ticks_per_second())
        .unwrap_or(100)
        .max(1)
}

/// Fields 14 and 15 of `/proc/PID/stat`.
fn process_ticks(pid: u32) -> io::Result<u64> {
    Ok(stat_field(pid, 11)? + stat_field(pid, 12)?)
}

/// A field of `/proc/PID/stat`, counted after the name in field 2, which may hold anything.
fn stat_field(pid: u32, after_name: usize) -> io::Result<u64> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path)?;
    let fields = text.rsplit_once(')').map(|(_, fields)| fields);
    fields
        .and_then(|fields| number_at(fields, after_name))
        .ok_or_else(|| strange(Path::new(&path)))
}

// === impl Memory ===

impl Memory {
    pub(crate) fn of(pids: &[u32]) -> io::Result<Self> {
        let mut sum = Self::default();
        for pid in pids {
            let path = format!("/proc/{pid}/status");
            let text = fs::read_to_string(&path)?;
            let kib = |name| {
                text.lines()
                    .find_map(|line| number_at(line.strip_prefix(name)?, 0))
            };
            let (resident, peak) = kib("VmRSS:")
                .zip(kib("VmHWM:"))
                .ok_or_else(|| strange(Path::new(&path)))?;
            sum.resident_bytes += resident * 1024;
            sum.peak_bytes += peak * 1024;
        }
        Ok(sum)
    }

    /// Forgets the peak so far.
    pub(crate) fn start_peak(pids: &[u32]) -> io::Result<()> {
        pids.iter()
            .try_for_each(|pid| fs::write(format!("/proc/{pid}/clear_refs"), "5"))
    }
}

// === impl Machine ===

impl Machine {
    /// `ours` are the target's processes; this one is counted as well.
    pub(crate) fn now(ours: &[u32]) -> io::Result<Self> {
        let text = fs::read_to_string("/proc/stat")?;
        let all = text.lines().next().unwrap_or_default();
        // cpu  user nice system idle iowait irq softirq steal
        let busy = [1, 2, 3, 6, 7, 8]
            .iter()
            .filter_map(|&field| number_at(all, field))
            .sum();
        let with_us = ours.iter().copied().chain([process::id()]);
        let ours = with_us.map(process_ticks).sum::<io::Result<u64>>()?;
        Ok(Self { busy, ours })
    }

    /// How much of one core everybody else had since `before`.
    pub(crate) fn others_since(self, before: Self, elapsed: Duration) -> f64 {
        let others = (self.busy - before.busy).saturating_sub(self.ours - before.ours);
        let others = u32::try_from(others).unwrap_or(u32::MAX);
        f64::from(others) / f64::from(tick_rate()) / elapsed.as_secs_f64()
    }
}

// === impl Cores ===

impl Cores {
    /// The last two cores we may run on; `None` with fewer.
    pub(crate) fn pick() -> Option<Self> {
        let allowed = sched_getaffinity(None).ok()?;
        let mut cores = (0..CpuSet::MAX_CPU)
            .rev()
            .filter(|&core| allowed.is_set(core));
        let targets = cores.next()?;
        let rest = cores.next()?;
        Some(Self { targets, rest })
    }

    /// Puts the calling thread, and what it starts from now on, on a core.
    pub(crate) fn enter(core: usize) -> io::Result<()> {
        let mut only = CpuSet::new();
        only.set(core);
        Ok(sched_setaffinity(None, &only)?)
    }
}

/// How many cores the machine has for us.
pub(crate) fn core_count() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

fn number_at(text: &str, field: usize) -> Option<u64> {
    text.split_ascii_whitespace().nth(field)?.parse().ok()
}

fn last_number(path: &Path) -> Option<u32> {
    path.file_name()?.to_str()?.parse().ok()
}

fn strange(path: &Path) -> io::Error {
    let message = format!(
        "expected the fields of proc(5) in {}, got others",
        path.display()
    );
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_process_uses_is_seen() {
        let pids = [process::id()];
        let before = CpuTime::of(&pids).expect("we are there");
        // Reading it is work enough; this ends once the work has been counted.
        let used = || CpuTime::of(&pids).expect("we are there").since(&before);
        while used().exact.is_zero() {}
        let memory = Memory::of(&pids).expect("we are there");
        assert!(0 < memory.resident_bytes && memory.resident_bytes <= memory.peak_bytes);
    }

    #[test]
    fn a_tree_holds_the_root_and_what_it_started() {
        // A shell that waits for its child, which waits for us to close its input.
        let mut shell = process::Command::new("sh")
            .args(["-c", "cat >/dev/null; true"])
            .stdin(process::Stdio::piped())
            .spawn()
            .expect("there is a shell");
        while tree(shell.id()).expect("it waits").len() < 2 {}
        let of_us = tree(process::id()).expect("we are there");
        assert!(of_us.contains(&shell.id()) && of_us.len() >= 3);
        drop(shell.stdin.take());
        shell.wait().expect("it was started");
        assert!(tree(u32::MAX).is_err());
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        assert!(CpuTime::of(&[u32::MAX]).is_err());
        assert!(Memory::of(&[u32::MAX]).is_err());
    }
}
