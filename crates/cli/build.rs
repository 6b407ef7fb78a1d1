//! Embeds the cases of `e2e/interventions` and the lock files of `harnesses`, so that `farrier verify` and `farrier
//! harness install` need nothing beside the binary.
//!
//! Writes `cases.rs` and `harnesses.rs`: lists of name and text, by name. Whether the texts are what they should be is found
//! out by the program's tests.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

fn main() -> io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../e2e/interventions")
        .canonicalize()?;
    let mut cases = Vec::new();
    for folder in sorted(&root)? {
        if folder.is_dir() {
            for file in sorted(&folder)? {
                cases.extend(case(&root, &file));
            }
        }
    }
    embed("cases.rs", cases)?;
    embed("harnesses.rs", harnesses()?)
}

/// `<harness>/<version>/<file>`, by that name.
fn harnesses() -> io::Result<Vec<(String, String)>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../harnesses")
        .canonicalize()?;
    let mut found = Vec::new();
    for harness in sorted(&root)?.iter().filter(|path| path.is_dir()) {
        for version in sorted(harness)?.iter().filter(|path| path.is_dir()) {
            let files = sorted(version)?.into_iter().filter_map(|file| {
                let name = file.strip_prefix(&root).ok()?.to_str()?;
                Some((name.replace('\\', "/"), file.to_str()?.to_owned()))
            });
            // What only a package manager needs, to write the lock file anew.
            found.extend(files.filter(|(name, _)| !name.ends_with("/package.json")));
        }
    }
    Ok(found)
}

/// Writes a list of names and the texts of files.
fn embed(list: &str, mut files: Vec<(String, String)>) -> io::Result<()> {
    files.sort();
    let mut table = String::from("&[\n");
    for (name, file) in &files {
        writeln!(table, "    ({name:?}, include_str!({file:?})),").map_err(io::Error::other)?;
    }
    table.push_str("]\n");
    let out = std::env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("OUT_DIR is not set"))?;
    std::fs::write(Path::new(&out).join(list), table)
}

/// `<id>/case.toml` is the case `<id>`; `<id>/<other>.toml` is the case `<id>/<other>`.
fn case(root: &Path, file: &Path) -> Option<(String, String)> {
    let name = file.strip_prefix(root).ok()?.to_str()?;
    let name = name.strip_suffix(".toml")?.replace('\\', "/");
    let name = name.strip_suffix("/case").unwrap_or(&name).to_owned();
    Some((name, file.to_str()?.to_owned()))
}

fn sorted(directory: &Path) -> io::Result<Vec<PathBuf>> {
    // A directory's own time changes when a file comes or goes.
    println!("cargo::rerun-if-changed={}", directory.display());
    let mut paths: Vec<PathBuf> = directory
        .read_dir()?
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<_>>()?;
    paths.sort();
    Ok(paths)
}
