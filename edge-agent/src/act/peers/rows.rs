//! What the rows say of the peers of one interface. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use charliehub_proto::expected::Expected;

use super::{super::right::Obstacle, plan::Want};
use crate::wireguard::{
    facts::{Device, Key, Peer},
    wanted::Wanted,
};

#[derive(Clone, Debug)]
pub(crate) struct Rows {
    pub wants: Vec<Want>,
    /// Who is called by a name, and the name: `fr.example.org:51820`.
    pub names: BTreeMap<Key, String>,
    /// Sites that have a peer there.
    pub sites: BTreeSet<String>,
}

/// The interfaces that rows tell of.
pub(crate) fn interfaces(expected: &Expected) -> Vec<String> {
    Wanted::of(expected).interfaces.into_keys().collect()
}

/// Or why nothing can be brought to them. `has_provider`: what it says counts, so nothing is known before it said something.
pub(crate) fn of(expected: &Expected, has_provider: bool, interface: &str) -> Result<Rows, Obstacle> {
    if has_provider && expected.digest.is_empty() {
        return Err(Obstacle::unknown(
            "the provider was never heard, so nobody knows which peers there must be",
            "see the finding `provider`; what it says is kept on disk from then on",
        ));
    }
    let wanted = Wanted::of(expected).interfaces.remove(interface).ok_or_else(|| {
        Obstacle::unknown(
            format!("no row tells of {interface}, so its peers are left alone"),
            "`charliehub-provider sites list` and the policy's `vpn`, or both in the agent's own file; [[act.peers]] names it by \
             `interface`",
        )
    })?;
    let mut rows = Rows { wants: Vec::new(), names: BTreeMap::new(), sites: BTreeSet::new() };
    for peer in wanted.all() {
        let name = peer.name();
        let key = Key::read(&peer.key).ok_or_else(|| {
            Obstacle::unknown(
                format!("the public key of {name} on {interface} is none"),
                "give its row the `public_key` as `wg pubkey` writes it",
            )
        })?;
        let fixed = peer.endpoint.as_ref().and_then(|endpoint| endpoint.parse().ok());
        if let (Some(endpoint), None) = (&peer.endpoint, fixed) {
            rows.names.insert(key, endpoint.clone());
        }
        rows.sites.extend(Some(peer.site.clone()).filter(|site| !site.is_empty()));
        rows.wants.push(Want {
            name: name.to_owned(),
            key,
            allowed: peer.allowed_ips.clone(),
            may_have: peer.may_have.clone(),
            keepalive: peer.keepalive,
            endpoint: fixed,
            is_fixed: fixed.is_some(),
        });
    }
    Ok(rows)
}

impl Rows {
    /// The names of which an address is wanted: of peers that are called nowhere yet.
    pub(crate) fn wanted_names(&self, device: &Device) -> BTreeSet<&String> {
        let is_called = |key: &Key| device.peers.iter().any(|peer: &Peer| peer.key == *key && peer.endpoint.is_some());
        self.names.iter().filter(|(key, _)| !is_called(key)).map(|(_, name)| name).collect()
    }

    /// From now on these names are known.
    pub(crate) fn resolve(&mut self, found: &BTreeMap<String, SocketAddr>) {
        for want in &mut self.wants {
            let name = self.names.get(&want.key);
            want.endpoint = want.endpoint.or_else(|| found.get(name?).copied());
        }
    }

    /// No row is left, and several peers are: the rows are lost, not the peers. One that is left alone is the last that was revoked.
    pub(crate) fn would_empty(&self, device: &Device) -> bool {
        self.wants.is_empty() && device.peers.len() > 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "2p2NkdRzG9WF9umEqEneYHwUtPVNtQWOFiv45W4Pqzw=";

    fn expected(text: &str) -> Expected {
        crate::expect::merge(Expected::default(), &toml::from_str(text).unwrap())
    }

    const VPN: &str = "[[policy.vpn]]\ninterface = \"wg-clients\"\npublic_key = \"k\"\nendpoint = \"vpn.test:51820\"\naddresses = []\n";

    #[test]
    fn sites_and_clients_of_one_interface() {
        let text = format!(
            "[[sites]]\nname = \"uk\"\nnetworks = []\n[[sites.tunnels]]\ninterface = \"wg-uk\"\npublic_key = \"{KEY}\"\n\
             allowed_ips = [\"10.44.0.1/16\"]\nkeepalive = 25\nendpoint = \"uk.test:51820\"\n{VPN}\
             [[peers]]\nname = \"anna\"\npublic_key = \"{KEY}\"\naddresses = [\"10.99.0.7/32\"]\n\
             [[peers]]\nname = \"ben\"\ninterface = \"wg-others\"\npublic_key = \"{KEY}\"\naddresses = [\"10.99.0.8/32\"]\n"
        );
        let expected = expected(&text);
        assert_eq!(interfaces(&expected), ["wg-clients", "wg-uk"]);
        let mut uk = of(&expected, false, "wg-uk").unwrap();
        assert_eq!((&*uk.wants[0].name, uk.wants[0].keepalive, uk.wants[0].endpoint), ("uk", 25, None));
        assert_eq!(uk.wanted_names(&Device::default()).into_iter().collect::<Vec<_>>(), ["uk.test:51820"]);
        let found = "198.51.100.2:51820".parse().unwrap();
        uk.resolve(&[("uk.test:51820".to_owned(), found)].into());
        assert_eq!((uk.wants[0].endpoint, uk.wants[0].is_fixed), (Some(found), false));
        let clients = of(&expected, false, "wg-clients").unwrap();
        let wants: Vec<_> = clients.wants.iter().map(|want| (&*want.name, want.keepalive)).collect();
        assert_eq!(wants, [("anna", 0)]);
        assert_eq!(
            of(&expected, false, "wg-others").unwrap_err().text,
            "no row tells of wg-others, so its peers are left alone"
        );
    }

    #[test]
    fn nothing_is_known_before_the_provider_was_heard_and_the_last_client_may_go() {
        let expected = expected(VPN);
        assert!(of(&expected, true, "wg-clients").unwrap_err().text.starts_with("the provider was never heard"));
        let rows = of(&expected, false, "wg-clients").unwrap();
        let with = |count: u8| Device {
            peers: (0..count).map(|byte| Peer::new(Key([byte; 32]))).collect(),
            ..Device::default()
        };
        assert_eq!([0, 1, 2].map(|count| rows.would_empty(&with(count))), [false, false, true]);
    }
}
