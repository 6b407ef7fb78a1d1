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

/// The manifests below a directory.
fn read(directory: &Path) -> io::Result<Vec<Source>> {
    let mut sources = Vec::new();
    let mut below = vec![(directory.to_owned(), 0)];
    while let Some((directory, depth)) = below.pop() {
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.is_dir() {
                if depth < MAX_DEPTH {
                    below.push((path, depth + 1));
                }
            } else if is_manifest_path(&path.to_string_lossy()) {
                let text = fs::read_to_string(&path)?;
                sources.push(Source {
                    path: path.display().to_string(),
                    text,
                });
            }
        }
    }
    Ok(sources)
}
