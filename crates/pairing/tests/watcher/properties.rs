//! Whatever lists, failures, time-outs and requests come in whatever order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use farrier_pairing::{
    Approved, Decision, Event, Listed, Listing, Machine, Pace, Policy, Request, Sighting, Step,
};
use proptest::prelude::*;
use serde_json::{Value, json};

/// What the world does next.
#[derive(Clone, Debug)]
enum Turn {
    /// A device asks.
    Asks {
        client: usize,
        scopes: usize,
        role: usize,
    },
    /// A request is withdrawn.
    Leaves(prop::sample::Index),
    /// The next lists fail.
    ListsFail(u8),
    /// The next lists take too long.
    ListsHang(u8),
    /// The next approvals fail.
    ApprovalsFail(u8),
    /// The next approvals take too long.
    ApprovalsHang(u8),
    /// What waits is seen.
    Seen,
    /// Something is seen.
    Something,
    /// Something is told that nobody waits for.
    Unawaited,
    /// Seen without asking from now on, or no more.
    Watched(bool),
    /// Time passes, in milliseconds.
    Passes(u32),
}

const CLIENTS: [&str; 5] = ["cli", "openclaw-cli", "openclaw-control-ui", "evil", ""];
const ROLES: [&str; 2] = ["operator", "node"];

fn scopes(which: usize) -> Value {
    match which {
        0 => json!([]),
        1 => json!(["operator.read"]),
        2 => json!(["operator.write", "operator.read", "operator.pairing"]),
        3 => json!(["operator.admin"]),
        4 => json!(["operator.read", "operator.admin"]),
        5 => json!("operator.read"),
        _ => json!([{"operator.read": 1}]),
    }
}

fn turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        6 => (0..CLIENTS.len(), 0..7_usize, 0..8_usize).prop_map(|(client, scopes, role)| Turn::Asks { client, scopes, role }),
        2 => any::<prop::sample::Index>().prop_map(Turn::Leaves),
        1 => (1..4_u8).prop_map(Turn::ListsFail),
        1 => (1..4_u8).prop_map(Turn::ListsHang),
        1 => (1..4_u8).prop_map(Turn::ApprovalsFail),
        1 => (1..4_u8).prop_map(Turn::ApprovalsHang),
        4 => Just(Turn::Seen),
        1 => Just(Turn::Something),
        1 => Just(Turn::Unawaited),
        1 => any::<bool>().prop_map(Turn::Watched),
        8 => (1..20_000_u32).prop_map(Turn::Passes),
    ]
}

struct World {
    machine: Machine,
    pace: Pace,
    now: Duration,
    until: Option<Duration>,
    next_id: u64,
    pending: BTreeMap<String, Request>,
    failing: [u8; 4],
    approved: BTreeSet<String>,
    calls: Vec<Duration>,
}

impl World {
    fn new() -> Self {
        let pace = Pace {
            deadline: None,
            ..Pace::default()
        };
        let mut world = Self {
            machine: Machine::new(pace.clone(), Policy::default()),
            pace,
            now: Duration::ZERO,
            until: None,
            next_id: 0,
            pending: BTreeMap::new(),
            failing: [0; 4],
            approved: BTreeSet::new(),
            calls: Vec::new(),
        };
        world.tell(Event::Woken);
        world
    }

    fn listing(&self, entries: &[Value]) -> Listing {
        let printed = json!({"pending": entries, "paired": []}).to_string();
        Listing::parse(printed.as_bytes()).unwrap()
    }

    fn turn(&mut self, turn: Turn) {
        match turn {
            Turn::Asks {
                client,
                scopes: which,
                role,
            } => {
                self.next_id += 1;
                let id = format!("r{}", self.next_id);
                let role = ROLES[usize::from(role == 0)];
                let entry = json!({"requestId": id, "clientId": CLIENTS[client], "clientMode": "cli", "roles": [role], "scopes": scopes(which)});
                let request = self.listing(&[entry]).pending.remove(0);
                self.pending.insert(id, request);
            }
            Turn::Leaves(which) => {
                if !self.pending.is_empty() {
                    let id = self
                        .pending
                        .keys()
                        .nth(which.index(self.pending.len()))
                        .unwrap()
                        .clone();
                    self.pending.remove(&id);
                }
            }
            Turn::ListsFail(count) => self.failing[0] = count,
            Turn::ListsHang(count) => self.failing[1] = count,
            Turn::ApprovalsFail(count) => self.failing[2] = count,
            Turn::ApprovalsHang(count) => self.failing[3] = count,
            Turn::Seen => self.tell(Event::Sighted(Sighting::Requests(
                self.pending.values().cloned().collect(),
            ))),
            Turn::Something => self.tell(Event::Sighted(Sighting::Something)),
            Turn::Unawaited => self.tell(Event::Approved(Approved::Done)),
            Turn::Watched(watched) => self.machine.set_watched(watched),
            Turn::Passes(millis) => self.pass(Duration::from_millis(millis.into())),
        }
    }

    fn pass(&mut self, time: Duration) {
        let to = self.now + time;
        while let Some(until) = self.until.filter(|until| *until <= to) {
            self.now = self.now.max(until);
            self.tell(Event::Woken);
        }
        self.now = self.now.max(to);
    }

    fn fails(&mut self, which: usize) -> bool {
        let fails = self.failing[which] > 0;
        self.failing[which] = self.failing[which].saturating_sub(1);
        fails
    }

    /// Tells something, and does what is asked until there is a wait.
    fn tell(&mut self, event: Event) {
        let mut step = self.machine.next(self.now, event);
        loop {
            drop(self.machine.notes());
            let event = match step {
                Step::Over => panic!("it has no deadline"),
                Step::Wait { until } => {
                    self.until = Some(until);
                    return;
                }
                Step::List => {
                    self.calls.push(self.now);
                    Event::Listed(self.listed())
                }
                Step::Approve(request) => {
                    self.calls.push(self.now);
                    Event::Approved(self.approve(&request))
                }
            };
            step = self.machine.next(self.now, event);
        }
    }

    fn listed(&mut self) -> Listed {
        if self.fails(0) {
            return Listed::Failed("no".to_owned());
        }
        if self.fails(1) {
            self.now += self.pace.call_timeout;
            return Listed::TimedOut;
        }
        let pending = self.pending.values().cloned().collect();
        Listed::Listing(Listing {
            pending,
            ..Listing::default()
        })
    }

    fn approve(&mut self, request: &Request) -> Approved {
        assert_eq!(
            Policy::default().decide(request),
            Decision::Allow,
            "{request:?}"
        );
        assert!(
            !self.approved.contains(request.id.as_str()),
            "once is enough"
        );
        if self.fails(2) {
            return Approved::Failed("no".to_owned());
        }
        if self.fails(3) {
            self.now += self.pace.call_timeout;
            return Approved::TimedOut;
        }
        if self.pending.remove(request.id.as_str()).is_none() {
            return Approved::Failed("unknown requestId".to_owned());
        }
        self.approved.insert(request.id.to_string());
        Approved::Done
    }

    fn most_calls_in_a_minute(&self) -> u64 {
        let (mut first, mut most) = (0, 0);
        for (last, at) in self.calls.iter().enumerate() {
            while self.calls[first] + Duration::from_secs(60) <= *at {
                first += 1;
            }
            most = most.max(last + 1 - first);
        }
        most as u64
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Nothing outside the allow-list is ever approved (asserted at each approval), every allowed request is within its
    /// bound once the harness answers, and calls stay within theirs.
    #[test]
    fn only_what_is_allowed_is_approved_and_all_of_it_in_time(turns in prop::collection::vec(turn(), 1..120)) {
        let mut world = World::new();
        for turn in turns {
            world.turn(turn);
        }
        world.failing = [0; 4];
        let allowed: Vec<_> = world.pending.values().filter(|request| Policy::default().decide(request) == Decision::Allow).collect();
        let rounds = u32::try_from(allowed.len().div_ceil(world.pace.most_approvals)).unwrap() + 1;
        // The longest wait that may have begun, then as many rounds as it takes.
        let bound = world.pace.watched_slow_interval + rounds * (world.pace.slow_interval + world.pace.call_timeout);
        world.machine.set_watched(false);
        world.pass(bound);
        let left: Vec<_> = world.pending.values().filter(|request| Policy::default().decide(request) == Decision::Allow).collect();
        prop_assert!(left.is_empty(), "{left:?}");
        prop_assert!(world.most_calls_in_a_minute() <= world.pace.most_calls_per_minute());
        prop_assert!(world.machine.size() <= 1024 + 2 * Listing::MOST);
    }

    /// Where requests are seen, nothing waits for a list.
    #[test]
    fn what_is_seen_is_approved_without_a_list(turns in prop::collection::vec(turn(), 1..60)) {
        let mut world = World::new();
        for turn in turns {
            world.turn(turn);
        }
        world.failing = [0; 4];
        world.machine.set_watched(true);
        world.pass(Duration::from_secs(1200));
        world.turn(Turn::Asks { client: 0, scopes: 1, role: 1 });
        let id = format!("r{}", world.next_id);
        let lists = world.calls.len();
        world.turn(Turn::Seen);
        prop_assert!(world.approved.contains(&id));
        prop_assert_eq!(world.calls.len(), lists + 1);
    }
}
