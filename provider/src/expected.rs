//! What each agent holds reality against: sites, policy, the VPN's clients, and the names that must be served with a valid
//! certificate.
//!
//! Between `app`, which tells what was read, and `api`, which hands it out. A change of rows costs what changed: the names are
//! kept up row by row. What one agent gets is put together once for each change, when it asks, outside of the lock; the last
//! changes are kept, so that an agent which has an earlier one gets the difference. Where there are no sites, policies and
//! peers nothing is kept in memory until an agent asks.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use bytes::Bytes;
use charliehub_proto::{
    expected::{Expected, ExpectedDelta, Served},
    peer::Peer,
    policy::Policy,
    site::Site,
};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use uuid::Uuid;

use crate::{
    compile::Compiler,
    row::{Key, Row, Table},
    snapshot::encode::{gzip, hex},
};

/// Changes that are kept of each agent, for the difference.
const KEPT: usize = 32;
/// Agents that something is kept of; with more, each answer is made anew.
const AGENTS: usize = 256;

/// Which rows are others than before.
#[derive(Clone, Debug)]
pub enum Changed {
    Everything,
    These(Vec<Key>),
}

/// What all agents expect, and who waits for it.
#[derive(Debug, Default)]
pub struct Expectations {
    state: Mutex<State>,
    /// How often something changed; 0: nothing was read.
    news: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    /// An agent has asked.
    wanted: bool,
    revision: i64,
    changes: u64,
    /// The name of each row that is served with a certificate.
    rows: BTreeMap<Key, (String, Served)>,
    /// The rows of each name: the first one says how it is served, and any of them who keeps its DNS record.
    of_name: BTreeMap<String, BTreeSet<Key>>,
    names: Arc<Names>,
    sites: BTreeMap<Key, Site>,
    policies: BTreeMap<Key, (String, Policy)>,
    peers: BTreeMap<Key, Peer>,
    agents: BTreeMap<String, Agent>,
}

/// Each name, and how it is served.
#[derive(Clone, Debug, Default)]
struct Names {
    all: BTreeMap<String, Served>,
    /// Made once for all agents, and not again where only sites change.
    hash: OnceLock<String>,
}

impl Names {
    fn hash(&self) -> &str {
        self.hash.get_or_init(|| hex(&Sha256::digest(serde_json::to_vec(&self.all).unwrap_or_default())))
    }
}

/// What one agent was given last, and what led there.
#[derive(Debug)]
struct Agent {
    made_of: u64,
    newest: Arc<Ready>,
    deltas: VecDeque<ExpectedDelta>,
}

/// All that one agent expects, ready to be sent.
#[derive(Debug)]
pub struct Ready {
    pub expected: Expected,
    body: OnceLock<Bytes>,
    gzip: OnceLock<Bytes>,
}

impl Ready {
    fn new(expected: Expected) -> Self {
        Self { expected, body: OnceLock::new(), gzip: OnceLock::new() }
    }

    pub fn body(&self) -> Bytes {
        self.body.get_or_init(|| serde_json::to_vec(&self.expected).unwrap_or_default().into()).clone()
    }

    pub fn gzip(&self) -> Bytes {
        self.gzip.get_or_init(|| gzip(&self.body())).clone()
    }
}

impl Expectations {
    /// Takes what was read. Who waits wakes up only where it concerns an agent.
    pub fn take(&self, compiler: &Compiler, changed: Changed, revision: i64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let first = state.changes == 0;
        if first
            && !state.wanted
            && compiler.rows().range(Key { table: Table::Sites, id: Uuid::nil() }..).next().is_none()
        {
            return;
        }
        state.revision = revision;
        let keys: Vec<Key> = match changed {
            Changed::These(keys) if !first => keys,
            Changed::These(_) | Changed::Everything => {
                let known = state.rows.keys().chain(state.sites.keys()).chain(state.policies.keys());
                let known = known.chain(state.peers.keys());
                known.chain(compiler.rows().keys()).copied().collect::<BTreeSet<_>>().into_iter().collect()
            }
        };
        let mut news = first;
        for key in keys {
            news |= state.put(key, compiler);
        }
        if news {
            state.changes += 1;
            self.news.send_replace(state.changes);
        }
    }

    /// An agent asks. False: nothing was kept until now, so everything has to be read again.
    pub fn want(&self) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.wanted = true;
        state.changes > 0
    }

    /// Wakes up with each change.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// The agents that sites, policies or peers name.
    pub fn agents(&self) -> BTreeSet<String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let of_sites = state.sites.values().map(|site| site.agent.clone());
        let of_peers = state.peers.values().flat_map(|peer| peer.agents.iter().cloned());
        of_sites.chain(state.policies.values().map(|(agent, _)| agent.clone())).chain(of_peers).collect()
    }

    /// What `agent` expects as things are; none before anything was read.
    pub fn of(&self, agent: &str) -> Option<Arc<Ready>> {
        let (made_of, parts) = {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.changes == 0 {
                return None;
            }
            match state.agents.get(agent) {
                Some(known) if known.made_of == state.changes => return Some(Arc::clone(&known.newest)),
                _ => (state.changes, state.parts(agent)),
            }
        };
        let ready = Arc::new(Ready::new(parts.put_together(agent)));
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.keep(agent, made_of, &ready);
        Some(ready)
    }

    /// What leads from the digest `have` to what `agent` expects now, where that is known and shorter.
    pub fn since(&self, agent: &str, have: &str, now: &Ready) -> Option<Bytes> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let known = state.agents.get(agent).filter(|known| known.newest.expected.digest == now.expected.digest)?;
        let mut path = known.deltas.iter().skip_while(|delta| delta.from != have).cloned();
        let delta = path.next()?;
        let delta = path.fold(delta, ExpectedDelta::then);
        drop(state);
        let is_shorter = delta.names.len() + delta.gone.len() <= now.expected.names.len();
        is_shorter.then(|| serde_json::to_vec(&delta).ok())?.map(Bytes::from)
    }
}

impl State {
    /// Brings one row up to what it is now. True where an agent would notice.
    fn put(&mut self, key: Key, compiler: &Compiler) -> bool {
        let row = compiler.rows().get(&key).map(|row| &**row);
        match (key.table, row) {
            (Table::Domains, _) => self.serve(key, compiler.served(&key).as_ref()),
            (Table::Fragments, _) => false,
            (Table::Sites, Some(Row::Site(row))) => {
                self.sites.insert(key, row.site.clone()).is_none_or(|was| was != row.site)
            }
            (Table::Policies, Some(Row::Policy(row))) => {
                let now = (row.agent.clone(), row.body.clone());
                self.policies.insert(key, now.clone()).is_none_or(|was| was != now)
            }
            (Table::Peers, Some(Row::Peer(row))) => {
                self.peers.insert(key, row.peer.clone()).is_none_or(|was| was != row.peer)
            }
            (table, Some(row)) => {
                let reason = if let Row::Bad(bad) = row { &*bad.reason } else { "it is another row" };
                tracing::error!(?table, id = %key.id, reason, "a row is not understood: agents go by what it was");
                false
            }
            (Table::Sites, None) => self.sites.remove(&key).is_some(),
            (Table::Policies, None) => self.policies.remove(&key).is_some(),
            (Table::Peers, None) => self.peers.remove(&key).is_some(),
        }
    }

    fn serve(&mut self, key: Key, now: Option<&(String, Served)>) -> bool {
        let was = match now {
            Some(now) => self.rows.insert(key, now.clone()),
            None => self.rows.remove(&key),
        };
        if was.as_ref() == now {
            return false;
        }
        if let Some((name, _)) = &was
            && let Some(rows) = self.of_name.get_mut(name)
        {
            rows.remove(&key);
            if rows.is_empty() {
                self.of_name.remove(name);
            }
        }
        if let Some((name, _)) = now {
            self.of_name.entry(name.clone()).or_default().insert(key);
        }
        let mut news = false;
        for (name, _) in was.iter().chain(now) {
            let served = self.served(name);
            if self.names.all.get(name) == served.as_ref() {
                continue;
            }
            news = true;
            let names = Arc::make_mut(&mut self.names);
            names.hash = OnceLock::new();
            match served {
                Some(served) => names.all.insert(name.clone(), served),
                None => names.all.remove(name),
            };
        }
        news
    }

    /// How a name is served. It has one DNS record, so a row that says who keeps it says it for those that leave it open.
    fn served(&self, name: &str) -> Option<Served> {
        let rows = || self.of_name.get(name).into_iter().flatten().filter_map(|key| self.rows.get(key));
        let (_, first) = rows().next()?;
        let dns_mode = rows().map(|(_, served)| served.dns_mode).max().unwrap_or_default();
        Some(Served { dns_mode, ..first.clone() })
    }

    fn parts(&self, agent: &str) -> Parts {
        let sites = self.sites.values().filter(|site| site.agent == agent).cloned();
        let policy = self.policies.values().find(|(of, _)| of == agent).map(|(_, policy)| policy.clone());
        let peers = self.peers.values().filter(|peer| peer.agents.iter().any(|of| of == agent)).cloned();
        Parts {
            revision: self.revision,
            sites: sites.collect(),
            policy: policy.unwrap_or_default(),
            peers: peers.collect(),
            names: Arc::clone(&self.names),
        }
    }

    fn keep(&mut self, agent: &str, made_of: u64, ready: &Arc<Ready>) {
        let Some(known) = self.agents.get_mut(agent) else {
            if self.agents.len() < AGENTS {
                let new = Agent { made_of, newest: Arc::clone(ready), deltas: VecDeque::new() };
                self.agents.insert(agent.to_owned(), new);
            }
            return;
        };
        // Somebody else may have been faster.
        if made_of <= known.made_of {
            return;
        }
        known.made_of = made_of;
        if known.newest.expected.digest == ready.expected.digest {
            return;
        }
        known.deltas.push_back(ready.expected.since(&known.newest.expected));
        if known.deltas.len() > KEPT {
            known.deltas.pop_front();
        }
        known.newest = Arc::clone(ready);
    }
}

/// What one agent's expectation is made of.
struct Parts {
    revision: i64,
    sites: Vec<Site>,
    policy: Policy,
    peers: Vec<Peer>,
    names: Arc<Names>,
}

impl Parts {
    fn put_together(mut self, agent: &str) -> Expected {
        self.sites.sort_by(|a, b| a.name.cmp(&b.name));
        self.peers.sort_by(|a, b| a.name.cmp(&b.name));
        let all = (agent, &self.sites, &self.policy, self.names.hash());
        // Where there are no peers it is what it was before there could be some.
        let all =
            if self.peers.is_empty() { serde_json::to_vec(&all) } else { serde_json::to_vec(&(all, &self.peers)) };
        Expected {
            agent: agent.to_owned(),
            revision: self.revision,
            digest: hex(&Sha256::digest(all.unwrap_or_default())),
            sites: self.sites,
            policy: self.policy,
            names: Arc::unwrap_or_clone(self.names).all,
            peers: self.peers,
        }
    }
}

#[cfg(test)]
mod tests;
