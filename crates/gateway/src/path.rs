//! A request's path in, what it names out.
//!
//! Servers differ in how often they decode a path, and in what they take for a separator. If the provider's read more
//! into a path than we do, it could climb out of `/v1`, or reach a chat completion past its plan, both with the
//! credential. So every decision is made on the plainest form that any server may arrive at:
//!
//! ```text
//! /v1//chat/completions/      v1/chat/completions
//! /v1/embe%64dings;a=1        v1/embeddings
//! /v1/x%252f..%5cadmin        none
//! ```
//!
//! What goes on to the provider is the path as it was written, without its empty segments.

use http::Uri;

/// The segments that `path` names, joined by slashes; none if one of them is a dot segment, or no text.
///
/// Percent escapes are undone until there is none left, `\` parts segments like `/`, a segment ends at its parameters,
/// and empty ones do not count.
pub(crate) fn plain(path: &str) -> Option<String> {
    let decoded = String::from_utf8(decoded(path)).ok()?;
    if decoded.contains(char::is_control) {
        return None; // some servers end a path at a NUL
    }
    let mut plain = String::with_capacity(decoded.len());
    for segment in decoded.split(['/', '\\']) {
        let name = segment.split([';', '?', '#']).next().unwrap_or_default();
        let name = name.trim();
        match name {
            "" => continue,
            "." | ".." => return None,
            _ if plain.is_empty() => {}
            _ => plain.push('/'),
        }
        plain.push_str(name);
    }
    Some(plain)
}

/// What stands after the first segment of a path, query included, as it was written but for empty segments; none if
/// that segment is not written `first`.
pub(crate) fn below(uri: &Uri, first: &str) -> Option<String> {
    let mut segments = uri.path().split('/').filter(|segment| !segment.is_empty());
    if segments.next() != Some(first) {
        return None;
    }
    let mut rest = String::with_capacity(uri.path().len());
    for segment in segments {
        rest.push('/');
        rest.push_str(segment);
    }
    if let Some(query) = uri.query() {
        rest.push('?');
        rest.push_str(query);
    }
    Some(rest)
}

/// Escapes undone, those of escapes too. Each byte is looked at once, however deep they are nested.
fn decoded(path: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(path.len());
    for byte in path.bytes() {
        bytes.push(byte);
        // Undoing an escape can complete the one that its sign is a part of.
        while let [.., b'%', high, low] = bytes[..] {
            let (Some(high), Some(low)) = (hex(high), hex(low)) else {
                break;
            };
            bytes.truncate(bytes.len() - 3);
            bytes.push(high << 4 | low);
        }
    }
    bytes
}

fn hex(digit: u8) -> Option<u8> {
    let value = char::from(digit).to_digit(16)?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn however_it_is_written_a_path_names_the_same() {
        for (path, expected) in [
            ("/v1/chat/completions", "v1/chat/completions"),
            ("//v1///chat//completions//", "v1/chat/completions"),
            ("/v1/ch%61t%2Fcompletions", "v1/chat/completions"),
            ("/v1/ch%2561t%5ccompletions", "v1/chat/completions"),
            ("/v1/chat;a=1/completions;b", "v1/chat/completions"),
            ("/v1/models/a%2Fb%20c%zz%", "v1/models/a/b c%zz%"),
            ("/v1/x/...", "v1/x/..."),
            ("/", ""),
        ] {
            assert_eq!(plain(path).as_deref(), Some(expected), "{path}");
        }
    }

    #[test]
    fn a_dot_segment_is_refused_in_every_disguise() {
        for path in [
            "/v1/../x",
            "/v1/a/%2E%2e/%2e./x",
            "/v1/%2e/x",
            "/v1/..%2f..%2fadmin",
            "/v1/x%2f..%2f..%2fadmin",
            "/v1/..%5c..%5cadmin",
            "/v1/..;/admin",
            "/v1/..;a=b",
            "/v1/..%3b/admin",
            "/v1/..%3fx",
            "/v1/..%20/admin",
            "/v1/%252e%252e/admin",
            "/v1/%25%32%65%2525252e/admin",
            "/v1/x%252f..%255cadmin",
            "/v1/%2%65%%32e/admin",
            "/v1/..%00/admin",
            "/v1/%c0%ae%c0%ae/admin",
        ] {
            assert_eq!(plain(path), None, "{path}");
        }
    }

    #[test]
    fn the_rest_of_a_path_is_kept_as_it_was_written() {
        let below = |uri: &str| below(&uri.parse().unwrap(), "v1");
        assert_eq!(below("/v1/x/y?z=1").as_deref(), Some("/x/y?z=1"));
        assert_eq!(below("//v1//x%2Fy//?//").as_deref(), Some("/x%2Fy?//"));
        assert_eq!(below("/%761/x"), None);
        assert_eq!(below("/v1%2fx/y"), None);
    }

    proptest! {
        #[test]
        fn decoding_once_more_finds_nothing(path in "(%|2|5|e|f|c|/|\\.){0,40}") {
            let once = decoded(&path);
            if let Ok(text) = String::from_utf8(once.clone()) {
                prop_assert_eq!(decoded(&text), once);
            }
        }

        #[test]
        fn no_number_of_decodings_makes_a_dot_segment(path in "(%|2|5|e|f|c|/|;|\\.){0,40}") {
            let found = |path: &str| path.split(['/', '\\']).any(|segment| {
                matches!(segment.split(';').next(), Some("." | ".."))
            });
            let mut text = path.clone();
            for _ in 0..20 {
                prop_assert!(!found(&text) || plain(&path).is_none(), "{text}");
                match String::from_utf8(decoded_once(&text)) {
                    Ok(next) => text = next,
                    Err(_) => break,
                }
            }
        }
    }

    /// As a server does it.
    fn decoded_once(path: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut rest = path.as_bytes();
        while let [first, tail @ ..] = rest {
            let escaped = match rest {
                [b'%', high, low, ..] => hex(*high).zip(hex(*low)),
                _ => None,
            };
            bytes.push(escaped.map_or(*first, |(high, low)| high << 4 | low));
            rest = if escaped.is_some() { &tail[2..] } else { tail };
        }
        bytes
    }
}
