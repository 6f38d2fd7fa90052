//! Keeps routers in the order in which Traefik would have tried them.
//!
//! A router without a priority ranks by the length of its rule, a row by its host and path. So each row that can take the
//! same request as another router is held against it. Where any of the rows of a host would change places, all of them
//! get the priority that they had; hosts under a wildcard count as one with it.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
};

use charliehub_proto::traefik::{Kind, Piece};

use super::{Name, rule};

/// How a router ranks, and what it is about.
#[derive(Debug)]
pub(super) struct Ranked {
    kind: Kind,
    /// Empty: all of them.
    entry_points: Vec<String>,
    reach: Vec<rule::Reach>,
    /// As the file has it.
    given: Option<i64>,
    /// As Traefik takes it.
    old: i64,
    /// What a row would have; `None` for what stays a router.
    new: Option<i64>,
}

/// What becomes of a row's own `priority`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Priority {
    /// Left to its host and path.
    Own,
    Explicit(u32),
    /// It cannot be kept: no row.
    OutOfRange,
}

impl Ranked {
    /// `row`: the priority that it has when it gives none.
    pub(super) fn of(piece: &Piece, row: Option<u32>) -> Option<Self> {
        let (kind, entry_points, rule, given) = if let Piece::HttpRouter(router) = piece {
            (Kind::HttpRouter, &router.entry_points, &router.rule, router.priority)
        } else if let Piece::TcpRouter(router) = piece {
            (Kind::TcpRouter, &router.entry_points, &router.rule, router.priority)
        } else {
            return None;
        };
        let given = given.filter(|priority| *priority != 0);
        let length = i64::try_from(rule.len()).unwrap_or(i64::MAX);
        // The one for every connection comes last by itself.
        let own = if kind == Kind::TcpRouter && rule == "HostSNI(`*`)" { -1 } else { length };
        Some(Self {
            kind,
            entry_points: entry_points.clone(),
            reach: rule::reach(rule),
            given,
            old: given.unwrap_or(own),
            new: row.map(i64::from),
        })
    }

    fn may_meet(&self, other: &Self) -> bool {
        let shared = self.entry_points.is_empty()
            || other.entry_points.is_empty()
            || self.entry_points.iter().any(|name| other.entry_points.contains(name));
        let meet = |a: &rule::Reach, b: &rule::Reach| {
            hosts_meet(a.host.as_deref(), b.host.as_deref())
                && (a.path.starts_with(b.path.trim_end_matches('/'))
                    || b.path.starts_with(a.path.trim_end_matches('/')))
        };
        self.kind == other.kind && shared && self.reach.iter().any(|a| other.reach.iter().any(|b| meet(a, b)))
    }

    /// True when the two would be tried in another order, or might be.
    fn swapped(&self, other: &Self) -> bool {
        if self.new.is_none() && other.new.is_none() {
            return false;
        }
        let both_rows = self.new.is_some() && other.new.is_some();
        let before = self.old.cmp(&other.old);
        if before == Ordering::Equal {
            // Traefik's order is any, then.
            return !both_rows;
        }
        self.new.unwrap_or(self.old).cmp(&other.new.unwrap_or(other.old)) != before
    }

    fn explicit(&self) -> Priority {
        match u32::try_from(self.old).ok().filter(|priority| (1..=1_000_000).contains(priority)) {
            Some(priority) if self.new == Some(priority.into()) => Priority::Own,
            Some(priority) => Priority::Explicit(priority),
            None => Priority::OutOfRange,
        }
    }
}

fn hosts_meet(a: Option<&str>, b: Option<&str>) -> bool {
    let (Some(a), Some(b)) = (a, b) else { return true };
    let under = |wildcard: &str, host: &str| {
        let parent = wildcard.strip_prefix("*.");
        parent.is_some_and(|parent| host.split_once('.').is_some_and(|(_, rest)| rest == parent))
    };
    a == b || under(a, b) || under(b, a)
}

/// The wildcard that a host is under.
fn over(host: &str) -> Option<String> {
    host.split_once('.').map(|(_, parent)| format!("*.{parent}"))
}

/// What each row's `priority` has to be.
pub(super) fn priorities(routers: &BTreeMap<Name, Ranked>) -> BTreeMap<Name, Priority> {
    let mut by_host: BTreeMap<&str, Vec<&Name>> = BTreeMap::new();
    let mut anywhere = Vec::new();
    for (name, ranked) in routers {
        for reach in &ranked.reach {
            match &reach.host {
                Some(host) => by_host.entry(host).or_default().push(name),
                None => anywhere.push(name),
            }
        }
    }
    let group_of =
        |host: &str| over(host).filter(|over| by_host.contains_key(over.as_str())).unwrap_or_else(|| host.to_owned());
    let all = |names: &[&Name]| names.iter().filter_map(|name| routers.get(*name)).collect::<Vec<_>>();
    // The groups in which somebody would change places, and those with a row to which the file gave no priority.
    let (mut swapped, mut not_given) = (BTreeSet::new(), BTreeSet::new());
    for (host, names) in &by_host {
        let members = all(names);
        let above = over(host).and_then(|over| by_host.get(over.as_str())).map(|names| all(names)).unwrap_or_default();
        let others: Vec<&Ranked> = members.iter().copied().chain(above).chain(all(&anywhere)).collect();
        let meets = |one: &Ranked| {
            others.iter().any(|other| !std::ptr::eq(one, *other) && one.swapped(other) && one.may_meet(other))
        };
        if members.iter().any(|one| meets(one)) {
            swapped.insert(group_of(host));
        }
        if members.iter().any(|one| one.new.is_some() && one.given.is_none()) {
            not_given.insert(group_of(host));
        }
    }
    let mut priorities = BTreeMap::new();
    for (host, names) in &by_host {
        let group = group_of(host);
        let keep = swapped.contains(&group) || !not_given.contains(&group);
        for (name, ranked) in names.iter().filter_map(|name| routers.get_key_value(*name)) {
            if ranked.new.is_some() {
                priorities.insert(name.clone(), if keep { ranked.explicit() } else { Priority::Own });
            }
        }
    }
    // A plain TCP row is about every host.
    for (name, ranked) in anywhere.iter().filter_map(|name| routers.get_key_value(*name)) {
        if ranked.new.is_some() {
            let others = || routers.values().filter(|other| !std::ptr::eq(ranked, *other));
            let keep = ranked.given.is_some() || others().any(|other| ranked.swapped(other) && ranked.may_meet(other));
            priorities.insert(name.clone(), if keep { ranked.explicit() } else { Priority::Own });
        }
    }
    priorities
}

#[cfg(test)]
mod tests {
    use charliehub_proto::traefik;
    use serde_json::json;

    use super::*;

    /// Routers: rule, explicit priority, and what the row of it would have.
    fn ranked(routers: &[(&str, Option<i64>, Option<u32>)]) -> Vec<Priority> {
        let of = |(n, (rule, given, row)): (usize, &(&str, Option<i64>, Option<u32>))| {
            let body = json!({"rule": rule, "service": "s", "priority": given, "entryPoints": ["websecure"]});
            let piece = traefik::piece(Kind::HttpRouter, &body).unwrap();
            ((Kind::HttpRouter, n.to_string()), Ranked::of(&piece, *row).unwrap())
        };
        priorities(&routers.iter().enumerate().map(of).collect()).into_values().collect()
    }

    #[test]
    fn rows_keep_their_order_and_have_a_priority_only_where_they_must() {
        use Priority::{Explicit, OutOfRange, Own};
        let (exact, below, wildcard) = (Some(200_001), Some(200_002), Some(100_001));
        let regexp = r"HostRegexp(`^[^.]+\.a\.org\.?$`)";
        for (routers, expected) in [
            (vec![("Host(`a.org`)", None, exact), ("Host(`a.org`) && PathPrefix(`/x`)", None, below)], vec![Own, Own]),
            // The longer rule won: the wildcard was tried first.
            (vec![("Host(`x.a.org`)", None, exact), (regexp, None, wildcard)], vec![Explicit(15), Explicit(32)]),
            (vec![("Host(`x.b.org`)", None, exact), (regexp, None, wildcard)], vec![Own, Own]),
            (vec![("Host(`a.org`)", None, exact), ("Host(`a.org`) && Method(`GET`)", None, None)], vec![Explicit(13)]),
            (vec![("Host(`a.org`)", None, exact), ("PathPrefix(`/x`)", Some(1), None)], vec![Own]),
            (vec![("Host(`a.org`)", None, exact), ("PathPrefix(`/x`)", None, None)], vec![Explicit(13)]),
            (vec![("Host(`a.org`)", Some(7), exact)], vec![Explicit(7)]),
            (vec![("Host(`a.org`)", Some(200_001), exact)], vec![Own]),
            (vec![("Host(`a.org`)", Some(-4), exact)], vec![OutOfRange]),
            (vec![("Host(`a.org`)", Some(0), exact)], vec![Own]),
        ] {
            assert_eq!(ranked(&routers), expected, "{routers:?}");
        }
    }
}
