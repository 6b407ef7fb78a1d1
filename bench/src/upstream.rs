//! The upstream: says what its requests ask it to say, at next to no cost.
//!
//! A thread for each connection, blocking, so that an answer is one read and one write. Answers are prepared
//! beforehand; a stream is one write for each event, as a model's server writes them.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustls::ServerConfig;

use crate::clock::Clock;
use crate::exchange::{self, Answers, PACE, STAMP_DIGITS, STAMP_MARK, Script};
use crate::http::{Asked, Connection, HttpError};
use crate::wire::{Way, Wire};

/// A listening upstream.
#[derive(Debug)]
pub(crate) struct Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    answers: Answers,
    clock: Clock,
    tally: Mutex<Tally>,
    hold: Mutex<Hold>,
    changed: Condvar,
    stopping: AtomicBool,
    /// For clients that come over TLS.
    tls: Option<Arc<ServerConfig>>,
}

/// What was received since [`Upstream::expect`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tally {
    pub(crate) requests: usize,
    /// Length of the shortest request body, and of the longest.
    least_bytes: usize,
    most_bytes: usize,
    /// What a request is answered with that does not say.
    unsaid: Script,
}

/// Requests that wait for their answer.
#[derive(Debug, Default)]
struct Hold {
    waiting: usize,
    /// How often the waiting ones were let go.
    releases: usize,
    /// Streams that have begun, and wait for nobody's thread.
    open: Vec<Wire>,
    /// WebSockets on which nobody says anything.
    talks: Vec<Wire>,
}

/// Longer than it takes any target to pass its requests on.
const HOLD_PATIENCE: Duration = Duration::from_secs(15);

// === impl Upstream ===

impl Upstream {
    /// Listens on this address; port 0 is any.
    pub(crate) fn start(listen: SocketAddr, clock: Clock) -> io::Result<Self> {
        Self::start_with(listen, clock, None)
    }

    /// The same, behind TLS.
    pub(crate) fn start_with(
        listen: SocketAddr,
        clock: Clock,
        tls: Option<Arc<ServerConfig>>,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(listen)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            answers: Answers::new(),
            clock,
            tally: Mutex::new(Tally::of(Script::Json)),
            hold: Mutex::default(),
            changed: Condvar::new(),
            stopping: AtomicBool::new(false),
            tls,
        });
        let acceptor = thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.accept(&listener)
        });
        Ok(Self {
            address,
            shared,
            acceptor,
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// To it, without TLS.
    pub(crate) fn way(&self) -> Way {
        self.address.into()
    }

    /// Counts anew, and answers requests that do not say how with `script`.
    pub(crate) fn expect(&self, script: Script) {
        *self.shared.tally() = Tally::of(script);
    }

    pub(crate) fn tally(&self) -> Tally {
        *self.shared.tally()
    }

    /// Waits until `count` requests wait for their answer, or its rest; whether they came in time.
    pub(crate) fn holds(&self, count: usize) -> bool {
        let waits = |hold: &mut Hold| hold.waiting + hold.open.len() + hold.talks.len() < count;
        let hold = self.shared.hold();
        let held = self
            .shared
            .changed
            .wait_timeout_while(hold, HOLD_PATIENCE, waits);
        let (_hold, timeout) = held.unwrap_or_else(PoisonError::into_inner);
        !timeout.timed_out()
    }

    /// Answers those that wait, and ends the streams that are open.
    ///
    /// # Errors
    /// The first stream that could not be ended.
    pub(crate) fn release(&self) -> io::Result<()> {
        let mut hold = self.shared.hold();
        hold.waiting = 0;
        hold.releases += 1;
        let mut open = std::mem::take(&mut hold.open);
        let talks = std::mem::take(&mut hold.talks);
        drop(hold);
        talks.iter().for_each(Wire::close);
        self.shared.changed.notify_all();
        let mut rest: Vec<u8> = self
            .shared
            .answers
            .stream
            .iter()
            .skip(1)
            .flat_map(|event| chunk(event))
            .collect();
        rest.extend_from_slice(END);
        open.iter_mut().try_for_each(|wire| wire.write_all(&rest))
    }

    /// Stops; every peer must have closed its connections.
    pub(crate) fn stop(self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // The acceptor looks when somebody comes. If nobody can, it has ended already.
        drop(TcpStream::connect(self.address));
        drop(self.acceptor.join());
    }
}

// === impl Shared ===

impl Shared {
    fn hold(&self) -> MutexGuard<'_, Hold> {
        self.hold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(&self, listener: &TcpListener) {
        thread::scope(|scope| {
            for stream in listener.incoming() {
                if self.stopping.load(Ordering::SeqCst) {
                    break;
                }
                // A peer that left, or that the answer cannot reach, notices by itself and fails the run.
                scope.spawn(|| {
                    stream
                        .map_err(HttpError::from)
                        .and_then(|stream| self.serve(stream))
                });
            }
        });
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, stream: TcpStream) -> Result<(), HttpError> {
        let mut connection = Connection::over(Wire::accepted(stream, self.tls.as_ref())?);
        while let Some(asked) = connection.next_request()? {
            let script = self.tally().add(asked);
            match script {
                Script::Open => return self.leave_open(connection),
                Script::Talk => return self.leave_talking(connection),
                _ => {}
            }
            self.answer(script, &mut connection)?;
        }
        Ok(())
    }

    fn answer(&self, script: Script, connection: &mut Connection) -> Result<(), HttpError> {
        match script {
            Script::Held => {
                self.wait_for_release();
                connection.send(&whole(&self.answers.json))
            }
            Script::Json => connection.send(&whole(&self.answers.json)),
            Script::Turn(number) => connection.send(&whole(&exchange::turn(number))),
            Script::Stream | Script::Open | Script::Talk => {
                stream(connection, &self.answers.stream)
            }
            Script::StreamAtOnce => connection.send(&at_once(&self.answers.stream)),
            Script::ToolStream => stream(connection, &self.answers.tool_stream),
            Script::ToolStreamAtOnce => connection.send(&at_once(&self.answers.tool_stream)),
            Script::Paced => self.paced(connection),
        }
    }

    /// Begins a stream, whose rest [`Upstream::release`] writes: no thread waits meanwhile.
    fn leave_open(&self, mut connection: Connection) -> Result<(), HttpError> {
        connection.send(STREAM_HEAD)?;
        let first = self.answers.stream.first().map(|event| chunk(event));
        connection.send(&first.unwrap_or_default())?;
        self.hold().open.push(connection.into_wire());
        self.changed.notify_all();
        Ok(())
    }

    /// Agrees to a WebSocket, and keeps it: no thread waits meanwhile.
    fn leave_talking(&self, mut connection: Connection) -> Result<(), HttpError> {
        connection.send(exchange::TALK_HEAD)?;
        self.hold().talks.push(connection.into_wire());
        self.changed.notify_all();
        Ok(())
    }

    fn wait_for_release(&self) {
        let mut hold = self.hold();
        let before = hold.releases;
        hold.waiting += 1;
        self.changed.notify_all();
        let waits = |hold: &mut Hold| hold.releases == before;
        // The request ends either way; a run that lets go too late has failed already.
        drop(self.changed.wait_timeout_while(hold, HOLD_PATIENCE, waits));
    }

    fn paced(&self, connection: &mut Connection) -> Result<(), HttpError> {
        connection.send(STREAM_HEAD)?;
        let mut due = self.clock.now();
        for event in &self.answers.paced {
            self.clock.wait_until(due);
            due += PACE;
            connection.send(&chunk(&stamped(event, self.clock.now())))?;
        }
        connection.send(END)
    }
}

// === impl Tally ===

impl Tally {
    const fn of(unsaid: Script) -> Self {
        Self {
            requests: 0,
            least_bytes: usize::MAX,
            most_bytes: 0,
            unsaid,
        }
    }

    /// What the request is answered with.
    fn add(&mut self, asked: Asked) -> Script {
        self.requests += 1;
        self.least_bytes = self.least_bytes.min(asked.body_bytes);
        self.most_bytes = self.most_bytes.max(asked.body_bytes);
        asked.script.unwrap_or(self.unsaid)
    }

    /// How long the bodies were; an empty range if there was none.
    pub(crate) const fn bytes(&self) -> RangeInclusive<usize> {
        self.least_bytes..=self.most_bytes
    }
}

fn stream(connection: &mut Connection, events: &[Vec<u8>]) -> Result<(), HttpError> {
    connection.send(STREAM_HEAD)?;
    for event in events {
        connection.send(&chunk(event))?;
    }
    connection.send(END)
}

/// A whole stream, to be one write.
fn at_once(events: &[Vec<u8>]) -> Vec<u8> {
    let chunks = events.iter().flat_map(|event| chunk(event));
    STREAM_HEAD
        .iter()
        .copied()
        .chain(chunks)
        .chain(END.iter().copied())
        .collect()
}

/// `event` with the time in place of its zeros, if it has any.
fn stamped(event: &[u8], now: Duration) -> Vec<u8> {
    let mut event = event.to_vec();
    if let Some(at) = event
        .windows(STAMP_MARK.len())
        .position(|bytes| bytes == STAMP_MARK)
    {
        let digits = format!("{:0STAMP_DIGITS$}", now.as_nanos());
        let start = at + STAMP_MARK.len();
        event.splice(start..start + STAMP_DIGITS, digits.into_bytes());
    }
    event
}

fn whole(json: &[u8]) -> Vec<u8> {
    let mut reply = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        json.len()
    )
    .into_bytes();
    reply.extend_from_slice(json);
    reply
}

const STREAM_HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

fn chunk(event: &[u8]) -> Vec<u8> {
    let mut chunk = format!("{:x}\r\n", event.len()).into_bytes();
    chunk.extend_from_slice(event);
    chunk.extend_from_slice(b"\r\n");
    chunk
}

const END: &[u8] = b"0\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::{CHAT_BYTES, CHUNKS, PLAIN_MODEL, chat, plain_request};
    use crate::load::{Clients, Timed, once};
    use crate::target::ANY_PORT;

    /// What `test` sees of an upstream that is stopped afterwards.
    fn with_upstream<T>(test: impl FnOnce(&Upstream, Clock) -> T) -> T {
        let clock = Clock::start();
        let upstream = Upstream::start(ANY_PORT, clock).expect("loopback can be bound");
        let seen = test(&upstream, clock);
        upstream.stop();
        seen
    }

    fn ask(script: Script) -> Vec<u8> {
        plain_request(script, &chat(PLAIN_MODEL, script))
    }

    #[test]
    fn every_script_is_answered_with_what_it_names() {
        let answered = |script| {
            with_upstream(|upstream, _| once(&upstream.way(), &ask(script)).expect("an answer"))
        };
        let (head, json) = answered(Script::Json);
        assert_eq!(head.status, 200);
        assert!(json.starts_with(b"{\"choices\""));
        use Script::{Paced, Stream, StreamAtOnce, ToolStream, ToolStreamAtOnce};
        for script in [Stream, StreamAtOnce, ToolStream, ToolStreamAtOnce, Paced] {
            let stream = String::from_utf8(answered(script).1).expect("it is text");
            assert_eq!(stream.matches("data: {").count(), CHUNKS, "{script:?}");
            assert!(stream.ends_with("data: [DONE]\n\n"), "{script:?}");
        }
        let turn = String::from_utf8(answered(Script::Turn(7)).1).expect("it is text");
        assert!(turn.contains("functions.read:7"));
    }

    #[test]
    fn held_requests_are_answered_once_they_are_released() {
        let request = ask(Script::Held);
        let seen = with_upstream(|upstream, clock| {
            let clients = Clients::connect(&upstream.way(), 3, &request, Timed::Request, clock);
            let mut clients = clients.expect("it listens");
            thread::scope(|scope| {
                let asking = scope.spawn(|| clients.ask_once());
                assert!(upstream.holds(3));
                upstream.release().expect("nobody left");
                asking.join().expect("no panic").expect("answers")
            })
        });
        assert_eq!(seen.requests, 3);
    }

    #[test]
    fn what_came_is_counted_and_a_request_that_does_not_say_is_answered_as_expected() {
        let bare = |body: &str| {
            format!(
                "POST / HTTP/1.1\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            )
        };
        with_upstream(|upstream, _| {
            upstream.expect(Script::Stream);
            let (_, answer) = once(&upstream.way(), bare("four").as_bytes()).expect("an answer");
            assert!(answer.ends_with(b"data: [DONE]\n\n"));
            once(&upstream.way(), &ask(Script::Json)).expect("an answer");
            let tally = upstream.tally();
            assert_eq!((tally.requests, tally.bytes()), (2, 4..=CHAT_BYTES));
            upstream.expect(Script::Json);
            assert_eq!(upstream.tally().requests, 0);
        });
    }

    #[test]
    fn an_open_stream_has_its_head_at_once_and_its_rest_when_it_is_released() {
        with_upstream(|upstream, _| {
            let mut client = Connection::open(&upstream.way()).expect("it listens");
            let head = client.ask(&ask(Script::Open)).expect("a head");
            assert!(upstream.holds(1));
            upstream.release().expect("nobody left");
            let mut stream = Vec::new();
            client
                .reply_body(head, &mut |piece| stream.extend_from_slice(piece))
                .expect("an end");
            let events = String::from_utf8_lossy(&stream).matches("data: ").count();
            assert_eq!(events, CHUNKS + 1);
        });
    }

    #[test]
    fn a_paced_stream_tells_how_long_each_chunk_took() {
        let request = ask(Script::Paced);
        let seen = with_upstream(|upstream, clock| {
            let clients = Clients::connect(&upstream.way(), 2, &request, Timed::Chunk, clock);
            clients.expect("it listens").ask_once().expect("answers")
        });
        // The first chunk tells the role and the last the reason: no time in either.
        assert_eq!(seen.latencies.len(), 2 * (CHUNKS - 2));
        assert!(
            seen.latencies
                .iter()
                .all(|latency| *latency < Duration::from_secs(10))
        );
    }
}
