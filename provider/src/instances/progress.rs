//! What an instance does with what it is sent, told by its polls and by the digest that it runs.
//!
//! Traefik says nothing to who serves it. It decodes an answer, polls again, and runs the config a little later; one that it
//! cannot decode it drops, and backs off (measured: the next poll comes 2-20 ms after an accepted body, 0.27-2.3 s after a
//! refused one). So: *refused* when the next poll is late and the digest does not run in time; *late* when only the second
//! is so.
//!
//! Pure: time is an argument.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

/// Configs sent that it may still run; of more, the oldest were overtaken.
const SENT: usize = 32;
/// A next poll within this time after an answer says nothing.
const SOON: Duration = Duration::from_millis(200);
/// It is not refused before this time is over, whatever its polls say.
const REFUSED: Duration = Duration::from_secs(1);
/// The same of one that runs nothing of ours: it may have started this moment, beside everything else on its machine.
const FIRST: Duration = Duration::from_secs(3);
/// Nor late before this.
const LATE: Duration = Duration::from_secs(5);
/// Between two looks while something is on its way: a share of the time since it was sent, and no less than this.
const STEP: Duration = Duration::from_millis(2);
const SHARE: u32 = 8;
/// Between two looks at one that does not run what it should, and is not expected to soon.
const PATIENT: Duration = Duration::from_secs(2);
/// Between two looks when nothing is expected.
const IDLE: Duration = Duration::from_secs(5);
/// Bodies of 2^30 bytes and more are one.
const MAGNITUDES: usize = 32;

/// A config that was sent.
#[derive(Clone, Debug)]
struct Sent {
    digest: Arc<str>,
    bytes: usize,
    at: Instant,
    /// When the instance polled again.
    polled: Option<Instant>,
}

/// How far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing was sent.
    #[default]
    Nothing,
    /// It runs what it was sent last.
    Current,
    Behind,
    Late,
    Refused,
}

/// What is new after a look.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    /// It runs this, which it did not before, so long after it was sent.
    Runs {
        digest: Arc<str>,
        after: Duration,
    },
    Refused {
        digest: Arc<str>,
    },
    Late {
        digest: Arc<str>,
    },
}

#[derive(Debug, Default)]
pub(super) struct Progress {
    sent: VecDeque<Sent>,
    running: Option<Arc<str>>,
    stage: Stage,
    looked: Option<Instant>,
    /// What runs cannot be used: each look finds it anew.
    unusable: bool,
    /// The slowest next poll after an accepted body, by the magnitude of its size.
    polls: [Duration; MAGNITUDES],
    /// The longest time from sent to running.
    reload: Duration,
}

impl Progress {
    pub(super) fn stage(&self) -> Stage {
        self.stage
    }

    /// The digest that it ran at the last look.
    pub(super) fn running(&self) -> Option<&Arc<str>> {
        self.running.as_ref()
    }

    /// How long it has not been running what it was sent last.
    pub(super) fn lag(&self, now: Instant) -> Duration {
        match (self.stage, self.sent.back()) {
            (Stage::Nothing | Stage::Current, _) | (_, None) => Duration::ZERO,
            (_, Some(last)) => now.duration_since(last.at),
        }
    }

    /// It was sent the config of this digest. On a new connection it may be a new process, which runs nothing yet.
    pub(super) fn sent(&mut self, digest: &Arc<str>, bytes: usize, fresh: bool, at: Instant) {
        if fresh {
            self.sent.clear();
            self.running = None;
        } else if self.sent.back().is_some_and(|last| last.digest == *digest) {
            return;
        }
        if self.sent.len() == SENT {
            self.sent.pop_front();
        }
        self.sent.push_back(Sent { digest: Arc::clone(digest), bytes, at, polled: None });
        self.unusable = false;
        self.stage = if self.running.as_ref() == Some(digest) { Stage::Current } else { Stage::Behind };
        self.looked = None;
    }

    /// It polled again.
    pub(super) fn polled(&mut self, at: Instant) {
        if let Some(last) = self.sent.back_mut()
            && last.polled.is_none()
        {
            last.polled = Some(at);
            if self.stage == Stage::Behind {
                // A body that it took runs at any moment.
                self.looked = None;
            }
        }
    }

    /// A look found that it runs `digest`, or nothing of ours.
    pub(super) fn looked(&mut self, digest: Option<&str>, now: Instant) -> Option<News> {
        self.looked = Some(now);
        let was = self.running.take();
        self.running = digest.map(Arc::from);
        let found = self.sent.iter().rposition(|sent| Some(&*sent.digest) == digest);
        let mut news = None;
        if let Some(at) = found {
            if was.as_deref() != digest || at > 0 || std::mem::take(&mut self.unusable) {
                news = self.accepted(at, now);
            }
            self.sent.drain(..at);
        }
        if self.sent.back().is_none_or(|last| Some(&*last.digest) == digest) {
            self.stage = if self.sent.is_empty() { Stage::Nothing } else { Stage::Current };
            return news;
        }
        if self.stage == Stage::Current {
            self.stage = Stage::Behind;
        }
        news.or_else(|| self.overdue(now))
    }

    fn accepted(&mut self, at: usize, now: Instant) -> Option<News> {
        let sent = self.sent.get(at)?;
        let after = now.duration_since(sent.at);
        // One that was seen late for another reason would teach us to be patient with everything.
        if self.stage == Stage::Behind {
            self.reload = self.reload.max(after);
        }
        if let Some(polled) = sent.polled
            && let Some(slowest) = self.polls.get_mut(magnitude(sent.bytes))
        {
            *slowest = (*slowest).max(polled.duration_since(sent.at));
        }
        Some(News::Runs { digest: Arc::clone(&sent.digest), after })
    }

    /// Judges that what was sent last does not run.
    fn overdue(&mut self, now: Instant) -> Option<News> {
        let last = self.sent.back()?;
        let waited = now.duration_since(last.at);
        let usual = self.polls.get(magnitude(last.bytes)).copied().unwrap_or_default();
        let slow = last.polled.unwrap_or(now).duration_since(last.at) > SOON.max(usual * 4);
        let digest = Arc::clone(&last.digest);
        let patience = if self.running.is_some() { REFUSED } else { FIRST };
        if slow && waited > patience.max(self.reload * 2) && self.stage != Stage::Refused {
            self.stage = Stage::Refused;
            return Some(News::Refused { digest });
        }
        if waited > LATE.max(self.reload * 4) && self.stage == Stage::Behind {
            self.stage = Stage::Late;
            return Some(News::Late { digest });
        }
        None
    }

    pub(super) fn is_in_doubt(&self) -> bool {
        self.looked.is_none()
    }

    /// A look found nothing that tells of another config.
    pub(super) fn rested(&mut self, now: Instant) {
        self.looked = Some(now);
    }

    /// Something is unusual: the next look is at once.
    pub(super) fn doubt(&mut self) {
        self.looked = None;
    }

    /// What it was sent runs, but cannot be used: as good as refused.
    pub(super) fn unusable(&mut self) {
        self.stage = Stage::Refused;
        self.unusable = true;
    }

    /// When to look again.
    pub(super) fn next_look(&self, now: Instant) -> Instant {
        let Some(looked) = self.looked else { return now };
        let step = match (self.stage, self.sent.back()) {
            (Stage::Behind, Some(last)) => {
                let since = last.polled.unwrap_or(last.at);
                (now.duration_since(since) / SHARE).clamp(STEP, PATIENT)
            }
            (Stage::Late | Stage::Refused, _) => PATIENT,
            _ => IDLE,
        };
        looked + step
    }
}

fn magnitude(bytes: usize) -> usize {
    bytes.checked_ilog2().map_or(0, |log| log as usize + 1).min(MAGNITUDES - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    struct Story {
        progress: Progress,
        start: Instant,
    }

    impl Story {
        fn new() -> Self {
            Self { progress: Progress::default(), start: Instant::now() }
        }

        fn sent(&mut self, digest: &str, at: u64) {
            self.progress.sent(&digest.into(), 10_000, false, self.start + ms(at));
        }

        fn polled(&mut self, at: u64) {
            self.progress.polled(self.start + ms(at));
        }

        fn looked(&mut self, digest: &str, at: u64) -> Option<News> {
            self.progress.looked(Some(digest).filter(|digest| !digest.is_empty()), self.start + ms(at))
        }
    }

    #[test]
    fn what_runs_is_told_once_with_its_time() {
        let mut story = Story::new();
        story.sent("a", 0);
        assert_eq!((story.looked("", 2), story.progress.stage()), (None, Stage::Behind));
        story.polled(5);
        assert_eq!(story.looked("a", 8), Some(News::Runs { digest: "a".into(), after: ms(8) }));
        assert_eq!((story.looked("a", 5_000), story.progress.stage()), (None, Stage::Current));
        // Two at once: the first is overtaken.
        story.sent("b", 6_000);
        story.sent("c", 6_001);
        assert_eq!(story.looked("c", 6_020), Some(News::Runs { digest: "c".into(), after: ms(19) }));
        // Back to one that ran before.
        story.sent("a", 7_000);
        assert_eq!(story.looked("c", 7_002), None);
        assert_eq!(story.looked("a", 7_010), Some(News::Runs { digest: "a".into(), after: ms(10) }));
    }

    #[test]
    fn an_overtaken_one_that_runs_for_a_moment_is_told_too() {
        let mut story = Story::new();
        story.sent("a", 0);
        story.sent("b", 1);
        assert_eq!(story.looked("a", 5), Some(News::Runs { digest: "a".into(), after: ms(5) }));
        assert_eq!(story.progress.stage(), Stage::Behind);
        assert_eq!(story.looked("a", 7), None, "once");
        assert_eq!(story.looked("b", 9), Some(News::Runs { digest: "b".into(), after: ms(8) }));
    }

    #[test]
    fn a_late_poll_and_no_digest_in_time_are_a_refusal_and_only_both() {
        let mut story = Story::new();
        story.sent("a", 0);
        story.polled(4);
        assert!(matches!(story.looked("a", 10), Some(News::Runs { .. })));
        story.sent("b", 1_000);
        assert_eq!(story.looked("a", 1_900), None, "too early");
        assert_eq!(story.looked("a", 2_100), Some(News::Refused { digest: "b".into() }), "not polled yet either");
        assert_eq!((story.looked("a", 3_000), story.progress.stage()), (None, Stage::Refused), "once");
        story.sent("c", 4_000);
        story.polled(4_010);
        assert_eq!(story.looked("a", 6_000), None, "it polled at once: the body was taken");
        assert_eq!(story.looked("a", 9_100), Some(News::Late { digest: "c".into() }));
        assert_eq!(story.looked("c", 20_000), Some(News::Runs { digest: "c".into(), after: ms(16_000) }));
        story.sent("d", 21_000);
        story.polled(21_500);
        assert_eq!(story.looked("c", 21_900), None);
        assert_eq!(story.looked("c", 22_100), Some(News::Refused { digest: "d".into() }), "16 s taught us nothing");
    }

    #[test]
    fn a_slow_instance_is_given_the_time_that_it_took_before() {
        let mut story = Story::new();
        story.sent("a", 0);
        story.polled(800);
        story.looked("", 900);
        assert!(matches!(story.looked("a", 950), Some(News::Runs { .. })), "the first one is slow");
        story.sent("b", 10_000);
        story.polled(12_000);
        assert_eq!(story.looked("a", 12_500), None, "2 s is not 4 times 0.8 s");
        story.sent("c", 20_000);
        assert_eq!(story.looked("a", 21_800), None, "0.95 s is longer than half of it");
        assert_eq!(story.looked("a", 23_300), Some(News::Refused { digest: "c".into() }));
    }

    #[test]
    fn one_that_runs_nothing_yet_is_given_time_to_start() {
        let mut story = Story::new();
        story.sent("a", 0);
        story.polled(1_500);
        assert_eq!(story.looked("", 2_900), None);
        assert_eq!(story.looked("", 3_100), Some(News::Refused { digest: "a".into() }));
    }

    #[test]
    fn a_new_connection_may_be_a_new_process() {
        let mut story = Story::new();
        story.sent("a", 0);
        story.looked("a", 5);
        story.progress.sent(&"a".into(), 10_000, true, story.start + ms(100));
        assert_eq!(story.progress.stage(), Stage::Behind);
        assert_eq!(story.looked("a", 120), Some(News::Runs { digest: "a".into(), after: ms(20) }));
    }

    #[test]
    fn what_cannot_be_used_is_found_anew_by_each_look_until_it_can() {
        let mut story = Story::new();
        story.sent("a", 0);
        assert!(matches!(story.looked("a", 5), Some(News::Runs { .. })));
        story.progress.unusable();
        assert_eq!(story.progress.stage(), Stage::Refused);
        assert!(matches!(story.looked("a", 2_005), Some(News::Runs { .. })));
        assert_eq!((story.looked("a", 9_000), story.progress.stage()), (None, Stage::Current), "this time it could");
    }

    #[test]
    fn looks_are_dense_at_first_and_rare_at_last() {
        let mut story = Story::new();
        story.sent("a", 0);
        let mut now = story.start;
        let mut looks = 0;
        while now < story.start + ms(2_000) {
            now = story.progress.next_look(now).max(now);
            story.progress.looked(None, now);
            looks += 1;
        }
        assert!((20..60).contains(&looks), "{looks}");
        story.looked("a", 2_500);
        assert!(story.progress.next_look(now) >= story.start + ms(7_000));
    }
}
