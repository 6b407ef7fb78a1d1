//! Installs the real clients and harnesses, pinned, under `<target>/clients`.
//!
//! `python/` there is a virtual environment with `clients/python/requirements.txt`; `node/` holds `node_modules` for
//! `clients/node/package-lock.json` and, because Node looks for packages beside the program, a copy of the programs.
//! `openclaw/<version>` and `hermes/<version>` are the same for each version of a harness that `harnesses/` pins, without
//! programs of ours: what `farrier verify --harness-dir` takes. The package managers make them, so that what `farrier harness
//! install` makes of the same lock files has something to be compared with. An installation is redone only when what it was made from has changed: the stamp
//! is a copy of that text, written last.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::failure::Failure;
use crate::steps::say;
use crate::workspace::{self, Workspace};

/// The first that works is taken.
const PYTHONS: &[&str] = &["python3.11", "python3.12", "python3.13", "python3"];
/// Exits with 0 if this Python is new enough and can make a virtual environment.
const PYTHON_WILL_DO: &str = "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))";
/// Is beside the lock file of a version of OpenClaw that runs npm inside its own package for each bundled plugin, at the
/// first turn: two gigabytes, or, without a network, silence for ever.
const INSTALLS_AT_RUN_TIME: &str = "finish.json";
/// In an installation's directory, says what it was made from.
const STAMP: &str = ".installed-from";

/// Brings all installations up to date.
pub(crate) fn install(workspace: &Workspace) -> Result<(), Failure> {
    python(workspace)?;
    node(workspace)?;
    openclaw(workspace)?;
    hermes(workspace)
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
    node_packages(workspace, &home, &source, |_installed| Ok(()))?;
    for program in programs(&source)? {
        write(
            &home.join(program.file_name().unwrap_or_default()),
            &read(&program)?,
        )?;
    }
    Ok(())
}

/// Each version with a lock file of its own, and the Node it runs on.
fn openclaw(workspace: &Workspace) -> Result<(), Failure> {
    for source in directories(&workspace.root().join("harnesses/openclaw"))? {
        let version = source.file_name().unwrap_or_default();
        let home = workspace.clients().join("openclaw").join(version);
        let installs = source.join(INSTALLS_AT_RUN_TIME).exists();
        node_packages(workspace, &home, &source, |installed| match installs {
            true => leave_plugins_as_they_are(installed),
            false => Ok(()),
        })?;
    }
    Ok(())
}

fn hermes(workspace: &Workspace) -> Result<(), Failure> {
    for source in directories(&workspace.root().join("harnesses/hermes"))? {
        let version = source.file_name().unwrap_or_default();
        let home = workspace.clients().join("hermes").join(version);
        python_environment(workspace, &home, &source.join("requirements.txt"))?;
    }
    Ok(())
}

/// Makes `home` hold the packages that the lock file in `source` pins, unless it does. What else is to be done to a new
/// installation, `finish` does.
fn node_packages(
    workspace: &Workspace,
    home: &Path,
    source: &Path,
    finish: impl FnOnce(&Path) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let (package, lock) = (
        read(&source.join("package.json"))?,
        read(&source.join("package-lock.json"))?,
    );
    let made_from = [package.as_str(), lock.as_str()].concat();
    if is_stamped(home, &made_from) {
        return Ok(());
    }
    say(&format!("installing {} for Node", source.display()));
    start_afresh(home)?;
    write(&home.join("package.json"), &package)?;
    write(&home.join("package-lock.json"), &lock)?;
    let mut npm = workspace.command("npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
    // Which Node an OpenClaw runs on comes with it, so npm's own is of no interest.
    npm.args(["--loglevel", "error"]);
    workspace::run(npm.current_dir(home))?;
    finish(home)?;
    stamp(home, &made_from)
}

/// Takes from the bundled plugins of an OpenClaw what they would have npm install.
fn leave_plugins_as_they_are(installed: &Path) -> Result<(), Failure> {
    let plugins = installed.join("node_modules/openclaw/dist/extensions");
    for plugin in directories(&plugins)? {
        let path = plugin.join("package.json");
        if !path.exists() {
            continue;
        }
        let malformed = |error: serde_json::Error| Failure::file(&path)(error.into());
        let mut package: Value = serde_json::from_str(&read(&path)?).map_err(malformed)?;
        let fields = package.as_object_mut();
        if fields.is_some_and(|fields| fields.remove("dependencies").is_some()) {
            write(&path, &package.to_string())?;
        }
    }
    Ok(())
}

/// The directories in `directory`, by name.
fn directories(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut paths = entries(directory)?;
    paths.retain(|path| path.is_dir());
    paths.sort();
    Ok(paths)
}

/// The `.mjs` files of `directory`.
fn programs(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut paths = entries(directory)?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "mjs"));
    Ok(paths)
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let listed = fs::read_dir(directory).map_err(Failure::file(directory))?;
    let paths: Result<Vec<PathBuf>, io::Error> = listed
        .map(|entry| entry.map(|entry| entry.path()))
        .collect();
    paths.map_err(Failure::file(directory))
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
    fn a_bundled_plugin_is_left_with_nothing_to_install_and_everything_else() {
        let home = tempfile::tempdir().expect("a temporary directory");
        let plugins = home.path().join("node_modules/openclaw/dist/extensions");
        fs::create_dir_all(plugins.join("browser")).expect("made");
        fs::create_dir_all(plugins.join("without-a-package")).expect("made");
        let package = plugins.join("browser/package.json");
        write(&package, r#"{"name":"browser","dependencies":{"x":"1"}}"#).expect("written");
        leave_plugins_as_they_are(home.path()).expect("done");
        assert_eq!(read(&package).expect("readable"), r#"{"name":"browser"}"#);
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
