use super::cluster::Cluster;
use crate::postgres::migrate::{Error, FILES, migrate};
use crate::postgres::{Database, assume_role};

#[tokio::test]
async fn migrating_again_does_nothing_and_an_edited_file_is_refused() {
    let cluster = Cluster::start().await;
    let mut client = cluster.client("owner").await;
    let first = migrate(&mut client).await.unwrap();
    assert_eq!(first.now.len(), FILES.len());
    assert!(!first.newer);
    let second = migrate(&mut client).await.unwrap();
    assert!(second.now.is_empty());
    assert_eq!(second.version, first.version);

    client.batch_execute("INSERT INTO charliehub.schema_migrations VALUES (9999, 'later', '')").await.unwrap();
    assert!(migrate(&mut client).await.unwrap().newer);

    client.batch_execute("UPDATE charliehub.schema_migrations SET sha256 = 'x' WHERE version = 2").await.unwrap();
    let error = migrate(&mut client).await.unwrap_err();
    assert!(matches!(&error, Error::Edited(name) if name == "0002_source_of_truth"), "{error}");
}

#[tokio::test]
async fn of_many_at_once_one_migrates_also_beside_another_database() {
    let cluster = Cluster::start().await;
    cluster.client("owner").await.batch_execute("CREATE DATABASE other").await.unwrap();
    let other = cluster.database("owner", "other");
    let test = cluster.database("owner", "test");
    let run = |database: Database| async move {
        let (mut client, _) = super::cluster::drive(database.connect("test").await.unwrap());
        migrate(&mut client).await.unwrap().now.len()
    };
    let (a, b, c, d) = tokio::join!(run(test.clone()), run(test), run(other.clone()), run(other));
    assert_eq!((a + b, c + d), (FILES.len(), FILES.len()));
}

#[tokio::test]
async fn an_owner_who_is_no_superuser_migrates_and_steps_down() {
    let cluster = Cluster::start().await;
    let admin = cluster.client("owner").await;
    admin.batch_execute("CREATE ROLE hub LOGIN CREATEROLE; ALTER DATABASE test OWNER TO hub").await.unwrap();
    let mut client = cluster.client("hub").await;
    migrate(&mut client).await.unwrap();
    assume_role(&client).await.unwrap();
    let role: String = client.query_one("SELECT current_user::text", &[]).await.unwrap().get(0);
    assert_eq!(role, "charliehub_app");
    let again = migrate(&mut client).await.unwrap();
    assert!(again.now.is_empty());
}

#[tokio::test]
async fn without_the_right_to_make_roles_the_owner_runs_as_itself() {
    let cluster = Cluster::start().await;
    let admin = cluster.client("owner").await;
    admin.batch_execute("CREATE ROLE hub LOGIN; ALTER DATABASE test OWNER TO hub").await.unwrap();
    let mut client = cluster.client("hub").await;
    migrate(&mut client).await.unwrap();
    assume_role(&client).await.unwrap();
    let insert = "INSERT INTO domains (domain, backend_host, backend_port) VALUES ('a.test', 'h', 1)";
    client.batch_execute(insert).await.unwrap();
    let role: String = client.query_one("SELECT current_user::text", &[]).await.unwrap().get(0);
    assert_eq!(role, "hub");

    admin.batch_execute("CREATE ROLE charliehub_app; GRANT charliehub_app TO hub").await.unwrap();
    client.batch_execute("SELECT charliehub.grant_rights()").await.unwrap();
    assume_role(&client).await.unwrap();
    let role: String = client.query_one("SELECT current_user::text", &[]).await.unwrap().get(0);
    assert_eq!(role, "charliehub_app");
}

#[tokio::test]
async fn a_user_without_rights_is_told_so() {
    let cluster = Cluster::start().await;
    cluster.client("owner").await.batch_execute("CREATE ROLE guest LOGIN").await.unwrap();
    let error = migrate(&mut cluster.client("guest").await).await.unwrap_err();
    assert!(matches!(error, Error::Forbidden { .. }), "{error}");
    assert!(!error.is_transient());
}

#[tokio::test]
async fn the_functions_work_whatever_the_search_path() {
    let (_cluster, client) = Cluster::migrated().await;
    client
        .batch_execute(
            "SET search_path = pg_catalog;
             INSERT INTO charliehub.domains (domain, backend_host, backend_port, labels, middlewares)
             VALUES ('a.test', '::1', 1, '{\"a\":\"b\"}', '{m}');
             UPDATE charliehub.domains SET backend_port = 2;
             SELECT * FROM charliehub.domains_as_of(1);
             SELECT charliehub.prune_history(1), charliehub.prune_snapshots(), charliehub.lock_revision();
             TRUNCATE charliehub.domains;",
        )
        .await
        .unwrap();
}
