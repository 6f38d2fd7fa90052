//! A candidate is loaded by a throw-away real Traefik, which says what it would refuse; nobody is contacted, and nothing
//! is left behind.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a story that cannot be told panics")]

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use charliehub_tests::{Backend, Home, Provider, Row, Traefik, World, measured, ms, secs, until};
use hyper::Method;
use serde_json::{Value, json};

/// Rehearses files: no database is needed.
struct Stage {
    home: Home,
    provider: Provider,
}

impl Stage {
    fn new() -> Self {
        let home = Home::new();
        let provider = with_traefik(Provider::new(&home, "provider")).set("compile", "cert_resolvers", r#"["le"]"#);
        Self { home, provider }
    }

    /// The report, and whether the exit code says the same.
    async fn rehearse(&self, candidate: &str) -> Value {
        let file = self.home.join("candidate.json");
        fs::write(&file, candidate).unwrap();
        let output = self.provider.run(&["rehearse", file.to_str().unwrap(), "--json"]).await;
        let report: Value = serde_json::from_str(&output.out).unwrap_or_else(|e| panic!("{e}: {output:?}"));
        assert_eq!(output.code, Some(i32::from(report["verdict"] != "fine")), "{report}");
        report
    }
}

fn with_traefik(provider: Provider) -> Provider {
    provider.set("rehearse", "traefik", &format!("\"{}\"", Traefik::program().display()))
}

/// A program in the place of Traefik.
fn impostor(home: &Home, script: &str) -> PathBuf {
    let path = home.join("impostor");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn servers(url: &str) -> Value {
    json!({ "loadBalancer": { "servers": [{ "url": url }] } })
}

/// One router `r` with a service `s`.
fn router(fields: &Value) -> Value {
    let mut whole = json!({ "rule": "Host(`a.test`)", "service": "s", "entryPoints": ["websecure"] });
    whole.as_object_mut().unwrap().extend(fields.as_object().cloned().unwrap());
    json!({ "http": { "routers": { "r": whole }, "services": { "s": servers("http://127.0.0.1:9") } } })
}

/// The first process whose parent is `parent`.
async fn child_of(parent: u32) -> i32 {
    until("a child", secs(5), async || {
        let ids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        ids.into_iter().find(|pid: &i32| parent_of(*pid) == Some(parent)).ok_or("none")
    })
    .await
    .0
}

/// None when the process is gone, or only waits to be reaped.
fn parent_of(pid: i32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if fields.next() == Some("Z") { None } else { fields.next()?.parse().ok() }
}

#[tokio::test]
async fn what_traefik_would_not_run_is_told_in_its_words() {
    let stage = Stage::new();
    for (candidate, place, words) in [
        (router(&json!({ "middlewares": ["nope"] })), "/routers/0/errors/0", "middleware \"nope@http\" does not exist"),
        (router(&json!({ "entryPoints": ["nope"] })), "/routers/0/errors/0", "entryPoint \"nope\" doesn't exist"),
        (router(&json!({ "entryPoints": ["traefik"] })), "/routers/0/errors/0", "entryPoint \"traefik\" doesn't exist"),
        (router(&json!({ "rule": "Host(`a.test`" })), "/routers/0/errors/0", "error while parsing rule"),
        (router(&json!({ "service": "nope" })), "/routers/0/errors/0", "the service \"nope@http\" does not exist"),
        (router(&json!({ "tls": { "options": "nope" } })), "/routers/0/errors/0", "unknown TLS options: nope@http"),
        (
            router(&json!({ "tls": { "certResolver": "nope" } })),
            "/log/0/message",
            "nonexistent certificate resolver `nope`",
        ),
    ] {
        let report = stage.rehearse(&candidate.to_string()).await;
        assert_eq!(report["verdict"], "errors", "{report}");
        let said = report.pointer(place).and_then(Value::as_str).unwrap_or_default();
        assert!(said.contains(words), "{words}: {report}");
        let name = report.pointer("/routers/0/name").or(report.pointer("/log/0/object"));
        assert_eq!(name.and_then(Value::as_str), Some("r"), "{report}");
        assert_eq!(report["loaded"], 1, "{report}");
    }
}

#[tokio::test]
async fn what_traefik_would_refuse_as_a_whole_is_told_in_its_words() {
    let stage = Stage::new();
    for (candidate, words) in [
        (router(&json!({ "colour": "red" })).to_string(), "field not found, node: colour"),
        (r#"{"http":{"routers":{}}}"#.to_owned(), "routers cannot be a standalone element"),
        (r#"{"http":{}}"#.to_owned(), "http cannot be a standalone element"),
        (r#"{"http":"#.to_owned(), "yaml"),
    ] {
        let report = stage.rehearse(&candidate).await;
        assert_eq!(report["verdict"], "refused", "{candidate}: {report}");
        let said = report["body_error"].as_str().unwrap_or_default();
        assert!(said.contains(words), "{candidate}: {report}");
        assert!(report["version"].as_str().is_some_and(|version| version.starts_with("3.")), "{report}");
    }
}

#[tokio::test]
async fn what_only_the_real_edge_has_is_no_false_alarm() {
    let stage = Stage::new();
    for candidate in [
        router(&json!({ "tls": { "certResolver": "le", "domains": [{ "main": "a.test" }] } })),
        router(&json!({ "middlewares": ["auth@file", "x@docker"], "service": "y@consulcatalog" })),
        router(&json!({ "service": "api@internal" })),
        router(&json!({ "entryPoints": null })),
        router(&json!({ "service": "ping@internal" })),
        json!({ "tcp": { "routers": { "t": { "rule": "HostSNI(`*`)", "service": "x@file", "entryPoints": ["mqtt"] } } } }),
    ] {
        let report = stage.rehearse(&candidate.to_string()).await;
        assert_eq!(report["verdict"], "fine", "{candidate}: {report}");
        assert_eq!(report["loaded"], 1, "{report}");
    }
}

#[tokio::test]
async fn a_server_whose_health_is_checked_hears_nothing_of_a_rehearsal() {
    let stage = Stage::new();
    let backend = Backend::start(&stage.home, "hello").await;
    let mut candidate = router(&json!({}));
    let mut service = servers(&format!("http://{}", backend.address()));
    service["loadBalancer"]["healthCheck"] = json!({ "path": "/up", "interval": "1ms" });
    candidate["http"]["services"]["s"] = service;
    assert_eq!(stage.rehearse(&candidate.to_string()).await["verdict"], "fine");
    assert!(backend.seen().is_empty());
    candidate["http"]["services"]["s"]["loadBalancer"]["healthCheck"]["interval"] = json!("a while");
    let report = stage.rehearse(&candidate.to_string()).await;
    assert_eq!(report["verdict"], "refused", "the check itself is still read: {report}");
}

#[tokio::test]
async fn rows_are_rehearsed_by_command_and_by_http() {
    let world = World::with(with_traefik).await;
    world.serve(&Row::http("fine.test", "127.0.0.1:9".parse().unwrap())).await;
    let text = world.provider.must(&["rehearse"]).await;
    assert!(text.starts_with("fine: all of it would run; it has 1 router (Traefik 3."), "{text}");
    // What we do not read, Traefik does.
    let sql = r#"INSERT INTO fragments (kind, name, body)
                 VALUES ('http.middleware', 'cb', '{"circuitBreaker": {"expression": "nonsense"}}')"#;
    world.psql(sql).await;
    world.serve(&Row::http("bad.test", "127.0.0.1:9".parse().unwrap()).with("middlewares", "{cb}")).await;
    let answer = world.provider.send(Method::POST, "/api/rehearse", "").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let report = answer.json();
    assert_eq!(report["verdict"], "errors", "{report}");
    assert_eq!(report["routers"][0]["name"], "bad.test", "{report}");
    assert_eq!(world.provider.run(&["rehearse"]).await.code, Some(1));
    assert_eq!(world.provider.run(&["rehearse", "--revision", "1"]).await.code, Some(0), "as it was before");
    let refused = router(&json!({ "colour": "red" })).to_string();
    let report = world.provider.send(Method::POST, "/api/rehearse", &refused).await.json();
    assert_eq!(report["verdict"], "refused", "{report}");
    let checked = world.provider.run(&["check"]).await.out;
    assert!(checked.contains("rehearsals: Traefik 3."), "{checked}");
}

#[tokio::test]
async fn without_a_traefik_it_says_which_setting_is_missing() {
    let world = World::new().await;
    let answer = world.provider.send(Method::POST, "/api/rehearse", "").await;
    assert_eq!((answer.status, &answer.json()["type"]), (409, &json!("urn:charliehub:problem:rehearsal-off")));
    let output = world.provider.run(&["rehearse"]).await;
    assert!(output.code == Some(1) && output.err.contains("`rehearse.traefik`"), "{output:?}");
}

#[tokio::test]
async fn one_is_rehearsed_at_a_time_and_none_for_ever() {
    let home = Home::new();
    let program = impostor(&home, "exec sleep 60");
    let world = World::with(|provider| {
        provider.set("rehearse", "traefik", &format!("\"{}\"", program.display())).set("rehearse", "timeout", "\"1s\"")
    })
    .await;
    let one = async || world.provider.send(Method::POST, "/api/rehearse", "").await.json();
    let (first, second, third) = tokio::join!(one(), one(), one());
    let kinds = [first, second, third].map(|problem| problem["type"].as_str().unwrap_or_default().to_owned());
    let count = |kind: &str| kinds.iter().filter(|it| **it == format!("urn:charliehub:problem:{kind}")).count();
    assert!(count("busy") >= 1 && count("unavailable") >= 1 && count("busy") + count("unavailable") == 3, "{kinds:?}");
    let left = until("no Traefik is left", secs(2), async || {
        let ids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let left: Vec<i32> = ids.into_iter().filter(|pid| parent_of(*pid) == Some(world.provider.pid())).collect();
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
    left.await;
}

#[tokio::test]
async fn a_traefik_that_does_not_start_says_why() {
    let stage = Stage::new();
    for (program, words) in [
        (impostor(&stage.home, "echo 'no such flag' >&2; exit 1"), "no such flag"),
        (stage.home.join("nowhere"), "cannot run"),
    ] {
        let provider =
            Provider::new(&stage.home, "other").set("rehearse", "traefik", &format!("\"{}\"", program.display()));
        let file = stage.home.join("candidate.json");
        fs::write(&file, "{}").unwrap();
        let output = provider.run(&["rehearse", file.to_str().unwrap()]).await;
        assert!(output.code == Some(1) && output.err.contains(words), "{output:?}");
    }
}

#[tokio::test]
async fn the_traefik_of_a_rehearsal_dies_with_a_provider_that_is_killed() {
    let home = Home::new();
    // The second would go on for long, whatever becomes of its output and of us.
    for program in [Traefik::program(), impostor(&home, "exec sleep 60")] {
        let program = format!("\"{}\"", program.display());
        let mut world = World::with(|provider| provider.set("rehearse", "traefik", &program)).await;
        let provider = world.provider.pid();
        let child = tokio::select! {
            answer = world.provider.send(Method::POST, "/api/rehearse", "") => panic!("too early: {}", answer.text()),
            child = child_of(provider) => child,
        };
        world.provider.kill();
        until("the Traefik is gone", ms(500), async || parent_of(child).map_or(Ok(()), Err)).await;
    }
}

#[tokio::test]
async fn how_long_a_rehearsal_takes() {
    let stage = Stage::new();
    for routes in [23, 1_000] {
        let routers: serde_json::Map<String, Value> = (0..routes)
            .map(|n| {
                let rule = format!("Host(`r{n}.test`)");
                (format!("r{n}"), json!({ "rule": rule, "service": "s", "entryPoints": ["websecure"], "tls": {} }))
            })
            .collect();
        let mut candidate = router(&json!({}));
        candidate["http"]["routers"] = routers.into();
        let report = stage.rehearse(&candidate.to_string()).await;
        assert_eq!((&report["verdict"], &report["loaded"]), (&json!("fine"), &json!(routes)));
        measured(&format!("a rehearsal of {routes} routes"), ms(report["took_ms"].as_u64().unwrap()));
    }
}

#[tokio::test]
async fn a_write_that_traefik_would_not_run_is_refused_before_its_transaction() {
    let world = World::with(with_traefik).await;
    let send = async |path: &str, body: Value| {
        let answer = world.provider.send(Method::POST, path, &body.to_string()).await;
        (answer.status, answer.json())
    };
    let row =
        |name: &str| json!({"domain": name, "tls_mode": "default", "backend_host": "127.0.0.1", "backend_port": 80});
    // What is in an expression, only Traefik knows; it says so where one is used.
    let breaker =
        json!({"kind": "http.middleware", "name": "cb", "body": {"circuitBreaker": {"expression": "Nope() > 1"}}});
    let (status, made) = send("/api/fragments", breaker).await;
    assert!(status == 201 && made["change"]["rehearsal"].is_object(), "{made}");
    let mut using = row("r.test");
    using["middlewares"] = json!(["cb"]);
    let (status, problem) = send("/api/domains?rehearse=true", using.clone()).await;
    let kind = problem["type"].as_str().unwrap_or_default();
    assert!(status == 422 && kind.ends_with("rehearsal"), "{status} {problem}");
    assert_eq!(world.postgres.value("SELECT count(*) FROM domains").await, "0");
    let (status, made) = send("/api/domains", using).await;
    assert!(status == 201 && made["change"]["rehearsal"].is_null(), "{made}");

    let (status, made) = send("/api/domains?rehearse=true", row("a.test")).await;
    assert_eq!((status, &made["change"]["rehearsal"]["loaded"]), (201, &json!(2)), "{made}");
    let warnings = made["change"]["warnings"].to_string();
    assert!(warnings.contains("rehearsal: r.test:"), "a router of others keeps nobody from a change: {warnings}");
    let (status, tried) = send("/api/domains?rehearse=true&dry_run=true", row("b.test")).await;
    assert_eq!((status, &tried["change"]["rehearsal"]["loaded"]), (200, &json!(3)), "{tried}");
    assert_eq!(world.postgres.value("SELECT count(*) FROM domains").await, "2");
}

#[tokio::test]
async fn an_import_that_traefik_would_not_run_is_refused_and_names_the_router_and_its_file() {
    let world = World::with(with_traefik).await;
    let write = |name: &str, middlewares: &str| {
        let path = world.home.join(name);
        let router = name.trim_end_matches(".yml");
        let text = format!(
            "http:\n  routers:\n    {router}: {{rule: 'Host(`{router}.test`)', entryPoints: [websecure], service: s, \
             tls: {{}}, middlewares: [{middlewares}]}}\n  services:\n    s: {{loadBalancer: {{servers: [{{url: \
             'http://127.0.0.1:9'}}]}}}}\n  middlewares:\n    cb: {{circuitBreaker: {{expression: 'Nope() > 1'}}}}\n"
        );
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (bad, good) = (write("bad.yml", "cb"), write("good.yml", ""));
    let first = world.postgres.revision().await;
    for args in [&["import", &bad][..], &["import", &bad, "--dry-run"]] {
        let output = world.provider.run(args).await;
        let said = "router bad of bad.yml: Traefik would not run it: ";
        assert!(output.code == Some(1) && output.err.contains(said), "{output:?}");
        assert!(output.err.contains("Nope") && output.err.contains("--no-rehearse"), "{output:?}");
    }
    assert_eq!(world.postgres.revision().await, first, "nothing was written");

    let said = world.provider.must(&["import", &bad, "--no-rehearse", "--json"]).await;
    let said: Value = serde_json::from_str(&said).unwrap();
    assert!(said["changes"] == 2 && said["rehearsal"].is_null(), "{said:#}");
    let said: Value = serde_json::from_str(&world.provider.must(&["import", &good, "--json"]).await).unwrap();
    assert_eq!((&said["changes"], &said["rehearsal"]["loaded"]), (&json!(1), &json!(2)), "{said:#}");
    let warnings = said["warnings"].to_string();
    assert!(warnings.contains("rehearsal: bad.test: "), "a router of others keeps nobody from an import: {warnings}");
    assert_eq!(world.provider.must(&["import", &good, "--dry-run"]).await.matches("unchanged").count(), 2);
}
