//! Every change is in history, and can be taken back, and nothing that was closed since is opened by that.

use charliehub_tests::{Row, World, secs, until};
use hyper::Method;

#[tokio::test]
async fn a_rollback_brings_routes_back_and_leaves_closed_what_was_closed_since() {
    let (world, traefik, hello) = World::running().await;
    let other = world.backend("other").await;
    for name in ["gone.test", "closed.test", "moved.test"] {
        world.insert(&Row::http(name, hello.address())).await;
    }
    let good = world.postgres.revision().await;
    world
        .psql(&format!(
            "DELETE FROM domains WHERE domain = 'gone.test';
             UPDATE domains SET access_tier = 'internal' WHERE domain = 'closed.test';
             UPDATE domains SET backend_port = {} WHERE domain = 'moved.test'",
            other.address().port()
        ))
        .await;
    traefik.until_answers("http://moved.test/", "other").await;
    traefik.until_status("http://gone.test/", 404).await;
    traefik.until_status("http://closed.test/", 403).await;

    let path = format!("/api/revisions/{good}/rollback");
    let dry = world.provider.send(Method::POST, &format!("{path}?dry_run=true"), "").await;
    assert_eq!(dry.status, 200, "{}", dry.text());
    let done = world.provider.send(Method::POST, &path, "").await.json();
    assert_eq!(done["changed"], dry.json()["changed"]);
    assert_eq!(done["kept_narrower"], serde_json::json!(["closed.test"]));
    traefik.until_answers("http://gone.test/", "hello").await;
    traefik.until_answers("http://moved.test/", "hello").await;
    assert_eq!(traefik.get("http://closed.test/").await.status, 403, "what was closed stays closed");

    let newest = world.postgres.revision().await;
    assert_eq!(done["revision"], newest);
    let revision = world.provider.get(&format!("/api/revisions/{newest}")).await.json();
    assert_eq!((&revision["source"], &revision["changes"][0]["table"]), (&"rollback".into(), &"domains".into()));
    let text = world.provider.must(&["rollback", "1", "--dry-run"]).await;
    assert!(text.contains("nothing was written"), "{text}");
    assert_eq!(world.postgres.revision().await, newest);
}

#[tokio::test]
async fn a_withheld_change_is_shown_with_its_diff_and_approved_by_an_administrator_alone() {
    let (world, traefik, hello) = World::running().await;
    let rows: Vec<String> = (0..30).map(|n| Row::http(&format!("r{n}.test"), hello.address()).insert()).collect();
    world.psql(&rows.join(";")).await;
    traefik.until_answers("http://r29.test/", "hello").await;
    world.psql("DELETE FROM domains WHERE domain LIKE 'r%'").await;
    world.provider.until_metric("withheld", secs(3), |v| v >= 1.0).await;
    let newest = world.postgres.revision().await;
    let (waiting, _) = until("it is listed", secs(3), async || {
        let list = world.provider.get("/api/withheld").await.json();
        if list.as_array().is_some_and(|list| list.len() == 1) { Ok(list[0].clone()) } else { Err(list) }
    })
    .await;
    assert_eq!((&waiting["revision"], &waiting["held_by"]), (&newest.into(), &"guard:shrink".into()));
    let routers = |one: &&serde_json::Value| one["section"] == "http.routers" && one["change"] == "removed";
    assert_eq!(waiting["diff"].as_array().unwrap().iter().filter(routers).count(), 30);
    assert_eq!(traefik.get("http://r7.test/").await.text(), "hello");
    let wrong = world.provider.send(Method::POST, "/api/revisions/1/approve", "").await;
    assert_eq!((wrong.status, wrong.json()["type"].clone()), (409, "urn:charliehub:problem:not-waiting".into()));
    let done = world.provider.send(Method::POST, &format!("/api/revisions/{newest}/approve"), "").await;
    assert_eq!(done.json(), serde_json::json!({ "revision": newest, "state": "approved" }));
    traefik.until_status("http://r7.test/", 404).await;
}
