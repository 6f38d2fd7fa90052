//! Every metric: its name, its help, its buckets. One table.
//!
//! A series that was not set for [`IDLE`] is gone: that of a tunnel or a name that is not expected any more. So whoever sets
//! one sets it at each look.

use std::{collections::BTreeMap, time::Duration};

use charliehub_proto::finding::{Finding, Status};
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;

macro_rules! metrics {
    ($($kind:ident $name:ident = $text:literal, $unit:ident, $help:literal;)+) => {
        $(pub const $name: &str = concat!("charliehub_agent_", $text);)+

        fn describe() {
            $($kind!($name, Unit::$unit, $help);)+
        }
    };
}

metrics! {
    describe_gauge CHECK_STATUS = "check_status", Count, "0 ok, 1 warning, 2 critical, 3 unknown; of a check with more than 1,000 targets only those that are not ok";
    describe_gauge TARGETS = "check_targets", Count, "Targets by check and status";
    describe_histogram CHECK_SECONDS = "check_duration_seconds", Seconds, "Time of one look, by group of checks";
    describe_gauge HANDSHAKE = "wireguard_latest_handshake_seconds", Seconds, "Unix time of the latest handshake; 0 never";
    describe_counter TRANSFER = "wireguard_transfer_bytes_total", Bytes, "Bytes through a tunnel, by direction";
    describe_gauge REACHABLE = "wireguard_reachable", Count, "1 while the far end of a tunnel answers";
    describe_gauge RTT = "wireguard_rtt_seconds", Seconds, "Round trip to the far end of a tunnel";
    describe_gauge DRIFT_RULES = "firewall_drift_rules", Count, "Rules that differ, by table and kind";
    describe_gauge NOT_BEFORE = "certificate_not_before_timestamp_seconds", Seconds, "From when a certificate is valid, Unix time; by source";
    describe_gauge NOT_AFTER = "certificate_not_after_timestamp_seconds", Seconds, "Until when a certificate is valid, Unix time; by source";
    describe_histogram LIFETIME_LEFT = "certificate_lifetime_left_ratio", Count, "Share of their lifetime that served certificates have left, above 1,000 names";
    describe_gauge LAST_ACTION = "last_action_timestamp_seconds", Seconds, "Unix time of what the agent did last by itself, by check, target and outcome";
    describe_gauge SPOOL_ENTRIES = "report_spool_entries", Count, "Reports that wait for the provider";
    describe_counter REPORTS = "reports_total", Count, "Reports by what became of them";
    describe_gauge LAST_REPORT = "last_report_timestamp_seconds", Seconds, "Unix time of the last report that the provider took";
    describe_gauge EXPECTED_AGE = "expected_age_seconds", Seconds, "Time since the provider last said what is expected; not there without a provider";
}

const IDLE: Duration = Duration::from_mins(5);

/// Above so many targets a check has series for those that are not ok, no more.
const MANY: usize = 1_000;

/// From a look at one socket to one that is given up.
const LOOKS: &[f64] = &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

const RATIO: &[f64] = &[0.0, 0.05, 0.083, 0.167, 0.25, 0.333, 0.5, 0.75, 1.0];

/// Installs the recorder. Its text is asked for by `/metrics`.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new()
        .idle_timeout(MetricKindMask::ALL, Some(IDLE))
        .set_buckets_for_metric(Matcher::Full(CHECK_SECONDS.to_owned()), LOOKS)?
        .set_buckets_for_metric(Matcher::Full(LIFETIME_LEFT.to_owned()), RATIO)?
        .install_recorder()?;
    describe();
    Ok(handle)
}

/// A group ended a look.
pub fn looked(group: &'static str, took: Duration) {
    histogram!(CHECK_SECONDS, "check" => group).record(took.as_secs_f64());
}

/// A report was taken, put off or thrown away.
pub fn reported(outcome: &'static str) {
    counter!(REPORTS, "outcome" => outcome).increment(1);
}

/// Until the series that said otherwise are gone.
fn is_news(finding: &Finding) -> bool {
    finding.seen.duration_since(finding.since).unsigned_abs() <= IDLE
}

/// Sets the series of all findings.
pub fn found(findings: &[Finding]) {
    let mut checks: BTreeMap<&str, Vec<&Finding>> = BTreeMap::new();
    for finding in findings {
        checks.entry(&finding.check).or_default().push(finding);
    }
    for (check, findings) in checks {
        let is_long = findings.len() > MANY;
        for finding in findings.iter().filter(|one| !is_long || one.status != Status::Ok || is_news(one)) {
            gauge!(CHECK_STATUS, "check" => check.to_owned(), "target" => finding.target.clone())
                .set(f64::from(finding.status.code()));
        }
        for status in Status::ALL {
            let count = findings.iter().filter(|one| one.status == status).count();
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            gauge!(TARGETS, "check" => check.to_owned(), "status" => status.as_str()).set(f64::from(count));
        }
    }
}
