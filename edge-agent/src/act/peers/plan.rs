//! Plans how the peers of an interface become what the rows say, by the fewest orders: a peer that is right is not touched. Pure.
//!
//! WireGuard gives an allowed IP to one peer; who is given it takes it from whoever has it. So what moves is only given, never
//! taken away first, and whoever is to be removed is removed before. The peer that leads to whoever manages this host keeps that
//! way, whatever the rows say.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use ipnet::IpNet;

use crate::wireguard::{
    facts::{Device, Key, Peer},
    write::{Change, Order},
};

/// A peer, as the rows want it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Want {
    /// Of the site or of the client.
    pub name: String,
    pub key: Key,
    pub allowed: BTreeSet<IpNet>,
    /// What it keeps where it has it: networks that have moved to it.
    pub may_have: BTreeSet<IpNet>,
    /// Seconds; 0 is off.
    pub keepalive: u16,
    /// Where it is called. None: nowhere, or by a name of which no address is known yet.
    pub endpoint: Option<SocketAddr>,
    /// The row has the address itself, not a name.
    pub is_fixed: bool,
}

/// Who manages this host, from where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manager {
    pub network: IpNet,
    /// `an SSH session from 10.44.0.10`.
    pub who: String,
}

/// What is to be done, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub steps: Vec<Step>,
    /// What the rows say and is not done, because this host is managed that way.
    pub guarded: BTreeSet<String>,
    /// Networks that the rows give to several peers; they stay where they are.
    pub disputed: BTreeSet<IpNet>,
}

/// What becomes of one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub key: Key,
    /// Of the site or of the client; none of a peer that no row has.
    pub name: Option<String>,
    pub diff: Diff,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Diff {
    Remove { allowed: BTreeSet<IpNet> },
    Change(Box<Altered>),
    Add { allowed: BTreeSet<IpNet>, keepalive: u16, endpoint: Option<SocketAddr> },
}

/// From what to what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Altered {
    pub before: BTreeSet<IpNet>,
    pub after: BTreeSet<IpNet>,
    /// How that comes about.
    allowed: Allowed,
    pub keepalive: Option<(u16, u16)>,
    pub endpoint: Option<(Option<SocketAddr>, SocketAddr)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Allowed {
    /// By itself: it is right, or others are given what it loses.
    AsItIs,
    /// These are given to it.
    Given(BTreeSet<IpNet>),
    /// All of them in place of those that it has.
    Replaced,
}

/// From what is to what the rows say. `is_silent`: the session of this peer is over.
pub(crate) fn plan(wants: &[Want], device: &Device, managers: &[Manager], is_silent: impl Fn(&Peer) -> bool) -> Plan {
    let mut plan = Plan::default();
    let wants: BTreeMap<Key, &Want> = wants.iter().map(|want| (want.key, want)).collect();
    let present: BTreeMap<Key, &Peer> = device.peers.iter().map(|peer| (peer.key, peer)).collect();
    let mut owners = owners(&wants, &present, &mut plan.disputed);
    guard(&wants, &present, managers, &mut owners, &mut plan.guarded);

    let mut wanted: BTreeMap<Key, BTreeSet<IpNet>> = wants.keys().map(|key| (*key, BTreeSet::new())).collect();
    for (network, owner) in &owners {
        wanted.entry(*owner).or_default().insert(*network);
    }
    let none = BTreeSet::new();
    let has = |key: &Key| present.get(key).map_or(&none, |peer| &peer.allowed_ips);
    let given: BTreeSet<IpNet> = wanted.iter().flat_map(|(key, after)| after.difference(has(key))).copied().collect();

    for (key, peer) in &present {
        if !wanted.contains_key(key) {
            let diff = Diff::Remove { allowed: peer.allowed_ips.clone() };
            plan.steps.push(Step { key: *key, name: None, diff });
        }
    }
    let mut added = Vec::new();
    for (key, after) in wanted {
        let want = wants.get(&key);
        let name = want.map(|want| want.name.clone());
        let diff = match (present.get(&key), want) {
            (Some(peer), want) => {
                let altered = Altered {
                    allowed: allowed(&peer.allowed_ips, &after, &given),
                    before: peer.allowed_ips.clone(),
                    after,
                    keepalive: want
                        .filter(|want| want.keepalive != peer.keepalive)
                        .map(|want| (peer.keepalive, want.keepalive)),
                    endpoint: want.and_then(|want| called(want, peer, &is_silent)).map(|new| (peer.endpoint, new)),
                };
                if altered.is_nothing() {
                    continue;
                }
                Diff::Change(Box::new(altered))
            }
            (None, Some(want)) => Diff::Add { allowed: after, keepalive: want.keepalive, endpoint: want.endpoint },
            (None, None) => continue, // nobody is wanted or kept who is neither
        };
        let step = Step { key, name, diff };
        if matches!(step.diff, Diff::Add { .. }) { added.push(step) } else { plan.steps.push(step) }
    }
    plan.steps.extend(added);
    plan
}

/// Whose each network becomes. One that several want is whose it is now, else the first one's; what has moved to a peer stays there.
fn owners(
    wants: &BTreeMap<Key, &Want>,
    present: &BTreeMap<Key, &Peer>,
    disputed: &mut BTreeSet<IpNet>,
) -> BTreeMap<IpNet, Key> {
    let mut owners: BTreeMap<IpNet, Key> = BTreeMap::new();
    for (key, want) in wants {
        for network in &want.allowed {
            let has = present.get(key).is_some_and(|peer| peer.allowed_ips.contains(network));
            if owners.contains_key(network) {
                disputed.insert(*network);
            }
            if has || !owners.contains_key(network) {
                owners.insert(*network, *key);
            }
        }
    }
    for (key, want) in wants {
        for network in present.get(key).into_iter().flat_map(|peer| &peer.allowed_ips) {
            if want.may_have.contains(network) {
                owners.entry(*network).or_insert(*key);
            }
        }
    }
    owners
}

/// Leaves the ways to managers with the peers that have them, where these would have them no more. Who stays for that without a row
/// keeps nothing else.
fn guard(
    wants: &BTreeMap<Key, &Want>,
    present: &BTreeMap<Key, &Peer>,
    managers: &[Manager],
    owners: &mut BTreeMap<IpNet, Key>,
    guarded: &mut BTreeSet<String>,
) {
    let ways = ways(present, managers, owners);
    let name = |key: &Key| wants.get(key).map_or_else(|| format!("peer {key}"), |want| want.name.clone());
    loop {
        let before = owners.clone();
        for Way { key, network, managed, who } in &ways {
            if leads_to(owners, managed) == Some(*key) {
                continue;
            }
            let name = name(key);
            guarded.insert(if wants.contains_key(key) {
                format!("{network} is not taken from {name}: {who} comes by it")
            } else {
                format!("{name} is not removed: {who} comes by it")
            });
            owners.retain(|one, _| !(one.contains(managed) && network.contains(one)));
            owners.insert(*network, *key);
        }
        // Nor does another get a part of it that he has not.
        for Way { key, managed, who, .. } in &ways {
            owners.retain(|one, owner| {
                let is_part = managed.contains(one) && one != managed && owner != key;
                let is_his = present.get(owner).is_some_and(|peer| peer.allowed_ips.contains(one));
                if is_part && !is_his {
                    guarded.insert(format!("{one} is given to nobody but {}: {who} comes by it", name(key)));
                }
                !is_part || is_his
            });
        }
        if *owners == before {
            return;
        }
    }
}

/// By which peer, and which of its allowed IPs, a manager's packets come.
struct Way<'a> {
    key: Key,
    network: IpNet,
    /// What of it is the manager's.
    managed: IpNet,
    who: &'a str,
}

fn ways<'a>(present: &BTreeMap<Key, &Peer>, managers: &'a [Manager], owners: &BTreeMap<IpNet, Key>) -> Vec<Way<'a>> {
    let holders = || present.iter().flat_map(|(key, peer)| peer.allowed_ips.iter().map(|one| (*key, *one)));
    let mut ways = Vec::new();
    for Manager { network: managed, who } in managers {
        let longest = holders().filter(|(_, one)| one.contains(managed)).max_by_key(|(_, one)| one.prefix_len());
        let within = holders().filter(|(_, one)| managed.contains(one) && one != managed);
        ways.extend(longest.map(|(key, network)| Way { key, network, managed: *managed, who }));
        ways.extend(within.map(|(key, network)| Way { key, network, managed: network, who }));
    }
    // Who was never heard, while he is whom the rows give it to, has only taken the way.
    let is_heard = |key: &Key| present.get(key).is_some_and(|peer| peer.handshake.is_some());
    ways.retain(|way| is_heard(&way.key) || !leads_to(owners, &way.managed).is_some_and(|owner| is_heard(&owner)));
    ways
}

/// Whom packets to all of this go to.
fn leads_to(owners: &BTreeMap<IpNet, Key>, network: &IpNet) -> Option<Key> {
    let longest = owners.iter().filter(|(one, _)| one.contains(network)).max_by_key(|(one, _)| one.prefix_len());
    longest.map(|(_, key)| *key)
}

fn allowed(before: &BTreeSet<IpNet>, after: &BTreeSet<IpNet>, given: &BTreeSet<IpNet>) -> Allowed {
    let is_lost = |one: &&IpNet| !given.contains(*one);
    if before.difference(after).any(|one| is_lost(&one)) {
        return Allowed::Replaced;
    }
    let new: BTreeSet<IpNet> = after.difference(before).copied().collect();
    if new.is_empty() { Allowed::AsItIs } else { Allowed::Given(new) }
}

/// Where a peer is called from now on. One that is heard is called where it was heard from.
fn called(want: &Want, peer: &Peer, is_silent: &impl Fn(&Peer) -> bool) -> Option<SocketAddr> {
    let new = want.endpoint?;
    match peer.endpoint {
        None => Some(new),
        Some(old) => (want.is_fixed && old != new && is_silent(peer)).then_some(new),
    }
}

impl Altered {
    fn is_nothing(&self) -> bool {
        self.before == self.after && self.keepalive.is_none() && self.endpoint.is_none()
    }
}

impl Plan {
    /// As they are written, all at once.
    pub(crate) fn orders(&self) -> Vec<Order<'_>> {
        self.steps.iter().filter_map(Step::order).collect()
    }

    /// What takes back these peers' part of it, last step first: one that was added goes, one that was changed is as it was. One
    /// that was removed stays so: a revocation stands, and nobody but its owner knows a preshared key.
    pub(crate) fn undo(&self, wrong: &BTreeSet<Key>, now: &Device) -> Self {
        let is_wrong = |step: &&Step| wrong.contains(&step.key);
        let right = now.peers.iter().filter(|peer| !wrong.contains(&peer.key)).flat_map(|peer| &peer.allowed_ips);
        let right: BTreeSet<IpNet> = right.copied().collect();
        let steps = self.steps.iter().rev().filter(is_wrong).filter_map(|step| {
            let diff = match &step.diff {
                Diff::Remove { .. } => return None,
                Diff::Add { allowed, .. } => Diff::Remove { allowed: allowed.clone() },
                Diff::Change(altered) => Diff::Change(Box::new(Altered {
                    before: altered.after.clone(),
                    after: altered.before.difference(&right).copied().collect(),
                    allowed: Allowed::Replaced,
                    keepalive: altered.keepalive.map(|(before, after)| (after, before)),
                    endpoint: altered.endpoint.and_then(|(before, after)| Some((Some(after), before?))),
                })),
            };
            Some(Step { diff, ..step.clone() })
        });
        Self { steps: steps.collect(), ..Self::default() }
    }
}

impl Step {
    fn order(&self) -> Option<Order<'_>> {
        match &self.diff {
            Diff::Remove { .. } => Some(Order::Remove(self.key)),
            Diff::Add { allowed, keepalive, endpoint } => {
                let mut changes = vec![Change::AllowedIps { networks: allowed, is_replacing: true }];
                changes.push(Change::Keepalive(*keepalive));
                changes.extend(endpoint.map(Change::Endpoint));
                Some(Order::Make(self.key, changes))
            }
            Diff::Change(altered) => {
                let mut changes = Vec::new();
                match &altered.allowed {
                    Allowed::AsItIs => {}
                    Allowed::Given(networks) => changes.push(Change::AllowedIps { networks, is_replacing: false }),
                    Allowed::Replaced => {
                        changes.push(Change::AllowedIps { networks: &altered.after, is_replacing: true });
                    }
                }
                changes.extend(altered.keepalive.map(|(_, seconds)| Change::Keepalive(seconds)));
                changes.extend(altered.endpoint.map(|(_, endpoint)| Change::Endpoint(endpoint)));
                (!changes.is_empty()).then_some(Order::Change(self.key, changes))
            }
        }
    }
}

#[cfg(test)]
mod tests;
