//! The real Traefik, unmodified, polling a provider (or a file, to compare with).

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use hyper::Method;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::{Answer, Client, Connection, Home, Process, Signal, open_tls, process::guarded, secs, until};

pub struct Traefik {
    home: Home,
    name: String,
    config: PathBuf,
    web: SocketAddr,
    websecure: SocketAddr,
    mqtt: SocketAddr,
    api: SocketAddr,
    process: Option<Process>,
}

impl Traefik {
    /// Polls `provider` as `instance`, with the three settings of the design.
    pub async fn start(home: &Home, instance: &str, provider: SocketAddr, token: &str) -> Self {
        let endpoint = format!("http://{provider}/traefik?wait=55s&instance={instance}");
        let settings = format!(
            "  http:\n    endpoint: \"{endpoint}\"\n    pollInterval: 10ms\n    pollTimeout: 60s\n    headers:\n      \
             Authorization: \"Bearer {token}\"\n"
        );
        Self::with(home, instance, &settings).await
    }

    /// Reads a file instead.
    pub async fn from_file(home: &Home, name: &str, file: &Path) -> Self {
        Self::with(home, name, &format!("  file:\n    filename: \"{}\"\n    watch: true\n", file.display())).await
    }

    /// Reads all files below a directory instead.
    pub async fn from_directory(home: &Home, name: &str, directory: &Path) -> Self {
        Self::with(home, name, &format!("  file:\n    directory: \"{}\"\n    watch: true\n", directory.display())).await
    }

    async fn with(home: &Home, name: &str, provider: &str) -> Self {
        let at = || SocketAddr::from((Ipv4Addr::LOCALHOST, home.port()));
        let (web, websecure, mqtt, api) = (at(), at(), at(), at());
        let config = home.join(format!("{name}.yml"));
        let text = format!(
            "global:\n  checkNewVersion: false\n  sendAnonymousUsage: false\nlog:\n  level: DEBUG\napi:\n  insecure: true\n\
             entryPoints:\n  web:\n    address: \"{web}\"\n  websecure:\n    address: \"{websecure}\"\n  mqtt:\n    \
             address: \"{mqtt}\"\n  traefik:\n    address: \"{api}\"\nproviders:\n  providersThrottleDuration: 10ms\n\
             {provider}"
        );
        std::fs::write(&config, text).expect("Traefik's static configuration");
        let mut this =
            Self { home: home.clone(), name: name.to_owned(), config, web, websecure, mqtt, api, process: None };
        this.up().await;
        this
    }

    /// Starts it (again) and waits for its API.
    pub async fn up(&mut self) {
        let mut command: Command = guarded(None, "KILL", binary());
        command.arg(format!("--configfile={}", self.config.display()));
        self.process = Some(Process::start(&self.home, &self.name, command));
        until("Traefik's API answers", secs(15), async || {
            let answer = self.try_api("/api/version").await?;
            anyhow::ensure!(answer.status == 200, "{}, so its own routes are not there yet", answer.status);
            Ok(())
        })
        .await;
    }

    pub fn kill(&mut self) {
        self.process = None;
    }

    pub fn signal(&self, signal: Signal) {
        self.process.as_ref().expect("a running Traefik").signal(signal);
    }

    pub fn log(&self) -> String {
        self.process.as_ref().map(Process::log).unwrap_or_default()
    }

    /// To ask with headers or from an address; `get` asks without.
    pub fn client(&self) -> Client {
        Client::new(&self.home, self.web, self.websecure)
    }

    pub async fn get(&self, url: &str) -> Answer {
        self.client().get(url).await.unwrap_or_else(|e| panic!("{url}: {e:#}"))
    }

    /// Asks until the body is `body`, at most 10 s; tells how long that took.
    pub async fn until_answers(&self, url: &str, body: &str) -> Duration {
        self.until(url, |answer| answer.status == 200 && answer.text() == body).await.1
    }

    pub async fn until_status(&self, url: &str, status: u16) -> Duration {
        self.until(url, |answer| answer.status == status).await.1
    }

    pub async fn until(&self, url: &str, right: impl Fn(&Answer) -> bool) -> (Answer, Duration) {
        until(url, secs(10), async || {
            let answer = self.client().get(url).await.map_err(|e| format!("{e:#}"))?;
            if right(&answer) { Ok(answer) } else { Err(format!("{} {:?}", answer.status, answer.text())) }
        })
        .await
    }

    /// TLS to the entry point `mqtt`, with this name.
    pub async fn tls(&self, name: &str) -> anyhow::Result<TlsStream<TcpStream>> {
        open_tls(self.mqtt, name).await
    }

    pub fn mqtt(&self) -> SocketAddr {
        self.mqtt
    }

    /// What Traefik itself says, such as `/api/http/routers`.
    pub async fn api(&self, path: &str) -> serde_json::Value {
        self.try_api(path).await.unwrap_or_else(|e| panic!("{path}: {e:#}")).json()
    }

    pub async fn try_api(&self, path: &str) -> anyhow::Result<Answer> {
        Connection::open(&self.home, self.api).await?.send(Method::GET, path, &[], "").await
    }
}

impl Traefik {
    /// The program itself, for who starts one of his own.
    pub fn program() -> PathBuf {
        let path = binary();
        std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
            .map(|directory| directory.join(&path))
            .find(|path| path.is_file())
            .unwrap_or(path)
    }
}

/// `TRAEFIK`, else what the quickstart installed, else the one on `PATH`.
fn binary() -> PathBuf {
    let cached = std::env::var_os("HOME")
        .map(|home| PathBuf::from(home).join(".cache/charliehub/traefik-3.7.15/bin/traefik"))
        .filter(|path| path.exists());
    std::env::var_os("TRAEFIK").map(PathBuf::from).or(cached).unwrap_or_else(|| PathBuf::from("traefik"))
}
