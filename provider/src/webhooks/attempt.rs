//! What an answer means for an event, and when to try again. Pure.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use jiff::Timestamp;

use crate::client::retry_after;

/// The first wait, and the longest one that is ours.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_mins(5);
/// A receiver is not waited for longer than that, whatever it asks for.
const LONGEST_ASKED: Duration = Duration::from_hours(1);

/// What became of an attempt.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Delivered,
    /// The receiver wants no more, ever.
    Gone,
    Failed {
        why: String,
        /// How long the receiver asks to be left alone.
        asked: Option<Duration>,
    },
}

impl Outcome {
    pub(super) fn of(status: StatusCode, headers: &HeaderMap, now: Timestamp) -> Self {
        if status.is_success() {
            return Self::Delivered;
        }
        if status == StatusCode::GONE {
            return Self::Gone;
        }
        let why = if status.is_redirection() {
            format!("it answers {status}, and redirects are not followed")
        } else {
            format!("it answers {status}")
        };
        Self::Failed { why, asked: retry_after(headers, now) }
    }
}

/// The wait after so many failures in a row. `chance` is 0 to 1: receivers that came back are not met by all at once.
pub(super) fn wait(failures: u32, asked: Option<Duration>, chance: f64) -> Duration {
    let doubled = FIRST.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1))).min(LONGEST);
    doubled.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0).max(asked.unwrap_or_default().min(LONGEST_ASKED))
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, header};

    use super::*;

    #[test]
    fn waits_double_up_to_five_minutes_and_differ_by_half() {
        let seconds = |failures, chance| wait(failures, None, chance).as_secs_f64();
        for (failures, longest) in [(1, 1.0), (2, 2.0), (3, 4.0), (9, 256.0), (10, 300.0), (u32::MAX, 300.0)] {
            assert_eq!((seconds(failures, 0.0), seconds(failures, 1.0)), (longest / 2.0, longest), "{failures}");
        }
    }

    #[test]
    fn a_receiver_that_asks_for_time_gets_it_up_to_an_hour() {
        for (asked, waited) in [(0, 1), (7, 7), (3600, 3600), (u64::MAX, 3600)] {
            assert_eq!(wait(1, Some(Duration::from_secs(asked)), 1.0), Duration::from_secs(waited), "{asked}");
        }
        let now: Timestamp = "2015-10-21T07:27:00Z".parse().unwrap();
        for (header, asked) in [
            ("120", Some(120)),
            ("Wed, 21 Oct 2015 07:28:00 GMT", Some(60)),
            ("Wed, 21 Oct 2015 07:26:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            let headers = HeaderMap::from_iter([(header::RETRY_AFTER, HeaderValue::from_static(header))]);
            assert_eq!(retry_after(&headers, now), asked.map(Duration::from_secs), "{header}");
        }
    }

    #[test]
    fn only_2xx_is_delivered_and_410_is_the_end() {
        let of = |status| Outcome::of(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), Timestamp::UNIX_EPOCH);
        assert_eq!((of(200), of(204), of(410)), (Outcome::Delivered, Outcome::Delivered, Outcome::Gone));
        for status in [301, 308, 400, 404, 429, 500, 503] {
            assert!(matches!(of(status), Outcome::Failed { .. }), "{status}");
        }
    }
}
