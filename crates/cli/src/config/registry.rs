//! Manifests from directories, added to the shipped ones.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use farrier_compat::registry::{LoadErrors, LoadOptions, Registry, Source, is_manifest_path};

use super::mistakes::Mistake;

/// A directory of manifests, and the line of the configuration that names it.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) path: PathBuf,
    pub(crate) line: Option<usize>,
}

/// How deep manifests are looked for: `agent/id.json`, with room to sort them.
const MAX_DEPTH: usize = 4;

/// The shipped manifests less `disable`, and those of `directories`.
///
/// # Errors
///
/// Everything that is wrong with them, and what to go on with: the shipped ones alone.
pub(crate) fn load(
    directories: &[Directory],
    disable: &[String],
    disable_line: Option<usize>,
) -> Result<Arc<Registry>, (Vec<Mistake>, Arc<Registry>)> {
    let shipped = Registry::shipped().expect("shipped manifests load; a test loads them");
    let mut mistakes = Vec::new();
    let mut sources = Vec::new();
    for directory in directories {
        match read(&directory.path) {
            Ok(found) => sources.extend(found),
            Err(error) => mistakes.push(place(
                directory.line,
                format!(
                    "expected a directory of manifests at {}: {error}",
                    directory.path.display()
                ),
            )),
        }
    }
    // A plugin's path is relative to the directory above the registry.
    let exists = |plugin: &str| {
        let above = directories
            .iter()
            .filter_map(|directory| directory.path.parent());
        above
            .map(|above| above.join(plugin))
            .any(|path| path.exists())
    };
    let options = LoadOptions {
        exists: &exists,
        switched_off: disable,
        ..LoadOptions::default()
    };
    let loaded = shipped.with(&sources, &options);
    if let Err(errors) = &loaded {
        mistakes.extend(noted(errors, disable_line));
    }
    match loaded {
        Ok(registry) if mistakes.is_empty() => Ok(Arc::new(registry)),
        _ => Err((mistakes, Arc::new(shipped))),
    }
}

fn noted(errors: &LoadErrors, disable_line: Option<usize>) -> impl Iterator<Item = Mistake> {
    errors.iter().map(move |error| match error.path {
        Some(_) => Mistake::elsewhere(error.to_string()),
        None => place(disable_line, error.to_string()),
    })
}

fn place(line: Option<usize>, message: String) -> Mistake {
    match line {
        Some(line) => Mistake::at(line, message),
        None => Mistake::elsewhere(message),
    }
}

/// What a directory holds.
#[derive(Debug, Default)]
pub(crate) struct Below {
    /// It, and those below it that are looked into.
    pub(crate) directories: Vec<PathBuf>,
    /// In the order of their paths.
    pub(crate) manifests: Vec<PathBuf>,
}

/// Looks for manifests in a directory.
///
/// A hidden entry is none: editors keep their drafts there, and Kubernetes the versions of a mounted map, to which the
/// visible names are links.
///
/// # Errors
///
/// A directory that cannot be read.
pub(crate) fn below(directory: &Path) -> io::Result<Below> {
    let mut found = Below::default();
    let mut next = vec![(directory.to_owned(), 0)];
    while let Some((directory, depth)) = next.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let path = entry.path();
            if path.is_dir() {
                if depth < MAX_DEPTH {
                    next.push((path, depth + 1));
                }
            } else if is_manifest_path(&path.to_string_lossy()) {
                found.manifests.push(path);
            }
        }
        found.directories.push(directory);
    }
    found.manifests.sort_unstable();
    Ok(found)
}

/// The manifests below a directory.
fn read(directory: &Path) -> io::Result<Vec<Source>> {
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path)?;
        let path = path.display().to_string();
        Ok(Source { path, text })
    };
    below(directory)?.manifests.into_iter().map(read).collect()
}
