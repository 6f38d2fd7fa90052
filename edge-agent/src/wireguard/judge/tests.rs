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
