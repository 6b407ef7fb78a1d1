//! Personas: JSON files in, checked values out.
//!
//! A persona file says what the model demands, says and calls; see `personas/kimi-k2.6.json`. A [`Persona`] is a file that
//! passed every check, so the mind need not doubt it. A rule is on when its text is present: `refusals.empty_content`
//! absent means that an empty content is taken.
//!
//! Facts behind the fields: `reasoning` and `refusals.reasoning_*` kimi-reasoning-content-required; `calls.id`
//! kimi-native-tool-id; `script.opening` and `calls.split` kimi-combined-exec-split; `refusals.empty_content`
//! kimi-empty-text-content; `refusals.tool_name_missing` kimi-tool-message-name; `refusals.temperature`
//! kimi-fixed-sampling. Each file lists its own under `sources`.

use std::fmt;

use serde::Deserialize;
use serde_json::Number;

use crate::template::Template;

/// Every embedded persona: file stem and text, sorted by stem.
const EMBEDDED: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/personas.rs"));

/// More than any harness plays; keeps a request's cost bounded.
pub(crate) const MOST_ROUNDS: u32 = 1_000;
/// More than any model calls at once.
pub(crate) const MOST_CALLS_PER_ROUND: u32 = 64;

/// One model's demands and script.
#[derive(Clone, Debug)]
pub struct Persona {
    pub(crate) sheet: Sheet,
}

/// The persona file as written. Only [`Persona::parse`] makes a usable one.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sheet {
    pub(crate) name: String,
    pub(crate) description: String,
    /// Fact ids, issues and documents that the rules come from.
    pub(crate) sources: Vec<String>,
    /// What `GET /v1/models` lists.
    pub(crate) models: Vec<String>,
    pub(crate) owned_by: String,
    pub(crate) reasoning: Reasoning,
    pub(crate) calls: Calls,
    pub(crate) script: Script,
    pub(crate) answers: Answers,
    pub(crate) refusals: Refusals,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reasoning {
    /// The field of answers and deltas.
    pub(crate) emitted_as: String,
    /// The fields in which a replayed message may carry it; the first one present counts.
    pub(crate) demanded_as: Vec<String>,
    /// Slots: `conversation`, `turn`, `round`; all three needed, else the text is not unique.
    pub(crate) text: Template,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Calls {
    /// Slots: `tool`, and one of `n` (running count of calls in the conversation) and `call` (count in the round, so
    /// that ids come again, as some servers have it).
    pub(crate) id: Template,
    /// Ids that begin so are taken for the next open call, whatever follows.
    pub(crate) tolerated_id_prefixes: Vec<String>,
    /// How a combined call may come back in pieces.
    pub(crate) split: Split,
    /// Tool names, most wanted first.
    pub(crate) prefer: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Split {
    pub(crate) separator: char,
    /// Slots: `id` (the native one), `n` (1-based position), `command`.
    pub(crate) id: Template,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Script {
    /// Tool rounds in a turn before the final text.
    pub(crate) rounds: u32,
    pub(crate) calls_per_round: u32,
    /// The command of round 0.
    pub(crate) opening: String,
    /// The command of later rounds. Slot: `round`.
    pub(crate) then: Template,
    /// The commands of further calls in a round. Slots: `round`, `call`.
    pub(crate) beside: Template,
    /// Text said beside tool calls; may be empty.
    pub(crate) preamble: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Answers {
    /// What an assistant text contains when it ended a turn.
    pub(crate) marker: String,
    /// Begins with the marker. Slot: `turn`.
    pub(crate) r#final: Template,
    /// Slot: `id`.
    pub(crate) lost: Template,
}

/// What the model refuses with 400, by its text. Slot: `index` (in `messages`).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Refusals {
    pub(crate) reasoning_missing: Option<Template>,
    pub(crate) reasoning_differs: Option<Template>,
    pub(crate) empty_tool_calls: Option<Template>,
    pub(crate) empty_content: Option<Template>,
    pub(crate) tool_name_missing: Option<Template>,
    pub(crate) temperature: Option<Temperature>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Temperature {
    pub(crate) thinking: Number,
    pub(crate) without_thinking: Number,
    /// Slot: `allowed`.
    pub(crate) text: Template,
}

/// A persona file that cannot be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum BadPersona {
    /// Not JSON, or not the fields of a persona.
    Json(serde_json::Error),
    /// A template names a slot that has no value there.
    Slot {
        /// Where, as a JSON pointer.
        field: &'static str,
        /// The unknown slot.
        slot: String,
    },
    /// A value that contradicts what the field is for.
    Value {
        /// Where, as a JSON pointer.
        field: &'static str,
        /// What it should have been.
        expected: &'static str,
    },
}

/// A name that no embedded persona has.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UnknownPersona {
    /// What was asked for.
    pub name: String,
    /// The closest name there is, if one is close.
    pub nearest: Option<&'static str>,
    /// Every name there is.
    pub known: Vec<&'static str>,
}

impl Persona {
    /// The embedded persona of that name.
    ///
    /// # Errors
    /// The caller's mistake: no embedded persona has that name; the error lists those that exist.
    pub fn named(name: &str) -> Result<Self, UnknownPersona> {
        let text = EMBEDDED
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, text)| text)
            .ok_or_else(|| UnknownPersona::new(name))?;
        Ok(Self::parse(text).expect("every embedded persona is parsed by a test"))
    }

    /// Names of the embedded personas, sorted.
    #[must_use]
    pub fn names() -> Vec<&'static str> {
        EMBEDDED.iter().map(|(name, _)| *name).collect()
    }

    /// Reads a persona file.
    ///
    /// # Errors
    /// The file's mistake, with its place: syntax, unknown or missing fields, unknown slots, contradictions.
    pub fn parse(json: &str) -> Result<Self, BadPersona> {
        let sheet: Sheet = serde_json::from_str(json).map_err(BadPersona::Json)?;
        sheet.check_slots()?;
        sheet.check_values()?;
        Ok(Self { sheet })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.sheet.name
    }

    /// What it is, in one sentence.
    #[must_use]
    pub fn description(&self) -> &str {
        &self.sheet.description
    }

    /// Where its rules come from: fact ids, issues, documents.
    #[must_use]
    pub fn sources(&self) -> &[String] {
        &self.sheet.sources
    }

    /// The models it lists; the first is its own name for itself.
    #[must_use]
    pub fn models(&self) -> &[String] {
        &self.sheet.models
    }
}

impl Sheet {
    fn check_slots(&self) -> Result<(), BadPersona> {
        let refusals = &self.refusals;
        let temperature = refusals.temperature.as_ref().map(|rule| &rule.text);
        let table: [(&'static str, Option<&Template>, &[&str]); 13] = [
            (
                "/reasoning/text",
                Some(&self.reasoning.text),
                &["conversation", "turn", "round"],
            ),
            ("/calls/id", Some(&self.calls.id), &["tool", "n", "call"]),
            (
                "/calls/split/id",
                Some(&self.calls.split.id),
                &["id", "n", "command"],
            ),
            ("/script/then", Some(&self.script.then), &["round"]),
            (
                "/script/beside",
                Some(&self.script.beside),
                &["round", "call"],
            ),
            ("/answers/final", Some(&self.answers.r#final), &["turn"]),
            ("/answers/lost", Some(&self.answers.lost), &["id"]),
            (
                "/refusals/reasoning_missing",
                refusals.reasoning_missing.as_ref(),
                &["index"],
            ),
            (
                "/refusals/reasoning_differs",
                refusals.reasoning_differs.as_ref(),
                &["index"],
            ),
            (
                "/refusals/empty_tool_calls",
                refusals.empty_tool_calls.as_ref(),
                &["index"],
            ),
            (
                "/refusals/empty_content",
                refusals.empty_content.as_ref(),
                &["index"],
            ),
            (
                "/refusals/tool_name_missing",
                refusals.tool_name_missing.as_ref(),
                &["index"],
            ),
            ("/refusals/temperature/text", temperature, &["allowed"]),
        ];
        for (field, template, known) in table {
            if let Some(slot) = template.and_then(|template| template.unknown_slot(known)) {
                let slot = slot.to_owned();
                return Err(BadPersona::Slot { field, slot });
            }
        }
        Ok(())
    }

    fn check_values(&self) -> Result<(), BadPersona> {
        let thought = &self.reasoning.text;
        let unique = ["conversation", "turn", "round"]
            .iter()
            .all(|slot| thought.has(slot));
        let marker = self.answers.marker.as_str();
        let says_marker = |text: &str| text.contains(marker);
        let table = [
            ("/name", !self.name.is_empty(), "a name"),
            ("/models", !self.models.is_empty(), "at least one model"),
            ("/sources", !self.sources.is_empty(), "at least one source"),
            (
                "/reasoning/demanded_as",
                !self.reasoning.demanded_as.is_empty(),
                "at least one field name",
            ),
            (
                "/reasoning/text",
                unique,
                "the slots conversation, turn and round",
            ),
            (
                "/reasoning/text",
                marker.is_empty() || !says_marker(&thought.render(&[])),
                "a text without the marker of final answers",
            ),
            (
                "/calls/id",
                self.calls.id.has("n") || self.calls.id.has("call"),
                "the slot n, or call",
            ),
            (
                "/script/rounds",
                self.script.rounds <= MOST_ROUNDS,
                "at most 1000",
            ),
            (
                "/script/calls_per_round",
                (1..=MOST_CALLS_PER_ROUND).contains(&self.script.calls_per_round),
                "1 to 64",
            ),
            (
                "/script/beside",
                self.script.beside.has("call"),
                "the slot call",
            ),
            ("/answers/marker", !marker.is_empty(), "a text"),
            (
                "/answers/final",
                self.answers.r#final.render(&[]).starts_with(marker),
                "a text that begins with the marker",
            ),
            (
                "/answers/lost",
                !says_marker(&self.answers.lost.render(&[])),
                "a text without the marker of final answers",
            ),
            (
                "/script/preamble",
                !says_marker(&self.script.preamble),
                "a text without the marker of final answers",
            ),
        ];
        match table.into_iter().find(|(_, holds, _)| !holds) {
            Some((field, _, expected)) => Err(BadPersona::Value { field, expected }),
            None => Ok(()),
        }
    }
}

impl UnknownPersona {
    fn new(name: &str) -> Self {
        let known = Persona::names();
        let nearest = known
            .iter()
            .map(|known| (strsim::jaro_winkler(name, known), *known))
            .filter(|(likeness, _)| *likeness > 0.7)
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, known)| known);
        Self {
            name: name.to_owned(),
            nearest,
            known,
        }
    }
}

impl fmt::Display for UnknownPersona {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "expected a persona ({}), got {:?}",
            self.known.join(", "),
            self.name
        )?;
        match self.nearest {
            Some(nearest) => write!(f, "; the nearest is {nearest}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for UnknownPersona {}

impl fmt::Display for BadPersona {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(_) => write!(f, "expected a persona file"),
            Self::Slot { field, slot } => write!(f, "unknown slot {{{slot}}} at {field}"),
            Self::Value { field, expected } => write!(f, "expected {expected} at {field}"),
        }
    }
}

impl std::error::Error for BadPersona {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Json(error) => Some(error),
            Self::Slot { .. } | Self::Value { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn every_embedded_persona_parses_and_bears_its_file_name() {
        assert!(Persona::names().contains(&"kimi-k2.6"));
        for (name, text) in EMBEDDED {
            let persona = Persona::parse(text).unwrap();
            assert_eq!(persona.name(), *name);
            assert!(!persona.description().is_empty() && !persona.sources().is_empty());
        }
    }

    #[test]
    fn an_unknown_name_lists_the_known_and_the_nearest() {
        let error = Persona::named("kimi-k26").unwrap_err();
        assert_eq!(
            error.to_string(),
            "expected a persona (kimi-k2.6, kimi-k2.6-picky, kimi-k2.6-repeating, kimi-k2.6-vllm), got \"kimi-k26\"; the nearest is kimi-k2.6"
        );
        assert_eq!(Persona::named("zzz").unwrap_err().nearest, None);
    }

    #[test]
    fn a_bad_file_is_refused_with_its_place() {
        let good = EMBEDDED[0].1;
        let cases = [
            ("{tool}:{n}", "{tool}:{m}", "unknown slot {m} at /calls/id"),
            (
                "{tool}:{n}",
                "{tool}",
                "expected the slot n, or call at /calls/id",
            ),
            (
                "\"rounds\": 3",
                "\"rounds\": 1001",
                "expected at most 1000 at /script/rounds",
            ),
            (
                "THOUGHT {conversation}",
                "THOUGHT",
                "expected the slots conversation, turn and round at /reasoning/text",
            ),
            (
                "\"FINAL answer of",
                "\"the answer of",
                "expected a text that begins with the marker at /answers/final",
            ),
        ];
        for (from, to, message) in cases {
            let error = Persona::parse(&good.replacen(from, to, 1)).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let text = EMBEDDED[0].1.replacen("\"owned_by\"", "\"ownedBy\"", 1);
        let error = Persona::parse(&text).unwrap_err();
        let cause = error.source().unwrap().to_string();
        assert!(cause.contains("unknown field `ownedBy`"), "{cause}");
    }
}
