//! One pass over devices that wait, before somebody is connected to a sandbox.
//!
//! The watcher beside the gateway approves in time; where it says that nothing waits, nothing is asked. It ends in time, and
//! never keeps anybody from connecting.

use std::ffi::OsString;
use std::io;

use farrier_control::talk::{Ended, ExecRequest, Outward, read_outward};
use farrier_control::{Client, SandboxName, SandboxStatus};
use farrier_pairing::{
    Harness, Invocation, Limits, Output, Policy, RunError, Runner, TIMED_OUT, pass,
};

use crate::commands::Context;
use crate::runtime;

/// Runs commands in a sandbox, by way of the gateway.
struct ByGateway {
    client: Client,
    name: SandboxName,
}

/// What a shell says of a command that a signal ended, besides the signal.
const BY_SIGNAL: i32 = 128;

/// Approves what waits and may be approved, and says so.
pub(super) fn let_in(client: &Client, status: &SandboxStatus, context: &Context<'_>) {
    let Some(pairing) = &status.pairing else {
        return;
    };
    if pairing.waiting.is_empty() && pairing.state == "converged" {
        return;
    }
    let runner = ByGateway {
        client: client.clone(),
        name: status.name.clone(),
    };
    let harness = Harness {
        command: vec![OsString::from(&status.spec.agent)],
        env: Vec::new(), // the sandbox's own
        state: None,
        version: status
            .spec
            .version
            .as_ref()
            .and_then(|version| version.parse().ok()),
    };
    let passed = runtime::run(async {
        Ok(pass(&harness, &runner, &Policy::default(), Limits::connect()).await)
    });
    match passed {
        Ok(passed) => passed
            .to_string()
            .lines()
            .for_each(|line| context.notices.say(line)),
        Err(failure) => {
            context.notices.conclude(Err(failure));
        }
    }
}

impl Runner for ByGateway {
    async fn run(&self, invocation: Invocation) -> Result<Output, RunError> {
        let text = |word: &OsString| word.to_string_lossy().into_owned();
        let program = invocation.argv.first().map(&text).ok_or(RunError::Empty)?;
        let request = ExecRequest {
            command: invocation.argv.iter().map(text).collect(),
            env: invocation
                .env
                .iter()
                .map(|(name, value)| (text(name), text(value)))
                .collect(),
            timeout_ms: u64::try_from(invocation.timeout.as_millis()).ok(),
            ..ExecRequest::default()
        };
        let failed = |error: io::Error| RunError::Start {
            program: program.clone(),
            source: error,
        };
        // Dropped, this ends the command: it ends with its caller.
        let mut stream = self
            .client
            .exec(&self.name, &request)
            .await
            .map_err(|error| failed(io::Error::other(error)))?;
        let mut output = Output::default();
        loop {
            let frame = read_outward(&mut stream).await.map_err(failed)?;
            match frame {
                Some(Outward::Output(bytes)) => keep(&mut output.stdout, &bytes),
                Some(Outward::Errors(bytes)) => keep(&mut output.stderr, &bytes),
                Some(Outward::Ended(ended)) => {
                    output.code = match ended {
                        Ended::Exited(code) => code,
                        Ended::Killed(signal) => BY_SIGNAL + signal,
                        Ended::TimedOut => TIMED_OUT,
                        Ended::Left(why) | Ended::Unstarted(why) => {
                            return Err(failed(io::Error::other(why)));
                        }
                    };
                    return Ok(output);
                }
                None => return Err(failed(io::ErrorKind::UnexpectedEof.into())),
            }
        }
    }
}

/// Keeps as much as is looked at.
fn keep(kept: &mut Vec<u8>, bytes: &[u8]) {
    let room = Output::MOST_BYTES - kept.len();
    kept.extend(&bytes[..bytes.len().min(room)]);
}
