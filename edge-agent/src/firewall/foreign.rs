//! Whose rule it is: ours, or of a program that makes its own again at each start.
//!
//! Chains of Docker, fail2ban and the like, jumps to them, the rules of wg-quick, and what dockerd writes into the kernel's own chains
//! for its bridges (Docker 20 to 28, `iptables.md` of its documentation). Such rules are never drift; but a packet that one
//! of them takes is taken, so they count where a rule of ours must be reached. Pure.

use super::{
    matches::{Match, What},
    rule::Rule,
    save::Table,
};
use crate::config;

#[derive(Clone, Debug)]
pub(crate) struct Foreign {
    chains: Vec<String>,
    bridges: Vec<String>,
}

impl Foreign {
    pub(crate) fn new(settings: &config::Firewall) -> Self {
        Self { chains: settings.foreign_chains.clone(), bridges: settings.bridges.clone() }
    }

    pub(crate) fn has_chain(&self, name: &str) -> bool {
        self.chains.iter().any(|start| name.starts_with(start.as_str()))
    }

    pub(crate) fn has_rule(&self, table: &str, chain: &str, rule: &Rule) -> bool {
        self.has_chain(chain)
            || self.has_chain(&rule.target.name)
            || rule.comment.as_deref().is_some_and(|comment| comment.starts_with("wg-quick(8) rule for"))
            || self.is_of_a_bridge(table, chain, rule)
    }

    /// Docker sets FORWARD to DROP whenever it turns forwarding on.
    pub(crate) fn has_policy(&self, table: &str, chain: &str, live: &Table) -> bool {
        (table, chain, live.policy(chain)) == ("filter", "FORWARD", "DROP")
            && live.chains.keys().any(|name| name.starts_with("DOCKER") && self.has_chain(name))
    }

    /// Shapes of dockerd: nothing else may stand in the rule.
    fn is_of_a_bridge(&self, table: &str, chain: &str, rule: &Rule) -> bool {
        let shape: Vec<Part> = rule.matches.iter().map(|one| self.part(one)).collect();
        let has = |part: Part| shape.contains(&part);
        let target = rule.target.name.as_str();
        match (table, chain, target) {
            ("nat", "POSTROUTING", "MASQUERADE") => match shape.len() {
                2 => has(Part::Network) && has(Part::NotOut),
                _ => hairpin(rule),
            },
            ("filter", "FORWARD", "ACCEPT" | "DROP") => match shape.len() {
                1 => has(Part::Out),
                2 => has(Part::Out) && has(Part::Replies) || has(Part::In) && (has(Part::NotOut) || has(Part::Out)),
                _ => false,
            },
            ("raw", "PREROUTING", "DROP") => shape.len() == 2 && has(Part::Container) && has(Part::NotIn),
            _ => false,
        }
    }

    fn part(&self, one: &Match) -> Part {
        let is_bridge = |name: &str| {
            self.bridges.iter().any(|bridge| match bridge.strip_suffix('+') {
                Some(start) => name.starts_with(start),
                None => name == bridge,
            })
        };
        match (&one.what, one.negated) {
            (What::In(name), negated) if is_bridge(name) => {
                if negated {
                    Part::NotIn
                } else {
                    Part::In
                }
            }
            (What::Out(name), negated) if is_bridge(name) => {
                if negated {
                    Part::NotOut
                } else {
                    Part::Out
                }
            }
            (What::Source(_), false) => Part::Network,
            (What::Destination(net), false) if net.prefix_len() == net.max_prefix_len() => Part::Container,
            (What::Other { option, values, .. }, false)
                if option == "--ctstate" && values.iter().all(|states| states == "ESTABLISHED,RELATED") =>
            {
                Part::Replies
            }
            _ => Part::Else,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    In,
    NotIn,
    Out,
    NotOut,
    Network,
    Container,
    Replies,
    Else,
}

/// A container that reaches itself by its published port: source and destination are the same host.
fn hairpin(rule: &Rule) -> bool {
    let source = rule.matches.iter().find_map(|one| match (&one.what, one.negated) {
        (What::Source(net), false) if net.prefix_len() == net.max_prefix_len() => Some(*net),
        _ => None,
    });
    source.is_some_and(|net| rule.matches.contains(&Match { negated: false, what: What::Destination(net) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::{rule, save};

    #[test]
    fn whose_a_rule_is() {
        let foreign = Foreign::new(&config::Firewall::default());
        for (table, chain, text, is_foreign) in [
            ("nat", "DOCKER", "-i br-ch -j RETURN", true),
            ("filter", "FORWARD", "-j DOCKER-USER", true),
            ("filter", "INPUT", "-p tcp -m multiport --dports 22 -j f2b-sshd", true),
            ("filter", "f2b-sshd", "-s 192.0.2.99/32 -j REJECT --reject-with icmp-port-unreachable", true),
            (
                "mangle",
                "PREROUTING",
                "-p udp -m comment --comment \"wg-quick(8) rule for wg0\" -j CONNMARK --restore-mark",
                true,
            ),
            ("nat", "POSTROUTING", "-s 172.19.0.0/16 ! -o br-ch -j MASQUERADE", true),
            ("nat", "POSTROUTING", "-s 172.19.0.2/32 -d 172.19.0.2/32 -p tcp -m tcp --dport 443 -j MASQUERADE", true),
            ("filter", "FORWARD", "-o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", true),
            ("filter", "FORWARD", "-i docker0 ! -o docker0 -j ACCEPT", true),
            ("raw", "PREROUTING", "-d 172.17.0.2/32 ! -i docker0 -j DROP", true),
            ("nat", "POSTROUTING", "-s 10.44.0.0/16 -o eth0 -j MASQUERADE", false),
            ("filter", "FORWARD", "-i br-ch -p tcp --dport 443 -j ACCEPT", false),
            ("filter", "INPUT", "-i docker0 -j ACCEPT", false),
            ("raw", "PREROUTING", "! -s 172.16.0.0/12 -p tcp --dport 5432 -j DROP", false),
            ("filter", "FORWARD", "-j CH-SITES", false),
        ] {
            let rules = rule::parse(text, &rule::Services::new()).unwrap();
            assert_eq!(foreign.has_rule(table, chain, &rules[0]), is_foreign, "{table} {chain} {text}");
        }
    }

    #[test]
    fn a_policy_that_docker_set() {
        let foreign = Foreign::new(&config::Firewall::default());
        let table = |text: &str| save::parse(text, &rule::Services::new()).tables.remove("filter").unwrap();
        assert!(foreign.has_policy("filter", "FORWARD", &table("*filter\n:FORWARD DROP\n:DOCKER -\nCOMMIT\n")));
        assert!(!foreign.has_policy("filter", "FORWARD", &table("*filter\n:FORWARD DROP\nCOMMIT\n")));
        assert!(!foreign.has_policy("filter", "INPUT", &table("*filter\n:INPUT DROP\n:DOCKER -\nCOMMIT\n")));
    }
}
