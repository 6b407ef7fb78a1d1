//! `farrier up`: the gateway, until a signal.
//!
//! The first SIGTERM or SIGINT drains: what is in flight is finished, within the configured deadline. The second cuts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use farrier_gateway::config::{Config, Route};
use farrier_gateway::{Bound, Drained, Gateway, StartError};
use farrier_ledger::Embedded;
use tracing::info;
use tracing_subscriber::EnvFilter;

use super::Context;
use crate::config::{self, Environment, Mistake, Overrides, Ready, TraceText, with_causes};
use crate::failure::{Failure, Notices};
use crate::runtime::{self, Signals};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The configuration [default: ./farrier.toml, else $XDG_CONFIG_HOME/farrier/farrier.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to listen, in place of what the configuration says; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<SocketAddr>,
    /// Keep a redacted transcript of each request in this directory
    #[arg(long, value_name = "DIR")]
    trace_dir: Option<PathBuf>,
    /// What transcripts show of what people and models wrote [default: mask]
    #[arg(long, value_name = "HOW")]
    trace_text: Option<TraceText>,
    /// How the log on stderr is written; FARRIER_LOG filters it, such as FARRIER_LOG=debug
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log: Log,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Log {
    /// For people
    Text,
    /// One object a line
    Json,
}

pub(crate) fn run(arguments: &Arguments, context: &Context<'_>) -> Result<ExitCode, Failure> {
    log_to_stderr(arguments.log, context);
    let overrides = Overrides {
        listen: arguments.listen.clone(),
        trace_dir: arguments.trace_dir.clone(),
        trace_text: arguments.trace_text,
    };
    let examined = config::examine(arguments.config.as_deref(), context.env, &overrides)?;
    let file = examined.file.clone();
    if arguments.trace_text.is_some() && !examined.traces() {
        return Err(
            Failure::usage("expected --trace-dir with --trace-text, got none")
                .hint("or name the directory in [trace] of the configuration"),
        );
    }
    examined
        .warnings
        .iter()
        .for_each(|warning| context.notices.warn(&warning.shown(&file)));
    runtime::run(async {
        let refused = |mistakes: Vec<Mistake>| {
            context.notices.mistakes(&file, &mistakes);
            Failure::of_mistakes(mistakes.len(), &file)
        };
        let Ready {
            config,
            ledger,
            lines,
        } = examined.ready().await.map_err(refused)?;
        let summary = summary(&config, &ledger);
        let bound = Gateway::bind(config).await.map_err(|error| match error {
            StartError::Config(wrong) => refused(lines.placed(&wrong)),
            other => other.into(),
        })?;
        serve(bound, ledger, &summary, arguments.log, context.notices).await
    })
}

async fn serve(
    bound: Bound,
    ledger: Arc<Embedded>,
    summary: &[(&str, String)],
    log: Log,
    notices: &Notices,
) -> Result<ExitCode, Failure> {
    let mut signals = Signals::watch()?;
    let urls: Vec<String> = bound
        .addrs()
        .map(|addr| format!("http://{addr}/v1"))
        .collect();
    announce(log, &urls, summary, notices);
    let (drain, draining) = tokio::sync::oneshot::channel::<()>();
    let running = bound.run(async {
        let _asked_or_gone = draining.await;
    });
    tokio::select! {
        // How it went is in the log.
        Drained { .. } = running => {}
        () = second_signal(&mut signals, drain, log, notices) => {
            return Err(Failure::user("cut by a second signal"));
        }
    };
    ledger
        .close()
        .await
        .map_err(|error| Failure::internal("cannot close the ledger", &error))?;
    Ok(ExitCode::SUCCESS)
}

/// Drains at the first signal, resolves at the second.
async fn second_signal(
    signals: &mut Signals,
    drain: tokio::sync::oneshot::Sender<()>,
    log: Log,
    notices: &Notices,
) {
    signals.next().await;
    tell(log, notices, "draining; a second signal cuts");
    // The receiver is gone only when there is nothing to drain.
    let _told = drain.send(());
    signals.next().await;
}

// === what people are told ===

/// What the gateway is made of: a word, and what there is of it.
fn summary(config: &Config, ledger: &Embedded) -> Vec<(&'static str, String)> {
    let widest = config
        .routes
        .iter()
        .map(|route| route.model.len())
        .max()
        .unwrap_or_default();
    let mut facts: Vec<(&str, String)> = config
        .routes
        .iter()
        .map(|route| ("route", led(route, config, widest)))
        .collect();
    let names: Vec<&str> = config
        .clients
        .iter()
        .map(|client| client.name.as_str())
        .collect();
    let clients = match names.as_slice() {
        [] => "anyone on this machine".to_owned(),
        names => format!("{}, each by its key", names.join(", ")),
    };
    facts.push(("clients", clients));
    facts.push(("manifests", config.registry.manifests().count().to_string()));
    facts.push(("ledger", ledger.path().display().to_string()));
    if let Some(trace) = &config.trace {
        let text = if trace.keep_text { "kept" } else { "masked" };
        facts.push(("trace", format!("{} (text {text})", trace.dir.display())));
    }
    facts
}

/// Where a route leads.
fn led(route: &Route, config: &Config, widest: usize) -> String {
    let provider = config
        .providers
        .iter()
        .find(|provider| provider.name == route.provider);
    let base_url = provider
        .map(|provider| provider.base_url.as_str())
        .unwrap_or_default();
    let upstream = route
        .upstream_model
        .as_ref()
        .map(|model| format!(" as {model}"));
    let upstream = upstream.unwrap_or_default();
    format!(
        "{:widest$} -> {}{upstream} ({base_url})",
        route.model, route.provider
    )
}

fn announce(log: Log, urls: &[String], facts: &[(&str, String)], notices: &Notices) {
    match log {
        Log::Json => {
            let facts: Vec<String> = facts
                .iter()
                .map(|(word, fact)| format!("{word} {fact}"))
                .collect();
            info!(urls = urls.join(" "), facts = facts.join("; "), "listening");
        }
        Log::Text => {
            let version = env!("CARGO_PKG_VERSION");
            notices.say(&format!(
                "farrier {version} listens on {}",
                urls.join(" and ")
            ));
            facts
                .iter()
                .for_each(|(word, fact)| notices.say(&format!("  {word:10}{fact}")));
        }
    }
}

fn tell(log: Log, notices: &Notices, message: &str) {
    match log {
        Log::Json => info!("{message}"),
        Log::Text => notices.say(message),
    }
}

fn log_to_stderr(log: Log, context: &Context<'_>) {
    let filter = filter(context.env).unwrap_or_else(|refused| {
        context.notices.warn(&refused);
        EnvFilter::new(LEVEL)
    });
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match log {
        Log::Json => subscriber.json().init(),
        Log::Text => subscriber.with_ansi(context.notices.coloured()).init(),
    }
}

fn filter(env: &Environment) -> Result<EnvFilter, String> {
    let wanted = env
        .filled("FARRIER_LOG")
        .unwrap_or_else(|| LEVEL.to_owned());
    let parsed = EnvFilter::builder().parse(wanted);
    parsed.map_err(|error| format!("FARRIER_LOG is not a filter: {}", with_causes(&error)))
}

/// One event for each request, and what goes wrong.
const LEVEL: &str = "info";
