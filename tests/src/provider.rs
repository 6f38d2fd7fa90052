//! The real `charliehub-provider`, as built next to the tests, with a data directory of its own.

use std::{
    collections::BTreeMap,
    fmt::Write,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use hyper::Method;
use rustix::{
    io::{FdFlags, fcntl_setfd},
    net::listen,
};

use crate::{
    Answer, Connection, Home, Process, Signal, Stream, Watch,
    postgres::free_memory,
    process::{guarded, sweep},
    secs, until,
};

/// What a command said.
#[derive(Debug)]
pub struct Output {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Output {
    /// Of a command that ends by itself. The deadline is for a machine that does much else: it may sync a whole cluster.
    pub(crate) async fn of(mut command: tokio::process::Command) -> Self {
        command.stdin(Stdio::null()).kill_on_drop(true);
        let out = tokio::time::timeout(secs(90), command.output()).await;
        let out = out.unwrap_or_else(|_| panic!("{command:?} did not end in 90 s")).expect("our own binary");
        Self {
            code: out.status.code(),
            out: String::from_utf8_lossy(&out.stdout).into_owned(),
            err: String::from_utf8_lossy(&out.stderr).into_owned(),
        }
    }
}

pub struct Provider {
    home: Home,
    name: String,
    settings: BTreeMap<String, BTreeMap<String, String>>,
    /// Tables that are there more than once, as TOML has them.
    tables: String,
    data: PathBuf,
    address: SocketAddr,
    token: Option<String>,
    process: Option<Process>,
    /// Where systemd would hold it.
    socket: Option<TcpListener>,
}

impl Provider {
    /// Not started yet. Without `[database] url` it runs its embedded PostgreSQL.
    pub fn new(home: &Home, name: &str) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, home.port()));
        let this = Self {
            home: home.clone(),
            name: name.to_owned(),
            settings: BTreeMap::new(),
            tables: String::new(),
            data: home.join(format!("{name}-data")),
            address,
            token: None,
            process: None,
            socket: None,
        };
        this.set("serve", "listen", &format!("\"{address}\""))
            .set("compile", "entry_points", r#"["web", "websecure", "mqtt"]"#)
            .set("compile", "self_url", &format!("\"http://{address}\""))
            .set("access", "internal_networks", r#"["10.44.0.0/16", "10.35.0.0/16"]"#)
    }

    /// A line of its configuration; the value as TOML has it.
    #[must_use]
    pub fn set(mut self, section: &str, key: &str, value: &str) -> Self {
        self.settings.entry(section.to_owned()).or_default().insert(key.to_owned(), value.to_owned());
        self
    }

    /// A table that may be there more than once, such as `[[webhook]]`, with its lines.
    #[must_use]
    pub fn table(mut self, text: &str) -> Self {
        writeln!(self.tables, "{text}").unwrap();
        self
    }

    /// Changes a line for the next start.
    pub fn change(&mut self, section: &str, key: &str, value: &str) {
        self.settings.entry(section.to_owned()).or_default().insert(key.to_owned(), value.to_owned());
    }

    /// A `[[traefik]]` with these lines.
    #[must_use]
    pub fn traefik(self, lines: &str) -> Self {
        self.table(&format!("[[traefik]]\n{lines}"))
    }

    #[must_use]
    pub fn database(self, url: &str) -> Self {
        self.set("database", "url", &format!("\"{url}\""))
    }

    #[must_use]
    pub fn data_dir(mut self, path: &Path) -> Self {
        path.clone_into(&mut self.data);
        self
    }

    #[must_use]
    pub async fn start(mut self) -> Self {
        self.up().await;
        self
    }

    /// Starts it (again) and waits until `/healthz` answers; tells how long that took.
    pub async fn up(&mut self) -> Duration {
        self.launch();
        until("the provider answers /healthz", secs(20), async || {
            if let Some(status) = self.process.as_mut().and_then(Process::exit) {
                panic!("the provider ended: {status}");
            }
            self.try_get("/healthz").await.map(drop)
        })
        .await
        .1
    }

    /// Starts it without waiting.
    pub fn launch(&mut self) {
        let mut command = self.command();
        command.arg("serve");
        if let Some(socket) = &self.socket {
            fcntl_setfd(socket, FdFlags::empty()).expect("a socket to hand on");
            command = handing(socket, &command);
        }
        self.process = Some(Process::start(&self.home, &self.name, command));
        if let Some(socket) = &self.socket {
            fcntl_setfd(socket, FdFlags::CLOEXEC).expect("a socket of our own");
        }
    }

    /// From its next start on it serves on a socket that stays open between its starts, as a socket unit has it.
    pub fn hold_socket(&mut self) {
        let socket = TcpListener::bind(self.address).expect("its address");
        listen(&socket, 4_096).expect("a longer queue");
        self.socket = Some(socket);
    }

    pub(crate) fn command(&self) -> std::process::Command {
        let mut text = String::new();
        for (section, keys) in &self.settings {
            writeln!(text, "[{section}]").unwrap();
            for (key, value) in keys {
                writeln!(text, "{key} = {value}").unwrap();
            }
        }
        text.push_str(&self.tables);
        let config = self.home.join(format!("{}.toml", self.name));
        std::fs::write(&config, text).expect("the provider's configuration");
        let mut command = guarded(None, "KILL", binary());
        command.arg("--config").arg(config).arg("--data-dir").arg(&self.data);
        command.env_remove("DATABASE_URL");
        // Its own settings are in the file; ours, such as CHARLIEHUB_FULL, are unknown to it.
        for (name, _) in std::env::vars_os().filter(|(n, _)| n.to_string_lossy().starts_with("CHARLIEHUB_")) {
            command.env_remove(name);
        }
        command
    }

    /// Another subcommand with the same configuration, such as `["withheld"]`.
    pub async fn run(&self, args: &[&str]) -> Output {
        let mut command = tokio::process::Command::from(self.command());
        command.args(args);
        Output::of(command).await
    }

    /// Begins another subcommand, and waits for nothing.
    pub fn begin(&self, args: &[&str]) -> Process {
        let mut command = self.command();
        command.args(args);
        Process::start(&self.home, &format!("{}-{}", self.name, args.first().unwrap_or(&"")), command)
    }

    /// A shell command line in which `$P` is this provider's program with its configuration, and `$HOME` the test's
    /// directory. It must do its work; what it printed.
    pub async fn sh(&self, line: &str) -> String {
        let ours = self.command();
        let words: Vec<String> = ours.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
        let mut command = guarded(None, "KILL", "bash");
        command.args(["-o", "pipefail", "-c", line]).env("HOME", self.home.path());
        command.env("P", format!("{} {}", ours.get_program().display(), words.join(" ")));
        let output = Output::of(command.into()).await;
        assert_eq!(output.code, Some(0), "{line}: {output:?}");
        output.out
    }

    /// Runs it and insists that it did its work; what it printed.
    pub async fn must(&self, args: &[&str]) -> String {
        let output = self.run(args).await;
        assert_eq!(output.code, Some(0), "{args:?}: {output:?}");
        output.out
    }

    /// A new token of this role.
    pub async fn token(&self, role: &str) -> String {
        let out = self.must(&["token", "create", "--role", role, &format!("{role}-token")]).await;
        out.split_whitespace().max_by_key(|word| word.len()).expect("a token").to_owned()
    }

    /// What the story speaks as: the admin's token of the first start, if no other was given.
    pub fn admin_token(&self) -> String {
        self.token.clone().unwrap_or_else(|| {
            let file = std::fs::read_to_string(self.data.join("admin.token"));
            file.unwrap_or_default().trim().to_owned()
        })
    }

    /// From now on the story speaks with this token.
    pub fn speak_as(&mut self, token: &str) {
        self.token = Some(token.to_owned());
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn data(&self) -> &Path {
        &self.data
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("a running provider").pid()
    }

    pub fn signal(&self, signal: Signal) {
        self.process.as_ref().expect("a running provider").signal(signal);
    }

    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// SIGTERM, and gone within 10 s.
    pub async fn stop(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("a running provider");
        process.signal(Signal::TERM);
        process.ended(secs(10)).await
    }

    /// True once it has ended by itself, or was killed.
    pub fn exited(&mut self) -> bool {
        self.process.as_mut().is_none_or(|process| process.exit().is_some())
    }

    pub async fn ended(&mut self, deadline: Duration) -> ExitStatus {
        self.process.as_mut().expect("a started provider").ended(deadline).await
    }

    /// What it has said since its last start.
    pub fn log(&self) -> String {
        self.process.as_ref().map(Process::log).unwrap_or_default()
    }

    pub async fn connection(&self) -> Connection {
        self.open().await.expect("a connection to the provider")
    }

    /// By TLS where it has a certificate, whoever signed that.
    async fn open(&self) -> anyhow::Result<Connection> {
        let is_https = self.settings.get("serve").is_some_and(|serve| serve.contains_key("tls_certificate"));
        let name = self.address.ip().to_string();
        Connection::open_from(&self.home, self.address, None, is_https.then_some(name.as_str())).await
    }

    /// On a connection of its own, as admin.
    pub async fn send(&self, method: Method, path: &str, body: &str) -> Answer {
        self.try_send(method, path, body).await.unwrap_or_else(|e| panic!("{path}: {e:#}"))
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, "").await
    }

    pub async fn try_get(&self, path: &str) -> anyhow::Result<Answer> {
        self.try_send(Method::GET, path, "").await
    }

    async fn try_send(&self, method: Method, path: &str, body: &str) -> anyhow::Result<Answer> {
        let authorization = format!("Bearer {}", self.admin_token());
        let mut headers = vec![("authorization", authorization.as_str())];
        if !body.is_empty() {
            headers.push(("content-type", "application/json"));
        }
        self.open().await?.send(method, path, &headers, body).await
    }

    /// `GET /api/events` with this behind it, as admin: the stream.
    pub async fn follow(&self, query: &str, headers: &[(&str, &str)]) -> Stream {
        let authorization = format!("Bearer {}", self.admin_token());
        let mut all = vec![("authorization", authorization.as_str())];
        all.extend(headers);
        let answer = self.connection().await.stream(&format!("/api/events{query}"), &all).await;
        let (status, media, stream) = answer.expect("a stream");
        assert_eq!((status, media.as_str()), (200, "text/event-stream"));
        stream
    }

    /// One poll on a new connection, so answered at once.
    pub async fn poll(&self) -> Answer {
        self.get("/traefik").await
    }

    /// Polls until what is served has at least this revision; tells how long that took.
    pub async fn until_serves(&self, revision: u64, deadline: Duration) -> Duration {
        until(&format!("revision {revision} is served"), deadline, async || {
            // Without the body, which may be megabytes.
            let answer = self.try_send(Method::HEAD, "/traefik", "").await.map_err(|e| format!("{e:#}"))?;
            if answer.status == 200 && answer.revision() >= revision {
                Ok(())
            } else {
                Err(format!(
                    "{} revision {} {}",
                    answer.status,
                    answer.revision(),
                    answer.header("x-charliehub-withheld")
                ))
            }
        })
        .await
        .1
    }

    /// The sum over all labels of a metric, named without its prefix; `None` when it is not there, or nobody answers.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        let name = format!("charliehub_provider_{name}");
        let text = self.try_get("/metrics").await.ok()?.text();
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(&name)?;
            (rest.starts_with(['{', ' '])).then(|| rest.rsplit(' ').next()?.parse::<f64>().ok()).flatten()
        });
        values.reduce(|a, b| a + b)
    }

    /// The same for a counter, or a gauge that counts: 0 when it is not there.
    pub async fn count(&self, name: &str) -> u64 {
        format!("{:.0}", self.metric(name).await.unwrap_or(0.0).max(0.0)).parse().expect("a count")
    }

    /// Waits until a metric satisfies `right`.
    pub async fn until_metric(&self, name: &str, deadline: Duration, right: impl Fn(f64) -> bool) -> Duration {
        until(&format!("metric {name}"), deadline, async || {
            let value = self.metric(name).await;
            value.filter(|v| right(*v)).map(drop).ok_or(value)
        })
        .await
        .1
    }

    /// A poller as Traefik is one, which keeps what it gets.
    pub fn watch(&self) -> Watch {
        Watch::start(&self.home, self.address, &self.admin_token())
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.process = None;
        sweep(&self.data);
        free_memory(&self.data.join("postgres"));
    }
}

/// The same command with this socket, as systemd hands it over.
fn handing(socket: &TcpListener, command: &std::process::Command) -> std::process::Command {
    let mut bash = guarded(None, "KILL", "bash");
    bash.args(["-c", r#"exec 3<&"$0" && LISTEN_FDS=1 LISTEN_PID=$$ exec "$@""#]).arg(socket.as_raw_fd().to_string());
    bash.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => bash.env(name, value),
            None => bash.env_remove(name),
        };
    }
    bash
}

fn binary() -> PathBuf {
    built("charliehub-provider", "CHARLIEHUB_PROVIDER")
}

/// A program of ours: the one that an environment variable names, else the one that this build made, beside the test's own
/// executable.
pub(crate) fn built(name: &str, variable: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return path.into();
    }
    let test = std::env::current_exe().expect("the test's own path");
    let profile = test.parent().and_then(Path::parent).expect("target/<profile>/deps");
    let path = profile.join(name);
    assert!(path.exists(), "{} is missing: cargo build -p {name}", path.display());
    path
}
