//! Embeds the manifests of `registry/` and the plugins they name, so that the binary is the whole product.
//!
//! Writes `shipped.rs`: two tables of relative path and text, in path order. Whether
//! the texts are manifests is found out by the crate's own loader, in its tests.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

fn main() -> io::Result<()> {
    let manifests = table("SHIPPED", "registry", is_manifest)?;
    let plugins = table("SHIPPED_PLUGINS", "openclaw-plugins", is_in_plugin)?;
    let out = std::env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("OUT_DIR is not set"))?;
    std::fs::write(Path::new(&out).join("shipped.rs"), manifests + &plugins)
}

/// The files below a directory of the workspace that are kept, as a table.
fn table(name: &str, directory: &str, is_kept: fn(&Path) -> bool) -> io::Result<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(directory)
        .canonicalize()?;
    let mut files = Vec::new();
    collect(&root, &mut files)?;
    files.sort();

    let mut table = format!("static {name}: &[(&str, &str)] = &[\n");
    for file in &files {
        let path = file.strip_prefix(&root).map_err(io::Error::other)?;
        if is_kept(path) {
            let (path, file) = (utf8(path)?.replace('\\', "/"), utf8(file)?);
            writeln!(table, "    ({path:?}, include_str!({file:?})),").map_err(io::Error::other)?;
        }
    }
    table.push_str("];\n");
    Ok(table)
}

/// Every `.json` but the schema, at any depth.
fn is_manifest(path: &Path) -> bool {
    path.extension() == Some(OsStr::new("json"))
        && path.file_name() != Some(OsStr::new("schema.json"))
}

/// What stands beside the plugins' directories is their tests.
fn is_in_plugin(path: &Path) -> bool {
    path.components().count() > 1
}

/// Every file, at any depth; links are not followed.
fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    // A directory's own time changes when a file comes or goes.
    println!("cargo::rerun-if-changed={}", utf8(directory)?);
    for entry in directory.read_dir()? {
        let entry = entry?;
        let (kind, path) = (entry.file_type()?, entry.path());
        if kind.is_dir() {
            collect(&path, files)?;
        } else if kind.is_file() {
            files.push(path);
        }
    }
    Ok(())
}

fn utf8(path: &Path) -> io::Result<&str> {
    path.to_str()
        .ok_or_else(|| io::Error::other(format!("not UTF-8: {}", path.display())))
}
