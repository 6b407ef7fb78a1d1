//! Packages and lock files, as a test wants them.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256, Sha512};
use tar::{EntryType, Header};

/// A file of a package.
#[derive(Clone, Copy, Debug)]
pub(crate) enum File<'a> {
    Plain(&'a str, &'a str),
    Program(&'a str, &'a str),
    Link(&'a str, &'a str),
}

/// An npm package's archive, with paths as they are given.
pub(crate) fn tarball(files: &[File<'_>]) -> Vec<u8> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for file in files {
        let (path, content, kind, mode) = match *file {
            File::Plain(path, content) => (path, content, EntryType::Regular, 0o644),
            File::Program(path, content) => (path, content, EntryType::Regular, 0o755),
            File::Link(path, target) => (path, target, EntryType::Symlink, 0o777),
        };
        let mut header = Header::new_gnu();
        // Past the library's own care for paths.
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        let content = if kind.is_symlink() {
            header.set_link_name(content).unwrap();
            ""
        } else {
            content
        };
        header.set_size(content.len() as u64);
        header.set_cksum();
        archive.append(&header, content.as_bytes()).unwrap();
    }
    archive.into_inner().unwrap().finish().unwrap()
}

/// A Python package's archive.
pub(crate) fn wheel(files: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let mut archive = zip::ZipWriter::new(&mut bytes);
    for (name, content) in files {
        let options = zip::write::SimpleFileOptions::default();
        archive.start_file(*name, options).unwrap();
        archive.write_all(content.as_bytes()).unwrap();
    }
    let _written = archive.finish().unwrap();
    bytes.into_inner()
}

/// npm's word for an archive.
pub(crate) fn integrity(archive: &[u8]) -> String {
    format!("sha512-{}", STANDARD.encode(Sha512::digest(archive)))
}

/// pip's word for an archive.
pub(crate) fn sha256(archive: &[u8]) -> String {
    let digest = Sha256::digest(archive);
    let hex: Vec<String> = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    hex.concat()
}

/// A lock file of npm: the root needs everything that is directly below it.
pub(crate) fn lock(packages: &Value) -> String {
    let mut all = packages.clone();
    let names = packages.as_object().unwrap().keys();
    let names = names.filter_map(|place| place.strip_prefix("node_modules/"));
    let names = names.filter(|name| !name.contains("node_modules"));
    let needs: serde_json::Map<String, Value> =
        names.map(|name| (name.to_owned(), "*".into())).collect();
    all[""] = json!({"dependencies": needs});
    json!({"lockfileVersion": 3, "packages": all}).to_string()
}
