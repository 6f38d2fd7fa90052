//! What happened is written down, once, and what was written down cannot be changed without a trace.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "fails as its stories do")]

use charliehub_tests::{Home, Postgres, World, secs, until};
use hyper::Method;
use jiff::Timestamp;
use serde_json::{Value, json};

const ROW: &str = r#"{"domain": "a.test", "tls_mode": "default", "backend_host": "127.0.0.1", "backend_port": 80}"#;

#[tokio::test]
async fn psql_the_api_and_whoever_was_turned_away_are_in_one_audit() {
    let mut world = World::new().await;
    let (admin, editor, reader) =
        (world.provider.admin_token(), world.provider.token("editor").await, world.provider.token("reader").await);
    world.provider.speak_as(&editor);
    assert_eq!(world.provider.send(Method::POST, "/api/domains", ROW).await.status, 201);
    assert_eq!(world.provider.send(Method::POST, "/api/domains", ROW).await.status, 409);
    world.provider.speak_as(&reader);
    assert_eq!(world.provider.send(Method::POST, "/api/domains", ROW).await.status, 403);
    world.psql("UPDATE domains SET notes = 'by hand'").await;
    world.provider.speak_as("ch_wrong");
    for _ in 0..3 {
        assert_eq!(world.provider.get("/api/domains").await.status, 401);
    }

    world.provider.speak_as(&admin);
    until("both refusals of known callers are there", secs(10), async || {
        let audit = world.provider.get("/api/audit").await.json();
        let refused = audit.as_array().into_iter().flatten().filter(|entry| entry["kind"] == "refused").count();
        if refused >= 2 { Ok(()) } else { Err(audit) }
    })
    .await;
    let audit = world.provider.get("/api/audit").await.json();
    let entries: Vec<&Value> = audit.as_array().into_iter().flatten().collect();
    let has = |fields: &Value| {
        let fits = |entry: &Value| fields.as_object().into_iter().flatten().all(|(key, value)| entry[key] == *value);
        entries.iter().any(|entry| fits(entry))
    };
    assert!(has(&json!({"kind": "row.insert", "actor": "editor-token", "source": "api", "name": "a.test"})), "{audit}");
    assert!(has(&json!({"kind": "row.update", "source": "sql", "name": "a.test", "fields": ["notes"]})), "{audit}");
    let why = |actor: &str| entries.iter().find(|entry| entry["kind"] == "refused" && entry["actor"] == actor);
    assert_eq!(why("editor-token").map(|entry| &entry["detail"]["status"]), Some(&json!(409)), "{audit}");
    assert_eq!(why("reader-token").map(|entry| &entry["detail"]["problem"]), Some(&json!("forbidden")), "{audit}");

    // The minute under way is written at the latest when the provider stops.
    world.provider.stop().await;
    let counted =
        world.postgres.value("SELECT sum((detail ->> 'count')::int) FROM audit_events WHERE actor = 'unknown'");
    assert_eq!(counted.await, "3");
    let report = world.provider.must(&["audit-report"]).await;
    assert!(report.contains("refused 3 x: unknown at 127.0.0.1, unauthorized"), "{report}");
    let csv = world.provider.must(&["audit-report", "--format", "csv", "--actor", "editor-token"]).await;
    assert!(csv.contains(",row.insert,editor-token,api,"), "{csv}");
}

#[tokio::test]
async fn whoever_changes_the_audit_is_found_out() {
    let world = World::new().await;
    world.psql("INSERT INTO domains (domain, backend_host, backend_port) VALUES ('a.test', 'h', 1)").await;
    world.psql("UPDATE domains SET notes = 'x'").await;
    let verified = world.provider.must(&["audit-report", "--verify"]).await;
    assert!(verified.starts_with("the audit is as it was written\n"), "{verified}");
    world
        .psql(
            "ALTER TABLE revisions DISABLE TRIGGER append_only; UPDATE revisions SET actor = 'nobody' WHERE revision = \
             (SELECT max(revision) FROM history WHERE tbl = 'domains')",
        )
        .await;
    let found = world.provider.run(&["audit-report", "--verify"]).await;
    assert_eq!(found.code, Some(1), "{} {}", found.out, found.err);
    assert!(found.out.starts_with("BROKEN at revisions "), "{}", found.out);
}

#[tokio::test]
async fn each_change_is_one_line_of_changes_log_also_across_a_restart() {
    let mut world = World::new().await;
    let path = world.provider.data().join("changes.log");
    let lines = |name: &'static str| {
        let path = path.clone();
        async move || {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let found = text.lines().filter(|line| line.contains(name)).count();
            if found == 1 { Ok(()) } else { Err(text) }
        }
    };
    world.psql("INSERT INTO domains (domain, backend_host, backend_port) VALUES ('a.test', 'h', 1)").await;
    until("the line of a.test", secs(5), lines("insert=a.test")).await;
    world.provider.stop().await;
    world.psql("INSERT INTO domains (domain, backend_host, backend_port) VALUES ('b.test', 'h', 1)").await;
    world.provider.up().await;
    until("the line of b.test", secs(10), lines("insert=b.test")).await;
    until("still one of a.test", secs(1), lines("insert=a.test")).await;
}

#[tokio::test]
async fn the_report_has_what_the_host_wrote_down_too_and_no_source_holds_up_another() {
    let home = Home::new();
    let repository = home.join("code");
    let line = "git init -q . && git -c user.name=ann -c user.email=a@x commit -q --allow-empty -m \"$(printf 'mend \\033[31mit')\"";
    std::fs::create_dir_all(&repository).unwrap();
    let made = tokio::process::Command::new("sh").args(["-ec", line]).current_dir(&repository).output().await.unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    // Of another user, as on a hub where the report is root's.
    rustix::fs::chown(&repository, Some(rustix::fs::Uid::from_raw(1000)), None).ok();
    let postgres = Postgres::start(&home).await;
    let folders = format!("[\"{}\"]", repository.display());
    let mut world = World::over(home, postgres, |provider| provider.set("audit", "git_folders", &folders)).await;
    world.psql("INSERT INTO domains (domain, backend_host, backend_port) VALUES ('a.test', 'h', 1)").await;
    let log = world.provider.data().join("changes.log");
    until("changes.log has the row", secs(10), async || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        if text.contains("insert=a.test") { Ok(()) } else { Err(text) }
    })
    .await;
    // A revision that the database never had, or has no more.
    let known = std::fs::read_to_string(&log).unwrap();
    let at = known.split(' ').next().unwrap().to_owned();
    let lost = format!("{at} revision=999 actor=\"eve\" source=\"sql\" address=\"-\" delete=b.test\n");
    std::fs::write(&log, format!("{known}{lost}")).unwrap();

    let report = world.provider.must(&["audit-report", "--json"]).await;
    let report: Vec<Value> = serde_json::from_str(&report).unwrap();
    let of = |kind: &str| report.iter().filter(|entry| entry["kind"] == kind).collect::<Vec<_>>();
    assert!(of("row.insert").iter().any(|entry| entry["name"] == "a.test"), "our own: {report:#?}");
    assert_eq!((of("git.commit").len(), &of("git.commit")[0]["actor"]), (1, &json!("ann <a@x>")), "{report:#?}");
    let changes: Vec<&Value> = of("change").iter().map(|entry| &entry["revision"]).collect();
    assert_eq!(changes, [&json!(999)], "what the database has is told once: {report:#?}");
    // What was written to the second sorts otherwise as a text.
    let of_time = report.iter().filter(|entry| entry["kind"] != "unavailable");
    let times: Vec<Timestamp> = of_time.map(|entry| entry["at"].as_str().unwrap().parse().unwrap()).collect();
    assert!(times.is_sorted(), "in the order of time: {times:?}");

    let text = world.provider.must(&["audit-report"]).await;
    assert!(text.contains("mend \\u{1b}[31mit") && !text.contains('\u{1b}'), "nobody moves the cursor: {text}");

    world.postgres.kill();
    let report = world.provider.run(&["audit-report", "--source", "own,git,changes"]).await;
    assert_eq!(report.code, Some(1), "our own audit is missing: {}", report.err);
    assert!(report.out.contains("git.commit") && report.out.contains("own unavailable: "), "{}", report.out);
    assert!(report.out.contains("insert=a.test"), "the log outlives the database: {}", report.out);
}
