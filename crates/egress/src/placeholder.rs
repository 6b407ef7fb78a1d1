//! Strings that stand for a secret inside a sandbox, found where a client may put them.
//!
//! ```text
//! farrier:resolve:env:NAME            whole value, or after a scheme: Bearer farrier:resolve:env:NAME
//! openshell:resolve:env:NAME          the same, as OpenShell writes it
//! openshell:resolve:env:v7_NAME       the same, with the revision it once had, or s<64 hex digits>_
//! xoxb-OPENSHELL-RESOLVE-ENV-NAME     for libraries that look at the first letters of a token
//! ```
//!
//! A name ends where letters, digits and underscores do. Before an alias stands the prefix that its library wants, up to
//! anything that no token has. This module knows nothing of secrets; it says where a name stands, and what is a
//! placeholder as a whole.

use std::ops::Range;

use memchr::memmem;

/// A placeholder within a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found<'t> {
    /// Where it stands.
    pub at: Range<usize>,
    /// What it asks for, revision included.
    pub key: &'t str,
}

const CANONICAL: [&str; 2] = ["farrier:resolve:env:", "openshell:resolve:env:"];
const ALIAS: &str = "-OPENSHELL-RESOLVE-ENV-";

/// Whether a text may hold a placeholder: all that is looked for in what mostly holds none.
#[must_use]
pub fn is_marked(text: &[u8]) -> bool {
    memmem::find(text, b":resolve:env:").is_some_and(|_| {
        CANONICAL
            .iter()
            .any(|marker| memmem::find(text, marker.as_bytes()).is_some())
    }) || memmem::find(text, ALIAS.as_bytes()).is_some()
}

/// The key that a text asks for, if it is a placeholder from its first to its last letter.
#[must_use]
pub fn whole(text: &str) -> Option<&str> {
    let found = first(text)?;
    (found.at == (0..text.len())).then_some(found.key)
}

/// Every placeholder of a text, from left to right.
pub fn find(text: &str) -> impl Iterator<Item = Found<'_>> {
    let mut from = 0;
    std::iter::from_fn(move || {
        let found = first(&text[from..])?;
        let at = from + found.at.start..from + found.at.end;
        from = at.end;
        Some(Found { at, key: found.key })
    })
}

/// The leftmost placeholder. A marker without a name after it is none.
fn first(text: &str) -> Option<Found<'_>> {
    let canonical = CANONICAL.iter().flat_map(|marker| {
        text.match_indices(marker)
            .filter_map(move |(start, marker)| named(text, start, start + marker.len()))
    });
    let alias = text.match_indices(ALIAS).filter_map(|(marker, _)| {
        let start = prefix(text, marker)?;
        named(text, start, marker + ALIAS.len())
    });
    canonical.chain(alias).min_by_key(|found| found.at.start)
}

fn named(text: &str, start: usize, name: usize) -> Option<Found<'_>> {
    let length = text[name..]
        .bytes()
        .take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
        .count();
    let end = name + length;
    (length > 0).then(|| Found {
        at: start..end,
        key: &text[name..end],
    })
}

/// Where the letters before an alias begin; an alias without any is none.
fn prefix(text: &str, marker: usize) -> Option<usize> {
    let letters = text[..marker]
        .bytes()
        .rev()
        .take_while(|byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'~' | b'-')
        })
        .count();
    (letters > 0).then(|| marker - letters)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Vec<&str> {
        find(text).map(|found| found.key).collect()
    }

    #[test]
    fn all_four_spellings_are_found() {
        let handle = format!("openshell:resolve:env:s{}_K", "a0".repeat(32));
        for (text, key) in [
            ("farrier:resolve:env:OPENAI_API_KEY", "OPENAI_API_KEY"),
            ("openshell:resolve:env:OPENAI_API_KEY", "OPENAI_API_KEY"),
            (
                "openshell:resolve:env:v12_OPENAI_API_KEY",
                "v12_OPENAI_API_KEY",
            ),
            (
                "xoxb-OPENSHELL-RESOLVE-ENV-SLACK_BOT_TOKEN",
                "SLACK_BOT_TOKEN",
            ),
            (
                "xapp-1-OPENSHELL-RESOLVE-ENV-SLACK_APP_TOKEN",
                "SLACK_APP_TOKEN",
            ),
            (&handle, &handle[22..]),
        ] {
            assert_eq!(whole(text), Some(key), "{text}");
            assert!(is_marked(text.as_bytes()));
        }
    }

    #[test]
    fn what_is_more_or_less_than_a_placeholder_is_none_as_a_whole() {
        for text in [
            "",
            "openshell:resolve:env:",
            "openshell:resolve:env:-A",
            "openshell:resolve:env:KEY ",
            " openshell:resolve:env:KEY",
            "openshell:resolve:env:KEY-1",
            "openshell:resolve:env:KEY.A",
            "xopenshell:resolve:env:KEY",
            "OPENSHELL:resolve:env:KEY",
            "openshell:resolve:file:KEY",
            "-OPENSHELL-RESOLVE-ENV-KEY",
            "xoxb-OPENSHELL-RESOLVE-ENV-",
            "xoxb-openshell-resolve-env-KEY",
            "a b-OPENSHELL-RESOLVE-ENV-KEY",
            "openshell:resolve:env:A,openshell:resolve:env:B",
        ] {
            assert_eq!(whole(text), None, "{text:?}");
        }
    }

    #[test]
    fn placeholders_within_a_text_are_found_with_their_bounds() {
        let text =
            "/botopenshell:resolve:env:T/x/xoxb-OPENSHELL-RESOLVE-ENV-S?farrier:resolve:env:";
        let found: Vec<_> = find(text).collect();
        assert_eq!(found.len(), 2);
        assert_eq!(&text[found[0].at.clone()], "openshell:resolve:env:T");
        assert_eq!(&text[found[1].at.clone()], "xoxb-OPENSHELL-RESOLVE-ENV-S");
        assert_eq!(
            keys("openshell:resolve:env:A,openshell:resolve:env:B"),
            ["A", "B"]
        );
        assert_eq!(keys("nothing here"), Vec::<&str>::new());
        assert!(!is_marked(b"nothing:resolve:env: here"));
        assert!(is_marked(b"openshell:resolve:env:")); // a marker, though no placeholder
    }

    proptest::proptest! {
        #[test]
        fn bounds_are_those_of_the_text_and_do_not_overlap(text in "(openshell:resolve:env:|-OPENSHELL-RESOLVE-ENV-|A|x-|é| ){0,12}") {
            let mut last = 0;
            for found in find(&text) {
                proptest::prop_assert!(found.at.start >= last && text.get(found.at.clone()).is_some());
                last = found.at.end;
            }
        }
    }
}
