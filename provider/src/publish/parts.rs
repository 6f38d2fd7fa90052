//! Everything, and the parts of it that some instances are given instead, each with a publisher of its own.
//!
//! What is read goes to all first. [`Division`] says what of the change is whose; a part then compiles, judges and swaps what
//! is its own. What is withheld from all is withheld from each part; what is withheld from a part, from that alone.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use charliehub_proto::{
    instance::{HeldBack, Owner},
    traefik::since::Version,
};
use jiff::Timestamp;

use super::{Above, Behind, Division, Holds, Outcome, Policy, Publisher, Step};
use crate::{
    compile::{Compiler, Settings},
    guard::Limits,
    heard::Heard,
    row::Rows,
    snapshot::{Current, Part, disk::Good},
    store::{read::Reading, sync::Held},
};

/// What became of a reading or a decision, for all (`None`) or in the part of this number.
pub type Decided = (Option<usize>, Outcome);

/// The publishers of all rows and of each part.
#[derive(Debug)]
pub struct Parts {
    all: Publisher,
    division: Division,
    /// In the order of [`Current::parts`].
    each: Vec<Publisher>,
    current: Arc<Current>,
}

impl Parts {
    pub fn new(settings: &Arc<Settings>, limits: Limits, current: Arc<Current>) -> Self {
        let publisher = |current: &Arc<Current>| Publisher::new(Arc::clone(settings), limits, Arc::clone(current));
        Self {
            all: publisher(&current),
            division: Division::new(current.parts().iter().map(|part| part.selector.clone()).collect()),
            each: current.parts().iter().map(|part| publisher(&part.current)).collect(),
            current,
        }
    }

    /// As [`Publisher::fit`], each where it is given its rows.
    pub fn fit(&mut self, instances: impl IntoIterator<Item = (Arc<str>, Version)>, policy: Policy) {
        let mut by_part: BTreeMap<Option<usize>, Vec<(Arc<str>, Version)>> = BTreeMap::new();
        for (instance, floor) in instances {
            by_part.entry(self.part_of(&instance)).or_default().push((instance, floor));
        }
        self.all.fit(by_part.remove(&None).unwrap_or_default(), policy);
        for (at, part) in self.each.iter_mut().enumerate() {
            part.fit(by_part.remove(&Some(at)).unwrap_or_default(), policy);
        }
    }

    /// Serves the last known good config of all, or of a part, until the first reading.
    pub fn resume(&mut self, part: Option<usize>, good: Good) {
        let publisher = part.and_then(|at| self.each.get_mut(at));
        publisher.unwrap_or(&mut self.all).resume(good);
    }

    /// Those that some instances are given.
    pub fn parts(&self) -> &[Arc<Part>] {
        self.current.parts()
    }

    /// The parts of which no config is served, by their numbers.
    pub fn unserved(&self) -> Vec<(usize, Arc<Part>)> {
        let parts = self.current.parts().iter().enumerate();
        parts.filter(|(_, part)| part.current.load().is_none()).map(|(at, part)| (at, Arc::clone(part))).collect()
    }

    /// What the newest rows compile to, all of them, whether it runs or not.
    pub fn newest(&self) -> &Compiler {
        self.all.newest()
    }

    /// The revisions that wait for an operator, for all or in some part, oldest first.
    pub fn withheld(&self) -> Vec<Held> {
        let all: BTreeMap<i64, Held> =
            self.publishers().flat_map(Publisher::withheld).map(|held| (held.revision, *held)).collect();
        all.into_values().collect()
    }

    /// How many rows of the last reading were not held as they were read.
    pub fn changed(&self) -> usize {
        self.all.changed()
    }

    /// Compiles what was read and decides what runs.
    pub fn take(&mut self, reading: Reading, now: Instant) -> Vec<Decided> {
        let step = self.all.step(reading);
        let (held, at) = (step.held, step.at);
        let changes = if self.each.is_empty() { Vec::new() } else { step.changes.clone() };
        let mut decided = vec![(None, self.all.advance(step, None, now))];
        let above = Above { rows: self.all.newest().rows(), reason: self.all.reason() };
        let divided = self.division.apply(&changes, above.rows);
        for ((number, part), changes) in self.each.iter_mut().enumerate().zip(divided) {
            let outcome = part.advance(Step { held, at, changes }, Some(above), now);
            decided.push((Some(number), kept(outcome)));
        }
        self.current.decide(held.revision);
        decided
    }

    /// An operator agreed to `held`, one of [`Parts::withheld`], whose rows were `rows` (not needed for the newest): it is agreed
    /// to wherever it waits.
    pub fn approve(&mut self, held: Held, rows: &Rows, now: Instant) -> Vec<Decided> {
        let of_all = if self.all.withheld().contains(&held) {
            self.all.approve(held, rows.clone(), now)
        } else {
            Outcome::Nothing
        };
        let mut decided = vec![(None, of_all)];
        let above = Above { rows: self.all.newest().rows(), reason: self.all.reason() };
        for (number, part) in self.each.iter_mut().enumerate() {
            let selector = self.current.parts().get(number).map(|part| &part.selector);
            let rows = selector.map(|selector| Division::select(selector, rows)).unwrap_or_default();
            decided.push((Some(number), part.approve_below(held, rows, Some(above), now)));
        }
        decided
    }

    /// An instance told what it did with what it was given. True when it is given something else from now on.
    pub fn hear(&mut self, heard: &Heard, now: Timestamp) -> bool {
        self.publisher_mut(&heard.instance).hear(heard, now)
    }

    /// What each instance does not take, for the next start.
    pub fn holds(&self) -> Holds {
        self.publishers().flat_map(Publisher::holds).collect()
    }

    /// What each instance did not take before we were started.
    pub fn restore(&mut self, holds: Holds) {
        for (instance, holds) in holds {
            self.publisher_mut(&instance).restore(Holds::from([(instance, holds)]));
        }
    }

    /// What an instance is not given as the rows say.
    pub fn held_back(&self, instance: &str) -> Vec<HeldBack> {
        let part = self.part_of(instance).and_then(|at| self.each.get(at));
        part.unwrap_or(&self.all).held_back(instance)
    }

    /// The row or fragment that an object of the configuration came from; the words are those of Traefik's API.
    pub fn owner(&self, protocol: &str, kind: &str, name: &str) -> Option<Owner> {
        self.all.owner(protocol, kind, name)
    }

    fn publishers(&self) -> impl Iterator<Item = &Publisher> {
        [&self.all].into_iter().chain(&self.each)
    }

    fn part_of(&self, instance: &str) -> Option<usize> {
        let part = self.current.part_of(instance)?;
        self.current.parts().iter().position(|one| Arc::ptr_eq(one, part))
    }

    fn publisher_mut(&mut self, instance: &str) -> &mut Publisher {
        match self.part_of(instance).and_then(|at| self.each.get_mut(at)) {
            Some(part) => part,
            None => &mut self.all,
        }
    }
}

/// What is to be kept of a part: not that the revision is another, and nothing else.
fn kept(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Served(served) if matches!(&served.rows, Behind::Since(rows) if rows.is_empty()) => Outcome::Nothing,
        outcome @ (Outcome::Nothing | Outcome::Served(_) | Outcome::Withheld { .. }) => outcome,
    }
}

#[cfg(test)]
mod tests;
