//! Faults of every kind in a random order, and at the end one truth: the rows, what is served, what Traefik runs.

use std::time::Instant;

use charliehub_tests::{Row, Signal, Stop, World, full, measured, ms, secs, until};
use rand::{RngExt, SeedableRng, rngs::StdRng};

#[tokio::test]
async fn after_a_random_mix_of_faults_the_rows_the_config_and_traefik_agree() {
    let seed: u64 = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random);
    println!("SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut world = World::for_faults().await;
    let mut traefik = world.traefik("hub2").await;
    let (writer, watch) = world.busy().await;
    let lasting = if full() { secs(600) } else { secs(30) };
    let began = Instant::now();
    let mut told = Vec::new();
    while began.elapsed() < lasting {
        let pause = ms(random.random_range(50..1_500));
        let fault = random.random_range(0..11);
        told.push(fault);
        match fault {
            0 => drop(world.postgres.try_sql(&of_the_provider("pg_terminate_backend(pid)")).await),
            1 => world.postgres.restart(Stop::Fast).await,
            2 => world.postgres.restart(Stop::Immediate).await,
            3 => {
                world.postgres.kill();
                tokio::time::sleep(pause).await;
                world.postgres.up().await;
            }
            4 => {
                world.postgres.signal(Signal::STOP);
                tokio::time::sleep(pause).await;
                world.postgres.signal(Signal::CONT);
            }
            5 => {
                let pids = world.postgres.try_sql(&of_the_provider("pid")).await.unwrap_or_default();
                for pid in pids.iter().filter_map(|row| row[0].parse().ok()) {
                    world.postgres.signal_backend(pid, Signal::STOP);
                    tokio::time::sleep(pause).await;
                    world.postgres.signal_backend(pid, Signal::CONT);
                }
            }
            6 => {
                world.provider.kill();
                world.provider.up().await;
            }
            7 => {
                world.provider.signal(Signal::STOP);
                tokio::time::sleep(pause).await;
                world.provider.signal(Signal::CONT);
            }
            8 => {
                traefik.kill();
                traefik.up().await;
            }
            9 => drop(world.postgres.try_sql("NOTIFY charliehub_revision, 'junk'").await),
            _ => {
                world.provider.stop().await;
                world.provider.up().await;
            }
        }
        tokio::time::sleep(pause).await;
    }
    println!("faults: {told:?}; {:?}", writer.so_far());
    writer.stop().await;
    let ended = Instant::now();
    world.insert(&Row::http("the-end.test", ([127, 0, 0, 1], 1).into())).await;
    let newest = world.postgres.revision().await;
    world.provider.until_serves(newest, secs(5)).await;
    measured("the newest revision is served", ended.elapsed());
    let served = world.provider.poll().await.json();
    let digest = &served["http"]["middlewares"]["charliehub-revision"]["headers"]["customResponseHeaders"];
    // A provider that died several times makes Traefik back off up to some 20 s.
    until("Traefik runs what is served", secs(30), async || {
        let running = traefik.api("/api/http/middlewares/charliehub-revision@http").await;
        if running["headers"]["customResponseHeaders"] == *digest { Ok(()) } else { Err(running) }
    })
    .await;
    measured("Traefik runs it", ended.elapsed());
    watch.until(newest, secs(5)).await;
    let compared = watch.audit_bodies(&world.postgres, |_| true).await;
    println!("{compared} bodies compared");
}

fn of_the_provider(what: &str) -> String {
    format!("SELECT {what} FROM pg_stat_activity WHERE application_name LIKE 'charliehub-provider%' LIMIT 1")
}
