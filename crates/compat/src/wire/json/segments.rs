//! An edited document as pieces: kept slices of the source and new text between them.
//!
//! What is kept is never copied. New text is small and there is much of it (an id here, a name there), so it is
//! written into one buffer that the pieces share; only what is large already, such as a turn's reasoning, stays where
//! it is.

use bytes::Bytes;

use super::quote_into;

/// New text from this size on is not copied: a piece of its own is cheaper.
const SHARED_FROM_BYTES: usize = 4096;

/// A document as pieces: kept slices of the source and new text between them.
#[derive(Debug)]
pub struct Segments<'a> {
    source: &'a str,
    /// All new text, one after the other.
    new: Vec<u8>,
    pieces: Vec<Piece>,
}

/// One piece of an edited document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment<'a> {
    /// A slice of the source text.
    Kept(&'a str),
    /// Text that was not in the source.
    New(Bytes),
}

#[derive(Debug)]
enum Piece {
    /// From here to there in the source.
    Kept(usize, usize),
    /// From here to there in the new text.
    New(usize, usize),
    /// New text that is somebody else's as well.
    Shared(Bytes),
}

/// What a value is written to, piece by piece.
pub(super) trait Out<'a> {
    /// Text of the source, or a literal that stands for such.
    fn source(&mut self, text: &'a str);
    /// New text.
    fn text(&mut self, text: &str);
    /// New text that is shared.
    fn shared(&mut self, text: &Bytes);
    /// A new key.
    fn key(&mut self, key: &str);
}

impl<'a> Segments<'a> {
    /// No pieces yet; kept slices must be of `source`.
    pub fn new(source: &'a str) -> Self {
        Self {
            source,
            new: Vec::new(),
            pieces: Vec::new(),
        }
    }

    /// The pieces, in order.
    pub fn into_pieces(self) -> Vec<Segment<'a>> {
        let new = Bytes::from(self.new);
        let pieces = self.pieces.into_iter();
        pieces
            .map(|piece| match piece {
                Piece::Kept(start, end) => {
                    Segment::Kept(self.source.get(start..end).unwrap_or_default())
                }
                Piece::New(start, end) => Segment::New(new.slice(start..end)),
                Piece::Shared(text) => Segment::New(text),
            })
            .collect()
    }

    /// The pieces as one text.
    pub fn to_text(&self) -> String {
        let mut text = Vec::with_capacity(self.source.len() + self.new.len());
        for piece in &self.pieces {
            text.extend_from_slice(
                match piece {
                    Piece::Kept(start, end) => self.source.as_bytes().get(*start..*end),
                    Piece::New(start, end) => self.new.get(*start..*end),
                    Piece::Shared(text) => Some(&text[..]),
                }
                .unwrap_or_default(),
            );
        }
        // Every piece is text, so that nothing is ever replaced.
        String::from_utf8(text)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
    }

    /// Where in the source `text` stands; literals that a pass brought do not.
    fn place_of(&self, text: &str) -> Option<usize> {
        let start = (text.as_ptr() as usize).checked_sub(self.source.as_ptr() as usize)?;
        (start + text.len() <= self.source.len()).then_some(start)
    }

    /// Keeps `start..end` of the source.
    fn keep(&mut self, start: usize, end: usize) {
        match self.pieces.last_mut() {
            _ if start == end => {}
            Some(Piece::Kept(_, last)) if *last == start => *last = end,
            _ => self.pieces.push(Piece::Kept(start, end)),
        }
    }

    /// Everything written to `new` from `start` on is the next piece, or more of the last.
    fn added_since(&mut self, start: usize) {
        let end = self.new.len();
        match self.pieces.last_mut() {
            _ if start == end => {}
            Some(Piece::New(_, last)) => *last = end,
            _ => self.pieces.push(Piece::New(start, end)),
        }
    }
}

impl<'a> Out<'a> for Segments<'a> {
    fn source(&mut self, text: &'a str) {
        match self.place_of(text) {
            Some(start) => self.keep(start, start + text.len()),
            None => self.text(text),
        }
    }

    fn text(&mut self, text: &str) {
        let start = self.new.len();
        self.new.extend_from_slice(text.as_bytes());
        self.added_since(start);
    }

    fn shared(&mut self, text: &Bytes) {
        if text.len() >= SHARED_FROM_BYTES {
            self.pieces.push(Piece::Shared(text.clone()));
            return;
        }
        let start = self.new.len();
        self.new.extend_from_slice(text);
        self.added_since(start);
    }

    fn key(&mut self, key: &str) {
        let start = self.new.len();
        quote_into(key, &mut self.new);
        self.new.push(b':');
        self.added_since(start);
    }
}

impl<'a> Out<'a> for String {
    fn source(&mut self, text: &'a str) {
        self.push_str(text);
    }

    fn text(&mut self, text: &str) {
        self.push_str(text);
    }

    fn shared(&mut self, text: &Bytes) {
        self.push_str(&Self::from_utf8_lossy(text));
    }

    fn key(&mut self, key: &str) {
        self.push_str(&super::quote(key));
        self.push(':');
    }
}

impl Segment<'_> {
    /// The text of this piece; always UTF-8.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Kept(text) => text.as_bytes(),
            Self::New(text) => text,
        }
    }
}
