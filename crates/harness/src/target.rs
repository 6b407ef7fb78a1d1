//! Configuration files on disk: read with suspicion, written whole.
//!
//! ```text
//! <dir>/openclaw.json            what the harness reads
//! <dir>/.farrier-applied.json    what was generated last, so that what others added is known
//! <dir>/.config-hash             digests of both, as `sha256sum -c` takes them
//! ```
//!
//! # Guarantees
//! * A file that is there is replaced only if it is a regular file of ours whose
//!   digest is the recorded one, or that was never recorded. A link, another
//!   owner's file and an edited one are refused with the reason, and nothing is
//!   written.
//! * A reader sees the old file or the new one, never part of one: each is written
//!   beside its place, synced, and renamed. Digests of the new files are on disk
//!   before the first of them gets its name, so a crash in between leaves nothing
//!   that would be refused.
//! * New files are readable by their owner alone. Of a file that is there the mode
//!   stays, less what it gives to others than owner and group.
//! * Names are looked up in the directory as it was opened: whoever swaps it for a
//!   link meanwhile moves nothing.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, FlockOperation, Gid, Mode, OFlags, Stat, Uid, fchmod, fchown, flock, fstat,
    fsync, mkdirat, open, openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

/// Where the digests are.
pub const HASH_FILE: &str = ".config-hash";
/// Where the digests are while the files they are of get their names.
const NEXT_HASH_FILE: &str = ".config-hash.next";
/// Larger than any configuration; what is longer is none.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// A directory with configuration files, held open and locked.
#[derive(Debug)]
pub(crate) struct Target {
    path: PathBuf,
    dir: OwnedFd,
    owner: Owner,
    digests: Vec<Digests>,
}

/// Whether a file that was edited since it was written may be built upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edited {
    /// It is taken as it is now.
    Accept,
    /// It is refused.
    Refuse,
}

/// Why files are left as they are.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Another process is at it.
    #[error("{} is being written by another process", path.display())]
    Busy {
        /// The directory.
        path: PathBuf,
    },
    /// It was edited.
    #[error(
        "{} was edited since it was written: expected sha256 {expected}, got {got}",
        path.display()
    )]
    Edited {
        /// The file.
        path: PathBuf,
        /// The recorded digest.
        expected: String,
        /// The digest of what is there.
        got: String,
    },
    /// The operating system says no.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was attempted.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It is a link, a directory, a device…
    #[error("expected a regular file at {}, got {got}", path.display())]
    NotAFile {
        /// Where.
        path: PathBuf,
        /// What is there.
        got: &'static str,
    },
    /// It belongs to someone else.
    #[error("expected {} to belong to user {expected}, got user {got}", path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// Who we are.
        expected: u32,
        /// Whose it is.
        got: u32,
    },
    /// It is not what a harness's configuration looks like.
    #[error("cannot read {} as a configuration", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: crate::document::Unreadable,
    },
}

/// Whose the files are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    uid: Uid,
    /// What new files are given, unless that is left to the system.
    gid: Option<Gid>,
}

/// A digest file: name and digest of each file.
#[derive(Debug, Default)]
struct Digests(Vec<(String, String)>);

/// A file to be written.
#[derive(Debug)]
pub(crate) struct NewFile {
    pub(crate) name: String,
    pub(crate) text: String,
}

/// A file that is there.
#[derive(Debug)]
pub(crate) struct Existing {
    pub(crate) text: String,
    mode: Mode,
    group: Gid,
}

impl Target {
    /// Opens and locks a directory; `None` if there is none.
    pub(crate) fn look(path: &Path, owner: Owner) -> Result<Option<Self>, Refusal> {
        Self::open_as(path, owner)
    }

    /// Makes, opens and locks a directory; the one above must be there.
    pub(crate) fn make(path: &Path, owner: Owner) -> Result<Self, Refusal> {
        match mkdirat(rustix::fs::CWD, path, Mode::RWXU) {
            Ok(()) => {}
            // It was not there when the files to write were planned: someone else is at it.
            Err(Errno::EXIST) => {
                return Err(Refusal::Busy {
                    path: path.to_owned(),
                });
            }
            Err(errno) => return Err(io_refusal("make", path, errno)),
        }
        let made = Self::look(path, owner)?;
        let made = made.ok_or_else(|| io_refusal("open", path, Errno::NOENT))?;
        owner.take(&made.dir, path)?;
        Ok(made)
    }

    fn open_as(path: &Path, owner: Owner) -> Result<Option<Self>, Refusal> {
        let failed = |what| move |errno: Errno| io_refusal(what, path, errno);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = match open(path, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP | Errno::NOTDIR) => {
                return Err(Refusal::NotAFile {
                    path: path.to_owned(),
                    got: "a link, or no directory",
                });
            }
            dir => dir.map_err(failed("open"))?,
        };
        match flock(&dir, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => {
                return Err(Refusal::Busy {
                    path: path.to_owned(),
                });
            }
            locked => locked.map_err(failed("lock"))?,
        }
        let mut target = Self {
            path: path.to_owned(),
            dir,
            owner,
            digests: Vec::new(),
        };
        for name in [HASH_FILE, NEXT_HASH_FILE] {
            if let Some(file) = target.open_existing(name)? {
                target.digests.push(Digests::parse(&file.text));
            }
        }
        Ok(Some(target))
    }

    /// Whether digests are recorded, and no writing was interrupted.
    pub(crate) fn has_digests(&self) -> bool {
        self.digests.len() == 1
    }

    /// What is at `name`, unless it has to be left alone.
    pub(crate) fn read(&self, name: &str, edited: Edited) -> Result<Option<Existing>, Refusal> {
        let Some(existing) = self.open_existing(name)? else {
            return Ok(None);
        };
        let recorded: Vec<&str> = self
            .digests
            .iter()
            .filter_map(|digests| digests.of(name))
            .collect();
        let got = digest(&existing.text);
        match recorded.first() {
            Some(expected) if edited == Edited::Refuse && !recorded.contains(&&*got) => {
                Err(Refusal::Edited {
                    path: self.path.join(name),
                    expected: (*expected).to_owned(),
                    got,
                })
            }
            _ => Ok(Some(existing)),
        }
    }

    /// Writes all files and their digests.
    pub(crate) fn write(&self, files: &[NewFile]) -> Result<(), Refusal> {
        let mut digests = Digests::default();
        for file in files {
            digests.0.push((file.name.clone(), digest(&file.text)));
        }
        let hashes = NewFile {
            name: NEXT_HASH_FILE.to_owned(),
            text: digests.to_text(),
        };
        // Whoever is killed from here on leaves each file as the one or the other digest file has it.
        self.replace(&hashes)?;
        for file in files {
            self.replace(file)?;
        }
        self.rename(NEXT_HASH_FILE, HASH_FILE)
    }

    fn replace(&self, file: &NewFile) -> Result<(), Refusal> {
        let before = self.open_existing(&file.name)?;
        let temporary = self.temporary_name(&file.name)?;
        let written = self.fill(&temporary, file, before.as_ref());
        let placed = written.and_then(|()| self.rename(&temporary, &file.name));
        if placed.is_err() {
            // What is reported is why it could not be placed; the rest may stay behind.
            let _left = unlinkat(&self.dir, temporary.as_str(), AtFlags::empty());
        }
        placed
    }

    fn fill(&self, name: &str, file: &NewFile, before: Option<&Existing>) -> Result<(), Refusal> {
        let failed = |what| move |errno: Errno| io_refusal(what, &self.path.join(name), errno);
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let private = Mode::RUSR | Mode::WUSR;
        let opened = openat(&self.dir, name, flags, private).map_err(failed("create"))?;
        self.owner.take(&opened, &self.path.join(name))?;
        if let Some(before) = before {
            let stat = fstat(&opened).map_err(failed("look at"))?;
            if stat.st_gid != before.group.as_raw() {
                fchown(&opened, None, Some(before.group)).map_err(failed("keep the group of"))?;
            }
            // The umask has no say in what was there before.
            fchmod(&opened, before.mode).map_err(failed("keep the mode of"))?;
        }
        let mut opened = File::from(opened);
        opened
            .write_all(file.text.as_bytes())
            .and_then(|()| opened.sync_all())
            .map_err(|source| Refusal::Io {
                what: "write",
                path: self.path.join(name),
                source,
            })
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), Refusal> {
        let failed = |errno| io_refusal("place", &self.path.join(to), errno);
        renameat(&self.dir, from, &self.dir, to).map_err(failed)?;
        fsync(&self.dir).map_err(failed)
    }

    fn temporary_name(&self, name: &str) -> Result<String, Refusal> {
        let random = getrandom::u64().map_err(|error| Refusal::Io {
            what: "choose a temporary name for",
            path: self.path.join(name),
            source: io::Error::other(error),
        })?;
        Ok(format!(".{}.{random:016x}", name.trim_start_matches('.')))
    }

    fn open_existing(&self, name: &str) -> Result<Option<Existing>, Refusal> {
        let path = self.path.join(name);
        let failed = |what| {
            let path = path.clone();
            move |errno: Errno| io_refusal(what, &path, errno)
        };
        let stat = match statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(None),
            stat => stat.map_err(failed("look at"))?,
        };
        self.check(&path, &stat)?;
        // Not blocking: should it be a pipe by now, opening it must not wait for a writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(&self.dir, name, flags, Mode::empty()).map_err(failed("open"))?;
        let stat = fstat(&file).map_err(failed("look at"))?;
        self.check(&path, &stat)?;
        let mut text = String::new();
        let read = File::from(file).take(MAX_BYTES).read_to_string(&mut text);
        read.map_err(|source| Refusal::Io {
            what: "read",
            path,
            source,
        })?;
        let shared = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::WGRP;
        Ok(Some(Existing {
            text,
            mode: Mode::from_raw_mode(stat.st_mode) & shared,
            group: Gid::from_raw(stat.st_gid),
        }))
    }

    fn check(&self, path: &Path, stat: &Stat) -> Result<(), Refusal> {
        let got = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile if stat.st_uid == self.owner.uid.as_raw() => return Ok(()),
            FileType::RegularFile => {
                return Err(Refusal::Owner {
                    path: path.to_owned(),
                    expected: self.owner.uid.as_raw(),
                    got: stat.st_uid,
                });
            }
            FileType::Directory => "a directory",
            FileType::Symlink => "a link",
            _ => "something else",
        };
        Err(Refusal::NotAFile {
            path: path.to_owned(),
            got,
        })
    }
}

// === impl Owner ===

impl Owner {
    /// Whoever runs this.
    #[must_use]
    pub fn process() -> Self {
        Self {
            uid: rustix::process::geteuid(),
            gid: None,
        }
    }

    /// Another user, such as the one that a sandbox runs as; only root can write for one.
    #[must_use]
    pub fn user(uid: u32, gid: u32) -> Self {
        Self {
            uid: Uid::from_raw(uid),
            gid: Some(Gid::from_raw(gid)),
        }
    }

    /// Makes something new theirs.
    fn take(self, what: &OwnedFd, path: &Path) -> Result<(), Refusal> {
        match self.gid {
            None => Ok(()),
            gid => fchown(what, Some(self.uid), gid)
                .map_err(|errno| io_refusal("give away", path, errno)),
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // Closing alone would not do: a process that is being started elsewhere in this one holds
        // a copy of the descriptor, and the lock with it, until it has become another program.
        let _unlocked = flock(&self.dir, FlockOperation::Unlock);
    }
}

impl Digests {
    fn parse(text: &str) -> Self {
        let line = |line: &str| {
            let (digest, name) = line.split_once("  ")?;
            Some((name.to_owned(), digest.to_owned()))
        };
        Self(text.lines().filter_map(line).collect())
    }

    fn of(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, digest)| digest.as_str())
    }

    fn to_text(&self) -> String {
        let line = |(name, digest): &(String, String)| format!("{digest}  {name}\n");
        self.0.iter().map(line).collect()
    }
}

/// The SHA-256 of a text, in hexadecimal digits.
fn digest(text: &str) -> String {
    let mut shown = String::with_capacity(64);
    for byte in Sha256::digest(text) {
        // Writing to a String cannot fail.
        let _written = write!(shown, "{byte:02x}");
    }
    shown
}

fn io_refusal(what: &'static str, path: &Path, errno: Errno) -> Refusal {
    Refusal::Io {
        what,
        path: path.to_owned(),
        source: errno.into(),
    }
}

#[cfg(test)]
#[path = "target_tests.rs"]
mod tests;
