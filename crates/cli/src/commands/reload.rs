//! `farrier reload`: has the gateway that runs read its configuration again.
//!
//! What is wrong with it goes to stderr as `farrier check` would say it; with `--json` it is data, on stdout.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use farrier_control::{CallError, Client, Mistake, Outcome, Reload};

use super::Context;
use crate::config;
use crate::failure::Failure;
use crate::runtime;

/// Which gateway is meant.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// The configuration it runs with [default: ./farrier.toml, else $XDG_CONFIG_HOME/farrier/farrier.toml]
    #[arg(long, value_name = "FILE", conflicts_with = "socket")]
    pub(super) config: Option<PathBuf>,
    /// Its control socket, if it was started with one of its own
    #[arg(long, value_name = "PATH")]
    pub(super) socket: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    which: Which,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments, context: &Context<'_>) -> Result<ExitCode, Failure> {
    let Context {
        output, notices, ..
    } = context;
    let gateway = arguments.which.find(context)?;
    let reload = runtime::run(async { Ok(gateway.client.reload().await) })?;
    let reload = reload.map_err(|error| gateway.unreached(error, context))?;
    let taken = reload.result == Outcome::Taken;
    if arguments.json {
        output.json(&reload)?;
        return Ok(if taken {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        });
    }
    let file = gateway.shown(&reload.config);
    let say = |mistake: &Mistake| shown(mistake, &file);
    let warnings = reload.warnings.iter().map(say);
    warnings.for_each(|warning| notices.warn(&warning));
    if !taken {
        reload
            .mistakes
            .iter()
            .for_each(|mistake| notices.say(&say(mistake)));
        let generation = reload.generation;
        return Err(
            Failure::of_mistakes(reload.mistakes.len(), file.as_ref()).hint(format!(
                "nothing has changed: generation {generation} still serves"
            )),
        );
    }
    output.line(&taken_over(&reload, &file))?;
    if !reload.needs_restart.is_empty() {
        let keys = reload.needs_restart.join(", ");
        notices.warn(&format!("takes effect after a restart: {keys}"));
    }
    Ok(ExitCode::SUCCESS)
}

fn taken_over(reload: &Reload, file: &str) -> String {
    let made_anew = match reload.reconnected.as_slice() {
        [] => String::new(),
        names => format!("; connections made anew: {}", names.join(", ")),
    };
    format!(
        "{file}: serves as generation {}{made_anew}",
        reload.generation
    )
}

/// As [`config::Mistake::shown`], with the file as whoever asked calls it.
pub(crate) fn shown(mistake: &Mistake, file: &str) -> String {
    let message = &mistake.message;
    match (&mistake.file, mistake.line) {
        (Some(_), Some(line)) => format!("{file}:{line}: {message}"),
        (Some(_), None) => format!("{file}: {message}"),
        (None, _) => message.clone(),
    }
}

/// A gateway that is meant.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) client: Client,
    /// The configuration as it was named; none if the socket was.
    file: Option<PathBuf>,
}

impl Which {
    /// Where the gateway that is meant lets itself be asked, whether it runs or not.
    pub(crate) fn find(&self, context: &Context<'_>) -> Result<Found, Failure> {
        if let Some(socket) = &self.socket {
            let client = Client::at(socket);
            return Ok(Found { client, file: None });
        }
        let file = config::locate(self.config.as_deref(), context.env)?;
        let places = config::control_sockets(&file, context.env);
        let there = places.iter().find(|place| place.exists());
        let Some(socket) = there.or_else(|| places.first()) else {
            return Err(Failure::user(
                "expected a place for control sockets, got none: \
                 neither XDG_RUNTIME_DIR, XDG_STATE_HOME nor HOME is set",
            )
            .hint("name the gateway's with --socket"));
        };
        Ok(Found {
            client: Client::at(socket),
            file: Some(file),
        })
    }
}

impl Found {
    /// The configuration, as it was named.
    pub(crate) fn shown(&self, told: &str) -> String {
        match &self.file {
            Some(file) => file.display().to_string(),
            None => told.to_owned(),
        }
    }

    /// Why there is no answer, and where else one could be.
    pub(crate) fn unreached(&self, error: CallError, context: &Context<'_>) -> Failure {
        let failure = Failure::user(error.to_string());
        match (error, &self.file) {
            (CallError::Broken { source, .. }, _) => failure.caused_by(&*source),
            (CallError::NoGateway { .. }, Some(file)) => {
                let failure = failure.hint(format!(
                    "it would be there if it had been started with {}",
                    config::absolute(file).display()
                ));
                match others(context) {
                    others if others.is_empty() => failure,
                    others => failure.hint(format!(
                        "other gateways may be at {}; name one with --socket",
                        others.join(" or ")
                    )),
                }
            }
            _ => failure,
        }
    }
}

/// Sockets of other gateways, of those that run and perhaps of some that were killed.
pub(super) fn others(context: &Context<'_>) -> Vec<String> {
    let directories = config::control_directories(context.env);
    let mut found: Vec<String> = directories
        .filter_map(|directory| std::fs::read_dir(directory).ok())
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "sock")
        })
        .map(|path| path.display().to_string())
        .collect();
    found.sort_unstable();
    found
}
