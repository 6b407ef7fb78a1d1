//! The socket below an HTTP/1.1 connection, and the chunked replies that are read from it directly.
//!
//! ```text
//!             ┌─────────── Passing: every byte ───────────┐
//! socket ─▶ Wire ── Head: up to the end of a head ──▶ hyper's connection ──▶ head, frames
//!             └──── Chunks: what a reply's chunks hold ──▶ us
//! ```
//!
//! A model's server writes each event as a chunk of its own, and hyper takes such a reply apart byte by byte and frame by
//! frame: some two thousand instructions for each, more than everything else that happens to an event. So chunks of the
//! plain kind, `SIZE CRLF data CRLF`, are taken out here, all that one read brought at once.
//!
//! hyper remains the judge of what a message is. It has read the head, and said that the body is chunked, before anything
//! is read here; where a chunk's first line is of any other kind, the last chunk's included, hyper is given the stream
//! from that line on, and has seen a well-formed body until there, whose chunks are missing. So nothing is accepted here
//! that hyper would refuse.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use memchr::{memchr, memchr2_iter};

/// A socket, and who reads from it.
#[derive(Debug)]
pub(super) struct Wire<S> {
    stream: S,
    /// Read from the socket and given to nobody yet.
    ahead: BytesMut,
    reading: Reading,
    /// Something was read since the last request.
    heard: bool,
    /// The last write was not taken whole: hyper has to go on with it.
    writing: bool,
}

/// Hyper's end of a wire.
#[derive(Debug)]
pub(super) struct Tap<S>(Arc<Mutex<Wire<S>>>);

/// Who reads.
#[derive(Debug)]
enum Reading {
    /// Nobody any more: the chunks are none.
    Broken,
    /// We do.
    Chunks(Chunks),
    /// Hyper does, to the end of a head.
    Head(Head),
    /// Nobody, until somebody has looked at the head.
    Held,
    /// Hyper does.
    Passing,
}

/// How far a head has been given.
#[derive(Debug)]
struct Head {
    /// At its beginning.
    whole: bool,
    line: Line,
}

/// What the last bytes were, as far as that may become an empty line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Begun,
    Ended,
    EndedThenReturn,
}

/// How far a chunked body has been read.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    /// Bytes left of a chunk's data.
    left: u64,
    /// The line end after them is due.
    end_due: bool,
}

/// What was read of a chunked body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Chunked {
    /// It is no such body, or no more: broken off, or data longer than its chunk.
    Broken,
    /// Data of one chunk or more.
    Data(Bytes),
    /// Hyper has the rest.
    Passing,
}

/// How taking chunks out ended.
#[derive(Debug, PartialEq, Eq)]
enum Until {
    /// There is no line end where a chunk must have one.
    Broken,
    /// A line that hyper has to judge.
    Judgement,
    /// More is needed.
    More,
}

// === impl Wire ===

impl<S> Wire<S> {
    /// Over a fresh connection, with hyper's end of it.
    pub(super) fn over(stream: S) -> (Arc<Mutex<Self>>, Tap<S>) {
        let wire = Arc::new(Mutex::new(Self {
            stream,
            ahead: BytesMut::new(),
            reading: Reading::Passing,
            heard: false,
            writing: false,
        }));
        (Arc::clone(&wire), Tap(wire))
    }

    /// A request is going to be sent, and the head of a reply comes next.
    pub(super) fn expect_head(&mut self) {
        self.heard = false;
        self.reading = Reading::Head(Head {
            whole: true,
            line: Line::Begun,
        });
    }

    /// Hyper has read the head, and may have the body too, unless it is chunked and all of the request is sent.
    pub(super) fn expect_body(&mut self, chunked: bool) {
        let held = matches!(self.reading, Reading::Held);
        self.reading = if held && chunked && !self.writing {
            Reading::Chunks(Chunks::default())
        } else {
            Reading::Passing
        };
    }

    /// What was held is no head that hyper answers to, such as an interim one: it may read on. False if nothing was held.
    pub(super) fn release(&mut self) -> bool {
        let held = matches!(self.reading, Reading::Held);
        if held {
            self.reading = Reading::Passing;
        }
        held
    }

    /// Whether anything was read since the request.
    pub(super) fn heard(&self) -> bool {
        self.heard
    }
}

impl<S: Read + Unpin> Wire<S> {
    /// What is there of a chunked body, up to what one read brings.
    pub(super) fn poll_chunks(&mut self, cx: &mut Context<'_>) -> Poll<Chunked> {
        let mut data = BytesMut::new();
        loop {
            let chunks = match &mut self.reading {
                Reading::Chunks(chunks) => chunks,
                Reading::Broken => return Poll::Ready(Chunked::Broken),
                Reading::Head(_) | Reading::Held | Reading::Passing => {
                    return Poll::Ready(Chunked::Passing);
                }
            };
            let (taken, until) = chunks.take(&self.ahead, &mut data);
            self.ahead.advance(taken);
            let until = match until {
                Until::More if data.is_empty() => ready!(self.poll_more_chunks(cx, &mut data)),
                until => until,
            };
            match until {
                Until::Broken => self.reading = Reading::Broken,
                Until::Judgement => self.reading = Reading::Passing,
                Until::More => {}
            }
            if !data.is_empty() {
                return Poll::Ready(Chunked::Data(data.freeze()));
            }
        }
    }

    /// Reads once, and takes chunks out of what there was before and what there is now.
    fn poll_more_chunks(&mut self, cx: &mut Context<'_>, data: &mut BytesMut) -> Poll<Until> {
        let Reading::Chunks(chunks) = &mut self.reading else {
            return Poll::Ready(Until::Judgement);
        };
        let mut room = [const { MaybeUninit::uninit() }; READ_BYTES];
        let mut read = ReadBuf::uninit(&mut room);
        read.unfilled().put_slice(&self.ahead); // less than a line
        let before = self.ahead.len();
        let polled = ready!(Pin::new(&mut self.stream).poll_read(cx, read.unfilled()));
        if polled.is_err() || read.filled().len() == before {
            return Poll::Ready(Until::Broken);
        }
        let (taken, until) = chunks.take(read.filled(), data);
        self.ahead = BytesMut::from(&read.filled()[taken..]);
        Poll::Ready(until)
    }

    /// Reads what is there; nothing at the stream's end.
    fn fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut room = [const { MaybeUninit::uninit() }; READ_BYTES];
        let mut read = ReadBuf::uninit(&mut room);
        ready!(Pin::new(&mut self.stream).poll_read(cx, read.unfilled()))?;
        self.heard |= !read.filled().is_empty();
        self.ahead.extend_from_slice(read.filled());
        Poll::Ready(Ok(()))
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        match self.reading {
            Reading::Broken | Reading::Chunks(_) | Reading::Held => return Poll::Pending,
            Reading::Passing if self.ahead.is_empty() => {
                self.ahead = BytesMut::new(); // its room goes too
                return Pin::new(&mut self.stream).poll_read(cx, buf);
            }
            Reading::Head(_) | Reading::Passing => {}
        }
        if self.ahead.is_empty() {
            ready!(self.fill(cx))?;
        }
        let mut given = self.ahead.len().min(buf.remaining());
        if let Reading::Head(head) = &mut self.reading
            && let Some(end) = head.end(&self.ahead[..given])
        {
            given = end;
            self.reading = match head.whole && !may_be_chunked(&self.ahead[..end]) {
                true => Reading::Passing,
                false => Reading::Held,
            };
        }
        buf.put_slice(&self.ahead[..given]);
        self.ahead.advance(given);
        Poll::Ready(Ok(()))
    }
}

// === impl Tap ===

impl<S> Tap<S> {
    fn wire(&self) -> MutexGuard<'_, Wire<S>> {
        lock(&self.0)
    }
}

/// The wire. Its two ends are polled by one task, so nobody waits; a poisoned one is as good as it was.
pub(super) fn lock<S>(wire: &Mutex<Wire<S>>) -> MutexGuard<'_, Wire<S>> {
    wire.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S: Read + Unpin> Read for Tap<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.wire().poll_read(cx, buf)
    }
}

impl<S: Write + Unpin> Write for Tap<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wire = &mut *self.wire();
        let written = Pin::new(&mut wire.stream).poll_write(cx, buf);
        wire.writing = written.is_pending();
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wire = &mut *self.wire();
        let written = Pin::new(&mut wire.stream).poll_write_vectored(cx, bufs);
        wire.writing = written.is_pending();
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.wire().stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wire = &mut *self.wire();
        let flushed = Pin::new(&mut wire.stream).poll_flush(cx);
        wire.writing |= flushed.is_pending();
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire().stream).poll_shutdown(cx)
    }
}

// === impl Head ===

impl Head {
    /// Where the head ends in `piece`, which follows what was given before.
    fn end(&mut self, piece: &[u8]) -> Option<usize> {
        let mut at = 0;
        while at < piece.len() {
            if self.line == Line::Begun {
                let Some(end) = memchr(b'\n', &piece[at..]) else {
                    break;
                };
                at += end;
            }
            self.line = match (self.line, piece[at]) {
                (Line::Ended | Line::EndedThenReturn, b'\n') => return Some(at + 1),
                (Line::Begun, b'\n') => Line::Ended,
                (Line::Ended, b'\r') => Line::EndedThenReturn,
                _ => Line::Begun,
            };
            at += 1;
        }
        self.whole = false;
        None
    }
}

/// Whether a head could say so. One that does not needs no second look.
fn may_be_chunked(head: &[u8]) -> bool {
    memchr2_iter(b'k', b'K', head).any(|at| {
        let word = at.checked_sub(4).and_then(|from| head.get(from..at + 3));
        word.is_some_and(|word| word.eq_ignore_ascii_case(b"chunked"))
    })
}

// === impl Chunks ===

impl Chunks {
    /// Takes what chunks there are out of `coded`; how many bytes of it were used, and why no more.
    fn take(&mut self, coded: &[u8], data: &mut BytesMut) -> (usize, Until) {
        let mut rest = coded;
        let until = loop {
            if self.left > 0 {
                let there =
                    usize::try_from(self.left).map_or(rest.len(), |left| left.min(rest.len()));
                data.reserve(rest.len()); // for this chunk and those behind it
                data.extend_from_slice(&rest[..there]);
                rest = &rest[there..];
                self.left -= there as u64;
                if self.left > 0 {
                    break Until::More;
                }
                self.end_due = true;
            }
            if self.end_due {
                match rest {
                    [b'\r', b'\n', after @ ..] => rest = after,
                    [] | [b'\r'] => break Until::More,
                    _ => break Until::Broken,
                }
                self.end_due = false;
            }
            match Size::of(rest) {
                Size::Of(bytes, line) => {
                    self.left = bytes;
                    rest = &rest[line..];
                }
                Size::Other => break Until::Judgement,
                Size::Partial => break Until::More,
            }
        };
        (coded.len() - rest.len(), until)
    }
}

/// The line before a chunk's data.
#[derive(Debug, PartialEq, Eq)]
enum Size {
    /// So many bytes of data, after so long a line.
    Of(u64, usize),
    /// Not plain, or the last one.
    Other,
    /// Not all there.
    Partial,
}

impl Size {
    fn of(line: &[u8]) -> Self {
        let mut bytes = 0;
        for (at, &byte) in line.iter().enumerate().take(MAX_LINE) {
            let digit = match byte {
                b'0'..=b'9' => byte - b'0',
                b'a'..=b'f' => byte - b'a' + 10,
                b'A'..=b'F' => byte - b'A' + 10,
                b'\r' if bytes > 0 => {
                    return match line.get(at + 1) {
                        Some(b'\n') => Self::Of(bytes, at + 2),
                        Some(_) => Self::Other,
                        None => Self::Partial,
                    };
                }
                _ => return Self::Other,
            };
            bytes = bytes << 4 | u64::from(digit);
        }
        if line.len() < MAX_LINE {
            Self::Partial
        } else {
            Self::Other
        }
    }
}

/// The most that is read at once.
const READ_BYTES: usize = 32 * 1024;

/// Digits of a plain size, and its line end. No more is ever kept of a line that is not all there.
const MAX_LINE: usize = 14;

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
