//! Eight hours, with devices that come, go, fail and lie: exact counts, and nothing grows.

use std::time::Duration;

use farrier_pairing::{Approved, Event, Listed, Listing, Machine, Mode, Note, Pace, Policy, Step};
use serde_json::json;

use crate::scripted::request;

/// One device asks each minute. Of ten, six are the harness's own, two of which fail twice before they are approved; two
/// are unknown; one wants to be an administrator; and one is the harness's own and leaves before anybody looks.
#[derive(Default)]
struct Devices {
    asked: u64,
    pending: Vec<(String, u64, serde_json::Value)>,
    approved: u64,
}

impl Devices {
    fn until(&mut self, now: Duration) {
        while Duration::from_secs(60 * (self.asked + 1)) <= now {
            self.asked += 1;
            let id = format!("r{}", self.asked);
            let (client, scope, failures) = match self.asked % 10 {
                0..4 => ("cli", "operator.write", 0),
                4 | 5 => ("openclaw-control-ui", "operator.read", 2),
                6 | 7 => ("evil", "operator.read", 0),
                8 => ("cli", "operator.admin", 0),
                _ => continue,
            };
            self.pending
                .push((id.clone(), failures, request(&id, client, "cli", &[scope])));
        }
        // The harness drops what has waited for five minutes.
        let asked = self.asked;
        self.pending
            .retain(|(id, _, _)| id[1..].parse::<u64>().unwrap() + 5 > asked);
    }

    fn listing(&self) -> Listing {
        let pending: Vec<_> = self.pending.iter().map(|(_, _, request)| request).collect();
        let printed = json!({"pending": pending, "paired": [{"clientId": "openclaw-control-ui"}]});
        Listing::parse(printed.to_string().as_bytes()).unwrap()
    }

    fn approve(&mut self, id: &str) -> Approved {
        let at = self
            .pending
            .iter()
            .position(|(pending, _, _)| pending == id)
            .unwrap();
        if self.pending[at].1 > 0 {
            self.pending[at].1 -= 1;
            return Approved::Failed("not yet".to_owned());
        }
        self.pending.remove(at);
        self.approved += 1;
        Approved::Done
    }
}

#[test]
fn eight_hours_of_churn_leave_exact_counts_and_no_growth() {
    let mut machine = Machine::new(Pace::default(), Policy::default());
    let (mut devices, mut now) = (Devices::default(), Duration::ZERO);
    let (mut lists, mut approvals, mut refusals, mut failures) = (0, 0, 0, 0);
    let mut sizes = Vec::new();
    let mut event = Event::Woken;
    loop {
        devices.until(now);
        let step = machine.next(now, event);
        for note in machine.notes() {
            match note {
                Note::Approved(_) => approvals += 1,
                Note::Refused(..) => refusals += 1,
                Note::ApprovalFailed(..) => failures += 1,
                _ => {}
            }
        }
        event = match step {
            Step::Approve(request) => Event::Approved(devices.approve(request.id.as_str())),
            Step::List => {
                lists += 1;
                Event::Listed(Listed::Listing(devices.listing()))
            }
            Step::Wait { until } => {
                assert!(until > now, "time passes");
                sizes.push(machine.size());
                now = until;
                Event::Woken
            }
            Step::Over => break,
        };
    }
    assert_eq!(now, Duration::from_secs(8 * 3600));
    // 479 minutes bring a device before the end: 47 whole tens, and nine of the next.
    let tens = 47;
    assert_eq!(approvals, tens * 6 + 5, "each of its own, in time");
    assert_eq!(approvals, devices.approved);
    assert_eq!(
        failures,
        2 * (tens * 2 + 2),
        "two for each that fails twice"
    );
    assert_eq!(refusals, tens * 3 + 3, "each of the others once");
    assert_eq!(machine.approvals(), approvals);
    assert_eq!(machine.mode(), Mode::Slow);
    // Some 5,760 at five seconds each, and four more for each of the 287 that had five early rounds.
    assert_eq!(lists, 6908);
    let most = sizes.iter().max().unwrap();
    // What was decided about is remembered by its id, at most 1024 of them; beyond that only what waits.
    assert!(*most <= 1024 + 16, "{most}");
    let handled = usize::try_from(approvals + refusals).unwrap();
    assert!(sizes.last().unwrap() <= &(handled + 16));
}

#[test]
fn what_is_remembered_stays_within_its_bound_for_ever() {
    let pace = Pace {
        deadline: None,
        ..Pace::default()
    };
    let mut machine = Machine::new(pace, Policy::default());
    let mut step = machine.next(Duration::ZERO, Event::Woken);
    let (mut now, mut round, mut sizes) = (Duration::ZERO, 0, Vec::new());
    while round < 4000 {
        let event = match step {
            Step::Approve(_) => Event::Approved(Approved::Done),
            Step::List => {
                round += 1;
                let (own, other) = (format!("a{round}"), format!("b{round}"));
                let pending = [
                    request(&own, "cli", "cli", &[]),
                    request(&other, "evil", "cli", &[]),
                ];
                let printed = json!({"pending": pending, "paired": []}).to_string();
                Event::Listed(Listed::Listing(Listing::parse(printed.as_bytes()).unwrap()))
            }
            Step::Wait { until } => {
                now = until;
                sizes.push(machine.size());
                Event::Woken
            }
            Step::Over => panic!("it has no end"),
        };
        step = machine.next(now, event);
        drop(machine.notes());
    }
    assert_eq!(
        machine.approvals(),
        3999,
        "all but that of the round that has just begun"
    );
    assert!(*sizes.iter().max().unwrap() <= 1024 + 8);
    assert_eq!(sizes[1500], *sizes.last().unwrap());
}
