//! `farrier pair list`: who waits, for what and why, and whether a watcher runs.

use std::process::ExitCode;

use clap::Args;
use farrier_pairing::{
    Decision, Harness, HostRunner, Listing, Liveness, Pairing, Policy, Record, Report, Runner as _,
    Standing, Waiting, Watching,
};
use serde::Serialize;

use super::place::{Under, Which};
use super::{moment, now_ms};
use crate::commands::Context;
use crate::failure::Failure;
use crate::runtime;

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    under: Under,
    /// Do not ask OpenClaw, which takes some seconds; show what its watcher knows
    #[arg(long)]
    no_ask: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What is known, from whoever could be asked.
#[derive(Serialize)]
struct Known {
    watcher: Liveness,
    report: Option<Report>,
    /// Whether the harness answered; otherwise the lists are the watcher's.
    asked: bool,
    waiting: Vec<Waiting>,
    refused: Vec<Waiting>,
    paired: Option<usize>,
}

/// Of past decisions, as many are shown to people.
const SHOWN_RECORDS: usize = 5;

pub(crate) fn run(arguments: &Arguments, context: &Context<'_>) -> Result<ExitCode, Failure> {
    let file = arguments.which.report(context.env)?;
    let (report, watcher) = file.read().map_err(|error| {
        Failure::internal(format!("cannot read {}", file.path().display()), &error)
    })?;
    let policy = arguments.under.policy()?;
    let listing = if arguments.no_ask {
        None
    } else {
        let harness = arguments.which.find(context.env)?;
        let listing = runtime::run(async { Ok(asked(&harness).await) })?;
        listing
            .map_err(|why| {
                context
                    .notices
                    .warn(&format!("OpenClaw does not say who waits: {why}"));
            })
            .ok()
    };
    let known = Known::of(watcher, report, listing, &policy);
    if arguments.json {
        context.output.json(&known)?;
    } else {
        context.output.text(&(known.lines().join("\n") + "\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn asked(harness: &Harness) -> Result<Listing, String> {
    let call = harness.list(farrier_pairing::Pace::default().call_timeout);
    let output = HostRunner
        .run(call)
        .await
        .map_err(|error| error.to_string())?;
    match output.code {
        0 => Listing::parse(&output.stdout).map_err(|error| error.to_string()),
        _ => Err(harness.quoted(&output)),
    }
}

impl Known {
    fn of(
        watcher: Liveness,
        report: Option<Report>,
        listing: Option<Listing>,
        policy: &Policy,
    ) -> Self {
        let mut known = Self {
            watcher,
            asked: listing.is_some(),
            waiting: Vec::new(),
            refused: Vec::new(),
            paired: None,
            report,
        };
        match (listing, &known.report) {
            (Some(listing), _) => {
                known.paired = Some(listing.paired.len());
                for request in &listing.pending {
                    let since = request.asked_at_ms.unwrap_or_else(now_ms);
                    match policy.decide(request) {
                        Decision::Allow => known.waiting.push(Waiting::of(request, since, None)),
                        Decision::Refuse(reason) => {
                            known
                                .refused
                                .push(Waiting::of(request, since, Some(reason)));
                        }
                    }
                }
            }
            (None, Some(report)) => {
                known.waiting.clone_from(&report.pairing.waiting);
                known.refused.clone_from(&report.pairing.refused);
                known.paired = Some(report.pairing.paired);
            }
            (None, None) => {}
        }
        known
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = vec![watcher(self.watcher, self.report.as_ref())];
        lines.extend(
            self.report
                .iter()
                .map(|report| format!("  {}", standing(&report.pairing))),
        );
        lines.extend(self.paired.map(|paired| format!("paired   {paired}")));
        let approver = match self.watcher {
            Liveness::Running => "the watcher approves it",
            Liveness::Dead | Liveness::Ended | Liveness::Never => {
                "approve it by `farrier pair pass`"
            }
        };
        for waiting in &self.waiting {
            lines.push(row(
                "waiting",
                waiting,
                waiting.failure.as_deref().unwrap_or(approver),
            ));
        }
        for refused in &self.refused {
            let why = refused
                .refused
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default();
            lines.push(row("refused", refused, &why));
        }
        if self.waiting.is_empty() && self.refused.is_empty() {
            lines.push("nothing waits".to_owned());
        }
        let recent = self
            .report
            .iter()
            .flat_map(|report| report.pairing.recent.iter().rev());
        lines.extend(recent.take(SHOWN_RECORDS).map(record));
        lines
    }
}

fn watcher(liveness: Liveness, report: Option<&Report>) -> String {
    let process = report
        .map(|report| format!("process {}, ", report.pid))
        .unwrap_or_default();
    let since = report
        .map(|report| moment(report.started_ms))
        .unwrap_or_default();
    match liveness {
        Liveness::Dead => format!(
            "watcher  dead: {process}started {since}, ended without a word; start it again with `farrier pair watch`"
        ),
        Liveness::Ended => format!(
            "watcher  ended: {process}started {since}; start it again with `farrier pair watch`"
        ),
        Liveness::Never => "watcher  none; start one with `farrier pair watch`".to_owned(),
        Liveness::Running => format!("watcher  running: {process}since {since}"),
    }
}

fn standing(pairing: &Pairing) -> String {
    let stands = match &pairing.standing {
        Standing::Converged => "converged".to_owned(),
        Standing::DeadlineReached => "its time was over".to_owned(),
        Standing::NothingPaired => "nothing has asked to pair".to_owned(),
        Standing::Starting => "starting".to_owned(),
        Standing::Stopped => "it was stopped".to_owned(),
        Standing::Unanswered { why } => format!("OpenClaw does not answer: {why}"),
        Standing::Waiting => "a request waits".to_owned(),
    };
    let watching = match pairing.watching {
        Watching::Polling => "asks again and again",
        Watching::StateDirectory => "looks at the state directory",
    };
    format!(
        "{stands}, since {}; {} mode, {watching}; approved {}",
        moment(pairing.since_ms),
        pairing.mode.name(),
        pairing.approvals
    )
}

/// No period after an id: people copy it.
fn row(word: &str, waiting: &Waiting, note: &str) -> String {
    format!(
        "{word:9}{}  {} ({})  {}  since {}: {note}",
        waiting.request_id,
        waiting.client,
        waiting.mode,
        if waiting.scopes.is_empty() {
            "no scopes".to_owned()
        } else {
            waiting.scopes.join(",")
        },
        moment(waiting.since_ms)
    )
}

fn record(record: &Record) -> String {
    let happened = format!("{:?}", record.happened).to_lowercase();
    format!(
        "{}  {happened} {}  {}: {}",
        moment(record.at_ms),
        record.request_id,
        record.client,
        record.why
    )
}
