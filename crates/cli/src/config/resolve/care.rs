//! What is typed about the care of providers and callers, over its defaults.

use std::num::{NonZeroU32, NonZeroUsize};

use farrier_gateway::config::{
    Breaker, CallerLimits, Care, Concurrency, Fallback, PublicRoute, Retry,
};

use super::super::given::At;
use super::super::mistakes::Mistake;
use super::super::raw::{RawBreaker, RawFallback, RawProvider, RawRetry};
use super::{set, set_size};

pub(super) fn caller_limits(
    max_concurrent: Option<&At<u64>>,
    requests_per_minute: Option<&At<u64>>,
) -> CallerLimits {
    CallerLimits {
        max_concurrent: max_concurrent.map(|at| size(at.value)),
        requests_per_minute: requests_per_minute.map(|at| count(at.value)),
    }
}

/// How a provider is treated. A queue without a limit that fills it is a mistake.
pub(super) fn of_provider(raw: &RawProvider, mistakes: &mut Vec<Mistake>) -> Care {
    let queue = [
        ("max_queued", raw.max_queued.as_ref().map(|at| at.line)),
        ("queue_wait", raw.queue_wait.as_ref().map(|at| at.line)),
    ];
    if raw.max_concurrent.is_none() {
        for (key, line) in queue {
            let message =
                || format!("expected max_concurrent with {key} in [[provider]], got none");
            mistakes.extend(line.map(|line| Mistake::at(line, message())));
        }
    }
    let concurrency = raw.max_concurrent.as_ref().map(|max| {
        let mut concurrency = Concurrency::of(size(max.value));
        set_size(&mut concurrency.max_queued, raw.max_queued.clone());
        set(&mut concurrency.max_wait, raw.queue_wait.clone());
        concurrency
    });
    Care {
        concurrency,
        retry: retry(&raw.retry),
        breaker: breaker(&raw.breaker),
    }
}

fn retry(raw: &RawRetry) -> Retry {
    let mut retry = Retry::default();
    set(&mut retry.backoff, raw.backoff.clone());
    set(&mut retry.max_wait, raw.max_wait.clone());
    if let Some(attempts) = &raw.attempts {
        retry.attempts = count(attempts.value);
    }
    if let Some(statuses) = &raw.statuses {
        let statuses = statuses.iter().map(|at| u16::try_from(at.value));
        retry.statuses = statuses.flatten().collect();
    }
    let small = |at: &At<u64>| u32::try_from(at.value).unwrap_or(u32::MAX);
    retry.percent = raw.percent.as_ref().map_or(retry.percent, small);
    retry.per_minute = raw.per_minute.as_ref().map_or(retry.per_minute, small);
    retry
}

fn breaker(raw: &RawBreaker) -> Option<Breaker> {
    let mut breaker = Breaker::default();
    if let Some(failures) = &raw.failures {
        breaker.failures = count(failures.value);
    }
    set(&mut breaker.cool_down, raw.cool_down.clone());
    let enabled = raw.enabled.as_ref().is_none_or(|enabled| enabled.value);
    enabled.then_some(breaker)
}

/// Those that are whole, with their lines.
pub(super) fn fallbacks(raw: Vec<At<RawFallback>>) -> Vec<At<Fallback>> {
    let fallbacks = raw.into_iter().filter_map(|At { value, line }| {
        let fallback = Fallback {
            provider: value.provider?.value,
            upstream_model: value.upstream_model.map(|model| model.value),
        };
        Some(At {
            value: fallback,
            line,
        })
    });
    fallbacks.collect()
}

/// What clients were told of a route, if that is not what they were told of all.
pub(super) fn public_of_route(
    all: &PublicRoute,
    (provider_key, base_url): (Option<At<String>>, Option<At<String>>),
) -> Option<PublicRoute> {
    if provider_key.is_none() && base_url.is_none() {
        return None;
    }
    let mut public = all.clone();
    set(&mut public.provider_key, provider_key);
    set(&mut public.base_url, base_url);
    Some(public)
}

/// A count is at least one wherever it is read.
fn count(value: u64) -> NonZeroU32 {
    let value = u32::try_from(value).unwrap_or(u32::MAX);
    NonZeroU32::new(value).unwrap_or(NonZeroU32::MIN)
}

fn size(value: u64) -> NonZeroUsize {
    let value = usize::try_from(value).unwrap_or(usize::MAX);
    NonZeroUsize::new(value).unwrap_or(NonZeroUsize::MIN)
}
