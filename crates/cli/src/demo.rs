//! The demonstration: one client, one strict model, first without Farrier and then with it.
//!
//! Hermetic: the model is a persona in this process, the gateway is the real one, both on free loopback ports; the
//! ledger and the transcripts are in a directory that is gone afterwards. What the model received is read from the
//! persona's log, what passes did from the gateway's transcripts.

mod harness;
mod machine;
mod show;
mod stage;
mod trajectory;

pub(crate) use show::show;
pub(crate) use stage::{CLIENT_MODEL, Stage, Upkeep};
pub(crate) use trajectory::Demonstration;

use std::path::Path;

use farrier_sim::Persona;
use serde::Deserialize;

use crate::failure::Failure;
use harness::{AGENT, Harness, TASK};
use trajectory::{Answer, Note, Trajectory};

/// What a strict model refuses a history without reasoning with.
const REFUSAL: &str = "thinking is enabled but reasoning_content is missing";
/// What it ends with when it has kept the thread.
const FINAL: &str = "FINAL answer";
/// Requests beyond the tool rounds that a run may take.
const SLACK: usize = 4;

/// Runs the client against the persona, then through a gateway before it.
pub(crate) async fn perform(persona: Persona, rounds: Option<u32>) -> Result<Demonstration, Failure> {
    let (name, description) = (persona.name().to_owned(), persona.description().to_owned());
    let most = usize::try_from(rounds.unwrap_or(MOST_USUAL_ROUNDS)).unwrap_or(usize::MAX).saturating_add(SLACK);
    let stage = Stage::build(persona, rounds).await?;
    let log = stage.log();

    let mut straight = Harness::new(&stage.persona_url(), stage.upstream_model()).work(most).await?;
    let before = log.entries().len();
    straight.heard(&log.entries());

    let client = Harness::new(&stage.gateway_url(), CLIENT_MODEL);
    let (worked, upkeep) = stage.during(client.work(most)).await;
    let mut through = worked?;
    through.heard(log.entries().get(before..).unwrap_or_default());
    through.noted(notes(&upkeep.transcripts())?);

    let differences = differences(&straight, &through);
    Ok(Demonstration {
        persona: name,
        description,
        agent: AGENT,
        task: TASK,
        straight,
        through,
        as_expected: differences.is_empty(),
        differences,
    })
}

/// Enough for every embedded persona.
const MOST_USUAL_ROUNDS: u32 = 16;

/// What did not go as it must.
fn differences(straight: &Trajectory, through: &Trajectory) -> Vec<String> {
    let mut differences = Vec::new();
    match straight.outcome() {
        Some(Answer::Refused { status: 400, message }) if message.contains(REFUSAL) => {}
        other => differences.push(format!(
            "straight to the model: expected a 400 that says {REFUSAL:?}, got {}",
            told(other)
        )),
    }
    match through.outcome() {
        Some(Answer::Text { text }) if text.starts_with(FINAL) => {}
        other => differences.push(format!(
            "through Farrier: expected a text that begins with {FINAL:?}, got {}",
            told(other)
        )),
    }
    differences
}

fn told(answer: Option<&Answer>) -> String {
    match answer {
        None => "no answer".to_owned(),
        Some(Answer::Calls { .. }) => "tool calls to the end".to_owned(),
        Some(Answer::Refused { status, message }) => format!("HTTP {status}: {message}"),
        Some(Answer::Text { text }) => format!("the text {text:?}"),
    }
}

/// The part of a transcript's `case.toml` that is read here.
#[derive(Deserialize)]
struct Case {
    #[serde(default)]
    notes: Vec<Note>,
}

/// What passes did, request by request: transcripts are numbered in their order.
fn notes(transcripts: &Path) -> Result<Vec<Vec<Note>>, Failure> {
    let cannot = |error: &dyn std::error::Error| {
        Failure::internal("cannot read the gateway's transcripts", error)
    };
    let found = std::fs::read_dir(transcripts).map_err(|error| cannot(&error))?;
    let mut folders = found
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| cannot(&error))?;
    folders.sort();
    let read = folders.iter().map(|folder| {
        let text = std::fs::read_to_string(folder.join("case.toml"));
        let text = text.map_err(|error| cannot(&error))?;
        let case: Case = toml::from_str(&text).map_err(|error| cannot(&error))?;
        Ok(case.notes)
    });
    read.collect()
}
