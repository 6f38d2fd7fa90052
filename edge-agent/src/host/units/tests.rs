use proptest::prelude::*;

use super::*;

/// As systemd 252 told of: a service that runs, one that failed, a timer that waits, one after the boot, one that is over,
/// and a unit that is not there.
const SHOWN: &str = "\
Result=success\nNRestarts=25\nLoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=enabled\n\n\
Result=exit-code\nNRestarts=0\nLoadState=loaded\nActiveState=failed\nSubState=failed\nUnitFileState=enabled\n\n\
NextElapseUSecRealtime=Sat 2026-11-28 00:00:00 UTC\nNextElapseUSecMonotonic=0\nResult=success\nLoadState=loaded\n\
ActiveState=active\nSubState=waiting\nUnitFileState=enabled\n\n\
NextElapseUSecRealtime=\nNextElapseUSecMonotonic=2h 5min 2.206481s\nResult=success\nLoadState=loaded\n\
ActiveState=active\nSubState=waiting\nUnitFileState=enabled\n\n\
NextElapseUSecRealtime=\nNextElapseUSecMonotonic=infinity\nResult=success\nLoadState=loaded\n\
ActiveState=active\nSubState=elapsed\nUnitFileState=disabled\n\n\
Result=success\nNRestarts=0\nLoadState=not-found\nActiveState=inactive\nSubState=dead\nUnitFileState=\n";

fn facts(load: &str, active: &str, sub: &str, file: &str) -> Facts {
    let [load, active, sub, file, result] = [load, active, sub, file, "exit-code"].map(str::to_owned);
    Facts { load, active, sub, file, result, ..Facts::default() }
}

#[test]
fn what_systemd_shows_is_read_in_its_order() {
    let parsed = parse(SHOWN);
    let seen: Vec<_> =
        parsed.iter().map(|unit| (unit.active.as_str(), unit.sub.as_str(), unit.restarts, unit.next)).collect();
    assert_eq!(
        seen,
        [
            ("active", "running", 25, Next::Never),
            ("failed", "failed", 0, Next::Never),
            ("active", "waiting", 0, Next::At("2026-11-28T00:00:00Z".parse().unwrap())),
            ("active", "waiting", 0, Next::Later),
            ("active", "elapsed", 0, Next::Never),
            ("inactive", "dead", 0, Next::Never),
        ]
    );
    assert_eq!(parsed[5].load, "not-found");
}

#[test]
fn units_must_be_active_enabled_and_at_rest() {
    let wall: Timestamp = "2026-11-28T00:10:00Z".parse().unwrap();
    let now = |is_trusted| Now { boot: Duration::ZERO, wall, is_trusted };
    let at = |text: &str| Next::At(text.parse().unwrap());
    let timer = |next| Facts { next, ..facts("loaded", "active", "waiting", "enabled") };
    let running = || facts("loaded", "active", "running", "enabled");
    for (name, active, enabled, facts, restarts, trusted, status, text) in [
        ("a.service", true, true, running(), 0, true, Status::Ok, "is active (running), enabled"),
        ("a.service", true, true, running(), 1, true, Status::Ok, "is active (running), enabled"),
        ("a.service", true, true, running(), 2, true, Status::Warning, "restarted by itself 2 times lately"),
        (
            "a.service",
            true,
            true,
            facts("not-found", "inactive", "dead", ""),
            0,
            true,
            Status::Critical,
            "does not exist",
        ),
        (
            "a.service",
            true,
            true,
            facts("masked", "inactive", "dead", "masked"),
            0,
            true,
            Status::Critical,
            "is masked",
        ),
        (
            "a.service",
            true,
            true,
            facts("bad-setting", "inactive", "dead", ""),
            0,
            true,
            Status::Critical,
            "cannot be loaded: bad-setting",
        ),
        (
            "a.service",
            true,
            true,
            facts("loaded", "inactive", "dead", "enabled"),
            0,
            true,
            Status::Critical,
            "is not active: inactive",
        ),
        (
            "a.service",
            false,
            true,
            facts("loaded", "inactive", "dead", "enabled"),
            0,
            true,
            Status::Ok,
            "is inactive (dead), enabled",
        ),
        (
            "a.service",
            false,
            false,
            facts("loaded", "failed", "failed", "static"),
            0,
            true,
            Status::Critical,
            "has failed: exit-code",
        ),
        (
            "a.service",
            true,
            true,
            facts("loaded", "activating", "auto-restart", "enabled"),
            0,
            true,
            Status::Critical,
            "ended, and waits for its next start",
        ),
        (
            "a.service",
            true,
            true,
            facts("loaded", "activating", "start", "enabled"),
            0,
            true,
            Status::Warning,
            "is still starting",
        ),
        (
            "a.service",
            true,
            true,
            facts("loaded", "active", "running", "disabled"),
            0,
            true,
            Status::Warning,
            "is not enabled (disabled), so it is gone after a reboot",
        ),
        (
            "a.service",
            true,
            true,
            facts("loaded", "active", "running", "enabled-runtime"),
            0,
            true,
            Status::Warning,
            "is not enabled (enabled-runtime), so it is gone after a reboot",
        ),
        (
            "a.service",
            true,
            false,
            facts("loaded", "active", "running", "disabled"),
            0,
            true,
            Status::Ok,
            "is active (running), disabled",
        ),
        (
            "a.service",
            true,
            true,
            facts("loaded", "active", "running", "static"),
            0,
            true,
            Status::Ok,
            "is active (running), static",
        ),
        ("a.timer", true, true, timer(Next::Never), 0, true, Status::Warning, "has no next run"),
        ("a.timer", true, true, timer(Next::Later), 0, true, Status::Ok, "is active (waiting), enabled"),
        ("a.timer", true, true, timer(at("2026-11-29T00:00:00Z")), 0, true, Status::Ok, "is active (waiting), enabled"),
        ("a.timer", true, true, timer(at("2026-11-28T00:06:00Z")), 0, true, Status::Ok, "is active (waiting), enabled"),
        (
            "a.timer",
            true,
            true,
            timer(at("2026-11-28T00:00:00Z")),
            0,
            true,
            Status::Warning,
            "should have run at 2026-11-28T00:00:00Z",
        ),
        (
            "a.timer",
            true,
            true,
            timer(at("2026-11-28T00:00:00Z")),
            0,
            false,
            Status::Ok,
            "is active (waiting), enabled",
        ),
        ("a.timer", true, true, running(), 0, true, Status::Ok, "is active (running), enabled"),
    ] {
        let unit = policy::Unit { name: name.to_owned(), active, enabled };
        let sample = judge(&unit, &facts, restarts, now(trusted));
        assert_eq!((sample.status, sample.text), (status, format!("{name} {text}")), "{facts:?}");
        assert_eq!(sample.remedy.is_some(), status != Status::Ok, "{text}");
    }
}

#[test]
fn a_name_is_neither_an_option_nor_a_pattern() {
    for (name, right) in [
        ("wg-quick@wg-uk.service", true),
        (r"dev-disk-by\x2duuid.device", true),
        ("-H.service", false),
        ("*.service", false),
        ("docker", false),
        ("a b.service", false),
        ("", false),
    ] {
        assert_eq!(is_name(name), right, "{name}");
    }
}

proptest! {
    #[test]
    fn nothing_that_systemd_shows_panics(text in "(?s)([A-Za-z]{0,9}=?[ -~]{0,20}\n?){0,9}", real in "[ -~]{0,30}") {
        parse(&text);
        next(&real, &text);
    }
}
