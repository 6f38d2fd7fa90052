//! The real Traefik, unmodified, polling a provider (or a file, to compare with).

mod hub;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use hyper::Method;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

pub use self::hub::Rendered;
use crate::{Answer, Client, Connection, Home, Pair, Process, Signal, open_tls, process::guarded, secs, until};

pub struct Traefik {
    home: Home,
    name: String,
    program: PathBuf,
    config: PathBuf,
    web: SocketAddr,
    websecure: SocketAddr,
    mqtt: SocketAddr,
    api: SocketAddr,
    process: Option<Process>,
}

impl Traefik {
    /// The one that the others are: `TRAEFIK_VERSION` in `deploy/install-tools.sh`.
    pub const VERSION: &str = "3.7.15";

    /// Polls `provider` as `instance`, with the three settings of the design.
    pub async fn start(home: &Home, instance: &str, provider: SocketAddr, token: &str) -> Self {
        Self::with(home, instance, binary(), &polling(instance, provider, token)).await
    }

    /// The same with its API at an address that others know already.
    pub async fn start_at(home: &Home, instance: &str, provider: SocketAddr, token: &str, api: SocketAddr) -> Self {
        Self::at(home, instance, binary(), &polling(instance, provider, token), api).await
    }

    /// The same, and it tells its metrics there too.
    pub async fn measured_at(home: &Home, instance: &str, provider: SocketAddr, token: &str, api: SocketAddr) -> Self {
        let settings = polling(instance, provider, token) + "metrics:\n  prometheus: {}\n";
        Self::at(home, instance, binary(), &settings, api).await
    }

    /// The same of another version, which `deploy/install-tools.sh` installed.
    pub async fn of_version_at(
        version: &str,
        home: &Home,
        instance: &str,
        provider: SocketAddr,
        token: &str,
        api: SocketAddr,
    ) -> Self {
        Self::at(home, instance, installed(version), &polling(instance, provider, token), api).await
    }

    /// The same, and it reads this file beside.
    pub async fn with_file(
        home: &Home,
        instance: &str,
        provider: SocketAddr,
        token: &str,
        api: SocketAddr,
        file: &Path,
    ) -> Self {
        let settings = polling(instance, provider, token);
        let settings = format!("{settings}  file:\n    filename: \"{}\"\n    watch: true\n", file.display());
        Self::at(home, instance, binary(), &settings, api).await
    }

    /// Polls, and reads all files below a directory beside.
    pub async fn with_directory(
        home: &Home,
        instance: &str,
        provider: SocketAddr,
        token: &str,
        directory: &Path,
    ) -> Self {
        let settings = polling(instance, provider, token);
        let settings = format!("{settings}  file:\n    directory: \"{}\"\n    watch: true\n", directory.display());
        Self::with(home, instance, binary(), &settings).await
    }

    /// Polls `https://` as `instance` with a certificate and no token, at the program's own API address.
    pub async fn by_certificate(
        home: &Home,
        instance: &str,
        provider: SocketAddr,
        ca: &Path,
        pair: &Pair,
        api: SocketAddr,
    ) -> Self {
        let settings = format!(
            "  http:\n    endpoint: \"https://{provider}/traefik?wait=55s&instance={instance}\"\n    pollInterval: 10ms\n    \
             pollTimeout: 60s\n    tls:\n      ca: \"{}\"\n      cert: \"{}\"\n      key: \"{}\"\n",
            ca.display(),
            pair.certificate.display(),
            pair.key.display(),
        );
        Self::at(home, instance, binary(), &settings, api).await
    }

    /// Another version, which `deploy/install-tools.sh` installed; polls `endpoint`, whoever that is.
    pub async fn of_version(home: &Home, version: &str, endpoint: &str) -> Self {
        let settings = format!("  http:\n    endpoint: \"{endpoint}\"\n    pollInterval: 10ms\n");
        Self::with(home, &format!("traefik-{version}"), installed(version), &settings).await
    }

    /// Reads a file instead.
    pub async fn from_file(home: &Home, name: &str, file: &Path) -> Self {
        let settings = format!("  file:\n    filename: \"{}\"\n    watch: true\n", file.display());
        Self::with(home, name, binary(), &settings).await
    }

    /// Reads all files below a directory instead.
    pub async fn from_directory(home: &Home, name: &str, directory: &Path) -> Self {
        let settings = format!("  file:\n    directory: \"{}\"\n    watch: true\n", directory.display());
        Self::with(home, name, binary(), &settings).await
    }

    async fn with(home: &Home, name: &str, program: PathBuf, provider: &str) -> Self {
        Self::at(home, name, program, provider, SocketAddr::from((Ipv4Addr::LOCALHOST, home.port()))).await
    }

    async fn at(home: &Home, name: &str, program: PathBuf, provider: &str, api: SocketAddr) -> Self {
        let at = || SocketAddr::from((Ipv4Addr::LOCALHOST, home.port()));
        let (web, websecure, mqtt, dns) = (at(), at(), at(), at());
        let config = home.join(format!("{name}.yml"));
        let text = format!(
            "global:\n  checkNewVersion: false\n  sendAnonymousUsage: false\nlog:\n  level: DEBUG\napi:\n  insecure: true\n\
             entryPoints:\n  web:\n    address: \"{web}\"\n  websecure:\n    address: \"{websecure}\"\n  mqtt:\n    \
             address: \"{mqtt}\"\n  dns:\n    address: \"{dns}/udp\"\n  traefik:\n    address: \"{api}\"\nproviders:\n  providersThrottleDuration: 10ms\n\
             {provider}"
        );
        std::fs::write(&config, text).expect("Traefik's static configuration");
        let mut this = Self {
            home: home.clone(),
            name: name.to_owned(),
            program,
            config,
            web,
            websecure,
            mqtt,
            api,
            process: None,
        };
        this.up().await;
        this
    }

    /// Starts it (again) and waits for its API.
    pub async fn up(&mut self) {
        self.launch();
        until("Traefik's API answers", secs(15), async || {
            let answer = self.try_api("/api/version").await?;
            anyhow::ensure!(answer.status == 200, "{}, so its own routes are not there yet", answer.status);
            Ok(())
        })
        .await;
    }

    /// Starts it, and waits for nothing.
    pub fn launch(&mut self) {
        let mut command: Command = guarded(None, "KILL", &self.program);
        command.arg(format!("--configfile={}", self.config.display()));
        self.process = Some(Process::start(&self.home, &self.name, command));
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

    /// The same by other addresses of the entry points, such as those of a [`crate::Switch`].
    pub fn client_at(&self, web: SocketAddr, websecure: SocketAddr) -> Client {
        Client::new(&self.home, web, websecure)
    }

    pub fn web(&self) -> SocketAddr {
        self.web
    }

    pub fn websecure(&self) -> SocketAddr {
        self.websecure
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
        until(url, secs(20), async || {
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

    /// The base URL of its API, as `[[traefik]]` has it.
    pub fn api_url(&self) -> String {
        format!("http://{}", self.api)
    }

    /// What Traefik itself says, such as `/api/http/routers`.
    pub async fn api(&self, path: &str) -> serde_json::Value {
        self.try_api(path).await.unwrap_or_else(|e| panic!("{path}: {e:#}")).json()
    }

    pub async fn try_api(&self, path: &str) -> anyhow::Result<Answer> {
        Connection::open(&self.home, self.api).await?.send(Method::GET, path, &[], "").await
    }
}

/// The program of this version.
fn installed(version: &str) -> PathBuf {
    let program = if version == Traefik::VERSION { binary() } else { cached(version) };
    assert!(program.exists(), "{} is missing: deploy/install-tools.sh traefik-{version}", program.display());
    program
}

/// The three settings of the design.
fn polling(instance: &str, provider: SocketAddr, token: &str) -> String {
    format!(
        "  http:\n    endpoint: \"http://{provider}/traefik?wait=55s&instance={instance}\"\n    pollInterval: 10ms\n    \
         pollTimeout: 60s\n    headers:\n      Authorization: \"Bearer {token}\"\n"
    )
}

impl Traefik {
    /// The versions that `deploy/install-tools.sh` installed here.
    pub fn installed() -> Vec<String> {
        let names = std::fs::read_dir(cache()).into_iter().flatten().flatten().map(|entry| entry.file_name());
        let version = |name: std::ffi::OsString| Some(name.to_str()?.strip_prefix("traefik-")?.to_owned());
        names.filter_map(version).filter(|version| cached(version).is_file()).collect()
    }

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
    let cached = Some(cached(Traefik::VERSION)).filter(|path| path.exists());
    std::env::var_os("TRAEFIK").map(PathBuf::from).or(cached).unwrap_or_else(|| PathBuf::from("traefik"))
}

/// Where `deploy/install-tools.sh` puts a version.
fn cached(version: &str) -> PathBuf {
    cache().join(format!("traefik-{version}/bin/traefik"))
}

fn cache() -> PathBuf {
    let below = |variable: &str, rest: &str| std::env::var_os(variable).map(|path| PathBuf::from(path).join(rest));
    below("XDG_CACHE_HOME", "charliehub").or_else(|| below("HOME", ".cache/charliehub")).unwrap_or_default()
}
