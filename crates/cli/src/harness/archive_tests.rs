use std::io::{Seek as _, Write as _};

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{EntryType, Header};
use tempfile::TempDir;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::*;

/// A tar file with entries as no well-behaved program writes them.
fn tarball(entries: &[(&str, EntryType, &str, u32)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (path, kind, content, mode) in entries {
        let mut header = Header::new_gnu();
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(*mode);
        let linked = kind.is_symlink() || kind.is_hard_link();
        if linked {
            let at = 157; // linkname in a ustar header
            header.as_mut_bytes()[at..at + content.len()].copy_from_slice(content.as_bytes());
        }
        let content = if linked { "" } else { content };
        header.set_size(content.len() as u64);
        header.set_cksum();
        archive
            .append(&header, content.as_bytes())
            .expect("written");
    }
    let zipped = archive.into_inner().expect("ended");
    zipped.finish().expect("ended")
}

fn unpacked(entries: &[(&str, EntryType, &str, u32)]) -> (TempDir, Result<(), BadArchive>) {
    let around = tempfile::tempdir().expect("a directory");
    let place = around.path().join("store/package");
    let done = untar(&*tarball(entries), &place, BOUNDS);
    (around, done)
}

/// Everything below `place`, by path.
fn all(place: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![place.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path.clone());
            }
            found.push(path);
        }
    }
    found
}

#[test]
fn files_are_below_the_place_and_runnable_if_they_are_so_in_the_archive() {
    use std::os::unix::fs::PermissionsExt as _;
    let (around, done) = unpacked(&[
        ("package", EntryType::Directory, "", 0o777),
        ("package/a.js", EntryType::Regular, "1", 0o6644),
        ("package/./bin/run", EntryType::Regular, "#!/bin/sh", 0o4755),
        ("package/a.js", EntryType::Regular, "2", 0o644),
        ("package/link", EntryType::Symlink, "bin/run", 0o777),
    ]);
    done.expect("unpacked");
    let place = around.path().join("store/package");
    assert_eq!(fs::read_to_string(place.join("a.js")).expect("read"), "2");
    let mode = |path: &str| {
        let file = fs::metadata(place.join(path)).expect("there");
        file.permissions().mode() & 0o7777
    };
    assert_eq!((mode("a.js"), mode("bin/run")), (0o644, 0o755));
    assert!(!place.join("link").exists(), "links are left out");
}

#[test]
fn nothing_is_written_outside_the_package() {
    for path in [
        "package/../../../outside",
        "../outside",
        "/outside",
        "package/a/../../outside",
        "outside",
    ] {
        let (around, done) = unpacked(&[(path, EntryType::Regular, "x", 0o644)]);
        assert!(
            matches!(done, Err(BadArchive::Outside(_))),
            "{path}: {done:?}"
        );
        let files = all(around.path());
        assert!(
            files.iter().all(|path| !path.ends_with("outside")),
            "{files:?}"
        );
    }
}

#[test]
fn a_link_out_of_the_package_is_refused_and_no_link_is_ever_made() {
    for (kind, target) in [
        (EntryType::Symlink, "/etc/passwd"),
        (EntryType::Symlink, "../x"),
        (EntryType::Symlink, "a/../../x"),
        (EntryType::Link, "/etc/passwd"),
        (EntryType::Link, "../x"),
    ] {
        let (around, done) = unpacked(&[("package/link", kind, target, 0o777)]);
        assert!(
            matches!(done, Err(BadArchive::LinkOut { .. })),
            "{target}: {done:?}"
        );
        assert!(all(around.path()).iter().all(|path| !path.is_symlink()));
    }
    let through = [
        ("package/sub/link", EntryType::Symlink, "..", 0o777),
        ("package/sub/link/file", EntryType::Regular, "x", 0o644),
    ];
    let (around, done) = unpacked(&through);
    done.expect("the link stays inside, and is left out");
    assert!(around.path().join("store/package/sub/link/file").is_file());
}

#[test]
fn devices_and_pipes_are_refused() {
    for kind in [EntryType::Fifo, EntryType::Char, EntryType::Block] {
        let (_around, done) = unpacked(&[("package/x", kind, "", 0o644)]);
        assert!(matches!(done, Err(BadArchive::Special(_))), "{done:?}");
    }
}

#[test]
fn what_grows_too_large_or_has_too_many_files_is_refused_midway() {
    let small = Bounds {
        bytes: 1000,
        files: 3,
    };
    let zeros = "0".repeat(1001);
    let place = tempfile::tempdir().expect("a directory");
    let large = tarball(&[("p/a", EntryType::Regular, &zeros, 0o644)]);
    let done = untar(&*large, place.path(), small);
    assert!(matches!(done, Err(BadArchive::Huge(_))), "{done:?}");
    let file = ("p/a", EntryType::Regular, "", 0o644);
    let done = untar(&*tarball(&[file; 4]), place.path(), small);
    assert!(matches!(done, Err(BadArchive::Huge(_))), "{done:?}");
    untar(&*tarball(&[file; 3]), place.path(), small).expect("three are few enough");
}

#[test]
fn a_truncated_archive_is_no_package() {
    let content = "x".repeat(50_000);
    let whole = tarball(&[("p/a", EntryType::Regular, &content, 0o644)]);
    let place = tempfile::tempdir().expect("a directory");
    for length in [5, whole.len() / 4, whole.len() / 2] {
        let done = untar(&whole[..length], place.path(), BOUNDS);
        assert!(
            matches!(done, Err(BadArchive::Broken(_))),
            "{length}: {done:?}"
        );
    }
}

fn zipped(files: &[(&str, &str)]) -> File {
    let mut file = tempfile::tempfile().expect("a file");
    let mut archive = ZipWriter::new(&mut file);
    for (name, content) in files {
        let options =
            SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
        archive.start_file(*name, options).expect("begun");
        archive.write_all(content.as_bytes()).expect("written");
    }
    let _written = archive.finish().expect("ended");
    file.rewind().expect("rewound");
    file
}

#[test]
fn a_zip_file_is_held_to_the_same() {
    let around = tempfile::tempdir().expect("a directory");
    let place = around.path().join("store");
    let to = |path: &Path| (!path.starts_with("not")).then(|| place.join(path));
    unzip(zipped(&[("a/b.py", "1"), ("not/c", "2")]), BOUNDS, &to).expect("unpacked");
    assert_eq!(fs::read_to_string(place.join("a/b.py")).expect("read"), "1");
    assert!(!place.join("not").exists());
    for path in ["../outside", "/outside", "a/../../outside"] {
        let done = unzip(zipped(&[(path, "x")]), BOUNDS, &to);
        assert!(
            matches!(done, Err(BadArchive::Outside(_))),
            "{path}: {done:?}"
        );
    }
    let small = Bounds {
        bytes: 1000,
        files: 3,
    };
    let done = unzip(zipped(&[("large", &"0".repeat(1001))]), small, &to);
    assert!(matches!(done, Err(BadArchive::Huge(_))), "{done:?}");
    let done = unzip(tempfile::tempfile().expect("a file"), BOUNDS, &to);
    assert!(matches!(done, Err(BadArchive::BrokenZip(_))), "{done:?}");
}

#[test]
fn a_script_with_line_ends_of_windows_can_be_run() {
    let place = tempfile::tempdir().expect("a directory");
    let path = place.path().join("run");
    fs::write(&path, "#!/bin/sh\r\necho 'a\rb'\r\n").expect("written");
    make_runnable(&path).expect("made runnable");
    let said = std::process::Command::new(&path).output().expect("started");
    assert_eq!(said.stdout, b"a\rb\n");
    fs::write(&path, "no script\r\n").expect("written");
    make_runnable(&path).expect("made runnable");
    assert_eq!(fs::read(&path).expect("read"), b"no script\r\n");
}
