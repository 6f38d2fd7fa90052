//! Two sites as the seed has them, and facts that fit, for tests.

use std::time::Duration;

use charliehub_proto::{
    expected::Expected,
    site::{Host, Site, Tunnel},
};
use jiff::Timestamp;

use super::{
    facts::{Device, Facts, Interface, Key, Link, Peer},
    wanted::Wanted,
};
use crate::{clock::Now, sample::Sample};

pub(super) const UK: Key = Key([1; 32]);
pub(super) const FR: Key = Key([2; 32]);
pub(super) const STRANGER: Key = Key([3; 32]);
/// When the latest handshakes were, since 1970.
pub(super) const SHOOK: Duration = Duration::from_secs(1_795_765_866);

fn tunnel(interface: &str, key: Key, networks: &[&str], address: &str, rank: u16) -> Tunnel {
    Tunnel {
        interface: interface.to_owned(),
        public_key: key.to_string(),
        allowed_ips: networks.iter().map(|network| network.parse().unwrap()).collect(),
        keepalive: 25,
        rank,
        peer_address: Some(address.parse().unwrap()),
        addresses: Vec::new(),
        own_public_key: None,
        listen_port: Some(51820),
        mtu: Some(1420),
        endpoint: None,
    }
}

/// Site uk by wg-uk; site fr by wg-fr, and wg-uk stands by for it.
pub(super) fn expected() -> Expected {
    let uk = tunnel("wg-uk", UK, &["10.44.0.0/16", "10.254.44.2/32"], "10.254.44.2", 1);
    let fr = tunnel("wg-fr", FR, &["10.35.0.0/16", "10.254.35.2/32"], "10.254.35.2", 1);
    let site = |name: &str, network: &str, host: &str, tunnels| Site {
        name: name.to_owned(),
        agent: "hub2".to_owned(),
        networks: vec![network.parse().unwrap()],
        tunnels,
        hosts: vec![Host { address: host.parse().unwrap(), name: None, port: None }],
        wan_name: None,
        notes: None,
    };
    let sites = vec![
        site("uk", "10.44.0.0/16", "10.44.0.10", vec![uk.clone()]),
        site("fr", "10.35.0.0/16", "10.35.0.10", vec![fr, Tunnel { rank: 2, ..uk }]),
    ];
    Expected { agent: "hub2".to_owned(), sites, ..Expected::default() }
}

pub(super) fn wanted() -> Wanted {
    Wanted::of(&expected())
}

/// As they should be.
pub(super) fn facts() -> Facts {
    let interface = |index, key, networks: [&str; 2]| Interface {
        link: Ok(Some(Link { index, kind: "tun".to_owned(), is_up: true, mtu: 1420, addresses: [].into() })),
        device: Ok(Device {
            own_key: None,
            port: 51820,
            peers: vec![Peer {
                endpoint: Some("198.51.100.2:51820".parse().unwrap()),
                handshake: Some(SHOOK),
                received: 10_000,
                sent: 10_000,
                keepalive: 25,
                allowed_ips: networks.map(|network| network.parse().unwrap()).into(),
                ..Peer::new(key)
            }],
            source: "socket".to_owned(),
        }),
    };
    let through = |name: &str| Ok(Some(name.to_owned()));
    Facts {
        interfaces: [
            ("wg-uk".to_owned(), interface(5, UK, ["10.44.0.0/16", "10.254.44.2/32"])),
            ("wg-fr".to_owned(), interface(6, FR, ["10.35.0.0/16", "10.254.35.2/32"])),
        ]
        .into(),
        routes: [
            ("10.44.0.0/16".parse().unwrap(), through("wg-uk")),
            ("10.35.0.0/16".parse().unwrap(), through("wg-fr")),
        ]
        .into(),
    }
}

pub(super) fn uk_link(facts: &mut Facts) -> &mut Link {
    facts.interfaces.get_mut("wg-uk").unwrap().link.as_mut().unwrap().as_mut().unwrap()
}

pub(super) fn uk_device(facts: &mut Facts) -> &mut Device {
    facts.interfaces.get_mut("wg-uk").unwrap().device.as_mut().unwrap()
}

pub(super) fn uk_peer(facts: &mut Facts) -> &mut Peer {
    &mut uk_device(facts).peers[0]
}

/// So many seconds after the handshakes, on a machine that had booted 1,000 s before them.
pub(super) fn after(seconds: u64) -> Now {
    let wall = SHOOK + Duration::from_secs(seconds);
    let wall = Timestamp::from_second(wall.as_secs().try_into().unwrap()).unwrap();
    Now { boot: Duration::from_secs(1_000 + seconds), wall, is_trusted: true }
}

/// What is not ok: `check target status`.
pub(super) fn bad(samples: &[Sample]) -> Vec<String> {
    let bad = samples.iter().filter(|sample| sample.status.code() != 0);
    bad.map(|sample| format!("{} {} {}", sample.check, sample.target, sample.status)).collect()
}
