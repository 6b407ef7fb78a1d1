//! npm's lock file, version 3: which packages go where on this machine.
//!
//! ```text
//! "node_modules/a/node_modules/@b/c": {"version", "integrity", "bin", "os", "cpu", "libc", "optional", …}
//!      └── its place in the installation        └── proves its archive      └── where it may be left out
//! ```
//!
//! Left out, as npm does: what is for another platform and optional, what only that needs, and what is for developing. A
//! package that comes inside another one's archive is not fetched. Refused: a package without a proof, from anywhere but a
//! registry, or with a place that leads elsewhere.
//!
//! Source: <https://docs.npmjs.com/cli/v11/configuring-npm/package-lock-json>, and for what is left out npm's arborist
//! (`checkEngineAndPlatform`, `#failNode`).

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::digest::Digest;
use super::machine::Machine;

/// What an installation consists of.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tree {
    /// What is fetched.
    pub(crate) packages: Vec<Package>,
    /// Programs to link.
    pub(crate) bins: Vec<Bin>,
}

/// A package to fetch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Package {
    /// Its directory, below the installation's.
    pub(crate) place: String,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) digest: Digest,
}

/// A program of a package.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Bin {
    /// The package's place.
    pub(crate) place: String,
    pub(crate) name: String,
    /// The file, below the package's place.
    pub(crate) file: String,
}

/// What is wrong with a lock file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadLock {
    #[error("expected npm's package-lock.json, got something else")]
    NoLock(#[source] serde_json::Error),
    #[error(
        "expected a lock file of version 3 (or 2), got version {0}; `npm install --package-lock-only` of npm 7 or newer writes one"
    )]
    Version(u32),
    #[error("expected a package in a folder node_modules, got {0:?}")]
    Place(String),
    #[error("expected {0} to come from a registry, got {1}")]
    Source(String, String),
    #[error("expected a version and a sha512 integrity of {0}, got none")]
    NoProof(String),
    #[error("expected {name} for {machine}, got one for {wants} alone")]
    Platform {
        name: String,
        wants: String,
        machine: Machine,
    },
    #[error("expected a program of {0} inside it, got {1:?}")]
    Program(String, String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Lock {
    lockfile_version: u32,
    #[serde(default)]
    packages: BTreeMap<String, Entry>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(clippy::struct_excessive_bools, reason = "the fields are npm's")]
struct Entry {
    name: Option<String>,
    version: Option<String>,
    resolved: Option<String>,
    integrity: Option<String>,
    link: bool,
    in_bundle: bool,
    optional: bool,
    dev: bool,
    os: Names,
    cpu: Names,
    libc: Names,
    bin: BTreeMap<String, String>,
    dependencies: BTreeMap<String, IgnoredAny>,
    optional_dependencies: BTreeMap<String, IgnoredAny>,
    peer_dependencies: BTreeMap<String, IgnoredAny>,
}

/// `"linux"` or `["linux", "!win32"]`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Names {
    One(String),
    Many(Vec<String>),
}

const FOLDER: &str = "node_modules/";

/// Reads which packages `machine` needs.
///
/// # Errors
/// It is no lock file, or asks for what is not installed.
pub(crate) fn read(text: &str, machine: Machine) -> Result<Tree, BadLock> {
    let lock: Lock = serde_json::from_str(text).map_err(BadLock::NoLock)?;
    if !matches!(lock.lockfile_version, 2 | 3) {
        return Err(BadLock::Version(lock.lockfile_version));
    }
    let mut tree = Tree::default();
    for place in needed(&lock.packages, machine)? {
        let entry = &lock.packages[place];
        let name = name_at(place).ok_or_else(|| BadLock::Place(place.to_owned()))?;
        let name = entry.name.as_deref().unwrap_or(name);
        if !is_name(name) {
            return Err(BadLock::Place(place.to_owned()));
        }
        for (program, file) in &entry.bin {
            tree.bins.push(bin(place, program, file)?);
        }
        if !entry.in_bundle {
            tree.packages.push(package(place, name, entry)?);
        }
    }
    Ok(tree)
}

/// The places of all that the root needs, by the dependencies of each.
fn needed(packages: &BTreeMap<String, Entry>, machine: Machine) -> Result<Vec<&str>, BadLock> {
    let mut found: BTreeSet<&str> = BTreeSet::new();
    let mut open: Vec<&str> = vec![""];
    while let Some(place) = open.pop() {
        let Some(entry) = packages.get(place) else {
            continue;
        };
        let names = entry.dependencies.keys();
        let names = names.chain(entry.optional_dependencies.keys());
        for name in names.chain(entry.peer_dependencies.keys()) {
            let Some((at, dependency)) = resolved(packages, place, name) else {
                continue; // an optional one, which the lock leaves out
            };
            if dependency.dev || found.contains(at) {
                continue;
            }
            match dependency.misfit(machine) {
                None => {
                    found.insert(at);
                    open.push(at);
                }
                Some(_) if dependency.optional => {}
                Some(wants) => {
                    return Err(BadLock::Platform {
                        name: name.clone(),
                        wants,
                        machine,
                    });
                }
            }
        }
    }
    Ok(found.into_iter().collect())
}

/// What `name` means in the package at `place`: the nearest `node_modules` that has it, going up.
fn resolved<'a>(
    packages: &'a BTreeMap<String, Entry>,
    place: &str,
    name: &str,
) -> Option<(&'a str, &'a Entry)> {
    let mut above = place;
    loop {
        let within = match above {
            "" => format!("{FOLDER}{name}"),
            above => format!("{above}/{FOLDER}{name}"),
        };
        if let Some((at, entry)) = packages.get_key_value(&within) {
            return Some((at, entry));
        }
        if above.is_empty() {
            return None;
        }
        above = match above.rfind(FOLDER) {
            Some(0) | None => "",
            Some(at) => &above[..at - 1],
        };
    }
}

fn package(place: &str, name: &str, entry: &Entry) -> Result<Package, BadLock> {
    let from_registry = entry
        .resolved
        .as_deref()
        .is_none_or(|url| url.starts_with("https://") || url.starts_with("http://"));
    if entry.link || !from_registry {
        let got = entry.resolved.as_deref().unwrap_or("a link").to_owned();
        return Err(BadLock::Source(name.to_owned(), got));
    }
    let digest = entry.integrity.as_deref().and_then(Digest::of_integrity);
    match (&entry.version, digest) {
        (Some(version), Some(digest)) if is_version(version) => Ok(Package {
            place: place.to_owned(),
            name: name.to_owned(),
            version: version.clone(),
            digest,
        }),
        _ => Err(BadLock::NoProof(name.to_owned())),
    }
}

fn bin(place: &str, name: &str, file: &str) -> Result<Bin, BadLock> {
    let program = name.rsplit('/').next().unwrap_or(name); // a scope is no part of the program's name
    let file = file.strip_prefix("./").unwrap_or(file);
    let is_inside = !file.is_empty() && file.split('/').all(is_plain);
    if !is_plain(program) || !is_inside {
        return Err(BadLock::Program(
            place.to_owned(),
            format!("{name}: {file}"),
        ));
    }
    Ok(Bin {
        place: place.to_owned(),
        name: program.to_owned(),
        file: file.to_owned(),
    })
}

/// The package's name by its place; `None` for a place that no package has.
fn name_at(place: &str) -> Option<&str> {
    let mut rest = place.strip_prefix(FOLDER)?;
    loop {
        match rest.split_once("/node_modules/") {
            Some((name, below)) if is_name(name) => rest = below,
            Some(_) => return None,
            None => return is_name(rest).then_some(rest),
        }
    }
}

/// `name` or `@scope/name`.
fn is_name(name: &str) -> bool {
    let plain = |part: &str| is_plain(part) && !part.starts_with('.');
    match name.strip_prefix('@') {
        Some(scoped) => scoped
            .split_once('/')
            .is_some_and(|(scope, name)| plain(scope) && plain(name)),
        None => plain(name),
    }
}

/// A part of a path that leads nowhere else, and needs no encoding in a URL.
fn is_plain(part: &str) -> bool {
    let fits = |sign: char| sign.is_ascii_alphanumeric() || "-_.~!'()*+@".contains(sign);
    !matches!(part, "" | "." | "..") && part.chars().all(fits)
}

fn is_version(version: &str) -> bool {
    let fits = |sign: char| sign.is_ascii_alphanumeric() || "-.+".contains(sign);
    !version.is_empty() && version.chars().all(fits)
}

impl Entry {
    /// What it wants of a machine, if this one is not that.
    fn misfit(&self, machine: Machine) -> Option<String> {
        [
            (&self.os, machine.os),
            (&self.cpu, machine.cpu),
            (&self.libc, machine.libc),
        ]
        .into_iter()
        .find(|(names, own)| !names.admit(own))
        .map(|(names, _)| names.as_slice().join(", "))
    }
}

impl Names {
    fn as_slice(&self) -> &[String] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Many(names) => names,
        }
    }

    /// As npm's `checkList`: `any` and nothing admit all, `!name` keeps that one out.
    fn admit(&self, own: &str) -> bool {
        let names = self.as_slice();
        let (without, among): (Vec<&String>, Vec<&String>) =
            names.iter().partition(|name| name.starts_with('!'));
        let kept_out = without.iter().any(|name| &name[1..] == own);
        let let_in = among.is_empty() || among.iter().any(|name| *name == own || *name == "any");
        let_in && !kept_out
    }
}

impl Default for Names {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

#[cfg(test)]
#[path = "npm_tests.rs"]
mod tests;
