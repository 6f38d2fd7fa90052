use std::net::Ipv4Addr;

use netlink_packet_wireguard::{WireguardAllowedIp, WireguardTimeSpec};

use super::*;

#[tokio::test]
async fn the_kernel_tells_of_its_loopback() {
    let links = links().await.unwrap();
    let lo = &links["lo"];
    assert!(lo.mtu > 1_000, "{lo:?}");
    if lo.is_up {
        assert!(lo.addresses.contains(&"127.0.0.1/8".parse().unwrap()), "{lo:?}");
        assert_eq!(route(Ipv4Addr::LOCALHOST.into()).await.unwrap(), Some(lo.index));
    }
}

#[tokio::test]
async fn a_kernel_without_the_tunnel_says_so() {
    let error = device("wg-no-such").await.unwrap_err();
    assert!(error.raw_os_error().is_some(), "ENOENT without the module, ENODEV or EPERM with it: {error:?}");
}

/// A peer with more allowed IPs than fit in one message goes on in the next, as wireguard.h of the kernel has it.
#[test]
fn the_parts_of_a_device_are_joined() {
    let allowed = |network: [u8; 4], length| {
        WireguardPeerAttribute::AllowedIps(vec![WireguardAllowedIp(vec![
            WireguardAllowedIpAttr::IpAddr(network.into()),
            WireguardAllowedIpAttr::Cidr(length),
        ])])
    };
    let key = [7; 32];
    let first = WireguardPeer(vec![
        WireguardPeerAttribute::PublicKey(key),
        WireguardPeerAttribute::PresharedKey([9; 32]),
        WireguardPeerAttribute::Endpoint("198.51.100.2:51820".parse().unwrap()),
        WireguardPeerAttribute::LastHandshake(WireguardTimeSpec { seconds: 12, nano_seconds: 5 }),
        WireguardPeerAttribute::RxBytes(1),
        WireguardPeerAttribute::TxBytes(2),
        WireguardPeerAttribute::PersistentKeepalive(25),
        allowed([10, 44, 0, 1], 16),
    ]);
    let rest = WireguardPeer(vec![WireguardPeerAttribute::PublicKey(key), allowed([10, 254, 44, 2], 32)]);
    let other = WireguardPeer(vec![
        WireguardPeerAttribute::PublicKey([8; 32]),
        WireguardPeerAttribute::LastHandshake(WireguardTimeSpec { seconds: 0, nano_seconds: 0 }),
    ]);
    let parts = [
        vec![
            WireguardAttribute::PrivateKey([1; 32]),
            WireguardAttribute::PublicKey([2; 32]),
            WireguardAttribute::ListenPort(51820),
            WireguardAttribute::Peers(vec![first]),
        ],
        vec![WireguardAttribute::Peers(vec![rest, other])],
    ];
    let device = join(parts.into_iter());
    let peer = Peer {
        key: Key(key),
        endpoint: Some("198.51.100.2:51820".parse().unwrap()),
        handshake: Some(Duration::new(12, 5)),
        received: 1,
        sent: 2,
        keepalive: 25,
        allowed_ips: ["10.44.0.0/16", "10.254.44.2/32"].map(|network| network.parse().unwrap()).into(),
    };
    let expected = Device {
        own_key: Some(Key([2; 32])),
        port: 51820,
        peers: vec![peer, Peer::new(Key([8; 32]))],
        source: "netlink".to_owned(),
    };
    assert_eq!(device, expected);
}

/// The length of an attribute has 16 bits.
#[test]
fn many_peers_are_written_in_several_messages() {
    let networks: Vec<BTreeSet<IpNet>> =
        (0..=255_u8).map(|n| (0..=n % 8).map(|m| IpNet::new([10, n, m, 0].into(), 24).unwrap()).collect()).collect();
    let order = |n: usize| {
        let key = Key([u8::try_from(n % 251).unwrap(); 32]);
        let changes = vec![
            Change::AllowedIps { networks: &networks[n % 256], is_replacing: true },
            Change::Keepalive(25),
            Change::Endpoint("[2001:db8::1]:51820".parse().unwrap()),
        ];
        if n.is_multiple_of(3) { Order::Remove(key) } else { Order::Make(key, changes) }
    };
    for count in [0, 1, 3, 2_000] {
        let orders: Vec<Order<'_>> = (0..count).map(order).collect();
        let parts = parts(&orders);
        assert_eq!(parts.concat().len(), count);
        assert!(count < 2_000 || parts.len() > 5, "{}", parts.len());
        for part in parts {
            let peers = part.iter().map(|order| match order {
                Order::Make(key, changes) => ordered(*key, WireguardPeerFlags::empty(), changes),
                Order::Remove(key) => ordered(*key, WireguardPeerFlags::RemoveMe, &[]),
                Order::OwnKey(_) | Order::Change(..) => unreachable!(),
            });
            let peers = WireguardAttribute::Peers(peers.collect());
            assert!(
                netlink_packet_core::Nla::value_len(&peers) <= FITS,
                "{}",
                netlink_packet_core::Nla::value_len(&peers)
            );
        }
    }
}
