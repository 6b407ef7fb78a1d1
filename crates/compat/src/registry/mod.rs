//! Manifests as data: which interventions there are, and which of them follow
//! from what is known of a request.
//!
//! In go texts of manifests ([`Source`]) and facts of a request
//! ([`Facts`]); out comes a [`Profile`], the passes that follow, or
//! [`OpenclawEffects`], what belongs into a harness's configuration. Finding and
//! reading files is the caller's: nothing here touches a file system, and whether
//! a plugin's directory exists is asked through [`LoadOptions::exists`].
//!
//! # Guarantees
//! * Loading is all or nothing, and reports every mistake of every file at once.
//!   A manifest that applies to nobody is checked as closely as any other.
//! * The order of manifests is that of their paths, whatever order they came in.
//! * Of two manifests that configure the same pass for the same thing, the more
//!   specific wins; if neither is, and both could apply to one request, with
//!   different parameters, they do not load. So [`Registry::profile`] cannot fail.
//! * A manifest never replaces another by having its id.
//!
//! # What it does not do
//! It runs no pass, and knows no pattern language: what a manifest applies to can
//! be read off it.

mod compat_keys;
mod document;
mod effects;
mod errors;
mod explain;
pub mod lint;
mod manifest;
mod matching;
mod openclaw;
mod plugin;
pub mod schema;

use std::sync::Arc;

pub use effects::{Effects, GatewayEffect};
pub use errors::{LoadError, LoadErrors, Problem};
pub use explain::{Explanation, PassVerdict, Unmet, Verdict};
pub use manifest::{AUDIENCES, Audience, Evidence, Manifest, Source};
pub use matching::{Predicate, Specificity};
pub use openclaw::{IncomingCompat, MergeError, OpenclawEffects, ToolDisclosure};
pub use plugin::{OpenclawPlugin, Release, Releases};

use crate::facts::Facts;
use crate::passes::{Kind, PASSES};

include!(concat!(env!("OUT_DIR"), "/shipped.rs"));

/// A set of manifests that fit together.
#[derive(Debug, Clone)]
pub struct Registry {
    /// In path order.
    manifests: Vec<Arc<Manifest>>,
    /// Manifests that were switched off, for [`Registry::explain`].
    switched_off: Vec<Arc<Manifest>>,
    passes: &'static [Kind],
}

/// How manifests are loaded.
#[derive(Clone, Copy)]
pub struct LoadOptions<'a> {
    /// Whether a plugin's directory exists, asked with the path a manifest gives. Those
    /// that are part of this program do anyway.
    pub exists: &'a dyn Fn(&str) -> bool,
    /// The passes there are.
    pub passes: &'static [Kind],
    /// Ids of manifests that are to be left out. They are checked all the same.
    pub switched_off: &'a [String],
}

/// The passes that follow from facts, in the order they run; equal passes are in
/// path order of their manifests.
#[derive(Debug, Clone, Default)]
pub struct Profile(Vec<GatewayEffect>);

/// A pass that a manifest asks for, and the manifest that gets its way instead.
struct Claim<'a> {
    effect: &'a GatewayEffect,
    loses_to: Option<&'a Manifest>,
}

impl Registry {
    /// The manifests that are part of this program.
    ///
    /// # Errors
    /// None in a program whose tests have passed.
    pub fn shipped() -> Result<Self, LoadErrors> {
        Self::load(&shipped_sources(), &LoadOptions::default())
    }

    /// Loads `sources`; those that are no manifests by their path are skipped
    /// (see [`is_manifest_path`]).
    ///
    /// # Errors
    /// Everything that is wrong with the sources, alone and together.
    pub fn load(sources: &[Source], options: &LoadOptions<'_>) -> Result<Self, LoadErrors> {
        let mut errors = Vec::new();
        let found = parse_all(sources, options, &mut errors);
        Self::assemble(found, Vec::new(), options, errors)
    }

    /// Adds `sources` to this registry, less what is switched off in it. An id that
    /// is here already is refused unless its manifest is switched off.
    ///
    /// # Errors
    /// Everything that is wrong with the sources, alone and together with what is
    /// here.
    pub fn with(&self, sources: &[Source], options: &LoadOptions<'_>) -> Result<Self, LoadErrors> {
        let mut errors = Vec::new();
        let added = parse_all(sources, options, &mut errors);
        let mut all = Self::assemble(self.manifests.clone(), added, options, errors)?;
        all.switched_off.extend(self.switched_off.iter().cloned());
        Ok(all)
    }

    fn assemble(
        base: Vec<Arc<Manifest>>,
        added: Vec<Arc<Manifest>>,
        options: &LoadOptions<'_>,
        mut errors: Vec<LoadError>,
    ) -> Result<Self, LoadErrors> {
        for id in options.switched_off {
            if !base.iter().any(|manifest| *manifest.id == **id) {
                let known = base.iter().map(|manifest| &*manifest.id);
                errors.push(LoadError {
                    path: None,
                    problem: Problem::unknown_name("", "manifest to switch off", id, known),
                });
            }
        }
        let is_off =
            |manifest: &Arc<Manifest>| options.switched_off.iter().any(|id| **id == *manifest.id);
        let (switched_off, mut manifests): (Vec<_>, Vec<_>) = base.into_iter().partition(is_off);
        manifests.extend(added);
        manifests.sort_by(|a, b| a.path.cmp(&b.path));
        for (index, later) in manifests.iter().enumerate() {
            for earlier in manifests.iter().take(index) {
                errors.extend(between(earlier, later).map(|problem| LoadError {
                    path: Some(later.path.clone()),
                    problem,
                }));
            }
        }
        LoadErrors::unless_empty(errors)?;
        Ok(Self {
            manifests,
            switched_off,
            passes: options.passes,
        })
    }

    /// The manifests, in path order.
    pub fn manifests(&self) -> impl Iterator<Item = &Manifest> {
        self.manifests.iter().map(AsRef::as_ref)
    }

    /// The passes that follow from `facts`.
    pub fn profile(&self, facts: &Facts) -> Profile {
        let claims = self.claims(facts);
        let of_kind = |kind: &'static Kind| {
            claims
                .iter()
                .filter(|claim| claim.loses_to.is_none())
                .map(|claim| claim.effect)
                .filter(move |effect| effect.kind.name == kind.name)
        };
        Profile(self.passes.iter().flat_map(of_kind).cloned().collect())
    }

    /// Every pass asked for by a manifest that applies, in path order, each with
    /// the manifest it loses to.
    fn claims(&self, facts: &Facts) -> Vec<Claim<'_>> {
        let asked: Vec<(&Manifest, &GatewayEffect)> = self
            .manifests()
            .filter(|manifest| manifest.applies(facts))
            .flat_map(|manifest| {
                manifest
                    .effects
                    .gateway
                    .iter()
                    .map(move |effect| (manifest, effect))
            })
            .collect();
        let mut claims = Vec::with_capacity(asked.len());
        for (manifest, effect) in &asked {
            let rivals = asked
                .iter()
                .filter(|(_, rival)| rival.slot() == effect.slot());
            // The last of equal maxima is taken, hence the reversal: the first in path order.
            let winner = rivals
                .rev()
                .map(|(rival, _)| *rival)
                .max_by_key(|rival| rival.specificity)
                .unwrap_or(manifest);
            claims.push(Claim {
                effect,
                loses_to: (winner.id != manifest.id).then_some(winner),
            });
        }
        claims
    }
}

impl Profile {
    /// The passes, each with its manifest.
    pub fn effects(&self) -> &[GatewayEffect] {
        &self.0
    }

    /// Whether nothing follows.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Whether a file with this path is a manifest: its name ends in `.json`, and it
/// is not the schema.
pub fn is_manifest_path(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.ends_with(".json") && name != "schema.json"
}

/// The texts of the manifests that are part of this program.
pub fn shipped_sources() -> Vec<Source> {
    SHIPPED
        .iter()
        .map(|(path, text)| Source {
            path: format!("registry/{path}"),
            text: (*text).to_owned(),
        })
        .collect()
}

/// The files of a plugin that is part of this program, by its path in a manifest: the
/// path of each below it, and its text. None if there is no such plugin.
pub fn shipped_plugin(path: &str) -> impl Iterator<Item = (&'static str, &'static str)> {
    let below = path
        .strip_prefix(plugin::PLUGIN_ROOT)
        .unwrap_or_default()
        .trim_end_matches('/');
    SHIPPED_PLUGINS.iter().filter_map(move |(path, text)| {
        let (directory, name) = path.split_once('/')?;
        (directory == below).then_some((name, *text))
    })
}

fn parse_all(
    sources: &[Source],
    options: &LoadOptions<'_>,
    errors: &mut Vec<LoadError>,
) -> Vec<Arc<Manifest>> {
    let mut found = Vec::new();
    for source in sources
        .iter()
        .filter(|source| is_manifest_path(&source.path))
    {
        match Manifest::parse(source, options.passes, options.exists) {
            Ok(manifest) => found.push(Arc::new(manifest)),
            Err(problems) => errors.extend(problems.into_iter().map(|problem| LoadError {
                path: Some(source.path.clone()),
                problem,
            })),
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// What keeps two manifests from being in one registry.
fn between(earlier: &Manifest, later: &Manifest) -> impl Iterator<Item = Problem> {
    let duplicate = (earlier.id == later.id).then(|| Problem::DuplicateId {
        id: later.id.to_string(),
        first: earlier.path.clone(),
    });
    let rivals = earlier.id != later.id
        && earlier.specificity == later.specificity
        && earlier.audience.meets(later.audience)
        && matching::overlap(&earlier.predicates, &later.predicates);
    let conflicts = later
        .effects
        .gateway
        .iter()
        .filter(move |_| rivals)
        .filter_map(|mine| {
            let theirs = earlier
                .effects
                .gateway
                .iter()
                .find(|theirs| theirs.slot() == mine.slot())?;
            let differing = differing(mine, theirs);
            (!differing.is_empty()).then(|| Problem::Conflict {
                pass: mine.kind.name,
                other: earlier.id.to_string(),
                other_path: earlier.path.clone(),
                differing,
            })
        });
    duplicate.into_iter().chain(conflicts)
}

/// The names of the parameters in which two uses of a pass differ, sorted.
fn differing(a: &GatewayEffect, b: &GatewayEffect) -> Vec<String> {
    let mut names: Vec<String> = a
        .params
        .as_map()
        .keys()
        .chain(b.params.as_map().keys())
        .filter(|name| a.params.value(name) != b.params.value(name))
        .cloned()
        .collect();
    names.sort();
    names.dedup();
    names
}

fn nothing_exists(_: &str) -> bool {
    false
}

impl Default for LoadOptions<'_> {
    /// All passes, nothing switched off, no plugin but the shipped ones.
    fn default() -> Self {
        Self {
            exists: &nothing_exists,
            passes: PASSES,
            switched_off: &[],
        }
    }
}

impl std::fmt::Debug for LoadOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoadOptions")
            .field("switched_off", &self.switched_off)
            .finish_non_exhaustive()
    }
}
