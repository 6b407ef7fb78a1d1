//! What Linux tells of the state directory: <https://man7.org/linux/man-pages/man7/inotify.7.html>.
//!
//! Watched are the state directory itself, for directories that appear in it, and those of them in which something about
//! pairing is written. Only the names that matter wake anybody.

use std::collections::BTreeSet;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

use crate::state::{DIRECTORIES, NAMES, StateDir};

/// Tells when something about pairing was written.
#[derive(Debug)]
pub(crate) struct Wakes {
    inotify: AsyncFd<OwnedFd>,
    watched: BTreeSet<i32>,
}

/// A file that is replaced is told of once; a log that stays open, at each writing.
const TOLD_OF: WatchFlags = WatchFlags::CLOSE_WRITE
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);
/// A few dozen events, each with a name of usual length.
const BUFFER_BYTES: usize = 4096;

impl Wakes {
    /// Watches a state directory.
    ///
    /// # Errors
    /// The directory is not there, or the system gives no watch. Asking again later may help.
    pub(crate) fn on(state: &StateDir) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe and asks that nobody closes the descriptor: it is owned, and given to none"
        )]
        let inotify = AsyncFd::new(inotify)?;
        let mut wakes = Self {
            inotify,
            watched: BTreeSet::new(),
        };
        wakes.watch(state)?;
        Ok(wakes)
    }

    /// Watches what has appeared since; what is watched already stays so.
    fn watch(&mut self, state: &StateDir) -> io::Result<()> {
        self.watch_one(state, "")?;
        for directory in DIRECTORIES {
            // What is not there yet is waited for in the directory above.
            let _watched_or_not_there = self.watch_one(state, directory);
        }
        Ok(())
    }

    /// Watches the directory that was opened, whatever takes its name meanwhile.
    fn watch_one(&mut self, state: &StateDir, name: &str) -> io::Result<()> {
        let directory = state.directory(name)?.ok_or(io::ErrorKind::NotFound)?;
        let opened = format!("/proc/self/fd/{}", directory.as_raw_fd());
        let watched = inotify::add_watch(&self.inotify, opened, TOLD_OF)?;
        self.watched.insert(watched);
        Ok(())
    }

    /// Resolves when something about pairing was written. Safe to drop.
    ///
    /// # Errors
    /// The state directory is gone, or the descriptor cannot be read.
    pub(crate) async fn touched(&mut self, state: &StateDir) -> io::Result<()> {
        loop {
            let mut ready = self.inotify.readable().await?;
            let touched = drain(ready.get_inner(), &self.watched)?;
            ready.clear_ready();
            match touched {
                Touched::Nothing => {}
                Touched::Name => return Ok(()),
                Touched::Directory => {
                    self.watch(state)?;
                    return Ok(());
                }
            }
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Touched {
    Nothing,
    Name,
    Directory,
}

/// Takes every event that there is; says the most that one of them tells.
fn drain(inotify: &OwnedFd, watched: &BTreeSet<i32>) -> io::Result<Touched> {
    let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
    let mut events = Reader::new(inotify, &mut buffer);
    let mut touched = Touched::Nothing;
    loop {
        let event = match events.next() {
            Ok(event) => event,
            Err(Errno::WOULDBLOCK) => return Ok(touched),
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        if !watched.contains(&event.wd()) && !event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
            continue;
        }
        let name = event
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        touched = touched.max(match name.as_deref() {
            // A watched directory itself, or more events than the system keeps.
            None => Touched::Directory,
            Some(name) if NAMES.contains(&name) => Touched::Name,
            Some(name) if DIRECTORIES.contains(&name) => Touched::Directory,
            Some(_) => Touched::Nothing,
        });
    }
}
