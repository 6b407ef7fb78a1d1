//! A ledger of a million turns: how long it takes to fill, to open, and to ask; what it weighs on disk.
//!
//! The embedded store is driven in this process, by the interface the gateway uses. Opening is measured from outside as
//! well, as the time from starting `farrier up` until it says that it listens.

use std::fs;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::{fmt, io};

use bytes::Bytes;
use farrier_ledger::{
    Bounds, Embedded, EmbeddedConfig, Entry, Key, Ledger as _, LedgerError, OpenError, Scope,
};
use serde::Serialize;
use tokio::task::JoinSet;

use super::{Ground, Log, RunError};
use crate::clock::Clock;
use crate::load::Latencies;
use crate::report::{Table, micros, shown};

#[derive(Debug, Serialize)]
pub(super) struct Report {
    value_bytes: usize,
    sizes: Vec<Size>,
}

/// What was found of a ledger with so many turns.
#[derive(Debug, Serialize)]
struct Size {
    turns: u32,
    record_seconds: f64,
    file_bytes: u64,
    open_ms: f64,
    /// Until `farrier up` listens with this ledger.
    start_ms: f64,
    one: Recall,
    many: Recall,
}

/// Recalls of keys that are found, each with as many keys.
#[derive(Clone, Copy, Debug, Serialize)]
struct Recall {
    keys: usize,
    p50_us: f64,
    p99_us: f64,
}

/// Why the ledger could not be measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LedgerRunError {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("expected every turn that was recorded, got {got} of {asked}")]
    Missing { asked: usize, got: usize },
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("cannot run the ledger: {0}")]
    System(#[from] io::Error),
}

/// A turn as the gateway keeps it: its reasoning, a call, and their digests.
const VALUE_BYTES: usize = 700;
/// By the id the client was given, and by what was called.
const KEYS_OF_A_TURN: usize = 2;
/// Conversations take turns, as they do in a gateway.
const TURNS_OF_A_SCOPE: u32 = 200;
/// Turns that end at the same time, and share a commit.
const AT_ONCE: u32 = 256;
const RECALLS: u32 = 5_000;
/// A history of 200 messages asks for as many.
const MANY: usize = 99;

pub(super) fn run(
    ground: &Ground<'_>,
    turns: u32,
    tell: &mut dyn FnMut(&str),
) -> Result<Report, RunError> {
    let mut sizes = Vec::new();
    for turns in [turns / 100, turns] {
        tell(&format!("ledger: {turns} turns"));
        let name = format!("ledger-{turns}");
        // Started without turns first, to make the file's directory and to bring the program into memory.
        ground.farrier(&name, Log::Warnings)?.stop()?;
        let mut size = measure(&ground.ledger(&name), ground.clock, turns)?;
        let start = ground.clock.now();
        let farrier = ground.farrier(&name, Log::Warnings)?;
        size.start_ms = micros(ground.clock.now() - start) / 1e3;
        farrier.stop()?;
        sizes.push(size);
    }
    Ok(Report {
        value_bytes: VALUE_BYTES,
        sizes,
    })
}

fn measure(path: &Path, clock: Clock, turns: u32) -> Result<Size, LedgerRunError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    runtime.block_on(async {
        let start = clock.now();
        let ledger = Arc::new(open(path)?);
        for first in (0..turns).step_by(AT_ONCE as usize) {
            record(&ledger, first..turns.min(first + AT_ONCE)).await?;
        }
        ledger.close().await?;
        let recorded = clock.now() - start;

        let start = clock.now();
        let ledger = open(path)?;
        let opened = clock.now() - start;
        let one = recall(&ledger, clock, turns, 1).await?;
        let many = recall(&ledger, clock, turns, MANY).await?;
        ledger.close().await?;
        Ok(Size {
            turns,
            record_seconds: recorded.as_secs_f64(),
            file_bytes: fs::metadata(path)?.len(),
            open_ms: micros(opened) / 1e3,
            start_ms: 0.0,
            one,
            many,
        })
    })
}

fn open(path: &Path) -> Result<Embedded, OpenError> {
    Embedded::open(EmbeddedConfig {
        bounds: Bounds {
            max_bytes: 16 << 30,
            ..Bounds::default()
        },
        ..EmbeddedConfig::new(path)
    })
}

/// All at once, so that they share commits as turns do that end together.
async fn record(ledger: &Arc<Embedded>, turns: std::ops::Range<u32>) -> Result<(), LedgerRunError> {
    let mut recording = JoinSet::new();
    for turn in turns {
        let ledger = Arc::clone(ledger);
        let entry = Entry {
            keys: (0..KEYS_OF_A_TURN).map(|nth| key(turn, nth)).collect(),
            value: value(turn),
        };
        recording.spawn(async move { ledger.record(&scope_of(turn), entry).await });
    }
    while let Some(recorded) = recording.join_next().await {
        recorded.map_err(io::Error::other)??;
    }
    Ok(())
}

/// Asks for turns all over the ledger, of one conversation at a time.
async fn recall(
    ledger: &Embedded,
    clock: Clock,
    turns: u32,
    keys: usize,
) -> Result<Recall, LedgerRunError> {
    let mut latencies = Vec::new();
    let mut place = Scatter(1);
    for _ in 0..RECALLS {
        let first = place.next(turns) / TURNS_OF_A_SCOPE * TURNS_OF_A_SCOPE;
        let wanted: Vec<Key> = (first..turns).take(keys).map(|turn| key(turn, 0)).collect();
        let start = clock.now();
        let found = ledger.recall(&scope_of(first), &wanted).await?;
        latencies.push(clock.now() - start);
        let found = found.values.iter();
        let got = found.filter(|values| values.len() == 1).count();
        if got != wanted.len() {
            let asked = wanted.len();
            return Err(LedgerRunError::Missing { asked, got });
        }
    }
    let latencies = Latencies::of(&latencies);
    Ok(Recall {
        keys,
        p50_us: latencies.percentile_us(50.0),
        p99_us: latencies.percentile_us(99.0),
    })
}

fn scope_of(turn: u32) -> Scope {
    Scope::new(format!("bench/{}", turn / TURNS_OF_A_SCOPE))
}

/// Spread evenly over all keys, as digests are.
fn key(turn: u32, nth: usize) -> Key {
    let mut seed = Scatter(u64::from(turn) * 2 + nth as u64 + 1);
    let halves = u128::from(seed.step()) << 64 | u128::from(seed.step());
    Key(halves.to_le_bytes())
}

fn value(turn: u32) -> Bytes {
    let mut text = format!("turn {turn} ").repeat(VALUE_BYTES / 8);
    text.truncate(VALUE_BYTES);
    text.into()
}

/// Numbers without order, the same in every run (splitmix64).
struct Scatter(u64);

impl Scatter {
    fn step(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn next(&mut self, below: u32) -> u32 {
        let below = NonZeroU32::new(below).map_or(1, |below| u64::from(below.get()));
        u32::try_from(self.step() % below).unwrap_or_default()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value_bytes = self.value_bytes;
        writeln!(
            f,
            "ledger: embedded, turns of {value_bytes} bytes, {KEYS_OF_A_TURN} keys and a conversation each {TURNS_OF_A_SCOPE}; \
             recalls all over it, of 1 turn and of {MANY}"
        )?;
        let head = [
            "turns",
            "record us",
            "file MB",
            "bytes each",
            "open ms",
            "start ms",
            "p50 us",
            "p99 us",
            "p50 of 99",
            "p99 of 99",
        ];
        write!(
            f,
            "{}",
            Table::new(&head, self.sizes.iter().map(Size::cells))
        )
    }
}

impl Size {
    fn cells(&self) -> Vec<String> {
        let turns = f64::from(self.turns);
        let bytes = crate::report::megabytes(self.file_bytes) * 1e6;
        vec![
            self.turns.to_string(),
            shown(Some(self.record_seconds * 1e6 / turns), 1),
            shown(Some(bytes / 1e6), 1),
            shown(Some(bytes / turns), 0),
            shown(Some(self.open_ms), 1),
            shown(Some(self.start_ms), 1),
            shown(Some(self.one.p50_us), 0),
            shown(Some(self.one.p99_us), 0),
            shown(Some(self.many.p50_us), 0),
            shown(Some(self.many.p99_us), 0),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_ledger_is_filled_opened_and_asked() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("ledger.db");
        let size = measure(&path, Clock::start(), 1_000).expect("it is ours");
        assert!(size.file_bytes > 1_000 * VALUE_BYTES as u64);
        assert!(size.one.p50_us > 0.0 && size.one.p50_us <= size.one.p99_us);
        assert_eq!(size.many.keys, MANY);
    }
}
