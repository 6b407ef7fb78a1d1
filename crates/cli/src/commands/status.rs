//! `farrier status`: how the gateway that runs is doing.

use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use clap::Args;
use farrier_control::{Cause, Outcome, Reload, Status};

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
    let status = runtime::run(async { Ok(gateway.client.status().await) })?;
    let status = status.map_err(|error| gateway.unreached(error, context))?;
    if arguments.json {
        output.json(&status)?;
    } else {
        let lines = lines(&status, &gateway.shown(&status.config));
        output.text(&(lines.join("\n") + "\n"))?;
    }
    Ok(ExitCode::SUCCESS)
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
