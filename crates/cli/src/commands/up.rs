//! `farrier up`: the gateway, until a signal.
//!
//! The first SIGTERM or SIGINT drains: what is in flight is finished, within the configured deadline. The second cuts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use farrier_gateway::config::{Config, Route};
use farrier_gateway::{Drained, Gateway};
use farrier_ledger::Embedded;
use tracing::info;
use tracing_subscriber::EnvFilter;

use super::Context;
use crate::config::{self, Environment, Overrides, TraceText, with_causes};
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
        return Err(Failure::usage("expected --trace-dir with --trace-text, got none")
            .hint("or name the directory in [trace] of the configuration"));
    }
    examined.warnings.iter().for_each(|warning| context.notices.warn(&warning.shown(&file)));
    runtime::run(async {
        let ready = examined.ready().await.map_err(|mistakes| {
            context.notices.mistakes(&file, &mistakes);
            Failure::of_mistakes(mistakes.len(), &file)
        })?;
        serve(ready.config, ready.ledger, arguments.log, context.notices).await
    })
}

async fn serve(
    config: Config,
    ledger: Arc<Embedded>,
    log: Log,
    notices: &Notices,
) -> Result<ExitCode, Failure> {
    let mut signals = Signals::watch()?;
    let summary = summary(&config, &ledger);
    let bound = Gateway::bind(config).await?;
    let urls: Vec<String> = bound.addrs().map(|addr| format!("http://{addr}/v1")).collect();
    announce(log, &urls, &summary, notices);
    let (drain, draining) = tokio::sync::oneshot::channel::<()>();
    let running = bound.run(async {
        let _asked_or_gone = draining.await;
    });
    let drained = tokio::select! {
        drained = running => drained,
        () = second_signal(&mut signals, drain, log, notices) => {
            return Err(Failure::user("cut by a second signal"));
        }
    };
    tell_of_drain(drained, log, notices);
    ledger.close().await.map_err(|error| Failure::internal("cannot close the ledger", &error))?;
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

fn tell_of_drain(drained: Drained, log: Log, notices: &Notices) {
    match drained.cut {
        0 => tell(log, notices, "drained"),
        cut => tell(log, notices, &format!("drained; {cut} connections were cut at the deadline")),
    }
}

// === what people are told ===

/// What the gateway is made of, one fact a line.
fn summary(config: &Config, ledger: &Embedded) -> Vec<String> {
    let widest = config.routes.iter().map(|route| route.model.len()).max().unwrap_or_default();
    let mut lines: Vec<String> =
        config.routes.iter().map(|route| route_line(route, config, widest)).collect();
    let clients = match config.clients.len() {
        0 => "anyone on this machine".to_owned(),
        _ => {
            let names: Vec<&str> = config.clients.iter().map(|client| client.name.as_str()).collect();
            format!("{}, each with its key", names.join(", "))
        }
    };
    lines.push(format!("clients   {clients}"));
    lines.push(format!("manifests {}", config.registry.manifests().count()));
    lines.push(format!("ledger    {}", ledger.path().display()));
    if let Some(trace) = &config.trace {
        let text = if trace.keep_text { "kept" } else { "masked" };
        lines.push(format!("trace     {} (text {text})", trace.dir.display()));
    }
    lines
}

fn route_line(route: &Route, config: &Config, widest: usize) -> String {
    let provider = config.providers.iter().find(|provider| provider.name == route.provider);
    let base_url = provider.map(|provider| provider.base_url.as_str()).unwrap_or_default();
    let upstream = match &route.upstream_model {
        Some(model) => format!(" as {model}"),
        None => String::new(),
    };
    format!("route     {:widest$} -> {}{upstream} ({base_url})", route.model, route.provider)
}

fn announce(log: Log, urls: &[String], summary: &[String], notices: &Notices) {
    match log {
        Log::Json => info!(urls = urls.join(" "), summary = summary.join("; "), "listening"),
        Log::Text => {
            let version = env!("CARGO_PKG_VERSION");
            notices.say(&format!("farrier {version} listens on {}", urls.join(" and ")));
            summary.iter().for_each(|line| notices.say(&format!("  {line}")));
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
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match log {
        Log::Json => subscriber.json().init(),
        Log::Text => subscriber.with_ansi(context.notices.coloured()).init(),
    }
}

fn filter(env: &Environment) -> Result<EnvFilter, String> {
    let wanted = env.filled("FARRIER_LOG").unwrap_or_else(|| LEVEL.to_owned());
    let parsed = EnvFilter::builder().parse(wanted);
    parsed.map_err(|error| format!("FARRIER_LOG is not a filter: {}", with_causes(&error)))
}

/// One event for each request, and what goes wrong.
const LEVEL: &str = "info";
