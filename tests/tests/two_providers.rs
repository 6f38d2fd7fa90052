//! Two providers on one database: one migrates, both serve the same bytes, either may die. Fault matrix 41.

use charliehub_tests::{Home, Postgres, Provider, Row, World, ms, secs, unguarded, until};

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
