//! What is kept running in a sandbox: started, its output kept, and started again when it ends.
//!
//! ```text
//! start ─▶ runs ─▶ ended ─▶ wait: 1 s, 2 s, … 60 s ─▶ start
//!            └ for a minute: the waits begin anew
//! ```

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use farrier_control::ServiceStatus;
use farrier_sandbox::{Exec, Exit, Process, Sandbox};
use farrier_serve::Tracker;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

/// How it is doing.
#[derive(Debug, Default)]
pub(crate) struct Service {
    status: watch::Sender<Option<ServiceStatus>>,
}

/// Waits between two starts.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Whoever ran for so long is started again at once.
const SETTLED: Duration = Duration::from_secs(60);
/// Bytes of a log before it becomes the one before, of which there is one.
const MAX_LOG_BYTES: u64 = 8 * 1024 * 1024;
/// Bytes of output that are told with how something ended.
const TOLD_BYTES: usize = 2048;
/// For what is left in its pipes when it has ended.
const REST: Duration = Duration::from_millis(500);
/// Pieces of output that wait for the disk.
const QUEUE: usize = 64;

impl Service {
    pub(crate) fn status(&self) -> Option<ServiceStatus> {
        self.status.borrow().clone()
    }

    /// Resolves when nothing of it runs.
    pub(crate) async fn stopped(&self) {
        let mut status = self.status.subscribe();
        let stopped =
            |status: &Option<ServiceStatus>| status.as_ref().is_none_or(|one| !one.running);
        // We hold the sender ourselves.
        drop(status.wait_for(stopped).await);
    }

    /// Keeps a command running until the sandbox is to end, or has ended. `name` is the sandbox's.
    pub(crate) async fn keep(
        &self,
        (name, sandbox): (&str, &Sandbox),
        argv: &[String],
        (log, life): (PathBuf, &Tracker),
    ) {
        let (output, written) = mpsc::channel(QUEUE);
        let writing = spawn_blocking(move || write(&log, written));
        let mut wait = FIRST_WAIT;
        while !life.is_draining() {
            let begun = Instant::now();
            let told = self.once(sandbox, argv, &output).await;
            if life.is_draining() || sandbox.has_ended() {
                break;
            }
            if begun.elapsed() >= SETTLED {
                wait = FIRST_WAIT;
            }
            warn!(sandbox = name, ended = told, again_in = ?wait, "what is kept running has ended");
            tokio::select! {
                () = sleep(wait) => {}
                () = life.draining() => break,
                () = sandbox.wait() => break,
            }
            wait = (wait * 2).min(LONGEST_WAIT);
        }
        drop(output);
        match writing.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(sandbox = name, %error, "its log cannot be written"),
            Err(died) => warn!(sandbox = name, %died, "its log is not written any more"),
        }
    }

    /// From a start to the end, which is told.
    async fn once(
        &self,
        sandbox: &Sandbox,
        argv: &[String],
        output: &mpsc::Sender<Vec<u8>>,
    ) -> String {
        let mut exec = Exec::new(argv.iter().cloned());
        exec.directory = Some(super::furnish::WORKSPACE.to_owned());
        let tail = Arc::new(Mutex::new(VecDeque::new()));
        let told = match sandbox.exec(exec).await {
            Err(error) => crate::config::with_causes(&error),
            Ok(process) => {
                self.started();
                info!(sandbox = sandbox.policy().name, "what is kept running runs");
                ended(process, output, &tail).await
            }
        };
        let tail: Vec<u8> = lock(&tail).iter().copied().collect();
        self.ended(told.clone(), &tail);
        told
    }

    fn started(&self) {
        self.status.send_modify(|status| {
            *status = Some(match status.take() {
                None => ServiceStatus {
                    running: true,
                    restarts: 0,
                    last_exit: None,
                    last_output: None,
                },
                Some(before) => ServiceStatus {
                    running: true,
                    restarts: before.restarts + 1,
                    ..before
                },
            });
        });
    }

    fn ended(&self, told: String, tail: &[u8]) {
        let output = String::from_utf8_lossy(tail).trim().to_owned();
        self.status.send_modify(|status| {
            let restarts = status.as_ref().map_or(0, |status| status.restarts);
            *status = Some(ServiceStatus {
                running: false,
                restarts,
                last_exit: Some(told),
                last_output: (!output.is_empty()).then_some(output),
            });
        });
    }
}

/// Whoever panicked while holding it left a whole value behind.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for a process's end, and keeps what it writes meanwhile.
async fn ended(
    mut process: Process,
    output: &mpsc::Sender<Vec<u8>>,
    tail: &Arc<Mutex<VecDeque<u8>>>,
) -> String {
    drop(process.stdin.take());
    let (stdout, stderr) = (process.stdout.take(), process.stderr.take());
    let reading = async {
        tokio::join!(
            read(stdout, output.clone(), tail),
            read(stderr, output.clone(), tail)
        );
    };
    let mut reading = std::pin::pin!(reading);
    let exit = tokio::select! {
        exit = process.wait() => {
            // Its last words are still in its pipes, and so may be what it has started, for ever.
            drop(timeout(REST, reading).await);
            exit
        }
        () = &mut reading => process.wait().await,
    };
    match exit {
        Ok(Exit::Code(code)) => format!("ended with status {code}"),
        Ok(Exit::Signal(signal)) => format!("was ended by signal {signal}"),
        Err(gone) => gone.to_string(),
    }
}

async fn read(
    from: Option<impl AsyncRead + Unpin>,
    output: mpsc::Sender<Vec<u8>>,
    tail: &Arc<Mutex<VecDeque<u8>>>,
) {
    let Some(mut from) = from else {
        return;
    };
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        {
            let mut tail = lock(tail);
            tail.extend(&buffer[..read]);
            let excess = tail.len().saturating_sub(TOLD_BYTES);
            tail.drain(..excess);
        }
        if output.send(buffer[..read].to_vec()).await.is_err() {
            return; // the log has ended, and said why
        }
    }
}

/// Writes what comes, on a thread that may block.
fn write(path: &Path, mut written: mpsc::Receiver<Vec<u8>>) -> io::Result<()> {
    let mut log = open(path)?;
    let mut bytes = log.metadata()?.len();
    while let Some(piece) = written.blocking_recv() {
        if bytes > MAX_LOG_BYTES {
            fs::rename(path, path.with_extension("log.1"))?;
            log = open(path)?;
            bytes = 0;
        }
        log.write_all(&piece)?;
        bytes += piece.len() as u64;
    }
    log.flush()
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}
