use serde_json::json;
use tokio_postgres::Client;

use super::{
    list::{Filter, entries},
    *,
};
use crate::{author::Author, postgres::tests::cluster::Cluster};

/// Three events, and five revisions of two rows.
async fn world() -> (Cluster, Client) {
    let (cluster, client) = Cluster::migrated().await;
    for n in 1..=3 {
        let detail = json!({ "n": n, "text": "ä \" \\" });
        let event = Event { actor: "ann", source: "cli", address: None, kind: "token.create", detail };
        event.write(&client).await.unwrap();
    }
    for statement in [
        "INSERT INTO domains (domain, backend_host, backend_port) VALUES ('a.test', 'h', 1)",
        "INSERT INTO domains (domain, backend_host, backend_port) VALUES ('b.test', 'h', 1), ('c.test', 'h', 1)",
        "BEGIN; UPDATE domains SET notes = 'x' WHERE domain = 'a.test'; UPDATE domains SET notes = 'y'; COMMIT",
        "DELETE FROM domains WHERE domain = 'b.test'",
        "UPDATE domains SET backend_port = 2",
    ] {
        client.batch_execute(statement).await.unwrap();
    }
    assert_eq!(broken(&client).await.unwrap(), []);
    (cluster, client)
}

async fn places(client: &Client) -> Vec<(String, i64)> {
    broken(client).await.unwrap().into_iter().map(|broken| (broken.chain, broken.place)).collect()
}

/// A superuser who knows what to turn off.
const UNGUARDED: &str =
    "BEGIN; ALTER TABLE audit_events DISABLE TRIGGER ALL; ALTER TABLE revisions DISABLE TRIGGER ALL;
    ALTER TABLE history DISABLE TRIGGER ALL; ALTER TABLE audit_events ALTER COLUMN id DROP IDENTITY;";

#[tokio::test]
async fn whatever_is_changed_removed_or_moved_is_found_and_its_place_named() {
    let (_cluster, mut client) = world().await;
    for (tampering, chain, place) in [
        ("UPDATE audit_events SET actor = 'bob' WHERE id = 2", "audit_events", 2),
        ("UPDATE audit_events SET detail = detail || '{\"n\": 9}' WHERE id = 1", "audit_events", 1),
        ("UPDATE audit_events SET at = at - interval '1 s' WHERE id = 3", "audit_events", 3),
        ("DELETE FROM audit_events WHERE id = 2", "audit_events", 2),
        ("DELETE FROM audit_events WHERE id = 1", "audit_events", 1),
        ("DELETE FROM audit_events WHERE id = 3", "audit_events", 3),
        ("DELETE FROM audit_events", "audit_events", 1),
        ("DELETE FROM audit_head", "audit_events", 1),
        (
            "UPDATE audit_events SET id = -id; UPDATE audit_events SET id = CASE id WHEN -1 THEN 2 WHEN -2 THEN 1 ELSE 3 END",
            "audit_events",
            1,
        ),
        ("INSERT INTO audit_events (id, actor, source, kind, hash) VALUES (4, 'x', 'x', 'x', '')", "audit_events", 4),
        ("UPDATE revisions SET actor = 'bob' WHERE revision = 3", "revisions", 3),
        ("DELETE FROM revisions WHERE revision = 2", "revisions", 2),
        ("DELETE FROM revisions WHERE revision = 5; DELETE FROM seals WHERE revision = 5", "revisions", 5),
        ("DELETE FROM seals WHERE revision = 4", "revisions", 4),
        ("UPDATE history SET new = new || '{\"notes\": \"z\"}' WHERE revision = 3 AND new IS NOT NULL", "history", 3),
        ("DELETE FROM history WHERE revision = 4", "history", 4),
        ("DELETE FROM history WHERE revision = 5", "history", 5),
        ("DELETE FROM history WHERE seq = (SELECT min(seq) FROM history WHERE revision = 3)", "history", 3),
        ("UPDATE history SET revision = 2 WHERE revision = 1", "history", 1),
        ("INSERT INTO history (revision, tbl, key, op, new) VALUES (4, 'domains', 'k', 'I', '{}')", "history", 4),
    ] {
        let transaction = client.transaction().await.unwrap();
        let unguarded = UNGUARDED.trim_start_matches("BEGIN;");
        transaction.batch_execute(&format!("{unguarded} {tampering}")).await.unwrap();
        let found = broken(&transaction).await.unwrap();
        assert!(found.iter().any(|broken| broken.chain == chain && broken.place == place), "{tampering}: {found:?}");
        transaction.rollback().await.unwrap();
    }
    assert_eq!(places(&client).await, [], "nothing of it is left");
}

#[tokio::test]
async fn what_was_pruned_legally_is_no_break_and_what_is_left_is_still_watched() {
    let (_cluster, mut client) = world().await;
    client.batch_execute("SELECT prune_history(3)").await.unwrap();
    assert_eq!(places(&client).await, []);
    client.batch_execute("SELECT prune_history(4); UPDATE domains SET notes = 'after'").await.unwrap();
    assert_eq!(places(&client).await, []);
    let told =
        entries(&client, &Filter { kind: Some("history".to_owned()), limit: 10, ..Filter::default() }).await.unwrap();
    assert_eq!(told.len(), 2, "each pruning is a line of the audit");
    assert_eq!(told[1].detail.as_ref().unwrap()["floor"], 4);
    for (tampering, chain, place) in [
        ("UPDATE history SET new = new || '{\"notes\": \"z\"}' WHERE revision = 3", "history", 4),
        ("DELETE FROM history WHERE revision <= 3", "history", 4),
        ("DELETE FROM history WHERE revision = 5", "history", 5),
        ("UPDATE revisions SET actor = 'bob' WHERE revision = 1", "revisions", 1),
        ("DELETE FROM audit_events WHERE kind = 'history.prune'", "audit_events", 4),
    ] {
        let transaction = client.transaction().await.unwrap();
        transaction.batch_execute(&format!("{} {tampering}", UNGUARDED.trim_start_matches("BEGIN;"))).await.unwrap();
        let found = broken(&transaction).await.unwrap();
        assert!(found.iter().any(|broken| broken.chain == chain && broken.place == place), "{tampering}: {found:?}");
        transaction.rollback().await.unwrap();
    }
}

#[tokio::test]
async fn many_who_write_at_once_make_one_chain() {
    let (cluster, client) = world().await;
    let write = |name: &'static str| {
        let cluster = &cluster;
        async move {
            let client = cluster.client("owner").await;
            for n in 0..20 {
                let event = Event { actor: name, source: "cli", address: None, kind: "x", detail: json!({ "n": n }) };
                event.write(&client).await.unwrap();
                let sql = format!(
                    "INSERT INTO domains (domain, backend_host, backend_port) VALUES ('n{n}.{name}.test', 'h', 1)"
                );
                client.batch_execute(&sql).await.unwrap();
            }
        }
    };
    tokio::join!(write("ann"), write("bob"), write("cid"));
    assert_eq!(places(&client).await, []);
    let ends = ends(&client).await.unwrap();
    assert_eq!((ends.event, ends.revision, ends.revision_hash.len()), (63, 65, 64));
}

#[tokio::test]
async fn the_service_can_add_to_the_audit_and_never_change_it() {
    let (_cluster, client) = world().await;
    crate::postgres::assume_role(&client).await.unwrap();
    for statement in [
        "UPDATE audit_events SET actor = 'bob'",
        "DELETE FROM audit_events",
        "TRUNCATE audit_events",
        "UPDATE audit_head SET id = 0",
        "UPDATE revisions SET actor = 'bob'",
        "DELETE FROM history",
        "UPDATE seals SET hash = ''",
        "SET charliehub.pruning = on; DELETE FROM audit_events",
    ] {
        let error = client.batch_execute(statement).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "42501", "{statement}");
    }
    let event = Event { actor: "us", source: "api", address: None, kind: "refused", detail: json!({}) };
    event.write(&client).await.unwrap();
    assert_eq!(places(&client).await, [], "it can verify too");
}

#[tokio::test]
async fn events_and_changes_are_one_list_with_the_database_user_of_psql() {
    let (_cluster, mut client) = world().await;
    let transaction = client.transaction().await.unwrap();
    let author = Author { actor: "ed".to_owned(), source: "api", address: "192.0.2.7".to_owned(), ..Author::default() };
    author.sign(&transaction).await.unwrap();
    transaction
        .batch_execute("UPDATE domains SET owner = 'ed', path_prefix = '/x' WHERE domain = 'c.test'")
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    let all = entries(&client, &Filter { limit: 100, ..Filter::default() }).await.unwrap();
    assert_eq!(all.len(), 3 + 1 + 2 + 1 + 3 + 1 + 2 + 1);
    assert_eq!((all[0].kind.as_str(), all[0].actor.as_str()), ("token.create", "ann"));
    let psql = &all[3];
    assert_eq!(
        (psql.source.as_str(), psql.db_user.as_deref(), psql.name.as_deref()),
        ("sql", Some("owner"), Some("a.test"))
    );
    let last = all.last().unwrap();
    assert_eq!(
        (last.actor.as_str(), last.address.as_deref(), last.name.as_deref()),
        ("ed", Some("192.0.2.7"), Some("c.test/x"))
    );
    assert_eq!(last.fields, ["owner", "path_prefix"]);

    for (filter, count) in [
        (Filter { actor: Some("ed".to_owned()), ..Filter::default() }, 1),
        (Filter { kind: Some("row".to_owned()), ..Filter::default() }, 11),
        (Filter { kind: Some("row.delete".to_owned()), ..Filter::default() }, 1),
        (Filter { kind: Some("ro".to_owned()), ..Filter::default() }, 0),
        (Filter { until: Some(all[3].at), ..Filter::default() }, 3),
        (Filter { since: Some(last.at), ..Filter::default() }, 1),
    ] {
        let found = entries(&client, &Filter { limit: 100, ..filter.clone() }).await.unwrap();
        assert_eq!(found.len(), count, "{filter:?}");
    }

    let mut paged = Vec::new();
    let mut behind = None;
    loop {
        let page =
            entries(&client, &Filter { limit: 4, newest_first: true, behind, ..Filter::default() }).await.unwrap();
        let Some(last) = page.last() else { break };
        behind = Some(last.place.clone());
        paged.extend(page.into_iter().map(|entry| entry.place));
    }
    paged.reverse();
    assert_eq!(paged, all.into_iter().map(|entry| entry.place).collect::<Vec<_>>());
}
