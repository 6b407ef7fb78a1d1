//! Keys that a destination says back, replaced by the placeholders that stood for them.
//!
//! In: a reply to a request that keys were put into. Out: the same, with each spelling of such a key replaced by what the
//! client had written: a server that answers with what it was sent, as many do for tests and in errors, gives no key away.
//!
//! Invariants:
//! * Where reads fell makes no difference.
//! * Bytes are held only while they may be the beginning of a key, and no longer than that.
//! * The longest spelling that fits counts, the first one first.
//!
//! Not here: a key that is said back in another coding (compressed, encrypted, in pieces), or a short one, which may well
//! be a word. A key goes to its provider alone, and what that makes of it is for the provider to answer for.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use zeroize::Zeroizing;

/// The keys of one request, and what to say in their place.
#[derive(Clone, Default)]
pub(crate) struct Masks {
    /// The longest first.
    keys: Vec<(Zeroizing<Vec<u8>>, Vec<u8>)>,
}

/// One body on its way.
pub(crate) struct Masking {
    masks: Arc<Masks>,
    /// What may be the beginning of a key.
    held: Vec<u8>,
}

/// What may be at a place.
enum At {
    /// A key, and how long it is.
    Key(usize, usize),
    /// A key that is cut off.
    Beginning,
    Other,
}

/// What is shorter is not masked: replies would be full of it.
const MIN_KEY_BYTES: usize = 8;
/// Bodies of other types are not text, or count their own bytes.
const TEXT: [&str; 9] = [
    "application/graphql-response",
    "application/javascript",
    "application/json",
    "application/ld",
    "application/ndjson",
    "application/problem",
    "application/x-ndjson",
    "application/x-www-form-urlencoded",
    "application/xml",
];

// === impl Masks ===

impl Masks {
    /// Has `key` said as `instead`.
    pub(crate) fn add(&mut self, key: &str, instead: &str) {
        let known = |(known, _): &(Zeroizing<Vec<u8>>, Vec<u8>)| known.as_slice() == key.as_bytes();
        if key.len() < MIN_KEY_BYTES || key == instead || self.keys.iter().any(known) {
            return;
        }
        let at = self
            .keys
            .partition_point(|(other, _)| other.len() >= key.len());
        let key = Zeroizing::new(key.as_bytes().to_vec());
        self.keys.insert(at, (key, instead.as_bytes().to_vec()));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Masks what fields say.
    pub(crate) fn headers(&self, headers: &mut HeaderMap) {
        if self.is_empty() {
            return;
        }
        for value in headers.values_mut() {
            let mut masked = Vec::new();
            self.whole(value.as_bytes(), &mut masked);
            if masked != value.as_bytes()
                && let Ok(masked) = HeaderValue::from_bytes(&masked)
            {
                *value = masked; // keys and placeholders of fields are visible characters
            }
        }
    }

    /// What masks a reply's body, if it is one that can be.
    pub(crate) fn of_body(self: &Arc<Self>, head: &HeaderMap) -> Option<Masking> {
        let identity = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"identity");
        let is_plain = head.get_all(CONTENT_ENCODING).iter().all(identity);
        (!self.is_empty() && is_plain && is_text(head)).then(|| Masking {
            masks: Arc::clone(self),
            held: Vec::new(),
        })
    }

    fn whole(&self, bytes: &[u8], out: &mut Vec<u8>) {
        let undecided = self.run(bytes, true, out);
        debug_assert_eq!(undecided, bytes.len(), "nothing is held at the end");
    }

    /// Masks as much as can be decided of `bytes`; how much that is.
    fn run(&self, bytes: &[u8], is_last: bool, out: &mut Vec<u8>) -> usize {
        let mut copied = 0;
        let mut at = 0;
        while at < bytes.len() {
            match self.at(&bytes[at..], is_last) {
                At::Key(index, length) => {
                    out.extend_from_slice(&bytes[copied..at]);
                    out.extend_from_slice(&self.keys[index].1);
                    at += length;
                    copied = at;
                }
                At::Beginning => break,
                At::Other => at += 1 + self.next(&bytes[at + 1..]),
            }
        }
        out.extend_from_slice(&bytes[copied..at]);
        at
    }

    fn at(&self, bytes: &[u8], is_last: bool) -> At {
        for (index, (key, _)) in self.keys.iter().enumerate() {
            if bytes.starts_with(key) {
                return At::Key(index, key.len());
            }
            if !is_last && key.starts_with(bytes) {
                return At::Beginning;
            }
        }
        At::Other
    }

    /// How far it is to the next byte that any key begins with.
    fn next(&self, bytes: &[u8]) -> usize {
        let nearest = self
            .keys
            .iter()
            .filter_map(|(key, _)| memchr::memchr(key[0], bytes))
            .min();
        nearest.unwrap_or(bytes.len())
    }
}

fn is_text(head: &HeaderMap) -> bool {
    let Some(kind) = head.get(CONTENT_TYPE) else {
        return true;
    };
    let kind = kind.to_str().unwrap_or_default().to_ascii_lowercase();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.starts_with("text/")
        || kind.ends_with("+json")
        || kind.ends_with("+xml")
        || TEXT.contains(&kind)
}

impl fmt::Debug for Masks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Masks").field(&self.keys.len()).finish()
    }
}

// === impl Masking ===

impl Masking {
    /// What can be said of the body so far. Empty if that has to wait for more.
    pub(crate) fn push(&mut self, more: Bytes) -> Bytes {
        if self.held.is_empty() && self.masks.next(&more) == more.len() {
            return more; // nothing begins here
        }
        self.said(&more, false)
    }

    /// What is left at the body's end.
    pub(crate) fn end(&mut self) -> Bytes {
        self.said(&[], true)
    }

    pub(crate) fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    fn said(&mut self, more: &[u8], is_last: bool) -> Bytes {
        let mut bytes = std::mem::take(&mut self.held);
        bytes.extend_from_slice(more);
        let bytes = Zeroizing::new(bytes);
        let mut out = Vec::with_capacity(bytes.len());
        let decided = self.masks.run(&bytes, is_last, &mut out);
        self.held = bytes[decided..].to_vec();
        out.into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn masks(keys: &[(&str, &str)]) -> Arc<Masks> {
        let mut masks = Masks::default();
        for (key, instead) in keys {
            masks.add(key, instead);
        }
        Arc::new(masks)
    }

    fn masked(masks: &Arc<Masks>, reads: &[&[u8]]) -> String {
        let mut masking = masks.of_body(&HeaderMap::new()).unwrap();
        let mut out = Vec::new();
        for read in reads {
            out.extend_from_slice(&masking.push(Bytes::copy_from_slice(read)));
        }
        out.extend_from_slice(&masking.end());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_key_is_said_as_its_placeholder_wherever_reads_fall() {
        let masks = masks(&[("sk-canary-1", "<one>"), ("sk-canary-12345", "<long>")]);
        let body = b"a sk-canary-1 b sk-canary-12345 sk-canary-1234 sk-sk-canary-1sk-canary- sk-";
        let expected = "a <one> b <long> <one>234 sk-<one>sk-canary- sk-";
        for first in 0..body.len() {
            for second in first..body.len() {
                let reads = [&body[..first], &body[first..second], &body[second..]];
                assert_eq!(masked(&masks, &reads), expected, "{first} {second}");
            }
        }
    }

    #[test]
    fn only_what_may_be_a_key_is_held() {
        let masks = masks(&[("sk-canary-1", "<one>")]);
        let mut masking = masks.of_body(&HeaderMap::new()).unwrap();
        assert_eq!(masking.push("data: ask\n\n".into()), "data: ask\n\n");
        assert_eq!(masking.push("data: s".into()), "data: ");
        assert_eq!(masking.push("k-c".into()), "");
        assert!(masking.holds());
        assert_eq!(masking.push("at\n".into()), "sk-cat\n");
        assert!(!masking.holds());
    }

    #[test]
    fn short_keys_codings_and_bytes_that_are_no_text_are_left_alone() {
        assert!(masks(&[("short", "<x>")]).is_empty());
        let masks = masks(&[("sk-canary-1", "<one>")]);
        let head = |name, value: &'static str| {
            HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
        };
        for text in [
            "application/json; charset=utf-8",
            "text/event-stream",
            "application/a+json",
        ] {
            assert!(masks.of_body(&head(CONTENT_TYPE, text)).is_some(), "{text}");
        }
        for other in ["application/grpc", "image/png", "application/octet-stream"] {
            assert!(
                masks.of_body(&head(CONTENT_TYPE, other)).is_none(),
                "{other}"
            );
        }
        assert!(masks.of_body(&head(CONTENT_ENCODING, "gzip")).is_none());
        assert!(masks.of_body(&head(CONTENT_ENCODING, "identity")).is_some());
        assert!(!format!("{masks:?}").contains("canary"));
    }

    #[test]
    fn fields_are_masked_too() {
        let masks = masks(&[("sk-canary-1", "farrier:resolve:env:KEY")]);
        let mut head = HeaderMap::new();
        head.insert("location", "/?key=sk-canary-1&x".parse().unwrap());
        head.insert("x-other", "other".parse().unwrap());
        masks.headers(&mut head);
        assert_eq!(head["location"], "/?key=farrier:resolve:env:KEY&x");
        assert_eq!(head["x-other"], "other");
    }

    proptest! {
        #[test]
        fn any_split_says_the_same_and_never_the_key(
            body in "[ab]{0,60}", first in "[ab]{8,12}", second in "[ab]{8,12}",
            cuts in proptest::collection::vec(0_usize..60, 0..6)
        ) {
            let masks = masks(&[(&first, "<1>"), (&second, "<2>")]);
            let whole = masked(&masks, &[body.as_bytes()]);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(body.len())).collect();
            cuts.push(0);
            cuts.push(body.len());
            cuts.sort_unstable();
            let reads: Vec<&[u8]> = cuts
                .windows(2)
                .map(|cut| &body.as_bytes()[cut[0]..cut[1]])
                .collect();
            prop_assert_eq!(&masked(&masks, &reads), &whole);
            prop_assert!(!whole.contains(&first) && !whole.contains(&second));
        }
    }
}
