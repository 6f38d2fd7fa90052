//! What a Traefik runs otherwise than the rows say is told, each kind made for real, and nothing on a healthy edge.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "fails as its stories do")]

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::Instant,
};

use charliehub_tests::{Backend, Link, Row, Traefik, World, configuration, measured, secs, until};
use serde_json::{Value, json};

/// A Traefik that polls over a link and reads a file beside that, and a provider that reads its API.
async fn watched(settings: impl FnOnce(charliehub_tests::Provider) -> charliehub_tests::Provider) -> Edge {
    let mut world = World::with(settings).await;
    let link = Link::to(&world.home, world.provider.address()).await;
    let token = world.provider.token("traefik").await;
    let file = world.home.join("beside.yml");
    std::fs::write(&file, "").unwrap();
    let api = SocketAddr::from((Ipv4Addr::LOCALHOST, world.home.port()));
    let traefik = Traefik::with_file(&world.home, "hub2", link.address(), &token, api, &file).await;
    world.provider.change("[traefik]", "instance", "\"hub2\"");
    world.provider.change("[traefik]", "api", &format!("\"{}\"", traefik.api_url()));
    world.provider.stop().await;
    world.provider.up().await;
    world.until_followed().await;
    let hello = world.backend("hello").await;
    world.insert(&Row::http("first.test", hello.address())).await;
    traefik.until_answers("http://first.test/", "hello").await;
    Edge { world, traefik, link, hello, file }
}

struct Edge {
    world: World,
    traefik: Traefik,
    link: Link,
    hello: Backend,
    file: std::path::PathBuf,
}

impl Edge {
    /// What is told of the one instance.
    async fn drift(&self) -> Value {
        let answer = self.world.provider.get("/api/drift").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()[0].clone()
    }

    /// Each difference in short: kind, object, name, row.
    async fn short(&self) -> Vec<[String; 4]> {
        let drift = self.drift().await;
        assert_eq!((&drift["instance"], &drift["trouble"]), (&"hub2".into(), &Value::Null), "{drift}");
        let differences = drift["differences"].as_array().unwrap();
        let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let one = |d: &Value| [word(&d["kind"]), word(&d["object"]), word(&d["name"]), word(&d["owner"]["name"])];
        differences.iter().map(one).collect()
    }

    /// Each answer waits by itself, for a second, while another config runs than is served.
    async fn until_short(&self, wanted: &[[&str; 4]]) {
        let began = Instant::now();
        loop {
            let short = self.short().await;
            if short == wanted {
                return;
            }
            assert!(began.elapsed() < secs(10), "wanted {wanted:#?}\nlast seen {short:#?}\n{:#}", self.drift().await);
        }
    }

    /// From now on Traefik hears nothing.
    fn silence(&self) {
        self.link.cut_after(0);
        self.link.close_all();
    }
}

/// Every option that Traefik has, in one configuration.
fn every_option() -> Value {
    let kinds: Value = serde_json::from_str(include_str!("../../proto/tests/every_option.json")).unwrap();
    configuration(&kinds)
}

async fn replace(file: &Path, text: &str) {
    tokio::fs::write(file, text).await.unwrap();
}

#[tokio::test]
async fn a_healthy_edge_with_every_kind_of_row_and_every_option_has_no_drift() {
    let points = r#"["web", "websecure", "mqtt", "mqtts", "dns"]"#;
    let edge = watched(|provider| {
        // What every option together makes of TLS is no good edge, and is compared all the same.
        let provider = provider.set("guard", "containment", "\"off\"");
        provider.set("compile", "entry_points", points).set("access.forward_auth", "address", "\"http://127.0.0.1:9/\"")
    })
    .await;
    let (world, at) = (&edge.world, edge.hello.address());
    let backends = format!(
        r#"[{{"host":"{}","port":{},"weight":3}},{{"host":"127.0.0.1","port":9,"weight":1}}]"#,
        at.ip(),
        at.port()
    );
    for row in [
        Row::https("safe.test", at),
        Row::https("*.wild.test", at).with("auth_required", "true"),
        Row::https("in.test", at).with("access_tier", "internal").with("path_prefix", "/a-b/%20c"),
        Row::http("list.test", at).with("access_tier", "restricted").with("ip_allowlist", "{10.0.0.0/8}"),
        Row::http("slow.test", at).with("rate_limit", r#"{"average": 10, "burst": 20, "period": "60s"}"#),
        Row::http("check.test", at).with("health_check", r#"{"path": "/", "interval": "90s"}"#),
        Row::http("stay.test", at).with("sticky", r#"{"cookie": "here", "secure": true}"#),
        Row::bare("many.test").with("tls_mode", "none").with("backends", &backends),
        Row::http("down.test", at).with("status", "maintenance"),
        Row::http("off.test", at).with("status", "disabled"),
        Row::bare("old.test")
            .with("tls_mode", "none")
            .with("service_type", "redirect")
            .with("redirect_to", "https://new.test"),
        Row::tcp("m.test", "mqtt", at),
        Row::tcp("*.m.test", "mqtt", at).with("access_tier", "internal"),
    ] {
        world.insert(&row).await;
    }
    edge.traefik.until_status("http://down.test/", 503).await;
    edge.until_short(&[]).await;

    let file = world.home.join("every.yml");
    std::fs::write(&file, every_option().to_string()).unwrap();
    world.provider.must(&["import", file.to_str().unwrap()]).await;
    until("the options run", secs(10), async || {
        let all = edge.traefik.api("/api/http/middlewares?per_page=1000").await;
        if all.to_string().contains("every-header@http") { Ok(()) } else { Err(all) }
    })
    .await;
    edge.until_short(&[]).await;
    let began = Instant::now();
    assert_eq!(edge.short().await, [[""; 4]; 0]);
    measured("drift of a small edge", began.elapsed());
    until("the command says so too", secs(5), async || {
        let said = world.provider.must(&["check"]).await;
        if said.contains("Traefik hub2: runs what the rows say") { Ok(()) } else { Err(said) }
    })
    .await;

    // A Traefik that runs an older config adds nothing but its defaults either.
    edge.silence();
    world.psql("DELETE FROM domains WHERE domain = 'many.test'").await;
    world.provider.until_serves(world.postgres.revision().await, secs(5)).await;
    edge.until_short(&[
        ["extra", "router", "many.test@http", "-"],
        ["extra", "service", "many.test@http", "-"],
        ["extra", "service", "many.test[1]@http", "-"],
        ["extra", "service", "many.test[2]@http", "-"],
        ["different", "middleware", "charliehub-revision@http", "-"],
    ])
    .await;
}

#[tokio::test]
async fn what_an_entry_point_gives_to_its_routers_is_no_drift() {
    let mut edge = watched(|provider| provider).await;
    edge.traefik.kill();
    let file = edge.world.home.join("hub2.yml");
    let text = std::fs::read_to_string(&file).unwrap();
    let gives = "  websecure:\n    http:\n      tls: {}\n      middlewares: [\"safe@file\"]\n";
    std::fs::write(&file, text.replace("  websecure:\n", gives)).unwrap();
    replace(&edge.file, r#"{"http": {"middlewares": {"safe": {"headers": {"frameDeny": true}}}}}"#).await;
    edge.traefik.up().await;
    let at = edge.hello.address();
    edge.world.insert(&Row::https("safe.test", at).with("access_tier", "internal")).await;
    let both = r#"{"rule": "Host(`both.test`)", "service": "first.test", "middlewares": ["gzip"]}"#;
    edge.world
        .psql(&format!(
            "INSERT INTO fragments (kind, name, body) VALUES ('http.middleware', 'gzip', '{{\"compress\": {{}}}}'), ('http.router', 'both', '{both}')"
        ))
        .await;
    edge.traefik.until_answers("http://both.test/", "hello").await;
    edge.traefik.until_answers("https://both.test/", "hello").await;
    let all = edge.traefik.api("/api/http/routers?per_page=1000").await.to_string();
    assert!(all.contains("websecure-both@http") && all.contains("safe@file"), "{all}");
    edge.until_short(&[]).await;

    edge.silence();
    edge.world.psql("UPDATE domains SET access_tier = 'public' WHERE domain = 'safe.test'").await;
    edge.world.provider.until_serves(edge.world.postgres.revision().await, secs(5)).await;
    edge.until_short(&[
        ["extra", "middleware", "charliehub-internal@http", "-"],
        ["different", "middleware", "charliehub-revision@http", "-"],
        ["different", "router", "safe.test@http", "safe.test"],
    ])
    .await;
}

#[tokio::test]
async fn what_a_traefik_misses_has_too_much_or_has_otherwise_is_told_with_its_row() {
    let edge = watched(|provider| provider).await;
    let (world, at) = (&edge.world, edge.hello.address());
    for name in ["gone.test", "moved.test"] {
        world.insert(&Row::http(name, at)).await;
        edge.traefik.until_answers(&format!("http://{name}/"), "hello").await;
    }
    edge.until_short(&[]).await;

    edge.silence();
    world.psql("DELETE FROM domains WHERE domain = 'gone.test'").await;
    world.psql("UPDATE domains SET backend_port = 9, access_tier = 'internal' WHERE domain = 'moved.test'").await;
    world.insert(&Row::http("new.test", at)).await;
    world.provider.until_serves(world.postgres.revision().await, secs(5)).await;
    edge.until_short(&[
        ["missing", "middleware", "charliehub-internal@http", "-"],
        ["missing", "router", "new.test@http", "new.test"],
        ["missing", "service", "new.test@http", "new.test"],
        ["extra", "router", "gone.test@http", "-"],
        ["extra", "service", "gone.test@http", "-"],
        ["different", "middleware", "charliehub-revision@http", "-"],
        ["different", "router", "moved.test@http", "moved.test"],
        ["different", "service", "moved.test@http", "moved.test"],
    ])
    .await;
    let drift = edge.drift().await;
    let details: Vec<&str> =
        drift["differences"].as_array().unwrap().iter().filter_map(|d| d["detail"].as_str()).collect();
    assert_eq!(details[6], "`middlewares` is not there, and the rows say [\"charliehub-internal\"]", "{details:#?}");
    assert!(details[7].contains("`loadBalancer.servers[0].url` is \"http://127.0.0.1:"), "{details:#?}");
    let said = world.provider.must(&["check"]).await;
    assert!(
        said.contains("8 things run otherwise than the rows say") && said.contains("new.test@http is missing"),
        "{said}"
    );

    edge.link.mend();
    edge.traefik.until_answers("http://new.test/", "hello").await;
    edge.until_short(&[]).await;
}

#[tokio::test]
async fn a_router_of_another_provider_that_takes_our_requests_is_told_and_one_that_does_not_is_none() {
    let edge = watched(|provider| provider).await;
    edge.world.insert(&Row::http("second.test", edge.hello.address()).with("path_prefix", "/x")).await;
    edge.traefik.until_answers("http://second.test/x", "hello").await;
    let beside = |rules: &[(&str, &str, i64)]| {
        let router = |(name, rule, priority): &(&str, &str, i64)| {
            (
                (*name).to_owned(),
                json!({"rule": rule, "priority": priority, "service": "noop@internal", "entryPoints": ["web"]}),
            )
        };
        let routers: serde_json::Map<String, Value> = rules.iter().map(router).collect();
        json!({"http": {"routers": routers}}).to_string()
    };
    let until_runs = async |name: &str| {
        until(name, secs(10), async || {
            let answer = edge.traefik.try_api(&format!("/api/http/routers/{name}@file")).await;
            answer.ok().filter(|answer| answer.status == 200).map(drop).ok_or(())
        })
        .await;
    };
    replace(
        &edge.file,
        &beside(&[
            ("low", "Host(`first.test`)", 1),
            ("elsewhere", "Host(`other.test`)", 900_000),
            ("beside", "Host(`second.test`) && PathPrefix(`/y`)", 900_000),
            ("everywhere", "PathPrefix(`/.well-known/acme-challenge/`)", 900_000),
        ]),
    )
    .await;
    until_runs("everywhere").await;
    edge.until_short(&[]).await;
    assert_eq!(edge.traefik.get("http://first.test/").await.text(), "hello");

    replace(
        &edge.file,
        &beside(&[
            ("whole", "Host(`first.test`)", 900_000),
            ("part", "Host(`second.test`) && PathPrefix(`/x/y`)", 900_001),
        ]),
    )
    .await;
    until_runs("part").await;
    assert_ne!(edge.traefik.get("http://first.test/").await.text(), "hello", "another answers");
    assert_ne!(edge.traefik.get("http://second.test/x/y").await.text(), "hello", "another answers");
    assert_eq!(edge.traefik.get("http://second.test/x").await.text(), "hello");
    edge.until_short(&[
        ["shadowed", "router", "first.test@http", "first.test"],
        ["shadowed", "router", "second.test/x@http", "second.test/x"],
    ])
    .await;
    let drift = edge.drift().await;
    let detail = |at: usize| drift["differences"][at]["detail"].as_str().unwrap_or_default();
    assert!(detail(0).starts_with("router `whole@file` of provider file answers in its place on web: "), "{drift}");
    assert!(detail(1).contains("`part@file` of provider file answers a part of its requests (below /x/y)"), "{drift}");
}

#[tokio::test]
async fn a_traefik_that_does_not_answer_is_trouble_with_a_remedy_and_no_drift() {
    let mut edge = watched(|provider| provider).await;
    edge.traefik.kill();
    let began = Instant::now();
    let drift = edge.drift().await;
    assert!(began.elapsed() < secs(4), "{:?}", began.elapsed());
    assert_eq!((&drift["at"], &drift["differences"]), (&Value::Null, &json!([])), "{drift}");
    let trouble = drift["trouble"].as_str().unwrap_or_default();
    assert!(trouble.contains(&edge.traefik.api_url()) && trouble.contains("is Traefik running"), "{trouble}");

    let provider = &mut edge.world.provider;
    provider.change("[traefik]", "api", &format!("\"http://{}\"", edge.hello.address()));
    provider.stop().await;
    provider.up().await;
    let drift = edge.drift().await;
    let trouble = drift["trouble"].as_str().unwrap_or_default();
    assert!(trouble.contains("is not Traefik's") && drift["differences"] == json!([]), "{drift}");
}
