//! The source of truth in one file: taken while somebody writes, brought back whole or not at all, noticed by who runs.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "fails as its stories do")]

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use charliehub_tests::{
    Home, Postgres, Provider, Row, Signal, SmallDisk, World, full, is_root, measured, secs, unguarded, until,
};
use serde_json::Value;

/// One of each that a row can be, and what stands around the rows.
const ROWS: &str = r#"
    INSERT INTO sites (name, networks) VALUES ('uk', '{10.44.0.0/16}');
    INSERT INTO policies (agent, body) VALUES ('hub2', '{"disks": [{"path": "/"}]}');
    INSERT INTO peers (name, public_key, addresses) VALUES ('anna', 'Zm9vYmFyZm9vYmFyZm9vYmFyZm9vYmFyZm9vYmFyMTI=', '{10.99.0.2,fd99::2}');
    INSERT INTO fragments (kind, name, body, notes) VALUES ('http.middleware', 'odd', '{"headers": {
        "customResponseHeaders": {"X-A": "tab\tand \\ and \"quote\""}}}', E'two\nlines, a tab\t, \\N and ü');
    INSERT INTO domains (domain, tls_mode, backends) VALUES ('many.test', 'none',
        '[{"host": "127.0.0.1", "port": 1}, {"host": "127.0.0.2", "port": 2, "weight": 3}]');
    INSERT INTO domains (domain, service_type, redirect_to) VALUES ('old.test', 'redirect', 'https://new.test/');
    INSERT INTO domains (domain, backend_host, backend_port, access_tier, ip_allowlist, middlewares, labels)
        VALUES ('office.test', '10.44.0.7', 80, 'restricted', '{10.44.0.0/16}', '{odd}', '{"team": "edge"}');
    INSERT INTO domains (domain, protocol, tcp_entrypoint, tls_mode, backend_host, backend_port)
        VALUES ('mqtt.test', 'tcp', 'mqtt', 'default', '10.44.0.8', 1883);
    INSERT INTO domains (domain, backend_host, backend_port, status) VALUES ('off.test', '10.44.0.9', 80, 'disabled');
    UPDATE domains SET status = 'maintenance', maintenance_message = 'back soon' WHERE domain = 'many.test';
    DELETE FROM domains WHERE domain = 'off.test';
    INSERT INTO agents (name, reported_at, boot, version) VALUES ('hub2', now(), gen_random_uuid(), '1');
    INSERT INTO agent_transitions (agent, "check", target, was, is_now, text, at) VALUES ('hub2', 'disk', '/', 'ok', 'warning', 'full', now());
    INSERT INTO rotations (id, agent, site, interface, old_key, new_key, phase, follower) VALUES (gen_random_uuid(), 'hub2', 'uk', 'wg-uk',
        encode(sha256('old'), 'base64'), encode(sha256('new'), 'base64'), 'going', 'uk')"#;

/// What `tar` finds in it.
fn manifest(file: &Path) -> Value {
    let tar = Command::new("tar").args(["-xzOf"]).arg(file).arg("manifest.json").output().unwrap();
    assert!(tar.status.success(), "{tar:?}");
    serde_json::from_slice(&tar.stdout).unwrap()
}

/// Another place with a database of its own, where the same configuration is compiled.
async fn another(world: &World) -> (Postgres, Provider) {
    let postgres = Postgres::start(&world.home).await;
    let same = format!("\"http://{}\"", world.provider.address());
    let provider = Provider::new(&world.home, "another").database(&postgres.url()).set("compile", "self_url", &same);
    (postgres, unguarded(provider))
}

async fn must_not(provider: &Provider, args: &[&str], why: &str) {
    let output = provider.run(args).await;
    assert!(output.code == Some(1) && output.err.contains(why) && output.out.is_empty(), "{args:?}, {why}: {output:?}");
}

#[tokio::test]
async fn what_was_backed_up_while_somebody_wrote_comes_back_whole() {
    let world = World::for_faults().await;
    world.psql(ROWS).await;
    until("a configuration is kept, and pinned", secs(20), async || {
        let pin = "UPDATE snapshots SET pinned = true WHERE id = (SELECT max(id) FROM snapshots) RETURNING id";
        if world.psql(pin).await.is_empty() { Err("none yet") } else { Ok(()) }
    })
    .await;
    let admin = world.provider.token("admin").await;
    let (writer, watch) = world.busy().await;
    let file = world.home.join("b.tar.gz");
    let path = file.to_str().unwrap();
    writer.commits(5, secs(20)).await;
    let said = world.provider.must(&["backup", path]).await;
    assert_eq!(said.trim(), path);
    writer.commits(5, secs(20)).await;
    world.settle(writer, watch, secs(10)).await;
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let about = manifest(&file);
    let revision = about["revision"].as_i64().unwrap();
    assert!(revision < i64::try_from(world.postgres.revision().await).unwrap(), "it went on meanwhile");
    assert_eq!(about["broken"], serde_json::json!([]), "{about:#}");

    let (postgres, mut provider) = another(&world).await;
    let told = provider.must(&["restore", path, "--dry-run"]).await;
    assert!(told.contains("whole") && told.contains("agent_transitions"), "{told}");
    assert_eq!(postgres.value("SELECT coalesce(to_regnamespace('charliehub')::text, 'none')").await, "none");
    let told = provider.must(&["restore", path]).await;
    assert!(told.contains("as in the backup"), "{told}");

    for table in ["domains", "fragments", "sites", "policies", "peers"] {
        let then = format!("SELECT to_jsonb(t)::text FROM {table}_as_of({revision}) t ORDER BY id");
        let now = format!("SELECT to_jsonb(t)::text FROM {table} t ORDER BY id");
        assert_eq!(postgres.sql(&now).await, world.postgres.sql(&then).await, "{table} of revision {revision}");
    }
    for sql in [
        format!("SELECT h::text FROM history h WHERE revision <= {revision} ORDER BY revision, seq"),
        format!("SELECT r::text FROM revisions r WHERE revision <= {revision} ORDER BY revision"),
        format!("SELECT encode(hash, 'hex') FROM seals WHERE revision <= {revision} ORDER BY revision"),
        "SELECT t::text FROM agent_transitions t".to_owned(),
        "SELECT r::text FROM rotations r".to_owned(),
        "SELECT role || encode(hash, 'hex') FROM tokens ORDER BY id".to_owned(),
        "SELECT s.digest, encode(b.body, 'hex') FROM snapshots s JOIN snapshot_bodies b USING (digest) WHERE pinned"
            .to_owned(),
    ] {
        let (came, was) = (postgres.sql(&sql).await, world.postgres.sql(&sql).await);
        assert!(!was.is_empty() && came == was, "{sql}: {} of {}", came.len(), was.len());
    }
    provider.must(&["audit-report", "--verify"]).await;

    // It serves the digest of the backup, lets in who was let in, and goes on from there.
    provider.speak_as(&admin);
    provider.up().await;
    provider.until_serves(u64::try_from(revision).unwrap(), secs(20)).await;
    assert!(provider.poll().await.text().contains(about["digest"].as_str().unwrap()), "the same digest is served");
    assert_eq!(provider.get("/api/domains").await.status, 200, "a token works");
    let early = ["export", "--revision", "3", "--format", "json"];
    assert_eq!(provider.must(&early).await, world.provider.must(&early).await, "history is readable");
    postgres.sql(&Row::http("next.test", ([127, 0, 0, 1], 9).into()).insert()).await;
    provider.until_serves(u64::try_from(revision + 1).unwrap(), secs(10)).await;
    provider.must(&["audit-report", "--verify"]).await;
}

#[tokio::test]
async fn a_damaged_byte_anywhere_is_refused_and_so_is_what_is_no_backup() {
    let world = World::new().await;
    world.psql(ROWS).await;
    let file = world.home.join("b.tar.gz");
    world.provider.must(&["backup", file.to_str().unwrap()]).await;
    let whole = std::fs::read(&file).unwrap();
    let (postgres, provider) = another(&world).await;
    let bad = world.home.join("bad.tar.gz");
    let path = bad.to_str().unwrap();
    let end = whole.len();
    let places = (0..24).map(|n| n * (end - 1) / 23).chain([9, 30, end - 60, end - 20]);
    for at in places {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        std::fs::write(&bad, bytes).unwrap();
        must_not(&provider, &["restore", path], if at < 29 { "no backup" } else { "damaged or cut short" }).await;
    }
    for at in [0, 20, 100, end / 2, end - 1] {
        std::fs::write(&bad, &whole[..at]).unwrap();
        must_not(&provider, &["restore", path], if at < 29 { "it is no backup" } else { "cut short" }).await;
    }
    std::fs::write(&bad, "-- PostgreSQL database dump\n".repeat(100)).unwrap();
    must_not(&provider, &["restore", path], "it is no backup").await;
    must_not(&provider, &["restore", "/nowhere/b.tar.gz"], "is the path right?").await;
    must_not(&provider, &["backup", path], "is there and is no backup").await;
    must_not(&provider, &["backup", "--keep", "3", path], "--keep is for a directory").await;
    assert_eq!(postgres.value("SELECT coalesce(to_regnamespace('charliehub')::text, 'none')").await, "none");
}

#[tokio::test]
async fn a_killed_restore_leaves_an_empty_database_empty() {
    let world = World::for_faults().await;
    world.psql(&many(2_000)).await;
    let file = world.home.join("b.tar.gz");
    let path = file.to_str().unwrap();
    world.provider.must(&["backup", path]).await;
    let (postgres, provider) = another(&world).await;
    let sessions = "SELECT coalesce(max(query), '') FROM pg_stat_activity
                    WHERE application_name = 'charliehub-provider command' AND xact_start IS NOT NULL";
    // In its schema, in its rows, in what it reads back.
    for at in ["CREATE", "COPY charliehub", "TO STDOUT"] {
        let mut restore = provider.begin(&["restore", path]);
        until(&format!("it is at {at}"), secs(30), async || {
            assert!(restore.exit().is_none(), "it ended before it was at {at}: {}", restore.log());
            let query = postgres.value(sessions).await;
            if query.contains(at) { Ok(query) } else { Err(query) }
        })
        .await;
        restore.signal(Signal::KILL);
        restore.ended(secs(5)).await;
        until("its session is gone", secs(20), async || {
            if postgres.value(sessions).await.is_empty() { Ok(()) } else { Err("there") }
        })
        .await;
        assert_eq!(
            postgres.value("SELECT coalesce(to_regnamespace('charliehub')::text, 'none')").await,
            "none",
            "{at}"
        );
    }
    provider.must(&["restore", path]).await;
    assert_eq!(postgres.value("SELECT count(*) FROM domains").await, "2000");
}

fn many(rows: u32) -> String {
    format!(
        "INSERT INTO domains (domain, backend_host, backend_port, labels) SELECT 'd' || n || '.bulk.test', '10.44.0.7', \
         1 + n % 60000, '{{\"team\": \"edge\"}}' FROM generate_series(1, {rows}) n"
    )
}

#[tokio::test]
async fn a_restore_behind_a_running_provider_is_noticed() {
    let world = World::for_faults().await;
    let kept = world.provider.token("editor").await;
    let (writer, watch) = world.busy().await;
    writer.stop().await;
    let file = world.home.join("b.tar.gz");
    let path = file.to_str().unwrap();
    world.provider.must(&["backup", path]).await;
    let (rows, newest) = ("SELECT domain, backend_port FROM domains ORDER BY 1", world.postgres.revision().await);
    let then = world.psql(rows).await;
    let lost = world.provider.token("editor").await;
    world.psql("UPDATE domains SET backend_port = 5004").await;
    world.psql(&Row::http("later.test", ([127, 0, 0, 1], 9).into()).insert()).await;
    watch.until(newest + 2, secs(10)).await;

    must_not(&world.provider, &["restore", path], "--replace").await;
    world.provider.must(&["restore", path, "--replace"]).await;
    assert_eq!(world.psql(rows).await, then);
    world.provider.until_metric("forks_total", secs(10), |v| v >= 1.0).await;
    until("the restored rows are served", secs(10), async || {
        let served = world.provider.poll().await.text();
        if served.contains(":5004") || served.contains("later.test") { Err(served) } else { Ok(()) }
    })
    .await;
    for (token, status) in [(&kept, 200), (&lost, 401)] {
        until("tokens are those of the backup", secs(10), async || {
            let authorization = format!("Bearer {token}");
            let headers = [("authorization", authorization.as_str())];
            let answer = world.provider.connection().await.send(hyper::Method::GET, "/api/domains", &headers, "").await;
            let found = answer.map_err(|error| error.to_string())?.status;
            if found == status { Ok(()) } else { Err(found.to_string()) }
        })
        .await;
    }
    assert_eq!(watch.errors(), Vec::<String>::new(), "serving never stopped");
    let branch = world.provider.watch();
    world.psql("UPDATE domains SET backend_port = 6000 WHERE domain = 'w0.test'").await;
    branch.until(world.postgres.revision().await, secs(5)).await;
    branch.audit(&world.postgres).await;

    // What was replaced was kept, and is the way back.
    let replaced: Vec<PathBuf> = listed(&world.provider.data().join("backups"));
    assert!(replaced.len() == 1 && replaced[0].to_str().unwrap().contains("replaced-"), "{replaced:?}");
    world.provider.must(&["restore", replaced[0].to_str().unwrap(), "--replace"]).await;
    until("what was there is served again", secs(10), async || {
        let served = world.provider.poll().await.text();
        if served.contains("later.test") && served.contains(":5004") { Ok(()) } else { Err(served) }
    })
    .await;
    world.provider.must(&["audit-report", "--verify"]).await;
}

/// Another session reads a table that is locked late, and then writes into one that is locked early.
#[tokio::test]
async fn a_restore_lets_those_go_first_who_lock_in_another_order() {
    let world = World::for_faults().await;
    let file = world.home.join("b.tar.gz");
    let path = file.to_str().unwrap();
    world.provider.must(&["backup", path]).await;
    let other = world.postgres.connect().await;
    // It does not look for the deadlock itself, so the restore has to give way.
    other.batch_execute("SET deadlock_timeout = '1min'; BEGIN; LOCK TABLE tokens IN ACCESS SHARE MODE").await.unwrap();
    let mut restore = world.provider.begin(&["restore", path, "--replace"]);
    until("the restore has locked domains and waits for tokens", secs(20), async || {
        let held = "SELECT string_agg(relation::regclass || ' ' || granted, ', ' ORDER BY relation::regclass::text) FROM pg_locks
                     WHERE mode = 'AccessExclusiveLock' AND relation IN ('domains'::regclass, 'tokens'::regclass)";
        let held = world.postgres.value(held).await;
        if held == "domains true, tokens false" { Ok(()) } else { Err(held) }
    })
    .await;
    other.batch_execute(&Row::http("first.test", ([127, 0, 0, 1], 9).into()).insert()).await.unwrap();
    other.batch_execute("COMMIT").await.unwrap();
    let ended = restore.ended(secs(20)).await;
    assert!(ended.success(), "{}", restore.log());
    assert_eq!(
        world.postgres.value("SELECT count(*) FROM domains WHERE domain = 'first.test'").await,
        "0",
        "it was replaced"
    );
    let [replaced] = &listed(&world.provider.data().join("backups"))[..] else {
        panic!("one backup of what was there")
    };
    let tables = &manifest(replaced)["tables"];
    let rows = tables.as_array().unwrap().iter().find(|table| table["name"] == "domains").map(|table| &table["rows"]);
    assert_eq!(rows, Some(&Value::from(1)), "what was written meanwhile was kept: {tables}");
}

fn listed(directory: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

#[tokio::test]
async fn a_private_database_is_backed_up_whether_it_runs_or_not_and_through_a_pipe() {
    let home = Home::new();
    let mut provider = Provider::new(&home, "one").start().await;
    provider.until_metric("database_connected", secs(60), |v| v >= 1.0).await;
    provider.must(&["psql", "--", "-c", &Row::http("a.test", ([127, 0, 0, 1], 80).into()).insert()]).await;
    let backups = provider.data().join("backups");
    for _ in 0..3 {
        provider.must(&["backup", "--keep", "2"]).await;
    }
    assert_eq!(listed(&backups).len(), 2, "{:?}", listed(&backups));
    let running = provider.must(&["backup"]).await;
    provider.stop().await;
    let stopped = provider.must(&["backup"]).await;
    assert_eq!(manifest(Path::new(running.trim()))["tables"], manifest(Path::new(stopped.trim()))["tables"]);

    let line = "$P backup - | openssl enc -aes-256-cbc -pbkdf2 -pass pass:long > $HOME/b.enc";
    provider.sh(line).await;
    assert!(!std::fs::read(home.join("b.enc")).unwrap().starts_with(&[0x1f, 0x8b]));
    let other = Provider::new(&home, "two");
    let must_fail = other.run(&["restore", home.join("b.enc").to_str().unwrap()]).await;
    assert!(must_fail.code == Some(1) && must_fail.err.contains("it is no backup"), "{must_fail:?}");
    let said = other.sh("openssl enc -d -aes-256-cbc -pbkdf2 -pass pass:long < $HOME/b.enc | $P restore -").await;
    assert!(said.contains("1 domains"), "{said}");
    let rows = other.must(&["psql", "--", "-Atc", "SELECT domain FROM domains"]).await;
    assert_eq!(rows.trim(), "a.test");
}

#[tokio::test]
async fn a_full_disk_leaves_the_old_backups_and_says_what_helps() {
    if !is_root() {
        println!("not checked: it needs root");
        return;
    }
    let world = World::new().await;
    let disk = SmallDisk::mount(&world.home, "small", 1);
    let directory = disk.path().join("backups/");
    let directory = directory.to_str().unwrap();
    world.provider.must(&["backup", directory]).await;
    let before = listed(Path::new(directory));
    disk.fill();
    must_not(&world.provider, &["backup", "--keep", "1", directory], "free some space").await;
    assert_eq!(listed(Path::new(directory)), before, "nothing half, nothing removed");
}

/// The goal is that of a release build, and is held there; one without optimisation has a tenth to do.
#[tokio::test]
async fn ten_thousand_rows_go_and_come_in_seconds() {
    let rows = if cfg!(debug_assertions) && !full() { 1_000 } else { 10_000 };
    let world = World::for_faults().await;
    world.psql(&many(rows)).await;
    let file = world.home.join("b.tar.gz");
    let path = file.to_str().unwrap();
    let began = Instant::now();
    world.provider.must(&["backup", path]).await;
    measured(&format!("backup of {rows} rows"), began.elapsed());
    println!("{} bytes", std::fs::metadata(&file).unwrap().len());
    let (postgres, provider) = another(&world).await;
    let began = Instant::now();
    provider.must(&["restore", path]).await;
    measured(&format!("restore of {rows} rows"), began.elapsed());
    assert_eq!(postgres.value("SELECT count(*) FROM domains").await, rows.to_string());
    assert!(cfg!(debug_assertions) || began.elapsed() < secs(15), "it took {:?}", began.elapsed());
}
