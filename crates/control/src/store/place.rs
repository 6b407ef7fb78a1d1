//! The directory and the file: nobody else's, and open to nobody else.
//!
//! SQLite gives its log and its shared-memory file the permissions of the database file
//! (<https://www.sqlite.org/src/doc/trunk/src/os_unix.c>, `findCreateFileMode`), so only that one is made here.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

use super::StoreError;

const OWNER_ONLY_DIRECTORY: u32 = 0o700;
const OWNER_ONLY_FILE: u32 = 0o600;
const OTHERS: u32 = 0o077;

/// Makes the directory if it is not there, and gives its path without links, so that it is the same one whatever becomes
/// of links above it.
pub(super) fn prepare(directory: &Path) -> Result<PathBuf, StoreError> {
    let failed = |source| io_error(directory, source);
    DirBuilder::new()
        .recursive(true)
        .mode(OWNER_ONLY_DIRECTORY)
        .create(directory)
        .map_err(failed)?;
    let metadata = fs::symlink_metadata(directory).map_err(failed)?;
    if !metadata.is_dir() {
        return Err(StoreError::Unexpected {
            path: directory.to_owned(),
            expected: "a directory",
        });
    }
    check_owner(directory, &metadata)?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & OTHERS != 0 {
        let path = directory.to_owned();
        return Err(StoreError::OpenToOthers { path, mode });
    }
    directory.canonicalize().map_err(failed)
}

/// Makes the file if it is not there. No link is followed; nobody else can write to the directory, so what was looked at is
/// what is opened.
pub(super) fn prepare_file(path: &Path) -> Result<(), StoreError> {
    let failed = |source| io_error(path, source);
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => check_owner(path, &metadata)?,
        Ok(_) => {
            return Err(StoreError::Unexpected {
                path: path.to_owned(),
                expected: "a file",
            });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(OWNER_ONLY_FILE)
        .open(path)
        .map_err(failed)?;
    // An older file may have been changed to wider permissions.
    file.set_permissions(Permissions::from_mode(OWNER_ONLY_FILE))
        .map_err(failed)?;
    // A new file is durable only once its directory is.
    let directory = path.parent().unwrap_or_else(|| Path::new("."));
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(failed)
}

fn check_owner(path: &Path, metadata: &Metadata) -> Result<(), StoreError> {
    let expected = geteuid().as_raw();
    if metadata.uid() == expected {
        return Ok(());
    }
    Err(StoreError::ForeignOwner {
        path: path.to_owned(),
        owner: metadata.uid(),
        expected,
    })
}

fn io_error(path: &Path, source: io::Error) -> StoreError {
    StoreError::Io {
        path: path.to_owned(),
        source,
    }
}
