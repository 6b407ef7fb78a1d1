//! What is measured of Farrier: the table of scenarios, and who takes part in each.
//!
//! To measure something else, add a row.

use std::ops::RangeInclusive;

use crate::contest::DIRECT;
use crate::exchange::{
    CHAT_BYTES, HISTORY, KIMI_MODEL, KIMI_UPSTREAM_MODEL, LONG_HISTORY, Length, PLAIN_MODEL,
    Replayed, Script, chat, history, native_turns, plain_request, unknown_turns,
};
use crate::load::{Load, Timed};

/// One kind of request at one degree of concurrency.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) id: &'static str,
    pub(crate) what: &'static str,
    connections: usize,
    /// Open loop, at half of what these connections come to.
    pub(crate) at_half: bool,
    pub(crate) timed: Timed,
    pub(crate) script: Script,
    asked: Asked,
}

/// What is asked, which decides who takes part.
#[derive(Clone, Copy, Debug)]
enum Asked {
    /// 1 KB, also of a Farrier that logs each request.
    Chat,
    /// 1 KB.
    Question,
    History(Length),
}

/// A target, and the request it is sent.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    pub(crate) place: Place,
    pub(crate) request: Vec<u8>,
    /// How long a body the upstream must receive.
    pub(crate) upstream_bytes: RangeInclusive<usize>,
}

/// Where requests are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Direct,
    Farrier,
    /// Farrier that logs each request.
    FarrierLogging,
    Nginx,
}

/// The turns of long conversations, by what the ledger knows of them.
#[derive(Debug)]
pub(crate) struct Histories {
    known: Vec<Replayed>,
}

/// Requests that wait for their answer, and what they weigh meanwhile.
pub(crate) const MEMORY: &str = "memory";

pub(crate) const NGINX: &str = "nginx";
pub(crate) const PLAIN: &str = "farrier, no plan";
pub(crate) const KIMI: &str = "farrier, Kimi plan";
pub(crate) const KIMI_LOGGING: &str = "farrier, Kimi plan, log";
pub(crate) const KIMI_UNKNOWN: &str = "farrier, Kimi, unknown";
pub(crate) const KIMI_KNOWN: &str = "farrier, Kimi, known";
pub(crate) const KIMI_NATIVE: &str = "farrier, Kimi, native";

/// How much shorter a body becomes when the model is given the provider's name.
const RENAMED: usize = KIMI_MODEL.len() - KIMI_UPSTREAM_MODEL.len();
/// What one restored turn adds: its reasoning, its native id twice, its tool's name.
const RESTORED_TURN: RangeInclusive<usize> = 200..=400;
/// What one turn adds that nothing is known of: the placeholder, a rebuilt id twice, the name.
const UNKNOWN_TURN: RangeInclusive<usize> = 60..=120;

const STREAM: &str = "stream of 100 chunks";
const TOOLS: &str = "stream of 100 chunks, ends in a tool call";
const LONG: &str = "500 KB history of 200 messages";
const VERY_LONG: &str = "2 MB history of 800 messages";

/// All scenarios but that of memory.
pub(crate) const fn all() -> [Row; 14] {
    use Script::{Json, Paced, Stream, ToolStream};
    let question = Asked::Question;
    [
        row("chat-1", "1 KB chat", 1, Json, Asked::Chat),
        row("chat-16", "1 KB chat", 16, Json, Asked::Chat),
        row("stream-1", STREAM, 1, Stream, question),
        row("stream-16", STREAM, 16, Stream, question),
        row("tools-1", TOOLS, 1, ToolStream, question),
        row("tools-16", TOOLS, 16, ToolStream, question),
        Row {
            timed: Timed::Chunk,
            what: "stream of 100 chunks, 1 ms apart; latency of a chunk",
            ..row("paced-16", "", 16, Paced, question)
        },
        row("history-1", LONG, 1, Json, Asked::History(HISTORY)),
        row("history-16", LONG, 16, Json, Asked::History(HISTORY)),
        row("long-1", VERY_LONG, 1, Json, Asked::History(LONG_HISTORY)),
        row("long-16", VERY_LONG, 16, Json, Asked::History(LONG_HISTORY)),
        half("chat-half", "1 KB chat", Json, question),
        half("stream-half", STREAM, Stream, question),
        half("history-half", LONG, Json, Asked::History(HISTORY)),
    ]
}

/// What can be asked for by name.
pub(crate) fn ids() -> Vec<&'static str> {
    let ids = all().into_iter().map(|row| row.id);
    ids.chain([MEMORY]).collect()
}

const fn row(
    id: &'static str,
    what: &'static str,
    connections: usize,
    script: Script,
    asked: Asked,
) -> Row {
    Row {
        id,
        what,
        connections,
        at_half: false,
        timed: Timed::Request,
        script,
        asked,
    }
}

const fn half(id: &'static str, what: &'static str, script: Script, asked: Asked) -> Row {
    Row {
        at_half: true,
        ..row(id, what, 16, script, asked)
    }
}

// === impl Row ===

impl Row {
    pub(crate) const fn load(&self) -> Load {
        Load::Closed {
            connections: self.connections,
        }
    }

    pub(crate) fn entries(&self, histories: &Histories) -> Vec<Entry> {
        match self.asked {
            Asked::Question => everyone(self.script),
            Asked::Chat => {
                let mut entries = everyone(self.script);
                entries.push(Entry {
                    name: KIMI_LOGGING,
                    place: Place::FarrierLogging,
                    ..of_kimi(self.script)
                });
                entries
            }
            Asked::History(length) => histories.entries(length, self.script),
        }
    }
}

fn everyone(script: Script) -> Vec<Entry> {
    let plain = plain_request(script, &chat(PLAIN_MODEL, script));
    let mut entries = unplanned(&plain, CHAT_BYTES);
    entries.push(of_kimi(script));
    entries
}

fn of_kimi(script: Script) -> Entry {
    Entry {
        name: KIMI,
        place: Place::Farrier,
        request: plain_request(script, &chat(KIMI_MODEL, script)),
        upstream_bytes: exactly(CHAT_BYTES - RENAMED),
    }
}

/// Those that must pass the request on as it is.
fn unplanned(request: &[u8], bytes: usize) -> Vec<Entry> {
    [
        (DIRECT, Place::Direct),
        (NGINX, Place::Nginx),
        (PLAIN, Place::Farrier),
    ]
    .map(|(name, place)| Entry {
        name,
        place,
        request: request.to_vec(),
        upstream_bytes: exactly(bytes),
    })
    .into()
}

// === impl Histories ===

impl Histories {
    /// `known` are the turns of the longest history, with the ids that the gateway gave for them.
    pub(crate) fn new(known: Vec<Replayed>) -> Self {
        Self { known }
    }

    pub(crate) fn entries(&self, length: Length, script: Script) -> Vec<Entry> {
        let (unknown, native) = (unknown_turns(length), native_turns(length));
        let known = self.known.get(..length.turns()).unwrap_or(&self.known);
        let plain = plain_request(script, &history(PLAIN_MODEL, script, length, &unknown));
        let mut entries = unplanned(&plain, length.bytes());
        let kimi = [
            (KIMI_UNKNOWN, &*unknown, UNKNOWN_TURN),
            (KIMI_KNOWN, known, RESTORED_TURN),
            (KIMI_NATIVE, &*native, exactly(0)),
        ];
        entries.extend(kimi.map(|(name, turns, grown)| {
            let body = history(KIMI_MODEL, script, length, turns);
            Entry {
                name,
                place: Place::Farrier,
                request: plain_request(script, &body),
                upstream_bytes: with_turns(body.len() - RENAMED, turns.len(), &grown),
            }
        }));
        entries
    }
}

const fn exactly(bytes: usize) -> RangeInclusive<usize> {
    bytes..=bytes
}

fn with_turns(bytes: usize, turns: usize, turn: &RangeInclusive<usize>) -> RangeInclusive<usize> {
    bytes + turns * turn.start()..=bytes + turns * turn.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_has_an_id_of_its_own() {
        let mut ids = ids();
        ids.sort_unstable();
        let count = ids.len();
        ids.dedup();
        assert_eq!(ids.len(), count);
    }

    #[test]
    fn a_shorter_history_begins_as_the_longest_does() {
        let histories = Histories::new(unknown_turns(LONG_HISTORY));
        let entries = histories.entries(HISTORY, Script::Json);
        let requests: Vec<&[u8]> = entries
            .iter()
            .filter(|entry| [KIMI_KNOWN, KIMI_UNKNOWN].contains(&entry.name))
            .map(|entry| &*entry.request)
            .collect();
        assert!(matches!(requests[..], [unknown, known] if unknown == known));
    }
}
