//! A throw-away PostgreSQL cluster: started, hurt and healed by a story.
//!
//! `initdb` runs once per machine and user: later clusters are copies of a template that is never started. The server is
//! our own child, so its process ids and exit are known. Stories talk to it by the unix socket, which no fault of the
//! network touches; the provider by TCP.

use std::{
    fs::OpenOptions,
    io::Write,
    net::{IpAddr, Ipv4Addr},
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::fs::{FlockOperation, flock};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use crate::{
    Home, Netns, Output, Process, Signal, is_root,
    process::{guarded, signal_pid, sweep},
    secs, until,
};

const CONFIG: &str = "
shared_buffers = 16MB
max_connections = 60
fsync = off
dynamic_shared_memory_type = mmap
wal_level = replica
wal_keep_size = 64MB
hot_standby = on
log_line_prefix = '%m [%p] %a '
log_min_messages = warning
timezone = 'UTC'
";

/// How `pg_ctl stop -m` calls it.
#[derive(Clone, Copy, Debug)]
pub enum Stop {
    Fast,
    Immediate,
}

/// Where a cluster lives, when not in the home and on loopback.
#[derive(Default)]
pub struct Options<'a> {
    /// Parent of the data directory.
    pub under: Option<&'a Path>,
    pub netns: Option<&'a Netns>,
}

pub struct Postgres {
    home: Home,
    name: String,
    data: PathBuf,
    sockets: PathBuf,
    address: IpAddr,
    port: u16,
    enter: Option<[String; 2]>,
    process: Option<Process>,
}

impl Postgres {
    pub async fn start(home: &Home) -> Self {
        Self::start_with(home, Options::default()).await
    }

    pub async fn start_with(home: &Home, options: Options<'_>) -> Self {
        let mut this = Self::prepare(home, &options);
        let template = template();
        copy(&template, &this.data);
        this.configure();
        this.up().await;
        this
    }

    fn prepare(home: &Home, options: &Options<'_>) -> Self {
        let port = home.port();
        let name = format!("postgres-{port}");
        let sockets = home.join(format!("s{port}"));
        std::fs::create_dir(&sockets).expect("a directory for the socket");
        give(&sockets);
        Self {
            home: home.clone(),
            data: options.under.unwrap_or(home.path()).join(&name),
            name,
            sockets,
            address: options.netns.map_or(Ipv4Addr::LOCALHOST.into(), Netns::ip),
            port,
            enter: options.netns.map(Netns::enter),
            process: None,
        }
    }

    fn configure(&self) {
        let mut file = OpenOptions::new().append(true).open(self.data.join("postgresql.conf")).expect("its config");
        write!(
            file,
            "{CONFIG}\nlisten_addresses = '{}'\nport = {}\nunix_socket_directories = '{}'\n",
            self.address,
            self.port,
            self.sockets.display()
        )
        .expect("write its config");
        let mut hba = OpenOptions::new().append(true).open(self.data.join("pg_hba.conf")).expect("pg_hba.conf");
        writeln!(hba, "host all all 0.0.0.0/0 trust\nhost replication all 0.0.0.0/0 trust").expect("write pg_hba.conf");
    }

    /// Starts it (again) and waits until it answers. A start that is refused because children of a killed predecessor
    /// still live is tried again.
    pub async fn up(&mut self) {
        self.launch();
        let config = self.config();
        let name = self.name.clone();
        until(&format!("{name} answers"), secs(20), async || {
            if self.process.as_mut().is_none_or(|p| p.exit().is_some()) {
                self.launch();
            }
            try_connect(&self.home, &config).await.map(drop).map_err(|e| e.to_string())
        })
        .await;
    }

    fn launch(&mut self) {
        let postgres = binary("postgres");
        let mut command = guarded(user(), "QUIT", &postgres);
        if let Some([program, net]) = &self.enter {
            let mut inside = Command::new(program);
            inside.arg(net).arg(command.get_program()).args(command.get_args());
            command = inside;
        }
        command.arg("-D").arg(&self.data);
        self.process = Some(Process::start(&self.home, &self.name, command));
    }

    /// For the provider.
    pub fn url(&self) -> String {
        self.url_at(self.address, self.port)
    }

    /// The same database by another way, such as a pooler or a relay.
    pub fn url_at(&self, address: IpAddr, port: u16) -> String {
        format!("postgres://postgres@{address}:{port}/charliehub")
    }

    pub fn host_and_port(&self) -> (IpAddr, u16) {
        (self.address, self.port)
    }

    pub fn data(&self) -> &Path {
        &self.data
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("a running cluster").pid()
    }

    /// By the unix socket.
    pub fn config(&self) -> Config {
        let mut config = Config::new();
        config.host_path(&self.sockets).port(self.port).user("postgres").dbname("charliehub");
        config.application_name("story").connect_timeout(secs(2));
        config
    }

    pub async fn connect(&self) -> Client {
        try_connect(&self.home, &self.config()).await.expect("a connection to the cluster")
    }

    /// As `psql -c`: a connection of its own, several statements are one transaction.
    pub async fn try_sql(&self, sql: &str) -> Result<Vec<Vec<String>>, tokio_postgres::Error> {
        let client = try_connect(&self.home, &self.config()).await?;
        let messages = client.simple_query(sql).await?;
        let mut rows = Vec::new();
        for message in &messages {
            if let SimpleQueryMessage::Row(row) = message {
                rows.push((0..row.len()).map(|i| row.get(i).unwrap_or_default().to_owned()).collect());
            }
        }
        Ok(rows)
    }

    pub async fn sql(&self, sql: &str) -> Vec<Vec<String>> {
        self.try_sql(sql).await.unwrap_or_else(|e| panic!("{sql}: {}", describe(&e)))
    }

    /// The first column of the first row.
    pub async fn value(&self, sql: &str) -> String {
        self.sql(sql).await.into_iter().flatten().next().unwrap_or_else(|| panic!("no row: {sql}"))
    }

    /// The newest committed revision.
    pub async fn revision(&self) -> u64 {
        self.value("SELECT n FROM revision").await.parse().expect("a revision")
    }

    /// The backend that the provider listens on.
    pub async fn listener(&self) -> u32 {
        until("the provider listens", secs(5), async || {
            let sql = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'charliehub-provider listen%' \
                       ORDER BY backend_start DESC";
            let rows = self.sql(sql).await;
            rows.first().map(|r| r[0].parse().expect("a pid")).ok_or("no listening backend")
        })
        .await
        .0
    }

    pub fn signal(&self, signal: Signal) {
        signal_pid(self.pid(), signal);
    }

    pub fn signal_backend(&self, pid: u32, signal: Signal) {
        signal_pid(pid, signal);
    }

    pub async fn stop(&mut self, how: Stop) {
        if let Some(mut process) = self.process.take() {
            process.signal(match how {
                Stop::Fast => Signal::INT,
                Stop::Immediate => Signal::QUIT,
            });
            process.ended(secs(20)).await;
        }
    }

    pub async fn restart(&mut self, how: Stop) {
        self.stop(how).await;
        self.up().await;
    }

    /// `kill -9` of the postmaster; its children notice by themselves.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// A streaming standby of this cluster, caught up.
    pub async fn standby(&self) -> Self {
        let mut standby = Self::prepare(&self.home, &Options::default());
        let mut command = guarded(user(), "KILL", binary("pg_basebackup"));
        command.args(["-R", "-X", "stream", "-c", "fast", "--no-sync", "-U", "postgres", "-p", &self.port.to_string()]);
        command.arg("-h").arg(&self.sockets).arg("-D").arg(&standby.data);
        if let Some(user) = user() {
            // It makes the data directory itself, as the user who will run it.
            std::fs::create_dir(&standby.data).expect("the standby's directory");
            chmod(&standby.data, 0o700);
            give_to(&standby.data, user);
        }
        let out = command.output().expect("pg_basebackup");
        assert!(out.status.success(), "pg_basebackup: {}", String::from_utf8_lossy(&out.stderr));
        standby.configure();
        standby.up().await;
        standby
    }

    /// One that is not there yet: whoever calls fills its data directory, then says [`Postgres::adopt`].
    pub fn beside(home: &Home) -> Self {
        let this = Self::prepare(home, &Options::default());
        std::fs::create_dir(&this.data).expect("its data directory");
        chmod(&this.data, 0o700);
        give(&this.data);
        this
    }

    /// Gives what others put into its data directory the address of this one, and starts it.
    pub async fn adopt(&mut self) {
        self.configure();
        self.up().await;
    }

    /// Makes a file the server's user's.
    pub fn give(&self, path: &Path) {
        give(path);
    }

    /// A program as the user of the server, told by libpq's variables where that is.
    pub async fn program(&self, program: &Path, args: &[&str], more: &[(&str, &str)]) -> Output {
        let mut command = guarded(user(), "KILL", program);
        command.args(args).current_dir("/").env("PGDATA", &self.data).env("PGHOST", &self.sockets);
        command.env("PGPORT", self.port.to_string()).envs(more.iter().copied());
        Output::of(command.into()).await
    }

    /// Waits until `standby` has replayed everything that is committed here.
    pub async fn caught_up(&self, standby: &Self) {
        let end = self.value("SELECT pg_current_wal_lsn()").await;
        until("the standby has replayed all", secs(10), async || {
            let sql = format!("SELECT pg_last_wal_replay_lsn() >= '{end}'::pg_lsn");
            (standby.value(&sql).await == "t").then_some(()).ok_or("behind")
        })
        .await;
    }

    /// A client program of PostgreSQL, such as `pg_dump`, on this cluster. A restore locks tables in an order of its own: who
    /// reads meanwhile gives way to it in a deadlock.
    pub async fn tool(&self, program: &str, args: &[&str]) {
        let mut command = tokio::process::Command::new(binary(program));
        command.arg("-h").arg(&self.sockets).args(["-p", &self.port.to_string(), "-U", "postgres"]).args(args);
        command.env("PGOPTIONS", "-c deadlock_timeout=1min");
        let out = command.output().await.unwrap_or_else(|e| panic!("cannot run {program}: {e}"));
        assert!(out.status.success(), "{program}: {}", String::from_utf8_lossy(&out.stderr));
    }

    pub async fn promote(&self) {
        self.value("SELECT pg_promote(true, 20)").await;
    }

    pub fn log(&self) -> String {
        self.process.as_ref().map(Process::log).unwrap_or_default()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            process.signal(Signal::CONT);
            process.signal(Signal::QUIT);
        }
        self.process = None;
        sweep(&self.data);
        free_memory(&self.data);
    }
}

/// Takes away what a killed cluster leaves: the shared memory by which a postmaster knows its predecessor, which would stay
/// until the machine starts anew. A machine has 4096 such segments.
pub(crate) fn free_memory(data: &Path) {
    let Ok(file) = std::fs::read_to_string(data.join("postmaster.pid")) else { return };
    if let Some(id) = file.lines().nth(6).and_then(|line| line.split_whitespace().nth(1)) {
        Command::new("ipcrm").args(["-m", id]).stderr(Stdio::null()).status().ok();
    }
}

pub(crate) async fn try_connect(home: &Home, config: &Config) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = config.connect(NoTls).await?;
    home.tasks().spawn(async move { drop(connection.await) });
    Ok(client)
}

/// The server's words, when there are any.
pub(crate) fn describe(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), |e| format!("{} {}", e.code().code(), e.message()))
}

/// A cluster made once, with database `charliehub`, and never started.
fn template() -> PathBuf {
    let shared = crate::home::shared();
    std::fs::create_dir_all(&shared).expect("the shared directory");
    chmod(&shared, 0o755);
    let lock = OpenOptions::new().create(true).append(true).open(shared.join("template.lock")).expect("a lock file");
    flock(&lock, FlockOperation::LockExclusive).expect("the lock of the template");
    let version =
        String::from_utf8_lossy(&Command::new(binary("postgres")).arg("-V").output().expect("version").stdout)
            .trim()
            .replace(|c: char| !c.is_ascii_alphanumeric() && c != '.', "-");
    let ready = shared.join(format!("template-{version}"));
    if ready.exists() {
        return ready;
    }
    let fresh = shared.join("template-new");
    std::fs::remove_dir_all(&fresh).ok();
    std::fs::create_dir(&fresh).expect("a directory for the template");
    give(&fresh);
    let mut initdb = guarded(user(), "KILL", binary("initdb"));
    initdb.args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync", "--wal-segsize=1", "-D"]);
    must(initdb.arg(&fresh));
    let mut single = guarded(user(), "KILL", "sh");
    single.args(["-c", r#"echo 'CREATE DATABASE charliehub' | "$0" --single -F -D "$1" postgres"#]);
    must(single.arg(binary("postgres")).arg(&fresh));
    std::fs::rename(&fresh, &ready).expect("the template in its place");
    ready
}

fn must(command: &mut Command) {
    let out = command.output().expect("a program of PostgreSQL");
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
}

fn copy(from: &Path, to: &Path) {
    must(Command::new("cp").arg("-a").arg(from).arg(to));
}

/// PostgreSQL refuses to run as root.
pub(crate) fn user() -> Option<&'static str> {
    is_root().then_some("postgres")
}

fn give(path: &Path) {
    if let Some(user) = user() {
        give_to(path, user);
    }
}

pub(crate) fn give_to(path: &Path, user: &str) {
    let passwd = std::fs::read_to_string("/etc/passwd").expect("the users");
    let line = passwd.lines().find(|l| l.starts_with(&format!("{user}:"))).expect("the user postgres");
    let ids: Vec<u32> = line.split(':').skip(2).take(2).map(|n| n.parse().expect("an id")).collect();
    chown(path, Some(ids[0]), Some(ids[1])).expect("chown");
}

fn chmod(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("chmod");
}

/// The newest server on this machine: Debian's directories, else `PATH`.
pub(crate) fn binary(name: &str) -> PathBuf {
    let mut found: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|e| Some((e.file_name().to_str()?.parse().ok()?, e.path().join("bin").join(name))))
        .filter(|(_, path)| path.exists())
        .collect();
    found.sort();
    found.pop().map_or_else(|| PathBuf::from(name), |(_, path)| path)
}
