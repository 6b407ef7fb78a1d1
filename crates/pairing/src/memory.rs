//! Request ids that are remembered, and not more of them than stated.

use std::collections::{BTreeSet, VecDeque};

use crate::request::RequestId;

/// A set that forgets the oldest of its members when it is full.
#[derive(Debug)]
pub(crate) struct Remembered {
    most: usize,
    order: VecDeque<RequestId>,
    members: BTreeSet<RequestId>,
}

impl Remembered {
    pub(crate) fn of_at_most(most: usize) -> Self {
        Self {
            most,
            order: VecDeque::new(),
            members: BTreeSet::new(),
        }
    }

    pub(crate) fn contains(&self, id: &RequestId) -> bool {
        self.members.contains(id)
    }

    pub(crate) fn insert(&mut self, id: RequestId) {
        if !self.members.insert(id.clone()) {
            return;
        }
        self.order.push_back(id);
        if self.order.len() > self.most
            && let Some(oldest) = self.order.pop_front()
        {
            self.members.remove(&oldest);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_first() {
        let mut remembered = Remembered::of_at_most(2);
        let [a, b, c] = ["a", "b", "c"].map(|id| RequestId::parse(id).unwrap());
        remembered.insert(a.clone());
        remembered.insert(a.clone());
        remembered.insert(b.clone());
        assert!(remembered.contains(&a) && remembered.contains(&b));
        remembered.insert(c.clone());
        assert!(!remembered.contains(&a) && remembered.contains(&b) && remembered.contains(&c));
        assert_eq!(remembered.len(), 2);
    }
}
