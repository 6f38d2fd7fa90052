//! Every metric: its name, its help, its buckets. One table.

use std::time::Duration;

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

macro_rules! metrics {
    ($($kind:ident $name:ident = $text:literal, $unit:ident, $help:literal;)+) => {
        $(pub const $name: &str = concat!("charliehub_provider_", $text);)+

        fn describe() {
            $($kind!($name, Unit::$unit, $help);)+
        }
    };
}

metrics! {
    describe_gauge REVISION = "revision", Count, "Revision of the config that is served";
    describe_gauge ROUTES = "routes", Count, "Domain rows by protocol and state";
    describe_gauge SNAPSHOT_AGE = "snapshot_age_seconds", Seconds, "Time since what is served was last known to be the newest";
    describe_gauge DATABASE_CONNECTED = "database_connected", Count, "1 while the database is followed";
    describe_gauge NOTIFICATIONS = "notifications", Count, "1 when notifications are delivered, 0 when changes are polled each second";
    describe_histogram NOTIFY_TO_SWAP = "notify_to_swap_seconds", Seconds, "From a notification to the swapped snapshot";
    describe_histogram COMPILE = "compile_seconds", Seconds, "Compile, judge, encode and swap one reading";
    describe_counter RECONNECTS = "reconnects_total", Count, "Connections to the database that were lost or given up";
    describe_counter HEARTBEAT_MISSED = "heartbeat_missed_total", Count, "Heartbeats without an answer in time";
    describe_counter FORKS = "forks_total", Count, "Times that what was held was not on the database's branch any more";
    describe_counter COALESCED = "coalesced_total", Count, "Notifications that arrived during a read and shared the next one";
    describe_counter BAD_PAYLOAD = "bad_payload_total", Count, "Notifications that were not ours";
    describe_counter RESYNC_MISMATCH = "resync_mismatch_total", Count, "Comparisons that found rows differing from the database";
    describe_gauge NOTIFY_QUEUE_USAGE = "notify_queue_usage", Count, "Share of PostgreSQL's notification queue in use";
    describe_gauge QUARANTINED = "quarantined_rows", Count, "Rows and fragments that do not compile";
    describe_gauge WITHHELD = "withheld", Count, "1 while the newest revision waits for an operator";
    describe_gauge PART_ROUTES = "part_routes", Count, "Routers in a part of the rows that some instances are given";
    describe_gauge PART_WITHHELD = "part_withheld", Count, "1 while the newest revision waits for an operator in a part";
    describe_gauge INSTANCE_LAG = "instance_lag_seconds", Seconds, "How long an instance has not been running what it was sent";
    describe_gauge INSTANCE_CURRENT = "instance_running_current", Count, "1 while an instance is known to run the newest config that is meant for it";
    describe_histogram COMMIT_TO_LIVE = "commit_to_live_seconds", Seconds, "From the writing of a revision to when an instance was seen to run it";
    describe_gauge REFUSED = "refused", Count, "1 while an instance does not take what it was sent";
    describe_gauge LATE = "late", Count, "1 while an instance does not run what it was sent, long after it should";
    describe_gauge REFUSED_ROUTES = "refused_routes", Count, "Routers, services and middlewares that an instance runs with an error, or does not";
    describe_gauge HELD_BACK = "held_back_rows", Count, "Rows and fragments that an instance does not get as they are";
    describe_gauge SERVERS_DOWN = "servers_down", Count, "Servers that an instance's health checks find down";
    describe_counter LKG_WRITE_ERRORS = "lkg_write_errors_total", Count, "Failed writes of the last known good config";
    describe_counter HISTORY_WRITE_ERRORS = "history_write_errors_total", Count, "Failed writes of a config to the history in the database";
    describe_counter POLLS = "polls_total", Count, "Polls by instance and outcome";
    describe_counter HTTP_REQUESTS = "http_requests_total", Count, "HTTP requests by route and status";
    describe_histogram HTTP_SECONDS = "http_request_duration_seconds", Seconds, "Time to answer, by route; polls are in polls_total";
    describe_counter EVENTS = "events_total", Count, "Events by kind";
    describe_gauge EVENT_STREAMS = "event_streams", Count, "Open streams of events";
    describe_counter WEBHOOK_DELIVERIES = "webhook_deliveries_total", Count, "Events by webhook and what became of them; `failed` are attempts";
    describe_gauge AGENT_REPORT_AGE = "agent_report_age_seconds", Seconds, "Time since the last report";
    describe_gauge AGENT_FINDING = "agent_finding", Count, "What an agent found: 0 ok, 1 warning, 2 critical, 3 unknown";
    describe_counter DDNS_CHANGES = "ddns_changes_total", Count, "Changes of names in DNS that have ended, by outcome: changed or failed";
    describe_gauge TLS_NOT_AFTER = "tls_not_after_timestamp_seconds", Seconds, "When the certificate that we serve with ends";
    describe_gauge TLS_CLIENT_CA_NOT_AFTER = "tls_client_ca_not_after_timestamp_seconds", Seconds, "When the first authority of client_ca ends";
    describe_gauge TLS_CLIENT_NOT_AFTER = "tls_client_not_after_timestamp_seconds", Seconds, "When the certificate that a Traefik or an agent connected with last ends";
    describe_counter TLS_RELOADS = "tls_reloads_total", Count, "Changed files of TLS by outcome: loaded or refused";
    describe_gauge TLS_FILES_REFUSED = "tls_files_refused", Count, "1 while the files of TLS cannot be used and those before are";
    describe_counter TLS_REFUSED = "tls_client_certificates_refused_total", Count, "Certificates of clients that were refused in the handshake";
    describe_gauge CONNECTIONS = "http_connections", Count, "Open HTTP connections";
}

const FAST: &[f64] = &[0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];

/// From what a stock Traefik does in milliseconds to what a polling one needs.
const LIVE: &[f64] = &[0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Installs the recorder. Its text is asked for by `/metrics`.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), FAST)?
        .set_buckets_for_metric(Matcher::Full(COMMIT_TO_LIVE.to_owned()), LIVE)?
        .upkeep_timeout(Duration::from_secs(5));
    let handle = builder.install_recorder()?;
    describe();
    for counter in [
        RECONNECTS,
        HEARTBEAT_MISSED,
        FORKS,
        COALESCED,
        BAD_PAYLOAD,
        RESYNC_MISMATCH,
        LKG_WRITE_ERRORS,
        HISTORY_WRITE_ERRORS,
    ] {
        metrics::counter!(counter).absolute(0);
    }
    for gauge in [DATABASE_CONNECTED, WITHHELD, QUARANTINED, NOTIFY_QUEUE_USAGE, EVENT_STREAMS] {
        metrics::gauge!(gauge).set(0.0);
    }
    Ok(handle)
}
