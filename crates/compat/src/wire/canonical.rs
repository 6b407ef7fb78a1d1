//! Tool-call arguments in a form that survives re-serialisation.
//!
//! Nine of the clients measured parse the arguments and write them again: white
//! space goes, keys move, `1.0` becomes `1`, a twenty-digit integer is rounded to
//! the nearest double. Two argument texts are *the same arguments* when their
//! canonical digests agree:
//!
//! ```text
//! {"command": "echo", "n": 1.0}   →  {"command":"echo","n":1}   same
//! ""                              →  {}                         same (a call without arguments)
//! {"command":"echo "}             →                             different
//! ```

use tree::Tree;

mod tree;

/// Sixteen bytes that stand for arguments, a text or a context.
pub type Digest = [u8; 16];

/// The digest of an argument text, whatever its spelling.
///
/// Text that is not JSON stands for itself, without surrounding white space.
pub fn arguments(text: &str) -> Digest {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return digest(b"json{}");
    }
    let mut canonical = Vec::with_capacity(trimmed.len() + 64);
    match serde_json::from_str::<Tree<'_>>(trimmed) {
        Ok(value) => {
            canonical.extend_from_slice(b"json");
            write(&value, &mut canonical);
        }
        Err(_) => {
            canonical.extend_from_slice(b"text");
            canonical.extend_from_slice(trimmed.as_bytes());
        }
    }
    digest(&canonical)
}

/// The digest of `parts`, each with its length, so that no two lists agree by
/// moving a border.
pub fn parts(kind: &str, parts: &[&[u8]]) -> Digest {
    let length: usize = parts.iter().map(|part| 8 + part.len()).sum();
    let mut all = Vec::with_capacity(kind.len() + length);
    all.extend_from_slice(kind.as_bytes());
    for part in parts {
        all.extend_from_slice(&(part.len() as u64).to_le_bytes());
        all.extend_from_slice(part);
    }
    digest(&all)
}

/// Two digests of `bytes` that have nothing to do with each other, at the price of one.
pub fn two(bytes: &[u8]) -> (Digest, Digest) {
    let hash = blake3::hash(bytes);
    let halves = hash.as_bytes().as_chunks::<16>().0;
    let half = |n: usize| halves.get(n).copied().unwrap_or_default();
    (half(0), half(1))
}

/// All at once: hashing piece by piece costs more than what is hashed, when that is short.
fn digest(bytes: &[u8]) -> Digest {
    let hash = blake3::hash(bytes);
    hash.as_bytes().first_chunk().copied().unwrap_or_default()
}

/// Keys in their order, numbers as doubles, strings with a length.
fn write(value: &Tree<'_>, out: &mut Vec<u8>) {
    match value {
        Tree::Null => out.push(b'n'),
        Tree::Bool(true) => out.push(b't'),
        Tree::Bool(false) => out.push(b'f'),
        Tree::Number(number) => {
            out.push(b'd');
            // -0.0 and 0 are one number to every client that re-serialises.
            out.extend_from_slice(&(number + 0.0).to_bits().to_le_bytes());
        }
        Tree::Text(text) => write_text(text, out),
        Tree::List(items) => {
            out.push(b'[');
            items.iter().for_each(|item| write(item, out));
            out.push(b']');
        }
        Tree::Object(fields) => {
            out.push(b'{');
            for (key, value) in fields {
                write_text(key, out);
                write(value, out);
            }
            out.push(b'}');
        }
    }
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    out.push(b's');
    out.extend_from_slice(&(text.len() as u64).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn respelt_arguments_are_the_same() {
        let same = [
            (
                r#"{"command": "echo round-0"}"#,
                r#"{"command":"echo round-0"}"#,
            ),
            (r#"{"a":1,"b":2}"#, r#"{"b":2,"a":1}"#),
            (r#"{"a":[{"c":0}],"b":2,"a":1}"#, r#"{"b":2,"a":1}"#),
            (r#"{"n":1.0}"#, r#"{"n":1}"#),
            (r#"{"n":1e3}"#, r#"{"n":1000}"#),
            (r#"{"n":-0.0}"#, r#"{"n":0}"#),
            (
                r#"{"n":12345678901234567890}"#,
                r#"{"n":12345678901234567000}"#,
            ),
            (r#"{"e":"\u00e9\/"}"#, "{\"e\":\"\u{e9}/\"}"),
            ("", "{}"),
            (" ", "{}"),
            ("not json", " not json\n"),
        ];
        for (left, right) in same {
            assert_eq!(arguments(left), arguments(right), "{left} {right}");
        }
    }

    #[test]
    fn different_arguments_differ() {
        let all = [
            "{}",
            "null",
            "[]",
            "\"{}\"",
            r#"{"a":"b"}"#,
            r#"{"a":"b "}"#,
            r#"{"a":["b"]}"#,
            r#"{"a":1}"#,
            r#"{"a":"1"}"#,
            r#"{"a":true}"#,
            r#"{"a":null}"#,
            r#"{"ab":""}"#,
            r#"{"a":"","b":""}"#,
            "[[],[]]",
            "[[[]]]",
            "not json",
            "not  json",
        ];
        for (i, left) in all.iter().enumerate() {
            for right in all.iter().skip(i + 1) {
                assert_ne!(arguments(left), arguments(right), "{left} {right}");
            }
        }
    }

    #[test]
    fn digests_are_those_that_stored_turns_were_given() {
        let hex = |digest: Digest| -> String {
            digest.iter().map(|byte| format!("{byte:02x}")).collect()
        };
        let got = [
            arguments(""),
            arguments(r#"{"b":[1.5,null,true],"a":{"x":"\u00e9"}}"#),
            arguments("ls -l"),
            parts("call", &[b"ab", b"c"]),
        ];
        assert_eq!(
            got.map(hex),
            [
                "b029fb269484bb3450c144b9166a1a50",
                "fc94c8cd6b683131b313590e6f97b2c7",
                "fd73cbf04a1208d2f400896fae1139d0",
                "0077b0de956367bd1da6b9c969e41e62",
            ]
        );
    }

    #[test]
    fn parts_do_not_run_together() {
        assert_ne!(parts("k", &[b"ab", b"c"]), parts("k", &[b"a", b"bc"]));
        assert_ne!(parts("k", &[b"ab"]), parts("l", &[b"ab"]));
    }

    proptest! {
        #[test]
        fn pretty_printing_changes_nothing(map in proptest::collection::btree_map("[a-d]", ".*", 0..5)) {
            let compact = serde_json::to_string(&map).expect("a map of strings");
            let pretty = serde_json::to_string_pretty(&map).expect("a map of strings");
            prop_assert_eq!(arguments(&compact), arguments(&pretty));
        }
    }
}
