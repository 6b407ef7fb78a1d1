//! Bytes of an HTTP/1.1 client, of which only what [`head::check`] allows goes on to the HTTP library.
//!
//! ```text
//! client ─▶ held ──judge──▶ passable ─▶ HTTP library
//!             └─ a head that is refused: an empty request of ours stands in its place, and the fault is kept for it
//! ```
//!
//! A head goes on whole or not at all, however it was cut into reads, and so does nothing that follows it before its
//! framing allows. What follows a `CONNECT` is no HTTP: it stays here until the stream is taken apart.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use memchr::memmem;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::head::{self, Fault, Framing, HeadLimits};

/// A stream whose requests are judged before anybody reads them.
#[derive(Debug)]
pub(crate) struct Screen<S> {
    stream: S,
    limits: HeadLimits,
    expects: Expects,
    held: BytesMut,
    /// Bytes at the front of `held` that were judged.
    passable: usize,
    faults: Faults,
    scratch: Box<[u8]>,
}

/// Why the request that stands for a refused one is refused. Shared by a screen and whoever answers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults(Arc<Mutex<Option<Fault>>>);

/// What the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expects {
    Head,
    Length(u64),
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    Trailers,
    /// Of no concern to HTTP.
    Tunnel,
    /// Nothing more is judged.
    Nothing,
}

/// The method of the request that stands for a refused one.
pub(crate) const REFUSED: &str = "FARRIER-REFUSED";
const STAND_IN: &[u8] = b"FARRIER-REFUSED / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";
const READ_BYTES: usize = 16 * 1024;
/// `ffffffffffffffff` and its line end; extensions are refused, they have been the way in of too many requests.
const MAX_CHUNK_LINE: usize = 18;
const MAX_TRAILER_BYTES: usize = 8 * 1024;

// === impl Screen ===

impl<S> Screen<S> {
    pub(crate) fn new(stream: S, limits: HeadLimits) -> Self {
        Self {
            stream,
            limits,
            expects: Expects::Head,
            held: BytesMut::new(),
            passable: 0,
            faults: Faults::default(),
            scratch: vec![0; READ_BYTES].into(),
        }
    }

    pub(crate) fn faults(&self) -> Faults {
        self.faults.clone()
    }

    /// The stream, and what was read of it and not passed on.
    pub(crate) fn into_parts(self) -> (S, Bytes) {
        (self.stream, self.held.freeze())
    }

    /// Judges as much of what is held as can be.
    fn judge(&mut self) -> io::Result<()> {
        while self.step()? {}
        Ok(())
    }

    /// One step of it; whether another may follow.
    fn step(&mut self) -> io::Result<bool> {
        let left = &self.held[self.passable..];
        match self.expects {
            Expects::Tunnel | Expects::Nothing => return Ok(false),
            Expects::Head => return Ok(self.step_head()),
            _ if left.is_empty() => return Ok(false),
            Expects::Length(length) => {
                let taken = self.take(length);
                self.expects = match length - taken {
                    0 => Expects::Head,
                    left => Expects::Length(left),
                };
            }
            Expects::ChunkSize => {
                let Some((line, size)) = chunk_size(left)? else {
                    return Ok(false);
                };
                self.passable += line;
                self.expects = if size == 0 {
                    Expects::Trailers
                } else {
                    Expects::ChunkData(size)
                };
            }
            Expects::ChunkData(size) => {
                let taken = self.take(size);
                self.expects = match size - taken {
                    0 => Expects::ChunkEnd,
                    left => Expects::ChunkData(left),
                };
            }
            Expects::ChunkEnd => match left {
                [b'\r', b'\n', ..] => {
                    self.passable += 2;
                    self.expects = Expects::ChunkSize;
                }
                [b'\r'] => return Ok(false),
                _ => return Err(malformed()),
            },
            Expects::Trailers => {
                let Some(length) = trailers(left)? else {
                    return Ok(false);
                };
                self.passable += length;
                self.expects = Expects::Head;
            }
        }
        Ok(true)
    }

    fn take(&mut self, at_most: u64) -> u64 {
        let there = self.held.len() - self.passable;
        let taken = usize::try_from(at_most).map_or(there, |most| most.min(there));
        self.passable += taken;
        taken as u64
    }

    fn step_head(&mut self) -> bool {
        let left = &self.held[self.passable..];
        match left.first() {
            None => return false,
            // Empty lines before a request are skipped by some parsers and not by others.
            Some(b'\r' | b'\n') => {
                self.refuse(Fault::BareLineEnd);
                return true;
            }
            Some(_) => {}
        }
        let Some(end) = memmem::find(left, b"\r\n\r\n") else {
            let bare = memchr::memchr_iter(b'\n', left).any(|at| at == 0 || left[at - 1] != b'\r');
            if bare {
                self.refuse(Fault::BareLineEnd);
            } else if left.len() > self.limits.max_bytes {
                self.refuse(Fault::TooLarge);
            } else {
                return false;
            }
            return true;
        };
        let length = end + 4;
        match head::check(&left[..length], self.limits) {
            Ok(head) => {
                self.passable += length;
                self.expects = match head.framing {
                    _ if head.connect => Expects::Tunnel,
                    Framing::Chunked => Expects::ChunkSize,
                    Framing::Length(0) => Expects::Head,
                    Framing::Length(length) => Expects::Length(length),
                };
            }
            Err(fault) => self.refuse(fault),
        }
        true
    }

    fn refuse(&mut self, fault: Fault) {
        self.faults.put(fault);
        self.held.truncate(self.passable);
        self.held.extend_from_slice(STAND_IN);
        self.passable = self.held.len();
        self.expects = Expects::Nothing;
    }
}

/// A chunk's size and the bytes of the line that says so; none if the line is not whole.
fn chunk_size(bytes: &[u8]) -> io::Result<Option<(usize, u64)>> {
    let Some(end) = memchr::memchr(b'\n', bytes) else {
        return if bytes.len() < MAX_CHUNK_LINE {
            Ok(None)
        } else {
            Err(malformed())
        };
    };
    let digits = bytes[..end].strip_suffix(b"\r").ok_or_else(malformed)?;
    if !(1..=MAX_CHUNK_LINE - 2).contains(&digits.len())
        || !digits.iter().all(u8::is_ascii_hexdigit)
    {
        return Err(malformed());
    }
    let digits = std::str::from_utf8(digits).map_err(|_invalid| malformed())?;
    let size = u64::from_str_radix(digits, 16).map_err(|_invalid| malformed())?;
    Ok(Some((end + 1, size)))
}

/// The bytes of what follows the last chunk, with the empty line; none if that is not there yet. A field that decides
/// where a message goes or ends has no place there.
fn trailers(bytes: &[u8]) -> io::Result<Option<usize>> {
    if bytes.starts_with(b"\r\n") {
        return Ok(Some(2));
    }
    let Some(end) = memmem::find(bytes, b"\r\n\r\n") else {
        return if bytes.len() < MAX_TRAILER_BYTES {
            Ok(None)
        } else {
            Err(malformed())
        };
    };
    let section = std::str::from_utf8(&bytes[..end]).map_err(|_invalid| malformed())?;
    for line in section.split("\r\n") {
        let (name, value) = line.split_once(':').ok_or_else(malformed)?;
        let token = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
        let decides = [
            "host",
            "content-length",
            "transfer-encoding",
            "authorization",
        ]
        .iter()
        .any(|never| never.eq_ignore_ascii_case(name));
        if !token || decides || value.contains(['\r', '\n', '\0']) {
            return Err(malformed());
        }
    }
    Ok(Some(end + 4))
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, Fault::Chunks)
}

impl<S: AsyncRead + Unpin> AsyncRead for Screen<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if this.passable > 0 {
                let length = this.passable.min(buf.remaining());
                buf.put_slice(&this.held[..length]);
                this.held.advance(length);
                this.passable -= length;
                return Poll::Ready(Ok(()));
            }
            match this.expects {
                // Whoever answers takes the stream apart, or ends it.
                Expects::Nothing | Expects::Tunnel => return Poll::Pending,
                _ => {}
            }
            let mut read = ReadBuf::new(&mut this.scratch);
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.held.extend_from_slice(read.filled());
            this.judge()?;
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Screen<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

// === impl Faults ===

impl Faults {
    fn put(&self, fault: Fault) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
    }

    /// The fault that the stand-in is for.
    pub(crate) fn take(&self) -> Option<Fault> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    const LIMITS: HeadLimits = HeadLimits {
        max_bytes: 256,
        max_fields: 8,
    };

    /// What the HTTP library gets of `bytes` cut into reads of `step`, and the fault if there is one.
    async fn passed(bytes: &[u8], step: usize) -> (io::Result<Vec<u8>>, Option<Fault>) {
        let mut stream = screen(bytes, step);
        let faults = stream.faults();
        let mut out = Vec::new();
        let mut read = [0; 64];
        while let Some(polled) = at_once(stream.read(&mut read)).await {
            match polled {
                Ok(0) => break,
                Ok(length) => out.extend_from_slice(&read[..length]),
                Err(error) => return (Err(error), faults.take()),
            }
        }
        (Ok(out), faults.take())
    }

    fn screen(bytes: &[u8], step: usize) -> Screen<Stepped<'_>> {
        Screen::new(Stepped { bytes, step }, LIMITS)
    }

    struct Stepped<'b> {
        bytes: &'b [u8],
        step: usize,
    }

    impl AsyncRead for Stepped<'_> {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let length = self.step.min(self.bytes.len()).min(buf.remaining());
            let (now, later) = self.bytes.split_at(length);
            buf.put_slice(now);
            self.bytes = later;
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn requests_of_one_meaning_pass_byte_for_byte_however_they_are_cut() {
        let bytes = b"GET / HTTP/1.1\r\nhost: a\r\n\r\nPOST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nGET /\
            POST /y HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0a\r\n0123456789\r\n0\r\nX: y\r\n\r\n\
            GET /z HTTP/1.1\r\nhost: a\r\n\r\n";
        for step in 1..bytes.len() {
            let (read, fault) = passed(bytes, step).await;
            assert_eq!(read.unwrap(), bytes, "{step}");
            assert_eq!(fault, None);
        }
    }

    #[tokio::test]
    async fn a_head_that_is_refused_is_replaced_and_nothing_after_it_is_read() {
        let first = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        for (second, expected) in [
            (&b"GET / HTTP/1.1\nhost: a\n\n"[..], Fault::BareLineEnd),
            (
                b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\nGET /admin",
                Fault::Host,
            ),
            (b"\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n", Fault::BareLineEnd),
        ] {
            let bytes = [first, second].concat();
            for step in [1, 3, 7, bytes.len()] {
                let (read, fault) = passed(&bytes, step).await;
                assert_eq!(read.unwrap(), [&first[..], STAND_IN].concat());
                assert_eq!(fault, Some(expected));
            }
        }
        let endless = [b'A'; 1000];
        assert_eq!(passed(&endless, 10).await.1, Some(Fault::TooLarge));
    }

    #[tokio::test]
    async fn chunks_of_another_spelling_break_the_connection() {
        let head = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
        for chunks in [
            "5;ext=1\r\nhello\r\n0\r\n\r\n",
            "5\nhello\r\n0\r\n\r\n",
            "+5\r\nhello\r\n0\r\n\r\n",
            "0x5\r\nhello\r\n0\r\n\r\n",
            "5 \r\nhello\r\n0\r\n\r\n",
            "\r\n",
            "5\r\nhelloX\r\n",
            "10000000000000000\r\nx",
            "0\r\nhost: b\r\n\r\n",
            "0\r\ncontent-length: 3\r\n\r\n",
            "0\r\nbad name: 3\r\n\r\n",
        ] {
            for step in [1, 4, 200] {
                let (read, _) = passed(format!("{head}{chunks}").as_bytes(), step).await;
                assert_eq!(
                    read.unwrap_err().kind(),
                    io::ErrorKind::InvalidData,
                    "{chunks:?}"
                );
            }
        }
    }

    #[tokio::test]
    async fn what_follows_a_connect_stays_behind() {
        let head = b"CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\n";
        let bytes = [&head[..], b"\x16\x03\x01hello"].concat();
        let mut stream = screen(&bytes, 1000);
        let mut read = vec![0; head.len()];
        stream.read_exact(&mut read).await.unwrap();
        assert_eq!(read, head);
        let mut more = [0; 1];
        let polled = at_once(stream.read(&mut more)).await;
        assert!(polled.is_none(), "something was passed on");
        assert_eq!(&stream.into_parts().1[..], b"\x16\x03\x01hello");
    }

    async fn at_once<F: Future>(future: F) -> Option<F::Output> {
        tokio::select! {
            biased;
            done = future => Some(done),
            () = std::future::ready(()) => None,
        }
    }
}
