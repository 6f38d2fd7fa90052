//! Decides how many requests a consumer may send: so many a second for ever, so many more at once.
//!
//! A bucket for each token holds `burst` requests and is filled again by `rate` each second. Pure: time is an argument.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use uuid::Uuid;

use super::Problem;

/// Consumers remembered; with more, those whose buckets are full are forgotten.
const REMEMBERED: usize = 10_000;

/// What each consumer may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Requests a second.
    pub rate: u32,
    /// Requests at once.
    pub burst: u32,
}

/// What is left of a bucket after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Left {
    allowed: bool,
    remaining: u32,
    /// Until the bucket is full, or until a refused request may come again.
    reset: Duration,
}

/// For each consumer the moment at which its bucket is full again.
#[derive(Debug)]
pub struct Limits {
    policy: Policy,
    full_at: Mutex<BTreeMap<Uuid, Instant>>,
}

impl Limits {
    pub fn new(policy: Policy) -> Self {
        Self { policy, full_at: Mutex::default() }
    }

    /// Counts a request; `Err` when it was one too many. The headers go on either answer.
    pub(super) fn count(&self, consumer: Uuid, now: Instant) -> (HeaderMap, Result<(), Problem>) {
        let left = self.take(consumer, now);
        let seconds = left.reset.as_secs() + u64::from(left.reset.subsec_nanos() > 0);
        let mut headers = self.headers();
        headers.insert(HeaderName::from_static("ratelimit-remaining"), left.remaining.into());
        headers.insert(HeaderName::from_static("ratelimit-reset"), seconds.into());
        if left.allowed {
            return (headers, Ok(()));
        }
        let Policy { rate, burst } = self.policy;
        let detail = format!("this token may send {rate} requests a second, {burst} at once");
        let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate-limit", "Too many requests", detail)
            .remedy("wait as Retry-After says, ask for more rows in each request, or raise `serve.rate_limit`")
            .header(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        (headers, Err(problem))
    }

    /// What every answer says, also to those whom we do not know.
    pub(super) fn headers(&self) -> HeaderMap {
        let Policy { rate, burst } = self.policy;
        let policy = HeaderValue::try_from(format!("{rate};w=1;burst={burst}"));
        let mut headers = HeaderMap::from_iter([(HeaderName::from_static("ratelimit-limit"), burst.into())]);
        headers.extend(policy.map(|policy| (HeaderName::from_static("ratelimit-policy"), policy)));
        headers
    }

    fn take(&self, consumer: Uuid, now: Instant) -> Left {
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        if full_at.len() >= REMEMBERED {
            full_at.retain(|_, full| *full > now);
        }
        let each = Duration::from_secs(1) / self.policy.rate;
        let full = full_at.entry(consumer).or_insert(now);
        let next = (*full).max(now) + each;
        let missing = next.saturating_duration_since(now);
        let whole = each * self.policy.burst;
        let Some(unused) = whole.checked_sub(missing) else {
            return Left { allowed: false, remaining: 0, reset: missing.saturating_sub(whole) };
        };
        *full = next;
        let remaining = unused.as_nanos() / each.as_nanos().max(1);
        Left { allowed: true, remaining: u32::try_from(remaining).unwrap_or(u32::MAX), reset: missing }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn so_many_at_once_then_so_many_a_second_and_others_are_not_slowed() {
        let limits = Limits::new(Policy { rate: 10, burst: 3 });
        let (now, ann, bob) = (Instant::now(), Uuid::from_u128(1), Uuid::from_u128(2));
        let left: Vec<u32> = (0..3).map(|_| limits.take(ann, now).remaining).collect();
        assert_eq!(left, [2, 1, 0]);
        let (headers, refused) = limits.count(ann, now);
        let response = axum::response::IntoResponse::into_response(refused.unwrap_err());
        assert_eq!((response.status().as_u16(), &response.headers()["retry-after"]), (429, &HeaderValue::from(1)));
        let said = |name: &str| headers[name].to_str().unwrap();
        assert_eq!((said("ratelimit-limit"), said("ratelimit-remaining"), said("ratelimit-reset")), ("3", "0", "1"));
        assert_eq!(said("ratelimit-policy"), "10;w=1;burst=3");
        assert!(limits.take(bob, now).allowed);
        assert!(!limits.take(ann, now + Duration::from_millis(99)).allowed);
        assert!(limits.take(ann, now + Duration::from_millis(100)).allowed);
        assert_eq!(limits.take(ann, now + Duration::from_secs(9)).remaining, 2, "never more than at once");
    }

    proptest! {
        /// However requests are spread, none gets more than the burst and what the time gave.
        #[test]
        fn nobody_gets_more_than_rate_and_burst(gaps in proptest::collection::vec(0u64..50, 1..300), rate in 1u32..1000, burst in 1u32..100) {
            let limits = Limits::new(Policy { rate, burst });
            let (start, mut passed, mut allowed) = (Instant::now(), 0, 0u64);
            for gap in gaps {
                passed += gap;
                allowed += u64::from(limits.take(Uuid::nil(), start + Duration::from_millis(passed)).allowed);
            }
            // One more: a second divided by the rate is cut to nanoseconds.
            prop_assert!(allowed <= u64::from(burst) + passed * u64::from(rate) / 1000 + 1);
        }
    }
}
