//! A wheel, put into an environment of a Python.
//!
//! ```text
//! a.py, a-1.dist-info/…              ──▶ lib/python3.11/site-packages/
//! a-1.data/{purelib,platlib}/…       ──▶ the same
//! a-1.data/scripts/x                 ──▶ bin/x
//! a-1.data/data/…                    ──▶ the environment itself
//! a-1.dist-info/entry_points.txt     ──▶ bin/<console script>
//! ```
//!
//! A script finds the Python beside itself, wherever the environment is: it is installed in one place, renamed to another,
//! and may be seen at a third in a sandbox. Nothing of a wheel is run.
//!
//! Source: <https://packaging.python.org/en/latest/specifications/binary-distribution-format/>.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::archive::{self, BOUNDS, BadArchive};

/// Where things of an environment are.
#[derive(Clone, Debug)]
pub(crate) struct Environment {
    pub(crate) root: PathBuf,
    pub(crate) site: PathBuf,
}

/// Starts as a shell script that has the Python beside it read it again; Python sees a string.
const PROLOGUE: &str = "#!/bin/sh
'''exec' \"$(dirname -- \"$(realpath -- \"$0\")\")/python\" \"$0\" \"$@\"
' '''
";

impl Environment {
    /// For Python 3.`minor`.
    pub(crate) fn at(root: &Path, minor: u32) -> Self {
        Self {
            root: root.to_owned(),
            site: root.join(format!("lib/python3.{minor}/site-packages")),
        }
    }

    /// Puts a wheel in.
    ///
    /// # Errors
    /// It is no wheel, or cannot be written.
    pub(crate) fn install(&self, wheel: File) -> Result<(), BadArchive> {
        let again = wheel.try_clone().map_err(BadArchive::Broken)?;
        archive::unzip(wheel, BOUNDS, &|path| self.place_of(path))?;
        for script in scripts(again)? {
            self.write(&script.name, &script.text())?;
        }
        Ok(())
    }

    fn place_of(&self, path: &Path) -> Option<PathBuf> {
        let mut parts = path.components();
        let first = parts.next()?.as_os_str().to_str()?;
        if !first.ends_with(".data") {
            return Some(self.site.join(path));
        }
        let scheme = parts.next()?.as_os_str().to_str()?;
        let below = parts.as_path();
        match scheme {
            "purelib" | "platlib" => Some(self.site.join(below)),
            "scripts" => Some(self.root.join("bin").join(below.file_name()?)),
            "data" => Some(self.root.join(below)),
            _ => None, // headers, for building against it
        }
    }

    fn write(&self, name: &str, text: &str) -> Result<(), BadArchive> {
        let path = self.root.join("bin").join(name);
        let failed = |source| BadArchive::Write {
            path: path.clone(),
            source,
        };
        let mut file = archive::create(&path, true).map_err(failed)?;
        file.write_all(text.as_bytes()).map_err(failed)
    }

    /// Has scripts that came whole in a wheel find the Python beside them, as generated ones do.
    ///
    /// # Errors
    /// One cannot be read or written.
    pub(crate) fn adopt_scripts(&self) -> std::io::Result<()> {
        let bin = self.root.join("bin");
        if !bin.is_dir() {
            return Ok(());
        }
        for entry in fs::read_dir(bin)? {
            let path = entry?.path();
            let bytes = fs::read(&path)?;
            let Some(rest) = bytes.strip_prefix(b"#!python") else {
                continue;
            };
            let end = rest.iter().position(|byte| *byte == b'\n');
            let rest = end.map_or(&b""[..], |end| &rest[end + 1..]);
            fs::write(&path, [PROLOGUE.as_bytes(), rest].concat())?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
        Ok(())
    }
}

/// `name = module:attribute`.
#[derive(Debug, PartialEq, Eq)]
struct Script {
    name: String,
    module: String,
    attribute: String,
}

/// The console scripts of a wheel.
fn scripts(wheel: File) -> Result<Vec<Script>, BadArchive> {
    let mut archive = zip::ZipArchive::new(wheel).map_err(BadArchive::BrokenZip)?;
    let names = archive.file_names().filter_map(Result::ok);
    let names: Vec<String> = names.map(Cow::into_owned).collect();
    let is_list = |name: &&String| {
        let mut parts = name.split('/');
        let first = parts
            .next()
            .is_some_and(|first| first.ends_with(".dist-info"));
        first && parts.next() == Some("entry_points.txt") && parts.next().is_none()
    };
    let Some(name) = names.iter().find(is_list) else {
        return Ok(Vec::new());
    };
    let entry = archive.by_name(name).map_err(BadArchive::BrokenZip)?;
    let text = std::io::read_to_string(std::io::Read::take(entry, MAX_LIST_BYTES));
    Ok(listed(&text.map_err(BadArchive::Broken)?))
}

const MAX_LIST_BYTES: u64 = 1 << 20;

fn listed(text: &str) -> Vec<Script> {
    let mut scripts = Vec::new();
    let mut within = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            within = line == "[console_scripts]";
        } else if within && let Some(script) = Script::read(line) {
            scripts.push(script);
        }
    }
    scripts
}

impl Script {
    fn read(line: &str) -> Option<Self> {
        let (name, object) = line.split_once('=')?;
        let object = object.split('[').next()?.trim(); // extras follow
        let (module, attribute) = object.split_once(':')?;
        let dotted = |text: &str| {
            let sign = |sign: char| sign.is_alphanumeric() || sign == '_';
            !text.is_empty()
                && text
                    .split('.')
                    .all(|part| !part.is_empty() && part.chars().all(sign))
        };
        let name = name.trim();
        let plain = |sign: char| sign.is_ascii_alphanumeric() || "-_.".contains(sign);
        let sound = name.starts_with(|sign: char| sign.is_ascii_alphanumeric())
            && name.chars().all(plain)
            && dotted(module.trim())
            && dotted(attribute.trim());
        sound.then(|| Self {
            name: name.to_owned(),
            module: module.trim().to_owned(),
            attribute: attribute.trim().to_owned(),
        })
    }

    fn text(&self) -> String {
        let Self {
            module, attribute, ..
        } = self;
        let first = attribute.split('.').next().unwrap_or(attribute);
        format!(
            "{PROLOGUE}import sys\n\nfrom {module} import {first}\n\nif __name__ == \"__main__\":\n    sys.exit({attribute}())\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use std::io::Seek as _;

    use super::*;

    fn wheel(files: &[(&str, &str)]) -> File {
        let mut file = tempfile::tempfile().expect("a file");
        let mut archive = zip::ZipWriter::new(&mut file);
        for (name, content) in files {
            let options = zip::write::SimpleFileOptions::default();
            archive.start_file(*name, options).expect("begun");
            archive.write_all(content.as_bytes()).expect("written");
        }
        let _written = archive.finish().expect("ended");
        file.rewind().expect("rewound");
        file
    }

    #[test]
    fn each_part_of_a_wheel_goes_to_its_place() {
        let place = tempfile::tempdir().expect("a directory");
        let environment = Environment::at(place.path(), 11);
        let files = [
            ("a/__init__.py", "1"),
            ("a-1.dist-info/METADATA", "2"),
            ("a-1.data/purelib/b.py", "3"),
            ("a-1.data/data/share/doc", "4"),
            ("a-1.data/scripts/whole", "#!python\nprint(5)\n"),
            ("a-1.data/headers/h.h", "6"),
        ];
        environment.install(wheel(&files)).expect("installed");
        environment.adopt_scripts().expect("adopted");
        let text = |path: &str| fs::read_to_string(place.path().join(path)).ok();
        let site = "lib/python3.11/site-packages";
        assert_eq!(text(&format!("{site}/a/__init__.py")).as_deref(), Some("1"));
        assert_eq!(
            text(&format!("{site}/a-1.dist-info/METADATA")).as_deref(),
            Some("2")
        );
        assert_eq!(text(&format!("{site}/b.py")).as_deref(), Some("3"));
        assert_eq!(text("share/doc").as_deref(), Some("4"));
        assert_eq!(text("bin/whole"), Some(format!("{PROLOGUE}print(5)\n")));
        assert!(!place.path().join(site).join("h.h").exists());
    }

    #[test]
    fn a_console_script_runs_with_the_python_beside_it_wherever_that_is() {
        let place = tempfile::tempdir().expect("a directory");
        let first = place.path().join("first");
        let environment = Environment::at(&first, 11);
        let points = "[gui_scripts]\nno = a:b\n[console_scripts]\nhi = pkg.cli:app.main [x]\nbad = ../x:y\n../out = a:b\n";
        environment
            .install(wheel(&[("a-1.dist-info/entry_points.txt", points)]))
            .expect("installed");
        // Stands in for a Python: shows what it is to run.
        let python = first.join("bin/python");
        fs::write(&python, "#!/bin/sh\necho \"$@\"; cat \"$1\"\n").expect("written");
        fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).expect("runnable");
        let second = place.path().join("second one");
        fs::rename(&first, &second).expect("moved");
        let mut names: Vec<_> = fs::read_dir(second.join("bin"))
            .expect("there")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["hi", "python"]);
        let link = place.path().join("link");
        std::os::unix::fs::symlink(second.join("bin/hi"), &link).expect("linked");
        let said = std::process::Command::new(&link)
            .arg("an argument")
            .output();
        let said = String::from_utf8(said.expect("started").stdout).expect("text");
        assert!(said.contains("an argument"), "{said}");
        assert!(said.contains("from pkg.cli import app\n"), "{said}");
        assert!(said.contains("sys.exit(app.main())"), "{said}");
    }
}
