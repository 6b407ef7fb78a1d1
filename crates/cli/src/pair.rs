//! `farrier pair`: the devices of a harness's own, approved in time.
//!
//! ```text
//! arguments, environment ──▶ place (which harness, where) ──▶ watch, pass, list, hand
//! ```
//!
//! What is approved, and when, is decided in `farrier-pairing`; here is who is asked, and who is told.

mod hand;
mod list;
mod pass;
mod place;
mod watch;

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Subcommand;

use crate::commands::Context;
use crate::failure::Failure;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Approve the devices of OpenClaw's own as they ask, and nobody else's
    Watch(watch::Arguments),
    /// Approve what waits now, once, in a bounded time; never fails
    Pass(pass::Arguments),
    /// Show which devices wait, for what and why, and whether a watcher runs
    List(list::Arguments),
    /// Approve a request by hand
    Approve(hand::Arguments),
    /// Reject a request by hand
    Reject(hand::Arguments),
}

pub(crate) fn run(command: &Command, context: &Context<'_>) -> Result<ExitCode, Failure> {
    match command {
        Command::Watch(arguments) => watch::run(arguments, context),
        Command::Pass(arguments) => pass::run(arguments, context),
        Command::List(arguments) => list::run(arguments, context),
        Command::Approve(arguments) => hand::run(hand::Verdict::Approve, arguments, context),
        Command::Reject(arguments) => hand::run(hand::Verdict::Reject, arguments, context),
    }
}

#[expect(clippy::disallowed_methods, reason = "the one clock of these commands")]
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

fn moment(unix_ms: u64) -> String {
    let moment = UNIX_EPOCH + std::time::Duration::from_millis(unix_ms);
    humantime::format_rfc3339_seconds(moment).to_string()
}
