//! `farrier up`: the gateway, until a signal.
//!
//! The first SIGTERM or SIGINT drains: what is in flight is finished, within the configured deadline. The second cuts.
//! SIGHUP, a change of a file and the control socket have the configuration read again (see [`crate::reloading`]).

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::pending;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use farrier_control::{BindError, Socket};
use farrier_gateway::config::{Config, Route};
use farrier_gateway::{Bound, Drained, Gateway, StartError};
use farrier_ledger::{Ledger, LedgerError};
use farrier_serve::Tracker;
use tracing::{info, warn};

use super::Context;
use crate::config::{self, Mistake, Overrides, Ready, TraceText};
use crate::egress::{Proxies, Reins};
use crate::failure::{Failure, Notices};
use crate::hardening;
use crate::log::Log;
use crate::reloading::{Origin, Reloading};
use crate::runtime::{self, Hangups, Signals};
use crate::sandboxes::Sandboxes;
use crate::watch::Watch;

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
    /// Where `farrier reload` and `farrier status` reach it [default: in $XDG_RUNTIME_DIR/farrier,
    /// else in $XDG_STATE_HOME/farrier/control, by a name of the configuration's own]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// How the log on stderr is written; FARRIER_LOG filters it, such as FARRIER_LOG=debug
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log: Log,
}

/// What is there before anything is answered.
#[derive(Debug)]
struct Started<'a> {
    bound: Bound,
    proxies: Proxies,
    sandboxes: Sandboxes,
    ledger: Arc<dyn Ledger>,
    socket: Option<Socket>,
    reloading: Reloading<'a>,
    life: Tracker,
}

/// What a gateway is told from outside, from the moment this is made.
#[derive(Debug)]
struct Ears {
    signals: Signals,
    hangups: Hangups,
}

pub(crate) fn run(arguments: &Arguments, context: &Context<'_>) -> Result<ExitCode, Failure> {
    arguments.log.to_stderr(context);
    // Before the first secret is read.
    hardening::forbid_core_dumps()?;
    runtime::run(async {
        let ears = Ears {
            signals: Signals::watch()?,
            hangups: Hangups::watch()?,
        };
        let started = start(arguments, context).await?;
        serve(started, ears, arguments.log, context.notices).await
    })
}

/// From the arguments to a gateway that listens, and has said so.
async fn start<'a>(arguments: &Arguments, context: &Context<'a>) -> Result<Started<'a>, Failure> {
    let (log, notices) = (arguments.log, context.notices);
    let overrides = Overrides {
        listen: arguments.listen.clone(),
        trace_dir: arguments.trace_dir.clone(),
        trace_text: arguments.trace_text,
    };
    let examined = config::examine(arguments.config.as_deref(), context.env, &overrides)?;
    let file = examined.file.clone();
    let (egress, credentials) = (
        examined.egress().to_vec(),
        examined.credentials(&BTreeSet::new(), context.env),
    );
    if arguments.trace_text.is_some() && !examined.traces() {
        return Err(
            Failure::usage("expected --trace-dir with --trace-text, got none")
                .hint("or name the directory in [trace] of the configuration"),
        );
    }
    let warnings = examined.warnings.iter();
    warnings.for_each(|warning| notices.warn(&warning.shown(&file)));
    let mut origin = Origin {
        file: file.clone(),
        env: context.env.clone(),
        overrides,
        ledger: examined.ledger.clone(),
        listener: examined.listener().clone(),
        egress: Reins::default(),
    };
    let (sources, watches) = (examined.sources.clone(), examined.watches());
    let refused = |mistakes: Vec<Mistake>| {
        notices.mistakes(&file, &mistakes);
        Failure::of_mistakes(mistakes.len(), &file)
    };
    let Ready {
        config,
        ledger,
        store,
        lines,
    } = examined.ready().await.map_err(refused)?;
    let mut summary = summary(&config, store);
    let bound = Gateway::bind(config).await.map_err(|error| match error {
        StartError::Config(wrong) => refused(lines.placed(&wrong)),
        other => other.into(),
    })?;
    let proxies = Proxies::bind(&egress, credentials, context.env).await?;
    origin.egress = proxies.reins();
    let sandboxes = Sandboxes::open(&origin, bound.entrance());
    summary.extend(proxies.told());
    let socket = control_socket(arguments.socket.as_deref(), &file, context)?;
    let reached = socket.as_ref().map(|socket| socket.path().display());
    summary.extend(reached.map(|path| ("control", path.to_string())));
    let addresses: Vec<SocketAddr> = bound.addrs().collect();
    announce(log, &addresses, &summary, notices);
    let life = Tracker::new();
    let watch = if watches {
        Watch::on(sources)
    } else {
        Watch::Off
    };
    let listen = addresses.iter().map(SocketAddr::to_string).collect();
    let reloader = bound.reloader();
    Ok(Started {
        reloading: Reloading::new(
            origin,
            reloader,
            watch,
            listen,
            (life.clone(), sandboxes.clone()),
            (log, notices),
        ),
        bound,
        proxies,
        sandboxes,
        ledger,
        socket,
        life,
    })
}

/// The socket that was asked for, else one at the first place that can be had. A gateway whose machine has none for it
/// does its work without.
fn control_socket(
    wanted: Option<&Path>,
    file: &Path,
    context: &Context<'_>,
) -> Result<Option<Socket>, Failure> {
    if let Some(path) = wanted {
        return Ok(Some(Socket::bind(path)?));
    }
    for path in config::control_sockets(file, context.env) {
        match Socket::bind(&path) {
            Ok(socket) => return Ok(Some(socket)),
            Err(in_use @ BindError::InUse { .. }) => return Err(in_use.into()),
            Err(error) => warn!("{}", config::with_causes(&error)),
        }
    }
    warn!("no place for a control socket; SIGHUP reloads all the same, --socket names a place");
    Ok(None)
}

async fn serve(
    started: Started<'_>,
    ears: Ears,
    log: Log,
    notices: &Notices,
) -> Result<ExitCode, Failure> {
    let Started {
        bound,
        proxies,
        sandboxes,
        ledger,
        socket,
        reloading,
        life,
    } = started;
    let Ears {
        mut signals,
        hangups,
    } = ears;
    let desk = reloading.desk();
    let answering = async {
        match &socket {
            Some(socket) => socket.serve(desk).await,
            None => pending::<Infallible>().await,
        }
    };
    let reloading = async {
        reloading.run(hangups).await;
        pending::<Infallible>().await
    };
    sandboxes.restore();
    // What runs in sandboxes is asked to end first: it is whom the gateway answers.
    let housed = async {
        life.draining().await;
        sandboxes.close().await;
    };
    let answered = async { tokio::join!(bound.run(life.draining()), proxies.run(&life), housed) };
    let ended = tokio::select! {
        biased;
        // How it went is in the log.
        (Drained { .. }, (), ()) = answered => Ok(()),
        () = second_signal(&mut signals, &life, log, notices) => {
            Err(Failure::user("cut by a second signal"))
        }
        never = answering => match never {},
        never = reloading => match never {},
    };
    if let Some(Err(error)) = socket.map(Socket::close) {
        warn!(%error, "the control socket cannot be removed");
    }
    ended?;
    ledger.close().await.map_err(|error| match error {
        LedgerError::Undelivered { .. } => Failure::user(error.to_string()),
        error => Failure::internal("cannot close the ledger", &error),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Drains at the first signal, resolves at the second. A drain that was begun otherwise makes the first one the second.
async fn second_signal(signals: &mut Signals, life: &Tracker, log: Log, notices: &Notices) {
    tokio::select! {
        () = signals.next() => {
            life.drain();
            // What listens has its turn first, so that what is said is so.
            tokio::task::yield_now().await;
            log.tell(notices, "draining; a second signal cuts");
        }
        () = life.draining() => {}
    }
    signals.next().await;
}

// === what people are told ===

/// What the gateway is made of: a word, and what there is of it.
fn summary(config: &Config, store: String) -> Vec<(&'static str, String)> {
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
    facts.push(("ledger", store));
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
    let fallbacks: String = route
        .targets()
        .skip(1)
        .map(|(provider, model)| format!(", else {provider} as {model}"))
        .collect();
    format!(
        "{:widest$} -> {}{upstream} ({base_url}){fallbacks}",
        route.model, route.provider
    )
}

fn announce(log: Log, addresses: &[SocketAddr], facts: &[(&str, String)], notices: &Notices) {
    let urls: Vec<String> = addresses
        .iter()
        .map(|address| format!("http://{address}/v1"))
        .collect();
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
