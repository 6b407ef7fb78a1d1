//! `farrier policy`: what sandboxes may reach, judged as their proxies judge it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use farrier_egress::audit::Line;
use farrier_egress::policy::{Asked, Explained, Inspect, LoadError, Outcome, Policy, suggest};
use farrier_egress::target::{Authority, Path as Judged};
use serde::Serialize;

use super::{Context, logs};
use crate::config::{self, Overrides};
use crate::failure::Failure;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Look for mistakes in a policy, and for what of it has no effect
    Check(CheckArguments),
    /// Say whether a request would pass, and what each endpoint of the policy makes of it
    Explain(ExplainArguments),
    /// Print the rules that would allow what was refused
    Suggest(SuggestArguments),
}

#[derive(Debug, Args)]
pub(crate) struct CheckArguments {
    /// Policy files [default: those of the configuration]
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The configuration [default: ./farrier.toml, else $XDG_CONFIG_HOME/farrier/farrier.toml]
    #[arg(long, value_name = "FILE", conflicts_with = "files")]
    config: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArguments {
    /// What is asked for: a URL, or host:port for a tunnel
    url: String,
    /// How it is asked for; WEBSOCKET_TEXT for what is said over a WebSocket
    #[arg(long, default_value = "GET")]
    method: String,
    /// The policy file [default: that of the sandbox]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["sandbox", "config"])]
    policy: Option<PathBuf>,
    /// The sandbox whose policy is meant [default: the only one]
    #[arg(long, value_name = "NAME")]
    sandbox: Option<String>,
    /// The configuration [default: ./farrier.toml, else $XDG_CONFIG_HOME/farrier/farrier.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SuggestArguments {
    /// Of one sandbox alone
    #[arg(long, value_name = "NAME")]
    sandbox: Option<String>,
    /// Print JSON: what was refused, one object each
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Checked {
    file: String,
    valid: bool,
    mistakes: Vec<String>,
    notices: Vec<String>,
    endpoints: usize,
}

#[derive(Serialize)]
struct Explanation {
    url: String,
    method: String,
    allowed: bool,
    by: Option<String>,
    reason: Option<String>,
    /// Whether TLS is ended by the proxy: always, never, or if there is a credential to put in.
    inspected: Option<&'static str>,
    endpoints: Vec<Considered>,
}

#[derive(Serialize)]
struct Considered {
    at: String,
    outcome: String,
}

/// What is asked for, taken apart.
struct Wanted {
    to: Authority,
    /// None for a tunnel.
    request: Option<(Judged, Option<String>)>,
}

pub(crate) fn run(command: &Command, context: &Context<'_>) -> Result<ExitCode, Failure> {
    match command {
        Command::Check(arguments) => check(arguments, context),
        Command::Explain(arguments) => explain(arguments, context),
        Command::Suggest(arguments) => suggested(arguments, context),
    }
}

// === check ===

fn check(arguments: &CheckArguments, context: &Context<'_>) -> Result<ExitCode, Failure> {
    let files = if arguments.files.is_empty() {
        configured(arguments.config.as_deref(), context)?
            .into_iter()
            .map(|(_, file, _)| file)
            .collect()
    } else {
        arguments.files.clone()
    };
    let checked = files
        .iter()
        .map(|file| checked(file))
        .collect::<Result<Vec<_>, _>>()?;
    let valid = checked.iter().all(|checked| checked.valid);
    if arguments.json {
        context.output.json(&checked)?;
    } else {
        for checked in &checked {
            said(checked, context)?;
        }
    }
    Ok(if valid {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn checked(file: &Path) -> Result<Checked, Failure> {
    let mut checked = Checked {
        file: file.display().to_string(),
        valid: true,
        mistakes: Vec::new(),
        notices: Vec::new(),
        endpoints: 0,
    };
    match Policy::load(&read(file)?) {
        Ok(policy) => {
            checked.notices = policy.notices().iter().map(ToString::to_string).collect();
            checked.endpoints = policy.endpoint_count();
        }
        Err(error) => {
            checked.valid = false;
            checked.mistakes = match error {
                LoadError::Mistaken(found) => found.iter().map(ToString::to_string).collect(),
                other => vec![other.to_string()],
            };
        }
    }
    Ok(checked)
}

fn said(checked: &Checked, context: &Context<'_>) -> Result<(), Failure> {
    let file = &checked.file;
    for mistake in &checked.mistakes {
        context.notices.say(&format!("{file}: {mistake}"));
    }
    for notice in &checked.notices {
        context.notices.warn(&format!("{file}: {notice}"));
    }
    if checked.valid {
        let endpoints = checked.endpoints;
        let plural = if endpoints == 1 { "" } else { "s" };
        context.output.line(&format!(
            "{file}: no mistakes ({endpoints} endpoint{plural})"
        ))?;
    }
    Ok(())
}

fn read(file: &Path) -> Result<String, Failure> {
    fs::read_to_string(file)
        .map_err(|error| Failure::user(format!("cannot read {}", file.display())).caused_by(&error))
}

/// The policies of a configuration: sandbox, file, policy.
fn configured(
    config: Option<&Path>,
    context: &Context<'_>,
) -> Result<Vec<(String, PathBuf, Policy)>, Failure> {
    let examined = config::examine(config, context.env, &Overrides::default())?;
    let egress = examined.egress();
    if egress.is_empty() {
        let file = examined.file.display();
        context.notices.mistakes(&examined.file, &examined.mistakes);
        return Err(Failure::user(format!(
            "expected an [[egress]] with a policy in {file}, got none that can be used"
        ))
        .hint("name a policy file instead"));
    }
    let all = egress.iter().map(|egress| {
        (
            egress.name.clone(),
            egress.policy_file.clone(),
            Policy::clone(&egress.policy),
        )
    });
    Ok(all.collect())
}

// === explain ===

fn explain(arguments: &ExplainArguments, context: &Context<'_>) -> Result<ExitCode, Failure> {
    let policy = match &arguments.policy {
        Some(file) => Policy::load(&read(file)?)
            .map_err(|error| Failure::user(format!("{}: {error}", file.display())))?,
        None => policy_of(arguments, context)?,
    };
    let wanted = wanted(&arguments.url)?;
    let method = arguments.method.to_ascii_uppercase();
    let explanation = explained(&policy, &wanted, (&arguments.url, &method));
    if arguments.json {
        context.output.json(&explanation)?;
    } else {
        context.output.text(&told(&explanation))?;
    }
    Ok(if explanation.allowed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn policy_of(arguments: &ExplainArguments, context: &Context<'_>) -> Result<Policy, Failure> {
    let mut all = configured(arguments.config.as_deref(), context)?;
    let names: Vec<String> = all.iter().map(|(name, ..)| name.clone()).collect();
    let names = names.join(", ");
    match &arguments.sandbox {
        Some(wanted) => {
            let found = all.into_iter().find(|(name, ..)| name == wanted);
            found.map(|(.., policy)| policy).ok_or_else(|| {
                Failure::user(format!(
                    "expected one of the sandboxes {names}, got {wanted:?}"
                ))
            })
        }
        None if all.len() == 1 => Ok(all.remove(0).2),
        None => Err(Failure::usage(format!(
            "expected --sandbox with one of {names}, got none"
        ))),
    }
}

fn wanted(url: &str) -> Result<Wanted, Failure> {
    let malformed = |error| Failure::usage(format!("{url}: {error}"));
    let (implied, rest) = match url.split_once("://") {
        Some(("http", rest)) => (Some(80), rest),
        Some(("https", rest)) => (Some(443), rest),
        Some(_) => {
            return Err(Failure::usage(format!(
                "expected an http or https URL, or host:port, got {url}"
            )));
        }
        None => (None, url),
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at(end);
    let to = Authority::parse(authority, implied).map_err(malformed)?;
    if implied.is_none() && target.is_empty() {
        return Ok(Wanted { to, request: None });
    }
    let target = target.split('#').next().unwrap_or_default();
    let (path, query) = target
        .split_once('?')
        .map_or((target, None), |(path, query)| {
            (path, Some(query.to_owned()))
        });
    let path = Judged::parse(path).map_err(malformed)?;
    Ok(Wanted {
        to,
        request: Some((path, query)),
    })
}

fn explained(policy: &Policy, wanted: &Wanted, (url, method): (&str, &str)) -> Explanation {
    let root = (
        Judged {
            plain: "/".to_owned(),
            written: "/".to_owned(),
            has_encoded_slash: false,
        },
        None,
    );
    let (path, query) = wanted.request.as_ref().unwrap_or(&root);
    let asked = Asked {
        method,
        path,
        query: query.as_deref(),
    };
    let reach = policy.connect(&wanted.to);
    let outcome = match wanted.request {
        Some(_) => policy
            .request(&wanted.to, asked)
            .map(|allowed| (allowed.by, allowed.in_spite_of)),
        None => reach.clone().map(|reach| (reach.by, None)),
    };
    let considered = policy.explain(&wanted.to, asked);
    let (by, reason) = match &outcome {
        Ok((by, in_spite_of)) => {
            let reason = in_spite_of
                .as_ref()
                .map(|denied| format!("only watched: {denied}"));
            (Some(by.to_string()), reason)
        }
        Err(denied) => (
            denied.by.as_deref().map(str::to_owned),
            Some(denied.to_string()),
        ),
    };
    Explanation {
        url: url.to_owned(),
        method: method.to_owned(),
        allowed: outcome.is_ok(),
        by,
        reason,
        inspected: reach.ok().map(|reach| match reach.inspect {
            Inspect::IfNeeded => "if a credential may be sent there",
            Inspect::Must => "always",
            Inspect::Never => "never",
        }),
        endpoints: considered.into_iter().map(Considered::from).collect(),
    }
}

impl From<Explained> for Considered {
    fn from(Explained { at, outcome }: Explained) -> Self {
        let outcome = match outcome {
            Outcome::Allows => "allows it".to_owned(),
            Outcome::Denies => "denies it, whatever else allows it".to_owned(),
            Outcome::EncodedSlash => "does not allow %2F in a path".to_owned(),
            Outcome::NoRule => "has no rule that allows it".to_owned(),
            Outcome::OtherHost { expected } => format!("is for host {expected}"),
            Outcome::OtherPath { expected } => format!("is for path {expected}"),
            Outcome::OtherPort { expected } => format!("is for port {expected:?}"),
            Outcome::Opaque => "allows the connection, and does not look into it".to_owned(),
            Outcome::Protocol(name) => format!("speaks {name}, which is not inspected"),
        };
        Self {
            at: at.to_string(),
            outcome,
        }
    }
}

fn told(explanation: &Explanation) -> String {
    let Explanation {
        url,
        method,
        allowed,
        by,
        reason,
        inspected,
        endpoints,
    } = explanation;
    let verdict = if *allowed { "allowed" } else { "refused" };
    let by = by
        .as_ref()
        .map(|by| format!(", by {by}"))
        .unwrap_or_default();
    let mut lines = vec![format!("{method} {url}: {verdict}{by}")];
    lines.extend(reason.as_ref().map(|reason| format!("  {reason}")));
    lines.extend(inspected.map(|when| format!("  looked into: {when}")));
    let width = endpoints
        .iter()
        .map(|considered| considered.at.len())
        .max()
        .unwrap_or_default();
    lines.extend(
        endpoints
            .iter()
            .map(|Considered { at, outcome }| format!("  {at:width$}  {outcome}")),
    );
    lines.join("\n") + "\n"
}

// === suggest ===

fn suggested(arguments: &SuggestArguments, context: &Context<'_>) -> Result<ExitCode, Failure> {
    let lines = logs::read(context)?;
    let of = |line: &&Line| logs::is_of(line, arguments.sandbox.as_deref());
    let refused: Vec<&Line> = lines
        .iter()
        .filter(of)
        .filter(|line| line.refusal().is_some())
        .collect();
    if arguments.json {
        context.output.json(&refused)?;
        return Ok(ExitCode::SUCCESS);
    }
    let refusals: Vec<_> = refused.iter().filter_map(|line| line.refusal()).collect();
    let inside = refusals.iter().filter(|refusal| refusal.leads_inside());
    let inside: BTreeSet<String> = inside.map(|refusal| refusal.to.to_string()).collect();
    for to in inside {
        context.notices.warn(&format!(
            "{to} is left out: it leads to this machine, its networks or the cloud's metadata; if that is meant, name it \
             with allowed_ips"
        ));
    }
    match suggest(&refusals) {
        Some(text) => {
            context
                .notices
                .say("read it before you take it over: it allows all that was refused");
            context.output.text(&text)?;
        }
        None => context
            .notices
            .say("nothing was refused that a rule would allow"),
    }
    Ok(ExitCode::SUCCESS)
}
