//! One pass over what waits, before somebody is connected. It always ends in time, and never fails.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, timeout_at};

use crate::decide::{Decision, Policy, Reason};
use crate::driver::Harness;
use crate::request::{Listing, Request, RequestId};
use crate::runner::{Runner, TIMED_OUT};

/// How much a pass may do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// How long a list may take.
    pub list_timeout: Duration,
    /// How long an approval may take.
    pub approve_timeout: Duration,
    /// Approvals, whether they succeed or not.
    pub most_attempts: usize,
    /// How long the pass may take in all.
    pub outer: Duration,
}

/// What a pass did.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Passed {
    /// Approvals that were tried.
    pub attempts: usize,
    /// Requests that were approved.
    pub approved: Vec<RequestId>,
    /// Requests that are left to a person, each with the reason.
    pub refused: Vec<(RequestId, Reason)>,
    /// Requests whose approval failed, each with what was said.
    pub failed: Vec<(RequestId, String)>,
    /// Why requests could not be listed, if they could not.
    pub unlisted: Option<String>,
    /// Whether something was left because the pass had done or taken as much as it may.
    pub cut_short: bool,
}

impl Limits {
    /// Before somebody is connected. The second attempt is for a request that the first replaced by another.
    #[must_use]
    pub fn connect() -> Self {
        Self {
            list_timeout: Duration::from_secs(5),
            approve_timeout: Duration::from_secs(10),
            most_attempts: 2,
            outer: Duration::from_secs(20),
        }
    }

    /// For a repair that somebody asked for. One call takes two to three seconds.
    #[must_use]
    pub fn repair() -> Self {
        Self {
            most_attempts: 8,
            outer: Duration::from_secs(60),
            ..Self::connect()
        }
    }
}

/// Approves what waits and may be approved.
///
/// Safe to drop; the call that runs then is ended.
pub async fn pass(
    harness: &Harness,
    runner: &impl Runner,
    policy: &Policy,
    limits: Limits,
) -> Passed {
    let deadline = Instant::now() + limits.outer;
    let mut pass = Pass {
        harness,
        runner,
        policy,
        limits,
        seen: BTreeSet::new(),
        passed: Passed::default(),
    };
    if timeout_at(deadline, pass.go()).await.is_err() {
        pass.passed.cut_short = true;
    }
    pass.passed
}

struct Pass<'a, R> {
    harness: &'a Harness,
    runner: &'a R,
    policy: &'a Policy,
    limits: Limits,
    seen: BTreeSet<RequestId>,
    passed: Passed,
}

impl<R: Runner> Pass<'_, R> {
    /// An approval that failed may have replaced its request: then there is another to list.
    async fn go(&mut self) {
        loop {
            let Some(listing) = self.list().await else {
                return;
            };
            let failures = self.passed.failed.len();
            self.approve_all(listing.pending).await;
            let left = self.passed.attempts < self.limits.most_attempts;
            if self.passed.failed.len() == failures || !left {
                return;
            }
        }
    }

    async fn list(&mut self) -> Option<Listing> {
        let called = self.harness.list(self.limits.list_timeout);
        let listing = match self.runner.run(called).await {
            Ok(output) if output.code == 0 => {
                Listing::parse(&output.stdout).map_err(|error| error.to_string())
            }
            Ok(output) if output.code == TIMED_OUT => Err("timeout".to_owned()),
            Ok(output) => Err(self.harness.quoted(&output)),
            Err(error) => Err(error.to_string()),
        };
        listing.map_err(|why| self.passed.unlisted = Some(why)).ok()
    }

    async fn approve_all(&mut self, pending: Vec<Request>) {
        for request in pending {
            if !self.seen.insert(request.id.clone()) {
                continue;
            }
            if let Decision::Refuse(reason) = self.policy.decide(&request) {
                self.passed.refused.push((request.id, reason));
            } else if self.passed.attempts < self.limits.most_attempts {
                self.passed.attempts += 1;
                self.approve(request.id).await;
            } else {
                self.passed.cut_short = true;
            }
        }
    }

    async fn approve(&mut self, id: RequestId) {
        let called = self.harness.approve(&id, self.limits.approve_timeout);
        match self.runner.run(called).await {
            Ok(output) if output.code == 0 => self.passed.approved.push(id),
            Ok(output) if output.code == TIMED_OUT => {
                self.passed.failed.push((id, "timeout".to_owned()));
            }
            Ok(output) => self.passed.failed.push((id, self.harness.quoted(&output))),
            Err(error) => self.passed.failed.push((id, error.to_string())),
        }
    }
}

/// One line for each thing that somebody should know; nothing where there was nothing to do.
impl fmt::Display for Passed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = Vec::new();
        lines.extend(
            self.unlisted
                .iter()
                .map(|why| format!("cannot list devices: {why}")),
        );
        lines.extend(self.approved.iter().map(|id| format!("approved {id}")));
        lines.extend(
            self.refused
                .iter()
                .map(|(id, reason)| format!("left to you: {id}: {reason}")),
        );
        lines.extend(
            self.failed
                .iter()
                .map(|(id, why)| format!("approval failed: {id}: {why}")),
        );
        if self.cut_short {
            lines.push("not everything was tried; the watcher goes on with it".to_owned());
        }
        f.write_str(&lines.join("\n"))
    }
}
