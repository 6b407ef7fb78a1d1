//! The run that says what a sandbox's proxy costs: `farrier up`, beside a plain CONNECT proxy and TLS without any.
//!
//! ```text
//! client ──TLS──────────────────────────▶ upstream     direct
//!        ──CONNECT──▶ tinyproxy ──────TLS──▶           the client's TLS, passed on
//!        ──CONNECT──▶ farrier, tunnel ─TLS─▶           the same
//!        ──CONNECT, TLS──▶ farrier ────TLS─▶           ended and judged; with a placeholder, and its key put in
//! ```
//!
//! Farrier's three proxies are in one process, and take turns like everybody. All of it goes over TLS 1.3 with full
//! handshakes; connections towards the upstream, where TLS is ended, are the proxy's own and are kept.

mod proxies;
mod report;
mod sockets;

use std::net::SocketAddr;
use std::sync::Arc;

use crate::contest::{Contestant, DIRECT, Scenario};
use crate::exchange::{CHAT_BYTES, NO_KEY, PLAIN_MODEL, Script, To, chat, request};
use crate::ground::{Ground, RunError, Settings};
use crate::growth::streams::raise_open_files;
use crate::load::{Load, Timed};
use crate::report::ScenarioReport;
use crate::wire::{Identity, Secured, Way};

use proxies::{FARRIER, PLACEHOLDER, Passage, Proxies};
pub(crate) use report::Report;

/// One kind of load.
#[derive(Clone, Copy, Debug)]
struct Row {
    id: &'static str,
    what: &'static str,
    connections: usize,
    timed: Timed,
    /// Open loop, at half of what these connections come to.
    at_half: bool,
}

const REQUEST: &str = "1 KB asked, 1.2 KB answered, on connections that stay";
const CONNECT: &str = "the same, each on a connection of its own, handshakes included";
/// Idle WebSockets, and what each weighs.
const SOCKETS: &str = "sockets";

const ROWS: [Row; 5] = [
    row("request-1", REQUEST, 1, Timed::Request),
    row("request-16", REQUEST, 16, Timed::Request),
    row("connect-1", CONNECT, 1, Timed::Connection),
    row("connect-16", CONNECT, 16, Timed::Connection),
    Row {
        at_half: true,
        ..row("request-half", REQUEST, 16, Timed::Request)
    },
];

/// What can be asked for by name.
pub(crate) fn ids() -> Vec<&'static str> {
    ROWS.iter().map(|row| row.id).chain([SOCKETS]).collect()
}

/// With whose CPU time Farrier's is compared.
const REFERENCE: &str = "tinyproxy";

const fn row(id: &'static str, what: &'static str, connections: usize, timed: Timed) -> Row {
    Row {
        id,
        what,
        connections,
        timed,
        at_half: false,
    }
}

/// Measures everything; `tell` says what is being done. `sockets` are as many as are held open.
pub(crate) fn run(
    settings: &Settings,
    sockets: usize,
    tell: &mut dyn FnMut(&str),
) -> Result<Report, RunError> {
    // Before anything is started, so that targets may have as many.
    raise_open_files()?;
    let identity = Identity::make()?;
    let ground = Ground::behind(settings, Some(&identity))?;
    let mut report = Report::new(ground.conditions);
    if ROWS.iter().any(|row| settings.wants(row.id)) {
        let proxies = Proxies::start(&ground, &identity)?;
        for row in ROWS.iter().filter(|row| settings.wants(row.id)) {
            tell(&format!("{}: {}", row.id, row.what));
            measure(&ground, &proxies, *row, &mut report)?;
        }
        proxies.stop()?;
    }
    if settings.wants(SOCKETS) {
        report.sockets = Some(sockets::run(&ground, &identity, sockets, tell)?);
    }
    ground.upstream.stop();
    report.conclude();
    Ok(report)
}

fn measure(
    ground: &Ground<'_>,
    proxies: &Proxies,
    row: Row,
    report: &mut Report,
) -> Result<(), RunError> {
    let scenario = scenario(ground, proxies, row);
    if row.at_half {
        report.halves.push(ground.contest().measure_half(&scenario));
        return Ok(());
    }
    let measured = ground.contest().measure(&scenario);
    let dropped = failed(&measured);
    report.scenarios.push(measured);
    dropped
}

/// Everybody here was started here: one that fails is a mistake to be seen.
fn failed(measured: &ScenarioReport) -> Result<(), RunError> {
    let mut entrants = measured.entrants.iter();
    let dropped = entrants.find_map(|entrant| Some((&entrant.name, entrant.failed.as_ref()?)));
    dropped.map_or(Ok(()), |(name, why)| {
        Err(RunError::Dropped {
            id: measured.id.clone(),
            name: name.clone(),
            why: why.clone(),
        })
    })
}

fn scenario(ground: &Ground<'_>, proxies: &Proxies, row: Row) -> Scenario {
    let server = ground.upstream.address();
    let entrant = |name: &str, passage: &Passage, lines: &str| Contestant {
        name: name.to_owned(),
        way: passage.way(server),
        pids: passage.pids.clone(),
        request: asked(&server.to_string(), lines),
        upstream_bytes: Some(CHAT_BYTES..=CHAT_BYTES),
    };
    let mut contestants = vec![entrant(DIRECT, &proxies.none(), NO_KEY)];
    contestants.extend(
        proxies
            .tinyproxy()
            .map(|passage| entrant(REFERENCE, &passage, NO_KEY)),
    );
    for (name, place) in FARRIER {
        contestants.push(entrant(name, &proxies.farrier(place), NO_KEY));
    }
    let keyed = format!("authorization: Bearer {PLACEHOLDER}\r\n");
    let (name, place) = proxies::KEYED;
    contestants.push(entrant(name, &proxies.farrier(place), &keyed));
    Scenario {
        id: row.id.to_owned(),
        what: row.what.to_owned(),
        load: Load::Closed {
            connections: row.connections,
        },
        timed: row.timed,
        script: Script::Json,
        reference: proxies.tinyproxy().is_some().then(|| REFERENCE.to_owned()),
        contestants,
    }
}

fn asked(host: &str, lines: &str) -> Vec<u8> {
    let to = To {
        host,
        path: "/v1",
        lines,
    };
    request(&to, Script::Json, &chat(PLAIN_MODEL, Script::Json))
}

impl Passage {
    fn way(&self, server: SocketAddr) -> Way {
        Way::Tls(Secured {
            server,
            proxy: self.proxy,
            tls: Arc::clone(&self.tls),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_has_an_id_of_its_own() {
        let mut ids = ids();
        ids.sort_unstable();
        let count = ids.len();
        ids.dedup();
        assert_eq!(ids.len(), count);
    }
}
