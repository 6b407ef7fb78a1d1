//! Entries that wait, oldest first, and found by their keys.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use bytes::Bytes;
use tokio::time::Instant;

use crate::{Entry, Key, MAX_CANDIDATES, Scope};

/// What an entry weighs beside its value: what is kept here for it, and for each of its keys.
const ENTRY_WEIGHT: usize = 256;
const KEY_WEIGHT: usize = 128;

/// A bounded queue; what does not fit pushes out the oldest.
#[derive(Debug)]
pub(super) struct Queue {
    max_entries: usize,
    max_bytes: usize,
    bytes: usize,
    next: u64,
    /// By the order of their coming.
    entries: BTreeMap<u64, Waiter>,
    /// For each key, the numbers of its entries, oldest first.
    keys: HashMap<(Scope, Key), Vec<u64>>,
}

#[derive(Debug)]
struct Waiter {
    since: Instant,
    scope: Scope,
    entry: Entry,
}

/// An entry to be offered to the store.
#[derive(Clone, Debug)]
pub(super) struct Queued {
    pub(super) number: u64,
    pub(super) scope: Scope,
    pub(super) entry: Entry,
}

/// What a push cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Dropped {
    /// How many entries are gone for it.
    pub(super) entries: u64,
    /// The one that was pushed is among them: it alone is too much.
    pub(super) the_last_too: bool,
}

impl Queue {
    pub(super) fn new(max_entries: usize, max_bytes: usize) -> Self {
        Self {
            max_entries,
            max_bytes,
            bytes: 0,
            next: 0,
            entries: BTreeMap::new(),
            keys: HashMap::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many entries there are, and what they weigh.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.entries.len(), self.bytes)
    }

    pub(super) fn push(&mut self, scope: Scope, entry: Entry, since: Instant) -> Dropped {
        let number = self.next;
        self.next += 1;
        self.bytes += weight(&entry);
        for key in &entry.keys {
            let numbers = self.keys.entry((scope.clone(), *key)).or_default();
            if numbers.last() != Some(&number) {
                numbers.push(number);
            }
        }
        let waiter = Waiter {
            since,
            scope,
            entry,
        };
        self.entries.insert(number, waiter);
        let mut dropped = Dropped::default();
        while self.entries.len() > self.max_entries || self.bytes > self.max_bytes {
            let Some((oldest, _)) = self.entries.first_key_value() else {
                break;
            };
            let oldest = *oldest;
            self.remove(oldest);
            dropped.entries += 1;
            dropped.the_last_too = oldest == number;
        }
        dropped
    }

    /// Whether it was there.
    pub(super) fn remove(&mut self, number: u64) -> bool {
        let Some(Waiter { scope, entry, .. }) = self.entries.remove(&number) else {
            return false;
        };
        self.bytes -= weight(&entry);
        for key in entry.keys {
            let named = (scope.clone(), key);
            if let Some(numbers) = self.keys.get_mut(&named) {
                numbers.retain(|other| *other != number);
                if numbers.is_empty() {
                    self.keys.remove(&named);
                }
            }
        }
        true
    }

    /// Drops everything, and says how many entries that was.
    pub(super) fn clear(&mut self) -> usize {
        let entries = self.entries.len();
        *self = Self::new(self.max_entries, self.max_bytes);
        entries
    }

    /// Drops what waits since then or longer, and says how many entries that was.
    pub(super) fn expire(&mut self, since: Instant) -> u64 {
        let mut expired = 0;
        while let Some((number, _)) = self
            .entries
            .first_key_value()
            .filter(|(_, waiter)| waiter.since <= since)
        {
            let number = *number;
            expired += u64::from(self.remove(number));
        }
        expired
    }

    /// The oldest that came after this one.
    pub(super) fn batch(&self, after: Option<u64>, most: usize) -> Vec<Queued> {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let due = self.entries.range((after, Bound::Unbounded));
        let queued = due.take(most).map(|(number, waiter)| Queued {
            number: *number,
            scope: waiter.scope.clone(),
            entry: waiter.entry.clone(),
        });
        queued.collect()
    }

    /// For each key, what waits under it, newest first; none if nothing does under any.
    pub(super) fn find(&self, scope: &Scope, keys: &[Key]) -> Option<Vec<Vec<Bytes>>> {
        if self.is_empty() {
            return None;
        }
        let find = |key: &Key| {
            let numbers = self.keys.get(&(scope.clone(), *key));
            let newest = numbers.into_iter().flatten().rev().take(MAX_CANDIDATES);
            let waiters = newest.filter_map(|number| self.entries.get(number));
            waiters.map(|waiter| waiter.entry.value.clone()).collect()
        };
        let found: Vec<Vec<Bytes>> = keys.iter().map(find).collect();
        found
            .iter()
            .any(|values| !values.is_empty())
            .then_some(found)
    }
}

fn weight(entry: &Entry) -> usize {
    ENTRY_WEIGHT + entry.keys.len() * KEY_WEIGHT + entry.value.len()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn entry(keys: &[u8], value: &str) -> Entry {
        Entry {
            keys: keys.iter().map(|key| Key([*key; 16])).collect(),
            value: Bytes::copy_from_slice(value.as_bytes()),
        }
    }

    fn texts(found: Option<Vec<Vec<Bytes>>>) -> Vec<Vec<String>> {
        let text = |value: Bytes| String::from_utf8(value.to_vec()).unwrap();
        let all = |values: Vec<Bytes>| values.into_iter().map(text).collect();
        found.unwrap_or_default().into_iter().map(all).collect()
    }

    fn scope() -> Scope {
        Scope::new("caller")
    }

    #[tokio::test]
    async fn what_waits_is_found_newest_first_by_its_scope_alone() {
        let mut queue = Queue::new(10, 10_000);
        for (keys, value) in [(&[1, 2][..], "old"), (&[1], "new")] {
            queue.push(scope(), entry(keys, value), Instant::now());
        }
        let keys = [1, 2, 3].map(|key| Key([key; 16]));
        let found = texts(queue.find(&scope(), &keys));
        assert_eq!(found, [vec!["new", "old"], vec!["old"], vec![]]);
        assert_eq!(queue.find(&Scope::new("another"), &keys), None);
    }

    #[tokio::test]
    async fn too_many_or_too_much_pushes_out_the_oldest() {
        let mut queue = Queue::new(2, 2 * (ENTRY_WEIGHT + KEY_WEIGHT + 10));
        for value in ["first", "second", "third"] {
            queue.push(scope(), entry(&[1], value), Instant::now());
        }
        let keys = [Key([1; 16])];
        assert_eq!(texts(queue.find(&scope(), &keys)), [["third", "second"]]);

        let dropped = queue.push(scope(), entry(&[2], &"x".repeat(300)), Instant::now());
        assert_eq!(dropped.entries, 2);
        assert!(!dropped.the_last_too);
        let dropped = queue.push(scope(), entry(&[2], &"x".repeat(10_000)), Instant::now());
        assert_eq!((dropped.entries, dropped.the_last_too), (2, true));
        assert_eq!(queue.size(), (0, 0));
        assert!(queue.keys.is_empty());
    }

    #[tokio::test]
    async fn what_waits_too_long_is_dropped() {
        let mut queue = Queue::new(10, 10_000);
        let start = Instant::now();
        queue.push(scope(), entry(&[1], "old"), start);
        queue.push(scope(), entry(&[1], "new"), start + Duration::from_secs(2));
        assert_eq!(queue.expire(start + Duration::from_secs(1)), 1);
        assert_eq!(texts(queue.find(&scope(), &[Key([1; 16])])), [["new"]]);
    }

    #[tokio::test]
    async fn batches_go_on_where_the_last_ended() {
        let mut queue = Queue::new(10, 10_000);
        for value in ["a", "b", "c"] {
            queue.push(scope(), entry(&[1], value), Instant::now());
        }
        let first = queue.batch(None, 2);
        assert_eq!(first.len(), 2);
        assert!(queue.remove(first[0].number));
        let second = queue.batch(Some(first[1].number), 2);
        assert_eq!(second.len(), 1);
        assert_eq!(second[0].entry.value, "c");
    }
}
