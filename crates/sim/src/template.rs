//! Texts with `{slots}`, as persona files write them.
//!
//! In: a string such as `functions.{tool}:{n}`. Out: the text for given values. `{{` and `}}` stand for single braces. The
//! slots of a template are checked once, when the persona is read, so that rendering cannot fail.

use std::fmt::Display;

use serde::Deserialize;

/// A text with named slots.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "String")]
pub(crate) struct Template(Vec<Part>);

#[derive(Clone, Debug, Eq, PartialEq)]
enum Part {
    Text(String),
    Slot(String),
}

/// A brace in a template that neither names a slot nor is doubled.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct LoneBrace {
    at: usize,
}

impl Template {
    /// The text with every slot replaced; a slot without a value is left out.
    pub(crate) fn render(&self, values: &[(&str, &dyn Display)]) -> String {
        self.0
            .iter()
            .map(|part| match part {
                Part::Text(text) => text.clone(),
                Part::Slot(slot) => values
                    .iter()
                    .find(|(name, _)| name == slot)
                    .map(|(_, value)| value.to_string())
                    .unwrap_or_default(),
            })
            .collect()
    }

    /// The first slot that is not among `known`.
    pub(crate) fn unknown_slot(&self, known: &[&str]) -> Option<&str> {
        self.slots().find(|slot| !known.contains(slot))
    }

    /// Whether the slot occurs.
    pub(crate) fn has(&self, slot: &str) -> bool {
        self.slots().any(|name| name == slot)
    }

    fn slots(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Slot(slot) => Some(slot.as_str()),
            Part::Text(_) => None,
        })
    }
}

impl TryFrom<String> for Template {
    type Error = LoneBrace;

    fn try_from(source: String) -> Result<Self, LoneBrace> {
        let mut parts = Vec::new();
        let mut text = String::new();
        let mut rest = source.as_str();
        while let Some(brace) = rest.find(['{', '}']) {
            let at = source.len() - rest.len() + brace;
            text.push_str(&rest[..brace]);
            let doubled = [("{{", '{'), ("}}", '}')]
                .into_iter()
                .find(|(pair, _)| rest[brace..].starts_with(pair));
            if let Some((pair, single)) = doubled {
                text.push(single);
                rest = &rest[brace + pair.len()..];
                continue;
            }
            let (slot, after) = rest[brace..]
                .strip_prefix('{')
                .and_then(|inner| inner.split_once('}'))
                .filter(|(slot, _)| !slot.is_empty() && !slot.contains('{'))
                .ok_or(LoneBrace { at })?;
            parts.push(Part::Text(std::mem::take(&mut text)));
            parts.push(Part::Slot(slot.to_owned()));
            rest = after;
        }
        text.push_str(rest);
        parts.push(Part::Text(text));
        Ok(Self(parts))
    }
}

impl Display for LoneBrace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "expected a {{slot}} or a doubled brace, got a lone brace (byte {})",
            self.at
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(text: &str) -> Template {
        Template::try_from(text.to_owned()).unwrap()
    }

    #[test]
    fn slots_are_filled_and_doubled_braces_are_single() {
        let text = template("functions.{tool}:{n} {{x}}").render(&[("tool", &"exec"), ("n", &7)]);
        assert_eq!(text, "functions.exec:7 {x}");
    }

    #[test]
    fn a_lone_brace_is_refused_with_its_place() {
        for (text, at) in [("a}b", 1), ("ab{c", 2), ("{}", 0), ("{a{b}", 0)] {
            let refused = Template::try_from(text.to_owned());
            assert_eq!(refused, Err(LoneBrace { at }), "{text}");
        }
    }
}
