//! Drives the machine: its clock, its calls, and what is seen of the state directory meanwhile.
//!
//! ```text
//!            ┌──────── Step ────────┐
//!            ▼                      │
//! list, approve ──Runner──▶ Event ──▶ Machine ──▶ Note ──▶ Observer
//! wait ── inotify, timer ──▶ Event ─┘
//! ```
//!
//! One call at a time. A sighting during a call is not lost: what is seen is what waits, and it is looked at again before
//! each wait.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::fmt;
use std::future::Future;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::bootstrap;
use crate::decide::Policy;
use crate::machine::{Approved, Event, Listed, Machine, Note, Open, Sighting, Step};
use crate::memory::Remembered;
use crate::pace::Pace;
use crate::recovery::{Recovery, recover};
use crate::report::{Happened, Pairing, Record, Standing, Waiting, Watching};
use crate::request::{Listing, Request, RequestId, shown};
use crate::runner::{Invocation, Output, Runner, TIMED_OUT};
use crate::state::{Look, Looking, StateDir};
use crate::version::Version;
use crate::wakes::Wakes;

/// How a harness's command is called, and what is known of the harness.
#[derive(Clone)]
pub struct Harness {
    /// The program, and arguments that come before all others.
    pub command: Vec<OsString>,
    /// All of its environment.
    pub env: Vec<(OsString, OsString)>,
    /// Where it keeps its state, if that can be seen from here.
    pub state: Option<StateDir>,
    /// Which version it is, if that is known.
    pub version: Option<Version>,
}

/// Approves a harness's own devices, for as long as it runs.
#[derive(Debug)]
pub struct Watcher<R> {
    /// How the harness is called.
    pub harness: Harness,
    /// Where.
    pub runner: R,
    /// How often.
    pub pace: Pace,
    /// What is approved.
    pub policy: Policy,
    /// Milliseconds since 1970.
    pub now_ms: fn() -> u64,
}

/// Why a watcher ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ended {
    /// Its time is over.
    Deadline,
    /// It was told to.
    Stopped,
}

/// Something to tell people.
#[derive(Clone, Debug)]
pub enum Happening {
    /// What the machine noted.
    Noted(Note),
    /// An approval that failed was made good.
    Recovered(Request, Recovery),
    /// Requests are found by what is written in the state directory.
    WatchBegan,
    /// They are found by asking, since the state directory tells of none or no more.
    WatchLost(String),
}

/// Who is told what happens.
pub trait Observer: Send {
    /// Something happened.
    fn happened(&mut self, happening: &Happening);
    /// Pairing is this way from now on.
    fn stands(&mut self, pairing: &Pairing);
}

/// What a watcher has at hand while it runs.
struct Run<'a, R, O> {
    watcher: &'a Watcher<R>,
    observer: O,
    machine: Machine,
    began: Instant,
    began_ms: u64,
    sight: Sight,
    standing: (Standing, u64),
    answered: Answered,
    records: VecDeque<Record>,
}

/// What the last list came to.
enum Answered {
    NotYet,
    No(String),
    Yes,
}

/// What is seen without asking.
struct Sight {
    state: Option<StateDir>,
    wakes: Option<Wakes>,
    looking: Option<Looking>,
    /// Requests that were seen or listed.
    known: Remembered,
    /// Requests that wait and that the machine was told of.
    told: BTreeSet<RequestId>,
    /// Looks in a row that could not read what is there.
    unreadable: u32,
    /// Requests that were listed and should have been seen before.
    unseen: u32,
    /// Whether the state directory was found not to tell of requests.
    blind: bool,
}

/// A writer has written, or the gateway has approved what it approves by itself.
const SETTLED: Duration = Duration::from_millis(50);
/// How long a file system may take to be looked at.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// Of what the harness says, as much is passed on.
const SAID_CHARS: usize = 400;
/// So many requests that were listed but not seen show that they cannot be seen.
const MOST_UNSEEN: u32 = 2;
/// So many looks in a row that could not read what is there show that it cannot be read.
const MOST_UNREADABLE: u32 = 3;
/// The command approves by itself where it is, and not through a gateway that these name.
const NOT_FOR_APPROVALS: [&str; 3] = [
    "OPENCLAW_GATEWAY_URL",
    "OPENCLAW_GATEWAY_PORT",
    "OPENCLAW_GATEWAY_TOKEN",
];
/// Parts of names whose values are nobody's to see.
const SECRET_NAMES: [&str; 4] = ["TOKEN", "PASSWORD", "SECRET", "KEY"];

// === impl Harness ===

impl Harness {
    /// Lists devices.
    #[must_use]
    pub fn list(&self, timeout: Duration) -> Invocation {
        self.call(&["devices", "list", "--json"], self.env.clone(), timeout)
    }

    /// Approves a request.
    #[must_use]
    pub fn approve(&self, id: &RequestId, timeout: Duration) -> Invocation {
        let env = self.env.iter();
        let env = env.filter(|(name, _)| !NOT_FOR_APPROVALS.iter().any(|not| name == not));
        let arguments = ["devices", "approve", id.as_str(), "--json"];
        self.call(&arguments, env.cloned().collect(), timeout)
    }

    /// Rejects a request.
    #[must_use]
    pub fn reject(&self, id: &RequestId, timeout: Duration) -> Invocation {
        let arguments = ["devices", "reject", id.as_str(), "--json"];
        self.call(&arguments, self.env.clone(), timeout)
    }

    /// Asks which version it is.
    #[must_use]
    pub fn ask_version(&self, timeout: Duration) -> Invocation {
        self.call(&["--version"], self.env.clone(), timeout)
    }

    fn call(
        &self,
        arguments: &[&str],
        env: Vec<(OsString, OsString)>,
        timeout: Duration,
    ) -> Invocation {
        let arguments = arguments.iter().map(OsString::from);
        Invocation {
            argv: self.command.iter().cloned().chain(arguments).collect(),
            env,
            timeout,
        }
    }

    /// The beginning of what the harness said, on one line and without its secrets.
    #[must_use]
    pub fn quoted(&self, output: &Output) -> String {
        let mut said = output.said();
        for (name, value) in &self.env {
            let name = name.to_string_lossy();
            let secret = SECRET_NAMES.iter().any(|part| name.contains(part));
            match value.to_str() {
                Some(value) if secret && !value.is_empty() => said = said.replace(value, "***"),
                _ => {}
            }
        }
        let line = said.split_whitespace().collect::<Vec<_>>().join(" ");
        if line.is_empty() {
            return format!("exit status {}, and no word", output.code);
        }
        shown(&line, SAID_CHARS)
    }
}

/// The names of its environment, and no values.
impl fmt::Debug for Harness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.env.iter().map(|(name, _)| name).collect();
        f.debug_struct("Harness")
            .field("command", &self.command)
            .field("env", &names)
            .field("state", &self.state)
            .field("version", &self.version)
            .finish()
    }
}

// === impl Watcher ===

impl<R: Runner> Watcher<R> {
    /// Watches until its deadline, or until `stop` resolves. A call that runs then is ended.
    ///
    /// Safe to drop; the observer is then not told that the watcher ended.
    pub async fn run(&self, observer: impl Observer, stop: impl Future<Output = ()>) -> Ended {
        let now_ms = (self.now_ms)();
        let mut run = Run {
            watcher: self,
            observer,
            machine: Machine::new(self.pace.clone(), self.policy.clone()),
            began: Instant::now(),
            began_ms: now_ms,
            sight: Sight::of(self.harness.state.clone()),
            standing: (Standing::Starting, now_ms),
            answered: Answered::NotYet,
            records: VecDeque::new(),
        };
        tokio::select! {
            () = run.drive() => Ended::Deadline,
            () = stop => {
                run.stands(Standing::Stopped);
                Ended::Stopped
            }
        }
    }
}

// === impl Run ===

impl<R: Runner, O: Observer> Run<'_, R, O> {
    async fn drive(&mut self) {
        let mut event = Event::Woken;
        loop {
            self.see_again();
            let step = self.machine.next(self.began.elapsed(), event);
            self.tell();
            event = match step {
                Step::Approve(request) => Event::Approved(self.approve(&request).await),
                Step::List => Event::Listed(self.list().await),
                Step::Wait { until } => self.wait(self.began + until).await,
                Step::Over => return,
            };
        }
    }

    async fn list(&mut self) -> Listed {
        let harness = &self.watcher.harness;
        let called = harness.list(self.watcher.pace.call_timeout);
        let output = match self.watcher.runner.run(called).await {
            Ok(output) => output,
            Err(error) => return self.unanswered(Listed::Failed(with_cause(&error))),
        };
        match output.code {
            0 => {}
            TIMED_OUT => return self.unanswered(Listed::TimedOut),
            _ => {
                let own = harness
                    .state
                    .as_ref()
                    .and_then(|state| bootstrap::own_request(&output.said(), state));
                let failed = || Listed::Failed(harness.quoted(&output));
                let listed = own.map_or_else(failed, Listed::Gated);
                return self.unanswered(listed);
            }
        }
        match Listing::parse(&output.stdout) {
            Ok(listing) => {
                let first = !matches!(self.answered, Answered::Yes);
                self.answered = Answered::Yes;
                self.compare(&listing, first).await;
                Listed::Listing(listing)
            }
            Err(error) => self.unanswered(Listed::Failed(error.to_string())),
        }
    }

    fn unanswered(&mut self, listed: Listed) -> Listed {
        self.answered = Answered::No(match &listed {
            Listed::Failed(why) => why.clone(),
            Listed::TimedOut => "timeout".to_owned(),
            Listed::Gated(_) | Listed::Listing(_) => "this device is not approved".to_owned(),
        });
        listed
    }

    async fn approve(&mut self, request: &Request) -> Approved {
        let harness = &self.watcher.harness;
        let called = harness.approve(&request.id, self.watcher.pace.call_timeout);
        let output = match self.watcher.runner.run(called).await {
            Ok(output) => output,
            Err(error) => return Approved::Failed(with_cause(&error)),
        };
        match output.code {
            0 => Approved::Done,
            TIMED_OUT => Approved::TimedOut,
            _ => match self.recovered(request, &output).await {
                Some(how) => {
                    let why = "the harness failed to; its files were made to say so".to_owned();
                    self.record(Happened::Recovered, request, why);
                    self.observer
                        .happened(&Happening::Recovered(request.clone(), how));
                    Approved::Done
                }
                None => Approved::Failed(self.watcher.harness.quoted(&output)),
            },
        }
    }

    async fn recovered(&self, request: &Request, output: &Output) -> Option<Recovery> {
        let Harness { state, version, .. } = &self.watcher.harness;
        let state = state.clone()?;
        (*version).filter(|version| Recovery::needed_by(*version))?;
        let (request, said) = (request.clone(), output.said());
        let recovery = spawn_blocking(move || recover(&state, &request, &said)).await;
        // What could not be written is as if it had not been tried.
        recovery.ok()?.ok()?
    }

    /// Waits until then, or until a request is seen.
    async fn wait(&mut self, until: Instant) -> Event {
        // What was written during the last call is seen now.
        let mut look = self.sight.is_on();
        loop {
            if look && let Some(sighting) = self.sight.look(until).await {
                if self.sight.is_worth_telling(&sighting) {
                    return Event::Sighted(sighting);
                }
                if self.sight.unreadable >= MOST_UNREADABLE {
                    self.sight.blind = true;
                    self.lose_sight("what is written there cannot be read".to_owned());
                }
            }
            look = tokio::select! {
                () = sleep_until(until) => return Event::Woken,
                told = self.sight.touched() => match told {
                    Ok(()) => {
                        sleep(SETTLED).await;
                        true
                    }
                    Err(why) => {
                        self.lose_sight(why);
                        false
                    }
                }
            };
        }
    }

    /// Notices requests that were listed and should have been seen.
    async fn compare(&mut self, listing: &Listing, first: bool) {
        if !self.sight.is_on() {
            return;
        }
        let look = self.sight.look(Instant::now() + LOOK_TIMEOUT).await;
        if matches!(look, Some(Sighting::Something)) {
            return;
        }
        for request in &listing.pending {
            if !first && !request.silent && !self.sight.known.contains(&request.id) {
                self.sight.unseen += 1;
            }
            self.sight.known.insert(request.id.clone());
        }
        if self.sight.unseen >= MOST_UNSEEN {
            self.sight.blind = true;
            self.lose_sight("requests were listed that it did not tell of".to_owned());
        }
    }

    /// Begins to watch the state directory as soon as it is there.
    fn see_again(&mut self) {
        if self.sight.begin() {
            self.machine.set_watched(true);
            self.observer.happened(&Happening::WatchBegan);
        }
    }

    fn lose_sight(&mut self, why: String) {
        self.sight.wakes = None;
        self.machine.set_watched(false);
        self.observer.happened(&Happening::WatchLost(why));
        self.stands(self.standing());
    }

    fn tell(&mut self) {
        let mut over = false;
        for note in self.machine.notes() {
            match &note {
                Note::Approved(request) => {
                    self.record(
                        Happened::Approved,
                        request,
                        "allowed by the policy".to_owned(),
                    );
                }
                Note::ApprovalFailed(request, why) => {
                    self.record(Happened::Failed, request, why.clone());
                }
                Note::ApprovalTimedOut(request) => {
                    self.record(
                        Happened::TimedOut,
                        request,
                        "the call took too long".to_owned(),
                    );
                }
                Note::Refused(request, reason) => {
                    self.record(Happened::Refused, request, reason.to_string());
                }
                Note::DeadlineReached { .. } => over = true,
                Note::Listed { .. }
                | Note::ListFailed(_)
                | Note::ListTimedOut
                | Note::Slowed { .. } => {}
            }
            self.observer.happened(&Happening::Noted(note));
        }
        self.stands(if over {
            Standing::DeadlineReached
        } else {
            self.standing()
        });
    }

    fn standing(&self) -> Standing {
        let waits = self.machine.open().any(|open| open.refused.is_none());
        match &self.answered {
            Answered::NotYet => Standing::Starting,
            Answered::No(why) => Standing::Unanswered { why: why.clone() },
            Answered::Yes if waits => Standing::Waiting,
            Answered::Yes if self.machine.paired() == 0 && self.machine.approvals() == 0 => {
                Standing::NothingPaired
            }
            Answered::Yes => Standing::Converged,
        }
    }

    fn stands(&mut self, standing: Standing) {
        if self.standing.0 != standing {
            self.standing = (standing, (self.watcher.now_ms)());
        }
        let shown = |open: &Open| Waiting {
            failure: open.failure.clone(),
            ..Waiting::of(&open.request, self.at_ms(open), open.refused.clone())
        };
        let (refused, waiting) = self
            .machine
            .open()
            .map(shown)
            .partition(|waiting| waiting.refused.is_some());
        let pairing = Pairing {
            standing: self.standing.0.clone(),
            since_ms: self.standing.1,
            mode: self.machine.mode(),
            watching: if self.sight.is_on() {
                Watching::StateDirectory
            } else {
                Watching::Polling
            },
            approvals: self.machine.approvals(),
            paired: self.machine.paired(),
            waiting,
            refused,
            recent: self.records.iter().cloned().collect(),
        };
        self.observer.stands(&pairing);
    }

    fn at_ms(&self, open: &Open) -> u64 {
        let seen = self.began_ms
            + u64::try_from(open.since.as_millis()).unwrap_or(u64::MAX - self.began_ms);
        open.request.asked_at_ms.unwrap_or(seen).min(seen)
    }

    fn record(&mut self, happened: Happened, request: &Request, why: String) {
        if self.records.len() >= Pairing::MOST_RECORDS {
            self.records.pop_front();
        }
        let at_ms = (self.watcher.now_ms)();
        self.records
            .push_back(Record::of(at_ms, happened, request, why));
    }
}

// === impl Sight ===

impl Sight {
    fn of(state: Option<StateDir>) -> Self {
        Self {
            looking: state.clone().map(Looking::at),
            state,
            wakes: None,
            known: Remembered::of_at_most(Listing::MOST * 4),
            told: BTreeSet::new(),
            unreadable: 0,
            unseen: 0,
            blind: false,
        }
    }

    fn is_on(&self) -> bool {
        self.wakes.is_some()
    }

    /// Whether watching has begun by this.
    fn begin(&mut self) -> bool {
        if self.is_on() || self.blind {
            return false;
        }
        self.wakes = self.state.as_ref().and_then(|state| Wakes::on(state).ok());
        self.is_on()
    }

    async fn touched(&mut self) -> Result<(), String> {
        match (&mut self.wakes, &self.state) {
            (Some(wakes), Some(state)) => wakes
                .touched(state)
                .await
                .map_err(|error| error.to_string()),
            _ => std::future::pending().await,
        }
    }

    /// What waits now, if that can be looked at in time. Taken beside the runtime, since a file system may not answer.
    async fn look(&mut self, until: Instant) -> Option<Sighting> {
        let mut looking = self
            .looking
            .take()
            .or_else(|| self.state.clone().map(Looking::at))?;
        let look = spawn_blocking(move || (looking.look(), looking));
        let (look, looking) = timeout_at(until, look).await.ok()?.ok()?;
        self.looking = Some(looking);
        match look {
            Look::Unreadable => {
                self.unreadable += 1;
                Some(Sighting::Something)
            }
            Look::Requests(requests) => {
                self.unreadable = 0;
                let waiting = requests.iter().filter(|request| !request.silent);
                waiting.for_each(|request| self.known.insert(request.id.clone()));
                Some(Sighting::Requests(requests))
            }
        }
    }

    /// Whether a sighting has something that the machine was not told of. What is gone is forgotten.
    fn is_worth_telling(&mut self, sighting: &Sighting) -> bool {
        let Sighting::Requests(requests) = sighting else {
            return self.unreadable < MOST_UNREADABLE;
        };
        let waiting = requests.iter().filter(|request| !request.silent);
        let waiting: BTreeSet<_> = waiting.map(|request| request.id.clone()).collect();
        let news = !waiting.is_subset(&self.told);
        self.told = waiting;
        news
    }
}

fn with_cause(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Noted(note) => note.fmt(f),
            Self::Recovered(request, how) => {
                let how = match how {
                    Recovery::Applied => "openclaw-approve-applied-after-nonzero",
                    Recovery::Original => "openclaw-approve-recovered-original",
                    Recovery::Replacement => "openclaw-approve-recovered-replacement",
                };
                write!(f, "{how} request={}", request.id)
            }
            Self::WatchBegan => f.write_str("watching the state directory"),
            Self::WatchLost(why) => write!(
                f,
                "polling, since the state directory does not tell of requests: {why}"
            ),
        }
    }
}
