//! What manifests contribute to `OpenClaw`'s configuration.
//!
//! Unlike passes, these effects are not ranked: all manifests that apply
//! contribute, in path order, and two that disagree are an error. Values are
//! compared by structure, so an object or list that is written twice alike is no
//! disagreement.

use std::fmt;

use serde_json::{Map, Value};

use super::Registry;
use super::plugin::OpenclawPlugin;
use crate::facts::Facts;

/// The audience whose manifests count here.
const AGENT: &str = "openclaw";

/// The `compat` that the rest of the configuration already asks for.
#[derive(Debug, Clone, Copy)]
pub struct IncomingCompat<'a> {
    /// Where it is from, for messages.
    pub from: &'a str,
    /// JSON: an object, or `null` for none.
    pub text: &'a str,
}

/// How the user wants tools to be shown to the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolDisclosure {
    /// All at once. A manifest cannot bring tool search back.
    Direct,
    /// Through tool search, unless a manifest switches it off.
    Progressive,
}

/// What belongs into the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenclawEffects {
    /// The model's `compat`.
    pub compat: Map<String, Value>,
    /// Tool search; `None` leaves the default.
    pub tool_search: Option<bool>,
    /// Plugins, in order; which of them a release needs is for its configuration to say.
    pub plugins: Vec<OpenclawPlugin>,
    /// Whether the model is to be described as one that reasons.
    pub reasoning: bool,
}

/// Why contributions do not fit together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MergeError {
    /// A manifest contradicts what is there already.
    Compat {
        /// The manifest.
        id: String,
        /// The key.
        key: String,
    },
    /// The incoming `compat` is not an object.
    Incoming {
        /// Where it is from.
        from: String,
        /// What it is.
        got: String,
    },
    /// A plugin is declared twice.
    Plugin {
        /// The manifest that declares it again.
        id: String,
        /// The plugin.
        plugin: String,
    },
    /// A manifest contradicts an earlier one.
    Tools {
        /// The manifest.
        id: String,
        /// The key.
        key: &'static str,
    },
}

impl Registry {
    /// What belongs into the configuration of an `OpenClaw` with the route in
    /// `facts`; their `agent` is not looked at.
    ///
    /// # Errors
    /// When `incoming` is neither an object nor `null`, or a contribution
    /// contradicts what is there already.
    pub fn openclaw_effects(
        &self,
        facts: &Facts,
        incoming: IncomingCompat<'_>,
        disclosure: ToolDisclosure,
    ) -> Result<OpenclawEffects, MergeError> {
        let facts = Facts {
            agent: Some(AGENT.to_owned()),
            ..facts.clone()
        };
        let mut merged = OpenclawEffects {
            compat: incoming.read()?,
            ..OpenclawEffects::default()
        };
        for manifest in self.manifests().filter(|manifest| manifest.applies(&facts)) {
            let (id, effects) = (&*manifest.id, &manifest.effects);
            merged.add_compat(id, &effects.openclaw_compat)?;
            merged.add_tool_search(id, effects.openclaw_tool_search)?;
            for plugin in &effects.openclaw_plugins {
                merged.add_plugin(id, plugin)?;
            }
            merged.reasoning |= effects.openclaw_reasoning;
        }
        if disclosure == ToolDisclosure::Direct {
            merged.tool_search = Some(false);
        }
        Ok(merged)
    }
}

impl IncomingCompat<'_> {
    fn read(self) -> Result<Map<String, Value>, MergeError> {
        match serde_json::from_str(self.text) {
            Ok(Value::Null) => Ok(Map::new()),
            Ok(Value::Object(compat)) => Ok(compat),
            Ok(other) => Err(self.refused(match other {
                Value::Array(_) => "an array",
                Value::String(_) => "a string",
                _ => "a scalar",
            })),
            Err(error) => Err(self.refused(&error.to_string())),
        }
    }

    fn refused(self, got: &str) -> MergeError {
        MergeError::Incoming {
            from: self.from.to_owned(),
            got: got.to_owned(),
        }
    }
}

impl OpenclawEffects {
    fn add_compat(&mut self, id: &str, compat: &Map<String, Value>) -> Result<(), MergeError> {
        for (key, value) in compat {
            if self.compat.get(key).is_some_and(|there| there != value) {
                return Err(MergeError::Compat {
                    id: id.to_owned(),
                    key: key.clone(),
                });
            }
            self.compat.insert(key.clone(), value.clone());
        }
        Ok(())
    }

    fn add_tool_search(&mut self, id: &str, wanted: Option<bool>) -> Result<(), MergeError> {
        if let (Some(there), Some(wanted)) = (self.tool_search, wanted)
            && there != wanted
        {
            return Err(MergeError::Tools {
                id: id.to_owned(),
                key: "toolSearch",
            });
        }
        self.tool_search = self.tool_search.or(wanted);
        Ok(())
    }

    fn add_plugin(&mut self, id: &str, plugin: &OpenclawPlugin) -> Result<(), MergeError> {
        if self.plugins.iter().any(|there| there.id == plugin.id) {
            return Err(MergeError::Plugin {
                id: id.to_owned(),
                plugin: plugin.id.clone(),
            });
        }
        self.plugins.push(plugin.clone());
        Ok(())
    }
}

impl fmt::Display for MergeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compat { id, key } => write!(
                f,
                "model-specific setup '{id}' conflicts with inference compat key '{key}'"
            ),
            Self::Incoming { from, got } => {
                write!(f, "{from} must be a JSON object or null, got {got}")
            }
            Self::Plugin { id, plugin } => write!(
                f,
                "model-specific setup '{id}' declares duplicate OpenClaw plugin '{plugin}'"
            ),
            Self::Tools { id, key } => write!(
                f,
                "model-specific setup '{id}' conflicts with OpenClaw tools key '{key}'"
            ),
        }
    }
}

impl std::error::Error for MergeError {}
