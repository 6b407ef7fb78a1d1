//! The file, its directory and its lock: nobody else's, and open to nobody else.
//!
//! SQLite gives the log and the shared-memory file the permissions of the database file
//! (<https://www.sqlite.org/src/doc/trunk/src/os_unix.c>, `findCreateFileMode`), so only that one
//! is created here.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use super::OpenError;

const OWNER_ONLY_DIRECTORY: u32 = 0o700;
const OWNER_ONLY_FILE: u32 = 0o600;
const OTHERS_WRITE: u32 = 0o022;

/// A ledger file that this process owns for as long as this value lives.
#[derive(Debug)]
pub(super) struct Place {
    file: PathBuf,
    /// Held for its lock, which the system releases with the last descriptor.
    _lock: File,
}

impl Place {
    /// The file's path, with its directory resolved, so that it names the same file whatever
    /// becomes of links above it.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }
}

/// Makes sure that there is a file at this path that is ours alone, and takes the lock beside it.
pub(super) fn claim(path: &Path) -> Result<Place, OpenError> {
    let Some(name) = path.file_name() else {
        return Err(OpenError::NotAFile {
            path: path.to_owned(),
            found: "a path without a file name",
        });
    };
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or_else(|| Path::new("."));
    let directory = prepare_directory(directory)?;
    let file = directory.join(name);

    let mut lock_name = OsString::from(name);
    lock_name.push(".lock");
    let lock = open_private(&directory.join(lock_name))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(OpenError::InUse {
                path: path.to_owned(),
            });
        }
        Err(TryLockError::Error(source)) => return Err(OpenError::Io { path: file, source }),
    }
    open_private(&file)?;
    // A new file is durable only once its directory is.
    File::open(&directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|source| io_error(&directory, source))?;
    Ok(Place { file, _lock: lock })
}

fn prepare_directory(path: &Path) -> Result<PathBuf, OpenError> {
    let created = DirBuilder::new()
        .recursive(true)
        .mode(OWNER_ONLY_DIRECTORY)
        .create(path);
    created
        .and_then(|()| path.canonicalize())
        .map_err(|source| io_error(path, source))
        .and_then(|path| {
            let metadata = path.metadata().map_err(|source| io_error(&path, source))?;
            check_owner(&path, &metadata)?;
            let mode = metadata.permissions().mode() & 0o7777;
            if mode & OTHERS_WRITE != 0 {
                return Err(OpenError::WritableByOthers { path, mode });
            }
            Ok(path)
        })
}

/// Opens or creates a file that only its owner can open. No link is followed; nobody else can write
/// to the directory, so what was looked at is what is opened.
fn open_private(path: &Path) -> Result<File, OpenError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_symlink() => return Err(not_a_file(path, "a symbolic link")),
        Ok(metadata) if !metadata.is_file() => return Err(not_a_file(path, "something else")),
        Ok(metadata) => check_owner(path, &metadata)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(io_error(path, source)),
    }
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(OWNER_ONLY_FILE);
    let opened = options.open(path).and_then(|file| {
        // An older file may have been made, or changed, with wider permissions.
        file.set_permissions(Permissions::from_mode(OWNER_ONLY_FILE))?;
        Ok(file)
    });
    opened.map_err(|source| io_error(path, source))
}

fn check_owner(path: &Path, metadata: &fs::Metadata) -> Result<(), OpenError> {
    let expected = rustix::process::geteuid().as_raw();
    if metadata.uid() != expected {
        return Err(OpenError::ForeignOwner {
            path: path.to_owned(),
            owner: metadata.uid(),
            expected,
        });
    }
    Ok(())
}

fn not_a_file(path: &Path, found: &'static str) -> OpenError {
    OpenError::NotAFile {
        path: path.to_owned(),
        found,
    }
}

fn io_error(path: &Path, source: io::Error) -> OpenError {
    OpenError::Io {
        path: path.to_owned(),
        source,
    }
}
