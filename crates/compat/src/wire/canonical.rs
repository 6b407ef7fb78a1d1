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

use serde_json::Value;

/// Sixteen bytes that stand for arguments, a text or a context.
pub type Digest = [u8; 16];

/// The digest of an argument text, whatever its spelling.
///
/// Text that is not JSON stands for itself, without surrounding white space.
pub fn arguments(text: &str) -> Digest {
    let mut hasher = blake3::Hasher::new();
    let trimmed = text.trim();
    if trimmed.is_empty() {
        hasher.update(b"json{}");
        return finish(&hasher);
    }
    match serde_json::from_str::<Value>(trimmed) {
        Ok(value) => {
            hasher.update(b"json");
            write(&value, &mut hasher);
        }
        Err(_) => {
            hasher.update(b"text");
            hasher.update(trimmed.as_bytes());
        }
    }
    finish(&hasher)
}

/// The digest of `parts`, each with its length, so that no two lists agree by
/// moving a border.
pub fn parts(kind: &str, parts: &[&[u8]]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(kind.as_bytes());
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    finish(&hasher)
}

fn finish(hasher: &blake3::Hasher) -> Digest {
    let mut digest = Digest::default();
    hasher.finalize_xof().fill(&mut digest);
    digest
}

/// Keys sorted (`serde_json::Map` is), numbers as doubles, strings with a length.
fn write(value: &Value, out: &mut blake3::Hasher) {
    match value {
        Value::Null => drop(out.update(b"n")),
        Value::Bool(true) => drop(out.update(b"t")),
        Value::Bool(false) => drop(out.update(b"f")),
        Value::Number(number) => {
            // -0.0 and 0 are one number to every client that re-serialises.
            let double = number.as_f64().unwrap_or_default() + 0.0;
            out.update(b"d").update(&double.to_bits().to_le_bytes());
        }
        Value::String(text) => write_text(text, out),
        Value::Array(items) => {
            out.update(b"[");
            for item in items {
                write(item, out);
            }
            out.update(b"]");
        }
        Value::Object(fields) => {
            out.update(b"{");
            for (key, value) in fields {
                write_text(key, out);
                write(value, out);
            }
            out.update(b"}");
        }
    }
}

fn write_text(text: &str, out: &mut blake3::Hasher) {
    out.update(b"s").update(&(text.len() as u64).to_le_bytes());
    out.update(text.as_bytes());
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
