//! Decides whether a name's address in DNS must follow: what was seen over time, what the authoritative server says now, and
//! when it was changed last. Pure, and by a clock that nobody sets.
//!
//! In order: without an address nothing is done, and a right answer is left alone; an address that is not public, an alias, or
//! several addresses are refused; an address must have been there for `stable` without a break; between two changes of a name
//! lies `interval`, longer after each that failed.

use std::{
    collections::BTreeSet,
    fmt,
    net::IpAddr,
    time::{Duration, Instant},
};

use charliehub_dns::is_public;

/// After failures the pause grows up to this, or to `interval` where that is longer.
const LONGEST_PAUSE: Duration = Duration::from_mins(30);

/// The settings that it decides by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// An address is believed when it was seen for so long.
    pub stable: Duration,
    /// At most one change of a name and type within it.
    pub interval: Duration,
}

/// Which record: one of each family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Family {
    A,
    Aaaa,
}

impl Family {
    pub(super) const ALL: [Self; 2] = [Self::A, Self::Aaaa];

    pub(super) const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::A,
            IpAddr::V6(_) => Self::Aaaa,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "A",
            Self::Aaaa => "AAAA",
        })
    }
}

/// What the authoritative server says of a name and family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Answer {
    /// Nobody was asked yet.
    #[default]
    Unasked,
    /// None: there is no such record.
    Addresses { addresses: BTreeSet<IpAddr>, ttl: u32 },
    /// The name is a CNAME.
    Alias,
}

impl Answer {
    /// True when it is this address and nothing else.
    pub(super) fn is(&self, address: IpAddr) -> bool {
        matches!(self, Self::Addresses { addresses, .. } if addresses.len() == 1 && addresses.contains(&address))
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unasked => f.write_str("unknown"),
            Self::Alias => f.write_str("an alias"),
            Self::Addresses { addresses, .. } if addresses.is_empty() => f.write_str("nothing"),
            Self::Addresses { addresses, .. } => {
                f.write_str(&addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
            }
        }
    }
}

/// A record that must become another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// What is there, with its TTL; none: there is no record.
    pub old: Option<(IpAddr, u32)>,
    pub new: IpAddr,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// No address is seen, or nobody answered: there is nothing to decide.
    Nothing,
    /// DNS has what is seen.
    Right,
    /// It differs, and it is too soon.
    Wait(Wait),
    Change(Change),
    Refuse(Refusal),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// The address must be there for so long yet.
    Stable(Duration),
    /// It was changed, or that was tried, too lately: for so long yet.
    Interval(Duration),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    NotPublic(IpAddr),
    Several,
    Alias,
}

/// One name and family over time.
#[derive(Clone, Debug, Default)]
pub(super) struct Follow {
    seen: Option<(IpAddr, Instant)>,
    answer: Answer,
    /// When the last change was begun, by whoever, or failed.
    begun: Option<Instant>,
    /// Changes that failed in a row.
    failures: u32,
    /// The server asked to be left alone until then.
    put_off: Option<Instant>,
}

impl Follow {
    /// What is seen now. To be told often: what was there between two tellings is not known.
    pub(super) fn see(&mut self, address: Option<IpAddr>, now: Instant) {
        self.seen = match (self.seen, address) {
            (Some((was, since)), Some(is)) if was == is => Some((was, since)),
            (_, is) => is.map(|is| (is, now)),
        };
    }

    pub(super) fn answered(&mut self, answer: Answer) {
        self.answer = answer;
    }

    pub(super) const fn answer(&self) -> &Answer {
        &self.answer
    }

    /// A change was begun at `at`, by us or by another provider.
    pub(super) fn begun(&mut self, at: Instant) {
        self.begun = Some(self.begun.map_or(at, |begun| begun.max(at)));
    }

    pub(super) fn succeeded(&mut self) {
        (self.failures, self.put_off) = (0, None);
    }

    /// The last change failed, at `at`; the server may have said for how long it wants no more. The pause begins here: what
    /// hangs takes longer than it.
    pub(super) fn failed(&mut self, at: Instant, put_off: Option<Instant>) {
        self.failures = self.failures.saturating_add(1);
        self.put_off = put_off;
        self.begun(at);
    }

    pub(super) fn decide(&self, limits: &Limits, now: Instant) -> Decision {
        let Some((new, since)) = self.seen else { return Decision::Nothing };
        let (addresses, ttl) = match &self.answer {
            Answer::Unasked => return Decision::Nothing,
            Answer::Alias => return Decision::Refuse(Refusal::Alias),
            Answer::Addresses { addresses, ttl } => (addresses, *ttl),
        };
        if self.answer.is(new) {
            return Decision::Right;
        }
        if !is_public(new) {
            return Decision::Refuse(Refusal::NotPublic(new));
        }
        if addresses.len() > 1 {
            return Decision::Refuse(Refusal::Several);
        }
        let lasts = now.saturating_duration_since(since);
        if lasts < limits.stable {
            return Decision::Wait(Wait::Stable(limits.stable.saturating_sub(lasts)));
        }
        let next = self.begun.map(|begun| begun + self.pause(limits)).max(self.put_off);
        match next.map(|next| next.saturating_duration_since(now)) {
            Some(left) if !left.is_zero() => Decision::Wait(Wait::Interval(left)),
            _ => Decision::Change(Change { old: addresses.first().map(|old| (*old, ttl)), new }),
        }
    }

    fn pause(&self, limits: &Limits) -> Duration {
        let longer = limits.interval.saturating_mul(2_u32.saturating_pow(self.failures.saturating_sub(1)));
        longer.min(LONGEST_PAUSE).max(limits.interval)
    }
}

#[cfg(test)]
mod tests;
