//! Strings that stand for a secret, and the keys under which secrets are kept.
//!
//! A configuration holds references alone: whoever reads the file learns the name
//! of a secret and not the secret.

use crate::document::Document;

/// Written where a key is wanted and the gateway asks for none.
pub(crate) const UNUSED: &str = "unused";

/// Beginnings of placeholders that the egress proxy resolves, before a variable's name.
const RESOLVED_OUTSIDE: &[&str] = &["farrier:resolve:env:", "openshell:resolve:env:"];

/// Beginnings of those for services that check what a token looks like.
const SHAPED: &[&str] = &["xapp-OPENSHELL-RESOLVE-ENV-", "xoxb-OPENSHELL-RESOLVE-ENV-"];

/// What is shown in place of what may be a secret.
const HIDDEN: &str = "<hidden>";

/// The placeholder for a variable.
pub(crate) fn for_variable(name: &str) -> String {
    format!("openshell:resolve:env:{name}")
}

/// Whether a text refers to a secret, or says that there is none.
pub(crate) fn is_reference(text: &str) -> bool {
    let named = RESOLVED_OUTSIDE.iter().chain(SHAPED);
    let braced = text
        .strip_prefix("${")
        .and_then(|text| text.strip_suffix('}'));
    text == UNUSED
        || named
            .filter_map(|prefix| text.strip_prefix(prefix))
            .chain(braced)
            .any(is_variable_name)
}

/// Letters, digits and `_`, not beginning with a digit.
pub(crate) fn is_variable_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Whether a value under this key may be a secret.
pub(crate) fn is_secret_key(key: &str) -> bool {
    let key: String = key
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect();
    let ends = [
        "key",
        "token",
        "secret",
        "password",
        "passwd",
        "passphrase",
        "credential",
    ];
    let holds = ["apikey", "authorization", "privatekey", "cookie"];
    ends.iter()
        .any(|end| key.ends_with(end) || key.ends_with(&format!("{end}s")))
        || holds.iter().any(|part| key.contains(part))
}

/// The document with everything hidden that may be a secret, for people to see.
pub(crate) fn masked(document: &Document) -> Document {
    match document {
        Document::Object(fields) => Document::object(fields.iter().map(|(key, value)| {
            let secret = is_secret_key(key);
            (key, if secret { hidden(value) } else { masked(value) })
        })),
        Document::List(items) => Document::List(items.iter().map(masked).collect()),
        Document::Text(text) => Document::Text(masked_text(text)),
        other => other.clone(),
    }
}

/// Any text below a key for secrets, references excepted.
fn hidden(value: &Document) -> Document {
    match value {
        Document::Text(text) if text.is_empty() || is_reference(text) => value.clone(),
        Document::Text(_) => HIDDEN.into(),
        Document::Object(fields) => {
            Document::object(fields.iter().map(|(key, value)| (key, hidden(value))))
        }
        Document::List(items) => Document::List(items.iter().map(hidden).collect()),
        other => other.clone(),
    }
}

/// A text without the user and password of a URL.
fn masked_text(text: &str) -> String {
    let parts = text.split_once("://").and_then(|(scheme, rest)| {
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, after) = rest.split_at_checked(end)?;
        let (_user, host) = authority.rsplit_once('@')?;
        Some(format!("{scheme}://{HIDDEN}@{host}{after}"))
    });
    parts.unwrap_or_else(|| text.to_owned())
}

/// Where under `document` a key for secrets holds something else than a reference.
pub(crate) fn plain_secrets(document: &Document) -> Vec<String> {
    let mut found = Vec::new();
    collect(document, "", false, &mut found);
    found
}

fn collect(document: &Document, at: &str, secret: bool, found: &mut Vec<String>) {
    match document {
        Document::Object(fields) => {
            for (key, value) in fields {
                let at = if at.is_empty() {
                    key.clone()
                } else {
                    format!("{at}.{key}")
                };
                collect(value, &at, secret || is_secret_key(key), found);
            }
        }
        Document::List(items) => {
            for (index, item) in items.iter().enumerate() {
                collect(item, &format!("{at}[{index}]"), secret, found);
            }
        }
        Document::Text(text) if secret && !text.is_empty() && !is_reference(text) => {
            found.push(at.to_owned());
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_told_from_secrets() {
        for reference in [
            "unused",
            "farrier:resolve:env:KIMI_KEY",
            "openshell:resolve:env:BRAVE_API_KEY",
            "openshell:resolve:env:v3_BRAVE_API_KEY",
            "xoxb-OPENSHELL-RESOLVE-ENV-SLACK_BOT_TOKEN",
            "${KIMI_KEY}",
        ] {
            assert!(is_reference(reference), "{reference}");
        }
        for secret in [
            "sk-abc",
            "openshell:resolve:env:",
            "openshell:resolve:env:A\nB",
            "openshell:resolve:env:A B",
            "${}",
            "${A:-sk-abc}",
            "x openshell:resolve:env:A",
        ] {
            assert!(!is_reference(secret), "{secret}");
        }
    }

    #[test]
    fn what_may_be_a_secret_is_hidden_wherever_it_stands() {
        let document = Document::from_json(
            r#"{"gateway":{"auth":{"token":"abc","mode":"token"}},"a":[{"botToken":{"value":"abc"}}],
                "proxyUrl":"http://u:abc@h:1/x","apiKey":"unused","maxTokens":5,"url":"http://h/a@b"}"#,
        )
        .expect("JSON");
        let shown = masked(&document).to_json();
        assert!(!shown.contains("abc"), "{shown}");
        assert!(
            shown.contains(r#""proxyUrl": "http://<hidden>@h:1/x""#),
            "{shown}"
        );
        for kept in [
            r#""unused""#,
            r#""maxTokens": 5"#,
            r#""mode": "token""#,
            "http://h/a@b",
        ] {
            assert!(shown.contains(kept), "{kept}: {shown}");
        }
    }

    #[test]
    fn plain_secrets_are_found_with_their_place() {
        let document = Document::from_json(
            r#"{"telegram":{"botToken":"1:abc","name":"x"},"slack":{"appToken":"unused","tokens":["a"]}}"#,
        )
        .expect("JSON");
        assert_eq!(
            plain_secrets(&document),
            ["telegram.botToken", "slack.tokens[0]"]
        );
    }
}
