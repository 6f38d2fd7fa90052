//! An edge moves in: its files by Traefik's file provider, and the same files imported, answer alike. And out again.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "fails as its stories do")]

use std::{fmt::Write as _, net::SocketAddr, path::PathBuf, time::Instant};

use charliehub_tests::{Answer, Backend, Home, Postgres, Row, Traefik, World, measured, ms, secs, until};
use hyper::{Method, Response};
use serde_json::Value;

/// What is asked of both, and from where.
const REQUESTS: [(&str, &str); 26] = [
    ("127.0.0.1", "https://plain.test/"),
    ("127.0.0.1", "http://plain.test/"),
    ("127.0.0.1", "https://PLAIN.test/x?y=1"),
    ("127.0.0.1", "https://plain.test/admin"),
    ("127.0.0.1", "https://plain.test/administer"),
    ("127.0.0.1", "https://a.wild.test/"),
    ("127.0.0.1", "https://b.wild.test/"),
    ("127.0.0.1", "https://a.b.wild.test/"),
    ("127.0.0.1", "https://office.test/"),
    ("127.0.0.9", "https://office.test/"),
    ("127.0.0.1", "https://old.test/a/b?c=d"),
    ("127.0.0.1", "https://moved.test/a?c=d"),
    ("127.0.0.1", "https://chained.test/page"),
    ("127.0.0.1", "https://either.test/"),
    ("127.0.0.1", "https://or.test/"),
    ("127.0.0.1", "https://ruled.test/get"),
    ("127.0.0.1", "https://ruled.test/"),
    ("127.0.0.1", "https://basic.test/"),
    ("127.0.0.1", "https://errors.test/404"),
    ("127.0.0.1", "https://mirror.test/"),
    ("127.0.0.1", "https://failover.test/"),
    ("127.0.0.1", "https://shared.test/"),
    ("127.0.0.1", "https://tree.test/leaf/x"),
    ("127.0.0.1", "https://ping.test/ping"),
    ("127.0.0.1", "https://catch.test/all"),
    ("127.0.0.1", "http://nobody.test/"),
];

const YAML: &str = r#"
http:
  Routers:
    plain: {Rule: "Host(`plain.test`)", entryPoints: [websecure], service: hello, tls: true}
    plain-http: {rule: "Host(`plain.test`)", entrypoints: [web], service: noop@internal, middlewares: [to-https]}
    admin: {rule: "Host(`plain.test`) && PathPrefix(`/admin`)", entryPoints: [websecure], service: other, tls: {}, middlewares: [secure, gzip]}
    wild: {rule: 'HostRegexp(`^[^.]+\.wild\.test\.?$`)', entryPoints: [websecure], service: other, tls: {}}
    # Shorter than the rule of the wildcard, so the wildcard is tried first.
    a-wild: {rule: "Host(`a.wild.test`)", entryPoints: [websecure], service: hello, tls: {}}
    office: {rule: "Host(`office.test`)", entryPoints: [websecure], service: hello, tls: {}, middlewares: [office, "slow down"]}
    old: {rule: "Host(`old.test`)", entryPoints: [websecure], service: hello, tls: {}, middlewares: [moved]}
    moved: {rule: "Host(`moved.test`)", entryPoints: [websecure], service: noop@internal, tls: {}, middlewares: [kept]}
    chained: {rule: "Host(`chained.test`)", entryPoints: [websecure], service: hello, tls: {}, middlewares: [all@file]}
    either: {rule: "Host(`either.test`) || Host(`or.test`)", entryPoints: [websecure], service: hello, tls: {}}
    ruled: {rule: "Host(`ruled.test`) && Path(`/get`) && Method(`GET`)", entryPoints: [websecure], service: hello, priority: "9", tls: {options: modern}}
    catch: {rule: "PathPrefix(`/all`)", entryPoints: [websecure], service: other, priority: 1, tls: {}}
    tree: {rule: "Host(`tree.test`)", entryPoints: [websecure], tls: {}}
    leaf: {rule: "PathPrefix(`/leaf`)", service: hello, parentRefs: [tree]}
    ping: {rule: "Host(`ping.test`)", entryPoints: [websecure], service: api@internal, tls: {}}
  services:
    hello: {loadBalancer: {servers: [{url: "http://HELLO"}], passHostHeader: "true"}}
    other: {loadBalancer: {servers: [{url: "http://OTHER/"}], healthCheck: {path: /up, interval: 30}}}
  middlewares:
    to-https: {redirectScheme: {scheme: https, permanent: true}}
    secure:
      headers: {frameDeny: true, stsSeconds: "60", customResponseHeaders: {X-Odd: 017, X-Braced: "{x}"}}
    gzip: {compress: true}
    office: {ipAllowList: {sourceRange: [127.0.0.1]}}
    "slow down": {rateLimit: {average: 1000, period: 60, burst: 100, sourceCriterion: {requestHost: true}}}
    moved: {redirectRegex: {regex: "^.*$", replacement: "https://plain.test/new", permanent: true}}
    kept: {redirectRegex: {regex: "^[^:]*://[^/?]*(.*)$", replacement: "https://plain.test${1}"}}
    all: {chain: {middlewares: [secure, prefix]}}
    prefix: {addPrefix: {prefix: /v1}}
tls:
  options:
    modern: {minVersion: VersionTLS12, alpnProtocols: [http/1.1]}
"#;

const TOML: &str = r#"
[http.routers.basic]
rule = "Host(`basic.test`)"
entryPoints = ["websecure"]
service = "hello"
middlewares = ["basic"]
tls = {}
[http.routers.errors]
rule = "Host(`errors.test`)"
entryPoints = ["websecure"]
service = "hello"
middlewares = ["pages"]
tls = {}
[http.routers.mirror]
rule = "Host(`mirror.test`)"
entryPoints = ["websecure"]
service = "mirrored"
[http.routers.mirror.tls]
[http.routers.failover]
rule = "Host(`failover.test`)"
entryPoints = ["websecure"]
service = "failing"
tls = {}
[http.routers.shared]
rule = "Host(`shared.test`)"
entryPoints = ["websecure"]
service = "shares"
tls = {}
[http.middlewares.basic.basicAuth]
users = ["ann:$apr1$H6uskkkW$IgXLP6ewTrSuBkTrqE8wj/"]
[http.middlewares.pages.errors]
status = ["404"]
service = "other"
query = "/page/{status}"
[http.services.mirrored.mirroring]
service = "hello"
[[http.services.mirrored.mirroring.mirrors]]
name = "other"
percent = 100
[http.services.failing.failover]
service = "gone"
fallback = "other"
[http.services.gone.loadBalancer]
healthCheck = { path = "/up", interval = "100ms" }
[[http.services.gone.loadBalancer.servers]]
url = "http://127.0.0.1:1"
[http.services.shares.loadBalancer.sticky.cookie]
name = "node"
[[http.services.shares.loadBalancer.servers]]
url = "http://OTHER"
weight = 3
[tcp.routers.broker]
rule = "HostSNI(`mqtt.test`)"
entryPoints = ["mqtt"]
service = "broker"
tls = {}
[[tcp.services.broker.loadBalancer.servers]]
address = "ECHO"
"#;

/// The files, with the addresses of the backends.
fn files(home: &Home, hello: SocketAddr, other: SocketAddr, echo: SocketAddr) -> PathBuf {
    let directory = home.join("dynamic");
    std::fs::create_dir_all(directory.join("more")).unwrap();
    let fill = |text: &str| {
        let text = text.replace("HELLO", &hello.to_string()).replace("OTHER", &other.to_string());
        text.replace("ECHO", &echo.to_string())
    };
    std::fs::write(directory.join("routes.yml"), fill(YAML)).unwrap();
    std::fs::write(directory.join("more/rest.toml"), fill(TOML)).unwrap();
    directory
}

/// What a client notices.
fn noticed(answer: &Answer) -> String {
    let headers = ["location", "x-odd", "x-braced", "x-frame-options", "strict-transport-security", "www-authenticate"];
    let headers: Vec<&str> = headers.iter().map(|name| answer.header(name)).collect();
    let cookie = answer.header("set-cookie").split('=').next().unwrap_or_default().to_owned();
    format!("{} {headers:?} {cookie} {}", answer.status, answer.text())
}

async fn ask(traefik: &Traefik, from: &str, url: &str) -> Result<String, String> {
    let client = traefik.client().from(from.parse().unwrap());
    client.get(url).await.map(|answer| noticed(&answer)).map_err(|error| format!("{error:#}"))
}

async fn until_alike(one: &Traefik, two: &Traefik, what: &str) -> Vec<String> {
    let mut answers = Vec::new();
    for (from, url) in REQUESTS {
        let (answer, _) = until(&format!("{what}: {url} from {from}"), secs(10), async || {
            let (one, two) = (ask(one, from, url).await, ask(two, from, url).await);
            if one.is_ok() && one == two { one } else { Err(format!("{one:?} is not {two:?}")) }
        })
        .await;
        answers.push(format!("{url} {answer}"));
    }
    answers
}

async fn backends(home: &Home) -> (Backend, Backend, Backend) {
    let hello = Backend::with(home, |seen| {
        let status = if seen.path.contains("404") { 404 } else { 200 };
        Response::builder().status(status).body(format!("hello {}", seen.path)).unwrap()
    });
    let other = Backend::with(home, |seen| Response::new(format!("other {}", seen.path)));
    (hello.await, other.await, Backend::echo(home).await)
}

#[tokio::test]
async fn files_and_their_import_answer_alike_and_so_does_the_export() {
    let world = World::new().await;
    let (hello, other, echo) = backends(&world.home).await;
    let directory = files(&world.home, hello.address(), other.address(), echo.address());
    let directory = directory.to_str().unwrap();
    let before = Traefik::from_directory(&world.home, "files", directory.as_ref()).await;

    let first = world.postgres.revision().await; // that of the default certificate
    let planned = world.provider.must(&["import", directory, "--dry-run"]).await;
    assert!(planned.contains("plain.test") && planned.contains("slow-down"), "{planned}");
    assert_eq!(world.postgres.revision().await, first, "a dry run makes none");
    let said: Value = serde_json::from_str(&world.provider.must(&["import", directory, "--json"]).await).unwrap();
    assert_eq!(said["warnings"], serde_json::json!([]), "{said:#}");
    assert_eq!(said["revision"], world.postgres.revision().await);
    let again: Value = serde_json::from_str(&world.provider.must(&["import", directory, "--json"]).await).unwrap();
    assert_eq!((&again["changes"], &again["revision"]), (&Value::from(0), &Value::Null), "{again:#}");

    let after = world.traefik("hub2").await;
    let answers = until_alike(&before, &after, "imported").await;
    println!("{}", answers.join("\n"));
    let right = answers.iter().filter(|answer| answer.contains(" 200 ")).count();
    assert!(right >= 12, "the files are right: {answers:#?}");
    after.tls("mqtt.test").await.expect("a connection to the broker");
    before.tls("mqtt.test").await.expect("a connection to the broker");

    for format in ["yaml", "json"] {
        let exported = world.provider.must(&["export", "--format", format]).await;
        assert!(!exported.contains("charliehub-revision"), "{exported}");
        let file = world.home.join(format!("exported-{format}.yml"));
        std::fs::write(&file, &exported).unwrap();
        let out = Traefik::from_file(&world.home, &format!("out-{format}"), &file).await;
        until_alike(&before, &out, &format!("exported as {format}")).await;
        let file = file.to_str().unwrap();
        let back: Value = serde_json::from_str(&world.provider.must(&["import", file, "--json"]).await).unwrap();
        assert_eq!(back["changes"], 0, "our own export is there already: {back:#}");
    }
}

/// Each revision of a history, the first with rows that a reader of YAML may stumble over.
#[tokio::test]
async fn every_revision_is_exported_as_traefik_loads_it() {
    let world = World::new().await;
    let hello = world.backend("hello").await;
    world.insert(&Row::https("one.test", hello.address())).await;
    world
        .psql(
            r#"INSERT INTO fragments (kind, name, body) VALUES ('http.middleware', 'odd', '{"headers": {
                "customResponseHeaders": {"X-A": "017", "X-B": "2001-01-01", "X-C": "no", "X-D": "{{ now }}", "X-E": "a: b #c"}}}')"#,
        )
        .await;
    world.insert(&Row::https("two.test", hello.address()).with("middlewares", "{odd}")).await;
    world.psql("UPDATE domains SET status = 'maintenance' WHERE domain = 'one.test'").await;
    let newest = world.postgres.revision().await;
    world.provider.until_serves(newest, secs(5)).await;
    for revision in 2..=newest {
        let exported = world.provider.must(&["export", "--revision", &revision.to_string()]).await;
        let file = world.home.join(format!("exported-{revision}.yml"));
        std::fs::write(&file, &exported).unwrap();
        let traefik = Traefik::from_file(&world.home, &format!("r{revision}"), &file).await;
        let wanted: serde_json::Map<String, Value> = serde_json::from_str::<Value>(
            &world.provider.must(&["export", "--format", "json", "--revision", &revision.to_string()]).await,
        )
        .unwrap()["http"]["routers"]
            .as_object()
            .cloned()
            .unwrap();
        until(&format!("the routers of revision {revision}"), secs(5), async || {
            let answer = traefik.try_api("/api/http/routers").await.map_err(|error| format!("{error:#}"))?;
            let routers: Value = serde_json::from_slice(&answer.body).map_err(|_| answer.text())?;
            let enabled = |name: &String| {
                routers
                    .as_array()
                    .unwrap()
                    .iter()
                    .any(|router| router["name"] == format!("{name}@file") && router["status"] == "enabled")
            };
            if wanted.keys().all(enabled) { Ok(()) } else { Err(routers.to_string()) }
        })
        .await;
        if wanted.contains_key("two.test") {
            let answer = traefik.until("https://two.test/", |answer| answer.status == 200).await.0;
            let headers = ["x-a", "x-b", "x-c", "x-d", "x-e"].map(|name| answer.header(name).to_owned());
            assert_eq!(headers, ["017", "2001-01-01", "no", "{{ now }}", "a: b #c"]);
        }
    }
}

#[tokio::test]
async fn another_systems_table_is_shown_first_and_taken_over_with_yes() {
    let home = Home::new();
    let theirs = Postgres::start(&home).await;
    theirs
        .sql("CREATE TABLE domains (domain text, backend_host text, backend_port int, status text, internal_only boolean)")
        .await;
    let hello = Backend::start(&home, "hello").await;
    theirs
        .sql(&format!(
            "INSERT INTO domains VALUES ('moved.test', '127.0.0.1', {}, 'active', false)",
            hello.address().port()
        ))
        .await;
    let world = World::new().await;
    let traefik = world.traefik("hub2").await;
    let url = theirs.url();
    let first = world.postgres.revision().await;
    world.provider.must(&["import", &url]).await;
    assert_eq!(world.postgres.revision().await, first, "only shown");
    world.provider.must(&["import", &url, "--yes", "--reason", "moving over"]).await;
    traefik.until_answers("https://moved.test/", "hello").await;
    let signed =
        world.postgres.value("SELECT source || ': ' || reason FROM revisions ORDER BY revision DESC LIMIT 1").await;
    assert_eq!(signed, "import: moving over");
    let answer = world.provider.send(Method::GET, "/api/domains", "").await;
    assert!(answer.text().contains("moved.test") && answer.took < ms(5_000), "{}", answer.text());
}

/// The goal is that of a release build, and is held there; one without optimisation has a tenth to do.
#[tokio::test]
async fn ten_thousand_routers_are_in_within_seconds() {
    let many = if cfg!(debug_assertions) { 1_000 } else { 10_000 };
    let world = World::new().await;
    let (mut routers, mut services) = (String::new(), String::new());
    for n in 0..many {
        let (a, b) = (n / 250, n % 250);
        writeln!(
            routers,
            "    r{n}: {{rule: 'Host(`h{n}.bulk.test`)', entryPoints: [websecure], service: s{n}, tls: {{}}}}"
        )
        .unwrap();
        writeln!(services, "    s{n}: {{loadBalancer: {{servers: [{{url: 'http://10.0.{a}.{b}:80'}}]}}}}").unwrap();
    }
    let file = world.home.join("many.yml");
    std::fs::write(&file, format!("http:\n  routers:\n{routers}  services:\n{services}")).unwrap();
    let began = Instant::now();
    let said = world.provider.must(&["import", file.to_str().unwrap(), "--json"]).await;
    measured(&format!("{many} routers imported"), began.elapsed());
    assert!(began.elapsed() < secs(5), "{:?}", began.elapsed());
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&said["changes"], &said["fragments"]), (&Value::from(many), &serde_json::json!([])));
    world.provider.until_serves(world.postgres.revision().await, secs(15)).await;
}
