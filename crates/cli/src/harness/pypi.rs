//! Python packages: what a lock file pins, what an index has of it, and which wheel this machine takes.
//!
//! ```text
//! name==1.0 \            ──▶ Pin { name, version, digests }
//!     --hash=sha256:…
//! GET <index>/<name>/    ──▶ files, as JSON (PEP 691) or as links (PEP 503)
//! Tags of this Python    ──▶ the best wheel among those that the lock file knows by digest
//! ```
//!
//! The lock file is what `uv pip compile --generate-hashes` or `pip-compile --generate-hashes` writes. Only wheels are
//! taken: to build from source is to run what the source says.

use std::fmt;

use percent_encoding::percent_decode_str;
use serde::Deserialize;

use super::digest::Digest;
use super::fetch::{Page, joined};

/// A package that is pinned.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Pin {
    /// As indexes spell it: small letters, hyphens.
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) digests: Vec<Digest>,
}

/// A wheel to fetch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wheel {
    pub(crate) file: String,
    pub(crate) url: String,
    pub(crate) digest: Digest,
}

/// What a Python takes, on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tags {
    /// 3.11 is 11.
    pub(crate) minor: u32,
    /// As in `x86_64`.
    pub(crate) arch: String,
    /// glibc 2.36 is 36; none is musl.
    pub(crate) glibc: Option<u32>,
}

/// What is wrong with a lock file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadRequirements {
    #[error("expected lines name==version, got {text:?} (line {line})")]
    Line { line: usize, text: String },
    #[error(
        "expected --hash=sha256:… of {0}, got none; `uv pip compile --generate-hashes` writes them"
    )]
    NoProof(String),
}

/// Why there is no wheel.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoWheel {
    #[error("expected a page of the index about {0}, got something else")]
    NoPage(String),
    #[error(
        "expected a wheel of {name} {version} for {tags} that the lock file knows, got {}",
        if .got.is_empty() { "none".to_owned() } else { .got.join(", ") }
    )]
    NoneFits {
        name: String,
        version: String,
        tags: Tags,
        /// Those that the lock file knows, for other machines.
        got: Vec<String>,
    },
}

/// Media types of an index's pages, the better first.
pub(crate) const ACCEPT: &str = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1";

/// Reads a lock file.
///
/// # Errors
/// It pins something by less than a version and a digest.
pub(crate) fn read(text: &str) -> Result<Vec<Pin>, BadRequirements> {
    let mut pins: Vec<Pin> = Vec::new();
    for (line, text) in (1..).zip(text.lines()) {
        let text = text.split(" #").next().unwrap_or_default();
        let text = text.trim().trim_end_matches('\\').trim_end();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let bad = || BadRequirements::Line {
            line,
            text: text.to_owned(),
        };
        for word in text.split_whitespace() {
            if let Some(hash) = word.strip_prefix("--hash=") {
                let pin = pins.last_mut().ok_or_else(bad)?;
                pin.digests.push(Digest::of_hash(hash).ok_or_else(bad)?);
            } else {
                pins.push(pin(word).ok_or_else(bad)?);
            }
        }
    }
    match pins.iter().find(|pin| pin.digests.is_empty()) {
        Some(pin) => Err(BadRequirements::NoProof(pin.name.clone())),
        None => Ok(pins),
    }
}

fn pin(word: &str) -> Option<Pin> {
    let (name, version) = word.split_once("==")?;
    let name = name.split('[').next()?; // extras are pinned as packages of their own
    let plain = |text: &str| {
        let fits = |sign: char| sign.is_ascii_alphanumeric() || "-_.+!".contains(sign);
        text.starts_with(|sign: char| sign.is_ascii_alphanumeric()) && text.chars().all(fits)
    };
    (plain(name) && plain(version)).then(|| Pin {
        name: normal(name),
        version: version.to_owned(),
        digests: Vec::new(),
    })
}

/// A name as indexes spell it (PEP 503).
pub(crate) fn normal(name: &str) -> String {
    let parts = name.split(['-', '_', '.']).filter(|part| !part.is_empty());
    let parts: Vec<String> = parts.map(str::to_lowercase).collect();
    parts.join("-")
}

impl Pin {
    /// The best wheel for `tags` on an index's page.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn choose(&self, page: &Page, tags: &Tags) -> Result<Wheel, NoWheel> {
        let files = files(page).ok_or_else(|| NoWheel::NoPage(self.name.clone()))?;
        let known = files.into_iter().filter_map(|file| {
            let digest = file.digest?;
            let known = self.digests.contains(&digest) && file.name.ends_with(".whl");
            known.then_some(Wheel {
                url: joined(&page.url, &file.link)?.to_string(),
                file: file.name,
                digest,
            })
        });
        let known: Vec<Wheel> = known.collect();
        let best = known
            .iter()
            .filter_map(|wheel| Some((tags.rank(&wheel.file)?, wheel)));
        let best = best.max_by_key(|(rank, _)| *rank);
        match best.map(|(_, wheel)| wheel.file.clone()) {
            Some(best) => Ok(known
                .into_iter()
                .find(|wheel| wheel.file == best)
                .expect("the best is one of them")),
            None => Err(NoWheel::NoneFits {
                name: self.name.clone(),
                version: self.version.clone(),
                tags: tags.clone(),
                got: known.into_iter().map(|wheel| wheel.file).collect(),
            }),
        }
    }
}

/// A file of a package, as an index lists it.
struct Listed {
    name: String,
    link: String,
    digest: Option<Digest>,
}

fn files(page: &Page) -> Option<Vec<Listed>> {
    if page.kind.contains("json") {
        return of_json(&page.text);
    }
    Some(page.text.split("<a ").skip(1).filter_map(of_link).collect())
}

/// <https://peps.python.org/pep-0691/>
fn of_json(text: &str) -> Option<Vec<Listed>> {
    #[derive(Deserialize)]
    struct Project {
        files: Vec<File>,
    }
    #[derive(Deserialize)]
    struct File {
        filename: String,
        url: String,
        #[serde(default)]
        hashes: Hashes,
    }
    #[derive(Default, Deserialize)]
    struct Hashes {
        sha256: Option<String>,
    }
    let project: Project = serde_json::from_str(text).ok()?;
    let files = project.files.into_iter().map(|file| Listed {
        name: file.filename,
        link: file.url,
        digest: file
            .hashes
            .sha256
            .and_then(|hex| Digest::of_hash(&format!("sha256:{hex}"))),
    });
    Some(files.collect())
}

/// <https://peps.python.org/pep-0503/>: what follows `<a `, up to the next one.
fn of_link(text: &str) -> Option<Listed> {
    let (_, rest) = text.split_once("href=")?;
    let quote = rest.chars().next().filter(|sign| "\"'".contains(*sign))?;
    let link = rest[1..].split(quote).next()?.replace("&amp;", "&");
    let (path, fragment) = link.split_once('#').unwrap_or((&link, ""));
    let name = path.split('?').next()?.rsplit('/').next()?;
    let name = percent_decode_str(name).decode_utf8().ok()?.into_owned();
    let hex = fragment
        .split('&')
        .find_map(|part| part.strip_prefix("sha256="));
    Some(Listed {
        name,
        link: link.clone(),
        digest: hex.and_then(|hex| Digest::of_hash(&format!("sha256:{hex}"))),
    })
}

impl Tags {
    /// How well a wheel fits; `None` if it does not.
    ///
    /// As pip: what is compiled for this very Python before what is for its stable interface before what is not compiled;
    /// among those the newest platform. <https://packaging.python.org/en/latest/specifications/platform-compatibility-tags/>
    fn rank(&self, file: &str) -> Option<(u32, u32)> {
        let mut parts = file.strip_suffix(".whl")?.rsplit('-');
        let (platforms, abis, pythons) = (parts.next()?, parts.next()?, parts.next()?);
        let platform = platforms
            .split('.')
            .filter_map(|platform| self.platform(platform))
            .max()?;
        let python = pythons
            .split('.')
            .flat_map(|python| abis.split('.').map(move |abi| (python, abi)))
            .filter_map(|(python, abi)| self.python(python, abi))
            .max()?;
        Some((python, platform))
    }

    fn python(&self, python: &str, abi: &str) -> Option<u32> {
        let own = format!("cp3{}", self.minor);
        let older = |prefix: &str| {
            let minor: u32 = python.strip_prefix(prefix)?.parse().ok()?;
            (minor <= self.minor).then_some(minor)
        };
        match abi {
            _ if abi == own && python == own => Some(300),
            "abi3" => older("cp3").map(|minor| 200 + minor),
            "none" if python == own => Some(150),
            "none" if python == "py3" => Some(1),
            "none" => older("py3").map(|minor| 100 + minor),
            _ => None,
        }
    }

    fn platform(&self, platform: &str) -> Option<u32> {
        if platform == "any" {
            return Some(0);
        }
        let platform = platform.strip_suffix(&format!("_{}", self.arch))?;
        if platform == "linux" {
            return Some(1);
        }
        let Some(own) = self.glibc else {
            return platform.starts_with("musllinux_1_").then_some(2);
        };
        let wants: u32 = match platform {
            "manylinux1" => 5,
            "manylinux2010" => 12,
            "manylinux2014" => 17,
            other => other.strip_prefix("manylinux_2_")?.parse().ok()?,
        };
        (wants <= own).then_some(2 + wants)
    }
}

impl fmt::Display for Tags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let libc = self
            .glibc
            .map_or_else(|| "musl".to_owned(), |minor| format!("glibc 2.{minor}"));
        write!(f, "Python 3.{} on Linux {} ({libc})", self.minor, self.arch)
    }
}

/// The page of a package.
pub(crate) fn page(index: &str, name: &str) -> String {
    format!("{index}/{name}/")
}

#[cfg(test)]
#[path = "pypi_tests.rs"]
mod tests;
