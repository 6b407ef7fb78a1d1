//! Embeds the manifests of `registry/`, so that the binary is the whole product.
//!
//! Writes `shipped.rs`: a table of relative path and text, in path order. Whether
//! the texts are manifests is found out by the crate's own loader, in its tests.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

fn main() -> io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../registry")
        .canonicalize()?;
    let mut files = Vec::new();
    collect(&root, &mut files)?;
    files.sort();

    let mut table = String::from("static SHIPPED: &[(&str, &str)] = &[\n");
    for file in &files {
        let path = file.strip_prefix(&root).map_err(io::Error::other)?;
        let (path, file) = (utf8(path)?.replace('\\', "/"), utf8(file)?);
        writeln!(table, "    ({path:?}, include_str!({file:?})),").map_err(io::Error::other)?;
    }
    table.push_str("];\n");

    let out = std::env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("OUT_DIR is not set"))?;
    std::fs::write(Path::new(&out).join("shipped.rs"), table)
}

/// Every `.json` but the schema, at any depth; links are not followed.
fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    // A directory's own time changes when a file comes or goes.
    println!("cargo::rerun-if-changed={}", utf8(directory)?);
    for entry in directory.read_dir()? {
        let entry = entry?;
        let (kind, path) = (entry.file_type()?, entry.path());
        if kind.is_dir() {
            collect(&path, files)?;
        } else if kind.is_file()
            && path.extension() == Some(OsStr::new("json"))
            && path.file_name() != Some(OsStr::new("schema.json"))
        {
            files.push(path);
        }
    }
    Ok(())
}

fn utf8(path: &Path) -> io::Result<&str> {
    path.to_str()
        .ok_or_else(|| io::Error::other(format!("not UTF-8: {}", path.display())))
}
