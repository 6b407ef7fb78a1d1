//! What the file would answer, in memory, for the keys that were asked for or recorded last.
//!
//! An agent sends its whole history with every request, so that nearly every key of a recall was
//! part of the recall before. The file has one writer, this process; so the cache can be exact:
//!
//! ```text
//! writer: COMMIT ─▶ follow: a new entry in front of its keys' lines, an evicted entry's lines forgotten
//! reader: snapshot ─▶ answer ─▶ learn: the lines it read, unless something was committed meanwhile
//! recall: look up ─▶ the lines that are known; the file is asked for the others
//! ```
//!
//! *Guarantees.* A line is either absent or what a lookup in the file would give, expired entries
//! excepted, which are left out when a line is read. *Bounds.* Bytes; the lines that were not asked
//! for longest go first.

use std::mem::size_of;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use hashlink::LruCache;

use crate::MAX_CANDIDATES;
use crate::seal::ScopeIndex;

/// Estimate of what a line takes beside its entries: its place, and its share of the table.
const LINE_WEIGHT: usize = 128;

/// A key within a scope, both as the file knows them.
type Place = (ScopeIndex, [u8; 16]);

/// An entry as a recall needs it.
#[derive(Clone)]
pub(super) struct Known {
    /// Its number in the file. Younger ones are greater among those that are there together.
    pub(super) entry: i64,
    /// When, in milliseconds since 1970.
    pub(super) recorded: i64,
    pub(super) value: Bytes,
}

/// The entries of one key, newest first, at most [`MAX_CANDIDATES`].
pub(super) type Line = Vec<Known>;

/// What a transaction did.
#[derive(Default)]
pub(super) struct Changes {
    added: Vec<Added>,
    removed: Vec<Place>,
}

struct Added {
    place: Place,
    /// Nothing was recorded under the key before, so that the entry is all there is.
    first: bool,
    known: Known,
}

impl Changes {
    pub(super) fn add(&mut self, scope: ScopeIndex, key: [u8; 16], first: bool, known: Known) {
        let place = (scope, key);
        self.added.push(Added {
            place,
            first,
            known,
        });
    }

    pub(super) fn remove(&mut self, scope: ScopeIndex, key: [u8; 16]) {
        self.removed.push((scope, key));
    }

    fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }
}

/// What a lookup found.
pub(super) struct Found {
    /// For each key in the order asked, its values; empty as well for a key that is missing.
    pub(super) values: Vec<Vec<Bytes>>,
    /// Which of the keys the file has to be asked for, by their place in the question.
    pub(super) missing: Vec<usize>,
}

/// How many transactions were followed when it was taken; what is read after it is learnt only if
/// none was since.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment(u64);

pub(super) struct Cache(Mutex<Lines>);

struct Lines {
    lines: LruCache<Place, Line>,
    weight: usize,
    max_weight: usize,
    followed: u64,
    /// A closed ledger answers nothing.
    closed: bool,
}

impl Cache {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self(Mutex::new(Lines {
            lines: LruCache::new_unbounded(),
            weight: 0,
            max_weight: max_bytes,
            followed: 0,
            closed: false,
        }))
    }

    /// The values of these keys that were recorded after the cutoff, as far as they are known.
    pub(super) fn look_up(&self, scope: &ScopeIndex, keys: &[[u8; 16]], cutoff: i64) -> Found {
        let mut found = Found {
            values: Vec::with_capacity(keys.len()),
            missing: Vec::new(),
        };
        let mut lines = self.lines();
        for (at, key) in keys.iter().enumerate() {
            let line = lines.lines.get(&(*scope, *key));
            if line.is_none() {
                found.missing.push(at);
            }
            found
                .values
                .push(line.map_or_else(Vec::new, |line| current(line, cutoff)));
        }
        found
    }

    /// To be taken before a snapshot of the file is.
    pub(super) fn now(&self) -> Moment {
        Moment(self.lines().followed)
    }

    /// Keeps what was read from a snapshot that is not older than `since`.
    ///
    /// The snapshot may be younger than what was followed: its transaction is followed later, and
    /// finds its entries there already.
    pub(super) fn learn(&self, since: Moment, read: impl Iterator<Item = (Place, Line)>) {
        let mut lines = self.lines();
        if Moment(lines.followed) == since && !lines.closed {
            for (place, line) in read {
                lines.set(place, line);
            }
            lines.shrink();
        }
    }

    /// Follows a transaction that was committed. Called by the writer alone, in their order.
    pub(super) fn follow(&self, changes: Changes) {
        if changes.is_empty() {
            return; // what is being read meanwhile stays true
        }
        let mut lines = self.lines();
        lines.followed += 1;
        if lines.closed {
            return;
        }
        for added in changes.added {
            lines.put_in_front(added);
        }
        for place in &changes.removed {
            lines.forget(place);
        }
        lines.shrink();
    }

    /// Forgets everything: whether a transaction was committed is not known.
    pub(super) fn forget(&self) {
        let mut lines = self.lines();
        lines.followed += 1;
        lines.clear();
    }

    /// Forgets everything, and keeps nothing more.
    pub(super) fn close(&self) {
        let mut lines = self.lines();
        lines.closed = true;
        lines.clear();
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(|poisoned| {
            // Whoever panicked may have followed half of a transaction.
            let mut lines = PoisonError::into_inner(poisoned);
            lines.clear();
            lines
        })
    }
}

impl Lines {
    fn put_in_front(&mut self, added: Added) {
        let Added {
            place,
            first,
            known,
        } = added;
        let line = match self.lines.remove(&place) {
            Some(mut line) => {
                self.weight -= weight(&line);
                // It is there already if the line was read after the commit and before this.
                if line.iter().all(|other| other.entry != known.entry) {
                    line.truncate(MAX_CANDIDATES - 1);
                    line.insert(0, known);
                }
                line
            }
            None if first => vec![known],
            None => return,
        };
        self.set(place, line);
    }

    fn set(&mut self, place: Place, line: Line) {
        self.weight += weight(&line);
        if let Some(before) = self.lines.insert(place, line) {
            self.weight -= weight(&before);
        }
    }

    fn forget(&mut self, place: &Place) {
        if let Some(line) = self.lines.remove(place) {
            self.weight -= weight(&line);
        }
    }

    fn shrink(&mut self) {
        while self.weight > self.max_weight {
            let Some((_, line)) = self.lines.remove_lru() else {
                return;
            };
            self.weight -= weight(&line);
        }
    }

    fn clear(&mut self) {
        self.lines.clear();
        self.weight = 0;
    }
}

/// The values recorded after the cutoff.
pub(super) fn current(line: &Line, cutoff: i64) -> Vec<Bytes> {
    let current = line.iter().filter(|known| known.recorded > cutoff);
    current.map(|known| known.value.clone()).collect()
}

/// A value that several keys lead to counts for each, so that it is bounded whichever goes first.
fn weight(line: &Line) -> usize {
    let values = line.iter().map(|known| known.value.len());
    LINE_WEIGHT + line.len() * size_of::<Known>() + values.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCOPE: ScopeIndex = [1; 32];
    const KEY: [u8; 16] = [2; 16];

    fn known(entry: i64) -> Known {
        Known {
            entry,
            recorded: entry,
            value: Bytes::from(entry.to_string()),
        }
    }

    fn added(entry: i64, first: bool) -> Changes {
        let mut changes = Changes::default();
        changes.add(SCOPE, KEY, first, known(entry));
        changes
    }

    /// What the cache says of the key, `None` if the file has to be asked.
    fn found(cache: &Cache) -> Option<Vec<Bytes>> {
        let mut found = cache.look_up(&SCOPE, &[KEY], 0);
        found.missing.is_empty().then(|| found.values.remove(0))
    }

    fn learn(cache: &Cache, since: Moment, entries: &[i64]) {
        let line = entries.iter().copied().map(known).collect();
        cache.learn(since, std::iter::once(((SCOPE, KEY), line)));
    }

    #[test]
    fn a_key_recorded_for_the_first_time_need_not_be_read() {
        let cache = Cache::new(1 << 20);
        cache.follow(added(1, true));
        cache.follow(added(2, false));
        assert_eq!(found(&cache).unwrap(), ["2", "1"]);
    }

    #[test]
    fn a_key_recorded_before_is_not_known_until_it_was_read() {
        let cache = Cache::new(1 << 20);
        cache.follow(added(2, false));
        assert_eq!(found(&cache), None);
        learn(&cache, cache.now(), &[2, 1]);
        assert_eq!(found(&cache).unwrap(), ["2", "1"]);
    }

    #[test]
    fn what_was_read_before_a_commit_is_not_learnt_after_it() {
        let cache = Cache::new(1 << 20);
        let since = cache.now();
        cache.follow(added(2, false));
        learn(&cache, since, &[1]);
        assert_eq!(found(&cache), None);
    }

    #[test]
    fn a_commit_that_changed_nothing_keeps_nothing_from_being_learnt() {
        let cache = Cache::new(1 << 20);
        let since = cache.now();
        cache.follow(Changes::default());
        learn(&cache, since, &[1]);
        assert_eq!(found(&cache).unwrap(), ["1"]);
    }

    #[test]
    fn what_was_read_after_a_commit_and_before_it_is_followed_is_there_once() {
        let cache = Cache::new(1 << 20);
        learn(&cache, cache.now(), &[2, 1]);
        cache.follow(added(2, false));
        assert_eq!(found(&cache).unwrap(), ["2", "1"]);
    }

    #[test]
    fn that_nothing_was_recorded_is_known_too_until_something_is() {
        let cache = Cache::new(1 << 20);
        learn(&cache, cache.now(), &[]);
        assert_eq!(found(&cache).unwrap(), [] as [Bytes; 0]);
        cache.follow(added(1, true));
        assert_eq!(found(&cache).unwrap(), ["1"]);
    }

    #[test]
    fn an_eviction_a_failed_commit_and_the_end_forget() {
        let cache = Cache::new(1 << 20);
        cache.follow(added(1, true));
        let mut changes = Changes::default();
        changes.remove(SCOPE, KEY);
        cache.follow(changes);
        assert_eq!(found(&cache), None);

        cache.follow(added(2, true));
        cache.forget();
        assert_eq!(found(&cache), None);

        cache.follow(added(3, true));
        cache.close();
        cache.follow(added(4, true));
        learn(&cache, cache.now(), &[4]);
        assert_eq!(found(&cache), None);
    }

    #[test]
    fn an_entry_at_the_cutoff_is_left_out_and_only_the_newest_candidates_stay() {
        let cache = Cache::new(1 << 20);
        for entry in 1..=20 {
            cache.follow(added(entry, entry == 1));
        }
        assert_eq!(found(&cache).unwrap().len(), MAX_CANDIDATES);
        assert_eq!(
            cache.look_up(&SCOPE, &[KEY], 18).values,
            [["20", "19"].map(Bytes::from).to_vec()]
        );
    }

    #[test]
    fn what_is_not_asked_for_goes_first_and_the_weight_is_exact() {
        let cache = Cache::new(3 * weight(&vec![known(1)]));
        let record = |number: u8| {
            let mut changes = Changes::default();
            changes.add(SCOPE, [number; 16], true, known(1));
            cache.follow(changes);
        };
        (1..=3).for_each(record);
        let is_known = |number: u8| cache.look_up(&SCOPE, &[[number; 16]], 0).missing.is_empty();
        assert!(is_known(1));
        record(4);
        assert_eq!([1, 2, 3, 4].map(is_known), [true, false, true, true]);
        let lines = cache.lines();
        assert_eq!(
            lines.weight,
            lines.lines.iter().map(|(_, line)| weight(line)).sum()
        );
    }
}
