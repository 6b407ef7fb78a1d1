//! Agents beside the main one.
//!
//! In goes the payload: an array of agents, or `{agents, defaults?, main?}`. What
//! comes out is built anew from known keys alone, so that nothing else can get
//! into a file that the agent reads, a credential least of all. Every mistake is
//! named with its place, such as `agents[1].tools.allow`.

use std::collections::BTreeSet;

use crate::document::Document;
use crate::settings::brief;

/// Agents beside the main one, and what holds for all.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ExtraAgents {
    /// Each in its final form.
    pub(crate) agents: Vec<Agent>,
    /// `agents.defaults.subagents`
    pub(crate) subagent_defaults: Option<Document>,
    /// What is said of the main agent.
    pub(crate) main: Vec<(String, Document)>,
}

/// An agent, ready to be written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Agent {
    pub(crate) id: String,
    /// Everything but the id.
    pub(crate) fields: Vec<(String, Document)>,
    /// The model it is given, without the provider's key.
    pub(crate) model: Option<String>,
}

/// What agents are checked against.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds<'a> {
    /// The home of whoever runs the harness.
    pub(crate) home: &'a str,
    /// The only provider there is.
    pub(crate) provider_key: &'a str,
}

/// Reads the payload.
///
/// # Errors
/// Everything that is wrong with it.
pub(crate) fn read(text: &str, bounds: Bounds<'_>) -> Result<ExtraAgents, Vec<String>> {
    let document = Document::from_json(text).map_err(|error| vec![error.to_string()])?;
    let mut checking = Checking {
        bounds,
        ids: BTreeSet::new(),
        wrong: Vec::new(),
    };
    let extra = checking.payload(&document);
    if checking.wrong.is_empty() {
        Ok(extra)
    } else {
        Err(checking.wrong)
    }
}

struct Checking<'a> {
    bounds: Bounds<'a>,
    ids: BTreeSet<String>,
    wrong: Vec<String>,
}

const AGENT_KEYS: &[&str] = &[
    "id",
    "workspace",
    "agentDir",
    "default",
    "tools",
    "subagents",
    "description",
    "model",
];
const TOOL_KEYS: &[&str] = &["profile", "allow", "deny"];
const SUBAGENT_KEYS: &[&str] = &[
    "delegationMode",
    "allowAgents",
    "model",
    "thinking",
    "requireAgentId",
];
const DEPTHS: std::ops::RangeInclusive<u64> = 1..=5;

impl Checking<'_> {
    fn payload(&mut self, document: &Document) -> ExtraAgents {
        let none = Document::List(Vec::new());
        let (agents, rest) = match document {
            Document::List(_) => (document, None),
            Document::Object(_) => {
                self.known_keys("", document, &["agents", "defaults", "main"]);
                (document.field("agents").unwrap_or(&none), Some(document))
            }
            _ => {
                self.say(
                    "",
                    "an array, or an object with agents, defaults and main",
                    document,
                );
                return ExtraAgents::default();
            }
        };
        if !matches!(agents, Document::List(_)) {
            self.say("agents", "an array", agents);
        }
        let agents = agents.items().iter().enumerate();
        ExtraAgents {
            agents: agents
                .filter_map(|(index, agent)| self.agent(&format!("agents[{index}]"), agent))
                .collect(),
            subagent_defaults: rest
                .and_then(|rest| rest.field("defaults"))
                .and_then(|defaults| self.defaults(defaults)),
            main: rest
                .and_then(|rest| rest.field("main"))
                .map(|main| self.main(main))
                .unwrap_or_default(),
        }
    }

    fn agent(&mut self, at: &str, agent: &Document) -> Option<Agent> {
        if !matches!(agent, Document::Object(_)) {
            self.say(at, "an object", agent);
            return None;
        }
        self.known_keys(at, agent, AGENT_KEYS);
        if let Some(default) = agent.field("default")
            && *default != Document::Bool(false)
        {
            self.say(
                &format!("{at}.default"),
                "nothing, for main is the default",
                default,
            );
        }
        let id = self.id(at, agent.field("id"))?;
        let mut fields = Vec::new();
        let home = self.bounds.home;
        for (key, place) in [
            ("workspace", format!("{home}/.openclaw/workspace-{id}")),
            ("agentDir", format!("{home}/.openclaw/agents/{id}")),
        ] {
            self.place(&format!("{at}.{key}"), agent.field(key), &place);
            fields.push((key.to_owned(), place.into()));
        }
        if let Some(text) = self.text(&format!("{at}.description"), agent.field("description")) {
            fields.push(("description".to_owned(), text.into()));
        }
        let model = self.model(&format!("{at}.model"), agent.field("model"));
        fields.extend(
            model
                .clone()
                .map(|model| ("model".to_owned(), model.into())),
        );
        let tools = self.tools(&format!("{at}.tools"), agent.field("tools"));
        fields.extend(tools.map(|tools| ("tools".to_owned(), tools)));
        let subagents = self.subagents(&format!("{at}.subagents"), agent.field("subagents"));
        fields.extend(subagents.map(|subagents| ("subagents".to_owned(), subagents)));
        let bare = |reference: String| Some(reference.split_once('/')?.1.to_owned());
        Some(Agent {
            id,
            fields,
            model: model.and_then(bare),
        })
    }

    fn id(&mut self, at: &str, id: Option<&Document>) -> Option<String> {
        let at = format!("{at}.id");
        let wanted = "an id of a-z, 0-9, '_' and '-', at most 32, beginning with a letter";
        let Some(text) = id.and_then(Document::text).filter(|text| is_id(text)) else {
            self.say(&at, wanted, id.unwrap_or(&Document::Null));
            return None;
        };
        if text == "main" || !self.ids.insert(text.to_owned()) {
            self.wrong.push(format!(
                "{at}: expected an id that is not taken, got {text:?}"
            ));
            return None;
        }
        Some(text.to_owned())
    }

    /// A place may be written down, but there is only one it can be.
    fn place(&mut self, at: &str, given: Option<&Document>, expected: &str) {
        let Some(given) = given else { return };
        let same = given
            .text()
            .is_some_and(|given| given.trim_end_matches('/') == expected);
        if !same {
            self.say(at, &format!("{expected:?} or nothing"), given);
        }
    }

    fn tools(&mut self, at: &str, tools: Option<&Document>) -> Option<Document> {
        let Some(tools @ Document::Object(_)) = tools else {
            self.say(at, "an object", tools.unwrap_or(&Document::Null));
            return None;
        };
        self.known_keys(at, tools, TOOL_KEYS);
        let mut kept = Vec::new();
        let profile = self.text(&format!("{at}.profile"), tools.field("profile"));
        kept.extend(profile.map(|profile| ("profile", profile.into())));
        let mut restricts = false;
        for key in ["allow", "deny"] {
            let names = self.texts(&format!("{at}.{key}"), tools.field(key));
            restricts |= names.as_ref().is_some_and(|names| !names.is_empty());
            kept.extend(names.map(|names| (key, names)));
        }
        if !restricts {
            self.say(at, "a non-empty allow or deny", tools);
        }
        Some(Document::object(kept))
    }

    fn subagents(&mut self, at: &str, subagents: Option<&Document>) -> Option<Document> {
        let subagents = subagents?;
        self.known_keys(at, subagents, SUBAGENT_KEYS);
        let kept = self.subagent_fields(at, subagents);
        Some(Document::Object(kept))
    }

    fn subagent_fields(&mut self, at: &str, subagents: &Document) -> Vec<(String, Document)> {
        if !matches!(subagents, Document::Object(_)) {
            self.say(at, "an object", subagents);
        }
        let mut kept = Vec::new();
        let mut keep = |key: &str, value: Option<Document>| {
            kept.extend(value.map(|value| (key.to_owned(), value)));
        };
        let mode = self.text(
            &format!("{at}.delegationMode"),
            subagents.field("delegationMode"),
        );
        if let Some(mode) = mode.filter(|mode| !["suggest", "prefer"].contains(&mode.as_str())) {
            let got = brief(&mode);
            let message = format!("{at}.delegationMode: expected suggest or prefer, got {got}");
            self.wrong.push(message);
        } else {
            keep("delegationMode", subagents.field("delegationMode").cloned());
        }
        let allowed = subagents.field("allowAgents");
        keep(
            "allowAgents",
            self.texts(&format!("{at}.allowAgents"), allowed),
        );
        let model = self.model(&format!("{at}.model"), subagents.field("model"));
        keep("model", model.map(Into::into));
        let thinking = self.text(&format!("{at}.thinking"), subagents.field("thinking"));
        keep("thinking", thinking.map(Into::into));
        match subagents.field("requireAgentId") {
            Some(required @ Document::Bool(_)) => keep("requireAgentId", Some(required.clone())),
            Some(other) => self.say(&format!("{at}.requireAgentId"), "true or false", other),
            None => {}
        }
        kept
    }

    /// `defaults`: how deep agents may start others, besides what each agent may say.
    fn defaults(&mut self, defaults: &Document) -> Option<Document> {
        self.known_keys("defaults", defaults, &["subagents"]);
        let subagents = defaults.field("subagents")?;
        let at = "defaults.subagents";
        let keys = [SUBAGENT_KEYS, &["maxSpawnDepth"]].concat();
        self.known_keys(at, subagents, &keys);
        let mut kept = self.subagent_fields(at, subagents);
        if let Some(depth) = subagents.field("maxSpawnDepth") {
            let fits = match depth {
                Document::Number(number) => number.as_u64().is_some_and(|n| DEPTHS.contains(&n)),
                _ => false,
            };
            if fits {
                kept.push(("maxSpawnDepth".to_owned(), depth.clone()));
            } else {
                self.say(&format!("{at}.maxSpawnDepth"), "1 to 5", depth);
            }
        }
        Some(Document::Object(kept))
    }

    /// `main`: what the main agent may use.
    fn main(&mut self, main: &Document) -> Vec<(String, Document)> {
        self.known_keys("main", main, &["tools", "subagents"]);
        let mut kept = Vec::new();
        if let Some(tools) = main.field("tools") {
            let tools = self.tools("main.tools", Some(tools));
            kept.extend(tools.map(|tools| ("tools".to_owned(), tools)));
        }
        let subagents = self.subagents("main.subagents", main.field("subagents"));
        kept.extend(subagents.map(|subagents| ("subagents".to_owned(), subagents)));
        kept
    }

    fn model(&mut self, at: &str, model: Option<&Document>) -> Option<String> {
        let text = self.text(at, model)?;
        let provider_key = self.bounds.provider_key;
        let fits = text.trim() == text
            && text
                .split_once('/')
                .is_some_and(|(provider, id)| provider == provider_key && !id.is_empty());
        if !fits {
            let got = brief(&text);
            self.wrong.push(format!(
                "{at}: expected {provider_key}/ and a model, got {got}"
            ));
        }
        fits.then_some(text)
    }

    fn text(&mut self, at: &str, value: Option<&Document>) -> Option<String> {
        let value = value?;
        let text = value.text().filter(|text| !text.trim().is_empty());
        if text.is_none() {
            self.say(at, "a non-empty string", value);
        }
        text.map(str::to_owned)
    }

    fn texts(&mut self, at: &str, value: Option<&Document>) -> Option<Document> {
        let value = value?;
        let texts = matches!(value, Document::List(_))
            && value
                .items()
                .iter()
                .all(|item| item.text().is_some_and(|text| !text.trim().is_empty()));
        if !texts {
            self.say(at, "an array of non-empty strings", value);
        }
        texts.then(|| value.clone())
    }

    fn known_keys(&mut self, at: &str, value: &Document, known: &[&str]) {
        for (key, _) in value.fields() {
            if !known.contains(&key.as_str()) {
                let at = if at.is_empty() {
                    key.clone()
                } else {
                    format!("{at}.{key}")
                };
                let known = known.join(", ");
                self.wrong.push(format!("{at}: expected one of {known}"));
            }
        }
    }

    /// The kind of what was got, never the thing itself: it may be a secret in the wrong place.
    fn say(&mut self, at: &str, wanted: &str, got: &Document) {
        let got = match got {
            Document::Bool(_) => "a boolean",
            Document::List(_) => "an array",
            Document::Null => "nothing",
            Document::Number(_) => "a number",
            Document::Object(_) => "an object",
            Document::Text(_) => "another string",
        };
        let at = if at.is_empty() {
            String::new()
        } else {
            format!("{at}: ")
        };
        self.wrong.push(format!("{at}expected {wanted}, got {got}"));
    }
}

/// `^[a-z][a-z0-9_-]{0,31}$`
fn is_id(text: &str) -> bool {
    let rest = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    (1..=32).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(rest)
}
