//! Which names follow which site, and which may not: the rows, held against the zones of the settings. Pure.
//!
//! A name outside every zone is not ours: it is told and never touched. What two rows say differently nobody follows.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use charliehub_proto::{report::Endpoint, site::Tunnel};

use super::machine::Family;
use crate::config::Zone;

/// A row that wants a name to follow a site.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Wish {
    pub name: String,
    /// None: the row does not say.
    pub site: Option<String>,
}

/// A site, as far as its address is told by a tunnel.
#[derive(Clone, Debug)]
pub(super) struct Site {
    pub name: String,
    /// Whose word counts.
    pub agent: String,
    pub tunnels: Vec<Tunnel>,
}

impl Site {
    /// The interface of its own tunnel; the others may end at another site.
    fn interface(&self) -> Option<&str> {
        self.tunnels.iter().min_by_key(|tunnel| tunnel.rank).map(|tunnel| tunnel.interface.as_str())
    }

    /// Where its packets come from, if its own agent said so.
    pub(super) fn addresses(&self, endpoints: &[(String, Endpoint)]) -> Vec<IpAddr> {
        let is_own = |(agent, one): &&(String, Endpoint)| {
            *agent == self.agent && one.site == self.name && Some(one.interface.as_str()) == self.interface()
        };
        endpoints.iter().filter(is_own).map(|(_, one)| one.address.to_canonical()).collect()
    }
}

/// What can be wrong with a wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    NotOurs,
    NoSite,
    UnknownSite(String),
    /// Two rows name two sites.
    Torn,
}

/// A name, the place of its zone among those of the settings, and the site that it follows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Named {
    pub name: String,
    pub zone: usize,
    pub site: String,
}

/// What can be followed, and what cannot.
pub(super) fn settle(
    wishes: &[Wish],
    is_known: impl Fn(&str) -> bool,
    zones: &[Zone],
) -> (Vec<Named>, Vec<(String, Fault)>) {
    let mut sites: BTreeMap<&str, BTreeSet<Option<&str>>> = BTreeMap::new();
    for wish in wishes {
        sites.entry(&wish.name).or_default().insert(wish.site.as_deref());
    }
    let (mut named, mut faults) = (Vec::new(), Vec::new());
    for (name, sites) in sites {
        let mut sites = sites.into_iter();
        let fault = match (zone_of(name, zones), sites.next().flatten(), sites.next()) {
            (None, _, _) => Fault::NotOurs,
            (Some(_), _, Some(_)) => Fault::Torn,
            (Some(_), None, None) => Fault::NoSite,
            (Some(_), Some(site), None) if !is_known(site) => Fault::UnknownSite(site.to_owned()),
            (Some(zone), Some(site), None) => {
                named.push(Named { name: name.to_owned(), zone, site: site.to_owned() });
                continue;
            }
        };
        faults.push((name.to_owned(), fault));
    }
    (named, faults)
}

/// The place of the zone that a name is in: of several the longest.
fn zone_of(name: &str, zones: &[Zone]) -> Option<usize> {
    let is_in = |zone: &str| name.strip_suffix(zone).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    let found = zones.iter().enumerate().filter(|(_, zone)| is_in(&zone.zone));
    found.max_by_key(|(_, zone)| zone.zone.len()).map(|(at, _)| at)
}

/// The one address of a family. Err: there are several.
pub(super) fn only(addresses: &[IpAddr], family: Family) -> Result<Option<IpAddr>, ()> {
    let of: BTreeSet<IpAddr> = addresses.iter().copied().filter(|address| Family::of(*address) == family).collect();
    let mut of = of.into_iter();
    match (of.next(), of.next()) {
        (only, None) => Ok(only),
        (_, Some(_)) => Err(()),
    }
}

#[cfg(test)]
mod tests {
    use charliehub_secret::Source;

    use super::*;
    use crate::config::DnsProvider;

    fn zone(name: &str) -> Zone {
        let secret = Source::Command(Vec::new());
        let provider = DnsProvider::Ovh {
            url: String::new(),
            ca_file: None,
            application_key: String::new(),
            application_secret: secret.clone(),
            consumer_key: secret,
        };
        Zone { zone: name.to_owned(), ttl: 60, nameserver: None, provider }
    }

    #[test]
    fn whose_a_name_is() {
        let zones = [zone("example.org"), zone("dyn.example.org")];
        for (name, at) in [
            ("example.org", Some(0)),
            ("uk.example.org", Some(0)),
            ("*.example.org", Some(0)),
            ("dyn.example.org", Some(1)),
            ("uk.dyn.example.org", Some(1)),
            ("badexample.org", None),
            ("org", None),
            ("example.org.evil.test", None),
        ] {
            assert_eq!(zone_of(name, &zones), at, "{name}");
        }
    }

    #[test]
    fn what_can_be_followed_and_what_cannot() {
        let wish = |name: &str, site: Option<&str>| Wish { name: name.to_owned(), site: site.map(str::to_owned) };
        let wishes = [
            wish("a.example.org", Some("uk")),
            wish("a.example.org", Some("uk")),
            wish("b.example.org", Some("uk")),
            wish("b.example.org", Some("fr")),
            wish("c.example.org", None),
            wish("d.example.org", Some("moon")),
            wish("e.example.com", Some("uk")),
            wish("f.example.org", None),
            wish("f.example.org", Some("uk")),
        ];
        let (named, faults) = settle(&wishes, |site| site != "moon", &[zone("example.org")]);
        assert_eq!(named, [Named { name: "a.example.org".to_owned(), zone: 0, site: "uk".to_owned() }]);
        let faults: Vec<_> = faults.iter().map(|(name, fault)| (&name[..1], fault)).collect();
        let moon = Fault::UnknownSite("moon".to_owned());
        assert_eq!(
            faults,
            [("b", &Fault::Torn), ("c", &Fault::NoSite), ("d", &moon), ("e", &Fault::NotOurs), ("f", &Fault::Torn)]
        );
    }

    #[test]
    fn only_the_own_agent_tells_by_the_own_tunnel() {
        let tunnel = |interface: &str, rank: u16| {
            let text =
                serde_json::json!({ "interface": interface, "public_key": "k", "allowed_ips": [], "rank": rank });
            serde_json::from_value(text).unwrap()
        };
        let site = Site {
            name: "fr".to_owned(),
            agent: "hub2".to_owned(),
            tunnels: vec![tunnel("wg-uk", 2), tunnel("wg-fr", 1)],
        };
        let seen = |agent: &str, site: &str, interface: &str, address: &str| {
            let (site, interface) = (site.to_owned(), interface.to_owned());
            (agent.to_owned(), Endpoint { site, interface, address: address.parse().unwrap() })
        };
        let endpoints = [
            seen("hub2", "fr", "wg-uk", "1.1.1.1"),
            seen("hub3", "fr", "wg-fr", "2.2.2.2"),
            seen("hub2", "uk", "wg-fr", "3.3.3.3"),
            seen("hub2", "fr", "wg-fr", "::ffff:4.4.4.4"),
        ];
        assert_eq!(site.addresses(&endpoints), ["4.4.4.4".parse::<IpAddr>().unwrap()]);
        let both: [IpAddr; 3] = ["4.4.4.4", "2a01::4", "4.4.4.5"].map(|text| text.parse().unwrap());
        assert_eq!(only(&both, Family::A), Err(()));
        assert_eq!(only(&both, Family::Aaaa), Ok(Some(both[1])));
        assert_eq!(only(&both[..1], Family::Aaaa), Ok(None));
    }
}
