//! What happens between the provider and PostgreSQL: sessions that end, hang, or tell lies. Fault matrix 1-3, 12-16.

use std::time::{Duration, Instant};

use charliehub_tests::{
    Home, Netns, Options, PgBouncer, Postgres, Provider, Row, Signal, World, full, measured, ms, secs, unguarded, until,
};

/// A build without optimisation hashes and packs many times slower.
const BULK: Duration = if cfg!(debug_assertions) { secs(15) } else { secs(2) };

#[tokio::test]
async fn a_listening_session_that_is_ended_is_replaced_at_once() {
    let world = World::for_faults().await;
    let (writer, watch) = world.busy().await;
    for ended in 1..=3 {
        let pid = world.postgres.listener().await;
        world.psql(&format!("SELECT pg_terminate_backend({pid})")).await;
        world.provider.until_metric("reconnects_total", secs(2), |v| v >= f64::from(ended)).await;
        writer.commits(5, secs(5)).await;
    }
    world.settle(writer, watch, ms(500)).await;
}

#[tokio::test]
async fn a_killed_backend_restarts_the_database_and_nothing_is_missed() {
    let world = World::for_faults().await;
    let (writer, watch) = world.busy().await;
    let pid = world.postgres.listener().await;
    world.postgres.signal_backend(pid, Signal::KILL);
    writer.commits(10, secs(10)).await;
    world.settle(writer, watch, secs(2)).await;
    assert!(world.provider.count("reconnects_total").await >= 1);
}

#[tokio::test]
async fn a_listening_session_that_hangs_is_noticed_by_its_silence() {
    let world = World::for_faults().await;
    let (writer, watch) = world.busy().await;
    let pid = world.postgres.listener().await;
    world.postgres.signal_backend(pid, Signal::STOP);
    let began = Instant::now();
    writer.commits(10, secs(5)).await;
    let meanwhile = world.postgres.revision().await;
    watch.until(meanwhile, secs(4)).await;
    measured("noticed and served again", began.elapsed());
    assert!(began.elapsed() < ms(3_500), "{:?}", began.elapsed());
    assert!(world.provider.count("heartbeat_missed_total").await >= 1);
    world.postgres.signal_backend(pid, Signal::CONT);
    world.settle(writer, watch, secs(1)).await;
}

#[tokio::test]
async fn a_half_open_network_is_noticed_and_healed() {
    let home = Home::new();
    let netns = Netns::new(&home);
    let postgres = Postgres::start_with(&home, Options { netns: Some(&netns), ..Options::default() }).await;
    let world = World::over(home, postgres, unguarded).await;
    let (writer, watch) = world.busy().await;
    netns.cut();
    world.provider.until_metric("database_connected", ms(3_500), |v| v == 0.0).await;
    assert!(world.provider.count("heartbeat_missed_total").await >= 1);
    writer.commits(50, secs(10)).await;
    assert_eq!(world.provider.poll().await.status, 200);
    netns.heal();
    // A connection attempt that is under way has its 3 s, and the back-off after it is below 1 s by then.
    world.settle(writer, watch, secs(5)).await;
}

#[tokio::test]
async fn behind_a_transaction_pooler_changes_arrive_by_asking() {
    let home = Home::new();
    let postgres = Postgres::start(&home).await;
    // The tables, made without the pooler.
    drop(Provider::new(&home, "first").database(&postgres.url()).start().await);
    let pooler = PgBouncer::start(&home, &postgres).await;
    let url = pooler.url(&postgres);
    let world = World::over(home, postgres, |provider| unguarded(provider).database(&url)).await;
    let (writer, watch) = world.busy().await;
    for _ in 0..3 {
        writer.commits(10, secs(5)).await;
        let newest = world.postgres.revision().await;
        let took = watch.until(newest, secs(5)).await;
        assert!(took < ms(1_700), "{took:?}");
    }
    assert!(world.provider.log().to_lowercase().contains("pool"), "the log says that a pooler is in between");
    world.settle(writer, watch, ms(1_700)).await;
}

#[tokio::test]
async fn a_lost_notification_is_found_by_the_heartbeat() {
    let world = World::for_faults().await;
    world.serve(&Row::http("a.test", ([127, 0, 0, 1], 1).into())).await;
    let source = world.postgres.value("SELECT pg_get_functiondef('ch_bump'::regproc)").await;
    assert!(source.contains("PERFORM pg_notify("), "{source}");
    world.psql(&source.replace("PERFORM pg_notify(", "-- PERFORM pg_notify(")).await;
    for port in 2..5 {
        world.psql(&format!("UPDATE domains SET backend_port = {port}")).await;
        let took = world.provider.until_serves(world.postgres.revision().await, secs(5)).await;
        measured("found", took);
        assert!(took < ms(1_500), "{took:?}");
    }
}

/// Longer than other stories: the comparison runs once a minute.
#[tokio::test]
async fn a_change_with_triggers_off_is_found_by_comparing() {
    let world = World::for_faults().await;
    world.serve(&Row::http("a.test", ([127, 0, 0, 1], 1).into())).await;
    let triggers =
        world.psql("SELECT tgname FROM pg_trigger WHERE tgrelid = 'domains'::regclass AND NOT tgisinternal").await;
    let enable: Vec<String> =
        triggers.iter().map(|t| format!("ALTER TABLE domains ENABLE ALWAYS TRIGGER {}", t[0])).collect();
    let change = "ALTER TABLE domains DISABLE TRIGGER ALL; UPDATE domains SET backend_port = 7777";
    world.psql(&format!("{change}; {}", enable.join("; "))).await;
    let ((), took) = until("the change is served", secs(70), async || {
        let text = world.provider.poll().await.text();
        if text.contains("7777") { Ok(()) } else { Err(text.len()) }
    })
    .await;
    measured("found", took);
    assert!(world.provider.count("resync_mismatch_total").await >= 1);
}

#[tokio::test]
async fn a_storm_of_commits_is_a_few_reads_and_the_last_one_wins() {
    let world = World::for_faults().await;
    let (writer, watch) = world.busy().await;
    let began = Instant::now();
    let each = if full() { 2_500 } else { 1_000 };
    let storm = async |n: u32| {
        let client = world.postgres.connect().await;
        for commit in 0..each {
            let port = 1_000 + (commit * 7 + n) % 50_000;
            let sql = format!("UPDATE domains SET backend_port = {port} WHERE domain = 'w{n}.test'");
            client.batch_execute(&sql).await.unwrap();
        }
    };
    tokio::join!(storm(0), storm(1), storm(2), storm(3));
    measured("the storm", began.elapsed());
    let took = watch.until(world.postgres.revision().await, secs(2)).await;
    measured("the last one served", took);
    assert!(world.provider.count("coalesced_total").await >= 1);
    world.settle(writer, watch, secs(2)).await;
}

#[tokio::test]
async fn ten_thousand_rows_in_one_statement_are_one_revision() {
    let world = World::for_faults().await;
    let (writer, watch) = world.busy().await;
    writer.stop().await;
    let before = world.postgres.revision().await;
    for change in [
        "INSERT INTO domains (domain, tls_mode, backend_host, backend_port) \
         SELECT 'x' || n || '.bulk.test', 'none', '127.0.0.1', 80 FROM generate_series(1, 10000) n",
        "UPDATE domains SET backend_port = 81 WHERE domain LIKE '%.bulk.test'",
    ] {
        world.psql(change).await;
        let took = watch.until(world.postgres.revision().await, secs(20)).await;
        measured("10,000 rows served", took);
        assert!(took < BULK, "{took:?}");
    }
    assert_eq!(world.postgres.revision().await, before + 2);
    watch.audit(&world.postgres).await;
}

#[tokio::test]
async fn forged_notifications_are_only_hints() {
    let world = World::for_faults().await;
    let (writer, watch) = world.busy().await;
    let lines = world.provider.log().lines().count();
    let client = world.postgres.connect().await;
    let newest = world.postgres.revision().await;
    for n in 0..1_000_u64 {
        let payload = match n % 5 {
            0 => "x; junk".to_owned(),
            1 => "{\"r\":-1,\"t\":\"\"}".to_owned(),
            2 => format!("{{\"r\":{},\"t\":\"{}\"}}", u64::MAX, "a".repeat(36)),
            3 => format!("{{\"r\":{},\"t\":\"00000000-0000-0000-0000-000000000000\"}}", newest + 1_000_000 + n),
            _ => String::new(),
        };
        client.batch_execute(&format!("NOTIFY charliehub_revision, '{payload}'")).await.unwrap();
    }
    writer.commits(5, secs(5)).await;
    world.settle(writer, watch, secs(1)).await;
    assert!(world.provider.count("bad_payload_total").await >= 400);
    let said = world.provider.log().lines().count() - lines;
    assert!(said < 700, "{said} lines for 1,000 forged notifications");
}
