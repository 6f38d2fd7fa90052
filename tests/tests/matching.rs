//! What we say of a request is what the real Traefik does with it: the status, and which backend answered.

use charliehub_tests::{Alias, Answer, Backend, Row, Traefik, World, secs, until};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const HOSTS: &[&str] = &[
    "exact.test",
    "EXACT.test",
    "exact.test.",
    "one.wild.test",
    "two.wild.test",
    "a.b.wild.test",
    "wild.test",
    "in.test",
    "moved.test",
    "soon.test",
    "closed.test",
    "frag.test",
    "old.test",
    "nobody.test",
];

const TARGETS: &[&str] = &[
    "/",
    "/api",
    "/apix",
    "/api/v2/x?q=2",
    "//api/./v2",
    "/api/v2/../../pub",
    "/%61pi",
    "/a!b",
    "/a%21b",
    "/a%2fb/",
    "/?q=1",
    "/?x&q=0&q=1",
];

/// Rows and fragments of every sort; each backend is called as the router that leads to it.
async fn routes(world: &World) {
    let to = async |name: &str| world.backend(name).await.address();
    for row in [
        Row::http("exact.test", to("exact.test").await),
        Row::http("exact.test", to("exact.test/api").await).with("path_prefix", "/api"),
        Row::http("exact.test", to("exact.test/api/v2").await).with("path_prefix", "/api/v2"),
        Row::http("exact.test", to("exact.test/a!b").await).with("path_prefix", "/a!b"),
        Row::http("*.wild.test", to("*.wild.test").await),
        Row::http("*.wild.test", to("*.wild.test/api").await).with("path_prefix", "/api"),
        Row::http("one.wild.test", to("one.wild.test").await),
        Row::http("in.test", to("in.test").await).with("access_tier", "internal"),
        Row::http("in.test", to("in.test/pub").await).with("path_prefix", "/pub"),
        Row::http("soon.test", to("soon.test").await).with("status", "maintenance"),
        Row::bare("moved.test")
            .with("tls_mode", "none")
            .with("service_type", "redirect")
            .with("redirect_to", "https://exact.test/x"),
        // Nobody to ask for a login is configured.
        Row::https("closed.test", to("closed.test").await).with("auth_required", "true"),
        Row::https("closed.test", to("closed.test/pub").await).with("path_prefix", "/pub"),
    ] {
        world.insert(&row).await;
    }
    for (name, rule, service, syntax) in [
        ("blue", "Host(`frag.test`) && (Header(`x-team`, `blue`) || Query(`q`, `1`))", "exact.test/api", "v3"),
        ("site", "HostRegexp(`^frag`) && ClientIP(`10.44.0.0/16`) && PathRegexp(`/$`)", "one.wild.test", "v3"),
        ("plain", "Host(`frag.test`) && PathPrefix(`/a!b`)", "exact.test", "v3"),
        ("either", "Host(`old.test`, `other.test`) && PathPrefix(`/{first:[a-z]+}/v2`)", "exact.test", "v2"),
        ("asked", "HostRegexp(`{name:[a-z]+}.test`) && Host(`old.test`) && Query(`q={n:[0-9]}`)", "in.test/pub", "v2"),
    ] {
        let body = serde_json::json!({"rule": rule, "service": service, "ruleSyntax": syntax, "entryPoints": ["web"]});
        let body = body.to_string().replace('\'', "''");
        world
            .psql(&format!("INSERT INTO fragments (kind, name, body) VALUES ('http.router', '{name}', '{body}')"))
            .await;
    }
}

fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect::<Vec<_>>().concat()
}

/// What we said, against what Traefik did.
fn agree(matched: &Value, answer: &Answer) -> Result<&'static str, String> {
    let answering = &matched["answer"];
    let (outcome, status) = match answering["outcome"].as_str() {
        None => ("unmatched", 404),
        Some("routed") => ("routed", 200),
        Some("refused") => ("refused", 403),
        Some("closed") => ("closed", 503),
        Some("maintenance") => ("maintenance", 503),
        Some("redirect") => ("redirect", 302),
        Some(other) => return Err(format!("outcome {other}")),
    };
    if answer.status != status {
        return Err(format!("status {}, we say {outcome}", answer.status));
    }
    let right = match outcome {
        "routed" => answering["service"] == answer.text(),
        "maintenance" => answer.text().contains("maintenance"),
        "closed" => !answer.text().contains("maintenance"),
        "redirect" => answer.header("location") == "https://exact.test/x",
        _ => true,
    };
    if right { Ok(outcome) } else { Err(format!("we say {outcome}, and it was {:?}", answer.text())) }
}

#[tokio::test]
async fn what_we_say_of_a_request_is_what_traefik_does_with_it() {
    let (world, traefik, hello) = World::running().await;
    let site = Alias::new(44);
    routes(&world).await;
    world.insert(&Row::http("last.test", hello.address())).await;
    traefik.until_answers("http://last.test/", "hello").await;

    let (mut seen, mut differing, mut asked) = (std::collections::BTreeMap::<&str, usize>::new(), Vec::new(), 0);
    let all = HOSTS.len() * TARGETS.len() * 8;
    // 13 and the number of combinations have nothing in common: each host, target, scheme, source and header comes up.
    for n in (0..all).map(|i| i * 13 % all).take(500) {
        let (host, rest) = (HOSTS[n % HOSTS.len()], n / HOSTS.len());
        let (target, bits) = (TARGETS[rest % TARGETS.len()], rest / TARGETS.len());
        // No TLS client sends a name with a dot at its end.
        let scheme = if bits & 1 == 1 && !host.ends_with('.') { "https" } else { "http" };
        let url = format!("{scheme}://{host}{target}");
        let (mut client, mut query) = (traefik.client(), vec![format!("url={}", escaped(&url))]);
        if bits & 2 == 2 {
            client = client.from(site.ip());
            query.push(format!("client_ip={}", site.ip()));
        } else {
            query.push("client_ip=127.0.0.1".to_owned());
        }
        if bits & 4 == 4 {
            client = client.with("X-Team", "blue");
            query.push("header=X-Team:%20blue".to_owned());
        }
        let query = query.join("&");
        let answer = client.get(&url).await.unwrap();
        let matched = world.provider.get(&format!("/api/match?{query}")).await;
        assert_eq!(matched.status, 200, "{url}: {}", matched.text());
        asked += 1;
        match agree(&matched.json(), &answer) {
            Ok(outcome) => *seen.entry(outcome).or_default() += 1,
            Err(why) => differing.push(format!("{url} {query}: {why}; {}", matched.text())),
        }
    }
    println!("{asked} requests: {seen:?}");
    assert!(differing.is_empty(), "{} of {asked}\n{}", differing.len(), differing.join("\n"));
    for outcome in ["unmatched", "routed", "refused", "closed", "maintenance", "redirect"] {
        assert!(seen.contains_key(outcome), "no request was {outcome}: {seen:?}");
    }
}

/// Whether bytes come back as they were sent; Traefik itself answers something else, or nothing.
async fn echoes(traefik: &Traefik, name: &str) -> bool {
    let Ok(mut stream) = traefik.tls(name).await else { return false };
    let sent = b"echo\r\n\r\n";
    stream.write_all(sent).await.ok();
    let mut back = [0; 8];
    stream.read_exact(&mut back).await.is_ok() && back == *sent
}

#[tokio::test]
async fn a_connection_by_tcp_goes_where_we_say() {
    let (world, traefik, _) = World::running().await;
    let echo = Backend::echo(&world.home).await;
    for row in [
        Row::tcp("m.test", "mqtt", echo.address()),
        Row::tcp("*.m.test", "mqtt", echo.address()),
        Row::tcp("in.m.test", "mqtt", echo.address()).with("access_tier", "internal"),
    ] {
        world.insert(&row).await;
    }
    until("the last is there", secs(5), async || {
        let routers = traefik.api("/api/tcp/routers").await;
        if routers.as_array().is_some_and(|all| all.len() == 3) { Ok(()) } else { Err(routers) }
    })
    .await;
    for (name, outcome) in [
        ("m.test", Some("routed")),
        ("x.m.test", Some("routed")),
        ("X.M.test", Some("routed")),
        ("in.m.test", Some("refused")),
        ("x.y.m.test", None),
        ("first.test", None),
    ] {
        let path = format!("/api/match?url=tcp://{name}:8883&entry_point=mqtt&client_ip=127.0.0.1");
        let matched = world.provider.get(&path).await.json();
        assert_eq!(matched["answer"]["outcome"].as_str(), outcome, "{name}: {matched}");
        assert_eq!(echoes(&traefik, name).await, outcome == Some("routed"), "{name}");
    }
}

#[tokio::test]
async fn an_operator_is_told_the_row_the_list_and_what_else_would_have_answered() {
    let (world, _traefik, hello) = World::running().await;
    world.insert(&Row::http("*.a.test", hello.address())).await;
    world
        .insert(&Row::http("in.a.test", hello.address()).with("path_prefix", "/x").with("access_tier", "internal"))
        .await;
    let revision = world.postgres.revision().await;
    world.provider.until_serves(revision, secs(5)).await;

    let path = "/api/match?url=http://in.a.test/x/y";
    let matched = world.provider.get(&format!("{path}&client_ip=192.0.2.1")).await.json();
    let answering = &matched["answer"];
    assert_eq!((&answering["router"], &answering["outcome"]), (&"in.a.test/x".into(), &"refused".into()), "{matched}");
    assert_eq!(answering["row"]["path_prefix"], "/x");
    assert_eq!(answering["middlewares"][0]["kind"], "ipAllowList");
    assert_eq!(answering["middlewares"][0]["verdict"], "refuses");
    assert_eq!(answering["middlewares"][0]["detail"], "10.35.0.0/16, 10.44.0.0/16");
    assert_eq!(matched["also"][0]["router"], "*.a.test");
    let unknown = world.provider.get(path).await.json();
    assert_eq!(unknown["answer"]["middlewares"][0]["verdict"], Value::Null, "nobody said from where");
    assert_eq!(world.provider.get("/api/match?url=http://nobody.test/").await.json()["answer"], Value::Null);

    // The history of configs is written behind the swap.
    let command = ["match", "http://in.a.test/x/y", "--client-ip", "192.0.2.1", "--json"];
    until("the command says the same", secs(5), async || {
        let said: Value = serde_json::from_str(&world.provider.must(&command).await).unwrap();
        if said == matched { Ok(()) } else { Err(said) }
    })
    .await;
    let said = world.provider.must(&command[..4]).await;
    assert!(said.contains("refused") && said.contains("charliehub-internal refuses 10.35.0.0/16"), "{said}");
    let wrong = world.provider.run(&["match", "in.a.test"]).await;
    assert!(wrong.code == Some(1) && wrong.err.contains("it has no scheme"), "{wrong:?}");
}

#[tokio::test]
async fn a_question_that_cannot_be_answered_names_its_parameter() {
    let (world, _traefik, _) = World::running().await;
    let rule = "Host(`first.test`) && ClientIP(`10.0.0.0/8`) && PathPrefix(`/`)";
    let body = serde_json::json!({"rule": rule, "service": "first.test", "priority": 900_000, "entryPoints": ["web"]});
    world.psql(&format!("INSERT INTO fragments (kind, name, body) VALUES ('http.router', 'inner', '{body}')")).await;
    world.provider.until_serves(world.postgres.revision().await, secs(5)).await;
    for (query, field) in [
        ("", "url"),
        ("?url=first.test", "url"),
        ("?url=http://first.test/%25zz", "url"),
        ("?url=http://first.test/", "client_ip"),
        ("?url=http://first.test/&client_ip=10.0.0.1:80", "client_ip"),
        ("?url=http://first.test/&method=G%20T", "method"),
        ("?url=http://first.test/&header=nothing", "header"),
        ("?url=http://first.test/&clientip=10.0.0.1", "clientip"),
    ] {
        let answer = world.provider.get(&format!("/api/match{query}")).await;
        let problem = answer.json();
        assert_eq!((answer.status, &problem["field"]), (400, &field.into()), "{query}: {problem}");
        assert!(problem["remedy"].is_string(), "{query}: {problem}");
    }
    let matched = world.provider.get("/api/match?url=http://first.test/&client_ip=10.0.0.1").await.json();
    assert_eq!(matched["answer"]["fragment"]["name"], "inner", "{matched}");
}
