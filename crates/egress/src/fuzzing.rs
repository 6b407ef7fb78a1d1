//! What the fuzzers call. The same functions run over seeds and some thousands of their mutations in the test suite, so
//! that they are known to hold before a fuzzer spends its time on them.
//!
//! Each takes anything and panics only when a promise of this crate is broken.

use crate::head::{Framing, HeadLimits, MAX_FIELDS, check};
use crate::placeholder::{find, is_marked, whole};
use crate::policy::{Asked, Policy};
use crate::target::{Authority, Path};

/// A head that passes is one that a reader who knows nothing but lines and colons takes in the same way.
///
/// # Panics
/// When that is not so.
pub fn head(bytes: &[u8]) {
    let limits = HeadLimits {
        max_bytes: 64 * 1024,
        max_fields: MAX_FIELDS,
    };
    let Ok(head) = check(bytes, limits) else {
        return;
    };
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    let lines: Vec<&str> = text.split("\r\n").collect();
    let (last, rest) = lines.split_at(lines.len().saturating_sub(2));
    assert_eq!(rest, ["", ""], "no empty line at the end, and there alone");
    let (request, fields) = last.split_first().unwrap_or((&"", &[]));
    let bare = |line: &&str| line.is_empty() || line.contains(['\r', '\n', '\0']);
    assert!(!last.iter().any(bare), "a line holds another's end");
    assert_eq!(request.starts_with("CONNECT "), head.connect, "another use");
    let values = |wanted: &str| -> Vec<&str> {
        let named = fields.iter().filter_map(|field| field.split_once(':'));
        named
            .filter(|(name, _)| name.eq_ignore_ascii_case(wanted))
            .map(|(_, value)| value.trim_matches([' ', '\t']))
            .collect()
    };
    let framing = match (
        &values("transfer-encoding")[..],
        &values("content-length")[..],
    ) {
        ([], []) => Framing::Length(0),
        ([], [length]) => Framing::Length(length.parse().unwrap_or(u64::MAX)),
        ([coding], []) if coding.eq_ignore_ascii_case("chunked") => Framing::Chunked,
        (codings, lengths) => unreachable!("two bodies pass: {codings:?} {lengths:?}"),
    };
    assert_eq!(framing, head.framing, "another body");
    assert!(values("host").len() <= 1, "two hosts pass");
}

/// Placeholders lie within the text, one after the other, and are placeholders as a whole; a text with any is marked.
///
/// # Panics
/// When that is not so.
pub fn placeholder(text: &str) {
    let mut last = 0;
    for found in find(text) {
        assert!(found.at.start >= last, "they overlap");
        assert!(is_marked(text.as_bytes()), "found in what is not marked");
        assert_eq!(whole(&text[found.at.clone()]), Some(found.key));
        last = found.at.end;
    }
    if let Some(key) = whole(text) {
        let found: Vec<&str> = find(text).map(|found| found.key).collect();
        assert_eq!(found, [key], "whole, and not found");
    }
}

/// Any text is a policy or is refused; whatever it allows a request to do, it lets it connect for. The first line is a
/// machine, the second a path, and the rest the policy.
///
/// # Panics
/// When that is not so.
pub fn policy(text: &str) {
    let mut parts = text.splitn(3, '\n');
    let mut part = || parts.next().unwrap_or_default();
    let (authority, path, policy) = (part(), part(), part());
    let Ok(policy) = Policy::load(policy) else {
        return;
    };
    let (Ok(to), Ok(path)) = (Authority::parse(authority, Some(443)), Path::parse(path)) else {
        return;
    };
    let asked = Asked {
        method: "GET",
        path: &path,
        query: None,
    };
    if policy.request(&to, asked).is_ok() {
        assert!(policy.connect(&to).is_ok(), "allowed, and not reached");
    }
    let _explained = policy.explain(&to, asked);
}
