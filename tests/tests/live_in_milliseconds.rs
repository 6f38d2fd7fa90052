//! What an operator types into psql, or sends to the API, is what a real Traefik does a moment later.

use std::time::{Duration, Instant};

use charliehub_tests::{Backend, Row, World, measured, ms, secs, until};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

/// Far above what is measured: these run beside other tests on two cores.
const LIVE: Duration = ms(500);

#[tokio::test]
async fn the_first_row_of_an_empty_database_is_live_at_once() {
    let world = World::new().await;
    let traefik = world.traefik("hub2").await;
    until("Traefik polls", secs(5), async || {
        let log = traefik.log();
        log.contains("http").then_some(()).ok_or("not yet")
    })
    .await;
    let hello = world.backend("hello").await;
    world.insert(&Row::http("a.test", hello.address())).await;
    let took = traefik.until_answers("http://a.test/", "hello").await;
    measured("the first row", took);
    assert!(took < LIVE, "live after {took:?}: were the polls held?");
}

#[tokio::test]
async fn a_row_inserted_updated_and_deleted_with_psql_is_live_in_milliseconds() {
    let (world, traefik, hello) = World::running().await;
    let other = world.backend("other").await;
    world.insert(&Row::http("a.test", hello.address())).await;
    let inserted = traefik.until_answers("http://a.test/", "hello").await;
    let port = other.address().port();
    world.psql(&format!("UPDATE domains SET backend_port = {port} WHERE domain = 'a.test'")).await;
    let updated = traefik.until_answers("http://a.test/", "other").await;
    world.psql("DELETE FROM domains WHERE domain = 'a.test'").await;
    let deleted = traefik.until_status("http://a.test/", 404).await;
    for (what, took) in [("insert", inserted), ("update", updated), ("delete", deleted)] {
        measured(what, took);
        assert!(took < LIVE, "{what} live after {took:?}");
    }
    assert_eq!(traefik.get("http://first.test/").await.text(), "hello", "the others stay");
}

#[tokio::test]
async fn a_row_posted_to_the_api_is_live_and_listed() {
    let (world, traefik, hello) = World::running().await;
    let answer = world.post(&Row::http("posted.test", hello.address())).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let took = traefik.until_answers("http://posted.test/", "hello").await;
    assert!(took < LIVE, "live after {took:?}");
    let rows = world.provider.get("/api/domains").await.json();
    let names: Vec<&str> = rows.as_array().unwrap().iter().filter_map(|r| r["domain"].as_str()).collect();
    assert_eq!(names.len(), 3, "a bare array: {rows}");
    assert!(names.contains(&"posted.test"), "{names:?}");
}

#[tokio::test]
async fn a_refused_post_says_which_field_and_changes_nothing() {
    let (world, _traefik, hello) = World::running().await;
    let before = world.postgres.revision().await;
    for (row, field) in [
        (Row::http("back`tick.test", hello.address()), "domain"),
        (Row::http("p.test", hello.address()).with("path_prefix", "/a\"b"), "path_prefix"),
        (Row::http("port.test", hello.address()).with("backend_port", "70000"), "backend_port"),
        (Row::http("first.test", hello.address()), "domain"),
    ] {
        let answer = world.post(&row).await;
        assert!((400..500).contains(&answer.status), "{row:?}: {}", answer.status);
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert!(answer.text().contains(field), "names {field}: {}", answer.text());
    }
    assert_eq!(world.postgres.revision().await, before);
}

#[tokio::test]
async fn the_most_specific_route_answers() {
    let (world, traefik, _) = World::running().await;
    let [wild, host, path, deeper] = [
        world.backend("wild").await,
        world.backend("host").await,
        world.backend("path").await,
        world.backend("deeper").await,
    ];
    world.insert(&Row::http("a.customers.test", path.address()).with("path_prefix", "/api")).await;
    world.insert(&Row::http("*.customers.test", wild.address())).await;
    world.insert(&Row::http("a.customers.test", host.address())).await;
    world.insert(&Row::http("*.customers.test", wild.address()).with("path_prefix", "/api/very/long/path")).await;
    world.insert(&Row::http("a.customers.test", deeper.address()).with("path_prefix", "/api/v2")).await;
    traefik.until_answers("http://a.customers.test/api/v2/x", "deeper").await;
    for (url, name) in [
        ("http://b.customers.test/", "wild"),
        ("http://B.Customers.Test/", "wild"),
        ("http://a.customers.test/", "host"),
        ("http://a.customers.test/api", "path"),
        ("http://a.customers.test/api/x", "path"),
        ("http://a.customers.test/api/very/long/path", "path"),
    ] {
        assert_eq!(traefik.get(url).await.text(), name, "{url}");
    }
    for none in ["http://customers.test/", "http://x.y.customers.test/"] {
        assert_eq!(traefik.get(none).await.status, 404, "one label, as in a certificate: {none}");
    }
}

#[tokio::test]
async fn a_tcp_route_with_tls_reaches_its_backend_by_name() {
    let (world, traefik, _) = World::running().await;
    let echo = Backend::echo(&world.home).await;
    world.insert(&Row::tcp("mqtt.verdegris.test", "mqtt", echo.address())).await;
    // Until the route is there Traefik takes the bytes for HTTP and waits for more.
    let attempt = async || -> anyhow::Result<[u8; 7]> {
        let mut stream = traefik.tls("mqtt.verdegris.test").await?;
        stream.write_all(b"CONNECT").await?;
        let mut back = [0; 7];
        stream.read_exact(&mut back).await?;
        Ok(back)
    };
    let (back, took) = until("the TCP route", secs(5), async || timeout(ms(100), attempt()).await?).await;
    assert_eq!(&back, b"CONNECT");
    assert!(took < LIVE, "live after {took:?}");
    let routers = traefik.api("/api/tcp/routers").await;
    assert_eq!(routers[0]["name"], "mqtt.verdegris.test-mqtt@http", "{routers}");
    // Under another name Traefik itself answers, in HTTP.
    let mut other = traefik.tls("other.test").await.unwrap();
    other.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    other.read_to_end(&mut answer).await.ok();
    assert!(answer.starts_with(b"HTTP/1.0 404"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn mosquitto_answers_through_tls_by_a_row() {
    const CONNECT: &[u8] = b"\x10\x11\x00\x04MQTT\x04\x02\x00\x3c\x00\x05story";
    const ACCEPTED: [u8; 4] = [0x20, 0x02, 0x00, 0x00];
    let (world, traefik, _) = World::running().await;
    let broker = Backend::mosquitto(&world.home).await;
    world.insert(&Row::tcp("mqtt.verdegris.test", "mqtt", broker.address())).await;
    let answer = async || -> anyhow::Result<[u8; 4]> {
        let mut stream = traefik.tls("mqtt.verdegris.test").await?;
        stream.write_all(CONNECT).await?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await?;
        Ok(answer)
    };
    let (answer, _) = until("the broker answers", secs(5), async || timeout(ms(100), answer()).await?).await;
    assert_eq!(answer, ACCEPTED);
}

#[tokio::test]
async fn a_redirect_keeps_the_path_when_asked() {
    let (world, traefik, _) = World::running().await;
    let redirect = |name: &str| {
        Row::bare(name)
            .with("tls_mode", "none")
            .with("service_type", "redirect")
            .with("redirect_to", "https://new.test/there")
    };
    world.insert(&redirect("old.test")).await;
    world.insert(&redirect("moved.test").with("redirect_permanent", "true").with("redirect_keep_path", "true")).await;
    traefik.until("http://moved.test/", |a| a.status == 301 || a.status == 308).await;
    let old = traefik.get("http://old.test/a?b=c").await;
    assert!([302, 307].contains(&old.status), "{}", old.status);
    assert_eq!(old.header("location"), "https://new.test/there");
    let moved = traefik.get("http://moved.test/a?b=c").await;
    assert_eq!(moved.header("location"), "https://new.test/there/a?b=c");
}

#[tokio::test]
async fn maintenance_answers_503_with_the_message() {
    let (world, traefik, hello) = World::running().await;
    world.insert(&Row::http("a.test", hello.address())).await;
    traefik.until_answers("http://a.test/", "hello").await;
    world
        .psql(
            "UPDATE domains SET status = 'maintenance', maintenance_message = 'Back at <noon>' WHERE domain = 'a.test'",
        )
        .await;
    let (answer, took) = traefik.until("http://a.test/x", |a| a.status == 503).await;
    assert!(took < LIVE, "live after {took:?}");
    let text = answer.text();
    assert!(text.contains("Back at"), "{text}");
    assert!(!text.contains("<noon>"), "the message is text, not HTML: {text}");
    world.psql("UPDATE domains SET status = 'active' WHERE domain = 'a.test'").await;
    traefik.until_answers("http://a.test/", "hello").await;
}

#[tokio::test]
async fn a_row_can_refer_to_a_service_of_a_fragment_and_to_traefiks_own() {
    let (world, traefik, hello) = World::running().await;
    let body = format!(r#"{{"loadBalancer": {{"servers": [{{"url": "http://{}"}}]}}}}"#, hello.address());
    world.psql(&format!("INSERT INTO fragments (kind, name, body) VALUES ('http.service', 'pool', '{body}')")).await;
    let refer = |name: &str, to: &str| {
        Row::bare(name).with("tls_mode", "none").with("service_type", "reference").with("service_ref", to)
    };
    world.insert(&refer("pool.test", "pool")).await;
    world.insert(&refer("api.test", "api@internal")).await;
    let took = traefik.until_answers("http://pool.test/", "hello").await;
    assert!(took < LIVE, "live after {took:?}");
    let (version, _) = traefik.until("http://api.test/api/version", |a| a.status == 200).await;
    assert_eq!(version.json()["Version"], "3.7.15");
}

#[tokio::test]
async fn several_backends_share_the_requests_by_weight() {
    let (world, traefik, _) = World::running().await;
    let [heavy, light] = [world.backend("heavy").await, world.backend("light").await];
    let server = |b: &Backend, weight: u32| {
        format!(r#"{{"host": "127.0.0.1", "port": {}, "weight": {weight}}}"#, b.address().port())
    };
    let backends = format!("[{}, {}]", server(&heavy, 3), server(&light, 1));
    world.insert(&Row::bare("lb.test").with("tls_mode", "none").with("backends", &backends)).await;
    traefik.until_status("http://lb.test/", 200).await;
    for _ in 0..40 {
        traefik.get("http://lb.test/").await;
    }
    let (heavy, light) = (heavy.seen().len(), light.seen().len());
    assert!(heavy >= 2 * light && light >= 8, "{heavy} to {light}");
}

#[tokio::test]
async fn a_sticky_visitor_stays_and_a_hasty_one_is_limited() {
    let (world, traefik, hello) = World::running().await;
    let [one, two] = [world.backend("one").await, world.backend("two").await];
    let server = |b: &Backend| format!(r#"{{"host": "127.0.0.1", "port": {}}}"#, b.address().port());
    let sticky = Row::bare("sticky.test")
        .with("tls_mode", "none")
        .with("backends", &format!("[{}, {}]", server(&one), server(&two)))
        .with("sticky", r#"{"cookie": "hub"}"#);
    world.insert(&sticky).await;
    let (first, _) = traefik.until("http://sticky.test/", |a| a.status == 200).await;
    let cookie = first.header("set-cookie").split(';').next().unwrap_or_default().to_owned();
    assert!(cookie.starts_with("hub="), "{cookie:?}");
    for _ in 0..6 {
        let again = traefik.client().with("cookie", &cookie).get("http://sticky.test/").await.unwrap();
        assert_eq!(again.text(), first.text());
    }
    let limited =
        Row::http("hasty.test", hello.address()).with("rate_limit", r#"{"average": 1, "burst": 3, "period": "10s"}"#);
    world.insert(&limited).await;
    traefik.until_status("http://hasty.test/", 200).await;
    traefik.until_status("http://hasty.test/", 429).await;
}

/// A throw-away certificate of Traefik's own would cost an RSA key on every reload.
#[tokio::test]
async fn the_default_certificate_is_ours_and_stays_over_changes() {
    let (world, traefik, hello) = World::running().await;
    let certificate = async || {
        let stream = traefik.tls("any.test").await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].as_ref().to_vec()
    };
    let before = certificate().await;
    for name in ["x.test", "y.test"] {
        world.insert(&Row::https(name, hello.address())).await;
        traefik.until_answers(&format!("https://{name}/"), "hello").await;
        assert!(certificate().await == before, "another certificate after {name}");
    }
    let ours = b"CharlieHub default certificate";
    assert!(before.windows(ours.len()).any(|w| w == ours), "made by us");
}

#[tokio::test]
async fn draft_and_disabled_rows_compile_to_nothing() {
    let (world, traefik, hello) = World::running().await;
    world.insert(&Row::http("draft.test", hello.address()).with("status", "draft")).await;
    world.insert(&Row::http("off.test", hello.address())).await;
    traefik.until_answers("http://off.test/", "hello").await;
    world.psql("UPDATE domains SET status = 'disabled' WHERE domain = 'off.test'").await;
    traefik.until_status("http://off.test/", 404).await;
    assert_eq!(traefik.get("http://draft.test/").await.status, 404);
}

#[tokio::test]
async fn sixty_changes_one_after_the_other_are_all_quick() {
    let (world, traefik, _) = World::running().await;
    let backends: Vec<Backend> = [world.backend("0").await, world.backend("1").await, world.backend("2").await].into();
    world.insert(&Row::http("turn.test", backends[0].address())).await;
    traefik.until_answers("http://turn.test/", "0").await;
    let client = world.postgres.connect().await;
    let mut took = Vec::new();
    for n in 1..=60 {
        let port = backends[n % 3].address().port();
        client
            .execute(&format!("UPDATE domains SET backend_port = {port} WHERE domain = 'turn.test'"), &[])
            .await
            .unwrap();
        let began = Instant::now();
        traefik.until_answers("http://turn.test/", &(n % 3).to_string()).await;
        took.push(began.elapsed());
    }
    took.sort();
    measured("p50 of 60 changes", took[30]);
    measured("the slowest", took[59]);
    assert!(took[30] < ms(100) && took[59] < LIVE, "{took:?}");
}
