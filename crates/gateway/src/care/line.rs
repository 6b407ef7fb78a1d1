//! Who is next: a bounded number of places, and behind them a queue for each caller, served in turn.
//!
//! ```text
//!            ┌─ a: a1 a2 a3 a4 a5 … ─┐
//! arrive ───▶├─ b: b1                ├──▶ a1 b1 c1 a2 c2 a3 …  ──▶ a place each, until they leave
//!            └─ c: c1 c2             ─┘
//! ```
//!
//! * Between two of one caller's requests that had to wait, each other caller who waits has a turn.
//! * Nobody who arrives passes one who waits.
//! * When all queues together are full, the latest of the longest is turned away, so that nobody is kept from waiting by
//!   what another piles up. This is the rule of stochastic fair queueing (McKenney, 1990).

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// The places and those who wait for one. `K` is a caller, `W` how one who waits is told.
#[derive(Debug)]
pub(super) struct Line<K, W> {
    places: usize,
    taken: usize,
    max_waiting: usize,
    waiting: usize,
    lanes: HashMap<K, VecDeque<(Ticket, W)>>,
    /// Callers who wait, each once; the first has the next turn.
    turns: VecDeque<K>,
    next: Ticket,
}

/// One who waits.
pub(super) type Ticket = u64;

/// What became of one who has to wait.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Queued<W> {
    /// It waits.
    Waits(Ticket),
    /// It waits, and this one does not any more.
    InPlaceOf(Ticket, W),
    /// It was turned away itself.
    TurnedAway,
}

impl<K: Clone + Eq + Hash, W> Line<K, W> {
    pub(super) fn new(places: usize, max_waiting: usize) -> Self {
        Self {
            places,
            taken: 0,
            max_waiting,
            waiting: 0,
            lanes: HashMap::new(),
            turns: VecDeque::new(),
            next: 0,
        }
    }

    /// Takes a place, if one is free.
    pub(super) fn enter(&mut self) -> bool {
        let free = self.taken < self.places;
        self.taken += usize::from(free);
        free
    }

    /// Waits for a place after [`enter`](Self::enter) found none.
    pub(super) fn queue(&mut self, who: &K, told: W) -> Queued<W> {
        let turned_away = if self.waiting < self.max_waiting {
            None
        } else {
            let Some(away) = self.shorten_for(who) else {
                return Queued::TurnedAway;
            };
            Some(away)
        };
        let ticket = self.next;
        self.next += 1;
        self.waiting += 1;
        if let Some(lane) = self.lanes.get_mut(who) {
            lane.push_back((ticket, told));
        } else {
            self.lanes
                .insert(who.clone(), VecDeque::from([(ticket, told)]));
            self.turns.push_back(who.clone());
        }
        match turned_away {
            None => Queued::Waits(ticket),
            Some(away) => Queued::InPlaceOf(ticket, away),
        }
    }

    /// One who had a place leaves it. Whoever is next has it now.
    pub(super) fn leave(&mut self) -> Option<W> {
        self.taken = self.taken.saturating_sub(1);
        self.admit()
    }

    /// One who waits does not any more. Nothing happens if it has a place by now.
    pub(super) fn give_up(&mut self, who: &K, ticket: Ticket) {
        let Some(lane) = self.lanes.get_mut(who) else {
            return;
        };
        if let Some(at) = lane.iter().position(|(waiting, _)| *waiting == ticket) {
            lane.remove(at);
            self.waiting -= 1;
            self.close_if_empty(who);
        }
    }

    /// Another number of places, and of those who may wait. Whoever has a place or waits already keeps to it; those who
    /// are next have the new places.
    pub(super) fn resize(&mut self, places: usize, max_waiting: usize) -> Vec<W> {
        (self.places, self.max_waiting) = (places, max_waiting);
        std::iter::from_fn(|| self.admit()).collect()
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    pub(super) fn taken(&self) -> usize {
        self.taken
    }

    /// Gives a free place to whoever is next.
    fn admit(&mut self) -> Option<W> {
        if self.taken >= self.places {
            return None;
        }
        let who = self.turns.pop_front()?;
        let lane = self.lanes.get_mut(&who)?;
        let (_, told) = lane.pop_front()?;
        if lane.is_empty() {
            self.lanes.remove(&who);
        } else {
            self.turns.push_back(who);
        }
        self.waiting -= 1;
        self.taken += 1;
        Some(told)
    }

    /// Turns away the latest of the longest queue, unless `who` would have one as long.
    fn shorten_for(&mut self, who: &K) -> Option<W> {
        let own = self.lanes.get(who).map_or(0, VecDeque::len);
        let (longest, lane) = self.lanes.iter_mut().max_by_key(|(_, lane)| lane.len())?;
        if lane.len() <= own + 1 {
            return None;
        }
        let longest = longest.clone();
        let (_, told) = lane.pop_back()?;
        self.waiting -= 1;
        self.close_if_empty(&longest);
        Some(told)
    }

    fn close_if_empty(&mut self, who: &K) {
        if self.lanes.get(who).is_some_and(VecDeque::is_empty) {
            self.lanes.remove(who);
            self.turns.retain(|waiting| waiting != who);
        }
    }
}

#[cfg(test)]
#[path = "line_tests.rs"]
mod tests;
