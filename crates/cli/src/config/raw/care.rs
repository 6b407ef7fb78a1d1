//! The tables about the care taken of providers and callers.

use std::time::Duration;

use farrier_gateway::config::Need;

use super::super::given::Absent::{Means, Required};
use super::super::given::{At, Given, Key};
use super::WAIT;

/// `[gateway.per_caller]`
#[derive(Debug, Default)]
pub(in super::super) struct RawPerCaller {
    pub(in super::super) max_concurrent: Option<At<u64>>,
    pub(in super::super) requests_per_minute: Option<At<u64>>,
}

/// `[provider.retry]`
#[derive(Debug, Default)]
pub(in super::super) struct RawRetry {
    pub(in super::super) attempts: Option<At<u64>>,
    pub(in super::super) backoff: Option<At<Duration>>,
    pub(in super::super) max_wait: Option<At<Duration>>,
    pub(in super::super) statuses: Option<Vec<At<u64>>>,
    pub(in super::super) percent: Option<At<u64>>,
    pub(in super::super) per_minute: Option<At<u64>>,
}

/// `[provider.breaker]`
#[derive(Debug, Default)]
pub(in super::super) struct RawBreaker {
    pub(in super::super) enabled: Option<At<bool>>,
    pub(in super::super) failures: Option<At<u64>>,
    pub(in super::super) cool_down: Option<At<Duration>>,
}

/// `[[route.fallbacks]]`
#[derive(Debug, Default)]
pub(in super::super) struct RawFallback {
    pub(in super::super) provider: Option<At<String>>,
    pub(in super::super) upstream_model: Option<At<String>>,
}

/// The needs that a fallback may answer.
pub(super) fn needs(given: &mut Given<'_>) -> Vec<At<Need>> {
    let names: Vec<String> = Need::ALL
        .iter()
        .map(|(name, _)| format!("{name:?}"))
        .collect();
    let expected = format!("one of {}", names.join(", "));
    given.list(&expected, |text| {
        let named = Need::ALL.iter().find(|(name, _)| *name == text);
        named.map(|(_, need)| *need)
    })
}

/// More than anyone waits for, and what HTTP calls a failure.
const ATTEMPTS: std::ops::RangeInclusive<u64> = 1..=10;
const FAILURES: std::ops::RangeInclusive<u64> = 400..=599;
const PERCENT: std::ops::RangeInclusive<u64> = 0..=100;
const PER_MINUTE: std::ops::RangeInclusive<u64> = 0..=1_000_000;

pub(super) const PER_CALLER: &[Key<RawPerCaller>] = &[
    Key {
        name: "max_concurrent",
        also: &["concurrency"],
        takes: "a number",
        absent: Means("no limit"),
        doc: "Requests that a caller may have under way; one more is refused with 429.",
        read: |raw, given| raw.max_concurrent = given.count(),
    },
    Key {
        name: "requests_per_minute",
        also: &["rpm", "rate_limit"],
        takes: "a number",
        absent: Means("no limit"),
        doc: "Requests that a caller may make in a minute, all at once or evenly; one more is refused with 429.",
        read: |raw, given| raw.requests_per_minute = given.count(),
    },
];

pub(super) const RETRY: &[Key<RawRetry>] = &[
    Key {
        name: "attempts",
        also: &["max_attempts", "retries"],
        takes: "a number",
        absent: Means("`3`"),
        doc: "How often a request is sent in all; `1` is never again.",
        read: |raw, given| raw.attempts = given.number(ATTEMPTS),
    },
    Key {
        name: "backoff",
        also: &["delay"],
        takes: "a time",
        absent: Means("`\"250ms\"`"),
        doc: "The longest wait before the second attempt, where the provider names none; twice that before the third.",
        read: |raw, given| raw.backoff = given.duration(WAIT),
    },
    Key {
        name: "max_wait",
        also: &["max_delay", "max_backoff"],
        takes: "a time",
        absent: Means("`\"10s\"`"),
        doc: "The longest wait at all; a reply that asks for a longer one is passed on.",
        read: |raw, given| raw.max_wait = given.duration(WAIT),
    },
    Key {
        name: "statuses",
        also: &["on", "codes"],
        takes: "a list of numbers",
        absent: Means("`[429, 503, 529]`"),
        doc: "Replies after which a request is sent again.",
        read: |raw, given| raw.statuses = Some(given.numbers(FAILURES)),
    },
    Key {
        name: "percent",
        also: &["budget"],
        takes: "a number",
        absent: Means("`20`"),
        doc: "Retries for each hundred requests.",
        read: |raw, given| raw.percent = given.number(PERCENT),
    },
    Key {
        name: "per_minute",
        also: &[],
        takes: "a number",
        absent: Means("`10`"),
        doc: "Retries in a minute besides these, so that few requests are retried too; with 0 none ever is.",
        read: |raw, given| raw.per_minute = given.number(PER_MINUTE),
    },
];

pub(super) const BREAKER: &[Key<RawBreaker>] = &[
    Key {
        name: "enabled",
        also: &[],
        takes: "`true` or `false`",
        absent: Means("`true`"),
        doc: "Whether it is ever left alone.",
        read: |raw, given| raw.enabled = given.truth(),
    },
    Key {
        name: "failures",
        also: &["threshold"],
        takes: "a number",
        absent: Means("`10`"),
        doc: "Failures in a row after which it is: no reply, 502, 503, 504 or 529.",
        read: |raw, given| raw.failures = given.count(),
    },
    Key {
        name: "cool_down",
        also: &["cooldown", "timeout"],
        takes: "a time",
        absent: Means("`\"10s\"`"),
        doc: "For how long, before one request tries it; up to a fifth longer.",
        read: |raw, given| raw.cool_down = given.duration(WAIT),
    },
];

pub(super) const FALLBACK: &[Key<RawFallback>] = &[
    Key {
        name: "provider",
        also: &["upstream"],
        takes: "a provider's name",
        absent: Required,
        doc: "Who answers.",
        read: |raw, given| raw.provider = given.text(),
    },
    Key {
        name: "upstream_model",
        also: &["model", "target_model"],
        takes: "a model name",
        absent: Means("the same as the route's `model`"),
        doc: "What the provider calls it. It is sent what this model must be sent.",
        read: |raw, given| raw.upstream_model = given.text(),
    },
];
