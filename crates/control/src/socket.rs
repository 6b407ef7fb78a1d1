//! The socket's place: ours alone, and free.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _,
    PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use rustix::process::geteuid;
use tokio::net::UnixListener;

/// A socket that is listened on, for as long as this value lives; [`close`](Self::close) also takes its file away.
#[derive(Debug)]
pub struct Socket {
    pub(crate) listener: UnixListener,
    path: PathBuf,
    /// Held for its lock, which the system releases with the process.
    _lock: File,
}

/// Why a place cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process does.
    #[error("a running gateway has the control socket {}", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// The operating system would not.
    #[error("cannot make the control socket {}", path.display())]
    Io {
        /// The socket, or what is needed for it.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// Something else has that name. It is not taken away.
    #[error("expected nothing or an old socket at {}, got another file", path.display())]
    NotASocket {
        /// What the path names.
        path: PathBuf,
    },
    /// The system's addresses are shorter.
    #[error("expected a path of at most {MAX_PATH_BYTES} bytes for a socket, got {} in {}", path.as_os_str().len(), path.display())]
    TooLong {
        /// The path.
        path: PathBuf,
    },
    /// Another could put a socket of his own there.
    #[error("expected a directory that only its owner can write to, got mode {mode:04o} (chmod 700 {})", path.display())]
    WritableByOthers {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The directory is another user's.
    #[error("expected a directory of user {uid}'s own, got {} of user {owner}", path.display())]
    AnothersDirectory {
        /// The directory.
        path: PathBuf,
        /// Who we are.
        uid: u32,
        /// Whose it is.
        owner: u32,
    },
}

/// `sockaddr_un` has 108 bytes, of which the last is zero: <https://man7.org/linux/man-pages/man7/unix.7.html>.
const MAX_PATH_BYTES: usize = 107;

const OWNER_ONLY_DIRECTORY: u32 = 0o700;
const OWNER_ONLY_FILE: u32 = 0o600;
const OTHERS_WRITE: u32 = 0o022;

impl Socket {
    /// Listens at `path`, which must be in a directory that only its owner can write to; one that is not there is made,
    /// for this user alone. What a dead process left there is replaced.
    ///
    /// Needs tokio's context. Blocks for a few calls into the file system.
    ///
    /// # Errors
    ///
    /// [`BindError`]; nothing of a live process is touched.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        if path.as_os_str().len() > MAX_PATH_BYTES {
            let path = path.to_owned();
            return Err(BindError::TooLong { path });
        }
        prepare_directory(path)?;
        let lock = lock(path)?;
        remove_old(path)?;
        let cannot = |source| io_error(path, source);
        let listener = UnixListener::bind(path).map_err(cannot)?;
        // Whoever connects before this is judged by who it is, like everyone else.
        fs::set_permissions(path, Permissions::from_mode(OWNER_ONLY_FILE)).map_err(cannot)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Listens no more, and takes the file away, so that whoever looks for a gateway here finds none.
    ///
    /// # Errors
    ///
    /// The file cannot be removed; the next gateway replaces it.
    pub fn close(self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}

fn prepare_directory(socket: &Path) -> Result<(), BindError> {
    let path = socket
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or_else(|| Path::new("."));
    let made = DirBuilder::new()
        .recursive(true)
        .mode(OWNER_ONLY_DIRECTORY)
        .create(path);
    let metadata = made
        .and_then(|()| path.metadata())
        .map_err(|source| io_error(path, source))?;
    let (path, owner, uid) = (path.to_owned(), metadata.uid(), geteuid().as_raw());
    // Root's own directories, such as /run/farrier, are as safe as ours.
    if owner != uid && owner != 0 {
        return Err(BindError::AnothersDirectory { path, uid, owner });
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & OTHERS_WRITE != 0 {
        return Err(BindError::WritableByOthers { path, mode });
    }
    Ok(())
}

/// Takes the lock beside the socket. The file stays for ever: one that could go away would lock nothing.
fn lock(socket: &Path) -> Result<File, BindError> {
    let mut name = OsString::from(socket.file_name().unwrap_or_default());
    name.push(".lock");
    let path = socket.with_file_name(name);
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(OWNER_ONLY_FILE)
        .open(&path);
    let lock = opened.map_err(|source| io_error(&path, source))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(BindError::InUse {
            path: socket.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(BindError::Io { path, source }),
    }
}

fn remove_old(path: &Path) -> Result<(), BindError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => {
            fs::remove_file(path).map_err(|source| io_error(path, source))
        }
        Ok(_) => Err(BindError::NotASocket {
            path: path.to_owned(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(io_error(path, source)),
    }
}

fn io_error(path: &Path, source: io::Error) -> BindError {
    BindError::Io {
        path: path.to_owned(),
        source,
    }
}
