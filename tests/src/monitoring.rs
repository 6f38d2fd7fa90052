//! The real Prometheus, Alertmanager and exporters of Debian, with the files of `deploy` and the addresses of one test.

use std::{
    fmt::Write as _,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use hyper::Method;
use serde_json::Value;

use crate::{Connection, Home, Postgres, Process, process::guarded, secs, until};

/// A file or folder of `deploy`.
pub fn deployed(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(path)
}

/// The files in a folder of `deploy`, by name.
pub fn deployed_files(folder: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(deployed(folder)).expect("the folder").flatten().map(|entry| entry.path()).collect();
    files.sort();
    files
}

/// Seconds since 1970, as Prometheus takes a time.
pub fn unix_time() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock after 1970").as_secs_f64()
}

pub struct Prometheus {
    home: Home,
    address: SocketAddr,
    _process: Process,
}

impl Prometheus {
    /// With `deploy/prometheus`, each second, and alerts that fire after one. `addresses` are pairs of what the file has
    /// and where that is in this test; a target that is not among them goes.
    pub async fn start(home: &Home, addresses: &[(&str, SocketAddr)]) -> Self {
        Self::prepared(home, addresses, |_| ()).await
    }

    /// The same, after something was done to its `prometheus.yml`.
    pub async fn prepared(home: &Home, addresses: &[(&str, SocketAddr)], prepare: impl FnOnce(&Path)) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, home.port()));
        let folder = home.join("prometheus");
        fs::create_dir_all(folder.join("rules")).expect("a folder");
        let config_file = folder.join("prometheus.yml");
        fs::write(&config_file, config(addresses)).expect("its configuration");
        prepare(&config_file);
        for file in deployed_files("prometheus/rules") {
            let text = fs::read_to_string(&file).expect("a file of rules");
            let text: String = text.lines().map(hurried).collect();
            fs::write(folder.join("rules").join(file.file_name().expect("a name")), text).expect("rules");
        }
        let mut command = guarded(None, "KILL", "prometheus");
        command.arg(format!("--config.file={}", config_file.display()));
        command.arg(format!("--storage.tsdb.path={}", folder.join("data").display()));
        command.arg(format!("--web.listen-address={address}")).arg("--log.level=warn");
        let this = Self { home: home.clone(), address, _process: Process::start(home, "prometheus", command) };
        until("Prometheus is ready", secs(30), async || {
            let answer = this.ask("/-/ready").await?;
            anyhow::ensure!(answer.0 == 200, "{answer:?}");
            Ok(())
        })
        .await;
        this
    }

    async fn ask(&self, path: &str) -> anyhow::Result<(u16, String)> {
        let answer = Connection::open(&self.home, self.address).await?.send(Method::GET, path, &[], "").await?;
        Ok((answer.status, answer.text()))
    }

    async fn result(&self, path: &str) -> anyhow::Result<Vec<Value>> {
        let (status, text) = self.ask(path).await?;
        anyhow::ensure!(status == 200, "{path}: {status} {text}");
        let mut answer: Value = serde_json::from_str(&text)?;
        Ok(serde_json::from_value(answer["data"]["result"].take()).unwrap_or_default())
    }

    /// The series of an expression, now.
    pub async fn query(&self, expression: &str) -> anyhow::Result<Vec<Value>> {
        self.result(&format!("/api/v1/query?query={}", encoded(expression))).await
    }

    /// The values of each series of an expression, second by second since then.
    pub async fn range(&self, expression: &str, since: f64) -> anyhow::Result<Vec<Vec<String>>> {
        let (query, now) = (encoded(expression), unix_time());
        let series = self.result(&format!("/api/v1/query_range?query={query}&start={since}&end={now}&step=1")).await?;
        let value = |pair: &Value| pair[1].as_str().unwrap_or_default().to_owned();
        Ok(series.iter().map(|one| one["values"].as_array().into_iter().flatten().map(value).collect()).collect())
    }

    /// The names of all metrics that it has.
    pub async fn names(&self) -> anyhow::Result<Vec<String>> {
        let (status, text) = self.ask("/api/v1/label/__name__/values").await?;
        anyhow::ensure!(status == 200, "{status} {text}");
        let mut answer: Value = serde_json::from_str(&text)?;
        Ok(serde_json::from_value(answer["data"].take())?)
    }

    /// What `label_values(...)` of a dashboard's variable finds.
    pub async fn label_values(&self, metric: &str, label: &str) -> anyhow::Result<Vec<String>> {
        let (status, text) = self.ask(&format!("/api/v1/label/{label}/values?match[]={}", encoded(metric))).await?;
        anyhow::ensure!(status == 200, "{status} {text}");
        let mut answer: Value = serde_json::from_str(&text)?;
        Ok(serde_json::from_value(answer["data"].take())?)
    }

    /// Waits until an expression has a value; tells how long that took.
    pub async fn until(&self, expression: &str, deadline: Duration) -> Duration {
        until(expression, deadline, async || {
            let found = self.query(expression).await.map_err(|error| format!("{error:#}"))?;
            if found.is_empty() { Err("no value".to_owned()) } else { Ok(()) }
        })
        .await
        .1
    }
}

/// `prometheus.yml` with the addresses of a test, each second. A job without an address is left out.
fn config(addresses: &[(&str, SocketAddr)]) -> String {
    let text = fs::read_to_string(deployed("prometheus/prometheus.yml")).expect("its configuration");
    let (head, jobs) = text.split_once("scrape_configs:\n").expect("its jobs");
    let head: String = head.lines().map(hurried).collect();
    let head = match addresses.iter().find(|(of, _)| *of == "127.0.0.1:9093") {
        Some((of, address)) => head.replace(of, &address.to_string()),
        None => head.split("alerting:\n").next().unwrap_or_default().to_owned(),
    };
    let mut text = head + "scrape_configs:\n";
    for job in jobs.split("\n\n") {
        let found = addresses.iter().find(|(of, _)| job.contains(&format!("[\"{of}\"]")));
        if let Some((of, address)) = found {
            writeln!(text, "{}\n", job.replace(of, &address.to_string())).expect("text");
        }
    }
    text
}

/// A line with its waiting time cut to a second.
fn hurried(line: &str) -> String {
    let indent = &line[..line.len() - line.trim_start().len()];
    let key = line.trim_start().split(':').next().unwrap_or_default();
    match key {
        "for"
        | "interval"
        | "scrape_interval"
        | "scrape_timeout"
        | "evaluation_interval"
        | "group_wait"
        | "group_interval" => format!("{indent}{key}: 1s\n"),
        _ => format!("{line}\n"),
    }
}

/// As a part of a query string has it.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut all, byte| {
        if byte.is_ascii_alphanumeric() {
            all.push(char::from(byte));
        } else {
            write!(all, "%{byte:02X}").expect("text");
        }
        all
    })
}

pub struct Alertmanager {
    home: Home,
    address: SocketAddr,
    _process: Process,
}

impl Alertmanager {
    /// With `deploy/alertmanager`, each group after a second, and this webhook.
    pub async fn start(home: &Home, webhook: SocketAddr) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, home.port()));
        let text = fs::read_to_string(deployed("alertmanager/alertmanager.yml")).expect("its configuration");
        assert!(text.contains("127.0.0.1:9095"), "the address of the webhook in alertmanager.yml");
        let text: String = text.replace("127.0.0.1:9095", &webhook.to_string()).lines().map(hurried).collect();
        let config = home.join("alertmanager.yml");
        fs::write(&config, text).expect("its configuration");
        let mut command = guarded(None, "KILL", "prometheus-alertmanager");
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.path={}", home.join("alertmanager").display()));
        command.arg(format!("--web.listen-address={address}")).arg("--cluster.listen-address=");
        let this = Self { home: home.clone(), address, _process: Process::start(home, "alertmanager", command) };
        until("Alertmanager is ready", secs(30), async || {
            let answer = this.send(Method::GET, "/-/ready", "").await?;
            anyhow::ensure!(answer.0 == 200, "{answer:?}");
            Ok(())
        })
        .await;
        this
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    async fn send(&self, method: Method, path: &str, body: &str) -> anyhow::Result<(u16, String)> {
        let headers: &[(&str, &str)] = if body.is_empty() { &[] } else { &[("content-type", "application/json")] };
        let answer = Connection::open(&self.home, self.address).await?.send(method, path, headers, body).await?;
        Ok((answer.status, answer.text()))
    }

    /// Hands it alerts, as Prometheus does.
    pub async fn post(&self, alerts: &Value) {
        let (status, text) = self.send(Method::POST, "/api/v2/alerts", &alerts.to_string()).await.expect("an answer");
        assert_eq!(status, 200, "{text}");
    }

    /// Its alerts, each with its state.
    pub async fn alerts(&self) -> anyhow::Result<Vec<Value>> {
        Ok(serde_json::from_str(&self.send(Method::GET, "/api/v2/alerts", "").await?.1)?)
    }
}

/// An exporter, or another small server of Debian's that is asked over HTTP or TCP.
pub struct Exporter {
    address: SocketAddr,
    _process: Process,
}

impl Exporter {
    pub async fn node(home: &Home) -> Self {
        Self::start(home, "prometheus-node-exporter", |address, command| {
            command.arg(format!("--web.listen-address={address}"));
        })
        .await
    }

    pub async fn postgres(home: &Home, postgres: &Postgres) -> Self {
        let (host, port) = postgres.host_and_port();
        Self::start(home, "prometheus-postgres-exporter", |address, command| {
            command.arg(format!("--web.listen-address={address}"));
            command.env("DATA_SOURCE_NAME", format!("postgresql://postgres@{host}:{port}/charliehub?sslmode=disable"));
        })
        .await
    }

    /// Redis itself, with a limit of memory.
    pub async fn redis_server(home: &Home) -> Self {
        Self::start(home, "redis-server", |address, command| {
            command.args(["--bind", "127.0.0.1", "--save", "", "--maxmemory", "50mb", "--port"]);
            command.arg(address.port().to_string()).current_dir(home.path());
        })
        .await
    }

    pub async fn redis(home: &Home, server: &Self) -> Self {
        Self::start(home, "prometheus-redis-exporter", |address, command| {
            command.arg(format!("-redis.addr=redis://{}", server.address));
            command.arg(format!("-web.listen-address={address}"));
        })
        .await
    }

    async fn start(home: &Home, program: &str, arguments: impl FnOnce(SocketAddr, &mut Command)) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, home.port()));
        let mut command = guarded(None, "KILL", program);
        arguments(address, &mut command);
        let process = Process::start(home, program, command);
        until(&format!("{program} listens"), secs(30), async || tokio::net::TcpStream::connect(address).await).await;
        Self { address, _process: process }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
