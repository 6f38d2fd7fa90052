//! Can handshakes be made, and for how long?

use jiff::{SignedDuration, Timestamp};

use super::Finding;
use crate::{
    config,
    tls::{Loaded, Own},
};

/// Of its life so much must be left: who renews at a third has renewed by then.
const LEFT: i32 = 4;

pub(super) fn check(files: &config::Tls, now: Timestamp) -> Vec<Finding> {
    let loaded = match Loaded::read(files) {
        Ok(loaded) => loaded,
        Err(error) => {
            return vec![Finding::critical(format!("TLS: {error}"), "a provider that runs keeps the old files")];
        }
    };
    let mut findings = vec![own(&loaded.own, now)];
    if let Some(clients) = &loaded.clients {
        let what = format!(
            "TLS: clients of {} authorities need no token; the first of them ends at {}",
            clients.count, clients.not_after
        );
        findings.push(if clients.not_after < now {
            Finding::critical(what, "put the authority's successor into `serve.client_ca`")
        } else if clients.not_after.duration_since(now) < SignedDuration::from_hours(60 * 24) {
            Finding::warning(what, "put its successor into `serve.client_ca` beside it, and issue anew")
        } else {
            Finding::ok(what)
        });
    }
    findings
}

fn own(own: &Own, now: Timestamp) -> Finding {
    let Own { subject, serial, not_before, not_after } = own;
    let left = not_after.duration_since(now);
    let what = format!("TLS: certificate {subject}, serial {serial}");
    let renew = "renew it: deploy/pki renew; a provider that runs takes it within a second";
    if left.is_negative() {
        Finding::critical(format!("{what}, ended at {not_after}"), renew)
    } else if *not_before > now {
        Finding::critical(format!("{what}, begins at {not_before}"), "is the clock right? If it is, issue it again")
    } else if left < not_after.duration_since(*not_before) / LEFT {
        Finding::warning(format!("{what}, ends in {} h, at {not_after}", left.as_hours()), renew)
    } else {
        Finding::ok(format!("{what}, until {not_after}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_judged_by_what_is_left_of_its_life() {
        let day = |n: i64| Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24 * n);
        let ours = Own { subject: "hub".into(), serial: "2A".into(), not_before: day(10), not_after: day(100) };
        for (now, state) in [(9, "critical"), (11, "ok"), (70, "ok"), (80, "warning"), (101, "critical")] {
            let line = own(&ours, day(now)).line();
            assert!(line.starts_with(state) && line.contains("certificate hub, serial 2A"), "day {now}: {line}");
        }
    }
}
