//! Rows in, snapshot out: compile, guard, swap.
//!
//! Holds the newest rows and what they compile to and, while a revision is withheld, the rows that run in its place: the
//! last good ones with the newest restrictions on top. No I/O; what must be kept goes to `record`.

mod behind;
mod division;
mod fitted;
pub mod kept;
mod parts;
mod restrict;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use charliehub_proto::{
    domain::{Domain, Status},
    instance::{HeldBack, Owner},
    traefik::since::Version,
};
use jiff::Timestamp;
use uuid::Uuid;

pub use self::{
    behind::Behind,
    division::Division,
    fitted::{Hold, Policy, owner, owners},
    parts::{Decided, Parts},
    restrict::restricted,
};
use self::{
    fitted::{Fit, Given, Judge},
    restrict::{Hosts, is_protected},
};
use crate::{
    compile::{Answer, Compiler, Counts, Door, Settings, State},
    config::Regression,
    guard::{self, Guard, Limits, Reason, Size, Verdict},
    heard::{Heard, What},
    impact::{at_doors, impact},
    row::{Key, Row, Rows, Table},
    snapshot::{Current, Own, Snapshot, disk::Good, encode::Draft, encode::Encoded, history::Candidate},
    store::{read::Reading, rows::Fetched, sync::Held},
};

/// Revisions that may be approved are remembered up to this many; older ones were overtaken long ago.
const REMEMBERED: usize = 1000;
/// Rows that are compiled at once: what is between two states is in memory for so many only.
const STEP: usize = 100_000;

/// A change of one row; `None` is its removal.
type Change = (Key, Option<Arc<Row>>);

/// What requests met at some doors.
type Met = BTreeMap<Door, Option<Answer>>;

/// What instances do not take, by their names.
pub type Holds = BTreeMap<String, Vec<(Key, Hold)>>;

/// What became of a reading, for those who keep it.
#[derive(Debug)]
pub enum Outcome {
    /// Nothing that Traefik or history would notice.
    Nothing,
    /// It runs.
    Served(Served),
    /// It waits for an operator, and something else runs.
    Withheld { served: Served, candidate: Candidate },
}

/// What runs now.
#[derive(Debug)]
pub struct Served {
    pub snapshot: Arc<Snapshot>,
    pub rows: Behind,
}

#[derive(Debug)]
struct Withheld {
    /// The rows of the last good revision, less what was removed in small steps since.
    base: Rows,
    base_held: Held,
    revisions: Vec<Held>,
    reason: Reason,
    /// What was removed from the base since.
    gone: Rows,
}

impl Withheld {
    /// Takes rows from the base that the newest have not any more, if those are few, and not all.
    ///
    /// A protected one stays while a neighbour does that waits to be removed: its place would be open as part of it.
    fn remove(&mut self, step: &BTreeSet<Key>, newest: &Rows, guard: &Guard) {
        let waits = |key: &Key| !served(newest, key) && !step.contains(key);
        let waiting = self.base.iter().filter(|(key, row)| is_served(row) && waits(key));
        let hosts: Hosts<'_> = waiting.filter_map(|(_, row)| domain(row)).collect();
        let stays = |row: &Row| domain(row).is_some_and(|row| is_protected(row) && hosts.cover(row));
        let goes = |key: &Key| self.base.get(key).is_some_and(|row| is_served(row) && !stays(row));
        let step: Vec<Key> = step.iter().copied().filter(goes).collect();
        let left = self.base.values().filter(|row| is_served(row)).count();
        if guard.may_remove(self.gone.len() + step.len()) && step.len() < left {
            for key in step {
                self.gone.extend(self.base.remove(&key).map(|row| (key, row)));
            }
        }
    }

    /// Gives back to the base what the newest have again.
    fn put_back(&mut self, newest: &Rows) {
        let back = self.gone.keys().filter(|key| served(newest, key)).copied().collect::<Vec<_>>();
        for key in back {
            self.base.extend(self.gone.remove(&key).map(|row| (key, row)));
        }
    }
}

/// What changed with a revision.
struct Step {
    held: Held,
    at: Option<Timestamp>,
    changes: Vec<Change>,
}

/// What is decided for all, to whoever publishes a part of it.
#[derive(Clone, Copy)]
struct Above<'a> {
    /// The newest of all.
    rows: &'a Rows,
    /// Why the newest revision is withheld from all.
    reason: Option<Reason>,
}

#[derive(Debug)]
pub struct Publisher {
    newest: Compiler,
    /// What the newest rows compile to, as bytes.
    draft: Draft,
    newest_held: Option<Held>,
    /// What ran when we started, until the first reading.
    start: Option<(Held, Rows)>,
    withheld: Option<Withheld>,
    guard: Guard,
    current: Arc<Current>,
    /// When the newest row was written.
    written_at: Option<Timestamp>,
    policy: Policy,
    /// What the instances are given that tell what they run.
    fits: BTreeMap<Arc<str>, Fit>,
    /// The rows that run, for those.
    ran: Rows,
    /// The newest rows were told as those behind what runs, all of them up to the last reading.
    told: bool,
    /// How many rows the last reading changed.
    changed: usize,
}

impl Publisher {
    pub fn new(settings: Arc<Settings>, limits: Limits, current: Arc<Current>) -> Self {
        Self {
            newest: Compiler::new(settings),
            draft: Draft::default(),
            newest_held: None,
            start: None,
            withheld: None,
            guard: Guard::new(limits),
            current,
            written_at: None,
            policy: Policy { containment: false, regression: Regression::Nothing },
            fits: BTreeMap::new(),
            ran: Rows::new(),
            told: false,
            changed: 0,
        }
    }

    /// Gives each of these instances what it takes, as it tells what it runs; until it tells its version it is taken for
    /// this one.
    pub fn fit(&mut self, instances: impl IntoIterator<Item = (Arc<str>, Version)>, policy: Policy) {
        self.policy = policy;
        self.fits = instances.into_iter().map(|(instance, floor)| (instance, Fit::new(floor))).collect();
    }

    /// Serves the last known good config, until the first reading.
    pub fn resume(&mut self, good: Good) {
        self.guard.agreed(good.size);
        self.fits.values_mut().for_each(|fit| fit.resume(true));
        let messages = messages(good.rows.values());
        let next = Snapshot::new(good.held, None, good.encoded, good.size, None, messages);
        let rows = Behind::All(good.rows);
        self.run(next, &rows);
        self.start = match rows {
            Behind::All(rows) => Some((good.held, rows)),
            Behind::Since(_) => None,
        };
    }

    /// What the newest rows compile to, whether it runs or not.
    pub fn newest(&self) -> &Compiler {
        &self.newest
    }

    /// The revisions that wait for an operator, oldest first.
    pub fn withheld(&self) -> &[Held] {
        self.withheld.as_ref().map_or(&[], |withheld| &withheld.revisions)
    }

    /// How many rows of the last reading were not held as they were read.
    pub fn changed(&self) -> usize {
        self.changed
    }

    /// Why the newest revision waits.
    pub fn reason(&self) -> Option<Reason> {
        self.withheld.as_ref().map(|withheld| withheld.reason)
    }

    /// Compiles what was read and decides what runs.
    pub fn take(&mut self, reading: Reading, now: Instant) -> Outcome {
        let step = self.step(reading);
        let revision = step.held.revision;
        let outcome = self.advance(step, None, now);
        self.current.decide(revision);
        outcome
    }

    /// What of a reading is not held as it was read.
    fn step(&self, reading: Reading) -> Step {
        let Reading { held, everything, rows, at, forked: _ } = reading;
        Step { held, at, changes: self.changes(everything, rows) }
    }

    fn advance(&mut self, step: Step, above: Option<Above<'_>>, now: Instant) -> Outcome {
        self.fits.values_mut().for_each(|fit| fit.resume(false));
        let Step { held, at, changes } = step;
        self.written_at = at;
        let met = self.met_at(&changes);
        let undo = self.apply(changes);
        if let Some((resumed, rows)) = &mut self.start
            && *resumed == held
            && rows.is_empty()
        {
            // It was resumed without its rows, which are these.
            rows.clone_from(self.newest.rows());
            if !self.fits.is_empty() {
                self.ran.clone_from(rows);
            }
        }
        self.changed = undo.len();
        let unchanged = self.newest_held.replace(held) == Some(held) && undo.is_empty();
        if unchanged && self.start.is_none() { Outcome::Nothing } else { self.decide(held, undo, &met, above, now) }
    }

    /// An operator agreed to `held`, one of [`Publisher::withheld`], whose rows were `rows` (not needed for the newest).
    pub fn approve(&mut self, held: Held, rows: Rows, now: Instant) -> Outcome {
        self.approve_below(held, rows, None, now)
    }

    fn approve_below(&mut self, held: Held, rows: Rows, above: Option<Above<'_>>, now: Instant) -> Outcome {
        let Some(newest) = self.newest_held else { return Outcome::Nothing };
        let Some(withheld) = &mut self.withheld else { return Outcome::Nothing };
        if held == newest {
            self.guard.agreed(size(&self.newest));
            self.withheld = None;
            return Outcome::Served(self.serve_newest(newest, &[], now));
        }
        if !withheld.revisions.contains(&held) {
            // It waits for what was decided above, which is another decision now.
            return self.decide(newest, Vec::new(), &Met::new(), above, now);
        }
        withheld.base = rows;
        withheld.base_held = held;
        withheld.gone = Rows::new();
        withheld.revisions.retain(|one| one.revision > held.revision);
        let base = withheld.base.clone();
        self.guard.agreed(size(&self.compile(base)));
        self.decide(newest, Vec::new(), &Met::new(), above, now)
    }

    /// What brings the newest rows up to what was read.
    fn changes(&self, everything: bool, read: Vec<Fetched>) -> Vec<Change> {
        let mut changes: Vec<Change> = Vec::new();
        if everything && !self.newest.rows().is_empty() {
            let found: BTreeSet<Key> = read.iter().map(|fetched| fetched.key).collect();
            changes.extend(self.newest.rows().keys().filter(|key| !found.contains(key)).map(|key| (*key, None)));
        }
        for fetched in read {
            let same = self.newest.rows().get(&fetched.key).map(|row| &**row) == fetched.row.as_deref();
            if !same {
                changes.push((fetched.key, fetched.row));
            }
        }
        // What rows refer to comes first, so that they are compiled once. And in order, because what is known of neighbours
        // lies beside each other: else most of the time goes to fetch memory.
        changes.sort_by_key(|(key, _)| (key.table == Table::Domains, *key));
        changes
    }

    /// Compiles the newest rows, and returns what they were.
    fn apply(&mut self, changes: Vec<Change>) -> Vec<Change> {
        let (mut undo, mut changes) = (Vec::with_capacity(changes.len()), changes.into_iter().peekable());
        while changes.peek().is_some() {
            undo.extend(self.newest.apply(changes.by_ref().take(STEP).collect()));
        }
        if undo.len() > self.newest.rows().len() / 2 {
            self.newest.pack();
        }
        undo
    }

    /// `undo` is the way back to what was, and `met` what requests met then.
    fn decide(&mut self, held: Held, undo: Vec<Change>, met: &Met, above: Option<Above<'_>>, now: Instant) -> Outcome {
        let next = size(&self.newest);
        if next.routes == 0 && self.current.load().is_none() {
            // There never was a config: polls are held until there is one.
            return Outcome::Nothing;
        }
        let runs = self.current.load().is_some();
        let verdict = match above.and_then(|above| above.reason).filter(|_| runs) {
            // Many falls that are small in each part are a large one.
            Some(reason) => Verdict::Withhold(reason),
            None => match self.guard.judge(next, now) {
                Verdict::Accept => self.judge_impact(met),
                verdict @ Verdict::Withhold(_) => verdict,
            },
        };
        match verdict {
            Verdict::Accept => {
                if self.withheld.take().is_some() {
                    tracing::info!(revision = held.revision, "the newest revision is withheld no longer");
                }
                Outcome::Served(self.serve_newest(held, &undo, now))
            }
            Verdict::Withhold(reason) => {
                self.withhold(held, reason, undo);
                self.serve_withheld(held, reason, above)
            }
        }
    }

    /// Judges what the newest rows do to the protected places of those that run; `met` is what requests met of these, where
    /// nothing is withheld.
    fn judge_impact(&self, met: &Met) -> Verdict {
        if !self.asks_for_impact() {
            return Verdict::Accept;
        }
        let impact = match self.base() {
            Some(base) => impact(&self.compile(base.clone()), &self.newest),
            None => at_doors(met.iter().map(|(door, was)| (door, was.clone(), self.newest.answer(door)))),
        };
        guard::judge_impact(&impact, self.guard.limits())
    }

    fn asks_for_impact(&self) -> bool {
        let limits = self.guard.limits();
        (limits.hold_opening || limits.hold_login_loss) && self.current.load().is_some()
    }

    /// The rows that run, where the newest were not served.
    fn base(&self) -> Option<&Rows> {
        let withheld = self.withheld.as_ref().map(|withheld| &withheld.base);
        withheld.or(self.start.as_ref().map(|(_, rows)| rows))
    }

    /// What requests meet before `changes` at the places of the rows that they are about.
    fn met_at(&self, changes: &[Change]) -> Met {
        if !self.asks_for_impact() || self.base().is_some() {
            return Met::new();
        }
        let then = |(key, row): &Change| row.as_ref().map(|row| self.newest.doors_of(key, row)).unwrap_or_default();
        let doors = changes.iter().flat_map(|change| [self.newest.doors(&change.0), then(change)]).flatten();
        // Most rows stay where they are: each place is asked once.
        let doors: BTreeSet<Door> = doors.collect();
        doors
            .into_iter()
            .map(|door| {
                let answer = self.newest.answer(&door);
                (door, answer)
            })
            .collect()
    }

    /// `undo` is the way back to what was told last.
    fn serve_newest(&mut self, held: Held, undo: &[Change], now: Instant) -> Served {
        let size = size(&self.newest);
        self.start = None;
        self.guard.runs(size, now);
        let encoded = self.encode_newest();
        let messages = messages(self.newest.maintained());
        let next = self.with_tls(Snapshot::new(held, None, encoded, size, self.written_at, messages), &self.newest);
        let rows = self.newest.rows();
        let rows = if std::mem::replace(&mut self.told, true) {
            Behind::Since(undo.iter().map(|(key, _)| (*key, rows.get(key).cloned())).collect())
        } else {
            Behind::All(rows.clone())
        };
        Served { snapshot: self.run(next, &rows), rows }
    }

    /// Says how `next` speaks TLS, where somebody will ask for it.
    fn with_tls(&self, next: Snapshot, compiler: &Compiler) -> Snapshot {
        if self.fits.is_empty() { next } else { next.with_tls_of(compiler.pieces()) }
    }

    /// Swaps in what all get, and what some get in its place.
    fn run(&mut self, next: Snapshot, rows: &Behind) -> Arc<Snapshot> {
        let mut own = Own::new();
        if !self.fits.is_empty() {
            let changed = self.ran_before(rows);
            let revision = next.withheld.unwrap_or(next.held.revision);
            for (instance, fit) in &mut self.fits {
                let given = fit.give(&self.ran, &changed, revision, &self.newest);
                own.extend(fitting(instance, given, &next, &self.current));
                fit.given(own.get(instance).map_or(next.digest(), |own| own.digest()));
            }
        }
        self.current.swap(next, own)
    }

    /// Takes the rows that run from now on; what changed, as it was.
    fn ran_before(&mut self, rows: &Behind) -> Vec<Change> {
        match rows {
            Behind::All(rows) => {
                let changed = differences(&self.ran, rows);
                self.ran.clone_from(rows);
                changed
            }
            Behind::Since(changes) => {
                let mut take = |(key, row): (&Key, &Option<Arc<Row>>)| match row {
                    Some(row) => (*key, self.ran.insert(*key, Arc::clone(row))),
                    None => (*key, self.ran.remove(key)),
                };
                changes.iter().map(&mut take).collect()
            }
        }
    }

    /// An instance told what it did with what it was given. True when it is given something else from now on.
    pub fn hear(&mut self, heard: &Heard, now: Timestamp) -> bool {
        let Some(fit) = self.fits.get_mut(&heard.instance) else { return false };
        let news = match &heard.what {
            What::Version(version) => fit.is_version(version),
            What::Again => fit.again(),
            What::Runs { .. } | What::Refuses { .. } => false,
        };
        // Before the first config there is nothing that it could have been given.
        let Some(shared) = self.current.load() else { return false };
        let judge = Judge {
            policy: self.policy,
            rows: &self.ran,
            compiler: &self.newest,
            revision: shared.withheld.unwrap_or(shared.held.revision),
            now,
        };
        let changed = match &heard.what {
            What::Runs { digest, found } => fit.runs(digest, found, &judge),
            What::Refuses { digest, reason } => fit.refuses(digest, reason, &judge),
            What::Again | What::Version(_) => news,
        };
        if changed {
            let given = fit.refit(&self.ran, judge.revision, &self.newest);
            let given = fitting(&heard.instance, given, &shared, &self.current);
            fit.given(given.as_ref().map_or(shared.digest(), |(_, own)| own.digest()));
            self.current.swap_for(&heard.instance, given.map(|(_, own)| own));
        }
        changed
    }

    /// What each instance does not take, for the next start.
    pub fn holds(&self) -> Holds {
        let all = self.fits.iter().map(|(instance, fit)| (instance.to_string(), fit.holds()));
        all.filter(|(_, holds)| !holds.is_empty()).collect()
    }

    /// What each instance did not take before we were started.
    pub fn restore(&mut self, holds: Holds) {
        for (instance, holds) in holds {
            if let Some(fit) = self.fits.get_mut(&*instance) {
                fit.restore(holds);
            }
        }
    }

    /// What an instance is not given as the rows say.
    pub fn held_back(&self, instance: &str) -> Vec<HeldBack> {
        self.fits.get(instance).map(|fit| fit.held_back(&self.ran)).unwrap_or_default()
    }

    /// The row or fragment that an object of the configuration came from; the words are those of Traefik's API.
    pub fn owner(&self, protocol: &str, kind: &str, name: &str) -> Option<Owner> {
        owners(self.newest.rows(), &self.newest.who_has(protocol, kind, name))
    }

    /// Keeps what ran as the base, and lets small removals through.
    fn withhold(&mut self, held: Held, reason: Reason, undo: Vec<Change>) {
        let newest = self.newest.rows();
        if let Some(withheld) = &mut self.withheld {
            withheld.reason = reason;
            if withheld.revisions.last() != Some(&held) {
                withheld.revisions.push(held);
            }
            if withheld.revisions.len() > REMEMBERED {
                withheld.revisions.remove(0);
            }
            // Only what this step removed: the rest waits.
            let step: BTreeSet<Key> = undo
                .iter()
                .filter(|(key, row)| row.as_ref().is_some_and(|row| is_served(row)) && !served(newest, key))
                .map(|(key, _)| *key)
                .collect();
            withheld.put_back(newest);
            withheld.remove(&step, newest, &self.guard);
            return;
        }
        let (base_held, base) = self.start.take().unwrap_or_else(|| {
            let mut rows = newest.clone();
            for (key, row) in undo.into_iter().rev() {
                match row {
                    Some(row) => rows.insert(key, row),
                    None => rows.remove(&key),
                };
            }
            (self.current.load().map_or(held, |snapshot| snapshot.held), rows)
        });
        let mut withheld = Withheld { base, base_held, revisions: vec![held], reason, gone: Rows::new() };
        if matches!(reason, Reason::Quarantine { .. }) {
            let base = withheld.base.iter();
            let step: BTreeSet<Key> =
                base.filter(|(key, row)| is_served(row) && !served(newest, key)).map(|(key, _)| *key).collect();
            withheld.remove(&step, newest, &self.guard);
        }
        self.withheld = Some(withheld);
    }

    fn serve_withheld(&mut self, held: Held, reason: Reason, above: Option<Above<'_>>) -> Outcome {
        let Some(withheld) = &self.withheld else { return Outcome::Nothing };
        self.told = false;
        let (base, base_held) = (withheld.base.clone(), withheld.base_held);
        // A row that moved to another part may be narrower there.
        let newest = above.map_or_else(|| self.newest.rows(), |above| above.rows);
        let running = self.compile(restricted(&base, newest));
        let (size_running, waits) = (size(&running), Some(held.revision));
        let next = match self.current.load() {
            // The rows behind what runs are not known: a start with a config from history, whose rows are forgotten.
            Some(runs) if size_running.routes == 0 => Snapshot::new(
                base_held,
                waits,
                Arc::clone(&runs.encoded),
                runs.size,
                self.written_at,
                runs.messages.clone(),
            ),
            _ => {
                let messages = messages(running.maintained());
                let encoded = encoded(&Draft::new(running.pieces()), self.current.load().as_deref());
                let next = Snapshot::new(base_held, waits, encoded, size_running, self.written_at, messages);
                self.with_tls(next, &running)
            }
        };
        let running_rows = Behind::All(running.rows().clone());
        let snapshot = self.run(next, &running_rows);
        let encoded = self.encode_newest();
        let candidate = Candidate { held, encoded, size: size(&self.newest), reason };
        Outcome::Withheld { served: Served { snapshot, rows: Behind::All(base) }, candidate }
    }

    fn compile(&self, rows: Rows) -> Compiler {
        Compiler::of(self.newest.configured(), rows)
    }

    fn encode_newest(&mut self) -> Arc<Encoded> {
        let changes = self.newest.take_changes();
        self.draft.update(self.newest.pieces(), &changes);
        encoded(&self.draft, self.current.load().as_deref())
    }
}

/// The bytes of `draft`; those that are served already when they are the same.
fn encoded(draft: &Draft, served: Option<&Snapshot>) -> Arc<Encoded> {
    let digest = draft.digest();
    match served {
        Some(snapshot) if **snapshot.digest() == *digest => Arc::clone(&snapshot.encoded),
        _ => Arc::new(draft.finish_as(digest)),
    }
}

/// What an instance is given in place of `shared`, if it is.
fn fitting(
    instance: &Arc<str>,
    given: Option<&mut Given>,
    shared: &Snapshot,
    current: &Current,
) -> Option<(Arc<str>, Arc<Snapshot>)> {
    let given = given?;
    let encoded = given.encode(current.load_for(instance).as_deref());
    let given = given.compiler();
    let (held, waits, messages) = (shared.held, shared.withheld, shared.messages.clone());
    let snapshot =
        Snapshot::new(held, waits, encoded, size(given), shared.written_at, messages).with_tls_of(given.pieces());
    Some((Arc::clone(instance), Arc::new(snapshot)))
}

/// What of `now` is not as it was, with what it was.
fn differences(was: &Rows, now: &Rows) -> Vec<Change> {
    let same = |key: &Key, row: &Arc<Row>| was.get(key).is_some_and(|old| Arc::ptr_eq(old, row) || old == row);
    let other = now.iter().filter(|(key, row)| !same(key, row)).map(|(key, _)| (*key, was.get(key).cloned()));
    let gone = was.iter().filter(|(key, _)| !now.contains_key(key)).map(|(key, row)| (*key, Some(Arc::clone(row))));
    other.chain(gone).collect()
}

pub fn size(compiler: &Compiler) -> Size {
    let counts = compiler.counts();
    Size { routes: counts.routers, quarantined: counts.quarantined }
}

fn domain(row: &Row) -> Option<&Domain> {
    match row {
        Row::Domain(domain) => Some(domain),
        Row::Fragment(_) | Row::Site(_) | Row::Policy(_) | Row::Peer(_) | Row::Bad(_) => None,
    }
}

/// True for a row that takes requests, or whose place must be closed.
fn is_served(row: &Row) -> bool {
    match row {
        Row::Domain(domain) => domain.is_served(),
        Row::Fragment(fragment) => fragment.enabled,
        Row::Site(_) | Row::Policy(_) | Row::Peer(_) => false,
        Row::Bad(_) => true,
    }
}

fn served(rows: &Rows, key: &Key) -> bool {
    rows.get(key).is_some_and(|row| is_served(row))
}

fn messages<'a>(rows: impl Iterator<Item = &'a Arc<Row>>) -> BTreeMap<Uuid, Arc<str>> {
    let maintained = rows.filter_map(|row| domain(row)).filter(|row| row.status == Status::Maintenance);
    maintained
        .map(|row| (row.id, row.maintenance_message.as_deref().unwrap_or("Down for maintenance.").into()))
        .collect()
}

/// What the newest rows come to, in short.
#[derive(Debug, Default)]
pub struct Overview {
    pub counts: Counts,
    /// The rows and fragments that do not run as they say: what people call them, and the reason.
    pub quarantined: BTreeMap<Key, (String, String)>,
}

impl Overview {
    pub fn of(compiler: &Compiler) -> Self {
        let name = |key: &Key| compiler.rows().get(key).map(|row| row.name()).unwrap_or_default();
        let quarantined = quarantined(compiler).map(|(key, reason)| (*key, (name(key), reason.to_owned())));
        Self { counts: compiler.counts().clone(), quarantined: quarantined.collect() }
    }
}

/// The rows that do not run as they say, with the reason.
fn quarantined(compiler: &Compiler) -> impl Iterator<Item = (&Key, &str)> {
    compiler.closed().filter_map(|key| match &compiler.route(key)?.state {
        State::Closed { reason } => Some((key, &**reason)),
        State::Live | State::Maintenance | State::Off => None,
    })
}
