//! The harness's own devices, approved as long as its gateway runs in the sandbox.
//!
//! ```text
//! home/.openclaw, seen from here ─▶ watcher ─▶ the harness's own command, in the sandbox
//!                                     └──────▶ what is told of the sandbox
//! ```
//!
//! The watcher decides on the host; nothing of the sandbox's decides for it. What it asks and approves is asked and approved
//! by the harness's own command, inside, so that it can do no more than whoever sits in there.

use std::ffi::OsString;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use farrier_control::PairingStatus;
use farrier_ledger::{Clock as _, SystemClock};
use farrier_pairing::{
    Backoff, Ended, Happening, Harness, Invocation, Note, Observer, Output, Pace, Pairing, Policy,
    Recovery, RunError, Runner, Standing, StateDir, TIMED_OUT, Version, Waiting, Watcher,
    supervise,
};
use farrier_sandbox::{Exec, Exit, Process, Sandbox};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinError;
use tokio::time::timeout;
use tracing::{info, warn};

use super::furnish;
use super::life::{Running, Start};
use crate::config::with_causes;

/// How the pairing of a sandbox is; none where nothing is paired.
pub(crate) type Stands = watch::Sender<Option<Pairing>>;

/// Runs commands in a sandbox.
pub(crate) struct Inside(pub(crate) Arc<Running>);

/// Who hears of it.
struct Telling {
    sandbox: String,
    running: Arc<Running>,
}

/// For a killed command to be gone.
const GONE: Duration = Duration::from_secs(2);
const SIGKILL: i32 = 9;
/// What a shell says of a command that a signal ended, besides the signal.
const BY_SIGNAL: i32 = 128;

/// Watches the devices of the harness's gateway, if it pairs any, until the sandbox ends.
pub(crate) fn watch_over(running: &Arc<Running>, start: &Start<'_>) {
    let Some(harness) = harness(start) else {
        return;
    };
    let (running, sandbox) = (Arc::clone(running), start.name.to_string());
    let own = Arc::clone(&running);
    own.look_after(async move { watched(running, harness, sandbox).await });
}

/// The harness whose gateway is kept running; none if something else is, or if it pairs no devices.
fn harness(start: &Start<'_>) -> Option<Harness> {
    let installed = start.ready.furniture.installed.as_ref()?;
    let devices = installed.harness.devices()?;
    if !start.spec.serve || !start.spec.command.is_empty() {
        return None;
    }
    let program = installed.program(devices.program)?;
    let program = furnish::inside(installed, &program);
    let state = StateDir::within(start.place.home(), installed.harness.config_dir()?);
    let version = installed.version.parse::<Version>().ok();
    Some(Harness {
        command: vec![program.into_os_string()],
        env: Vec::new(), // the sandbox's own
        state: Some(state),
        // What is written down for some versions is not ours to write in a sandbox's home.
        version: version.filter(|version| !Recovery::needed_by(*version)),
    })
}

async fn watched(running: Arc<Running>, harness: Harness, sandbox: String) {
    let watcher = Arc::new(Watcher {
        harness,
        runner: Inside(Arc::clone(&running)),
        pace: Pace::default(),
        policy: Policy::default(),
        now_ms: || SystemClock.unix_millis(),
    });
    let start = |_starts| {
        let (watcher, own) = (Arc::clone(&watcher), Arc::clone(&running));
        let telling = Telling {
            sandbox: sandbox.clone(),
            running: Arc::clone(&running),
        };
        async move { watcher.run(telling, async move { own.ends().await }).await }
    };
    let failed = |error: &JoinError, wait| {
        warn!(sandbox, %error, again_in = ?wait, "the watcher of devices failed");
    };
    // A watcher's time is limited, a sandbox's is not.
    while supervise(Backoff::default(), start, failed).await == Ended::Deadline {
        info!(sandbox, "the watcher of devices begins anew");
    }
}

impl Observer for Telling {
    fn happened(&mut self, happening: &Happening) {
        // Each list is one, and there are many.
        if !matches!(happening, Happening::Noted(Note::Listed { .. })) {
            info!(sandbox = self.sandbox, "devices: {happening}");
        }
    }

    fn stands(&mut self, pairing: &Pairing) {
        self.running.pairing.send_replace(Some(pairing.clone()));
    }
}

/// For whoever asks how the sandbox is.
pub(crate) fn told(pairing: &Pairing) -> PairingStatus {
    let (state, reason) = match &pairing.standing {
        Standing::Converged => ("converged", None),
        Standing::DeadlineReached => ("deadline-reached", None),
        Standing::NothingPaired => ("nothing-paired", None),
        Standing::Starting => ("starting", None),
        Standing::Stopped => ("stopped", None),
        Standing::Unanswered { why } => ("unanswered", Some(why.clone())),
        Standing::Waiting => ("waiting", None),
    };
    let shown = |waiting: &Waiting| {
        let why = waiting.refused.as_ref().map(ToString::to_string);
        let why = why.or_else(|| waiting.failure.clone()).unwrap_or_default();
        let scopes = waiting.scopes.join(", ");
        format!(
            "{} of {} for {scopes} {why}",
            waiting.request_id, waiting.client
        )
        .trim_end()
        .to_owned()
    };
    PairingStatus {
        state: state.to_owned(),
        reason,
        since_unix_ms: pairing.since_ms,
        paired: u64::try_from(pairing.paired).unwrap_or(u64::MAX),
        approvals: pairing.approvals,
        waiting: pairing.waiting.iter().map(shown).collect(),
        refused: pairing.refused.iter().map(shown).collect(),
    }
}

impl Runner for Inside {
    async fn run(&self, invocation: Invocation) -> Result<Output, RunError> {
        // In a task of the sandbox's, so that what was started is ended also if nobody waits for it any more.
        let (waits, left) = oneshot::channel();
        let running = Arc::clone(&self.0);
        let program = invocation
            .argv
            .first()
            .map(|program| program.to_string_lossy().into_owned());
        let program = program.ok_or(RunError::Empty)?;
        let (told, output) = oneshot::channel();
        self.0.look_after(async move {
            let done = called(&running.sandbox, invocation, left).await;
            // Whoever asked may have left.
            let _told_or_left = told.send(done);
        });
        let output = output.await;
        drop::<oneshot::Sender<()>>(waits);
        let failed = |error: String| RunError::Start {
            program: program.clone(),
            source: io::Error::other(error),
        };
        match output {
            Ok(done) => done.map_err(failed),
            Err(_ended) => Err(failed("the sandbox has ended".to_owned())),
        }
    }
}

/// Runs a command to its end, for as long as it may take and somebody waits for it.
async fn called(
    sandbox: &Sandbox,
    invocation: Invocation,
    left: oneshot::Receiver<()>,
) -> Result<Output, String> {
    let text = |word: OsString| word.to_string_lossy().into_owned();
    let mut exec = Exec::new(invocation.argv.into_iter().map(text));
    let env = invocation.env.into_iter();
    exec.environment = env.map(|(name, value)| (text(name), text(value))).collect();
    let mut process = sandbox
        .exec(exec)
        .await
        .map_err(|error| with_causes(&error))?;
    drop(process.stdin.take());
    let (stdout, stderr) = (process.stdout.take(), process.stderr.take());
    let ended = async {
        let (stdout, stderr, exit) = tokio::join!(bounded(stdout), bounded(stderr), process.wait());
        let code = match exit {
            Ok(Exit::Code(code)) => code,
            Ok(Exit::Signal(signal)) => BY_SIGNAL + signal,
            Err(gone) => return Err(gone.to_string()),
        };
        Ok(Output {
            code,
            stdout,
            stderr,
        })
    };
    let done = tokio::select! {
        done = timeout(invocation.timeout, ended) => done.ok(),
        _nobody = left => None,
    };
    match done {
        Some(done) => done,
        None => {
            kill(&mut process).await;
            Ok(Output {
                code: TIMED_OUT,
                ..Output::default()
            })
        }
    }
}

/// Ends a command and its group, and waits until it is gone.
async fn kill(process: &mut Process) {
    let _gone_or_told = process.signal(SIGKILL).await;
    if timeout(GONE, process.wait()).await.is_err() {
        warn!("a command in a sandbox was killed and is still there");
    }
}

/// What comes, up to as much as is kept; the rest is read and thrown away.
async fn bounded(from: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut kept = Vec::new();
    let Some(mut from) = from else {
        return kept;
    };
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let room = Output::MOST_BYTES - kept.len();
        kept.extend(&buffer[..read.min(room)]);
    }
    kept
}
