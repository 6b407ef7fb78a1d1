//! Where a string may stop, for a whole document at once.
//!
//! A body is mostly the insides of long strings. One SIMD pass, 64 bytes at a time, marks the few bytes at which
//! reading a string has to look; [`Stops::next`] then goes from mark to mark and never touches what lies between.
//!
//! ```text
//! text    "a \"b\" \u00e9 c \x"
//! marks   ^         ^        ^^      the quotes, the `u` whose digits must be looked at, the bad escape
//! ```
//!
//! Marked is every byte that is
//! * a quote that no backslash escapes,
//! * a control character (RFC 8259 §7 wants those escaped),
//! * behind an escaping backslash, and no escape character; `u` too, because its four digits must be looked at.
//!
//! The marks are right inside strings. Outside of them they say nothing, and nobody asks: a reader that comes upon a
//! backslash there has found an error before any mark behind it counts.
//!
//! What escapes what is found without looking at bytes one by one: Langdale and Lemire, *Parsing Gigabytes of JSON
//! per Second*, §3.1.1, in the form of simdjson's `json_escape_scanner`.

use fearless_simd::prelude::*;
use fearless_simd::{Level, Simd, dispatch, u8x64};

/// Bytes that one word of marks stands for.
const BLOCK: usize = 64;

/// Documents up to this size, most events of a stream among them, are marked without an allocation.
const SMALL_BLOCKS: usize = 16;

/// The marks of one document: bit `n % 64` of word `n / 64` stands for byte `n`.
pub(super) struct Stops {
    small: [u64; SMALL_BLOCKS],
    large: Vec<u64>,
}

impl Stops {
    /// Marks `text`.
    pub(super) fn of(text: &[u8]) -> Self {
        // One block more than full ones: there is always a padded one, whose padding is marked.
        let blocks = text.len() / BLOCK + 1;
        let mut stops = Self {
            small: [0; SMALL_BLOCKS],
            large: Vec::new(),
        };
        if blocks > SMALL_BLOCKS {
            stops.large = vec![0; blocks];
        }
        let words = stops.words_mut().get_mut(..blocks).unwrap_or_default();
        dispatch!(Level::new(), simd => mark(simd, text, words));
        stops
    }

    /// The first mark at or behind `at`; some place behind the end of the text when there is none.
    #[inline]
    pub(super) fn next(&self, at: usize) -> usize {
        let words = self.words();
        let mut index = at / BLOCK;
        let mut word = words
            .get(index)
            .map_or(0, |word| word & (!0 << (at % BLOCK)));
        while word == 0 {
            index += 1;
            match words.get(index) {
                Some(next) => word = *next,
                None => return usize::MAX,
            }
        }
        index * BLOCK + word.trailing_zeros() as usize
    }

    #[inline]
    fn words(&self) -> &[u64] {
        if self.large.is_empty() {
            &self.small
        } else {
            &self.large
        }
    }

    fn words_mut(&mut self) -> &mut [u64] {
        if self.large.is_empty() {
            &mut self.small
        } else {
            &mut self.large
        }
    }
}

/// Marks `text` in `words`, which has a word for each full block and one for the rest.
// All that is generic over `Simd` must be inlined into the one function that is compiled for its instructions.
#[inline(always)]
fn mark<S: Simd>(simd: S, text: &[u8], words: &mut [u64]) {
    let mut carry = Carry(0);
    let (blocks, rest) = text.as_chunks::<BLOCK>();
    let mut padded = [0; BLOCK];
    for (to, from) in padded.iter_mut().zip(rest) {
        *to = *from;
    }
    for (block, word) in blocks.iter().chain([&padded]).zip(words) {
        *word = marks_of(simd, block, &mut carry);
    }
}

#[inline(always)]
fn marks_of<S: Simd>(simd: S, block: &[u8; BLOCK], carry: &mut Carry) -> u64 {
    let bytes = u8x64::from_slice(simd, block);
    let quotes = bytes.simd_eq(b'"').to_bitmask();
    let backslashes = bytes.simd_eq(b'\\').to_bitmask();
    let controls = bytes.simd_le(0x1f).to_bitmask();
    if backslashes | carry.0 == 0 {
        return quotes | controls;
    }
    let escaped = carry.escaped(backslashes);
    let letters = bytes.simd_eq(b'b')
        | bytes.simd_eq(b'f')
        | bytes.simd_eq(b'n')
        | bytes.simd_eq(b'r')
        | bytes.simd_eq(b't')
        | bytes.simd_eq(b'/');
    let good = letters.to_bitmask() | quotes | backslashes;
    (quotes & !escaped) | controls | (escaped & !good)
}

/// Whether the last byte of a block was a backslash that escapes the first of the next: 0 or 1.
struct Carry(u64);

impl Carry {
    /// The bytes of a block that stand behind an escaping backslash.
    ///
    /// In a run of backslashes every other one escapes, beginning with the first. Subtracting the beginnings of runs
    /// from their ends, on odd places set apart, makes the borrow run through the backslashes and flip every other.
    #[inline(always)]
    fn escaped(&mut self, backslashes: u64) -> u64 {
        const ODD: u64 = 0xaaaa_aaaa_aaaa_aaaa;
        let may_escape = backslashes & !self.0;
        let codes = ((may_escape << 1) | ODD).wrapping_sub(may_escape) ^ ODD;
        let escaped = codes ^ (backslashes | self.0);
        self.0 = (codes & backslashes) >> 63;
        escaped
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same, one byte after the other.
    fn plainly(text: &[u8]) -> Vec<usize> {
        let mut marked = Vec::new();
        let mut escaped = false;
        for (at, byte) in text.iter().enumerate() {
            let stops = match (escaped, byte) {
                (_, 0..0x20) => true,
                (true, byte) => !b"\"\\/bfnrt".contains(byte),
                (false, byte) => *byte == b'"',
            };
            if stops {
                marked.push(at);
            }
            escaped = *byte == b'\\' && !escaped;
        }
        marked
    }

    fn marked(text: &[u8]) -> Vec<usize> {
        let stops = Stops::of(text);
        let mut at = 0;
        std::iter::from_fn(|| {
            let next = stops.next(at);
            at = next.saturating_add(1);
            (next < text.len()).then_some(next)
        })
        .collect()
    }

    #[test]
    fn run_of_backslashes_escapes_across_blocks() {
        for lead in 0..130 {
            for run in 0..70 {
                let text = format!("{}{}\"x\"", "y".repeat(lead), "\\".repeat(run));
                assert_eq!(
                    marked(text.as_bytes()),
                    plainly(text.as_bytes()),
                    "{lead} {run}"
                );
            }
        }
    }

    #[test]
    fn nothing_is_marked_behind_the_end() {
        for len in [0, 1, 63, 64, 65, 1023, 1024, 1025, 4096] {
            let stops = Stops::of(&vec![b'x'; len]);
            assert!(stops.next(0) >= len, "{len}");
            assert!(stops.next(len + 1000) >= len, "{len}");
        }
    }

    proptest! {
        #[test]
        fn marks_are_those_of_a_plain_search(text in "[\\\\\"u/bxn\u{0}-\u{1f}\u{7f}\u{e9}\u{4e0d}]{0,300}", lead in 0usize..1200) {
            let text = "z".repeat(lead) + &text;
            prop_assert_eq!(marked(text.as_bytes()), plainly(text.as_bytes()));
        }

        #[test]
        fn any_bytes_are_marked_alike(text in proptest::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert_eq!(marked(&text), plainly(&text));
        }
    }
}
