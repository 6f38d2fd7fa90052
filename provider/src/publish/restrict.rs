//! Which rows run while the newest are withheld: no route of the base goes, and nothing is more open than the newest say.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use charliehub_proto::domain::{AccessTier, Domain, Protocol};
use ipnet::IpNet;
use uuid::Uuid;

use super::domain;
use crate::{
    guard::{intersection, tighten},
    row::{Key, Row, Rows},
};

/// Where a row answers: no two rows of one revision do at the same place.
type Place<'a> = (Protocol, &'a str, &'a str, Option<&'a str>);

fn place(row: &Domain) -> Place<'_> {
    (row.protocol, &row.domain, &row.path_prefix, row.tcp_entrypoint.as_deref())
}

/// Where some rows answer.
pub(super) struct Hosts<'a>(BTreeSet<(Protocol, &'a str)>);

impl<'a> FromIterator<&'a Domain> for Hosts<'a> {
    fn from_iter<I: IntoIterator<Item = &'a Domain>>(rows: I) -> Self {
        Self(rows.into_iter().map(|row| (row.protocol, &*row.domain)).collect())
    }
}

impl Hosts<'_> {
    /// True when requests for the host of `row` reach one of them, perhaps a wildcard.
    pub(super) fn cover(&self, row: &Domain) -> bool {
        let wildcard = row.domain.split_once('.').map(|(_, parent)| format!("*.{parent}"));
        self.0.contains(&(row.protocol, &row.domain))
            || wildcard.is_some_and(|wildcard| self.0.contains(&(row.protocol, &wildcard)))
    }
}

/// True for a row that not everybody may reach.
pub(super) fn is_protected(row: &Domain) -> bool {
    row.auth_required || row.access_tier != AccessTier::Public
}

/// The rows that run while the newest are withheld: the base, as narrow as the newest say, and new protected places on its
/// hosts, which would be open as part of a neighbour otherwise.
///
/// A row is narrowed by its own newest version, and by whichever has its place now: rows may have been written anew.
pub fn restricted(base: &Rows, newest: &Rows) -> Rows {
    let mut rows = base.clone();
    narrow_sites(&mut rows, newest);
    keep_peers(&mut rows, newest);
    let running = || base.iter().filter_map(|(key, row)| Some((key, domain(row).filter(|row| row.is_served())?)));
    let places: BTreeMap<Place<'_>, Key> = running().map(|(key, row)| (place(row), *key)).collect();
    let hosts: Hosts<'_> = running().map(|(_, row)| row).collect();
    for (key, row) in newest {
        let Some(new) = domain(row) else { continue };
        let in_its_place = places.get(&place(new)).filter(|_| new.is_served());
        for key in [Some(key), in_its_place].into_iter().flatten() {
            let Some(runs) = rows.get(key).and_then(|row| domain(row)) else { continue };
            let tight = tighten(runs, new);
            if tight != *runs {
                rows.insert(*key, Arc::new(Row::Domain(tight)));
            }
        }
        if !is_protected(new) || !new.is_served() || in_its_place.is_some() || !hosts.cover(new) {
            continue;
        }
        match base.get(key).map(|row| &**row) {
            // It moved, and runs on where it was: its new place needs a name of its own.
            Some(Row::Domain(runs)) if runs.is_served() => {
                let id = Uuid::from_u128(!key.id.as_u128());
                rows.insert(Key::domain(id), Arc::new(Row::Domain(Domain { id, ..new.clone() })));
            }
            Some(Row::Bad(_)) => {}
            Some(Row::Domain(_) | Row::Fragment(_) | Row::Site(_) | Row::Policy(_) | Row::Peer(_)) | None => {
                rows.insert(*key, Arc::clone(row));
            }
        }
    }
    rows
}

/// Leaves to each site what belongs to some site of the newest too: nobody is internal who is not any more.
fn narrow_sites(rows: &mut Rows, newest: &Rows) {
    let networks = |row: &Row| match row {
        Row::Site(row) => row.site.networks.clone(),
        Row::Domain(_) | Row::Fragment(_) | Row::Policy(_) | Row::Peer(_) | Row::Bad(_) => Vec::new(),
    };
    let internal: Vec<IpNet> = newest.values().flat_map(|row| networks(row)).collect();
    rows.retain(|_, row| {
        let Row::Site(site) = &**row else { return true };
        let left = intersection(&site.site.networks, &internal);
        if left.iter().any(|network| !site.site.networks.contains(network)) || left.len() < site.site.networks.len() {
            let mut site = site.clone();
            site.site.networks = left;
            *row = Arc::new(Row::Site(site));
        }
        !networks(row).is_empty()
    });
}

/// Leaves each peer as the newest have it, and out where they do not: nobody is let in who is not any more.
fn keep_peers(rows: &mut Rows, newest: &Rows) {
    rows.retain(|key, row| !matches!(**row, Row::Peer(_)) || newest.contains_key(key));
    for (key, row) in rows.iter_mut().filter(|(_, row)| matches!(***row, Row::Peer(_))) {
        if let Some(newest) = newest.get(key) {
            *row = Arc::clone(newest);
        }
    }
}
