//! What happened is written down, once, and what was written down cannot be changed without a trace.

use charliehub_tests::{World, secs, until};
use hyper::Method;
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
