//! What a site's row says of its two ways: by which tunnel its networks go, which one stands by, and who must answer. Pure.

use std::{collections::BTreeSet, net::IpAddr};

use charliehub_proto::{expected::Expected, site::Tunnel};
use ipnet::IpNet;

use super::super::right::{self, Obstacle};
use crate::wireguard::facts::Key;

/// The two ways to a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pair {
    pub site: String,
    pub networks: BTreeSet<IpNet>,
    /// Hosts within these networks: whoever answers by a tunnel proves it.
    pub hosts: Vec<IpAddr>,
    pub primary: End,
    pub fallback: End,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub interface: String,
    pub key: Key,
    /// The far end inside the tunnel.
    pub address: IpAddr,
    /// What the row gives its peer anyway.
    pub allowed: BTreeSet<IpNet>,
}

impl Pair {
    /// What is expected of the tunnels of rank 1 and 2, or why there is nothing to fall back to.
    pub(super) fn of(expected: &Expected, name: &str) -> Result<Self, Obstacle> {
        let site = right::site(expected, name, "failover")?;
        let mut tunnels: Vec<&Tunnel> = site.tunnels.iter().collect();
        tunnels.sort_by_key(|tunnel| tunnel.rank);
        let &[primary, fallback, ..] = tunnels.as_slice() else {
            let remedy = "give its row a second tunnel, of rank 2: the one that stands by";
            return Err(Obstacle::unknown(format!("site {name} has no second tunnel"), remedy));
        };
        if primary.interface == fallback.interface {
            return Err(Obstacle::unknown(
                format!("both tunnels of site {name} are peers of {}", primary.interface),
                "give the second one an interface of its own: one network cannot be two peers' of one interface",
            ));
        }
        let networks: BTreeSet<IpNet> = site.networks.iter().map(IpNet::trunc).collect();
        if networks.is_empty() || networks.iter().any(|network| network.prefix_len() == 0) {
            let remedy = "name its networks in its row; a default route is never moved";
            return Err(Obstacle::unknown(format!("site {name} has no networks that could move"), remedy));
        }
        let hosts: Vec<IpAddr> = site.hosts.iter().map(|host| host.address).collect();
        let hosts: Vec<IpAddr> =
            hosts.into_iter().filter(|host| networks.iter().any(|network| network.contains(host))).collect();
        if hosts.is_empty() {
            return Err(Obstacle::unknown(
                format!("site {name} has no host within its networks that could prove a way"),
                "name one that answers pings in `hosts` of its row",
            ));
        }
        Ok(Self {
            site: name.to_owned(),
            networks,
            hosts,
            primary: End::of(primary, name)?,
            fallback: End::of(fallback, name)?,
        })
    }

    /// `wg-fr->wg-uk`: what findings call it.
    pub(super) fn target(&self) -> String {
        format!("{}->{}", self.primary.interface, self.fallback.interface)
    }

    /// As a sentence has them.
    pub(super) fn networks(&self) -> String {
        self.networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
}

impl End {
    fn of(tunnel: &Tunnel, site: &str) -> Result<Self, Obstacle> {
        let (key, address) = right::far_end(tunnel, site)?;
        Ok(Self {
            interface: tunnel.interface.clone(),
            key,
            address,
            allowed: tunnel.allowed_ips.iter().map(IpNet::trunc).collect(),
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) const UK: Key = Key([1; 32]);
    pub(in super::super) const FR: Key = Key([2; 32]);

    fn row() -> serde_json::Value {
        let tunnel = |name: &str, key: Key, octet: u8, rank: u16| {
            serde_json::json!({
                "interface": name, "public_key": key.to_string(), "rank": rank, "peer_address": format!("10.254.{octet}.2"),
                "allowed_ips": [format!("10.{octet}.0.0/16"), format!("10.254.{octet}.2/32")],
            })
        };
        serde_json::json!({
            "name": "fr", "networks": ["10.35.0.0/16"], "hosts": [{ "address": "10.35.0.10" }, { "address": "192.0.2.1" }],
            "tunnels": [tunnel("wg-uk", UK, 44, 2), tunnel("wg-fr", FR, 35, 1)],
        })
    }

    fn read(row: &serde_json::Value) -> Result<Pair, String> {
        let expected = serde_json::json!({ "agent": "hub2", "revision": 1, "digest": "d", "sites": [row], "names": {}, "policy": {} });
        let expected = serde_json::from_value(expected).unwrap();
        Pair::of(&expected, "fr").map_err(|obstacle| obstacle.text)
    }

    pub(in super::super) fn pair() -> Pair {
        read(&row()).unwrap()
    }

    #[test]
    fn the_two_best_tunnels_and_the_hosts_behind_them() {
        let pair = pair();
        assert_eq!((pair.target(), pair.networks()), ("wg-fr->wg-uk".to_owned(), "10.35.0.0/16".to_owned()));
        assert_eq!((pair.primary.key, pair.fallback.key), (FR, UK));
        assert_eq!(pair.hosts, ["10.35.0.10".parse::<IpAddr>().unwrap()], "others prove nothing");
    }

    #[test]
    fn a_row_that_says_too_little_is_told_with_what_is_missing() {
        for (pointer, value, said) in [
            ("/name", serde_json::json!("it"), "site fr is not expected on this host"),
            ("/agent", serde_json::json!("hub3"), "site fr is not expected on this host"),
            ("/networks", serde_json::json!([]), "site fr has no networks that could move"),
            ("/networks", serde_json::json!(["0.0.0.0/0"]), "site fr has no networks that could move"),
            ("/hosts", serde_json::json!([]), "site fr has no host within its networks that could prove a way"),
            ("/tunnels", serde_json::json!([row()["tunnels"][0]]), "site fr has no second tunnel"),
            ("/tunnels/0/interface", serde_json::json!("wg-fr"), "both tunnels of site fr are peers of wg-fr"),
            ("/tunnels/0/peer_address", serde_json::Value::Null, "the row of site fr says too little of wg-uk"),
            ("/tunnels/1/public_key", serde_json::json!("k"), "the row of site fr says too little of wg-fr"),
        ] {
            let mut row = row();
            row["agent"] = serde_json::json!("hub2");
            *row.pointer_mut(pointer).unwrap() = value;
            assert_eq!(read(&row), Err(said.to_owned()), "{pointer}");
        }
    }
}
