//! `deploy-all`: nobody needs it, and who calls it is told whether anything was not as the database has it.

use charliehub_tests::{Stop, World, ms};
use hyper::Method;
use serde_json::json;

#[tokio::test]
async fn deploy_all_says_that_nothing_differs_and_finds_what_was_changed_behind_our_back() {
    let (world, traefik, _hello) = World::running().await;
    let other = world.backend("other").await;
    let newest = world.postgres.revision().await;
    let served = world.provider.poll().await;
    for method in [Method::GET, Method::POST] {
        let answer = world.provider.send(method, "/api/deploy-all", "").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let said = answer.json();
        assert_eq!((&said["revision"], &said["differed"]), (&json!(newest), &json!({ "rows": 0, "routes": [] })));
        assert_eq!(served.header("etag"), format!("\"{}\"", said["digest"].as_str().unwrap()));
        assert!(answer.took < ms(5_000) && said["took_ms"].is_u64(), "{said}");
    }

    // No trigger runs: no revision, no history, no notification.
    let port = other.address().port();
    world
        .psql(&format!(
            "ALTER TABLE domains DISABLE TRIGGER ALL;
             UPDATE domains SET backend_port = {port} WHERE domain = 'first.test';
             DELETE FROM domains WHERE domain = 'second.test'"
        ))
        .await;
    assert_eq!(traefik.get("http://first.test/").await.text(), "hello", "nobody told us");
    let said = world.provider.send(Method::POST, "/api/deploy-all", "").await.json();
    assert_eq!((&said["revision"], &said["differed"]["rows"]), (&json!(newest), &json!(2)), "{said}");
    let routes: Vec<&str> = said["differed"]["routes"].as_array().unwrap().iter().filter_map(|r| r.as_str()).collect();
    assert!(routes.contains(&"http.services/first.test"), "{routes:?}");
    assert!(routes.contains(&"http.routers/second.test"), "{routes:?}");
    traefik.until_answers("http://first.test/", "other").await;
    traefik.until_status("http://second.test/", 404).await;

    let again = world.provider.get("/api/deploy-all").await.json();
    assert_eq!(again["differed"], json!({ "rows": 0, "routes": [] }), "it is as the database has it now");
}

#[tokio::test]
async fn without_a_database_deploy_all_says_so_in_time_and_what_is_served_stays() {
    let (mut world, traefik, _hello) = World::running().await;
    world.postgres.stop(Stop::Fast).await;
    let answer = world.provider.get("/api/deploy-all").await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.took < ms(12_000), "{:?}", answer.took);
    assert_eq!(traefik.get("http://first.test/").await.text(), "hello");
}
