//! The scripted client at work: the demonstration's, with parameters of the case, its conversation as a transcript.

use farrier_harness::transcript::{Call, Entry, Said, ToolResult, Transcript};
use serde_json::Value;

use super::case::Case;
use crate::demo::{Answer, Exchange, Harness};
use crate::failure::Failure;

/// More answers than a case's rounds and its last text would be a model that does not stop.
const SLACK: usize = 2;

/// Has the prompt answered.
pub(crate) async fn work(case: &Case, url: &str, prompt: &str) -> Result<Transcript, Failure> {
    let sheet = &case.sheet;
    let client = Harness::new(url, &sheet.route.model, prompt)
        .with_parameters(sheet.harness.parameters.clone());
    let most = sheet.expect.rounds.len() + SLACK;
    let trajectory = client.work(most).await?;
    let mut entries = vec![Entry::User {
        text: prompt.to_owned(),
    }];
    entries.extend(trajectory.exchanges.iter().flat_map(said));
    Ok(Transcript {
        session: case.name.clone(),
        entries,
        tool_runs: Vec::new(),
    })
}

/// An answer, and the results of its calls.
fn said(exchange: &Exchange) -> Vec<Entry> {
    let mut said = Said::default();
    let mut results = Vec::new();
    match &exchange.answer {
        Answer::Calls { calls } => {
            for call in calls {
                let (id, tool) = (call.id.clone(), call.name.clone());
                results.push(Entry::ToolResult(ToolResult {
                    call: id.clone(),
                    tool: Some(tool.clone()),
                    ..ToolResult::default()
                }));
                let arguments = Value::from_iter([("command", call.command.as_str())]);
                said.calls.push(Call {
                    id,
                    tool,
                    arguments,
                });
            }
        }
        Answer::Refused { status, message } => said.error = Some(format!("{status} {message}")),
        Answer::Text { text } => said.text.clone_from(text),
    }
    std::iter::once(Entry::Assistant(said))
        .chain(results)
        .collect()
}
