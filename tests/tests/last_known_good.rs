//! What is on disk for the next start: whole or not at all, whatever happens to the disk or to us. Fault matrix 22-25, 28.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use charliehub_tests::{Answer, LittleMemory, Row, SmallDisk, Stop, World, full, measured, ms, secs, until};
use rand::RngExt;

/// A route that nobody asks for.
fn row(name: &str) -> Row {
    Row::http(name, ([127, 0, 0, 1], 1).into())
}

/// A world that has served two revisions one after the other, and these: `snapshot.1` and `snapshot`.
async fn with_snapshots() -> (World, u64, u64) {
    let world = World::for_faults().await;
    let mut kept = [0; 2];
    for (name, revision) in ["a1.test", "a2.test"].into_iter().zip(&mut kept) {
        *revision = world.serve(&row(name)).await;
        until_on_disk(&world, *revision).await;
    }
    (world, kept[0], kept[1])
}

fn snapshot(world: &World) -> PathBuf {
    world.provider.data().join("snapshot")
}

/// The revision of the snapshot on disk, as the header of the file has it; 0 when there is none.
fn on_disk(world: &World) -> u64 {
    let bytes = fs::read(snapshot(world)).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let digits = text.split("\"revision\":").nth(1).unwrap_or_default().split(',').next().unwrap_or_default();
    digits.parse().unwrap_or_default()
}

async fn until_on_disk(world: &World, revision: u64) {
    until(&format!("revision {revision} is on disk"), secs(5), async || {
        let found = on_disk(world);
        if found >= revision { Ok(()) } else { Err(found) }
    })
    .await;
}

/// Starts the provider while its database is away; what it serves then.
async fn boot_alone(world: &mut World) -> Answer {
    world.provider.up().await;
    world.provider.poll().await
}

#[tokio::test]
async fn a_damaged_snapshot_is_passed_over_for_its_predecessor() {
    let (mut world, before, newest) = with_snapshots().await;
    world.provider.stop().await;
    world.postgres.stop(Stop::Fast).await;
    let good = fs::read(snapshot(&world)).unwrap();
    let mut random = rand::rng();
    let mut flipped = good.clone();
    flipped[random.random_range(0..good.len())] ^= 1 << random.random_range(0..8);
    let damages: [(&str, Option<&[u8]>); 5] = [
        ("a flipped bit", Some(&flipped)),
        ("cut to half", Some(&good[..good.len() / 2])),
        ("empty", Some(&[])),
        ("one byte more", Some(&[good.as_slice(), b"x"].concat())),
        ("a directory", None),
    ];
    for (what, bytes) in damages {
        let path = snapshot(&world);
        fs::remove_file(&path).ok();
        match bytes {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            None => fs::create_dir(&path).unwrap(),
        }
        let answer = boot_alone(&mut world).await;
        assert_eq!(answer.status, 200, "{what}: {}", answer.text());
        assert_eq!(answer.revision(), before, "{what}: the predecessor");
        world.provider.kill();
        fs::remove_dir(&path).ok();
        fs::write(&path, &good).unwrap();
    }
    assert_eq!(boot_alone(&mut world).await.revision(), newest, "the good one again");
}

#[tokio::test]
async fn with_both_snapshots_damaged_it_says_so_and_heals_from_the_database() {
    let (mut world, _, newest) = with_snapshots().await;
    world.provider.stop().await;
    world.postgres.stop(Stop::Fast).await;
    for name in ["snapshot", "snapshot.1"] {
        let path = world.provider.data().join(name);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x40;
        fs::write(&path, bytes).unwrap();
    }
    let answer = boot_alone(&mut world).await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    world.postgres.up().await;
    world.provider.until_serves(newest, secs(6)).await;
    until_on_disk(&world, newest).await;
}

#[tokio::test]
async fn a_full_disk_stops_no_change_and_keeps_the_old_snapshot_whole() {
    let home = charliehub_tests::Home::new();
    let disk = SmallDisk::mount(&home, "small", 2);
    let postgres = charliehub_tests::Postgres::start(&home).await;
    let data = disk.path().join("data");
    let mut world = World::over(home, postgres, |provider| provider.data_dir(&data)).await;
    let old = world.serve(&row("a1.test")).await;
    until_on_disk(&world, old).await;
    let ballast = disk.fill();
    world.insert(&row("a2.test")).await;
    let newest = world.postgres.revision().await;
    let took = world.provider.until_serves(newest, secs(5)).await;
    assert!(took < ms(500), "a disk is not between a commit and Traefik: {took:?}");
    world.provider.until_metric("lkg_write_errors_total", secs(5), |v| v >= 1.0).await;
    let ready = world.provider.get("/readyz").await;
    assert_eq!(ready.status, 200, "{}", ready.text());
    world.provider.kill();
    world.postgres.stop(Stop::Fast).await;
    let answer = boot_alone(&mut world).await;
    assert_eq!((answer.status, answer.revision()), (200, old), "the old one is whole");
    fs::remove_file(ballast).unwrap();
    world.postgres.up().await;
    world.provider.until_serves(newest, secs(6)).await;
    let last = world.serve(&row("a3.test")).await;
    until_on_disk(&world, last).await;
}

#[tokio::test]
async fn a_read_only_data_directory_stops_no_change() {
    let home = charliehub_tests::Home::new();
    let disk = SmallDisk::mount(&home, "small", 4);
    let postgres = charliehub_tests::Postgres::start(&home).await;
    let data = disk.path().join("data");
    let world = World::over(home, postgres, |provider| provider.data_dir(&data)).await;
    let old = world.serve(&row("a1.test")).await;
    until_on_disk(&world, old).await;
    disk.read_only(true);
    world.serve(&row("a2.test")).await;
    world.provider.until_metric("lkg_write_errors_total", secs(5), |v| v >= 1.0).await;
    disk.read_only(false);
}

#[tokio::test]
async fn killed_again_and_again_while_it_writes_it_never_reads_half() {
    let mut world = World::for_faults().await;
    let (writer, watch) = world.busy().await;
    drop(watch);
    let away = world.postgres.url_at([127, 0, 0, 1].into(), 1);
    let here = world.postgres.url();
    for _ in 0..if full() { 50 } else { 10 } {
        let before = world.postgres.revision().await;
        until_on_disk(&world, before).await;
        tokio::time::sleep(ms(rand::rng().random_range(20..250))).await;
        let written = on_disk(&world);
        world.provider.kill();
        world.provider.change("database", "url", &format!("\"{away}\""));
        let answer = boot_alone(&mut world).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(answer.revision() >= written, "revision {} is older than {written} on disk", answer.revision());
        world.provider.kill();
        world.provider.change("database", "url", &format!("\"{here}\""));
        world.provider.up().await;
        world.provider.until_serves(before, secs(5)).await;
    }
    writer.stop().await;
    let watch = world.provider.watch();
    watch.until(world.postgres.revision().await, secs(5)).await;
    watch.audit(&world.postgres).await;
}

#[tokio::test]
async fn killed_a_hundred_times_under_load_it_is_back_in_two_seconds_and_skips_nothing() {
    let mut world = World::for_faults().await;
    let (writer, watch) = world.busy().await;
    let mut slowest = Duration::ZERO;
    for _ in 0..if full() { 100 } else { 20 } {
        tokio::time::sleep(ms(rand::rng().random_range(0..300))).await;
        world.provider.kill();
        let newest = world.postgres.revision().await;
        let began = Instant::now();
        world.provider.launch();
        until("the newest revision after a kill", secs(5), async || {
            let answer = world.provider.try_get("/traefik").await.map_err(|e| e.to_string())?;
            assert!(answer.status == 200, "a start with a last-known-good never fails: {}", answer.text());
            if answer.revision() >= newest { Ok(()) } else { Err(answer.revision().to_string()) }
        })
        .await;
        slowest = slowest.max(began.elapsed());
    }
    measured("the slowest start", slowest);
    assert!(slowest < secs(2), "{slowest:?}");
    let written = writer.stop().await;
    watch.until(world.postgres.revision().await, secs(5)).await;
    let compared = watch.audit_bodies(&world.postgres, |_| true).await;
    println!("{written:?}; {compared} bodies compared");
}

/// It refuses the large config by name, and takes what fits again; what Traefik gets is whole, and nobody dies.
#[tokio::test]
async fn short_of_memory_it_serves_what_it_has() {
    // Before the world, so that it outlives the provider: a group with a process in it cannot be removed.
    let Some(memory) = LittleMemory::new(64) else {
        println!("skipped: this machine lets nobody limit memory");
        return;
    };
    let mut world = World::for_faults().await;
    let small = world.serve(&row("a1.test")).await;
    until_on_disk(&world, small).await;
    memory.confine(world.provider.pid());
    world
        .psql(
            "INSERT INTO domains (domain, tls_mode, backend_host, backend_port) \
             SELECT 'x' || n || '.bulk.test', 'none', '127.0.0.1', 80 FROM generate_series(1, 100000) n",
        )
        .await;
    let began = Instant::now();
    while began.elapsed() < secs(12) {
        assert!(!world.provider.exited(), "killed after {:?}", began.elapsed());
        let answer = world.provider.poll().await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(answer.text().contains("a1.test"));
        tokio::time::sleep(ms(100)).await;
    }
    let ready = world.provider.get("/readyz").await.text();
    assert!(ready.contains("rows are too large for the memory limit"), "{ready}");
    world.psql("DELETE FROM domains WHERE domain LIKE '%.bulk.test'").await;
    world.provider.until_serves(world.postgres.revision().await, secs(20)).await;
    let ready = world.provider.get("/readyz").await.text();
    assert!(!ready.contains("too large"), "{ready}");
}
