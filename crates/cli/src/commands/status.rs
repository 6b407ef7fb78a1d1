//! `farrier status`: how the gateway that runs is doing, and the sandboxes that it looks after.

use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use clap::Args;
use farrier_control::{Cause, Outcome, Reload, SandboxState, SandboxStatus, Status};
use serde::Serialize;

use super::Context;
use super::reload::{Which, shown};
use crate::failure::Failure;
use crate::runtime;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    which: Which,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments, context: &Context<'_>) -> Result<ExitCode, Failure> {
    let output = context.output;
    let gateway = arguments.which.find(context)?;
    let asked = runtime::run(async {
        Ok(match gateway.client.status().await {
            Ok(status) => Ok((status, gateway.client.sandboxes().await)),
            Err(error) => Err(error),
        })
    })?;
    let (status, sandboxes) = asked.map_err(|error| gateway.unreached(error, context))?;
    let (sandboxes, none) = match sandboxes {
        Ok(all) => (all.sandboxes, None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    if arguments.json {
        output.json(&Whole {
            status: &status,
            sandboxes: &sandboxes,
            no_sandboxes: none.as_deref(),
        })?;
    } else {
        let mut lines = lines(&status, &gateway.shown(&status.config));
        lines.extend(sandboxes.iter().map(housed));
        lines.extend(none.map(|reason| format!("  sandboxes none: {reason}")));
        output.text(&(lines.join("\n") + "\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// All that there is to say.
#[derive(Serialize)]
struct Whole<'a> {
    #[serde(flatten)]
    status: &'a Status,
    sandboxes: &'a [SandboxStatus],
    /// Why the gateway looks after none, if it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    no_sandboxes: Option<&'a str>,
}

/// A sandbox in a line: how it is, and whether somebody waits for something.
fn housed(sandbox: &SandboxStatus) -> String {
    let state = match sandbox.state {
        SandboxState::Failed => "failed",
        SandboxState::Running => "running",
        SandboxState::Starting => "starting",
        SandboxState::Stopped => "stopped",
    };
    let mut facts = vec![format!("{} {state}", sandbox.name)];
    facts.extend(sandbox.reason.clone());
    if let Some(service) = sandbox.service.as_ref().filter(|service| !service.running) {
        let exit = service.last_exit.as_deref().unwrap_or("it did not start");
        facts.push(format!("what it keeps running does not run: {exit}"));
    }
    if let Some(pairing) = &sandbox.pairing {
        facts.push(format!("devices {}", pairing.state));
        facts.extend(pairing.waiting.iter().map(|one| format!("waits: {one}")));
        facts.extend(
            pairing
                .refused
                .iter()
                .map(|one| format!("for a person: {one}")),
        );
    }
    format!("  sandbox   {}", facts.join("; "))
}

fn lines(status: &Status, file: &str) -> Vec<String> {
    let up = humantime::format_duration(Duration::from_secs(status.uptime_seconds));
    let draining = if status.draining { ", draining" } else { "" };
    let row = |word: &str, fact: String| format!("  {word:10}{fact}");
    let watching = if status.watching {
        "changes take effect by themselves"
    } else {
        "changes take effect when asked for"
    };
    let mut lines = vec![
        format!(
            "farrier {}, process {}, up {up}{draining}",
            status.version, status.pid
        ),
        row("listens", status.listen.join(" and ")),
        row("config", format!("{} ({watching})", status.config)),
        row(
            "serves",
            format!(
                "generation {}, since {}",
                status.generation,
                moment(status.serving_since_unix_ms)
            ),
        ),
    ];
    if let Some(last) = &status.last_reload {
        lines.push(row("reload", last_reload(last)));
        let mistakes = last.mistakes.iter();
        lines.extend(mistakes.map(|mistake| row("", shown(mistake, file))));
        if !last.needs_restart.is_empty() {
            let keys = last.needs_restart.join(", ");
            lines.push(row("", format!("takes effect after a restart: {keys}")));
        }
    }
    lines
}

fn last_reload(last: &Reload) -> String {
    let cause = match last.cause {
        Cause::File => "a file changed",
        Cause::Request => "asked for",
        Cause::Signal => "SIGHUP",
    };
    let result = match last.result {
        Outcome::Refused => "refused",
        Outcome::Taken => "taken over",
    };
    format!("{result} {} ({cause})", moment(last.at_unix_ms))
}

fn moment(unix_ms: u64) -> String {
    let moment = UNIX_EPOCH + Duration::from_millis(unix_ms);
    humantime::format_rfc3339_seconds(moment).to_string()
}
