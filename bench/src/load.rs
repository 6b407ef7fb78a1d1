//! The clients, in two loops.
//!
//! * **Closed**: a fixed number of connections, each asking again as soon as it has its answer. It measures what one more
//!   request costs, and how many there can be; it says nothing true about waiting, since a client that waits does not
//!   ask meanwhile.
//! * **Open**: requests are due at fixed times, whatever became of those before. A latency counts **from the time the
//!   request was due**, so that a stall is counted against every request it delayed (no coordinated omission).
//!   Connections are as many as [`OPEN_CONNECTIONS`]; a request for which none is free waits, and its wait is counted.
//!
//! Blocking threads on raw sockets, and not one of the crates for load tests, because the clients share a core with the
//! upstream: an exchange over loopback costs these 2 µs of CPU, and `reqwest`, the usual client under such crates, 9 µs. Besides
//! the client they would bring pacing, and those looked at do not count from the time a request was due: `rlt` 0.5 waits for a
//! token of a rate limiter and begins to count afterwards, `goose` 0.19 adds what it calculates to have been omitted.
//! Statistics are `hdrhistogram`'s, as in `rlt`.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use hdrhistogram::Histogram;
use rustix::thread::set_current_timer_slack;

use crate::clock::Clock;
use crate::exchange::{STAMP_DIGITS, STAMP_MARK};
use crate::http::{Connection, HttpError, ReplyHead};
use crate::wire::Way;

/// Open connections, and what is asked on each.
#[derive(Debug)]
pub(crate) struct Clients<'r> {
    way: Way,
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
    /// A request on a connection of its own, from connecting to its answer's last byte read.
    Connection,
    /// A request, from its first byte sent to its answer's last byte read.
    Request,
}

/// How many requests are asked.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Load {
    /// As many as so many connections can.
    Closed { connections: usize },
    /// So many in a second.
    Open { per_second: f64 },
}

/// What was seen while the clients asked.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) requests: usize,
    pub(crate) latencies: Vec<Duration>,
    /// How much later than they were due requests were sent; empty in a closed loop.
    pub(crate) late: Vec<Duration>,
}

/// How long things took: a histogram of nanoseconds to three digits.
#[derive(Debug)]
pub(crate) struct Latencies(Histogram<u64>);

/// Connections of an open loop: more than a target that keeps up ever has in use.
pub(crate) const OPEN_CONNECTIONS: usize = 64;
/// The least latency that is told from others, and the greatest: what is beyond counts as the greatest.
const LEAST_NANOS: u64 = 64;
const MOST_NANOS: u64 = 60_000_000_000;
const DIGITS: u8 = 3;

// === impl Load ===

impl Load {
    pub(crate) fn connections(self) -> usize {
        match self {
            Self::Closed { connections } => connections,
            Self::Open { .. } => OPEN_CONNECTIONS,
        }
    }
}

// === impl Timed ===

impl Timed {
    /// Connects anew where that is what is measured.
    fn prepare(self, connection: &mut Connection, way: &Way) -> Result<(), HttpError> {
        if self == Self::Connection {
            *connection = Connection::open(way)?;
        }
        Ok(())
    }
}

// === impl Clients ===

impl<'r> Clients<'r> {
    pub(crate) fn connect(
        way: &Way,
        count: usize,
        request: &'r [u8],
        timed: Timed,
        clock: Clock,
    ) -> Result<Self, HttpError> {
        let opened = (0..count).map(|_| Connection::open(way));
        let connections = opened.collect::<Result<_, _>>()?;
        Ok(Self {
            way: way.clone(),
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

    /// Asks once on each connection, all at the same time.
    pub(crate) fn ask_once(&mut self) -> Result<Seen, HttpError> {
        self.ask_closed(Duration::ZERO)
    }

    /// Asks for so long, and waits for the last answers.
    pub(crate) fn ask_for(&mut self, slice: Duration, load: Load) -> Result<Seen, HttpError> {
        match load {
            Load::Closed { .. } => self.ask_closed(slice),
            Load::Open { per_second } => self.ask_open(slice, per_second),
        }
    }

    /// Each connection asks at least once.
    fn ask_closed(&mut self, slice: Duration) -> Result<Seen, HttpError> {
        let (request, timed, clock) = (self.request, self.timed, self.clock);
        let way = self.way.clone();
        let until = clock.now() + slice;
        self.on_each(|connection| {
            let mut seen = Seen::default();
            loop {
                let since = clock.now();
                timed.prepare(connection, &way)?;
                seen.take(connection, request, timed, clock, since)?;
                if clock.now() >= until {
                    return Ok(seen);
                }
            }
        })
    }

    /// Whichever connection is free takes the next request, waits until it is due, and asks.
    fn ask_open(&mut self, slice: Duration, per_second: f64) -> Result<Seen, HttpError> {
        let (request, timed, clock) = (self.request, self.timed, self.clock);
        let way = self.way.clone();
        let apart = Duration::from_secs_f64(1.0 / per_second.max(1.0));
        let (start, next) = (clock.now() + apart, AtomicU32::new(0));
        self.on_each(|connection| {
            // The kernel may put a sleeper off by 50 us, to wake it together with others.
            set_current_timer_slack(NonZeroU64::new(1)).map_err(std::io::Error::from)?;
            let mut seen = Seen::default();
            loop {
                let due = apart * next.fetch_add(1, Ordering::Relaxed);
                if due >= slice {
                    return Ok(seen);
                }
                clock.wait_until(start + due);
                seen.late.push(clock.now().saturating_sub(start + due));
                timed.prepare(connection, &way)?;
                seen.take(connection, request, timed, clock, start + due)?;
            }
        })
    }

    /// Runs `ask` on every connection at once; all they saw.
    fn on_each(
        &mut self,
        ask: impl Fn(&mut Connection) -> Result<Seen, HttpError> + Sync,
    ) -> Result<Seen, HttpError> {
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
                all.late.extend(one.late);
            }
            Ok(all)
        })
    }
}

/// One exchange on a connection of its own: the head of the reply, and its body.
pub(crate) fn once(way: &Way, request: &[u8]) -> Result<(ReplyHead, Vec<u8>), HttpError> {
    let mut connection = Connection::open(way)?;
    let head = connection.ask(request)?;
    let mut body = Vec::new();
    connection.reply_body(head, &mut |piece| body.extend_from_slice(piece))?;
    Ok((head, body))
}

// === impl Seen ===

impl Seen {
    /// Asks once, for a request that counts from `since`.
    fn take(
        &mut self,
        connection: &mut Connection,
        request: &[u8],
        timed: Timed,
        clock: Clock,
        since: Duration,
    ) -> Result<(), HttpError> {
        let head = connection.ask(request)?;
        match timed {
            Timed::Request | Timed::Connection => {
                connection.reply_body(head, &mut |_| {})?;
                self.latencies.push(clock.now().saturating_sub(since));
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

// === impl Latencies ===

impl Latencies {
    pub(crate) fn of(latencies: &[Duration]) -> Self {
        let bounded = Histogram::new_with_bounds(LEAST_NANOS, MOST_NANOS, DIGITS);
        let mut all = bounded.expect("three digits between constant bounds are a histogram");
        for latency in latencies {
            all.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(MOST_NANOS));
        }
        Self(all)
    }

    /// In microseconds; zero of nothing.
    pub(crate) fn percentile_us(&self, percent: f64) -> f64 {
        if self.0.is_empty() {
            return 0.0;
        }
        let nanos = self.0.value_at_percentile(percent);
        Duration::from_nanos(nanos).as_secs_f64() * 1e6
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
    use std::net::TcpListener;

    use super::*;
    use crate::wire::Wire;

    const REPLY: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";
    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\ncontent-length: 0\r\n\r\n";

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

    #[test]
    fn percentiles_are_values_that_occur_to_three_digits() {
        let all: Vec<Duration> = (1..=200).map(Duration::from_micros).collect();
        for (percent, expected) in [(50.0, 100.0), (99.0, 198.0), (100.0, 200.0)] {
            let got = Latencies::of(&all).percentile_us(percent);
            assert!((got / expected - 1.0).abs() < 0.001, "p{percent}: {got}");
        }
        assert!(Latencies::of(&[]).percentile_us(99.0).abs() < f64::EPSILON);
        let ages = Latencies::of(&[Duration::from_secs(1_000)]);
        assert!(ages.percentile_us(99.0) >= 60e6);
    }

    #[test]
    fn an_open_loop_counts_a_stall_against_every_request_it_delays() {
        const STALL: Duration = Duration::from_millis(100);
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
        let address = listener.local_addr().expect("it is bound");
        let clock = Clock::start();
        let seen = thread::scope(|scope| {
            scope.spawn(|| {
                let (stream, _) = listener.accept().expect("somebody connects");
                let mut served = Connection::over(Wire::Clear(stream));
                // The first answer comes late, all others at once.
                let mut stall = STALL;
                while let Ok(Some(_)) = served.next_request() {
                    clock.wait_until(clock.now() + std::mem::take(&mut stall));
                    served.send(REPLY).expect("the client reads");
                }
            });
            let way = address.into();
            let mut clients =
                Clients::connect(&way, 1, REQUEST, Timed::Request, clock).expect("it listens");
            let load = Load::Open { per_second: 100.0 };
            clients.ask_for(2 * STALL, load).expect("answers")
        });
        assert_eq!(seen.requests, 20);
        // Ten were due during the stall: a closed loop would have sent one, and called the others quick.
        for counted in [&seen.latencies, &seen.late] {
            assert!(Latencies::of(counted).percentile_us(75.0) > 40_000.0);
        }
    }
}
