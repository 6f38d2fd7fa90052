//! What some instances are given in place of what all get: all of it, but for rows that they do not take.
//!
//! For each instance that tells what it runs this remembers what changed since the config that it took last. Where it
//! refuses a row's router, or a whole config, the rows to blame are held back from it, and from nobody else: an earlier version
//! that worked is served again where it is no more open than the newest, else the place answers 503. A row is given again
//! when it changes, when what other providers told the instance does, and when an operator says so.
//!
//! One that is older or newer than what all are taken for is given all of it in the routers that it has: with parents or without.

mod earlier;
mod given;
mod suspects;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use charliehub_proto::{
    instance::{HeldBack, Instead, Owner},
    traefik::{
        Kind,
        since::{self, Version},
    },
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub(super) use self::given::Given;
use self::suspects::{Next, Suspects};
use super::Change;
use crate::{
    compile::{Compiler, Settings},
    config::Regression,
    heard::{Faulty, Found},
    row::{Key, Row, Rows, Table},
};

/// Configs of which an instance did not say yet whether it runs them; of older ones only what changed is known.
const STEPS: usize = 64;
/// What one that does not tell a release is taken for: somebody built it, from a source as new as ours.
const NEWEST: Version = Version::new(u32::MAX, 0, 0);

/// How far what an instance refuses may change what it is given.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    pub containment: bool,
    pub regression: Regression,
}

/// Why a row is held back, and what is given in its place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hold {
    /// The row that is not taken. Another version of it is tried again.
    row: Arc<Row>,
    /// `None`: its place is closed.
    instead: Option<Arc<Row>>,
    reason: String,
    revision: i64,
    since: Timestamp,
    /// What other providers told the instance then.
    others: u64,
}

/// A config that was given, and what each row that changed with it was before.
#[derive(Debug)]
struct Step {
    digest: Arc<str>,
    before: BTreeMap<Key, Option<Arc<Row>>>,
}

/// What one instance is given.
#[derive(Debug)]
pub(super) struct Fit {
    /// What it is taken for until it tells.
    floor: Version,
    version: Option<Version>,
    /// What it is given ran before we were started.
    resumed: bool,
    held: BTreeMap<Key, Hold>,
    /// Fragments that say what its version does not know.
    too_new: BTreeMap<Key, Hold>,
    steps: VecDeque<Step>,
    /// What was held back and is given with the next config, with what was given in its place.
    released: BTreeMap<Key, Option<Arc<Row>>>,
    suspects: Suspects,
    /// It took a config since we started.
    took: bool,
    /// Routers that were refused in the config that it took last.
    refused: BTreeSet<(&'static str, String)>,
    others: u64,
    /// What it is given, where that is not what all get.
    own: Option<Given>,
}

impl Fit {
    pub(super) fn new(floor: Version) -> Self {
        Self {
            floor,
            version: None,
            resumed: false,
            held: BTreeMap::new(),
            too_new: BTreeMap::new(),
            steps: VecDeque::new(),
            released: BTreeMap::new(),
            suspects: Suspects::default(),
            took: false,
            refused: BTreeSet::new(),
            others: 0,
            own: None,
        }
    }

    /// Takes the rows that run from now on, of which some `changed` (with what they were). What it is given instead of them,
    /// if anything: [`Fit::given`] it.
    pub(super) fn give(
        &mut self,
        rows: &Rows,
        given: &[Change],
        revision: i64,
        shared: &Compiler,
    ) -> Option<&mut Given> {
        let mut before = BTreeMap::new();
        for (key, was) in given {
            let was = self.held.get(key).map_or(was, |hold| &hold.instead);
            before.entry(*key).or_insert_with(|| was.clone());
        }
        let changed: BTreeSet<Key> = before.keys().copied().collect();
        self.held.retain(|key, hold| rows.get(key).is_some_and(|row| Arc::ptr_eq(row, &hold.row) || *row == hold.row));
        self.suspects.forget(&changed);
        self.steps.push_back(Step { digest: "".into(), before });
        if self.steps.len() > STEPS
            && let Some(first) = self.steps.pop_front()
            && let Some(second) = self.steps.front_mut()
        {
            // What it was before both is what it was before the first.
            second.before.extend(first.before);
        }
        self.fit(rows, Some(given), revision, shared)
    }

    /// Finds the fragments of `rows` that are too new for its version.
    fn find_too_new(&mut self, rows: &Rows, revision: i64) {
        if self.resumed && self.version.is_none() {
            return;
        }
        let version = self.version.unwrap_or(self.floor);
        let told = std::mem::take(&mut self.too_new);
        for (key, row) in rows.range(Key::fragment(Uuid::nil())..) {
            let Row::Fragment(fragment) = &**row else { continue };
            if let Some(hold) = told.get(key).filter(|hold| Arc::ptr_eq(&hold.row, row) && self.version.is_some()) {
                self.too_new.insert(*key, hold.clone());
                continue;
            }
            let Ok(kind) = fragment.kind.parse::<Kind>() else { continue };
            let Some(need) = since::needs(kind, &fragment.body).filter(|need| need.since > version) else { continue };
            let known = if self.version.is_some() { "it is" } else { "its version is not known yet; it is taken for" };
            let reason = format!(
                "body.{}: is known to Traefik from {} on, and {known} {version}; upgrade it, or leave the field out",
                need.field, need.since
            );
            let (row, since) = (Arc::clone(row), Timestamp::now());
            self.too_new.insert(*key, Hold { row, instead: None, reason, revision, since, others: 0 });
        }
    }

    /// Compiles the rows as this instance takes them.
    fn fit(&mut self, rows: &Rows, changed: Option<&[Change]>, revision: i64, shared: &Compiler) -> Option<&mut Given> {
        self.find_too_new(rows, revision);
        let whole = self.held.is_empty() && self.too_new.is_empty();
        let all = shared.configured();
        let nested = self.version.unwrap_or(self.floor).has_parents();
        if whole && (all.nested == nested || !all.nested && !shared.would_nest()) {
            self.own = None;
            return None;
        }
        self.own = self.own.take().filter(|own| own.compiler().configured().nested == nested);
        let own = self.own.get_or_insert_with(|| Given::new(&Arc::new(Settings { nested, ..(**all).clone() })));
        if whole {
            own.all(rows, changed);
            return self.own.as_mut();
        }
        let mut closed: BTreeMap<Key, String> =
            self.too_new.iter().map(|(key, hold)| (*key, hold.reason.clone())).collect();
        let mut fitting = rows.clone();
        for (key, hold) in &self.held {
            let Some(row) = rows.get(key) else { continue };
            match hold.instead.as_ref().and_then(|instead| earlier::earlier(instead, row)) {
                Some(instead) => drop(fitting.insert(*key, instead)),
                None => drop(closed.insert(*key, hold.reason.clone())),
            }
        }
        own.instead(&fitting, closed);
        self.own.as_mut()
    }

    /// What it is given from now on ran before we were started, so it takes it.
    pub(super) fn resume(&mut self, resumed: bool) {
        self.resumed = resumed;
    }

    /// It is given the config of this digest from now on.
    pub(super) fn given(&mut self, digest: &Arc<str>) {
        if self.steps.back().is_none_or(|step| !step.digest.is_empty() && step.digest != *digest) {
            self.steps.push_back(Step { digest: Arc::clone(digest), before: BTreeMap::new() });
        }
        if let Some(step) = self.steps.back_mut() {
            step.digest = Arc::clone(digest);
            for (key, was) in std::mem::take(&mut self.released) {
                step.before.entry(key).or_insert(was);
            }
        }
    }

    /// It runs the config of this digest, and this was found in it. True when it must be given something else.
    pub(super) fn runs(&mut self, digest: &str, found: &Found, judge: &Judge<'_>) -> bool {
        let Some(at) = self.steps.iter().rposition(|step| *step.digest == *digest) else { return false };
        let newest = at + 1 == self.steps.len();
        let mut before = BTreeMap::new();
        for step in self.steps.drain(..=at) {
            for (key, was) in step.before {
                before.entry(key).or_insert(was);
            }
        }
        // Later changes are told from here on.
        self.steps.push_front(Step { digest: digest.into(), before: BTreeMap::new() });
        let (took, was_refused) = (self.took, std::mem::take(&mut self.refused));
        self.took = true;
        self.refused = refused(found).map(|router| (router.protocol, router.name.clone())).collect();
        let others = std::mem::replace(&mut self.others, found.others);
        if !newest || !judge.policy.containment {
            return false;
        }
        let mut changed = false;
        for router in refused(found) {
            let regressed = took && !was_refused.contains(&(router.protocol, router.name.clone()));
            for key in judge.owners(self.own.as_ref().map(Given::compiler), router, &before) {
                changed |= self.blame(key, router, &before, regressed, judge);
            }
        }
        if others != found.others {
            changed |= self.release(|_, hold| hold.instead.is_none() && hold.others != found.others);
        }
        if let Next::Try(keys) = self.suspects.runs() {
            changed |= self.release(|key, _| keys.contains(key));
        }
        changed
    }

    /// A router is refused: holds back what is to blame. False when that was done already, and did not help.
    fn blame(
        &mut self,
        key: Key,
        router: &Faulty,
        before: &BTreeMap<Key, Option<Arc<Row>>>,
        regressed: bool,
        judge: &Judge<'_>,
    ) -> bool {
        let reason = format!("Traefik refuses {}: {}", router.name, router.errors.join("; "));
        if regressed {
            let mut culprits: Vec<Key> = before.contains_key(&key).then_some(key).into_iter().collect();
            if culprits.is_empty() {
                let fragments = before.keys().filter(|key| key.table == Table::Fragments);
                culprits = fragments.filter(|key| judge.concerns(key, router)).copied().collect();
            }
            let back: Vec<(Key, Arc<Row>)> = culprits
                .iter()
                .filter(|key| judge.may_go_back(key) && !self.held.contains_key(key))
                .filter_map(|key| Some((*key, before.get(key)?.clone()?)))
                .filter(|(key, was)| judge.rows.get(key).is_some_and(|row| earlier::earlier(was, row).is_some()))
                .collect();
            if !back.is_empty() {
                for (key, was) in back {
                    self.hold(key, Some(was), reason.clone(), judge);
                }
                return true;
            }
        }
        match self.held.get(&key) {
            Some(hold) if hold.instead.is_none() => false,
            // The earlier version does not work any more either.
            _ => self.hold(key, None, reason, judge),
        }
    }

    /// It did not take the config of this digest. True when it must be given something else.
    pub(super) fn refuses(&mut self, digest: &str, reason: &str, judge: &Judge<'_>) -> bool {
        let newest = self.steps.back().is_some_and(|step| *step.digest == *digest);
        if !newest || !judge.policy.containment {
            return false;
        }
        let mut before = BTreeMap::new();
        for step in &self.steps {
            for (key, was) in &step.before {
                before.entry(*key).or_insert_with(|| was.clone());
            }
        }
        if let Next::HoldBack(keys) = self.suspects.refuses() {
            return self.hold_all(&keys, &before, reason, judge);
        }
        let free = |key: &&Key| key.table.compiles() && !self.held.contains_key(key) && judge.rows.contains_key(key);
        let fragments: Vec<Key> =
            before.keys().filter(|key| key.table == Table::Fragments).filter(free).copied().collect();
        // Rows compile to what every Traefik takes, so they come second; and never all that there are.
        let keys = match fragments {
            keys if keys.is_empty() && self.took => before.keys().filter(free).copied().collect(),
            keys => keys,
        };
        let held = self.held.keys().filter(|key| before.contains_key(key));
        self.suspects = Suspects::of(&held.chain(&keys).copied().collect::<Vec<_>>());
        self.hold_all(&keys, &before, reason, judge)
    }

    fn hold_all(
        &mut self,
        keys: &[Key],
        before: &BTreeMap<Key, Option<Arc<Row>>>,
        reason: &str,
        judge: &Judge<'_>,
    ) -> bool {
        let mut changed = false;
        for key in keys {
            changed |= self.hold(*key, before.get(key).cloned().flatten(), reason.to_owned(), judge);
        }
        changed
    }

    fn hold(&mut self, key: Key, instead: Option<Arc<Row>>, reason: String, judge: &Judge<'_>) -> bool {
        let Some(row) = judge.rows.get(&key) else { return false };
        let (row, revision) = (Arc::clone(row), judge.revision);
        let hold = Hold { row, instead, reason, revision, since: judge.now, others: self.others };
        self.held.insert(key, hold);
        true
    }

    /// Gives it everything again. True when it was given less.
    pub(super) fn again(&mut self) -> bool {
        self.suspects = Suspects::default();
        self.release(|_, _| true)
    }

    /// Gives it again what is held back for such a reason. True when there is any.
    fn release(&mut self, such: impl Fn(&Key, &Hold) -> bool) -> bool {
        let (released, held) = std::mem::take(&mut self.held).into_iter().partition(|(key, hold)| such(key, hold));
        self.held = held;
        let released: BTreeMap<Key, Hold> = released;
        let any = !released.is_empty();
        self.released.extend(released.into_iter().map(|(key, hold)| (key, hold.instead)));
        any
    }

    /// Compiles again what it is given, after what was heard.
    pub(super) fn refit(&mut self, rows: &Rows, revision: i64, shared: &Compiler) -> Option<&mut Given> {
        self.fit(rows, None, revision, shared)
    }

    /// What it does not take, for the next start: without it the next start would find it all out again.
    pub(super) fn holds(&self) -> Vec<(Key, Hold)> {
        self.held.iter().map(|(key, hold)| (*key, hold.clone())).collect()
    }

    /// What it did not take before we were started.
    pub(super) fn restore(&mut self, holds: Vec<(Key, Hold)>) {
        self.held = holds.into_iter().collect();
    }

    /// It told its version. True when it may have to be given something else.
    pub(super) fn is_version(&mut self, text: &str) -> bool {
        let version = text.parse().unwrap_or(NEWEST);
        let before = self.version.replace(version);
        if before.is_some() && before != Some(version) {
            // Another one may take what this one did not.
            self.again();
        }
        self.too_new.clear();
        before != Some(version)
    }

    pub(super) fn held_back(&self, rows: &Rows) -> Vec<HeldBack> {
        let told = self.held.iter().chain(&self.too_new).map(|(key, hold)| HeldBack {
            owner: owner(*key, &hold.row),
            instead: match (&hold.instead, rows.get(key).map(|row| &**row)) {
                (Some(instead), Some(row)) if earlier::earlier(instead, row).is_some() => Instead::Earlier,
                (_, Some(Row::Fragment(fragment))) if !fragment.kind.ends_with(".router") => Instead::Nothing,
                _ => Instead::Closed,
            },
            reason: hold.reason.clone(),
            revision: hold.revision,
            since: hold.since,
        });
        told.collect()
    }
}

/// What is to be known to say who is to blame.
pub(super) struct Judge<'j> {
    pub(super) policy: Policy,
    /// Those that run, as all get them.
    pub(super) rows: &'j Rows,
    pub(super) compiler: &'j Compiler,
    pub(super) revision: i64,
    pub(super) now: Timestamp,
}

impl Judge<'_> {
    /// Whose router it is. Of several rows that share it those that changed are to blame, if any did.
    fn owners(&self, own: Option<&Compiler>, faulty: &Faulty, before: &BTreeMap<Key, Option<Arc<Row>>>) -> Vec<Key> {
        let Some(name) = faulty.name.strip_suffix("@http") else { return Vec::new() };
        let all = own.unwrap_or(self.compiler).who_has(faulty.protocol, faulty.kind, name);
        let changed: Vec<Key> = all.iter().filter(|key| before.contains_key(key)).copied().collect();
        if changed.is_empty() { all } else { changed }
    }

    fn may_go_back(&self, key: &Key) -> bool {
        match self.policy.regression {
            Regression::Nothing => false,
            Regression::Fragments => key.table == Table::Fragments,
            Regression::All => true,
        }
    }

    /// True when what Traefik says of a router may be about this fragment.
    fn concerns(&self, key: &Key, router: &Faulty) -> bool {
        let Some(Row::Fragment(fragment)) = self.rows.get(key).map(|row| &**row) else { return false };
        let named = router.errors.iter().any(|error| error.contains(&*fragment.name));
        named || fragment.kind.split('.').next() == Some(router.protocol)
    }
}

/// The routers that the instance does not run.
fn refused(found: &Found) -> impl Iterator<Item = &Faulty> {
    found.faulty.iter().filter(|one| one.kind == "routers" && one.status == "disabled" && one.name.ends_with("@http"))
}

/// What people call several rows: the first few, and how many more there are.
pub fn owners(rows: &Rows, keys: &[Key]) -> Option<Owner> {
    const NAMED: usize = 3;
    let few: Vec<Owner> = keys.iter().take(NAMED).filter_map(|key| Some(owner(*key, rows.get(key)?))).collect();
    let names = few.iter().map(|owner| owner.name.as_str()).collect::<Vec<_>>().join(", ");
    let more = keys.len().saturating_sub(NAMED);
    let name = if more > 0 { format!("{names} and {more} more") } else { names };
    few.into_iter().next().map(|first| Owner { name, ..first })
}

/// What people call the row of a key.
pub fn owner(key: Key, row: &Row) -> Owner {
    let (kind, name) = match row {
        Row::Fragment(fragment) => (fragment.kind.clone(), fragment.name.clone()),
        Row::Domain(_) => ("domain".to_owned(), row.name()),
        Row::Site(site) => ("site".to_owned(), site.site.name.clone()),
        Row::Policy(policy) => ("policy".to_owned(), policy.agent.clone()),
        Row::Peer(peer) => ("peer".to_owned(), peer.peer.name.clone()),
        Row::Bad(bad) => match key.table {
            Table::Domains => ("domain".to_owned(), row.name()),
            Table::Fragments => {
                let kind = bad.raw.get("kind").and_then(serde_json::Value::as_str).unwrap_or_default();
                (kind.to_owned(), row.name())
            }
            Table::Sites => ("site".to_owned(), row.name()),
            Table::Policies => ("policy".to_owned(), row.name()),
            Table::Peers => ("peer".to_owned(), row.name()),
        },
    };
    Owner { id: key.id, kind, name }
}
