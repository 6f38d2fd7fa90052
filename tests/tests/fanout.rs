//! Many Traefiks on one provider: one commit answers all, a slow one holds nobody back, and storms pass.

use std::time::{Duration, Instant};

use charliehub_tests::{Crowd, Provider, Row, World, measured, ms, raise_open_files, secs, until};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::{sleep, timeout},
};

/// As Traefik asks.
fn request(provider: &Provider, instance: &str, headers: &str) -> Vec<u8> {
    let (address, token) = (provider.address(), provider.admin_token());
    format!(
        "GET /traefik?wait=55s&instance={instance} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\
         {headers}\r\n"
    )
    .into_bytes()
}

/// So many, each with a name of its own, and each with the newest config.
async fn crowd(world: &World, size: usize) -> Crowd {
    let requests = (0..size).map(|n| request(&world.provider, &format!("traefik-{n}"), "Accept-Encoding: gzip\r\n"));
    let mut crowd = Crowd::gather(world.provider.address(), requests);
    crowd.until(world.postgres.revision().await, secs(30)).await;
    crowd
}

async fn configured() -> World {
    raise_open_files();
    // A router for each row: some stories want a large config of few columns.
    let world = World::with(|provider| provider.set("compile", "coalesce", "\"off\"")).await;
    world.serve(&Row::http("a.test", ([127, 0, 0, 1], 1).into())).await;
    world
}

/// Changes the one route; the revision of that.
async fn change(world: &World, port: u16) -> u64 {
    world.psql(&format!("UPDATE domains SET backend_port = {port} WHERE domain = 'a.test'")).await;
    world.postgres.revision().await
}

#[tokio::test]
async fn one_commit_answers_a_thousand_held_polls_and_each_of_them_is_known() {
    const SIZE: usize = 1_000;
    let world = configured().await;
    let mut crowd = crowd(&world, SIZE).await;
    for port in 2..5 {
        let answers = crowd.answers();
        let revision = change(&world, port).await;
        let committed = Instant::now();
        let took = crowd.until(revision, secs(10)).await.saturating_duration_since(committed);
        measured("commit to the last of 1,000 answers", took);
        assert!(took < secs(2), "{took:?}");
        assert_eq!(crowd.answers(), answers + SIZE, "each was answered once");
    }
    assert_eq!((crowd.lost(), crowd.refused()), (0, 0));
    let digest = world.provider.poll().await.header("etag").trim_matches('"').to_owned();
    let written = format!("SELECT count(*) FROM instances WHERE name LIKE 'traefik-%' AND sent_digest = '{digest}'");
    until("table instances has what each was sent", secs(10), async || {
        let count = world.postgres.value(&written).await;
        if count == SIZE.to_string() { Ok(()) } else { Err(count) }
    })
    .await;
}

/// 5 MB that no kernel takes at once, to a client with a small window.
#[tokio::test]
async fn a_reader_of_one_byte_a_second_holds_nobody_back_and_is_hung_up_on() {
    let world = configured().await;
    world
        .psql(
            "INSERT INTO domains (domain, tls_mode, backend_host, backend_port)
             SELECT 'h' || n || '.test', 'default', '10.0.0.1', 80 FROM generate_series(1, 20000) n",
        )
        .await;
    world.provider.until_serves(world.postgres.revision().await, secs(60)).await;
    let mut others = crowd(&world, 50).await;
    let open = world.provider.metric("http_connections").await.expect("a gauge");

    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut slow = socket.connect(world.provider.address()).await.unwrap();
    slow.write_all(&request(&world.provider, "slow", "")).await.unwrap();
    world.provider.until_metric("http_connections", secs(5), |now| now > open).await;
    let began = Instant::now();
    let reading = world.home.tasks().spawn(read_slowly(slow));

    let revision = change(&world, 2).await;
    let committed = Instant::now();
    let took = others.until(revision, secs(20)).await.saturating_duration_since(committed);
    measured("commit to the last answer beside a slow reader", took);
    assert!(took < secs(5), "{took:?}");

    world.provider.until_metric("http_connections", secs(60), |now| now <= open).await;
    let after = began.elapsed();
    assert!(after >= secs(25), "it was given time: {after:?}");
    reading.abort();
    assert_eq!(others.lost(), 0, "nobody else was hung up on");
}

async fn read_slowly(mut stream: TcpStream) {
    let mut byte = [0];
    while stream.read_exact(&mut byte).await.is_ok() {
        sleep(secs(1)).await;
    }
}

#[tokio::test]
async fn a_storm_of_commits_becomes_swaps_and_the_last_is_live_within_a_second() {
    const STORM: Duration = secs(5);
    let world = configured().await;
    let mut crowd = crowd(&world, 100).await;
    let database = world.postgres.connect().await;
    let mut port = 2;
    let mut storm = async |time: Duration| {
        let began = Instant::now();
        let mut commits = 0_u32;
        while began.elapsed() < time {
            port = port % 60_000 + 1;
            let update = "UPDATE charliehub.domains SET backend_port = $1 WHERE domain = 'a.test'";
            database.execute(update, &[&port]).await.unwrap();
            commits += 1;
        }
        commits
    };
    storm(secs(2)).await; // what it needs for a storm at all
    let (before, swaps) = (resident(world.provider.pid()), swaps(&world).await);
    let commits = storm(STORM).await;
    let ended = Instant::now();
    let last = crowd.until(world.postgres.revision().await, secs(10)).await.saturating_duration_since(ended);
    let (after, swaps) = (resident(world.provider.pid()), swaps_since(&world, swaps).await);
    println!("{commits} commits in {STORM:?}, {swaps} swaps; {before} KiB resident before, {after} after");
    measured("last commit to the last answer", last);
    assert!(last < secs(1), "{last:?}");
    assert!(swaps <= u64::from(commits), "{swaps} swaps for {commits} commits");
    assert!(after < before + 16 * 1_024, "memory grew from {before} to {after} KiB");
    assert_eq!(crowd.lost(), 0);
}

async fn swaps(world: &World) -> u64 {
    world.provider.count("notify_to_swap_seconds_count").await
}

async fn swaps_since(world: &World, before: u64) -> u64 {
    swaps(world).await - before
}

/// KiB.
#[expect(clippy::unwrap_used, reason = "fails as its story does")]
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test]
async fn after_a_restart_all_come_back_and_are_served() {
    let mut world = configured().await;
    let mut crowd = crowd(&world, 1_000).await;
    world.provider.stop().await;
    world.provider.up().await;
    until_back(&world, &mut crowd).await;
}

/// As systemd holds it: who comes while nobody accepts waits in the kernel.
#[tokio::test]
async fn while_the_socket_is_held_a_restart_refuses_none_of_a_thousand() {
    let mut world = configured().await;
    world.provider.stop().await;
    world.provider.hold_socket();
    world.provider.up().await;
    let mut crowd = crowd(&world, 1_000).await;
    world.provider.stop().await;
    world.provider.up().await;
    until_back(&world, &mut crowd).await;
    assert_eq!(crowd.refused(), 0, "a connection was refused");
}

/// Each of a thousand lost its connection once, and gets what is committed now.
async fn until_back(world: &World, crowd: &mut Crowd) {
    let revision = change(world, 9).await;
    let began = Instant::now();
    let took = crowd.until(revision, secs(30)).await.saturating_duration_since(began);
    measured("a commit after the restart, to the last answer", took);
    assert!(crowd.lost() >= 1_000, "{} lost their connections", crowd.lost());
    let held = timeout(ms(300), async { until_answered(crowd, crowd.answers()).await }).await;
    assert!(held.is_err(), "they are held again, and do not ask in vain");
}

async fn until_answered(crowd: &Crowd, before: usize) {
    while crowd.answers() == before {
        sleep(ms(5)).await;
    }
}
