//! `farrier pair approve` and `farrier pair reject`: a person decides, and the harness's own command does it.

use std::process::ExitCode;

use clap::Args;
use farrier_pairing::{HostRunner, Pace, RequestId, Runner as _, TIMED_OUT};
use serde::Serialize;

use super::place::Which;
use crate::commands::Context;
use crate::failure::Failure;
use crate::runtime::{self, Signals};

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Which request, as `farrier pair list` shows it
    #[arg(value_name = "ID", value_parser = id)]
    request: RequestId,
    #[command(flatten)]
    which: Which,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Verdict {
    Approve,
    Reject,
}

#[derive(Serialize)]
struct Done<'a> {
    request_id: &'a RequestId,
    done: &'static str,
}

pub(super) fn run(
    verdict: Verdict,
    arguments: &Arguments,
    context: &Context<'_>,
) -> Result<ExitCode, Failure> {
    let harness = arguments.which.find(context.env)?;
    let id = &arguments.request;
    let timeout = Pace::default().call_timeout;
    let (call, wanted, done) = match verdict {
        Verdict::Approve => (harness.approve(id, timeout), "approve", "approved"),
        Verdict::Reject => (harness.reject(id, timeout), "reject", "rejected"),
    };
    let output = runtime::run(async {
        let mut signals = Signals::watch()?;
        tokio::select! {
            output = HostRunner.run(call) => {
                output.map_err(|error| Failure::internal(format!("cannot {wanted} {id}"), &error))
            }
            () = signals.next() => Err(Failure::user(format!("interrupted before {id} was {done}"))),
        }
    })?;
    match output.code {
        0 if arguments.json => context.output.json(&Done {
            request_id: id,
            done,
        })?,
        0 => context.output.line(&format!("{done} {id}"))?,
        TIMED_OUT => {
            return Err(Failure::user(format!(
                "expected OpenClaw to {wanted} {id} within {timeout:?}, got no answer"
            ))
            .hint("is its gateway up? `farrier pair list` asks it too"));
        }
        _ => {
            return Err(Failure::user(format!(
                "expected OpenClaw to {wanted} {id}, got: {}",
                harness.quoted(&output)
            ))
            .hint("a device that asked again has another id; `farrier pair list` shows it"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn id(text: &str) -> Result<RequestId, String> {
    RequestId::parse(text)
        .ok_or_else(|| "expected letters, digits and ._:- with a letter or digit first".to_owned())
}
