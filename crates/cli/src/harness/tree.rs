//! An installed tree: what is in it, whether it still is, and that nobody changes it by accident.
//!
//! A list has a line for each file and link, by path: `f` or `x` (runnable), digest, size, path; or `l`, target, path. It is
//! a check against damage; that the packages were the right ones was checked by the lock file when they came.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// What a tree consists of.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Listing {
    /// The lines.
    pub(crate) text: String,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

/// Something that is not as it was.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Difference {
    pub(crate) path: String,
    pub(crate) what: What,
}

/// What has happened to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum What {
    Added,
    Changed,
    Missing,
}

/// In the root of a tree, what is ours and in no list.
pub(crate) const OWN: &str = ".farrier";

/// Lists what is below `root`.
///
/// # Errors
/// Something cannot be read, or is neither file, link nor directory.
pub(crate) fn list(root: &Path) -> io::Result<Listing> {
    let mut listing = Listing {
        text: String::new(),
        files: 0,
        bytes: 0,
    };
    for path in below(root)? {
        let shown = path.strip_prefix(root).unwrap_or(&path).display();
        let shown = shown.to_string().replace('\n', "\\n");
        let kind = fs::symlink_metadata(&path)?;
        let line = if kind.is_symlink() {
            let target = fs::read_link(&path)?;
            format!("l {} {shown}", target.display())
        } else if kind.is_file() {
            let mut hasher = blake3::Hasher::new();
            io::copy(&mut File::open(&path)?, &mut Hashed(&mut hasher))?;
            let runs = if kind.permissions().mode() & 0o111 == 0 {
                'f'
            } else {
                'x'
            };
            listing.bytes += kind.len();
            format!(
                "{runs} {} {} {shown}",
                hasher.finalize().to_hex(),
                kind.len()
            )
        } else {
            let said = format!("{shown} is neither file, link nor directory");
            return Err(io::Error::other(said));
        };
        listing.files += 1;
        writeln!(listing.text, "{line}").map_err(io::Error::other)?;
    }
    Ok(listing)
}

/// What differs between two lists.
pub(crate) fn compare(then: &str, now: &str) -> Vec<Difference> {
    let (then, now) = (by_path(then), by_path(now));
    let mut differences = Vec::new();
    for (path, line) in &then {
        let what = match now.get(path) {
            None => What::Missing,
            Some(other) if other != line => What::Changed,
            Some(_) => continue,
        };
        differences.push((*path, what));
    }
    let added = now.keys().filter(|path| !then.contains_key(*path));
    differences.extend(added.map(|path| (*path, What::Added)));
    differences.sort_by_key(|(path, _)| *path);
    let owned = differences.into_iter().map(|(path, what)| Difference {
        path: path.to_owned(),
        what,
    });
    owned.collect()
}

/// Each line by the path at its end.
fn by_path(list: &str) -> BTreeMap<&str, &str> {
    let lines = list.lines().filter_map(|line| {
        let words = if line.starts_with('l') { 3 } else { 4 };
        Some((line.splitn(words, ' ').last()?, line))
    });
    lines.collect()
}

/// Files and links below `root`, sorted; what is ours is left out.
fn below(root: &Path) -> io::Result<Vec<PathBuf>> {
    let (mut found, mut open) = (Vec::new(), vec![root.to_owned()]);
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let path = entry.path();
            if directory == root && entry.file_name() == OWN {
                continue;
            }
            match entry.file_type()?.is_dir() {
                true => open.push(path),
                false => found.push(path),
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Lets everybody read the tree and nobody write to it.
///
/// # Errors
/// A mode cannot be set.
pub(crate) fn seal(root: &Path) -> io::Result<()> {
    each(root, &|path, mode, is_dir| {
        let runs = is_dir || mode & 0o111 != 0;
        fs::set_permissions(
            path,
            Permissions::from_mode(if runs { 0o555 } else { 0o444 }),
        )
    })
}

/// Removes a tree, sealed or not. That there is none is well.
///
/// # Errors
/// It cannot be removed.
pub(crate) fn remove(root: &Path) -> io::Result<()> {
    match fs::symlink_metadata(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(kind) if !kind.is_dir() => return fs::remove_file(root),
        Ok(_) => {}
    }
    // To take something out of a directory one has to be allowed to write to it.
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        fs::set_permissions(&directory, Permissions::from_mode(0o755))?;
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            }
        }
    }
    fs::remove_dir_all(root)
}

/// Does something to each file and directory, those below a directory before it.
fn each(path: &Path, act: &dyn Fn(&Path, u32, bool) -> io::Result<()>) -> io::Result<()> {
    let kind = fs::symlink_metadata(path)?;
    if kind.is_symlink() {
        return Ok(());
    }
    if kind.is_dir() {
        for entry in fs::read_dir(path)? {
            each(&entry?.path(), act)?;
        }
    }
    act(path, kind.permissions().mode(), kind.is_dir())
}

/// A digest that is written to.
struct Hashed<'a>(&'a mut blake3::Hasher);

impl io::Write for Hashed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(root.path().join("a/b")).expect("made");
        fs::create_dir_all(root.path().join(OWN)).expect("made");
        fs::write(root.path().join(OWN).join("files"), "ours").expect("written");
        fs::write(root.path().join("a/b/with blanks"), "one").expect("written");
        fs::write(root.path().join("run"), "two").expect("written");
        let runs = Permissions::from_mode(0o744);
        fs::set_permissions(root.path().join("run"), runs).expect("set");
        std::os::unix::fs::symlink("../run", root.path().join("a/link")).expect("linked");
        root
    }

    #[test]
    fn everything_that_can_happen_to_a_file_is_told() {
        let root = sample();
        let at = |path: &str| root.path().join(path);
        let then = list(root.path()).expect("listed");
        assert_eq!((then.files, then.bytes), (3, 6));
        assert!(compare(&then.text, &list(root.path()).expect("listed").text).is_empty());
        fs::write(at("a/b/with blanks"), "onf").expect("written");
        fs::write(at("new"), "").expect("written");
        fs::remove_file(at("a/link")).expect("removed");
        fs::set_permissions(at("run"), Permissions::from_mode(0o644)).expect("set");
        let now = list(root.path()).expect("listed");
        let differences = compare(&then.text, &now.text);
        let told: Vec<(&str, What)> = differences
            .iter()
            .map(|difference| (difference.path.as_str(), difference.what))
            .collect();
        assert_eq!(
            told,
            [
                ("a/b/with blanks", What::Changed),
                ("a/link", What::Missing),
                ("new", What::Added),
                ("run", What::Changed)
            ]
        );
    }

    #[test]
    fn a_sealed_tree_is_read_by_all_and_written_by_nobody_and_can_be_removed() {
        let root = sample();
        let path = root.path().to_owned();
        seal(&path).expect("sealed");
        let mode = |below: &str| {
            let kind = fs::metadata(path.join(below)).expect("there");
            kind.permissions().mode() & 0o777
        };
        assert_eq!(
            (mode(""), mode("a/b"), mode("a/b/with blanks"), mode("run")),
            (0o555, 0o555, 0o444, 0o555)
        );
        remove(&path).expect("removed");
        assert!(!path.exists());
        remove(&path).expect("nothing is there");
    }
}
