//! Whether rules would cut a way that a program of this host needs, such as the provider's to its database.
//!
//! Follows the packets of one TCP connection from here: to another host they leave by OUTPUT and the answers come in; to an address
//! of this host they do both, over `lo`. What a rule asks beyond that is not known beforehand, and counts against it: a way that may
//! be cut is cut. Pure, but for [`Flow::to`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use charliehub_proto::policy;

use super::{
    Family, Meaning,
    matches::{Side, What},
    meant, read,
    rule::{Rule, Services},
};

/// Linux gives a connection one of these ports of ours.
const OWN_PORTS: (u16, u16) = (32_768, 60_999);

/// A TCP connection from this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    pub from: IpAddr,
    pub to: SocketAddr,
    /// The other end is an address of this host.
    pub is_local: bool,
}

impl Flow {
    /// How a program of this host would reach an address now. Sends nothing.
    pub fn to(to: SocketAddr) -> std::io::Result<Self> {
        let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(to)?;
        let from = socket.local_addr()?.ip();
        Ok(Self { from, to, is_local: UdpSocket::bind((to.ip(), 0)).is_ok() })
    }
}

/// The names of the policy's rules that would refuse it.
pub fn cuts(policy: &policy::Firewall, flow: Flow) -> Vec<String> {
    let services = read::services();
    policy.rules.iter().filter(|rule| refuses(rule, flow, &services)).map(|rule| rule.name.clone()).collect()
}

fn refuses(rule: &policy::Rule, flow: Flow, services: &Services) -> bool {
    let family = if flow.to.is_ipv4() { Family::V4 } else { Family::V6 };
    if !super::judge::families(rule.family).contains(&family) || rule.table == "nat" {
        return false;
    }
    let (Meaning::Known(rules) | Meaning::Unsure(rules)) = meant(rule, family, services) else { return false };
    let (comes_in, goes_out) = match rule.chain.as_str() {
        "PREROUTING" | "INPUT" => (true, false),
        "OUTPUT" | "POSTROUTING" => (false, true),
        "FORWARD" => (false, false),
        _ => (true, true),
    };
    rules.iter().filter(|rule| rule.target.is_refusal()).any(|rule| {
        flow.packets()
            .iter()
            .any(|packet| (goes_out && packet.goes_out || comes_in && packet.comes_in) && packet.fits(rule))
    })
}

#[derive(Clone, Copy)]
struct Packet {
    from: IpAddr,
    to: IpAddr,
    from_port: (u16, u16),
    to_port: (u16, u16),
    /// Over `lo`; else over an interface that is not known.
    is_local: bool,
    goes_out: bool,
    comes_in: bool,
}

impl Flow {
    /// What is asked, and what is answered.
    fn packets(self) -> [Packet; 2] {
        let Self { from, to, is_local } = self;
        let port = (to.port(), to.port());
        let asked = Packet {
            from,
            to: to.ip(),
            from_port: OWN_PORTS,
            to_port: port,
            is_local,
            goes_out: true,
            comes_in: is_local,
        };
        let answered = Packet {
            from: to.ip(),
            to: from,
            from_port: port,
            to_port: OWN_PORTS,
            is_local,
            goes_out: is_local,
            comes_in: true,
        };
        [asked, answered]
    }
}

impl Packet {
    /// It may be one that the rule is for.
    fn fits(&self, rule: &Rule) -> bool {
        rule.matches.iter().all(|one| match &one.what {
            What::Protocol(name) => matches!(name.as_str(), "tcp" | "all") != one.negated,
            What::Source(net) => net.contains(&self.from) != one.negated,
            What::Destination(net) => net.contains(&self.to) != one.negated,
            What::In(name) | What::Out(name) => !self.is_local || (name == "lo" || name == "+") != one.negated,
            What::Fragment => one.negated,
            What::Ports(side, ranges) => {
                let within = |(low, high): (u16, u16)| ranges.iter().any(|(from, to)| *from <= high && low <= *to);
                let is_exact = |(low, high): (u16, u16)| low == high;
                let hits = |port: (u16, u16)| if one.negated { !within(port) || !is_exact(port) } else { within(port) };
                match side {
                    Side::Source => hits(self.from_port),
                    Side::Destination => hits(self.to_port),
                    Side::Either => hits(self.from_port) || hits(self.to_port),
                }
            }
            What::Other { .. } => true,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The seed's rules, and the ways to a database that a hub has.
    #[test]
    fn the_socket_and_the_bridge_stay_open_and_loopback_does_not() {
        let outside = "-p tcp --dport 5432 ! -s 172.16.0.0/12 -j DROP";
        let own = "-p tcp --dport 5432 -d 127.0.0.1 -j DROP";
        for (chain, rule, from, to, is_local, expected) in [
            ("OUTPUT", own, "127.0.0.1", "127.0.0.1:5432", true, true),
            ("OUTPUT", own, "127.0.0.1", "127.0.0.1:5433", true, false),
            ("OUTPUT", own, "172.19.0.1", "172.19.0.5:5432", false, false),
            ("PREROUTING", outside, "127.0.0.1", "127.0.0.1:5432", true, true),
            ("PREROUTING", outside, "10.0.0.1", "10.0.0.1:5432", true, true),
            ("PREROUTING", outside, "172.19.0.1", "172.19.0.1:5432", true, false),
            ("PREROUTING", outside, "172.19.0.1", "172.19.0.5:5432", false, false),
            ("PREROUTING", outside, "10.0.0.1", "10.44.0.5:5432", false, false),
            (
                "PREROUTING",
                "-p tcp --dport 8091 ! -s 172.16.0.0/12 ! -i lo -j DROP",
                "127.0.0.1",
                "127.0.0.1:8091",
                true,
                false,
            ),
            ("INPUT", "-s 10.44.0.0/16 -j DROP", "10.0.0.1", "10.44.0.5:5432", false, true),
            ("INPUT", "-m conntrack --ctstate NEW -j DROP", "127.0.0.1", "127.0.0.1:5432", true, true),
            ("INPUT", "-p udp -j DROP", "127.0.0.1", "127.0.0.1:5432", true, false),
            ("INPUT", "-p tcp --dport 5432 -j ACCEPT", "127.0.0.1", "127.0.0.1:5432", true, false),
            ("FORWARD", "-p tcp --dport 5432 -j DROP", "127.0.0.1", "127.0.0.1:5432", true, false),
            ("INPUT", "-p tcp --dport 5432 -j DROP", "::1", "[::1]:5432", true, false),
        ] {
            let policy = policy::Rule {
                name: "a".to_owned(),
                family: policy::Family::Ipv4,
                table: "filter".to_owned(),
                chain: chain.to_owned(),
                rule: rule.to_owned(),
            };
            let flow = Flow { from: from.parse().unwrap(), to: to.parse().unwrap(), is_local };
            assert_eq!(refuses(&policy, flow, &Services::new()), expected, "{chain} {rule} to {to}");
        }
    }
}
