//! Which tool call a delta belongs to.
//!
//! ```text
//! {"index":0,"id":"a","function":{"name":"f","arguments":""}}   call 0 opens
//! {"index":0,"function":{"arguments":"{}"}}                     call 0 goes on
//! {"index":0,"id":"r2","function":{"arguments":"{}"}}           still call 0: some servers make an id per chunk
//! {"id":"b","function":{"name":"g","arguments":"{}"}}           no index: a name opens the next call
//! ```
//!
//! Servers that leave `index` out: Ollama, Gemini's compatible endpoint. Some of them
//! repeat id and name in every chunk of a call, others give every call one id; what
//! tells these apart is whether the arguments so far are complete.

use std::collections::HashMap;

use super::chat;
use super::json::{Object, unquote};

/// Numbers the calls of one choice in the order they open.
#[derive(Debug, Default)]
pub struct Calls {
    opened: Vec<Opened>,
    /// The latest call at an index.
    by_index: HashMap<u64, usize>,
    /// The latest call with an id, where there is no index.
    by_id: HashMap<String, usize>,
}

#[derive(Debug)]
struct Opened {
    id: String,
    name: String,
    /// The argument text so far; kept only where there is no index to go by.
    arguments: String,
}

impl Calls {
    /// The number of the call `delta` belongs to; one that belongs to none opens one.
    pub fn place(&mut self, delta: &Object<'_>) -> usize {
        let index = chat::index_of(delta);
        let id = delta.text("id").unwrap_or_default();
        let name = chat::call_name(delta).unwrap_or_default();
        let known = match index {
            Some(index) => self.at_index(index, &id, &name),
            None => self.without_index(&id, &name),
        };
        let number = known.unwrap_or_else(|| {
            self.opened.push(Opened {
                id: id.clone().into_owned(),
                name: name.into_owned(),
                arguments: String::new(),
            });
            self.opened.len() - 1
        });
        match index {
            Some(index) => drop(self.by_index.insert(index, number)),
            None => self.hear(number, delta),
        }
        if index.is_none() && !id.is_empty() {
            self.by_id.insert(id.into_owned(), number);
        }
        number
    }

    fn at_index(&self, index: u64, id: &str, name: &str) -> Option<usize> {
        let number = *self.by_index.get(&index)?;
        let call = self.opened.get(number)?;
        let other = !name.is_empty() && !id.is_empty() && !call.id.is_empty() && call.id != id;
        (!other).then_some(number)
    }

    fn without_index(&self, id: &str, name: &str) -> Option<usize> {
        let number = if id.is_empty() {
            self.opened.len().checked_sub(1)?
        } else {
            *self.by_id.get(id)?
        };
        let call = self.opened.get(number)?;
        let opens = !name.is_empty() && (call.name != name || is_complete(&call.arguments));
        (!opens).then_some(number)
    }

    fn hear(&mut self, number: usize, delta: &Object<'_>) {
        let raw = chat::call_arguments(delta).unwrap_or_default();
        if let Some(call) = self.opened.get_mut(number) {
            call.arguments
                .push_str(&unquote(raw).unwrap_or_else(|| raw.into()));
        }
    }
}

fn is_complete(arguments: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(arguments).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(deltas: &[&str]) -> Vec<usize> {
        let mut calls = Calls::default();
        deltas
            .iter()
            .map(|delta| calls.place(&chat::parse_call(delta).expect("a call")))
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
        assert_eq!(got, [0, 1, 0, 1, 1]);
    }

    #[test]
    fn without_index_a_name_opens_a_call() {
        let got = numbers(&[
            r#"{"id":"a","function":{"name":"f","arguments":"{}"}}"#,
            r#"{"function":{"arguments":" "}}"#,
            r#"{"id":"b","function":{"name":"f","arguments":"{"}}"#,
            r#"{"id":"a","function":{"arguments":""}}"#,
            r#"{"id":"b","function":{"arguments":"}"}}"#,
        ]);
        assert_eq!(got, [0, 0, 1, 0, 1]);
    }

    #[test]
    fn without_index_and_id_another_name_opens_a_call() {
        let got = numbers(&[
            r#"{"id":"","function":{"name":"f","arguments":"{}"}}"#,
            r#"{"id":"","function":{"name":"g","arguments":"{}"}}"#,
        ]);
        assert_eq!(got, [0, 1]);
    }

    #[test]
    fn without_index_one_id_for_all_calls_is_told_from_one_repeated() {
        let repeated = numbers(&[
            r#"{"id":"call_0","function":{"name":"f","arguments":"{\"a\":"}}"#,
            r#"{"id":"call_0","function":{"name":"f","arguments":"0}"}}"#,
        ]);
        assert_eq!(repeated, [0, 0]);
        let shared = numbers(&[
            r#"{"id":"call_0","function":{"name":"f","arguments":"{\"a\":0}"}}"#,
            r#"{"id":"call_0","function":{"name":"f","arguments":"{\"a\":1}"}}"#,
        ]);
        assert_eq!(shared, [0, 1]);
    }

    #[test]
    fn another_id_at_the_same_index_is_another_call_only_with_a_name() {
        let got = numbers(&[
            r#"{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}"#,
            r#"{"index":0,"id":"b","function":{"name":"f","arguments":"{}"}}"#,
            r#"{"index":0,"id":"c","function":{"arguments":" "}}"#,
        ]);
        assert_eq!(got, [0, 1, 1]);
    }
}
