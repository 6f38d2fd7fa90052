//! Requests that are wrong or mean harm: each gets a problem that names the field and the remedy, and nothing changes.
//! Fault matrix 35, 36, 40.
#![expect(clippy::expect_used, reason = "a story that cannot be told panics")]

use charliehub_tests::{World, secs, until};
use hyper::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// A request, and what is expected of the answer: status, the last word of the problem's type, its field.
struct Case {
    what: String,
    method: Method,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: String,
    expected: (u16, &'static str, Option<&'static str>),
}

/// A row that is fine.
fn good() -> Value {
    json!({"domain": "new.test", "tls_mode": "default", "backend_host": "127.0.0.1", "backend_port": 80})
}

fn with(base: &Value, field: &str, value: Value) -> Value {
    let mut row = base.clone();
    row.as_object_mut().expect("a row").insert(field.to_owned(), value);
    row
}

#[derive(Default)]
struct Cases(Vec<Case>);

impl Cases {
    fn send(&mut self, method: Method, path: &str, body: &str, expected: (u16, &'static str, Option<&'static str>)) {
        let what = format!("{method} {path} {}", body.chars().take(120).collect::<String>());
        let headers = vec![("content-type", "application/json".to_owned())];
        self.0.push(Case { what, method, path: path.to_owned(), headers, body: body.to_owned(), expected });
    }

    fn row(&mut self, row: &Value, field: &'static str) {
        self.send(Method::POST, "/api/domains", &row.to_string(), (422, "invalid", Some(field)));
    }

    /// The headers of the last request.
    fn headers(&mut self) -> &mut Vec<(&'static str, String)> {
        &mut self.0.last_mut().expect("a request").headers
    }

    fn header(&mut self, name: &'static str, value: &str) {
        self.headers().push((name, value.to_owned()));
    }

    /// What no text may hold that reaches a rule, in every field of text.
    fn injections(&mut self) {
        let tcp = json!({"domain": "new.test", "protocol": "tcp", "tls_mode": "default", "tcp_entrypoint": "mqtt",
            "backend_host": "127.0.0.1", "backend_port": 80});
        let redirect = json!({"domain": "new.test", "tls_mode": "default", "service_type": "redirect"});
        let reference = json!({"domain": "new.test", "tls_mode": "default", "service_type": "reference"});
        let acme = json!({"domain": "new.test", "tls_mode": "acme", "backend_host": "127.0.0.1", "backend_port": 80});
        for poison in ["`", "\"", "\n", "\u{202e}", "`) || PathPrefix(`/"] {
            for (base, field, shape) in [
                (&good(), "domain", "a{}b.test"),
                (&good(), "path_prefix", "/a{}b"),
                (&good(), "backend_host", "a{}b"),
                (&acme, "cert_resolver", "le{}x"),
                (&tcp, "tcp_entrypoint", "mq{}tt"),
                (&redirect, "redirect_to", "https://a{}b/"),
                (&reference, "service_type", "a{}b"),
            ] {
                let value = shape.replace("{}", poison);
                // `service_ref` is judged together with `service_type`.
                let column = if field == "service_type" { "service_ref" } else { field };
                self.row(&with(base, column, value.into()), field);
            }
            self.row(&with(&good(), "middlewares", json!([format!("a{poison}b")])), "middlewares");
        }
        for (field, poison) in [("notes", "`"), ("owner", "`"), ("site", "A"), ("maintenance_message", "\u{7}")] {
            let problem = if field == "maintenance_message" { field } else { "notes" };
            self.row(&with(&good(), field, poison.into()), problem);
        }
        for field in ["notes", "domain", "owner", "path_prefix"] {
            let row = with(&good(), field, "a\u{0}b".into()).to_string();
            self.send(Method::POST, "/api/domains", &row, (422, "invalid", None));
        }
        self.row(&with(&good(), "labels", json!({"a`": "b"})), "labels");
        self.row(&with(&good(), "labels", json!({"a": "`"})), "labels");
    }

    fn values(&mut self) {
        for name in [
            "New.test",
            "xn--.test",
            "a..test",
            ".test",
            "test",
            "-a.test",
            "a-.test",
            "a.test.",
            "a.*.test",
            "*.*.test",
            "*",
            "a*.test",
            "a b.test",
            "exаmple.test",
            "ex\u{200b}ample.test",
            "a.test:80",
            "a.test/x",
            "https://a.test",
            "10.0.0.1",
        ] {
            self.row(&with(&good(), "domain", name.into()), "domain");
        }
        let long = "a".repeat(64) + ".test";
        self.row(&with(&good(), "domain", long.into()), "domain");
        self.row(&with(&good(), "domain", ("a.".repeat(130) + "test").into()), "domain");
        for path in ["admin", "", "/a/", "//a", "/a/../b", "/./a", "/a b", "/%zz", "/%", "/a\\b"] {
            self.row(&with(&good(), "path_prefix", path.into()), "path_prefix");
        }
        self.row(&with(&good(), "path_prefix", ("/".to_owned() + &"a".repeat(2000)).into()), "path_prefix");
        for port in [json!(0), json!(65_536), json!(-1), json!(2_147_483_647)] {
            self.row(&with(&good(), "backend_port", port), "backend_port");
        }
        for port in [json!("80"), json!(80.5), json!(true), json!([80]), json!(99_999_999_999_u64)] {
            self.row(&with(&good(), "backend_port", port), "backend_port");
        }
        for priority in [json!(-1), json!(0), json!(1_000_001)] {
            self.row(&with(&good(), "priority", priority), "priority");
        }
        for host in ["", "http://a", "a:80", "256.1.1.1", "1.2.3", "fe80::1%eth0", "a b", "[::1]"] {
            self.row(&with(&good(), "backend_host", host.into()), "backend_host");
        }
        for net in ["10.0.0.1/8", "10.0.0.0/33", "::/200", "ten", "10.0.0", "10.0.0.0/8 ", "2001:db8::1/32"] {
            let row = with(&with(&good(), "access_tier", "restricted".into()), "ip_allowlist", json!([net]));
            self.row(&row, "ip_allowlist");
        }
        for everybody in ["0.0.0.0/0", "::/0"] {
            let row = with(&with(&good(), "access_tier", "restricted".into()), "ip_allowlist", json!([everybody]));
            self.row(&row, "ip_allowlist");
        }
        self.row(&with(&good(), "ip_allowlist", json!(["10.0.0.0/8"])), "ip_allowlist");
        self.row(&with(&good(), "access_tier", "restricted".into()), "ip_allowlist");
        for (field, label) in [
            ("protocol", "udp"),
            ("status", "Active"),
            ("access_tier", "open"),
            ("tls_mode", "acme "),
            ("environment", "prod"),
            ("service_type", ""),
            ("dns_mode", "none"),
        ] {
            self.row(&with(&good(), field, label.into()), field);
        }
        for (field, value, problem) in [
            ("protocol", json!("tcp"), "tcp_entrypoint"),
            ("tcp_entrypoint", json!("mqtt"), "tcp_entrypoint"),
            ("service_type", json!("redirect"), "service_type"),
            ("redirect_to", json!("https://a.test"), "redirect_to"),
            ("service_ref", json!("api@internal"), "service_type"),
            ("backends", json!([{"host": "h", "port": 80}]), "service_type"),
            ("backend_scheme", json!("ftp"), "backend_scheme"),
            ("cert_resolver", json!("le"), "cert_resolver"),
            ("tls_mode", json!("passthrough"), "tls_mode"),
            ("middlewares", json!(["a", "a"]), "middlewares"),
            ("middlewares", json!("compress"), "middlewares"),
            ("middlewares", json!(["nope"]), "middlewares"),
            ("rate_limit", json!({"average": 0}), "rate_limit"),
            ("rate_limit", json!({"burst": 5}), "rate_limit"),
            ("health_check", json!({"path": "health"}), "health_check"),
            ("sticky", json!({"cookie": "a b"}), "sticky"),
            ("labels", json!(["a"]), "labels"),
            ("status", Value::Null, "status"),
            ("id", json!("6d4f0a0e-9a4b-4a3c-8f47-0d8a3a6cf000"), "id"),
            ("version", json!(7), "version"),
            ("colour", json!("red"), "colour"),
        ] {
            self.row(&with(&good(), field, value), problem);
        }
    }

    fn shapes(&mut self, id: &str) {
        let deep = "[".repeat(5000) + &"]".repeat(5000);
        for body in ["", "{", "nul", "\u{feff}{}", "{\"domain\":\"a.test\",}", "{'domain':'a.test'}", deep.as_str()] {
            self.send(Method::POST, "/api/domains", body, (400, "bad-request", None));
        }
        let twice = r#"{"domain":"new.test","domain":"other.test","backend_host":"h","backend_port":80}"#;
        self.send(Method::POST, "/api/domains", twice, (400, "bad-request", None));
        for body in ["[]", "7", "\"text\"", "null", "{}"] {
            let field = if body == "{}" { "domain" } else { "." };
            self.send(Method::POST, "/api/domains", body, (422, "invalid", Some(field)));
        }
        self.send(Method::PATCH, &format!("/api/domains/{id}"), "[]", (422, "invalid", Some(".")));
        self.send(Method::PATCH, &format!("/api/domains/{id}"), r#"{"domain":null}"#, (422, "invalid", Some("domain")));
        self.send(
            Method::PATCH,
            &format!("/api/domains/{id}"),
            r#"{"created_at":null}"#,
            (422, "invalid", Some("created_at")),
        );
        self.send(Method::PUT, &format!("/api/domains/{id}"), r#"{"notes":"x"}"#, (422, "invalid", Some("domain")));
        self.send(Method::POST, "/api/domains/batch", "{}", (422, "invalid", Some(".")));
        self.send(Method::POST, "/api/domains/batch", "[]", (422, "invalid", Some(".")));
        let batch =
            json!([{"op": "delete", "id": id}, {"op": "create", "domain": with(&good(), "backend_port", 0.into())}]);
        self.send(Method::POST, "/api/domains/batch", &batch.to_string(), (422, "batch", None));
        for (fragment, field) in [
            (json!({"kind": "http.middlewares", "name": "a", "body": {}}), "kind"),
            (json!({"kind": "http.middleware", "name": "a@file", "body": {"compress": {}}}), "name"),
            (json!({"kind": "http.middleware", "name": "charliehub-a", "body": {"compress": {}}}), "name"),
            (json!({"kind": "http.middleware", "name": "a", "body": "text"}), "body"),
            (json!({"kind": "http.middleware", "name": "a", "body": {}}), "body"),
            (json!({"kind": "http.middleware", "name": "a", "body": {"compres": {}}}), "body.compres"),
            (
                json!({"kind": "http.middleware", "name": "a", "body": {"chain": {"middlewares": ["nope"]}}}),
                "body.chain.middlewares[0]",
            ),
            (
                json!({"kind": "http.router", "name": "old.test", "body": {"rule": "Host(`x.test`)", "service": "api@internal"}}),
                "name",
            ),
        ] {
            self.send(Method::POST, "/api/fragments", &fragment.to_string(), (422, "invalid", Some(field)));
        }
    }

    fn around(&mut self, id: &str) {
        for (query, field) in [
            ("limit=0", "limit"),
            ("limit=1001", "limit"),
            ("limit=1;DROP", "limit"),
            ("sort=domain;--", "sort"),
            ("sort=(select 1)", "sort"),
            ("status=' OR 1=1 --", "status"),
            ("fields=domain,pg_sleep(1)", "fields"),
            ("cursor=xx&limit=1", "cursor"),
            ("order=domain", "order"),
            ("q=%00", "q"),
        ] {
            let query = query.replace(' ', "%20");
            self.send(Method::GET, &format!("/api/domains?{query}"), "", (400, "parameter", Some(field)));
        }
        let row = good().to_string();
        for (query, field) in
            [("dry_run=maybe", "dry_run"), ("wait=ever", "wait"), ("timeout=1h", "timeout"), ("dryrun=true", "dryrun")]
        {
            self.send(Method::POST, &format!("/api/domains?{query}"), &row, (400, "parameter", Some(field)));
        }
        for path in ["/api/domains/not-an-id", "/api/domains/00000000-0000-0000-0000-000000000000"] {
            self.send(Method::GET, path, "", (404, "not-found", None));
            self.send(Method::DELETE, path, "", (404, "not-found", None));
        }
        for path in [
            "/api",
            "/api/domains/../../etc/passwd",
            "/api//domains",
            "/api/domains/",
            "/API/domains",
            "/%2e%2e/api/domains",
        ] {
            self.send(Method::GET, path, "", (404, "not-found", None));
        }
        self.send(Method::GET, "/api/domains/%ff", "", (400, "bad-request", None));
        self.send(Method::DELETE, "/api/domains", "", (405, "method", None));
        self.send(Method::from_bytes(b"BREW").expect("a method"), "/api/domains", "", (405, "method", None));
        let one = format!("/api/domains/{id}");
        self.send(Method::PATCH, &one, r#"{"notes":"x"}"#, (412, "stale", Some("If-Match")));
        self.header("if-match", "\"999999\"");
        self.send(Method::DELETE, &one, "", (412, "stale", Some("If-Match")));
        self.header("if-match", "\"0\"");
        self.send(Method::PATCH, &one, r#"{"notes":"x"}"#, (400, "parameter", Some("If-Match")));
        self.header("if-match", "latest");
        self.send(Method::POST, "/api/domains", &row, (422, "invalid", Some("Idempotency-Key")));
        self.header("idempotency-key", "a b");
        self.send(Method::POST, "/api/domains", &row, (421, "host", Some("Host")));
        self.header("host", "evil.test");
        self.send(
            Method::POST,
            "/api/domains",
            &with(&good(), "domain", "old.test".into()).to_string(),
            (409, "conflict", Some("domain")),
        );
        self.send(Method::POST, "/api/domains", &row, (415, "media-type", None));
        *self.headers() = vec![("content-type", "text/plain".to_owned())];
    }

    fn tokens(&mut self, expired: &str, reader: &str, traefik: &str) {
        let row = good().to_string();
        for (token, expected) in [
            (None, (401, "unauthorized", None)),
            (Some(""), (401, "unauthorized", None)),
            (Some("Bearer"), (401, "unauthorized", None)),
            (Some("Basic YWRtaW46YWRtaW4="), (401, "unauthorized", None)),
            (Some("Bearer ch_not-a-token"), (401, "unauthorized", None)),
            (Some(expired), (401, "unauthorized", None)),
            (Some(reader), (403, "forbidden", None)),
            (Some(traefik), (403, "forbidden", None)),
        ] {
            self.send(Method::POST, "/api/domains", &row, expected);
            match token {
                Some(token) => self.header("authorization", token),
                None => self.header("x-no-token", ""),
            }
        }
    }
}

/// All that the database holds but for what may change: when tokens were used, who polls, and the audit.
async fn everything(world: &World) -> Vec<Vec<String>> {
    let tables = "SELECT format('SELECT %L, count(*)::text, coalesce(md5(string_agg(t::text, '','' ORDER BY t::text)), '''')
                                  FROM (SELECT %s FROM %I.%I t) t', relname,
                         CASE relname WHEN 'tokens' THEN 'id, name, role, hash, revoked_at' ELSE 't.*' END, nspname, relname)
                    FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
                   WHERE nspname = 'charliehub' AND relkind = 'r' AND relname NOT IN ('instances') AND relname !~ '^audit'
                   ORDER BY relname";
    let mut all = Vec::new();
    for query in world.psql(tables).await {
        all.extend(world.psql(&query.concat()).await);
    }
    all
}

#[tokio::test]
async fn wrong_requests_are_taught_and_change_nothing() {
    let world = World::new().await;
    let made = world
        .provider
        .send(Method::POST, "/api/domains", &with(&good(), "domain", "old.test".into()).to_string())
        .await;
    assert_eq!(made.status, 201, "{}", made.text());
    let id = made.json()["id"].as_str().unwrap().to_owned();
    let bearer = |token: String| format!("Bearer {token}");
    let reader = bearer(world.provider.token("reader").await);
    let traefik = bearer(world.provider.token("traefik").await);
    let expired = bearer(world.provider.must(&["token", "create", "--role", "editor", "--expires", "1s", "old"]).await);
    let expired = expired.trim().to_owned();
    let mut cases = Cases::default();
    cases.injections();
    cases.values();
    cases.shapes(&id);
    cases.around(&id);
    world.postgres.sql("UPDATE tokens SET expires_at = now() WHERE name = 'old'").await;
    cases.tokens(&expired, &reader, &traefik);
    assert!(cases.0.len() >= 150, "{}", cases.0.len());

    let admin = bearer(world.provider.admin_token());
    until("what is served is kept", secs(5), async || {
        let kept = world.postgres.value("SELECT count(*) FROM snapshots, revision WHERE snapshots.revision = n").await;
        if kept == "1" { Ok(()) } else { Err(kept) }
    })
    .await;
    let before = everything(&world).await;
    let mut wrong = Vec::new();
    for case in &cases.0 {
        let mut headers: Vec<(&str, &str)> = case.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        if !headers.iter().any(|(name, _)| matches!(*name, "authorization" | "x-no-token")) {
            headers.push(("authorization", &admin));
        }
        let answer =
            world.provider.connection().await.send(case.method.clone(), &case.path, &headers, &case.body).await;
        let answer = answer.unwrap_or_else(|error| panic!("{}: {error:#}", case.what));
        let (status, kind, field) = case.expected;
        let problem: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let told = (answer.status, problem["type"].as_str().unwrap_or_default(), problem["field"].as_str());
        let right = told.0 == status && told.1.ends_with(&format!(":{kind}")) && (field.is_none() || told.2 == field);
        let taught = problem["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty()) || kind == "method";
        if !right || !taught || answer.header("content-type") != "application/problem+json" {
            wrong.push(format!(
                "{}\n   expected {:?}, got {} {}",
                case.what,
                case.expected,
                answer.status,
                answer.text()
            ));
        }
    }
    println!("{} requests", cases.0.len());
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.0.len(), wrong.join("\n"));
    assert_eq!(everything(&world).await, before);
}

#[tokio::test]
async fn a_huge_or_a_slow_body_is_given_up_and_others_are_not_slowed_down() {
    let world = World::new().await;
    let head = format!(
        "POST /api/domains HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n",
        world.provider.address(),
        world.provider.admin_token()
    );
    let mut huge = TcpStream::connect(world.provider.address()).await.unwrap();
    huge.write_all(format!("{head}Content-Length: 104857600\r\n\r\n{{").as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    tokio::time::timeout(secs(5), huge.read_exact(&mut answer)).await.expect("refused by its length").unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");

    let mut slow = TcpStream::connect(world.provider.address()).await.unwrap();
    slow.write_all(format!("{head}Content-Length: 100\r\n\r\n{{").as_bytes()).await.unwrap();
    let meanwhile = world.provider.get("/api/domains").await;
    assert!(meanwhile.status == 200 && meanwhile.took < secs(1), "{} after {:?}", meanwhile.status, meanwhile.took);
    let mut answer = String::new();
    tokio::time::timeout(secs(20), slow.read_to_string(&mut answer)).await.expect("given up").unwrap();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
}
