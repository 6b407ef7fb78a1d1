//! Any gateways, given as URLs, compared in one interleaved run, beside the direct call.
//!
//! The upstream is ours and listens where it is told to, so that gateways can be pointed at it before or while this runs.
//! A gateway is known by its base URL alone; with the id of its process, what that process and those it started use of the
//! machine is measured too.
//!
//! Nobody knows what a strange gateway makes of a body, so its length at the upstream is told and not judged.

mod gateway;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

pub(crate) use gateway::{Gateway, Named};

use crate::clock::Clock;
use crate::contest::{Contest, Contestant, DIRECT, QUIET, Scenario};
use crate::exchange::{
    HISTORY, LONG_HISTORY, Length, NO_KEY, Script, To, chat, history, request, unknown_turns,
};
use crate::http::HttpError;
use crate::load::{Load, Timed, once};
use crate::process::{Cores, tree};
use crate::report::{Conditions, HalfReport, ScenarioReport, noise};
use crate::upstream::Upstream;

/// What to compare, and how.
#[derive(Debug)]
pub(crate) struct Comparison {
    pub(crate) gateways: Vec<Gateway>,
    /// Where the upstream listens.
    pub(crate) listen: SocketAddr,
    pub(crate) models: Vec<Named<String>>,
    /// What they are shown as a bearer token; in no report.
    pub(crate) keys: Vec<Named<Key>>,
    /// Header lines, without their ends, for all of them.
    pub(crate) headers: Vec<String>,
    pub(crate) connections: Vec<usize>,
    /// Open loops at these rates, besides the one at half of each one's limit.
    pub(crate) per_second: Vec<f64>,
    /// With whose CPU time that of the others is compared.
    pub(crate) reference: Option<String>,
    /// The core that clients and upstream are put on.
    pub(crate) core: Option<usize>,
    pub(crate) rounds: usize,
    pub(crate) slice: Duration,
    pub(crate) warm_up: Duration,
    pub(crate) more_tries: usize,
    /// Ids of what is to be measured; everything, if it names nothing.
    pub(crate) only: Vec<String>,
}

/// A secret, which shows in nothing but the request.
#[derive(Clone)]
pub(crate) struct Key(String);

/// Why nothing was compared.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CompareError {
    #[error("expected something to measure, got --only with none of {}", .0.join(", "))]
    Nothing(Vec<String>),
    #[error(
        "expected {name} to answer within {PATIENCE:?}: {source}; is it pointed at {upstream}?"
    )]
    NotReady {
        name: String,
        upstream: String,
        source: HttpError,
    },
    #[error(
        "expected every gateway under a name of its own other than \"{DIRECT}\", got \"{0}\" twice"
    )]
    Taken(String),
    #[error("expected the name of one of the gateways, got \"{0}\"")]
    Unknown(String),
    #[error("cannot measure: {0}")]
    System(#[from] io::Error),
}

/// What the comparison found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    #[serde(flatten)]
    conditions: Conditions,
    gateways: Vec<String>,
    scenarios: Vec<ScenarioReport>,
    halves: Vec<HalfReport>,
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
struct Shape {
    id: &'static str,
    what: &'static str,
    script: Script,
    history: Option<Length>,
}

const SHAPES: [Shape; 4] = [
    Shape {
        id: "chat",
        what: "1 KB chat",
        script: Script::Json,
        history: None,
    },
    Shape {
        id: "stream",
        what: "stream of 100 chunks",
        script: Script::Stream,
        history: None,
    },
    Shape {
        id: "history",
        what: "500 KB history of 200 messages",
        script: Script::Json,
        history: Some(HISTORY),
    },
    Shape {
        id: "long",
        what: "2 MB history of 800 messages",
        script: Script::Json,
        history: Some(LONG_HISTORY),
    },
];

/// How one row loads everybody.
#[derive(Clone, Copy, Debug)]
enum Loading {
    Same(Load),
    Half(Load),
}

/// Connections with which a limit is found, of which half is asked then.
const LIMIT_CONNECTIONS: usize = 16;
/// How long a gateway may take to come up.
const PATIENCE: Duration = Duration::from_secs(60);
const BETWEEN_TRIES: Duration = Duration::from_millis(250);

/// Compares; `tell` says what is being done.
pub(crate) fn run(
    comparison: &Comparison,
    conditions: Conditions,
    tell: &mut dyn FnMut(&str),
) -> Result<Report, CompareError> {
    comparison.check()?;
    if let Some(core) = comparison.core {
        Cores::enter(core)?;
    }
    let clock = Clock::start();
    let upstream = Upstream::start(comparison.listen, clock)?;
    let address = upstream.address();
    tell(&format!("the upstream listens on http://{address}/v1"));
    for gateway in &comparison.gateways {
        comparison.wait_for(gateway, address, clock)?;
    }
    let contest = Contest {
        upstream: &upstream,
        clock,
        rounds: comparison.rounds,
        slice: comparison.slice,
        warm_up: comparison.warm_up,
        more_tries: comparison.more_tries,
    };
    // The upstream ends with this program: it cannot be waited for, as gateways keep their connections to it.
    comparison.hold(&contest, conditions, tell)
}

// === impl Comparison ===

impl Comparison {
    /// To be noted before this thread is put on a core.
    pub(crate) fn conditions(&self) -> Conditions {
        Conditions::new(self.core.is_some(), self.rounds, self.slice)
    }

    fn check(&self) -> Result<(), CompareError> {
        let mut names = vec![DIRECT];
        for gateway in &self.gateways {
            if names.contains(&gateway.name.as_str()) {
                return Err(CompareError::Taken(gateway.name.clone()));
            }
            names.push(&gateway.name);
        }
        let of_models = self.models.iter().filter_map(|model| model.name.as_ref());
        let of_keys = self.keys.iter().filter_map(|key| key.name.as_ref());
        let mut named = of_models.chain(of_keys).chain(&self.reference);
        match named.find(|name| !names.contains(&name.as_str())) {
            Some(name) => Err(CompareError::Unknown(name.clone())),
            None => Ok(()),
        }
    }

    /// Until it answers: it may still be starting.
    fn wait_for(
        &self,
        gateway: &Gateway,
        upstream: SocketAddr,
        clock: Clock,
    ) -> Result<(), CompareError> {
        let chat = SHAPES.first().map(|shape| self.request(gateway, shape));
        let chat = chat.unwrap_or_default();
        let until = clock.now() + PATIENCE;
        loop {
            let Err(source) = once(&gateway.address.into(), &chat) else {
                return Ok(());
            };
            // One that answers with something else will not change its mind.
            if !matches!(source, HttpError::Io(_)) || clock.now() >= until {
                return Err(CompareError::NotReady {
                    name: gateway.name.clone(),
                    upstream: format!("http://{upstream}/v1"),
                    source,
                });
            }
            clock.wait_until(clock.now() + BETWEEN_TRIES);
        }
    }

    fn hold(
        &self,
        contest: &Contest<'_>,
        conditions: Conditions,
        tell: &mut dyn FnMut(&str),
    ) -> Result<Report, CompareError> {
        let mut report = Report {
            conditions,
            gateways: self.gateways.iter().map(Gateway::to_string).collect(),
            scenarios: Vec::new(),
            halves: Vec::new(),
        };
        let rows = self.rows();
        for (id, shape, loading) in &rows {
            if !(self.only.is_empty() || self.only.contains(id)) {
                continue;
            }
            tell(&format!("{id}: {}", shape.what));
            match loading {
                Loading::Same(load) => {
                    let scenario = self.scenario(id, shape, *load, contest)?;
                    report.scenarios.push(contest.measure(&scenario));
                }
                Loading::Half(load) => {
                    let scenario = self.scenario(id, shape, *load, contest)?;
                    report.halves.push(contest.measure_half(&scenario));
                }
            }
        }
        if report.scenarios.is_empty() && report.halves.is_empty() {
            let ids = rows.into_iter().map(|(id, ..)| id);
            return Err(CompareError::Nothing(ids.collect()));
        }
        Ok(report)
    }

    /// Every shape at every load, with the id of each.
    fn rows(&self) -> Vec<(String, &'static Shape, Loading)> {
        let closed = self.connections.iter().map(|&connections| {
            let load = Load::Closed { connections };
            (connections.to_string(), Loading::Same(load))
        });
        let half = Load::Closed {
            connections: LIMIT_CONNECTIONS,
        };
        let open = self.per_second.iter().map(|&per_second| {
            let load = Load::Open { per_second };
            (format!("at-{per_second}"), Loading::Same(load))
        });
        let half = ("half".to_owned(), Loading::Half(half));
        let loads: Vec<_> = closed.chain([half]).chain(open).collect();
        let with = |shape: &'static Shape| {
            let loads = loads.clone().into_iter();
            loads.map(move |(load, loading)| (format!("{}-{load}", shape.id), shape, loading))
        };
        SHAPES.iter().flat_map(with).collect()
    }

    fn scenario(
        &self,
        id: &str,
        shape: &Shape,
        load: Load,
        contest: &Contest<'_>,
    ) -> io::Result<Scenario> {
        let direct = Gateway::direct(contest.upstream.address());
        let mut contestants = Vec::new();
        for gateway in [&direct].into_iter().chain(&self.gateways) {
            contestants.push(Contestant {
                name: gateway.name.clone(),
                way: gateway.address.into(),
                pids: gateway.pid.map_or_else(|| Ok(Vec::new()), tree)?,
                request: self.request(gateway, shape),
                upstream_bytes: None,
            });
        }
        Ok(Scenario {
            id: id.to_owned(),
            what: shape.what.to_owned(),
            load,
            timed: Timed::Request,
            script: shape.script,
            reference: self.reference.clone(),
            contestants,
        })
    }

    fn request(&self, gateway: &Gateway, shape: &Shape) -> Vec<u8> {
        let model = Named::of(&self.models, &gateway.name).map_or("bench", String::as_str);
        let body = match shape.history {
            None => chat(model, shape.script),
            Some(length) => history(model, shape.script, length, &unknown_turns(length)),
        };
        let key = Named::of(&self.keys, &gateway.name);
        let mut lines = key.map_or_else(|| NO_KEY.to_owned(), Key::line);
        for header in &self.headers {
            lines.push_str(header);
            lines.push_str("\r\n");
        }
        let to = To {
            host: &gateway.host,
            path: &gateway.path,
            lines: &lines,
        };
        request(&to, shape.script, &body)
    }
}

// === impl Key ===

impl Key {
    /// The text of a key file; `None` if it is not one line.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let key = text.trim();
        (!key.is_empty() && !key.chars().any(char::is_control)).then(|| Self(key.to_owned()))
    }

    fn line(&self) -> String {
        format!("authorization: Bearer {}\r\n", self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.conditions)?;
        for gateway in &self.gateways {
            writeln!(f, "{gateway}")?;
        }
        for scenario in &self.scenarios {
            write!(f, "\n{scenario}")?;
        }
        for half in &self.halves {
            write!(f, "\n{half}")?;
        }
        let (all, noisy) = noise(self.scenarios.iter(), self.halves.iter());
        writeln!(
            f,
            "\nothers had more than {QUIET} of a core during {noisy} of {all} runs"
        )
    }
}

#[cfg(test)]
mod tests;
