//! A PostgreSQL for one test: unix socket only, nothing is synced, gone with the handle.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, Client};

use crate::postgres::{Database, migrate};

const USER: &str = "postgres";

pub(crate) struct Cluster {
    directory: tempfile::TempDir,
    postmaster: Child,
    port: u16,
}

impl Cluster {
    /// Started, with an empty database `test` and superuser `owner`.
    pub(crate) async fn start() -> Self {
        Self::with(5432, &[]).await
    }

    /// On another port, with more lines of postgresql.conf, as `name=value`.
    pub(crate) async fn with(port: u16, settings: &[&str]) -> Self {
        let directory = tempfile::Builder::new().prefix("chpg").tempdir().unwrap();
        if rustix::process::geteuid().is_root() {
            assert!(Command::new("chown").arg(USER).arg(directory.path()).status().unwrap().success());
        }
        let data = directory.path().join("data");
        let made = as_server(&binaries().join("initdb"))
            .args(["--no-sync", "--auth=trust", "--username=owner", "--encoding=UTF8", "--locale=C", "-D"])
            .arg(&data)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(made.success());
        let mut command = as_server(&binaries().join("postgres"));
        command.arg("-D").arg(&data).args(["-c", "listen_addresses=", "-c", "fsync=off", "-c", "shared_buffers=16MB"]);
        // Goes with its directory, however it ends.
        command.args(["-c", "dynamic_shared_memory_type=mmap"]);
        command.arg("-c").arg(format!("unix_socket_directories={}", directory.path().display()));
        command.arg("-c").arg(format!("port={port}"));
        for setting in settings {
            command.args(["-c", setting]);
        }
        let postmaster = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let cluster = Self { directory, postmaster, port };
        let began = Instant::now();
        let client = loop {
            match cluster.database("owner", "postgres").connect("test").await {
                Ok(connected) => break drive(connected).0,
                Err(error) => assert!(began.elapsed() < Duration::from_secs(20), "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        client.batch_execute("CREATE DATABASE test").await.unwrap();
        cluster
    }

    /// Started and migrated; a connection of the owner.
    pub(crate) async fn migrated() -> (Self, Client) {
        let cluster = Self::start().await;
        let mut client = cluster.client("owner").await;
        migrate::migrate(&mut client).await.unwrap();
        let client = cluster.client("owner").await; // with the database's new search_path
        (cluster, client)
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn database(&self, user: &str, name: &str) -> Database {
        let (host, port) = (self.path().display(), self.port);
        Database::parse(&format!("host={host} port={port} user={user} dbname={name} target_session_attrs=any")).unwrap()
    }

    pub(crate) async fn client(&self, user: &str) -> Client {
        self.listener(user).await.0
    }

    /// A connection and what it is notified of.
    pub(crate) async fn listener(&self, user: &str) -> (Client, mpsc::UnboundedReceiver<(String, String)>) {
        drive(self.database(user, "test").connect("test").await.unwrap())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.postmaster.kill().unwrap();
        self.postmaster.wait().unwrap();
    }
}

/// A program as the user that the server runs as.
pub(crate) fn as_server(program: &Path) -> Command {
    let mut command = Command::new(program);
    if rustix::process::geteuid().is_root() {
        use std::os::unix::process::CommandExt as _;
        let id = |flag| {
            let output = Command::new("id").args([flag, USER]).output().unwrap().stdout;
            String::from_utf8(output).unwrap().trim().parse().unwrap()
        };
        command.uid(id("-u")).gid(id("-g"));
    }
    command.current_dir("/");
    command
}

fn binaries() -> PathBuf {
    let mut found: Vec<_> = std::fs::read_dir("/usr/lib/postgresql")
        .unwrap()
        .map(|entry| entry.unwrap().path().join("bin"))
        .filter(|bin| bin.join("initdb").exists())
        .collect();
    found.sort();
    found.pop().expect("PostgreSQL is installed")
}

/// Runs the connection and hands on its notifications.
pub(crate) fn drive(
    (client, mut connection): (Client, crate::postgres::Connection),
) -> (Client, mpsc::UnboundedReceiver<(String, String)>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    #[expect(clippy::disallowed_methods, reason = "ends with the client")]
    tokio::spawn(async move {
        let mut messages = futures_util::stream::poll_fn(|context| connection.poll_message(context));
        while let Some(Ok(message)) = messages.next().await {
            if let AsyncMessage::Notification(heard) = message {
                drop(sender.send((heard.channel().to_owned(), heard.payload().to_owned())));
            }
        }
    });
    (client, receiver)
}
