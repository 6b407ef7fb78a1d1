//! `case.toml`: what is played for an intervention, and what must come of it.
//!
//! ```toml
//! description = "…"
//! modes = ["hermetic", "live"]
//! prompts = ["Report hostname, date and uptime."]
//! persona = { name = "kimi-k2.6" }
//! harness = { name = "openclaw", version = "2026.5.12" }
//! route = { model = "moonshotai/kimi-k2.6" }
//!
//! [expect]
//! tool = "exec"
//! rounds = [["hostname; date; uptime"], ["echo round-1"]]
//! final_text = "FINAL answer of turn {turn}"
//!
//! [without]
//! fails = "refused"
//! saying = "reasoning_content is missing"
//! ```
//!
//! A case belongs to the manifest its folder is named for. The shipped ones are part of the binary.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use farrier_sim::{Behaviour, Options, Persona};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Every embedded case: name and text, by name.
const EMBEDDED: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/cases.rs"));

/// The client that is part of this program.
pub(crate) const SCRIPTED: &str = "scripted";

/// A case, read and found sound.
#[derive(Debug)]
pub(crate) struct Case {
    /// `<manifest id>`, or `<manifest id>/<case>` where there are several.
    pub(crate) name: String,
    pub(crate) sheet: Sheet,
}

/// The file as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sheet {
    /// What is shown, in a sentence.
    pub(crate) description: String,
    pub(crate) modes: Vec<Mode>,
    /// What the user says, turn by turn, in one session.
    pub(crate) prompts: Vec<String>,
    pub(crate) persona: Cast,
    pub(crate) harness: Harness,
    pub(crate) route: Route,
    /// Other manifests to do without: what they do would hide what this one does.
    #[serde(default)]
    pub(crate) also_off: Vec<String>,
    pub(crate) expect: Expect,
    /// What goes wrong where the manifest is switched off.
    pub(crate) without: Option<Wrong>,
    /// What goes wrong where the harness talks to the model itself.
    pub(crate) straight: Option<Wrong>,
    pub(crate) live: Option<Live>,
}

/// Against what a case may be played.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Mode {
    Hermetic,
    Live,
}

/// The model that is played.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cast {
    pub(crate) name: String,
    pub(crate) calls_per_round: Option<u32>,
    #[serde(default)]
    pub(crate) behaviour: Behaviour,
}

/// Who works.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Harness {
    pub(crate) name: String,
    /// None for the scripted client.
    pub(crate) version: Option<String>,
    /// As on the command line of `farrier config`.
    #[serde(default)]
    pub(crate) settings: BTreeMap<String, String>,
    /// With the plugins of manifests, staged as `farrier stage` does.
    #[serde(default)]
    pub(crate) plugins: bool,
    /// What its user has in the configuration already.
    #[serde(default)]
    pub(crate) own: Value,
    /// What the scripted client puts into every request.
    #[serde(default)]
    pub(crate) parameters: serde_json::Map<String, Value>,
}

/// How the harness reaches the model.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Route {
    /// What the harness calls the model.
    pub(crate) model: String,
    /// Over the address that sandboxes have, instead of loopback.
    #[serde(default)]
    pub(crate) managed: bool,
    /// What the provider calls the model; the persona's first name for itself if absent.
    pub(crate) upstream_model: Option<String>,
    /// The provider's host name, where manifests match on it.
    pub(crate) upstream_host: Option<String>,
}

/// What must come of each turn where the manifest applies.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expect {
    pub(crate) tool: String,
    /// The commands of each of the model's messages.
    pub(crate) rounds: Vec<Vec<String>>,
    /// The beginning of the last text; `{turn}` counts from 1.
    pub(crate) final_text: String,
}

/// A way to fail, and words that tell it from others.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wrong {
    pub(crate) fails: Kind,
    #[serde(default)]
    pub(crate) saying: String,
}

/// The provider of a live run.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Live {
    pub(crate) base_url: String,
    pub(crate) model: String,
}

/// What a turn can fail on.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// The harness recorded other calls than it should have.
    Commands,
    /// The harness did not end well.
    Ending,
    /// The last text is another.
    FinalText,
    /// The model's key is where it does not belong.
    Leaked,
    /// The model no longer understands its own history.
    LostThread,
    /// The provider refused a request.
    Refused,
    /// Results do not belong to the calls.
    Results,
    /// Neither the harness nor its requests gave a sign of life.
    Silent,
    /// The model was asked without its key.
    Unauthorized,
}

/// What is wrong with a case.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadCase {
    #[error("cannot read {}", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{name}: expected a case")]
    Toml {
        name: String,
        #[source]
        source: toml::de::Error,
    },
    #[error("{name}: expected {expected} at {field}")]
    Value {
        name: String,
        field: &'static str,
        expected: String,
    },
}

/// The cases that are part of this program.
///
/// # Errors
/// None in a program whose tests have passed.
pub(crate) fn shipped() -> Result<Vec<Case>, BadCase> {
    let parse = |(name, text): &(&str, &str)| Case::parse(name, text);
    EMBEDDED.iter().map(parse).collect()
}

/// The cases of a directory that is laid out like `e2e/interventions`.
///
/// # Errors
/// A file that cannot be read, or is no case.
pub(crate) fn below(directory: &Path) -> Result<Vec<Case>, BadCase> {
    let mut cases = Vec::new();
    for folder in entries(directory)? {
        if !folder.is_dir() {
            continue;
        }
        let id = file_name(&folder);
        for path in entries(&folder)? {
            if path.extension().is_none_or(|extension| extension != "toml") {
                continue;
            }
            let text = std::fs::read_to_string(&path).map_err(|source| BadCase::Io {
                path: path.clone(),
                source,
            })?;
            let stem = path.with_extension("");
            cases.push(Case::parse(&name(&id, &file_name(&stem)), &text)?);
        }
    }
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(cases)
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, BadCase> {
    let failed = |source| BadCase::Io {
        path: directory.to_owned(),
        source,
    };
    let listed = std::fs::read_dir(directory).map_err(failed)?;
    let paths: Result<Vec<_>, _> = listed.map(|entry| Ok(entry?.path())).collect();
    paths.map_err(failed)
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// `case.toml` is the case; any other file is another one.
fn name(manifest: &str, stem: &str) -> String {
    match stem {
        "case" => manifest.to_owned(),
        other => format!("{manifest}/{other}"),
    }
}

impl Case {
    fn parse(name: &str, text: &str) -> Result<Self, BadCase> {
        let sheet = toml::from_str(text).map_err(|source| BadCase::Toml {
            name: name.to_owned(),
            source,
        })?;
        let case = Self {
            name: name.to_owned(),
            sheet,
        };
        match case.mistake() {
            Some((field, expected)) => Err(BadCase::Value {
                name: case.name,
                field,
                expected,
            }),
            None => Ok(case),
        }
    }

    /// The manifest it is about.
    pub(crate) fn manifest(&self) -> &str {
        self.name
            .split_once('/')
            .map_or(&*self.name, |(manifest, _)| manifest)
    }

    /// Whether this is its name, or its manifest's. The one in `case.toml` has its manifest's name, which means all of
    /// them; with `/case` behind it, it alone is meant.
    pub(crate) fn is_called(&self, name: &str) -> bool {
        let alone = name.strip_suffix("/case");
        alone == Some(&self.name) || self.name == name || self.manifest() == name
    }

    pub(crate) fn plays(&self, mode: Mode) -> bool {
        self.sheet.modes.contains(&mode)
    }

    /// What works, and which version of it.
    pub(crate) fn worker(&self) -> String {
        let Harness { name, version, .. } = &self.sheet.harness;
        match version {
            Some(version) => format!("{name} {version}"),
            None => name.clone(),
        }
    }

    pub(crate) fn persona(&self) -> Result<Persona, farrier_sim::UnknownPersona> {
        Persona::named(&self.sheet.persona.name)
    }

    /// How the persona plays.
    pub(crate) fn options(&self) -> Options {
        Options {
            calls_per_round: self.sheet.persona.calls_per_round,
            behaviour: self.sheet.persona.behaviour.clone(),
            ..Options::default()
        }
    }

    fn mistake(&self) -> Option<(&'static str, String)> {
        let sheet = &self.sheet;
        let harness = &sheet.harness;
        let is_scripted = harness.name == SCRIPTED;
        let persona = self.persona().err().map(|unknown| unknown.to_string());
        let table = [
            (
                "description",
                sheet.description.trim().is_empty(),
                "a sentence",
            ),
            ("modes", sheet.modes.is_empty(), "hermetic or live"),
            ("prompts", sheet.prompts.is_empty(), "at least one"),
            (
                "prompts",
                is_scripted && sheet.prompts.len() > 1,
                "one, as the scripted client takes one turn",
            ),
            (
                "harness.name",
                !is_scripted && farrier_harness::named(&harness.name).is_none(),
                "scripted, openclaw or hermes",
            ),
            (
                "harness.version",
                is_scripted == harness.version.is_some(),
                "a version for a harness, none for the scripted client",
            ),
            (
                "live",
                self.plays(Mode::Live) != sheet.live.is_some(),
                "base_url and model where the modes say live, and only there",
            ),
            (
                "without",
                sheet.without.is_none() && !self.name.contains('/'),
                "how it fails without its manifest",
            ),
            (
                "expect.rounds",
                sheet.expect.rounds.is_empty(),
                "at least one",
            ),
        ];
        let wrong = table.into_iter().find(|(_, is_wrong, _)| *is_wrong);
        wrong
            .map(|(field, _, expected)| (field, expected.to_owned()))
            .or_else(|| persona.map(|known| ("persona.name", known)))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Commands => "other calls",
            Self::Ending => "a bad ending",
            Self::FinalText => "another last text",
            Self::Leaked => "a key was shown",
            Self::LostThread => "the thread is lost",
            Self::Refused => "refused",
            Self::Results => "results that belong to no call",
            Self::Silent => "silence",
            Self::Unauthorized => "asked without the key",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: &str = include_str!("../../../../e2e/interventions/kimi-fixed-sampling/case.toml");

    fn mistake(from: &str, to: &str) -> String {
        let text = SOUND.replacen(from, to, 1);
        assert_ne!(text, SOUND, "{from:?} is not in the case");
        let bad = Case::parse("x", &text).expect_err("a mistake");
        let cause = std::error::Error::source(&bad).map(ToString::to_string);
        format!("{bad} {}", cause.unwrap_or_default())
    }

    #[test]
    fn every_shipped_case_is_sound_and_belongs_to_a_shipped_manifest() {
        let cases = shipped().expect("sound cases");
        let registry = farrier_compat::registry::Registry::shipped().expect("it loads");
        for case in &cases {
            let has =
                |manifest: &farrier_compat::registry::Manifest| *manifest.id == *case.manifest();
            assert!(
                registry.manifests().any(has),
                "{}: no such manifest",
                case.name
            );
        }
        let embedded: Vec<&str> = cases.iter().map(|case| case.name.as_str()).collect();
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../e2e/interventions");
        let found = below(Path::new(root)).expect("sound cases");
        let found: Vec<&str> = found.iter().map(|case| case.name.as_str()).collect();
        assert_eq!(found, embedded, "what is embedded is what is there");
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        let cases = [
            ("description", "descriptoin", "unknown field `descriptoin`"),
            (
                "\"hermetic\", \"live\"",
                "",
                "expected hermetic or live at modes",
            ),
            (
                "\"hermetic\", \"live\"",
                "\"hermetic\"",
                "where the modes say live, and only there at live",
            ),
            (
                "[\"Report hostname, date and uptime.\"]",
                "[]",
                "expected at least one at prompts",
            ),
            (
                "uptime.\"]",
                "uptime.\", \"Again.\"]",
                "expected one, as the scripted client takes one turn at prompts",
            ),
            ("\"scripted\"", "\"openclaw\"", "at harness.version"),
            (
                "\"scripted\"",
                "\"other\"",
                "expected scripted, openclaw or hermes at harness.name",
            ),
            ("kimi-k2.6-picky", "kimi-k9", "expected a persona"),
            ("\"refused\"", "\"refusal\"", "unknown variant `refusal`"),
        ];
        for (from, to, message) in cases {
            let mistake = mistake(from, to);
            assert!(mistake.contains(message), "{mistake}");
        }
    }

    #[test]
    fn a_manifest_means_all_its_cases_and_a_case_itself() {
        let case = |name: &str| Case::parse(name, SOUND).expect("a sound case");
        let (first, other) = (case("m"), case("m/other"));
        assert!(first.is_called("m") && other.is_called("m"));
        assert!(first.is_called("m/case") && !other.is_called("m/case"));
        assert!(!first.is_called("m/other") && other.is_called("m/other"));
    }

    #[test]
    fn a_case_for_a_manifest_says_how_it_fails_without_it() {
        let (before, rest) = SOUND.split_once("[without]").expect("a section");
        let text = format!(
            "{before}[live]{}",
            rest.split_once("[live]").expect("a section").1
        );
        let bad = Case::parse("x", &text).expect_err("a mistake");
        assert!(bad.to_string().contains("at without"), "{bad}");
        assert!(Case::parse("x/another", &text).is_ok());
    }
}
