//! Who stands at a host, and who claims what no two may have.

use std::{collections::BTreeMap, sync::Arc};

use charliehub_proto::domain::Protocol;

use super::{
    index::Index,
    place::{Claim, Place},
};
use crate::row::Key;

/// All that is known of one host.
pub(super) type HostOf = (Protocol, Arc<str>);

/// Of rows only.
pub(super) type Places = BTreeMap<Key, Place>;

#[derive(Debug, Default)]
pub(super) struct Claims {
    pub(super) hosts: Index<HostOf>,
    /// All but those of a host, which are told by who stands there.
    others: Index<Claim>,
}

impl Claims {
    pub(super) fn insert(&mut self, claim: &Claim, key: Key) {
        if !matches!(claim, Claim::Host(_)) {
            self.others.insert(claim.clone(), key);
        }
    }

    pub(super) fn remove(&mut self, claim: &Claim, key: &Key) {
        self.others.remove(claim, key);
    }

    /// The rows that claim this, in the order of the keys.
    pub(super) fn get<'a>(&'a self, claim: &Claim, places: &'a Places) -> impl Iterator<Item = &'a Key> + use<'a> {
        let (host, others) = match claim {
            Claim::Host(host) => (Some(Arc::clone(host)), None),
            Claim::Name(..) | Claim::Plain(_) => (None, Some(self.others.get(claim))),
        };
        let there = host.clone().map(|host| self.hosts.get(&(Protocol::Http, host)));
        let claims =
            move |key: &&Key| matches!(places.get(key), Some(Place::At(spot)) if Some(&spot.name) == host.as_ref());
        there.into_iter().flatten().filter(claims).chain(others.into_iter().flatten())
    }

    /// True when more than one row claims this.
    pub(super) fn has_several(&self, claim: &Claim, places: &Places) -> bool {
        match claim {
            Claim::Host(host) if !self.hosts.has_several(&(Protocol::Http, Arc::clone(host))) => false,
            Claim::Host(_) => self.get(claim, places).nth(1).is_some(),
            Claim::Name(..) | Claim::Plain(_) => self.others.has_several(claim),
        }
    }
}
