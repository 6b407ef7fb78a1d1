//! `farrier run`: a harness in a sandbox, in one line.
//!
//! The sandbox is made if it is not there, and started if it does not run; it stays when the command ends. With arguments
//! the harness's own program is run with them, else a terminal is opened in it.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use clap::Args;
use farrier_control::{CallError, Code, NewSandbox, SandboxName, SandboxState, SandboxStatus};

use super::Context;
use super::reload::Which;
use super::sandbox::{Talk, What, ask, named, talk, wanted};
use crate::failure::Failure;

#[derive(Debug, Args)]
#[command(
    after_help = "The sandbox stays, and the next run goes on in it. What it is made of is said when it is made: of one that is there, all options but --name, --config and --socket are without effect."
)]
pub(crate) struct Arguments {
    /// What runs: openclaw, hermes, or generic for any other program
    #[arg(value_name = "AGENT", value_parser = ["openclaw", "hermes", "generic"])]
    agent: String,
    /// The sandbox's name [default: the agent's]
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    what: What,
    #[command(flatten)]
    which: Which,
    /// Arguments of the harness's own program; of generic, program and arguments
    #[arg(last = true, value_name = "ARGS")]
    arguments: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments, context: &Context<'_>) -> Result<ExitCode, Failure> {
    let agent = arguments.agent.as_str();
    if agent == "generic" && arguments.arguments.is_empty() && !io::stdin().is_terminal() {
        return Err(Failure::usage("expected a program after --, got none"));
    }
    let name = named(arguments.name.as_deref().unwrap_or(agent))?;
    let status = at_hand(&name, arguments, context)?;
    if status.spec.agent != agent {
        let there = &status.spec.agent;
        return Err(Failure::user(format!(
            "expected sandbox {name} to be one of {agent}, got one of {there}"
        ))
        .hint("choose another with --name"));
    }
    let what = &arguments.what;
    if let Some(route) = what
        .route
        .as_ref()
        .filter(|route| **route != status.spec.route)
    {
        let there = &status.spec.route;
        return Err(Failure::user(format!(
            "expected sandbox {name} to have the route {route}, got one that has {there}"
        ))
        .hint("choose another sandbox with --name, or leave out --route"));
    }
    let command = match agent {
        "generic" => arguments.arguments.clone(),
        program if arguments.arguments.is_empty() => {
            vec![program.to_owned(), chat(program).to_owned()]
        }
        program => std::iter::once(program.to_owned())
            .chain(arguments.arguments.iter().cloned())
            .collect(),
    };
    let tty = io::stdin().is_terminal() && io::stdout().is_terminal();
    let asked = Talk {
        command,
        tty,
        ..Talk::default()
    };
    talk(&arguments.which, &name, asked, context)
}

/// What a harness's program is told so that somebody can talk to it.
fn chat(program: &str) -> &'static str {
    match program {
        "openclaw" => "tui",
        _ => "chat",
    }
}

/// The sandbox of that name, running.
fn at_hand(
    name: &SandboxName,
    arguments: &Arguments,
    context: &Context<'_>,
) -> Result<SandboxStatus, Failure> {
    let which = &arguments.which;
    let looked = ask(which, context, async |client| {
        Ok(match client.sandbox(name).await {
            Err(CallError::Refused {
                code: Code::Unknown,
                ..
            }) => None,
            looked => Some(looked?),
        })
    })?;
    match looked {
        Some(status) if status.state == SandboxState::Running => Ok(status),
        Some(_) => ask(which, context, async |client| {
            client.start_sandbox(name).await
        }),
        None => make(name, arguments, context),
    }
}

fn make(
    name: &SandboxName,
    arguments: &Arguments,
    context: &Context<'_>,
) -> Result<SandboxStatus, Failure> {
    let what = &arguments.what;
    let Some(route) = &what.route else {
        return Err(Failure::usage(format!(
            "expected --route for sandbox {name}, which is not there yet, got none"
        ))
        .hint(
            "it is the name of a route of the gateway's configuration: farrier check shows them",
        ));
    };
    // Somebody who talks to its gateway needs one; a single turn does not.
    let serves =
        arguments.arguments.is_empty() && arguments.agent != "generic" && !what.serves_nothing();
    let spec = wanted((&arguments.agent, route), what, (&[], serves))?;
    context.notices.say(&format!("making sandbox {name}"));
    let new = NewSandbox {
        name: name.clone(),
        spec,
        start: true,
    };
    ask(&arguments.which, context, async |client| {
        client.create_sandbox(&new).await
    })
}
