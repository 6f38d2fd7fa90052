use super::{super::samples::*, *};
use crate::wireguard::facts::Peer;

/// What is changed, and all that is not ok then.
type Case = (&'static str, fn(&mut Facts), &'static [&'static str]);

const CASES: &[Case] = &[
    ("nothing", |_| {}, &[]),
    (
        "the interface is absent",
        |facts| {
            let interface = facts.interfaces.get_mut("wg-uk").unwrap();
            (interface.link, interface.device) = (Ok(None), Err(NoDevice::Refused));
        },
        &["wg-interface wg-uk critical", "wg-peer wg-uk unknown", "wg-route 10.44.0.0/16 unknown"],
    ),
    (
        "it is down",
        |facts| uk_link(facts).is_up = false,
        &["wg-interface wg-uk critical", "wg-route 10.44.0.0/16 unknown"],
    ),
    ("its MTU", |facts| uk_link(facts).mtu = 1280, &["wg-interface wg-uk warning"]),
    ("its port", |facts| uk_device(facts).port = 1, &["wg-interface wg-uk warning"]),
    (
        "no permission",
        |facts| {
            let unseen = Unseen::new("no permission", "CAP_DAC_OVERRIDE");
            facts.interfaces.get_mut("wg-uk").unwrap().device = Err(NoDevice::Unseen(unseen));
        },
        &["wg-interface wg-uk unknown", "wg-peer wg-uk unknown"],
    ),
    (
        "the process is gone, the link is not",
        |facts| facts.interfaces.get_mut("wg-uk").unwrap().device = Err(NoDevice::Refused),
        &["wg-interface wg-uk critical", "wg-peer wg-uk unknown"],
    ),
    (
        "a bridge has its name",
        |facts| {
            uk_link(facts).kind = "bridge".to_owned();
            facts.interfaces.get_mut("wg-uk").unwrap().device = Err(NoDevice::Absent);
        },
        &["wg-interface wg-uk critical", "wg-peer wg-uk unknown"],
    ),
    ("the peer is absent", |facts| uk_device(facts).peers.clear(), &["wg-peer wg-uk critical"]),
    ("another key", |facts| uk_peer(facts).key = STRANGER, &["wg-peer wg-uk critical"]),
    ("a peer more", |facts| uk_device(facts).peers.push(Peer::new(STRANGER)), &["wg-peer wg-uk warning"]),
    (
        "a prefix less",
        |facts| assert!(uk_peer(facts).allowed_ips.remove(&"10.44.0.0/16".parse().unwrap())),
        &["wg-peer wg-uk critical"],
    ),
    (
        "a prefix more",
        |facts| assert!(uk_peer(facts).allowed_ips.insert("10.99.0.0/16".parse().unwrap())),
        &["wg-peer wg-uk warning"],
    ),
    (
        "it took over what it stands by for",
        |facts| assert!(uk_peer(facts).allowed_ips.insert("10.35.0.0/16".parse().unwrap())),
        &[],
    ),
    ("no keepalive", |facts| uk_peer(facts).keepalive = 0, &["wg-peer wg-uk warning"]),
    (
        "no route",
        |facts| drop(facts.routes.insert("10.44.0.0/16".parse().unwrap(), Ok(None))),
        &["wg-route 10.44.0.0/16 critical"],
    ),
    (
        "a route through something else",
        |facts| drop(facts.routes.insert("10.44.0.0/16".parse().unwrap(), Ok(Some("eth0".to_owned())))),
        &["wg-route 10.44.0.0/16 critical"],
    ),
    (
        "a route through what stands by",
        |facts| drop(facts.routes.insert("10.35.0.0/16".parse().unwrap(), Ok(Some("wg-uk".to_owned())))),
        &["wg-route 10.35.0.0/16 warning"],
    ),
];

#[test]
fn each_difference_is_one_finding_on_its_target() {
    for (name, change, expected) in CASES {
        let mut facts = facts();
        change(&mut facts);
        let samples = samples(&wanted(), &facts);
        assert_eq!(bad(&samples), *expected, "{name}");
        assert_eq!(samples.len(), 6, "{name}: every target each time");
        for sample in samples.iter().filter(|sample| sample.status != Status::Ok) {
            assert!(sample.remedy.as_ref().is_some_and(|remedy| !remedy.is_empty()), "{name}: {sample:?}");
        }
    }
}

#[test]
fn an_address_and_the_own_key_are_held_against_what_is_expected() {
    let mut expected = expected();
    expected.sites[0].tunnels[0].addresses = vec!["10.254.44.1/30".parse().unwrap()];
    expected.sites[0].tunnels[0].own_public_key = Some(STRANGER.to_string());
    let wanted = Wanted::of(&expected);
    let mut facts = facts();
    let sample = &samples(&wanted, &facts)[2];
    assert_eq!((sample.check, sample.target.as_str(), sample.status), ("wg-interface", "wg-uk", Status::Critical));
    assert!(sample.remedy.as_ref().unwrap().ends_with("ip address add 10.254.44.1/30 dev wg-uk"), "{sample:?}");
    uk_link(&mut facts).addresses.insert("10.254.44.1/30".parse().unwrap());
    uk_device(&mut facts).own_key = Some(STRANGER);
    assert_eq!(bad(&samples(&wanted, &facts)), Vec::<String>::new());
}

#[test]
fn a_prefix_that_another_peer_took_names_it_and_the_remedy_takes_it_back() {
    let mut facts = facts();
    let network = "10.44.0.0/16".parse().unwrap();
    uk_peer(&mut facts).allowed_ips.remove(&network);
    let thief = Peer { allowed_ips: [network].into(), ..Peer::new(STRANGER) };
    uk_device(&mut facts).peers.push(thief);
    let samples = samples(&wanted(), &facts);
    let sample = samples.iter().find(|sample| sample.status == Status::Critical).unwrap();
    assert!(sample.text.contains(&format!("peer {STRANGER} has it")), "{}", sample.text);
    assert_eq!(
        sample.remedy.as_deref(),
        Some(
            format!(
                "wg set wg-uk peer {UK} allowed-ips 10.44.0.0/16,10.254.44.2/32 && wg set wg-uk peer {STRANGER} remove"
            )
            .as_str()
        )
    );
}

#[test]
fn several_peers_of_one_interface_are_told_apart_by_their_sites() {
    let mut expected = expected();
    expected.sites[1].tunnels[0].interface = "wg-uk".to_owned();
    let mut facts = facts();
    let fr = facts.interfaces.remove("wg-fr").unwrap().device.unwrap().peers;
    uk_device(&mut facts).peers.extend(fr);
    uk_device(&mut facts).peers.push(Peer::new(STRANGER));
    facts.routes.insert("10.35.0.0/16".parse().unwrap(), Ok(Some("wg-uk".to_owned())));
    let samples = samples(&Wanted::of(&expected), &facts);
    assert_eq!(bad(&samples), ["wg-peer wg-uk warning"], "the stranger belongs to nobody");
    let targets: Vec<&str> = samples.iter().map(|sample| sample.target.as_str()).collect();
    assert_eq!(targets, ["wg-uk", "wg-uk uk", "wg-uk fr", "wg-uk", "10.35.0.0/16", "10.44.0.0/16"]);
}

#[test]
fn of_many_strangers_a_few_are_named() {
    let mut facts = facts();
    uk_device(&mut facts).peers.extend((10..210).map(|number| Peer::new(facts::Key([number; 32]))));
    let samples = samples(&wanted(), &facts);
    let sample = samples.iter().find(|sample| sample.status == Status::Warning).unwrap();
    assert!(sample.text.starts_with("200 peers are not expected: ") && sample.text.len() < 300, "{}", sample.text);
    assert_eq!(sample.remedy.as_ref().unwrap().matches(" remove").count(), NAMED);
}

fn clients(facts: &mut Facts) -> &mut facts::Interface {
    facts.interfaces.get_mut("wg-clients").unwrap()
}

#[test]
fn clients_are_let_in_and_nobody_else_and_need_not_answer() {
    let mut expected = expected();
    let vpn = serde_json::json!({
        "interface": "wg-clients", "public_key": STRANGER.to_string(), "endpoint": "vpn.example.org:51900",
        "addresses": ["10.99.0.1/24"], "mtu": 1380,
    });
    expected.policy.vpn = vec![serde_json::from_value(vpn).unwrap()];
    let client = |name: &str, interface: &str, byte: u8| {
        let key = facts::Key([byte; 32]).to_string();
        let address = format!("10.99.0.{byte}/32");
        let row =
            serde_json::json!({ "name": name, "interface": interface, "public_key": key, "addresses": [address] });
        serde_json::from_value(row).unwrap()
    };
    expected.peers =
        vec![client("anna", "wg-clients", 7), client("ben", "wg-clients", 8), client("eve", "wg-others", 9)];
    let wanted = Wanted::of(&expected);
    let mut facts = facts();
    let peer = |byte: u8| Peer {
        allowed_ips: [format!("10.99.0.{byte}/32").parse().unwrap()].into(),
        ..Peer::new(facts::Key([byte; 32]))
    };
    let link = Link { index: 9, kind: "wireguard".to_owned(), is_up: true, mtu: 1380, addresses: [].into() };
    let device =
        Device { own_key: Some(STRANGER), port: 51900, peers: vec![peer(7), peer(8)], source: "netlink".to_owned() };
    facts.interfaces.insert("wg-clients".to_owned(), facts::Interface { link: Ok(Some(link)), device: Ok(device) });
    let no_policy = "wg-peer wg-others eve unknown";
    let judged = |facts: &Facts| {
        let now = after(1_000_000);
        let settings = crate::config::WireGuard::default();
        let (handshakes, _) = super::super::age::Memory::default().judge(&wanted, facts, now, &settings);
        let of_clients = |one: &&Sample| one.target.contains("wg-clients") || one.target.contains("wg-others");
        bad(&handshakes.iter().chain(&samples(&wanted, facts)).filter(of_clients).cloned().collect::<Vec<_>>())
    };
    // They never shook hands, and no site is theirs.
    assert_eq!(judged(&facts), ["wg-interface wg-clients warning", no_policy], "its address");
    clients(&mut facts).link.as_mut().unwrap().as_mut().unwrap().addresses.insert("10.99.0.1/24".parse().unwrap());
    assert_eq!(judged(&facts), [no_policy]);
    let all = samples(&wanted, &facts);
    let anna = all.iter().find(|one| one.check == PEER && one.target == "wg-clients anna").unwrap();
    assert_eq!(anna.site, None);
    for (name, change, bad) in [
        (
            "revoked, and let in",
            (|it| it.peers.push(Peer::new(facts::Key([10; 32])))) as fn(&mut Device),
            "wg-peer wg-clients critical",
        ),
        ("not let in", |it| drop(it.peers.pop()), "wg-peer wg-clients ben critical"),
        (
            "has an address too many",
            |it| assert!(it.peers[0].allowed_ips.insert("10.44.0.0/16".parse().unwrap())),
            "wg-peer wg-clients anna warning",
        ),
        ("another key", |it| it.own_key = Some(UK), "wg-interface wg-clients critical"),
        ("another port", |it| it.port = 1, "wg-interface wg-clients warning"),
    ] {
        let mut facts = facts.clone();
        change(clients(&mut facts).device.as_mut().unwrap());
        assert_eq!(judged(&facts), [bad, no_policy], "{name}");
    }
}
