//! Tells an outage from a lost probe: what many looks say of a target becomes one finding.
//!
//! Worse is believed after as many looks in a row as the [`Sample`] asks for, better after two looks that span
//! `Rules::clear`. A target that changes six times within `Rules::flapping` is held at its worst for as long, and a finding
//! `flapping` says so; that what is bad could not be looked at for a while is no such change. Pure: the time is an argument.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use charliehub_proto::finding::{Finding, Status};
use jiff::Timestamp;

use crate::{clock::Now, config::Timing, sample::Sample};

/// So many changes within the window are flapping.
const CHANGES: usize = 6;

/// How long something must last.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Good looks must span this.
    pub clear: Duration,
    /// The window of flapping, and how long its worst is held.
    pub flapping: Duration,
}

impl From<&Timing> for Rules {
    fn from(timing: &Timing) -> Self {
        Self { clear: timing.clear, flapping: timing.flapping }
    }
}

/// A target of a check.
pub type Key = (String, String);

/// What is believed of the targets of one group.
#[derive(Debug)]
pub struct Steady {
    rules: Rules,
    targets: BTreeMap<Key, Target>,
}

#[derive(Debug, Default)]
struct Target {
    /// None: the first looks were bad, and not enough of them to believe it.
    believed: Option<Finding>,
    worse: Option<Run>,
    /// The latest looks in a row that were better, newest last: those that span `Rules::clear`, no more.
    better: VecDeque<Calm>,
    /// When it changed, and to what, newest last; those within `Rules::flapping`.
    changes: VecDeque<(Duration, Status)>,
    /// Flapping: until when it is held, and the worst since.
    held: Option<(Duration, Status)>,
}

/// Looks in a row that were worse than is believed.
#[derive(Debug)]
struct Run {
    looks: u32,
    since: Timestamp,
}

/// A look that was better than is believed.
#[derive(Debug)]
struct Calm {
    at: Duration,
    since: Timestamp,
    status: Status,
}

impl Steady {
    /// With what was believed before, by an earlier build of the same group.
    pub fn new(rules: Rules, believed: impl IntoIterator<Item = Finding>) -> Self {
        let targets = believed
            .into_iter()
            .filter(|finding| finding.check != FLAPPING)
            .map(|finding| (key_of(&finding), Target { believed: Some(finding), ..Target::default() }));
        Self { rules, targets: targets.collect() }
    }

    /// Takes one look at all targets. A target that is not among the samples is forgotten.
    pub fn take(&mut self, samples: Vec<Sample>, now: Now) {
        let mut targets = BTreeMap::new();
        for sample in samples {
            let key = key(sample.check, &sample.target);
            let mut target = self.targets.remove(&key).or_else(|| targets.remove(&key)).unwrap_or_default();
            target.take(sample, now, self.rules);
            targets.insert(key, target);
        }
        self.targets = targets;
    }

    /// A look that said nothing: every target that is known is unknown at once, and `group` where none is.
    pub fn failed(&mut self, group: &str, why: &str, now: Now) {
        if self.targets.is_empty() {
            self.targets.insert(key(LOOK, group), Target::default());
        }
        for (key, target) in &mut self.targets {
            target.failed(key, why, now);
        }
    }

    /// True while a look was worse than what is believed, so that it is time to look again.
    pub fn is_in_doubt(&self) -> bool {
        self.targets.values().any(|target| target.worse.is_some())
    }

    /// What is believed now.
    pub fn findings(&self) -> impl Iterator<Item = Finding> {
        self.targets
            .values()
            .flat_map(|target| {
                let Some(mut finding) = target.believed.clone() else { return [None, None] };
                let Some((_, worst)) = target.held else { return [Some(finding), None] };
                let flapping = Finding {
                    check: FLAPPING.to_owned(),
                    target: format!("{} {}", finding.check, finding.target),
                    status: Status::Warning,
                    text: format!("{} changed {CHANGES} times lately, and is held at {worst}", finding.target),
                    remedy: Some("find what makes it come and go; it is held until it keeps still".to_owned()),
                    action: None,
                    ..finding.clone()
                };
                if worst > finding.status {
                    finding.text = format!("flapping, {worst} at worst; now: {}", finding.text);
                    finding.status = worst;
                }
                [Some(finding), Some(flapping)]
            })
            .flatten()
    }

    /// What the last look said and was not confirmed yet: `check` shows it, marked.
    pub fn unconfirmed(&self) -> impl Iterator<Item = &Key> {
        self.targets.iter().filter(|(_, target)| target.believed.is_none()).map(|(key, _)| key)
    }
}

/// The check of a target that changes again and again.
pub const FLAPPING: &str = "flapping";

/// The check of a group whose look did not end.
pub const LOOK: &str = "look";

fn key(check: &str, target: &str) -> Key {
    (check.to_owned(), target.to_owned())
}

/// What a finding is of.
pub fn key_of(finding: &Finding) -> Key {
    key(&finding.check, &finding.target)
}

impl Target {
    fn take(&mut self, sample: Sample, now: Now, rules: Rules) {
        if self.held.is_some_and(|(until, _)| now.boot >= until) {
            self.held = None;
            self.changes.clear();
        }
        let believed = self.believed.as_ref().map_or(Status::Ok, |finding| finding.status);
        let is_first = self.believed.is_none();
        match sample.status.cmp(&believed) {
            Ordering::Equal => {
                self.worse = None;
                self.better.clear();
                let since = self.believed.as_ref().map_or(now.wall, |finding| finding.since);
                self.believed = Some(sample.believed(since, now.wall));
            }
            Ordering::Greater => {
                self.better.clear();
                let run = self.worse.take().unwrap_or(Run { looks: 0, since: now.wall });
                let run = Run { looks: run.looks + 1, ..run };
                if run.looks >= sample.confirm {
                    self.change(sample, run.since, now, is_first, rules);
                } else {
                    self.worse = Some(run);
                    self.touch(now);
                }
            }
            Ordering::Less => {
                self.worse = None;
                self.better.push_back(Calm { at: now.boot, since: now.wall, status: sample.status });
                let spans = |from: &Calm| now.boot.saturating_sub(from.at) >= rules.clear;
                while self.better.len() > 2 && self.better.get(1).is_some_and(spans) {
                    self.better.pop_front();
                }
                let is_long = self.better.len() >= 2 && self.better.front().is_some_and(spans);
                let is_worst = self.better.iter().all(|calm| calm.status <= sample.status);
                let since = self.better.front().map_or(now.wall, |calm| calm.since);
                if is_long && is_worst {
                    self.better.clear();
                    self.change(sample, since, now, is_first, rules);
                } else {
                    self.touch(now);
                }
            }
        }
    }

    fn change(&mut self, sample: Sample, since: Timestamp, now: Now, is_first: bool, rules: Rules) {
        let status = sample.status;
        let was = self.believed.replace(sample.believed(since, now.wall)).map(|finding| finding.status);
        // A service that restarts while it is ill cannot be asked for a moment: it neither came nor went.
        let is_lost_from_sight =
            status != Status::Ok && was != Some(Status::Ok) && [Some(status), was].contains(&Some(Status::Unknown));
        if is_first || is_lost_from_sight {
            return;
        }
        self.changes.push_back((now.boot, status));
        while self.changes.front().is_some_and(|(at, _)| now.boot.saturating_sub(*at) > rules.flapping) {
            self.changes.pop_front();
        }
        if let Some((until, worst)) = self.held {
            self.held = Some((until, worst.max(status)));
        } else if self.changes.len() >= CHANGES {
            let worst = self.changes.iter().map(|(_, status)| *status).max().unwrap_or(status);
            self.held = Some((now.boot + rules.flapping, worst));
        }
    }

    fn failed(&mut self, (check, target): &Key, why: &str, now: Now) {
        self.worse = None;
        self.better.clear();
        let was = self.believed.take();
        let since = was.as_ref().filter(|was| was.status == Status::Unknown).map_or(now.wall, |was| was.since);
        self.believed = Some(Finding {
            check: check.clone(),
            target: target.clone(),
            site: was.as_ref().and_then(|was| was.site.clone()),
            status: Status::Unknown,
            text: format!("could not be looked at: {why}"),
            observed: None,
            expected: None,
            source: None,
            remedy: Some("see the agent's log; it looks again by itself".to_owned()),
            action: was.and_then(|was| was.action),
            since,
            seen: now.wall,
        });
    }

    fn touch(&mut self, now: Now) {
        if let Some(finding) = &mut self.believed {
            finding.seen = now.wall;
        }
    }
}

#[cfg(test)]
mod tests;
