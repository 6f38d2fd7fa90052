//! Decides whether a `Host` header names us: a web page that points its own name at our address (DNS rebinding) does not.

use std::{collections::BTreeSet, net::IpAddr};

/// The names that we go by.
#[derive(Clone, Debug, Default)]
pub struct Hosts(BTreeSet<String>);

impl Hosts {
    /// `names` in lower case, without port.
    pub fn new(names: BTreeSet<String>) -> Self {
        Self(names)
    }

    /// True for an IP address, `localhost`, or one of our names, with any port.
    pub fn allow(&self, host: &str) -> bool {
        let name = match host.strip_prefix('[') {
            Some(v6) => v6.split(']').next().unwrap_or_default(),
            None => host.split(':').next().unwrap_or_default(),
        };
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        name == "localhost" || name.parse::<IpAddr>().is_ok() || self.0.contains(&name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_names_pass() {
        let hosts = Hosts::new(["edge.example.org".to_owned()].into());
        for ours in [
            "127.0.0.1",
            "127.0.0.1:8001",
            "[::1]:8001",
            "10.0.0.5:80",
            "localhost:1",
            "LOCALHOST",
            "Edge.example.org:8001",
        ] {
            assert!(hosts.allow(ours), "{ours}");
        }
        for other in ["evil.test", "edge.example.org.evil.test:8001", "localhost.evil.test", "", "127.0.0.1.evil.test"]
        {
            assert!(!hosts.allow(other), "{other}");
        }
    }
}
