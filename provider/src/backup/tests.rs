//! Against a PostgreSQL of the test: what a story cannot make, such as a schema of yesterday.

use std::{
    fs::File,
    io::{Cursor, Write as _},
    path::Path,
    sync::Arc,
};

use tokio_postgres::Client;

use super::{
    Error, MANIFEST, Manifest,
    archive::{Entries, Writer},
    files::Partial,
    load::{Loaded, Sound, Wanted, load},
    take::{Source, digest, take},
};
use crate::{
    author::Author,
    compile::Settings,
    postgres::{migrate, tests::cluster::Cluster},
};

/// Two revisions.
async fn write_rows(client: &Client) {
    let insert = "INSERT INTO charliehub.domains (domain, backend_host, backend_port)
        SELECT 'd' || n || '.test', '127.0.0.1', 80 FROM generate_series(1, 20) n";
    let update = "UPDATE charliehub.domains SET backend_port = 81 WHERE domain = 'd3.test'";
    for sql in [insert, update] {
        client.batch_execute(sql).await.unwrap();
    }
}

fn settings() -> Arc<Settings> {
    Arc::default()
}

async fn backed_up(client: &mut Client) -> Vec<u8> {
    let settings = settings();
    let source = Source { database: "here", settings: &settings };
    take(client, source, Vec::new(), Path::new("-")).await.unwrap().1
}

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn sound(bytes: &[u8]) -> Result<Sound, Error> {
    Sound::open(file(bytes), "b.tar.gz")
}

async fn restored(client: &mut Client, bytes: &[u8], replace: Option<&Path>) -> Result<Loaded, Error> {
    let (settings, author) = (settings(), Author { actor: "ann".to_owned(), source: "restore", ..Author::default() });
    let source = Source { database: "there", settings: &settings };
    let replace = replace.map(|path| Partial::begin(path).unwrap());
    load(client, &sound(bytes)?, Wanted { source, replace, author: &author }).await
}

/// The same file with another manifest.
fn with_manifest(bytes: &[u8], change: impl FnOnce(&mut Manifest)) -> Vec<u8> {
    let mut entries = Entries::of(&file(bytes)).unwrap();
    let mut writer = Writer::new(Vec::new(), 0);
    let mut manifest = None;
    while let Some((name, content)) = entries.read().unwrap() {
        if name == MANIFEST {
            manifest = Some(serde_json::from_slice::<Manifest>(&content).unwrap());
        } else {
            writer.entry(&name, &content).unwrap();
        }
    }
    let mut manifest = manifest.unwrap();
    change(&mut manifest);
    writer.entry(MANIFEST, &serde_json::to_vec(&manifest).unwrap()).unwrap();
    writer.finish().unwrap().0
}

async fn value(client: &Client, sql: &str) -> String {
    client
        .query_one(&format!("SELECT ({sql})::text"), &[])
        .await
        .unwrap()
        .get::<_, Option<String>>(0)
        .unwrap_or_default()
}

async fn another(cluster: &Cluster, name: &str) -> Client {
    cluster.client("owner").await.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
    let connected = cluster.database("owner", name).connect("test").await.unwrap();
    crate::postgres::tests::cluster::drive(connected).0
}

#[tokio::test]
async fn a_schema_of_yesterday_comes_back_and_goes_on_to_today() {
    let cluster = Cluster::start().await;
    let mut old = cluster.client("owner").await;
    let transaction = old.transaction().await.unwrap();
    migrate::within(&transaction, migrate::newest() - 1).await.unwrap();
    transaction.commit().await.unwrap();
    write_rows(&old).await;
    let bytes = backed_up(&mut old).await;
    let mut fresh = another(&cluster, "fresh").await;
    let loaded = restored(&mut fresh, &bytes, None).await.unwrap();
    assert!(loaded.excuse.is_some_and(|why| why.contains("older schema")));
    assert_eq!(
        value(&fresh, "SELECT max(version) FROM charliehub.schema_migrations").await,
        migrate::newest().to_string()
    );
    assert_eq!(value(&fresh, "SELECT count(*) FROM charliehub.domains_as_of(1)").await, "20");

    // Over what a newer build began with: there is no way down, so that is made anew.
    let mut begun = another(&cluster, "begun").await;
    migrate::migrate(&mut begun).await.unwrap();
    restored(&mut begun, &bytes, None).await.unwrap();
    assert_eq!(value(&begun, "SELECT n FROM charliehub.revision").await, "2");
    begun.batch_execute("INSERT INTO charliehub.sites (name, networks) VALUES ('uk', '{10.44.0.0/16}')").await.unwrap();
    assert_eq!(value(&begun, "SELECT count(*) FROM charliehub.audit_breaks()").await, "0", "and it goes on");
}

#[tokio::test]
async fn what_is_there_is_not_lost_by_mistake() {
    let (cluster, mut client) = Cluster::migrated().await;
    write_rows(&client).await;
    let before = backed_up(&mut client).await;
    client.batch_execute("DELETE FROM domains WHERE domain < 'd2'").await.unwrap();
    let error = restored(&mut client, &before, None).await.unwrap_err().to_string();
    assert!(error.contains("domains") && error.contains("--replace"), "{error}");
    let wanted = digest(&client, &settings()).await.unwrap();

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("replaced.tar.gz");
    let loaded = restored(&mut client, &before, Some(&path)).await.unwrap();
    assert_eq!(loaded.replaced.unwrap().path(), path);
    assert_eq!(value(&client, "SELECT count(*) FROM domains").await, "20");
    assert_eq!(value(&client, "SELECT detail ->> 'revision' FROM audit_events WHERE kind = 'restore'").await, "2");
    assert_eq!(
        value(&client, "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'domains'::regclass AND tgenabled = 'A'").await,
        "6",
        "triggers are on as they were"
    );
    // And what was replaced comes back just so.
    let mut fresh = another(&cluster, "fresh").await;
    let loaded =
        restored(&mut fresh, &std::fs::read(&path).unwrap(), Some(&directory.path().join("none"))).await.unwrap();
    assert!(loaded.replaced.is_none() && !directory.path().join("none").exists(), "nothing was there");
    assert_eq!((loaded.digest, loaded.excuse), (wanted, None));
    // The next revision and the next event follow the last ones.
    fresh.batch_execute("DELETE FROM charliehub.domains WHERE domain = 'd2.test'").await.unwrap();
    assert_eq!(value(&fresh, "SELECT max(revision) FROM charliehub.revisions").await, "4");
    assert_eq!(value(&fresh, "SELECT count(*) FROM charliehub.audit_breaks()").await, "0");
}

#[tokio::test]
async fn a_foreign_or_newer_file_writes_nothing() {
    let (cluster, mut client) = Cluster::migrated().await;
    write_rows(&client).await;
    client.batch_execute("CREATE TABLE notes (line text); INSERT INTO notes VALUES ('mine')").await.unwrap();
    let bytes = backed_up(&mut client).await;
    let newer = with_manifest(&bytes, |manifest| {
        let mut next = manifest.migrations.last().unwrap().clone();
        next.version += 1;
        manifest.migrations.push(next);
    });
    let edited = with_manifest(&bytes, |manifest| manifest.migrations[2].sha256 = "0".repeat(64));
    let miscounted = with_manifest(&bytes, |manifest| manifest.tables[0].rows += 1);
    let unknown = with_manifest(&bytes, |manifest| manifest.tables.retain(|table| table.name != "domains"));
    let moved = with_manifest(&bytes, |manifest| manifest.digest = Some("0".repeat(64)));
    let mut fresh = another(&cluster, "fresh").await;
    for (what, bytes, why) in [
        ("newer", newer, "install the newer"),
        ("edited", edited, "is not the one of this build"),
        ("miscounted", miscounted, "not what its manifest says"),
        ("unknown", unknown, "does not know table domains"),
        ("moved", moved, "compile to digest"),
    ] {
        let error = restored(&mut fresh, &bytes, None).await.unwrap_err().to_string();
        assert!(error.contains(why), "{what}: {error}");
        assert_eq!(value(&fresh, "SELECT to_regnamespace('charliehub')").await, "", "{what}: nothing is written");
    }
    let loaded = restored(&mut fresh, &bytes, None).await.unwrap();
    assert_eq!(loaded.left_out, ["notes"], "what the schema has not is named");
}

#[tokio::test]
async fn a_broken_audit_is_told_and_comes_back_as_broken_as_it_was() {
    let (cluster, mut client) = Cluster::migrated().await;
    write_rows(&client).await;
    client
        .batch_execute(
            "ALTER TABLE history DISABLE TRIGGER append_only; UPDATE history SET new = '{}' WHERE revision = 2;
             ALTER TABLE history ENABLE ALWAYS TRIGGER append_only",
        )
        .await
        .unwrap();
    let bytes = backed_up(&mut client).await;
    let mut fresh = another(&cluster, "fresh").await;
    let loaded = restored(&mut fresh, &bytes, None).await.unwrap();
    assert_eq!(loaded.broken.len(), 1, "{:?}", loaded.broken);
    let whole = with_manifest(&bytes, |manifest| manifest.broken.clear());
    let mut other = another(&cluster, "other").await;
    assert!(matches!(restored(&mut other, &whole, None).await, Err(Error::Broken(_))));
}

#[tokio::test]
async fn nothing_to_back_up_is_an_error_and_a_pipe_is_read_twice() {
    let cluster = Cluster::start().await;
    let mut client = cluster.client("owner").await;
    let settings = settings();
    let source = Source { database: "here", settings: &settings };
    let error = take(&mut client, source, Vec::new(), Path::new("-")).await.unwrap_err().to_string();
    assert!(error.contains("here has no schema"), "{error}");
    migrate::migrate(&mut client).await.unwrap();
    let bytes = backed_up(&mut client).await;
    let file = super::load::rewindable(Path::new("-"), Cursor::new(&bytes)).unwrap();
    assert_eq!(Sound::open(file, "-").unwrap().manifest.rows("domains"), 0);
    let error = super::load::rewindable(Path::new("/nowhere"), Cursor::new(&bytes)).unwrap_err().to_string();
    assert!(error.contains("is the path right?"), "{error}");
}
