//! Notices that what a configuration was read from has changed.
//!
//! ```text
//! Sources ──▶ the directory entries that decide what they lead to ──inotify──▶ touched ──quiet──▶ changed
//!    └──────────────────────── looked at now and then ─────────────────────────────────────────▶ changed
//! ```
//!
//! Watched are directory entries, not files: editors and Kubernetes replace a file by another of its name, or a link on
//! the way to it. What is not there yet is waited for in the nearest directory that is. Where the system tells nothing,
//! as for files that change on another machine, looking at them now and then still finds it.
//!
//! Guarantee: no change is missed. One that happens while the configuration is being read, or before the watch is set
//! up, is found by comparing with what was there just before the reading.

mod entries;
#[cfg(target_os = "linux")]
mod inotify;

use std::future::pending;
use std::io;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tracing::warn;

use crate::config::Sources;

#[cfg(target_os = "linux")]
use inotify::Wakes;

/// A watch over what a configuration was read from.
#[derive(Debug)]
pub(crate) enum Watch {
    Off,
    On {
        sources: Sources,
        wakes: Option<Wakes>,
        /// Whether something may have changed before `wakes` could tell.
        unsure: bool,
    },
}

/// A writer that is not done writes again before this is over.
const QUIET: Duration = Duration::from_millis(100);
/// One that never is does not keep us from it for longer.
const MOST_UNREST: Duration = Duration::from_secs(1);
/// Between two looks, where the system tells of changes.
const SELDOM: Duration = Duration::from_secs(30);
/// Between two looks, where it does not.
const OFTEN: Duration = Duration::from_secs(2);

impl Watch {
    /// Watches what was just read.
    pub(crate) fn on(sources: Sources) -> Self {
        let wakes = Wakes::on(&sources)
            .inspect_err(|error| {
                warn!(%error, "the system does not tell of changes; files are looked at every {OFTEN:?}");
            })
            .ok();
        Self::On {
            sources,
            wakes,
            unsure: true,
        }
    }

    pub(crate) fn is_on(&self) -> bool {
        matches!(self, Self::On { .. })
    }

    /// Resolves when something may be otherwise than it was read, and has been left alone for a moment. Then read it
    /// again and watch that. Safe to drop.
    pub(crate) async fn changed(&mut self) {
        let Self::On {
            sources,
            wakes,
            unsure,
        } = self
        else {
            return pending().await;
        };
        if *unsure && looked(sources).await {
            return settled(wakes.as_mut()).await;
        }
        *unsure = false;
        loop {
            let pause = if wakes.is_some() { SELDOM } else { OFTEN };
            tokio::select! {
                told = touched(wakes.as_mut()) => match told {
                    Ok(()) => return settled(wakes.as_mut()).await,
                    Err(error) => {
                        warn!(%error, "the system tells of changes no more; files are looked at every {OFTEN:?}");
                        *wakes = None;
                    }
                },
                () = sleep(pause) => if looked(sources).await {
                    return;
                }
            }
        }
    }
}

/// Whether a look finds a change. It is taken beside the runtime, since a file system may not answer.
async fn looked(sources: &Sources) -> bool {
    let sources = sources.clone();
    let look = tokio::task::spawn_blocking(move || sources.changed());
    // A look that fails finds out nothing; reading the files will.
    look.await.unwrap_or(true)
}

async fn touched(wakes: Option<&mut Wakes>) -> io::Result<()> {
    match wakes {
        Some(wakes) => wakes.touched().await,
        None => pending().await,
    }
}

/// Waits for whoever writes to have written.
async fn settled(mut wakes: Option<&mut Wakes>) {
    let latest = Instant::now() + MOST_UNREST;
    loop {
        let quiet = (Instant::now() + QUIET).min(latest);
        match timeout_at(quiet, touched(wakes.as_deref_mut())).await {
            Ok(Ok(())) if Instant::now() < latest => {}
            // Quiet, or unrest without end, or a failure that the next watch will meet again.
            _ => return,
        }
    }
}

/// Elsewhere files are only looked at.
#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
pub(crate) enum Wakes {}

#[cfg(not(target_os = "linux"))]
impl Wakes {
    fn on(_sources: &Sources) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn touched(&mut self) -> io::Result<()> {
        match *self {}
    }
}

#[cfg(test)]
mod tests;
