use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// A line whose places are all taken.
fn full(places: usize, max_waiting: usize) -> Line<char, String> {
    let mut line = Line::new(places, max_waiting);
    for _ in 0..places {
        assert!(line.enter());
    }
    assert!(!line.enter());
    line
}

fn queue(line: &mut Line<char, String>, who: char, names: &[&str]) {
    for name in names {
        assert!(matches!(
            line.queue(&who, (*name).to_owned()),
            Queued::Waits(_)
        ));
    }
}

#[test]
fn callers_are_served_in_turn() {
    let mut line = full(1, 100);
    queue(&mut line, 'a', &["a1", "a2", "a3", "a4"]);
    queue(&mut line, 'b', &["b1"]);
    queue(&mut line, 'c', &["c1", "c2"]);
    let served: Vec<String> = std::iter::from_fn(|| line.leave()).collect();
    assert_eq!(served, ["a1", "b1", "c1", "a2", "c2", "a3", "a4"]);
    assert_eq!((line.waiting(), line.taken()), (0, 0));
    assert!(line.enter());
}

#[test]
fn one_that_gives_up_is_not_served_and_keeps_nobody_else_waiting() {
    let mut line = full(1, 100);
    queue(&mut line, 'a', &["a1"]);
    let Queued::Waits(ticket) = line.queue(&'b', "b1".to_owned()) else {
        panic!("there is room");
    };
    queue(&mut line, 'c', &["c1"]);
    line.give_up(&'b', ticket);
    line.give_up(&'b', ticket);
    assert_eq!(line.waiting(), 2);
    assert_eq!(line.leave().as_deref(), Some("a1"));
    assert_eq!(line.leave().as_deref(), Some("c1"));
    line.give_up(&'c', 2);
    assert_eq!(line.waiting(), 0);
}

#[test]
fn who_piles_up_is_turned_away_and_nobody_else() {
    let mut line = full(1, 4);
    queue(&mut line, 'a', &["a1", "a2", "a3", "a4"]);
    let turned_away = |queued| match queued {
        Queued::InPlaceOf(_, away) => Some(away),
        Queued::TurnedAway => None,
        Queued::Waits(_) => panic!("there is no room"),
    };
    assert_eq!(turned_away(line.queue(&'a', "a5".to_owned())), None);
    assert_eq!(
        turned_away(line.queue(&'b', "b1".to_owned())).unwrap(),
        "a4"
    );
    assert_eq!(
        turned_away(line.queue(&'b', "b2".to_owned())).unwrap(),
        "a3"
    );
    assert_eq!(
        turned_away(line.queue(&'b', "b3".to_owned())),
        None,
        "as long as theirs"
    );
    assert!(turned_away(line.queue(&'c', "c1".to_owned())).is_some());
    assert!(turned_away(line.queue(&'d', "d1".to_owned())).is_some());
    assert_eq!(
        turned_away(line.queue(&'e', "e1".to_owned())),
        None,
        "all have one"
    );
    assert_eq!(line.waiting(), 4);
}

#[test]
fn without_a_queue_nobody_waits() {
    let mut line = full(1, 0);
    assert_eq!(line.queue(&'a', "a1".to_owned()), Queued::TurnedAway);
}

#[test]
fn more_places_are_given_to_who_waits_and_fewer_are_reached_as_they_are_left() {
    let mut line = full(1, 100);
    queue(&mut line, 'a', &["a1", "a2"]);
    queue(&mut line, 'b', &["b1"]);
    assert_eq!(line.resize(3, 100), ["a1", "b1"]);
    assert_eq!(line.resize(1, 100), [""; 0]);
    assert_eq!(line.leave(), None);
    assert_eq!(line.leave(), None);
    assert_eq!(line.leave().as_deref(), Some("a2"));
}

/// What may happen next.
#[derive(Clone, Debug)]
enum Step {
    Arrive(u8),
    GiveUp(usize),
    Leave,
    Resize(usize, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..4u8).prop_map(Step::Arrive),
        2 => (0..64usize).prop_map(Step::GiveUp),
        6 => Just(Step::Leave),
        1 => (0..5usize, 0..12usize).prop_map(|(places, max)| Step::Resize(places, max)),
    ];
    prop::collection::vec(step, 1..400)
}

proptest! {
    /// Whatever happens, everyone who waits is told at most once, and what is counted is what is there.
    #[test]
    fn nobody_is_lost_and_nobody_served_twice(steps in steps()) {
        let mut line = Line::new(2, 6);
        let mut waiting: HashMap<u64, (u8, Ticket)> = HashMap::new();
        let (mut inside, mut arrived) = (0usize, 0u64);
        let mut bound = 6;
        for step in steps {
            match step {
                Step::Arrive(_) if line.enter() => {
                    prop_assert!(waiting.is_empty(), "one who arrived passed one who waited");
                    inside += 1;
                }
                Step::Arrive(who) => {
                    arrived += 1;
                    match line.queue(&who, arrived) {
                        Queued::Waits(ticket) => drop(waiting.insert(arrived, (who, ticket))),
                        Queued::InPlaceOf(ticket, away) => {
                            waiting.insert(arrived, (who, ticket));
                            prop_assert!(waiting.remove(&away).is_some());
                        }
                        Queued::TurnedAway => {}
                    }
                    prop_assert!(waiting.len() <= bound);
                }
                Step::GiveUp(nth) => {
                    let one = waiting.keys().copied().nth(nth);
                    if let Some((who, ticket)) = one.and_then(|one| waiting.remove(&one)) {
                        line.give_up(&who, ticket);
                    }
                }
                Step::Leave if inside == 0 => {}
                Step::Leave => match line.leave() {
                    None => inside -= 1,
                    Some(next) => prop_assert!(waiting.remove(&next).is_some()),
                },
                Step::Resize(places, max_waiting) => {
                    for next in line.resize(places, max_waiting) {
                        prop_assert!(waiting.remove(&next).is_some());
                        inside += 1;
                    }
                    bound = bound.max(max_waiting);
                }
            }
            prop_assert_eq!((line.waiting(), line.taken()), (waiting.len(), inside));
            prop_assert_eq!(line.turns.len(), line.lanes.len());
        }
    }

    /// One greedy caller, some modest ones who always want one more: each modest one is served as often as the greedy.
    #[test]
    fn a_greedy_caller_gets_no_more_than_its_share(
        modest in 1..6u8,
        places in 1..4usize,
        piles in prop::collection::vec(0..20usize, 60),
    ) {
        const GREEDY: u8 = 0;
        let mut line = Line::new(places, 40);
        let mut served: HashMap<u8, usize> = HashMap::new();
        let mut waits = vec![false; usize::from(modest) + 1];
        for _ in 0..places {
            line.enter();
        }
        for pile in piles {
            for _ in 0..pile {
                let _queued = line.queue(&GREEDY, GREEDY);
            }
            for who in 1..=modest {
                if !std::mem::replace(&mut waits[usize::from(who)], true) {
                    let queued = line.queue(&who, who);
                    prop_assert!(queued != Queued::TurnedAway, "crowded out by another's pile");
                }
            }
            if let Some(who) = line.leave() {
                *served.entry(who).or_default() += 1;
                waits[usize::from(who)] = false;
            }
        }
        let greedy = served.get(&GREEDY).copied().unwrap_or_default();
        for who in 1..=modest {
            let own = served.get(&who).copied().unwrap_or_default();
            prop_assert!(own + 1 >= greedy, "{own} served while the greedy one had {greedy}");
        }
    }
}
