//! A real BIND inside a network namespace, where port 53 is free: one that has zones, also such that a key may change, or one
//! that resolves from a root that such a one has.
//!
//! Each has an address of its own on the loopback of the namespace, so several run side by side.

use std::{collections::BTreeMap, fmt::Write as _, net::Ipv4Addr, path::PathBuf, process::Command};

use crate::{Home, Output, Process, Signal, process::guarded, secs, until};

/// How a key signs.
const ALGORITHM: &str = "hmac-sha256";

pub struct Bind {
    home: Home,
    namespace: String,
    at: Ipv4Addr,
    zones: BTreeMap<String, Zone>,
    /// Name and secret in base64: who has it may change every zone.
    key: Option<(String, String)>,
    /// Of a resolver: the server of the root.
    root: Option<Ipv4Addr>,
    process: Option<Process>,
}

struct Zone {
    serial: u32,
    records: String,
}

impl Bind {
    /// Has zones. Not started yet.
    pub fn new(home: &Home, namespace: &str, at: Ipv4Addr) -> Self {
        let (zones, key, root) = (BTreeMap::new(), None, None);
        Self { home: home.clone(), namespace: namespace.to_owned(), at, zones, key, root, process: None }
    }

    /// Has none, and resolves all that hangs on the zone `.` of the server at `root`. Not started yet.
    pub fn resolver(home: &Home, namespace: &str, at: Ipv4Addr, root: Ipv4Addr) -> Self {
        Self { root: Some(root), ..Self::new(home, namespace, at) }
    }

    /// A zone, `.` or `example.test`, with lines as in a zone file; its SOA is added.
    #[must_use]
    pub fn zone(mut self, name: &str, records: &str) -> Self {
        self.zones.insert(name.to_owned(), Zone { serial: 1, records: records.to_owned() });
        self
    }

    /// Who has this key may change its zones (RFC 2136). The secret is in base64, the algorithm HMAC-SHA-256.
    #[must_use]
    pub fn changed_by(mut self, key: &str, secret: &str) -> Self {
        self.key = Some((key.to_owned(), secret.to_owned()));
        self
    }

    #[must_use]
    pub async fn started(mut self) -> Self {
        self.up().await;
        self
    }

    /// Starts it (again) and waits until it answers. What was changed by a key is kept in journals.
    pub async fn up(&mut self) {
        let folder = self.folder();
        std::fs::create_dir_all(&folder).expect("a folder for BIND");
        // BIND listens only where an interface has the address; after a restart it is there already.
        let address = format!("{}/32", self.at);
        Command::new("ip")
            .args(["-n", &self.namespace, "addr", "replace", &address, "dev", "lo"])
            .status()
            .expect("ip");
        std::fs::write(folder.join("named.conf"), self.config()).expect("its settings");
        for (name, zone) in &self.zones {
            if !self.zone_file(name).exists() {
                self.write(name, zone);
            }
        }
        let mut command = guarded(None, "KILL", "nsenter");
        command.arg(format!("--net=/run/netns/{}", self.namespace)).args(["--", "named", "-g", "-n", "1", "-c"]);
        command.arg(folder.join("named.conf")).current_dir(&folder);
        self.process = Some(Process::start(&self.home, &self.name(), command));
        let zone = self.zones.keys().next().map_or(".", String::as_str).to_owned();
        until("BIND answers", secs(20), async || {
            if let Some(status) = self.process.as_mut().and_then(Process::exit) {
                panic!("BIND ended: {status}");
            }
            let said = self.dig(&["+short", "SOA", &zone]).await;
            if said.is_empty() { Err(said) } else { Ok(()) }
        })
        .await;
    }

    /// Gone: what is sent to it is refused by its host.
    pub fn down(&mut self) {
        self.process = None;
    }

    /// Silent: what is sent to it stays without an answer, until it is woken.
    pub fn sleep(&self) {
        self.signal(Signal::STOP);
    }

    pub fn wake(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        self.process.as_ref().expect("a running BIND").signal(signal);
    }

    /// Gives a zone other records, and waits until it has them. Not where a key may change zones.
    pub async fn set(&mut self, name: &str, records: &str) {
        let zone = self.zones.get_mut(name).expect("a zone of this BIND");
        zone.serial += 1;
        records.clone_into(&mut zone.records);
        let serial = zone.serial.to_string();
        self.write(name, &self.zones[name]);
        self.signal(Signal::HUP);
        until("the zone is loaded", secs(20), async || {
            let said = self.dig(&["+short", "SOA", name]).await;
            if said.split_whitespace().nth(2) == Some(&serial) { Ok(()) } else { Err(said) }
        })
        .await;
    }

    /// What it says to a question of `dig`'s: `&["+short", "A", "a.test"]`. Nothing while it does not answer.
    pub async fn dig(&self, question: &[&str]) -> String {
        let mut command = tokio::process::Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.namespace)).args(["--", "dig", "+time=1", "+tries=1"]);
        command.arg(format!("@{}", self.at)).args(question);
        let output = Output::of(command).await;
        if output.code == Some(0) { output.out.trim().to_owned() } else { String::new() }
    }

    fn write(&self, name: &str, zone: &Zone) {
        let Zone { serial, records } = zone;
        let origin = if name == "." { ".".to_owned() } else { format!("{name}.") };
        // Nobody keeps anything of it, also not that something is not there.
        let head = format!("$ORIGIN {origin}\n$TTL 0\n@ SOA ns.invalid. root.invalid. {serial} 3600 600 86400 0\n");
        let file = self.zone_file(name);
        let draft = file.with_extension("draft");
        std::fs::write(&draft, format!("{head}{records}\n")).expect("a zone file");
        std::fs::rename(draft, file).expect("a zone file");
    }

    fn config(&self) -> String {
        let (folder, at) = (self.folder(), self.at);
        let recursion = if self.root.is_some() { "yes" } else { "no" };
        let mut text = format!(
            "options {{\n  directory \"{}\";\n  pid-file none;\n  lock-file none;\n  listen-on {{ {at}; }};\n  listen-on-v6 {{ none; }};\n  \
             query-source address {at};\n  recursion {recursion};\n  dnssec-validation no;\n  empty-zones-enable no;\n  \
             minimal-responses yes;\n  notify no;\n  allow-transfer {{ none; }};\n  max-ncache-ttl 0;\n  servfail-ttl 0;\n  \
             prefetch 0;\n}};\ncontrols {{ }};\n",
            folder.display()
        );
        if let Some((name, secret)) = &self.key {
            writeln!(text, "key \"{name}\" {{ algorithm {ALGORITHM}; secret \"{secret}\"; }};").expect("text");
        }
        let update =
            self.key.as_ref().map_or(String::new(), |(name, _)| format!(" allow-update {{ key \"{name}\"; }};"));
        for name in self.zones.keys() {
            let file = self.zone_file(name);
            writeln!(text, "zone \"{name}\" {{ type primary; file \"{}\";{update} }};", file.display()).expect("text");
        }
        if let Some(root) = self.root {
            let hints = folder.join("root.hints");
            std::fs::write(&hints, format!(". 3600 NS ns.\nns. 3600 A {root}\n")).expect("hints");
            writeln!(text, "zone \".\" {{ type hint; file \"{}\"; }};", hints.display()).expect("text");
        }
        text
    }

    fn zone_file(&self, name: &str) -> PathBuf {
        let name = if name == "." { "root" } else { name };
        self.folder().join(format!("{name}.zone"))
    }

    fn folder(&self) -> PathBuf {
        self.home.join(self.name())
    }

    fn name(&self) -> String {
        format!("bind-{}", self.at)
    }
}
