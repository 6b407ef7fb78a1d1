//! `farrier pair watch`: in the foreground, until its time is over or it is told to end.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use farrier_pairing::{
    Backoff, Ended, Happening, HostRunner, Keeper, Note, Observer, OpenReportError, Pace, Pairing,
    Report, Watcher, seconds_or, supervise,
};
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinError;

use super::place::{Under, Which};
use super::{moment, now_ms};
use crate::commands::Context;
use crate::config::Environment;
use crate::failure::Failure;
use crate::runtime::{self, Signals};

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    under: Under,
    /// For how long; `forever` has no end [default: 8h]
    #[arg(long = "for", value_name = "DURATION", value_parser = lifetime)]
    lifetime: Option<Lifetime>,
    /// Ask again and again, without looking at the state directory
    #[arg(long)]
    poll: bool,
    /// Print what happens as JSON, one object a line
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug)]
enum Lifetime {
    Forever,
    For(Duration),
}

/// What the watcher tells, from its own task.
struct Telling {
    happenings: mpsc::Sender<Happening>,
    pairing: watch::Sender<Option<Pairing>>,
}

/// What is printed as JSON.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
enum Line<'a> {
    Happened { at_ms: u64, what: String },
    Stands { at_ms: u64, pairing: &'a Pairing },
}

/// Who hears of it: the terminal, a program, the report.
struct Audience<'a> {
    context: &'a Context<'a>,
    json: bool,
    keeper: Keeper,
    report: Option<Report>,
    started_ms: u64,
    restarts: u64,
    state_dir: PathBuf,
    last_line: String,
}

/// More than a round can bring; what does not fit is in the report.
const MOST_HAPPENINGS: usize = 1024;

pub(crate) fn run(arguments: &Arguments, context: &Context<'_>) -> Result<ExitCode, Failure> {
    let mut harness = arguments.which.find(context.env)?;
    if arguments.poll {
        harness.state = None;
    }
    let watcher = Watcher {
        harness,
        runner: HostRunner,
        pace: pace(arguments, context.env),
        policy: arguments.under.policy()?,
        now_ms,
    };
    let report = arguments.which.report(context.env)?;
    runtime::run(async {
        let signals = Signals::watch()?;
        let keeper = report.keep().await.map_err(unkept)?;
        let audience = Audience {
            context,
            json: arguments.json,
            keeper,
            report: None,
            started_ms: now_ms(),
            restarts: 0,
            state_dir: arguments.which.state(context.env).unwrap_or_default(),
            last_line: String::new(),
        };
        watched(watcher, audience, signals).await
    })
}

/// Runs the watcher, starts it again if it fails, and tells what it says.
async fn watched(
    watcher: Watcher<HostRunner>,
    mut audience: Audience<'_>,
    mut signals: Signals,
) -> Result<ExitCode, Failure> {
    audience.say(&format!("watcher started pid={}", std::process::id()))?;
    let watcher = Arc::new(watcher);
    let (happenings, mut happened) = mpsc::channel(MOST_HAPPENINGS);
    let (pairing, mut stands) = watch::channel(None);
    let (stop, stopping) = watch::channel(false);
    let (failed, mut failures) = mpsc::channel(1);
    let start = |_starts| {
        let (watcher, mut stopping) = (Arc::clone(&watcher), stopping.clone());
        let telling = Telling {
            happenings: happenings.clone(),
            pairing: pairing.clone(),
        };
        async move {
            let stopped = async move {
                // That nobody can tell it to stop any more means the same.
                let _told = stopping.wait_for(|stop| *stop).await;
            };
            watcher.run(telling, stopped).await
        }
    };
    let told = |error: &JoinError, wait: Duration| {
        let _full = failed.try_send(format!("the watcher failed ({error}); again in {wait:?}"));
    };
    let ended = supervise(Backoff::default(), start, told);
    tokio::pin!(ended);
    let ended = loop {
        tokio::select! {
            biased;
            Some(happening) = happened.recv() => audience.hear(&happening)?,
            Some(failure) = failures.recv() => audience.hear_failure(&failure)?,
            Ok(()) = stands.changed() => {
                let pairing = stands.borrow_and_update().clone();
                audience.see(pairing)?;
            }
            () = signals.next() => {
                let _before = stop.send_replace(true);
            }
            ended = &mut ended => break ended,
        }
    };
    while let Ok(happening) = happened.try_recv() {
        audience.hear(&happening)?;
    }
    let last = stands.borrow_and_update().clone();
    audience.see(last)?;
    if ended == Ended::Stopped {
        audience.say("watcher stopped")?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Observer for Telling {
    fn happened(&mut self, happening: &Happening) {
        let _full = self.happenings.try_send(happening.clone());
    }

    fn stands(&mut self, pairing: &Pairing) {
        self.pairing.send_if_modified(|told| {
            let news = told.as_ref() != Some(pairing);
            if news {
                *told = Some(pairing.clone());
            }
            news
        });
    }
}

impl Audience<'_> {
    /// What is said again and again while nothing changes is said once.
    fn hear(&mut self, happening: &Happening) -> Result<(), Failure> {
        if let Happening::Noted(Note::Listed { .. }) = happening {
            return Ok(());
        }
        let line = happening.to_string();
        if line == self.last_line {
            return Ok(());
        }
        self.say(&line)?;
        self.last_line = line;
        Ok(())
    }

    fn hear_failure(&mut self, failure: &str) -> Result<(), Failure> {
        self.restarts += 1;
        self.say(failure)
    }

    fn see(&mut self, pairing: Option<Pairing>) -> Result<(), Failure> {
        let Some(pairing) = pairing else {
            return Ok(());
        };
        if self
            .report
            .as_ref()
            .is_some_and(|report| report.pairing == pairing)
        {
            return Ok(());
        }
        if self.json {
            self.print(&Line::Stands {
                at_ms: now_ms(),
                pairing: &pairing,
            })?;
        }
        let report = Report {
            pid: std::process::id(),
            started_ms: self.started_ms,
            written_ms: now_ms(),
            restarts: self.restarts,
            state_dir: self.state_dir.clone(),
            pairing,
        };
        if let Err(error) = self.keeper.write(&report) {
            self.context
                .notices
                .warn(&format!("cannot write the report: {error}"));
        }
        self.report = Some(report);
        Ok(())
    }

    fn say(&self, line: &str) -> Result<(), Failure> {
        let at_ms = now_ms();
        self.context
            .notices
            .say(&format!("{} {line}", moment(at_ms)));
        if self.json {
            self.print(&Line::Happened {
                at_ms,
                what: line.to_owned(),
            })?;
        }
        Ok(())
    }

    fn print(&self, line: &Line<'_>) -> Result<(), Failure> {
        let text = serde_json::to_string(line);
        let text = text.map_err(|error| Failure::of_output(error.into()))?;
        self.context.output.line(&text)
    }
}

/// The durations of the facts, and what the environment says instead.
fn pace(arguments: &Arguments, env: &Environment) -> Pace {
    let default = Pace::default();
    let seconds = |name: &str, default| seconds_or(env.filled(name).as_deref(), default);
    let polls = env.filled("FARRIER_PAIR_FAST_REENTRY_POLLS");
    let polls = polls.and_then(|polls| polls.trim().parse().ok());
    let told = default
        .deadline
        .map(|deadline| seconds("FARRIER_PAIR_DEADLINE_SECS", deadline));
    Pace {
        fast_deadline: seconds("FARRIER_PAIR_FAST_DEADLINE_SECS", default.fast_deadline),
        deadline: match arguments.lifetime {
            Some(Lifetime::Forever) => None,
            Some(Lifetime::For(duration)) => Some(duration),
            None => told,
        },
        slow_interval: seconds("FARRIER_PAIR_SLOW_INTERVAL_SECS", default.slow_interval),
        call_timeout: seconds("FARRIER_PAIR_RUN_TIMEOUT_SECS", default.call_timeout),
        reentry_rounds: polls
            .filter(|polls| *polls > 0)
            .unwrap_or(default.reentry_rounds),
        reentry_interval: seconds(
            "FARRIER_PAIR_FAST_REENTRY_INTERVAL_SECS",
            default.reentry_interval,
        ),
        ..default
    }
}

fn lifetime(text: &str) -> Result<Lifetime, String> {
    if text == "forever" {
        return Ok(Lifetime::Forever);
    }
    match humantime::parse_duration(text) {
        Ok(duration) if !duration.is_zero() => Ok(Lifetime::For(duration)),
        _ => Err("expected a duration such as 8h, or `forever`".to_owned()),
    }
}

fn unkept(error: OpenReportError) -> Failure {
    let failure = Failure::user(error.to_string());
    match &error {
        OpenReportError::InUse { .. } => failure.hint("`farrier pair list` says how it is doing"),
        OpenReportError::Place { source, .. } => failure.caused_by(source),
    }
}
