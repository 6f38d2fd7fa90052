//! The provider knows what each Traefik runs: it reads it back.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "fails as its stories do")]

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use charliehub_tests::{Backend, Connection, Home, Postgres, Row, Traefik, World, secs, until};
use hyper::{Method, Response};
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
        let answer = world.provider.send(Method::POST, path, &row).await;
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
    let answer = world.provider.send(Method::POST, "/api/domains?wait=live", &row).await.json();
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

/// A world whose Traefik `hub2` has something before its API, with the route `first.test`.
async fn behind(
    lines: &str,
    version: &str,
    first: impl Fn(&charliehub_tests::Seen) -> Option<Response<String>> + Send + Sync + 'static,
) -> (World, Traefik, Backend, Backend) {
    let home = Home::new();
    let api = SocketAddr::from((Ipv4Addr::LOCALHOST, home.port()));
    let front = Backend::before(&home, api, first).await;
    let postgres = Postgres::start(&home).await;
    let known = format!("instance = \"hub2\"\napi = \"http://{}\"\n{lines}", front.address());
    let world = World::over(home, postgres, |provider| provider.traefik(&known)).await;
    let token = world.provider.token("traefik").await;
    let traefik = Traefik::of_version_at(version, &world.home, "hub2", world.provider.address(), &token, api).await;
    let hello = world.backend("hello").await;
    world.insert(&Row::http("first.test", hello.address())).await;
    traefik.until_answers("http://first.test/", "hello").await;
    (world, traefik, hello, front)
}

fn trouble(hub2: &Value) -> &str {
    hub2.get("trouble").and_then(Value::as_str).unwrap_or_default()
}

#[tokio::test]
async fn older_traefiks_are_acknowledged_alike_and_their_health_checks_shown() {
    for version in ["3.0.4", "3.4.3", "3.6.15"] {
        let (world, _traefik, hello, _front) = behind("", version, |_| None).await;
        let dead =
            Row::http("checked.test", hello.address()).with("health_check", "{\"path\": \"/\", \"interval\": \"1s\"}");
        let dead = dead.with("backend_host", "127.0.0.1").with("backend_port", "1");
        world.insert(&dead).await;
        let hub2 = world
            .until_instance("its server is down", |hub2| {
                let servers = hub2["servers"].as_array().into_iter().flatten();
                servers.into_iter().any(|one| one["up"] == json!(false) && one["owner"]["name"] == "checked.test")
            })
            .await;
        assert_eq!((shown(&hub2).0, hub2["version"].as_str()), ("current", Some(version)));
    }
}

#[tokio::test]
async fn an_api_that_wants_to_know_who_asks_is_told() {
    let refused = |seen: &charliehub_tests::Seen| {
        let right = seen.headers.get("authorization").is_some_and(|given| given == "Basic b3A6c2VjcmV0");
        (!right).then(|| Response::builder().status(401).body(String::new()).unwrap())
    };
    let (world, _traefik, _hello, _front) = behind("", "3.7.15", refused).await;
    let hub2 = world.until_instance("it is refused", |hub2| trouble(hub2).contains("401")).await;
    assert_eq!(shown(&hub2).0, "unknown");
    assert!(trouble(&hub2).contains("set `token`, or `user` and `password`"), "{hub2}");
    let (world, _traefik, _hello, _front) = behind("user = \"op\"\npassword = \"secret\"", "3.7.15", refused).await;
    world.until_instance("it is let in", |hub2| shown(hub2).0 == "current").await;
}

#[tokio::test]
async fn an_api_that_is_none_of_traefiks_is_said_to_be_none() {
    let (world, _traefik, _hello, _front) = behind("", "3.7.15", |_| Some(Response::new("<html>".to_owned()))).await;
    let hub2 = world.until_instance("it is said", |hub2| trouble(hub2).contains("is not Traefik's")).await;
    assert_eq!((shown(&hub2).0, &hub2["running"]), ("unknown", &Value::Null));
}

#[tokio::test]
async fn two_traefiks_of_one_name_are_said_to_be_two() {
    let (world, _traefik, _hello) = World::acking(|provider| provider).await;
    let other = world.traefik("hub2").await;
    let hub2 = world.until_instance("it is said", |hub2| trouble(hub2).contains("two Traefiks poll as `hub2`")).await;
    assert_eq!(shown(&hub2).0, "unknown");
    drop(other);
    world.until_instance("one is left", |hub2| shown(hub2).0 == "current").await;
}

#[tokio::test]
async fn one_that_says_what_it_was_sent_and_runs_something_else_is_not_current() {
    let home = Home::new();
    let sent = Arc::new(Mutex::new(String::new()));
    let echo = Arc::clone(&sent);
    let stub = Backend::with(&home, move |seen| {
        let marker =
            json!({ "headers": { "customResponseHeaders": { "X-Charliehub-Config": *echo.lock().unwrap() } } });
        Response::new(match seen.path.split('?').next().unwrap() {
            "/api/version" => json!({ "Version": "3.7.15" }).to_string(),
            "/api/http/middlewares/charliehub-revision@http" => marker.to_string(),
            _ => "[]".to_owned(),
        })
    })
    .await;
    let postgres = Postgres::start(&home).await;
    let known = format!("instance = \"hub2\"\napi = \"http://{}\"", stub.address());
    let world = World::over(home, postgres, |provider| provider.traefik(&known)).await;
    let token = world.provider.token("traefik").await;
    let hello = world.backend("hello").await;
    world.serve(&Row::http("first.test", hello.address())).await;
    let mut connection = Connection::open(&world.home, world.provider.address()).await.unwrap();
    let authorization = format!("Bearer {token}");
    let headers = [("authorization", authorization.as_str())];
    let answer = connection.send(Method::GET, "/traefik?instance=hub2", &headers, "").await.unwrap();
    *sent.lock().unwrap() = answer.header("etag").trim_matches('"').to_owned();
    let hub2 = world.until_instance("it is found out", |hub2| trouble(hub2).contains("says that it runs")).await;
    assert_eq!(shown(&hub2).0, "behind", "{hub2}");
    assert!(trouble(&hub2).contains("first.test"), "{hub2}");
}

#[tokio::test]
async fn a_change_that_breaks_tls_is_not_acknowledged_and_taken_back() {
    let (world, traefik, hello) = World::acking(|provider| provider).await;
    world.insert(&Row::https("secure.test", hello.address())).await;
    traefik.until_answers("https://secure.test/", "hello").await;
    world.until_instance("it runs", |hub2| shown(hub2).0 == "current").await;
    // Traefik takes it, says nothing, and no handshake works any more.
    let store = json!({ "defaultCertificate": { "certFile": "/nowhere.crt", "keyFile": "/nowhere.key" } });
    world.psql(&format!("UPDATE fragments SET body = '{store}' WHERE kind = 'tls.store' AND name = 'default'")).await;
    let held = world.until_instance("it is held back", |hub2| hub2.pointer("/held_back/0").is_some()).await;
    let reason = held.pointer("/held_back/0/reason").and_then(Value::as_str).unwrap_or_default();
    assert!(reason.contains("does not speak TLS") && reason.contains("websecure"), "{held}");
    traefik.until_answers("https://secure.test/", "hello").await;
    world.until_instance("what runs is current again", |hub2| shown(hub2).0 == "current").await;
}

#[tokio::test]
async fn an_idle_traefik_is_asked_once_in_five_seconds_at_most() {
    let (world, _traefik, _hello, front) = behind("", "3.7.15", |_| None).await;
    world.until_instance("it runs", |hub2| shown(hub2).0 == "current").await;
    until("all was read", secs(5), async || {
        let seen = front.seen();
        if seen.last().is_some_and(|seen| seen.path.starts_with("/api/udp/services")) {
            Ok(())
        } else {
            Err(seen.len())
        }
    })
    .await;
    let before = front.seen().len();
    // The fault is that something happens, so time must pass.
    tokio::time::sleep(secs(16)).await;
    let asked: Vec<_> = front.seen().into_iter().skip(before).map(|seen| seen.path).collect();
    assert!((2..=4).contains(&asked.len()), "{asked:?}");
}

#[tokio::test]
async fn an_edge_that_never_spoke_tls_is_refused_until_it_does() {
    let home = Home::new();
    let api = SocketAddr::from((Ipv4Addr::LOCALHOST, home.port()));
    let files = ["crt", "key"].map(|end| home.join(format!("late.{end}")));
    let postgres = Postgres::start(&home).await;
    let known = format!("instance = \"hub2\"\napi = \"http://{api}\"");
    let certificate = format!("{{ cert_file = \"{}\", key_file = \"{}\" }}", files[0].display(), files[1].display());
    let settings = |provider: charliehub_tests::Provider| {
        provider.traefik(&known).set("compile", "default_certificate", &certificate)
    };
    let world = World::over(home, postgres, settings).await;
    let token = world.provider.token("traefik").await;
    let mut traefik = Traefik::start_at(&world.home, "hub2", world.provider.address(), &token, api).await;
    let hello = world.backend("hello").await;
    world.insert(&Row::https("secure.test", hello.address())).await;
    let hub2 = world.until_instance("it is refused", |hub2| shown(hub2).0 == "refused").await;
    assert!(trouble(&hub2).contains("does not speak TLS"), "{hub2}");
    let answer = world
        .provider
        .send(Method::POST, "/api/domains?wait=live", &Row::https("b.test", hello.address()).json().to_string())
        .await;
    assert_eq!(answer.json()["change"]["instances"][0]["live"], false);
    let made = rcgen::generate_simple_self_signed(["secure.test".to_owned()]).unwrap();
    std::fs::write(&files[0], made.cert.pem()).unwrap();
    std::fs::write(&files[1], made.signing_key.serialize_pem()).unwrap();
    // Traefik reads the files when it starts.
    traefik.kill();
    traefik.up().await;
    world.until_instance("it speaks TLS", |hub2| shown(hub2).0 == "current").await;
}
