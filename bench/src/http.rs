//! As much of HTTP/1.1 as both ends of the measurement need, on blocking sockets: a head, then a body of known length or
//! in chunks.
//!
//! Written for cheapness, since whatever this costs is noise in the figures: one buffer for each connection, nothing
//! copied, no header kept but the few that are asked for. Bodies that end with the connection, trailers and `100
//! Continue` are refused, because no party to the measurement sends them.

use std::io::{self, Read, Write};

use httparse::{Header, Request, Response, Status};

use crate::exchange::{SCRIPT_HEADER, Script};
use crate::wire::{Way, Wire};

/// One connection, either end.
#[derive(Debug)]
pub(crate) struct Connection {
    wire: Wire,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

/// What was asked, its body already thrown away.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    /// `None` if it does not say which answer it wants.
    pub(crate) script: Option<Script>,
    pub(crate) body_bytes: usize,
}

/// How a reply began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReplyHead {
    pub(crate) status: u16,
    framing: Framing,
}

#[derive(Clone, Copy, Debug)]
enum Framing {
    Chunked,
    Length(usize),
}

/// Why an exchange did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    #[error("expected the rest of a message, got a closed connection")]
    Closed,
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    #[error("expected {0}, got something else")]
    Malformed(&'static str),
    #[error("expected status 200, got {status}: {body}")]
    Status { status: u16, body: String },
    #[error("expected a tunnel, got: {0}")]
    Tunnel(String),
}

/// What was asked for is another protocol, which begins here.
pub(crate) const SWITCHED: u16 = 101;
const BUFFER_BYTES: usize = 256 * 1024;
const MAX_HEADERS: usize = 64;
const UNFRAMED: HttpError = HttpError::Malformed("a body of known length or in chunks");
/// The longest line that tells the size of a chunk, extensions aside.
const CHUNK_HEAD_BYTES: usize = 64;

// === impl Connection ===

impl Connection {
    /// To a server, which has to answer in time.
    pub(crate) fn open(way: &Way) -> Result<Self, HttpError> {
        Ok(Self::over(way.connect()?))
    }

    /// To a client.
    pub(crate) fn over(wire: Wire) -> Self {
        Self {
            wire,
            buffer: vec![0; BUFFER_BYTES],
            start: 0,
            end: 0,
        }
    }

    /// The wire alone, once nothing more is expected from the peer.
    pub(crate) fn into_wire(self) -> Wire {
        self.wire
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<(), HttpError> {
        Ok(self.wire.write_all(bytes)?)
    }

    /// The next request; `None` when the peer has no more.
    pub(crate) fn next_request(&mut self) -> Result<Option<Asked>, HttpError> {
        if self.start == self.end && !self.fill()? {
            return Ok(None);
        }
        let (script, framing) = self.head(|bytes| {
            let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
            let mut request = Request::new(&mut headers);
            let parsed = request
                .parse(bytes)
                .map_err(|_| HttpError::Malformed("a request"))?;
            let Status::Complete(length) = parsed else {
                return Ok(None);
            };
            let script = text(request.headers, SCRIPT_HEADER).and_then(Script::of_header);
            let framing = framing(request.headers)?.unwrap_or(Framing::Length(0));
            Ok(Some((length, (script, framing))))
        })?;
        let body_bytes = self.body(framing, &mut |_| {})?;
        Ok(Some(Asked { script, body_bytes }))
    }

    /// Sends a request and waits for the head of its reply.
    pub(crate) fn ask(&mut self, request: &[u8]) -> Result<ReplyHead, HttpError> {
        self.send(request)?;
        self.head(|bytes| {
            let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
            let mut response = Response::new(&mut headers);
            let parsed = response
                .parse(bytes)
                .map_err(|_| HttpError::Malformed("a reply"))?;
            let Status::Complete(length) = parsed else {
                return Ok(None);
            };
            let status = response.code.ok_or(HttpError::Malformed("a status"))?;
            let framing = match framing(response.headers)? {
                Some(framing) => framing,
                None if status == SWITCHED => Framing::Length(0),
                None => return Err(UNFRAMED),
            };
            let head = ReplyHead { status, framing };
            Ok(Some((length, head)))
        })
    }

    /// Reads a reply's body to its end, handing over each piece as it arrives.
    pub(crate) fn reply_body(
        &mut self,
        head: ReplyHead,
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<(), HttpError> {
        if head.status == 200 {
            return self.body(head.framing, take).map(drop);
        }
        let mut body = Vec::new();
        self.body(head.framing, &mut |piece| body.extend_from_slice(piece))?;
        let body = String::from_utf8_lossy(&body).into_owned();
        Err(HttpError::Status {
            status: head.status,
            body,
        })
    }

    /// What `parse` makes of a head, once that is there whole.
    fn head<T>(
        &mut self,
        parse: impl Fn(&[u8]) -> Result<Option<(usize, T)>, HttpError>,
    ) -> Result<T, HttpError> {
        loop {
            if let Some((length, head)) = parse(self.buffered())? {
                self.start += length;
                return Ok(head);
            }
            self.fill_or_fail()?;
        }
    }

    /// Reads a body to its end; its length.
    fn body(&mut self, framing: Framing, take: &mut dyn FnMut(&[u8])) -> Result<usize, HttpError> {
        if let Framing::Length(bytes) = framing {
            self.exactly(bytes, take)?;
            return Ok(bytes);
        }
        let mut total = 0;
        loop {
            let bytes = self.chunk_head()?;
            self.exactly(bytes, take)?;
            self.line_end()?;
            total += bytes;
            if bytes == 0 {
                return Ok(total);
            }
        }
    }

    fn exactly(&mut self, bytes: usize, take: &mut dyn FnMut(&[u8])) -> Result<(), HttpError> {
        let mut left = bytes;
        while left > 0 {
            if self.start == self.end {
                self.fill_or_fail()?;
            }
            let piece = left.min(self.end - self.start);
            take(self.buffered().get(..piece).unwrap_or_default());
            self.start += piece;
            left -= piece;
        }
        Ok(())
    }

    fn chunk_head(&mut self) -> Result<usize, HttpError> {
        const WRONG: HttpError = HttpError::Malformed("the size of a chunk");
        loop {
            match httparse::parse_chunk_size(self.buffered()) {
                Ok(Status::Complete((length, size))) => {
                    self.start += length;
                    return usize::try_from(size).map_err(|_| WRONG);
                }
                Ok(Status::Partial) if self.buffered().len() < CHUNK_HEAD_BYTES => {
                    self.fill_or_fail()?;
                }
                Ok(Status::Partial) | Err(_) => return Err(WRONG),
            }
        }
    }

    fn line_end(&mut self) -> Result<(), HttpError> {
        while self.end - self.start < 2 {
            self.fill_or_fail()?;
        }
        if !self.buffered().starts_with(b"\r\n") {
            return Err(HttpError::Malformed("a line end after a chunk"));
        }
        self.start += 2;
        Ok(())
    }

    fn buffered(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    fn fill_or_fail(&mut self) -> Result<(), HttpError> {
        if self.fill()? {
            Ok(())
        } else {
            Err(HttpError::Closed)
        }
    }

    /// Reads what is there; whether anything was.
    fn fill(&mut self) -> Result<bool, HttpError> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let free = self.buffer.get_mut(self.end..).unwrap_or_default();
        if free.is_empty() {
            return Err(HttpError::Malformed("a head that fits the buffer"));
        }
        let read = self.wire.read(free)?;
        self.end += read;
        Ok(read > 0)
    }
}

/// `None` if the head says nothing of its body.
fn framing(headers: &[Header<'_>]) -> Result<Option<Framing>, HttpError> {
    if text(headers, "transfer-encoding").is_some_and(|coding| coding == "chunked") {
        return Ok(Some(Framing::Chunked));
    }
    text(headers, "content-length")
        .map(|length| length.parse().map(Framing::Length).map_err(|_| UNFRAMED))
        .transpose()
}

fn text<'h>(headers: &[Header<'h>], name: &str) -> Option<&'h str> {
    let header = headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case(name))?;
    std::str::from_utf8(header.value).ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// A connection to a peer that writes `pieces`, each by itself, and closes.
    fn peer(pieces: &'static [&'static [u8]]) -> Connection {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
        let address = listener.local_addr().expect("it is bound");
        let connection = Connection::open(&address.into()).expect("it listens");
        let (stream, _) = listener.accept().expect("it was connected to");
        let mut peer = Connection::over(Wire::Clear(stream));
        pieces
            .iter()
            .for_each(|piece| peer.send(piece).expect("the peer reads"));
        connection
    }

    fn reply(connection: &mut Connection) -> Result<Vec<u8>, HttpError> {
        let head = connection.ask(b"")?;
        let mut body = Vec::new();
        connection.reply_body(head, &mut |piece| body.extend_from_slice(piece))?;
        Ok(body)
    }

    #[test]
    fn replies_of_both_framings_are_read_one_after_the_other() {
        let mut connection = peer(&[
            b"HTTP/1.1 200 OK\r\ntransfer-enco",
            b"ding: chunked\r\n\r\n3\r\nab",
            b"c\r\n1",
            b"0\r\n0123456789abcdef\r\n0\r",
            b"\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi",
        ]);
        assert_eq!(
            reply(&mut connection).expect("whole"),
            b"abc0123456789abcdef"
        );
        assert_eq!(reply(&mut connection).expect("whole"), b"hi");
        assert!(matches!(reply(&mut connection), Err(HttpError::Closed)));
    }

    #[test]
    fn a_request_without_a_body_has_none_and_a_reply_must_say_how_long_it_is() {
        let mut asking = peer(&[b"GET /health HTTP/1.1\r\n\r\n"]);
        let asked = asking.next_request().expect("a request").expect("one");
        assert_eq!((asked.script, asked.body_bytes), (None, 0));
        let mut answering = peer(&[b"HTTP/1.1 200 OK\r\n\r\nuntil the end"]);
        let error = reply(&mut answering).expect_err("nobody knows where it ends");
        assert_eq!(
            error.to_string(),
            "expected a body of known length or in chunks, got something else"
        );
    }

    #[test]
    fn a_status_other_than_200_is_an_error_that_shows_the_body() {
        let mut connection = peer(&[b"HTTP/1.1 502 Bad\r\ncontent-length: 4\r\n\r\nnope"]);
        let error = reply(&mut connection).expect_err("a refusal");
        assert_eq!(error.to_string(), "expected status 200, got 502: nope");
    }

    #[test]
    fn a_request_tells_its_script_and_length_and_then_the_peer_is_gone() {
        let mut connection =
            peer(&[b"POST / HTTP/1.1\r\nx-bench-reply: turn-7\r\ncontent-length: 5\r\n\r\nhello"]);
        let asked = connection.next_request().expect("a request").expect("one");
        assert_eq!((asked.script, asked.body_bytes), (Some(Script::Turn(7)), 5));
        assert!(connection.next_request().expect("the end").is_none());
    }
}
