//! The history held against the script: which calls the model made, where it stands, what got lost.
//!
//! ```text
//! assistant{exec:0}  tool  assistant{exec:1}  tool  assistant{"FINAL answer"}  user  assistant{exec:2} …
//! └── round 0 ─────┘       └── round 1 ─────┘       └── turn 1 ends ───────┘         └── turn 2, round 0
//! ```
//!
//! Calls are matched to the open calls of the current round by id, not by message, so it does not matter how a client
//! groups them. A round ends when each of its calls is back, whole or in all its pieces; a turn ends at the marker. After
//! the first trouble the walk goes on, filling open calls in order, so that missing reasoning is still found; reasoning
//! that differs is no longer held against the client there, because the place is a guess.

use std::collections::HashSet;

use super::ask::{Ask, Message, ReplayedCall};
use super::script::{Place, Script};
use super::{Heard, HeardAssistant, HeardReasoning, HeardResult, Lost};

/// More characters than any id a client sends (607 were seen to survive).
const LONGEST_NAME: usize = 1_024;

/// What a walk over the history found.
#[derive(Debug)]
pub(super) struct Replay<'a> {
    script: &'a Script<'a>,
    place: Place,
    /// Calls of the round in progress; empty between rounds.
    open: Vec<OpenCall>,
    given: HashSet<&'a str>,
    answered: HashSet<&'a str>,
    /// The tool of the latest call, to name the ids of missing ones.
    tool: &'a str,
    lost: Option<(Lost, String)>,
    assistant: Vec<HeardAssistant>,
    results: Vec<HeardResult>,
}

/// A call that the model made in the round in progress.
#[derive(Debug)]
struct OpenCall {
    n: u64,
    command: String,
    /// Came back whole, or was written off.
    back: bool,
    /// The pieces it may have been split into; none when it is one command.
    pieces: Vec<Piece>,
}

#[derive(Debug)]
struct Piece {
    /// 1-based.
    position: usize,
    command: String,
    back: bool,
}

impl<'a> Replay<'a> {
    /// Walks the history.
    pub(super) fn of(ask: &'a Ask<'a>, script: &'a Script<'a>) -> Self {
        let mut replay = Self {
            script,
            place: Place::default(),
            open: Vec::new(),
            given: HashSet::new(),
            answered: HashSet::new(),
            tool: "",
            lost: None,
            assistant: Vec::new(),
            results: Vec::new(),
        };
        for (index, message) in ask.messages.iter().enumerate() {
            match message.role() {
                "assistant" => replay.hear_assistant(index, message),
                "tool" => replay.hear_result(index, message),
                _ => {}
            }
        }
        replay.expect_whole_round();
        replay
    }

    /// Where the next answer belongs.
    pub(super) fn place(&self) -> Place {
        self.place
    }

    /// The first trouble, and the id it is about.
    pub(super) fn lost(&self) -> Option<(&Lost, &str)> {
        self.lost.as_ref().map(|(lost, id)| (lost, id.as_str()))
    }

    /// The first message with tool calls whose reasoning came back so.
    pub(super) fn first_reasoning(&self, state: HeardReasoning) -> Option<usize> {
        self.assistant
            .iter()
            .find(|heard| !heard.ids.is_empty() && heard.reasoning == state)
            .map(|heard| heard.index)
    }

    pub(super) fn into_heard(self, ask: &Ask<'_>, script: &Script<'_>) -> Heard {
        Heard {
            model: ask.model.map(clipped),
            conversation: script.conversation.clone(),
            turn: self.place.turns + 1,
            round: self.place.rounds,
            thinking: ask.thinking,
            stream: ask.stream,
            messages: ask.messages.len(),
            tools: ask.tools.iter().map(|tool| clipped(tool.name)).collect(),
            assistant: self.assistant,
            results: self.results,
        }
    }

    fn hear_assistant(&mut self, index: usize, message: &'a Message<'a>) {
        let calls = message.calls();
        let was_lost = self.lost.is_some();
        let mut spoken_at = None;
        for call in &calls {
            let at = self.hear_call(index, call);
            spoken_at = spoken_at.or(at);
        }
        let reasoning = match message.reasoning(&self.script.sheet.reasoning.demanded_as) {
            None => HeardReasoning::Absent,
            Some(text) => match spoken_at {
                Some(place) if text == self.script.reasoning(place) => HeardReasoning::Ok,
                Some(_) if !was_lost => HeardReasoning::Wrong,
                _ => HeardReasoning::Present,
            },
        };
        let ids = calls.iter().map(|call| clipped(call.id)).collect();
        self.assistant.push(HeardAssistant {
            index,
            ids,
            reasoning,
        });

        if message.text().contains(&self.script.sheet.answers.marker) {
            self.expect_whole_round();
            self.close_round();
            self.place.turns += 1;
            self.place.rounds = 0;
        }
    }

    /// Takes one call into the round in progress; says where the model made it, if it made one there.
    fn hear_call(&mut self, index: usize, call: &ReplayedCall<'a>) -> Option<Place> {
        if self.open.is_empty() {
            self.open = self.open_calls();
            if self.script.repeats_ids() {
                self.given.clear();
                self.answered.clear();
            }
        }
        let place = (!self.open.is_empty()).then_some(self.place);
        let id = clipped(call.id);
        self.tool = call.name;
        if !self.given.insert(call.id) {
            self.lose(Lost::Repeated { index, id }, call.id);
            return place;
        }
        match self.take(call) {
            Some(command) if self.script.gave(call.name, &command, &call.arguments) => {}
            Some(_) => self.lose(Lost::OtherArguments { index, id }, call.id),
            None => {
                let expected = self.missing();
                self.lose(
                    Lost::NotGiven {
                        index,
                        id,
                        expected,
                    },
                    call.id,
                );
                self.write_off();
            }
        }
        if self.open.iter().all(OpenCall::is_back) {
            self.close_round();
        }
        place
    }

    fn hear_result(&mut self, index: usize, message: &Message<'a>) {
        let id = message.result_id();
        let known = id.is_some_and(|id| self.given.contains(id) && self.answered.insert(id));
        if !known {
            let stray = id.map(clipped);
            self.lose(
                Lost::StrayResult { index, id: stray },
                id.unwrap_or_default(),
            );
        }
        let name = message.name().map(clipped);
        let id = message.result_id().map(clipped);
        self.results.push(HeardResult { index, id, name });
    }

    fn open_calls(&self) -> Vec<OpenCall> {
        let separator = self.script.sheet.calls.split.separator;
        (self.place.calls..)
            .zip(self.script.commands(self.place))
            .map(|(n, command)| OpenCall {
                n,
                pieces: pieces(&command, separator),
                command,
                back: false,
            })
            .collect()
    }

    /// Marks the open call, or the piece of one, that bears this id; gives the command it had.
    fn take(&mut self, call: &ReplayedCall<'_>) -> Option<String> {
        let (script, before) = (self.script, self.place.calls);
        for open in &mut self.open {
            let native = script.id(call.name, open.n, before);
            if call.id == native {
                return open.take_whole();
            }
            let piece = open
                .pieces
                .iter_mut()
                .find(|piece| script.split_id(&native, piece.position, &piece.command) == call.id);
            if let Some(piece) = piece.filter(|_| !open.back) {
                piece.back = true;
                return Some(piece.command.clone());
            }
        }
        let tolerated = &script.sheet.calls.tolerated_id_prefixes;
        if tolerated.iter().any(|prefix| call.id.starts_with(prefix)) {
            return self.open.iter_mut().find_map(OpenCall::take_whole);
        }
        None
    }

    /// Counts the next open call as back although another id came for it.
    fn write_off(&mut self) {
        if let Some(open) = self.open.iter_mut().find(|open| !open.is_back()) {
            open.back = true;
        }
    }

    fn expect_whole_round(&mut self) {
        if let Some(id) = self.missing() {
            self.lose(Lost::Incomplete { id: id.clone() }, &id);
        }
    }

    fn close_round(&mut self) {
        if !self.open.is_empty() {
            self.place.calls += self.open.len() as u64;
            self.place.rounds += 1;
            self.open.clear();
        }
    }

    /// The id of the first call, or piece, that is not back.
    fn missing(&self) -> Option<String> {
        let open = self.open.iter().find(|open| !open.is_back())?;
        let native = self.script.id(self.tool, open.n, self.place.calls);
        let begun = open.pieces.iter().any(|piece| piece.back);
        let piece = open.pieces.iter().find(|piece| begun && !piece.back);
        Some(match piece {
            Some(piece) => self
                .script
                .split_id(&native, piece.position, &piece.command),
            None => native,
        })
    }

    fn lose(&mut self, lost: Lost, id: &str) {
        self.lost.get_or_insert_with(|| (lost, clipped(id)));
    }
}

/// A client's own name for something, short enough to be kept in a log.
fn clipped(name: &str) -> String {
    name.chars().take(LONGEST_NAME).collect()
}

impl OpenCall {
    fn is_back(&self) -> bool {
        self.back || (!self.pieces.is_empty() && self.pieces.iter().all(|piece| piece.back))
    }

    /// Not when some pieces are back already: a call comes back whole or split, not both.
    fn take_whole(&mut self) -> Option<String> {
        let untouched = !self.back && self.pieces.iter().all(|piece| !piece.back);
        untouched.then(|| {
            self.back = true;
            self.command.clone()
        })
    }
}

/// A combined command's pieces; each command once, at its first position, as the split drops repeats (KIMI-8).
fn pieces(command: &str, separator: char) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    for (before, piece) in command.split(separator).map(str::trim).enumerate() {
        if pieces.iter().all(|known| known.command != piece) {
            let command = piece.to_owned();
            pieces.push(Piece {
                position: before + 1,
                command,
                back: false,
            });
        }
    }
    if pieces.len() < 2 {
        pieces.clear();
    }
    pieces
}
