//! What is measured: the table of scenarios, and who takes part in each.
//!
//! To measure something else, add a row.

use std::ops::RangeInclusive;

use crate::exchange::{
    CHAT_BYTES, HISTORY_BYTES, KIMI_MODEL, KIMI_UPSTREAM_MODEL, PLAIN_MODEL, Script, TURNS, chat,
    history, request, unknown_ids,
};
use crate::load::Timed;

/// One kind of request at one degree of concurrency.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) id: &'static str,
    pub(crate) what: &'static str,
    pub(crate) connections: usize,
    pub(crate) timed: Timed,
    pub(crate) contestants: Vec<Contestant>,
}

/// A target, and the request it is sent.
#[derive(Clone, Debug)]
pub(crate) struct Contestant {
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

/// The histories of the long conversation, by what the ledger knows of their turns.
#[derive(Debug)]
pub(crate) struct Histories {
    known: Vec<String>,
    unknown: Vec<String>,
}

/// What can be asked for by name.
pub(crate) const IDS: [&str; 10] = [
    "chat-1",
    "chat-16",
    "stream-1",
    "stream-16",
    "tools-1",
    "tools-16",
    "paced-16",
    "history-1",
    "history-16",
    MEMORY,
];
/// Requests that wait for their answer, and what they weigh meanwhile.
pub(crate) const MEMORY: &str = "memory";

pub(crate) const DIRECT: &str = "direct";
pub(crate) const NGINX: &str = "nginx";
pub(crate) const PLAIN: &str = "farrier, no plan";
pub(crate) const KIMI: &str = "farrier, Kimi plan";
pub(crate) const KIMI_LOGGING: &str = "farrier, Kimi plan, log";
pub(crate) const KIMI_UNKNOWN: &str = "farrier, Kimi, 99 unknown";
pub(crate) const KIMI_KNOWN: &str = "farrier, Kimi, 99 known";

/// How much shorter a body becomes when the model is given the provider's name.
const RENAMED: usize = KIMI_MODEL.len() - KIMI_UPSTREAM_MODEL.len();
/// What one restored turn adds: its reasoning, its native id twice, its tool's name.
const RESTORED_TURN: RangeInclusive<usize> = 200..=400;
/// What one turn adds that nothing is known of: the placeholder, a rebuilt id twice, the name.
const UNKNOWN_TURN: RangeInclusive<usize> = 60..=120;

/// All scenarios but that of memory.
pub(crate) fn all(histories: &Histories) -> Vec<Scenario> {
    let chats = || {
        let mut contestants = everyone(Script::Json);
        contestants.push(Contestant {
            name: KIMI_LOGGING,
            place: Place::FarrierLogging,
            ..of_kimi(Script::Json)
        });
        contestants
    };
    vec![
        row("chat-1", "1 KB chat", 1, chats()),
        row("chat-16", "1 KB chat", 16, chats()),
        row(
            "stream-1",
            "stream of 100 chunks",
            1,
            everyone(Script::Stream),
        ),
        row(
            "stream-16",
            "stream of 100 chunks",
            16,
            everyone(Script::Stream),
        ),
        row(
            "tools-1",
            "stream of 100 chunks, ends in a tool call",
            1,
            everyone(Script::ToolStream),
        ),
        row(
            "tools-16",
            "stream of 100 chunks, ends in a tool call",
            16,
            everyone(Script::ToolStream),
        ),
        Scenario {
            timed: Timed::Chunk,
            ..row(
                "paced-16",
                "stream of 100 chunks, 1 ms apart; latency of a chunk",
                16,
                everyone(Script::Paced),
            )
        },
        row(
            "history-1",
            "500 KB history of 200 messages",
            1,
            histories.contestants(Script::Json),
        ),
        row(
            "history-16",
            "500 KB history of 200 messages",
            16,
            histories.contestants(Script::Json),
        ),
    ]
}

fn row(
    id: &'static str,
    what: &'static str,
    connections: usize,
    contestants: Vec<Contestant>,
) -> Scenario {
    Scenario {
        id,
        what,
        connections,
        timed: Timed::Request,
        contestants,
    }
}

fn everyone(script: Script) -> Vec<Contestant> {
    let plain = request(script, &chat(PLAIN_MODEL, script));
    let mut contestants = unplanned(&plain, CHAT_BYTES);
    contestants.push(of_kimi(script));
    contestants
}

fn of_kimi(script: Script) -> Contestant {
    Contestant {
        name: KIMI,
        place: Place::Farrier,
        request: request(script, &chat(KIMI_MODEL, script)),
        upstream_bytes: exactly(CHAT_BYTES - RENAMED),
    }
}

/// Those that must pass the request on as it is.
fn unplanned(request: &[u8], bytes: usize) -> Vec<Contestant> {
    [
        (DIRECT, Place::Direct),
        (NGINX, Place::Nginx),
        (PLAIN, Place::Farrier),
    ]
    .map(|(name, place)| Contestant {
        name,
        place,
        request: request.to_vec(),
        upstream_bytes: exactly(bytes),
    })
    .into()
}

// === impl Histories ===

impl Histories {
    /// `known` are the ids that the gateway gave for the turns of the history.
    pub(crate) fn new(known: Vec<String>) -> Self {
        Self {
            known,
            unknown: unknown_ids(),
        }
    }

    pub(crate) fn contestants(&self, script: Script) -> Vec<Contestant> {
        let plain = request(script, &history(PLAIN_MODEL, script, &self.unknown));
        let mut contestants = unplanned(&plain, HISTORY_BYTES);
        let kimi = [
            (KIMI_UNKNOWN, &self.unknown, UNKNOWN_TURN),
            (KIMI_KNOWN, &self.known, RESTORED_TURN),
        ];
        contestants.extend(kimi.map(|(name, ids, turn)| Contestant {
            name,
            place: Place::Farrier,
            request: request(script, &history(KIMI_MODEL, script, ids)),
            upstream_bytes: grown(&turn),
        }));
        contestants
    }
}

const fn exactly(bytes: usize) -> RangeInclusive<usize> {
    bytes..=bytes
}

fn grown(turn: &RangeInclusive<usize>) -> RangeInclusive<usize> {
    let bytes = HISTORY_BYTES - RENAMED;
    bytes + TURNS * turn.start()..=bytes + TURNS * turn.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_can_be_asked_for_by_its_id() {
        let scenarios = all(&Histories::new(unknown_ids()));
        let ids: Vec<&str> = scenarios
            .iter()
            .map(|scenario| scenario.id)
            .chain([MEMORY])
            .collect();
        assert_eq!(ids, IDS);
    }
}
