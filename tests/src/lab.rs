//! Real tunnels of WireGuard between a hub and its sites, in network namespaces (`tools/wg-topology`), and real faults in
//! them (`tools/wg-fault`).
//!
//! The hub is a namespace of its own, where an agent runs ([`Lab::hub`]); each site has a network behind it in which every
//! address answers. Faults of different sites do not touch each other.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use rand::RngExt;

use crate::Home;

/// The lab, gone with its processes and namespaces when it is dropped.
pub struct Lab {
    work: PathBuf,
    name: String,
    sites: Vec<Site>,
    /// One fault at a time is made or undone: they edit the same tables.
    turn: tokio::sync::Mutex<()>,
}

/// A site and its tunnel, `wg-SITE`.
#[derive(Clone, Debug)]
pub struct Site {
    /// `uk`, `fr`, `x1`...
    pub name: String,
    /// `wg-uk`.
    pub interface: String,
    /// `10.44.0.0/16`.
    pub network: String,
    /// `10.44.0.10`.
    pub host: String,
    /// The far end inside the tunnel.
    pub end: String,
    /// The hub's own address there, with its length.
    pub address: String,
    pub port: u16,
    /// Where the hub calls it.
    pub endpoint: String,
    pub key: String,
    /// The hub's key of this tunnel.
    pub hub_key: String,
}

impl Lab {
    /// With sites `uk`, `fr`, and `x1` to `x{extra}`, each after its first handshake.
    pub async fn up(home: &Home, extra: usize) -> Self {
        let work = home.join("lab");
        let name = format!("ch{:05x}", rand::rng().random_range(0..0x10_0000_u32));
        // Dropped when `up` fails too.
        let mut lab =
            Self { work: work.clone(), name: name.clone(), sites: Vec::new(), turn: tokio::sync::Mutex::default() };
        let work = work.to_str().expect("a path in UTF-8");
        succeeded(&tool("wg-topology", &["up", "--work", work, "--name", &name, "--extra", &extra.to_string()]).await);
        let extras = (1..=extra).map(|number| format!("x{number}"));
        lab.sites = ["uk", "fr"].map(str::to_owned).into_iter().chain(extras).map(|name| lab.site(name)).collect();
        lab
    }

    fn site(&self, name: String) -> Site {
        let number = name.strip_prefix('x').map_or(0, |number| number.parse().expect("a number"));
        let (octet, endpoint, port) = match name.as_str() {
            "uk" => (44, "198.51.100.2".to_owned(), 51820),
            "fr" => (35, "203.0.113.2".to_owned(), 51821),
            _ => (60 + number, format!("198.18.{number}.2"), 51830 + number),
        };
        let key = |path: String| std::fs::read_to_string(self.work.join(path)).expect("a public key").trim().to_owned();
        Site {
            interface: format!("wg-{name}"),
            network: format!("10.{octet}.0.0/16"),
            host: format!("10.{octet}.0.10"),
            end: format!("10.254.{octet}.2"),
            address: format!("10.254.{octet}.1/30"),
            port,
            endpoint: format!("{endpoint}:51820"),
            key: key(format!("{name}/wg-hub.pub")),
            hub_key: key(format!("hub2/wg-{name}.pub")),
            name,
        }
    }

    pub fn sites(&self) -> &[Site] {
        &self.sites
    }

    /// The namespace of the hub.
    pub fn hub(&self) -> String {
        self.place("hub2")
    }

    /// That of a site.
    pub fn place(&self, site: &str) -> String {
        format!("{}-{site}", self.name)
    }

    /// The namespace of a site.
    pub fn at(&self, site: &str) -> String {
        format!("{}-{site}", self.name)
    }

    /// Where the files `IF.conf` of a place are: `hub2`, or a site.
    pub fn folder(&self, place: &str) -> PathBuf {
        self.work.join(place)
    }

    /// What an agent on the hub is told: all sites, and where the sockets are.
    pub fn settings(&self) -> String {
        let sockets = format!("[wireguard]\nsockets = \"{}\"\n", self.sockets().display());
        sockets + &self.expected()
    }

    /// The sites alone, for an agent that sees the sockets where they usually are.
    pub fn expected(&self) -> String {
        self.sites.iter().map(Site::settings).collect()
    }

    /// To be put behind these, where there are no extra sites: `fr` may be reached by the tunnel of `uk` too, and fails over as
    /// these keys say.
    pub fn failover(&self, keys: &str) -> String {
        let uk = self.sites.iter().find(|site| site.name == "uk").expect("site uk");
        let (network, end, key) = (&uk.network, &uk.end, &uk.key);
        format!(
            "[[sites.tunnels]]\ninterface = \"wg-uk\"\nrank = 2\npublic_key = \"{key}\"\nkeepalive = 25\n\
             allowed_ips = [\"{network}\", \"{end}/32\"]\npeer_address = \"{end}\"\n[[act.failover]]\nsite = \"fr\"\n{keys}\n"
        )
    }

    pub(crate) fn sockets(&self) -> PathBuf {
        self.work.join("hub2/wireguard")
    }

    /// Every fault that there is.
    pub async fn faults() -> Vec<String> {
        let output = tool("wg-fault", &["--list"]).await;
        succeeded(&output);
        String::from_utf8_lossy(&output.stdout).split_whitespace().map(str::to_owned).collect()
    }

    /// Makes a fault. False: this kernel cannot.
    pub async fn fault(&self, fault: &str, site: &str, argument: Option<&str>) -> bool {
        let _turn = self.turn.lock().await;
        let work = self.work.to_str().expect("a path in UTF-8");
        let output = tool("wg-fault", &[&["--work", work, fault, site], argument.as_slice()].concat()).await;
        if output.status.code() == Some(77) {
            return false;
        }
        succeeded(&output);
        true
    }

    pub async fn undo(&self, site: &str) {
        assert!(self.fault("undo", site, None).await);
    }

    /// Runs a line of a shell on the hub, as its administrator would.
    pub async fn on_hub(&self, line: &str) {
        self.asked_on_hub(line).await;
    }

    /// The same; what it says.
    pub async fn asked_on_hub(&self, line: &str) -> String {
        self.asked("hub2", line).await
    }

    /// The same at a site.
    pub async fn at_site(&self, site: &str, line: &str) {
        self.asked(site, line).await;
    }

    /// The same; what it says.
    pub async fn asked_at_site(&self, site: &str, line: &str) -> String {
        self.asked(site, line).await
    }

    async fn asked(&self, place: &str, line: &str) -> String {
        let _turn = self.turn.lock().await;
        let work = self.work.to_str().expect("a path in UTF-8");
        let output = tool("wg-topology", &["exec", "--work", work, place, "--", "sh", "-c", line]).await;
        succeeded(&output);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Site {
    /// As it should be, for the agent's own file.
    fn settings(&self) -> String {
        let Self { name, interface, network, host, end, address, port, endpoint, key, hub_key } = self;
        format!(
            "[[sites]]\nname = \"{name}\"\nnetworks = [\"{network}\"]\nhosts = [{{ address = \"{host}\" }}]\n\
             [[sites.tunnels]]\ninterface = \"{interface}\"\npublic_key = \"{key}\"\nkeepalive = 25\n\
             allowed_ips = [\"{network}\", \"{end}/32\"]\npeer_address = \"{end}\"\naddresses = [\"{address}\"]\n\
             own_public_key = \"{hub_key}\"\nlisten_port = {port}\nmtu = 1420\nendpoint = \"{endpoint}\"\n"
        )
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        Command::new(path("wg-topology")).arg("down").arg("--work").arg(&self.work).stdout(Stdio::null()).status().ok();
    }
}

fn path(tool: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tools").join(tool)
}

async fn tool(name: &str, args: &[&str]) -> Output {
    // What it leaves running must not hold our pipes, so its output goes to files.
    let (mut out, mut err) = (tempfile::tempfile().expect("a file"), tempfile::tempfile().expect("a file"));
    let handle = |file: &std::fs::File| file.try_clone().expect("a second handle");
    let mut command = tokio::process::Command::new(path(name));
    command.args(args).stdin(Stdio::null()).stdout(handle(&out)).stderr(handle(&err));
    let status = command.status().await.unwrap_or_else(|error| panic!("cannot run {name}: {error}"));
    Output { status, stdout: whole(&mut out), stderr: whole(&mut err) }
}

fn whole(file: &mut std::fs::File) -> Vec<u8> {
    use std::io::{Read as _, Seek as _};
    let mut all = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut all)).expect("what was written");
    all
}

fn succeeded(output: &Output) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
}
