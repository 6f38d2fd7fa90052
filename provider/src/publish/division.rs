//! Which rows belong to which part, brought up to each change.
//!
//! A part is what a selector selects, and what would take requests from that: so that whatever a part answers by a row, the
//! same row answers in all. The rows of one host stay together, whatever their labels say. With a wildcard come the hosts below
//! it (which it would answer otherwise), and where one of them has a priority of its own, the wildcard with them. With a tcp row
//! that takes all of its entry point come the others of it. Fragments and sites are in every part.
//!
//! Pure. What a change costs is the rows of the touched hosts; of all below a wildcard when that is touched.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use serde_json::Value;

use super::Change;
use crate::{
    compile::Stand,
    config::Selector,
    row::{Key, Row, Rows, Table},
};

/// Some of the parts, a bit each.
type Members = u64;

/// Entry points of http rows, where a tcp row that takes everything leaves nothing to divide.
const HTTP: [&str; 2] = ["web", "websecure"];

/// A row that takes requests, and where it belongs.
#[derive(Debug)]
struct Seat {
    stand: Stand,
    /// Whose selector selects it, its share aside.
    chosen: Members,
    members: Members,
}

/// The hosts that one wildcard takes or would take, itself among them, with their rows.
#[derive(Debug, Default)]
struct Family {
    hosts: BTreeMap<Arc<str>, BTreeSet<Key>>,
    /// Rows with a priority of their own.
    ranked: usize,
}

impl Family {
    fn wildcard(&self) -> Option<(&Arc<str>, &BTreeSet<Key>)> {
        // It sorts before every name.
        self.hosts.first_key_value().filter(|(host, _)| host.starts_with("*."))
    }

    /// A wildcard may take requests from an exact host.
    fn is_tied(&self) -> bool {
        self.ranked > 0 && self.wildcard().is_some()
    }
}

/// What a change may move from part to part.
#[derive(Debug, Default)]
struct Touched {
    /// All hosts of these.
    families: BTreeSet<Arc<str>>,
    /// With the parent of each.
    hosts: BTreeSet<(Arc<str>, Arc<str>)>,
    /// Tcp rows of these.
    entry_points: BTreeSet<Arc<str>>,
}

/// All rows that take requests, divided among the parts.
#[derive(Debug)]
pub struct Division {
    selectors: Vec<Selector>,
    seats: HashMap<Key, Seat>,
    /// By the parent of their hosts.
    families: BTreeMap<Arc<str>, Family>,
    /// Tcp rows by entry point.
    entry_points: BTreeMap<Arc<str>, BTreeSet<Key>>,
}

impl Division {
    /// One without rows. More selectors than bits are refused by the configuration.
    pub fn new(selectors: Vec<Selector>) -> Self {
        Self { selectors, seats: HashMap::new(), families: BTreeMap::new(), entry_points: BTreeMap::new() }
    }

    /// What one selector selects of `rows`, with what is in every part.
    pub fn select(selector: &Selector, rows: &Rows) -> Rows {
        let mut division = Self::new(vec![selector.clone()]);
        let changes: Vec<Change> = rows.iter().map(|(key, row)| (*key, Some(Arc::clone(row)))).collect();
        let mut selected = Rows::new();
        for (key, row) in division.apply(&changes, rows).pop().unwrap_or_default() {
            selected.extend(row.map(|row| (key, row)));
        }
        selected
    }

    /// Takes changed rows, of which `rows` is what there is now. What changes in each part.
    pub(super) fn apply(&mut self, changes: &[Change], rows: &Rows) -> Vec<Vec<Change>> {
        let mut parts: Vec<Vec<Change>> = self.selectors.iter().map(|_| Vec::new()).collect();
        let mut touched = Touched::default();
        let mut was = BTreeMap::new();
        for (key, row) in changes {
            match key.table {
                Table::Domains => {}
                Table::Fragments | Table::Sites => {
                    for part in &mut parts {
                        part.push((*key, row.clone()));
                    }
                    continue;
                }
                Table::Policies | Table::Peers => continue,
            }
            self.touch(key, &mut touched);
            let members = self.take_out(key).map_or(0, |seat| seat.members);
            was.entry(*key).or_insert(members);
            self.put_in(*key, row.as_deref());
            self.touch(key, &mut touched);
        }
        for key in self.keys(&touched).into_iter().chain(was.keys().copied()).collect::<BTreeSet<_>>() {
            let earlier = was.get(&key).copied();
            let before = earlier.or_else(|| self.seats.get(&key).map(|seat| seat.members)).unwrap_or(0);
            let now = self.seats.get(&key).map_or(0, |seat| self.members(seat));
            if let Some(seat) = self.seats.get_mut(&key) {
                seat.members = now;
            }
            for (at, part) in parts.iter_mut().enumerate() {
                match (before >> at & 1 == 1, now >> at & 1 == 1) {
                    (true, false) => part.push((key, None)),
                    (had, true) if !had || earlier.is_some() => {
                        part.extend(rows.get(&key).map(|row| (key, Some(Arc::clone(row)))));
                    }
                    _ => {}
                }
            }
        }
        parts
    }

    /// Notes what a row that came, or is about to go, may move to another part.
    fn touch(&self, key: &Key, touched: &mut Touched) {
        let Some(Seat { stand, .. }) = self.seats.get(key) else { return };
        let parent: Arc<str> = stand.parent().unwrap_or_default().into();
        if stand.is_wildcard() || self.families.get(&parent).is_some_and(Family::is_tied) {
            touched.families.insert(parent);
        } else {
            touched.hosts.insert((parent, Arc::clone(&stand.host)));
        }
        touched.entry_points.extend(stand.entry_point.iter().filter(|_| stand.plain).map(Arc::clone));
    }

    /// The rows that were touched.
    fn keys(&self, touched: &Touched) -> BTreeSet<Key> {
        let families = touched.families.iter().filter_map(|parent| self.families.get(parent));
        let hosts = touched.hosts.iter().filter_map(|(parent, host)| self.families.get(parent)?.hosts.get(host));
        let mut keys: BTreeSet<Key> =
            families.flat_map(|family| family.hosts.values()).chain(hosts).flatten().copied().collect();
        // Where a row goes that takes all of an entry point, the others of it go too.
        let seats = keys.iter().filter_map(|key| self.seats.get(key));
        let plain = seats.filter(|seat| seat.stand.plain).filter_map(|seat| seat.stand.entry_point.as_ref());
        let entry_points: BTreeSet<&Arc<str>> = plain.chain(&touched.entry_points).collect();
        let others: Vec<Key> =
            entry_points.into_iter().filter_map(|entry| self.entry_points.get(entry)).flatten().copied().collect();
        keys.extend(others);
        keys
    }

    fn put_in(&mut self, key: Key, row: Option<&Row>) {
        let Some((row, stand)) = row.and_then(|row| Some((row, Stand::of(row)?))) else { return };
        let family = self.families.entry(stand.parent().unwrap_or_default().into()).or_default();
        family.hosts.entry(Arc::clone(&stand.host)).or_default().insert(key);
        family.ranked += usize::from(stand.ranked);
        if let Some(entry) = &stand.entry_point {
            self.entry_points.entry(Arc::clone(entry)).or_default().insert(key);
        }
        let chosen = self.some(|selector| chooses(selector, row));
        self.seats.insert(key, Seat { stand, chosen, members: 0 });
    }

    fn take_out(&mut self, key: &Key) -> Option<Seat> {
        let seat = self.seats.remove(key)?;
        let stand = &seat.stand;
        let parent = stand.parent().unwrap_or_default();
        if let Some(family) = self.families.get_mut(parent) {
            family.ranked -= usize::from(stand.ranked);
            if let Some(keys) = family.hosts.get_mut(&stand.host) {
                keys.remove(key);
                if keys.is_empty() {
                    family.hosts.remove(&stand.host);
                }
            }
            if family.hosts.is_empty() {
                self.families.remove(parent);
            }
        }
        if let Some(entry) = &stand.entry_point
            && let Some(keys) = self.entry_points.get_mut(entry)
        {
            keys.remove(key);
            if keys.is_empty() {
                self.entry_points.remove(entry);
            }
        }
        Some(seat)
    }

    /// Where a row belongs.
    fn members(&self, seat: &Seat) -> Members {
        let of_host = self.of_host(&seat.stand);
        let Some(entry) = &seat.stand.entry_point else { return of_host };
        if HTTP.contains(&&**entry) {
            return if seat.stand.plain { self.some(|_| true) } else { of_host };
        }
        let others = self.entry_points.get(entry).into_iter().flatten().filter_map(|key| self.seats.get(key));
        others.filter(|other| other.stand.plain).fold(of_host, |all, other| all | self.of_host(&other.stand))
    }

    /// Where the rows of a host belong, for what can reach the host.
    fn of_host(&self, stand: &Stand) -> Members {
        let Some(family) = self.families.get(stand.parent().unwrap_or_default()) else { return 0 };
        let own = |(host, keys): (&Arc<str>, &BTreeSet<Key>)| {
            let chosen = keys.iter().filter_map(|key| self.seats.get(key)).fold(0, |all, seat| all | seat.chosen);
            chosen & self.some(|selector| selector.share.is_none_or(|share| share.holds(host)))
        };
        if family.is_tied() {
            return family.hosts.iter().map(own).fold(0, |all, one| all | one);
        }
        let of_wildcard = family.wildcard().map_or(0, own);
        family.hosts.get_key_value(&stand.host).map_or(0, own) | of_wildcard
    }

    /// The parts with such selectors.
    fn some(&self, such: impl Fn(&Selector) -> bool) -> Members {
        self.selectors.iter().rev().fold(0, |bits, selector| bits << 1 | Members::from(such(selector)))
    }
}

/// True for a row that a selector names, its share aside.
fn chooses(selector: &Selector, row: &Row) -> bool {
    let site = match row {
        Row::Domain(row) => row.site.as_deref(),
        Row::Bad(row) => row.raw.get("site").and_then(Value::as_str),
        Row::Fragment(_) | Row::Site(_) | Row::Policy(_) | Row::Peer(_) => return false,
    };
    let label = |key: &str| match row {
        Row::Domain(row) => row.labels.get(key).map(String::as_str),
        Row::Bad(row) => row.raw.get("labels")?.get(key)?.as_str(),
        Row::Fragment(_) | Row::Site(_) | Row::Policy(_) | Row::Peer(_) => None,
    };
    selector.site.as_deref().is_none_or(|wanted| site == Some(wanted))
        && selector.labels.iter().all(|(key, value)| label(key) == Some(value.as_str()))
}

#[cfg(test)]
mod tests;
