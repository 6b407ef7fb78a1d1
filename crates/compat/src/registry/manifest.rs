//! One manifest: text in, a [`Manifest`] out, or everything that is wrong with it.
//!
//! What is parsed is complete: passes are built, predicates are in the form they
//! are compared in, paths are checked. Nothing later can fail for a manifest by
//! itself. The JSON Schema describes the same tables (see [`super::schema`]).

use std::sync::Arc;

use serde_json::{Map, Value};

use super::document;
use super::effects::{self, Effects};
use super::errors::Problem;
use super::matching::{CLIENT, Key, Predicate, Specificity, Test, UPSTREAM};
use crate::facts::Facts;
use crate::passes::Kind;

/// The text of a manifest and where it is from. The path orders manifests and is
/// named in messages; it is not opened.
#[derive(Debug, Clone)]
pub struct Source {
    /// Where the text is from.
    pub path: String,
    /// The text.
    pub text: String,
}

/// A record of when an intervention applies and what follows.
#[derive(Debug)]
pub struct Manifest {
    /// Unique in the registry.
    pub id: Arc<str>,
    /// Where it is from.
    pub path: String,
    /// For whom.
    pub audience: &'static Audience,
    /// Which model, what it does, and why the harness cannot take it.
    pub description: String,
    /// What must hold, all of it.
    pub predicates: Vec<Predicate>,
    /// What follows.
    pub effects: Effects,
    /// Why it is there and when it may go.
    pub evidence: Evidence,
    /// How narrowly it is meant.
    pub specificity: Specificity,
}

/// Why a manifest is there. Shipped manifests have all of it; others need none.
#[derive(Debug, Default)]
pub struct Evidence {
    /// The day of the first report.
    pub first_seen: Option<String>,
    /// Reports and documents.
    pub sources: Vec<String>,
    /// What must have changed for the manifest to go.
    pub remove_when: Option<String>,
}

/// Whom a manifest is for: the values of `agent`.
#[derive(Debug, PartialEq, Eq)]
pub struct Audience {
    /// The value of `agent`.
    pub name: &'static str,
    /// The one harness, or every client.
    pub one_harness: bool,
}

/// Every audience there is. A harness is added here, and in the table of effects
/// if it has any of its own.
pub static AUDIENCES: &[Audience] = &[
    Audience {
        name: "any",
        one_harness: false,
    },
    Audience {
        name: "hermes",
        one_harness: true,
    },
    Audience {
        name: "openclaw",
        one_harness: true,
    },
];

/// The keys of a manifest; `$schema` is a hint for editors.
pub(super) const KEYS: &[&str] = &[
    "$schema",
    "agent",
    "description",
    "effects",
    "evidence",
    "id",
    "match",
];

/// The keys of `evidence`.
pub(super) const EVIDENCE_KEYS: &[&str] = &["firstSeen", "removeWhen", "sources"];

/// What a manifest is read with, and what has been found wrong so far.
pub(super) struct Reading<'a> {
    pub(super) passes: &'static [Kind],
    pub(super) exists: &'a dyn Fn(&str) -> bool,
    pub(super) id: Arc<str>,
    pub(super) problems: Vec<Problem>,
}

impl Manifest {
    /// Reads one manifest.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub(super) fn parse(
        source: &Source,
        passes: &'static [Kind],
        exists: &dyn Fn(&str) -> bool,
    ) -> Result<Self, Vec<Problem>> {
        let value = document::parse(&source.text).map_err(|problem| vec![problem])?;
        let Some(fields) = value.as_object() else {
            let wanted = "a JSON object";
            return Err(vec![Problem::must_be("manifest", wanted, Some(&value))]);
        };
        let mut reading = Reading {
            passes,
            exists,
            id: fields
                .get("id")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .into(),
            problems: Vec::new(),
        };
        reading.refuse_unknown("manifest keys", fields, KEYS.iter().copied());
        reading.id(fields.get("id"));
        let audience = reading.audience(fields.get("agent"));
        let description = reading.text("field 'description'", fields.get("description"));
        let predicates = reading.predicates(fields.get("match"));
        let effects = effects::read(fields.get("effects"), audience, &mut reading);
        let evidence = reading.evidence(fields.get("evidence"));
        match (audience, reading.problems.is_empty()) {
            (Some(audience), true) => Ok(Self {
                id: reading.id,
                path: source.path.clone(),
                audience,
                description: description.unwrap_or_default(),
                specificity: Specificity::of(&predicates, audience.one_harness),
                predicates,
                effects,
                evidence,
            }),
            _ => Err(reading.problems),
        }
    }

    /// Whether it applies.
    pub fn applies(&self, facts: &Facts) -> bool {
        self.audience.includes(facts.agent.as_deref())
            && self
                .predicates
                .iter()
                .all(|predicate| predicate.holds(facts))
    }
}

impl Audience {
    /// Whether `agent` is part of it.
    pub fn includes(&self, agent: Option<&str>) -> bool {
        !self.one_harness || agent == Some(self.name)
    }

    /// Whether someone is part of both.
    pub(super) fn meets(&self, other: &Self) -> bool {
        !self.one_harness || !other.one_harness || self == other
    }
}

impl Reading<'_> {
    fn id(&mut self, value: Option<&Value>) {
        let Some(id) = self.text("field 'id'", value) else {
            return;
        };
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let fits =
            id.starts_with(plain) && id.chars().all(|c| plain(c) || matches!(c, '.' | '_' | '-'));
        if !fits {
            let wanted = "a non-empty string of a-z, 0-9, '.', '_' and '-' that begins with a letter or digit";
            self.problems
                .push(Problem::must_be("field 'id'", wanted, value));
        }
    }

    fn audience(&mut self, value: Option<&Value>) -> Option<&'static Audience> {
        let names = || AUDIENCES.iter().map(|audience| audience.name);
        let Some(name) = value
            .and_then(Value::as_str)
            .filter(|name| !name.trim().is_empty())
        else {
            self.problems.push(Problem::Required {
                field: "agent",
                wanted: format!("one of {}", names().collect::<Vec<_>>().join(", ")),
            });
            return None;
        };
        let found = AUDIENCES.iter().find(|audience| audience.name == name);
        if found.is_none() {
            self.problems
                .push(Problem::unknown_name("", "agent", name, names()));
        }
        found
    }

    fn predicates(&mut self, value: Option<&Value>) -> Vec<Predicate> {
        let Some(fields) = value.and_then(Value::as_object) else {
            self.problems
                .push(Problem::must_be("field 'match'", "an object", value));
            return Vec::new();
        };
        if fields.is_empty() {
            self.problems.push(Problem::must_be(
                "field 'match'",
                "a non-empty object",
                None,
            ));
        }
        let known = CLIENT.iter().map(|key| key.name).chain(["upstream"]);
        self.refuse_unknown("match keys", fields, known);
        let mut predicates = self.side(fields, CLIENT);
        if let Some(value) = fields.get("upstream") {
            match value.as_object().filter(|fields| !fields.is_empty()) {
                Some(fields) => {
                    let known = UPSTREAM.iter().map(|key| key.name);
                    self.refuse_unknown("match.upstream keys", fields, known);
                    predicates.extend(self.side(fields, UPSTREAM));
                }
                None => self.problems.push(Problem::must_be(
                    "match.upstream",
                    "a non-empty object",
                    Some(value),
                )),
            }
        }
        predicates
    }

    fn side(&mut self, fields: &Map<String, Value>, keys: &'static [Key]) -> Vec<Predicate> {
        let given: Vec<&Key> = keys
            .iter()
            .filter(|key| fields.contains_key(key.name))
            .collect();
        for (index, one) in given.iter().enumerate() {
            for other in given
                .iter()
                .skip(index + 1)
                .filter(|other| other.subject == one.subject)
            {
                self.problems.push(Problem::Exclusive {
                    one: one.at.into(),
                    other: other.at.into(),
                });
            }
        }
        keys.iter()
            .filter_map(|key| {
                let wanted = self.wanted(key, fields.get(key.name)?)?;
                Some(Predicate::new(key, wanted))
            })
            .collect()
    }

    fn wanted(&mut self, key: &Key, value: &Value) -> Option<Vec<String>> {
        match key.test {
            Test::Text | Test::Url => self.text(key.at, Some(value)).map(|text| vec![text]),
            Test::Ids => self.texts(key.at, value),
            Test::Prefixes(_) => {
                let names = self.texts(key.at, value)?;
                let wanted = "bare model ids without namespaces";
                self.each(key.at, wanted, names, |name| !name.contains('/'))
            }
            Test::Hosts => {
                let names = self.texts(key.at, value)?;
                let wanted = "host names, or a dot and a domain";
                self.each(key.at, wanted, names, is_host_name)
            }
        }
    }

    fn each(
        &mut self,
        at: &str,
        wanted: &str,
        names: Vec<String>,
        fits: impl Fn(&str) -> bool,
    ) -> Option<Vec<String>> {
        if let Some(odd) = names.iter().find(|name| !fits(name)) {
            self.problems.push(Problem::MustContain {
                at: at.into(),
                wanted: wanted.into(),
                got: odd.clone(),
            });
            return None;
        }
        Some(names)
    }

    fn evidence(&mut self, value: Option<&Value>) -> Evidence {
        let Some(value) = value else {
            return Evidence::default();
        };
        let Some(fields) = value.as_object() else {
            self.problems.push(Problem::must_be(
                "field 'evidence'",
                "an object",
                Some(value),
            ));
            return Evidence::default();
        };
        self.refuse_unknown("evidence keys", fields, EVIDENCE_KEYS.iter().copied());
        let first_seen = fields.get("firstSeen");
        if first_seen.is_some_and(|day| !day.as_str().is_some_and(is_day)) {
            let wanted = "a day, as in 2026-01-31";
            self.problems
                .push(Problem::must_be("evidence.firstSeen", wanted, first_seen));
        }
        Evidence {
            first_seen: first_seen.and_then(Value::as_str).map(str::to_owned),
            sources: fields
                .get("sources")
                .and_then(|sources| self.texts("evidence.sources", sources))
                .unwrap_or_default(),
            remove_when: fields
                .get("removeWhen")
                .and_then(|when| self.text("evidence.removeWhen", Some(when))),
        }
    }

    /// A string that is not blank.
    pub(super) fn text(&mut self, at: &str, value: Option<&Value>) -> Option<String> {
        let text = value
            .and_then(Value::as_str)
            .filter(|text| !text.trim().is_empty());
        if text.is_none() {
            self.problems
                .push(Problem::must_be(at, "a non-empty string", value));
        }
        text.map(str::to_owned)
    }

    /// Strings that are not blank, at least one.
    fn texts(&mut self, at: &str, value: &Value) -> Option<Vec<String>> {
        let texts: Option<Vec<String>> = value.as_array().and_then(|items| {
            items
                .iter()
                .map(|item| {
                    item.as_str()
                        .filter(|text| !text.trim().is_empty())
                        .map(str::to_owned)
                })
                .collect()
        });
        let Some(texts) = texts.filter(|texts| !texts.is_empty()) else {
            self.problems.push(Problem::must_be(
                at,
                "a non-empty string array",
                Some(value),
            ));
            return None;
        };
        let repeated =
            |(index, text): &(usize, &String)| texts.iter().take(*index).any(|t| t == *text);
        if let Some((_, twice)) = texts.iter().enumerate().find(repeated) {
            self.problems.push(Problem::MustContain {
                at: at.into(),
                wanted: "each value once".into(),
                got: twice.clone(),
            });
            return None;
        }
        Some(texts)
    }

    pub(super) fn refuse_unknown<'k>(
        &mut self,
        what: impl Into<String>,
        fields: &Map<String, Value>,
        known: impl Iterator<Item = &'k str> + Clone,
    ) {
        let keys: Vec<String> = fields
            .keys()
            .filter(|key| !known.clone().any(|name| name == *key))
            .cloned()
            .collect();
        if !keys.is_empty() {
            self.problems.push(Problem::unknown_keys(what, keys, known));
        }
    }
}

/// Letters, digits, dots and hyphens, no label empty; `.example.com` is a domain.
fn is_host_name(name: &str) -> bool {
    name.strip_prefix('.')
        .unwrap_or(name)
        .split('.')
        .all(|label| {
            !label.is_empty() && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        })
}

/// `YYYY-MM-DD`, with a month and a day that can be.
fn is_day(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let [year, month, day] = parts.as_slice() else {
        return false;
    };
    let number = |digits: &str, len: usize| {
        (digits.len() == len && digits.bytes().all(|b| b.is_ascii_digit()))
            .then(|| digits.parse::<u16>().ok())
            .flatten()
    };
    number(year, 4).is_some()
        && number(month, 2).is_some_and(|month| (1..=12).contains(&month))
        && number(day, 2).is_some_and(|day| (1..=31).contains(&day))
}
