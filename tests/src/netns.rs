//! Addresses and networks of a test: a loopback alias to come from, a network namespace to cut off. Both need root.

use std::{net::IpAddr, process::Command};

use rand::RngExt;

use crate::Home;

pub fn is_root() -> bool {
    rustix::process::getuid().is_root()
}

/// An address of its own on the loopback interface, such as one of a site behind the hub.
pub struct Alias(IpAddr);

impl Alias {
    /// A random address in `10.<second>.0.0/16`.
    pub fn new(second: u8) -> Self {
        let mut random = rand::rng();
        let address = format!("10.{second}.{}.{}", random.random_range(1..=254), random.random_range(1..=254));
        run("ip", &["addr", "add", &format!("{address}/32"), "dev", "lo"]);
        Self(address.parse().expect("an address"))
    }

    pub fn ip(&self) -> IpAddr {
        self.0
    }
}

impl Drop for Alias {
    fn drop(&mut self) {
        Command::new("ip").args(["addr", "del", &format!("{}/32", self.0), "dev", "lo"]).status().ok();
    }
}

/// A network namespace that the host reaches by one veth pair.
pub struct Netns {
    name: String,
    inside: IpAddr,
}

impl Netns {
    pub fn new(_home: &Home) -> Self {
        let id = rand::rng().random_range(0..0x4000_u32);
        let name = format!("ch{id:04x}");
        let (host, peer) = (format!("{name}a"), format!("{name}b"));
        let net = format!("10.213.{}.{}", id >> 6, (id & 63) * 4);
        let at = |n: u32| format!("{}.{}", net.rsplit_once('.').unwrap().0, (id & 63) * 4 + n);
        let (outside, inside) = (at(1), at(2));
        run("ip", &["netns", "add", &name]);
        run("ip", &["link", "add", &host, "type", "veth", "peer", "name", &peer, "netns", &name]);
        run("ip", &["addr", "add", &format!("{outside}/30"), "dev", &host]);
        run("ip", &["link", "set", &host, "up"]);
        let this = Self { name, inside: inside.parse().expect("an address") };
        this.run(&["ip", "addr", "add", &format!("{inside}/30"), "dev", &peer]);
        this.run(&["ip", "link", "set", &peer, "up"]);
        this.run(&["ip", "link", "set", "lo", "up"]);
        this
    }

    /// As `ip netns` has it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address as the host sees it.
    pub fn ip(&self) -> IpAddr {
        self.inside
    }

    /// The words to put before a command to run it inside.
    pub(crate) fn enter(&self) -> [String; 2] {
        ["nsenter".to_owned(), format!("--net=/run/netns/{}", self.name)]
    }

    /// Everything that arrives is dropped without a word, as behind a dead link.
    pub fn cut(&self) {
        self.run(&["iptables", "-I", "INPUT", "-j", "DROP"]);
    }

    pub fn heal(&self) {
        self.run(&["iptables", "-D", "INPUT", "-j", "DROP"]);
    }

    fn run(&self, command: &[&str]) {
        let [enter, net] = self.enter();
        let mut words = vec![net.as_str()];
        words.extend(command);
        run(&enter, &words);
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        Command::new("ip").args(["netns", "del", &self.name]).status().ok();
    }
}

pub(crate) fn run(program: &str, args: &[&str]) {
    let out = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("cannot run {program}: {e}"));
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
}
