//! Where sandboxes are on the host, and who they are there.
//!
//! ```text
//! <base>/.trust/{authority,bundle}.pem   what every sandbox believes
//! <base>/<name>/home, workspace          the sandbox's own, nobody else's
//! <base>/<name>/changes                  what differs from another system than the host's
//! <base>/<name>/plugins                  what manifests put into its harness
//! <base>/<name>/log/service.log          what was written by what is kept running in it
//! <base>/<name>/snapshots/<id>/           see `farrier sandbox snapshot`
//! ```
//!
//! Farrier as root runs each sandbox as a user of its own, so the base is where other users may pass; as anybody else all
//! sandboxes are that user's. What is in a sandbox's own directories was written by the sandbox: nothing there is followed.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use farrier_control::SandboxName;
use farrier_sandbox::HostUser;
use rustix::process::geteuid;

use crate::config::Environment;

/// Where all sandboxes of an installation are.
#[derive(Clone, Debug)]
pub(crate) struct Ground {
    base: PathBuf,
    /// Held while what all sandboxes share is written.
    shared: Arc<Mutex<()>>,
}

/// Where one sandbox is.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    dir: PathBuf,
    user: Option<HostUser>,
}

/// The first of the users that sandboxes run as when Farrier is root: beyond those that systemd gives to containers
/// (<https://systemd.io/UIDS-GIDS/>), and below what a signed number holds.
const FIRST_USER: u32 = 0x7000_0000;

/// Where root keeps sandboxes, unless `XDG_DATA_HOME` says otherwise: its home is closed to the users they run as.
const OF_ROOT: &str = "/var/lib/farrier";

// === impl Ground ===

impl Ground {
    /// Where this user's are; `None` if nothing says where data is kept.
    pub(crate) fn of(env: &Environment) -> Option<Self> {
        let named = env.filled("XDG_DATA_HOME").map(PathBuf::from);
        let data = match named.filter(|dir| dir.is_absolute()) {
            None if geteuid().is_root() => PathBuf::from(OF_ROOT),
            None => env.data_dir()?.join("farrier"),
            Some(dir) => dir.join("farrier"),
        };
        let base = data.join("sandboxes");
        Some(Self {
            base,
            shared: Arc::default(),
        })
    }

    /// Makes the base, and whatever is above it.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        let sharing = self.sharing();
        directory(&self.base, 0o755, None)?;
        drop(sharing);
        // A link above it would be refused when something below is shown in a sandbox.
        let found = self.base.canonicalize()?;
        match found == self.base {
            true => Ok(()),
            false => Err(io::Error::other(format!(
                "expected no link on the way, got one that leads to {}; name that with XDG_DATA_HOME",
                found.display()
            ))),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.base
    }

    /// The directory above the base, or the base itself, that the users of sandboxes may not enter.
    pub(crate) fn shut_off(&self) -> Option<&Path> {
        use std::os::unix::fs::PermissionsExt as _;
        if !geteuid().is_root() {
            return None;
        }
        let shut = |path: &&Path| {
            let mode = fs::metadata(path).map(|kind| kind.permissions().mode());
            mode.is_ok_and(|mode| mode & 0o001 == 0)
        };
        self.base.ancestors().find(shut)
    }

    /// For whoever writes what all sandboxes share.
    pub(crate) fn sharing(&self) -> MutexGuard<'_, ()> {
        // Whoever panicked left files that are whole, or under names of their own.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn trust(&self) -> PathBuf {
        self.base.join(".trust")
    }

    /// Of the sandbox with this name and slot.
    pub(crate) fn place(&self, name: &SandboxName, slot: u32) -> Place {
        let number = FIRST_USER + slot;
        Place {
            dir: self.base.join(name.as_str()),
            user: geteuid().is_root().then_some(HostUser {
                uid: number,
                gid: number,
            }),
        }
    }
}

// === impl Place ===

impl Place {
    /// Makes what is not there. What is there stays as it is.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        directory(&self.dir, 0o755, None)?;
        directory(&self.log_dir(), 0o700, None)?;
        for own in [self.home(), self.workspace(), self.changes()] {
            directory(&own, 0o700, self.user)?;
        }
        Ok(())
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.dir
    }

    /// Whether there is something already.
    pub(crate) fn is_taken(&self) -> bool {
        fs::symlink_metadata(&self.dir).is_ok()
    }

    /// Removes everything. It is no error if nothing is there.
    pub(crate) fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    pub(crate) fn user(&self) -> Option<HostUser> {
        self.user
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.dir.join("home")
    }

    pub(crate) fn workspace(&self) -> PathBuf {
        self.dir.join("workspace")
    }

    pub(crate) fn changes(&self) -> PathBuf {
        self.dir.join("changes")
    }

    /// What manifests put into the harness; not the sandbox's to change.
    pub(crate) fn plugins(&self) -> PathBuf {
        self.dir.join("plugins")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.log_dir().join("service.log")
    }

    fn log_dir(&self) -> PathBuf {
        self.dir.join("log")
    }
}

/// Makes a directory of this user's if there is none. One that is there is taken only if it is no link.
fn directory(path: &Path, mode: u32, user: Option<HostUser>) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(there) if there.is_dir() => return Ok(()),
        Ok(_) => {
            let message = format!(
                "expected a directory at {}, got something else",
                path.display()
            );
            return Err(io::Error::other(message));
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Err(_) => {}
    }
    if let Some(above) = path.parent() {
        fs::create_dir_all(above)?;
    }
    DirBuilder::new().mode(mode).create(path)?;
    // The umask may have taken what others need to pass.
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))?;
    match user {
        Some(HostUser { uid, gid }) => chown(path, Some(uid), Some(gid)),
        None => Ok(()),
    }
}
