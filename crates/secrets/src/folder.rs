//! Secrets that were handed over on standard input: one file each, in a directory that is ours alone.
//!
//! A new secret is a new file, never a change of an old one: whoever is told of the new file uses the new secret, whoever
//! still reads the old one reads it whole. When nobody is told of it any more is for the owner of the references to say; then
//! [`Folder::forget`] takes it away.
//!
//! They are not encrypted: whoever is this user can read them, as he can read a file that was named with `file:`. The
//! keyring is there for those who want more.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::process::geteuid;

use crate::name::{KeyName, ProviderName};
use crate::reference::SecretRef;
use crate::secret::Secret;

/// The directory. Made when something is kept.
#[derive(Clone, Debug)]
pub struct Folder {
    directory: PathBuf,
}

/// Why a secret was not kept.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// Another user's.
    #[error("expected a directory of user {expected}'s own, got {} of user {owner}", path.display())]
    ForeignOwner {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        expected: u32,
    },
    /// The operating system would not.
    #[error("cannot keep a secret in {}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// A link, which could lead anywhere, or a file.
    #[error("expected a directory, got something else at {}", path.display())]
    NotADirectory {
        /// What the path names.
        path: PathBuf,
    },
    /// Others can look into it.
    #[error("expected a directory that only its owner can open, got mode {mode:04o} (chmod 700 {})", path.display())]
    OpenToOthers {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

const OWNER_ONLY_DIRECTORY: u32 = 0o700;
const OWNER_ONLY_FILE: u32 = 0o600;
const OTHERS: u32 = 0o077;

impl Folder {
    /// The folder at this path, whether it is there or not.
    #[must_use]
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.directory
    }

    /// Writes the secret to a new file, and says where. On the disk when this returns.
    ///
    /// # Errors
    ///
    /// [`KeepError`]; nothing is left behind.
    pub fn keep(
        &self,
        provider: &ProviderName,
        key: &KeyName,
        secret: &Secret,
    ) -> Result<SecretRef, KeepError> {
        self.prepare()?;
        let tag = getrandom::u64().map_err(|error| io_error(&self.directory, error.into()))?;
        let path = self.directory.join(format!("{provider}.{key}.{tag:016x}"));
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(OWNER_ONLY_FILE)
            .open(&path)
            .and_then(|mut file| {
                file.write_all(secret.expose().as_bytes())?;
                file.sync_all()
            })
            .and_then(|()| File::open(&self.directory)?.sync_all());
        if let Err(error) = written {
            // What could not be written may not be removable either; it is nobody's.
            let _gone_or_swept_later = fs::remove_file(&path);
            return Err(io_error(&path, error));
        }
        Ok(SecretRef::File { path })
    }

    /// Whether what is referred to is one of its files.
    #[must_use]
    pub fn holds(&self, reference: &SecretRef) -> bool {
        matches!(reference, SecretRef::File { path } if path.parent() == Some(&self.directory))
    }

    /// Takes one of its files away, once nobody is told of it any more. That it is gone already is no failure; what is not
    /// its own it leaves alone.
    ///
    /// # Errors
    ///
    /// [`KeepError`].
    pub fn forget(&self, reference: &SecretRef) -> Result<(), KeepError> {
        let SecretRef::File { path } = reference else {
            return Ok(());
        };
        if !self.holds(reference) {
            return Ok(());
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(path, error)),
            _ => Ok(()),
        }
    }

    /// Takes away what was kept and nobody was told of, since whoever kept it was ended before he could: of its files those
    /// that none of `used` refers to, and that are older than `grace`, in which others may still tell of theirs. How many
    /// that were.
    ///
    /// # Errors
    ///
    /// [`KeepError`]. That there is no folder is none.
    pub fn sweep(
        &self,
        used: &[SecretRef],
        now: SystemTime,
        grace: Duration,
    ) -> Result<usize, KeepError> {
        let failed = |error| io_error(&self.directory, error);
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            entries => entries.map_err(failed)?,
        };
        let mut swept = 0;
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let path = entry.path();
            let metadata = match entry.metadata() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue, // forgotten meanwhile
                metadata => metadata.map_err(|error| io_error(&path, error))?,
            };
            let kept = metadata
                .modified()
                .map_err(|error| io_error(&path, error))?;
            // A clock that was put back makes files of the future; they are not old.
            let is_old = now.duration_since(kept).is_ok_and(|age| age > grace);
            let reference = SecretRef::File { path };
            if metadata.is_file() && is_old && !used.contains(&reference) && is_kept(&reference) {
                self.forget(&reference)?;
                swept += 1;
            }
        }
        Ok(swept)
    }

    fn prepare(&self) -> Result<(), KeepError> {
        let path = self.directory.clone();
        DirBuilder::new()
            .recursive(true)
            .mode(OWNER_ONLY_DIRECTORY)
            .create(&path)
            .map_err(|error| io_error(&path, error))?;
        let metadata = fs::symlink_metadata(&path).map_err(|error| io_error(&path, error))?;
        if !metadata.is_dir() {
            return Err(KeepError::NotADirectory { path });
        }
        let (owner, expected) = (metadata.uid(), geteuid().as_raw());
        if owner != expected {
            return Err(KeepError::ForeignOwner {
                path,
                owner,
                expected,
            });
        }
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & OTHERS != 0 {
            return Err(KeepError::OpenToOthers { path, mode });
        }
        Ok(())
    }
}

/// Whether a file has a name as [`Folder::keep`] gives them.
fn is_kept(reference: &SecretRef) -> bool {
    let SecretRef::File { path } = reference else {
        return false;
    };
    let name = path.file_name().and_then(|name| name.to_str());
    let tag = name.and_then(|name| name.rsplit_once('.'));
    tag.is_some_and(|(owner, tag)| {
        owner.contains('.') && tag.len() == 16 && tag.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

fn io_error(path: &Path, source: io::Error) -> KeepError {
    KeepError::Io {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;

    use super::*;

    fn keep(folder: &Folder, text: &str) -> Result<SecretRef, KeepError> {
        let secret = Secret::new(text.to_owned()).unwrap();
        folder.keep(
            &"openai".parse().unwrap(),
            &"OPENAI_API_KEY".parse().unwrap(),
            &secret,
        )
    }

    fn path(reference: &SecretRef) -> &Path {
        match reference {
            SecretRef::File { path } => path,
            other => panic!("expected a file, got {other}"),
        }
    }

    #[test]
    fn what_is_kept_can_be_fetched_and_only_its_owner_can_open_it() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::at(dir.path().join("a/secrets"));
        let kept = keep(&folder, "sk-canary-7f3a").unwrap();
        assert!(folder.holds(&kept));
        assert_eq!(kept.resolve(&|_| None).unwrap().expose(), "sk-canary-7f3a");
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(path(&kept)), 0o600);
        assert_eq!(mode(folder.path()), 0o700);
        assert!(!kept.to_string().contains("canary"));
    }

    #[test]
    fn a_new_secret_leaves_the_old_one_until_it_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::at(dir.path().join("secrets"));
        let (old, new) = (keep(&folder, "old").unwrap(), keep(&folder, "new").unwrap());
        assert_eq!(old.resolve(&|_| None).unwrap().expose(), "old");
        folder.forget(&old).unwrap();
        folder.forget(&old).unwrap();
        assert!(!path(&old).exists());
        assert_eq!(new.resolve(&|_| None).unwrap().expose(), "new");

        let others = dir.path().join("key");
        fs::write(&others, "theirs").unwrap();
        folder
            .forget(&SecretRef::File {
                path: others.clone(),
            })
            .unwrap();
        assert!(others.exists());
    }

    #[test]
    fn what_nobody_was_told_of_is_swept_once_it_is_old() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::at(dir.path().join("secrets"));
        let grace = Duration::from_secs(600);
        let epoch = SystemTime::UNIX_EPOCH;
        assert_eq!(folder.sweep(&[], epoch, grace).unwrap(), 0);
        let (used, orphan) = (
            keep(&folder, "used").unwrap(),
            keep(&folder, "orphan").unwrap(),
        );
        let others = folder.path().join("notes.txt");
        fs::write(&others, "mine").unwrap();
        let kept = path(&orphan).metadata().unwrap().modified().unwrap();
        for (now, swept) in [
            (epoch, 0),
            (kept + grace / 2, 0),
            (kept + grace * 2, 1),
            (kept + grace * 3, 0),
        ] {
            let used = std::slice::from_ref(&used);
            assert_eq!(folder.sweep(used, now, grace).unwrap(), swept);
        }
        assert!(!path(&orphan).exists());
        assert!(path(&used).exists() && others.exists());
    }

    #[test]
    fn a_folder_that_others_can_open_or_that_is_a_link_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let open = dir.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, Permissions::from_mode(0o750)).unwrap();
        assert!(matches!(
            keep(&Folder::at(&open), "x"),
            Err(KeepError::OpenToOthers { mode: 0o750, .. })
        ));

        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        DirBuilder::new().mode(0o700).create(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert!(matches!(
            keep(&Folder::at(&link), "x"),
            Err(KeepError::NotADirectory { .. })
        ));
        assert_eq!(fs::read_dir(&real).unwrap().count(), 0);
    }
}
