//! Copying a directory without following a link, with modes that do not depend on the source's.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, open, openat, statat};
use rustix::io::Errno;

use super::StageError;

/// Deeper than any plugin.
const MAX_DEPTH: usize = 32;

/// Never part of a plugin: secrets, histories, caches, and what another system left behind.
const LEFT_OUT: &[&str] = &[
    ".DS_Store",
    ".cache",
    ".env",
    ".git",
    ".mypy_cache",
    ".npmrc",
    ".pytest_cache",
    ".ruff_cache",
    ".venv",
    "__pycache__",
    "node_modules",
];

/// What is being copied.
#[derive(Debug, Default)]
pub(super) struct Copying {
    pub(super) files: usize,
    pub(super) bytes: u64,
    pub(super) notes: Vec<String>,
}

impl Copying {
    /// Copies `root`/`path` to `into`/`path`. Says whether it was there.
    pub(super) fn copy(
        &mut self,
        root: &Path,
        path: &str,
        into: &Path,
    ) -> Result<bool, StageError> {
        let Some(source) = descend(root, Path::new(path))? else {
            return Ok(false);
        };
        let target = into.join(path);
        make_all(into, &target)?;
        self.directory(&source, &root.join(path), &target, 0)?;
        Ok(true)
    }

    /// Writes the files of a plugin that is part of this program. Says whether there are any.
    pub(super) fn shipped(
        &mut self,
        files: impl Iterator<Item = (&'static str, &'static str)>,
        target: &Path,
        into: &Path,
    ) -> Result<bool, StageError> {
        for (name, text) in files {
            let file = target.join(name);
            make_all(into, file.parent().unwrap_or(target))?;
            write(&file, text.as_bytes())?;
            self.files += 1;
            self.bytes += text.len() as u64;
        }
        Ok(self.files > 0)
    }

    fn directory(
        &mut self,
        source: &OwnedFd,
        at: &Path,
        target: &Path,
        depth: usize,
    ) -> Result<(), StageError> {
        if depth > MAX_DEPTH {
            return Err(StageError::TooDeep {
                limit: MAX_DEPTH,
                path: at.to_owned(),
            });
        }
        for name in names(source, at)? {
            if is_left_out(&name) {
                continue;
            }
            let (at, target) = (at.join(&name), target.join(&name));
            let failed = |errno: Errno| io_error("look at", &at, errno.into());
            let stat = statat(source, name.as_str(), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
            if stat.st_mode & 0o002 != 0 && !is_link(stat.st_mode) {
                let shown = at.display();
                self.notes.push(format!(
                    "{shown} can be written by everyone; the staged copy cannot"
                ));
            }
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    let below = open_below(source, &name, &at, OFlags::DIRECTORY)?;
                    make(&target)?;
                    self.directory(&below, &at, &target, depth + 1)?;
                }
                FileType::RegularFile => {
                    let file = open_below(source, &name, &at, OFlags::NONBLOCK)?;
                    self.file(file, &at, &target)?;
                }
                FileType::Symlink => return Err(not_plain(&at, "a link")),
                _ => return Err(not_plain(&at, "something else")),
            }
        }
        Ok(())
    }

    fn file(&mut self, source: OwnedFd, at: &Path, target: &Path) -> Result<(), StageError> {
        let mut source = File::from(source);
        let mut copy = create(target)?;
        let copied = io::copy(&mut source, &mut copy);
        self.bytes += copied.map_err(|source| io_error("copy", at, source))?;
        self.files += 1;
        set_mode(target, 0o644)
    }
}

/// Opens a directory below `root`, step by step and through no link; `None` if it is not there.
fn descend(root: &Path, path: &Path) -> Result<Option<OwnedFd>, StageError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at = root.to_owned();
    let mut open_dir = match open(root, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        opened => opened.map_err(|errno| io_error("open", &at, errno.into()))?,
    };
    for part in path.components() {
        let Component::Normal(name) = part else {
            return Err(StageError::Name {
                name: path.display().to_string(),
            });
        };
        at.push(name);
        open_dir = match openat(&open_dir, name, flags | OFlags::NOFOLLOW, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP | Errno::NOTDIR) => {
                return Err(not_plain(&at, "a link, or no directory"));
            }
            opened => opened.map_err(|errno| io_error("open", &at, errno.into()))?,
        };
    }
    Ok(Some(open_dir))
}

fn open_below(dir: &OwnedFd, name: &str, at: &Path, kind: OFlags) -> Result<OwnedFd, StageError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | kind;
    let opened = openat(dir, name, flags, Mode::empty());
    opened.map_err(|errno| io_error("open", at, errno.into()))
}

/// The names in a directory, sorted, so that the same tree is always told of in the same order.
fn names(dir: &OwnedFd, at: &Path) -> Result<Vec<String>, StageError> {
    let failed = |errno: Errno| io_error("read", at, errno.into());
    let mut names = Vec::new();
    for entry in Dir::read_from(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let Ok(name) = name.to_str() else {
            return Err(StageError::Name {
                name: name.to_string_lossy().into_owned(),
            });
        };
        if name != "." && name != ".." {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn is_left_out(name: &str) -> bool {
    LEFT_OUT.contains(&name) || name.starts_with("._") || name.starts_with(".env.")
}

fn is_link(mode: u32) -> bool {
    FileType::from_raw_mode(mode) == FileType::Symlink
}

/// Makes a directory, and those between it and `base`, each 0755.
pub(super) fn make_all(base: &Path, directory: &Path) -> Result<(), StageError> {
    let below = directory.strip_prefix(base).unwrap_or(directory);
    let mut at = base.to_owned();
    for part in below.components() {
        at.push(part);
        make(&at)?;
    }
    Ok(())
}

fn make(directory: &Path) -> Result<(), StageError> {
    match fs::create_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => {
            made.map_err(|source| io_error("make", directory, source))?;
            set_mode(directory, 0o755)
        }
    }
}

/// Writes a new file, 0644.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), StageError> {
    let mut file = create(path)?;
    let written = file.write_all(bytes);
    written.map_err(|source| io_error("write", path, source))?;
    set_mode(path, 0o644)
}

fn create(path: &Path) -> Result<File, StageError> {
    let created = File::create_new(path);
    created.map_err(|source| io_error("create", path, source))
}

/// Sets a mode, whatever the umask.
pub(super) fn set_mode(path: &Path, mode: u32) -> Result<(), StageError> {
    let set = fs::set_permissions(path, fs::Permissions::from_mode(mode));
    set.map_err(|source| io_error("set the mode of", path, source))
}

fn io_error(what: &'static str, path: &Path, source: io::Error) -> StageError {
    StageError::Io {
        what,
        path: PathBuf::from(path),
        source,
    }
}

fn not_plain(path: &Path, got: &'static str) -> StageError {
    StageError::NotPlain {
        path: PathBuf::from(path),
        got,
    }
}
