//! Which tool call a delta belongs to.
//!
//! ```text
//! {"index":0,"id":"a","function":{"name":"f","arguments":""}}   call 0 opens
//! {"index":0,"function":{"arguments":"{}"}}                     call 0 goes on
//! {"id":"b","function":{"name":"g","arguments":"{}"}}           no index: a new id opens the next call
//! ```
//!
//! Servers that leave `index` out: Ollama, Gemini's compatible endpoint.

use super::chat;
use super::json::Object;

/// Numbers the calls of one choice in the order they open.
#[derive(Debug, Default)]
pub struct Calls {
    /// For each call: the index the server gave it, and the id it opened with.
    opened: Vec<(Option<u64>, String)>,
}

/// Where a delta belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The call's number, from 0 in order of opening.
    pub number: usize,
    /// Whether this delta opens it.
    pub opens: bool,
}

impl Calls {
    /// Finds the call `delta` belongs to; a delta that belongs to none opens one.
    pub fn place(&mut self, delta: &Object<'_>) -> Place {
        let index = chat::index_of(delta);
        let id = delta.text("id").unwrap_or_default();
        let known = match index {
            Some(index) => self.opened.iter().rposition(|(at, first)| {
                *at == Some(index) && (id.is_empty() || *first == id || first.is_empty())
            }),
            None if id.is_empty() && chat::call_name(delta).is_none() => {
                self.opened.len().checked_sub(1)
            }
            None => self
                .opened
                .iter()
                .rposition(|(_, first)| !id.is_empty() && *first == id),
        };
        if let Some(number) = known {
            return Place {
                number,
                opens: false,
            };
        }
        self.opened.push((index, id.into_owned()));
        Place {
            number: self.opened.len() - 1,
            opens: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(deltas: &[&str]) -> Vec<(usize, bool)> {
        let mut calls = Calls::default();
        deltas
            .iter()
            .map(|delta| {
                let place = calls.place(&chat::parse_call(delta).expect("a call"));
                (place.number, place.opens)
            })
            .collect()
    }

    #[test]
    fn index_decides_where_it_is_given() {
        let got = numbers(&[
            r#"{"index":0,"id":"a","function":{"name":"f"}}"#,
            r#"{"index":1,"id":"b","function":{"name":"g"}}"#,
            r#"{"index":0,"function":{"arguments":"{"}}"#,
            r#"{"index":1,"id":"","function":{"name":"","arguments":"{"}}"#,
            r#"{"index":1,"id":"b","function":{"name":"g","arguments":"}"}}"#,
        ]);
        assert_eq!(
            got,
            [(0, true), (1, true), (0, false), (1, false), (1, false)]
        );
    }

    #[test]
    fn without_index_a_new_id_opens_a_call() {
        let got = numbers(&[
            r#"{"id":"a","function":{"name":"f","arguments":"{}"}}"#,
            r#"{"function":{"arguments":" "}}"#,
            r#"{"id":"b","function":{"name":"f","arguments":"{}"}}"#,
        ]);
        assert_eq!(got, [(0, true), (0, false), (1, true)]);
    }

    #[test]
    fn another_id_at_the_same_index_is_another_call() {
        let got = numbers(&[
            r#"{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}"#,
            r#"{"index":0,"id":"b","function":{"name":"f","arguments":"{}"}}"#,
        ]);
        assert_eq!(got, [(0, true), (1, true)]);
    }
}
