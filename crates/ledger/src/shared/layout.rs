//! What things are called in the store, and how they are written there.
//!
//! ```text
//! <prefix>:1:{<scope>}:e<id>     an entry: how many keys (2 bytes), the keys (16 each), the value
//! <prefix>:1:{<scope>}:k<key>    the index of a key: the marks of its entries, newest first
//! <prefix>:1:{<scope>}:order     the scope's entries, as marks by the time of recording
//! <prefix>:1:encryption          which key the store was begun with
//! ```
//!
//! `1` is the version of all this. A scope is written in hexadecimal digits, and its braces keep all
//! that belongs to it in one slot of a cluster. Ids and keys are the bytes themselves. Everything
//! of a scope expires by itself, an index and the order with the youngest entry they lead to.

use std::fmt::Write as _;

use bytes::Bytes;

use crate::seal::ScopeIndex;

/// Raised when what is written cannot be read by an older Farrier, or the other way round: the two
/// then do not meet.
const VERSION: u8 = 1;
const ID_BYTES: usize = 16;
const MARK_BYTES: usize = ID_BYTES + 4;
/// What a key takes in an entry.
pub(super) const KEY_BYTES: usize = 16;
const COUNT_BYTES: usize = 2;

/// An entry as an index knows it: its id, and the size of what is stored, so that it is known before
/// it is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark([u8; MARK_BYTES]);

impl Mark {
    pub(super) fn new(id: [u8; ID_BYTES], stored: &[u8]) -> Self {
        let mut bytes = [0; MARK_BYTES];
        bytes[..ID_BYTES].copy_from_slice(&id);
        let size = u32::try_from(stored.len()).unwrap_or(u32::MAX);
        bytes[ID_BYTES..].copy_from_slice(&size.to_be_bytes());
        Self(bytes)
    }

    /// The marks of an index. What is left over at its end was never written by us.
    pub(super) fn read_all(index: &[u8]) -> impl Iterator<Item = Self> {
        let (marks, _left_over) = index.as_chunks();
        marks.iter().copied().map(Self)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn size(&self) -> usize {
        let [.., a, b, c, d] = self.0;
        usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX)
    }

    fn id(&self) -> &[u8] {
        &self.0[..ID_BYTES]
    }
}

/// The names of what belongs to one scope.
pub(super) struct Names {
    /// The scope's entries, as marks by the time of recording.
    pub(super) order: Vec<u8>,
    /// What the names of all entries begin with.
    pub(super) entries: Vec<u8>,
    /// What the names of all indices begin with.
    pub(super) indices: Vec<u8>,
}

impl Names {
    pub(super) fn of(prefix: &str, scope: &ScopeIndex) -> Self {
        let mut of_scope = format!("{prefix}:{VERSION}:{{");
        for byte in scope {
            let _never_fails = write!(of_scope, "{byte:02x}");
        }
        of_scope.push_str("}:");
        let named = |what: &str| [of_scope.as_bytes(), what.as_bytes()].concat();
        Self {
            order: named("order"),
            entries: named("e"),
            indices: named("k"),
        }
    }

    pub(super) fn entry(&self, mark: &Mark) -> Vec<u8> {
        [&self.entries[..], mark.id()].concat()
    }

    pub(super) fn index(&self, key: &[u8]) -> Vec<u8> {
        [&self.indices[..], key].concat()
    }
}

/// The name of what says which encryption key the store was begun with.
pub(super) fn encryption(prefix: &str) -> String {
    format!("{prefix}:{VERSION}:encryption")
}

/// The name of what is written to see whether one can write.
pub(super) fn probe(prefix: &str) -> String {
    format!("{prefix}:{VERSION}:probe")
}

/// An entry as it is stored: its keys, one after the other, and its sealed value.
pub(super) fn entry(keys: &[u8], sealed: &[u8]) -> Vec<u8> {
    let count = u16::try_from(keys.len() / KEY_BYTES).unwrap_or(u16::MAX);
    [&count.to_be_bytes(), keys, sealed].concat()
}

/// The keys and the sealed value of an entry; none if this is no entry.
pub(super) fn read_entry(stored: &Bytes) -> Option<(&[u8], Bytes)> {
    let (count, rest) = stored.split_first_chunk::<COUNT_BYTES>()?;
    let (keys, _) = rest.split_at_checked(usize::from(u16::from_be_bytes(*count)) * KEY_BYTES)?;
    Some((keys, stored.slice(COUNT_BYTES + keys.len()..)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_as_it_was_written() {
        let keys = [[1; 16], [2; 16]].concat();
        let stored = Bytes::from(entry(&keys, b"value"));
        let (found, value) = read_entry(&stored).unwrap();
        assert_eq!((found, &value[..]), (&keys[..], &b"value"[..]));
    }

    #[test]
    fn what_is_no_entry_is_not_read_as_one() {
        let keys = [1; 16];
        let stored = entry(&keys, b"");
        for cut in [0, 1, 2, 17] {
            let cut = Bytes::copy_from_slice(&stored[..cut]);
            assert_eq!(read_entry(&cut), None, "{} bytes", cut.len());
        }
    }

    #[test]
    fn a_mark_tells_the_size_and_an_index_is_read_mark_by_mark() {
        let marks = [
            Mark::new([1; 16], b"four"),
            Mark::new([2; 16], &[0; 70_000]),
        ];
        let index: Vec<u8> = marks
            .iter()
            .flat_map(|mark| mark.as_bytes().to_vec())
            .collect();
        let read: Vec<Mark> = Mark::read_all(&index).collect();
        assert_eq!(read, marks);
        assert_eq!(read[1].size(), 70_000);
    }

    #[test]
    fn all_names_of_a_scope_share_one_hash_tag() {
        let names = Names::of("farrier", &[0x7d; 32]);
        let tag = format!("farrier:1:{{{}}}:", "7d".repeat(32));
        let mark = Mark::new([b'}'; 16], b"");
        for name in [
            names.entry(&mark),
            names.index(&[b'{'; 16]),
            names.order.clone(),
        ] {
            assert!(name.starts_with(tag.as_bytes()));
        }
    }
}
