//! Just enough HTTP/1.1 to read what the other side wrote.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long any single step of a script may take.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A socket and what was read from it but not used yet.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// Header fields in order, names as sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, String)>);

/// A request as it came over the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawRequest {
    /// The request line.
    pub line: String,
    /// Header fields in order.
    pub headers: Headers,
    /// The body, without its transfer coding.
    pub body: Vec<u8>,
}

/// A response as it came over the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawResponse {
    /// The status code.
    pub status: u16,
    /// Header fields in order.
    pub headers: Headers,
    /// The body, without its transfer coding.
    pub body: Vec<u8>,
    /// Whether the body ended as its framing announced; false if the connection ended first.
    pub whole: bool,
}

/// Fails the test if `step` takes longer than [`PATIENCE`].
pub(crate) async fn patiently<T>(what: impl fmt::Display, step: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, step).await {
        Ok(done) => done,
        Err(_) => panic!("waited {PATIENCE:?} for {what}"),
    }
}

// === impl Wire ===

impl Wire {
    pub(crate) fn new(stream: TcpStream) -> Self {
        stream
            .set_nodelay(true)
            .expect("loopback takes TCP_NODELAY");
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        patiently("the peer to take bytes", self.stream.write_all(bytes))
            .await
            .expect("the peer takes bytes");
    }

    /// Sends what the peer will take; says whether it took everything.
    pub(crate) async fn try_send(&mut self, bytes: &[u8]) -> bool {
        patiently(
            "the peer to take or refuse bytes",
            self.stream.write_all(bytes),
        )
        .await
        .is_ok()
    }

    /// The lines of the next head, or `None` if the peer closed before one began.
    pub(crate) async fn head(&mut self) -> Option<(String, Headers)> {
        let end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at;
            }
            if !self.more().await {
                assert!(
                    self.buffer.is_empty(),
                    "peer closed inside a head: {}",
                    lossy(&self.buffer)
                );
                return None;
            }
        };
        let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
        let head = String::from_utf8(head).expect("heads are text");
        let mut lines = head.trim_end().split("\r\n");
        let first = lines.next().unwrap_or_default().to_owned();
        let fields = lines.map(|line| {
            let (name, value) = line
                .split_once(':')
                .unwrap_or_else(|| panic!("not a header field: {line}"));
            (name.to_owned(), value.trim().to_owned())
        });
        Some((first, Headers(fields.collect())))
    }

    /// The body that `headers` announce, and whether it came whole.
    pub(crate) async fn body(
        &mut self,
        headers: &Headers,
        else_until_close: bool,
    ) -> (Vec<u8>, bool) {
        if headers
            .first("transfer-encoding")
            .is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"))
        {
            let mut body = Vec::new();
            loop {
                match self.chunk().await {
                    Some(chunk) if chunk.is_empty() => return (body, true),
                    Some(chunk) => body.extend_from_slice(&chunk),
                    None => return (body, false),
                }
            }
        }
        let announced = headers
            .first("content-length")
            .map(|n| n.parse::<usize>().expect("content-length is a number"));
        let wanted = match announced {
            Some(length) => length,
            None if else_until_close => usize::MAX,
            None => 0,
        };
        while self.buffer.len() < wanted {
            if !self.more().await {
                return (std::mem::take(&mut self.buffer), announced.is_none());
            }
        }
        (self.buffer.drain(..wanted).collect(), true)
    }

    /// One chunk of a chunked body; the last one is empty. `None` if the peer closed first.
    pub(crate) async fn chunk(&mut self) -> Option<Vec<u8>> {
        let line_end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n") {
                break at;
            }
            if !self.more().await {
                return None;
            }
        };
        let size = lossy(&self.buffer[..line_end]);
        let size =
            usize::from_str_radix(&size, 16).unwrap_or_else(|_| panic!("not a chunk size: {size}"));
        let end = line_end + 2 + size + 2;
        while self.buffer.len() < end {
            if !self.more().await {
                return None;
            }
        }
        let chunk = self.buffer[line_end + 2..end - 2].to_vec();
        self.buffer.drain(..end);
        Some(chunk)
    }

    /// Waits until the peer closed or reset; returns what it sent before that.
    pub(crate) async fn closed(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.buffer)
    }

    /// Ends our direction, as a client that half-closes does.
    pub(crate) async fn finish(&mut self) {
        patiently("the socket to shut down", self.stream.shutdown())
            .await
            .expect("the socket shuts down");
    }

    /// Reads once; false at the end of the stream, however it ended.
    async fn more(&mut self) -> bool {
        let read = patiently(
            "bytes or the end of the stream",
            self.stream.read_buf(&mut self.buffer),
        )
        .await;
        read.is_ok_and(|n| n > 0)
    }
}

// === impl Headers ===

impl Headers {
    /// The first value of `name`, whatever its case.
    #[must_use]
    pub fn first(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

// === impl RawRequest ===

impl RawRequest {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        lossy(&self.body)
    }
}

// === impl RawResponse ===

impl RawResponse {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        lossy(&self.body)
    }

    pub(crate) fn status_of(line: &str) -> u16 {
        let code = line.split(' ').nth(1).and_then(|code| code.parse().ok());
        code.unwrap_or_else(|| panic!("not a status line: {line}"))
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
