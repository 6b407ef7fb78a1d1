//! The harness's state directory: what is read of it without asking the harness.
//!
//! | up to 2026.5 | from 2026.9 |
//! |---|---|
//! | `devices/pending.json`: a map of requests, replaced as a whole | `state/openclaw.sqlite-wal`: pages of a table, appended |
//! | `identity/device.json` | in the same database |
//!
//! Whoever the harness runs may write here. So files are opened without following links and without waiting for a
//! writer, are read up to a bound, and are never mapped into memory. What they say is as trustworthy as what the harness
//! itself would print: it runs there.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use serde_json::Value;

use crate::request::{Listing, Request};
use crate::wal::{Log, LookError};

/// The state directory of a harness on this host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StateDir {
    path: PathBuf,
    /// A directory above it that nobody else can replace; below it no link is followed.
    within: Option<PathBuf>,
}

/// Reads what waits, again and again.
#[derive(Debug)]
pub(crate) struct Looking {
    state: StateDir,
    log: Log,
}

/// What a look found.
#[derive(Debug)]
pub(crate) enum Look {
    /// All that was written down lately.
    Requests(Vec<Request>),
    /// Something that only the harness can read.
    Unreadable,
}

/// 256 requests are some 150 kB.
const MOST_BYTES: u64 = 1 << 20;
/// Directories in which something about pairing is written.
pub(crate) const DIRECTORIES: [&str; 2] = ["devices", "state"];
/// Names of what is written there.
pub(crate) const NAMES: [&str; 2] = ["pending.json", "openclaw.sqlite-wal"];

// === impl StateDir ===

impl StateDir {
    /// The directory that the harness calls `OPENCLAW_STATE_DIR`; usually `~/.openclaw`. It need not be there yet.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            within: None,
        }
    }

    /// The same, below a home that is somebody else's to write in, such as a sandbox's: whatever they put in the way leads
    /// nowhere else. The home itself is not theirs to replace.
    #[must_use]
    pub fn within(home: impl Into<PathBuf>, below: impl AsRef<Path>) -> Self {
        let home = home.into();
        Self {
            path: home.join(below),
            within: Some(home),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A document of it, if it is there.
    pub(crate) fn json(&self, directory: &str, name: &str) -> io::Result<Option<Value>> {
        let Some(file) = self.open(directory, name)? else {
            return Ok(None);
        };
        let mut text = Vec::new();
        file.take(MOST_BYTES + 1).read_to_end(&mut text)?;
        if text.len() as u64 > MOST_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(Some(serde_json::from_slice(&text)?))
    }

    /// One of its directories, if it is there and none that leads elsewhere.
    pub(crate) fn directory(&self, name: &str) -> io::Result<Option<OwnedFd>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let path = self.path.join(name);
        let Some(home) = &self.within else {
            return there(rustix::fs::open(path, flags, Mode::empty()));
        };
        let above = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Some(above) = there(rustix::fs::open(home, above, Mode::empty()))? else {
            return Ok(None);
        };
        let below = path.strip_prefix(home).map_err(io::Error::other)?;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        there(rustix::fs::openat2(
            above,
            below,
            flags,
            Mode::empty(),
            resolve,
        ))
    }

    /// A plain file of it, if it is there.
    pub(crate) fn open(&self, directory: &str, name: &str) -> io::Result<Option<File>> {
        let Some(directory) = self.directory(directory)? else {
            return Ok(None);
        };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Some(file) = there(rustix::fs::openat(directory, name, flags, Mode::empty()))? else {
            return Ok(None);
        };
        let stat = rustix::fs::fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(Some(File::from(file)))
    }
}

// === impl Looking ===

impl Looking {
    pub(crate) fn at(state: StateDir) -> Self {
        Self {
            state,
            log: Log::default(),
        }
    }

    /// What waits, as far as it is written where it can be read. Blocks for as long as the file system does.
    pub(crate) fn look(&mut self) -> Look {
        let Ok(mut requests) = self.in_files() else {
            return Look::Unreadable;
        };
        let log = self.state.open("state", "openclaw.sqlite-wal");
        match log.map(|log| log.map(|mut log| self.log.look(&mut log))) {
            Ok(None) => {}
            Ok(Some(Ok(rows))) => requests.extend(rows),
            Ok(Some(Err(LookError::Unreadable))) | Err(_) => return Look::Unreadable,
        }
        Look::Requests(requests)
    }

    fn in_files(&self) -> io::Result<Vec<Request>> {
        match self.state.json("devices", "pending.json")? {
            None => Ok(Vec::new()),
            Some(Value::Object(by_id)) => {
                let entries: Vec<_> = by_id.values().collect();
                let listing = Listing::of(entries.into_iter(), [].into_iter());
                Ok(listing.pending)
            }
            Some(_) => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// What does not exist is no failure.
fn there(opened: rustix::io::Result<OwnedFd>) -> io::Result<Option<OwnedFd>> {
    match opened {
        Ok(file) => Ok(Some(file)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn state() -> (tempfile::TempDir, StateDir) {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("devices")).unwrap();
        let state = StateDir::at(place.path());
        (place, state)
    }

    #[test]
    fn requests_are_read_from_the_map_that_the_harness_keeps() {
        let (place, state) = state();
        let mut looking = Looking::at(state);
        assert!(matches!(looking.look(), Look::Requests(requests) if requests.is_empty()));
        let map = r#"{"r1":{"requestId":"r1","clientId":"cli","scopes":["operator.read"]}}"#;
        fs::write(place.path().join("devices/pending.json"), map).unwrap();
        let Look::Requests(requests) = looking.look() else {
            panic!("unreadable");
        };
        assert_eq!(requests[0].id.as_str(), "r1");
        fs::write(place.path().join("devices/pending.json"), "{").unwrap();
        assert!(matches!(looking.look(), Look::Unreadable));
    }

    #[test]
    fn links_pipes_and_endless_files_are_not_read() {
        let (place, state) = state();
        let pending = place.path().join("devices/pending.json");
        let elsewhere = place.path().join("elsewhere.json");
        fs::write(&elsewhere, "{}").unwrap();
        symlink(&elsewhere, &pending).unwrap();
        assert!(state.json("devices", "pending.json").is_err(), "a link");
        fs::remove_file(&pending).unwrap();

        let made = rustix::fs::mknodat(
            rustix::fs::CWD,
            &pending,
            FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        );
        made.unwrap();
        assert!(state.json("devices", "pending.json").is_err(), "a pipe");
        fs::remove_file(&pending).unwrap();

        fs::write(&pending, " ".repeat(2 << 20)).unwrap();
        assert!(state.json("devices", "pending.json").is_err(), "too long");
        fs::remove_file(&pending).unwrap();

        fs::remove_dir(place.path().join("devices")).unwrap();
        symlink("/", place.path().join("devices")).unwrap();
        assert!(
            state.json("devices", "pending.json").is_err(),
            "a linked directory"
        );
    }

    #[test]
    fn below_a_home_of_somebody_else_no_link_leads_anywhere() {
        let place = tempfile::tempdir().unwrap();
        let (home, other) = (place.path().join("home"), place.path().join("other"));
        fs::create_dir_all(other.join("devices")).unwrap();
        fs::create_dir(&home).unwrap();
        fs::write(other.join("devices/pending.json"), "{}").unwrap();
        let state = StateDir::within(&home, ".openclaw");
        assert!(state.json("devices", "pending.json").unwrap().is_none());
        symlink(&other, home.join(".openclaw")).unwrap();
        assert!(state.json("devices", "pending.json").is_err());
        // The same without a home is the user's own, who may have put a link there.
        let own = StateDir::at(home.join(".openclaw"));
        assert!(own.json("devices", "pending.json").unwrap().is_some());
        fs::remove_file(home.join(".openclaw")).unwrap();
        fs::rename(&other, home.join(".openclaw")).unwrap();
        assert!(state.json("devices", "pending.json").unwrap().is_some());
    }
}
