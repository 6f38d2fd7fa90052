use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tempfile::TempDir;
use tokio_postgres::Client;

use super::{Error, Private};
use crate::postgres::{Database, assume_role, migrate};

/// Alone on 2 cores: 0.9 s for the first start, 0.2 s for the others; here other tests want the cores too.
const SOON: Duration = Duration::from_secs(10);

/// A directory that everybody may enter, and the path of a data directory in it that is not there yet.
fn directory() -> (TempDir, PathBuf) {
    let directory = tempfile::Builder::new().prefix("chprivate").tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let data = directory.path().join("data");
    (directory, data)
}

async fn start(data: &Path) -> (Private, Database) {
    try_start(data, "postgres", None).await.unwrap_or_else(|error| panic!("{error}"))
}

async fn refused(data: &Path) -> Error {
    try_start(data, "postgres", None).await.expect_err("started")
}

async fn try_start(data: &Path, run_as: &str, bin_dir: Option<&Path>) -> Result<(Private, Database), Error> {
    let (mut private, database) = Private::prepare(data, run_as, bin_dir)?;
    match private.start().await {
        Ok(()) => Ok((private, database)),
        Err(error) => {
            private.stop().await;
            Err(error)
        }
    }
}

async fn client(database: &Database) -> Client {
    crate::postgres::tests::cluster::drive(database.connect("test").await.unwrap()).0
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn pid(private: &Private) -> Pid {
    Pid::from_raw(i32::try_from(private.pid().unwrap()).unwrap()).unwrap()
}

/// Where the server that lives in `data` has its socket.
fn database_directory(data: &Path) -> PathBuf {
    super::Living::find(&data.join("postgres").canonicalize().unwrap()).unwrap().sockets
}

/// As after a `kill -9` of the provider: the server goes on, nobody holds the data directory.
fn abandon(mut private: Private) {
    std::mem::forget(private.server.take());
}

#[tokio::test]
async fn started_stopped_and_started_again_it_has_its_rows_and_leaves_nothing_behind() {
    let (_directory, data) = directory();
    let began = Instant::now();
    let (private, database) = start(&data).await;
    assert!(began.elapsed() < SOON, "first start took {:?}", began.elapsed());
    let mut connected = client(&database).await;
    migrate::migrate(&mut connected).await.unwrap();
    assume_role(&connected).await.unwrap();
    connected
        .batch_execute("INSERT INTO domains (domain, backend_host, backend_port) VALUES ('a.test', 'h', 1)")
        .await
        .unwrap();
    let attached = client(&Private::attach(&data).unwrap()).await;
    attached.query_one("SELECT domain FROM charliehub.domains", &[]).await.unwrap();
    let cluster = data.join("postgres").canonicalize().unwrap();
    let answering = || super::Living::answering(&cluster).map(|living| living.sockets);
    assert_eq!(answering().as_ref(), Some(&private.place.sockets), "also to who cannot see its process");
    assert_eq!(fs::metadata(&data).unwrap().mode() & 0o777, 0o700);

    let (process, sockets) = (pid(&private), private.place.sockets.clone());
    assert_eq!(fs::metadata(&sockets).unwrap().mode() & 0o777, 0o700);
    private.stop().await;
    assert!(test_kill_process(process).is_err());
    assert!(!sockets.exists());
    assert!(Private::attach(&data).is_none());
    assert_eq!(answering(), None);

    let began = Instant::now();
    let (private, database) = start(&data).await;
    assert!(began.elapsed() < SOON, "second start took {:?}", began.elapsed());
    client(&database).await.query_one("SELECT domain FROM charliehub.domains", &[]).await.unwrap();
    private.stop().await;
}

#[tokio::test]
async fn killed_it_comes_back_at_the_same_address_with_what_was_committed() {
    let (_directory, data) = directory();
    let (mut private, database) = start(&data).await;
    let before = client(&database).await;
    before.batch_execute("CREATE TABLE t (); INSERT INTO t DEFAULT VALUES").await.unwrap();
    let pool = database.pool(2);
    drop(pool.get().await.unwrap());
    kill_process(pid(&private), Signal::KILL).unwrap();
    let how = private.exited().await;
    assert!(how.starts_with("signal: 9"), "{how}");
    let began = Instant::now();
    private.restart().await.unwrap();
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    client(&database).await.query_one("SELECT FROM t", &[]).await.unwrap();
    pool.get().await.unwrap().query_one("SELECT FROM t", &[]).await.unwrap();
    private.stop().await;
}

#[tokio::test]
async fn a_server_that_is_still_stopping_is_waited_for() {
    let (_directory, data) = directory();
    let (private, database) = start(&data).await;
    client(&database).await.batch_execute("CREATE TABLE t ()").await.unwrap();
    let process = pid(&private);
    abandon(private);
    kill_process(process, Signal::INT).unwrap();
    let (private, database) = start(&data).await;
    assert_ne!(pid(&private), process);
    client(&database).await.batch_execute("SELECT FROM t").await.unwrap();
    private.stop().await;
}

#[tokio::test]
async fn a_server_that_outlived_its_provider_is_adopted() {
    let (_directory, data) = directory();
    let (private, _) = start(&data).await;
    let process = pid(&private);
    abandon(private);
    let (private, database) = start(&data).await;
    assert_eq!(pid(&private), process);
    client(&database).await.batch_execute("SELECT 1").await.unwrap();

    // with its socket cleaned away it is of no use: another one takes its place
    abandon(private);
    fs::remove_file(database_directory(&data).join(".s.PGSQL.5432")).unwrap();
    let (mut private, database) = start(&data).await;
    assert_ne!(pid(&private), process);
    let process = pid(&private);

    abandon(private);
    let (adopted, _) = start(&data).await;
    private = adopted;
    kill_process(process, Signal::KILL).unwrap();
    private.exited().await;
    // nobody reaps it here but us, who are its parent: in life that is init
    rustix::process::waitpid(Some(process), rustix::process::WaitOptions::empty()).unwrap();
    private.restart().await.unwrap();
    assert_ne!(pid(&private), process);
    client(&database).await.batch_execute("SELECT 1").await.unwrap();
    private.stop().await;
}

#[tokio::test]
async fn a_dead_server_and_a_half_made_cluster_are_recovered() {
    let (_directory, data) = directory();
    fs::create_dir_all(data.join("postgres.new/base")).unwrap();
    let (private, database) = start(&data).await;
    client(&database).await.batch_execute("CREATE TABLE t ()").await.unwrap();
    let process = pid(&private);
    abandon(private);
    kill_process(process, Signal::KILL).unwrap();
    rustix::process::waitpid(Some(process), rustix::process::WaitOptions::empty()).unwrap();
    let (private, database) = start(&data).await;
    client(&database).await.batch_execute("SELECT FROM t").await.unwrap();
    private.stop().await;
}

#[tokio::test]
async fn a_data_directory_of_any_length_will_do() {
    let (_directory, data) = directory();
    let data = data.join("x".repeat(60)).join("y".repeat(60));
    let (private, database) = start(&data).await;
    client(&database).await.batch_execute("SELECT 1").await.unwrap();
    assert!(data.join("postgres").symlink_metadata().unwrap().is_dir(), "it is where it was asked for");
    private.stop().await;
}

#[tokio::test]
async fn of_two_providers_on_one_data_directory_the_second_is_refused() {
    let (_directory, data) = directory();
    let (private, _) = start(&data).await;
    let error = refused(&data).await;
    assert!(matches!(error, Error::InUse(_)), "{error}");
    private.stop().await;
}

#[tokio::test]
async fn what_is_missing_is_named_with_its_remedy() {
    let (_directory, data) = directory();
    let error = try_start(&data, "postgres", Some(Path::new("/nowhere"))).await.expect_err("started");
    assert!(matches!(error, Error::NoBinaries), "{error}");
    if is_root() {
        let error = try_start(&data, "nobody-of-that-name", None).await.expect_err("started");
        assert!(error.to_string().contains("useradd"), "{error}");
    }
    let (private, _) = start(&data).await;
    let sockets = private.place.sockets.clone();
    private.stop().await;

    fs::create_dir(&sockets).unwrap();
    fs::set_permissions(&sockets, fs::Permissions::from_mode(0o777)).unwrap();
    let error = refused(&data).await;
    assert!(matches!(&error, Error::Foreign(_)), "{error}");
    fs::remove_dir(&sockets).unwrap();

    fs::write(data.join("postgres/PG_VERSION"), "9\n").unwrap();
    let error = refused(&data).await;
    assert!(matches!(error, Error::OtherMajor { made_by: 9, .. }), "{error}");
    fs::write(data.join("postgres/PG_VERSION"), "15\n").unwrap();

    fs::write(data.join("postgres/postgresql.conf"), "nonsense = 1\n").unwrap();
    let error = refused(&data).await;
    assert!(error.to_string().contains("unrecognized configuration parameter \"nonsense\""), "{error}");
    assert!(!sockets.exists(), "nothing is left behind");
}

#[tokio::test]
async fn where_its_user_cannot_go_the_cluster_is_kept_elsewhere() {
    if !is_root() {
        return; // everybody else runs it as oneself
    }
    for foreign in [false, true] {
        let (directory, data) = directory();
        if foreign {
            fs::create_dir(&data).unwrap();
            fs::write(data.join("passwd"), "").unwrap();
        } else {
            fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
        }
        let (private, database) = start(&data).await;
        client(&database).await.batch_execute("CREATE TABLE t ()").await.unwrap();
        let cluster = fs::read_link(data.join("postgres")).unwrap();
        assert!(cluster.starts_with("/var/lib/charliehub"));
        assert_eq!(fs::metadata(&data).unwrap().uid(), 0, "what holds files of others is not given away");
        private.stop().await;
        let (private, database) = start(&data).await;
        client(&database).await.batch_execute("SELECT FROM t").await.unwrap();
        private.stop().await;
        fs::remove_dir_all(&cluster).unwrap();
        let error = refused(&data).await;
        assert!(matches!(error, Error::Dangling { .. }), "{error}");
    }
}
