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

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::event::{Event, Out, StreamPass};
use super::survey::Hit;
use super::{At, Ids, Kind, Mint, Needs, Param, ParamKind, Params, Pass, Scene, What};
use crate::fault::Fault;
use crate::wire::calls::Calls;
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
            answers: true,
            calls: true,
            texts: false,
            ids: if self.minted {
                Ids::Minted
            } else {
                Ids::Native
            },
        }
    }

    fn ask(&self, ask: &mut Ask<'_>, scene: &mut Scene<'_>) -> Result<(), Fault> {
        let survey = scene.survey;
        let ids = self.ids_for_model(scene);
        for (index, message) in ask.messages_mut().enumerate() {
            if let Some(call) = survey.answered_by(index) {
                if let Some((id, _)) = ids.get(call)
                    && message.text("tool_call_id").is_none_or(|now| now != *id)
                {
                    message.set("tool_call_id", quote(id));
                }
                continue;
            }
            let Some((said, calls)) = survey.said_at(index).zip(chat::calls_mut(message)) else {
                continue;
            };
            let calls = calls.items_mut().filter_map(Value::object_mut);
            for (n, (call, (number, replayed))) in calls.zip(survey.calls_of(said)).enumerate() {
                if let Some((id, what)) = ids.get(number)
                    && replayed.id != *id
                {
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
                choices: HashMap::new(),
            }) as Box<dyn StreamPass>
        })
    }
}

impl ToolCallId {
    /// The id the model must see for each call that needs another one than it has.
    fn ids_for_model<'s>(&self, scene: &Scene<'s>) -> NewIds<'s> {
        let mut ids = NewIds(vec![None; scene.survey.call_count()]);
        let mut used = HashSet::with_capacity(scene.survey.call_count());
        let mut unknown = Vec::new();
        for said in scene.survey.said() {
            let hit = scene.recollection.of(said);
            for (n, (number, call)) in scene.survey.calls_of(said).enumerate() {
                let known = hit.and_then(|hit| self.known(hit, n, scene.origin));
                match known {
                    Some(native) => {
                        used.insert(native);
                        ids.put(number, native.into(), What::Restored);
                    }
                    None if self.is_native(&call.id, &used) => drop(used.insert(&call.id)),
                    None => unknown.push((number, &*call.name)),
                }
            }
        }
        if let Some(template) = &self.rebuild {
            // Where the search for a free number goes on, by name.
            let mut next: HashMap<&str, usize> = HashMap::new();
            for (number, name) in unknown {
                let from = next.get(name).map_or(number, |next| number.max(*next));
                let (id, n) = template.first_free(name, from, &used);
                next.insert(name, n + 1);
                ids.put(number, id.into(), What::Rebuilt);
            }
        }
        ids
    }

    /// The model's own id of the call at `n` of a message that the ledger knows, if this model
    /// may see it.
    fn known<'s>(&self, hit: &'s Hit, n: usize, origin: &str) -> Option<&'s str> {
        let native = hit.turn.native_id(*hit.calls.get(n)?)?;
        let fits = hit.turn.origin() == origin || self.is_form(native);
        (fits && !native.is_empty()).then_some(native)
    }

    /// Whether the id has the model's form, whoever gave it.
    fn is_form(&self, id: &str) -> bool {
        self.rebuild
            .as_ref()
            .is_none_or(|template| template.fits(id))
    }

    /// Whether the model may see this id as it is.
    fn is_native(&self, id: &str, used: &HashSet<&str>) -> bool {
        self.rebuild.is_none() || (self.is_form(id) && !used.contains(id))
    }
}

/// Ids for calls, by the call's number; none where the call keeps its own.
struct NewIds<'s>(Vec<Option<(Cow<'s, str>, What)>>);

impl<'s> NewIds<'s> {
    fn put(&mut self, call: usize, id: Cow<'s, str>, what: What) {
        if let Some(place) = self.0.get_mut(call) {
            *place = Some((id, what));
        }
    }

    fn get(&self, call: usize) -> Option<&(Cow<'s, str>, What)> {
        self.0.get(call)?.as_ref()
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

    /// The first id from number `from` on that is not in use, and its number.
    fn first_free(&self, name: &str, from: usize, used: &HashSet<&str>) -> (String, usize) {
        // At most one number per id in use is taken, so the search ends.
        (from..=from + used.len())
            .map(|n| (self.make(name, n), n))
            .find(|(id, _)| !used.contains(id.as_str()))
            .unwrap_or_else(|| (self.make(name, from), from))
    }
}

/// Gives the calls of one reply minted ids.
struct Minting {
    mint: Mint,
    minted: u64,
    choices: HashMap<u64, Given>,
}

/// The ids given to the calls of one choice.
#[derive(Default)]
struct Given {
    calls: Calls,
    /// By call number.
    ids: Vec<String>,
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

    fn lets_repeats_by(&self) -> bool {
        // A repeat goes on with a call that has its id, and names no other.
        true
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
        let given = self.choices.entry(index).or_default();
        let calls = calls.items_mut().filter_map(Value::object_mut);
        for (position, call) in calls.enumerate() {
            let number = if whole {
                position
            } else {
                given.calls.place(call)
            };
            let opens = number >= given.ids.len();
            if opens {
                let id = self.mint.id(self.minted);
                self.minted += 1;
                let native = call.text("id").unwrap_or_default().into_owned();
                out.alias(id.clone(), native);
                out.note(What::Minted, At::call(to_index(index), number));
                given.ids.push(id);
            }
            // A continuation needs no id; one that repeats it gets ours.
            if let Some(id) = given.ids.get(number)
                && (opens || call.text("id").is_some_and(|id| !id.is_empty()))
            {
                call.set("id", quote(id));
                edited = true;
            }
        }
        edited
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
        let used = ["functions.exec:1", "functions.exec:2"].into();
        assert_eq!(template.first_free("exec", 1, &used).0, "functions.exec:3");
        assert_eq!(template.first_free("read", 1, &used).0, "functions.read:1");
    }
}
