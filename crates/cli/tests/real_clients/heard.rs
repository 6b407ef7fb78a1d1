//! The persona's log: what reached the model, conversation by conversation.

use serde::Deserialize;

/// `GET /sim/log`
#[derive(Debug, Deserialize)]
pub(crate) struct Log {
    pub(crate) entries: Vec<Entry>,
}

/// One request, and what the persona made of it.
#[derive(Debug, Deserialize)]
pub(crate) struct Entry {
    pub(crate) heard: Heard,
    pub(crate) verdict: Verdict,
    pub(crate) outcome: Outcome,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Heard {
    pub(crate) conversation: String,
    pub(crate) stream: bool,
    pub(crate) assistant: Vec<Assistant>,
    pub(crate) results: Vec<ToolResult>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Assistant {
    pub(crate) ids: Vec<String>,
    /// `ok` if it is, word for word, what the model thought there.
    pub(crate) reasoning: String,
}

#[derive(Debug, Deserialize, PartialEq)]
pub(crate) struct ToolResult {
    pub(crate) id: Option<String>,
    pub(crate) name: Option<String>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Verdict {
    Call { ids: Vec<String> },
    Finish,
    LoseThread,
    Refuse { message: String },
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(crate) enum Outcome {
    Aborted,
    Cancelled,
    Done,
    Speaking,
}

/// What the persona is going to do with a client that plays along, and the ids it should hear for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Script {
    /// Turns of the conversation.
    pub(crate) turns: usize,
    /// Calls side by side in each round.
    pub(crate) calls: usize,
    /// The ids under which the model's call of this running number comes back.
    pub(crate) ids: fn(usize) -> Vec<String>,
}

/// Tool rounds in a turn, in every persona played here.
const TOOL_ROUNDS: usize = 3;

// === impl Log ===

impl Log {
    /// The requests of each conversation, in the order of their beginnings.
    pub(crate) fn conversations(&self) -> Vec<Vec<&Entry>> {
        let mut conversations: Vec<Vec<&Entry>> = Vec::new();
        for entry in &self.entries {
            let name = &entry.heard.conversation;
            let known = conversations
                .iter_mut()
                .find(|known| known[0].heard.conversation == *name);
            match known {
                Some(known) => known.push(entry),
                None => conversations.push(vec![entry]),
            }
        }
        conversations
    }

    /// How often one conversation's request was followed by another's.
    pub(crate) fn switches(&self) -> usize {
        let follows = self.entries.windows(2);
        follows
            .filter(|pair| pair[0].heard.conversation != pair[1].heard.conversation)
            .count()
    }
}

// === impl Script ===

impl Script {
    /// A conversation as the persona has it, call by call.
    pub(crate) fn of_turns(turns: usize) -> Self {
        Self {
            turns,
            calls: 1,
            ids: |n| vec![native(n)],
        }
    }

    /// The client's answers and the persona's requests of a conversation that is played to its end.
    pub(crate) const fn rounds(&self) -> usize {
        self.turns * (TOOL_ROUNDS + 1)
    }

    /// Each request of `conversation` bore every turn before it as the model wrote it: native ids in their order, the
    /// thought of that very place, results that name their tool and belong to their call.
    pub(crate) fn expect_played(&self, conversation: &[&Entry]) {
        assert_eq!(conversation.len(), self.rounds(), "requests");
        for (n, entry) in conversation.iter().enumerate() {
            let (turn, round) = (n / (TOOL_ROUNDS + 1), n % (TOOL_ROUNDS + 1));
            let made = (turn * TOOL_ROUNDS + round) * self.calls;
            let expected: Vec<String> = (0..made).flat_map(self.ids).collect();
            let heard = &entry.heard;
            let turns = heard.assistant.iter().filter(|said| !said.ids.is_empty());
            let ids: Vec<&String> = turns.clone().flat_map(|said| &said.ids).collect();
            assert_eq!(
                ids,
                expected.iter().collect::<Vec<_>>(),
                "ids of request {n}"
            );
            let reasoning: Vec<&str> = turns.map(|said| said.reasoning.as_str()).collect();
            assert_eq!(
                reasoning,
                vec!["ok"; made / self.calls],
                "reasoning in request {n}"
            );
            let results: Vec<ToolResult> = expected.into_iter().map(of_exec).collect();
            assert_eq!(heard.results, results, "results in request {n}");

            let calls = (made..made + self.calls).map(native).collect();
            let verdict = match round {
                TOOL_ROUNDS => Verdict::Finish,
                _ => Verdict::Call { ids: calls },
            };
            assert_eq!(entry.verdict, verdict, "answer to request {n}");
            assert_eq!(entry.outcome, Outcome::Done, "answer to request {n}");
        }
    }
}

/// The id the model gives its call of this running number in a conversation; the same in every conversation.
pub(crate) fn native(n: usize) -> String {
    format!("functions.exec:{n}")
}

fn of_exec(id: String) -> ToolResult {
    ToolResult {
        id: Some(id),
        name: Some("exec".to_owned()),
    }
}
