//! `farrier verify`: every intervention's case, with and without it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use farrier_secrets::Secret;
use serde::Serialize;

use super::Context;
use super::sim::reference_to_secret;
use crate::config::with_causes;
use crate::failure::Failure;
use crate::harness::Store;
use crate::runtime::{self, Signals};
use crate::verify::case::{self, BadCase, Case, Mode};
use crate::verify::live::no_key;
use crate::verify::{Budget, Order, show};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Manifests, or single cases of theirs [default: all]
    #[arg(value_name = "ID")]
    cases: Vec<String>,
    /// Run against the case's real provider; needs --key
    #[arg(long)]
    live: bool,
    /// Where the provider's key is: env:NAME or file:PATH
    #[arg(long, value_name = "REFERENCE", requires = "live")]
    key: Option<String>,
    /// Another address of the provider than the case's
    #[arg(long, value_name = "URL", requires = "live")]
    base_url: Option<String>,
    /// Where harnesses are installed, as HARNESS/VERSION [default: the store of `farrier harness`]
    #[arg(long, value_name = "DIR")]
    harness_dir: Option<PathBuf>,
    /// Cases of your own, laid out as MANIFEST/case.toml, instead of the shipped ones
    #[arg(long, value_name = "DIR")]
    cases_dir: Option<PathBuf>,
    /// The longest a turn may take
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=3600))]
    turn_timeout: u64,
    /// The longest a harness may neither say anything nor ask the model
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=3600))]
    silence: u64,
    /// List the cases
    #[arg(long)]
    list: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Listed<'a> {
    case: &'a str,
    manifest: &'a str,
    description: &'a str,
    harness: String,
    persona: &'a str,
    modes: &'a [Mode],
}

pub(crate) fn run(arguments: &Arguments, context: &Context<'_>) -> Result<ExitCode, Failure> {
    let all = match &arguments.cases_dir {
        Some(directory) => case::below(directory),
        None => case::shipped(),
    };
    let all = all.map_err(|error| of_bad_case(&error))?;
    let cases = chosen(&all, &arguments.cases)?;
    if arguments.list {
        return list(&cases, arguments.json, context);
    }
    let store = Store::of(arguments.harness_dir.as_deref(), context.env);
    let store = store.map_err(|error| Failure::user(error.to_string()))?;
    let order = Order {
        cases,
        mode: if arguments.live {
            Mode::Live
        } else {
            Mode::Hermetic
        },
        store: &store,
        budget: Budget {
            turn: Duration::from_secs(arguments.turn_timeout),
            silence: Duration::from_secs(arguments.silence),
        },
        key: key(arguments, context)?,
        base_url: arguments.base_url.as_deref(),
    };
    let report = runtime::run(async {
        let mut signals = Signals::watch()?;
        order.verify(context.notices, signals.next()).await
    })?;
    if arguments.json {
        context.output.json(&report)?;
    } else {
        show(&report, context.output)?;
    }
    match report.passed {
        true => Ok(ExitCode::SUCCESS),
        false => Err(of_report(&report)),
    }
}

/// The cases of the given names; all of a manifest's for its id.
fn chosen<'a>(all: &'a [Case], names: &[String]) -> Result<Vec<&'a Case>, Failure> {
    for name in names {
        if !all.iter().any(|case| case.is_called(name)) {
            let known: Vec<&str> = all.iter().map(|case| case.name.as_str()).collect();
            let failure = Failure::user(format!("expected a case, got {name:?}"));
            return Err(failure.hint(format!("cases are {}", known.join(", "))));
        }
    }
    let is_meant = |case: &&Case| names.is_empty() || names.iter().any(|name| case.is_called(name));
    Ok(all.iter().filter(is_meant).collect())
}

/// What is not there, or is no key, ends it before anything is started.
fn key(arguments: &Arguments, context: &Context<'_>) -> Result<Option<Secret>, Failure> {
    if !arguments.live {
        return Ok(None);
    }
    let reference = arguments.key.as_deref().ok_or_else(no_key)?;
    let secret = reference_to_secret(reference, "--key")?;
    let secret = secret.resolve(&|name| context.env.variable(name));
    let secret = secret.map_err(|error| Failure::user(with_causes(&error)))?;
    Ok(Some(secret))
}

fn list(cases: &[&Case], json: bool, context: &Context<'_>) -> Result<ExitCode, Failure> {
    let listed: Vec<Listed<'_>> = cases
        .iter()
        .map(|case| Listed {
            case: &case.name,
            manifest: case.manifest(),
            description: &case.sheet.description,
            harness: case.worker(),
            persona: &case.sheet.persona.name,
            modes: &case.sheet.modes,
        })
        .collect();
    if json {
        context.output.json(&listed)?;
        return Ok(ExitCode::SUCCESS);
    }
    let widest = listed.iter().map(|listed| listed.case.len()).max();
    let widest = widest.unwrap_or_default();
    for Listed {
        case,
        harness,
        description,
        ..
    } in &listed
    {
        context
            .output
            .line(&format!("{case:widest$}  {harness:18}  {description}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn of_report(report: &crate::verify::Report) -> Failure {
    let failure = Failure::user("not every case was run and passed");
    let needs_harness = report.cases.iter().any(|verdict| {
        verdict
            .reason
            .as_deref()
            .is_some_and(|reason| reason.starts_with("expected"))
    });
    if needs_harness {
        return failure.hint("`farrier harness install NAME@VERSION` installs one; docs/verify.md says what else --harness-dir takes");
    }
    failure
}

fn of_bad_case(error: &BadCase) -> Failure {
    let failure = Failure::user(error.to_string());
    match std::error::Error::source(error) {
        Some(cause) => failure.caused_by(cause),
        None => failure,
    }
}
