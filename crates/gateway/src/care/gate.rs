//! A provider's places, and the wait for one.
//!
//! In: whose request it is. Out: a [`Place`] that is held until the last byte of the reply, or why there is none. Dropping
//! the wait leaves the queue; dropping the place hands it to whoever is next.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use farrier_ledger::Scope;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::line::{Line, Queued, Ticket};
use crate::metrics::{GateMetrics, TurnedAway};

/// Lets in as many as there are places; shared by all requests to a provider.
#[derive(Debug)]
pub(super) struct Gate {
    line: Mutex<Line<Scope, oneshot::Sender<Place>>>,
    metrics: GateMetrics,
}

/// One of a provider's places.
#[derive(Debug)]
pub(crate) struct Place(Arc<Gate>);

/// There was no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Busy {
    /// The caller had more waiting than others, and too many wait.
    #[error("a full queue, in which nobody has more requests than this caller")]
    TurnedAway,
    /// The wait was too long.
    #[error("none within {0:?}")]
    WaitedTooLong(Duration),
}

/// One who waits; leaves the queue when dropped.
struct Waiting<'a> {
    gate: &'a Gate,
    who: &'a Scope,
    ticket: Ticket,
}

// === impl Gate ===

impl Gate {
    pub(super) fn new(places: usize, max_waiting: usize, metrics: GateMetrics) -> Self {
        Self {
            line: Mutex::new(Line::new(places, max_waiting)),
            metrics,
        }
    }

    /// Another number of places. Those who are next have the new ones at once.
    pub(super) fn resize(self: &Arc<Self>, places: usize, max_waiting: usize) {
        let next = self.change(|line| line.resize(places, max_waiting));
        for waiting in next {
            self.hand_to(waiting);
        }
    }

    /// A place, at once or after a wait.
    ///
    /// Safe to drop: who does not wait any more is not in the queue any more.
    pub(super) async fn enter(
        self: &Arc<Self>,
        who: &Scope,
        within: Duration,
    ) -> Result<Place, Busy> {
        if self.change(Line::enter) {
            return Ok(Place(Arc::clone(self)));
        }
        let came = Instant::now();
        let place = self.wait(who, within).await;
        let waited = came.elapsed();
        match place {
            Ok(place) => {
                self.metrics.waited(waited);
                Ok(place)
            }
            Err(busy) => {
                self.metrics.turned_away(match busy {
                    Busy::TurnedAway => TurnedAway::Full,
                    Busy::WaitedTooLong(_) => TurnedAway::WaitedTooLong,
                });
                Err(busy)
            }
        }
    }

    async fn wait(&self, who: &Scope, within: Duration) -> Result<Place, Busy> {
        let (tell, told) = oneshot::channel();
        // One who is turned away learns it when its sender is dropped.
        let ticket = match self.change(|line| line.queue(who, tell)) {
            Queued::TurnedAway => return Err(Busy::TurnedAway),
            Queued::Waits(ticket) | Queued::InPlaceOf(ticket, _) => ticket,
        };
        let _waiting = Waiting {
            gate: self,
            who,
            ticket,
        };
        match timeout(within, told).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) => Err(Busy::TurnedAway),
            Err(_) => Err(Busy::WaitedTooLong(within)),
        }
    }

    /// Gives a place that is counted already. If nobody takes it, since the one who waited has just left, it comes back
    /// and its drop gives it to the next.
    fn hand_to(self: &Arc<Self>, waiting: oneshot::Sender<Place>) {
        drop(waiting.send(Place(Arc::clone(self))));
    }

    fn change<T>(&self, change: impl FnOnce(&mut Line<Scope, oneshot::Sender<Place>>) -> T) -> T {
        let mut line = self.locked();
        let before = line.waiting();
        let changed = change(&mut line);
        if line.waiting() != before {
            self.metrics.waiting(line.waiting());
        }
        self.metrics.taken(line.taken());
        changed
    }

    fn locked(&self) -> MutexGuard<'_, Line<Scope, oneshot::Sender<Place>>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    /// Signals whoever is next.
    fn drop(&mut self) {
        let next = self.0.change(Line::leave);
        if let Some(waiting) = next {
            self.0.hand_to(waiting);
        }
    }
}

impl Drop for Waiting<'_> {
    /// Leaves the queue, unless it was left for a place.
    fn drop(&mut self) {
        let (who, ticket) = (self.who, self.ticket);
        self.gate.change(|line| line.give_up(who, ticket));
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Waker};

    use tokio::sync::mpsc;
    use tokio::task::{JoinSet, yield_now};

    use super::*;
    use crate::metrics::Metrics;

    const LONG: Duration = Duration::from_secs(60);

    fn gate(places: usize, max_waiting: usize) -> Arc<Gate> {
        let metrics = Metrics::new().care.gate(&"p".into());
        Arc::new(Gate::new(places, max_waiting, metrics))
    }

    fn scope(name: &str) -> Scope {
        Scope::new(name)
    }

    /// Has `what` take its place in the queue.
    fn queued<T>(what: &mut Pin<Box<impl Future<Output = T>>>) {
        let polled = what.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending(), "there was a place");
    }

    /// Lets every other task come as far as it gets.
    async fn settle() {
        for _ in 0..20 {
            yield_now().await;
        }
    }

    #[tokio::test]
    async fn who_left_the_queue_is_not_given_a_place() {
        let gate = gate(1, 10);
        let first = gate.enter(&scope("a"), LONG).await.unwrap();
        let (a, b) = (scope("a"), scope("b"));
        let mut left = Box::pin(gate.enter(&a, LONG));
        queued(&mut left);
        let mut stays = Box::pin(gate.enter(&b, LONG));
        queued(&mut stays);
        drop(left);
        assert_eq!(gate.locked().waiting(), 1);
        drop(first);
        drop(stays.await.unwrap());
        assert_eq!(gate.locked().taken(), 0);
    }

    #[tokio::test]
    async fn a_place_given_to_one_who_just_left_goes_to_the_next() {
        let gate = gate(1, 10);
        let first = gate.enter(&scope("a"), LONG).await.unwrap();
        let (a, b) = (scope("a"), scope("b"));
        let mut left = Box::pin(gate.enter(&a, LONG));
        let mut next = Box::pin(gate.enter(&b, LONG));
        queued(&mut left);
        queued(&mut next);
        drop(first); // the place is on its way to `left`
        drop(left);
        drop(timeout(LONG, next).await.unwrap().unwrap());
        let line = gate.locked();
        assert_eq!((line.taken(), line.waiting()), (0, 0));
    }

    #[tokio::test]
    async fn a_wait_ends_after_its_time() {
        let gate = gate(1, 10);
        let _place = gate.enter(&scope("a"), LONG).await.unwrap();
        let within = Duration::from_millis(20);
        let refused = gate.enter(&scope("a"), within).await.unwrap_err();
        assert_eq!(refused, Busy::WaitedTooLong(within));
        assert_eq!(gate.locked().waiting(), 0);
    }

    #[tokio::test]
    async fn one_agent_s_pile_does_not_keep_others_waiting_or_out() {
        let gate = gate(1, 8);
        let (done, mut order) = mpsc::unbounded_channel();
        let first = gate.enter(&scope("other"), LONG).await.unwrap();
        let mut tasks = JoinSet::new();
        for who in ["greedy"; 10].into_iter().chain(["b", "c"]) {
            let (gate, done) = (Arc::clone(&gate), done.clone());
            tasks.spawn(async move {
                let entered = gate.enter(&scope(who), LONG).await;
                done.send((who, entered.is_ok())).unwrap();
                yield_now().await;
                drop(entered);
            });
            settle().await;
        }
        drop((first, done));
        let mut came = Vec::new();
        while let Some(one) = order.recv().await {
            came.push(one);
        }
        let served: Vec<&str> = came
            .iter()
            .filter(|(_, in_)| *in_)
            .map(|(who, _)| *who)
            .collect();
        assert_eq!(served[..4], ["greedy", "b", "c", "greedy"]);
        assert_eq!(served.len(), 8);
        let refused = came.iter().filter(|(_, in_)| !in_);
        assert!(refused.map(|(who, _)| *who).all(|who| who == "greedy"));
    }

    #[tokio::test]
    async fn new_places_are_given_to_who_waits() {
        let gate = gate(1, 10);
        let first = gate.enter(&scope("a"), LONG).await.unwrap();
        let b = scope("b");
        let mut second = Box::pin(gate.enter(&b, LONG));
        queued(&mut second);
        gate.resize(2, 10);
        drop((second.await.unwrap(), first));
        assert_eq!(gate.locked().taken(), 0);
    }
}
