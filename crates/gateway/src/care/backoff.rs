//! How long to wait before a request is sent again.
//!
//! What the provider asks for, in the ways that clients of OpenAI's and Anthropic's APIs know: `retry-after-ms`, then
//! `retry-after` in seconds or as a date (RFC 9110 §10.2.3). A date is read by the provider's own clock, which is in
//! `date`. Without either: anything from nothing to a bound that doubles with each attempt ("full jitter"), so that those
//! who failed together do not come back together.

use std::time::Duration;

use http::header::{DATE, HeaderMap, HeaderName, RETRY_AFTER};

use crate::config::Retry;

/// How long a provider wants to be left alone; none if it does not say, or not in a way that is understood.
pub(super) fn asked_for(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &HeaderName| headers.get(name)?.to_str().ok();
    if let Some(millis) = text(&RETRY_AFTER_MS).and_then(|text| text.trim().parse::<f64>().ok()) {
        return Duration::try_from_secs_f64(millis / 1000.0).ok();
    }
    let after = text(&RETRY_AFTER)?.trim();
    if let Ok(seconds) = after.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let at = httpdate::parse_http_date(after).ok()?;
    let now = httpdate::parse_http_date(text(&DATE)?).ok()?;
    Some(at.duration_since(now).unwrap_or_default())
}

/// Whether the provider says that another attempt is of no use, as the clients just named understand it.
pub(super) fn is_useless(headers: &HeaderMap) -> bool {
    headers
        .get(&SHOULD_RETRY)
        .is_some_and(|value| value == "false")
}

/// A wait before the attempt after `attempt`, counted from 1. `random` is any number.
pub(super) fn full_jitter(terms: &Retry, attempt: u32, random: u64) -> Duration {
    let doubled = 1u32
        .checked_shl(attempt.saturating_sub(1))
        .unwrap_or(u32::MAX);
    let bound = terms.backoff.saturating_mul(doubled).min(terms.max_wait);
    fraction(bound, random)
}

/// A part of `whole`, as `random` has it.
pub(super) fn fraction(whole: Duration, random: u64) -> Duration {
    let nanos = whole.as_nanos() * u128::from(random) / u128::from(u64::MAX);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn asked(fields: &[(&'static str, &'static str)]) -> Option<Duration> {
        let headers = fields.iter().map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        });
        asked_for(&headers.collect())
    }

    #[test]
    fn what_the_provider_asks_for_is_understood_in_each_of_its_forms() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(asked(&[("retry-after", "7")]), seconds(7));
        assert_eq!(
            asked(&[("retry-after", "0.5")]),
            Some(Duration::from_millis(500))
        );
        assert_eq!(
            asked(&[("retry-after", "7"), ("retry-after-ms", "1500")]),
            Some(Duration::from_millis(1500))
        );
        let date = ("date", "Fri, 20 Nov 2026 10:00:00 GMT");
        assert_eq!(
            asked(&[date, ("retry-after", "Fri, 20 Nov 2026 10:01:30 GMT")]),
            seconds(90)
        );
        assert_eq!(
            asked(&[date, ("retry-after", "Fri, 20 Nov 2026 09:00:00 GMT")]),
            seconds(0)
        );
    }

    #[test]
    fn what_is_not_understood_is_not_asked_for() {
        assert_eq!(asked(&[]), None);
        for text in [
            "soon",
            "-1",
            "nan",
            "inf",
            "1e300",
            "",
            "Fri, 20 Nov 2026 10:01:30 GMT",
        ] {
            assert_eq!(asked(&[("retry-after", text)]), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_wait_is_within_its_bound(attempt in 1..100u32, random: u64) {
            let terms = Retry::default();
            let wait = full_jitter(&terms, attempt, random);
            let doubled = terms.backoff.saturating_mul(1 << (attempt - 1).min(20));
            prop_assert!(wait <= doubled.min(terms.max_wait), "{wait:?}");
        }
    }

    #[test]
    fn waits_reach_from_nothing_to_a_bound_that_doubles() {
        let terms = Retry::default();
        assert_eq!(full_jitter(&terms, 1, 0), Duration::ZERO);
        assert_eq!(full_jitter(&terms, 1, u64::MAX), terms.backoff);
        assert_eq!(full_jitter(&terms, 3, u64::MAX), terms.backoff * 4);
        assert_eq!(full_jitter(&terms, 64, u64::MAX), terms.max_wait);
    }
}
