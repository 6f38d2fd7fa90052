use std::time::Duration;

use proptest::{
    collection::{btree_set, vec},
    option,
    prelude::*,
    sample::subsequence,
};

use super::*;

const SHOOK: Option<Duration> = Some(Duration::from_secs(1_795_765_866));

/// What WireGuard makes of orders: an allowed IP is one peer's.
fn written(device: &Device, orders: &[Order<'_>]) -> Device {
    let mut peers: BTreeMap<Key, Peer> = device.peers.iter().map(|peer| (peer.key, peer.clone())).collect();
    for order in orders {
        let (key, changes) = match order {
            Order::OwnKey(_) => panic!("no plan has a key"),
            Order::Remove(key) => {
                peers.remove(key);
                continue;
            }
            Order::Change(key, _) if !peers.contains_key(key) => continue,
            Order::Change(key, changes) | Order::Make(key, changes) => (*key, changes),
        };
        let mut peer = peers.remove(&key).unwrap_or_else(|| Peer::new(key));
        for change in changes {
            match change {
                Change::AllowedIps { networks, is_replacing } => {
                    if *is_replacing {
                        peer.allowed_ips.clear();
                    }
                    for other in peers.values_mut() {
                        other.allowed_ips.retain(|one| !networks.contains(one));
                    }
                    peer.allowed_ips.extend(networks.iter());
                }
                Change::Endpoint(endpoint) => peer.endpoint = Some(*endpoint),
                Change::Keepalive(seconds) => peer.keepalive = *seconds,
                Change::PresharedKey(_) => panic!("no plan has a key"),
            }
        }
        peers.insert(key, peer);
    }
    Device { peers: peers.into_values().collect(), ..device.clone() }
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// Nested in each other, and apart.
const NETWORKS: [&str; 8] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.44.0.0/16",
    "10.44.7.0/24",
    "10.44.7.1/32",
    "10.35.0.0/16",
    "10.99.0.7/32",
    "fd00::/64",
];

const ADDRESSES: [&str; 3] = ["198.51.100.2:51820", "203.0.113.9:1", "[2001:db8::2]:51820"];

fn networks() -> impl Strategy<Value = BTreeSet<IpNet>> {
    subsequence(NETWORKS.map(net).to_vec(), 0..4).prop_map(|all| all.into_iter().collect())
}

fn endpoint() -> impl Strategy<Value = Option<SocketAddr>> {
    option::of((0..ADDRESSES.len()).prop_map(|at| ADDRESSES[at].parse().unwrap()))
}

fn key() -> impl Strategy<Value = Key> {
    (0..6_u8).prop_map(|byte| Key([byte; 32]))
}

/// An allowed IP is one peer's.
fn device() -> impl Strategy<Value = Device> {
    let peer = (key(), networks(), prop_oneof![Just(0_u16), Just(25)], endpoint(), any::<bool>());
    vec(peer, 0..6).prop_map(|peers| {
        let mut device = Device::default();
        for (key, allowed_ips, keepalive, endpoint, has_shaken) in peers {
            if device.peers.iter().any(|peer| peer.key == key) {
                continue;
            }
            for peer in &mut device.peers {
                peer.allowed_ips.retain(|one| !allowed_ips.contains(one));
            }
            let handshake = SHOOK.filter(|_| has_shaken);
            device.peers.push(Peer { endpoint, handshake, keepalive, allowed_ips, ..Peer::new(key) });
        }
        device.peers.sort_by_key(|peer| peer.key);
        device
    })
}

fn wants() -> impl Strategy<Value = Vec<Want>> {
    let want = (key(), networks(), networks(), prop_oneof![Just(0_u16), Just(25)], endpoint(), any::<bool>());
    vec(want, 0..6).prop_map(|wants| {
        let wants = wants.into_iter().map(|(key, allowed, may_have, keepalive, endpoint, is_fixed)| {
            (key, Want { name: format!("{}", key.0[0]), key, allowed, may_have, keepalive, endpoint, is_fixed })
        });
        wants.collect::<BTreeMap<_, _>>().into_values().collect()
    })
}

fn is_silent(peer: &Peer) -> bool {
    peer.handshake.is_none()
}

fn find(device: &Device, key: Key) -> Option<&Peer> {
    device.peers.iter().find(|peer| peer.key == key)
}

/// Whom a packet to there goes to.
fn leads_to(device: &Device, network: &IpNet) -> Option<Key> {
    let all = device.peers.iter().flat_map(|peer| peer.allowed_ips.iter().map(|one| (peer.key, *one)));
    all.filter(|(_, one)| one.contains(network)).max_by_key(|(_, one)| one.prefix_len()).map(|(key, _)| key)
}

fn manager(network: &str) -> Manager {
    Manager { network: net(network), who: "an SSH session".to_owned() }
}

proptest! {
    #[test]
    fn it_leads_to_what_the_rows_say_and_is_done_then(wants in wants(), device in device()) {
        let plan = plan(&wants, &device, &[], is_silent);
        let after = written(&device, &plan.orders());
        let keys: BTreeSet<Key> = after.peers.iter().map(|peer| peer.key).collect();
        prop_assert_eq!(keys, wants.iter().map(|want| want.key).collect::<BTreeSet<_>>());
        let all: BTreeSet<IpNet> = wants.iter().flat_map(|want| &want.allowed).copied().collect();
        for want in &wants {
            let (was, is) = (find(&device, want.key), find(&after, want.key).unwrap());
            prop_assert_eq!(is.keepalive, want.keepalive);
            for network in &want.allowed {
                prop_assert!(is.allowed_ips.contains(network) || plan.disputed.contains(network), "{} lacks {}", want.name, network);
            }
            for network in is.allowed_ips.difference(&want.allowed) {
                let is_kept = want.may_have.contains(network) && was.is_some_and(|was| was.allowed_ips.contains(network));
                prop_assert!(is_kept && !all.contains(network), "{} has {}", want.name, network);
            }
            for network in was.into_iter().flat_map(|was| &was.allowed_ips).filter(|one| want.may_have.contains(one)) {
                prop_assert!(is.allowed_ips.contains(network) || all.contains(network), "{} lost {}", want.name, network);
            }
            match (was.and_then(|was| was.endpoint), want.endpoint) {
                (Some(old), Some(new)) if want.is_fixed && was.is_some_and(is_silent) => prop_assert_eq!(is.endpoint, Some(new), "{}", old),
                (Some(old), _) => prop_assert_eq!(is.endpoint, Some(old)),
                (None, wanted) => prop_assert_eq!(is.endpoint, wanted),
            }
        }
        // Of those that several want, each is somebody's who wants it.
        for network in &plan.disputed {
            let has = |want: &&Want| find(&after, want.key).unwrap().allowed_ips.contains(network);
            prop_assert_eq!(wants.iter().filter(|want| want.allowed.contains(network)).filter(has).count(), 1);
        }
        prop_assert_eq!(super::plan(&wants, &after, &[], is_silent).steps, vec![]);
    }

    /// No order is about a peer that is right, and each one is needed.
    #[test]
    fn it_is_the_least(wants in wants(), device in device()) {
        let plan = plan(&wants, &device, &[], is_silent);
        let orders = plan.orders();
        let after = written(&device, &orders);
        let ordered: Vec<Key> = orders.iter().map(|order| match order {
            Order::OwnKey(_) => unreachable!(),
            Order::Change(key, _) | Order::Make(key, _) | Order::Remove(key) => *key,
        }).collect();
        prop_assert_eq!(ordered.iter().collect::<BTreeSet<_>>().len(), ordered.len(), "one each");
        for peer in &device.peers {
            let is_right = find(&after, peer.key) == Some(peer);
            prop_assert_eq!(is_right, plan.steps.iter().all(|step| step.key != peer.key));
            prop_assert!(!(is_right && ordered.contains(&peer.key)), "{} is right and touched", peer.key);
        }
        for left_out in 0..orders.len() {
            let mut fewer = orders.clone();
            fewer.remove(left_out);
            prop_assert_ne!(&written(&device, &fewer), &after, "it goes without order {}", left_out);
        }
    }

    /// Whatever the rows say, a manager's packets take the way that they took.
    #[test]
    fn who_manages_this_host_is_not_cut_off(wants in wants(), device in device(), managers in btree_set(0..NETWORKS.len(), 1..3)) {
        let managers: Vec<Manager> = managers.into_iter().map(|at| manager(NETWORKS[at])).collect();
        let plan = plan(&wants, &device, &managers, is_silent);
        let after = written(&device, &plan.orders());
        for Manager { network, .. } in &managers {
            let pool = NETWORKS.map(net);
            for part in pool.iter().filter(|one| network.contains(*one)) {
                let Some(by) = leads_to(&device, part) else { continue };
                if find(&device, by).unwrap().handshake.is_some() {
                    prop_assert_eq!(leads_to(&after, part), Some(by), "{}", part);
                }
            }
        }
        prop_assert_eq!(super::plan(&wants, &after, &managers, is_silent).steps, vec![]);
        let free = super::plan(&wants, &device, &[], is_silent);
        prop_assert!(plan.guarded.is_empty() != (free.steps != plan.steps), "what is not done is told");
    }

    #[test]
    fn undone_all_are_as_they_were_but_the_removed(wants in wants(), device in device()) {
        let plan = plan(&wants, &device, &[], is_silent);
        let after = written(&device, &plan.orders());
        let all = plan.steps.iter().map(|step| step.key).collect();
        let undone = written(&after, &plan.undo(&all, &after).orders());
        let removed = |key: Key| plan.steps.iter().any(|step| step.key == key && matches!(step.diff, Diff::Remove { .. }));
        for peer in device.peers.iter().filter(|peer| !removed(peer.key)) {
            let is = find(&undone, peer.key).unwrap();
            // An endpoint cannot be taken away.
            prop_assert_eq!(is, &Peer { endpoint: peer.endpoint.or(is.endpoint), ..peer.clone() });
        }
        prop_assert_eq!(undone.peers.len(), device.peers.iter().filter(|peer| !removed(peer.key)).count());
    }
}

fn want(byte: u8, allowed: &[&str]) -> Want {
    Want {
        name: format!("peer{byte}"),
        key: Key([byte; 32]),
        allowed: allowed.iter().map(|one| net(one)).collect(),
        may_have: BTreeSet::new(),
        keepalive: 25,
        endpoint: None,
        is_fixed: false,
    }
}

fn peer(byte: u8, allowed: &[&str]) -> Peer {
    let allowed_ips = allowed.iter().map(|one| net(one)).collect();
    Peer { allowed_ips, keepalive: 25, handshake: SHOOK, ..Peer::new(Key([byte; 32])) }
}

fn of(peers: Vec<Peer>) -> Device {
    Device { peers, ..Device::default() }
}

#[test]
fn what_moves_is_only_given() {
    let wants = [want(1, &["10.1.0.0/16", "10.3.0.0/16"]), want(2, &["10.2.0.0/16"])];
    let device = of(vec![peer(1, &["10.1.0.0/16"]), peer(2, &["10.2.0.0/16", "10.3.0.0/16"])]);
    let plan = plan(&wants, &device, &[], is_silent);
    assert_eq!(plan.steps.len(), 2, "both are told");
    let orders = plan.orders();
    let [Order::Change(key, changes)] = orders.as_slice() else { panic!("{orders:?}") };
    let [Change::AllowedIps { networks, is_replacing: false }] = changes.as_slice() else { panic!("{orders:?}") };
    assert_eq!(
        (key.0[0], networks.iter().map(ToString::to_string).collect::<Vec<_>>()),
        (1, vec!["10.3.0.0/16".to_owned()])
    );
}

/// After a boot nobody was heard yet.
#[test]
fn a_way_is_kept_while_nobody_was_heard_who_could_have_it() {
    let wants = [want(1, &["10.44.0.0/16"])];
    let managers = [manager("10.44.0.0/16")];
    let unheard = |byte, allowed: &[&str]| Peer { handshake: None, ..peer(byte, allowed) };
    let planned = |uk: Peer| plan(&wants, &of(vec![uk, unheard(9, &["10.44.0.0/16"])]), &managers, is_silent);
    assert_eq!((planned(unheard(1, &[])).steps, planned(unheard(1, &[])).guarded.len()), (vec![], 1));
    assert_eq!((planned(peer(1, &[])).steps.len(), planned(peer(1, &[])).guarded.len()), (2, 0));
}

#[test]
fn who_took_a_managers_way_and_was_never_heard_does_not_keep_it() {
    let wants = [want(1, &["10.44.0.0/16"])];
    let thief = |handshake| Peer { handshake, ..peer(9, &["10.44.0.0/16"]) };
    let managers = [manager("10.44.0.10/32")];
    let planned = |handshake| plan(&wants, &of(vec![peer(1, &[]), thief(handshake)]), &managers, is_silent);
    assert_eq!((planned(None).steps.len(), planned(None).guarded.len()), (2, 0));
    let told: Vec<String> = planned(SHOOK).guarded.into_iter().collect();
    assert_eq!(told, [format!("peer {} is not removed: an SSH session comes by it", Key([9; 32]))]);
    assert_eq!(planned(SHOOK).steps, []);
}
