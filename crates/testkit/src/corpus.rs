//! Cases of the corpus, as data.
//!
//! A case is a folder with a `case.toml`, and one or more exchanges: in `1/`, `2/`… or,
//! when there is only one, in the folder itself. A transcript that the gateway keeps
//! is such a folder too, so that it can be moved into the corpus as it is.
//!
//! ```text
//! case.toml               description, the facts of the route, what must happen
//! request.json            what the client sends
//! upstream-request.json   what the provider must be sent              golden
//! upstream.sse|json       what the provider answers                   (optional)
//! client.sse|json         what the client must get                    golden
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use farrier_compat::facts::{ClientFacts, Facts, UpstreamFacts};
use serde::Deserialize;

/// `case.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What happens, and what must come of it.
    pub description: String,
    /// How the last stream ends; default: complete.
    #[serde(default = "complete")]
    pub ending: String,
    /// A refusal: the case is there to show that its manifest changes nothing.
    #[serde(default)]
    pub untouched: bool,
    /// The code of the fault the request ends in.
    pub fault: Option<String>,
    facts: RawFacts,
    // Of transcripts only: what was found, not what must be.
    #[serde(default, rename = "status")]
    _status: u16,
    #[serde(default, rename = "cut")]
    _cut: Vec<String>,
    #[serde(default, rename = "plan")]
    _plan: Vec<toml::Table>,
    #[serde(default, rename = "notes")]
    _notes: Vec<toml::Table>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFacts {
    agent: Option<String>,
    client: RawClient,
    upstream: RawUpstream,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawClient {
    model: String,
    provider_key: String,
    inference_api: String,
    base_url: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawUpstream {
    provider: String,
    model: String,
    base_url: String,
    server: Option<String>,
}

fn complete() -> String {
    "complete".into()
}

impl Case {
    /// Reads the `case.toml` of `folder`.
    #[must_use]
    pub fn load(folder: &Path) -> Self {
        let path = folder.join("case.toml");
        let text =
            fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let case: Self =
            toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(
            !case.description.trim().is_empty(),
            "{}: no description",
            path.display()
        );
        case
    }

    /// What manifests are matched on.
    #[must_use]
    pub fn facts(&self) -> Facts {
        let RawFacts {
            agent,
            client,
            upstream,
        } = &self.facts;
        Facts {
            agent: agent.clone(),
            client: ClientFacts {
                model: client.model.clone(),
                provider_key: client.provider_key.clone(),
                inference_api: client.inference_api.clone(),
                base_url: client.base_url.clone(),
            },
            upstream: UpstreamFacts {
                provider: upstream.provider.clone(),
                model: upstream.model.clone(),
                base_url: upstream.base_url.clone(),
                server: upstream.server.clone(),
            },
        }
    }
}

/// The folders below `folder`, by name.
#[must_use]
pub fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let paths = entries.map(|entry| {
        entry
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .path()
    });
    let mut found: Vec<PathBuf> = paths.filter(|path| path.is_dir()).collect();
    found.sort();
    found
}

/// The folders of a case's exchanges, in order.
#[must_use]
pub fn exchanges(case: &Path) -> Vec<PathBuf> {
    let numbered = folders(case);
    if numbered.is_empty() {
        vec![case.to_owned()]
    } else {
        numbered
    }
}
