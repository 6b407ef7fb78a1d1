//! What a configuration was read from, and whether that is still as it was when it was read.
//!
//! A file is looked at just before it is read, so that a change in between is seen as one afterwards: too often rather
//! than never. Looked at are its identity, size and times, not what is in it, which may be a secret.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::registry;

/// Everything that was read, or was meant to be.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources(Vec<Source>);

/// A file, or a directory of manifests.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    pub(crate) kind: Kind,
    seen: Vec<(PathBuf, Seen)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Manifests,
}

/// What tells one state of a file from the next.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Nothing(io::ErrorKind),
    Something {
        device: u64,
        inode: u64,
        bytes: u64,
        modified: (i64, i64),
        changed: (i64, i64),
    },
}

// === impl Sources ===

impl Sources {
    /// A configuration that came no further than its file.
    pub(crate) fn of_file(path: &Path) -> Self {
        let mut sources = Self::default();
        sources.note_file(path);
        sources
    }

    /// Notes a file that is read next.
    pub(super) fn note_file(&mut self, path: &Path) {
        self.0.push(Source::look(path.to_owned(), Kind::File));
    }

    /// Notes a directory whose manifests are read next.
    pub(super) fn note_manifests(&mut self, path: &Path) {
        self.0.push(Source::look(path.to_owned(), Kind::Manifests));
    }

    pub(super) fn append(&mut self, others: &mut Self) {
        self.0.append(&mut others.0);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Source> {
        self.0.iter()
    }

    /// Whether anything is otherwise than it was when it was read. Blocks for a look at each file.
    pub(crate) fn changed(&self) -> bool {
        self.0
            .iter()
            .any(|source| source.seen != look(&source.path, source.kind))
    }
}

// === impl Source ===

impl Source {
    fn look(path: PathBuf, kind: Kind) -> Self {
        let seen = look(&path, kind);
        Self { path, kind, seen }
    }
}

fn look(path: &Path, kind: Kind) -> Vec<(PathBuf, Seen)> {
    let one = |path: PathBuf| {
        let seen = Seen::from(fs::metadata(&path));
        (path, seen)
    };
    match kind {
        Kind::File => vec![one(path.to_owned())],
        Kind::Manifests => match registry::below(path) {
            Ok(found) => found.manifests.into_iter().map(one).collect(),
            Err(error) => vec![(path.to_owned(), Seen::Nothing(error.kind()))],
        },
    }
}

// === impl Seen ===

impl From<io::Result<Metadata>> for Seen {
    fn from(looked: io::Result<Metadata>) -> Self {
        match looked {
            Ok(metadata) => Self::Something {
                device: metadata.dev(),
                inode: metadata.ino(),
                bytes: metadata.size(),
                modified: (metadata.mtime(), metadata.mtime_nsec()),
                changed: (metadata.ctime(), metadata.ctime_nsec()),
            },
            Err(error) => Self::Nothing(error.kind()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_changes_when_it_is_written_replaced_taken_away_and_put_back() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("key");
        let looked = || Sources::of_file(&file);

        let absent = looked();
        assert!(!absent.changed());
        fs::write(&file, "one").unwrap();
        assert!(absent.changed());

        let first = looked();
        assert!(!first.changed());
        fs::write(&file, "longer").unwrap();
        assert!(first.changed());

        let second = looked();
        let aside = place.path().join("aside");
        fs::write(&aside, "longer").unwrap();
        fs::rename(&aside, &file).unwrap();
        assert!(second.changed());

        let third = looked();
        fs::remove_file(&file).unwrap();
        assert!(third.changed());
    }

    #[test]
    fn a_directory_changes_with_its_manifests_and_not_with_what_else_is_there() {
        let place = tempfile::tempdir().unwrap();
        let below = place.path().join("openclaw");
        fs::create_dir(&below).unwrap();
        let looked = || {
            let mut sources = Sources::default();
            sources.note_manifests(place.path());
            sources
        };
        let empty = looked();
        fs::write(below.join("notes.txt"), "").unwrap();
        fs::create_dir(place.path().join("hermes")).unwrap();
        assert!(!empty.changed());
        fs::write(below.join("new.json"), "{}").unwrap();
        assert!(empty.changed());

        let one = looked();
        assert!(!one.changed());
        fs::remove_dir_all(&below).unwrap();
        assert!(one.changed());
    }
}
