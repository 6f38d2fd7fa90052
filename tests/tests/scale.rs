//! Many rows: a start says how far it is, a change costs what changed, a bad row is found among all, a list is walked.

use std::collections::BTreeSet;

use charliehub_tests::{Home, Link, Postgres, World, secs, until};
use hyper::Method;
use sha2::{Digest as _, Sha256};

const ROWS: usize = 20_000;

/// Each on a host and with a backend of its own.
fn insert() -> String {
    format!(
        "INSERT INTO domains (domain, tls_mode, backend_host, backend_port)
         SELECT 'h' || n || '.scale.test', 'none', '10.' || n / 250 || '.0.' || n % 250 + 1, 80
         FROM generate_series(1, {ROWS}) n"
    )
}

/// Serves all of them; the revision.
async fn serve(world: &World) -> u64 {
    world.psql(&insert()).await;
    let revision = world.postgres.revision().await;
    world.provider.until_serves(revision, secs(60)).await;
    revision
}

async fn until_in_history(world: &World, revision: u64) {
    until(&format!("revision {revision} is in history"), secs(30), async || {
        let sql = format!("SELECT count(*) FROM snapshots WHERE state = 'served' AND revision = {revision}");
        let found = world.postgres.value(&sql).await;
        if found == "1" { Ok(()) } else { Err(found) }
    })
    .await;
}

#[tokio::test]
async fn a_long_start_tells_how_far_it_is_and_serves_the_last_known_good_meanwhile() {
    let home = Home::new();
    let postgres = Postgres::start(&home).await;
    let link = Link::to(&home, postgres.host_and_port().into()).await;
    let url = postgres.url_at(link.address().ip(), link.address().port());
    let mut world = World::over(home, postgres, |provider| provider.database(&url)).await;
    let before = serve(&world).await;
    world.provider.stop().await;

    world.psql("UPDATE domains SET backend_port = 81 WHERE domain = 'h7.scale.test'").await;
    let newest = world.postgres.revision().await;
    link.stall_after(1 << 20);
    world.provider.up().await;
    assert_eq!(world.provider.poll().await.revision(), before);
    until("it says how far it is", secs(30), async || {
        let log = world.provider.log();
        if log.contains("reading everything") { Ok(()) } else { Err(log) }
    })
    .await;
    let meanwhile = world.provider.poll().await;
    assert_eq!((meanwhile.status, meanwhile.revision()), (200, before), "it is not held back by what is read");
    link.mend();
    world.provider.until_serves(newest, secs(60)).await;
    let log = world.provider.log();
    assert!(log.contains("everything is read"), "{log}");
}

#[tokio::test]
async fn one_changed_row_of_many_is_a_few_pieces_in_history_and_the_body_is_whole() {
    let world = World::with(|provider| provider).await;
    until_in_history(&world, serve(&world).await).await;
    let stored = async || -> (u64, u64) {
        let sql = "SELECT count(*), coalesce(sum(octet_length(bytes)), 0) FROM snapshot_pieces";
        let row = world.psql(sql).await.remove(0);
        (row[0].parse().unwrap(), row[1].parse().unwrap())
    };
    let (pieces, bytes) = stored().await;
    assert!(pieces > 100, "{pieces} pieces");
    world.psql("UPDATE domains SET backend_port = 81 WHERE domain = 'h777.scale.test'").await;
    let newest = world.postgres.revision().await;
    until_in_history(&world, newest).await;
    let (more_pieces, more_bytes) = stored().await;
    let (pieces, grown) = (more_pieces - pieces, more_bytes - bytes);
    println!("{pieces} new pieces of {more_pieces}, {grown} new bytes of {more_bytes}");
    assert!((1..=8).contains(&pieces) && grown < bytes / 20, "{pieces} new pieces, {grown} new bytes beside {bytes}");

    let authorization = format!("Bearer {}", world.provider.admin_token());
    let headers = [("authorization", authorization.as_str()), ("accept-encoding", "gzip")];
    let mut connection = world.provider.connection().await;
    let served = connection.send(Method::GET, "/traefik", &headers, "").await.unwrap();
    assert_eq!((served.revision(), served.header("content-encoding")), (newest, "gzip"));
    let kept = format!(
        "SELECT encode(sha256(charliehub.snapshot_body(b)), 'hex') FROM snapshot_bodies b JOIN snapshots USING (digest)
          WHERE revision = {newest}"
    );
    let sum = Sha256::digest(&served.body).iter().fold(String::new(), |sum, byte| sum + &format!("{byte:02x}"));
    assert_eq!(world.postgres.value(&kept).await, sum, "history has the bytes that were served");
    let plain = world.provider.poll().await;
    let routers = plain.json()["http"]["routers"].as_object().map_or(0, serde_json::Map::len);
    assert_eq!(routers, ROWS, "who does not take gzip gets all of it too");
}

#[tokio::test]
async fn one_wrong_row_of_many_is_closed_and_named() {
    let world = World::with(|provider| provider).await;
    serve(&world).await;
    world.psql("UPDATE domains SET middlewares = '{nobody}' WHERE domain = 'h777.scale.test'").await;
    world.provider.until_metric("quarantined_rows", secs(10), |count| count >= 1.0).await;
    assert_eq!(world.provider.count("quarantined_rows").await, 1);
    let all = world.provider.get("/api/routes").await.json();
    let closed: Vec<_> = all.as_array().unwrap().iter().filter(|route| route["state"] == "closed").collect();
    let [closed] = closed.as_slice() else { panic!("{closed:?}") };
    assert_eq!(closed["name"], "h777.scale.test");
    assert!(closed["reason"].as_str().unwrap().contains("nobody"), "{closed}");
    assert!(world.provider.log().contains("h777.scale.test"), "the log names it");
    let routers = world.provider.poll().await.json()["http"]["routers"].as_object().map_or(0, serde_json::Map::len);
    assert_eq!(routers, ROWS, "all hold their places");
}

#[tokio::test]
async fn a_list_that_is_walked_is_complete_and_reads_each_row_once() {
    let world = World::with(|provider| provider).await;
    serve(&world).await;
    world.psql("ANALYZE domains").await;
    let read = async || -> usize {
        let sql = "SELECT seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_user_tables WHERE relname = 'domains'";
        world.postgres.value(sql).await.parse().unwrap()
    };
    let before = read().await;
    let (mut names, mut next) = (BTreeSet::new(), Some("/api/domains?limit=1000&fields=domain".to_owned()));
    while let Some(path) = next {
        let page = world.provider.get(&path).await;
        assert_eq!(page.status, 200, "{path}: {}", page.text());
        let rows = page.json();
        names.extend(rows.as_array().unwrap().iter().map(|row| row["domain"].as_str().unwrap().to_owned()));
        let link = page.header("link");
        next = link.strip_prefix('<').and_then(|rest| rest.split_once('>')).map(|(path, _)| path.to_owned());
    }
    assert_eq!(names.len(), ROWS);
    let (rows, _) = until("the database has counted what was read", secs(30), async || {
        let rows = read().await - before;
        if rows >= ROWS { Ok(rows) } else { Err(rows) }
    })
    .await;
    assert!(rows < 3 * ROWS, "{rows} rows were read for a list of {ROWS}");
}
