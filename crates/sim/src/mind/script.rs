//! What the persona says at a place of a conversation: thoughts, commands, ids, texts.
//!
//! All of it follows from persona, options and request, so the same place always gets the same words. That is what lets
//! a stateless server verify a replay word by word.

use super::ask::Ask;
use super::replay::Replay;
use super::tools::{Tool, spaced};
use super::{Answer, Call, Form, Intent, Usage};
use crate::options::Options;
use crate::persona::{MOST_CALLS_PER_ROUND, MOST_ROUNDS, Persona, Sheet};

/// The persona's lines for one conversation.
#[derive(Debug)]
pub(super) struct Script<'a> {
    pub(super) sheet: &'a Sheet,
    pub(super) conversation: String,
    pub(super) rounds: u32,
    calls_per_round: u32,
    tools: &'a [Tool<'a>],
}

/// A moment of a conversation.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Place {
    /// Turns that ended before.
    pub(super) turns: u32,
    /// Rounds of this turn that ended before.
    pub(super) rounds: u32,
    /// Calls of the whole conversation before this round.
    pub(super) calls: u64,
}

impl<'a> Script<'a> {
    pub(super) fn new(persona: &'a Persona, options: &Options, ask: &'a Ask<'_>) -> Self {
        let sheet = &persona.sheet;
        let calls_per_round = options
            .calls_per_round
            .unwrap_or(sheet.script.calls_per_round);
        Self {
            sheet,
            conversation: conversation(options.seed, &ask.opening()),
            rounds: options
                .rounds
                .unwrap_or(sheet.script.rounds)
                .min(MOST_ROUNDS),
            calls_per_round: calls_per_round.clamp(1, MOST_CALLS_PER_ROUND),
            tools: &ask.tools,
        }
    }

    /// The thought of a place. Unique to it: the text names conversation, turn and round.
    pub(super) fn reasoning(&self, place: Place) -> String {
        self.sheet.reasoning.text.render(&[
            ("conversation", &self.conversation),
            ("turn", &(place.turns + 1)),
            ("round", &place.rounds),
        ])
    }

    /// The commands of a place's round, one for each call; none once the script is played out.
    pub(super) fn commands(&self, place: Place) -> Vec<String> {
        let script = &self.sheet.script;
        let round = place.rounds;
        if round >= self.rounds {
            return Vec::new();
        }
        let first = match round {
            0 => script.opening.clone(),
            _ => script.then.render(&[("round", &round)]),
        };
        let beside = (1..self.calls_per_round)
            .map(|call| script.beside.render(&[("round", &round), ("call", &call)]));
        std::iter::once(first).chain(beside).collect()
    }

    /// kimi-native-tool-id: `functions.<tool>:<running count in the conversation>`; `n` is that count, `before` what it
    /// was when the round began.
    pub(super) fn id(&self, tool: &str, n: u64, before: u64) -> String {
        let call = n - before;
        let slots: [(&str, &dyn std::fmt::Display); 3] =
            [("tool", &tool), ("n", &n), ("call", &call)];
        self.sheet.calls.id.render(&slots)
    }

    /// Whether ids of one round come again in the next.
    pub(super) fn repeats_ids(&self) -> bool {
        !self.sheet.calls.id.has("n")
    }

    /// kimi-combined-exec-split: the id of one piece of a call that the harness's side split.
    pub(super) fn split_id(&self, id: &str, position: usize, command: &str) -> String {
        let slots: [(&str, &dyn std::fmt::Display); 3] =
            [("id", &id), ("n", &position), ("command", &command)];
        self.sheet.calls.split.id.render(&slots)
    }

    /// Whether a replayed call's arguments are those the model gave. Not judged when the tool is no longer on offer: its
    /// schema, and so the shape the model chose, is not known any more.
    pub(super) fn gave(&self, tool: &str, command: &str, arguments: &serde_json::Value) -> bool {
        let offered = self.tools.iter().find(|offered| offered.name == tool);
        offered.is_none_or(|offered| offered.arguments(command) == *arguments)
    }

    /// The next answer.
    pub(super) fn answer(&self, ask: &Ask<'_>, replay: &Replay<'_>, body_bytes: usize) -> Answer {
        let place = replay.place();
        let (intent, text, calls) = match (replay.lost(), self.calls(ask, place)) {
            (Some((lost, id)), _) => {
                let text = self.sheet.answers.lost.render(&[("id", &id)]);
                (Intent::LoseThread(lost.clone()), text, Vec::new())
            }
            (None, calls) if calls.is_empty() => {
                let text = self
                    .sheet
                    .answers
                    .r#final
                    .render(&[("turn", &(place.turns + 1))]);
                (Intent::Finish, text, calls)
            }
            (None, calls) => (Intent::Call, self.sheet.script.preamble.clone(), calls),
        };
        let thought = ask.thinking.then(|| self.reasoning(place));
        let field = &self.sheet.reasoning.emitted_as;
        Answer {
            intent,
            id: format!(
                "chatcmpl-{}-{}-{}",
                self.conversation,
                place.turns + 1,
                place.rounds
            ),
            model: ask.model.unwrap_or(&self.sheet.models[0]).to_owned(),
            usage: usage(
                body_bytes,
                thought.as_deref().unwrap_or_default(),
                &text,
                &calls,
            ),
            reasoning: thought.map(|thought| (field.clone(), thought)),
            text,
            calls,
            form: match ask.stream {
                true => Form::Stream {
                    include_usage: ask.include_usage,
                },
                false => Form::Whole,
            },
        }
    }

    /// The calls of a place: none without tools, or when the script is played out.
    fn calls(&self, ask: &Ask<'_>, place: Place) -> Vec<Call> {
        let Some(tool) = self.tool(ask) else {
            return Vec::new();
        };
        let commands = self.commands(place);
        (place.calls..)
            .zip(&commands)
            .map(|(n, command)| Call {
                id: self.id(tool.name, n, place.calls),
                name: tool.name.to_owned(),
                arguments: spaced(&tool.arguments(command)),
            })
            .collect()
    }

    /// The forced tool, else the persona's favourite among those on offer, else the first.
    fn tool(&self, ask: &Ask<'_>) -> Option<&Tool<'a>> {
        let named = |name: &str| self.tools.iter().find(|tool| tool.name == name);
        ask.forced_tool
            .and_then(named)
            .or_else(|| self.sheet.calls.prefer.iter().find_map(|name| named(name)))
            .or_else(|| self.tools.first())
    }
}

/// Eight hex digits that stand for a conversation.
fn conversation(seed: u64, opening: &str) -> String {
    let mut digest = blake3::Hasher::new();
    digest
        .update(&seed.to_le_bytes())
        .update(opening.as_bytes());
    digest.finalize().to_hex()[..8].to_owned()
}

fn usage(body_bytes: usize, thought: &str, text: &str, calls: &[Call]) -> Usage {
    let called: usize = calls
        .iter()
        .map(|call| call.name.len() + call.arguments.len())
        .sum();
    let reasoning = thought.len().div_ceil(4);
    Usage {
        prompt: body_bytes.div_ceil(4),
        completion: reasoning + (text.len() + called).div_ceil(4),
        reasoning,
    }
}
