//! Decides whether a poll of Traefik is answered now or held, and for how long.
//!
//! The first request of an instance on a connection is answered at once; a later one is held until the digest differs from
//! the one last sent on this connection to this instance. A restarted Traefik opens a new connection and so never waits;
//! a lost answer closes its connection and so is never believed.
//!
//! An instance that hangs up while held has a `pollTimeout` shorter than our `wait`: it is held for less from then on.
//! One that leaves a gap between polls has a long `pollInterval`. Both are told which line to change.
//!
//! Polls that were answered together would all end together too, by one change after the other: each is held a little less
//! than it asked for, by chance.
//!
//! Pure: time and chance are arguments.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// The line of Traefik's static configuration that lets it keep a poll open.
pub const ADVICE_TIMEOUT: &str = "providers.http.pollTimeout: 60s";
/// The line that lets the next poll follow at once.
pub const ADVICE_INTERVAL: &str = "providers.http.pollInterval: 10ms";

/// A gap this long between an answer and the next poll is a change that waits.
const GAP: Duration = Duration::from_millis(300);
/// So many gaps in a row, because Traefik backs off after an error or is busy at times.
const GAPS: u32 = 3;
/// After a hang-up, the full time is tried again this much later; each failure doubles it.
const RETRY: Duration = Duration::from_hours(1);
const RETRY_MAX: Duration = Duration::from_hours(24);
const SHORTEST: Duration = Duration::from_millis(100);
/// The share of a wait over which the ends of holds are spread.
const SPREAD: f64 = 0.05;

/// What one connection has been sent, per instance. A proxy aside, that is one.
#[derive(Debug, Default)]
pub struct Sent(Vec<(Arc<str>, Arc<str>)>);

impl Sent {
    /// The digest last sent to `instance` on this connection.
    pub fn to(&self, instance: &str) -> Option<Arc<str>> {
        self.0.iter().find(|(name, _)| **name == *instance).map(|(_, digest)| Arc::clone(digest))
    }

    pub fn remember(&mut self, instance: &Arc<str>, digest: &Arc<str>) {
        match self.0.iter_mut().find(|(name, _)| name == instance) {
            Some((_, sent)) if sent == digest => {}
            Some((_, sent)) => *sent = Arc::clone(digest),
            None => self.0.push((Arc::clone(instance), Arc::clone(digest))),
        }
    }
}

/// How long a poll is held that may be held for `wait`; `chance` is from 0 to 1.
pub fn spread(wait: Duration, chance: f64) -> Duration {
    wait.mul_f64(1.0 - SPREAD * chance)
}

/// How one instance behaves, over all its connections.
#[derive(Debug, Default)]
pub struct Manners {
    limit: Option<Limit>,
    gaps: u32,
    answered: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Limit {
    hold: Duration,
    retry_at: Instant,
    retry_in: Duration,
}

impl Manners {
    /// How long a poll that asks for `wait` is held.
    pub fn hold(&self, wait: Duration, now: Instant) -> Duration {
        match self.limit {
            Some(limit) if now < limit.retry_at => wait.min(limit.hold),
            _ => wait,
        }
    }

    /// A poll came. True when its delay is news: the third long gap in a row.
    pub fn polled(&mut self, now: Instant) -> bool {
        let Some(answered) = self.answered.take() else { return false };
        if now.duration_since(answered) < GAP {
            self.gaps = 0;
            return false;
        }
        self.gaps = self.gaps.saturating_add(1);
        self.gaps == GAPS
    }

    /// A poll was answered.
    pub fn answered(&mut self, now: Instant) {
        self.answered = Some(now);
    }

    /// The instance hung up after it had been held for `held`. It is held for less from now on.
    pub fn hung_up(&mut self, held: Duration, now: Instant) {
        let retry_in = self.limit.map_or(RETRY, |limit| (limit.retry_in * 2).min(RETRY_MAX));
        let shorter = held.mul_f64(0.8).max(SHORTEST);
        self.limit = Some(Limit { hold: shorter, retry_at: now + retry_in, retry_in });
        // What follows is Traefik's back-off after its error, no gap of its interval.
        self.answered = None;
    }

    /// A poll was held for `held` and still there: what limited it is over when that was all it asked for.
    pub fn held(&mut self, held: Duration, wait: Duration) {
        if held >= spread(wait, 1.0) {
            self.limit = None;
        }
    }

    /// The lines of Traefik's static configuration to change.
    pub fn advice(&self) -> Vec<&'static str> {
        let timeout = self.limit.map(|_| ADVICE_TIMEOUT);
        let interval = (self.gaps >= GAPS).then_some(ADVICE_INTERVAL);
        [timeout, interval].into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_instance_on_a_connection_is_remembered_for_itself() {
        let (hub2, hub3): (Arc<str>, Arc<str>) = ("hub2".into(), "hub3".into());
        let mut sent = Sent::default();
        assert_eq!(sent.to("hub2"), None);
        sent.remember(&hub2, &"a".into());
        sent.remember(&hub3, &"b".into());
        sent.remember(&hub2, &"c".into());
        assert_eq!((sent.to("hub2").as_deref(), sent.to("hub3").as_deref()), (Some("c"), Some("b")));
    }

    #[test]
    fn an_instance_that_hangs_up_is_held_for_less_and_tried_again_later() {
        let (start, wait) = (Instant::now(), Duration::from_secs(55));
        let mut manners = Manners::default();
        assert_eq!(manners.hold(wait, start), wait);
        manners.hung_up(Duration::from_secs(5), start);
        assert_eq!(manners.hold(wait, start), Duration::from_secs(4));
        assert_eq!(manners.advice(), [ADVICE_TIMEOUT]);
        assert_eq!(manners.hold(wait, start + RETRY), wait, "its configuration may be mended by then");
        manners.hung_up(Duration::from_secs(5), start + RETRY);
        assert_eq!(manners.hold(wait, start + RETRY * 2), Duration::from_secs(4), "the next try waits longer");
        manners.held(wait, wait);
        assert_eq!((manners.hold(wait, start), manners.advice().len()), (wait, 0));
    }

    #[test]
    fn polls_that_began_together_do_not_end_in_the_same_moment() {
        let wait = Duration::from_secs(55);
        let ends: Vec<Duration> = (0..=100).map(|n| spread(wait, f64::from(n) / 100.0)).collect();
        assert_eq!((ends[0], ends[100]), (wait, Duration::from_millis(52_250)));
        assert!(ends.windows(2).all(|pair| pair[0] > pair[1] + Duration::from_millis(27)), "{ends:?}");
        // And the shortest of them counts as all that was asked for.
        let mut manners = Manners::default();
        manners.hung_up(Duration::from_secs(5), Instant::now());
        manners.held(ends[100], wait);
        assert!(manners.advice().is_empty());
    }

    #[test]
    fn three_long_gaps_in_a_row_are_told_once() {
        let mut now = Instant::now();
        let mut manners = Manners::default();
        let mut told = 0;
        for gap in [10, 900, 900, 10, 900, 900, 900, 900] {
            manners.answered(now);
            now += Duration::from_millis(gap);
            told += u32::from(manners.polled(now));
        }
        assert_eq!((told, manners.advice()), (1, vec![ADVICE_INTERVAL]));
        manners.answered(now);
        manners.polled(now);
        assert!(manners.advice().is_empty());
    }
}
