//! Two PostgreSQLs by the handbook's own files and commands: the standby takes over, the old primary comes back as one.
//! What is lost where nobody waits for the standby is in `failover`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "fails as its stories do")]

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use charliehub_tests::{Home, Postgres, Row, Signal, Stop, World, measured, ms, secs, unguarded, until};

/// The primary, its standby, and the commands.
struct Pair {
    script: PathBuf,
    passwords: String,
    home: Home,
}

impl Pair {
    /// As `pair.sh` runs on one of both; what it said.
    async fn say(&self, on: &Postgres, args: &[&str]) -> Result<String, String> {
        let name = format!("node_{}", on.host_and_port().1);
        let more = [("PGPASSFILE", self.passwords.as_str()), ("NAME", name.as_str())];
        let output = on.program(&self.script, args, &more).await;
        if output.code == Some(0) { Ok(output.out + &output.err) } else { Err(output.err) }
    }

    async fn must(&self, on: &Postgres, args: &[&str]) -> String {
        self.say(on, args).await.unwrap_or_else(|error| panic!("{args:?}: {error}"))
    }
}

fn at(postgres: &Postgres) -> String {
    format!("127.0.0.1:{}", postgres.host_and_port().1)
}

/// Both, set up as the handbook has it, and a provider that knows both.
async fn pair() -> (World, Postgres, Pair) {
    let home = Home::new();
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/postgres");
    let put = |name: &str, text: String, mode: u32| -> PathBuf {
        let path = home.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    let shipped = |name: &str| std::fs::read_to_string(deploy.join(name)).unwrap();
    let script = put("pair.sh", shipped("pair.sh"), 0o755);
    let settings = put("charliehub.conf", shipped("charliehub.conf"), 0o644);

    let mut primary = Postgres::start(&home).await;
    primary
        .sql("CREATE ROLE charliehub LOGIN PASSWORD 'of the provider'; ALTER DATABASE charliehub OWNER TO charliehub")
        .await;
    primary.stop(Stop::Fast).await;
    // Another user than postgres tells the story, so nobody is asked who comes by the socket.
    let rules = shipped("pg_hba.conf").replace("@PROVIDER@", "127.0.0.1/32").replace("@OTHER@", "127.0.0.1/32");
    std::fs::write(primary.data().join("pg_hba.conf"), rules.replace("peer", "trust")).unwrap();
    let main = primary.data().join("postgresql.conf");
    let text = std::fs::read_to_string(&main).unwrap();
    std::fs::write(&main, format!("{text}\ninclude '{}'\n", settings.display())).unwrap();
    primary.up().await;

    let mut standby = Postgres::beside(&home);
    let passwords = put("passwords", "*:*:*:charliehub_replication:of a standby\n".to_owned(), 0o644);
    primary.give(&passwords);
    std::fs::set_permissions(&passwords, std::fs::Permissions::from_mode(0o600)).unwrap();
    let pair = Pair { script, passwords: passwords.display().to_string(), home: home.clone() };
    pair.must(&primary, &["prepare"]).await;
    pair.must(&standby, &["clone", &at(&primary)]).await;
    standby.adopt().await;

    let url = format!(
        "postgres://charliehub:of%20the%20provider@{},{}/charliehub?target_session_attrs=read-write",
        at(&primary),
        at(&standby)
    );
    let world = World::over(home, primary, |provider| unguarded(provider).database(&url)).await;
    (world, standby, pair)
}

async fn until_streams(pair: &Pair, primary: &Postgres) {
    until("the standby streams", secs(20), async || {
        let status = pair.say(primary, &["status"]).await?;
        if status.contains("streaming") && !status.contains("nobody reads it") { Ok(()) } else { Err(status) }
    })
    .await;
}

#[tokio::test]
async fn the_standby_takes_over_and_the_old_primary_comes_back_as_one() {
    let (mut world, standby, pair) = pair().await;
    until_streams(&pair, &world.postgres).await;
    let status = pair.must(&standby, &["status"]).await;
    assert!(status.contains("standby of 127.0.0.1"), "{status}");
    let traefik = world.traefik("hub2").await;
    let hello = world.backend("hello").await;
    world.insert(&Row::http("first.test", hello.address())).await;
    traefik.until_answers("http://first.test/", "hello").await;
    let refused = pair.say(&standby, &["promote"]).await.unwrap_err();
    assert!(refused.contains("still answers"), "two primaries are not made by mistake: {refused}");

    let watch = world.provider.watch();
    let revision = world.postgres.revision().await;
    watch.until(revision, secs(5)).await;
    world.postgres.caught_up(&standby).await;
    world.postgres.kill();
    let answer = world.provider.poll().await;
    assert_eq!((answer.status, answer.revision()), (200, revision), "the last known good goes on");
    pair.must(&standby, &["promote"]).await;
    let mut old = std::mem::replace(&mut world.postgres, standby);
    let ((), took) = until("a change is committed and live", secs(30), async || {
        world.postgres.try_sql(&Row::http("second.test", hello.address()).insert()).await.map(drop).or_else(
            |error| {
                if error.code().is_some_and(|code| code.code() == "23505") { Ok(()) } else { Err(error.to_string()) }
            },
        )?;
        let answer = traefik.client().get("http://second.test/").await.map_err(|error| error.to_string())?;
        if answer.status == 200 { Ok(()) } else { Err(answer.status.to_string()) }
    })
    .await;
    measured("from the promotion to a live change", took);
    assert_eq!(traefik.get("http://first.test/").await.text(), "hello");

    // The old one died with a kill -9: it is rewound and streams from the new one.
    pair.must(&old, &["rejoin", &at(&world.postgres)]).await;
    old.adopt().await;
    until_streams(&pair, &world.postgres).await;
    world.postgres.caught_up(&old).await;
    assert_eq!(old.value("SELECT count(*) FROM domains").await, "2");

    // And back, this time in order.
    world.postgres.stop(Stop::Fast).await;
    pair.must(&old, &["promote"]).await;
    let _second = std::mem::replace(&mut world.postgres, old);
    world.insert(&Row::http("third.test", hello.address())).await;
    traefik.until_answers("http://third.test/", "hello").await;
    watch.until(world.postgres.revision().await, secs(10)).await;
    assert_eq!(watch.errors(), Vec::<String>::new(), "no poll was refused");
    assert_eq!(world.provider.count("forks_total").await, 0, "and nothing was lost");
    assert!(pair.home.join("pair.sh").exists());
}

#[tokio::test]
async fn with_a_synchronous_standby_no_acknowledged_commit_is_lost() {
    let (mut world, standby, pair) = pair().await;
    until_streams(&pair, &world.postgres).await;
    pair.must(&world.postgres, &["synchronous", "on"]).await;
    until("commits wait for the standby", secs(10), async || {
        let status = pair.say(&world.postgres, &["status"]).await?;
        if status.contains("quorum") { Ok(()) } else { Err(status) }
    })
    .await;

    // A standby that has not got it: the commit is not told to be one, and nobody sees it.
    let receiver: u32 = standby.value("SELECT pid FROM pg_stat_wal_receiver").await.parse().unwrap();
    standby.signal_backend(receiver, Signal::STOP);
    let insert = Row::http("waits.test", ([127, 0, 0, 1], 9).into()).insert();
    let early = tokio::time::timeout(ms(700), world.postgres.try_sql(&insert)).await;
    let seen = world.postgres.value("SELECT count(*) FROM domains").await;
    standby.signal_backend(receiver, Signal::CONT);
    assert!(early.is_err() && seen == "0", "it was acknowledged without the standby: {early:?}, {seen} seen");

    let watch = world.provider.watch();
    let client = world.postgres.connect().await;
    let mut acknowledged = Vec::new();
    for n in 0.. {
        if n == 40 {
            world.postgres.kill();
        }
        let name = format!("a{n}.test");
        match client.batch_execute(&Row::http(&name, ([127, 0, 0, 1], 9).into()).insert()).await {
            Ok(()) => acknowledged.push(name),
            Err(_) => break,
        }
    }
    assert!(acknowledged.len() >= 40, "{acknowledged:?}");
    pair.must(&standby, &["promote"]).await;
    world.postgres = standby;
    let there: Vec<String> = world.psql("SELECT domain FROM domains").await.into_iter().flatten().collect();
    let lost: Vec<&String> = acknowledged.iter().filter(|name| !there.contains(name)).collect();
    assert!(lost.is_empty(), "{lost:?} were acknowledged");
    world.insert(&Row::http("after.test", ([127, 0, 0, 1], 9).into())).await;
    watch.until(world.postgres.revision().await, secs(20)).await;
    assert_eq!(world.provider.count("forks_total").await, 0);
    watch.audit(&world.postgres).await;
}
