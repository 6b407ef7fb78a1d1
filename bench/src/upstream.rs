//! The upstream: says what its requests ask it to say, at next to no cost.
//!
//! A thread for each connection, blocking, so that an answer is one read and one write. Answers are prepared
//! beforehand; a stream is one write for each event, as a model's server writes them.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::clock::Clock;
use crate::exchange::{self, Answers, PACE, RECEIVED_HEADER, STAMP_DIGITS, STAMP_MARK, Script};
use crate::http::{Asked, Connection, HttpError};

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
    hold: Mutex<Hold>,
    changed: Condvar,
    stopping: AtomicBool,
}

/// Requests that wait for their answer.
#[derive(Debug, Default)]
struct Hold {
    waiting: usize,
    /// How often the waiting ones were let go.
    releases: usize,
}

/// Longer than it takes any target to pass its requests on.
const HOLD_PATIENCE: Duration = Duration::from_secs(15);

// === impl Upstream ===

impl Upstream {
    pub(crate) fn start(clock: Clock) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            answers: Answers::new(),
            clock,
            hold: Mutex::default(),
            changed: Condvar::new(),
            stopping: AtomicBool::new(false),
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

    /// Waits until `count` requests wait for their answer; whether they came in time.
    pub(crate) fn holds(&self, count: usize) -> bool {
        let waits = |hold: &mut Hold| hold.waiting < count;
        let hold = self.shared.hold();
        let held = self
            .shared
            .changed
            .wait_timeout_while(hold, HOLD_PATIENCE, waits);
        let (_hold, timeout) = held.unwrap_or_else(PoisonError::into_inner);
        !timeout.timed_out()
    }

    /// Answers those that wait.
    pub(crate) fn release(&self) {
        let mut hold = self.shared.hold();
        hold.waiting = 0;
        hold.releases += 1;
        self.shared.changed.notify_all();
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

    fn serve(&self, stream: TcpStream) -> Result<(), HttpError> {
        let mut connection = Connection::over(stream)?;
        while let Some(asked) = connection.next_request()? {
            self.answer(asked, &mut connection)?;
        }
        Ok(())
    }

    fn answer(&self, asked: Asked, connection: &mut Connection) -> Result<(), HttpError> {
        let received = asked.body_bytes;
        match asked.script {
            Script::Held => {
                self.wait_for_release();
                connection.send(&whole(&self.answers.json, received))
            }
            Script::Json => connection.send(&whole(&self.answers.json, received)),
            Script::Turn(number) => connection.send(&whole(&exchange::turn(number), received)),
            Script::Stream => stream(connection, received, &self.answers.stream),
            Script::ToolStream => stream(connection, received, &self.answers.tool_stream),
            Script::Paced => self.paced(connection, received),
        }
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

    fn paced(&self, connection: &mut Connection, received: usize) -> Result<(), HttpError> {
        connection.send(&stream_head(received))?;
        let mut due = self.clock.now();
        for event in &self.answers.paced {
            self.clock.wait_until(due);
            due += PACE;
            connection.send(&chunk(&stamped(event, self.clock.now())))?;
        }
        connection.send(END)
    }
}

fn stream(
    connection: &mut Connection,
    received: usize,
    events: &[Vec<u8>],
) -> Result<(), HttpError> {
    connection.send(&stream_head(received))?;
    for event in events {
        connection.send(&chunk(event))?;
    }
    connection.send(END)
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

fn whole(json: &[u8], received: usize) -> Vec<u8> {
    let mut reply = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{RECEIVED_HEADER}: {received}\r\n\
         content-length: {}\r\n\r\n",
        json.len()
    )
    .into_bytes();
    reply.extend_from_slice(json);
    reply
}

fn stream_head(received: usize) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n{RECEIVED_HEADER}: {received}\r\n\
         transfer-encoding: chunked\r\n\r\n"
    )
    .into_bytes()
}

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
    use crate::exchange::{CHAT_BYTES, CHUNKS, PLAIN_MODEL, chat, request};
    use crate::load::{Clients, Timed, once};

    /// What `test` sees of an upstream that is stopped afterwards.
    fn with_upstream<T>(test: impl FnOnce(&Upstream, Clock) -> T) -> T {
        let clock = Clock::start();
        let upstream = Upstream::start(clock).expect("loopback can be bound");
        let seen = test(&upstream, clock);
        upstream.stop();
        seen
    }

    fn ask(script: Script) -> Vec<u8> {
        request(script, &chat(PLAIN_MODEL, script))
    }

    #[test]
    fn every_script_is_answered_with_what_it_names() {
        let answered = |script| {
            with_upstream(|upstream, _| once(upstream.address(), &ask(script)).expect("an answer"))
        };
        let (head, json) = answered(Script::Json);
        assert_eq!((head.status, head.received), (200, Some(CHAT_BYTES)));
        assert!(json.starts_with(b"{\"choices\""));
        for script in [Script::Stream, Script::ToolStream, Script::Paced] {
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
            let clients = Clients::connect(upstream.address(), 3, &request, Timed::Request, clock);
            let mut clients = clients.expect("it listens");
            thread::scope(|scope| {
                let asking = scope.spawn(|| clients.ask_for(Duration::ZERO));
                assert!(upstream.holds(3));
                upstream.release();
                asking.join().expect("no panic").expect("answers")
            })
        });
        assert_eq!(seen.requests, 3);
    }

    #[test]
    fn a_paced_stream_tells_how_long_each_chunk_took() {
        let request = ask(Script::Paced);
        let seen = with_upstream(|upstream, clock| {
            let clients = Clients::connect(upstream.address(), 2, &request, Timed::Chunk, clock);
            clients
                .expect("it listens")
                .ask_for(Duration::ZERO)
                .expect("answers")
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
