//! Another server takes over, with all commits or without the last ones; an old backup comes back. Fault matrix 9-11.

use charliehub_tests::{Home, Postgres, Stop, World, ms, secs, unguarded, until};

/// A primary with a standby, and a provider that knows both.
async fn pair() -> (World, Postgres) {
    let home = Home::new();
    let primary = Postgres::start(&home).await;
    let standby = primary.standby().await;
    let hosts = format!("127.0.0.1:{},127.0.0.1:{}", standby.host_and_port().1, primary.host_and_port().1);
    let url = format!("postgres://postgres@{hosts}/charliehub?target_session_attrs=read-write");
    let world = World::over(home, primary, |provider| unguarded(provider).database(&url)).await;
    (world, standby)
}

#[tokio::test]
async fn a_failover_with_all_commits_is_followed_without_an_alarm() {
    let (mut world, standby) = pair().await;
    let (writer, watch) = world.busy().await;
    writer.commits(20, secs(10)).await;
    world.postgres.stop(Stop::Fast).await;
    standby.promote().await;
    writer.moves_to(&standby);
    world.postgres = standby;
    writer.commits(20, secs(10)).await;
    world.settle(writer, watch, secs(5)).await;
    assert_eq!(world.provider.count("forks_total").await, 0, "no commit was lost");
}

#[tokio::test]
async fn a_failover_that_lost_commits_is_found_even_after_the_new_primary_has_overtaken() {
    let (mut world, mut standby) = pair().await;
    let (writer, watch) = world.busy().await;
    world.postgres.caught_up(&standby).await;
    standby.stop(Stop::Fast).await;
    writer.commits(10, secs(10)).await;
    world.psql("UPDATE domains SET backend_port = 4444 WHERE domain = 'w0.test'").await;
    let held = world.postgres.revision().await;
    watch.until(held, secs(2)).await;
    world.postgres.kill();
    standby.up().await;
    standby.promote().await;
    // Overtake before anybody looks: the provider may already be there, so in one statement each.
    let overtaken = format!(
        "DO $$ BEGIN WHILE (SELECT n FROM revision) < {held} + 5 LOOP UPDATE domains SET backend_port = \
         1 + (backend_port + 1) % 60000 WHERE domain = 'w1.test'; COMMIT; END LOOP; END $$"
    );
    standby.sql(&overtaken).await;
    writer.moves_to(&standby);
    world.postgres = standby;
    world.provider.until_metric("forks_total", secs(5), |v| v >= 1.0).await;
    assert_eq!(watch.errors(), Vec::<String>::new(), "serving never stopped");
    let branch = world.provider.watch();
    writer.commits(10, secs(10)).await;
    world.settle(writer, branch, secs(5)).await;
    assert!(world.provider.log().contains("commits were lost"), "the log says so");
}

#[tokio::test]
async fn a_restored_backup_is_noticed_and_what_it_says_is_served() {
    let world = World::for_faults().await;
    let (writer, watch) = world.busy().await;
    let written = writer.stop().await;
    assert!(written.committed > 0);
    let dump = world.home.join("backup.dump");
    let file = dump.to_str().unwrap();
    world.postgres.tool("pg_dump", &["-Fc", "-f", file, "charliehub"]).await;
    for n in 0..5 {
        world.psql(&format!("UPDATE domains SET backend_port = {} WHERE domain = 'w{n}.test'", 5_000 + n)).await;
    }
    watch.until(world.postgres.revision().await, secs(2)).await;
    assert!(world.provider.poll().await.text().contains(":5004"));
    world
        .postgres
        .tool("pg_restore", &["--clean", "--if-exists", "--single-transaction", "-d", "charliehub", file])
        .await;
    world.provider.until_metric("forks_total", secs(6), |v| v >= 1.0).await;
    until("the restored rows are served", secs(2), async || {
        let served = world.provider.poll().await.text();
        if served.contains(":5004") { Err(served) } else { Ok(()) }
    })
    .await;
    assert_eq!(watch.errors(), Vec::<String>::new(), "serving never stopped");
    let branch = world.provider.watch();
    world.psql("UPDATE domains SET backend_port = 6000 WHERE domain = 'w0.test'").await;
    let newest = world.postgres.revision().await;
    branch.until(newest, ms(1_500)).await;
    branch.audit(&world.postgres).await;
}
