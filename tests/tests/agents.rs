//! Sites, policies and the agents that hold reality against them: what an agent is told, what it tells, and who sees it.

use std::time::{Duration, Instant};

use charliehub_tests::{Alias, Answer, Row, World, measured, ms, secs, until};
use hyper::Method;
use serde_json::{Value, json};

const KEY: &str = "Zm9vYmFyZm9vYmFyZm9vYmFyZm9vYmFyZm9vYmFyMTI=";

/// An agent as far as the provider sees one: its token.
struct Agent<'w> {
    world: &'w World,
    authorization: String,
}

impl<'w> Agent<'w> {
    async fn of(world: &'w World, name: &str) -> Self {
        let token = world.provider.must(&["token", "create", "--role", "agent", "--subject", name, name]).await;
        Self { world, authorization: format!("Bearer {}", token.trim()) }
    }

    fn with(world: &'w World, authorization: &str) -> Self {
        Self { world, authorization: authorization.to_owned() }
    }

    async fn send(&self, method: Method, path: &str, body: &str) -> Answer {
        let headers = [("authorization", &*self.authorization), ("content-type", "application/json")];
        self.world
            .provider
            .connection()
            .await
            .send(method, path, &headers, body)
            .await
            .unwrap_or_else(|error| panic!("{path}: {error:#}"))
    }

    /// Waits for the first reading of the database.
    async fn expected(&self) -> Value {
        let answer = self.send(Method::GET, "/api/agents/hub2/expected?wait=10s", "").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    async fn held(&self, digest: &str) -> (Answer, Instant) {
        let path = format!("/api/agents/hub2/expected?wait=30s&have={digest}");
        let answer = self.send(Method::GET, &path, "").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        (answer, Instant::now())
    }

    async fn report(&self, report: &Value) -> Answer {
        self.send(Method::POST, "/api/agents/hub2/report", &report.to_string()).await
    }
}

fn report(seq: u64, status: &str) -> Value {
    let at = "2026-11-27T08:00:00Z";
    let action =
        json!({"at": at, "what": "wg-fr is absent: it is restarted", "outcome": "done", "result": "wg-fr is there"});
    let peer = json!({"check": "wg-peer", "target": "wg-fr", "site": "fr", "status": status, "text": format!("tunnel wg-fr is {status}"),
        "remedy": "systemctl restart wg-quick@wg-fr", "action": action, "since": at, "seen": at});
    let uk = json!({"check": "wg-peer", "target": "wg-uk", "site": "uk", "status": "ok", "text": "tunnel wg-uk is ok", "since": at, "seen": at});
    json!({"install": "00000000-0000-4000-8000-000000000007", "seq": seq, "at": at, "boot": "00000000-0000-4000-8000-000000000001",
        "version": "0.1.0", "complete": true, "findings": [peer, uk]})
}

#[tokio::test]
async fn what_an_agent_expects_is_there_a_moment_after_the_commit_and_a_change_among_thousands_is_small() {
    let world = World::new().await;
    world
        .psql(
            "INSERT INTO domains (domain, tls_mode, backend_host, backend_port)
             SELECT 'h' || n || '.test', 'default', '10.0.0.1', 80 FROM generate_series(1, 5000) n",
        )
        .await;
    world.provider.until_serves(world.postgres.revision().await, secs(60)).await;
    let agent = Agent::of(&world, "hub2").await;
    let mut expected = agent.expected().await;
    assert_eq!(expected["names"].as_object().unwrap().len(), 5000);
    let all = expected.to_string().len();
    let client = world.postgres.connect().await;
    let mut fastest = Duration::MAX;
    for n in 0..5 {
        let digest = expected["digest"].as_str().unwrap().to_owned();
        let site = format!("INSERT INTO sites (name, networks) VALUES ('s{n}', '{{10.{}.0.0/16}}')", 60 + n);
        let write = async {
            // So that the request is held by then.
            tokio::time::sleep(ms(100)).await;
            let began = Instant::now();
            client.batch_execute(&site).await.unwrap();
            began
        };
        let ((answer, at), began) = tokio::join!(agent.held(&digest), write);
        fastest = fastest.min(at - began);
        let delta = answer.json();
        assert_eq!((&delta["from"], delta["sites"].as_array().unwrap().len()), (&expected["digest"], n + 1));
        assert!(answer.body.len() * 50 < all, "{} of {all} bytes", answer.body.len());
        expected = agent.expected().await;
        assert_eq!(expected["digest"], delta["digest"]);
    }
    measured("site written -> with its agent", fastest);
    // Of a build without optimization, beside other stories.
    assert!(fastest < ms(250), "{fastest:?}");
    let digest = expected["digest"].as_str().unwrap().to_owned();
    world.psql("UPDATE domains SET backend_port = 81 WHERE domain = 'h7.test'").await;
    let path = format!("/api/agents/hub2/expected?have={digest}&wait=300ms");
    assert_eq!(agent.send(Method::GET, &path, "").await.status, 304, "where a name leads to does not concern an agent");
    world.psql("UPDATE domains SET dns_mode = 'static' WHERE domain = 'h8.test'").await;
    let delta = agent.held(&digest).await.0.json();
    assert_eq!(delta["names"], json!({"h8.test": {"entry_point": "websecure", "dns_mode": "static"}}));
    let digest = delta["digest"].as_str().unwrap().to_owned();
    world.psql("UPDATE domains SET status = 'disabled' WHERE domain = 'h7.test'").await;
    assert_eq!(agent.held(&digest).await.0.json()["gone"], json!(["h7.test"]));
}

#[tokio::test]
async fn what_an_agent_reports_is_seen_by_all_and_that_it_went_silent_too() {
    let mut world = World::with(|provider| provider.set("agents", "silent_after", "\"3s\"")).await;
    world.psql("INSERT INTO sites (name, networks) VALUES ('fr', '{10.35.0.0/16}')").await;
    let mut seq = 0;
    let mut next = |status: &str| {
        seq += 1;
        report(seq, status)
    };
    let authorization = Agent::of(&world, "hub2").await.authorization;
    let mut stream = world.provider.follow("?kind=finding", &[]).await;
    let hub = async |world: &World, what: &str, right: &dyn Fn(&Value) -> bool| {
        until(what, secs(15), async || {
            let agents = world.provider.get("/api/agents").await.json();
            if right(&agents[0]) { Ok(agents[0].clone()) } else { Err(agents) }
        })
        .await
        .0
    };
    let known = hub(&world, "a site names the agent", &|hub| hub["name"] == "hub2").await;
    assert_eq!((&known["last_report"], &known["silent"]), (&Value::Null, &json!(false)), "{known}");

    let bad = next("critical");
    assert_eq!(Agent::with(&world, &authorization).report(&bad).await.json()["stored"], true);
    assert_eq!(stream.next().await.unwrap().data["detail"]["target"], "wg-fr");
    let debug = world.provider.get("/debug.json").await.json();
    let causes = debug["causes"].to_string();
    assert!(debug["agents"]["findings"][0]["agent"] == "hub2" && causes.contains("wg-peer wg-fr"), "{debug}");
    let did = "hub2: 2026-11-27T08:00:00Z: wg-fr is absent: it is restarted; done: wg-fr is there";
    assert!(causes.contains(did) && debug["agents"]["findings"][0]["action"]["outcome"] == "done", "{debug}");
    let metrics = world.provider.get("/metrics").await.text();
    let series = r#"charliehub_provider_agent_finding{agent="hub2",check="wg-peer",target="wg-fr"} 2"#;
    assert!(metrics.contains(series), "{metrics}");

    let silent = hub(&world, "the agent is silent", &|hub| hub["silent"] == true).await;
    assert_eq!((&silent["findings"][0]["check"], &silent["status"]), (&json!("agent-silent"), &json!("critical")));
    assert_eq!(stream.next().await.unwrap().data["detail"]["check"], "agent-silent");
    world.provider.until_metric("agent_report_age_seconds", secs(5), |age| age > 3.0).await;
    let debug = world.provider.get("/debug.json").await.json();
    assert!(debug["causes"].to_string().contains("has not reported"), "{debug}");

    world.provider.kill();
    world.provider.up().await;
    world.until_followed().await;
    assert_eq!(
        Agent::with(&world, &authorization).report(&bad).await.json()["stored"],
        false,
        "delivered again after a restart"
    );
    assert_eq!(Agent::with(&world, &authorization).report(&next("ok")).await.json()["transitions"], 1);
    let well = hub(&world, "the agent reports again", &|hub| hub["status"] == "ok").await;
    assert_eq!((&well["silent"], well["findings"].as_array().unwrap().len()), (&json!(false), 2));
    let transitions = world.provider.get("/api/agents/hub2/transitions").await.json();
    assert_eq!((&transitions[0]["was"], &transitions[0]["now"]), (&json!("critical"), &json!("ok")), "{transitions}");
    let table = world.provider.must(&["agents", "list"]).await;
    assert!(table.contains("hub2") && table.contains("ok"), "{table}");
    world.provider.must(&["agents", "rm", "hub2"]).await;
    hub(&world, "nothing is left of its reports", &|hub| hub["last_report"].is_null()).await;
}

#[tokio::test]
async fn an_agent_cannot_speak_for_another_nor_send_what_is_no_report() {
    let world = World::new().await;
    let (hub2, hub3) = (Agent::of(&world, "hub2").await, Agent::of(&world, "hub3").await);
    let good = report(1, "ok");
    let large = good.to_string().replace("0.1.0", &"x".repeat(17 << 20));
    assert_eq!(hub3.report(&good).await.status, 403);
    assert_eq!(hub3.send(Method::GET, "/api/agents/hub2/expected", "").await.status, 403);
    for (body, status) in [
        (String::from("{"), 400),
        (good.to_string().replace("\"ok\"", "\"fine\""), 422),
        (large.clone(), 413),
        (json!([good]).to_string(), 422),
    ] {
        let answer = hub2.send(Method::POST, "/api/agents/hub2/report", &body).await;
        assert_eq!(answer.status, status, "{}", answer.text());
        assert!(answer.json()["remedy"].is_string());
    }
    // Refused before anything of the body is read: whoever is still sending hears why all the same.
    let nobody = Agent::with(&world, "Bearer nobody");
    assert_eq!(nobody.send(Method::POST, "/api/agents/hub2/report", &large).await.status, 401);
    for path in ["/api/domains", "/api/agents", "/api/sites", "/traefik"] {
        assert_eq!(hub2.send(Method::GET, path, "").await.status, 403, "{path}");
    }
    assert_eq!(world.psql("SELECT name FROM agents").await, Vec::<Vec<String>>::new());
}

#[tokio::test]
async fn the_internal_tier_follows_the_sites() {
    let world = World::with(|provider| provider.set("access", "internal_networks", "[]")).await;
    let traefik = world.traefik("hub2").await;
    let hello = world.backend("hello").await;
    let site = Alias::new(47);
    world.insert(&Row::http("in.test", hello.address()).with("access_tier", "internal")).await;
    traefik.until_status("http://in.test/", 503).await;
    let from = traefik.client().from(site.ip());
    let status = async |wanted: u16| {
        let reached = async || {
            let answer = from.get("http://in.test/").await.map_err(|error| format!("{error:#}"))?;
            if answer.status == wanted { Ok(()) } else { Err(answer.status.to_string()) }
        };
        until("the site is let in, or not", secs(5), reached).await.1
    };
    world.psql("INSERT INTO sites (name, networks) VALUES ('other', '{10.48.0.0/16}')").await;
    status(403).await;
    world.psql("INSERT INTO sites (name, networks) VALUES ('here', '{10.47.0.0/16}')").await;
    measured("site written -> let in", status(200).await);
    assert_eq!(traefik.get("http://in.test/").await.status, 403, "from elsewhere");
    assert_eq!(world.provider.send(Method::DELETE, "/api/sites/here", "").await.status, 200);
    measured("site removed -> shut out", status(403).await);
    let surface = world.provider.get("/api/surface").await.text();
    assert!(surface.contains("10.48.0.0/16") && !surface.contains("10.47.0.0/16"), "{surface}");
}

#[tokio::test]
async fn a_site_is_changed_by_somebody_refused_in_words_and_never_brought_back_wider() {
    let world = World::new().await;
    let site = |name: &str, network: &str, key: &str| {
        json!({"name": name, "networks": [network], "tunnels": [{"interface": format!("wg-{name}"), "public_key": key,
            "allowed_ips": [network], "keepalive": 25}]})
    };
    let file = world.home.path().join("uk.json");
    std::fs::write(&file, site("uk", "10.44.0.0/16", KEY).to_string()).unwrap();
    let file = file.to_str().unwrap();
    let said = world.provider.must(&["sites", "set", file, "--reason", "the new tunnel"]).await;
    let uk = world.postgres.revision().await;
    assert!(said.contains(&format!("site uk: written, as revision {uk}")), "{said}");
    assert!(world.provider.must(&["sites", "list"]).await.contains("wg-uk"));
    world.psql("INSERT INTO sites (name, networks) VALUES ('fr', '{10.35.0.0/16}')").await;
    world.psql("UPDATE sites SET networks = '{10.35.7.0/24}' WHERE name = 'fr'").await;
    world.psql("DELETE FROM sites WHERE name = 'uk'").await;

    let revisions = world.provider.get("/api/revisions").await.json();
    let first = revisions.as_array().unwrap().iter().find(|one| one["revision"] == uk).unwrap();
    assert_eq!((&first["source"], &first["reason"]), (&json!("api"), &json!("the new tunnel")), "{revisions}");
    let diff = world.provider.get(&format!("/api/revisions/{}/diff/{}", uk + 1, uk + 2)).await.json();
    assert_eq!((&diff["rows"][0]["table"], &diff["rows"][0]["name"]), (&json!("sites"), &json!("site fr")), "{diff}");
    let changed = world.provider.get(&format!("/api/revisions/{}", uk + 3)).await.json();
    assert_eq!((&changed["changes"][0]["op"], &changed["changes"][0]["name"]), (&json!("delete"), &json!("site uk")));
    let audit = world.provider.get("/api/audit?kind=row").await.text();
    assert!(audit.contains("site uk") && audit.contains("site fr"), "{audit}");
    world.psql("DO $$ BEGIN ASSERT (SELECT count(*) = 0 FROM audit_breaks()); END $$").await;

    // Back to two sites, one of which was removed since, and the other narrowed.
    world.psql("INSERT INTO policies (agent, body) VALUES ('hub2', '{\"units\": [{\"name\": \"a.timer\"}]}')").await;
    let back = world.provider.send(Method::POST, &format!("/api/revisions/{}/rollback", uk + 1), "").await;
    assert_eq!(back.status, 200, "{}", back.text());
    let kept = back.json()["kept_narrower"].clone();
    assert_eq!(kept, json!(["site fr", "site uk"]));
    let now = world.psql("SELECT name, networks::text FROM sites").await;
    assert_eq!(now, [["fr", "{10.35.7.0/24}"]]);
    assert!(world.psql("SELECT agent FROM policies").await.is_empty(), "there was no policy then");
    world.provider.must(&["rollback", &(uk + 4).to_string()]).await;
    assert_eq!(world.psql("SELECT agent FROM policies").await, [["hub2"]]);

    for (sql, words) in [
        (
            "INSERT INTO sites (name, networks) VALUES ('x', '{10.35.7.128/25}')".to_owned(),
            "overlaps 10.35.7.0/24 of site fr",
        ),
        (
            format!(
                "INSERT INTO sites (name, networks, tunnels) VALUES ('x', '{{10.1.0.0/16}}', '{}')",
                json!([{"interface": "x", "public_key": "short", "allowed_ips": []}])
            ),
            "sites_tunnel_keys_valid",
        ),
    ] {
        let error = world.postgres.try_sql(&sql).await.unwrap_err();
        let text = error.as_db_error().map(ToString::to_string).unwrap_or_default();
        assert!(text.contains(words), "{text}");
    }
    for (body, field, words) in [
        (site("x", "10.35.7.128/25", KEY), "networks", "overlaps 10.35.7.0/24 of site fr"),
        (site("x", "10.1.0.0/16", "short"), "tunnels[0].public_key", "WireGuard"),
    ] {
        let problem = world.provider.send(Method::POST, "/api/sites", &body.to_string()).await.json();
        assert_eq!(problem["field"], field, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(words), "{problem}");
    }
}
