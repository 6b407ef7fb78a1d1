//! Installs the real clients, unchanged and pinned, under `<target>/clients`.
//!
//! `python/` there is a virtual environment with `clients/python/requirements.txt`; `node/` holds `node_modules` for
//! `clients/node/package-lock.json` and, because Node looks for packages beside the program, a copy of the programs.
//! An installation is redone only when what it was made from has changed: the stamp is a copy of that text, written last.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::steps::say;
use crate::workspace::{self, Workspace};

/// The first that works is taken.
const PYTHONS: &[&str] = &["python3.11", "python3.12", "python3.13", "python3"];
/// Exits with 0 if this Python is new enough and can make a virtual environment.
const PYTHON_WILL_DO: &str = "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))";
/// In an installation's directory, says what it was made from.
const STAMP: &str = ".installed-from";

/// Brings both installations up to date.
pub(crate) fn install(workspace: &Workspace) -> Result<(), Failure> {
    python(workspace)?;
    node(workspace)
}

fn python(workspace: &Workspace) -> Result<(), Failure> {
    let requirements = workspace.root().join("clients/python/requirements.txt");
    python_environment(
        workspace,
        &workspace.clients().join("python"),
        &requirements,
    )
}

/// Makes `home` a virtual environment with what `requirements` pins, unless it is one.
pub(crate) fn python_environment(
    workspace: &Workspace,
    home: &Path,
    requirements: &Path,
) -> Result<(), Failure> {
    let made_from = read(requirements)?;
    if is_stamped(home, &made_from) {
        return Ok(());
    }
    say(&format!("installing {} for Python", requirements.display()));
    start_afresh(home)?;
    let python = PYTHONS
        .iter()
        .find(|python| workspace::succeeds(workspace.command(python).args(["-c", PYTHON_WILL_DO])))
        .ok_or(Failure::Missing {
            what: "Python 3.10 or newer with venv",
            tried: PYTHONS,
        })?;
    workspace::run(workspace.command(python).args(["-m", "venv"]).arg(home))?;
    // The file pins everything, so nothing else may be pulled in; the check after it says if something is lacking.
    let pip = || {
        let mut pip = workspace.command(home.join("bin/python"));
        pip.args(["-m", "pip", "--disable-pip-version-check", "--no-input"]);
        pip
    };
    workspace::run(
        pip()
            .args(["install", "--quiet", "--no-deps", "--requirement"])
            .arg(requirements),
    )?;
    workspace::run(pip().arg("check"))?;
    stamp(home, &made_from)
}

fn node(workspace: &Workspace) -> Result<(), Failure> {
    let home = workspace.clients().join("node");
    let source = workspace.root().join("clients/node");
    let (package, lock) = (
        read(&source.join("package.json"))?,
        read(&source.join("package-lock.json"))?,
    );
    let made_from = [package.as_str(), lock.as_str()].concat();
    if !is_stamped(&home, &made_from) {
        say("installing the Node clients");
        start_afresh(&home)?;
        write(&home.join("package.json"), &package)?;
        write(&home.join("package-lock.json"), &lock)?;
        let mut npm = workspace.command("npm");
        npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
        workspace::run(npm.current_dir(&home))?;
        stamp(&home, &made_from)?;
    }
    for program in programs(&source)? {
        write(
            &home.join(program.file_name().unwrap_or_default()),
            &read(&program)?,
        )?;
    }
    Ok(())
}

/// The `.mjs` files of `directory`.
fn programs(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let listed = fs::read_dir(directory).map_err(Failure::file(directory))?;
    let paths: Result<Vec<PathBuf>, io::Error> = listed
        .map(|entry| entry.map(|entry| entry.path()))
        .collect();
    let mut paths = paths.map_err(Failure::file(directory))?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "mjs"));
    Ok(paths)
}

fn is_stamped(home: &Path, made_from: &str) -> bool {
    fs::read_to_string(home.join(STAMP)).is_ok_and(|stamp| stamp == made_from)
}

fn stamp(home: &Path, made_from: &str) -> Result<(), Failure> {
    write(&home.join(STAMP), made_from)
}

/// An empty directory, whatever was there.
fn start_afresh(home: &Path) -> Result<(), Failure> {
    match fs::remove_dir_all(home) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Failure::file(home)(error));
        }
        _ => {}
    }
    fs::create_dir_all(home).map_err(Failure::file(home))
}

fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(Failure::file(path))
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text).map_err(Failure::file(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installation_is_current_only_when_stamped_with_the_same_text() {
        let home = tempfile::tempdir().expect("a temporary directory");
        assert!(!is_stamped(home.path(), "openai==1"));
        stamp(home.path(), "openai==1").expect("the directory is writable");
        assert!(is_stamped(home.path(), "openai==1"));
        assert!(!is_stamped(home.path(), "openai==2"));
    }

    #[test]
    fn starting_afresh_removes_a_half_made_installation() {
        let parent = tempfile::tempdir().expect("a temporary directory");
        let home = parent.path().join("node");
        start_afresh(&home).expect("made where nothing was");
        write(&home.join("left-over"), "").expect("the directory is writable");
        start_afresh(&home).expect("emptied");
        assert!(!home.join("left-over").exists() && home.exists());
    }
}
