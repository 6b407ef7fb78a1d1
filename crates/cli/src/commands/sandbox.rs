//! `farrier sandbox`: agent harnesses, each in a sandbox of its own.
//!
//! ```text
//! create, start, stop, attach, … ──control socket──▶ the gateway that runs, which looks after them
//! exec, connect                  ──the same, then frames──▶ a process in a sandbox
//! cp, snapshot, logs             ──▶ the sandbox's files, on this machine
//! ```

mod copy;
mod create;
mod devices;
mod show;
mod snapshot;
mod talk;

use std::io::{self, BufRead as _, IsTerminal as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use farrier_control::{Client, SandboxChange, SandboxName, SandboxStatus};
use farrier_secrets::ProviderName;

pub(super) use create::{What, wanted};
pub(super) use talk::{Talk, talk};

use super::Context;
use super::reload::{Found, Which};
use crate::failure::Failure;
use crate::runtime;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a sandbox and start it
    Create(Create),
    /// List all sandboxes
    List(List),
    /// Say how a sandbox is doing
    Status(One),
    /// Start a sandbox, with the home, the route and the providers that it had
    Start(One),
    /// Stop a sandbox; its home and workspace stay
    Stop(One),
    /// Stop a sandbox and remove it, with its home, its workspace and its snapshots
    Destroy(Destroy),
    /// Let the credentials of providers be used for a sandbox, also one that runs
    Attach(Attach),
    /// Take the credentials of providers away from a sandbox, also one that runs
    Detach(Attach),
    /// Give a sandbox another policy, also one that runs
    Policy(Policy),
    /// Run a command in a sandbox
    Exec(Exec),
    /// Open a terminal in a sandbox, or go on with the one that was left; Ctrl-] leaves it
    Connect(Connect),
    /// Show what was written by what is kept running in a sandbox
    Logs(Logs),
    /// Copy files into a sandbox's home or workspace, or out of it
    Cp(Copy),
    /// Keep a sandbox's home and workspace as they are now, and bring them back
    #[command(subcommand)]
    Snapshot(snapshot::Command),
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// What it is called: lower-case letters, digits and hyphens
    name: String,
    /// What runs in it: openclaw, hermes, or generic for any other program
    #[arg(long, value_name = "AGENT", value_parser = ["openclaw", "hermes", "generic"])]
    agent: String,
    #[command(flatten)]
    what: What,
    /// Do not start it
    #[arg(long)]
    no_start: bool,
    /// Show what the kernel would be asked for, and make nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    how: How,
    /// What is kept running in it, in place of the harness's own gateway
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Which gateway looks after it, and how it is told.
#[derive(Debug, Args)]
pub(crate) struct How {
    #[command(flatten)]
    pub(super) which: Which,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Args)]
pub(crate) struct One {
    /// Its name
    name: String,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Args)]
pub(crate) struct Destroy {
    /// Its name
    name: String,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Args)]
pub(crate) struct Attach {
    /// Its name
    name: String,
    /// The providers
    #[arg(required = true, value_name = "PROVIDER")]
    providers: Vec<String>,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Args)]
pub(crate) struct Policy {
    /// Its name
    name: String,
    /// The policy; `farrier policy check` looks for mistakes in one
    file: PathBuf,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// Its name
    name: String,
    /// Give it a terminal
    #[arg(long, short)]
    tty: bool,
    /// How long it may take; then it is killed
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
    /// A variable for it; may be repeated. No secret: programs in the sandbox can read it
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Where it starts, inside [default: /workspace]
    #[arg(long, value_name = "DIR")]
    cwd: Option<String>,
    #[command(flatten)]
    which: Which,
    /// Program and arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Connect {
    /// Its name
    name: String,
    /// Open another terminal, whatever was left
    #[arg(long)]
    new: bool,
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Its name
    name: String,
    /// Go on with what is written from now on, until interrupted
    #[arg(long, short)]
    follow: bool,
    /// The newest so many lines
    #[arg(long, value_name = "N", default_value_t = 100)]
    last: usize,
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, Args)]
pub(crate) struct Copy {
    /// What: a path here, or NAME:PATH in a sandbox, below /home/agent or /workspace
    source: String,
    /// Where to; a directory that is there takes it in
    destination: String,
    #[command(flatten)]
    which: Which,
}

pub(crate) fn run(command: &Command, context: &Context<'_>) -> Result<ExitCode, Failure> {
    match command {
        Command::Attach(arguments) => attach(arguments, context),
        Command::Connect(arguments) => connect(arguments, context),
        Command::Cp(arguments) => copy::run(arguments, context),
        Command::Create(arguments) => create::run(arguments, context),
        Command::Destroy(arguments) => destroy(arguments, context),
        Command::Detach(arguments) => detach(arguments, context),
        Command::Exec(arguments) => exec(arguments, context),
        Command::List(arguments) => show::list(arguments, context),
        Command::Logs(arguments) => show::logs(arguments, context),
        Command::Policy(arguments) => policy(arguments, context),
        Command::Snapshot(command) => snapshot::run(command, context),
        Command::Start(arguments) => start(arguments, context),
        Command::Status(arguments) => show::status(arguments, context),
        Command::Stop(arguments) => stop(arguments, context),
    }
}

pub(super) fn named(name: &str) -> Result<SandboxName, Failure> {
    let parsed = name.parse();
    parsed.map_err(|error: farrier_control::InvalidSandboxName| Failure::usage(error.to_string()))
}

fn providers(names: &[String]) -> Result<Vec<ProviderName>, Failure> {
    let parsed = names.iter().map(|name| name.parse());
    let parsed: Result<_, farrier_secrets::NameError> = parsed.collect();
    parsed.map_err(|error| Failure::usage(error.to_string()))
}

/// Asks the gateway, on a runtime of its own.
pub(super) fn ask<T, F>(
    which: &Which,
    context: &Context<'_>,
    asked: impl FnOnce(Client) -> F,
) -> Result<T, Failure>
where
    F: Future<Output = Result<T, farrier_control::CallError>>,
{
    let gateway = which.find(context)?;
    let client = gateway.client.clone();
    let answer = runtime::run(async { Ok(asked(client).await) })?;
    answer.map_err(|error| unreached(&gateway, error, context))
}

/// Why there is no answer, and how there would be one.
pub(super) fn unreached(
    gateway: &Found,
    error: farrier_control::CallError,
    context: &Context<'_>,
) -> Failure {
    let is_none = matches!(error, farrier_control::CallError::NoGateway { .. });
    let failure = gateway.unreached(error, context);
    match is_none {
        true => failure.hint("farrier up looks after sandboxes: start it first"),
        false => failure,
    }
}

/// Says what became of a sandbox.
fn done(
    status: &SandboxStatus,
    (how, word): (&How, &str),
    context: &Context<'_>,
) -> Result<ExitCode, Failure> {
    if how.json {
        context.output.json(status)?;
    } else {
        let said = format!("{}: {word}", status.name);
        context.output.line(&said)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn start(arguments: &One, context: &Context<'_>) -> Result<ExitCode, Failure> {
    let name = named(&arguments.name)?;
    let how = &arguments.how;
    let status = ask(&how.which, context, async |client| {
        client.start_sandbox(&name).await
    })?;
    done(&status, (how, "runs"), context)
}

fn stop(arguments: &One, context: &Context<'_>) -> Result<ExitCode, Failure> {
    let name = named(&arguments.name)?;
    let how = &arguments.how;
    let status = ask(&how.which, context, async |client| {
        client.stop_sandbox(&name).await
    })?;
    done(&status, (how, "stopped"), context)
}

fn destroy(arguments: &Destroy, context: &Context<'_>) -> Result<ExitCode, Failure> {
    let name = named(&arguments.name)?;
    let how = &arguments.how;
    if !arguments.yes {
        let question = format!("remove {name}, its home, its workspace and its snapshots? [y/N]");
        if !agreed(&question, context)? {
            return Err(Failure::user(format!("{name} is still there")));
        }
    }
    let status = ask(&how.which, context, async |client| {
        client.destroy_sandbox(&name).await
    })?;
    done(&status, (how, "destroyed"), context)
}

pub(super) fn agreed(question: &str, context: &Context<'_>) -> Result<bool, Failure> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::usage(
            "expected --yes where nobody can be asked, got none",
        ));
    }
    context.notices.say(question);
    let mut answer = String::new();
    let read = stdin.lock().read_line(&mut answer);
    read.map_err(|error| Failure::internal("cannot read the answer", &error))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn attach(arguments: &Attach, context: &Context<'_>) -> Result<ExitCode, Failure> {
    let change = SandboxChange {
        attach: providers(&arguments.providers)?,
        ..SandboxChange::default()
    };
    changed(
        (&arguments.name, &change),
        (&arguments.how, "attached"),
        context,
    )
}

fn detach(arguments: &Attach, context: &Context<'_>) -> Result<ExitCode, Failure> {
    let change = SandboxChange {
        detach: providers(&arguments.providers)?,
        ..SandboxChange::default()
    };
    changed(
        (&arguments.name, &change),
        (&arguments.how, "detached"),
        context,
    )
}

fn policy(arguments: &Policy, context: &Context<'_>) -> Result<ExitCode, Failure> {
    let change = SandboxChange {
        policy: Some(create::policy(&arguments.file)?),
        ..SandboxChange::default()
    };
    changed(
        (&arguments.name, &change),
        (&arguments.how, "goes by it"),
        context,
    )
}

fn changed(
    (name, change): (&str, &SandboxChange),
    (how, word): (&How, &str),
    context: &Context<'_>,
) -> Result<ExitCode, Failure> {
    let name = named(name)?;
    let status = ask(&how.which, context, async |client| {
        client.change_sandbox(&name, change).await
    })?;
    done(&status, (how, word), context)
}

fn exec(arguments: &Exec, context: &Context<'_>) -> Result<ExitCode, Failure> {
    let name = named(&arguments.name)?;
    let variable = |given: &String| match given.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(Failure::usage(
            "expected NAME=VALUE with --env, got something else",
        )),
    };
    let env: Result<Vec<_>, _> = arguments.env.iter().map(variable).collect();
    let asked = Talk {
        command: arguments.command.clone(),
        env: env?,
        cwd: arguments.cwd.clone(),
        tty: arguments.tty,
        timeout: arguments.timeout,
        ..Talk::default()
    };
    talk(&arguments.which, &name, asked, context)
}

fn connect(arguments: &Connect, context: &Context<'_>) -> Result<ExitCode, Failure> {
    let name = named(&arguments.name)?;
    if !io::stdin().is_terminal() {
        return Err(Failure::usage("expected a terminal, got none")
            .hint(format!("farrier sandbox exec {name} -- COMMAND needs none")));
    }
    let status = ask(&arguments.which, context, async |client| {
        client.sandbox(&name).await
    })?;
    devices::let_in(&arguments.which.find(context)?.client, &status, context);
    let left = status
        .sessions
        .iter()
        .rev()
        .find(|session| !session.attached);
    let attach = left.filter(|_| !arguments.new).map(|session| session.id);
    let word = match attach {
        Some(_) => "the terminal that was left",
        None => "a terminal",
    };
    context.notices.say(&format!(
        "{word} in {name}; Ctrl-] leaves it, and what runs in it goes on"
    ));
    let asked = Talk {
        tty: true,
        keep: true,
        attach,
        ..Talk::default()
    };
    talk(&arguments.which, &name, asked, context)
}
