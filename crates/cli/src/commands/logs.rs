//! `farrier logs --egress`: what proxies of sandboxes decided, the oldest first.

use std::process::ExitCode;

use clap::Args;
use farrier_egress::audit::{self, Line, Verdict};

use super::Context;
use crate::config::NO_STATE;
use crate::egress::audit_dir;
use crate::failure::Failure;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The decisions of sandboxes' proxies, the one log there is
    #[arg(long, required = true)]
    egress: bool,
    /// Of one sandbox alone
    #[arg(long, value_name = "NAME")]
    sandbox: Option<String>,
    /// What was refused, or would have been, alone
    #[arg(long)]
    denied: bool,
    /// The newest so many
    #[arg(long, value_name = "N", default_value_t = 100)]
    last: usize,
    /// Print each line as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments, context: &Context<'_>) -> Result<ExitCode, Failure> {
    let lines = read(context)?;
    let wanted: Vec<&Line> = lines
        .iter()
        .filter(|line| is_of(line, arguments.sandbox.as_deref()))
        .filter(|line| {
            !arguments.denied || matches!(line.verdict, Verdict::Denied | Verdict::Audited)
        })
        .collect();
    let from = wanted.len().saturating_sub(arguments.last);
    let mut text = String::new();
    for line in &wanted[from..] {
        let shown = if arguments.json {
            serde_json::to_string(line).unwrap_or_default() // strings and numbers always have a spelling
        } else {
            shown(line)
        };
        text.push_str(&shown);
        text.push('\n');
    }
    if text.is_empty() {
        context.notices.say("nothing is recorded that fits");
    }
    context.output.text(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Every decision that is still kept.
pub(super) fn read(context: &Context<'_>) -> Result<Vec<Line>, Failure> {
    let directory = audit_dir(context.env).ok_or_else(|| Failure::user(NO_STATE))?;
    audit::read(&directory)
        .map_err(|error| Failure::internal(format!("cannot read {}", directory.display()), &error))
}

pub(super) fn is_of(line: &Line, sandbox: Option<&str>) -> bool {
    sandbox.is_none_or(|sandbox| line.sandbox == sandbox)
}

/// A line for people.
fn shown(line: &Line) -> String {
    let verdict = match line.verdict {
        Verdict::Allowed => "allowed",
        Verdict::Audited => "audited",
        Verdict::Denied => "denied",
        Verdict::Failed => "failed",
    };
    let method = line.method.as_deref().unwrap_or(&line.kind);
    let path = line.path.as_deref().unwrap_or_default();
    let mut facts = vec![format!(
        "{} {} {verdict:7} {method} {}{path}",
        line.time, line.sandbox, line.to
    )];
    facts.extend(line.status.map(|status| status.to_string()));
    facts.extend(line.code.clone());
    facts.extend(line.rule.as_ref().map(|rule| format!("by {rule}")));
    if !line.credentials.is_empty() {
        facts.push(format!("with {}", line.credentials.join(", ")));
    }
    facts.push(format!(
        "{} up, {} down, {} ms",
        line.bytes_up, line.bytes_down, line.duration_ms
    ));
    facts.join("  ")
}
