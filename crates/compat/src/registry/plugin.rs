//! Plugins that manifests make `OpenClaw` load.
//!
//! In goes an entry of `effects.openclawPlugins`, out comes where the plugin is and
//! for which releases. A record of the format that came before names the directory
//! it is loaded from (`loadPath`); one without is loaded from wherever it was staged.

use std::fmt;

use serde_json::Value;

use super::errors::Problem;
use super::manifest::Reading;
use super::shipped_plugin;

/// A plugin that `OpenClaw` is made to load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenclawPlugin {
    /// The plugin's id.
    pub id: String,
    /// Its directory, relative to the directory above the registry.
    pub path: String,
    /// Its directory where `OpenClaw` runs, without trailing slashes; `None` if that
    /// is for whoever stages it to say.
    pub load_path: Option<String>,
    /// The releases of `OpenClaw` that need it.
    pub releases: Releases,
}

/// Releases from one up to, and without, another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Releases {
    /// The first; `None` for all there were.
    pub from: Option<Release>,
    /// The first that is none of them any more; `None` for all to come.
    pub before: Option<Release>,
}

/// A release of `OpenClaw`: year, month and patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release([u32; 3]);

/// Where plugins are, below the directory above the registry.
pub(super) const PLUGIN_ROOT: &str = "openclaw-plugins/";

/// Where that directory is for a running `OpenClaw`, in images of the format that came before.
pub(super) const LOAD_ROOT: &str = "/usr/local/share/nemoclaw/";

/// The keys of a plugin.
pub(super) const PLUGIN_KEYS: &[&str] = &["before", "from", "id", "loadPath", "path"];

/// Those it cannot be without.
pub(super) const REQUIRED_KEYS: &[&str] = &["id", "path"];

impl Releases {
    /// Whether a release is one of them.
    pub fn include(&self, release: Release) -> bool {
        self.from.is_none_or(|from| from <= release)
            && self.before.is_none_or(|before| release < before)
    }
}

impl Release {
    /// Reads `2026.9.6`.
    pub fn parse(text: &str) -> Option<Self> {
        let number = |part: &str| {
            let is_plain = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            is_plain.then(|| part.parse().ok()).flatten()
        };
        let mut parts = text.split('.').map(number);
        let release = Self([parts.next()??, parts.next()??, parts.next()??]);
        parts.next().is_none().then_some(release)
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self([year, month, patch]) = self;
        write!(f, "{year}.{month}.{patch}")
    }
}

/// Reads one plugin of a manifest.
pub(super) fn read(at: &str, item: &Value, reading: &mut Reading<'_>) -> Option<OpenclawPlugin> {
    let Some(fields) = item.as_object() else {
        reading
            .problems
            .push(Problem::must_be(at, "an object", Some(item)));
        return None;
    };
    reading.refuse_unknown(format!("{at} keys"), fields, PLUGIN_KEYS.iter().copied());
    let id = reading.text(&format!("{at}.id"), fields.get("id"));
    let path = reading.text(&format!("{at}.path"), fields.get("path"));
    let releases = Releases {
        from: release(&format!("{at}.from"), fields.get("from"), reading),
        before: release(&format!("{at}.before"), fields.get("before"), reading),
    };
    let (id, path) = (id?, path?);
    if !is_plugin_path(&path) {
        let wanted = format!("relative to nemoclaw-blueprint, below {PLUGIN_ROOT}");
        reading.problems.push(Problem::must_be(
            format!("{at}.path"),
            wanted,
            fields.get("path"),
        ));
        return None;
    }
    let is_there = shipped_plugin(&path).next().is_some() || (reading.exists)(&path);
    if !is_there {
        reading.problems.push(Problem::NotThere {
            at: format!("{at}.path"),
            path: path.clone(),
        });
    }
    let load_path = fields
        .get("loadPath")
        .map(|given| load_path(at, given, &path, reading));
    Some(OpenclawPlugin {
        id,
        path,
        load_path,
        releases,
    })
}

fn release(at: &str, value: Option<&Value>, reading: &mut Reading<'_>) -> Option<Release> {
    let value = value?;
    let release = value.as_str().and_then(Release::parse);
    if release.is_none() {
        let wanted = "a release such as 2026.9.6";
        reading
            .problems
            .push(Problem::must_be(at, wanted, Some(value)));
    }
    release
}

/// The only one there can be for the path.
fn load_path(at: &str, given: &Value, path: &str, reading: &mut Reading<'_>) -> String {
    let expected = format!("{LOAD_ROOT}{}", path.trim_end_matches('/'));
    if given.as_str().map(|text| text.trim_end_matches('/')) != Some(&expected) {
        reading.problems.push(Problem::must_be(
            format!("{at}.loadPath"),
            format!("'{expected}'"),
            Some(given),
        ));
    }
    expected
}

/// Below [`PLUGIN_ROOT`], without a step up; `\` separates too, wherever it is read.
fn is_plugin_path(path: &str) -> bool {
    path.strip_prefix(PLUGIN_ROOT)
        .is_some_and(|rest| !rest.trim_matches('/').is_empty())
        && path.split(['/', '\\']).all(|segment| segment != "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(text: &str) -> Release {
        Release::parse(text).expect("a release")
    }

    #[test]
    fn releases_are_ordered_by_number_and_not_by_letter() {
        assert!(release("2026.9.6") < release("2026.10.0"));
        assert!(release("2026.12.31") < release("2027.1.0"));
        assert_eq!(release("2026.5.12").to_string(), "2026.5.12");
    }

    #[test]
    fn what_is_no_release_is_not_read_as_one() {
        for text in [
            "",
            "2026.9",
            "2026.9.6.1",
            "v2026.9.6",
            "2026.9.6-beta",
            "2026.+9.6",
            "2026..6",
        ] {
            assert_eq!(Release::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_range_has_its_first_and_not_its_end() {
        let range = Releases {
            from: Some(release("2026.5.12")),
            before: Some(release("2026.5.17")),
        };
        for (text, is_in) in [
            ("2026.5.11", false),
            ("2026.5.12", true),
            ("2026.5.16", true),
            ("2026.5.17", false),
        ] {
            assert_eq!(range.include(release(text)), is_in, "{text}");
        }
        assert!(Releases::default().include(release("2026.5.17")));
    }
}
