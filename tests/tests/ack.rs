//! The provider knows what each Traefik runs: it reads it back.

use charliehub_tests::{Row, Traefik, World, secs, until};
use serde_json::{Value, json};

fn shown(hub2: &Value) -> (&str, Option<i64>) {
    (
        hub2.get("state").and_then(Value::as_str).unwrap_or_default(),
        hub2.pointer("/running/revision").and_then(Value::as_i64),
    )
}

#[tokio::test]
async fn a_change_is_acknowledged_as_soon_as_traefik_runs_it() {
    let (world, _traefik, hello) = World::acking(|provider| provider).await;
    world.until_instance("the first route is acknowledged", |hub2| shown(hub2).0 == "current").await;
    let path = "/api/domains?wait=live";
    let mut times = Vec::new();
    for n in 0..20 {
        let row = Row::http(&format!("n{n}.test"), hello.address()).json().to_string();
        let answer = world.provider.send(hyper::Method::POST, path, &row).await;
        let change = &answer.json()["change"];
        assert_eq!(change["instances"], json!([{ "name": "hub2", "live": true, "state": "current" }]), "{change}");
        let hub2 = world.until_instance("it says so", |hub2| shown(hub2).1 == change["revision"].as_i64()).await;
        times.push(hub2["time_to_live_seconds"].as_f64().unwrap());
        assert_eq!(hub2["running"]["digest"], change["digest"]);
        assert_eq!(hub2["lag_seconds"], 0.0);
    }
    times.sort_by(f64::total_cmp);
    println!("from commit to seen to run: {times:?}");
    assert!(times[10] < 0.5, "{times:?}");
    let metrics = world.provider.get("/metrics").await.text();
    for line in [
        "charliehub_provider_instance_running_current{instance=\"hub2\"} 1",
        "charliehub_provider_commit_to_live_seconds_count{instance=\"hub2\"} 2",
        "charliehub_provider_refused{instance=\"hub2\"} 0",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    until("the table says so too", secs(5), async || {
        let kept = world.postgres.value("SELECT state || ' ' || version FROM instances WHERE name = 'hub2'").await;
        if kept.starts_with("current 3.") { Ok(()) } else { Err(kept) }
    })
    .await;
}

#[tokio::test]
async fn one_that_only_polls_is_never_said_to_run_anything() {
    let (world, _traefik, hello) = World::acking(|provider| provider).await;
    let _other: Traefik = world.traefik("hub3").await;
    let row = Row::http("both.test", hello.address()).json().to_string();
    let answer = until("both poll", secs(5), async || {
        let instances = world.provider.get("/api/instances").await.json();
        let hub3 = instances.as_array().and_then(|all| all.iter().find(|one| one["name"] == "hub3")).cloned();
        hub3.filter(|hub3| hub3["sent"].is_object()).ok_or(instances)
    })
    .await
    .0;
    assert_eq!((&answer["state"], &answer["running"]), (&json!("unverified"), &Value::Null));
    assert!(answer["trouble"].as_str().unwrap().contains("set `api` in a [[traefik]]"), "{answer}");
    let answer = world.provider.send(hyper::Method::POST, "/api/domains?wait=live", &row).await.json();
    let instances = answer["change"]["instances"].as_array().unwrap();
    assert_eq!((&instances[0]["name"], &instances[0]["live"]), (&json!("hub2"), &json!(true)));
    assert_eq!((&instances[1]["name"], &instances[1]["live"]), (&json!("hub3"), &json!(false)));
    assert_eq!(instances[1]["state"], "unverified");
}

#[tokio::test]
async fn a_traefik_that_dies_and_comes_back_shows_as_what_it_is() {
    let (world, mut traefik, _hello) = World::acking(|provider| provider).await;
    world.until_instance("it runs", |hub2| shown(hub2).0 == "current").await;
    traefik.kill();
    let hub2 = world.until_instance("its API is gone", |hub2| hub2["trouble"].is_string()).await;
    assert_ne!(hub2["state"], "current", "{hub2}");
    assert!(hub2["trouble"].as_str().unwrap().contains("is Traefik running"), "{hub2}");
    traefik.up().await;
    let hub2 = world.until_instance("it is back", |hub2| shown(hub2).0 == "current").await;
    assert_eq!(hub2["trouble"], Value::Null);
}
