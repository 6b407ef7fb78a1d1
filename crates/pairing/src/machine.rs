//! What to do next: a state machine without clock, process or file.
//!
//! ```text
//!                 ┌───────────── Woken ─────────────┐
//!                 ▼                                 │
//! start ──▶ ExpectList ── nothing to approve ──▶ ExpectWake ──▶ Over (the deadline)
//!                 │                                 │ ▲
//!                 └──▶ ExpectApproval ◀── Sighted ──┘ │
//!                          │      └────── rest ───────┘
//!                          └── the next of the round
//! ```
//!
//! In: the time since the start, and an [`Event`]. Out: a [`Step`], and [`Note`]s about what was decided.
//!
//! Invariants:
//! * [`Step::Approve`] is for a request that [`Policy::decide`] allows, and for no other.
//! * The deadlines are judged when a round begins, before anything that can fail or take long.
//! * A failure or a time-out of an approval leaves its request to be tried again; only an approval or a refusal is final.
//! * Nothing here grows without a bound: what is listed is, what is remembered is ([`MOST_HANDLED`]).

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::mem;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::decide::{Decision, Policy, Reason};
use crate::memory::Remembered;
use crate::pace::Pace;
use crate::request::{Listing, Request, RequestId};

/// Decides what to do next.
#[derive(Debug)]
pub struct Machine {
    pace: Pace,
    policy: Policy,
    state: State,
    mode: Mode,
    /// Rounds in a row in which nothing was pending.
    quiet: u32,
    /// Lists in a row that failed.
    failures: u32,
    approvals: u64,
    /// Rounds that still come early.
    reentry: u32,
    /// Approved or refused.
    handled: Remembered,
    /// Pending requests that were tried, each with the number of its last attempt.
    tried: BTreeMap<RequestId, u64>,
    attempts: u64,
    /// What waits, as it was last seen.
    open: BTreeMap<RequestId, Open>,
    paired: usize,
    /// Whether requests are seen without asking.
    watched: bool,
    /// Before this, a sighting waits.
    next_sighted_at: Duration,
    notes: Vec<Note>,
}

/// Named by what is awaited.
#[derive(Debug)]
enum State {
    ExpectApproval {
        asked: Box<Request>,
        origin: Origin,
        rest: VecDeque<Request>,
    },
    ExpectList,
    ExpectWake {
        at: Duration,
    },
    Over,
}

/// How a request was found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Origin {
    /// The list itself was refused to this device, whose own request it is.
    Gated,
    Listed,
    Sighted,
}

/// A request that waits.
#[derive(Clone, Debug)]
pub(crate) struct Open {
    pub(crate) request: Request,
    /// When it was first seen.
    pub(crate) since: Duration,
    /// Why it is not approved without a person, if it is not.
    pub(crate) refused: Option<Reason>,
    /// What came of the last attempt, if that failed.
    pub(crate) failure: Option<String>,
}

/// What to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// Approve this request, then tell [`Event::Approved`].
    Approve(Request),
    /// List the devices, then tell [`Event::Listed`].
    List,
    /// Nothing more, ever.
    Over,
    /// Wait until then, then tell [`Event::Woken`]; or tell [`Event::Sighted`] before.
    Wait {
        /// Since the start.
        until: Duration,
    },
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// What came of [`Step::Approve`].
    Approved(Approved),
    /// What came of [`Step::List`].
    Listed(Listed),
    /// Something was seen while waiting. At other times it may be told, and does nothing.
    Sighted(Sighting),
    /// The wait is over.
    Woken,
}

/// What came of an approval.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Approved {
    /// The harness says so.
    Done,
    /// The harness said something else, shortened here.
    Failed(String),
    /// Nobody knows.
    TimedOut,
}

/// What came of a list.
#[derive(Clone, Debug)]
pub enum Listed {
    /// The harness said something else, shortened here.
    Failed(String),
    /// The harness does not let this device ask, and it is proven which request is this device's own.
    Gated(Request),
    /// The list.
    Listing(Listing),
    /// Nobody knows.
    TimedOut,
}

/// What was seen in the harness's state.
#[derive(Clone, Debug)]
pub enum Sighting {
    /// All requests that wait.
    Requests(Vec<Request>),
    /// Something that cannot be read: a list will tell.
    Something,
}

/// How often is looked.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// While the harness starts, and its parts pair.
    Fast,
    /// Afterwards, for as long as the watcher lives.
    Slow,
}

/// Why slow mode began.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Slowed {
    /// A browser has paired.
    BrowserPaired,
    /// The fast deadline has passed.
    Deadline,
    /// Devices have paired.
    DevicesPaired(usize),
    /// Requests were approved.
    RequestsApproved,
}

/// What was decided or found out, for people and for the report.
#[derive(Clone, Debug)]
pub enum Note {
    /// A request was approved.
    Approved(Request),
    /// An approval failed, and is tried again.
    ApprovalFailed(Request, String),
    /// An approval took too long, and is tried again.
    ApprovalTimedOut(Request),
    /// The watcher's time is over.
    DeadlineReached {
        /// How many requests were approved.
        approvals: u64,
    },
    /// A list was answered.
    Listed {
        /// Requests that wait.
        pending: usize,
        /// Devices that may connect.
        paired: usize,
    },
    /// A list failed.
    ListFailed(String),
    /// A list took too long.
    ListTimedOut,
    /// A request is left to a person.
    Refused(Request, Reason),
    /// Slow mode begins.
    Slowed {
        /// Why.
        why: Slowed,
        /// How many requests were approved so far.
        approvals: u64,
    },
}

/// Of requests that were approved or refused, as many are remembered. The harness drops a request after five minutes and
/// never uses its id again.
const MOST_HANDLED: usize = 1024;
/// Of requests that wait, as many are kept.
const MOST_OPEN: usize = Listing::MOST;
/// A failing list is asked for ever more seldom, up to this many doublings.
const MOST_DOUBLINGS: u32 = 16;

impl Machine {
    /// A machine at time zero. Its first step is a list.
    #[must_use]
    pub fn new(pace: Pace, policy: Policy) -> Self {
        Self {
            pace,
            policy,
            state: State::ExpectWake { at: Duration::ZERO },
            mode: Mode::Fast,
            quiet: 0,
            failures: 0,
            approvals: 0,
            reentry: 0,
            handled: Remembered::of_at_most(MOST_HANDLED),
            tried: BTreeMap::new(),
            attempts: 0,
            open: BTreeMap::new(),
            paired: 0,
            watched: false,
            next_sighted_at: Duration::ZERO,
            notes: Vec::new(),
        }
    }

    /// Takes what happened at `now` since the start, and says what to do. An event that is not awaited changes nothing;
    /// the step is then the one that was said last.
    pub fn next(&mut self, now: Duration, event: Event) -> Step {
        match (mem::replace(&mut self.state, State::Over), event) {
            (State::ExpectWake { at }, Event::Woken) if now >= at => self.begin(now),
            (State::ExpectWake { at }, Event::Sighted(sighting)) => self.sighted(now, at, sighting),
            (State::ExpectList, Event::Listed(listed)) => self.listed(now, listed),
            (
                State::ExpectApproval {
                    asked,
                    origin,
                    rest,
                },
                Event::Approved(approved),
            ) => {
                self.conclude(*asked, origin, approved);
                self.approve_next(now, origin, rest)
            }
            (state, Event::Approved(_) | Event::Listed(_) | Event::Sighted(_) | Event::Woken) => {
                self.state = state;
                self.step()
            }
        }
    }

    /// What was noted since this was last called.
    pub fn notes(&mut self) -> Vec<Note> {
        mem::take(&mut self.notes)
    }

    /// Says whether requests are seen without asking; then lists are seldom.
    pub fn set_watched(&mut self, watched: bool) {
        self.watched = watched;
    }

    /// How often is looked.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// How many requests were approved.
    #[must_use]
    pub fn approvals(&self) -> u64 {
        self.approvals
    }

    /// How many things are remembered: what must not grow.
    #[must_use]
    pub fn size(&self) -> usize {
        self.handled.len() + self.tried.len() + self.open.len() + self.notes.len()
    }

    pub(crate) fn open(&self) -> impl Iterator<Item = &Open> {
        self.open.values()
    }

    pub(crate) fn paired(&self) -> usize {
        self.paired
    }

    fn step(&self) -> Step {
        match &self.state {
            State::ExpectApproval { asked, .. } => Step::Approve(Request::clone(asked)),
            State::ExpectList => Step::List,
            State::ExpectWake { at } => Step::Wait { until: *at },
            State::Over => Step::Over,
        }
    }

    fn goes_to(&mut self, state: State) -> Step {
        self.state = state;
        self.step()
    }

    /// A round: the deadlines first, since what follows may fail or take long.
    fn begin(&mut self, now: Duration) -> Step {
        if self.is_over(now) {
            return Step::Over;
        }
        if self.mode == Mode::Fast && now >= self.pace.fast_deadline {
            self.slow_down(Slowed::Deadline);
        }
        self.goes_to(State::ExpectList)
    }

    fn is_over(&mut self, now: Duration) -> bool {
        let over = self.pace.deadline.is_some_and(|deadline| now >= deadline);
        if over {
            self.state = State::Over;
            self.notes.push(Note::DeadlineReached {
                approvals: self.approvals,
            });
        }
        over
    }

    fn slow_down(&mut self, why: Slowed) {
        self.mode = Mode::Slow;
        self.notes.push(Note::Slowed {
            why,
            approvals: self.approvals,
        });
    }

    fn listed(&mut self, now: Duration, listed: Listed) -> Step {
        match listed {
            Listed::Listing(listing) => {
                self.failures = 0;
                self.round(now, listing)
            }
            Listed::Gated(request) => {
                let wanted = !self.handled.contains(&request.id)
                    && self.policy.decide(&request) == Decision::Allow;
                if wanted {
                    self.see(now, &request);
                    return self.approve_next(now, Origin::Gated, [request].into());
                }
                self.list_failed(
                    now,
                    Note::ListFailed("this device is not approved".to_owned()),
                )
            }
            Listed::Failed(why) => self.list_failed(now, Note::ListFailed(why)),
            Listed::TimedOut => self.list_failed(now, Note::ListTimedOut),
        }
    }

    /// A failure says nothing about requests, so that early rounds stay owed.
    fn list_failed(&mut self, now: Duration, note: Note) -> Step {
        self.notes.push(note);
        let wait = match self.mode {
            Mode::Fast => self.pace.fast_interval,
            Mode::Slow if self.watched => {
                let doubled = self.pace.slow_interval * (1 << self.failures.min(MOST_DOUBLINGS));
                doubled.min(self.pace.watched_slow_interval)
            }
            Mode::Slow => self.pace.slow_interval,
        };
        self.failures = self.failures.saturating_add(1);
        self.wait(now, wait)
    }

    fn round(&mut self, now: Duration, listing: Listing) -> Step {
        self.notes.push(Note::Listed {
            pending: listing.pending.len() + listing.unusable,
            paired: listing.paired.len(),
        });
        self.paired = listing.paired.len();
        let waits = |id: &RequestId| listing.pending.iter().any(|request| request.id == *id);
        self.tried.retain(|id, _| waits(id));
        self.open.retain(|id, _| waits(id));
        if listing.pending.is_empty() && listing.unusable == 0 {
            return self.quiet_round(now, &listing);
        }
        self.quiet = 0;
        let mut allowed = self.judged(now, listing.pending);
        // Who was never tried comes first, then who has waited longest, so that none that fails keeps another from it.
        allowed.sort_by_key(|request| self.tried.get(&request.id).copied());
        allowed.truncate(self.pace.most_approvals);
        self.approve_next(now, Origin::Listed, allowed.into())
    }

    /// Those that are to be approved; what is not is refused once.
    fn judged(&mut self, now: Duration, requests: Vec<Request>) -> Vec<Request> {
        let mut allowed = Vec::new();
        for request in requests {
            self.see(now, &request);
            if self.handled.contains(&request.id) {
                continue;
            }
            match self.policy.decide(&request) {
                Decision::Allow => allowed.push(request),
                Decision::Refuse(reason) => {
                    self.handled.insert(request.id.clone());
                    self.notes.push(Note::Refused(request, reason));
                }
            }
        }
        allowed
    }

    fn see(&mut self, now: Duration, request: &Request) {
        if self.open.len() >= MOST_OPEN && !self.open.contains_key(&request.id) {
            return;
        }
        let refused = match self.policy.decide(request) {
            Decision::Allow => None,
            Decision::Refuse(reason) => Some(reason),
        };
        self.open.entry(request.id.clone()).or_insert_with(|| Open {
            request: request.clone(),
            since: now,
            refused,
            failure: None,
        });
    }

    fn quiet_round(&mut self, now: Duration, listing: &Listing) -> Step {
        self.quiet = self.quiet.saturating_add(1);
        let paired = listing.paired.len();
        if self.mode == Mode::Fast && self.quiet >= self.pace.quiet_rounds {
            let browser = listing.paired.iter().any(|device| device.is_browser());
            let converged = match (browser, paired, self.approvals) {
                (true, _, _) => Some(Slowed::BrowserPaired),
                (false, 1.., _) => Some(Slowed::DevicesPaired(paired)),
                (false, 0, 1..) => Some(Slowed::RequestsApproved),
                (false, 0, 0) => None,
            };
            converged.into_iter().for_each(|why| self.slow_down(why));
        }
        let settling = self.approvals > 0 || paired > 0;
        let planned = match self.mode {
            Mode::Slow if self.watched => self.pace.watched_slow_interval,
            Mode::Slow => self.pace.slow_interval,
            Mode::Fast if self.watched => self.pace.watched_fast_interval,
            Mode::Fast if settling => self.pace.settling_interval,
            Mode::Fast => self.pace.fast_interval,
        };
        self.rest(now, planned)
    }

    fn approve_next(&mut self, now: Duration, origin: Origin, mut rest: VecDeque<Request>) -> Step {
        let Some(asked) = rest.pop_front() else {
            return self.round_is_done(now, origin);
        };
        if self.is_over(now) {
            return Step::Over;
        }
        self.attempts += 1;
        let new = self.tried.insert(asked.id.clone(), self.attempts).is_none();
        if new && origin != Origin::Gated {
            self.reentry = self.pace.reentry_rounds;
        }
        // Sightings bring ids that no list has told of yet; the oldest attempts make room.
        if self.tried.len() > MOST_OPEN
            && let Some(oldest) = self.tried.iter().min_by_key(|(_, attempt)| **attempt)
        {
            let oldest = oldest.0.clone();
            self.tried.remove(&oldest);
        }
        let asked = Box::new(asked);
        self.goes_to(State::ExpectApproval {
            asked,
            origin,
            rest,
        })
    }

    fn conclude(&mut self, asked: Request, origin: Origin, approved: Approved) {
        let failed = |failure: String, open: &mut BTreeMap<RequestId, Open>| {
            if let Some(open) = open.get_mut(&asked.id) {
                open.failure = Some(failure);
            }
        };
        match approved {
            Approved::Done => {
                self.handled.insert(asked.id.clone());
                self.open.remove(&asked.id);
                self.approvals += 1;
                if origin == Origin::Gated {
                    self.reentry = self.pace.reentry_rounds;
                }
                self.notes.push(Note::Approved(asked));
            }
            Approved::Failed(why) => {
                failed(why.clone(), &mut self.open);
                self.notes.push(Note::ApprovalFailed(asked, why));
            }
            Approved::TimedOut => {
                failed("timeout".to_owned(), &mut self.open);
                self.notes.push(Note::ApprovalTimedOut(asked));
            }
        }
    }

    fn round_is_done(&mut self, now: Duration, origin: Origin) -> Step {
        let planned = match self.mode {
            Mode::Fast if self.watched && !self.owes() => self.pace.watched_fast_interval,
            Mode::Fast => self.pace.fast_interval,
            Mode::Slow if self.watched && !self.owes() => self.pace.watched_slow_interval,
            Mode::Slow => self.pace.slow_interval,
        };
        match origin {
            // The list itself was refused: nothing is known of what waits.
            Origin::Gated => self.wait(now, self.early(planned)),
            Origin::Listed | Origin::Sighted => self.rest(now, planned),
        }
    }

    /// Whether something waits that ought to have been approved.
    fn owes(&self) -> bool {
        let mut open = self.open.values();
        open.any(|open| open.refused.is_none() && !self.handled.contains(&open.request.id))
    }

    /// Waits for as long as planned, or for less while early rounds are left. Where requests are seen without asking, a
    /// round need not come early unless one failed.
    fn rest(&mut self, now: Duration, planned: Duration) -> Step {
        if self.watched && !self.owes() {
            self.reentry = 0;
        }
        let wait = self.early(planned);
        self.reentry = self.reentry.saturating_sub(1);
        self.wait(now, wait)
    }

    fn early(&self, planned: Duration) -> Duration {
        if self.reentry > 0 {
            planned.min(self.pace.reentry_interval)
        } else {
            planned
        }
    }

    fn wait(&mut self, now: Duration, wait: Duration) -> Step {
        let at = now.saturating_add(wait);
        let at = self.pace.deadline.map_or(at, |deadline| at.min(deadline));
        self.goes_to(State::ExpectWake { at })
    }

    fn sighted(&mut self, now: Duration, at: Duration, sighting: Sighting) -> Step {
        let new = match sighting {
            Sighting::Requests(requests) => {
                let mut new = requests;
                new.retain(|request| self.is_news(request));
                new.truncate(Listing::MOST);
                if new.is_empty() {
                    return self.goes_to(State::ExpectWake { at });
                }
                Some(new)
            }
            Sighting::Something => None,
        };
        if now < self.next_sighted_at {
            let at = at.min(self.next_sighted_at);
            return self.goes_to(State::ExpectWake { at });
        }
        self.next_sighted_at = now.saturating_add(self.pace.sighting_gap);
        let Some(new) = new else {
            return self.begin(now);
        };
        self.quiet = 0;
        let mut allowed = self.judged(now, new);
        if allowed.is_empty() {
            return self.goes_to(State::ExpectWake { at });
        }
        allowed.truncate(self.pace.most_approvals);
        self.approve_next(now, Origin::Sighted, allowed.into())
    }

    /// A request that the gateway approves by itself is gone in a moment, and one that was tried has its round.
    fn is_news(&self, request: &Request) -> bool {
        !request.silent
            && !self.handled.contains(&request.id)
            && !self.tried.contains_key(&request.id)
    }
}

impl Mode {
    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Slow => "slow",
        }
    }
}

impl fmt::Display for Slowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BrowserPaired => f.write_str("browser pairing converged"),
            Self::Deadline => f.write_str("fast-mode deadline reached"),
            Self::DevicesPaired(count) => write!(f, "devices paired ({count})"),
            Self::RequestsApproved => f.write_str("non-browser pairing converged"),
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = |request: &Request| {
            let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "?".to_owned());
            format!(
                "request={} client={} mode={}",
                request.id,
                text(&request.client_id),
                text(&request.client_mode)
            )
        };
        match self {
            Self::Approved(request) => write!(f, "approved {}", named(request)),
            Self::ApprovalFailed(request, why) => {
                write!(f, "approve failed {}: {why}", named(request))
            }
            Self::ApprovalTimedOut(request) => {
                write!(f, "timeout calling devices approve {}", named(request))
            }
            Self::DeadlineReached { approvals } => {
                write!(f, "watcher deadline reached approvals={approvals}")
            }
            Self::Listed { pending, paired } => {
                write!(f, "listed pending={pending} paired={paired}")
            }
            Self::ListFailed(why) => write!(f, "devices list failed: {why}"),
            Self::ListTimedOut => f.write_str("timeout calling devices list"),
            Self::Refused(request, reason) => write!(f, "refused {}: {reason}", named(request)),
            Self::Slowed { why, approvals } => {
                write!(f, "{why}; switching to slow mode approvals={approvals}")
            }
        }
    }
}
