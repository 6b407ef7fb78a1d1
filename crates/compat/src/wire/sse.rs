//! Server-sent events, in pieces of any size.
//!
//! [`Framer`] cuts a byte stream into [`Frame`]s whose concatenation is the stream,
//! byte for byte; where the reads fell makes no difference to the frames
//! (invariant I5). A frame that lies within one read is a slice of it; of the others
//! each is put together once, by itself.
//!
//! ```text
//! reads    ": ping\n" | "data: {\"a\"" | ":1}\n\nda" | "ta: [DONE]\n\n"
//! frames   Idle(": ping\n")  Event("data: {\"a\":1}\n\n")  Event("data: [DONE]\n\n")
//! ```
//!
//! Source: WHATWG HTML §9.2.5–9.2.6 (lines end in LF, CR or CRLF; a leading BOM is
//! skipped; `data` lines join with LF; a blank line dispatches). Three departures:
//! the last event counts even if the stream ends before its blank line, because
//! real servers leave it out; a comment in front of an event is a frame of its own,
//! so that a keep-alive is not held until the event behind it is complete; and in a
//! stream whose lines have ended in bare CR, a CRLF counts as two line ends.
//!
//! A CR at the very end of a read may be half of a CRLF. The framer waits for the
//! next byte, unless the line before ended in a bare CR: then CR is this stream's
//! line end, and a complete event is not held back for a byte that may take long.

use std::borrow::Cow;

use bytes::{Buf, Bytes, BytesMut};

use super::json::{Segment, Segments};

/// What one event may take before its blank line; far above any real event.
pub const MAX_EVENT_BYTES: usize = 16 * 1024 * 1024;

/// A piece of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Lines up to and including the blank line that dispatches them.
    Event(Bytes),
    /// A comment or a blank line between events: nothing is dispatched.
    Idle(Bytes),
}

/// An event grew beyond [`MAX_EVENT_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Oversized;

/// Cuts a byte stream into frames.
#[derive(Debug, Default)]
pub struct Framer {
    /// What is left of the last read.
    read: Bytes,
    /// The beginning of a frame, from the reads before.
    pending: BytesMut,
    lines: Lines,
    /// A BOM can only be the first bytes of the stream.
    started: bool,
}

/// Where in the current frame the search for line ends stands.
#[derive(Debug, Default)]
struct Lines {
    /// Bytes of the frame already searched.
    at: usize,
    /// Start of the current line.
    line: usize,
    /// Whether the line before, of this frame or the last, ended in a bare CR.
    bare_cr: bool,
}

#[derive(Clone, Copy)]
enum Kind {
    Event,
    Idle,
}

impl Framer {
    /// Takes the next bytes, once all frames of those before have been taken out.
    pub fn push(&mut self, read: Bytes) {
        self.read = read;
    }

    /// Takes out the next frame; `None` while its end has not come.
    ///
    /// # Errors
    /// [`Oversized`]; the stream cannot be followed any further.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, Oversized> {
        if self.pending.is_empty() {
            if self.read.is_empty() {
                return Ok(None);
            }
            if let Some((length, kind)) = self.lines.find_frame(&self.read, self.started)? {
                self.started = true;
                return Ok(Some(kind.of(self.read.split_to(length))));
            }
            self.pending
                .extend_from_slice(&std::mem::take(&mut self.read));
            return Ok(None);
        }
        self.next_pending()
    }

    /// What is left of the last read, where a frame begins with it and its lines end in LF
    /// or CRLF: for whoever knows such a frame without looking for its end.
    pub fn rest(&self) -> &[u8] {
        if self.pending.is_empty() && !self.lines.bare_cr {
            &self.read
        } else {
            &[]
        }
    }

    /// Passes over whole frames, with which the [rest](Self::rest) begins.
    pub fn skip(&mut self, length: usize) {
        self.read.advance(length.min(self.read.len()));
    }

    /// The stream has ended well: what is left is the last event.
    pub fn finish(&mut self) -> Option<Frame> {
        let rest = std::mem::take(&mut self.pending).freeze();
        self.lines = Lines::default();
        if rest.is_empty() {
            return None;
        }
        let comment = rest.first() == Some(&b':');
        let one_line = memchr::memchr2(b'\n', b'\r', &rest).is_none();
        let kind = if comment && one_line {
            Kind::Idle
        } else {
            Kind::Event
        };
        Some(kind.of(rest))
    }

    /// Takes out the frame that began in a read before. It is put together line by line, so
    /// that nothing of the frames behind it is copied.
    fn next_pending(&mut self) -> Result<Option<Frame>, Oversized> {
        loop {
            if let Some((length, kind)) = self.lines.find_frame(&self.pending, self.started)? {
                self.started = true;
                let mut frame = std::mem::take(&mut self.pending);
                // A bare CR shows only by what follows it.
                self.pending
                    .extend_from_slice(frame.get(length..).unwrap_or_default());
                frame.truncate(length);
                return Ok(Some(kind.of(frame.freeze())));
            }
            if self.read.is_empty() {
                return Ok(None);
            }
            let stop = memchr::memchr2(b'\n', b'\r', &self.read);
            let line = stop.map_or(self.read.len(), |stop| stop + 1);
            self.pending.extend_from_slice(&self.read.split_to(line));
        }
    }
}

impl Kind {
    fn of(self, raw: Bytes) -> Frame {
        match self {
            Self::Event => Frame::Event(raw),
            Self::Idle => Frame::Idle(raw),
        }
    }
}

impl Lines {
    /// The length and kind of the first complete frame of `bytes`, which may be the
    /// beginning of one.
    fn find_frame(
        &mut self,
        bytes: &[u8],
        started: bool,
    ) -> Result<Option<(usize, Kind)>, Oversized> {
        let found = self.next_frame(bytes, started);
        let length = found.map_or(bytes.len(), |(length, _)| length);
        if length > MAX_EVENT_BYTES {
            return Err(Oversized);
        }
        Ok(found)
    }

    /// The same, however long.
    ///
    /// `bytes` starts where the frame does; what was searched before is not
    /// searched again.
    fn next_frame(&mut self, bytes: &[u8], started: bool) -> Option<(usize, Kind)> {
        loop {
            let rest = bytes.get(self.at..)?;
            // Behind a line of data a blank one follows, as a rule.
            let found = match rest.first() {
                Some(b'\n') => Some(0),
                _ => memchr::memchr2(b'\n', b'\r', rest),
            };
            let Some(offset) = found else {
                self.at = bytes.len();
                return None;
            };
            let stop = self.at + offset;
            let Some((end, bare_cr)) = self.line_end(bytes, stop) else {
                self.at = stop;
                return None;
            };
            let first = self.line == 0;
            let line = without_bom(bytes.get(self.line..stop)?, first && !started);
            self.bare_cr = bare_cr;
            self.at = end;
            let kind = match (first, line.first()) {
                (true, None | Some(b':')) => Kind::Idle,
                (false, None) => Kind::Event,
                (_, Some(_)) => {
                    self.line = end;
                    continue;
                }
            };
            self.at = 0;
            self.line = 0;
            return Some((end, kind));
        }
    }

    /// The end of the line whose CR or LF stands at `stop`, and whether it is a bare
    /// CR; `None` while that cannot be known.
    fn line_end(&self, bytes: &[u8], stop: usize) -> Option<(usize, bool)> {
        match (bytes.get(stop), bytes.get(stop + 1)) {
            (Some(b'\n'), _) => Some((stop + 1, false)),
            _ if self.bare_cr => Some((stop + 1, true)),
            (_, Some(b'\n')) => Some((stop + 2, false)),
            (_, Some(_)) => Some((stop + 1, true)),
            (_, None) => None,
        }
    }
}

/// The data of the event `raw`: its `data` lines joined by LF; `None` without one.
pub fn data(raw: &[u8]) -> Option<Cow<'_, [u8]>> {
    let mut joined: Option<Cow<'_, [u8]>> = None;
    for line in lines(raw) {
        let Some(value) = data_of(line.text) else {
            continue;
        };
        joined = Some(match joined {
            None => Cow::Borrowed(value),
            Some(before) => {
                let mut all = before.into_owned();
                all.push(b'\n');
                all.extend_from_slice(value);
                Cow::Owned(all)
            }
        });
    }
    joined
}

/// The event `raw` with `data` in place of its data; other lines and the line ends
/// stay as they are.
pub fn with_data(raw: &[u8], data: &str) -> Bytes {
    with_pieces(raw, [data.as_bytes()])
}

/// The same, with the pieces of an edited document.
pub fn with_segments(raw: &[u8], segments: Segments<'_>) -> Bytes {
    let pieces = segments.into_pieces();
    with_pieces(raw, pieces.iter().map(Segment::as_bytes))
}

fn with_pieces<'p>(raw: &[u8], pieces: impl IntoIterator<Item = &'p [u8]>) -> Bytes {
    let mut out = Vec::with_capacity(raw.len() + 64);
    let mut pieces = Some(pieces);
    for line in lines(raw) {
        if data_of(line.text).is_none() {
            out.extend_from_slice(line.text);
            out.extend_from_slice(line.end);
        } else if let Some(pieces) = pieces.take() {
            let end = if line.end.is_empty() { b"\n" } else { line.end };
            write_data(pieces, end, &mut out);
        }
    }
    Bytes::from(out)
}

/// JSON holds a line break only as white space between tokens, and data lines are joined
/// by one: a line each keeps the text the same.
fn write_data<'p>(pieces: impl IntoIterator<Item = &'p [u8]>, end: &[u8], out: &mut Vec<u8>) {
    let close = |out: &mut Vec<u8>| {
        while out.pop_if(|last| *last == b'\r').is_some() {}
        out.extend_from_slice(end);
    };
    out.extend_from_slice(b"data: ");
    for piece in pieces {
        for (number, line) in piece.split(|byte| *byte == b'\n').enumerate() {
            if number > 0 {
                close(out);
                out.extend_from_slice(b"data: ");
            }
            out.extend_from_slice(line);
        }
    }
    close(out);
}

/// An event that has only this data.
pub fn event(data: &str) -> Bytes {
    Bytes::from(format!("data: {data}\n\n"))
}

struct Line<'r> {
    text: &'r [u8],
    end: &'r [u8],
}

/// The lines of one complete frame.
fn lines(raw: &[u8]) -> impl Iterator<Item = Line<'_>> {
    let mut rest = without_bom(raw, true);
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let stop = memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
        let (text, after) = rest.split_at(stop);
        let width = match after {
            [b'\r', b'\n', ..] => 2,
            [] => 0,
            _ => 1,
        };
        let (end, next) = after.split_at(width);
        rest = next;
        Some(Line { text, end })
    })
}

/// The value of a `data` line; one space behind the colon is not part of it.
fn data_of(line: &[u8]) -> Option<&[u8]> {
    match line.strip_prefix(b"data")? {
        [] => Some(b""),
        [b':', b' ', value @ ..] | [b':', value @ ..] => Some(value),
        _ => None,
    }
}

fn without_bom(line: &[u8], first: bool) -> &[u8] {
    match line.strip_prefix(b"\xef\xbb\xbf") {
        Some(rest) if first => rest,
        _ => line,
    }
}

#[cfg(test)]
#[path = "sse/tests.rs"]
mod tests;
