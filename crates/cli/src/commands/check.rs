//! `farrier check`: everything `farrier up` would stumble over, without running it.
//!
//! Nothing is written and no provider is contacted; a ledger's store is, to see whether it is there. Mistakes go to stderr as `farrier.toml:12: message`; with `--json`
//! they are data, on stdout.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::Context;
use crate::config::{self, Mistake, Overrides, Size};
use crate::failure::Failure;
use crate::runtime;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The configuration [default: ./farrier.toml, else $XDG_CONFIG_HOME/farrier/farrier.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print every key that a configuration may have, and look at none
    #[arg(long, conflicts_with = "config")]
    keys: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    file: String,
    valid: bool,
    mistakes: &'a [Mistake],
    warnings: &'a [Mistake],
    #[serde(flatten)]
    size: Size,
}

pub(crate) fn run(arguments: &Arguments, context: &Context<'_>) -> Result<ExitCode, Failure> {
    let Context {
        env,
        output,
        notices,
    } = context;
    if arguments.keys {
        return keys(arguments.json, context);
    }
    let mut examined = config::examine(arguments.config.as_deref(), env, &Overrides::default())?;
    let (file, size) = (examined.file.clone(), examined.size());
    let (warnings, mistakes) = runtime::run(async {
        examined.reach_store().await;
        let warnings = examined.warnings.clone();
        Ok((warnings, examined.check().await))
    })?;
    if arguments.json {
        let (valid, shown) = (mistakes.is_empty(), file.display().to_string());
        let report = Report {
            file: shown,
            valid,
            mistakes: &mistakes,
            warnings: &warnings,
            size,
        };
        output.json(&report)?;
        return Ok(if valid {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        });
    }
    notices.mistakes(&file, &mistakes);
    warnings
        .iter()
        .for_each(|warning| notices.warn(&warning.shown(&file)));
    if !mistakes.is_empty() {
        return Err(Failure::of_mistakes(mistakes.len(), &file));
    }
    let Size {
        providers,
        routes,
        clients,
        manifests,
    } = size;
    let counts = [
        counted(providers, "provider"),
        counted(routes, "route"),
        counted(clients, "client"),
        counted(manifests, "manifest"),
    ];
    output.line(&format!(
        "{}: no mistakes ({})",
        file.display(),
        counts.join(", ")
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn keys(json: bool, context: &Context<'_>) -> Result<ExitCode, Failure> {
    let sections = config::sections();
    if json {
        context.output.json(&sections)?;
    } else {
        let sections: Vec<String> = sections.iter().map(ToString::to_string).collect();
        context.output.text(&sections.join("\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}
