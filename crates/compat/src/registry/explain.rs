//! Why manifests apply to a request or do not, for people and programs.

use std::fmt;

use serde::Serialize;

use super::{Manifest, Registry};
use crate::facts::Facts;

/// What became of one manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Its id.
    pub manifest: String,
    /// Where it is from.
    pub path: String,
    /// For whom it is.
    pub agent: &'static str,
    /// What became of it.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// Whether a manifest applies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
pub enum Verdict {
    /// It does.
    Applies {
        /// Its passes.
        passes: Vec<PassVerdict>,
    },
    /// It does not.
    DoesNotApply {
        /// What did not hold.
        unmet: Vec<Unmet>,
    },
    /// It was switched off.
    SwitchedOff,
}

/// What became of a pass of a manifest that applies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PassVerdict {
    /// The pass.
    pub pass: &'static str,
    /// What it is for, where one plan may hold the pass several times.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per: Option<String>,
    /// The more specific manifest that configures it instead, or the earlier one
    /// that configures it alike.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_to: Option<String>,
}

/// A predicate that did not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unmet {
    /// Its place in the manifest.
    pub predicate: &'static str,
    /// What would have fitted, any one of these.
    pub expected: Vec<String>,
    /// What there was; `None` when nothing is known.
    pub got: Option<String>,
}

impl Registry {
    /// What becomes of each manifest under `facts`, in path order; those that are
    /// switched off are last.
    pub fn explain(&self, facts: &Facts) -> Vec<Explanation> {
        let claims = self.claims(facts);
        let verdict = |manifest: &Manifest| {
            if !manifest.applies(facts) {
                return Verdict::DoesNotApply {
                    unmet: unmet(manifest, facts),
                };
            }
            let mine = claims
                .iter()
                .filter(|claim| claim.effect.manifest == manifest.id);
            Verdict::Applies {
                passes: mine
                    .map(|claim| PassVerdict {
                        pass: claim.effect.kind.name,
                        per: claim.effect.per(),
                        left_to: claim.loses_to.map(|winner| winner.id.to_string()),
                    })
                    .collect(),
            }
        };
        let on = self
            .manifests()
            .map(|manifest| explained(manifest, verdict(manifest)));
        let off = self
            .switched_off
            .iter()
            .map(|manifest| explained(manifest, Verdict::SwitchedOff));
        on.chain(off).collect()
    }
}

fn explained(manifest: &Manifest, verdict: Verdict) -> Explanation {
    Explanation {
        manifest: manifest.id.to_string(),
        path: manifest.path.clone(),
        agent: manifest.audience.name,
        verdict,
    }
}

fn unmet(manifest: &Manifest, facts: &Facts) -> Vec<Unmet> {
    let agent = (!manifest.audience.includes(facts.agent.as_deref())).then(|| Unmet {
        predicate: "agent",
        expected: vec![manifest.audience.name.to_owned()],
        got: facts.agent.clone(),
    });
    let predicates = manifest
        .predicates
        .iter()
        .filter(|predicate| !predicate.holds(facts));
    agent
        .into_iter()
        .chain(predicates.map(|predicate| Unmet {
            predicate: predicate.at(),
            expected: predicate.wanted().to_vec(),
            got: predicate.key.subject.of(facts).map(str::to_owned),
        }))
        .collect()
}

/// The manifest and its verdict on one line, details indented below.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.manifest, self.agent)?;
        match &self.verdict {
            Verdict::Applies { passes } => {
                f.write_str(" applies")?;
                passes.iter().try_for_each(|pass| write!(f, "\n  {pass}"))
            }
            Verdict::DoesNotApply { unmet } => {
                f.write_str(" does not apply")?;
                unmet.iter().try_for_each(|unmet| write!(f, "\n  {unmet}"))
            }
            Verdict::SwitchedOff => f.write_str(" is switched off"),
        }
    }
}

impl fmt::Display for PassVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.pass)?;
        if let Some(per) = &self.per {
            write!(f, " for {per}")?;
        }
        match &self.left_to {
            Some(winner) => write!(f, ": left to {winner}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: expected {}",
            self.predicate,
            self.expected.join(" or ")
        )?;
        match &self.got {
            Some(got) => write!(f, ", got {got:?}"),
            None => f.write_str(", got nothing"),
        }
    }
}
