//! One to ten thousand open streams: what a stream weighs that waits for its model's next word.
//!
//! Clients ask one after the other and read what comes at first; then nobody says anything, and no thread of ours waits on
//! any of the connections. Afterwards the upstream ends all streams, and each client must get its end.

use std::fmt;
use std::io;
use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};
use serde::Serialize;

use super::{Ground, Log, RunError, Target};
use crate::exchange::{CHUNKS, KIMI_MODEL, PLAIN_MODEL, Script, chat, plain_request};
use crate::gateway::scenario::{KIMI, NGINX, PLAIN};
use crate::http::{Connection, HttpError, ReplyHead};
use crate::process::Memory;
use crate::report::{Table, count, megabytes, shown};

/// By contestant, each with its counts of streams in order.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Open files that a process may have here.
    files: usize,
    rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    streams: usize,
    /// Before the first, with all open, and after the last has ended.
    idle: Memory,
    open: Memory,
    ended: Memory,
}

const COUNTS: [usize; 5] = [1, 10, 100, 1_000, 10_000];
/// A stream is two open files, in the target and here: one towards the client, one towards the upstream.
const FILES_EACH: usize = 2;
/// Listeners, logs, ledgers, what a runtime needs.
const OTHER_FILES: usize = 200;

const MOST_LOOKS: usize = 30;
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);

/// As many open files as the system lets us have; how many those are.
pub(crate) fn raise_open_files() -> io::Result<usize> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)?;
    Ok(limit
        .maximum
        .and_then(|files| usize::try_from(files).ok())
        .unwrap_or(usize::MAX))
}

pub(super) fn run(
    ground: &Ground<'_>,
    most: usize,
    files: usize,
    tell: &mut dyn FnMut(&str),
) -> Result<Report, RunError> {
    let most = most.min(files.saturating_sub(OTHER_FILES) / FILES_EACH);
    let mut counts: Vec<usize> = COUNTS.iter().map(|&streams| streams.min(most)).collect();
    counts.dedup();
    let connections = FILES_EACH * most + OTHER_FILES;
    let kimi = plain_request(Script::Open, &chat(KIMI_MODEL, Script::Open));
    let plain = plain_request(Script::Open, &chat(PLAIN_MODEL, Script::Open));
    let mut rows = Vec::new();
    for (name, request) in [(NGINX, &plain), (PLAIN, &plain), (KIMI, &kimi)] {
        for &streams in &counts {
            tell(&format!("streams: {streams} open, {name}"));
            let target = match name {
                NGINX => ground.nginx_for("streams-nginx", connections)?,
                _ => Some(ground.farrier_for("streams", Log::Warnings, connections)?),
            };
            let Some(target) = target else { continue };
            let memory = hold(ground, &target, request, streams);
            let [idle, open, ended] = memory.map_err(RunError::exchange(name))?;
            rows.push(Row {
                name,
                streams,
                idle,
                open,
                ended,
            });
            target.stop()?;
        }
    }
    Ok(Report { files, rows })
}

/// The target's memory before, with so many streams open, and after.
fn hold(
    ground: &Ground<'_>,
    target: &Target,
    request: &[u8],
    streams: usize,
) -> Result<[Memory; 3], HttpError> {
    // Whatever is made once is made by one exchange.
    ended(vec![ground.open(target, request)?], ground)?;
    let idle = Memory::of(target.pids())?;
    let opened = (0..streams).map(|_| ground.open(target, request));
    let clients = opened.collect::<Result<Vec<_>, _>>()?;
    let open = Memory::of(target.pids())?;
    ended(clients, ground)?;
    Ok([idle, open, settled(ground, target)?])
}

/// Once it no longer falls: what is given back is given back after the last byte was read.
fn settled(ground: &Ground<'_>, target: &Target) -> io::Result<Memory> {
    let mut last = Memory::of(target.pids())?;
    for _ in 0..MOST_LOOKS {
        let clock = ground.clock;
        clock.wait_until(clock.now() + BETWEEN_LOOKS);
        let memory = Memory::of(target.pids())?;
        if memory.resident_bytes >= last.resident_bytes {
            return Ok(memory);
        }
        last = memory;
    }
    Ok(last)
}

/// Has the upstream end the streams, and reads each to its end.
fn ended(clients: Vec<(Connection, ReplyHead)>, ground: &Ground<'_>) -> Result<(), HttpError> {
    ground.upstream.release()?;
    for (mut client, head) in clients {
        let mut stream = Vec::new();
        client.reply_body(head, &mut |piece| stream.extend_from_slice(piece))?;
        let events = stream.windows(6).filter(|bytes| bytes == b"data: ").count();
        if events != CHUNKS + 1 {
            return Err(HttpError::Malformed("every event of the stream"));
        }
    }
    Ok(())
}

impl Ground<'_> {
    /// A stream that has begun, as client and upstream both know.
    fn open(&self, target: &Target, request: &[u8]) -> Result<(Connection, ReplyHead), HttpError> {
        let mut client = Connection::open(&target.way())?;
        let head = client.ask(request)?;
        Ok((client, head))
    }
}

impl Row {
    fn cells(&self) -> Vec<String> {
        let grown = self
            .open
            .resident_bytes
            .saturating_sub(self.idle.resident_bytes);
        let kib = megabytes(grown) * 1e6 / 1024.0 / count(self.streams);
        let megabytes = |memory: Memory| shown(Some(megabytes(memory.resident_bytes)), 1);
        vec![
            self.name.to_owned(),
            self.streams.to_string(),
            megabytes(self.idle),
            megabytes(self.open),
            shown(Some(kib), 1),
            megabytes(self.ended),
        ]
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files = self.files;
        writeln!(
            f,
            "streams: resident memory with streams open that say nothing ({files} open files to a process, {FILES_EACH} to a stream)"
        )?;
        let head = ["MB", "streams", "idle", "open", "KiB each", "ended"];
        write!(f, "{}", Table::new(&head, self.rows.iter().map(Row::cells)))
    }
}
