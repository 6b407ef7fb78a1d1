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
