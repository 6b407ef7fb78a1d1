//! Archives of packages, written out so that nothing lands outside their own directory.
//!
//! Nobody's archive decides where it is unpacked: a path is taken apart, and only plain names are put together again. No
//! link is ever made, so that no later file can be written through one. Owners, times and special bits are not taken over:
//! a file is there to be read, and to be run if its archive says so.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use flate2::read::GzDecoder;
use zip::ZipArchive;

/// The most that an archive may grow to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) bytes: u64,
    pub(crate) files: u64,
}

/// Four times the largest package there is (a Node of 190 MB), and eight times the one with the most files.
pub(crate) const BOUNDS: Bounds = Bounds {
    bytes: 1 << 30,
    files: 200_000,
};

/// Why an archive is not unpacked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadArchive {
    #[error("expected a sound archive")]
    Broken(#[source] io::Error),
    #[error("expected a sound archive")]
    BrokenZip(#[source] zip::result::ZipError),
    #[error("expected files inside the package, got {0:?}")]
    Outside(String),
    #[error("expected links inside the package, got {link:?} to {target:?}")]
    LinkOut { link: String, target: String },
    #[error("expected files and folders, got {0:?}, which is neither")]
    Special(String),
    #[error("expected at most {} files of {} bytes together, got more", .0.files, .0.bytes)]
    Huge(Bounds),
    #[error("cannot write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// What is left of the bounds.
#[derive(Debug)]
struct Room {
    bounds: Bounds,
    bytes: u64,
    files: u64,
}

/// Unpacks an npm package into `place`: a `.tar.gz` in which everything is below one directory, of any name.
///
/// As npm does, links are left out; one that leads out of the package is refused.
///
/// # Errors
/// It is no such archive, is too large, or wants to be elsewhere; or it cannot be written.
pub(crate) fn untar(archive: impl Read, place: &Path, bounds: Bounds) -> Result<(), BadArchive> {
    let mut room = Room::of(bounds);
    // The headers count too: an archive of nothing but long names is no small one.
    let most = bounds
        .bytes
        .saturating_add(bounds.files.saturating_mul(2048));
    let unzipped = GzDecoder::new(archive).take(most);
    let mut archive = tar::Archive::new(unzipped);
    for entry in archive.entries().map_err(BadArchive::Broken)? {
        let mut entry = entry.map_err(BadArchive::Broken)?;
        let shown = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let path = entry.path().map_err(BadArchive::Broken)?;
        let below = plain(&path).ok_or_else(|| BadArchive::Outside(shown.clone()))?;
        let mut parts = below.components();
        let _folder = parts.next(); // npm calls it `package`, others otherwise
        let path = place.join(parts.as_path());
        let kind = entry.header().entry_type();
        if kind.is_dir() {
            continue; // made with the files in it
        }
        if kind.is_symlink() || kind.is_hard_link() {
            inside(&entry, &below, &shown)?;
            continue;
        }
        if !kind.is_file() && kind != tar::EntryType::Continuous {
            return Err(BadArchive::Special(shown));
        }
        if parts.as_path().as_os_str().is_empty() {
            return Err(BadArchive::Outside(shown));
        }
        let mode = entry.header().mode().map_err(BadArchive::Broken)?;
        room.write(&mut entry, &path, mode & 0o111 != 0)?;
    }
    Ok(())
}

/// Whether a link stays in the package.
fn inside(entry: &tar::Entry<'_, impl Read>, below: &Path, shown: &str) -> Result<(), BadArchive> {
    let target = entry.link_name().map_err(BadArchive::Broken)?;
    let target = target.unwrap_or_default();
    // A hard link is named from the archive's root, a symbolic one from where it is.
    let mut depth = match entry.header().entry_type().is_symlink() {
        true => below.components().count().saturating_sub(2),
        false => 0,
    };
    for part in target.components() {
        let stays = match part {
            Component::Normal(_) => {
                depth += 1;
                true
            }
            Component::CurDir => true,
            Component::ParentDir => {
                let stays = depth > 0;
                depth = depth.saturating_sub(1);
                stays
            }
            Component::RootDir | Component::Prefix(_) => false,
        };
        if !stays {
            return Err(BadArchive::LinkOut {
                link: shown.to_owned(),
                target: target.display().to_string(),
            });
        }
    }
    Ok(())
}

/// Unpacks a zip file, such as a Python wheel, each file to where `to` says; `None` leaves it out.
///
/// # Errors
/// As [`untar`].
pub(crate) fn unzip(
    archive: File,
    bounds: Bounds,
    to: &dyn Fn(&Path) -> Option<PathBuf>,
) -> Result<(), BadArchive> {
    let mut room = Room::of(bounds);
    let mut archive = ZipArchive::new(archive).map_err(BadArchive::BrokenZip)?;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(BadArchive::BrokenZip)?;
        let shown = entry.name().map_err(BadArchive::BrokenZip)?.into_owned();
        let below = plain(Path::new(&shown)).ok_or_else(|| BadArchive::Outside(shown.clone()))?;
        if entry.is_symlink() {
            return Err(BadArchive::Special(shown));
        }
        if entry.is_dir() {
            continue;
        }
        let runs = entry.unix_mode().is_some_and(|mode| mode & 0o111 != 0);
        if let Some(path) = to(&below) {
            room.write(&mut entry, &path, runs)?;
        }
    }
    Ok(())
}

/// A path from where it is unpacked; `None` if it leads elsewhere.
fn plain(path: &Path) -> Option<PathBuf> {
    let parts = path.components().filter(|part| *part != Component::CurDir);
    let parts: Option<PathBuf> = parts
        .map(|part| match part {
            Component::Normal(name) => Some(name),
            _ => None,
        })
        .collect();
    parts.filter(|path| !path.as_os_str().is_empty())
}

impl Room {
    fn of(bounds: Bounds) -> Self {
        Self {
            bounds,
            bytes: bounds.bytes,
            files: bounds.files,
        }
    }

    /// Writes one file of an archive. What an archive has twice is there as it came last, as tar has it.
    fn write(&mut self, from: &mut impl Read, path: &Path, runs: bool) -> Result<(), BadArchive> {
        let huge = || BadArchive::Huge(self.bounds);
        self.files = self.files.checked_sub(1).ok_or_else(huge)?;
        let failed = |source| BadArchive::Write {
            path: path.to_owned(),
            source,
        };
        let mut file = create(path, runs).map_err(failed)?;
        // One more than there is room for, to see whether there is more.
        let mut from = from.take(self.bytes.saturating_add(1));
        let mut buffer = [0; 1 << 15];
        loop {
            let read = match from.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(BadArchive::Broken(error)),
            };
            let left = self.bytes.checked_sub(read as u64);
            self.bytes = left.ok_or(BadArchive::Huge(self.bounds))?;
            io::Write::write_all(&mut file, &buffer[..read]).map_err(failed)?;
        }
    }
}

/// A file to write, and the directories above it.
pub(crate) fn create(path: &Path, runs: bool) -> io::Result<File> {
    if let Some(above) = path.parent() {
        fs::DirBuilder::new()
            .mode(0o755)
            .recursive(true)
            .create(above)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(if runs { 0o755 } else { 0o644 })
        .open(path)
}

/// Lets a file be run. A script whose first line ends as on Windows would be run by a program that nobody has; as npm does,
/// its lines are ended anew.
pub(crate) fn make_runnable(path: &Path) -> io::Result<()> {
    let mut start = Vec::new();
    File::open(path)?
        .take(MAX_FIRST_LINE)
        .read_to_end(&mut start)?;
    let first = start.split(|byte| *byte == b'\n').next();
    if first.is_some_and(|first| first.starts_with(b"#!") && first.ends_with(b"\r")) {
        let text = fs::read(path)?;
        let mut unix = Vec::with_capacity(text.len());
        for (place, byte) in text.iter().enumerate() {
            if *byte != b'\r' || text.get(place + 1) != Some(&b'\n') {
                unix.push(*byte);
            }
        }
        fs::write(path, unix)?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

/// The kernel reads no more of a first line.
const MAX_FIRST_LINE: u64 = 256;

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
