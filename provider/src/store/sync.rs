//! When to connect, listen, read, compare and hang up: the sync protocol as a state machine.
//!
//! Pure: events and time go in with [`Sync::on`], what to do next comes out of [`Sync::next`], and [`Sync::wake_at`] tells
//! when to ask again without an event. The loop in `listen` does the I/O. The rules:
//!
//! * LISTEN comes before the first read, so what commits in between is heard.
//! * A notification is a hint and only sets a flag; one read at a time finds out what is true.
//! * A heartbeat on the listening connection finds a lost notification, and its missed deadline a dead connection.
//! * What has no room in memory is not read; it is tried again with growing waits, whatever is committed meanwhile.
//! * Every minute the rows held are compared with the database; once an hour they are all read again.

use std::time::{Duration, Instant};

use uuid::Uuid;

const BEAT_EVERY: Duration = Duration::from_secs(1);
const BEAT_DEADLINE: Duration = Duration::from_millis(1500);
const DELTA_DEADLINE: Duration = Duration::from_secs(7);
const FULL_DEADLINE: Duration = Duration::from_mins(2);
const COMPARE_EVERY: Duration = Duration::from_mins(1);
/// Between two comparisons is so many times what the last one took.
const COMPARE_PAUSES: u32 = 100;
const REREAD_EVERY: Duration = Duration::from_hours(1);
const PROBE_DEADLINE: Duration = Duration::from_secs(2);
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const LAST_BACKOFF: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(15);
const HEALTHY_AFTER: Duration = Duration::from_secs(10);

/// The revision that is held, and the token that tells its branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub revision: i64,
    pub token: Uuid,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Connected, and `LISTEN` is committed.
    Listening,
    /// Something was committed, by a notification or an operator's wish.
    Hint,
    /// Somebody wants everything read again. While a read is under way, tell it when that has ended.
    Wish,
    /// Our own notification came back: this connection delivers.
    ProbeBack,
    /// The heartbeat's answer.
    Beat { newest: Held, in_recovery: bool },
    /// A read ended well; everything up to and with this revision is held.
    Read(Held),
    /// A read of everything goes on: how long it may take depends on how much there is.
    Progress,
    /// A read was not done, since what there is to read has no room in memory.
    TooLarge,
    /// A comparison ended; false when the rows held differ from the database.
    Compared(bool),
    /// The connection is gone, or a statement on it failed.
    Lost,
    /// Whoever connects now has another login: what is connected with the old one is given up.
    Renewed,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Connect,
    /// Send the heartbeat's query on the listening connection.
    Beat,
    /// Read what changed since what is held, or everything.
    Read {
        everything: bool,
    },
    Compare,
    /// Drop the connections without a good-bye, because a polite close may hang.
    Hangup(Cause),
    /// The way to the database goes through a transaction pooler: notifications are not delivered.
    Pooled,
}

/// Why a connection was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    HeartbeatMissed,
    ReadTooSlow,
    InRecovery,
    Lost,
    LoginRenewed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Offline { again: Instant },
    Connecting,
    Online(Online),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Online {
    since: Instant,
    beat_at: Instant,
    beat_sent: Option<Instant>,
    probe: Option<Instant>,
    /// What runs on the reading connection, and until when it may.
    busy: Option<Instant>,
}

/// No read before `until`: the last ones, the wait behind which was `last`, had no room.
#[derive(Clone, Copy, Debug)]
struct Pause {
    until: Instant,
    last: Duration,
}

#[derive(Debug)]
pub struct Sync {
    link: Link,
    held: Option<Held>,
    dirty: bool,
    everything: bool,
    compare_at: Instant,
    reread_at: Instant,
    backoff: Duration,
    hangup: Option<Cause>,
    pause: Option<Pause>,
    /// In [0, 1): the jitter of the next wait.
    jitter: fn() -> f64,
}

impl Sync {
    /// `jitter` gives a random number in [0, 1).
    pub fn new(now: Instant, jitter: fn() -> f64) -> Self {
        Self {
            link: Link::Offline { again: now },
            held: None,
            dirty: true,
            everything: true,
            compare_at: now + COMPARE_EVERY,
            reread_at: now + REREAD_EVERY,
            backoff: Duration::ZERO,
            hangup: None,
            pause: None,
            jitter,
        }
    }

    pub fn held(&self) -> Option<Held> {
        self.held
    }

    pub fn on(&mut self, event: Event, now: Instant) {
        match event {
            Event::Listening => {
                self.link = Link::Online(Online {
                    since: now,
                    beat_at: now + BEAT_EVERY,
                    beat_sent: None,
                    probe: Some(now + PROBE_DEADLINE),
                    busy: None,
                });
                self.dirty = true;
            }
            Event::Hint => self.dirty = true,
            Event::Wish => (self.dirty, self.everything) = (true, true),
            Event::ProbeBack => {
                if let Link::Online(online) = &mut self.link {
                    online.probe = None;
                }
            }
            Event::Beat { in_recovery: true, .. } => self.give_up(Cause::InRecovery),
            Event::Beat { newest, .. } => {
                if let Link::Online(online) = &mut self.link {
                    online.beat_sent = None;
                    online.beat_at = now + BEAT_EVERY;
                    self.dirty |= self.held != Some(newest);
                    if now.duration_since(online.since) > HEALTHY_AFTER {
                        self.backoff = Duration::ZERO;
                    }
                }
            }
            Event::Read(held) => {
                self.held = Some(held);
                // Who compiled what was read did not look whether the beat came back meanwhile.
                if let Link::Online(Online { beat_sent: Some(sent), .. }) = &mut self.link {
                    *sent = now;
                }
                self.everything = false;
                self.pause = None;
                self.idle();
            }
            Event::Progress => {
                if let Link::Online(Online { busy: Some(until), .. }) = &mut self.link {
                    *until = now + FULL_DEADLINE;
                }
            }
            Event::TooLarge => {
                let last = self.pause.map_or(FIRST_PAUSE, |pause| (pause.last * 2).min(LAST_PAUSE));
                self.pause = Some(Pause { until: now + last, last });
                // What is held may be all that was asked to be read again; then a delta does, which is small.
                self.everything = self.held.is_none();
                self.dirty = true;
                self.idle();
            }
            Event::Compared(same) => {
                // A large table is not looked at all the time.
                if let Link::Online(Online { busy: Some(until), .. }) = &self.link {
                    let took = (now + FULL_DEADLINE).saturating_duration_since(*until);
                    self.compare_at = self.compare_at.max(now + took * COMPARE_PAUSES);
                }
                self.idle();
                if !same {
                    (self.dirty, self.everything) = (true, true);
                }
            }
            Event::Lost => self.give_up(Cause::Lost),
            Event::Renewed => self.give_up(Cause::LoginRenewed),
        }
    }

    /// The next thing to do, if there is one now. Ask until there is none.
    pub fn next(&mut self, now: Instant) -> Option<Action> {
        if let Some(cause) = self.hangup.take() {
            let wait = self.backoff.mul_f64((self.jitter)());
            self.backoff = (self.backoff * 2).clamp(FIRST_BACKOFF, LAST_BACKOFF);
            self.link = Link::Offline { again: now + wait };
            return Some(Action::Hangup(cause));
        }
        match &mut self.link {
            Link::Offline { again } if now >= *again => {
                self.link = Link::Connecting;
                Some(Action::Connect)
            }
            Link::Offline { .. } | Link::Connecting => None,
            Link::Online(online) => {
                if online.beat_sent.is_some_and(|sent| now >= sent + BEAT_DEADLINE) {
                    self.give_up(Cause::HeartbeatMissed);
                    return self.next(now);
                }
                if online.busy.is_some_and(|until| now >= until) {
                    self.give_up(Cause::ReadTooSlow);
                    return self.next(now);
                }
                if online.beat_sent.is_none() && now >= online.beat_at {
                    online.beat_sent = Some(now);
                    return Some(Action::Beat);
                }
                if online.probe.is_some_and(|until| now >= until) {
                    online.probe = None;
                    return Some(Action::Pooled);
                }
                if online.busy.is_some() {
                    return None;
                }
                if now >= self.reread_at {
                    (self.dirty, self.everything) = (true, true);
                }
                if self.dirty && self.pause.is_none_or(|pause| now >= pause.until) {
                    let everything = self.everything || self.held.is_none();
                    online.busy = Some(now + if everything { FULL_DEADLINE } else { DELTA_DEADLINE });
                    self.dirty = false;
                    if everything {
                        self.reread_at = now + REREAD_EVERY;
                        self.compare_at = now + COMPARE_EVERY;
                    }
                    return Some(Action::Read { everything });
                }
                if now >= self.compare_at {
                    self.compare_at = now + COMPARE_EVERY;
                    online.busy = Some(now + FULL_DEADLINE);
                    return Some(Action::Compare);
                }
                None
            }
        }
    }

    /// The latest moment at which [`Sync::next`] must be asked again.
    pub fn wake_at(&self) -> Option<Instant> {
        match &self.link {
            Link::Offline { again } => Some(*again),
            Link::Connecting => None,
            Link::Online(online) => {
                let beat = online.beat_sent.map_or(online.beat_at, |sent| sent + BEAT_DEADLINE);
                let paused = self.pause.filter(|_| self.dirty).map(|pause| pause.until);
                let idle = [Some(self.compare_at), Some(self.reread_at), paused]
                    .into_iter()
                    .flatten()
                    .min()
                    .filter(|_| online.busy.is_none());
                [Some(beat), online.probe, online.busy, idle].into_iter().flatten().min()
            }
        }
    }

    fn idle(&mut self) {
        if let Link::Online(online) = &mut self.link {
            online.busy = None;
        }
    }

    fn give_up(&mut self, cause: Cause) {
        if !matches!(self.link, Link::Offline { .. }) {
            // A read that was under way may have been the answer to the last hint.
            self.dirty = true;
            self.hangup = Some(cause);
        }
    }
}

#[cfg(test)]
mod tests;
