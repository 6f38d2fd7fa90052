//! What one agent holds reality against: sites, policy, and the names that must be served with a valid certificate.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{domain::DnsMode, peer::Peer, policy::Policy, site::Site};

/// The answer of `GET /api/agents/{name}/expected`, and what the agent keeps on disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Expected {
    pub agent: String,
    /// The revision that it was compiled from.
    pub revision: i64,
    /// Equal exactly when all else but the revision is.
    pub digest: String,
    pub sites: Vec<Site>,
    pub policy: Policy,
    /// Each name that must be served with a valid certificate, as clients ask for it (`*.` where the certificate must be a
    /// wildcard's), and how.
    pub names: BTreeMap<String, Served>,
    /// The clients of the VPN that this host lets in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<Peer>,
}

/// How a name is served.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Served {
    /// The entry point, as Traefik calls it.
    pub entry_point: String,
    /// The certificate resolver; none where the certificate is Traefik's default or a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolver: Option<String>,
    /// Who keeps its DNS record: somebody else, unless a row of the name says otherwise.
    #[serde(skip_serializing_if = "is_default")]
    pub dns_mode: DnsMode,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// What changed since the `digest` that the agent has (`?have=`), where that is shorter than all of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExpectedDelta {
    /// The digest that it starts from.
    pub from: String,
    pub revision: i64,
    /// What it leads to.
    pub digest: String,
    /// All sites, where one changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sites: Option<Vec<Site>>,
    /// The policy, where it changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
    /// All clients of the VPN, where one changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peers: Option<Vec<Peer>>,
    /// Names that are new, or served otherwise than before.
    pub names: BTreeMap<String, Served>,
    /// Names that are no more.
    pub gone: Vec<String>,
}

impl Expected {
    /// Makes of this what it was a delta to. None when the delta starts from something else.
    #[must_use]
    pub fn changed_by(mut self, delta: ExpectedDelta) -> Option<Self> {
        if delta.from != self.digest {
            return None;
        }
        self.revision = delta.revision;
        self.digest = delta.digest;
        self.sites = delta.sites.unwrap_or(self.sites);
        self.policy = delta.policy.unwrap_or(self.policy);
        self.peers = delta.peers.unwrap_or(self.peers);
        self.names.extend(delta.names);
        for name in &delta.gone {
            self.names.remove(name);
        }
        Some(self)
    }

    /// What leads from `earlier` to this.
    pub fn since(&self, earlier: &Self) -> ExpectedDelta {
        let names = self.names.iter().filter(|(name, served)| earlier.names.get(*name) != Some(*served));
        ExpectedDelta {
            from: earlier.digest.clone(),
            revision: self.revision,
            digest: self.digest.clone(),
            sites: (self.sites != earlier.sites).then(|| self.sites.clone()),
            policy: (self.policy != earlier.policy).then(|| self.policy.clone()),
            peers: (self.peers != earlier.peers).then(|| self.peers.clone()),
            names: names.map(|(name, served)| (name.clone(), served.clone())).collect(),
            gone: earlier.names.keys().filter(|name| !self.names.contains_key(*name)).cloned().collect(),
        }
    }
}

impl ExpectedDelta {
    /// This and then `next`, which starts from where this leads to.
    #[must_use]
    pub fn then(mut self, next: Self) -> Self {
        self.names.retain(|name, _| !next.gone.contains(name));
        self.gone.retain(|name| !next.names.contains_key(name));
        self.names.extend(next.names);
        self.gone.extend(next.gone);
        self.gone.sort_unstable();
        self.gone.dedup();
        Self {
            revision: next.revision,
            digest: next.digest,
            sites: next.sites.or(self.sites),
            policy: next.policy.or(self.policy),
            peers: next.peers.or(self.peers),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::btree_map, prelude::*};

    use super::*;

    fn expected() -> impl Strategy<Value = Expected> {
        let served =
            ("[ab]", proptest::option::of("[xy]"), any::<bool>()).prop_map(|(entry_point, resolver, is_static)| {
                let dns_mode = if is_static { DnsMode::Static } else { DnsMode::External };
                Served { entry_point, resolver, dns_mode }
            });
        (btree_map("[a-f]", served, 0..6), any::<bool>(), 0..5_i64).prop_map(|(names, allow_staging, revision)| {
            let mut expected = Expected { revision, names, ..Expected::default() };
            expected.policy.certificates.allow_staging = allow_staging;
            expected.digest = format!("{:?}{allow_staging}", expected.names);
            expected
        })
    }

    #[test]
    fn who_keeps_the_dns_record_is_told_only_where_a_row_says_it() {
        let told = |dns_mode| {
            let served = Served { entry_point: "websecure".to_owned(), resolver: None, dns_mode };
            let text = serde_json::to_string(&served).unwrap();
            assert_eq!(serde_json::from_str::<Served>(&text).unwrap(), served);
            text
        };
        assert_eq!(told(DnsMode::External), r#"{"entry_point":"websecure"}"#);
        assert_eq!(told(DnsMode::Static), r#"{"entry_point":"websecure","dns_mode":"static"}"#);
    }

    proptest! {
        #[test]
        fn a_delta_leads_from_one_to_the_other(earlier in expected(), later in expected()) {
            let delta = later.since(&earlier);
            prop_assert_eq!(earlier.clone().changed_by(delta.clone()), Some(later));
            let other = Expected { digest: "another".to_owned(), ..earlier };
            prop_assert_eq!(other.changed_by(delta), None);
        }

        #[test]
        fn two_deltas_are_one(first in expected(), second in expected(), third in expected()) {
            let both = second.since(&first).then(third.since(&second));
            prop_assert_eq!(first.changed_by(both), Some(third));
        }
    }
}
