//! Rows that share routers, or have a parent in common, answer as rows that have one each: two providers on one database, a real
//! Traefik behind each, one of which is told to put no rows together.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "fails as its stories do")]

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddr},
};

use charliehub_tests::{Home, Postgres, Provider, Row, Traefik, World, secs, unguarded, until};
use serde_json::{Value, json};

/// The same rows by two ways.
struct Both {
    world: World,
    /// Follows the same database, with a router for each row.
    _flat: Provider,
    together: Traefik,
    apart: Traefik,
}

impl Both {
    async fn start() -> Self {
        let parents = "instance = \"together\"\nmin_version = \"3.6\"";
        let world = World::with(|provider| unguarded(provider).traefik(parents)).await;
        let flat = Provider::new(&world.home, "flat").database(&world.postgres.url());
        let flat = unguarded(flat).set("compile", "coalesce", "\"off\"").start().await;
        let together = world.traefik("together").await;
        let token = flat.token("traefik").await;
        let apart = Traefik::start(&world.home, "apart", flat.address(), &token).await;
        Self { world, _flat: flat, together, apart }
    }

    /// Writes, and waits until both Traefiks run it.
    async fn write(&self, sql: &str, mark: &str) {
        let hello = self.world.backend("hello").await;
        let row = Row::http(&format!("{mark}.mark.test"), hello.address()).insert();
        self.world.psql(&format!("BEGIN; {sql}; {row}; COMMIT")).await;
        for traefik in [&self.together, &self.apart] {
            traefik.until_answers(&format!("http://{mark}.mark.test/"), "hello").await;
        }
    }

    /// Asks both, and notes where their answers are not the same.
    async fn ask(&self, url: &str, wrong: &mut Vec<String>) -> (u16, String) {
        let mut answers = Vec::new();
        for traefik in [&self.together, &self.apart] {
            answers.push(match traefik.client().get(url).await {
                Ok(answer) => (answer.status, answer.text(), answer.header("location").to_owned()),
                Err(_) => (0, String::new(), String::new()),
            });
        }
        if answers[0] != answers[1] {
            wrong.push(format!("{url}: together {:?}, apart {:?}", answers[0], answers[1]));
        }
        (answers[0].0, answers[0].1.clone())
    }

    async fn routers(&self, traefik: &Traefik) -> Vec<Value> {
        let list = traefik.api("/api/http/routers?per_page=10000").await;
        list.as_array().unwrap().iter().filter(|one| one["provider"] == "http").cloned().collect()
    }
}

/// Rows of many kinds, of which each kind is many: more than 500.
async fn rows(both: &Both) -> String {
    let (a, b) = (both.world.backend("a").await.address(), both.world.backend("b").await.address());
    let mut sql = String::new();
    let mut many = |name: &str, count: usize, port: u16, columns: &[(&str, &str)]| {
        let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
        let values: Vec<&str> = columns.iter().map(|(_, value)| *value).collect();
        let comma = if columns.is_empty() { "" } else { ", " };
        let (backend, to) = if port == 0 {
            ("", String::new())
        } else {
            (", backend_host, backend_port", format!(", '127.0.0.1', {port}"))
        };
        writeln!(
            sql,
            "INSERT INTO domains (domain{backend}{comma}{}) SELECT format('{name}', n){to}{comma}{} FROM generate_series(1, {count}) n;",
            names.join(", "),
            values.join(", ")
        )
        .unwrap();
    };
    let (web, secure) = (("tls_mode", "'none'"), ("tls_mode", "'default'"));
    many("a%s.bulk.test", 200, a.port(), &[web]);
    many("a%s-a.bulk.test", 50, b.port(), &[web]);
    many("b%s.bulk.test", 60, a.port(), &[web]);
    many("b%s.bulk.test", 60, b.port(), &[web, ("path_prefix", "'/x'")]);
    many("b%s.bulk.test", 20, a.port(), &[web, ("path_prefix", "'/x/a!b'")]);
    many("*.w%s.test", 40, b.port(), &[web]);
    many("in.w%s.test", 20, a.port(), &[web]);
    many("s%s.bulk.test", 60, a.port(), &[secure]);
    many("*.s%s.bulk.test", 30, b.port(), &[secure]);
    many("c%s.bulk.test", 40, a.port(), &[web, ("access_tier", "'internal'")]);
    many("l%s.bulk.test", 20, a.port(), &[web, ("access_tier", "'restricted'"), ("ip_allowlist", "'{127.0.0.0/8}'")]);
    many("d%s.bulk.test", 40, a.port(), &[secure, ("auth_required", "true")]);
    many("m%s.bulk.test", 10, a.port(), &[web, ("status", "'maintenance'")]);
    let limit = ("rate_limit", "json_build_object('average', 1000 + n)");
    many("own%s.bulk.test", 400, b.port(), &[web, limit]);
    many("own%s.bulk.test", 50, a.port(), &[web, limit, ("path_prefix", "'/x'")]);
    many("*.own%s.bulk.test", 50, a.port(), &[web, limit]);
    many(
        "t%s.bulk.test",
        50,
        b.port(),
        &[secure, limit, ("access_tier", "'internal'"), ("auth_required", "n % 2 = 0")],
    );
    many(
        "r%s.bulk.test",
        20,
        0,
        &[web, ("service_type", "'redirect'"), ("redirect_to", "'https://n.test'"), ("redirect_keep_path", "true")],
    );
    sql
}

/// Hosts that are near those of the rows: in, out, before, behind, with dots and hyphens.
fn hosts(n: usize) -> Vec<String> {
    let kind = ["a", "b", "c", "d", "l", "m", "own", "r", "s", "t", "in.own"][n % 11];
    let host = format!("{kind}{}.bulk.test", 1 + n * 7 % 23);
    let below = format!("in.w{}.test", 1 + n * 5 % 43);
    let chosen = if n.is_multiple_of(3) { below } else { host };
    match n % 13 {
        0 => vec![chosen.to_uppercase()],
        1 => vec![format!("{chosen}.")],
        2 => vec![format!("x{chosen}"), format!("x.{chosen}")],
        3 => vec![format!("{chosen}x"), format!("{chosen}.x")],
        4 => vec![chosen.replacen('.', "-", 1), chosen.replacen('.', "", 1)],
        5 => vec![chosen[1..].to_owned(), format!("-{chosen}")],
        6 => vec![format!("a{}-a.bulk.test", n % 60)],
        7 => vec![format!("y.z.{chosen}"), format!(".{chosen}")],
        8 => vec![format!("{chosen}..")],
        _ => vec![chosen],
    }
}

/// Two Traefiks whose API tells which release they are.
#[tokio::test]
async fn rows_with_backends_of_their_own_are_below_parents_where_traefik_has_them() {
    let home = Home::new();
    let apis = [(); 2].map(|()| SocketAddr::from((Ipv4Addr::LOCALHOST, home.port())));
    let postgres = Postgres::start(&home).await;
    let known = |name: &str, api: SocketAddr| format!("instance = \"{name}\"\napi = \"http://{api}\"");
    // Two that start together on a busy machine take their first 600 routers so slowly that they seem to refuse them.
    let world = World::over(home, postgres, |provider| {
        let provider = unguarded(provider).set("guard", "containment", "\"off\"");
        provider.traefik(&known("old", apis[0])).traefik(&known("new", apis[1]))
    })
    .await;
    let (token, provider) = (world.provider.token("traefik").await, world.provider.address());
    let old = Traefik::of_version_at("3.4.3", &world.home, "old", provider, &token, apis[0]).await;
    let new = Traefik::of_version_at("3.6.15", &world.home, "new", provider, &token, apis[1]).await;
    let (hello, other) = (world.backend("hello").await.address().port(), world.backend("other").await.address().port());
    let rows = format!(
        "INSERT INTO domains (domain, tls_mode, backend_host, backend_port, rate_limit)
         SELECT format('h%s.test', n), 'none', '127.0.0.1', {hello}, json_build_object('average', 1000 + n)
         FROM generate_series(1, 600) n"
    );
    world.psql(&rows).await;
    for traefik in [&old, &new] {
        traefik.until_answers("http://h7.test/", "hello").await;
    }
    let above = async |traefik: &Traefik| {
        let list = traefik.api("/api/http/routers?per_page=10000").await;
        let ours = list.as_array().unwrap().iter().filter(|one| one["provider"] == "http");
        ours.filter(|one| one.get("parentRefs").is_none()).count()
    };
    until("the newer has parents", secs(10), async || {
        let routers = above(&new).await;
        if routers < 30 { Ok(()) } else { Err(routers) }
    })
    .await;
    let routers = above(&old).await;
    assert!(routers >= 600, "{routers}");

    let change = format!("UPDATE domains SET backend_port = {other} WHERE domain = 'h7.test'");
    world.psql(&change).await;
    for traefik in [&old, &new] {
        traefik.until_answers("http://h7.test/", "other").await;
        traefik.until_answers("http://h8.test/", "hello").await;
    }
    world.psql("DELETE FROM domains WHERE domain = 'h8.test'").await;
    for traefik in [&old, &new] {
        traefik.until_status("http://h8.test/", 404).await;
    }
    until("both run what the rows say", secs(10), async || {
        let drift = world.provider.get("/api/drift").await.json();
        let instances = world.provider.get("/api/instances").await.json();
        let all = instances.as_array().unwrap();
        let current =
            all.len() == 2 && all.iter().all(|one| one["state"] == "current" && one["held_back"] == json!([]));
        let clean = drift.as_array().unwrap().iter().all(|one| one["differences"] == json!([]));
        if current && clean { Ok(()) } else { Err((instances, drift)) }
    })
    .await;
}

#[tokio::test]
async fn rows_that_share_routers_answer_as_rows_that_have_one_each() {
    let both = Both::start().await;
    let sql = rows(&both).await;
    both.write(&sql, "first").await;
    let (together, apart) = (both.routers(&both.together).await, both.routers(&both.apart).await);
    let is_child = |router: &&Value| router.get("parentRefs").is_some();
    let (children, top) =
        (together.iter().filter(is_child).count(), together.iter().filter(|one| !is_child(one)).count());
    assert!(
        apart.len() > 1_200 && top < 60 && children > 500,
        "{top} routers above {children}, and {} apart",
        apart.len()
    );
    for router in together.iter().chain(&apart) {
        assert_eq!(router["status"], "enabled", "{router}");
    }
    let (mut wrong, mut seen) = (Vec::new(), std::collections::BTreeMap::<u16, usize>::new());
    for n in 0..400 {
        for host in hosts(n) {
            let path = ["/", "/x", "/xy", "/%78", "/x/a!b", "/x/a%21b"][n % 6];
            // A client by TLS names no port and no dot at the end.
            let dotted = host.ends_with('.') || host.starts_with(['.', '-']);
            let url = match n % 4 {
                0 if !dotted => format!("https://{host}{path}"),
                1 => format!("http://{host}:8080{path}"),
                _ => format!("http://{host}{path}"),
            };
            *seen.entry(both.ask(&url, &mut wrong).await.0).or_default() += 1;
        }
    }
    println!("{top} routers above {children} for {}; answers by status: {seen:?}", apart.len());
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    for status in [200, 302, 403, 404, 503] {
        assert!(seen.contains_key(&status), "no request was answered with {status}: {seen:?}");
    }
    changes(&both).await;
}

/// What becomes of rows that move, go, and are wrong.
async fn changes(both: &Both) {
    let (world, mut wrong) = (&both.world, Vec::new());
    let routed = async |host: &str| -> Value {
        let routes = world.provider.get("/api/routes").await.json();
        routes.as_array().unwrap().iter().find(|one| one["name"] == host).cloned().unwrap()
    };
    let group = routed("a7.bulk.test").await["routers"][0].as_str().unwrap().to_owned();
    assert!(group.starts_with("group:"), "{group}");
    let matched = world.provider.get("/api/match?url=http://A7.bulk.test./x").await.json();
    assert_eq!(
        (&matched["answer"]["router"], &matched["answer"]["row"]["domain"]),
        (&group.as_str().into(), &"a7.bulk.test".into()),
        "{matched}"
    );

    let own = routed("own7.bulk.test").await;
    assert_eq!(own["routers"], json!(["own7.bulk.test"]));
    let matched = world.provider.get("/api/match?url=http://own7.bulk.test/x").await.json();
    assert_eq!(matched["answer"]["router"], "own7.bulk.test/x", "{matched}");

    both.write(
        "UPDATE domains SET backend_port = (SELECT backend_port FROM domains WHERE domain = 'a1-a.bulk.test') WHERE domain = 'a7.bulk.test'",
        "second",
    )
    .await;
    assert_eq!(both.ask("http://a7.bulk.test/", &mut wrong).await, (200, "b".to_owned()));
    assert_ne!(routed("a7.bulk.test").await["routers"][0], group.as_str());

    both.write("DELETE FROM domains WHERE domain LIKE '*.w%'", "third").await;
    for (host, status) in [("in.w7.test", 200), ("out.w7.test", 404)] {
        assert_eq!(both.ask(&format!("http://{host}/"), &mut wrong).await.0, status, "{host}");
    }

    both.write("UPDATE domains SET middlewares = '{nope}' WHERE domain = 'a9.bulk.test'", "fourth").await;
    for (host, status) in [("a9.bulk.test", 503), ("a8.bulk.test", 200), ("a10.bulk.test", 200)] {
        assert_eq!(both.ask(&format!("http://{host}/"), &mut wrong).await.0, status, "{host}");
    }
    let route = routed("a9.bulk.test").await;
    assert!(route["state"] == "closed" && route["reason"].as_str().unwrap().contains("nope"), "{route}");

    // Few enough again: a router for each.
    both.write("DELETE FROM domains WHERE domain ~ '^(a|b|own|.*in\\.own|t)' OR domain LIKE '*.own%'", "fifth").await;
    let both_ways = async || (both.routers(&both.together).await.len(), both.routers(&both.apart).await.len());
    until("a router for each row", secs(10), async || {
        let (together, apart) = both_ways().await;
        if together == apart { Ok(()) } else { Err((together, apart)) }
    })
    .await;
    for host in ["s3.bulk.test", "x.s3.bulk.test"] {
        assert_eq!(both.ask(&format!("https://{host}/"), &mut wrong).await.0, 200, "{host}");
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}
