//! DNS: do the names that are served lead here, and may the issuer of their certificates issue.
//!
//! Between the servers that speak for a name and the two samples of it. `turn` says which names are asked for now; the crate
//! `charliehub-dns` asks their servers; `caa` climbs to the records that bind issuers; `judge` says how each name stands.
//! What a resolver says is only the way to those servers: where it fails a name is unknown, never wrong.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use charliehub_dns::{Asker, Round, of_resolv_conf};
use charliehub_proto::{
    domain::DnsMode,
    expected::{Expected, Served},
};
use futures_util::{StreamExt as _, stream};
use tokio::time::{Instant, sleep, timeout};

use self::turn::{Asked, Budget, Pace};
use crate::{
    catalogue::Check,
    certificates::name::canonical,
    clock::{self, Now},
    config,
    look::Look,
    sample::{self, Sample},
};

mod caa;
mod judge;
mod turn;

pub const CHECKS: &[Check] = &[
    Check {
        name: judge::ADDRESS,
        what: "where the servers that speak for a name say that it leads (`[dns] edge`)",
        why: "A name that does not lead to the edge has no visitors, and no new certificate either: the issuer does not find us. \
              Critical, for rows with `dns_mode` static: no such name, no address, or one that is not the edge's; a stray AAAA \
              record breaks it for half of the visitors. With `ddns` the address is the site's, so any public one is right. \
              With `external`, the default, the same is a warning. Warning: the servers of its zone say different things, or \
              one of them is silent or does not know its zone: visitors get one or the other. Unknown: nobody could be \
              asked, or a resolver does not tell who speaks for it.",
    },
    Check {
        name: judge::CAA,
        what: "whether CAA records let the issuer of a name's certificate issue (`[dns] issuers`)",
        why: "A certificate that is served today is not renewed where they do not, which nobody sees until it ends. Looked at for \
              names with a resolver of Traefik's: the records of the name count, else those of the next name above it that has \
              any; `issuewild` goes before `issue` for a wildcard. Critical, a warning with `dns_mode` external: they name \
              others, nobody, or bind by something that issuers do not know. Warning: their servers answer with an error, \
              which issuers take for a no.",
    },
];

/// Names are begun within this, so that a look ends in time.
const BEGUN: Duration = Duration::from_secs(2);

/// All questions for one name; with [`BEGUN`] less than a look may take.
const LIMIT: Duration = Duration::from_secs(6);

/// The group.
#[derive(Debug)]
pub struct Dns {
    settings: config::Dns,
    /// Between two questions for a name that is right.
    every: Duration,
    budget: Budget,
    asked: BTreeMap<String, Asked>,
    /// When the next name is due, since the boot.
    next: Option<Duration>,
}

impl Dns {
    pub fn new(settings: &config::Dns, every: Duration) -> Self {
        let settings = settings.clone();
        Self { settings, every, budget: Budget::default(), asked: BTreeMap::new(), next: None }
    }

    fn pace(&self) -> Pace {
        Pace { every: self.every, again: self.settings.again }
    }

    /// Asks for those names whose turn it is.
    async fn ask(&mut self, wanted: &BTreeMap<String, Wanted>, now: Now) {
        self.asked.retain(|name, asked| wanted.get(name) == Some(&asked.wanted));
        let most = self.budget.take(self.settings.rate, now.boot);
        let due = turn::due(wanted.keys(), &self.asked, self.pace(), now.boot, most);
        if due.is_empty() {
            return;
        }
        self.budget.spend(due.len());
        let resolvers = match self.settings.servers.as_slice() {
            [] => of_resolv_conf().await,
            given => given.to_vec(),
        };
        let round = &Round::new(Asker { timeout: self.settings.timeout }, resolvers);
        let (settings, until) = (&self.settings, Instant::now() + BEGUN);
        let asking = due.into_iter().filter_map(|name| Some((name.clone(), *wanted.get(&name)?)));
        let asking = asking.map(|(name, wanted)| async move {
            // They are slow; the next look goes on with the rest.
            if Instant::now() > until {
                return None;
            }
            let samples = timeout(LIMIT, samples(round, settings, &name, wanted)).await;
            let samples = samples.unwrap_or_else(|_| judge::late(&name, wanted, LIMIT));
            Some((name, wanted, samples))
        });
        let told: Vec<_> = stream::iter(asking).buffer_unordered(self.settings.concurrency.max(1)).collect().await;
        let is_few = wanted.len() <= self.settings.one_by_one;
        for (name, wanted, samples) in told.into_iter().flatten() {
            let earlier = self.asked.get(&name);
            let asked = Asked::new(wanted, now.boot, samples, is_few, earlier);
            self.asked.insert(name, asked);
        }
    }
}

/// What matters of how a name is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    mode: DnsMode,
    /// Its certificate comes by ACME.
    is_issued: bool,
}

impl From<&Served> for Wanted {
    fn from(served: &Served) -> Self {
        Self { mode: served.dns_mode, is_issued: served.resolver.is_some() }
    }
}

/// Both checks of one name.
async fn samples(round: &Round, settings: &config::Dns, text: &str, wanted: Wanted) -> Vec<Sample> {
    let name = match charliehub_dns::name(text) {
        Ok(name) => name,
        Err(error) => return judge::strange(text, wanted, &error),
    };
    let bound = async { if wanted.is_issued { Some(caa::climb(round, &name).await) } else { None } };
    let (addresses, bound) = tokio::join!(Box::pin(round.addresses(&name)), Box::pin(bound));
    let mut samples = vec![judge::address(text, &name, wanted.mode, &addresses, &settings.edge)];
    samples.extend(bound.map(|bound| judge::caa(text, wanted.mode, &bound, &settings.issuers)));
    samples
}

impl Look for Dns {
    const NAME: &'static str = "dns";

    async fn look(&mut self, expected: &Arc<Expected>, now: Now) -> Vec<Sample> {
        self.next = None;
        if self.settings.edge.is_empty() {
            return Vec::new();
        }
        // What cannot be a name is told by the check of its certificate.
        let wanted: BTreeMap<String, Wanted> =
            expected.names.iter().filter_map(|(name, served)| Some((canonical(name)?, served.into()))).collect();
        self.ask(&wanted, now).await;
        let pace = self.pace();
        self.next = wanted.keys().map(|name| self.asked.get(name).map_or(Duration::ZERO, |one| one.due(pace))).min();
        let (mut address, mut caa) = (Vec::new(), Vec::new());
        for (name, asked) in &self.asked {
            for sample in asked.samples(name) {
                if sample.check == judge::ADDRESS { address.push(sample) } else { caa.push(sample) }
            }
        }
        // Those that were not asked for yet count among all.
        let (all, issued) = (wanted.len(), wanted.values().filter(|wanted| wanted.is_issued).count());
        let mut samples = sample::few(judge::ADDRESS, "the addresses", address, all, self.settings.one_by_one);
        samples.extend(sample::few(judge::CAA, "the CAA records", caa, issued, self.settings.one_by_one));
        samples
    }

    /// A name is due: those that are not right are, sooner than the interval, and the rest of many.
    async fn wake(&mut self) {
        match self.next {
            Some(next) => sleep(next.saturating_sub(clock::boot())).await,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests;
