use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;

use super::cluster::{Cluster, as_server};
use crate::postgres::{Database, Error, major, migrate};

/// The error of `url`, which must not hold the password.
async fn failure(url: &str) -> Error {
    let database = match Database::parse(url) {
        Ok(database) => database,
        Err(error) => return error,
    };
    let error = database.connect("test").await.err().expect(url);
    for shown in [error.to_string(), format!("{error:?}"), database.display(), format!("{database:?}")] {
        assert!(!shown.contains("s3cret"), "{shown}");
    }
    assert_eq!(error.to_string().lines().count(), 1);
    error
}

#[tokio::test]
async fn each_failure_says_what_to_do() {
    let cluster = Cluster::start().await;
    let admin = cluster.client("owner").await;
    admin.batch_execute("CREATE ROLE bob LOGIN PASSWORD 'right'").await.unwrap();
    let hba = cluster.path().join("data/pg_hba.conf");
    std::fs::write(&hba, "local all bob scram-sha-256\nlocal all all trust\n").unwrap();
    let at = cluster.path().display().to_string();
    admin.batch_execute("SELECT pg_reload_conf()").await.unwrap();

    let error = loop {
        // the postmaster takes a moment to read its file again
        match Database::parse(&format!("host={at} user=bob password=s3cret dbname=test")).unwrap().connect("t").await {
            Ok(_) => tokio::task::yield_now().await,
            Err(error) => break error,
        }
    };
    assert!(matches!(&error, Error::Refused { user, .. } if user == "bob"), "{error}");
    assert!(!error.is_transient());
    let error = failure(&format!("host={at} user=owner password=s3cret dbname=nope")).await;
    assert!(matches!(&error, Error::NoDatabase { name, .. } if name == "nope"), "{error}");
    let error = failure("postgres://u:s3cret@127.0.0.1:1/d").await;
    assert!(error.is_transient(), "{error}");
    assert!(error.to_string().starts_with("no answer from PostgreSQL at 127.0.0.1:1: Connection refused"), "{error}");
    let error = failure("postgres://u:s3cret@127.0.0.1/d?sslmode=maybe").await;
    assert!(error.to_string().contains("sslmode=maybe"), "{error}");
    let error = failure("postgres://u:s3cret@127.0.0.1/d?tls=on").await;
    assert!(error.to_string().contains("unknown option `tls`"), "{error}");
    failure("postgres:///d").await;
}

#[tokio::test]
async fn a_host_that_accepts_and_says_nothing_is_passed_over() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = silent.local_addr().unwrap();
    let began = Instant::now();
    let error = failure(&format!("postgres://u@{at}/d?connect_timeout=1")).await;
    assert!(matches!(error, Error::Silent { .. }), "{error}");
    assert!(error.is_transient());
    assert!(began.elapsed() < Duration::from_millis(1900), "{:?}", began.elapsed());
}

#[tokio::test]
async fn of_two_hosts_the_one_that_lets_us_write_is_used() {
    let standby = Cluster::start().await;
    let read_only = "ALTER DATABASE test SET default_transaction_read_only = on";
    standby.client("owner").await.batch_execute(read_only).await.unwrap();
    let primary = Cluster::start().await;
    let hosts = format!("{},{}", standby.path().display(), primary.path().display());
    let database = Database::parse(&format!("host={hosts} user=owner dbname=test")).unwrap();
    let (client, _) = super::cluster::drive(database.connect("test").await.unwrap());
    client.batch_execute("CREATE TABLE here ()").await.unwrap();
    let pooled = database.pool(2).get().await.unwrap();
    pooled.batch_execute("SELECT * FROM public.here").await.unwrap();
    let error = failure(&format!("host={} user=owner dbname=test", standby.path().display())).await;
    assert!(matches!(error, Error::ReadOnly { .. }), "{error}");
}

#[tokio::test]
async fn sslmode_means_what_it_means_to_libpq() {
    let directory = tempfile::Builder::new().prefix("chtls").tempdir().unwrap();
    let (certificate, key) = (directory.path().join("s.crt"), directory.path().join("s.key"));
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    if rustix::process::geteuid().is_root() {
        assert!(Command::new("chown").arg("postgres").args([&certificate, &key]).status().unwrap().success());
    }
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let _cluster = Cluster::with(
        port,
        &[
            "listen_addresses=127.0.0.1",
            "ssl=on",
            &format!("ssl_cert_file={}", certificate.display()),
            &format!("ssl_key_file={}", key.display()),
        ],
    )
    .await;
    let root = certificate.display();
    for (host, options, encrypted) in [
        ("127.0.0.1", "sslmode=disable".to_owned(), Some(false)),
        ("127.0.0.1", "sslmode=prefer".to_owned(), Some(true)),
        ("127.0.0.1", "sslmode=require".to_owned(), Some(true)),
        ("127.0.0.1", format!("sslmode=verify-ca&sslrootcert={root}"), Some(true)),
        ("127.0.0.1", format!("sslmode=verify-full&sslrootcert={root}"), None),
        ("localhost", format!("sslmode=verify-full&sslrootcert={root}"), Some(true)),
        ("localhost", "sslmode=verify-full&sslrootcert=/nowhere".to_owned(), None),
    ] {
        let url = format!("postgres://owner@{host}:{port}/test?{options}");
        let Some(encrypted) = encrypted else {
            let error = failure(&url).await;
            assert!(matches!(error, Error::Tls { .. } | Error::TlsSetup(_)), "{url}: {error}");
            continue;
        };
        let (client, _) = super::cluster::drive(Database::parse(&url).unwrap().connect("test").await.unwrap());
        let row = client.query_one("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", &[]).await.unwrap();
        assert_eq!(row.get::<_, bool>(0), encrypted, "{url}");
    }
}

#[tokio::test]
async fn a_transaction_pooler_in_between_does_not_stop_a_migration() {
    let cluster = Cluster::start().await;
    let at = cluster.path().display();
    let config = cluster.path().join("pgbouncer.ini");
    let lines = format!(
        "[databases]\ntest = host={at} user=owner\n[pgbouncer]\npool_mode = transaction\nauth_type = any\n\
         listen_addr =\nlisten_port = 6432\nunix_socket_dir = {at}\nlogfile = {at}/pgbouncer.log\n"
    );
    std::fs::write(&config, lines).unwrap();
    let mut pooler = as_server(Path::new("pgbouncer")).arg("-q").arg(&config).spawn().unwrap();
    let database = Database::parse(&format!("host={at} port=6432 user=owner dbname=test")).unwrap();
    let began = Instant::now();
    let connected = loop {
        match database.connect("test").await {
            Ok(connected) => break connected,
            Err(error) => assert!(began.elapsed() < Duration::from_secs(10), "{error}"),
        }
        tokio::task::yield_now().await;
    };
    let (mut client, _) = super::cluster::drive(connected);
    assert_eq!(migrate::migrate(&mut client).await.unwrap().now.len(), migrate::FILES.len());
    let ours = database.pool(1).get().await.unwrap();
    ours.query_typed("SELECT n FROM charliehub.revision", &[]).await.unwrap();
    pooler.kill().unwrap();
    pooler.wait().unwrap();
}

#[test]
fn a_version_is_read_from_what_the_server_says() {
    for (text, version) in
        [("15.18 (Debian 15.18-1)", Some(15)), ("17beta1", Some(17)), ("9.6.24", Some(9)), ("", None)]
    {
        assert_eq!(major(text), version, "{text}");
    }
}

#[test]
fn what_psql_is_given_leads_to_the_same_place() {
    let database =
        Database::parse("postgres://u:s3cret@a,b:5433/d?sslmode=require&target_session_attrs=primary").unwrap();
    assert_eq!(database.display(), "a:5432,b:5433/d");
    let environment = database.environment();
    for (name, value) in
        [("PGHOST", "a,b"), ("PGPORT", "5432,5433"), ("PGPASSWORD", "s3cret"), ("PGSSLMODE", "require")]
    {
        assert!(environment.contains(&(name, value.to_owned())), "{name}");
    }
}
