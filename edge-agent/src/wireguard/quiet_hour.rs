//! A quiet hour, recorded from real tunnels and played again: nothing may be said of it.
//!
//! `tests/data/quiet-tunnels.gz` holds answers of wireguard-go 0.0.20220316 on a hub, every 5 s for more than an hour, of three
//! tunnels: one with a ping every 200 ms, one idle, both with a keepalive of 25 s; and one without a keepalive, used for 3 s every ten
//! minutes. Before each answer stand when it was given, in ms since 1970 and since the boot, and the tunnel. The private keys were never written.

use std::{collections::BTreeSet, io::Read as _, time::Duration};

use charliehub_proto::site::{Site, Tunnel};
use jiff::Timestamp;

use super::{
    facts::{Facts, Interface, Link},
    samples::bad,
    *,
};

/// One answer, and when it was given.
struct Answer {
    now: Now,
    tunnel: &'static str,
    device: facts::Device,
}

fn recording() -> Vec<Answer> {
    let mut text = String::new();
    let packed = include_bytes!("../../tests/data/quiet-tunnels.gz").as_slice();
    flate2::read::GzDecoder::new(packed).read_to_string(&mut text).unwrap();
    let answers = text.split("# ").skip(1).map(|record| {
        let (head, answer) = record.split_once('\n').unwrap();
        let [wall, boot, tunnel] = head.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let now = Now {
            boot: Duration::from_millis(boot.parse().unwrap()),
            wall: Timestamp::from_millisecond(wall.parse().unwrap()).unwrap(),
            is_trusted: true,
        };
        let tunnel = ["busy", "idle", "quiet"].into_iter().find(|known| *known == tunnel).unwrap();
        Answer { now, tunnel, device: uapi::parse(answer.as_bytes(), false).unwrap() }
    });
    answers.collect()
}

/// What the answer says is what is wanted of it.
fn expected(answer: &Answer) -> Expected {
    let [peer] = answer.device.peers.as_slice() else { panic!("one peer each") };
    let tunnel = Tunnel {
        interface: "wg0".to_owned(),
        public_key: peer.key.to_string(),
        allowed_ips: peer.allowed_ips.iter().copied().collect(),
        keepalive: peer.keepalive,
        rank: 1,
        peer_address: None,
        addresses: Vec::new(),
        own_public_key: None,
        listen_port: Some(answer.device.port),
        mtu: Some(1420),
        endpoint: None,
    };
    let site = Site {
        name: answer.tunnel.to_owned(),
        agent: String::new(),
        networks: Vec::new(),
        tunnels: vec![tunnel],
        hosts: Vec::new(),
        wan_name: None,
        notes: None,
    };
    Expected { sites: vec![site], ..Expected::default() }
}

#[test]
fn nothing_is_said_of_a_quiet_hour() {
    let answers = recording();
    for tunnel in ["busy", "idle", "quiet"] {
        let mine: Vec<&Answer> = answers.iter().filter(|answer| answer.tunnel == tunnel).collect();
        let (first, last) = (mine[0], mine[mine.len() - 1]);
        assert!(last.now.boot > first.now.boot + Duration::from_hours(1), "{tunnel}");
        let wanted = Wanted::of(&expected(first));
        let mut memory = age::Memory::default();
        let (mut oldest, mut handshakes) = (Duration::ZERO, BTreeSet::new());
        for answer in mine {
            let link = Link { index: 1, kind: "tun".to_owned(), is_up: true, mtu: 1420, addresses: BTreeSet::new() };
            let interface = Interface { link: Ok(Some(link)), device: Ok(answer.device.clone()) };
            let facts = Facts { interfaces: [("wg0".to_owned(), interface)].into(), ..Facts::default() };
            let (mut samples, news) = memory.judge(&wanted, &facts, answer.now, &config::WireGuard::default());
            samples.extend(judge::samples(&wanted, &facts));
            assert_eq!(bad(&samples), Vec::<String>::new(), "{tunnel} at {}", answer.now.wall);
            assert_eq!(news, [], "{tunnel} at {}", answer.now.wall);
            if let Some(handshake) = answer.device.peers[0].handshake {
                let wall = Duration::from_millis(answer.now.wall.as_millisecond().try_into().unwrap());
                oldest = oldest.max(wall.saturating_sub(handshake));
                handshakes.insert(handshake);
            }
        }
        println!("{tunnel}: {} handshakes, the oldest seen {} s old", handshakes.len(), oldest.as_secs());
        assert!(handshakes.len() >= 4, "{tunnel}");
    }
}
