//! PostgreSQL itself hangs, restarts, is killed, away for long, not there at the start, or full. Fault matrix 4-8, 21.

use std::time::Instant;

use charliehub_tests::{
    Home, Options, Postgres, Provider, Row, Signal, SmallDisk, Stop, World, full, measured, ms, secs, unguarded, until,
};

#[tokio::test]
async fn a_postmaster_that_hangs_stops_nothing_that_is_connected() {
    let world = World::for_faults().await;
    let client = world.postgres.connect().await;
    let (writer, watch) = world.busy().await;
    world.postgres.signal(Signal::STOP);
    let began = Instant::now();
    while began.elapsed() < secs(5) {
        writer.commits(10, secs(5)).await;
        let newest: i64 = client.query_one("SELECT n FROM revision", &[]).await.unwrap().get(0);
        watch.until(newest.try_into().unwrap(), secs(1)).await;
    }
    world.postgres.signal(Signal::CONT);
    world.settle(writer, watch, secs(1)).await;
}

#[tokio::test]
async fn a_fast_restart_loses_nothing() {
    restart(Stop::Fast).await;
}

#[tokio::test]
async fn a_crash_and_recovery_loses_nothing() {
    restart(Stop::Immediate).await;
}

async fn restart(how: Stop) {
    let mut world = World::for_faults().await;
    let (writer, watch) = world.busy().await;
    for _ in 0..2 {
        world.postgres.restart(how).await;
        writer.commits(10, secs(10)).await;
    }
    world.settle(writer, watch, secs(2)).await;
}

#[tokio::test]
async fn a_killed_postmaster_that_is_started_again_is_followed_again() {
    let mut world = World::for_faults().await;
    let (writer, watch) = world.busy().await;
    world.postgres.kill();
    world.postgres.up().await;
    writer.commits(10, secs(10)).await;
    world.settle(writer, watch, secs(5)).await;
}

#[tokio::test]
async fn while_the_database_is_away_what_is_known_is_served_and_its_age_shown() {
    let mut world = World::for_faults().await;
    let (writer, watch) = world.busy().await;
    world.postgres.stop(Stop::Fast).await;
    world.provider.until_metric("database_connected", ms(3_500), |v| v == 0.0).await;
    let before = world.provider.metric("snapshot_age_seconds").await.expect("its age");
    let away = if full() { secs(120) } else { secs(4) };
    world.provider.until_metric("snapshot_age_seconds", away + secs(5), |v| v >= before + away.as_secs_f64()).await;
    assert_eq!(world.provider.poll().await.status, 200);
    let ready = world.provider.get("/readyz").await;
    assert_eq!(ready.status, 200, "{}", ready.text());
    assert!(ready.text().len() > 2, "it says that the database is away");
    let refused = world.post(&Row::http("late.test", ([127, 0, 0, 1], 1).into())).await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(!refused.header("retry-after").is_empty(), "a writer is told when to come back");
    world.postgres.up().await;
    world.settle(writer, watch, secs(6)).await;
}

#[tokio::test]
async fn a_start_without_the_database_serves_the_last_known_good_at_once() {
    let mut world = World::for_faults().await;
    let (writer, watch) = world.busy().await;
    writer.stop().await;
    let token = world.provider.token("traefik").await;
    let newest = world.postgres.revision().await;
    watch.until(newest, secs(5)).await;
    let before = world.provider.poll().await;
    world.provider.stop().await;
    world.postgres.stop(Stop::Fast).await;
    let began = Instant::now();
    world.provider.launch();
    let authorization = format!("Bearer {token}");
    let (answer, _) = until("the last known good is served to Traefik's own token", secs(5), async || {
        let headers = [("authorization", authorization.as_str())];
        let mut connection = charliehub_tests::Connection::open(&world.home, world.provider.address())
            .await
            .map_err(|e| e.to_string())?;
        let answer = connection.send(hyper::Method::GET, "/traefik?instance=a", &headers, "").await;
        let answer = answer.map_err(|e| e.to_string())?;
        if answer.status == 200 { Ok(answer) } else { Err(format!("{} {}", answer.status, answer.text())) }
    })
    .await;
    measured("served after the start", began.elapsed());
    assert!(began.elapsed() < secs(1), "{:?}", began.elapsed());
    assert_eq!((answer.revision(), &answer.body), (newest, &before.body));
    let ready = world.provider.get("/readyz").await;
    assert_eq!(ready.status, 200, "{}", ready.text());
    assert!(ready.text().contains("stale"), "{}", ready.text());
    world.postgres.up().await;
    world.psql("UPDATE domains SET backend_port = 4242 WHERE domain = 'w0.test'").await;
    world.provider.until_serves(world.postgres.revision().await, secs(6)).await;
    let ready = world.provider.get("/readyz").await;
    assert!(!ready.text().contains("stale"), "{}", ready.text());
}

#[tokio::test]
async fn a_first_start_without_the_database_says_why_and_heals() {
    let mut world = World::new().await;
    let authorization = format!("Bearer {}", world.provider.token("traefik").await);
    world.postgres.stop(Stop::Fast).await;
    // A new machine: what it has is the database's address, and Traefik has its token.
    let provider = Provider::new(&world.home, "new").database(&world.postgres.url()).start().await;
    let ready = provider.get("/readyz").await;
    assert_eq!(ready.status, 503, "{}", ready.text());
    assert!(ready.text().to_lowercase().contains("database"), "{}", ready.text());
    let mut traefik = provider.connection().await;
    let headers = [("authorization", authorization.as_str())];
    let poll = traefik.send(hyper::Method::GET, "/traefik?instance=a&wait=500ms", &headers, "").await.unwrap();
    assert_eq!(poll.status, 503, "nobody knows whether the token is right: {}", poll.text());
    world.postgres.up().await;
    provider.until_metric("database_connected", secs(6), |v| v >= 1.0).await;
    world.insert(&Row::http("a.test", ([127, 0, 0, 1], 1).into())).await;
    until("the first row is served", secs(2), async || {
        let poll = traefik.send(hyper::Method::GET, "/traefik?instance=a", &headers, "").await;
        let poll = poll.map_err(|e| e.to_string())?;
        if poll.status == 200 { Ok(()) } else { Err(poll.text()) }
    })
    .await;
}

#[tokio::test]
async fn a_database_whose_disk_is_full_refuses_whole_writes_and_heals() {
    let home = Home::new();
    let disk = SmallDisk::mount(&home, "disk", 80);
    let postgres = Postgres::start_with(&home, Options { under: Some(disk.path()), ..Options::default() }).await;
    let mut world = World::over(home, postgres, unguarded).await;
    let (writer, watch) = world.busy().await;
    let ballast = disk.fill();
    until("writes are refused", secs(20), async || {
        let failed = writer.so_far().failed;
        let bulk = "INSERT INTO domains (domain, tls_mode, backend_host, backend_port, notes) SELECT 'f' || n || '.test', \
                    'none', '127.0.0.1', 80, repeat('x', 9000) FROM generate_series(1, 200) n";
        let refused = world.postgres.try_sql(bulk).await.is_err();
        if refused || failed > 0 { Ok(()) } else { Err(failed) }
    })
    .await;
    assert_eq!(world.provider.poll().await.status, 200);
    std::fs::remove_file(ballast).unwrap();
    if world.postgres.try_sql("SELECT 1").await.is_err() {
        world.postgres.stop(Stop::Immediate).await;
        world.postgres.up().await;
    }
    writer.commits(5, secs(10)).await;
    world.settle(writer, watch, secs(2)).await;
    drop(world);
}
