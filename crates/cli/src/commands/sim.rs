//! `farrier sim`: a persona on a listener of its own, until a signal.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use farrier_secrets::SecretRef;
use farrier_sim::{Bearer, Behaviour, Options, Persona, Sim};
use serde::Serialize;
use tokio::net::TcpListener;

use super::Context;
use crate::config::with_causes;
use crate::failure::Failure;
use crate::runtime::{self, Signals};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A persona's name, or a file with one
    #[arg(default_value = "kimi-k2.6")]
    persona: String,
    /// Where to listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Tool rounds in a turn [default: the persona's]
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
    /// How answers travel, such as {"chunk_bytes":1}
    #[arg(long, value_name = "JSON")]
    behaviour: Option<String>,
    /// Where the key is that clients must bear: env:NAME or file:PATH
    #[arg(long, value_name = "REFERENCE")]
    bearer: Option<String>,
    /// List the personas
    #[arg(long)]
    list: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Listed {
    name: String,
    description: String,
    models: Vec<String>,
    sources: Vec<String>,
}

#[derive(Serialize)]
struct Listening<'a> {
    persona: &'a str,
    base_url: String,
    models: &'a [String],
    log: String,
}

pub(crate) fn run(arguments: &Arguments, context: &Context<'_>) -> Result<ExitCode, Failure> {
    if arguments.list {
        return list(arguments.json, context);
    }
    let persona = persona(&arguments.persona)?;
    let options = options(arguments, context)?;
    runtime::run(play(persona, options, arguments, context))
}

async fn play(
    persona: Persona,
    options: Options,
    arguments: &Arguments,
    context: &Context<'_>,
) -> Result<ExitCode, Failure> {
    let mut signals = Signals::watch()?;
    let cannot = |error: &std::io::Error| {
        Failure::user(format!("cannot listen on {}", arguments.listen)).caused_by(error)
    };
    let listener = TcpListener::bind(arguments.listen)
        .await
        .map_err(|error| cannot(&error))?;
    let (name, models) = (persona.name().to_owned(), persona.models().to_vec());
    let sim = Sim::start(listener, persona, options).map_err(|error| cannot(&error))?;
    let base_url = format!("http://{}/v1", sim.addr());
    if arguments.json {
        let log = format!("http://{}/sim/log", sim.addr());
        context.output.json(&Listening {
            persona: &name,
            base_url,
            models: &models,
            log,
        })?;
    } else {
        context.output.line(&base_url)?;
        context.notices.say(&format!(
            "{name} answers as model {}; Ctrl-C ends it",
            models.join(", ")
        ));
    }
    signals.next().await;
    sim.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// An embedded persona, or one from a file: a name that looks like a path is a path.
fn persona(named: &str) -> Result<Persona, Failure> {
    if !named.contains('/') && !named.ends_with(".json") {
        return Ok(Persona::named(named)?);
    }
    let text = std::fs::read_to_string(Path::new(named))
        .map_err(|error| Failure::user(format!("cannot read {named}")).caused_by(&error))?;
    Persona::parse(&text)
        .map_err(|error| Failure::user(format!("cannot play {named}")).caused_by(&error))
}

fn options(arguments: &Arguments, context: &Context<'_>) -> Result<Options, Failure> {
    let mut options = Options {
        rounds: arguments.rounds,
        ..Options::default()
    };
    if let Some(json) = &arguments.behaviour {
        options.behaviour = json.parse::<Behaviour>().map_err(|error| {
            Failure::usage(format!(
                "expected a behaviour for --behaviour: {}",
                with_causes(&error)
            ))
        })?;
    }
    if let Some(reference) = &arguments.bearer {
        let secret =
            reference_to_secret(reference, "--bearer")?.resolve(&|name| context.env.variable(name));
        let secret = secret.map_err(|error| Failure::user(with_causes(&error)))?;
        options.bearer = Some(Bearer::new(secret.expose()));
    }
    Ok(options)
}

/// What it is not, is not repeated: it may be a key.
pub(super) fn reference_to_secret(text: &str, flag: &str) -> Result<SecretRef, Failure> {
    match text.split_once(':') {
        Some(("env", name)) if !name.is_empty() => Ok(SecretRef::Env {
            name: name.to_owned(),
        }),
        Some(("file", path)) if !path.is_empty() => Ok(SecretRef::File { path: path.into() }),
        _ => Err(Failure::usage(format!(
            "expected env:NAME or file:PATH for {flag}, got another text"
        ))
        .hint("keys do not belong on the command line, where other users can see them")),
    }
}

fn list(json: bool, context: &Context<'_>) -> Result<ExitCode, Failure> {
    let personas = Persona::names().into_iter().map(Persona::named);
    let personas: Vec<Persona> = personas.collect::<Result<_, _>>()?;
    if json {
        let listed: Vec<Listed> = personas
            .iter()
            .map(|persona| Listed {
                name: persona.name().to_owned(),
                description: persona.description().to_owned(),
                models: persona.models().to_vec(),
                sources: persona.sources().to_vec(),
            })
            .collect();
        context.output.json(&listed)?;
        return Ok(ExitCode::SUCCESS);
    }
    let widest = personas
        .iter()
        .map(|persona| persona.name().len())
        .max()
        .unwrap_or_default();
    for persona in &personas {
        context.output.line(&format!(
            "{:widest$}  {}",
            persona.name(),
            persona.description()
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
