//! What Linux tells of directories: <https://man7.org/linux/man-pages/man7/inotify.7.html>.
//!
//! Called directly and not by way of a portable layer, because such layers also ask for every write and every opening
//! of a file in the directory. A ledger that lies beside the configuration is written at each turn, and being told of
//! that would cost as much as a request does; of a file that is closed after writing, one is told once.

use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use farrier_compat::registry::is_manifest_path;
use rustix::fs::inotify::{self, CreateFlags, Event, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

use super::entries::entries;
use crate::config::{Kind, Source, Sources, registry};

/// Tells when one of the watched entries was touched.
#[derive(Debug)]
pub(crate) struct Wakes {
    inotify: AsyncFd<OwnedFd>,
    watched: HashMap<i32, Interest>,
}

/// What is of interest about a file or directory.
#[derive(Debug, Default)]
struct Interest {
    names: BTreeSet<OsString>,
    /// Manifests, and directories that could hold some.
    manifests: bool,
}

/// Never the writing or the opening of a file.
const TOLD_OF: WatchFlags = WatchFlags::ATTRIB
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::MOVE_SELF);

/// A few dozen events, each with a name of usual length.
const BUFFER_BYTES: usize = 4096;

impl Wakes {
    /// Watches what leads to these.
    ///
    /// # Errors
    ///
    /// The system gives no descriptor. A directory that cannot be watched is left out.
    pub(super) fn on(sources: &Sources) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe and asks that nobody closes the descriptor: it is owned, and given to none"
        )]
        let inotify = AsyncFd::new(inotify)?;
        let mut wakes = Self {
            inotify,
            watched: HashMap::new(),
        };
        sources.iter().for_each(|source| wakes.watch(source));
        Ok(wakes)
    }

    fn watch(&mut self, source: &Source) {
        for (directory, name) in entries(&source.path) {
            if let Some(interest) = self.interest(&directory) {
                interest.names.insert(name);
            }
        }
        match source.kind {
            // A file that is mounted by itself is written in a directory that is not to be seen here.
            Kind::File => drop(self.interest(&source.path)),
            Kind::Manifests => {
                let found = registry::below(&source.path).unwrap_or_default();
                for directory in found.directories {
                    if let Some(interest) = self.interest(&directory) {
                        interest.manifests = true;
                    }
                }
            }
        }
    }

    /// Several paths may lead to one directory, which is watched once.
    fn interest(&mut self, path: &Path) -> Option<&mut Interest> {
        let watched = inotify::add_watch(&self.inotify, path, TOLD_OF).ok()?;
        Some(self.watched.entry(watched).or_default())
    }

    /// Resolves when something of interest was touched. Safe to drop.
    ///
    /// # Errors
    ///
    /// The descriptor cannot be read.
    pub(super) async fn touched(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.inotify.readable().await?;
            let touched = drain(ready.get_inner(), &self.watched)?;
            ready.clear_ready();
            if touched {
                return Ok(());
            }
        }
    }
}

/// Takes every event that there is; says whether one is of interest.
fn drain(inotify: &OwnedFd, watched: &HashMap<i32, Interest>) -> io::Result<bool> {
    let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
    let mut events = Reader::new(inotify, &mut buffer);
    let mut touched = false;
    loop {
        match events.next() {
            Ok(event) => touched |= is_of_interest(&event, watched),
            Err(Errno::WOULDBLOCK) => return Ok(touched),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn is_of_interest(event: &Event<'_>, watched: &HashMap<i32, Interest>) -> bool {
    let Some(interest) = watched.get(&event.wd()) else {
        // Too many at once for the system to keep, and any of them may be lost.
        return event.events().contains(ReadFlags::QUEUE_OVERFLOW);
    };
    match event.file_name() {
        None => true,
        Some(name) => {
            let name = OsStr::from_bytes(name.to_bytes());
            let directory = event.events().contains(ReadFlags::ISDIR);
            interest.names.contains(name)
                || interest.manifests && (directory || is_manifest_path(&name.to_string_lossy()))
        }
    }
}
