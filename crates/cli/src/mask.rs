//! Takes secrets out of text that is to be shown or kept.
//!
//! ```text
//! bytes as they come ──▶ whole lines ──▶ known values, longest first: [REDACTED]
//!                                        └─▶ whatever looks like a secret: <REDACTED> ──▶ text
//! ```
//!
//! A secret may be cut anywhere over any number of reads, so a line is looked at when all of it is there. Where there is
//! doubt, more is taken out than need be: a private key that never ends is gone to the end of the text, and a line too
//! long to be held goes out only up to a blank.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use farrier_secrets::Secret;
use regex::{Captures, Regex};

/// In place of a value that is known.
const KNOWN: &str = "[REDACTED]";
/// In place of what looks like a secret.
const LIKELY: &str = "<REDACTED>";
/// A line is held no longer than this, in bytes.
const MAX_HELD: usize = 64 * 1024;

/// Beginnings, and what follows them: tokens that services hand out, then whatever calls itself a secret. What a group
/// called `keep` holds stays.
const PATTERNS: &[&str] = &[
    r"nvapi-[A-Za-z0-9_-]{8,}",
    r"nvcf-[A-Za-z0-9_-]{8,}",
    r"gh[pousr]_[A-Za-z0-9]{8,}",
    r"github_pat_[A-Za-z0-9_]{8,}",
    r"sk-[A-Za-z0-9_-]{8,}",
    r"xox[a-z]-[A-Za-z0-9-]{8,}",
    r"xapp-[A-Za-z0-9-]{8,}",
    r"(?:AKIA|ASIA)[A-Z0-9]{12,}",
    r"hf_[A-Za-z0-9]{8,}",
    r"glpat-[A-Za-z0-9_-]{8,}",
    r"gsk_[A-Za-z0-9]{8,}",
    r"pypi-[A-Za-z0-9_-]{16,}",
    r"tvly-[A-Za-z0-9-]{8,}",
    r"lsv2_[A-Za-z0-9_]{8,}",
    r"[0-9]{8,10}:[A-Za-z0-9_-]{30,}",
    r"[A-Za-z0-9_-]{23,28}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,}",
    r"(?i)(?<keep>bearer +)[^\s\x22',]+",
    r"(?i)(?<keep>[A-Z0-9]_(?:KEY|TOKEN|SECRET|PASSWORD)=)[^\s\x22',]+",
];

static LIKELY_SECRETS: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    let compile =
        |pattern: &&str| Regex::new(pattern).expect("every pattern is compiled by a test");
    PATTERNS.iter().map(compile).collect()
});

const PEM_BEGIN: &str = "-----BEGIN ";
const PEM_END: &str = "-----END ";

/// What is taken out.
#[derive(Debug, Default)]
pub(crate) struct Masker {
    /// Longest first: one may hold another.
    known: Vec<Secret>,
    /// How often a known value was met.
    met: AtomicUsize,
}

/// Text on its way out.
#[derive(Debug)]
pub(crate) struct Masking<'a> {
    masker: &'a Masker,
    /// The line that has not ended yet.
    held: Vec<u8>,
    /// Inside a private key.
    in_pem: bool,
}

impl Masker {
    pub(crate) fn new(mut known: Vec<Secret>) -> Self {
        known.sort_by_key(|secret| std::cmp::Reverse(secret.expose().len()));
        Self {
            known,
            met: AtomicUsize::new(0),
        }
    }

    /// A whole text.
    pub(crate) fn mask(&self, text: &str) -> String {
        let mut masking = self.masking();
        let mut masked = masking.take(text.as_bytes());
        masked.push_str(&masking.finish());
        masked
    }

    /// A text that comes in pieces.
    pub(crate) fn masking(&self) -> Masking<'_> {
        Masking {
            masker: self,
            held: Vec::new(),
            in_pem: false,
        }
    }

    /// How often a known value was taken out so far: each is one that somebody showed.
    pub(crate) fn met(&self) -> usize {
        self.met.load(Ordering::Relaxed)
    }

    /// Whether any known value is in there.
    pub(crate) fn is_in(&self, bytes: &[u8]) -> bool {
        let holds = |secret: &Secret| {
            let value = secret.expose().as_bytes();
            bytes.windows(value.len()).any(|window| window == value)
        };
        self.known.iter().any(holds)
    }

    fn take_out_known(&self, line: &str) -> String {
        let mut line = line.to_owned();
        for secret in &self.known {
            let found = line.matches(secret.expose()).count();
            if found > 0 {
                self.met.fetch_add(found, Ordering::Relaxed);
                line = line.replace(secret.expose(), KNOWN);
            }
        }
        line
    }

    fn longest(&self) -> usize {
        self.known.first().map_or(0, |secret| secret.expose().len())
    }
}

impl Masking<'_> {
    /// What can be shown of the text so far and was not yet.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> String {
        let mut shown = String::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.held.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                let line = std::mem::take(&mut self.held);
                shown.push_str(&self.line(&line));
            } else if self.held.len() > MAX_HELD {
                shown.push_str(&self.part_of_line());
            }
        }
        shown
    }

    /// What was held back.
    pub(crate) fn finish(&mut self) -> String {
        let line = std::mem::take(&mut self.held);
        self.line(&line)
    }

    fn line(&mut self, line: &[u8]) -> String {
        let line = String::from_utf8_lossy(line);
        let line = self.masker.take_out_known(&line);
        let line = self.without_private_keys(&line);
        take_out_likely(&line)
    }

    /// The beginning of a line that is too long to be held: up to a blank, as no token has one, and so far from the end
    /// that no known value is cut. Without a blank nothing of it is shown.
    fn part_of_line(&mut self) -> String {
        let safe = self.held.len() - self.masker.longest();
        let blank = self.held[..safe].iter().rposition(u8::is_ascii_whitespace);
        let Some(blank) = blank else {
            self.held.drain(..safe);
            return LIKELY.to_owned();
        };
        let rest = self.held.split_off(blank);
        let part = std::mem::replace(&mut self.held, rest);
        self.line(&part)
    }

    fn without_private_keys(&mut self, line: &str) -> String {
        let mut shown = String::new();
        let mut rest = line;
        loop {
            if self.in_pem {
                let Some(end) = rest.find(PEM_END) else {
                    return shown;
                };
                let behind = &rest[end + PEM_END.len()..];
                self.in_pem = false;
                rest = behind.split_once("-----").map_or("\n", |(_, rest)| rest);
            }
            let Some(begin) = rest.find(PEM_BEGIN) else {
                shown.push_str(rest);
                return shown;
            };
            shown.push_str(&rest[..begin]);
            shown.push_str(LIKELY);
            self.in_pem = true;
            rest = &rest[begin + PEM_BEGIN.len()..];
        }
    }
}

fn take_out_likely(line: &str) -> String {
    LIKELY_SECRETS
        .iter()
        .fold(line.to_owned(), |line, pattern| {
            let replaced = pattern.replace_all(&line, |found: &Captures<'_>| {
                let kept = found.name("keep").map_or("", |kept| kept.as_str());
                format!("{kept}{LIKELY}")
            });
            replaced.into_owned()
        })
}

#[cfg(test)]
#[path = "mask_tests.rs"]
mod tests;
