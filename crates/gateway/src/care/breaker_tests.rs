use std::num::NonZeroU32;

use proptest::prelude::*;

use super::*;

/// A request let through before it ever opened.
const NORMAL: Pass = Pass::Normal(0);

fn terms() -> config::Breaker {
    config::Breaker {
        failures: NonZeroU32::new(3).unwrap(),
        cool_down: Duration::from_secs(10),
    }
}

fn opened(now: Instant) -> Machine {
    let mut machine = Machine::new();
    for _ in 0..3 {
        machine.failed(NORMAL, &terms(), now, 0);
    }
    machine
}

#[test]
fn it_opens_after_failures_in_a_row_and_not_before() {
    let (mut machine, now) = (Machine::new(), Instant::now());
    machine.failed(NORMAL, &terms(), now, 0);
    machine.failed(NORMAL, &terms(), now, 0);
    machine.succeeded(NORMAL);
    machine.failed(NORMAL, &terms(), now, 0);
    machine.failed(NORMAL, &terms(), now, 0);
    assert_eq!(machine.ask(now), Ok(NORMAL), "a success came between");
    machine.failed(NORMAL, &terms(), now, 0);
    assert_eq!(machine.ask(now), Err(Duration::from_secs(10)));
}

#[test]
fn it_stays_open_up_to_a_fifth_longer() {
    let now = Instant::now();
    let mut machine = Machine::new();
    for _ in 0..3 {
        machine.failed(NORMAL, &terms(), now, u64::MAX);
    }
    assert_eq!(machine.ask(now), Err(Duration::from_secs(12)));
}

#[test]
fn a_probe_that_succeeds_closes_it() {
    let now = Instant::now();
    let mut machine = opened(now);
    let later = now + Duration::from_secs(10);
    let probe = machine.ask(later).unwrap();
    assert_eq!(probe, Pass::Probe(1));
    assert_eq!(machine.ask(later), Err(PROBE_PATIENCE), "one at a time");
    machine.succeeded(probe);
    assert!(machine.calm().is_calm());
}

#[test]
fn a_probe_that_fails_opens_it_again() {
    let now = Instant::now();
    let mut machine = opened(now);
    let later = now + Duration::from_secs(10);
    let probe = machine.ask(later).unwrap();
    machine.failed(probe, &terms(), later, 0);
    assert_eq!(machine.ask(later), Err(Duration::from_secs(10)));
}

#[test]
fn a_probe_that_is_given_up_makes_way_for_another() {
    let now = Instant::now();
    let mut machine = opened(now);
    let later = now + Duration::from_secs(10);
    machine.ask(later).unwrap();
    machine.given_up(1);
    assert_eq!(machine.ask(later), Ok(Pass::Probe(2)));
    machine.given_up(1);
    assert_eq!(
        machine.ask(later),
        Err(PROBE_PATIENCE),
        "the first was over"
    );
}

#[test]
fn a_probe_without_a_verdict_for_a_cool_down_is_not_waited_for() {
    let now = Instant::now();
    let mut machine = opened(now);
    let later = now + Duration::from_secs(10);
    let slow = machine.ask(later).unwrap();
    let much_later = later + Duration::from_secs(10);
    let probe = machine.ask(much_later).unwrap();
    assert_eq!(probe, Pass::Probe(2));
    machine.failed(slow, &terms(), much_later, 0);
    machine.succeeded(probe);
    assert!(machine.calm().is_calm(), "the slow one's verdict is late");
}

#[test]
fn what_was_sent_before_it_opened_counts_for_nothing_after_it_closed_again() {
    let now = Instant::now();
    let mut machine = opened(now);
    let later = now + Duration::from_secs(10);
    let probe = machine.ask(later).unwrap();
    machine.succeeded(probe);
    for _ in 0..90 {
        machine.failed(NORMAL, &terms(), later, 0);
    }
    assert_eq!(machine.ask(later), Ok(Pass::Normal(1)));
    machine.failed(Pass::Normal(1), &terms(), later, 0);
    machine.succeeded(NORMAL);
    assert!(!machine.calm().is_calm(), "nor does a success");
}

#[test]
fn what_is_heard_late_counts_for_nothing() {
    let now = Instant::now();
    let mut machine = opened(now);
    machine.succeeded(NORMAL);
    assert_eq!(machine.ask(now), Err(Duration::from_secs(10)), "still open");
    let probe = machine.ask(now + Duration::from_secs(10)).unwrap();
    machine.failed(NORMAL, &terms(), now, 0);
    machine.succeeded(Pass::Probe(7));
    assert_eq!(machine.state, State::HalfOpen { probe: Some(1) });
    machine.succeeded(probe);
    machine.failed(probe, &terms(), now, 0);
    assert!(machine.calm().is_calm(), "a verdict is given once");
}

/// What may happen next.
#[derive(Clone, Debug)]
enum Step {
    Ask,
    /// The request with this index, of those under way, ends so.
    End(usize, End),
    Wait(u64),
}

#[derive(Clone, Copy, Debug)]
enum End {
    Failed,
    GivenUp,
    Succeeded,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let end = prop_oneof![Just(End::Failed), Just(End::GivenUp), Just(End::Succeeded)];
    let step = prop_oneof![
        4 => Just(Step::Ask),
        4 => (0..8usize, end).prop_map(|(index, end)| Step::End(index, end)),
        1 => (0..15u64).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..300)
}

proptest! {
    /// Whatever happens in whatever order: never two probes within a cool-down, nobody let through before the cool-down is over, and
    /// never shut for ever.
    #[test]
    fn never_more_than_one_probe_within_a_cool_down(steps in steps()) {
        let mut machine = Machine::new();
        let mut now = Instant::now();
        let mut probed_at = now;
        let mut under_way: Vec<Pass> = Vec::new();
        for step in steps {
            match step {
                Step::Wait(seconds) => now += Duration::from_secs(seconds),
                Step::Ask => {
                    let before = machine.state;
                    let Ok(pass) = machine.ask(now) else { continue };
                    match before {
                        State::Open { until } => prop_assert!(now >= until),
                        State::HalfOpen { probe } => {
                            prop_assert!(probe.is_none() || probed_at + terms().cool_down <= now);
                        }
                        State::Closed { .. } => prop_assert!(matches!(pass, Pass::Normal(_))),
                    }
                    if matches!(pass, Pass::Probe(_)) {
                        probed_at = now;
                    }
                    under_way.push(pass);
                }
                Step::End(_, _) if under_way.is_empty() => {}
                Step::End(index, end) => {
                    let pass = under_way.swap_remove(index % under_way.len());
                    match (end, pass) {
                        (End::Failed, pass) => machine.failed(pass, &terms(), now, 0),
                        (End::Succeeded, pass) => machine.succeeded(pass),
                        (End::GivenUp, Pass::Probe(number)) => machine.given_up(number),
                        (End::GivenUp, Pass::Normal(_)) => {}
                    }
                }
            }
        }
        for pass in under_way {
            if let Pass::Probe(number) = pass {
                machine.given_up(number);
            }
        }
        prop_assert!(machine.ask(now + Duration::from_secs(12)).is_ok());
    }
}
