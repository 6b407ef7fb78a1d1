//! Tool-call id mangled or repeated.
//!
//! * **defect**: a model trained on ids `functions.<name>:<n>` loses the thread when a client sends
//!   them back stripped (`functionsexec0`): it answers text with `finish_reason: stop`. And clients
//!   that key by id break when a server repeats one.
//! * **first seen**: openclaw/openclaw#62319, kimi-k2 on self-hosted servers, spring 2026.
//! * **source**: openclaw/openclaw#70030, #70693; microsoft/vscode#325813; sgl-project/sglang#9606;
//!   de-duplication by id in hermes-agent 0.19.0, "Model reused a completed tool call ID" in openai-agents.
//! * **before**: `{"tool_calls":[{"id":"functionsexec0",…}]}` · `{"role":"tool","tool_call_id":"functionsexec0",…}`
//! * **after**: `{"tool_calls":[{"id":"functions.exec:0",…}]}` · `{"role":"tool","tool_call_id":"functions.exec:0",…}`
//! * **remove when**: served models no longer see the id, and clients keep ids as they are.
//!
//! Mode `native` leaves the model's ids in the reply and restores the exact original
//! where a client sanitised it. Mode `minted` gives the client ids of nine letters and
//! digits, which every sanitiser we know leaves alone and no two calls share, and maps
//! them back in calls and results. Where nothing is stored, `rebuild` makes the id the
//! model would have given from the running count of calls in the history.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::event::{Event, Out, StreamPass};
use super::{At, Kind, Mint, Needs, Param, ParamKind, Params, Pass, Scene, What};
use crate::fault::Fault;
use crate::wire::chat::{self, Ask, Choice};
use crate::wire::json::{Value, quote};

/// The row of this pass.
pub(super) const KIND: Kind = Kind {
    name: "tool-call-id-mangled",
    summary: "gives clients tool-call ids they cannot mangle and the model its own back",
    params: &[
        Param {
            name: "mode",
            kind: ParamKind::Choice(&["native", "minted"]),
            required: true,
            doc: "whether the client sees the model's ids or minted ones",
        },
        Param {
            name: "rebuild",
            kind: ParamKind::Text,
            required: false,
            doc: "the model's form of an id, with {name} and {n}; without it, an unknown id stays as it is",
        },
    ],
    per: &[],
    build,
};

#[derive(Debug)]
struct ToolCallId {
    minted: bool,
    rebuild: Option<Template>,
}

/// `functions.{name}:{n}`, cut at its two holes.
#[derive(Debug)]
struct Template {
    before: String,
    between: String,
    after: String,
}

fn build(params: &Params) -> Result<Arc<dyn Pass>, String> {
    Ok(Arc::new(ToolCallId {
        minted: params.text("mode") == Some("minted"),
        rebuild: params.text("rebuild").map(Template::parse).transpose()?,
    }))
}

impl Pass for ToolCallId {
    fn needs(&self) -> Needs {
        Needs {
            calls: true,
            texts: false,
            minted: self.minted,
        }
    }

    fn ask(&self, ask: &mut Ask<'_>, scene: &mut Scene<'_>) -> Result<(), Fault> {
        let ids = self.ids_for_model(scene);
        for (index, message) in ask.messages_mut().enumerate() {
            if let Some(answered) = scene.survey.answered_by(index) {
                let now = message.text("tool_call_id").unwrap_or_default();
                match ids.get(&answered) {
                    Some((id, _)) if *id != now => message.set("tool_call_id", quote(id)),
                    _ => {}
                }
                continue;
            }
            let Some(calls) = chat::calls_mut(message) else {
                continue;
            };
            for (n, call) in calls.items_mut().filter_map(Value::object_mut).enumerate() {
                let Some((id, what)) = ids.get(&(index, n)) else {
                    continue;
                };
                if call.text("id").is_none_or(|now| now != *id) {
                    call.set("id", quote(id));
                    scene.notes.add(*what, At::call(index, n));
                }
            }
        }
        Ok(())
    }

    fn reply(&self, scene: &Scene<'_>) -> Option<Box<dyn StreamPass>> {
        self.minted.then(|| {
            Box::new(Minting {
                mint: scene.mint,
                minted: 0,
                given: HashMap::new(),
            }) as Box<dyn StreamPass>
        })
    }
}

impl ToolCallId {
    /// The id the model must see for each call (message, call) that needs another one.
    fn ids_for_model(&self, scene: &Scene<'_>) -> HashMap<(usize, usize), (String, What)> {
        let mut ids = HashMap::new();
        let mut used: HashSet<String> = HashSet::new();
        let mut unknown = Vec::new();
        let mut count = 0;
        for said in scene.survey.said() {
            let hit = scene.recollection.of(said.message);
            for (n, call) in said.calls.iter().enumerate() {
                let known = hit
                    .and_then(|hit| hit.turn.calls.get(*hit.calls.get(n)?))
                    .map(|call| call.native.clone())
                    .filter(|native| !native.is_empty());
                match known {
                    Some(native) => {
                        used.insert(native.clone());
                        ids.insert((said.message, n), (native, What::Restored));
                    }
                    None if self.is_native(&call.id, &used) => {
                        used.insert(call.id.clone());
                    }
                    None => unknown.push(((said.message, n), count, call.name.clone())),
                }
                count += 1;
            }
        }
        if let Some(template) = &self.rebuild {
            for (place, count, name) in unknown {
                let id = template.first_free(&name, count, &used);
                used.insert(id.clone());
                ids.insert(place, (id, What::Rebuilt));
            }
        }
        ids
    }

    /// Whether the model may see this id as it is.
    fn is_native(&self, id: &str, used: &HashSet<String>) -> bool {
        match &self.rebuild {
            None => true,
            Some(template) => template.fits(id) && !used.contains(id),
        }
    }
}

impl Template {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("expected {{name}} and then {{n}} in parameter `rebuild`, got {text:?}");
        let (before, rest) = text.split_once("{name}").ok_or_else(wrong)?;
        let (between, after) = rest.split_once("{n}").ok_or_else(wrong)?;
        if between.is_empty() {
            return Err(format!(
                "expected text between {{name}} and {{n}} in parameter `rebuild`, got {text:?}"
            ));
        }
        Ok(Self {
            before: before.into(),
            between: between.into(),
            after: after.into(),
        })
    }

    fn make(&self, name: &str, n: usize) -> String {
        format!("{}{name}{}{n}{}", self.before, self.between, self.after)
    }

    /// Whether `id` is one the model could have given.
    fn fits(&self, id: &str) -> bool {
        id.strip_prefix(&self.before)
            .and_then(|rest| rest.strip_suffix(&self.after))
            .and_then(|rest| rest.rsplit_once(&self.between))
            .is_some_and(|(name, n)| {
                !name.is_empty() && !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit())
            })
    }

    fn first_free(&self, name: &str, from: usize, used: &HashSet<String>) -> String {
        // At most one number per id in use is taken, so the search ends.
        (from..=from + used.len())
            .map(|n| self.make(name, n))
            .find(|id| !used.contains(id))
            .unwrap_or_else(|| self.make(name, from))
    }
}

/// Gives the calls of one reply minted ids.
struct Minting {
    mint: Mint,
    minted: u64,
    /// (choice, logical call) → the id given.
    given: HashMap<(u64, u64), String>,
}

impl StreamPass for Minting {
    fn event(&mut self, mut event: Event<'_>, out: &mut Out<'_>) -> Result<(), Fault> {
        if let Event::Chunk { chunk, edited, .. } = &mut event {
            for mut choice in chunk.choices() {
                *edited |= self.choice(&mut choice, out);
            }
        }
        out.emit(event)
    }
}

impl Minting {
    fn choice(&mut self, choice: &mut Choice<'_, '_>, out: &mut Out<'_>) -> bool {
        let index = choice.index();
        let whole = choice.is_whole();
        let mut edited = false;
        let Some(calls) = choice.part_mut().and_then(chat::calls_mut) else {
            return false;
        };
        for (position, call) in calls.items_mut().filter_map(Value::object_mut).enumerate() {
            let position = u64::try_from(position).unwrap_or(u64::MAX);
            let place = (
                index,
                if whole {
                    position
                } else {
                    chat::index_of(call).unwrap_or(position)
                },
            );
            let native = call.text("id").unwrap_or_default().into_owned();
            let opens = whole || !native.is_empty() || chat::call_name(call).is_some();
            if !opens {
                continue;
            }
            let known = self
                .given
                .get(&place)
                .filter(|given| out.native_of(given) == Some(&native) || native.is_empty());
            let given = match known {
                Some(given) => given.clone(),
                None => self.give(place, native, out),
            };
            call.set("id", quote(&given));
            edited = true;
        }
        edited
    }

    /// A fresh id for the call at `place`; a server that leaves the index out opens
    /// the next call at the same place under another id.
    fn give(&mut self, place: (u64, u64), native: String, out: &mut Out<'_>) -> String {
        let given = self.mint.id(self.minted);
        self.minted += 1;
        out.alias(given.clone(), native);
        let at = At::call(to_index(place.0), to_index(place.1));
        out.note(What::Minted, at);
        self.given.insert(place, given.clone());
        given
    }
}

fn to_index(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn template_knows_its_own_ids() {
        let template = Template::parse("functions.{name}:{n}").expect("a template");
        assert_eq!(template.make("exec", 3), "functions.exec:3");
        for id in ["functions.exec:0", "functions.a.b:12", "functions.x:y:0"] {
            assert!(template.fits(id), "{id}");
        }
        for id in [
            "functionsexec0",
            "functions.exec:",
            "functions.:0",
            "functions.exec:0_split_1_date",
            "call_1",
            "",
        ] {
            assert!(!template.fits(id), "{id}");
        }
    }

    #[test]
    fn template_must_have_both_holes_and_a_border() {
        assert_eq!(
            Template::parse("functions.{name}").map(|_| ()),
            Err(
                "expected {name} and then {n} in parameter `rebuild`, got \"functions.{name}\""
                    .into()
            )
        );
        assert!(Template::parse("{name}{n}").is_err());
    }

    #[test]
    fn rebuilt_id_is_never_one_in_use() {
        let template = Template::parse("functions.{name}:{n}").expect("a template");
        let used = ["functions.exec:1".to_owned(), "functions.exec:2".to_owned()].into();
        assert_eq!(template.first_free("exec", 1, &used), "functions.exec:3");
        assert_eq!(template.first_free("read", 1, &used), "functions.read:1");
    }
}
