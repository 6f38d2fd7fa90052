//! Each rule of what is kept, against a real PostgreSQL.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::{
    guard::Size,
    postgres::{assume_role, tests::cluster::Cluster},
    snapshot::{Snapshot, encode::Encoded, history::served},
    store::sync::Held,
};

const DAY: Duration = Duration::from_hours(24);
const EVERYTHING: i64 = i64::MAX;

/// A database whose owner can make things old, and a client with the rights of a provider.
async fn world() -> (Cluster, Client, Client) {
    let (cluster, owner) = Cluster::migrated().await;
    let app = cluster.client("owner").await;
    assume_role(&app).await.unwrap();
    (cluster, owner, app)
}

/// The config of `revision`, so many days old, with a body of `size` bytes that is shared by those of the same digest.
async fn kept(owner: &Client, revision: i64, days: f64, state: &str, (digest, size): (&str, usize)) {
    owner
        .execute("INSERT INTO snapshot_bodies VALUES ($1, $2, 1) ON CONFLICT DO NOTHING", &[&digest, &vec![0_u8; size]])
        .await
        .unwrap();
    let sql = "INSERT INTO snapshots (revision, token, digest, state, reason, routes, compiler, created_at)
        VALUES ($1, gen_random_uuid(), $2, $3, 'r', 1, 'c', now() - make_interval(secs => $4::float8 * 86400))";
    owner.execute(sql, &[&revision, &digest, &state, &days]).await.unwrap();
}

/// Commits a change of one row, made so many days ago.
async fn committed(owner: &Client, days: f64) {
    owner
        .batch_execute(&format!(
            "INSERT INTO domains (domain, backend_host, backend_port) VALUES ('a.test', 'h', 1)
                 ON CONFLICT (domain, path_prefix, protocol, tcp_entrypoint)
                 DO UPDATE SET backend_port = domains.backend_port + 1;
             BEGIN; SET LOCAL charliehub.pruning = 'on';
             UPDATE revisions SET at = now() - interval '{days} days' WHERE revision = (SELECT n FROM revision);
             COMMIT"
        ))
        .await
        .unwrap();
}

async fn revisions(client: &Client) -> Vec<i64> {
    let rows = client.query("SELECT revision FROM snapshots ORDER BY id", &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

async fn number(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

async fn audit(client: &Client) -> Vec<Value> {
    let sql = "SELECT detail FROM audit_events WHERE kind = 'history.pruned' ORDER BY id";
    client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

fn retention(keep: i32, age: Duration, max_bytes: i64) -> Retention {
    Retention { keep, age, max_bytes }
}

#[tokio::test]
async fn the_newest_or_the_young_are_kept_whichever_are_more() {
    for (keep, days, left) in
        [(3, 30, vec![3, 4, 5]), (1, 30, vec![4, 5]), (1, 100, vec![1, 2, 3, 4, 5]), (1, 1, vec![5])]
    {
        let (_cluster, owner, mut app) = world().await;
        for (revision, old) in [(1, 60.0), (2, 50.0), (3, 40.0), (4, 20.0), (5, 10.0)] {
            kept(&owner, revision, old, "served", (&format!("d{revision}"), 10)).await;
        }
        assert!(!prune(&mut app, retention(keep, DAY * days, EVERYTHING)).await.unwrap());
        assert_eq!(revisions(&owner).await, left, "newest {keep}, {days} days");
        let bodies = number(&owner, "SELECT count(*) FROM snapshot_bodies").await;
        assert_eq!(usize::try_from(bodies).unwrap(), left.len(), "no body without its config");
    }
}

#[tokio::test]
async fn pinned_withheld_and_newest_served_configs_stay_whatever_their_age_and_size() {
    let (_cluster, owner, mut app) = world().await;
    for (revision, state) in
        [(1, "served"), (2, "served"), (3, "withheld"), (4, "discarded"), (5, "approved"), (6, "discarded")]
    {
        kept(&owner, revision, 60.0, state, (&format!("d{revision}"), 100)).await;
    }
    owner.execute("UPDATE snapshots SET pinned = true WHERE revision = 1", &[]).await.unwrap();
    assert!(!prune(&mut app, retention(1, DAY, 1)).await.unwrap());
    assert_eq!(revisions(&owner).await, [1, 3, 5]);
}

#[tokio::test]
async fn bodies_beyond_the_limit_go_least_recently_used_first() {
    let (_cluster, owner, mut app) = world().await;
    // The first and the fourth are one body, used lately.
    for (revision, digest) in [(1, "a"), (2, "b"), (3, "c"), (4, "a"), (5, "e")] {
        kept(&owner, revision, 0.1, "served", (digest, 100)).await;
    }
    for (limit, left) in [(400, vec![1, 2, 3, 4, 5]), (399, vec![1, 3, 4, 5]), (200, vec![1, 4, 5]), (1, vec![5])] {
        prune(&mut app, retention(100, DAY, limit)).await.unwrap();
        assert_eq!(revisions(&owner).await, left, "{limit} bytes");
    }
    let said: Vec<_> =
        audit(&owner).await.iter().map(|line| (line["snapshots"].clone(), line["bytes"].clone())).collect();
    assert_eq!(said, [(json!(1), json!(100)), (json!(1), json!(100)), (json!(2), json!(100))]);
}

#[tokio::test]
async fn a_pinned_config_counts_towards_the_limit_before_others() {
    let (_cluster, owner, mut app) = world().await;
    for revision in 1..=4 {
        kept(&owner, revision, 0.1, "served", (&format!("d{revision}"), 100)).await;
    }
    owner.execute("UPDATE snapshots SET pinned = true WHERE revision = 1", &[]).await.unwrap();
    prune(&mut app, retention(100, DAY, 300)).await.unwrap();
    assert_eq!(revisions(&owner).await, [1, 3, 4]);
}

#[tokio::test]
async fn rows_are_kept_from_the_oldest_kept_config_on_and_for_the_whole_age() {
    let (_cluster, owner, mut app) = world().await;
    for days in [60, 50, 40, 20, 10] {
        committed(&owner, f64::from(days)).await;
    }
    // Of the third, and the newest, a config is kept; then only of the newest.
    kept(&owner, 3, 40.0, "served", ("d3", 10)).await;
    kept(&owner, 5, 10.0, "served", ("d5", 10)).await;
    let port = async |revision: i64| {
        let sql = format!("SELECT backend_port::bigint FROM domains_as_of({revision})");
        owner.query_one(&sql, &[]).await.map(|row| row.get::<_, i64>(0)).ok()
    };
    let all = async || {
        let mut all = Vec::new();
        for revision in 1..=5 {
            all.push(port(revision).await);
        }
        all
    };
    owner.execute("UPDATE snapshots SET pinned = true WHERE revision = 3", &[]).await.unwrap();
    prune(&mut app, retention(1, DAY, EVERYTHING)).await.unwrap();
    assert_eq!(all().await, [None, None, Some(3), Some(4), Some(5)], "a pinned config has its rows");
    owner.execute("UPDATE snapshots SET pinned = false", &[]).await.unwrap();
    prune(&mut app, retention(1, DAY * 15, EVERYTHING)).await.unwrap();
    assert_eq!(all().await, [None, None, None, Some(4), Some(5)], "what the young began with is kept");
    prune(&mut app, retention(1, DAY, EVERYTHING)).await.unwrap();
    assert_eq!(all().await, [None, None, None, None, Some(5)]);
    assert_eq!(number(&owner, "SELECT count(*) FROM history").await, 1);
    assert_eq!(number(&owner, "SELECT count(*) FROM revisions").await, 5, "who did what is never forgotten");
    let said: Vec<_> = audit(&owner).await.iter().map(|line| (line["rows"].clone(), line["floor"].clone())).collect();
    assert_eq!(said, [(json!(2), json!(3)), (json!(1), json!(4)), (json!(1), json!(5))]);
}

#[tokio::test]
async fn rows_are_forgotten_in_steps_and_each_is_a_line_of_the_audit() {
    let (_cluster, owner, mut app) = world().await;
    for _ in 0..7 {
        committed(&owner, 60.0).await;
    }
    let mut steps = 1;
    while prune_step(&mut app, retention(1, DAY, EVERYTHING), 3).await.unwrap() {
        steps += 1;
    }
    assert_eq!((steps, number(&owner, "SELECT floor FROM revision").await), (3, 7));
    let rows: Vec<_> = audit(&owner).await.iter().map(|line| line["rows"].clone()).collect();
    assert_eq!(rows, [json!(2), json!(3), json!(1)], "six of the seven were overtaken");
    assert!(!prune(&mut app, retention(1, DAY, EVERYTHING)).await.unwrap());
    assert_eq!(audit(&owner).await.len(), 3, "nothing was pruned, and nothing is said");
}

#[tokio::test]
async fn of_several_providers_one_prunes() {
    let (cluster, owner, mut app) = world().await;
    kept(&owner, 1, 60.0, "discarded", ("d1", 10)).await;
    kept(&owner, 2, 60.0, "served", ("d2", 10)).await;
    let mut other = cluster.client("owner").await;
    let busy = other.transaction().await.unwrap();
    busy.query(LOCK, &[]).await.unwrap();
    prune(&mut app, retention(1, DAY, EVERYTHING)).await.unwrap();
    assert_eq!(revisions(&owner).await, [1, 2], "another one is at it");
    busy.rollback().await.unwrap();
    prune(&mut app, retention(1, DAY, EVERYTHING)).await.unwrap();
    assert_eq!(revisions(&owner).await, [2]);
}

/// A snapshot whose body is these pieces, each too long to be joined with another.
fn in_pieces(revision: i64, pieces: &[u8]) -> Snapshot {
    let pieces: Vec<Bytes> = pieces.iter().map(|byte| vec![*byte; 40 << 10].into()).collect();
    let encoded = Encoded::compressed(format!("d{revision}").into(), pieces, 1);
    let held = Held { revision, token: Uuid::nil() };
    Snapshot::new(held, None, Arc::new(encoded), Size::default(), None, BTreeMap::new())
}

#[tokio::test]
async fn a_piece_is_stored_once_and_stays_while_a_body_has_it() {
    let (_cluster, owner, mut app) = world().await;
    let bodies = [in_pieces(1, &[1, 2, 1, 3]), in_pieces(2, &[1, 2, 4])];
    for body in &bodies {
        served(&mut app, None, body, "change").await.unwrap();
        let sql = "SELECT charliehub.snapshot_body(b) FROM snapshot_bodies b WHERE digest = $1";
        let found: Vec<u8> = app.query_one(sql, &[&&**body.digest()]).await.unwrap().get(0);
        assert!(body.encoded.gzip.to_bytes() == found, "revision {}", body.held.revision);
    }
    assert_eq!(number(&owner, "SELECT count(*) FROM snapshot_pieces").await, 4);
    assert!(!prune(&mut app, retention(100, DAY, 1)).await.unwrap());
    assert_eq!(revisions(&owner).await, [2]);
    assert_eq!(number(&owner, "SELECT count(*) FROM snapshot_pieces").await, 3, "that of the first alone is gone");
    let said = audit(&owner).await;
    assert_eq!(said[0]["bytes"], json!(4 * 32 + (40 << 10)), "its list, and its piece");
}
