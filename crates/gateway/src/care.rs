//! The care taken around providers and callers.
//!
//! ```text
//! caller ─▶ allowance ─▶ target of the route ─▶ gate ─▶ breaker ─▶ provider
//!             │ 429          ▲      ▲             │        │          │ no reply, or one of a few statuses
//!             ▼              │      └─ wait ◀──────────────────────────┤ budget, attempts, time left
//!          the client        └──────── next target ◀──────┴───────────┘ out of these, and in need
//! ```
//!
//! In: a request for one target, whose it is, until when. Out: a provider's reply, or what kept it from one.
//!
//! * **Before the first byte only.** What was given to a client is never tried again.
//! * **The provider's word stands.** Out of attempts, its own last answer goes to the client as it came.
//! * **Nothing is made worse.** Retries are a share of what is asked; a provider that fails is left alone; who waits,
//!   waits in bounded queues for a bounded time.
//! * **Nothing configured costs nothing:** no lock and no allocation is taken for what is not limited.
//!
//! What is known of providers and callers is kept by name in [`Known`] and outlasts a change of configuration. Breakers
//! are kept for each model of a provider, since one model's failure is not another's; places and budgets for the provider
//! as a whole.

mod allowance;
mod approach;
mod backoff;
mod breaker;
mod budget;
mod gate;
mod line;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::StatusCode;
use tokio::time::Instant;

pub(crate) use allowance::{Admission, Allowances, Exceeded, Used};
pub(crate) use approach::{Approach, Errand, Outgoing, Replay, Reply};
pub(crate) use breaker::State;
pub(crate) use gate::{Busy, Place};

use crate::config::{Config, Need, Provider};
use crate::metrics::Metrics;
use crate::rescue::Cause;
use crate::seed::Seeds;
use crate::upstream::{Upstream, UpstreamFault};
use breaker::Breaker;
use budget::Budget;
use gate::Gate;

/// What is known of providers and callers, whatever the configuration.
#[derive(Debug)]
pub(crate) struct Known {
    providers: Mutex<Providers>,
    pub(crate) used: Arc<Used>,
}

#[derive(Debug, Default)]
struct Providers {
    /// By provider and model.
    breakers: HashMap<(Arc<str>, Arc<str>), Watched>,
    budgets: HashMap<Arc<str>, Arc<Budget>>,
    gates: HashMap<Arc<str>, Arc<Gate>>,
}

/// A breaker, and of what.
#[derive(Debug)]
struct Watched {
    breaker: Arc<Breaker>,
    base_url: String,
    address: Option<SocketAddr>,
}

/// What ways to providers are made of.
#[derive(Clone, Copy)]
pub(crate) struct Ways<'a> {
    pub(crate) config: &'a Config,
    pub(crate) known: &'a Known,
    pub(crate) metrics: &'a Arc<Metrics>,
    pub(crate) seeds: &'a Arc<Seeds>,
}

/// Whether a provider says that the request is not for it: of the key, the account or the model it was asked with. Said by
/// a fallback, that is of no use to a client whose own provider was only busy.
pub(crate) fn is_misdirected(status: StatusCode) -> bool {
    matches!(
        need_after(Ok(status)),
        Some(Need::NotFound | Need::Unauthorized)
    )
}

/// The one of two outcomes that the client is given: a provider's own answer before any of ours, and of these what was
/// seen of a provider before what was only known of it; else the later.
pub(crate) fn prefer<T>(earlier: Result<T, Cause>, later: Result<T, Cause>) -> Result<T, Cause> {
    match (earlier, later) {
        (_, Ok(later)) => Ok(later),
        (Ok(earlier), Err(_)) => Ok(earlier),
        (
            Err(Cause::LeftAlone {
                left: one,
                provider,
            }),
            Err(Cause::LeftAlone { left: other, .. }),
        ) => Err(Cause::LeftAlone {
            left: one.min(other),
            provider,
        }),
        (Err(earlier), Err(Cause::Busy { .. } | Cause::Compat(_) | Cause::LeftAlone { .. })) => {
            Err(earlier)
        }
        (Err(_), Err(later)) => Err(later),
    }
}

/// What is missing that another provider might have; none if the request itself is at fault, or nothing is.
pub(crate) fn need_after(outcome: Result<StatusCode, &Cause>) -> Option<Need> {
    match outcome {
        Ok(StatusCode::TOO_MANY_REQUESTS) => Some(Need::RateLimited),
        Ok(StatusCode::NOT_FOUND) => Some(Need::NotFound),
        Ok(StatusCode::UNAUTHORIZED | StatusCode::PAYMENT_REQUIRED | StatusCode::FORBIDDEN) => {
            Some(Need::Unauthorized)
        }
        Ok(status) if status.as_u16() >= 500 => Some(Need::ServerError),
        Ok(_) => None,
        Err(Cause::Busy { .. }) => Some(Need::Busy),
        Err(Cause::LeftAlone { .. }) => Some(Need::Open),
        Err(Cause::Upstream(error)) => match error.fault {
            UpstreamFault::ConnectTimedOut { .. }
            | UpstreamFault::HeadTimedOut { .. }
            | UpstreamFault::OutOfTime { .. } => Some(Need::Timeout),
            UpstreamFault::Closed
            | UpstreamFault::ClosedToo
            | UpstreamFault::ClosedWhileKept
            | UpstreamFault::NotHttp
            | UpstreamFault::Refused
            | UpstreamFault::Unreachable { .. }
            | UpstreamFault::Untrusted { .. } => Some(Need::Unreachable),
            _ => None,
        },
        Err(_) => None,
    }
}

// === impl Known ===

impl Known {
    pub(crate) fn new() -> Self {
        Self {
            providers: Mutex::default(),
            used: Arc::new(Used::new(Instant::now())),
        }
    }

    /// Forgets the breakers that no gateway has any more, and takes them off the metrics page.
    pub(crate) fn prune(&self, metrics: &Metrics) {
        let mut known = self.locked();
        known.breakers.retain(|(provider, model), watched| {
            let is_used = Arc::strong_count(&watched.breaker) > 1;
            if !is_used {
                metrics.care.forget_breaker(provider, model);
            }
            is_used
        });
    }

    fn locked(&self) -> MutexGuard<'_, Providers> {
        self.providers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Watched ===

impl Watched {
    /// What is known of a provider at one place says nothing of another that took its name.
    fn is_of(&self, provider: &Provider) -> bool {
        self.base_url == provider.base_url && self.address == provider.address
    }
}

// === impl Ways ===

impl Ways<'_> {
    /// The way to a model of a provider. Takes effect on requests that are under way: they share its places.
    pub(crate) fn to(
        &self,
        provider: &Provider,
        upstream: &Arc<Upstream>,
        model: &str,
    ) -> Approach {
        let name = &upstream.name;
        let deadlines = &self.config.deadlines;
        let mut known = self.known.locked();
        let care = &provider.care;
        let breaker = care.breaker.clone().map(|terms| {
            let model: Arc<str> = model.into();
            let new = || Watched {
                breaker: Arc::new(Breaker::new(self.metrics.care.breaker(name, &model))),
                base_url: provider.base_url.clone(),
                address: provider.address,
            };
            let watched = known.breakers.entry((Arc::clone(name), Arc::clone(&model)));
            let watched = watched.or_insert_with(new);
            if !watched.is_of(provider) {
                *watched = new();
            }
            (Arc::clone(&watched.breaker), terms)
        });
        let budget = known.budgets.entry(Arc::clone(name));
        let budget = budget.or_insert_with(|| Arc::new(Budget::new(&care.retry, Instant::now())));
        Approach {
            breaker,
            budget: Arc::clone(budget),
            gate: self.gate(provider, name, &mut known),
            retry: care.retry.clone(),
            upstream: Arc::clone(upstream),
            is_hasty: deadlines.first_byte > deadlines.reply,
            patience: deadlines.first_byte.min(deadlines.reply),
            metrics: Arc::clone(self.metrics),
            seeds: Arc::clone(self.seeds),
        }
    }

    /// The gate of a provider with a limited number of places; one that has no limit any more lets everyone in who
    /// waits.
    fn gate(
        &self,
        provider: &Provider,
        name: &Arc<str>,
        known: &mut Providers,
    ) -> Option<approach::Entrance> {
        let Some(terms) = &provider.care.concurrency else {
            if let Some(gate) = known.gates.get(name) {
                gate.resize(usize::MAX, 0);
            }
            return None;
        };
        let (places, max_queued) = (terms.max.get(), terms.max_queued);
        let gate = match known.gates.get(name) {
            Some(gate) => {
                gate.resize(places, max_queued);
                Arc::clone(gate)
            }
            None => {
                let metrics = self.metrics.care.gate(name);
                let gate = Arc::new(Gate::new(places, max_queued, metrics));
                known.gates.insert(Arc::clone(name), Arc::clone(&gate));
                gate
            }
        };
        Some(approach::Entrance {
            gate,
            max_wait: terms.max_wait,
        })
    }
}
