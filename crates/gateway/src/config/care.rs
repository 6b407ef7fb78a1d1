//! What care is taken around providers and callers: how often, how many at once, and for how long.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

/// How a provider is treated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Care {
    /// How many requests it answers at once. None: as many as there are.
    pub concurrency: Option<Concurrency>,
    /// When a request is sent to it again.
    pub retry: Retry,
    /// When it is left alone for a while. None: never.
    pub breaker: Option<Breaker>,
}

/// How many requests a provider is given at once, and what becomes of more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Concurrency {
    /// Requests under way, each to the last byte of its reply.
    pub max: NonZeroUsize,
    /// Requests that may wait for one of these to end, all callers together. One too many is turned away: the latest of
    /// the caller who has most waiting.
    pub max_queued: usize,
    /// How long a request may wait.
    pub max_wait: Duration,
}

/// When a request is sent to the same provider again. Never once a byte of a reply was given to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// How often a request is sent in all.
    pub attempts: NonZeroU32,
    /// The longest wait before the second attempt, unless the provider names another; it doubles with each further one,
    /// and the wait is anything from nothing to it.
    pub backoff: Duration,
    /// The longest wait that is worth it. A provider that asks for a longer one gets its answer passed on.
    pub max_wait: Duration,
    /// Replies that say nothing was done and may be tried again.
    pub statuses: Vec<u16>,
    /// Retries allowed for a hundred requests, so that an outage is not made worse.
    pub percent: u32,
    /// Retries allowed in a minute however few the requests are.
    pub per_minute: u32,
}

/// When a provider that fails is left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breaker {
    /// Failures without a success between them.
    pub failures: NonZeroU32,
    /// How long it is left alone, before a single request tries it; up to a fifth longer, at random.
    pub cool_down: Duration,
}

/// What one caller may have. None is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallerLimits {
    /// Requests under way, each to the last byte of its reply.
    pub max_concurrent: Option<NonZeroUsize>,
    /// Requests in a minute, spread over it as they please.
    pub requests_per_minute: Option<NonZeroU32>,
}

/// The next target of a route, in case of need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fallback {
    /// The name of a [`Provider`](super::Provider).
    pub provider: String,
    /// What the provider calls the model; as clients do if absent.
    pub upstream_model: Option<String>,
}

/// What keeps a target from answering, and may send a request on to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Need {
    /// Its queue is full, or the wait in it was too long.
    Busy,
    /// It knows no such model: 404.
    NotFound,
    /// It was left alone, since it failed before.
    Open,
    /// It has had enough requests: 429.
    RateLimited,
    /// It failed: 500 and above.
    ServerError,
    /// It took too long to connect or to begin its reply.
    Timeout,
    /// It does not take our credential, or our money: 401, 402, 403.
    Unauthorized,
    /// No connection, or one that ended without a reply.
    Unreachable,
}

// === impl Need ===

impl Need {
    /// All there are, by their names.
    pub const ALL: [(&'static str, Self); 8] = [
        ("busy", Self::Busy),
        ("not_found", Self::NotFound),
        ("open", Self::Open),
        ("rate_limited", Self::RateLimited),
        ("server_error", Self::ServerError),
        ("timeout", Self::Timeout),
        ("unauthorized", Self::Unauthorized),
        ("unreachable", Self::Unreachable),
    ];

    /// Those for which nobody is to blame who calls, and nobody who configured.
    pub const USUAL: [Self; 6] = [
        Self::Busy,
        Self::Open,
        Self::RateLimited,
        Self::ServerError,
        Self::Timeout,
        Self::Unreachable,
    ];

    /// Its name in configuration files, logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        let named = Self::ALL.iter().find(|(_, need)| *need == self);
        named.map_or("", |(name, _)| name)
    }
}

// === impl CallerLimits ===

impl CallerLimits {
    /// Whether there are none.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

// === defaults ===

impl Default for Care {
    fn default() -> Self {
        Self {
            concurrency: None,
            retry: Retry::default(),
            breaker: Some(Breaker::default()),
        }
    }
}

impl Concurrency {
    /// So many at once, and a queue as large as it is usual.
    #[must_use]
    pub fn of(max: NonZeroUsize) -> Self {
        Self {
            max,
            max_queued: 256,
            max_wait: Duration::from_secs(30),
        }
    }
}

impl Retry {
    /// Every request is sent once.
    #[must_use]
    pub fn never() -> Self {
        Self {
            attempts: NonZeroU32::MIN,
            ..Self::default()
        }
    }
}

impl Default for Retry {
    /// 529 is what Anthropic's API says when it is overloaded.
    fn default() -> Self {
        Self {
            attempts: NonZeroU32::MIN.saturating_add(2),
            backoff: Duration::from_millis(250),
            max_wait: Duration::from_secs(10),
            statuses: vec![429, 503, 529],
            percent: 20,
            per_minute: 10,
        }
    }
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            failures: NonZeroU32::MIN.saturating_add(9),
            cool_down: Duration::from_secs(10),
        }
    }
}
