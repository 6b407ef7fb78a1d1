//! The one connection to the store, and what is known of it.
//!
//! ```text
//!                 ┌─────────────lost─────────────┐
//!                 ▼                              │
//! start ──▶ Connecting ──connected, key agrees──▶ Up
//!                 │                              ▲
//!                 └─failed──▶ Down ──connected───┘      close, from any ──▶ Closed
//!                             ▲  │
//!                             └──┘ failed: again after a while
//! ```
//!
//! *Connecting* is for the first attempt after a loss: who asks waits for its outcome, within its own
//! deadline, since a good server is back in a moment. *Down* is known: who asks is told at once, while
//! one task alone keeps trying, so that a store that is gone costs nobody a wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::fault::Fault;
use super::layout;
use super::origin::{Connection, Origin};
use crate::KeyKind;
use crate::backoff::Backoff;
use crate::seal::Seal;

/// From the first failed attempt to reach the store to the longest pause between two.
const RETRY: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));

/// A connection that is up, for one operation.
#[derive(Clone)]
pub(super) struct Live {
    pub(super) connection: Connection,
    /// Which of all connections it is.
    number: u64,
    /// Operations that failed since one succeeded.
    failures: Arc<AtomicU32>,
    patience: u32,
}

/// What is known of the store.
#[derive(Clone)]
enum State {
    Closed,
    Connecting,
    Down(Fault),
    Up(Live),
}

/// The connection, for as long as the ledger is open.
pub(super) struct Link {
    state: Arc<watch::Sender<State>>,
    keeper: Mutex<JoinSet<()>>,
}

/// What makes sure that the other end is our store, begun with our key.
pub(super) struct Greeting {
    /// What says so there.
    pub(super) name: String,
    /// What it must say.
    pub(super) fingerprint: String,
}

/// Sees to it that there is a connection.
struct Keeper {
    origin: Origin,
    greeting: Greeting,
    within: Duration,
    state: Arc<watch::Sender<State>>,
}

impl Live {
    /// An operation succeeded.
    pub(super) fn worked(&self) {
        if self.failures.load(Ordering::Relaxed) > 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }
}

impl Link {
    /// Starts to connect, and goes on until closed or dropped.
    pub(super) fn start(origin: Origin, greeting: Greeting, within: Duration) -> Self {
        let state = Arc::new(watch::Sender::new(State::Connecting));
        let keeper = Keeper {
            origin,
            greeting,
            within,
            state: Arc::clone(&state),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(keeper.run());
        Self {
            state,
            keeper: Mutex::new(tasks),
        }
    }

    /// The connection; `Ok(None)` once closed. Waits only while it is not known whether there is one.
    pub(super) async fn live(&self) -> Result<Option<Live>, Fault> {
        let known = |state: &State| match state {
            State::Closed => Some(Ok(None)),
            State::Connecting => None,
            State::Down(fault) => Some(Err(fault.clone())),
            State::Up(live) => Some(Ok(Some(live.clone()))),
        };
        let mut states = self.state.subscribe();
        loop {
            if let Some(known) = known(&states.borrow_and_update()) {
                return known;
            }
            // The sender is ours.
            let _still_there = states.changed().await;
        }
    }

    /// An operation over this connection failed by the connection's doing. If that is too often, the
    /// connection is given up.
    pub(super) fn failed(&self, live: &Live) {
        if live.failures.fetch_add(1, Ordering::Relaxed) + 1 < live.patience {
            return;
        }
        self.state.send_if_modified(|state| {
            let current = matches!(state, State::Up(up) if up.number == live.number);
            if current {
                *state = State::Connecting;
            }
            current
        });
    }

    /// Lets go of the connection and waits for the keeper to end.
    pub(super) async fn close(&self) {
        self.state.send_replace(State::Closed);
        let mut keeper = self.keeper.lock().await;
        while keeper.join_next().await.is_some() {}
    }
}

impl Keeper {
    async fn run(mut self) {
        let mut states = self.state.subscribe();
        let mut backoff = RETRY;
        let mut reached = true;
        for number in 0.. {
            let connected = tokio::select! {
                connected = self.connect() => connected,
                _closed = closed(&mut states) => return,
            };
            match connected {
                Ok(connection) => {
                    if !std::mem::replace(&mut reached, true) {
                        tracing::info!("the ledger's store is reached again");
                    }
                    backoff.reset();
                    self.settle(State::Up(Live {
                        connection,
                        number,
                        failures: Arc::default(),
                        patience: self.origin.patience(),
                    }));
                    let lost = states.wait_for(|state| !matches!(state, State::Up(_)));
                    // The sender is ours.
                    let _lost = lost.await;
                }
                Err(fault) => {
                    if std::mem::replace(&mut reached, false) {
                        tracing::warn!(error = %fault, "the ledger's store cannot be used; trying on");
                    }
                    self.settle(State::Down(fault));
                    let _closed_or_due = timeout(backoff.next(), closed(&mut states)).await;
                }
            }
            if matches!(*states.borrow(), State::Closed) {
                return;
            }
        }
    }

    fn settle(&self, settled: State) {
        self.state.send_if_modified(|state| {
            let open = !matches!(state, State::Closed);
            if open {
                *state = settled;
            }
            open
        });
    }

    async fn connect(&mut self) -> Result<Connection, Fault> {
        let within = self.within;
        let greeted = async {
            let connection = self.origin.connect(within).await?;
            self.greeting.over(connection).await
        };
        timeout(within, greeted)
            .await
            .unwrap_or(Err(Fault::Silence))
    }
}

async fn closed(states: &mut watch::Receiver<State>) {
    let closed = states.wait_for(|state| matches!(state, State::Closed));
    // The sender is the keeper's too.
    let _closed = closed.await.is_ok();
}

impl Greeting {
    pub(super) fn new(prefix: &str, seal: &Seal) -> Self {
        let fingerprint = match seal.fingerprint() {
            [] => UNENCRYPTED.to_owned(),
            fingerprint => fingerprint
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
        };
        Self {
            name: layout::encryption(prefix),
            fingerprint,
        }
    }

    /// Leaves our fingerprint where there is none, and compares it with the one that is there.
    async fn over(&self, mut connection: Connection) -> Result<Connection, Fault> {
        let mut leave = redis::cmd("SETNX");
        leave.arg(&self.name).arg(&self.fingerprint);
        let () = leave.query_async(&mut connection).await?;
        self.compare(connection).await
    }

    /// Compares our fingerprint with the one that is there, if there is one.
    pub(super) async fn compare(&self, mut connection: Connection) -> Result<Connection, Fault> {
        let mut compare = redis::cmd("GET");
        compare.arg(&self.name);
        let found: Option<String> = compare.query_async(&mut connection).await?;
        match found {
            Some(found) if found != self.fingerprint => Err(Fault::Encryption {
                expected: self.kind(&self.fingerprint),
                found: self.kind(&found),
            }),
            _ => Ok(connection),
        }
    }

    fn kind(&self, fingerprint: &str) -> KeyKind {
        match fingerprint {
            UNENCRYPTED => KeyKind::None,
            ours if ours == self.fingerprint => KeyKind::This,
            _ => KeyKind::Another,
        }
    }
}

/// In place of a fingerprint.
const UNENCRYPTED: &str = "none";
