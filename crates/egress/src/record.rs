//! One decision, from its first byte to its last, and then its line.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use crate::address::Refused;
use crate::audit::{Audit, Line, Verdict};
use crate::policy::{Allowed, Denied};
use crate::rescue::{Answer, Cause};
use crate::resolve::DialError;
use crate::tunnel::Moved;

/// A decision in the making. Its line is written when it is dropped, however it ended.
#[derive(Debug)]
pub(crate) struct Record {
    audit: Arc<Audit>,
    started: Instant,
    /// Bytes that were moved for it.
    pub(crate) moved: Arc<Moved>,
    pub(crate) line: Line,
}

// === impl Record ===

impl Record {
    pub(crate) fn start(audit: &Arc<Audit>, sandbox: &str, kind: &str) -> Self {
        Self {
            audit: Arc::clone(audit),
            started: Instant::now(),
            moved: Arc::default(),
            line: Line {
                sandbox: sandbox.to_owned(),
                kind: kind.to_owned(),
                ..Line::default()
            },
        }
    }

    pub(crate) fn allowed(&mut self, allowed: &Allowed) {
        self.line.rule = Some(allowed.by.to_string());
        self.line.verdict = Verdict::Allowed;
        if let Some(denied) = &allowed.in_spite_of {
            self.line.verdict = Verdict::Audited;
            self.denied("policy_denied", denied);
        }
    }

    fn denied(&mut self, code: &str, denied: &Denied) {
        self.line.code = Some(code.to_owned());
        self.line.reason = Some(denied.to_string());
        if denied.by.is_some() {
            self.line.rule = denied.by.as_deref().map(str::to_owned);
        }
    }

    /// The client was given an answer of ours.
    pub(crate) fn refused(&mut self, cause: &Cause, answer: &Answer) {
        self.line.verdict = match cause {
            Cause::Upstream(_)
            | Cause::Dial(
                DialError::Connect { .. } | DialError::Name { .. } | DialError::TimedOut { .. },
            ) => Verdict::Failed,
            _ => Verdict::Denied,
        };
        self.line.status = Some(answer.status.as_u16());
        self.line.code = Some(answer.code.to_owned());
        self.line.reason = Some(cause.to_string());
        match cause {
            Cause::Denied(denied) => self.denied(answer.code, denied),
            Cause::Dial(DialError::Address(Refused { address, .. })) => {
                self.line.address = Some(*address);
            }
            _ => {}
        }
    }

    /// What was allowed came to another end than it should.
    pub(crate) fn broke(&mut self, code: &str) {
        self.line.verdict = Verdict::Failed;
        self.line.code = Some(code.to_owned());
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let mut line = std::mem::take(&mut self.line);
        line.bytes_up = self.moved.up.load(Ordering::Relaxed);
        line.bytes_down = self.moved.down.load(Ordering::Relaxed);
        let took = self.started.elapsed().as_millis();
        line.duration_ms = u64::try_from(took).unwrap_or(u64::MAX);
        self.audit.write(line);
    }
}

/// The longest segment that is a word of an API rather than somebody's own.
const MAX_WORD_BYTES: usize = 32;
/// Digits in a row that make a segment a number of something.
const MAX_DIGITS: usize = 4;

/// A path with `*` for each segment that looks like an identifier, so that lines can be counted and rules be drawn up,
/// and nobody's documents stand in a log.
#[must_use]
pub(crate) fn template(path: &str) -> String {
    let segments: Vec<&str> = path
        .split('/')
        .map(|segment| if is_identifier(segment) { "*" } else { segment })
        .collect();
    segments.join("/")
}

fn is_identifier(segment: &str) -> bool {
    let longest_number = segment
        .split(|c: char| !c.is_ascii_digit())
        .map(str::len)
        .max()
        .unwrap_or_default();
    let all_digits = !segment.is_empty() && segment.bytes().all(|byte| byte.is_ascii_digit());
    let is_hex = segment.len() >= 8
        && segment
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
        && segment.bytes().any(|byte| byte.is_ascii_digit());
    segment.len() > MAX_WORD_BYTES
        || longest_number > MAX_DIGITS
        || all_digits
        || is_hex
        || segment.contains(':')
        || segment.chars().any(|c| c.is_control() || c.is_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_of_a_path_become_stars_and_words_stay() {
        for (path, expected) in [
            ("/v1/chat/completions", "/v1/chat/completions"),
            ("/v1/models/gpt-4.1-mini", "/v1/models/gpt-4.1-mini"),
            ("/repos/o/r/issues/42", "/repos/o/r/issues/*"),
            ("/v1/files/file-1234567", "/v1/files/*"),
            ("/x/3f2504e0-4f89-11d3-9a0c-0305e82c3301/y", "/x/*/y"),
            ("/botopenshell:resolve:env:T/getMe", "/*/getMe"),
            ("/", "/"),
        ] {
            assert_eq!(template(path), expected, "{path}");
        }
    }
}
