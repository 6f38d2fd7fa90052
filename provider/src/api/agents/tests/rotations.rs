use std::time::{Duration, Instant};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use charliehub_proto::rotation::{Followed, Phase, Rotation};

use super::*;

fn key(n: u8) -> String {
    BASE64_STANDARD.encode([n; 32])
}

fn offer(old: u8, new: u8) -> Value {
    json!({"phase": "offered", "offer": {"site": "uk", "interface": "wg-uk", "old_key": key(old), "new_key": key(new)}})
}

fn says(phase: &str) -> Value {
    json!({"phase": phase})
}

impl Story {
    /// Agent hub2 has key 1; hub3 is at the other end, with key 2.
    async fn of_two_ends() -> Self {
        let story = Self::new().await;
        let ends = format!(
            r#"INSERT INTO sites (name, agent, networks, tunnels) VALUES
               ('uk', 'hub2', '{{10.44.0.0/16}}', '[{{"interface": "wg-fr", "public_key": "{other}", "allowed_ips": [], "rank": 2}},
                   {{"interface": "wg-uk", "public_key": "{theirs}", "own_public_key": "{ours}", "allowed_ips": ["10.44.0.0/16"]}}]'),
               ('hub', 'hub3', '{{10.99.0.0/16}}', '[{{"interface": "wg-hub", "public_key": "{ours}", "own_public_key": "{its}", "allowed_ips": ["10.99.0.0/16"],
                   "keepalive": 25}}]'),
               ('third', 'hub4', '{{10.35.0.0/16}}', '[{{"interface": "wg0", "public_key": "{other}", "allowed_ips": []}}]')"#,
            ours = key(1),
            theirs = key(2),
            its = key(7),
            other = key(3)
        );
        story.client.batch_execute(&ends).await.unwrap();
        story
    }

    fn token(&self, name: &str) -> &str {
        if name == "hub2" { &self.agents[0] } else { &self.agents[1] }
    }

    async fn tell(&self, name: &str, id: u128, body: &Value) -> (u16, Value) {
        let path = format!("/api/agents/{name}/rotations/{}", Uuid::from_u128(id));
        let (status, _, answer) = self.ask(self.token(name), "PUT", &path, body).await;
        (status, answer)
    }

    async fn must(&self, name: &str, id: u128, body: &Value) -> Rotation {
        let (status, answer) = self.tell(name, id, body).await;
        assert_eq!(status, 200, "{name} {body}: {answer}");
        serde_json::from_value(answer).unwrap()
    }

    async fn look(&self, name: &str, rest: &str) -> (u16, Value) {
        let path = format!("/api/agents/{name}/rotations{rest}");
        let (status, _, answer) = self.ask(self.token(name), "GET", &path, &Value::Null).await;
        (status, answer)
    }

    async fn kinds(&self) -> Vec<String> {
        let sql = "SELECT kind FROM audit_events WHERE kind LIKE 'rotation.%' ORDER BY id";
        self.client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
    }

    async fn revision(&self) -> i64 {
        self.client.query_one("SELECT n FROM revision", &[]).await.unwrap().get(0)
    }
}

fn one(id: u128) -> String {
    format!("/{}", Uuid::from_u128(id))
}

#[tokio::test]
async fn both_ends_go_step_by_step_and_the_new_key_is_in_all_rows_in_one_revision() {
    let story = Story::of_two_ends().await;
    let vpn = |interface: &str, own: u8| {
        json!({"interface": interface, "public_key": key(own), "endpoint": "vpn.example.org:51820",
            "addresses": ["10.98.0.1/24"], "mtu": 1400})
    };
    let policy = format!(
        "INSERT INTO policies (agent, body) VALUES ('hub2', '{}'), ('hub5', '{{\"units\": []}}')",
        json!({"units": [], "vpn": [vpn("wg-other", 3), vpn("wg-uk", 1)]})
    );
    story.client.batch_execute(&policy).await.unwrap();
    let before = story.revision().await;
    let offered = story.must("hub2", 1, &offer(1, 9)).await;
    assert_eq!(
        (offered.agent.as_str(), offered.follower.as_deref(), offered.phase),
        ("hub2", Some("hub3"), Phase::Offered)
    );
    assert_eq!(story.must("hub2", 1, &offer(1, 9)).await, offered, "said twice");
    let followed: Followed = serde_json::from_value(story.look("hub3", "").await.1).unwrap();
    assert_eq!(followed.rotations, std::slice::from_ref(&offered));
    assert_eq!(story.look("hub2", "").await.1, json!({"rotations": []}), "its own are not to follow");
    for (name, step) in [("hub3", "ready"), ("hub2", "switching"), ("hub3", "going")] {
        let now = story.must(name, 1, &says(step)).await;
        assert_eq!(now.phase.as_str(), step);
        assert_eq!(story.must(name, 1, &says(step)).await, now, "said twice");
        assert_eq!((now.begun_at, now.id), (offered.begun_at, offered.id));
    }
    assert_eq!(story.must("hub2", 1, &says("switching")).await.phase, Phase::Going, "the answer was lost");
    assert_eq!(story.revision().await, before, "steps make no revision");
    assert_eq!(story.must("hub2", 1, &says("committed")).await.phase, Phase::Committed);
    assert_eq!(story.must("hub2", 1, &says("committed")).await.phase, Phase::Committed);
    assert_eq!(story.must("hub3", 1, &says("going")).await.phase, Phase::Committed, "the answer was lost");
    assert_eq!(story.revision().await, before + 1);

    let told =
        story.client.query_one("SELECT actor, source, reason FROM revisions ORDER BY revision DESC LIMIT 1", &[]);
    let told = told.await.unwrap();
    assert_eq!([told.get::<_, &str>(0), told.get(1), told.get(2)], ["hub2", "api", "key of hub2 wg-uk was rotated"]);
    let rows = "SELECT s.name || ' ' || (t ->> 'interface') || ' ' || (t ->> 'public_key') || ' '
                       || coalesce(t ->> 'own_public_key', '-') || ' ' || jsonb_array_length(t -> 'allowed_ips')
                  FROM sites s, jsonb_array_elements(s.tunnels) WITH ORDINALITY u(t, place) ORDER BY name, place";
    let rows: Vec<String> = story.client.query(rows, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(
        rows,
        [
            format!("hub wg-hub {} {} 1", key(9), key(7)),
            format!("third wg0 {} - 0", key(3)),
            format!("uk wg-fr {} - 0", key(3)),
            format!("uk wg-uk {} {} 1", key(2), key(9)),
        ]
    );
    let body = "SELECT body -> 'vpn' FROM policies WHERE agent = 'hub2'";
    let body: Value = story.client.query_one(body, &[]).await.unwrap().get(0);
    assert_eq!(body, json!([vpn("wg-other", 3), vpn("wg-uk", 9)]));
    let touched = "SELECT count(*) FROM history WHERE revision = (SELECT n FROM revision)";
    assert_eq!(story.client.query_one(touched, &[]).await.unwrap().get::<_, i64>(0), 3, "no row without the key");

    assert_eq!(story.kinds().await, ["rotation.offered", "rotation.committed"]);
    let detail = "SELECT actor, detail FROM audit_events WHERE kind = 'rotation.committed'";
    let detail = story.client.query_one(detail, &[]).await.unwrap();
    assert_eq!(detail.get::<_, &str>(0), "hub2");
    assert_eq!(
        detail.get::<_, Value>(1),
        json!({"rotation": Uuid::from_u128(1), "agent": "hub2", "site": "uk", "interface": "wg-uk", "old_key": key(1),
            "new_key": key(9), "follower": "hub3", "why": null, "revision": before + 1})
    );
    assert!(crate::audit::broken(&story.client).await.unwrap().is_empty());
    assert_eq!(story.look("hub3", "").await.1, json!({"rotations": []}), "it is over");
}

#[tokio::test]
async fn a_step_out_of_turn_is_refused_with_the_phase_and_what_may_follow() {
    let story = Story::of_two_ends().await;
    story.must("hub2", 1, &offer(1, 9)).await;
    for (name, body, words) in [
        ("hub2", says("switching"), ["it is `offered`", "say `undone`"]),
        ("hub2", says("committed"), ["it is `offered`", "say `undone`"]),
        ("hub2", says("ready"), ["it is `offered`", "say `undone`"]),
        ("hub3", says("going"), ["it is `offered`", "say `ready` or `undone`"]),
        ("hub2", offer(1, 8), ["another site, interface or key", "a new id"]),
    ] {
        let (status, problem) = story.tell(name, 1, &body).await;
        assert_eq!(status, 409, "{name} {body}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(words[0]), "{problem}");
        assert!(problem["remedy"].as_str().unwrap().contains(words[1]), "{problem}");
    }
    story.must("hub3", 1, &says("ready")).await;
    let (status, problem) = story.tell("hub3", 1, &says("going")).await;
    assert_eq!((status, &problem["remedy"]), (409, &json!("say `undone`")), "{problem}");
    let undone = json!({"phase": "undone", "why": "no `handshake`\u{0} within 30 s"});
    assert_eq!(story.must("hub2", 1, &undone).await.why.as_deref(), Some("no `handshake`  within 30 s"));
    assert_eq!(story.must("hub2", 1, &undone).await.phase, Phase::Undone, "said twice");
    let (status, problem) = story.tell("hub2", 1, &says("switching")).await;
    assert!(status == 409 && problem["detail"].as_str().unwrap().contains("`undone`, which is final"), "{problem}");
    assert_eq!(story.kinds().await, ["rotation.offered", "rotation.undone"]);
    // Who cannot follow says so; once it goes, the other end decides.
    story.must("hub2", 3, &offer(1, 9)).await;
    assert_eq!(story.must("hub3", 3, &json!({"phase": "undone", "why": "held"})).await.why.as_deref(), Some("held"));
    story.must("hub2", 4, &offer(1, 9)).await;
    for (name, step) in [("hub3", "ready"), ("hub2", "switching"), ("hub3", "going")] {
        story.must(name, 4, &says(step)).await;
    }
    let (status, problem) = story.tell("hub3", 4, &says("undone")).await;
    assert_eq!((status, &problem["remedy"]), (409, &json!("wait for it: GET with wait and not")), "{problem}");
    let long = json!({"phase": "undone", "why": "é".repeat(3000)});
    story.must("hub2", 2, &offer(1, 9)).await;
    assert_eq!(story.must("hub2", 2, &long).await.why.unwrap().len(), 2000);

    // Of a key that is another's: nobody's, and that of the other end.
    for old in [5, 7] {
        let (status, problem) = story.tell("hub2", 7, &offer(old, 9)).await;
        assert_eq!((status, problem["field"].as_str()), (422, Some("offer.old_key")), "{problem}");
    }
    for (name, id, body, status) in [
        ("hub2", 7, says("switching"), 404),
        ("hub3", 7, says("ready"), 404),
        ("hub2", 7, json!({"phase": "offered"}), 422),
        ("hub2", 7, json!({"phase": "ready", "offer": offer(1, 9)["offer"]}), 422),
        ("hub2", 7, json!({"phase": "ready", "why": "x"}), 422),
        ("hub2", 7, offer(1, 1), 422),
        ("hub2", 7, says("begun"), 422),
    ] {
        let (got, problem) = story.tell(name, id, &body).await;
        assert_eq!(got, status, "{name} {body}: {problem}");
    }
    for (field, value) in
        [("site", ""), ("interface", "wg uk"), ("interface", "a-name-of-16-chars"), ("old_key", "abc"), ("new_key", "")]
    {
        let mut body = offer(1, 9);
        body["offer"][field] = json!(value);
        let (status, problem) = story.tell("hub2", 7, &body).await;
        assert_eq!((status, problem["field"].as_str()), (422, Some(&*format!("offer.{field}"))), "{problem}");
    }
}

#[tokio::test]
async fn a_rotation_is_for_its_two_agents_and_operators_see_all() {
    let story = Story::of_two_ends().await;
    let alone = json!({"phase": "offered",
        "offer": {"site": "hub", "interface": "wg-hub", "old_key": key(7), "new_key": key(8)}});
    assert_eq!(story.must("hub3", 1, &alone).await.follower, None, "no row has a tunnel to it");
    // Neither that it is there, nor by its own offer.
    for body in [says("ready"), says("undone"), offer(1, 9)] {
        assert_eq!(story.tell("hub2", 1, &body).await.0, 404, "{body}");
    }
    assert_eq!(story.look("hub2", &one(1)).await.0, 404);
    for (token, name, status) in [(0, "hub3", 403), (1, "hub3", 200)] {
        let path = format!("/api/agents/{name}/rotations");
        for rest in ["", &one(1)] {
            let path = format!("{path}{rest}");
            assert_eq!(story.ask(&story.agents[token], "GET", &path, &Value::Null).await.0, status);
        }
        let path = format!("{path}{}", one(1));
        assert_eq!(story.ask(&story.agents[token], "PUT", &path, &alone).await.0, status);
    }
    let path = format!("/api/agents/hub3/rotations{}", one(1));
    for (token, gets, puts) in
        [(&story.world.reader, 200, 403), (&story.world.editor, 200, 403), (&story.world.admin, 200, 200)]
    {
        assert_eq!(story.ask(token, "GET", &path, &Value::Null).await.0, gets);
        assert_eq!(story.ask(token, "PUT", &path, &alone).await.0, puts);
    }
    story.must("hub2", 2, &offer(1, 9)).await;
    let ids = |answer: &Value| answer.as_array().unwrap().iter().map(|one| one["id"].clone()).collect::<Vec<_>>();
    let (status, _, all) = story.ask(&story.world.reader, "GET", "/api/rotations", &Value::Null).await;
    assert_eq!((status, ids(&all)), (200, vec![json!(Uuid::from_u128(2)), json!(Uuid::from_u128(1))]), "newest first");
    let (_, _, newest) = story.ask(&story.world.reader, "GET", "/api/rotations?limit=1", &Value::Null).await;
    assert_eq!(ids(&newest), [json!(Uuid::from_u128(2))]);
    assert_eq!(story.ask(&story.agents[0], "GET", "/api/rotations", &Value::Null).await.0, 403);
    for (path, field) in [
        ("/api/rotations?limit=0", "limit"),
        ("/api/agents/hub2/rotations/x", "id"),
        (&*format!("/api/agents/hub2/rotations{}?not=begun", one(2)), "not"),
        ("/api/agents/hub2/rotations?wait=2m", "wait"),
        ("/api/agents/hub2/rotations?not=ready", "not"),
    ] {
        let (status, problem) = story.admin("GET", path, &Value::Null).await;
        assert_eq!((status, problem["field"].as_str()), (400, Some(field)), "{path}: {problem}");
    }
}

#[tokio::test]
async fn where_nobody_follows_one_end_goes_on_alone_and_a_key_written_by_hand_is_fine() {
    let story = Story::of_two_ends().await;
    story.client.batch_execute("DELETE FROM sites WHERE agent <> 'hub2'").await.unwrap();
    assert_eq!(story.must("hub2", 1, &offer(1, 9)).await.follower, None);
    assert_eq!(story.tell("hub2", 1, &says("committed")).await.0, 409);
    story.must("hub2", 1, &says("switching")).await;
    let by_hand = format!("UPDATE sites SET tunnels = replace(tunnels::text, '{}', '{}')::jsonb", key(1), key(9));
    story.client.batch_execute(&by_hand).await.unwrap();
    let before = story.revision().await;
    assert_eq!(story.must("hub2", 1, &says("committed")).await.phase, Phase::Committed);
    assert_eq!(story.revision().await, before, "nothing was to be changed");
}

#[tokio::test]
async fn of_several_the_agent_follows_that_reported_last() {
    let story = Story::of_two_ends().await;
    let more = format!(
        r#"UPDATE sites SET tunnels = '[{{"interface": "wg0", "public_key": "{}", "allowed_ips": []}}]' WHERE agent = 'hub4'"#,
        key(1)
    );
    story.client.batch_execute(&more).await.unwrap();
    for (id, agents, follower) in [
        (1, "", "hub3"),
        (2, "('hub4', now() - interval '1 day', now(), gen_random_uuid(), '1')", "hub4"),
        (3, "('hub3', now(), now(), gen_random_uuid(), '1')", "hub3"),
    ] {
        if !agents.is_empty() {
            let sql = format!("INSERT INTO agents (name, last_report, reported_at, boot, version) VALUES {agents}");
            story.client.batch_execute(&sql).await.unwrap();
        }
        assert_eq!(story.must("hub2", id, &offer(1, 9)).await.follower.as_deref(), Some(follower));
    }
    let (_, first) = story.look("hub2", &one(1)).await;
    assert_eq!((&first["phase"], &first["why"]), (&json!("undone"), &json!("superseded")));
    let mut other = offer(1, 9);
    other["offer"]["interface"] = json!("wg-fr");
    story.must("hub2", 4, &other).await;
    assert_eq!(story.look("hub2", &one(3)).await.1["phase"], "offered", "of another interface");
    let told = ["offered", "undone", "offered", "undone", "offered", "offered"].map(|kind| format!("rotation.{kind}"));
    assert_eq!(story.kinds().await, told);
}

#[tokio::test]
async fn who_waits_hears_of_a_step_at_once_and_of_none_when_the_time_is_up() {
    let story = Story::of_two_ends().await;
    let mut followed = std::pin::pin!(story.look("hub3", "?wait=30s"));
    tokio::time::timeout(Duration::from_millis(300), &mut followed).await.expect_err("it is held");
    let (began, body) = (Instant::now(), offer(1, 9));
    let (followed, _) = tokio::join!(followed, story.must("hub2", 1, &body));
    assert_eq!(followed.1["rotations"][0]["phase"], "offered", "{}", followed.1);
    let path = format!("{}?wait=30s&not=offered", one(1));
    let (own, theirs, _) = tokio::join!(story.look("hub2", &path), story.look("hub3", &path), async {
        story.must("hub3", 1, &says("ready")).await
    });
    assert_eq!((&own.1["phase"], &theirs.1["phase"]), (&json!("ready"), &json!("ready")));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());

    assert_eq!(story.look("hub2", &format!("{}?wait=30s&not=offered", one(1))).await.1["phase"], "ready", "at once");
    assert_eq!(
        story.look("hub2", &format!("{}?wait=50ms&not=ready", one(1))).await.1["phase"],
        "ready",
        "after a while"
    );
    assert_eq!(story.look("hub2", "?wait=50ms").await, (200, json!({"rotations": []})));
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_step_through_another_provider_is_heard_without_a_notification_too() {
    let story = Story::of_two_ends().await;
    story.must("hub2", 1, &offer(1, 9)).await;
    let path = format!("{}?wait=30s&not=offered", one(1));
    let mut held = std::pin::pin!(story.look("hub2", &path));
    tokio::time::timeout(Duration::from_millis(300), &mut held).await.expect_err("it is held");
    // Nobody listens here: it finds it when it looks again.
    story.client.batch_execute("UPDATE rotations SET phase = 'ready'").await.unwrap();
    let began = Instant::now();
    assert_eq!(held.await.1["phase"], "ready");
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

#[tokio::test]
async fn offers_at_once_leave_one_that_goes_on() {
    let story = Story::of_two_ends().await;
    let (a, b, c) = (offer(1, 7), offer(1, 8), offer(1, 9));
    let told = tokio::join!(story.must("hub2", 1, &a), story.must("hub2", 2, &b), story.must("hub2", 3, &c));
    assert!([told.0, told.1, told.2].iter().all(|one| one.phase == Phase::Offered));
    let open = "SELECT count(*) FROM rotations WHERE phase = 'offered'";
    assert_eq!(story.client.query_one(open, &[]).await.unwrap().get::<_, i64>(0), 1);
}

#[tokio::test]
async fn old_ones_are_forgotten() {
    let story = Story::of_two_ends().await;
    story.must("hub2", 1, &offer(1, 8)).await;
    story.client.batch_execute("UPDATE rotations SET changed_at = now() - interval '91 days'").await.unwrap();
    let mut other = offer(1, 9);
    other["offer"]["interface"] = json!("wg-fr");
    story.must("hub2", 2, &other).await;
    crate::rotations::store::prune(&story.client, "90 days").await.unwrap();
    assert_eq!(story.look("hub2", &one(1)).await.0, 404);
    assert_eq!(story.look("hub2", &one(2)).await.0, 200);
}
