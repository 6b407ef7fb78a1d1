//! What a command that goes on running says of itself, for people or for programs.

use clap::ValueEnum;
use tracing::{error, info};
use tracing_subscriber::EnvFilter;

use crate::commands::Context;
use crate::config::{Environment, with_causes};
use crate::failure::Notices;

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Log {
    /// For people
    Text,
    /// One object a line
    Json,
}

impl Log {
    /// Has every event go to stderr from now on.
    pub(crate) fn to_stderr(self, context: &Context<'_>) {
        let filter = filter(context.env).unwrap_or_else(|refused| {
            context.notices.warn(&refused);
            EnvFilter::new(LEVEL)
        });
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter)
            // It would tell of a reader that left by printing to that same reader, and panic.
            .log_internal_errors(false)
            .with_writer(std::io::stderr);
        match self {
            Self::Json => subscriber.json().init(),
            Self::Text => subscriber.with_ansi(context.notices.coloured()).init(),
        }
    }

    /// Something to know: as it is for people, as an event for programs.
    pub(crate) fn tell(self, notices: &Notices, message: &str) {
        match self {
            Self::Json => info!("{message}"),
            Self::Text => notices.say(message),
        }
    }

    /// The same for something to put right.
    pub(crate) fn complain(self, notices: &Notices, message: &str) {
        match self {
            Self::Json => error!("{message}"),
            Self::Text => notices.say(message),
        }
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
