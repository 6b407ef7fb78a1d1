//! Files of `NAME=value`, as shells and dotenv readers take them.
//!
//! Values are written bare where no reader could take them for more than they are,
//! else in single quotes, in which nothing is expanded. A value that holds a single
//! quote or a control character has no spelling that all readers share, and is not
//! written ([`can_hold`]). Lines that are someone else's stay as they are.

use crate::document::Document;
use crate::placeholder::{is_reference, is_secret_key};

/// The lines of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Lines(Vec<String>);

/// Whether every reader takes this value for what it is.
pub(crate) fn can_hold(value: &str) -> bool {
    !value.contains('\'') && !value.chars().any(char::is_control)
}

/// Names and values, as a document.
pub(crate) fn document(lines: &[(String, String)]) -> Document {
    Document::object(
        lines
            .iter()
            .map(|(name, value)| (name, value.as_str().into())),
    )
}

impl Lines {
    pub(crate) fn parse(text: &str) -> Self {
        Self(text.lines().map(str::to_owned).collect())
    }

    /// These lines with `new` set, and what was in `last` alone gone.
    pub(crate) fn with(&self, new: &[(String, String)], last: Option<&Document>) -> Self {
        let mut missing: Vec<&(String, String)> = new.iter().collect();
        let mut lines = Vec::with_capacity(self.0.len() + new.len());
        for line in &self.0 {
            let Some(name) = name_of(line) else {
                lines.push(line.clone());
                continue;
            };
            if let Some((name, value)) = new.iter().find(|(known, _)| known == name) {
                // A name that stands twice is set by its last line; ours stands once.
                if let Some(at) = missing.iter().position(|(known, _)| known == name) {
                    missing.remove(at);
                    lines.push(written(name, value));
                }
            } else if last.is_none_or(|last| last.field(name).is_none()) {
                lines.push(line.clone());
            }
        }
        lines.extend(missing.iter().map(|(name, value)| written(name, value)));
        Self(lines)
    }

    /// With the values hidden that may be secrets.
    pub(crate) fn masked(&self) -> Self {
        let hidden = |line: &String| match (name_of(line), line.split_once('=')) {
            (Some(name), Some((start, value)))
                if is_secret_key(name) && !is_reference(value.trim().trim_matches(['"', '\''])) =>
            {
                format!("{start}=<hidden>")
            }
            _ => line.clone(),
        };
        Self(self.0.iter().map(hidden).collect())
    }

    pub(crate) fn to_text(&self) -> String {
        self.0.iter().map(|line| format!("{line}\n")).collect()
    }
}

/// The name that a line sets.
fn name_of(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let line = line.strip_prefix("export ").unwrap_or(line);
    let (name, _) = line.split_once('=')?;
    let name = name.trim();
    (!name.is_empty() && !name.starts_with('#')).then_some(name)
}

fn written(name: &str, value: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || "_./:@%+,-".contains(c);
    if !value.is_empty() && value.chars().all(bare) {
        format!("{name}={value}")
    } else {
        format!("{name}='{value}'")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn lines_of_others_stay_and_ours_are_set_in_their_place() {
        let there = Lines::parse("# mine\nA=1\nexport B = 2\nA=3\nC=4\n\nnot a setting\n");
        let last = Document::object([("C", "4".into())]);
        let now = there.with(&pairs(&[("A", "x y"), ("D", "$HOME")]), Some(&last));
        assert_eq!(
            now.to_text(),
            "# mine\nA='x y'\nexport B = 2\n\nnot a setting\nD='$HOME'\n"
        );
    }

    #[test]
    fn secrets_are_hidden_and_references_shown() {
        let lines = Lines::parse("API_KEY=sk-abc\nA_TOKEN=\"openshell:resolve:env:A\"\nHOST=h\n");
        assert_eq!(
            lines.masked().to_text(),
            "API_KEY=<hidden>\nA_TOKEN=\"openshell:resolve:env:A\"\nHOST=h\n"
        );
    }

    #[test]
    fn what_readers_would_take_differently_is_not_held() {
        assert!(can_hold("https://inference.local/v1?a=$b\"`"));
        for value in ["it's", "a\nB=1", "a\0", "a\u{85}b"] {
            assert!(!can_hold(value), "{value:?}");
        }
    }
}
