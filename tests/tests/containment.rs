//! What one Traefik refuses costs nobody else a route: it is said, and something that it takes is given in its place.
#![allow(clippy::unwrap_used, reason = "fails as its stories do")]

use std::net::{Ipv4Addr, SocketAddr};

use charliehub_tests::{Backend, Home, Postgres, Provider, Row, Traefik, World, secs, until};
use hyper::{Method, Response};
use serde_json::{Value, json};

/// An edge whose Traefik reads a file too, with the middleware `gate@file` in it.
struct Edge {
    world: World,
    traefik: Traefik,
    hello: Backend,
    file: std::path::PathBuf,
}

const GATE: &str =
    "http:\n  middlewares:\n    gate:\n      headers:\n        customResponseHeaders:\n          X-Gate: \"1\"\n";
const NO_GATE: &str = "http:\n  middlewares:\n    other:\n      compress: {}\n";

impl Edge {
    async fn new(settings: impl FnOnce(Provider) -> Provider) -> Self {
        let home = Home::new();
        let api = SocketAddr::from((Ipv4Addr::LOCALHOST, home.port()));
        let postgres = Postgres::start(&home).await;
        let known = format!("instance = \"hub2\"\napi = \"http://{api}\"");
        let world = World::over(home, postgres, |provider| settings(provider.traefik(&known))).await;
        let token = world.provider.token("traefik").await;
        let file = world.home.join("gate.yml");
        std::fs::write(&file, GATE).unwrap();
        let address = world.provider.address();
        let traefik = Traefik::with_file(&world.home, "hub2", address, &token, api, &file).await;
        let hello = world.backend("hello").await;
        world.insert(&Row::http("first.test", hello.address())).await;
        traefik.until_answers("http://first.test/", "hello").await;
        Self { world, traefik, hello, file }
    }
}

fn names(list: &Value) -> Vec<&str> {
    let all = list.as_array().into_iter().flatten();
    all.filter_map(|one| one.pointer("/owner/name").and_then(Value::as_str)).collect()
}

#[tokio::test]
async fn a_row_whose_router_traefik_refuses_is_closed_in_its_place_until_it_works_again() {
    let Edge { world, traefik, hello, file } = Edge::new(|provider| provider).await;
    let gated = Row::http("first.test", hello.address()).with("path_prefix", "/admin");
    world.insert(&gated.with("middlewares", "{gate@file}")).await;
    let (answer, _) = traefik.until("http://first.test/admin", |answer| !answer.header("x-gate").is_empty()).await;
    assert_eq!(answer.status, 200);
    world.until_instance("it runs", |hub2| hub2["state"] == "current").await;
    std::fs::write(&file, NO_GATE).unwrap();
    // Without us its requests would fall through to `/`, and be answered without the gate.
    traefik.until_status("http://first.test/admin", 503).await;
    let hub2 = world.until_instance("it is held back", |hub2| names(&hub2["held_back"]) == ["first.test/admin"]).await;
    let held = &hub2["held_back"][0];
    assert_eq!(held["instead"], "closed", "{held}");
    assert!(held["reason"].as_str().unwrap().contains("gate@file"), "Traefik's own words: {held}");
    assert_eq!(traefik.get("http://first.test/").await.text(), "hello");
    assert!(
        world.provider.get("/metrics").await.text().contains("charliehub_provider_held_back_rows{instance=\"hub2\"} 1")
    );
    std::fs::write(&file, GATE).unwrap();
    let (answer, _) = traefik.until("http://first.test/admin", |answer| !answer.header("x-gate").is_empty()).await;
    assert_eq!(answer.status, 200);
    world.until_instance("nothing is held back", |hub2| hub2["held_back"] == json!([])).await;
}

#[tokio::test]
async fn without_containment_it_is_only_said() {
    let Edge { world, traefik, hello, file: _ } =
        Edge::new(|provider| provider.set("guard", "containment", "\"off\"")).await;
    let row = Row::http("other.test", hello.address()).with("middlewares", "{nobody@file}");
    world.insert(&row).await;
    let hub2 = world.until_instance("it is said", |hub2| names(&hub2["refused_routes"]) == ["other.test"]).await;
    let refused = &hub2["refused_routes"][0];
    assert_eq!((&refused["status"], &refused["object"]), (&json!("disabled"), &json!("router")));
    assert!(refused["errors"][0].as_str().unwrap().contains("nobody@file"), "{refused}");
    assert_eq!(hub2["held_back"], json!([]));
    assert_eq!(traefik.get("http://other.test/").await.status, 404);
}

#[tokio::test]
async fn a_fragment_that_breaks_what_worked_goes_back_to_what_it_was_and_says_so_within_three_seconds() {
    let Edge { world, traefik, hello, file: _ } = Edge::new(|provider| provider).await;
    let backend = hello.address();
    let path = "/api/fragments/http.service/pool?wait=live";
    let body = |url: &str| json!({ "loadBalancer": { "servers": [{ "url": url }] } }).to_string();
    let fragment = |body: &str| format!("{{\"body\": {body}, \"enabled\": true}}");
    let good = fragment(&body(&format!("http://{backend}")));
    assert_eq!(world.provider.send(Method::PUT, path, &good).await.status, 201);
    let router = json!({ "rule": "Host(`pool.test`)", "entryPoints": ["web"], "service": "pool" }).to_string();
    let answer =
        world.provider.send(Method::PUT, "/api/fragments/http.router/pool?wait=live", &fragment(&router)).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    traefik.until_answers("http://pool.test/", "hello").await;
    // A transport that only the file knows, and it does not.
    let mut broken: Value = serde_json::from_str(&body(&format!("http://{backend}"))).unwrap();
    broken["loadBalancer"]["serversTransport"] = json!("nowhere@file");
    let began = std::time::Instant::now();
    let answer = world.provider.send(Method::PUT, path, &fragment(&broken.to_string())).await.json();
    println!("{answer}");
    let hub2 = world.until_instance("it is said", |hub2| names(&hub2["held_back"]) == ["pool"]).await;
    println!("after {:?}: {}", began.elapsed(), hub2["held_back"]);
    assert!(began.elapsed() < secs(3));
    traefik.until_answers("http://pool.test/", "hello").await;
    assert_eq!(hub2["held_back"][0]["instead"], "earlier");
    let kept = world.postgres.value("SELECT body #>> '{loadBalancer,serversTransport}' FROM fragments WHERE kind = 'http.service' AND name = 'pool'").await;
    assert_eq!(kept, "nowhere@file", "the rows keep what the operator wishes");
}

/// The API of a Traefik, which says that it is of another version.
async fn spoofed(home: &Home, api: SocketAddr, version: &'static str) -> Backend {
    Backend::before(home, api, move |request| {
        let version = format!("{{\"Version\": \"{version}\"}}");
        request.path.starts_with("/api/version").then(|| Response::new(version))
    })
    .await
}

#[tokio::test]
async fn a_body_that_cannot_be_decoded_is_replaced_by_one_that_can() {
    let home = Home::new();
    let api = SocketAddr::from((Ipv4Addr::LOCALHOST, home.port()));
    // It is older than it says, so it is sent what it does not know.
    let spoof = spoofed(&home, api, "3.7.15").await;
    let postgres = Postgres::start(&home).await;
    let known = format!("instance = \"hub2\"\napi = \"http://{}\"", spoof.address());
    let mut world = World::over(home, postgres, |provider| provider.traefik(&known)).await;
    let token = world.provider.token("traefik").await;
    let traefik = Traefik::of_version_at("3.0.4", &world.home, "hub2", world.provider.address(), &token, api).await;
    let hello = world.backend("hello").await;
    world.insert(&Row::http("first.test", hello.address())).await;
    traefik.until_answers("http://first.test/", "hello").await;
    world.until_instance("it runs", |hub2| hub2["state"] == "current").await;
    let began = std::time::Instant::now();
    // Three in one commit, of which it does not know one.
    let fragment = |name: &str, body: &Value| {
        format!("INSERT INTO fragments (kind, name, body) VALUES ('http.middleware', '{name}', '{body}')")
    };
    let headers = json!({ "headers": { "customResponseHeaders": { "X-Fine": "1" } } });
    let unknown = json!({ "encodedCharacters": { "allowEncodedSlash": true } });
    let retry = json!({ "retry": { "attempts": 2 } });
    world.psql(&[fragment("fine", &headers), fragment("unknown", &unknown), fragment("retry", &retry)].join(";")).await;
    let found = world.until_instance("the guilty one is found", |hub2| {
        names(&hub2["held_back"]) == ["unknown"] && hub2["state"] == "current"
    });
    let hub2 = found.await;
    println!("after {:?}: {}", began.elapsed(), hub2["held_back"]);
    let held = hub2["held_back"].clone();
    // An operator may try again: it is the same.
    let path = "/api/instances/hub2/retry";
    assert_eq!(world.provider.send(Method::POST, path, "").await.status, 200);
    world
        .until_instance("it is found once more", |hub2| {
            names(&hub2["held_back"]) == ["unknown"] && hub2["state"] == "current" && hub2["held_back"] != held
        })
        .await;
    // A restart knows it, and sends nothing that is not taken.
    world.provider.stop().await;
    world.provider.up().await;
    world.until_instance("it is known after a restart", |hub2| hub2["state"] == "current").await;
    let hub2 = world.until_instance("and held back", |hub2| names(&hub2["held_back"]) == ["unknown"]).await;
    assert_eq!(hub2["refused_routes"], json!([]));
    assert!(!world.provider.log().contains("refused"), "nothing was sent to be refused");
    // The others are there, and routes go on changing.
    let row = Row::http("later.test", hello.address()).with("middlewares", "{fine}");
    world.insert(&row).await;
    let (answer, _) = traefik.until("http://later.test/", |answer| answer.status == 200).await;
    assert_eq!(answer.header("x-fine"), "1");
    // Mended, it is given again.
    world.psql(&format!("UPDATE fragments SET body = '{headers}' WHERE name = 'unknown'")).await;
    world.until_instance("nothing is held back", |hub2| hub2["held_back"] == json!([])).await;
    until("a line of the log says so", secs(5), async || {
        let log = world.provider.log();
        if log.contains("is given http.middleware unknown again") { Ok(()) } else { Err(log) }
    })
    .await;
    // Two that worked are changed at once, one to something that it does not know: that one goes back to what it was.
    let other = json!({ "headers": { "customResponseHeaders": { "X-Fine": "2" } } });
    let unknown = json!({ "retry": { "attempts": 2, "timeout": "1s" } });
    let update = |name: &str, body: &Value| format!("UPDATE fragments SET body = '{body}' WHERE name = '{name}'");
    world.psql(&[update("fine", &other), update("retry", &unknown)].join(";")).await;
    let found = world.until_instance("the guilty one is found again", |hub2| {
        names(&hub2["held_back"]) == ["retry"] && hub2["state"] == "current"
    });
    assert_eq!(found.await["held_back"][0]["instead"], "earlier");
    traefik.until("http://later.test/", |answer| answer.header("x-fine") == "2").await;
}

#[tokio::test]
async fn what_an_older_traefik_does_not_know_is_never_sent_to_it() {
    let home = Home::new();
    let api = SocketAddr::from((Ipv4Addr::LOCALHOST, home.port()));
    let postgres = Postgres::start(&home).await;
    let known = format!("instance = \"old\"\napi = \"http://{api}\"");
    let world = World::over(home, postgres, |provider| provider.traefik(&known)).await;
    let token = world.provider.token("traefik").await;
    let old = Traefik::of_version_at("3.0.4", &world.home, "old", world.provider.address(), &token, api).await;
    let new = world.traefik("new").await;
    let hello = world.backend("hello").await;
    let encoded = json!({ "encodedCharacters": { "allowEncodedSlash": true } });
    world
        .psql(&format!("INSERT INTO fragments (kind, name, body) VALUES ('http.middleware', 'encoded', '{encoded}')"))
        .await;
    world.insert(&Row::http("plain.test", hello.address())).await;
    world.insert(&Row::http("encoded.test", hello.address()).with("middlewares", "{encoded}")).await;
    for traefik in [&old, &new] {
        traefik.until_answers("http://plain.test/", "hello").await;
    }
    new.until_answers("http://encoded.test/", "hello").await;
    old.until_status("http://encoded.test/", 503).await;
    let (old, _) = until("its version is known", secs(5), async || {
        let instances = world.provider.get("/api/instances").await.json();
        let old = instances.as_array().and_then(|all| all.iter().find(|one| one["name"] == "old")).cloned();
        old.filter(|old| old["held_back"].to_string().contains("3.0.4")).ok_or(instances)
    })
    .await;
    assert_eq!(names(&old["held_back"]), ["encoded"], "{old}");
    let reason = old["held_back"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("encodedCharacters") && reason.contains("3.7") && reason.contains("3.0.4"), "{reason}");
}
