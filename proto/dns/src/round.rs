//! What the servers that speak for a name say of it, and which those are.
//!
//! Resolvers tell the zone that a name is in, and its servers; from then on only those count. What was found out, and what
//! could not be, is kept for the round, and who is silent is not waited for again and again, so that many names of few zones
//! cost little. A round is short: some seconds, one look at all that is to be asked.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    hash::Hash,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::future::join_all;
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{Name, RData, Record, RecordType},
};
use tokio::sync::OnceCell;

use crate::{Asker, Error, PORT, shown};

/// Aliases may lead over so many names.
const MOST_NAMES: usize = 8;

/// Servers of a zone that are asked, addresses counted: the root has 26.
const MOST_SERVERS: usize = 26;

/// Who was silent so often in a round, and said nothing in it, is not asked again in it. A resolver is also silent while
/// it waits for others, so once says little.
const GIVEN_UP: u32 = 3;

/// A name server of a zone, at one of its addresses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Server {
    pub name: Name,
    pub at: SocketAddr,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", shown(&self.name), self.at.ip())
    }
}

/// A zone and who has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    pub name: Name,
    /// Never empty.
    pub servers: Vec<Server>,
    /// Names of servers of which no address could be found, and why.
    pub nameless: Vec<(Name, Error)>,
}

/// What one server says of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    pub server: Server,
    pub said: Result<Saying, Error>,
}

/// A name's addresses, as one server has them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Saying {
    /// None: the name is there, and has no address.
    Addresses(BTreeSet<IpAddr>),
    /// It stands for another name, which has them.
    Alias(Name),
    NoSuchName,
}

/// What each server of its zone says of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    pub zone: Arc<Zone>,
    pub said: Vec<Said>,
}

/// A name on the way from the one that was asked for, over aliases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub name: Name,
    pub found: Result<Arc<Lookup>, Error>,
}

/// All records of one type that a name has, with authority: those of the name at the end of its aliases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Records {
    pub records: Vec<RData>,
    /// Whose they are: the name that was asked for, or what it stands for.
    pub owner: Name,
}

/// Questions that share what is found out.
#[derive(Debug)]
pub struct Round {
    asker: Asker,
    resolvers: Vec<SocketAddr>,
    zones: Kept<Name, Arc<Zone>>,
    lookups: Kept<Name, Arc<Lookup>>,
    records: Kept<(Name, RecordType), Arc<Records>>,
    /// Who has not answered so far, how often, and how.
    silent: Mutex<BTreeMap<SocketAddr, Option<(u32, Error)>>>,
}

impl Round {
    pub fn new(asker: Asker, resolvers: Vec<SocketAddr>) -> Self {
        let (zones, lookups, records) = Default::default();
        Self { asker, resolvers, zones, lookups, records, silent: Mutex::default() }
    }

    /// The zone that a name is in.
    pub async fn zone(&self, name: &Name) -> Result<Arc<Zone>, Error> {
        let mut at = name.clone();
        while !at.is_root() {
            let answer = self.resolved(&at, RecordType::SOA).await?;
            // An alias is no zone, and what is said of where it leads is about another one.
            let is_alias = answer.answers.iter().any(|one| one.name == at && matches!(one.data, RData::CNAME(_)));
            let mut records = answer.answers.iter().chain(&answer.authorities);
            let is_above = |one: &&Record| matches!(one.data, RData::SOA(_)) && one.name.zone_of(&at);
            if !is_alias && let Some(record) = records.find(is_above) {
                let apex = record.name.to_lowercase();
                return self.zones.get(&apex, Box::pin(self.zone_at(&apex))).await;
            }
            at = at.base_name();
        }
        Err(Error::NoZone(Box::new(name.clone())))
    }

    /// What all servers of its zone say of the addresses of a name, whatever it stands for.
    pub async fn lookup(&self, name: &Name) -> Result<Arc<Lookup>, Error> {
        let lookup = Box::pin(async {
            let zone = self.zone(name).await?;
            let said = zone.servers.iter().map(|server| async {
                let (four, six) =
                    tokio::join!(self.told(server, name, RecordType::A), self.told(server, name, RecordType::AAAA));
                let said = four.and_then(|four| Ok(saying(name, &[four, six?])));
                Said { server: server.clone(), said }
            });
            Ok(Arc::new(Lookup { said: join_all(said).await, zone }))
        });
        self.lookups.get(name, lookup).await
    }

    /// The same of a name, and of all that it stands for.
    pub async fn addresses(&self, name: &Name) -> Result<Vec<Step>, Error> {
        let mut steps: Vec<Step> = Vec::new();
        let mut next = vec![name.clone()];
        while let Some(name) = next.pop() {
            if steps.iter().any(|step| step.name == name) {
                continue;
            }
            if let Some(first) = steps.first().filter(|_| steps.len() == MOST_NAMES) {
                return Err(Error::TooLong { name: Box::new(first.name.clone()), most: MOST_NAMES });
            }
            let found = self.lookup(&name).await;
            if let Ok(lookup) = &found {
                next.extend(lookup.said.iter().filter_map(|one| match &one.said {
                    Ok(Saying::Alias(other)) => Some(other.clone()),
                    Ok(Saying::Addresses(_) | Saying::NoSuchName) | Err(_) => None,
                }));
            }
            steps.push(Step { name, found });
        }
        Ok(steps)
    }

    /// The records of a name, over aliases, as the first server of its zone has them that answers with authority.
    pub async fn records(&self, name: &Name, kind: RecordType) -> Result<Arc<Records>, Error> {
        let mut owner = name.clone();
        for _ in 0..MOST_NAMES {
            let found = self.records.get(&(owner.clone(), kind), Box::pin(self.records_at(&owner, kind))).await?;
            if found.owner == owner {
                return Ok(found);
            }
            owner = found.owner.clone();
        }
        Err(Error::TooLong { name: Box::new(name.clone()), most: MOST_NAMES })
    }

    async fn records_at(&self, name: &Name, kind: RecordType) -> Result<Arc<Records>, Error> {
        let zone = self.zone(name).await?;
        let mut failed = None;
        for server in &zone.servers {
            match self.told(server, name, kind).await {
                Ok(answer) => {
                    let owner = alias(name, &answer).unwrap_or_else(|| name.clone());
                    let records = answer.answers.into_iter().filter(|one| one.name == *name);
                    let records = records.map(|one| one.data).filter(|data| data.record_type() == kind).collect();
                    return Ok(Arc::new(Records { records, owner }));
                }
                // That we cannot send is told where nobody said anything worse.
                Err(error) if error.is_ours() => failed = failed.or(Some(error)),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or(Error::NoServer(Box::new(zone.name.clone()))))
    }

    /// What a server of the zone says with authority.
    async fn told(&self, server: &Server, name: &Name, kind: RecordType) -> Result<Message, Error> {
        let answer = self.ask(server.at, name, kind, false).await?;
        if answer.metadata.authoritative {
            Ok(answer)
        } else {
            Err(Error::Lame { server: server.at, name: Box::new(name.clone()) })
        }
    }

    /// What the first resolver says that knows something.
    async fn resolved(&self, name: &Name, kind: RecordType) -> Result<Message, Error> {
        let mut failed = None;
        for resolver in &self.resolvers {
            match self.ask(*resolver, name, kind, true).await {
                Ok(answer) => return Ok(answer),
                Err(error) => failed = Some(error),
            }
        }
        let unresolved = |why| Error::Unresolved { name: Box::new(name.clone()), why: Box::new(why) };
        Err(failed.map_or(Error::NoResolver, unresolved))
    }

    async fn ask(&self, server: SocketAddr, name: &Name, kind: RecordType, recursion: bool) -> Result<Message, Error> {
        let silent = || self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Some((times, error))) = silent().get(&server)
            && *times >= GIVEN_UP
        {
            return Err(error.clone());
        }
        let answer = self.asker.ask(server, name, kind, recursion).await;
        let mut silent = silent();
        match &answer {
            Err(error @ (Error::Silent { .. } | Error::Away { .. } | Error::Unsent { .. })) => {
                if let Some((times, last)) = silent.entry(server).or_insert_with(|| Some((0, error.clone()))) {
                    *times += 1;
                    *last = error.clone();
                }
            }
            Ok(_) | Err(_) => {
                silent.insert(server, None);
            }
        }
        answer
    }

    /// Who has the zone, by its own NS records.
    async fn zone_at(&self, apex: &Name) -> Result<Arc<Zone>, Error> {
        let answer = self.resolved(apex, RecordType::NS).await?;
        let names: BTreeSet<Name> = answer.answers.iter().filter_map(|one| server_name(apex, one)).collect();
        let found = join_all(names.into_iter().map(|name| async {
            let (four, six) = tokio::join!(self.resolved(&name, RecordType::A), self.resolved(&name, RecordType::AAAA));
            // One of both is enough.
            let addresses = match (four, six) {
                (Err(error), Err(_)) => Err(error),
                (four, six) => Ok([four, six].iter().flatten().flat_map(addresses).collect::<BTreeSet<_>>()),
            };
            (name, addresses)
        }));
        let (mut servers, mut nameless) = (Vec::new(), Vec::new());
        for (name, addresses) in found.await {
            match addresses {
                Ok(addresses) if addresses.is_empty() => {
                    let error = Error::NoServer(Box::new(apex.clone()));
                    nameless.push((name, error));
                }
                Ok(addresses) => servers
                    .extend(addresses.iter().map(|ip| Server { name: name.clone(), at: SocketAddr::new(*ip, PORT) })),
                Err(error) => nameless.push((name, error)),
            }
        }
        servers.truncate(MOST_SERVERS);
        match (servers.is_empty(), nameless.pop()) {
            (true, Some((_, error))) => Err(error),
            (true, None) => Err(Error::NoServer(Box::new(apex.clone()))),
            (false, last) => {
                nameless.extend(last);
                Ok(Arc::new(Zone { name: apex.clone(), servers, nameless }))
            }
        }
    }
}

fn server_name(apex: &Name, record: &Record) -> Option<Name> {
    if let RData::NS(name) = &record.data { (record.name == *apex).then(|| name.to_lowercase()) } else { None }
}

/// All addresses of an answer, whoever has them: it follows aliases by itself.
fn addresses(answer: &Message) -> impl Iterator<Item = IpAddr> {
    answer.answers.iter().filter_map(|one| one.data.ip_addr())
}

fn alias(name: &Name, answer: &Message) -> Option<Name> {
    let mut of_it = answer.answers.iter().filter(|one| one.name == *name);
    of_it.find_map(|one| if let RData::CNAME(target) = &one.data { Some(target.to_lowercase()) } else { None })
}

/// Of its answers for A and for AAAA. What follows an alias in them may be of another zone, and does not count.
fn saying(name: &Name, answers: &[Message]) -> Saying {
    if let Some(alias) = answers.iter().find_map(|answer| alias(name, answer)) {
        return Saying::Alias(alias);
    }
    if answers.iter().any(|answer| answer.metadata.response_code == ResponseCode::NXDomain) {
        return Saying::NoSuchName;
    }
    let own = answers.iter().flat_map(|answer| &answer.answers).filter(|one| one.name == *name);
    Saying::Addresses(own.filter_map(|one| one.data.ip_addr()).collect())
}

/// What was found out, once, by whoever asked first.
#[derive(Debug)]
struct Kept<K, V>(Mutex<HashMap<K, Cell<V>>>);

type Cell<V> = Arc<OnceCell<Result<V, Error>>>;

impl<K, V> Default for Kept<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Clone + Eq + Hash, V: Clone> Kept<K, V> {
    async fn get(&self, key: &K, find: impl Future<Output = Result<V, Error>>) -> Result<V, Error> {
        let cell = self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(key.clone()).or_default().clone();
        cell.get_or_init(|| find).await.clone()
    }
}

#[cfg(test)]
mod tests;
