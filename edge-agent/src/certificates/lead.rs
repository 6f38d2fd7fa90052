//! When a certificate should have been renewed, by its lifetime: a fixed 30 days would cry at each one that lives for six.
//! Pure.

use charliehub_proto::finding::Status;
use jiff::SignedDuration;

const fn hours(hours: i64) -> SignedDuration {
    SignedDuration::from_hours(hours)
}

/// Traefik's own table (`getCertificateRenewDurations`, 3.7.15): from what lifetime on it renews how long before the end.
/// It has four months for a year; who gives certificates for a year renews them by hand or, as the provider its default
/// one, 30 days before.
const LEADS: [(SignedDuration, SignedDuration); 4] = [
    (hours(90 * 24), hours(30 * 24)),
    (hours(30 * 24), hours(10 * 24)),
    (hours(6 * 24), hours(48)),
    (hours(24), hours(6)),
];
const SHORTEST: SignedDuration = SignedDuration::from_mins(20);

/// Authorities take a second off a lifetime.
const ROUNDING: SignedDuration = hours(1);

/// How long before its end a certificate is renewed. Never more than two thirds of its life: below that Traefik renews
/// at each try, and no age of it is late.
pub(super) fn lead(lifetime: SignedDuration) -> SignedDuration {
    let rounded = lifetime.saturating_add(ROUNDING);
    let found = LEADS.iter().find(|(from, _)| rounded >= *from).map_or(SHORTEST, |(_, lead)| *lead);
    found.min(lifetime.saturating_mul(2) / 3)
}

/// A quarter of the lead was not enough to renew it: a warning. Three quarters: critical.
pub(super) fn judge(left: SignedDuration, lifetime: SignedDuration) -> Status {
    let lead = lead(lifetime);
    if left < lead / 4 {
        Status::Critical
    } else if left < lead.saturating_mul(3) / 4 {
        Status::Warning
    } else {
        Status::Ok
    }
}

/// As people say it: `80 d`, `36 h`, `12 min`.
pub(super) fn span(duration: SignedDuration) -> String {
    let seconds = duration.as_secs().abs();
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn late_is_a_part_of_the_lead() {
        let (days, hours, minutes) =
            (|n: i64| SignedDuration::from_hours(n * 24), SignedDuration::from_hours, SignedDuration::from_mins);
        for (lifetime, left, status) in [
            (days(90), days(80), Status::Ok),
            (days(90), days(23), Status::Ok),
            (days(90), days(22), Status::Warning),
            (days(90), days(7), Status::Critical),
            (days(90) - SignedDuration::from_secs(1), days(23), Status::Ok),
            (days(90) - SignedDuration::from_secs(1), days(22), Status::Warning),
            (days(398), days(23), Status::Ok),
            (days(398), days(22), Status::Warning),
            (days(45), days(8), Status::Ok),
            (days(45), days(7), Status::Warning),
            (hours(160), hours(37), Status::Ok),
            (hours(160), hours(35), Status::Warning),
            (hours(160), hours(11), Status::Critical),
            (minutes(21), minutes(20), Status::Ok),
            (minutes(21), minutes(11), Status::Ok),
            (minutes(21), minutes(10), Status::Warning),
            (minutes(10), minutes(6), Status::Ok),
            (days(90), days(-1), Status::Critical),
        ] {
            assert_eq!(judge(left, lifetime), status, "{} of {}", span(left), span(lifetime));
        }
    }

    proptest! {
        /// Fresh ones are fine, whatever they live for; and it only gets worse.
        #[test]
        fn a_fresh_one_is_fine(lifetime in 60..400_000_000_i64, spent in 0..100_i64) {
            let lifetime = SignedDuration::from_secs(lifetime);
            prop_assert_eq!(judge(lifetime, lifetime), Status::Ok);
            let left = lifetime.saturating_mul(i32::try_from(100 - spent).unwrap()) / 100;
            let later = left - lifetime / 50;
            prop_assert!(judge(later, lifetime) >= judge(left, lifetime));
        }
    }
}
