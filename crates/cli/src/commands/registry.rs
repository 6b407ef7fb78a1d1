//! `farrier registry`: what manifests there are, what is wrong with them, and which apply to a request.

use std::error::Error as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use farrier_compat::facts::{
    CHAT_COMPLETIONS, ClientFacts, Facts, MANAGED_BASE_URL, MANAGED_PROVIDER_KEY, UpstreamFacts,
};
use farrier_compat::registry::{Manifest, Registry, lint};
use farrier_harness::import::{Record, report};
use serde::Serialize;

use super::Context;
use crate::config::Mistake;
use crate::config::registry::{Directory, load};
use crate::failure::Failure;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the manifests
    List(ListArguments),
    /// Look for mistakes in manifests
    Check(ListArguments),
    /// Say for each manifest why it applies to a request, or why not
    Explain(ExplainArguments),
    /// Say what the records of a NemoClaw tree would do here, and what they would contradict
    Import(ImportArguments),
}

#[derive(Debug, Args)]
pub(crate) struct ListArguments {
    /// Directories whose manifests are added to the shipped ones
    #[arg(value_name = "DIR")]
    directories: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArguments {
    /// The harness that calls, such as openclaw [default: unknown]
    #[arg(long)]
    agent: Option<String>,
    /// The model name the client asks for
    #[arg(long)]
    model: String,
    /// What the provider calls the model [default: the same]
    #[arg(long, value_name = "MODEL")]
    upstream_model: Option<String>,
    /// The provider's name in the configuration
    #[arg(long, default_value = "provider")]
    provider: String,
    /// The provider's base URL
    #[arg(long, value_name = "URL", default_value = "")]
    upstream_base_url: String,
    /// The provider's serving software, such as vllm [default: unknown]
    #[arg(long)]
    server: Option<String>,
    /// The base URL the client is configured with
    #[arg(long, value_name = "URL", default_value = MANAGED_BASE_URL)]
    base_url: String,
    /// The key under which the client lists the provider
    #[arg(long, value_name = "KEY", default_value = MANAGED_PROVIDER_KEY)]
    provider_key: String,
    /// A directory whose manifests are added to the shipped ones; may be repeated
    #[arg(long = "dir", value_name = "DIR")]
    directories: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArguments {
    /// A model-specific-setup directory, with the plugins of its records beside it
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Listed<'a> {
    id: &'a str,
    agent: &'a str,
    path: &'a str,
    description: &'a str,
    passes: Vec<&'a str>,
    sources: &'a [String],
}

#[derive(Serialize)]
struct Checked {
    valid: bool,
    manifests: usize,
    mistakes: Vec<String>,
    findings: Vec<String>,
}

pub(crate) fn run(command: &Command, context: &Context<'_>) -> Result<ExitCode, Failure> {
    match command {
        Command::Check(arguments) => check(arguments, context),
        Command::Explain(arguments) => explain(arguments, context),
        Command::Import(arguments) => import(arguments, context),
        Command::List(arguments) => list(arguments, context),
    }
}

fn list(arguments: &ListArguments, context: &Context<'_>) -> Result<ExitCode, Failure> {
    let registry = loaded(&arguments.directories, context)?;
    let listed: Vec<Listed<'_>> = registry.manifests().map(Listed::of).collect();
    if arguments.json {
        context.output.json(&listed)?;
        return Ok(ExitCode::SUCCESS);
    }
    let widest = listed
        .iter()
        .map(|listed| listed.id.len())
        .max()
        .unwrap_or_default();
    for Listed {
        id, agent, passes, ..
    } in &listed
    {
        let line = format!("{id:widest$}  {agent:8}  {}", passes.join(", "));
        context.output.line(line.trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn check(arguments: &ListArguments, context: &Context<'_>) -> Result<ExitCode, Failure> {
    let (mistakes, registry) = match load(&directories(&arguments.directories), &[], None) {
        Ok(registry) => (Vec::new(), registry),
        Err((mistakes, shipped)) => (mistakes, shipped),
    };
    let mistakes: Vec<String> = mistakes
        .into_iter()
        .map(|mistake| mistake.message)
        .collect();
    let findings: Vec<String> = lint::lint(&registry)
        .iter()
        .map(ToString::to_string)
        .collect();
    let manifests = registry.manifests().count();
    let valid = mistakes.is_empty() && findings.is_empty();
    if arguments.json {
        context.output.json(&Checked {
            valid,
            manifests,
            mistakes,
            findings,
        })?;
        return Ok(if valid {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        });
    }
    mistakes
        .iter()
        .chain(&findings)
        .for_each(|message| context.notices.say(message));
    match mistakes.len() + findings.len() {
        0 => {
            context
                .output
                .line(&format!("no mistakes in {manifests} manifests"))?;
            Ok(ExitCode::SUCCESS)
        }
        1 => Err(Failure::user("1 mistake in the manifests")),
        count => Err(Failure::user(format!("{count} mistakes in the manifests"))),
    }
}

fn explain(arguments: &ExplainArguments, context: &Context<'_>) -> Result<ExitCode, Failure> {
    let registry = loaded(&arguments.directories, context)?;
    let facts = Facts {
        agent: arguments.agent.clone(),
        client: ClientFacts {
            model: arguments.model.clone(),
            provider_key: arguments.provider_key.clone(),
            inference_api: CHAT_COMPLETIONS.to_owned(),
            base_url: arguments.base_url.clone(),
        },
        upstream: UpstreamFacts {
            provider: arguments.provider.clone(),
            model: arguments
                .upstream_model
                .as_ref()
                .unwrap_or(&arguments.model)
                .clone(),
            base_url: arguments.upstream_base_url.clone(),
            server: arguments.server.clone(),
        },
    };
    let explanations = registry.explain(&facts);
    if arguments.json {
        context.output.json(&explanations)?;
        return Ok(ExitCode::SUCCESS);
    }
    for explanation in &explanations {
        context.output.line(&explanation.to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Takes nothing over: a tree that loads is named in the configuration, as `registry.directories`.
fn import(arguments: &ImportArguments, context: &Context<'_>) -> Result<ExitCode, Failure> {
    let shipped = Registry::shipped().expect("shipped manifests load; a test loads them");
    let records = report(&arguments.directory, &shipped);
    let records = records.map_err(|error| match error.source() {
        Some(cause) => Failure::user(error.to_string()).caused_by(cause),
        None => Failure::user(error.to_string()),
    })?;
    let bad = records
        .iter()
        .filter(|record| !record.mistakes.is_empty() || !record.conflicts.is_empty());
    let bad = bad.count();
    if arguments.json {
        context.output.json(&records)?;
    } else {
        for record in &records {
            context.output.text(&shown(record))?;
        }
    }
    match bad {
        0 => Ok(ExitCode::SUCCESS),
        _ if arguments.json => Ok(ExitCode::FAILURE),
        1 => Err(Failure::user("1 record would not do here")),
        bad => Err(Failure::user(format!("{bad} records would not do here"))),
    }
}

fn shown(record: &Record) -> String {
    let id = record.id.as_deref().unwrap_or("?");
    let agent = record.agent.as_deref().unwrap_or("?");
    let mut text = format!("{id} ({agent}) {}\n", record.path);
    for (word, sentences) in [
        ("mistake", &record.mistakes),
        ("does", &record.effects),
        ("contradicts", &record.conflicts),
        ("beside", &record.beside),
    ] {
        for sentence in sentences {
            text.push_str("  ");
            text.push_str(word);
            text.push_str(": ");
            text.push_str(sentence);
            text.push('\n');
        }
    }
    text
}

fn loaded(paths: &[PathBuf], context: &Context<'_>) -> Result<std::sync::Arc<Registry>, Failure> {
    load(&directories(paths), &[], None).map_err(|(mistakes, _shipped)| {
        let say = |mistake: &Mistake| context.notices.say(&mistake.message);
        mistakes.iter().for_each(say);
        Failure::user("the manifests do not load")
    })
}

fn directories(paths: &[PathBuf]) -> Vec<Directory> {
    paths
        .iter()
        .map(|path| Directory {
            path: path.clone(),
            line: None,
        })
        .collect()
}

impl<'a> Listed<'a> {
    fn of(manifest: &'a Manifest) -> Self {
        let effects = manifest.effects.gateway.iter();
        let mut passes: Vec<&str> = effects.map(|effect| effect.kind.name).collect();
        passes.dedup();
        Self {
            id: &manifest.id,
            agent: manifest.audience.name,
            path: &manifest.path,
            description: &manifest.description,
            passes: manifest
                .effects
                .gateway
                .iter()
                .map(|effect| effect.kind.name)
                .collect(),
            sources: &manifest.evidence.sources,
        }
    }
}
