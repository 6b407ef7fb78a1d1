//! Server-sent events, in pieces of any size.
//!
//! [`Framer`] cuts a byte stream into [`Frame`]s whose concatenation is the stream,
//! byte for byte; where the reads fell makes no difference to the frames
//! (invariant I5). A frame that lies within one read is a slice of it, not a copy.
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

use bytes::{Bytes, BytesMut};

use super::json::Segments;

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
    /// The beginning of a frame whose end has not come yet.
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
    /// Takes the next bytes, appends the frames they complete.
    ///
    /// # Errors
    /// [`Oversized`]; the stream cannot be followed any further.
    pub fn push(&mut self, mut bytes: Bytes, out: &mut Vec<Frame>) -> Result<(), Oversized> {
        if !self.pending.is_empty() {
            self.pending.extend_from_slice(&bytes);
            // Taken, not split: a split half would keep the allocation shared and
            // make every further read of a long event a copy of all of it.
            bytes = std::mem::take(&mut self.pending).freeze();
        }
        while let Some((end, kind)) = self.lines.next_frame(&bytes, self.started) {
            self.started = true;
            if end > MAX_EVENT_BYTES {
                return Err(Oversized);
            }
            let frame = bytes.split_to(end);
            out.push(match kind {
                Kind::Event => Frame::Event(frame),
                Kind::Idle => Frame::Idle(frame),
            });
        }
        if bytes.len() > MAX_EVENT_BYTES {
            return Err(Oversized);
        }
        // Whole again where nothing else holds the allocation: no copy per read.
        self.pending = bytes
            .try_into_mut()
            .unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        Ok(())
    }

    /// The stream has ended well: what is left is the last event.
    pub fn finish(&mut self) -> Option<Frame> {
        let rest = std::mem::take(&mut self.pending).freeze();
        self.lines = Lines::default();
        if rest.is_empty() {
            return None;
        }
        let comment = rest.first() == Some(&b':');
        Some(
            if comment && memchr::memchr2(b'\n', b'\r', &rest).is_none() {
                Frame::Idle(rest)
            } else {
                Frame::Event(rest)
            },
        )
    }
}

impl Lines {
    /// The length and kind of the first complete frame of `bytes`.
    ///
    /// `bytes` starts where the frame does; what was searched before is not
    /// searched again.
    fn next_frame(&mut self, bytes: &[u8], started: bool) -> Option<(usize, Kind)> {
        loop {
            let found = memchr::memchr2(b'\n', b'\r', bytes.get(self.at..)?);
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
    let mut out = Vec::with_capacity(raw.len() + data.len() + 16);
    let mut written = false;
    for line in lines(raw) {
        if data_of(line.text).is_none() {
            out.extend_from_slice(line.text);
            out.extend_from_slice(line.end);
        } else if !written {
            let end = if line.end.is_empty() { b"\n" } else { line.end };
            // JSON holds a line break only as white space between tokens, and
            // data lines are joined by one: a line each keeps the text the same.
            for piece in data.split('\n') {
                out.extend_from_slice(b"data: ");
                out.extend_from_slice(piece.trim_end_matches('\r').as_bytes());
                out.extend_from_slice(end);
            }
            written = true;
        }
    }
    Bytes::from(out)
}

/// An event that has only this data.
pub fn event(data: &str) -> Bytes {
    Bytes::from(format!("data: {data}\n\n"))
}

/// The pieces of an edited document as the data of `raw`.
pub fn with_segments(raw: &[u8], segments: &Segments<'_>) -> Bytes {
    with_data(raw, &segments.to_text())
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
