//! From a profile to the ordered passes of one request.
//!
//! ```text
//! Facts ──registry──▶ Profile ──▶ Plan ──lookup──▶ keys ──(ledger)──▶ Recollection ──rewrite──▶ request for the model
//!                                                                                    └────────▶ Reply: how to read what it says
//! ```
//!
//! A plan is immutable and shared; nothing in it belongs to a single request.

use std::sync::Arc;

use bytes::Bytes;

use crate::facts::Facts;
use crate::fault::Fault;
use crate::passes::event::Placed;
use crate::passes::record::Recording;
use crate::passes::{Ids, Mint, Needs, Note, Notes, Recollection, Scene, Survey};
use crate::registry::{GatewayEffect, Registry};
use crate::wire::chat::Ask;
use crate::wire::json::{Segment, quote};
use crate::wire::turn::TurnKey;

/// The ordered passes for one kind of request.
#[derive(Debug, Clone)]
pub struct Plan {
    effects: Arc<[GatewayEffect]>,
    needs: Needs,
}

/// What a request asks of the ledger.
#[derive(Debug)]
pub struct Lookup<'a> {
    survey: Survey<'a>,
}

/// A request's history together with what the ledger knows of it.
#[derive(Debug)]
pub struct Recalled<'a> {
    survey: Survey<'a>,
    recollection: Recollection,
}

/// What only the caller of [`Plan::rewrite`] knows.
#[derive(Debug, Clone)]
pub struct With {
    /// The provider's name for the model, when it is another than the client's.
    pub upstream_model: Option<String>,
    /// Random, for this exchange alone: the ids it mints come from it.
    pub seed: [u8; 16],
    /// `provider/model`, kept with the turn.
    pub origin: String,
}

/// A request ready for the provider.
#[derive(Debug)]
pub struct Rewritten<'a> {
    /// The body, as kept slices of the client's and new text between them.
    pub segments: Vec<Segment<'a>>,
    /// What was done to it.
    pub notes: Vec<Note>,
    /// How to read the reply.
    pub reply: Reply,
}

/// How to read the reply to one request.
#[derive(Debug)]
pub struct Reply {
    pub(crate) placed: Vec<Placed>,
    pub(crate) record: Option<Recording>,
}

impl Registry {
    /// The plan for a request with these facts.
    ///
    /// Worth keeping: it depends on nothing but the facts.
    pub fn plan_for(&self, facts: &Facts) -> Plan {
        Plan::new(self.profile(facts).effects().to_vec())
    }
}

impl Plan {
    /// A plan of these effects, in their order.
    pub fn new(effects: Vec<GatewayEffect>) -> Self {
        let needs = effects.iter().fold(Needs::default(), |needs, effect| {
            let more = effect.pass.needs();
            Needs {
                answers: needs.answers | more.answers,
                calls: needs.calls | more.calls,
                texts: needs.texts | more.texts,
                ids: if more.ids == Ids::Minted {
                    Ids::Minted
                } else {
                    needs.ids
                },
            }
        });
        Self {
            effects: effects.into(),
            needs,
        }
    }

    /// Whether there is nothing to do: reply bytes are forwarded unread.
    pub fn is_empty(&self) -> bool {
        self.effects.is_empty()
    }

    /// Whether the ledger is read and written.
    pub fn uses_ledger(&self) -> bool {
        self.needs.calls || self.needs.texts
    }

    /// The passes, in order: (manifest, pass).
    pub fn passes(&self) -> impl Iterator<Item = (&str, &'static str)> {
        self.effects
            .iter()
            .map(|effect| (effect.manifest.as_ref(), effect.kind.name))
    }

    /// What `ask` asks of the ledger.
    pub fn lookup<'a>(&self, ask: &Ask<'a>) -> Lookup<'a> {
        Lookup {
            survey: Survey::of(ask, self.needs),
        }
    }

    /// Makes of the client's request what the model must be sent.
    ///
    /// With an empty plan and no other model name this is the body as it came, as one
    /// kept slice (invariant I1).
    ///
    /// # Errors
    /// The [`Fault`] of a pass: nothing was sent, nothing was stored.
    pub fn rewrite<'a>(
        &self,
        mut ask: Ask<'a>,
        mut recalled: Recalled<'a>,
        with: With,
    ) -> Result<Rewritten<'a>, Fault> {
        if let Some(model) = &with.upstream_model {
            ask.root_mut().set("model", quote(model));
        }
        let mut notes = Notes::default();
        let mut scene = Scene {
            survey: &recalled.survey,
            recollection: &recalled.recollection,
            origin: &with.origin,
            mint: Mint::new(with.seed),
            notes: &mut notes,
        };
        for effect in self.effects.iter() {
            scene.notes.of(&effect.manifest, effect.kind.name);
            effect.pass.ask(&mut ask, &mut scene)?;
        }
        let placed = self
            .effects
            .iter()
            .filter_map(|effect| {
                Some(Placed {
                    manifest: Arc::clone(&effect.manifest),
                    name: effect.kind.name,
                    pass: effect.pass.reply(&scene)?,
                })
            })
            .collect();
        let record = self.uses_ledger().then(|| Recording {
            origin: with.origin,
            needs: self.needs,
            context: recalled.survey.context(),
        });
        Ok(Rewritten {
            segments: ask.into_segments().into_pieces(),
            notes: notes.take(),
            reply: Reply { placed, record },
        })
    }
}

impl<'a> Lookup<'a> {
    /// The keys to look up; none means that the ledger need not be asked.
    pub fn keys(&self) -> &[TurnKey] {
        self.survey.lookup()
    }

    /// With what was stored under each key, in order of [`Self::keys`], newest first.
    pub fn answered(self, stored: &[Vec<Bytes>]) -> Recalled<'a> {
        Recalled {
            recollection: self.survey.recollect(stored),
            survey: self.survey,
        }
    }

    /// With what could be found though the ledger could not be asked, as [`Self::answered`]: what is not there is not
    /// known.
    pub fn partly_answered(self, known: &[Vec<Bytes>]) -> Recalled<'a> {
        let mut recalled = self.answered(known);
        recalled.recollection.unavailable = true;
        recalled
    }

    /// The ledger could not be asked: the manifest's miss policy decides.
    pub fn unanswered(self) -> Recalled<'a> {
        Recalled {
            recollection: Recollection::unavailable(),
            survey: self.survey,
        }
    }
}

impl Reply {
    /// Whether nothing reads the reply: its bytes are forwarded as they come.
    pub fn is_plain(&self) -> bool {
        self.placed.is_empty() && self.record.is_none()
    }
}
