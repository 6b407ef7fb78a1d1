//! A turn held against its case: the harness's own record, and what reached the model.

use farrier_harness::transcript::{Call, Entry, Said, Transcript};
use farrier_sim::Entry as Request;
use serde::Serialize;
use serde_json::Value;

use super::case::{Expect, Kind, Wrong};
use super::child::{Ended, How};
use crate::mask::Masker;

/// Something that is not as it must be.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    pub(crate) text: String,
}

/// One turn as its harness recorded it: what came after the user's last words.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Turn {
    /// The commands of each message of the model.
    pub(crate) rounds: Vec<Vec<String>>,
    pub(crate) final_text: String,
    /// What the harness's trajectory says ran in the whole session, in the order it ended.
    pub(crate) tool_runs: Vec<String>,
}

impl Fault {
    pub(crate) fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
        }
    }

    pub(crate) fn masked(&self, masker: &Masker) -> Self {
        Self::new(self.kind, masker.mask(&self.text))
    }
}

impl Wrong {
    /// Whether one of these is it.
    pub(crate) fn is_among(&self, faults: &[Fault]) -> bool {
        faults
            .iter()
            .any(|fault| fault.kind == self.fails && fault.text.contains(&self.saying))
    }
}

impl Turn {
    /// The last turn of a session.
    pub(crate) fn last_of(transcript: &Transcript) -> Self {
        let entries = last_turn(transcript);
        let rounds = said(entries).filter(|said| !said.calls.is_empty());
        let rounds = rounds.map(|said| said.calls.iter().map(command).collect());
        let text = match entries.last() {
            Some(Entry::Assistant(said)) => said.text.clone(),
            _ => String::new(),
        };
        let shown = |run: &farrier_harness::transcript::ToolRun| {
            let shown = run.shown.as_deref().unwrap_or_default();
            format!("{} {shown}", run.tool)
        };
        Self {
            rounds: rounds.collect(),
            final_text: text,
            tool_runs: transcript.tool_runs.iter().map(shown).collect(),
        }
    }

    pub(crate) fn masked(&self, masker: &Masker) -> Self {
        let all = |texts: &[String]| texts.iter().map(|text| masker.mask(text)).collect();
        Self {
            rounds: self.rounds.iter().map(|round| all(round)).collect(),
            final_text: masker.mask(&self.final_text),
            tool_runs: all(&self.tool_runs),
        }
    }
}

/// How a process ended.
pub(crate) fn ending(ended: &Ended) -> Vec<Fault> {
    let text = match ended.how {
        How::Exited if ended.code == Some(0) => return Vec::new(),
        How::Exited => {
            let code = ended
                .code
                .map_or_else(|| "by a signal".to_owned(), |code| format!("with {code}"));
            format!("it ended {code}; it said: {}", last_words(ended))
        }
        How::Silent => {
            let text = format!(
                "neither output nor request; it was ended; it said: {}",
                last_words(ended)
            );
            return vec![Fault::new(Kind::Silent, text)];
        }
        How::TooLong => format!(
            "it used up its time and was ended; it said: {}",
            last_words(ended)
        ),
    };
    vec![Fault::new(Kind::Ending, text)]
}

fn last_words(ended: &Ended) -> String {
    const LAST: usize = 3;
    let lines: Vec<&str> = ended.stderr.lines().chain(ended.stdout.lines()).collect();
    let from = lines.len().saturating_sub(LAST);
    let words = lines[from..].join(" | ");
    words.chars().take(600).collect()
}

/// What reached the model, request by request.
pub(crate) fn requests(requests: &[Request]) -> Vec<Fault> {
    let judge = |request: &Request| {
        let verdict = &request.verdict;
        let text = |key: &str| verdict[key].as_str().unwrap_or_default();
        match (text("kind"), verdict["status"].as_u64()) {
            ("refuse", Some(401)) => Some(Fault::new(Kind::Unauthorized, text("message"))),
            ("refuse", _) => Some(Fault::new(Kind::Refused, text("message"))),
            ("lose_thread", _) => Some(Fault::new(Kind::LostThread, verdict["lost"].to_string())),
            _ => None,
        }
    };
    requests.iter().filter_map(judge).collect()
}

/// The harness's record of the turn, against what the model is known to do. `turn` counts from 1.
pub(crate) fn hermetic(transcript: &Transcript, expect: &Expect, turn: usize) -> Vec<Fault> {
    let recorded = Turn::last_of(transcript);
    let mut faults = Vec::new();
    if recorded.rounds != expect.rounds {
        let (wanted, got) = (shown(&expect.rounds), shown(&recorded.rounds));
        faults.push(Fault::new(
            Kind::Commands,
            format!("expected the calls {wanted}, got {got}"),
        ));
    }
    let wanted = expect.final_text.replace("{turn}", &turn.to_string());
    if !recorded.final_text.starts_with(&wanted) {
        let text = format!(
            "expected a text that begins with {wanted:?}, got {:?}",
            recorded.final_text
        );
        faults.push(Fault::new(Kind::FinalText, text));
    }
    let expected: usize = expect.rounds.iter().map(Vec::len).sum();
    let runs = transcript.tool_runs.len();
    if runs > 0 && runs != expected * turn {
        let text = format!("expected {} tools to have run, got {runs}", expected * turn);
        faults.push(Fault::new(Kind::Commands, text));
    }
    faults.extend(tools(transcript, &expect.tool));
    faults.extend(results(last_turn(transcript)));
    faults
}

/// The record of a turn of a model that says what it likes.
pub(crate) fn live(transcript: &Transcript, expect: &Expect) -> Vec<Fault> {
    let recorded = Turn::last_of(transcript);
    let mut faults = Vec::new();
    if recorded.rounds.is_empty() {
        faults.push(Fault::new(
            Kind::Commands,
            "expected at least one call, got none",
        ));
    }
    if recorded.final_text.trim().is_empty() {
        faults.push(Fault::new(Kind::FinalText, "expected a text, got none"));
    }
    faults.extend(tools(transcript, &expect.tool));
    faults.extend(results(last_turn(transcript)));
    faults
}

/// Only the one tool was called, and nothing that ran went wrong.
fn tools(transcript: &Transcript, tool: &str) -> Vec<Fault> {
    let calls = transcript.calls().map(|call| call.tool.as_str());
    let runs = transcript.tool_runs.iter().map(|run| run.tool.as_str());
    let others = calls.chain(runs).filter(|name| *name != tool);
    let others = others.map(|name| {
        Fault::new(
            Kind::Commands,
            format!("expected only {tool} to be called, got {name:?}"),
        )
    });
    let failed = transcript
        .tool_runs
        .iter()
        .filter(|run| run.is_error == Some(true));
    let failed = failed.map(|run| {
        let shown = run.shown.as_deref().unwrap_or_default();
        Fault::new(Kind::Results, format!("{} {shown} failed", run.tool))
    });
    others.chain(failed).collect()
}

/// Each call has one result, in the order of the calls, before the model speaks again.
fn results(entries: &[Entry]) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut open: Vec<&Call> = Vec::new();
    for entry in entries {
        match entry {
            Entry::Assistant(said) => {
                faults.extend(open.drain(..).map(without_result));
                open.extend(&said.calls);
            }
            Entry::ToolResult(result) => match open.first() {
                Some(call) if call.id == result.call => {
                    if result.is_error == Some(true) {
                        let text = format!("{} failed: {}", command(call), result.text);
                        faults.push(Fault::new(Kind::Results, text));
                    }
                    open.remove(0);
                }
                _ => {
                    let text = format!("a result for {:?}, which was not called", result.call);
                    faults.push(Fault::new(Kind::Results, text));
                }
            },
            Entry::User { .. } => {}
        }
    }
    faults.extend(open.into_iter().map(without_result));
    faults
}

fn without_result(call: &Call) -> Fault {
    let text = format!("no result for {} ({:?})", command(call), call.id);
    Fault::new(Kind::Results, text)
}

fn last_turn(transcript: &Transcript) -> &[Entry] {
    let entries = &transcript.entries;
    let user = entries
        .iter()
        .rposition(|entry| matches!(entry, Entry::User { .. }));
    &entries[user.map_or(0, |user| user + 1)..]
}

fn said(entries: &[Entry]) -> impl Iterator<Item = &Said> {
    entries.iter().filter_map(|entry| match entry {
        Entry::Assistant(said) => Some(said),
        Entry::ToolResult(_) | Entry::User { .. } => None,
    })
}

/// What a call is to run.
fn command(call: &Call) -> String {
    match &call.arguments["command"] {
        Value::String(command) => command.clone(),
        _ => call.arguments.to_string(),
    }
}

fn shown(rounds: &[Vec<String>]) -> String {
    let rounds: Vec<String> = rounds
        .iter()
        .map(|commands| format!("[{}]", commands.join(", ")))
        .collect();
    rounds.join(" ")
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
