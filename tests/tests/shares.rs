//! Instances that are given a part of the rows: their own, all of it, and nothing else.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "fails as its stories do")]

use std::net::{Ipv4Addr, SocketAddr};

use charliehub_tests::{Backend, Home, Postgres, Row, Stop, Traefik, World, secs, until};
use hyper::Method;
use serde_json::{Value, json};

const ROWS: usize = 24;

/// A provider with Traefiks, each with a selector, all of whose APIs it reads.
struct Edge {
    world: World,
    traefiks: Vec<Traefik>,
    hello: Backend,
}

impl Edge {
    async fn new(selectors: &[(&str, &str)]) -> Self {
        let home = Home::new();
        let postgres = Postgres::start(&home).await;
        let apis: Vec<SocketAddr> =
            selectors.iter().map(|_| SocketAddr::from((Ipv4Addr::LOCALHOST, home.port()))).collect();
        let world = World::over(home, postgres, |provider| {
            selectors.iter().zip(&apis).fold(provider, |provider, ((instance, selector), api)| {
                provider.traefik(&format!("instance = \"{instance}\"\napi = \"http://{api}\"\n{selector}"))
            })
        })
        .await;
        let mut traefiks = Vec::new();
        for ((instance, _), api) in selectors.iter().zip(apis) {
            let token = world.provider.token("traefik").await;
            traefiks.push(Traefik::start_at(&world.home, instance, world.provider.address(), &token, api).await);
        }
        let hello = world.backend("hello").await;
        Self { world, traefiks, hello }
    }

    /// Rows `r0.test` and so on, with some columns, in one commit.
    async fn insert(&self, names: impl Iterator<Item = usize>, columns: &[(&str, &str)]) {
        let row = |n: usize| {
            let row = Row::http(&format!("r{n}.test"), self.hello.address());
            columns.iter().fold(row, |row, (column, value)| row.with(column, value)).insert()
        };
        self.world.psql(&names.map(row).collect::<Vec<_>>().join(";")).await;
    }

    /// What `/api/instances` says of one, once that is right.
    async fn until(&self, instance: &str, what: &str, right: impl Fn(&Value) -> bool) -> Value {
        until(what, secs(20), async || {
            let all = self.world.provider.get("/api/instances").await.json();
            let found = all.as_array().and_then(|all| all.iter().find(|one| one["name"] == instance)).cloned();
            found.filter(&right).ok_or(all)
        })
        .await
        .0
    }

    /// Waits until every Traefik runs what it is given of the newest revision.
    async fn settle(&self, instances: &[&str]) -> Vec<Value> {
        let newest = self.world.postgres.revision().await;
        self.world.provider.until_serves(newest, secs(5)).await;
        let mut all = Vec::new();
        for instance in instances {
            let right = |one: &Value| {
                one["state"] == "current"
                    && one["part"]["revision"] == newest
                    && one["running"]["digest"] == one["part"]["digest"]
            };
            all.push(self.until(instance, "it runs its part", right).await);
        }
        all
    }
}

/// Which of the rows a Traefik answers.
async fn answers(traefik: &Traefik, rows: usize) -> Vec<usize> {
    let mut answered = Vec::new();
    for n in 0..rows {
        match traefik.get(&format!("http://r{n}.test/")).await.status {
            200 => answered.push(n),
            404 => {}
            status => panic!("r{n}.test answers {status}"),
        }
    }
    answered
}

#[tokio::test]
async fn two_halves_are_the_whole_and_a_change_goes_to_one() {
    let edge = Edge::new(&[("a", "share = \"1/2\""), ("b", "share = \"2/2\"")]).await;
    edge.insert(0..ROWS, &[]).await;
    let told = edge.settle(&["a", "b"]).await;
    let (a, b) = (answers(&edge.traefiks[0], ROWS).await, answers(&edge.traefiks[1], ROWS).await);
    let mut both: Vec<usize> = a.iter().chain(&b).copied().collect();
    both.sort_unstable();
    assert_eq!(both, (0..ROWS).collect::<Vec<_>>(), "each is answered by one of them: {a:?} {b:?}");
    assert!(!a.is_empty() && !b.is_empty());
    assert_eq!((&told[0]["part"]["selector"], &told[0]["part"]["routes"]), (&json!("share=1/2"), &json!(a.len())));
    assert_ne!(told[0]["part"]["digest"], told[1]["part"]["digest"]);

    // A change of a row of the one is acknowledged by both, and new to that one.
    let id = edge.world.postgres.value(&format!("SELECT id FROM domains WHERE domain = 'r{}.test'", a[0])).await;
    let body = json!({ "access_tier": "internal" }).to_string();
    let answer = edge.world.provider.send(Method::PATCH, &format!("/api/domains/{id}?wait=live"), &body).await.json();
    for part in ["a", "b"] {
        let told = answer["change"]["instances"].as_array().unwrap().iter().find(|one| one["name"] == part).unwrap();
        assert_eq!(told["live"], true, "{answer}");
    }
    let now = edge.settle(&["a", "b"]).await;
    assert_ne!(now[0]["running"]["digest"], told[0]["running"]["digest"]);
    assert_eq!(now[1]["running"]["digest"], told[1]["running"]["digest"], "nothing of its own changed");
    edge.traefiks[0].until_status(&format!("http://r{}.test/", a[0]), 403).await;

    // What is not configured is given everything.
    let all = edge.world.provider.poll().await.json();
    assert_eq!(all["http"]["routers"].as_object().unwrap().len(), ROWS);
}

#[tokio::test]
async fn a_row_moves_with_its_label_and_its_host_stays_whole() {
    let edge = Edge::new(&[("berlin", "site = \"berlin\""), ("gold", "labels = [\"tier=gold\"]")]).await;
    edge.insert(0..4, &[("site", "berlin")]).await;
    edge.insert(4..8, &[("labels", r#"{"tier": "gold"}"#)]).await;
    // Its own labels are none, but left out its requests would be answered by the row of its host.
    let admin =
        Row::http("r4.test", edge.hello.address()).with("path_prefix", "/admin").with("access_tier", "internal");
    edge.world.insert(&admin).await;
    edge.settle(&["berlin", "gold"]).await;
    let [berlin, gold] = edge.traefiks.as_slice() else { panic!("two Traefiks") };
    assert_eq!((answers(berlin, 8).await, answers(gold, 8).await), (vec![0, 1, 2, 3], vec![4, 5, 6, 7]));
    assert_eq!(gold.get("http://r4.test/admin").await.status, 403);

    edge.world.psql(r#"UPDATE domains SET site = NULL, labels = '{"tier": "gold"}' WHERE domain = 'r0.test'"#).await;
    gold.until_answers("http://r0.test/", "hello").await;
    berlin.until_status("http://r0.test/", 404).await;
}

#[tokio::test]
async fn what_is_too_much_for_one_waits_there_and_goes_on_elsewhere() {
    let edge = Edge::new(&[("berlin", "site = \"berlin\""), ("rome", "site = \"rome\"")]).await;
    edge.insert(0..16, &[("site", "berlin")]).await;
    edge.insert(16..60, &[("site", "rome")]).await;
    edge.settle(&["berlin", "rome"]).await;
    let [berlin, rome] = edge.traefiks.as_slice() else { panic!("two Traefiks") };
    // 12 of 60 may go, but not 12 of 16.
    edge.world
        .psql("DELETE FROM domains WHERE site = 'berlin' AND domain NOT IN ('r0.test','r1.test','r2.test','r3.test')")
        .await;
    let waits = edge.world.postgres.revision().await;
    let told = edge.until("berlin", "it waits", |one| one["part"]["withheld"] == waits).await;
    assert_eq!(told["part"]["routes"], 16);
    assert_eq!(berlin.get("http://r15.test/").await.text(), "hello");
    until("/readyz says where it waits", secs(5), async || {
        let ready = edge.world.provider.get("/readyz").await.text();
        if ready.contains(&format!("revision {waits} waits in site=berlin")) { Ok(()) } else { Err(ready) }
    })
    .await;
    assert!(edge.world.provider.poll().await.header("x-charliehub-withheld").is_empty(), "not for all");
    edge.world.provider.until_metric("part_withheld", secs(5), |v| v >= 1.0).await;

    edge.insert(60..61, &[("site", "rome")]).await;
    rome.until_answers("http://r60.test/", "hello").await;
    let newest = edge.world.postgres.revision().await;
    until("it is kept for an operator", secs(10), async || {
        let listed = edge.world.provider.must(&["withheld"]).await;
        let line = listed.lines().any(|line| line.starts_with(&newest.to_string()) && line.contains("in site=berlin"));
        if line { Ok(()) } else { Err(listed) }
    })
    .await;

    // Discarded, the rows of Berlin are back, and what Rome got since stays.
    edge.world.provider.must(&["discard", &newest.to_string()]).await;
    edge.until("berlin", "nothing waits", |one| one["part"]["withheld"].is_null()).await;
    edge.settle(&["berlin", "rome"]).await;
    assert_eq!(edge.world.postgres.value("SELECT count(*) FROM domains").await, "61");
    assert_eq!(berlin.get("http://r15.test/").await.text(), "hello");
    assert_eq!(rome.get("http://r60.test/").await.text(), "hello");

    // Done again, and approved.
    edge.world.psql("DELETE FROM domains WHERE site = 'berlin' AND domain <> 'r0.test'").await;
    let waits = edge.world.postgres.revision().await;
    until("it is kept for an operator", secs(10), async || {
        let sql = format!("SELECT count(*) FROM snapshots WHERE revision = {waits} AND state = 'withheld'");
        let kept = edge.world.postgres.value(&sql).await;
        if kept == "0" { Err(kept) } else { Ok(()) }
    })
    .await;
    edge.world.provider.must(&["approve", &waits.to_string()]).await;
    berlin.until_status("http://r15.test/", 404).await;
    assert_eq!(berlin.get("http://r0.test/").await.text(), "hello");
}

#[tokio::test]
async fn a_start_without_a_database_serves_each_its_own() {
    let mut edge = Edge::new(&[("berlin", "site = \"berlin\""), ("oslo", "site = \"oslo\"")]).await;
    edge.insert(0..4, &[("site", "berlin")]).await;
    edge.insert(4..6, &[]).await;
    let berlin = edge.settle(&["berlin"]).await.remove(0);
    let oslo = edge.until("oslo", "it is given nothing", |one| one["trouble"].is_string()).await;
    assert!(oslo["trouble"].as_str().unwrap().contains("no row is in site=oslo yet"), "{oslo}");
    edge.world.provider.stop().await;
    edge.world.postgres.stop(Stop::Fast).await;
    edge.world.provider.up().await;
    let told = edge.until("berlin", "it polls again", |one| one["sent"].is_object()).await;
    assert_eq!(told["sent"]["digest"], berlin["running"]["digest"]);
    assert_eq!(answers(&edge.traefiks[0], 6).await, [0, 1, 2, 3]);
    assert_eq!(edge.world.provider.poll().await.json()["http"]["routers"].as_object().unwrap().len(), 6);
    edge.world.postgres.up().await;
    edge.world.until_followed().await;
    edge.insert(6..7, &[("site", "oslo")]).await;
    edge.traefiks[1].until_answers("http://r6.test/", "hello").await;
}
