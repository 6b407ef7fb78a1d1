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

pub(crate) use harness::Harness;
pub(crate) use show::show;
pub(crate) use stage::{CLIENT_MODEL, Stage};
pub(crate) use trajectory::{Answer, Demonstration, Exchange};

use std::path::Path;

use farrier_sim::Persona;
use serde::Deserialize;

use crate::failure::Failure;
use harness::{AGENT, TASK};
use trajectory::{Note, Trajectory};

/// What a strict model says of a history that lost what it wants back.
const REFUSALS: [&str; 2] = ["reasoning_content is missing", "name is missing"];
/// What it ends with when it has kept the thread.
const FINAL: &str = "FINAL answer";
/// Enough tool rounds for every embedded persona.
const MOST_USUAL_ROUNDS: u32 = 16;
/// Requests beyond the tool rounds that a run may take.
const SLACK: usize = 4;

/// Runs the client against the persona, then through a gateway before it.
pub(crate) async fn perform(
    persona: Persona,
    rounds: Option<u32>,
) -> Result<Demonstration, Failure> {
    let (name, description) = (persona.name().to_owned(), persona.description().to_owned());
    let most = usize::try_from(rounds.unwrap_or(MOST_USUAL_ROUNDS))
        .unwrap_or(usize::MAX)
        .saturating_add(SLACK);
    let stage = Stage::build(persona, rounds).await?;
    let log = stage.log();

    let mut straight = Harness::new(&stage.persona_url(), stage.upstream_model(), TASK)
        .work(most)
        .await?;
    let before = log.entries().len();
    straight.heard(&log.entries());

    let client = Harness::new(&stage.gateway_url(), CLIENT_MODEL, TASK);
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

/// What did not go as it must.
fn differences(straight: &Trajectory, through: &Trajectory) -> Vec<String> {
    let refused = |text: &str| REFUSALS.iter().any(|refusal| text.contains(refusal));
    let straight = match straight.outcome() {
        Some(Answer::Refused {
            status: 400,
            message,
        }) if refused(message) => None,
        other => Some(format!(
            "straight to the model: expected a 400 that says {}, got {}",
            REFUSALS.join(" or "),
            told(other)
        )),
    };
    let through = match through.outcome() {
        Some(Answer::Text { text }) if text.starts_with(FINAL) => None,
        other => Some(format!(
            "through Farrier: expected a text that begins with {FINAL:?}, got {}",
            told(other)
        )),
    };
    straight.into_iter().chain(through).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use trajectory::{Exchange, History};

    fn ending(answer: Answer) -> Trajectory {
        let (base_url, model, sent) = (String::new(), String::new(), History::default());
        let exchange = Exchange {
            sent,
            received: None,
            notes: Vec::new(),
            answer,
        };
        Trajectory {
            base_url,
            model,
            exchanges: vec![exchange],
        }
    }

    fn refused(status: u16, message: &str) -> Trajectory {
        let message = message.to_owned();
        ending(Answer::Refused { status, message })
    }

    fn text(text: &str) -> Trajectory {
        let text = text.to_owned();
        ending(Answer::Text { text })
    }

    #[test]
    fn only_the_refusal_without_and_the_answer_with_farrier_are_as_expected() {
        let must = || refused(400, "reasoning_content is missing at index 2");
        assert_eq!(differences(&must(), &text("FINAL answer")), [""; 0]);
        for straight in [
            refused(500, "reasoning_content is missing"),
            refused(400, "other"),
            text("FINAL answer"),
        ] {
            assert_eq!(differences(&straight, &text("FINAL answer")).len(), 1);
        }
        for through in [
            refused(502, "upstream"),
            text("I cannot find the tool call"),
        ] {
            assert_eq!(differences(&must(), &through).len(), 1);
        }
    }
}
