//! One look: which names follow which site, where the sites are seen, and what the name servers say. Changes nothing.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use charliehub_proto::report::Endpoint;
use futures_util::{StreamExt as _, stream};
use tokio::task::spawn_blocking;

use super::{
    Failure, ask,
    machine::{Answer, Family},
    names::{Fault, Named, Site, Wish, only, settle},
};
use crate::config::Ddns;

/// Names that are asked for at the same time.
const AT_ONCE: usize = 16;

/// Where sites are, as files and commands say that the settings name.
pub(super) type Told = BTreeMap<String, Result<Vec<IpAddr>, Failure>>;

pub(super) struct Survey {
    pub sites: BTreeMap<String, Site>,
    pub faults: Vec<(String, Fault)>,
    pub names: Vec<Sight>,
    /// Of each zone of the settings.
    pub servers: Vec<Result<Vec<SocketAddr>, Failure>>,
}

/// A name, and what is seen of it.
pub(super) struct Sight {
    pub named: Named,
    /// Where its site is, by family, and what the name servers say. None: nobody asked them.
    pub families: Vec<(Family, IpAddr, Result<Answer, Failure>)>,
    /// Why not all is known of where its site is.
    pub trouble: Option<Failure>,
}

/// Asks the name servers for all that is wished for.
pub(super) async fn survey(
    settings: &Ddns,
    wishes: &[Wish],
    sites: Vec<Site>,
    endpoints: &[(String, Endpoint)],
    told: &Told,
) -> Survey {
    let sites: BTreeMap<String, Site> = sites.into_iter().map(|site| (site.name.clone(), site)).collect();
    let (named, faults) = settle(wishes, |site| sites.contains_key(site), &settings.zones);
    let mut servers = Vec::new();
    for (at, zone) in settings.zones.iter().enumerate() {
        let is_wanted = named.iter().any(|one| one.zone == at);
        servers.push(if is_wanted { ask::servers(zone).await } else { Ok(Vec::new()) });
    }
    let sight = async |named: Named| {
        let addresses = addresses(&named.site, &sites, endpoints, told);
        let mut sight = Sight { named, families: Vec::new(), trouble: None };
        for family in Family::ALL {
            match addresses.as_ref().map(|addresses| only(addresses, family)) {
                Ok(Ok(Some(address))) => {
                    let answer = match servers.get(sight.named.zone) {
                        Some(Ok(servers)) => ask::ask(servers, &sight.named.name, family).await,
                        Some(Err(failure)) => Err(failure.clone()),
                        None => continue,
                    };
                    sight.families.push((family, address, answer));
                }
                Ok(Ok(None)) => {}
                Ok(Err(())) => sight.trouble = Some(several(&sight.named.site, family)),
                Err(failure) => sight.trouble = Some(failure.clone()),
            }
        }
        sight
    };
    // A server that is silent is waited for by all at once, not by one after the other.
    let sights = stream::iter(named).map(sight).buffered(AT_ONCE).collect().await;
    Survey { sites, faults, names: sights, servers }
}

fn several(site: &str, family: Family) -> Failure {
    let why = format!("site {site} is seen at several addresses for {family}");
    Failure::new(why, format!("have one of each family in the source of site {site}"))
}

/// Where a site is seen. Err where that is not known.
pub(super) fn addresses(
    site: &str,
    sites: &BTreeMap<String, Site>,
    endpoints: &[(String, Endpoint)],
    told: &Told,
) -> Result<Vec<IpAddr>, Failure> {
    if let Some(told) = told.get(site) {
        return told.clone();
    }
    let addresses = sites.get(site).map(|site| site.addresses(endpoints)).unwrap_or_default();
    if addresses.is_empty() {
        let agent = sites.get(site).map_or("", |site| site.agent.as_str());
        return Err(Failure::new(
            format!("where site {site} is cannot be seen: agent {agent} tells of no packets by its own tunnel"),
            format!("see the findings of agent {agent} about site {site}; or give the site a source in `ddns.sources`"),
        ));
    }
    Ok(addresses)
}

/// Reads the sources of the settings.
pub(super) async fn sources(settings: &Ddns) -> Told {
    let sources = settings.sources.clone();
    let read = move || {
        let one = |(site, source): (String, charliehub_secret::Source)| {
            let failed = |why: String| {
                Failure::new(format!("the source of site {site}: {why}"), "have it hold one or two addresses")
            };
            let text = source.read().map_err(|error| failed(error.to_string()));
            let addresses = text.and_then(|text| {
                let words = text
                    .split_whitespace()
                    .map(|word| word.parse().map_err(|_| failed(format!("`{word}` is no address"))));
                words.collect::<Result<Vec<IpAddr>, _>>()
            });
            (site, addresses)
        };
        sources.into_iter().map(one).collect()
    };
    spawn_blocking(read).await.unwrap_or_default()
}
