use base64::{Engine as _, prelude::BASE64_STANDARD};
use charliehub_proto::{
    domain::AccessTier,
    rotation::{Offer, Phase, Step},
};
use proptest::prelude::*;
use serde_json::json;
use tokio_postgres::Client as Postgres;
use uuid::Uuid;

use super::*;
use crate::{compile::tests::domain_with, postgres::tests::cluster::Cluster};

fn settings() -> Arc<Settings> {
    let networks = vec!["10.44.0.0/16".parse().unwrap()];
    Arc::new(Settings { internal_networks: networks, ..Settings::default() })
}

fn author() -> Author {
    Author { actor: "ann".to_owned(), source: "api", ..Author::default() }
}

async fn back(client: &mut Postgres, to: i64) -> Result<RolledBack, Error> {
    rollback(client, to, &author(), &settings(), false).await
}

async fn lines(client: &Postgres, sql: &str) -> Vec<String> {
    client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

const ROWS: &str = "SELECT domain || path_prefix || ' ' || access_tier || ' ' || auth_required || ' ' || backend_port
    FROM domains ORDER BY domain, path_prefix";

fn insert(columns: &str, values: &str) -> String {
    format!(
        "INSERT INTO domains (backend_host, backend_port, tls_mode, {columns}) VALUES ('h', 80, 'default', {values})"
    )
}

#[tokio::test]
async fn the_rows_are_as_they_were_in_a_new_revision_that_says_so() {
    let (_cluster, mut client) = Cluster::migrated().await;
    client.batch_execute(&insert("domain", "'a.test'), ('h', 80, 'default', 'b.test'")).await.unwrap();
    client
        .batch_execute(&format!(
            "BEGIN; DELETE FROM domains WHERE domain = 'a.test'; UPDATE domains SET backend_port = 81; {}; COMMIT",
            insert("domain", "'c.test'")
        ))
        .await
        .unwrap();
    let dry = rollback(&mut client, 1, &author(), &settings(), true).await.unwrap();
    assert_eq!((dry.revision, dry.dry_run), (None, true));
    assert_eq!(lines(&client, "SELECT n::text FROM revision").await, ["2"], "a dry run is none");
    let done = back(&mut client, 1).await.unwrap();
    assert_eq!((done.revision, done.from, &done.kept_narrower), (Some(3), 1, &Vec::new()));
    assert_eq!(done.changed, dry.changed);
    let mut ops: Vec<_> = done.changed.iter().map(|row| (row.name.as_str(), row.op)).collect();
    ops.sort_by_key(|(name, _)| *name);
    assert_eq!(ops, [("a.test", RowOp::Insert), ("b.test", RowOp::Update), ("c.test", RowOp::Delete)]);
    assert_eq!(lines(&client, ROWS).await, ["a.test/ public false 80", "b.test/ public false 80"]);
    let told = lines(&client, "SELECT actor || ' ' || source || ' ' || reason FROM revisions WHERE revision = 3").await;
    assert_eq!(told, ["ann rollback rollback to revision 1"]);
    assert_eq!(back(&mut client, 1).await.unwrap().revision, None, "they are those rows already");
}

#[tokio::test]
async fn no_name_gets_more_open_than_the_newest_rows_say() {
    let (_cluster, mut client) = Cluster::migrated().await;
    for sql in [
        insert("domain", "'closed.test'"),
        insert("domain", "'anew.test'"),
        insert("domain, path_prefix", "'part.test', '/admin'"),
        insert("domain", "'host.test'"),
        insert("domain", "'free.test'"),
        "INSERT INTO fragments (kind, name, body) VALUES
            ('http.middleware', 'office', '{\"ipAllowList\": {\"sourceRange\": [\"0.0.0.0/0\"]}}'),
            ('http.middleware', 'squeeze', '{\"compress\": {}}')"
            .to_owned(),
    ] {
        client.batch_execute(&sql).await.unwrap();
    }
    let then = 6;
    client
        .batch_execute(&format!(
            "UPDATE domains SET access_tier = 'internal', backend_port = 81 WHERE domain = 'closed.test';
             DELETE FROM domains WHERE domain IN ('anew.test', 'part.test', 'free.test');
             {}; {}; {};
             UPDATE domains SET middlewares = '{{office}}' WHERE domain = 'host.test' AND path_prefix = '/';
             UPDATE fragments SET body = '{{\"ipAllowList\": {{\"sourceRange\": [\"10.0.0.0/8\"]}}}}' WHERE name = 'office';
             DELETE FROM fragments WHERE name = 'squeeze'",
            insert("domain, auth_required", "'anew.test', true"),
            insert("domain, access_tier", "'part.test', 'internal'"),
            insert("domain, path_prefix, access_tier", "'host.test', '/secret', 'internal'"),
        ))
        .await
        .unwrap();
    let done = back(&mut client, then).await.unwrap();
    assert_eq!(
        lines(&client, ROWS).await,
        [
            "anew.test/ public true 80",
            "closed.test/ internal false 80",
            "free.test/ public false 80",
            "host.test/ public false 80",
            "host.test/secret internal false 80",
            "part.test/ internal false 80",
            "part.test/admin internal false 80",
        ]
    );
    assert_eq!(lines(&client, "SELECT middlewares[1] FROM domains WHERE middlewares <> '{}'").await, ["office"]);
    assert_eq!(
        lines(&client, "SELECT name || body::text FROM fragments ORDER BY name").await,
        ["office{\"ipAllowList\": {\"sourceRange\": [\"10.0.0.0/8\"]}}", "squeeze{\"compress\": {}}",]
    );
    let kept = [
        "anew.test",
        "closed.test",
        "host.test",
        "host.test/secret",
        "http.middleware office",
        "part.test",
        "part.test/admin",
    ];
    assert_eq!(done.kept_narrower, kept);
}

#[tokio::test]
async fn rows_that_changed_places_change_back() {
    let (_cluster, mut client) = Cluster::migrated().await;
    client
        .batch_execute(&insert("domain, owner", "'a.test', 'one'), ('h', 80, 'default', 'b.test', 'two'"))
        .await
        .unwrap();
    client
        .batch_execute(
            "UPDATE domains SET domain = 'c.test' WHERE owner = 'one'; UPDATE domains SET domain = 'a.test' WHERE owner = 'two';
             UPDATE domains SET domain = 'b.test' WHERE owner = 'one'",
        )
        .await
        .unwrap();
    back(&mut client, 1).await.unwrap();
    let rows = lines(&client, "SELECT domain || ' ' || owner FROM domains ORDER BY domain").await;
    assert_eq!(rows, ["a.test one", "b.test two"]);
}

#[tokio::test]
async fn what_the_constraints_forbid_by_now_is_named_and_nothing_is_written() {
    let (_cluster, mut client) = Cluster::migrated().await;
    for name in ["a.test", "b.test", "c.test"] {
        client.batch_execute(&insert("domain", &format!("'{name}'"))).await.unwrap();
    }
    client
        .batch_execute(
            "DELETE FROM domains;
             ALTER TABLE domains ADD CONSTRAINT domains_not_these CHECK (domain NOT IN ('a.test', 'b.test'))",
        )
        .await
        .unwrap();
    let Error::Refused(restore::Error::Refused(refused)) = back(&mut client, 3).await.unwrap_err() else {
        panic!("not refused")
    };
    let mut names: Vec<_> = refused.into_iter().map(|one| one.name).collect();
    names.sort_unstable();
    assert_eq!(names, ["a.test", "b.test"]);
    assert!(lines(&client, ROWS).await.is_empty());
    assert_eq!(lines(&client, "SELECT n::text FROM revision").await, ["4"]);
}

#[tokio::test]
async fn a_revision_that_is_not_there_or_not_kept_says_which_are() {
    let (_cluster, mut client) = Cluster::migrated().await;
    for name in ["a.test", "b.test", "c.test"] {
        client.batch_execute(&insert("domain", &format!("'{name}'"))).await.unwrap();
    }
    client.batch_execute("SELECT prune_history(2)").await.unwrap();
    for (to, said) in [
        (4, "there is no revision 4; the newest is 3"),
        (0, "there is no revision 0; the newest is 3"),
        (1, "the rows of revision 1 are not kept any more; the oldest that are kept are those of 2"),
    ] {
        assert_eq!(back(&mut client, to).await.unwrap_err().to_string(), said);
    }
}

/// A row somewhere in a small world, so that rows meet.
fn row() -> impl Strategy<Value = (u128, Domain)> {
    let host = proptest::sample::select(vec!["a.test", "*.test", "b.a.test", "*.a.test"]);
    let path = proptest::sample::select(vec!["/", "/x", "/x/y"]);
    let tier = proptest::sample::select(vec!["public", "internal", "restricted"]);
    let status = proptest::sample::select(vec!["active", "active", "disabled"]);
    (0..6_u128, host, path, tier, any::<bool>(), status).prop_map(|(id, host, path, tier, auth, status)| {
        let list = if tier == "restricted" { json!(["192.0.2.0/24"]) } else { json!([]) };
        let columns = json!({ "id": Uuid::from_u128(id), "path_prefix": path, "access_tier": tier, "ip_allowlist": list,
                              "auth_required": auth, "status": status, "tls_mode": "default" });
        (id, domain_with(host, &columns))
    })
}

/// Rows as the constraints allow them: each place once.
fn rows() -> impl Strategy<Value = Rows> {
    proptest::collection::vec(row(), 0..6).prop_map(|rows| {
        let mut places = BTreeSet::new();
        let rows = rows.into_iter().filter(|(_, row)| places.insert((row.domain.clone(), row.path_prefix.clone())));
        rows.map(|(id, row)| (Key::domain(Uuid::from_u128(id)), Arc::new(Row::Domain(row)))).collect()
    })
}

proptest! {
    /// Whatever the rows were, no place is reached by more people than the newest rows say, nor without their login.
    #[test]
    fn no_place_gets_more_open(then in rows(), now in rows()) {
        let target = target(&then, &now, &settings()).rows;
        let impact = impact(&Compiler::of(&settings(), now.clone()), &Compiler::of(&settings(), target.clone()));
        prop_assert_eq!(opens(&impact), Vec::<String>::new());
    }

    /// Where nothing is protected, rows are as they were.
    #[test]
    fn open_rows_come_back_as_they_were(then in rows(), now in rows()) {
        let open = |rows: Rows| -> Rows {
            let open = |row: &Row| matches!(row, Row::Domain(row) if row.access_tier == AccessTier::Public && !row.auth_required);
            rows.into_iter().filter(|(_, row)| open(row)).collect()
        };
        let (then, now) = (open(then), open(now));
        let target = target(&then, &now, &settings());
        prop_assert_eq!(target.rows, then);
        prop_assert!(target.kept.is_empty());
    }
}

#[tokio::test]
async fn who_was_shut_out_of_the_vpn_stays_out() {
    let (_cluster, mut client) = Cluster::migrated().await;
    let peer = |name: &str, key: &str, address: &str| {
        format!(
            "INSERT INTO peers (name, public_key, addresses) VALUES ('{name}', '{key}9vYmFyZm9vYmFyZm9vYmFyZm9vYmFyZm9vYmFyMTI=', '{{{address}}}')"
        )
    };
    for sql in [
        peer("anna", "aa", "10.99.0.2").as_str(),
        &peer("ben", "bb", "10.99.0.3"),
        "UPDATE peers SET addresses = '{10.99.0.4}', notes = 'lost the first phone' WHERE name = 'ben'",
        "DELETE FROM peers WHERE name = 'anna'",
        &peer("carl", "cc", "10.99.0.2"),
    ] {
        client.batch_execute(sql).await.unwrap();
    }
    let done = back(&mut client, 2).await.unwrap();
    assert_eq!(done.kept_narrower, ["peer anna", "peer ben"]);
    let changed: Vec<_> = done.changed.iter().map(|row| (row.name.as_str(), row.op)).collect();
    assert_eq!(changed, [("peer carl", RowOp::Delete)], "who was not let in then is not now");
    assert_eq!(lines(&client, "SELECT name || addresses::text FROM peers").await, ["ben{10.99.0.4/32}"]);
}

#[tokio::test]
async fn a_key_that_was_exchanged_stays_so() {
    let (_cluster, mut client) = Cluster::migrated().await;
    let keys = [1_u8, 2, 3, 9].map(|byte| BASE64_STANDARD.encode([byte; 32]));
    let [first, second, third, theirs] = &keys;
    let site = json!([{ "interface": "wg-uk", "public_key": theirs, "own_public_key": first, "allowed_ips": [] }]);
    let end = json!([{ "interface": "wg-hub", "public_key": first, "own_public_key": theirs, "allowed_ips": [] }]);
    let rows = format!(
        "INSERT INTO sites (name, agent, networks, tunnels) VALUES ('uk', 'hub2', '{{10.44.0.0/16}}', '{site}'),
             ('hub', 'elsewhere', '{{10.99.0.1/32}}', '{end}')"
    );
    client.batch_execute(&rows).await.unwrap();
    for (old, new) in [(first, second), (second, third)] {
        let offer =
            Offer { site: "uk".to_owned(), interface: "wg-uk".to_owned(), old_key: old.clone(), new_key: new.clone() };
        let id = Uuid::new_v4();
        for (name, phase) in [
            ("hub2", Phase::Offered),
            ("elsewhere", Phase::Ready),
            ("hub2", Phase::Switching),
            ("elsewhere", Phase::Going),
            ("hub2", Phase::Committed),
        ] {
            let step = Step { phase, offer: (phase == Phase::Offered).then(|| offer.clone()), why: None };
            crate::rotations::store::tell(&mut client, name, id, &step, &author()).await.unwrap();
        }
    }
    client.batch_execute("UPDATE sites SET notes = 'newer' WHERE name = 'uk'").await.unwrap();
    back(&mut client, 1).await.unwrap();
    let sql =
        "SELECT name || ' ' || (t ->> 'public_key') || ' ' || (t ->> 'own_public_key') || ' ' || coalesce(notes, '-')
        FROM sites, jsonb_array_elements(tunnels) t ORDER BY name";
    assert_eq!(lines(&client, sql).await, [format!("hub {third} {theirs} -"), format!("uk {theirs} {third} -")]);
}
