//! How versions of `OpenClaw` differ, as data.
//!
//! A row of `versions.json` holds from its version up to the next row's. Rows are
//! for versions that were measured: `openclaw config schema` of each gives the
//! keys, runs of each the rest. `OpenClaw` refuses its whole configuration over
//! one unknown key, so what a version does not know is left out of ours.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use farrier_compat::registry::Release;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::document::Document;

/// What one version takes, and how it behaves.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Traits {
    /// The first version that has them.
    from: String,
    /// Under which key and in which shape agents are listed.
    pub(crate) agents: AgentsShape,
    /// The value of `gateway.reload.mode` that keeps a session through a change.
    pub(crate) reload: String,
    /// Whether a provider at a private address has to be allowed.
    pub(crate) blocks_private_network: bool,
    /// Where sessions are.
    sessions: SessionStore,
    /// Dotted paths that it does not know, of those that are written for another version, and
    /// that are missed: whoever asked for them is told.
    without: Vec<String>,
    /// Those that are not: the version does by itself what they are for.
    quietly_without: Vec<String>,
    /// Search services that it refuses until their plugin, which does not come with it, is there.
    pub(crate) search_apart: Vec<String>,
    /// The keys of a model's `compat`.
    compat: BTreeMap<String, CompatValue>,
}

/// Under which key and in which shape agents are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AgentsShape {
    /// `agents.entries`, an object by id.
    Entries,
    /// `agents.list`, a list of objects with an `id`.
    List,
}

/// Where sessions are, below the configuration's directory.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SessionStore {
    /// A directory with a file of lines for each.
    Files(String),
    /// A database for all of an agent.
    Sqlite(String),
}

/// What a key of `compat` may be.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum CompatValue {
    /// One of these texts.
    Choice(Vec<String>),
    /// Any value of a JSON type.
    Type(String),
}

/// A version of `OpenClaw` and what is known of it.
#[derive(Debug, Clone)]
pub(crate) struct Version {
    /// As its package says.
    pub(crate) name: String,
    /// By number; of a version that is tried out, the release it is for.
    pub(crate) release: Release,
    pub(crate) traits: &'static Traits,
    /// It is newer than what was measured.
    pub(crate) is_beyond: bool,
}

/// A `compat` as a version takes it, and the keys that were left out of it.
pub(crate) type Fitted = (Vec<(String, Document)>, Vec<String>);

/// Why nothing is known of a version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnknownVersion {
    /// It is older than what was measured.
    #[error("expected OpenClaw {oldest} or newer, got {got}")]
    TooOld {
        /// The oldest that is known.
        oldest: &'static str,
        /// The version.
        got: String,
    },
    /// It is no version.
    #[error("expected a version of OpenClaw such as {example}, got {got:?}")]
    NotOne {
        /// A version.
        example: &'static str,
        /// What was given.
        got: String,
    },
}

#[derive(Deserialize)]
struct Table {
    versions: Vec<Traits>,
}

static TABLE: LazyLock<Vec<Traits>> = LazyLock::new(|| {
    let table: Table = serde_json::from_str(include_str!("versions.json"))
        .expect("the table is part of this program, and a test reads it");
    table.versions
});

impl Traits {
    /// Takes out of a configuration what the version does not know, and gives the paths that
    /// whoever asked for them is told of.
    pub(crate) fn fit(&self, document: &mut Document) -> Vec<String> {
        for path in &self.quietly_without {
            document.take_out(path);
        }
        let missed = self.without.iter().filter(|path| document.take_out(path));
        missed.cloned().collect()
    }

    /// Every dotted path that it refuses to start with, of those that another version writes.
    pub(crate) fn refuses(&self) -> Vec<String> {
        let all = self.without.iter().chain(&self.quietly_without);
        all.cloned().collect()
    }
}

impl Version {
    /// What is known of a version, by the name its package gives it.
    pub(crate) fn named(name: &str) -> Result<Self, UnknownVersion> {
        let example = TABLE.last().map_or("", |newest| newest.from.as_str());
        let release = release(name).ok_or_else(|| UnknownVersion::NotOne {
            example,
            got: name.to_owned(),
        })?;
        let mut newest_first = TABLE.iter().rev();
        let traits = newest_first.find(|row| self::release(&row.from) <= Some(release));
        let traits = traits.ok_or_else(|| UnknownVersion::TooOld {
            oldest: TABLE.first().map_or("", |oldest| oldest.from.as_str()),
            got: name.to_owned(),
        })?;
        Ok(Self {
            name: name.to_owned(),
            release,
            traits,
            is_beyond: Some(release) > self::release(example),
        })
    }

    /// The newest version that was measured.
    pub(crate) fn newest() -> Self {
        let newest = TABLE
            .last()
            .expect("the table has rows, and a test counts them");
        Self {
            name: newest.from.clone(),
            release: release(&newest.from).expect("a test reads every row's"),
            traits: newest,
            is_beyond: false,
        }
    }

    /// Where any version keeps sessions, the newest first.
    pub(crate) fn session_stores() -> Vec<&'static SessionStore> {
        let mut stores: Vec<&SessionStore> = TABLE.iter().rev().map(|row| &row.sessions).collect();
        stores.dedup();
        stores
    }

    /// Of a `compat`, what this version takes, and the keys that only others know.
    ///
    /// # Errors
    /// A key that no version knows, or a value that this one does not take, in one sentence.
    pub(crate) fn fit_compat(&self, compat: &Map<String, Value>) -> Result<Fitted, String> {
        let (mut kept, mut left_out) = (Vec::new(), Vec::new());
        for (key, value) in compat {
            match self.traits.compat.get(key) {
                Some(wanted) if wanted.is_met_by(value) => kept.push((key.clone(), value.into())),
                Some(wanted) => {
                    return Err(format!("expected compat.{key} to be {wanted}, got {value}"));
                }
                None if TABLE.iter().any(|row| row.compat.contains_key(key)) => {
                    left_out.push(format!("compat.{key}"));
                }
                None => {
                    return Err(format!(
                        "expected a compat key that OpenClaw knows, got {key:?}"
                    ));
                }
            }
        }
        Ok((kept, left_out))
    }
}

/// Year, month and patch; what follows a hyphen does not count.
fn release(version: &str) -> Option<Release> {
    Release::parse(version.split(['-', '+']).next()?)
}

impl CompatValue {
    fn is_met_by(&self, value: &Value) -> bool {
        match self {
            Self::Choice(texts) => value
                .as_str()
                .is_some_and(|text| texts.iter().any(|choice| choice == text)),
            Self::Type(name) => match name.as_str() {
                "array" => value.is_array(),
                "boolean" => value.is_boolean(),
                "object" => value.is_object(),
                "string" => value.is_string(),
                _ => false,
            },
        }
    }
}

impl fmt::Display for CompatValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Choice(texts) => f.write_str(&texts.join(" or ")),
            Self::Type(name) => write!(f, "a JSON {name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_in_order_and_known_types() {
        let versions: Vec<_> = TABLE.iter().map(|row| release(&row.from)).collect();
        let known = versions.iter().all(Option::is_some);
        assert!(versions.len() >= 3 && versions.is_sorted() && known);
        for (key, value) in TABLE.iter().flat_map(|row| &row.compat) {
            if let CompatValue::Type(name) = value {
                let known = ["array", "boolean", "object", "string"];
                assert!(known.contains(&name.as_str()), "{key}: {name}");
            }
        }
    }

    #[test]
    fn a_version_has_the_traits_of_the_last_row_before_it() {
        let row = |name: &str| Version::named(name).expect("known").traits.from.clone();
        assert_eq!(row("2026.4.21"), "2026.4.21");
        assert_eq!(row("2026.5.11"), "2026.4.21");
        assert_eq!(row("2026.5.12"), "2026.5.12");
        assert_eq!(row("2026.6.10-beta.2"), "2026.5.12");
        assert_eq!(row("2027.1.0"), "2026.9.6");
    }

    #[test]
    fn a_version_beyond_the_table_says_so() {
        let is_beyond = |name: &str| Version::named(name).expect("known").is_beyond;
        assert!(!is_beyond("2026.9.6"));
        assert!(is_beyond("2026.10.0"));
    }

    #[test]
    fn what_is_too_old_or_no_version_is_refused_with_what_is_expected() {
        let refused = |name: &str| Version::named(name).expect_err("unknown").to_string();
        assert_eq!(
            refused("2026.3.1"),
            "expected OpenClaw 2026.4.21 or newer, got 2026.3.1"
        );
        for name in ["", "latest", "2026.9", "2026.9.6.1", "v2026.9.6"] {
            let expected = format!("expected a version of OpenClaw such as 2026.9.6, got {name:?}");
            assert_eq!(refused(name), expected);
        }
    }

    #[test]
    fn a_compat_key_of_another_version_is_left_out_and_one_of_none_is_refused() {
        let version = Version::named("2026.9.6").expect("known");
        let fit = |compat: Value| {
            let compat = compat.as_object().expect("an object").clone();
            version.fit_compat(&compat)
        };
        let (kept, left_out) = fit(serde_json::json!({
            "requiresMistralToolIds": true,
            "maxTokensField": "max_tokens",
        }))
        .expect("fits");
        assert_eq!(kept, [("maxTokensField".to_owned(), "max_tokens".into())]);
        assert_eq!(left_out, ["compat.requiresMistralToolIds"]);
        assert_eq!(
            fit(serde_json::json!({"maxTokenField": "max_tokens"})),
            Err("expected a compat key that OpenClaw knows, got \"maxTokenField\"".to_owned())
        );
        assert_eq!(
            fit(serde_json::json!({"maxTokensField": "tokens"})),
            Err(
                "expected compat.maxTokensField to be max_completion_tokens or max_tokens, \
                 got \"tokens\""
                    .to_owned()
            )
        );
        assert_eq!(
            fit(serde_json::json!({"supportsStore": "no"})),
            Err("expected compat.supportsStore to be a JSON boolean, got \"no\"".to_owned())
        );
    }
}
