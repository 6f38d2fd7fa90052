//! Rows that no constraint stopped: quarantined and closed, and nobody else notices. Fault matrix 34, 35.

use charliehub_tests::{Backend, Row, Traefik, World, ms, secs};

/// Two good routes, and no constraint on `domains` any more.
async fn without_constraints() -> (World, Traefik, Backend) {
    let world = World::for_faults().await;
    let traefik = world.traefik("hub2").await;
    let hello = world.backend("hello").await;
    for name in ["good.test", "also.test"] {
        world.insert(&Row::http(name, hello.address())).await;
    }
    traefik.until_answers("http://also.test/", "hello").await;
    world
        .psql(
            "DO $$ DECLARE c name; BEGIN FOR c IN SELECT conname FROM pg_constraint WHERE conrelid = 'domains'::regclass \
             AND contype = 'c' LOOP EXECUTE format('ALTER TABLE domains DROP CONSTRAINT %I', c); END LOOP; END $$",
        )
        .await;
    (world, traefik, hello)
}

#[tokio::test]
async fn a_poisoned_row_is_quarantined_counted_and_named_and_others_stay_live() {
    let (world, traefik, hello) = without_constraints().await;
    let junk = [
        Row::http("back`tick.test", hello.address()),
        Row::http("quo\"te.test", hello.address()),
        Row::http("under score.test", hello.address()),
        Row::http("", hello.address()),
        Row::http("x.test`) || Host(`good.test", hello.address()),
        Row::http("port.test", hello.address()).with("backend_port", "0"),
        Row::http("huge.test", hello.address()).with("backend_port", "99999999"),
        Row::http("host.test", hello.address()).with("backend_host", "evil/../x"),
        Row::http("json.test", hello.address()).with("rate_limit", "{\"average\": \"many\"}"),
        Row::http("labels.test", hello.address()).with("sticky", "\"text\""),
        Row::bare("nothing.test").with("tls_mode", "none"),
        Row::bare("both.test")
            .with("tls_mode", "none")
            .with("service_type", "redirect")
            .with("redirect_to", "javascript:alert(1)"),
        Row::http("prio.test", hello.address()).with("priority", "-7"),
    ];
    for row in &junk {
        world.insert(row).await;
    }
    let bad = f64::from(u32::try_from(junk.len()).unwrap());
    world.provider.until_metric("quarantined_rows", secs(5), |v| v >= bad).await;
    world.insert(&Row::http("later.test", hello.address())).await;
    traefik.until_answers("http://later.test/", "hello").await;
    for good in ["good.test", "also.test"] {
        assert_eq!(traefik.get(&format!("http://{good}/")).await.text(), "hello", "{good}");
    }
    for closed in ["port.test", "huge.test", "host.test", "json.test", "nothing.test", "both.test"] {
        assert_eq!(traefik.get(&format!("http://{closed}/")).await.status, 503, "{closed} is closed, not missing");
    }
    assert!(world.provider.log().contains("port.test"), "the log names the row");
    world.psql("DELETE FROM domains WHERE domain NOT IN ('good.test', 'also.test', 'later.test')").await;
    world.provider.until_metric("quarantined_rows", secs(5), |v| v == 0.0).await;
}

#[tokio::test]
async fn a_row_that_cannot_compile_never_lets_its_requests_fall_to_a_neighbour() {
    let (world, traefik, hello) = without_constraints().await;
    world.insert(&Row::http("shop.test", hello.address())).await;
    world
        .insert(&Row::http("shop.test", hello.address()).with("path_prefix", "/admin").with("access_tier", "internal"))
        .await;
    traefik.until_status("http://shop.test/admin", 403).await;
    world.psql("UPDATE domains SET backend_port = 0 WHERE path_prefix = '/admin'").await;
    traefik.until_status("http://shop.test/admin", 503).await;
    assert_eq!(traefik.get("http://shop.test/").await.text(), "hello", "the rest of the host goes on");
    // A path that no rule can hold: nobody can tell which requests were meant.
    world.psql("UPDATE domains SET path_prefix = '/ad`min' WHERE path_prefix = '/admin'").await;
    traefik.until_status("http://shop.test/", 503).await;
    assert_eq!(traefik.get("http://good.test/").await.text(), "hello", "no other host notices");
}

#[tokio::test]
async fn an_enum_value_that_this_build_does_not_know_is_one_bad_row() {
    let (world, traefik, hello) = without_constraints().await;
    world.psql("ALTER TYPE domain_access_tier ADD VALUE 'vpn'").await;
    world.psql("ALTER TYPE domain_service_type ADD VALUE 'mirror'").await;
    world.insert(&Row::http("vpn.test", hello.address()).with("access_tier", "vpn")).await;
    world.insert(&Row::http("mirror.test", hello.address()).with("service_type", "mirror")).await;
    world.provider.until_metric("quarantined_rows", secs(5), |v| v >= 2.0).await;
    traefik.until_status("http://vpn.test/", 503).await;
    traefik.until_status("http://mirror.test/", 503).await;
    assert_eq!(traefik.get("http://good.test/").await.text(), "hello");
    assert_eq!(hello.seen().iter().filter(|s| s.headers["host"] == "vpn.test").count(), 0);
}

#[tokio::test]
async fn a_poisoned_fragment_takes_nothing_with_it() {
    let (world, traefik, hello) = without_constraints().await;
    let bodies = [
        ("http.middleware", "odd", r#"{"noSuchMiddleware": {}}"#),
        ("http.service", "odd", r#"{"loadBalancer": {"servers": "text"}}"#),
        ("http.router", "odd", r#"{"rule": "Host(`", "service": "nowhere"}"#),
        ("tls.option", "odd", r#"{"minVersion": 7}"#),
    ];
    for (kind, name, body) in bodies {
        world.psql(&format!("INSERT INTO fragments (kind, name, body) VALUES ('{kind}', '{name}', '{body}')")).await;
    }
    world.insert(&Row::http("later.test", hello.address())).await;
    traefik.until_answers("http://later.test/", "hello").await;
    world.provider.until_metric("quarantined_rows", secs(5), |v| v >= 4.0).await;
    assert_eq!(traefik.get("http://good.test/").await.text(), "hello");
}

#[tokio::test]
async fn mass_poison_is_withheld() {
    let (world, traefik, hello) = without_constraints().await;
    let rows: Vec<String> = (0..30).map(|n| Row::http(&format!("m{n}.test"), hello.address()).insert()).collect();
    world.psql(&rows.join(";")).await;
    traefik.until_answers("http://m29.test/", "hello").await;
    world.psql("UPDATE domains SET backend_port = 0 WHERE domain LIKE 'm%'").await;
    world.provider.until_metric("withheld", secs(5), |v| v >= 1.0).await;
    assert_eq!(traefik.get("http://m29.test/").await.text(), "hello");
}

#[tokio::test]
async fn rule_injection_is_refused_by_the_api_and_by_the_database() {
    let world = World::new().await;
    let good = Row::http("good.test", ([127, 0, 0, 1], 80).into());
    world.serve(&good).await;
    let revision = world.postgres.revision().await;
    let poison = ["`", "\"", "'", "\\", "\n", "\t", "\u{7}", "\u{202e}", "\u{feff}", "`) || PathPrefix(`/"];
    let fields = [
        ("domain", "a{}b.test"),
        ("path_prefix", "/a{}b"),
        ("backend_host", "a{}b"),
        ("backend_scheme", "http{}"),
        ("middlewares", "a{}b"),
        ("tcp_entrypoint", "mq{}tt"),
        ("cert_resolver", "le{}"),
        ("redirect_to", "https://a{}b/"),
        ("site", "uk{}"),
        ("owner", "ada{}"),
    ];
    let mut open = Vec::new();
    for (field, shape) in fields {
        for bad in poison {
            let value = shape.replace("{}", bad);
            let base = match field {
                "redirect_to" => Row::bare("new.test").with("tls_mode", "none").with("service_type", "redirect"),
                "tcp_entrypoint" => Row::tcp("new.test", "mqtt", ([127, 0, 0, 1], 80).into()),
                "cert_resolver" => Row::http("new.test", ([127, 0, 0, 1], 80).into()).with("tls_mode", "acme"),
                _ => Row::http("new.test", ([127, 0, 0, 1], 80).into()),
            };
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
            let typed = if field == "middlewares" { format!("{{\"{escaped}\"}}") } else { value.clone() };
            if world.postgres.try_sql(&base.clone().with(field, &typed).insert()).await.is_ok() {
                open.push(format!("SQL {field} {bad:?}"));
            }
            let mut json = base.json();
            json[field] = if field == "middlewares" { serde_json::json!([value]) } else { value.into() };
            let answer = world.provider.send(hyper::Method::POST, "/api/domains", &json.to_string()).await;
            if !(400..500).contains(&answer.status) || !answer.header("content-type").contains("problem+json") {
                open.push(format!("API {field} {bad:?}: {} {}", answer.status, answer.text()));
            }
        }
        let mut json = good.json();
        json[field] = "a\u{0}b".into();
        let answer = world.provider.send(hyper::Method::POST, "/api/domains", &json.to_string()).await;
        if !(400..500).contains(&answer.status) {
            open.push(format!("API {field} NUL: {} {}", answer.status, answer.text()));
        }
    }
    assert_eq!(open, Vec::<String>::new());
    assert_eq!(world.postgres.revision().await, revision, "every refused write leaves everything as it was");
    tokio::time::timeout(ms(5_000), world.provider.poll()).await.unwrap();
}
