mod rotations;

use std::sync::Arc;

use charliehub_proto::expected::{Expected, ExpectedDelta};
use serde_json::{Value, json};
use tokio_postgres::Client;
use uuid::Uuid;

use super::*;
use crate::{
    api::tests::World, auth, compile::Compiler, expected::Changed, postgres::tests::cluster::Cluster, store::read,
};

const KEY: &str = "Zm9vYmFyZm9vYmFyZm9vYmFyZm9vYmFyZm9vYmFyMTI=";

struct Story {
    world: World,
    /// Tokens of agents hub2 and hub3.
    agents: [String; 2],
    client: Client,
    _cluster: Cluster,
}

impl Story {
    async fn new() -> Self {
        let (cluster, client) = Cluster::migrated().await;
        let world = World::with(&cluster, &client).await;
        let mut agents = [const { String::new() }; 2];
        for (token, name) in agents.iter_mut().zip(["hub2", "hub3"]) {
            *token = auth::make(&client, name, Role::Agent, Some(name), None).await.unwrap().text;
        }
        world.auth.reload(&client).await.unwrap();
        Self { world, agents, client, _cluster: cluster }
    }

    async fn ask(&self, token: &str, method: &str, path: &str, body: &Value) -> (u16, http::HeaderMap, Value) {
        let request = Request::builder().method(method).uri(path).header("authorization", format!("Bearer {token}"));
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (status, headers, body) = self.world.send(request.header("content-type", "application/json"), body).await;
        (status.as_u16(), headers, serde_json::from_str(&body).unwrap_or_default())
    }

    async fn admin(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let (status, _, answer) = self.ask(&self.world.admin, method, path, body).await;
        (status, answer)
    }

    async fn report(&self, body: &Value) -> (u16, Value) {
        let (status, _, answer) = self.ask(&self.agents[0], "POST", "/api/agents/hub2/report", body).await;
        (status, answer)
    }

    async fn hub(&self) -> Value {
        let (status, mut agents) = self.admin("GET", "/api/agents", &Value::Null).await;
        assert_eq!(status, 200, "{agents}");
        agents.as_array_mut().unwrap().remove(0)
    }

    /// What the loop that follows the database does.
    async fn read(&mut self) {
        let rows = read::newest(&mut self.client).await.unwrap();
        let revision = read::newest_revision(&self.client).await.unwrap().revision;
        let compiler = Compiler::of(&Arc::default(), rows);
        self.world.expectations.take(&compiler, Changed::Everything, revision);
    }
}

fn finding(target: &str, status: &str) -> Value {
    let at = "2026-11-27T08:00:00Z";
    json!({"check": "wg-peer", "target": target, "status": status, "text": format!("{target} is {status}"), "since": at, "seen": at})
}

fn report(seq: u64, complete: bool, findings: &[Value]) -> Value {
    json!({"install": Uuid::from_u128(7), "seq": seq, "at": "2026-11-27T08:00:01Z", "boot": Uuid::from_u128(1), "version": "0.1",
           "complete": complete, "findings": findings})
}

#[tokio::test]
async fn a_report_counts_once_and_leaves_what_changed() {
    let story = Story::new().await;
    let first = report(1, true, &[finding("wg-uk", "ok"), finding("wg-fr", "critical")]);
    let (status, answer) = story.report(&first).await;
    assert_eq!((status, &answer["stored"], &answer["transitions"]), (200, &json!(true), &json!(1)), "{answer}");
    let (status, answer) = story.report(&first).await;
    assert_eq!((status, &answer["stored"], &answer["seq"]), (200, &json!(false), &json!(1)), "delivered twice");
    assert_eq!(story.report(&report(3, false, &[finding("wg-fr", "ok")])).await.1["transitions"], 1);
    let (_, answer) = story.report(&report(2, false, &[finding("wg-fr", "critical")])).await;
    assert_eq!((&answer["stored"], &answer["seq"]), (&json!(false), &json!(3)), "out of order");
    let hub = story.hub().await;
    assert_eq!((&hub["name"], &hub["status"], &hub["silent"]), (&json!("hub2"), &json!("ok"), &json!(false)), "{hub}");
    assert_eq!(hub["findings"].as_array().unwrap().len(), 2);
    // A new install counts from 1 again; what is not among all that there is is gone.
    let mut other = report(1, true, &[finding("wg-uk", "warning")]);
    other["install"] = json!(Uuid::from_u128(8));
    other["lost"] = json!(5);
    assert_eq!(story.report(&other).await.1["transitions"], 2);
    let hub = story.hub().await;
    assert_eq!((hub["findings"].as_array().unwrap().len(), &hub["lost"]), (1, &json!(5)));

    let path = "/api/agents/hub2/transitions";
    let (_, _, all) = story.ask(&story.world.reader, "GET", path, &Value::Null).await;
    let seen: Vec<_> = all.as_array().unwrap().iter().map(|one| (&one["target"], &one["was"], &one["now"])).collect();
    let (uk, fr) = (&json!("wg-uk"), &json!("wg-fr"));
    let [ok, warning, critical, none] =
        &["ok", "warning", "critical", ""].map(|word| if word.is_empty() { Value::Null } else { json!(word) });
    assert_eq!(seen, [(fr, ok, none), (uk, ok, warning), (fr, critical, ok), (fr, none, critical)]);
    let (_, headers, page) = story.ask(&story.world.reader, "GET", &format!("{path}?limit=3"), &Value::Null).await;
    let link = headers["link"].to_str().unwrap();
    let next = link.trim_start_matches('<').split('>').next().unwrap();
    let (_, headers, rest) = story.ask(&story.world.reader, "GET", next, &Value::Null).await;
    assert_eq!((page.as_array().unwrap().len(), rest.as_array().unwrap().len()), (3, 1));
    assert!(!headers.contains_key("link"));
}

#[tokio::test]
async fn an_agent_speaks_for_itself_and_nobody_else_reports() {
    let mut story = Story::new().await;
    story.client.batch_execute("INSERT INTO sites (name, networks) VALUES ('uk', '{10.44.0.0/16}')").await.unwrap();
    story.read().await;
    let [hub2, hub3] = &story.agents;
    let World { reader, editor, admin, .. } = &story.world;
    let body = report(1, true, &[]);
    for (token, expected, reports) in
        [(hub2, 200, 200), (hub3, 403, 403), (reader, 200, 403), (editor, 200, 403), (admin, 200, 200)]
    {
        let (status, ..) = story.ask(token, "GET", "/api/agents/hub2/expected", &Value::Null).await;
        assert_eq!(status, expected);
        let (status, ..) = story.ask(token, "POST", "/api/agents/hub2/report", &body).await;
        assert_eq!(status, reports);
    }
    for path in ["/api/agents", "/api/agents/hub2/policy", "/api/agents/hub2/transitions", "/api/sites", "/api/domains"]
    {
        assert_eq!(story.ask(hub2, "GET", path, &Value::Null).await.0, 403, "{path}");
    }
    assert_eq!(story.ask(admin, "GET", "/api/agents/a%20b/expected", &Value::Null).await.0, 400);
}

#[tokio::test]
async fn a_report_that_is_not_one_is_refused_by_its_field_and_leaves_nothing() {
    let story = Story::new().await;
    let with = |field: &str, value: Value| {
        let mut body = report(1, true, &[finding("wg-uk", "ok")]);
        body[field] = value;
        body
    };
    let of = |finding: Value| with("findings", json!([finding]));
    let mut odd = finding("wg-uk", "ok");
    odd["status"] = json!("fine");
    for (body, field) in [
        (with("seq", json!(0)), "seq"),
        (with("seq", json!(u64::MAX)), "seq"),
        (with("install", json!("x")), "install"),
        (with("version", json!("x".repeat(2001))), "version"),
        (of(odd), "findings[0].status"),
        (of(finding("", "ok")), "findings[0].target"),
        (of(finding(&"x".repeat(2001), "ok")), "findings[0].target"),
        (of(json!({})), "findings[0]"),
        (with("findings", json!([finding("a", "ok"), finding("a", "ok")])), "findings[1]"),
        (with("endpoints", json!([endpoint("uk", "1.2.3")])), "endpoints[0].address"),
        (with("endpoints", json!([endpoint("", "1.2.3.4")])), "endpoints[0].site"),
        (with("endpoints", json!([endpoint("uk", "1.2.3.4"), endpoint("uk", "1.2.3.5")])), "endpoints[1]"),
    ] {
        let (status, problem) = story.report(&body).await;
        assert_eq!((status, problem["field"].as_str()), (422, Some(field)), "{problem}");
        assert!(!problem["remedy"].as_str().unwrap().is_empty());
    }
    assert_eq!(story.report(&of(finding("a\u{0}b", "ok"))).await.0, 422);
    assert_eq!(story.report(&with("version", json!("x".repeat(16 << 20)))).await.0, 413);
    assert_eq!(story.admin("GET", "/api/agents", &Value::Null).await.1, json!([]));
}

fn endpoint(site: &str, address: &str) -> Value {
    json!({"site": site, "interface": "wg-uk", "address": address})
}

#[tokio::test]
async fn where_sites_are_seen_is_what_the_newest_report_says() {
    let story = Story::new().await;
    let with = |seq: u64, endpoints: Value| {
        let mut body = report(seq, false, &[]);
        body["endpoints"] = endpoints;
        body
    };
    for (seq, endpoints, then) in [
        (1, json!([endpoint("uk", "1.2.3.4"), endpoint("fr", "2a01::1")]), 2),
        (3, json!([endpoint("uk", "5.6.7.8")]), 1),
        (2, json!([endpoint("uk", "9.9.9.9")]), 1),
        (4, json!([]), 0),
    ] {
        assert_eq!(story.report(&with(seq, endpoints)).await.0, 200);
        let seen = story.hub().await["endpoints"].clone();
        assert_eq!(seen.as_array().unwrap().len(), then, "{seen}");
        assert!(!seen.to_string().contains("9.9.9.9"), "delivered late: {seen}");
    }
    assert_eq!(story.report(&report(5, true, &[])).await.0, 200, "an agent that does not tell");
}

#[tokio::test]
async fn a_report_of_thousands_of_findings_is_taken() {
    let story = Story::new().await;
    let long = "why ".repeat(50);
    let findings: Vec<Value> = (0..6_000)
        .map(|n| {
            let mut finding = finding(&format!("name-{n}.example.org"), "critical");
            finding["remedy"] = json!(long);
            finding
        })
        .collect();
    let body = report(1, true, &findings);
    assert!(body.to_string().len() > 2 << 20);
    let (status, answer) = story.report(&body).await;
    assert_eq!((status, &answer["transitions"]), (200, &json!(6_000)), "{answer}");
    assert_eq!(story.hub().await["findings"].as_array().unwrap().len(), 6_000);
}

#[tokio::test]
async fn what_is_expected_is_answered_whole_as_a_difference_or_not_at_all() {
    let mut story = Story::new().await;
    story
        .client
        .batch_execute(
            "INSERT INTO sites (name, networks) VALUES ('uk', '{10.44.0.0/16}');
             INSERT INTO policies (agent, body) VALUES ('hub2', '{\"units\": [{\"name\": \"a.timer\"}]}');
             INSERT INTO domains (domain, backend_host, backend_port)
             SELECT 'h' || n || '.test', '10.0.0.1', 80 FROM generate_series(1, 300) n",
        )
        .await
        .unwrap();
    story.read().await;
    let path = "/api/agents/hub2/expected";
    let (status, headers, all) = story.ask(&story.agents[0], "GET", path, &Value::Null).await;
    assert_eq!(status, 200);
    let expected: Expected = serde_json::from_value(all).unwrap();
    assert_eq!((expected.sites.len(), expected.policy.units.len(), expected.names.len()), (1, 1, 300));
    assert_eq!(headers["etag"], format!("\"{}\"", expected.digest));
    let held = format!("{path}?have={}", expected.digest);
    assert_eq!(story.ask(&story.agents[0], "GET", &held, &Value::Null).await.0, 304);
    assert_eq!(
        story.ask(&story.agents[0], "GET", &format!("{held}&wait=50ms"), &Value::Null).await.0,
        304,
        "after a while"
    );

    let waiting =
        Request::get(format!("{held}&wait=30s")).header("authorization", format!("Bearer {}", story.agents[0]));
    let change = async {
        story.client.batch_execute("DELETE FROM domains WHERE domain = 'h7.test'").await.unwrap();
        // As `read` does, which would need the story whole.
        let rows = read::all(&story.client).await.unwrap();
        story.world.expectations.take(&Compiler::of(&Arc::default(), rows), Changed::Everything, 4);
    };
    let ((status, headers, body), ()) =
        tokio::join!(story.world.send(waiting.header("accept-encoding", "gzip"), ""), change);
    assert_eq!(status, 200);
    assert!(!headers.contains_key("content-encoding"), "small");
    let delta: ExpectedDelta = serde_json::from_str(&body).unwrap();
    assert_eq!((delta.gone.as_slice(), delta.names.len(), &delta.sites), (&["h7.test".to_owned()][..], 0, &None));
    let now = expected.changed_by(delta).unwrap();
    let (_, _, all) = story.ask(&story.world.reader, "GET", &format!("{path}?have=unknown"), &Value::Null).await;
    assert_eq!(serde_json::from_value::<Expected>(all).unwrap(), now);
    for wrong in ["wait=1h", "wait=x", "have=a&colour=b"] {
        assert_eq!(
            story.ask(&story.world.reader, "GET", &format!("{path}?{wrong}"), &Value::Null).await.0,
            400,
            "{wrong}"
        );
    }
}

#[tokio::test]
async fn peers_are_written_read_and_refused_in_words() {
    let mut story = Story::new().await;
    let anna = json!({"public_key": KEY, "addresses": ["10.99.0.7/32", "fd99::7"], "notes": "her laptop"});
    let (status, dry) = story.admin("PUT", "/api/peers/anna?dry_run=true", &anna).await;
    assert_eq!((status, &dry["change"]["state"]), (200, &json!("dry_run")), "{dry}");
    let (status, written) = story.admin("PUT", "/api/peers/anna", &anna).await;
    assert_eq!((status, &written["agents"], &written["interface"]), (201, &json!(["hub2"]), &json!("wg-clients")));
    assert_eq!(written["addresses"], json!(["10.99.0.7/32", "fd99::7/128"]), "{written}");
    assert_eq!(written["change"]["diff"], json!([]), "it is nothing to Traefik: {written}");
    let (status, headers, shown) = story.ask(&story.world.reader, "GET", "/api/peers/anna", &Value::Null).await;
    assert_eq!((status, &headers["etag"]), (200, &format!("\"{}\"", written["version"]).parse().unwrap()));
    assert_eq!(shown["public_key"], KEY);
    let other = KEY.replace("Zm9v", "YmFy");
    let field = |body: &Value| body["field"].as_str().unwrap_or_default().to_owned();
    for (change, status, at, words) in [
        (
            json!({"name": "ben", "public_key": other, "addresses": ["10.99.0.7"]}),
            409,
            "addresses",
            "that of peer anna",
        ),
        (
            json!({"name": "ben", "public_key": KEY, "addresses": ["10.99.0.8"]}),
            409,
            "public_key",
            "another peer has this key",
        ),
        (json!({"name": "anna", "public_key": other, "addresses": ["10.99.0.8"]}), 409, "name", "is there"),
        (
            json!({"name": "ben", "public_key": "short", "addresses": ["10.99.0.8"]}),
            422,
            "public_key",
            "not a public key",
        ),
        (json!({"name": "ben", "public_key": other, "addresses": ["10.99.0.0/24"]}), 422, "addresses", "no network"),
        (json!({"name": "ben", "public_key": other, "addresses": ["10.99.0.8/24"]}), 422, "addresses", "bits set"),
        (json!({"name": "ben", "public_key": other, "addresses": []}), 422, "addresses", "at least one"),
        (
            json!({"name": "ben", "public_key": other, "addresses": ["10.99.0.8"], "agents": []}),
            422,
            "agents",
            "at least one",
        ),
        (
            json!({"name": "ben", "public_key": other, "addresses": ["10.99.0.8"], "private_key": "x"}),
            422,
            "private_key",
            "no field",
        ),
        (json!({"name": "ben", "addresses": ["10.99.0.8"]}), 422, "public_key", "missing"),
        (json!({"public_key": other, "addresses": ["10.99.0.8"]}), 422, "name", "missing"),
    ] {
        let (got, problem) = story.admin("POST", "/api/peers", &change).await;
        assert_eq!((got, field(&problem)), (status, at.to_owned()), "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(words), "{problem}");
    }
    let stale = Request::delete("/api/peers/anna")
        .header("authorization", format!("Bearer {}", story.world.editor))
        .header("if-match", "\"999\"");
    assert_eq!(story.world.send(stale, "").await.0, 412);
    for (token, method, allowed) in [
        (&story.world.reader, "GET", 200),
        (&story.world.reader, "DELETE", 403),
        (&story.agents[0], "GET", 403),
        (&story.world.editor, "GET", 200),
    ] {
        assert_eq!(story.ask(token, method, "/api/peers/anna", &Value::Null).await.0, allowed, "{method}");
    }
    let twice = |key: &str| {
        Request::post("/api/peers")
            .header("authorization", format!("Bearer {}", story.world.editor))
            .header("content-type", "application/json")
            .header("idempotency-key", key)
    };
    let ben = json!({"name": "ben", "agents": ["hub3"], "public_key": other, "addresses": ["10.99.0.8"]}).to_string();
    for _ in 0..2 {
        let (status, _, body) = story.world.send(twice("one"), ben.clone()).await;
        assert_eq!(status, 201, "{body}");
    }
    story.read().await;
    let (_, agents) = story.admin("GET", "/api/agents", &Value::Null).await;
    let known: Vec<_> =
        agents.as_array().unwrap().iter().map(|one| (&one["name"], &one["expected_revision"])).collect();
    assert_eq!(known, [(&json!("hub2"), &json!(2)), (&json!("hub3"), &json!(2))]);
    let (_, _, expected) = story.ask(&story.agents[1], "GET", "/api/agents/hub3/expected", &Value::Null).await;
    assert_eq!((&expected["peers"][0]["name"], expected["peers"].as_array().unwrap().len()), (&json!("ben"), 1));
    let (_, list) = story.admin("GET", "/api/peers", &Value::Null).await;
    assert_eq!((&list[0]["name"], &list[1]["name"]), (&json!("anna"), &json!("ben")));
    assert_eq!(story.admin("DELETE", "/api/peers/anna", &Value::Null).await.0, 200);
    let (status, problem) = story.admin("DELETE", "/api/peers/anna", &Value::Null).await;
    assert_eq!(status, 404, "{problem}");
    let told = story.admin("GET", "/api/audit?limit=1", &Value::Null).await.1;
    assert_eq!((&told[0]["kind"], &told[0]["name"]), (&json!("row.delete"), &json!("peer anna")), "{told}");
}

#[tokio::test]
async fn sites_and_policies_are_written_read_and_refused_in_words() {
    let story = Story::new().await;
    let tunnel = json!({"interface": "wg-uk", "public_key": KEY, "allowed_ips": ["10.44.0.0/16"], "keepalive": 25});
    let uk = json!({"networks": ["10.44.0.0/16"], "tunnels": [tunnel], "hosts": [{"address": "10.44.1.20"}]});
    let (status, dry) = story.admin("PUT", "/api/sites/uk?dry_run=true", &uk).await;
    assert_eq!((status, &dry["change"]["state"]), (200, &json!("dry_run")), "{dry}");
    let (status, written) = story.admin("PUT", "/api/sites/uk", &uk).await;
    assert_eq!((status, &written["name"], &written["agent"]), (201, &json!("uk"), &json!("hub2")), "{written}");
    let (status, headers, shown) = story.ask(&story.world.reader, "GET", "/api/sites/uk", &Value::Null).await;
    assert_eq!((status, &headers["etag"]), (200, &format!("\"{}\"", written["version"]).parse().unwrap()));
    assert_eq!((&shown["tunnels"][0]["keepalive"], &shown["networks"]), (&json!(25), &json!(["10.44.0.0/16"])));
    let mut again = uk.clone();
    again["name"] = json!("fr");
    let field = |body: &Value| body["field"].as_str().unwrap_or_default().to_owned();
    for (path, change, status, at, words) in [
        (
            "/api/sites",
            json!({"name": "fr", "networks": ["10.44.7.0/24"]}),
            409,
            "networks",
            "overlaps 10.44.0.0/16 of site uk",
        ),
        ("/api/sites", json!({"networks": ["10.1.0.0/16"]}), 422, "name", "missing"),
        ("/api/sites", json!({"name": "fr", "networks": ["10.1.0.1/16"]}), 422, "networks", "bits set"),
        (
            "/api/sites",
            json!({"name": "fr", "networks": ["10.1.0.0/16"], "tunnels": [{"interface": "x", "public_key": "abc", "allowed_ips": []}]}),
            422,
            "tunnels[0].public_key",
            "WireGuard",
        ),
        (
            "/api/sites",
            json!({"name": "fr", "networks": ["10.1.0.0/16"], "tunnels": [{"interface": "x", "public_key": KEY, "allowed_ips": ["10.1.0.1/16"]}]}),
            422,
            "tunnels[0].allowed_ips",
            "bits set",
        ),
        (
            "/api/sites",
            json!({"name": "fr", "networks": ["10.1.0.0/16"], "tunnels": [{"interface": "x", "public_key": KEY, "allowed_ips": [], "keepalife": 1}]}),
            422,
            "tunnels[0].keepalife",
            "unknown field",
        ),
        ("/api/sites", json!({"name": "fr", "network": []}), 422, "network", "no field"),
        ("/api/sites", again, 409, "networks", "overlaps"),
    ] {
        let (got, problem) = story.admin("POST", path, &change).await;
        assert_eq!((got, field(&problem)), (status, at.to_owned()), "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(words), "{problem}");
    }
    let stale = Request::delete("/api/sites/uk")
        .header("authorization", format!("Bearer {}", story.world.editor))
        .header("if-match", "\"999\"");
    assert_eq!(story.world.send(stale, "").await.0, 412);

    assert_eq!(story.admin("GET", "/api/agents/hub2/policy", &Value::Null).await.0, 404);
    let policy = json!({"units": [{"name": "backup.timer"}], "certificates": {"except": ["old.test"]}});
    let (status, written) = story.admin("PUT", "/api/agents/hub2/policy", &policy).await;
    assert_eq!((status, &written["agent"], &written["body"]), (201, &json!("hub2"), &policy), "{written}");
    assert_eq!(story.admin("GET", "/api/agents/hub2/policy", &Value::Null).await, (200, policy));
    for (body, at) in [
        (json!({"unit": []}), "unit"),
        (json!({"units": [{"name": "a", "enabeld": true}]}), "units[0].enabeld"),
        (json!({"files": [{"paths": ["/x"], "mode": "999"}]}), "body"),
    ] {
        let (status, problem) = story.admin("PUT", "/api/agents/hub2/policy", &body).await;
        assert_eq!((status, field(&problem)), (422, at.to_owned()), "{problem}");
    }
    let internal =
        "INSERT INTO domains (domain, access_tier, backend_host, backend_port) VALUES ('in.test', 'internal', 'h', 80)";
    story.client.batch_execute(internal).await.unwrap();
    let (status, gone) = story.admin("DELETE", "/api/sites/uk", &Value::Null).await;
    assert_eq!(status, 200, "it shuts out whom it should: {gone}");
    let warning = gone["change"]["warnings"][0].as_str().unwrap();
    assert!(warning.starts_with("in.test: answers 503: access_tier: internal"), "{warning}");
    assert_eq!(gone["change"]["impact"]["off"], json!(["in.test"]), "{gone}");
    assert_eq!(story.admin("GET", "/api/sites", &Value::Null).await, (200, json!([])));
    let told = story.admin("GET", "/api/audit?limit=3", &Value::Null).await.1;
    let told: Vec<_> = told.as_array().unwrap().iter().map(|one| (&one["kind"], &one["name"], &one["actor"])).collect();
    assert_eq!(told[0], (&json!("row.delete"), &json!("site uk"), &json!("ada")));
}
