//! Whose turn it is to be asked for: a name that is right after `every`, one that is not after `again`, and at once what must
//! be seen twice to be believed; never more than the rate allows.
//!
//! Pure.

use std::{collections::BTreeMap, time::Duration};

use charliehub_proto::finding::Status;

use super::{Wanted, judge};
use crate::sample::Sample;

/// Seconds' worth of the rate that may be asked for at once.
const BURST: f64 = 5.0;

/// How often a name is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub every: Duration,
    pub again: Duration,
}

/// What came of asking for a name.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub wanted: Wanted,
    /// Since the boot.
    when: Duration,
    /// Those of its samples that are worth their memory: of few names all.
    kept: Box<[Sample]>,
    /// Questions in a row that were bad.
    bad: u32,
    /// When it was bad last.
    was_bad: Option<Duration>,
}

impl Asked {
    pub(super) fn new(
        wanted: Wanted,
        when: Duration,
        samples: Vec<Sample>,
        is_few: bool,
        earlier: Option<&Self>,
    ) -> Self {
        let is_bad = samples.iter().any(|sample| sample.status != Status::Ok);
        let kept = samples.into_iter().filter(|sample| is_few || sample.status != Status::Ok).collect();
        let bad = if is_bad { earlier.map_or(0, |earlier| earlier.bad).saturating_add(1) } else { 0 };
        let was_bad = if is_bad { Some(when) } else { earlier.and_then(|earlier| earlier.was_bad) };
        Self { wanted, when, kept, bad, was_bad }
    }

    /// When it is asked for again.
    pub(super) fn due(&self, pace: Pace) -> Duration {
        let needed = self.kept.iter().map(|sample| sample.confirm).max().unwrap_or(0);
        if self.bad > 0 && self.bad < needed {
            return Duration::ZERO;
        }
        // What was mended is looked at as often until that is believed.
        let is_lately = self.was_bad.is_some_and(|bad| self.when.saturating_sub(bad) <= pace.again * 3);
        self.when + if is_lately { pace.again.min(pace.every) } else { pace.every }
    }

    /// One for each check that it is looked at by.
    pub(super) fn samples(&self, name: &str) -> impl Iterator<Item = Sample> {
        let checks = [Some(judge::ADDRESS), self.wanted.is_issued.then_some(judge::CAA)];
        checks.into_iter().flatten().map(move |check| {
            let kept = self.kept.iter().find(|sample| sample.check == check).cloned();
            kept.unwrap_or_else(|| Sample::ok(check, name, "as it should be"))
        })
    }
}

/// How many names may be asked for still.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Budget {
    left: f64,
    filled: Option<Duration>,
}

impl Budget {
    pub(super) fn take(&mut self, rate: u32, boot: Duration) -> usize {
        let rate = f64::from(rate.max(1));
        let since = self.filled.map_or(BURST, |filled| boot.saturating_sub(filled).as_secs_f64());
        self.left = (self.left + since * rate).min(BURST * rate);
        self.filled = Some(boot);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is small and not below 0")]
        let most = self.left as usize;
        most
    }

    pub(super) fn spend(&mut self, names: usize) {
        #[expect(clippy::cast_precision_loss, reason = "it is small")]
        let spent = names as f64;
        self.left = (self.left - spent).max(0.0);
    }
}

/// Those that are due, the longest first, and before them those that were never asked for.
pub(super) fn due<'a>(
    names: impl Iterator<Item = &'a String>,
    asked: &BTreeMap<String, Asked>,
    pace: Pace,
    boot: Duration,
    most: usize,
) -> Vec<String> {
    let mut due: Vec<_> = names
        .filter_map(|name| {
            let asked = asked.get(name);
            let at = asked.map_or(Duration::ZERO, |asked| asked.due(pace));
            (at <= boot).then_some((asked.map(|asked| (at, asked.when)), name))
        })
        .collect();
    due.sort();
    due.into_iter().take(most).map(|(_, name)| name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use charliehub_proto::domain::DnsMode;

    use super::*;

    const PACE: Pace = Pace { every: Duration::from_mins(5), again: Duration::from_secs(30) };
    const WANTED: Wanted = Wanted { mode: DnsMode::Static, is_issued: false };

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn sample(status: Status) -> Vec<Sample> {
        vec![Sample::new(judge::ADDRESS, "a.test", status, "so")]
    }

    #[test]
    fn what_is_wrong_is_asked_for_at_once_until_it_is_believed_and_often_until_it_is_mended_for_good() {
        let mut asked: Option<Asked> = None;
        for (seconds, status, due) in [
            (1_000, Status::Ok, 1_300),
            (1_300, Status::Critical, 0),
            (1_301, Status::Critical, 1_331),
            (1_331, Status::Critical, 1_361),
            (1_361, Status::Ok, 1_391),
            (1_391, Status::Ok, 1_421),
            (1_421, Status::Ok, 1_451),
            (1_451, Status::Ok, 1_751),
            (1_751, Status::Unknown, 0),
            (1_752, Status::Ok, 1_782),
        ] {
            let now = Asked::new(WANTED, at(seconds), sample(status), true, asked.as_ref());
            assert_eq!(now.due(PACE), at(due), "{seconds}");
            asked = Some(now);
        }
    }

    #[test]
    fn of_many_each_has_its_turn_and_no_second_has_more_than_the_rate() {
        let names: Vec<String> = (0..3_000).map(|n| format!("{n}.test")).collect();
        let (mut asked, mut budget, mut second) = (BTreeMap::new(), Budget::default(), 1_000);
        while asked.len() < names.len() {
            let most = budget.take(20, at(second));
            let picked = due(names.iter(), &asked, PACE, at(second), most);
            assert_eq!(picked.len(), if second == 1_000 { 100 } else { 20 }, "{second}");
            budget.spend(picked.len());
            for name in picked {
                let is_new = asked.insert(name, Asked::new(WANTED, at(second), sample(Status::Ok), false, None));
                assert!(is_new.is_none(), "those that were never asked for come first");
            }
            second += 1;
        }
        assert_eq!(second, 1_000 + 146);
        assert!(asked.values().all(|asked| asked.kept.is_empty()), "nothing is kept of many that are right");
        let told = asked["7.test"].samples("7.test").next().unwrap();
        assert_eq!((told.status, told.target.as_str()), (Status::Ok, "7.test"));
    }
}
