//! What the manifests of another tree would do here.
//!
//! In goes a directory of records in the format that came before (`model-specific-setup`),
//! which the registry reads unchanged. Out comes, record by record, whether it loads,
//! what it would do, and what here it would contradict. Nothing is taken over by it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use farrier_compat::facts::{
    CHAT_COMPLETIONS, ClientFacts, Facts, MANAGED_BASE_URL, MANAGED_PROVIDER_KEY, UpstreamFacts,
};
use farrier_compat::registry::{
    Effects, IncomingCompat, LoadOptions, Manifest, Registry, Source, ToolDisclosure,
    is_manifest_path,
};
use serde::Serialize;

/// One record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Record {
    /// Its file.
    pub path: String,
    /// Its id, if it has a readable one.
    pub id: Option<String>,
    /// Whom it is for.
    pub agent: Option<String>,
    /// What is wrong with it.
    pub mistakes: Vec<String>,
    /// What it would do here.
    pub effects: Vec<String>,
    /// What here it would contradict.
    pub conflicts: Vec<String>,
    /// Manifests that apply to the same requests already, and what they do.
    pub beside: Vec<String>,
}

/// Why there is nothing to report on.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}", path.display())]
pub struct UnreadableTree {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// How deep records are looked for.
const MAX_DEPTH: usize = 8;

/// Reads the records below a directory, in path order. Links are not followed.
///
/// # Errors
/// A directory or record cannot be read.
pub fn sources(directory: &Path) -> Result<Vec<Source>, UnreadableTree> {
    let mut found = Vec::new();
    let mut below = vec![(directory.to_owned(), 0)];
    while let Some((directory, depth)) = below.pop() {
        let failed = |source| UnreadableTree {
            path: directory.clone(),
            source,
        };
        for entry in fs::read_dir(&directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let (path, kind) = (entry.path(), entry.file_type().map_err(failed)?);
            if kind.is_dir() && depth < MAX_DEPTH {
                below.push((path, depth + 1));
            } else if kind.is_file() && is_manifest_path(&path.to_string_lossy()) {
                let text = fs::read_to_string(&path).map_err(|source| UnreadableTree {
                    path: path.clone(),
                    source,
                })?;
                let path = path.display().to_string();
                found.push(Source { path, text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// Reports on every record of a tree. Plugins are looked for in the directory above it.
///
/// # Errors
/// The tree cannot be read.
pub fn report(directory: &Path, here: &Registry) -> Result<Vec<Record>, UnreadableTree> {
    let root = directory.parent().unwrap_or_else(|| Path::new(""));
    let exists = |plugin: &str| root.join(plugin).is_dir();
    let options = LoadOptions {
        exists: &exists,
        ..LoadOptions::default()
    };
    let sources = sources(directory)?;
    let all = Registry::load(&sources, &options);
    let records = sources.iter().map(|source| {
        let alone = Registry::load(std::slice::from_ref(source), &options);
        match alone {
            Err(errors) => Record {
                mistakes: errors
                    .iter()
                    .map(|error| error.problem.to_string())
                    .collect(),
                ..Record::of(source)
            },
            Ok(alone) => {
                let together = here.with(std::slice::from_ref(source), &options);
                let mut record = alone.manifests().next().map_or_else(
                    || Record::of(source),
                    |manifest| Record::loaded(source, manifest, here),
                );
                match together {
                    Err(errors) => {
                        let shown = errors.iter().map(|error| error.problem.to_string());
                        record.conflicts.extend(shown);
                    }
                    Ok(together) => record.merge_conflicts(&alone, &together),
                }
                if let Err(errors) = &all {
                    let of_this = errors
                        .iter()
                        .filter(|error| error.path.as_ref() == Some(&source.path));
                    record
                        .conflicts
                        .extend(of_this.map(|error| error.problem.to_string()));
                }
                record
            }
        }
    });
    Ok(records.collect())
}

impl Record {
    fn of(source: &Source) -> Self {
        Self {
            path: source.path.clone(),
            id: None,
            agent: None,
            mistakes: Vec::new(),
            effects: Vec::new(),
            conflicts: Vec::new(),
            beside: Vec::new(),
        }
    }

    fn loaded(source: &Source, manifest: &Manifest, here: &Registry) -> Self {
        let mut beside = Vec::new();
        for there in here.manifests() {
            if samples(manifest).iter().any(|facts| there.applies(facts)) {
                let does = effects(&there.effects).join(", ");
                beside.push(format!("{} ({}): {does}", there.id, there.audience.name));
            }
        }
        Self {
            id: Some(manifest.id.to_string()),
            agent: Some(manifest.audience.name.to_owned()),
            effects: effects(&manifest.effects),
            beside,
            ..Self::of(source)
        }
    }

    /// Where it applies, what it says is merged with what is here, if that can be.
    fn merge_conflicts(&mut self, alone: &Registry, together: &Registry) {
        let incoming = IncomingCompat {
            from: "compat",
            text: "{}",
        };
        let of_openclaw = alone
            .manifests()
            .filter(|manifest| manifest.audience.name == "openclaw");
        for facts in of_openclaw.flat_map(samples) {
            let merged = together.openclaw_effects(&facts, incoming, ToolDisclosure::Progressive);
            let shown = merged.err().map(|error| error.to_string());
            let new = shown.filter(|shown| !self.conflicts.contains(shown));
            self.conflicts.extend(new);
        }
    }
}

/// What effects do, in few words each.
fn effects(effects: &Effects) -> Vec<String> {
    let mut does = Vec::new();
    for (key, value) in &effects.openclaw_compat {
        does.push(format!("compat {key} = {value}"));
    }
    for (key, value) in &effects.hermes_compat {
        does.push(format!("hermes {key} = {value}"));
    }
    if let Some(on) = effects.openclaw_tool_search {
        does.push(format!("tool search {}", if on { "on" } else { "off" }));
    }
    if effects.openclaw_reasoning {
        does.push("described as reasoning".to_owned());
    }
    for plugin in &effects.openclaw_plugins {
        does.push(format!("plugin {}", plugin.id));
    }
    for effect in &effects.gateway {
        does.push(format!("pass {}", effect.kind.name));
    }
    does
}

/// Requests that a manifest applies to: one for each model it names.
fn samples(manifest: &Manifest) -> Vec<Facts> {
    let wanted = |at: &str| {
        let found = manifest
            .predicates
            .iter()
            .find(|predicate| predicate.at() == at);
        found
            .map(|predicate| predicate.wanted().to_vec())
            .unwrap_or_default()
    };
    let first = |at: &str, otherwise: &str| {
        let found = wanted(at).into_iter().next();
        found.unwrap_or_else(|| otherwise.to_owned())
    };
    let mut models = wanted("match.modelIds");
    models.extend(wanted("match.modelIdPrefixes"));
    let mut upstream = wanted("match.upstream.modelIds");
    upstream.extend(wanted("match.upstream.modelIdPrefixes"));
    if models.is_empty() {
        models.clone_from(&upstream);
    }
    let host = first("match.upstream.hosts", "")
        .trim_start_matches('.')
        .to_owned();
    let facts = models.iter().map(|model| Facts {
        agent: Some(manifest.audience.name.to_owned()),
        client: ClientFacts {
            model: model.clone(),
            provider_key: first("match.providerKey", MANAGED_PROVIDER_KEY),
            inference_api: first("match.inferenceApi", CHAT_COMPLETIONS),
            base_url: first("match.baseUrl", MANAGED_BASE_URL),
        },
        upstream: UpstreamFacts {
            provider: first("match.upstream.provider", "provider"),
            model: upstream.first().unwrap_or(model).clone(),
            base_url: if host.is_empty() {
                String::new()
            } else {
                format!("https://{host}/v1")
            },
            server: wanted("match.upstream.server").into_iter().next(),
        },
    });
    facts.collect()
}
