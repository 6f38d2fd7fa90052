use std::net::IpAddr;

use charliehub_proto::domain::Status;
use proptest::prelude::*;

use super::*;

fn size(routes: usize) -> Size {
    Size { routes, quarantined: 0 }
}

fn domain(tier: AccessTier, list: &[&str], auth: bool) -> Domain {
    let mut row: Domain = serde_json::from_str(
        r#"{"id":"00000000-0000-0000-0000-000000000001","domain":"a.test","path_prefix":"/","protocol":"http",
        "service_type":"proxy","environment":"production","status":"active","access_tier":"public","tls_mode":"default",
        "cert_resolver":null,"backend_scheme":null,"backend_host":"h","backend_port":80,"backends":[],
        "tcp_entrypoint":null,"auth_required":false,"ip_allowlist":[],"middlewares":[],"service_ref":null,
        "redirect_to":null,"redirect_permanent":false,"redirect_keep_path":false,"maintenance_message":null,
        "rate_limit":null,"health_check":null,"sticky":null,"priority":null,"dns_mode":"external","site":null,
        "owner":null,"notes":null,"labels":{},"created_at":"2026-01-01T00:00:00Z","updated_at":"2026-01-01T00:00:00Z",
        "version":1}"#,
    )
    .unwrap();
    row.status = Status::Active;
    row.access_tier = tier;
    row.ip_allowlist = list.iter().map(|net| net.parse().unwrap()).collect();
    row.auth_required = auth;
    row
}

#[test]
fn small_steps_pass_and_large_ones_wait() {
    let limits = Limits::default();
    for (running, next, verdict) in [
        (23, 13, Verdict::Accept),
        (23, 12, Verdict::Withhold(Reason::Shrink { removed: 11, allowed: 10 })),
        (100, 70, Verdict::Accept),
        (100, 69, Verdict::Withhold(Reason::Shrink { removed: 31, allowed: 30 })),
        (1, 0, Verdict::Withhold(Reason::Empty { before: 1 })),
        (0, 0, Verdict::Accept),
        (5, 500, Verdict::Accept),
    ] {
        assert_eq!(judge(Some(size(running)), 0, size(next), &limits), verdict, "{running} to {next}");
    }
    let broken = Size { routes: 23, quarantined: 11 };
    assert_eq!(
        judge(Some(size(23)), 0, broken, &limits),
        Verdict::Withhold(Reason::Quarantine { rows: 11, allowed: 10 })
    );
}

#[test]
fn many_small_falls_within_the_window_count_as_one() {
    let start = Instant::now();
    let mut guard = Guard::new(Limits::default());
    guard.runs(size(23), start);
    let at = |minutes: u64| start + Duration::from_mins(minutes);
    assert_eq!(guard.judge(size(17), at(1)), Verdict::Accept);
    guard.runs(size(17), at(1));
    assert_eq!(guard.judge(size(12), at(2)), Verdict::Withhold(Reason::Shrink { removed: 11, allowed: 10 }));
    assert_eq!(guard.judge(size(18), at(2)), Verdict::Accept, "growing again is no fall");
    assert_eq!(guard.judge(size(12), at(12)), Verdict::Accept, "the window has passed");
    guard.agreed(size(12));
    guard.runs(size(9), at(13));
    assert_eq!(guard.judge(size(2), at(14)), Verdict::Accept, "an agreement is the new measure");
}

#[test]
fn the_narrower_access_wins() {
    use AccessTier::{Internal, Public, Restricted};
    for (runs, newest, tier, list) in [
        ((Public, &[][..]), (Internal, &[][..]), Internal, &[][..]),
        ((Internal, &[]), (Public, &[]), Internal, &[]),
        ((Restricted, &["192.0.2.0/24"]), (Restricted, &["192.0.2.7/32"]), Restricted, &["192.0.2.7/32"]),
        ((Restricted, &["192.0.2.0/24"]), (Restricted, &["198.51.100.0/24"]), Restricted, &[]),
        ((Internal, &[]), (Restricted, &["10.44.1.0/24"]), Internal, &["10.44.1.0/24"]),
        ((Restricted, &["10.44.1.0/24"]), (Internal, &[]), Internal, &["10.44.1.0/24"]),
        ((Internal, &["10.44.1.0/24"]), (Internal, &["10.44.2.0/24"]), Restricted, &[]),
        ((Restricted, &[]), (Internal, &[]), Restricted, &[]),
        ((Internal, &[]), (Restricted, &[]), Restricted, &[]),
    ] {
        let row = tighten(&domain(runs.0, runs.1, false), &domain(newest.0, newest.1, true));
        let expected = domain(tier, list, true);
        assert_eq!(
            (row.access_tier, row.ip_allowlist),
            (expected.access_tier, expected.ip_allowlist),
            "{runs:?} {newest:?}"
        );
        assert!(row.auth_required);
    }
}

/// Whom a row of the tests lets in: the internal networks are 10.44.0.0/16.
fn lets_in(row: &Domain, address: IpAddr) -> bool {
    let listed = row.ip_allowlist.iter().any(|net| net.contains(&address));
    let internal = "10.44.0.0/16".parse::<IpNet>().unwrap().contains(&address);
    match row.access_tier {
        AccessTier::Public => true,
        AccessTier::Internal => internal && (listed || row.ip_allowlist.is_empty()),
        AccessTier::Restricted => listed,
    }
}

const NETS: &[&str] =
    &["10.44.0.0/16", "10.44.1.0/24", "10.44.2.0/24", "10.0.0.0/8", "192.0.2.0/24", "0.0.0.0/0", "::/0"];

fn access() -> impl Strategy<Value = Domain> {
    let tier = prop_oneof![Just(AccessTier::Public), Just(AccessTier::Internal), Just(AccessTier::Restricted)];
    let list = proptest::sample::subsequence(NETS, 0..3);
    (tier, list, any::<bool>()).prop_map(|(tier, list, auth)| domain(tier, &list, auth))
}

proptest! {
    /// Tightened is exactly whom both let in, also when a row is tightened more than once.
    #[test]
    fn tightened_lets_in_whom_all_let_in(rows in proptest::collection::vec(access(), 2..5)) {
        let tight = rows[1..].iter().fold(rows[0].clone(), |row, newest| tighten(&row, newest));
        for address in ["10.44.1.7", "10.44.2.7", "10.44.3.7", "10.1.1.1", "192.0.2.7", "203.0.113.9", "2001:db8::1"] {
            let address = address.parse().unwrap();
            prop_assert_eq!(lets_in(&tight, address), rows.iter().all(|row| lets_in(row, address)), "{}", address);
        }
        prop_assert_eq!(tight.auth_required, rows.iter().any(|row| row.auth_required));
    }

    /// Whatever the rows do, a running edge is never left with nothing.
    #[test]
    fn nothing_never_replaces_something(running in 1..100_000usize, peak in 0..100_000usize, max_removed in 0..100_000usize) {
        let limits = Limits { max_removed, ..Limits::default() };
        prop_assert_ne!(judge(Some(size(running)), peak, size(0), &limits), Verdict::Accept);
    }

    /// A configuration that is no smaller and no more broken always goes through.
    #[test]
    fn growth_is_never_withheld(running in 0..100_000usize, more in 0..1000usize, peak in 0..100_000usize) {
        prop_assert_eq!(judge(Some(size(running)), peak, size(running + more), &Limits::default()), Verdict::Accept);
    }
}
