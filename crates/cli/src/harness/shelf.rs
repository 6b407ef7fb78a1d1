//! What can be installed: the lock files that are part of this program, those under `harnesses/`.
//!
//! `harnesses/<harness>/<version>/` holds a lock file and, where a version needs it, `finish.json`: what is done to the
//! packages before anybody uses them.

use serde::Deserialize;

/// Every embedded file: its path and its text, by path.
const EMBEDDED: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/harnesses.rs"));

/// A harness that can be installed, and how.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    /// As it is called on a command line.
    pub(crate) harness: &'static str,
    /// The package that it is, where packages come from.
    pub(crate) package: &'static str,
    pub(crate) packager: Packager,
}

/// Whose packages a harness consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packager {
    Npm,
    Pip,
}

/// A lock file, and what is done after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recipe {
    pub(crate) kind: &'static Kind,
    pub(crate) version: String,
    pub(crate) lock: String,
    pub(crate) finish: Finish,
}

/// What is done to the packages of a version before anybody uses them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Finish {
    /// Files `package.json` from which the dependencies are taken; one part of the path may be `*`. For plugins that come
    /// with a harness and would have npm install something when they are first used.
    #[serde(default)]
    pub(crate) forget_dependencies: Vec<String>,
}

/// Why a harness cannot be installed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotAvailable {
    #[error("expected a harness that can be installed, {}, got {got:?}", names().join(" or "))]
    Harness { got: String },
    #[error("expected a version of {harness} with a lock file, {}, got {got:?}", .known.join(", "))]
    Version {
        harness: &'static str,
        got: String,
        known: Vec<&'static str>,
    },
    #[error("expected a version, such as {0}@1.2.3, got {1:?}")]
    NoVersion(&'static str, String),
}

const KINDS: &[Kind] = &[
    Kind {
        harness: "hermes",
        package: "hermes-agent",
        packager: Packager::Pip,
    },
    Kind {
        harness: "openclaw",
        package: "openclaw",
        packager: Packager::Npm,
    },
];

impl Kind {
    /// # Errors
    /// There is none of this name.
    pub(crate) fn named(name: &str) -> Result<&'static Self, NotAvailable> {
        let mut kinds = KINDS.iter();
        kinds
            .find(|kind| kind.harness == name)
            .ok_or_else(|| NotAvailable::Harness {
                got: name.to_owned(),
            })
    }

    /// Versions with a lock file, the newest last.
    pub(crate) fn versions(&self) -> Vec<&'static str> {
        let lock = self.packager.lock_file();
        let mut versions: Vec<&str> = EMBEDDED
            .iter()
            .filter_map(|(path, _)| {
                let rest = path.strip_prefix(self.harness)?.strip_prefix('/')?;
                rest.strip_suffix(lock)?.strip_suffix('/')
            })
            .collect();
        versions.sort_by_key(|version| order(version));
        versions
    }

    /// What a version is made from, by its lock file; the newest if none is named.
    ///
    /// # Errors
    /// There is none of this version.
    pub(crate) fn recipe(&'static self, version: Option<&str>) -> Result<Recipe, NotAvailable> {
        let known = self.versions();
        let wanted = version
            .or_else(|| known.last().copied())
            .unwrap_or_default();
        let file = |name: &str| {
            let path = format!("{}/{wanted}/{name}", self.harness);
            let found = EMBEDDED.iter().find(|(own, _)| *own == path);
            found.map(|(_, text)| *text)
        };
        let lock = file(self.packager.lock_file());
        let lock = lock.ok_or_else(|| NotAvailable::Version {
            harness: self.harness,
            got: wanted.to_owned(),
            known,
        })?;
        let finish = file("finish.json").map_or_else(Finish::default, |text| {
            serde_json::from_str(text).expect("shipped files are sound; a test reads them")
        });
        Ok(Recipe {
            kind: self,
            version: wanted.to_owned(),
            lock: lock.to_owned(),
            finish,
        })
    }

    /// The recipe of a version by a lock file of the user's own.
    ///
    /// # Errors
    /// The version is no name for a directory.
    pub(crate) fn own_recipe(
        &'static self,
        version: &str,
        lock: String,
    ) -> Result<Recipe, NotAvailable> {
        if !is_version(version) {
            let got = version.to_owned();
            return Err(NotAvailable::NoVersion(self.harness, got));
        }
        let shipped = self.recipe(Some(version)).ok();
        Ok(Recipe {
            kind: self,
            version: version.to_owned(),
            lock,
            // What a version needs done it needs with any lock file.
            finish: shipped.map(|shipped| shipped.finish).unwrap_or_default(),
        })
    }
}

impl Packager {
    /// What its lock file is called.
    pub(crate) fn lock_file(self) -> &'static str {
        match self {
            Self::Npm => "package-lock.json",
            Self::Pip => "requirements.txt",
        }
    }
}

/// The harnesses that can be installed.
pub(crate) fn kinds() -> impl Iterator<Item = &'static Kind> {
    KINDS.iter()
}

/// Their names.
pub(crate) fn names() -> Vec<&'static str> {
    KINDS.iter().map(|kind| kind.harness).collect()
}

/// Everything that can be named on a command line: `openclaw`, `openclaw@2026.5.12`.
pub(crate) fn specifications() -> Vec<String> {
    let of = |kind: &'static Kind| {
        let versions = kind.versions().into_iter();
        let versions = versions.map(|version| format!("{}@{version}", kind.harness));
        std::iter::once(kind.harness.to_owned()).chain(versions)
    };
    KINDS.iter().flat_map(of).collect()
}

/// A version that is a name for a directory, and nothing more.
pub(crate) fn is_version(version: &str) -> bool {
    let fits = |sign: char| sign.is_ascii_alphanumeric() || "-_.+".contains(sign);
    version.starts_with(|sign: char| sign.is_ascii_alphanumeric()) && version.chars().all(fits)
}

/// Sorts versions: by their numbers, and what is not released yet before what is.
pub(crate) fn order(version: &str) -> (Vec<u64>, bool, String) {
    let (numbers, rest) = match version.split_once('-') {
        Some((numbers, rest)) => (numbers, rest),
        None => (version, ""),
    };
    let numbers = numbers.split('.').map(|part| part.parse().unwrap_or(0));
    (numbers.collect(), rest.is_empty(), rest.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::{machine::Machine, npm, pypi};
    use super::*;

    #[test]
    fn every_shipped_lock_file_pins_its_harness_in_its_version() {
        let machine = Machine {
            os: "linux",
            cpu: "x64",
            libc: "glibc",
        };
        for kind in kinds() {
            assert!(!kind.versions().is_empty(), "{}", kind.harness);
            for version in kind.versions() {
                let recipe = kind.recipe(Some(version)).expect("shipped");
                let pinned: Vec<(String, String)> = match kind.packager {
                    Packager::Npm => {
                        let tree = npm::read(&recipe.lock, machine).expect("sound");
                        let all = tree.packages.into_iter();
                        all.map(|package| (package.name, package.version)).collect()
                    }
                    Packager::Pip => {
                        let pins = pypi::read(&recipe.lock).expect("sound").into_iter();
                        pins.map(|pin| (pin.name, pin.version)).collect()
                    }
                };
                let own = (kind.package.to_owned(), version.to_owned());
                assert!(pinned.contains(&own), "{}@{version}", kind.harness);
                assert!(pinned.len() > 10, "{pinned:?}");
            }
        }
    }

    #[test]
    fn the_version_that_installs_at_run_time_is_kept_from_it() {
        let openclaw = Kind::named("openclaw").expect("known");
        let recipe = openclaw.recipe(Some("2026.4.21")).expect("shipped");
        assert_eq!(recipe.finish.forget_dependencies.len(), 1);
        let recipe = openclaw.recipe(Some("2026.5.12")).expect("shipped");
        assert_eq!(recipe.finish, Finish::default());
    }

    #[test]
    fn versions_are_sorted_by_their_numbers() {
        let mut versions = ["2026.10.1", "2026.9.6", "2026.9.6-beta.1", "0.19.0"];
        versions.sort_by_key(|version| order(version));
        assert_eq!(
            versions,
            ["0.19.0", "2026.9.6-beta.1", "2026.9.6", "2026.10.1"]
        );
        let newest = Kind::named("openclaw").expect("known").recipe(None);
        assert_eq!(newest.expect("shipped").version, "2026.9.6");
    }

    #[test]
    fn what_there_is_is_said_where_something_else_was_wanted() {
        let error = Kind::named("opencl")
            .expect_err("no such harness")
            .to_string();
        assert_eq!(
            error,
            "expected a harness that can be installed, hermes or openclaw, got \"opencl\""
        );
        let openclaw = Kind::named("openclaw").expect("known");
        let error = openclaw.recipe(Some("1")).expect_err("none").to_string();
        assert_eq!(
            error,
            "expected a version of openclaw with a lock file, 2026.4.21, 2026.5.12, 2026.9.6, got \"1\""
        );
        let own = |version| openclaw.own_recipe(version, String::new());
        for version in ["", "..", "../x", "a/b", ".hidden"] {
            assert!(own(version).is_err(), "{version}");
        }
    }
}
