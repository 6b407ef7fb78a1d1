//! The clients: a fixed number of connections, each asking again as soon as it has its answer.
//!
//! A closed loop: what is measured is what one more request costs, not how a queue grows.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use crate::clock::Clock;
use crate::exchange::{STAMP_DIGITS, STAMP_MARK};
use crate::http::{Connection, HttpError, ReplyHead};

/// Open connections, and what is asked on each.
#[derive(Debug)]
pub(crate) struct Clients<'r> {
    connections: Vec<Connection>,
    request: &'r [u8],
    timed: Timed,
    clock: Clock,
}

/// What a latency is the latency of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timed {
    /// A chunk, from being written by the upstream to being read by the client.
    Chunk,
    /// A request, from its first byte sent to its answer's last byte read.
    Request,
}

/// What was seen while the clients asked.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) requests: usize,
    pub(crate) latencies: Vec<Duration>,
}

impl<'r> Clients<'r> {
    pub(crate) fn connect(
        address: SocketAddr,
        count: usize,
        request: &'r [u8],
        timed: Timed,
        clock: Clock,
    ) -> Result<Self, HttpError> {
        let opened = (0..count).map(|_| Connection::open(address));
        let connections = opened.collect::<Result<_, _>>()?;
        Ok(Self {
            connections,
            request,
            timed,
            clock,
        })
    }

    /// The same connections, asking something else.
    pub(crate) fn asking(self, request: &'r [u8]) -> Self {
        Self { request, ..self }
    }

    /// Asks for so long, and waits for the last answers; each connection asks at least once.
    pub(crate) fn ask_for(&mut self, slice: Duration) -> Result<Seen, HttpError> {
        let (request, timed, clock) = (self.request, self.timed, self.clock);
        let until = clock.now() + slice;
        let ask = |connection: &mut Connection| {
            let mut seen = Seen::default();
            loop {
                seen.take(connection, request, timed, clock)?;
                if clock.now() >= until {
                    return Ok(seen);
                }
            }
        };
        if let [only] = self.connections.as_mut_slice() {
            return ask(only);
        }
        let ask = &ask;
        thread::scope(|scope| {
            let asking: Vec<_> = self
                .connections
                .iter_mut()
                .map(|connection| scope.spawn(move || ask(connection)))
                .collect();
            let mut all = Seen::default();
            for one in asking {
                let one = one.join().map_err(|_| HttpError::Closed)??;
                all.requests += one.requests;
                all.latencies.extend(one.latencies);
            }
            Ok(all)
        })
    }
}

/// One exchange on a connection of its own: the head of the reply, and its body.
pub(crate) fn once(address: SocketAddr, request: &[u8]) -> Result<(ReplyHead, Vec<u8>), HttpError> {
    let mut connection = Connection::open(address)?;
    let head = connection.ask(request)?;
    let mut body = Vec::new();
    connection.reply_body(head, &mut |piece| body.extend_from_slice(piece))?;
    Ok((head, body))
}

// === impl Seen ===

impl Seen {
    fn take(
        &mut self,
        connection: &mut Connection,
        request: &[u8],
        timed: Timed,
        clock: Clock,
    ) -> Result<(), HttpError> {
        let sent = clock.now();
        let head = connection.ask(request)?;
        match timed {
            Timed::Request => {
                connection.reply_body(head, &mut |_| {})?;
                self.latencies.push(clock.now().saturating_sub(sent));
            }
            Timed::Chunk => {
                let mut stamps = Stamps::default();
                connection.reply_body(head, &mut |piece| {
                    stamps.read(piece, clock.now(), &mut self.latencies);
                })?;
            }
        }
        self.requests += 1;
        Ok(())
    }
}

/// Finds the times in a stream, however it is cut.
#[derive(Debug, Default)]
struct Stamps {
    /// What may be the beginning of one.
    rest: Vec<u8>,
}

impl Stamps {
    fn read(&mut self, piece: &[u8], now: Duration, delays: &mut Vec<Duration>) {
        const WHOLE: usize = STAMP_MARK.len() + STAMP_DIGITS;
        self.rest.extend_from_slice(piece);
        let mut after = 0;
        for (at, bytes) in self.rest.windows(WHOLE).enumerate() {
            if let Some(digits) = bytes.strip_prefix(STAMP_MARK) {
                let nanos = std::str::from_utf8(digits)
                    .ok()
                    .and_then(|text| text.parse().ok());
                delays.extend(nanos.map(|nanos| now.saturating_sub(Duration::from_nanos(nanos))));
                after = at + WHOLE;
            }
        }
        let kept = self.rest.len().saturating_sub(WHOLE - 1).max(after);
        self.rest.drain(..kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_found_however_the_stream_is_cut() {
        let text = b"xx sent@000000000000000005 yy sent@000000000000000007zz";
        let now = Duration::from_nanos(10);
        for cut in 0..=text.len() {
            let (left, right) = text.split_at(cut);
            let (mut stamps, mut delays) = (Stamps::default(), Vec::new());
            stamps.read(left, now, &mut delays);
            stamps.read(right, now, &mut delays);
            assert_eq!(
                delays,
                [Duration::from_nanos(5), Duration::from_nanos(3)],
                "cut at {cut}"
            );
        }
    }
}
