//! An edge is never emptied by mistake, and a tightening never waits. Fault matrix 19, 20.

use charliehub_tests::{Alias, Backend, Row, Traefik, World, ms, secs, until};

const ROWS: usize = 40;

/// Forty routes `r0.test` to `r39.test` in one commit, live in Traefik.
async fn forty() -> (World, Traefik, Backend) {
    let world = World::new().await;
    let traefik = world.traefik("hub2").await;
    let hello = world.backend("hello").await;
    let rows: Vec<String> = (0..ROWS).map(|n| Row::http(&format!("r{n}.test"), hello.address()).insert()).collect();
    world.psql(&rows.join(";")).await;
    traefik.until_answers("http://r39.test/", "hello").await;
    (world, traefik, hello)
}

/// Waits until the newest revision is withheld, and is kept for an operator: that comes behind the swap.
async fn until_withheld(world: &World) -> u64 {
    let newest = world.postgres.revision().await;
    world.provider.until_metric("withheld", secs(3), |v| v >= 1.0).await;
    until("the answer says what is withheld", secs(2), async || {
        let answer = world.provider.poll().await;
        let withheld = answer.header("x-charliehub-withheld").to_owned();
        if withheld == newest.to_string() && answer.revision() < newest {
            Ok(())
        } else {
            Err((withheld, answer.revision()))
        }
    })
    .await;
    until("it is kept for an operator", secs(5), async || {
        let sql = format!("SELECT count(*) FROM snapshots WHERE revision = {newest} AND state = 'withheld'");
        let kept = world.postgres.value(&sql).await;
        if kept == "1" { Ok(()) } else { Err(kept) }
    })
    .await;
    newest
}

#[tokio::test]
async fn truncate_is_withheld_and_history_has_each_row() {
    let (world, traefik, _) = forty().await;
    let watch = world.provider.watch();
    world.psql("TRUNCATE domains").await;
    let withheld = until_withheld(&world).await;
    for n in [0, 20, 39] {
        assert_eq!(traefik.get(&format!("http://r{n}.test/")).await.text(), "hello");
    }
    let lost = world.postgres.value(&format!("SELECT count(*) FROM history WHERE revision = {withheld}")).await;
    assert_eq!(lost, ROWS.to_string());
    watch.audit(&world.postgres).await;
}

#[tokio::test]
async fn deleting_all_rows_is_withheld_until_an_operator_approves() {
    let (world, traefik, _) = forty().await;
    world.psql("DELETE FROM domains WHERE true").await;
    let withheld = until_withheld(&world).await;
    assert_eq!(traefik.get("http://r5.test/").await.text(), "hello");
    let listed = world.provider.must(&["withheld"]).await;
    assert!(listed.contains(&withheld.to_string()), "{listed}");
    let ready = world.provider.get("/readyz").await;
    assert_eq!(ready.status, 200);
    world.provider.must(&["approve", &withheld.to_string()]).await;
    traefik.until_status("http://r5.test/", 404).await;
    let answer = world.provider.poll().await;
    assert_eq!((answer.status, answer.header("x-charliehub-withheld")), (200, ""));
    let text = answer.text();
    assert!(text.len() > 2 && !text.contains("r5.test"), "{text}");
    assert!(!text.contains(":{}") || text.contains("\"tls\":{}"), "an empty map makes Traefik refuse the body: {text}");
}

#[tokio::test]
async fn a_wrong_update_that_disables_most_rows_is_withheld_and_discarded() {
    let (world, traefik, _) = forty().await;
    world.psql("UPDATE domains SET status = 'disabled' WHERE domain <> 'r0.test'").await;
    let withheld = until_withheld(&world).await;
    assert_eq!(traefik.get("http://r39.test/").await.text(), "hello");
    world.provider.must(&["discard", &withheld.to_string()]).await;
    world.provider.until_metric("withheld", secs(5), |v| v == 0.0).await;
    assert_eq!(world.postgres.value("SELECT count(*) FROM domains WHERE status = 'active'").await, ROWS.to_string());
    assert!(world.postgres.revision().await > withheld, "discarding is a new revision with the rows that run");
    world.provider.until_serves(withheld + 1, secs(3)).await;
    assert_eq!(traefik.get("http://r39.test/").await.text(), "hello");
}

#[tokio::test]
async fn small_removals_go_through() {
    let (world, traefik, _) = forty().await;
    world.psql("DELETE FROM domains WHERE domain IN ('r1.test', 'r2.test', 'r3.test')").await;
    traefik.until_status("http://r2.test/", 404).await;
    assert_eq!(world.provider.count("withheld").await, 0);
}

#[tokio::test]
async fn many_small_removals_count_as_one() {
    let (world, traefik, _) = forty().await;
    for n in 0..30 {
        world.psql(&format!("DELETE FROM domains WHERE domain = 'r{n}.test'")).await;
        world.provider.until_metric("revision", secs(2), |_| true).await;
    }
    until_withheld(&world).await;
    assert_eq!(traefik.get("http://r29.test/").await.text(), "hello", "the last ones are withheld");
}

#[tokio::test]
async fn a_tightening_is_live_while_a_removal_is_withheld() {
    let (world, traefik, hello) = forty().await;
    let site = Alias::new(44);
    world.psql("DELETE FROM domains WHERE domain <> 'r0.test' AND domain <> 'r1.test'").await;
    until_withheld(&world).await;
    world.psql("UPDATE domains SET access_tier = 'internal' WHERE domain = 'r0.test'").await;
    let took = traefik.until_status("http://r0.test/", 403).await;
    assert!(took < ms(1_000), "closed after {took:?}");
    let inside = traefik.client().from(site.ip()).get("http://r0.test/").await.unwrap();
    assert_eq!(inside.status, 200);
    assert_eq!(traefik.get("http://r30.test/").await.text(), "hello", "the removal still waits");
    world.insert(&Row::http("new.test", hello.address())).await;
    until_withheld(&world).await;
}

#[tokio::test]
async fn of_a_withheld_change_the_closing_is_live_and_the_opening_is_not() {
    let (world, traefik, _) = forty().await;
    world.psql("UPDATE domains SET access_tier = 'internal' WHERE domain = 'r1.test'").await;
    traefik.until_status("http://r1.test/", 403).await;
    world
        .psql(
            "BEGIN; DELETE FROM domains WHERE domain NOT IN ('r0.test', 'r1.test'); \
             UPDATE domains SET access_tier = 'internal' WHERE domain = 'r0.test'; \
             UPDATE domains SET access_tier = 'public' WHERE domain = 'r1.test'; COMMIT",
        )
        .await;
    until_withheld(&world).await;
    traefik.until_status("http://r0.test/", 403).await;
    assert_eq!(traefik.get("http://r1.test/").await.status, 403, "what opens waits");
    assert_eq!(traefik.get("http://r30.test/").await.text(), "hello");
}

#[tokio::test]
async fn discarding_a_removal_opens_nothing_that_was_closed_meanwhile() {
    let (world, traefik, _) = forty().await;
    world.psql("DELETE FROM domains WHERE domain <> 'r0.test' AND domain <> 'r1.test'").await;
    until_withheld(&world).await;
    world.psql("UPDATE domains SET access_tier = 'internal' WHERE domain = 'r0.test'").await;
    traefik.until_status("http://r0.test/", 403).await;
    let withheld = until_withheld(&world).await;
    world.provider.must(&["discard", &withheld.to_string()]).await;
    world.provider.until_metric("withheld", secs(5), |v| v == 0.0).await;
    world.provider.until_serves(withheld + 1, secs(3)).await;
    assert_eq!(world.postgres.value("SELECT count(*) FROM domains").await, ROWS.to_string());
    assert_eq!(traefik.get("http://r0.test/").await.status, 403, "it stays closed");
    assert_eq!(traefik.get("http://r30.test/").await.text(), "hello");
}

#[tokio::test]
async fn what_is_withheld_stays_so_over_a_restart() {
    let (mut world, traefik, _) = forty().await;
    world.psql("DELETE FROM domains").await;
    let withheld = until_withheld(&world).await;
    world.provider.stop().await;
    world.provider.up().await;
    world.until_followed().await;
    assert_eq!(until_withheld(&world).await, withheld);
    assert_eq!(traefik.get("http://r5.test/").await.text(), "hello");
    world.provider.kill();
    world.provider.up().await;
    assert!(world.provider.poll().await.text().contains("r5.test"), "from the disk, before the database");
    world.until_followed().await;
    until_withheld(&world).await;
}
