//! Two providers on one database: one migrates, both serve the same bytes, either may die. Fault matrix 41.

use std::{pin::pin, time::Instant};

use charliehub_tests::{Home, Postgres, Provider, Row, Signal, World, ms, secs, unguarded, until};
use hyper::Method;
use serde_json::{Value, json};
use tokio::time::timeout;

#[tokio::test]
async fn two_that_start_at_once_on_an_empty_database_serve_the_same() {
    let home = Home::new();
    let postgres = Postgres::start(&home).await;
    let url = postgres.url();
    let same = |name: &str| {
        unguarded(Provider::new(&home, name)).database(&url).set("compile", "self_url", "\"http://127.0.0.1:8001\"")
    };
    let (mut one, mut two) = (same("one"), same("two"));
    one.launch();
    two.launch();
    for provider in [&one, &two] {
        provider.until_metric("database_connected", secs(20), |v| v >= 1.0).await;
    }
    // The first admin's token was made once, by whichever migrated.
    let token = one.token("admin").await;
    one.speak_as(&token);
    two.speak_as(&token);
    for provider in [&one, &two] {
        until("the new token is known", secs(2), async || match provider.get("/api/domains").await.status {
            200 => Ok(()),
            status => Err(status),
        })
        .await;
    }
    let world = World { provider: one, postgres, home: home.clone() };
    let (writer, watch) = world.busy().await;
    let second = two.watch();
    writer.commits(50, secs(10)).await;
    second.until(world.postgres.revision().await, secs(2)).await;
    two.kill();
    writer.commits(10, secs(5)).await;
    two.up().await;
    world.settle(writer, watch, secs(1)).await;
    let newest = world.postgres.revision().await;
    two.until_serves(newest, secs(5)).await;
    let (a, b) = (world.provider.poll().await, two.poll().await);
    assert_eq!((a.revision(), a.header("etag")), (b.revision(), b.header("etag")), "equal digests");
    assert_eq!(a.body, b.body);
    second.audit_bodies(&world.postgres, |_| true).await;
}

/// Both ends of a tunnel may ask different providers.
#[tokio::test]
async fn a_step_of_a_rotation_told_to_one_is_heard_at_the_other_and_a_stop_keeps_nobody_waiting() {
    let world = World::new().await;
    let mut two = Provider::new(&world.home, "two").database(&world.postgres.url());
    two.speak_as(&world.provider.admin_token());
    let mut two = two.start().await;
    two.until_metric("notifications", secs(5), |v| v >= 1.0).await;
    let key = |of: &str| format!("encode(sha256('{of}'), 'base64')");
    let rows = format!(
        "INSERT INTO sites (name, agent, networks, tunnels) SELECT name, agent, network, jsonb_build_array(jsonb_build_object(
             'interface', 'wg0', 'public_key', public_key, 'allowed_ips', '[]'::jsonb) || own)
         FROM (VALUES ('hub', 'site', '{{10.99.0.0/16}}'::cidr[], {old}, '{{}}'::jsonb),
                      ('uk', 'hub2', '{{10.44.0.0/16}}', {site}, jsonb_build_object('own_public_key', {old})))
              AS rows (name, agent, network, public_key, own)",
        old = key("old"),
        site = key("site")
    );
    world.psql(&rows).await;
    let keys = world.psql(&format!("SELECT {}, {}", key("old"), key("new"))).await.remove(0);
    let path = |agent: &str, rest: &str| format!("/api/agents/{agent}/rotations{rest}");
    let one = "/7c9e6679-7425-40de-944b-e07fc1f90ae7";
    let tell = async |agent: &str, body: Value| {
        let answer = world.provider.send(Method::PUT, &path(agent, one), &body.to_string()).await;
        assert_eq!(answer.status, 200, "{agent} {body}: {}", answer.text());
    };

    {
        let waits = async |path: String| {
            let answer = two.get(&path).await;
            (answer.status, answer.json())
        };
        let mut follows = pin!(waits(path("site", "?wait=50s")));
        timeout(ms(300), &mut follows).await.expect_err("it is held");
        let began = Instant::now();
        let offer = json!({ "site": "uk", "interface": "wg-uk", "old_key": keys[0], "new_key": keys[1] });
        tell("hub2", json!({ "phase": "offered", "offer": offer })).await;
        let (status, found) = follows.await;
        assert_eq!((status, &found["rotations"][0]["follower"]), (200, &json!("site")), "{found}");
        assert!(began.elapsed() < secs(1), "{:?}", began.elapsed());

        let mut offers = pin!(waits(path("hub2", &format!("{one}?wait=50s&not=offered"))));
        timeout(ms(300), &mut offers).await.expect_err("it is held");
        let began = Instant::now();
        tell("site", json!({ "phase": "ready" })).await;
        assert_eq!(offers.await.1["phase"], "ready");
        assert!(began.elapsed() < secs(1), "{:?}", began.elapsed());
        let listed = world.provider.must(&["rotations"]).await;
        assert!(listed.contains("hub2") && listed.contains("wg-uk") && listed.contains("ready"), "{listed}");

        let mut offers = pin!(waits(path("hub2", &format!("{one}?wait=50s&not=ready"))));
        timeout(ms(300), &mut offers).await.expect_err("it is held");
        two.signal(Signal::TERM);
        let (status, found) = offers.await;
        assert_eq!((status, &found["phase"]), (200, &json!("ready")));
    }
    two.ended(secs(10)).await;
}

#[tokio::test]
async fn a_token_made_by_one_is_known_to_the_other() {
    let world = World::new().await;
    let two = Provider::new(&world.home, "two").database(&world.postgres.url()).start().await;
    world.insert(&Row::http("a.test", ([127, 0, 0, 1], 1).into())).await;
    two.until_metric("revision", secs(5), |v| v >= 1.0).await;
    let authorization = format!("Bearer {}", world.provider.token("traefik").await);
    until("the other knows the token", ms(2_000), async || {
        let headers = [("authorization", authorization.as_str())];
        let answer = two.connection().await.send(hyper::Method::GET, "/traefik", &headers, "").await;
        let status = answer.map_err(|e| e.to_string())?.status;
        if status == 200 { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
}
