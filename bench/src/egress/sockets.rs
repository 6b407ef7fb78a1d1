//! Idle WebSockets through each proxy: what one weighs on which nobody says anything.
//!
//! Each proxy was just started. Afterwards all are closed from the upstream's side.

use std::fmt;

use serde::Serialize;

use super::REFERENCE;
use super::proxies::{FARRIER, Passage, Proxies};
use crate::exchange::talk;
use crate::ground::{Ground, RunError};
use crate::http::{Connection, HttpError, SWITCHED};
use crate::process::Memory;
use crate::report::{Table, count, megabytes, shown};
use crate::wire::Identity;

/// By proxy.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    sockets: usize,
    rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    /// After one exchange, and with all open.
    idle: Memory,
    open: Memory,
}

pub(super) fn run(
    ground: &Ground<'_>,
    identity: &Identity,
    sockets: usize,
    tell: &mut dyn FnMut(&str),
) -> Result<Report, RunError> {
    let mut rows = Vec::new();
    let farrier = FARRIER.map(|(name, place)| (name, Some(place)));
    for (name, place) in [(REFERENCE, None)].into_iter().chain(farrier) {
        let proxies = Proxies::start(ground, identity)?;
        let passage = match place {
            Some(place) => Some(proxies.farrier(place)),
            None => proxies.tinyproxy(),
        };
        if let Some(passage) = passage {
            tell(&format!("sockets: {sockets} open, {name}"));
            let held = hold(ground, &passage, sockets);
            let (idle, open) = held.map_err(RunError::exchange(name))?;
            rows.push(Row { name, idle, open });
        }
        proxies.stop()?;
    }
    Ok(Report { sockets, rows })
}

/// The proxy's memory before, and with so many open.
fn hold(
    ground: &Ground<'_>,
    passage: &Passage,
    sockets: usize,
) -> Result<(Memory, Memory), HttpError> {
    let way = passage.way(ground.upstream.address());
    let request = talk(&ground.upstream.address().to_string());
    let open = || -> Result<_, HttpError> {
        let mut client = Connection::open(&way)?;
        match client.ask(&request)?.status {
            SWITCHED => Ok(client.into_wire()),
            status => Err(HttpError::Status {
                status,
                body: "no WebSocket".to_owned(),
            }),
        }
    };
    // Whatever is made once is made by one.
    drop(open()?);
    ground.upstream.release()?;
    let idle = Memory::of(&passage.pids)?;
    let clients = (0..sockets)
        .map(|_| open())
        .collect::<Result<Vec<_>, _>>()?;
    if !ground.upstream.holds(sockets) {
        return Err(HttpError::Malformed("every WebSocket at the upstream"));
    }
    let open = Memory::of(&passage.pids)?;
    ground.upstream.release()?;
    drop(clients);
    Ok((idle, open))
}

impl Row {
    fn cells(&self, sockets: usize) -> Vec<String> {
        let grown = self
            .open
            .resident_bytes
            .saturating_sub(self.idle.resident_bytes);
        let kib = megabytes(grown) * 1e6 / 1024.0 / count(sockets);
        let megabytes = |memory: Memory| shown(Some(megabytes(memory.resident_bytes)), 1);
        vec![
            self.name.to_owned(),
            sockets.to_string(),
            megabytes(self.idle),
            megabytes(self.open),
            shown(Some(kib), 1),
        ]
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "sockets: resident memory with WebSockets open on which nobody says anything"
        )?;
        let rows = self.rows.iter().map(|row| row.cells(self.sockets));
        let head = ["MB", "sockets", "idle", "open", "KiB each"];
        write!(f, "{}", Table::new(&head, rows))
    }
}
