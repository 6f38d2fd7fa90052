//! The real `charliehub-edge-agent`, as built next to the tests, on this host or inside a network namespace.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use charliehub_proto::finding::{Finding, Status};
use tokio::net::TcpStream;

use crate::{
    Answer, Connection, Home, Output, Process, Signal, process::guarded, provider::built, secs, switch::within, until,
};

pub struct Agent {
    home: Home,
    config: PathBuf,
    address: SocketAddr,
    namespace: Option<String>,
    programs: Option<PathBuf>,
    /// A capability that it is started without.
    lacks: Option<&'static str>,
    environment: Vec<(&'static str, String)>,
    /// What it reads in place of the host's.
    hosts: Option<PathBuf>,
    process: Option<Process>,
}

const CRASH_AT: &str = "CHARLIEHUB_CRASH_AT";

impl Agent {
    /// The part of `deploy/agent/hub2.toml` that is about the firewall.
    pub fn sample_firewall() -> String {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/agent/hub2.toml");
        let text = std::fs::read_to_string(file).expect("the sample");
        let from = text.find("[policy.firewall]").expect("its firewall");
        let to = text.find("[[policy.files]]").expect("its files");
        text[from..to].to_owned()
    }

    /// Not started yet, with these settings; `listen` and `state_dir` are added.
    pub fn new(home: &Home, settings: &str) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, home.port()));
        let this = Self {
            home: home.clone(),
            config: home.join(format!("agent-{}.toml", address.port())),
            address,
            namespace: None,
            programs: None,
            lacks: None,
            environment: Vec::new(),
            hosts: None,
            process: None,
        };
        this.settings(settings);
        this
    }

    /// Runs inside this network namespace, by the name that `ip netns` has for it.
    #[must_use]
    pub fn inside(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.to_owned());
        self
    }

    /// Finds the programs in this folder before those of the host.
    #[must_use]
    pub fn with_programs(mut self, folder: PathBuf) -> Self {
        self.programs = Some(folder);
        self
    }

    /// Finds names in this file in place of `/etc/hosts`, as it is at that time.
    #[must_use]
    pub fn with_hosts(mut self, file: PathBuf) -> Self {
        self.hosts = Some(file);
        self
    }

    /// Runs without this capability, as `setpriv` calls it.
    #[must_use]
    pub fn without(mut self, capability: &'static str) -> Self {
        self.lacks = Some(capability);
        self
    }

    /// Lives by a clock that [`Self::set_clock`] sets. What has passed since the boot stays as it is.
    #[must_use]
    pub fn with_a_clock_of_its_own(mut self) -> Self {
        self.set_clock("+0");
        let file = self.clock().display().to_string();
        self.environment = vec![
            ("LD_PRELOAD", "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1".to_owned()),
            ("FAKETIME_TIMESTAMP_FILE", file),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ];
        self
    }

    /// From its next start on it kills itself at this step of what it does to the host.
    pub fn dies_at(&mut self, step: Option<&str>) {
        self.environment.retain(|(name, _)| *name != CRASH_AT);
        self.environment.extend(step.map(|step| (CRASH_AT, step.to_owned())));
    }

    /// Waits until it has ended by itself.
    pub async fn until_ended(&mut self, deadline: Duration) {
        self.process.as_mut().expect("a running agent").ended(deadline).await;
    }

    /// Sets it off from the true time, as libfaketime writes it: `-1h`. Written beside and renamed: it is read all the time.
    pub fn set_clock(&self, offset: &str) {
        let draft = self.clock().with_extension("draft");
        std::fs::write(&draft, format!("{offset}\n")).expect("a file for the clock");
        std::fs::rename(draft, self.clock()).expect("a file for the clock");
    }

    fn clock(&self) -> PathBuf {
        self.config.with_extension("clock")
    }

    /// Started, on this host.
    pub async fn start(home: &Home, settings: &str) -> Self {
        Self::new(home, settings).started().await
    }

    /// Started inside a network namespace.
    pub async fn start_in(home: &Home, settings: &str, namespace: &str) -> Self {
        Self::new(home, settings).inside(namespace).started().await
    }

    /// Other settings, for the next start or a reload.
    pub fn settings(&self, settings: &str) {
        let state = self.state_dir();
        std::fs::create_dir_all(&state).expect("the agent's state directory");
        let text = format!("listen = \"{}\"\nstate_dir = \"{}\"\n{settings}", self.address, state.display());
        std::fs::write(&self.config, text).expect("the agent's settings");
    }

    pub fn state_dir(&self) -> PathBuf {
        self.config.with_extension("state")
    }

    #[must_use]
    pub async fn started(mut self) -> Self {
        self.up().await;
        self
    }

    /// Starts it (again) and waits until it answers.
    pub async fn up(&mut self) {
        let mut command = self.command();
        command.arg("run");
        let name = format!("agent-{}", self.address.port());
        self.process = Some(Process::start(&self.home, &name, command));
        until("the agent answers /healthz", secs(20), async || {
            if let Some(status) = self.process.as_mut().and_then(Process::exit) {
                panic!("the agent ended: {status}");
            }
            self.try_get("/healthz").await.map(drop)
        })
        .await;
    }

    /// Runs one of its commands, in the same place and with the same settings.
    pub async fn run(&self, args: &[&str]) -> Output {
        let mut command = tokio::process::Command::from(self.command());
        command.args(args);
        Output::of(command).await
    }

    /// Runs one of its commands that is typed to, and told what it says.
    pub fn talk(&self, args: &[&str]) -> tokio::process::Child {
        let mut command = tokio::process::Command::from(self.command());
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        command.spawn().expect("our own binary")
    }

    fn command(&self) -> Command {
        let binary = built("charliehub-edge-agent", "CHARLIEHUB_AGENT");
        let mut command = match &self.namespace {
            None => guarded(None, "KILL", binary),
            Some(namespace) => {
                let mut command = guarded(None, "KILL", "nsenter");
                command.arg(format!("--net=/run/netns/{namespace}")).arg("--");
                if let Some(hosts) = &self.hosts {
                    let script = "mount --bind \"$1\" /etc/hosts && shift && exec \"$@\"";
                    command.args(["unshare", "--mount", "sh", "-c", script, "sh"]).arg(hosts);
                }
                if let Some(lacks) = self.lacks {
                    command.args(["setpriv", &format!("--bounding-set=-{lacks}"), &format!("--inh-caps=-{lacks}")]);
                }
                command.arg(binary);
                command
            }
        };
        if let Some(folder) = &self.programs {
            let path = std::env::var("PATH").unwrap_or_default();
            command.env("PATH", format!("{}:{path}", folder.display()));
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.arg("--config").arg(&self.config);
        command
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("a running agent").pid()
    }

    pub fn signal(&self, signal: Signal) {
        self.process.as_ref().expect("a running agent").signal(signal);
    }

    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// What it has said since this start.
    pub fn log(&self) -> String {
        self.process.as_ref().map(Process::log).unwrap_or_default()
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.try_get(path).await.unwrap_or_else(|error| panic!("GET {path}: {error:#}"))
    }

    async fn try_get(&self, path: &str) -> anyhow::Result<Answer> {
        let stream = match &self.namespace {
            None => TcpStream::connect(self.address).await?,
            Some(namespace) => connect_inside(namespace, self.address).await?,
        };
        Connection::over(&self.home, stream, self.address.to_string())
            .await?
            .send(hyper::Method::GET, path, &[], "")
            .await
    }

    /// The metrics as Prometheus reads them.
    pub async fn metrics(&self) -> String {
        self.get("/metrics").await.text()
    }

    pub async fn findings(&self) -> Vec<Finding> {
        serde_json::from_slice(&self.get("/findings").await.body).expect("findings")
    }

    pub async fn finding(&self, check: &str, target: &str) -> Option<Finding> {
        self.findings().await.into_iter().find(|one| one.check == check && one.target == target)
    }

    /// Waits until its findings are right; they, and how long that took.
    pub async fn until(
        &self,
        what: &str,
        deadline: Duration,
        right: impl Fn(&[Finding]) -> bool,
    ) -> (Vec<Finding>, Duration) {
        until(what, deadline, async || {
            let findings = self.findings().await;
            if right(&findings) { Ok(findings) } else { Err(brief(&findings)) }
        })
        .await
    }

    /// Waits until this target of this check has this status.
    pub async fn until_status(
        &self,
        check: &str,
        target: &str,
        status: Status,
        deadline: Duration,
    ) -> (Finding, Duration) {
        let what = format!("{check} {target} is {status}");
        let is_it = |one: &Finding| one.check == check && one.target == target && one.status == status;
        let (findings, took) = self.until(&what, deadline, |all| all.iter().any(is_it)).await;
        (findings.into_iter().find(is_it).expect("it"), took)
    }
}

/// For a failed story: a line each.
fn brief(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(|one| format!("{} {} {}: {}", one.status, one.check, one.target, one.text)).collect()
}

async fn connect_inside(namespace: &str, address: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = within(namespace, move || std::net::TcpStream::connect_timeout(&address, secs(1))).await?;
    stream.set_nonblocking(true)?;
    Ok(TcpStream::from_std(stream)?)
}
